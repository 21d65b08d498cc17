"""Advantages of turns in TRL's GRPOTrainer: every token gets the advantage of its turn, (N, T) in place of (N,).

    class Trainer(TurnAdvantageMixin, SharedPrefixMixin, MultiObjectiveGRPOTrainer): ...            (`build_agent_trainer_class`)

TRL accepts (N, T) in every loss, and carries them through its shuffle and its split into micro-batches. Its own advantages
are not used: those of `credit` take their place. With estimator "episode" and std=False they are the same as TRL's with
scale_rewards="none"; with std=True they differ by the number that is added to a deviation, 1e-6 here and 1e-4 there.

Logged at every step, over the batch of all processes:

agent/right, agent/answered       [0, 1], share of episodes with the right diagnosis, with any
agent/turns, agent/inquiries      of an episode
agent/invalid, agent/cut          [0, 1], share of turns that were invalid, that had no end
agent/cost_<verb>                 what an inquiry costs in this step, where a schedule is given
agent/sampled_tokens, agent/trained_tokens   of the agent, in this step: as said, and in all rows (copies before a fork count)
credit/<term>                     mean |term| over the turns: episode, tree, anchor
credit/mean                       mean advantage over the agent's tokens: not 0 where winners and losers differ in length
anchors/repeated, anchors/alone   [0, 1], share of valid turns beyond the first whose state another turn met, or none
anchors/informative               [0, 1], share of those turns with an anchor term other than 0; what they are compared with may
                                  be an invalid turn

trl and torch are imported when called.
"""

import math
import warnings
from collections.abc import Mapping, Sequence
from functools import cache

from clinical_r1.agent.consultation import DIAGNOSE, Rules, read_action
from clinical_r1.agent.credit import (
    ESTIMATORS,
    anchor_statistics,
    check_groups,
    check_spans,
    credit_terms,
    spread,
    turn_spans,
)
from clinical_r1.agent.episodes import Episode
from clinical_r1.agent.rollouts import ConsultationRollout
from clinical_r1.speed.prefix import SharedPrefixMixin
from clinical_r1.trainer import build_trainer_class

Schedule = Sequence[tuple[int, Mapping[str, float]]]


@cache
def build_agent_trainer_class():
    """`TurnAdvantageMixin` and `SharedPrefixMixin` before the multi-objective trainer. A function, as that one's."""
    bases = (TurnAdvantageMixin, SharedPrefixMixin, build_trainer_class())
    return type("AgentGRPOTrainer", bases, {"__module__": __name__})


