"""What a graph says of an answer, claim by claim, with the path that decided: a finding, how it is said to bear, a condition, the
graph's own weight, and whether the patient has the finding (ours; the clinic's exact verdicts are `clinic.verdicts`).

A graph that knows the patient answers two questions: does the patient have this, and does it bear so? One that does not answers
the second alone: to it, what nobody stated is as true as what stands in the vignette (`know_patient=False`).
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, fields

from clinical_r1.clinic.cases import Case
from clinical_r1.clinic.knowledge import knowledge_base
from clinical_r1.clinic.verdicts import AGAINST, SUPPORTS, Claim, read_claims
from clinical_r1.preferences.conversation import case_of
from clinical_r1.questions import Question

KINDS = ("true", "invented", "inverted", "not judgeable")


@dataclass(frozen=True)
class GraphPath:
    """One claim as the graph has judged it.

    direction: 1 supports, -1 argues against, as it was said. weight: the graph's, above 0 for a relation that supports, 0 where
    it has none. patient_has: whether the question states the finding; None for a graph that does not know. verdict: one of KINDS.
    """

    finding: str
    present: bool
    direction: int
    condition: str
    weight: int
    patient_has: bool | None
    verdict: str

    def __post_init__(self):
        expected = verdict_of(self.weight, self.direction, self.patient_has)
        if self.direction not in (SUPPORTS, AGAINST) or self.verdict != expected:
            raise ValueError(
                f"the claim about {self.finding!r} and {self.condition!r} has the verdict {self.verdict!r}; expected "
                f"{expected!r} from direction {self.direction} (1 or -1), weight {self.weight}, patient_has {self.patient_has}."
            )

    @property
    def relation(self) -> tuple[str, bool, str]:
        return self.finding, self.present, self.condition


def verdict_of(weight: int, direction: int, patient_has: bool | None) -> str:
    """One of KINDS: what the patient has not is invented, whatever else is said of it; what has no weight cannot be judged."""
    if patient_has is False:
        return "invented"
    if weight == 0:
        return "not judgeable"
    return "true" if weight * direction > 0 else "inverted"


@dataclass(frozen=True)
class Verdicts:
    """Distinct claims of one answer, counted. false = invented + inverted; these two are None where a judge tells no kinds apart,
    and paths is empty where it names none.
    """

    true: int
    false: int
    invented: int | None = None
    inverted: int | None = None
    unjudged: int = 0
    paths: tuple[GraphPath, ...] = ()

    def __post_init__(self):
        counts = [self.true, self.false, self.unjudged]
        kinds = [kind for kind in (self.invented, self.inverted) if kind is not None]
        whole = all(isinstance(n, int) and not isinstance(n, bool) and n >= 0 for n in counts + kinds)
        if not whole or len(kinds) == 1 or (kinds and sum(kinds) != self.false):
            raise ValueError(
                f"got verdicts {self.to_json() | {'paths': len(self.paths)}}; expected whole numbers >= 0, invented and inverted "
                "both or neither, and false their sum."
            )
        if self.paths:
            seen = Counter(path.verdict for path in self.paths)
            if [seen[kind] for kind in KINDS] != [self.true, self.invented, self.inverted, self.unjudged]:
                raise ValueError(
                    f"got paths with {dict(seen)}; expected as many of each kind as are counted."
                )

    @classmethod
    def of(cls, paths: Iterable[GraphPath]) -> "Verdicts":
        """Counted from paths; a claim that is repeated counts once."""
        paths = tuple(dict.fromkeys(paths))
        seen = Counter(path.verdict for path in paths)
        true, invented, inverted, unjudged = (seen[kind] for kind in KINDS)
        return cls(true, invented + inverted, invented, inverted, unjudged, paths)

    @property
    def claims(self) -> int:
        return self.true + self.false + self.unjudged

    @property
    def value(self) -> int:
        """True claims less false ones, which pairs are ranked by."""
        return self.true - self.false

    def to_json(self) -> dict:
        return asdict(self) | {"paths": [asdict(path) for path in self.paths]}

    @classmethod
    def from_json(cls, value: Mapping) -> "Verdicts":
        """ValueError for a field that is missing, unknown, or not what it should be."""
        _check_fields(cls, value)
        if not isinstance(value["paths"], list):
            raise ValueError(f"paths are {value['paths']!r}; expected a list.")
        return cls(**{**value, "paths": tuple(map(_path, value["paths"]))})


def _path(value) -> GraphPath:
    _check_fields(GraphPath, value)
    kinds = {"finding": str, "present": bool, "direction": int, "condition": str, "weight": int}
    wrong = [name for name, kind in kinds.items() if type(value[name]) is not kind]
    if wrong or value["patient_has"] not in (True, False, None):
        raise ValueError(f"the path {value!r} has no usable {', '.join(wrong) or 'patient_has'}.")
    return GraphPath(**value)


def _check_fields(cls, value) -> None:
    names = {field.name for field in fields(cls)}
    if not isinstance(value, Mapping) or set(value) != names:
        got = sorted(value) if isinstance(value, Mapping) else value
        raise ValueError(f"a {cls.__name__} has the fields {got}; expected {sorted(names)}.")


# ------------------------------------------------------------------------------------------------- the clinic's graph


def weigh(text: str, case: Case, know_patient: bool = True) -> Verdicts:
    """Every distinct claim of an answer against the clinic's graph; all counts 0 for an answer without a claim."""
    return Verdicts.of(_judged(claim, case, know_patient) for claim in read_claims(text))


