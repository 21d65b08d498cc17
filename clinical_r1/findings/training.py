"""What the training curves of notebook 03 say: the first and the last tenth of the steps, as a table and as sentences.

    tenths(logs, column)                        a row an arm: both tenths and the rise, with intervals over training seeds
    learned(table), lengths, moved, silent      a heading and sentences, as markdown

Pure. logs: `artifacts.read_logs`, a row an arm, seed and step. With one seed there is no interval, and the text says so.
"""

import numpy as np
import pandas as pd

from clinical_r1.arms import METHODS
from clinical_r1.findings.claims import UNSETTLED, answer_rows, over_seeds, verdicts
from clinical_r1.findings.wording import (
    arm,
    bullets,
    change,
    finding,
    from_to,
    level,
    listed,
    measure,
    p_value,
    per_cent,
    places,
    seeds_of,
    verb,
    written,
)
from clinical_r1.metrics import rank

LENGTH, KL = "completions/mean_length", "kl"
SILENT, TIED = "advantage/silent_groups", "advantage/tied_groups"
PARTS = ("first", "last", "rise")
TENTH_COLUMNS = ["method", "seeds", *(name + end for name in PARTS for end in ("", "_low", "_high")), "apart"]


def tenths(logs: pd.DataFrame, column: str = "reward") -> pd.DataFrame:
    """Means of a column over the first and the last tenth of each arm's steps, and the rise: TENTH_COLUMNS, a row an arm.

    `_low`, `_high`: 95 % over training seeds (Student's t), of the rise paired by seed; NaN with one seed. apart: the two
    intervals do not meet; None with one seed. An arm that does not log the column has no row.
    """
    rows = []
    for method in sorted(dict.fromkeys(logs["method"]), key=lambda name: rank(name, METHODS)):
        own = logs[(logs["method"] == method) & logs[column].notna()] if column in logs else logs[:0]
        if own.empty:
            continue
        steps = int(logs.loc[logs["method"] == method, "step"].max())
        tenth = max(1, steps // 10)
        first = own[own["step"] <= tenth].groupby("seed")[column].mean()
        last = own[own["step"] > steps - tenth].groupby("seed")[column].mean()
        row = {"method": method, "seeds": len((last - first).dropna())}
        for name, values in zip(PARTS, (first, last, last - first), strict=True):
            over = over_seeds(values.dropna().to_numpy())
            row |= {name: over["difference"], f"{name}_low": over["ci_low"], f"{name}_high": over["ci_high"]}
        apart = row["first_high"] < row["last_low"] or row["last_high"] < row["first_low"]
        rows.append(row | {"apart": bool(apart) if row["seeds"] > 1 else None})
    return pd.DataFrame(rows, columns=TENTH_COLUMNS)


def rises(table: pd.DataFrame) -> str:
    """In how many arms the total reward rises: beyond the luck of seeds where several show it. table: `tenths(logs)`.

    An arm without an interval where others have one, since it has one seed or its seeds agree, is named and not counted.
    """
    several = table["seeds"].max() > 1
    unknown = table["rise_low" if several else "rise"].isna()
    rows, low = table[~unknown].to_dict("records"), "rise_low" if several else "rise"
    rest = [arm(row["method"]) for row in rows if not row[low] > 0]
    said = f"total reward rises in {len(rows) - len(rest)} of {len(rows)} trained {verb(len(rows), 'arm', 'arms')}"
    said += f", not in {listed(rest)}" if rest else ""
    open_ = listed(map(arm, table.loc[unknown, "method"]))
    if not several:
        said += f"; not known of {open_}" if open_ else ""
        return f"{said}; one training seed: no interval over seeds"
    if not rows:
        return f"whether total reward rises is not tested: no interval over seeds for {open_}"
    apart = sum(bool(row["apart"]) for row in rows)
    said += f" (95 % interval of the rise above 0); first and last tenth have intervals apart in {apart}"
    return said + (f"; no interval over seeds for {open_}" if open_ else "")


def learned(table: pd.DataFrame) -> str:
    """Does each arm's total reward rise? table: `tenths(logs)`."""
    if table.empty:
        return finding("no arm was trained with rewards in this run")
    rows, heading = table.to_dict("records"), rises(table)
    lines = [
        f"{arm(row['method'])}: {_of(row, 'first', 2)} in the first tenth of the steps, {_of(row, 'last', 2)} in the last; "
        f"{change(row['rise'], row['rise_low'], row['rise_high'], 2)}."
        for row in rows
    ]
    return finding(
        heading, bullets(lines), f"{_seeds(table)} Totals of arms with other rewards cannot be compared."
    )


def lengths(logs: pd.DataFrame) -> str:
    """How long the answers become, where they are shortest on the way, and the paper's sentence about it."""
    table = tenths(logs, LENGTH)
    if table.empty:
        return finding("no arm logs the length of its answers")
    lines = []
    for row in table.to_dict("records"):
        own = logs[(logs["method"] == row["method"]) & logs[LENGTH].notna()].groupby("step")[LENGTH].mean()
        window = max(1, len(own) // 10)
        smooth = own.rolling(window, min_periods=window).mean()
        lines.append(
            f"{arm(row['method'])}: {_of(row, 'first', 1)} tokens in the first tenth of the steps, {_of(row, 'last', 1)} in the "
            f"last; shortest {written(smooth.min(), 1)} ({_window(smooth, window)})."
        )
    return finding(
        f"tokens an answer in the last tenth: {_extremes(table, 1)}",
        bullets(lines),
        _claim(logs, "longest"),
        _seeds(table),
    )


def moved(logs: pd.DataFrame) -> str:
    """The KL divergence from where each arm started, over the last tenth, and the paper's sentence about it."""
    table = tenths(logs, KL)
    if table.empty:
        return finding("no arm logs its KL divergence")
    lines = [f"{arm(row['method'])}: {_of(row, 'last', 3)}." for row in table.to_dict("records")]
    return finding(
        f"KL to the start in the last tenth: {_extremes(table, 3)}",
        bullets(lines),
        _claim(logs, "unstable"),
        _seeds(table),
    )


def silent(logs: pd.DataFrame) -> str:
    """The groups of completions that teach nothing, since all earn the same, and those that accuracy does not tell apart."""
    none, tied = tenths(logs, SILENT), tenths(logs, TIED)
    if none.empty:
        return finding("this run does not log which groups teach nothing")
    tied = tied.set_index("method")
    lines = []
    for row in none.to_dict("records"):
        line = f"{arm(row['method'])}: {_share(row, 'first')} in the first tenth, {_share(row, 'last')} in the last"
        if row["method"] in tied.index:
            own = tied.loc[row["method"]]
            line += f"; all right or all wrong {_share(own, 'first')}, then {_share(own, 'last')}"
        lines.append(line + ".")
    heading = f"in the last tenth {from_to(100 * none['last'], 1)} % of the groups give no advantage"
    if len(tied):
        heading += f"; in {from_to(100 * tied['last'], 1)} % accuracy alone would give none"
    return finding(heading, bullets(lines), _seeds(none))


def _of(row, name, digits):
    return level(row[name], row[f"{name}_low"], row[f"{name}_high"], digits)


def _share(row, name):
    """Per cent within its limits."""
    return per_cent(row[name], *np.clip([row[f"{name}_low"], row[f"{name}_high"]], 0, 1))


def _seeds(table):
    seeds = table["seeds"].max()
    return f"{seeds_of(seeds)}{'; 95 % intervals over seeds.' if seeds > 1 else '; no interval over seeds.'}"


def _extremes(table, digits):
    """ "from 22.1 with GRPO to 30.2 with CRPO"; arms that read alike are all named."""
    texts = [written(value, digits) for value in table["last"]]
    ends = dict.fromkeys(texts[place] for place in (table["last"].argmin(), table["last"].argmax()))
    shown = [
        f"{end} with {listed(arm(name) for name, text in zip(table['method'], texts, strict=True) if text == end)}"
        for end in ends
    ]
    return shown[0] if len(shown) == 1 else f"from {shown[0]} to {shown[1]}"


def _window(smooth, window):
    last = int(smooth.idxmin())
    first = int(smooth.index[smooth.index.get_loc(last) - window + 1])
    return f"step {last}" if window == 1 else f"mean of steps {first} to {last}"


def _claim(logs, key):
    """A claim of the paper about training with its verdict by the rules of docs/claims.md; "" where nothing of it was run."""
    rows = answer_rows({"training": logs})
    rows = rows[(rows["key"] == key) & rows["difference"].notna()]
    if rows.empty:
        return ""
    said, digits = verdicts(rows).iloc[0], places(rows["metric"].iloc[0])
    numbers = [
        f"{arm(row.method)} minus {arm(row.against)} {change(row.difference, row.ci_low, row.ci_high, digits)}"
        + (f", {p_value(row.p)}" if pd.notna(row.p) else "")
        for row in rows.itertuples()
    ]
    one = said["verdict"] == UNSETTLED and not rows["seeds"].max() > 1
    why = " (one training seed settles nothing)" if one else ""
    about = f"{measure(rows['metric'].iloc[0])}, {'; '.join(numbers)}"
    return f"*{said['claim']}* ({said['where']}): **{said['verdict']}**{why}; {about}."
