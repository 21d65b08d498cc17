"""Fronts, votes, rows and paired comparisons, checked by hand arithmetic: python -m pytest tests/test_metrics.py"""

import time
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from records import QUESTIONS, cell, four_records, record, rng
from scipy import stats
from statsmodels.formula.api import ols
from statsmodels.stats.anova import anova_lm

from clinical_r1 import intervals, metrics, paper
from clinical_r1.arms import METHODS
from clinical_r1.laboratory import pareto

# --- trade-offs and voting


def test_front_found_under_buried_points():
    front = np.array([[0.0, 4.0], [1.0, 3.0], [2.5, 2.5], [4.0, 0.0]])
    buried = np.concatenate([front - rng(i).uniform(0.01, 3, size=front.shape) for i in range(30)])
    points, is_front = np.concatenate([buried, front]), np.r_[np.zeros(120, bool), np.ones(4, bool)]
    shuffle = rng(9).permutation(124)
    assert (pareto.pareto_front(points[shuffle]) == is_front[shuffle]).all()
    assert (pareto.pareto_front(-points[shuffle], maximise=False) == is_front[shuffle]).all()


def test_front_mixed_directions_and_ties():
    # more accuracy, less hallucination
    points = [[0.5, 1.0], [0.5, 1.0], [0.6, 2.0], [0.5, 1.5]]
    assert pareto.pareto_front(points, maximise=(True, False)).tolist() == [True, True, True, False]
    with pytest.raises(ValueError, match="drop unscored"):
        pareto.pareto_front([[0.1, np.nan]])


def test_hypervolume_by_hand():
    # two rectangles 1x3 and 2x1 that share 1x1
    assert pareto.hypervolume([[1, 3], [2, 1]], (0, 0)) == pytest.approx(3 + 2 - 1)
    # unit steps of a staircase of cubes: 2x1x1 + 1x2x1 + 1x1x2 share one cube
    assert pareto.hypervolume([[2, 1, 1], [1, 2, 1], [1, 1, 2]], (0, 0, 0)) == pytest.approx(4)
    assert pareto.hypervolume([[1, 3], [2, 1], [0.5, 0.5], [1, 3]], (0, 0)) == pytest.approx(4)
    assert pareto.hypervolume([[0.6, 2.0]], (0.0, 3.0), maximise=(True, False)) == pytest.approx(0.6)
    assert pareto.hypervolume(np.empty((0, 2)), (0, 0)) == 0.0


@given(st.lists(st.tuples(*[st.integers(0, 5)] * 3), min_size=1, max_size=8))
def test_hypervolume_counts_unit_cubes(points):
    grid = np.stack(np.meshgrid(*[np.arange(5)] * 3), axis=-1).reshape(-1, 3)
    covered = (grid[:, None, :] < np.array(points)[None]).all(axis=2).any(axis=1).sum()
    assert pareto.hypervolume(points, (0, 0, 0)) == pytest.approx(covered)


def test_hypervolume_refuses_a_reference_inside_the_front():
    with pytest.raises(ValueError, match="does not bound"):
        pareto.hypervolume([[1, 3], [2, 1]], (0, 2))
    with pytest.raises(ValueError, match="one number per objective"):
        pareto.hypervolume([[1, 3]], (0, 0, 0))


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
    rows = metrics.summarise(four_records())
    accuracy = cell(rows, "accuracy")
    assert accuracy["value"] == 2 / 4  # not 2 / 3
    assert accuracy["coverage"] == 3 / 4
    assert (accuracy["n"], accuracy["seeds"], accuracy["interval"]) == (4, 1, "Wilson over questions")
    assert (accuracy["ci_low"], accuracy["ci_high"]) == metrics.wilson_interval(2, 4)
    assert cell(rows, "drc")["value"] == 3 / 4
    assert len(rows) == 9


def test_several_seeds_are_drawn_with_the_questions_and_say_so():
    scores = four_records() + [record(q, correct=q != "q1", seed=1) for q in QUESTIONS]
    accuracy = cell(metrics.summarise(scores), "accuracy")
    assert (accuracy["value"], accuracy["n"], accuracy["seeds"]) == (5 / 8, 4, 2)
    assert accuracy["interval"] == intervals.QUESTIONS_AND_SEEDS
    assert 0 <= accuracy["ci_low"] < 5 / 8 < accuracy["ci_high"] <= 1  # Student's t would leave [0, 1] here
    assert accuracy["seed_sd"] == pytest.approx(np.std([2 / 4, 3 / 4], ddof=1))


