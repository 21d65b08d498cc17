"""What the comparisons of notebook 04 found, as a heading and sentences, for any run: one seed or ten, arms that are missing.

    more_accurate, as_accurate, richer(frame, pair)    frame: `tables.compare_arms`, None where an arm was not run
    compared(frame)                                    the same for arms and models that a reader brings
    longer(extra, frames)                              is it just longer?

Other sections: `observed`, `training`; how the notebooks end: `endings`.

Pure: frames in, markdown out, every number from the frame. A difference counts as found by the rule of `claims.verdict`.
With one training seed nothing is tested, and the text says so.
"""

from collections.abc import Mapping

import numpy as np
import pandas as pd

from clinical_r1.findings import claims
from clinical_r1.findings.claims import (
    CONTRADICTED,
    HIGHER,
    LOWER,
    MARGINS,
    NO_LOWER,
    PLAIN,
    SUPPORTED,
)
from clinical_r1.findings.wording import (
    arm,
    benchmark,
    bullets,
    change,
    finding,
    level,
    listed,
    measure,
    p_value,
    places,
    size,
    untested,
    verb,
    would_have,
    written,
)
from clinical_r1.metrics import (
    COMPARED_COLUMNS,
    LOWER_IS_BETTER,
    PRIMARY,
    PRIMARY_METRICS,
    PROCESS_METRICS,
)

FIRST_PAIR = claims.PAIRS["cold start and CRPO against baseline"]
UNTESTED, WITHIN, OPEN = "not tested", "within the margin", "no difference found"
EXCLUDED = "no difference found, and one as large as the margin excluded either way: "

# ------------------------------------------------------------------------------------------------- one row of a comparison


def pair_of(frame: pd.DataFrame) -> tuple[str, str]:
    """(method, against) of a comparison: the two columns that are no others. ValueError unless there are two."""
    names = [name for name in frame.columns if name not in COMPARED_COLUMNS]
    if len(names) != 2:
        raise ValueError(
            f"a comparison holds the methods {names}; expected two: pass metrics.compare's frame."
        )
    return names[0], names[1]


def outcome(row: Mapping) -> str:
    """HIGHER or LOWER where the test finds it, WITHIN where the interval excludes the margin either way, or OPEN, UNTESTED."""
    if pd.isna(row["p_holm"]):
        return UNTESTED
    numbers = [row[name] for name in ("difference", "ci_low", "ci_high", "p_holm", "seeds")]
    up, down = (claims.verdict(way, *numbers, MARGINS.get(row["metric"]))[0] for way in (HIGHER, LOWER))
    if up == SUPPORTED or down == SUPPORTED:
        return HIGHER if up == SUPPORTED else LOWER
    return WITHIN if up == down == CONTRADICTED else OPEN


def in_favour(row: Mapping) -> bool:
    """Whether a difference speaks for the first arm as the paper counts: more of everything, and fewer false claims."""
    return (row["difference"] > 0) != (row["metric"] in LOWER_IS_BETTER)


def shown(row: Mapping, detail: bool = True) -> str:
    """ "+0.17 [0.10, 0.24], p < .001"; where nothing is found, the smallest difference that would have been."""
    found, metric = outcome(row), row["metric"]
    digits = places(metric, row["difference"] if found in (HIGHER, LOWER) else 1.0)
    unit = " points" if metric == "accuracy" else ""
    text = change(row["difference"], row["ci_low"], row["ci_high"], digits, unit)
    if found in (HIGHER, LOWER):
        text += f", {p_value(row['p_holm'])}"
    if found == OPEN and detail:
        text += f"; {_detectable(row, unit)}"
    return text


def _detectable(row, unit) -> str:
    """The smallest difference that would have been found; where nothing varies, that it is not known."""
    if pd.isna(row["mde_holm"]):
        return "nothing varies, so what would have been found is not known"
    return would_have(written(row["mde_holm"], places(row["metric"], row["mde_holm"])) + unit)


def _by_outcome(rows, key=outcome):
    groups = {}
    for row in rows:
        groups.setdefault(key(row), []).append(row)
    return groups


def _sets(rows) -> str:
    """ "`clinic` (+34.0 points) and `clinic-shift` (+31.3 points)"."""
    return listed(
        f"{benchmark(row['benchmark'])} ({change(row['difference'], np.nan, np.nan, 1, ' points')})"
        for row in rows
    )


