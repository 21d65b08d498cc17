"""Numbers -> intervals and tests: Wilson, Student's t over questions, two-way random effects over questions and seeds, Holm.

Pure, in closed form, on well-kept libraries (scipy, statsmodels): nothing is drawn, so no generator moves a p. Only what
is no mean (hypervolumes, fronts, kappa) is bootstrapped, by whoever computes it.

Responses y (S seeds, Q questions) of an arm, or paired differences of two arms, are read as mean + seed + question + rest,
seeds and questions both drawn at random. With the mean squares of that analysis of variance, the mean of all has the
variance (MS_seed + MS_question - MS_error) / (S Q), with degrees of freedom by Satterthwaite (Biometrics Bulletin 2, 1946;
Searle, Casella and McCulloch, Variance Components, 1992, chapter 4). A component of variance that is estimated below 0
counts as 0: each of the first two mean squares is at least MS_error. The degrees of freedom keep all three as they are, so
an interval changes smoothly where a component reaches 0. A ratio of sums is linearised first. With one seed the variance is
that of a mean of Q questions: such an interval is over questions, and says nothing of another training run.

No finite sample gives an interval of no width. Where nothing varies among n questions, as when 0 of 500 answers are right
or every count is 0, Wilson's upper bound w for 0 of n says how many questions may differ without one of n having shown
it (3.8/n at 95 %; the rule of three, Hanley and Lippman-Hand 1983, is its one-sided 3/n). The interval is the value
plus and minus w times the unit: 1 for a share or a count, so a question that differs is taken to differ by one. Where
fewer than FEW questions have any count, it reaches at least as far as Wilson's for their number. Where fewer than FEW
questions tell two methods apart, or all do by the same amount, no comparison is more certain than the sign test: p is at
least its p, and the interval holds 0 wherever its p is above the level.
"""

from typing import NamedTuple

import numpy as np

WILSON, QUESTIONS_ONLY = "Wilson over questions", "Student's t over questions"
QUESTIONS_AND_SEEDS = "two-way random effects over questions and seeds"
DRAWS = 10_000  # of a bootstrap of what is no mean
FEW = 10  # questions that tell two methods apart, or that have any count
TINY = float(np.finfo(float).tiny)  # the least p: 2,000 pairs that all point one way would give 0


class Estimate(NamedTuple):
    """A mean or a ratio of sums, with what its interval and test need.

    standard_error: NaN where nothing varies. seed_sd: standard deviation of the seeds' values, each over all questions; NaN for
    one seed. unit: for the interval where nothing varies; NaN gives none. sign_p: the sign test's p where a
    difference must not be more certain than it, otherwise 0. counted: (questions with any count, their mean) where these are
    fewer than FEW, otherwise None. draws (R,): bootstrap draws of what is no mean and has one seed, otherwise None.
    """

    value: float
    standard_error: float
    df: float
    questions: int
    seed_sd: float = np.nan
    unit: float = np.nan
    sign_p: float = 0.0
    counted: tuple[int, float] | None = None
    draws: np.ndarray | None = None


class PairedDifference(NamedTuple):
    """mean(a) - mean(b), its interval (low, high), the two-sided p in (0, 1], its standard error and their df.

    The error is NaN where nothing varies.
    """

    difference: float
    interval: tuple[float, float]
    p: float
    standard_error: float
    df: float


def wilson_interval(k, n, level=0.95):
    """Wilson score interval (low, high), within [0, 1], for k successes in n independent trials.

    Raises ValueError unless 0 <= k <= n and n > 0.
    """
    from statsmodels.stats.proportion import proportion_confint

    if n <= 0 or not 0 <= k <= n:
        raise ValueError(f"wilson_interval got k={k}, n={n}; expected 0 <= k <= n with n > 0.")
    low, high = proportion_confint(k, n, alpha=1 - level, method="wilson")
    return max(0.0, float(low)), min(1.0, float(high))


def named_bootstrap(rng, reps=DRAWS, seeds=1):
    """ "bootstrap over questions (10,000 draws, seed 7)": what a table says of the draws of this generator."""
    kind = "bootstrap over questions and seeds" if seeds > 1 else "bootstrap over questions"
    return f"{kind} ({reps:,} draws, seed {rng.bit_generator.seed_seq.entropy})"


# --- means over questions and seeds


