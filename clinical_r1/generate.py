"""Questions → completions on disk, resumable: one JSON line per completion, with the exact prompt that was sent.

Protocols: "sampled" is the paper's (temperature 0.8, top-p 0.95, one completion a question); "greedy" stands beside it.
Questions are answered in fixed batches and each has a seed of its own, so a run that was killed and continued writes the
same bytes as one that was not. Two more protocols serve `probes`: options shuffled, reasoning removed.
"""

import argparse
import hashlib
import importlib
import json
import os
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

from clinical_r1 import extensions
from clinical_r1.arms import ARMS
from clinical_r1.artifacts import (
    RL_ON,
    StaleError,
    code_hash,
    digest,
    is_trained,
    policy_hash,
    policy_of,
    same_settings,
)
from clinical_r1.engines import local, vllm
from clinical_r1.engines.protocol import seed_of
from clinical_r1.engines.replay import replay
from clinical_r1.engines.server import ask_server
from clinical_r1.files import (
    PipelineError,
    json_line,
    locked,
    read_json,
    read_jsonl,
    read_stamp,
    read_stamped,
    sha256,
    write_json,
    write_stamp,
)
from clinical_r1.models import precision
from clinical_r1.prompts import messages_of
from clinical_r1.questions import read_questions
from clinical_r1.settings import Settings, settings_from_json
from clinical_r1.workers import given_jobs, in_children, watched

GENERATED_WITH = RL_ON + (
    "n_test", "engine", "eval_temperature", "eval_top_p", "eval_samples", "eval_batch", "device_dtype", "load_in_4bit",
)  # fmt: skip

EMPTY = "all {} answers are empty: the model ends at once; look at its chat template and its end tokens."


def made_from(settings, method, seed, benchmark, **more) -> dict:
    """What an arm's completions depend on besides `GENERATED_WITH`: its policy, the questions asked, the code of the prompts."""
    prompts = digest(code_hash("clinical_r1.prompts:build_messages"))
    policy, asked = policy_hash(settings, method, seed), questions_hash(settings, benchmark)
    if settings.device_dtype == "auto":  # what the run has measured, not the word
        more = more | {"precision": precision(settings)}
    return more | {"policy": policy, "test_questions": asked, "prompts": prompts}


def questions_hash(settings, benchmark) -> str:
    """sha256 (16 digits) of a benchmark's test questions, as the stamps of completions and scores name them."""
    return sha256(settings.questions_path(benchmark, "test"))[:16]


def read_completions(settings, benchmark, method, seed, protocol="sampled") -> list[dict]:
    """The rows of a finished file. ValueError when it was changed, or its questions were, since it was made."""
    path = settings.completions_path(benchmark, method, seed, protocol)
    rows, stamp = read_answers(settings, path), read_stamp(path, "generate")
    if (now := questions_hash(settings, benchmark)) != stamp.get("test_questions"):
        raise ValueError(
            f"{path} answers other questions than {settings.questions_path(benchmark, 'test')} holds today (sha256 "
            f"{stamp.get('test_questions')}, now {now}); restore that file, such as with notebook 01, or, if it is right, delete "
            "the answers and generate again."
        )
    return rows


def read_answers(settings, path: Path) -> list[dict]:
    """The rows of a finished file, of any protocol. ValueError when it was changed, or when its rows belong into another file."""
    rows = read_stamped(path, "generate")
    for row in rows:
        names = {key: row[key] for key in ("benchmark", "method", "seed", "protocol") if key in row}
        if len(names) == 4 and settings.completions_path(*names.values()).parts[-2:] != path.parts[-2:]:
            listed = ", ".join(f"{key} {value}" for key, value in names.items())
            raise ValueError(
                f"{path} holds answers of another file ({listed}); restore it, or delete it and generate again."
            )
    return rows


