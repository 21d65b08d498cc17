"""Probes of scripted policies whose causes are known, so that every share is known.   pytest tests/causality/test_probes.py"""

import re
from dataclasses import replace

import pytest

from clinical_r1 import causality
from clinical_r1.causality import probes
from clinical_r1.clinic.cases import load_set
from clinical_r1.clinic.verdicts import AGAINST, SUPPORTS, favoured, read_claims, tally, verdict
from clinical_r1.questions import Question
from clinical_r1.settings import SMOKE

QUESTIONS = load_set("clinic", "validation", 24)
TEN = load_set("clinic-expert", "validation", 12)
SEPARATOR = "\n=>"
FOLLOWS = {"claims": 1.0, "vignette": 0.0}  # policy -> share of its answers that its claims decide


class Scripted:
    """An engine that names the gold with one claim, and concludes from the claims it reads, or from the question alone."""

    def __init__(self, decides: str, questions=QUESTIONS, style="crpo", unread=()):
        self.decides, self.style, self.unread = decides, style, unread
        self.of = {question.stem: question for question in questions}
        self.asked = []

    def prompt(self, messages, forced=""):
        return messages[0]["content"] + SEPARATOR + forced

    def check(self, prompts, settings, what):
        assert prompts

    def answer(self, prompts, settings, protocol, seeds):
        assert protocol == "greedy" and len(prompts) == len(seeds) <= settings.eval_batch
        self.asked += prompts
        return [{"text": self._text(*prompt.split(SEPARATOR))} for prompt in prompts]

    def _text(self, asked, forced):
        question = next(own for stem, own in self.of.items() if stem in asked)
        if question.id in self.unread:
            return "no idea."
        gold, case = question.options[question.answer], probes.case_of(question)
        opening = ""
        if not forced:
            claim = probes.claim_text(*case.evidence(gold, SUPPORTS)[0], SUPPORTS, gold, case)
            reasoning, (tag, _) = probes.framed(self.style, gold, claim)
            opening = " ".join((*reasoning, tag, ""))
        name = gold if self.decides == "vignette" else self._favoured(opening + forced, question)
        letters = {name: letter for letter, name in question.options.items()}
        return f"{opening}{name} \\boxed{{{letters[name]}}}."

    def _favoured(self, text, question):
        totals = tally(read_claims(text), question.options.values())
        least = min(totals, key=totals.get)
        return favoured(totals) or next(name for name in totals if name != least)


@pytest.mark.parametrize("style", ["crpo", "grpo"])
@pytest.mark.parametrize("questions", [QUESTIONS, TEN], ids=["four options", "ten options"])
def test_a_policy_that_follows_its_claims_and_one_that_does_not(questions, style):
    for decides, follows in FOLLOWS.items():
        rows = probes.all_probes(Scripted(decides, questions, style), questions, SMOKE, style)
        share = {row["probe"]: row["share"] for row in rows}
        assert share["swap"] == share["named"] == follows
        assert share["denied"] == 1 - follows
        assert share["accuracy"] == 1
        assert share["agreement"] == 1  # of both: that is the trap
        if decides == "vignette":
            assert share["empty"] == 1
        for row in rows:
            counted = [row[name] for name in probes.COUNTS if row[name] is not None]
            assert sum(counted) == row["n"] == len(questions)
            assert row["ci_low"] - 1e-9 <= row["share"] <= row["ci_high"] + 1e-9


def test_what_cannot_be_read_stays_in_the_denominator():
    lost = [question.id for question in QUESTIONS[:6]]
    for row in probes.all_probes(Scripted("claims", unread=lost), QUESTIONS, SMOKE):
        assert (row["n"], row["unread"]) == (24, 6)
        if row["probe"] in ("swap", "named", "agreement", "accuracy"):
            assert row["share"] == 18 / 24


def test_an_answer_without_a_conclusion_cannot_be_swapped():
    answers = ["suspect gout. \\boxed{A}"] * len(QUESTIONS)
    engine = Scripted("claims")
    row = causality.swap_test(engine, QUESTIONS, SMOKE, answers=answers)
    assert (row["hits"], row["unread"]) == (0, 24) and engine.asked == []


