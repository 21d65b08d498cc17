"""Exercises 1, 4, 5, 6 and 7: answers that a participant plausibly gives are refused for their reason; of all, rubbish in words.

python -m pytest tests/workshop/test_answers.py
"""

import re

import numpy as np
import pandas as pd
import pytest

from clinical_r1.clinic.cases import Case
from clinical_r1.curation.folding import similar_pairs
from clinical_r1.curation.splits import curate
from clinical_r1.laboratory.pareto import undominated
from clinical_r1.metrics import PRIMARY_METRICS
from clinical_r1.workshop import aggregator, break_reward, choose_k, collapse, credit_turns, judge, leak
from clinical_r1.workshop import front as workshop_front
from clinical_r1.workshop.notebooks import FOLDER, run_cells

COLLAPSE = {
    "totals (0, 1)": 0.71,
    "totals (0, 2)": 0.71,
    "totals (1, 2)": 0.71,
    "different groups": 2,
    "k = 10, wins the second reward": 0.71,
    "k = 10, wins both": 0.71,
    "per reward, wins one": 0.71,
    "per reward, wins both": 1.41,
    "per reward, one each": 0,
    "k = 10, G = 3, B": -0.48,
}
FRONT = {"dominated": {"D", "E", "G"}, "hypervolume": 0.935, "most missed": {"B"}, "no weights": {"F"}}
LEAKS = {name: {"near-duplicate": near, "rephrased": retold} for name, (near, retold) in leak.LEAKS.items()}
CREDIT = {
    "returns": {"A": [4, 8, 16], "B": [1, 2, 4, 16], "C": [-2, -4, 0, 0]},
    "groups": [["A1", "B1", "C1"], ["A2", "C2"], ["A3", "B3"]],
    "anchor": {"A": [3, 6, 6], "B": [0, 0, -6, 0], "C": [-3, -6, 0, 0]},
    "alone": "e",
    "episode": {"A": 8, "B": 4, "C": -12},
    "opposite": "B3",
    "row B": [4, 0, 4, 0, -2, 0, 4],
}
JUDGES = {
    "faithfulness": ["claim counter", "length judge", "noisy judge"],
    "hallucination": ["noisy judge"],
    "backward_chaining": [],
}


def right_k():
    """The answers of exercise 4, read off its two tables: they are data, and may be published anew."""
    front, trained = choose_k.front_over_k(), choose_k.trained_with_k()
    enough = {column: front[front[column] >= choose_k.accuracy_wanted()] for column in ("accuracy", "low")}
    best = {column: rows.loc[rows["faithfulness"].idxmax(), "k"] for column, rows in enough.items()}
    moves = (front[["accuracy", "faithfulness"]].diff().iloc[1:] != 0).any(axis=1)
    changes = {
        row.measure: "not settled" if not row.p_holm < 0.05 else "rises" if row.difference > 0 else "falls"
        for row in trained.itertuples()
    }
    held = {"not settled": "not settled"}
    outcomes = {
        "accuracy": (held | {"rises": "confirmed", "falls": "contradicted"})[changes["accuracy"]],
        "faithfulness": (held | {"rises": "contradicted", "falls": "confirmed"})[changes["faithfulness"]],
    }
    return {
        "k": best["accuracy"],
        "k, safely": best["low"],
        "same from": front["k"][moves[moves].index.max()],
        "trained": changes,
        "forecast": outcomes,
    }


@pytest.fixture(scope="module")
def right():
    """Check -> an answer that passes."""
    return {
        collapse.check_collapse: COLLAPSE,
        choose_k.check_k: right_k(),
        workshop_front.check_front: FRONT,
        leak.check_leaks: LEAKS,
        judge.check_judges: JUDGES,
        credit_turns.check_credit: CREDIT,
    }


# ---- rubbish ----

ANSWERED = (
    collapse.check_collapse,
    choose_k.check_k,
    workshop_front.check_front,
    leak.check_leaks,
    judge.check_judges,
    credit_turns.check_credit,
)
CHECKS = (
    *ANSWERED,
    break_reward.check_attack,
    break_reward.check_fixed_rule,
    aggregator.check_aggregator,
)
RUBBISH = (
    None,
    ...,
    3,
    float("nan"),
    "",
    "A",
    [],
    {},
    {"k": []},
    [None],
    object(),
    lambda: None,
    np.zeros(3),
)
named = dict(ids=lambda given: getattr(given, "__name__", str(type(given))))


