"""Rewards -> advantages: literal loops, equations by hand, TRL, and the failures that others have shipped.

Run: pytest tests/test_advantages.py
"""

import inspect
import math
from statistics import mean, stdev

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clinical_r1.advantages import (
    AGGREGATIONS,
    TRL_ARGUMENTS,
    advantage_parts,
    contributions,
    group_advantages,
    silent_groups,
    update_multipliers,
)

torch = pytest.importorskip("torch")

WEIGHTS = (10.0, 1.0, 0.5)
NAN = math.nan
MULTIPLIERS = (0.7, 0.2)
SCALE_FREE = ("normalize_then_sum", "normalize_each", "lexicographic", "constrained", "binary")


def advantages_of(rewards, weights, size, aggregation, **options):
    """group_advantages with the multipliers that constrained needs."""
    if aggregation == "constrained":
        options.setdefault("multipliers", MULTIPLIERS[: np.shape(weights)[0] - 1])
    return group_advantages(rewards, weights, size, aggregation, **options)


def sample(rng: np.random.Generator, groups=6, size=5, missing=0.0) -> np.ndarray:
    """Rewards (N, 3) as CRPO gives them: {0, 1}, {0, 1, 1.5}, [0, 1]; a share of them unscorable."""
    count = groups * size
    columns = [rng.integers(0, 2, count), rng.choice([0, 1, 1.5], count), rng.uniform(0.9, 1, count)]
    rewards = np.stack(columns, axis=1).astype(float)
    rewards[rng.random(rewards.shape) < missing] = NAN
    return rewards


# --- the equations word by word, in plain Python; a missing reward is None


def known(values) -> list[float]:
    return [value for value in values if value is not None]


def z(values, eps) -> list[float | None]:
    """(x - mean) / (std + eps) over the known values; 0 where they agree or there is only one."""
    if len(set(known(values))) < 2:
        return [None if value is None else 0.0 for value in values]
    centre, deviation = mean(known(values)), stdev(known(values))
    return [None if value is None else (value - centre) / (deviation + eps) for value in values]


def weighted_sums(rows, weights) -> list[float | None]:
    sums = []
    for row in rows:
        terms = [w * r for w, r in zip(weights, row, strict=True) if r is not None]
        sums.append(sum(terms) if terms else None)
    return sums


def column(rows, k) -> list[float | None]:
    return [row[k] for row in rows]


def slow_sum_then_normalize(rows, weights, eps):
    return z(weighted_sums(rows, weights), eps)


def slow_sum_then_center(rows, weights, eps):
    sums = weighted_sums(rows, weights)
    return [None if value is None else value - mean(known(sums)) for value in sums]


def slow_normalize_each(rows, weights, eps):
    normalized = [z(column(rows, k), eps) for k in range(len(weights))]
    return weighted_sums(zip(*normalized, strict=True), weights)


def slow_std_floor(rows, weights, eps, floor=0.1):
    sums = weighted_sums(rows, weights)
    if len(set(known(sums))) < 2:
        return [0.0] * len(rows)
    divisor = max(stdev(known(sums)), floor) + eps
    return [None if value is None else (value - mean(known(sums))) / divisor for value in sums]


def slow_gated(rows, weights, eps, gate=0, threshold=1.0):
    paid = []
    for row in rows:
        if row[gate] is None:
            paid.append([None] * len(row))
        elif row[gate] >= threshold:
            paid.append(row)
        else:
            paid.append([r if k == gate or r is None else 0.0 for k, r in enumerate(row)])
    return slow_sum_then_normalize(paid, weights, eps)


def slow_lexicographic(rows, weights, eps):
    sums = []
    for mine in rows:
        sums.append(0.0 if known(mine) else None)
        for other in rows:
            for weight, a, b in zip(weights, mine, other, strict=True):
                if weight > 0 and a is not None and b is not None and a != b:
                    sums[-1] += 1 if a > b else -1
                    break
    return z(sums, eps)