def test_names_are_exchanged_as_whole_words():
    text = "a gout supports gout, gout-like; septic gout argues against septic gout."
    swapped = probes.exchange(text, "gout", "septic gout")
    assert swapped == "a septic gout supports septic gout, gout-like; gout argues against gout."
    assert probes.exchange(swapped, "septic gout", "gout") == text


def test_the_forced_reasoning_says_what_its_probe_promises():
    for question in QUESTIONS:
        case, gold = probes.case_of(question), question.options[question.answer]
        for letter, name in question.options.items():
            for sign in (SUPPORTS, AGAINST):
                rng = probes._drawn(question, probes.SEED, letter)
                text = probes.forced_claims(question, letter, sign, "crpo", rng)
                claims = read_claims(text)
                assert {(claim.condition, claim.direction) for claim in claims} == {(name, sign)}
                assert len(claims) == probes.FORCED_CLAIMS
                assert all((claim.finding, claim.present) in case.stated for claim in claims)
                assert re.fullmatch(
                    r"<dx> \(System 1: Intuitive\) suspect [^.]+\. \(System 2: Analytical\) .* </dx> <conclusion>",
                    text,
                )
                if (name, sign) == (gold, AGAINST):  # no stated finding argues against the gold
                    assert "true" not in {verdict(claim, case) for claim in claims}


def test_the_named_option_is_neither_the_gold_nor_the_policys_answer():
    engine = Scripted("vignette")
    wrong = {
        question.id: next(letter for letter in question.options if letter != question.answer)
        for question in QUESTIONS
    }
    answers = [f"<dx> x </dx> <conclusion> \\boxed{{{wrong[question.id]}}}" for question in QUESTIONS]
    causality.named_test(engine, QUESTIONS, SMOKE, answers=answers)
    for question, prompt in zip(QUESTIONS, engine.asked, strict=True):
        (named,) = {claim.condition for claim in read_claims(prompt.split(SEPARATOR)[1])}
        assert named not in (question.options[question.answer], question.options[wrong[question.id]])


def test_every_policy_is_asked_the_same_and_another_seed_asks_something_else():
    asked = []
    for decides, seed in (("claims", 1), ("vignette", 1), ("claims", 2)):
        engine = Scripted(decides)
        causality.denied_test(engine, QUESTIONS, SMOKE, seed=seed)
        asked.append(engine.asked)
    assert asked[0] == asked[1] != asked[2]


def test_questions_that_are_not_the_clinics_and_no_questions_are_refused():
    other = Question("m-1", "medqa", "test", "Fever?", {"A": "Gout", "B": "Sepsis"}, "A", {})
    with pytest.raises(ValueError, match="'m-1' is not the clinic's"):
        causality.denied_test(Scripted("claims"), [other], SMOKE)
    with pytest.raises(ValueError, match="got no questions"):
        causality.swap_test(Scripted("claims"), [], SMOKE, answers=[])


@pytest.mark.parametrize("probe", ["swap_test", "denied_test", "named_test", "empty_test", "agreement"])
def test_a_probe_refuses_what_it_cannot_count(probe):
    ask, engine, first = getattr(causality, probe), Scripted("claims"), QUESTIONS[0]
    other = Question("m-1", "medqa", "test", "Fever?", {"A": "Gout", "B": "Sepsis"}, "A", {})
    for questions, said in (
        ([], "got no questions"),
        ([first, first], "or one twice, among 2"),
        ([other], "'m-1' is not the clinic's"),
        ([replace(first, answer=None)], "has the answer None; expected one of its options"),
        (
            [replace(first, meta=first.meta | {"kb_sha256": "0" * 64})],
            "knowledge base 000000000000, not today's",
        ),
    ):
        with pytest.raises(ValueError, match=said):
            ask(engine, questions, SMOKE)
    assert not engine.asked
    if probe in ("swap_test", "named_test", "agreement"):
        with pytest.raises(ValueError, match="got 1 answers to 2 questions; expected one each"):
            ask(engine, QUESTIONS[:2], SMOKE, answers=["x"])
