"""Intervals and tests, checked by hand arithmetic, an analysis of variance of statsmodels and small simulations.

python -m pytest tests/test_intervals.py
"""

import numpy as np
import pandas as pd
import pytest
from records import rng
from scipy import stats
from statsmodels.formula.api import ols
from statsmodels.stats.anova import anova_lm

from clinical_r1 import intervals

WILSON = {n: 1.959964**2 / (n + 1.959964**2) for n in (3, 4, 8, 16, 60, 500)}  # upper bound of 0 of n


def test_wilson_by_hand():
    # k=5, n=10, z=1.959964: centre .5, half-width z/(1+z²/n) * sqrt(.25/10 + z²/400) = .26341
    assert intervals.wilson_interval(5, 10) == pytest.approx((0.236593, 0.763407), abs=1e-6)
    low, high = intervals.wilson_interval(0, 10)
    assert low == 0.0 and high == pytest.approx(1.959964**2 / (10 + 1.959964**2), abs=1e-6)
    assert intervals.wilson_interval(10, 10) == pytest.approx((1 - high, 1.0), abs=1e-9)


@pytest.mark.parametrize(("k", "n"), [(0, 0), (3, 2), (-1, 5)])
def test_wilson_refuses(k, n):
    with pytest.raises(ValueError, match="expected 0 <= k <= n"):
        intervals.wilson_interval(k, n)


@pytest.mark.parametrize("values", [[], [1.0, np.nan], [[1.0]]])
def test_missing_values_are_refused(values):
    with pytest.raises(ValueError, match="finite numbers"):
        intervals.mean_interval(values)


def test_labels_of_another_length_are_refused():
    with pytest.raises(ValueError, match="2 cluster labels for 3 values"):
        intervals.mean_interval([1.0, 2.0, 3.0], clusters=["a", "b"])
    with pytest.raises(ValueError, match="seeds without clusters"):
        intervals.mean_interval([1.0, 2.0], seeds=[0, 1])
    with pytest.raises(ValueError, match="1 seed labels for 2 values"):
        intervals.mean_interval([1.0, 2.0], clusters=["a", "b"], seeds=[0])


def test_mcnemar_golden():
    # they disagree on 12 questions, 10 against 2: p = 2 (1 + 12 + 66) / 2**12
    a = [True] * 10 + [False] * 2 + [True] * 30
    b = [False] * 10 + [True] * 2 + [True] * 30
    assert intervals.mcnemar_exact(a, b) == pytest.approx(158 / 4096)
    assert intervals.mcnemar_exact(b, a) == pytest.approx(158 / 4096)
    assert intervals.mcnemar_exact(a, a) == 1.0


def test_mcnemar_refuses_unpaired_and_unbinary():
    with pytest.raises(ValueError, match="2 and 1 values"):
        intervals.mcnemar_exact([True, False], [True])
    with pytest.raises(ValueError, match="true and false"):
        intervals.mcnemar_exact([0.5, 1], [0, 1])


def test_holm_golden():
    # sorted .01*3, .03*2, .04*1 raised to stay monotone
    assert intervals.holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert intervals.holm([0.6, 0.9]) == pytest.approx([1.0, 1.0])
    with pytest.raises(ValueError, match="p-values in"):
        intervals.holm([0.1, np.nan])


# --- one seed: Student's t over questions


def test_one_seed_is_student_s_t_over_questions():
    values = rng(3).normal(size=50)
    expected = stats.ttest_1samp(values, 0.0)
    assert intervals.mean_interval(values) == pytest.approx(tuple(expected.confidence_interval(0.95)))
    assert intervals.mean_interval(values, clusters=range(50), seeds=["7"] * 50) == intervals.mean_interval(
        values
    )
    got = intervals.paired_difference(values, np.zeros(50))
    assert (got.p, got.df) == (pytest.approx(expected.pvalue), 49)


def test_copies_of_a_question_do_not_narrow_the_interval():
    values = rng(5).integers(0, 2, size=40).astype(float)
    copies, ids = np.tile(values, 25), np.tile(np.arange(40), 25)
    clustered = intervals.mean_interval(copies, clusters=ids)
    assert clustered == pytest.approx(intervals.mean_interval(values, clusters=np.arange(40)))
    naive = intervals.mean_interval(copies)
    assert naive[1] - naive[0] < (clustered[1] - clustered[0]) / 3


