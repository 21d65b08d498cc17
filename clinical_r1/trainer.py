"""What is laid round TRL's trainers: aggregations that TRL lacks, and a run that stops or says so where nothing is learned.

Aggregations, in two small methods that are overridden; none is copied::

    trainer = build_trainer_class()(..., args=trl.GRPOConfig(...), aggregation="gated", aggregation_options={"threshold": 1.0})

TRL gathers the rewards of all processes; they are kept on the way, and after TRL has computed its own advantages ours
take their place, each process its own slice. What TRL computes itself (`advantages.TRL_ARGUMENTS`) is left to it. Either
way the anatomy of the advantages is logged at every step:

advantage/<reward>/share        [0, 1], the objective's part of all |contributions| of the batch
advantage/<reward>/multiplier   constrained only: the value that made this step's advantages
advantage/tied_groups           [0, 1], groups in which the first objective does not vary
advantage/silent_groups         [0, 1], groups without any advantage
rewards/<reward>/missing        [0, 1], completions that the objective gave no value

`run` trains with either trainer of TRL, from the newest whole checkpoint, and returns what it has checked.

trl and torch are imported when called.
"""

import hashlib
import math
import re
import sys
from collections import Counter
from functools import cache
from pathlib import Path

from clinical_r1.advantages import (
    TRL_ARGUMENTS,
    advantage_parts,
    silent_groups,
    tied_groups,
    update_multipliers,
    weight_shares,
)
from clinical_r1.arms import ARMS
from clinical_r1.artifacts import BEGUN, difference, hashes_of
from clinical_r1.files import PipelineError, read_json, sha256, write_json
from clinical_r1.workers import Progress

MULTIPLIERS_FILE = "multipliers.json"
WHOLE = "whole.json"  # the last file of a checkpoint: what the others are
RATE = 0.1  # of dual ascent: a mean 0.3 below its target for ten steps adds 0.3 to the multiplier


@cache
def build_trainer_class():
    """`trl.GRPOTrainer` with `MultiObjectiveMixin` before it. A function, so that Unsloth can patch TRL first."""
    import trl

    return type("MultiObjectiveGRPOTrainer", (MultiObjectiveMixin, trl.GRPOTrainer), {"__module__": __name__})