def slow_constrained(rows, weights, eps):
    multipliers = [1.0, *MULTIPLIERS]
    normalized = [z(column(rows, k), eps) for k in range(3)]
    sums = weighted_sums(zip(*normalized, strict=True), multipliers)
    return [None if value is None else value / (1 + sum(MULTIPLIERS)) for value in sums]


def slow_leave_one_out(rows, weights, eps):
    sums = weighted_sums(rows, weights)
    advantages = []
    for i, value in enumerate(sums):
        others = known(sums[:i] + sums[i + 1 :])
        advantages.append(None if value is None else value - mean(others) if others else 0.0)
    return advantages


def slow_binary(rows, weights, eps, gate=0, threshold=1.0, penalty=1.0):
    hits = [None if row[gate] is None else float(row[gate] >= threshold) for row in rows]
    return [None if hit is None else (1 + penalty) * (hit - mean(known(hits))) for hit in hits]


def slow(aggregation, rewards, weights, size, eps=1e-4) -> list[float]:
    rows = [[None if math.isnan(value) else value for value in row] for row in rewards]
    groups = [rows[start : start + size] for start in range(0, len(rows), size)]
    if aggregation == "normalize_then_sum":  # the only one that looks beyond the group
        sums = [value for group in groups for value in slow_normalize_each(group, weights, eps)]
        spread = stdev(known(sums)) if len(known(sums)) > 1 else 0.0
        centre = mean(known(sums)) if known(sums) else 0.0
        advantages = [None if value is None else (value - centre) / (spread + eps) for value in sums]
    else:
        one_group = globals()[f"slow_{aggregation}"]
        advantages = [value for group in groups for value in one_group(group, weights, eps)]
    return [0.0 if value is None else value for value in advantages]


@st.composite
def batches(draw):
    """Rewards (P * G, 3) on a coarse grid: ties, missing entries and constant groups are common."""
    groups, size = draw(st.integers(1, 4)), draw(st.integers(2, 6))
    cell = st.sampled_from([NAN, 0.0, 0.5, 1.0, 1.5, 0.975])
    row = st.tuples(st.sampled_from([NAN, 0.0, 1.0]), cell, cell)
    rows = draw(st.lists(row, min_size=groups * size, max_size=groups * size))
    return np.array(rows), size


@pytest.mark.parametrize("aggregation", AGGREGATIONS)
@given(batch=batches())
@settings(max_examples=60, deadline=None, derandomize=True)
def test_equals_the_literal_loops(aggregation, batch):
    rewards, size = batch
    fast = advantages_of(rewards, WEIGHTS, size, aggregation)
    assert fast.tolist() == pytest.approx(slow(aggregation, rewards.tolist(), WEIGHTS, size), abs=1e-9)


@pytest.mark.parametrize("aggregation", AGGREGATIONS)
@given(batch=batches())
@settings(max_examples=30, deadline=None, derandomize=True)
def test_contributions_sum_to_the_advantages(aggregation, batch):
    rewards, size = batch
    options = {"multipliers": MULTIPLIERS} if aggregation == "constrained" else {}
    parts = contributions(rewards, WEIGHTS, size, aggregation, **options)
    assert parts.shape == rewards.shape and parts.dtype == torch.float64
    advantages = group_advantages(rewards, WEIGHTS, size, aggregation, **options)
    assert parts.sum(1).tolist() == pytest.approx(advantages.tolist(), abs=1e-12)


