"""Questions → completions on disk, resumable: one JSON line per completion, with the exact prompt that was sent.

Protocols: "sampled" is the paper's (temperature 0.8, top-p 0.95, one completion a question); "greedy" stands beside it.
Questions are answered in fixed batches and each batch has a seed of its own, so a run that was killed and continued
writes the same bytes as one that was not.
"""

import json
import os
from pathlib import Path

from clinical_r1.files import read_jsonl, same_settings, write_json
from clinical_r1.models import RL_ON, is_trained, load_policy, load_tokenizer, policy_of, weights_hash
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
    model, tokenizer = policy
    style, samples = STYLE_OF_METHOD[method], settings.eval_samples if protocol == "sampled" else 1
    questions = read_questions(settings.questions_path(benchmark, "test"))
    tasks = [(question, sample) for sample in range(samples) for question in questions]
    path = settings.completions_path(benchmark, method, seed, protocol)
    partial = path.with_suffix(".partial")
    path.parent.mkdir(parents=True, exist_ok=True)
    done = _keep_whole_batches(partial, settings.eval_batch)
    with open(partial, "a", encoding="utf-8") as out:
        for start in range(done, len(tasks), settings.eval_batch):
            batch = tasks[start : start + settings.eval_batch]
            prompts = [
                tokenizer.apply_chat_template(
                    build_messages(question, style, settings.prompt_layout),
                    add_generation_prompt=True,
                    tokenize=False,
                )
                for question, _ in batch
            ]
            batch_seed = _batch_seed(seed, benchmark, start)
            answers = sample_completions(model, tokenizer, prompts, settings, protocol, batch_seed)
            for (question, sample), prompt, answer in zip(batch, prompts, answers, strict=True):
                row = {
                    "id": question.id,
                    "benchmark": benchmark,
                    "method": method,
                    "seed": seed,
                    "sample": sample,
                }
                row |= {"protocol": protocol, "style": style, "prompt": prompt, **answer}
                out.write(json.dumps(row, ensure_ascii=False) + "\n")
            out.flush()
    stamp = {key: settings.to_json()[key] for key in GENERATED_WITH}
    write_json(path.with_suffix(".json"), stamp | {"weights": weights_hash(settings, method, seed)})
    os.replace(partial, path)
    return path


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
