"""Answers that another model has given elsewhere, as completions of this run under that model's own name."""

import re
from collections.abc import Sequence
from pathlib import Path

from clinical_r1.arms import ARMS, STYLES
from clinical_r1.files import numbered_rows, read_stamp, sha256, write_stamped
from clinical_r1.questions import Question, read_questions
from clinical_r1.settings import Settings


def replay(settings: Settings, model: str, benchmark: str, source: str | Path, style: str = "crpo") -> Path:
    """Another model's answers as completions of this run, under that model's own name; returns their file.

    source: JSON Lines of {"id", "text"} (or one of "completion", "answer", "output"), one answer to each of the benchmark's
    test questions; "prompt" and "tokens" are kept where they are given. style: of the format that the answers are read in.
    Rewritten when the source or the questions have changed.
    ValueError, and nothing is written, for a name that is an arm's, for an id that is no question's, for two answers to one
    question, for a row with two of these fields that differ, and for a question without an answer.
    """
    if not isinstance(model, str) or not re.fullmatch(r"[A-Za-z0-9][\w.-]{0,80}", model):
        raise ValueError(
            f"a model is named {model!r}; expected letters, digits, '.', '_' and '-', at most 81."
        )
    if model in ARMS:
        raise ValueError(
            f"{model!r} is an arm of this run; replay another model's answers under a name of its own."
        )
    if style not in STYLES:
        raise ValueError(f"style {style!r} is not known; expected one of {', '.join(STYLES)}.")
    path, asked = (
        settings.completions_path(benchmark, model, settings.seeds[0]),
        settings.questions_path(benchmark, "test"),
    )
    made_from = {"replayed": sha256(Path(source)), "test_questions": sha256(asked)[:16], "style": style}
    if path.exists() and _is_made_from(path, made_from):
        return path
    rows = replayed_rows(Path(source), read_questions(asked))
    common = {"benchmark": benchmark, "method": model, "seed": settings.seeds[0], "sample": 0}
    common |= {"protocol": "sampled", "style": style, "finish_reason": "replayed"}
    return write_stamped(path, [row | common for row in rows], made_from)


def _is_made_from(path: Path, made_from: dict) -> bool:
    """Whether a replayed file is whole and of this source; if not it is written anew, for the source is at hand."""
    try:
        return read_stamp(path, "replay").items() >= made_from.items()
    except ValueError:
        return False


def replayed_rows(source: Path, questions: Sequence[Question]) -> list[dict]:
    """{"id", "text", "prompt", "tokens"} of every question, in the questions' order. ValueError as in `replay`."""
    given: dict[str, dict] = {}
    for number, row in numbered_rows(source):
        fields = row if isinstance(row, dict) else {}
        named = [name for name in ("text", "completion", "answer", "output") if name in fields]
        # "answer" beside "output" may well be the right one; beside "text", which is ours, it is ignored
        if named[:1] != ["text"] and any(fields[name] != fields[named[0]] for name in named):
            raise ValueError(
                f"{source}, line {number} has {' and '.join(named)}, which differ; name the model's own words text."
            )
        text = fields[named[0]] if named else None
        if not isinstance(fields.get("id"), str) or not isinstance(text, str):
            raise ValueError(
                f"{source}, line {number} holds {list(fields) or row!r}; expected an id and a text."
            )
        tokens, prompt = fields.get("tokens"), fields.get("prompt", "")
        counted = tokens is None or isinstance(tokens, int) and not isinstance(tokens, bool) and tokens >= 0
        if not counted or not isinstance(prompt, str):
            raise ValueError(
                f"{source}, line {number} has tokens {tokens!r} and a prompt of kind {type(prompt).__name__}; expected a whole "
                "number from 0, or none, and a text."
            )
        if row["id"] in given:
            raise ValueError(
                f"{source}, line {number} answers {row['id']!r} again; keep one answer to each question."
            )
        given[row["id"]] = {
            "id": row["id"],
            "text": text,
            "prompt": prompt,
            "tokens": tokens,
        }
    known = [question.id for question in questions]
    if unknown := [key for key in given if key not in set(known)]:
        raise ValueError(
            f"{source} answers {len(unknown)} questions that are not asked, such as {unknown[0]!r}; the ids asked look like "
            f"{known[0]!r}."
        )
    if missing := [key for key in known if key not in given]:
        raise ValueError(
            f"{source} answers {len(given)} of {len(known)} questions and lacks {missing[0]!r}; a question that was put and not "
            'answered has the text "", and counts as wrong.'
        )
    return [given[key] for key in known]
