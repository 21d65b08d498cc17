"""The paper's printed numbers as data (Table 1, 135 cells; the curve of Figure 5) and checks on them.

Nothing here is a result of this package. Source: arXiv 2512.00601; the curve was read off the vector figure.
"""

from importlib.resources import files

from clinical_r1.arms import METHODS
from clinical_r1.labels import CLINIC_BENCHMARKS, METRIC_LABELS, PAPER_BENCHMARKS

BENCHMARKS = PAPER_BENCHMARKS
STANDS_FOR = dict(zip(CLINIC_BENCHMARKS, BENCHMARKS, strict=True))
N_QUESTIONS = {"medqa": 1273, "medmcqa": 4183, "medxpertqa": 2450}  # the official test sets
SIZE_NOT_PRINTED = frozenset(
    {"medxpertqa"}
)  # 2,450 is the size of its text questions; the paper does not name it
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


def table1():
    """The printed Table 1, a tidy frame benchmark, method, metric, value: counts per response; accuracy in per cent.

    A new frame at every call, built on first need so that the import stays light.
    """
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
    mean = table1().groupby(["method", "metric"])["value"].mean().unstack()
    return mean.loc[list(METHODS), list(METRICS)]


def fig5_curve():
    """Figure 5 (CRPO on MedQA): frame step, mean_response_length in tokens; 177 of the steps 1-179."""
    import pandas as pd

    with files("clinical_r1").joinpath("data", "fig5_response_length.csv").open() as lines:
        return pd.read_csv(lines)
