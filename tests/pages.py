"""What the tests of README.md and docs/ share: the pages, their code blocks, and the published tables they speak of."""

import re

import pandas as pd
import pytest

from clinical_r1.files import ROOT

PAGES = [
    "README.md",
    "CONTRIBUTING.md",
    "CHANGELOG.md",
    *(f"docs/{p.name}" for p in sorted((ROOT / "docs").glob("*.md"))),
]


def page(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def one_line(text: str) -> str:
    """White space folded, emphasis taken out, a typographic minus made plain: for finding a sentence in a page."""
    return " ".join(text.replace("**", "").replace("−", "-").split())


def blocks(text: str, language: str) -> list[str]:
    """The fenced code blocks of one language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def published():
    """The folder of the published tables and figures, which the pages speak of; no run writes there."""
    return ROOT / "figures" / "published" / "cpu"


def comparison(folder, method, against, benchmark, metric="accuracy"):
    """One row of comparisons.csv; where a pair was tested in two families, the one with the larger p, as results.md shows."""
    rows = pd.read_csv(folder / "comparisons.csv")
    key = {"method": method, "against": against, "benchmark": benchmark, "metric": metric}
    rows = rows[(rows[list(key)] == pd.Series(key)).all(axis=1)]
    return rows.loc[rows["p_holm"].idxmax()]
