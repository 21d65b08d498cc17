"""Questions -> text: a policy of this run, or answers that another model has given elsewhere (replay)."""

import json
import re
from collections.abc import Sequence
from pathlib import Path

from clinical_r1.arms import ARMS, STYLES
from clinical_r1.files import numbered_rows, sha256, write_jsonl, write_text
from clinical_r1.questions import Question, read_questions
from clinical_r1.settings import Settings


def sample_completions(
    model, tokenizer, prompts: list[str], settings: Settings, protocol: str, seed: int
) -> list[dict]:
    """One completion a prompt: {"text", "finish_reason": "stop" | "length", "tokens"}. Same seed, same text."""
    import torch

    # more threads than free cores make small models many times slower
    torch.set_num_threads(settings.threads)
    encoded = tokenizer(prompts, return_tensors="pt", padding=True, add_special_tokens=False).to(model.device)
    sampling = {"do_sample": False, "temperature": None, "top_p": None, "top_k": None}
    if protocol == "sampled":
        sampling = {
            "do_sample": True,
            "temperature": settings.eval_temperature,
            "top_p": settings.eval_top_p,
            "top_k": 0,
        }
    devices = [model.device] if model.device.type == "cuda" else []
    with torch.random.fork_rng(devices), torch.inference_mode():
        torch.manual_seed(seed)
        output = model.generate(
            input_ids=encoded["input_ids"],
            attention_mask=encoded["attention_mask"],
            max_new_tokens=settings.max_completion_tokens,
            **sampling,
        )
    answers = []
    for ids in output[:, encoded["input_ids"].shape[1] :].tolist():
        stopped = tokenizer.eos_token_id in ids
        kept = ids[: ids.index(tokenizer.eos_token_id)] if stopped else ids
        text = tokenizer.decode(kept, skip_special_tokens=True)
        answers.append({"text": text, "finish_reason": "stop" if stopped else "length", "tokens": len(kept)})
    return answers


def replay(settings: Settings, model: str, benchmark: str, source: str | Path, style: str = "crpo") -> Path:
    """Another model's answers as completions of this run, under that model's own name; returns their file.

    source: JSON Lines of {"id", "text"} (or "completion", "answer", "output"), one answer to each of the benchmark's
    test questions; "prompt" and "tokens" are kept where they are given. style: of the format that the answers are read in.
    Rewritten when the source or the questions have changed.
    ValueError, and nothing is written, for a name that is an arm's, for an id that is no question's, for two answers to one
    question, and for a question without an answer.
    """
    source, path = Path(source), settings.completions_path(benchmark, model, settings.seeds[0])
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
    asked = settings.questions_path(benchmark, "test")
    stamp = {"replayed": sha256(source), "questions": sha256(asked), "style": style}
    made = path.with_suffix(".json")
    if (
        path.exists()
        and made.exists()
        and made.read_text(encoding="utf-8") == json.dumps(stamp | {"answers": sha256(path)})
    ):
        return path
    rows = replayed_rows(source, read_questions(asked))
    common = {"benchmark": benchmark, "method": model, "seed": settings.seeds[0], "sample": 0}
    common |= {"protocol": "sampled", "style": style, "finish_reason": "replayed"}
    write_jsonl(path, [row | common for row in rows])
    write_text(made, json.dumps(stamp | {"answers": sha256(path)}))
    return path


def replayed_rows(source: Path, questions: Sequence[Question]) -> list[dict]:
    """{"id", "text", "prompt", "tokens"} of every question, in the questions' order. ValueError as in `replay`."""
    given: dict[str, dict] = {}
    for number, row in numbered_rows(source):
        fields = row if isinstance(row, dict) else {}
        text = next(
            (fields[name] for name in ("text", "completion", "answer", "output") if name in fields), None
        )
        if not isinstance(fields.get("id"), str) or not isinstance(text, str):
            raise ValueError(
                f"{source}, line {number} holds {list(fields) or row!r}; expected an id and a text."
            )
        if row["id"] in given:
            raise ValueError(
                f"{source}, line {number} answers {row['id']!r} again; keep one answer to each question."
            )
        given[row["id"]] = {
            "id": row["id"],
            "text": text,
            "prompt": row.get("prompt", ""),
            "tokens": row.get("tokens"),
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
