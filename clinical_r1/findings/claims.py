"""The paper's claims and ours, each with the comparison that decides it in this world: tables of a run -> verdicts.

    answer_rows(tables)      one row for each comparison that a claim rests on, with its verdict
    verdicts(rows)           one row for each claim

Pure: frames in, frames out; as text: `claims_page`.
What counts as what is written down in docs/claims.md before the run, and here as data.
The verdicts are of the synthetic clinic and its small model, not of the paper's.
"""

from collections.abc import Mapping
from itertools import product
from typing import NamedTuple

import numpy as np
import pandas as pd

from clinical_r1.intervals import holm, minimum_detectable_effect
from clinical_r1.metrics import PRIMARY_BENCHMARKS, PRIMARY_METRICS

SUPPORTED, CONTRADICTED, UNSETTLED, NOT_RUN = "supported", "contradicted", "unsettled", "not run"
LEVEL = 0.05
HIGHER, LOWER, NO_LOWER, MOST = "higher", "lower", "no lower", "more than half"
# The smallest difference that matters here. Points of per cent; counts a response. None: only the direction is tested.
MARGINS = {
    "accuracy": 3.0,
    "faithfulness": 0.3,
    "drc": 0.3,
    "hallucination": 0.3,
    "swap": 10.0,
    "direct": 3.0,
}
BASES_NEEDED = 3  # a claim about causes has to hold on as many base models
PLAIN, COLD = ("crpo", "grpo"), ("cold_start_crpo", "cold_start_grpo")
TRAINED = ("grpo", "crpo", "cold_start_grpo", "cold_start_crpo")
PAIRS = {  # comparisons.csv: name -> (method, against)
    "cold start and CRPO against baseline": ("cold_start_crpo", "baseline"),
    "CRPO against GRPO, all measures": PLAIN,
    "after a cold start, all measures": COLD,
    "GRPO against baseline": ("grpo", "baseline"),
    "CRPO against baseline": ("crpo", "baseline"),
    "cold start and GRPO against baseline": ("cold_start_grpo", "baseline"),
    "what a cold start adds to CRPO": ("cold_start_crpo", "crpo"),
    "what a cold start adds to GRPO": ("cold_start_grpo", "grpo"),
}
WITHOUT, AFTER, APART = "without a cold start", "after a cold start", ""


class Claim(NamedTuple):
    """A sentence and the comparisons that decide it: pairs x metrics x benchmarks.

    text: the sentence; where: who says it. when: WITHOUT or AFTER for a claim that is asked twice. table: "comparisons",
    "training" (the last tenth of the steps) or "causality". direction: of method minus against, as claimed.
    """

    key: str
    text: str
    where: str
    direction: str
    pairs: tuple[tuple[str, str], ...]
    metrics: tuple[str, ...]
    benchmarks: tuple[str, ...] = PRIMARY_BENCHMARKS
    table: str = "comparisons"
    when: str = APART


def _twice(key, text, where, direction, metrics, benchmarks=PRIMARY_BENCHMARKS):
    """One claim about CRPO and GRPO, without and after a cold start."""
    return tuple(
        Claim(key, text, where, direction, (pair,), metrics, benchmarks, when=when)
        for pair, when in ((PLAIN, WITHOUT), (COLD, AFTER))
    )