def trl_advantages(rewards, weights, size, aggregation):
    """What TRL's trainer computes between rewards and advantages: its own lines, run on our rewards."""
    trainer = pytest.importorskip("trl.trainer.grpo_trainer")
    source = inspect.getsource(trainer.GRPOTrainer._generate_and_score_completions)
    begin = source.index("unscorable_mask = torch.isnan(rewards_per_func)")
    end = source.index("advantages = torch.nan_to_num(advantages, nan=0.0)", begin)
    lines = inspect.cleandoc(
        " " * 8 + source[begin:end] + "advantages = torch.nan_to_num(advantages, nan=0.0)"
    )

    class Stub:
        multi_objective_aggregation = TRL_ARGUMENTS[aggregation]["multi_objective_aggregation"]
        scale_rewards = TRL_ARGUMENTS[aggregation].get("scale_rewards", "group")
        reward_weights, reward_funcs = torch.tensor(weights), weights

    names = {"self": Stub, "torch": torch, "nanstd": trainer.nanstd, "device": "cpu", "num_generations": size}
    names["rewards_per_func"] = torch.tensor(rewards, dtype=torch.float32)
    exec(lines, names)  # noqa: S102 - TRL offers no function for it
    return names["advantages"]


@pytest.mark.parametrize("aggregation", TRL_ARGUMENTS)
@pytest.mark.parametrize("missing", [0.0, 0.3])
def test_equals_trl(aggregation, missing):
    rewards = sample(np.random.default_rng(1), missing=missing)
    rewards[3] = NAN
    ours = group_advantages(rewards, WEIGHTS, 5, aggregation)
    assert ours.tolist() == pytest.approx(trl_advantages(rewards, WEIGHTS, 5, aggregation).tolist(), abs=1e-3)


def test_by_hand():
    # totals 12, 2, 2, 2, 2: mean 4, unbiased std sqrt((64 + 4 * 4) / 4) = sqrt(20)
    rewards = [[1, 1.5, 1]] + [[0, 1.5, 1]] * 4
    expected = [8 / (math.sqrt(20) + 1e-4)] + [-2 / (math.sqrt(20) + 1e-4)] * 4
    assert group_advantages(rewards, WEIGHTS, 5).tolist() == pytest.approx(expected)
    assert expected[0] == pytest.approx(1.789, abs=1e-3)  # the largest advantage a group of five allows


def test_one_objective_is_grpo():
    rewards = sample(np.random.default_rng(2))[:, :1]
    grouped = torch.tensor(rewards).view(-1, 5)
    expected = (grouped - grouped.mean(1, keepdim=True)) / (grouped.std(1, keepdim=True) + 1e-4)
    for weight in (1.0, 10.0):
        advantages = group_advantages(
            rewards * 1.0, [weight], 5, eps=1e-4 * weight
        )  # so that only eps feels the weight
        assert advantages.tolist() == pytest.approx(expected.flatten().tolist())


def test_unscorable_rows_are_zero_and_change_nobody():
    rewards = [[1, 1], [0, 1], [0, 0], [NAN, NAN]]
    with_row = group_advantages(rewards, (1, 1), 4)
    assert with_row[3] == 0
    assert with_row[:3].tolist() == pytest.approx(group_advantages(rewards[:3], (1, 1), 3).tolist())


def test_one_unscorable_objective_leaves_the_others():
    # the second row's total is 1 * 1, not 1 * 1 + 0 pretended
    advantages = group_advantages([[1, 2], [1, None]], (1, 1), 2)
    assert advantages.tolist() == pytest.approx([1 / (math.sqrt(2) + 1e-4), -1 / (math.sqrt(2) + 1e-4)])
    # nor does GDPO normalise with it: alone in its group, the objective says nothing
    assert group_advantages([[1, 2], [1, None]], (1, 1), 2, "normalize_then_sum").tolist() == [0, 0]


@pytest.mark.parametrize("aggregation", AGGREGATIONS)
@pytest.mark.parametrize("value", [0.0, 1.79, 0.1, 1e-8, 12.0, -3.3])
@pytest.mark.parametrize("size", [2, 5, 15])  # the float32 mean of 15 times 1.79 is not 1.79
def test_constant_groups_are_exactly_zero(aggregation, value, size):
    rewards = torch.full((2 * size, 2), value)
    assert advantages_of(rewards, (1, 0.5), size, aggregation).eq(0).all()
    rewards[0] = NAN  # constant among those that could be scored
    assert advantages_of(rewards, (1, 0.5), size, aggregation).eq(0).all()


