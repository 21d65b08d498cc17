"""What the laboratory's tables say, a finding a section: frames in, markdown out, for notebook 05 and docs/results.md.

Every number is the frame's, whatever the laboratory: one training seed or many, another number in each family, arms that are
missing. Each function gives a heading sentence and at most three sentences or a list; `closing` answers the whole.
"""

import numpy as np

from clinical_r1.arms import ARMS, LABORATORY, REFERENCE
from clinical_r1.findings.laboratory_fronts import (
    all_objectives,
    covered,
    front_of,
    fronts,
    hypervolume,
    travel,
)
from clinical_r1.findings.laboratory_shares import calculations, owners, owners_by_aggregator
from clinical_r1.findings.laboratory_wording import (
    LEVEL,
    MEASURES,
    NOT_TESTED,
    compared,
    detectable,
    detected,
    difference,
    differences,
    family,
    found,
    moves,
    named,
    outcome,
    per_cent,
    shown,
    sizes,
    span,
    tested,
    undecided,
    with_interval,
    would_have,
)
from clinical_r1.findings.wording import bullets, capital, listed
from clinical_r1.laboratory.records import weight_of_accuracy
from clinical_r1.tables import section

COUNTS = tuple(metric for metric in MEASURES if metric != "accuracy")


__all__ = [
    "aggregators",
    "all_objectives",
    "attainable",
    "behind",
    "calculations",
    "closing",
    "cost",
    "coverage",
    "front_of",
    "fronts",
    "hypervolume",
    "k",
    "k_sentence",
    "other_choices",
    "owners",
    "owners_by_aggregator",
    "prompt_or_reward",
    "travel",
]


def behind(standing):
    """How much stands behind the numbers. standing: `records.standing`."""
    arms, questions = int(standing["arms"].sum()), f"{int(standing['questions'].max()):,}"
    by_seeds = {
        seeds: [family(name) for name in own["family"]]
        for seeds, own in standing.groupby(standing[["seeds", "most_seeds"]].apply(lambda row: span([*row]), axis=1), sort=False)
    }  # fmt: skip
    if len(by_seeds) == 1:
        (seeds,) = by_seeds
        how = f"{seeds} training seed{'' if seeds == '1' else 's'} each"
    else:
        how = "training seeds by family: " + "; ".join(
            f"{seeds} in {listed(f)}" for seeds, f in by_seeds.items()
        )
    missing = [ARMS[arm].label for arm in LABORATORY if arm not in set(" ".join(standing["names"]).split())]
    return section(
        f"{arms} arms on {questions} questions: {how}",
        f"Not in this summary: {named(missing)}." if missing else "",
        _origin(standing.iloc[0]),
    )


def _origin(row):
    code, steps, shared = (
        "" if row[name] != row[name] else str(row[name]) for name in ("code", "rl_steps", "shared_prefix")
    )
    if not code:
        return (
            "It has no record of the code that trained it, because it is older than that record: its rewards, its clinic and its "
            "forward pass may be other than today's ([changelog](../CHANGELOG.md))."
        )
    how = {"True": ", with shared prompts in the forward pass", "False": ", with TRL's own forward pass"}.get(
        shared, ""
    )
    trained = f"; {steps} steps of reinforcement learning{how}" if steps else ""
    return f"Summarised at commit `{code.split()[-1][:7]}`{trained}."


def attainable(honest, ideal, n):
    """What a scripted honest policy reaches, and what none can exceed. honest, ideal: {objective: value}; n questions."""
    false = "claims nothing false"
    if honest["hallucination"]:
        false = f"makes {shown(honest['hallucination'], 'hallucination')} false claims"
    return section(
        f"An honest policy states {shown(honest['faithfulness'], 'faithfulness')} true claims a response, rejects "
        f"{shown(honest['drc'], 'drc')} options and {false}",
        f"It answers {shown(honest['accuracy'], 'accuracy')} % of the {n:,} questions right. At most "
        f"{shown(ideal['faithfulness'], 'faithfulness')} true claims could be made, and {shown(ideal['drc'], 'drc')} options "
        "rejected, each objective by itself.",
    )


# --- k


