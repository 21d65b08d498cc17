"""Questions: one record for every benchmark, its file on disk, and a reader for other people's layouts."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from clinical_r1.arms import STYLES
from clinical_r1.files import numbered_rows, parse_json, read_text, write_jsonl

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
        if not isinstance(self.meta, dict):
            raise ValueError(f"question {self.id!r}: meta is {self.meta!r}, expected a dict of plain values.")
        if self.answer is not None and self.answer not in self.options:
            raise ValueError(
                f"question {self.id!r}: answer is {self.answer!r}, expected one of {expected} or None."
            )
        for what, text in (("id", self.id), ("stem", self.stem), *self.options.items()):
            if not isinstance(text, str) or not text.strip():
                raise ValueError(
                    f"question {self.id!r}: {what} is {text!r}, expected a text that is not empty."
                )
            if not text.isascii() and any("\ud800" <= char <= "\udfff" for char in text):
                raise ValueError(
                    f"question {self.id!a}: {what} holds half a surrogate pair, which no tokenizer takes; mend the text."
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
    for line, row in numbered_rows(path):
        try:
            questions.append(Question.from_json(row))
        except (TypeError, ValueError) as error:
            raise ValueError(
                f"{path}, line {line} is not a question ({error}); delete the file and make it again."
            ) from error
    return questions


# ---------------------------------------------------------------- common layouts of other people's questions
STEM_FIELDS = ("question", "stem", "sent1", "prompt")
OPTION_FIELDS = ("options", "choices", "endings", "answers")
LETTERED_FIELDS = ("opa", "opb", "opc", "opd", "ope", "opf", "opg", "oph", "opi", "opj")
ANSWER_FIELDS = (
    "answer_idx",
    "answer",
    "label",
    "gold",
    "correct",
    "cop",
    "answerKey",
    "answer_key",
    "answer_index",
)
ID_FIELDS = ("id", "qid", "question_id", "uid")


def read_fields(
    path,
    benchmark: str,
    split: str = "test",
    *,
    stem=None,
    options=None,
    answer=None,
    id=None,
    index_base: int | None = None,
) -> list[Question]:
    """Questions from JSON Lines, or one JSON list, in a layout of somebody else's.

    stem, options, answer, id: names of the fields that hold them; None takes the first field that is there of STEM_FIELDS,
    OPTION_FIELDS (or opa, opb, …), ANSWER_FIELDS, ID_FIELDS. Options may be a list, a dict by letter or number, a list of records
    with a label and a text, or {"text": [...], "label": [...]}; 2 to 10 of them. The answer is a letter of either case, an
    index, or an option's text. index_base: 0 or 1, the index of the first option; needed where answers are indices. Without an
    id field, questions are named by their place.
    ValueError names the file, the row, what was got and what was expected: nothing is guessed and nothing left out.
    """
    path = Path(path)
    rows = _rows(path)
    fields = {"stem": stem, "options": options, "answer": answer, "id": id}
    placed = [_place(path, number, row, fields) for number, row in rows]
    if index_base not in (None, 0, 1) or isinstance(index_base, bool):
        raise ValueError(f"index_base is {index_base!r}; expected 0 or 1, the index of the first option.")
    questions, seen = [], {}
    for place, ((number, row), item) in enumerate(zip(rows, placed, strict=True)):
        where = f"{path.name}, row {number}"
        name = str(item["id"]) if item["id"] is not None else f"{benchmark}-{split}-{place:05d}"
        if name in seen:
            raise ValueError(f"{where} has the id {name!r} of row {seen[name]}; give each an id of its own.")
        seen[name] = number
        letter = _letter_of(where, item["answer"], item["options"], item["keys"], index_base)
        if answer is None and (other := _other_letter(where, row, item, index_base)) not in (None, letter):
            raise ValueError(
                f"{where} has answers that differ, {letter} and {other}; name the right field with answer=."
            )
        choices = dict(zip(LETTERS, item["options"], strict=False))
        try:
            meta = {"file": path.name, "line": number}
            questions.append(Question(name, benchmark, split, item["stem"], choices, letter, meta))
        except ValueError as error:
            raise ValueError(f"{where} is no question: {error}") from error
    return questions


def _rows(path: Path) -> list[tuple[int, dict]]:
    """(line of JSON Lines or place in one JSON list, from 1; row)."""
    text = read_text(path)
    if text.lstrip().startswith("["):
        try:
            listed = parse_json(text, finite=True)
        except ValueError as error:
            raise ValueError(
                f"{path} starts like a JSON list and is none ({error}); fix the file."
            ) from error
        rows = list(enumerate(listed, 1))
    else:
        rows = numbered_rows(path, finite=True)
    if not rows:
        raise ValueError(f"{path} holds no row; expected one question a line.")
    for number, row in rows:
        if not isinstance(row, dict):
            raise ValueError(
                f"{path.name}, row {number} is a {type(row).__name__}; expected an object with fields."
            )
    return rows


def _place(path: Path, number: int, row: dict, fields: dict) -> dict:
    """{"stem", "options": texts, "keys": their labels, "answer", "id"} of one row."""
    where = f"{path.name}, row {number}"

    def field(what, known, needed=True):
        name = fields[what] or next((name for name in known if name in row), None)
        if name is not None and name in row:
            return row[name]
        if needed:
            raise ValueError(
                f"{where} has no {what}: its fields are {', '.join(map(str, row)) or 'none'}; expected "
                f"{fields[what] or ' or '.join(known)}, "
                f"or name the field with {what}=."
            )

    lettered = [row.get(name) for name in LETTERED_FIELDS]
    while lettered and lettered[-1] is None:
        del lettered[-1]
    if None in lettered:
        raise ValueError(
            f"{where} has no {LETTERED_FIELDS[lettered.index(None)]} before a later option; fill the gap."
        )
    if lettered and not fields["options"] and any(name in row for name in OPTION_FIELDS[:2]):
        raise ValueError(f"{where} has options and {LETTERED_FIELDS[0]}; say which with options=.")
    several = [name for name in OPTION_FIELDS if name in row and not fields["options"]]
    if any(row[name] != row[several[0]] for name in several):
        raise ValueError(
            f"{where} has options that differ in {', '.join(several)}; name the right field with options=."
        )
    given = lettered if lettered and not fields["options"] else field("options", OPTION_FIELDS)
    texts, keys = _option_texts(where, given)
    return {
        "stem": field("stem", STEM_FIELDS),
        "options": texts,
        "keys": keys,
        "answer": field("answer", ANSWER_FIELDS),
        "id": field("id", ID_FIELDS, needed=fields["id"] is not None),
    }


def _option_texts(where: str, given) -> tuple[list[str], list[str]]:
    """Texts and labels of the options, in order."""
    if isinstance(given, dict) and {"text", "label"} <= given.keys():
        if not all(isinstance(given[name], list) for name in ("text", "label")):
            raise ValueError(f"{where} has options {given!r}; expected a list of texts and one of labels.")
        texts, keys = list(given["text"]), list(map(str, given["label"]))
    elif isinstance(given, dict):
        keys = sorted(map(str, given)) if all(len(str(key)) == 1 for key in given) else list(map(str, given))
        texts = [{str(key): text for key, text in given.items()}[key] for key in keys]
    elif isinstance(given, list) and given and all(isinstance(item, dict) for item in given):
        names = (("label", "key", "letter", "idx"), ("text", "value", "content"))
        found = [[next((item[n] for n in known if n in item), None) for item in given] for known in names]
        if any(value is None for values in found for value in values):
            raise ValueError(
                f"{where} has options with the fields {list(given[0])}; expected a label and a text."
            )
        keys, texts = found
        keys = list(map(str, keys))
    elif isinstance(given, list):
        texts, keys = list(given), []
    else:
        raise ValueError(f"{where} has options {given!r}; expected a list or an object.")
    texts = [
        str(text) if isinstance(text, int | float) and not isinstance(text, bool) else text for text in texts
    ]
    for place, text in enumerate(texts):
        marked = re.match(r"\s*\(?([A-J])[.):]\s", str(text))
        if marked and marked[1] != LETTERS[place]:
            raise ValueError(
                f"{where} has the option {text!r} at place {LETTERS[place]}; put options in order, or drop letters."
            )
    letters = "".join(keys).upper()
    if keys and all(len(key) == 1 and key.isalpha() for key in keys) and letters != LETTERS[: len(keys)]:
        raise ValueError(
            f"{where} has options labelled {', '.join(keys)}; expected A, B, … without a gap, in order."
        )
    if keys and len(keys) != len(texts):
        raise ValueError(f"{where} has {len(keys)} labels for {len(texts)} options; expected one each.")
    if not 2 <= len(texts) <= len(LETTERS):
        raise ValueError(f"{where} has {len(texts)} options; expected 2 to {len(LETTERS)}.")
    return texts, keys


def _as_index(answer) -> int | None:
    if isinstance(answer, int) and not isinstance(answer, bool):
        return answer
    return int(answer) if isinstance(answer, str) and re.fullmatch(r"\s*\d{1,2}\s*", answer) else None


def _other_letter(where: str, row: dict, item: dict, base: int | None) -> str | None:
    """The first answer field that disagrees, or what all say: MedQA has a letter and its text. None where none can be read."""
    letters = []
    for name in ANSWER_FIELDS:
        try:
            letters += (
                [_letter_of(where, row[name], item["options"], item["keys"], base)] if name in row else []
            )
        except ValueError:
            continue  # an explanation, or another wording
    return next((letter for letter in letters if letter != letters[0]), letters[0] if letters else None)


def _letter_of(where: str, answer, texts: list[str], keys: list[str], base: int | None) -> str:
    """The gold letter. ValueError where the answer names no option, or several."""

    def expected():
        letters = f"a letter A to {LETTERS[len(texts) - 1]}"
        return f"expected {letters}, an index, or the text of one option"

    folded = str(answer).strip().casefold()
    readings = {texts.index(text) for text in texts if str(text).strip().casefold() == folded}
    if sum(str(text).strip().casefold() == folded for text in texts) > 1:
        raise ValueError(f"{where} has the answer {answer!r}, the text of several options; {expected()}.")
    index = _as_index(answer)
    if folded in (labels := [key.strip().casefold() for key in keys]):
        readings.add(labels.index(folded))
    elif index is not None and keys and all(key.strip().isdigit() for key in keys):
        raise ValueError(
            f"{where} has the answer {answer!r}, and options labelled {', '.join(keys)}; {expected()}."
        )
    elif index is not None and (not readings or isinstance(answer, int) or base is not None):
        if base is None:
            raise ValueError(
                f"{where} has the answer {answer!r}, and nothing says whether the first option is 0 or 1; "
                "pass index_base=0 or index_base=1."
            )
        if not 0 <= index - base < len(texts):
            raise ValueError(
                f"{where} has the answer {answer!r} counted from {base} for {len(texts)} options; {expected()}."
            )
        readings.add(index - base)
    if len(folded) == 1 and folded.upper() in LETTERS[: len(texts)] and not keys:
        readings.add(LETTERS.index(folded.upper()))
    if len(readings) != 1:
        found = (
            f"which reads as {' and as '.join(LETTERS[i] for i in sorted(readings))}"
            if readings
            else "which names no option"
        )
        raise ValueError(f"{where} has the answer {answer!r}, {found}; {expected()}.")
    return LETTERS[readings.pop()]


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


def read_traces(path: str | Path, questions: Sequence[Question]):
    """(question, style, text) of the traces that answer one of these. ValueError for a trace without one of its fields."""
    by_id = {question.id: question for question in questions}
    for number, trace in numbered_rows(path):
        text, name = trace.get("text"), trace.get("id")
        right = (
            isinstance(name, str),
            trace.get("style") in STYLES,
            isinstance(text, str) and bool(text.strip()),
        )
        wrong = [field for field, fine in zip(("id", "style", "text"), right, strict=True) if not fine]
        if wrong:
            raise ValueError(
                f"{path}, line {number} has no usable {', '.join(wrong)} (got {[trace.get(name) for name in wrong]}); expected "
                f"an id, a style of {' or '.join(STYLES)}, and a text that is not empty."
            )
        if trace["id"] in by_id:
            yield by_id[trace["id"]], trace["style"], trace["text"]
