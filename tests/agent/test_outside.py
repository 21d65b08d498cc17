"""Patients of AgentClinic and mediQ: what their files' traps become, what a request finds, and how far each player gets.

Run: pytest tests/agent/test_outside.py   (the last part reads the files that CLINICAL_R1_DATA names)
"""

import json
from dataclasses import replace

import numpy as np
import pytest

from clinical_r1.agent import outside, outside_patients
from clinical_r1.agent.outside import FactConsultation, FactRules, Request, coverage_rows, play
from clinical_r1.agent.outside_patients import (
    FactPatient,
    gold_names,
    kind_of,
    matching_facts,
    own_topic,
    read_agentclinic,
    read_answer,
    read_mediq,
)

CASE = {
    "OSCE_Examination": {
        "Objective_for_Doctor": "Evaluate a patient with double vision.",
        "Patient_Actor": {
            "Demographics": "35-year-old female",
            "History": "Worse after exercise, better after a rest.",
            "Symptoms": {
                "Primary_Symptom": "Double vision",
                "Secondary_Symptoms": ["Weakness in both arms", "Night sweats"],
            },
            "Past_Medical_History": "No significant past medical history.",
            "Social_History": "Not provided",
        },
        "Physical_Examination_Findings": {
            "Vital_Signs": {"Temperature": "36.6°C", "Heart_Rate": "72 bpm", "Blood_Pressure": "N/A"},
            "Neck": {"Within_Normal_Limits": True},
        },
        "Test_Results": {
            "Blood_Tests": {"Acetylcholine_Receptor_Antibodies": "Present, typical of myasthenia gravis"},
            "Imaging": {"Chest_CT": {"Findings": "No thymoma."}, "MRI": "Pending"},
        },
        "Correct_Diagnosis": "Myasthenia gravis (MG)",
    }
}
ROW = {
    "id": 7,
    "question": 'Which of the following is the most likely diagnosis?"',
    "options": {"A": "Cyclic vomiting syndrome", "B": "Gastroenteritis", "C": "Reflux", "D": "Stenosis"},
    "answer": "Gastroenteritis ",
    "answer_idx": "B",
    "facts": [
        "1. A 5-year-old girl is brought by her mother.",
        "2. She denied having a fever.",
        "3. She denied having chills.",
        "- Physical Examination:",
        "- BP: 87/49 mm Hg",
        "6. Laboratory tests show a leukocyte count of 12,000/mm3.",
    ],
}


def write(path, *rows):
    lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def changed(row, **fields):
    return {**row, **fields}


@pytest.fixture
def clinic_patient(tmp_path) -> FactPatient:
    return read_agentclinic(write(tmp_path / "cases.jsonl", CASE)).patients[0]


@pytest.fixture
def mediq_patient(tmp_path) -> FactPatient:
    return read_mediq(write(tmp_path / "all_dev.jsonl", ROW)).patients[0]


# --- readers


def test_nested_examinations_become_facts_with_their_path_as_topic(clinic_patient):
    assert clinic_patient.complaint == "35-year-old female. Double vision."
    assert (clinic_patient.options, clinic_patient.gold) == ((), "Myasthenia gravis (MG)")
    assert [(fact["kind"], fact["topic"]) for fact in clinic_patient.facts] == [
        ("ask", "History of present illness"),
        ("ask", "weakness both arms"),
        ("ask", "night sweats"),
        ("ask", "Past Medical History"),
        ("examine", "Vital Signs, Temperature"),
        ("examine", "Vital Signs, Heart Rate"),
        ("examine", "Neck, Within Normal Limits"),
        ("test", "Blood Tests, Acetylcholine Receptor Antibodies"),
        ("test", "Imaging, Chest CT"),
    ]
    texts = [fact["text"] for fact in clinic_patient.facts]
    assert "Within Normal Limits: yes" in texts and "Chest CT: No thymoma." in texts


def test_what_the_patient_says_first_and_the_doctors_objective_are_no_facts(clinic_patient):
    told = " ".join(fact["topic"] + fact["text"] for fact in clinic_patient.facts).casefold()
    assert "double vision" not in told and "35-year-old" not in told and "evaluate" not in told


def test_values_that_say_nothing_are_left_out_and_counted(tmp_path):
    reading = read_agentclinic(write(tmp_path / "cases.jsonl", CASE))
    assert reading.left_out == {
        "ask: says nothing": 1,
        "examine: says nothing": 1,
        "test: says nothing": 1,
    }


