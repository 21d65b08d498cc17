"""The laboratory's section of docs/results.md, from the tables that notebook 05 writes: the same findings, in the same words."""

from clinical_r1.findings import laboratory as findings
from clinical_r1.findings.laboratory_rows import sizes
from clinical_r1.findings.wording import POWER, level, places
from clinical_r1.labels import objective_label
from clinical_r1.tables import markdown

# what a finding needs -> the file that holds it, beside the figures
TABLES = {
    "standing": "tradeoffs_standing.csv",
    "k": "tradeoffs_k.csv",
    "coverage": "tradeoffs_coverage.csv",
    "ablations": "tradeoffs_ablations.csv",
    "prompt_or_reward": "tradeoffs_prompt_reward.csv",
    "fronts": "tradeoffs_fronts.csv",
    "points": "tradeoffs_pareto.csv",
    "volumes": "tradeoffs_hypervolume.csv",
    "travel": "tradeoffs_trajectories.csv",
    "thirds": "tradeoffs_advantage_thirds.csv",
    "calculations": "tradeoffs_calculations.csv",
    "seconds": "tradeoffs_seconds.csv",
}


def laboratory_page(tables):
    """The section as markdown. tables: kind of TABLES -> frame; a finding without its table is left out.

    ValueError names a table that the section cannot do without.
    """
    if missing := [TABLES[kind] for kind in ("k", "ablations", "volumes") if kind not in tables]:
        raise ValueError(f"the laboratory's tables lack {', '.join(missing)}; publish notebook 05 again.")
    by_k, ablations = tables["k"], tables["ablations"]
    family = ablations["family"]
    blocks = [
        _of(tables, "standing", findings.behind),
        NOTE,
        findings.k(by_k, ablations[family == "k"]),
        _k_markdown(by_k),
        "![What k buys: each measure over k](../figures/published/cpu/tradeoffs_k.png)",
        _of(tables, "coverage", findings.coverage),
        _of(tables, "thirds", lambda rows: findings.owners(rows[rows["arm"].isin(by_k["arm"])])),
        _of(
            tables, "thirds", lambda rows: findings.owners_by_aggregator(rows[~rows["arm"].isin(by_k["arm"])])
        ),
        _of(tables, "calculations", findings.calculations),
        findings.other_choices(ablations),
        _of(tables, "prompt_or_reward", findings.prompt_or_reward),
        findings.aggregators(ablations[family == "aggregator"]),
        _of(tables, "fronts", findings.fronts),
        _of(tables, "points", findings.all_objectives),
        findings.hypervolume(tables["volumes"]),
        _of(tables, "travel", findings.travel),
        _of(tables, "seconds", findings.cost),
        "### What each objective buys, and at what price",
        findings.closing(by_k, ablations, tables["volumes"]),
    ]
    return "\n\n".join(block.strip() for block in blocks if block) + "\n"


NOTE = (
    "Intervals are 95 %, over questions and training seeds. A difference is paired by question and seed, and is called found "
    "where p stays below .05 after Holm's correction within its family of arms; where none is found, the smallest that would "
    f"have been found {POWER}, stands beside it."
)


def _of(tables, kind, finding):
    """A finding, or "" without its table."""
    return finding(tables[kind]) if kind in tables else ""


def _k_markdown(table):
    """Every measure over k, with intervals."""
    metrics = list(dict.fromkeys(table["metric"]))
    lines = []
    for value, own in table.sort_values("k", kind="stable").groupby("k"):
        cells = {row.metric: _cell(row) for row in own.itertuples()}
        lines.append([f"{value:g}", *(cells.get(metric, "–") for metric in metrics)])
    header = ["k", *map(objective_label, metrics)]
    return f"{markdown(header, lines)}\n\n{sizes(table)}." if lines else ""


def _cell(row):
    return level(row.value, row.ci_low, row.ci_high, places(row.metric))
