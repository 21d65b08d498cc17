"""The one command line: the notebooks in order, and what is asked about their results. Called by ./reproduce.sh.

    python -m clinical_r1.pipeline [smoke|cpu|laptop|colab|paper|published] [--only 03] [--seeds 3] [--with mine.py] [--fresh]
    python -m clinical_r1.pipeline explain table1.medqa.crpo.accuracy     where a number comes from
    python -m clinical_r1.pipeline readme                                 rewrite the pages' generated results
    python -m clinical_r1.pipeline rescore [cpu] [--name today]           score again, no model; what has changed
    python -m clinical_r1.pipeline ablations [--seeds 3]                  the ablations the paper leaves out
    python -m clinical_r1.pipeline agent [--seeds 3]                      the diagnostic agents and the credit of their turns
    python -m clinical_r1.pipeline traces paper --teacher MODEL           traces for the cold start, from a model or a server
    python -m clinical_r1.pipeline export --method crpo --to DIR          a trained arm as a plain model with its card

A killed run goes on at the notebook it died in (and that notebook's functions go on from their own files); what is
finished and unchanged is kept. One folder holds one setting: other settings are refused, except more seeds, arms or
benchmarks, which extend a run. ``--fresh`` moves the old folder aside.

Arguments are checked on the standard library alone, so that ./reproduce.sh can do it before anything is installed; each
command imports what it needs.
"""

# ruff: noqa: E402
import os
import signal
import sys

INTERRUPTED = "interrupted; run the same command to go on where it stopped."


def _say(message, status: int) -> int:
    print(f"reproduce: {message}", file=sys.stderr, flush=True)
    return status


if (
    __name__ == "__main__"
):  # before the other imports, so that Ctrl-C is answered with a sentence at any moment
    signal.signal(signal.SIGINT, lambda *_: os._exit(_say(INTERRUPTED, 130)))

import argparse
import errno
import json
import shutil
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from clinical_r1.arms import LABORATORY
from clinical_r1.files import DATA_VARIABLE, PipelineError, locked, write_text
from clinical_r1.pipeline.arguments import (
    ABLATIONS,
    AGENT,
    AGENT_SEEDS,
    AGENT_SETTINGS,
    EVERYWHERE,
    EXPLAIN,
    EXPORT,
    PROFILE_OPTION,
    RESCORE,
    RUN,
    TRACES,
)
from clinical_r1.pipeline.machine import check_machine
from clinical_r1.pipeline.manifest import git_state, read_manifest, seeds_line
from clinical_r1.pipeline.shown import without_progress
from clinical_r1.pipeline.stages import (
    NOTEBOOKS,
    STAGES,
    Run,
    Stage,
    choose,
    read_notebook,
    run_stages,
    set_aside,
)
from clinical_r1.settings import CPU, Settings, settings_for


def print_plan(run: Run, chosen: Sequence[Stage]) -> None:
    """What a run would do, from what is on disk now; writes nothing."""
    manifest, total = run.manifest(), 0.0
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
    print(seeds_line(run.settings, run.published))


def print_results(run: Run) -> None:
    """Every table and figure of this run, with its size."""
    for folder in (run.dir / "tables", run.settings.figures_dir):
        for path in sorted(path for path in folder.glob("*") if path.is_file()):
            print(f"  {path.stat().st_size / 1000:8.1f} kB  {run.shown(path)}")


# Whose outputs stand in notebooks/; of every other profile only figures and tables are published
IN_NOTEBOOKS = CPU.profile


def publish(run: Run, stages: Sequence[Stage]) -> None:
    """Copy what finished stages show into the repository: figures and tables into figures/published, and, of the profile that
    the pages speak of, outputs into notebooks/.
    """
    manifest = run.manifest()
    for stage in stages:
        if reason := run.why_run(stage, manifest):
            raise PipelineError(f"{stage.notebook} cannot be published ({reason}); run it first.")
        run.check_reads(stage, manifest)
    shown = run.published.name == IN_NOTEBOOKS
    for stage in stages:
        if shown:
            _publish_outputs(run, stage)
        number = _publish_figures(run, stage, manifest["stages"][stage.notebook]["outputs"])
        outputs = "its outputs, and" if shown else f"not its outputs (notebooks show {IN_NOTEBOOKS}'s), but"
        print(f"published {stage.notebook}: {outputs} {number} files of figures and tables")


