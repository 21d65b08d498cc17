"""Each of the paper's 135 printed cells beside this run's value, and where every number came from.

    ledger(table, settings)            one row per printed cell, with a verdict and its reason
    write_ledger(settings, table)      into runs/<profile>/tables, and a copy for readers in figures/<profile>
    explain(name, settings)            a cell's run, commit, hashes, seeds and command, as text

A cell is called "not attempted" unless our number answers the same question as the printed one: the same items, the same
options, the same base model. The same run gives the same bytes: dates come from its manifest.
"""

from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from clinical_r1 import paper
from clinical_r1.audit.accuracies import OPTIONS
from clinical_r1.files import PACKAGE, PipelineError, read_json, read_jsonl, sha256, write_json, write_text
from clinical_r1.labels import CLINIC_BENCHMARKS
from clinical_r1.metrics import PROCESS_METRICS
from clinical_r1.pipeline.manifest import describe, open_manifest
from clinical_r1.settings import PAPER, Settings
from clinical_r1.tables import against_printed, interval, margin, markdown, number, predicted, whole

VERDICTS = ("reproduced", "inside interval", "outside", "uninformative", "not attempted")
STAND_IN = "clinic stand-in: other questions, other model"
ONE_SEED = "one training seed: nothing says how far another run may lie"
TEXT = ("cell", "benchmark", "method", "metric", "measured_on", "protocol", "verdict", "reason")
WHOLE = ("n", "printed_n", "seeds")
LEDGER_COLUMNS = (
    "cell benchmark method metric printed measured_on value ci_low ci_high n printed_n seeds coverage protocol "
    "predicted_low predicted_high margin verdict reason"
).split()
NUMBERS = tuple(name for name in LEDGER_COLUMNS if name not in TEXT + WHOLE)
COMPARISONS = "comparisons.csv"  # beside the ledger: `tables.write_comparisons` comes first
EVALUATION = "04"  # the notebook that writes the ledger: its own record is not in the manifest yet


# --- the 135 cells


def ledger(table: pd.DataFrame, settings: Settings, options: Mapping[str, int] | None = None) -> pd.DataFrame:
    """Exactly the 135 printed cells, in the paper's order, as LEDGER_COLUMNS.

    table: rows of `tables.table1`, accuracy in per cent; methods and metrics that the paper lacks are passed over.
    options: benchmark -> options per question of its test set (`option_counts`); one not named is taken to agree.
    measured_on: where our value comes from: the benchmark itself, else a variant of it (medqa-4), else the clinic set
        that stands in for it. A stand-in's value is carried in the row but gets no verdict.
    predicted_low, predicted_high: where one more run like ours would lie, 95 %, on the same questions; the printed value is one
        run's. margin: how far two runs may differ and still say the same. Verdicts: `tables.against_printed`.
    n: questions behind our value; printed_n: size of the full test set. Missing values are NaN, never zero.
    Raises ValueError for a table that lacks columns or holds a cell twice.
    """
    key = ["benchmark", "method", "metric"]
    missing = {*key, "value", "ci_low", "ci_high", "n", "seeds", "coverage", "seed_sd"} - set(table.columns)
    if missing:
        raise ValueError(f"the table lacks {sorted(missing)}; expected the rows of tables.table1.")
    if table.duplicated(key).any():
        raise ValueError("the table holds a benchmark, method and metric twice; expected one row for each.")
    ours = {tuple(row[name] for name in key): row for row in table.to_dict("records")}
    rows = [_row(cell, ours, settings, options or {}) for cell in paper.table1().to_dict("records")]
    frame = pd.DataFrame(rows, columns=LEDGER_COLUMNS)
    return frame.astype(dict.fromkeys(WHOLE, "Int64") | dict.fromkeys(NUMBERS, float))


