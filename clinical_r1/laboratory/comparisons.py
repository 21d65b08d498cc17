"""What each ablation changes: an arm against the reference, with intervals, Holm's correction and detectable effects."""

import numpy as np

from clinical_r1.arms import REFERENCE
from clinical_r1.intervals import interval_of, two_sided_p
from clinical_r1.laboratory.draws import draw, mean_and_interval, mean_over_seeds, seed_means
from clinical_r1.laboratory.records import (
    BENCHMARK,
    COUNTERPART,
    FIX,
    OBJECTIVES,
    REASONING,
    REFERENCE_SETTING,
    families,
    members,
    weight_of_accuracy,
)
from clinical_r1.metrics import TESTED_COLUMNS, status, with_holm


def ablation_table(lab, family, against=REFERENCE, metrics=OBJECTIVES):
    """Arms of a family beside their reference: one row per arm and metric, Holm over the family's primary measures.

    Columns: family, arm, label, setting, against, metric, status (`metrics.status`), value, ci_low, ci_high (means, accuracy
    in per cent), difference, difference_low, difference_high (paired, arm minus against), p, then p_holm, mde_holm and tests of
    `metrics.with_holm`, n (questions), seeds, interval (its name), seconds (mean training time). The reference's own row
    has no difference, and one seed has no p. A family without other arms has the reference's row alone; an
    arm whose own reference has no answers has no difference either.
    """
    import pandas as pd

    arms = members(lab, family, against)
    if family not in {*lab.arms["family"], *families(lab), *REFERENCE_SETTING}:
        raise ValueError(f"got the family {family!r}; expected one of {families(lab)}.")
    if against not in arms:
        raise ValueError(
            f"the arm {against!r}, which family {family!r} is compared with, has no answers; {FIX}."
        )
    drawn = draw(lab, arms, metrics)
    about = lab.arms.set_index("arm")
    rows = []
    for arm in arms:
        other = COUNTERPART.get(arm, against) if family == "cold_start" else against
        is_reference = arm == other or (family == "cold_start" and arm in COUNTERPART.values())
        alone = is_reference or other not in arms
        settled = REFERENCE_SETTING.get(family, "") if arm == against else about.loc[arm, "setting"]
        names = {"family": family, "arm": arm, "label": about.loc[arm, "label"]}
        names |= {"setting": "" if pd.isna(settled) else settled, "against": None if alone else other}
        for metric in drawn.objectives:
            row = names | {"metric": metric, "status": status(BENCHMARK, metric)}
            row |= mean_and_interval(drawn, arm, metric)
            if not alone:
                row |= _difference(drawn, arm, other, metric)
            rows.append(row | {"seconds": about.loc[arm, "seconds"]})
    columns = [name for name in ABLATION_COLUMNS if name not in TESTED_COLUMNS[1:]]
    table = pd.DataFrame(rows).reindex(columns=[*columns, "standard_error", "df"])
    return with_holm(table)[ABLATION_COLUMNS]


ABLATION_COLUMNS = [
    *("family", "arm", "label", "setting", "against", "metric", "status", "value", "ci_low", "ci_high"),
    *("difference", "difference_low", "difference_high", *TESTED_COLUMNS),
    *("n", "seeds", "interval", "seconds"),
]


def _difference(drawn, arm, other, metric):
    return _contrast(drawn, metric, {arm: 1.0, other: -1.0})


def _contrast(drawn, metric, signs):
    """The weighted sum of arms' means with interval, and with p where there are several seeds; signs: arm -> weight."""
    result = drawn.contrast(metric, signs)
    most = 100.0 * sum(weight for weight in signs.values() if weight > 0)
    low, high = interval_of(result, bounds=(-most, most) if metric == "accuracy" else (-np.inf, np.inf))
    numbers = {"difference": result.value, "difference_low": low, "difference_high": high}
    numbers |= {"standard_error": result.standard_error, "df": result.df}
    return numbers | {"p": two_sided_p(result) if drawn.seeds > 1 else np.nan}


