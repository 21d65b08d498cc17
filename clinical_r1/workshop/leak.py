"""Exercise 6, spot the leak: four splits, some of which share cases, and its check."""

from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache

import numpy as np

from clinical_r1.clinic.cases import Case, load_set, vignette
from clinical_r1.questions import LETTERS, Question
from clinical_r1.workshop.checking import is_number, key_problems, report, shortened

# test questions with a near-duplicate, and with a rephrased case, in training
LEAKS = {"north": (7, 0), "south": (0, 5), "east": (0, 0), "west": (3, 4)}
LEAK_KINDS = ("near-duplicate", "rephrased")


@lru_cache(maxsize=1)
def leaking_splits() -> dict[str, tuple[list[Question], list[Question]]]:
    """Name -> (at most 160 training questions, 40 test questions) of the clinic; some splits share cases.

    A near-duplicate lost one finding, its words are nearly the test question's. A rephrased case is the same case with
    its findings worded otherwise, in another order, and its options under other letters. The first two leaks of each kind
    have two such twins, so there are more pairs than leaking questions.
    """
    train, test = load_set("clinic", "sft", 150), load_set("clinic", "test", 40)
    long = [question for question in test if len(question.meta["case"]["stated"]) >= 5]
    splits = {}
    for number, (name, (near, retold)) in enumerate(LEAKS.items()):
        rng = np.random.default_rng([6, number])
        chosen = [long[i] for i in rng.choice(len(long), near, replace=False)]
        rest = [question for question in test if question not in chosen]
        told = [rest[i] for i in rng.choice(len(rest), retold, replace=False)]
        leaked = [_without(q, -1) for q in chosen] + [_without(q, 0) for q in chosen[:2]]
        leaked += [_retold(q, rng) for q in told + told[:2]]
        mixed = [*train, *leaked]
        order = rng.permutation(len(mixed))
        mixed = [replace(mixed[i], id=f"{name}-train-{at:03d}", split="sft") for at, i in enumerate(order)]
        splits[name] = (mixed, [replace(q, id=f"{name}-test-{at:03d}") for at, q in enumerate(test)])
    return splits


def _without(question: Question, index: int) -> Question:
    """The same question without one of its findings."""
    case = Case.from_json(question.meta["case"])
    case = replace(case, stated=tuple(item for item in case.stated if item != case.stated[index]))
    return replace(question, stem=vignette(case), meta=question.meta | {"case": case.to_json()})


def _retold(question: Question, rng) -> Question:
    """The same case in the other wording, its findings and options in another order."""
    case = Case.from_json(question.meta["case"])
    stated = _reordered(case.stated, rng)
    options = _reordered(case.options, rng)
    case = replace(case, stated=stated, options=options, shift=True)
    return replace(
        question,
        stem=vignette(case),
        options=dict(zip(LETTERS, case.options, strict=False)),
        answer=case.letter,
        meta=question.meta | {"case": case.to_json()},
    )


def _reordered(items: tuple, rng) -> tuple:
    """Another order of the items, never the same one; their first moves as well."""
    turned = tuple(items[i] for i in rng.permutation(len(items)))
    return turned if turned[0] != items[0] else turned[1:] + turned[:1]


def check_leaks(answer) -> bool:
    """answer: split -> {"near-duplicate": test questions, "rephrased": test questions}."""
    problems = key_problems(answer, LEAKS)
    for name, counts in answer.items() if isinstance(answer, Mapping) else ():
        if name not in LEAKS or counts is None:
            continue
        inner = key_problems(counts, LEAK_KINDS)
        problems += [f"{name}: {problem}" for problem in inner]
        for kind, truth in zip(LEAK_KINDS, LEAKS[name], strict=True):
            value = None if inner else counts[kind]
            if value is None or is_number(value) and value == truth:
                continue
            if not is_number(value):
                problems.append(
                    f"{name}: {kind!r} is {shortened(value)}; expected a number of test questions."
                )
            elif value < truth:
                problems.append(f"{name}: more test questions than {value:g} have a {kind!r} in training.")
            else:
                problems.append(
                    f"{name}: fewer test questions than {value:g} have a {kind!r}; count questions, not pairs."
                )
    return report(
        "6 leaks", problems, "Comparing words finds copies of words; only the case finds a case told again."
    )
