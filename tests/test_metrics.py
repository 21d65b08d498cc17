"""Intervals, tests and fronts, checked by hand arithmetic: python -m pytest tests/test_metrics.py"""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from records import QUESTIONS, cell, four_records, record, rng

from clinical_r1 import metrics, paper
from clinical_r1.settings import METHODS

# --- intervals and tests


def test_wilson_by_hand():
    # k=5, n=10, z=1.959964: centre .5, half-width z/(1+z²/n) * sqrt(.25/10 + z²/400) = .26341
    assert metrics.wilson_interval(5, 10) == pytest.approx((0.236593, 0.763407), abs=1e-6)
    low, high = metrics.wilson_interval(0, 10)
    assert low == 0.0 and high == pytest.approx(1.959964**2 / (10 + 1.959964**2), abs=1e-6)
    assert metrics.wilson_interval(10, 10) == pytest.approx((1 - high, 1.0), abs=1e-9)


@pytest.mark.parametrize(("k", "n"), [(0, 0), (3, 2), (-1, 5)])
def test_wilson_refuses(k, n):
    with pytest.raises(ValueError, match="expected 0 <= k <= n"):
        metrics.wilson_interval(k, n)


def test_bootstrap_same_rng_same_interval_and_other_rng_another():
    values = rng(3).normal(size=50)
    first = metrics.bootstrap_interval(values, rng(1))
    assert first == metrics.bootstrap_interval(values, rng(1))
    assert first != metrics.bootstrap_interval(values, rng(2))
    assert first[0] < values.mean() < first[1]


def test_bootstrap_agrees_with_a_plain_loop():
    values, clusters = np.array([0.0, 1.0, 1.0, 5.0, 2.0]), np.array(["a", "a", "b", "c", "c"])
    own = {name: values[clusters == name] for name in "abc"}
    draws, generator = [], rng(7)
    for picked in generator.integers(3, size=(400, 3)):
        draws.append(np.concatenate([own["abc"[i]] for i in picked]).mean())
    expected = np.quantile(draws, [0.025, 0.975])
    assert metrics.bootstrap_interval(values, rng(7), clusters=clusters, reps=400) == pytest.approx(
        tuple(expected)
    )


def test_copies_of_a_question_do_not_narrow_the_clustered_interval():
    values = rng(5).integers(0, 2, size=40).astype(float)
    copies, ids = np.tile(values, 25), np.tile(np.arange(40), 25)
    once = np.subtract(*metrics.bootstrap_interval(values, rng(), clusters=np.arange(40)))
    clustered = np.subtract(*metrics.bootstrap_interval(copies, rng(), clusters=ids))
    naive = np.subtract(*metrics.bootstrap_interval(copies, rng(), reps=500))
    assert clustered == pytest.approx(once)
    assert abs(naive) < abs(clustered) / 3


@pytest.mark.parametrize("values", [[], [1.0, np.nan], [[1.0]]])
def test_bootstrap_refuses_missing_values(values):
    with pytest.raises(ValueError, match="finite numbers"):
        metrics.bootstrap_interval(values, rng())


def test_bootstrap_refuses_clusters_of_another_length():
    with pytest.raises(ValueError, match="2 cluster labels for 3 values"):
        metrics.bootstrap_interval([1.0, 2.0, 3.0], rng(), clusters=["a", "b"])


def test_mcnemar_golden():
    # they disagree on 12 questions, 10 against 2: p = 2 (1 + 12 + 66) / 2**12
    a = [True] * 10 + [False] * 2 + [True] * 30
    b = [False] * 10 + [True] * 2 + [True] * 30
    assert metrics.mcnemar_exact(a, b) == pytest.approx(158 / 4096)
    assert metrics.mcnemar_exact(b, a) == pytest.approx(158 / 4096)
    assert metrics.mcnemar_exact(a, a) == 1.0


