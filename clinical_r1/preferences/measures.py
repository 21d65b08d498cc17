"""Answers -> what an arm says and how much of it is true: per answer, per arm, and two arms on the same questions (ours).

    accuracy     per cent of answers with the right letter; no letter is wrong
    coverage     per cent of answers with a letter that can be read
    tokens       of an answer
    true, invented, inverted, false    distinct claims of an answer; false = invented + inverted
    claims       true, false, and those that cannot be judged
    false_share  per cent of all claims that are false: 100 sum(false) / sum(claims), a ratio of sums

False claims are never reported without the true ones: an arm that says nothing says nothing false. Intervals and tests are those
of `intervals`, over questions and seeds; a ratio of sums is linearised there, and so is the difference of two.
"""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from clinical_r1.clinic.knowledge import knowledge_base
from clinical_r1.completions import read_answer
from clinical_r1.intervals import (
    QUESTIONS_AND_SEEDS,
    QUESTIONS_ONLY,
    estimate,
    interval_of,
    paired_difference,
    share_interval,
    two_sided_p,
)
from clinical_r1.metrics import EXPLORATORY, NO_TEST, PRIMARY, with_holm
from clinical_r1.preferences.conversation import HELD_OUT_FAMILIES, Relation
from clinical_r1.preferences.verdicts import Verdicts
from clinical_r1.questions import Question

COUNTS = ("claims", "true", "invented", "inverted", "false")
MEASURES = ("accuracy", "coverage", "tokens", *COUNTS, "false_share")
PRIMARY_MEASURES = ("accuracy", "true", "false_share")  # named before any result was seen, over all questions
ALL, UNSEEN, SEEN = "all", "unseen families", "seen families"
SCOPES = (ALL, UNSEEN, SEEN)
OTHERS = "other relations"
COLUMNS = "arm style scope measure value ci_low ci_high n seeds coverage interval".split()
ANSWER_FIELDS = ("arm", "seed", "style", "id", "text", "tokens")


# ------------------------------------------------------------------------------------------------- answers


def measure_answers(
    answers: Iterable[Mapping],
    questions: Iterable[Question],
    judge,
    groups: Mapping[str, Iterable[Relation]] | None = None,
) -> list[dict]:
    """One record an answer: arm, seed, style, id, family, tokens, letter, correct, COUNTS, and of each group claims and false.

    answers: rows with ANSWER_FIELDS. judge: a miner of `verdicts`, best another than the one that made the pairs; where it
    has `weigh`, an answer without a claim counts 0, otherwise it has None for every count. groups: name -> relations, to be
    counted apart (`conversation.taught_groups`); what is in none of them counts as OTHERS.
    ValueError for an answer of another question, or without one of the fields.
    """
    by_id = {question.id: question for question in questions}
    groups = {name: frozenset(relations) for name, relations in (groups or {}).items()}
    if taken := {OTHERS, *SCOPES} & groups.keys():
        raise ValueError(f"a group of relations is called {taken.pop()!r}, as a scope is; rename it.")
    weigh = getattr(judge, "weigh", judge)
    return [_record(row, by_id, weigh, groups) for row in answers]


def _record(row: Mapping, by_id: Mapping[str, Question], weigh, groups) -> dict:
    if missing := [name for name in ANSWER_FIELDS if row.get(name) is None]:
        raise ValueError(f"an answer has no {', '.join(missing)}; expected {', '.join(ANSWER_FIELDS)}.")
    if row["id"] not in by_id:
        raise ValueError(
            f"an answer of {row['arm']} is to question {row['id']!r}, which is none of the {len(by_id)} given; pass the "
            "questions that were asked."
        )
    question = by_id[row["id"]]
    letter = read_answer(row["text"], row["style"], question.options).letter
    found = weigh(question, row["text"])
    record = {name: row[name] for name in ("arm", "seed", "style", "id", "tokens")}
    record |= {"family": knowledge_base().conditions.get(question.options.get(question.answer))}
    record |= {"letter": letter, "correct": letter is not None and letter == question.answer}
    record |= {name: None if found is None else getattr(found, name) for name in COUNTS}
    return record | {"groups": None if found is None else _grouped(found, groups)}


def _grouped(found: Verdicts, groups: Mapping[str, frozenset[Relation]]) -> dict[str, list[int]]:
    """Group -> [claims, false] of one answer. {} where the judge names no claims."""
    if found.claims and not found.paths:
        return {}
    counts = {name: [0, 0] for name in (*groups, OTHERS)}
    for path in found.paths:
        names = [name for name, relations in groups.items() if path.relation in relations] or [OTHERS]
        for name in names:
            counts[name][0] += 1
            counts[name][1] += path.verdict in ("invented", "inverted")
    return counts


# ------------------------------------------------------------------------------------------------- arms