def _judged(claim: Claim, case: Case, know_patient: bool) -> GraphPath:
    has = (claim.finding, claim.present) in case.stated if know_patient else None
    weight = case.weight(claim.finding, claim.present, claim.condition)
    verdict = verdict_of(weight, claim.direction, has)
    return GraphPath(claim.finding, claim.present, claim.direction, claim.condition, weight, has, verdict)


def score(text: str, case: Case, know_patient: bool = True) -> Verdicts | None:
    """`weigh`; None, and never 0, where there is no claim that can be judged.

    Repeating a claim changes nothing, and so cannot raise a score.
    """
    found = weigh(text, case, know_patient)
    return found if found.true + found.false else None


# ------------------------------------------------------------------------------------------------- judges as miners
# Whoever makes pairs is a function (question, text) -> Verdicts or None. Where it has `knows` (option -> bool), questions with an
# option that it does not know are left out; where it has an `identity`, that stands in the stamp of the pairs.

Miner = Callable[[Question, str], Verdicts | None]


@dataclass(frozen=True)
class ClinicGraph:
    """The clinic's graph as a miner, with or without knowledge of the patient. ValueError for a question that has no graph."""

    know_patient: bool = True

    def knows(self, option: str) -> bool:
        """Whether an option is a condition of the clinic."""
        return option in knowledge_base().conditions

    @property
    def identity(self) -> dict:
        return {"judge": "clinic graph", "know_patient": self.know_patient, "graph": knowledge_base().sha256}

    def weigh(self, question: Question, text: str) -> Verdicts:
        """`weigh` with the question's own graph."""
        return weigh(text, case_of(question), self.know_patient)

    def __call__(self, question: Question, text: str) -> Verdicts | None:
        return score(text, case_of(question), self.know_patient)


@dataclass(frozen=True)
class Counts:
    """A judge of `judges/` (or `score.exact_judge`) as a miner: (question, text) -> {measure: count or None}.

    Its faithful claims count as true and its hallucinations as false, of which it tells no kinds apart. None where it gave no
    verdict on either, or counted neither.
    """

    judge: Callable[[Question, str], Mapping[str, int | None]]

    @property
    def identity(self) -> dict:
        name = getattr(self.judge, "__name__", type(self.judge).__name__)
        return {"judge": name} | {"identity": getattr(self.judge, "identity", None)}

    def __call__(self, question: Question, text: str) -> Verdicts | None:
        counts = self.judge(question, text)
        if not isinstance(counts, Mapping):
            raise ValueError(
                f"the judge gave {counts!r} for question {question.id!r}; expected a dict such as {{'faithfulness': 2, "
                "'hallucination': 1}."
            )
        true, false = counts.get("faithfulness"), counts.get("hallucination")
        if true is None or false is None or true + false == 0:
            return None
        return Verdicts(true, false)
