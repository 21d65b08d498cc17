"""What each ablation changes: an arm against the reference, with intervals, Holm's correction and detectable effects."""

import numpy as np

from clinical_r1.arms import REFERENCE
from clinical_r1.intervals import holm, minimum_detectable_effect, ratio_interval, two_sided_p
from clinical_r1.laboratory.draws import draw, mean_and_interval, mean_over_seeds, seed_means
from clinical_r1.laboratory.records import (
    COUNTERPART,
    OBJECTIVES,
    REASONING,
    REFERENCE_SETTING,
    families,
    members,
    weight_of_accuracy,
)


def ablation_table(lab, family, against=REFERENCE, metrics=OBJECTIVES, rng=None):
    """Arms of a family beside their reference: one row per arm and metric, Holm over the family.

    Columns: family, arm, label, setting, against, metric, value, ci_low, ci_high (means, accuracy in per cent),
    difference, difference_low, difference_high (paired, arm minus against), mde (minimum detectable effect at 80 %
    power), p, p_holm, n (questions), seeds, interval (its name), seconds (mean training time). The reference's own row has
    no difference.
    """
    import pandas as pd

    arms = members(lab, family, against)
    if against not in arms or len(arms) < 2:
        raise ValueError(
            f"family {family!r} against {against!r} leaves the arms {arms}; expected one of {families(lab)}."
        )
    drawn = draw(lab, arms, metrics, rng)
    about = lab.arms.set_index("arm")
    rows = []
    for arm in arms:
        other = COUNTERPART.get(arm, against) if family == "cold_start" else against
        is_reference = arm == other or (family == "cold_start" and arm in COUNTERPART.values())
        settled = REFERENCE_SETTING.get(family, "") if arm == against else about.loc[arm, "setting"]
        names = {"family": family, "arm": arm, "label": about.loc[arm, "label"]}
        names |= {"setting": "" if pd.isna(settled) else settled, "against": None if is_reference else other}
        for metric in drawn.objectives:
            row = names | {"metric": metric} | mean_and_interval(drawn, arm, metric)
            if not is_reference:
                row |= _difference(drawn, arm, other, metric)
            rows.append(row | {"seconds": about.loc[arm, "seconds"]})
    return _with_holm(pd.DataFrame(rows).reindex(columns=ABLATION_COLUMNS))


ABLATION_COLUMNS = [
    *("family", "arm", "label", "setting", "against", "metric", "value", "ci_low", "ci_high", "difference"),
    *("difference_low", "difference_high", "mde", "p", "p_holm", "n", "seeds", "interval", "seconds"),
]


def _with_holm(table):
    tested = table["p"].notna()
    table.loc[tested, "p_holm"] = holm(table.loc[tested, "p"])
    return table


def _difference(drawn, arm, other, metric):
    return _contrast(drawn, metric, {arm: 1.0, other: -1.0})


def _contrast(drawn, metric, signs):
    """The weighted sum of arms' means with interval, mde and p; signs: arm -> weight."""
    result = drawn.contrast(metric, signs)
    most = 100.0 * sum(weight for weight in signs.values() if weight > 0)
    low, high = ratio_interval(result, bounds=(-most, most) if metric == "accuracy" else (-np.inf, np.inf))
    numbers = {"difference": result.estimate, "difference_low": low, "difference_high": high}
    mde = minimum_detectable_effect(result.standard_error, result.df)
    return numbers | {"mde": mde, "p": two_sided_p(result)}


def prompt_and_reward(lab, metrics=OBJECTIVES, rng=None):
    """The two-by-two of prompt and reward: frame metric, effect, difference, ..., p, p_holm, n, seeds, interval.

    effect "CRPO prompt" and "CRPO reward" average over the other factor; "both together" is their interaction: how much
    more the reward does under its own prompt.
    """
    import pandas as pd

    crpo, grpo, reward, prompt = "crpo", "grpo", "crpo_in_grpo", "grpo_in_crpo"
    effects = {
        "CRPO prompt": {crpo: 0.5, prompt: 0.5, reward: -0.5, grpo: -0.5},
        "CRPO reward": {crpo: 0.5, prompt: -0.5, reward: 0.5, grpo: -0.5},
        "both together": {crpo: 1.0, prompt: -1.0, reward: -1.0, grpo: 1.0},
    }
    drawn = draw(lab, (crpo, grpo, reward, prompt), metrics, rng)
    rows = [
        {"metric": metric, "effect": effect, **_contrast(drawn, metric, signs)}
        for metric in drawn.objectives
        for effect, signs in effects.items()
    ]
    table = pd.DataFrame(rows).assign(
        p_holm=np.nan, n=drawn.questions, seeds=drawn.seeds, interval=drawn.named()
    )
    return _with_holm(table)


def seconds_per_arm(lab):
    """Frame arm, family, label, seconds, against_reference (ratio to the reference's time), slowest first."""
    table = lab.arms[["arm", "family", "label", "seconds"]].dropna(subset="seconds")
    own = table.loc[table["arm"] == REFERENCE, "seconds"]
    table = table.assign(against_reference=table["seconds"] / own.iloc[0] if len(own) else np.nan)
    return table.sort_values("seconds", ascending=False, ignore_index=True)


def k_table(lab, metrics=(*OBJECTIVES, "tokens"), rng=None):
    """What k buys: frame k, arm, metric, value, ci_low, ci_high, n, seeds, interval; the reward as a metric of its own.

    "clinical_reasoning_reward" is the training reward (format and citation, 0 to 1.5) over the last third of training,
    with Student's t over seeds; all others are measured on the test questions.
    """
    import pandas as pd

    arms = members(lab, "k")
    drawn = draw(lab, arms, metrics, rng)
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