def _publish_outputs(run, stage):
    source, done = read_notebook(run.source(stage)), read_notebook(run.executed(stage))
    ran = [cell for cell in done["cells"] if "injected-parameters" not in cell["metadata"].get("tags", [])]
    for cell, executed in zip(source["cells"], ran, strict=True):
        if cell["cell_type"] == "code":
            cell["outputs"] = without_progress(executed["outputs"])
            cell["execution_count"] = executed["execution_count"]
    write_text(run.source(stage), json.dumps(source, indent=1, ensure_ascii=False) + "\n")


def _publish_figures(run, stage, outputs):
    """Copy what the stage wrote into figures/<profile>; what it published under a name that it no longer writes goes."""
    patterns = [name for name in (*stage.writes, *stage.may_write) if name.startswith("figures/")]
    files = [Path(run.settings.out, name) for name in outputs if name.startswith("figures/")]
    run.published.mkdir(parents=True, exist_ok=True)
    for path in files:
        shutil.copyfile(path, run.published / path.name)
    kept = {path.name for path in files}
    for old in {old for pattern in patterns for old in run.published.glob(pattern.rsplit("/", 1)[1])}:
        if old.name not in kept:
            old.unlink()
    return len(files)


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """One parser with a subcommand for each thing to do; without one, the notebooks are run."""
    parser = argparse.ArgumentParser(
        prog="reproduce.sh",
        description=__doc__.splitlines()[0],
        epilog="Without a command the notebooks are run: `reproduce.sh cpu --seeds 3` is `reproduce.sh run cpu --seeds 3`. "
        "Each command has its own --help; that of `run` lists the options of a run.",
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="command")
    for name, (does, run, arguments) in COMMANDS.items():
        command = commands.add_parser(name, help=does, description=does)
        command.set_defaults(run=run)
        for flags, keywords in (*arguments, *EVERYWHERE):
            command.add_argument(*flags, **keywords)
    named = argv[:1] and (argv[0] in COMMANDS or argv[0] in ("-h", "--help"))
    return parser.parse_args(argv if named else ["run", *argv])


def settings_of(arguments: argparse.Namespace, seeds=None) -> Settings:
    """The profile's settings, with the things of the user's own file. ValueError for what does not fit."""
    out = arguments.out.resolve()
    if getattr(arguments, "own", None) is None:
        return settings_for(arguments.profile, out, seeds)
    try:
        from clinical_r1 import extensions
    except ModuleNotFoundError:
        if not arguments.dry_run:
            raise
        return settings_for(
            arguments.profile, out, seeds
        )  # before anything is installed: the file is checked later
    return extensions.settings_for(arguments.profile, out, seeds, arguments.own)


# -------------------------------------------------------------------------------------------------------- the commands


def run_command(arguments, stages: Sequence[Stage], notebooks: Path) -> None:
    """Run, plan or publish the notebooks."""
    settings = settings_of(arguments, arguments.seeds)
    own = None
    if settings.own_file:
        from clinical_r1 import extensions

        own = extensions.inputs_hash(), arguments.own.resolve()
    run = Run(settings, Path(notebooks).resolve(), *(own or ()))
    chosen = choose(stages, arguments.only)
    if arguments.dry_run:
        print_plan(run, chosen)
        return
    if not arguments.publish:
        check_machine(settings)
    with locked(run.dir.with_name(f"{run.dir.name}.lock"), run.shown(run.dir)):
        if arguments.publish:
            publish(run, chosen)
            return
        if arguments.fresh:
            set_aside(run)
        print(seeds_line(settings, run.published))
        run_stages(run, stages, chosen)
    print_results(run)


def explain_command(arguments, *_) -> None:
    """Say where a number comes from."""
    settings = settings_of(arguments)
    if not arguments.dry_run:
        from clinical_r1.pipeline import explain

        print(explain.explain(arguments.cell, settings), end="")


def readme_command(arguments, *_) -> None:
    """Rewrite the generated blocks of the pages."""
    settings = settings_of(arguments)
    if not arguments.dry_run:
        from clinical_r1.pipeline import readme

        print(
            f"wrote the results of figures/published/{settings.published_dir.name} into {readme.write_readme(settings).name}"
        )


