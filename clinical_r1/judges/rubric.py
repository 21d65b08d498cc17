"""Judges: who counts the eight process measures of a completion.

A judge is a function (question, text) -> {measure: count}. A count is None where the verdict could not be read, and the
whole is {} where there is nothing to judge by. The clinic's judge is exact and free; any other asks a model:

    ask(messages) -> Reply    a server or a local model (`judges.models`), `Replay`, or any function with an `identity`
    rubric_judge(ask, cache)  one question to the model for each measure, each verdict kept on disk
    judge_many(pairs, judge)  several at a time; stops at the first failure and continues where it stopped

A verdict is what a model replied, readable or not. A request that failed is not a verdict: it raises `JudgeError`.
"""

import json
import os
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from clinical_r1.completions import parse_count
from clinical_r1.judges.models import JudgeError, Reply, digest
from clinical_r1.metrics import PROCESS_METRICS
from clinical_r1.prompts import build_judge_messages, judge_nonce, judge_prompts_hash
from clinical_r1.questions import Question

# ------------------------------------------------------------------------------------------------------ verdicts on disk
VERDICT_KEYS = ("key", "measure", "question", "prompt", "reply", "count") + (
    "finish_reason", "prompt_tokens", "completion_tokens",
)  # fmt: skip


def _header(identity: dict) -> dict:
    return {"identity": identity, "judge_prompts": judge_prompts_hash()[:16]}


def read_verdicts(path: Path) -> tuple[dict | None, dict[str, dict], int]:
    """(header, key -> row, bytes of whole lines) of a verdict file; a last line that was cut by a kill is left out.

    A missing or empty file has header None. Where a key occurs twice the first row holds. ValueError names a bad line.
    """
    data = path.read_bytes() if path.exists() else b""
    whole = data[: data.rfind(b"\n") + 1]
    header, rows = None, {}
    for number, line in enumerate(whole.splitlines(), 1):
        try:
            row = json.loads(line)
            if number == 1:
                header = {key: row[key] for key in ("identity", "judge_prompts")}
            else:
                rows.setdefault(row["key"], {name: row[name] for name in VERDICT_KEYS})
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(
                f"{path}, line {number} is no verdict ({error}); delete the line, or the file to judge anew."
            ) from error
    return header, rows, len(whole)


class VerdictCache:
    """Every verdict of one model, sampling and set of judge prompts: one JSON Lines file that only grows.

    The first line says what the verdicts were made with; each other line is one verdict: key, measure, question (id),
    prompt (sha256 of the messages), reply, count, finish_reason, prompt_tokens, completion_tokens. key: sha256 of
    (identity, messages). Safe under threads; one process at a time. A process killed while writing leaves at most one
    broken last line, which is cut off when the file is opened again.
    """

    def __init__(self, folder: str | Path, identity: dict):
        header = _header(identity)
        name = "".join(
            c if c.isalnum() or c in "-." else "-" for c in Path(str(identity.get("model"))).name[:40]
        )
        self.path = Path(folder) / f"{name}-{digest(header)[:16]}.jsonl"
        self.path.parent.mkdir(parents=True, exist_ok=True)
        found, self._rows, size = read_verdicts(self.path)
        if found not in (None, header):
            raise ValueError(f"{self.path} was made with {found}, expected {header}; move it away.")
        self._lock = threading.Lock()
        if self.path.exists() and size < self.path.stat().st_size:
            os.truncate(self.path, size)
        if found is None:
            self._append(header)

    def __len__(self) -> int:
        return len(self._rows)

    def find(self, key: str) -> dict | None:
        return self._rows.get(key)

    def add(self, row: dict) -> None:
        with self._lock:
            self._append(row)
            self._rows[row["key"]] = row

    def _append(self, row: dict) -> None:
        # ASCII JSON: a reply may hold lone surrogates. One write, so that threads and kills cannot split two lines.
        with open(self.path, "ab") as out:
            out.write(json.dumps(row).encode() + b"\n")


class Replay:
    """Stored verdicts only; a verdict that is not stored raises JudgeError. Reads, never writes.

    path: a verdict file, or a folder of them in which exactly one fits. model: the model that must have judged, or None.
    ValueError, naming both, when the verdicts were made with other judge prompts or by another model.
    """

    def __init__(self, path: str | Path, model: str | None = None):
        path = Path(path)
        files = sorted(path.glob("*.jsonl")) if path.is_dir() else [path]
        headers = {file: header for file in files if (header := read_verdicts(file)[0])}
        prompts = judge_prompts_hash()[:16]
        fitting = [
            file
            for file, header in headers.items()
            if header["judge_prompts"] == prompts and model in (None, header["identity"].get("model"))
        ]
        if len(fitting) != 1:
            held = "; ".join(
                f"{file.name}: model {h['identity'].get('model')!r}, judge prompts {h['judge_prompts']}"
                for file, h in headers.items()
            )
            raise ValueError(
                f"{path} holds {held or 'no verdicts'}; expected exactly one file with "
                f"{f'model {model!r}' if model else 'any model'}, judge prompts {prompts}. "
                "Name that file, or judge again with these prompts."
            )
        self.path = fitting[0]
        header, self._rows, _ = read_verdicts(self.path)
        self.identity = header["identity"]

    def find(self, key: str) -> dict | None:
        return self._rows.get(key)

    def __call__(self, messages: list[dict]) -> Reply:
        raise JudgeError(
            f"{self.path} holds no verdict for this prompt ({len(self._rows)} stored); judge it with "
            f"{self.identity.get('model')!r}, or replay with the questions, completions and show_answer that it was made with."
        )