def test_a_verdict_from_one_seed_only_does_not_claim_seeds():
    scores = four_records() + [s | {"measures": {}} for s in four_records(seed=1)]
    drc = cell(metrics.summarise(scores), "drc")
    assert (drc["interval"], drc["coverage"]) == ("Student's t over questions", 1 / 2)


def test_three_seeds_of_fifteen_cells_are_summarised_in_seconds():
    generator = rng(0)
    scores = [
        record(
            f"q{i}", correct=bool(generator.random() < 0.6), method=m, seed=s, drc=int(generator.integers(4))
        )
        for m in METHODS
        for s in range(3)
        for i in range(500)
    ]
    start = time.perf_counter()
    rows = metrics.summarise(scores)
    assert len(rows) == 45 and time.perf_counter() - start < 5  # a third of Table 1


def test_missing_measures_are_not_zero():
    scores = four_records()
    scores[0]["measures"]["drc"] = None  # it held the 2
    scores[1]["measures"] = {}
    drc = cell(metrics.summarise(scores), "drc")
    assert (drc["value"], drc["n"], drc["coverage"]) == (1 / 2, 2, 2 / 4)
    unjudged = [score | {"measures": {}} for score in scores]
    assert metrics.summarise(unjudged)["metric"].tolist() == ["accuracy"]


def test_summary_ignores_the_order_of_records_and_follows_the_paper_s_order():
    scores = [
        s
        for m in reversed(METHODS)
        for b in ("clinic-shift", "clinic")
        for s in four_records(method=m, benchmark=b)
    ]
    rows = metrics.summarise(scores)
    assert rows["benchmark"].unique().tolist() == ["clinic", "clinic-shift"]
    assert rows["method"].unique().tolist() == list(METHODS)
    pd.testing.assert_frame_equal(rows, metrics.summarise(scores[::-1]))
    pd.testing.assert_frame_equal(rows, metrics.summarise(pd.DataFrame(scores)))


def test_extra_rows_by_hand():
    scores = [
        record("q1", tokens=10, drc=1),
        record("q2", tokens=30, drc=3),
        record("q3", tokens=None, drc=9),
    ]
    rows = metrics.extra_rows(scores)
    assert cell(rows, "tokens")["value"] == 20
    rate = cell(rows, "drc_per_100_tokens")
    assert (rate["value"], rate["n"]) == (100 * 4 / 40, 2)
    assert rate["coverage"] == pytest.approx(2 / 3)
    # both questions have one count in ten tokens: one more or less in one of 20 tokens, times Wilson's bound for 0 of 2
    half = 100 / 20 * intervals.wilson_interval(0, 2)[1]
    assert (rate["ci_low"], rate["ci_high"]) == pytest.approx((10 - half, 10 + half))


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
            "crpo seed 0 answers 3 questions and grpo seed 0 4; they differ in 1 .one is 'q4'",
        ),
        (four_records() + four_records(seed=1)[1:], "grpo seed 1 answers 3 questions and grpo seed 0 4"),
        (
            [record(f"q{i}") for i in range(1450)] + [record(f"q{i}", method="crpo") for i in range(2450)],
            "crpo seed 0 answers 2,450 questions and grpo seed 0 1,450; they differ in 1,000",
        ),
        (
            four_records(fields={"n_options": 4}) + four_records(method="crpo", fields={"n_options": 5}),
            "clinic: grpo seed 0 has 4 options and crpo seed 0 has 5 options",
        ),
        (
            four_records(fields={"protocol": "sampled"})
            + four_records(method="crpo", fields={"protocol": "greedy"}),
            "grpo seed 0 has sampled decoding and crpo seed 0 has greedy decoding",
        ),
        (
            four_records(fields={"protocol": "sampled"}) + four_records(fields={"protocol": "greedy"}),
            "grpo seed 0 holds greedy and sampled scores together",
        ),
        (
            four_records() + four_records(sample=1)[:3],
            "grpo seed 0 answers question 'q4' 1 times and 'q1' 2 times",
        ),
        ([record("q1", letter=None, correct=True)], "false without a letter"),
        ([record("q1", correct=None)], "true or false"),
        ([{"id": "q1"}], "scores lack"),
        (
            [record("q1") | {"measures": {"drc": -3}}],
            "grpo seed 0 has -3 for drc of question 'q1'; expected a count, 0 or",
        ),
        ([record("q1") | {"measures": {"drc": float("inf")}}], "has inf for drc of question 'q1'"),
        ([record("q1") | {"measures": {"drc": "three"}}], "has three for drc of question 'q1'"),
    ],
)
def test_scores_that_cannot_be_compared_are_refused(scores, message):
    with pytest.raises(ValueError, match=message):
        metrics.summarise(scores)


