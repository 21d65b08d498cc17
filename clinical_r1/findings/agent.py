"""What the tables of agents say, a finding a section: frames in, markdown out, for notebook 07.

Every number is the frame's, whatever came out: better, worse, a tie, one training seed, arms or settings that are missing. A
table that is None was not measured, and the finding says so. `answer` answers the title's question from all of them.
"""

import pandas as pd

from clinical_r1.agent.records import BUDGETS, SETTINGS, START
from clinical_r1.agent.tables import POLICY_LABELS, SEEDS_ONLY, TESTED
from clinical_r1.findings.agent_credit import MADE_BY, by_hand, credit, density, gamma, not_measured, rows_of
from clinical_r1.findings.claims import LEVEL
from clinical_r1.findings.wording import (
    ONE_SEED,
    bullets,
    change,
    counted,
    finding,
    from_to,
    level,
    listed,
    plain,
    seeds_of,
    sentences,
    size,
    untested,
    verb,
    would_have,
    written,
)
from clinical_r1.tables import whole

__all__ = [
    "answer",
    "arms",
    "behind",
    "by_hand",
    "closure",
    "comparison",
    "credit",
    "density",
    "front",
    "gamma",
    "learning",
    "references",
    "story",
]

# measure -> (what a difference in it is counted in, digits)
COUNTED = {
    "right": ("points of accuracy", 1),
    "reward": ("of return", 3),
    "tests": ("tests", 2),
    "gain": ("bits of information", 2),
}
NAMES = {"right": "accuracy", "reward": "return", "tests": "tests", "gain": "information gain"}
AT_ONCE = 1.5  # mean turns, below which more than half of all consultations are a diagnosis at once


# ---------------------------------------------------------------------------------------------------------- what there is


def behind(summary) -> str:
    """How much stands behind the numbers. summary: `records.AgentSummary`."""
    held, said = summary.consultations, []
    if held is None:
        return not_measured("agents that were trained")
    for setting in [*SETTINGS, *sorted(set(held["setting"]) - set(SETTINGS))]:
        own = held[(held["setting"] == setting) & (held["arm"] != START)]
        if own.empty:
            continue
        seeds = own.groupby("arm")["seed"].nunique()
        about = f" ({SETTINGS[setting]})" if setting in SETTINGS else ""
        extent = size([own["patient"].nunique()], sorted(set(seeds)), "test patients")
        said.append(f"`{plain(setting)}`{about}: {counted(len(seeds), 'arm')}, {extent}")
    if not said:
        return not_measured("agents that were trained")
    missing = [f"`{name}`" for name in ("main", "closure", "cured") if name not in set(held["setting"])]
    git = (summary.record or {}).get("git", {})
    code = f"Summarised at commit `{git['sha'][:7]}`." if git.get("sha") else "The summary names no commit."
    lacks = (
        f"Not in this summary: the {verb(len(missing), 'setting', 'settings')} {listed(missing)}."
        if missing
        else ""
    )
    number = len(said)
    return finding(
        f"{counted(len(held), 'consultation')} with test patients, in {counted(number, 'setting')}",
        bullets(f"{line}." for line in said),
        sentences(lacks, code),
    )


def references(lines) -> str:
    """What policies reach that nobody trained. lines: `tables.reference_lines`, or None."""
    own = None if lines is None else lines[lines["measure"] == "right"].set_index("policy")
    if own is None or own.empty:
        return not_measured("reference policies")
    told = {name: _right(own.loc[name]) for name in POLICY_LABELS if name in own.index}
    words = {
        "guess": "guessing",
        "random_inquiry": "random inquiry",
        "greedy": "greedy inquiry",
        "expert": "the expert",
    }
    ends = [name for name in ("guess", "expert") if name in told] or list(told)[:1]
    heading = listed(f"{words[name]} is right in {told[name]}" for name in ends) + " of consultations"
    rest = [f"{words[name]} in {told[name]}" for name in told if name not in ends]
    room = ""
    if {"guess", "expert"} <= set(told):
        points = own.loc["expert", "value"] - own.loc["guess", "value"]
        room = f"So an agent can gain at most {written(points, 1)} points over guessing."
        if points <= 0:
            room = "So inquiring is worth nothing here, and an agent has nothing to gain over guessing."
    between = f"{listed(rest).capitalize()}." if rest else ""
    return finding(heading, sentences(between, room, f"n = {whole(own['n'].max())} patients."))


