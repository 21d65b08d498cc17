"""A model behind any server that speaks OpenAI's chat completions answers the test questions, under its own name.

    SERVERS = {"gpt-4o": {"base_url": "https://api.openai.com/v1", "model": "gpt-4o", "api_key_variable": "OPENAI_API_KEY"}}

Every answer is kept under runs/server_answers as soon as it is there, under what it depends on: model, sampling, messages and
seed, not the address. A run that was killed, another profile with the same questions, or a file that is made anew asks and
pays for nothing twice. Delete that folder to ask again.
"""

import json
import threading
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import ClassVar

from clinical_r1.arms import STYLES
from clinical_r1.engines.chat import ChatError, ChatServer, Spent, is_model, say_once
from clinical_r1.engines.protocol import seed_of
from clinical_r1.engines.replies import Reply
from clinical_r1.engines.store import Store, digest
from clinical_r1.files import locked, read_stamp, sha256, write_stamped
from clinical_r1.prompts import build_messages
from clinical_r1.questions import read_questions
from clinical_r1.settings import PROTOCOLS, Settings
from clinical_r1.workers import in_threads

SAMPLING = ("temperature", "top_p", "seed", "max_tokens")
LONG = 80  # characters; two draws of so long a text that are equal were not drawn
NO_TEXT = (
    "content_filter",
    "refusal",
    "tool_calls",
)  # the model was asked and gave no answer: it counts as wrong


