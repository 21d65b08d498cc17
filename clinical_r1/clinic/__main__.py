"""`python -m clinical_r1.clinic show` prints a case, `pretrain` rebuilds the base model."""

import argparse
import os
import sys

import numpy as np

from clinical_r1.clinic.cases import LEVELS, Case, load_set


def main(argv=None) -> int:
    """`python -m clinical_r1.clinic pretrain --out DIR` rebuilds the clinic base model; `show` prints a case."""
    parser = argparse.ArgumentParser(prog="python -m clinical_r1.clinic", description=main.__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    pretrain = commands.add_parser("pretrain", help="rebuild the clinic base model (minutes on two cores)")
    pretrain.add_argument("--out", required=True, help="folder to write the model and its tokenizer to")
    pretrain.add_argument("--steps", type=int, help="training steps in all; default: the shipped model's")
    show = commands.add_parser("show", help="print one question of a benchmark with a scripted honest answer")
    show.add_argument("benchmark", choices=list(LEVELS))
    show.add_argument("--index", type=int, default=0)
    args = parser.parse_args(argv)
    if args.command == "pretrain":
        return _pretrain(parser, args)
    from clinical_r1.clinic.traces import HONEST, write_trace
    from clinical_r1.prompts import render_question

    question = load_set(args.benchmark, "validation", args.index + 1)[-1]
    try:
        print(render_question(question))
        print(
            write_trace(Case.from_json(question.meta["case"]), "crpo", HONEST, np.random.default_rng(0)),
            flush=True,
        )
    except BrokenPipeError:  # `| head`: who reads wants no more
        os.dup2(
            os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno()
        )  # or the interpreter complains at its end
    return 0


def _pretrain(parser, args) -> int:
    from clinical_r1.clinic.base_model import PHASES, pretrain_clinic_base, shorter_phases

    try:
        phases = PHASES if args.steps is None else shorter_phases(args.steps)
    except ValueError as error:
        parser.error(f"--steps: {error}")
    pretrain_clinic_base(args.out, phases)
    return 0


if __name__ == "__main__":
    sys.exit(main())