def mean_squares(values):
    """(MS_seed, MS_question, MS_error) of values (S, Q), one response a cell; NaN where a factor has one level."""
    seeds, questions = values.shape
    by_seed, by_question = values.mean(axis=1), values.mean(axis=0)
    rest = values - by_seed[:, None] - by_question + values.mean()
    sums = (
        questions * ((by_seed - values.mean()) ** 2).sum(),
        seeds * ((by_question - values.mean()) ** 2).sum(),
    )
    squares = [
        total / (size - 1) if size > 1 else np.nan for total, size in zip(sums, values.shape, strict=True)
    ]
    free = (seeds - 1) * (questions - 1)
    return *squares, (rest**2).sum() / free if free else np.nan


def two_way(tops, bottoms, unit=1.0, paired=False, counts=False):
    """Estimate of sum(tops) / sum(bottoms) from sums (S, Q) of each seed and question.

    unit: what one response that differs would add to `tops` over the mean of `bottoms`. paired: tops are differences. counts:
    tops cannot be negative. Exact for means with as many responses in every cell, linearised otherwise: a cell
    without a response stands at the mean.
    """
    seeds, questions = tops.shape
    value = float(tops.sum() / bottoms.sum())
    scale = tops.size / bottoms.sum()
    rest = tops - value * bottoms
    rest = np.where(np.abs(rest) <= 1e-9 * np.abs(tops).max(), 0.0, rest) * scale
    of_seeds, of_questions, error = mean_squares(rest)
    if questions == 1:
        variance, df = np.nan, np.nan
    elif seeds == 1:
        variance, df = of_questions / questions, questions - 1
    else:
        total = max(of_seeds, error) + max(of_questions, error) - error
        free = np.array([seeds - 1, questions - 1, (seeds - 1) * (questions - 1)])
        spread = (np.array([of_seeds, of_questions, error]) ** 2 / free).sum()
        variance, df = total / tops.size, total**2 / spread if spread else questions - 1
    standard_error = float(np.sqrt(variance)) if variance > 0 else np.nan
    seed_sd = float(np.sqrt(of_seeds / questions)) if seeds > 1 else np.nan
    sign_p = _few_pairs_p(tops.sum(axis=0)) if paired else 0.0
    counted = _few_counts(tops.sum(axis=0) * scale / seeds) if counts else None
    return Estimate(value, standard_error, float(df), questions, seed_sd, unit, sign_p, counted)


def estimate(top, bottom, clusters=None, seeds=None, unit=1.0, paired=False, counts=False):
    """`two_way` of responses: top, bottom (N,), with labels (N,) of questions and seeds or None, as in `mean_interval`."""
    return two_way(*_sums(top, bottom, clusters, seeds), unit, paired, counts)


def mean_interval(values, level=0.95, clusters=None, seeds=None, share=False):
    """Interval (low, high) of the mean of values (N,), finite: drop what could not be scored first.

    clusters: (N,) labels of questions, each taken as a whole when it was answered more than once; None takes values.
    seeds: (N,) training seeds, crossed with the questions. Without, or with one seed, the interval is over questions.
    share: the values are 0 or 1. Their interval lies in [0, 1] and holds Wilson's for as many independent responses, since
        no design with questions answered more than once is more certain than that.
    What few seeds can show is an effect several times their spread; never that a smaller one is absent. Two seeds have too
    few degrees of freedom for 95 %: docs/statistics.md has the simulated coverage.
    """
    values = _finite(values, "values")
    if share and not ((values >= 0) & (values <= 1)).all():
        raise ValueError(f"got shares from {values.min():g} to {values.max():g}; expected values of 0 or 1.")
    result = estimate(values, np.ones_like(values), clusters, seeds)
    return share_interval(result, len(values), level) if share else interval_of(result, level)


def paired_difference(a, b, level=0.95, clusters=None, seeds=None, scale=None):
    """PairedDifference of two methods on the same questions: a[i] and b[i] belong to one question (and seed).

    a, b: (N,) finite. clusters, seeds: as in `mean_interval`, of the differences. Pairing seed with seed is right whether or
        not equal seeds share their luck.
    scale: the largest value possible, 1 for shares and 100 for per cent: no difference lies beyond it. None for counts.
    p is Student's t, as the interval. Few pairs: the module's docstring.
    """
    a, b = _pair(a, b)
    differences = a - b
    result = estimate(differences, np.ones_like(a), clusters, seeds, scale or 1.0, paired=True)
    bounds = (-scale, scale) if scale else (-np.inf, np.inf)
    interval = interval_of(result, level, bounds)
    return PairedDifference(
        float(differences.mean()), interval, two_sided_p(result), result.standard_error, result.df
    )


