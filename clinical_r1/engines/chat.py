"""Asks any server that speaks OpenAI's chat completions; judges and the engine that answers questions share it.

Three things go wrong, and each has its own way: what may pass by itself is asked again; what the model will not or cannot
answer is a `Reply` whose finish_reason says so; anything else raises one sentence. No key appears in a reply, an error, a log
or a repr.
"""

import os
import re
import sys
import threading
import time
import weakref
from dataclasses import dataclass, replace
from functools import cache, partial
from math import inf
from typing import ClassVar

from clinical_r1.engines.replies import Reply, SystemTurnRefused, read_answer
from clinical_r1.engines.transport import Lasting, Sender, is_address, persist, proxy_variable, scrub
from clinical_r1.prompts import fold_system


class ChatError(RuntimeError):
    """A model could not be asked. Nothing was kept of this request; what was answered before is."""


@cache
def say_once(sentence: str) -> None:
    """Once in a process."""
    print(sentence, file=sys.stderr, flush=True)


# A date or version that a hosted model's full name ends in: gpt-4o-2024-08-06, claude-3-5-sonnet-20241022, gpt-4-0613
_SNAPSHOT = re.compile(r"[-@:](?:latest|20\d\d-?\d\d-?\d\d|\d\d-\d\d|\d{3,4})$")


def is_model(asked: str, served: str) -> bool:
    """Whether a server that was asked for one model and names another as the one that answered means the same.

    Accepted: the same name in another case; without an organisation or folder before it, `@main` or another revision behind it,
    or `.gguf`; and the dated snapshot of a name that was asked without a date ("gpt-4o" is answered by "gpt-4o-2024-08-06").
    Two different dates are two models.
    """
    names = []
    for name in (asked, served):
        last = re.split(r"[/\\]", name.strip().rstrip("/\\"))[-1].casefold()
        names.append(re.sub(r"(?<=.)@(?!\d).*$", "", last).removesuffix(".gguf"))
    asked, served = names
    dated = _SNAPSHOT.search(asked)
    if dated and not asked.endswith("latest"):
        return asked == served
    return _SNAPSHOT.sub("", asked) == _SNAPSHOT.sub("", served)


@dataclass
class Spent:
    """What asking has cost. A sum is None as soon as one request does not say its part.

    requests: answered by the model; cached: found on disk. seconds: waited for the model, summed over requests: eight at a time
    can wait eight seconds in one.
    """

    requests: int = 0
    cached: int = 0
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


class _Pace:
    """Lets at most so many callers a minute through, evenly spaced; None lets all through."""

    def __init__(self, per_minute: float | None):
        self.gap = 60 / per_minute if per_minute else 0.0
        self.next = 0.0
        self.lock = threading.Lock()

    def wait(self) -> None:
        with self.lock:
            start = max(self.next, time.monotonic())
            self.next = start + self.gap
        time.sleep(max(0.0, start - time.monotonic()))