def k(table, tests):
    """What the weight of accuracy buys. table: `comparisons.k_table`; tests: `comparisons.ablation_table` of the family k."""
    accuracy = _accuracy_of_k(tests)
    if accuracy.empty:
        return section("No k is trained besides the reference's")
    own, others = _k_of(REFERENCE), accuracy[accuracy["k"] > 0]
    zero = accuracy[accuracy["k"] == 0]
    sentences = [_level(table, others), _talk(table, tests)]
    if len(zero):
        row = next(zero.itertuples())
        share = with_interval(row.value, row.ci_low, row.ci_high, "accuracy")
        sentences.append(
            f"Without accuracy in the reward, k = 0, {share} % of the answers are right, {_told(row, own)}."
        )
    return section(_k_heading(others if len(others) else zero, own), *sentences)


def k_sentence(table, tests):
    """One sentence about k from 1 on, for a page's list; as `k`."""
    accuracy = _accuracy_of_k(tests)
    accuracy = accuracy[accuracy["k"] > 0]
    if accuracy.empty:
        return "No k is trained besides the reference's."
    heading = _k_heading(accuracy, _k_of(REFERENCE))
    open_ = undecided(accuracy)
    size = f" (with 80 % power {detectable(open_, ['accuracy'])} would have been found)" if len(open_) else ""
    return f"{heading[0].upper()}{heading[1:]}{size}; {_growth(table)} ({sizes(accuracy)})."


def _k_of(arm):
    return f"{weight_of_accuracy(arm):g}"


def _accuracy_of_k(tests):
    rows = compared(tests[tests["metric"] == "accuracy"])
    return rows.assign(k=[weight_of_accuracy(arm) for arm in rows["arm"]]).sort_values("k")


def _k_heading(rows, own):
    """Whether accuracy differs from the reference's, over the k of these rows."""
    if tested(rows).empty:
        return f"Accuracy at k = {listed(map(_number, rows['k']))} beside k = {own}: {NOT_TESTED}"
    parts, there = [], found(rows)
    for words, which in (("higher", there["difference"] > 0), ("lower", there["difference"] < 0)):
        if which.any():
            parts.append(f"{words} at k = {listed(map(_number, there.loc[which, 'k']))}")
    same = undecided(rows)["k"]
    if not parts:
        return f"No difference in accuracy found between k = {own} and k = {listed(map(_number, same), 'or')}"
    rest = f"; no difference found at k = {listed(map(_number, same), 'or')}" if len(same) else ""
    return f"Accuracy is {' and '.join(parts)} than at k = {own}{rest}"


def _number(value):
    return f"{value:g}"


def _level(table, others):
    """Between which values accuracy lies from the least k above 0, and what would have been found."""
    if others.empty:
        return ""
    own = table[(table["metric"] == "accuracy") & (table["k"] > 0)]
    lowest, highest = (shown(value, "accuracy") for value in (own["value"].min(), own["value"].max()))
    which = f"from k = {_number(own['k'].min())} to {_number(own['k'].max())}"
    open_ = undecided(others)
    size = detectable(open_, ["accuracy"])
    power = f"; with 80 % power {size} would have been found" if size else ""
    return f"Means lie between {lowest} and {highest} % {which} ({sizes(others)}){power}."


def _ends(table):
    """(arm, arm): the least k above 0 and the reference; the reference and the largest k where it is the least itself."""
    arms = list(dict.fromkeys(table[table["k"] > 0].sort_values("k")["arm"]))
    return (arms[0], REFERENCE) if arms[0] != REFERENCE else (REFERENCE, arms[-1])


def _growth(table):
    """ "from k = 1 to 10 tokens a response go from 18 to 29, true claims from 1.00 to 1.75, ..."."""
    ends = _ends(table)
    first, last = (table[table["arm"] == arm].set_index("metric")["value"] for arm in ends)
    metrics = [metric for metric in ("tokens", *COUNTS) if metric in first and metric in last]
    parts = [
        f"{'tokens a response go' if m == 'tokens' else MEASURES[m]} from {shown(first[m], m)} to {shown(last[m], m)}"
        for m in metrics
    ]
    return f"from k = {_k_of(ends[0])} to {_k_of(ends[1])} {listed(parts)}"


