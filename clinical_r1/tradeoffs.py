"""The laboratory's files -> what each objective buys: ablations, Pareto fronts, hypervolumes, and who owns the advantage.

Pure: reads the four small files that `./reproduce.sh ablations` makes, trains nothing. An arm is a point
in objective space; the scripted honest policy and the ideal, exact in the clinic, mark what can be attained. Intervals
are over questions and training seeds, as in `intervals`; all arms share the draws, so that they are compared pairwise.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np

from clinical_r1.arms import ARMS, REFERENCE
from clinical_r1.clinic import Case, knowledge_base, load_set
from clinical_r1.clinic_text import AGAINST, HONEST, measure, write_trace
from clinical_r1.completions import parse_completion
from clinical_r1.intervals import (
    Resampled,
    crossed_draws,
    holm,
    minimum_detectable_effect,
    ratio_interval,
    two_sided_p,
)
from clinical_r1.metrics import LOWER_IS_BETTER, PROCESS_METRICS, hypervolume
from clinical_r1.rewards import REWARD_SETS

FILES = {
    "scores": "ablations_scores.csv.gz",
    "arms": "ablations_arms.csv",
    "training": "ablations_training.csv.gz",
    "trajectories": "ablations_trajectories.csv.gz",
}
COLUMNS = {
    "scores": ("arm", "seed", "id", "correct", "parsed", "tokens"),
    "arms": ("arm", "family", "label", "setting", "seconds"),
    "training": ("arm", "seed", "step", "reward"),
    "trajectories": ("arm", "seed", "step", "id", "correct"),
}
MEND = "run ./reproduce.sh ablations (add --summary-only when its arms are trained)"
OBJECTIVES = ("accuracy", "faithfulness", "drc", "hallucination")
# A policy that says nothing: no right answer, no true claim, no rejected distractor. Every policy has at least that, so
# the point bounds every front, and a volume is what was earned, not what was gained over one arm of ours.
SILENCE = {"accuracy": 0.0, "faithfulness": 0.0, "drc": 0.0}
# Arms of other families that a family's table needs beside the reference
ALSO = {"prompt_x_reward": ("grpo",), "cold_start": ("cold_start_grpo", "cold_start_crpo")}
COUNTERPART = {"cold_start_grpo": "grpo"}  # compared with another arm than the family's reference
# What the reference has where a family varies it
REFERENCE_SETTING = {
    "k": "k = 10",
    "terms": "all terms",
    "citation": "r_CR with + 0.5",
    "consistency": "r_cons as it is",
    "prompt_x_reward": "CRPO prompt, CRPO reward",
    "group_size": "G = 8",
    "aggregator": "sum, then normalised",
    "kl": "beta = 0.001",
    "cold_start": "no cold start",
}
ACCURACY, REASONING, CONSISTENCY = "accuracy_reward", "clinical_reasoning_reward", "consistency_reward"
TERMS = (ACCURACY, REASONING, CONSISTENCY)
PREDICTED = ("k0", "k1", "k3", "crpo", "k30", "mo_grpo", "gdpo")
REPS = 2000


class Laboratory(NamedTuple):
    """The four frames of the laboratory, one row per answer, arm, training step and checkpoint answer."""

    scores: object
    arms: object
    training: object
    trajectories: object


# --- reading


def find_laboratory(out=".") -> Path:
    """The folder with the laboratory's four files: this checkout's own run if it is whole, otherwise the shipped summary."""
    own, shipped = Path(out) / "runs" / "ablations" / "summary", Path(__file__).parent / "data" / "laboratory"
    return own if all((own / name).is_file() for name in FILES.values()) else shipped


def read_laboratory(folder) -> Laboratory:
    """The four files of a folder. FileNotFoundError or ValueError names the file and how to mend it."""
    frames = {kind: _read(Path(folder) / name, COLUMNS[kind]) for kind, name in FILES.items()}
    scores, path = frames["scores"], Path(folder) / FILES["scores"]
    if scores.duplicated(["arm", "seed", "id"]).any():
        first = scores[scores.duplicated(["arm", "seed", "id"])].iloc[0]
        raise ValueError(f"{path}: {first.arm} seed {first.seed} answers {first.id} twice; {MEND}.")
    if not scores[["correct", "parsed"]].isin([0, 1]).all(axis=None):
        raise ValueError(f"{path}: correct and parsed must be 0 or 1; {MEND}.")
    if unknown := set(scores["arm"]) - set(frames["arms"]["arm"]):
        raise ValueError(
            f"{path} has the arms {sorted(unknown)}, which {FILES['arms']} does not describe; {MEND}."
        )
    scores["accuracy"] = 100.0 * scores["correct"]
    frames["trajectories"]["accuracy"] = 100.0 * frames["trajectories"]["correct"]
    return Laboratory(**frames)


def _read(path, columns):
    import pandas as pd

    if not path.exists():
        raise FileNotFoundError(f"{path} is missing; expected a file of the ablations: {MEND}.")
    try:
        frame = pd.read_csv(path)
    except (OSError, EOFError, ValueError) as error:  # gzip, encoding and parsing faults
        raise ValueError(f"{path} cannot be read ({error}); delete it and {MEND}.") from error
    missing = [column for column in columns if column not in frame]
    if missing or frame.empty:
        what = f"lacks the columns {missing}" if missing else "has no rows"
        raise ValueError(f"{path} {what}; expected at least {list(columns)}: {MEND}.")
    return frame


def families(lab):
    """Names of the families that have an arm to compare, in the file's order; the paper's five first."""
    found = [*dict.fromkeys(lab.arms["family"]), *ALSO]
    return [name for name in dict.fromkeys(found) if len(members(lab, name)) > 1]


def members(lab, family, against=REFERENCE):
    """Arms of a family with answers, the reference first, then in the file's order; k in order of k."""
    own = list(lab.arms.loc[lab.arms["family"] == family, "arm"])
    own = [against, *own, *ALSO.get(family, ())]
    if family == "cold_start":
        own.insert(1, "grpo")
    answered = set(lab.scores["arm"])
    own = [arm for arm in dict.fromkeys(own) if arm in answered]
    return sorted(own, key=weight_of_accuracy) if family == "k" else own


