"""The pipeline: the notebooks in order, each executed by papermill into ``runs/<profile>/notebooks``.

    python -m clinical_r1.pipeline [smoke|cpu|colab|paper] [--only 03] [--seeds 3] [--dry-run] [--fresh]
    python -m clinical_r1.pipeline explain table1.medqa.crpo.accuracy     where a number comes from
    python -m clinical_r1.pipeline readme                                 rewrite README's generated results
    python -m clinical_r1.pipeline rescore [cpu] [--name today]           score again, no model; what has changed
    python -m clinical_r1.pipeline ablations [--seeds 3]                  the ablations the paper leaves out

A killed run goes on at the notebook it died in (and that notebook's functions go on from their own files); what is
finished and unchanged is kept. One folder holds one setting: other settings are refused, except more seeds, which
extend a run. ``--fresh`` moves the old folder aside.
"""

import argparse
import errno
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from clinical_r1.arms import LABORATORY
from clinical_r1.files import ROOT, PipelineError, write_text
from clinical_r1.pipeline.manifest import open_manifest
from clinical_r1.pipeline.stages import (
    NOTEBOOKS,
    STAGES,
    Run,
    Stage,
    check_machine,
    choose,
    locked,
    read_notebook,
    run_stages,
    set_aside,
)
from clinical_r1.settings import Settings, settings_for


def print_plan(run: Run, chosen: Sequence[Stage]) -> None:
    """What a run would do, from what is on disk now; writes nothing."""
    manifest, total = open_manifest(run.manifest_path, run.settings), 0.0
    for stage in chosen:
        reason, minutes = run.why_run(stage, manifest), stage.expected_minutes(run.settings)
        total += minutes if reason else 0
        print(
            f"{stage.notebook:26} {'about' if reason else 'kept;'} {minutes:g} min   {reason or ''}".rstrip()
        )
        for name, patterns in (
            ("reads", stage.reads),
            ("writes", (*stage.writes, run.shown(run.executed(stage)))),
        ):
            for pattern in patterns:
                print(f"    {name:7}{pattern.format(profile=run.settings.profile)}")
    print(
        f"expected: about {total:g} min for {len(run.settings.seeds)} seed(s) of profile {run.settings.profile}"
    )


def print_results(run: Run) -> None:
    """Every table and figure of this run, with its size."""
    for folder in (run.dir / "tables", run.settings.figures_dir):
        for path in sorted(path for path in folder.glob("*") if path.is_file()):
            print(f"  {path.stat().st_size / 1000:8.1f} kB  {run.shown(path)}")


def publish(run: Run, stages: Sequence[Stage]) -> None:
    """Copy the outputs of finished stages into notebooks/, so that readers on the web see them."""
    manifest = open_manifest(run.manifest_path, run.settings)
    for stage in stages:
        if reason := run.why_run(stage, manifest):
            raise PipelineError(f"{stage.notebook} cannot be published ({reason}); run it first.")
        source, done = read_notebook(run.source(stage)), read_notebook(run.executed(stage))
        ran = [
            cell for cell in done["cells"] if "injected-parameters" not in cell["metadata"].get("tags", [])
        ]
        for cell, executed in zip(source["cells"], ran, strict=True):
            if cell["cell_type"] == "code":
                cell["outputs"], cell["execution_count"] = executed["outputs"], executed["execution_count"]
        write_text(run.source(stage), json.dumps(source, indent=1, ensure_ascii=False) + "\n")
        print(f"published the outputs of {stage.notebook}")


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line of a pipeline run; the other commands have parsers of their own."""
    parser = argparse.ArgumentParser(
        prog="reproduce.sh",
        description="Run the notebooks in order; go on where a run stopped.",
        epilog="also: `explain CELL` says where a number comes from (such as table1.medqa.crpo.accuracy, or ledger); "
        "`readme` rewrites README's generated results; `rescore` scores stored completions by today's rules; "
        "`ablations` trains what notebook 05 shows. Each has its own --help.",
    )
    parser.add_argument("profile", nargs="?", default="cpu", help="smoke, cpu (default), colab or paper")
    parser.add_argument(
        "--only", action="append", metavar="NN", help="only this notebook, such as 03; may be repeated"
    )
    parser.add_argument(
        "--seeds", type=int, metavar="N", help="train with seeds 0..N-1; more seeds extend a run"
    )
    parser.add_argument(
        "--out", type=Path, default=ROOT, help="folder for runs/ and figures/ (default: the repository)"
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="say what would run, read and be written; write nothing"
    )
    parser.add_argument(
        "--fresh", action="store_true", help="move runs/<profile> to runs/<profile>.old-<n> and start anew"
    )
    parser.add_argument(
        "--publish", action="store_true", help="copy a finished run's outputs into notebooks/; run nothing"
    )
    return parser.parse_args(argv)


def parse_question(argv: Sequence[str]) -> argparse.Namespace:
    """The arguments of `explain` and `readme`, which run no notebook."""
    parser = argparse.ArgumentParser(prog="reproduce.sh")
    commands = parser.add_subparsers(dest="command", required=True)
    explain = commands.add_parser("explain", help="say where a number comes from: run, commit, hashes, seeds")
    explain.add_argument(
        "cell", help="such as table1.medqa.crpo.accuracy or table1.clinic.crpo.accuracy; or: ledger"
    )
    readme = commands.add_parser("readme", help="rewrite README's results from figures/<profile>")
    for command in (explain, readme):
        command.add_argument("--profile", default="cpu", help="smoke, cpu (default), colab or paper")
        command.add_argument("--dry-run", action="store_true", help="check the arguments only")
    explain.add_argument(
        "--out",
        type=Path,
        default=ROOT,
        help="folder that holds runs/ and figures/ (default: the repository)",
    )
    return parser.parse_args(argv)


def answer(argv: Sequence[str]) -> int:
    """Run `explain` or `readme`; exit statuses as in `main`."""
    arguments = parse_question(argv)
    try:
        settings = settings_for(arguments.profile, out=getattr(arguments, "out", ROOT).resolve())
        if arguments.dry_run:
            return 0
        # these need pandas, which running the notebooks from here does not
        from clinical_r1.pipeline import explain, readme

        if arguments.command == "explain":
            print(explain.explain(arguments.cell, settings), end="")
        else:
            path = readme.write_readme(settings)
            print(f"wrote the results of figures/{settings.profile} into {path.name}")
    except PipelineError as error:
        return _say(error, 1)
    except ValueError as error:
        return _say(error, 2)
    except OSError as error:
        return _say(f"{error.filename}: {error.strerror}; choose a folder that can be read and written.", 1)
    return 0


def rescore_command(argv: Sequence[str]) -> int:
    """Run `rescore`: stored completions by today's rules against the stored scores; exit statuses as in `main`."""
    parser = argparse.ArgumentParser(
        prog="reproduce.sh rescore",
        description="Score a run's stored completions by today's rules, without a model, and say what has changed.",
    )
    parser.add_argument("profile", nargs="?", default="cpu", help="smoke, cpu (default), colab or paper")
    parser.add_argument(
        "--name", default="today", help="folder under runs/<profile>/rescored (default: today)"
    )
    parser.add_argument("--seeds", type=int, metavar="N", help="seeds 0..N-1 (default: those of the run)")
    parser.add_argument(
        "--out", type=Path, default=ROOT, help="folder that holds runs/ (default: the repository)"
    )
    arguments = parser.parse_args(argv)
    try:
        settings = settings_for(arguments.profile, out=arguments.out.resolve(), seeds=arguments.seeds)
        if arguments.seeds is None:
            settings = replace(settings, seeds=_seeds_of_run(settings))
        from clinical_r1.pipeline.rescore import rescore  # needs pandas, which running the notebooks does not
        from clinical_r1.score import Rules

        start = time.monotonic()
        table = rescore(settings, Rules(), arguments.name)
    except (ValueError, FileNotFoundError) as error:
        return _say(error, 2 if isinstance(error, ValueError) else 1)
    except PipelineError as error:
        return _say(error, 1)
    except KeyboardInterrupt:
        return _say("interrupted; nothing was written.", 130)
    except OSError as error:
        return _say(f"{error.filename}: {error.strerror}; choose a folder that can be written with --out.", 1)
    changed = table[table["changed"] > 0]
    print(changed.round(4).to_string(index=False) if len(changed) else "no score has changed")
    folder = settings.run_dir.relative_to(settings.out) / "rescored" / arguments.name
    print(
        f"{len(settings.evaluations())} files of completions scored in {time.monotonic() - start:.0f} s; "
        f"{len(changed)} of {len(table)} comparisons differ; tables and every changed completion in {folder}"
    )
    return 0


