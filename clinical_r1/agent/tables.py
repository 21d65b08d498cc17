"""What a comparison of agents found: means, paired differences from GRPO, gains over the start, a front of two objectives (ours).

All tables are made from `records.AgentSummary`. Intervals and tests are those of `intervals`: patients and training seeds are
both drawn at random, every policy meets the same patients, and a difference is paired by patient and seed. One seed has no p.
"""

from typing import NamedTuple

import numpy as np

from clinical_r1.agent.arms import AGENT_ARMS, GAMMA
from clinical_r1.agent.records import BUDGETS, FIX, SETTINGS, STAGES, START, AgentSummary
from clinical_r1.intervals import DRAWS, interval_of, share_interval, two_sided_p, two_way
from clinical_r1.metrics import EXPLORATORY, PRIMARY, TESTED_COLUMNS, with_holm

REFERENCE = "grpo"
PATIENTS_ONLY = "Student's t over patients"
PATIENTS_AND_SEEDS = "two-way random effects over patients and seeds"
SEEDS_ONLY = "Student's t over seeds"
POLICY_LABELS = {
    "guess": "Guess",
    "random_inquiry": "Random inquiry",
    "greedy": "Greedy",
    "expert": "Expert",
}
ARM_LABELS = {START: "Start"} | {name: arm.label for name, arm in AGENT_ARMS.items()}

# The arm that credits by each estimator gives it its name, colour and marker
ESTIMATOR_ARMS = {"episode": "grpo", "anchor": "gigpo", "tree": "tree_grpo", "tree+anchor": "tree_anchor"}
ANCHORED = ("anchor", "tree+anchor")  # the estimators on which gamma has a bearing
ESTIMATOR_LABELS = {
    "episode": "Episode (GRPO)",
    "anchor": "Anchor (GiGPO)",
    "tree": "Tree (Tree-GRPO)",
    "tree+anchor": "Tree + anchor",
}


class Measure(NamedTuple):
    """label: in figures. scale: 100 for what is shown in per cent, 1 for what is counted. lowest: of its values."""

    label: str
    scale: float = 1.0
    lowest: float = 0.0


MEASURES = {
    "right": Measure("Accuracy (%)", 100.0),
    "reward": Measure("Return", lowest=-np.inf),
    "tests": Measure("Tests ordered"),
    "gain": Measure("Information gain (bits)", lowest=-np.inf),
    "inquiries": Measure("Inquiries"),
    "turns": Measure("Turns"),
    "cost": Measure("Cost"),
    "answered": Measure("Answered (%)", 100.0),
    "premature": Measure("Premature closure (%)", 100.0),
    "covered": Measure("Findings covered (%)", 100.0),
    "invalid": Measure("Invalid turns"),
    "repeats": Measure("Repeated inquiries"),
}
TESTED = ("right",)  # accuracy, named before looking (docs/agent.md); the others are exploratory


# ---------------------------------------------------------------------------------------------- consultations as arrays


def held(summary: AgentSummary, setting: str, budget: str = "sampled"):
    """Consultations of a setting under a budget, the start's among them, with `inquiries`; None where no arm has any.

    ValueError where a policy met other patients than the rest: nothing could be paired.
    """
    frame = summary.of("consultations", setting)
    if frame is None:
        return None
    own = frame[frame["budget"].isin([budget, START])]
    if not (own["arm"] != START).any():
        return None
    met = own.groupby(["arm", "seed"])["patient"].agg(frozenset)
    if met.nunique() > 1:
        arm, seed = met[met != met.iloc[0]].index[0]
        raise ValueError(
            f"in the setting {setting}, {arm} with seed {seed} met other patients than the rest; expected the same: {FIX}."
        )
    return own.assign(inquiries=own[["asks", "examinations", "tests"]].sum(axis=1))


def arms_of(rows) -> list[str]:
    """Trained arms of the rows, in the order of AGENT_ARMS."""
    there = set(rows["arm"])
    return [name for name in AGENT_ARMS if name in there]


