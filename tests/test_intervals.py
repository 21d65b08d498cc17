"""Intervals and tests, checked by hand arithmetic, plain loops and small simulations.

python -m pytest tests/test_intervals.py
"""

import numpy as np
import pytest
from records import rng
from scipy import stats

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


def test_bootstrap_same_rng_same_interval_and_other_rng_another():
    values = rng(3).normal(size=50)
    first = intervals.bootstrap_interval(values, rng(1))
    assert first == intervals.bootstrap_interval(values, rng(1))
    assert first != intervals.bootstrap_interval(values, rng(2))
    assert first[0] < values.mean() < first[1]


def test_bootstrap_agrees_with_a_plain_loop():
    values, clusters = np.array([0.0, 1.0, 1.0, 5.0, 2.0]), np.array(["a", "a", "b", "c", "c"])
    own = {name: values[clusters == name] for name in "abc"}
    draws, generator = [], rng(7)
    for picked in generator.integers(3, size=(400, 3)):
        draws.append(np.concatenate([own["abc"[i]] for i in picked]).mean())
    expected = np.quantile(draws, [0.025, 0.975])
    assert intervals.bootstrap_interval(values, rng(7), clusters=clusters, reps=400) == pytest.approx(
        tuple(expected)
    )


def test_copies_of_a_question_do_not_narrow_the_clustered_interval():
    values = rng(5).integers(0, 2, size=40).astype(float)
    copies, ids = np.tile(values, 25), np.tile(np.arange(40), 25)
    once = np.subtract(*intervals.bootstrap_interval(values, rng(), clusters=np.arange(40)))
    clustered = np.subtract(*intervals.bootstrap_interval(copies, rng(), clusters=ids))
    naive = np.subtract(*intervals.bootstrap_interval(copies, rng(), reps=500))
    assert clustered == pytest.approx(once)
    assert abs(naive) < abs(clustered) / 3


@pytest.mark.parametrize("values", [[], [1.0, np.nan], [[1.0]]])
def test_bootstrap_refuses_missing_values(values):
    with pytest.raises(ValueError, match="finite numbers"):
        intervals.bootstrap_interval(values, rng())


def test_bootstrap_refuses_clusters_of_another_length():
    with pytest.raises(ValueError, match="2 cluster labels for 3 values"):
        intervals.bootstrap_interval([1.0, 2.0, 3.0], rng(), clusters=["a", "b"])


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


def test_paired_bootstrap():
    a, b = np.array([1.0, 1, 1, 0, 1, 1, 1, 1]), np.array([0.0, 0, 1, 0, 0, 0, 0, 0])
    result = intervals.paired_bootstrap(a, b, rng())
    assert result.difference == pytest.approx(6 / 8)
    assert result.interval[0] > 0 and result.p < 0.05
    assert result == intervals.paired_bootstrap(a, b, rng())
    same = intervals.paired_bootstrap(a, a, rng(), scale=1.0)
    assert same.interval == pytest.approx((-WILSON[8], WILSON[8])) and (same.p, same.df) == (1.0, 7)
    assert np.isnan(same.standard_error) and np.isnan(intervals.minimum_detectable_effect(*same[3:]))
    noise = rng(1).normal(size=(2, 60))
    assert intervals.paired_bootstrap(noise[0], noise[1], rng()).p > 0.05


def test_paired_bootstrap_uses_the_clusters():
    a, b = np.tile([1.0, 1, 0, 1, 0, 1], 20), np.tile([0.0, 1, 1, 0, 0, 0], 20)
    ids = np.tile(np.arange(6), 20)
    assert (
        intervals.paired_bootstrap(a, b, rng()).p
        < 0.01
        < intervals.paired_bootstrap(a, b, rng(), clusters=ids).p
    )


def test_holm_golden():
    # sorted .01*3, .03*2, .04*1 raised to stay monotone
    assert intervals.holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert intervals.holm([0.6, 0.9]) == pytest.approx([1.0, 1.0])
    with pytest.raises(ValueError, match="p-values in"):
        intervals.holm([0.1, np.nan])


# --- questions and seeds


def crossed(generator, seeds=3, questions=60, seed_sd=0.0, question_sd=0.25, noise_sd=0.4):
    """(S, Q) responses of a crossed random-effects model with mean 0, and their labels."""
    values = seed_sd * generator.normal(size=(seeds, 1)) + question_sd * generator.normal(size=(1, questions))
    values = values + noise_sd * generator.normal(size=(seeds, questions))
    return values, np.repeat(np.arange(seeds), questions), np.tile(np.arange(questions), seeds)


def nested_loops(cells, generator, reps):
    """Means of `reps` draws of the questions and of one seed fewer than there are; cells: {(seed, question): values}."""
    seeds, questions = (sorted(set(names)) for names in zip(*cells, strict=True))
    draws = []
    for _ in range(reps):
        picked = [seeds[i] for i in generator.integers(len(seeds), size=len(seeds) - 1)]
        drawn = []
        for i in generator.integers(len(questions), size=len(questions)):
            for seed in picked:
                drawn += cells.get((seed, questions[i]), [])
        draws += [np.mean(drawn)] if drawn else []
    return draws


