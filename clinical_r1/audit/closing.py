"""Every check of the audit in one table: what was found, whose numbers it takes, and what it rests on."""

from clinical_r1 import paper
from clinical_r1.audit.accuracies import attainability, gain_tests, guessing
from clinical_r1.audit.claims import VERDICTS, text_against_table, verdict_counts
from clinical_r1.audit.reward_arithmetic import GROUP, worked_groups
from clinical_r1.audit.steps import steps
from clinical_r1.labels import BENCHMARK_LABELS, METHOD_LABELS

CLOSING_COLUMNS = ("check", "found", "numbers_of", "rests_on", "innocent")
TABLE1 = "Table 1; official sizes"
ASSUMED = "equations 3 and 4; rewards of ours"
CLOSING = (
    (
        "accuracies as k / n",
        "{missed_known} of {known} are no share of the official MedQA and MedMCQA test sets; if MedXpertQA's n is {n_if:,}, "
        "which the paper does not print, {missed_if} of {under_if} more",
        TABLE1,
        "if n",
        "unreadable answers left out (at most {dropped} a cell would do), or several samples averaged",
    ),
    (
        "gains over GRPO",
        "{clear} of {gains} beyond chance (Holm), {clear_if} of them if n = {n_if:,}; not {unclear}",
        TABLE1,
        "statistics",
        "a paired test could be sharper; one run each, so seeds are not in it",
    ),
    (
        "the chance line",
        "if n = {n_if:,}, the MedXpertQA baseline, {expert_printed:.2f} %, cannot be told from guessing (p = {expert_p:.2f})",
        TABLE1,
        "statistics",
        "a hard set for a small model",
    ),
    (
        "the paper against its numbers",
        "of its {claims} claims {verdicts}; {by_print} of the {contradicted} contradicted by print alone. "
        "Beside them {ours} readings of ours",
        "Table 1, names, captions; public files",
        "{grounds}",
        "typesetting, and names that promise more than the definitions",
    ),
    (
        "Figure 1's caption",
        "the hallucination axis shows the count: outwards is worse there, better on the other eight",
        "Figure 1",
        "drawing",
        "a caption written for an earlier drawing",
    ),
    (
        "what the advantage follows",
        "accuracy: correlation {even_accuracy:.2f} where every p = 0.5, {spread_accuracy:.2f} with {tied:.0%} tied groups; "
        "clinical reasoning: {even_reasoning:.2f} and {spread_reasoning:.2f}",
        ASSUMED,
        "assumption",
        "accuracy was meant to come first",
    ),
    (
        "noise at full scale",
        "consistency of {jitter_from:.3f} to {jitter_to:.3f} in an all-right group gives advantages {jitter_low:.2f} to "
        "{jitter_high:.2f}",
        ASSUMED,
        "assumption",
        "it may average out over many groups; the paper counts tokens, and only the released GRPO code counts characters",
    ),
    (
        "steps and epochs",
        "{total} steps follow from 5,089 questions, batch 512, 20 epochs; Figure 5 ends at {last}",
        "released GRPO code; Figure 5",
        "file, drawing",
        "the last step not logged, or counted from 0",
    ),
)


def closing_table(owners):
    """Every check in one row: frame check, found, numbers_of, rests_on (names of `claims.GROUNDS`), innocent.

    owners: from `reward_arithmetic.advantage_owners`.
    """
    import pandas as pd

    numbers = _denominators() | _tests() | _claims() | _rewards(owners.set_index("difficulty")) | _steps()
    rows = [tuple(text.format(**numbers) for text in row) for row in CLOSING]
    return pd.DataFrame(rows, columns=CLOSING_COLUMNS)


def _denominators() -> dict:
    fit = attainability()
    known, under_if = fit[fit["n_printed"]], fit[~fit["n_printed"]]
    return {
        "missed_known": (~known["attainable"]).sum(),
        "known": len(known),
        "missed_if": (~under_if["attainable"]).sum(),
        "under_if": len(under_if),
        "n_if": under_if["n"].iloc[0],
        "dropped": fit["dropped"].max(),
    }


def _tests() -> dict:
    gains, expert = gain_tests(), guessing().set_index("benchmark").loc["medxpertqa"]
    clear = gains["p_holm"] < 0.05
    named = [
        f"{METHOD_LABELS[row.method]} on {BENCHMARK_LABELS[row.benchmark]}"
        for row in gains[~clear].itertuples()
    ]
    return {
        "clear": clear.sum(),
        "gains": len(gains),
        "clear_if": gains.loc[clear, "benchmark"].isin(paper.SIZE_NOT_PRINTED).sum(),
        "unclear": ", ".join(named),
        "expert_printed": expert["printed"],
        "expert_p": expert["p_chance"],
    }


def _claims() -> dict:
    claims = text_against_table()
    counts, said = verdict_counts(claims), claims[claims["said_by"] == "the paper"]
    return {
        "claims": len(said),
        "verdicts": ", ".join(f"{counts.loc[verdict, 'the paper']} {verdict}" for verdict in VERDICTS),
        "contradicted": counts.loc["contradicted", "the paper"],
        "by_print": counts.loc["contradicted", "by print alone"],
        "ours": counts["us"].sum(),
        "grounds": ", ".join(dict.fromkeys(said["rests_on"])),
    }


def _rewards(owners) -> dict:
    """owners: indexed by difficulty."""
    jitter = worked_groups().iloc[GROUP:]
    spread, even = owners.loc["p ~ Beta(.5, .5)"], owners.loc["every p = 0.5"]
    return {
        "even_accuracy": even["accuracy"],
        "spread_accuracy": spread["accuracy"],
        "tied": spread["tied"],
        "even_reasoning": even["clinical reasoning"],
        "spread_reasoning": spread["clinical reasoning"],
        "jitter_from": jitter["consistency"].min(),
        "jitter_to": jitter["consistency"].max(),
        "jitter_low": jitter["advantage"].min(),
        "jitter_high": jitter["advantage"].max(),
    }


def _steps() -> dict:
    return {
        "total": steps().set_index("quantity").loc["RL steps after a cold start", "result"],
        "last": int(paper.fig5_curve()["step"].max()),
    }
