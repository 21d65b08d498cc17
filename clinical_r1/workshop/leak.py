"""Exercise 6, spot the leak: four splits, some of which share cases, and its check."""

from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache

import numpy as np

from clinical_r1.clinic.cases import Case, load_set, vignette
from clinical_r1.curation.folding import similar_pairs
from clinical_r1.questions import LETTERS, Question
from clinical_r1.workshop.checking import is_number, key_problems, report, shortened

# test questions with a near-duplicate, and with a rephrased case, in training
LEAKS = {"north": (7, 0), "south": (0, 5), "east": (0, 0), "west": (3, 4)}
TRAINING = 160  # questions in each split: their number must not tell which of them leaks
LEAK_KINDS = ("near-duplicate", "rephrased")


@lru_cache(maxsize=1)
def leaking_splits() -> dict[str, tuple[list[Question], list[Question]]]:
    """Name -> (160 training questions, 40 test questions) of the clinic; some splits share cases.

    A near-duplicate lost one finding, its words are nearly the test question's. A rephrased case is the same case with
    its findings worded otherwise, in another order, and its options under other letters. The first two leaks of each kind
    have two such twins, so there are more pairs than leaking questions. Whatever the cases are, LEAKS holds: training
    questions that happen to resemble a test question are left out, and only questions whose twins are of one kind leak.
    """
    test = load_set("clinic", "validation", 40)
    train = _unlike(load_set("clinic", "sft", TRAINING + 40), test)
    rng = np.random.default_rng(6)
    retold_twins = {q.id: _retold(q, rng) for q in test}
    near = [q for q in test if _only_near(q, test)]
    retold = [q for q in test if _only_retold(retold_twins[q.id], q, test)]
    splits = {}
    for number, (name, (copies, cases)) in enumerate(LEAKS.items()):
        rng = np.random.default_rng([6, number])
        chosen = _some(near, copies, rng, name)
        told = _some([q for q in retold if q not in chosen], cases, rng, name)
        leaked = [_without(q, -1) for q in chosen] + [_without(q, 0) for q in chosen[:2]]
        leaked += [retold_twins[q.id] for q in told] + [_turned(retold_twins[q.id]) for q in told[:2]]
        mixed = [*train[: TRAINING - len(leaked)], *leaked]
        order = rng.permutation(len(mixed))
        mixed = [replace(mixed[i], id=f"{name}-train-{at:03d}", split="sft") for at, i in enumerate(order)]
        splits[name] = (mixed, [replace(q, id=f"{name}-test-{at:03d}") for at, q in enumerate(test)])
    return splits


def case_key(question: Question) -> tuple:
    """Answer, options and stated findings, in whatever order: the same for two questions about one case."""
    case = Case.from_json(question.meta["case"])
    return case.gold, frozenset(case.options), frozenset(case.stated)


def _unlike(train: list[Question], test: list[Question]) -> list[Question]:
    """The training questions that share neither the words nor the case of a test question."""
    alike = {i for i, _, _ in similar_pairs(train, test)}
    cases = {case_key(question) for question in test}
    return [q for i, q in enumerate(train) if i not in alike and case_key(q) not in cases]


def _only_near(question: Question, test: list[Question]) -> bool:
    """Whether both shortened twins are near-duplicates of this test question alone, and the same case as none."""
    if len(question.meta["case"]["stated"]) < 4:
        return False
    twins, cases = [_without(question, -1), _without(question, 0)], {case_key(each) for each in test}
    pairs = {(i, test[j].id) for i, j, _ in similar_pairs(twins, test)}
    return pairs == {(0, question.id), (1, question.id)} and cases.isdisjoint(map(case_key, twins))


def _only_retold(twin: Question, question: Question, test: list[Question]) -> bool:
    """Whether neither rephrased twin is a near-duplicate of any test question, and the case is this question's alone."""
    same = [each.id for each in test if case_key(each) == case_key(twin)]
    return same == [question.id] and not similar_pairs([twin, _turned(twin)], test)


