"""Who is asked for verdicts: an OpenAI-compatible server, or a chat model in this process.

Each is a function messages -> Reply with an `identity`, all that a verdict depends on besides the messages. A request that
failed raises `JudgeError`; no key appears in an error, a log or a repr.
"""

import hashlib
import json
import os
import threading
import time
import weakref
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

from clinical_r1.engines import decoding, until_end
from clinical_r1.files import sha256
from clinical_r1.models import load_tokenizer, resolve_base

URL_VARIABLE = "CLINICAL_R1_JUDGE_URL"
MODEL_VARIABLE = "CLINICAL_R1_JUDGE_MODEL"
KEY_VARIABLE = "CLINICAL_R1_JUDGE_KEY"


class JudgeError(RuntimeError):
    """A model could not be asked. Nothing was cached for this request; what was asked before is."""


@dataclass(frozen=True)
class Reply:
    """What a model answered. None means that the server does not say.

    finish_reason: "stop", "length" (cut at max_tokens) or the server's own word. retries: requests that failed before this
    one. dollars: at the prices the asker was given.
    """

    text: str
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    finish_reason: str | None = None
    retries: int = 0
    dollars: float | None = None


def digest(value) -> str:
    """sha256 of a JSON value."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


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


def _read_key(variable: str) -> str:
    """The key that an environment variable holds, or a placeholder. JudgeError for one that no header can carry."""
    key = os.environ.get(variable, "").strip()
    if not (key.isascii() and key.isprintable()):
        raise JudgeError(f"{variable} holds a character that no key has; set it anew.")
    return key or "no-key"


@dataclass(frozen=True)
class OpenAIServer:
    """Asks any server that speaks OpenAI's chat completions (OpenAI, vLLM, llama.cpp, `transformers serve`, …).

    The `openai` client waits, retries (429, 5xx, time-outs, broken connections; 0.5 s doubling to 8 s, or the server's
    Retry-After up to two minutes) and pools connections.

    base_url: with its `/v1`. The address is no part of the identity: moving the same model elsewhere keeps its verdicts.
    api_key_variable: names the environment variable that holds the key, read at each request. Where it is
        unset a placeholder is sent: local servers want no key.
    temperature, top_p, seed: None leaves the parameter out; some hosted models refuse it.
    limit_name: what the server calls max_tokens ("max_completion_tokens" for OpenAI's reasoning models).
    timeout: seconds without a byte before a request counts as failed.
    requests_per_minute: of all threads together, retries not counted.
    dollars_per_million: price of a million (prompt, completion) tokens, or None where unknown.
    """

    base_url: str
    model: str
    api_key_variable: str = "OPENAI_API_KEY"
    temperature: float | None = 0.0
    top_p: float | None = 1.0
    max_tokens: int = 1024
    seed: int | None = 0
    limit_name: str = "max_tokens"
    timeout: float = 60.0
    retries: int = 5
    requests_per_minute: float | None = None
    dollars_per_million: tuple[float | None, float | None] = (None, None)

    def __post_init__(self):
        parts = urlsplit(self.base_url)
        if parts.scheme not in ("http", "https") or not parts.hostname or "@" in parts.netloc or parts.query:
            # Not repeated in the message: it may hold a secret.
            raise ValueError(
                "the judge's base_url must look like http://127.0.0.1:8000/v1, without user name, password or query; "
                "a key belongs in an environment variable."
            )
        from openai import OpenAI

        key = partial(_read_key, self.api_key_variable)
        client = OpenAI(base_url=self.base_url, api_key=key, timeout=self.timeout, max_retries=self.retries)
        weakref.finalize(self, client.close)
        object.__setattr__(self, "_client", client)
        object.__setattr__(self, "_pace", _Pace(self.requests_per_minute))

    @property
    def identity(self) -> dict:
        """What a verdict depends on: the model and its sampling."""
        names = ("model", "temperature", "top_p", "max_tokens", "seed")
        return {name: getattr(self, name) for name in names}

    def __call__(self, messages: list[dict]) -> Reply:
        """Raises JudgeError when the server gives no answer; the sentence names base_url and the fix."""
        import openai

        sampling = {
            name: value
            for name in ("temperature", "top_p", "seed")
            if (value := getattr(self, name)) is not None
        }
        self._pace.wait()
        # `from None`: an openai error carries the request, and with it the key.
        try:
            raw = self._client.chat.completions.with_raw_response.create(
                model=self.model, messages=messages, **{self.limit_name: self.max_tokens}, **sampling
            )
        except openai.APIError as error:
            raise JudgeError(self._explain(error)) from None
        try:
            return self._reply(raw)
        except (ValueError, AttributeError, TypeError, LookupError, RecursionError, openai.OpenAIError):
            raise JudgeError(
                f"the judge server at {self.base_url} answered, but not with a chat completion "
                f"({self._plain(raw.text)!r}); base_url must be the root of an OpenAI-compatible API, mostly ending in /v1."
            ) from None

    def _reply(self, raw) -> Reply:
        answer = raw.parse()
        choice, usage = answer.choices[0], answer.usage
        text = choice.message.content
        if not isinstance(text, str | None):
            raise TypeError("content is no text")
        tokens = (usage.prompt_tokens, usage.completion_tokens) if usage else (None, None)
        dollars = None
        if None not in (*tokens, *self.dollars_per_million):
            dollars = sum(n * price for n, price in zip(tokens, self.dollars_per_million, strict=True)) / 1e6
        return Reply(text or "", *tokens, choice.finish_reason, raw.retries_taken, dollars)

    def _plain(self, text: str) -> str:
        """A server's words for an error message: short, on one line, and without the key should it repeat it."""
        return " ".join(
            str(text).replace(_read_key(self.api_key_variable), f"[{self.api_key_variable}]").split()
        )[:300]

    def _explain(self, error) -> str:
        import openai

        server, status = f"the judge server at {self.base_url}", getattr(error, "status_code", None)
        tries = f"{self.retries + 1} tries"
        if isinstance(error, openai.APITimeoutError):
            return f"{server} did not answer within {self.timeout:g} s in {tries}; raise timeout, or see what it is doing."
        if isinstance(error, openai.APIConnectionError):
            cause = type(error.__cause__).__name__
            return (
                f"{server} could not be reached, or hung up, in {tries} ({cause}); start it, or fix base_url."
            )
        # The body itself: the client's message leaves out what does not follow OpenAI's form, as FastAPI's does not.
        said = f"({status}: {self._plain(error.response.text if status else error.message)})"
        if status in (401, 403):
            return f"{server} refused the key in {self.api_key_variable} {said}; set that variable to a key it accepts."
        if status == 404:
            return f"{server} knows no model {self.model!r}, or base_url is wrong {said}; {self.base_url}/models lists them."
        if status == 429:
            return f"{server} still asks to slow down after {tries} {said}; set requests_per_minute, or check the quota."
        if status is not None and status >= 500:
            return f"{server} failed in {tries} {said}; look at its log, then run again: what is judged stays judged."
        return f"{server} refused the request for model {self.model!r} {said}; fix model, max_tokens or the sampling."


def server_from_environment() -> OpenAIServer | None:
    """The server that CLINICAL_R1_JUDGE_URL and CLINICAL_R1_JUDGE_MODEL name, or None when there is no URL.

    Its key, if it needs one, stands in CLINICAL_R1_JUDGE_KEY. ValueError for a URL without a model.
    """
    url, model = os.environ.get(URL_VARIABLE), os.environ.get(MODEL_VARIABLE)
    if not url:
        return None
    if not model:
        raise ValueError(f"{URL_VARIABLE} is set and {MODEL_VARIABLE} is not; name the model to ask.")
    return OpenAIServer(url, model, api_key_variable=KEY_VARIABLE)


# -------------------------------------------------------------------------------------------------------- a local model


@dataclass(frozen=True)
class LocalModel:
    """Asks a Transformers chat model in this process, one request at a time; for many verdicts a server is faster.

    name: a Hub id, a folder, or "clinic-base". temperature 0 is greedy; otherwise each request has a seed of its own, so
    the order of the requests changes nothing.
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
        for name, value in fields.items():
            object.__setattr__(self, name, value)

    def __call__(self, messages: list[dict]) -> Reply:
        with self._lock:
            return self._generate(messages)

    def _generate(self, messages: list[dict]) -> Reply:
        import torch

        inputs = self._tokenizer.apply_chat_template(
            messages, add_generation_prompt=True, return_dict=True, return_tensors="pt"
        )
        ids, mask = (inputs[name].to(self._model.device) for name in ("input_ids", "attention_mask"))
        options = decoding(self._model, self._tokenizer, self.max_tokens, self.temperature, self.top_p)
        devices = [self._model.device] if self._model.device.type == "cuda" else []
        with torch.random.fork_rng(devices), torch.inference_mode():
            torch.manual_seed(self.seed + int(digest(messages)[:8], 16))
            output = self._model.generate(input_ids=ids, attention_mask=mask, **options)
        asked = ids.shape[1]
        new = output[0, asked:].tolist()
        kept, stopped = until_end(new, options["eos_token_id"])
        text = self._tokenizer.decode(kept, skip_special_tokens=True)
        return Reply(text, asked, len(new), "stop" if stopped else "length")


def _folder_hash(folder: Path) -> str:
    """sha256 (16 digits) over every file of a model's folder: weights, tokenizer and chat template all shape a verdict."""
    digest = hashlib.sha256()
    for path in sorted(path for path in folder.iterdir() if path.is_file()):
        digest.update(path.name.encode() + bytes.fromhex(sha256(path)))
    return digest.hexdigest()[:16]
