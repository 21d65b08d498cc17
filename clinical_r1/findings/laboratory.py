"""What the laboratory's tables say, a finding a section: frames in, markdown out, for notebook 05 and docs/results.md.

Every number is the frame's, whatever the laboratory: one training seed or many, another number in each family, arms that are
missing. Each function gives a heading sentence and at most three sentences or a list; `closing` answers the whole.
"""

import pandas as pd

from clinical_r1.arms import LABORATORY, REFERENCE
from clinical_r1.findings.laboratory_fronts import (
    all_objectives,
    covered,
    front_of,
    fronts,
    hypervolume,
    travel,
)
from clinical_r1.findings.laboratory_rows import (
    COUNTS,
    all_named,
    compared,
    detectable,
    difference,
    differences,
    family,
    found,
    in_brackets,
    moves,
    outcome,
    sizes,
    tested,
    undecided,
)
from clinical_r1.findings.laboratory_shares import calculations, owners, owners_by_aggregator
from clinical_r1.findings.wording import (
    arm,
    bullets,
    capital,
    counted,
    finding,
    from_to,
    level,
    listed,
    measure,
    most,
    named,
    p_value,
    places,
    seeds_of,
    sentences,
    size,
    untested,
    verb,
    written,
)
from clinical_r1.laboratory.records import weight_of_accuracy
from clinical_r1.tables import whole

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
    if standing.empty:
        return finding("No arm of this laboratory has answers")
    arms, questions = standing["arms"].sum(), size([standing["questions"].max()], [])
    by_seeds = {
        ends: [family(name) for name in own["family"]]
        for ends, own in standing.groupby(["seeds", "most_seeds"], sort=False)
    }
    how = f"{seeds_of(*next(iter(by_seeds)))} each"
    if len(by_seeds) > 1:
        told = [f"{from_to(ends, whole)} in {listed(names)}" for ends, names in by_seeds.items()]
        how = f"training seeds by family: {'; '.join(told)}"
    missing = [arm(name) for name in LABORATORY if name not in set(" ".join(standing["names"]).split())]
    said = sentences(f"Not in this summary: {listed(missing)}." if missing else "", _origin(standing.iloc[0]))
    return finding(f"{counted(arms, 'arm')} on {questions}: {how}", said)


def _origin(row):
    code, steps, shared = (
        "" if row[name] != row[name] else str(row[name]) for name in ("code", "rl_steps", "shared_prefix")
    )
    if not code:
        return (
            "The summary has no record of the code that trained its arms, because it is older than that record: their rewards, "
            "their clinic and their forward pass may be other than today's ([changelog](../CHANGELOG.md))."
        )
    how = {"True": ", with shared prompts in the forward pass", "False": ", with TRL's own forward pass"}.get(
        shared, ""
    )
    trained = f"; {steps} step{'s' * (steps != '1')} of reinforcement learning{how}" if steps else ""
    return f"Summarised at commit `{code.split()[-1][:7]}`{trained}."


def attainable(honest, ideal, n):
    """What a scripted honest policy reaches, and what none can exceed. honest, ideal: {objective: value}; n questions."""
    false = "claims nothing false"
    if honest["hallucination"]:
        false = f"makes {_written(honest, 'hallucination')} false claims"
    return finding(
        f"an honest policy states {_written(honest, 'faithfulness')} true claims a response, rejects "
        f"{_written(honest, 'drc')} options and {false}",
        f"It answers {_written(honest, 'accuracy')} % of the {counted(n, 'question')} right. At most "
        f"{_written(ideal, 'faithfulness')} true claims could be made, and {_written(ideal, 'drc')} options rejected, each "
        "objective by itself.",
    )


def _written(values, metric):
    return written(values[metric], places(metric))


# --- k


def k(table, tests):
    """What the weight of accuracy buys. table: `comparisons.k_table`; tests: `comparisons.ablation_table` of the family k."""
    accuracy = _accuracy_of_k(tests)
    if accuracy.empty:
        return finding("No k is trained besides the reference's")
    own, others = _k_of(REFERENCE), accuracy[accuracy["k"] > 0]
    zero = accuracy[accuracy["k"] == 0]
    said = [_level(table, others), _talk(table, tests)]
    if len(zero):
        row = next(zero.itertuples())
        share = level(row.value, row.ci_low, row.ci_high, places("accuracy"), " %")
        said.append(
            f"Without accuracy in the reward, k = 0, {share} of the answers are right, {_told(row, own)}."
        )
    return finding(_k_heading(others if len(others) else zero, own), sentences(*said))