def test_mcnemar_refuses_unpaired_and_unbinary():
    with pytest.raises(ValueError, match="2 and 1 values"):
        metrics.mcnemar_exact([True, False], [True])
    with pytest.raises(ValueError, match="true and false"):
        metrics.mcnemar_exact([0.5, 1], [0, 1])


def test_paired_bootstrap():
    a, b = np.array([1.0, 1, 1, 0, 1, 1, 1, 1]), np.array([0.0, 0, 1, 0, 0, 0, 0, 0])
    result = metrics.paired_bootstrap(a, b, rng())
    assert result.difference == pytest.approx(6 / 8)
    assert result.interval[0] > 0 and result.p < 0.05
    assert result == metrics.paired_bootstrap(a, b, rng())
    assert metrics.paired_bootstrap(a, a, rng()) == (0.0, (0.0, 0.0), 1.0)
    noise = rng(1).normal(size=(2, 60))
    assert metrics.paired_bootstrap(noise[0], noise[1], rng()).p > 0.05


def test_paired_bootstrap_uses_the_clusters():
    a, b = np.tile([1.0, 1, 0, 1, 0, 1], 20), np.tile([0.0, 1, 1, 0, 0, 0], 20)
    ids = np.tile(np.arange(6), 20)
    assert (
        metrics.paired_bootstrap(a, b, rng()).p < 0.01 < metrics.paired_bootstrap(a, b, rng(), clusters=ids).p
    )


def test_holm_golden():
    # sorted .01*3, .03*2, .04*1 raised to stay monotone
    assert metrics.holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert metrics.holm([0.6, 0.9]) == pytest.approx([1.0, 1.0])
    with pytest.raises(ValueError, match="p-values in"):
        metrics.holm([0.1, np.nan])


# --- trade-offs and voting


def test_front_found_under_buried_points():
    front = np.array([[0.0, 4.0], [1.0, 3.0], [2.5, 2.5], [4.0, 0.0]])
    buried = np.concatenate([front - rng(i).uniform(0.01, 3, size=front.shape) for i in range(30)])
    points, is_front = np.concatenate([buried, front]), np.r_[np.zeros(120, bool), np.ones(4, bool)]
    shuffle = rng(9).permutation(124)
    assert (metrics.pareto_front(points[shuffle]) == is_front[shuffle]).all()
    assert (metrics.pareto_front(-points[shuffle], maximise=False) == is_front[shuffle]).all()


def test_front_mixed_directions_and_ties():
    # more accuracy, less hallucination
    points = [[0.5, 1.0], [0.5, 1.0], [0.6, 2.0], [0.5, 1.5]]
    assert metrics.pareto_front(points, maximise=(True, False)).tolist() == [True, True, True, False]
    with pytest.raises(ValueError, match="drop unscored"):
        metrics.pareto_front([[0.1, np.nan]])


def test_hypervolume_by_hand():
    # two rectangles 1x3 and 2x1 that share 1x1
    assert metrics.hypervolume([[1, 3], [2, 1]], (0, 0)) == pytest.approx(3 + 2 - 1)
    # unit steps of a staircase of cubes: 2x1x1 + 1x2x1 + 1x1x2 share one cube
    assert metrics.hypervolume([[2, 1, 1], [1, 2, 1], [1, 1, 2]], (0, 0, 0)) == pytest.approx(4)
    assert metrics.hypervolume([[1, 3], [2, 1], [0.5, 0.5], [1, 3]], (0, 0)) == pytest.approx(4)
    assert metrics.hypervolume([[0.6, 2.0]], (0.0, 3.0), maximise=(True, False)) == pytest.approx(0.6)
    assert metrics.hypervolume(np.empty((0, 2)), (0, 0)) == 0.0


@given(st.lists(st.tuples(*[st.integers(0, 5)] * 3), min_size=1, max_size=8))
def test_hypervolume_counts_unit_cubes(points):
    grid = np.stack(np.meshgrid(*[np.arange(5)] * 3), axis=-1).reshape(-1, 3)
    covered = (grid[:, None, :] < np.array(points)[None]).all(axis=2).any(axis=1).sum()
    assert metrics.hypervolume(points, (0, 0, 0)) == pytest.approx(covered)


