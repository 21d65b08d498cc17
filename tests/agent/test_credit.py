"""Rewards of turns -> advantages of turns: equations as slow loops, golden vectors, and every edge case of the references.

Run: pytest tests/agent/test_credit.py
"""

import math
from collections import Counter
from statistics import mean, stdev

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clinical_r1.advantages import group_advantages
from clinical_r1.agent.credit import (
    ESTIMATORS,
    anchor_advantages,
    anchor_statistics,
    check_forest,
    check_groups,
    check_spans,
    credit,
    credit_terms,
    episode_returns,
    group_relative,
    returns_to_go,
    spread,
    tree_advantages,
    turn_spans,
)

torch = pytest.importorskip("torch")

# Three episodes of one patient: a and c end well, b does not
KEYS = [["s0", "s1", "s2"], ["s0", "s3", "s1", "s2"], ["s0", "s1", "s4"]]
REWARDS = [[0, 0, 1], [0, 0, 0, 0], [0, 0, 1]]
GROUPS = ["patient"] * 3
# Two trees of three leaves each, one patient
LEAVES = [[1.0], [0.2], [0.2], [0.2], [0.0], [0.2]]
TREES = [0, 0, 0, 1, 1, 1]


def near(rows, tolerance=1e-4):
    return [pytest.approx(row, abs=tolerance) for row in rows]


