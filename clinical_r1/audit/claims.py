"""What the paper says in words against what its own tables print; paraphrased from arXiv 2512.00601."""

from clinical_r1 import labels, paper
from clinical_r1.arms import METHODS
from clinical_r1.audit.accuracies import (
    GAIN_PAIRS,
    LABELS,
    OPTIONS,
    attainability,
    gain_tests,
    guessing,
    printed_cell,
    tidy_frame,
)
from clinical_r1.audit.reward_arithmetic import GROUP, reward_maximum, worked_groups
from clinical_r1.metrics import LOWER_IS_BETTER, PROCESS_METRICS

VERDICTS = ("consistent", "contradicted", "cannot be checked")

# Bold in Table 1: cold start + CRPO in every column but these
BOLD = {(benchmark, "hallucination"): "baseline" for benchmark in paper.BENCHMARKS} | {
    ("medxpertqa", "faithfulness"): "cold_start_grpo"
}


# --- 4. text against table


def text_against_table():
    """Frame claim, where, table_says, verdict (one of VERDICTS), innocent: sentences of the text held to the numbers.

    Claims are paraphrased. What the table says is computed from it; the verdict is about the printed numbers only.
    """
    rows = [
        _accuracy_claim(),
        _process_claim(),
        _hallucination_claim(),
        _cold_start_claim(),
        _bold_claim(),
        _coverage_claim(),
        (
            "CECD is a density",
            "name of the metric",
            f"a mean count per response, {printed_cell('medqa', 'cold_start_crpo', 'cecd'):.2f} on MedQA; no lengths beside it",
            "contradicted",
            "'per response' is a denominator of a kind; without lengths no count can be made a rate",
        ),
        (
            "MedQA has four choices",
            "text, data",
            "the original files have five in all 1,273 test items, and the paper's own sample (Figure 6) shows A to E",
            "contradicted",
            "a four-option copy is in wide use; if that one was tested, chance is 25 % and not 20 %",
        ),
        (
            "majority voting adds little, as Table 1 shows",
            "text, inference",
            "no row with voting, and no number of votes",
            "cannot be checked",
            "the rows may have been cut for space",
        ),
        (
            "Figure 1 shows the averages of Table 1",
            "Figure 1",
            "the vertices agree with the averages (read off the figure)",
            "consistent",
            "",
        ),
        (
            "Figure 1 shows 100 − hallucination",
            "caption of Figure 1",
            "GRPO, which has the most hallucinations, lies farthest out (read off the figure)",
            "contradicted",
            "a caption written for an earlier drawing",
        ),
        (
            "the highest reward is k + 2",
            "equation 4",
            f"10 + 1.5 + 0.5 = {reward_maximum()['contributes'].sum():g}",
            "consistent",
            "",
        ),
    ]
    return tidy_frame(rows, ["claim", "where", "table_says", "verdict", "innocent"])


def _accuracy_claim():
    tests = gain_tests()
    up, clear = int((tests["gain"] > 0).sum()), int((tests["p_holm"] < 0.05).sum())
    return (
        "CRPO is at least as accurate as GRPO",
        "abstract",
        f"{up} of 6 gains are positive, {clear} of 6 beyond chance at the full test sizes (Holm)",
        "consistent" if up == 6 else "contradicted",
        "the others may be real too: the sets are small and the test unpaired",
    )


def _process_claim():
    worse = [
        (benchmark, method, metric)
        for benchmark in paper.BENCHMARKS
        for method, against in GAIN_PAIRS
        for metric in PROCESS_METRICS
        if not _better(
            metric, printed_cell(benchmark, method, metric), printed_cell(benchmark, against, metric)
        )
    ]
    total = len(paper.BENCHMARKS) * len(GAIN_PAIRS) * len(PROCESS_METRICS)
    named = "; ".join(
        f"{labels.METRIC_LABELS[metric]} of {labels.METHOD_LABELS[method]} on {LABELS[benchmark]}"
        for benchmark, method, metric in worse
    )
    return (
        "CRPO's reasoning is more truthful and more complete than GRPO's",
        "abstract",
        f"better in {total - len(worse)} of {total} comparisons of counts; not in: {named}",
        "consistent",
        "the two may be noise: no count has an interval",
    )


