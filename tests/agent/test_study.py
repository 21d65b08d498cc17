"""Credit against the truth: what a turn was worth, by continuing its consultation, and how near the estimators come."""

from dataclasses import replace

import numpy as np
import pytest

from clinical_r1.agent.consultation import Rules, draw_patients
from clinical_r1.agent.episodes import Episode
from clinical_r1.agent.language import build_agent_tokenizer
from clinical_r1.agent.policies import POLICIES
from clinical_r1.agent.speaking import Scripted
from clinical_r1.agent.study import MEASURES, Plan, credit_rows, estimates, observe, true_advantages

PLAN = Plan(patients=4, pool=8, continuations=12, sizes=(4, 8), gammas=(1.0, 0.9), chunk=2)


@pytest.fixture(scope="module")
def patients():
    return draw_patients("validation", PLAN.patients, 4)


@pytest.fixture(scope="module")
def tokenizer():
    return build_agent_tokenizer()


def sometimes_wrong(consultation, rng):
    """Inquires at random, and diagnoses at random in one consultation of four."""
    text = POLICIES["random_inquiry"](consultation, rng)
    if " diagnose " in text and rng.random() < 0.25:
        return text.rpartition(" diagnose ")[0] + f" diagnose {rng.choice(consultation.patient.options)}"
    return text


@pytest.fixture(scope="module")
def observed(patients, tokenizer, tmp_path_factory):
    folder = tmp_path_factory.mktemp("study")
    return folder, observe(
        Scripted(sometimes_wrong, tokenizer), patients, Rules(), PLAN, folder, {"policy": "x"}
    )


def test_a_policy_that_always_does_the_same_has_no_advantage_over_itself(patients, tokenizer, tmp_path):
    def first(consultation, rng):
        return POLICIES["greedy"](consultation, np.random.default_rng(0))

    rows = observe(Scripted(first, tokenizer), patients[:1], Rules(), replace(PLAN, patients=1), tmp_path, {})
    truth, noise = true_advantages(rows)
    assert set(truth.values()) == {0.0} and set(noise.values()) == {0.0}


def test_a_true_advantage_is_reward_and_value_after_less_value_before(observed):
    _, rows = observed
    truth, _ = true_advantages(rows)
    row = rows[0]
    episode, returns = Episode.from_json(row["episode"]), [np.mean(values) for values in row["returns"]]
    for depth, turn in enumerate(episode.turns):
        later = returns[depth + 1] if depth + 1 < len(returns) else 0.0
        assert truth[turn.node] == pytest.approx(turn.reward + later - returns[depth])


def test_a_wrong_diagnosis_is_worth_less_than_a_right_one(observed):
    _, rows = observed
    truth, _ = true_advantages(rows)
    last = [(e.right, truth[e.turns[-1].node]) for e in (Episode.from_json(row["episode"]) for row in rows)]
    right, wrong = ([value for r, value in last if r is which] for which in (True, False))
    assert np.mean(right) > 0 > np.mean(wrong)


def test_what_is_finished_is_read_and_what_was_made_from_something_else_refused(observed, patients):
    folder, rows = observed
    assert sorted(path.name for path in folder.glob("*.jsonl")) == [
        "patients0000.jsonl",
        "patients0002.jsonl",
    ]
    assert observe(None, patients, Rules(), PLAN, folder, {"policy": "x"}) == rows, "nobody has to speak"
    with pytest.raises(ValueError, match="made from something else"):
        observe(None, patients, Rules(), PLAN, folder, {"policy": "y"})
    with pytest.raises(ValueError, match="made from something else"):
        observe(None, patients, Rules(horizon=4), PLAN, folder, {"policy": "x"})


def test_a_turn_in_several_rows_of_a_tree_has_the_mean_of_their_credits(observed):
    _, rows = observed
    found = estimates(rows, "tree", 8, False, 1.0)
    episodes = [Episode.from_json(row["episode"]) for row in rows if row["kind"] == "tree"]
    name = episodes[0].patient
    own = [e for e in episodes if e.patient == name]
    root = own[0].turns[0].node
    holders = [e for e in own if e.turns[0].node == root]
    tree = [e.reward for e in own if e.tree == own[0].tree]
    everyone = np.mean([e.reward for e in own])
    expected = np.mean([2 * e.reward - everyone - np.mean(tree) for e in holders])
    assert found[root] == pytest.approx(expected)
    assert len(holders) > 1, "the trunk's first turn stands in several rows"


def test_groups_are_whole_and_each_patients_own(observed):
    _, rows = observed
    for size in PLAN.sizes:
        found = estimates(rows, "episode", size, False, 1.0)
        chains = [Episode.from_json(row["episode"]) for row in rows if row["kind"] == "chain"]
        for start in range(0, len(chains), size):
            group = chains[start : start + size]
            assert len({e.patient for e in group}) == 1
            assert sum(found[e.turns[0].node] for e in group) == pytest.approx(0, abs=1e-9)


def test_the_table_has_every_estimator_at_every_size_with_its_n(observed):
    _, rows = observed
    table = credit_rows(rows, PLAN, np.random.default_rng(0))
    seen = {(row["estimator"], row["std"], row["group"], row["gamma"], row["measure"]) for row in table}
    assert len(seen) == len(table) == 2 * 2 * len(MEASURES) * (1 + 2 + 1 + 2)
    for row in table:
        assert row["patients"] == PLAN.patients and row["turns"] > 0
        assert row["value"] is None or row["low"] is None or row["low"] <= row["value"] <= row["high"]


@pytest.mark.parametrize("change", [{"sizes": (3,)}, {"sizes": (1,)}, {"pool": 6, "sizes": (2,)}])
def test_a_plan_that_cuts_groups_or_trees_is_refused(change):
    with pytest.raises(ValueError, match="expected (divisors|whole trees)"):
        replace(PLAN, **change)