def random_batch(seed, missing=0.0):
    """(rewards, groups, keys, trees): ragged, states that repeat in part, ties, episodes of 1 to 5 turns."""
    rng = np.random.default_rng(seed)
    rewards, groups, keys, trees = [], [], [], []
    for patient in range(rng.integers(1, 4)):
        for episode in range(rng.integers(1, 7)):
            turns = rng.integers(1, 6)
            paid = rng.choice([0.0, -0.1, 0.5, 1.0], turns).tolist()
            rewards.append([None if rng.random() < missing else reward for reward in paid])
            keys.append([("start",)] + [("state", int(rng.integers(5))) for _ in range(turns - 1)])
            groups.append(f"patient {patient}")
            trees.append(episode // 3)
    return rewards, groups, keys, trees


# --- the equations word by word, in plain Python; NaN is a return that is not known


def slow_z(value, others, std, eps):
    others = [other for other in others if not math.isnan(other)]
    if math.isnan(value) or max(others) - min(others) <= 1e-12 * max(map(abs, others)):
        return 0.0
    return (value - mean(others)) / ((stdev(others) + eps) if std else 1.0)


def slow_episode(rewards, groups, std, eps):
    returns = [sum(row) for row in rewards]
    return [
        slow_z(returns[i], [returns[j] for j in range(len(rewards)) if groups[j] == groups[i]], std, eps)
        for i in range(len(rewards))
    ]


def slow_tree(rewards, groups, trees, std, eps):
    returns = [sum(row) for row in rewards]
    rows = range(len(rewards))
    return [
        slow_z(
            returns[i],
            [returns[j] for j in rows if groups[j] == groups[i] and trees[j] == trees[i]],
            std,
            eps,
        )
        for i in rows
    ]


def slow_return(row, t, gamma):
    return sum(gamma ** (k - t) * row[k] for k in range(t, len(row)) if gamma or k == t)


def slow_anchor(rewards, groups, keys, std, eps, gamma):
    result = []
    for i, row in enumerate(rewards):
        result.append([])
        for t in range(len(row)):
            members = [
                slow_return(other, u, gamma)
                for j, other in enumerate(rewards)
                for u in range(len(other))
                if groups[j] == groups[i] and keys[j][u] == keys[i][t]
            ]
            result[-1].append(slow_z(slow_return(row, t, gamma), members, std, eps))
    return result


def slow_credit(estimator, rewards, groups, keys, trees, std, omega, gamma, eps):
    rewards = [[math.nan if reward is None else reward for reward in row] for row in rewards]
    of_episode = slow_episode(rewards, groups, std, eps)
    of_tree = slow_tree(rewards, groups, trees, std, eps)
    of_anchor = slow_anchor(rewards, groups, keys, std, eps, gamma)
    result = []
    for i, row in enumerate(rewards):
        result.append([])
        for t in range(len(row)):
            advantage = of_episode[i]
            if estimator in ("tree", "tree+anchor"):
                advantage += of_tree[i]
            if estimator in ("anchor", "tree+anchor"):
                advantage += omega * of_anchor[i][t]
            result[-1].append(advantage)
    return result


@pytest.mark.parametrize("missing", [0.0, 0.15])
@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_fast_is_the_literal_equation_on_random_ragged_batches(estimator, missing):
    for seed in range(60):
        rewards, groups, keys, trees = random_batch(seed, missing)
        std, omega, gamma, eps = seed % 2 == 0, (1.0, 0.3)[seed % 3 == 0], (1.0, 0.95, 0.0)[seed % 3], 1e-6
        fast = credit(estimator, rewards, groups, keys, trees, std, omega, gamma, eps)
        slow = slow_credit(estimator, rewards, groups, keys, trees, std, omega, gamma, eps)
        assert [len(row) for row in fast] == [len(row) for row in rewards]
        assert fast == near(slow, 1e-9)


# --- golden vectors


def test_golden_returns_of_gigpo():
    assert returns_to_go(REWARDS, 0.95) == near([[0.9025, 0.95, 1], [0, 0, 0, 0], [0.9025, 0.95, 1]], 1e-12)
    assert episode_returns(REWARDS) == [1, 0, 1]


def test_golden_gigpo_with_std():
    assert credit_terms("episode", REWARDS, GROUPS)["episode"] == near(
        [[0.5773] * 3, [-1.1547] * 4, [0.5773] * 3]
    )
    expected = [[1.1547, 1.1547, 1.2845], [-2.3094, -1.1547, -2.3094, -1.8618], [1.1547, 1.1547, 0.5773]]
    assert credit("anchor", REWARDS, GROUPS, KEYS, gamma=0.95) == near(expected)


def test_golden_gigpo_without_std():
    expected = [[0.6342, 0.65, 0.8333], [-1.2683, -0.6667, -1.3, -1.1667], [0.6342, 0.65, 0.3333]]
    assert credit("anchor", REWARDS, GROUPS, KEYS, gamma=0.95, std=False) == near(expected)


def test_golden_tree_with_std():
    rows = ["patient"] * 6
    terms = credit_terms("tree", LEAVES, rows, trees=TREES)
    assert terms["episode"] == near([[1.9879], [-0.284], [-0.284], [-0.284], [-0.8519], [-0.284]])
    assert terms["tree"] == near([[1.1547], [-0.5773], [-0.5773], [0.5773], [-1.1547], [0.5773]])
    expected = [[3.1426], [-0.8613], [-0.8613], [0.2934], [-2.0066], [0.2934]]
    assert credit("tree", LEAVES, rows, trees=TREES) == near(expected)


def test_golden_tree_without_std():
    """By hand: the mean of all is .3, of the trees .4666 and .1333."""
    expected = [[0.7 + 0.53333], [-0.1 - 0.26667], [-0.1 - 0.26667]]
    expected += [[-0.1 + 0.06667], [-0.3 - 0.13333], [-0.1 + 0.06667]]
    assert credit("tree", LEAVES, ["patient"] * 6, trees=TREES, std=False) == near(expected)


@pytest.mark.parametrize("eps", [0.0, 1e-6])
def test_golden_tree_2norm_equals_intra_only(eps):
    """z by prompt, then again by tree: the second cancels shift and scale of the first."""
    returns = episode_returns(LEAVES)
    by_prompt = group_relative(returns, ["patient"] * 6, eps=eps).tolist()
    twice = tree_advantages(by_prompt, TREES, eps=eps)
    assert twice == pytest.approx([1.1547, -0.5773, -0.5773, 0.5773, -1.1547, 0.5773], abs=1e-4)
    assert twice == pytest.approx(tree_advantages(returns, TREES, eps=eps), abs=1e-12 if eps == 0 else 2e-5)


# --- equality with GRPO


@pytest.mark.parametrize("std", [True, False])
def test_episode_is_grpo_and_without_std_dr_grpo(std):
    rng = np.random.default_rng(0)
    rewards = [rng.normal(size=rng.integers(1, 5)).tolist() for _ in range(24)]
    groups = [i // 6 for i in range(24)]
    returns = torch.tensor(episode_returns(rewards), dtype=torch.float64)[:, None]
    expected = group_advantages(returns, [1.0], 6, eps=1e-6, scale=std).tolist()
    got = credit("episode", rewards, groups, std=std)
    assert got == near([[value] * len(row) for value, row in zip(expected, rewards, strict=True)], 1e-12)


@pytest.mark.parametrize("std", [True, False])
def test_gigpo_is_grpo_where_no_state_repeats_and_where_omega_is_zero(std):
    unique = [[(i, t) for t in range(len(row))] for i, row in enumerate(REWARDS)]
    expected = credit("episode", REWARDS, GROUPS, std=std)
    assert credit("anchor", REWARDS, GROUPS, unique, std=std, gamma=0.95) == expected
    assert credit("anchor", REWARDS, GROUPS, KEYS, std=std, omega=0.0) == expected


def test_a_first_state_that_all_share_doubles_the_episode_term_of_turn_0_alone():
    """ "No state repeats, so this is GRPO" is true beyond the root only."""
    keys = [["root", *((i, t) for t in range(1, len(row)))] for i, row in enumerate(REWARDS)]
    got = credit("anchor", REWARDS, GROUPS, keys, gamma=1.0)
    episode = credit("episode", REWARDS, GROUPS)
    for mine, base in zip(got, episode, strict=True):
        assert mine[0] == pytest.approx(2 * base[0]) and mine[1:] == base[1:]


def test_trees_of_one_leaf_and_one_tree_for_all():
    rewards = [[1.0], [0.0], [0.5]]
    episode = credit("episode", rewards, GROUPS)
    assert credit("tree", rewards, GROUPS, trees=["a", "b", "c"]) == episode
    assert credit("tree", rewards, GROUPS, trees=["a"] * 3) == near(
        [[2 * value] for (value,) in episode], 1e-12
    )


# --- edge cases of GiGPO's reference (companions A3)


def test_an_episode_has_one_macro_advantage_whatever_its_turns_cost():
    """The reference has a row a step: the penalty of one step gave rows of one episode several episode scores."""
    terms = credit_terms("anchor", [[-0.1, 0, 1], [0, 0]], ["p", "p"], [["a", "b", "c"], ["a", "d"]])
    assert [len(set(row)) for row in terms["episode"]] == [1, 1]
    assert terms["episode"] == near([[0.7071] * 3, [-0.7071] * 2])


def test_the_macro_baseline_counts_episodes_not_steps():
    """Of ten steps six belong to winners, of three episodes two: the mean is 2/3, the reference's default says .6."""
    got = [row[0] for row in credit("episode", REWARDS, GROUPS, std=False)]
    assert got == pytest.approx([1 / 3, -2 / 3, 1 / 3])
    by_steps = [sum(row) for row in REWARDS for _ in row]
    assert mean(by_steps) == pytest.approx(0.6) and stdev(by_steps) == pytest.approx(0.5164, abs=1e-4)


def test_the_mean_over_steps_drifts_though_each_group_sums_to_zero():
    per_episode = credit("episode", REWARDS, GROUPS)
    assert sum(row[0] for row in per_episode) == pytest.approx(0)
    assert mean(value for row in per_episode for value in row) == pytest.approx(-0.1155, abs=1e-4)


def test_a_group_of_one_gets_zero_not_its_raw_reward():
    assert group_relative([0.7, 1.0, 0.0], ["alone", "two", "two"])[0] == 0
    assert credit("episode", [[0.0, 0.7]], ["alone"]) == [[0.0, 0.0]]
    assert credit("tree", [[0.7]], ["alone"], trees=["t"]) == [[0.0]]


def test_a_state_met_once_gets_exactly_zero():
    terms = credit_terms("anchor", REWARDS, GROUPS, KEYS, gamma=0.95)
    assert terms["anchor"][1][1] == 0.0 and terms["anchor"][2][2] == 0.0  # s3, s4
    assert terms["anchor"][0][1] != 0.0


def test_no_rows_no_turns_and_no_name_are_refused():
    with pytest.raises(ValueError, match="got no rows"):
        credit("episode", [], [])
    with pytest.raises(ValueError, match=r"row 1 has the rewards \[\]; expected one finite number a turn"):
        credit("episode", [[1.0], []], ["p", "p"])
    with pytest.raises(ValueError, match="row 1 has no group"):
        credit("anchor", [[1.0], [0.0]], ["p", None], [["a"], ["a"]])
    with pytest.raises(ValueError, match="row 0 has no tree"):
        credit("tree", [[1.0], [0.0]], ["p", "p"], trees=[None, 0])


@pytest.mark.parametrize("values", [(0.0, 1.0), (-3.0, 40.0), (0.2, 0.21)])
def test_two_members_get_the_unbiased_deviation_whatever_their_distance(values):
    assert group_relative(values, [0, 0], eps=0).tolist() == pytest.approx([-math.sqrt(0.5), math.sqrt(0.5)])


@pytest.mark.parametrize("eps", [1e-4, 1e-6, 0.0])
@pytest.mark.parametrize("std", [True, False])
def test_float32_residue_of_a_constant_group_is_no_advantage(eps, std):
    """15 returns of 1.79 in float32: the mean is not 1.79, and residue / 1e-6 was an advantage of 0.3."""
    values = torch.full((30,), 1.79)
    assert ((values[:15] - values[:15].mean()) / (values[:15].std() + 1e-6)).abs().max() > 0.1
    values[15:] = torch.arange(15) / 7  # beside a group that does vary
    got = group_relative(values, [0] * 15 + [1] * 15, std, eps)
    assert got.dtype == torch.float32 and got[:15].eq(0).all() and got[15:].abs().max() > 0.5
    assert credit("episode", [[1.79]] * 15, ["p"] * 15, std=std, eps=eps) == [[0.0]] * 15


def test_returns_equal_on_paper_but_not_in_float64_are_no_advantage():
    rewards = [[0.1, 0.2], [0.3, 0.0], [0.2, 0.1]]
    assert len({sum(row) for row in rewards}) == 2
    assert credit("episode", rewards, GROUPS, eps=0) == [[0.0, 0.0]] * 3
    keys = [["a", "b"], ["a", "c"], ["a", "d"]]
    assert credit("anchor", rewards, GROUPS, keys, eps=0) == [[0.0, 0.0]] * 3


@pytest.mark.parametrize("key", [["s", 1], {"known": 1}, {"s"}, np.zeros(2), torch.zeros(1), None])
def test_a_key_that_is_no_state_is_refused_by_name(key):
    """Lists, dicts and arrays can change, a tensor hashes by identity, and None would join all that have no key."""
    with pytest.raises(TypeError, match="the key of row 1, turn 0 is .*; expected a hashable state"):
        anchor_advantages([[1.0], [0.0]], [["s"], [key]], ["p", "p"])


@pytest.mark.parametrize("key", ["s", 3, ("case", frozenset({("fever", True)}), 4), b"s", 0.5])
def test_hashable_keys_of_any_kind_are_states(key):
    assert anchor_advantages([[1.0], [0.0]], [[key], [key]], ["p", "p"], std=False) == [[0.5], [-0.5]]


def test_states_that_look_alike_are_two_states():
    """No similarity grouping: one letter's difference can be the finding that decides."""
    keys = [["fever, no rash"], ["fever, a rash"]]
    assert anchor_advantages([[1.0], [0.0]], keys, ["p", "p"]) == [[0.0], [0.0]]


def test_a_key_that_forgets_the_turns_left_compares_two_different_states():
    """After a wasted turn the same is known and less time is left."""
    returns = [[1.0, 1.0], [0.0, 0.0]]
    forgets = [["complaint", "fever"], ["complaint", "complaint"]]
    knows = [[("complaint", 5), ("fever", 4)], [("complaint", 5), ("complaint", 4)]]
    assert anchor_advantages(returns, forgets, ["p", "p"], std=False) == near([[2 / 3, 0], [-1 / 3, -1 / 3]])
    assert anchor_advantages(returns, knows, ["p", "p"], std=False) == [[0.5, 0.0], [-0.5, 0.0]]


def test_a_penalty_is_charged_to_the_turns_before_it_too():
    """The reference takes it from the discounted return of its own step alone."""
    assert returns_to_go([[0, -0.1, 1]], 0.5) == near([[0.2, 0.4, 1.0]], 1e-12)


def test_copied_rows_would_enter_the_means_and_are_refused():
    once = credit("episode", [[1.0], [0.0]], ["p", "p"], std=False)
    copied = credit("episode", [[1.0], [0.0], [0.0]], ["p"] * 3, std=False)
    assert copied[0] != once[0]
    with pytest.raises(ValueError, match="got 3 rows for groups of 2"):
        check_groups(["p"] * 3, 2)
    with pytest.raises(ValueError, match="rows 2 to 3 are not one group of their own"):
        check_groups(["p"] * 4, 2)


def test_a_group_whose_episodes_all_return_the_same_has_no_advantage():
    """What dynamic sampling drops; with gamma = 1 and a reward at the end alone the anchors are silent as well."""
    keys = [["a", "b"], ["a", "b"], ["a", "c"]]
    assert credit("anchor", [[0, 1], [0, 1], [0, 1]], GROUPS, keys) == [[0.0, 0.0]] * 3


def test_with_gamma_1_and_a_reward_at_the_end_every_return_is_the_episodes():
    assert returns_to_go(REWARDS, 1.0) == [[sum(row)] * len(row) for row in REWARDS]


def test_gamma_below_1_prefers_the_shorter_way_to_the_same_end():
    keys = [["a", "b"], ["a"]]
    long, short = credit_terms("anchor", [[0, 1], [1]], ["p", "p"], keys, gamma=0.9, std=False)["anchor"]
    assert long[0] == pytest.approx(-0.05) and short[0] == pytest.approx(0.05)


def test_omega_weighs_the_anchor_term_and_gamma_touches_no_other():
    base = credit_terms("tree+anchor", REWARDS, GROUPS, KEYS, [0, 0, 1], gamma=0.95)
    half = credit_terms("tree+anchor", REWARDS, GROUPS, KEYS, [0, 0, 1], gamma=0.95, omega=0.5)
    other = credit_terms("tree+anchor", REWARDS, GROUPS, KEYS, [0, 0, 1], gamma=0.5)
    assert half["anchor"] == near([[value / 2 for value in row] for row in base["anchor"]], 1e-12)
    for name in ("episode", "tree"):
        assert base[name] == half[name] == other[name]
    assert other["anchor"] != base["anchor"]


def test_a_state_is_pooled_over_all_times_of_all_episodes_of_its_own_patient_only():
    returns = [[3.0, 1.0], [2.0], [50.0]]
    keys = [["s", "s"], ["s"], ["s"]]
    assert anchor_advantages(returns, keys, ["p", "p", "q"], std=False) == [[1.0, -1.0], [0.0], [0.0]]


# --- edge cases of Tree-GRPO's reference (companions C3)


def test_keep_must_not_exceed_the_leaves_of_a_tree():
    assert check_forest(2, 2, 1, 3) == 6 and check_forest(4, 1, 0, 1) == 4
    with pytest.raises(ValueError, match=r"keep is 4 and a tree has 3 leaves \(1 \+ 2 x 1\)"):
        check_forest(2, 2, 1, 4)
    for wrong in ((0, 2, 1, 1), (2, 0, 1, 1), (2, 2, -1, 1), (2, 2, 1, 0), (2, 2, 1, 1.5)):
        with pytest.raises(ValueError, match="expected a whole number >="):
            check_forest(*wrong)


def test_the_tree_term_pools_all_leaves_not_the_siblings_of_a_fork():
    """Leaves 0 and 1 are siblings; their mean alone would give +-.5."""
    assert tree_advantages([1.0, 0.0, 0.5, 0.5, 1.0], ["t"] * 5, std=False) == pytest.approx(
        [0.4, -0.6, -0.1, -0.1, 0.4]
    )


def test_a_tree_without_a_difference_adds_exactly_nothing():
    terms = credit_terms("tree", [[0.2], [0.2], [0.2], [1.0]], ["p"] * 4, trees=["a", "a", "a", "b"])
    assert terms["tree"] == [[0.0]] * 4 and terms["episode"][0] != [0.0]


def test_one_success_of_three_leaves_is_the_largest_tree_term():
    rng = np.random.default_rng(1)
    assert max(tree_advantages([0, 0, 1], ["t"] * 3)) == pytest.approx(1.1547, abs=1e-4)
    draws = [tree_advantages(rng.choice([0.0, 0.2, 1.0, 5.0], 3), ["t"] * 3) for _ in range(200)]
    assert max(abs(value) for draw in draws for value in draw) <= 2 / math.sqrt(3)


def test_a_reward_of_zero_is_a_reward_and_none_is_not():
    """In the reference's mask the two are one."""
    assert credit("episode", [[1.0], [0.0], [0.0]], GROUPS, std=False) == near([[2 / 3], [-1 / 3], [-1 / 3]])
    assert credit("episode", [[1.0], [0.0], [None]], GROUPS, std=False) == [[0.5], [-0.5], [0.0]]


def test_an_unscored_turn_silences_what_needs_it_and_nothing_else():
    rewards = [[None, 1.0], [0.0, 0.0]]
    keys = [["a", "b"], ["a", "b"]]
    assert np.isnan(returns_to_go(rewards)[0][0]) and returns_to_go(rewards)[0][1] == 1.0
    assert credit("anchor", rewards, ["p", "p"], keys, std=False) == [[0.0, 0.5], [0.0, -0.5]]
    assert returns_to_go([[1.0, None]], 0.0)[0][0] == 1.0


def test_what_a_whole_tree_shares_gets_the_episode_term_alone():
    """A node's weight is the sum over the leaves below it; the tree term sums to 0 over a tree."""
    terms = credit_terms("tree", LEAVES, ["patient"] * 6, trees=TREES)
    for tree in (slice(0, 3), slice(3, 6)):
        assert sum(row[0] for row in terms["tree"][tree]) == pytest.approx(0, abs=1e-12)


def test_trees_and_groups_of_one_name_are_not_joined():
    """The reference's prompt name is a row index: joined data sets share groups. Tree names may repeat over patients."""
    rewards, groups = [[1.0], [0.0], [5.0], [3.0]], ["p", "p", "q", "q"]
    got = credit_terms("tree", rewards, groups, trees=[0, 0, 0, 0], std=False)
    assert got["tree"] == [[0.5], [-0.5], [1.0], [-1.0]]
    with pytest.raises(ValueError, match="rows 2 to 3 are not one tree of their own"):
        check_groups(["p"] * 4, 4, trees=[0, 0, 0, 0], keep=2)
    with pytest.raises(ValueError, match="rows 4 to 5 are not one group of their own, which starts with 'p'"):
        check_groups(["p", "p", "q", "q", "p", "p"], 2)


# --- the shape of a batch


def test_prompts_must_come_repeated_in_a_row():
    check_groups(["p", "p", "q", "q"], 2)
    check_groups(torch.tensor([7, 7, 3, 3]), 2)
    for names in (["p", "q", "p", "q"], ["p", "p", "p", "q"]):
        with pytest.raises(ValueError, match="rows 0 to 1 are not|rows 2 to 3 are not"):
            check_groups(names, 2)
    with pytest.raises(ValueError, match="got 0 rows"):
        check_groups([], 2)


def test_a_batch_that_cuts_a_group_or_a_tree_is_refused():
    trees = ["a", "a", "a", "b", "b", "b"]
    check_groups(["p"] * 6, 6, trees, 3)
    with pytest.raises(ValueError, match="the batch cuts a group"):
        check_groups(["p"] * 5, 6)
    with pytest.raises(ValueError, match="rows 3 to 5 are not one tree"):
        check_groups(["p"] * 6, 6, ["a", "a", "a", "b", "b", "c"], 3)
    with pytest.raises(ValueError, match="trees of 4 leaves for 6 rows"):
        check_groups(["p"] * 6, 6, trees, 4)
    with pytest.raises(ValueError, match="got 5 trees of 3 leaves for 6 rows"):
        check_groups(["p"] * 6, 6, trees[:5], 3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"estimator": "gigpo"}, "estimator 'gigpo' is not known; expected one of episode, anchor"),
        ({"keys": None}, "estimator 'tree\\+anchor' got no keys"),
        ({"trees": None}, "estimator 'tree\\+anchor' got no trees"),
        ({"omega": -1.0}, "omega is -1.0; expected a finite number >= 0"),
        ({"omega": math.nan}, "omega is nan"),
        ({"gamma": 1.5}, "gamma is 1.5; expected a number from 0 to 1"),
        ({"groups": ["p", "p"]}, "got 3 rows of rewards for 2 groups"),
        ({"trees": [0, 1]}, "got 2 trees for 3 rows"),
        ({"keys": [["s0"], KEYS[1], KEYS[2]]}, "row 0 has 3 returns and 1 keys"),
        ({"rewards": [[0, 0, math.inf], *REWARDS[1:]]}, "row 0 has the rewards .*inf"),
    ],
)
def test_wrong_arguments_name_what_was_expected(change, message):
    given = {
        "estimator": "tree+anchor",
        "rewards": REWARDS,
        "groups": GROUPS,
        "keys": KEYS,
        "trees": [0, 0, 1],
    }
    with pytest.raises(ValueError, match=message):
        credit(**given | change)


