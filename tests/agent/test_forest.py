"""Chains, forests and continuations: what is drawn, what is copied, what it costs."""

from collections import Counter

import numpy as np
import pytest
import torch
from agent_cases import PRICED, Cut, careless, model_of, patients, random_inquiry, tokenizer

from clinical_r1.agent.consultation import Rules
from clinical_r1.agent.credit import anchor_statistics
from clinical_r1.agent.episodes import replay
from clinical_r1.agent.forest import Shape, chains, continuations, forest, prompt_ids
from clinical_r1.agent.language import TURN_TOKENS
from clinical_r1.agent.speaking import Forgetful, Scripted, Speaker, seed_of

RANDOM = Scripted(random_inquiry, tokenizer())
CARELESS = Cut(careless, 0.1)


class Counting(Forgetful):
    """A speaker that counts what it says."""

    def __init__(self, inner):
        self.inner, self.tokenizer, self.tokens, self.calls = inner, inner.tokenizer, 0, 0

    def __call__(self, *args):
        turns = self.inner(*args)
        self.tokens, self.calls = self.tokens + sum(map(len, turns)), self.calls + 1
        return turns


def by_tree(episodes):
    found = {}
    for episode in episodes:
        found.setdefault(episode.tree, []).append(episode)
    return found


# ---------------------------------------------------------------------------------------------------------- chains


def test_chains_are_n_a_patient_in_order():
    played = chains(CARELESS, patients(), PRICED, 3, seed=5)
    assert [e.patient for e in played.episodes] == [p.id for p in patients() for _ in range(3)]
    assert len({e.id for e in played.episodes}) == len(played.episodes)
    assert {(e.tree, e.parent, e.depth) for e in played.episodes} == {(None, None, 0)}
    assert len({tuple(turn.text for turn in e.turns) for e in played.episodes}) == len(played.episodes)
    assert played.sampled == played.trained == sum(e.agent_tokens for e in played.episodes)


def test_an_episode_is_the_same_in_any_batch():
    together = chains(CARELESS, patients(), PRICED, 3, seed=5).episodes
    alone = [e for p in reversed(patients()) for e in chains(CARELESS, [p], PRICED, 2, seed=5).episodes]
    assert {e.id: e for e in alone} == {e.id: e for e in together if not e.id.endswith("/2")}
    assert chains(CARELESS, patients(), PRICED, 3, seed=6).episodes != together


def test_a_patient_twice_would_get_the_same_draws_and_is_refused():
    with pytest.raises(ValueError, match="rl-0-menu8-00000 comes twice"):
        chains(CARELESS, [*patients(), patients()[0]], PRICED)


def test_seeds_differ_with_each_part():
    parts = [(1, "a", 0), (1, "a", 1), (1, "b", 0), (2, "a", 0), ("1", "a", 0)]
    assert len({seed_of(*each) for each in parts}) == len(parts)
    assert all(0 <= seed_of(*each) < 2**63 for each in parts)


# --------------------------------------------------------------------------------------------------- a model speaks


def contexts():
    prompts = [list(prompt_ids(tokenizer(), patient, PRICED)) for patient in patients()]
    return [prompt + list(range(20, 20 + 3 * i)) for i, prompt in enumerate(prompts)]


def test_a_row_of_a_model_is_the_same_in_any_batch():
    speaker = Speaker(model_of(torch.float64), tokenizer())
    rows, seeds = contexts(), list(range(6))
    together = speaker(rows, seeds)
    assert together == [speaker([row], [seed])[0] for row, seed in zip(rows, seeds, strict=True)]
    few = Speaker(speaker.model, tokenizer(), rows=4)
    assert few(rows, seeds) == together
    assert speaker(rows, [seed + 9 for seed in seeds]) != together


def test_a_greedy_turn_takes_the_likeliest_token_each_time():
    model = model_of(torch.float64)
    said = Speaker(model, tokenizer(), temperature=0)(contexts(), range(6))
    for context, turn in zip(contexts(), said, strict=True):
        ids = list(context)
        for token in turn:
            with torch.no_grad():
                scores = model(torch.tensor([ids])).logits[0, -1]
            assert token == scores.argmax().item()
            ids.append(token)


def test_a_turn_ends_with_its_first_end_or_is_cut():
    speaker = Speaker(model_of(), tokenizer())
    end = tokenizer().eos_token_id
    assert speaker._turn([5, end, 0, 0]) == [5, end]
    assert speaker._turn([5, 0, 7]) == [5, 0, 7]
    said = speaker(contexts(), range(6))
    assert all(len(turn) == TURN_TOKENS or turn[-1] == end for turn in said)
    assert all(end not in turn[:-1] for turn in said)


