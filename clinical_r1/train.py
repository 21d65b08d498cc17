"""Train the five arms on TRL: cold start (SFTTrainer), GRPO and CRPO (GRPOTrainer).

CRPO is `GRPOTrainer` with a reward set and weights: eq. 4 is TRL's `sum_then_normalize` with weights (k, 1, 0.5) and
group-normalised advantages. Small mixins before it log what each reward contributes and encode each prompt once per group;
neither changes a result. What the arms share is everything else: questions, steps, completions, learning rate, seeds, and
(where they have one) the cold-started policy.

Each arm runs in a process of its own (`python -m clinical_r1.train`), so a result depends on its settings and seed alone,
not on what ran before it; a killed process continues from its last whole checkpoint. An arm is refused before its first step
where its data cannot make the steps that were planned, and finished only when it has made them all (`trainer.run`).
"""

import argparse
import importlib
import json
import math
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import nullcontext
from pathlib import Path

from clinical_r1.advantages import TRL_ARGUMENTS
from clinical_r1.arms import ARMS, in_order
from clinical_r1.artifacts import (
    BEGUN,
    DONE,
    LOG,
    StaleError,
    arm_stamp,
    begin,
    end,
    is_trained,
    policy_hash,
    policy_of,
    reward_set,
    settings_of,
    start_of,
)
from clinical_r1.clinic.traces import scripted_traces
from clinical_r1.engines.protocol import check_prompts, check_words
from clinical_r1.extensions import is_own, load_from_environment
from clinical_r1.files import PipelineError, locked, read_json, set_aside, whole_folder, write_jsonl
from clinical_r1.models import (
    float32_adapter,
    largest_divisor,
    load,
    load_backend,
    load_tokenizer,
    merge_adapter,
    merged,
    precision,
    resolve_base,
    rollout_arguments,
    save_policy,
)
from clinical_r1.prompts import build_messages, render_chat
from clinical_r1.questions import read_questions, read_traces
from clinical_r1.rewards import checked
from clinical_r1.settings import Settings, settings_from_json
from clinical_r1.speed.prefill import SharedPrefillMixin
from clinical_r1.speed.prefix import GroupShuffleMixin, SharedPrefixMixin
from clinical_r1.starts import measure_start, on_the_device, said_of
from clinical_r1.trainer import build_trainer_class, check_count, check_lengths, remarks, run
from clinical_r1.workers import leave_processes, start_child, stop_with_parent

# ------------------------------------------------------------------------------------------------------- cold start


def teacher_rows(settings: Settings) -> list[dict]:
    """Supervised rows {"prompt": messages, "completion": messages}, both styles on different questions, half each.

    The clinic's teacher is scripted and imperfect (`clinic.traces.TEACHER`). Real benchmarks need a file of traces, JSON
    Lines of {"id", "text", "style"}; FileNotFoundError says so.
    """
    questions = read_questions(settings.questions_path(settings.train_benchmark, "sft"))
    given = settings.teacher_traces
    rows = []
    for question, style, text in read_traces(given, questions) if given else scripted_traces(questions):
        prompt = build_messages(question, style, settings.prompt_layout)
        rows.append({"prompt": prompt, "completion": [{"role": "assistant", "content": text}]})
    if given and not rows:
        raise ValueError(
            f"none of the traces in {given} answers a question of the {settings.train_benchmark} sft split; expected ids such "
            "as " + ", ".join(question.id for question in questions[:2]) + "."
        )
    return rows


def train_sft(run_settings: Settings, arm: str, seed: int) -> None:
    """Supervised fine-tuning on what the arm learns from; the adapter is merged, since a later stage starts from it.

    One cold start serves both cold-start arms: same weights, same questions, two prompts.
    """
    import trl
    from datasets import Dataset

    folder, settings = run_settings.model_dir(arm, seed), settings_of(run_settings, arm)
    rows = supervised_rows(run_settings, arm, seed)
    check_count(arm, settings, rows, "sft_batch")
    start = whole_start(run_settings, arm, seed)
    model, tokenizer, adapter = load(start, settings, seed)
    check_lengths(arm, settings, tokenizer, [row["prompt"] + row["completion"] for row in rows])
    whole = [render_chat(tokenizer, row["prompt"]) + row["completion"][0]["content"] for row in rows]
    check_words(tokenizer, whole, settings, f"{settings.train_benchmark}'s sft questions with their traces")
    trainer = trl.SFTTrainer(
        model=model,
        args=trl.SFTConfig(
            **sft_arguments(settings, seed, folder, len(rows)), run_name=f"{arm}, seed {seed}"
        ),
        train_dataset=Dataset.from_list(rows),
        processing_class=tokenizer,
        peft_config=adapter,
    )
    if (kept := len(trainer.train_dataset)) < len(rows):
        raise ValueError(f"{arm}: {len(rows) - kept} of {len(rows)} traces teach no token; leave them out.")
    float32_adapter(trainer.model, settings)
    begin(run_settings, arm, seed, process_count())
    checked = run(trainer)
    model = merged(trainer.model, start, settings, folder) if settings.lora_rank else trainer.model
    if trainer.is_world_process_zero() and not ARMS[arm].data:
        checked["start"] = measure_start(on_the_device(model, trainer.model), tokenizer, settings)
    finish(model, trainer, run_settings, arm, seed, checked)