def test_group_relative_refuses_what_does_not_fit():
    with pytest.raises(ValueError, match=r"shape \(3,\) for 2 group names"):
        group_relative([1, 2, 3], [0, 0])
    with pytest.raises(ValueError, match="finite numbers"):
        group_relative([1, math.inf], [0, 0])
    with pytest.raises(TypeError, match="the group of row 0 is a list"):
        group_relative([1, 2], [[0], [0]])


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_group_relative_computes_in_float64_and_returns_the_given_type(dtype):
    values = torch.tensor([1.0, 0.0, 0.5, 3.0])
    expected = group_relative(values.tolist(), [0, 0, 1, 1])
    assert expected.dtype == torch.float64
    assert torch.equal(group_relative(values, torch.tensor([0, 0, 1, 1]), dtype=dtype), expected.to(dtype))


# --- tokens <-> turns


def test_spans_are_the_runs_of_the_agents_tokens():
    mask = [[1, 1, 0, 1, 0, 0], [0, 0, 0, 0, 0, 0], [1, 1, 1, 1, 1, 1], [0, 1, 0, 1, 1, 1]]
    expected = [[(0, 2), (3, 4)], [], [(0, 6)], [(1, 2), (3, 6)]]
    for dtype in (torch.int64, torch.bool, torch.float32):
        assert turn_spans(torch.tensor(mask).to(dtype)) == expected
    check_spans(expected, [2, 0, 1, 2])
    assert turn_spans(torch.zeros(2, 0)) == [[], []]


