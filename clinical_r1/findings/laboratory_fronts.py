"""What is said of fronts, volumes and checkpoints: a finding a section, as in `laboratory`, which names these too."""

import numpy as np

from clinical_r1.arms import REFERENCE
from clinical_r1.findings.laboratory_rows import all_named, family, sizes
from clinical_r1.findings.wording import (
    counted,
    finding,
    from_to,
    listed,
    measure,
    most,
    named,
    per_cent,
    seeds_of,
    sentences,
    verb,
    written,
)
from clinical_r1.metrics import PRIMARY_METRICS


def fronts(frame):
    """Who is on the fronts of two objectives. frame: `pareto.fronts`."""
    pairs = frame[[len(space.split(" and ")) == 2 for space in frame["space"]]]
    spaces = pairs["space"].nunique()
    if not spaces:
        return finding("No front of two objectives is drawn")
    on = pairs[pairs["on_front"]]
    times = on.groupby("label", sort=False).size().sort_values(ascending=False, kind="stable")
    first = times[times == times.max()]
    often = on[on["label"].isin(first.index)].groupby("label", sort=False)["frequency"].agg(["min", "max"])
    redrawn = listed(f"{named(label)} in {_redraws(row)} of the redraws" for label, row in often.iterrows())
    sure = on[on["frequency"] >= 0.5]
    there = f"{len(times)} of {counted(pairs['arm'].nunique(), 'arm')} {verb(len(times), 'is', 'are')}"
    return finding(
        f"{all_named(first.index)} {'stands' if len(first) == 1 else 'stand'} on {times.max()} of {counted(spaces, 'front')}",
        f"There: {redrawn}. {there} on at least one front, {sure['label'].nunique()} of them in half of the redraws or more "
        f"({sizes(frame)}).",
    )


def _redraws(row):
    return f"{from_to([100 * row['min'], 100 * row['max']], 1)} %"


def front_of(frame, space):
    """Who is on one front, of any number of objectives. space: as `pareto.fronts` names it."""
    here = frame[frame["space"] == space]
    if here.empty:
        return finding("No front of these objectives is drawn")
    own = here[here["on_front"]].sort_values("frequency", ascending=False)
    often = own[own["frequency"] >= 0.5]
    names = all_named(often["label"]) if len(often) else "none of them"
    on = f"{len(own)} of {counted(len(here), 'arm')} {verb(len(own), 'is', 'are')} on the front"
    return finding(f"{on}; in at least half of the redraws {names}")


def all_objectives(points):
    """Which arm is best in which objective; arms that equal each other there share it. points: `pareto.points`."""
    known = points[points["value"].notna()]
    if known["label"].nunique() < 2:
        return finding("Fewer than two arms have objectives to compare")
    best = {}
    for objective, own in known.groupby("objective", sort=False):
        more = own["higher_is_better"].all()
        labels = most(own.set_index("label")["value"], lowest=not more)
        notes = ["fewest"] * (not more) + ["shared"] * (len(labels) > 1)
        for label in labels:
            best.setdefault(label, []).append(
                measure(objective) + (f" ({', '.join(notes)})" if notes else "")
            )
    count = known["objective"].nunique()
    all_of_them = [label for label, own in best.items() if len(own) == count]
    first = f"{len(all_of_them) or 'No'} arms {'are' if all_of_them else 'is'}".replace("No arms", "No arm")
    first = "One arm is" if len(all_of_them) == 1 else first
    heading = f"{first} best in {verb(count, 'the one objective', f'all {count} objectives')}"
    told = "; ".join(f"{named(label)} in {listed(own)}" for label, own in best.items())
    return finding(heading, f"Best on average: {told} ({sizes(points)}).")


def hypervolume(volumes):
    """How much of the honest policy's volume arms and families cover. volumes: `pareto.hypervolume_table` with a bound."""
    arms = volumes[(volumes["kind"] == "arm") & volumes["volume"].notna()]
    arms = arms.sort_values("volume", ascending=False, kind="stable")
    if arms.empty:
        return finding("No arm's volume is measured")
    if not (arms["volume"] > 0).any():
        return finding("No arm covers any of the honest policy's volume")
    first = arms.loc[most(arms["volume"])]
    families = volumes[(volumes["kind"] == "front") & ~volumes["name"].isin(["main", "cold_start"])]
    arms = arms.drop(index=first.index)
    others = [*arms.iloc[:1].itertuples(), *arms[arms["name"] == REFERENCE].itertuples()]
    told = listed(dict.fromkeys(f"{named(row.label)} covers {covered(row)}" for row in others))
    reach = listed(f"{family(row.name)} {per_cent(row.share)}" for row in families.itertuples())
    said = sentences(
        f"{told}." if told else "",
        f"Fronts of families: {reach}." if reach else "",
        f"{seeds_of(*volumes['seeds'])}.",
    )
    largest = f"{all_named(first['label'])}: {covered(first.iloc[0])}"
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
    if first == last:
        return finding(f"All checkpoints are of step {first}, so nothing is seen to change")
    ends = points.pivot_table(index="arm", columns=["objective", "step"], values="value")
    told = []
    for metric in (m for m in PRIMARY_METRICS if {first, last} <= set(ends.get(m, ()))):
        change = ends[metric][last] - ends[metric][first]
        verb = "accuracy rises" if metric == "accuracy" else f"{measure(metric)} increase"
        told.append(f"{verb} in {(change > 0).sum()} of {change.notna().sum()}")
    labels = points.drop_duplicates("arm").set_index("arm")["label"]
    accuracy = (
        ends["accuracy"][[first, last]].dropna() if {first, last} <= set(ends.get("accuracy", ())) else None
    )
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
