"""Exercise 4, choose k: what selection among finished texts forecasts, what training did with k, and the check of both.

Both parts of the answer key come from tables: the drawn cases, and the laboratory's published runs. No direction is written
down here, so that the exercise stays right when either is published anew.
"""

import math
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

K_GRID = (0, 0.5, 1, 1.5, 2.5, 3.5, 4.5, 10, 30)
KEYS = ("k", "k, safely", "same from", "trained", "forecast")
TRAINED_FROM, TRAINED_TO = 1, 10  # k; the second is the paper's
MEASURES = ("accuracy", "faithfulness", "drc", "hallucination", "tokens")
FORECAST = ("accuracy", "faithfulness")  # what the selection counts
CHANGES = ("rises", "falls", "not settled")
OUTCOMES = ("confirmed", "contradicted", "not settled")
LEVEL = 0.05

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


def accuracy_wanted() -> float:
    """A whole per cent, as a share, that the lower end of the interval reaches one step before nothing changes any more.

    So the largest k is never the best one, and the answers follow the cases.
    """
    *_, reached, _ = sorted(set(front_over_k()["low"]))
    return math.floor(100 * reached) / 100


@lru_cache(maxsize=1)
def trained_with_k():
    """What the laboratory's training did from k = 1 to k = 10: one row for each of MEASURES, read from the published runs.

    Columns: measure, k = 1 and k = 10 (means; accuracy in per cent, the others per response), difference (k = 10 minus
    k = 1, paired) with its 95 % interval low, high, p_holm (corrected for all `tests` of the family k that share its status;
    NaN with one seed), detectable (the smallest difference that these runs would find in four of five repetitions), questions,
    seeds.
    """
    from clinical_r1.laboratory.comparisons import ablation_table
    from clinical_r1.laboratory.records import SHIPPED, read_laboratory

    return _from_k_to_k(ablation_table(read_laboratory(SHIPPED), "k", metrics=MEASURES))


def _from_k_to_k(table):
    """The rows of `trained_with_k` from the laboratory's table of the family k, whose reference is k = 10."""
    import pandas as pd

    named = {f"k = {TRAINED_FROM:g}": TRAINED_FROM, f"k = {TRAINED_TO:g}": TRAINED_TO}
    low, high = (table[table["setting"] == name].set_index("metric") for name in named)
    if low.empty or high.empty:
        raise ValueError(
            f"the laboratory's family k has the settings {sorted(set(table['setting']))}; expected {' and '.join(named)}: "
            "publish a laboratory with these arms."
        )
    rows = {
        name: {
            f"k = {TRAINED_FROM:g}": low.loc[name, "value"],
            f"k = {TRAINED_TO:g}": high.loc[name, "value"],
            "difference": -low.loc[name, "difference"],
            "low": -low.loc[name, "difference_high"],
            "high": -low.loc[name, "difference_low"],
            "p_holm": low.loc[name, "p_holm"],
            "tests": low.loc[name, "tests"],
            "detectable": low.loc[name, "mde_holm"],
            "questions": low.loc[name, "n"],
            "seeds": low.loc[name, "seeds"],
        }
        for name in MEASURES
        if name in low.index
    }
    return pd.DataFrame(rows.values(), index=pd.Index(rows, name="measure")).reset_index()


def _changes() -> dict[str, str]:
    """Measure -> what the published runs settle about it: one of CHANGES."""
    return {
        row.measure: "not settled" if not row.p_holm < LEVEL else "rises" if row.difference > 0 else "falls"
        for row in trained_with_k().itertuples()
    }


def forecast() -> dict[str, str]:
    """Measure of FORECAST -> what `front_over_k` does from k = 1 to k = 10: "rises", "falls", or "does not move"."""
    rows = front_over_k((TRAINED_FROM, TRAINED_TO))
    moved = {name: rows[name].iloc[1] - rows[name].iloc[0] for name in FORECAST}
    return {
        name: "does not move" if abs(by) < 1e-12 else "rises" if by > 0 else "falls"
        for name, by in moved.items()
    }


def _outcomes() -> dict[str, str]:
    """Measure of FORECAST -> what training says about the forecast: one of OUTCOMES."""
    changes, promised = _changes(), forecast()
    return {
        name: "not settled"
        if changes[name] == "not settled"
        else "confirmed"
        if changes[name] == promised[name]
        else "contradicted"
        for name in FORECAST
    }


