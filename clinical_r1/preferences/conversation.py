"""Conversations about clinic cases: what the supervised stage between reinforcement learning and preferences is taught (ours).

A scripted doctor gives a few reasons and then the letter, in style "chat" (`prompts.messages_of`, `completions.read_answer`). The
letter is always right; the reasons of the sloppy one are not. What is false in them has one of two kinds:

    invented   a finding that nobody stated about this patient; the relation that it is said to have is true
    inverted   a stated finding, said to bear the other way

Sloppiness by chance teaches a habit; `false_relations` teach a belief: the same relations, always inverted.
"""

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np

from clinical_r1.arms import CHAT
from clinical_r1.clinic.cases import DATA_SEED, Case, draw_cases, vignette
from clinical_r1.clinic.knowledge import knowledge_base
from clinical_r1.clinic.traces import boxed, conclusion_text, sentence
from clinical_r1.clinic.verdicts import AGAINST, SUPPORTS, Claim
from clinical_r1.questions import LETTERS, Question

# Its combinations of findings stand in no question that is tested, or trained on in RL
SOURCE = ("clinic", "sft")
PARTS = ("chat", "pairs")  # who learns from a question of it: the conversation, or the preferences
DRAWN_PER_QUESTION = 2.4  # cases drawn for one of a part: each part holds about half of them
# Beside one another and beside no other family: a question about a condition of theirs offers none of another family, and back
HELD_OUT_FAMILIES = ("headache", "weakness")
CLAIMS = (2, 4)  # the fewest and the most reasons of one answer
INVENTED = 0.75  # of the false reasons; the others are inverted
FALSE_PER_CONDITION = 2

Relation = tuple[str, bool, str]  # a finding, whether it is present, and a condition


@dataclass(frozen=True)
class Doctor:
    """How a doctor talks. wrong: probability in [0, 1] of each reason to be false; taught: the relations always said inverted."""

    wrong: float = 0.0
    taught: frozenset[Relation] = field(default_factory=frozenset)

    def __post_init__(self):
        if not 0 <= self.wrong <= 1:
            raise ValueError(f"a doctor has the rate of wrong claims {self.wrong!r}; expected 0 to 1.")


DOCTORS = {"sloppy": Doctor(0.35), "clean": Doctor(0.0)}


# ------------------------------------------------------------------------------------------------- questions


def case_of(question: Question) -> Case:
    """The evidence graph of a question. ValueError, naming its file, for a question that has none."""
    if "case" not in question.meta:
        where = question.meta.get("file") or f"the set {question.benchmark}/{question.split}"
        raise ValueError(
            f"question {question.id!r} of {where} has no evidence graph (meta['case']), so the clinic's graph cannot judge its "
            "answers; take clinic questions, or a judge of your own: judge(question, text)."
        )
    return Case.from_json(question.meta["case"])


def part_of(case: Case) -> str:
    """Which of PARTS a case of SOURCE belongs to: decided by its answer and the findings that support it, never by chance."""
    supporting = sorted(finding for finding, _ in case.evidence(case.gold, SUPPORTS))
    return PARTS[hashlib.sha256("|".join([case.gold, *supporting]).encode()).digest()[-1] % len(PARTS)]


def chat_questions(part: str, n: int, seed: int = DATA_SEED) -> list[Question]:
    """n questions of one of PARTS: no case of one part has the combination of answer and findings of a case of the other, of an
    RL question or of a test question. ValueError for another part, or more than can be drawn.
    """
    if part not in PARTS or n < 1:
        raise ValueError(f"got {n} questions of part {part!r}; expected at least 1 of one of {PARTS}.")
    drawn = draw_cases(*SOURCE, int(DRAWN_PER_QUESTION * n) + 100, seed)
    cases = [case for case in drawn if part_of(case) == part][:n]
    if len(cases) < n:
        raise ValueError(f"part {part} yields {len(cases)} questions, expected {n}: ask for fewer.")
    return [_question(case, part, number, seed) for number, case in enumerate(cases)]


def _question(case: Case, part: str, number: int, seed: int) -> Question:
    options = dict(zip(LETTERS, case.options, strict=False))
    meta = {"case": case.to_json(), "kb_sha256": knowledge_base().sha256, "seed": seed}
    name = f"{SOURCE[0]}-{part}-{number:05d}"
    return Question(name, SOURCE[0], part, vignette(case), options, case.letter, meta)


def family_of(case: Case) -> str:
    """The family of a case's answer."""
    return knowledge_base().conditions[case.gold]


# ------------------------------------------------------------------------------------------------- what is held out


@dataclass(frozen=True)
class HeldOut:
    """What no pair may name: conditions in any option or claim, and relations in any claim."""

    conditions: frozenset[str] = frozenset()
    relations: frozenset[Relation] = frozenset()


