"""What is said of the advantage: who owns it, and which calculations hold on trained policies; `laboratory` names these too."""

import numpy as np

from clinical_r1.arms import REFERENCE
from clinical_r1.findings.laboratory_rows import sizes
from clinical_r1.findings.wording import (
    arm,
    counted,
    finding,
    level,
    listed,
    most,
    per_cent,
    seeds_of,
    sentences,
    verb,
    written,
)
from clinical_r1.laboratory.records import ACCURACY, weight_of_accuracy


def owners(thirds):
    """Whose the advantage is, late in training, over k. thirds: `shares.shares_table` of arms that differ in k."""
    own = _late(thirds, ACCURACY)
    own = own.assign(k=[weight_of_accuracy(arm) for arm in own["arm"]]).sort_values("k")
    if own.empty:
        return finding("No training log tells who owns the advantage")
    above = own[own["k"] > 0]
    above = above if len(above) else own
    first, last = above.iloc[0], above.iloc[-1]
    heading = f"Accuracy owns {_owned(first)} of the advantage at k = {first['k']:g}"
    heading += (
        f" and {_owned(last)} at k = {last['k']:g}, late in training"
        if len(above) > 1
        else ", late in training"
    )
    between = [f"k = {row.k:g}: {_owned(row._asdict())}" for row in above.iloc[1:-1].itertuples()]
    steps = np.diff(above["value"])
    order = "rises with every step of k" if (steps > 0).all() else "does not rise with every step of k"
    tied = _late(thirds, "tied groups")
    tied = tied.loc[tied["arm"] == REFERENCE, "value"]
    silent = "of the groups are all right or all wrong, and accuracy says nothing there"
    said = sentences(
        f"Between them {listed(between)}; the share {order}." if between else "",
        f"At the reference {per_cent(tied.iloc[0])} {silent}." if len(tied) else "",
        f"{sizes(own)}.",
    )
    return finding(heading, said)


def owners_by_aggregator(thirds):
    """As `owners`, over aggregators: where accuracy owns most and least."""
    own = _late(thirds, ACCURACY)
    if own.empty:
        return finding("No other aggregator logs who owns the advantage")
    values, rows = own.set_index("arm")["value"], own.set_index("arm")
    ends = dict.fromkeys([tuple(most(values)), tuple(most(values, lowest=True))])
    told = [f"{_owned(rows.loc[names[0]])} with {listed(map(arm, names))}" for names in ends]
    return finding(f"Accuracy owns {' and '.join(told)}, late in training", f"{sizes(own)}.")


def _late(thirds, term):
    if thirds.empty:
        return thirds.reindex(columns=["arm", "third", "term", "value", "ci_low", "ci_high", "seeds"])
    return thirds[(thirds["third"] == "late") & (thirds["term"] == term) & thirds["value"].notna()]


def _owned(row):
    return per_cent(row["value"], row["ci_low"], row["ci_high"])


def calculations(claims):
    """Which calculations hold on trained policies, by sign and by size. claims: `shares.claims`."""
    if claims.empty:
        return finding("Nothing was calculated before training")
    counts = claims["verdict"].value_counts()
    held = counts.get("holds", 0)
    rest = [f"{n} {verdict}" for verdict, n in counts.items() if verdict != "holds"]
    heading = (
        f"{held} of {counted(len(claims), 'calculated sign')} {verb(held or len(claims), 'holds', 'hold')}"
        + (f"; {listed(rest)}" if rest else "")
    )
    sized = claims[claims["predicted"].notna() & claims["ci_low"].notna()]
    said = []
    if len(sized):
        inside = sized["predicted"].between(sized["ci_low"], sized["ci_high"]).sum()
        gap = (sized["measured"] - sized["predicted"]).abs()
        row = sized.loc[gap.idxmax()]
        most_off = "Farthest off: " * (len(sized) > 1)
        far = level(row["measured"], row["ci_low"], row["ci_high"], 2)
        said = [
            f"Of {len(sized)} with a calculated size, {inside} {verb(inside, 'lies in its', 'lie in their')} interval.",
            f"{most_off}“{row['claim']}”, {row['quantity']}: {written(row['predicted'], 2)} calculated, {far} measured.",
        ]
    seeds = claims.loc[claims["seeds"] > 0, "seeds"]
    said.append(f"{seeds_of(*seeds)}." if len(seeds) else "")
    return finding(heading, sentences(*said))
