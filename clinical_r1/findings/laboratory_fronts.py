"""What is said of fronts, volumes and checkpoints: a finding a section, as in `laboratory`, which names these too."""

import numpy as np

from clinical_r1.arms import REFERENCE
from clinical_r1.findings.laboratory_rows import all_named, family, sizes
from clinical_r1.findings.wording import (
    finding,
    from_to,
    listed,
    measure,
    named,
    per_cent,
    seeds_of,
    sentences,
    written,
)
from clinical_r1.metrics import PRIMARY_METRICS


def fronts(frame):
    """Who is on the fronts of two objectives. frame: `pareto.fronts`."""
    pairs = frame[[len(space.split(" and ")) == 2 for space in frame["space"]]]
    spaces = pairs["space"].nunique()
    on = pairs[pairs["on_front"]]
    times = on.groupby("label", sort=False).size().sort_values(ascending=False, kind="stable")
    first = times[times == times.max()]
    often = on[on["label"].isin(first.index)].groupby("label", sort=False)["frequency"].agg(["min", "max"])
    redrawn = listed(f"{named(label)} in {_redraws(row)} of the redraws" for label, row in often.iterrows())
    sure = on[on["frequency"] >= 0.5]
    there, all_arms = f"{len(times)} of {pairs['arm'].nunique()} arms", sizes(frame)
    return finding(
        f"{all_named(first.index)} {'stands' if len(first) == 1 else 'stand'} on {times.max()} of {spaces} fronts",
        f"There: {redrawn}. {there} are on at least one front, {sure['label'].nunique()} of them in half of the redraws or more "
        f"({all_arms}).",
    )


def _redraws(row):
    return f"{from_to([100 * row['min'], 100 * row['max']], 1)} %"


def front_of(frame, space):
    """Who is on one front, of any number of objectives. space: as `pareto.fronts` names it."""
    own = frame[(frame["space"] == space) & frame["on_front"]].sort_values("frequency", ascending=False)
    often = own[own["frequency"] >= 0.5]
    names = all_named(often["label"]) if len(often) else "none of them"
    return finding(
        f"{len(own)} of {(frame['space'] == space).sum()} arms are on the front; in at least half of the redraws {names}"
    )


def all_objectives(points):
    """Which arm is best in which objective. points: `pareto.points`."""
    best = {}
    for objective, own in points.groupby("objective", sort=False):
        more = own["higher_is_better"].all()
        label = own.loc[(own["value"] if more else -own["value"]).idxmax(), "label"]
        name = measure(objective)
        best.setdefault(label, []).append(name if more else f"{name} (fewest)")
    count = points["objective"].nunique()
    told = "; ".join(f"{named(label)} in {listed(own)}" for label, own in best.items())
    heading = (
        f"No arm is best in all {count} objectives"
        if len(best) > 1
        else f"One arm is best in all {count} objectives"
    )
    return finding(heading, f"Best on average: {told} ({sizes(points)}).")


def hypervolume(volumes):
    """How much of the honest policy's volume arms and families cover. volumes: `pareto.hypervolume_table` with a bound."""
    arms = volumes[volumes["kind"] == "arm"].sort_values("volume", ascending=False)
    families = volumes[(volumes["kind"] == "front") & ~volumes["name"].isin(["main", "cold_start"])]
    others = [*arms.iloc[1:2].itertuples(), *arms[arms["name"] == REFERENCE].itertuples()]
    told = listed(dict.fromkeys(f"{named(row.label)} covers {covered(row)}" for row in others))
    reach = listed(f"{family(row.name)} {per_cent(row.share)}" for row in families.itertuples())
    said = sentences(
        f"{told}." if told else "",
        f"Fronts of families: {reach}." if reach else "",
        f"{seeds_of(*volumes['seeds'])}.",
    )
    largest = f"{named(arms['label'].iloc[0])}: {covered(arms.iloc[0])}"
    return finding(f"the largest volume is that of {largest} of the honest policy's", said)


def covered(row):
    """Share of the bound's volume with its interval, in per cent."""
    scale = row.share / row.volume if row.volume else np.nan
    return per_cent(row.share, row.ci_low * scale, row.ci_high * scale)


def travel(points):
    """What changes from the first checkpoint to the last. points: `pareto.trajectory_points`."""
    if points.empty:
        return finding("This laboratory has no checkpoints")
    first, last = points["step"].min(), points["step"].max()
    ends = points.pivot_table(index="arm", columns=["objective", "step"], values="value")
    told = []
    for metric in (m for m in PRIMARY_METRICS if m in ends):
        change = ends[metric][last] - ends[metric][first]
        verb = "accuracy rises" if metric == "accuracy" else f"{measure(metric)} increase"
        told.append(f"{verb} in {(change > 0).sum()} of {change.notna().sum()}")
    labels = points.drop_duplicates("arm").set_index("arm")["label"]
    accuracy = ends.get("accuracy")
    moved = [] if accuracy is None else [
        f"{named(labels[arm])} {written(row[first], 1)} to {written(row[last], 1)} %" for arm, row in accuracy.iterrows()
    ]  # fmt: skip
    return finding(
        f"from step {first} to {last}, of the trained methods: {listed(told)}",
        sentences(
            f"Accuracy: {listed(moved)}." if moved else "",
            f"Means of {sizes(points)}; nothing is tested here.",
        ),
    )