@pytest.mark.parametrize("check", CHECKS, **named)
@pytest.mark.parametrize("answer", RUBBISH, **named)
def test_rubbish_is_refused_in_words(check, answer, capsys):
    assert check(answer) is False
    assert re.search(r"not there yet\.\n  - \w", capsys.readouterr().out)


@pytest.mark.parametrize("value", (*RUBBISH[1:], 10**400, True, 1j), **named)
@pytest.mark.parametrize("check", ANSWERED, **named)
def test_rubbish_in_a_field_is_refused_in_words(check, value, right, capsys):
    answer = right[check]
    assert check(answer) is True
    capsys.readouterr()
    for key in ("hallucination",) if check is judge.check_judges else (next(iter(answer)), list(answer)[-1]):
        assert check(answer | {key: value}) is False
        assert key in capsys.readouterr().out


@pytest.mark.parametrize("check", ANSWERED, **named)
def test_no_problem_and_no_hint_is_said_twice(check, right, capsys):
    """A sentence may name several places; it is not said again for each."""
    wrongs = [
        {},
        *(dict.fromkeys(right[check], value) for value in ([], 0, 77, {"A"}, "x", ["length judge"] * 2)),
    ]
    for answer in wrongs:
        check(answer)
        lines = capsys.readouterr().out.splitlines()
        assert len(set(lines)) == len(lines)
        if isinstance(next(iter(answer.values()), None), (int, set)) and check is not leak.check_leaks:
            hints = [hint for line in lines[1:] for hint in re.split(r"(?<=[.?]) ", line)[1:]]
            assert len(set(hints)) == len(hints)


# ---- wrong answers ----


@pytest.mark.parametrize(
    ("check", "wrong", "says"),
    [
        (collapse.check_collapse, {"totals (0, 2)": 1.41}, "standard deviation"),
        (collapse.check_collapse, {"totals (0, 1)": 1.0}, "whole population"),
        (collapse.check_collapse, {"totals (0, 1)": 0.5}, "still to be divided"),
        (collapse.check_collapse, {"k = 10, wins both": 5.5}, "still to be divided"),
        (collapse.check_collapse, {"k = 10, G = 3, B": 0.48}, "Only the sign"),
        (collapse.check_collapse, {"k = 10, G = 3, B": -0.59}, "whole population"),
        (collapse.check_collapse, {"totals (0, 1)": -0.71}, "Only the sign"),
        (collapse.check_collapse, {"per reward, wins both": 0.71}, "then add the two"),
        (collapse.check_collapse, {"per reward, one each": 0.71}, "wins one reward and loses the other"),
        (collapse.check_collapse, {"different groups": 3}, "strike out repeats"),
        (collapse.check_collapse, {"different groups": 6}, "strike out repeats"),
        (collapse.check_collapse, {"totals (0, 1)": "0.71"}, "expected a finite number"),
        (collapse.check_collapse, {"total": 1}, "misspelt"),
        (workshop_front.check_front, {"dominated": {"E", "G"}}, "lacks 1"),
        (workshop_front.check_front, {"dominated": {"D", "E", "F", "G"}}, "1 too many"),
        (workshop_front.check_front, {"dominated": {"A"}}, "1 too many and lacks 3"),
        (workshop_front.check_front, {"dominated": "all"}, "no arms of the table"),
        (workshop_front.check_front, {"hypervolume": 1.495}, "from \\(0, 0\\)"),
        (workshop_front.check_front, {"hypervolume": 1.5}, "from \\(0, 0\\)"),
        (workshop_front.check_front, {"hypervolume": 2.235}, "overlapping rectangles twice"),
        (workshop_front.check_front, {"hypervolume": 0.75}, "what one arm covers"),
        (workshop_front.check_front, {"hypervolume": 0.9}, "two decimals"),
        (workshop_front.check_front, {"hypervolume": 0.95}, "add the strips exactly"),
        (workshop_front.check_front, {"hypervolume": 2.1}, "counted twice"),
        (workshop_front.check_front, {"most missed": "C"}, "covered by no other arm"),
        (workshop_front.check_front, {"no weights": {"F", "A"}}, "1 too many.*straight lines"),
        (workshop_front.check_front, {"no weights": set()}, "lacks 1"),
        (workshop_front.check_front, {"no weights": {"Z"}}, "no arms of the table"),
        (leak.check_leaks, {"north": {"near-duplicate": 6, "rephrased": 0}}, "more test questions"),
        (leak.check_leaks, {"north": {"near-duplicate": 7, "rephrased": 7}}, "lost a finding"),
        (leak.check_leaks, {"south": {"near-duplicate": 5, "rephrased": 5}}, "rephrased case is no near-dup"),
        (leak.check_leaks, {"south": {"near-duplicate": 0, "rephrased": 0}}, "its order and its letters"),
        (leak.check_leaks, {"east": {"near-duplicate": 0, "rephrased": 1}}, "fewer test questions"),
        (leak.check_leaks, {"east": {"near-duplicate": 0}}, "east: not answered yet: 'rephrased'"),
        (leak.check_leaks, {"east": 0}, "expected a dictionary"),
        (judge.check_judges, {"hallucination": ["claim counter"]}, "holds 0, so it ranks nobody"),
        (judge.check_judges, {"hallucination": ["length judge"]}, "the other sign than the exact one"),
        (judge.check_judges, {"faithfulness": ["noisy judge"]}, "2 judges are left out"),
        (judge.check_judges, {"faithfulness": ["noisy judge", "length judge"]}, "one judge is left out"),
        (judge.check_judges, {"backward_chaining": ["length judge"]}, "there is no order"),
        (judge.check_judges, {"backward_chaining": list(JUDGES["faithfulness"])}, "there is no order"),
        (judge.check_judges, {"hallucination": ["my uncle"]}, "my uncle"),
        (judge.check_judges, {"hallucination": "noisy judge"}, "expected a list"),
    ],
)
def test_wrong_answer_is_refused_for_its_reason(check, wrong, says, right, capsys):
    assert check(right[check] | wrong) is False
    assert re.search(says, capsys.readouterr().out)


