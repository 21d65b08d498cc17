"""Scored records -> measures with intervals, paired tests, and Pareto fronts.

Pure: numbers in, numbers out. Everything random takes an `np.random.Generator`. A completion without a
letter is wrong and stays in the denominator; its absence shows in `coverage`. A measure that no judge gave
is missing, never zero.
"""

from collections import Counter
from typing import NamedTuple

import numpy as np

from clinical_r1.settings import CLINIC_BENCHMARKS, METHODS, PAPER_BENCHMARKS

PROCESS_METRICS = (
    "backtracking",
    "backward_chaining",
    "subgoal_setting",
    "verification",
    "faithfulness",
    "cecd",
    "drc",
    "hallucination",
)
METRIC_ORDER = (*PROCESS_METRICS, "accuracy")
LOWER_IS_BETTER = ("hallucination",)
BENCHMARK_ORDER = CLINIC_BENCHMARKS + PAPER_BENCHMARKS
GUESSES = ("chance", "majority_letter")
SUMMARY_COLUMNS = [
    "benchmark",
    "method",
    "metric",
    "value",
    "ci_low",
    "ci_high",
    "n",
    "seeds",
    "coverage",
    "interval",
]
SCORE_COLUMNS = ("id", "benchmark", "method", "seed", "sample", "letter", "correct", "measures")


class PairedDifference(NamedTuple):
    """mean(a) - mean(b), its percentile interval (low, high), and the two-sided bootstrap p in (0, 1]."""

    difference: float
    interval: tuple[float, float]
    p: float


# --- intervals and tests


def wilson_interval(k, n, level=0.95):
    """Wilson score interval (low, high), within [0, 1], for k successes in n independent trials.

    Raises ValueError unless 0 <= k <= n and n > 0.
    """
    from statsmodels.stats.proportion import proportion_confint

    if n <= 0 or not 0 <= k <= n:
        raise ValueError(f"wilson_interval got k={k}, n={n}; expected 0 <= k <= n with n > 0.")
    low, high = proportion_confint(k, n, alpha=1 - level, method="wilson")
    return max(0.0, float(low)), min(1.0, float(high))


def bootstrap_interval(values, rng, level=0.95, clusters=None, reps=2000):
    """Percentile bootstrap interval (low, high) of the mean.

    values: (N,) finite; drop what could not be scored first.
    clusters: (N,) labels drawn as a whole (question ids, when a question was answered more than once); None
        draws values. Clustering by question covers the choice of questions, not the luck of training seeds.
    """
    values = _finite(values, "values")
    means = _resampled_ratios(values, np.ones_like(values), clusters, rng, reps)
    return _percentile_interval(means, level)


def paired_bootstrap(a, b, rng, level=0.95, clusters=None, reps=2000):
    """PairedDifference of two methods on the same questions: a[i] and b[i] belong to one question (and seed).

    a, b: (N,) finite. clusters: (N,) question ids when a question appears more than once.
    p inverts the percentile interval and counts the observed sample once, so it is never 0.
    """
    a, b = _pair(a, b)
    differences = a - b
    means = _resampled_ratios(differences, np.ones_like(differences), clusters, rng, reps)
    tail = min((means <= 0).sum(), (means >= 0).sum())
    p = min(1.0, 2 * (1 + tail) / (reps + 1))
    return PairedDifference(float(differences.mean()), _percentile_interval(means, level), float(p))


def mcnemar_exact(a, b):
    """Two-sided exact McNemar p for paired right/wrong answers.

    a, b: (N,) booleans on the same questions in the same order. Only questions on which they disagree count;
    p is 1 when there is none. Not for several samples of one question: those are not independent pairs.
    """
    from scipy.stats import binomtest

    a, b = _pair(a, b)
    if not (np.isin(a, (0, 1)).all() and np.isin(b, (0, 1)).all()):
        raise ValueError("mcnemar_exact got values other than true and false; pass the `correct` columns.")
    only_a, only_b = int((a > b).sum()), int((b > a).sum())
    return 1.0 if only_a + only_b == 0 else float(binomtest(only_a, only_a + only_b).pvalue)


def holm(p):
    """Holm's step-down adjusted p-values (M,) in the order given; compare with the family-wise level."""
    from statsmodels.stats.multitest import multipletests

    p = np.asarray(p, dtype=float)
    if p.size == 0 or not ((p >= 0) & (p <= 1)).all():
        raise ValueError(f"holm got {p.tolist()}; expected one or more p-values in [0, 1].")
    return multipletests(p, method="holm")[1]