class TurnAdvantageMixin:
    """Comes before `trl.GRPOTrainer` among the bases; `rollout_func` is a ConsultationRollout. Keywords beside the trainer's:

    estimator, turn_std, omega, gamma: as `credit.credit` (turn_std: its std).
    cost_schedule: [(step, {verb: cost}), ...]; costs are linear between two steps and constant outside. None: the rules' own.
    ValueError for a rollout without trees where the estimator needs them, for more than one reward (its advantages would be
    lost), and for groups that do not lie whole in one process.
    """

    def __init__(
        self, *args, estimator="episode", turn_std=True, omega=1.0, gamma=1.0, cost_schedule=None, **kwargs
    ):
        with warnings.catch_warnings():
            warnings.filterwarnings(
                "ignore", "You are using 'rollout_func'", UserWarning
            )  # TRL may change it
            super().__init__(*args, **kwargs)
        self.estimator = estimator
        self.credit_options = {"std": turn_std, "omega": omega, "gamma": gamma}
        self.cost_schedule = None if not cost_schedule else checked_schedule(cost_schedule)
        self._check_agent()

    def _check_agent(self):
        if self.estimator not in ESTIMATORS:
            raise ValueError(
                f"estimator {self.estimator!r} is not known; expected one of {', '.join(ESTIMATORS)}."
            )
        if not isinstance(self.rollout_func, ConsultationRollout):
            raise ValueError(
                f"got the rollout_func {self.rollout_func!r}; expected a ConsultationRollout, whose episodes tell the turns."
            )
        if "tree" in self.estimator and self.rollout_func.forest is None:
            raise ValueError(
                f"estimator {self.estimator!r} compares leaves of a tree and the rollout plays chains; give it forest=Shape(...)."
            )
        if len(self.reward_funcs) != 1:
            raise ValueError(
                f"got {len(self.reward_funcs)} rewards; expected one, the episode's own: advantages of turns replace the "
                "others."
            )
        rows = self.args.per_device_train_batch_size * self.args.steps_per_generation
        if rows % self.num_generations:
            raise ValueError(
                f"{rows} rows a process cut a group of {self.num_generations}; expected per_device_train_batch_size times "
                "steps_per_generation to be a multiple of num_generations."
            )

    # --- the hook

    def _generate_and_score_completions(self, inputs):
        rollout, mode = self.rollout_func, "train" if self.model.training else "eval"
        if self.cost_schedule and mode == "train":
            rollout.rules = rollout.rules.with_costs(**costs_at(self.cost_schedule, self.state.global_step))
        named = [row.get("patient") for row in inputs]
        rollout.patients_of_rows = named if all(named) else None
        before = rollout.sampled, rollout.trained
        try:
            output = super()._generate_and_score_completions(inputs)
        finally:
            rollout.patients_of_rows = None
        episodes = [row["episode"] for row in inputs]
        self._log_means(mode, episode_measures(episodes, rollout.rules if self.cost_schedule else None))
        if mode == "train":
            self._log_sampled(rollout.sampled - before[0], rollout.trained - before[1])
            self._credit_turns(output, episodes)
        return output

    def _log_sampled(self, sampled: int, trained: int) -> None:
        """Sums over all processes, not means: what a step has cost."""
        import torch

        local = torch.tensor([[sampled, trained]], dtype=torch.float64, device=self.accelerator.device)
        for name, value in zip(
            ("sampled", "trained"), self.accelerator.gather(local).sum(dim=0), strict=True
        ):
            self._metrics["train"][f"agent/{name}_tokens"].append(value.item())

    def _calculate_rewards(self, inputs, prompts, completions, completion_ids_list):
        """TRL's (N, 1) of all processes, after this process's part was compared with its episodes."""
        rewards = super()._calculate_rewards(inputs, prompts, completions, completion_ids_list)
        first = self.accelerator.process_index * len(inputs)
        for row, (found, each) in enumerate(zip(rewards[first:, 0].tolist(), inputs, strict=False)):
            if not math.isclose(found, each["episode"].reward, rel_tol=1e-5, abs_tol=1e-6):
                raise ValueError(
                    f"row {row} has the reward {found} and its episode {each['episode'].reward}; expected the episode's own: use "
                    "rollouts.consultation_reward."
                )
        return rewards

    def _credit_turns(self, output, episodes: Sequence[Episode]):
        """Replace `advantages` (N,) by those of the turns, (N, T)."""
        mask = output["completion_mask"] * output.get("tool_mask", 1)
        spans = turn_spans(mask.cpu())
        check_trace(spans, episodes)
        shape = self.rollout_func.forest
        groups, trees = [e.patient for e in episodes], [e.tree for e in episodes]
        forest = {} if shape is None else {"trees": trees, "keep": shape.keep}
        check_groups(groups, self.num_generations, **forest)
        rewards, keys = [e.rewards for e in episodes], [[t.key for t in e.turns] for e in episodes]
        terms = credit_terms(
            self.estimator, rewards, groups, keys, None if shape is None else trees, **self.credit_options
        )
        per_turn = [[sum(x) for x in zip(*rows, strict=True)] for rows in zip(*terms.values(), strict=True)]
        stock = output["advantages"]
        output["advantages"] = spread(per_turn, spans, mask.shape[1], stock.dtype).to(stock.device)
        self._log_credit(terms, per_turn, keys, groups, episodes)

    # --- what is logged

    def _log_credit(self, terms, per_turn, keys, groups, episodes):
        turns = sum(map(len, per_turn))
        found = {
            f"credit/{name}": (sum(abs(v) for row in rows for v in row), turns)
            for name, rows in terms.items()
        }
        weighted = [
            (value * len(turn.ids), len(turn.ids))
            for row, e in zip(per_turn, episodes, strict=True)
            for value, turn in zip(row, e.turns, strict=True)
        ]
        found["credit/mean"] = tuple(map(sum, zip(*weighted, strict=True)))
        nodes = [[turn.node for turn in e.turns] for e in episodes]
        valid = [[turn.problem is None for turn in e.turns] for e in episodes]
        counted = anchor_statistics(keys, groups, valid, terms.get("anchor"), nodes)
        shares = {"repeated": "repeated", "alone": "singletons", "informative": "informative"}
        for name, key in shares.items():
            if key != "informative" or "anchor" in terms:
                found[f"anchors/{name}"] = ((counted[key] or 0.0) * counted["turns"], counted["turns"])
        self._log_means("train", found)
        self._show_advantages(per_turn, episodes)

    def _show_advantages(self, per_turn, episodes):
        """In TRL's table of completions: the mean over a row's tokens, in place of TRL's own."""
        from accelerate.utils import gather_object

        means = [
            sum(value * len(turn.ids) for value, turn in zip(row, e.turns, strict=True)) / e.agent_tokens
            for row, e in zip(per_turn, episodes, strict=True)
        ]
        means, logged = gather_object(means), self._logs["advantages"]
        for _ in range(min(len(means), len(logged))):
            logged.pop()
        logged.extend(means)

    def _log_means(self, mode, sums: Mapping[str, tuple[float, float]]):
        """Log total / count over all processes; nothing where nothing was counted. sums: the same names in every process."""
        import torch

        local = torch.tensor([list(pair) for pair in sums.values()], dtype=torch.float64)
        total = self.accelerator.gather(local[None].to(self.accelerator.device)).sum(dim=0).tolist()
        for name, (value, count) in zip(sums, total, strict=True):
            if count:
                self._metrics[mode][name].append(value / count)