@pytest.mark.parametrize("aggregation", AGGREGATIONS)
def test_a_group_with_one_scorable_completion_is_zero(aggregation):
    rewards = [[NAN], [1.0], [NAN], [NAN]]
    assert advantages_of(rewards, [1], 4, aggregation).tolist() == [0, 0, 0, 0]


@pytest.mark.parametrize("aggregation", AGGREGATIONS)
def test_permutations_carry_over(aggregation):
    rng = np.random.default_rng(3)
    rewards = sample(rng, missing=0.2).reshape(6, 5, 3)
    advantages = advantages_of(rewards.reshape(30, 3), WEIGHTS, 5, aggregation).view(6, 5)
    groups, members = rng.permutation(6), rng.permutation(5)
    shuffled = rewards[groups][:, members]
    again = advantages_of(shuffled.reshape(30, 3), WEIGHTS, 5, aggregation).view(6, 5)
    assert again.numpy() == pytest.approx(advantages.numpy()[groups][:, members], abs=1e-6)


def test_normalising_first_keeps_mixtures_apart():
    """GDPO's example: totals (0, 1) and (0, 2) collapse when summed first, and stay apart otherwise."""
    rewards = [[0, 0], [0, 1], [0, 0], [1, 1]]
    first, second = group_advantages(rewards, (1, 1), 2, eps=0).view(2, 2)
    assert first.tolist() == pytest.approx(second.tolist())
    first, second = group_advantages(rewards, (1, 1), 2, "normalize_then_sum", eps=0).view(2, 2)
    assert second[1] > first[1] * 1.5


def test_scale_false_only_centres():
    rewards = [[1, 1.5, 1]] + [[0, 1.5, 1]] * 4
    assert group_advantages(rewards, WEIGHTS, 5, scale=False).tolist() == pytest.approx([8, -2, -2, -2, -2])


def test_accepts_tensors_arrays_and_lists_alike():
    rewards = sample(np.random.default_rng(4))
    expected = group_advantages(rewards, WEIGHTS, 5)
    assert torch.equal(group_advantages(torch.tensor(rewards), torch.tensor(WEIGHTS), 5), expected)
    as_list = group_advantages(rewards.tolist(), np.array(WEIGHTS), 5)
    assert as_list.dtype == torch.float32
    assert as_list.tolist() == pytest.approx(expected.tolist(), abs=1e-3)
    assert group_advantages(np.eye(4, dtype=int), [1] * 4, 2).shape == (4,)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([[1.0, 2.0]] * 4, (1, 1), 3), "4 completions do not divide into groups of 3"),
        ((np.zeros((0, 2)), (1, 1), 2), "0 completions"),
        (([[1.0, 2.0]] * 4, (1, 1), 1), "num_generations is 1"),
        (([[1.0, 2.0]] * 4, (1,), 2), r"weights have shape \(1,\); expected \(2,\)"),
        (([[1.0, 2.0]] * 4, (1, -1), 2), "expected finite numbers >= 0"),
        (([[1.0, 2.0]] * 4, (1, NAN), 2), "expected finite numbers >= 0"),
        ((np.zeros(4), (1,), 2), r"shape \(4,\); expected \(N, K\)"),
        (([[math.inf]] * 4, (1,), 2), "objective 0 holds an infinite"),
        (([[1.0]] * 4, (1,), 2, "mean"), "'mean' is not known.*sum_then_normalize.*normalize_then_sum"),
        (([[1.0]] * 4, (1,), 2, "normalize_then_sum", 1e-4, False), "scale=False"),
    ],
)
def test_errors_say_what_was_got(arguments, message):
    with pytest.raises(ValueError, match=message):
        group_advantages(*arguments)


def test_a_read_only_array_is_taken_without_a_warning():
    rewards = np.array([[1.0], [0.0]])
    rewards.setflags(write=False)
    assert group_advantages(rewards, [1.0], 2).tolist() == pytest.approx([0.7071, -0.7071], abs=1e-3)


# --- failures that others have shipped


