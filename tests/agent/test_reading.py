"""Reading a turn: exactly one action or none, and any text at once."""

import time

import pytest
from agent_patients import after, drawn

from clinical_r1.agent.consultation import DIAGNOSE, VERBS, Action, Consultation, Patient, Rules, read_action
from clinical_r1.clinic.cases import phrase
from clinical_r1.clinic.knowledge import knowledge_base

KB = knowledge_base()
RULES = Rules()


def patient_of_menu() -> Patient:
    return drawn("rl", 300)[0]


def test_every_finding_with_every_verb_is_read_back_exactly():
    conditions = list(KB.conditions)
    for i, finding in enumerate(KB.findings):
        for verb in VERBS:
            action = Action(conditions[i % len(conditions)], verb, phrase(finding, True))
            assert read_action(action.text) == action


def test_every_condition_is_read_back_as_hypothesis_and_diagnosis():
    for condition in KB.conditions:
        for verb in (*VERBS, DIAGNOSE):
            assert read_action(f"suspect {condition} {verb} {condition}") == Action(
                condition, verb, condition
            )


def test_spaces_around_and_between_words_do_not_matter():
    assert read_action("  suspect  Acute  pericarditis   ask \t fever \n") == Action(
        "Acute pericarditis", "ask", "fever"
    )


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "\n",
        "suspect",
        "suspect A",
        "suspect A ask",
        "suspect ask fever",
        "ask fever",
        "Suspect A ask fever",
        "suspect A asks fever",
        "so suspect A ask fever",
        "suspect A ask fever suspect A ask fever",
        "suspect A ask fever\nsuspect A diagnose A",
        "suspect A\nask fever",
        "suspect A ask fe\u2028ver",
        "suspect A ask\x00fever",
        "süspect A ask fever",
        "\u202esuspect A ask fever",
        "\ud800",
    ],
)
def test_what_is_not_exactly_one_action_is_not_read(text):
    assert read_action(text) is None
    patient = patient_of_menu()
    assert after(patient, RULES).step(text).problem == "not understood"


@pytest.mark.parametrize(
    "text",
    [
        "suspect x " + "ask " * 25_000 + "\nx",
        "suspect " + "ask " * 25_000,
        "suspect x ask y" + " " * 100_000 + "\nz",
        "suspect" + " " * 100_000 + "x",
        "suspect " * 12_500,
        "suspect " + "a" * 100_000,
        "suspect " + "a " * 50_000 + "ask " + "b " * 50_000,
        " " * 100_000,
        "\n" * 100_000,
        "\U0001f9a0" * 100_000,
    ],
    ids=lambda text: f"{text[:12]!a}...{text[-4:]!a}",
)
def test_a_huge_text_is_read_at_once(text):
    """A pattern that tries every way to read it would take minutes."""
    begun = time.process_time()
    seen = Consultation(patient_of_menu(), RULES).step(text)
    assert time.process_time() - begun < 1
    assert seen.problem in ("not understood", "not an option") and len(seen.text) < 40
