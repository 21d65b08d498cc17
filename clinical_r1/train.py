"""Train the five arms on TRL: cold start (SFTTrainer), GRPO and CRPO (GRPOTrainer).

CRPO is `GRPOTrainer` with a reward set and weights: eq. 4 is TRL's `sum_then_normalize` with weights (k, 1, 0.5) and
group-normalised advantages. Small mixins before it log what each reward contributes and encode each prompt once per group;
neither changes a result. What the arms share is everything else: questions, steps, completions, learning rate, seeds, and
(where they have one) the cold-started policy.

Each arm runs in a process of its own (`python -m clinical_r1.train`), so a result depends on its settings and seed alone,
not on what ran before it; a killed process continues from its last whole checkpoint.
"""

import argparse
import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

from clinical_r1.advantages import TRL_ARGUMENTS
from clinical_r1.arms import ARMS, in_order
from clinical_r1.artifacts import (
    RL_ON,
    TRAINED_ON,
    StaleError,
    arm_stamp,
    is_trained,
    last_whole_checkpoint,
    policy_of,
    reward_set,
    set_aside,
    settings_of,
    start_of,
)
from clinical_r1.engines import check_prompts, check_words
from clinical_r1.extensions import is_own, load_from_environment
from clinical_r1.files import numbered_rows, write_json, write_jsonl
from clinical_r1.models import (
    float32_adapter,
    largest_divisor,
    load,
    load_backend,
    load_tokenizer,
    merge_adapter,
    precision,
    resolve_base,
    rollout_arguments,
)
from clinical_r1.prompts import STYLES, build_messages, render_chat
from clinical_r1.questions import read_questions
from clinical_r1.rewards import checked
from clinical_r1.settings import Settings, settings_from_json
from clinical_r1.speed.prefill import SharedPrefillMixin
from clinical_r1.speed.prefix import GroupShuffleMixin, SharedPrefixMixin
from clinical_r1.trainer import build_trainer_class
from clinical_r1.workers import leave_processes, start_child, stop_with_parent

# ------------------------------------------------------------------------------------------------------- cold start


def teacher_rows(settings: Settings) -> list[dict]:
    """Supervised rows {"prompt": messages, "completion": messages}, both styles on different questions, half each.

    The clinic's teacher is scripted and imperfect (`clinic.traces.TEACHER`). Real benchmarks need a file of traces, JSON
    Lines of {"id", "text", "style"}; FileNotFoundError says so.
    """
    questions = read_questions(settings.questions_path(settings.train_benchmark, "sft"))
    rows = []
    given = (
        _given_traces(settings.teacher_traces, questions)
        if settings.teacher_traces
        else _scripted_traces(questions)
    )
    traces = list(given)
    if not traces:
        raise ValueError(
            f"none of the traces in {settings.teacher_traces} answers a question of the {settings.train_benchmark} sft split; "
            "expected ids such as " + ", ".join(question.id for question in questions[:2]) + "."
        )
    for question, style, text in traces:
        prompt = build_messages(question, style, settings.prompt_layout)
        rows.append({"prompt": prompt, "completion": [{"role": "assistant", "content": text}]})
    return rows


def _given_traces(path: str, questions):
    """(question, style, text) of the traces that answer one of these. ValueError for a trace without one of its fields."""
    by_id = {question.id: question for question in questions}
    for number, trace in numbered_rows(path):
        text, name = trace.get("text"), trace.get("id")
        right = (
            isinstance(name, str),
            trace.get("style") in STYLES,
            isinstance(text, str) and bool(text.strip()),
        )
        wrong = [field for field, fine in zip(("id", "style", "text"), right, strict=True) if not fine]
        if wrong:
            raise ValueError(
                f"{path}, line {number} has no usable {', '.join(wrong)} (got {[trace.get(name) for name in wrong]}); expected "
                f"an id, a style of {' or '.join(STYLES)}, and a text that is not empty."
            )
        if trace["id"] in by_id:
            yield by_id[trace["id"]], trace["style"], trace["text"]


