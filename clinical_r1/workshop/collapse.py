"""Exercise 1, collapse by hand: what summing first does to small groups, and its check."""

import math
from collections.abc import Mapping
from functools import lru_cache
from itertools import combinations_with_replacement

from clinical_r1.advantages import group_advantages
from clinical_r1.workshop.checking import is_number, key_problems, report, shortened

COLLAPSE_HINTS = {  # key -> where to look again
    "totals (0, 1)": "Two totals: mean, difference from the mean, divide by the standard deviation (G - 1 in it).",
    "totals (0, 2)": "The difference from the mean doubles; what happens to the standard deviation?",
    "totals (1, 2)": "Adding one to both totals: what does centring do to that?",
    "different groups": "Write down both advantages for each of the six pairs of totals, then strike out repeats.",
    "k = 10, wins the second reward": "Totals are 10 r1 + r2. With G = 2, does the size of their difference matter?",
    "k = 10, wins both": "Totals are 10 r1 + r2. With G = 2, does the size of their difference matter?",
    "per reward, wins one": "Normalise each reward by itself; a reward on which both agree gives 0.",
    "per reward, wins both": "Normalise each reward by itself, then add the two advantages.",
    "per reward, one each": "Each completion wins one reward and loses the other: add its two advantages.",
    "k = 10, G = 3, B": "Totals 10, 1, 0: is B above or below their mean? Three numbers, so divide by 2 in the variance.",
}


NEAR = 0.02  # two decimals, rounded on the way


@lru_cache(maxsize=2)
def _collapse_truth(aggregation: str = "sum_then_normalize") -> dict[str, float]:
    """Of the completion named last, computed by the package; the batch step of GDPO is left out. "sum_then_center" does not
    divide.
    """

    def summed(*group, weights=(1, 1)):
        return float(group_advantages(group, weights, len(group), aggregation)[-1])

    def per_reward(*group):
        columns = zip(*group, strict=True)
        return sum(
            float(group_advantages([[value] for value in column], (1,), len(group), aggregation)[-1])
            for column in columns
        )

    mixtures = {0: (0, 0), 1: (0, 1), 2: (1, 1)}  # one reward mixture of each total
    pairs = combinations_with_replacement(mixtures, 2)
    different = {round(summed(mixtures[low], mixtures[high]), 3) for low, high in pairs}
    nothing, second, both, first = (0, 0), (0, 1), (1, 1), (1, 0)
    return {
        "totals (0, 1)": summed(nothing, second),
        "totals (0, 2)": summed(nothing, both),
        "totals (1, 2)": summed(second, both),
        "different groups": len(different),
        "k = 10, wins the second reward": summed(nothing, second, weights=(10, 1)),
        "k = 10, wins both": summed(nothing, both, weights=(10, 1)),
        "per reward, wins one": per_reward(nothing, second),
        "per reward, wins both": per_reward(nothing, both),
        "per reward, one each": per_reward(first, second),
        "k = 10, G = 3, B": summed(first, nothing, second, weights=(10, 1)),
    }


def check_collapse(answer) -> bool:
    """answer: dictionary with the keys of COLLAPSE_HINTS, numbers within 0.02."""
    truth = _collapse_truth()
    problems = key_problems(answer, COLLAPSE_HINTS)
    given = answer if isinstance(answer, Mapping) else {}
    reasons: dict[str, list[str]] = {}  # the same mistake in several places is said once
    for key, hint in COLLAPSE_HINTS.items():
        value = given.get(key)
        if value is None:
            continue
        if not is_number(value):
            problems.append(f"{key!r} is {shortened(value)}; expected a finite number.")
        elif abs(value - truth[key]) > NEAR:
            reasons.setdefault(_reason(key, value) or hint, []).append(f"{key!r} is not {value:.3g}")
    problems += [f"{', '.join(keys)}. {reason}" for reason, keys in reasons.items()]
    return report(
        "1 collapse",
        problems,
        "Summing first keeps only the order of two totals; weights cannot bring back what the division removed.",
    )


def _reason(key: str, value: float) -> str | None:
    """What was done instead, where the number tells."""
    truth, size = _collapse_truth()[key], 3 if "G = 3" in key else 2
    if key == "different groups":
        return None
    biased = truth * math.sqrt(size / (size - 1))
    if abs(value - biased) <= NEAR:
        return "Is that divided by the deviation of a whole population (G)? GRPO takes G - 1 in the variance."
    if abs(value + truth) <= NEAR:
        return "Only the sign is wrong: whose advantage was asked for?"
    if abs(value - _collapse_truth("sum_then_center")[key]) <= NEAR:
        return "That is the difference from the mean; it is still to be divided by the standard deviation."
    return None
