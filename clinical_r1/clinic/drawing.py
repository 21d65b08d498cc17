"""How one case is drawn from a knowledge base, so that its answer alone is best (the guarantees: docs/clinic.md).

1. Options: the answer's family, then the one beside it. Where tests are hidden, no wrong option that nothing at the bedside
   speaks against.
2. Findings for the answer: one of its combinations in the split that is asked for.
3. Negatives: absent findings whose absence argues against an option (hallmark or sensitive), against wrong options that no
   finding argues against yet. Few: what cannot be rejected so must have nothing for it.
4. Lures, where there are any: findings for a rejected wrong option that are neutral for the answer, and rule no option in.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from itertools import combinations

import numpy as np

from clinical_r1.clinic.knowledge import RULES_IN, KnowledgeBase, Statement

# A combination of findings for an answer that is seen in one split is in no other; the shares are hundredths of them.
SPLIT_SHARES = {
    "pretrain": (0, 45),
    "sft": (45, 60),
    "rl": (60, 75),
    "validation": (75, 85),
    "test": (85, 100),
}
LEAD = 2  # by how much the answer's net evidence exceeds any other's: one weak finding does not decide a case
COMMON = 2  # conditions that a finding speaks for, before it may stand in the vignette of one that it does not speak for
COMBINED = (2, 4)  # the fewest and the most findings for an answer, at any level


@dataclass(frozen=True)
class Level:
    """How hard a benchmark is. `lures` are findings that support a wrong option without excluding the answer."""

    options: int = 4
    supports: tuple[int, int] = (2, 3)
    lures: tuple[int, int] = (1, 2)
    negatives: int = 3  # at most; a reader asks for the absence of few things
    lure_first: float = 0.25  # how often a lure opens the vignette, where a hasty reader anchors
    hide_tests: bool = False
    hide_hallmarks: bool = False  # and the specific findings: all that rules the answer in
    shift: bool = False

    def hides(self, kb: KnowledgeBase, finding: str, gold: str) -> bool:
        """Whether no vignette of this level with this answer states a finding: a test, or what rules the answer in."""
        relation = kb.relations[gold].get(finding)
        rules_in = relation is not None and relation.present == RULES_IN
        return (self.hide_tests and kb.findings[finding]["kind"] == "test") or (
            self.hide_hallmarks and rules_in
        )


Drawn = tuple[tuple[str, ...], tuple[Statement, ...]]  # options, and what is stated, in order


@cache
def splits(kb: KnowledgeBase, gold: str) -> dict[frozenset[str], str]:
    """Combination of findings for an answer -> its split.

    Each combination has a symptom or sign. They are put in an order by hash and dealt out by SPLIT_SHARES, apart for those
    with and without tests and with and without what rules the answer in: so every split has some of each, and each benchmark
    all answers in every split.
    """
    groups: dict[tuple[bool, bool], list[frozenset[str]]] = {}
    ruling = set(kb.rules_in(gold))
    for size in range(COMBINED[0], COMBINED[1] + 1):
        for found in combinations(kb.supports(gold), size):
            if not (kb.presents(found) and kb.compatible(found)):
                continue
            tests = any(kb.findings[f]["kind"] == "test" for f in found)
            groups.setdefault((tests, not ruling.isdisjoint(found)), []).append(frozenset(found))
    return {found: split for group in groups.values() for found, split in _dealt(gold, group)}


def _dealt(gold: str, group: list[frozenset[str]]) -> Iterator[tuple[frozenset[str], str]]:
    """(combination, split): the first of the order one to each split, the others by their place in it."""

    def digest(found):
        return hashlib.sha256("|".join([gold, *sorted(found)]).encode()).digest()

    order = sorted(group, key=digest)
    names = list(SPLIT_SHARES)
    yield from zip(order, names, strict=False)
    rest = order[len(names) :]
    for i, found in enumerate(rest):
        share = 100 * i // len(rest)
        yield found, next(name for name, (low, high) in SPLIT_SHARES.items() if low <= share < high)


@cache
def _choices(kb: KnowledgeBase, gold: str, level: Level, split: str | None) -> list[list[tuple[str, ...]]]:
    """The combinations that a level may state, those of one size together."""
    fewest, most = level.supports
    sizes: dict[int, list[tuple[str, ...]]] = {}
    for found, place in splits(kb, gold).items():
        if (
            split in (None, place)
            and fewest <= len(found) <= most
            and not any(level.hides(kb, f, gold) for f in found)
        ):
            sizes.setdefault(len(found), []).append(tuple(sorted(found)))
    return [sorted(sizes[size]) for size in sorted(sizes)]


@cache
def separators(kb: KnowledgeBase, gold: str, other: str, level: Level) -> tuple[Statement, ...]:
    """What a vignette may state that argues against a wrong option and not against the answer, these two being on offer."""
    pair = (gold, other)
    positive = [(f, True) for f in kb.supports(gold) if kb.weight(f, True, other, pair) < 0]
    return tuple(s for s in positive + negatives(kb, gold, other) if not level.hides(kb, s[0], gold))


def negatives(kb: KnowledgeBase, gold: str, other: str) -> list[Statement]:
    """Absent findings that argue against a wrong option, and that nobody expects with the answer."""
    expected = set(kb.supports(gold))
    return [
        (f, False)
        for f in kb.rules_out(other)
        if f not in expected and all(kb.weight(*said, gold) >= 0 for said in kb.entails[f, False])
    ]


def draw_options(kb: KnowledgeBase, gold: str, level: Level, rng: np.random.Generator) -> list[str]:
    """Wrong options come from the answer's own family, then from the family beside it."""
    own = kb.families[kb.conditions[gold]]
    others = [[name for name in own["members"] if name != gold], list(kb.families[own["beside"]]["members"])]
    chosen: list[str] = []
    for names in others:
        if level.hide_tests:
            names = [name for name in names if separators(kb, gold, name, level)]
        rng.shuffle(names)
        chosen += names[: level.options - 1 - len(chosen)]
    options = [gold, *chosen]
    rng.shuffle(options)
    return options