def test_ratio_of_sums_by_hand():
    """Two questions of 1 and 3 responses: z = (top - ratio * bottom) / mean(bottom), a t interval of one degree of freedom."""
    got = intervals.estimate(np.array([4.0, 1, 0, 1]), np.ones(4), ["a", "b", "b", "b"])
    z = np.array([4.0 - 1.5, 2.0 - 4.5]) / 2.0
    assert got.value == 1.5 and got.df == 1
    assert got.standard_error == pytest.approx(z.std(ddof=1) / np.sqrt(2))


# --- questions and seeds: two-way random effects


def crossed(generator, seeds=3, questions=60, seed_sd=0.0, question_sd=0.25, noise_sd=0.4):
    """(S, Q) responses of a crossed random-effects model with mean 0, and their labels."""
    values = seed_sd * generator.normal(size=(seeds, 1)) + question_sd * generator.normal(size=(1, questions))
    values = values + noise_sd * generator.normal(size=(seeds, questions))
    return values, np.repeat(np.arange(seeds), questions), np.tile(np.arange(questions), seeds)


def anova(values):
    """(MS_seed, MS_question, MS_error) of statsmodels for values (S, Q)."""
    seeds, questions = values.shape
    frame = pd.DataFrame(
        {
            "y": values.ravel(),
            "seed": np.repeat(range(seeds), questions),
            "question": [*range(questions)] * seeds,
        }
    )
    table = anova_lm(ols("y ~ C(seed) + C(question)", frame).fit())
    return (table["sum_sq"] / table["df"]).tolist()


def literal(values):
    """(standard error, df) transcribed: (MS_seed + MS_question - MS_error) / (S Q), and Satterthwaite."""
    seeds, questions = values.shape
    of_seeds, of_questions, error = anova(values)
    seed_part = max((of_seeds - error) / questions, 0.0) / seeds
    question_part = max((of_questions - error) / seeds, 0.0) / questions
    variance = seed_part + question_part + error / (seeds * questions)
    n = seeds * questions
    spread = (of_seeds / n) ** 2 / (seeds - 1) + (of_questions / n) ** 2 / (questions - 1)
    spread += (error / n) ** 2 / ((seeds - 1) * (questions - 1))
    return np.sqrt(variance), variance**2 / spread


@pytest.mark.parametrize(
    ("seeds", "questions", "seed_sd", "question_sd"),
    [(2, 5, 1.0, 0.3), (3, 12, 0.3, 0.3), (4, 9, 0.0, 0.0), (5, 7, 0.0, 2.0), (3, 10, 2.0, 0.0)],
)
def test_the_error_is_that_of_the_analysis_of_variance(seeds, questions, seed_sd, question_sd):
    values, labels, ids = crossed(rng(4), seeds, questions, seed_sd, question_sd)
    assert intervals.mean_squares(values) == pytest.approx(anova(values))
    result = intervals.two_way(values, np.ones_like(values))
    assert (result.standard_error, result.df) == pytest.approx(literal(values))
    assert result.seed_sd == pytest.approx(values.mean(axis=1).std(ddof=1))
    half = stats.t.ppf(0.975, result.df) * result.standard_error
    got = intervals.mean_interval(values.ravel(), clusters=ids, seeds=labels)
    assert got == pytest.approx((values.mean() - half, values.mean() + half))


def test_without_negative_components_the_variance_is_the_plain_formula():
    values, _, _ = crossed(rng(4), 4, 30, seed_sd=1.0, question_sd=1.0)
    of_seeds, of_questions, error = intervals.mean_squares(values)
    assert min(of_seeds, of_questions) > error
    result = intervals.two_way(values, np.ones_like(values))
    assert result.standard_error**2 == pytest.approx((of_seeds + of_questions - error) / values.size)


def test_a_negative_component_counts_as_zero_and_moves_the_interval_smoothly():
    """Seeds that agree more than chance has it: the error is that of the questions, never less."""
    base, _, _ = crossed(rng(6), 3, 40)
    base -= base.mean(axis=1, keepdims=True)  # every seed has the same mean: MS_seed = 0
    of_seeds, of_questions, error = intervals.mean_squares(base)
    assert of_seeds == pytest.approx(0.0) and of_questions > error
    agreed = intervals.two_way(base, np.ones_like(base))
    assert agreed.standard_error**2 == pytest.approx(of_questions / base.size)
    spread = np.array([[-1.0], [0.0], [1.0]]) * np.sqrt(
        error / 40
    )  # MS_seed = MS_error: component 0 from above
    just, above = (intervals.two_way(base + factor * spread, np.ones_like(base)) for factor in (1.0, 1.001))
    assert just.standard_error == pytest.approx(agreed.standard_error)
    assert (above.standard_error, above.df) == pytest.approx((just.standard_error, just.df), rel=0.01)