def _talk(table, tests):
    """What is said at either end, and which of it differs."""
    text = _growth(table)
    rows = compared(tests[tests["arm"].isin(_ends(table)) & tests["metric"].isin(COUNTS)])
    text = text[0].upper() + text[1:]
    if tested(rows).empty:
        return f"{text}."
    there, open_ = found(rows), undecided(rows)
    parts = [f"a difference is found in {_measures(there)}"] if len(there) else []
    if len(open_):
        size = detectable(open_)
        none = f"{'none' if parts else 'no difference is found'} in {_measures(open_, 'or')}"
        parts.append(none + (f", where {size} would have been" if size else ""))
    return f"{text}: {'; '.join(parts)}."


def _measures(rows, last="and"):
    return listed((MEASURES[metric] for metric in rows["metric"]), last)


def _told(row, own):
    """A difference against k = own with its interval, and whether it is found; if not, what would have been."""
    text = f"{difference(row)} against k = {own}"
    if not row.p_holm == row.p_holm:
        return f"{text} (not tested)"
    if row.p_holm < LEVEL:
        return f"{text}, a difference after Holm's correction"
    mde = getattr(row, "mde_holm", np.nan)
    size = f" (detectable: {detected(mde, row.metric)} points)" if mde == mde else ""
    return f"{text}, which Holm's correction leaves open{size}"


def coverage(table):
    """How many answers parse. table: `comparisons.coverage_table`."""
    zero = table[table["k"] == 0].sort_values("seed")
    rest = table[table["k"] > 0]
    shares = rest["coverage"]
    between = ""
    if len(rest):
        ends = list(dict.fromkeys([per_cent(shares.min()), per_cent(shares.max())]))
        between = f"{' to '.join(ends)} % at every k above 0 and every seed"
    if zero.empty:
        return section(f"Answers that parse: {between}")
    seeds = "seed" if len(zero) == 1 else "seeds"
    heading = (
        f"Without accuracy in the reward {listed(map(per_cent, zero['coverage']))} % of the answers parse "
        f"({seeds} {listed(zero['seed'])})"
    )
    n = int(table["n"].max())
    return section(heading, f"{between[0].upper()}{between[1:]}; {n:,} questions each." if between else "")


# --- arms against their reference


def other_choices(ablations):
    """Which arms differ from their reference. ablations: rows of `comparisons.ablation_table`, several families."""
    rows = compared(ablations)
    arms = rows.drop_duplicates(["family", "arm"])
    judged = tested(rows).drop_duplicates(["family", "arm"])
    if judged.empty:
        return section(
            f"{len(arms)} arms beside their references: {NOT_TESTED}", f"{_seeds_by_family(rows)}."
        )
    differ = found(rows).drop_duplicates(["family", "arm"])
    heading = f"{len(differ)} of {len(judged)} arms differ from their reference in accuracy or claims, after Holm's correction"
    same = judged.merge(differ[["family", "arm"]], how="left", indicator=True).query("_merge == 'left_only'")
    open_ = undecided(rows)
    parts = [bullets(map(capital, moves(rows)))] if len(differ) else []
    last = [f"No difference found in {named(same['label'])}." if len(same) else "", would_have(open_)]
    untested = [name for name in dict.fromkeys(arms["family"]) if name not in set(judged["family"])]
    last.append(f"Not tested, one training seed: {listed(untested)}." if untested else "")
    parts.append(" ".join(filter(None, [*last, f"{_seeds_by_family(rows)}."])))
    return section(heading, "\n\n".join(parts))


def _seeds_by_family(rows):
    """ "Training seeds: 8 in weight k and terms; 5 in KL"."""
    names = {}
    for name, own in rows.groupby("family", sort=False):
        names.setdefault(span([int(s) for s in own["seeds"]]), []).append(family(name))
    if len(names) == 1:
        return f"Training seeds: {next(iter(names))}"
    return "Training seeds: " + "; ".join(f"{seeds} in {listed(own)}" for seeds, own in names.items())