def _row(cell, ours, settings, options):
    benchmark, method, metric = cell["benchmark"], cell["method"], cell["metric"]
    measured_on = _measured_on(benchmark, {key[0] for key in ours})
    asked = ours.get((measured_on, method, "accuracy"))
    found = ours.get((measured_on, method, metric))
    if found is not None and not np.isfinite(found["value"]):
        found = None
    reasons = [] if found else ["no judge" if asked and metric in PROCESS_METRICS else "not run"]
    if asked or found:
        reasons += _unlike(benchmark, measured_on, int((asked or found)["n"]), settings, options)
    row = {
        "cell": f"table1.{benchmark}.{method}.{metric}",
        "printed": cell["value"],
        "reason": "; ".join(reasons),
    }
    row |= {
        "benchmark": benchmark,
        "method": method,
        "metric": metric,
        "printed_n": paper.N_QUESTIONS[benchmark],
    }
    row |= {"verdict": "not attempted", "measured_on": measured_on if asked or found else ""}
    row["protocol"] = protocol(settings) if found else ""
    if found:
        half = predicted(metric, found["seed_sd"], int(found["seeds"]), int(found["n"]))
        row |= {name: found[name] for name in ("value", "ci_low", "ci_high", "n", "seeds", "coverage")}
        row |= {
            "predicted_low": round(found["value"] - half, 4),
            "predicted_high": round(found["value"] + half, 4),
        }
        row["margin"] = margin(metric)
        if not reasons:
            row["verdict"] = against_printed(cell["value"], found["value"], half, margin(metric))
            row["reason"] = "" if np.isfinite(half) else ONE_SEED
    return row


def _measured_on(benchmark, present):
    """The name under which the table holds a benchmark, "" where it holds neither it nor a stand-in."""
    stand_in = {theirs: ours for ours, theirs in paper.STANDS_FOR.items()}[benchmark]
    variants = sorted(name for name in present if name.startswith(f"{benchmark}-"))
    return next((name for name in (benchmark, *variants, stand_in) if name in present), "")


def _unlike(benchmark, measured_on, items, settings, options):
    """Why a number measured there may not stand beside the printed one; every difference names both sides."""
    if measured_on in CLINIC_BENCHMARKS:
        return [STAND_IN]
    differences = []
    if options.get(measured_on, OPTIONS[benchmark]) != OPTIONS[benchmark]:
        differences.append(f"{options[measured_on]} options here, {OPTIONS[benchmark]} in the paper")
    elif measured_on != benchmark:
        differences.append(f"{measured_on} here, {benchmark} in the paper")
    if items != paper.N_QUESTIONS[benchmark]:
        differences.append(f"{items:,} items here, {paper.N_QUESTIONS[benchmark]:,} in the paper")
    if settings.base_model != PAPER.base_model:
        differences.append(f"{settings.base_model} here, {PAPER.base_model} in the paper")
    return differences


def protocol(settings: Settings) -> str:
    """How the completions behind Table 1 were drawn, in words."""
    return (
        f"one sample a question, temperature {settings.eval_temperature:g}, top-p {settings.eval_top_p:g}, "
        f"at most {settings.max_completion_tokens:,} tokens; unparsed = wrong"
    )


def ledger_counts(rows: pd.DataFrame) -> dict[str, int]:
    """Verdict -> number of cells; all five verdicts, those without a cell as 0."""
    counts = Counter(rows["verdict"])
    return {verdict: counts[verdict] for verdict in VERDICTS}


def option_counts(settings: Settings) -> dict[str, int]:
    """Benchmark -> options per test question (the most frequent number), for the question files that are there."""
    counts = {}
    for benchmark in settings.benchmarks:
        path = settings.questions_path(benchmark, "test")
        sizes = Counter(len(question["options"]) for question in read_jsonl(path)) if path.exists() else None
        if sizes:
            counts[benchmark] = sizes.most_common(1)[0][0]
    return counts


# --- on disk


def write_ledger(
    settings: Settings, table: pd.DataFrame, manifest: Mapping | str | Path | None = None
) -> pd.DataFrame:
    """Write ledger.csv and results.json into runs/<profile>/tables and figures/<profile>, ledger.md into the first.

    manifest: its contents, its path, or None for the run's own; a notebook opened by itself has none, and then this
        checkout is described instead. PipelineError when it is damaged or describes other settings.
    Returns the ledger.
    """
    rows = ledger(table, settings, option_counts(settings))
    text = rows.to_csv(index=False)
    tables = settings.run_dir / "tables"
    for folder in (tables, settings.figures_dir):
        path = write_text(folder / "ledger.csv", text)
        record = provenance(settings, manifest) | {"ledger": {"sha256": sha256(path)} | ledger_counts(rows)}
        record |= {"tables": _hashes(settings, [tables / name for name in ("table1.csv", COMPARISONS)])}
        write_json(folder / "results.json", record)
    write_text(tables / "ledger.md", ledger_markdown(rows))
    return rows