def test_the_difference_of_arms_is_that_of_their_paired_responses():
    a, labels, ids = crossed(rng(1), 3, 20, seed_sd=0.2)
    b, _, _ = crossed(rng(2), 3, 20, seed_sd=0.2)
    got = intervals.paired_difference(a.ravel(), b.ravel(), clusters=ids, seeds=labels)
    error, df = literal(a - b)
    assert (got.standard_error, got.df) == pytest.approx((error, df))
    assert got.p == pytest.approx(2 * stats.t.sf(abs((a - b).mean()) / error, df))
    shuffled = rng(0).permutation(60)
    again = intervals.paired_difference(
        a.ravel()[shuffled], b.ravel()[shuffled], clusters=ids[shuffled], seeds=labels[shuffled]
    )
    assert again.interval == pytest.approx(got.interval) and again.p == pytest.approx(got.p)


def test_seeds_alone_give_the_textbook_error_of_a_mean_of_seeds():
    for means in ([0.2, 0.5], [0.1, 0.5, 0.9], [0.1, 0.3, 0.2, 0.9, 0.4]):
        size = len(means)
        values = np.repeat(np.array(means)[:, None], 8, axis=1)
        result = intervals.two_way(values, np.ones_like(values))
        assert result.standard_error == pytest.approx(np.std(means, ddof=1) / np.sqrt(size))
        assert result.df == pytest.approx(size - 1)


def test_ragged_responses_are_linearised():
    """A question answered twice by one seed and not at all by another: near the error of the whole design."""
    values, labels, ids = crossed(rng(9), 3, 40, seed_sd=0.3)
    flat, keep = values.ravel(), np.ones(120, bool)
    keep[17] = False
    twice = [np.append(part[keep], part[5]) for part in (flat, labels, ids)]
    whole = intervals.estimate(flat, np.ones(120), ids, labels)
    ragged = intervals.estimate(twice[0], np.ones(120), twice[2], twice[1])
    assert ragged.value == pytest.approx(twice[0].mean())
    assert ragged.standard_error == pytest.approx(whole.standard_error, rel=0.05)
    assert ragged.df == pytest.approx(whole.df, rel=0.2)


@pytest.mark.parametrize(("seeds", "questions"), [(1, 1), (3, 1)])
def test_one_question_has_no_interval_of_a_count(seeds, questions):
    values = rng(0).normal(size=(seeds, questions))
    result = intervals.two_way(values, np.ones_like(values))
    assert np.isnan(result.standard_error) and np.isnan(intervals.interval_of(result)).all()
    assert np.isnan(intervals.mean_interval([3.0, 5.0], clusters=["a", "a"])).all()


def test_paired_difference_over_seeds_finds_less_and_never_says_zero():
    values, seeds, ids = crossed(rng(3), seed_sd=0.3)
    a, b = values.ravel() + 0.3, np.zeros(180)
    both, questions = (intervals.paired_difference(a, b, clusters=ids, seeds=s) for s in (seeds, None))
    assert both.difference == questions.difference
    assert both.p > 0.05 > questions.p and both.interval[0] < 0 < questions.interval[0]
    assert intervals.paired_difference(a, a, clusters=ids, seeds=seeds).p == 1.0
    same = intervals.paired_difference(b + 1, b, clusters=ids, seeds=seeds)
    assert same.interval == pytest.approx((1 - WILSON[60], 1 + WILSON[60])) and same.p == 2 * 0.5**60


# --- one more run


def test_the_prediction_interval_is_that_of_a_new_seed_mean():
    means = np.array([50.0, 52.0, 49.0, 51.5])
    half = intervals.prediction_half_width(means.std(ddof=1), 4, 500, unit=100.0)
    assert half == pytest.approx(stats.t.ppf(0.975, 3) * means.std(ddof=1) * np.sqrt(1 + 1 / 4))
    assert np.isnan(intervals.prediction_half_width(np.nan, 1, 500))
    assert intervals.prediction_half_width(0.0, 3, 500, unit=100.0) == pytest.approx(100 * WILSON[500])


def test_one_more_run_lies_inside_as_often_as_promised():
    generator, inside = rng(12), 0
    for _ in range(2000):
        runs = 50 + 2.0 * generator.normal(size=6)
        half = intervals.prediction_half_width(runs[:5].std(ddof=1), 5, 500, unit=100.0)
        inside += abs(runs[5] - runs[:5].mean()) <= half
    assert 0.93 < inside / 2000 < 0.97


