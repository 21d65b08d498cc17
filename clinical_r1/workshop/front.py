"""Exercise 5, read a front: seven arms in two objectives, and the check of what is read off them."""

import re
from collections.abc import Mapping

import numpy as np

from clinical_r1.laboratory.pareto import undominated
from clinical_r1.workshop.checking import is_number, key_problems, report, shortened

FRONT = {  # invented for the exercise: arm -> (accuracy, true claims per response); more is better in both
    "A": (0.40, 2.8),
    "B": (0.50, 2.5),
    "C": (0.60, 1.0),
    "D": (0.50, 1.6),
    "E": (0.35, 2.6),
    "F": (0.55, 1.5),
    "G": (0.30, 1.0),
}
REFERENCE = (0.20, 0.0)
ROUNDING = 0.0051  # an area worked out by hand, given with two decimals in either direction


def _area(points, reference) -> float:
    """Two objectives: the area between the points and the reference, in strips from the right."""
    area, height = 0.0, reference[1]
    for x, y in sorted(points, reverse=True):
        if y > height:
            area, height = area + (x - reference[0]) * (y - height), y
    return area


def _front_truth() -> dict:
    (kept,) = undominated(np.array([list(FRONT.values())]))
    front = {name: point for (name, point), keep in zip(FRONT.items(), kept, strict=True) if keep}
    area = _area(front.values(), REFERENCE)
    # what only this arm covers
    lost = {name: area - _area([p for n, p in front.items() if n != name], REFERENCE) for name in front}
    chosen = {
        max(front, key=lambda name, w=w: w * front[name][0] + (1 - w) * front[name][1] / 10)
        for w in np.linspace(0, 1, 1001)
    }
    return {
        "dominated": set(FRONT) - set(front),
        "hypervolume": area,
        "most missed": {max(lost, key=lost.get)},
        "no weights": set(front) - chosen,
    }


def check_front(answer) -> bool:
    """answer: "dominated" (arms), "hypervolume" (number), "most missed" (one arm), "no weights" (arms)."""
    truth = _front_truth()
    problems = key_problems(answer, truth)
    given = answer if isinstance(answer, Mapping) else {}
    area = given.get("hypervolume")
    if area is not None and not is_number(area):
        problems.append(f"'hypervolume' is {shortened(area)}; expected a number.")
    elif area is not None and abs(area - truth["hypervolume"]) > ROUNDING:
        problems.append(_area_problem(area, truth["hypervolume"]))
    hints = {
        "dominated": "An arm is dominated when another is at least as good in both objectives and better in one.",
        "most missed": "For each arm of the front: which area would be covered by no other arm?",
        "no weights": "Draw straight lines between arms that are not neighbours; an arm below such a line wins for no weights.",
    }
    for key, hint in hints.items():
        problems += _set_problems(key, given.get(key), truth[key], hint)
    return report(
        "5 front", problems, "A front is more than its ends, and a weighted sum cannot reach all of it."
    )


def _area_problem(area: float, truth: float) -> str:
    """Why an area is wrong, where the way to it is known."""
    front = [FRONT[name] for name in FRONT if name not in _front_truth()["dominated"]]
    rectangles = [(x - REFERENCE[0]) * (y - REFERENCE[1]) for x, y in front]
    known = {
        _area(
            FRONT.values(), (0.0, 0.0)
        ): "is measured from (0, 0); the declared reference is another point.",
        sum(rectangles): "counts overlapping rectangles twice: each strip of the staircase counts once.",
        max(rectangles): "is what one arm covers; the others add their strips.",
    }
    for value, why in known.items():
        if abs(area - value) <= ROUNDING:
            return f"'hypervolume' {why}"
    if abs(area - truth) <= 0.05:
        return f"'hypervolume' is near {area:g}: add the strips exactly, and give two decimals."
    return (
        f"'hypervolume' is not {area:g}. Draw the steps: each strip of the staircase counts once, from the reference; "
        "overlapping rectangles must not be counted twice."
    )


def _named(value) -> set:
    """Names of arms from a set or list of them, or from a text such as "D, E" or "DE"."""
    if not isinstance(value, str):
        return set(value)
    names = set(re.findall(r"\w+", value))
    return names if names <= set(FRONT) else set(re.sub(r"\W", "", value))


def _set_problems(key, value, truth, hint) -> list[str]:
    if value is None:
        return []
    try:
        names = _named(value)
    except TypeError:
        return [f"{key!r} is {shortened(value)}; expected names of arms, such as {{'A', 'B'}}."]
    if unknown := sorted(map(str, names - set(FRONT))):
        return [f"{key!r} names {', '.join(unknown)}, which are no arms of the table."]
    extra, missing = len(names - truth), len(truth - names)
    wrong = " and ".join([f"names {extra} too many"] * bool(extra) + [f"lacks {missing}"] * bool(missing))
    return [f"{key!r} {wrong}. {hint}"] if wrong else []
