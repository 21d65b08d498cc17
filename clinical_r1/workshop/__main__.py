"""The workshop: exercises of `notebooks/exercises`, their materials, and checks that say what is missing.

    python -m clinical_r1.workshop build    student and solution notebooks from notebooks/exercises/masters
    python -m clinical_r1.workshop time     run every solution, write the seconds into the instructor's page

A check never raises because of an answer, prints what is wrong without the right value, and returns True or False.
Everything clinical here is teaching material, not medical advice.
"""

import argparse
import sys

from clinical_r1.files import ROOT
from clinical_r1.workshop.notebooks import EXERCISES, FOLDER, build, run_cells, timings, write_timings


def main(argv=None) -> int:
    """`build` writes the notebooks from their masters; `time` measures the solutions; `run` runs one solution."""
    parser = argparse.ArgumentParser(prog="python -m clinical_r1.workshop", description=main.__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("build", help="student and solution notebooks from notebooks/exercises/masters")
    commands.add_parser(
        "time", help="run every solution three times, write the table of the instructor's page"
    )
    run = commands.add_parser("run", help="run one solution and print the seconds that its checks took")
    run.add_argument("name", choices=list(EXERCISES))
    args = parser.parse_args(argv)
    if args.command == "build":
        print(*(path.relative_to(ROOT) for path in build()), sep="\n")
    elif args.command == "time":
        print(write_timings(timings()).relative_to(ROOT))
    else:
        names, seconds = run_cells(FOLDER / "solutions" / f"{args.name}.ipynb")
        print(f"{seconds:.3f}")
        return 0 if names["passed"] else 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
