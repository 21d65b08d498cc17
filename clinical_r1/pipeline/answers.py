"""The paper's claims and ours, each with the comparison that decides it in this world: tables of a run -> verdicts.

    answer_rows(tables)      one row for each comparison that a claim rests on, with its verdict
    verdicts(rows)           one row for each claim
    claims_block, first_screen    the same as markdown: docs/claims.md, README.md

Pure: frames in, frames and text out. What counts as what is written down in docs/claims.md before the run, and here as data.
The verdicts are of the synthetic clinic and its small model, not of the paper's.
"""

from collections.abc import Mapping
from itertools import product
from typing import NamedTuple

import numpy as np
import pandas as pd

from clinical_r1.arms import ARMS
from clinical_r1.intervals import holm, minimum_detectable_effect
from clinical_r1.metrics import PRIMARY_BENCHMARKS, PRIMARY_METRICS
from clinical_r1.tables import interval, markdown, number, whole

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
MEASURES = {
    "accuracy": "accuracy",
    "faithfulness": "true claims",
    "drc": "rejected options",
    "hallucination": "false claims",
    "kl": "KL",
    "completions/mean_length": "tokens",
    "swap": "answers that a swap flips",
    "direct": "accuracy, direct minus reasoned",
}
PER_CENT = ("accuracy", "swap", "direct")
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
    if direction == MOST:
        if low > 50:
            return SUPPORTED, "the interval lies above 50"
        return (CONTRADICTED, "the interval lies below 50") if high < 50 else (UNSETTLED, "it holds 50")
    if direction == LOWER:
        difference, low, high = -difference, -high, -low
    found = p < LEVEL
    if direction == NO_LOWER:
        if low > -margin:
            return SUPPORTED, f"a loss of {margin:g} is excluded"
        if found and difference < 0:
            return CONTRADICTED, "it is lower"
        return UNSETTLED, f"neither a loss of {margin:g} nor none is excluded"
    if found:
        return (
            (SUPPORTED, "the difference is there")
            if difference > 0
            else (CONTRADICTED, "the other way round")
        )
    if margin is not None and high < margin:
        return CONTRADICTED, f"a difference of {margin:g} is excluded"
    return UNSETTLED, "the interval holds 0" + (f" and {margin:g}" if margin is not None else "")


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


def _nothing():
    return pd.DataFrame(columns=[*KEYS, *NUMBERS])


def _compared(table):
    """comparisons.csv; where a pair was tested in two families, the one with the larger p."""
    if table is None:
        return _nothing()
    table = table.rename(columns={"p_holm": "p", "mde_holm": "mde"}).assign(base="")
    table = table.sort_values("p", ascending=False, kind="stable", na_position="last")
    return table.drop_duplicates(["method", "against", "metric", "benchmark"])[[*KEYS, *NUMBERS]]


def _probed(table):
    """causality_differences.csv, in per cent."""
    if table is None:
        return _nothing()
    table = table.rename(columns={"probe": "metric", "p_holm": "p", "mde_holm": "mde", "questions": "n"})
    shares = ["difference", "ci_low", "ci_high", "mde"]
    table = table.assign(**{name: 100 * table[name] for name in shares})
    return table.assign(against=table["against"].fillna(""))[[*KEYS, *NUMBERS]]


def _trained(table):
    """Differences of the last tenth of training_curves.csv: paired by seed, Student's t, Holm over what the claims ask."""
    if table is None:
        return _nothing()
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


# ------------------------------------------------------------------------------------------------------------- as text


def claims_block(rows: pd.DataFrame) -> str:
    """Both tables of docs/claims.md: a verdict for each claim, then every comparison with its numbers."""
    asked = verdicts(rows)
    first = [
        [_sentence(row), row.where, f"**{row.verdict}**" if row.verdict != NOT_RUN else row.verdict, row.why]
        for row in asked.itertuples()
    ]
    second = [_numbers(row) for row in rows[rows["verdict"] != NOT_RUN].itertuples()]
    header = ["claim", "difference", "set", "value [95 %]", "p", "detectable", "n", "seeds", "verdict"]
    return (
        "\n\n".join(
            [
                "Verdicts hold for the synthetic clinic and its small model only.",
                markdown(["claim", "who says it", "verdict", "comparisons"], first),
                "Every comparison: per cent or its points for accuracy, swap and direct, otherwise per response; p is Holm's.",
                markdown(header, second),
            ]
        )
        + "\n"
    )


def _sentence(row):
    return f"{row.claim}, {row.when}" if row.when else row.claim


def shown_value(row) -> str:
    """ "+0.17 [0.10, 0.24]": a row of `answer_rows` (as a tuple with names) in the digits of its measure."""
    places, sign = _places(row.metric), "" if row.direction == MOST else "+"
    value = f"{row.difference:{sign}.{places}f} {interval(row.ci_low, row.ci_high, places)}"
    return value.replace("-", "−").strip()


def _places(metric):
    return 1 if metric in PER_CENT else 3 if metric == "kl" else 2