def test_a_fact_that_names_the_diagnosis_is_found_by_alias_too(clinic_patient, mediq_patient):
    assert [clinic_patient.facts[place]["kind"] for place in clinic_patient.naming_gold()] == ["test"]
    assert mediq_patient.naming_gold() == []


def test_mediq_facts_lose_their_numbers_and_dashes_and_the_first_is_the_complaint(mediq_patient):
    assert mediq_patient.complaint == "A 5-year-old girl is brought by her mother."
    assert [fact["text"] for fact in mediq_patient.facts] == [
        "She denied having a fever.",
        "She denied having chills.",
        "BP: 87/49 mm Hg",
        "Laboratory tests show a leukocyte count of 12,000/mm3.",
    ]
    assert mediq_patient.gold == "Gastroenteritis" and not mediq_patient.question.endswith('"')
    assert mediq_patient.id == "mediq-all_dev-7"


def test_a_number_that_belongs_to_a_fact_stays(tmp_path):
    facts = ["Man, 40 years old.", "0.9% saline was infused.", "-0.5 is the base excess."]
    patient = read_mediq(write(tmp_path / "a.jsonl", changed(ROW, facts=facts))).patients[0]
    assert [fact["text"] for fact in patient.facts] == facts[1:]


REFUSED = [
    ("no facts", {"facts": []}),
    ("no facts", {"facts": None}),
    ("no facts", {"facts": ["1. One.", 2]}),
    ("one fact only: nothing to ask for", {"facts": ["1. A 5-year-old girl."]}),
    ("options are not A, B, … in order", {"options": ["Reflux", "Stenosis"]}),
    ("options are not A, B, … in order", {"options": {"A": "Reflux", "C": "Stenosis"}}),
    ("two options read the same", {"options": {"A": "gastroenteritis.", "B": "Gastroenteritis"}}),
    ("the answer is not the option of its letter", {"answer_idx": "A"}),
    ("the answer is not the option of its letter", {"answer_idx": None}),
    ("no question", {"question": " "}),
]


@pytest.mark.parametrize(("reason", "fields"), REFUSED)
def test_a_mediq_row_that_is_no_patient_is_refused_by_name_and_reason(tmp_path, reason, fields):
    reading = read_mediq(write(tmp_path / "a.jsonl", ROW, changed(ROW, id=8, **fields)))
    assert [patient.id for patient in reading.patients] == ["mediq-a-7"]
    assert reading.refused == [{"row": 2, "id": "mediq-a-8", "reason": reason}]


@pytest.mark.parametrize(
    ("reason", "field", "value"),
    [
        ("no Correct_Diagnosis in words", "Correct_Diagnosis", None),
        ("no primary symptom", "Patient_Actor", {"Demographics": "35-year-old female", "History": "Pain."}),
    ],
)
def test_an_agentclinic_case_that_is_no_patient_is_refused_by_name_and_reason(tmp_path, reason, field, value):
    broken = {"OSCE_Examination": {**CASE["OSCE_Examination"], field: value}}
    reading = read_agentclinic(write(tmp_path / "a.jsonl", broken, {"question": "?"}, CASE, "{", "[1]", CASE))
    assert [patient.id for patient in reading.patients] == ["agentclinic-0003"]
    assert [(row["row"], row["reason"]) for row in reading.refused] == [
        (1, reason),
        (2, "no OSCE_Examination"),
        (4, "not JSON"),
        (5, "not an object"),
        (6, "an id or a case that was read before"),
    ]
    assert sum(reading.reasons().values()) == 5


def test_a_file_without_a_patient_is_an_error_that_counts_why(tmp_path):
    with pytest.raises(ValueError, match=r"gave no patient \(\{'no facts': 1\}\)"):
        read_mediq(write(tmp_path / "a.jsonl", changed(ROW, facts=[])))


# --- the matcher


def patient_of(*facts, source="mediq", options=("Yes", "No")) -> FactPatient:
    records = tuple(
        fact if isinstance(fact, dict) else {"kind": kind_of(fact), "topic": own_topic(fact), "text": fact}
        for fact in facts
    )
    return FactPatient("p-0", source, "A man.", "Well?", options, "Yes", records)