@dataclass(frozen=True)
class ChatServer:
    """A server that speaks OpenAI's chat completions (OpenAI, vLLM, SGLang, llama.cpp, `transformers serve`, …).

    What may pass by itself is asked again: 429, 5xx, a time-out, a broken connection, an answer without content, after 0.5 s
    doubling to 8 s, or the server's Retry-After up to two minutes. A redirect is not followed: the text goes to base_url and
    nowhere else. This machine's own address is never reached through a proxy; for others HTTPS_PROXY, HTTP_PROXY, ALL_PROXY
    and NO_PROXY hold. A model that refuses a system turn gets its instructions in the user turn; that is said once.

    base_url: with its `/v1`. The address is no part of what an answer depends on: moving the same model elsewhere keeps them.
    api_key_variable: names the environment variable that holds the key, read at each request; None: no key is sent.
    limit_name: what the server calls max_tokens ("max_completion_tokens" for OpenAI's reasoning models).
    timeout: seconds for one request, from its beginning to the last byte.
    max_reply_bytes: of one answer, unpacked.
    requests_per_minute: of all threads together, retries not counted.
    dollars_per_million: price of a million (prompt, completion) tokens, or None where unknown.
    system_turn: False puts the instructions into the user turn from the start. A server that drops a system turn without a
        word cannot be told from here.
    """

    error: ClassVar[type[Exception]] = ChatError
    called: ClassVar[str] = "server"
    whose: ClassVar[str] = "the server's"
    fix_request: ClassVar[str] = "fix model, max_tokens or limit_name."
    takes_empty: ClassVar[bool] = False  # whether nothing, ended by the model itself, is an answer

    base_url: str
    model: str
    api_key_variable: str | None = None
    limit_name: str = "max_tokens"
    timeout: float = 60.0
    retries: int = 5
    max_reply_bytes: int = 4_000_000
    requests_per_minute: float | None = None
    dollars_per_million: tuple[float | None, float | None] = (None, None)
    system_turn: bool = True

    def __post_init__(self):
        if not is_address(self.base_url):
            # Not repeated in the message: it may hold a secret.
            raise ValueError(
                f"{self.whose} base_url must look like http://127.0.0.1:8000/v1, without user name, password or query; "
                "a key belongs in an environment variable."
            )
        self.check_fields()
        sender = Sender(f"{self.base_url.rstrip('/')}/chat/completions", self.timeout, self.max_reply_bytes)
        weakref.finalize(self, sender.close)
        folds = threading.Event()
        if not self.system_turn:
            folds.set()
        for name, value in {
            "_sender": sender,
            "_pace": _Pace(self.requests_per_minute),
            "_folds": folds,
        }.items():
            object.__setattr__(self, name, value)

    def ask(self, messages: list[dict], sampling: dict) -> Reply:
        """One answer. sampling: temperature, top_p, seed and whatever else the request is to hold, None leaves it out; max_tokens
        goes under `limit_name`. Raises `error` when the server gives no answer; the sentence names base_url and the fix."""
        self._pace.wait()
        key = self.key()
        try:
            if self._folds.is_set():
                return self._persist(messages, sampling, key, folded=True)
            try:
                return self._persist(messages, sampling, key, folded=False)
            except SystemTurnRefused as refusal:
                if not any(message["role"] == "system" for message in messages):
                    raise
                return self._fold(messages, sampling, key, refusal)
        except Lasting as failure:
            # `from None`: what failed may carry the request, and with it the key.
            through = proxy_variable(self.base_url)
            proxy = f", through the proxy in {through}," if through else ""
            sentence = f"the {self.called} at {self.base_url}{proxy} {failure}"
            raise self.error(scrub(sentence, key, self.api_key_variable)) from None

    def key(self) -> str:
        """The key that the environment variable holds, or "". Raises `error` for one that no header can carry."""
        key = os.environ.get(self.api_key_variable or "", "").strip()
        if not (key.isascii() and key.isprintable()):
            raise self.error(f"{self.api_key_variable} holds a character that no key has; set it anew.")
        return key

    def _fold(self, messages, sampling, key, refusal) -> Reply:
        """Ask with the instructions in the user turn; the server's own refusal holds where that does not help either."""
        try:
            reply = self._persist(messages, sampling, key, folded=True)
        except Lasting:
            raise refusal from None
        self._folds.set()
        say_once(f"the model {self.model} takes no system turn: its instructions stand in the user turn.")
        return reply

    def _persist(self, messages, sampling, key, folded) -> Reply:
        asked = {"model": self.model, "messages": fold_system(messages) if folded else messages}
        asked |= {self.limit_name if name == "max_tokens" else name: v for name, v in sampling.items()}
        asked = {name: value for name, value in asked.items() if value is not None}
        headers = {"Authorization": f"Bearer {key or 'no-key'}"}
        read = partial(read_answer, server=self, hide=partial(scrub, key=key, name=self.api_key_variable))
        reply, failures = persist(lambda: read(self._sender.post(asked, headers)), self.retries)
        tokens, prices = (reply.prompt_tokens, reply.completion_tokens), self.dollars_per_million
        dollars = None
        if None not in (*tokens, *prices):
            dollars = sum(n * price for n, price in zip(tokens, prices, strict=True)) / 1e6
        return replace(reply, retries=failures, folded=folded, dollars=dollars)

    def check_fields(self) -> None:
        """ValueError for a field of another kind or out of its range, before anything is asked or paid for."""
        for name, (kind, low, high) in _RANGES.items():
            value = getattr(self, name, low)
            kinds = int if kind is int else int | float
            right = isinstance(value, kinds) and not isinstance(value, bool) and low <= value <= high
            if not (right and value < inf) and (value is not None or name in _NEEDED):
                what = "whole number" if kind is int else "number"
                raise ValueError(
                    f"{self.whose} {name} is {value!r}; expected a {what} in [{low:g}, {high:g}]."
                )
        if not (isinstance(self.model, str) and self.model.strip() and self.model.isprintable()):
            raise ValueError(f"{self.whose} model is {self.model!r}; expected a name.")
        variable = self.api_key_variable
        if variable is not None and not (isinstance(variable, str) and VARIABLE.fullmatch(variable)):
            raise ValueError(  # not shown: it may be the key
                f"{self.whose} api_key_variable is no name of an environment variable, such as OPENAI_API_KEY; put the key into "
                "a variable and name that."
            )
        if not isinstance(self.system_turn, bool):
            raise ValueError(f"{self.whose} system_turn is {self.system_turn!r}; expected True or False.")
        if not LIMIT_NAME.fullmatch(str(self.limit_name)):
            raise ValueError(
                f"{self.whose} limit_name is {self.limit_name!r}; expected max_tokens or max_completion_tokens."
            )
        prices = self.dollars_per_million
        if (
            not isinstance(prices, tuple | list)
            or len(prices) != 2
            or not all(p is None or isinstance(p, int | float) and 0 <= p < inf for p in prices)
        ):
            raise ValueError(
                f"{self.whose} dollars_per_million is {prices!r}; expected two prices, or None for each."
            )


# field -> (kind, lowest, highest); a field whose default may be None may be None, one that a kind of server lacks passes
_RANGES = {
    "temperature": (float, 0, inf), "top_p": (float, 0, 1), "max_tokens": (int, 1, inf), "seed": (int, -(2**63), inf),
    "timeout": (float, 1e-3, 1e6), "retries": (int, 0, 1000), "max_reply_bytes": (int, 1, inf),
    "requests_per_minute": (float, 1e-3, inf), "at_once": (int, 1, 1000),
}  # fmt: skip
_NEEDED = ("timeout", "retries", "max_reply_bytes", "at_once")
VARIABLE = re.compile(r"[A-Za-z_]\w*", re.ASCII)
LIMIT_NAME = re.compile(r"[a-z][a-z_]{0,40}_tokens")  # no other word of a request, such as "n" or "messages"
