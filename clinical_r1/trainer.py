"""The aggregations that TRL lacks, in TRL's trainer: two small methods are overridden, none is copied.

    trainer = build_trainer_class()(..., args=trl.GRPOConfig(...), aggregation="gated", aggregation_options={"threshold": 1.0})

TRL gathers the rewards of all processes; they are kept on the way, and after TRL has computed its own advantages ours
take their place, each process its own slice. What TRL computes itself (`advantages.TRL_ARGUMENTS`) is left to it. Either
way the anatomy of the advantages is logged at every step:

advantage/<reward>/share        [0, 1], the objective's part of all |contributions| of the batch
advantage/<reward>/multiplier   constrained only: the value that made this step's advantages
advantage/tied_groups           [0, 1], groups in which the first objective does not vary
advantage/silent_groups         [0, 1], groups without any advantage

trl and torch are imported when called.
"""

import json
from functools import cache
from pathlib import Path

from clinical_r1.advantages import (
    TRL_ARGUMENTS,
    contributions,
    silent_groups,
    tied_groups,
    update_multipliers,
    weight_shares,
)
from clinical_r1.files import write_json

MULTIPLIERS_FILE = "multipliers.json"
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
        return contributions(
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
        parts = self._contributions(rewards, num_generations)
        if self.aggregation not in TRL_ARGUMENTS:
            self._replace_advantages(output, parts.sum(dim=1).to(output["advantages"].dtype))
        self._log_anatomy(parts, rewards, num_generations, "train" if training else "eval")
        if training and self.multipliers is not None:
            self.multipliers = update_multipliers(self.multipliers, rewards, self.targets, self.rate)
        return output

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
        kept = json.loads(path.read_text(encoding="utf-8"))
        if list(kept) != self._others():
            raise ValueError(
                f"{path} holds multipliers of {', '.join(kept)}; expected {', '.join(self._others())}."
            )
        self.multipliers = list(kept.values())

    def _others(self) -> list[str]:
        return list(self.reward_func_names[1:])