def is_complete(settings, method, seed, benchmark, protocol) -> bool:
    """True when the completions are on disk. ValueError when they were made from something else, or changed since."""
    path = settings.completions_path(benchmark, method, seed, protocol)
    try:
        return _is_finished(path, settings, made_from(settings, method, seed, benchmark))
    except StaleError as error:
        if not _only_own_questions_changed(error, benchmark):
            raise
        path.unlink()  # they are answered again
        return False


def _only_own_questions_changed(error: StaleError, benchmark: str) -> bool:
    return error.changed == ("test_questions",) and extensions.has_questions(benchmark)


def _is_finished(path: Path, settings, made: dict) -> bool:
    if not path.exists():
        return False
    read_stamp(path, "generate")
    return same_settings(path.with_suffix(".json"), settings, GENERATED_WITH, **made)


def complete_all(settings: Settings) -> list[Path]:
    """Answer every benchmark with every method and seed, unless the answers are on disk. Returns all the files.

    `settings.workers` processes share the files out; which of them answers changes no byte. Errors as `answer_jobs`.
    """
    jobs = settings.evaluations()
    own = extensions.loaded()
    for model, benchmark in settings.outside:
        if model in own.servers:
            ask_server(settings, model, benchmark, own.servers[model])
        else:
            replay(settings, model, benchmark, own.answers[model][benchmark])
    missing = [job for job in jobs if job[0] in ARMS and not is_complete(settings, *job)]
    if missing:
        asked = {job: _asked(settings, *job[2:]) for job in missing}

        def done() -> int:
            return sum(_on_disk(settings, job, asked[job]) for job in missing)

        with watched(done, sum(asked.values()), settings.run_dir / "completions", "completions", "answer"):
            answer_jobs(settings, missing)
    return [settings.completions_path(b, m, s, p) for m, s, b, p in jobs]


def _asked(settings, benchmark: str, protocol: str) -> int:
    """How many answers a file of `complete_all` is going to hold."""
    questions = len(read_questions(settings.questions_path(benchmark, "test")))
    return questions * (settings.eval_samples if protocol == "sampled" else 1)


def _on_disk(settings, job: tuple, asked: int) -> int:
    """How many of a file's answers are written."""
    method, seed, benchmark, protocol = job
    path = settings.completions_path(benchmark, method, seed, protocol)
    begun = path.with_suffix(".partial.json")
    if path.exists():
        return asked
    try:
        return min(asked, len(read_json(begun)["batches"]) * settings.eval_batch)
    except FileNotFoundError:  # not begun, or finished in this moment
        return asked if path.exists() else 0


def answer_jobs(settings: Settings, jobs: Sequence[tuple], function: Callable | None = None) -> None:
    """function(settings, engine, method, seed, ...) for each job (method, seed, ...), every engine loaded once a process.

    function: of a module of this package; None means `complete`. jobs: those of one engine together. One worker, or vLLM, which
    takes the whole card, stays in this process; more are children, and a job is done by whichever is free (`workers.Jobs`).
    RuntimeError names a child's log and its last lines; what was answered stays.
    """
    function = function or complete
    count = 1 if settings.engine == "vllm" else min(settings.workers, len(jobs))
    if count > 1:
        arguments = ["--settings", json.dumps(settings.to_json()), "--out", settings.out]
        arguments += ["--function", f"{function.__module__}:{function.__qualname__}"]
        folder = settings.run_dir / "completions"
        in_children("clinical_r1.generate", arguments, jobs, count, settings.threads, folder)
        return
    _answer_here(settings, jobs, function)


def _answer_here(settings, jobs, function) -> None:
    loaded, engine = None, None
    for job in jobs:
        if tuple(job[:2]) != loaded:
            engine = None  # before the next is loaded: two may not fit
            loaded, engine = tuple(job[:2]), load_method(settings, *job[:2])
        function(settings, engine, *job)


