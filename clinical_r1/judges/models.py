"""Who is asked for verdicts: an OpenAI-compatible server, or a chat model in this process.

Each is a function messages -> Reply with an `identity`, all that a verdict depends on besides the messages. Three things go
wrong, and each has its own way: what may pass by itself is asked again; what the model will not or cannot answer is a Reply
whose finish_reason says so; anything else raises `JudgeError`. No key appears in a reply, an error, a log or a repr.
"""

import hashlib
import os
import re
import sys
import threading
import time
import weakref
from dataclasses import dataclass, replace
from functools import cache, partial
from math import inf
from pathlib import Path

from clinical_r1.engines.protocol import decoding, until_end
from clinical_r1.engines.store import digest
from clinical_r1.engines.transport import Lasting, Sender, is_address, persist, proxy_variable, scrub
from clinical_r1.files import sha256
from clinical_r1.judges.counts import opened_thought
from clinical_r1.judges.replies import Reply, SystemTurnRefused, read_answer
from clinical_r1.models import load_tokenizer, resolve_base
from clinical_r1.prompts import fold_system, render_chat

URL_VARIABLE = "CLINICAL_R1_JUDGE_URL"
MODEL_VARIABLE = "CLINICAL_R1_JUDGE_MODEL"
KEY_VARIABLE = "CLINICAL_R1_JUDGE_KEY"
LIMIT_NAME_VARIABLE = "CLINICAL_R1_JUDGE_LIMIT_NAME"
MAX_TOKENS_VARIABLE = "CLINICAL_R1_JUDGE_MAX_TOKENS"
TEMPERATURE_VARIABLE = "CLINICAL_R1_JUDGE_TEMPERATURE"
_PREFIX = "CLINICAL_R1_JUDGE_"
_VARIABLES = (
    URL_VARIABLE, MODEL_VARIABLE, KEY_VARIABLE, LIMIT_NAME_VARIABLE, MAX_TOKENS_VARIABLE, TEMPERATURE_VARIABLE,
)  # fmt: skip


class JudgeError(RuntimeError):
    """A model could not be asked. Nothing was cached for this request; what was asked before is."""


@cache
def _say(sentence: str) -> None:
    """Once in a process."""
    print(sentence, file=sys.stderr, flush=True)


