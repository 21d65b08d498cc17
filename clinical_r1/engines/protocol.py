"""What every engine keeps to: how it is asked, where an answer ends, what may be put to it.

An engine answers prompts. It has

    identity                                     JSON; what an answer depends on besides prompt, settings and weights
    prompt(messages, forced="")                  the text that is sent, with what is put into the model's mouth behind it
    check(prompts, settings, what)               ValueError for prompts that it cannot read or that leave no room
    answer(prompts, settings, protocol, seeds)   [{"text", "finish_reason": "stop" | "length", "tokens"}, ...]

protocol: "sampled" or "greedy" (`settings.PROTOCOLS`). seeds: one whole number a prompt; an answer depends on its own prompt
and seed, not on what else is asked beside it. A text ends before the first end token, which `tokens` does not count.
"""

import hashlib
from collections.abc import Sequence

from clinical_r1.settings import Settings

# What a model's own generation_config may ask for besides temperature, top-p and end tokens. Each would change which token is
# drawn (Qwen2.5-Instruct ships repetition_penalty 1.05), and the protocol names none of them.
NOT_OF_THE_PROTOCOL = (
    "repetition_penalty", "no_repeat_ngram_size", "min_p", "top_h", "typical_p", "epsilon_cutoff", "eta_cutoff", "min_length",
    "min_new_tokens", "bad_words_ids", "forced_bos_token_id", "forced_eos_token_id", "exponential_decay_length_penalty",
    "suppress_tokens", "begin_suppress_tokens", "sequence_bias", "guidance_scale", "stop_strings", "max_time", "max_length",
)  # fmt: skip
UNKNOWN_LIMIT = 0.05  # share of a prompt's tokens above which a model has not read the question


def check_prompts(model, tokenizer, prompts: Sequence[str], settings: Settings, what: str) -> None:
    """ValueError for prompts that the model cannot read (`check_words`), or that leave no room for the answer.

    what: where the prompts come from, for the message.
    """
    check_words(tokenizer, prompts, settings, what)
    room = getattr(model.config, "max_position_embeddings", None)
    if settings.backend == "unsloth":  # loaded for so many tokens and no more
        room = settings.max_prompt_tokens + settings.max_completion_tokens
    rows = tokenizer(list(prompts), add_special_tokens=False)["input_ids"]
    known = getattr(model.config, "vocab_size", None)
    if known is not None and (highest := max(map(max, filter(None, rows)), default=0)) >= known:
        raise ValueError(
            f"the tokenizer writes {what} with the token {highest} and the model has {known}; it belongs to another model: "
            "copy the model's folder whole, with its own tokenizer."
        )
    longest = max(map(len, rows), default=0)
    if room is not None and longest + settings.max_completion_tokens > room:
        raise ValueError(
            f"the longest prompt of {what} has {longest} tokens, which with max_completion_tokens "
            f"{settings.max_completion_tokens} exceeds the {room} that {settings.base_model} is loaded for; lower "
            "max_completion_tokens, raise max_prompt_tokens (Unsloth, vLLM), or use a model with a longer context."
        )


def check_words(tokenizer, texts: Sequence[str], settings: Settings, what: str) -> None:
    """ValueError for texts of which more than `UNKNOWN_LIMIT` of the tokens are unknown; a byte-level tokenizer knows all."""
    unknown = tokenizer.unk_token_id
    if unknown is None or tokenizer.unk_token in (tokenizer.eos_token, tokenizer.bos_token):
        return
    ids = tokenizer(list(texts), add_special_tokens=False)["input_ids"]
    counts = [row.count(unknown) for row in ids]
    if above := [i for i, row in enumerate(ids) if counts[i] > UNKNOWN_LIMIT * len(row)]:
        raise ValueError(
            f"{settings.base_model} does not know {sum(counts) / sum(map(len, ids)):.0%} of the tokens of {what}: "
            f"{len(above)} of {len(ids)} texts hold more than {UNKNOWN_LIMIT:.0%} unknown ones"
            f"{_unknown_words(tokenizer, texts[above[0]])}. Use a model whose tokenizer covers these questions: the clinic's "
            "base model reads the clinic only."
        )


def _unknown_words(tokenizer, text: str) -> str:
    """ ", such as 'x', 'y'": the first unknown words of a text; nothing for a tokenizer that does not tell where they stand."""
    if not tokenizer.is_fast:
        return ""
    encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    pairs = zip(encoded["input_ids"], encoded["offset_mapping"], strict=True)
    words = dict.fromkeys(text[start:end] for token, (start, end) in pairs if token == tokenizer.unk_token_id)
    return ", such as " + ", ".join(map(repr, list(words)[:3]))


def seed_of(seed: int, benchmark: str, question: str, sample) -> int:
    """The seed of one answer, in [0, 2^63): the same for every model and whatever else is asked, in whatever order."""
    parts = " ".join((str(seed), benchmark, question, str(sample)))
    return int(hashlib.sha256(parts.encode()).hexdigest()[:16], 16) % 2**63


def end_tokens(model, tokenizer) -> list[int]:
    """All tokens at which an answer ends: those of the model's generation_config (one, several, none), and the tokenizer's."""
    own = model.generation_config.eos_token_id
    ends = {tokenizer.eos_token_id, *(own if isinstance(own, list | tuple) else [own])} - {None}
    if not ends:
        raise ValueError(
            f"neither {tokenizer.name_or_path} nor its generation_config names an end token; set its eos_token_id, or every "
            "answer is cut by length."
        )
    return sorted(ends)


def decoding(model, tokenizer, max_new_tokens: int, temperature: float = 0.0, top_p: float = 1.0) -> dict:
    """Keywords of `model.generate`: greedy at temperature 0, otherwise sampled; ending at `end_tokens`; and nothing else that the
    model's own generation_config asks for.
    """
    sampling = {"do_sample": False, "temperature": None, "top_p": None, "top_k": None}
    if temperature > 0:
        sampling = {"do_sample": True, "temperature": temperature, "top_p": top_p, "top_k": 0}
    ends = {"eos_token_id": end_tokens(model, tokenizer), "pad_token_id": tokenizer.pad_token_id}
    return (
        dict.fromkeys(NOT_OF_THE_PROTOCOL)
        | {"num_beams": 1, "max_new_tokens": max_new_tokens}
        | ends
        | sampling
    )


def until_end(ids: Sequence[int], ends: Sequence[int]) -> tuple[list[int], bool]:
    """(tokens before the first end, whether there is one). What follows an end is padding, whichever token pads."""
    length = next((i for i, token in enumerate(ids) if token in ends), len(ids))
    return list(ids[:length]), length < len(ids)