def _not_asked(pair) -> str:
    return finding(f"not asked: this run does not have both {arm(pair[0])} and {arm(pair[1])}")


def _size(rows) -> str:
    """ "2,000 questions a set, 10 training seeds"."""
    return size((row["n"] for row in rows), [max(row["seeds"] for row in rows)], "questions a set")


def _why(rows) -> str:
    """Why rows have no p."""
    return untested(row["seeds"] for row in rows)


def _over(rows) -> str:
    """ "2,000 questions a set, 10 training seeds; 95 % intervals over questions and seeds"."""
    one = not max(row["seeds"] for row in rows) > 1
    over = "over questions, which say nothing of another training run" if one else "over questions and seeds"
    return f"{_size(rows)}; 95 % intervals {over}."


def _each_set(rows, pair) -> str:
    lines = [
        f"{benchmark(row['benchmark'])}: {' against '.join(written(row[name], 1) for name in pair)} %, {_found(row)}{shown(row)}."
        for row in rows
    ]
    return bullets(lines) + f"\n\n{_over(rows)}"


def _found(row) -> str:
    return {
        OPEN: "no difference found: ",
        UNTESTED: "not tested: " if row["seeds"] > 1 else "",
        WITHIN: f"less than {MARGINS['accuracy']:g} points apart either way: ",
    }.get(outcome(row), "")


# ------------------------------------------------------------------------------------------------------------ accuracy


def _accuracies(frame):
    return frame[frame["metric"] == "accuracy"].to_dict("records")


def more_accurate(frame: pd.DataFrame | None, pair: tuple[str, str] = FIRST_PAIR) -> str:
    """Is the first arm more accurate than the second? pair: their names, for a run that has not both (frame is None)."""
    if frame is None:
        return _not_asked(pair)
    pair, rows = pair_of(frame), _accuracies(frame)
    first, second = map(arm, pair)
    if not rows:
        return finding(f"no question has an answer of both {first} and {second}")
    groups = _by_outcome(rows)
    if list(groups) == [UNTESTED]:
        heading = f"accuracy of {first} minus {second}: {_sets(rows)}; {_why(rows)}"
        return finding(heading, _each_set(rows, pair))
    words = {
        HIGHER: (f"more accurate than {second}", ""),
        LOWER: (f"less accurate than {second}", ""),
        WITHIN: (f"less than {MARGINS['accuracy']:g} points from {second}", ""),
        OPEN: ("not found to differ" + (f" from {second}" if len(groups) == 1 else ""), ""),
        UNTESTED: ("not tested", ""),
    }
    parts = _parts(words, groups)
    return finding(f"{first} is {'; '.join(parts)}", _each_set(rows, pair))


def _parts(words, groups):
    """What is said of the sets of each outcome. words: outcome -> what stands before the sets, and after them."""
    return [
        f"{before} on {_sets(groups[name])}{after}"
        for name, (before, after) in words.items()
        if name in groups
    ]


def as_accurate(frame: pd.DataFrame | None, pair: tuple[str, str] = PLAIN) -> str:
    """Is the first arm at least as accurate as the second? Yes where the interval excludes a loss as large as the margin."""
    if frame is None:
        return _not_asked(pair)
    pair, rows = pair_of(frame), _accuracies(frame)
    first, second, margin = *map(arm, pair), MARGINS["accuracy"]
    if all(outcome(row) == UNTESTED for row in rows):
        return more_accurate(frame)
    words = {
        HIGHER: (f"more accurate than {second}", ""),
        SUPPORTED: (f"as accurate as {second}", f": a loss of {margin:g} points is excluded"),
        LOWER: (f"less accurate than {second}", f", by less than {margin:g} points"),
        CONTRADICTED: (f"less accurate than {second}", ""),
        OPEN: ("unsettled", f": no loss is found, and one of {margin:g} points is not excluded"),
        UNTESTED: ("not tested", ""),
    }
    groups = _by_outcome(rows, _no_loss)
    parts = _parts(words, groups)
    heading = f"{first} is {'; '.join(parts)}"
    if list(groups) == [OPEN]:
        heading = f"Whether {first} is as accurate as {second} stays {parts[0]}"
    return finding(heading, _each_set(rows, pair))