def weight_of_accuracy(arm):
    """k of an arm (paper eq. 4)."""
    return float(_weights(arm)[0])


def _weights(arm):
    """An arm's own reward weights, or its reward set's."""
    return ARMS[arm].weights or REWARD_SETS[ARMS[arm].rewards].weights


# --- one set of draws for all arms


class Draws(NamedTuple):
    """Means of A arms in K objectives, drawn R times over questions and S seeds.

    estimate (A, K); draws (R, A, K); by_seed (S, A, K). questions, seeds: how many of each.
    """

    arms: tuple
    objectives: tuple
    estimate: np.ndarray
    draws: np.ndarray
    by_seed: np.ndarray
    questions: int
    seeds: int

    def result(self, function) -> Resampled:
        """Resampled of `function(means (..., A, K)) -> (...)`, a mean, a contrast or a volume."""
        estimate, draws, own = function(self.estimate), function(self.draws), function(self.by_seed)
        if self.seeds == 1:
            return Resampled(float(estimate), draws, float(draws.std()), self.questions - 1, False)
        return crossed_draws(float(estimate), draws, own.var(ddof=1) / self.seeds, self.seeds, self.questions)

    def of(self, arm, objective) -> Resampled:
        a, k = self.arms.index(arm), self.objectives.index(objective)
        return self.result(lambda means: means[..., a, k])


