"""Exercise 4, choose k: a front over k without training, what training did with k, and the check of both."""

from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache

import numpy as np

from clinical_r1.clinic.cases import Case, load_set
from clinical_r1.clinic.traces import BASE, write_trace
from clinical_r1.clinic.verdicts import measure
from clinical_r1.completions import parse_completion
from clinical_r1.intervals import wilson_interval
from clinical_r1.score import is_correct
from clinical_r1.workshop.checking import is_number, key_problems, report, shortened

K_GRID = (0, 0.5, 1.5, 2.5, 3.5, 4.5, 10, 30)
ACCURACY_WANTED = 0.85
KEYS = ("k", "k, safely", "same from", "grows in training")
TRAINED_FROM, TRAINED_TO = 1, 10

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
            correct[i, j] = is_correct(parse_completion(text).letter, question.answer)
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


@lru_cache(maxsize=1)
def trained_with_k():
    """What the laboratory's trained arms did: frame k, metric, value, ci_low, ci_high of k = 1 and k = 10, three seeds each.

    accuracy in per cent; the other metrics are counts per response. The package's published summary, read, not trained.
    """
    from clinical_r1.laboratory.comparisons import k_table
    from clinical_r1.laboratory.records import SHIPPED, read_laboratory

    table = k_table(read_laboratory(SHIPPED))
    tested = table[table["k"].isin((TRAINED_FROM, TRAINED_TO)) & table["n"].notna()]
    return tested[["k", "metric", "value", "ci_low", "ci_high"]].reset_index(drop=True)


def _grown() -> set[str]:
    """Measures whose whole interval at k = 10 lies above that at k = 1."""
    table = trained_with_k().pivot(index="metric", columns="k")
    return set(table.index[table["ci_low"][TRAINED_TO] > table["ci_high"][TRAINED_FROM]])


def check_k(answer) -> bool:
    """answer: "k" (accuracy reaches ACCURACY_WANTED), "k, safely" (so does its lower bound), "same from" (no change),
    "grows in training" (measures of `trained_with_k`).
    """
    front, problems = front_over_k(), key_problems(answer, KEYS)
    for key, value in answer.items() if isinstance(answer, Mapping) else ():
        if value is None or key not in KEYS:
            continue
        if key == "grows in training":
            problems += _growth_problems(value)
            continue
        row = front[front["k"] == value] if is_number(value) else front[:0]
        if row.empty:
            problems.append(f"{key!r} is {shortened(value)}; expected one of {', '.join(map(str, K_GRID))}.")
        elif key == "same from":
            problems += _saturation_problems(front, value)
        else:
            problems += _k_problems(front, key, value, "accuracy" if key == "k" else "low")
    return report(
        "4 choose k",
        problems,
        "Choosing among finished texts, k costs claims. Training with a larger k wrote longer texts: ask what is held fixed.",
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


def _growth_problems(value) -> list[str]:
    known = set(trained_with_k()["metric"])
    if isinstance(value, str) or not isinstance(value, (list, tuple, set, frozenset)):
        return [
            f"'grows in training' is {shortened(value)}; expected names of measures, such as {{'accuracy'}}."
        ]
    names = {str(name) for name in value}
    if unknown := sorted(names - known):
        return [
            f"'grows in training' names {', '.join(unknown)}; expected some of {', '.join(sorted(known))}."
        ]
    problems = []
    if extra := len(names - _grown()):
        problems.append(f"'grows in training' names {extra} too many: do the two intervals stand apart?")
    if missing := len(_grown() - names):
        problems.append(f"'grows in training' lacks {missing}: look at every measure, wished for or not.")
    return problems


def _saturation_problems(front, value) -> list[str]:
    columns = ["accuracy", "faithfulness"]
    same = (front[columns] == front[columns].iloc[-1]).all(axis=1)
    if not same[front["k"] >= value].all():
        return [f"'same from': above k = {value:g} a row still differs from the next; look further down."]
    if same[front["k"] < value].any():
        return [f"'same from': the rows are the same already below k = {value:g}; look further up."]
    return []