def test_the_padding_of_tool_mask_is_no_turn():
    """TRL pads tool_mask with 1."""
    tool, completion = torch.tensor([[1, 0, 1, 1]]), torch.tensor([[1, 1, 0, 0]])
    assert turn_spans(tool) == [[(0, 1), (2, 4)]]
    assert turn_spans(tool * completion) == [[(0, 1)]]


def test_two_turns_without_a_token_of_the_environment_between_them_are_found_out():
    with pytest.raises(ValueError, match="row 1 has 1 spans of the agent's tokens and 2 turns in its trace"):
        check_spans(turn_spans(torch.tensor([[1, 0, 1], [1, 1, 0]])), [2, 2])
    with pytest.raises(ValueError, match="spans of 1 rows and traces of 2"):
        check_spans([[(0, 1)]], [1, 1])


@pytest.mark.parametrize("mask", [torch.tensor([1, 0]), torch.tensor([[0.5]]), torch.tensor([[2, 0]])])
def test_a_mask_that_is_none_is_refused(mask):
    with pytest.raises(ValueError, match="expected \\(N, T\\) of 0 and 1"):
        turn_spans(mask)


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 4), st.integers(1, 12), st.randoms(use_true_random=False))
def test_spans_and_spread_are_inverse(rows, width, random):
    mask = torch.tensor([[random.randint(0, 1) for _ in range(width)] for _ in range(rows)])
    spans = turn_spans(mask)
    assert [sum(end - start for start, end in row) for row in spans] == mask.sum(dim=1).tolist()
    assert all(a[1] < b[0] for row in spans for a, b in zip(row, row[1:], strict=False))
    assert torch.equal(spread([[1.0] * len(row) for row in spans], spans, width), mask.float())
    values = [[random.uniform(-2, 2) for _ in row] for row in spans]
    tensor = spread(values, spans, width, torch.float64)
    assert tensor[mask == 0].eq(0).all()
    for i, row in enumerate(spans):
        for value, (start, end) in zip(values[i], row, strict=True):
            assert tensor[i, start:end].eq(value).all()