def draw(lab, arms, objectives, rng, reps=REPS) -> Draws:
    """Draws of these arms on the seeds and questions that all of them have (intervals.bootstrap_interval says how).

    Raises ValueError naming an objective that was not computed, or the arm that has no seed or other questions.
    """
    objectives, arms = _computed(lab, objectives), tuple(arms)
    rows = lab.scores[lab.scores["arm"].isin(arms)]
    held = {arm: set(own) for arm, own in rows.groupby("arm")["seed"]}
    if absent := [arm for arm in arms if arm not in held]:
        raise ValueError(f"the scores have no answers of {absent}; expected some of {sorted(held)}: {MEND}.")
    seeds = sorted(set.intersection(*held.values()))
    if not seeds:
        raise ValueError(f"the arms {list(arms)} have no training seed in common; {MEND}.")
    rows = rows[rows["seed"].isin(seeds)]
    cells = [_cells(rows, arms, seeds, objective) for objective in objectives]
    values = np.stack(cells, axis=-1)  # (S, A, Q, K)
    size = values.shape[2]
    times = rng.multinomial(size, np.full(size, 1 / size), size=reps) / size  # (R, Q)
    means = np.einsum("rq,saqk->rsak", times, values, optimize=True)
    if len(seeds) > 1:  # S - 1 of S seeds: see intervals.bootstrap_interval
        drawn = rng.multinomial(len(seeds) - 1, np.full(len(seeds), 1 / len(seeds)), size=reps)
        means = np.einsum("rs,rsak->rak", drawn / (len(seeds) - 1), means)
    else:
        means = means[:, 0]
    by_seed = values.mean(axis=2)
    return Draws(arms, objectives, by_seed.mean(axis=0), means, by_seed, size, len(seeds))


def _cells(rows, arms, seeds, objective):
    """(S, A, Q) values of one objective; ValueError where an arm lacks a question or a verdict."""
    table = rows.pivot(index=["seed", "arm"], columns="id", values=objective)
    if (lacking := table.isna().sum(axis=1)).any():
        seed, arm = lacking.idxmax()
        raise ValueError(
            f"{arm} seed {seed} has no {objective} for {lacking.max()} of {table.shape[1]} questions; expected the same "
            f"questions for every arm: {MEND}."
        )
    return np.array([table.loc[seed].loc[list(arms)].to_numpy(float) for seed in seeds])


def _computed(lab, objectives):
    objectives = tuple(objectives)
    for objective in objectives:
        if objective not in lab.scores:
            known = [name for name in (*PROCESS_METRICS, "accuracy", "tokens") if name in lab.scores]
            raise ValueError(f"objective {objective!r} is named but not computed; expected some of {known}.")
    if not objectives:
        raise ValueError(f"got no objective; expected some of {OBJECTIVES}.")
    return objectives


def maximise(objectives):
    """One bool per objective: False where less is better."""
    return [objective not in LOWER_IS_BETTER for objective in objectives]


# --- ablations


def ablation_table(lab, family, against=REFERENCE, metrics=OBJECTIVES, rng=None):
    """Arms of a family beside their reference: one row per arm and metric, Holm over the family.

    Columns: family, arm, label, setting, against, metric, value, ci_low, ci_high (means, accuracy in per cent),
    difference, difference_low, difference_high (paired, arm minus against), mde (minimum detectable effect at 80 %
    power), p, p_holm, n (questions), seeds, seconds (mean training time). The reference's own row has no difference.
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
            row = names | {"metric": metric} | _value(drawn, arm, metric)
            if not is_reference:
                row |= _difference(drawn, arm, other, metric)
            rows.append(row | {"seconds": about.loc[arm, "seconds"]})
    return _with_holm(pd.DataFrame(rows).reindex(columns=ABLATION_COLUMNS))


ABLATION_COLUMNS = [
    *("family", "arm", "label", "setting", "against", "metric", "value", "ci_low", "ci_high", "difference"),
    *("difference_low", "difference_high", "mde", "p", "p_holm", "n", "seeds", "seconds"),
]


def _with_holm(table):
    tested = table["p"].notna()
    table.loc[tested, "p_holm"] = holm(table.loc[tested, "p"])
    return table


def _value(drawn, arm, metric):
    result = drawn.of(arm, metric)
    low, high = ratio_interval(result)
    bounds = {"ci_low": max(0.0, low), "ci_high": min(100.0, high) if metric == "accuracy" else high}
    return {"value": result.estimate, **bounds, "n": drawn.questions, "seeds": drawn.seeds}


def _difference(drawn, arm, other, metric):
    return _contrast(drawn, metric, {arm: 1.0, other: -1.0})


def _contrast(drawn, metric, signs):
    """The weighted sum of arms' means with interval, mde and p; signs: arm -> weight."""
    k = drawn.objectives.index(metric)
    weights = np.array([signs.get(arm, 0.0) for arm in drawn.arms])
    result = drawn.result(lambda means: means[..., k] @ weights)
    low, high = ratio_interval(result)
    numbers = {"difference": result.estimate, "difference_low": low, "difference_high": high}
    mde = minimum_detectable_effect(result.standard_error, result.df)
    return numbers | {"mde": mde, "p": two_sided_p(result)}


