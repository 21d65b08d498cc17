"""How notebooks 03 and 04 end: their title questions answered in a few sentences that are made from a run's own tables.

Pure: frames in, markdown out, for any run.
"""

from collections.abc import Mapping

import pandas as pd

from clinical_r1.findings.claims import (
    COLD,
    CONTRADICTED,
    NOT_RUN,
    PLAIN,
    SUPPORTED,
    UNSETTLED,
    answer_rows,
    over_seeds,
    verdicts,
)
from clinical_r1.findings.claims_page import claim_sentence, in_short, shown_value
from clinical_r1.findings.training import KL, LENGTH, rises, tenths
from clinical_r1.findings.wording import (
    arm,
    benchmark,
    bullets,
    change,
    counted,
    finding,
    from_to,
    level,
    listed,
    measure,
    plain,
    seeds_of,
    size,
    verb,
    would_have,
)
from clinical_r1.labels import objective_label
from clinical_r1.tables import markdown

ACCURACY = "rewards/accuracy_reward/mean"
FORMATS = ("rewards/clinical_reasoning_reward/mean", "rewards/thinking_format_reward/mean")

# -------------------------------------------------------------------------------------------------------- notebook 03


def what_changes(logs: pd.DataFrame) -> str:
    """What changes when a model is rewarded for how it reasons? logs: `artifacts.read_logs`."""
    reward = tenths(logs)
    if reward.empty:
        return finding("nothing was trained with rewards, so nothing changed")
    seeds = reward["seeds"].max()
    formats = {name: _format(logs, name) for name in reward["method"]}
    lines = [f"{rises(reward)}.", *(f"{arm(name)}: {said}." for name, said in formats.items() if said)]
    pairs = [pair for pair in (PLAIN, COLD) if set(pair) <= set(reward["method"])]
    lines += [line for pair in pairs if (line := _beside(logs, pair))]
    first = next((pair[0] for pair in (PLAIN, COLD) if formats.get(pair[0])), None)
    heading = (
        f"rewarded for how it reasons, {arm(first)} changes this: {formats[first]}"
        if first
        else rises(reward)
    )
    scope = f"{seeds_of(seeds)}, sampled on training questions; differences between arms are those of the last tenth, "
    scope += (
        "95 % intervals over seeds, paired, not corrected."
        if seeds > 1
        else "and one seed tests none of them."
    )
    return finding(
        heading,
        bullets(lines),
        scope + " Whether an arm reasons better is asked on test questions, in notebook 04.",
    )


def _format(logs, name):
    """ "clinical-reasoning reward 0.65 in the first tenth of the steps, 1.48 in the last"; "" without a format reward."""
    for column in FORMATS:
        rows = tenths(logs[logs["method"] == name], column)
        if len(rows):
            row, term = rows.iloc[0], objective_label(column)
            first, last = (
                level(row[part], row[f"{part}_low"], row[f"{part}_high"], 2) for part in ("first", "last")
            )
            return f"{term[0].lower() + term[1:]} {first} in the first tenth of the steps, {last} in the last"
    return ""


def _beside(logs, pair):
    """How the two arms differ at the end of training, paired by seed."""
    said = []
    for column, digits, unit in ((ACCURACY, 3, " accuracy reward"), (LENGTH, 1, " tokens"), (KL, 3, " KL")):
        means = {name: _last(logs, name, column) for name in pair}
        paired = (means[pair[0]] - means[pair[1]]).dropna().to_numpy()
        if len(paired):
            over = over_seeds(paired)
            said.append(change(over["difference"], over["ci_low"], over["ci_high"], digits, unit))
    return f"{arm(pair[0])} minus {arm(pair[1])}: {listed(said)}." if said else ""