def k_sentence(table, tests):
    """One sentence about k from 1 on, for a page's list; as `k`."""
    accuracy = _accuracy_of_k(tests)
    above = "" if accuracy.empty else " above 0"
    accuracy = accuracy[accuracy["k"] > 0]
    if accuracy.empty:
        return f"No k{above} is trained besides the reference's."
    heading = _k_heading(accuracy, _k_of(REFERENCE))
    power = in_brackets(detectable(undecided(accuracy), ["accuracy"]))
    growth = _growth(table)
    return f"{capital(heading)}{power}{'; ' * bool(growth)}{growth} ({sizes(accuracy)})."


def _k_of(arm):
    return f"{weight_of_accuracy(arm):g}"


def _accuracy_of_k(tests):
    rows = compared(tests[tests["metric"] == "accuracy"])
    return rows.assign(k=[weight_of_accuracy(arm) for arm in rows["arm"]]).sort_values("k")


def _k_heading(rows, own):
    """Whether accuracy differs from the reference's, over the k of these rows."""
    if tested(rows).empty:
        return (
            f"Accuracy at k = {listed(map(_number, rows['k']))} beside k = {own}: {untested(rows['seeds'])}"
        )
    parts, there = [], found(rows)
    for words, which in (("higher", there["difference"] > 0), ("lower", there["difference"] < 0)):
        if which.any():
            parts.append(f"{words} at k = {listed(map(_number, there.loc[which, 'k']))}")
    same, left = undecided(rows)["k"], rows.loc[rows["p_holm"].isna(), "k"]
    rest = f"; not tested at k = {listed(map(_number, left))}" if len(left) else ""
    if not parts:
        return f"No difference in accuracy found between k = {own} and k = {listed(map(_number, same), 'or')}{rest}"
    rest = f"; no difference found at k = {listed(map(_number, same), 'or')}{rest}" if len(same) else rest
    return f"Accuracy is {' and '.join(parts)} than at k = {own}{rest}"


def _number(value):
    return f"{value:g}"


def _level(table, others):
    """Between which values accuracy lies from the least k above 0, and what would have been found."""
    if others.empty:
        return ""
    own = table[(table["metric"] == "accuracy") & (table["k"] > 0)]
    level_of = from_to(own["value"], places("accuracy"))
    level_of = f"lie between {level_of.replace(' to ', ' and ')}" if " to " in level_of else f"are {level_of}"
    which = f"from k = {_number(own['k'].min())} to {_number(own['k'].max())}"
    power = detectable(undecided(others), ["accuracy"])
    power = f"; {power}" if power else ""
    return f"Means {level_of} % {which} ({sizes(others)}){power}."


def _ends(table):
    """(arm, arm): the least k above 0 and the reference; with the largest k where the reference is the least, or missing.

    () of fewer than two arms above 0.
    """
    arms = list(dict.fromkeys(table[table["k"] > 0].sort_values("k")["arm"]))
    last = REFERENCE if REFERENCE in arms[1:] else arms[-1:] and arms[-1]
    return (arms[0], last) if len(arms) > 1 else ()


def _growth(table):
    """ "from k = 1 to 10 tokens a response go from 18 to 29, true claims from 1.00 to 1.75, ..."; "" of fewer than two k."""
    ends = _ends(table)
    if not ends:
        return ""
    first, last = (table[table["arm"] == arm].set_index("metric")["value"] for arm in ends)
    metrics = [metric for metric in ("tokens", *COUNTS) if metric in first and metric in last]
    parts = [
        f"{'tokens a response go' if m == 'tokens' else measure(m)} from {_written(first, m)} to {_written(last, m)}"
        for m in metrics
    ]
    return f"from k = {_k_of(ends[0])} to {_k_of(ends[1])} {listed(parts)}"


