"""Rewards and exact counts of the same completions: pytest tests/audit/test_reward_cases.py"""

import numpy as np
import pandas as pd
import pytest

from clinical_r1 import generate
from clinical_r1.audit import reward_cases
from clinical_r1.clinic.cases import Case, load_set
from clinical_r1.clinic.traces import teaching_completions
from clinical_r1.rewards import REWARD_SETS
from clinical_r1.score import exact_judge

REWARDS = ["Accuracy reward", "Clinical-reasoning reward", "Consistency reward"]


@pytest.fixture(scope="module")
def questions():
    return load_set("clinic", "validation", 6)


@pytest.fixture(scope="module")
def table(questions):
    groups = [teaching_completions(Case.from_json(question.meta["case"])) for question in questions]
    return reward_cases.judge_groups(questions, groups)


def test_totals_and_advantages_are_equations_4_and_3(questions, table):
    assert len(table) == 8 * len(questions)
    assert tuple(REWARD_SETS["crpo"].weights) == (10, 1, 0.5)
    assert table["total"].to_numpy() == pytest.approx(table[REWARDS].to_numpy() @ [10, 1, 0.5])
    for _, group in table.groupby("question"):
        by_hand = (group["total"] - group["total"].mean()) / group["total"].std()
        assert group["advantage"].to_numpy() == pytest.approx(by_hand.to_numpy(), abs=1e-3)


def test_counts_are_the_exact_judges(questions, table):
    group = teaching_completions(Case.from_json(questions[2].meta["case"]))
    rows = table[table["question"] == questions[2].id].set_index("completion")
    for name, text in group.items():
        counts = exact_judge(questions[2], text)
        assert rows.loc[name, list(reward_cases.MEASURES)].tolist() == [
            counts["faithfulness"],
            counts["hallucination"],
            counts["drc"],
        ]
    assert rows.loc["right, but invents evidence", "false claims"] > 0 == rows.loc["honest", "false claims"]


def test_a_group_is_tied_when_all_are_right_or_none_is(questions):
    texts = teaching_completions(Case.from_json(questions[0].meta["case"]))
    right, wrong = texts["honest"], texts["wrong, well formed"]
    pairs = [{"a": right, "b": right}, {"a": wrong, "b": wrong}, {"a": right, "b": wrong}]
    table = reward_cases.judge_groups([questions[0]] * 3, pairs)
    assert table["tied"].tolist() == [True, True, True, True, False, False]


def test_advantage_follows_what_it_was_made_from():
    table = pd.DataFrame(
        {
            "question": ["a", "a", "a", "b", "b", "b"],
            "tied": [False] * 3 + [True] * 3,
            "same": [1.0, 2, 6, 5, 5, 5],  # constant in the tied group
            "against": [-3.0, -4, -8, 7, 8, 9],
            "advantage": [-2.0, -1, 3, -1, 0, 1],
        }
    )
    found = reward_cases.advantage_follows(table, ["same", "against"])
    assert found.loc["mixed"].tolist() == pytest.approx([1, 1, -1])
    assert np.isnan(found.loc["tied", "same"]) and found.loc["tied", "against"] == pytest.approx(1)


def test_means_by_completion(questions, table):
    means = reward_cases.means_by_completion(table)
    assert list(means.index) == list(table["completion"][:8])
    honest = table[table["completion"] == "honest"]
    assert len(honest) == len(questions) and means.loc["honest", "total"] == pytest.approx(
        honest["total"].mean()
    )
    assert {"advantage", "false claims"} < set(means) and not {"tied", "letter"} & set(means)


def test_answers_by_false_claims():
    table = pd.DataFrame(
        {"false claims": [0, 0, 3, 5], "total": [12.0, 10, 1, 3], "true claims": [4, 2, 0, 0]}
    )
    rows = reward_cases.by_false_claims(table.assign(**{"options rejected": 0}))
    assert rows.index.tolist() == ["0", "3 or more"] and rows["answers"].tolist() == [2, 2]
    assert rows["total"].tolist() == [11, 2] and rows["true claims"].tolist() == [3, 0]


class Engine:
    """Says which prompt it was asked, and with which seed."""

    def __init__(self, problem=""):
        self.problem = problem

    def prompt(self, messages, forced=""):
        return messages[-1]["content"]

    def check(self, prompts, settings, what):
        if self.problem:
            raise ValueError(self.problem)

    def answer(self, prompts, settings, protocol, seeds):
        assert protocol == "sampled" and len(set(seeds)) == len(prompts) == len(seeds)
        return [{"text": f"{prompt} #{seed}"} for prompt, seed in zip(prompts, seeds, strict=True)]


def test_every_question_gets_its_own_samples(questions, monkeypatch):
    monkeypatch.setattr(generate, "load_method", lambda *_: Engine())
    groups, author = reward_cases.base_completions(questions, samples=3, seed=4)
    assert [list(group) for group in groups] == [["sample 1", "sample 2", "sample 3"]] * len(questions)
    for question, group in zip(questions, groups, strict=True):
        assert all(question.stem in text for text in group.values()) and len(set(group.values())) == 3
    assert author.startswith("the clinic's base model")
    assert groups == reward_cases.base_completions(questions, samples=3, seed=4)[0]
    assert groups != reward_cases.base_completions(questions, samples=3, seed=5)[0]


def test_a_base_model_that_cannot_read_the_questions_is_replaced_and_that_is_said(questions, monkeypatch):
    monkeypatch.setattr(generate, "load_method", lambda *_: Engine("it knows no word: 3 of 3. Use another."))
    groups, author = reward_cases.base_completions(questions, samples=2)
    assert author == "a script, not a model (it knows no word)"
    assert groups == reward_cases.scripted_completions(questions, 2, 0)
    assert all(len(group) == 2 and all(group.values()) for group in groups)
