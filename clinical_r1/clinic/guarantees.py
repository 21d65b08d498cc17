"""What is guaranteed of every case, and how a knowledge base fares: `python -m clinical_r1.clinic check`."""

from collections.abc import Iterator
from itertools import permutations
from pathlib import Path

import numpy as np

from clinical_r1.clinic.cases import LEVELS, Case
from clinical_r1.clinic.drawing import SPLIT_SHARES, draw, separators
from clinical_r1.clinic.knowledge import KnowledgeBase, load, refusals

DRAWS = 20  # cases of each condition and split, where a set is described
TRIES = 400  # draws before a condition counts as one that cannot be drawn


def sample(kb: KnowledgeBase, name: str, split: str, seed: int = 0) -> dict[str, list[Case]]:
    """Condition -> up to DRAWS cases of a benchmark's split; an empty list where none could be drawn."""
    rng, found = np.random.default_rng([seed, *f"{name}/{split}".encode()]), {}
    for gold in kb.conditions:
        found[gold] = []
        for _ in range(TRIES):
            drawn = draw(kb, gold, LEVELS[name], rng, split)
            if drawn is not None:
                found[gold].append(Case(gold, *drawn))
            if len(found[gold]) == DRAWS:
                break
    return found


def share_rejected(kb: KnowledgeBase, cases: list[Case]) -> float:
    """Share of wrong options that a stated finding argues against, 0 to 1; nan without cases."""
    rejected = [
        any(kb.weight(*statement, other, case.options) < 0 for statement in case.stated)
        for case in cases
        for other in case.distractors
    ]
    return float(np.mean(rejected)) if rejected else float("nan")


def without_separator(kb: KnowledgeBase, name: str) -> list[tuple[str, str]]:
    """(answer, wrong option) of one family for which no finding that a benchmark shows argues against the wrong one alone."""
    pairs = (pair for family in kb.families.values() for pair in permutations(family["members"], 2))
    return [pair for pair in pairs if not separators(kb, *pair, LEVELS[name])]


def report(folder: Path) -> Iterator[str]:
    """Lines on a knowledge base: what is refused, or else how its sets come out. Lines that begin with FAULT are faults."""
    refused = refusals(folder)
    yield from (f"FAULT {fault}" for fault in refused)
    try:
        kb = load(folder)
    except ValueError:
        return
    relations = sum(map(len, kb.relations.values()))
    yield f"{len(kb.conditions)} conditions, {len(kb.findings)} findings, {relations} relations"
    for name in LEVELS:
        cases = []
        for split in SPLIT_SHARES:
            found = sample(kb, name, split)
            lacking = [gold for gold, drawn in found.items() if len(drawn) < DRAWS]
            for gold in lacking:
                yield f"FAULT {name}/{split}: {gold} drawn {len(found[gold])} times in {TRIES} draws; expected {DRAWS}"
            cases += [case for drawn in found.values() for case in drawn]
        negatives = np.mean([sum(not present for _, present in case.stated) for case in cases])
        yield (
            f"{name}: {share_rejected(kb, cases):.0%} of wrong options rejected, {negatives:.1f} negatives and "
            f"{np.mean([len(case.stated) for case in cases]):.1f} findings a case"
        )
        for gold, other in without_separator(kb, name):
            yield f"{name}: nothing shown argues against {other} and not against {gold}"