@dataclass(frozen=True)
class Server(ChatServer):
    """An engine (`engines.protocol`) around a server; the fields of `ChatServer`, and

    leave_out: which of `SAMPLING` the model refuses, such as ("temperature", "top_p") for OpenAI's reasoning models or
        ("seed",); the server's own hold instead.
    max_tokens: None takes the run's max_completion_tokens; a model that thinks first needs more.
    extra: further fields of each request, such as {"reasoning_effort": "low"} or {"top_k": -1}.
    answers_as: the name in the server's replies where it is not `model` (`chat.is_model`), such as behind a deployment's name.
    style: of the prompt, and of the format that the answers are read in.
    at_once: requests at the same time.
    benchmarks: which of the run's are asked; None is all.
    """

    takes_empty: ClassVar[bool] = True
    fix_request: ClassVar[str] = "fix model, limit_name, leave_out, max_tokens or extra."

    timeout: float = 300.0
    leave_out: tuple[str, ...] = ()
    max_tokens: int | None = None
    extra: Mapping = field(default_factory=dict)
    answers_as: str | None = None
    style: str = "crpo"
    at_once: int = 8
    benchmarks: tuple[str, ...] | None = None

    def check_fields(self) -> None:
        super().check_fields()
        for name, known in (("leave_out", SAMPLING), ("benchmarks", None)):
            value = getattr(self, name)
            if value is None and known is None:
                continue
            if not isinstance(value, tuple | list) or not all(
                isinstance(each, str) and each in (known or [each]) for each in value
            ):
                what = f"a list of some of {', '.join(known)}" if known else "a list of names, or None"
                raise ValueError(f"{self.whose} {name} is {value!r}; expected {what}.")
        if self.benchmarks is not None and len({*self.benchmarks}) != (len(self.benchmarks) or None):
            raise ValueError(
                f"{self.whose} benchmarks is {self.benchmarks!r}; expected one or more, each once, or None for all."
            )
        if self.answers_as is not None and not (isinstance(self.answers_as, str) and self.answers_as.strip()):
            raise ValueError(f"{self.whose} answers_as is {self.answers_as!r}; expected a name, or None.")
        if self.style not in STYLES:
            raise ValueError(f"{self.whose} style is {self.style!r}; expected one of {', '.join(STYLES)}.")
        taken = {"model", "messages", "stream", "n", self.limit_name, *SAMPLING}
        if not isinstance(self.extra, Mapping) or taken & self.extra.keys():
            raise ValueError(
                f"{self.whose} extra is {self.extra!r}; expected a dict of further fields, none of {', '.join(sorted(taken))}."
            )
        try:
            json.dumps(self.extra, allow_nan=False)
        except (TypeError, ValueError) as error:
            raise ValueError(f"{self.whose} extra cannot be sent as JSON ({error}).") from None

    @property
    def identity(self) -> dict:
        """What an answer depends on besides prompt, settings and seed."""
        return {
            "model": self.model,
            "left_out": sorted(self.leave_out),
            "max_tokens": self.max_tokens,
            "extra": dict(self.extra),
            "system_turn": self.system_turn,
        }

    def prompt(self, messages: list[dict], forced: str = "") -> str:
        """The messages as JSON, as they are sent. ValueError for text that is to be put into the model's mouth."""
        if forced:
            raise ValueError(
                f"{self.model} is asked through a server, which cannot go on from a text that is put into its mouth; probe a "
                "model of this run instead."
            )
        return json.dumps(messages, ensure_ascii=False)

    def check(self, prompts: Sequence[str], settings: Settings, what: str) -> None:
        """Nothing: only the server knows its model's words and room; `answer` raises what it says."""

    def sampling(self, settings: Settings, protocol: str) -> dict:
        """What a request holds besides model, messages and seed. ValueError for greedy answers of a model without temperature."""
        cold = protocol == "greedy" or settings.eval_temperature == 0
        if protocol not in PROTOCOLS or (cold and "temperature" in self.leave_out):
            raise ValueError(
                f"{self.model} cannot be asked for {protocol!r} answers; expected one of {', '.join(PROTOCOLS)}, and greedy ones "
                "only where leave_out does not hold temperature."
            )
        sent = {
            "temperature": 0.0 if cold else settings.eval_temperature,
            "top_p": 1.0 if cold else settings.eval_top_p,
            "max_tokens": self.max_tokens or settings.max_completion_tokens,
        }
        return {name: None if name in self.leave_out else value for name, value in sent.items()}

    def keys(self, prompts, settings: Settings, protocol: str, seeds: Sequence[int]) -> list[str]:
        """The name of each answer in the store. A greedy answer has no seed."""
        sampling = self.sampling(settings, protocol)
        cold = sampling["temperature"] == 0
        asked = zip(prompts, seeds, strict=True)
        return [digest([self.identity, sampling, prompt, None if cold else seed]) for prompt, seed in asked]

    def store(self, settings: Settings, protocol: str) -> Store:
        """runs/server_answers/<model>-<hash>.jsonl: all answers of one model and sampling."""
        header = {"identity": self.identity, "sampling": self.sampling(settings, protocol)}
        name = "".join(c if c.isalnum() or c in "-." else "-" for c in self.model.rpartition("/")[2][-40:])
        folder = Path(settings.out) / "runs" / "server_answers"
        return Store(folder / f"{name.strip('.-') or 'model'}-{digest(header)[:16]}.jsonl", header)

    def answer(
        self,
        prompts: Sequence[str],
        settings: Settings,
        protocol: str,
        seeds: Sequence[int],
        spent: Spent | None = None,
    ) -> list[dict]:
        """[{"text", "finish_reason", "tokens", "prompt_tokens", "model", "thought"}]: `at_once` questions at a time.

        finish_reason: the server's, `NO_TEXT` with the text "" among them; "not said" where it says none. tokens: the server's
        count, thought included, None where it gives none. thought: what it took apart from the text. spent: receives what was
        asked and paid. ChatError stops all; what was answered before is kept.
        """
        store, sampling = self.store(settings, protocol), self.sampling(settings, protocol)
        spent, lock = spent or Spent(), threading.Lock()

        def one(task):
            key, prompt, seed = task
            row = store.find(key)
            if row is None:
                cold = sampling["temperature"] == 0 or "seed" in self.leave_out
                start = time.perf_counter()
                # 31 bits: some servers read a seed into a 32-bit number
                asked = {**self.extra, **sampling, "seed": None if cold else seed % 2**31}
                reply = self.ask(json.loads(prompt), asked)
                row = store.add({"key": key} | self._row(reply))
                with lock:
                    spent.add_reply(reply, time.perf_counter() - start)
            else:
                with lock:
                    spent.cached += 1
            return {name: value for name, value in row.items() if name != "key"}

        tasks = list(zip(self.keys(prompts, settings, protocol, seeds), prompts, seeds, strict=True))
        return in_threads(one, tasks, self.at_once, f"asking {self.model}")

    def key(self) -> str:
        key = super().key()
        if self.api_key_variable and not key:
            name = self.api_key_variable
            shown = name if name.isupper() else "the variable that api_key_variable names"  # or it is a key
            raise self.error(
                f"{shown}, which is to hold the key of the server at {self.base_url}, is not set; set it, or, "
                "for a server without keys, leave api_key_variable out."
            )
        return key

    def _row(self, reply: Reply) -> dict:
        """What is kept of a reply. ChatError for one of another model, or to a prompt that its context does not hold."""
        if reply.model and not (is_model(self.answers_as or self.model, reply.model)):
            raise ChatError(
                f"the server at {self.base_url} was asked for {self.answers_as or self.model!r} and answers as {reply.model!r}; "
                f"fix model, or, if that is the one you mean, add answers_as={reply.model!r}."
            )
        if reply.finish_reason == "context_length_exceeded":
            raise ChatError(
                f"the server at {self.base_url} has no room for a question and its answer ({reply.text}); lower max_tokens, or "
                "give the model a longer context."
            )
        row = {
            "text": "" if reply.finish_reason in NO_TEXT else reply.text,
            "finish_reason": reply.finish_reason or "not said",
            "tokens": reply.completion_tokens,
            "prompt_tokens": reply.prompt_tokens,
            "model": reply.model,
        }
        return row | ({"thought": reply.thought} if reply.thought else {})


