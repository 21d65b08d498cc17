"""Exercise 8: its story holds in the clinic, its key is the equations', and plausible wrong answers are refused for their reason.

python -m pytest tests/workshop/test_credit_turns.py
"""

import json
import re
from itertools import combinations
from statistics import mean, pstdev, stdev

import numpy as np
import pytest

from clinical_r1.agent.consultation import AMBIGUOUS, posterior
from clinical_r1.clinic.knowledge import knowledge_base
from clinical_r1.workshop import visits
from clinical_r1.workshop.credit_turns import ALONE, HINTS, KEYS, check_credit
from clinical_r1.workshop.notebooks import FOLDER

RIGHT = {
    "returns": {"A": [4, 8, 16], "B": [1, 2, 4, 16], "C": [-2, -4, 0, 0]},
    "groups": [["A1", "B1", "C1"], ["A2", "C2"], ["A3", "B3"]],
    "anchor": {"A": [3, 6, 6], "B": [0, 0, -6, 0], "C": [-3, -6, 0, 0]},
    "alone": "e",
    "episode": {"A": 8, "B": 4, "C": -12},
    "opposite": "B3",
    "row B": [4, 0, 4, 0, -2, 0, 4],
}

# The table as somebody reads it off the notebook: points, what is known in the order of learning, turns left, last words heard
POINTS = {"A": [0, 0, 16], "B": [0, 0, -4, 16], "C": [0, -4, 0, 0]}
KNOWN = {"A": ["", "b", "bo"], "B": ["", "o", "ob", "obd"], "C": ["", "b", "b", "bo"]}
HEARD = {"A": ["", "b", "o"], "B": ["", "o", "b", "d"], "C": ["", "b", "refused", "o"]}
TURNS = [(name, t) for name, points in POINTS.items() for t in range(len(points))]


def state(name, t):
    """What can still happen: what is known, in any order, and the turns left of four."""
    return "".join(sorted(KNOWN[name][t])), 4 - t


def slow_returns(gamma=0.5):
    """R_t = sum over k >= t of gamma^(k - t) r_k."""
    return {
        name: [sum(gamma ** (k - t) * row[k] for k in range(t, len(row))) for t in range(len(row))]
        for name, row in POINTS.items()
    }


def slow_anchor(key=state, values=None, scale=None):
    """Each value less the mean of those with the same key; over a deviation of them, where `scale` is one."""
    values, result = values or slow_returns(), {name: [] for name in POINTS}
    for name, t in TURNS:
        others = [values[other][u] for other, u in TURNS if key(other, u) == key(name, t)]
        spread = scale(others) if scale and len(others) > 1 else 1
        result[name].append((values[name][t] - mean(others)) / (spread or 1))
    return result


def slow_episode(sums):
    return {name: value - mean(sums.values()) for name, value in sums.items()}


SUMS = {name: sum(points) for name, points in POINTS.items()}


# ---- the material ----


def test_the_table_is_what_the_clinic_plays():
    table = visits.consultations()
    assert list(table.index) == [f"{name}{t + 1}" for name, t in TURNS]
    assert table["points"].tolist() == [points for row in POINTS.values() for points in row]
    assert table["turns left"].tolist() == [4 - t for _, t in TURNS]
    assert [text.count(";") for text in table["known before"]] == [len(KNOWN[name][t]) for name, t in TURNS]
    assert (
        table.loc["C4", "known before"] == table.loc["A3", "known before"] != table.loc["B3", "known before"]
    )
    a, b, c = visits.played().values()
    assert c[1].answer.startswith("known already")
    assert [turns[-1].writes.split(" diagnose ")[1] == visits.PATIENT.gold for turns in (a, b, c)] == [
        1,
        1,
        0,
    ]


def test_the_patient_could_come_to_the_clinic():
    """Ambiguous at first, and no finding says anything about another, so that the posterior is exact."""
    first = posterior(visits.PATIENT, dict(visits.played()["A"][0].known))
    assert AMBIGUOUS[0] <= first.max() <= AMBIGUOUS[1]
    assert first[0] == pytest.approx(first[1])  # embolism and pericarditis fit equally well
    kb, findings = knowledge_base(), [*visits.PATIENT.complaint, *visits.PATIENT.findings]
    for one, other in combinations(findings, 2):
        for present in (True, False):
            said = kb.clashes[one, present] | kb.entails[one, present]
            assert other not in {finding for finding, _ in said}


