"""How far a judge's counts can be trusted: its agreement with exact counts on the same completions.

Only a closed world such as the clinic has exact counts. Kappa says whether a judge counts the right completions, bias
whether it counts too much, slope whether one instance more in the text is one more in its verdict, and `ordering`
whether it would put two methods in the right order, which a biased judge may and an unbiased one may not. The scripted
judges have known faults and show what a calibration reveals. Pure; random steps take an `np.random.Generator`.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from clinical_r1.clinic.cases import Case
from clinical_r1.clinic.verdicts import AGAINST, SUBGOALS, measure, read_claims
from clinical_r1.generate import read_completions
from clinical_r1.intervals import QUESTIONS_ONLY, interval_of, named_bootstrap, paired_difference, two_way
from clinical_r1.metrics import PROCESS_METRICS
from clinical_r1.questions import Question, read_questions
from clinical_r1.score import exact_judge, judge_many
from clinical_r1.settings import Settings

AGREEMENT_COLUMNS = [
    "measure",
    "n",
    "coverage",
    "kappa",
    "kappa_low",
    "kappa_high",
    "bias",
    "bias_low",
    "bias_high",
    "slope",
    "slope_low",
    "slope_high",
    "judge_mean",
    "exact_mean",
    "interval",
]
ORDERING_COLUMNS = [
    "measure",
    "method",
    "against",
    "n",
    "judged",
    "judged_low",
    "judged_high",
    "exact",
    "exact_low",
    "exact_high",
    "order",
    "interval",
]
WORDS_PER_COUNT = 10  # of the length judge: nine in ten CRPO answers of the clinic have 35 to 90 words


# --- agreement


def agreement(judged, exact, rng, measures=PROCESS_METRICS, ids=None, level=0.95, reps=2000):
    """One row per measure, AGREEMENT_COLUMNS: does the judge count what is there?

    judged, exact: (N,) verdicts {measure: count or None} on the same completions in the same order.
    ids: (N,) question ids, drawn as a whole where a question has several completions; None draws completions.
    n: completions that both have counted. coverage: the judge's share of those with an exact count.
    kappa: quadratic-weighted Cohen, at most 1, 0 is chance. bias: mean of judge - exact. slope: least squares of judge
    on exact. Intervals (`_low`, `_high`) at `level`: of a bias Student's t over questions, of kappa and slope, which are no
    means, percentiles of `reps` bootstrap draws, none (NaN) where no draw differs. A constant `exact` makes kappa and slope NaN
    (nothing to tell apart), no verdict at all makes everything NaN; a constant judge has kappa and slope 0.
    """
    import pandas as pd

    _check_aligned(judged, exact, ids)
    rows = []
    for name in measures:
        judge, truth = _counts(judged, name), _counts(exact, name)
        known, both = ~np.isnan(truth), ~np.isnan(truth) & ~np.isnan(judge)
        coverage = both.sum() / known.sum() if known.any() else np.nan
        own = None if ids is None else np.asarray(ids)[both]
        rows.append(
            {
                "measure": name,
                "n": int(both.sum()),
                "coverage": coverage,
                "interval": f"bias: {QUESTIONS_ONLY}; kappa, slope: {named_bootstrap(rng, reps)}",
            }
            | _agreement_row(judge[both], truth[both], own, rng, level, reps)
        )
    return pd.DataFrame(rows, columns=AGREEMENT_COLUMNS)


def agreement_table(judges: Mapping[str, Sequence], exact, rng, measures=PROCESS_METRICS, ids=None):
    """`agreement` of several judges, judge name -> verdicts, one below the other; first column `judge`."""
    import pandas as pd

    tables = [
        agreement(judged, exact, rng, measures, ids).assign(judge=name) for name, judged in judges.items()
    ]
    return pd.concat(tables, ignore_index=True)[["judge", *AGREEMENT_COLUMNS]]


def ordering(judged_by_method, exact_by_method, measures=PROCESS_METRICS, ids=None):
    """Does a judge order two methods as the exact verdicts do? One row per measure.

    judged_by_method, exact_by_method: {method: (N,) verdicts} of two methods on the same questions in the same order;
        the difference is the first method minus the second. ids: (N,) question ids where a question stands twice.
    ORDERING_COLUMNS: n counts pairs for which all four counts exist; judged and exact are the differences with 95 %
    intervals over questions; order is "exact undecided" (its interval holds 0: there is no order to find), "judge
    undecided", "same" or "reversed", and "no verdict" without a pair.
    """
    import pandas as pd

    methods = list(exact_by_method)
    if len(methods) != 2 or set(judged_by_method) != set(methods):
        raise ValueError(
            f"got judged {list(judged_by_method)} and exact {methods}; expected the same two methods in both."
        )
    sides = [judged_by_method[methods[0]], judged_by_method[methods[1]]]
    sides += [exact_by_method[methods[0]], exact_by_method[methods[1]]]
    for side in sides[:3]:
        _check_aligned(side, sides[3], ids)
    rows = []
    for name in measures:
        counts = np.array([_counts(side, name) for side in sides])
        there = ~np.isnan(counts).any(axis=0)
        own = None if ids is None else np.asarray(ids)[there]
        row = {"measure": name, "method": methods[0], "against": methods[1], "n": int(there.sum())}
        row |= {"interval": QUESTIONS_ONLY}
        rows.append(row | _ordering_row(counts[:, there], own))
    return pd.DataFrame(rows, columns=ORDERING_COLUMNS)


def _check_aligned(judged, exact, ids):
    if len(judged) != len(exact):
        raise ValueError(
            f"got {len(judged)} and {len(exact)} verdicts; expected one each for the same completions in the same order."
        )
    if ids is not None and len(ids) != len(exact):
        raise ValueError(f"got {len(ids)} ids for {len(exact)} completions; expected one id per completion.")


def _counts(verdicts, name):
    """(N,) counts of one measure, NaN where there is none."""
    return np.array([np.nan if v.get(name) is None else v[name] for v in verdicts], dtype=float)


def _agreement_row(judge, exact, ids, rng, level, reps):
    """judge, exact: (n,) counts without gaps."""
    if len(exact) == 0:
        return {}
    moments = _moments(judge, exact, ids)
    size = len(moments)
    draws = [moments[rng.integers(size, size=size)].sum(axis=0) for _ in range(reps)] if size > 1 else []
    row = {"judge_mean": judge.mean(), "exact_mean": exact.mean(), "bias": (judge - exact).mean()}
    row |= {"kappa": _kappa(judge, exact), "slope": _slope(judge, exact)}
    for name, values in _from_moments(np.array(draws).reshape(-1, 6)).items():
        values = values[np.isfinite(values)]  # exact counts that happen to be constant in a draw say nothing
        if len(values) and np.isfinite(row[name]) and np.ptp(values) > 1e-9:
            row[f"{name}_low"], row[f"{name}_high"] = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    if size > 1:
        bias = two_way(moments[:, 1:2].T - moments[:, 2:3].T, moments[:, :1].T)
        row["bias_low"], row["bias_high"] = interval_of(bias, level)
    return row


def _kappa(judge, exact):
    """Quadratic-weighted Cohen's kappa, NaN for a constant `exact`."""
    from statsmodels.stats.inter_rater import cohens_kappa

    if np.ptp(exact) == 0:
        return np.nan
    values, index = np.unique(np.concatenate([judge, exact]), return_inverse=True)
    table = np.zeros((len(values), len(values)))
    np.add.at(table, (index[: len(judge)], index[len(judge) :]), 1)
    weights = (
        np.subtract.outer(values, values) ** 2
    )  # of the counts that occur: a count of 10**6 costs one row
    return float(cohens_kappa(table, weights=weights / weights.max(), return_results=False))