FIELDS = tuple(item.name for item in fields(Server))


def ask_server(settings: Settings, name: str, benchmark: str, server: Server) -> Path:
    """A server's answers to a benchmark's test questions as completions of this run, under `name`; returns their file.

    Prompts are the full ones, whatever the run's own base model reads. A file that was made from the same answers is returned
    as it is; else it is made anew, from the store as far as that reaches. Prints what was asked and what it cost. One question
    is put once more with another seed, to notice a server that does not sample. ChatError when the server gives no answer; the
    same call continues there.
    """
    path = settings.completions_path(benchmark, name, settings.seeds[0])
    asked_file = settings.questions_path(benchmark, "test")
    tasks = [(q, sample) for sample in range(settings.eval_samples) for q in read_questions(asked_file)]
    prompts = [server.prompt(build_messages(question, server.style, "full")) for question, _ in tasks]
    seeds = [seed_of(settings.seeds[0], benchmark, question.id, sample) for question, sample in tasks]
    prompts.append(prompts[0])
    seeds.append(seed_of(settings.seeds[0], benchmark, tasks[0][0].id, "again"))
    made_from = {"asked": server.identity, "style": server.style, "test_questions": sha256(asked_file)[:16]}
    made_from["answers"] = digest(server.keys(prompts, settings, "sampled", seeds))
    with locked(path.with_name(f".{path.stem}.lock"), str(path)):
        if path.exists() and _is_made_from(path, made_from):
            return path
        spent = Spent()
        try:
            answers = server.answer(prompts, settings, "sampled", seeds, spent)
        except ChatError as error:
            raise ChatError(f"{name}, {benchmark}: {error}") from None
        again = answers.pop()["text"]
        cold = len(again) >= LONG and again == answers[0]["text"] and settings.eval_temperature > 0
        common = {"benchmark": benchmark, "method": name, "seed": settings.seeds[0]}
        how = {"protocol": "sampled", "style": server.style, "note": _note(server, answers, cold)}
        rows = [
            {"id": question.id, **common, "sample": sample, **how, "prompt": prompt} | answer
            for (question, sample), prompt, answer in zip(tasks, prompts[:-1], answers, strict=True)
        ]
        reasons = Counter(row["finish_reason"] for row in rows)
        print(_bill(f"{name}, {benchmark}", spent, reasons), flush=True)
        if cold:
            say_once(
                f"{name}: the server does not sample, though it was asked to with temperature {settings.eval_temperature:g}; "
                "`transformers serve` needs do_sample in the model's generation_config.json."
            )
        return write_stamped(path, rows, made_from | {"finish_reasons": dict(sorted(reasons.items()))})


def _is_made_from(path: Path, made_from: dict) -> bool:
    try:
        return read_stamp(path, "generate").items() >= made_from.items()
    except ValueError:
        return False  # made anew: its answers are in the store


def _note(server: Server, answers: Sequence[dict], cold: bool) -> str:
    """What Table 1 says beside the name."""
    named = {answer["model"] for answer in answers if answer["model"]} or {server.model}
    # a table names no folder of the machine that serves
    served = sorted(name.rpartition("/")[2] if name.startswith("/") else name for name in named)
    left = [name for name in ("temperature", "top_p", "max_tokens") if name in server.leave_out]
    own = f", with the server's own {' and '.join(left)}" if left else ""
    same = ", which gives the same words whatever the seed: it does not sample" if cold else ""
    return f"answered through a server by {' and '.join(served)}{own}{same}"


def _bill(what: str, spent: Spent, reasons: Counter) -> str:
    """One line of what was asked and what it cost."""
    tokens = (spent.prompt_tokens, spent.completion_tokens)
    counted = "tokens not said" if None in tokens else f"{tokens[0]:,} + {tokens[1]:,} tokens"
    dollars = "" if spent.dollars is None else f", {spent.dollars:.4f} dollars"
    line = f"{what}: {spent.requests} asked now ({counted}{dollars}), {spent.cached} known before"
    lost = {name: count for name, count in sorted(reasons.items()) if name in (*NO_TEXT, "length")}
    ends = ", ".join(
        f"{count} {'cut at the limit' if name == 'length' else name}" for name, count in lost.items()
    )
    return f"{line}; {ends}: what holds no letter counts as wrong." if ends else f"{line}."
