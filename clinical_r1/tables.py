"""Table 1 from summarised rows: the paper's printed numbers beside ours, and the table as markdown. Pure."""

import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from clinical_r1 import metrics
from clinical_r1 import paper as printed
from clinical_r1.arms import METHODS
from clinical_r1.files import write_text
from clinical_r1.intervals import prediction_half_width
from clinical_r1.labels import BENCHMARK_LABELS, GUESSES, METHOD_LABELS, METRIC_LABELS
from clinical_r1.metrics import (
    BENCHMARK_ORDER,
    LOWER_IS_BETTER,
    METRIC_ORDER,
    NO_TEST,
    PRIMARY_BENCHMARKS,
    PRIMARY_METRICS,
    PROCESS_METRICS,
    SUMMARY_COLUMNS,
    rank,
)
from clinical_r1.questions import read_questions
from clinical_r1.settings import Settings

TABLE1_COLUMNS = [*SUMMARY_COLUMNS[:9], "paper_value", "verdict", "interval", "seed_sd"]
MARGINS = {"accuracy": 5.0}  # points of accuracy
COUNT_MARGIN = 0.5  # of any count per response
NOT_COMPARABLE = "not comparable: clinic stand-in"


def table1(summary, paper, pairing):
    """Our rows with the paper's printed number carried beside each; 4 decimals, accuracy in per cent.

    summary: rows of `summarise`, `baseline_rows` (and `extra_rows`), concatenated.
    paper: tidy frame benchmark, method, metric, value.
    pairing: our benchmark -> the paper's; a benchmark not named stands for itself.
    verdict: "not comparable: clinic stand-in" where the pairing changes the benchmark; "no printed value" without one;
        otherwise as `against_printed`.
    """
    table = summary.copy()
    if table.duplicated(["benchmark", "method", "metric"]).any():
        raise ValueError("the summary has a benchmark, method and metric twice; expected one row for each.")
    percent = table["metric"] == "accuracy"
    if (table.loc[percent, "value"] > 1).any():
        raise ValueError(
            "accuracy above 1 in the summary; expected shares in [0, 1]: pass summarise()'s rows unchanged."
        )
    table.loc[percent, ["value", "ci_low", "ci_high", "seed_sd"]] *= 100
    table["stands_for"] = [pairing.get(name, name) for name in table["benchmark"]]
    printed = paper.rename(columns={"benchmark": "stands_for", "value": "paper_value"})
    table = table.merge(printed, how="left", on=["stands_for", "method", "metric"], validate="many_to_one")
    numbers = ["value", "ci_low", "ci_high", "coverage", "paper_value", "seed_sd"]
    table[numbers] = table[numbers].astype(float).round(4)
    table["verdict"] = [_verdict(row) for row in table.itertuples()]
    table = table.sort_values(["benchmark", "method", "metric"], key=_ranks, kind="stable", ignore_index=True)
    return table[TABLE1_COLUMNS]


def _ranks(column):
    own = tuple(
        name for name in dict.fromkeys(column) if name not in METHODS + GUESSES
    )  # in the order of the run
    order = {"benchmark": BENCHMARK_ORDER, "method": METHODS + own + GUESSES, "metric": METRIC_ORDER}[
        column.name
    ]
    return column.map(lambda name: rank(name, order))


def _verdict(row):
    if np.isnan(row.paper_value):
        return "no printed value"
    if row.stands_for != row.benchmark:
        return NOT_COMPARABLE
    half = predicted(row.metric, row.seed_sd, row.seeds, row.n)
    return against_printed(row.paper_value, row.value, half, margin(row.metric))


def margin(metric: str) -> float:
    """The equivalence margin: two runs that differ by less say the same. 5 points of accuracy, half a count. Ours."""
    return MARGINS.get(metric, COUNT_MARGIN)


def predicted(metric: str, seed_sd: float, seeds: int, n: int) -> float:
    """Half the 95 % prediction interval of the difference between one more run and our mean of `seeds` runs; NaN for one.

    seed_sd: between our seeds, on the same n questions that the other run answers; accuracy in per cent.
    """
    return prediction_half_width(seed_sd, seeds, n, unit=100.0 if metric == "accuracy" else 1.0)


def against_printed(printed: float, value: float, half: float, margin: float) -> str:
    """The verdict on a printed value, which is one run's, from the interval value - printed +- half (`predicted`).

    "reproduced": the whole interval lies within the margin. "outside": it does not hold 0, and reaches beyond the margin.
    "uninformative": it holds 0 and is wider than the margin to either side, so that it holds 0 proves nothing; also one seed,
    which has none. "inside interval": it holds 0 and is as narrow as the margin, but does not lie within it.
    """
    off = abs(value - printed)
    if not half >= 0:
        return "uninformative"
    if off + half <= margin:
        return "reproduced"
    if off > half:
        return "outside"
    return "uninformative" if half > margin else "inside interval"