class _Draft:
    """What is stated so far, what it weighs for each option, and what may join it."""

    def __init__(self, kb: KnowledgeBase, gold: str, options: list[str], level: Level):
        self.kb, self.gold, self.options, self.level = kb, gold, options, level
        self.distractors = [option for option in options if option != gold]
        self.stated: list[Statement] = []
        self.weights: list[dict[str, int]] = []  # of each statement, by option
        self.barred: set[Statement] = set()

    def weight(self, statement: Statement, condition: str) -> int:
        return self.kb.weight(*statement, condition, self.options)

    def weigh(self, statement: Statement) -> dict[str, int]:
        return {option: self.weight(statement, option) for option in self.options}

    def add(self, statement: Statement) -> None:
        self.stated.append(statement)
        self.weights.append(self.weigh(statement))
        self.barred |= self.kb.clashes[statement] | {statement}

    def fits(self, statement: Statement) -> bool:
        """Whether a statement may join: visible, no contradiction, and nothing that it says argues against the answer."""
        return (
            statement not in self.barred
            and not self.level.hides(self.kb, statement[0], self.gold)
            and all(self.weight(said, self.gold) >= 0 for said in self.kb.entails[statement])
        )

    def rejected(self, option: str) -> bool:
        return any(weights[option] < 0 for weights in self.weights)

    def supported(self, option: str) -> bool:
        return any(weights[option] > 0 for weights in self.weights)

    def sound(self, *more: dict[str, int]) -> bool:
        """The answer has the best net evidence, by LEAD, and no wrong option has support without being rejected.

        more: the weights of further statements, by option.
        """
        weights = [*self.weights, *more]
        best = sum(w[self.gold] for w in weights)
        for option in self.distractors:
            column = [w[option] for w in weights]
            if sum(column) > best - LEAD or max(column) > 0 <= min(column):
                return False
        return True