def test_spread_refuses_what_would_fall_outside_or_be_no_number():
    with pytest.raises(ValueError, match=r"row 0 has the span \(2, 5\); expected it within 0 and 4"):
        spread([[1.0]], [[(2, 5)]], 4)
    with pytest.raises(ValueError, match="row 0 has the value nan"):
        spread([[math.nan]], [[(0, 1)]], 4)
    with pytest.raises(ValueError, match="row 0 has 1 spans of the agent's tokens and 2 turns"):
        spread([[1.0, 2.0]], [[(0, 1)]], 4)


# --- what each promises


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 10_000), st.booleans())
def test_every_term_sums_to_zero_over_what_it_compares(seed, std):
    rewards, groups, keys, trees = random_batch(seed)
    terms = credit_terms("tree+anchor", rewards, groups, keys, trees, std, gamma=0.95)
    sums = Counter()
    for i, group in enumerate(groups):
        sums[group] += terms["episode"][i][0]
        sums[group, trees[i]] += terms["tree"][i][0]
        for t, key in enumerate(keys[i]):
            sums[group, "state", key] += terms["anchor"][i][t]
    assert max(map(abs, sums.values())) < 1e-9


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from(ESTIMATORS))
def test_a_shift_and_the_order_of_rows_change_nothing_and_a_scale_only_without_std(seed, estimator):
    rewards, groups, keys, trees = random_batch(seed)
    rewards = [
        [0.0] * (len(row) - 1) + [sum(row)] for row in rewards
    ]  # at the end, as a shift of it moves every return
    base = credit(estimator, rewards, groups, keys, trees, eps=0)
    moved = [[*row[:-1], 3 * row[-1] + 2] for row in rewards]
    assert credit(estimator, moved, groups, keys, trees, eps=0) == near(base, 1e-6)
    centred = credit(estimator, rewards, groups, keys, trees, std=False)
    tripled = credit(estimator, moved, groups, keys, trees, std=False)
    assert tripled == near([[3 * value for value in row] for row in centred], 1e-9)
    order = np.random.default_rng(seed).permutation(len(groups))
    shuffled = credit(
        estimator, *([part[i] for i in order] for part in (rewards, groups, keys, trees)), eps=0
    )
    assert shuffled == near([base[i] for i in order], 1e-6)


