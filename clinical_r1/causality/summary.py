"""Outcomes of the probes over seeds: shares with intervals, differences between arms, and the table of a page or a terminal."""

from functools import partial

from clinical_r1.arms import ARMS
from clinical_r1.findings.wording import arm as called
from clinical_r1.findings.wording import change, p_value, per_cent, plain, seeds_of, size
from clinical_r1.intervals import (
    QUESTIONS_AND_SEEDS,
    QUESTIONS_ONLY,
    mean_interval,
    paired_difference,
)
from clinical_r1.metrics import EXPLORATORY, PRIMARY, with_holm
from clinical_r1.tables import markdown, whole

ITSELF = "itself, reasoning"  # what the direct control of an arm is compared with
TEST_COLUMNS = (
    "base benchmark probe status method against difference ci_low ci_high p p_holm mde_holm tests questions seeds"
).split()


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
    """Frame probe, method, against, seeds, questions, difference, ci_low, ci_high, p, standard_error, df: of the shares of hits,
    paired by seed and question.

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
        names = {"probe": probe, "method": method, "against": against}
        rows.append(names | _difference(pairs[method], pairs[against]))
    return pd.DataFrame(rows)


def _difference(hits, others) -> dict:
    """Two series of hits, 0 or 1, on one index (seed, id)."""
    seeds, questions = hits.index.get_level_values("seed"), hits.index.get_level_values("id")
    several = seeds.nunique() > 1
    found = paired_difference(hits, others, clusters=questions, seeds=seeds if several else None, scale=1.0)
    row = {"seeds": seeds.nunique(), "questions": questions.nunique(), "difference": found.difference}
    row |= {
        "ci_low": found.interval[0],
        "ci_high": found.interval[1],
        "p": found.p if several else float("nan"),
    }
    return row | {"standard_error": found.standard_error, "df": found.df}


def direct_against_reasoned(outcomes, method: str) -> dict | None:
    """The row of an arm's direct control minus its own accuracy with reasoning, on the seeds of the control; None without one."""
    own = outcomes[(outcomes["method"] == method) & outcomes["probe"].isin(["direct", "accuracy"])]
    hits = own.assign(hit=(own["outcome"] == "hits").astype(float))
    pairs = hits.pivot(index=["seed", "id"], columns="probe", values="hit")
    if "direct" not in pairs:
        return None
    pairs = pairs.dropna()
    return {"probe": "direct", "method": method, "against": ITSELF} | _difference(
        pairs["direct"], pairs["accuracy"]
    )


def compared(outcomes, base: str, benchmark: str):
    """Frame of TEST_COLUMNS: every trained arm against the baseline, exact_tally against crpo, each direct control against
    reasoning, and, with no `against` and no p, each arm's share of the swap test.

    Holm over the swap tests (status "primary") and, apart from them, over the other probes. Shares are in [0, 1].
    """
    import pandas as pd

    there = list(dict.fromkeys(outcomes["method"]))
    pairs = [(arm, "baseline") for arm in there if arm != "baseline" and "baseline" in there]
    pairs += [("exact_tally", "crpo")] if {"exact_tally", "crpo"} <= set(there) else []
    rows = [row for pair in pairs for row in differences(_shared(outcomes, *pair), *pair).to_dict("records")]
    rows += [row for arm in there if (row := direct_against_reasoned(outcomes, arm))]
    shares = summary(outcomes[outcomes["probe"] == "swap"]).rename(columns={"share": "difference"})
    rows += shares.assign(against=None, p=float("nan"), standard_error=float("nan"), df=float("nan")).to_dict(
        "records"
    )
    table = pd.DataFrame(rows).assign(base=base, benchmark=benchmark)
    table["status"] = [PRIMARY if probe == "swap" else EXPLORATORY for probe in table["probe"]]
    return with_holm(table)[TEST_COLUMNS]


def _shared(outcomes, *arms):
    """The outcomes of these arms in the probes that all of them have."""
    own = outcomes[outcomes["method"].isin(arms)]
    return own[own.groupby("probe")["method"].transform("nunique") == len(arms)]