def provenance(settings: Settings, manifest: Mapping | str | Path | None = None) -> dict:
    """What a number of this run came from: commit, versions, hardware, seeds, sha256 of all that was read or sampled.

    Stages up to training are quoted from the manifest; question and completion files are hashed here, null where a file
    is not on disk. `date` is when the last of those stages ended, None without a manifest.
    """
    manifest = _manifest(settings, manifest)
    stages = {
        name: {key: stage[key] for key in ("git_sha", "finished")}
        for name, stage in sorted(manifest["stages"].items())
        if stage and name < EVALUATION
    }
    inputs = manifest["sha256"]
    questions = sorted((settings.run_dir / "questions").glob("*.jsonl"))
    evaluations = [
        (benchmark, method, seed, protocol) for method, seed, benchmark, protocol in settings.evaluations()
    ]
    completions = [settings.completions_path(*evaluation) for evaluation in evaluations]
    scores = [settings.scores_path(*evaluation) for evaluation in evaluations]
    return {
        "profile": settings.profile,
        "command": f"{settings.command} --seeds {len(settings.seeds)}",
        "date": max((stage["finished"] for stage in stages.values()), default=None),
        "seeds": list(settings.seeds),
        "protocol": protocol(settings),
        **{key: manifest[key] for key in ("git", "versions", "hardware")},
        "stages": stages,
        "base_model": settings.base_model,
        "inputs": dict(inputs),
        "questions": _hashes(settings, questions),
        "completions": _hashes(settings, completions),
        "scores": _hashes(settings, scores),
    }


def _manifest(settings, manifest):
    if not isinstance(manifest, Mapping):
        manifest = open_manifest(Path(manifest or settings.run_dir / "manifest.json"), settings)
    if "git" in manifest:
        return manifest
    # a notebook opened by itself: no run has been described
    shipped = (path for path in (PACKAGE / "data").rglob("*") if path.is_file())
    return {"stages": {}} | describe(settings, shipped)


def _hashes(settings, paths):
    out = Path(settings.out)
    return {
        path.relative_to(out).as_posix(): sha256(path) if path.exists() else None for path in sorted(paths)
    }


def read_ledger(path: Path) -> pd.DataFrame:
    """A ledger.csv as `ledger` made it. PipelineError when it is missing, cut short or edited out of shape."""
    kinds = dict.fromkeys(TEXT, str) | dict.fromkeys(WHOLE, "Int64") | dict.fromkeys(NUMBERS, float)
    fix = "run notebook 04 again, or restore the committed copy."
    try:
        rows = pd.read_csv(path, dtype=kinds)
    except FileNotFoundError:
        raise PipelineError(f"{path} is missing; {fix}") from None
    except (ValueError, TypeError) as error:  # not a table, or text where numbers belong
        raise PipelineError(f"{path} is damaged ({str(error).splitlines()[0]}); {fix}") from error
    if list(rows.columns) != LEDGER_COLUMNS:
        lacking = [name for name in LEDGER_COLUMNS if name not in rows.columns]
        raise PipelineError(f"{path} is damaged (columns lacking: {lacking}, or in another order); {fix}")
    rows[list(TEXT)] = rows[list(TEXT)].fillna("")
    expected = [
        f"table1.{cell.benchmark}.{cell.method}.{cell.metric}" for cell in paper.table1().itertuples()
    ]
    if rows["cell"].tolist() != expected:
        raise PipelineError(f"{path} is damaged ({len(rows)} rows, expected the paper's 135 in order); {fix}")
    if unknown := set(rows["verdict"]) - set(VERDICTS):
        raise PipelineError(f"{path} is damaged (verdicts {sorted(unknown)} are not of {VERDICTS}); {fix}")
    return rows