def _right(row) -> str:
    return level(row["value"], row["ci_low"], row["ci_high"], 1, " %")


def learning(ends) -> str:
    """How accuracy moves over training. ends: rows of one setting of `tables.training_ends`, or None."""
    if ends is None or ends.empty:
        return not_measured("learning curves")
    own = ends[ends["measure"] == "right"]
    inquiries = ends[ends["measure"] == "inquiries"].set_index("arm")
    lines = []
    for row in rows_of(own):
        asked = ""
        if row["arm"] in inquiries.index:
            asked = f"; inquiries {_then(inquiries.loc[row['arm']])}"
        lines.append(f"{plain(row['label'])}: {_then(row, ' %')}{asked}.")
    up, n = int((own["last"] > own["first"]).sum()), len(own)
    how = "all" if up == n else str(up) if up else "none"
    heading = f"accuracy is higher in the last tenth of training than in the first with {how} of {counted(n, 'arm')}"
    if n == 1:
        heading = f"accuracy is {'' if up else 'not '}higher in the last tenth of training than in the first"
    return finding(heading, bullets(lines), f"Patients of training, {_over(own['seeds'])}.")


def _then(row, unit="") -> str:
    """ "43.9 % [43.5, 44.2], then 62.5 % [62.2, 62.8]": the first and the last tenth of training."""
    parts = [level(row[part], row[f"{part}_low"], row[f"{part}_high"], 1, unit) for part in ("first", "last")]
    return ", then ".join(parts)


def _over(seeds) -> str:
    several = max(seeds) > 1
    return (
        f"{seeds_of(*seeds)}; {f'95 % intervals are {SEEDS_ONLY}' if several else 'one seed has no interval'}"
    )


# ------------------------------------------------------------------------------------------------------------- comparison


def arms(table) -> str:
    """How right the arms are, and what they gain over the start. table: `tables.arms_table`, or None."""
    own = None if table is None else table[(table["measure"] == "right") & (table["arm"] != START)]
    if own is None or own.empty:
        return not_measured("trained arms on test patients")
    start = table[(table["measure"] == "right") & (table["arm"] == START)]
    lines = []
    for _, row in own.iterrows():
        over = change(row["gain"], row["gain_low"], row["gain_high"], 1, " points over the start")
        lines.append(
            f"{plain(row['label'])}: {_right(row)}" + (f", {over}." if pd.notna(row["gain"]) else ".")
        )
    extent = f"n = {size(own['n'], own['seeds'], 'test patients')}; 95 % intervals."
    if start.empty or own["gain"].isna().all():
        return finding("accuracy on test patients; the start was not measured", bullets(lines), extent)
    up, down, n = int((own["gain_low"] > 0).sum()), int((own["gain_high"] < 0).sum()), len(own)
    heading = f"arms more accurate than the start: {up} of {n}{f'; less accurate: {down}' if down else ''}"
    begun = f"The start is right in {_right(start.iloc[0])} of consultations."
    return finding(
        f"{heading} (intervals that leave out 0, not corrected)", bullets(lines), f"{begun} {extent}"
    )


def comparison(table) -> str:
    """What an arm does that GRPO does not. table: `tables.both_budgets` of `comparison_table`, or None."""
    if table is None or table.empty:
        return not_measured("a comparison with GRPO, which takes GRPO and another arm")
    heading, lines = _verdict(table), []
    for budget in [name for name in BUDGETS if name in set(table["budget"])]:
        rows = table[(table["budget"] == budget) & table["measure"].isin(TESTED)]
        lines += [f"{BUDGETS[budget].capitalize()}, {said}." for said in _outcomes(rows)]
    missing = [words for name, words in BUDGETS.items() if name not in set(table["budget"])]
    lacks = f"Not measured: {listed(missing)}." if missing else ""
    primary = table[table["measure"].isin(TESTED)]
    extent = f"Paired, n = {size(primary['n'], primary['seeds'], 'test patients')}."
    holm = f"Holm over {from_to(primary['tests'], 0)} tests a budget." if primary["tests"].max() > 0 else ""
    return finding(heading, bullets(lines), sentences(lacks, extent, holm))


