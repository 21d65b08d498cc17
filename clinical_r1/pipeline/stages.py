"""Stages: what makes one stale, and how one is executed.

A stage is one notebook. It is kept, not repeated, while its executed copy is whole and nothing it came from has
changed: the settings, the package, its own cells, the files it reads, and the files it wrote are there. Nothing here
deletes a result.
"""

import hashlib
import json
import os
import shutil
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from clinical_r1.files import DATA_VARIABLE, PACKAGE, ROOT, PipelineError, sha256, write_json
from clinical_r1.pipeline.manifest import describe, needs_cuda, open_manifest
from clinical_r1.settings import Settings


@dataclass(frozen=True)
class Stage:
    """One notebook and what it takes.

    reads, writes: file patterns with {profile}; relative to the output folder, except clinical_r1/… (the package)
        and $CLINICAL_R1_DATA/… (real benchmark files, where the variable is set).
    minutes: profile -> expected minutes, for one seed if per_seed.
    """

    notebook: str
    reads: tuple[str, ...]
    writes: tuple[str, ...]
    minutes: Mapping[str, float]
    per_seed: bool = False

    @property
    def number(self) -> str:
        return self.notebook.split("_")[0]

    def expected_minutes(self, settings: Settings) -> float:
        return self.minutes[settings.base_profile] * (len(settings.seeds) if self.per_seed else 1)


@dataclass(frozen=True)
class Run:
    """One profile's run: where its notebooks come from, where everything goes, what is still to do."""

    settings: Settings
    notebooks: Path
    own: str | None = None  # hash of the user's own file and of what it brings, see `extensions.inputs_hash`

    @property
    def dir(self) -> Path:
        return self.settings.run_dir

    @property
    def manifest_path(self) -> Path:
        return self.dir / "manifest.json"

    @property
    def published(self) -> Path:
        """Where `--publish` copies figures and tables to: in the repository of the notebooks, wherever the run lies."""
        return self.notebooks.parent / "figures" / "published" / self.settings.profile

    @property
    def parameters(self) -> dict:
        """What papermill injects. `out` is relative to the notebooks, so a moved checkout keeps its results."""
        out = os.path.relpath(self.settings.out, self.notebooks)
        return {"profile": self.settings.base_profile, "out": out, "seeds": len(self.settings.seeds)}

    def source(self, stage: Stage) -> Path:
        return self.notebooks / f"{stage.notebook}.ipynb"

    def executed(self, stage: Stage) -> Path:
        return self.dir / "notebooks" / f"{stage.notebook}.ipynb"

    def partial(self, stage: Stage) -> Path:
        """Where a notebook is written while it runs, so that an earlier whole copy outlives a failing one."""
        return self.dir / "notebooks" / f"{stage.notebook}.partial.ipynb"

    def shown(self, path: Path) -> str:
        """The path as messages print it: relative to the output folder."""
        return os.path.relpath(path, self.settings.out)

    def files(self, pattern: str) -> list[Path]:
        """Files that match one pattern of a stage, sorted; none where $CLINICAL_R1_DATA is unset."""
        first, _, rest = pattern.format(profile=self.settings.profile).partition("/")
        if first == f"${DATA_VARIABLE}":
            folder = os.environ.get(DATA_VARIABLE)
        else:
            folder, rest = (ROOT if first == PACKAGE.name else self.settings.out), f"{first}/{rest}"
        return sorted(path for path in Path(folder).glob(rest) if path.is_file()) if folder else []

    def missing(self, patterns: Iterable[str]) -> list[str]:
        """Those of `patterns` under the output folder that match nothing yet."""
        made_here = [pattern for pattern in patterns if pattern.startswith(("runs/", "figures/"))]
        return [
            pattern.format(profile=self.settings.profile) for pattern in made_here if not self.files(pattern)
        ]

    def fingerprint(self, stage: Stage) -> str:
        """sha256 over all that a stage's result depends on; outputs stored in the notebook are no part of it."""
        cells = read_notebook(self.source(stage))["cells"]
        parts = {
            "settings": self.settings.to_json(),
            "package": {p.relative_to(PACKAGE).as_posix(): sha256(p) for p in sorted(PACKAGE.rglob("*.py"))},
            "own": self.own,
            "cells": [(cell["cell_type"], "".join(cell["source"])) for cell in cells],
            "reads": [sha256(path) for pattern in stage.reads for path in self.files(pattern)],
        }
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()

    def why_run(self, stage: Stage, manifest: dict) -> str | None:
        """Why the stage must run, in a few words; None when its result stands."""
        record = manifest["stages"].get(stage.notebook)
        if record is None or not self.executed(stage).exists():
            return "not finished yet" if self.partial(stage).exists() else "not run yet"
        if missing := self.missing(stage.writes):
            return f"{missing[0]} is gone"
        if record["fingerprint"] != self.fingerprint(stage):
            return "settings, code or input changed"
        if not is_finished(read_notebook(self.executed(stage)), self.parameters):
            return "its executed notebook is incomplete"
        return None