def load_method(settings: Settings, method: str, seed: int) -> local.Transformers | vllm.Vllm:
    """The engine of a method. ValueError when it has not been trained yet, and as `engines.local.load`, `engines.vllm.load`."""
    if method != "baseline" and not is_trained(settings, method, seed):
        raise ValueError(
            f"{method} with seed {seed} is not trained in {settings.run_dir}; run the training stage first."
        )
    base, adapter = policy_of(settings, method, seed)
    return {"vllm": vllm, "transformers": local}[settings.engine].load(base, settings, adapter)


def complete(
    settings: Settings, engine, method: str, seed: int, benchmark: str, protocol: str = "sampled"
) -> Path:
    """Answer one benchmark's test questions; continues a file that a killed run left half-way."""
    samples = settings.eval_samples if protocol == "sampled" else 1
    questions = read_questions(settings.questions_path(benchmark, "test"))
    # A question's samples stand together, so that a batch encodes its prompt once
    tasks = [(question, {"sample": sample}) for question in questions for sample in range(samples)]
    return answer_questions(settings, engine, method, seed, benchmark, protocol, tasks)


def answer_questions(settings, engine, method, seed, benchmark, protocol, tasks, **stamped) -> Path:
    """Answer (question, further fields of its row) in fixed batches; continues a file that a killed run left half-way.

    Fields that steer: `forced`, text put into the model's mouth; `text`, an answer that needs no model; `style`, the prompt's in
    place of the arm's. stamped: what the tasks depend on besides `made_from`. A finished file is returned, no model asked;
    ValueError if it, or the half of one, was made from something else. PipelineError while another process answers the same.
    """
    path = settings.completions_path(benchmark, method, seed, protocol)
    made = made_from(settings, method, seed, benchmark, **stamped)
    with locked(path.with_name(f".{path.stem}.lock"), str(path)):
        if not _is_finished(path, settings, made):
            style = ARMS[method].style
            prompts = _prompts(settings, engine, tasks, style, f"{benchmark}'s test questions")
            names = {"benchmark": benchmark, "method": method, "seed": seed}
            fields = {"protocol": protocol, "style": style}
            _write_batches(
                path, settings, engine, list(zip(tasks, prompts, strict=True)), names, fields, made
            )
    return path


def _write_batches(path: Path, settings, engine, asked, names: dict, fields: dict, made: dict) -> None:
    """Answer ((question, further fields), prompt) batch by batch into the .partial, whose stamp is written first; then rename."""
    partial, begun = path.with_suffix(".partial"), path.with_suffix(".partial.json")
    made = made | engine.identity
    try:
        same_settings(begun, settings, GENERATED_WITH, **made)
    except StaleError as error:
        if not _only_own_questions_changed(error, names["benchmark"]):
            raise
        partial.unlink(missing_ok=True)
    stamp = {key: settings.to_json()[key] for key in GENERATED_WITH} | made
    ends = kept_batches(partial, begun)
    running = hashlib.sha256(partial.read_bytes() if ends else b"")
    write_json(begun, stamp | {"batches": ends})
    with open(partial, "ab" if ends else "wb") as out:
        for start in range(len(ends) * settings.eval_batch, len(asked), settings.eval_batch):
            batch = asked[start : start + settings.eval_batch]
            rows = _answered(settings, engine, batch, fields["protocol"], names)
            written = "".join(
                json_line({"id": row.pop("id"), **names, "sample": row.pop("sample"), **fields} | row)
                for row in rows
            ).encode()
            out.write(written)
            out.flush()
            running.update(written)
            ends.append([out.tell(), running.hexdigest()])
            write_json(begun, stamp | {"batches": ends})
    rows = read_jsonl(partial)
    stamp["finish_reasons"] = dict(Counter(row.get("finish_reason", "given") for row in rows))
    _say_if_cut(path, stamp["finish_reasons"], settings)
    if rows and not any(row["text"].strip() for row in rows):
        print(f"{path}: {EMPTY.format(len(rows))}", file=sys.stderr)
    write_stamp(path, stamp, partial)
    os.replace(partial, path)
    begun.unlink()