def _outcomes(rows):
    """A phrase for each arm: what is found against GRPO, what is not, and what would have been."""
    for label, own in rows.groupby("label", sort=False):
        tested, said = own[own["p_holm"].notna()], []
        if tested.empty:
            yield f"{plain(label)}: {listed(map(_change, rows_of(own)))} ({untested(own['seeds'])})"
            continue
        found, other = tested[tested["p_holm"] < LEVEL], tested[~(tested["p_holm"] < LEVEL)]
        if len(found):
            said.append(listed(map(_change, rows_of(found))))
        if len(other):
            what = listed((NAMES[name] for name in other["measure"]), "or")
            said.append(f"no difference found in {what}{_brackets(_detectable(other))}")
        yield f"{plain(label)}: {'; '.join(said)}"


def _change(row) -> str:
    unit, digits = COUNTED[row["measure"]]
    return change(row["difference"], row["difference_low"], row["difference_high"], digits, f" {unit}")


def _detectable(rows) -> str:
    parts = []
    for row in rows_of(rows[rows["mde_holm"].notna()]):
        unit, digits = COUNTED[row["measure"]]
        beyond = row["measure"] == "right" and row["mde_holm"] > 100
        parts.append(f"{'over 100' if beyond else written(row['mde_holm'], digits)} {unit}")
    return would_have(listed(parts, "or"))


def _brackets(text) -> str:
    return f" ({text})" if text else ""


def _verdict(table) -> str:
    """In accuracy, under each budget that was measured."""
    own = table[table["measure"] == "right"]
    if own["p_holm"].isna().all():
        reason = ONE_SEED if own["seeds"].max() == 1 else untested(own["seeds"])
        return f"whether any arm differs from GRPO in accuracy is open: {reason}"
    return "; ".join(_under(own[own["budget"] == budget], words) for budget, words in _budgets(own))


def _budgets(rows) -> list[tuple[str, str]]:
    return [(name, words) for name, words in BUDGETS.items() if name in set(rows["budget"])]


def _under(rows, words) -> str:
    parts = [
        f"{listed(map(plain, labels))} {verb(len(labels), 'is', 'are')} {word} accurate than GRPO"
        for word, labels in zip(("more", "less"), better_and_worse(rows), strict=True)
        if labels
    ]
    if parts:
        return f"{listed(parts)}, at {words}"
    return f"no difference from GRPO is found in accuracy, at {words}{_brackets(_largest(rows))}"


def better_and_worse(rows) -> tuple[list[str], list[str]]:
    """Labels of the arms whose accuracy is found above, and below, GRPO's. rows: accuracy under one budget."""
    found = rows[rows["p_holm"] < LEVEL]
    return tuple(list(found.loc[sign * found["difference"] > 0, "label"]) for sign in (1, -1))


def _largest(rows) -> str:
    """What each of these comparisons would have found at least."""
    sizes = rows["mde_holm"].dropna()
    if sizes.empty:
        return ""
    return would_have(f"{'over 100' if sizes.max() > 100 else written(sizes.max(), 1)} points")


# ------------------------------------------------------------------------------------------------- premature closure, front


def closure(ends) -> str:
    """Does training teach to stop inquiring, and does the schedule of costs cure it? ends: `tables.training_ends`, or None."""
    turns = (
        None
        if ends is None
        else ends[(ends["measure"] == "turns") & ends["setting"].isin(["closure", "cured"])]
    )
    if turns is None or turns.empty:
        return not_measured("premature closure and its cure")
    right = ends[ends["measure"] == "right"].set_index(["setting", "arm"])
    heads, lines = [], []
    for setting, words in (("closure", "with priced inquiries"), ("cured", "with prices that rise late")):
        own = turns[turns["setting"] == setting]
        if own.empty:
            heads.append(f"not measured {words}")
            continue
        fell, n = int((own["last"] < AT_ONCE).sum()), len(own)
        heads.append(f"{fell} of {n} {words}")
        for row in rows_of(own):
            said = f"{words}, {plain(row['label'])}: turns {_then(row)}"
            if (setting, row["arm"]) in right.index:
                said += f"; accuracy {_then(right.loc[(setting, row['arm'])], ' %')}"
            lines.append(f"{said[0].upper()}{said[1:]}.")
    heading = f"arms that end with a diagnosis at once: {', '.join(heads)}"
    rule = f"First and last tenth of training; at once: fewer than {AT_ONCE:g} turns on average."
    return finding(
        heading,
        bullets(lines),
        f"{rule} {_over(turns['seeds'])[0].upper()}{_over(turns['seeds'])[1:]}.",
    )