BEHAVIOURS = ("backtracking", "backward_chaining", "subgoal_setting", "verification")
CLAIMS = (
    *_twice("accurate", "CRPO is at least as accurate as GRPO", "the paper, abstract", NO_LOWER, ("accuracy",)),
    *_twice("truthful", "CRPO states more true claims than GRPO", "the paper, abstract", HIGHER, ("faithfulness",)),
    *_twice("complete", "CRPO rejects more options than GRPO", "the paper, abstract", HIGHER, ("drc",)),
    *_twice("fewer_false", "CRPO makes fewer false claims than GRPO", "the paper, Table 1", LOWER, ("hallucination",)),
    *_twice("behaviours", "CRPO thinks more visibly: backtracking, backward chaining, subgoals, checks",
            "the paper, Table 1", HIGHER, BEHAVIOURS, ("clinic",)),
    *_twice("expert", "CRPO is at least as accurate as GRPO on the hardest set", "the paper, Table 1", NO_LOWER,
            ("accuracy",), ("clinic-expert",)),
    Claim("better_than_base", "cold start and CRPO make the base model more accurate", "the paper, Table 1", HIGHER,
          (("cold_start_crpo", "baseline"),), ("accuracy",)),
    Claim("more_false", "every trained arm makes more false claims than the base model", "the paper, Table 1", HIGHER,
          tuple((arm, "baseline") for arm in TRAINED), ("hallucination",)),
    Claim("cold_start", "a cold start raises accuracy", "our reading of the paper's Figure 3", HIGHER,
          (("cold_start_crpo", "crpo"), ("cold_start_grpo", "grpo")), ("accuracy",)),
    Claim("unstable", "without a cold start CRPO moves further from its base (KL)", "the paper, limitations", HIGHER,
          (("crpo", "cold_start_crpo"),), ("kl",), ("clinic",), "training"),
    Claim("longest", "answers are longest after a cold start, and shortest with GRPO", "the paper, text", HIGHER,
          (("cold_start_crpo", "crpo"), PLAIN), ("completions/mean_length",), ("clinic",), "training"),
    Claim("voting", "majority voting adds little", "the paper, text", NO_LOWER, (), ("accuracy",)),
    Claim("moves", "the reasoning of CRPO decides its answer", "what 'faithful' would mean", MOST,
          (("crpo", ""), ("cold_start_crpo", "")), ("swap",), ("clinic",), "causality"),
    Claim("removed", "reward for the outcome makes claims matter less to the answer", "ours", LOWER,
          (("grpo", "baseline"), ("crpo", "baseline")), ("swap",), ("clinic",), "causality"),
    Claim("truer", "while the number of true claims rises", "ours", HIGHER,
          (("grpo", "baseline"), ("crpo", "baseline")), ("faithfulness",)),
    Claim("exact_tally", "paying only for answers that the written claims favour keeps them decisive", "ours", HIGHER,
          (("exact_tally", "crpo"),), ("swap",), ("clinic",), "causality"),
    Claim("direct", "a copy trained to answer without reasoning is as accurate", "ours", NO_LOWER,
          (("crpo", "itself, reasoning"), ("cold_start_crpo", "itself, reasoning")), ("direct",), ("clinic",), "causality"),
)  # fmt: skip
COLUMNS = (
    "key claim where when status table base method against metric benchmark direction difference ci_low ci_high p mde margin n "
    "seeds verdict why"
).split()


# ------------------------------------------------------------------------------------------------------------ the rule


def verdict(direction: str, difference, low, high, p, seeds, margin: float | None) -> tuple[str, str]:
    """(verdict, why) of one comparison: method minus against, its 95 % interval, its corrected p, seeds, smallest that matters.

    "more than half": difference is a share in per cent, decided by its interval alone.
    """
    if pd.isna(difference):
        return NOT_RUN, "no such row in the tables"
    if not seeds > 1:
        return UNSETTLED, "one training seed: nothing shows the luck of training"
    unknown = "there is no interval: nothing varies" if pd.isna(low) or pd.isna(high) else ""
    if direction == MOST:
        if low > 50:
            return SUPPORTED, "the interval lies above 50"
        below = CONTRADICTED, "the interval lies below 50"
        return below if high < 50 else (UNSETTLED, unknown or "it holds 50")
    sign = "−" if direction == LOWER else "+"
    if direction == LOWER:
        difference, low, high = -difference, -high, -low
    found = p < LEVEL
    if direction == NO_LOWER:
        if low > -margin:
            return SUPPORTED, f"a loss of {margin:g} is excluded"
        if found and difference < 0:
            return CONTRADICTED, "it is lower"
        return UNSETTLED, unknown or f"no loss is found, and one of {margin:g} is not excluded"
    if found:
        return (
            (SUPPORTED, "the difference is there")
            if difference > 0
            else (CONTRADICTED, "the other way round")
        )
    if margin is not None and high < margin:
        return CONTRADICTED, f"a difference of {sign}{margin:g} is excluded"
    size = f", and one of {sign}{margin:g} is not excluded" if margin is not None else ""
    return UNSETTLED, unknown or f"no difference is found after correction{size}"


