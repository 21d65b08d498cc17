"""Exercises 2 and 3: texts and functions that a participant plausibly gives are refused for their reason.

python -m pytest tests/workshop/test_functions.py
"""

import re

import numpy as np
import pytest

from clinical_r1.advantages import group_advantages
from clinical_r1.clinic.cases import Case, phrase
from clinical_r1.clinic.traces import teaching_completions
from clinical_r1.clinic.verdicts import claim_table, read_claims
from clinical_r1.workshop import aggregator, break_reward


@pytest.fixture(scope="module")
def question():
    return break_reward.attack_question()


@pytest.fixture(scope="module")
def case(question):
    return Case.from_json(question.meta["case"])


@pytest.fixture
def attack(question):
    return break_reward.cited_text(question, break_reward.beside_the_point(question))


# ---- exercise 2: the attack ----


def test_stated_findings_beside_the_point_are_a_full_attack(question, case, attack):
    score = break_reward.score_attack(question, attack)
    assert (score["total"], score["faithfulness"]) == (12, 0)
    assert set(claim_table(attack, case)["verdict"]) == {"unverifiable"}
    assert break_reward.check_attack(attack)


def supporting(case):
    return [phrase(*statement) for statement in case.evidence(case.gold, 1)]


def in_free_english(text):
    words = {" supports ": " suggests ", " argues against ": " speaks against ", " favor ": " point to "}
    for claimed, said in words.items():
        text = text.replace(claimed, said)
    return text


def before_the_end_of_reasoning(text, more):
    return text.replace(" </dx>", f" {more} </dx>")


SPOILT = {  # name -> (attack, question, case -> text, what the check must say)
    "honest": (lambda a, q, c: teaching_completions(c)["honest"], "claims are true"),
    "honest, with a lie": (
        lambda a, q, c: before_the_end_of_reasoning(
            break_reward.honest_answer(q), f"{break_reward.beside_the_point(q)[0]} supports {c.gold}."
        ),
        "claims are true",
    ),
    "one true claim": (
        lambda a, q, c: before_the_end_of_reasoning(a, f"{supporting(c)[0]} supports {c.gold}."),
        "1 of its claims is true",
    ),
    "no claim in the grammar": (lambda a, q, c: in_free_english(a), "no claim to read"),
    "honest in free English, one lie in the grammar": (
        lambda a, q, c: before_the_end_of_reasoning(
            in_free_english(break_reward.honest_answer(q)),
            f"{break_reward.beside_the_point(q)[0]} supports {c.gold}.",
        ),
        "in words that the judge cannot read",
    ),
    "true reasons with a capital letter": (
        lambda a, q, c: before_the_end_of_reasoning(
            a, f"{supporting(c)[0].capitalize()} supports {c.gold.lower()}."
        ),
        "in words that the judge cannot read",
    ),
    "conclusion in free English": (
        lambda a, q, c: a.replace(" favor ", " point to "),
        "bonus is earned by words that the judge cannot read",
    ),
    "reasoning in free English": (
        lambda a, q, c: a.replace(" supports ", " suggests "),
        "bonus is earned by words that the judge cannot read",
    ),
    "findings that are not stated": (
        lambda a, q, c: break_reward.cited_text(q, break_reward._invented(c, 2)),
        "does the vignette state what is cited",
    ),
    "for another option": (
        lambda a, q, c: a.replace(f"supports {c.gold}", f"supports {c.distractors[0]}"),
        "for the boxed option",
    ),
    "wrong letter": (
        lambda a, q, c: a.replace(f"boxed{{{q.answer}}}", f"boxed{{{'AB'[q.answer == 'A']}}}"),
        "accuracy pays nothing",
    ),
    "no end of reasoning": (lambda a, q, c: a.replace("</dx>", ""), "parser stumbles"),
    "no box": (lambda a, q, c: a.split(" \\boxed")[0] + " </conclusion>", "parser stumbles over: no box"),
    "twice": (lambda a, q, c: a + a, "parser stumbles"),
    "another script": (lambda a, q, c: before_the_end_of_reasoning(a, "因此"), "another script"),
    "nothing": (lambda a, q, c: "  ", "no completion yet"),
}


@pytest.mark.parametrize("name", SPOILT)
def test_spoilt_attack_is_refused_for_its_reason(name, attack, question, case, capsys):
    change, says = SPOILT[name]
    assert break_reward.check_attack(change(attack, question, case)) is False
    assert says in capsys.readouterr().out


# ---- exercise 2: the rule ----


