"""A graph of one's own: the clinic's as triples gives the exact verdicts; the linker's precision; every bad row by its line.

python -m pytest tests/preferences/test_graph.py
"""

import csv

import numpy as np
import pytest

from clinical_r1.clinic.cases import LEVELS, load_set, phrase
from clinical_r1.clinic.traces import BASE, write_trace
from clinical_r1.files import PACKAGE
from clinical_r1.preferences.conversation import DOCTORS, case_of, chat_questions, chat_traces, write_chat
from clinical_r1.preferences.graph import COLUMNS, clinic_triples, measure_linker, read_graph
from clinical_r1.preferences.linker import Said, words_of
from clinical_r1.preferences.pairs import Asked, Candidate, ClinicGraph, build_pairs
from clinical_r1.preferences.verdicts import weigh
from clinical_r1.questions import Question

SENTENCES = PACKAGE / "data" / "preferences"
TABLE = """subject,relation,object,sign,source
fever,supports,Pneumonia,1,ours
no fever,argues against,Pneumonia,-1,ours
elevated CRP,supports,Pneumonia,+,ours
elevated CRP,supports,Gout,1,ours
tophus,rules in,Gout,2,ours
clear lungs,argues against,Pneumonia,-,ours
polyuria,neutral to,Gout,0,ours
cough,supports,Asthma,1,ours
Gout,occurs with,Asthma,,ours
raised temperature,synonym of,fever,,ours
Lungenentzündung,synonym of,Pneumonia,,ours
"""


