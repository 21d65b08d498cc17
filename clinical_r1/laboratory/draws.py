"""Bootstrap draws that all arms share, so that they are compared pairwise over questions and training seeds."""

from typing import NamedTuple

import numpy as np

from clinical_r1.intervals import Resampled, crossed_draws, ratio_interval
from clinical_r1.laboratory.records import FIX, OBJECTIVES
from clinical_r1.metrics import LOWER_IS_BETTER, PROCESS_METRICS

REPS = 2000


class Draws(NamedTuple):
    """Means of A arms in K objectives, drawn R times over questions and S seeds.

    estimate (A, K); draws (R, A, K); by_seed (S, A, K). questions, seeds: how many of each.
    """

    arms: tuple
    objectives: tuple
    estimate: np.ndarray
    draws: np.ndarray
    by_seed: np.ndarray
    questions: int
    seeds: int

    def result(self, function) -> Resampled:
        """Resampled of `function(means (..., A, K)) -> (...)`, a mean, a contrast or a volume."""
        estimate, draws, own = function(self.estimate), function(self.draws), function(self.by_seed)
        if self.seeds == 1:
            return Resampled(float(estimate), draws, float(draws.std()), self.questions - 1, False)
        return crossed_draws(float(estimate), draws, own.var(ddof=1) / self.seeds, self.seeds, self.questions)

    def of(self, arm, objective) -> Resampled:
        a, k = self.arms.index(arm), self.objectives.index(objective)
        return self.result(lambda means: means[..., a, k])


def draw(lab, arms, objectives, rng, reps=REPS) -> Draws:
    """Draws of these arms on the seeds and questions that all of them have (intervals.bootstrap_interval says how).

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
    values = np.stack(cells, axis=-1)  # (S, A, Q, K)
    size = values.shape[2]
    times = rng.multinomial(size, np.full(size, 1 / size), size=reps) / size  # (R, Q)
    means = np.einsum("rq,saqk->rsak", times, values, optimize=True)
    if len(seeds) > 1:  # S - 1 of S seeds: see intervals.bootstrap_interval
        drawn = rng.multinomial(len(seeds) - 1, np.full(len(seeds), 1 / len(seeds)), size=reps)
        means = np.einsum("rs,rsak->rak", drawn / (len(seeds) - 1), means)
    else:
        means = means[:, 0]
    by_seed = values.mean(axis=2)
    return Draws(arms, objectives, by_seed.mean(axis=0), means, by_seed, size, len(seeds))


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
    """One arm in one objective: value, ci_low, ci_high, n, seeds; the interval stays where values can lie."""
    result = drawn.of(arm, metric)
    low, high = ratio_interval(result)
    bounds = {"ci_low": max(0.0, low), "ci_high": min(100.0, high) if metric == "accuracy" else high}
    return {"value": result.estimate, **bounds, "n": drawn.questions, "seeds": drawn.seeds}


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
    """Mean over seeds with a Student's t interval; NaN bounds for one seed. values: (S,)."""
    from scipy.stats import t

    values = np.asarray(values, dtype=float)
    half = np.nan
    if len(values) > 1:
        half = t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values))
    mean = values.mean()
    return {"value": mean, "ci_low": mean - half, "ci_high": mean + half, "seeds": len(values)}