def ledger_markdown(rows: pd.DataFrame) -> str:
    """The ledger for readers: the counts by verdict, then the 135 cells, a table per printed benchmark."""
    blocks = [
        "# The ledger",
        f"{counts_sentence(rows)} A printed value is one run's. The prediction interval says where, in 95 % of cases, one more "
        "run like ours would lie on the same questions. reproduced: the printed value and every value of that interval "
        "differ by at most the margin. outside: the interval does not hold the printed value, and reaches further than the "
        "margin. uninformative: it holds it, but is wider than the margin to either side. inside interval: the rest.",
    ]
    header = "cell printed ours 95%_interval n printed_n seeds coverage prediction margin verdict".split()
    for benchmark, own in rows.groupby("benchmark", sort=False):
        lines = [
            [
                row.cell.removeprefix(f"table1.{benchmark}."),
                f"{row.printed:.2f}",
                number(row.value),
                interval(row.ci_low, row.ci_high, 2) or "–",
                whole(row.n),
                f"{row.printed_n:,}",
                whole(row.seeds),
                number(row.coverage, 3),
                interval(row.predicted_low, row.predicted_high, 2) or "–",
                number(row.margin, 1),
                f"{row.verdict}: {row.reason}" if row.reason else row.verdict,
            ]
            for row in own.itertuples()
        ]
        blocks += [f"## {benchmark}", markdown([name.replace("_", " ") for name in header], lines)]
    return "\n\n".join(blocks) + "\n"


def counts_sentence(rows):
    """The number of cells by verdict, and why the others were not attempted, as a sentence."""
    counts = ledger_counts(rows)
    listed = ", ".join(f"{count} {verdict}" for verdict, count in counts.items())
    why = Counter(rows["reason"][rows["verdict"] == "not attempted"])
    reasons = "; ".join(f"{count} {reason}" for reason, count in why.most_common())
    return f"Of the paper's {len(rows)} printed cells: {listed}{f' ({reasons})' if reasons else ''}."


def find_ledger(settings):
    """(ledger, results.json, a line that says which of the two places they lie in)."""
    live, published = settings.run_dir / "tables", settings.published_dir
    shown = f"figures/published/{published.name}"
    if (live / "ledger.csv").exists():
        rows, record = read_tables(settings)
        return rows, record, f"source     runs/{settings.profile}/tables/ledger.csv (a run on disk)"
    if not (published / "ledger.csv").exists():
        raise PipelineError(
            f"neither runs/{settings.profile}/tables nor {shown} holds a ledger; run ./reproduce.sh "
            f"{settings.profile} first, or name another folder with --out."
        )
    note = f"source     {shown}/ledger.csv, the published copy: runs/{settings.profile} holds no ledger here"
    return *read_pair(published), note


def read_tables(settings):
    """`read_pair` of a run's own tables. PipelineError too when its scores, or Table 1, are no longer those recorded there; gone
    they may be.
    """
    rows, record = read_pair(settings.run_dir / "tables")
    for path, expected in [*record.get("scores", {}).items(), *record.get("tables", {}).items()]:
        now = Path(settings.out) / path
        if expected and now.exists() and sha256(now) != expected:
            raise PipelineError(
                f"{path} has changed since the tables of {settings.run_dir} were made; run notebook 04 again."
            )
    return rows, record


def read_pair(folder):
    """(ledger, results.json) of one folder. PipelineError when one is damaged or they, and comparisons.csv, do not belong
    together.
    """
    rows = read_ledger(folder / "ledger.csv")
    fix = "run notebook 04 again, or restore both."
    try:
        record = read_json(folder / "results.json")
        stamped = record["ledger"]["sha256"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise PipelineError(
            f"{folder / 'results.json'} is missing or damaged ({type(error).__name__}); {fix}"
        ) from error
    beside = {Path(name).name: digest for name, digest in record.get("tables", {}).items()}
    for name, expected in {"ledger.csv": stamped, COMPARISONS: beside.get(COMPARISONS)}.items():
        if expected and (not (folder / name).exists() or sha256(folder / name) != expected):
            raise PipelineError(
                f"{folder / name} is not the one that results.json describes: edited, gone, or of another run; {fix}"
            )
    return rows, record