@pytest.fixture(scope="module")
def clinic(tmp_path_factory):
    path = tmp_path_factory.mktemp("graph") / "clinic.csv"
    with open(path, "w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(clinic_triples())
    return path


def small(tmp_path, table=TABLE, **options):
    path = tmp_path / "mine.csv"
    path.write_text(table, encoding="utf-8")
    return read_graph(path, **options)


def asked(stem, *options):
    return Question("q", "mine", "test", stem, dict(zip("ABCD", options, strict=False)), "A", {})


# ------------------------------------------------------------------------------------------------- the clinic as triples


@pytest.mark.parametrize("know_patient", [True, False])
@pytest.mark.parametrize("benchmark", LEVELS)
def test_the_clinics_own_graph_as_a_table_gives_the_exact_verdicts(clinic, benchmark, know_patient):
    """On answers of all habits, wrong and malformed ones among them, in both wordings and with ten options."""
    graph, rng = read_graph(clinic, know_patient), np.random.default_rng(0)
    claims = 0
    for question in load_set(benchmark, "validation", 40):
        case = case_of(question)
        for text in (write_chat(case, DOCTORS["sloppy"], rng), write_trace(case, "crpo", BASE, rng)):
            exact = {
                (phrase(path.finding, path.present), path.direction, path.condition): path.verdict
                for path in weigh(text, case, know_patient).paths
            }
            found = {
                (path.finding, path.direction, path.condition): path.verdict
                for path in graph.weigh(question, text).paths
            }
            assert found == exact, text
            claims += len(exact)
    assert claims > 200


def test_such_a_table_makes_the_same_pairs(clinic):
    rows = [
        Asked(
            q,
            tuple(
                Candidate(t, 18, "stop")
                for s in range(4)
                for _, _, t in chat_traces([q], DOCTORS["sloppy"], s)
            ),
        )
        for q in chat_questions("pairs", 15)
    ]
    exact, found = build_pairs(rows, ClinicGraph()), build_pairs(rows, read_graph(clinic))
    assert [(p.id, p.chosen, p.rejected) for p in found.rows] == [
        (p.id, p.chosen, p.rejected) for p in exact.rows
    ]
    assert found.dropped == exact.dropped and len(found.rows) > 5
    assert found.made_with["judge"]["graph"] == read_graph(clinic).sha256


def test_the_linker_is_right_on_sentences_that_were_labelled_before_it_read_them(clinic):
    """Both files are by the author of the linker; nothing was changed for the sentences of this one."""
    found = measure_linker(read_graph(clinic), SENTENCES / "linker_test.jsonl")
    assert found["sentences"] == 60 and found["labelled"] == 79
    assert found["precision_low"] >= 0.94 and found["recall"] >= 0.8
    assert found["precision_low"] < found["precision"] == found["right"] / found["read"]


def test_the_sentences_that_the_linker_was_written_with(clinic):
    assert measure_linker(read_graph(clinic), SENTENCES / "linker_development.jsonl")["precision"] == 1


@pytest.mark.parametrize(
    "row", ['{"text": "x"}', '{"text": "x", "claims": [["fever", 1, "Gout"]]}', '{"claims": []}']
)
def test_a_labelled_sentence_that_is_none_is_named_by_its_line(clinic, tmp_path, row):
    path = tmp_path / "labels.jsonl"
    path.write_text('{"text": "Gout.", "claims": []}\n' + row, encoding="utf-8")
    with pytest.raises(ValueError, match="line 2 has"):
        measure_linker(read_graph(clinic), path)


def test_nothing_read_has_no_precision(clinic, tmp_path):
    path = tmp_path / "labels.jsonl"
    path.write_text('{"text": "Gout.", "claims": []}', encoding="utf-8")
    found = measure_linker(read_graph(clinic), path)
    assert np.isnan(found["precision"]) and np.isnan(found["recall"]) and found["read"] == 0


# ------------------------------------------------------------------------------------------------- a small table by hand


def test_one_answer_by_hand(tmp_path):
    graph = small(tmp_path)
    question = asked("Raised temperature and clear lungs.", "Lungenentzündung", "Gout", "Asthma")
    text = "Fever supports pneumonia. Clear lungs support pneumonia. A tophus supports gout. Fever suggests gout."
    assert [
        (p.finding, p.condition, p.weight, p.patient_has, p.verdict)
        for p in graph.weigh(question, text).paths
    ] == [
        ("fever", "Pneumonia", 1, True, "true"),
        ("clear lungs", "Pneumonia", -1, True, "inverted"),
        ("tophus", "Gout", 2, False, "invented"),
        ("fever", "Gout", 0, True, "not judgeable"),
    ]
    verdicts = [path.verdict for path in small(tmp_path, know_patient=False).weigh(question, text).paths]
    assert verdicts == ["true", "inverted", "true", "not judgeable"]
    assert graph(question, "Polyuria.") is None and graph(question, "") is None


def test_what_rules_in_one_option_argues_against_the_others_where_they_are_on_offer(tmp_path):
    graph = small(tmp_path)
    assert graph.weight("tophus", "Pneumonia", ["Gout", "Pneumonia"]) == -2
    assert graph.weight("tophus", "Pneumonia", ["Asthma", "Pneumonia"]) == 0
    assert graph.weight("tophus", "Asthma", ["Gout", "Asthma"]) == 0  # the two occur together
    assert graph.weight("elevated CRP", "Asthma", ["Gout", "Asthma"]) == 0


CLAIMS = {
    "Fever and elevated CRP support pneumonia.": [("fever", 1), ("elevated CRP", 1)],
    "Fever, cough, and elevated CRP point to pneumonia.": [("fever", 1), ("cough", 1), ("elevated CRP", 1)],
    "Pneumonia is unlikely given clear lungs.": [("clear lungs", -1)],
    "No fever argues against pneumonia.": [("no fever", -1)],
    "Without fever or cough, pneumonia is out.": [],
    "The absence of fever argues against pneumonia.": [("no fever", -1)],
    "FEVER strongly supports pneumonia": [("fever", 1)],
    "Fever does not support pneumonia.": [],
    "If fever supports pneumonia, we treat.": [],
    "Fever would support pneumonia.": [],
    "Fever would support gout, but clear lungs argue against pneumonia.": [("clear lungs", -1)],
    "Does fever support pneumonia?": [],
    "Fever is seen, and clear lungs argue against pneumonia.": [("clear lungs", -1)],
    "Fever supports pneumonia, which is treated at home.": [("fever", 1)],
    "Neither fever nor cough supports pneumonia.": [],
    "The elevated C.R.P. supports pneumonia.": [],
    "Pneumonia supports fever.": [],
}


@pytest.mark.parametrize("text", CLAIMS)
def test_what_is_read_as_a_claim_and_what_is_not(tmp_path, text):
    found = [(said.finding, said.direction) for said in small(tmp_path).claims(text) if said.present]
    assert found == CLAIMS[text]


def test_a_list_of_conditions_and_a_second_verb(tmp_path):
    found = small(tmp_path).claims("Elevated CRP supports pneumonia and gout but argues against asthma.")
    crp = ("elevated CRP", True)
    assert found == (Said(*crp, 1, "Pneumonia"), Said(*crp, 1, "Gout"), Said(*crp, -1, "Asthma"))


def test_a_denied_finding_without_a_name_of_its_own_is_never_a_reason(tmp_path):
    graph = small(tmp_path)
    (path,) = graph.weigh(asked("No cough.", "Asthma", "Gout"), "No cough supports asthma.").paths
    assert (path.finding, path.present, path.patient_has, path.verdict) == (
        "cough",
        False,
        True,
        "not judgeable",
    )
    (path,) = graph.weigh(asked("Cough.", "Asthma", "Gout"), "No cough supports asthma.").paths
    assert path.verdict == "invented"


def test_names_are_found_whatever_their_case_accents_and_hyphens(tmp_path):
    graph = small(tmp_path)
    assert words_of("Non-Bloody  Diarrhea") == words_of("non bloody diarrhea")
    assert graph.knows("LUNGENENTZUNDUNG") and graph.knows("pneumonia") and not graph.knows("Fever")
    assert not graph.knows("Sinusitis") and not graph.knows("…")


def test_questions_with_an_option_that_the_graph_does_not_know_are_left_out(tmp_path):
    row = Asked(
        asked("Fever.", "Pneumonia", "Sinusitis"), (Candidate("a", 1, "stop"), Candidate("b", 1, "stop"))
    )
    assert build_pairs([row], small(tmp_path)).dropped == {"unknown condition": 1}


def test_long_text_takes_time_in_proportion(tmp_path):
    text = "fever and cough supports " * 20_000
    assert small(tmp_path).claims(text) == ()
    assert len(small(tmp_path).claims("fever supports pneumonia. " * 5_000)) == 1


# ------------------------------------------------------------------------------------------------- bad tables

BAD = {
    "": "0 rows with columns",
    "subject,relation,object\nfever,supports,Gout\n": "1 rows with columns",
    "subject,relation,object,sign\n": "0 rows with columns",
    TABLE + "pus,supports,,1,x\n": "line 13: got the subject 'pus' and the object ''",
    TABLE + "…,supports,Gout,1,x\n": "line 13: got the subject '…'",
    TABLE + "pus,supports,Gout,3,x\n": "line 13: got the sign '3'; expected a whole number from -2 to 2",
    TABLE + "pus,supports,Gout,,x\n": "line 13: got the sign ''",
    TABLE + "pus,supports,Gout,1.0,x\n": "line 13: got the sign '1.0'",
    TABLE + "pus,supports,Gout\n": "line 13: the row is not as long as the header",
    TABLE + "pus,supports,Gout,1,x,y\n": "line 13: the row is not as long as the header",
    TABLE + "pyrexia,synonym of,fever,1,x\n": "line 13: got the sign '1' for 'synonym of'; expected none",
    TABLE + "chill,synonym of,rigor,,x\n": "line 13: 'rigor' stands in no other row",
    TABLE
    + "raised temperature,synonym of,cough,,x\n": "line 13: 'raised temperature' already stands for 'fever'",
    TABLE
    + "FEVER,supports,pneumonia,-1,x\n": "line 13: 'fever' has the sign -1 for 'Pneumonia', and 1 on line 2",
    TABLE
    + "supports,supports,Gout,1,x\n": "line 13: got 'supports' and 'Gout', one of which is a word that joins",
    TABLE + "Gout,occurs with,Scurvy,,x\n": "line 13: 'Gout' and 'Scurvy' are not both conditions",
    TABLE + "pus,supports,Gout,9,x\npus,supports,Gout,8,x\n": "line 13: .* \\(1 more rows like this\\)",
    TABLE + 'pus,supports,"Gout,1,x\n': "is no CSV",
}


@pytest.mark.parametrize("table", BAD)
def test_a_bad_row_is_named_with_its_line(tmp_path, table):
    with pytest.raises(ValueError, match=BAD[table]):
        small(tmp_path, table)


def test_a_file_that_is_no_text_says_what_it_is(tmp_path):
    (tmp_path / "graph.csv").write_bytes(b"PAR1" + bytes(20))
    with pytest.raises(ValueError, match="is a Parquet table"):
        read_graph(tmp_path / "graph.csv")