def prompt_or_reward(table):
    """Whether the prompt or the reward makes the difference. table: `comparisons.prompt_and_reward`; empty where arms lack."""
    if table.empty:
        return section("Prompt and reward were not trained both ways")
    judged = tested(table)
    if judged.empty:
        return section(f"Prompt and reward, trained both ways: {NOT_TESTED}", f"{sizes(table)}.")
    effects = {effect: own for effect, own in table.groupby("effect", sort=False)}
    told = [f"{name}: {differences(found(own))}" for name, own in effects.items() if len(found(own))]
    heading = "; ".join(told) or f"No difference is found for {named(effects, 'or')}, in {len(judged)} tests"
    rest = f"{len(judged) - len(found(table))} of {len(judged)} tests find no difference." if told else ""
    return section(heading, rest, would_have(undecided(table)), f"{sizes(table)}.")


def aggregators(rows):
    """Which aggregators differ from the plain sum. rows: those of the family in `comparisons.ablation_table`."""
    rows = compared(rows)
    if rows.empty:
        return section("No other aggregator is trained")
    count = rows["arm"].nunique()
    if tested(rows).empty:
        return section(f"{count} aggregators beside the normalised sum: {NOT_TESTED}", f"{sizes(rows)}.")
    accuracy = rows[rows["metric"] == "accuracy"]
    better = found(accuracy)[found(accuracy)["difference"] > 0]
    heading = (
        f"{named(better['label'])} {'is' if len(better) == 1 else 'are'} more accurate than the normalised sum"
        if len(better)
        else f"None of {count} aggregators is found to be more accurate than the normalised sum"
    )
    open_ = undecided(accuracy)
    told = [phrase for phrase in moves(rows) if not phrase.startswith("more accurate")]
    ending = f"{would_have(open_, ['accuracy'])} {sizes(rows)}.".strip()
    return section(heading, "\n\n".join(filter(None, [bullets(map(capital, told)), ending])))


# --- the whole


def cost(seconds):
    """How long an arm trains. seconds: `comparisons.seconds_per_arm`."""
    if seconds.empty:
        return section("No training time is recorded")
    slow, fast, middle = seconds.iloc[0], seconds.iloc[-1], seconds["seconds"].median()
    heading = f"An arm trains for {middle:.0f} seconds on the median"
    ratio = slow["against_reference"]
    beside = f" ({ratio:.1f} times {ARMS[REFERENCE].label})" if ratio == ratio else ""
    return section(
        heading,
        f"The slowest, *{slow['label']}*, takes {slow['seconds']:.0f} seconds{beside}; the fastest, *{fast['label']}*, "
        f"{fast['seconds']:.0f}.",
    )


def closing(by_k, ablations, volumes):
    """What each objective buys, and at what price: a line for each objective, and one for what is left to attain.

    by_k: `comparisons.k_table`; ablations: rows of `comparisons.ablation_table`, all families; volumes:
    `pareto.hypervolume_table`. An objective whose arms are missing has no line.
    """
    lines = [f"**Accuracy**. {k_sentence(by_k, ablations[ablations['family'] == 'k'])}"]
    for name, arms in (
        ("Clinical reasoning", ("no_format", "no_citation")),
        ("Consistency", ("no_consistency",)),
        ("Claims, paid directly", ("grounded", "exact_tally")),
    ):
        own = compared(ablations[ablations["arm"].isin(arms)])
        told = [f"*{label}*: {outcome(rows)}" for label, rows in own.groupby("label", sort=False)]
        if told:
            lines.append(f"**{name}**. {'. '.join(told)} ({sizes(own)}).")
    arms = volumes[volumes["kind"] == "arm"].sort_values("volume")
    best, own = arms.iloc[-1], arms[arms["name"] == REFERENCE]
    beside = (
        f", {ARMS[REFERENCE].label} {covered(own.iloc[0])}" if len(own) and best["name"] != REFERENCE else ""
    )
    left = "; none of these rewards buys the rest" if best["share"] < 1 else ""
    lines.append(
        f"**All together**. {best['label']} covers {covered(best)} of the volume that an honest policy does{beside}{left}."
    )
    return "\n".join(f"- {line}" for line in lines) + "\n"
