"""Stages: what makes one stale, and how one is executed.

A stage is one notebook. It is kept, not repeated, while nothing it came from has changed (the settings, the package, its
own cells, the files it reads) and every file it wrote, its executed copy among them, still has the sha256 that the manifest
records. Nothing here deletes a result.
"""

import hashlib
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from clinical_r1.files import DATA_VARIABLE, PACKAGE, ROOT, PipelineError, digest, read_json, write_json
from clinical_r1.pipeline import kernel
from clinical_r1.pipeline.manifest import describe, open_manifest
from clinical_r1.settings import Settings


@dataclass(frozen=True)
class Stage:
    """One notebook and what it takes.

    reads, writes: file patterns with {profile}; relative to the output folder, except clinical_r1/… (the package)
        and $CLINICAL_R1_DATA/… (real benchmark files, where the variable is set). Each must match a file.
    minutes: profile -> expected minutes, for one seed if per_seed.
    may_read, may_write: patterns of files that not every run has. What no pattern names is no result, such as a log.
    environment: variables that change its result where they are set; unset, they change nothing.
    """

    notebook: str
    reads: tuple[str, ...]
    writes: tuple[str, ...]
    minutes: Mapping[str, float]
    per_seed: bool = False
    may_write: tuple[str, ...] = ()
    may_read: tuple[str, ...] = ()
    environment: tuple[str, ...] = ()

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
    own_path: Path | None = None

    @property
    def dir(self) -> Path:
        return self.settings.run_dir

    @property
    def manifest_path(self) -> Path:
        return self.dir / "manifest.json"

    @property
    def published(self) -> Path:
        """Where `--publish` copies figures and tables to: in the repository of the notebooks, wherever the run lies."""
        return self.notebooks.parent / "figures" / "published" / self.settings.published_dir.name

    @property
    def parameters(self) -> dict:
        """What papermill injects. `out` is relative to the notebooks, so a moved checkout keeps its results."""
        out = os.path.relpath(self.settings.out, self.notebooks)
        return {"profile": self.settings.base_profile, "out": out, "seeds": len(self.settings.seeds)}

    @property
    def own_record(self) -> dict | None:
        """What tells the own file from another of its name; of its place only a hash, since a manifest names no path."""
        if self.own_path is None:
            return None
        place = os.path.relpath(self.own_path, self.settings.out)
        return {"place": hashlib.sha256(place.encode()).hexdigest(), "inputs": self.own}

    def manifest(self) -> dict:
        """`open_manifest` of this run; PipelineError too when another own file of the same name has made it."""
        manifest = open_manifest(self.manifest_path, self.settings)
        made, now = manifest.get("own"), self.own_record
        if isinstance(made, dict) and now and not made.items() & now.items():
            raise PipelineError(
                f"{self.shown(self.dir)} was made with a {self.own_path.name} of another folder; give {self.own_path} another "
                "name, choose another folder with --out, or pass --fresh."
            )
        return manifest

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
        folder, rest = self._folder(pattern)
        return sorted(path for path in Path(folder).glob(rest) if path.is_file()) if folder else []

    def _folder(self, pattern):
        """(folder that a pattern is relative to, the rest of it)."""
        first, _, rest = pattern.format(profile=self.settings.profile).partition("/")
        if first == f"${DATA_VARIABLE}":
            return os.environ.get(DATA_VARIABLE), rest
        return (ROOT if first == PACKAGE.name else self.settings.out), f"{first}/{rest}"

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
            "package": {p.relative_to(PACKAGE).as_posix(): digest(p) for p in sorted(PACKAGE.rglob("*.py"))},
            "own": self.own,
            "cells": [(cell["cell_type"], "".join(cell["source"])) for cell in cells],
            "reads": [
                (path.relative_to(self._folder(pattern)[0]).as_posix(), digest(path))
                for pattern in (*stage.reads, *stage.may_read)
                for path in self.files(pattern)
            ],
        }
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()

    def why_run(self, stage: Stage, manifest: dict) -> str | None:
        """Why the stage must run, in a few words; None when its result stands."""
        if stage.notebook not in manifest["stages"]:
            return "not finished yet" if self.partial(stage).exists() else "not run yet"
        record = manifest["stages"][stage.notebook]
        if record is None:
            return "its record in manifest.json is damaged"
        if record["fingerprint"] != self.fingerprint(stage):
            return "settings, code or input changed"
        made, now = record.get("environment", {}), environment(stage)
        if other := [name for name in stage.environment if now and made.get(name) != now.get(name)]:
            return f"{other[0]} was {made.get(other[0], 'not set')}, is {now.get(other[0], 'not set')}"
        for name, recorded in record["outputs"].items():
            path = Path(self.settings.out, name)
            if not path.is_file():
                return f"{name} is gone"
            if digest(path) != recorded:
                return f"{name} has changed since it was written"
        if missing := self.missing(stage.writes):
            return f"{missing[0]} is gone"
        present = {path for pattern in stage.writes for path in self.files(pattern)}
        added = {path.relative_to(self.settings.out).as_posix() for path in present} - record[
            "outputs"
        ].keys()
        return f"{min(added)} was added since" if added else None

    def check_reads(self, stage: Stage, manifest: dict, chosen: Sequence[Stage] = ()) -> None:
        """PipelineError when a file that the stage reads is no longer what the stage that wrote it has left.

        chosen: stages that run before, and write theirs again.
        """
        again = {other.notebook for other in chosen}
        written = {
            name: (notebook, recorded)
            for notebook, record in manifest["stages"].items()
            if record and notebook not in again
            for name, recorded in record["outputs"].items()
        }
        for path in (path for pattern in stage.reads for path in self.files(pattern)):
            notebook, recorded = written.get(os.path.relpath(path, self.settings.out), (None, None))
            if recorded and digest(path) != recorded:
                raise PipelineError(
                    f"{stage.notebook} reads {self.shown(path)}, which {notebook} wrote and which has changed since; restore it, "
                    f"or run without --only: {notebook} makes it again, or says what is wrong with it."
                )

    def outputs(self, stage: Stage) -> dict[str, str]:
        """Each file that the stage wrote, relative to the output folder, with its sha256."""
        patterns = (*stage.writes, *stage.may_write)
        paths = {self.executed(stage), *(path for pattern in patterns for path in self.files(pattern))}
        return {path.relative_to(self.settings.out).as_posix(): digest(path) for path in sorted(paths)}