def cells(rows, arm: str, measure: str):
    """(frame seeds x patients) of one measure, per cent where it is shown so; NaN where it is not defined."""
    own = rows[rows["arm"] == arm]
    return own.pivot(index="seed", columns="patient", values=measure) * MEASURES[measure].scale


def _mean(table, measure) -> dict:
    known = table.notna().to_numpy()
    n, seeds = int(known.any(axis=0).sum()), len(table)
    about = {"n": n, "seeds": seeds, "interval": PATIENTS_AND_SEEDS if seeds > 1 else PATIENTS_ONLY}
    if not n:
        return {"value": np.nan, "ci_low": np.nan, "ci_high": np.nan} | about
    what = MEASURES[measure]
    tops, bottoms = _sums(table, known)
    result = two_way(tops, bottoms, what.scale, counts=what.lowest == 0)
    if what.scale == 100:
        low, high = share_interval(result, int(bottoms.sum()), scale=100.0)
    else:
        low, high = interval_of(result, bounds=(what.lowest, np.inf))
    return {"value": result.value, "ci_low": low, "ci_high": high} | about


def _sums(table, known):
    """(S, Q) sums and counts, of the patients that have the measure with any seed."""
    there = known.any(axis=0)
    return np.nan_to_num(table.to_numpy(float))[:, there], known[:, there].astype(float)


def _difference(own, other, measure) -> dict:
    """Paired difference of two arms' cells, with its interval, p, standard error and df."""
    table = own - other
    known = table.notna().to_numpy()
    names = ("difference", "difference_low", "difference_high", "standard_error", "df", "p")
    if not known.any():
        return dict.fromkeys(names, np.nan)
    scale = MEASURES[measure].scale
    result = two_way(*_sums(table, known), scale, paired=True)
    bounds = (-100.0, 100.0) if scale == 100 else (-np.inf, np.inf)
    p = two_sided_p(result) if len(table) > 1 else np.nan
    numbers = (result.value, *interval_of(result, bounds=bounds), result.standard_error, result.df, p)
    return dict(zip(names, numbers, strict=True))


# --------------------------------------------------------------------------------------------------------------- tables


def reference_lines(summary: AgentSummary, setting: str):
    """Frame policy, label, measure, value, ci_low, ci_high, n of the reference policies, scaled as MEASURES; or None."""
    frame = summary.of("references", setting)
    if frame is None:
        return None
    frame = _with_inquiries(frame[~frame["measure"].isin(_OF_TURNS)].replace({"measure": _AS_MEASURED}))
    frame = frame[frame["measure"].isin(MEASURES)]
    scale = frame["measure"].map({name: what.scale for name, what in MEASURES.items()})
    numbers = {
        new: frame[old] * scale for old, new in (("value", "value"), ("low", "ci_low"), ("high", "ci_high"))
    }
    table = frame.assign(**numbers, label=frame["policy"].map(POLICY_LABELS))
    order = table["policy"].map(list(POLICY_LABELS).index)
    table = table.assign(order=order).sort_values("order", kind="stable", ignore_index=True)
    return table[["policy", "label", "measure", "value", "ci_low", "ci_high", "n"]]


# Names of `measures.summary` that consultations call otherwise; and what there is a share of turns, here a number of turns
_AS_MEASURED = {
    "return": "reward",
    "information_gain": "gain",
    "coverage": "covered",
    "premature_closure": "premature",
}
_OF_TURNS = ("invalid", "repeats")


def _with_inquiries(frame):
    """The rows, with each policy's mean number of inquiries where only its parts are there; the sum has no interval."""
    import pandas as pd

    parts = frame[frame["measure"].isin(("asks", "examinations", "tests"))]
    if "inquiries" in set(frame["measure"]):
        return frame
    by_policy = parts.groupby(["setting", "policy"])
    sums = by_policy.agg(value=("value", "sum"), n=("n", "min"), parts=("value", "size")).reset_index()
    sums = sums[sums["parts"] == 3].assign(measure="inquiries", low=np.nan, high=np.nan)
    return pd.concat([frame, sums[list(frame.columns)]], ignore_index=True) if len(sums) else frame


