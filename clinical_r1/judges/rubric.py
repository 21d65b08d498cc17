"""Judges: who counts the eight process measures of a completion.

A judge is a function (question, text) -> {measure: count}. A count is None where there is no verdict that could be read, and
the whole is {} where there is nothing to judge by. The clinic's judge is exact and free; any other asks a model:

    ask(messages) -> Reply    a server or a local model (`judges.models`), `Replay`, or any function with an `identity`
    rubric_judge(ask, cache)  one question to the model for each measure, each reply kept on disk
    judge_many(pairs, judge)  several at a time; stops at the first failure and continues where it stopped

What a model replied is kept, readable or not, with the reason where it holds no count. A request that failed is no reply: it
raises `JudgeError`.
"""

import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from clinical_r1.artifacts import code_hash
from clinical_r1.engines.chat import Spent
from clinical_r1.engines.replies import NO_ANSWER, Reply
from clinical_r1.engines.store import Store, digest, read_store
from clinical_r1.judges.counts import parse_count, split_thought
from clinical_r1.judges.models import JudgeError
from clinical_r1.metrics import PROCESS_METRICS
from clinical_r1.prompts import build_judge_messages, fold_system, judge_nonce, judge_prompts_hash
from clinical_r1.questions import Question

# ------------------------------------------------------------------------------------------------------ verdicts
REASONS = (*NO_ANSWER, "unclosed thought", "unreadable")  # why a reply holds no count


def read_verdict(text: str, finish_reason: str | None, nonce: str) -> tuple[int | None, str | None]:
    """(count, None) of a judge's reply, or (None, one of REASONS)."""
    if finish_reason in NO_ANSWER:
        return None, finish_reason
    if split_thought(text)[1]:
        return None, "unclosed thought"
    count = parse_count(text, nonce)
    return count, "unreadable" if count is None else None


def verdict_store(folder: str | Path, identity: dict) -> Store:
    """The file of all verdicts of one model, sampling and set of judge prompts.

    Its first line holds identity and judge_prompts; each other line one reply: key (sha256 of identity and the messages as they
    were sent), measure, question (id), prompt (sha256 of the messages), system_turn ("own", or "folded" into the user turn),
    reply, count, reason, finish_reason, prompt_tokens, completion_tokens.
    """
    header = {"identity": identity, "judge_prompts": judge_prompts_hash()[:16]}
    name = "".join(c if c.isalnum() or c in "-." else "-" for c in Path(str(identity.get("model"))).name[:40])
    return Store(Path(folder) / f"{name}-{digest(header)[:16]}.jsonl", header)


class Replay:
    """Stored verdicts only; a verdict that is not stored raises JudgeError. Reads, never writes.

    path: a verdict file, or a folder of them in which exactly one fits. model: the model that must have judged, or None.
    ValueError, naming both, when the verdicts were made with other judge prompts or by another model.
    """

    def __init__(self, path: str | Path, model: str | None = None):
        path = Path(path)
        files = sorted(path.glob("*.jsonl")) if path.is_dir() else [path]
        headers = {file: header for file in files if (header := read_store(file)[0])}
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
        header, self._rows = read_store(self.path)
        self.identity = header["identity"]

    def find(self, key: str) -> dict | None:
        return self._rows.get(key)

    def __call__(self, messages: list[dict]) -> Reply:
        raise JudgeError(
            f"{self.path} holds no verdict for this prompt ({len(self._rows)} stored); judge it with "
            f"{self.identity.get('model')!r}, or replay with the questions, completions and show_answer that it was made with."
        )


# ------------------------------------------------------------------------------------------------------------ the judge


COUNTED = "counted"


@dataclass
class Totals(Spent):
    """What a judge has done since it was made. requests and cached sum to the number of verdicts.

    outcomes: (measure, "counted" or one of REASONS) -> verdicts, cached ones included.
    """

    outcomes: Counter = field(default_factory=Counter)

    @property
    def unparsable(self) -> dict[str, int]:
        """measure -> verdicts without a count."""
        lost = Counter({measure: 0 for measure, _ in self.outcomes})
        for (measure, outcome), n in self.outcomes.items():
            lost[measure] += n * (outcome != COUNTED)
        return dict(lost)


