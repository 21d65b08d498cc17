"""A judge against exact counts: by hand, against plain loops, and the faults of the scripted judges.

python -m pytest tests/judges/test_calibration.py
"""

import numpy as np
import pandas as pd
import pytest
from records import rng
from scipy import stats

from clinical_r1.clinic.cases import Case, load_set
from clinical_r1.clinic.traces import BASE, HONEST, teaching_completions, write_trace
from clinical_r1.clinic.verdicts import measure
from clinical_r1.judges import calibration
from clinical_r1.metrics import PROCESS_METRICS

QUESTIONS = load_set("clinic", "validation", 40)


def counts(values, name="drc"):
    return [{name: value} for value in values]


def case_of(question):
    return Case.from_json(question.meta["case"])


def written(habits, seed=0):
    return [
        write_trace(case_of(q), "crpo", habits, np.random.default_rng([seed, i]))
        for i, q in enumerate(QUESTIONS)
    ]


def exact_counts(texts):
    return [measure(text, case_of(q)) for q, text in zip(QUESTIONS, texts, strict=True)]


def judged(judge, texts):
    return [judge(q, text) for q, text in zip(QUESTIONS, texts, strict=True)]


# --- agreement


def test_agreement_by_hand():
    judge, exact = [1, 2, 2, 5, 0], [0, 1, 2, 4, 0]
    row = calibration.agreement(counts(judge), counts(exact), rng(), ["drc"]).iloc[0]
    # squared gaps 1, 1, 0, 1, 0: 3 of 5; between all 25 pairs of a judge's and an exact count: 2 * 5 * (34 + 21) - 2 * 10 * 7
    assert row["kappa"] == pytest.approx(1 - (3 / 5) / ((5 * (34 + 21) - 2 * 10 * 7) / 25))
    assert (row["n"], row["coverage"], row["bias"]) == (5, 1.0, pytest.approx(3 / 5))
    assert row["slope"] == pytest.approx((26 - 10 * 7 / 5) / (21 - 7**2 / 5))
    assert (row["judge_mean"], row["exact_mean"]) == (2.0, 1.4)


def test_intervals_agree_with_a_loop_over_the_libraries():
    exact = rng(1).integers(0, 5, size=60)
    judge = np.maximum(exact + rng(2).integers(-1, 3, size=60), 0)
    ids = np.repeat([f"q{i:02d}" for i in range(30)], 2)  # two completions a question, drawn together
    row = calibration.agreement(counts(judge), counts(exact), rng(3), ["drc"], ids=ids, reps=200).iloc[0]
    generator, draws = rng(3), []
    for _ in range(200):
        picked = np.concatenate([[2 * i, 2 * i + 1] for i in generator.integers(30, size=30)])
        x, y = judge[picked], exact[picked]
        draws.append([calibration._kappa(x, y), stats.linregress(y, x).slope])
    low, high = np.quantile(draws, [0.025, 0.975], axis=0)
    assert row[["kappa_low", "slope_low"]].tolist() == pytest.approx(low.tolist())
    assert row[["kappa_high", "slope_high"]].tolist() == pytest.approx(high.tolist())
    by_question = (judge - exact).reshape(30, 2).mean(axis=1)  # a bias is a mean: Student's t, nothing drawn
    bounds = stats.ttest_1samp(by_question, 0.0).confidence_interval(0.95)
    assert (row["bias_low"], row["bias_high"]) == pytest.approx(tuple(bounds))
    again = calibration.agreement(counts(judge), counts(exact), rng(3), ["drc"], ids=ids, reps=200).iloc[0]
    pd.testing.assert_series_equal(row, again)


def test_the_exact_judge_agrees_with_itself():
    exact = exact_counts(written(BASE))
    table = calibration.agreement(exact, exact, rng())
    assert table["measure"].tolist() == list(PROCESS_METRICS) and (table["bias"] == 0).all()
    varied = table[table["kappa"].notna()]
    assert {"faithfulness", "cecd", "drc", "hallucination"} <= set(varied["measure"])
    assert varied[["kappa", "slope"]].to_numpy() == pytest.approx(1.0)
    assert (
        varied[["kappa_low", "slope_high"]].isna().all(axis=None)
    )  # no draw differs: nothing can be said of others
    assert (table["bias_low"] < 0).all() and (table["bias_high"] > 0).all()


def test_a_missing_verdict_is_not_zero():
    row = calibration.agreement(counts([2, None, 4, 9]), counts([2, 3, 4, None]), rng(), ["drc"]).iloc[0]
    assert (row["n"], row["coverage"], row["bias"]) == (2, pytest.approx(2 / 3), 0.0)
    row = calibration.agreement([{}] * 3, counts([1, 2, 3]), rng(), ["drc"]).iloc[0]
    assert (row["n"], row["coverage"]) == (0, 0.0) and row.drop(
        ["measure", "n", "coverage", "interval"]
    ).isna().all()


@pytest.mark.parametrize(
    ("judge", "exact", "kappa", "slope"),
    [
        ([1, 2, 3], [2, 2, 2], np.nan, np.nan),  # nothing to tell apart
        ([2, 2, 2], [2, 2, 2], np.nan, np.nan),
        ([2, 2, 2], [1, 2, 3], 0.0, 0.0),  # a judge that always says the same
        ([4], [4], np.nan, np.nan),
        ([0, 10**6], [0, 1], 1.000001e-6, 1e6),
    ],
)
def test_constant_columns_and_absurd_counts_raise_nothing(judge, exact, kappa, slope):
    row = calibration.agreement(counts(judge), counts(exact), rng(), ["drc"], reps=50).iloc[0]
    assert (row["kappa"], row["slope"]) == pytest.approx((kappa, slope), nan_ok=True)
    assert row["bias"] == pytest.approx(np.mean(judge) - np.mean(exact))