def headline(shares) -> str:
    """The finding as a heading: how many of CRPO's answers follow exchanged names. shares: `summary`."""
    own = shares[shares["probe"] == "swap"].set_index("method")["share"]
    arm = next((name for name in ("crpo", "cold_start_crpo", *own.index) if name in own.index), None)
    if arm is None:
        return "No answers were given with exchanged names in their reasoning"
    return f"Names exchanged in the reasoning: {per_cent(own[arm])} of the answers of {called(arm)} follow"


def sentences(shares, found) -> str:
    """What the probes say, as markdown, every number from them. found: `compared`."""
    value = shares.set_index(["method", "probe"])
    lines = []
    for arm in dict.fromkeys(shares["method"]):
        said = []
        if (arm, "swap") in value.index:
            rows = found[
                (found["method"] == arm) & (found["against"] == "baseline") & (found["probe"] == "swap")
            ]
            against = "".join(f" ({_against_baseline(row)})" for row in rows.to_dict("records")[:1])
            said.append(f"{_per_cent(value.loc[(arm, 'swap')])} of the answers follow a swap{against}")
        if (arm, "agreement") in value.index:
            said.append(
                f"{per_cent(value.loc[(arm, 'agreement'), 'share'])} agree with the claims before them"
            )
        if (arm, "direct") in value.index:
            said.append(
                f"a copy trained to answer at once is right in {_per_cent(value.loc[(arm, 'direct')])}"
            )
        lines += [f"- **{_label(arm)}**: {'; '.join(said)}."] if said else []
    asked = size([shares["questions"].max()], [shares["seeds"].max()])
    control = shares.loc[shares["probe"] == "direct", "seeds"].max()
    asked += f", {whole(control)} of them for the copies" if control < shares["seeds"].max() else ""
    lines.append(
        f"\n{asked}; in brackets 95 % intervals "
        f"({shares['interval'].iloc[0]}). Agreement is a trap: it needs no answer that follows the claims."
    )
    return "\n".join(lines)


def _label(arm) -> str:
    """What an arm is called where a page puts it in bold, or in a table."""
    return plain(ARMS[arm].label if arm in ARMS else arm)


def base_lines(found) -> str:
    """One line for each base model of a table of tests: how many answers of each arm follow a swap. "" without any."""
    lines = []
    for base, own in found[found["probe"] == "swap"].groupby("base", sort=False):
        against = {row["method"]: row for row in own[own["against"] == "baseline"].to_dict("records")}
        shares = own[own["against"].isna()].to_dict("records")
        arms = "; ".join(
            f"{called(row['method'])} {per_cent(row['difference'], row['ci_low'], row['ci_high'])}"
            + (f" ({_against_baseline(against[row['method']])})" if row["method"] in against else "")
            for row in shares
        )
        if arms:
            lines.append(
                f"- **Base {plain(base)}** ({seeds_of(own['seeds'].max())}), answers that follow a swap: {arms}."
            )
    return "\n".join(lines)


def _against_baseline(row) -> str:
    """Difference in points with its interval, with p after correction where there is one."""
    numbers = (100 * row[name] for name in ("difference", "ci_low", "ci_high"))
    points, p = f"{change(*numbers, 1, ' points')} against the baseline", row["p_holm"]
    return points if p != p else f"{points}, {p_value(p)}"


def _per_cent(row) -> str:
    return per_cent(row["share"], row["ci_low"], row["ci_high"])


def as_markdown(shares) -> str:
    """A line for each arm, a column for each probe: per cent with its 95 % interval; a dash for what was not asked.

    shares: `summary`.
    """
    probes = list(dict.fromkeys(shares["probe"]))
    value = shares.set_index(["method", "probe"])
    lines = []
    for method in dict.fromkeys(shares["method"]):
        asked = [probe for probe in probes if (method, probe) in value.index]
        cells = {probe: _per_cent(value.loc[(method, probe)]).replace(" %", "") for probe in asked}
        lines.append([_label(method), *(cells.get(probe, "–") for probe in probes)])
    return markdown(["arm", *probes], lines)


def as_text(table) -> str:
    """A line for each arm of causality.csv, a column for each probe: the mean over seeds in per cent."""
    shares = table.groupby(["method", "probe"])["share"].mean().unstack("probe")
    order = list(dict.fromkeys(table["method"])), list(dict.fromkeys(table["probe"]))
    return (100 * shares.loc[order[0], order[1]]).map(partial("{:.1f}".format)).to_string()