def _seeds_of_run(settings: Settings) -> tuple[int, ...]:
    """The seeds that the run's manifest names; the profile's where there is no manifest."""
    path = settings.run_dir / "manifest.json"
    if not path.exists():
        return settings.seeds
    try:
        return tuple(json.loads(path.read_text(encoding="utf-8"))["settings"]["seeds"])
    except (ValueError, KeyError, TypeError) as error:
        raise PipelineError(f"{path} is damaged ({type(error).__name__}: {error}); pass --seeds.") from error


def ablations_command(argv: Sequence[str]) -> int:
    """Run `ablations`; a dry run needs no package, so that ./reproduce.sh can check it before anything is installed."""
    if "--dry-run" in argv:
        print(f"would train, answer and summarise: {', '.join(LABORATORY)}")
        return 0
    from clinical_r1.laboratory import (
        ablations,  # needs torch and trl, which running the notebooks from here does not
    )

    return ablations.main(argv)


def main(
    argv: Sequence[str] | None = None, *, stages: Sequence[Stage] = STAGES, notebooks: Path = NOTEBOOKS
) -> int:
    """Run the command line; return its exit status: 0, 1 failed, 2 wrong arguments, 130 interrupted."""
    argv = sys.argv[1:] if argv is None else list(argv)
    if argv[:1] in (["explain"], ["readme"]):
        return answer(argv)
    if argv[:1] == ["rescore"]:
        return rescore_command(argv[1:])
    if argv[:1] == ["ablations"]:
        return ablations_command(argv[1:])
    arguments = parse_arguments(argv)
    try:
        settings = settings_for(arguments.profile, out=arguments.out.resolve(), seeds=arguments.seeds)
    except ValueError as error:
        return _say(error, 2)
    run = Run(settings, Path(notebooks).resolve())
    try:
        chosen = choose(stages, arguments.only)
        if arguments.dry_run:
            print_plan(run, chosen)
        elif arguments.publish:
            publish(run, chosen)
        else:
            check_machine(settings)
            with locked(run):
                if arguments.fresh:
                    set_aside(run)
                run_stages(run, stages, chosen)
            print_results(run)
    except PipelineError as error:
        return _say(error, 1)
    except KeyboardInterrupt:
        return _say("interrupted; run the same command to go on where it stopped.", 130)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM):
            raise
        where = f" ({error.filename})" if error.filename else ""
        return _say(
            f"cannot write under {settings.out}{where}: {error.strerror}; "
            "free space or choose a writable folder with --out, then run the same command to go on.",
            1,
        )
    return 0


def _say(message, status: int) -> int:
    print(f"reproduce: {message}", file=sys.stderr)
    return status


if __name__ == "__main__":
    sys.exit(main())
