"""How a finding is written in a notebook: a heading that says it, then sentences with every number from a table."""

import html
import re
from collections.abc import Iterable

import pandas as pd

from clinical_r1.findings.claims import MEASURES, PER_CENT
from clinical_r1.labels import BENCHMARK_LABELS, METHOD_LABELS, METRIC_LABELS
from clinical_r1.tables import whole

POWER = "with 80 % power, first Holm step"
ONE_SEED = "one training seed: no test between arms"


def finding(heading: str, *below: str) -> str:
    """Markdown: the finding as a heading of the third level, and paragraphs or lists below it; empty ones are left out."""
    return "\n\n".join([f"### {capital(heading)}", *(part for part in below if part)])


def capital(text: str) -> str:
    """The text with a large first letter; one that begins with a name in backticks is left as it is."""
    return text[:1].upper() + text[1:]


def bullets(lines: Iterable[str]) -> str:
    """A markdown list of the lines that are not empty."""
    return "\n".join(f"- {line}" for line in lines if line)


def listed(items: Iterable[object], last: str = "and") -> str:
    """ "a", "a and b", "a, b and c"; "" for nothing."""
    texts = [str(item) for item in items]
    return f"{', '.join(texts[:-1])} {last} {texts[-1]}" if len(texts) > 1 else "".join(texts)


def plain(text: object) -> str:
    """A name that a user or a model gave, as markdown that says just that."""
    return re.sub(r"([\\`*_\[\]|$#])", r"\\\1", html.escape(str(text), quote=False))


def arm(name: str) -> str:
    """What an arm or a model is called."""
    return plain(METHOD_LABELS.get(name, name))


def benchmark(name: str) -> str:
    """What a set of questions is called: the clinic's sets by their machine names."""
    label = BENCHMARK_LABELS.get(name, name)
    return f"`{name}`" if label == name and re.fullmatch(r"[\w.-]+", name) else plain(label)


def measure(name: str) -> str:
    """What a measure is called within a sentence."""
    if name in MEASURES:
        return MEASURES[name]
    return METRIC_LABELS[name] if name == "cecd" else plain(name.replace("_", " "))


def places(metric: str, size: float = 1.0) -> int:
    """Digits after the point: one in per cent, otherwise two, and more for what would be written as 0."""
    if metric in PER_CENT:
        return 1
    return 2 if pd.isna(size) or abs(size) >= 0.005 or size == 0 else 4


def level(value: float, low: float, high: float, digits: int) -> str:
    """ "82.5 [77.0, 87.9]"; without the interval where there is none."""
    value, low, high = (_rounded(each, digits) for each in (value, low, high))
    shown = f"{value:.{digits}f}"
    if not (pd.isna(low) or pd.isna(high)):
        shown += f" [{low:.{digits}f}, {high:.{digits}f}]"
    return shown.replace("-", "−")


def change(value: float, low: float, high: float, digits: int, unit: str = "") -> str:
    """ "+0.17 points [0.10, 0.24]": a difference with its sign; unit begins with a space."""
    value, low, high = (_rounded(each, digits) for each in (value, low, high))
    shown = f"{value:+.{digits}f}{unit}"
    if not (pd.isna(low) or pd.isna(high)):
        shown += f" [{low:.{digits}f}, {high:.{digits}f}]"
    return shown.replace("-", "−")


def _rounded(value, digits):
    """Rounded, and never a zero with a minus."""
    return round(float(value), digits) + 0.0


def p_value(p: float) -> str:
    """ "p = .012", after correction."""
    return "p < .001" if p < 0.001 else f"p = {p:.3f}" if p > 0.9995 else f"p = {p:.3f}".replace("0.", ".", 1)


def seeds_of(n: float) -> str:
    """ "10 training seeds"."""
    return f"{whole(n)} training seed{'s' if n != 1 else ''}"


def count(n: int, one: str, many: str | None = None) -> str:
    """ "no difference", "1 difference", "3 differences"."""
    return f"{n if n else 'no'} {one if n == 1 else many or one + 's'}"


def from_to(values: Iterable[float], digits: int) -> str:
    """ "0.82 to 0.85", or one number where they are written alike."""
    values = list(values)
    low, high = (f"{value:.{digits}f}".replace("-", "−") for value in (min(values), max(values)))
    return low if low == high else f"{low} to {high}"