def read_notebook(path: Path) -> dict:
    """A notebook as plain JSON. PipelineError when it is missing or is not a notebook."""
    try:
        notebook = json.loads(path.read_text(encoding="utf-8"))
        notebook["cells"]
    except FileNotFoundError:
        raise PipelineError(
            f"{path} is missing; the pipeline runs from a whole clone of the repository."
        ) from None
    except (ValueError, TypeError, KeyError) as error:
        raise PipelineError(f"{path} is not a notebook ({error}); restore or delete it.") from error
    return notebook


def is_finished(notebook: dict, parameters: dict) -> bool:
    """True if papermill ran every code cell of this executed notebook, without an exception, with these parameters."""
    record = notebook["metadata"].get("papermill", {})
    cells = [
        cell["metadata"].get("papermill", {}) for cell in notebook["cells"] if cell["cell_type"] == "code"
    ]
    return (
        not record.get("exception", True)
        and record.get("end_time") is not None
        and record.get("parameters") == parameters
        and all(cell.get("status") == "completed" for cell in cells)
    )


def set_aside(run: Run) -> None:
    """Move runs/<profile> to runs/<profile>.old-<n>, the first n that is free."""
    if not run.dir.exists():
        return
    number = 1
    while (aside := run.dir.with_name(f"{run.dir.name}.old-{number}")).exists():
        number += 1
    run.dir.rename(aside)
    print(f"moved {run.shown(run.dir)} to {run.shown(aside)}")


class Watch(threading.Thread):
    """Seconds and peak memory of what runs inside `with`, and a line of progress each minute.

    peak_memory_mb sums the resident size of this process and all its descendants, every half second; pages that two
    of them share count twice.
    """

    def __init__(self, label: str, notebook: Path):
        super().__init__(daemon=True)
        self.label, self.notebook = label, notebook
        self.peak_memory_mb, self.started = 0.0, time.monotonic()
        self._over = threading.Event()

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        self._over.set()
        self.join()
        self.seconds = time.monotonic() - self.started

    def run(self):
        last_said = self.started
        while True:
            self.peak_memory_mb = max(self.peak_memory_mb, _tree_memory_mb())
            if time.monotonic() - last_said >= 60:
                last_said = time.monotonic()
                minutes = (last_said - self.started) / 60
                memory = self.peak_memory_mb / 1000
                print(f"  {self.label}: {minutes:.0f} min, {self._cells()}, peak {memory:.1f} GB", flush=True)
            if self._over.wait(0.5):
                return

    def _cells(self) -> str:
        try:
            cells = json.loads(self.notebook.read_text(encoding="utf-8"))["cells"]
        except (OSError, ValueError):  # read in the middle of an autosave
            return "running"
        done = sum(cell["metadata"].get("papermill", {}).get("status") == "completed" for cell in cells)
        return f"{done} of {len(cells)} cells"


def _tree_memory_mb() -> float:
    import psutil

    me, total = psutil.Process(), 0
    for process in [me, *me.children(recursive=True)]:
        try:
            total += process.memory_info().rss
        except psutil.NoSuchProcess:  # ended since the listing
            continue
    return total / 1e6