RAGGED = {(seed, q): [float(seed * q % 5)] for seed in range(3) for q in range(12)}
RAGGED |= {(0, 3): [0.0, 3.0], (2, 5): [2.0, 2.0]}
CELLS = {
    "three seeds": {(s, "abcd"[q]): [float((s + 1) * q % 4)] for s in range(3) for q in range(4)},
    "two seeds": {(s, q): [float(s + (q % 3))] for s in range(2) for q in range(7)},
    "ragged": {key: values for key, values in RAGGED.items() if key != (1, 7)},
}


@pytest.mark.parametrize("name", CELLS)
def test_the_crossed_error_is_that_of_nested_loops(name):
    labels = [(v, s, q) for (s, q), own in CELLS[name].items() for v in own]
    values, seeds, ids = zip(*labels, strict=True)
    result = intervals.resample(np.array(values), np.ones(len(values)), ids, seeds, None)
    draws = nested_loops(CELLS[name], rng(7), 3000)
    assert result.standard_error == pytest.approx(np.std(draws), rel=0.08 if name == "ragged" else 0.04)
    half = stats.t.ppf(0.975, result.df) * result.standard_error
    got = intervals.bootstrap_interval(np.array(values), None, clusters=ids, seeds=seeds)
    assert got == pytest.approx((np.mean(values) - half, np.mean(values) + half))


def test_one_seed_gives_the_interval_of_questions():
    values, ids = rng(1).integers(0, 4, size=90).astype(float), np.arange(90) % 30
    alone = intervals.bootstrap_interval(values, rng(2), clusters=ids)
    assert alone == intervals.bootstrap_interval(values, rng(2), clusters=ids, seeds=np.zeros(90))
    assert intervals.paired_bootstrap(
        values, values[::-1], rng(2), clusters=ids
    ) == intervals.paired_bootstrap(values, values[::-1], rng(2), clusters=ids, seeds=["7"] * 90)


def test_the_seeds_share_of_the_variance_is_not_shrunk():
    # no question effect at all: what is left is the textbook error of a mean of S seeds, with S - 1 degrees of freedom
    for means in ([0.2, 0.5], [0.1, 0.5, 0.9], [0.1, 0.3, 0.2, 0.9, 0.4]):
        size = len(means)
        values, ids = np.repeat(means, 8), np.tile(np.arange(8), size)
        result = intervals.resample(values, np.ones_like(values), ids, np.repeat(range(size), 8), None)
        assert result.standard_error == pytest.approx(np.std(means, ddof=1) / np.sqrt(size))
        assert result.df == pytest.approx(size - 1, rel=0.01)


def test_seeds_that_agree_leave_the_interval_of_questions():
    values = rng(4).normal(size=200)
    ids, seeds = np.tile(np.arange(200), 3), np.repeat(range(3), 200)
    both = intervals.bootstrap_interval(np.tile(values, 3), rng(0), clusters=ids, seeds=seeds)
    assert both == pytest.approx(
        intervals.bootstrap_interval(values, rng(0), clusters=np.arange(200)), abs=0.015
    )


def test_three_seeds_that_disagree_cover_and_questions_alone_do_not():
    covered, alone, generator = 0, 0, rng(11)
    for _ in range(200):
        values, seeds, ids = crossed(generator, seed_sd=0.15)
        low, high = intervals.bootstrap_interval(
            values.ravel(), generator, clusters=ids, seeds=seeds, reps=300
        )
        covered += low <= 0 <= high
        low, high = intervals.bootstrap_interval(values.ravel(), generator, clusters=ids, reps=300)
        alone += low <= 0 <= high
    assert covered >= 178 and alone < 140  # of 200, meant: 190


def test_paired_bootstrap_over_seeds_finds_less_and_never_says_zero():
    values, seeds, ids = crossed(rng(3), seed_sd=0.3)
    a, b = values.ravel() + 0.3, np.zeros(180)
    both, questions = (intervals.paired_bootstrap(a, b, rng(), clusters=ids, seeds=s) for s in (seeds, None))
    assert both.difference == questions.difference
    assert both.p > 0.05 > questions.p and both.interval[0] < 0 < questions.interval[0]
    assert intervals.paired_bootstrap(a, a, rng(), clusters=ids, seeds=seeds).p == 1.0
    same = intervals.paired_bootstrap(b + 1, b, rng(), clusters=ids, seeds=seeds)
    assert same.interval == pytest.approx((1 - WILSON[60], 1 + WILSON[60])) and same.p == 2 * 0.5**60