# --- what the states allow


def test_statistics_by_hand():
    """Beyond s0: s1 three times, s2 twice, s3 and s4 once."""
    anchors = credit_terms("anchor", REWARDS, GROUPS, KEYS, gamma=0.95)["anchor"]
    got = anchor_statistics(KEYS, GROUPS, advantages=anchors)
    assert got["turns"] == 7 and got["repeated"] == pytest.approx(5 / 7)
    assert got["singletons"] == pytest.approx(2 / 7) and got["lone_states"] == pytest.approx(2 / 4)
    assert got["mean_group"] == pytest.approx(7 / 4) and got["informative"] == pytest.approx(5 / 7)
    assert got["by_turn"] == {1: pytest.approx(2 / 3), 2: pytest.approx(2 / 3), 3: 1.0}
    assert got["sentence"] is None and anchor_statistics(KEYS, GROUPS)["informative"] is None


def test_the_first_state_is_no_repeat_and_wasted_turns_are_not_counted():
    keys = [["root", "a", "wasted"], ["root", "b", "wasted"]]
    got = anchor_statistics(keys, ["p", "p"])
    assert got["turns"] == 4 and got["repeated"] == 0.5
    got = anchor_statistics(keys, ["p", "p"], valid=[[True, True, False]] * 2)
    assert got["turns"] == 2 and got["repeated"] == 0.0
    assert anchor_statistics(keys, ["p", "p"], depth=0)["repeated"] == pytest.approx(4 / 6)
    assert anchor_statistics(keys, ["p", "q"], depth=0)["repeated"] == 0.0  # two patients share no state


