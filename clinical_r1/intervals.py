"""Numbers -> intervals and tests: Wilson, bootstrap over questions and seeds, McNemar, Holm, detectable effects.

Pure and on well-kept libraries (scipy, statsmodels). Everything random takes an `np.random.Generator`: the same
one gives the same interval. Over questions and seeds nothing is drawn, because the bootstrap's variance has a closed form.

No finite sample gives an interval of no width. Where nothing varies among n questions, as when 0 of 500 answers are right
or every count is 0, Wilson's upper bound w for 0 of n says how many questions may differ without one of n having shown
it (3.8/n at 95 %; the rule of three, Hanley and Lippman-Hand 1983, is its one-sided 3/n). The interval is the value
plus and minus w times the unit: 1 for a share or a count, so a question that differs is taken to differ by one. Where
fewer than FEW questions tell two methods apart, or all do by the same amount, no comparison is more certain than the
sign test: p is at least its p, and the interval holds 0 wherever its p is above the level.
"""

from typing import NamedTuple

import numpy as np

QUESTIONS_ONLY, QUESTIONS_AND_SEEDS = "bootstrap over questions", "bootstrap over questions and seeds"
# Draws of questions: 30 generators then put a p of .050 between .042 and .060 (2,000 draws: .033 and .066)
DRAWS = 10_000
FEW = 10  # questions that tell two methods apart
TINY = float(np.finfo(float).tiny)  # the least p: 2,000 pairs that all point one way would give 0


class PairedDifference(NamedTuple):
    """mean(a) - mean(b), its interval (low, high), the two-sided p in (0, 1], its standard error and their df.

    The error is NaN where nothing varies.
    """

    difference: float
    interval: tuple[float, float]
    p: float
    standard_error: float
    df: float


class Resampled(NamedTuple):
    """A ratio of sums, or a function of such ratios, with what its interval and test need.

    standard_error: NaN where nothing varies. draws (R,): over questions; None where seeds are crossed with them. questions,
    unit: for the interval where nothing varies; a NaN unit gives none. sign_p: the sign test's p where a difference must
    not be more certain than it, otherwise 0.
    """

    estimate: float
    standard_error: float
    df: float
    draws: np.ndarray | None
    questions: int
    unit: float = np.nan
    sign_p: float = 0.0


def wilson_interval(k, n, level=0.95):
    """Wilson score interval (low, high), within [0, 1], for k successes in n independent trials.

    Raises ValueError unless 0 <= k <= n and n > 0.
    """
    from statsmodels.stats.proportion import proportion_confint

    if n <= 0 or not 0 <= k <= n:
        raise ValueError(f"wilson_interval got k={k}, n={n}; expected 0 <= k <= n with n > 0.")
    low, high = proportion_confint(k, n, alpha=1 - level, method="wilson")
    return max(0.0, float(low)), min(1.0, float(high))


def named_bootstrap(rng, reps=DRAWS, kind=QUESTIONS_ONLY):
    """ "bootstrap over questions (10,000 draws, seed 7)": what a table says of the draws of this generator."""
    return f"{kind} ({reps:,} draws, seed {rng.bit_generator.seed_seq.entropy})"


def bootstrap_interval(values, rng, level=0.95, clusters=None, seeds=None, reps=DRAWS, share=False):
    """Bootstrap interval (low, high) of the mean.

    values: (N,) finite; drop what could not be scored first.
    clusters: (N,) labels drawn as a whole (question ids, when a question was answered more than once); None
        draws values. Clustering by question covers the choice of questions, not the luck of training seeds.
    seeds: (N,) training seeds, crossed with the clusters. With two or more of them, questions and seeds are
        drawn independently and a response counts as often as its question times its seed (the pigeonhole
        bootstrap, Owen 2007). Without, or with one seed, the interval is the percentile interval of questions.
    share: the values are 0 or 1. Their interval lies in [0, 1] and holds Wilson's for as many independent responses, since
        no design with questions answered more than once is more certain than that.

    Drawing all S seeds would shrink their share of the variance by (S-1)/S, so S-1 are drawn, which leaves it
    unbiased (Rao and Wu 1988). The part of the noise that neither axis explains counts up to three times (Owen):
    the error is on the wide side where seeds agree. A percentile interval would end at the best and the worst of
    few seeds, and three seeds enclose their mean at most 75 % of the time. The interval is therefore the mean plus
    or minus Student's t times the bootstrap standard error, with Satterthwaite's degrees of freedom: S-1 where
    seeds dominate, near the number of questions where they agree. That error is the limit of infinitely many draws, so no
    generator moves it.

    What three seeds can show is an effect several times their spread; never that a smaller one is absent. In
    simulation, three seeds that vary as those of the `cpu` run do (5 points, 500 questions) give 93 % coverage for
    95 %; the percentile interval gives 89 %, questions alone 60 %.
    """
    values = _finite(values, "values")
    result = resample(values, np.ones_like(values), clusters, seeds, rng, reps)
    return share_interval(result, len(values), level) if share else ratio_interval(result, level)


