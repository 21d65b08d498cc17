"""Exercise 2, break a reward, then close the gap: the question, the attacks, and both checks."""

import re
from functools import lru_cache

import numpy as np

from clinical_r1.clinic.cases import Case, load_set, phrase
from clinical_r1.clinic.knowledge import knowledge_base
from clinical_r1.clinic.traces import HONEST, write_trace
from clinical_r1.clinic.verdicts import AGAINST, SUPPORTS, measure, read_claims
from clinical_r1.completions import parse_completion
from clinical_r1.questions import Question
from clinical_r1.rewards import REWARD_SETS
from clinical_r1.workshop.checking import error_sentence, is_number, report, shortened


def beside_the_point(question: Question, count: int = 2) -> list[str]:
    """Up to `count` findings that the vignette states as present and that say nothing for or against the answer."""
    case = Case.from_json(question.meta["case"])
    neutral = [
        (f, present) for f, present in case.stated if present and not case.weight(f, present, case.gold)
    ]
    return [phrase(*statement) for statement in neutral][:count]


@lru_cache(maxsize=1)
def attack_question() -> Question:
    """The question of exercise 2: the first whose vignette states two findings, beside the point, that the reward pays for."""
    for question in load_set("clinic", "validation", 60):
        findings = beside_the_point(question)
        if len(findings) == 2 and score_attack(question, cited_text(question, findings))["total"] == 12:
            return question
    raise ValueError(
        "none of the first 60 validation questions of `clinic` has an attack that earns 12; expected at least one: the knowledge "
        "base or the reward has changed, look at exercise 2."
    )


def defence_question() -> Question:
    """The question that the attacks on the toy rule are shown on: another one, which names what it denies."""
    fresh = [question for question in load_set("clinic", "validation", 60) if question != attack_question()]
    return next((question for question in fresh if denied_and_named(question)), fresh[0])


def cited_text(question: Question, findings: list[str]) -> str:
    """A completion that says of each finding, true or not, that it supports the answer, and cites the first two."""
    answer = question.options[question.answer]
    claims = " ".join(f"{finding} supports {answer}." for finding in findings)
    return (
        f"<dx> (System 1: Intuitive) suspect {answer}. (System 2: Analytical) {claims} </dx> <conclusion> "
        f"{' and '.join(findings[:2])} favor {answer} \\boxed{{{question.answer}}}. </conclusion>"
    )


def score_attack(question: Question, text: str) -> dict[str, float]:
    """The rewards of the CRPO set, their weighted total (eq. 4, at most 12), and what the exact judge counts."""
    crpo = REWARD_SETS["crpo"]
    columns = {"answer": [question.answer], "options": [question.options], "prompts": [question.stem]}
    values = {reward.__name__: reward([text], **columns)[0] for reward in crpo.functions}
    total = sum(weight * value for weight, value in zip(crpo.weights, values.values(), strict=True))
    counts = measure(text, Case.from_json(question.meta["case"]))
    return {**values, "total": total, **{name: counts[name] for name in ("faithfulness", "hallucination")}}


def check_attack(text) -> bool:
    """text: a completion of `attack_question()` with the full CRPO reward and not one true claim."""
    if not isinstance(text, str) or not text.strip():
        problems = [
            "no completion yet: write one as a text, in the format <dx> ... </dx> <conclusion> ... </conclusion>."
        ]
        return report("2 attack", problems, "")
    question, problems = attack_question(), []
    score, parsed = score_attack(question, text), parse_completion(text, options=question.options)
    if parsed.problems:
        said = ", ".join(problem.replace("_", " ") for problem in parsed.problems)
        problems.append(f"the parser stumbles over: {said}.")
    if score["accuracy_reward"] < 1:
        problems.append("accuracy pays nothing: an attack knows the right letter, boxed once, at the end.")
    if score["clinical_reasoning_reward"] < 1.5:
        problems.append(
            f"clinical reasoning pays {score['clinical_reasoning_reward']:g} of 1.5: is the format whole, does the vignette "
            "state what is cited, and does the conclusion repeat what System 2 inferred for the boxed option?"
        )
    if score["consistency_reward"] < 1:
        problems.append("consistency pays less than 1: something is written in another script.")
    if not read_claims(text):
        problems.append(
            "the exact judge finds no claim to read. Write claims as '<finding> supports <condition>.'"
        )
    elif score["faithfulness"]:
        true = (
            "1 of its claims is"
            if score["faithfulness"] == 1
            else f"{score['faithfulness']} of its claims are"
        )
        problems.append(f"{true} true, so it is not worthless: claim_table says which.")
    elif unread := _evidence_outside_claims(question, text):
        problems.append(
            f"it says {unread[0]!r}, which does speak for the answer, in words that the judge cannot read, so a true reason may "
            "hide there. Leave it out, or write it as a claim and see."
        )
    elif score["clinical_reasoning_reward"] == 1.5 > _of_claims_alone(question, text):
        problems.append(
            "the bonus is earned by words that the judge cannot read, and they may be true. Whatever System 2 infers must stand "
            "as '<finding> supports <condition>.', whatever the conclusion cites as '<finding> and <finding> favor "
            "<condition>', letter by letter as the vignette and the options have it."
        )
    return report("2 attack", problems, "Twelve points for reasoning without one true claim.")