def _some(questions: list[Question], count: int, rng, name: str) -> list[Question]:
    if len(questions) < count:
        raise ValueError(
            f"exercise 6 finds {len(questions)} test questions that can leak in {name}; expected {count} of 40: the clinic's "
            "cases have changed, give `leaking_splits` more of them."
        )
    return [questions[i] for i in rng.choice(len(questions), count, replace=False)]


def _without(question: Question, index: int) -> Question:
    """The same question without one of its findings."""
    case = Case.from_json(question.meta["case"])
    case = replace(case, stated=tuple(item for item in case.stated if item != case.stated[index]))
    return replace(question, stem=vignette(case), meta=question.meta | {"case": case.to_json()})


def _retold(question: Question, rng) -> Question:
    """The same case in the other wording, its findings and options in another order."""
    case = Case.from_json(question.meta["case"])
    return _asked(
        question,
        replace(
            case,
            stated=_reordered(case.stated, rng),
            options=_reordered(case.options, rng),
            shift=True,
        ),
    )


def _turned(question: Question) -> Question:
    """The same case with its findings and options moved on by one: another twin."""
    case = Case.from_json(question.meta["case"])
    return _asked(
        question,
        replace(case, stated=case.stated[1:] + case.stated[:1], options=case.options[1:] + case.options[:1]),
    )


def _asked(question: Question, case: Case) -> Question:
    """A question about another telling of its case."""
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
            else:
                problems.append(f"{name}: {_count_problem(name, kind, value, truth)}")
    return report(
        "6 leaks", problems, "Comparing words finds copies of words; only the case finds a case told again."
    )


def _count_problem(name: str, kind: str, value: float, truth: int) -> str:
    """Which of the known ways to miscount gives this number, or only whether it is too small or too large."""
    twin = "near-duplicate" if kind == "near-duplicate" else "rephrased twin"
    if why := _miscounts()[name][kind].get(value):
        return f"{value:g} is not how many test questions have a {twin} in training. {why}"
    side = "more" if value < truth else "fewer"
    return f"{side} test questions than {value:g} have a {twin} in training."


@lru_cache(maxsize=1)
def _miscounts() -> dict[str, dict[str, dict[int, str]]]:
    """Split -> kind -> wrong count -> how one comes by it. A count that is right is never among them."""
    found = {}
    for name, (train, test) in leaking_splits().items():
        pairs, told = similar_pairs(train, test), matches(case_key, train, test)
        both = len({j for _, j, _ in pairs} | told)
        cases = set(map(case_key, test))
        told_otherwise = (
            "Told again, a case changes its words, its order and its letters: compare what stays."
        )
        wrong = {
            "near-duplicate": {
                both: "A rephrased case is no near-duplicate.",
                len(
                    pairs
                ): "Count test questions, not pairs, nor what curate sets aside: some have two twins.",
            },
            "rephrased": {
                both: "A near-duplicate has lost a finding: it is another case.",
                sum(
                    case_key(q) in cases for q in train
                ): "Count test questions, not their twins: some have two.",
            }
            | {len(matches(key, train, test)): told_otherwise for key in (_stem, _in_order, _by_letter)},
        }
        truth = dict(zip(LEAK_KINDS, LEAKS[name], strict=True))
        found[name] = {
            kind: {count: why for count, why in counts.items() if count != truth[kind]}
            for kind, counts in wrong.items()
        }
    return found


def matches(key, train, test) -> set[int]:
    """The numbers of the test questions whose key some training question has."""
    known = set(map(key, train))
    return {j for j, question in enumerate(test) if key(question) in known}


def _stem(question: Question) -> str:
    return question.stem


def _in_order(question: Question) -> tuple:
    case = Case.from_json(question.meta["case"])
    return case.gold, case.options, case.stated


def _by_letter(question: Question) -> tuple:
    case = Case.from_json(question.meta["case"])
    return question.answer, tuple(question.options.items()), frozenset(case.stated)
