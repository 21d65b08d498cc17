"""Cases with a known evidence graph, drawn from the knowledge base, and the three benchmarks made of them.

`clinic` (in domain), `clinic-shift` (other phrasings, tests hidden), `clinic-expert` (ten options, what rules the answer in
hidden) stand where the paper's three benchmarks stand. Teaching data, not medical advice.
"""

from dataclasses import dataclass

import numpy as np

from clinical_r1.clinic.drawing import COMBINED, SPLIT_SHARES, Level, draw, splits
from clinical_r1.clinic.knowledge import knowledge_base
from clinical_r1.labels import CLINIC_BENCHMARKS
from clinical_r1.questions import LETTERS, Question

DATA_SEED = 20251201

SPLIT_SIZES = {"pretrain": 20_000, "sft": 2_000, "rl": 2_000, "validation": 300, "test": 1_000}
LARGER = {("clinic", "test"): 2_000}  # the benchmark that the primary comparisons are made on

# How long `draw_cases` looks: rounds over all answers, draws that an answer has in each, and in its first.
MAX_ROUNDS_PER_CASE, MIN_ROUNDS = 10, 100
TRIES_PER_ANSWER, FIRST_TRIES = 20, 2_000


_IN_DOMAIN = Level()
_SHIFTED = Level(hide_tests=True, shift=True)
_EXPERT = Level(options=10, supports=(2, 4), negatives=4, hide_hallmarks=True)
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
        return [(f, p) for f, p in self.stated if self.weight(f, p, condition) * sign > 0]

    def weight(self, finding: str, present: bool, condition: str) -> int:
        """Evidence for a condition, -2 to 2, by a finding, where these options are on offer."""
        return knowledge_base().weight(finding, present, condition, self.options)

    def net(self, condition: str) -> int:
        """The sum of the weights of all stated findings: the answer's is the largest."""
        return sum(self.weight(f, p, condition) for f, p in self.stated)

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


def draw_case(gold: str, level: Level, rng: np.random.Generator, split: str | None = None) -> Case | None:
    """One case with this answer, of one split or of any; None when a draw cannot keep the guarantees (draw again)."""
    drawn = draw(knowledge_base(), gold, level, rng, split)
    return None if drawn is None else Case(gold, *drawn, level.shift)


def split_of(case: Case) -> str:
    """The split a case belongs to, from its answer and the findings that support it: the same whatever the benchmark.

    ValueError for a combination that no drawn case has.
    """
    supporting = frozenset(f for f, _ in case.evidence(case.gold, 1))
    split = splits(knowledge_base(), case.gold).get(supporting)
    if split is None:
        raise ValueError(
            f"got {sorted(supporting)} for {case.gold}; expected {COMBINED[0]} to {COMBINED[1]} of its findings: "
            "only drawn cases have a split."
        )
    return split


def draw_cases(benchmark: str, split: str, n: int, seed: int = DATA_SEED) -> list[Case]:
    """n different cases of one split, the answers taking turns; the first m of n are the m that a smaller call gives.

    ValueError when n cases cannot be found, or when a condition has none: no condition is passed over in silence.
    """
    rng = np.random.default_rng([seed, *f"{benchmark}/{split}".encode()])
    cases: dict[tuple, Case] = {}  # the same findings and options in another order are the same case
    for round_ in range(MAX_ROUNDS_PER_CASE * n + MIN_ROUNDS):
        for gold in rng.permutation(list(knowledge_base().conditions)):
            before = len(cases)
            for _ in range(TRIES_PER_ANSWER if round_ else FIRST_TRIES):
                case = draw_case(str(gold), LEVELS[benchmark], rng, split)
                if case is not None:
                    cases.setdefault((case.gold, frozenset(case.options), frozenset(case.stated)), case)
                if len(cases) > before:
                    break
            if not round_ and len(cases) == before:
                raise ValueError(
                    f"{gold} has no case in {benchmark}/{split} after {FIRST_TRIES} draws; expected at least one: "
                    "python -m clinical_r1.clinic check says what the knowledge base lacks."
                )
            if len(cases) == n:
                return list(cases.values())
    raise ValueError(
        f"{benchmark}/{split} yields only {len(cases)} different cases, expected {n}: ask for fewer."
    )


def set_size(name: str, split: str) -> int:
    """How many questions a clinic benchmark has."""
    return LARGER.get((name, split), SPLIT_SIZES[split])


def load_set(name: str, split: str, n: int | None = None, seed: int = DATA_SEED) -> list[Question]:
    """A clinic benchmark as questions; `meta["case"]` holds the evidence graph, `meta["kb_sha256"]` its knowledge base.

    Every fifth question of the supervised split of `clinic` is a case of `clinic-expert`, with ten options.

    Raises ValueError for an unknown benchmark or split.
    """
    if name not in LEVELS or split not in SPLIT_SHARES:
        raise ValueError(
            f"clinic set {name!r}/{split!r} is not known; expected {list(LEVELS)} and {list(SPLIT_SHARES)}."
        )
    questions, cases = [], draw_cases(name, split, n or set_size(name, split), seed)
    if (name, split) == ("clinic", "sft"):  # or a cold start would leave ten options to chance
        cases[4::5] = draw_cases("clinic-expert", split, len(cases[4::5]), seed)
    for i, case in enumerate(cases):
        options = dict(zip(LETTERS, case.options, strict=False))
        meta = {"case": case.to_json(), "kb_sha256": knowledge_base().sha256, "seed": seed}
        questions.append(
            Question(f"{name}-{split}-{i:05d}", name, split, vignette(case), options, case.letter, meta)
        )
    return questions