def supervised_rows(settings: Settings, arm: str, seed: int) -> list[dict]:
    """Supervised rows of an arm: `teacher_rows`, or those of `Arm.data`, which the wing of preferences makes."""
    if not ARMS[arm].data:
        return teacher_rows(settings_of(settings, arm))
    return importlib.import_module("clinical_r1.preferences.stages").supervised_rows(settings, arm, seed)


def supervised_batch(settings) -> tuple[int, int]:
    """(rows per pass, passes) of a cold-start step of each process: all rows together are exactly sft_batch.

    ValueError when `accelerate launch` started a number of processes that does not divide it.
    """
    count = process_count()
    if settings.sft_batch % count:
        raise ValueError(
            f"{count} processes cannot share sft_batch {settings.sft_batch}; expected a divisor."
        )
    part = settings.sft_batch // count
    rows = largest_divisor(part, settings.sft_micro_batch or settings.micro_batch)
    return rows, part // rows


def sft_arguments(settings: Settings, seed: int, folder: Path, count: int) -> dict:
    """The SFTConfig of a supervised stage on `count` rows, as keywords."""
    rows, passes = supervised_batch(settings)
    return dict(
        output_dir=str(folder / "checkpoints"),
        max_steps=math.ceil(settings.sft_epochs * math.ceil(count / settings.sft_batch)),
        per_device_train_batch_size=rows,
        gradient_accumulation_steps=passes,
        learning_rate=settings.sft_learning_rate,
        lr_scheduler_type="cosine",
        warmup_steps=0.1,
        max_length=settings.max_prompt_tokens + settings.max_completion_tokens,
        completion_only_loss=True,
        **shared_arguments(settings, seed),
    )


# ------------------------------------------------------------------------------------------- reinforcement learning


def reward_rows(settings: Settings, method: str) -> list[dict]:
    """One row a question: the prompt in the method's style, and the columns that the rewards read."""
    style = ARMS[method].style
    questions = read_questions(settings.questions_path(settings.train_benchmark, "rl"))
    return [
        {
            "prompt": build_messages(question, style, settings.prompt_layout),
            "id": question.id,
            "answer": question.answer,
            "options": question.options,
            "style": style,
        }
        for question in questions[: settings.n_rl]
    ]


def reinforced_batch(settings: Settings) -> tuple[int, int]:
    """(rows of a pass, passes of a step) of each process: one step's batch is the same with any number of processes.

    Each process takes whole groups. ValueError when `accelerate launch` started a number that leaves some over.
    """
    count = process_count()
    part = settings.rl_prompts * settings.num_generations // count
    rows = min(part, settings.micro_batch)
    if settings.rl_prompts % count or part % rows:
        raise ValueError(
            f"{count} processes cannot share rl_prompts {settings.rl_prompts} in passes of micro_batch "
            f"{settings.micro_batch} rows; expected a number that divides rl_prompts, and micro_batch to divide the {part} "
            "rows of each process."
        )
    return rows, part // rows


def grpo_arguments(settings: Settings, seed: int, folder: Path, weights) -> dict:
    """The GRPOConfig of every RL arm, as keywords. Differences from TRL's defaults are the paper's eq. 1-4."""
    rows, passes = reinforced_batch(settings)
    return dict(
        output_dir=str(folder / "checkpoints"),
        max_steps=settings.rl_steps,
        per_device_train_batch_size=rows,
        gradient_accumulation_steps=passes,
        num_generations=settings.num_generations,
        max_completion_length=settings.max_completion_tokens,
        temperature=settings.rl_temperature,
        learning_rate=settings.rl_learning_rate,
        lr_scheduler_type="constant",
        beta=settings.rl_beta,
        loss_type="grpo",
        scale_rewards="group",
        multi_objective_aggregation="sum_then_normalize",
        reward_weights=list(weights),
        **rollout_arguments(settings),
        **shared_arguments(settings, seed),
    )


def trainer_class(settings: Settings):
    """TRL's GRPOTrainer with what the settings lay before it: our aggregations and log, shared prompts, shared prefill.

    Unsloth shares prompts by itself once a group's rows stay together, so there only the shuffle is ours.
    """
    if not settings.shared_prefix:
        return build_trainer_class()
    mixins = (SharedPrefixMixin, SharedPrefillMixin) if settings.backend == "trl" else (GroupShuffleMixin,)
    return type("SharedPrefixGRPOTrainer", (*mixins, build_trainer_class()), {"__module__": __name__})