def table1_markdown(table, labels=None, pairing=None):
    """Table 1 as markdown: one table per benchmark, best in bold; the paper's printed numbers below, apart.

    table: rows of `table1`; metrics beyond the nine are left to their own table.
    labels: machine name -> printed name.
    pairing: as in `table1`; it names the paper's benchmark in the second block.
    """
    labels, pairing = labels or {}, pairing or {}
    blocks = _introduction(labels)
    for benchmark, rows in table.groupby("benchmark", sort=False):
        explored = "" if benchmark in PRIMARY_BENCHMARKS else " (exploratory)"
        blocks += [f"## {_named(benchmark, labels)}{explored}", _measured_block(rows, labels)]
        partly = rows[rows["metric"].isin(PROCESS_METRICS) & (rows["coverage"] < 1)]
        blocks += [
            f"{_named(r.method, labels)}: {r.metric} has {r.coverage:.1%} verdicts."
            for r in partly.itertuples()
        ]
        shown = {name: _named(name, labels) for name in rows["method"].unique()}
        told = [
            (shown[m], note) for b, m, note in table.attrs.get("notes", ()) if b == benchmark and m in shown
        ]
        blocks += [f"{name}: {note}." for name, note in told]
    printed = table.dropna(subset=["paper_value"])
    if len(printed):
        blocks += [
            "# The paper's printed numbers",
            "Copied from its Table 1 for reference; none of them is a result of this run.",
        ]
    for benchmark, rows in printed.groupby("benchmark", sort=False):
        source = pairing.get(benchmark, benchmark)
        title = f"Printed for {_named(source, labels)}"
        if (rows["verdict"] == NOT_COMPARABLE).any():
            title += f" (not comparable: {_named(benchmark, labels)} has other questions and another model)"
        blocks += [f"## {title}", _printed_block(rows, labels)]
    return "\n\n".join(blocks) + "\n"


def _introduction(labels):
    """Title, primary measures, and what the intervals of Table 1 cover."""
    return [
        "# Table 1: this run",
        f"Primary measures, named before looking: {_primary(labels)}. They stand first. All other columns, and the sets "
        "called exploratory, are exploratory.",
        "Mean count per response, and accuracy in per cent, with 95 % intervals. Accuracy counts an unparsed "
        "response as wrong; coverage is the share that parsed. With several training seeds the intervals are over questions "
        "and seeds (two-way random effects). With one seed they are over questions only (Wilson for accuracy with one "
        "response per question, otherwise Student's t): they say nothing of another training run, so no p is given between "
        "arms. Where nothing varies, the interval reaches as far as Wilson's for 0 of n. n counts questions. Bold: best "
        "method of the column, whether or not the intervals overlap. The majority letter is read off these very answers: "
        "the best any constant guess could do.",
    ]


def _primary(labels):
    """ "Accuracy (%), Faithfulness, DRC and Hallucination, on clinic and clinic-shift"."""
    *first, last = (_named(name, labels) for name in PRIMARY_METRICS)
    sets = " and ".join(_named(name, labels) for name in PRIMARY_BENCHMARKS)
    return f"{', '.join(first)} and {last}, on {sets}"


def _named(name, labels):
    return labels.get(name, str(name).replace("_", " "))


def _measured_block(rows, labels):
    metrics = [m for m in dict.fromkeys(PRIMARY_METRICS + METRIC_ORDER) if m in set(rows["metric"])]
    best = {
        metric: _best(rows[(rows["metric"] == metric) & ~rows["method"].isin(GUESSES)]) for metric in metrics
    }
    lines = []
    for method, own in rows.groupby("method", sort=False):
        cells = {
            r.metric: _cell(r, bold=method not in GUESSES and r.value == best[r.metric])
            for r in own.itertuples()
        }
        size = own[own["metric"] == "accuracy"].iloc[0]
        seeds = size["seeds"] if method not in GUESSES else "–"
        tail = [f"{size['n']}", f"{seeds}", f"{size['coverage']:.3f}"]
        lines.append([_named(method, labels), *(cells.get(metric, "–") for metric in metrics), *tail])
    return markdown(
        ["Method", *(_named(metric, labels) for metric in metrics), "n", "seeds", "coverage"], lines
    )


def _printed_block(rows, labels):
    metrics = [m for m in METRIC_ORDER if m in set(rows["metric"])]
    lines = []
    for method, own in rows.groupby("method", sort=False):
        values = dict(zip(own["metric"], own["paper_value"], strict=True))
        lines.append([_named(method, labels), *(f"{values[m]:.2f}" if m in values else "–" for m in metrics)])
    return markdown(["Method", *(_named(metric, labels) for metric in metrics)], lines)


