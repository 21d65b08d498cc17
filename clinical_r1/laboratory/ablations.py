"""The ablations the paper leaves out: train every arm of `arms.LABORATORY`, evaluate, and write a summary small enough to commit.

    ./reproduce.sh ablations [--seeds 3] [--full] [--only k0 --only k30] [--out DIR]

Same questions, steps and evaluation as profile `cpu`. Resumable: an arm that is trained, answered or summarised is kept.
`summarise` writes four files and a record of code and settings to runs/ablations/summary, and --publish copies them into the
package, where notebook 05 finds them: it renders without training anything.
"""

import gzip
import shutil
import statistics
from dataclasses import replace
from pathlib import Path

from clinical_r1.arms import ARMS, LABORATORY, MAIN
from clinical_r1.artifacts import DONE, policy_of
from clinical_r1.completions import parse_completion
from clinical_r1.curation.splits import ensure_splits
from clinical_r1.engines import local
from clinical_r1.files import (
    read_json,
    read_jsonl,
    read_stamp,
    read_stamped,
    replacing,
    write_json,
    write_stamped,
    write_text,
)
from clinical_r1.generate import answer_jobs, is_complete, made_from, read_completions
from clinical_r1.laboratory.records import BENCHMARK, FILES, RECORD, SHIPPED
from clinical_r1.prompts import build_messages
from clinical_r1.questions import read_questions
from clinical_r1.score import exact_judge, is_correct
from clinical_r1.settings import (
    CLAIM_FAMILIES,
    CPU,
    LABORATORY_QUESTIONS,
    LABORATORY_SEEDS,
    Settings,
)
from clinical_r1.train import train_all
from clinical_r1.trainer import whole_checkpoints

WORKERS = 2
TRAJECTORY_QUESTIONS = 200
TRAJECTORY_SEED = 20251201
TRAJECTORY_MEASURES = ("faithfulness", "drc", "hallucination")


def laboratory_settings(out=".", seeds=(0, 1, 2), arms=LABORATORY, full=False) -> Settings:
    """Profile `cpu` with every arm, one test set and sampled answers only; kept under runs/ablations.

    full: the size of the published laboratory, its questions and its most seeds; `seeds` is then not read.
    """
    settings = replace(
        CPU, profile="ablations", out=str(out), seeds=tuple(seeds), methods=tuple(arms), benchmarks=(BENCHMARK,),
        eval_greedy=False, workers=WORKERS,
    )  # fmt: skip
    if not full:
        return settings
    seeds = tuple(range(max(LABORATORY_SEEDS.values())))
    return replace(settings, seeds=seeds, n_test=LABORATORY_QUESTIONS)


def full_seeds(arm: str) -> int:
    """How many training seeds an arm gets in the published laboratory: more where its family carries a claim."""
    return LABORATORY_SEEDS["claim" if ARMS[arm].family in CLAIM_FAMILIES else "rest"]


def run(settings: Settings, full=False) -> None:
    """Train, answer and trace, one seed after the other, so that a run that is stopped early leaves whole seeds.

    full: an arm is left out of the seeds from `full_seeds` on.
    """
    ensure_splits(settings)
    for seed in settings.seeds:
        methods = tuple(arm for arm in settings.methods if not full or seed < full_seeds(arm))
        if methods:
            one = replace(settings, seeds=(seed,), methods=methods)
            train_all(one)
            answer(one)
            for arm in MAIN:
                if arm.name in methods and arm.stage:
                    trace(one, arm.name, seed)


def answer(settings: Settings) -> None:
    """Completions of every arm and seed that are not on disk, `WORKERS` processes at a time."""
    jobs = [(method, seed, BENCHMARK, "sampled") for seed in settings.seeds for method in settings.methods]
    answer_jobs(settings, [job for job in jobs if not is_complete(settings, *job)])


# --- the summary


def summarise(settings: Settings, folder: Path, git: dict | None = None) -> list[Path]:
    """Write the four files of `records.FILES`, and `records.RECORD`, for the arms and seeds whose answers are on disk.

    git: {"sha", "dirty"} of the code that summarises.
    """
    done = [
        (method, seed)
        for seed in settings.seeds
        for method in settings.methods
        if settings.completions_path(BENCHMARK, method, seed).exists()
    ]
    frames = (
        _scores(settings, done),
        _arms(settings, done),
        _training(settings, done),
        _trajectories(settings, done),
    )
    written = [_write(folder / name, frame) for name, frame in zip(FILES.values(), frames, strict=True)]
    return [*written, write_json(folder / RECORD, _record(settings, done, git))]


RECORDED = ("base_model", "rl_steps", "shared_prefix", "draws", "lora_rank", "max_completion_tokens")


def _record(settings, done, git):
    """What a reader needs to know of the code and settings behind a summary; what differs between arms has several values."""
    paths = [settings.model_dir(method, seed) / DONE for method, seed in done]
    stamps = [read_json(path) for path in paths if path.exists()]
    trained = {
        name: sorted({stamp[name] for stamp in stamps if name in stamp}, key=str)
        for name in (*RECORDED, "reward_rules", "prompt_rules")
    }
    return {"git": git or {"sha": None, "dirty": None}, "questions": settings.n_test, "trained": trained}