def environment(stage: Stage) -> dict[str, str]:
    """Those of the stage's variables that are set."""
    return {name: os.environ[name] for name in stage.environment if os.environ.get(name)}


SHOWN = ("runs/{profile}/tables/", "figures/{profile}/")  # what readers look at


def read_notebook(path: Path) -> dict:
    """A notebook as plain JSON. PipelineError when it is missing or is not a notebook."""
    try:
        notebook = read_json(path)
        notebook["cells"]
    except FileNotFoundError:
        raise PipelineError(
            f"{path} is missing; the pipeline runs from a whole clone of the repository."
        ) from None
    except (ValueError, TypeError, KeyError) as error:
        raise PipelineError(f"{path} is not a notebook ({error}); restore or delete it.") from error
    return notebook


def set_aside(run: Run) -> None:
    """Move runs/<profile> to runs/<profile>.old-<n>, the first n that is free."""
    if run.dir.exists():
        aside = first_free(run.dir.with_name(f"{run.dir.name}.old"))
        run.dir.rename(aside)
        print(f"moved {run.shown(run.dir)} to {run.shown(aside)}")


def first_free(path: Path) -> Path:
    """<path>-1, or the first number that is free."""
    number = 1
    while (free := path.with_name(f"{path.name}-{number}")).exists():
        number += 1
    return free


def execute(run: Run, stage: Stage) -> kernel.Watch:
    """Run one stage; the executed notebook replaces the earlier one only at the end. PipelineError if it fails."""
    partial = run.partial(stage)
    way_on = (
        f"what ran is in {run.shown(partial)}. Fix the cause and run the same command: finished work is kept."
    )
    before = _shown_files(run, stage)
    watch = kernel.execute(run.source(stage), partial, run.parameters, way_on)
    if missing := run.missing(stage.writes):
        raise PipelineError(f"{stage.notebook} ended without writing {', '.join(missing)}; {way_on}")
    left = [path for path, written in _shown_files(run, stage).items() if before.get(path) == written]
    _put_away(run, left)
    partial.replace(run.executed(stage))
    return watch


def _shown_files(run, stage):
    """The stage's tables and figures, each with what tells whether it was written again."""
    shown = (pattern for pattern in (*stage.writes, *stage.may_write) if pattern.startswith(SHOWN))
    return {
        path: (path.stat().st_ino, path.stat().st_mtime_ns)
        for pattern in shown
        for path in run.files(pattern)
    }


def _put_away(run, files):
    """Move tables and figures that only an earlier run of the stage has made where nobody takes them for this run's."""
    if not files:
        return
    aside = first_free(run.dir / "set_aside" / "shown")
    for path in files:
        target = aside / path.relative_to(run.settings.out)
        target.parent.mkdir(parents=True, exist_ok=True)
        path.rename(target)
        print(
            f"  {run.shown(path)} is of an earlier run and was not made again: moved to {run.shown(target)}"
        )


def run_stages(run: Run, stages: Sequence[Stage], chosen: Sequence[Stage]) -> None:
    """Run what is stale among `chosen`; the manifest is rewritten after each stage."""
    manifest = run.manifest()
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
        run.check_reads(stage, manifest, chosen)
        if not described:
            read = [path for each in stages for pattern in each.reads for path in run.files(pattern)]
            manifest |= describe(run.settings, read) | {"own": run.own_record}
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
            "environment": environment(stage),
            "outputs": run.outputs(stage),
        }
        manifest["unfinished"] = None
        write_json(run.manifest_path, manifest)
        print(
            f"{stage.notebook}: done in {watch.seconds / 60:.1f} min, peak {watch.peak_memory_mb / 1000:.1f} GB"
        )