def front(table) -> str:
    """Which arms no other beats in accuracy and in tests at once. table: `tables.front_table`, or None."""
    if table is None:
        return not_measured("accuracy against tests ordered")
    own = table[table["kind"] == "arm"]
    on = own[own["on_front"].astype(bool)].sort_values("spent")
    told = [f"{plain(row['label'])} ({written(100 * row['frequency'], 0)} % of draws)" for row in rows_of(on)]
    lines = [
        f"{plain(row['label'])}: {_right_of(row)} with {level(row['spent'], row['spent_low'], row['spent_high'], 2)} tests; "
        f"covers {level(row['volume'], row['volume_low'], row['volume_high'], 1, ' %')} of the box."
        for row in rows_of(own)
    ]
    whole_front = table[table["kind"] == "front"].iloc[0]
    volume = level(whole_front["volume"], whole_front["volume_low"], whole_front["volume_high"], 1, " %")
    trained = own[own["name"] != START]
    extent = f"n = {size(own['n'], trained['seeds'], 'test patients')}; draws and volumes: bootstrap over patients and seeds."
    heading = f"on the front of accuracy against tests {verb(len(on), 'is', 'are')} {listed(told)}"
    return finding(heading, bullets(lines), f"All arms together cover {volume}. {extent}")


def _right_of(row) -> str:
    return level(row["right"], row["right_low"], row["right_high"], 1, " %")


# ---------------------------------------------------------------------------------------------------------------- the end


def answer(table, rows=None, frame=None, ends=None) -> str:
    """What should a turn be credited with? table: as for `comparison`; rows: `credit`; frame: `density`; ends: `closure`."""
    scope = "All of it holds for the synthetic clinic, its small model and these settings only."
    lines = [
        _short("In training", None if table is None else comparison(table)),
        _short("Against the truth", None if rows is None else credit(rows)),
        _short("What the world allows", None if frame is None else density(frame)),
        _short("Premature closure", None if ends is None else closure(ends)),
    ]
    return finding(_answered(table), bullets(lines), f"{scope} {REACHED if table is not None else MADE_BY}")


REACHED = "A tie is a result: beside it stands the smallest difference that would have been found."


def _short(what, text) -> str:
    """The heading of a finding as one line."""
    said = "not measured yet" if text is None else text.split("\n")[0].removeprefix("### ")
    return f"**{what}**: {said}."


def _answered(table) -> str:
    if table is None or table.empty:
        return "what a turn should be credited with was not measured yet"
    own = table[table["measure"] == "right"]
    if own["p_holm"].isna().all():
        reason = ONE_SEED if own["seeds"].max() == 1 else untested(own["seeds"])
        return f"what a turn should be credited with is open: {reason}"
    by_budget = [(words, better_and_worse(own[own["budget"] == name])) for name, words in _budgets(own)]
    better = [(words, names) for words, (names, _) in by_budget if names]
    worse = list(dict.fromkeys(name for _, (_, names) in by_budget for name in names))
    below = (
        f"{listed(map(plain, worse))} {verb(len(worse), 'is', 'are')} found to diagnose worse"
        if worse
        else ""
    )
    if not better:
        tie = "a turn may be credited with the whole consultation's return: no finer credit is found to diagnose better"
        return tie + (f", and {below}" if below else "")
    parts = [
        f"as {listed(map(plain, names))} {verb(len(names), 'does', 'do')} at {words}"
        for words, names in better
    ]
    other = [words for words, (names, _) in by_budget if not names]
    said = f"a turn should be credited {listed(parts)}: more right diagnoses than with GRPO"
    return said + (f"; at {listed(other)} none is found" if other else "") + (f"; {below}" if below else "")


def story(rows, gold: str) -> str:
    """How one consultation went. rows: as for `plots.consultation_story`; gold: the patient's diagnosis."""
    first, last = rows[0][2], rows[-1][2]
    best = max(first, key=first.get)
    heading = f"after the complaint {plain(best)} is likeliest, with {written(first[best], 2)}"
    if len(rows) > 1:
        end = max(last, key=last.get)
        heading += f"; at the end {'still ' if end == best else ''}{plain(end)}, with {written(last[end], 2)}"
    moves = [abs(after[2][gold] - before[2][gold]) for before, after in zip(rows, rows[1:], strict=False)]
    told = ""
    if moves and max(moves) > 0:
        turn = moves.index(max(moves)) + 1
        before, after = rows[turn - 1][2][gold], rows[turn][2][gold]
        told = f"Turn {turn} moves its probability most: {written(before, 2)} becomes {written(after, 2)}."
    return finding(
        heading, sentences(f"The patient has {plain(gold)}.", told, "n = 1 patient, drawn by a seed.")
    )
