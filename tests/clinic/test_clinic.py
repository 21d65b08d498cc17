"""The synthetic clinic: guarantees over thousands of cases, exact verdicts against a slow literal checker, disjoint splits.

Run: pytest tests/clinic/test_clinic.py
"""

import os
import random
import re
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from clinic_tables import NUMBERS, literal_weight

from clinical_r1.clinic import base_model, traces
from clinical_r1.clinic.__main__ import main
from clinical_r1.clinic.base_model import PHASES, shorter_phases
from clinical_r1.clinic.cases import (
    LEVELS,
    SPLIT_SHARES,
    Case,
    draw_cases,
    load_set,
    phrase,
    split_of,
)
from clinical_r1.clinic.knowledge import STATUS, knowledge_base
from clinical_r1.clinic.traces import BASE, HONEST, TEACHER, first_impression, write_trace
from clinical_r1.clinic.verdicts import AGAINST, SUBGOALS, SUPPORTS, Claim, measure, read_claims, verdict
from clinical_r1.files import ROOT
from clinical_r1.questions import LETTERS

CASES = {name: draw_cases(name, "validation", 1000) for name in LEVELS}
ALL_CASES = [case for cases in CASES.values() for case in cases]


# ---------------------------------------------------------------------------------------------- the knowledge base


def test_the_knowledge_base_says_that_it_is_not_reviewed():
    assert "not clinically reviewed" in STATUS.lower() and "not medical advice" in STATUS.lower()


def test_size_and_families():
    kb = knowledge_base()
    assert len(kb.conditions) == 40 and len(kb.findings) >= 140
    assert all(len(family["members"]) == 5 for family in kb.families.values())


# ------------------------------------------------------------------------------------------------- cases and splits


def test_splits_share_no_combination_and_no_stem():
    combinations, stems = {}, {}
    for split in SPLIT_SHARES:
        for name in LEVELS:
            for question in load_set(name, split, 200):
                case = Case.from_json(question.meta["case"])
                assert split_of(case) == split
                supporting = frozenset(
                    f for f, p in case.stated if p and f in knowledge_base().supports(case.gold)
                )
                assert combinations.setdefault((case.gold, supporting), split) == split
                assert stems.setdefault(question.stem, split) == split


def test_shift_wording_is_held_out_from_training():
    held_out = {phrase(f, p, True) for f in knowledge_base().findings for p in (True, False)}
    for split in ("sft", "rl"):
        for question in load_set("clinic", split, 300):
            assert not held_out & set(question.stem.removeprefix("Patient: ").rstrip(".").split(", "))


def test_sets_are_seeded_and_nested():
    assert load_set("clinic", "test", 50) == load_set("clinic", "test", 120)[:50]
    assert load_set("clinic", "test", 50, seed=1) != load_set("clinic", "test", 50, seed=2)
    assert load_set("clinic", "test", 5)[0].meta["kb_sha256"] == knowledge_base().sha256


def test_answers_are_spread_over_letters_and_conditions():
    questions = load_set("clinic", "test")
    letters = [question.answer for question in questions]
    assert all(0.18 < letters.count(letter) / len(letters) < 0.32 for letter in "ABCD")
    assert len({question.options[question.answer] for question in questions}) >= 38


def test_unknown_set_is_refused():
    with pytest.raises(ValueError, match="clinic-hard"):
        load_set("clinic-hard", "test")


# --------------------------------------------------------------------------------------------- claims and verdicts


def wordings():
    kb = knowledge_base()
    return {
        phrase(f, p, shift): (f, p) for f in kb.findings for p in (True, False) for shift in (True, False)
    }


def every_claim_sentence():
    """All that the grammar can say about one finding and one condition, spelled out: sentence -> claim."""
    verbs = {"supports": SUPPORTS, "argues against": AGAINST}
    return {
        f"{words} {verb} {condition}": Claim(*finding, direction, condition)
        for words, finding in wordings().items()
        for verb, direction in verbs.items()
        for condition in knowledge_base().conditions
    }


WORDINGS, SENTENCES = wordings(), every_claim_sentence()