def _talk(table, tests):
    """What is said at either end, and which of it differs."""
    text = capital(_growth(table))
    rows = compared(tests[tests["arm"].isin(_ends(table)) & tests["metric"].isin(COUNTS)])
    if tested(rows).empty or not text:
        return text and f"{text}."
    there, open_ = found(rows)["metric"], undecided(rows)
    parts = [f"a difference is found in {listed(map(measure, there))}"] if len(there) else []
    if len(open_):
        what = listed(map(measure, open_["metric"]), "or")
        parts.append(f"no difference found in {what}{in_brackets(detectable(open_))}")
    return f"{text}: {'; '.join(parts)}."


def _told(row, own):
    """A difference against k = own with its interval, and whether it is found; if not, what would have been."""
    text, one = f"{difference(row)} against k = {own}", pd.DataFrame([row])
    if tested(one).empty:
        return f"{text} ({untested(one['seeds'])})"
    if len(found(one)):
        return f"{text}, {p_value(row.p_holm)}"
    return f"{text}, no difference found{in_brackets(detectable(one))}"


def coverage(table):
    """How many answers parse. table: `comparisons.coverage_table`."""
    if table.empty:
        return finding("No answers are counted for any k")
    zero = table[table["k"] == 0].sort_values("seed")
    rest = table[table["k"] > 0]
    shares = rest["coverage"]
    between = ""
    if len(rest):
        between = f"{from_to(100 * shares, 1)} % at every k above 0 and every seed"
    if zero.empty:
        return finding(f"Answers that parse: {between}")
    seeds = "seed" if len(zero) == 1 else "seeds"
    heading = (
        f"Without accuracy in the reward {listed(written(100 * share, 1) for share in zero['coverage'])} % of the answers parse "
        f"({seeds} {listed(zero['seed'])})"
    )
    n = int(table["n"].max())
    return finding(heading, f"{between}; {counted(n, 'question')} each." if between else "")


# --- arms against their reference


def other_choices(ablations):
    """Which arms differ from their reference. ablations: rows of `comparisons.ablation_table`, several families."""
    rows = compared(ablations)
    arms = rows.drop_duplicates(["family", "arm"])
    if rows.empty:
        return finding("No arm is trained beside a reference")
    judged = tested(rows).drop_duplicates(["family", "arm"])
    if judged.empty:
        count = f"{counted(len(arms), 'arm')} beside {verb(len(arms), 'its reference', 'their references')}"
        return finding(f"{count}: {untested(rows['seeds'])}", f"{_seeds_by_family(rows)}.")
    differ = found(rows).drop_duplicates(["family", "arm"])
    differs = verb(len(differ) or len(judged), "differs from its", "differ from their")
    heading = (
        f"{len(differ)} of {counted(len(judged), 'arm')} {differs} reference "
        "in accuracy or claims, after Holm's correction"
    )
    same = judged.merge(differ[["family", "arm"]], how="left", indicator=True).query("_merge == 'left_only'")
    power = detectable(undecided(rows))
    last = [f"No difference found in {all_named(same['label'])}." if len(same) else "", _sentence(power)]
    last.append(_left_out(arms, judged))
    return finding(
        heading, bullets(map(capital, moves(rows))), sentences(*last, f"{_seeds_by_family(rows)}.")
    )


def _left_out(arms, judged):
    """Which families are not tested, and which arms of the others, with the reason; "" where all are."""
    left = arms.merge(judged[["family", "arm"]], how="left", indicator=True).query("_merge == 'left_only'")
    whole_family = ~left["family"].isin(judged["family"])
    names = [family(name) for name in dict.fromkeys(left.loc[whole_family, "family"])]
    names += [named(label) for label in dict.fromkeys(left.loc[~whole_family, "label"])]
    why = untested(left["seeds"]).split(", ")[0]
    return f"Not tested, {why}: {listed(names)}." if names else ""


def _sentence(phrase):
    return f"{capital(phrase)}." if phrase else ""


def _seeds_by_family(rows):
    """ "Training seeds: 8 in weight k and terms; 5 in KL"."""
    names = {}
    for name, own in rows.groupby("family", sort=False):
        names.setdefault(from_to(own["seeds"], whole), []).append(family(name))
    if len(names) == 1:
        return f"Training seeds: {next(iter(names))}"
    return "Training seeds: " + "; ".join(f"{seeds} in {listed(own)}" for seeds, own in names.items())