def _numbers(row):
    places, value = _places(row.metric), shown_value(row)
    p = "–" if pd.isna(row.p) or row.direction == MOST else "< 0.001" if row.p < 0.001 else number(row.p, 3)
    pair = ARMS[row.method].label + (f" − {ARMS[row.against].label}" if row.against in ARMS else "")
    measure = MEASURES.get(row.metric, row.metric.replace("_", " "))
    where = f"`{row.benchmark}`" + (f", base {row.base}" if row.base else "")
    cells = [value, p, number(row.mde, places), whole(row.n), whole(row.seeds), f"{row.verdict}: {row.why}"]
    return [row.key.replace("_", " "), f"{pair}: {measure}", where, *cells]


NAMED = {  # claims of CRPO over GRPO, in few words
    "accurate": "no less accurate",
    "truthful": "more true claims",
    "complete": "more rejected options",
    "fewer_false": "fewer false claims",
    "behaviours": "more visible thinking",
    "expert": "no less accurate on the hardest set",
}
SAID = (SUPPORTED, CONTRADICTED, UNSETTLED)


def in_short(rows: pd.DataFrame) -> str:
    """What was found, in four bullets, every number from `answer_rows`; a bullet whose comparisons were not run is left out."""
    asked = verdicts(rows).set_index(["key", "when"])["verdict"]
    bullets = [_gain(rows), _over_grpo(asked), _used(rows, asked), _needed(rows, asked)]
    return "\n".join(f"- {bullet}" for bullet in bullets if bullet) + "\n"


def _shown(rows, key, benchmark="clinic", **more):
    """ "+33.9 [31.0, 36.8]" of one comparison on the run's own base, None where it was not run."""
    own = rows[(rows["key"] == key) & (rows["benchmark"] == benchmark) & rows["difference"].notna()]
    for name, value in more.items():
        own = own[own[name] == value]
    return _numbers(next(own.itertuples()))[3] if len(own) else None


def _gain(rows):
    clinic, shift = (_shown(rows, "better_than_base", name) for name in PRIMARY_BENCHMARKS)
    if not clinic:
        return None
    also = f", {shift} on `clinic-shift`" if shift else ""
    return f"**Training**: a cold start and CRPO change the base model's accuracy by {clinic} points on `clinic`{also}."


def _over_grpo(asked):
    said = []
    for when in (WITHOUT, AFTER):
        of = {kind: [words for key, words in NAMED.items() if asked[(key, when)] == kind] for kind in SAID}
        parts = [f"{', '.join(names)} **{kind}**" for kind, names in of.items() if names]
        said += [f"{when} {'; '.join(parts)}"] if parts else []
    return f"**CRPO against GRPO**, the paper's claims: {'. And '.join(said)}." if said else None


def _used(rows, asked):
    share, change = _shown(rows, "moves", method="crpo"), _shown(rows, "removed", method="crpo")
    if not share:
        return None
    words = {SUPPORTED: "decides the answer", CONTRADICTED: "does not decide the answer"}
    head = words.get(asked[("moves", APART)], "may or may not decide the answer")
    against = f", {change} points against the base model" if change else ""
    return (
        f"**The reasoning {head}**: where the names of two options are exchanged in it, {share} % of CRPO's answers "
        f"follow{against}."
    )


def _needed(rows, asked):
    more = _shown(rows, "direct", method="crpo")
    if not more:
        return None
    words = {SUPPORTED: "It is not needed", CONTRADICTED: "It is needed"}
    head = words.get(asked[("direct", APART)], "Whether it is needed is open")
    return f"**{head}**: a copy trained to answer at once, without reasoning, is {more} points of accuracy apart from CRPO."


FIRST = ("accurate", "truthful", "complete", "fewer_false", "better_than_base", "moves", "removed", "truer")


def first_screen(rows: pd.DataFrame) -> str:
    """The README's block: what was found, and eight claims with their verdicts and numbers on `clinic`."""
    asked = verdicts(rows).set_index(["key", "when"])
    lines = []
    for key in FIRST:
        whens = (WITHOUT, AFTER) if (key, WITHOUT) in asked.index else (APART,)
        cells = [f"**{asked.loc[(key, when), 'verdict']}**{_on_clinic(rows, key, when)}" for when in whens]
        lines.append([asked.loc[(key, whens[0]), "claim"], *(cells if len(cells) == 2 else [cells[0], ""])])
    seeds, largest = rows["seeds"].max(), rows.loc[rows["metric"] == "accuracy", "n"].max()
    return (
        f"Verdicts for this synthetic clinic only: {whole(seeds)} training seeds, up to {whole(largest)} questions a set, rules "
        "written before the run ([claims](docs/claims.md)). In brackets: the difference on `clinic` with its 95 % interval, in "
        "points of accuracy, claims a response, or per cent of answers that follow exchanged names.\n\n"
        + in_short(rows)
        + "\n"
        + markdown(["claim", WITHOUT, AFTER], lines)
        + "\n"
    )


def _on_clinic(rows, key, when):
    """ " (+0.17 [0.10, 0.24])": the comparisons on `clinic` behind one cell; "" where nothing was run."""
    own = rows[(rows["key"] == key) & (rows["when"] == when) & (rows["benchmark"] == "clinic")]
    own = own[own["difference"].notna()].drop_duplicates(["method", "against", "metric"])
    shown = [f"{ARMS[row.method].label} " * (len(own) > 1) + shown_value(row) for row in own.itertuples()]
    return f" ({'; '.join(shown)})" if shown else ""
