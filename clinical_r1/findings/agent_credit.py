"""What credit against the truth, and the density of anchors, say: frames in, markdown out, for notebook 07.

As in `agent`, a table that is None was not measured, and the finding says so.
"""

import pandas as pd

from clinical_r1.agent.tables import ESTIMATOR_LABELS
from clinical_r1.findings.wording import (
    bullets,
    counted,
    finding,
    from_to,
    level,
    listed,
    plain,
    sentences,
    verb,
    written,
)
from clinical_r1.tables import whole

MADE_BY = "`./reproduce.sh agent` measures it."
STAGES = {"start": "at the start", "half": "half trained", "trained": "trained"}


def not_measured(what: str) -> str:
    """A section without its table. what: as a plural or a mass, "learning curves"."""
    return finding(f"not measured yet: {what}", f"This summary holds nothing of it. {MADE_BY}")


def rows_of(frame) -> list:
    """The rows of a frame, each a series."""
    return [row for _, row in frame.iterrows()]


def credit(rows) -> str:
    """Which estimate agrees best with the true advantage. rows: of `tables.credit_table`, at one gamma and group; or None."""
    if rows is None or rows["value"].isna().all():
        return not_measured("credit against the truth")
    stages = [stage for stage in STAGES if stage in set(rows.loc[rows["value"].notna(), "stage"])]
    own = {stage: rows[(rows["stage"] == stage) & rows["value"].notna()] for stage in stages}
    lines = [
        f"{STAGES[stage].capitalize()}: {listed(map(_agreement, rows_of(each)))}."
        for stage, each in own.items()
    ]
    undefined = int(rows["value"].isna().sum())
    lost = f"{counted(undefined, 'value')} {verb(undefined, 'is', 'are')} not defined." if undefined else ""
    beyond = "A correlation beyond 1 is noise: its truth takes more continuations." * bool(
        (rows["value"].abs() > 1).any()
    )
    extent = f"Groups of {from_to(rows['group'], 0)}, n = {_turns(rows)}."
    first = stages[0]
    return finding(_nearest(own[first], STAGES[first]), bullets(lines), sentences(extent, lost, beyond))


def _agreement(row) -> str:
    return f"{_estimator(row['estimator'])} {level(row['value'], row['low'], row['high'], 2)}"


def _estimator(name) -> str:
    return {
        "episode": "GRPO's credit",
        "anchor": "GiGPO's",
        "tree": "Tree-GRPO's",
        "tree+anchor": "trees with anchors",
    }[name]


def _nearest(rows, when) -> str:
    """The heading: the estimator with the largest correlation beside GRPO's, and whether their intervals are apart."""
    best = rows.loc[rows["value"].idxmax()]
    plain_credit = rows[rows["estimator"] == "episode"]
    told = f"{when}, {ESTIMATOR_LABELS[best['estimator']]} agrees best with the true advantages"
    said = f"{told}: correlation {level(best['value'], best['low'], best['high'], 2)}"
    if len(rows) == 1:
        return f"{said}; nothing else was measured"
    if best["estimator"] == "episode":
        return f"{said}; no finer credit is nearer to them"
    if plain_credit.empty:
        return f"{said}; GRPO's credit was not measured"
    other = plain_credit.iloc[0]
    apart = best["low"] > other["high"]
    known = pd.notna(best["low"]) and pd.notna(other["high"])
    beside = f"GRPO's {level(other['value'], other['low'], other['high'], 2)}"
    how = "the intervals do not overlap" if apart else "the intervals overlap, so the two are not told apart"
    return f"{said}, {beside}" + (f"; {how}" if known else "; without intervals nothing tells them apart")


def gamma(rows) -> str:
    """What gamma does to anchors, at the first stage and in the largest group. rows: `tables.credit_table`, or None."""
    own = None if rows is None else rows[(rows["estimator"] == "anchor") & rows["value"].notna()]
    if own is not None and len(own):
        own = own[(own["stage"] == own["stage"].iloc[0]) & (own["group"] == own["group"].max())].sort_values(
            "gamma"
        )
    if own is None or own["gamma"].nunique() < 2:
        return not_measured("more than one gamma")
    told = [f"{row['gamma']:g}: {level(row['value'], row['low'], row['high'], 2)}" for row in rows_of(own)]
    best, worst = own.loc[own["value"].idxmax()], own.loc[own["value"].idxmin()]
    ends = f"no gamma from {own['gamma'].min():g} to {own['gamma'].max():g} is told apart from another"
    heading = f"{ends}: the intervals overlap"
    if pd.isna(best["low"]) or pd.isna(worst["high"]):
        heading = f"{ends}: there are no intervals"
    elif best["low"] > worst["high"]:
        heading = f"a gamma of {best['gamma']:g} brings GiGPO's credit nearer to the truth than one of {worst['gamma']:g}"
    stage, group = STAGES[own["stage"].iloc[0]], whole(own["group"].iloc[0])
    return finding(heading, f"Correlation {listed(told)} ({stage}, groups of {group}, n = {_turns(own)}).")


def _turns(rows) -> str:
    return f"{from_to(rows['turns'], whole)} turns of {from_to(rows['patients'], whole)} patients, one seed"


def density(frame) -> str:
    """How often a state is met again. frame: of the summary, or None."""
    if frame is None or frame["repeated"].isna().all():
        return not_measured("how often states are met again")
    own = frame[frame["repeated"].notna()]
    lines = []
    for menu, rows in own.groupby("menu", sort=False):
        told = [f"{STAGES[row['stage']]} {written(100 * row['repeated'], 1)} %" for row in rows_of(rows)]
        lines.append(f"{_menu(menu).capitalize()}: {listed(told)}.")
    first = [own[own["menu"] == menu].iloc[0] for menu in dict.fromkeys(own["menu"])]
    heads = [f"{written(100 * row['repeated'], 1)} % {_menu(row['menu'])}" for row in first]
    heading = f"the share of turns whose state is met again is {listed(heads)}, {STAGES[first[0]['stage']]}"
    alone = "Where a state is met once, GiGPO's anchor term is 0 and its credit is GRPO's."
    return finding(heading, bullets(lines), f"{alone} Valid turns beyond the first; n = {_turns(own)}.")


def _menu(menu) -> str:
    return "in the open world" if menu == "open" else f"with a menu of {plain(menu)}"


def by_hand(table) -> str:
    """What anchors change, on episodes that one can follow. table: of `by_hand`, or None."""
    if table is None:
        made = "`python -m clinical_r1.agent start --out DIR` makes one."
        return finding("not shown: consultations of the start, which this package does not hold", made)
    moved = table[(table["credit"] - table["grpo"]).abs() > 1e-9]
    turns, again = len(table), int((table["met"] > 1).sum())
    heading = f"turns that GiGPO credits otherwise than GRPO: {len(moved)} of {turns}; in a state met again: {again}"
    most = ""
    if len(moved):
        row = moved.loc[(moved["credit"] - moved["grpo"]).abs().idxmax()]
        most = (
            f"The most, at turn {row['turn']} of episode {plain(row['episode'])}: {written(row['grpo'], 2, '+')} becomes "
            f"{written(row['credit'], 2, '+')}, for what others did in the same state."
        )
    lone = int((table["met"] == 1).sum())
    alone = (
        f"{counted(lone, 'turn')} {verb(lone, 'was', 'were')} taken in a state met once: there the anchors add 0."
        if lone
        else ""
    )
    alone = alone if lone else ""
    return finding(heading, sentences(most, alone, f"n = {counted(table['episode'].nunique(), 'episode')}."))