@pytest.mark.parametrize("area", [0.93, 0.94, 0.935, 0.9349])
def test_an_area_by_hand_may_have_two_decimals(area):
    assert workshop_front.check_front(FRONT | {"hypervolume": area})


@pytest.mark.parametrize("arms", ["DEG", "D, E, G", ["D", "E", "G"], ("G", "E", "D")])
def test_arms_may_be_given_in_any_form(arms):
    assert workshop_front.check_front(FRONT | {"dominated": arms, "most missed": "B", "no weights": "F"})


def test_judges_may_be_given_in_any_letters():
    assert judge.check_judges(JUDGES | {"hallucination": {"Noisy judge"}})


def test_messages_do_not_give_the_answers_away(capsys):
    collapse.check_collapse(dict.fromkeys(COLLAPSE, 77))
    workshop_front.check_front(
        {"dominated": {"A"}, "hypervolume": 77, "most missed": {"A"}, "no weights": {"A"}}
    )
    assert not re.search(
        r"0\.71|1\.41|0\.48|0\.93|\b[B-F]\b(?! above)", capsys.readouterr().out.replace("G = 3, B'", "")
    )
    leak.check_leaks({name: dict.fromkeys(leak.LEAK_KINDS, 39) for name in LEAKS})
    assert set(re.findall(r"\d+", capsys.readouterr().out)) == {"6", "39"}  # of the exercise, of the answer


# ---- exercise 4 ----


def test_the_front_is_wrong_in_no_row_for_who_reads_it(right, capsys):
    """Every k of the table but the right one is refused, for one of the reasons."""
    answer, front = right[choose_k.check_k], choose_k.front_over_k()
    reasons = {
        "k": "stays below|more true claims",
        "k, safely": "lower end|more true",
        "same from": "further (up|down)",
    }
    for key, says in reasons.items():
        for k in set(front["k"]) - {answer[key]}:
            assert not choose_k.check_k(answer | {key: k})
            assert re.search(rf"'{key}': .*({says})", capsys.readouterr().out)
    assert not choose_k.check_k(answer | {"k": 7})
    assert "expected one of" in capsys.readouterr().out


def test_front_over_k_trades_claims_for_accuracy():
    front = choose_k.front_over_k()
    assert front["accuracy"].is_monotonic_increasing and front["faithfulness"].is_monotonic_decreasing
    assert (front["low"] < front["accuracy"]).all() and (front["accuracy"] < front["high"]).all()
    assert set(front["n"]) == {300}
    assert choose_k.forecast() == {"accuracy": "rises", "faithfulness": "falls"}
    assert front["accuracy"].min() < choose_k.accuracy_wanted() < front["low"].max()


