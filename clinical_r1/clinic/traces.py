"""Scripted reasoning about a case, with the habits of a teacher, an honest student or a hasty base model.

A writer answers what its written claims favour, right or wrong: errors in them lead to errors in the answer.
"""

from dataclasses import dataclass, fields, replace

import numpy as np

from clinical_r1.arms import STYLES
from clinical_r1.clinic.cases import Case, phrase
from clinical_r1.clinic.knowledge import knowledge_base
from clinical_r1.clinic.verdicts import AGAINST, SUBGOALS, SUPPORTS, Claim, tally
from clinical_r1.questions import LETTERS

# Wrong options that a careful writer argues away: with ten options the answer would grow too long otherwise.
MAX_REJECTED = 6
MAX_CITED = 2  # findings said for the answer, and cited in the conclusion

# Of the mistaken claims: the direction turned round, a finding that nobody stated, another option named.
ERRORS = {"direction": 1 / 3, "finding": 1 / 3, "condition": 1 / 3}
SECOND_CLAIM = 0.5  # how often a hasty writer gives two reasons and not one
ONE_MARK_LOST, ALL_MARKS_LOST = 0.5, 0.3  # of the malformed answers; the others lose their box
FILLERS = ("嗯", "因此", "также", "所以")  # language drift, the thing the consistency reward exists for


@dataclass(frozen=True)
class Habits:
    """How a writer reasons: each value is a probability in [0, 1]."""

    careful: float  # weighs the evidence for every option, instead of anchoring on the first impression
    reject: float  # of each wrong option, when careful
    claim_error: float  # of each claim: one of ERRORS
    answer_slip: float  # the letter of an option drawn at random, whatever the claims favour
    well_formed: float  # keeps the output format it was asked for
    cite: float  # the conclusion cites evidence from the reasoning
    backtrack: float  # says so when the first impression falls
    chain: float
    subgoal: float
    verify: float
    filler: float  # a word in another script slips in