def sentences(text):
    for mark in ("dx", "think", "conclusion", "answer"):
        text = text.replace(f"<{mark}>", ".").replace(f"</{mark}>", ".")
    for mark in ("(System 1: Intuitive)", "(System 2: Analytical)", "\\boxed", *traces.FILLERS):
        text = text.replace(mark, ".")
    return [part.strip() for part in text.split(".") if part.strip()]


def cited(body):
    """The findings of 'X' or 'X and Y', tried against every wording, since some wordings hold an 'and' themselves."""
    if body in WORDINGS:
        return [WORDINGS[body]]
    for words, finding in WORDINGS.items():
        rest = body.removeprefix(f"{words} and ")
        if rest != body and rest in WORDINGS:
            return [finding, WORDINGS[rest]]
    return []


def literal_claims(text):
    """Every sentence looked up in the list of all sentences; no pattern is involved."""
    found = set()
    for sentence in sentences(text):
        sentence = sentence.removeprefix("check: ")
        if sentence in SENTENCES:
            found.add(SENTENCES[sentence])
        body, favor, condition = sentence.partition(" favor ")
        if favor and condition in knowledge_base().conditions:
            found |= {Claim(*finding, SUPPORTS, condition) for finding in cited(body)}
    return found


def literal_behaviours(text, case):
    """Backtracking, chaining, subgoals and checks, sentence by sentence."""
    held, seen = None, {"back": set(), "chain": set(), "goal": set(), "check": set()}
    for sentence in sentences(text):
        if sentence.startswith("suspect "):
            held = sentence.removeprefix("suspect ")
        if sentence.startswith("on second thought consider "):
            new = sentence.removeprefix("on second thought consider ")
            if held is not None and new != held:
                seen["back"].add((held, new))
            held = new
        condition, expect, words = sentence.removeprefix("if ").partition(" then expect ")
        if expect and literal_weight(*WORDINGS[words], condition, case.options) > 0:
            seen["chain"].add((condition, words))
        if sentence in SUBGOALS:
            seen["goal"].add(sentence)
        if sentence.startswith("check: "):
            claim = SENTENCES[sentence.removeprefix("check: ")]
            if (claim.finding, claim.present) in case.stated:
                seen["check"].add(claim)
    return [len(found) for found in seen.values()]


def literal_verdict(claim, case):
    stated = [f for f, p in case.stated if p == claim.present]
    if claim.finding not in stated:
        return "contradicted_by_vignette"
    weight = literal_weight(claim.finding, claim.present, claim.condition, case.options)
    if weight == 0:
        return "unverifiable"
    return "true" if (weight > 0) == (claim.direction == 1) else "contradicted_by_kb"


def test_the_rule_on_rivals_reaches_verdicts():
    """A finding that is specific for an option argues against one it has no row with, and says nothing once it is not offered."""
    case = next(
        case
        for case in CASES["clinic"]
        for f, p in case.stated
        for o in case.distractors
        if p and (o, f) not in NUMBERS and literal_weight(f, p, o, case.options) == -2
    )
    finding, other = next(
        (f, o)
        for f, p in case.stated
        for o in case.distractors
        if p and (o, f) not in NUMBERS and literal_weight(f, p, o, case.options) == -2
    )
    assert verdict(Claim(finding, True, AGAINST, other), case) == "true"
    assert verdict(Claim(finding, True, SUPPORTS, other), case) == "contradicted_by_kb"
    alone = replace(case, options=(other,))
    assert verdict(Claim(finding, True, AGAINST, other), alone) == "unverifiable"


@pytest.mark.parametrize("habits", [BASE, TEACHER, HONEST], ids=["base", "teacher", "honest"])
def test_claims_verdicts_and_measures_agree_with_a_literal_checker(habits):
    rng = np.random.default_rng(0)
    for i, case in enumerate(ALL_CASES):
        text = write_trace(case, ("crpo", "grpo")[i % 2], habits, rng)
        claims = {claim: literal_verdict(claim, case) for claim in literal_claims(text)}
        assert set(read_claims(text)) == set(claims), text
        assert {claim: verdict(claim, case) for claim in claims} == claims
        of_options = {claim: found for claim, found in claims.items() if claim.condition in case.options}
        counted = measure(text, case)
        assert counted["faithfulness"] == sum(found == "true" for found in of_options.values())
        assert counted["cecd"] == sum((c.finding, c.present) in case.stated for c in of_options)
        assert counted["hallucination"] == sum(found.startswith("contradicted") for found in claims.values())
        rejected = {c.condition for c, v in of_options.items() if v == "true" and c.direction == AGAINST}
        assert counted["drc"] == len(rejected - {case.gold})
        names = ("backtracking", "backward_chaining", "subgoal_setting", "verification")
        assert [counted[name] for name in names] == literal_behaviours(text, case), text


