"""What is said of fronts, volumes and checkpoints: a finding a section, as in `laboratory`, which names these too."""

import numpy as np

from clinical_r1.arms import REFERENCE
from clinical_r1.findings.laboratory_wording import (
    MEASURES,
    family,
    named,
    per_cent,
    shown,
    sizes,
    span,
)
from clinical_r1.findings.wording import listed
from clinical_r1.tables import section


def fronts(frame):
    """Who is on the fronts of two objectives. frame: `pareto.fronts`."""
    pairs = frame[[len(space.split(" and ")) == 2 for space in frame["space"]]]
    spaces = pairs["space"].nunique()
    on = pairs[pairs["on_front"]]
    times = on.groupby("label", sort=False).size().sort_values(ascending=False, kind="stable")
    first = times[times == times.max()]
    often = on[on["label"].isin(first.index)].groupby("label", sort=False)["frequency"].agg(["min", "max"])
    redrawn = listed(
        f"*{label}* in {_range(row['min'], row['max'])} % of the redraws" for label, row in often.iterrows()
    )
    sure = on[on["frequency"] >= 0.5]
    there, all_arms = f"{len(times)} of {pairs['arm'].nunique()} arms", sizes(frame)
    return section(
        f"{named(first.index)} {'stands' if len(first) == 1 else 'stand'} on {times.max()} of {spaces} fronts",
        f"There: {redrawn}.",
        f"{there} are on at least one front, {sure['label'].nunique()} of them in half of the redraws or more ({all_arms}).",
    )


def _range(low, high):
    return " to ".join(dict.fromkeys([per_cent(low), per_cent(high)]))


def front_of(frame, space):
    """Who is on one front, of any number of objectives. space: as `pareto.fronts` names it."""
    own = frame[(frame["space"] == space) & frame["on_front"]].sort_values("frequency", ascending=False)
    often = own[own["frequency"] >= 0.5]
    names = named(often["label"]) if len(often) else "none of them"
    return section(
        f"{len(own)} of {(frame['space'] == space).sum()} arms are on the front; in at least half of the redraws {names}"
    )


def all_objectives(points):
    """Which arm is best in which objective. points: `pareto.points`."""
    best = {}
    for objective, own in points.groupby("objective", sort=False):
        more = own["higher_is_better"].all()
        label = own.loc[(own["value"] if more else -own["value"]).idxmax(), "label"]
        name = MEASURES.get(objective, objective).removeprefix("points of ")
        best.setdefault(label, []).append(name if more else f"{name} (fewest)")
    count = points["objective"].nunique()
    names = {
        "faithfulness": "true claims (faithfulness)",
        "drc": "options rejected (DRC)",
        "hallucination ↓": "false claims (fewest)",
    }
    told = "; ".join(f"*{label}* in {listed(names.get(o, o) for o in own)}" for label, own in best.items())
    heading = (
        f"No arm is best in all {count} objectives"
        if len(best) > 1
        else f"One arm is best in all {count} objectives"
    )
    return section(heading, f"Best on average: {told} ({sizes(points)}).")


def hypervolume(volumes):
    """How much of the honest policy's volume arms and families cover. volumes: `pareto.hypervolume_table` with a bound."""
    arms = volumes[volumes["kind"] == "arm"].sort_values("volume", ascending=False)
    families = volumes[(volumes["kind"] == "front") & ~volumes["name"].isin(["main", "cold_start"])]
    others = [*arms.iloc[1:2].itertuples(), *arms[arms["name"] == REFERENCE].itertuples()]
    told = listed(dict.fromkeys(f"*{row.label}* covers {covered(row)}" for row in others))
    reach = listed(f"{family(row.name)} {per_cent(row.share)} %" for row in families.itertuples())
    seeds = span([int(s) for s in volumes["seeds"]])
    return section(
        f"The largest volume is that of {arms['label'].iloc[0]}: {covered(arms.iloc[0])} of the honest policy's",
        f"{told[:1]}{told[1:]}." if told else "",
        f"Fronts of families: {reach}." if reach else "",
        f"{seeds} training seed{'' if seeds == '1' else 's'}.",
    )


def covered(row):
    """Share of the bound's volume with its interval, in per cent."""
    scale = row.share / row.volume if row.volume else np.nan
    ends = [100 * end * scale for end in (row.ci_low, row.ci_high)]
    between = f" [{ends[0]:.0f}, {ends[1]:.0f}]" if np.isfinite(ends).all() else ""
    return f"{per_cent(row.share)} %{between}"


def travel(points):
    """What changes from the first checkpoint to the last. points: `pareto.trajectory_points`."""
    if points.empty:
        return section("This laboratory has no checkpoints")
    first, last = points["step"].min(), points["step"].max()
    ends = points.pivot_table(index="arm", columns=["objective", "step"], values="value")
    told = []
    for metric in (m for m in MEASURES if m in ends):
        change = ends[metric][last] - ends[metric][first]
        verb = "accuracy rises" if metric == "accuracy" else f"{MEASURES[metric]} increase"
        told.append(f"{verb} in {(change > 0).sum()} of {change.notna().sum()}")
    labels = points.drop_duplicates("arm").set_index("arm")["label"]
    accuracy = ends.get("accuracy")
    moved = [] if accuracy is None else [
        f"*{labels[arm]}* {shown(row[first], 'accuracy')} to {shown(row[last], 'accuracy')} %" for arm, row in accuracy.iterrows()
    ]  # fmt: skip
    return section(
        f"From step {first} to {last}, of the trained methods: {listed(told)}",
        f"Accuracy: {listed(moved)}." if moved else "",
        f"Means of {sizes(points)}; nothing is tested here.",
    )
