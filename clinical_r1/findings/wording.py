"""How every finding is written: headings, lists, names, numbers with their digits, intervals, p, what would have been found.

Pure: one function for each thing, so that a number reads alike in every notebook and on every page.
"""

import html
import re
from collections.abc import Callable, Iterable

import numpy as np
import pandas as pd

from clinical_r1.arms import ARMS
from clinical_r1.labels import BENCHMARK_LABELS, METHOD_LABELS, METRIC_LABELS
from clinical_r1.tables import whole

POWER = "with 80 % power, first Holm step"
ONE_SEED = "one training seed, nothing is tested"
NO_SPREAD = "nothing varies, so nothing is tested"
MEASURES = {
    "accuracy": "accuracy",
    "faithfulness": "true claims",
    "drc": "rejected options",
    "hallucination": "false claims",
    "kl": "KL",
    "completions/mean_length": "tokens",
    "swap": "answers that a swap flips",
    "direct": "accuracy, direct minus reasoned",
}
PER_CENT = ("accuracy", "swap", "direct")
PLACES = {**dict.fromkeys(PER_CENT, 1), "tokens": 1, "completions/mean_length": 1, "kl": 3}
NAN = float("nan")

# --------------------------------------------------------------------------------------------------- headings and lists


def finding(heading: str, *below: str) -> str:
    """Markdown: the finding as a heading of the third level, and paragraphs or lists below it; empty ones are left out."""
    return "\n\n".join([f"### {capital(heading)}", *(part for part in below if part)])


def sentences(*said: str) -> str:
    """One paragraph of those that are not empty."""
    return " ".join(sentence for sentence in said if sentence)


def capital(text: str) -> str:
    """The text with a large first letter; one that begins with a name, such as of a reader's model, is left as it is."""
    names = "|".join(re.escape(plain(label)) for label in METHOD_LABELS.values())
    return text if re.match(rf"(?:{names})(?!\w)", text) else text[:1].upper() + text[1:]


def bullets(lines: Iterable[str]) -> str:
    """A markdown list of the lines that are not empty."""
    return "\n".join(f"- {line}" for line in lines if line)


def listed(items: Iterable, last: str = "and") -> str:
    """ "a", "a and b", "a, b and c"; "" for nothing."""
    items = [str(item) for item in items]
    return f" {last} ".join([", ".join(items[:-1]), items[-1]] if len(items) > 1 else items)


def verb(n: int, one: str, many: str) -> str:
    """What goes with n of something: one for 1, otherwise many."""
    return one if n == 1 else many


def most(values: pd.Series, lowest: bool = False) -> list:
    """The index of the largest value, or of the lowest; of all that equal it, since none of them is the one. [] without any."""
    end = values.min() if lowest else values.max()
    return list(values.index[np.isclose(values.to_numpy(float), end, rtol=0, atol=1e-12)])


def counted(n: int, what: str) -> str:
    """ "1 question", "2,000 questions": n and what is counted, a word whose plural ends in s."""
    return f"{n:,} {what}{verb(n, '', 's')}"


# ---------------------------------------------------------------------------------------------------------------- names


def plain(text: object) -> str:
    """A name that a user or a model gave, as markdown that says just that, on one line."""
    return re.sub(r"([\\`*_\[\]|$#~])", r"\\\1", html.escape(" ".join(str(text).split()), quote=False))


def arm(name: str) -> str:
    """What an arm or a model is called."""
    label = METHOD_LABELS.get(name) or (ARMS[name].label if name in ARMS else None)
    return named(label) if label else plain(name)


def named(label: str) -> str:
    """A label within a sentence: methods and models as they are, the laboratory's phrases in italics, since some hold a comma."""
    return plain(label) if label in METHOD_LABELS.values() else f"*{plain(label)}*"


def benchmark(name: str) -> str:
    """What a set of questions is called: the clinic's sets by their machine names."""
    label = BENCHMARK_LABELS.get(name, name)
    return f"`{name}`" if label == name and re.fullmatch(r"[\w.-]+", name) else plain(label)