# ------------------------------------------------------------------------------------------- an OpenAI-compatible server


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
class OpenAIServer:
    """Asks any server that speaks OpenAI's chat completions (OpenAI, vLLM, llama.cpp, `transformers serve`, …).

    What may pass by itself is asked again: 429, 5xx, a time-out, a broken connection, an answer without content, after 0.5 s
    doubling to 8 s, or the server's Retry-After up to two minutes. A redirect is not followed: the text goes to base_url and
    nowhere else. This machine's own address is never reached through a proxy; for others HTTPS_PROXY, HTTP_PROXY, ALL_PROXY
    and NO_PROXY hold. A model that refuses a system turn gets its instructions in the user turn; that is said once.

    base_url: with its `/v1`. The address is no part of the identity: moving the same model elsewhere keeps its verdicts.
    api_key_variable: names the environment variable that holds the key, read at each request. Where it is
        unset a placeholder is sent: local servers want no key.
    temperature, top_p, max_tokens, seed: None leaves the parameter out; some hosted models refuse it.
    limit_name: what the server calls max_tokens ("max_completion_tokens" for OpenAI's reasoning models).
    timeout: seconds for one request, from its beginning to the last byte.
    max_reply_bytes: of one answer, unpacked.
    requests_per_minute: of all threads together, retries not counted.
    dollars_per_million: price of a million (prompt, completion) tokens, or None where unknown.
    system_turn: False puts the instructions into the user turn from the start. A server that drops a system turn without a
        word cannot be told from here.
    """

    base_url: str
    model: str
    api_key_variable: str = "OPENAI_API_KEY"
    temperature: float | None = 0.0
    top_p: float | None = 1.0
    max_tokens: int | None = 1024
    seed: int | None = 0
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
                "the judge's base_url must look like http://127.0.0.1:8000/v1, without user name, password or query; "
                "a key belongs in an environment variable."
            )
        _check_fields(self)
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

    @property
    def identity(self) -> dict:
        """What a verdict depends on: the model and its sampling."""
        names = ("model", "temperature", "top_p", "max_tokens", "seed")
        return {name: getattr(self, name) for name in names}

    def __call__(self, messages: list[dict]) -> Reply:
        """Raises JudgeError when the server gives no answer; the sentence names base_url and the fix."""
        self._pace.wait()
        key = self._key()
        try:
            if self._folds.is_set():
                return self._persist(messages, key, folded=True)
            try:
                return self._persist(messages, key, folded=False)
            except SystemTurnRefused as refusal:
                return self._fold(messages, key, refusal)
        except Lasting as failure:
            # `from None`: what failed may carry the request, and with it the key.
            through = proxy_variable(self.base_url)
            proxy = f", through the proxy in {through}," if through else ""
            sentence = f"the judge server at {self.base_url}{proxy} {failure}"
            raise JudgeError(scrub(sentence, key, self.api_key_variable)) from None

    def _key(self) -> str:
        """The key that the environment variable holds, or "". JudgeError for one that no header can carry."""
        key = os.environ.get(self.api_key_variable, "").strip()
        if not (key.isascii() and key.isprintable()):
            raise JudgeError(f"{self.api_key_variable} holds a character that no key has; set it anew.")
        return key

    def _fold(self, messages, key, refusal) -> Reply:
        """Ask with the instructions in the user turn; the server's own refusal holds where that does not help either."""
        try:
            reply = self._persist(messages, key, folded=True)
        except Lasting:
            raise refusal from None
        self._folds.set()
        _say(f"the model {self.model} takes no system turn: its instructions stand in the user turn.")
        return reply

    def _persist(self, messages, key, folded) -> Reply:
        asked = {"model": self.model, "messages": fold_system(messages) if folded else messages}
        asked |= {self.limit_name: self.max_tokens, "temperature": self.temperature}
        asked |= {"top_p": self.top_p, "seed": self.seed}
        asked = {name: value for name, value in asked.items() if value is not None}
        headers = {"Authorization": f"Bearer {key or 'no-key'}"}
        read = partial(read_answer, server=self, hide=partial(scrub, key=key, name=self.api_key_variable))
        reply, failures = persist(lambda: read(self._sender.post(asked, headers)), self.retries)
        tokens, prices = (reply.prompt_tokens, reply.completion_tokens), self.dollars_per_million
        dollars = None
        if None not in (*tokens, *prices):
            dollars = sum(n * price for n, price in zip(tokens, prices, strict=True)) / 1e6
        return replace(reply, retries=failures, folded=folded, dollars=dollars)


# field -> (kind, lowest, highest); a field whose default may be None may be None
_RANGES = {
    "temperature": (float, 0, inf), "top_p": (float, 0, 1), "max_tokens": (int, 1, inf), "seed": (int, -inf, inf),
    "timeout": (float, 1e-3, 1e6), "retries": (int, 0, 1000), "max_reply_bytes": (int, 1, inf),
    "requests_per_minute": (float, 1e-3, inf),
}  # fmt: skip
_NEEDED = ("timeout", "retries", "max_reply_bytes")
_LIMIT_NAME = re.compile(r"[a-z][a-z_]{0,40}_tokens")  # no other word of a request, such as "n" or "messages"


