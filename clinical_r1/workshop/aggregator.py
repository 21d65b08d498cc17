"""Exercise 3, write an aggregator: its check tries order, units, equal rewards and missing ones."""

from collections.abc import Callable

import numpy as np

from clinical_r1.workshop.checking import error_sentence, report, shortened

BLOWN_UP = 0.02  # an advantage that only rounding made; 32-bit sums leave less, a tiny eps makes 1 of it


def _difficult_rewards() -> np.ndarray:
    """(12, 3) rewards of four groups of three, each objective in a range of its own."""
    rng = np.random.default_rng(3)
    return np.column_stack(
        [rng.integers(0, 2, 12), rng.choice([0, 1, 1.5], 12), rng.uniform(0.9, 1, 12)]
    ).astype(float)


def check_aggregator(function) -> bool:
    """function: (rewards (N, K) float array with NaN where unscorable, G) -> (N,) advantages."""
    if not callable(function):
        problems = [f"got {shortened(function)}; expected a function (rewards, G) -> (N,) advantages."]
        return report("3 aggregator", problems, "")
    try:
        if function(_difficult_rewards(), 3) is None:
            return report("3 aggregator", ["the function returns nothing yet; expected (N,) advantages."], "")
        problems = _aggregator_problems(
            lambda rewards, size: np.asarray(function(rewards.copy(), size), dtype=float)
        )
    except Exception as error:  # a student's function: whatever it raises is reported, not passed on
        problems = [error_sentence(error)]
    return report(
        "3 aggregator",
        problems,
        "Each objective speaks with the same voice in every group, whatever its units.",
    )


def _aggregator_problems(function: Callable) -> list[str]:
    rewards, size = _difficult_rewards(), 3
    base = function(rewards, size)
    if base.shape != (12,):
        return [f"for (12, 3) rewards it returns the shape {base.shape}; expected (12,), one number each."]
    if not np.isfinite(base).all():
        return ["it returns NaN or infinity although every reward is known: is a deviation of 0 divided by?"]
    problems = []
    best = function(np.array([[0, 0], [1, 1], [0, 1.0]]), 3)
    if not best[1] > best[2] > best[0]:
        problems.append(
            "a completion that wins both rewards must be above one that wins one, and that above none."
        )
    problems += _constant_problems(function)
    rng = np.random.default_rng(5)
    inside = np.concatenate([start + rng.permutation(size) for start in range(0, 12, size)])
    if not np.allclose(function(rewards[inside], size), base[inside], atol=1e-6):
        problems.append(
            "other order within the groups, other advantages: they must move with their completions."
        )
    groups = np.arange(12).reshape(4, size)[rng.permutation(4)].ravel()
    if not np.allclose(function(rewards[groups], size), base[groups], atol=1e-6):
        problems.append("other order of the groups, other advantages: which rows make a group?")
    for column in range(rewards.shape[1]):
        scaled = rewards.copy()
        scaled[:, column] *= 10
        if not np.allclose(function(scaled, size), base, atol=0.02):
            problems.append(
                f"objective {column} in units ten times as large changes the advantages: when is it normalised?"
            )
            break
    problems += _voice_problems(function, rewards, size, base)
    return problems + _missing_problems(function, rewards, size)


def _constant_problems(function) -> list[str]:
    """Groups in which nothing was better than anything, in TRL's 32-bit numbers and in NumPy's own."""
    for value in (0.1, 0.7, 0.985):
        for kind in (np.float32, np.float64):
            constant = function(np.full((7, 3), value, dtype=kind), 7)
            if not (np.abs(constant) < BLOWN_UP).all():
                return [
                    f"a group whose rewards are all {value} has advantages up to {np.abs(constant).max():.2g}; nothing was "
                    "better than anything. (NaN: 0/0. Large: the mean is rounded, so a deviation of 0 comes out a little above "
                    "it, and neither a test for exactly 0 nor a tiny eps stops the division.)"
                ]
    return []


def _voice_problems(function, rewards, size, base) -> list[str]:
    """Who is compared with whom, and whether every objective speaks, and as loudly as the others."""
    problems = []
    if not np.allclose(base.reshape(-1, size).sum(axis=1), 0, atol=BLOWN_UP):
        problems.append(
            "the advantages of a group do not add up to 0: better or worse than the others of the group, not than nothing."
        )
    moved = rewards.copy()
    moved[:size, 0] += 5
    if not np.allclose(function(moved, size), base, atol=BLOWN_UP):
        problems.append(
            "an easier question, every reward of whose group is higher by the same, gets other advantages: compare a completion "
            "with its group, not with the whole batch."
        )
    if not np.allclose(function(rewards[:, ::-1].copy(), size), base, atol=BLOWN_UP):
        problems.append(
            "objectives in another order, other advantages: does each count the same, and is none left out?"
        )
    return problems


def _missing_problems(function, rewards, size) -> list[str]:
    """NaN in one objective, and a completion that no objective could score."""
    holes, problems = rewards.copy(), []
    holes[0, 2] = np.nan
    holes[4] = np.nan
    with_holes = function(holes, size)
    if not np.isfinite(with_holes).all():
        return [
            "one unscorable reward (NaN) makes other advantages NaN: leave it out of means and deviations."
        ]
    if abs(with_holes[4]) > 1e-6:
        problems.append("a completion that no objective could score must have advantage 0: None is not zero.")
    zero = holes.copy()
    zero[4] = 0
    others = [3, 5]
    if np.allclose(with_holes[others], function(zero, size)[others], atol=1e-6):
        problems.append("an unscorable completion is counted as one with reward 0 in its group's mean.")
    informative = np.array([[0, np.nan], [1, np.nan], [1, np.nan]])
    if not np.ptp(function(informative, 3)) > 0.1:
        problems.append("an objective that is NaN in a whole group silences the other objective there.")
    return problems
