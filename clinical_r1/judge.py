"""Judges: who counts the eight process measures of a completion.

A judge is a function (question, text) -> {measure: count}, or {} where it cannot judge. The clinic's judge is exact.
"""

from clinical_r1.clinic import Case
from clinical_r1.clinic_text import measure
from clinical_r1.questions import Question


def exact_judge(question: Question, text: str) -> dict[str, int]:
    """The clinic's judge: the eight process measures, counted exactly. {} for a question without an evidence graph."""
    return measure(text, Case.from_json(question.meta["case"])) if "case" in question.meta else {}