def rescore_command(arguments, *_) -> None:
    """Score stored completions by today's rules and say what differs from the stored scores."""
    settings = settings_of(arguments, arguments.seeds)
    if arguments.dry_run:
        return
    if arguments.seeds is None:
        settings = replace(settings, seeds=_seeds_of_run(settings))
    from clinical_r1.pipeline.rescore import rescore

    start = time.monotonic()
    table = rescore(settings, name=arguments.name)
    changed = table[table["changed"] > 0]
    print(changed.round(4).to_string(index=False) if len(changed) else "no score has changed")
    folder = settings.run_dir.relative_to(settings.out) / "rescored" / arguments.name
    print(
        f"{len(settings.evaluations())} files of completions scored in {time.monotonic() - start:.0f} s; "
        f"{len(changed)} of {len(table)} comparisons differ; tables and every changed completion in {folder}"
    )


def _seeds_of_run(settings: Settings) -> tuple[int, ...]:
    """The seeds that the run's manifest names; the profile's where there is no manifest."""
    path = settings.run_dir / "manifest.json"
    return tuple(read_manifest(path)["settings"]["seeds"]) if path.exists() else settings.seeds


def ablations_command(arguments, *_) -> None:
    """Train, answer and summarise the laboratory's arms."""
    arms = tuple(arguments.only or LABORATORY)
    if unknown := set(arms) - set(LABORATORY):
        raise ValueError(
            f"--only {', '.join(sorted(unknown))} names no arm; expected some of {', '.join(LABORATORY)}."
        )
    if arguments.dry_run:
        print(f"would train, answer and summarise: {', '.join(arms)}")
        return
    from clinical_r1.laboratory import ablations

    seeds = range(arguments.seeds)
    settings = ablations.laboratory_settings(arguments.out.resolve(), seeds, arms, arguments.full)
    ablations.reproduce(settings, arguments.summary_only, arguments.publish, arguments.full, git_state())


def agent_command(arguments, *_) -> None:
    """Train, evaluate and summarise the diagnostic agents."""
    names = tuple(dict.fromkeys(arguments.only or AGENT_SETTINGS))  # named twice, run once
    if unknown := set(names) - set(AGENT_SETTINGS):
        raise ValueError(
            f"--only {', '.join(sorted(unknown))} names no setting; expected some of {', '.join(AGENT_SETTINGS)}."
        )
    if arguments.seeds is not None and not 1 <= arguments.seeds <= AGENT_SEEDS:
        raise ValueError(f"got --seeds {arguments.seeds}; expected 1 to {AGENT_SEEDS}.")
    if arguments.seeds is not None and AGENT_SETTINGS[0] not in names:
        raise ValueError(
            f"--seeds counts those of the setting {AGENT_SETTINGS[0]}, which --only leaves out; leave one of them out."
        )
    if arguments.start_only and (arguments.summary_only or arguments.seeds):
        raise ValueError(
            "--start-only trains no seed and reads no trained arm; leave --summary-only and --seeds out."
        )
    if arguments.tune_only and (
        arguments.start_only or arguments.summary_only or arguments.seeds or arguments.only
    ):
        raise ValueError(
            "--tune-only tries every arm of the main setting; leave all but --publish and --out out."
        )
    does = "measure the start of" if arguments.start_only else "train, evaluate and summarise agents in"
    if arguments.dry_run:
        tried = "would try the learning rates of the main setting"
        print(tried if arguments.tune_only else f"would {does} the settings: {', '.join(names)}")
        return
    from clinical_r1.agent import reproduce

    if arguments.tune_only:
        reproduce.tune_rates(arguments.out.resolve(), arguments.publish)
        return
    if arguments.start_only:
        reproduce.reproduce_start(arguments.out.resolve(), names, arguments.publish, git_state())
        return
    reproduce.reproduce(
        arguments.out.resolve(),
        names,
        arguments.seeds,
        arguments.summary_only,
        arguments.publish,
        git_state(),
    )