@pytest.mark.parametrize("aggregation", AGGREGATIONS)
@pytest.mark.parametrize("lost", [0, 1, 2])
def test_nan_in_one_reward_does_not_kill_the_others(aggregation, lost):
    """One NaN in a mean or a deviation makes a whole group NaN, or zero after nan_to_num."""
    rewards = sample(np.random.default_rng(5))
    rewards[7, lost] = NAN
    advantages = advantages_of(rewards, WEIGHTS, 5, aggregation)
    assert advantages.isfinite().all()
    assert advantages.view(6, 5)[1].abs().max() > 0.1  # the group of the NaN
    if aggregation != "normalize_then_sum":  # whitening couples the batch
        complete = advantages_of(np.delete(rewards, slice(5, 10), axis=0), WEIGHTS, 5, aggregation)
        assert np.delete(advantages.view(6, 5).numpy(), 1, axis=0).ravel() == pytest.approx(complete.numpy())


def test_a_reward_that_is_none_throughout_leaves_the_others():
    rewards = sample(np.random.default_rng(6))
    with_column = rewards.copy()
    with_column[:, 2] = NAN
    for aggregation in AGGREGATIONS:
        if aggregation == "constrained":
            continue  # its divisor keeps the multiplier of the lost objective
        expected = advantages_of(rewards[:, :2], WEIGHTS[:2], 5, aggregation)
        assert advantages_of(with_column, WEIGHTS, 5, aggregation).tolist() == pytest.approx(
            expected.tolist()
        )


@pytest.mark.parametrize("aggregation", AGGREGATIONS)
@pytest.mark.parametrize("eps", [1e-4, 1e-6, 0.0])
def test_float32_residue_of_a_constant_group_is_no_advantage(aggregation, eps):
    """15 completions with 1.79: the float32 mean is not 1.79, and residue / 1e-6 was an advantage of 0.3."""
    rewards = torch.full((30, 3), 1.79)
    rewards[15:, 0] = torch.arange(15) / 7  # beside a group that does vary
    advantages = advantages_of(rewards, WEIGHTS, 15, aggregation, eps=eps)
    assert advantages[:15].eq(0).all() and advantages[15:].abs().max() > 0.1


def test_totals_equal_on_paper_but_not_in_float32_are_no_advantage():
    # 10 * 0.1 = 1 * 1, and in float32 0.1 is not a tenth
    rewards = torch.tensor([[0.1, 0.0], [0.0, 1.0], [0.1, 0.0]])
    for aggregation in ("sum_then_normalize", "std_floor", "sum_then_center", "leave_one_out"):
        assert group_advantages(rewards, (10, 1), 3, aggregation, eps=0).eq(0).all()


def test_a_filter_on_the_sum_must_not_drop_groups_that_a_decoupled_method_keeps():
    """Totals 1, 1, 1, 1 of different parts: silent for every sum, informative once each objective is normalised."""
    rewards = [[1, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]] + [[1, 1, 1]] * 4 + [[1, 0, 0]] + [[0, 0, 0]] * 3
    expected = {
        "sum_then_normalize": [False, False, True],
        "sum_then_center": [False, False, True],
        "std_floor": [False, False, True],
        "leave_one_out": [False, False, True],
        "normalize_each": [True, False, True],
        "normalize_then_sum": [True, False, True],
        "lexicographic": [True, False, True],
        "constrained": [True, False, True],
        "gated": [True, False, True],
        "binary": [True, False, True],
    }
    assert set(expected) == set(AGGREGATIONS)
    for aggregation, kept in expected.items():
        options = {"multipliers": MULTIPLIERS} if aggregation == "constrained" else {}
        parts = contributions(rewards, (1, 1, 1), 4, aggregation, **options)
        assert (~silent_groups(parts, 4)).tolist() == kept


@pytest.mark.parametrize("aggregation", AGGREGATIONS)
def test_a_group_of_one_is_refused_not_paid_its_raw_reward(aggregation):
    with pytest.raises(ValueError, match="num_generations is 1; a group needs at least 2"):
        advantages_of([[1.0, 2.0]] * 4, (1, 1), 1, aggregation)