def prompt_and_reward(lab, metrics=OBJECTIVES):
    """The two-by-two of prompt and reward: frame metric, effect, status, difference, ..., p, p_holm, ...

    effect "CRPO prompt" and "CRPO reward" average over the other factor; "both together" is their interaction: how much
    more the reward does under its own prompt. Without answers of all four arms the frame has no rows.
    """
    import pandas as pd

    crpo, grpo, reward, prompt = "crpo", "grpo", "crpo_in_grpo", "grpo_in_crpo"
    if not {crpo, grpo, reward, prompt} <= set(lab.scores["arm"]):
        return pd.DataFrame(columns=TWO_BY_TWO_COLUMNS)
    effects = {
        "CRPO prompt": {crpo: 0.5, prompt: 0.5, reward: -0.5, grpo: -0.5},
        "CRPO reward": {crpo: 0.5, prompt: -0.5, reward: 0.5, grpo: -0.5},
        "both together": {crpo: 1.0, prompt: -1.0, reward: -1.0, grpo: 1.0},
    }
    drawn = draw(lab, (crpo, grpo, reward, prompt), metrics)
    rows = [
        {"metric": metric, "effect": effect, "status": status(BENCHMARK, metric)}
        | _contrast(drawn, metric, signs)
        for metric in drawn.objectives
        for effect, signs in effects.items()
    ]
    table = with_holm(pd.DataFrame(rows))
    return table.assign(n=drawn.questions, seeds=drawn.seeds, interval=drawn.named())[TWO_BY_TWO_COLUMNS]


TWO_BY_TWO_COLUMNS = [
    *("metric", "effect", "status", "difference", "difference_low", "difference_high", *TESTED_COLUMNS),
    *("n", "seeds", "interval"),
]


def coverage_table(lab):
    """Share of answers that parse, by k and training seed: frame k, arm, label, seed, coverage (0 to 1), n (questions)."""
    labels = lab.arms.set_index("arm")["label"]
    own = lab.scores[lab.scores["arm"].isin(members(lab, "k"))]
    table = own.groupby(["arm", "seed"])["parsed"].agg(coverage="mean", n="size").reset_index()
    table = table.assign(k=[weight_of_accuracy(arm) for arm in table["arm"]], label=table["arm"].map(labels))
    columns = ["k", "arm", "label", "seed", "coverage", "n"]
    return table[columns].sort_values(["k", "seed"], ignore_index=True)


def seconds_per_arm(lab):
    """Frame arm, family, label, seconds, against_reference (ratio to the reference's time), slowest first."""
    table = lab.arms[["arm", "family", "label", "seconds"]].dropna(subset="seconds")
    own = table.loc[table["arm"] == REFERENCE, "seconds"]
    table = table.assign(against_reference=table["seconds"] / own.iloc[0] if len(own) else np.nan)
    return table.sort_values("seconds", ascending=False, ignore_index=True)


def k_table(lab, metrics=(*OBJECTIVES, "tokens")):
    """What k buys: frame k, arm, metric, value, ci_low, ci_high, n, seeds, interval; the reward as a metric of its own.

    "clinical_reasoning_reward" is the training reward (format and citation, 0 to 1.5) over the last third of training,
    with Student's t over seeds; all others are measured on the test questions.
    """
    import pandas as pd

    arms = members(lab, "k")
    drawn = draw(lab, arms, metrics)
    rows = []
    for arm in arms:
        names = {"k": weight_of_accuracy(arm), "arm": arm}
        rows += [
            names | {"metric": metric, **mean_and_interval(drawn, arm, metric)} for metric in drawn.objectives
        ]
        paid = seed_means(lab, arm, f"rewards/{REASONING}/mean", "late")
        if paid is not None:
            over_seeds = {"n": np.nan, "interval": "Student's t over seeds"}
            rows.append(names | {"metric": REASONING, **mean_over_seeds(paid), **over_seeds})
    return pd.DataFrame(rows)