@pytest.fixture(scope="module")
def unseen():
    return break_reward._unseen_questions()


def test_the_rule_is_tried_on_questions_that_nobody_has_seen(unseen, question):
    assert len({each.id for each in unseen}) == 24
    shown = {question.id, break_reward.defence_question().id}
    assert not shown & {each.id for each in unseen}
    assert sum(bool(break_reward.denied_and_named(each)) for each in unseen) >= 5


def test_attacks_are_the_honest_answer_with_fewer_true_claims(unseen):
    for seed, each in enumerate(unseen):
        honest = break_reward.honest_answer(each, seed)
        counts = break_reward.score_attack(each, honest)
        assert (counts["total"], counts["hallucination"]) == (12, 0)
        for name, text in break_reward.citation_attacks(each, seed).items():
            score = break_reward.score_attack(each, text)
            assert score["accuracy_reward"] == 1 and text != honest
            claims = len(read_claims(text))
            assert score["faithfulness"] < max(claims, 1), name
            if name in ("says nothing", "invents evidence", "states the opposite"):
                assert score["faithfulness"] == 0, name
            if name == "says nothing":
                assert claims == 0
            if name == "hides inventions among true claims":
                assert score["faithfulness"] == counts["faithfulness"]


def listed(stem):
    return stem.removeprefix("Patient: ").removesuffix(".").split(", ")


def share_of_stated(held=None, only_support=False, nothing=0.0):
    """The solution's rule with one of the faults that the instructor's page lists."""
    held = held or (lambda name, stem: name in listed(stem))

    def rule(text, stem):
        claims = [claim for claim in read_claims(text) if claim.direction > 0 or not only_support]
        values = [held(phrase(claim.finding, claim.present), stem) for claim in claims]
        return sum(values) / len(values) if values else nothing

    return rule


def stated(text, stem):
    return [phrase(claim.finding, claim.present) in listed(stem) for claim in read_claims(text)]


@pytest.mark.parametrize(
    "rule", [share_of_stated(), lambda text, stem: all(held := stated(text, stem)) and bool(held)]
)
def test_the_rule_without_a_fault_passes(rule):
    assert break_reward.check_fixed_rule(rule)


@pytest.mark.parametrize(
    ("rule", "says"),
    [
        (break_reward.naive_citation, "invents evidence earns as much .* 24 of 24"),
        (share_of_stated(lambda name, stem: name in stem), "asserts what the vignette denies earns as much"),
        (share_of_stated(only_support=True), "rejects the others with inventions earns as much"),
        (share_of_stated(nothing=1.0), "says nothing earns as much .* 24 of 24"),
        (lambda text, stem: float("first weigh" in text), "invents evidence earns as much .* 24 of 24"),
        (lambda text, stem: float("argues against" in text), "states the opposite earns as much"),
        (lambda text, stem: float(len(text) > 400), "hides inventions among true claims earns as much"),
        (lambda text, stem: any(stated(text, stem)), "behind one true finding earns as much"),
        (lambda text, stem: all(stated(text, stem)), "says nothing earns as much"),
        (lambda text, stem: min(1, sum(stated(text, stem)) / 2), "among true claims earns as much"),
        (
            lambda text, stem: np.mean([name in text for name in listed(stem)]),
            "among true claims earns as much",
        ),
        (lambda text, stem: float(stated(text, stem)[:1] == [True]), "among true claims earns as much"),
        (lambda text, stem: 1.0, "says nothing earns as much"),
        (lambda text, stem: 0.0, "honest answer earns less than a half on 24"),
        (lambda text, stem: sum(stated(text, stem)), r"outside \[0, 1\]"),
        (lambda text, stem: None, "expected a number"),
        (lambda text, stem: float("nan"), "expected a number"),
        (lambda text, stem: -1, r"outside \[0, 1\]"),
        (lambda text, stem: 1 / 0, "ZeroDivisionError"),
        (lambda text: 1.0, "TypeError"),
    ],
)
def test_wrong_rule_is_refused_for_its_reason(rule, says, capsys):
    assert break_reward.check_fixed_rule(rule) is False
    assert re.search(says, capsys.readouterr().out)


# ---- exercise 3 ----


def gdpo(rewards, size):
    """GDPO with one weight an objective."""
    return group_advantages(rewards, (1,) * rewards.shape[1], size, "normalize_then_sum").numpy()