def _last(logs, name, column):
    """Mean over the last tenth of an arm's steps, a value a seed."""
    own = logs[logs["method"] == name]
    if column not in own:
        return pd.Series(dtype=float)
    steps = int(own["step"].max())
    late = own[(own["step"] > steps - max(1, steps // 10)) & own[column].notna()]
    return late.groupby("seed")[column].mean()


# -------------------------------------------------------------------------------------------------------- notebook 04


BETTER = ("truthful", "complete", "fewer_false")  # the claims that together say "reasons better"


def which_reasons_better(tables: Mapping[str, pd.DataFrame | None]) -> str:
    """Which arm reasons better, and how sure can we be? Each claim of docs/claims.md with its verdict and its numbers.

    tables: as for `claims.answer_rows`: "comparisons", "training", "causality"; what is missing was not run.
    """
    rows = answer_rows(tables)
    asked = verdicts(rows)
    run, seeds = asked[asked["verdict"] != NOT_RUN], rows["seeds"].max()
    if run.empty:
        return finding(
            "the claims of docs/claims.md are asked of the clinic, of arms or sets that this run does not have",
            "What the arms of this run do on its questions stands in the sections above.",
        )
    kinds = [f"{(run['verdict'] == kind).sum()} {kind}" for kind in (SUPPORTED, CONTRADICTED, UNSETTLED)]
    counts = f"Of {counted(len(run), 'claim')}, the paper's and ours, {listed(kinds)}"
    left = len(asked) - len(run)
    counts += (
        f"; {left} more {verb(left, 'was', 'were')} not run, for want of their arms, sets or probes."
        if left
        else "."
    )
    lines = [
        [claim_sentence(claim), claim.where, f"**{claim.verdict}**", _numbers(rows, claim)]
        for claim in run.itertuples()
    ]
    table = markdown(["claim", "who says it", "verdict", "differences, 95 %"], lines).replace("---:", "---")
    short = in_short(rows).strip() if seeds > 1 else ""
    return finding(_answer(run, seeds), short, f"{counts} {_how_sure(rows, seeds)}", table)


def _answer(run, seeds) -> str:
    """The heading: in how many respects CRPO reasons better than GRPO, without and after a cold start."""
    if not seeds > 1:
        return "one training seed settles nothing: no claim is supported or contradicted"
    parts = []
    for when, own in run[run["key"].isin(BETTER)].groupby("when", sort=False):
        good, bad = ((own["verdict"] == kind).sum() for kind in (SUPPORTED, CONTRADICTED))
        parts.append(f"in {good} of {counted(len(own), 'respect')} {when} ({bad} contradicted)")
    if not parts:
        return "whether CRPO reasons better than GRPO is not asked: this run lacks the arms or the sets of docs/claims.md"
    claim = "that CRPO states more true claims than GRPO, rejects more options and makes fewer false claims"
    return f"{claim} is supported {listed(parts)}"


def _numbers(rows, claim):
    """Every comparison behind a claim that was run, named by what tells it from the others."""
    own = rows[(rows["key"] == claim.key) & (rows["when"] == claim.when) & rows["difference"].notna()]
    names = {
        "method": arm,
        "metric": measure,
        "benchmark": benchmark,
        "base": lambda base: f"base {plain(base)}",
    }
    told = [name for name in names if own[name].nunique() > 1]
    if own["table"].iloc[0] == "training":  # on questions for training: no set of the tables
        return "; ".join(
            f"{arm(row.method)} minus {arm(row.against)} {shown_value(row)}" for row in own.itertuples()
        )
    return "; ".join(
        " ".join([*(names[name](getattr(row, name)) for name in told or ["benchmark"]), shown_value(row)])
        for row in own.itertuples()
    )


def _how_sure(rows, seeds):
    """What the verdicts rest on, and the smallest differences of accuracy that would have been found."""
    compared = rows[(rows["table"] == "comparisons") & rows["difference"].notna()]
    asked = size([compared["n"].max()], [seeds], "questions a set")
    rest = (
        f"They rest on {'up to ' * bool(len(compared))}{asked}, by the rules of [claims](../docs/claims.md)."
    )
    world = "the synthetic clinic" if len(compared) else "these questions"
    scope = f" All of it holds for {world} and this base model only."
    if not seeds > 1:
        return (
            rest
            + " Intervals are over questions and say nothing of another training run; a test takes three seeds."
            + scope
        )
    found = compared.loc[(compared["metric"] == "accuracy") & compared["mde"].notna(), "mde"]
    if len(found):
        rest += f" By comparison, {would_have(from_to(found, 1) + ' points of accuracy')}."
    return rest + scope
