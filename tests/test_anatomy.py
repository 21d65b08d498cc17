"""Anatomy of advantages: exact parts, effective weights, what eq. 4's arithmetic says, frames of training logs.

Run: pytest tests/test_anatomy.py
"""

import math

import numpy as np
import pytest

from clinical_r1.anatomy import (
    anatomy,
    anatomy_frame,
    anatomy_table,
    contributions,
    silent_groups,
    tied_groups,
    weight_shares,
)
from clinical_r1.audit import simulated_rewards

torch = pytest.importorskip("torch")

NAMES = ("accuracy", "reasoning", "consistency")
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


def test_anatomy_names_weights_and_counts():
    rng = np.random.default_rng(0)
    rewards = simulated_rewards(rng, 400, 0.5)
    result = anatomy(rewards, WEIGHTS, 5, names=NAMES, ranges={"accuracy": (0, 1)}, rng=rng)
    assert result["completions"] == 2000 and result["groups"] == 400
    objectives = result["objectives"]
    assert tuple(objectives) == NAMES
    for kind in ("share", "share_mixed", "share_tied"):
        assert sum(row[kind] for row in objectives.values()) == pytest.approx(1)
    for row in objectives.values():
        low, high = row["share_interval"]
        assert 0 <= low <= row["share"] <= high <= 1 and row["scored"] == 2000
    assert objectives["accuracy"]["share_tied"] == 0
    table = anatomy_table(result)
    assert table["objective"].tolist() == list(NAMES) and set(table["n"]) == {400}


def test_accuracy_owns_the_mixed_groups_and_k_does_nothing_in_tied_ones():
    """Where every prompt is of medium difficulty the advantage is accuracy, to a correlation above 0.95."""
    medium = anatomy(simulated_rewards(np.random.default_rng(1), 2000), WEIGHTS, 5, names=NAMES)
    accuracy = medium["objectives"]["accuracy"]
    assert accuracy["correlation"] > 0.95 and 0.9 < accuracy["share_mixed"] < 0.97
    assert medium["tied_groups"] == pytest.approx(2 / 2**5, abs=0.02)
    rewards = simulated_rewards(np.random.default_rng(2), 2000, 0.5)
    tied = [
        {
            name: row["share_tied"]
            for name, row in anatomy(rewards, (k, 1, 0.5), 5, names=NAMES)["objectives"].items()
        }
        for k in (0, 10, 30)
    ]
    assert tied[0] == pytest.approx(tied[1], abs=1e-3) and tied[1] == pytest.approx(tied[2], abs=1e-3)


def test_jitter_of_the_consistency_owns_tied_groups_once_the_format_saturates():
    rewards = simulated_rewards(np.random.default_rng(3), 1000, 0.5, saturated=True)
    # float32 as in training, so that the saturated term is exactly constant
    normalized = anatomy(rewards, WEIGHTS, 5, names=NAMES)["objectives"]["consistency"]
    floored = anatomy(rewards, WEIGHTS, 5, "std_floor", names=NAMES)["objectives"]["consistency"]
    assert normalized["share_tied"] == 1 and normalized["share"] > 0.4
    assert floored["share"] < 0.05


def test_bad_batches_name_the_objective():
    rewards = simulated_rewards(np.random.default_rng(4), 4)
    with pytest.raises(ValueError, match=r"reasoning gave .*; expected a reward in \[0, 0.9\]"):
        anatomy(rewards, WEIGHTS, 5, names=NAMES, ranges={"reasoning": (0, 0.9)})
    with pytest.raises(ValueError, match="citation was named but not computed"):
        anatomy(rewards, WEIGHTS, 5, names=NAMES, ranges={"citation": (0, 1)})
    rewards[:, 2] = np.nan
    with pytest.raises(ValueError, match="consistency is None for all 20 completions"):
        anatomy(rewards, WEIGHTS, 5, names=NAMES)
    with pytest.raises(ValueError, match="the objectives are accuracy, reasoning"):
        anatomy(rewards, WEIGHTS, 5, names=NAMES[:2])


def test_anatomy_of_a_batch_without_any_advantage():
    result = anatomy([[1.0, 0.5]] * 4, (1, 1), 2, names=("a", "b"), rng=np.random.default_rng(0))
    assert result["silent_groups"] == result["tied_groups"] == 1
    row = result["objectives"]["a"]
    assert math.isnan(row["share"]) and math.isnan(row["correlation"]) and math.isnan(row["share_mixed"])


def test_frame_of_training_logs():
    step = {"advantage/a/share": 0.9, "advantage/b/share": 0.1, "advantage/tied_groups": 0.5}
    rows = [
        {
            "step": 1,
            "seed": 0,
            "reward": 1.0,
            **step,
            "advantage/b/multiplier": 0.2,
            "advantage/silent_groups": 0.25,
        },
        {"step": 2, "seed": 0, **step, "advantage/a/share": None, "advantage/b/share": None},
        {"step": 2, "seed": 0, "train_runtime": 3.0},
    ]
    frame = anatomy_frame(rows)
    assert frame["step"].tolist() == [1, 1, 2, 2] and frame["objective"].tolist() == ["a", "b", "a", "b"]
    assert frame["share"][:2].tolist() == [0.9, 0.1] and frame["share"][2:].isna().all()
    assert frame["multiplier"].isna().tolist() == [True, False, True, True]
    assert frame["silent_groups"][0] == 0.25 and frame["seed"].tolist() == [0] * 4
    with pytest.raises(
        ValueError, match="the log has the columns step, reward; expected advantage/<reward>/share"
    ):
        anatomy_frame([{"step": 1, "reward": 2.0}])