def _hallucination_claim():
    rises = [
        printed_cell(benchmark, method, "hallucination")
        - printed_cell(benchmark, "baseline", "hallucination")
        for benchmark in paper.BENCHMARKS
        for method in METHODS[1:]
    ]
    up = sum(rise > 0 for rise in rises)
    below = sum(
        printed_cell(benchmark, method, "hallucination") < printed_cell(benchmark, against, "hallucination")
        for benchmark in paper.BENCHMARKS
        for method, against in GAIN_PAIRS
    )
    return (
        "hallucination falls below the untrained model's (our reading of 'faithful'; not a sentence of the paper)",
        "title",
        f"{up} of {len(rises)} trained cells lie above the untrained baseline, by {min(rises):.2f} to {max(rises):.2f}",
        "contradicted" if up else "consistent",
        f"the paper compares CRPO with GRPO: lower in {below} of 6; and longer answers make more statements",
    )


def _cold_start_claim():
    from statsmodels.stats.proportion import proportions_ztest

    n = paper.N_QUESTIONS["medmcqa"]
    before, after = (printed_cell("medmcqa", method, "accuracy") for method in ("grpo", "cold_start_grpo"))
    p = proportions_ztest([before * n / 100, after * n / 100], [n, n])[1]
    return (
        "a cold start raises accuracy (our reading of Figure 3)",
        "Figure 3",
        f"GRPO on MedMCQA goes from {before:.2f} to {after:.2f} (unpaired p = {p:.2f}), on MedXpertQA stays "
        f"{printed_cell('medxpertqa', 'cold_start_grpo', 'accuracy'):.2f}; CRPO rises on all three",
        "contradicted" if after < before else "consistent",
        "the fall is within chance",
    )


def _bold_claim():
    wrong = []
    for benchmark in paper.BENCHMARKS:
        for metric in paper.METRICS:
            bold = BOLD.get((benchmark, metric), "cold_start_crpo")
            values = {method: printed_cell(benchmark, method, metric) for method in METHODS}
            best = (min if metric in LOWER_IS_BETTER else max)(values, key=values.get)
            if best != bold:
                wrong.append(
                    f"{labels.METRIC_LABELS[metric]} on {LABELS[benchmark]}: {values[bold]:.2f} is bold, "
                    f"{values[best]:.2f} ({labels.METHOD_LABELS[best]}) is larger"
                )
    total = len(paper.BENCHMARKS) * len(paper.METRICS)
    return (
        "bold marks the best of each column",
        "Table 1",
        f"right in {total - len(wrong)} of {total}; " + "; ".join(wrong),
        "contradicted" if wrong else "consistent",
        "typesetting",
    )


def _coverage_claim():
    over = [
        f"{printed_cell(benchmark, method, 'drc'):.2f} of {OPTIONS[benchmark] - 1} on {LABELS[benchmark]}"
        for benchmark in paper.BENCHMARKS
        for method in METHODS
        if printed_cell(benchmark, method, "drc") > OPTIONS[benchmark] - 1
    ]
    return (
        "DRC is the coverage of the wrong options",
        "name of the metric",
        f"more rejected than there are: {'; '.join(over)}",
        "contradicted" if over else "consistent",
        "the judge may have counted one option's rejections several times",
    )


# --- 5. Figure 1's caption


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


# --- 7. steps


def steps():
    """Frame quantity, arithmetic, result, printed, agrees (None: nothing to compare with), innocent: the runs' size.

    Batch sizes and checkpoint names are those of the released GRPO code; that the CRPO runs used them is inferred.
    """
    curve = paper.fig5_curve()
    last, mean_length = int(curve["step"].max()), curve["mean_response_length"].mean()
    absent = sorted(set(range(1, last + 1)) - set(curve["step"].astype(int)))
    per_epoch, per_epoch_sft, per_epoch_full = 5089 // 512, 4580 // 256, 10178 // 1024
    total, rollouts = 20 * per_epoch, 512 * GROUP
    updates = rollouts // (16 * GROUP)
    rows = [
        (
            "RL steps after a cold start",
            f"5,089 // 512 × 20 = {per_epoch} × 20",
            f"{total}",
            f"Figure 5: {len(curve)} points up to step {last}, without {', '.join(map(str, absent))}",
            total - last in (0, 1),
            "the last step may not be logged; two points may lie under others",
        ),
        (
            "epochs of the cold start",
            f"221 / (4,580 // 256) = 221 / {per_epoch_sft}",
            f"{221 / per_epoch_sft:g}",
            "stopped early at 13",
            221 == 13 * per_epoch_sft,
            "",
        ),
        (
            "epoch of the cold start + GRPO checkpoint",
            f"105 / {per_epoch}",
            f"{105 / per_epoch:.1f}",
            "20 epochs",
            False,
            "trained for 20, tested at the best; the script names a test file for validation",
        ),
        (
            "epoch of the GRPO checkpoint",
            "35 / (10,178 // 1,024)",
            f"{35 / per_epoch_full:.1f}",
            "",
            None,
            "",
        ),
        (
            "optimiser updates a step",
            f"512 × {GROUP} / (16 × {GROUP})",
            f"{updates}",
            "equation 1 samples from the policy itself: 1",
            False,
            "a ratio and a clip, in the code, hold the difference small; the equation leaves them out",
        ),
        ("optimiser updates in all", f"{total} × {updates}", f"{total * updates:,}", "", None, ""),
        (
            "tokens generated in a run",
            f"{total} × {rollouts:,} × {mean_length:,.0f} (mean of Figure 5)",
            f"{total * rollouts * mean_length / 1e9:.2f} billion",
            "",
            None,
            "",
        ),
    ]
    return tidy_frame(rows, ["quantity", "arithmetic", "result", "printed", "agrees", "innocent"])