def traces_command(arguments, *_) -> None:
    """Ask a teacher for traces of the SFT questions and keep those that are right."""
    settings = settings_of(arguments)
    if arguments.key_variable and not arguments.server:
        raise ValueError("--key-variable names the key of a server; give the server with --server as well.")
    if arguments.dry_run:
        print(f"would ask {arguments.teacher} for traces of {settings.train_benchmark}'s SFT half")
        return
    from clinical_r1.pipeline import traces

    to = arguments.to.resolve() if arguments.to else traces.default_file(settings, arguments.teacher)
    request = traces.Request(to, arguments.tries, arguments.temperature, arguments.limit)
    report = traces.make_traces(
        settings, arguments.teacher, request, arguments.server, arguments.key_variable
    )
    print(traces.as_text(report))
    print(f"traces in {to}: name it in teacher_traces of the settings")


def export_command(arguments, *_) -> None:
    """Merge, save and describe one trained arm."""
    settings = settings_of(arguments, (arguments.seed,))
    if not arguments.dry_run:
        from clinical_r1.pipeline import export

        export.export_and_push(
            settings, arguments.method, arguments.seed, arguments.to, arguments.push, arguments.public
        )


COMMANDS = {
    "run": ("run the notebooks in order; go on where a run stopped (default command)", run_command, RUN),
    "explain": ("say where a number comes from: run, commit, hashes, seeds", explain_command, EXPLAIN),
    "readme": (
        "rewrite the pages' generated results from figures/published/<profile>",
        readme_command,
        (PROFILE_OPTION,),
    ),
    "rescore": ("score stored completions by today's rules, without a model", rescore_command, RESCORE),
    "ablations": ("train, answer and summarise what notebook 05 shows", ablations_command, ABLATIONS),
    "agent": ("train, evaluate and summarise the agents that notebook 07 shows", agent_command, AGENT),
    "traces": (
        "ask a model or a server for the cold start's traces; keep those that are right",
        traces_command,
        TRACES,
    ),
    "export": (
        "merge, save and describe one trained arm; push it to the Hub if asked",
        export_command,
        EXPORT,
    ),
}


def main(
    argv: Sequence[str] | None = None, *, stages: Sequence[Stage] = STAGES, notebooks: Path = NOTEBOOKS
) -> int:
    """Run the command line; return its exit status: 0, 1 failed, 2 wrong arguments, 130 interrupted, 141 nobody reads."""
    try:
        arguments = parse(sys.argv[1:] if argv is None else list(argv))
        os.environ.pop("CLINICAL_R1_WITH", None)  # --with sets it, for the kernels
        if os.environ.get(DATA_VARIABLE):
            os.environ[DATA_VARIABLE] = os.path.abspath(os.environ[DATA_VARIABLE])  # kernels run elsewhere
        arguments.run(arguments, stages, notebooks)
        sys.stdout.flush()
    except (PipelineError, ImportError, FileNotFoundError) as error:
        return _say(error, 1)
    except ValueError as error:
        return _say(error, 2)
    except KeyboardInterrupt:
        signal.signal(
            signal.SIGINT, signal.SIG_IGN
        )  # a second Ctrl-C while Python ends would print a traceback
        return _say(INTERRUPTED, 130)
    except BrokenPipeError:  # such as `| head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python complains while it ends
        return _say("nobody reads its output any more; run the same command to go on where it stopped.", 141)
    except MemoryError:
        return _say("memory ran out; close other programs and run the same command to go on.", 1)
    except OSError as error:
        return _say(said(error, arguments.out), 1)
    return 0


WRITING = "free space or choose a writable folder with --out, then run the same command to go on."
REMEDIES = {
    errno.EMFILE: "raise the limit, such as with `ulimit -n 1024`, then run the same command to go on.",
    errno.ENFILE: "the whole machine has too many open files; close programs, then run the same command to go on.",
    errno.EFBIG: "raise `ulimit -f`, or choose a file system that takes larger files with --out, then run the same command.",
    errno.ENOMEM: "close other programs, then run the same command to go on.",
    errno.EAGAIN: "the machine allows no more processes; raise `ulimit -u`, then run the same command to go on.",
} | dict.fromkeys(
    (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOTDIR), WRITING
)


def said(error: OSError, out: Path) -> str:
    """What the system refused, where, and the way on; a sentence of ours as it is."""
    if error.errno is None:
        return str(error)
    where = f" ({error.filename})" if error.filename else ""
    what = f"{error.strerror}{where}"
    remedy = REMEDIES.get(error.errno, "fix the cause, then run the same command to go on.")
    return f"cannot write under {out}: {what}; {remedy}" if remedy is WRITING else f"{what}: {remedy}"


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.exit(main())