def measure(name: str) -> str:
    """What a measure is called within a sentence."""
    if name in MEASURES:
        return MEASURES[name]
    return METRIC_LABELS[name] if name == "cecd" else plain(name.replace("_", " "))


def counted_in(metric: str) -> str:
    """What a difference in a measure is counted in: "points of accuracy", "true claims"."""
    return "points of accuracy" if metric == "accuracy" else measure(metric)


# -------------------------------------------------------------------------------------------------------------- numbers


def places(metric: str, size: float = 1.0) -> int:
    """Digits after the point: one in per cent and of tokens, three of KL, otherwise two, and more for what would read as 0."""
    if metric in PLACES:
        return PLACES[metric]
    return 2 if pd.isna(size) or abs(size) >= 0.005 or size == 0 else 4


def written(value: float, digits: int, sign: str = "") -> str:
    """ "−0.34", "0.00": a typographic minus, no sign before a zero, a dash for no value. sign: "+" for a difference."""
    if pd.isna(value):
        return "–"
    value = round(float(value), digits) + 0.0
    return f"{value:{sign if value else ''}.{digits}f}".replace("-", "−")


def level(value: float, low: float, high: float, digits: int, unit: str = "", sign: str = "") -> str:
    """ "82.5 % [77.0, 87.9]"; without the interval where there is none; a dash for no value; unit begins with a space."""
    if pd.isna(value):
        return "–"
    ends = "" if pd.isna(low) or pd.isna(high) else f" [{written(low, digits)}, {written(high, digits)}]"
    return f"{written(value, digits, sign)}{unit}{ends}"


def change(value: float, low: float, high: float, digits: int, unit: str = "") -> str:
    """ "+0.17 points [0.10, 0.24]": a difference with its sign."""
    return level(value, low, high, digits, unit, sign="+")


def per_cent(share: float, low: float = NAN, high: float = NAN) -> str:
    """ "40.4 % [37.0, 43.8]": a share and its interval, all in [0, 1]."""
    return level(100 * share, 100 * low, 100 * high, 1, " %")


def p_value(p: float) -> str:
    """ "p = .012", after correction."""
    return f"p {p_cell(p)}" if p < 0.001 else f"p = {p_cell(p)}"


def p_cell(p: float) -> str:
    """ ".012" or "< .001", for a column of p; a dash where there is none."""
    if pd.isna(p):
        return "–"
    digits = 4 if 0.0495 <= p < 0.05 else 3  # what is found never reads .050
    return "< .001" if p < 0.001 else f"{p:.{digits}f}".removeprefix("0")


def from_to(values: Iterable[float], write: int | Callable[[float], str]) -> str:
    """ "0.82 to 0.85", or one where both read alike; a dash without a value. write: digits, or what writes one value."""
    values = [value for value in values if pd.notna(value)]
    if not values:
        return "–"
    ends = (
        written(value, write) if isinstance(write, int) else write(value)
        for value in (min(values), max(values))
    )
    return " to ".join(dict.fromkeys(ends))


def seeds_of(*seeds: float) -> str:
    """ "10 training seeds", "5 to 8 training seeds"."""
    return f"{from_to(seeds, whole)} training seed{'' if set(seeds) == {1} else 's'}"


def untested(seeds: Iterable[float]) -> str:
    """Why comparisons of so many seeds have no p: one seed tests nothing, nor do several that agree in everything."""
    return NO_SPREAD if any(number > 1 for number in seeds) else ONE_SEED


def size(questions: Iterable[float], seeds: Iterable[float], of: str = "questions") -> str:
    """ "1,000 to 2,000 questions, 10 training seeds"; what is not known is left out."""
    questions, seeds = ([n for n in numbers if n > 0] for numbers in (questions, seeds))
    of = of.replace("questions", "question") if set(questions) == {1} else of
    parts = [f"{from_to(questions, whole)} {of}"] if questions else []
    return ", ".join([*parts, seeds_of(*seeds)] if seeds else parts)


def would_have(smallest: str) -> str:
    """What goes with "no difference found", so that it never stands alone; "" where nothing was tested."""
    return f"a difference of {smallest} would have been found {POWER}" if smallest else ""