def paired_bootstrap(a, b, rng, level=0.95, clusters=None, seeds=None, reps=DRAWS, scale=None):
    """PairedDifference of two methods on the same questions: a[i] and b[i] belong to one question (and seed).

    a, b: (N,) finite. clusters: (N,) question ids when a question appears more than once.
    seeds: (N,) training seeds, drawn as well (see `bootstrap_interval`). Pairing seed with seed is right whether or
        not equal seeds share their luck.
    scale: the largest value possible, 1 for shares and 100 for per cent: no difference lies beyond it. None for counts.
    p over questions inverts the percentile interval and counts the observed sample once, so it is never 0; over
    questions and seeds it is Student's t, as the interval. Few pairs: the module's docstring.
    """
    a, b = _pair(a, b)
    differences, unit = a - b, scale or 1.0
    result = resample(differences, np.ones_like(a), clusters, seeds, rng, reps, unit, paired=True)
    bounds = (-scale, scale) if scale else (-np.inf, np.inf)
    interval = ratio_interval(result, level, bounds)
    return PairedDifference(
        float(differences.mean()), interval, two_sided_p(result), result.standard_error, result.df
    )


def two_sided_p(result):
    """p in (0, 1] that the quantity of a Resampled is 0, as in `paired_bootstrap`."""
    from scipy.stats import t

    if not result.standard_error > 0:
        p = 0.0 if result.sign_p else np.nan
    elif result.draws is None:
        p = float(2 * t.sf(abs(result.estimate) / result.standard_error, result.df))
    else:
        tail = min((result.draws <= 0).sum(), (result.draws >= 0).sum())
        p = min(1.0, float(2 * (1 + tail) / (len(result.draws) + 1)))
    return max(p, result.sign_p, TINY)


def minimum_detectable_effect(standard_error, df, power=0.8, level=0.95):
    """The smallest true difference that a two-sided paired t test at `level` finds with `power`; unit of the error.

    standard_error, df: of a PairedDifference. Over questions they come from the differences per question (their sd
        over the root of their number), exactly a paired t test's; over questions and seeds the error is the bootstrap's,
        because no count of independent differences exists there.
    The spread is the observed one. NaN where nothing varies: no spread, no statement. In simulation the tests find it
    80 % (over questions), 77 % (exact McNemar) and 76 to 81 % (over questions and 3 to 5 seeds) of the time.
    """
    from statsmodels.stats.power import TTestPower

    if not (standard_error > 0 and df > 0):
        return float("nan")
    size = TTestPower().solve_power(nobs=df + 1, alpha=1 - level, power=power, alternative="two-sided")
    size = float(np.squeeze(size))  # (1,) where statsmodels changes its solver
    return size * float(np.sqrt(df + 1) * standard_error)


def mcnemar_exact(a, b):
    """Two-sided exact McNemar p for paired right/wrong answers.

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


def resample(top, bottom, clusters, seeds, rng, reps=DRAWS, unit=1.0, paired=False):
    """Resampled: sum(top) / sum(bottom), both (N,), over clusters, and over seeds where there are two or more.

    clusters, seeds: (N,) labels or None, as in `bootstrap_interval`. unit, paired: as in `resample_sums`. Sums are taken once
    per seed and cluster, so the cost does not grow with the responses to a question.
    """
    tops, bottoms = _sums(top, bottom, clusters, seeds)
    draws = _draw_ratios(tops[0], bottoms[0], rng, reps) if len(tops) == 1 else None
    return resample_sums(tops, bottoms, draws, unit, paired)


def resample_sums(tops, bottoms, draws, unit=1.0, paired=False):
    """Resampled: sum(tops) / sum(bottoms) from sums (S, Q) a seed and question; one seed brings its `draws` over questions.

    unit: what one response that differs would add to `top` over the mean of `bottom`. paired: tops are differences.
    The pigeonhole bootstrap's variance, of S-1 seeds and Q questions drawn, in closed form for residuals e (S, Q) with sum 0:
    (S-2)/(S-1) Σ_q(Σ_s e)² + S/(S-1) (1 - 1/Q) Σ_s(Σ_q e)² + S/(S-1) Σ e², exact for a mean, linearised for a ratio.
    """
    seeds, questions = tops.shape
    estimate = float(tops.sum() / bottoms.sum())
    e = tops - estimate * bottoms
    e = np.where(np.abs(e) <= 1e-9 * np.abs(tops).max(), 0.0, e) / bottoms.sum()
    by_question, df = (e.sum(axis=0) ** 2).sum(), questions - 1
    if seeds == 1:
        variance = questions / df * by_question if df else np.nan
    else:
        from_seeds = seeds / (seeds - 1) * (e.sum(axis=1) ** 2).sum()
        rest = (seeds - 2) / (seeds - 1) * by_question + seeds / (seeds - 1) * (e**2).sum()
        variance = rest + from_seeds * (1 - 1 / questions)
        df = _satterthwaite(variance, from_seeds, seeds, questions)
    sign_p = _few_pairs_p(tops.sum(axis=0)) if paired else 0.0
    error = float(np.sqrt(variance)) if variance > 0 else np.nan
    return Resampled(estimate, error, float(df), draws, questions, unit, sign_p)


def resample_function(estimate, draws, from_seeds, seeds, questions):
    """Resampled of what is no mean, from draws (R,) over questions and S seeds; from_seeds: the seeds' part of the variance."""
    variance = draws.var()
    df = _satterthwaite(variance, from_seeds, seeds, questions)
    return Resampled(estimate, float(np.sqrt(variance)) or np.nan, float(df), None, questions)