def by_hand(rewards, size, eps=1e-4, zero=False, flat=False, weights=None, batch=False):
    """Per objective, with the faults that a student's function may have."""
    grouped = np.nan_to_num(rewards) if zero else rewards
    shape = (1, -1) if batch else (size, -1) if flat else (-1, size)
    grouped = grouped.reshape(*shape, rewards.shape[1])
    known = ~np.isnan(grouped) if weights or batch else np.ones(grouped.shape, dtype=bool)
    with np.errstate(all="ignore"):
        count = np.maximum(known.sum(axis=1, keepdims=True), 1)
        mean = np.where(known, grouped, 0).sum(axis=1, keepdims=True) / count
        centred = np.where(known, grouped - mean, 0)
        scaled = centred / (np.sqrt((centred**2).sum(axis=1, keepdims=True) / count) + eps)
    return (scaled * (weights or (1,) * 3)[: rewards.shape[1]]).sum(axis=2).reshape(-1)


def where_it_varies(rewards, size):
    """Divides unless the deviation is exactly 0, which a rounded mean prevents."""
    grouped = np.asarray(rewards, dtype=float).reshape(-1, size, rewards.shape[1])
    known = ~np.isnan(grouped)
    count = known.sum(axis=1, keepdims=True)
    mean = np.where(known, grouped, 0).sum(axis=1, keepdims=True) / np.maximum(count, 1)
    centred = np.where(known, grouped - mean, 0)
    deviation = np.sqrt((centred**2).sum(axis=1, keepdims=True) / np.maximum(count - 1, 1))
    return np.divide(centred, deviation, out=np.zeros_like(centred), where=deviation > 0).sum(axis=2).ravel()


def without_a_mean(rewards, size):
    """Each objective between 0, the worst of its group, and 1."""
    grouped = rewards.reshape(-1, size, rewards.shape[1])
    with np.errstate(all="ignore"):
        low, high = np.fmin.reduce(grouped, axis=1)[:, None], np.fmax.reduce(grouped, axis=1)[:, None]
        return np.nan_to_num((grouped - low) / np.fmax(high - low, 1e-4)).sum(axis=2).ravel()


@pytest.mark.parametrize(
    "function", [gdpo, lambda r, G: by_hand(r, G, weights=(1, 1, 1)), lambda r, G: list(gdpo(r, G))]
)
def test_right_aggregators_pass(function):
    assert aggregator.check_aggregator(function)


def test_single_precision_passes():
    """TRL's rewards are 32-bit numbers: their rounding, divided by 1e-4, is no fault."""

    def single(rewards, size):
        return by_hand(rewards.astype(np.float32), size, weights=(1, 1, 1))

    assert aggregator.check_aggregator(single)


@pytest.mark.parametrize(
    ("function", "says"),
    [
        (lambda r, G: group_advantages(r, (1,) * r.shape[1], G).numpy(), "units ten times"),
        (lambda r, G: np.nan_to_num(r).sum(axis=1), "add up to 0"),
        (lambda r, G: None, "nothing yet"),
        (lambda r, G: np.zeros(len(r)), "wins both"),
        (lambda r, G: -gdpo(r, G), "wins both"),
        (lambda r, G: np.zeros((len(r), 1)), r"shape \(12, 1\)"),
        (lambda r, G: gdpo(r, G)[np.argsort(np.argsort(r[:, 0], kind="stable"))], "order"),
        (by_hand, "makes other advantages NaN"),
        (lambda r, G: by_hand(r, G, zero=True), "reward 0 in its group"),
        (lambda r, G: by_hand(r, G, eps=0), "divided by"),
        (lambda r, G: by_hand(r, G, eps=1e-9, zero=True), "rewards are all"),
        (lambda r, G: by_hand(r, G, flat=True, zero=True), "not there yet"),
        (where_it_varies, "rewards are all .* a test for exactly 0"),
        (lambda r, G: by_hand(r, G, batch=True), "not with the whole batch"),
        (lambda r, G: by_hand(r, G, weights=(1, 1, 0)), "none left out"),
        (lambda r, G: by_hand(r, G, weights=(10, 1, 0.5)), "each count the same"),
        (without_a_mean, "add up to 0"),
        (
            lambda r, G: np.where(np.isnan(r).any(axis=1), 0, by_hand(r, G, weights=(1, 1, 1))),
            "silences the other",
        ),
        (lambda r, G: r[:, 3], "IndexError"),
    ],
)
def test_wrong_aggregator_is_refused_for_its_reason(function, says, capsys):
    assert aggregator.check_aggregator(function) is False
    assert re.search(says, capsys.readouterr().out)