def _best(rows):
    """The value to print in bold; None where all methods agree."""
    if rows["value"].nunique() < 2:
        return None
    lower = rows["metric"].iloc[0] in LOWER_IS_BETTER
    return rows["value"].min() if lower else rows["value"].max()


def _cell(row, bold):
    value = f"**{row.value:.2f}**" if bold else f"{row.value:.2f}"
    return value if np.isnan(row.ci_low) else f"{value} [{row.ci_low:.2f}, {row.ci_high:.2f}]"


def markdown(header, lines):
    """A markdown table: the first column to the left, the others to the right. A bar in a cell is escaped, once."""
    rule = ["---"] + ["---:"] * (len(header) - 1)
    shown = [[re.sub(r"(?<!\\)\|", r"\|", cell) for cell in cells] for cells in [header, rule, *lines]]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in shown)


def interval(low, high, places):
    """ "[45.2, 52.5]", or "" without an interval."""
    return "" if np.isnan(low) else f"[{low:.{places}f}, {high:.{places}f}]"


def number(value, places=2):
    """A number with so many places; a dash where there is none."""
    return "–" if np.isnan(value) else f"{value:.{places}f}"


def whole(value):
    """A whole number with thousands separated; a dash where there is none."""
    import pandas as pd

    return "–" if pd.isna(value) else f"{int(value):,}"


# --- Table 1


def build_table1(settings: Settings, records):
    """Table 1 (`tables.table1`) of a run's records: the paper's protocol, the first sample of each question.

    records: list or frame of scored records, all protocols; greedy ones are left out. attrs["notes"] of the result: what the
    records of another model say of themselves, as (benchmark, method, note), for `table1_markdown`.
    """
    import pandas as pd

    frame = pd.DataFrame(records)
    sampled = frame[(frame["protocol"] == "sampled") & (frame["sample"] == 0)]
    questions = [q for b in settings.benchmarks for q in read_questions(settings.questions_path(b, "test"))]
    summary = pd.concat([metrics.summarise(sampled), metrics.baseline_rows(questions)])
    table = table1(summary, printed.table1(), printed.STANDS_FOR)
    if "note" in frame:
        noted = frame[frame["note"].notna()]
        named = zip(noted["benchmark"], noted["method"], noted["note"], strict=True)
        table.attrs["notes"] = list(dict.fromkeys(named))
    return table


def write_table1(table, folder: Path) -> Path:
    """Write table1.csv and table1.md into a folder; the path of the markdown."""
    labels = BENCHMARK_LABELS | METHOD_LABELS | METRIC_LABELS
    write_text(folder / "table1.csv", table.to_csv(index=False))
    return write_text(folder / "table1.md", table1_markdown(table, labels, printed.STANDS_FOR))


COMPARISON_COLUMNS = (
    "comparison benchmark metric status method against difference ci_low ci_high p_holm mde_holm tests n seeds test"
).split()


def compare_arms(records, method: str, against: str, measures):
    """`metrics.compare` of two arms, or None, which is said, where a run does not have both (profile laptop starts cold only).

    Why a table of one seed has no p is said too.
    """
    there = set(records["method"])
    if missing := [METHOD_LABELS.get(arm, arm) for arm in (method, against) if arm not in there]:
        print(f"not in this run: {', '.join(missing)}; nothing is compared")
        return None
    table = metrics.compare(records, method, against, measures)
    if (table["test"] == NO_TEST).all():
        print(f"{NO_TEST}. Run ./reproduce.sh with --seeds 3 or more for a test.")
    return table


def of_metric(table, metric: str):
    """The rows of one measure of a comparison, None of none: a p that is corrected over the whole table stays so."""
    return None if table is None else table[table["metric"] == metric]


def write_comparisons(settings: Settings, comparisons: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Stack frames of `metrics.compare` into comparisons.csv (runs/<profile>/tables, figures/<profile>).

    comparisons: name -> frame; the two methods are read off the frame's columns, the first minus the second.
    Returns the stack.
    """
    stack = []
    for name, frame in comparisons.items():
        pair = [column for column in frame.columns if column in METHOD_LABELS]
        if len(pair) != 2:
            raise ValueError(
                f"comparison {name!r} holds the methods {pair}; expected two: pass metrics.compare's frame."
            )
        stack.append(frame.assign(comparison=name, method=pair[0], against=pair[1]))
    rows = pd.concat([frame.reindex(columns=COMPARISON_COLUMNS) for frame in stack], ignore_index=True)
    for folder in (settings.run_dir / "tables", settings.figures_dir):
        write_text(folder / "comparisons.csv", rows.to_csv(index=False))
    return rows
