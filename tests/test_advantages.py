"""Rewards -> advantages: equations by hand, NaN, constant groups, TRL.   pytest tests/test_advantages.py"""

import inspect
import math
from statistics import mean, stdev

import numpy as np
import pytest

from clinical_r1.advantages import AGGREGATIONS, group_advantages, total_reward

torch = pytest.importorskip("torch")

WEIGHTS = (10.0, 1.0, 0.5)
NAN = math.nan


def sample(rng: np.random.Generator, groups=6, size=5, missing=0.0) -> np.ndarray:
    """Rewards (N, 3) as CRPO gives them: {0, 1}, {0, 1, 1.5}, [0, 1]; a share of them unscorable."""
    count = groups * size
    columns = [rng.integers(0, 2, count), rng.choice([0, 1, 1.5], count), rng.uniform(0.9, 1, count)]
    rewards = np.stack(columns, axis=1).astype(float)
    rewards[rng.random(rewards.shape) < missing] = NAN
    return rewards


def slow_advantages(rewards, weights, size, eps) -> list[float]:
    """Paper eq. 3-4, word by word: r = sum of w r_k; A = (r - mean of the group) / std of the group."""
    advantages = []
    for start in range(0, len(rewards), size):
        totals = []
        for row in rewards[start : start + size]:
            scored = [w * r for w, r in zip(weights, row, strict=True) if not math.isnan(r)]
            totals.append(sum(scored) if scored else None)
        known = [value for value in totals if value is not None]
        for value in totals:
            if value is None or len(known) < 2 or len(set(known)) == 1:
                advantages.append(0.0)
            else:
                advantages.append((value - mean(known)) / (stdev(known) + eps))
    return advantages


def slow_gdpo(rewards, weights, size, eps) -> list[float]:
    """GDPO word by word: each objective within its group, the weighted sum, then the batch."""
    sums = [None if all(map(math.isnan, row)) else 0.0 for row in rewards]
    for start in range(0, len(rewards), size):
        for k, weight in enumerate(weights):
            known = [row[k] for row in rewards[start : start + size] if not math.isnan(row[k])]
            if len(known) < 2 or len(set(known)) == 1:
                continue
            for i in range(start, start + size):
                if not math.isnan(rewards[i][k]):
                    sums[i] += weight * (rewards[i][k] - mean(known)) / (stdev(known) + eps)
    known = [value for value in sums if value is not None]
    return [0.0 if value is None else (value - mean(known)) / (stdev(known) + eps) for value in sums]


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
        multi_objective_aggregation, scale_rewards = aggregation, "group"
        reward_weights, reward_funcs = torch.tensor(weights), weights

    names = {"self": Stub, "torch": torch, "nanstd": trainer.nanstd, "device": "cpu", "num_generations": size}
    names["rewards_per_func"] = torch.tensor(rewards, dtype=torch.float32)
    exec(lines, names)  # noqa: S102 - TRL offers no function for it
    return names["advantages"]


@pytest.mark.parametrize("missing", [0.0, 0.1, 0.6])
@pytest.mark.parametrize(
    ("aggregation", "slow"), [("sum_then_normalize", slow_advantages), ("normalize_then_sum", slow_gdpo)]
)
def test_equals_the_literal_loops(aggregation, slow, missing):
    for seed in range(5):
        rewards = sample(np.random.default_rng(seed), missing=missing)
        rewards[3] = NAN  # one completion that nothing can score
        rewards[5:10] = rewards[5]  # one constant group
        fast = group_advantages(rewards, WEIGHTS, 5, aggregation)
        assert fast.tolist() == pytest.approx(slow(rewards.tolist(), WEIGHTS, 5, 1e-4), abs=1e-9)


@pytest.mark.parametrize("aggregation", AGGREGATIONS)
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
    assert group_advantages(rewards, (1, 0.5), size, aggregation).eq(0).all()
    rewards[0] = NAN  # constant among those that could be scored
    assert group_advantages(rewards, (1, 0.5), size, aggregation).eq(0).all()


@pytest.mark.parametrize("aggregation", AGGREGATIONS)
def test_a_group_with_one_scorable_completion_is_zero(aggregation):
    rewards = [[NAN], [1.0], [NAN], [NAN]]
    assert group_advantages(rewards, [1], 4, aggregation).tolist() == [0, 0, 0, 0]


@pytest.mark.parametrize("aggregation", AGGREGATIONS)
def test_permutations_carry_over(aggregation):
    rng = np.random.default_rng(3)
    rewards = sample(rng, missing=0.2).reshape(6, 5, 3)
    advantages = group_advantages(rewards.reshape(30, 3), WEIGHTS, 5, aggregation).view(6, 5)
    groups, members = rng.permutation(6), rng.permutation(5)
    shuffled = rewards[groups][:, members]
    again = group_advantages(shuffled.reshape(30, 3), WEIGHTS, 5, aggregation).view(6, 5)
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
        (([[math.inf]] * 4, (1,), 2), "infinite"),
        (([[1.0]] * 4, (1,), 2, "mean"), "'mean' is not known.*sum_then_normalize.*normalize_then_sum"),
        (([[1.0]] * 4, (1,), 2, "normalize_then_sum", 1e-4, False), "scale=False"),
    ],
)
def test_errors_say_what_was_got(arguments, message):
    with pytest.raises(ValueError, match=message):
        group_advantages(*arguments)


def test_total_reward():
    columns = [[1.0, 0.0, None], [1.5, None, None], [1.0, 0.5, None]]
    assert total_reward(columns, WEIGHTS) == [12.0, 0.25, None]
    with pytest.raises(ValueError, match="3 reward columns and 2 weights"):
        total_reward(columns, (1, 1))
    with pytest.raises(ValueError, match="shorter"):
        total_reward([[1.0], []], (1, 1))


def test_a_read_only_array_is_taken_without_a_warning():
    rewards = np.array([[1.0], [0.0]])
    rewards.setflags(write=False)
    assert group_advantages(rewards, [1.0], 2).tolist() == pytest.approx([0.7071, -0.7071], abs=1e-3)
