"""Notebook 07: every question has its finding, and it runs with a summary, with a part of one, and without any."""

import json
import re

import agent_summary
import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt  # noqa: E402
import pytest  # noqa: E402

from clinical_r1.agent import records, start  # noqa: E402
from clinical_r1.files import ROOT  # noqa: E402
from clinical_r1.findings import agent as findings  # noqa: E402

NOTEBOOK = ROOT / "notebooks" / "07_diagnostic_agent.ipynb"
FIGURES = {
    *(
        "agent_consultation",
        "agent_credit_group",
        "agent_credit_error",
        "agent_credit_gamma",
        "agent_density",
    ),
    *("agent_learning", "agent_comparison", "agent_closure", "agent_front"),
}


def cells(kind=None):
    found = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    return [cell | {"text": "".join(cell["source"])} for cell in found if kind in (None, cell["cell_type"])]


def test_every_question_has_its_finding():
    asked = cells()
    for i, cell in enumerate(asked):
        if cell["cell_type"] == "markdown" and re.match(r"## .*\?\n", cell["text"]):
            following = next(after["text"] for after in asked[i + 1 :] if after["cell_type"] == "code")
            assert "Markdown(findings." in following, cell["text"]


def test_every_finding_is_shown_and_the_title_is_answered():
    code = "\n".join(cell["text"] for cell in cells("code"))
    assert set(re.findall(r"findings\.(\w+)\(", code)) == set(findings.__all__)
    title = cells()[0]["text"].split("\n")[0].split(" · ")[1]
    assert [cell["text"] for cell in cells("markdown")][-2].startswith(f"## {title}\n")


def test_cells_are_short_and_prose_holds_no_result():
    assert all(len(cell["text"].splitlines()) <= 15 for cell in cells("code"))
    prose = " ".join(cell["text"] for cell in cells("markdown"))
    assert "teaching material, not medical advice" in prose
    assert not re.findall(r"\b(?!80 %)\d+ (?:%|per cent)|\d points\b|\bp [=<]|\[[−-]?\d[\d.]*, ", prose)


def run(out, monkeypatch, capsys):
    """The findings and the files that the notebook makes in `out`, without its set-up and the start of the agent."""
    shown = []
    monkeypatch.setattr(start, "SHIPPED", out / "nowhere")
    monkeypatch.setattr(records, "SHIPPED", out / "nowhere")
    monkeypatch.setattr("IPython.display.display", lambda *things: shown.extend(things))
    names = {}
    for cell in cells("code"):
        if "setup" in cell["metadata"].get("tags", []):
            continue
        exec(compile(cell["text"], NOTEBOOK.name, "exec"), names)
        if "parameters" in cell["metadata"].get("tags", []):
            names |= {"out": str(out), "profile": "smoke"}
        plt.close("all")
    capsys.readouterr()
    said = [thing.data for thing in shown if hasattr(thing, "data") and isinstance(thing.data, str)]
    said.append(
        names["findings"].answer(names["compared"], names["nearest"], names["summary"].density, names["ends"])
    )
    figures = {path.stem for path in (out / "figures" / "smoke").glob("*.png")}
    return said, figures


@pytest.mark.slow
def test_it_runs_without_any_summary_and_says_so(tmp_path, monkeypatch, capsys):
    said, figures = run(tmp_path, monkeypatch, capsys)
    assert figures == {"agent_consultation"}
    assert sum(text.startswith("### Not measured yet") for text in said) == 10
    assert said[-1].startswith("### What a turn should be credited with was not measured yet")


@pytest.mark.slow
def test_it_shows_every_section_of_a_whole_summary(tmp_path, monkeypatch, capsys):
    frames = agent_summary.summary_frames()
    records.write_agent(tmp_path / "runs" / "agent" / "summary", frames, {"git": {"sha": "0123456"}})
    said, figures = run(tmp_path, monkeypatch, capsys)
    assert figures == FIGURES
    assert not [text for text in said if "ot measured" in text]
    assert findings.by_hand(None) in said  # the start is not here


@pytest.mark.slow
def test_a_part_that_is_missing_leaves_the_others(tmp_path, monkeypatch, capsys):
    frames = agent_summary.summary_frames()
    shipped = tmp_path / "shipped"
    records.write_agent(shipped, {kind: frames[kind] for kind in ("credit", "density")})
    monkeypatch.setattr(records, "find_agent", lambda out: shipped)
    said, figures = run(tmp_path, monkeypatch, capsys)
    assert figures == {name for name in FIGURES if "credit" in name} | {"agent_density", "agent_consultation"}
    assert any(text.startswith("### At the start, Tree + anchor agrees best") for text in said)