def test_agreement_refuses_other_completions():
    with pytest.raises(ValueError, match="got 2 and 3 verdicts"):
        calibration.agreement(counts([1, 2]), counts([1, 2, 3]), rng())
    with pytest.raises(ValueError, match="1 ids for 2 completions"):
        calibration.agreement(counts([1, 2]), counts([1, 2]), rng(), ids=["a"])


# --- two methods in order


def test_ordering_by_hand():
    exact = {"crpo": counts([2, 3, 2, 3] * 2), "grpo": counts([1, 1, 1, 1] * 2)}
    biased = {
        "crpo": counts([9, 9, 9, 9] * 2),
        "grpo": counts([7, 7, 8, 8] * 2),
    }  # far off, and in the right order
    blind = {"crpo": counts([2, 1, 2, 1] * 2), "grpo": counts([1, 2, 1, 2] * 2)}
    swapped = {"crpo": exact["grpo"], "grpo": exact["crpo"]}
    got = {
        name: calibration.ordering(judge, exact, ["drc"]).iloc[0]
        for name, judge in {"biased": biased, "blind": blind, "swapped": swapped}.items()
    }
    assert [row["order"] for row in got.values()] == ["same", "judge undecided", "reversed"]
    assert (got["biased"]["judged"], got["biased"]["exact"], got["biased"]["n"]) == (1.5, 1.5, 8)
    assert (got["biased"]["method"], got["biased"]["against"]) == ("crpo", "grpo")
    assert calibration.ordering(biased, blind, ["drc"]).iloc[0]["order"] == "exact undecided"
    assert calibration.ordering(biased, exact, ["cecd"]).iloc[0]["order"] == "no verdict"


def test_ordering_refuses_other_methods_and_other_questions():
    pair = {"crpo": counts([1]), "grpo": counts([1])}
    with pytest.raises(ValueError, match="same two methods"):
        calibration.ordering(pair, {"crpo": counts([1])})
    with pytest.raises(ValueError, match="got 1 and 2 verdicts"):
        calibration.ordering(pair, {"crpo": counts([1]), "grpo": counts([1, 2])})


# --- scripted judges


def test_the_claim_counter_cannot_see_inventions():
    texts = [teaching_completions(case_of(q))["right, but invents evidence"] for q in QUESTIONS]
    truth, verdicts = exact_counts(texts), judged(calibration.claim_counter, texts)
    assert sum(t["hallucination"] for t in truth) >= len(QUESTIONS) and all(
        v["hallucination"] == 0 for v in verdicts
    )
    assert sum(t["faithfulness"] for t in truth) == 0 and all(v["faithfulness"] >= 1 for v in verdicts)
    # where every claim is true it is right about every measure that it can see
    honest = written(HONEST)
    table = calibration.agreement(judged(calibration.claim_counter, honest), exact_counts(honest), rng())
    assert table.set_index("measure").loc[["faithfulness", "hallucination", "drc"], "bias"].tolist() == [
        0,
        0,
        0,
    ]


def test_the_length_judge_pays_for_words():
    question = QUESTIONS[0]
    short, long = (calibration.length_judge(question, "word " * n) for n in (9, 90))
    assert set(short.values()) == {0} and set(long.values()) == {9} and set(long) == set(PROCESS_METRICS)


def test_the_noisy_judge_errs_at_its_rate_and_repeats_itself():
    texts = written(HONEST)
    exact = exact_counts(texts)
    assert judged(calibration.noisy_judge(0.0), texts) == exact
    first = judged(calibration.noisy_judge(0.3), texts)
    assert (
        first
        == judged(calibration.noisy_judge(0.3), texts)
        != judged(calibration.noisy_judge(0.3, seed=1), texts)
    )
    assert judged(calibration.noisy_judge(0.3), texts[::-1])[::-1] != first  # other questions, other errors
    row = calibration.agreement(first, exact, rng(), ["faithfulness"]).iloc[0]
    assert row["bias"] == pytest.approx(0.3 - 0.3 * row["exact_mean"], abs=0.5)
    assert all(set(v.values()) == {1} for v in judged(calibration.noisy_judge(1.0), texts))
    calibration.noisy_judge(0.3)(QUESTIONS[0], "a lone surrogate \ud800")
    with pytest.raises(ValueError, match=r"rate 1\.5"):
        calibration.noisy_judge(1.5)


def test_the_table_tells_the_judges_apart():
    texts = written(BASE) + written(HONEST)
    questions, exact = QUESTIONS * 2, exact_counts(written(BASE)) + exact_counts(written(HONEST))
    judges = {
        "claims": calibration.claim_counter,
        "length": calibration.length_judge,
        "noisy": calibration.noisy_judge(0.1),
    }
    verdicts = {
        name: [judge(q, text) for q, text in zip(questions, texts, strict=True)]
        for name, judge in judges.items()
    }
    table = calibration.agreement_table(verdicts, exact, rng(), ids=[q.id for q in questions])
    assert len(table) == 24 and table.columns.tolist() == ["judge", *calibration.AGREEMENT_COLUMNS]
    kappa = table.set_index(["judge", "measure"])["kappa"]
    assert kappa["noisy", "faithfulness"] > 0.8 > 0.5 > kappa["length", "faithfulness"]
    assert kappa["claims", "hallucination"] == pytest.approx(0) and kappa["noisy", "hallucination"] > 0.4