def _write(path: Path, frame) -> Path:
    text = frame.to_csv(index=False, float_format="%.5g")
    if path.suffix != ".gz":
        return write_text(path, text)
    with replacing(path) as partial:
        partial.write_bytes(
            gzip.compress(text.encode(), mtime=0)
        )  # no time stamp: equal results, equal bytes
    return path


def _questions(settings):
    return {q.id: q for q in read_questions(settings.questions_path(BENCHMARK, "test"))}


def _judged(text, style, question) -> dict:
    """What the summary keeps of one answer: the marks of `score`, as 0 and 1, and the exact counts."""
    letter = parse_completion(text, style, question.options).letter
    marks = {"correct": int(is_correct(letter, question.answer)), "parsed": int(letter is not None)}
    return marks | exact_judge(question, text)


def _scores(settings, done):
    import pandas as pd

    questions, rows = _questions(settings), []
    for method, seed in done:
        for row in read_completions(settings, BENCHMARK, method, seed):
            judged = _judged(row["text"], row["style"], questions[row["id"]])
            rows.append({"arm": method, "seed": seed, "id": row["id"], "tokens": row["tokens"], **judged})
    return pd.DataFrame(rows)


def _log(settings, method, seed) -> list[dict]:
    path = settings.model_dir(method, seed) / "log_history.jsonl"
    return read_jsonl(path) if path.exists() else []


def _arms(settings, done):
    import pandas as pd

    rows = []
    for method in dict.fromkeys(method for method, _ in done):
        arm = ARMS[method]
        logs = [_log(settings, name, seed) for name, seed in done if name == method]
        times = [sum(row["step_time"] for row in log if "step_time" in row) for log in logs if log]
        seconds = statistics.median(times) if times else None  # a machine that was busy once does not count
        row = {
            "arm": method,
            "family": arm.family,
            "label": arm.label,
            "setting": arm.setting,
            "seconds": seconds,
        }
        rows.append(
            row
            | {
                "rewards": arm.rewards,
                "aggregation": arm.aggregation,
                "seeds": sum(name == method for name, _ in done),
            }
        )
    return pd.DataFrame(rows)


def _training(settings, done):
    import pandas as pd

    rows = []
    for method, seed in done:
        for row in _log(settings, method, seed):
            kept = {
                key: value
                for key, value in row.items()
                if key in ("step", "reward", "kl", "completions/mean_length")
                or (key.startswith("rewards/") and key.endswith("/mean"))
                or key.startswith("advantage/")
            }
            if "reward" in kept:
                rows.append({"arm": method, "seed": seed, **kept})
    return pd.DataFrame(rows)


def _trajectories(settings, done):
    """Main arms at their checkpoints and at the end, on the first test questions, sampled with one seed for all."""
    import pandas as pd

    main = [arm.name for arm in MAIN if arm.name != "baseline"]
    rows = []
    for method, seed in done:
        path = settings.model_dir(method, seed) / "trajectory.jsonl" if method in main else None
        if path and path.exists():
            rows += [{"arm": method, "seed": seed, **row} for row in read_stamped(path, "trace")]
    columns = ["arm", "seed", "step", "id", "correct", *TRAJECTORY_MEASURES]
    return pd.DataFrame(rows, columns=columns)


def trace(settings: Settings, method: str, seed: int) -> Path:
    """Answers of an arm's checkpoints, judged exactly: trajectory.jsonl beside the arm, rows step, id, correct, measures.

    ValueError for one that was changed, or of another policy or other questions.
    """
    path, made = (
        settings.model_dir(method, seed) / "trajectory.jsonl",
        made_from(settings, method, seed, BENCHMARK),
    )
    if path.exists():
        if not made.items() <= read_stamp(path, "trace").items():
            raise ValueError(f"{path} is of another policy or other questions; delete it and trace again.")
        return path
    base, _ = policy_of(settings, method, seed)
    style, rows = ARMS[method].style, []
    questions = list(_questions(settings).values())[:TRAJECTORY_QUESTIONS]
    for folder in whole_checkpoints(settings.model_dir(method, seed) / "checkpoints"):
        step, engine = int(folder.name.split("-")[1]), local.load(base, settings, folder)
        prompts = [
            engine.prompt(build_messages(question, style, settings.prompt_layout)) for question in questions
        ]
        seeds = [TRAJECTORY_SEED + i for i in range(len(prompts))]
        answers = engine.answer(prompts, settings, "sampled", seeds)
        for question, given in zip(questions, answers, strict=True):
            judged = _judged(given["text"], style, question)
            kept = {name: judged[name] for name in ("correct", *TRAJECTORY_MEASURES)}
            rows.append({"step": step, "id": question.id, **kept})
    return write_stamped(path, rows, made)


def reproduce(settings: Settings, summary_only=False, publish=False, full=False, git=None) -> None:
    """`./reproduce.sh ablations`: train, answer, trace and summarise; publish copies the summary into the package.

    git: as in `summarise`.
    """
    if not summary_only:
        run(settings, full)
    for path in summarise(settings, settings.run_dir / "summary", git):
        print(f"  {path.stat().st_size / 1000:8.1f} kB  {path.name}")
        if publish:
            shutil.copy(path, SHIPPED / path.name)
