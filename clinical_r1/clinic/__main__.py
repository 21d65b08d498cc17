"""`python -m clinical_r1.clinic show` prints a case, `pretrain` rebuilds the base model, `check` and `review` its tables."""

import argparse
import os
import sys
from pathlib import Path

import numpy as np

from clinical_r1.clinic.cases import LEVELS, Case, load_set, set_size
from clinical_r1.clinic.knowledge import FOLDER, knowledge_base
from clinical_r1.files import write_text


def main(argv=None) -> int:
    """The clinic base model rebuilt, a case printed, a knowledge base checked."""
    parser = argparse.ArgumentParser(prog="python -m clinical_r1.clinic", description=main.__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    pretrain = commands.add_parser("pretrain", help="rebuild the clinic base model (minutes on two cores)")
    pretrain.add_argument("--out", required=True, help="folder to write the model and its tokenizer to")
    pretrain.add_argument("--steps", type=int, help="training steps in all; default: the shipped model's")
    pretrain.add_argument(
        "--seed", type=int, help="of the weights and the corpus; default: the shipped model's"
    )
    show = commands.add_parser("show", help="print one question of a benchmark with a scripted honest answer")
    show.add_argument("benchmark", choices=list(LEVELS))
    show.add_argument("--index", type=int, default=0)
    show.add_argument("--weights", action="store_true", help="and what each finding says about each option")
    check = commands.add_parser(
        "check", help="what is refused in a knowledge base, and how its sets come out"
    )
    check.add_argument("folder", nargs="?", type=Path, default=FOLDER, help="default: the shipped one")
    review = commands.add_parser("review", help="a sheet of all relations for a clinician to fill in")
    review.add_argument("--family", help="only the relations of one family")
    review.add_argument("--out", type=Path, help="a .csv or .md file; default: CSV, printed")
    args = parser.parse_args(argv)
    commands_by_name = {"pretrain": _pretrain, "show": _show, "check": _check, "review": _review}
    return commands_by_name[args.command](parser, args)


def _show(parser, args) -> int:
    from clinical_r1.clinic.traces import HONEST, write_trace
    from clinical_r1.prompts import render_question

    if not 0 <= args.index < set_size(args.benchmark, "validation"):
        most = set_size(args.benchmark, "validation") - 1
        parser.error(f"--index: got {args.index}; expected 0 to {most}, a question of the validation set.")
    question = load_set(args.benchmark, "validation", args.index + 1)[-1]
    case = Case.from_json(question.meta["case"])
    answer = write_trace(case, "crpo", HONEST, np.random.default_rng(0))
    _print(f"{render_question(question)}\n{answer}\n")
    if args.weights:
        from clinical_r1.clinic.review import evidence_table

        _print(f"\n{evidence_table(case).to_string()}\n")
    return 0


def _print(text: str) -> None:
    try:
        print(text, end="", flush=True)
    except BrokenPipeError:  # `| head`: who reads wants no more
        # Or the interpreter complains at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _review(parser, args) -> int:
    from clinical_r1.clinic.review import as_csv, as_markdown, sheet

    try:
        rows = sheet(knowledge_base(), args.family)
    except ValueError as error:
        parser.error(f"--family: {error}")
    if args.out is None:
        _print(as_csv(rows))
    elif args.out.suffix not in (".csv", ".md"):
        parser.error(f"--out: got {args.out}; expected a file that ends in .csv or .md.")
    else:
        try:
            write_text(args.out, as_csv(rows) if args.out.suffix == ".csv" else as_markdown(rows))
        except OSError as error:
            parser.error(
                f"--out: {args.out} cannot be written ({error.strerror}); name a file in a folder of yours."
            )
        print(f"wrote {len(rows)} relations to {args.out}")
    return 0


def _check(parser, args) -> int:
    from clinical_r1.clinic.guarantees import report

    faults = 0
    try:
        for line in report(args.folder):
            faults += line.startswith("FAULT")
            _print(f"{line}\n")
    except ValueError as error:
        parser.error(str(error))
    return int(faults > 0)


def _pretrain(parser, args) -> int:
    from clinical_r1.clinic.base_model import PHASES, pretrain_clinic_base, shorter_phases

    try:
        phases = PHASES if args.steps is None else shorter_phases(args.steps)
    except ValueError as error:
        parser.error(f"--steps: {error}")
    pretrain_clinic_base(args.out, phases, **({} if args.seed is None else {"seed": args.seed}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