# --- minimum detectable effect


def test_minimum_detectable_effect_by_hand():
    # many questions: (1.959964 + 0.841621) standard errors; two degrees of freedom need twice as many
    assert intervals.minimum_detectable_effect(1.0, 100_000) == pytest.approx(2.8016, abs=1e-3)
    assert intervals.minimum_detectable_effect(0.5, 2) == pytest.approx(0.5 * 5.6535, abs=1e-3)
    size = intervals.minimum_detectable_effect(1.0, 9)
    assert stats.nct.sf(stats.t.ppf(0.975, 9), 9, size) == pytest.approx(0.8, abs=1e-3)
    assert np.isnan(intervals.minimum_detectable_effect(0.0, 9))
    assert np.isnan(intervals.minimum_detectable_effect(np.nan, 0))


def test_power_is_eighty_per_cent_at_the_minimum_detectable_effect():
    generator, n, found = rng(5), 80, 0
    effect = intervals.minimum_detectable_effect(1 / np.sqrt(n), n - 1)
    for _ in range(400):
        differences = effect + generator.normal(size=n)
        found += intervals.paired_difference(differences, np.zeros(n)).p < 0.05
    assert found / 400 == pytest.approx(0.8, abs=0.06)


def test_power_of_mcnemar_at_the_minimum_detectable_effect():
    # 200 questions, of which 20 % flip one way or the other; the exact test needs a little more than the t test
    generator, n, flips = rng(6), 200, 0.2
    effect = intervals.minimum_detectable_effect(np.sqrt(flips / n), n - 1)
    found = 0
    for _ in range(400):
        flipped = generator.random(n) < flips
        won = flipped & (generator.random(n) < (1 + effect / flips) / 2)
        found += intervals.mcnemar_exact(won, flipped & ~won) < 0.05
    assert 0.72 < found / 400 < 0.86


def test_the_first_step_of_holm_needs_a_larger_difference():
    """Bonferroni's level .05 / 8: t quantiles of many degrees of freedom are 2.7344 (two-sided .00625) and 0.8416."""
    assert intervals.minimum_detectable_effect(1.0, 1e6, tests=8) == pytest.approx(2.7344 + 0.8416, abs=1e-3)
    size, critical = intervals.minimum_detectable_effect(1.0, 9, tests=8), stats.t.isf(0.05 / 8 / 2, 9)
    assert stats.nct.sf(critical, 9, size) == pytest.approx(0.8, abs=1e-6)
    p = np.full(8, 1.0)
    p[3] = 2 * stats.t.sf(critical + 1e-9, 9)
    assert intervals.holm(p)[3] == pytest.approx(0.05, abs=1e-6)  # the smallest of eight passes just there


@pytest.mark.parametrize(("df", "tests"), [(0.5, 31), (0.3, 8), (0.99, 1000)])
def test_fewer_degrees_of_freedom_than_one_have_a_detectable_effect(df, tests):
    """Two seeds and few questions: scipy's noncentral t fails there. Power by simulation of its definition."""
    size, critical = (
        intervals.minimum_detectable_effect(1.0, df, tests),
        stats.t.isf(0.05 / tests / 2, df),
    )
    generator = rng(8)
    t = (generator.normal(size=200_000) + size) / np.sqrt(generator.chisquare(df, 200_000) / df)
    assert (t > critical).mean() == pytest.approx(0.8, abs=0.005)


# --- where nothing varies, and where few pairs differ


@pytest.mark.parametrize("seeds", [1, 2, 3])
@pytest.mark.parametrize(("value", "n"), [(0, 500), (1, 500), (1, 16), (0, 3), (1, 4)])
def test_a_share_at_its_edge_has_wilson_s_interval(value, n, seeds):
    """0 of 500, 16 of 16 and their like, with one and several seeds."""
    answers, ids = np.full(n * seeds, float(value)), np.tile(np.arange(n), seeds)
    labels = np.repeat(range(seeds), n)
    got = intervals.mean_interval(answers, clusters=ids, seeds=labels, share=True)
    expected = (0.0, WILSON[n]) if value == 0 else (1 - WILSON[n], 1.0)
    assert got == pytest.approx(expected)


def test_one_question_answered_often_is_one_response():
    got = intervals.mean_interval(np.ones(5), clusters=np.zeros(5), seeds=np.arange(5), share=True)
    assert got == pytest.approx(intervals.wilson_interval(1, 1))


