"""What is said of the advantage: who owns it, and which calculations hold on trained policies; `laboratory` names these too."""

import numpy as np

from clinical_r1.arms import ARMS, REFERENCE
from clinical_r1.findings.laboratory_wording import per_cent, shown, sizes, span, with_interval
from clinical_r1.findings.wording import listed
from clinical_r1.laboratory.records import ACCURACY, weight_of_accuracy
from clinical_r1.tables import section


def owners(thirds):
    """Whose the advantage is, late in training, over k. thirds: `shares.shares_table` of arms that differ in k."""
    own = _late(thirds, ACCURACY)
    own = own.assign(k=[weight_of_accuracy(arm) for arm in own["arm"]]).sort_values("k")
    if own.empty:
        return section("No training log tells who owns the advantage")
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
    return section(
        heading,
        f"Between them {listed(between)}; the share {order}." if between else "",
        f"At the reference {per_cent(tied.iloc[0])} % {silent}." if len(tied) else "",
        f"{sizes(own)}.",
    )


def owners_by_aggregator(thirds):
    """As `owners`, over aggregators: where accuracy owns most and least."""
    own = _late(thirds, ACCURACY).sort_values("value")
    if own.empty:
        return section("No other aggregator logs who owns the advantage")
    ends = [own.iloc[-1]] if len(own) == 1 else [own.iloc[-1], own.iloc[0]]
    told = [f"{_owned(row)} with *{ARMS[row['arm']].label}*" for row in ends]
    return section(f"Accuracy owns {' and '.join(told)}, late in training", f"{sizes(own)}.")


def _late(thirds, term):
    if thirds.empty:
        return thirds.reindex(columns=["arm", "third", "term", "value", "ci_low", "ci_high", "seeds"])
    return thirds[(thirds["third"] == "late") & (thirds["term"] == term)]


def _owned(row):
    ends = [100 * row[name] for name in ("ci_low", "ci_high")]
    between = f" [{ends[0]:.0f}, {ends[1]:.0f}]" if np.isfinite(ends).all() else ""
    return f"{per_cent(row['value'])} %{between}"


def calculations(claims):
    """Which calculations hold on trained policies, by sign and by size. claims: `shares.claims`."""
    counts = claims["verdict"].value_counts()
    rest = [f"{n} {verdict}" for verdict, n in counts.items() if verdict != "holds"]
    heading = f"{counts.get('holds', 0)} of {len(claims)} calculated signs hold" + (
        f"; {listed(rest)}" if rest else ""
    )
    sized = claims[claims["predicted"].notna() & claims["ci_low"].notna()]
    sentences = []
    if len(sized):
        inside = sized["predicted"].between(sized["ci_low"], sized["ci_high"]).sum()
        gap = (sized["measured"] - sized["predicted"]).abs()
        row = sized.loc[gap.idxmax()]
        far = with_interval(row["measured"], row["ci_low"], row["ci_high"], "share")
        sentences = [
            f"Of {len(sized)} with a calculated size, {inside} lie in their interval.",
            f"Farthest off: “{row['claim']}”, {row['quantity']}: {shown(row['predicted'], 'share')} calculated, {far} measured.",
        ]
    seeds = [int(s) for s in claims["seeds"] if s > 0]
    sentences.append(f"{span(seeds)} training seed{'' if max(seeds) == 1 else 's'}." if seeds else "")
    return section(heading, *sentences)