def test_optional_fields_may_be_absent_and_sets_may_differ_in_options():
    ten = four_records(benchmark="clinic-expert", fields={"n_options": 10, "protocol": "sampled"})
    mixed = four_records(fields={"n_options": 4, "protocol": "sampled"}) + four_records(method="crpo") + ten
    assert len(metrics.summarise(mixed)) == 27


@pytest.mark.parametrize("seeds", [1, 3])
@pytest.mark.parametrize("samples", [1, 2])
def test_no_interval_of_a_table_is_without_width(seeds, samples):
    scores = [
        record(q, drc=0, seed=seed, sample=sample)
        for q in QUESTIONS
        for seed in range(seeds)
        for sample in range(samples)
    ]
    rows = pd.concat([metrics.summarise(scores), metrics.extra_rows(scores)])
    bound = intervals.wilson_interval(0, 4)[1]
    for metric, expected in {
        "accuracy": (1 - bound, 1.0),
        "drc": (0.0, bound),
        "cecd": (1 - bound, 1 + bound),
        "tokens": (20 - bound, 20 + bound),
        "drc_per_100_tokens": (0.0, 5 * bound),
    }.items():
        row = cell(rows, metric)
        assert (row["ci_low"], row["ci_high"]) == pytest.approx(expected), metric
    assert (rows["ci_low"] < rows["ci_high"]).all()
    same = metrics.compare(
        scores + [row | {"method": "crpo"} for row in scores], "crpo", "grpo", ["accuracy", "drc"]
    )
    assert same["ci_low"].tolist() == pytest.approx([-100 * bound, -bound], abs=1e-4)
    assert same["p"].tolist() == pytest.approx([1.0, 1.0] if seeds > 1 else [np.nan] * 2, nan_ok=True)
    assert same["mde_holm"].isna().all()


def test_several_samples_are_not_duplicates():
    accuracy = cell(metrics.summarise(four_records() + four_records(sample=1)), "accuracy")
    assert (accuracy["n"], accuracy["interval"]) == (4, "Student's t over questions")


def test_metrics_and_paper_use_the_same_names():
    assert (*metrics.PROCESS_METRICS, "accuracy") == paper.METRICS


# --- two methods compared


def by_hand(seeds):
    """GRPO right on q1 only, CRPO on all; CRPO rejects two options more: the same with every seed."""
    scores = [
        record(q, method="grpo", correct=q == "q1", letter="A" if q == "q1" else "B", drc=1, seed=seed)
        for q in QUESTIONS
        for seed in seeds
    ]
    return scores + [
        record(q, method="crpo", drc=3, seed=seed) for q in reversed(QUESTIONS) for seed in seeds
    ]


def test_compare_by_hand():
    table = metrics.compare(by_hand((0, 1)), "crpo", "grpo", ["drc", "accuracy"])
    accuracy, rejected = table.iloc[0], table.iloc[1]  # the order of the primary measures, not of the call
    assert (accuracy["crpo"], accuracy["grpo"], accuracy["difference"]) == (100.0, 25.0, 75.0)
    # the seeds agree: MS_seed = MS_error = 0, and what is left are the differences 0, 100, 100, 100: standard error 25 of df 3
    assert accuracy["p"] == 0.25  # three disagreements, all one way: 2 * 0.5 ** 3 binds, not t's 0.058
    # four questions, all one way: the sign test says 0.125, so the interval holds 0
    above = 2.0 + intervals.wilson_interval(0, 4)[1]
    assert (rejected["difference"], rejected["ci_low"], rejected["ci_high"]) == (2.0, 0.0, round(above, 4))
    assert rejected["p"] == 0.125
    assert table["p_holm"].tolist() == [0.25, 0.25] and table["tests"].tolist() == [2, 2]
    assert (accuracy["n"], accuracy["seeds"]) == (4, 2)
    assert set(table["test"]) == {intervals.QUESTIONS_AND_SEEDS}
    assert accuracy["mde_holm"] == pytest.approx(
        intervals.minimum_detectable_effect(25.0, 3, tests=2), abs=1e-3
    )
    assert np.isnan(rejected["mde_holm"])  # every question differs by 2: no spread to judge from