def _no_loss(row) -> str:
    """HIGHER; SUPPORTED: no loss of the margin; LOWER: a loss, and smaller than it; CONTRADICTED: a loss; OPEN; UNTESTED."""
    if outcome(row) in (HIGHER, UNTESTED):
        return outcome(row)
    numbers = [row[name] for name in ("difference", "ci_low", "ci_high", "p_holm", "seeds")]
    said = claims.verdict(NO_LOWER, *numbers, MARGINS["accuracy"])[0]
    if said == SUPPORTED:
        return LOWER if outcome(row) == LOWER else SUPPORTED
    return CONTRADICTED if said == CONTRADICTED else OPEN


# ------------------------------------------------------------------------------------------------------- all measures


def richer(frame: pd.DataFrame | None, pair: tuple[str, str] = PLAIN) -> str:
    """Which differences between two arms survive Holm's correction, in which direction; the primary ones by name."""
    if frame is None:
        return _not_asked(pair)
    pair, rows = pair_of(frame), frame.to_dict("records")
    names = f"{arm(pair[0])} against {arm(pair[1])}"
    if not any(row["metric"] in PROCESS_METRICS for row in rows):
        return finding(f"{names}: no judge has scored these answers, so only accuracy can be compared")
    primary = [row for row in rows if row["status"] == PRIMARY]
    others = [row for row in rows if row["status"] != PRIMARY]
    if all(outcome(row) == UNTESTED for row in rows):
        lines = [f"{_place(row)}: {shown(row)}." for row in primary or others]
        return finding(f"{names}: {_why(rows)}", bullets(lines), _over(rows))
    return finding(
        f"{names}: {_survivors(primary, others)}",
        bullets([*_primary_lines(primary), _exploratory_line(others)]),
        f"{_size(rows)}. *In favour*: more of a measure, or fewer false claims.",
    )


def compared(frame: pd.DataFrame) -> str:
    """`richer` where something was counted, otherwise `more_accurate`: for arms and models that a reader brings."""
    return (richer if set(frame["metric"]) & set(PROCESS_METRICS) else more_accurate)(frame)


def _place(row) -> str:
    return f"{measure(row['metric'])} on {benchmark(row['benchmark'])}"


def _surviving(rows):
    return [row for row in rows if outcome(row) in (HIGHER, LOWER)]


def _survivors(primary, others) -> str:
    """ "3 of 8 primary differences survive correction, 2 in its favour and 1 against it"."""
    rows, kind = (primary, "primary ") if primary else (others, "exploratory ")
    rows, others = _tested(rows), _tested(others)
    if not rows:
        return f"no primary difference is tested, and {len(_surviving(others))} of {len(others)} exploratory ones survive"
    found = _surviving(rows)
    if not found:
        more = len(_surviving(others)) if primary else 0
        if more:
            none = verb(
                len(rows),
                "the one primary difference does not survive",
                f"none of the {len(rows)} primary differences survives",
            )
            return f"{none} correction, and {more} of {len(others)} exploratory"
        count = len(rows) + (len(others) if primary else 0)
        return (
            verb(count, "the one difference does not survive", f"none of {count} differences survives")
            + " correction"
        )
    good = sum(map(in_favour, found))
    side = f"{good} in its favour and {len(found) - good} against it"
    if good in (0, len(found)):
        side = ("all " if good + len(found) > 1 + bool(good) else "") + (
            "in its favour" if good else "against it"
        )
    survive = verb(len(found), "survives", "survive")
    return f"{len(found)} of {len(rows)} {kind}difference{'s' * (len(rows) > 1)} {survive} correction, {side}"


def _tested(rows):
    return [row for row in rows if outcome(row) != UNTESTED]


def _primary_lines(rows):
    """One line for each outcome of the primary differences."""
    good, bad = "**in its favour**: ", "**against it**: "
    found = {good: [], bad: [], EXCLUDED: [], "no difference found: ": [], "not tested: ": []}
    for row in rows:
        kind = outcome(row)
        name = {WITHIN: EXCLUDED, OPEN: "no difference found: ", UNTESTED: "not tested: "}.get(kind)
        found[name or (good if in_favour(row) else bad)].append(f"{_place(row)} ({shown(row)})")
    return [name + "; ".join(items) + "." for name, items in found.items() if items]