def _slope(judge, exact):
    from scipy.stats import linregress

    return float(linregress(exact, judge).slope) if np.ptp(exact) > 0 else np.nan


def _moments(judge, exact, ids):
    """(units, 6) sums per question: number, judge, exact, judge², exact², judge times exact."""
    parts = np.stack([np.ones_like(judge), judge, exact, judge**2, exact**2, judge * exact], axis=1)
    if ids is None:
        return parts
    _, unit = np.unique(ids, return_inverse=True)
    return np.stack([np.bincount(unit, part) for part in parts.T], axis=1)


def _from_moments(sums):
    """kappa and slope, (R,) each, from sums (R, 6); the same numbers as `_kappa` and `_slope`, for every draw."""
    means = sums[:, 1:] / sums[:, :1]
    judge, exact, judge2, exact2, product = means.T
    var_judge, var_exact = judge2 - judge**2, exact2 - exact**2
    varies = var_exact > 1e-12 * np.maximum(exact2, 1)
    disagreement = judge2 + exact2 - 2 * product
    by_chance = var_judge + var_exact + (judge - exact) ** 2
    kappa, slope = np.full(len(sums), np.nan), np.full(len(sums), np.nan)
    kappa[varies] = 1 - disagreement[varies] / by_chance[varies]
    slope[varies] = (product - judge * exact)[varies] / var_exact[varies]
    return {"kappa": kappa, "slope": slope}


