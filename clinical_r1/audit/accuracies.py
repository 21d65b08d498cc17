"""The printed accuracies: can they be k / n, how wide are they, which gains survive, what does guessing earn?

Pure: no model, no data, no network. Each check returns a tidy frame, and names the innocent explanation where there is one.
Every check takes the official size of a test set for n. For MedXpertQA the paper prints none, so all that is said of it is said
under an "if" (`if_n` tries other sizes). That an accuracy cannot be k / n shows another denominator, not a wrong result.
"""

from fractions import Fraction
from functools import lru_cache

import numpy as np

from clinical_r1 import paper
from clinical_r1.curation.releases import RELEASES
from clinical_r1.intervals import holm, wilson_interval

GAIN_PAIRS = (("crpo", "grpo"), ("cold_start_crpo", "cold_start_grpo"))

# Other sets of questions that a reader might suspect behind a number
OTHER_SETS = {
    "medqa": {"the development set": 1272},
    "medmcqa": {"only the single-choice items": 2816},
    "medxpertqa": {"the 1,449 text items of a common copy": 1449, "text and images together": 4460},
}
OPTIONS = {  # a question; the paper says four for MedQA, its Figure 6 shows A to E
    name: RELEASES[name].options for name in paper.BENCHMARKS
}

# The most frequent gold letter and the questions it was counted on (ours, from the public files)
MAJORITY_LETTER = {"medqa": (277, 1273), "medmcqa": (1348, 4183), "medxpertqa": (153, 1449)}


# --- accuracies as k / n


def attainable(percent, n, decimals=2):
    """Is the printed percentage some 100 k / n, rounded to `decimals`?

    Exact arithmetic; a value half-way may have been rounded either way. False means that n is not
    the denominator, or that several samples were averaged.
    """
    if n <= 0 or not 0 <= percent <= 100:
        raise ValueError(
            f"attainable got percent={percent}, n={n}; expected a percentage in [0, 100] and n > 0."
        )
    printed = Fraction(f"{percent:.{decimals}f}")
    k = round(printed * n / 100)
    return abs(Fraction(100 * k, n) - printed) <= Fraction(1, 2 * 10**decimals)


def fits(percent, n, cut=False):
    """Is a two-decimal percentage some 100 k / n? The vectorised `attainable`, in whole numbers.

    percent: a number, or an array that broadcasts against n. cut: decimals cut off rather than rounded.
    """
    hundredths = np.rint(np.asarray(percent, dtype=float) * 100).astype(np.int64)
    n = np.asarray(n, dtype=np.int64)
    if (n <= 0).any() or ((hundredths < 0) | (hundredths > 10_000)).any():
        raise ValueError(f"fits got percent={percent}, n={n}; expected a percentage in [0, 100] and n > 0.")
    rest = hundredths * n % 10_000
    if cut:
        return (rest == 0) | (10_000 - rest < n)
    return 2 * np.minimum(rest, 10_000 - rest) <= n


def share_of_any(n):
    """Of all two-decimal percentages, the share [0, 1] that some k / n gives: how easily a number fits by luck."""
    return float(fits(np.arange(10_001) / 100, n).mean())


def attainability(window=50):
    """Frame of the 15 printed accuracies: is each k / n at the official size, and which n' <= n would make it so?

    Columns: benchmark, method, printed (per cent), n, n_printed (does the paper name the size?), attainable (rounded),
    attainable_if_cut, share_of_any, nearest_n (largest n' <= n that fits), dropped (n - nearest_n), fits_in_window (how
    many of n, n - 1, .., n - window fit).
    """
    import pandas as pd

    rows = []
    for benchmark, method, printed, n in _accuracies():
        smaller = np.arange(n, 0, -1)
        fit = fits(printed, smaller)
        rows.append(
            {
                "benchmark": benchmark,
                "method": method,
                "printed": printed,
                "n": n,
                "n_printed": benchmark not in paper.SIZE_NOT_PRINTED,
                "attainable": bool(fit[0]),
                "attainable_if_cut": bool(fits(printed, n, cut=True)),
                "share_of_any": share_of_any(n),
                "nearest_n": int(smaller[fit.argmax()]),
                "dropped": int(fit.argmax()),
                "fits_in_window": int(fit[: window + 1].sum()),
            }
        )
    return pd.DataFrame(rows)


