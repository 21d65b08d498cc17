"""Scored records -> measures with intervals, and paired tests, the primary ones first.

Pure: numbers in, numbers out, nothing drawn. A completion without a letter is wrong and stays in the
denominator; its absence shows in `coverage`. A measure that no judge gave is missing, never zero. The intervals and
tests themselves are in `intervals`.
"""

from collections import Counter

import numpy as np

from clinical_r1.arms import METHODS
from clinical_r1.intervals import (
    QUESTIONS_AND_SEEDS,
    QUESTIONS_ONLY,
    WILSON,
    estimate,
    holm,
    interval_of,
    minimum_detectable_effect,
    paired_difference,
    share_interval,
    wilson_interval,
)
from clinical_r1.labels import CLINIC_BENCHMARKS, PAPER_BENCHMARKS

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
# Named before any result of the run that they judge was seen; everything else is exploratory
PRIMARY_METRICS = ("accuracy", "faithfulness", "drc", "hallucination")
PRIMARY_BENCHMARKS = ("clinic", "clinic-shift")
PRIMARY, EXPLORATORY = "primary", "exploratory"
SUMMARY_COLUMNS = "benchmark method metric value ci_low ci_high n seeds coverage interval seed_sd".split()
TESTED_COLUMNS = ("p", "p_holm", "mde_holm", "tests")
COMPARED_COLUMNS = (
    "benchmark metric status difference ci_low ci_high p p_holm mde_holm tests test n seeds coverage"
).split()
NO_TEST = "no p: one training seed says nothing of the luck of training; the interval is over questions"
SCORE_COLUMNS = ("id", "benchmark", "method", "seed", "sample", "letter", "correct", "measures")


def majority_vote(letters):
    """The most frequent letter, ties to the one seen first. None votes are ignored; all None gives None."""
    votes = Counter(letter for letter in letters if letter is not None)
    return votes.most_common(1)[0][0] if votes else None


# --- scored records -> rows


def summarise(scores):
    """Tidy rows, one per benchmark x method x metric: the nine numbers of Table 1, accuracy in [0, 1].

    scores: scored records (list of dicts or frame), one or several seeds and samples.
    Columns: benchmark, method, metric, value, ci_low, ci_high, n (questions), seeds (how many), coverage
    (share of responses with a letter; for the eight counts: with a verdict), interval ("two-way random effects over
    questions and seeds" with several seeds; with one "Wilson over questions" for accuracy with one response per
    question, otherwise "Student's t over questions"), seed_sd (standard deviation of the seeds' values, NaN
    for one seed). What an interval is where nothing varies: `intervals`.
    A count that no judge gave has no row. Raises ValueError for scores that cannot be compared.
    """
    frame = _checked(scores)
    rows = []
    for (benchmark, method), group in _groups(frame):
        measures = _measures(group)
        for metric in PROCESS_METRICS:
            if metric in measures and measures[metric].notna().any():
                rows.append(_ratio_row(benchmark, method, metric, group, measures[metric]))
        rows.append(_accuracy_row(benchmark, method, group))
    return _frame(rows)