class RubricJudge:
    """A judge that asks a model once for each measure; made by `rubric_judge`. `totals` says what it cost, `report` how often it
    gave no count, and why."""

    def __init__(self, ask, cache, measures: tuple[str, ...], show_answer: bool, again: tuple[str, ...] = ()):
        self.ask, self.cache, self.measures, self.show_answer = ask, cache, measures, show_answer
        self.again = again
        self.totals = Totals()
        self._lock = threading.Lock()
        self._locks: dict[str, threading.Lock] = {}
        self._renewed: set[str] = set()

    def __call__(self, question: Question, text: str) -> dict[str, int | None]:
        """{measure: count, or None where there is no verdict}. JudgeError names measure and question."""
        return {name: self.verdict(name, question, text) for name in self.measures}

    @property
    def identity(self) -> dict:
        """What its counts are made from: goes into the stamp of the scores."""
        return {
            "asked": self.ask.identity,
            "judge_prompts": judge_prompts_hash()[:16],
            "measures": list(self.measures),
            "show_answer": self.show_answer,
            "read_by": code_hash("clinical_r1.judges.rubric:read_verdict"),
        }

    def report(self):
        """One row per measure: verdicts, counted, then a column for each reason that occurred, most frequent first."""
        import pandas as pd

        reasons = Counter()
        for (_, outcome), n in self.totals.outcomes.items():
            reasons[outcome] += n
        del reasons[COUNTED]
        columns = [COUNTED, *(reason for reason, _ in reasons.most_common())]
        rows = {m: {c: self.totals.outcomes[m, c] for c in columns} for m in self.measures}
        table = pd.DataFrame.from_dict(rows, orient="index", columns=columns)
        table.insert(0, "verdicts", table.sum(axis=1))
        return table.rename_axis("measure")

    def verdict(self, name: str, question: Question, text: str) -> int | None:
        """One measure. The stored reply is read anew each time, so a better parser needs no request."""
        messages = build_judge_messages(question, text, name, self.show_answer)
        nonce = judge_nonce(name, question, text)
        prompt = digest(messages)
        with self._lock:
            asking = self._locks.setdefault(prompt, threading.Lock())
        with asking:  # the same completion may be judged by two threads at once
            row = self._stored(messages)
            cached = row is not None and (
                prompt in self._renewed or _outcome(row, nonce)[1] not in self.again
            )
            if not cached:
                row = self._ask(name, question, messages, nonce, row)
                self._renewed.add(prompt)
        count, reason = _outcome(row, nonce)
        with self._lock:
            self._locks.pop(prompt, None)
            self.totals.cached += cached
            self.totals.outcomes[name, reason or COUNTED] += 1
        return count

    def _key(self, messages) -> str:
        return digest([self.ask.identity, messages])

    def _stored(self, messages) -> dict | None:
        """The reply to the messages as they were sent: with the system turn folded, if the model takes none, or as they are,
        unless the asker was told to send no system turn."""
        sent = [fold_system(messages)] + [messages] * getattr(self.ask, "system_turn", True)
        return next((row for ways in sent if (row := self.cache.find(self._key(ways)))), None)

    def _ask(self, name, question, messages, nonce, instead_of) -> dict:
        start = time.perf_counter()
        try:
            reply = self.ask(messages)
        except JudgeError as error:
            raise JudgeError(f"{name} of question {question.id}: {error}") from None
        seconds = time.perf_counter() - start
        sent = fold_system(messages) if reply.folded else messages
        count, reason = read_verdict(reply.text, reply.finish_reason, nonce)
        row = {"key": self._key(sent), "measure": name, "question": question.id, "prompt": digest(sent)}
        row |= {"system_turn": "folded" if reply.folded else "own", "reply": reply.text, "count": count}
        row |= {"reason": reason, "finish_reason": reply.finish_reason}
        row |= {"prompt_tokens": reply.prompt_tokens, "completion_tokens": reply.completion_tokens}
        row = self.cache.add(row, instead_of)
        with self._lock:
            self.totals.add_reply(reply, seconds)
        return row


def _outcome(row: dict, nonce: str) -> tuple[int | None, str | None]:
    return read_verdict(row["reply"], row["finish_reason"], nonce)


def rubric_judge(
    ask: Callable[[list[dict]], Reply],
    cache_folder: str | Path | None = None,
    measures: tuple[str, ...] = PROCESS_METRICS,
    show_answer: bool = False,
    again: tuple[str, ...] = (),
) -> RubricJudge:
    """A judge that asks a model with our rubrics and keeps every reply under cache_folder.

    ask: `OpenAIServer`, `LocalModel`, `Replay` (needs no folder), or any function with an `identity` dict.
    show_answer: tell the judge the correct letter, as the official code does; such verdicts are other verdicts.
    again: reasons, some of REASONS; a stored reply that gave no count for one of them is asked again, once in a judge's life.
    """
    if unknown := [name for name in measures if name not in PROCESS_METRICS]:
        raise ValueError(f"measures {unknown} are not known; expected some of {PROCESS_METRICS}.")
    if isinstance(again, str) or set(again) - set(REASONS):
        raise ValueError(f"again is {again!r}; expected a tuple of some of {REASONS}.")
    if isinstance(ask, Replay):
        if again:
            raise ValueError(
                "a Replay asks nobody, so nothing can be asked again; name the server or the model."
            )
        return RubricJudge(ask, ask, tuple(measures), show_answer)
    if cache_folder is None:
        raise ValueError("name a cache_folder: verdicts cost time and money, and must be traceable.")
    store = verdict_store(cache_folder, ask.identity)
    return RubricJudge(ask, store, tuple(measures), show_answer, tuple(again))
