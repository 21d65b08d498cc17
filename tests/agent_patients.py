"""Patients that several tests of the agent look at, drawn once."""

from dataclasses import replace
from functools import cache

from clinical_r1.agent.consultation import Consultation, Patient, Rules, draw_patients, verb_of
from clinical_r1.agent.policies import inquire

SEED = 20251203


@cache
def drawn(split: str, n: int, menu: int | None = Rules.menu) -> list[Patient]:
    return draw_patients(split, n, SEED, menu)


def other_truth(patient: Patient) -> Patient:
    """The same patient to look at, and the contrary of every finding that can be inquired after."""
    return replace(patient, findings={f: not present for f, present in patient.findings.items()})


def inquiries(patient: Patient) -> list[str]:
    """The texts that inquire after each finding of a patient, in the order of the menu."""
    return [inquire(patient.options[0], finding) for finding in patient.findings]


def after(patient: Patient, rules: Rules, *texts: str) -> Consultation:
    consultation = Consultation(patient, rules)
    for text in texts:
        consultation.step(text)
    return consultation


def wrong_verb(finding: str) -> str:
    return "ask" if verb_of(finding) != "ask" else "test"
