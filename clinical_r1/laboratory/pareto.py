"""Points in objective space, their non-dominated sets and hypervolumes, and what can be attained.

The scripted honest policy and the ideal, exact in the clinic, mark the far end; a policy that says nothing bounds every front.
"""

import numpy as np

from clinical_r1.clinic.cases import Case, load_set
from clinical_r1.clinic.traces import HONEST, write_trace
from clinical_r1.clinic.verdicts import AGAINST, measure
from clinical_r1.completions import parse_completion
from clinical_r1.intervals import interval_of
from clinical_r1.laboratory.draws import draw, known_objectives, maximise, mean_and_interval
from clinical_r1.laboratory.records import FILES, OBJECTIVES, answered, families, members
from clinical_r1.metrics import LOWER_IS_BETTER
from clinical_r1.score import is_correct

# A policy that says nothing: no right answer, no true claim, no rejected distractor. Every policy has at least that, so
# the point bounds every front, and a volume is what was earned, not what was gained over one arm of ours.
SILENCE = {"accuracy": 0.0, "faithfulness": 0.0, "drc": 0.0}


# --- objective space


def points(lab, objectives=OBJECTIVES, arms=None):
    """Every arm as a point: frame arm, family, label, objective, value, ci_low, ci_high, higher_is_better, n, seeds, interval."""
    import pandas as pd

    drawn = draw(lab, arms or answered(lab), objectives)
    about = lab.arms.set_index("arm")
    rows = []
    for arm in drawn.arms:
        names = {"arm": arm, "family": about.loc[arm, "family"], "label": about.loc[arm, "label"]}
        for objective in drawn.objectives:
            better = {"higher_is_better": objective not in LOWER_IS_BETTER}
            rows.append(
                names | {"objective": objective, **mean_and_interval(drawn, arm, objective), **better}
            )
    return pd.DataFrame(rows)


def honest_point(n=500, benchmark="clinic", style="crpo", seed=0):
    """Mean of each objective for the scripted honest policy on the first n test questions: {objective: value}.

    It makes no false claim, cites, and rejects every distractor that can be (six of ten options at most), but does not say
    all it could: two findings for the answer, one against each distractor. `seed` fixes which ones.
    """
    rng = np.random.default_rng(seed)
    rows = []
    for question in load_set(benchmark, "test", n):
        case = Case.from_json(question.meta["case"])
        text = write_trace(case, style, HONEST, rng)
        right = is_correct(parse_completion(text, style).letter, question.answer)
        rows.append({"accuracy": 100.0 * right, **measure(text, case)})
    return _mean_of(rows)


def ideal_point(n=500, benchmark="clinic"):
    """The best that the clinic's rules allow on the first n test questions, each objective by itself: {objective: value}.

    accuracy 100; faithfulness: every true claim about an option once; drc: every distractor with stated evidence against
    it; hallucination 0. The other measures have no bound that means anything, and are left out.
    """
    rows = []
    for question in load_set(benchmark, "test", n):
        case = Case.from_json(question.meta["case"])
        true = sum(bool(case.weight(f, present, o)) for f, present in case.stated for o in case.options)
        rejectable = sum(bool(case.evidence(option, AGAINST)) for option in case.distractors)
        rows.append({"accuracy": 100.0, "faithfulness": true, "drc": rejectable, "hallucination": 0.0})
    return _mean_of(rows)


def _mean_of(rows):
    return {name: float(np.mean([row[name] for row in rows])) for name in rows[0]}


