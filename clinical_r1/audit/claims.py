"""What the paper says in words against what its own tables print; paraphrased from arXiv 2512.00601.

A check whose words hold no arithmetic is a row of data below; braces in it are filled with numbers when it is asked for.
"""

from clinical_r1 import paper
from clinical_r1.arms import METHODS
from clinical_r1.audit.accuracies import (
    GAIN_PAIRS,
    OPTIONS,
    attainability,
    gain_tests,
    guessing,
    printed_value,
)
from clinical_r1.audit.reward_arithmetic import GROUP, reward_maximum, worked_groups
from clinical_r1.labels import BENCHMARK_LABELS, METHOD_LABELS, METRIC_LABELS
from clinical_r1.metrics import LOWER_IS_BETTER, PROCESS_METRICS

VERDICTS = ("consistent", "contradicted", "cannot be checked")

# Bold in Table 1: cold start + CRPO in every column but these
BOLD = {(benchmark, "hallucination"): "baseline" for benchmark in paper.BENCHMARKS} | {
    ("medxpertqa", "faithfulness"): "cold_start_grpo"
}


# --- the text against the table

CLAIM_COLUMNS = ("claim", "where", "table_says", "verdict", "innocent")
READ_CLAIMS = (  # decided by reading, not by computing
    (
        "CECD is a density",
        "name of the metric",
        "a mean count per response, {cecd:.2f} on MedQA; no lengths beside it",
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
    ("the highest reward is k + 2", "equation 4", "10 + 1.5 + 0.5 = {highest:g}", "consistent", ""),
)


def text_against_table():
    """Frame claim, where, table_says, verdict (one of VERDICTS), innocent: sentences of the text held to the numbers.

    Claims are paraphrased. What the table says is computed from it; the verdict is about the printed numbers only.
    """
    import pandas as pd

    computed = [
        _accuracy_claim(),
        _process_claim(),
        _hallucination_claim(),
        _cold_start_claim(),
        _bold_claim(),
        _coverage_claim(),
    ]
    numbers = {
        "cecd": printed_value("medqa", "cold_start_crpo", "cecd"),
        "highest": reward_maximum()["contributes"].sum(),
    }
    read = [
        (claim, where, says.format(**numbers), verdict, innocent)
        for claim, where, says, verdict, innocent in READ_CLAIMS
    ]
    return pd.DataFrame(computed + read, columns=CLAIM_COLUMNS)


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
        "abstract",
        f"better in {total - len(worse)} of {total} comparisons of counts; not in: {named}",
        "consistent",
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
        "hallucination falls below the untrained model's (our reading of 'faithful'; not a sentence of the paper)",
        "title",
        f"{up} of {len(rises)} trained cells lie above the untrained baseline, by {min(rises):.2f} to {max(rises):.2f}",
        "contradicted" if up else "consistent",
        f"the paper compares CRPO with GRPO: lower in {below} of 6; and longer answers make more statements",
    )