NOTEBOOKS = ROOT / "notebooks"

# Minutes: smoke and cpu on two cores; published is predicted from cpu. laptop's are those of one run on slower cores with other
# work beside it (docs/real-model.md). colab and paper are estimates (paper's 03: four arms of 14 hours, by docs/speed.md,
# and the cold start).
STAGES = (
    Stage(
        "01_data_curation",
        reads=("clinical_r1/data/**/*", f"${DATA_VARIABLE}/**/*"),
        writes=("runs/{profile}/questions/*.jsonl", "figures/{profile}/curation_*.*"),
        minutes={"smoke": 0.3, "cpu": 0.3, "published": 0.3, "laptop": 0.5, "colab": 1, "paper": 10},
    ),
    Stage(
        "02_reward_design",
        reads=("clinical_r1/data/**/*", f"${DATA_VARIABLE}/real_completions/**/*"),
        writes=("figures/{profile}/reward_design*.*",),
        minutes={"smoke": 0.1, "cpu": 0.1, "published": 0.1, "laptop": 0.1, "colab": 1, "paper": 1},
    ),
    Stage(
        "03_crpo_training",
        reads=("runs/{profile}/questions/*.jsonl", "clinical_r1/data/**/*"),
        writes=(
            "runs/{profile}/models/*/seed*/begun.json",
            "runs/{profile}/models/*/seed*/done.json",
            "runs/{profile}/models/*/seed*/log_history.jsonl",
            "figures/{profile}/training_curves.*",
            "figures/{profile}/fig5_response_length.*",
        ),
        may_write=("runs/{profile}/models/*/seed*/policy/**/*", "runs/{profile}/models/*/seed*/start/**/*"),
        minutes={"smoke": 0.5, "cpu": 3.6, "published": 4.2, "laptop": 94, "colab": 30, "paper": 3600},
        per_seed=True,
    ),
    Stage(
        "04_benchmark_evaluation",
        reads=(
            "runs/{profile}/questions/*.jsonl",
            "runs/{profile}/models/*/seed*/log_history.jsonl",
            "runs/{profile}/models/*/seed*/policy/**/*",
            "runs/{profile}/models/*/seed*/done.json",
        ),
        writes=(
            "runs/{profile}/completions/*/*.jsonl",
            "runs/{profile}/scores/*/*.jsonl",
            "runs/{profile}/tables/table1.csv",
            "runs/{profile}/tables/ledger.csv",
            "runs/{profile}/tables/comparisons.csv",
            "runs/{profile}/lm_eval/*/results_*.json",
            "figures/{profile}/ledger.csv",
            "figures/{profile}/comparisons.csv",
            "figures/{profile}/results.json",
            "figures/{profile}/fig3_cold_start_accuracy.*",
            "figures/{profile}/fig4_accuracy.*",
        ),
        may_write=(
            "runs/{profile}/completions/*/*.json",
            "runs/{profile}/scores/*/*.json",
            "runs/{profile}/tables/*.*",
            "figures/{profile}/fig1_radar.*",  # no radar without a judge
            "figures/{profile}/causality*.*",  # of the clinic only
            "runs/{profile}/causality/**/*.json*",
            *(f"runs/{{profile}}/direct/*/seed*/{part}" for part in ("*.json", "policy/**/*", "start/**/*")),
        ),
        may_read=(
            "runs/{profile}-base.*/tables/causality_differences.csv",
        ),  # the same probes on other bases
        environment=tuple(
            f"CLINICAL_R1_JUDGE_{name}" for name in ("MODEL", "MAX_TOKENS", "LIMIT_NAME", "TEMPERATURE")
        ),
        minutes={"smoke": 0.7, "cpu": 1.6, "published": 3.4, "laptop": 50, "colab": 15, "paper": 300},
        per_seed=True,
    ),
    Stage(
        "05_objective_tradeoffs",
        reads=("clinical_r1/data/laboratory/*",),
        may_read=("runs/ablations/summary/*",),  # read instead, where it is whole
        writes=("figures/{profile}/tradeoffs_*.*",),
        minutes={"smoke": 0.6, "cpu": 0.6, "published": 0.6, "laptop": 0.6, "colab": 0.6, "paper": 0.6},
    ),
    Stage(
        "06_paper_audit",
        reads=("clinical_r1/data/**/*",),
        writes=("figures/{profile}/audit_*.*",),
        minutes={"smoke": 0.2, "cpu": 0.2, "published": 0.2, "laptop": 0.2, "colab": 0.2, "paper": 0.2},
    ),
    Stage(
        "07_diagnostic_agent",
        reads=("clinical_r1/data/agent*/*",),  # the start, and the summary
        may_read=("runs/agent/summary/*",),  # read instead, where it is whole
        writes=("figures/{profile}/agent_*.*",),
        minutes={"smoke": 0.3, "cpu": 0.3, "published": 0.3, "laptop": 0.3, "colab": 0.5, "paper": 0.3},
    ),
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
