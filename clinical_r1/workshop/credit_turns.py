"""Exercise 8, credit turns: what GRPO and GiGPO pay each turn of three consultations, by hand, and its check."""

import math
import re
from collections.abc import Mapping
from itertools import combinations

import numpy as np

from clinical_r1.agent import credit
from clinical_r1.workshop.checking import is_number, key_problems, report, shortened
from clinical_r1.workshop.visits import (
    ACTIONS,
    GAMMA,
    ROW,
    Turn,
    all_turns,
    anchor_terms,
    answer_key,
    by_name,
    episode_terms,
    opposite,
    own_pieces,
    played,
    points_paid,
    shared_states,
    turns_alone,
)

_ROW = f"row {ROW}"
KEYS = ("returns", "groups", "anchor", "alone", "episode", "opposite", _ROW)
ALONE = {  # choice -> what a state met once would get its 0 for
    "a": "The return of such a turn is 0.",
    "b": "The turn was neither good nor bad.",
    "c": "Nothing should be learned from such a turn.",
    "d": "One number has no standard deviation, and 0 takes the place of a division by 0.",
    "e": "Its return says how it went on from there, not whether another turn would have been better.",
    "f": "It should get its return: the turns after it earned it.",
}
NEAR = 0.02  # two decimals, rounded on the way


NO_GAMMA = "Is that a sum without gamma? Each step further away halves what comes later."
NO_STD = "Is that divided by a standard deviation? In this exercise only the mean is taken off."
POPULATION = "Is that divided by the deviation of a whole population? Nothing is divided in this exercise."
SIGN = "Only the sign is wrong: better than the mean is above 0."
RAW = "Is a turn that is alone in its state paid its whole return? Nothing was compared there: see 'alone'."
OF_OTHERS = (
    "Is that the difference from the others alone? The mean is of all that are compared, this one too."
)
STATES = {  # what was taken for the state -> why it is none
    "left": "What is known is the same, but not how many turns are left: who cannot test any more has another future.",
    "number": "An equal turn number is no state: what is known differs, and so does what can follow.",
    "order": "The order in which things were learned does not matter: what is known, and the turns left, decide what can follow.",
    "words": "Equal last words of the clinic are no state: what else is known, and how many turns are left?",
}
HINTS = {  # key -> where to look again, for a number that no known fault gives
    "returns": "From the last turn backwards: a turn's own points, and half of the return of the turn after it.",
    "anchor": "Take the mean of the returns of all turns of its state off the turn's own return; alone it is its own mean.",
    "episode": "Add up the points of each consultation; take off the mean of the three sums.",
    _ROW: "Every token of a turn gets the sum of GRPO's term, of its consultation, and its own anchor term.",
}
MASKED = (
    "The clinic's words are not the agent's choice: in training they are masked, and no credit reaches them."
)
ALONE_WHY_NOT = {
    "a": "Look at your returns: is it 0 for every turn that is alone in its state?",
    "b": "Nobody tried another turn from there, so who would know?",
    "c": "GRPO's term still reaches the turn, in full; why has the anchor term nothing to add?",
    "d": "In this exercise nothing is divided, and the difference is 0 all the same: whose mean is taken off?",
    "f": "Then every turn on the way to a right diagnosis is praised for where it stood: what was it better than?",
}


def _return_faults() -> dict[str, dict[str, float]]:
    """Reason -> turn -> the return that somebody with this fault writes down."""
    points, truth = points_paid(), answer_key()["returns"]
    own = by_name(points)
    whole = [[total] * len(row) for total, row in zip(credit.episode_returns(points), points, strict=True)]
    late = {turn.name: GAMMA ** (turn.number - 1) * truth[turn.name] for turn in all_turns()}
    return {
        NO_GAMMA: by_name(credit.returns_to_go(points, 1.0)),
        "Is that the turn's own points? What comes after the turn counts too, halved at each step.": own,
        "Is that the sum of the whole consultation? What was paid before a turn is not its doing.": by_name(
            whole
        ),
        "Is that discounted from the first turn on? Count the steps from the turn itself.": late,
        "Are the turn's own points halved as well? They come at once; only what follows is halved.": {
            name: GAMMA * value for name, value in truth.items()
        },
        "Are the turn's own points left out? The return begins with them.": {
            name: value - own[name] for name, value in truth.items()
        },
    }


def _anchor_faults() -> dict[str, dict[str, float]]:
    """The same for anchor advantages."""
    truth = answer_key()
    anchor, returns, episode = truth["anchor"], truth["returns"], truth["episode"]
    sizes = {name: len(group) for group in shared_states() for name in group}
    divided = anchor_terms(std=True)
    return {
        NO_GAMMA: anchor_terms(values=credit.returns_to_go(points_paid(), 1.0)),
        STATES["left"]: anchor_terms(lambda turn: frozenset(turn.known)),
        STATES["number"]: anchor_terms(lambda turn: turn.number),
        STATES["order"]: anchor_terms(lambda turn: (turn.known, turn.left)),
        STATES["words"]: anchor_terms(lambda turn: turn.heard),
        RAW: {name: returns[name] for name in turns_alone()},
        "Is that the return itself? The mean of its state's returns is still to be taken off.": returns,
        "Is that made of the turn's own points? What is compared are returns: what a turn leads to.": anchor_terms(
            values=points_paid()
        ),
        NO_STD: divided,
        POPULATION: {name: divided[name] * math.sqrt(size / (size - 1)) for name, size in sizes.items()},
        OF_OTHERS: {name: anchor[name] * size / (size - 1) for name, size in sizes.items()},
        "Is GRPO's term in it already? Here the anchor term stands by itself.": {
            name: value + episode[name[0]] for name, value in anchor.items()
        },
        SIGN: {name: -value for name, value in anchor.items()},
    }