def prompt_or_reward(table):
    """Whether the prompt or the reward makes the difference. table: `comparisons.prompt_and_reward`; empty where arms lack."""
    if table.empty:
        return finding("Prompt and reward were not trained both ways")
    judged = tested(table)
    if judged.empty:
        return finding(
            f"Prompt and reward, trained both ways: {untested(table['seeds'])}", f"{sizes(table)}."
        )
    effects = {effect: own for effect, own in table.groupby("effect", sort=False)}
    told = [f"{name}: {differences(found(own))}" for name, own in effects.items() if len(found(own))]
    heading = (
        "; ".join(told)
        or f"No difference found for {all_named(effects, 'or')}, in {counted(len(judged), 'test')}"
    )
    same = len(undecided(table))
    rest = (
        f"{same} of {counted(len(judged), 'test')} {verb(same, 'finds', 'find')} no difference."
        if told
        else ""
    )
    return finding(heading, sentences(rest, _sentence(detectable(undecided(table))), f"{sizes(table)}."))


def aggregators(rows):
    """Which aggregators differ from the plain sum. rows: those of the family in `comparisons.ablation_table`."""
    rows = compared(rows)
    if rows.empty:
        return finding("No other aggregator is trained")
    count = rows["arm"].nunique()
    if tested(rows).empty:
        beside = f"{counted(count, 'aggregator')} beside the normalised sum"
        return finding(f"{beside}: {untested(rows['seeds'])}", f"{sizes(rows)}.")
    accuracy = rows[rows["metric"] == "accuracy"]
    count = tested(accuracy)["arm"].nunique()
    none = verb(count, "The one aggregator is not", f"None of {count} aggregators is")
    better = found(accuracy)[found(accuracy)["difference"] > 0]
    heading = (
        f"{all_named(better['label'])} {'is' if len(better) == 1 else 'are'} more accurate than the normalised sum"
        if len(better)
        else f"{none} found to be more accurate than the normalised sum"
    )
    told = [capital(phrase) for phrase in moves(rows) if not phrase.startswith("more accurate")]
    power = _sentence(detectable(undecided(accuracy), ["accuracy"]))
    return finding(heading, bullets(told), sentences(power, f"{sizes(rows)}."))


# --- the whole


def cost(seconds):
    """How long an arm trains. seconds: `comparisons.seconds_per_arm`."""
    if seconds.empty:
        return finding("No training time is recorded")
    slow, fast, middle = seconds.iloc[0], seconds.iloc[-1], seconds["seconds"].median()
    heading = f"An arm trains for {counted(round(middle), 'second')} on the median"
    if len(seconds) < 2:
        return finding(heading, f"It is the time of {named(slow['label'])} alone.")
    ratio = slow["against_reference"]
    beside = f" ({ratio:.1f} times {arm(REFERENCE)})" if ratio > 1 else ""
    return finding(
        heading,
        f"The slowest, {named(slow['label'])}, takes {counted(round(slow['seconds']), 'second')}{beside}; "
        f"the fastest, {named(fast['label'])}, {fast['seconds']:.0f}.",
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
        told = [f"{named(label)}: {outcome(rows)}" for label, rows in own.groupby("label", sort=False)]
        if told:
            lines.append(f"**{name}**. {'. '.join(told)} ({sizes(own)}).")
    return bullets([*lines, _all_together(volumes)])


def _all_together(volumes):
    """How much of an honest policy's volume the best arms cover; "" without any arm."""
    arms = volumes[(volumes["kind"] == "arm") & volumes["volume"].notna()]
    if arms.empty:
        return ""
    if not (arms["volume"] > 0).any():
        return "**All together**. No arm covers any of the volume that an honest policy does."
    best, own = arms.loc[most(arms["volume"])], arms[arms["name"] == REFERENCE]
    covers = f"{all_named(best['label'])} {verb(len(best), 'covers', 'cover')} {covered(best.iloc[0])}"
    beside = (
        f", {arm(REFERENCE)} {covered(own.iloc[0])}"
        if len(own) and REFERENCE not in set(best["name"])
        else ""
    )
    left = "; none of these rewards buys the rest" if best["share"].iloc[0] < 1 else ""
    return f"**All together**. {covers} of the volume that an honest policy does{beside}{left}."