def _check_fields(server: OpenAIServer) -> None:
    """ValueError for a field of another kind or out of its range, before anything is asked or paid for."""
    for name, (kind, low, high) in _RANGES.items():
        value = getattr(server, name)
        kinds = int if kind is int else int | float
        right = isinstance(value, kinds) and not isinstance(value, bool) and low <= value <= high
        if not (right and value < inf) and (value is not None or name in _NEEDED):
            what = "whole number" if kind is int else "number"
            raise ValueError(f"the judge's {name} is {value!r}; expected a {what} in [{low:g}, {high:g}].")
    for name in ("model", "api_key_variable"):
        value = getattr(server, name)
        if not isinstance(value, str) or not value.strip() or not value.isprintable():
            raise ValueError(f"the judge's {name} is {value!r}; expected a name.")
    if not _LIMIT_NAME.fullmatch(server.limit_name):
        raise ValueError(
            f"the judge's limit_name is {server.limit_name!r}; expected max_tokens or max_completion_tokens."
        )
    prices = server.dollars_per_million
    if len(prices) != 2 or not all(p is None or isinstance(p, int | float) and 0 <= p < inf for p in prices):
        raise ValueError(
            f"the judge's dollars_per_million is {prices!r}; expected two prices, or None for each."
        )


def server_from_environment() -> OpenAIServer | None:
    """The server that CLINICAL_R1_JUDGE_URL and CLINICAL_R1_JUDGE_MODEL name, or None when there is no URL.

    Its key, if it needs one, stands in CLINICAL_R1_JUDGE_KEY. Three more may be set: CLINICAL_R1_JUDGE_MAX_TOKENS (1024;
    empty: no limit is sent), CLINICAL_R1_JUDGE_LIMIT_NAME (max_tokens) and CLINICAL_R1_JUDGE_TEMPERATURE (0; empty: neither
    temperature nor top_p is sent). ValueError for a URL without a model or the reverse, for a value that makes no sense, and
    for another variable of that prefix, which would do nothing.
    """
    given = {name for name, value in os.environ.items() if name.startswith(_PREFIX) and value.strip()}
    if unknown := sorted(given - set(_VARIABLES)):
        raise ValueError(f"{', '.join(unknown)} is set and read by nobody; expected {', '.join(_VARIABLES)}.")
    url, model = (os.environ.get(name, "").strip() for name in (URL_VARIABLE, MODEL_VARIABLE))
    if not url:
        if given - {KEY_VARIABLE}:  # a key may stay in a shell's profile
            raise ValueError(
                f"{', '.join(sorted(given))} is set and {URL_VARIABLE} is not; set it, or unset the others."
            )
        return None
    if not model:
        raise ValueError(f"{URL_VARIABLE} is set and {MODEL_VARIABLE} is not; name the model to ask.")
    options = {"limit_name": os.environ.get(LIMIT_NAME_VARIABLE) or "max_tokens"}
    if not _LIMIT_NAME.fullmatch(options["limit_name"]):
        raise ValueError(
            f"{LIMIT_NAME_VARIABLE} is {options['limit_name']!r}; expected max_tokens or max_completion_tokens."
        )
    options["max_tokens"] = _number(MAX_TOKENS_VARIABLE, int, 1, 1024)
    options["temperature"] = _number(TEMPERATURE_VARIABLE, float, 0, 0.0)
    if options["temperature"] is None:
        options["top_p"] = None
    return OpenAIServer(url, model, api_key_variable=KEY_VARIABLE, **options)


def _number(variable: str, kind: type, least: float, default):
    """A variable's number; None where it is set and empty."""
    value = os.environ.get(variable)
    if value is None:
        return default
    if not value.strip():
        return None
    try:
        number = kind(value)
    except ValueError:
        number = -inf
    if not least <= number < inf:
        expected = "a whole number" if kind is int else "a number"
        raise ValueError(
            f"{variable} is {value!r}; expected {expected} of at least {least}, or nothing, to leave it out."
        )
    return number


# -------------------------------------------------------------------------------------------------------- a local model