def test_seeds_need_questions_and_labels_for_each_value():
    with pytest.raises(ValueError, match="seeds without clusters"):
        intervals.bootstrap_interval([1.0, 2.0], rng(), seeds=[0, 1])
    with pytest.raises(ValueError, match="1 seed labels for 2 values"):
        intervals.bootstrap_interval([1.0, 2.0], rng(), clusters=["a", "b"], seeds=[0])


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
        found += intervals.paired_bootstrap(differences, np.zeros(n), generator, reps=400).p < 0.05
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


def test_power_with_seeds_at_the_minimum_detectable_effect():
    generator, seeds, questions, found = rng(8), 5, 60, 0
    error = np.sqrt(0.1**2 / seeds + 0.25**2 / questions + 0.4**2 / (seeds * questions))
    between, rest = 0.1**2 / seeds + 0.4**2 / (seeds * questions), 0.25**2 / questions
    df = error**4 / (between**2 / (seeds - 1) + rest**2 / (questions - 1))
    effect = intervals.minimum_detectable_effect(error, df)
    for _ in range(200):
        values, own, ids = crossed(generator, seeds, questions, seed_sd=0.1)
        a = values.ravel() + effect
        found += intervals.paired_bootstrap(a, 0 * a, generator, clusters=ids, seeds=own, reps=300).p < 0.05
    assert 0.68 < found / 200 < 0.9


# --- where nothing varies, and where few pairs differ


@pytest.mark.parametrize("seeds", [1, 2, 3])
@pytest.mark.parametrize(("value", "n"), [(0, 500), (1, 500), (1, 16), (0, 3), (1, 4)])
def test_a_share_at_its_edge_has_wilson_s_interval(value, n, seeds):
    """0 of 500, 16 of 16 and their like, with one and several seeds."""
    answers, ids = np.full(n * seeds, float(value)), np.tile(np.arange(n), seeds)
    labels = np.repeat(range(seeds), n)
    got = intervals.bootstrap_interval(answers, rng(), clusters=ids, seeds=labels, share=True)
    expected = (0.0, WILSON[n]) if value == 0 else (1 - WILSON[n], 1.0)
    assert got == pytest.approx(expected)


def test_a_share_is_never_more_certain_than_independent_answers():
    answers, seeds, ids = np.ones(600), np.repeat(range(3), 200), np.tile(np.arange(200), 3)
    answers[5] = 0.0
    for labels in (seeds, None):  # 599 of 600, over seeds or in three samples of each question
        low, high = intervals.bootstrap_interval(answers, rng(), clusters=ids, seeds=labels, share=True)
        wilson = intervals.wilson_interval(599, 600)
        assert low <= wilson[0] and wilson[1] <= high <= 1.0


@pytest.mark.parametrize("value", [0.0, 2.0])
@pytest.mark.parametrize("seeds", [1, 3])
def test_counts_that_are_all_equal_have_the_rule_of_three(value, seeds):
    counts, ids = np.full(60 * seeds, value), np.tile(np.arange(60), seeds)
    low, high = intervals.bootstrap_interval(counts, rng(), clusters=ids, seeds=np.repeat(range(seeds), 60))
    assert (low, high) == pytest.approx((value - WILSON[60], value + WILSON[60]))


def test_one_question_has_no_interval_of_a_count():
    assert np.isnan(intervals.bootstrap_interval([3.0, 5.0], rng(), clusters=["a", "a"])).all()


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
    got = intervals.paired_bootstrap(values, 0 * values, rng(), scale=4.0, **labels)
    low, high = got.interval
    assert got.p >= p and (seeds > 1 or got.p == pytest.approx(p, rel=0.5))
    assert low < high and (low <= 0 <= high) == holds_zero


def test_a_difference_of_shares_stays_where_it_can_lie():
    """Three seeds at 90, 20 and 5 per cent against three at 100: Student's t alone says -166 points."""
    share, ids = np.repeat([90.0, 20.0, 5.0], 40), np.tile(np.arange(40), 3)
    labels = dict(clusters=ids, seeds=np.repeat(range(3), 40))
    got = intervals.paired_bootstrap(share, 0 * share + 100.0, None, scale=100.0, **labels)
    assert got.interval[0] == -100.0 and got.interval[1] > 0
    assert (
        intervals.paired_bootstrap(share / 10, 0 * share + 10.0, None, **labels).interval[0] < -10.0
    )  # counts


@pytest.mark.parametrize("seeds", [2, 3, 5])
def test_no_generator_moves_a_p_over_questions_and_seeds(seeds):
    values, labels, ids = crossed(rng(seeds), seeds=seeds, seed_sd=0.1)
    results = {
        intervals.paired_bootstrap(values.ravel(), 0 * ids, rng(k), clusters=ids, seeds=labels)
        for k in range(3)
    }
    assert len(results) == 1


def test_a_table_can_name_its_draws():
    named = intervals.named_bootstrap(np.random.default_rng(7))
    assert named == "bootstrap over questions (10,000 draws, seed 7)"