class MultiObjectiveMixin:
    """Comes before `trl.GRPOTrainer` among the bases. Two keywords more than the trainer's:

    aggregation: one of `advantages.AGGREGATIONS`. Those of `TRL_ARGUMENTS` need these values in the GRPOConfig.
    aggregation_options: keywords of `group_advantages`; gate may be a reward's name. For constrained: targets, K - 1
        numbers in the rewards' units or {reward name: target} for every reward but the first; rate of the dual ascent
        (default RATE); multipliers to start from (default zeros).
    ValueError for options that do not fit, before the first step. `multipliers` is part of every checkpoint.
    """

    def __init__(
        self, *args, aggregation="sum_then_normalize", aggregation_options=None, reward_ranges=None, **kwargs
    ):
        super().__init__(*args, **kwargs)
        self.aggregation = aggregation
        self.aggregation_options = dict(aggregation_options or {})
        self.multipliers = None
        if aggregation == "constrained":
            self._start_constrained()
        for key, expected in TRL_ARGUMENTS.get(aggregation, {}).items():
            if (got := getattr(self.args, key)) != expected:
                raise ValueError(
                    f"aggregation {aggregation!r} is TRL's own and got GRPOConfig({key}={got!r}); expected "
                    f"{key}={expected!r} (advantages.TRL_ARGUMENTS)."
                )
        trial = self.reward_weights.new_zeros(2, len(self.reward_func_names))
        self._contributions(trial, 2)  # what does not fit is found here, not after a generation

    def _start_constrained(self):
        """Split what the trainer needs (targets, rate, first multipliers) from the options of the equation."""
        others = list(self.reward_func_names[1:])
        targets = self.aggregation_options.pop("targets", None)
        if isinstance(targets, dict):
            if set(targets) != set(others):
                raise ValueError(
                    f"targets name {', '.join(targets)}; expected one for each reward but the first: {', '.join(others)}."
                )
            targets = [targets[name] for name in others]
        if targets is None:
            raise ValueError(f"constrained got no targets; expected one for each of {', '.join(others)}.")
        self.targets = [float(target) for target in targets]
        self.rate = self.aggregation_options.pop("rate", RATE)
        first = self.aggregation_options.pop("multipliers", None)
        self.multipliers = [float(value) for value in first] if first is not None else [0.0] * len(others)
        trial = self.reward_weights.new_zeros(2, len(others) + 1)
        update_multipliers(self.multipliers, trial, self.targets, self.rate)

    def _contributions(self, rewards, num_generations):
        """(N, K) contributions to the advantages of all processes, in float64."""
        options = dict(self.aggregation_options)
        if self.multipliers is not None:
            options["multipliers"] = self.multipliers
        return advantage_parts(
            rewards,
            self.reward_weights.to(rewards.device),
            num_generations,
            self.aggregation,
            names=list(self.reward_func_names),
            **options,
        )

    # --- the hook

    def _calculate_rewards(self, *args, **kwargs):
        self._gathered_rewards = super()._calculate_rewards(*args, **kwargs)  # (N, K), all processes
        return self._gathered_rewards

    def _generate_and_score_completions(self, inputs):
        output = super()._generate_and_score_completions(inputs)
        rewards, self._gathered_rewards = self._gathered_rewards, None
        training = self.model.training
        num_generations = self.num_generations if training else self.num_generations_eval
        if num_generations < 2:
            return output  # evaluation of single completions: nothing to compare, TRL's zeros stand
        self._check_sizes(rewards, num_generations)
        parts = self._contributions(rewards, num_generations)
        if self.aggregation not in TRL_ARGUMENTS:
            self._replace_advantages(output, parts.sum(dim=1).to(output["advantages"].dtype))
        self._log_anatomy(parts, rewards, num_generations, "train" if training else "eval")
        if training and self.multipliers is not None:
            self.multipliers = update_multipliers(self.multipliers, rewards, self.targets, self.rate)
        return output

    def _check_sizes(self, rewards, num_generations):
        """PipelineError where a group's spread is too large for float32: TRL would make its advantages 0, or not finite."""
        import torch

        known = rewards.masked_fill(rewards.isnan(), 0)
        total = (known * self.reward_weights.to(known.device)).sum(dim=1, keepdim=True)
        compared = torch.cat([known, total], dim=1)
        if compared.view(-1, num_generations, compared.shape[1]).std(dim=1).isfinite().all():
            return
        largest = zip(self.reward_func_names, known.abs().amax(dim=0).tolist(), strict=True)
        raise PipelineError(
            f"{self.args.run_name}, step {self.state.global_step + 1}: rewards of this size cannot be compared within a group "
            f"(largest of each: {', '.join(f'{name} {size:g}' for name, size in largest)}); keep them to ordinary numbers."
        )

    def _replace_advantages(self, output, advantages):
        """Here rows are still in group order, process after process; TRL shuffles them later."""
        local = len(output["advantages"])
        start = self.accelerator.process_index * local
        output["advantages"] = advantages[start : start + local]
        logged = self._logs["advantages"]
        for _ in range(min(len(advantages), len(logged))):
            logged.pop()
        logged.extend(advantages.tolist())

    def _log_anatomy(self, parts, rewards, num_generations, mode):
        metrics = self._metrics[mode]
        for name, share in zip(
            self.reward_func_names, rewards.isnan().double().mean(dim=0).tolist(), strict=True
        ):
            metrics[f"rewards/{name}/missing"].append(share)
        for name, share in zip(self.reward_func_names, weight_shares(parts), strict=True):
            metrics[f"advantage/{name}/share"].append(share)
        for name, value in zip(self.reward_func_names[1:], self.multipliers or (), strict=False):
            metrics[f"advantage/{name}/multiplier"].append(value)
        metrics["advantage/tied_groups"].append(tied_groups(rewards, num_generations).double().mean().item())
        metrics["advantage/silent_groups"].append(
            silent_groups(parts, num_generations).double().mean().item()
        )

    # --- checkpoints

    def _save_checkpoint(self, model, trial):
        # Before the trainer's own files: a checkpoint whose trainer_state.json exists must be whole.
        if self.multipliers is not None and self.args.should_save:
            folder = Path(self._get_output_dir(trial=trial)) / f"checkpoint-{self.state.global_step}"
            write_json(folder / MULTIPLIERS_FILE, dict(zip(self._others(), self.multipliers, strict=True)))
        super()._save_checkpoint(model, trial)

    def _load_optimizer_and_scheduler(self, checkpoint):
        super()._load_optimizer_and_scheduler(checkpoint)
        if self.multipliers is None or checkpoint is None:
            return
        path = Path(checkpoint) / MULTIPLIERS_FILE
        if not path.exists():
            raise FileNotFoundError(
                f"{checkpoint} holds no {MULTIPLIERS_FILE}, so it was not trained with 'constrained'; start without it."
            )
        kept = read_json(path)
        if list(kept) != self._others():
            raise ValueError(
                f"{path} holds multipliers of {', '.join(kept)}; expected {', '.join(self._others())}."
            )
        self.multipliers = list(kept.values())

    def _others(self) -> list[str]:
        return list(self.reward_func_names[1:])