# --- what each promises


@pytest.mark.parametrize("aggregation", AGGREGATIONS)
def test_positive_rescaling_of_one_reward_matters_only_where_it_should(aggregation):
    rewards = sample(np.random.default_rng(7), missing=0.1)
    before = advantages_of(rewards, (1, 1, 1), 5, aggregation, eps=0)
    after = advantages_of(rewards * (1, 1, 40), (1, 1, 1), 5, aggregation, eps=0)
    if aggregation in SCALE_FREE:
        assert after.tolist() == pytest.approx(before.tolist(), abs=1e-9)
    else:
        assert (after - before).abs().max() > 0.1


@pytest.mark.parametrize("aggregation", ["sum_then_normalize", "normalize_then_sum", "gated"])
def test_only_the_ratio_of_weights_counts(aggregation):
    rewards = sample(np.random.default_rng(8))
    before = advantages_of(rewards, WEIGHTS, 5, aggregation, eps=0)
    after = advantages_of(rewards, np.multiply(WEIGHTS, 3), 5, aggregation, eps=0)
    assert after.tolist() == pytest.approx(before.tolist())


@pytest.mark.parametrize("aggregation", AGGREGATIONS)
def test_weight_zero_leaves_an_objective_out(aggregation):
    rewards = sample(np.random.default_rng(9))
    other = rewards.copy()
    other[:, 2] = np.random.default_rng(10).uniform(0, 1, len(rewards))
    advantages = advantages_of(rewards, (10, 1, 0), 5, aggregation)
    assert torch.equal(advantages, advantages_of(other, (10, 1, 0), 5, aggregation))


def test_std_floor_silences_jitter_and_leaves_the_rest():
    jitter = [[1, 1.5, ratio] for ratio in (0.980, 0.985, 0.988, 0.990, 0.992)]
    normalized = group_advantages(jitter, WEIGHTS, 5, eps=1e-6)
    assert normalized.min() == pytest.approx(-1.49, abs=0.02) and normalized.max() == pytest.approx(
        1.07, abs=0.02
    )
    assert group_advantages(jitter, WEIGHTS, 5, "std_floor").abs().max() < 0.05
    one_cites = [[1, 1.5, 1]] + [[1, 1, 1]] * 15  # the smallest deserved deviation
    expected = group_advantages(one_cites, WEIGHTS, 16)
    assert torch.equal(group_advantages(one_cites, WEIGHTS, 16, "std_floor"), expected)
    rewards = sample(np.random.default_rng(11))
    without = group_advantages(rewards, WEIGHTS, 5, "std_floor", floor=0)
    assert torch.equal(without, group_advantages(rewards, WEIGHTS, 5))


def test_gated_pays_the_easy_objective_only_with_the_hard_one():
    wrong = [[0, 1, 1], [0, 0, 0], [0, 1.5, 1], [0, 0, 0.5]]
    assert (
        group_advantages(wrong, WEIGHTS, 4, "gated").eq(0).all()
    )  # the risk: nothing is learnt from wrong answers
    right = [[1, 1, 1], [1, 0, 0], [0, 1.5, 1], [0, 0, 0]]
    advantages = group_advantages(right, WEIGHTS, 4, "gated")
    assert advantages[0] > advantages[1] > advantages[2] and advantages[2] == advantages[3]
    names = ("accuracy", "format", "consistency")
    by_name = group_advantages(right, WEIGHTS, 4, "gated", names=names, gate="format", threshold=1.5)
    assert torch.equal(by_name, group_advantages(right, WEIGHTS, 4, "gated", gate=1, threshold=1.5))


def test_a_completion_whose_gate_is_unknown_is_left_out():
    rewards = [[1, 1], [0, 1], [1, 0], [NAN, 1.5]]
    advantages = group_advantages(rewards, (1, 1), 4, "gated")
    assert advantages[3] == 0
    assert advantages[:3].tolist() == pytest.approx(
        group_advantages(rewards[:3], (1, 1), 3, "gated").tolist()
    )