def draw(
    kb: KnowledgeBase, gold: str, level: Level, rng: np.random.Generator, split: str | None = None
) -> Drawn | None:
    """One case with this answer, of one split or of any, or None where this draw cannot keep what is guaranteed."""
    choices = _choices(kb, gold, level, split)
    draft = _Draft(kb, gold, draw_options(kb, gold, level, rng), level)
    if not choices or len(draft.options) < level.options:
        return None
    sized = choices[int(rng.integers(len(choices)))]
    for finding in sized[int(rng.integers(len(sized)))]:
        if not draft.fits((finding, True)):
            return None
        draft.add((finding, True))
    _add_negatives(draft, rng)
    if not draft.sound():
        return None
    lures = _add_lures(draft, rng)
    return tuple(draft.options), _ordered(draft.stated, lures, level, rng)


def _add_negatives(draft: _Draft, rng: np.random.Generator) -> None:
    """First against wrong options that have support, then against others of the answer's family: beside it, nobody would ask."""
    families = draft.kb.conditions
    order = [draft.distractors[i] for i in rng.permutation(len(draft.distractors))]
    order.sort(key=lambda o: not draft.supported(o))
    left = draft.level.negatives
    for other in order:
        if not left:
            return
        near = families[other] == families[draft.gold]
        if draft.rejected(other) or not (near or draft.supported(other)):
            continue
        found = [s for s in negatives(draft.kb, draft.gold, other) if draft.fits(s)]
        if found and not near:  # one question that settles several, before a test for each of them
            open_ = [o for o in order if draft.supported(o) and not draft.rejected(o)]
            settled = [sum(draft.weight(s, o) < 0 for o in open_) for s in found]
            found = [s for s, n in zip(found, settled, strict=True) if n == max(settled)]
        if found:
            draft.add(found[int(rng.integers(len(found)))])
            left -= 1


@cache
def _unremarkable(kb: KnowledgeBase, finding: str, gold: str) -> bool:
    """Whether a finding that is not the answer's may stand beside it: judged neutral, or no test, for many conditions, and
    in no condition the complaint that must not be missing.
    """
    if finding in kb.relations[gold]:
        return kb.relations[gold][finding].present == 0
    rows = [found[finding] for found in kb.relations.values() if finding in found]
    owners = sum(row.present > 0 for row in rows)
    return (
        kb.findings[finding]["kind"] != "test" and owners >= COMMON and min(row.absent for row in rows) >= 0
    )


def _add_lures(draft: _Draft, rng: np.random.Generator) -> list[Statement]:
    """Findings for wrong options that stay rejected; neutral for the answer, which stays ahead.

    A finding that has no row with the answer must be common enough to need no explanation: no test, for many conditions.
    """
    fewest, most = draft.level.lures
    count, lures = int(rng.integers(fewest, most + 1)), []
    found = dict.fromkeys(
        (f, True) for o in draft.distractors if draft.rejected(o) for f in draft.kb.supports(o)
    )
    found = [
        s for s in found if _unremarkable(draft.kb, s[0], draft.gold) and not draft.weight(s, draft.gold)
    ]
    for i in rng.permutation(len(found)):
        if len(lures) == count:
            break
        if not draft.fits(found[i]) or any(draft.weight(found[i], o) == RULES_IN for o in draft.distractors):
            continue
        if draft.sound(draft.weigh(found[i])):
            draft.add(found[i])
            lures.append(found[i])
    return lures


def _ordered(stated: list[Statement], lures: list[Statement], level: Level, rng) -> tuple[Statement, ...]:
    """What is stated, shuffled; sometimes a lure comes first."""
    opening = lures[:1] if rng.random() < level.lure_first else []
    rest = [statement for statement in stated if statement not in opening]
    return tuple(opening + [rest[i] for i in rng.permutation(len(rest))])