def test_a_cold_speaker_is_greedy():
    model, rows = model_of(torch.float64), contexts()
    cold = Speaker(model, tokenizer(), temperature=1e-6)(rows, range(6))
    assert cold == Speaker(model, tokenizer(), temperature=0)(rows, range(6))


@pytest.mark.parametrize(
    ("change", "match"), [(dict(temperature=-1), "number >= 0"), (dict(tokens=0), "at least 1")]
)
def test_a_speaker_refuses(change, match):
    with pytest.raises(ValueError, match=match):
        Speaker(None, tokenizer(), **change)


def test_an_untrained_model_plays_to_the_end():
    played = chains(Speaker(model_of(), tokenizer()), patients(2), PRICED, 2)
    for episode in played.episodes:
        patient = next(p for p in patients() if p.id == episode.patient)
        assert replay(episode, patient, PRICED).turns[-1].observation == ""


# ---------------------------------------------------------------------------------------------------------- forests


def test_a_forest_has_k_leaves_of_m_trees_a_patient():
    played = forest(CARELESS, patients(), PRICED, trees=3, expand=2, rounds=2, keep=4, seed=1)
    assert [e.patient for e in played.episodes] == [p.id for p in patients() for _ in range(12)]
    trees = [e.tree for e in played.episodes]
    assert [trees[i : i + 4] for i in range(0, len(trees), 4)] == [
        [f"{p.id}/{t}"] * 4 for p in patients() for t in range(3)
    ]
    assert len({e.id for e in played.episodes}) == len(played.episodes)


def test_more_leaves_than_a_tree_has_are_refused():
    with pytest.raises(ValueError, match="keep is 4 and a tree has 3 leaves"):
        forest(RANDOM, patients(1), PRICED, trees=2, expand=2, rounds=1, keep=4)
    assert Shape(2, 2, 1, 3).rows == 6


def test_a_branch_copies_its_parents_turns_and_goes_on_alone():
    """Ids, mask, rewards, keys and names of the copied turns are the parent's; the next turn starts from the same state."""
    episodes = forest(CARELESS, patients(), PRICED, trees=2, expand=3, rounds=2, keep=7, seed=2).episodes
    depths = Counter()
    for leaves in by_tree(episodes).values():
        assert leaves[0].parent is None and leaves[0].depth == 0
        for leaf in leaves[1:]:
            parent, depth = leaves[leaf.parent], leaf.depth
            assert leaf.turns[:depth] == parent.turns[:depth]
            assert depth < len(parent.turns)  # a leaf is never expanded
            assert leaf.turns[depth].key == parent.turns[depth].key
            assert leaf.turns[depth].node != parent.turns[depth].node
            assert (
                parent.depth < depth or depth == 0
            )  # a node is drawn from the leaf that grew it, the root from the trunk
            depths[depth] += 1
        for leaf in leaves:
            replay(leaf, next(p for p in patients() if p.id == leaf.patient), PRICED)
    assert min(depths[d] for d in range(4)) > 0


def test_nodes_are_drawn_uniformly_from_the_root_and_what_is_no_leaf():
    """A trunk of five turns has the root and four more; with replacement, so that both branches may leave the same node."""
    episodes = forest(RANDOM, patients(60), Rules(), trees=2, expand=2, rounds=1, keep=3, seed=3).episodes
    depths = Counter(e.depth for e in episodes if e.parent is not None)
    total = sum(depths.values())
    assert total == 240 and set(depths) == set(range(5))
    expected = total / 5
    assert (
        sum((n - expected) ** 2 / expected for n in depths.values()) < 18.5
    )  # chi2 with 4 degrees of freedom, p = .001
    same = [len({leaf.depth for leaf in leaves[1:]}) == 1 for leaves in by_tree(episodes).values()]
    assert np.mean(same) == pytest.approx(0.2, abs=0.1)


def test_a_later_round_also_draws_nodes_of_branches():
    episodes = forest(RANDOM, patients(30), Rules(), trees=1, expand=2, rounds=3, keep=7, seed=3).episodes
    assert any(e.parent not in (None, 0) for e in episodes)


def test_a_tree_whose_trunk_is_one_turn_has_only_its_root():
    once = Rules(horizon=1, earliest=1)
    episodes = forest(RANDOM, patients(), once, trees=2, expand=2, rounds=2, keep=5, seed=3).episodes
    assert {e.depth for e in episodes} == {0} and {len(e.turns) for e in episodes} == {1}


