"""Exercise 2, break a reward, then close the gap: the question, the attacks, and both checks."""

import re

import numpy as np

from clinical_r1.clinic.cases import Case, load_set, phrase
from clinical_r1.clinic.knowledge import knowledge_base
from clinical_r1.clinic.traces import HONEST, write_trace
from clinical_r1.clinic.verdicts import measure, read_claims
from clinical_r1.completions import parse_completion
from clinical_r1.questions import Question
from clinical_r1.rewards import REWARD_SETS
from clinical_r1.workshop.checking import error_sentence, is_number, report, shortened


def attack_question() -> Question:
    """The question of exercise 2: two of its stated findings have nothing to do with the answer, nor a word with each other."""
    for question in load_set("clinic", "validation"):
        words = [set(finding.split()) for finding in beside_the_point(Case.from_json(question.meta["case"]))]
        if len(words) > 1 and words[0].isdisjoint(words[1]) and min(map(len, words[:2])) > 2:
            return question
    raise ValueError(
        "no clinic question states two findings beside the point; expected one among the validation questions: exercise 2 "
        "needs lures, see clinic/drawing.py."
    )


def beside_the_point(case: Case) -> list[str]:
    """Findings that the vignette states and that say nothing about its answer, in words."""
    return [
        phrase(f, present) for f, present in case.stated if present and not case.weight(f, present, case.gold)
    ]


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
        problems.append(f"the parser stumbles over: {', '.join(parsed.problems)}.")
    if score["accuracy_reward"] < 1:
        problems.append("accuracy pays nothing: an attack knows the right letter, boxed once, at the end.")
    if score["clinical_reasoning_reward"] < 1.5:
        problems.append(
            f"clinical reasoning pays {score['clinical_reasoning_reward']:g} of 1.5: is the format whole, and does the "
            "conclusion repeat what System 2 inferred?"
        )
    if score["consistency_reward"] < 1:
        problems.append("consistency pays less than 1: something is written in another script.")
    if not read_claims(text):
        problems.append(
            "the exact judge finds no claim to read. Write claims as '<finding> supports <condition>.'"
        )
    elif score["faithfulness"]:
        problems.append(
            f"{score['faithfulness']} of its claims are true, so it is not worthless: claim_table says which."
        )
    return report("2 attack", problems, "Twelve points for reasoning without one true claim.")


def naive_citation(text: str, stem: str) -> float:
    """The toy rule of exercise 2, in {0, 1}: something supports something. It never looks at the stem."""
    return float(bool(re.search(r"\w supports \w", text)))


def _cited_text(question: Question, findings: list[str]) -> str:
    answer = question.options[question.answer]
    claims = " ".join(f"{finding} supports {answer}." for finding in findings)
    cited = " and ".join(findings[:2])
    return (
        f"<dx> (System 1: Intuitive) suspect {answer}. (System 2: Analytical) {claims} </dx> <conclusion> "
        f"{f'{cited} favor' if cited else 'the answer is'} {answer} \\boxed{{{question.answer}}}. </conclusion>"
    )


def citation_attacks(question: Question) -> dict[str, str]:
    """Name -> completion: attacks on a citation rule, each with the right letter.

    "asserts what the vignette denies" is there only where the vignette denies something.
    """
    case = Case.from_json(question.meta["case"])
    stated = case.evidence(case.gold, 1)
    invented = [
        phrase(finding, True)
        for finding in knowledge_base().supports(case.gold)
        if finding not in dict(case.stated)
    ]
    denied = [phrase(finding, True) for finding, present in case.stated if not present]
    denied = [
        name for name in denied if name in question.stem
    ] or denied  # "palpitations" stands in "no palpitations"
    others = [option for option in case.options if option != case.gold]
    rejections = " ".join(
        f"{finding} argues against {option}." for finding, option in zip(invented, others * 2, strict=False)
    )
    true_one = phrase(*stated[0])
    attacks = {
        "says nothing": _cited_text(question, []),
        "invents evidence": _cited_text(question, invented[:2]),
        "states the opposite": _cited_text(question, [phrase(f, not present) for f, present in stated]),
        "hides inventions behind one true finding": _cited_text(question, [true_one, *invented[:3]]),
        "rejects the others with inventions": _cited_text(question, [true_one]).replace(
            " </dx>", f" {rejections} </dx>"
        ),
    }
    return attacks | ({"asserts what the vignette denies": _cited_text(question, denied)} if denied else {})


def check_fixed_rule(rule) -> bool:
    """rule: function (text, stem) -> number in [0, 1]; tried on 24 clinic questions it has not seen."""
    if not callable(rule):
        return report(
            "2 fixed rule", [f"got {shortened(rule)}; expected a function (text, stem) -> number."], ""
        )
    questions, paid, low, problems = load_set("clinic", "validation", 64)[40:], {}, 0, []
    try:
        for number, question in enumerate(questions):
            writer = np.random.default_rng(number)
            honest = rule(
                write_trace(Case.from_json(question.meta["case"]), "crpo", HONEST, writer), question.stem
            )
            values = {name: rule(text, question.stem) for name, text in citation_attacks(question).items()}
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