def answer_rows(tables: Mapping[str, pd.DataFrame | None]) -> pd.DataFrame:
    """A row (COLUMNS) for each comparison of each claim, in the order of CLAIMS.

    tables: "comparisons" (comparisons.csv), "training" (training_curves.csv), "causality" (causality_differences.csv); what is
    missing or None is not run. Accuracy, swap and direct are in per cent, the rest per response. p is Holm's over the family
    that its table names; mde the difference that the first step of it finds with 80 % power.
    """
    found = {
        "comparisons": _compared(tables.get("comparisons")),
        "training": _trained(tables.get("training")),
        "causality": _probed(tables.get("causality")),
    }
    rows = []
    for claim in CLAIMS:
        own = found[claim.table]
        bases = list(dict.fromkeys(own["base"])) or [""]
        for base, pair, metric, benchmark in product(bases, claim.pairs, claim.metrics, claim.benchmarks):
            there = (own["base"] == base) & (own["metric"] == metric) & (own["benchmark"] == benchmark)
            there &= (own["method"] == pair[0]) & (own["against"] == pair[1])
            names = {
                "method": pair[0],
                "against": pair[1],
                "metric": metric,
                "benchmark": benchmark,
                "base": base,
            }
            numbers = own[there].iloc[0].to_dict() if there.any() else names
            rows.append(_row(claim, names | numbers))
        if not claim.pairs:
            rows.append(_row(claim, {"metric": claim.metrics[0]}) | {"why": "one answer a question"})
    return pd.DataFrame(rows, columns=COLUMNS)


def _row(claim, numbers):
    margin = MARGINS.get(numbers["metric"])
    given = [numbers.get(name, np.nan) for name in ("difference", "ci_low", "ci_high", "p", "seeds")]
    said, why = verdict(claim.direction, *given, margin)
    primary = claim.table == "comparisons" and set(claim.benchmarks) <= set(PRIMARY_BENCHMARKS)
    primary = primary and numbers["metric"] in PRIMARY_METRICS and claim.pairs
    about = {"key": claim.key, "claim": claim.text, "where": claim.where, "when": claim.when}
    about |= {"status": "primary" if primary else "exploratory", "table": claim.table}
    about |= {"direction": claim.direction, "margin": np.nan if margin is None else margin}
    return numbers | about | {"verdict": said, "why": why}


def verdicts(rows: pd.DataFrame) -> pd.DataFrame:
    """Frame key, claim, where, when, status, verdict, why: one row a claim.

    supported: every comparison of it is. contradicted: at least one is. A claim about causes is supported only with BASES_NEEDED
    base models. not run: nothing of it was; a part that is missing leaves the rest unsettled.
    """
    answered = []
    for _, own in rows.groupby(["key", "when"], sort=False):
        said = list(own["verdict"])
        first, bases = own.iloc[0], own["base"].nunique()
        why = "; ".join(
            f"{n} of {len(own)} {what}" for what, n in own["verdict"].value_counts(sort=False).items()
        )
        if all(one == NOT_RUN for one in said):
            answer, why = NOT_RUN, first["why"]
        elif CONTRADICTED in said:
            answer = CONTRADICTED
        elif all(one == SUPPORTED for one in said):
            few = first["table"] == "causality" and bases < BASES_NEEDED
            answer = UNSETTLED if few else SUPPORTED
            why = f"so far on {bases} of {BASES_NEEDED} base models" if few else why
        else:
            answer = UNSETTLED
        about = {name: first[name] for name in ("key", "claim", "where", "when", "status")}
        answered.append(about | {"verdict": answer, "why": why})
    return pd.DataFrame(answered)


# ------------------------------------------------------------------------------------------ tables -> comparable rows