def denominator_fits(dropped=60):
    """Tidy frame benchmark, method, dropped (0 .. dropped unread answers left out), fits (bool)."""
    import pandas as pd

    left_out = np.arange(dropped + 1)
    rows = [
        {"benchmark": benchmark, "method": method, "dropped": int(d), "fits": bool(fit)}
        for benchmark, method, printed, n in _accuracies()
        for d, fit in zip(left_out, fits(printed, n - left_out), strict=True)
    ]
    return pd.DataFrame(rows)


def shared_denominators(samples=range(2, 9)):
    """One denominator for all five methods of a benchmark: frame benchmark, denominator, n, fits, share_of_any.

    fits: how many of the five accuracies it allows. Tried: the official test set, other sets of questions, averages
    over s samples (k / (n s)), and every smaller n' (the largest that allows all five; n missing where none does).
    """
    import pandas as pd

    rows = []
    for benchmark in paper.BENCHMARKS:
        full = paper.N_QUESTIONS[benchmark]
        printed = np.array([value for name, _, value, _ in _accuracies() if name == benchmark])
        candidates = {"the official test set": full} | OTHER_SETS[benchmark]
        candidates |= {f"mean of {s} samples": full * s for s in samples}
        for name, n in candidates.items():
            rows.append((benchmark, name, n, int(fits(printed, n).sum()), share_of_any(n)))
        smaller = np.arange(1, full + 1)
        common = smaller[fits(printed[:, None], smaller).all(axis=0)]
        name = f"smaller n' ({len(common)} allow all five), the largest"
        rows.append(
            (benchmark, name, int(common[-1]), 5, share_of_any(common[-1]))
            if len(common)
            else (benchmark, name, None, 0, np.nan)
        )
    table = pd.DataFrame(rows, columns=["benchmark", "denominator", "n", "fits", "share_of_any"])
    return table.astype({"n": "Int64"})


# --- intervals and tests


def intervals(level=0.95):
    """Frame benchmark, method, printed, n, ci_low, ci_high (per cent): Wilson at the official test size.

    Covers the choice of questions. Seeds, sampling and checkpoints are not in it: the paper prints one run.
    """
    import pandas as pd

    rows = []
    for benchmark, method, printed, n in _accuracies():
        low, high = wilson_interval(printed * n / 100, n, level)
        row = {"benchmark": benchmark, "method": method, "printed": printed, "n": n}
        rows.append(row | {"ci_low": 100 * low, "ci_high": 100 * high})
    return pd.DataFrame(rows)


def minimum_detectable(percent, n, power=0.8, alpha=0.05):
    """Smallest rise in points above `percent` that a two-sided unpaired z-test finds with this power, n in each arm."""
    from statsmodels.stats.power import NormalIndPower

    if not 0 < percent < 100 or n <= 0:
        raise ValueError(
            f"minimum_detectable got percent={percent}, n={n}; expected 0 < percent < 100 and n > 0."
        )
    effect = NormalIndPower().solve_power(nobs1=n, alpha=alpha, power=power)  # Cohen's h
    angle = min(np.arcsin(np.sqrt(percent / 100)) + effect / 2, np.pi / 2)
    return float(100 * np.sin(angle) ** 2 - percent)


def accuracy_gains(sizes=paper.N_QUESTIONS):
    """Frame benchmark, method, against, gain (points), n, p: CRPO minus GRPO, without and with a cold start.

    p: two-sided pooled two-proportion z-test with sizes[benchmark] questions. Unpaired, because the paper prints no
    per-question results; a paired test could be sharper. One run each, so variance between seeds is unknown.
    """
    import pandas as pd
    from statsmodels.stats.proportion import proportions_ztest

    rows = []
    for benchmark in paper.BENCHMARKS:
        n = sizes[benchmark]
        for method, against in GAIN_PAIRS:
            a, b = (printed_value(benchmark, name, "accuracy") for name in (method, against))
            p = proportions_ztest([a * n / 100, b * n / 100], [n, n])[1]
            rows.append((benchmark, method, against, round(a - b, 2), n, float(p)))
    return pd.DataFrame(rows, columns=["benchmark", "method", "against", "gain", "n", "p"])