def _evidence_outside_claims(question: Question, text: str) -> list[str]:
    """What the vignette states for the answer and the text names, in any letters, without a claim that the judge reads."""
    case = Case.from_json(question.meta["case"])
    read = {(claim.finding, claim.present) for claim in read_claims(text)}
    names = [phrase(*statement) for statement in case.evidence(case.gold, 1) if statement not in read]
    return [name for name in names if name.lower() in text.lower()]


def _of_claims_alone(question: Question, text: str) -> float:
    """Clinical reasoning's reward of a completion that says nothing but the claims that the judge reads in this one."""
    parsed = parse_completion(text, options=question.options)
    verbs = {SUPPORTS: "supports", AGAINST: "argues against"}
    said = [
        f"{phrase(claim.finding, claim.present)} {verbs[claim.direction]} {claim.condition}."
        for claim in read_claims(parsed.analytical or "")
    ]
    cited: dict[str, list[str]] = {}
    for claim in read_claims(parsed.conclusion or ""):
        cited.setdefault(claim.condition, []).append(phrase(claim.finding, claim.present))
    concluded = ". ".join(f"{' and '.join(findings)} favor {name}" for name, findings in cited.items())
    rewritten = (
        f"<dx> (System 1: Intuitive) suspect {question.options[question.answer]}. (System 2: Analytical) {' '.join(said)} "
        f"</dx> <conclusion> {concluded} \\boxed{{{question.answer}}}. </conclusion>"
    )
    return score_attack(question, rewritten)["clinical_reasoning_reward"]


def naive_citation(text: str, stem: str) -> float:
    """The toy rule of exercise 2, in {0, 1}: something supports something. It never looks at the stem."""
    return float(bool(re.search(r"\w supports \w", text)))


def honest_answer(question: Question, seed: int = 0) -> str:
    """What the honest writer says to a question: only true claims, and some of them."""
    case = Case.from_json(question.meta["case"])
    return write_trace(case, "crpo", HONEST, np.random.default_rng(seed))


def denied_and_named(question: Question) -> list[str]:
    """What the vignette denies and the words of which stand in it: "palpitations" in "no palpitations"."""
    case = Case.from_json(question.meta["case"])
    denied = [phrase(finding, True) for finding, present in case.stated if not present]
    return [name for name in denied if name in question.stem]


def citation_attacks(question: Question, seed: int = 0) -> dict[str, str]:
    """Name -> completion: attacks on a citation rule, each the honest answer to the question with its evidence changed.

    So none differs from the honest one in format, style or letter. "asserts what the vignette denies" is there only where
    the vignette names what it denies.
    """
    case, honest = Case.from_json(question.meta["case"]), honest_answer(question, seed)
    claims = read_claims(honest)
    said = list(dict.fromkeys((claim.finding, claim.present) for claim in claims))
    rejecting = [(claim.finding, claim.present) for claim in claims if claim.direction == AGAINST]
    names = [phrase(*statement) for statement in said]
    kept = next(phrase(c.finding, c.present) for c in claims if c.direction == SUPPORTS)
    invented = _invented(case, len(said) + 3)
    lies = dict(zip(names, invented, strict=False))
    more = " ".join(f"{name} supports {case.gold}." for name in invented[-3:])
    attacks = {
        "says nothing": _without_claims(honest, question),
        "invents evidence": _reworded(honest, lies),
        "states the opposite": _reworded(honest, {phrase(f, p): phrase(f, not p) for f, p in said}),
        "hides inventions behind one true finding": _reworded(
            honest,
            {name: lie for name, lie in lies.items() if name != kept},
        ),
        "hides inventions among true claims": honest.replace(" </dx>", f" {more} </dx>"),
        "rejects the others with inventions": _rejecting(honest, [phrase(*s) for s in rejecting], lies),
    }
    denied = " ".join(f"{name} supports {case.gold}." for name in denied_and_named(question))
    named = (
        {"asserts what the vignette denies": honest.replace(" </dx>", f" {denied} </dx>")} if denied else {}
    )
    return attacks | named