def _ordering_row(counts, ids):
    """counts: (4, n): the judge's of both methods, the exact ones of both methods."""
    if counts.shape[1] == 0:
        return {"order": "no verdict"}
    row, signs = {}, []
    for side, (a, b) in (("judged", counts[:2]), ("exact", counts[2:])):
        result = paired_difference(a, b, clusters=ids)
        low, high = result.interval
        row |= {side: result.difference, f"{side}_low": low, f"{side}_high": high}
        signs.append(0 if low <= 0 <= high else np.sign(result.difference))
    judge, exact = signs
    if exact == 0:
        return row | {"order": "exact undecided"}
    if judge == 0:
        return row | {"order": "judge undecided"}
    return row | {"order": "same" if judge == exact else "reversed"}


# --- scripted judges with known faults: functions (question, text) -> {measure: count}


def claim_counter(question: Question, text: str) -> dict[str, int]:
    """Cannot check facts: every claim counts as true, every option argued against as rejected, nothing as invented."""
    claims = [claim for claim in read_claims(text) if claim.condition in question.options.values()]
    return {
        "backtracking": text.count("on second thought consider"),
        "backward_chaining": text.count("then expect"),
        "subgoal_setting": sum(goal in text for goal in SUBGOALS),
        "verification": text.count("check:"),
        "faithfulness": len(claims),
        "cecd": len(claims),
        "drc": len({claim.condition for claim in claims if claim.direction == AGAINST}),
        "hallucination": 0,
    }


def length_judge(question: Question, text: str) -> dict[str, int]:
    """Does not read: a longer answer has more of everything, one count for every WORDS_PER_COUNT words."""
    return dict.fromkeys(PROCESS_METRICS, len(text.split()) // WORDS_PER_COUNT)


def noisy_judge(rate: float, seed: int = 0) -> Callable[[Question, str], dict[str, int]]:
    """A judge that reads the evidence graph but errs: it misses each instance with probability `rate` and, as often,
    invents one per measure. Its errors depend on seed, question and text alone, so a second call says the same.

    {} for a question without an evidence graph. ValueError unless 0 <= rate <= 1.
    """
    if not 0 <= rate <= 1:
        raise ValueError(f"noisy_judge got rate {rate}; expected a probability in [0, 1].")

    def judge(question: Question, text: str) -> dict[str, int]:
        if "case" not in question.meta:
            return {}
        key = f"{seed}|{question.id}|{text}".encode("utf-8", "backslashreplace")
        rng = np.random.default_rng(list(hashlib.sha256(key).digest()))
        exact = measure(text, Case.from_json(question.meta["case"]))
        return {
            name: int(rng.binomial(count, 1 - rate) + (rng.random() < rate)) for name, count in exact.items()
        }

    return judge


def calibrate(settings: Settings, judges, rng, methods=("crpo", "grpo"), n=500, workers=1):
    """(agreement, ordering) of judges on the clinic, where the truth is exact: frames of `agreement`, judge by judge.

    judges: name -> judge. methods: two of the run's, whose first-seed answers to the first n test questions of `clinic` are
    judged. workers: how many completions a judge sees at the same time.
    """
    import pandas as pd

    questions = read_questions(settings.questions_path("clinic", "test"))[:n]
    ids = [question.id for question in questions]
    texts = {}
    for method in methods:
        rows = read_completions(settings, "clinic", method, settings.seeds[0])
        first = {row["id"]: row["text"] for row in rows if row["sample"] == 0}
        texts[method] = [first[key] for key in ids]

    def ask(judge):
        pairs = [pair for own in texts.values() for pair in zip(questions, own, strict=True)]
        verdicts = judge_many(pairs, judge, workers) if workers > 1 else [judge(*pair) for pair in pairs]
        return {m: verdicts[i * len(ids) : (i + 1) * len(ids)] for i, m in enumerate(methods)}

    exact = ask(exact_judge)
    judged = {name: ask(judge) for name, judge in judges.items()}
    pooled = {name: sum(own.values(), []) for name, own in judged.items()}
    table = agreement_table(pooled, sum(exact.values(), []), rng, ids=ids * len(methods))
    orders = [ordering(own, exact).assign(judge=name) for name, own in judged.items()]
    return table, pd.concat(orders, ignore_index=True)[["judge", *ORDERING_COLUMNS]]