@dataclass(frozen=True)
class LocalModel:
    """Asks a Transformers chat model in this process, one request at a time; for many verdicts a server is faster.

    name: a Hub id, a folder, or "clinic-base". temperature 0 is greedy; otherwise each request has a seed of its own, so
    the order of the requests changes nothing. Where the chat template refuses or drops a system turn, the instructions stand
    in the user turn, which is said once. A prompt that with its reply exceeds the model's positions is not asked.
    """

    name: str
    temperature: float = 0.0
    top_p: float = 1.0
    max_tokens: int = 1024
    seed: int = 0

    def __post_init__(self):
        import torch
        from transformers import AutoModelForCausalLM

        folder = resolve_base(self.name)
        tokenizer = load_tokenizer(self.name)
        if not tokenizer.chat_template:
            raise ValueError(f"{self.name} has no chat template; a judge must be a chat model.")
        model = AutoModelForCausalLM.from_pretrained(folder, dtype="auto").eval()
        model = model.to("cuda") if torch.cuda.is_available() else model
        local = Path(folder).is_dir()
        identity = {
            "model": Path(self.name).name if local else self.name,
            "weights": _folder_hash(Path(folder)) if local else getattr(model.config, "_commit_hash", None),
            "dtype": str(model.dtype).removeprefix("torch."),
        }
        identity |= {name: getattr(self, name) for name in ("temperature", "top_p", "max_tokens", "seed")}
        fields = {"_tokenizer": tokenizer, "_model": model, "identity": identity, "_lock": threading.Lock()}
        fields["_folds"] = not _takes_system_turn(tokenizer)
        if fields["_folds"]:
            _say(f"the model {self.name} takes no system turn: its instructions stand in the user turn.")
        for name, value in fields.items():
            object.__setattr__(self, name, value)

    def __call__(self, messages: list[dict]) -> Reply:
        with self._lock:
            return self._generate(messages)

    def _generate(self, messages: list[dict]) -> Reply:
        import torch

        messages = fold_system(messages) if self._folds else messages
        thought = opened_thought(render_chat(self._tokenizer, messages))
        inputs = self._tokenizer.apply_chat_template(
            messages, add_generation_prompt=True, return_dict=True, return_tensors="pt"
        )
        longest = getattr(self._model.config, "max_position_embeddings", None) or inf
        if inputs["input_ids"].shape[1] + self.max_tokens > longest:
            return Reply("", inputs["input_ids"].shape[1], 0, "context_length_exceeded", folded=self._folds)
        ids, mask = (inputs[name].to(self._model.device) for name in ("input_ids", "attention_mask"))
        options = decoding(self._model, self._tokenizer, self.max_tokens, self.temperature, self.top_p)
        devices = [self._model.device] if self._model.device.type == "cuda" else []
        with torch.random.fork_rng(devices), torch.inference_mode():
            torch.manual_seed(self.seed + int(digest(messages)[:8], 16))
            output = self._model.generate(input_ids=ids, attention_mask=mask, **options)
        asked = ids.shape[1]
        new = output[0, asked:].tolist()
        kept, stopped = until_end(new, options["eos_token_id"])
        # Special tokens stay: some models mark their thoughts with them.
        text = thought + self._tokenizer.decode(kept, skip_special_tokens=False)
        return Reply(text, asked, len(new), "stop" if stopped else "length", folded=self._folds)


def _takes_system_turn(tokenizer) -> bool:
    """Whether its chat template shows a system turn, and as something else than words of the assistant."""
    asked = [{"role": "system", "content": "the instructions"}, {"role": "user", "content": "the question"}]
    try:
        shown = render_chat(tokenizer, asked)
    except ValueError:
        return False
    try:
        return shown != render_chat(tokenizer, [asked[0] | {"role": "assistant"}, asked[1]])
    except ValueError:
        return True


def _folder_hash(folder: Path) -> str:
    """sha256 (16 digits) over every file of a model's folder: weights, tokenizer and chat template all shape a verdict."""
    digest = hashlib.sha256()
    for path in sorted(path for path in folder.iterdir() if path.is_file()):
        digest.update(path.name.encode() + bytes.fromhex(sha256(path)))
    return digest.hexdigest()[:16]
