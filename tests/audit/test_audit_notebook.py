"""Notebooks 02 and 06, and the pages that repeat them, say what is found: pytest tests/audit/test_audit_notebook.py"""

import base64
import json
import math
import re
import struct

import pytest

from clinical_r1 import paper
from clinical_r1.audit import accuracies, claims, public_answers, reward_arithmetic, reward_cases
from clinical_r1.audit.redteam import EXAMPLE, EXAMPLE_HONEST, red_team_table
from clinical_r1.audit.steps import steps
from clinical_r1.clinic.cases import Case, load_set
from clinical_r1.clinic.traces import teaching_completions
from clinical_r1.files import ROOT


def cells(name: str) -> list[dict]:
    return json.loads((ROOT / "notebooks" / f"{name}.ipynb").read_text(encoding="utf-8"))["cells"]


def static(name: str) -> str:
    """What the sentences of a notebook say, whatever is computed."""
    return " ".join("".join(cell["source"]) for cell in cells(name) if cell["cell_type"] == "markdown")


def shown(name: str) -> list[str]:
    """The Markdown that a notebook's cells made when it was last run."""
    outputs = [output for cell in cells(name) for output in cell.get("outputs", ())]
    return [
        "".join(output["data"]["text/markdown"])
        for output in outputs
        if "text/markdown" in output.get("data", {})
    ]


@pytest.fixture(scope="module")
def said() -> str:
    return " ".join(shown("06_paper_audit"))


@pytest.mark.parametrize("name", ["02_reward_design", "06_paper_audit"])
def test_every_heading_is_made_by_a_cell(name):
    headings = [line for text in shown(name) for line in text.splitlines() if line.startswith("##")]
    assert len(headings) >= 5 and all(re.search(r"\d", heading) for heading in headings)
    assert not re.search(r"^##", static(name), re.MULTILINE)


# ---- notebook 02

SCREEN, COLUMNS = 45, 110  # lines of a page, characters of a line


def text_lines(text: str) -> int:
    return sum(max(1, math.ceil(len(line) / COLUMNS)) for line in text.splitlines())


def output_lines(output: dict) -> int:
    """Lines that an output takes on a page: a table's rows, wrapped; a picture at 900 pixels of width and 20 a line."""
    data = output.get("data", {"text/plain": output.get("text", "")})
    if "image/png" in data:
        width, height = struct.unpack(">II", base64.b64decode("".join(data["image/png"]))[16:24])
        return math.ceil(min(1, 900 / width) * height / 20)
    if "text/html" in data:
        page = "".join(data["text/html"])
        rows = re.findall(r"<tr.*?</tr>", page, re.DOTALL) or re.split(r"<br>|</div>|</p>", page)
        return sum(text_lines(" ".join(re.sub("<[^>]*>", "", row).split()) or " ") for row in rows)
    return text_lines("".join(data.get("text/markdown", data.get("text/plain", ""))))


def test_notebook_02_is_at_most_ten_screens():
    found = [
        1
        + text_lines("".join(cell["source"]))
        + sum(1 + output_lines(output) for output in cell.get("outputs", ()))
        for cell in cells("02_reward_design")
    ]
    assert SCREEN * 5 < sum(found) <= SCREEN * 10, f"{sum(found) / SCREEN:.1f} screens"
    assert max(found) <= SCREEN


def test_headings_of_notebook_02(data_dir):
    questions = load_set("clinic", "validation", 40)
    cases = [Case.from_json(question.meta["case"]) for question in questions]
    written = reward_cases.judge_groups(questions, list(map(teaching_completions, cases)))
    text = " ".join(shown("02_reward_design"))
    table = red_team_table(EXAMPLE, EXAMPLE_HONEST).iloc[1:]
    outranked = table["outranked"].astype(bool)
    assert (
        f"{outranked.sum()} of {len(table)} attacks earn less than an honest answer; {(~outranked).sum()} tie"
        in text
    )
    kinds = reward_cases.means_by_completion(written)
    others = kinds.drop("honest")
    less = kinds.loc["honest", "total"] - others["total"]
    close = less < 0.55
    assert less[close].to_numpy() == pytest.approx(0.5, abs=0.05)
    invented = (others["true claims"] == 0) & (others["false claims"] > 0)
    assert (close & invented).sum() == 1
    assert (
        f"{close.sum()} of {len(others)} other ways to answer earn half a point less than the honest one, 1 of them"
        in text
    )
    assert re.search(
        r"\d+ of \d+ right and well-formed answers state something false, and earn 1[12]\.\d\d points", text
    )
    assert (
        "Written by the clinic's base model" in text
    )  # not by a script: the outputs are of the shipped model
    agreement = public_answers.extraction_agreement(data_dir)
    gained = agreement["accuracy_rule"] - agreement["accuracy_ours"]
    answers = agreement.drop_duplicates(["benchmark", "model"])["n"].sum()
    assert (
        f"adds {gained.min():.1f} to {gained.max():.1f} points to the accuracy of {answers:,} real answers"
        in text
    )
    difference = public_answers.real_comparison(data_dir)["difference"]
    assert (
        f"GPT-4 is {difference.min():.0f} to {difference.max():.0f} points more accurate than GPT-3.5" in text
    )