def prompt_and_reward(lab, metrics=OBJECTIVES, rng=None):
    """The two-by-two of prompt and reward: frame metric, effect, difference, ..., p, p_holm, n, seeds.

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
    table = pd.DataFrame(rows).assign(p_holm=np.nan, n=drawn.questions, seeds=drawn.seeds)
    return _with_holm(table)


def seconds_per_arm(lab):
    """Frame arm, family, label, seconds, against_reference (ratio to the reference's time), slowest first."""
    table = lab.arms[["arm", "family", "label", "seconds"]].dropna(subset="seconds")
    own = table.loc[table["arm"] == REFERENCE, "seconds"]
    table = table.assign(against_reference=table["seconds"] / own.iloc[0] if len(own) else np.nan)
    return table.sort_values("seconds", ascending=False, ignore_index=True)


def k_table(lab, metrics=(*OBJECTIVES, "tokens"), rng=None):
    """What k buys: frame k, arm, metric, value, ci_low, ci_high, n, seeds; the reward as a metric of its own.

    "clinical_reasoning_reward" is the training reward (format and citation, 0 to 1.5) over the last third of training,
    with Student's t over seeds; all others are measured on the test questions.
    """
    import pandas as pd

    arms = members(lab, "k")
    drawn = draw(lab, arms, metrics, rng)
    rows = []
    for arm in arms:
        names = {"k": weight_of_accuracy(arm), "arm": arm}
        rows += [names | {"metric": metric, **_value(drawn, arm, metric)} for metric in drawn.objectives]
        paid = _per_seed(lab, arm, f"rewards/{REASONING}/mean", "late")
        if paid is not None:
            rows.append(names | {"metric": REASONING, **_over_seeds(paid), "n": np.nan})
    return pd.DataFrame(rows)


# --- objective space


def points(lab, objectives=OBJECTIVES, rng=None, arms=None):
    """Every arm as a point: frame arm, family, label, objective, value, ci_low, ci_high, higher_is_better, n, seeds."""
    import pandas as pd

    drawn = draw(lab, arms or answered(lab), objectives, rng)
    about = lab.arms.set_index("arm")
    rows = []
    for arm in drawn.arms:
        names = {"arm": arm, "family": about.loc[arm, "family"], "label": about.loc[arm, "label"]}
        for objective in drawn.objectives:
            better = {"higher_is_better": objective not in LOWER_IS_BETTER}
            rows.append(names | {"objective": objective, **_value(drawn, arm, objective), **better})
    return pd.DataFrame(rows)


def answered(lab):
    """Arms with answers, in the order of the arms' file."""
    there = set(lab.scores["arm"])
    return tuple(arm for arm in lab.arms["arm"] if arm in there)


def honest_point(n=500, benchmark="clinic", style="crpo", seed=0):
    """Mean of each objective for the scripted honest policy on the first n test questions: {objective: value}.

    It makes no false claim, cites, and rejects every distractor (up to five), but does not say all it could: two
    findings for the answer, one against each distractor. `seed` fixes which ones.
    """
    rng = np.random.default_rng(seed)
    rows = []
    for question in load_set(benchmark, "test", n):
        case = Case.from_json(question.meta["case"])
        text = write_trace(case, style, HONEST, rng)
        right = parse_completion(text, style).letter == question.answer
        rows.append({"accuracy": 100.0 * right, **measure(text, case)})
    return _mean_of(rows)


def ideal_point(n=500, benchmark="clinic"):
    """The best that the clinic's rules allow on the first n test questions, each objective by itself: {objective: value}.

    accuracy 100; faithfulness: every true claim about an option once; drc: every distractor with stated evidence against
    it; hallucination 0. The other measures have no bound that means anything, and are left out.
    """
    kb, rows = knowledge_base(), []
    for question in load_set(benchmark, "test", n):
        case = Case.from_json(question.meta["case"])
        true = sum(bool(kb.effect(f, present, o)) for f, present in case.stated for o in case.options)
        rejectable = sum(bool(case.evidence(option, AGAINST)) for option in case.distractors)
        rows.append({"accuracy": 100.0, "faithfulness": true, "drc": rejectable, "hallucination": 0.0})
    return _mean_of(rows)


def _mean_of(rows):
    return {name: float(np.mean([row[name] for row in rows])) for name in rows[0]}


def fronts(lab, spaces, rng, arms=None):
    """Which arms no other arm dominates: frame space, arm, family, label, on_front, frequency, seeds.

    spaces: tuples of objectives, as ("accuracy", "drc"). frequency: share of the draws over questions and seeds in which
    the arm is on the front; an arm on the front by luck has a small one. Equal points stay together.
    """
    import pandas as pd

    wanted = tuple(dict.fromkeys(objective for space in spaces for objective in space))
    drawn = draw(lab, arms or answered(lab), wanted, rng, reps=1000)
    about, rows = lab.arms.set_index("arm"), []
    for space in spaces:
        columns = [drawn.objectives.index(objective) for objective in space]
        signs = np.where(maximise(space), 1.0, -1.0)
        here = undominated(drawn.estimate[None, :, columns] * signs)[0]
        often = undominated(drawn.draws[:, :, columns] * signs).mean(axis=0)
        for a, arm in enumerate(drawn.arms):
            names = {"space": " and ".join(space), "arm": arm, "family": about.loc[arm, "family"]}
            row = {"label": about.loc[arm, "label"], "on_front": bool(here[a]), "frequency": float(often[a])}
            rows.append(names | row | {"seeds": drawn.seeds})
    return pd.DataFrame(rows)


def undominated(points):
    """(R, A) bool of points (R, A, K), more is better: no other point is at least as good everywhere and better once."""
    a, b = points[:, :, None, :], points[:, None, :, :]
    return ~((b >= a).all(axis=-1) & (b > a).any(axis=-1)).any(axis=-1)


def hypervolume_table(lab, objectives=tuple(SILENCE), reference=None, rng=None, bound=None, reps=500):
    """Hypervolume of each arm by itself and of each family's front: frame kind ("arm" | "front"), name, family, label,
    volume, ci_low, ci_high, share (of `bound`'s volume), arms (how many span it), seeds.

    reference: {objective: value} that every arm must reach; None is SILENCE. A front holds its family and the reference
    arm. bound: {objective: value}, such as `honest_point`. The best of several noisy arms looks better than it is, so a
    front of many arms is a little too large; volumes of single arms are not. Raises ValueError naming the objective in
    which the reference does not bound the front.
    """
    import pandas as pd

    reference = SILENCE if reference is None else reference
    objectives = _computed(lab, objectives)
    if set(reference) != set(objectives):
        raise ValueError(
            f"the reference has {sorted(reference)}; expected {sorted(objectives)}, one for each."
        )
    drawn, sign = (
        draw(lab, answered(lab), objectives, rng, reps),
        np.where(maximise(objectives), 1.0, -1.0),
    )
    origin = np.array([reference[objective] for objective in objectives], dtype=float)
    _bounds(drawn, origin, sign)
    whole = np.prod(sign * (np.array([bound[o] for o in objectives]) - origin)) if bound else np.nan
    about, rows = lab.arms.set_index("arm"), []
    sets = [("arm", arm, [arm]) for arm in drawn.arms] + [
        ("front", name, members(lab, name)) for name in families(lab)
    ]
    for kind, name, inside in sets:
        chosen = [drawn.arms.index(arm) for arm in inside]
        result = drawn.result(lambda means, chosen=chosen: _volumes(means[..., chosen, :], origin, sign))
        low, high = ratio_interval(result)
        family = about.loc[name, "family"] if kind == "arm" else name
        label = about.loc[name, "label"] if kind == "arm" else name.replace("_", " ")
        names = {"kind": kind, "name": name, "family": family, "label": label, "volume": result.estimate}
        size = {"share": result.estimate / whole, "arms": len(inside), "seeds": drawn.seeds}
        rows.append(names | {"ci_low": max(0.0, low), "ci_high": high} | size)
    return pd.DataFrame(rows)


def _bounds(drawn, origin, sign):
    """Every arm must reach the reference in every objective; otherwise its volume would be cut silently."""
    behind = sign * (drawn.estimate - origin) < 0
    if behind.any():
        a, k = np.argwhere(behind)[0]
        raise ValueError(
            f"the reference {origin[k]:g} of {drawn.objectives[k]} does not bound the front: {drawn.arms[a]} has "
            f"{drawn.estimate[a, k]:.4g}; choose one that no arm falls behind."
        )


def _volumes(means, origin, sign):
    """Volumes (...) of the fronts of means (..., A, K); a draw that falls behind the reference adds nothing there."""
    gains = np.maximum(sign * (means - origin), 0.0)
    if gains.shape[-2] == 1:
        return gains.prod(axis=-1)[..., 0]
    flat = gains.reshape(-1, *gains.shape[-2:])
    volumes = [hypervolume(points, np.zeros(points.shape[1])) for points in flat]
    return np.array(volumes).reshape(gains.shape[:-2])


def trajectory_points(lab, objectives=OBJECTIVES):
    """Checkpoints in objective space: frame arm, label, step, objective, value, error (standard error over seeds), seeds."""
    objectives = tuple(objectives)
    for objective in objectives:
        if objective not in lab.trajectories:
            raise ValueError(
                f"objective {objective!r} is named but {FILES['trajectories']} does not have it."
            )
    labels = lab.arms.set_index("arm")["label"]
    long = lab.trajectories.melt(["arm", "seed", "step"], objectives, "objective")
    per_seed = long.groupby(["arm", "step", "objective", "seed"])["value"].mean()
    table = per_seed.groupby(level=[0, 1, 2]).agg(["mean", "sem", "size"]).reset_index()
    table = table.rename(columns={"mean": "value", "sem": "error", "size": "seeds"})
    return table.assign(label=table["arm"].map(labels))


# --- who owns the advantage


def shares(lab, arms, window=10):
    """Who owned the advantage over training: frame arm, label, step, term, share (mean over seeds, then of `window` steps).

    The term "tied groups" is no share: it is the part of groups whose answers are all right or all wrong.
    """
    import pandas as pd

    labels, rows = lab.arms.set_index("arm")["label"].to_dict(), []
    if REFERENCE in labels:
        labels[REFERENCE] += f" (k = {weight_of_accuracy(REFERENCE):g})"
    for arm in arms:
        own = lab.training[lab.training["arm"] == arm].groupby("step").mean(numeric_only=True)
        for column in _advantage_columns(own):
            if own[column].notna().any():
                value = own[column].rolling(window, min_periods=1).mean()
                names = {"arm": arm, "label": labels[arm], "term": _term(column)}
                rows.append(pd.DataFrame({**names, "step": value.index, "share": value.to_numpy()}))
    if not rows:
        raise ValueError(f"{FILES['training']} logs no advantage of {list(arms)}; {MEND}.")
    return pd.concat(rows, ignore_index=True)


def _advantage_columns(frame):
    tied = ["advantage/tied_groups"] if "advantage/tied_groups" in frame else []
    return [c for c in frame if c.startswith("advantage/") and c.endswith("/share")] + tied


def _term(column):
    return column.removeprefix("advantage/").removesuffix("/share").replace("tied_groups", "tied groups")


def shares_table(lab, arms):
    """Early and late thirds of training: frame arm, third, term, value, ci_low, ci_high, seeds.

    Student's t over seeds, cut off at 0 and 1, which no share can leave.
    """
    import pandas as pd

    rows = []
    for arm in arms:
        for column in _advantage_columns(lab.training):
            for third in ("early", "late"):
                values = _per_seed(lab, arm, column, third)
                if values is not None:
                    rows.append({"arm": arm, "third": third, "term": _term(column), **_over_seeds(values)})
    frame = pd.DataFrame(rows)
    bounds = ["ci_low", "ci_high"]
    return frame.assign(**frame[bounds].clip(0, 1)) if rows else frame


def _per_seed(lab, arm, column, third="all"):
    """Series seed -> mean of a logged column over a third of training ("early", "late", "all"), or None without any."""
    own = lab.training[lab.training["arm"] == arm]
    if column not in own or not own[column].notna().any():
        return None
    last = own["step"].max()
    if third == "early":
        own = own[own["step"] <= last / 3]
    elif third == "late":
        own = own[own["step"] > 2 * last / 3]
    values = own.groupby("seed")[column].mean().dropna()
    return values if len(values) else None


def _over_seeds(values):
    """Mean over seeds with a Student's t interval; NaN bounds for one seed. values: (S,)."""
    from scipy.stats import t

    values = np.asarray(values, dtype=float)
    half = np.nan
    if len(values) > 1:
        half = t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values))
    mean = values.mean()
    return {"value": mean, "ci_low": mean - half, "ci_high": mean + half, "seeds": len(values)}


