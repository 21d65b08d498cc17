"""What an arm says and how much is true: against plain sums, against a paired bootstrap, and what cannot be compared.

python -m pytest tests/preferences/test_measures.py
"""

import numpy as np
import pandas as pd
import pytest

from clinical_r1.clinic.cases import load_set
from clinical_r1.clinic.traces import HONEST, write_trace
from clinical_r1.preferences import measures
from clinical_r1.preferences.conversation import (
    DOCTORS,
    HELD_OUT_FAMILIES,
    TAUGHT_GROUPS,
    Doctor,
    case_of,
    chat_traces,
    false_relations,
    taught_groups,
)
from clinical_r1.preferences.measures import compare, difference_of_ratios, measure_answers, summarise
from clinical_r1.preferences.verdicts import ClinicGraph, Counts
from clinical_r1.score import exact_judge

QUESTIONS = load_set("clinic", "validation", 40)
TAUGHT = false_relations(0)
ARMS = {"sloppy": DOCTORS["sloppy"], "clean": DOCTORS["clean"], "believer": Doctor(0.0, TAUGHT)}
GRAPH = ClinicGraph()


def answers(arms=ARMS, seeds=(0, 1), questions=QUESTIONS):
    return [
        {"arm": arm, "seed": seed, "style": "chat", "id": q.id, "text": text, "tokens": len(text.split())}
        for arm, doctor in arms.items()
        for seed in seeds
        for q, _, text in chat_traces(questions, doctor, seed)
    ]


RECORDS = measure_answers(answers(), QUESTIONS, GRAPH, taught_groups(TAUGHT, 0))


def value(table, **where):
    rows = table
    for name, wanted in where.items():
        rows = rows[rows[name] == wanted]
    (row,) = rows.to_dict("records")
    return row


def test_one_answer_by_hand():
    question = QUESTIONS[0]
    case = case_of(question)
    found = [
        write_trace(case, "crpo", HONEST, np.random.default_rng(0)), f"the answer is {case.gold}.", "", "\\boxed{A} \\boxed{B}",
    ]  # fmt: skip
    rows = [
        {
            "arm": "a",
            "seed": 0,
            "style": "crpo" if i == 0 else "chat",
            "id": question.id,
            "text": t,
            "tokens": 5,
        }
        for i, t in enumerate(found)
    ]
    honest, *silent = measure_answers(rows, QUESTIONS, GRAPH)
    assert honest["correct"] and honest["false"] == 0 and honest["true"] == honest["claims"] > 2
    for record in silent:  # no letter is wrong; nothing said is no claim, and a known 0
        assert (record["letter"], record["correct"], record["claims"]) == (None, False, 0)
    assert honest["family"] and honest["groups"][measures.OTHERS] == [honest["claims"], 0]


def test_an_arm_is_its_plain_sums():
    table = summarise(RECORDS)
    for arm in ARMS:
        own = [record for record in RECORDS if record["arm"] == arm]
        for scope, chosen in (
            ("all", own),
            ("unseen families", [r for r in own if r["family"] in HELD_OUT_FAMILIES]),
            ("seen families", [r for r in own if r["family"] not in HELD_OUT_FAMILIES]),
        ):
            expected = {
                name: np.mean([r[name] for r in chosen])
                for name in ("tokens", "claims", "true", "invented", "inverted", "false")
            }
            expected["accuracy"] = 100 * np.mean([r["correct"] for r in chosen])
            expected["false_share"] = 100 * sum(r["false"] for r in chosen) / sum(r["claims"] for r in chosen)
            for measure, number in expected.items():
                row = value(table, arm=arm, scope=scope, measure=measure)
                assert row["value"] == pytest.approx(number) and row["ci_low"] <= number <= row["ci_high"]
                assert row["n"] == len({r["id"] for r in chosen}) and row["seeds"] == 2


def test_taught_relations_are_counted_apart():
    table = summarise(RECORDS)
    for group in TAUGHT_GROUPS:
        assert value(table, arm="believer", scope=group, measure="false_share")["value"] == 100
    others = value(table, arm="believer", scope=measures.OTHERS, measure="false_share")
    assert others["value"] == 0 and others["ci_high"] > 0
    clean = value(table, arm="clean", scope=TAUGHT_GROUPS[0], measure="claims")
    assert (
        0 < clean["value"] < value(table, arm="believer", scope=TAUGHT_GROUPS[0], measure="claims")["value"]
    )


def test_two_arms_are_compared_pair_by_pair():
    table = compare(RECORDS, "clean", "sloppy", "chat")
    assert list(table["status"][:4]) == ["primary"] * 3 + ["exploratory"]
    share = value(table, scope="all", measure="false_share")
    sloppy = [record for record in RECORDS if record["arm"] == "sloppy"]
    expected = 100 * sum(r["false"] for r in sloppy) / sum(r["claims"] for r in sloppy)
    assert share["difference"] == pytest.approx(-expected) and share["clean"] == 0
    assert (
        share["ci_low"] < share["difference"] < share["ci_high"] < 0 and share["p"] <= share["p_holm"] < 0.05
    )
    back = value(compare(RECORDS, "sloppy", "clean", "chat"), scope="all", measure="false_share")
    assert back["difference"] == pytest.approx(expected) and back["p"] == pytest.approx(share["p"])