DENIED = ("He denied having a fever.", "He denied chills.", "He denied night sweats.", "His mother is well.")


@pytest.mark.parametrize(
    ("request_text", "places"),
    [
        ("fever", [0]),
        ("Do you have any fever, chills or night sweats?", [0, 1, 2]),
        ("night pain", []),  # one word of two is below SAID
        ("temperature", []),
        ("Any other tests?", []),  # nothing but stop words
        ("FEVER!", [0]),
    ],
)
def test_a_request_finds_the_facts_that_it_names(request_text, places):
    assert matching_facts(patient_of(*DENIED).facts, request_text) == places


def test_a_group_gives_all_of_it_and_a_member_only_itself(clinic_patient):
    def topics(request):
        return [
            clinic_patient.facts[place]["topic"] for place in matching_facts(clinic_patient.facts, request)
        ]

    assert topics("vital signs") == ["Vital Signs, Temperature", "Vital Signs, Heart Rate"]
    assert topics("What is the pulse?") == ["Vital Signs, Heart Rate"]
    assert topics("other symptoms") == ["weakness both arms", "night sweats"]
    assert topics("family history") == []


def test_the_threshold_is_a_share_of_the_requests_words():
    fact = {"kind": "ask", "topic": "alpha beta gamma delta", "text": "alpha beta gamma delta"}
    patient = patient_of(fact)
    assert outside_patients.SAID == 0.6
    assert matching_facts(patient.facts, "alpha beta gamma omega sigma") == [0]  # 3 of 5
    assert matching_facts(patient.facts, "alpha gamma omega sigma") == []  # 2 of 4
    assert matching_facts(patient.facts, "alpha beta gamma delta omega sigma tau kappa") == [
        0
    ]  # the whole topic


def test_a_count_is_found_by_what_is_counted():
    patient = patient_of("Platelet count 250,000/mm3.", "WBC count 9,800/mm3.")
    assert matching_facts(patient.facts, "leukocyte count") == [1]
    assert matching_facts(patient.facts, "complete blood count: platelets") == [0]


def test_a_normal_examination_stays_a_fact(tmp_path):
    facts = ["A man.", "Physical examination is within normal limits.", "Laboratory tests are performed."]
    reading = read_mediq(write(tmp_path / "a.jsonl", changed(ROW, facts=facts)))
    assert [fact["text"] for fact in reading.patients[0].facts] == facts[1:2]
    assert reading.left_out == {"no content words": 1}


def test_look_alike_letters_match_their_latin_ones():
    assert matching_facts(patient_of("He has раіn in the chest.").facts, "chest pain") == [0]  # noqa: RUF001


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("Her temperature is 37°C.", "examine"),
        ("Abdominal examination shows a mass; culture was sent.", "examine"),
        ("Serum creatinine is 2 mg/dL.", "test"),
        ("She has smoked for years.", "ask"),
    ],
)
def test_kinds_of_mediq_facts_are_read_from_their_words(text, kind):
    assert kind_of(text) == kind


# --- answers


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("Gastroenteritis", "Gastroenteritis"),
        ("gastroenteritis.", "Gastroenteritis"),
        ("B", "Gastroenteritis"),
        ("(b)", "Gastroenteritis"),
        ("B. Gastroenteritis", "Gastroenteritis"),
        ("A. Gastroenteritis", None),  # letter and text disagree
        ("Gastroenteritis or reflux", None),
        ("E", None),
        ("", None),
        (None, None),
    ],
)
def test_an_answer_is_one_option_or_unparsed(mediq_patient, text, answer):
    assert read_answer(mediq_patient, text) == answer


@pytest.mark.parametrize("text", ["Myasthenia gravis (MG)", "myasthenia  gravis.", "MG"])
def test_an_open_diagnosis_is_right_by_its_text_or_the_alias_that_it_states(clinic_patient, text):
    consultation = FactConsultation(clinic_patient)
    assert consultation.step("diagnose", text).reward == 1.0 and consultation.correct


@pytest.mark.parametrize("text", ["gravis", "Myasthenia gravis or stroke", "", "  "])
def test_every_other_text_and_no_text_is_wrong(clinic_patient, text):
    consultation = FactConsultation(clinic_patient)
    seen = consultation.step("diagnose", text)
    assert (seen.reward, seen.done, consultation.correct) == (0.0, True, False)
    assert (seen.problem is None) == bool(text.strip())


