"""What is guaranteed of every drawn case, over thousands of each set: literal transcriptions, no code of the drawing.

Run: pytest tests/clinic/test_guarantees.py
"""

import re
from collections import Counter
from itertools import combinations

import numpy as np
import pytest
from clinic_tables import NUMBERS, literal_weight, rows

from clinical_r1.clinic import cases as cases_module
from clinical_r1.clinic.cases import LEVELS, SPLIT_SHARES, draw_cases
from clinical_r1.clinic.knowledge import knowledge_base
from clinical_r1.files import ROOT

CASES = {name: draw_cases(name, "validation", 1000) + draw_cases(name, "pretrain", 1000) for name in LEVELS}
EACH = pytest.mark.parametrize("name", LEVELS)
FAMILY = {row["condition"]: row["family"] for row in rows("conditions")}
BESIDE = {row["family"]: row["beside"] for row in rows("families")}
KIND = {row["finding"]: row["kind"] for row in rows("findings")}
IMPLIES = {row["finding"]: [f for f in row["implies"].split("|") if f] for row in rows("findings")}
EXCLUDED = [
    {(row["finding"], row["state"] == "present"), (row["other"], row["other_state"] == "present")}
    for row in rows("exclusions")
]


def weight(statement, condition, options):
    return literal_weight(*statement, condition, options)


def implied(findings):
    """The findings, and all that follows from their presence."""
    reached = set(findings)
    while more := {g for f in reached for g in IMPLIES[f]} - reached:
        reached |= more
    return reached


REACHED = {finding: implied([finding]) for finding in IMPLIES}


@EACH
def test_no_stated_finding_argues_against_the_answer(name):
    for case in CASES[name]:
        assert min(weight(s, case.gold, case.options) for s in case.stated) >= 0, case
        for finding in implied(f for f, present in case.stated if present):
            assert weight((finding, True), case.gold, case.options) >= 0, (finding, case)


@EACH
def test_the_answer_has_the_best_net_evidence_by_two(name):
    for case in CASES[name]:
        net = {o: sum(weight(s, o, case.options) for s in case.stated) for o in case.options}
        assert all(net[o] <= net[case.gold] - 2 for o in case.distractors), case
        assert net == {o: case.net(o) for o in case.options}


@EACH
def test_something_brings_the_patient(name):
    """A symptom or a sign of the answer is stated: nobody comes with a risk or a test alone."""
    for case in CASES[name]:
        kinds = {KIND[f] for f, p in case.stated if weight((f, p), case.gold, case.options) > 0}
        assert kinds & {"symptom", "sign"}, case


@EACH
def test_every_wrong_option_is_rejected_or_has_nothing_for_it(name):
    rejected, page = [], (ROOT / "docs" / "clinic.md").read_text(encoding="utf-8")
    for case in CASES[name]:
        for other in case.distractors:
            weights = [weight(s, other, case.options) for s in case.stated]
            rejected.append(min(weights) < 0)
            assert min(weights) < 0 or max(weights) <= 0, (other, case)
    assert np.mean(rejected) >= (0.8 if LEVELS[name].options == 4 else 0.5)
    validation = 300 * (LEVELS[name].options - 1)  # the whole set stands first
    (said,) = re.findall(rf"([\d.]+) %(?: of the wrong options)? on `{name}`", page)
    assert (
        f"{100 * np.mean(rejected[:validation]):.1f}" == said
        and "in the 300 validation cases of each" in page
    )


@EACH
def test_nothing_stated_contradicts_or_repeats_another(name):
    for case in CASES[name]:
        assert len({f for f, _ in case.stated}) == len(case.stated)
        present = implied(f for f, p in case.stated if p)
        absent = {f for f, p in case.stated if not p}
        absent |= {f for f, reached in REACHED.items() if reached & absent}
        assert not present & absent, case
        said = {(f, True) for f in present} | {(f, False) for f in absent}
        assert not [pair for pair in EXCLUDED if pair <= said], case
        for one, other in combinations([f for f, p in case.stated if p], 2):
            assert other not in REACHED[one] and one not in REACHED[other], case


