"""`python -m clinical_r1.causality` asks every arm of a run whether its reasoning moves its answers."""

import argparse
import sys
from dataclasses import replace
from pathlib import Path

from clinical_r1.arms import ARMS, METHODS
from clinical_r1.labels import CLINIC_BENCHMARKS
from clinical_r1.settings import PROFILES, settings_for


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m clinical_r1.causality", description=main.__doc__)
    parser.add_argument("--profile", choices=list(PROFILES), default="cpu")
    parser.add_argument("--out", default=".", help="folder that holds runs/ and figures/")
    parser.add_argument("--base", help="another base model than the profile's: a folder or a Hub id")
    parser.add_argument(
        "--seeds", type=int, nargs="+", default=[0], help="training seeds (the seeds themselves)"
    )
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=list(ARMS), metavar="ARM")
    parser.add_argument("--benchmark", choices=list(CLINIC_BENCHMARKS), default="clinic")
    parser.add_argument("--split", choices=("validation", "test"), default="validation")
    parser.add_argument("--questions", type=int, default=200, help="how many questions each arm is asked")
    parser.add_argument("--direct-steps", type=int, help="of the direct control; 0 leaves it out")
    parser.add_argument(
        "--direct-seeds", type=int, nargs="*", help="seeds with a direct control (default: all)"
    )
    parser.add_argument("--train", action="store_true", help="train what is not trained yet, first")
    return parser


def _check(parser, args) -> None:
    if args.questions < 1 or (args.direct_steps or 0) < 0:
        parser.error("--questions must be at least 1, --direct-steps at least 0.")
    for name in ("seeds", "methods"):
        if len(set(getattr(args, name))) < len(getattr(args, name)):
            parser.error(f"--{name} got {getattr(args, name)}; expected each once, or it would count twice.")


def _check_files(parser, args, settings, direct) -> None:
    """What is read at the end is looked for before the probes, which take minutes."""
    from clinical_r1.causality.direct import SPLITS

    needed = [("--split test", args.benchmark, "test")] if args.split == "test" else []
    if direct:
        needed += [("the direct control", settings.train_benchmark, split) for split in SPLITS]
    for what, *names in needed:
        if not (path := settings.questions_path(*names)).exists():
            parser.error(
                f"{what} needs {path}, which is missing; add --train, or use the --out of a run (--direct-steps 0: none)."
            )


def main(argv=None) -> int:
    """Probe the arms of a run: swap test, empty, false and denying reasoning, agreement, and the direct control."""
    parser = _parser()
    args = parser.parse_args(argv)
    _check(parser, args)
    from clinical_r1.causality.direct import STEPS
    from clinical_r1.causality.stage import probe_and_write
    from clinical_r1.causality.summary import as_text

    settings = settings_for(args.profile, args.out, tuple(args.seeds))
    settings = replace(settings, methods=tuple(args.methods), probe_also=())
    if args.base:  # a run folder of its own, or it would be taken for a changed base
        profile = f"{args.profile}-base.{Path(args.base).name}"
        settings = replace(
            settings,
            base_model=str(Path(args.base).resolve()) if Path(args.base).is_dir() else args.base,
            profile=profile,
        )
    if args.train:
        from clinical_r1.curation.splits import ensure_splits
        from clinical_r1.train import train_all

        ensure_splits(settings)
        train_all(settings)
    steps = STEPS if args.direct_steps is None else args.direct_steps
    direct = tuple(args.seeds if args.direct_seeds is None else args.direct_seeds)
    _check_files(parser, args, settings, steps and direct)
    try:
        table = probe_and_write(settings, args.benchmark, args.split, args.questions, steps, direct).rows
    except (
        ValueError,
        OSError,
        RuntimeError,
    ) as error:  # untrained, stale or changed arms, a base that is none
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 1
    print(as_text(table))
    print(
        f"per cent, mean over {len(args.seeds)} seeds; counts and intervals in {settings.figures_dir / 'causality.csv'}"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