def test_trained_table_is_what_the_laboratory_recorded():
    from clinical_r1.laboratory.records import SHIPPED, read_laboratory

    scores = read_laboratory(SHIPPED).scores.groupby("arm")[list(choose_k.MEASURES)].mean()
    table = choose_k.trained_with_k().set_index("measure")
    assert list(table.index) == list(choose_k.MEASURES)
    for name, row in table.iterrows():
        assert (row["k = 1"], row["k = 10"]) == pytest.approx(
            (scores.loc["k1", name], scores.loc["crpo", name])
        )
        assert row["difference"] == pytest.approx(row["k = 10"] - row["k = 1"])
        assert row["low"] <= row["difference"] <= row["high"]
    named = table.loc[list(PRIMARY_METRICS), "tests"]  # corrected together; tokens apart, as the text says
    assert named.nunique() == 1 and named.iloc[0] > table.loc["tokens", "tests"] > 0


def published(**p_and_difference):
    """Another laboratory's table: measure -> (p_holm, difference); the interval leaves 0 out but for a p of 1."""
    rows = []
    for name, (p, difference) in p_and_difference.items():
        width = 2 * abs(difference) if p == 1 else abs(difference) / 2
        rows.append(
            (
                name,
                5.0,
                5.0 + difference,
                difference,
                difference - width,
                difference + width,
                p,
                16,
                3.0,
                1000,
                8,
            )
        )
    columns = "measure,k = 1,k = 10,difference,low,high,p_holm,tests,detectable,questions,seeds".split(",")
    return pd.DataFrame(rows, columns=columns)


FOUR = dict(faithfulness=(0.001, 1), drc=(0.2, 1), hallucination=(1, 1), tokens=(0.001, -3))
LABORATORIES = {
    "accuracy settled": published(accuracy=(0.001, 4), **FOUR),
    "accuracy falls": published(accuracy=(0.001, -4), **FOUR),
    "claims fall": published(accuracy=(1, 2), **(FOUR | {"faithfulness": (0.01, -1)})),
    "nothing settled": published(**dict.fromkeys(choose_k.MEASURES, (1, 1))),
    "one seed": published(**dict.fromkeys(choose_k.MEASURES, (np.nan, 1))),
}


@pytest.mark.parametrize("name", LABORATORIES)
def test_key_solution_and_lesson_follow_what_is_published(name, monkeypatch, capsys):
    monkeypatch.setattr(choose_k, "trained_with_k", lambda: LABORATORIES[name])
    answer = right_k()
    assert choose_k.check_k(answer)
    said = capsys.readouterr().out
    for measure, change in answer["trained"].items():
        assert f"{measure} is {change}" in said or f"{measure} {change}" in said
    for measure, outcome in answer["forecast"].items():
        assert re.search(rf"forecast that {measure} \w+: {outcome}", said)
    names, _ = run_cells(FOLDER / "solutions" / "04_choose_k.ipynb")
    assert names["passed"] and names["answer"]["trained"] == answer["trained"]


@pytest.mark.parametrize(
    ("laboratory", "wrong", "says"),
    [
        ("accuracy settled", {"hallucination": "rises"}, "hallucination: the estimate has a sign"),
        ("accuracy settled", {"drc": "rises"}, "drc: the interval by itself leaves out 0.*p_holm"),
        ("accuracy settled", {"accuracy": "not settled"}, "accuracy: p_holm is below 0.05"),
        ("accuracy settled", {"tokens": "rises"}, "tokens: settled, but the other way"),
        (
            "accuracy settled",
            {"tokens": "grows"},
            "tokens is 'grows'; expected one of 'rises', 'falls', 'not settled'",
        ),
        ("accuracy settled", {"tokens": None}, "not answered yet: 'tokens'"),
        ("accuracy settled", {"joy": "rises"}, "'joy' is no key"),
        ("one seed", {"accuracy": "rises"}, "one training seed has no test"),
        ("nothing settled", {"faithfulness": "falls"}, "faithfulness: the estimate has a sign"),
    ],
)
def test_wrong_reading_of_training_is_refused_for_its_reason(laboratory, wrong, says, monkeypatch, capsys):
    monkeypatch.setattr(choose_k, "trained_with_k", lambda: LABORATORIES[laboratory])
    answer = right_k()
    assert not choose_k.check_k(answer | {"trained": answer["trained"] | wrong})
    assert re.search(says, capsys.readouterr().out)


@pytest.mark.parametrize("name", LABORATORIES)
def test_a_forecast_is_not_what_training_found(name, monkeypatch, capsys):
    """Whoever believes the first table, or takes "not settled" for no, is told."""
    monkeypatch.setattr(choose_k, "trained_with_k", lambda: LABORATORIES[name])
    answer = right_k()
    for measure in choose_k.FORECAST:
        for outcome in set(choose_k.OUTCOMES) - {answer["forecast"][measure]}:
            assert not choose_k.check_k(answer | {"forecast": answer["forecast"] | {measure: outcome}})
            assert f"'forecast': {measure} is not '{outcome}'" in capsys.readouterr().out