def predicted_shares(rewards, num_generations, arms=PREDICTED):
    """Shares of the advantage in simulated groups, counted as in the training log: frame arm, one column a term, in_mixed.

    rewards: (N, 3) in the order of TERMS (`audit.simulated_rewards`). Each arm's own weights and aggregation are used.
    in_mixed: accuracy's share in the groups that hold right and wrong answers.
    """
    import pandas as pd

    from clinical_r1.advantages import contributions

    mixed = np.ptp(np.asarray(rewards)[:, 0].reshape(-1, num_generations), axis=1).repeat(num_generations) > 0
    rows = []
    for arm in arms:
        parts = contributions(rewards, _weights(arm), num_generations, ARMS[arm].aggregation).abs().numpy()
        by_term = dict(zip(TERMS, parts.sum(axis=0) / parts.sum(), strict=True))
        rows.append({"arm": arm} | by_term | {"in_mixed": parts[mixed, 0].sum() / parts[mixed].sum()})
    return pd.DataFrame(rows)


def claims(lab, predicted, saturated):
    """What was calculated before training (who owns the advantage, and what k does) against trained arms.

    predicted, saturated: frames of `predicted_shares` for simulated groups, the latter with every conclusion citing.
    Frame claim, quantity, predicted, measured, ci_low, ci_high (Student's t over seeds), seeds, expected ("above x" or
    "below x"), verdict: "holds" or "contradicted" where the interval lies on one side, "open" where it does not, "one
    seed" without an interval, "not measured" where an arm or column is absent.
    """
    import pandas as pd

    rows = []
    for claim, quantity, expected, bound, forecast, measured in _claims(
        lab, predicted.set_index("arm"), saturated.set_index("arm")
    ):
        numbers = {"value": np.nan, "ci_low": np.nan, "ci_high": np.nan, "seeds": 0}
        if measured is not None and len(measured):
            numbers = _over_seeds(measured)
        row = {"claim": claim, "quantity": quantity, "predicted": forecast, "measured": numbers.pop("value")}
        verdict = _verdict(numbers, expected, bound)
        rows.append(row | numbers | {"expected": f"{expected} {bound:g}", "verdict": verdict})
    return pd.DataFrame(rows)