def test_the_test_of_b_could_not_change_the_diagnosis():
    """The probabilities of the solution's page."""
    known = dict(visits.played()["B"][2].known)
    told = [
        posterior(visits.PATIENT, known | more)
        for more in ({}, {"d_dimer_high": True}, {"d_dimer_high": False})
    ]
    assert [round(p[0], 2) for p in told] == [0.97, 0.99, 0.80]
    page = (FOLDER / "masters" / "08_credit_turns.py").read_text(encoding="utf-8")
    assert all(said in page for said in ("probability of 0.97", "raised 0.99", "normal 0.80"))


def test_the_trap_is_in_the_states():
    """The same findings in another order are one state; with fewer turns left, or other findings, they are another."""
    turns = {turn.name: turn for turn in visits.all_turns()}
    assert turns["A3"].state == turns["B3"].state and turns["A3"].known != turns["B3"].known
    for one, other in (("A3", "C4"), ("A2", "C3")):
        assert turns[one].known == turns[other].known and turns[one].state != turns[other].state
    assert turns["A2"].left == turns["B2"].left and turns["A2"].state != turns["B2"].state


def test_the_key_is_the_equations_on_the_table_read_off():
    key = visits.answer_key()
    flat = [value for row in slow_anchor().values() for value in row]
    assert list(key["anchor"].values()) == pytest.approx(flat)
    assert list(key["returns"].values()) == [value for row in slow_returns().values() for value in row]
    assert key["episode"] == slow_episode(SUMS)
    totals = [slow_anchor()[name][t] + key["episode"][name] for name, t in TURNS]
    assert list(key["total"].values()) == pytest.approx(totals)
    groups = {}
    for name, t in TURNS:
        groups.setdefault(state(name, t), set()).add(f"{name}{t + 1}")
    assert visits.shared_states() == [names for names in groups.values() if len(names) > 1]
    assert visits.turns_alone() == {"B2", "B4", "C3", "C4"}


def test_a_half_makes_the_test_of_b_a_fault_and_one_does_not():
    """The solution says so: with gamma = 1 only the cost counts, so both praise B3."""
    assert visits.opposite() == {"B3"}
    undiscounted = slow_anchor(values=slow_returns(1))["B"][2] + slow_episode(SUMS)["B"]
    assert undiscounted == 2


def test_numbers_are_small_and_whole():
    key = visits.answer_key()
    values = [value for table in key.values() for value in table.values()]
    assert all(value == round(value) and abs(value) <= 18 for value in values)


# ---- right answers in other forms ----


def test_a_right_answer_passes():
    assert set(RIGHT) == set(KEYS)
    assert check_credit(RIGHT)


@pytest.mark.parametrize(
    "same",
    [
        {"groups": "A1 B1 C1; A2 C2; A3 B3"},
        {"groups": [{"a3", "b3"}, ("C2", "A2"), "A1, B1, C1", ["B4"], "C4"]},
        {"alone": " E "},
        {"opposite": ["b3"]},
        {"row B": np.array([4.0, 0, 4, 0, -2, 0, 4])},
        {"returns": RIGHT["returns"] | {"A": (4.0, np.float64(8), 16)}},
    ],
)
def test_an_answer_may_have_any_form(same):
    assert check_credit(RIGHT | same)


# ---- wrong answers ----

WHOLE = {name: [SUMS[name]] * len(row) for name, row in POINTS.items()}
FROM_START = {name: [0.5**t * value for t, value in enumerate(row)] for name, row in slow_returns().items()}
TURN_MEAN = sum(SUMS[name] for name, _ in TURNS) / len(TURNS)
BY_NUMBER = [["A1", "B1", "C1"], ["A2", "B2", "C2"], ["A3", "B3", "C3"], ["B4", "C4"]]
RAW = {"A": [3, 6, 6], "B": [0, 2, -6, 16], "C": [-3, -6, 0, 0]}

