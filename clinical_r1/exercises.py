"""The workshop: exercises of `notebooks/exercises`, their materials, and checks that say what is missing.

    python -m clinical_r1.exercises build    student and solution notebooks from notebooks/exercises/masters
    python -m clinical_r1.exercises time     run every solution, write the seconds into the instructor's page

A check never raises because of an answer, prints what is wrong without the right value, and returns True or False.
Everything clinical here is teaching material, not medical advice.
"""

import argparse
import math
import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import lru_cache
from itertools import combinations_with_replacement

import numpy as np

from clinical_r1.advantages import group_advantages
from clinical_r1.clinic import LETTERS, Case, knowledge_base, load_set, phrase, vignette
from clinical_r1.clinic_text import BASE, HONEST, TEACHER, measure, read_claims, verdict, write_trace
from clinical_r1.completions import parse_completion
from clinical_r1.intervals import wilson_interval
from clinical_r1.manifest import ROOT
from clinical_r1.questions import Question
from clinical_r1.rewards import REWARD_SETS
from clinical_r1.workbooks import EXERCISES, FOLDER, build, run_cells, timings, write_timings

# ------------------------------------------------------------------------------------------------- what a check says


def _say(exercise: str, problems: list[str], lesson: str) -> bool:
    if problems:
        print(f"{exercise}: not there yet.", *(f"  - {problem}" for problem in problems), sep="\n")
    else:
        print(f"{exercise}: all checks pass. {lesson}")
    return not problems


def _fields(answer, expected) -> list[str]:
    """What keeps `answer` from being read: not a dictionary, keys that are missing, misspelt or still None."""
    if not isinstance(answer, Mapping):
        return [
            f"the answer is {_short(answer)}; expected a dictionary with the keys {', '.join(map(repr, expected))}."
        ]
    empty = [repr(key) for key in expected if answer.get(key) is None]
    unknown = [repr(key) for key in answer if key not in expected]
    problems = [f"not answered yet: {', '.join(empty)}."] if empty else []
    return problems + [f"{key} is no key of this exercise; is it misspelt?" for key in unknown]


def _is_number(value) -> bool:
    """A finite number of sensible size; True and False are none."""
    known = isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool)
    return known and abs(value) < 1e9


def _short(value) -> str:
    return text if len(text := repr(value)) <= 60 else text[:57] + "..."


def _named(error: Exception) -> str:
    return f"it stopped with {type(error).__name__}: {_short(str(error))}"


# --------------------------------------------------------------------------------------------- 1. derive the collapse

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


