"""The review sheet and the page for a clinician: every relation, in words, as the tables have it now.

Run: pytest tests/clinic/test_review.py
"""

import csv
import io
import re

import pytest

from clinical_r1.clinic.__main__ import main
from clinical_r1.clinic.cases import draw_cases
from clinical_r1.clinic.drawing import Level
from clinical_r1.clinic.knowledge import FOLDER, knowledge_base
from clinical_r1.clinic.review import (
    COLUMNS,
    MEANING,
    PAGE_BEGIN,
    PAGE_END,
    as_csv,
    as_markdown,
    page_block,
    read_changes,
    sheet,
)
from clinical_r1.clinic.tables import CLASSES
from clinical_r1.files import ROOT, replace_block

PAGE = (ROOT / "docs" / "clinic.md").read_text(encoding="utf-8")


def relations():
    with (FOLDER / "relations.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_the_page_has_todays_relations():
    """Fix: python -m clinical_r1.pipeline readme"""
    block = page_block(knowledge_base(), read_changes(ROOT / "docs"))
    assert replace_block(PAGE, PAGE_BEGIN, PAGE_END, block) == PAGE
    for row in relations():
        name = CLASSES[int(row["present"]), int(row["absent"])]
        assert f"| {knowledge_base().findings[row['finding']]['present']} | {name} | {row['basis']} |" in PAGE


def test_the_list_of_changes_ends_where_the_tables_are():
    """Each row of docs/clinic_changes.csv says what a relation is now, and why."""
    changes = read_changes(ROOT / "docs")
    now = {(r["condition"], r["finding"]): CLASSES[int(r["present"]), int(r["absent"])] for r in relations()}
    named = [r for r in changes if r["now"] in (*CLASSES.values(), "no relation")]
    wrong = [r for r in named if now.get((r["condition"], r["finding"]), "no relation") != r["now"]]
    assert wrong == [] and len(named) > 900
    assert {r["taken"] for r in changes} == {"yes", "no", "covered by rule", "otherwise"}
    assert all(r["why"].strip() for r in changes)
    assert {r["rank"] for r in changes if r["source"] == "corrections"} == {str(i) for i in range(1, 257)}
    assert {r["rank"] for r in changes if r["source"] == "missed"} == {str(i) for i in range(1, 41)}
    refused = [r for r in changes if r["taken"] == "no"]
    assert refused and all(f"| {r['proposed']} | {r['why']} |" in PAGE for r in refused)


def test_what_readers_found_is_what_the_page_says():
    with (ROOT / "docs" / "clinic_reading.csv").open(encoding="utf-8", newline="") as file:
        read = {(r["reading"], r["version"], r["set"]): r for r in csv.DictReader(file)}
    sets = ("clinic", "clinic-shift", "clinic-expert")

    def counts(reading, version, column):
        return [read[reading, version, name][column] for name in sets]

    for version in ("old", "corrected"):
        assert counts("1", version, "n") == ["60"] * 3
        for column, words in (
            ("absurd", "absurd of 60"),
            ("contradicted", "a finding argues against the answer"),
        ):
            assert f"| {version}, {words} | {' | '.join(counts('1', version, column))} |" in PAGE
    assert counts("2", "corrected", "n") == ["60"] * 3 and counts("2", "old", "n") == ["20"] * 3
    again = [counts("2", version, "absurd") for version in ("corrected", "old")]
    said = "absurd were {}, {} and {} of the corrected, and {}, {} and {} of the old"
    assert said.format(*again[0], *again[1]) in PAGE


def test_the_page_says_first_that_nobody_has_reviewed_it():
    head = PAGE.split("## ")[0].lower()
    assert "not yet reviewed by a clinician" in head and "never medical advice" in head


def test_the_examples_of_the_page_are_in_the_tables():
    kb = knowledge_base()
    numbers = {(r["condition"], r["finding"]): (int(r["present"]), int(r["absent"])) for r in relations()}
    assert (
        numbers["Crohn disease", "granulomas"]
        == numbers["Systemic lupus erythematosus", "malar_rash"]
        == (2, 0)
    )
    assert "its absence says nothing (granulomas in Crohn disease, a malar rash in lupus)" in PAGE
    assert numbers["Pulmonary embolism", "d_dimer_high"] == (1, -2)
    assert numbers["Community-acquired pneumonia", "cough"] == (1, -2)
    mass, pair = "a mass pressing on the cord", ("Multiple sclerosis", "Spinal cord compression")
    (finding,) = [f for f, entry in kb.findings.items() if entry["present"].startswith(mass)]
    assert (pair[0], finding) not in numbers and kb.weight(finding, True, pair[0], pair) == -2
    assert f"{mass} argues against multiple sclerosis where spinal cord compression is on offer" in PAGE
    assert frozenset({("sudden_illness_onset", True), ("subacute_cough", True)}) in kb.exclusions
    said = (kb.findings[f]["present"] for f in ("sudden_illness_onset", "subacute_cough"))
    assert '("{}" and "{}")'.format(*said) in PAGE


def test_rows_against_are_as_many_as_the_page_says():
    family = knowledge_base().conditions
    rules_in = {(family[r["condition"]], r["finding"]) for r in relations() if r["present"] == "2"}
    against = [(family[r["condition"]], r["finding"]) for r in relations() if r["present"] == "-2"]
    rivals = sum(pair in rules_in for pair in against)
    assert f"{rivals} of the {len(against)} are of one that rules in another condition of the family" in PAGE


def test_another_clinic_in_the_outputs_of_notebook_01_is_said():
    notebook = (ROOT / "notebooks" / "01_data_curation.ipynb").read_text(encoding="utf-8")
    shown = int(re.search(r"families of look-alikes, (\d+) findings", notebook)[1])
    trust = (ROOT / "docs" / "trust.md").read_text(encoding="utf-8")
    said = "notebooks 01, 03, 04 and 05** show the clinic before its knowledge base was corrected" in trust
    assert said or shown == len(knowledge_base().findings)


def test_the_page_explains_every_class_and_the_levels():
    for (present, absent), name in CLASSES.items():
        assert f"| {name} | {present}, {absent} |".replace("-", "−") in PAGE
    assert set(MEANING) == set(CLASSES.values())
    assert Level().negatives == 3 and "at most three (four with ten options)" in PAGE


def test_the_sheet_has_each_relation_once_with_columns_to_fill_in():
    rows = list(csv.DictReader(io.StringIO(as_csv(sheet(knowledge_base())))))
    expected = sorted(
        (r["condition"], r["finding"], int(r["present"]), int(r["absent"]), r["basis"]) for r in relations()
    )
    got = [
        (r["condition"], r["finding"], int(r["weight present"]), int(r["weight absent"]), r["basis"])
        for r in rows
    ]
    assert sorted(got) == expected
    for row in rows:
        name = CLASSES[int(row["weight present"]), int(row["weight absent"])]
        assert row["class"] == f"{name}: {MEANING[name]}"
        assert [row[column] for column in COLUMNS[-3:]] == ["", "", ""]


def test_review_writes_one_family_as_csv_and_as_markdown(tmp_path, capsys):
    assert main(["review", "--family", "joint pain", "--out", str(tmp_path / "sheet.csv")]) == 0
    with (tmp_path / "sheet.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["family"] for row in rows} == {"joint pain"}
    assert f"wrote {len(rows)} relations" in capsys.readouterr().out
    assert main(["review", "--family", "joint pain", "--out", str(tmp_path / "sheet.md")]) == 0
    text = (tmp_path / "sheet.md").read_text(encoding="utf-8")
    assert (
        text.count("\n## ") + 1 == len({row["condition"] for row in rows}) and "## Gout (joint pain)" in text
    )
    assert text.count("\n| ") == len(rows) + 2 * len({row["condition"] for row in rows})


def test_review_prints_all_and_refuses_what_it_does_not_know(tmp_path, capsys):
    (tmp_path / "folder.csv").mkdir()
    (tmp_path / "file").write_text("")
    assert main(["review"]) == 0
    assert capsys.readouterr().out == as_csv(sheet(knowledge_base()))
    for arguments, said in (
        (["--family", "fevers"], "--family: got the family 'fevers'; expected one of chest pain, "),
        (["--out", str(tmp_path / "sheet.pdf")], "expected a file that ends in .csv or .md"),
        (
            ["--out", str(tmp_path / "folder.csv")],
            "folder.csv cannot be written (Is a directory); name a file in a folder",
        ),
        (
            ["--out", str(tmp_path / "file" / "sheet.csv")],
            "sheet.csv cannot be written (File exists); name a file",
        ),
    ):
        with pytest.raises(SystemExit):
            main(["review", *arguments])
        assert said in capsys.readouterr().err


def test_show_prints_the_weights_of_a_case(capsys):
    assert main(["show", "clinic-shift", "--index", "2", "--weights"]) == 0
    case = draw_cases("clinic-shift", "validation", 3)[2]
    *_, last = capsys.readouterr().out.strip().splitlines()
    assert [int(value) for value in last.removeprefix("net evidence").split()] == [
        case.net(o) for o in case.options
    ]
    for index in ("-1", "300"):
        with pytest.raises(SystemExit):
            main(["show", "clinic", "--index", index])
        assert (
            f"--index: got {index}; expected 0 to 299, a question of the validation"
            in capsys.readouterr().err
        )


def test_a_cell_stays_one_cell_of_a_markdown_table():
    row = {**sheet(knowledge_base(), "joint pain")[0], "basis": "one | two\nthree"}
    line = as_markdown([row]).splitlines()[-1]
    assert "one \\| two three" in line and len(re.findall(r"(?<!\\)\|", line)) == len(COLUMNS[3:]) + 1