def _scripted_traces(questions):
    import numpy as np

    from clinical_r1.clinic.cases import Case
    from clinical_r1.clinic.traces import TEACHER, write_trace

    for i, question in enumerate(questions):
        if "case" not in question.meta:
            raise FileNotFoundError(
                f"the cold start on {question.benchmark} needs teacher traces, got none; set teacher_traces to a JSON Lines "
                "file of id, style, text, or train only baseline, grpo and crpo."
            )
        style = STYLES[i % len(STYLES)]
        rng = np.random.default_rng([i, len(questions)])
        yield question, style, write_trace(Case.from_json(question.meta["case"]), style, TEACHER, rng)


def train_sft(settings: Settings, arm: str, seed: int) -> None:
    """Supervised fine-tuning on the teacher's traces; the adapter is merged, since RL starts from (and is held near) it.

    One cold start serves both cold-start arms: same weights, same questions, two prompts.
    """
    import trl
    from datasets import Dataset

    folder, stamp, settings = settings.model_dir(arm, seed), arm_stamp(arm), settings_of(settings, arm)
    start, rows = start_of(settings, arm, seed), teacher_rows(settings)
    model, tokenizer, adapter = load(start, settings, seed)
    _check_fit(rows, tokenizer, settings)
    whole = [render_chat(tokenizer, row["prompt"]) + row["completion"][0]["content"] for row in rows]
    check_words(tokenizer, whole, settings, f"{settings.train_benchmark}'s sft questions with their traces")
    trainer = trl.SFTTrainer(
        model=model,
        args=trl.SFTConfig(**sft_arguments(settings, seed, folder)),
        train_dataset=Dataset.from_list(rows),
        processing_class=tokenizer,
        peft_config=adapter,
    )
    float32_adapter(trainer.model, settings)
    trainer.train(resume_from_checkpoint=last_whole_checkpoint(folder / "checkpoints"))
    model = _merged(trainer.model, start, settings, folder) if settings.lora_rank else trainer.model
    _finish(model, tokenizer, trainer, settings, folder, TRAINED_ON, **stamp)


def _check_fit(rows, tokenizer, settings: Settings) -> None:
    """ValueError when traces are cut: their answers would be lost from what is learned."""
    limit = settings.max_prompt_tokens + settings.max_completion_tokens
    lengths = [
        len(tokenizer.apply_chat_template(row["prompt"] + row["completion"], tokenize=True)["input_ids"])
        for row in rows
    ]
    if longer := sum(length > limit for length in lengths):
        raise ValueError(
            f"{longer} of {len(rows)} traces are longer than max_prompt_tokens + max_completion_tokens = {limit} tokens of this "
            f"tokenizer (the longest has {max(lengths)}); raise these settings, or shorten the traces."
        )


def supervised_batch(settings) -> tuple[int, int]:
    """(rows per pass, passes) of a cold-start step of each process: all rows together are exactly sft_batch.

    ValueError when `accelerate launch` started a number of processes that does not divide it.
    """
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    if settings.sft_batch % processes:
        raise ValueError(
            f"{processes} processes cannot share sft_batch {settings.sft_batch}; expected a divisor."
        )
    part = settings.sft_batch // processes
    rows = largest_divisor(part, settings.micro_batch)
    return rows, part // rows


def sft_arguments(settings: Settings, seed: int, folder: Path) -> dict:
    """The SFTConfig of a supervised stage, as keywords."""
    rows, passes = supervised_batch(settings)
    return dict(
        output_dir=str(folder / "checkpoints"),
        num_train_epochs=settings.sft_epochs,
        per_device_train_batch_size=rows,
        gradient_accumulation_steps=passes,
        learning_rate=settings.sft_learning_rate,
        lr_scheduler_type="cosine",
        warmup_steps=0.1,
        max_length=settings.max_prompt_tokens + settings.max_completion_tokens,
        completion_only_loss=True,
        **_shared_arguments(settings, seed),
    )


