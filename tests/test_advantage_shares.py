"""Who owns the advantages: exact parts, effective weights, and what the arithmetic of eq. 4 says.

Run: pytest tests/test_advantage_shares.py
"""

import math

import numpy as np
import pytest

from clinical_r1.advantages import contributions, silent_groups, tied_groups, weight_shares
from clinical_r1.audit.reward_arithmetic import simulated_rewards

torch = pytest.importorskip("torch")

WEIGHTS = (10.0, 1.0, 0.5)


def test_parts_of_a_sum_by_hand():
    # totals 11.5, 10.5, 0.5, 1.5: mean 6
    rewards = torch.tensor([[1, 1.5, 0], [1, 0.5, 0], [0, 0, 1], [0, 1, 1]], dtype=torch.float64)
    parts = contributions(rewards, WEIGHTS, 4, eps=0)
    deviation = torch.tensor([11.5, 10.5, 0.5, 1.5]).double().std()
    expected = [[5, 0.75, -0.25], [5, -0.25, -0.25], [-5, -0.75, 0.25], [-5, 0.25, 0.25]]
    assert (parts * deviation).tolist() == [pytest.approx(row) for row in expected]
    assert weight_shares(parts) == pytest.approx([20 / 23, 2 / 23, 1 / 23])


def test_a_missing_reward_contributes_as_nothing_paid():
    parts = contributions([[1, None], [1, 1], [0, 1], [None, None]], (1, 1), 4, "sum_then_center")
    # totals 1, 2, 1 and none; the second objective paid 0, 1, 1
    assert parts[:, 1].tolist() == pytest.approx([-2 / 3, 1 / 3, 1 / 3, 0])
    assert parts[3].tolist() == [0, 0]


def test_gated_parts_are_those_of_the_paid_rewards():
    rewards = [[1, 1.5], [0, 1.5], [0, 1.0], [1, 0.0]]
    paid = [[1, 1.5], [0, 0.0], [0, 0.0], [1, 0.0]]
    assert torch.equal(contributions(rewards, (10, 1), 4, "gated"), contributions(paid, (10, 1), 4))


def test_parts_that_cancel_are_no_advantage():
    parts = contributions([[1, 0], [0, 1], [1, 0]], (1, 1), 3)
    assert parts.eq(0).all() and silent_groups(parts, 3).tolist() == [True]
    assert all(math.isnan(share) for share in weight_shares(parts))


def test_tied_is_about_the_first_objective_alone():
    rewards = [[1, 0], [1, 5], [0, 1], [1, 1], [None, 1], [1, 2], [None, 1], [None, 2]]
    assert tied_groups(rewards, 2).tolist() == [True, False, True, True]


def shares(rewards, weights=WEIGHTS, aggregation="sum_then_normalize"):
    """(over all, in mixed groups, in tied groups) of the three objectives."""
    rewards = torch.as_tensor(rewards)
    parts = contributions(rewards, weights, 5, aggregation)
    tied = tied_groups(rewards, 5).repeat_interleave(5)
    return weight_shares(parts), weight_shares(parts[~tied]), weight_shares(parts[tied])


def test_accuracy_owns_the_mixed_groups_and_k_does_nothing_in_tied_ones():
    """Where every prompt is of medium difficulty the advantage is accuracy's, to nine tenths and more."""
    medium = torch.as_tensor(simulated_rewards(np.random.default_rng(1), 2000))
    assert 0.9 < shares(medium)[1][0] < 0.97
    assert tied_groups(medium, 5).double().mean().item() == pytest.approx(2 / 2**5, abs=0.02)
    advantages = contributions(medium, WEIGHTS, 5).sum(dim=1).view(-1, 5)
    accuracy = medium[:, 0].double().view(-1, 5)
    centred = accuracy - accuracy.mean(dim=1, keepdim=True)
    pair = torch.stack([centred.flatten(), advantages.flatten()])
    assert torch.corrcoef(pair)[0, 1] > 0.95
    rewards = simulated_rewards(np.random.default_rng(2), 2000, 0.5)
    tied = [shares(rewards, (k, 1, 0.5))[2] for k in (0, 10, 30)]
    assert tied[0] == pytest.approx(tied[1], abs=1e-3) and tied[1] == pytest.approx(tied[2], abs=1e-3)
    assert tied[1][0] == 0


def test_jitter_of_the_consistency_owns_tied_groups_once_the_format_saturates():
    rewards = simulated_rewards(np.random.default_rng(3), 1000, 0.5, saturated=True)
    # float32 as in training, so that the saturated term is exactly constant
    everywhere, _, tied = shares(rewards)
    assert tied[2] == 1 and everywhere[2] > 0.4
    assert shares(rewards, aggregation="std_floor")[0][2] < 0.05


def test_a_batch_without_any_advantage_is_nobodys():
    parts = contributions([[1.0, 0.5]] * 4, (1, 1), 2)
    assert silent_groups(parts, 2).all() and tied_groups([[1.0, 0.5]] * 4, 2).all()
    assert all(math.isnan(share) for share in weight_shares(parts))