# --- 8. the closing table


def closing_table(owners):
    """Every check in one row: frame check, found, certainty, innocent. owners: from `advantage_owners`.

    certainty: "arithmetic" (follows from the print), "statistics" (holds with its error rate), "figure" (rests on
    our reading of a vector figure), "simulation" (rests on stated assumptions).
    """
    fit, gains, guess, claims = attainability(), gain_tests(), guessing(), text_against_table()
    owners = owners.set_index("difficulty")
    expert = guess.set_index("benchmark").loc["medxpertqa"]
    clear = gains[gains["p_holm"] < 0.05]
    unclear = gains.loc[gains["p_holm"] >= 0.05]
    named = ", ".join(
        f"{labels.METHOD_LABELS[row.method]} on {LABELS[row.benchmark]}" for row in unclear.itertuples()
    )
    verdicts = claims["verdict"].value_counts()
    jitter = worked_groups()["advantage"].iloc[GROUP:]
    spread, even = owners.loc["p ~ Beta(.5, .5)"], owners.loc["every p = 0.5"]
    rows = [
        (
            "accuracies as k / n",
            f"{(~fit['attainable']).sum()} of {len(fit)} are no share of the full test set",
            "arithmetic",
            f"unreadable answers left out (at most {fit['dropped'].max()} a cell would do), or several samples averaged",
        ),
        (
            "gains over GRPO",
            f"{len(clear)} of {len(gains)} beyond chance (Holm); not {named}",
            "statistics",
            "a paired test could be sharper; one run each, so seeds are not in it",
        ),
        (
            "the chance line",
            f"the MedXpertQA baseline, {expert['printed']:.2f} %, cannot be told from guessing (p = {expert['p_chance']:.2f})",
            "statistics",
            "a hard set for a small model",
        ),
        (
            "text against table",
            ", ".join(f"{verdicts.get(verdict, 0)} {verdict}" for verdict in VERDICTS),
            "arithmetic",
            "typesetting, and names that promise more than the definitions",
        ),
        (
            "Figure 1's caption",
            "the hallucination axis shows the count: outwards is worse there, better on the other eight",
            "figure",
            "a caption written for an earlier drawing",
        ),
        (
            "who owns the advantage",
            f"accuracy: correlation {even['accuracy']:.2f} where every p = 0.5, {spread['accuracy']:.2f} with "
            f"{spread['tied']:.0%} tied groups; clinical reasoning: {even['clinical reasoning']:.2f} and "
            f"{spread['clinical reasoning']:.2f}",
            "simulation",
            "accuracy was meant to come first",
        ),
        (
            "noise at full scale",
            f"character shares .980 to .992 in an all-right group give advantages {jitter.min():.2f} to {jitter.max():.2f}",
            "arithmetic",
            "they may average out over many groups: they pull towards plain characters, not towards errors",
        ),
        (
            "steps and epochs",
            "180 steps follow from 5,089 questions, batch 512, 20 epochs; Figure 5 ends at 179",
            "figure",
            "the last step not logged, or counted from 0",
        ),
    ]
    return tidy_frame(rows, ["check", "found", "certainty", "innocent"])


def _better(metric, value, than):
    return value < than if metric in LOWER_IS_BETTER else value > than