def _episode_faults() -> dict[str, dict[str, float]]:
    """The same for GRPO's advantages; consultation -> number."""
    points, truth = points_paid(), answer_key()["episode"]
    returns = dict(zip(truth, credit.episode_returns(points), strict=True))
    divided, size = episode_terms(list(returns.values()), std=True), len(returns)
    over_turns = sum(returns[turn.consultation] for turn in all_turns()) / len(all_turns())
    return {
        "Is the return of the whole consultation discounted too? GRPO's is a plain sum; gamma is for the turns.": episode_terms(
            [row[0] for row in credit.returns_to_go(points, GAMMA)]
        ),
        "Is that the sum itself? The mean of the three consultations is still to be taken off.": returns,
        "Is the mean taken over turns? Each consultation counts once, however long it was.": {
            name: value - over_turns for name, value in returns.items()
        },
        NO_STD: divided,
        POPULATION: {name: value * math.sqrt(size / (size - 1)) for name, value in divided.items()},
        OF_OTHERS: {name: value * size / (size - 1) for name, value in truth.items()},
        SIGN: {name: -value for name, value in truth.items()},
    }


def _row_faults() -> dict[str, dict[str, float]]:
    """The same for the pieces of one row that the agent wrote."""
    truth, turns = answer_key(), [turn.name for turn in played()[ROW]]
    terms = {
        "Is that GRPO's term alone? The turn has an anchor term too.": dict.fromkeys(
            turns, truth["episode"][ROW]
        ),
        "Is that the anchor term alone? It is added to GRPO's term and does not replace it.": truth["anchor"],
        RAW: {name: truth["episode"][ROW] + truth["returns"][name] for name in turns_alone()},
    }
    pieces = dict(
        zip(turns, (name for name, own in zip(truth[_ROW], own_pieces(), strict=True) if own), strict=True)
    )
    return {
        why: {pieces[n]: value for n, value in table.items() if n in pieces} for why, table in terms.items()
    }


# --------------------------------------------------------------------------------------------------------------- check


def check_credit(answer) -> bool:
    """answer: a dictionary with KEYS.

    "returns" and "anchor": consultation -> list of numbers, one a turn. "groups": lists of names of turns. "alone": a letter of
    ALONE. "episode": consultation -> number. "opposite": name of a turn. "row B": list of numbers, one a piece.
    """
    problems, reasons = key_problems(answer, KEYS), {}
    given = answer if isinstance(answer, Mapping) else {}
    faults = {
        "returns": _return_faults,
        "anchor": _anchor_faults,
        "episode": _episode_faults,
        _ROW: _row_faults,
    }
    for key in KEYS:
        value = given.get(key)
        if value is None:
            continue
        if key in faults:
            numbers, unread = _read(key, value)
            problems += unread
            _blame(key, numbers, faults[key](), reasons)
        else:
            judge = {"groups": _judge_groups, "alone": _judge_alone, "opposite": _judge_opposite}[key]
            problems += judge(value, reasons)
    problems += [f"{'; '.join(places)}. {why}" for why, places in reasons.items()]
    return report(
        "8 credit",
        problems,
        "GRPO praises or blames a whole consultation; GiGPO also asks what else was done from the same state, and adds nothing "
        "where nothing else was.",
    )


def _read(key, value) -> tuple[dict[str, float], list[str]]:
    """(place -> number, problems) of an answer in numbers; a place is a turn, a consultation or a piece."""
    if key == _ROW:
        return _only_numbers(key, *_as_list(repr(key), value, list(answer_key()[_ROW])))
    what = "a number" if key == "episode" else "a list of numbers, one a turn,"
    if not isinstance(value, Mapping):
        names = ", ".join(ACTIONS)
        return {}, [f"{key!r} is {shortened(value)}; expected a dictionary with {what} for each of {names}."]
    given, problems = {}, [f"{key!r}: {problem}" for problem in key_problems(value, ACTIONS)]
    for name, turns in played().items():
        own = value.get(name)
        if own is not None and key == "episode":
            given[name] = own
        elif own is not None:
            listed, unread = _as_list(f"{key!r}, {name}", own, [turn.name for turn in turns])
            given, problems = given | listed, problems + unread
    return _only_numbers(key, given, problems)


