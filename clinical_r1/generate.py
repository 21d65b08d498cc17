"""Questions → completions on disk, resumable: one JSON line per completion, with the exact prompt that was sent.

Protocols: "sampled" is the paper's (temperature 0.8, top-p 0.95, one completion a question); "greedy" stands beside it.
Questions are answered in fixed batches and each batch has a seed of its own, so a run that was killed and continued
writes the same bytes as one that was not. Two more protocols serve `probes`: options shuffled, reasoning removed.
"""

import hashlib
import json
import os
from pathlib import Path

import numpy as np

from clinical_r1.completions import SECTIONS
from clinical_r1.curation import CHECKS
from clinical_r1.files import read_jsonl, same_settings, write_json
from clinical_r1.models import RL_ON, is_trained, load_policy, load_tokenizer, policy_of, weights_hash
from clinical_r1.probes import CONCLUSION_OPENS, EMPTY_REASONING, shuffle_options
from clinical_r1.prompts import STYLE_OF_METHOD, build_messages
from clinical_r1.questions import read_questions
from clinical_r1.settings import Settings

GENERATED_WITH = RL_ON + ("n_test", "eval_temperature", "eval_top_p", "eval_samples", "eval_batch")


def is_complete(settings, method, seed, benchmark, protocol) -> bool:
    """True when the completions are on disk. ValueError when they were made with other settings."""
    path = settings.completions_path(benchmark, method, seed, protocol)
    return path.exists() and same_settings(
        path.with_suffix(".json"), settings, GENERATED_WITH, weights=weights_hash(settings, method, seed)
    )


def complete_all(settings: Settings) -> list[Path]:
    """Answer every benchmark with every method and seed, unless the answers are on disk. Returns all the files."""
    from tqdm.auto import tqdm

    jobs = settings.evaluations()
    missing = [job for job in jobs if not is_complete(settings, *job)]
    loaded, policy = None, None
    for job in tqdm(missing, desc="completions", unit="file"):
        if job[:2] != loaded:
            loaded, policy = job[:2], load_method(settings, *job[:2])
        complete(settings, policy, *job)
    return [settings.completions_path(b, m, s, p) for m, s, b, p in jobs]


def load_method(settings: Settings, method: str, seed: int):
    """(model, tokenizer) of a method. ValueError when it has not been trained yet."""
    if method != "baseline" and not is_trained(settings, method, seed):
        raise ValueError(
            f"{method} with seed {seed} is not trained in {settings.run_dir}; run the training stage first."
        )
    base, adapter = policy_of(settings, method, seed)
    return load_policy(base, settings, adapter), load_tokenizer(base)


def complete(
    settings: Settings, policy, method: str, seed: int, benchmark: str, protocol: str = "sampled"
) -> Path:
    """Answer one benchmark's test questions; continues a file that a killed run left half-way."""
    samples = settings.eval_samples if protocol == "sampled" else 1
    questions = read_questions(settings.questions_path(benchmark, "test"))
    tasks = [(question, {"sample": sample}) for sample in range(samples) for question in questions]
    return _answer(settings, policy, method, seed, benchmark, protocol, tasks)


def complete_shuffled(
    settings: Settings, policy, method: str, seed: int, benchmark: str, n: int = 200
) -> Path:
    """Greedy answers to the first n test questions with their options permuted; each row holds its `permutation`.

    {letter shown: letter before}, the same for every method and seed. Questions whose options point to letters are left out.
    The greedy answers in the options' own order are the run's own (protocol "greedy"). Resumable.
    """
    rng = np.random.default_rng(sum(benchmark.encode()))
    tasks = []
    for question in read_questions(settings.questions_path(benchmark, "test"))[:n]:
        if not CHECKS["letter_options"].finds(question):
            shuffled, permutation = shuffle_options(question, rng)
            tasks.append((shuffled, {"sample": 0, "permutation": permutation}))
    return _answer(settings, policy, method, seed, benchmark, "shuffled", tasks, questions=n)