def test_copies_of_one_turn_in_the_rows_of_a_tree_are_no_repeat():
    keys = [["root", "a", "b"], ["root", "a", "c"], ["root", "d", "b"]]
    nodes = [[0, 1, 2], [0, 1, 3], [0, 4, 5]]
    assert anchor_statistics(keys, GROUPS)["repeated"] == pytest.approx(4 / 6)
    got = anchor_statistics(keys, GROUPS, nodes=nodes, advantages=[[0, 0.5, 0], [0, 0, 0], [0, 0, 0]])
    assert got["turns"] == 5 and got["repeated"] == pytest.approx(2 / 5)
    assert got["informative"] == pytest.approx(1 / 5)
    with pytest.raises(ValueError, match="row 1, turn 1 is a copy of 1 with another state"):
        anchor_statistics([["root", "a"], ["root", "b"]], ["p", "p"], nodes=[[0, 1], [0, 1]])


def test_where_few_states_repeat_a_sentence_says_that_this_is_grpo():
    keys = [["root", i, "end" if i < 2 else (i, "own")] for i in range(6)]
    got = anchor_statistics(keys, ["p"] * 6)
    assert got["singletons"] == pytest.approx(10 / 12)
    assert got["sentence"].startswith("In 83% of the turns beyond the first the state is met once")
    assert "behaves as GRPO" in got["sentence"]


def test_without_a_turn_to_count_shares_are_unknown_not_zero():
    got = anchor_statistics([["root"], ["root"]], ["p", "p"], advantages=[[0.0], [0.0]])
    assert got["turns"] == 0 and got["by_turn"] == {}
    assert all(
        got[name] is None
        for name in ("repeated", "singletons", "mean_group", "lone_states", "informative", "sentence")
    )
    with pytest.raises(ValueError, match="row 0 has 1 keys and 2 valid"):
        anchor_statistics([["root"]], ["p"], valid=[[True, True]])