@contextmanager
def kernel_environment():
    """What every kernel is started with, whatever the caller's shell has set."""
    wanted = {
        "PYTHONHASHSEED": "0",
        "MPLBACKEND": "module://matplotlib_inline.backend_inline",  # pictures land in the executed notebook
        "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")])),
    }
    before = {name: os.environ.get(name) for name in wanted}
    os.environ.update(wanted)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.__setitem__(name, value)


def execute(run: Run, stage: Stage) -> Watch:
    """Run one notebook; its whole copy replaces the earlier one only at the end. PipelineError if it fails."""
    import papermill

    partial = run.partial(stage)
    partial.parent.mkdir(parents=True, exist_ok=True)
    way_on = (
        f"what ran is in {run.shown(partial)}. Fix the cause and run the same command: finished work is kept."
    )
    try:
        with kernel_environment(), Watch(stage.notebook, partial) as watch:
            papermill.execute_notebook(
                str(run.source(stage)),
                str(partial),
                parameters=run.parameters,
                kernel_name="python3",
                language="python",
                cwd=str(run.notebooks),
                progress_bar=False,
                request_save_on_cell_execute=True,
                autosave_cell_every=30,
                # ipykernel warns at every start that the local connection is not encrypted
                extra_arguments=["--log-level=40"],
            )
    except papermill.PapermillExecutionError as error:
        what = f"{error.ename}: {error.evalue}".strip().splitlines()[0]
        raise PipelineError(
            f"{stage.notebook} stopped in cell {error.cell_index} ({what}); {way_on}"
        ) from None
    except RuntimeError as error:  # nbclient's DeadKernelError: killed, or out of memory
        raise PipelineError(f"{stage.notebook} stopped, its kernel ended ({error}); {way_on}") from error
    if missing := run.missing(stage.writes):
        raise PipelineError(f"{stage.notebook} ended without writing {', '.join(missing)}; {way_on}")
    partial.replace(run.executed(stage))
    return watch


def run_stages(run: Run, stages: Sequence[Stage], chosen: Sequence[Stage]) -> None:
    """Run what is stale among `chosen`; the manifest is rewritten after each stage."""
    manifest = open_manifest(run.manifest_path, run.settings)
    described = False
    for stage in chosen:
        reason = run.why_run(stage, manifest)
        if reason is None:
            print(
                f"{stage.notebook}: kept ({manifest['stages'][stage.notebook]['seconds'] / 60:.1f} min when it ran)"
            )
            continue
        if missing := run.missing(stage.reads):
            raise PipelineError(
                f"{stage.notebook} reads {missing[0]}, which is not there; run the earlier notebooks first (no --only)."
            )
        if not described:
            read = [path for each in stages for pattern in each.reads for path in run.files(pattern)]
            manifest |= describe(run.settings, read)
            described = True
        manifest["unfinished"] = stage.notebook
        write_json(run.manifest_path, manifest)
        print(f"{stage.notebook}: {reason}, about {stage.expected_minutes(run.settings):.1f} min", flush=True)
        fingerprint = run.fingerprint(stage)
        watch = execute(run, stage)
        manifest["stages"][stage.notebook] = {
            "fingerprint": fingerprint,
            "git_sha": manifest["git"]["sha"],
            "finished": datetime.now(UTC).isoformat(timespec="seconds"),
            "seconds": round(watch.seconds, 1),
            "peak_memory_mb": round(watch.peak_memory_mb),
        }
        manifest["unfinished"] = None
        write_json(run.manifest_path, manifest)
        print(
            f"{stage.notebook}: done in {watch.seconds / 60:.1f} min, peak {watch.peak_memory_mb / 1000:.1f} GB"
        )


NOTEBOOKS = ROOT / "notebooks"