# -------------------------------------------------------------------------------------------------- a run that is watched


def check_count(arm: str, settings, rows, per_step: str) -> None:
    """ValueError when there are too few rows for one step: the trainer would make none, or a smaller one."""
    path, needed = (
        settings.questions_path(settings.train_benchmark, ARMS[arm].stage),
        getattr(settings, per_step),
    )
    if len(rows) < needed:
        traces = (
            f" with a trace in {settings.teacher_traces}"
            if per_step == "sft_batch" and settings.teacher_traces
            else ""
        )
        raise ValueError(
            f"{arm} needs {per_step} = {needed} questions for a step and has {len(rows)}: so many stand in {path}{traces}; add "
            f"questions, or set {per_step} lower."
        )
    if ARMS[arm].stage == "sft" and not settings.sft_epochs:
        raise ValueError(f"{arm} would make no step: sft_epochs is 0; expected a number above it.")


def check_lengths(arm: str, settings, tokenizer, conversations) -> None:
    """ValueError when some do not fit: a trace would lose its end, a prompt its begin."""
    stage, limit, names = ARMS[arm].stage, settings.max_prompt_tokens, "max_prompt_tokens"
    if stage == "sft":
        limit, names = limit + settings.max_completion_tokens, f"{names} + max_completion_tokens"
    # Unsloth changes the default of return_dict for every tokenizer
    options = {"tokenize": True, "add_generation_prompt": stage == "rl", "return_dict": False}
    lengths = [len(tokenizer.apply_chat_template(each, **options)) for each in conversations]
    if longer := sum(length > limit for length in lengths):
        what, source = "prompts", settings.questions_path(settings.train_benchmark, stage)
        if stage == "sft":
            what, source = "traces", settings.teacher_traces or source
        raise ValueError(
            f"{arm}: {longer} of {len(lengths)} {what} are longer than {names} = {limit} tokens of this tokenizer: the longest "
            f"in {source} has {max(lengths)}; raise the limit, or leave these out."
        )


class AlreadyTrained(Exception):
    """The checkpoint that was loaded is that of the last step: there is nothing to train."""