def gain_tests(power=0.8, alpha=0.05, sizes=paper.N_QUESTIONS):
    """CRPO minus GRPO, six comparisons: `accuracy_gains` with what n can and cannot show.

    Adds p_holm (over the six), detectable (points, unpaired, with this power at Holm's first step) and disagreement: the
    largest share of questions, in per cent, on which the two arms may differ in being right for a paired (McNemar, asymptotic)
    test to reach alpha. Nobody can tell it from the paper, which prints no per-question results.
    """
    from scipy.stats import norm

    accuracy = {(benchmark, method): value for benchmark, method, value, _ in _accuracies()}
    table = accuracy_gains(sizes)
    table["p_holm"] = holm(table["p"])
    table["detectable"] = [
        minimum_detectable(accuracy[row.benchmark, row.against], row.n, power, alpha / len(table))
        for row in table.itertuples()
    ]
    share = table["n"] * (table["gain"] / 100) ** 2 / norm.isf(alpha / 2) ** 2
    table["disagreement"] = 100 * share.clip(upper=1.0)
    return table


# --- what hangs on a size that is not printed


def if_n(benchmark="medxpertqa"):
    """What can be said of a benchmark if n were another: one row per size that a reader might suspect.

    Columns: denominator, n, fits (of the five accuracies, how many are k / n), p_baseline (two-sided exact binomial of the
    baseline against chance), and p_crpo, p_cold_start_crpo: the gain over GRPO, Holm-corrected over the six gains.
    """
    import pandas as pd
    from scipy.stats import binomtest

    shared = shared_denominators(samples=()).query("benchmark == @benchmark").dropna(subset="n")
    baseline, rows = printed_value(benchmark, "baseline", "accuracy"), []
    for row in shared.itertuples():
        tests = gain_tests(sizes=paper.N_QUESTIONS | {benchmark: row.n}).set_index(["benchmark", "method"])
        p_baseline = binomtest(round(baseline * row.n / 100), row.n, 1 / OPTIONS[benchmark]).pvalue
        gains = (float(tests.loc[(benchmark, method), "p_holm"]) for method, _ in GAIN_PAIRS)
        rows.append((row.denominator, row.n, row.fits, float(p_baseline), *gains))
    names = ["denominator", "n", "fits", "p_baseline", *(f"p_{method}" for method, _ in GAIN_PAIRS)]
    return pd.DataFrame(rows, columns=names)


# --- the chance line


def guessing():
    """The printed baseline beside two guessers: one row per benchmark.

    Columns: benchmark, printed, n, k (nearest whole number of right answers), ci_low, ci_high, chance,
    majority_letter (per cent; the letter most frequent among the answers), majority_n (questions it was counted on),
    p_chance (two-sided exact binomial of k against chance), p_majority (the same against the majority letter).
    """
    from scipy.stats import binomtest

    table = intervals().query("method == 'baseline'").drop(columns="method").reset_index(drop=True)
    table["k"] = (table["printed"] * table["n"] / 100).round().astype(int)
    table["chance"] = [100 / OPTIONS[name] for name in table["benchmark"]]
    counts = [MAJORITY_LETTER[name] for name in table["benchmark"]]
    table["majority_letter"] = [100 * most / n for most, n in counts]
    table["majority_n"] = [n for _, n in counts]
    for guess, p in (("chance", "p_chance"), ("majority_letter", "p_majority")):
        table[p] = [
            float(binomtest(k, n, share / 100).pvalue)
            for k, n, share in zip(table["k"], table["n"], table[guess], strict=True)
        ]
    return table


# --- shared


def _accuracies():
    """(benchmark, method, printed per cent, official size) of the 15 accuracies, in the table's order."""
    rows = paper.table1().query("metric == 'accuracy'")
    return [
        (row.benchmark, row.method, row.value, paper.N_QUESTIONS[row.benchmark]) for row in rows.itertuples()
    ]


@lru_cache(maxsize=1)
def _table1() -> dict[tuple[str, str, str], float]:
    return paper.table1().set_index(["benchmark", "method", "metric"])["value"].to_dict()


def printed_value(benchmark: str, method: str, metric: str) -> float:
    """One of the paper's 135 printed cells: a mean count per response, accuracy in per cent."""
    return _table1()[benchmark, method, metric]