def summarise(records: Sequence[Mapping]):
    """Frame with COLUMNS: a row for each arm, style, scope and measure. value is a mean, or per cent (the module's docstring).

    Scopes: SCOPES for all measures, by the family of the answer; each group of relations for claims and false_share. coverage:
    share of the answers that have a verdict, or 1. n: questions. A share of no claims is NaN. ValueError for records that do
    not belong together.
    """
    import pandas as pd

    frame = _checked(records)
    rows = []
    for (arm, style), own in frame.groupby(["arm", "style"], sort=False):
        for scope, measure in _asked(own):
            there, top, bottom = _parts(own, scope, measure)
            if not len(there):
                continue
            names = {"arm": arm, "style": style, "scope": scope, "measure": measure}
            rows.append(names | _value(there, top, bottom, measure, len(_scope(own, scope))))
    return pd.DataFrame(rows, columns=COLUMNS)


def _value(there, top, bottom, measure: str, answers: int) -> dict:
    several = there["seed"].nunique() > 1
    row = {"n": there["id"].nunique(), "seeds": there["seed"].nunique(), "coverage": len(there) / answers}
    row |= {"interval": QUESTIONS_AND_SEEDS if several else QUESTIONS_ONLY}
    if not bottom.sum():
        return row | {"value": np.nan, "ci_low": np.nan, "ci_high": np.nan}
    share = measure in ("accuracy", "coverage")
    unit = (100.0 if share or measure == "false_share" else 1.0) / bottom.mean()
    result = estimate(top, bottom, there["id"], there["seed"], unit=unit, counts=not share)
    if share:
        low, high = share_interval(result, len(there), scale=100.0)
    else:
        low, high = interval_of(result, bounds=(0.0, 100.0 if measure == "false_share" else np.inf))
    return row | {"value": result.value, "ci_low": low, "ci_high": high}


def compare(records: Sequence[Mapping], arm: str, against: str, style: str):
    """arm minus against on the same questions and seeds, asked in one style: one row a scope and measure, the primary first.

    Columns: scope, measure, status (primary: PRIMARY_MEASURES over all questions), the two arms' values, difference (per cent
    in points), ci_low, ci_high, p, p_holm, mde_holm, tests, test, n, seeds, coverage. With one seed there is no p. ValueError
    where an arm is missing, or the two did not answer the same questions.
    """
    import pandas as pd

    frame = _checked(records)
    sides = [frame[(frame["arm"] == name) & (frame["style"] == style)] for name in (arm, against)]
    sides = [side.sort_values(["seed", "id"], ignore_index=True) for side in sides]
    if arm == against or not all(map(len, sides)):
        known = sorted(set(zip(frame["arm"], frame["style"], strict=True)))
        raise ValueError(
            f"got {arm} against {against} in style {style!r}; expected two different arms of {known}."
        )
    if not sides[0][["seed", "id"]].equals(sides[1][["seed", "id"]]):
        raise ValueError(
            f"{arm} and {against} have not answered the same questions with the same seeds in style {style!r} ({len(sides[0])} "
            f"and {len(sides[1])} answers); expected pairs: answer the rest."
        )
    rows = [
        {"scope": scope, "measure": measure, "status": _status(scope, measure)} | row
        for scope, measure in _asked(sides[0])
        if (row := _paired(sides, scope, measure, (arm, against))) is not None
    ]
    table = with_holm(pd.DataFrame(sorted(rows, key=lambda row: row["status"] != PRIMARY)))
    order = ["scope", "measure", "status", arm, against, "difference", "ci_low", "ci_high", "p", "p_holm"]
    return table[[*order, "mde_holm", "tests", "test", "n", "seeds", "coverage"]]


def _status(scope: str, measure: str) -> str:
    return PRIMARY if scope == ALL and measure in PRIMARY_MEASURES else EXPLORATORY


def _paired(sides, scope: str, measure: str, names: tuple[str, str]) -> dict | None:
    """One row of `compare`; None where no pair has a verdict on both sides."""
    scoped = [_scope(side, scope) for side in sides]
    known = _known(scoped[0], scope, measure) & _known(scoped[1], scope, measure).to_numpy()
    if not known.any():
        return None
    parts = [_parts(side[known.to_numpy()], scope, measure, scoped=True) for side in scoped]
    there = parts[0][0]
    several = there["seed"].nunique() > 1
    row = {"n": there["id"].nunique(), "seeds": there["seed"].nunique(), "coverage": float(known.mean())}
    row |= {"test": QUESTIONS_AND_SEEDS if several else NO_TEST}
    sums = [(top.sum(), bottom.sum()) for _, top, bottom in parts]
    row |= {name: top / bottom if bottom else np.nan for name, (top, bottom) in zip(names, sums, strict=True)}
    nothing = dict.fromkeys(("difference", "ci_low", "ci_high", "p", "standard_error", "df"), np.nan)
    if not all(bottom for _, bottom in sums):
        return row | nothing
    ids, seeds = there["id"].to_numpy(), there["seed"].to_numpy()
    if measure == "false_share":
        found = difference_of_ratios(*parts[0][1:], *parts[1][1:], ids, seeds)
        (low, high), p, difference = (
            interval_of(found, bounds=(-100.0, 100.0)),
            two_sided_p(found),
            found.value,
        )
    else:
        scale = 100.0 if measure in ("accuracy", "coverage") else None
        found = paired_difference(parts[0][1], parts[1][1], clusters=ids, seeds=seeds, scale=scale)
        (low, high), p, difference = found.interval, found.p, found.difference
    numbers = {"difference": difference, "ci_low": low, "ci_high": high, "p": p if several else np.nan}
    return row | numbers | {"standard_error": found.standard_error, "df": found.df}


