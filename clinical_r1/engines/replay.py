"""Answers that another model has given elsewhere, as completions of this run under that model's own name."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from clinical_r1.arms import ARMS, STYLES
from clinical_r1.artifacts import callable_hash, digest
from clinical_r1.completions import Completion, parse_completion, parse_mirage
from clinical_r1.engines import store
from clinical_r1.engines.free_text import read_free_text
from clinical_r1.files import (
    numbered_rows,
    parse_json,
    read_csv,
    read_stamp,
    read_text,
    sha256,
    write_stamped,
)
from clinical_r1.labels import GUESSES
from clinical_r1.questions import Question, read_questions
from clinical_r1.settings import PROTOCOLS, Settings


def read_mirage(text: str, style: str = "crpo", options: Mapping[str, str] | None = None) -> Completion:
    """`completions.parse_mirage`, called as every parser is."""
    return parse_mirage(text, options or {})


# How the letter of another model's answer is read: (text, style, options) -> Completion
PARSERS: dict[str, Callable] = {
    "box": parse_completion,  # as every model of the run
    "free_text": read_free_text,  # a box, or else what the text says in words
    "mirage": read_mirage,  # JSON with step_by_step_thinking and answer_choice
}
TEXT_NAMES = ("text", "completion", "answer", "output")
# Parts of the names of a run's files: <benchmark>.<split>.jsonl, <arm or model>.seed<n>.<protocol>.jsonl
PARTS_OF_FILES = {"test", "sft", "rl", *PROTOCOLS, "shuffled", "partial", "json", "jsonl"}


@dataclass(frozen=True)
class AnswerFile:
    """One model's answers to one benchmark, and how to read them.

    file: JSON Lines, one JSON list of objects, or a CSV table (.csv).
    id, text: a field's name, or a function of the row; the id is the question's in this run. text None: the first of
        `TEXT_NAMES` that is there.
    tokens, prompt: fields that are kept where they are there.
    parser: one of `PARSERS`, or a function (text, style, options) -> Completion; named in Table 1 unless it is "box".
    style: of the format that the text is read in.
    gold: a field, or a function of the row, with the right letter as the file knows it: answers to the same stems with other
        options, as MedQA with four and with five has them, are refused.
    others: True where the file may also answer questions that this run does not ask.
    """

    file: Path
    id: str | Callable = "id"
    text: str | Callable | None = None
    tokens: str = "tokens"
    prompt: str = "prompt"
    parser: str | Callable = "box"
    style: str = "crpo"
    gold: str | Callable | None = None
    others: bool = False

    def __post_init__(self):
        object.__setattr__(self, "file", Path(self.file))
        for name in ("id", "text", "tokens", "prompt", "gold"):
            value = getattr(self, name)
            named = isinstance(value, str) and value or callable(value) and name in ("id", "text", "gold")
            if not named and not (name in ("text", "gold") and value is None):
                raise ValueError(f"{name} is {value!r}; expected the name of a field.")
        if not callable(self.parser) and self.parser not in PARSERS:
            raise ValueError(
                f"parser {self.parser!r} is not known; expected one of {', '.join(PARSERS)}, or a function."
            )
        if (
            callable(self.parser) and self.parser_name in PARSERS
        ):  # rows name their parser, and are scored by it
            raise ValueError(
                f"parser is a function named {self.parser_name}, as a parser of this package is; give it another name."
            )
        if self.style not in STYLES:
            raise ValueError(f"style {self.style!r} is not known; expected one of {', '.join(STYLES)}.")
        if not isinstance(self.others, bool):
            raise ValueError(f"others is {self.others!r}; expected True or False.")
        try:
            callable_hash(self.read)
        except ValueError as error:  # a lambda, of which a stamp could not say what it does
            raise ValueError(f"parser cannot be stamped ({error}); define it with def.") from error

    @property
    def read(self) -> Callable:
        """(text, style, options) -> Completion."""
        return self.parser if callable(self.parser) else PARSERS[self.parser]

    @property
    def parser_name(self) -> str:
        return self.parser if isinstance(self.parser, str) else getattr(self.parser, "__name__", "a function")


def check_model_name(model) -> None:
    """ValueError for a name that is no plain one, that is an arm's or a guess's in any case, or that a run's files use."""
    if not isinstance(model, str) or not re.fullmatch(r"[A-Za-z0-9](?:[\w.-]{0,79}[\w-])?", model, re.ASCII):
        raise ValueError(
            f"a model is named {model!r}; expected letters, digits, '.', '_' and '-', at most 81, no '.' at the end."
        )
    taken = {name.casefold(): name for name in (*ARMS, *GUESSES)}
    if name := taken.get(model.casefold()):
        what = "is an arm or guess of this run" if name == model else f"differs from {name!r} in case alone"
        raise ValueError(f"{model!r} {what}; another model's answers go under a name of their own.")
    parts = [p for p in model.lower().split(".")[1:] if p in PARTS_OF_FILES or re.fullmatch(r"seed\d+", p)]
    if parts:
        raise ValueError(f"{model!r} has '.{parts[0]}' in its name, which a run's files use; leave it out.")