def fronts(lab, spaces, rng, arms=None):
    """Which arms no other arm dominates: frame space, arm, family, label, on_front, frequency, seeds, draws.

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
            rows.append(names | row | {"seeds": drawn.seeds, "draws": drawn.named(volume=True)})
    return pd.DataFrame(rows)


def undominated(points):
    """(R, A) bool of points (R, A, K), more is better: no other point is at least as good everywhere and better once.

    The only filter of this package; equal points stay together.
    """
    a, b = points[:, :, None, :], points[:, None, :, :]
    return ~((b >= a).all(axis=-1) & (b > a).any(axis=-1)).any(axis=-1)


def hypervolume_table(lab, objectives=tuple(SILENCE), reference=None, rng=None, bound=None, reps=500):
    """Hypervolume of each arm by itself and of each family's front: frame kind ("arm" | "front"), name, family, label,
    volume, ci_low, ci_high (NaN where no draw differs), share (of `bound`'s volume), arms (how many span it), seeds, interval.

    reference: {objective: value} that every arm must reach; None is SILENCE. A front holds its family and the reference
    arm. bound: {objective: value}, such as `honest_point`. The best of several noisy arms looks better than it is, so a
    front of many arms is a little too large; volumes of single arms are not. Raises ValueError naming the objective in
    which the reference does not bound the front.
    """
    import pandas as pd

    reference = SILENCE if reference is None else reference
    objectives = known_objectives(lab, objectives)
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
        result = drawn.volume(lambda means, chosen=chosen: _volumes(means[..., chosen, :], origin, sign))
        low, high = interval_of(result, bounds=(0.0, np.inf))
        family = about.loc[name, "family"] if kind == "arm" else name
        label = about.loc[name, "label"] if kind == "arm" else name.replace("_", " ")
        names = {"kind": kind, "name": name, "family": family, "label": label, "volume": result.value}
        size = {"share": result.value / whole, "arms": len(inside), "seeds": drawn.seeds}
        size |= {"interval": drawn.named(volume=True)}
        rows.append(names | {"ci_low": low, "ci_high": high} | size)
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
    table["error"] = table["error"].where(table["error"] > 0)  # seeds that agree exactly have no known error
    return table.assign(label=table["arm"].map(labels))


# --- one set of points


def pareto_front(points, maximise=True):
    """`undominated` of one set of points (N, K), checked and turned so that more is better: a mask (N,).

    maximise: one bool, or K of them (False where less is better).
    """
    return undominated(_oriented(points, maximise)[None])[0]


def hypervolume(points, reference, maximise=True):
    """Exact volume between the front of `points` (N, K) and `reference` (K,); 0.0 without points.

    Meant for K of 2 or 3: the cost grows as N^(K-1). Raises ValueError if a front point is worse than the
    reference somewhere, because its volume would be cut silently.
    """
    reference = np.asarray(reference, dtype=float)
    if np.size(points) == 0:
        return 0.0
    points = _oriented(points, maximise)
    if reference.shape != (points.shape[1],):
        raise ValueError(
            f"reference has shape {reference.shape}; expected ({points.shape[1]},), one number per objective."
        )
    reference = _oriented(reference[None], maximise)[0]
    front = points[undominated(points[None])[0]]
    if (front < reference).any():
        raise ValueError(
            "the reference does not bound the front: choose one that no front point falls behind."
        )
    return _sliced_volume(front, reference)


def _oriented(points, maximise):
    """(N, K) points turned so that more is better in every column."""
    points = np.asarray(points, dtype=float)
    if points.ndim != 2 or not np.isfinite(points).all():
        raise ValueError(
            f"points has shape {points.shape}; expected finite numbers, (N, K): drop unscored points first."
        )
    signs = np.where(np.broadcast_to(maximise, points.shape[1]), 1.0, -1.0)
    return points * signs


def _sliced_volume(front, reference):
    """Slice along the last objective, best point first; each slice is a volume of one dimension less."""
    if front.shape[1] == 1:
        return float(front[:, 0].max() - reference[0])
    front = front[np.argsort(-front[:, -1], kind="stable")]
    thickness = front[:, -1] - np.append(front[1:, -1], reference[-1])
    return sum(
        depth * _sliced_volume(front[: i + 1, :-1], reference[:-1])
        for i, depth in enumerate(thickness)
        if depth > 0
    )