def _as_list(place, value, names) -> tuple[dict, list[str]]:
    value = value.tolist() if isinstance(value, np.ndarray) else value
    if not isinstance(value, (list, tuple)) or len(value) != len(names):
        return {}, [
            f"{place} is {shortened(value)}; expected a list of {len(names)} numbers, for {names[0]} to {names[-1]}."
        ]
    return dict(zip(names, value, strict=True)), []


def _only_numbers(key, given, problems) -> tuple[dict[str, float], list[str]]:
    if empty := [name for name, value in given.items() if value is None]:
        problems = [*problems, f"{key!r}: not answered yet: {', '.join(empty)}."]
    wrong = {name: value for name, value in given.items() if value is not None and not is_number(value)}
    problems = problems + [
        f"{key!r}: {name} is {shortened(value)}; expected a finite number." for name, value in wrong.items()
    ]
    return {name: value for name, value in given.items() if is_number(value)}, problems


def _blame(key, numbers, faults, reasons) -> None:
    """File wrong numbers under the fault that gives most of them, then under the next; those of no fault under a hint."""
    truth = answer_key()[key]
    rest = {name: value for name, value in numbers.items() if abs(value - truth[name]) > NEAR}
    if key == _ROW:
        own = dict(zip(truth, own_pieces(), strict=True))
        faults = faults | {MASKED: {name: value for name, value in rest.items() if not own[name]}}
    while rest:
        explained = {
            why: [name for name in rest if name in table and abs(rest[name] - table[name]) <= NEAR]
            for why, table in faults.items()
        }
        why = max(explained, key=lambda each: len(explained[each]))
        names = explained[why]
        if not names:
            why, names = HINTS[key], list(rest)
        said = ", ".join(f"{name} is not {rest.pop(name):.3g}" for name in names)
        reasons.setdefault(why, []).append(f"{key!r}: {said}")


def _judge_groups(value, reasons) -> list[str]:
    groups = _named_groups(value)
    if groups is None:
        return [
            f"'groups' is {shortened(value)}; expected a list of groups, each a list of names such as ['A1', 'C4']."
        ]
    turns = {turn.name: turn for turn in all_turns()}
    if unknown := sorted(set().union(*groups) - set(turns)):
        return [f"'groups' names {shortened(', '.join(unknown))}: no turn of the table."]
    if twice := sorted(name for name in turns if sum(name in group for group in groups) > 1):
        return [f"'groups': {', '.join(twice)} stands in more than one group; a turn is taken in one state."]
    found = {}
    for group in groups:
        for one, other in combinations(sorted(group), 2):
            if turns[one].state != turns[other].state:
                found.setdefault(
                    _why_apart(turns[one], turns[other]), f"{one} is not in the state of {other}"
                )
    together = {frozenset(pair) for group in groups for pair in combinations(group, 2)}
    for state in shared_states():
        for pair in combinations(sorted(state), 2):
            if frozenset(pair) not in together:
                one, other = (turns[name] for name in pair)
                why = (
                    STATES["order"]
                    if one.known != other.known
                    else "Compare what is known and the turns left, row by row."
                )
                found.setdefault(why, "turns of one state are not together")
    for why, what in found.items():
        reasons.setdefault(why, []).append(f"'groups': {what}")
    return []


def _named_groups(value) -> list[set[str]] | None:
    """Sets of names, from lists of them or from texts such as "A1 B1; A2 B2"; None for anything else."""
    if isinstance(value, str):
        value = [part for part in re.split(r"[;\n]", value) if part.strip()]
    if not isinstance(value, (list, tuple, set, frozenset)):
        return None
    groups = [re.findall(r"\w+", group) if isinstance(group, str) else group for group in value]
    if not all(isinstance(group, (list, tuple, set, frozenset)) for group in groups):
        return None
    return [{str(name).strip().upper() for name in group} for group in groups]


def _why_apart(one: Turn, other: Turn) -> str:
    if set(one.known) == set(other.known):
        return STATES["left"]
    if one.left == other.left:
        return STATES["number"]
    return (
        STATES["words"]
        if one.heard == other.heard
        else "Neither what is known nor the turns left are the same."
    )


def _judge_alone(value, reasons) -> list[str]:
    choice = value.strip().lower() if isinstance(value, str) else None
    if choice not in ALONE:
        return [f"'alone' is {shortened(value)}; expected one of the letters {', '.join(ALONE)}."]
    if choice in ALONE_WHY_NOT:
        reasons.setdefault(ALONE_WHY_NOT[choice], []).append(f"'alone' is not {choice!r}")
    return []


def _judge_opposite(value, reasons) -> list[str]:
    names = _named_groups([value])
    (names,) = names or [set()]
    if len(names) != 1 or not names <= set(answer_key()["total"]):
        return [f"'opposite' is {shortened(value)}; expected the name of one turn, such as 'A1'."]
    (name,) = names
    if names != opposite():
        why = "Look for a state in which a turn did worse than another one, in a consultation above the mean (or the reverse)."
        if name in turns_alone():
            why = "A turn that is alone in its state has GRPO's term only, so both say the same of it."
        reasons.setdefault(why, []).append(f"'opposite': at {name} both have the same sign")
    return []