def arms_table(summary: AgentSummary, setting: str, budget: str = "sampled", measures=tuple(MEASURES)):
    """Frame arm, label, measure, value, ci_low, ci_high, n (patients), seeds, interval, gain, gain_low, gain_high; or None.

    gain: over the start, paired by patient; the start was played once, and stands beside every seed. The start's own row, the
    first, has none.
    """
    import pandas as pd

    rows = held(summary, setting, budget)
    if rows is None:
        return None
    lines = []
    for arm in [START] * bool((rows["arm"] == START).any()) + arms_of(rows):
        for measure in measures:
            table = cells(rows, arm, measure)
            line = {"arm": arm, "label": ARM_LABELS[arm], "measure": measure} | _mean(table, measure)
            if arm != START and (rows["arm"] == START).any():
                line |= _gain(table, cells(rows, START, measure), measure)
            lines.append(line)
    return pd.DataFrame(lines).reindex(columns=ARMS_COLUMNS)


ARMS_COLUMNS = [
    *("arm", "label", "measure", "value", "ci_low", "ci_high", "n", "seeds", "interval"),
    *("gain", "gain_low", "gain_high"),
]


def _gain(table, start, measure) -> dict:
    beside = table * 0 + start.mean(axis=0)  # a row for each seed of the arm
    found = _difference(table, beside, measure)
    return {f"gain{end}": found[f"difference{end}"] for end in ("", "_low", "_high")}


def comparison_table(summary: AgentSummary, setting: str, budget: str = "sampled", measures=tuple(MEASURES)):
    """Every arm minus GRPO: frame arm, label, against, measure, status, value, reference, difference, ..., or None.

    difference, difference_low, difference_high: paired by patient and seed, in points where the measure is in per cent. p,
    p_holm, mde_holm, tests: as `metrics.with_holm`, over all arms and the measures of the same status; TESTED are primary. n:
    patients; seeds: those that both have. None without consultations of GRPO and of another arm.
    """
    import pandas as pd

    rows = held(summary, setting, budget)
    if rows is None or REFERENCE not in set(rows["arm"]):
        return None
    lines = []
    for arm in arms_of(rows):
        seeds = set(rows.loc[rows["arm"] == arm, "seed"]) & set(rows.loc[rows["arm"] == REFERENCE, "seed"])
        if arm == REFERENCE or not seeds:
            continue
        paired = rows[rows["seed"].isin(seeds)]
        for measure in measures:
            own, other = (cells(paired, name, measure) for name in (arm, REFERENCE))
            both = int((own.notna() & other.notna()).any(axis=0).sum())
            line = {"arm": arm, "label": ARM_LABELS[arm], "against": REFERENCE, "measure": measure}
            line |= {"status": PRIMARY if measure in TESTED else EXPLORATORY, "n": both, "seeds": len(seeds)}
            line |= {"value": _mean(own, measure)["value"], "reference": _mean(other, measure)["value"]}
            line["interval"] = PATIENTS_AND_SEEDS if len(seeds) > 1 else PATIENTS_ONLY
            lines.append(line | _difference(own, other, measure))
    return with_holm(pd.DataFrame(lines))[COMPARISON_COLUMNS] if lines else None


COMPARISON_COLUMNS = [
    *("arm", "label", "against", "measure", "status", "value", "reference"),
    *("difference", "difference_low", "difference_high", *TESTED_COLUMNS, "n", "seeds", "interval"),
]


def both_budgets(make, summary: AgentSummary, setting: str, **options):
    """`arms_table` or `comparison_table` under each budget that was measured, in one frame with a column budget; or None."""
    import pandas as pd

    found = {budget: make(summary, setting, budget, **options) for budget in BUDGETS}
    tables = [table.assign(budget=budget) for budget, table in found.items() if table is not None]
    return pd.concat(tables, ignore_index=True) if tables else None


# ------------------------------------------------------------------------------------------------- accuracy against tests


def undominated(points) -> np.ndarray:
    """(..., N, 2) points, more is better -> (..., N) True where no other is at least as good in both and better in one."""
    one, other = points[..., :, None, :], points[..., None, :, :]
    return ~((other >= one).all(axis=-1) & (other > one).any(axis=-1)).any(axis=-1)