# ------------------------------------------------------------------------------------------------------------ the judge


@dataclass
class Totals:
    """What a judge has done since it was made. A sum is None as soon as one request does not say its part.

    requests: answered by the model; cached: found on disk. Their sum is the number of verdicts.
    unparsable: measure -> verdicts without a readable count, cached ones included.
    seconds: waited for the model, summed over requests: eight workers can wait eight seconds in one.
    """

    requests: int = 0
    cached: int = 0
    unparsable: Counter = field(default_factory=Counter)
    retries: int = 0
    prompt_tokens: int | None = 0
    completion_tokens: int | None = 0
    dollars: float | None = 0.0
    seconds: float = 0.0

    def add_reply(self, reply: Reply, seconds: float) -> None:
        self.requests += 1
        self.retries += reply.retries
        self.seconds += seconds
        for name in ("prompt_tokens", "completion_tokens", "dollars"):
            total, part = getattr(self, name), getattr(reply, name)
            setattr(self, name, None if total is None or part is None else total + part)


class RubricJudge:
    """A judge that asks a model once for each measure; made by `rubric_judge`. `totals` says what it cost."""

    def __init__(self, ask, cache, measures: tuple[str, ...], show_answer: bool):
        self.ask, self.cache, self.measures, self.show_answer = ask, cache, measures, show_answer
        self.totals = Totals()
        self._lock = threading.Lock()
        self._locks: dict[str, threading.Lock] = {}

    def __call__(self, question: Question, text: str) -> dict[str, int | None]:
        """{measure: count, or None where the verdict cannot be read}. JudgeError names measure and question."""
        return {name: self.verdict(name, question, text) for name in self.measures}

    def verdict(self, name: str, question: Question, text: str) -> int | None:
        """One measure. The stored reply is read anew each time, so a better parser needs no request."""
        messages = build_judge_messages(question, text, name, self.show_answer)
        nonce = judge_nonce(name, question, text)
        key = digest([self.ask.identity, messages])
        with self._lock:
            asking = self._locks.setdefault(key, threading.Lock())
        with asking:  # the same completion may be judged by two threads at once
            row = self.cache.find(key)
            cached = row is not None
            if not cached:
                row = self._ask(key, name, question, messages, nonce)
        count = parse_count(row["reply"], nonce)
        with self._lock:
            self._locks.pop(key, None)
            self.totals.cached += cached
            self.totals.unparsable[name] += count is None
        return count

    def _ask(self, key, name, question, messages, nonce) -> dict:
        start = time.perf_counter()
        try:
            reply = self.ask(messages)
        except JudgeError as error:
            raise JudgeError(f"{name} of question {question.id}: {error}") from None
        seconds = time.perf_counter() - start
        row = {"key": key, "measure": name, "question": question.id, "prompt": digest(messages)}
        row |= {"reply": reply.text, "count": parse_count(reply.text, nonce)}
        row |= {part: getattr(reply, part) for part in VERDICT_KEYS[-3:]}
        self.cache.add(row)
        with self._lock:
            self.totals.add_reply(reply, seconds)
        return row


def rubric_judge(
    ask: Callable[[list[dict]], Reply],
    cache_folder: str | Path | None = None,
    measures: tuple[str, ...] = PROCESS_METRICS,
    show_answer: bool = False,
) -> RubricJudge:
    """A judge that asks a model with our rubrics and keeps every verdict under cache_folder.

    ask: `OpenAIServer`, `LocalModel`, `Replay` (needs no folder), or any function with an `identity` dict.
    show_answer: tell the judge the correct letter, as the official code does; such verdicts are other verdicts.
    """
    if unknown := [name for name in measures if name not in PROCESS_METRICS]:
        raise ValueError(f"measures {unknown} are not known; expected some of {PROCESS_METRICS}.")
    if isinstance(ask, Replay):
        return RubricJudge(ask, ask, tuple(measures), show_answer)
    if cache_folder is None:
        raise ValueError("name a cache_folder: verdicts cost time and money, and must be traceable.")
    return RubricJudge(ask, VerdictCache(cache_folder, ask.identity), tuple(measures), show_answer)