def conclude_without_reasoning(
    settings: Settings, policy, method: str, seed: int, benchmark: str, n: int = 200
) -> tuple[Path, Path]:
    """(with, without): the conclusion that the model writes after its own reasoning, and after an empty one.

    The first n greedy completions of the run are cut where their conclusion opens; what stands before it is put into the
    model's mouth (`forced`), once as it is and once with the tagged reasoning emptied, both followed by
    CONCLUSION_OPENS, and greedy decoding writes the rest (read it with `probes.concluded`). A completion without such a
    place keeps its own text under "with" (`forced` is None). Resumable.
    ValueError when the run holds no greedy completions of these questions.
    """
    style = STYLE_OF_METHOD[method]
    path = settings.completions_path(benchmark, method, seed, "greedy")
    if not path.is_file():
        raise ValueError(f"{path} is missing; complete {benchmark} with protocol 'greedy' first.")
    own = {row["id"]: row["text"] for row in read_jsonl(path)}
    questions = read_questions(settings.questions_path(benchmark, "test"))[:n]
    if missing := [question.id for question in questions if question.id not in own]:
        raise ValueError(
            f"{path} lacks {len(missing)} of {n} questions (one is {missing[0]!r}); make it again."
        )
    kept, emptied = [], []
    for question in questions:
        text = own[question.id]
        forced = reasoning_prefix(text, style)
        extra = {"sample": 0, "forced": forced} | ({} if forced else {"text": text})
        kept.append((question, extra))
        emptied.append((question, {"sample": 0, "forced": EMPTY_REASONING[style]}))
    job = (settings, policy, method, seed, benchmark)
    return (
        _answer(*job, "own-reasoning", kept, questions=n, source=_sha256(path)),
        _answer(*job, "no-reasoning", emptied, questions=n),
    )


def reasoning_prefix(text: str, style: str) -> str | None:
    """A completion up to the tag that opens its conclusion, then CONCLUSION_OPENS; None without such a tag."""
    tag = f"<{SECTIONS[style][1]}>"
    before, found, _ = text.partition(tag)
    return f"{before}{tag} {CONCLUSION_OPENS}" if found else None


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16]


def _answer(settings, policy, method, seed, benchmark, protocol, tasks, **stamped) -> Path:
    """Answer (question, further fields of its row) in fixed batches; continues a file that a killed run left half-way.

    Fields that steer: `forced`, text put into the model's mouth; `text`, an answer that needs no model. With `stamped`, a
    file that is there is returned, or refused (ValueError) if it was made from something else.
    """
    path = settings.completions_path(benchmark, method, seed, protocol)
    partial = path.with_suffix(".partial")
    stamped["weights"] = weights_hash(settings, method, seed)
    if (
        len(stamped) > 1
        and path.exists()
        and same_settings(path.with_suffix(".json"), settings, GENERATED_WITH, **stamped)
    ):
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    done = _keep_whole_batches(partial, settings.eval_batch)
    style = STYLE_OF_METHOD[method]
    names = {"benchmark": benchmark, "method": method, "seed": seed}
    with open(partial, "a", encoding="utf-8") as out:
        for start in range(done, len(tasks), settings.eval_batch):
            batch = tasks[start : start + settings.eval_batch]
            prompts = [
                policy[1].apply_chat_template(
                    build_messages(question, style, settings.prompt_layout),
                    add_generation_prompt=True,
                    tokenize=False,
                )
                for question, _ in batch
            ]
            asked = [
                prompt + (extra.get("forced") or "")
                for prompt, (_, extra) in zip(prompts, batch, strict=True)
                if "text" not in extra
            ]
            batch_seed = _batch_seed(seed, benchmark, start)
            answers = iter(
                sample_completions(*policy, asked, settings, protocol, batch_seed) if asked else ()
            )
            for (question, extra), prompt in zip(batch, prompts, strict=True):
                row = {"id": question.id, **names, "sample": extra["sample"]}
                row |= {"protocol": protocol, "style": style, "prompt": prompt}
                row |= extra if "text" in extra else _joined(next(answers), extra)
                out.write(json.dumps(row, ensure_ascii=False) + "\n")
            out.flush()
    stamp = {key: settings.to_json()[key] for key in GENERATED_WITH}
    write_json(path.with_suffix(".json"), stamp | stamped)
    os.replace(partial, path)
    return path


def _joined(answer: dict, extra: dict) -> dict:
    """The answer with what was forced before it; `tokens` counts what the model wrote."""
    forced = extra.get("forced")
    text = f"{forced} {answer['text']}" if forced else answer["text"]
    return {**answer, "text": text} | {key: extra[key] for key in extra if key != "sample"}


def _batch_seed(seed: int, benchmark: str, start: int) -> int:
    return seed * 1_000_003 + sum(benchmark.encode()) * 10_007 + start


def _keep_whole_batches(partial: Path, batch: int) -> int:
    """Cut a half-written file back to whole batches and return how many completions it keeps."""
    if not partial.exists():
        return 0
    lines = [
        line for line in partial.read_text(encoding="utf-8").splitlines(keepends=True) if line.endswith("\n")
    ]
    keep = len(lines) // batch * batch
    partial.write_text("".join(lines[:keep]), encoding="utf-8")
    return len(read_jsonl(partial))


def sample_completions(
    model, tokenizer, prompts: list[str], settings: Settings, protocol: str, seed: int
) -> list[dict]:
    """One completion a prompt: {"text", "finish_reason": "stop" | "length", "tokens"}. Same seed, same text."""
    import torch

    torch.set_num_threads(
        settings.threads
    )  # more threads than free cores make small models many times slower
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
