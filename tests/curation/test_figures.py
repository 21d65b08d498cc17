"""Notebook 01's figures and sentences: the data is the case's and the checks', and everything can be read on a slide.

python -m pytest tests/curation/test_figures.py
"""

import inspect
import json
import re

import matplotlib

matplotlib.use("Agg")

import numpy as np  # noqa: E402
import pandas as pd  # noqa: E402
import pytest  # noqa: E402
from colours import SIGHTS, as_seen, ciede2000  # noqa: E402
from legible import assert_legible, fresh_figures  # noqa: E402, F401  (a fixture of every test here)

from clinical_r1 import plots  # noqa: E402
from clinical_r1.clinic.cases import Case, load_set  # noqa: E402
from clinical_r1.clinic.knowledge import knowledge_base  # noqa: E402
from clinical_r1.curation import plots as curation_plots  # noqa: E402
from clinical_r1.curation import tables  # noqa: E402
from clinical_r1.curation.checks import CHECKS  # noqa: E402
from clinical_r1.curation.splits import Curated, curate, free_baselines  # noqa: E402
from clinical_r1.files import ROOT, write_jsonl  # noqa: E402
from clinical_r1.findings import curation as findings  # noqa: E402
from clinical_r1.labels import CLINIC_BENCHMARKS, WEIGHT_COLOURS  # noqa: E402
from clinical_r1.pipeline.stages import STAGES  # noqa: E402
from clinical_r1.questions import Quarantined, Question  # noqa: E402


def case_of(benchmark="clinic"):
    return Case.from_json(load_set(benchmark, "validation", 4)[3].meta["case"])


def question(number, benchmark="mine", split="test", answer="A", **options):
    options = options or {"A": "gout", "B": "lupus"}
    return Question(f"{benchmark}-{split}-{number}", benchmark, split, f"stem {number}", options, answer, {})


# ---- a case ----


def test_a_case_s_table_is_its_evidence():
    case = case_of()
    table = tables.case_table(case)
    assert len(table) == len(case.stated) * len(case.options)
    for row in table.itertuples():
        assert row.weight == case.weight(row.finding, row.present, row.option)
        assert row.letter == "ABCDEFGHIJ"[case.options.index(row.option)]
    sums = table.groupby("option")["weight"].sum()
    assert {option: sums[option] for option in case.options} == {
        option: case.net(option) for option in case.options
    }
    assert set(table.loc[table["is_key"], "option"]) == {case.gold}


@pytest.mark.parametrize("benchmark", CLINIC_BENCHMARKS)
def test_the_figure_of_a_case_shows_every_weight_and_frames_the_right_option(benchmark):
    table = tables.case_table(case_of(benchmark))
    ax = curation_plots.case_matrix(table)
    texts = [text.get_text() for text in ax.texts]
    signed = ["0" if w == 0 else f"{w:+d}".replace("-", "−") for w in table["weight"]]
    sums = table.groupby("option", sort=False)["weight"].sum()
    assert sorted(texts) == sorted(signed + ["0" if w == 0 else f"{w:+d}".replace("-", "−") for w in sums])
    cells = [patch for patch in ax.patches if patch.get_fill()]
    painted = sorted(matplotlib.colors.to_hex(patch.get_facecolor()).upper() for patch in cells)
    assert painted == sorted(WEIGHT_COLOURS[w] for w in table["weight"])
    (frame,) = [patch for patch in ax.patches if not patch.get_fill()]
    key = list(sums.index).index(table.loc[table["is_key"], "option"].iloc[0])
    assert frame.get_x() == key - 0.5 and "(right)" in ax.get_xticklabels()[key].get_text()
    assert_legible(ax.figure)


def test_colours_of_weights_differ_whatever_the_sight():
    for sight in SIGHTS:
        seen = [as_seen(colour, sight) for colour in WEIGHT_COLOURS.values()]
        assert min(ciede2000(a, b) for i, a in enumerate(seen) for b in seen[i + 1 :]) >= 10


def test_the_figure_is_saved_with_its_data_where_the_stage_says(tmp_path):
    table = tables.case_table(case_of())
    ax = curation_plots.case_matrix(table)
    saved = plots.save_figure(ax.figure, "curation_case", tmp_path, table)
    assert [path.name for path in saved] == [f"curation_case.{kind}" for kind in ("png", "pdf", "csv")]
    pd.testing.assert_frame_equal(pd.read_csv(saved[-1]), table)
    assert "figures/{profile}/curation_*.*" in STAGES[0].writes


def test_the_sentence_on_a_case_by_hand():
    lines = [("fever", "Flu", 2, True), ("rash", "Flu", 1, True), ("fever", "Gout", 1, False), ("rash", "Gout", -2, False),
             ("fever", "Acne", 0, False), ("rash", "Acne", 0, False)]  # fmt: skip
    table = pd.DataFrame(lines, columns=["wording", "option", "weight", "is_key"])
    said = findings.case(table)
    assert "### Flu leads by 3: its weights add up to 3, those of the next option to 0" in said
    assert (
        "1 of 2 wrong options is rejected by a stated finding; 1 more has nothing that speaks for it" in said
    )
    assert "no finding argues against the answer" in said
    table.loc[1, "weight"] = -1
    assert "1 finding argues against the answer" in findings.case(table)


