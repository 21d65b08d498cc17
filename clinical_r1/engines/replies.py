"""What a server answered: a `Reply`, or a failure that may pass (`Passing`) or stays (`Lasting`).

A model that refuses, is filtered, is cut short or gets too long a prompt has answered: its Reply says why in finish_reason,
and the questions after it can still be asked. An answer without any words is a failure that may pass.
"""

import json
import re
from dataclasses import dataclass

from clinical_r1.engines.transport import PASSING_STATUSES, Answer, Lasting, Passing, asked_wait

# Why a model gave no answer that could be read; a reply that ended so holds no verdict, whatever it says.
NO_ANSWER = ("refusal", "content_filter", "context_length_exceeded", "length", "tool_calls")
_SAME_REASON = {  # words of other servers
    "max_tokens": "length",
    "model_length": "length",
    "function_call": "tool_calls",
    "safety": "content_filter",
    "prohibited_content": "content_filter",
}
_FILTERED = {
    "content_filter",
    "content_policy_violation",
    "data_inspection_failed",
    "ResponsibleAIPolicyViolation",
}
_TOO_LONG = {"context_length_exceeded", "exceed_context_size_error"}
_TOO_LONG_WORDS = re.compile(
    r"maximum context length|exceeds? the (?:available )?context (?:size|length|window)|reduce the length of the"
    r"|prompt is too long|input token count|`inputs`",
    re.I,
)
_NO_SYSTEM_TURN = re.compile(
    r"system (?:role|turn|message|prompt)|['\"]system['\"]|roles must alternate|roles are supported"
    r"|chat template|template ?error|jinja",
    re.I,
)


class SystemTurnRefused(Lasting):
    """The server speaks of roles or templates: perhaps the model takes no system turn."""


@dataclass(frozen=True)
class Reply:
    """What a model answered. None means that the server does not say.

    finish_reason: "stop", one of NO_ANSWER (length: cut at max_tokens), or the server's own word. retries: requests that
    failed before this one. dollars: at the prices the asker was given. folded: the model knows no system turn, and read
    its instructions in the user turn (`prompts.fold_system`). thought: what the server took apart from the text as the model's
    reasoning; "" where it took nothing apart. model: the name that the server answers under.
    """

    text: str
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    finish_reason: str | None = None
    retries: int = 0
    dollars: float | None = None
    folded: bool = False
    thought: str = ""
    model: str | None = None


def read_answer(answer: Answer, server, hide) -> Reply:
    """Reply, Passing or Lasting.

    server: the `chat.ChatServer` that was asked; its fields stand in the sentences. hide(text, shortest): the text without the
    key.
    """
    try:
        body = json.loads(answer.body)
    except (ValueError, RecursionError):
        body = None
    fields = body if isinstance(body, dict) else {}
    plain = _plain(answer.body, hide)
    if answer.status >= 400 or fields.get("error"):
        return _read_error(answer, fields, server, plain)
    try:
        text, thought, finish = _read_choice(fields, hide)
    except (TypeError, AttributeError):
        raise Lasting(
            f"answered, but not with a chat completion ({plain!r}); base_url must be the root of an OpenAI-compatible API, "
            "mostly ending in /v1."
        ) from None
    ended = finish in NO_ANSWER or (finish == "stop" and server.takes_empty)
    if finish == "error" or not (text.strip() or thought.strip() or ended):
        raise Passing("answered without content in", f" ({plain}); look at its log, then run again")
    served = fields.get("model")
    served = hide(served)[:200] if isinstance(served, str) and served.strip() else None
    text, thought = (_whole(hide(part)) for part in (text, thought))
    return Reply(text, *_tokens(fields.get("usage")), finish, thought=thought, model=served)


def _whole(text: str) -> str:
    """Half a surrogate pair, which JSON can carry and no file or tokenizer can hold, becomes U+FFFD."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _plain(body: bytes, hide) -> str:
    """A server's words for an error message: short, on one line, and without the key should it repeat it."""
    return " ".join(hide(body.decode("utf-8", "replace"), shortest=1).split())[:300]


