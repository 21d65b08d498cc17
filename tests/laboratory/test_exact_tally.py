"""The exact tally: accuracy is paid only where stated claims lead to the answer.   pytest tests/laboratory/test_exact_tally.py"""

import numpy as np
import pytest

from clinical_r1.causality.probes import case_of
from clinical_r1.clinic.cases import load_set, phrase
from clinical_r1.clinic.knowledge import knowledge_base
from clinical_r1.clinic.traces import BASE, TEACHER, claim_text, crpo_text, write_trace
from clinical_r1.clinic.verdicts import AGAINST, SUPPORTS, phrase_table
from clinical_r1.labels import CLINIC_BENCHMARKS
from clinical_r1.laboratory.exact_tally import tally_accuracy_reward
from clinical_r1.prompts import build_messages

QUESTION = load_set("clinic", "validation", 1)[0]
CASE = case_of(QUESTION)
GOLD, WRONG = CASE.gold, CASE.distractors[0]
STATED, OTHER = CASE.stated[:2]
UNSTATED = next((f, True) for f in knowledge_base().findings if f not in dict(CASE.stated))


def claim(finding, sign, condition):
    return claim_text(*finding, sign, condition, CASE)


def paid(*claims, boxed=None, question=QUESTION, style="crpo"):
    boxed = boxed or question.answer
    text = crpo_text(f"suspect {WRONG}.", " ".join(claims), f"the answer is \\boxed{{{boxed}}}.")
    return reward(text, question, style)


def reward(text, question, style="crpo"):
    columns = {"answer": [question.answer], "options": [question.options], "style": [style]}
    (value,) = tally_accuracy_reward([text], prompts=[build_messages(question, style, "clinic")], **columns)
    return value


def test_by_hand():
    wrong_letter = next(letter for letter, name in QUESTION.options.items() if name == WRONG)
    assert paid(claim(STATED, SUPPORTS, GOLD)) == 1
    assert paid(claim(STATED, SUPPORTS, GOLD), boxed=wrong_letter) == 0  # not the answer
    assert paid(claim(STATED, SUPPORTS, WRONG), boxed=wrong_letter) == 0  # led there, but wrong
    assert paid() == 0  # no claim favours anything
    assert paid(claim(STATED, SUPPORTS, WRONG)) == 0
    assert paid(claim(STATED, SUPPORTS, GOLD), claim(OTHER, SUPPORTS, WRONG)) == 0  # two share the top
    assert (
        paid(claim(STATED, SUPPORTS, GOLD), claim(STATED, SUPPORTS, GOLD), claim(OTHER, SUPPORTS, WRONG)) == 0
    )
    assert paid(*(claim(STATED, AGAINST, other) for other in CASE.distractors)) == 1  # only the gold is left
    assert paid(*(claim(STATED, AGAINST, other) for other in CASE.distractors[1:])) == 0
    assert paid(claim(UNSTATED, SUPPORTS, GOLD)) == 0  # nobody stated it: ignored
    assert paid(claim(STATED, SUPPORTS, GOLD), claim(UNSTATED, SUPPORTS, WRONG)) == 1
    cited = f"{phrase(*STATED, CASE.shift)} favor {GOLD} \\boxed{{{QUESTION.answer}}}."
    assert (
        reward(crpo_text(f"suspect {GOLD}.", "first weigh the symptoms.", cited), QUESTION) == 0
    )  # comes too late
    opposite = (STATED[0], not STATED[1])
    assert paid(claim(opposite, SUPPORTS, GOLD)) == 0  # the same finding, the other way round


def literal(text, question, style):
    """The rule once more, word by word: sentences of the reasoning that end at full stops, findings looked up in the case."""
    boxes = [letter for letter in question.options if f"\\boxed{{{letter}}}" in text]
    if text.count("\\boxed") != 1 or boxes != [question.answer]:
        return 0
    opening = {"crpo": "<conclusion>", "grpo": "<answer>"}[style]
    if opening in text and text.index("\\boxed") < text.index(opening):
        return 0
    begin, end = {"crpo": ("<dx>", "</dx>"), "grpo": ("<think>", "</think>")}[style]
    if text.count(begin) != 1 or text.count(end) != 1:
        return 0
    said, case = set(), case_of(question)
    text = text[text.index(begin) : text.index(end)]
    wordings = {w for f, p in case.stated for w in (phrase(f, p), phrase(f, p, True))}
    for finding in wordings:
        for name in question.options.values():
            for verb, sign in (("supports", 1), ("argues against", -1)):
                at = text.find(f"{finding} {verb} {name}.")
                before = text[:at].rstrip()[-1:]
                if at >= 0 and before in (".", ">", ")", ":", *"嗯此же以"):
                    said.add((phrase_table()[finding], sign, name))
    totals = {name: sum(s for _, s, n in said if n == name) for name in question.options.values()}
    gold = question.options[question.answer]
    return int(all(totals[gold] > total for name, total in totals.items() if name != gold))


@pytest.mark.parametrize("benchmark", CLINIC_BENCHMARKS)
@pytest.mark.parametrize("habits", [BASE, TEACHER], ids=["base", "teacher"])
def test_against_the_rule_word_by_word(benchmark, habits):
    rng, seen = np.random.default_rng(5), set()
    for i, question in enumerate(load_set(benchmark, "validation", 60)):
        style = ("crpo", "grpo")[i % 2]
        text = write_trace(case_of(question), style, habits, rng)
        value = reward(text, question, style)
        assert value == literal(text, question, style), text
        seen.add(value)
    assert seen == {0, 1}


def test_what_cannot_be_scored_is_none_and_what_does_not_fit_is_refused():
    columns = {"answer": ["A"], "options": [{"A": "Gout", "B": "Sepsis"}]}
    assert tally_accuracy_reward(["\\boxed{A}"], prompts=["Fever?"], **columns) == [None]
    assert tally_accuracy_reward(["x"], [None], [QUESTION.options], [QUESTION.stem]) == [None]
    with pytest.raises(ValueError, match="'prompts' has 2 values"):
        tally_accuracy_reward(["x"], prompts=["a", "b"], **columns)
    with pytest.raises(ValueError, match="the answer of a question is 'C'"):
        tally_accuracy_reward(["x"], ["C"], columns["options"], ["Fever?"])