# ------------------------------------------------------------------------------------------------------------- parts


def check_trace(spans, episodes: Sequence[Episode]) -> None:
    """ValueError unless the mask's spans of agent's tokens (N rows) are the turns of the episodes."""
    check_spans(spans, [len(episode.turns) for episode in episodes])
    for row, (found, episode) in enumerate(zip(spans, episodes, strict=True)):
        if list(found) != episode.spans:
            raise ValueError(
                f"row {row} has the agent's tokens at {list(found)} and its episode at {episode.spans}; expected the same: hand "
                "on the mask and the tokens of the rollout as they are."
            )


def episode_measures(
    episodes: Sequence[Episode], rules: Rules | None = None
) -> dict[str, tuple[float, float]]:
    """{name in the log: (total, count)}; rules: whose costs are logged as well."""
    n, turns = len(episodes), [turn for episode in episodes for turn in episode.turns]
    found = {
        "agent/right": (sum(e.right for e in episodes), n),
        "agent/answered": (sum(e.diagnosis is not None for e in episodes), n),
        "agent/turns": (len(turns), n),
        "agent/inquiries": (sum(map(_inquires, turns)), n),
        "agent/invalid": (sum(turn.problem is not None for turn in turns), len(turns)),
        "agent/cut": (sum(not turn.ended for turn in turns), len(turns)),
    }
    costs = {} if rules is None else {f"agent/cost_{verb}": (cost, 1) for verb, cost in rules.costs.items()}
    return found | costs


def _inquires(turn) -> bool:
    return turn.problem is None and read_action(turn.text).verb != DIAGNOSE


def checked_schedule(schedule: Schedule) -> list[tuple[int, dict[str, float]]]:
    """The schedule in order. ValueError unless steps rise and every entry names the same costs."""
    entries = [(int(step), dict(costs)) for step, costs in schedule]
    steps = [step for step, _ in entries]
    if steps != sorted(set(steps)) or any(costs.keys() != entries[0][1].keys() for _, costs in entries):
        raise ValueError(
            f"got the schedule {entries}; expected rising steps, each with the same names of costs: write 0 where there is none."
        )
    for _, costs in entries:
        Rules(costs=costs)  # its own errors
    return entries


def costs_at(schedule: Schedule, step: int) -> dict[str, float]:
    """Costs in a step: linear between two entries, constant before the first and after the last."""
    if step <= schedule[0][0]:
        return dict(schedule[0][1])
    for (start, before), (end, after) in zip(schedule, schedule[1:], strict=False):
        if step < end:
            share = (step - start) / (end - start)
            return {name: (1 - share) * before[name] + share * after[name] for name in before}
    return dict(schedule[-1][1])