def test_the_honest_policy_is_right_and_never_hallucinates():
    rng = np.random.default_rng(1)
    for case in ALL_CASES:
        text = write_trace(case, "crpo", HONEST, rng)
        counted = measure(text, case)
        assert f"\\boxed{{{case.letter}}}" in text
        assert counted["hallucination"] == 0
        assert counted["drc"] == min(
            sum(bool(case.evidence(other, AGAINST)) for other in case.distractors), traces.MAX_REJECTED
        )
        assert counted["verification"] == counted["backward_chaining"] == 1 and counted[
            "subgoal_setting"
        ] == len(SUBGOALS)
        assert counted["backtracking"] == (first_impression(case) != case.gold)


def gout_case():
    kb = knowledge_base()
    return next(case for case in CASES["clinic"] if case.gold == "Gout" and kb)


def test_each_verdict_by_hand():
    case = gout_case()
    finding, present = case.evidence("Gout", SUPPORTS)[0]
    unstated = next(f for f in knowledge_base().supports("Gout") if f not in dict(case.stated))
    assert verdict(Claim(finding, present, SUPPORTS, "Gout"), case) == "true"
    assert verdict(Claim(finding, present, AGAINST, "Gout"), case) == "contradicted_by_kb"
    assert (
        verdict(Claim(finding, not present, AGAINST, "Gout"), case) == "contradicted_by_vignette"
    )  # opposite stated
    assert verdict(Claim(unstated, True, SUPPORTS, "Gout"), case) == "contradicted_by_vignette"  # fabricated
    said, neutral = next(
        (said, condition)
        for said in case.stated
        for condition in knowledge_base().conditions
        if not literal_weight(*said, condition, case.options)
    )
    assert verdict(Claim(*said, SUPPORTS, neutral), case) == "unverifiable"


def test_repeating_a_claim_counts_once():
    case = gout_case()
    finding, present = case.evidence("Gout", SUPPORTS)[0]
    once = traces.claim_text(finding, present, SUPPORTS, "Gout", case)
    assert measure(once, case) == measure(f"{once} {once}", case)
    assert measure(once, case)["faithfulness"] == 1


def test_behaviours_must_be_real():
    case = gout_case()
    other = case.distractors[0]
    assert (
        measure("suspect Gout. on second thought consider Gout.", case)["backtracking"] == 0
    )  # nothing abandoned
    assert measure(f"suspect {other}. on second thought consider Gout.", case)["backtracking"] == 1
    assert (
        measure("on second thought consider Gout.", case)["backtracking"] == 0
    )  # no line of thought before it
    against = next(f for f, relation in knowledge_base().relations["Gout"].items() if relation.present < 0)
    assert measure(f"if Gout then expect {phrase(against, True)}.", case)["backward_chaining"] == 0
    assert measure("", case) == dict.fromkeys(measure("", case), 0)


def patterns():
    """The grammar as patterns, literally: every wording is tried at every character."""
    wordings, conditions = (
        "|".join(re.escape(item) for item in sorted(items, key=len, reverse=True))
        for items in (WORDINGS, knowledge_base().conditions)
    )
    finding, condition = f"(?<![\\w-])({wordings})", f"({conditions})(?![\\w-])"
    return [
        re.compile(pattern)
        for pattern in (
            f"{finding} (supports|argues against) {condition}",
            f"{finding}(?: and {finding})? favor {condition}",
            f"(?<![\\w-])(suspect|on second thought consider) {condition}",
            f"(?<![\\w-])if {condition} then expect {finding}(?![\\w-])",
            f"(?<![\\w-])check: {finding} (supports|argues against) {condition}",
        )
    ]