# ---- checks ----


@pytest.fixture(scope="module")
def looked():
    sets = {
        ("clinic", "rl"): load_set("clinic", "rl", 30),
        ("clinic", "test"): load_set("clinic", "test", 20),
    }
    return {key: curate(questions) for key, questions in sets.items()}


def aside(check="contaminated", benchmark="clinic", split="rl"):
    return Quarantined(check, "why", benchmark, split, "x", None, None, None)


def test_the_table_of_checks_counts_what_was_set_aside_before(looked):
    table = tables.checks_table(looked, [aside(), aside(), aside("not_json"), aside(benchmark="medqa")])
    cell = table.set_index(["benchmark", "split", "check"])
    assert cell.loc[("clinic", "rl", "contaminated"), ["count", "n"]].tolist() == [2, 33]
    assert cell.loc[("clinic", "rl", "not_json"), "action"] == "set aside"
    assert np.isnan(
        cell.loc[("clinic", "test", "contaminated"), "count"]
    )  # a test set is held against nothing
    assert set(table["check"]) == set(CHECKS) - {"partial_release"} and set(table["benchmark"]) == {"clinic"}
    for (benchmark, split), result in looked.items():
        for row in result.report:
            if row["action"] == "report" and row["check"] != "partial_release":
                assert cell.loc[(benchmark, split, row["check"]), "count"] == row["count"]


def test_the_figure_of_checks_writes_every_count(looked):
    table = tables.checks_table(looked, [aside()] * 3)
    ax = curation_plots.checks_matrix(table)
    found = table[table.groupby("check")["count"].transform("sum") > 0]
    expected = ["–" if np.isnan(count) else f"{count:.0f}" for count in found["count"]]
    assert sorted(text.get_text() for text in ax.texts) == sorted(expected)
    names = [label.get_text() for label in ax.get_yticklabels()]
    assert names[0] == "contaminated  (set aside)" and all("(reported)" in name for name in names[1:])
    silent = table["check"].nunique() - found["check"].nunique()
    assert f"{silent} checks found none" in ax.figure.get_suptitle()
    assert_legible(ax.figure)


def test_a_full_figure_of_checks_can_be_read():
    """Ten sets, every check of a question with a count: as large as real files make it."""
    names = [*((name, "test") for name in CLINIC_BENCHMARKS), ("clinic", "sft"), ("clinic", "rl"), ("medqa", "dev"),
             ("medqa", "test"), ("medqa-4", "test"), ("medmcqa", "dev"), ("medxpertqa", "test")]  # fmt: skip
    looked = {name: Curated([question(i) for i in range(2000)], [], []) for name in names}
    table = tables.checks_table(looked)
    shown = table["check"].isin(list(CHECKS)[6:])
    table.loc[shown, "count"] = [(7 * i) % 2000 for i in range(shown.sum())]
    assert_legible(curation_plots.checks_matrix(table).figure)


def test_the_sentence_on_checks_by_hand():
    lines = [
        ("lost_rt", "reported", 319),
        ("near_duplicate", "reported", 0),
        ("no_gold", "set aside", 4),
        ("contaminated", "set aside", np.nan),
    ]
    table = pd.DataFrame(lines, columns=["check", "action", "count"]).assign(
        benchmark="medmcqa", split="dev", n=1000
    )
    said = findings.checks(table)
    assert "### 4 questions are set aside, 996 stay; 1 of 2 reporting checks finds something" in said
    assert "Set aside: no gold (4). Reported most: lost rt (319)." in said
    none = findings.checks(table.assign(count=0))
    assert "### 0 questions are set aside, 1,000 stay" in none and "Set aside:" not in none


def test_a_quarantine_is_read_as_it_was_written(tmp_path):
    path = tmp_path / "quarantine.jsonl"
    write_jsonl(path, [aside().to_json()])
    assert tables.read_quarantine(path) == [aside()]


# ---- splits and guessers ----


def test_what_splits_share_is_counted_and_said():
    alike = {
        ("mine", "test"): [question(1), question(2)],
        ("mine", "rl"): [question(2), question(3)],
        ("other", "test"): [question(1)],
    }
    table = tables.shared_table(alike)
    assert table[["one", "other", "same_stem"]].values.tolist() == [
        ["mine test", "mine rl", 1],
        ["mine rl", "other test", 0],
    ]
    said = findings.apart(table)
    assert "### 1 question is in two splits; 1 pair of a training and a test question shares" in said
    apart = table.assign(same_stem=0, similar=[2, 0])
    assert (
        "### No question is in two splits; 2 pairs of a training and a test question share"
        in findings.apart(apart)
    )
    trains = pd.DataFrame([{"one": "clinic sft", "other": "clinic rl", "same_stem": 0, "similar": 26}])
    assert "26 pairs of two training splits do" in findings.apart(pd.concat([apart, trains]))