def _read_choice(fields: dict, hide) -> tuple[str, str, str | None]:
    """(text, thought, finish_reason) of a chat completion, "" where it says nothing. TypeError or AttributeError for what is
    none."""
    choices = fields.get("choices", 0)
    if not isinstance(choices, list | None):
        raise TypeError("no list of choices")
    choice = choices[0] if choices else {}
    message = choice.get("message") or {}
    text, refused = read_content(message.get("content"), message.get("refusal"))
    finish = choice.get("finish_reason")
    finish = hide(finish)[:40].lower() if isinstance(finish, str) else None
    finish = "refusal" if refused else _SAME_REASON.get(finish, finish)
    thought = message.get("reasoning_content") or message.get("reasoning")
    return text, thought if isinstance(thought, str) else "", finish


def read_content(content, refusal=None) -> tuple[str, bool]:
    """(text, whether the model refused) of a message's content: None, a text, or a list of parts. TypeError for another type."""
    if content is None or isinstance(content, str):
        return content or (refusal if isinstance(refusal, str) else ""), bool(refusal)
    if not isinstance(content, list) or not all(isinstance(part, dict) for part in content):
        raise TypeError("content is neither a text nor a list of parts")
    texts = [part.get("text") for part in content if part.get("type") in ("text", "output_text")]
    refused = [part["refusal"] for part in content if isinstance(part.get("refusal"), str)]
    return "".join(texts or refused), bool(refused or refusal)


def _read_error(answer: Answer, fields: dict, server, plain: str) -> Reply:
    """A Reply where the model will not answer this prompt; otherwise Passing or Lasting."""
    codes, number = _error_codes(fields)
    status = answer.status if answer.status >= 400 else number or 500
    said = f"({status}: {plain})"
    if status < 500 and codes & _FILTERED:
        return Reply(plain, finish_reason="content_filter")
    if codes & _TOO_LONG or (status in (400, 413, 422) and _TOO_LONG_WORDS.search(plain)):
        return Reply(plain, finish_reason="context_length_exceeded")
    if status in (400, 422, 500) and _NO_SYSTEM_TURN.search(plain):
        raise SystemTurnRefused(
            f"refused the request for model {server.model!r} {said}; {server.fix_request}"
        )
    if status in PASSING_STATUSES or status >= 500:
        before, after = "failed in", f" {said}; look at its log, then run again: what was answered is kept"
        if status == 429:
            before, after = (
                "still asks to slow down after",
                f" {said}; set requests_per_minute, or check the quota",
            )
        raise Passing(before, after, asked_wait(answer.headers))
    variable = server.api_key_variable or "api_key_variable, which names none,"
    raise Lasting(
        {
            401: f"refused the key in {variable} {said}; set that variable to a key it accepts.",
            403: f"refused the key in {variable} {said}; set that variable to a key it accepts.",
            404: f"knows no model {server.model!r}, or base_url is wrong {said}; {server.base_url}/models lists them.",
        }.get(status, f"refused the request for model {server.model!r} {said}; {server.fix_request}")
    )


def _tokens(usage) -> tuple[int | None, int | None]:
    """(prompt, completion) tokens of a server's usage; None for what is not a number of tokens."""
    usage = usage if isinstance(usage, dict) else {}
    found = (usage.get("prompt_tokens"), usage.get("completion_tokens"))
    return tuple(n if type(n) is int and 0 <= n < 1e12 else None for n in found)


def _error_codes(fields: dict) -> tuple[set[str], int | None]:
    """(codes and types that an error names, its code as an HTTP status if it is one)."""
    error = fields.get("error")
    error = error if isinstance(error, dict) else fields
    inner = error.get("innererror")
    named = [error.get("code"), error.get("type"), inner.get("code") if isinstance(inner, dict) else None]
    numbers = [int(code) for code in named if re.fullmatch(r"[45]\d\d", str(code))]
    return {code for code in named if isinstance(code, str)}, numbers[0] if numbers else None