def replay(settings: Settings, model: str, benchmark: str, source: AnswerFile | str | Path) -> Path:
    """Another model's answers as completions of this run, under that model's own name; returns their file.

    source: how `AnswerFile` finds one answer to each of the benchmark's test questions; a path alone has its usual names.
    Rewritten when the answers, the questions or the parser have changed.
    ValueError, and nothing is written, for a name that is an arm's in any case, for an id that is no question's, for two answers
    to one question, for a row with two of `TEXT_NAMES` that differ, and for a question without an answer.
    """
    check_model_name(model)
    source = source if isinstance(source, AnswerFile) else AnswerFile(source)
    path = settings.completions_path(benchmark, model, settings.seeds[0])
    asked = settings.questions_path(benchmark, "test")
    rows = replayed_rows(source, read_questions(asked))
    made_from = {"replayed": sha256(source.file), "test_questions": sha256(asked)[:16], "style": source.style}
    common = {"benchmark": benchmark, "method": model, "seed": settings.seeds[0], "sample": 0}
    common |= {"protocol": "sampled", "style": source.style, "finish_reason": "replayed"}
    if source.parser != "box":
        made_from["parser"] = {"name": source.parser_name, "code": digest(callable_hash(source.read))}
        common |= {"parser": source.parser_name, "note": f"its letters are read by {source.parser_name}"}
    rows = [row | common for row in rows]
    made_from["rows"] = store.digest(rows)
    return path if path.exists() and _is_made_from(path, made_from) else write_stamped(path, rows, made_from)


def _is_made_from(path: Path, made_from: dict) -> bool:
    """Whether a replayed file is whole and of this source; if not it is written anew, for the source is at hand."""
    try:
        return read_stamp(path, "replay").items() >= made_from.items()
    except ValueError:
        return False


def replayed_rows(source: AnswerFile, questions: Sequence[Question]) -> list[dict]:
    """{"id", "text", "prompt", "tokens"} of every question, in the questions' order. ValueError as in `replay`."""
    file, given = source.file, {}
    keys = {question.id: question.answer for question in questions}
    for number, row in _rows(file):
        where = f"{file}, line {number}"
        name, text = _value(where, row, source.id), _text(where, row, source)
        name = str(name) if isinstance(name, int) and not isinstance(name, bool) else name
        if not isinstance(name, str) or not isinstance(text, str):
            raise ValueError(
                f"{where} holds {list(row)}, with the id {name!r} and a text of kind {type(text).__name__}; expected an id and a "
                "text: name their fields with id and text, or make them of the row with a function. A call that failed has the "
                'text "".'
            )
        if source.gold is not None and (said := _value(where, row, source.gold)) != keys.get(name, said):
            raise ValueError(
                f"{where} has the right answer {said!r} for {name!r}, which has {keys[name]!r} here; these answers are to "
                "other questions, or to other options: give matching ones."
            )
        if name in given:
            raise ValueError(f"{where} answers {name!r} again; keep one answer to each question.")
        given[name] = {"id": name, "text": text, **_more(where, row, source)}
    known = [question.id for question in questions]
    if (unknown := [key for key in given if key not in set(known)]) and not source.others:
        raise ValueError(
            f"{file} answers {len(unknown)} questions that are not asked, such as {unknown[0]!r}; the ids asked look like "
            f"{known[0]!r}; name or make the id with id, or, if the file answers more than is asked, add others=True."
        )
    if missing := [key for key in known if key not in given]:
        raise ValueError(
            f"{file} answers {len(known) - len(missing)} of {len(known)} questions and lacks {missing[0]!r}"
            f"{f'; its ids look like {unknown[0]!r}' if unknown else ''}; a question that was put and not "
            'answered has the text "", and counts as wrong.'
        )
    return [given[key] for key in known]


def _rows(file: Path) -> list[tuple[int, dict]]:
    """(line, or place in one list; row) of a file of answers."""
    if file.suffix.lower() == ".csv":
        table = read_csv(file, dtype=str, keep_default_na=False)
        return list(enumerate(table.to_dict("records"), 2))
    text = read_text(file)
    if not text.lstrip().startswith("["):
        return numbered_rows(file)
    try:
        listed = parse_json(text)
    except ValueError as error:
        raise ValueError(f"{file} starts like a JSON list and is none ({error}); fix the file.") from error
    if wrong := [place for place, row in enumerate(listed, 1) if not isinstance(row, dict)]:
        raise ValueError(
            f"{file}, item {wrong[0]} is no object; expected a list of objects with an id and a text."
        )
    return list(enumerate(listed, 1))


def _value(where: str, row: dict, name):
    """A field, or what a function makes of the row."""
    if not callable(name):
        return row.get(name)
    try:
        return name(row)
    except Exception as error:
        raise ValueError(
            f"{where}: the function that reads it fails ({type(error).__name__}: {error}); fix it in ANSWERS."
        ) from error


def _text(where: str, row: dict, source: AnswerFile):
    if source.text is not None:
        return _value(where, row, source.text)
    named = [name for name in TEXT_NAMES if name in row]
    # "answer" beside "output" may well be the right one; beside "text", which is ours, it is ignored
    if named[:1] != ["text"] and any(row[name] != row[named[0]] for name in named):
        raise ValueError(f"{where} has {' and '.join(named)}, which differ; name the model's own words text.")
    return row[named[0]] if named else None


def _more(where: str, row: dict, source: AnswerFile) -> dict:
    """{"prompt", "tokens"} of a row, where they are given."""
    tokens, prompt = row.get(source.tokens), row.get(source.prompt, "")
    if source.file.suffix.lower() == ".csv" and tokens is not None:
        tokens = int(tokens) if tokens.isdecimal() else tokens or None
    counted = tokens is None or isinstance(tokens, int) and not isinstance(tokens, bool) and tokens >= 0
    if not counted or not isinstance(prompt, str):
        raise ValueError(
            f"{where} has tokens {tokens!r} and a prompt of kind {type(prompt).__name__}; expected a whole "
            "number from 0, or none, and a text."
        )
    return {"prompt": prompt, "tokens": tokens}