# ---- notebook 06


def test_headings_on_denominators(said):
    fit = accuracies.attainability()
    known, missed = fit["n_printed"], ~fit["attainable"]
    assert (
        f"{(known & missed).sum()} of {known.sum()} accuracies on MedQA and MedMCQA are no share of the official test sets; "
        f"nor are {(~known & missed).sum()} more, if MedXpertQA has 2,450 questions" in said
    )
    assert f"{fit['attainable'].sum()} of 15 fit." in said
    assert f"luck alone would let about {fit['share_of_any'].sum():.0f} through" in said
    assert not fit.loc[missed, "attainable_if_cut"].any() and "does not fix a single one" in static(
        "06_paper_audit"
    )


def test_headings_on_gains_and_guesses(said):
    gains, sizes = accuracies.gain_tests(), accuracies.if_n()
    assert set(gains.loc[gains["p_holm"] < 0.05, "benchmark"]) == {"medmcqa", "medxpertqa"}
    assert (
        f"{(gains['p_holm'] < 0.05).sum()} of 6 gains over GRPO are beyond chance, none of them on MedQA"
        in said
    )
    least = sizes["p_baseline"].min()
    assert least > 0.05 and f"at any of {len(sizes)} sizes (p from {least:.2f})" in said
    prose = static("06_paper_audit")
    assert (sizes["p_cold_start_crpo"] < 0.05).all() and "after a cold start stands at each of them" in prose
    assert len(set(sizes["p_crpo"] < 0.05)) == 2 and "the one without hangs on $n$" in prose
    guesses = accuracies.guessing().set_index("benchmark")
    assert (
        0.3 < guesses.loc["medmcqa", "majority_letter"] / 100 < 0.35
        and "a third of the answers are the letter A" in prose
    )


def test_heading_on_claims_counts_the_papers_own(said):
    counts = claims.verdict_counts()
    row = counts.loc["contradicted"]
    assert (
        f"{row['the paper']} of {counts['the paper'].sum()} claims of the paper are contradicted, "
        f"{row['by print alone']} by its printed numbers alone" in said
    )
    abstract = claims.text_against_table().query("where == 'abstract'")
    assert len(abstract) == 2 and set(abstract["verdict"]) == {"consistent"}
    assert "Both sentences of the abstract are consistent with Table 1" in static("06_paper_audit")


def test_headings_on_rewards(said):
    groups = reward_arithmetic.worked_groups()["advantage"]
    assert (
        f"worth {groups[0] - groups[1]:.2f} beside a right answer's {groups[1] - groups[3]:.1f}." in said
        and f"advantages of {groups[5]:.2f} to {groups[9]:.2f}" in said
    )
    assert "Accuracy brings 10 of 12 points" in said
    assert "character noise" not in static("06_paper_audit") + said


def test_headings_on_figures(said):
    highest = paper.averages()["hallucination"]
    assert highest.idxmax() == "grpo"
    assert f"GRPO, with the highest count ({highest.max():.2f}), lies farthest out" in said
    total = steps().set_index("quantity").loc["RL steps after a cold start", "result"]
    assert f"give {total} steps, and Figure 5 ends at {int(paper.fig5_curve()['step'].max())}" in said


def test_trust_page_counts_as_the_audit_does():
    text = (ROOT / "docs" / "trust.md").read_text(encoding="utf-8")
    counts, fit = claims.verdict_counts(), accuracies.attainability()
    row, known = counts.loc["contradicted"], fit["n_printed"]
    assert f"Of {counts['the paper'].sum()} claims of the paper {row['the paper']} are contradicted, " in text
    assert f"{row['by print alone']} of them (a bold mark) by printed numbers alone" in text
    assert f"{counts['us'].sum()} more rows are readings of ours" in text
    missed = ~fit["attainable"]
    assert f"{(missed & known).sum()} of {known.sum()} accuracies on MedQA and MedMCQA are no share" in text
    assert (
        f"{(missed & ~known).sum()} of {(~known).sum()} on MedXpertQA if that set has 2,450 questions" in text
    )
    assert f"Leaving out up to {fit['dropped'].max()} unreadable answers" in text
    gains = accuracies.gain_tests()
    assert (
        f"{(gains['p_holm'] < 0.05).sum()} of {len(gains)} gains over GRPO are beyond chance, none of them on MedQA"
        in text
    )


def test_no_page_counts_our_readings_against_the_paper():
    pages = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
    for text in [static("06_paper_audit"), *(page.read_text(encoding="utf-8") for page in pages)]:
        assert not re.search(r"(?i)\b(?:7|seven) (?:\w+ ){0,3}contradicted", text)
