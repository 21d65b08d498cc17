"""Answers of other models: one to each question, under a name of their own, or a sentence that says what is wrong."""

from dataclasses import replace

import pytest

from clinical_r1 import engines
from clinical_r1.clinic import load_set
from clinical_r1.files import read_jsonl, write_jsonl
from clinical_r1.questions import write_questions
from clinical_r1.settings import SMOKE


@pytest.fixture
def run(tmp_path):
    settings = replace(SMOKE, out=str(tmp_path))
    questions = load_set("clinic", "test", 4)
    write_questions(settings.questions_path("clinic", "test"), questions)
    rows = [{"id": q.id, "text": rf"\boxed{{{q.answer}}} – q", "tokens": 3} for q in reversed(questions)]
    write_jsonl(tmp_path / "answers.jsonl", rows)
    return settings, tmp_path / "answers.jsonl", questions


def test_answers_become_completions_in_the_questions_order(run):
    settings, source, questions = run
    path = engines.replay(settings, "gpt-4", "clinic", source)
    rows = read_jsonl(path)
    assert path.name == "gpt-4.seed0.jsonl" and [row["id"] for row in rows] == [q.id for q in questions]
    assert {(row["method"], row["finish_reason"], row["tokens"]) for row in rows} == {
        ("gpt-4", "replayed", 3)
    }
    first = path.stat().st_mtime_ns
    assert engines.replay(settings, "gpt-4", "clinic", source).stat().st_mtime_ns == first
    source.write_text(source.read_text().replace("– q", "– r"), encoding="utf-8")
    assert read_jsonl(engines.replay(settings, "gpt-4", "clinic", source))[0]["text"].endswith("r")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda rows: [*rows, rows[0]], "line 5 answers 'clinic-test-00003' again"),
        (lambda rows: rows[:3], "answers 3 of 4 questions and lacks 'clinic-test-00000'"),
        (
            lambda rows: [*rows, {"id": "x9", "text": ""}],
            "answers 1 questions that are not asked, such as 'x9'",
        ),
        (lambda rows: [{"id": "clinic-test-00003", "text": 3}, *rows[1:]], "line 1 holds"),
        (lambda rows: [{"text": "B"}, *rows[1:]], "line 1 holds"),
        (lambda rows: [], "answers 0 of 4 questions"),
    ],
)
def test_a_file_that_does_not_answer_each_question_once_is_refused(run, change, message):
    settings, source, _ = run
    write_jsonl(source, change(read_jsonl(source)))
    with pytest.raises(ValueError, match=message):
        engines.replay(settings, "gpt-4", "clinic", source)
    assert not settings.completions_path("clinic", "gpt-4", 0).exists()


def test_an_outside_model_never_poses_as_an_arm(run):
    settings, source, _ = run
    with pytest.raises(ValueError, match="'crpo' is an arm of this run"):
        engines.replay(settings, "crpo", "clinic", source)
    with pytest.raises(ValueError, match="style 'free' is not known"):
        engines.replay(settings, "gpt-4", "clinic", source, style="free")