def test_hypervolume_refuses_a_reference_inside_the_front():
    with pytest.raises(ValueError, match="does not bound"):
        metrics.hypervolume([[1, 3], [2, 1]], (0, 2))
    with pytest.raises(ValueError, match="one number per objective"):
        metrics.hypervolume([[1, 3]], (0, 0, 0))


@pytest.mark.parametrize(
    ("letters", "winner"),
    [
        (["A", "B", "B"], "B"),
        (["B", "A", "A", "B"], "B"),  # tie: first seen
        ([None, None, "C"], "C"),  # an unparsed vote is no vote
        ([None, None], None),
        ([], None),
    ],
)
def test_majority_vote(letters, winner):
    assert metrics.majority_vote(letters) == winner


# --- scored records -> rows


def test_unparsed_is_wrong_and_in_the_denominator():
    rows = metrics.summarise(four_records(), rng())
    accuracy = cell(rows, "accuracy")
    assert accuracy["value"] == 2 / 4  # not 2 / 3
    assert accuracy["coverage"] == 3 / 4
    assert (accuracy["n"], accuracy["seeds"], accuracy["interval"]) == (4, 1, "wilson")
    assert (accuracy["ci_low"], accuracy["ci_high"]) == metrics.wilson_interval(2, 4)
    assert cell(rows, "drc")["value"] == 3 / 4
    assert len(rows) == 9


def test_several_seeds_are_clustered_by_question_and_say_so():
    scores = four_records() + [record(q, correct=q != "q1", seed=1) for q in QUESTIONS]
    accuracy = cell(metrics.summarise(scores, rng()), "accuracy")
    assert (accuracy["value"], accuracy["n"], accuracy["seeds"]) == (5 / 8, 4, 2)
    assert accuracy["interval"] == "bootstrap over questions"
    assert accuracy["ci_low"] < 5 / 8 < accuracy["ci_high"]


def test_missing_measures_are_not_zero():
    scores = four_records()
    scores[0]["measures"]["drc"] = None  # it held the 2
    scores[1]["measures"] = {}
    drc = cell(metrics.summarise(scores, rng()), "drc")
    assert (drc["value"], drc["n"], drc["coverage"]) == (1 / 2, 2, 2 / 4)
    unjudged = [score | {"measures": {}} for score in scores]
    assert metrics.summarise(unjudged, rng())["metric"].tolist() == ["accuracy"]


def test_summary_ignores_the_order_of_records_and_follows_the_paper_s_order():
    scores = [
        s
        for m in reversed(METHODS)
        for b in ("clinic-shift", "clinic")
        for s in four_records(method=m, benchmark=b)
    ]
    rows = metrics.summarise(scores, rng())
    assert rows["benchmark"].unique().tolist() == ["clinic", "clinic-shift"]
    assert rows["method"].unique().tolist() == list(METHODS)
    pd.testing.assert_frame_equal(rows, metrics.summarise(scores[::-1], rng()))
    pd.testing.assert_frame_equal(rows, metrics.summarise(pd.DataFrame(scores), rng()))


def test_extra_rows_by_hand():
    scores = [
        record("q1", tokens=10, drc=1),
        record("q2", tokens=30, drc=3),
        record("q3", tokens=None, drc=9),
    ]
    rows = metrics.extra_rows(scores, rng())
    assert cell(rows, "tokens")["value"] == 20
    rate = cell(rows, "drc_per_100_tokens")
    assert (rate["value"], rate["n"]) == (100 * 4 / 40, 2)
    assert rate["coverage"] == pytest.approx(2 / 3)
    assert (
        rate["ci_low"] == rate["ci_high"] == pytest.approx(10)
    )  # both questions have one count in ten tokens