def _cold_start_claim():
    from statsmodels.stats.proportion import proportions_ztest

    n = paper.N_QUESTIONS["medmcqa"]
    before, after = (printed_value("medmcqa", method, "accuracy") for method in ("grpo", "cold_start_grpo"))
    p = proportions_ztest([before * n / 100, after * n / 100], [n, n])[1]
    return (
        "a cold start raises accuracy (our reading of Figure 3)",
        "Figure 3",
        f"GRPO on MedMCQA goes from {before:.2f} to {after:.2f} (unpaired p = {p:.2f}), on MedXpertQA stays "
        f"{printed_value('medxpertqa', 'cold_start_grpo', 'accuracy'):.2f}; CRPO rises on all three",
        "contradicted" if after < before else "consistent",
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
        "Table 1",
        f"right in {total - len(wrong)} of {total}; " + "; ".join(wrong),
        "contradicted" if wrong else "consistent",
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
        "name of the metric",
        f"more rejected than there are: {'; '.join(over)}",
        "contradicted" if over else "consistent",
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


# --- steps and epochs

STEP_COLUMNS = ("quantity", "arithmetic", "result", "printed", "agrees", "innocent")
STEPS = (  # agrees: the name of a comparison in `_step_numbers`, or None where nothing is printed to compare with
    (
        "RL steps after a cold start",
        "5,089 // 512 × 20 = {per_epoch} × 20",
        "{total}",
        "Figure 5: {points} points up to step {last}, without {absent}",
        "ends_at_the_total",
        "the last step may not be logged; two points may lie under others",
    ),
    (
        "epochs of the cold start",
        "221 / (4,580 // 256) = 221 / {per_epoch_sft}",
        "{epochs_sft:g}",
        "stopped early at 13",
        "thirteen_epochs",
        "",
    ),
    (
        "epoch of the cold start + GRPO checkpoint",
        "105 / {per_epoch}",
        "{epoch_cold_start_grpo:.1f}",
        "20 epochs",
        "never",
        "trained for 20, tested at the best; the script names a test file for validation",
    ),
    ("epoch of the GRPO checkpoint", "35 / (10,178 // 1,024)", "{epoch_grpo:.1f}", "", None, ""),
    (
        "optimiser updates a step",
        "512 × {group} / (16 × {group})",
        "{updates}",
        "equation 1 samples from the policy itself: 1",
        "never",
        "a ratio and a clip, in the code, hold the difference small; the equation leaves them out",
    ),
    ("optimiser updates in all", "{total} × {updates}", "{all_updates:,}", "", None, ""),
    (
        "tokens generated in a run",
        "{total} × {rollouts:,} × {mean_length:,.0f} (mean of Figure 5)",
        "{tokens:.2f} billion",
        "",
        None,
        "",
    ),
)


def steps():
    """Frame quantity, arithmetic, result, printed, agrees (None: nothing to compare with), innocent: the runs' size.

    Batch sizes and checkpoint names are those of the released GRPO code; that the CRPO runs used them is inferred.
    """
    import pandas as pd

    numbers = _step_numbers()
    rows = [
        (
            *(text.format(**numbers) for text in (quantity, arithmetic, result, printed)),
            None if agrees is None else numbers[agrees],
            innocent,
        )
        for quantity, arithmetic, result, printed, agrees, innocent in STEPS
    ]
    return pd.DataFrame(rows, columns=STEP_COLUMNS)


def _step_numbers() -> dict:
    """What the braces of STEPS stand for: 5,089 questions in batches of 512 for 20 epochs, and what follows."""
    curve = paper.fig5_curve()
    last, mean_length = int(curve["step"].max()), curve["mean_response_length"].mean()
    absent = sorted(set(range(1, last + 1)) - set(curve["step"].astype(int)))
    per_epoch, per_epoch_sft, per_epoch_full = 5089 // 512, 4580 // 256, 10178 // 1024
    total, rollouts = 20 * per_epoch, 512 * GROUP
    updates = rollouts // (16 * GROUP)
    return {
        **{"per_epoch": per_epoch, "total": total, "rollouts": rollouts, "group": GROUP},
        **{"points": len(curve), "last": last, "absent": ", ".join(map(str, absent))},
        **{"per_epoch_sft": per_epoch_sft, "epochs_sft": 221 / per_epoch_sft},
        **{"epoch_cold_start_grpo": 105 / per_epoch, "epoch_grpo": 35 / per_epoch_full},
        **{"updates": updates, "all_updates": total * updates},
        **{"mean_length": mean_length, "tokens": total * rollouts * mean_length / 1e9},
        "ends_at_the_total": total - last in (0, 1),
        "thirteen_epochs": 221 == 13 * per_epoch_sft,
        "never": False,
    }


# --- the closing table

CHECK_COLUMNS = ("check", "found", "certainty", "innocent")
CHECKS = (
    (
        "accuracies as k / n",
        "{unattainable} of {accuracies} are no share of the full test set",
        "arithmetic",
        "unreadable answers left out (at most {dropped} a cell would do), or several samples averaged",
    ),
    (
        "gains over GRPO",
        "{clear} of {gains} beyond chance (Holm); not {unclear}",
        "statistics",
        "a paired test could be sharper; one run each, so seeds are not in it",
    ),
    (
        "the chance line",
        "the MedXpertQA baseline, {expert_printed:.2f} %, cannot be told from guessing (p = {expert_p:.2f})",
        "statistics",
        "a hard set for a small model",
    ),
    (
        "text against table",
        "{verdicts}",
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
        "accuracy: correlation {even_accuracy:.2f} where every p = 0.5, {spread_accuracy:.2f} with {tied:.0%} tied groups; "
        "clinical reasoning: {even_reasoning:.2f} and {spread_reasoning:.2f}",
        "simulation",
        "accuracy was meant to come first",
    ),
    (
        "noise at full scale",
        "character shares .980 to .992 in an all-right group give advantages {jitter_low:.2f} to {jitter_high:.2f}",
        "arithmetic",
        "they may average out over many groups: they pull towards plain characters, not towards errors",
    ),
    (
        "steps and epochs",
        "180 steps follow from 5,089 questions, batch 512, 20 epochs; Figure 5 ends at 179",
        "figure",
        "the last step not logged, or counted from 0",
    ),
)


def closing_table(owners):
    """Every check in one row: frame check, found, certainty, innocent. owners: from `advantage_owners`.

    certainty: "arithmetic" (follows from the print), "statistics" (holds with its error rate), "figure" (rests on
    our reading of a vector figure), "simulation" (rests on stated assumptions).
    """
    import pandas as pd

    numbers = _closing_numbers(owners.set_index("difficulty"))
    rows = [tuple(text.format(**numbers) for text in row) for row in CHECKS]
    return pd.DataFrame(rows, columns=CHECK_COLUMNS)


def _closing_numbers(owners) -> dict:
    """What the braces of CHECKS stand for. owners: indexed by difficulty."""
    fit, gains, claims = attainability(), gain_tests(), text_against_table()
    expert = guessing().set_index("benchmark").loc["medxpertqa"]
    unclear = gains.loc[gains["p_holm"] >= 0.05]
    named = [
        f"{METHOD_LABELS[row.method]} on {BENCHMARK_LABELS[row.benchmark]}" for row in unclear.itertuples()
    ]
    verdicts = claims["verdict"].value_counts()
    jitter = worked_groups()["advantage"].iloc[GROUP:]
    spread, even = owners.loc["p ~ Beta(.5, .5)"], owners.loc["every p = 0.5"]
    return {
        "unattainable": (~fit["attainable"]).sum(),
        "accuracies": len(fit),
        "dropped": fit["dropped"].max(),
        "clear": len(gains[gains["p_holm"] < 0.05]),
        "gains": len(gains),
        "unclear": ", ".join(named),
        "expert_printed": expert["printed"],
        "expert_p": expert["p_chance"],
        "verdicts": ", ".join(f"{verdicts.get(verdict, 0)} {verdict}" for verdict in VERDICTS),
        "even_accuracy": even["accuracy"],
        "spread_accuracy": spread["accuracy"],
        "tied": spread["tied"],
        "even_reasoning": even["clinical reasoning"],
        "spread_reasoning": spread["clinical reasoning"],
        "jitter_low": jitter.min(),
        "jitter_high": jitter.max(),
    }