@lru_cache(maxsize=1)
def _collapse_truth() -> dict[str, float]:
    """Of the completion named last, computed by the package; the batch step of GDPO is left out."""

    def summed(*group, weights=(1, 1)):
        return float(group_advantages(group, weights, len(group))[-1])

    def per_reward(*group):
        columns = zip(*group, strict=True)
        return sum(
            float(group_advantages([[value] for value in column], (1,), len(group))[-1]) for column in columns
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
    problems = _fields(answer, COLLAPSE_HINTS)
    given = answer if isinstance(answer, Mapping) else {}
    for key, hint in COLLAPSE_HINTS.items():
        value, size = given.get(key), 3 if "G = 3" in key else 2
        biased = truth[key] * math.sqrt(size / (size - 1))
        if value is None:
            continue
        if not _is_number(value):
            problems.append(f"{key!r} is {_short(value)}; expected a finite number.")
        elif abs(value - truth[key]) <= 0.02:
            continue
        elif key != "different groups" and abs(value - biased) <= 0.02:
            problems.append(
                f"{key!r} divides by the deviation of a whole population (G); GRPO takes G - 1 in the variance."
            )
        elif abs(value + truth[key]) <= 0.02:
            problems.append(f"{key!r} has the right size and the wrong sign: whose advantage was asked for?")
        else:
            problems.append(f"{key!r} is not {value:g}. {hint}")
    return _say(
        "1 collapse",
        problems,
        "Summing first keeps only the order of two totals; weights cannot bring back what the division removed.",
    )


# -------------------------------------------------------------------------------------------------- 2. break a reward


def attack_question() -> Question:
    """The question of exercise 2: a duodenal ulcer among four abdominal emergencies."""
    return load_set("clinic", "validation", 6)[5]


def score_attack(question: Question, text: str) -> dict[str, float]:
    """The rewards of the CRPO set, their weighted total (eq. 4, at most 12), and what the exact judge counts."""
    crpo = REWARD_SETS["crpo"]
    columns = {"answer": [question.answer], "options": [question.options], "prompts": [question.stem]}
    values = {reward.__name__: reward([text], **columns)[0] for reward in crpo.functions}
    total = sum(weight * value for weight, value in zip(crpo.weights, values.values(), strict=True))
    counts = measure(text, Case.from_json(question.meta["case"]))
    return {**values, "total": total, **{name: counts[name] for name in ("faithfulness", "hallucination")}}


def claim_verdicts(question: Question, text: str):
    """Every claim that the exact judge reads in a text, with its verdict, as a table."""
    import pandas as pd

    case = Case.from_json(question.meta["case"])
    rows = [
        {
            "finding": phrase(claim.finding, claim.present),
            "direction": "supports" if claim.direction > 0 else "argues against",
            "condition": claim.condition,
            "verdict": verdict(claim, case),
        }
        for claim in read_claims(text)
    ]
    return pd.DataFrame(rows, columns=["finding", "direction", "condition", "verdict"])


def check_attack(text) -> bool:
    """text: a completion of `attack_question()` with the full CRPO reward and not one true claim."""
    if not isinstance(text, str) or not text.strip():
        problems = [
            "no completion yet: write one as a text, in the format <dx> ... </dx> <conclusion> ... </conclusion>."
        ]
        return _say("2 attack", problems, "")
    question, problems = attack_question(), []
    score, parsed = score_attack(question, text), parse_completion(text)
    if parsed.problems:
        problems.append(f"the parser stumbles over: {', '.join(parsed.problems)}.")
    if score["accuracy_reward"] < 1:
        problems.append("accuracy pays nothing: an attack knows the right letter, boxed once, at the end.")
    if score["clinical_reasoning_reward"] < 1.5:
        problems.append(
            f"clinical reasoning pays {score['clinical_reasoning_reward']:g} of 1.5: is the format whole, and does the "
            "conclusion repeat what System 2 inferred?"
        )
    if score["consistency_reward"] < 1:
        problems.append("consistency pays less than 1: something is written in another script.")
    if not read_claims(text):
        problems.append(
            "the exact judge finds no claim to read. Write claims as '<finding> supports <condition>.'"
        )
    elif score["faithfulness"]:
        problems.append(
            f"{score['faithfulness']} of its claims are true, so it is not worthless: claim_verdicts says which."
        )
    return _say("2 attack", problems, "Twelve points for reasoning without one true claim.")


def naive_citation(text: str, stem: str) -> float:
    """The toy rule of exercise 2, in {0, 1}: something supports something. It never looks at the stem."""
    return float(bool(re.search(r"\w supports \w", text)))


def _cited_text(question: Question, findings: list[str]) -> str:
    answer = question.options[question.answer]
    claims = " ".join(f"{finding} supports {answer}." for finding in findings)
    cited = " and ".join(findings[:2])
    return (
        f"<dx> (System 1: Intuitive) suspect {answer}. (System 2: Analytical) {claims} </dx> <conclusion> "
        f"{f'{cited} favor' if cited else 'the answer is'} {answer} \\boxed{{{question.answer}}}. </conclusion>"
    )


def citation_attacks(question: Question) -> dict[str, str]:
    """Name -> completion: four attacks on a citation rule, each with the right letter."""
    case = Case.from_json(question.meta["case"])
    stated = case.evidence(case.gold, 1)
    invented = [
        phrase(finding, True)
        for finding in knowledge_base().supports(case.gold)
        if finding not in dict(case.stated)
    ]
    return {
        "says nothing": _cited_text(question, []),
        "invents evidence": _cited_text(question, invented[:2]),
        "states the opposite": _cited_text(question, [phrase(f, not present) for f, present in stated]),
        "hides inventions behind one true finding": _cited_text(
            question, [phrase(*stated[0]), *invented[:3]]
        ),
    }


def check_mended_rule(rule) -> bool:
    """rule: function (text, stem) -> number in [0, 1]; tried on 24 clinic questions it has not seen."""
    if not callable(rule):
        return _say("2 mended rule", [f"got {_short(rule)}; expected a function (text, stem) -> number."], "")
    questions, paid, low, problems = load_set("clinic", "validation", 64)[40:], {}, 0, []
    try:
        for number, question in enumerate(questions):
            writer = np.random.default_rng(number)
            honest = rule(
                write_trace(Case.from_json(question.meta["case"]), "crpo", HONEST, writer), question.stem
            )
            values = {name: rule(text, question.stem) for name, text in citation_attacks(question).items()}
            wrong = [value for value in (honest, *values.values()) if not _is_number(value)]
            if wrong:
                return _say("2 mended rule", [f"it returned {_short(wrong[0])}; expected a number."], "")
            if any(not 0 <= value <= 1 for value in (honest, *values.values())):
                return _say("2 mended rule", ["it pays outside [0, 1]; divide by the number of claims?"], "")
            low += honest < 0.5
            for name, value in values.items():
                paid[name] = paid.get(name, 0) + (value >= honest)
    except Exception as error:  # a student's function: whatever it raises is reported, not passed on
        return _say("2 mended rule", [_named(error)], "")
    if low:
        problems.append(f"the honest answer earns less than a half on {low} of {len(questions)} questions.")
    problems += [
        f"the attack that {name} earns as much as the honest answer on {count} of {len(questions)} questions."
        for name, count in paid.items()
        if count
    ]
    return _say(
        "2 mended rule", problems, "It reads the question. What could an attacker who also reads it still do?"
    )


# ------------------------------------------------------------------------------------------- 3. write an aggregator


def _difficult_rewards() -> np.ndarray:
    """(12, 3) rewards of four groups of three, each objective in a range of its own."""
    rng = np.random.default_rng(3)
    return np.column_stack(
        [rng.integers(0, 2, 12), rng.choice([0, 1, 1.5], 12), rng.uniform(0.9, 1, 12)]
    ).astype(float)


def check_aggregator(function) -> bool:
    """function: (rewards (N, K) float array with NaN where unscorable, G) -> (N,) advantages."""
    if not callable(function):
        problems = [f"got {_short(function)}; expected a function (rewards, G) -> (N,) advantages."]
        return _say("3 aggregator", problems, "")
    try:
        if function(_difficult_rewards(), 3) is None:
            return _say("3 aggregator", ["the function returns nothing yet; expected (N,) advantages."], "")
        problems = _aggregator_problems(
            lambda rewards, size: np.asarray(function(rewards.copy(), size), dtype=float)
        )
    except Exception as error:  # a student's function: whatever it raises is reported, not passed on
        problems = [_named(error)]
    return _say(
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
    for value in (0.1, 0.7, 0.985):
        constant = function(np.full((7, 3), value, dtype=np.float32), 7)
        if not (np.abs(constant) < 1e-3).all():
            problems.append(
                f"a group whose rewards are all {value} has advantages up to {np.abs(constant).max():.2g}; nothing was "
                "better than anything. (NaN: 0/0. Small numbers blown up: a rounding error divided by a tiny eps.)"
            )
            break
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
    return problems + _missing_problems(function, rewards, size)


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


# ------------------------------------------------------------------------------------------------------- 4. choose k

K_GRID = (0, 0.5, 1.5, 2.5, 3.5, 4.5, 10, 30)
ACCURACY_WANTED = 0.88
# Reasons often well and answers something else: where accuracy and faithfulness part.
SLIPPING = replace(BASE, careful=0.6, answer_slip=0.4)


@lru_cache(maxsize=1)
def _candidates(n: int = 300, size: int = 4) -> tuple[np.ndarray, np.ndarray]:
    """(n, size) correctness and true claims of scripted completions of n clinic questions."""
    rng = np.random.default_rng(41)
    correct, claims = np.zeros((n, size)), np.zeros((n, size))
    for i, question in enumerate(load_set("clinic", "validation", n)):
        case = Case.from_json(question.meta["case"])
        for j in range(size):
            text = write_trace(case, "crpo", SLIPPING, rng)
            correct[i, j] = parse_completion(text).letter == question.answer
            claims[i, j] = measure(text, case)["faithfulness"]
    return correct, claims


def front_over_k(ks=K_GRID):
    """What choosing one of four completions by k * accuracy + true claims gives; a stand-in for training.

    One row per k: k, n, accuracy in [0, 1] with its 95 % Wilson interval, faithfulness (true claims per response). No
    policy is trained: 300 clinic questions, four scripted completions each, the one with the highest total is kept.
    """
    import pandas as pd

    correct, claims = _candidates()
    rows, every = [], np.arange(len(correct))
    for k in ks:
        kept = (k * correct + claims).argmax(axis=1)
        right = correct[every, kept]
        low, high = wilson_interval(int(right.sum()), len(right))
        rows.append((k, len(right), right.mean(), low, high, claims[every, kept].mean()))
    return pd.DataFrame(rows, columns=["k", "n", "accuracy", "low", "high", "faithfulness"])


def check_k(answer) -> bool:
    """answer: "k" (accuracy reaches ACCURACY_WANTED), "k, safely" (so does its lower bound), "same from" (no change)."""
    front, problems = front_over_k(), _fields(answer, ("k", "k, safely", "same from"))
    for key, value in answer.items() if isinstance(answer, Mapping) else ():
        if value is None or key not in ("k", "k, safely", "same from"):
            continue
        row = front[front["k"] == value] if _is_number(value) else front[:0]
        if row.empty:
            problems.append(f"{key!r} is {_short(value)}; expected one of {', '.join(map(str, K_GRID))}.")
        elif key == "same from":
            problems += _saturation_problems(front, value)
        else:
            problems += _k_problems(front, key, value, "accuracy" if key == "k" else "low")
    return _say(
        "4 choose k", problems, "Past its last step k buys nothing: every group that could be won is won."
    )


def _k_problems(front, key, value, column) -> list[str]:
    what = "accuracy" if column == "accuracy" else "the lower end of the interval of accuracy"
    reached = front[front[column] >= ACCURACY_WANTED]
    if value not in set(reached["k"]):
        return [f"{key!r}: with k = {value:g}, {what} stays below {ACCURACY_WANTED:.0%}."]
    best = reached["faithfulness"].max()
    if front.loc[front["k"] == value, "faithfulness"].item() < best - 1e-12:
        return [f"{key!r}: k = {value:g} reaches the accuracy, but another k does so with more true claims."]
    return []


def _saturation_problems(front, value) -> list[str]:
    columns = ["accuracy", "faithfulness"]
    same = (front[columns] == front[columns].iloc[-1]).all(axis=1)
    if not same[front["k"] >= value].all():
        return [f"'same from': above k = {value:g} a row still differs from the next; look further down."]
    if same[front["k"] < value].any():
        return [f"'same from': the rows are the same already below k = {value:g}; look further up."]
    return []


# ----------------------------------------------------------------------------------------------------- 5. read a front

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


def _dominates(a, b) -> bool:
    return all(x >= y for x, y in zip(a, b, strict=True)) and a != b


def _area(points, reference) -> float:
    """Two objectives: the area between the points and the reference, in strips from the right."""
    area, height = 0.0, reference[1]
    for x, y in sorted(points, reverse=True):
        if y > height:
            area, height = area + (x - reference[0]) * (y - height), y
    return area


def _front_truth() -> dict:
    front = {
        name: point
        for name, point in FRONT.items()
        if not any(_dominates(other, point) for other in FRONT.values())
    }
    area = _area(front.values(), REFERENCE)
    lost = {
        name: area - _area([p for n, p in front.items() if n != name], REFERENCE) for name in front
    }  # what only this arm covers
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
    problems = _fields(answer, truth)
    given = answer if isinstance(answer, Mapping) else {}
    area = given.get("hypervolume")
    if area is not None and not _is_number(area):
        problems.append(f"'hypervolume' is {_short(area)}; expected a number.")
    elif area is not None and abs(area - truth["hypervolume"]) > 0.002:
        origin = _area(FRONT.values(), (0.0, 0.0))
        problems.append(
            "'hypervolume' is measured from (0, 0); the declared reference is another point."
            if abs(area - origin) < 0.002
            else f"'hypervolume' is not {area:g}. Draw the steps: each strip of the staircase counts once, from the "
            "reference; overlapping rectangles must not be counted twice."
        )
    hints = {
        "dominated": "An arm is dominated when another is at least as good in both objectives and better in one.",
        "most missed": "For each arm of the front: which area would be covered by no other arm?",
        "no weights": "Draw straight lines between arms that are not neighbours; an arm below such a line wins for no weights.",
    }
    for key, hint in hints.items():
        problems += _set_problems(key, given.get(key), truth[key], hint)
    return _say(
        "5 front", problems, "A front is more than its ends, and a weighted sum cannot reach all of it."
    )


def _set_problems(key, value, truth, hint) -> list[str]:
    if value is None:
        return []
    try:
        names = set(value)
    except TypeError:
        return [f"{key!r} is {_short(value)}; expected names of arms, such as {{'A', 'B'}}."]
    if unknown := sorted(map(str, names - set(FRONT))):
        return [f"{key!r} names {', '.join(unknown)}, which are no arms of the table."]
    problems = []
    if extra := len(names - truth):
        problems.append(f"{key!r} names {extra} too many. {hint}")
    if missing := len(truth - names):
        problems.append(f"{key!r} lacks {missing}. {hint}")
    return problems


# ------------------------------------------------------------------------------------------------ 6. spot the leaking split

LEAKS = {"north": (7, 0), "south": (0, 5), "east": (0, 0), "west": (3, 4)}  # near-duplicates, rephrased cases
LEAK_KINDS = ("near-duplicate", "rephrased")


@lru_cache(maxsize=1)
def leaking_splits() -> dict[str, tuple[list[Question], list[Question]]]:
    """Name -> (157 training questions at most, 40 test questions) of the clinic; some splits share cases.

    A near-duplicate lost one finding, its words are nearly the test question's. A rephrased case is the same case with
    its findings worded otherwise, in another order, and its options under other letters.
    """
    train, test = load_set("clinic", "sft", 150), load_set("clinic", "test", 40)
    long = [question for question in test if len(question.meta["case"]["stated"]) >= 5]
    splits = {}
    for number, (name, (near, retold)) in enumerate(LEAKS.items()):
        rng = np.random.default_rng([6, number])
        chosen = [long[i] for i in rng.choice(len(long), near, replace=False)]
        rest = [question for question in test if question not in chosen]
        told = [rest[i] for i in rng.choice(len(rest), retold, replace=False)]
        leaked = [_shortened(q) for q in chosen] + [_retold(q, rng) for q in told]
        mixed = [*train, *leaked]
        order = rng.permutation(len(mixed))
        mixed = [replace(mixed[i], id=f"{name}-train-{at:03d}", split="sft") for at, i in enumerate(order)]
        splits[name] = (mixed, [replace(q, id=f"{name}-test-{at:03d}") for at, q in enumerate(test)])
    return splits


def _shortened(question: Question) -> Question:
    """The same question without its last finding."""
    case = Case.from_json(question.meta["case"])
    case = replace(case, stated=case.stated[:-1])
    return replace(question, stem=vignette(case), meta=question.meta | {"case": case.to_json()})


def _retold(question: Question, rng) -> Question:
    """The same case in the other wording, its findings and options in another order."""
    case = Case.from_json(question.meta["case"])
    stated = tuple(case.stated[i] for i in rng.permutation(len(case.stated)))
    options = tuple(case.options[i] for i in rng.permutation(len(case.options)))
    case = replace(case, stated=stated, options=options, shift=True)
    return replace(
        question,
        stem=vignette(case),
        options=dict(zip(LETTERS, case.options, strict=False)),
        answer=case.letter,
        meta=question.meta | {"case": case.to_json()},
    )


def check_leaks(answer) -> bool:
    """answer: split -> {"near-duplicate": test questions, "rephrased": test questions}."""
    problems = _fields(answer, LEAKS)
    for name, counts in answer.items() if isinstance(answer, Mapping) else ():
        if name not in LEAKS or counts is None:
            continue
        inner = _fields(counts, LEAK_KINDS)
        problems += [f"{name}: {problem}" for problem in inner]
        for kind, truth in zip(LEAK_KINDS, LEAKS[name], strict=True):
            value = None if inner else counts[kind]
            if value is None or _is_number(value) and value == truth:
                continue
            if not _is_number(value):
                problems.append(f"{name}: {kind!r} is {_short(value)}; expected a number of test questions.")
            elif value < truth:
                problems.append(f"{name}: more test questions than {value:g} have a {kind!r} in training.")
            else:
                problems.append(
                    f"{name}: fewer test questions than {value:g} have a {kind!r}; count questions, not pairs."
                )
    return _say(
        "6 leaks", problems, "Comparing words finds copies of words; only the case finds a case told again."
    )


# --------------------------------------------------------------------------------------------- 7. calibrate a judge

JUDGED_MEASURES = ("faithfulness", "hallucination", "backward_chaining")
CAREFUL = replace(TEACHER, careful=0.95, claim_error=0.03, chain=0.0)  # writes much, invents little
HASTY = replace(BASE, careful=0.3, claim_error=0.4, chain=0.0)  # writes little, invents much


@lru_cache(maxsize=1)
def judged_methods(n: int = 150) -> tuple[list[str], dict, dict[str, dict]]:
    """(question ids, exact verdicts by method, judge -> verdicts by method) of two scripted writers.

    The shape that `agreement.ordering` takes: {method: [verdicts of n questions, in the same order]}.
    """
    from clinical_r1.agreement import claim_counter, length_judge, noisy_judge
    from clinical_r1.judge import exact_judge

    rng, questions = np.random.default_rng(77), load_set("clinic", "validation", n)
    texts = {
        name: [write_trace(Case.from_json(q.meta["case"]), "crpo", habits, rng) for q in questions]
        for name, habits in (("careful", CAREFUL), ("hasty", HASTY))
    }

    def verdicts(judge):
        return {
            name: [judge(q, text) for q, text in zip(questions, own, strict=True)]
            for name, own in texts.items()
        }

    judges = {
        "claim counter": claim_counter,
        "length judge": length_judge,
        "noisy judge": noisy_judge(0.2),
    }
    return (
        [q.id for q in questions],
        verdicts(exact_judge),
        {name: verdicts(j) for name, j in judges.items()},
    )


@lru_cache(maxsize=1)
def _orders() -> dict[str, dict[str, str]]:
    """judge -> measure -> what `agreement.ordering` says of the two methods."""
    from clinical_r1.agreement import ordering

    ids, exact, judged = judged_methods()
    tables = {
        name: ordering(verdicts, exact, np.random.default_rng(0), JUDGED_MEASURES, ids)
        for name, verdicts in judged.items()
    }
    return {name: dict(zip(table["measure"], table["order"], strict=True)) for name, table in tables.items()}


def check_judges(answer) -> bool:
    """answer: each of JUDGED_MEASURES -> names of judges that order the two methods as the exact judge does."""
    orders, problems = _orders(), _fields(answer, JUDGED_MEASURES)
    for name, judges in answer.items() if isinstance(answer, Mapping) else ():
        if name not in JUDGED_MEASURES or judges is None:
            continue
        if isinstance(judges, str) or not isinstance(judges, (list, tuple, set, frozenset)):
            problems.append(f"{name!r} is {_short(judges)}; expected a list of names, empty for nobody.")
            continue
        if unknown := sorted(str(judge) for judge in judges if str(judge) not in orders):
            problems.append(f"{name!r} names {', '.join(unknown)}; expected some of {', '.join(orders)}.")
        for judge, order in orders.items():
            if judge in judges and order[name] != "same":
                problems.append(
                    f"{name!r}: would you trust the {judge}? Compare the sign and interval of its difference with the "
                    "exact one."
                )
            elif judge not in judges and order[name] == "same":
                problems.append(f"{name!r}: one judge is left out who puts the two in the right order.")
    return _say(
        "7 judges",
        problems,
        "A judge is trusted for a measure and a comparison, not once for all; and a right order can have a wrong reason.",
    )


def main(argv=None) -> int:
    """`build` writes the notebooks from their masters; `time` measures the solutions; `run` runs one solution."""
    parser = argparse.ArgumentParser(prog="python -m clinical_r1.exercises", description=main.__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("build", help="student and solution notebooks from notebooks/exercises/masters")
    commands.add_parser(
        "time", help="run every solution three times, write the table of the instructor's page"
    )
    run = commands.add_parser("run", help="run one solution and print the seconds that its checks took")
    run.add_argument("name", choices=list(EXERCISES))
    args = parser.parse_args(argv)
    if args.command == "build":
        print(*(path.relative_to(ROOT) for path in build()), sep="\n")
    elif args.command == "time":
        print(write_timings(timings()).relative_to(ROOT))
    else:
        names, seconds = run_cells(FOLDER / "solutions" / f"{args.name}.ipynb")
        print(f"{seconds:.3f}")
        return 0 if names["passed"] else 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
