"""Measures of consultations: each against a consultation held by hand, None where nothing could be scored, never 0."""

import numpy as np
import pytest
from agent_patients import drawn, inquiries

from clinical_r1.agent.consultation import Consultation, Patient, Rules, information, posterior
from clinical_r1.agent.measures import SURE, coverage, measure, measures, summary
from clinical_r1.agent.policies import diagnose, greedy, guess, inquire, play
from clinical_r1.clinic.knowledge import knowledge_base
from clinical_r1.intervals import mean_interval, wilson_interval

RULES = Rules().with_costs(ask=0.01, examine=0.02, test=0.04)
KB = knowledge_base()


def patient() -> Patient:
    return drawn("rl", 300)[0]


def wrong(patient: Patient) -> str:
    return next(option for option in patient.options if option != patient.gold)


def of(rows, name):
    return next(row for row in rows if row["measure"] == name)


def test_a_record_counts_what_happened():
    one = patient()
    f = list(one.findings)[0]
    texts = [
        inquire(one.gold, f),
        inquire(wrong(one), f),
        "what is it",
        f"suspect Nobody diagnose {one.gold}",
        diagnose(one.gold),
    ]
    found = measure(one, RULES, texts)
    cost = RULES.costs[one.menu[next(iter(one.menu))][1]] + 3 * 0.1
    assert (found["right"], found["answered"], found["turns"]) == (True, True, 5)
    assert found["asks"] + found["examinations"] + found["tests"] == 1
    assert found["cost"] == pytest.approx(cost) and found["return"] == pytest.approx(1 - cost)
    assert (found["repeats"], found["invalid"]) == (1 / 5, 3 / 5)
    assert found["hypotheses"] == [True, False, None, None, True]
    assert found["id"] == one.id


def test_information_gain_is_the_fall_of_entropy():
    for one in drawn("rl", 300)[:10]:
        texts = [*inquiries(one)[:3], diagnose(one.options[0])]
        complaint = dict.fromkeys(one.complaint, True)
        known = complaint | {f: one.findings[f] for f in list(one.findings)[:3]}
        expected = information(posterior(one, complaint)) - information(posterior(one, known))
        assert measure(one, RULES, texts)["information_gain"] == pytest.approx(expected, abs=1e-12)


def test_every_verb_is_counted_under_its_name():
    for one in drawn("rl", 300)[:10]:
        found = measure(one, Rules(horizon=9), [*inquiries(one), diagnose(one.gold)])
        verbs = [verb for _, verb in one.menu.values()]
        assert [found[name] for name in ("asks", "examinations", "tests")] == [
            verbs.count(v) for v in ("ask", "examine", "test")
        ]


def test_coverage_is_of_what_speaks_for_the_diagnosis():
    for one in drawn("rl", 300)[:20]:
        telling = [f for f in one.findings if KB.weight(f, True, one.gold, one.options) > 0]
        others = [f for f in one.findings if f not in telling]
        if telling:
            assert coverage(one, one.findings) == 1
            assert coverage(one, [*telling[:1], *others]) == pytest.approx(1 / len(telling))
            assert coverage(one, others) == 0
    bare = Patient("bare", one.gold, one.options, one.complaint, {f: one.findings[f] for f in others})
    assert coverage(bare, []) is None


def test_a_wrong_diagnosis_is_premature_only_while_turns_and_doubt_are_left():
    unsure = patient()
    best = max(posterior(unsure, dict.fromkeys(unsure.complaint, True)))
    assert best < SURE
    early = Rules(earliest=1)

    def premature(one, rules, texts):
        return measure(one, rules, texts)["premature_closure"]

    assert premature(unsure, early, [diagnose(wrong(unsure))]) is True
    assert premature(unsure, early, [diagnose(unsure.gold)]) is False  # right, by luck
    assert premature(unsure, Rules(horizon=1, earliest=1), [diagnose(wrong(unsure))]) is False  # no turn left
    assert premature(unsure, early, ["nothing"] * 5) is None  # no diagnosis
    whole = Rules(horizon=9, earliest=1)
    one = next(p for p in drawn("rl", 300) if max(posterior(p, all_of(p))) > SURE)
    assert premature(one, whole, [*inquiries(one), diagnose(wrong(one))]) is False  # doubt is gone


def all_of(patient: Patient) -> dict[str, bool]:
    return patient.findings | dict.fromkeys(patient.complaint, True)


