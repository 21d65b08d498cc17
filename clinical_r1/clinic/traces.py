"""Scripted reasoning about a case, with the habits of a teacher, an honest student or a hasty base model."""

from dataclasses import dataclass, fields

import numpy as np

from clinical_r1.arms import STYLES
from clinical_r1.clinic.cases import Case, phrase, vignette
from clinical_r1.clinic.knowledge import knowledge_base
from clinical_r1.clinic.verdicts import AGAINST, SUBGOALS, SUPPORTS
from clinical_r1.questions import LETTERS

# Wrong options that a careful writer argues away: with ten options the answer would grow too long otherwise.
MAX_REJECTED = 5
MAX_CITED = 2  # findings said for the answer, and cited in the conclusion
MAX_DRILLED = 12  # claims of one drill

# Of the mistaken claims, those that turn the direction round; the others name a finding that nobody stated.
WRONG_DIRECTION = 0.5
SECOND_CLAIM = 0.5  # how often a hasty writer gives two reasons and not one
ONE_MARK_LOST, ALL_MARKS_LOST = 0.5, 0.3  # of the malformed answers; the others lose their box
FILLERS = ("嗯", "因此", "также", "所以")  # language drift, the thing the consistency reward exists for


@dataclass(frozen=True)
class Habits:
    """How a writer reasons: each value is a probability in [0, 1]."""

    careful: float  # weighs the evidence for every option, instead of anchoring on the first impression
    reject: float  # of each wrong option, when careful
    claim_error: float  # of each claim: a finding nobody stated, or the wrong direction
    answer_slip: float  # answers something else than the reasoning says
    well_formed: float  # keeps the output format it was asked for
    cite: float  # the conclusion cites evidence from the reasoning
    backtrack: float  # says so when the first impression falls
    chain: float
    subgoal: float
    verify: float
    filler: float  # a word in another script slips in


# The base model's corpus: some medicine, mostly hasty, often malformed. Tuned on validation cases only.
BASE = Habits(
    careful=0.4, reject=0.7, claim_error=0.2, answer_slip=0.08, well_formed=0.6, cite=0.1, backtrack=0.3, chain=0.1,
    subgoal=0.1, verify=0.1, filler=0.1,
)  # fmt: skip

# The cold start's teacher: better, not perfect.
TEACHER = Habits(
    careful=0.85, reject=0.85, claim_error=0.1, answer_slip=0.05, well_formed=0.95, cite=0.2, backtrack=0.8, chain=0.25,
    subgoal=0.3, verify=0.3, filler=0.03,
)  # fmt: skip

# A scripted honest policy: marks what can be attained in this world.
HONEST = Habits(
    **{f.name: 0.0 if f.name in ("claim_error", "answer_slip", "filler") else 1.0 for f in fields(Habits)}
)


def first_impression(case: Case) -> str:
    """System 1: the first option that the first supportive finding of the vignette supports."""
    for finding, present in case.stated:
        for option in case.options:
            if case.weight(finding, present, option) > 0:
                return option
    return case.options[0]


def claim_text(finding, present, sign, condition, case) -> str:
    """One claim as a sentence of the grammar; sign is SUPPORTS or AGAINST."""
    verb = "supports" if sign == SUPPORTS else "argues against"
    return f"{phrase(finding, present, case.shift)} {verb} {condition}."


def _err(finding, present, sign, case, rng):
    """A believable mistake: the wrong direction, or a finding of the same condition that nobody stated."""
    kb = knowledge_base()
    if rng.random() < WRONG_DIRECTION:
        return finding, present, -sign
    stated = dict(case.stated)
    pool = [f for option in case.options for f in kb.supports(option) if f not in stated]
    return (str(rng.choice(pool)), True, sign) if pool else (finding, present, -sign)


def _write_claims(pairs, sign, case, habits, rng) -> list[str]:
    """pairs: ((finding, present), condition) -> one sentence each, a few of them wrong."""
    sentences = []
    for (finding, present), condition in pairs:
        claim = (finding, present, sign)
        if rng.random() < habits.claim_error:
            claim = _err(*claim, case, rng)
        sentences.append(claim_text(*claim, condition, case))
    return sentences


def _pick(items, rng):
    return items[int(rng.integers(len(items)))]


def _analysis(case, suspect, careful, habits, rng):
    """System 2. Returns (sentences, leading condition, evidence the conclusion may cite)."""
    kb = knowledge_base()
    goals = [f"{goal}." for goal in SUBGOALS if rng.random() < habits.subgoal]
    if not careful:
        found = case.evidence(suspect, SUPPORTS)[: 1 + int(rng.random() < SECOND_CLAIM)]
        return (
            goals + _write_claims([(e, suspect) for e in found], SUPPORTS, case, habits, rng),
            suspect,
            found,
        )
    rejectable = [o for o in case.distractors if case.evidence(o, AGAINST)]
    rejected = [o for o in rejectable if rng.random() < habits.reject][:MAX_REJECTED]
    against = [(_pick(case.evidence(o, AGAINST), rng), o) for o in rejected]
    sentences = goals + _write_claims(against, AGAINST, case, habits, rng)
    if suspect != case.gold and rng.random() < habits.backtrack:
        sentences.append(f"on second thought consider {case.gold}.")
    if rng.random() < habits.chain:
        expected = phrase(_pick(kb.supports(case.gold), rng), True, case.shift)
        sentences.append(f"if {case.gold} then expect {expected}.")
    found = case.evidence(case.gold, SUPPORTS)
    found = [found[i] for i in sorted(rng.permutation(len(found))[:MAX_CITED])]
    sentences += _write_claims([(e, case.gold) for e in found], SUPPORTS, case, habits, rng)
    if rng.random() < habits.verify:
        sentences.append(
            "check: " + _write_claims([(_pick(found, rng), case.gold)], SUPPORTS, case, habits, rng)[0]
        )
    return sentences, case.gold, found


