"""Words for differences: names, numbers and lists in sentences; what was found, and how much would have been.

Pure: rows of `comparisons` in, text out. "No difference found" never stands without the smallest that would have been found.
"""

import numpy as np

from clinical_r1.findings.wording import listed
from clinical_r1.labels import family_label
from clinical_r1.metrics import PRIMARY_METRICS
from clinical_r1.tables import interval

LEVEL = 0.05
MEASURES = {  # metric -> what a difference in it is counted in
    "accuracy": "points of accuracy",
    "faithfulness": "true claims",
    "drc": "rejected options",
    "hallucination": "false claims",
}
DIRECTIONS = {
    ("accuracy", 1): "more accurate",
    ("accuracy", -1): "less accurate",
    **{(metric, 1): f"more {what}" for metric, what in MEASURES.items() if metric != "accuracy"},
    **{(metric, -1): f"fewer {what}" for metric, what in MEASURES.items() if metric != "accuracy"},
}
MANY = 12  # rows, from which on a range of detectable differences says nothing
NOT_TESTED = "one training seed, nothing is tested"


def named(labels, last="and"):
    """Labels of arms in a sentence, each in italics: some hold a comma."""
    return listed([f"*{label}*" for label in dict.fromkeys(labels)], last)


def family(name):
    """What a family is called within a sentence: "weight k", "KL"."""
    label = family_label(name)
    return label if label.isupper() else f"{label[0].lower()}{label[1:]}"


def shown(value, metric, sign=""):
    """A value of a measure: accuracy with one place, tokens with none, counts with two; a typographic minus."""
    places = {"accuracy": 1, "tokens": 0}.get(metric, 2)
    text = f"{value:{sign}.{places}f}"
    text = text.lstrip("-+") if not float(text) else text
    return text.replace("-", "−")


def with_interval(value, low, high, metric, sign=""):
    """ "−0.34 [−0.50, −0.18]"; without brackets where there is no interval."""
    places = {"accuracy": 1, "tokens": 0}.get(metric, 2)
    return f"{shown(value, metric, sign)} {interval(low, high, places)}".replace("-", "−").strip()


def per_cent(share):
    """A share in per cent: 0.2 and 99.8 stay what they are, so that only none is 0 and only all is 100."""
    number = 100 * share
    return f"{number:.0f}" if number in (0, 100) or 0.5 <= number <= 99.5 else f"{number:.1f}"


def span(values, unit=""):
    """ "3 to 5", or one number where all are equal as printed."""
    texts = list(dict.fromkeys([f"{min(values)}", f"{max(values)}"]))
    return " to ".join(texts) + unit


def sizes(rows):
    """ "8 training seeds, 1,000 questions", from the columns seeds and n; a span where rows differ."""
    seeds = [int(n) for n in rows["seeds"].dropna() if n > 0]
    parts = [span(seeds) + (" training seed" if max(seeds) == 1 else " training seeds")] if seeds else []
    questions = sorted({int(n) for n in rows["n"].dropna()}) if "n" in rows else []
    parts += (
        [" to ".join(f"{n:,}" for n in dict.fromkeys([questions[0], questions[-1]])) + " questions"]
        if questions
        else []
    )
    return ", ".join(parts)


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


def moves(rows, name="label", places=True):
    """A phrase for each measure and direction that was found: "fewer false claims: *G = 2* −0.34 [−0.50, −0.18]"."""
    phrases = []
    for metric in PRIMARY_METRICS:
        for sign in (1, -1):
            own = found(rows)
            own = own[(own["metric"] == metric) & (np.sign(own["difference"]) == sign)]
            texts = [f"*{getattr(row, name)}*" + f" {difference(row)}" * places for row in own.itertuples()]
            if texts:
                phrases.append(f"{DIRECTIONS[metric, sign]}: {listed(dict.fromkeys(texts))}")
    return phrases


def difference(row):
    """The difference of a row with its interval; in points where it is accuracy."""
    ends = row.difference_low, row.difference_high
    text = with_interval(row.difference, *ends, row.metric, sign="+")
    return text.replace(" [", " points [", 1) if row.metric == "accuracy" else text


def with_measure(row):
    """The difference of a row with its measure: "−3.1 points of accuracy [−4.7, −1.6]"."""
    value, _, ends = with_interval(
        row.difference, row.difference_low, row.difference_high, row.metric, sign="+"
    ).partition(" ")
    return f"{value} {MEASURES[row.metric]} {ends}".strip()


def differences(rows):
    """All differences of rows, each with its measure."""
    return listed(with_measure(row) for row in rows.itertuples())


def outcome(rows):
    """What the rows of one arm, or of one effect, differ in, and what no difference is found in; as a phrase."""
    judged = tested(rows)
    if judged.empty:
        return f"{differences(compared(rows))} ({NOT_TESTED})"
    there, open_ = found(rows), undecided(rows)
    parts = [differences(there)] if len(there) else []
    if len(open_):
        size = detectable(open_)
        what = listed((MEASURES[metric].removeprefix("points of ") for metric in open_["metric"]), "or")
        parts.append(f"no difference found in {what}" + (f" ({size} would have been)" if size else ""))
    return "; ".join(parts)


def detectable(rows, metrics=PRIMARY_METRICS, middle=False):
    """ "3.1 to 4.4 points of accuracy or 0.21 to 0.92 true claims": the smallest differences that rows would have found.

    80 % power at the first step of Holm's correction (`mde_holm`). Tables from before that column have `mde`, which no
    correction has enlarged: the words say so. middle: the median over rows in place of the range. "" where no row has one.
    """
    column = "mde_holm" if "mde_holm" in rows else "mde"
    parts = []
    for metric in metrics:
        own = rows.loc[(rows["metric"] == metric) & rows[column].notna(), column]
        if len(own):
            ends = (own.median(),) if middle else (own.min(), own.max())
            texts = dict.fromkeys(detected(value, metric) for value in ends)
            parts.append(f"{' to '.join(texts)} {MEASURES[metric]}")
    before = ", before correction" if parts and column == "mde" else ""
    return listed(parts, "or") + before


def detected(value, metric):
    """A detectable difference: one of more than 100 points cannot exist."""
    return "over 100" if metric == "accuracy" and value > 100 else shown(value, metric)


def would_have(rows, metrics=PRIMARY_METRICS):
    """The sentence that goes with "no difference found"; "" where nothing was tested. Of many rows, what half of them find."""
    size = detectable(rows, metrics, middle=len(rows) > MANY)
    who = "half of these comparisons would have found a difference of {}" if len(rows) > MANY else (
        "a difference of {} would have been found"
    )  # fmt: skip
    return f"With 80 % power {who.format(size)}; smaller ones stay open." if size else ""