# Minutes: smoke and cpu on two cores; colab and paper are estimates, not measurements.
STAGES = (
    Stage(
        "01_data_curation",
        reads=("clinical_r1/data/**/*", f"${DATA_VARIABLE}/**/*"),
        writes=("runs/{profile}/questions/*.jsonl",),
        minutes={"smoke": 0.3, "cpu": 0.3, "colab": 5, "paper": 10},
    ),
    Stage(
        "02_reward_design",
        reads=("runs/{profile}/questions/*.jsonl", f"${DATA_VARIABLE}/real_completions/**/*"),
        writes=("figures/{profile}/reward_design.*",),
        minutes={"smoke": 0.1, "cpu": 0.1, "colab": 1, "paper": 1},
    ),
    Stage(
        "03_crpo_training",
        reads=("runs/{profile}/questions/*.jsonl", "clinical_r1/data/**/*"),
        writes=(
            "runs/{profile}/models/*/seed*/log_history.jsonl",
            "figures/{profile}/training_curves.*",
            "figures/{profile}/fig5_response_length.*",
        ),
        minutes={"smoke": 0.5, "cpu": 3, "colab": 90, "paper": 1500},
        per_seed=True,
    ),
    Stage(
        "04_benchmark_evaluation",
        reads=(
            "runs/{profile}/questions/*.jsonl",
            "runs/{profile}/models/*/seed*/log_history.jsonl",
            "runs/{profile}/models/*/seed*/policy/*.safetensors",
        ),
        writes=(
            "runs/{profile}/completions/*/*.jsonl",
            "runs/{profile}/scores/*/*.jsonl",
            "runs/{profile}/tables/table1.csv",
            "runs/{profile}/tables/table1.md",
            "runs/{profile}/tables/ledger.csv",
            "runs/{profile}/tables/comparisons.csv",
            "runs/{profile}/lm_eval/*/results_*.json",
            "figures/{profile}/ledger.csv",
            "figures/{profile}/comparisons.csv",
            "figures/{profile}/results.json",
            "figures/{profile}/fig1_radar.*",
            "figures/{profile}/fig3_cold_start_accuracy.*",
            "figures/{profile}/fig4_accuracy.*",
        ),
        minutes={"smoke": 0.5, "cpu": 2.8, "colab": 25, "paper": 300},
        per_seed=True,
    ),
    Stage(
        "05_objective_tradeoffs",
        reads=("clinical_r1/data/laboratory/*",),
        writes=("figures/{profile}/tradeoffs_*.*",),
        minutes={"smoke": 0.6, "cpu": 0.6, "colab": 0.6, "paper": 0.6},
    ),
    Stage(
        "06_paper_audit",
        reads=("clinical_r1/data/**/*",),
        writes=("figures/{profile}/audit_*.*",),
        minutes={"smoke": 0.2, "cpu": 0.2, "colab": 0.2, "paper": 0.2},
    ),
)


def check_machine(settings: Settings) -> None:
    """PipelineError without the CUDA device or the free disk space that the profile needs."""
    if needs_cuda(settings):  # torch is imported only where the profile needs it
        import torch

        if not torch.cuda.is_available():
            raise PipelineError(
                f"profile {settings.profile} needs a CUDA GPU and PyTorch sees none; "
                "use smoke or cpu here, or run it on a GPU machine."
            )
    folder = settings.run_dir.absolute()
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free / 1e9
    if free < settings.disk_gb:
        raise PipelineError(
            f"profile {settings.profile} needs {settings.disk_gb:g} GB of free disk space, {free:.1f} GB is left; "
            "free some or choose another folder with --out."
        )


def choose(stages: Sequence[Stage], only: Sequence[str] | None) -> list[Stage]:
    """The stages whose numbers are in `only` ("3" and "03" are the same), in order; all of them for None."""
    if not only:
        return list(stages)
    wanted = {number.zfill(2) for number in only}
    if unknown := wanted - {stage.number for stage in stages}:
        expected = ", ".join(stage.number for stage in stages)
        raise PipelineError(
            f"--only {', '.join(sorted(unknown))} names no notebook; expected one of {expected}."
        )
    return [stage for stage in stages if stage.number in wanted]
