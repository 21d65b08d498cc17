"""Answers of several arms to the same questions, their means, and the bootstrap draws that they share over questions and seeds.

Means and contrasts need no draws (`intervals.two_way`); volumes and fronts do.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from clinical_r1.intervals import (
    DRAWS,
    QUESTIONS_AND_SEEDS,
    QUESTIONS_ONLY,
    Estimate,
    estimate_function,
    interval_of,
    named_bootstrap,
    share_interval,
    two_way,
)
from clinical_r1.laboratory.records import FIX, OBJECTIVES
from clinical_r1.metrics import LOWER_IS_BETTER, PROCESS_METRICS


@dataclass(frozen=True)
class Draws:
    """Values (S, A, Q, K) of A arms in K objectives, and draws of their means, made when they are asked for.

    The `reps` draws begin at the seed of `rng`, so they do not depend on what else it has drawn; None for who needs none.
    """

    arms: tuple
    objectives: tuple
    values: np.ndarray
    rng: np.random.Generator | None
    reps: int

    @property
    def seeds(self) -> int:
        return self.values.shape[0]

    @property
    def questions(self) -> int:
        return self.values.shape[2]

    @property
    def estimate(self) -> np.ndarray:
        """(A, K) means."""
        return self.values.mean(axis=(0, 2))

    @cached_property
    def draws(self) -> np.ndarray:
        """(R, A, K) means over drawn questions and S - 1 of S drawn seeds.

        S of them would shrink the seeds' share of the variance by (S-1)/S (Rao and Wu 1988).
        """
        if self.rng is None:
            raise ValueError(
                "got no generator; expected rng=np.random.default_rng(seed): this is a bootstrap."
            )
        rng = np.random.default_rng(self.rng.bit_generator.seed_seq)
        times = rng.multinomial(self.questions, np.full(self.questions, 1 / self.questions), size=self.reps)
        means = np.einsum("rq,saqk->rsak", times / self.questions, self.values, optimize=True)
        if self.seeds == 1:
            return means[:, 0]
        chosen = rng.multinomial(self.seeds - 1, np.full(self.seeds, 1 / self.seeds), size=self.reps)
        return np.einsum("rs,rsak->rak", chosen / (self.seeds - 1), means)

    def named(self, volume=False) -> str:
        """What an interval covers, in words; of a volume, the bootstrap with its draws and seed."""
        if volume:
            return named_bootstrap(self.rng, self.reps, self.seeds)
        return QUESTIONS_AND_SEEDS if self.seeds > 1 else QUESTIONS_ONLY

    def volume(self, function) -> Estimate:
        """Estimate of `function(means (..., A, K)) -> (...)` that is no mean."""
        estimate, draws = float(function(self.estimate)), function(self.draws)
        if self.seeds == 1:
            error = float(draws.std()) or np.nan
            return Estimate(estimate, error, self.questions - 1, self.questions, draws=draws)
        from_seeds = function(self.values.mean(axis=2)).var(ddof=1) / self.seeds
        return estimate_function(estimate, draws, from_seeds, self.seeds, self.questions)

    def contrast(self, objective, weights, paired=True) -> Estimate:
        """Estimate of the weighted sum of arms' means in one objective; weights: arm -> number. ValueError: an arm not drawn."""
        if absent := sorted(set(weights) - set(self.arms)):
            raise ValueError(f"no answers were drawn of {absent}; expected some of {list(self.arms)}: {FIX}.")
        k, signs = self.objectives.index(objective), np.array([weights.get(arm, 0.0) for arm in self.arms])
        tops = np.einsum("saq,a->sq", self.values[..., k], signs)
        unit = 100.0 if objective == "accuracy" else 1.0
        return two_way(tops, np.ones_like(tops), unit, paired, counts=not paired)


def draw(lab, arms, objectives, rng=None, reps=DRAWS) -> Draws:
    """Draws of these arms on the seeds and questions that all of them have.

    Raises ValueError naming an objective that was not computed, or the arm that has no seed or other questions.
    """
    objectives, arms = known_objectives(lab, objectives), tuple(arms)
    rows = lab.scores[lab.scores["arm"].isin(arms)]
    held = {arm: set(own) for arm, own in rows.groupby("arm")["seed"]}
    if absent := [arm for arm in arms if arm not in held]:
        raise ValueError(f"the scores have no answers of {absent}; expected some of {sorted(held)}: {FIX}.")
    seeds = sorted(set.intersection(*held.values()))
    if not seeds:
        raise ValueError(f"the arms {list(arms)} have no training seed in common; {FIX}.")
    rows = rows[rows["seed"].isin(seeds)]
    cells = [_cells(rows, arms, seeds, objective) for objective in objectives]
    return Draws(arms, objectives, np.stack(cells, axis=-1), rng, reps)


def _cells(rows, arms, seeds, objective):
    """(S, A, Q) values of one objective; ValueError where an arm lacks a question or a verdict."""
    table = rows.pivot(index=["seed", "arm"], columns="id", values=objective)
    if (lacking := table.isna().sum(axis=1)).any():
        seed, arm = lacking.idxmax()
        raise ValueError(
            f"{arm} seed {seed} has no {objective} for {lacking.max()} of {table.shape[1]} questions; expected the same "
            f"questions for every arm: {FIX}."
        )
    return np.array([table.loc[seed].loc[list(arms)].to_numpy(float) for seed in seeds])


def known_objectives(lab, objectives):
    """The objectives as a tuple. ValueError for none, and for one that the scores do not hold."""
    objectives = tuple(objectives)
    for objective in objectives:
        if objective not in lab.scores:
            known = [name for name in (*PROCESS_METRICS, "accuracy", "tokens") if name in lab.scores]
            raise ValueError(f"objective {objective!r} is named but not computed; expected some of {known}.")
    if not objectives:
        raise ValueError(f"got no objective; expected some of {OBJECTIVES}.")
    return objectives


def maximise(objectives):
    """One bool per objective: False where less is better."""
    return [objective not in LOWER_IS_BETTER for objective in objectives]


def mean_and_interval(drawn, arm, metric):
    """One arm in one objective: value, ci_low, ci_high, n, seeds, interval (its name); it stays where values can lie."""
    result = drawn.contrast(metric, {arm: 1.0}, paired=False)
    if metric == "accuracy":
        low, high = share_interval(result, drawn.seeds * drawn.questions, scale=100.0)
    else:
        low, high = interval_of(result, bounds=(0.0, np.inf))
    own = {"value": result.value, "ci_low": low, "ci_high": high}
    return own | {"n": drawn.questions, "seeds": drawn.seeds, "interval": drawn.named()}


def seed_means(lab, arm, column, third="all"):
    """Series seed -> mean of a logged column over a third of training ("early", "late", "all"), or None without any."""
    own = lab.training[lab.training["arm"] == arm]
    if column not in own or not own[column].notna().any():
        return None
    last = own["step"].max()
    if third == "early":
        own = own[own["step"] <= last / 3]
    elif third == "late":
        own = own[own["step"] > 2 * last / 3]
    values = own.groupby("seed")[column].mean().dropna()
    return values if len(values) else None


def mean_over_seeds(values):
    """Mean over seeds with a Student's t interval; NaN bounds for one seed, and for seeds that agree exactly. values: (S,)."""
    from scipy.stats import t

    values = np.asarray(values, dtype=float)
    half = np.nan
    if len(values) > 1:
        half = t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values))
    mean = values.mean()
    half = half if half > 1e-12 * abs(mean) else np.nan  # no spread, no statement
    return {"value": mean, "ci_low": mean - half, "ci_high": mean + half, "seeds": len(values)}