class WatchMixin:
    """Comes before `transformers.TrainerCallback`. Stops a run at its first loss, gradient or weight that is not finite, before
    that is saved; says once what a step lacks; writes whole.json as the last file of each checkpoint.
    """

    def __init__(self):
        self.said, self.progress = set(), None

    def on_train_begin(self, args, state, control, **kwargs):
        if state.global_step >= args.max_steps:  # the trainer would train one more
            raise AlreadyTrained
        if state.is_world_process_zero:
            arm = Path(args.output_dir).parent
            self.progress = Progress(arm, args.run_name, args.max_steps, state.global_step)

    def on_step_end(self, args, state, control, **kwargs):
        if self.progress:
            self.progress.step(state.global_step)

    def on_log(self, args, state, control, logs=None, model=None, optimizer=None, **kwargs):
        if "loss" not in logs:
            return  # an evaluation, or the summary at the end
        wrong = [name for name in ("loss", "grad_norm") if not math.isfinite(logs.get(name, 0.0))]
        # float16: the scaler leaves such a step out and goes on with a smaller scale
        if getattr(optimizer, "step_was_skipped", False):
            wrong = [name for name in wrong if name != "grad_norm"]
        wrong += [f"weight {name}" for name in not_finite(model)[:1]]
        if wrong:
            raise PipelineError(
                f"{args.run_name}, step {state.global_step}: {' and '.join(wrong)} not finite, so nothing can be learned from "
                "here; lower the learning rate, or look for a reward of enormous size. Nothing of this step was saved."
            )
        for sentence in lacking(logs).values():
            if sentence not in self.said:
                self.said.add(sentence)
                step = f"{args.run_name}, step {state.global_step}"
                print(f"{step}: {sentence} (said once).", file=sys.stderr, flush=True)

    def on_save(self, args, state, control, **kwargs):
        from accelerate import PartialState

        PartialState().wait_for_everyone()  # each process saves its own random numbers
        if state.is_world_process_zero:
            checkpoint = Path(args.output_dir) / f"checkpoint-{state.global_step}"
            write_json(checkpoint / WHOLE, _contents(checkpoint))


def lacking(logs: dict) -> dict[str, str]:
    """{column of the log: sentence} of what one step lacked altogether."""
    found = {}
    for key, value in logs.items():
        if key.startswith("rewards/") and key.endswith("/missing") and value == 1:
            found[key] = f"{key.split('/')[1]} gave no completion a value"
    if logs.get("completions/clipped_ratio") == 1:
        found["completions/clipped_ratio"] = (
            "every completion was cut at max_completion_tokens, none came to an end"
        )
    return found


def not_finite(model) -> list[str]:
    """Names of the trained weights that hold a value which is not finite."""
    return [name for name, value in _trained(model) if not value.isfinite().all()]


def _trained(model):
    return [(name, value.detach()) for name, value in model.named_parameters() if value.requires_grad]


def _fingerprints(model) -> dict[str, bytes]:
    """{name: sha256} of the trained weights."""
    import torch

    return {
        name: hashlib.sha256(value.cpu().contiguous().view(-1).view(torch.uint8).numpy()).digest()
        for name, value in _trained(model)
    }


def run(trainer) -> dict:
    """Train to `args.max_steps`, from the newest whole checkpoint in the trainer's folder where there is one.

    Returns what was checked: steps; loss, of the last step; tensors and moved, of the trained weights and of those that differ
    from their start; skipped_steps, of a float16 scaler; lacking, {column of the log: steps that had nothing}.
    PipelineError for a value that is not finite, too few steps, weights that did not move, or an objective without any value.
    """
    from transformers import TrainerCallback

    before = _fingerprints(trainer.model)
    watch = type("Watch", (WatchMixin, TrainerCallback), {})()
    trainer.add_callback(watch)
    whole = whole_checkpoints(Path(trainer.args.output_dir))
    if whole and hasattr(trainer, "_total_train_tokens"):
        # SFTTrainer counts from the start of its process
        trainer._total_train_tokens = _tokens_seen(whole[-1])
    try:
        trainer.train(resume_from_checkpoint=str(whole[-1]) if whole else None)
    except AlreadyTrained:
        print(
            f"{trainer.args.run_name}: {whole[-1]} is that of the last step and is loaded.", file=sys.stderr
        )
    finally:
        if watch.progress:
            watch.progress.end()
    return _checked(trainer, before)