def test_names_that_differ_by_a_sign_stay_different():
    assert gold_names("Increasing α").isdisjoint(gold_names("Increasing β"))
    assert gold_names("-0.45").isdisjoint(gold_names("0.45"))


# --- the consultation


def test_facts_are_told_once_asked_and_costs_are_taken(clinic_patient):
    consultation = FactConsultation(clinic_patient, FactRules(9, {"test": 0.25, "invalid": 0.5}))
    seen = consultation.step("examine", "vital signs")
    assert seen.text == "Temperature: 36.6°C Heart Rate: 72 bpm 8 turns left" and seen.reward == 0.0
    assert consultation.step("test", "chest CT").reward == -0.25
    assert consultation.step("test", "potassium").text == "No record of that. 7 turns left".replace("7", "6")
    assert consultation.step("test", "bone scan").problem is None  # unanswered is not invalid
    assert consultation.told == {4, 5, 8} and not consultation.problems


@pytest.mark.parametrize(
    ("kind", "text", "problem"),
    [
        ("sing", "temperature", outside.NOT_AN_ACTION),
        ("ask", "any other?", outside.SAYS_NOTHING),
        ("examine", "The vital signs!", outside.ASKED_BEFORE),
        ("ask", "temperature", outside.ANOTHER_WAY),
    ],
)
def test_an_invalid_turn_tells_nothing_costs_its_turn_and_is_counted(clinic_patient, kind, text, problem):
    consultation = FactConsultation(clinic_patient, FactRules(9, {"invalid": 0.5}))
    consultation.step("examine", "vital signs")
    told = set(consultation.told)
    seen = consultation.step(kind, text)
    assert (seen.problem, seen.reward, seen.done) == (problem, -0.5, False)
    assert consultation.problems == {problem: 1} and consultation.told == told
    assert consultation.turns_left == 7 and "36.6" not in seen.text


def test_mediq_answers_whatever_the_kind_since_its_kinds_are_a_guess(mediq_patient):
    consultation = FactConsultation(mediq_patient)
    assert consultation.step("ask", "blood pressure").text.startswith("BP: 87/49 mm Hg")
    assert not consultation.problems


def test_the_horizon_ends_a_consultation_without_a_diagnosis(clinic_patient):
    consultation = FactConsultation(clinic_patient, FactRules(1))
    seen = consultation.step("ask", "medical history")
    assert (seen.done, seen.problem, consultation.correct) == (True, outside.OUT_OF_TURNS, False)
    with pytest.raises(ValueError, match="is over"):
        consultation.step("ask", "fever")


@pytest.mark.parametrize(
    "values", [{"horizon": 0}, {"costs": {"sing": 1.0}}, {"costs": {"ask": -1.0}}, {"costs": {"ask": np.nan}}]
)
def test_rules_that_make_no_sense_are_refused(values):
    with pytest.raises(ValueError, match="expected"):
        FactRules(**values)


# --- players


def test_the_scripted_player_uncovers_every_fact_and_the_horizon_bounds_it(clinic_patient):
    whole = play(clinic_patient, outside.scripted, FactRules(20))
    assert whole["told"] == list(range(9)) and not whole["problems"]
    assert whole["answer"] is None and whole["correct"] is False
    assert [turn["aim"] for turn in play(clinic_patient, outside.scripted, FactRules(4))["turns"]] == [
        0,
        1,
        2,
        3,
    ]


def test_random_requests_are_other_patients_topics_and_repeat_with_the_seed(mediq_patient):
    other = FactPatient("p-1", "mediq", "A man.", "Well?", ("Yes", "No"), "Yes", patient_of(*DENIED).facts)
    player = outside.random_requests([mediq_patient, other])
    first, again = play(mediq_patient, player, seed=3), play(mediq_patient, player, seed=3)
    assert first == again
    assert sorted(turn["request"] for turn in first["turns"]) == sorted(fact["topic"] for fact in other.facts)
    twins = outside.random_requests([mediq_patient, other, replace(other, id="p-2")])
    assert len(play(mediq_patient, twins)["turns"]) == len(other.facts)  # no topic twice
    orders = {tuple(t["request"] for t in play(mediq_patient, player, seed=s)["turns"]) for s in range(8)}
    assert len(orders) > 1