def test_leaves_are_kept_at_random():
    episodes = forest(RANDOM, patients(100), Rules(), trees=2, expand=3, rounds=1, keep=2, seed=3).episodes
    kept = Counter(int(e.id.rpartition(".")[2]) for e in episodes)
    assert set(kept) == {0, 1, 2, 3} and max(kept.values()) < 1.5 * min(kept.values())


def test_a_tree_is_the_same_in_any_batch():
    together = forest(CARELESS, patients(), PRICED, seed=4).episodes
    alone = [e for p in patients() for e in forest(CARELESS, [p], PRICED, seed=4).episodes]
    assert together == tuple(alone)


def test_tokens_are_counted_as_they_are_said():
    speaker = Counting(CARELESS)
    played = forest(speaker, patients(), PRICED, trees=2, expand=3, rounds=2, keep=3, seed=5)
    assert played.sampled == speaker.tokens  # those of pruned leaves too
    assert played.trained == sum(sum(e.env_mask) for e in played.episodes)
    assert speaker.calls <= 3 * PRICED.horizon  # all trees and patients in one batch


def test_a_branch_costs_what_the_paper_says():
    """(D + 1) / (2 D) of a chain of D turns, the root included: .6 for D = 5."""
    played = forest(RANDOM, patients(60), Rules(), seed=6)
    branches = played.sampled - 5 * 5 * 2 * 60  # five turns of five tokens, two trunks
    assert branches / (5 * 5 * 4 * 60) == pytest.approx(0.6, abs=0.04)


def test_a_forest_has_a_third_more_leaves_for_its_tokens_than_chains():
    """The main setting under a random policy: 6 / 4.4 = 1.364 in expectation; what is trained grows by the same factor."""
    tree, chain = (
        forest(RANDOM, patients(60), Rules(), seed=7),
        chains(RANDOM, patients(60), Rules(), 6, seed=7),
    )
    gain = tree.leaves_per_token / chain.leaves_per_token
    assert gain >= 1.3 and gain == pytest.approx(6 / 4.4, abs=0.1)
    assert tree.trained / tree.sampled == pytest.approx(
        gain, abs=1e-9
    )  # every episode has five turns of five tokens
    assert chain.trained == chain.sampled


def test_branch_points_are_anchors():
    """Two branches and their parent take their next turn in one state; copies of a turn count once."""
    for rounds, least in ((0, 0.0), (1, 0.3)):
        found = []
        keep = 1 + 3 * rounds
        episodes = forest(RANDOM, patients(60), Rules(menu=None), 2, 3, rounds, keep, seed=8).episodes
        keys = [[turn.key for turn in e.turns] for e in episodes]
        nodes = [[turn.node for turn in e.turns] for e in episodes]
        found = anchor_statistics(keys, [e.patient for e in episodes], nodes=nodes)["repeated"]
        assert found >= least
        assert rounds or found < 0.2


# ---------------------------------------------------------------------------------------------------- continuations


def test_continuations_begin_with_the_turns_before_the_point():
    episodes = chains(RANDOM, patients(), Rules(), 1, seed=9).episodes
    people = {p.id: p for p in patients()}
    points = [(e, depth) for e in episodes for depth in (0, 2, 4)]
    found = continuations(RANDOM, points, people, Rules(), 5, seed=1)
    for (episode, depth), several in zip(points, found, strict=True):
        assert len({each.id for each in several}) == 5
        for each in several:
            assert each.turns[:depth] == episode.turns[:depth] and each.depth == depth
            replay(each, people[episode.patient], Rules())
        assert len({each.turns[depth:] for each in several}) > 1


def test_a_state_is_worth_what_a_guess_is_right():
    """Before the last turn of one who guesses among four options: .25."""
    episodes = chains(RANDOM, patients(40), Rules(), 1, seed=9).episodes
    found = continuations(RANDOM, [(e, 4) for e in episodes], {p.id: p for p in patients(40)}, Rules(), 50)
    values = [np.mean([each.reward for each in several]) for several in found]
    assert np.mean(values) == pytest.approx(0.25, abs=4 * (0.25 * 0.75 / 2000) ** 0.5)


def test_a_leaf_is_not_continued():
    (episode,) = chains(RANDOM, patients(1), Rules()).episodes
    with pytest.raises(ValueError, match="expected 0 to 4: a leaf is not continued"):
        continuations(RANDOM, [(episode, 5)], {p.id: p for p in patients(1)}, Rules(), 2)


def test_a_point_of_another_patient_is_refused():
    (episode,) = chains(RANDOM, patients(1), Rules()).episodes
    with pytest.raises(ValueError, match="expected a state of the same patient"):
        continuations(RANDOM, [(episode, 2)], {episode.patient: patients()[1]}, Rules(), 2)
