"""Questions → completions on disk, resumable: one JSON line per completion, with the exact prompt that was sent.

Protocols: "sampled" is the paper's (temperature 0.8, top-p 0.95, one completion a question); "greedy" stands beside it.
Questions are answered in fixed batches and each batch has a seed of its own, so a run that was killed and continued
writes the same bytes as one that was not. Two more protocols serve `probes`: options shuffled, reasoning removed.
"""

import os
from pathlib import Path

from clinical_r1 import extensions
from clinical_r1.arms import ARMS
from clinical_r1.artifacts import RL_ON, StaleError, is_trained, policy_hash, policy_of, same_settings
from clinical_r1.engines import replay, sample_completions
from clinical_r1.files import json_line, read_jsonl, sha256, write_json
from clinical_r1.models import load_policy, load_tokenizer
from clinical_r1.prompts import build_messages
from clinical_r1.questions import read_questions
from clinical_r1.settings import Settings

GENERATED_WITH = RL_ON + ("n_test", "eval_temperature", "eval_top_p", "eval_samples", "eval_batch")


def is_complete(settings, method, seed, benchmark, protocol) -> bool:
    """True when the completions are on disk. ValueError when they were made with other settings."""
    path = settings.completions_path(benchmark, method, seed, protocol)
    made_from = {
        "weights": policy_hash(settings, method, seed),
        "asked": _questions_hash(settings, benchmark),
    }
    try:
        return path.exists() and same_settings(
            path.with_suffix(".json"), settings, GENERATED_WITH, **made_from
        )
    except StaleError as error:
        if error.changed != ("asked",) or not extensions.has_questions(benchmark):
            raise
        path.unlink()  # a user's own questions have changed: they are answered again
        return False


def _questions_hash(settings, benchmark) -> str:
    return sha256(settings.questions_path(benchmark, "test"))[:16]


def complete_all(settings: Settings) -> list[Path]:
    """Answer every benchmark with every method and seed, unless the answers are on disk. Returns all the files."""
    from tqdm.auto import tqdm

    jobs = settings.evaluations()
    own = extensions.loaded()
    for model, benchmark in settings.outside:
        replay(settings, model, benchmark, own.answers[model][benchmark])
    missing = [job for job in jobs if job[0] in ARMS and not is_complete(settings, *job)]
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
    return answer_questions(settings, policy, method, seed, benchmark, protocol, tasks)


def answer_questions(settings, policy, method, seed, benchmark, protocol, tasks, **stamped) -> Path:
    """Answer (question, further fields of its row) in fixed batches; continues a file that a killed run left half-way.

    Fields that steer: `forced`, text put into the model's mouth; `text`, an answer that needs no model. With `stamped`, a
    file that is there is returned, or refused (ValueError) if it was made from something else.
    """
    path = settings.completions_path(benchmark, method, seed, protocol)
    partial = path.with_suffix(".partial")
    stamped["weights"] = policy_hash(settings, method, seed)
    stamped["asked"] = _questions_hash(settings, benchmark)
    if (
        len(stamped) > 2
        and path.exists()
        and same_settings(path.with_suffix(".json"), settings, GENERATED_WITH, **stamped)
    ):
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    done = _keep_whole_batches(partial, settings.eval_batch)
    style = ARMS[method].style
    names = {"benchmark": benchmark, "method": method, "seed": seed}
    with open(partial, "a", encoding="utf-8") as out:
        for start in range(done, len(tasks), settings.eval_batch):
            batch = tasks[start : start + settings.eval_batch]
            for row in _answered(
                settings, policy, batch, style, protocol, _batch_seed(seed, benchmark, start)
            ):
                row = {
                    "id": row.pop("id"),
                    **names,
                    "sample": row.pop("sample"),
                    "protocol": protocol,
                    "style": style,
                } | row
                out.write(json_line(row))
            out.flush()
    stamp = {key: settings.to_json()[key] for key in GENERATED_WITH}
    write_json(path.with_suffix(".json"), stamp | stamped)
    os.replace(partial, path)
    return path


def _answered(settings, policy, batch, style: str, protocol: str, seed: int):
    """One batch of (question, further fields) -> rows of id, sample, prompt and the answer's own fields, in order."""
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
    answers = iter(sample_completions(*policy, asked, settings, protocol, seed) if asked else ())
    for (question, extra), prompt in zip(batch, prompts, strict=True):
        answer = extra if "text" in extra else _joined(next(answers), extra)
        yield {"id": question.id, "sample": extra["sample"], "prompt": prompt} | answer


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
    *whole, _ = partial.read_bytes().split(
        b"\n"
    )  # at line ends alone: a text may hold other separators, such as U+2028
    keep = len(whole) // batch * batch
    partial.write_bytes(b"".join(line + b"\n" for line in whole[:keep]))
    return len(read_jsonl(partial))