# The base model's corpus: some medicine, mostly hasty, often malformed. Tuned on validation cases only.
BASE = Habits(
    careful=0.7, reject=0.7, claim_error=0.12, answer_slip=0.08, well_formed=0.6, cite=0.1, backtrack=0.3, chain=0.1,
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


def sentence(claim: Claim, case: Case) -> str:
    """`claim_text` of a claim."""
    return claim_text(claim.finding, claim.present, claim.direction, claim.condition, case)


def concluded(claims, case: Case, suspect: str, rng: np.random.Generator) -> str:
    """The option that the claims favour: claims for it less claims against it, distinct ones.

    Of several at the top the suspect, if it is among them, or one drawn at random.
    """
    totals = tally(claims, case.options)
    best = [option for option, total in totals.items() if total == max(totals.values())]
    return suspect if suspect in best else _pick(best, rng)


def _err(claim: Claim, case: Case, rng) -> Claim:
    """A believable mistake, of the kinds in ERRORS; the wrong direction where a case has nothing else to mistake."""
    kb = knowledge_base()
    kind = str(rng.choice(list(ERRORS), p=list(ERRORS.values())))
    if kind == "finding":
        stated = dict(case.stated)
        pool = [f for option in case.options for f in kb.supports(option) if f not in stated]
        if pool:
            return replace(claim, finding=str(_pick(pool, rng)), present=True)
    if kind == "condition":
        found = [
            o for o in case.options if case.weight(claim.finding, claim.present, o) * claim.direction <= 0
        ]
        if found:
            return replace(claim, condition=_pick(found, rng))
    return replace(claim, direction=-claim.direction)


def _said(pairs, sign, case, habits, rng, opening="") -> list[tuple[str, Claim]]:
    """pairs: ((finding, present), condition) -> a sentence and its claim for each, a few of them wrong."""
    claims = [Claim(finding, present, sign, condition) for (finding, present), condition in pairs]
    claims = [_err(claim, case, rng) if rng.random() < habits.claim_error else claim for claim in claims]
    return [(opening + sentence(claim, case), claim) for claim in claims]


def _pick(items, rng):
    return items[int(rng.integers(len(items)))]


def in_order(options) -> list[str]:
    """Options as the knowledge base lists them, whatever their letters.

    The order in which writers go through options: a small model learns where it stands in an order that never changes. In the
    order of the letters it does not, and rejects the same options again until its tokens are used up.
    """
    return [name for name in knowledge_base().conditions if name in options]


def _strongest(case: Case, option: str) -> tuple[str, bool]:
    """The stated finding that argues most against an option, the first of several."""
    return min(case.evidence(option, AGAINST), key=lambda stated: case.weight(*stated, option))


def _analysis(case, suspect, careful, habits, rng) -> list[tuple[str, Claim | None]]:
    """System 2: its sentences, each with the claim that it makes."""
    kb = knowledge_base()
    written = [(f"{goal}.", None) for goal in SUBGOALS if rng.random() < habits.subgoal]
    if not careful:
        found = case.evidence(suspect, SUPPORTS)[: 1 + int(rng.random() < SECOND_CLAIM)]
        return written + _said([(e, suspect) for e in found], SUPPORTS, case, habits, rng)
    rejectable = [o for o in in_order(case.options) if o != case.gold and case.evidence(o, AGAINST)]
    rejected = [o for o in rejectable if rng.random() < habits.reject]
    rejected = [rejected[i] for i in sorted(rng.permutation(len(rejected))[:MAX_REJECTED])]
    against = [(_strongest(case, o), o) for o in rejected]
    written += _said(against, AGAINST, case, habits, rng)
    if suspect != case.gold and rng.random() < habits.backtrack:
        written.append((f"on second thought consider {case.gold}.", None))
    if rng.random() < habits.chain:
        expected = phrase(_pick(kb.supports(case.gold), rng), True, case.shift)
        written.append((f"if {case.gold} then expect {expected}.", None))
    found = case.evidence(case.gold, SUPPORTS)
    found = [found[i] for i in sorted(rng.permutation(len(found))[:MAX_CITED])]
    written += _said([(e, case.gold) for e in found], SUPPORTS, case, habits, rng)
    if rng.random() < habits.verify:
        written += _said([(_pick(found, rng), case.gold)], SUPPORTS, case, habits, rng, "check: ")
    return written


def conclusion_text(claims, answer: str, cite: bool, case: Case) -> str:
    """What a conclusion says before its box; cite: the findings that the claims have for the answer, at most MAX_CITED."""
    found = [c for c in dict.fromkeys(claims) if (c.condition, c.direction) == (answer, SUPPORTS)]
    cited = [phrase(c.finding, c.present, case.shift) for c in found[-MAX_CITED:]]
    return f"{' and '.join(cited)} favor {answer}" if cite and cited else f"the answer is {answer}"


def boxed(answer: str, case: Case) -> str:
    """The answer's letter in its box, as a sentence."""
    return f"\\boxed{{{LETTERS[case.options.index(answer)]}}}."


def framed(style: str, suspect: str, analysis: str) -> tuple[list[str], tuple[str, str]]:
    """The reasoning in a style's tags, in parts, and the tags of the conclusion."""
    intuition = f"suspect {suspect}."
    if style == "crpo":
        reasoning = ["<dx>", "(System 1: Intuitive)", intuition, "(System 2: Analytical)", analysis, "</dx>"]
        return reasoning, ("<conclusion>", "</conclusion>")
    return ["<think>", intuition, analysis, "</think>"], ("<answer>", "</answer>")


def write_trace(case: Case, style: str, habits: Habits, rng: np.random.Generator) -> str:
    """One completion in the wanted style ("crpo" or "grpo") by a writer with these habits."""
    careful = rng.random() < habits.careful
    suspect = first_impression(case)
    written = _analysis(case, suspect, careful, habits, rng)
    sentences, claims = [text for text, _ in written], [claim for _, claim in written if claim]
    if rng.random() < habits.filler:
        sentences.insert(int(rng.integers(len(sentences) + 1)), _pick(FILLERS, rng))
    answer = concluded(claims, case, suspect, rng)
    conclusion = conclusion_text(claims, answer, rng.random() < habits.cite, case)
    if rng.random() < habits.answer_slip:
        answer = _pick(case.options, rng)
    parts, (opening, closing) = framed(style, suspect, " ".join(sentences))
    parts += [opening, conclusion, boxed(answer, case), closing]
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