def extra_rows(scores):
    """Rows like `summarise`'s that keep verbosity apart from reasoning (ours).

    `tokens`: mean per response. `<count>_per_100_tokens`: the pooled rate 100 * sum(count) / sum(tokens).
    Responses of unknown length are left out; a method without any has no rows.
    """
    frame = _checked(scores)
    rows = []
    for (benchmark, method), group in _groups(frame):
        if "tokens" not in group or not (group["tokens"] > 0).any():
            continue
        rows.append(_ratio_row(benchmark, method, "tokens", group, group["tokens"]))
        measures = _measures(group)
        for metric in PROCESS_METRICS:
            if metric in measures and (measures[metric].notna() & (group["tokens"] > 0)).any():
                name, per = f"{metric}_per_100_tokens", group["tokens"]
                rows.append(
                    _ratio_row(benchmark, method, name, group, measures[metric], per=per, scale=100.0)
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
            common | dict(method="majority_letter", value=best / n, ci_low=low, ci_high=high, interval=WILSON)
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
    _check_same_protocol(frame)
    key = ["benchmark", "method", "seed", "id", "sample"]
    twice = frame[frame.duplicated(key)]
    if len(twice):
        first = twice.iloc[0]
        raise ValueError(
            f"{first['benchmark']}/{first['method']} seed {first['seed']} holds question {first['id']!r} "
            f"sample {first['sample']} twice; expected it once: delete the score file and score again."
        )
    _check_same_questions(frame)
    return frame.sort_values(key, kind="stable", ignore_index=True)


def _check_same_protocol(frame):
    """Within a benchmark every run decodes alike and shows as many options; records that do not say pass."""
    for field, unit in (("protocol", "decoding"), ("n_options", "options")):
        if field not in frame:
            continue
        known = frame[frame[field].notna()]
        for benchmark, rows in known.groupby("benchmark", sort=False):
            by_run = rows.groupby(["method", "seed"], sort=False)[field]
            kinds = {_run(run): _listed(values) for run, values in by_run}
            (first, expected), *others = kinds.items()
            for run, got in others:
                if got != expected:
                    raise ValueError(
                        f"{benchmark}: {first} has {expected} {unit} and {run} has {got} {unit}; expected the same: "
                        "compare runs of one protocol."
                    )
            if field == "protocol" and rows[field].nunique() > 1:
                raise ValueError(
                    f"{benchmark}: {first} holds {expected} scores together; expected one protocol: summarise them apart."
                )


def _listed(values):
    """'4' or 'greedy and sampled'."""
    return " and ".join(f"{v:g}" if isinstance(v, float | int) else str(v) for v in sorted(set(values)))


def _check_same_questions(frame):
    """Within a benchmark every run answers the same questions, each the same number of times."""
    for benchmark, rows in frame.groupby("benchmark", sort=False):
        runs = {run: set(ids) for run, ids in rows.groupby(["method", "seed"], sort=False)["id"]}
        (first, expected), *others = runs.items()
        for run, ids in others:
            if ids != expected:
                example = sorted(ids ^ expected, key=str)[0]
                raise ValueError(
                    f"{benchmark}: {_run(run)} answers {len(ids):,} questions and {_run(first)} {len(expected):,}; they "
                    f"differ in {len(ids ^ expected):,} (one is {example!r}); expected the same set: evaluate both on the "
                    "same questions."
                )
        for run, times in rows.groupby(["method", "seed"], sort=False)["id"]:
            times = times.value_counts()
            if times.min() != times.max():
                raise ValueError(
                    f"{benchmark}: {_run(run)} answers question {times.idxmin()!r} {times.min()} times and "
                    f"{times.idxmax()!r} {times.max()} times; expected as many samples of each: generate the rest."
                )


def _run(run):
    return f"{run[0]} seed {run[1]}"


def _groups(frame):
    """((benchmark, method), rows), both in the paper's order whatever the order of the records."""
    groups = list(frame.groupby(["benchmark", "method"]))
    return sorted(groups, key=lambda item: (rank(item[0][0], BENCHMARK_ORDER), rank(item[0][1], METHODS)))


def rank(name, order):
    """Place of a name in an order; unknown names come last."""
    return order.index(name) if name in order else len(order)


def _measures(group):
    """The records' measures as one column each, NaN where there is no verdict. ValueError for what is no count."""
    import pandas as pd

    given = pd.DataFrame(list(group["measures"]), index=group.index)
    counts = given.apply(pd.to_numeric, errors="coerce").astype(float)
    bad = (given.notna() & ~(np.isfinite(counts) & (counts >= 0))).stack()
    if bad.any():
        (row, name), of = bad.idxmax(), group.loc[bad.idxmax()[0]]
        raise ValueError(
            f"{_run((of['method'], of['seed']))} has {given.loc[row, name]} for {name} of question {of['id']!r}; expected a "
            "count, 0 or more, or None without a verdict: score the completions again."
        )
    return counts


def _accuracy_row(benchmark, method, group):
    correct = group["correct"].to_numpy(dtype=float)
    result = estimate(correct, np.ones_like(correct), group["id"], group["seed"])
    interval, (low, high) = _over(group), share_interval(result, len(correct))
    if group["id"].is_unique:
        interval, (low, high) = WILSON, wilson_interval(correct.sum(), len(correct))
    parsed = group["letter"].notna()
    return _row(benchmark, method, "accuracy", result, low, high, group, parsed, interval)


def _ratio_row(benchmark, method, metric, group, counts, per=None, scale=1.0):
    """scale * sum(counts) / sum(per) over responses that have a count; `per` None divides by their number."""
    there = counts.notna() if per is None else counts.notna() & (per > 0)
    ids, top = group["id"][there], scale * counts[there].to_numpy(dtype=float)
    bottom = np.ones_like(top) if per is None else per[there].to_numpy(dtype=float)
    result = estimate(top, bottom, ids, group["seed"][there], unit=scale / bottom.mean(), counts=True)
    low, high = interval_of(result, bounds=(0.0, np.inf))
    return _row(benchmark, method, metric, result, low, high, group, there, _over(group[there]))


def _over(rows):
    """What an interval or a test of these rows covers."""
    return QUESTIONS_AND_SEEDS if rows["seed"].nunique() > 1 else QUESTIONS_ONLY


def _row(benchmark, method, metric, result, low, high, group, there, interval):
    """`there` marks responses with a letter, or with a verdict. Accuracy counts the others too, as wrong."""
    n = group["id"].nunique() if metric == "accuracy" else group["id"][there].nunique()
    numbers = {
        "value": result.value,
        "ci_low": low,
        "ci_high": high,
        "n": n,
        "seeds": group["seed"].nunique(),
    }
    names = {"benchmark": benchmark, "method": method, "metric": metric}
    return (
        names | numbers | {"coverage": float(there.mean()), "interval": interval, "seed_sd": result.seed_sd}
    )


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


def compare(scores, method, against, metrics, fixed=()):
    """method minus against on the same questions: one row per benchmark and metric, the primary ones first.

    scores: scored records, the same seeds, samples and questions in both. Accuracy is in percentage points.
    fixed: models that no training seed draws, such as another model's answers: their one set stands beside every seed.
    Columns: benchmark, metric, status ("primary": PRIMARY_METRICS on PRIMARY_BENCHMARKS, named before any result was
    seen; otherwise "exploratory"), method, against (the two means), difference, ci_low, ci_high (95 %), then as
    `with_holm`, test ("two-way random effects over questions and seeds", or NO_TEST), n (questions),
    seeds (how many), coverage (share of pairs with both verdicts; the others are left out, an unparsed answer is not).
    With one seed there is no p and no detectable difference, except between two fixed models: the interval is over questions,
    and an untrained policy is no better known beside one trained arm than another arm is.
    A benchmark where neither has a verdict on a measure, such as questions of one's own, has no row for it.
    Raises ValueError when a method or a measure is missing everywhere, or when the two are not paired.
    """
    import pandas as pd

    frame = _checked(scores)
    _check_names(frame, method, against, metrics)
    rows = []
    for benchmark in sorted(set(frame["benchmark"]), key=lambda name: rank(name, BENCHMARK_ORDER)):
        both = _beside_every_seed(frame[frame["benchmark"] == benchmark], method, against, fixed)
        a, b = both[both["method"] == method], both[both["method"] == against]
        if not np.array_equal(a[["seed", "id", "sample"]].to_numpy(), b[["seed", "id", "sample"]].to_numpy()):
            raise ValueError(
                f"{benchmark}: {method} has {_extent(a)} and {against} has {_extent(b)}; expected pairs: the same "
                "seeds and samples in both."
            )
        judged = [
            metric for metric in metrics if any(np.isfinite(_values(own, metric)).any() for own in (a, b))
        ]
        for metric in judged:
            names = {"benchmark": benchmark, "metric": metric, "status": status(benchmark, metric)}
            rows.append(names | _paired_row(a, b, metric, method, against, fixed))
    if unjudged := [metric for metric in metrics if metric not in {row["metric"] for row in rows}]:
        raise ValueError(
            f"no response of {method} or {against} has a {', '.join(unjudged)} verdict; expected judged measures."
        )
    table = pd.DataFrame(sorted(rows, key=_primary_first))
    corrected = with_holm(table)
    order = [*COMPARED_COLUMNS[:3], method, against, *COMPARED_COLUMNS[3:]]
    exact = corrected[["p", "p_holm"]].map(lambda p: float(f"{p:.4g}"))  # a p-value never rounds to 0
    return corrected.round(4).assign(**exact)[order]


def status(benchmark, metric):
    """ "primary" for the measures and sets that were named before looking, otherwise "exploratory"."""
    return PRIMARY if metric in PRIMARY_METRICS and benchmark in PRIMARY_BENCHMARKS else EXPLORATORY


def _primary_first(row):
    """Sort key: primary rows by set and measure, then the others as they came."""
    if row["status"] == EXPLORATORY:
        return (1,)
    return 0, PRIMARY_BENCHMARKS.index(row["benchmark"]), PRIMARY_METRICS.index(row["metric"])


def with_holm(table):
    """A frame of tests with p_holm, mde_holm and tests, from its columns p, status, standard_error and df, which end there.

    p_holm: Holm's correction over the rows of the same status that have a p; tests: how many these are. mde_holm: the minimum
    detectable effect at 80 % power of the first step of that correction, in the difference's unit. NaN where there is no p.
    """
    tested = table.assign(p_holm=np.nan, mde_holm=np.nan, tests=0)
    for _, rows in table[table["p"].notna()].groupby("status"):
        tested.loc[rows.index, "p_holm"] = holm(rows["p"])
        tested.loc[rows.index, "tests"] = len(rows)
        tested.loc[rows.index, "mde_holm"] = [
            minimum_detectable_effect(row.standard_error, row.df, len(rows)) for row in rows.itertuples()
        ]
    return tested.drop(columns=["standard_error", "df"])


def _beside_every_seed(rows, method, against, fixed):
    """The rows with the one set of a fixed model's answers repeated beside each seed of the other method."""
    import pandas as pd

    for own, other in ((method, against), (against, method)):
        mine, theirs = rows["method"] == own, rows["method"] == other
        if own in fixed and other not in fixed and rows.loc[mine, "seed"].nunique() == 1:
            seeds = sorted(rows.loc[theirs, "seed"].unique())
            copies = [rows[mine].assign(seed=seed) for seed in seeds]
            rows = pd.concat([rows[~mine], *copies], ignore_index=True)
    return rows


def _check_names(frame, method, against, metrics):
    if isinstance(metrics, str) or not metrics or len(set(metrics)) < len(metrics) or method == against:
        raise ValueError(
            f"got {method!r} against {against!r} by {metrics!r}; expected two methods and a list of measures, each once."
        )
    if missing := sorted({method, against} - set(frame["method"])):
        raise ValueError(f"the scores hold no {missing}; expected some of {sorted(set(frame['method']))}.")
    if taken := sorted({method, against} & set(COMPARED_COLUMNS)):
        raise ValueError(
            f"a method is called {taken[0]!r}, like a column of the comparison; give it another name."
        )


def _extent(rows):
    seeds = ", ".join(str(seed) for seed in sorted(set(rows["seed"])))
    return f"{len(rows):,} responses of seeds {seeds}" if len(rows) else "no response"


def _paired_row(a, b, metric, method, against, fixed):
    """a, b: the rows of the two methods, pair by pair."""
    values = np.array([_values(rows, metric) for rows in (a, b)])
    there = ~np.isnan(values).any(axis=0)
    if not there.any():
        raise ValueError(
            f"{method} and {against} share no response with a {metric} verdict; expected a judged measure."
        )
    values, ids, seeds = values[:, there], a["id"].to_numpy()[there], a["seed"].to_numpy()[there]
    scale = 100.0 if metric == "accuracy" else None
    over = QUESTIONS_AND_SEEDS if len(set(seeds)) > 1 else QUESTIONS_ONLY
    tested = over == QUESTIONS_AND_SEEDS or {method, against} <= set(fixed)
    result = paired_difference(*values, clusters=ids, seeds=seeds, scale=scale)
    low, high = result.interval
    return {
        method: values[0].mean(),
        against: values[1].mean(),
        "difference": result.difference,
        "ci_low": low,
        "ci_high": high,
        "standard_error": result.standard_error,
        "df": result.df,
        "p": result.p if tested else np.nan,
        "test": over if tested else NO_TEST,
        "n": len(set(ids)),
        "seeds": len(set(seeds)),
        "coverage": float(there.mean()),
    }


def _values(rows, metric):
    """(N,) percentages or counts, NaN without a verdict."""
    if metric == "accuracy":
        return 100 * rows["correct"].to_numpy(float)
    measures = _measures(rows)
    return measures[metric].to_numpy() if metric in measures else np.full(len(rows), np.nan)
