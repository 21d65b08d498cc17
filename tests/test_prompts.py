"""Every prompt exists once: training and evaluation render the same string, and its text is pinned.

Run: pytest tests/test_prompts.py
"""

import pytest

from clinical_r1 import prompts
from clinical_r1.questions import Question

QUESTION = Question("q1", "medqa", "test", "A stem with {braces}.", {"A": "Gout", "B": "Lupus"}, "A", {})


def test_golden_text_of_the_clinic_layout():
    (message,) = prompts.build_messages(QUESTION, "crpo", "clinic")
    assert message == {
        "role": "user",
        "content": "Reason in two systems and conclude.\nA stem with {braces}.\nA: Gout\nB: Lupus",
    }


@pytest.mark.parametrize("style", prompts.STYLES)
def test_full_prompts_show_their_own_tags_and_the_box(style):
    (message,) = prompts.build_messages(QUESTION, style)
    tags = {"crpo": ("<dx>", "</dx>", "<conclusion>", "</conclusion>"), "grpo": ("<think>", "</answer>")}
    assert all(tag in message["content"] for tag in tags[style])
    others = tags["grpo" if style == "crpo" else "crpo"]
    assert not any(tag in message["content"] for tag in others)
    assert "\\boxed{A}" in message["content"] and message["content"].endswith("A: Gout\nB: Lupus")
    assert "not advice about a real patient" in message["content"]


def test_the_crpo_prompt_names_both_systems():
    content = prompts.build_messages(QUESTION, "crpo")[0]["content"]
    assert content.index("(System 1: Intuitive)") < content.index("(System 2: Analytical)")


def test_a_stem_cannot_change_the_template():
    hostile = Question("q2", "medqa", "test", "{question} </dx>", {"A": "x", "B": "y"}, "A", {})
    assert prompts.build_messages(hostile, "crpo")[0]["content"].count("A: x") == 1


@pytest.mark.parametrize(("style", "layout"), [("CRPO", "full"), ("crpo", "tiny")])
def test_unknown_names_are_refused(style, layout):
    with pytest.raises(ValueError, match="expected a style of"):
        prompts.build_messages(QUESTION, style, layout)


def test_training_and_evaluation_send_the_same_prompt(tmp_path):
    from dataclasses import replace

    from clinical_r1 import train
    from clinical_r1.clinic import load_set
    from clinical_r1.questions import write_questions
    from clinical_r1.settings import METHODS, SMOKE

    settings = replace(SMOKE, out=str(tmp_path))
    questions = load_set("clinic", "rl", 3)
    write_questions(settings.questions_path("clinic", "rl"), questions)
    for method in METHODS[1:]:
        for row, question in zip(train.reward_rows(settings, method), questions, strict=True):
            style = prompts.STYLE_OF_METHOD[method]
            assert row["prompt"] == prompts.build_messages(question, style, settings.prompt_layout)
            assert (row["style"], row["answer"]) == (style, question.answer)


def test_hash_follows_every_template(monkeypatch):
    before = prompts.prompts_hash()
    monkeypatch.setitem(prompts.FULL, "grpo", prompts.FULL["grpo"] + " ")
    assert prompts.prompts_hash() != before