def _merged(model, start: str, settings: Settings, folder: Path):
    """The adapter in its base's own weights. 4-bit or shared with vLLM, those cannot take it: it goes through a file."""
    if settings.backend == "trl" and not settings.load_in_4bit:
        return model.merge_and_unload()
    model.save_pretrained(folder / "adapter")
    return merge_adapter(start, folder / "adapter", settings)


# ------------------------------------------------------------------------------------------- reinforcement learning


def reward_rows(settings: Settings, method: str) -> list[dict]:
    """One row a question: the prompt in the method's style, and the columns that the rewards read."""
    style = ARMS[method].style
    return [
        {
            "prompt": build_messages(question, style, settings.prompt_layout),
            "id": question.id,
            "answer": question.answer,
            "options": question.options,
            "style": style,
        }
        for question in read_questions(settings.questions_path(settings.train_benchmark, "rl"))
    ]


def reinforced_batch(settings: Settings) -> tuple[int, int]:
    """(rows of a pass, passes of a step) of each process: one step's batch is the same with any number of processes.

    Each process takes whole groups. ValueError when `accelerate launch` started a number that leaves some over.
    """
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    part = settings.rl_prompts * settings.num_generations // processes
    rows = min(part, settings.micro_batch)
    if settings.rl_prompts % processes or part % rows:
        raise ValueError(
            f"{processes} processes cannot share rl_prompts {settings.rl_prompts} in passes of micro_batch "
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
        **_shared_arguments(settings, seed),
    )


def trainer_class(settings: Settings):
    """TRL's GRPOTrainer with what the settings lay before it: our aggregations and log, shared prompts, shared prefill.

    Unsloth shares prompts by itself once a group's rows stay together, so there only the shuffle is ours.
    """
    if not settings.shared_prefix:
        return build_trainer_class()
    mixins = (SharedPrefixMixin, SharedPrefillMixin) if settings.backend == "trl" else (GroupShuffleMixin,)
    return type("SharedPrefixGRPOTrainer", (*mixins, build_trainer_class()), {"__module__": __name__})


def train_rl(settings: Settings, name: str, seed: int) -> None:
    """One RL arm as `arms.ARMS` describes it, from the weights of the arm it starts from."""
    import trl
    from datasets import Dataset

    folder, arm, settings = settings.model_dir(name, seed), ARMS[name], settings_of(settings, name)
    rewards = reward_set(arm.rewards)
    arguments = grpo_arguments(settings, seed, folder, arm.weights or rewards.weights)
    rows = reward_rows(settings, name)
    model, tokenizer, adapter = load(_start(settings, name, seed), settings, seed, rollouts=True)
    prompts = [render_chat(tokenizer, row["prompt"]) for row in rows]
    check_prompts(model, tokenizer, prompts, settings, f"{settings.train_benchmark}'s rl questions")
    trainer = trainer_class(settings)(
        model=model,
        reward_funcs=[
            checked(function, rewards.ranges.get(function.__name__)) for function in rewards.functions
        ],
        args=trl.GRPOConfig(**arguments | TRL_ARGUMENTS.get(arm.aggregation, {})),
        train_dataset=Dataset.from_list(rows),
        processing_class=tokenizer,
        peft_config=adapter,
        aggregation=arm.aggregation,
        aggregation_options=dict(arm.options),
    )
    float32_adapter(trainer.model, settings)
    trainer.train(resume_from_checkpoint=last_whole_checkpoint(folder / "checkpoints"))
    _finish(trainer.model, tokenizer, trainer, settings, folder, RL_ON, **arm_stamp(name))


def _start(settings: Settings, name: str, seed: int) -> str:
    """`artifacts.start_of`, after the adapter of an RL arm that is started from has been merged into a copy."""
    start = start_of(settings, name, seed)
    folder = settings.model_dir(name, seed) / "start"
    if start == str(folder) and not folder.exists():
        base, adapter = policy_of(settings, ARMS[name].start, seed)
        partial = folder.with_name(f".start.{os.getpid()}")
        merge_adapter(base, adapter, settings).save_pretrained(partial)
        load_tokenizer(base).save_pretrained(partial)
        os.replace(partial, folder)
    return start


