"""Cases with a known evidence graph, drawn from the knowledge base, and the three benchmarks made of them.

`clinic` (in domain), `clinic-shift` (other phrasings, tests hidden), `clinic-expert` (ten options, the hallmarks of the answer
hidden) stand where the paper's three benchmarks stand. Teaching data, not medical advice.
"""

import hashlib
from dataclasses import dataclass

import numpy as np

from clinical_r1.clinic.knowledge import knowledge_base
from clinical_r1.labels import CLINIC_BENCHMARKS
from clinical_r1.questions import LETTERS, Question

DATA_SEED = 20251201

# Splits are drawn by hashing (answer, its supporting findings): a combination seen in one split is in no other.
SPLIT_SHARES = {
    "pretrain": (0, 45),
    "sft": (45, 60),
    "rl": (60, 75),
    "validation": (75, 85),
    "test": (85, 100),
}
SPLIT_SIZES = {"pretrain": 20_000, "sft": 2_000, "rl": 2_000, "validation": 300, "test": 500}


# How long `draw_cases` looks for new cases before it gives up: rounds over all answers, and draws an answer has in each.
MAX_ROUNDS_PER_CASE, MIN_ROUNDS = 10, 100
TRIES_PER_ANSWER = 20


@dataclass(frozen=True)
class Level:
    """How hard a benchmark is. `lures` are findings that support a wrong option without excluding the answer."""

    options: int = 4
    supports: tuple[int, int] = (2, 3)
    lures: tuple[int, int] = (1, 2)
    lure_first: float = 0.25  # how often a lure opens the vignette, where a hasty reader anchors
    hide_tests: bool = False
    hide_hallmarks: bool = False
    shift: bool = False


_IN_DOMAIN = Level()
_SHIFTED = Level(hide_tests=True, shift=True)
_EXPERT = Level(options=10, supports=(2, 4), hide_hallmarks=True)
LEVELS = dict(zip(CLINIC_BENCHMARKS, (_IN_DOMAIN, _SHIFTED, _EXPERT), strict=True))


@dataclass(frozen=True)
class Case:
    """A vignette with its evidence graph.

    stated: ((finding id, present), ...) in the order of the vignette; a closed world, what is not stated is not known.
    options: condition names, option A first. shift: which phrasing the vignette uses.
    """

    gold: str
    options: tuple[str, ...]
    stated: tuple[tuple[str, bool], ...]
    shift: bool = False

    @property
    def distractors(self) -> tuple[str, ...]:
        return tuple(option for option in self.options if option != self.gold)

    @property
    def letter(self) -> str:
        return LETTERS[self.options.index(self.gold)]

    def evidence(self, condition: str, sign: int) -> list[tuple[str, bool]]:
        """Stated findings that support (sign = 1) or argue against (-1) a condition, in vignette order."""
        kb = knowledge_base()
        return [(f, present) for f, present in self.stated if kb.effect(f, present, condition) == sign]

    def to_json(self) -> dict:
        return {"gold": self.gold, "options": self.options, "stated": self.stated, "shift": self.shift}

    @classmethod
    def from_json(cls, value: dict) -> "Case":
        stated = tuple((finding, bool(present)) for finding, present in value["stated"])
        return cls(value["gold"], tuple(value["options"]), stated, bool(value["shift"]))


def phrase(finding: str, present: bool, shift: bool = False) -> str:
    """How a finding is worded: 'fever', 'no fever', or its other phrasing."""
    entry = knowledge_base().findings[finding]
    return entry[("present" if present else "absent") + ("_shift" if shift else "")]


def vignette(case: Case) -> str:
    """The stem of a case: its stated findings in order, in one of the two wordings."""
    return "Patient: " + ", ".join(phrase(f, present, case.shift) for f, present in case.stated) + "."


def draw_options(gold: str, n: int, rng: np.random.Generator) -> list[str]:
    """Four options come from the answer's own family; ten add the family beside it."""
    families = knowledge_base().families
    own = knowledge_base().conditions[gold]
    others = [name for name in families[own]["members"] if name != gold]
    rng.shuffle(others)
    if n > len(others) + 1:
        others += families[families[own]["beside"]]["members"]
    options = [gold, *others[: n - 1]]
    rng.shuffle(options)
    return options


def draw_case(gold: str, level: Level, rng: np.random.Generator) -> Case | None:
    """One case with this answer, or None when the draw cannot keep the guarantees (the caller draws again).

    Guarantees: no stated finding argues against the answer; at least one supports it; for every distractor at least one
    stated finding argues against it. Hence exactly one option is consistent, and each distractor can be rejected.
    """
    kb = knowledge_base()
    options = draw_options(gold, level.options, rng)
    distractors = [option for option in options if option != gold]
    hidden = _hidden_findings(gold, level)
    pool = [f for f in kb.supports(gold) if f not in hidden]
    fewest, most = level.supports
    if len(pool) < fewest:
        return None
    count = int(rng.integers(fewest, min(most, len(pool)) + 1))
    stated = {str(f): True for f in rng.choice(pool, count, replace=False)}
    for other in distractors:
        if any(kb.effect(f, present, other) == -1 for f, present in stated.items()):
            continue
        candidates = _rejections(gold, other, pool, stated, hidden)
        if not candidates:
            return None
        finding, present = candidates[int(rng.integers(len(candidates)))]
        stated[finding] = present
    lures = _draw_lures(gold, distractors, stated, hidden, level, rng)
    sequence = _draw_order(stated, lures, level, rng)
    if any(stated.get(implied) is False for f in [*stated, *lures] for implied in kb.implies.get(f, ())):
        return None
    return Case(gold, tuple(options), sequence, level.shift)