def test_an_unanswered_consultation_is_not_right_and_not_premature():
    found = measure(patient(), RULES, ["nothing"] * 5)
    assert (found["right"], found["answered"], found["premature_closure"]) == (False, False, None)
    assert (
        found["hypotheses"] == [None] * 5
        and found["information_gain"] == 0
        and found["return"] == pytest.approx(-0.5)
    )


def test_what_a_policy_played_is_measured_from_its_texts_alone():
    for one in drawn("rl", 300)[:10]:
        turns = play(one, RULES, greedy, np.random.default_rng(0)).turns
        texts, seen = [t.text for t in turns], [t.observation for t in turns]
        assert measures([(one, RULES, texts), (one, RULES, texts, seen)]) == [measure(one, RULES, texts)] * 2


def test_a_transcript_that_does_not_fit_is_refused():
    one = patient()
    texts = [*inquiries(one)[:2], diagnose(one.gold)]
    consultation = Consultation(one, Rules())
    seen = [consultation.step(text) for text in texts]
    assert measure(one, Rules(), texts, seen)["right"]
    with pytest.raises(ValueError, match="turn 1 of"):
        measure(one, RULES, texts, seen)  # other costs
    with pytest.raises(ValueError, match="2 observations for 3 turns"):
        measure(one, Rules(), texts, seen[:2])
    with pytest.raises(ValueError, match="not over after 2 turns"):
        measure(one, Rules(), texts[:2])
    with pytest.raises(ValueError, match="not over after 0 turns"):
        measure(one, Rules(), [])
    with pytest.raises(ValueError, match="is over"):
        measure(one, Rules(), [*texts, texts[0]])


def test_the_table_has_the_intervals_of_the_house():
    records = []
    for one in drawn("rl", 300)[:40]:
        records.append(
            measure(one, RULES, [t.text for t in play(one, RULES, guess, np.random.default_rng(0)).turns])
        )
    rows, ids = summary(records), [record["id"] for record in records]
    for name, share in (("right", True), ("cost", False), ("information_gain", False)):
        values = np.array([float(record[name]) for record in records])
        row = of(rows, name)
        assert (row["n"], row["value"]) == (40, pytest.approx(values.mean()))
        assert (row["low"], row["high"]) == pytest.approx(mean_interval(values, clusters=ids, share=share))
    answered = of(rows, "answered")
    assert answered["value"] == 1 and answered["low"] <= wilson_interval(40, 40)[0] and answered["high"] == 1
    for row in rows:
        assert row["low"] <= row["value"] <= row["high"]
    assert of(rows, "turns")["value"] == 3 and of(rows, "hypothesis_right_turn_3")["n"] == 40


def test_a_patient_who_came_often_counts_once():
    records = [
        measure(one, RULES, [*inquiries(one)[:2], diagnose(one.options[0])]) for one in drawn("rl", 300)[:15]
    ]
    once, often = of(summary(records), "return"), of(summary(records * 4), "return")
    assert often["n"] == 60 and once["value"] == pytest.approx(often["value"])
    assert often["high"] - often["low"] == pytest.approx(once["high"] - once["low"])


def test_nothing_scored_is_none_and_never_zero():
    nothing = {"n": 0, "value": None, "low": None, "high": None}
    assert all({k: row[k] for k in nothing} == nothing for row in summary([]))
    rows = summary([measure(patient(), RULES, ["nothing"] * 5)])
    for name in ("premature_closure", "hypothesis_right_turn_1"):
        assert {k: of(rows, name)[k] for k in nothing} == nothing
    single = of(rows, "return")
    assert single["n"] == 1 and single["low"] is None and single["high"] is None
    assert of(rows, "right")["value"] == 0 and of(rows, "right")["n"] == 1


def test_seeds_are_crossed_with_patients():
    some = drawn("rl", 300)[:12]
    records, seeds = [], []
    for seed, option in enumerate((0, 1, 2)):
        for one in some:
            records.append(measure(one, RULES, [*inquiries(one)[:2], diagnose(one.options[option])]))
            seeds.append(seed)
    row = of(summary(records, seeds), "right")
    values, ids = [float(r["right"]) for r in records], [r["id"] for r in records]
    assert (row["low"], row["high"]) == pytest.approx(mean_interval(values, 0.95, ids, seeds, share=True))
    with pytest.raises(ValueError, match="2 seeds for 36 records"):
        summary(records, [0, 1])