def area(points, corner) -> np.ndarray:
    """(..., N, 2) points, both better when larger -> (...) area between their front and a corner (2,) behind all of them."""
    x, y = np.moveaxis(np.maximum(points - corner, 0.0), -1, 0)
    order = np.argsort(-x, axis=-1, kind="stable")
    x, y = np.take_along_axis(x, order, -1), np.maximum.accumulate(np.take_along_axis(y, order, -1), axis=-1)
    width = x - np.concatenate([x[..., 1:], np.zeros_like(x[..., :1])], axis=-1)
    return (width * y).sum(axis=-1)


def front_table(
    summary: AgentSummary, setting: str, rng, budget: str = "sampled", against="tests", reps=DRAWS // 5
):
    """Accuracy against what was spent: frame name, kind, label, right, right_low, right_high, spent, spent_low, spent_high,
    on_front, frequency, volume, volume_low, volume_high, n, seeds; or None.

    kind: "arm" (the start is one), "policy" (a reference, not on the arms' front) or "front" (all arms together). frequency:
    share of `reps` draws of patients and seeds in which an arm is on the front. volume: area in per cent of the box from no
    accuracy and the most that any consultation spent, to all right and nothing spent. rng: for the draws.
    """
    import pandas as pd

    rows = held(summary, setting, budget)
    if rows is None:
        return None
    arms = [START] * bool((rows["arm"] == START).any()) + arms_of(rows)
    most = max(float(rows[against].max()), 1.0)
    means, draws = _drawn(rows, arms, ("right", against), rng, reps)
    turned, drawn = (np.stack([at[..., 0], most - at[..., 1]], axis=-1) for at in (means, draws))
    on, often = undominated(turned), undominated(drawn).mean(axis=0)
    lines = []
    for i, arm in enumerate(arms):
        line = {"name": arm, "kind": "arm", "label": ARM_LABELS[arm], "on_front": bool(on[i])}
        line |= {"frequency": often[i]} | _volume(turned[[i]], drawn[:, [i]], most)
        for name, measure in (("right", "right"), ("spent", against)):
            mean = _mean(cells(rows, arm, measure), measure)
            line |= {name: mean["value"], f"{name}_low": mean["ci_low"], f"{name}_high": mean["ci_high"]}
        lines.append(line | {"n": mean["n"], "seeds": mean["seeds"]})
    lines += _policies_at(summary, setting, against)
    whole = {"name": "front", "kind": "front", "label": "All arms"} | _volume(turned, drawn, most)
    lines.append(
        whole | {"n": rows["patient"].nunique(), "seeds": max(line.get("seeds", 0) for line in lines)}
    )
    return pd.DataFrame(lines).reindex(columns=FRONT_COLUMNS)


FRONT_COLUMNS = [
    *("name", "kind", "label", "right", "right_low", "right_high", "spent", "spent_low", "spent_high"),
    *("on_front", "frequency", "volume", "volume_low", "volume_high", "n", "seeds"),
]


def _volume(points, drawn, most) -> dict:
    """Area in per cent of the box of 100 per cent by `most`."""
    values = area(drawn, np.zeros(2)) / most
    low, high = np.quantile(values, [0.025, 0.975])
    return {"volume": float(area(points, np.zeros(2)) / most), "volume_low": low, "volume_high": high}


def _drawn(rows, arms, measures, rng, reps):
    """((A, 2) means, (R, A, 2) means over drawn patients and S - 1 of S drawn seeds, each arm's own); patients are shared."""
    patients = rows["patient"].nunique()
    times = rng.multinomial(patients, np.full(patients, 1 / patients), size=reps) / patients
    means, draws = [], []
    for arm in arms:
        values = np.stack([cells(rows, arm, measure).to_numpy(float) for measure in measures], axis=-1)
        seeds = len(values)
        some = rng.multinomial(max(1, seeds - 1), np.full(seeds, 1 / seeds), size=reps) / max(1, seeds - 1)
        means.append(values.mean(axis=(0, 1)))
        draws.append(np.einsum("rs,rq,sqk->rk", some, times, values, optimize=True))
    return np.stack(means), np.stack(draws, axis=1)