@pytest.mark.parametrize("against", ["grpo", "baseline"])
def test_one_seed_gives_no_p_and_the_table_says_why(against):
    """Also against the untrained policy: the trained arm's seed is luck all the same."""
    scores = [s | {"method": against if s["method"] == "grpo" else s["method"]} for s in by_hand((0,))]
    table = metrics.compare(scores, "crpo", against, ["accuracy", "drc"])
    assert table[["p", "p_holm", "mde_holm"]].isna().all(axis=None) and (table["tests"] == 0).all()
    assert set(table["test"]) == {metrics.NO_TEST} and "one training seed" in metrics.NO_TEST
    assert (table["ci_low"] < table["ci_high"]).all()  # the interval is over questions, and is called so


def random_scores(methods=("crpo", "grpo"), benchmarks=("clinic",), seeds=3, questions=40):
    generator = rng(7)
    return [
        record(f"q{i}", method=m, seed=s, benchmark=b, correct=bool(generator.random() < 0.5), letter="A",
               **{name: int(generator.poisson(1.0)) for name in metrics.PROCESS_METRICS})
        for m in methods for b in benchmarks for s in range(seeds) for i in range(questions)
    ]  # fmt: skip


def test_primary_measures_come_first_and_are_corrected_among_themselves():
    scores = random_scores(benchmarks=("clinic-expert", "clinic-shift", "clinic"))
    table = metrics.compare(scores, "crpo", "grpo", [*metrics.PROCESS_METRICS, "accuracy"])
    assert len(table) == 27 and table["status"].tolist() == ["primary"] * 8 + ["exploratory"] * 19
    names = ["accuracy", "faithfulness", "drc", "hallucination"]
    assert table["metric"].tolist()[:8] == names * 2
    assert table["benchmark"].tolist()[:8] == ["clinic"] * 4 + ["clinic-shift"] * 4
    for rows in (table[:8], table[8:]):
        assert rows["p_holm"].tolist() == pytest.approx(intervals.holm(rows["p"]).tolist(), rel=1e-3)
        assert set(rows["tests"]) == {len(rows)}
    alone = metrics.compare(scores, "crpo", "grpo", ["accuracy"]).iloc[0]
    assert table.iloc[0]["p"] == alone["p"] and table.iloc[0]["mde_holm"] > alone["mde_holm"]


def test_the_whole_of_a_comparison_by_an_analysis_of_variance():
    """Column by column against statsmodels: standard error, degrees of freedom, p and interval."""
    scores = random_scores()
    row = metrics.compare(scores, "crpo", "grpo", ["faithfulness"]).iloc[0]
    wide = pd.DataFrame(
        [{**s, "y": s["measures"]["faithfulness"] * (1 if s["method"] == "crpo" else -1)} for s in scores]
    )
    d = wide.groupby(["seed", "id"])["y"].sum().reset_index()
    anova = anova_lm(ols("y ~ C(seed) + C(id)", d).fit())
    squares, free = (anova["sum_sq"] / anova["df"]).to_numpy(), anova["df"].to_numpy()
    total = max(squares[0], squares[2]) + max(squares[1], squares[2]) - squares[2]
    error, df = np.sqrt(total / len(d)), total**2 / (squares**2 / free).sum()
    assert row["p"] == pytest.approx(2 * stats.t.sf(abs(d["y"].mean()) / error, df), rel=1e-3)
    half = stats.t.ppf(0.975, df) * error
    assert (row["ci_low"], row["ci_high"]) == pytest.approx(
        (row["difference"] - half, row["difference"] + half), abs=1e-3
    )