def _satterthwaite(variance, from_seeds, seeds, questions):
    rest = max(variance - from_seeds, 0.0)
    spread = from_seeds**2 / (seeds - 1) + rest**2 / max(questions - 1, 1)
    return variance**2 / spread if spread > 0 else questions - 1


def _few_pairs_p(differences):
    """The sign test's p of one difference a question (Q,) where it binds: see FEW. Otherwise 0."""
    size = np.abs(differences)
    size = np.where(size <= 1e-9 * size.max(), 0.0, size)
    apart = size[size > 0]
    same = len(apart) == 0 or np.ptp(apart) <= 1e-9 * apart.max()
    return sign_test(np.where(size > 0, differences, 0.0)) if same or len(apart) < FEW else 0.0


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


def _draw_ratios(top, bottom, rng, reps):
    """(reps,) draws of the ratio: Q of Q questions, from sums (Q,); draws without a response are left out."""
    questions, ratios = len(top), []
    rows = max(1, 2_000_000 // questions)  # bounds memory: at most 16 MB of indices at a time
    for start in range(0, reps, rows):
        size = min(rows, reps - start)
        weights = _counts(rng.integers(questions, size=(size, questions)), questions)
        drawn_top, drawn_bottom = weights @ top, weights @ bottom
        ratios.append(drawn_top[drawn_bottom > 0] / drawn_bottom[drawn_bottom > 0])
    return np.concatenate(ratios)


def _counts(drawn, n):
    """(R, n): how often each of n labels stands in each row of `drawn` (R, K)."""
    rows = len(drawn)
    flat = drawn + np.arange(rows)[:, None] * n
    return np.bincount(flat.ravel(), minlength=rows * n).reshape(rows, n).astype(float)


def ratio_interval(result, level=0.95, bounds=(-np.inf, np.inf)):
    """(low, high) of a Resampled within bounds: percentiles of its draws, Student's t where seeds were crossed with questions.

    Where nothing varies: the module's docstring; NaN for one question, and for a quantity without a unit.
    """
    from scipy.stats import t

    if not result.standard_error > 0:
        several = result.questions > 1
        half = result.unit * wilson_interval(0, result.questions, level)[1] if several else np.nan
        low, high = result.estimate - half, result.estimate + half
    elif result.draws is None:
        half = t.ppf((1 + level) / 2, result.df) * result.standard_error
        low, high = result.estimate - half, result.estimate + half
    else:
        low, high = np.quantile(result.draws, [(1 - level) / 2, (1 + level) / 2])
    if result.sign_p > 1 - level:
        low, high = np.minimum(low, 0.0), np.maximum(high, 0.0)
    return float(np.clip(low, *bounds)), float(np.clip(high, *bounds))


def share_interval(result, responses, level=0.95, scale=1.0):
    """`ratio_interval` of the share of right responses, in [0, scale], never narrower than Wilson's: `bootstrap_interval`."""
    k = min(max(result.estimate / scale * responses, 0.0), responses)
    wilson = wilson_interval(k, responses, level)
    low, high = ratio_interval(result, level, (0.0, scale))
    return float(np.fmin(low, scale * wilson[0])), float(np.fmax(high, scale * wilson[1]))


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
