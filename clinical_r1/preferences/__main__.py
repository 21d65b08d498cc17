"""python -m clinical_r1.preferences: RL, conversation, preferences, and what each arm then says (`experiment`)."""

import argparse
import sys

from clinical_r1.files import PipelineError
from clinical_r1.preferences.experiment import CHAIN, SIZES, preference_settings, run, shown


def main(argv=None) -> int:
    """Train a chain, ask it in both prompts, and print what is true of what it says."""
    parser = argparse.ArgumentParser(prog="python -m clinical_r1.preferences", description=main.__doc__)
    parser.add_argument("size", choices=list(SIZES))
    parser.add_argument("--out", default=".", help="folder that holds runs/")
    parser.add_argument(
        "--seeds", nargs="+", type=int, default=[0], metavar="SEED", help="the seeds themselves"
    )
    parser.add_argument("--arms", nargs="+", default=list(CHAIN), metavar="ARM")
    parser.add_argument(
        "--split", choices=["validation", "test"], default="test", help="which questions are asked"
    )
    args = parser.parse_args(argv)
    try:
        settings = preference_settings(args.size, args.out, args.seeds, args.arms)
    except ValueError as error:
        parser.error(str(error))
    try:
        table = run(settings, args.split)
    except (PipelineError, ValueError) as error:  # such as answers of an arm that was trained anew
        print(error, file=sys.stderr)
        return 1
    for style in table["style"].unique():
        print(f"asked in style {style}:\n{shown(table, style)}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