def test_decided_questions_are_counted_from_their_evidence():
    questions = load_set("clinic", "test", 10)
    wrong = Case.from_json(questions[0].meta["case"])
    other = questions[0].meta | {"case": wrong.to_json() | {"gold": wrong.distractors[0]}}
    spoilt = [Question(**{**vars(questions[0]), "meta": other}), *questions[1:]]
    table = tables.decided_table({("clinic", "test"): spoilt, ("mine", "test"): [question(1)]})
    assert table[["benchmark", "n", "decided"]].values.tolist() == [["clinic", 10, 9]]
    assert tables.decided_table({("clinic", "test"): questions})[["decided", "against"]].values.tolist() == [
        [10, 0]
    ]


def test_other_sentences_by_hand():
    rows = pd.DataFrame(
        [("clinic", "test", 500, 0), ("clinic", "sft", 64, 1)],
        columns=["benchmark", "split", "questions", "quarantined"],
    )
    said = findings.written(rows)
    assert (
        "### 2 files hold 564 questions; 1 more was set aside" in said
        and "500 are for testing, in 1 set; 64 for training" in said
    )
    guessed = pd.DataFrame({"a": free_baselines([question(1), question(2, answer="B"), question(3)])}).T
    said = findings.guessers(guessed)
    assert "at most 16.7 points on chance" in said and "`a` 66.7 %, chance 50.0 %" in said
    assert "no guesser" in findings.guessers(
        pd.DataFrame({"a": free_baselines([question(1, answer=None)])}).T
    )
    assert "### None of 5 official files is here" in findings.official(0, 5, 0)
    assert "### 4 of 5 official files read: 9,450 questions" in findings.official(4, 5, 9450)
    assert "cannot be looked for" in findings.contamination({})
    assert "### 1 pair of questions from two benchmarks is alike" in findings.contamination(
        {("a", "b"): 1}
    ) and "### No pair of questions from" in findings.contamination({("a", "b"): 0})
    assert "agree in 673 of 1,273 questions; option texts join 1,273" in findings.letters(673, 1273, 1273)
    assert "not both here" in findings.letters(0, 0, 0)
    kb = knowledge_base()
    assert f"### {len(kb.conditions)} conditions in {len(kb.families)} families" in findings.world(kb)


def test_the_ending_says_which_questions_can_be_trusted(looked):
    decided = pd.DataFrame(
        [("clinic", "test", 500, 500, 0)], columns=["benchmark", "split", "n", "decided", "against"]
    )
    shared = pd.DataFrame(
        [("clinic test", "clinic rl", 0, 0)], columns=["one", "other", "same_stem", "similar"]
    )
    checked = tables.checks_table(looked)
    said = findings.closing(decided, shared, checked, "DRAFT.")
    assert (
        "in 500 of 500 questions the stated findings decide for one answer, in none one argues against it; none is in two"
        in said
    )
    assert "DRAFT." in said and "no official file was found" in said
    real = checked[checked["split"] == "test"].assign(benchmark="medmcqa", split="dev", n=100)
    real.loc[real["check"] == "no_gold", "count"] = 3
    more = findings.closing(decided, shared.assign(same_stem=2), pd.concat([checked, real]), "DRAFT.")
    assert (
        "2 are in two splits" in more
        and "**MedMCQA dev**: 97 of 100 questions" in more
        and "no official file" not in more
    )


def test_notebook_01_shows_every_finding():
    cells = json.loads((ROOT / "notebooks" / "01_data_curation.ipynb").read_text(encoding="utf-8"))["cells"]
    code = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")
    ours = {
        name
        for name, thing in vars(findings).items()
        if inspect.isfunction(thing) and thing.__module__ == findings.__name__ and not name.startswith("_")
    }
    assert set(re.findall(r"findings\.(\w+)\(", code)) == ours
    assert re.search(r"## Which questions can be trusted\?", "".join(cells[-4]["source"]))


def test_findings_of_nothing_and_of_one():
    empty = pd.DataFrame(columns=["one", "other", "same_stem", "similar"])
    assert findings.apart(empty) == "### There are no two splits to compare"
    trained = pd.DataFrame([("clinic sft", "clinic rl", 0, 1)], columns=list(empty))
    assert "no test set is among these splits" in findings.apart(trained)
    assert "1 pair of splits was compared. 1 pair of two training splits does." in findings.apart(trained)
    assert findings.checks(tables.checks_table({})) == "### No set was checked"
    case = pd.DataFrame([("A", 1, True), ("B", 2, False)], columns=["option", "weight", "is_key"])
    assert "### A does not lead: its weights add up to 1, those of the next option to 2" in findings.case(
        case
    )
    below = pd.DataFrame({"n": [5], "majority": [0.1], "longest_option": [0.1], "chance": [0.2]}, index=["a"])
    assert "gains nothing on chance" in findings.guessers(below)
