"""A user's knowledge base: it loads from its folder, and what is wrong in it is refused with file and row.

Run: pytest tests/clinic/test_tables.py
"""

import csv
import shutil

import pytest

from clinical_r1.clinic.__main__ import main
from clinical_r1.clinic.knowledge import FOLDER, knowledge_base, load, refusals
from clinical_r1.clinic.tables import CLASSES, COLUMNS


@pytest.fixture
def folder(tmp_path):
    return shutil.copytree(FOLDER, tmp_path / "kb")


def read(folder, name):
    with (folder / f"{name}.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def write(folder, name, rows):
    with (folder / f"{name}.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS[name], lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def change(folder, name, row=0, **cells):
    """One row with other cells; row None appends."""
    rows = read(folder, name)
    if row is None:
        rows.append({**dict.fromkeys(COLUMNS[name], ""), **cells})
        row = len(rows) - 1
    rows[row] |= cells
    write(folder, name, rows)
    return row + 2  # its line


def test_a_copy_is_the_same_knowledge_base(folder):
    assert load(folder).sha256 == knowledge_base().sha256
    assert load(folder).relations == knowledge_base().relations
    change(folder, "relations", basis="another reason for this")
    assert load(folder).sha256 != knowledge_base().sha256


def test_the_shipped_one_is_not_refused():
    assert refusals(FOLDER) == []


REASON = "a reason in words"


@pytest.mark.parametrize(
    "name, row, cells, said",
    [
        ("relations", 0, {"condition": "Flu"}, "condition 'Flu'; expected a condition of conditions.csv"),
        ("relations", 0, {"finding": "rash"}, "finding 'rash'; expected a finding of findings.csv"),
        ("relations", 0, {"present": "3", "absent": "0"}, "weights 3,0; expected one of 2,-2 (hallmark), 2,0 (specific)"),
        ("relations", 0, {"present": "2", "absent": "x"}, "weights 2,x; expected one of"),
        ("relations", 0, {"present": "1", "absent": "1"}, "weights 1,1; expected one of"),
        ("relations", 0, {"basis": "because"}, "basis 'because'; expected at least 3 words"),
        ("conditions", None, {"condition": "Flu", "family": "fevers"}, "family 'fevers'; expected a family of"),
        ("families", 0, {"beside": "fevers"}, "beside 'fevers'; expected the name of another family"),
        ("families", 0, {"beside": "chest pain"}, "beside 'chest pain'; expected the name of another family"),
        ("families", 0, {"complaint": " "}, "no complaint; expected the complaint its members share"),
        ("findings", 0, {"kind": "smell"}, "kind 'smell'; expected one of symptom, sign, vital, risk, test"),
        ("findings", 0, {"absent": ""}, "absent ''; expected 3 to 100 letters"),
        ("findings", 0, {"absent": "no (x)"}, "absent 'no (x)'; expected 3 to 100 letters"),
        ("findings", 0, {"absent": "HT"}, "absent 'HT'; expected 3 to 100 letters"),
        ("findings", 0, {"absent": "no  rash"}, "absent 'no  rash'; expected 3 to 100 letters"),
        ("findings", 0, {"absent": "rash supports Gout"}, "absent 'rash supports Gout'; expected no 'supports' in it"),
        ("findings", 0, {"absent": "no Gout before"}, "absent 'no Gout before'; expected nothing that holds the name 'Gout'"),
        ("findings", 0, {"absent": "palpitations and rigors"}, "absent 'palpitations and rigors'; expected no two other"),
        ("conditions", None, {"condition": "Flu, mild", "family": "headache"}, "condition 'Flu, mild'; expected 3 to 100"),
        ("conditions", None, {"condition": "Gout flare", "family": "headache"}, "condition 'Gout flare'; expected nothing that"),
        ("conditions", None, {"condition": "gOUT", "family": "headache"}, "'gOUT' beside 'Gout'; expected names that differ in"),
        ("conditions", None, {"condition": "Flu ", "family": "headache"}, "'Flu '; expected no blank before or after a name"),
        ("findings", 0, {"absent": "GOUT"}, "absent 'GOUT' again; expected a wording of its kind (see conditions.csv row"),
        ("findings", 0, {"implies": "rash"}, "implies 'rash'; expected ids of other findings"),
        ("exclusions", None, {"finding": "rash", "state": "present", "other": "fever", "other_state": "present",
                              "reason": REASON}, "finding 'rash'; expected a finding of findings.csv"),
        ("exclusions", None, {"finding": "fever", "state": "yes", "other": "chills", "other_state": "present",
                              "reason": REASON}, "state 'yes'; expected present or absent"),
        ("exclusions", None, {"finding": "fever", "state": "present", "other": "fever", "other_state": "absent",
                              "reason": REASON}, "fever beside itself; expected two findings"),
        ("coexist", None, {"condition": "Gout", "other": "Flu", "reason": REASON}, "condition 'Flu'; expected a condition"),
        ("coexist", None, {"condition": "Gout", "other": "Gout", "reason": REASON}, "Gout with itself; expected two"),
        ("coexist", None, {"condition": "Gout", "other": "Migraine", "reason": ""}, "reason ''; expected at least 3 words"),
    ],
)  # fmt: skip
def test_a_row_is_refused_with_file_and_line(folder, name, row, cells, said):
    line = change(folder, name, row, **cells)
    found = refusals(folder)
    assert f"{name}.csv row {line}: got {said}" in found[0], found
    with pytest.raises(ValueError, match=f"{name}.csv row {line}"):
        load(folder)


@pytest.mark.parametrize("name", COLUMNS)
def test_a_row_given_twice_is_refused(folder, name):
    rows = read(folder, name) or [
        {"finding": "fever", "state": "present", "other": "chills", "other_state": "absent", "reason": REASON}
        if name == "exclusions"
        else {"condition": "Gout", "other": "Migraine", "reason": REASON}
    ]
    write(folder, name, [*rows, rows[0]])
    assert any(
        f.startswith(f"{name}.csv row {len(rows) + 2}: got ") and "again" in f for f in refusals(folder)
    )


@pytest.mark.parametrize("name", ["families", "conditions", "findings", "relations"])
def test_a_table_without_rows_is_refused(folder, name):
    write(folder, name, [])
    assert any(f.startswith(f"{name}.csv row 2: got no row; expected") for f in refusals(folder))
    (folder / f"{name}.csv").write_text("", encoding="utf-8")
    with pytest.raises(ValueError, match=f"{name}.csv row 1: got no header; expected"):
        load(folder)


def test_what_implies_an_excluded_pair_is_refused(folder):
    pair, rows = read(folder, "exclusions")[0], read(folder, "findings")
    row = next(i for i, r in enumerate(rows) if not r["implies"] and r["finding"] not in pair.values())
    change(folder, "findings", row, implies=f"{pair['finding']}|{pair['other']}")
    said = f"exclusions.csv row 2: got {pair['finding']} without {pair['other']}, though {rows[row]['finding']} implies both"
    assert any(f.startswith(said) for f in refusals(folder))


def test_findings_that_imply_each_other_are_refused(folder):
    rows = read(folder, "findings")
    change(folder, "findings", 0, implies=rows[1]["finding"])
    line = change(folder, "findings", 1, implies=rows[0]["finding"])
    assert any(
        f.startswith(f"findings.csv row {line}: got {rows[1]['finding']} and") for f in refusals(folder)
    )


def test_more_supporting_findings_than_can_be_combined_are_refused(folder):
    rows = read(folder, "relations")
    there = {row["finding"] for row in rows if row["condition"] == "Gout"}
    linked = {f for pair in knowledge_base().exclusions for f, _ in pair} | knowledge_base().implies.keys()
    more = [f for f in knowledge_base().findings if f not in there | linked][:40]
    new = [{"condition": "Gout", "finding": f, "present": "1", "absent": "0", "basis": REASON} for f in more]
    write(folder, "relations", rows + new)
    assert "findings that support Gout; expected at most 40" in refusals(folder)[0]


def test_a_family_too_small_is_refused(folder):
    write(folder, "conditions", [row for row in read(folder, "conditions") if row["condition"] != "Gout"])
    write(folder, "relations", [row for row in read(folder, "relations") if row["condition"] != "Gout"])
    write(folder, "coexist", [row for row in read(folder, "coexist") if "Gout" not in row.values()])
    assert "got 4 conditions in 'joint pain'; expected at least 5" in refusals(folder)[0]


def test_what_implies_its_contrary_is_refused(folder):
    """A finding for a condition that implies one against it; the other way round is allowed."""
    rows = read(folder, "relations")
    mine = [i for i, row in enumerate(rows) if row["condition"] == "Gout"]
    good = next(i for i in mine if int(rows[i]["present"]) > 0)
    bad = next(i for i in mine if int(rows[i]["present"]) < 0)
    findings = {row["finding"]: i for i, row in enumerate(read(folder, "findings"))}
    change(folder, "findings", findings[rows[bad]["finding"]], implies=rows[good]["finding"])
    assert not [f for f in refusals(folder) if " for Gout while " in f]
    change(folder, "findings", findings[rows[bad]["finding"]], implies="")
    change(folder, "findings", findings[rows[good]["finding"]], implies=rows[bad]["finding"])
    found = next(f for f in refusals(folder) if f" for Gout while {rows[bad]['finding']}" in f)
    assert found.startswith(f"relations.csv row {good + 2}: got {rows[good]['finding']}")


def test_an_exclusion_of_what_is_implied_is_refused(folder):
    change(folder, "findings", 0, implies=read(folder, "findings")[1]["finding"])
    first, second = (row["finding"] for row in read(folder, "findings")[:2])
    pair = {"finding": second, "state": "present", "other": first, "other_state": "present", "reason": REASON}
    line = change(folder, "exclusions", None, **pair)
    assert f"exclusions.csv row {line}: got {first} without {second}" in refusals(folder)[0]


def test_a_condition_that_nothing_at_the_bedside_rejects_is_refused(folder):
    rows = read(folder, "relations")
    rows = [
        row | {"absent": "0"} if row["condition"] == "Gout" and row["absent"] == "-2" else row for row in rows
    ]
    write(folder, "relations", rows)
    assert any(
        "got no hallmark or sensitive finding of Gout that is no test; expected one" in f
        for f in refusals(folder)
    )


def test_exclusions_that_leave_a_condition_too_few_findings_are_refused(folder):
    kb = knowledge_base()
    found = [f for f in kb.supports("Gout")]
    pairs = [
        {"finding": a, "state": "present", "other": b, "other_state": "present", "reason": REASON}
        for i, a in enumerate(found)
        for b in found[:i]
        if (b, True) not in kb.clashes[a, True]
    ]
    write(folder, "exclusions", [*read(folder, "exclusions"), *pairs])
    assert any("got 0 combinations of two or three findings for Gout" in f for f in refusals(folder))


def test_files_and_columns_that_are_missing_are_named(folder):
    text = (folder / "coexist.csv").read_text()
    (folder / "coexist.csv").unlink()
    with pytest.raises(
        ValueError, match="coexist.csv is missing: a knowledge base has the files families.csv, "
    ):
        load(folder)
    (folder / "coexist.csv").write_text(text.replace("reason", "why"))
    with pytest.raises(
        ValueError, match="row 1: got the columns condition,other,why; expected condition,other,reason"
    ):
        load(folder)
    (folder / "coexist.csv").write_text("condition,other,reason\nGout,Migraine\n")
    with pytest.raises(ValueError, match="row 2: got 2 cells; expected 3"):
        load(folder)
    (folder / "coexist.csv").write_text("condition,other,reason\nGout,Migraine,one, two\n")
    with pytest.raises(ValueError, match="row 2: got 4 cells; expected 3. Put text with commas in quotes"):
        load(folder)


def test_what_a_spreadsheet_saves_is_read_and_other_encodings_are_refused(folder):
    path = folder / "relations.csv"
    text = path.read_text(encoding="utf-8")
    path.write_bytes(text.replace("\n", "\r\n").encode("utf-8-sig"))
    assert load(folder).relations == knowledge_base().relations
    path.write_bytes(text.encode("utf-16"))
    with pytest.raises(
        ValueError, match=r"relations.csv: got no CSV in UTF-8 \(.*save the table as 'CSV UTF-8'"
    ):
        load(folder)


def test_every_class_has_a_name_and_no_absence_supports():
    assert all(absent <= 0 <= 2 and abs(present) <= 2 for present, absent in CLASSES)


def test_check_prints_what_is_refused_and_how_sets_come_out(folder, capsys):
    change(folder, "relations", 0, finding="rash")
    change(folder, "findings", 0, kind="smell")
    assert main(["check", str(folder)]) == 1
    out = capsys.readouterr().out
    assert out.count("FAULT") == 2 and "relations.csv row 2" in out and "findings.csv row 2" in out
    with pytest.raises(SystemExit):
        main(["check", str(folder / "nowhere")])
    assert "families.csv is missing" in capsys.readouterr().err
