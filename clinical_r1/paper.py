"""The paper's printed numbers as data (Table 1, 135 cells; the curve of Figure 5) and checks on them.

Nothing here is a result of this package. Source: arXiv 2512.00601; the curve was read off the vector figure.
"""

from fractions import Fraction
from functools import cache
from importlib.resources import files

from clinical_r1.settings import CLINIC_BENCHMARKS, METHODS, PAPER_BENCHMARKS

BENCHMARKS = PAPER_BENCHMARKS
STANDS_FOR = dict(zip(CLINIC_BENCHMARKS, BENCHMARKS, strict=True))
N_QUESTIONS = {"medqa": 1273, "medmcqa": 4183, "medxpertqa": 2450}  # the full test sets

METHOD_LABELS = dict(
    zip(METHODS, ("Baseline", "GRPO", "CRPO", "Cold Start + GRPO", "Cold Start + CRPO"), strict=True)
)
METRIC_LABELS = {
    "backtracking": "Backtracking",
    "backward_chaining": "Backward chaining",
    "subgoal_setting": "Subgoal setting",
    "verification": "Verification",
    "faithfulness": "Faithfulness",
    "cecd": "CECD",
    "drc": "DRC",
    "hallucination": "Hallucination ↓",
    "accuracy": "Accuracy (%)",
}
METRICS = tuple(METRIC_LABELS)

# one row per method, in METHODS' order; one number per metric, in METRICS' order
PRINTED = {
    "medqa": """
        0.66 0.75 2.93 0.78  6.38 3.92 2.50 0.69 41.95
        0.76 0.98 3.48 0.92  6.85 4.14 2.43 1.21 50.35
        1.18 1.63 3.69 1.30  9.28 5.35 2.77 1.06 52.41
        2.34 1.87 3.06 1.72 11.09 4.72 3.23 0.81 51.07
        3.29 2.33 4.95 2.02 12.95 5.76 3.36 0.76 53.07
    """,
    "medmcqa": """
        0.36 0.19 2.04 0.18 4.66 1.42 1.84 0.40 46.78
        0.40 0.25 1.88 0.17 4.71 1.51 1.75 0.85 49.87
        0.73 0.62 2.51 0.53 7.13 5.36 2.79 0.64 55.13
        1.88 1.00 3.39 0.89 7.66 2.31 2.33 0.81 48.86
        2.49 1.06 4.23 1.28 9.15 5.47 3.24 0.66 58.10
    """,
    "medxpertqa": """
        0.68 0.73 2.84 0.72  6.25 3.61 4.14 0.69 10.51
        0.89 0.98 3.47 0.92  6.88 3.88 4.01 1.13 12.64
        1.18 1.68 3.77 1.23  9.27 5.33 3.79 1.05 14.88
        3.20 1.14 4.20 1.77 12.07 4.42 4.64 0.80 12.64
        3.42 2.15 5.06 2.08 10.66 5.15 4.84 0.79 16.14
    """,
}


def __getattr__(name):
    """TABLE1 is built on first use, so that the import stays light; every access is a copy."""
    if name == "TABLE1":
        return _table1().copy()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


@cache
def _table1():
    """Tidy frame benchmark, method, metric, value: counts per response; accuracy in per cent."""
    import pandas as pd

    rows = []
    for benchmark in BENCHMARKS:
        lines = PRINTED[benchmark].strip().splitlines()
        for method, line in zip(METHODS, lines, strict=True):
            for metric, value in zip(METRICS, line.split(), strict=True):
                rows.append((benchmark, method, metric, float(value)))
    return pd.DataFrame(rows, columns=["benchmark", "method", "metric", "value"])


def averages():
    """Frame (5 methods x 9 metrics): Table 1 averaged over the three benchmarks, the vertices of Figure 1."""
    mean = _table1().groupby(["method", "metric"])["value"].mean().unstack()
    return mean.loc[list(METHODS), list(METRICS)]


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


def accuracy_gains():
    """Frame benchmark, method, against, gain (points), p: CRPO minus GRPO, without and with a cold start.

    p: two-sided pooled two-proportion z-test at the full test size. Unpaired, because the paper prints no
    per-question results; a paired test could be sharper. One run each, so variance between seeds is unknown.
    """
    import pandas as pd
    from statsmodels.stats.proportion import proportions_ztest

    accuracy = _table1().query("metric == 'accuracy'").set_index(["benchmark", "method"])["value"]
    rows = []
    for benchmark in BENCHMARKS:
        n = N_QUESTIONS[benchmark]
        for method, against in (("crpo", "grpo"), ("cold_start_crpo", "cold_start_grpo")):
            a, b = accuracy[benchmark, method], accuracy[benchmark, against]
            p = proportions_ztest([a * n / 100, b * n / 100], [n, n])[1]
            rows.append((benchmark, method, against, round(a - b, 2), float(p)))
    return pd.DataFrame(rows, columns=["benchmark", "method", "against", "gain", "p"])


def fig5_curve():
    """Figure 5 (CRPO on MedQA): frame step, mean_response_length in tokens; 177 of the steps 1-179."""
    import pandas as pd

    with files("clinical_r1").joinpath("data", "fig5_response_length.csv").open() as lines:
        return pd.read_csv(lines)