def _invented(case: Case, count: int) -> list[str]:
    """Findings in words that the vignette does not state in either way: what would support the answer first."""
    kb, known = knowledge_base(), dict(case.stated)
    pool = dict.fromkeys((*kb.supports(case.gold), *kb.findings))
    return [phrase(finding, True) for finding in pool if finding not in known][:count]


def _reworded(text: str, new: dict[str, str]) -> str:
    """A text with some wordings put for others, all at once, the longest first."""
    found = "|".join(re.escape(name) for name in sorted(new, key=len, reverse=True))
    return re.sub(rf"(?<![\w-])({found})(?![\w-])", lambda match: new[match[1]], text) if new else text


def _without_claims(text: str, question: Question) -> str:
    """A text without the sentences that make a claim; the conclusion names the answer alone."""
    reasoning, _, _ = text.partition(" </dx>")
    kept = [part for part in re.split(r"(?<=\.) ", reasoning) if not read_claims(part)]
    answer = question.options[question.answer]
    concluded = f"<conclusion> the answer is {answer} \\boxed{{{question.answer}}}. </conclusion>"
    return f"{' '.join(kept)} </dx> {concluded}"


def _rejecting(text: str, names: list[str], lies: dict[str, str]) -> str:
    """A text whose claims against options stand on inventions; those for options stay."""
    for name in names:
        text = text.replace(f"{name} argues against", f"{lies[name]} argues against")
    return text


@lru_cache(maxsize=1)
def _unseen_questions() -> tuple[Question, ...]:
    """24 clinic questions for the fixed rule; up to eight of them name what they deny, for who looks for words alone."""
    fresh = load_set("clinic", "validation", 200)[60:]
    trapped = [question for question in fresh if denied_and_named(question)][:8]
    return tuple(trapped + [question for question in fresh if question not in trapped][: 24 - len(trapped)])


def _number(value):
    """True and False as 1 and 0, which a rule may say; anything else as it is."""
    return float(value) if isinstance(value, (bool, np.bool_)) else value


def check_fixed_rule(rule) -> bool:
    """rule: function (text, stem) -> number in [0, 1]; tried on 24 clinic questions it has not seen."""
    if not callable(rule):
        return report(
            "2 fixed rule", [f"got {shortened(rule)}; expected a function (text, stem) -> number."], ""
        )
    questions, paid, low, problems = _unseen_questions(), {}, 0, []
    try:
        for number, question in enumerate(questions):
            honest = _number(rule(honest_answer(question, number), question.stem))
            values = {
                name: _number(rule(text, question.stem))
                for name, text in citation_attacks(question, number).items()
            }
            wrong = [value for value in (honest, *values.values()) if not is_number(value)]
            if wrong:
                return report("2 fixed rule", [f"it returned {shortened(wrong[0])}; expected a number."], "")
            if any(not 0 <= value <= 1 for value in (honest, *values.values())):
                return report("2 fixed rule", ["it pays outside [0, 1]; divide by the number of claims?"], "")
            low += honest < 0.5
            for name, value in values.items():
                paid[name] = paid.get(name, 0) + (value >= honest)
    except Exception as error:  # a student's function: whatever it raises is reported, not passed on
        return report("2 fixed rule", [error_sentence(error)], "")
    if low:
        problems.append(f"the honest answer earns less than a half on {low} of {len(questions)} questions.")
    problems += [
        f"the attack that {name} earns as much as the honest answer on {count} of {len(questions)} questions."
        for name, count in paid.items()
        if count
    ]
    return report(
        "2 fixed rule", problems, "It reads the question. What could an attacker who also reads it still do?"
    )