RETURNS = {
    "no gamma": (slow_returns(1), "'returns': A1 is not 16.*without gamma"),
    "own points": (POINTS, "the turn's own points"),
    "whole consultation": (WHOLE, "sum of the whole consultation"),
    "from the first turn": (FROM_START, "discounted from the first turn"),
    "halved at once": (
        {name: [value / 2 for value in row] for name, row in slow_returns().items()},
        "own points halved as well",
    ),
    "an error": ({**RIGHT["returns"], "B": [3, 2, 4, 16]}, "B1 is not 3. From the last turn backwards"),
}
GROUPS = {
    "turn number": (BY_NUMBER, "'groups': A2 is not in the state of B2. An equal turn number is no state"),
    "transcript": ([["A1", "B1", "C1"], ["A2", "C2"]], "not together. The order in which"),
    "no turns left": (
        [["A1", "B1", "C1"], ["A2", "C2", "C3"], ["A3", "B3", "C4"]],
        "A2 is not in the state of C3. What is known is the same, but not how many turns are left",
    ),
    "last words": (
        [["A1", "B1", "C1"], ["A2", "C2", "B3"], ["A3", "B2", "C4"]],
        "Equal last words of the clinic are no state",
    ),
    "without the first": ([["A2", "C2"], ["A3", "B3"]], "not together. Compare what is known"),
    "nothing": ([], "not together"),
    "twice": (["A1 B1 C1", "A2 C2", "A3 B3 A2"], "A2 stands in more than one group"),
    "no turn": ([["A1", "A9"]], "A9.*no turn of the table"),
    "flat": ("A", "no turn of the table"),
    "a number": ([1, 2], "expected a list of groups"),
}
ANCHOR = {
    "turn number": (slow_anchor(lambda name, t: t), "An equal turn number is no state"),
    "transcript": (
        slow_anchor(lambda name, t: (KNOWN[name][t], t)),
        "The order in which things were learned",
    ),
    "no turns left": (slow_anchor(lambda name, t: state(name, t)[0]), "not how many turns are left"),
    "last words": (slow_anchor(lambda name, t: HEARD[name][t]), "Equal last words of the clinic"),
    "alone paid raw": (RAW, "'anchor': B2 is not 2, B4 is not 16. Is a turn that is alone.*whole return"),
    "not centred": (slow_returns(), "still to be taken off"),
    "no gamma": (slow_anchor(values=slow_returns(1)), "without gamma"),
    "own points": (slow_anchor(values=POINTS), "made of the turn's own points"),
    "deviation": (slow_anchor(scale=stdev), "divided by a standard deviation"),
    "deviation of a population": (slow_anchor(scale=pstdev), "deviation of a whole population"),
    "others alone": ({**RIGHT["anchor"], "A": [4.5, 12, 12]}, "difference from the others alone"),
    "GRPO's term too": (
        {"A": [11, 14, 14], "B": [4, 4, -2, 4], "C": [-15, -18, -12, -12]},
        "GRPO's term in it",
    ),
    "sign": ({"A": [-3, -6, -6], "B": [0, 0, 6, 0], "C": [3, 6, 0, 0]}, "Only the sign"),
    "an error": ({**RIGHT["anchor"], "A": [3, 6, 5]}, "'anchor': A3 is not 5. Take the mean of the returns"),
}
EPISODE = {
    "discounted too": (
        slow_episode({name: row[0] for name, row in slow_returns().items()}),
        "discounted too",
    ),
    "not centred": (SUMS, "Is that the sum itself"),
    "over turns": ({name: value - TURN_MEAN for name, value in SUMS.items()}, "taken over turns"),
    "deviation": (
        {name: value / stdev(SUMS.values()) for name, value in RIGHT["episode"].items()},
        "deviation",
    ),
    "of a population": (
        {name: value / pstdev(SUMS.values()) for name, value in RIGHT["episode"].items()},
        "of a whole population",
    ),
    "others alone": ({"A": 12, "B": 6, "C": -18}, "from the others alone"),
    "sign": ({"A": -8, "B": -4, "C": 12}, "Only the sign"),
    "an error": ({"A": 8, "B": 5, "C": -12}, "B is not 5. Add up the points"),
}
ROW = {
    "clinic's words": ([4, 4, 4, 4, -2, -2, 4], "piece 2 is not 4.*masked, and no credit reaches them"),
    "one value for all": ([4] * 7, "masked"),
    "GRPO's term": ([4, 0, 4, 0, 4, 0, 4], "GRPO's term alone"),
    "anchor term": ([0, 0, 0, 0, -6, 0, 0], "anchor term alone"),
    "alone paid raw": ([4, 0, 6, 0, -2, 0, 20], "alone in its state paid its whole return"),
    "an error": ([4, 0, 4, 0, -3, 0, 4], "piece 5 is not -3. Every token of a turn"),
    "turns only": ([4, 4, -2, 4], "expected a list of 7 numbers"),
}
OPPOSITE = {
    "alone": ("B4", "alone in its state has GRPO's term only"),
    "compared": ("C2", "did worse than another one"),
    "two": ("A3 B3", "expected the name of one turn"),
    "a consultation": ("B", "expected the name of one turn"),
}
CHOICES = {
    "a": "is it 0 for every turn that is alone",
    "b": "Nobody tried another turn",
    "c": "GRPO's term still reaches the turn",
    "d": "nothing is divided",
    "f": "what was it better than",
    "g": "expected one of the letters",
}
FIELDS = {
    "returns": RETURNS,
    "groups": GROUPS,
    "anchor": ANCHOR,
    "episode": EPISODE,
    "row B": ROW,
    "opposite": OPPOSITE,
    "alone": {letter: (letter, says) for letter, says in CHOICES.items()},
}


