"""What a judge replied -> the count that it gives, or None: tags with the nonce of the question, after the last thought."""

import re

_COUNT = re.compile(r"<count-(\w++)>\s*+([0-9]++)\s*+</count-\1>")
_MOST_DIGITS = 3  # no completion of a few thousand tokens holds 1,000 instances; such a number is no count
_LONGEST_REMARK = (
    80  # characters after the count; a model that was asked to end there and writes on is in a loop
)
# How models mark a thought: Qwen, DeepSeek and many; Magistral; Kimi; Command; gpt-oss, with and without special tokens; Gemma
_THOUGHT_OPENS = (
    r"<(?:think|thinking|thought|reasoning|seed:think)>|\[THINK\]|◁think▷|<\|START_THINKING\|>"
    r"|<\|channel\|>(?:analysis|commentary)|\Aanalysis(?=[A-Z])|<\|channel>thought"
)
_THOUGHT_CLOSES = (
    r"</(?:think|thinking|thought|reasoning|seed:think)>|\[/THINK\]|◁/think▷|<\|END_THINKING\|>"
    r"|<\|channel\|>final|assistantfinal|<channel\|>"
)
_OPENS_AT_LINE_START = re.compile(rf"^[ \t]*+(?:{_THOUGHT_OPENS})", re.MULTILINE | re.IGNORECASE)
_OPENS_AT_END = re.compile(rf"(?:{_THOUGHT_OPENS})\s*\Z", re.IGNORECASE)
_CLOSES = re.compile(_THOUGHT_CLOSES, re.IGNORECASE)


def opened_thought(prompt: str) -> str:
    """The mark by which a prompt ends in a thought that the model is to go on with, or ""."""
    found = _OPENS_AT_END.search(prompt[-40:])
    return found.group() if found else ""


def split_thought(reply: str) -> tuple[str, bool]:
    """(what follows the last thought, whether a thought is still open there). A mark opens a thought where a line begins:
    elsewhere it may be quoted from the judged text."""
    end = 0
    for mark in _CLOSES.finditer(reply):
        end = mark.end()
    return reply[end:], _OPENS_AT_LINE_START.search(reply[end:]) is not None


def parse_count(reply: str | None, nonce: str) -> int | None:
    """The count in a judge's reply: 0 to 999, or None unless `<count-NONCE>N</count-NONCE>` stands there exactly once, as the
    verdict.

    Tags without the nonce, or with another, are not read: they may be quoted from the judged text. What a thinking judge
    writes before it closes its last thought is a draft, and so is a count in the middle of a sentence, or one that more than
    a remark follows; a thought that is still open gives None. Never raises; linear in the length.
    """
    if not isinstance(reply, str):
        return None
    verdict, thinking = split_thought(reply)
    counts = [found for found in _COUNT.finditer(verdict) if found.group(1) == nonce]
    if thinking or len(counts) != 1 or len(counts[0].group(2)) > _MOST_DIGITS:
        return None
    before = verdict[: counts[0].start()].rpartition("\n")[2]
    after = verdict[counts[0].end() :].strip()
    inside = any(c.isalnum() for c in before) and any(c.isalnum() for c in after)
    return None if inside or len(after) > _LONGEST_REMARK else int(counts[0].group(2))