def test_seeds_that_disagree_make_more_data_less_certain():
    ids = [f"q{i}" for i in range(40)]
    right = {seed: rng(seed).random(40) < share for seed, share in enumerate((0.9, 0.7, 0.5))}
    scores = [
        record(q, method=m, seed=s, correct=bool(right[s][i]) if m == "crpo" else i % 2 == 0)
        for m in ("crpo", "grpo")
        for s in range(3)
        for i, q in enumerate(ids)
    ]
    row = metrics.compare(scores, "crpo", "grpo", ["accuracy"]).iloc[0]
    one = metrics.compare([s for s in scores if s["seed"] == 0], "crpo", "grpo", ["accuracy"]).iloc[0]
    assert row["test"] == intervals.QUESTIONS_AND_SEEDS and (row["n"], row["seeds"]) == (40, 3)
    assert row["ci_high"] - row["ci_low"] > one["ci_high"] - one["ci_low"]


def test_a_fixed_model_stands_beside_every_seed():
    """Another model's one set of answers: the trained arm's seeds are its only luck."""
    scores = random_scores(("crpo",)) + [record(f"q{i}", method="gpt", correct=i % 2 == 0) for i in range(40)]
    row = metrics.compare(scores, "gpt", "crpo", ["accuracy"], fixed=("gpt",)).iloc[0]
    copies = scores[:-40] + [s | {"seed": seed} for s in scores[-40:] for seed in range(3)]
    same = metrics.compare(copies, "gpt", "crpo", ["accuracy"]).iloc[0]
    assert row.to_dict() == same.to_dict() and row["seeds"] == 3
    with pytest.raises(ValueError, match="expected pairs"):
        metrics.compare(scores, "gpt", "crpo", ["accuracy"])


def test_compare_leaves_out_pairs_without_a_verdict_and_says_so():
    scores = [record(q, method=m, drc=i) for i, m in enumerate(("grpo", "crpo")) for q in QUESTIONS]
    scores[0]["measures"]["drc"] = None
    row = metrics.compare(scores, "crpo", "grpo", ["drc"]).iloc[0]
    assert (row["difference"], row["n"], row["coverage"]) == (1.0, 3, 0.75)
    with pytest.raises(ValueError, match="no response of crpo or grpo has a cecd verdict"):
        metrics.compare([s | {"measures": {}} for s in scores], "crpo", "grpo", ["cecd"])


def test_a_small_p_is_never_printed_as_zero():
    scores = [
        record(f"q{i}", method=m, correct=m == "crpo", seed=seed)
        for m in ("grpo", "crpo")
        for i in range(60)
        for seed in (0, 1)
    ]
    row = metrics.compare(scores, "crpo", "grpo", ["accuracy"]).iloc[0]
    assert 0 < row["p"] < 1e-15
    fixed = metrics.compare(
        [s for s in scores if s["seed"] == 0], "crpo", "grpo", ["accuracy"], ("crpo", "grpo")
    )
    assert (fixed["p"][0], fixed["test"][0]) == (
        row["p"],
        "Student's t over questions",
    )  # two models that no seed draws


def test_compare_refuses_what_is_not_paired():
    scores = [record(q) for q in QUESTIONS]
    with pytest.raises(ValueError, match="hold no .*crpo"):
        metrics.compare(scores, "crpo", "grpo", ["accuracy"])
    scores += [record(q, method="crpo", seed=1) for q in QUESTIONS]
    with pytest.raises(
        ValueError, match="crpo has 4 responses of seeds 1 and grpo has 4 responses of seeds 0"
    ):
        metrics.compare(scores, "crpo", "grpo", ["accuracy"])


@pytest.mark.parametrize(
    ("method", "measures"),
    [("crpo", ["accuracy", "accuracy"]), ("crpo", []), ("crpo", "accuracy"), ("grpo", ["accuracy"])],
)
def test_compare_refuses_a_test_twice_and_none(method, measures):
    scores = [record(q, method=m) for m in ("crpo", "grpo") for q in QUESTIONS]
    with pytest.raises(ValueError, match="expected two methods and a list of measures, each once"):
        metrics.compare(scores, method, "grpo", measures)


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
    assert cell(metrics.summarise(voted.reset_index()), "accuracy")["value"] == pytest.approx(1 / 3)