def _policies_at(summary, setting, against) -> list[dict]:
    lines = reference_lines(summary, setting)
    if lines is None:
        return []
    found = []
    for policy, own in lines.groupby("policy", sort=False):
        own = own.set_index("measure")
        if {"right", against} <= set(own.index):
            line = {"name": policy, "kind": "policy", "label": POLICY_LABELS[policy], "n": own["n"].max()}
            for name, measure in (("right", "right"), ("spent", against)):
                line |= {name: own.loc[measure, "value"]}
                line |= {f"{name}_{end}": own.loc[measure, f"ci_{end}"] for end in ("low", "high")}
            found.append(line)
    return found


# ------------------------------------------------------------------------------------------------------- training, credit


def training_ends(summary: AgentSummary, settings=tuple(SETTINGS), columns=("right", "turns", "inquiries")):
    """First and last tenth of training: frame setting, arm, label, measure, first, last, each with _low and _high, seeds.

    None without any training. Means over seeds, on patients of training, with Student's t over seeds; accuracy in per cent.
    """
    import pandas as pd

    lines = []
    for setting in settings:
        frame = summary.of("training", setting)
        if frame is None:
            continue
        for arm in arms_of(frame):
            own = frame[frame["arm"] == arm]
            tenth = max(1, int(own["step"].max()) // 10)
            parts = {"first": own["step"] <= own["step"].min() + tenth - 1}
            parts["last"] = own["step"] > own["step"].max() - tenth
            for measure in columns:
                line = {"setting": setting, "arm": arm, "label": ARM_LABELS[arm], "measure": measure}
                for part, at in parts.items():
                    line |= _over_seeds(own[at].groupby("seed")[measure].mean(), measure, part)
                lines.append(line | {"seeds": own["seed"].nunique()})
    return pd.DataFrame(lines) if lines else None


def _over_seeds(values, measure, part) -> dict:
    from scipy.stats import t

    values = values.dropna().to_numpy(float) * (100.0 if measure in ("right", "answered") else 1.0)
    if not len(values):
        return {part: np.nan, f"{part}_low": np.nan, f"{part}_high": np.nan}
    half = np.nan
    if len(values) > 1 and values.std(ddof=1) > 0:
        half = t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values))
    low, high = values.mean() - half, values.mean() + half
    top = 100.0 if measure in ("right", "answered") else np.inf
    return {part: values.mean(), f"{part}_low": np.clip(low, 0, top), f"{part}_high": np.clip(high, 0, top)}


def credit_table(summary: AgentSummary, menu: str = "8", measure: str = "correlation", std: int = 1):
    """Rows of the credit frame of one menu, measure and choice of std, with label; sorted by stage, estimator, group; or None.

    Where the estimator does not depend on gamma there is one row a group, which stands for every gamma.
    """
    frame = summary.credit
    if frame is None:
        return None
    own = frame[(frame["menu"] == menu) & (frame["measure"] == measure) & (frame["std"] == std)]
    own = own.assign(label=own["estimator"].map(ESTIMATOR_LABELS), order=own["stage"].map(STAGES.index))
    own = own.assign(place=own["estimator"].map(list(ESTIMATOR_LABELS).index))
    own = own.sort_values(["order", "place", "group", "gamma"], ignore_index=True)
    return own.drop(columns=["order", "place"]) if len(own) else None


def largest_group(rows) -> int:
    """The largest group size that every estimator of the rows has; the largest of any where they share none."""
    shared = set.intersection(*(set(own["group"]) for _, own in rows.groupby("estimator")))
    return int(max(shared or set(rows["group"])))


def credit_at(rows, gamma: float = GAMMA, group: int | None = None):
    """Rows of `credit_table` with one gamma for the anchors, and one group size where one is named; None without rows."""
    if rows is None:
        return None
    own = rows[~rows["estimator"].isin(ANCHORED) | np.isclose(rows["gamma"], gamma)]
    return own if group is None else own[own["group"] == group]


def nearest(rows):
    """`credit_at` the largest group of all estimators; None without rows."""
    return None if rows is None else credit_at(rows, group=largest_group(rows))
