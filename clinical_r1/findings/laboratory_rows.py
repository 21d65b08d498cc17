"""Rows of the laboratory's comparisons as phrases: what was found in them, and what would have been.

Pure: rows of `comparisons.ablation_table` in, text out. "No difference found" never stands without what would have been.
"""

import numpy as np

from clinical_r1.findings.claims import LEVEL
from clinical_r1.findings.wording import (
    change,
    counted_in,
    from_to,
    listed,
    measure,
    named,
    places,
    size,
    untested,
    would_have,
    written,
)
from clinical_r1.labels import family_label
from clinical_r1.metrics import PRIMARY_METRICS

COUNTS = tuple(metric for metric in PRIMARY_METRICS if metric != "accuracy")
DIRECTIONS = {
    ("accuracy", 1): "more accurate",
    ("accuracy", -1): "less accurate",
    **{(metric, 1): f"more {measure(metric)}" for metric in COUNTS},
    **{(metric, -1): f"fewer {measure(metric)}" for metric in COUNTS},
}
MANY = 12  # rows, from which on a range of detectable differences says nothing


def all_named(labels, last="and"):
    """Labels of arms in a sentence, each once."""
    return listed(map(named, dict.fromkeys(labels)), last)


def family(name):
    """What a family is called within a sentence: "weight k", "KL"."""
    label = family_label(name)
    return label if label.isupper() else f"{label[0].lower()}{label[1:]}"


def sizes(rows):
    """ "1,000 questions, 8 training seeds", from the columns n and seeds; from the fewest to the most where rows differ."""
    return size(rows["n"] if "n" in rows else [], rows["seeds"])


def compared(rows):
    """Rows that are a difference: those of the reference itself are none."""
    return rows[rows["difference"].notna()]


def tested(rows):
    """Rows that have a p: with one training seed there is none."""
    return rows[rows["p_holm"].notna()]


def found(rows):
    """Rows whose difference stays below LEVEL after Holm's correction."""
    return rows[rows["p_holm"] < LEVEL]


def undecided(rows):
    """Tested rows in which no difference is found."""
    return tested(rows)[~(tested(rows)["p_holm"] < LEVEL)]


def moves(rows):
    """A phrase for each measure and direction that was found: "fewer false claims: *G = 2* −0.34 [−0.50, −0.18]"."""
    phrases = []
    for metric in PRIMARY_METRICS:
        for sign in (1, -1):
            own = found(rows)
            own = own[(own["metric"] == metric) & (np.sign(own["difference"]) == sign)]
            texts = [f"{named(row.label)} {difference(row)}" for row in own.itertuples()]
            if texts:
                phrases.append(f"{DIRECTIONS[metric, sign]}: {listed(dict.fromkeys(texts))}")
    return phrases


def difference(row):
    """The difference of a row with its interval; in points where it is accuracy."""
    return _change(row, " points" if row.metric == "accuracy" else "")


def _change(row, unit):
    return change(row.difference, row.difference_low, row.difference_high, places(row.metric), unit)


def differences(rows):
    """All differences of rows, each with what it is counted in: "−3.1 points of accuracy [−4.7, −1.6]"."""
    return listed(_change(row, f" {counted_in(row.metric)}") for row in rows.itertuples())


def outcome(rows):
    """What the rows of one arm, or of one effect, differ in, and what no difference is found in; as a phrase."""
    judged = tested(rows)
    if judged.empty:
        return f"{differences(compared(rows))} ({untested(rows['seeds'])})"
    there, open_ = found(rows), undecided(rows)
    parts = [differences(there)] if len(there) else []
    if len(open_):
        what = listed(map(measure, open_["metric"]), "or")
        parts.append(f"no difference found in {what}{in_brackets(detectable(open_))}")
    return "; ".join(parts)


def detectable(rows, metrics=PRIMARY_METRICS):
    """The smallest differences that rows would have found, as a phrase; of MANY rows or more, those that half of them find.

    80 % power at the first step of Holm's correction (`mde_holm`). A tested measure in which nothing varies has none, which is
    said. "" where no row is tested.
    """
    many, parts, unknown = len(rows) > MANY, [], []
    for metric in metrics:
        there = tested(rows)[tested(rows)["metric"] == metric]
        own = there["mde_holm"].dropna()
        if len(there) and own.empty:
            unknown.append(f"nothing varies in {measure(metric)}, so what would have been found is not known")
        if len(own):
            ends = [own.median()] if many else own
            parts.append(
                f"{from_to(ends, lambda value, of=metric: smallest(value, of))} {counted_in(metric)}"
            )
    said = would_have(listed(parts, "or"))
    said = f"in half of these comparisons {said}" if said and many else said
    return "; ".join([said] * bool(said) + unknown)


def smallest(value, metric):
    """A detectable difference in the digits of its measure; one of more than 100 points cannot exist."""
    return "over 100" if metric == "accuracy" and value > 100 else written(value, places(metric, value))


def in_brackets(phrase):
    """ " (phrase)", or "" for none."""
    return f" ({phrase})" if phrase else ""
