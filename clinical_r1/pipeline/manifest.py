"""The record of a run: code, versions, hardware, settings and the sha256 of everything it read."""

import json
import os
import platform
import subprocess
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path

from clinical_r1.files import DATA_VARIABLE, PACKAGE, ROOT, PipelineError, read_json, sha256
from clinical_r1.settings import Settings

RECORDED = "torch transformers trl peft datasets accelerate numpy pandas scipy statsmodels matplotlib papermill".split()


def needs_cuda(settings: Settings) -> bool:
    """Whether the profile trains or samples on a CUDA device: float16 is scaled there only."""
    return settings.backend == "unsloth" or settings.use_vllm or settings.device_dtype == "float16"


EXTENDABLE = ("seeds", "methods", "benchmarks", "outside")


# What each part of a manifest is, and of a stage's record in it
PARTS = {
    "settings": dict, "stages": dict, "seeds": list, "profile": str, "git": dict, "versions": dict, "hardware": dict,
    "sha256": dict,
}  # fmt: skip
RECORD = {
    "fingerprint": str, "git_sha": str | None, "finished": str, "seconds": int | float, "peak_memory_mb": int | float,
    "outputs": dict,
}  # fmt: skip


def read_manifest(path: Path) -> dict:
    """The manifest at `path`; PipelineError when it is damaged. A stage whose record is no record is None in "stages"."""
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
        fault = None if isinstance(manifest, dict) else f"it is a {type(manifest).__name__}"
        fault = fault or _fault(manifest, PARTS) or _fault(manifest["settings"], {"seeds": list})
        fault = fault or _fault(manifest["git"], {"sha": str | None, "dirty": bool | None})
    except (ValueError, RecursionError) as error:
        fault = f"{type(error).__name__}: {error}"
    if fault:
        raise PipelineError(
            f"{path} is damaged ({fault}); delete it, and the notebooks run again on the arms that are trained."
        )
    stages = manifest["stages"].items()
    manifest["stages"] = {
        name: record if isinstance(record, dict) and not _fault(record, RECORD) else None
        for name, record in stages
    }
    return manifest


def _fault(record, kinds):
    """The first part that is lacking or of another kind, as words; None where there is none."""
    for name, kind in kinds.items():
        if name not in record:
            return f"{name} is lacking"
        if not isinstance(record[name], kind):
            return f"{name} is a {type(record[name]).__name__}"
    return None


def open_manifest(path: Path, settings: Settings) -> dict:
    """The manifest at `path`, or an empty one; PipelineError if it is damaged or was made with other settings.

    More seeds, arms, benchmarks or outside models than before are no other settings: they extend the run.
    """
    if not path.exists():
        return {"stages": {}}
    folder = path.parent.relative_to(settings.out)
    manifest = read_manifest(path)
    made = manifest["settings"]
    now = json.loads(json.dumps(settings.to_json()))
    changed = [key for key in sorted(made.keys() | now.keys()) if made.get(key) != now.get(key)]
    changed = [key for key in changed if key not in EXTENDABLE or not _extends(made.get(key, []), now[key])]
    if changed:
        listed = "; ".join(f"{key} {made.get(key)!r}, now {now.get(key)!r}" for key in changed)
        raise PipelineError(
            f"{folder} was made with other settings ({listed}); move it away or pass --fresh."
        )
    return manifest


def _extends(made: list, now: list) -> bool:
    return isinstance(made, list) and all(value in now for value in made)


def describe(settings: Settings, files: Iterable[Path]) -> dict:
    """What a reader needs to judge or repeat a run that reads `files`. Names no machine and no path of one."""
    import psutil

    data = os.environ.get(DATA_VARIABLE)
    roots = {PACKAGE.name: PACKAGE} | ({f"${DATA_VARIABLE}": Path(data)} if data else {})
    return {
        "profile": settings.profile,
        "seeds": list(settings.seeds),
        "settings": settings.to_json(),
        "git": git_state(),
        "versions": {"python": platform.python_version()} | {name: _version(name) for name in RECORDED},
        "hardware": {
            "platform": f"{platform.system()} {platform.machine()}",
            "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
            "memory_gb": round(psutil.virtual_memory().total / 1e9, 1),
            "gpu": _gpu_name() if needs_cuda(settings) else None,
        },
        "sha256": {
            f"{name}/{path.relative_to(root).as_posix()}": sha256(path)
            for name, root in roots.items()
            for path in sorted({*files, PACKAGE / "prompts.py"})
            if path.is_relative_to(root)
        },
    }


def git_state() -> dict:
    """{"sha", "dirty"} of this checkout; both None where it is not one."""

    def git(*arguments):
        command = ["git", "-C", str(ROOT), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    try:
        if Path(git("rev-parse", "--show-toplevel")).resolve() != ROOT:
            return {"sha": None, "dirty": None}
        return {"sha": git("rev-parse", "HEAD"), "dirty": bool(git("status", "--porcelain"))}
    except (OSError, subprocess.CalledProcessError):
        return {"sha": None, "dirty": None}


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _gpu_name() -> str | None:
    """None where PyTorch sees no card, such as a CPU build on which a GPU profile's record is written."""
    import torch

    return torch.cuda.get_device_name(0) if torch.cuda.is_available() else None


def seeds_line(settings: Settings, published: Path) -> str:
    """How many seeds this run has and the published table of its profile, and what one seed leaves out."""
    record, own = published / "results.json", len(settings.seeds)
    said = f"seeds: {own} here; no table of profile {settings.profile} is published"
    if record.exists():
        theirs = len(read_json(record)["seeds"])
        said = f"seeds: {own} here, {theirs} in the published table (figures/published/{published.name})"
    return said + (
        "" if own > 1 else "; with one seed no difference between arms gets a p (--seeds N for more)"
    )
