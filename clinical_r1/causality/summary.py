"""Outcomes of the probes over seeds: shares with intervals, differences between arms, and the table of a page or a terminal."""

from functools import partial

from clinical_r1.arms import ARMS
from clinical_r1.intervals import (
    QUESTIONS_AND_SEEDS,
    QUESTIONS_ONLY,
    mean_interval,
    paired_difference,
)


def summary(outcomes):
    """Frame method, probe, seeds, questions, share, ci_low, ci_high, interval: hits over all seeds, arms in the given order.

    outcomes: frame method, seed, probe, id, outcome (`table.read_outcomes`). Two-way random effects over questions and seeds;
    with one seed over questions.
    """
    import pandas as pd

    rows = []
    for (method, probe), own in outcomes.groupby(["method", "probe"], sort=False):
        seeds, hits = own["seed"].nunique(), (own["outcome"] == "hits").to_numpy(float)
        low, high = mean_interval(
            hits, clusters=own["id"], seeds=own["seed"] if seeds > 1 else None, share=True
        )
        row = {"method": method, "probe": probe, "seeds": seeds, "questions": own["id"].nunique()}
        row |= {"share": hits.mean(), "ci_low": low, "ci_high": high}
        rows.append(row | {"interval": QUESTIONS_AND_SEEDS if seeds > 1 else QUESTIONS_ONLY})
    return pd.DataFrame(rows)


def differences(outcomes, method: str, against: str):
    """Frame probe, method, against, seeds, difference, ci_low, ci_high, p: of the shares of hits, paired by seed and question.

    p is NaN with one seed: it would say nothing of another training run. ValueError when the two arms were not asked the same
    questions with the same seeds.
    """
    import pandas as pd

    rows = []
    for probe, own in outcomes.groupby("probe", sort=False):
        hits = own.assign(hit=(own["outcome"] == "hits").astype(float))
        pairs = hits.pivot(index=["seed", "id"], columns="method", values="hit").reindex(
            columns=[method, against]
        )
        if pairs.isna().any(axis=None) or pairs.empty:
            raise ValueError(
                f"{method} and {against} were not both asked every question of the probe {probe} with every seed; probe both."
            )
        seeds, questions = pairs.index.get_level_values("seed"), pairs.index.get_level_values("id")
        several = seeds.nunique() > 1
        found = paired_difference(
            pairs[method], pairs[against], clusters=questions, seeds=seeds if several else None, scale=1.0
        )
        row = {"probe": probe, "method": method, "against": against, "seeds": seeds.nunique()}
        row |= {"difference": found.difference, "ci_low": found.interval[0], "ci_high": found.interval[1]}
        rows.append(row | {"p": found.p if several else float("nan")})
    return pd.DataFrame(rows)


def as_markdown(table) -> str:
    """A line for each arm and seed of causality.csv, a column for each probe: per cent, with the interval over questions."""
    probes = list(dict.fromkeys(table["probe"]))
    lines = [f"| arm | seed | {' | '.join(probes)} |", "| --- | --- |" + " --- |" * len(probes)]
    for (method, seed), rows in table.groupby(["method", "seed"], sort=False):
        own = rows.set_index("probe")
        cells = [
            f"{100 * own.share[probe]:.1f} ({100 * own.ci_low[probe]:.1f} to {100 * own.ci_high[probe]:.1f})"
            for probe in probes
        ]
        lines.append(f"| {ARMS[method].label} | {seed} | {' | '.join(cells)} |")
    return "\n".join(lines)


def as_text(table) -> str:
    """A line for each arm of causality.csv, a column for each probe: the mean over seeds in per cent."""
    shares = table.groupby(["method", "probe"])["share"].mean().unstack("probe")
    order = list(dict.fromkeys(table["method"])), list(dict.fromkeys(table["probe"]))
    return (100 * shares.loc[order[0], order[1]]).map(partial("{:.1f}".format)).to_string()