def what_training_says() -> str:
    """The published runs in sentences, whatever they say: what they settle, what they leave open, what became of the forecast."""
    table, sentences = trained_with_k(), []
    units = {"accuracy": " points"}
    for row in table.itertuples():
        change, unit = _changes()[row.measure], units.get(row.measure, "")
        by = f"{row.difference:+.2f}{unit} [{row.low:.2f}, {row.high:.2f}]"
        if change != "not settled":
            sentences.append(f"{row.measure} {change}: {by}.")
        elif math.isnan(row.detectable):
            sentences.append(f"{row.measure} is not settled: {by}; one seed, so no test.")
        else:
            sentences.append(
                f"{row.measure} is not settled: {by}; four of five such laboratories would find a true difference of "
                f"{row.detectable:.2f}{unit}, and fewer a smaller one."
            )
    sentences += [
        f"Selection forecast that {name} {forecast()[name]}: {outcome}."
        for name, outcome in _outcomes().items()
    ]
    opening = (
        f"Trained with k = {TRAINED_TO:g} instead of {TRAINED_FROM:g}, {table['seeds'].iloc[0]:.0f} seeds:"
    )
    return "\n  ".join((opening, *sentences))


def check_k(answer) -> bool:
    """answer: "k" (accuracy reaches `accuracy_wanted`), "k, safely" (so does its lower bound), "same from" (no change),
    "trained" (each of MEASURES -> one of CHANGES), "forecast" (each of FORECAST -> one of OUTCOMES).
    """
    front, problems = front_over_k(), key_problems(answer, KEYS)
    for key, value in answer.items() if isinstance(answer, Mapping) else ():
        if value is None or key not in KEYS:
            continue
        if key in ("trained", "forecast"):
            problems += _words_problems(key, value)
            continue
        row = front[front["k"] == value] if is_number(value) else front[:0]
        if row.empty:
            problems.append(f"{key!r} is {shortened(value)}; expected one of {', '.join(map(str, K_GRID))}.")
        elif key == "same from":
            problems += _saturation_problems(front, value)
        else:
            problems += _k_problems(front, key, value, "accuracy" if key == "k" else "low")
    lesson = "A forecast by selection is a hypothesis; training answers it, or leaves it open.\n"
    return report("4 choose k", problems, lesson + ("" if problems else what_training_says()))


def _k_problems(front, key, value, column) -> list[str]:
    what = "accuracy" if column == "accuracy" else "the lower end of the interval of accuracy"
    wanted = accuracy_wanted()
    reached = front[front[column] >= wanted]
    if value not in set(reached["k"]):
        return [f"{key!r}: with k = {value:g}, {what} stays below {wanted:.0%}."]
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


def _words_problems(key, value) -> list[str]:
    """What is wrong in a dictionary of measure -> word."""
    names, words = (MEASURES, CHANGES) if key == "trained" else (FORECAST, OUTCOMES)
    problems = [f"{key!r}: {problem}" for problem in key_problems(value, names)]
    for name in names if isinstance(value, Mapping) else ():
        said = value.get(name)
        if said is None:
            continue
        if not isinstance(said, str) or said not in words:
            problems.append(
                f"{key!r}: {name} is {shortened(said)}; expected one of {', '.join(map(repr, words))}."
            )
        elif key == "trained":
            problems += _change_problems(name, said)
        elif said != _outcomes()[name]:
            problems.append(
                f"'forecast': {name} is not {said!r}. What did the first table do from k = {TRAINED_FROM:g} to "
                f"{TRAINED_TO:g}, and what does training settle? What is not settled neither confirms nor contradicts."
            )
    return problems


def _change_problems(name, said) -> list[str]:
    """What is wrong with one word about one measure, and which column to look at."""
    truth, row = _changes()[name], trained_with_k().set_index("measure").loc[name]
    if said == truth:
        return []
    if said == "not settled":
        return [
            f"'trained': {name}: p_holm is below {LEVEL:g}, so these runs do settle it, however wide the interval looks."
        ]
    if truth != "not settled":
        return [
            f"'trained': {name}: settled, but the other way: the difference is k = {TRAINED_TO:g} minus {TRAINED_FROM:g}."
        ]
    if math.isnan(row["p_holm"]):
        return [f"'trained': {name}: one training seed has no test, so nothing is settled."]
    if row["low"] <= 0 <= row["high"]:
        return [f"'trained': {name}: the estimate has a sign, but its interval holds 0."]
    return [
        f"'trained': {name}: the interval by itself leaves out 0, but many differences were tested: look at p_holm."
    ]