def kept_batches(partial: Path, begun: Path) -> list[list]:
    """[[bytes up to its end, sha256 of them], ...] of the batches that a killed run has written; the file is cut after the last.

    From a batch that was changed since, all is answered anew, and that is said.
    """
    listed = read_json(begun)["batches"] if begun.exists() else []
    content = partial.read_bytes() if partial.exists() else b""
    ends = list(listed)
    while ends and hashlib.sha256(content[: ends[-1][0]]).hexdigest() != ends[-1][1]:
        ends.pop()
    if len(ends) < len(listed) or (content and not begun.exists()):
        print(
            f"{partial} was changed since it was written, or by a version that kept no record: {len(ends)} of its batches are "
            "kept, the others are answered again.",
            file=sys.stderr,
        )
    if content:
        os.truncate(partial, ends[-1][0] if ends else 0)
    return ends


def _say_if_cut(path: Path, reasons: dict, settings) -> None:
    cut, answers = reasons.get("length", 0), sum(reasons.values())
    if cut > answers / 2:
        print(
            f"{path}: {cut} of {answers} answers were cut at max_completion_tokens = {settings.max_completion_tokens} and may "
            "lack their letter; raise it to measure the model rather than the limit.",
            file=sys.stderr,
        )


def _prompts(settings, engine, tasks, style: str, what: str) -> list[str]:
    """The prompt of each task, with what is forced behind it, after all of them have been checked."""
    prompts = [
        engine.prompt(
            messages_of(question, extra.get("style", style), settings.prompt_layout),
            extra.get("forced") or "",
        )
        for question, extra in tasks
    ]
    engine.check(prompts, settings, what)
    return prompts


def _answered(settings, engine, batch, protocol: str, names: dict):
    """One batch of ((question, further fields), prompt) -> rows of id, sample, prompt and the answer's own fields, in order."""
    asked = [
        (prompt, seed_of(names["seed"], names["benchmark"], question.id, extra["sample"]))
        for (question, extra), prompt in batch
        if "text" not in extra
    ]
    prompts, seeds = zip(*asked, strict=True) if asked else ((), ())
    given = engine.answer(prompts, settings, protocol, seeds) if asked else ()
    if len(given) != len(asked):
        raise RuntimeError(
            f"{names['method']} gave {len(given)} answers to {len(asked)} prompts of {names['benchmark']}; expected one each: "
            "nothing of this batch is kept, run it again."
        )
    answers = iter(given)
    for (question, extra), prompt in batch:
        answer = extra if "text" in extra else _joined(next(answers), extra)
        shown = prompt.removesuffix(extra.get("forced") or "")
        yield {"id": question.id, "sample": extra["sample"], "prompt": shown} | answer


def _joined(answer: dict, extra: dict) -> dict:
    """The answer with what was forced before it; `tokens` counts what the model wrote."""
    forced = extra.get("forced")
    text = f"{forced} {answer['text']}" if forced else answer["text"]
    return {**answer, "text": text} | {key: extra[key] for key in extra if key != "sample"}


def main(argv=None) -> int:
    """Answer the jobs that come over the standard input: what `answer_jobs` starts. It ends when that closes."""
    parser = argparse.ArgumentParser(prog="python -m clinical_r1.generate", description=main.__doc__)
    parser.add_argument("--settings", required=True, help="settings as JSON (Settings.to_json)")
    parser.add_argument("--out", default=".", help="folder that holds runs/")
    parser.add_argument("--function", required=True, help="module:name of what answers a job")
    args = parser.parse_args(argv)
    module, name = args.function.split(":")
    if module.split(".")[0] != "clinical_r1":
        parser.error(f"--function is {args.function!r}; expected one of clinical_r1.")
    extensions.load_from_environment()
    settings = settings_from_json(json.loads(args.settings), args.out)
    try:
        _answer_here(settings, given_jobs(), getattr(importlib.import_module(module), name))
    except (PipelineError, StaleError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