def train_rl(run_settings: Settings, name: str, seed: int) -> None:
    """One RL arm as `arms.ARMS` describes it, from the weights of the arm it starts from."""
    import trl
    from datasets import Dataset

    folder, arm, settings = run_settings.model_dir(name, seed), ARMS[name], settings_of(run_settings, name)
    rewards, rows = reward_set(arm.rewards), reward_rows(settings, name)
    check_count(name, settings, rows, "rl_prompts")
    arguments = grpo_arguments(settings, seed, folder, arm.weights or rewards.weights)
    model, tokenizer, adapter = load(whole_start(run_settings, name, seed), settings, seed, rollouts=True)
    check_lengths(name, settings, tokenizer, [row["prompt"] for row in rows])
    prompts = [render_chat(tokenizer, row["prompt"]) for row in rows]
    check_prompts(model, tokenizer, prompts, settings, f"{settings.train_benchmark}'s rl questions")
    kind = trainer_class(settings)
    trainer = kind(
        model=model,
        reward_funcs=[
            checked(function, rewards.ranges.get(function.__name__)) for function in rewards.functions
        ],
        args=trl.GRPOConfig(
            **arguments | TRL_ARGUMENTS.get(arm.aggregation, {}), run_name=f"{name}, seed {seed}"
        ),
        train_dataset=Dataset.from_list(rows),
        processing_class=tokenizer,
        peft_config=adapter,
        aggregation=arm.aggregation,
        aggregation_options=dict(arm.options),
        **({"draws": settings.draws} if issubclass(kind, SharedPrefillMixin) else {}),
    )
    float32_adapter(trainer.model, settings)
    begin(run_settings, name, seed, process_count())
    finish(trainer.model, trainer, run_settings, name, seed, run(trainer))


def whole_start(settings: Settings, name: str, seed: int) -> str:
    """`artifacts.start_of`, after an adapter that is started from has been merged into a copy."""
    start, folder = start_of(settings, name, seed), settings.model_dir(name, seed)
    if start == str(folder / "start") and not ((folder / "start").exists() and (folder / BEGUN).exists()):
        base, adapter = policy_of(settings, ARMS[name].start, seed)
        with whole_folder(folder / "start") as partial:
            save_policy(merge_adapter(base, adapter, settings), load_tokenizer(base), partial)
    return start


# ------------------------------------------------------------------------------------------------------ shared parts


def process_count() -> int:
    """How many `accelerate launch` started for this arm."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def shared_arguments(settings: Settings, seed: int) -> dict:
    """The keywords that TRL's configs of all stages share: numbers, checkpoints, log."""
    import torch

    return dict(
        seed=seed,
        bf16=precision(settings) == "bfloat16",
        fp16=precision(settings) == "float16",
        use_cpu=not torch.cuda.is_available(),
        gradient_checkpointing=settings.gradient_checkpointing,
        save_steps=settings.save_steps,
        save_total_limit=None
        if settings.prompt_layout == "clinic"
        else 2,  # a tiny model's way is worth keeping
        logging_steps=1,
        logging_nan_inf_filter=False,  # a loss that is not finite is to be seen
        report_to=[],
        disable_tqdm=True,
    )


def finish(model, trainer, settings, arm, seed, checked) -> None:
    """Weights, then the log, then done.json: an arm without done.json is not finished. The first process writes."""
    if not trainer.is_world_process_zero():
        return
    folder = settings.model_dir(arm, seed)
    with whole_folder(folder / "policy") as partial:
        save_policy(model, trainer.processing_class, partial)
    # Steps alone, keys in order: the trainer's summary, and its own order, differ where a run was killed and continued
    rows = [dict(sorted(row.items())) for row in trainer.state.log_history if "loss" in row]
    write_jsonl(folder / LOG, rows)
    end(settings, arm, seed, checked)


def _sole_writer(settings: Settings, arm: str, seed: int):
    """The lock of an arm. Of the processes of one `accelerate launch`, the first takes it for all."""
    folder = settings.model_dir(arm, seed)
    if int(os.environ.get("RANK", "0")):
        return nullcontext()
    return locked(folder.with_name(f"{folder.name}.lock"), f"{arm} with seed {seed} in {settings.run_dir}")