@EACH
def test_lures_speak_for_a_rejected_option_and_need_no_explanation(name):
    """Never a rival's specific finding; without a row for the answer, no test, no cardinal complaint, several conditions'."""
    owners = Counter(finding for (_, finding), row in NUMBERS.items() if int(row["present"]) > 0)
    cardinal = {finding for (_, finding), row in NUMBERS.items() if int(row["absent"]) < 0}
    lures, page = np.zeros(len(CASES[name]), int), (ROOT / "docs" / "clinic.md").read_text(encoding="utf-8")
    for i, case in enumerate(CASES[name]):
        for finding, present in case.stated:
            if present and weight((finding, True), case.gold, case.options) == 0:
                lures[i] += 1
                weights = {o: weight((finding, True), o, case.options) for o in case.distractors}
                assert max(weights.values()) == 1, (finding, case)
                judged = (case.gold, finding) in NUMBERS
                assert judged or (
                    KIND[finding] != "test" and owners[finding] > 1 and finding not in cardinal
                ), case
    assert len(lures) < sum(lures) and max(lures) == 2
    assert (
        f"or none where none fits ({sum(lures[:300] == 0)} of the 300 validation cases of each set)" in page
    )


@EACH
def test_negatives_are_few_and_such_as_a_reader_asks_for(name):
    for case in CASES[name]:
        absent = [f for f, present in case.stated if not present]
        assert len(absent) <= LEVELS[name].negatives <= 4
        for finding in absent:
            assert any(weight((finding, False), o, case.options) < 0 for o in case.distractors), (
                finding,
                case,
            )


@EACH
def test_levels_are_what_they_say(name):
    level = LEVELS[name]
    for case in CASES[name]:
        assert len(set(case.options)) == len(case.options) == level.options and case.gold in case.options
        families = {FAMILY[case.gold], BESIDE[FAMILY[case.gold]]}
        assert {FAMILY[option] for option in case.options} <= families
        supporting = [s for s in case.stated if weight(s, case.gold, case.options) > 0]
        assert level.supports[0] <= len(supporting) <= level.supports[1]
        if level.hide_tests:
            assert all(KIND[f] != "test" for f, _ in case.stated)
        if level.hide_hallmarks:
            assert all(weight(s, case.gold, ()) < 2 for s in case.stated)


@EACH
@pytest.mark.parametrize("split", SPLIT_SHARES)
def test_every_condition_occurs_in_every_set(name, split):
    counts = Counter(case.gold for case in draw_cases(name, split, 120))
    assert len(counts) == len(FAMILY) and min(counts.values()) >= 2


def test_pairs_that_nothing_at_the_bedside_tells_apart_are_not_offered_where_tests_are_hidden():
    bedside = [(f, p) for f in KIND for p in (True, False) if KIND[f] != "test"]
    for case in CASES["clinic-shift"]:
        for other in case.distractors:
            pair = (case.gold, other)
            bedside = [(f, p) for f in KIND for p in (True, False) if KIND[f] != "test"]
            assert any(weight(s, other, pair) < 0 <= weight(s, case.gold, pair) for s in bedside), (
                other,
                case,
            )


def test_a_condition_that_cannot_be_drawn_is_named(monkeypatch):
    draw_case = cases_module.draw_case

    def without_gout(gold, *rest):
        return None if gold == "Gout" else draw_case(gold, *rest)

    monkeypatch.setattr(cases_module, "draw_case", without_gout)
    with pytest.raises(ValueError, match="Gout has no case in clinic/rl after .*clinic check"):
        draw_cases("clinic", "rl", 100)


def test_sets_are_as_large_as_the_comparisons_need():
    assert [cases_module.set_size(name, "test") for name in LEVELS] == [2000, 1000, 1000]
    assert len(draw_cases("clinic", "validation", 2000)) == 2000


def test_the_tables_are_the_knowledge_base():
    assert sum(map(len, knowledge_base().relations.values())) == len(NUMBERS)