def _exploratory_line(rows) -> str:
    if not rows:
        return ""
    found, rows = _by_outcome(_surviving(rows)), _tested(rows)
    if not rows:
        return ""
    count = sum(map(len, found.values()))
    said = [f"{count} of {len(rows)} {verb(count, 'survives', 'survive')}"]
    said += [
        f"{way}: " + ", ".join(f"{_place(row)} ({shown(row, detail=False)})" for row in found[way])
        for way in (HIGHER, LOWER)
        if way in found
    ]
    return f"exploratory: {'; '.join(said)}."


# ------------------------------------------------------------------------------------------------------------- length


def longer(extra: pd.DataFrame, *frames: pd.DataFrame | None) -> str:
    """Tokens a response, and counts per 100 tokens, of the arms of each comparison. extra: rows of `metrics.extra_rows`."""
    table = extra.set_index(["benchmark", "method", "metric"])
    pairs = [(pair_of(frame), frame) for frame in frames if frame is not None]
    lines = [
        line
        for pair, frame in pairs
        for line in (_lengths(table, pair, frame), _kept(table, pair, frame))
        if line
    ]
    if not lines:
        return finding("no two arms of known length to compare")
    (one, other), frame = pairs[0]
    heading = f"{arm(one)} against {arm(other)}: {_kept(table, (one, other), frame) or _none(frame)}"
    return finding(heading, bullets(f"{line}." for line in lines))


def _none(frame) -> str:
    """Why no difference can be asked whether it is just length."""
    rows = frame.to_dict("records")
    if not any(row["metric"] in PROCESS_METRICS for row in rows):
        return "only lengths are known, since no judge has counted anything"
    if all(outcome(row) == UNTESTED for row in rows):
        return _why(rows)
    return "no count is found to differ, so length has nothing to explain"


def _lengths(table, pair, frame) -> str:
    """Tokens, and the primary counts per 100 tokens, of the first arm and the second, on the first set; "" if unknown."""
    where = frame["benchmark"].iloc[0]
    if not all((where, name, "tokens") in table.index for name in pair):
        return ""
    rates = [
        f"{measure(metric)} {_both(table, where, pair, f'{metric}_per_100_tokens', 2)}"
        for metric in PRIMARY_METRICS
        if all((where, name, f"{metric}_per_100_tokens") in table.index for name in pair)
    ]
    tokens = f"{_both(table, where, pair, 'tokens', 1)} tokens"
    tail = f"; per 100 tokens {', '.join(rates)}" if rates else ""
    return f"{arm(pair[0])} and {arm(pair[1])} on {benchmark(where)}: {tokens}{tail}"


def _both(table, where, pair, metric, digits) -> str:
    rows = [table.loc[(where, name, metric)] for name in pair]
    return " and ".join(level(row["value"], row["ci_low"], row["ci_high"], digits) for row in rows)


def _kept(table, pair, frame) -> str:
    """Of the differences a response that are found, how many point the same way per 100 tokens; "" without any."""
    same = apart = equal = total = 0
    for row in frame.to_dict("records"):
        name = f"{row['metric']}_per_100_tokens"
        if outcome(row) in (HIGHER, LOWER) and all(
            (row["benchmark"], each, name) in table.index for each in pair
        ):
            one, other = (table.loc[(row["benchmark"], each, name)] for each in pair)
            one, other = (one, other) if row["difference"] > 0 else (other, one)
            total += 1
            which = f"{measure(row['metric'])} on {benchmark(row['benchmark'])}"
            same += bool(one["value"] > other["value"])
            equal += bool(one["value"] == other["value"])
            apart += bool(one["ci_low"] > other["ci_high"])
    if total == 1 and equal:
        return f"the one count that is found to differ, {which}, is equal per 100 tokens"
    if total == 1:
        way = f"{'the same' if same else 'the other'} way per 100 tokens{', with intervals apart' if apart else ''}"
        return f"the one count that is found to differ, {which}, points {way}"
    kept = f"{same} point{'s' * (same == 1)} the same way per 100 tokens, {apart} with intervals apart"
    return f"of {total} counts that are found to differ {kept}" if total else ""