# ------------------------------------------------------------------------------------------------------ shared parts


def _shared_arguments(settings: Settings, seed: int) -> dict:
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
        report_to=[],
        disable_tqdm=True,
    )


def _finish(model, tokenizer, trainer, settings, folder, keys, **stamped) -> None:
    """Weights, then the log, then done.json: an arm without done.json is not finished. The first process writes."""
    if not trainer.is_world_process_zero():
        return
    model.save_pretrained(folder / "policy")
    tokenizer.save_pretrained(folder / "policy")
    write_jsonl(folder / "log_history.jsonl", trainer.state.log_history)
    write_json(folder / "done.json", {key: settings.to_json()[key] for key in keys} | stamped)


def train_arm(settings: Settings, arm: str, seed: int) -> None:
    """Train one arm in this process, unless it is complete on disk."""
    if is_trained(settings, arm, seed):
        return
    load_backend(settings.backend)
    from transformers import set_seed

    set_seed(seed)  # PEFT draws the adapter before the trainer sets its own seed
    stages = {"sft": train_sft, "rl": train_rl}
    stages[ARMS[arm].stage](settings, arm, seed)


def train_all(settings: Settings) -> None:
    """Train every arm and seed that is not complete yet, `settings.workers` at a time, each in its own process.

    RuntimeError names the arm, its log file and the log's last lines; arms that finished stay finished.
    """
    from tqdm.auto import tqdm

    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise RuntimeError(
            "train_all starts processes of its own and was itself started by accelerate launch; launch one arm: "
            "`accelerate launch -m clinical_r1.train --arm ... --seed ...`."
        )
    resolve_base(settings.base_model)  # a damaged base model is found here, not in every child
    jobs = [(arm, seed) for seed in settings.seeds for arm in in_order(settings.methods)]
    waiting = [job for job in jobs if not _is_kept(settings, *job)]
    for job in waiting:
        _set_aside_stale(settings, *job)
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
            bar.set_postfix_str(" ".join(map(str, running.pop(done))))
            done.result()
            bar.update()


def _is_kept(settings: Settings, arm: str, seed: int) -> bool:
    """`is_trained`; False also for a user's own arm whose own rules have changed, which is then trained again."""
    try:
        return is_trained(settings, arm, seed)
    except StaleError as error:
        if not is_own(arm) or set(error.changed) - set(arm_stamp(arm)):
            raise
        return False


def _set_aside_stale(settings: Settings, arm: str, seed: int) -> None:
    """Move what was made with other rules out of the way; what is merely unfinished goes on."""
    if (settings.model_dir(arm, seed) / "done.json").exists():
        print(
            f"{arm}, seed {seed}: made with other rules, moved to {set_aside(settings, arm, seed)}, trained again"
        )


def _may_start(settings, arm, seed) -> bool:
    start = ARMS[arm].start
    return not ARMS[start].stage or is_trained(settings, start, seed)


def _train_in_child(settings: Settings, arm: str, seed: int) -> None:
    folder = settings.model_dir(arm, seed)
    folder.mkdir(parents=True, exist_ok=True)
    arguments = ["--arm", arm, "--seed", str(seed), "--out", settings.out, "--with-parent"]
    arguments += ["--settings", json.dumps(settings.to_json())]
    with open(folder / "train.log", "w", encoding="utf-8") as log:
        pipes = {"stdout": log, "stderr": subprocess.STDOUT}
        with start_child("clinical_r1.train", *arguments, threads=settings.threads, **pipes) as child:
            code = child.wait()
    if code:
        tail = "\n".join((folder / "train.log").read_text().splitlines()[-12:])
        raise RuntimeError(
            f"training {arm} with seed {seed} ended with exit status {code}; see {folder / 'train.log'}:\n{tail}"
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
    train_arm(settings_from_json(json.loads(args.settings), args.out), args.arm, args.seed)
    leave_processes()
    return 0


if __name__ == "__main__":
    sys.exit(main())