def test_one_word_off_keeps_all_other_words(clinic_patient):
    player = outside.one_word_off([patient_of("unicorn zebra")])
    for turn in play(clinic_patient, player)["turns"]:
        topic = outside_patients.content_words(clinic_patient.facts[turn["aim"]]["topic"])
        kept = set(topic) & set(turn["request"].split())
        assert len(kept) == max(len(topic) - 1, 1) and {"unicorn", "zebra"} & set(turn["request"].split())


def test_a_model_plays_by_its_last_line_that_is_an_action(mediq_patient):
    replies = iter(["I wonder.\nask: fever\n", "no idea", "Test: x\n**diagnose:** B"])
    seen = []

    def complete(talk):
        seen.append(talk)
        return next(replies)

    transcript = play(mediq_patient, outside.written(complete))
    assert [turn["problem"] for turn in transcript["turns"]] == [None, outside.NOT_AN_ACTION, None]
    assert transcript["correct"] and transcript["problems"] == {outside.NOT_AN_ACTION: 1}
    assert "She denied having a fever." in seen[1] and "Gastroenteritis" in seen[0]


# --- the table


def test_measures_are_ratios_of_what_the_transcripts_hold():
    """Two patients; one player that asks for A with an aim, then for what nobody knows, then A again."""
    fact = {"kind": "ask", "topic": "alpha", "text": "alpha"}
    twin = {"kind": "ask", "topic": "alpha omega", "text": "alpha omega"}
    patients = [patient_of(fact), patient_of(fact, twin)]

    def player(consultation, rng):
        yield from (Request("ask", "alpha", 0), Request("ask", "sigma"), Request("ask", "alpha", 0))

    rows = {row["measure"]: row for row in coverage_rows(patients, player, horizon=10, seed=0)}
    assert {name: (row["value"], row["n"]) for name, row in rows.items()} == {
        "covered": (1.0, 2),
        "answered": (2 / 6, 6),
        "facts an answer": (1.5, 2),
        "asked-for": (1.0, 2),
        "asked-for alone": (0.5, 2),
        "same topic": (1.0, 2),
        "invalid": (2 / 6, 6),
    }
    assert all(row["low"] <= row["value"] <= row["high"] for row in rows.values())


def test_a_measure_without_a_count_is_none_not_zero(mediq_patient):
    rows = {row["measure"]: row for row in coverage_rows([mediq_patient] * 2, outside.checklist, 20, 0)}
    assert rows["asked-for"]["value"] is None and rows["asked-for"]["n"] == 0


def test_the_table_names_what_the_folder_lacks(tmp_path):
    with pytest.raises(FileNotFoundError, match="agentclinic/agentclinic_medqa.jsonl"):
        outside.outside_table(tmp_path)


# --- the real files


@pytest.fixture(scope="module")
def readings(data_dir):
    try:
        found = outside.read_outside(data_dir)
    except FileNotFoundError as error:
        pytest.skip(str(error))
    if found.keys() != outside.FILES.keys():
        pytest.skip(f"only {', '.join(found)} of the files of outside patients are there")
    return found


def test_the_real_files_give_these_patients_and_refuse_these_rows(readings):
    assert {name: (len(r.patients), dict(r.reasons())) for name, r in readings.items()} == {
        "agentclinic": (107, {}),
        "mediq": (1269, {"no facts": 3}),
        "mediq-craft": (138, {"the answer is not the option of its letter": 2}),
    }
    assert [row["id"] for row in readings["mediq"].refused] == [
        f"mediq-all_dev_good-{i}" for i in (224, 298, 779)
    ]


def test_agentclinic_offers_no_options_and_its_patients_never_say_the_diagnosis(readings):
    patients = readings["agentclinic"].patients
    assert not any(patient.options for patient in patients)
    kinds = {patient.facts[place]["kind"] for patient in patients for place in patient.naming_gold()}
    assert kinds == {"examine", "test"}
    assert sum(bool(patient.naming_gold()) for patient in patients) == 17


def test_real_patients_answer_a_script_more_than_a_checklist_and_that_more_than_chance(readings):
    for name, reading in readings.items():
        patients = reading.patients[:60]
        players = (outside.scripted, outside.checklist, outside.random_requests(reading.patients))
        script, checks, chance = (coverage_rows(patients, player, 20, 0)[0]["value"] for player in players)
        assert script > 0.85 and script > checks > chance, name