def estimate_function(value, draws, from_seeds, seeds, questions):
    """Estimate of what is no mean, from draws (R,) over questions and S seeds; from_seeds: the seeds' part of the variance."""
    variance = draws.var()
    rest = max(variance - from_seeds, 0.0)
    spread = from_seeds**2 / (seeds - 1) + rest**2 / max(questions - 1, 1)
    df = variance**2 / spread if spread > 0 else questions - 1
    return Estimate(value, float(np.sqrt(variance)) or np.nan, float(df), questions)


def _few_pairs_p(differences):
    """The sign test's p of one difference a question (Q,) where it binds: see FEW. Otherwise 0."""
    size = np.abs(differences)
    size = np.where(size <= 1e-9 * size.max(), 0.0, size)
    apart = size[size > 0]
    same = len(apart) == 0 or np.ptp(apart) <= 1e-9 * apart.max()
    return sign_test(np.where(size > 0, differences, 0.0)) if same or len(apart) < FEW else 0.0


def _few_counts(counts):
    """(number of questions with any count, mean of those counts), None where there are FEW or more. counts: (Q,)."""
    some = counts[counts > 0]
    return (len(some), float(some.mean())) if 0 < len(some) < FEW and len(some) < len(counts) else None


def _sums(top, bottom, clusters, seeds):
    """Sums per seed and cluster, (S, Q) each; a combination without a response is 0 in both."""
    for name, labels in (("cluster", clusters), ("seed", seeds)):
        if labels is not None and len(labels) != len(top):
            raise ValueError(
                f"got {len(labels)} {name} labels for {len(top)} values; expected one label per value."
            )
    if seeds is not None and clusters is None:
        raise ValueError("got seeds without clusters; expected the question ids too: both are drawn.")
    if clusters is None:
        return top[None], bottom[None]
    _, question = np.unique(np.asarray(clusters), return_inverse=True)
    _, seed = np.unique(np.zeros(len(top)) if seeds is None else np.asarray(seeds), return_inverse=True)
    shape = seed.max() + 1, question.max() + 1
    cell = seed * shape[1] + question
    return tuple(np.bincount(cell, part, shape[0] * shape[1]).reshape(shape) for part in (top, bottom))


# --- an Estimate -> interval, p, detectable difference


def interval_of(result, level=0.95, bounds=(-np.inf, np.inf)):
    """(low, high) of an Estimate within bounds: Student's t; percentiles where it has draws.

    Where nothing varies, and where few questions count: the module's docstring; NaN for one question, and for a quantity
    without a unit.
    """
    from scipy.stats import t

    if not result.standard_error > 0:
        several = result.questions > 1
        half = result.unit * wilson_interval(0, result.questions, level)[1] if several else np.nan
        low, high = result.value - half, result.value + half
    elif result.draws is None:
        half = t.ppf((1 + level) / 2, result.df) * result.standard_error
        low, high = result.value - half, result.value + half
    else:
        low, high = np.quantile(result.draws, [(1 - level) / 2, (1 + level) / 2])
    if result.counted:
        k, size = result.counted
        wilson = wilson_interval(k, result.questions, level)
        low, high = min(low, size * wilson[0]), max(high, size * wilson[1])
    if result.sign_p > 1 - level:
        low, high = np.minimum(low, 0.0), np.maximum(high, 0.0)
    return float(np.clip(low, *bounds)), float(np.clip(high, *bounds))


def share_interval(result, responses, level=0.95, scale=1.0):
    """`interval_of` the share of right responses, in [0, scale], never narrower than Wilson's: `mean_interval`.

    One question is one response, however often it was answered: nothing shows how far another would lie.
    """
    responses = responses if result.questions > 1 else 1
    k = min(max(result.value / scale * responses, 0.0), responses)
    wilson = wilson_interval(k, responses, level)
    low, high = interval_of(result, level, (0.0, scale))
    return float(np.fmin(low, scale * wilson[0])), float(np.fmax(high, scale * wilson[1]))


