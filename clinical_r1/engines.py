"""Questions -> text: a policy of this run, or answers that another model has given elsewhere (replay)."""

import re
from collections.abc import Sequence
from pathlib import Path

from clinical_r1.arms import ARMS, STYLES
from clinical_r1.files import numbered_rows, read_stamp, sha256, write_stamped
from clinical_r1.questions import Question, read_questions
from clinical_r1.settings import Settings

# What a model's own generation_config may ask for besides temperature, top-p and end tokens. Each would change which token is
# drawn (Qwen2.5-Instruct ships repetition_penalty 1.05), and the protocol names none of them.
NOT_OF_THE_PROTOCOL = (
    "repetition_penalty", "no_repeat_ngram_size", "min_p", "top_h", "typical_p", "epsilon_cutoff", "eta_cutoff", "min_length",
    "min_new_tokens", "bad_words_ids", "forced_bos_token_id", "forced_eos_token_id", "exponential_decay_length_penalty",
    "suppress_tokens", "begin_suppress_tokens", "sequence_bias", "guidance_scale", "stop_strings", "max_time",
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
    longest = max(map(len, tokenizer(list(prompts), add_special_tokens=False)["input_ids"]), default=0)
    if room is not None and longest + settings.max_completion_tokens > room:
        raise ValueError(
            f"the longest prompt of {what} has {longest} tokens, which with max_completion_tokens "
            f"{settings.max_completion_tokens} exceeds the {room} that {settings.base_model} is loaded for; lower "
            "max_completion_tokens, raise max_prompt_tokens (Unsloth), or use a model with a longer context."
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


def sample_completions(
    model, tokenizer, prompts: list[str], settings: Settings, protocol: str, seed: int
) -> list[dict]:
    """One completion a prompt: {"text", "finish_reason": "stop" | "length", "tokens"}. Same seed, same text.

    A text ends before the first of `end_tokens`, which `tokens` does not count.
    """
    import torch

    # more threads than free cores make small models many times slower
    torch.set_num_threads(settings.threads)
    encoded = tokenizer(prompts, return_tensors="pt", padding=True, add_special_tokens=False).to(model.device)
    temperature = settings.eval_temperature if protocol == "sampled" else 0.0
    options = decoding(model, tokenizer, settings.max_completion_tokens, temperature, settings.eval_top_p)
    devices = [model.device] if model.device.type == "cuda" else []
    with torch.random.fork_rng(devices), torch.inference_mode():
        torch.manual_seed(seed)
        output = model.generate(
            input_ids=encoded["input_ids"], attention_mask=encoded["attention_mask"], **options
        )
    answers = []
    for ids in output[:, encoded["input_ids"].shape[1] :].tolist():
        kept, ended = until_end(ids, options["eos_token_id"])
        text = tokenizer.decode(kept, skip_special_tokens=True)
        answers.append({"text": text, "finish_reason": "stop" if ended else "length", "tokens": len(kept)})
    return answers


def replay(settings: Settings, model: str, benchmark: str, source: str | Path, style: str = "crpo") -> Path:
    """Another model's answers as completions of this run, under that model's own name; returns their file.

    source: JSON Lines of {"id", "text"} (or one of "completion", "answer", "output"), one answer to each of the benchmark's
    test questions; "prompt" and "tokens" are kept where they are given. style: of the format that the answers are read in.
    Rewritten when the source or the questions have changed.
    ValueError, and nothing is written, for a name that is an arm's, for an id that is no question's, for two answers to one
    question, for a row with two of these fields that differ, and for a question without an answer.
    """
    if not isinstance(model, str) or not re.fullmatch(r"[A-Za-z0-9][\w.-]{0,80}", model):
        raise ValueError(
            f"a model is named {model!r}; expected letters, digits, '.', '_' and '-', at most 81."
        )
    if model in ARMS:
        raise ValueError(
            f"{model!r} is an arm of this run; replay another model's answers under a name of its own."
        )
    if style not in STYLES:
        raise ValueError(f"style {style!r} is not known; expected one of {', '.join(STYLES)}.")
    path, asked = (
        settings.completions_path(benchmark, model, settings.seeds[0]),
        settings.questions_path(benchmark, "test"),
    )
    made_from = {"replayed": sha256(Path(source)), "test_questions": sha256(asked)[:16], "style": style}
    if path.exists() and _is_made_from(path, made_from):
        return path
    rows = replayed_rows(Path(source), read_questions(asked))
    common = {"benchmark": benchmark, "method": model, "seed": settings.seeds[0], "sample": 0}
    common |= {"protocol": "sampled", "style": style, "finish_reason": "replayed"}
    return write_stamped(path, [row | common for row in rows], made_from)


def _is_made_from(path: Path, made_from: dict) -> bool:
    """Whether a replayed file is whole and of this source; if not it is written anew, for the source is at hand."""
    try:
        return read_stamp(path, "replay").items() >= made_from.items()
    except ValueError:
        return False


def replayed_rows(source: Path, questions: Sequence[Question]) -> list[dict]:
    """{"id", "text", "prompt", "tokens"} of every question, in the questions' order. ValueError as in `replay`."""
    given: dict[str, dict] = {}
    for number, row in numbered_rows(source):
        fields = row if isinstance(row, dict) else {}
        named = [name for name in ("text", "completion", "answer", "output") if name in fields]
        # "answer" beside "output" may well be the right one; beside "text", which is ours, it is ignored
        if named[:1] != ["text"] and any(fields[name] != fields[named[0]] for name in named):
            raise ValueError(
                f"{source}, line {number} has {' and '.join(named)}, which differ; name the model's own words text."
            )
        text = fields[named[0]] if named else None
        if not isinstance(fields.get("id"), str) or not isinstance(text, str):
            raise ValueError(
                f"{source}, line {number} holds {list(fields) or row!r}; expected an id and a text."
            )
        tokens, prompt = fields.get("tokens"), fields.get("prompt", "")
        counted = tokens is None or isinstance(tokens, int) and not isinstance(tokens, bool) and tokens >= 0
        if not counted or not isinstance(prompt, str):
            raise ValueError(
                f"{source}, line {number} has tokens {tokens!r} and a prompt of kind {type(prompt).__name__}; expected a whole "
                "number from 0, or none, and a text."
            )
        if row["id"] in given:
            raise ValueError(
                f"{source}, line {number} answers {row['id']!r} again; keep one answer to each question."
            )
        given[row["id"]] = {
            "id": row["id"],
            "text": text,
            "prompt": prompt,
            "tokens": tokens,
        }
    known = [question.id for question in questions]
    if unknown := [key for key in given if key not in set(known)]:
        raise ValueError(
            f"{source} answers {len(unknown)} questions that are not asked, such as {unknown[0]!r}; the ids asked look like "
            f"{known[0]!r}."
        )
    if missing := [key for key in known if key not in given]:
        raise ValueError(
            f"{source} answers {len(given)} of {len(known)} questions and lacks {missing[0]!r}; a question that was put and not "
            'answered has the text "", and counts as wrong.'
        )
    return [given[key] for key in known]