def test_lexicographic_never_trades():
    # right beats wrong whatever the rest says; among the right, format decides, then consistency
    rewards = [[0, 1.5, 1], [1, 0, 0], [1, 0, 0.1], [1, 1, 0]]
    advantages = group_advantages(rewards, (1, 1, 1), 4, "lexicographic", eps=0)
    wins = torch.tensor([-3.0, -1, 1, 3])
    assert advantages.tolist() == pytest.approx((wins / wins.std()).tolist())
    parts = contributions(rewards, (1, 1, 1), 4, "lexicographic", eps=0) * wins.std()
    expected = [[-3, 0, 0], [1, -1, -1], [1, -1, 1], [1, 2, 0]]
    assert parts.tolist() == [pytest.approx(row) for row in expected]


def test_lexicographic_tolerance_ties_what_hardly_differs():
    rewards = [[1, 1, 0.98], [1, 1, 0.99], [0, 1, 0.97], [0, 1, 0.99]]
    options = {"tolerance": (0, 0, 0.05)}
    advantages = group_advantages(rewards, WEIGHTS, 4, "lexicographic", **options)
    assert advantages[0] == advantages[1] > advantages[2] == advantages[3]
    assert group_advantages(rewards[:2], WEIGHTS, 2, "lexicographic", tolerance=0.05).eq(0).all()


def test_constrained_without_multipliers_is_grpo_on_the_first_objective():
    rewards = sample(np.random.default_rng(12))
    advantages = group_advantages(rewards, WEIGHTS, 5, "constrained", multipliers=[0, 0])
    assert advantages.tolist() == pytest.approx(group_advantages(rewards[:, :1], [1], 5).tolist())
    only_second = group_advantages(rewards, WEIGHTS, 5, "constrained", multipliers=[1e9, 0])
    assert only_second.tolist() == pytest.approx(group_advantages(rewards[:, 1:2], [1], 5).tolist(), abs=1e-6)


def test_constrained_divides_by_what_takes_part():
    rewards = sample(np.random.default_rng(13))
    without = group_advantages(rewards[:, :2], (1, 1), 5, "constrained", multipliers=[0.7])
    with_zero = group_advantages(rewards, (1, 1, 0), 5, "constrained", multipliers=[0.7, 3])
    assert with_zero.tolist() == pytest.approx(without.tolist())


def test_multipliers_rise_below_the_target_fall_above_it_and_stop_at_zero():
    rewards = [[1, 0.2, None, 0.9], [0, 0.4, None, 0.9]]
    moved = update_multipliers([0.5, 0.5, 0.05], rewards, targets=[0.8, 0.8, 0.3], rate=0.1)
    assert moved == [pytest.approx(0.55), 0.5, 0.0]


def test_leave_one_out_is_the_distance_from_the_others():
    rewards = [[1.0], [0.0], [0.0], [NAN]]
    assert group_advantages(rewards, [2], 4, "leave_one_out").tolist() == pytest.approx([2, -1, -1, 0])


@pytest.mark.parametrize(
    ("aggregation", "options", "message"),
    [
        ("sum_then_normalize", {"floor": 0.1}, "sum_then_normalize got the option floor; expected no option"),
        ("std_floor", {"gate": 1}, "got the option gate; expected floor"),
        ("std_floor", {"floor": -1}, "floor is -1.0; expected 1 finite number >= 0"),
        ("gated", {"gate": 3}, "gate is 3; expected a column from 0 to 2 or one of accuracy, format, length"),
        ("gated", {"gate": "accuracies"}, "gate is 'accuracies'.*accuracy, format, length"),
        ("gated", {"threshold": NAN}, "threshold is nan"),
        ("lexicographic", {"tolerance": (0, -1, 0)}, r"tolerance is \[0.0, -1.0, 0.0\]; expected 3"),
        ("constrained", {}, r"multipliers is \[\]; expected 2 finite numbers >= 0, for format, length"),
        ("constrained", {"multipliers": [1, -1]}, "expected 2 finite numbers"),
    ],
)
def test_wrong_options_name_what_was_expected(aggregation, options, message):
    with pytest.raises(ValueError, match=message):
        group_advantages(
            np.zeros((4, 3)), WEIGHTS, 2, aggregation, names=["accuracy", "format", "length"], **options
        )