def two_sided_p(result):
    """p in (0, 1] that the quantity of an Estimate is 0; NaN where nothing says so."""
    from scipy.stats import t

    if not result.standard_error > 0:
        p = 0.0 if result.sign_p else np.nan
    else:
        p = float(2 * t.sf(abs(result.value) / result.standard_error, result.df))
    return max(p, result.sign_p, TINY)


def prediction_half_width(seed_sd, seeds, questions, unit=1.0, level=0.95):
    """How far one more run may lie from the mean of `seeds` runs on the same questions: t times seed_sd times sqrt(1 + 1/S).

    seed_sd: of an Estimate; on the same questions the two runs differ by seeds and by the rest alone, whose mean square is
    Q seed_sd². NaN for one seed, which shows no spread. Seeds that agree exactly: Wilson's bound times the unit, as
    everywhere where nothing varies.
    """
    from scipy.stats import t

    if not (seeds > 1 and np.isfinite(seed_sd)):
        return np.nan
    half = t.ppf((1 + level) / 2, seeds - 1) * seed_sd * np.sqrt(1 + 1 / seeds)
    return float(max(half, unit * wilson_interval(0, questions, level)[1]))


def minimum_detectable_effect(standard_error, df, tests=1, power=0.8, level=0.95):
    """The smallest true difference that a two-sided t test finds with `power`, in the unit of the error.

    tests: how many tests are corrected for one another. The level is that of Holm's first step, (1 - level) / tests, which the
        smallest p must pass; for a later step less is needed.
    standard_error, df: of a PairedDifference. The spread is the observed one. NaN where nothing varies: no spread, no statement.
    """
    from scipy.optimize import brentq
    from scipy.stats import chi2, nct, norm, t

    if not (standard_error > 0 and df > 0):
        return float("nan")
    critical = t.isf((1 - level) / tests / 2, df)
    if df < 1:  # scipy's noncentral t fails there: its integral over the error's quantiles
        error = critical * np.sqrt(chi2.ppf((np.arange(4000) + 0.5) / 4000, df) / df)
        found = brentq(lambda size: norm.cdf(size - error).mean() - power, 0.0, error.max() + 10.0)
    else:
        found = brentq(lambda size: nct.sf(critical, df, size) - power, 0.0, 10.0 * critical + 10.0)
    return float(found * standard_error)


# --- tests of fixed models, and many tests


def mcnemar_exact(a, b):
    """Two-sided exact McNemar p for paired right/wrong answers of two fixed models: the luck of training is not in it.

    a, b: (N,) booleans on the same questions in the same order. Only questions on which they disagree count;
    p is 1 when there is none. Not for several samples of one question: those are not independent pairs.
    """
    a, b = _pair(a, b)
    if not (np.isin(a, (0, 1)).all() and np.isin(b, (0, 1)).all()):
        raise ValueError("mcnemar_exact got values other than true and false; pass the `correct` columns.")
    return sign_test(a - b)


def sign_test(differences):
    """Two-sided exact p in (0, 1] that positive and negative differences (N,) are as likely; zeros do not count."""
    from scipy.stats import binomtest

    up, down = int((differences > 0).sum()), int((differences < 0).sum())
    return max(TINY, float(binomtest(up, up + down).pvalue)) if up + down else 1.0


def holm(p):
    """Holm's step-down adjusted p-values (M,) in the order given; compare with the family-wise level."""
    from statsmodels.stats.multitest import multipletests

    p = np.asarray(p, dtype=float)
    if p.size == 0 or not ((p >= 0) & (p <= 1)).all():
        raise ValueError(f"holm got {p.tolist()}; expected one or more p-values in [0, 1].")
    return multipletests(p, method="holm")[1]


def _finite(values, name):
    values = np.asarray(values, dtype=float)
    if values.ndim != 1 or values.size == 0 or not np.isfinite(values).all():
        raise ValueError(
            f"{name} has shape {values.shape}; expected one or more finite numbers: drop missing ones first."
        )
    return values


def _pair(a, b):
    a, b = _finite(a, "a"), _finite(b, "b")
    if len(a) != len(b):
        raise ValueError(
            f"got {len(a)} and {len(b)} values; expected pairs: the same questions in the same order."
        )
    return a, b
