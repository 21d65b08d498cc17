"""Sentences, names and marks of the paper against its own numbers: who said each, and what our verdict rests on.

Paraphrased from arXiv 2512.00601. A check whose words hold no arithmetic is a row of data below; braces in it are filled with
numbers when it is asked for.
"""

from clinical_r1 import paper
from clinical_r1.arms import METHODS
from clinical_r1.audit.accuracies import (
    GAIN_PAIRS,
    OPTIONS,
    gain_tests,
    printed_value,
)
from clinical_r1.audit.reward_arithmetic import reward_maximum
from clinical_r1.labels import BENCHMARK_LABELS, METHOD_LABELS, METRIC_LABELS
from clinical_r1.metrics import LOWER_IS_BETTER, PROCESS_METRICS

VERDICTS = ("consistent", "contradicted", "cannot be checked")
SPEAKERS = ("the paper", "us")  # us: how a reader might take the paper; no sentence of it
GROUNDS = {
    "print": "follows from printed numbers or marks alone",
    "if n": "arithmetic that holds if the test set has its official size",
    "statistics": "a test, with its error rate, at the official sizes",
    "file": "a public data file, or the released GRPO code",
    "drawing": "our reading of a vector figure",
    "words": "what a name or a sentence means",
    "assumption": "rewards that we made up or simulated",
}

# Bold in Table 1: cold start + CRPO in every column but these
BOLD = {(benchmark, "hallucination"): "baseline" for benchmark in paper.BENCHMARKS} | {
    ("medxpertqa", "faithfulness"): "cold_start_grpo"
}


# --- the text against the table

CLAIM_COLUMNS = ("claim", "said_by", "where", "found", "verdict", "rests_on", "innocent")
READ_CLAIMS = (  # decided by reading, not by computing
    (
        "CECD is a density",
        "the paper",
        "name of the metric",
        "a mean count per response, {cecd:.2f} on MedQA; no lengths beside it",
        "contradicted",
        "words",
        "'per response' is a denominator of a kind; without lengths no count can be made a rate",
    ),
    (
        "MedQA has four choices",
        "the paper",
        "text, data",
        "the original files have five in all 1,273 test items, and the paper's own sample (Figure 6) shows A to E",
        "contradicted",
        "file",
        "a four-option copy is in wide use; if that one was tested, chance is 25 % and not 20 %",
    ),
    (
        "majority voting adds little, as Table 1 shows",
        "the paper",
        "text, inference",
        "no row with voting, and no number of votes",
        "cannot be checked",
        "print",
        "the rows may have been cut for space",
    ),
    (
        "Figure 1 shows the averages of Table 1",
        "the paper",
        "Figure 1",
        "the vertices agree with the averages",
        "consistent",
        "drawing",
        "",
    ),
    (
        "Figure 1 shows 100 − hallucination",
        "the paper",
        "caption of Figure 1",
        "GRPO, which has the most hallucinations, lies farthest out",
        "contradicted",
        "drawing",
        "a caption written for an earlier drawing",
    ),
    (
        "the highest reward is k + 2",
        "the paper",
        "equation 4",
        "10 + 1.5 + 0.5 = {highest:g}",
        "consistent",
        "print",
        "",
    ),
)


def text_against_table():
    """Frame claim, said_by (SPEAKERS), where, found, verdict (VERDICTS), rests_on (GROUNDS), innocent: the paper against itself.

    Claims are paraphrased. What is found is computed from the table where it can be. Only what the paper says counts
    in `verdict_counts`; two rows are readings of ours, kept because a hurried reader might share them.
    """
    import pandas as pd

    computed = [
        _accuracy_claim(),
        _process_claim(),
        _bold_claim(),
        _coverage_claim(),
        _hallucination_claim(),
        _cold_start_claim(),
    ]
    numbers = {
        "cecd": printed_value("medqa", "cold_start_crpo", "cecd"),
        "highest": reward_maximum()["contributes"].sum(),
    }
    read = [(*row[:3], row[3].format(**numbers), *row[4:]) for row in READ_CLAIMS]
    table = pd.DataFrame(computed + read, columns=CLAIM_COLUMNS)
    return table.sort_values("said_by", kind="stable", key=lambda column: column == "us").reset_index(
        drop=True
    )


def verdict_counts(claims=None):
    """Frame of counts: one row per verdict; columns "the paper", "us", and among the paper's "by print alone"."""
    import pandas as pd

    claims = text_against_table() if claims is None else claims
    counts = pd.crosstab(claims["verdict"], claims["said_by"]).reindex(
        VERDICTS, columns=SPEAKERS, fill_value=0
    )
    printed = claims[(claims["said_by"] == "the paper") & (claims["rests_on"] == "print")]["verdict"]
    counts["by print alone"] = printed.value_counts().reindex(VERDICTS, fill_value=0)
    return counts.rename_axis(columns=None)


def _accuracy_claim():
    tests = gain_tests()
    up, clear = int((tests["gain"] > 0).sum()), int((tests["p_holm"] < 0.05).sum())
    return (
        "CRPO is at least as accurate as GRPO",
        "the paper",
        "abstract",
        f"{up} of 6 gains are positive; at the official sizes {clear} of 6 are beyond chance (Holm)",
        "consistent" if up == 6 else "contradicted",
        "print",
        "the others may be real too: the sets are small and the test unpaired",
    )