def _resampled_ratios(top, bottom, clusters, rng, reps):
    """(reps,) bootstrap draws of sum(top) / sum(bottom); clusters are summed once, then their sums drawn."""
    if clusters is not None:
        if len(clusters) != len(top):
            raise ValueError(
                f"got {len(clusters)} cluster labels for {len(top)} values; expected one label per value."
            )
        _, index = np.unique(np.asarray(clusters), return_inverse=True)
        top, bottom = np.bincount(index, top), np.bincount(index, bottom)
    ratios = np.empty(reps)
    rows = max(1, 2_000_000 // len(top))  # bounds memory: at most 16 MB of indices at a time
    for start in range(0, reps, rows):
        drawn = rng.integers(len(top), size=(min(rows, reps - start), len(top)))
        ratios[start : start + rows] = top[drawn].sum(axis=1) / bottom[drawn].sum(axis=1)
    return ratios


def _percentile_interval(draws, level):
    low, high = np.quantile(draws, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def _finite(values, name):
    values = np.asarray(values, dtype=float)
    if values.ndim != 1 or values.size == 0 or not np.isfinite(values).all():
        raise ValueError(
            f"{name} has shape {values.shape}; expected one or more finite numbers: drop missing ones first."
        )
    return values


def _pair(a, b):
    a, b = _finite(a, "a"), _finite(b, "b")
    if len(a) != len(b):
        raise ValueError(
            f"got {len(a)} and {len(b)} values; expected pairs: the same questions in the same order."
        )
    return a, b


# --- trade-offs and voting


def pareto_front(points, maximise=True):
    """Boolean mask (N,): the points that no other point dominates. Equal points stay together.

    points: (N, K) finite. maximise: one bool, or K of them (False where less is better).
    """
    points = _oriented(points, maximise)
    return np.array(
        [not ((points >= p).all(axis=1) & (points > p).any(axis=1)).any() for p in points], dtype=bool
    )


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
    front = points[pareto_front(points)]
    if (front < reference).any():
        raise ValueError(
            "the reference does not bound the front: choose one that no front point falls behind."
        )
    return _sliced_volume(front, reference)


def majority_vote(letters):
    """The most frequent letter, ties to the one seen first. None votes are ignored; all None gives None."""
    votes = Counter(letter for letter in letters if letter is not None)
    return votes.most_common(1)[0][0] if votes else None


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


# --- scored records -> rows


def summarise(scores, rng):
    """Tidy rows, one per benchmark x method x metric: the nine numbers of Table 1, accuracy in [0, 1].

    scores: scored records (list of dicts or frame), one or several seeds and samples.
    Columns: benchmark, method, metric, value, ci_low, ci_high, n (questions), seeds (how many), coverage
    (share of responses with a letter; for the eight counts: with a verdict), interval ("wilson": accuracy
    with one response per question; "bootstrap over questions": everything else, clustered by question id).
    A count that no judge gave has no row. Raises ValueError for scores that cannot be compared.
    """
    frame = _checked(scores)
    rows = []
    for (benchmark, method), group in _groups(frame):
        measures = _measures(group)
        for metric in PROCESS_METRICS:
            if metric in measures and measures[metric].notna().any():
                rows.append(_ratio_row(benchmark, method, metric, group, measures[metric], rng))
        rows.append(_accuracy_row(benchmark, method, group, rng))
    return _frame(rows)


def extra_rows(scores, rng):
    """Rows like `summarise`'s that keep verbosity apart from reasoning (ours).

    `tokens`: mean per response. `<count>_per_100_tokens`: the pooled rate 100 * sum(count) / sum(tokens).
    Responses of unknown length are left out; a method without any has no rows.
    """
    frame = _checked(scores)
    rows = []
    for (benchmark, method), group in _groups(frame):
        if "tokens" not in group or not (group["tokens"] > 0).any():
            continue
        rows.append(_ratio_row(benchmark, method, "tokens", group, group["tokens"], rng))
        measures = _measures(group)
        for metric in PROCESS_METRICS:
            if metric in measures and (measures[metric].notna() & (group["tokens"] > 0)).any():
                name, per = f"{metric}_per_100_tokens", group["tokens"]
                rows.append(
                    _ratio_row(benchmark, method, name, group, measures[metric], rng, per=per, scale=100.0)
                )
    return _frame(rows)


def baseline_rows(questions):
    """Accuracy rows of two guessers per benchmark, in `summarise`'s columns.

    `chance` draws a letter (exact, no interval); `majority_letter` always says the letter most frequent among
    these very answers, so it bounds every constant guess from above. Unlabelled questions are left out of n.
    """
    rows = []
    for benchmark in dict.fromkeys(question.benchmark for question in questions):
        labelled = [q for q in questions if q.benchmark == benchmark and q.answer is not None]
        if not labelled:
            raise ValueError(f"{benchmark} has no question with an answer; expected a labelled split.")
        n, best = len(labelled), Counter(q.answer for q in labelled).most_common(1)[0][1]
        chance = float(np.mean([1 / len(q.options) for q in labelled]))
        common = {"benchmark": benchmark, "metric": "accuracy", "n": n, "seeds": 0, "coverage": 1.0}
        low, high = wilson_interval(best, n)
        rows.append(
            common | dict(method="chance", value=chance, ci_low=np.nan, ci_high=np.nan, interval="exact")
        )
        rows.append(
            common
            | dict(method="majority_letter", value=best / n, ci_low=low, ci_high=high, interval="wilson")
        )
    return _frame(rows)


def _checked(scores):
    """The records as a sorted frame, or a ValueError that says what makes them incomparable."""
    import pandas as pd

    frame = pd.DataFrame(scores)
    if frame.empty:
        raise ValueError("got no scores; expected at least one scored record: run the evaluation first.")
    missing = [column for column in SCORE_COLUMNS if column not in frame]
    if missing:
        raise ValueError(
            f"scores lack {missing}; expected columns {list(SCORE_COLUMNS)}: score the completions again."
        )
    right = frame["correct"].isin([True])
    if not frame["correct"].isin([True, False]).all() or (right & frame["letter"].isna()).any():
        raise ValueError(
            "`correct` must be true or false, and false without a letter: score the completions again."
        )
    key = ["benchmark", "method", "seed", "id", "sample"]
    twice = frame[frame.duplicated(key)]
    if len(twice):
        first = twice.iloc[0]
        raise ValueError(
            f"{first['benchmark']}/{first['method']} seed {first['seed']} holds question {first['id']!r} "
            f"sample {first['sample']} twice; expected it once: summarise sampled and greedy scores apart."
        )
    _check_same_questions(frame)
    return frame.sort_values(key, kind="stable", ignore_index=True)


def _check_same_questions(frame):
    for benchmark, rows in frame.groupby("benchmark", sort=False):
        runs = {run: set(ids) for run, ids in rows.groupby(["method", "seed"], sort=False)["id"]}
        (first, expected), *others = runs.items()
        for run, ids in others:
            if ids != expected:
                example = sorted(ids ^ expected, key=str)[0]
                raise ValueError(
                    f"{benchmark}: {run[0]} seed {run[1]} and {first[0]} seed {first[1]} differ in "
                    f"{len(ids ^ expected)} questions (one is {example!r}); expected the same set: "
                    "evaluate both on the same questions."
                )


def _groups(frame):
    """((benchmark, method), rows), both in the paper's order whatever the order of the records."""
    groups = list(frame.groupby(["benchmark", "method"]))
    return sorted(groups, key=lambda item: (rank(item[0][0], BENCHMARK_ORDER), rank(item[0][1], METHODS)))


def rank(name, order):
    return order.index(name) if name in order else len(order)


def _measures(group):
    """The records' measures as one column each, NaN where there is no verdict."""
    import pandas as pd

    return pd.DataFrame(list(group["measures"]), index=group.index).astype(float)


def _accuracy_row(benchmark, method, group, rng):
    correct = group["correct"].to_numpy(dtype=float)
    if group["id"].is_unique:
        interval, (low, high) = "wilson", wilson_interval(correct.sum(), len(correct))
    else:
        interval = "bootstrap over questions"
        low, high = bootstrap_interval(correct, rng, clusters=group["id"])
    return _row(
        benchmark, method, "accuracy", correct.mean(), low, high, group, group["letter"].notna(), interval
    )


def _ratio_row(benchmark, method, metric, group, counts, rng, per=None, scale=1.0):
    """scale * sum(counts) / sum(per) over responses that have a count; `per` None divides by their number."""
    there = counts.notna() if per is None else counts.notna() & (per > 0)
    ids, top = group["id"][there], scale * counts[there].to_numpy(dtype=float)
    bottom = np.ones_like(top) if per is None else per[there].to_numpy(dtype=float)
    low, high = _percentile_interval(_resampled_ratios(top, bottom, ids, rng, 2000), 0.95)
    return _row(benchmark, method, metric, top.sum() / bottom.sum(), low, high, group, there)


def _row(benchmark, method, metric, value, low, high, group, there, interval="bootstrap over questions"):
    """`there` marks responses with a letter, or with a verdict. Accuracy counts the others too, as wrong."""
    n = group["id"].nunique() if metric == "accuracy" else group["id"][there].nunique()
    numbers = {
        "value": float(value),
        "ci_low": low,
        "ci_high": high,
        "n": n,
        "seeds": group["seed"].nunique(),
    }
    names = {"benchmark": benchmark, "method": method, "metric": metric}
    return names | numbers | {"coverage": float(there.mean()), "interval": interval}


def _frame(rows):
    import pandas as pd

    return pd.DataFrame(rows, columns=SUMMARY_COLUMNS)


def vote(scores):
    """Majority vote over the samples of each question: one record per benchmark, method, seed and question.

    scores: records with several samples a question. Ties go to the letter seen first; samples without a letter do not
    vote. A record keeps id, benchmark, method, seed, answer; `measures` are empty, because a vote has no reasoning.
    """
    import pandas as pd

    frame = _checked(scores)
    voted = []
    for key, rows in frame.groupby(["benchmark", "method", "seed", "id"], sort=False):
        letter, answer = majority_vote(rows["letter"].tolist()), rows["answer"].iloc[0]
        record = dict(zip(["benchmark", "method", "seed", "id"], key, strict=True)) | {
            "sample": 0,
            "answer": answer,
        }
        voted.append(
            record | {"letter": letter, "correct": letter is not None and letter == answer, "measures": {}}
        )
    return pd.DataFrame(voted)


# --- two methods on the same questions


def compare(scores, method, against, metrics, rng):
    """method minus against on the same questions: one row per benchmark and metric, Holm over all of them.

    scores: scored records with one response per method, seed and question. Accuracy is in percentage points.
    Columns: benchmark, metric, method, against (the two means), difference, ci_low, ci_high (95 % paired bootstrap,
    clustered by question), p (exact McNemar for accuracy with one seed, otherwise bootstrap), p_holm, n (questions).
    Raises ValueError when either method is missing or they answered different questions.
    """
    import pandas as pd

    frame = _checked(scores)
    missing = {method, against} - set(frame["method"])
    if missing:
        raise ValueError(
            f"the scores hold no {sorted(missing)}; expected some of {sorted(set(frame['method']))}."
        )
    rows = []
    for benchmark in sorted(set(frame["benchmark"]), key=lambda name: rank(name, BENCHMARK_ORDER)):
        both = frame[frame["benchmark"] == benchmark]
        a, b = both[both["method"] == method], both[both["method"] == against]
        if not np.array_equal(a[["seed", "id", "sample"]].to_numpy(), b[["seed", "id", "sample"]].to_numpy()):
            raise ValueError(
                f"{benchmark}: {method} and {against} differ in seeds or samples; expected pairs."
            )
        for metric in metrics:
            rows.append(
                {"benchmark": benchmark, "metric": metric} | _paired_row(a, b, metric, method, against, rng)
            )
    table = pd.DataFrame(rows)
    table.insert(table.columns.get_loc("p") + 1, "p_holm", holm(table["p"]))
    return table.round(4)


def _paired_row(a, b, metric, method, against, rng):
    values = [
        100 * rows["correct"].to_numpy(float) if metric == "accuracy" else _measures(rows)[metric].to_numpy()
        for rows in (a, b)
    ]
    ids = a["id"].to_numpy()
    result = paired_bootstrap(*values, rng, clusters=ids)
    exact = metric == "accuracy" and len(set(ids)) == len(ids)
    low, high = result.interval
    means = {method: values[0].mean(), against: values[1].mean(), "difference": result.difference}
    p = mcnemar_exact(a["correct"].to_numpy(bool), b["correct"].to_numpy(bool)) if exact else result.p
    return means | {"ci_low": low, "ci_high": high, "p": p, "n": len(set(ids))}