def garbled(rng, nested):
    """Scraps of the grammar in any order, glued with and without what ends a word."""
    names = list(knowledge_base().conditions)
    scraps = [
        lambda: " and ".join(rng.choice(nested) for _ in range(rng.randint(1, 3))),
        lambda: rng.choice(["supports", "argues against", "favor", "supports", "and", "check:", "then expect"]),
        lambda: rng.choice([*names[:6], "if", "suspect", "on second thought consider", "xif", "-suspect"]),
        lambda: f"{rng.choice(nested)} {rng.choice(['supports', 'argues against', 'favor'])} {rng.choice(names)}",
        lambda: f"if {rng.choice(names)} then expect {rng.choice(nested)}",
    ]  # fmt: skip
    return "".join(
        rng.choice(scraps)() + rng.choice([" "] * 6 + [". ", "-", "", "x", "_", "é ", "  "])
        for _ in range(rng.randint(1, 12))
    )


def test_garbled_sentences_are_read_as_patterns_read_them():
    rng = random.Random(0)
    claim, citation, hypothesis, chain, check = patterns()
    sign, read, case = {"supports": SUPPORTS, "argues against": AGAINST}, 0, ALL_CASES[0]
    everything = replace(case, stated=tuple(WORDINGS.values()))  # every check is of what is stated
    nested = [a for a in WORDINGS if " and " in a or any(a in b for b in WORDINGS if a != b)]
    for _ in range(2000):
        text = garbled(rng, nested)
        claims = [Claim(*WORDINGS[found], sign[verb], name) for found, verb, name in claim.findall(text)]
        for *found, name in citation.findall(text):
            claims += [Claim(*WORDINGS[words], SUPPORTS, name) for words in found if words]
        assert read_claims(text) == tuple(dict.fromkeys(claims)), text
        checks = {Claim(*WORDINGS[found], sign[verb], name) for found, verb, name in check.findall(text)}
        counted, pairs = measure(text, everything), chain.findall(text)
        assert counted["verification"] == len(checks), text
        supported = {(c, f) for c, f in pairs if literal_weight(*WORDINGS[f], c, case.options) > 0}
        assert counted["backward_chaining"] == len(supported), text
        held, back = None, set()
        for verb, name in hypothesis.findall(text):
            back |= {(held, name)} if verb != "suspect" and held not in (None, name) else set()
            held = name
        assert counted["backtracking"] == len(back), text
        read += len(claims) + len(checks) + len(pairs) + len(back)
    assert read > 2000


def test_longer_phrases_win():
    kb = knowledge_base()
    words = {phrase(f, p, s): (f, p) for f in kb.findings for p in (True, False) for s in (True, False)}
    nested = [(a, b) for a in words for b in words if a != b and f" {a} " in f" {b} "]
    for _, longer in nested:
        claims = read_claims(f"{longer} supports Gout.")
        assert [(c.finding, c.present) for c in claims] == [words[longer]], longer


def test_letters_follow_the_options():
    for case in ALL_CASES[:200]:
        assert case.options[LETTERS.index(case.letter)] == case.gold
        assert Case.from_json(case.to_json()) == case


# ---------------------------------------------------------------------------------------------- the command line


def test_pretrain_takes_the_steps_it_is_given(monkeypatch):
    given = []

    def pretrained(out, phases, **more):
        given.append((out, phases, *more.values()))

    monkeypatch.setattr(base_model, "pretrain_clinic_base", pretrained)
    assert main(["pretrain", "--out", "folder", "--steps", "40"]) == 0
    assert main(["pretrain", "--out", "folder"]) == 0
    assert main(["pretrain", "--out", "folder", "--seed", "102"]) == 0
    assert given == [("folder", shorter_phases(40)), ("folder", PHASES), ("folder", PHASES, 102)]


def test_show_ends_quietly_when_its_reader_wants_no_more():
    show = [sys.executable, "-m", "clinical_r1.clinic", "show", "clinic"]
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(show, stdout=writing, stderr=subprocess.PIPE, cwd=ROOT, text=True)
    os.close(writing)
    assert (done.returncode, done.stderr) == (0, "")


def test_show_prints_a_case_and_an_honest_answer(capsys):
    assert main(["show", "clinic", "--index", "1"]) == 0
    assert "Patient: " in (out := capsys.readouterr().out) and "\\boxed{" in out
