"""docs/results.md says of the laboratory what the published tables say, and nothing else of it by hand.

python -m pytest tests/findings/test_laboratory_page.py
"""

import re

import pandas as pd
import pytest

from clinical_r1.files import ROOT, PipelineError
from clinical_r1.findings import laboratory as findings
from clinical_r1.findings.laboratory_page import TABLES
from clinical_r1.pipeline import readme as generator

PUBLISHED = ROOT / "figures" / "published" / "cpu"
PAGE = (ROOT / "docs" / "results.md").read_text(encoding="utf-8")
BEGIN, END = generator.LABORATORY_BEGIN, generator.LABORATORY_END
SECTION = re.search(r"^## The laboratory\n(.*?)(?=^## )", PAGE, re.MULTILINE | re.DOTALL)[1]


def test_the_block_is_what_the_published_tables_give():
    """Fix: python -m clinical_r1.pipeline readme"""
    block = generator.laboratory_block(PUBLISHED)
    assert generator.with_block(PAGE, BEGIN, END, block, "docs/results.md") == PAGE


def test_the_block_speaks_of_k_in_the_words_of_the_findings():
    tests = pd.read_csv(PUBLISHED / TABLES["ablations"]).query("family == 'k'")
    table = pd.read_csv(PUBLISHED / TABLES["k"])
    assert findings.k(table, tests).strip() in SECTION
    assert findings.k_sentence(table, tests) in SECTION


def test_nothing_beside_the_block_is_a_number_of_a_result():
    around = SECTION[: SECTION.index(BEGIN)] + SECTION[SECTION.index(END) :]
    prose = re.sub(r"```.*?```|`[^`]*`|\[[^\]]*\]\([^)]*\)", "", around, flags=re.DOTALL)
    assert re.findall(r"\d", prose) == []


def test_a_damaged_or_missing_table_is_named(tmp_path):
    for kind in ("k", "ablations"):
        (tmp_path / TABLES[kind]).write_bytes((PUBLISHED / TABLES[kind]).read_bytes())
    with pytest.raises(PipelineError, match=r"tradeoffs_hypervolume\.csv"):
        generator.laboratory_block(tmp_path)
    (tmp_path / TABLES["volumes"]).write_text("kind,name\narm,crpo\n")
    with pytest.raises(PipelineError):
        generator.laboratory_block(tmp_path)
    (tmp_path / TABLES["volumes"]).write_text("")
    with pytest.raises(PipelineError, match="damaged"):
        generator.laboratory_block(tmp_path)


def test_a_table_without_a_column_is_named(tmp_path):
    for kind in ("k", "ablations", "volumes"):
        (tmp_path / TABLES[kind]).write_bytes((PUBLISHED / TABLES[kind]).read_bytes())
    pd.read_csv(PUBLISHED / TABLES["k"]).drop(columns="metric").to_csv(tmp_path / TABLES["k"], index=False)
    with pytest.raises(PipelineError, match="has no column 'metric'; publish the run again"):
        generator.laboratory_block(tmp_path)


def test_a_reader_s_own_arm_and_a_short_record_are_no_key_errors():
    assert generator._called("my_arm|1") == r"my\_arm\|1" and generator._called("crpo") == "CRPO"
    with pytest.raises(PipelineError, match=r"results\.json lacks git, seeds"):
        generator._which_run({"command": "x", "date": "2026", "protocol": "sampled"})