def _verdict(numbers, expected, bound):
    if numbers["seeds"] < 2:
        return "one seed" if numbers["seeds"] else "not measured"
    above, below = numbers["ci_low"] > bound, numbers["ci_high"] < bound
    if not (above or below):
        return "open"
    return "holds" if above == (expected == "above") else "contradicted"


def _claims(lab, predicted, saturated):
    """(claim, quantity, "above" | "below", bound, predicted, Series over seeds or None), one per claim."""

    def share(arm, term, third="all"):
        return _per_seed(lab, arm, f"advantage/{term}/share", third)

    def minus(a, b):
        return None if a is None or b is None else (a - b).dropna()

    at, own = predicted.loc, REFERENCE
    for claim, arm in (
        ("With k = 10, accuracy owns the advantage of mixed groups", own),
        ("With k = 3, it already does", "k3"),
    ):
        measured = _share_in_mixed_groups(lab, arm)
        yield claim, "share of accuracy in mixed groups", "above", 0.5, at[arm, "in_mixed"], measured
    for claim, term, side in (
        ("k moves accuracy's share", ACCURACY, "above"),
        ("A large k crowds clinical reasoning out", REASONING, "below"),
    ):
        quantity = f"share of {term.removesuffix('_reward').replace('_', ' ')}, k = 30 minus k = 1"
        forecast, measured = at["k30", term] - at["k1", term], minus(share("k30", term), share("k1", term))
        yield claim, quantity, side, 0.0, forecast, measured
    yield (
        "Where accuracy ties, the other terms decide, however large k",
        "correlation over steps of tied groups and the others' share, k = 30", "above", 0.0,
        np.nan, _tied_correlation(lab, "k30"),
    )  # fmt: skip
    yield (
        "Once reasoning saturates, character noise takes its place", "share of consistency, late minus early, k = 10",
        "above", 0.0, saturated.loc[own, CONSISTENCY] - at[own, CONSISTENCY],
        minus(share(own, CONSISTENCY, "late"), share(own, CONSISTENCY, "early")),
    )  # fmt: skip
    for arm in ("mo_grpo", "gdpo"):
        for term in (ACCURACY, CONSISTENCY):
            forecast = at[arm, term] - at[own, term]
            yield (
                f"{ARMS[arm].label}, weights {', '.join(f'{w:g}' for w in _weights(arm))}",
                f"share of {term.removesuffix('_reward')}, minus that of the normalised sum",
                "above" if forecast > 0 else "below", 0.0, forecast, minus(share(arm, term), share(own, term)),
            )  # fmt: skip


def _share_in_mixed_groups(lab, arm):
    """Series seed -> accuracy's share where answers differ, or None.

    In normalised groups the |advantages| add up to nearly the same number, so mixed groups hold (1 - tied) of
    (1 - silent) of all. Accuracy has a contribution nowhere else.
    """
    share, tied, silent = (
        _per_seed(lab, arm, f"advantage/{name}")
        for name in (f"{ACCURACY}/share", "tied_groups", "silent_groups")
    )
    if share is None or tied is None:
        return None
    return share * (1 - (0 if silent is None else silent)) / (1 - tied)


def _tied_correlation(lab, arm):
    """Series seed -> correlation over training steps of tied groups with the share that accuracy does not have."""
    columns = ["advantage/tied_groups", f"advantage/{ACCURACY}/share"]
    own = lab.training[lab.training["arm"] == arm]
    if own.empty or any(column not in own for column in columns):
        return None
    own = own.dropna(subset=columns)
    values = own.groupby("seed")[columns].apply(lambda rows: -rows.corr().iloc[0, 1])
    return values.dropna()
