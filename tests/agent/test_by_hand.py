"""Credit by hand: the example's numbers, as a pencil gives them."""

import pytest
from agent_patients import drawn

from clinical_r1.agent import by_hand, policies
from clinical_r1.agent.consultation import Rules
from clinical_r1.agent.credit import credit
from clinical_r1.agent.forest import chains
from clinical_r1.agent.language import build_agent_tokenizer
from clinical_r1.agent.speaking import Scripted


def by_episode(table, column):
    return {name: own[column].tolist() for name, own in table.groupby("episode")}


def test_the_example_has_the_references_numbers():
    table = by_hand.example()
    assert by_episode(table, "credit") == {
        "a": pytest.approx([1.1547, 1.1547, 1.2845], abs=1e-3),
        "b": pytest.approx([-2.3094, -1.1547, -2.3094, -1.8618], abs=1e-3),
        "c": pytest.approx([1.1547, 1.1547, 0.5773], abs=1e-3),
    }
    assert by_episode(table, "to_go")["a"] == pytest.approx([0.9025, 0.95, 1.0])
    assert by_episode(table, "met") == {"a": [3, 3, 2], "b": [3, 1, 3, 2], "c": [3, 3, 1]}
    centred = by_hand.example("gigpo_no_std")
    assert by_episode(centred, "credit")["c"] == pytest.approx([0.6342, 0.65, 0.3333], abs=1e-4)


def test_consultations_are_credited_as_in_training():
    patients = drawn("validation", 2)
    speaker = Scripted(policies.random_inquiry, build_agent_tokenizer())
    episodes = chains(speaker, patients, Rules(), 4, seed=3).episodes
    table = by_hand.credited(episodes)
    rewards, groups = [e.rewards for e in episodes], [e.patient for e in episodes]
    keys = [[turn.key for turn in e.turns] for e in episodes]
    known = credit("anchor", rewards, groups, keys=keys, gamma=0.95)
    assert table["credit"].tolist() == pytest.approx([value for row in known for value in row])
    assert table["grpo"].tolist() == pytest.approx(
        [v for row in credit("episode", rewards, groups) for v in row]
    )
    assert (table.loc[table["turn"] == 1, "met"] == 4).all() and (table["met"] >= 1).all()
    assert table.loc[table["met"] == 1, "anchor"].abs().max() == 0


def test_arms_without_anchors_are_refused():
    with pytest.raises(ValueError, match="expected gigpo"):
        by_hand.example("tree_grpo")