def _tokens_seen(checkpoint: Path) -> int:
    """The tokens that a supervised run had seen at a checkpoint: what its last logged step says, 0 where none was logged."""
    logged = read_json(checkpoint / "trainer_state.json")["log_history"]
    return int(next((row["num_tokens"] for row in reversed(logged) if "num_tokens" in row), 0))


def _checked(trainer, before) -> dict:
    name, state, planned = trainer.args.run_name, trainer.state, trainer.args.max_steps
    if state.global_step != planned:
        raise PipelineError(
            f"{name} ended after {state.global_step} steps, planned were {planned}: its questions may not fill a step."
        )
    if wrong := not_finite(trainer.model):
        raise PipelineError(f"{name} ended with weights that are not finite ({wrong[0]}).")
    after = _fingerprints(trainer.model)
    moved = sum(before[key] != after[key] for key in before)
    if not moved:
        raise PipelineError(
            f"no weight of {name} moved in {planned} steps, so it is what it started from: every group may have earned equal "
            "rewards, or the learning rate is 0 (as in the first step of a warm-up)."
        )
    rows = [row for row in state.log_history if "loss" in row]
    lacked = dict(sorted(Counter(column for row in rows for column in lacking(row)).items()))
    never = [key.split("/")[1] for key, n in lacked.items() if key.startswith("rewards/") and n == len(rows)]
    if never:
        raise PipelineError(
            f"{' and '.join(never)} gave {name} no value in any of {planned} steps, so it was trained without; correct the "
            "reward, or leave it out."
        )
    skipped = sum(not math.isfinite(row.get("grad_norm", 0.0)) for row in rows)
    loss = rows[-1]["loss"]
    return dict(
        steps=planned, loss=loss, tensors=len(after), moved=moved, skipped_steps=skipped, lacking=lacked
    )


def remarks(checked: dict) -> list[str]:
    """What a reader of a finished arm should know, as sentences; [] where nothing was lacking. checked: as `run` returns it."""
    said = [
        f"{lacking({column: 1})[column]} in {n} of {checked['steps']} steps"
        for column, n in checked["lacking"].items()
    ]
    skipped = checked["skipped_steps"]
    said += checked.get("said", [])  # what a stage has to say of itself
    return said + ([f"float16 overflowed in {skipped} steps, which moved no weight"] if skipped else [])


# ------------------------------------------------------------------------------------------------------------ checkpoints


def _contents(checkpoint: Path) -> dict[str, str]:
    """{file: sha256} of a checkpoint, and of the stamp that its arm was begun with."""
    begun = checkpoint.parent.parent / BEGUN
    found = hashes_of(checkpoint) | ({BEGUN: sha256(begun)} if begun.exists() else {})
    found.pop(WHOLE, None)
    return found


def whole_checkpoints(folder: Path) -> list[Path]:
    """Checkpoints whose files are all as they were saved, the newest last; the others are named on stderr."""
    numbered = [path for path in folder.glob("checkpoint-*") if re.fullmatch(r"checkpoint-\d+", path.name)]
    found = []
    for path in sorted(numbered, key=lambda path: int(path.name.split("-")[1])):
        try:
            fault = difference(_contents(path), read_json(path / WHOLE))
        except FileNotFoundError:
            fault = "it was not written to its end"
        except ValueError as error:
            fault = str(error)
        if fault:
            print(f"{path} is passed over: {fault}.", file=sys.stderr, flush=True)
        else:
            found.append(path)
    return found
