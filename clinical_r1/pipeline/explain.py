"""Where a number comes from: run, commit, hashes, seeds and command of one cell."""

import difflib
import re
from pathlib import Path

import numpy as np
import pandas as pd

from clinical_r1 import labels
from clinical_r1.files import PACKAGE, PipelineError, sha256
from clinical_r1.labels import CLINIC_BENCHMARKS
from clinical_r1.pipeline.ledger import counts_sentence, find_ledger, protocol
from clinical_r1.settings import Settings
from clinical_r1.tables import interval

EXAMPLE = "table1.medqa.crpo.accuracy"


def explain(name: str, settings: Settings) -> str:
    """Where a number came from, as text; "ledger" explains the whole.

    name: "table1.medqa.crpo.accuracy"; the set that was measured may stand for the printed one (table1.clinic.…). So may
        any cell of a run's own Table 1: an arm, a set or a measure that the paper lacks.
    The run on disk is read, otherwise the published copy, and the text says which. ValueError for an unknown name, with
    the nearest one; PipelineError when there is no ledger, or it is not the one that results.json describes.
    """
    rows, record, note = find_ledger(settings)
    names = {row.cell: row for row in rows.itertuples() if row.cell}
    names |= {
        f"table1.{row.measured_on}.{row.method}.{row.metric}": row
        for row in rows.itertuples()
        if row.measured_on
    }
    if name == "ledger":
        return "\n".join([f"ledger: {counts_sentence(rows)}", note, *_run_lines(record)]) + "\n"
    if name not in names:
        names |= own_cells(settings)
    if name not in names:
        nearest = difflib.get_close_matches(name, [*names, "ledger"], n=1, cutoff=0)[0]
        raise ValueError(f"{name!r} is no cell of the ledger or of Table 1; the nearest name is {nearest!r}.")
    row = names[name]
    lines = [*_cell_lines(row), note, *_run_lines(record), *_file_lines(row, record, settings)]
    return "\n".join([name, *(f"  {line}" for line in lines)]) + "\n"


def own_cells(settings: Settings) -> dict:
    """Name -> cell of every row of the run's own table1.csv, as rows of a ledger without a printed number.

    PipelineError when it is no such table.
    """
    path = settings.run_dir / "tables" / "table1.csv"
    if not path.exists() or not path.with_name("ledger.csv").exists():  # then the published copy is explained
        return {}
    unlike = {
        "printed": np.nan,
        "verdict": "not attempted",
        "reason": "not in the paper",
        "predicted_low": np.nan,
    }
    try:
        rows = pd.read_csv(path).assign(**unlike, protocol=protocol(settings))
        rows = rows.assign(measured_on=rows["benchmark"]).astype(
            {"value": float, "ci_low": float, "ci_high": float}
        )
    except (ValueError, KeyError) as error:
        raise PipelineError(f"{path} is damaged ({error}); run notebook 04 again.") from error
    return {f"table1.{row.benchmark}.{row.method}.{row.metric}": row for row in rows.itertuples()}


def _cell_lines(row):
    named = (
        labels.METHOD_LABELS.get(row.method, row.method),
        labels.METRIC_LABELS.get(row.metric, row.metric),
    )
    label = ", ".join(named)
    if np.isnan(row.printed):
        yield f"paper      no such cell ({row.benchmark}, {label})"
    else:
        yield (
            f"paper      {row.printed:.2f} (arXiv 2512.00601, Table 1, {row.benchmark}, {label}; n {row.printed_n:,}, "
            "no interval)"
        )
    if np.isnan(row.value):
        yield "this run   no value"
    else:
        yield (
            f"this run   {row.value:.2f} {interval(row.ci_low, row.ci_high, 2)} on {row.measured_on}; "
            f"n {row.n:,} questions, {row.seeds} seed(s), coverage {row.coverage:.3f}"
        )
        yield f"protocol   {row.protocol}"
    if not np.isnan(row.predicted_low):
        yield (
            f"one more   {interval(row.predicted_low, row.predicted_high, 2)}: where one more run like ours would lie, 95 %; "
            f"equivalence margin {row.margin:g}"
        )
    yield f"verdict    {row.verdict}{f': {row.reason}' if row.reason else ''}"


def _run_lines(record):
    git, machine = record["git"], record["hardware"]
    dirty = {True: ", with uncommitted changes", False: ", clean", None: ""}[git["dirty"]]
    versions = ", ".join(f"{name} {version}" for name, version in record["versions"].items() if version)
    yield f"run        runs/{record['profile']}, notebooks 01 to 03 last ran {record['date'] or 'at an unrecorded time'}"
    yield f"git        {git['sha'] or 'not a checkout'}{dirty}"
    yield (
        f"hardware   {machine['platform']}, {machine['cores']} cores, {machine['memory_gb']} GB, "
        f"GPU {machine['gpu'] or 'none'}"
    )
    yield f"versions   {versions}"
    yield f"seeds      {', '.join(str(seed) for seed in record['seeds'])}"
    yield f"again      {record['command']}"


def _file_lines(row, record, settings):
    inputs = record["inputs"]
    wanted = {"prompts": f"{PACKAGE.name}/prompts.py"}
    if row.measured_on in CLINIC_BENCHMARKS:
        folder = f"{PACKAGE.name}/data/clinic_kb/"
        tables = {path: digest for path, digest in inputs.items() if path.startswith(folder)}
        for path, digest in (tables or {folder: None}).items():
            yield f"knowledge  {path}  sha256 {digest or 'not recorded'}"
    if record["base_model"] == "clinic-base":
        wanted["base"] = f"{PACKAGE.name}/data/clinic_base/model.safetensors"
    else:
        how = "pinned by its revision" if "@" in record["base_model"] else "fetched by name; no hash recorded"
        yield f"base       {record['base_model']}, {how}"
    for label, path in wanted.items():
        yield f"{label:10} {path}  sha256 {inputs.get(path) or 'not recorded'}"
    sources = {path: digest for path, digest in inputs.items() if f"/{row.benchmark}/" in path}
    if row.measured_on and row.measured_on not in CLINIC_BENCHMARKS:
        yield from (f"data       {path}  sha256 {digest}" for path, digest in sources.items())
    if not row.measured_on:
        return
    test = f"/questions/{row.measured_on}.test.jsonl"
    asked = {path: digest for path, digest in record["questions"].items() if path.endswith(test)}
    name = re.compile(rf"/completions/{re.escape(row.measured_on)}/{re.escape(row.method)}\.seed\d+\.jsonl$")
    answered = {path: digest for path, digest in record["completions"].items() if name.search(path)}
    for label, hashes in (("questions", asked), ("answers", answered)):
        for path, digest in hashes.items():
            yield f"{label:10} {path}  sha256 {digest or 'not recorded'}  ({_state(Path(settings.out) / path, digest)})"


def _state(path, digest):
    if not path.exists():
        return "not on disk here"
    return "on disk, as recorded" if sha256(path) == digest else "on disk, CHANGED since"