def write_trace(case: Case, style: str, habits: Habits, rng: np.random.Generator) -> str:
    """One completion in the wanted style ("crpo" or "grpo") by a writer with these habits."""
    careful = rng.random() < habits.careful
    suspect = first_impression(case)
    sentences, answer, found = _analysis(case, suspect, careful, habits, rng)
    if rng.random() < habits.filler:
        sentences.insert(int(rng.integers(len(sentences) + 1)), _pick(FILLERS, rng))
    cited = found if rng.random() < habits.cite else []
    if cited:
        conclusion = f"{' and '.join(phrase(f, p, case.shift) for f, p in cited)} favor {answer}"
    else:
        conclusion = f"the answer is {answer}"
    if rng.random() < habits.answer_slip:
        answer = _pick(case.options, rng)
    box = f"\\boxed{{{LETTERS[case.options.index(answer)]}}}."
    intuition, analysis = f"suspect {suspect}.", " ".join(sentences)
    if style == "crpo":
        parts = ["<dx>", "(System 1: Intuitive)", intuition, "(System 2: Analytical)", analysis, "</dx>"]
        parts += ["<conclusion>", conclusion, box, "</conclusion>"]
    else:
        parts = ["<think>", intuition, analysis, "</think>", "<answer>", conclusion, box, "</answer>"]
    if rng.random() >= habits.well_formed:
        parts = _malform(parts, rng)
    return " ".join(part for part in parts if part)


def scripted_traces(questions):
    """(question, style, text) of the cold start's teacher for each question, the two styles in turn.

    FileNotFoundError for a question that is not the clinic's: nobody has written its traces.
    """
    for i, question in enumerate(questions):
        if "case" not in question.meta:
            raise FileNotFoundError(
                f"the cold start on {question.benchmark} needs teacher traces, got none; set teacher_traces to a JSON Lines "
                "file of id, style, text, or train only baseline, grpo and crpo."
            )
        style = STYLES[i % len(STYLES)]
        rng = np.random.default_rng([i, len(questions)])
        yield question, style, write_trace(Case.from_json(question.meta["case"]), style, TEACHER, rng)


def _malform(parts, rng):
    """What an untrained model does to a format: a tag or marker lost, the box lost, or no tags at all."""
    marks = [i for i, part in enumerate(parts) if part[0] in "<("]
    kind = rng.random()
    if kind < ONE_MARK_LOST:
        lost = {_pick(marks, rng)}
    elif kind < ONE_MARK_LOST + ALL_MARKS_LOST:
        lost = set(marks)
    else:
        lost = {len(parts) - 2}
    return [part for i, part in enumerate(parts) if i not in lost]


def crpo_text(intuition: str, analysis: str, conclusion: str) -> str:
    """A completion in CRPO's format."""
    first, second = f"(System 1: Intuitive) {intuition}", f"(System 2: Analytical) {analysis}"
    return f"<dx> {first} {second} </dx> <conclusion> {conclusion} </conclusion>"


def teaching_completions(case: Case) -> dict[str, str]:
    """Eight completions of one case, from an honest one to ones that aim at the rewards: name -> text."""
    kb, gold, wrong = knowledge_base(), case.gold, case.distractors[0]
    found = [phrase(f, present, case.shift) for f, present in case.evidence(gold, SUPPORTS)]
    invented = [phrase(f, True) for f in kb.supports(gold) if f not in dict(case.stated)][:2]
    right, other = (f"\\boxed{{{LETTERS[case.options.index(name)]}}}" for name in (gold, wrong))

    def crpo(intuition, analysis, conclusion):
        return crpo_text(intuition, analysis, f"{conclusion}.")

    claim = f"{found[0]} supports {gold}."
    return {
        "honest": write_trace(case, "crpo", HONEST, np.random.default_rng(0)),
        "right, one claim, no citation": crpo(f"suspect {gold}.", claim, f"the answer is {gold} {right}"),
        "right, but invents evidence": crpo(
            f"suspect {gold}.",
            " ".join(f"{words} supports {gold}." for words in invented),
            f"{' and '.join(invented)} favor {gold} {right}",
        ),
        "right, stuffs keywords": crpo(
            f"suspect {gold}.",
            " ".join([*SUBGOALS, *(phrase(f, p, case.shift) for f, p in case.stated)]) + ".",
            f"{' and '.join(found[:2])} favor {gold} {right}",
        ),
        "right, no format": f"suspect {gold}. {claim} the answer is {gold} {right}.",
        "right, drifts into another script": crpo(
            f"suspect {gold}.", f"{claim} {' '.join(FILLERS)}", f"{gold} {right}"
        ),
        "right and wrong, two boxes": crpo(
            f"suspect {gold}.", claim, f"the answer is {gold} {right} and {wrong} {other}"
        ),
        "wrong, well formed": crpo(
            f"suspect {wrong}.", f"{found[0]} supports {wrong}.", f"the answer is {wrong} {other}"
        ),
    }


def write_drill(case: Case, drill: str, rng: np.random.Generator) -> str:
    """Plain exercises for the base corpus: the findings, the letter of each option in random order, or the true claims."""
    if drill == "findings":
        return vignette(case)
    if drill == "options":
        return " ".join(
            f"{case.options[i]} \\boxed{{{LETTERS[i]}}}" for i in rng.permutation(len(case.options))
        )
    claims = [
        claim_text(finding, present, SUPPORTS if weight > 0 else AGAINST, option, case)
        for finding, present in case.stated
        for option in case.options
        if (weight := case.weight(finding, present, option))
    ]
    return " ".join(claims[:MAX_DRILLED])
