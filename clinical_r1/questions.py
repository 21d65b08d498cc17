"""Questions: one record for every benchmark, its file on disk, and the names of the benchmarks."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from clinical_r1.files import read_jsonl, write_jsonl

LETTERS = "ABCDEFGHIJ"


@dataclass(frozen=True)
class Question:
    """One multiple-choice question.

    options: letter -> text, letters A, B, C … without a gap, in order. answer: the gold letter, or None where
    the benchmark keeps it secret. meta: provenance (file, line, sha256) and whatever else the benchmark says,
    as plain JSON values.
    """

    id: str
    benchmark: str
    split: str
    stem: str
    options: dict[str, str]
    answer: str | None
    meta: dict

    def __post_init__(self):
        expected = list(LETTERS[: len(self.options)])
        if len(self.options) < 2 or list(self.options) != expected:
            raise ValueError(
                f"question {self.id!r}: options are {list(self.options)}, expected A, B, … in order (2 to 10)"
            )
        if self.answer is not None and self.answer not in self.options:
            raise ValueError(
                f"question {self.id!r}: answer is {self.answer!r}, expected one of {expected} or None."
            )
        for what, text in (("id", self.id), ("stem", self.stem), *self.options.items()):
            if not isinstance(text, str) or not text.strip():
                raise ValueError(
                    f"question {self.id!r}: {what} is {text!r}, expected a text that is not empty."
                )

    def to_json(self) -> dict:
        return asdict(self)

    @classmethod
    def from_json(cls, row: dict) -> "Question":
        """TypeError or ValueError when fields are missing, unknown or inconsistent."""
        return cls(**row)


@dataclass(frozen=True)
class Quarantined:
    """What was set aside, and why. check: a key of `curation.CHECKS`; record: the raw row or the question."""

    check: str
    reason: str
    benchmark: str
    split: str
    id: str | None
    file: str | None
    line: int | None
    record: dict | list | str | float | None

    def to_json(self) -> dict:
        return asdict(self)


def write_questions(path, questions: Iterable[Question]) -> Path:
    """JSON Lines, through a temporary file: a killed run leaves the old file or the new one."""
    return write_jsonl(path, [question.to_json() for question in questions])


def read_questions(path) -> list[Question]:
    """What `write_questions` wrote. ValueError names the file and the line that is not a question."""
    questions = []
    for line, row in enumerate(read_jsonl(path), 1):
        try:
            questions.append(Question.from_json(row))
        except (TypeError, ValueError) as error:
            raise ValueError(
                f"{path}, line {line} is not a question ({error}); delete the file and make it again."
            ) from error
    return questions


# ---------------------------------------------------------------- questions as a table
GLOSSARY = {
    "id": "the benchmark's own id; MedQA has none and is named after the place in its file, counted from 0",
    "benchmark": "which set the question belongs to",
    "split": "official split; sft and rl are the first and second half of MedQA train",
    "stem": "the question as released, without its options",
    "n_options": "how many options are offered (chance is one over this)",
    "answer": "gold letter; empty where the benchmark keeps it secret",
    "answer_text": "text of the gold option; the only safe key between the 4- and 5-option versions",
    "stem_words": "words in the stem, split at white space",
    "multi": "MedMCQA's choice_type is multi: several options may be right, yet there is one key",
    "shuffle_ok": "False where options are letters, all or none of the above; empty before curation",
    "checks": "names of the report checks the question met (see curation.CHECKS); empty before curation",
    "file": "raw file the row came from",
    "line": "line of that file, counted from 1",
    "sha256": "hash of that file; empty for the Hub, where repo and revision say it",
}


def question_row(question: Question) -> dict:
    """One flat row for a table, with exactly the columns of GLOSSARY in that order."""
    meta = question.meta
    return {
        "id": question.id,
        "benchmark": question.benchmark,
        "split": question.split,
        "stem": question.stem,
        "n_options": len(question.options),
        "answer": question.answer,
        "answer_text": question.options[question.answer] if question.answer else None,
        "stem_words": len(question.stem.split()),
        "multi": meta.get("multi", False),
        **{key: meta.get(key) for key in ("shuffle_ok", "checks", "file", "line", "sha256")},
    }