def test_values_that_are_no_shares_are_refused():
    with pytest.raises(ValueError, match="got shares from 0 to 100; expected values of 0 or 1"):
        intervals.mean_interval([0.0, 100.0], share=True)


def test_a_share_is_never_more_certain_than_independent_answers():
    answers, seeds, ids = np.ones(600), np.repeat(range(3), 200), np.tile(np.arange(200), 3)
    answers[5] = 0.0
    for labels in (seeds, None):  # 599 of 600, over seeds or in three samples of each question
        low, high = intervals.mean_interval(answers, clusters=ids, seeds=labels, share=True)
        wilson = intervals.wilson_interval(599, 600)
        assert low <= wilson[0] and wilson[1] <= high <= 1.0


@pytest.mark.parametrize("value", [0.0, 2.0])
@pytest.mark.parametrize("seeds", [1, 3])
def test_counts_that_are_all_equal_have_the_rule_of_three(value, seeds):
    counts, ids = np.full(60 * seeds, value), np.tile(np.arange(60), seeds)
    low, high = intervals.mean_interval(counts, clusters=ids, seeds=np.repeat(range(seeds), 60))
    assert (low, high) == pytest.approx((value - WILSON[60], value + WILSON[60]))


@pytest.mark.parametrize("seeds", [1, 3])
def test_a_few_counts_reach_at_least_as_far_as_none(seeds):
    """One false claim in 500 questions is no more certain than none: Wilson's interval of 1 in 500, times its size."""
    counts = np.zeros((seeds, 500))
    counts[:, 7] = 2.0
    few = intervals.interval_of(
        intervals.two_way(counts, np.ones_like(counts), counts=True), bounds=(0, np.inf)
    )
    assert few == pytest.approx((0.0, 2 * intervals.wilson_interval(1, 500)[1]))
    none = intervals.interval_of(
        intervals.two_way(0 * counts, np.ones_like(counts), counts=True), bounds=(0, np.inf)
    )
    assert none == pytest.approx((0.0, WILSON[500]))
    many = rng(0).poisson(1.0, size=(seeds, 500)).astype(float)
    assert intervals.two_way(many, np.ones_like(many), counts=True).counted is None


@pytest.mark.parametrize(
    ("differences", "p", "holds_zero"),
    [
        ([1, 1, 1], 0.25, True),
        ([1] * 16, 2 * 0.5**16, False),
        ([0] * 16, 1.0, True),
        ([1] * 5 + [0] * 495, 2 * 0.5**5, True),  # five against none of 500
        ([-1] * 7 + [1] + [0] * 40, stats.binomtest(1, 8).pvalue, True),
        ([-1] * 13 + [1] * 4 + [0] * 83, stats.binomtest(4, 17).pvalue, False),
        ([0.4, 2.0, 3.1, 0.9], 0.125, True),  # counts
        ([1] * 2000, intervals.TINY, False),  # 2 ** -1999 is 0 in floating point
    ],
)
@pytest.mark.parametrize("seeds", [1, 3])
def test_few_pairs_are_never_more_certain_than_the_sign_test(differences, p, holds_zero, seeds):
    values, n = np.tile(np.array(differences, dtype=float), seeds), len(differences)
    labels = dict(clusters=np.tile(np.arange(n), seeds), seeds=np.repeat(range(seeds), n))
    got = intervals.paired_difference(values, 0 * values, scale=4.0, **labels)
    low, high = got.interval
    assert got.p >= p and (seeds > 1 or got.p == pytest.approx(p, rel=0.5))
    assert low < high and (low <= 0 <= high) == holds_zero


def test_a_difference_of_shares_stays_where_it_can_lie():
    """Three seeds at 90, 20 and 5 per cent against three at 100: Student's t alone says -166 points."""
    share, ids = np.repeat([90.0, 20.0, 5.0], 40), np.tile(np.arange(40), 3)
    labels = dict(clusters=ids, seeds=np.repeat(range(3), 40))
    got = intervals.paired_difference(share, 0 * share + 100.0, scale=100.0, **labels)
    assert got.interval[0] == -100.0 and got.interval[1] > 0
    assert intervals.paired_difference(share / 10, 0 * share + 10.0, **labels).interval[0] < -10.0  # counts


def test_a_table_can_name_its_draws():
    named = intervals.named_bootstrap(np.random.default_rng(7))
    assert named == "bootstrap over questions (10,000 draws, seed 7)"
    assert intervals.named_bootstrap(np.random.default_rng(7), 20, seeds=3).startswith(
        "bootstrap over questions and seeds (20 draws"
    )