def test_laboratory_without_the_two_arms_is_refused():
    table = pd.DataFrame({"setting": ["k = 3"], "metric": ["accuracy"], "value": [1.0]})
    with pytest.raises(ValueError, match="expected k = 1 and k = 10"):
        choose_k._from_k_to_k(table)


# ---- exercises 5, 6, 7: materials ----


def test_the_packages_filter_agrees_with_the_answer_key():
    (kept,) = undominated(np.array([list(workshop_front.FRONT.values())]))
    dominated = {name for name, keep in zip(workshop_front.FRONT, kept, strict=True) if not keep}
    assert dominated == FRONT["dominated"]


def test_hypervolume_equals_a_count_of_small_squares():
    step = 0.005
    x = np.arange(0.2, 0.7, step) + step / 2
    y = np.arange(0.0, 3.0, step) + step / 2
    covered = np.zeros((len(x), len(y)), dtype=bool)
    for accuracy, claims in workshop_front.FRONT.values():
        covered |= np.less_equal.outer(x, np.full(len(y), accuracy)) & (y <= claims)
    assert workshop_front._front_truth()["hypervolume"] == pytest.approx(covered.sum() * step**2, abs=1e-6)


def key(question):
    case = Case.from_json(question.meta["case"])
    return case.gold, frozenset(case.options), frozenset(case.stated)


def test_splits_leak_what_they_say():
    for name, (train, test) in leak.leaking_splits().items():
        near = {j for _, j, _ in similar_pairs(train, test)}
        known = {key(question) for question in train}
        retold = {j for j, question in enumerate(test) if key(question) in known}
        assert (len(near), len(retold)) == leak.LEAKS[name]
        assert not near & retold
        assert len({question.id for question in [*train, *test]}) == len(train) + len(test)
        assert (len(train), len(test)) == (leak.TRAINING, 40)  # equal numbers tell nothing
        for question in train:
            assert question.options[question.answer] == Case.from_json(question.meta["case"]).gold


def test_leaks_counted_by_a_tool_that_is_blind_to_them_are_refused(capsys):
    """The pitfalls that the instructor's page lists."""

    def case(question):
        return Case.from_json(question.meta["case"])

    def counted(kind, count):
        return {
            name: LEAKS[name] | {kind: count(train, test)}
            for name, (train, test) in leak.leaking_splits().items()
        }

    def by(own_key):
        def count(train, test):
            known = [own_key(question) for question in train]
            return sum(own_key(question) in known for question in test)

        return counted("rephrased", count)

    assert leak.check_leaks(by(key))
    blind = {
        "pairs": (counted("near-duplicate", lambda a, b: len(similar_pairs(a, b))), "not pairs"),
        "what curate sets aside": (
            counted("near-duplicate", lambda a, b: len(curate(a, against=b).quarantined)),
            "what curate sets aside",
        ),
        "training questions": (
            counted("rephrased", lambda a, b: sum(key(q) in set(map(key, b)) for q in a)),
            "not their twins",
        ),
        "order": (
            by(lambda q: (case(q).gold, frozenset(case(q).options), case(q).stated)),
            "changes its words",
        ),
        "letters": (
            by(lambda q: (q.answer, tuple(q.options.items()), frozenset(case(q).stated))),
            "its order and its letters",
        ),
        "wording": (by(lambda q: q.stem), "changes its words"),
        "answer and options": (
            by(lambda q: (case(q).gold, frozenset(case(q).options))),
            "fewer test questions",
        ),
        "nothing": (dict.fromkeys(LEAKS, dict.fromkeys(leak.LEAK_KINDS, 0)), "more test questions"),
    }
    capsys.readouterr()
    for name, (answer, says) in blind.items():
        assert not leak.check_leaks(answer), name
        assert says in capsys.readouterr().out, name


def test_judges_order_as_the_solution_says():
    orders = judge._orders()
    assert {name: order["faithfulness"] for name, order in orders.items()} == dict.fromkeys(orders, "same")
    assert {name: order["hallucination"] for name, order in orders.items()} == {
        "claim counter": "judge undecided",
        "length judge": "reversed",
        "noisy judge": "same",
    }
    assert {order["backward_chaining"] for order in orders.values()} == {"exact undecided"}