def test_errors_name_the_objective():
    names = ["accuracy", "format"]
    with pytest.raises(ValueError, match="-1 for format"):
        group_advantages(np.zeros((4, 2)), (1, -1), 2, names=names)
    with pytest.raises(ValueError, match="format holds an infinite value"):
        group_advantages([[0, 1], [1, math.inf]], (1, 1), 2, names=names)
    with pytest.raises(ValueError, match="one an objective: accuracy, format"):
        group_advantages(np.zeros((4, 2)), (1, 1, 1), 2, names=names)
    with pytest.raises(ValueError, match="2 multipliers and 1 targets for 3 objectives"):
        update_multipliers([0, 0], np.zeros((4, 3)), [0.5], 0.1)
    with pytest.raises(ValueError, match="rate is 0"):
        update_multipliers([0, 0], np.zeros((4, 3)), [0.5, 0.5], 0)


def test_binary_is_one_and_minus_the_penalty_less_their_mean():
    rewards = [[1.0], [0.0], [0.0], [7.0]] + [[1.0]] * 4 + [[NAN], [0.0], [1.0], [1.0]]
    own = (
        [1, -0.5, -0.5, 1] + [1] * 4 + [0, -0.5, 1, 1]
    )  # b - l (1 - b), l = 0.5, and nothing where nobody knows
    options = {"penalty": 0.5, "threshold": 1.0}
    uncentred = group_advantages(rewards, [1.0], 4, "binary", center=False, **options)
    assert uncentred.tolist() == own
    centred = group_advantages(rewards, [1.0], 4, "binary", **options).tolist()
    assert centred == pytest.approx([0.75, -0.75, -0.75, 0.75, 0, 0, 0, 0, 0, -1.0, 0.5, 0.5])
    # Dr. GRPO on hits of 0 and 1, up to the scale 1 + l
    hits = [[float(row[0] >= 1)] if row[0] == row[0] else [NAN] for row in rewards]
    plain = group_advantages(hits, [1.0], 4, "sum_then_center")
    assert centred == pytest.approx((1.5 * plain).tolist())


def test_binary_hears_its_gate_alone():
    rewards = sample(np.random.default_rng(12))
    named = group_advantages(rewards, WEIGHTS, 5, "binary", names=["a", "b", "c"], gate="b", threshold=1.5)
    alone = group_advantages(rewards[:, 1:2], [1.0], 5, "binary", threshold=1.5)
    assert torch.equal(named, alone)
    parts = advantage_parts(rewards, WEIGHTS, 5, "binary", gate=1, threshold=1.5, center=False)
    assert parts[:, [0, 2]].eq(0).all() and set(parts[:, 1].tolist()) == {1.0, -1.0}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"gate": 3}, "gate 3 and threshold 1.0 do not fit"),
        ({"gate": "accuracy"}, "gate 'accuracy'"),
        ({"threshold": math.inf}, "threshold inf do not fit"),
        ({"penalty": -1}, "penalty is -1.0; expected 1 finite number >= 0"),
        ({"tau": 1}, "binary got the option tau; expected gate, threshold, penalty, center"),
    ],
)
def test_binary_refuses_what_it_cannot_take(options, message):
    with pytest.raises(ValueError, match=message):
        group_advantages([[1.0, 2.0]] * 4, (1, 1), 2, "binary", **options)
    with pytest.raises(ValueError, match="take `advantage_parts`"):
        contributions([[1.0, 2.0]] * 4, (1, 1), 2, "binary", center=False)