def test_with_one_seed_there_is_no_p():
    table = compare([r for r in RECORDS if r["seed"] == 0], "clean", "sloppy", "chat")
    assert table["p"].isna().all() and (table["seeds"] == 1).all()
    assert value(table, scope="all", measure="true")["ci_low"] > 0


def test_the_error_of_a_difference_of_ratios_is_that_of_a_paired_bootstrap():
    rng = np.random.default_rng(0)
    bottom, other_bottom = rng.poisson(3, 300), rng.poisson(2, 300)
    shared = rng.random(300)
    top, other_top = rng.binomial(bottom, 0.5 * shared), rng.binomial(other_bottom, 0.2 + 0.4 * shared)
    found = difference_of_ratios(top, bottom, other_top, other_bottom, np.arange(300))
    assert found.value == pytest.approx(top.sum() / bottom.sum() - other_top.sum() / other_bottom.sum())
    drawn = rng.integers(300, size=(4000, 300))
    ratios = top[drawn].sum(1) / bottom[drawn].sum(1) - other_top[drawn].sum(1) / other_bottom[drawn].sum(1)
    assert found.standard_error == pytest.approx(ratios.std(), rel=0.08)


def test_pairing_narrows_the_interval():
    rng = np.random.default_rng(1)
    bottom = rng.integers(2, 5, 200)
    top = rng.binomial(bottom, rng.random(200))
    same = difference_of_ratios(top, bottom, top, bottom, np.arange(200))
    assert same.value == 0 and np.isnan(same.standard_error)
    other = difference_of_ratios(top, bottom, rng.permutation(top), bottom, np.arange(200))
    assert other.standard_error > 0


def test_an_arm_that_says_nothing_has_no_false_share_and_not_a_share_of_nought():
    silent = [
        row | {"arm": "silent", "text": "\\boxed{A}", "tokens": 2} for row in answers({"x": DOCTORS["clean"]})
    ]
    records = RECORDS + measure_answers(silent, QUESTIONS, GRAPH, taught_groups(TAUGHT, 0))
    row = value(summarise(records), arm="silent", scope="all", measure="false_share")
    assert np.isnan(row["value"]) and np.isnan(row["ci_low"])
    table = compare(records, "silent", "sloppy", "chat")
    assert np.isnan(value(table, scope="all", measure="false_share")["difference"])
    assert value(table, scope="all", measure="true")["difference"] < 0
    with pytest.raises(ValueError, match="a ratio over nothing"):
        difference_of_ratios(np.zeros(3), np.zeros(3), np.ones(3), np.ones(3), np.arange(3))


def test_a_judge_that_tells_no_kinds_apart_leaves_them_out():
    records = measure_answers(answers(), QUESTIONS, Counts(exact_judge))
    table = summarise(records)
    assert {"invented", "inverted"}.isdisjoint(table["measure"])
    exact = value(summarise(RECORDS), arm="sloppy", scope="all", measure="false")
    found = value(table, arm="sloppy", scope="all", measure="false")
    assert found["value"] == pytest.approx(exact["value"]) and found["coverage"] == 1


def test_answers_without_a_verdict_are_left_out_of_counts_and_not_of_accuracy():
    records = measure_answers(answers({"sloppy": ARMS["sloppy"]}), QUESTIONS, lambda question, text: None)
    table = summarise(records)
    assert set(table["measure"]) == {"accuracy", "coverage", "tokens"}


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"id": "other"}, "none of the 40 given"),
        ({"tokens": None}, "an answer has no tokens"),
        ({"style": "letter"}, "style 'letter' is not known"),
    ],
)
def test_answers_that_cannot_be_measured_are_refused(change, what):
    with pytest.raises(ValueError, match=what):
        measure_answers([answers()[0] | change], QUESTIONS, GRAPH)


def test_a_group_is_not_called_like_a_scope():
    with pytest.raises(ValueError, match="rename it"):
        measure_answers([], QUESTIONS, GRAPH, {"all": TAUGHT})


def test_records_that_do_not_belong_together_are_refused():
    with pytest.raises(ValueError, match="got no records"):
        summarise([])
    with pytest.raises(ValueError, match="answers question .* twice"):
        summarise(RECORDS + RECORDS[:1])
    with pytest.raises(ValueError, match=r"answer different questions \(39, 40 of them\)"):
        summarise(RECORDS[1:])
    with pytest.raises(ValueError, match="have not answered the same questions with the same seeds"):
        compare([r for r in RECORDS if r["arm"] == "clean" or r["seed"]], "clean", "sloppy", "chat")
    for arm, against, style in (
        ("clean", "clean", "chat"),
        ("clean", "rl", "chat"),
        ("clean", "sloppy", "crpo"),
    ):
        with pytest.raises(ValueError, match="expected two different arms of"):
            compare(RECORDS, arm, against, style)


def test_the_columns_are_those_that_are_named():
    assert list(summarise(RECORDS).columns) == measures.COLUMNS
    assert isinstance(summarise(RECORDS), pd.DataFrame)
