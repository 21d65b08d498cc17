"""Who is asked for verdicts: an OpenAI-compatible server, or a chat model in this process.

Each is a function messages -> Reply with an `identity`, all that a verdict depends on besides the messages. A model that will
not or cannot answer gives a Reply whose finish_reason says so; a model that could not be asked raises `JudgeError`.
"""

import hashlib
import os
import threading
from dataclasses import dataclass, replace
from math import inf
from pathlib import Path
from typing import ClassVar

from clinical_r1.engines.chat import LIMIT_NAME, ChatError, ChatServer, is_model, say_once
from clinical_r1.engines.protocol import decoding, until_end
from clinical_r1.engines.replies import Reply
from clinical_r1.engines.store import digest
from clinical_r1.files import sha256
from clinical_r1.judges.counts import opened_thought
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


class JudgeError(ChatError):
    """A model could not be asked. Nothing was cached for this request; what was asked before is."""


# ------------------------------------------------------------------------------------------- an OpenAI-compatible server


@dataclass(frozen=True)
class OpenAIServer(ChatServer):
    """A judge behind any server that speaks OpenAI's chat completions; what a request does is said in `engines.chat.ChatServer`.

    api_key_variable: where it is unset a placeholder is sent: local servers want no key.
    temperature, top_p, max_tokens, seed: None leaves the parameter out; some hosted models refuse it.
    """

    error: ClassVar[type[Exception]] = JudgeError
    called: ClassVar[str] = "judge server"
    whose: ClassVar[str] = "the judge's"
    fix_request: ClassVar[str] = (
        "fix model, max_tokens, limit_name or temperature "
        "(CLINICAL_R1_JUDGE_MODEL, _MAX_TOKENS, _LIMIT_NAME, _TEMPERATURE)."
    )

    api_key_variable: str | None = "OPENAI_API_KEY"
    temperature: float | None = 0.0
    top_p: float | None = 1.0
    max_tokens: int | None = 1024
    seed: int | None = 0

    @property
    def identity(self) -> dict:
        """What a verdict depends on: the model and its sampling."""
        names = ("model", "temperature", "top_p", "max_tokens", "seed")
        return {name: getattr(self, name) for name in names}

    def __call__(self, messages: list[dict]) -> Reply:
        """Raises JudgeError when the server gives no answer; the sentence names base_url and the fix.

        A thought that the server took apart and that nothing followed is the text, as a thought that is still open.
        """
        sampling = {name: value for name, value in self.identity.items() if name != "model"}
        reply = self.ask(messages, sampling)
        if reply.model and not is_model(self.model, reply.model):
            say_once(f"the judge server was asked for {self.model!r} and answers as {reply.model!r}.")
        unsaid = not reply.text.strip() and reply.thought.strip()
        return replace(reply, text=f"<think>{reply.thought}") if unsaid else reply


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
    if not LIMIT_NAME.fullmatch(options["limit_name"]):
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
            say_once(f"the model {self.name} takes no system turn: its instructions stand in the user turn.")
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