def test_baseline_rows_by_hand():
    def question(answer, n_options, benchmark="clinic"):
        return SimpleNamespace(
            benchmark=benchmark, answer=answer, options=dict.fromkeys("ABCDEFGHIJ"[:n_options])
        )

    rows = metrics.baseline_rows([question("A", 4), question("B", 2), question("B", 4), question(None, 10)])
    assert cell(rows, "accuracy", "chance")["value"] == pytest.approx((1 / 4 + 1 / 2 + 1 / 4) / 3)
    majority = cell(rows, "accuracy", "majority_letter")
    assert (majority["value"], majority["n"]) == (2 / 3, 3)
    with pytest.raises(ValueError, match="labelled"):
        metrics.baseline_rows([question(None, 4)])


@pytest.mark.parametrize(
    ("scores", "message"),
    [
        ([], "no scores"),
        ([*four_records(), record("q2")], "'q2' sample 0 twice"),
        (
            four_records() + four_records(method="crpo")[:3],
            "crpo seed 0 and grpo seed 0 differ in 1 questions.*'q4'",
        ),
        (four_records() + four_records(seed=1)[1:], "grpo seed 1 and grpo seed 0 differ"),
        ([record("q1", letter=None, correct=True)], "false without a letter"),
        ([record("q1", correct=None)], "true or false"),
        ([{"id": "q1"}], "scores lack"),
    ],
)
def test_scores_that_cannot_be_compared_are_refused(scores, message):
    with pytest.raises(ValueError, match=message):
        metrics.summarise(scores, rng())


def test_several_samples_are_not_duplicates():
    accuracy = cell(metrics.summarise(four_records() + four_records(sample=1), rng()), "accuracy")
    assert (accuracy["n"], accuracy["interval"]) == (4, "bootstrap over questions")


def test_metrics_and_paper_use_the_same_names():
    assert (*metrics.PROCESS_METRICS, "accuracy") == paper.METRICS


# --- two methods compared


def test_compare_by_hand():
    scores = [
        record(q, method="grpo", correct=q == "q1", letter="A" if q == "q1" else "B", drc=1)
        for q in QUESTIONS
    ]
    scores += [record(q, method="crpo", drc=3) for q in reversed(QUESTIONS)]
    table = metrics.compare(scores, "crpo", "grpo", ["accuracy", "drc"], rng())
    accuracy, rejected = table.iloc[0], table.iloc[1]
    assert (accuracy["crpo"], accuracy["grpo"], accuracy["difference"]) == (100.0, 25.0, 75.0)
    assert accuracy["p"] == 0.25  # three disagreements, all one way: 2 * 0.5 ** 3
    assert (rejected["difference"], rejected["ci_low"], rejected["ci_high"]) == (2.0, 2.0, 2.0)
    assert accuracy["n"] == 4 and (table["p_holm"] >= table["p"]).all()


def test_compare_refuses_what_is_not_paired():
    scores = [record(q) for q in QUESTIONS]
    with pytest.raises(ValueError, match="hold no .*crpo"):
        metrics.compare(scores, "crpo", "grpo", ["accuracy"], rng())
    scores += [record(q, method="crpo", seed=1) for q in QUESTIONS]
    with pytest.raises(ValueError, match="expected pairs"):
        metrics.compare(scores, "crpo", "grpo", ["accuracy"], rng())


def test_vote_by_hand():
    letters = {"q1": ["A", "B", "A"], "q2": ["B", "A", None], "q3": [None, None, None]}
    scores = [
        record(q, letter=letter, correct=letter == "A", sample=i)
        for q, votes in letters.items()
        for i, letter in enumerate(votes)
    ]
    voted = metrics.vote(scores).set_index("id")
    assert voted["letter"].tolist()[:2] == ["A", "B"] and voted["letter"].isna().tolist() == [
        False,
        False,
        True,
    ]
    assert voted["correct"].tolist() == [True, False, False]
    assert cell(metrics.summarise(voted.reset_index(), rng()), "accuracy")["value"] == pytest.approx(1 / 3)
