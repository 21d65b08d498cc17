"""The start: consultations of scripted doctors, what of them is learned, and the shipped weights."""

import numpy as np
import pytest

from clinical_r1.agent.consultation import DIAGNOSE, Consultation, Rules, draw_patients, read_action
from clinical_r1.agent.language import END, build_agent_tokenizer
from clinical_r1.agent.start import SETTINGS, Doctor, consult, encode, transcripts

CAREFUL = Doctor(informed=1.0, anchored=0.0, matching=0.0, hasty=0.0, sure=0.0)


@pytest.fixture(scope="module")
def patients():
    return draw_patients("sft", 12, 3)


@pytest.fixture(scope="module")
def tokenizer():
    return build_agent_tokenizer()


def held(patients, doctor, rules=None, seed=0):
    rng = np.random.default_rng(seed)
    return [consult(patient, rules or Rules(), doctor, rng) for patient in patients]


def test_no_turn_of_a_doctor_is_invalid_and_every_consultation_ends_with_a_diagnosis(patients):
    for patient, (_, turns) in zip(patients, held(patients, Doctor()), strict=True):
        consultation = Consultation(patient, Rules())
        for text, heard in turns:
            seen = consultation.step(text)
            assert seen.problem is None and seen.text == heard
        assert consultation.done and consultation.diagnosis in patient.options


@pytest.mark.parametrize("share, rules", SETTINGS)
def test_each_setting_of_the_corpus_keeps_its_own_rules(share, rules):
    some = draw_patients("sft", 4, 5, rules.menu)
    for messages, turns in held(some, Doctor(hasty=1.0), rules):
        assert len(turns) == rules.earliest, "a hasty doctor stops at the first turn that allows it"
        assert ("On offer:" in messages[0]["content"]) == (rules.menu is not None)
    assert sum(share for share, _ in SETTINGS) == pytest.approx(1)


def test_habits_show(patients):
    anchored = held(patients, Doctor(anchored=1.0, matching=0.0))
    assert all(len({read_action(text).hypothesis for text, _ in turns}) == 1 for _, turns in anchored)
    careful = held(patients, CAREFUL)
    assert any(len({read_action(text).hypothesis for text, _ in turns}) > 1 for _, turns in careful)
    assert {len(turns) for _, turns in careful} == {Rules().horizon}
    sure = held(patients, Doctor(informed=1.0, anchored=0.0, matching=0.0, hasty=0.0, sure=1.0))
    assert min(len(turns) for _, turns in sure) < Rules().horizon


def test_a_careful_doctor_diagnoses_what_is_likeliest_in_the_end(patients):
    for patient, (_, turns) in zip(patients, held(patients, CAREFUL), strict=True):
        consultation = Consultation(patient, Rules())
        for text, _ in turns[:-1]:
            consultation.step(text)
        posterior, last = consultation.posterior(), read_action(turns[-1][0])
        assert last.verb == DIAGNOSE and posterior[last.object] == max(posterior.values())


def test_only_the_agents_turns_are_learned_with_their_ends(patients, tokenizer):
    told = held(patients, Doctor())
    for row, (_, turns) in zip(encode(tokenizer, told), told, strict=True):
        learned = [
            token for token, label in zip(row["input_ids"], row["labels"], strict=True) if label != -100
        ]
        assert tokenizer.decode(learned) == " ".join(f"{text} {END}" for text, _ in turns)
        assert all(
            label in (-100, token) for token, label in zip(row["input_ids"], row["labels"], strict=True)
        )
        assert tokenizer.unk_token_id not in row["input_ids"]


def test_the_corpus_depends_on_its_seed_alone():
    first, again, other = (list(transcripts(6, seed)) for seed in (1, 1, 2))
    assert first == again != other