@pytest.mark.parametrize(
    ("key", "fault"), [(key, fault) for key, faults in FIELDS.items() for fault in faults]
)
def test_wrong_answer_is_refused_for_its_reason(key, fault, capsys):
    wrong, says = FIELDS[key][fault]
    assert check_credit(RIGHT | {key: wrong}) is False
    said = capsys.readouterr().out
    assert re.search(says, said) and f"'{key}'" in said
    assert len(said.splitlines()) == 2 or key in ("groups", "row B", "anchor")  # one fault, one reason


def test_every_wrong_choice_has_its_reason():
    assert CHOICES.keys() - {"g"} == ALONE.keys() - {RIGHT["alone"]}


def test_one_fault_in_several_places_is_said_once(capsys):
    check_credit(RIGHT | {"groups": BY_NUMBER, "anchor": slow_anchor(lambda name, t: t)})
    said = capsys.readouterr().out
    assert said.count("An equal turn number") == 1
    assert "'groups': A2 is not in the state of B2; 'anchor': A3" in said


@pytest.mark.parametrize("key", [key for key in KEYS if key in HINTS])
def test_a_number_that_is_missing_or_none_is_named(key, capsys):
    value = RIGHT[key]
    name, place = {"row B": (2, "piece 3"), "episode": ("B", "B")}.get(key, ("B", "B2"))
    for put, says in (
        (None, "not answered yet: '?" + place),
        ("4", f"{place} is '4'; expected a finite number"),
    ):
        changed = list(value) if key == "row B" else dict(value)
        changed[name] = put if key in ("row B", "episode") else [value["B"][0], put, *value["B"][2:]]
        assert not check_credit(RIGHT | {key: changed})
        assert re.search(f"'{key}': {says}", capsys.readouterr().out)


def test_messages_do_not_give_the_answers_away(capsys):
    """Only what was written, and numbers of turns and letters, are named."""
    far = {name: [77] * len(row) for name, row in POINTS.items()}
    check_credit(
        {
            "returns": far,
            "groups": [],
            "anchor": far,
            "alone": "a",
            "episode": dict.fromkeys(POINTS, 77),
            "opposite": "A1",
            "row B": [77] * 7,
        }
    )
    said = re.sub(r"\b[ABC]\d? is not 77|piece \d is not 77", "", capsys.readouterr().out)
    assert set(re.findall(r"-?\d+", said.replace("8 credit", "").replace("at A1", ""))) == {
        "0"
    }  # choice a's question
    assert not re.search(r"\b[ABC]\d\b", said.replace("at A1", ""))


def test_the_student_sees_no_key():
    """Neither the answers nor the key that the package computes."""
    cells = json.loads((FOLDER / "08_credit_turns.ipynb").read_text(encoding="utf-8"))["cells"]
    written = "".join("".join(cell["source"]) for cell in cells)
    assert "answer_key" not in written and "[4, 8, 16]" not in written