def difference_of_ratios(top, bottom, other_top, other_bottom, ids, seeds=None):
    """`intervals.Estimate` of sum(top) / sum(bottom) - sum(other_top) / sum(other_bottom), (N,) each, paired answer by answer.

    Linearised: answer i moves a ratio R = sum(t) / sum(b) by (t_i - R b_i) / mean(b), so the difference has the error of the mean
    of these moves' differences (Cochran, Sampling Techniques, 1977, chapter 6). ValueError where a sum below is 0.
    """
    if not (np.sum(bottom) > 0 and np.sum(other_bottom) > 0):
        raise ValueError("got a ratio over nothing; expected some claims on both sides.")
    ratios = [np.sum(top) / np.sum(bottom), np.sum(other_top) / np.sum(other_bottom)]
    moves = (top - ratios[0] * bottom) / np.mean(bottom) - (other_top - ratios[1] * other_bottom) / np.mean(
        other_bottom
    )
    difference = ratios[0] - ratios[1]
    unit = 100.0 / min(np.mean(bottom), np.mean(other_bottom))
    return estimate(moves + difference, np.ones(len(moves)), ids, seeds, unit=unit)


# ------------------------------------------------------------------------------------------------- parts of a measure


def _asked(frame) -> list[tuple[str, str]]:
    """(scope, measure) pairs that these records can answer."""
    groups = dict.fromkeys(name for own in frame["groups"] if own for name in own)
    groups = groups if set(groups) != {OTHERS} else {}
    listed = [(scope, measure) for scope in SCOPES for measure in MEASURES]
    return listed + [(name, measure) for name in groups for measure in ("claims", "false_share")]


def _scope(frame, scope: str):
    if scope in (UNSEEN, SEEN):
        return frame[frame["family"].isin(HELD_OUT_FAMILIES) == (scope == UNSEEN)]
    return frame


def _known(rows, scope: str, measure: str):
    """Which rows have what the measure reads."""
    if scope not in SCOPES:
        return rows["groups"].map(bool)
    if measure in ("accuracy", "coverage", "tokens"):
        return rows["tokens"].notna()
    return rows["claims"].notna() & rows["false" if measure == "false_share" else measure].notna()


def _parts(frame, scope: str, measure: str, scoped: bool = False):
    """(rows that have a verdict, top (N,), bottom (N,)): the measure is sum(top) / sum(bottom)."""
    rows = frame if scoped else _scope(frame, scope)
    rows = rows[_known(rows, scope, measure)]
    ones = np.ones(len(rows))
    if scope not in SCOPES:
        counts = np.array([own[scope] for own in rows["groups"]], dtype=float).reshape(-1, 2)
        return (rows, counts[:, 0], ones) if measure == "claims" else (rows, 100 * counts[:, 1], counts[:, 0])
    if measure == "false_share":
        return rows, 100 * rows["false"].to_numpy(float), rows["claims"].to_numpy(float)
    if measure in ("accuracy", "coverage"):
        right = rows["correct"] if measure == "accuracy" else rows["letter"].notna()
        return rows, 100 * right.to_numpy(float), ones
    return rows, rows[measure].to_numpy(float), ones


def _checked(records):
    """A frame of records, each answer of an arm, style and seed once, all arms on the same questions."""
    import pandas as pd

    frame = pd.DataFrame(list(records))
    if not len(frame):
        raise ValueError("got no records; expected some of `measure_answers`.")
    key = ["arm", "style", "seed", "id"]
    if (twice := frame[frame.duplicated(key)]).size:
        first = twice.iloc[0]
        raise ValueError(
            f"{first['arm']} in style {first['style']!r}, seed {first['seed']}, answers question {first['id']!r} twice; expected "
            "it once: pass each file of answers once."
        )
    sets = frame.groupby(["arm", "style", "seed"], sort=False)["id"].agg(frozenset)
    if sets.nunique() > 1:
        sizes = {len(ids) for ids in sets}
        raise ValueError(
            f"the arms answer different questions ({', '.join(map(str, sorted(sizes)))} of them); expected the same set for "
            "each: answer the rest."
        )
    return frame