def train_arm(settings: Settings, arm: str, seed: int) -> None:
    """Train one arm in this process, unless it is complete on disk.

    ValueError for data that cannot make the planned steps, for a start that is not trained or was damaged, and for a folder that
    was begun with something else. PipelineError while another process trains this arm, and where nothing was learned.
    """
    with _sole_writer(settings, arm, seed):
        if is_trained(settings, arm, seed):
            return
        policy_hash(settings, ARMS[arm].start, seed)  # refuses a start that is not what its own training left
        load_backend(settings.backend)
        from transformers import set_seed

        set_seed(seed)  # PEFT draws the adapter before the trainer sets its own seed
        if (stage := ARMS[arm].stage) == "preference":
            importlib.import_module("clinical_r1.preferences.train").train_preference(settings, arm, seed)
        else:
            {"sft": train_sft, "rl": train_rl}[stage](settings, arm, seed)


def train_all(settings: Settings) -> None:
    """Train every arm (`settings.probed`) and seed that is not complete yet, `settings.workers` at a time, each in a process.

    RuntimeError names the arm, its log file and the log's last lines; arms that finished stay finished.
    """
    from tqdm.auto import tqdm

    if process_count() > 1:
        raise RuntimeError(
            "train_all starts processes of its own and was itself started by accelerate launch; launch one arm: "
            "`accelerate launch -m clinical_r1.train --arm ... --seed ...`."
        )
    resolve_base(settings.base_model)  # a damaged base model is found here, not in every child
    jobs = [(arm, seed) for seed in settings.seeds for arm in in_order(settings.probed)]
    for job in [job for job in jobs if _is_outdated(settings, *job)]:
        with _sole_writer(settings, *job):
            aside = set_aside(settings, *job)
        print(f"{job[0]}, seed {job[1]}: made with other rules, moved to {aside}, trained again")
    waiting = [job for job in jobs if not is_trained(settings, *job)]
    running = {}
    with (
        ThreadPoolExecutor(settings.workers) as pool,
        tqdm(total=len(jobs), desc="arms trained", unit="arm") as bar,
    ):
        bar.update(len(jobs) - len(waiting))
        while waiting or running:
            ready = [job for job in waiting if _may_start(settings, *job)][: settings.workers - len(running)]
            for job in ready:
                waiting.remove(job)
                running[pool.submit(_train_in_child, settings, *job)] = job
            done = next(as_completed(running))
            arm, seed = running.pop(done)
            bar.set_postfix_str(f"{arm} {seed}")
            done.result()
            bar.update()
            checked = read_json(settings.model_dir(arm, seed) / DONE)["checked"]
            for sentence in remarks(checked) + said_of(checked.get("start", {})):
                print(f"{arm}, seed {seed}: {sentence}")


def _is_outdated(settings: Settings, arm: str, seed: int) -> bool:
    """True for a user's own arm whose own rules, or whose start, have changed: it is set aside. StaleError for any other arm."""
    try:
        is_trained(settings, arm, seed)
    except StaleError as error:
        if not is_own(arm) or set(error.changed) - {"start_policy", *arm_stamp(arm)}:
            raise
        return True
    return False


def _may_start(settings, arm, seed) -> bool:
    start = ARMS[arm].start
    return not ARMS[start].stage or is_trained(settings, start, seed)


def _train_in_child(settings: Settings, arm: str, seed: int) -> None:
    folder = settings.model_dir(arm, seed)
    folder.mkdir(parents=True, exist_ok=True)
    arguments = ["--arm", arm, "--seed", str(seed), "--out", settings.out, "--with-parent"]
    arguments += ["--settings", json.dumps(settings.to_json())]
    with open(folder / "train.log", "a", encoding="utf-8") as log:
        pipes = {"stdout": log, "stderr": subprocess.STDOUT}
        with start_child("clinical_r1.train", *arguments, threads=settings.threads, **pipes) as child:
            code = child.wait()
    if code:
        tail = (folder / "train.log").read_text(encoding="utf-8").splitlines()[-12:] or ["nothing was said"]
        raise RuntimeError(
            f"training {arm} with seed {seed} ended with exit status {code} ({tail[-1]}); see {folder / 'train.log'}:\n"
            + "\n".join(tail)
        )


def main(argv=None) -> int:
    """Train one arm: what `train_all` starts for each arm and seed."""
    parser = argparse.ArgumentParser(prog="python -m clinical_r1.train", description=main.__doc__)
    parser.add_argument("--settings", required=True, help="settings as JSON (Settings.to_json)")
    parser.add_argument("--out", default=".", help="folder that holds runs/")
    parser.add_argument("--arm", required=True)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--with-parent", action="store_true", help="stop when the standard input closes")
    args = parser.parse_args(argv)
    if args.with_parent:
        stop_with_parent()
    load_from_environment()
    try:
        settings = settings_from_json(json.loads(args.settings), args.out)
    except ValueError as error:
        parser.error(f"--settings: {error}")
    try:
        train_arm(settings, args.arm, args.seed)
    except (PipelineError, StaleError) as error:
        print(error, file=sys.stderr)
        return 1
    leave_processes()
    return 0


if __name__ == "__main__":
    sys.exit(main())