def _hidden_findings(gold: str, level: Level) -> set[str]:
    """Findings that no vignette of this level may state: tests, or the hallmarks of the answer."""
    kb = knowledge_base()
    tests = {f for f, entry in kb.findings.items() if entry["kind"] == "test"} if level.hide_tests else set()
    return tests | set(kb.rules_in(gold) if level.hide_hallmarks else ())


def _rejections(gold: str, other: str, pool: list[str], stated: dict, hidden: set) -> list[tuple[str, bool]]:
    """(finding, present) that argue against a distractor and not against the answer: absent hallmarks if there are any."""
    kb = knowledge_base()
    by_absence = [
        f
        for f in kb.rules_out(other)
        if f not in hidden
        and f not in stated
        and kb.effect(f, False, gold) == 0
        and f not in kb.supports(gold)
    ]
    by_presence = [f for f in pool if f not in stated and kb.effect(f, True, other) == -1]
    return [(f, False) for f in by_absence] or [(f, True) for f in by_presence]


def _draw_lures(gold, distractors, stated, hidden, level, rng) -> list[str]:
    """Findings that support a distractor and leave the answer alone."""
    kb = knowledge_base()
    lures = [
        f
        for other in distractors
        for f in kb.supports(other)
        if f not in hidden and f not in stated and kb.effect(f, True, gold) == 0
    ]
    lures = list(dict.fromkeys(lures))
    fewest, most = level.lures
    count = min(int(rng.integers(fewest, most + 1)), len(lures))
    return [str(f) for f in rng.choice(lures, count, replace=False)] if count else []


def _draw_order(stated, lures, level, rng) -> tuple[tuple[str, bool], ...]:
    """Stated findings and lures, shuffled; sometimes a lure comes first."""
    order = list(stated.items())
    rng.shuffle(order)
    opening = lures[:1] if rng.random() < level.lure_first else []
    rest = order + [(f, True) for f in lures[len(opening) :]]
    rng.shuffle(rest)
    return tuple([(f, True) for f in opening] + [(str(f), bool(present)) for f, present in rest])


def split_of(case: Case) -> str:
    """The split a case belongs to, from its answer and the findings that support it: the same whatever the benchmark."""
    supporting = sorted(
        f for f, present in case.stated if present and f in knowledge_base().supports(case.gold)
    )
    digest = hashlib.sha256("|".join([case.gold, *supporting]).encode()).digest()
    share = int.from_bytes(digest[:8], "big") % 100
    return next(split for split, (low, high) in SPLIT_SHARES.items() if low <= share < high)


def draw_cases(benchmark: str, split: str, n: int, seed: int = DATA_SEED) -> list[Case]:
    """n different cases of one split, the answers taking turns; the first m of n are the m that a smaller call gives.

    A condition whose combinations do not reach this split is passed over. ValueError when n cases cannot be found.
    """
    rng = np.random.default_rng([seed, *f"{benchmark}/{split}".encode()])
    cases: dict[tuple, Case] = {}  # the same findings and options in another order are the same case
    for _ in range(MAX_ROUNDS_PER_CASE * n + MIN_ROUNDS):
        for gold in rng.permutation(list(knowledge_base().conditions)):
            for _ in range(TRIES_PER_ANSWER):
                case = draw_case(str(gold), LEVELS[benchmark], rng)
                if case is None or split_of(case) != split:
                    continue
                key = (case.gold, frozenset(case.options), frozenset(case.stated))
                if key not in cases:
                    cases[key] = case
                    break
            if len(cases) == n:
                return list(cases.values())
    raise ValueError(
        f"{benchmark}/{split} yields only {len(cases)} different cases, expected {n}: ask for fewer."
    )


def load_set(name: str, split: str, n: int | None = None, seed: int = DATA_SEED) -> list[Question]:
    """A clinic benchmark as questions; `meta["case"]` holds the evidence graph, `meta["kb_sha256"]` its knowledge base.

    Raises ValueError for an unknown benchmark or split.
    """
    if name not in LEVELS or split not in SPLIT_SHARES:
        raise ValueError(
            f"clinic set {name!r}/{split!r} is not known; expected {list(LEVELS)} and {list(SPLIT_SHARES)}."
        )
    questions = []
    for i, case in enumerate(draw_cases(name, split, n or SPLIT_SIZES[split], seed)):
        options = dict(zip(LETTERS, case.options, strict=False))
        meta = {"case": case.to_json(), "kb_sha256": knowledge_base().sha256, "seed": seed}
        questions.append(
            Question(f"{name}-{split}-{i:05d}", name, split, vignette(case), options, case.letter, meta)
        )
    return questions