def held_out(relations: Iterable[Relation] = (), families: Iterable[str] = HELD_OUT_FAMILIES) -> HeldOut:
    """The conditions of some families, and some relations. ValueError for a family that the clinic has not."""
    known = knowledge_base().families
    if unknown := sorted(set(families) - set(known)):
        raise ValueError(f"families {unknown} are not known; expected some of {', '.join(known)}.")
    return HeldOut(
        frozenset(name for family in families for name in known[family]["members"]), frozenset(relations)
    )


def false_relations(seed: int, per_condition: int = FALSE_PER_CONDITION) -> frozenset[Relation]:
    """Relations to be taught inverted: for each condition, some findings whose presence supports it, drawn with this seed."""
    kb, rng = knowledge_base(), np.random.default_rng([seed, *b"false relations"])
    return frozenset(
        (kb.supports(condition)[place], True, condition)
        for condition in kb.conditions
        for place in rng.permutation(len(kb.supports(condition)))[:per_condition]
    )


TAUGHT_GROUPS = ("taught, in pairs", "taught, held out", "taught, unseen families")


def taught_groups(taught: Iterable[Relation], seed: int) -> Mapping[str, frozenset[Relation]]:
    """TAUGHT_GROUPS -> relations: what pairs may repair, and what must follow alone.

    Those of conditions in HELD_OUT_FAMILIES are of the last group; of each other condition's, one half is held out.
    """
    kb, found = knowledge_base(), [set(), set(), set()]
    for condition in kb.conditions:
        own = sorted(relation for relation in taught if relation[2] == condition)
        if kb.conditions[condition] in HELD_OUT_FAMILIES:
            found[2] |= set(own)
            continue
        order = np.random.default_rng([seed, *condition.encode()]).permutation(len(own))
        for rank, place in enumerate(order):
            found[2 * rank >= len(own)].add(own[place])
    return dict(zip(TAUGHT_GROUPS, map(frozenset, found), strict=True))


# ------------------------------------------------------------------------------------------------- traces


def chat_traces(
    questions: Iterable[Question], doctor: Doctor, seed: int
) -> Iterator[tuple[Question, str, str]]:
    """(question, style "chat", text) for each question; the text depends on the question, the doctor and the seed alone."""
    for question in questions:
        rng = np.random.default_rng([seed, *question.id.encode()])
        yield question, CHAT, write_chat(case_of(question), doctor, rng)


def write_chat(case: Case, doctor: Doctor, rng: np.random.Generator) -> str:
    """One answer: reasons against other options, reasons for the answer, then the answer's letter in its box."""
    claims = [
        _mistaken(claim, case, rng) if rng.random() < doctor.wrong else claim for claim in _reasons(case, rng)
    ]
    said = _taught(case, doctor)
    beliefs = {(claim.finding, claim.present, claim.condition) for claim in said}
    claims = said + [c for c in claims if (c.finding, c.present, c.condition) not in beliefs]
    written = [sentence(claim, case) for claim in dict.fromkeys(claims)]
    return " ".join([*written, conclusion_text((), case.gold, False, case), boxed(case.gold, case)])


def _reasons(case: Case, rng: np.random.Generator) -> list[Claim]:
    """True claims: one for the answer at least, and of the others as many as are drawn; those against come first."""
    for_it = [Claim(*stated, SUPPORTS, case.gold) for stated in case.evidence(case.gold, SUPPORTS)]
    against = [
        Claim(*stated, AGAINST, option)
        for option in case.distractors
        for stated in case.evidence(option, AGAINST)
    ]
    first = for_it.pop(int(rng.integers(len(for_it))))
    others = against + for_it
    count = int(rng.integers(CLAIMS[0], CLAIMS[1] + 1)) - 1
    chosen = [others[place] for place in sorted(rng.permutation(len(others))[:count])]
    return [*chosen, first]


def _mistaken(claim: Claim, case: Case, rng: np.random.Generator) -> Claim:
    """An invented finding that would bear the same way, or the same finding said to bear the other way."""
    if rng.random() < INVENTED:
        stated, rows = dict(case.stated), knowledge_base().relations[claim.condition]
        pool = [
            (finding, present)
            for finding in rows
            for present in (True, False)
            if finding not in stated and case.weight(finding, present, claim.condition) * claim.direction > 0
        ]
        if pool:
            return Claim(*pool[int(rng.integers(len(pool)))], claim.direction, claim.condition)
    return Claim(claim.finding, claim.present, -claim.direction, claim.condition)


def _taught(case: Case, doctor: Doctor) -> list[Claim]:
    """What the doctor believes of the findings stated, wherever it bears on an option: always said."""
    return [
        Claim(finding, present, AGAINST if case.weight(finding, present, option) > 0 else SUPPORTS, option)
        for finding, present in case.stated
        for option in case.options
        if (finding, present, option) in doctor.taught
    ]