NUMBERS = ("difference", "ci_low", "ci_high", "p", "mde", "n", "seeds")
KEYS = ("base", "method", "against", "metric", "benchmark")


PROBED = "base method against probe benchmark p_holm mde_holm questions"


def _nothing():
    return pd.DataFrame(columns=[*KEYS, *NUMBERS])


def _check(table, name, columns):
    """ValueError that names the columns a table lacks."""
    if missing := [column for column in columns.split() if column not in table]:
        raise ValueError(
            f"{name} lacks the columns {', '.join(missing)}; run the notebook that writes it again."
        )


def _compared(table):
    """comparisons.csv; where a pair was tested in two families, the one with the larger p."""
    if table is None or table.empty:
        return _nothing()
    _check(
        table,
        "comparisons.csv",
        "method against metric benchmark p_holm mde_holm difference ci_low ci_high n seeds",
    )
    table = table.drop(columns=["p", "mde"], errors="ignore") if "mde_holm" in table else table
    table = table.rename(columns={"p_holm": "p", "mde_holm": "mde"}).assign(base="")
    table = table.sort_values("p", ascending=False, kind="stable", na_position="last")
    return table.drop_duplicates(["method", "against", "metric", "benchmark"])[[*KEYS, *NUMBERS]]


def _probed(table):
    """causality_differences.csv, in per cent."""
    if table is None or table.empty:
        return _nothing()
    _check(table, "causality_differences.csv", f"{PROBED} difference ci_low ci_high seeds")
    table = table.rename(columns={"probe": "metric", "p_holm": "p", "mde_holm": "mde", "questions": "n"})
    shares = ["difference", "ci_low", "ci_high", "mde"]
    table = table.assign(**{name: 100 * table[name] for name in shares})
    return table.assign(against=table["against"].fillna(""))[[*KEYS, *NUMBERS]]


def _trained(table):
    """Differences of the last tenth of training_curves.csv: paired by seed, Student's t, Holm over what the claims ask."""
    if table is None or table.empty:
        return _nothing()
    _check(table, "training_curves.csv", "method seed step")
    last = table[table["step"] > 0.9 * table["step"].max()]
    rows = []
    for claim in (claim for claim in CLAIMS if claim.table == "training"):
        for (method, against), metric in product(claim.pairs, claim.metrics):
            if {method, against} <= set(last["method"]) and metric in last:
                means = last.groupby(["seed", "method"])[metric].mean().unstack("method")
                about = {"method": method, "against": against, "metric": metric}
                rows.append(about | over_seeds((means[method] - means[against]).dropna().to_numpy()))
    frame = pd.DataFrame(rows, columns=[*KEYS, *NUMBERS, "standard_error"]).assign(
        base="", benchmark="clinic"
    )
    tested = frame["p"].notna()
    if tested.any():
        frame.loc[tested, "p"] = holm(frame.loc[tested, "p"])
        frame.loc[tested, "mde"] = [
            minimum_detectable_effect(row.standard_error, row.seeds - 1, int(tested.sum()))
            for row in frame[tested].itertuples()
        ]
    return frame[[*KEYS, *NUMBERS]]


def over_seeds(differences) -> dict:
    """One number a seed (S,) -> mean as `difference`, ci_low, ci_high and p of Student's t, seeds, standard_error.

    NaN where there is no number, or, of all but the mean, with one seed or where no seed differs.
    """
    from scipy.stats import t

    seeds, mean = len(differences), float(np.mean(differences)) if len(differences) else np.nan
    error = float(np.std(differences, ddof=1) / np.sqrt(seeds)) if seeds > 1 else np.nan
    row = {"difference": mean, "ci_low": np.nan, "ci_high": np.nan, "p": np.nan, "mde": np.nan, "n": np.nan}
    if error > 0:
        half = t.ppf(0.975, seeds - 1) * error
        row |= {
            "ci_low": mean - half,
            "ci_high": mean + half,
            "p": float(2 * t.sf(abs(mean) / error, seeds - 1)),
        }
    return row | {"seeds": seeds, "standard_error": error}