def _process_claim():
    worse = [
        (benchmark, method, metric)
        for benchmark in paper.BENCHMARKS
        for method, against in GAIN_PAIRS
        for metric in PROCESS_METRICS
        if not _better(
            metric, printed_value(benchmark, method, metric), printed_value(benchmark, against, metric)
        )
    ]
    total = len(paper.BENCHMARKS) * len(GAIN_PAIRS) * len(PROCESS_METRICS)
    named = "; ".join(
        f"{METRIC_LABELS[metric]} of {METHOD_LABELS[method]} on {BENCHMARK_LABELS[benchmark]}"
        for benchmark, method, metric in worse
    )
    return (
        "CRPO's reasoning is more truthful and more complete than GRPO's",
        "the paper",
        "abstract",
        f"better in {total - len(worse)} of {total} comparisons of counts; not in: {named}",
        "consistent",
        "print",
        "the two may be noise: no count has an interval",
    )


def _hallucination_claim():
    rises = [
        printed_value(benchmark, method, "hallucination")
        - printed_value(benchmark, "baseline", "hallucination")
        for benchmark in paper.BENCHMARKS
        for method in METHODS[1:]
    ]
    up = sum(rise > 0 for rise in rises)
    below = sum(
        printed_value(benchmark, method, "hallucination") < printed_value(benchmark, against, "hallucination")
        for benchmark in paper.BENCHMARKS
        for method, against in GAIN_PAIRS
    )
    return (
        "hallucination falls below the untrained model's",
        "us",
        "our reading of 'faithful' in the title",
        f"{up} of {len(rises)} trained cells lie above the untrained baseline, by {min(rises):.2f} to {max(rises):.2f}",
        "contradicted" if up else "consistent",
        "print",
        f"the paper compares CRPO with GRPO: lower in {below} of 6; and longer answers make more statements",
    )


def _cold_start_claim():
    from statsmodels.stats.proportion import proportions_ztest

    n = paper.N_QUESTIONS["medmcqa"]
    before, after = (printed_value("medmcqa", method, "accuracy") for method in ("grpo", "cold_start_grpo"))
    p = proportions_ztest([before * n / 100, after * n / 100], [n, n])[1]
    return (
        "a cold start raises accuracy",
        "us",
        "our reading of Figure 3",
        f"GRPO on MedMCQA goes from {before:.2f} to {after:.2f} (unpaired p = {p:.2f}), on MedXpertQA stays "
        f"{printed_value('medxpertqa', 'cold_start_grpo', 'accuracy'):.2f}; CRPO rises on all three",
        "contradicted" if after < before else "consistent",
        "print",
        "the fall is within chance",
    )


def _bold_claim():
    wrong = []
    for benchmark in paper.BENCHMARKS:
        for metric in paper.METRICS:
            bold = BOLD.get((benchmark, metric), "cold_start_crpo")
            values = {method: printed_value(benchmark, method, metric) for method in METHODS}
            best = (min if metric in LOWER_IS_BETTER else max)(values, key=values.get)
            if best != bold:
                wrong.append(
                    f"{METRIC_LABELS[metric]} on {BENCHMARK_LABELS[benchmark]}: {values[bold]:.2f} is bold, "
                    f"{values[best]:.2f} ({METHOD_LABELS[best]}) is larger"
                )
    total = len(paper.BENCHMARKS) * len(paper.METRICS)
    return (
        "bold marks the best of each column",
        "the paper",
        "Table 1",
        f"right in {total - len(wrong)} of {total}; " + "; ".join(wrong),
        "contradicted" if wrong else "consistent",
        "print",
        "typesetting",
    )


def _coverage_claim():
    over = [
        f"{printed_value(benchmark, method, 'drc'):.2f} of {OPTIONS[benchmark] - 1} on {BENCHMARK_LABELS[benchmark]}"
        for benchmark in paper.BENCHMARKS
        for method in METHODS
        if printed_value(benchmark, method, "drc") > OPTIONS[benchmark] - 1
    ]
    return (
        "DRC is the coverage of the wrong options",
        "the paper",
        "name of the metric",
        f"more rejected than the files have: {'; '.join(over)}",
        "contradicted" if over else "consistent",
        "file",
        "the judge may have counted one option's rejections several times",
    )


def _better(metric, value, than):
    return value < than if metric in LOWER_IS_BETTER else value > than


# --- Figure 1's caption


def figure1_readings():
    """Frame reading, method, value, rank (1 = farthest out): the hallucination axis of Figure 1, read in two ways."""
    import pandas as pd

    count = paper.averages()["hallucination"].rename("value").rename_axis("method").reset_index()
    readings = {
        "as drawn: the count": count,
        "as captioned: 100 − count": count.assign(value=100 - count["value"]),
    }
    table = pd.concat([frame.assign(reading=name) for name, frame in readings.items()], ignore_index=True)
    table["rank"] = table.groupby("reading")["value"].rank(ascending=False).astype(int)
    return table[["reading", "method", "value", "rank"]]
