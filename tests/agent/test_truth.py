"""Estimated against true advantages: synthetic turns whose truth is known, and the equations as plain loops.

Run: pytest tests/agent/test_truth.py
"""

from statistics import mean, variance

import numpy as np
import pytest

from clinical_r1.agent.truth import MEASURES, agreement, compare, monte_carlo_advantage


def synthetic(rng, turns=400, patients=40, noise=0.5, own=0.8, unit=3.0):
    """(true advantages, estimate, truth with noise, its variances, patients).

    The estimate is `unit` times (truth + own noise), its true correlation 1 / sqrt(1 + own^2) for a truth of deviation 1.
    """
    labels = np.arange(turns) % patients
    true = rng.normal(size=turns)
    estimate = unit * (true + own * rng.normal(size=turns))
    variances = noise * rng.uniform(0.5, 1.5, turns)
    return true, estimate, true + np.sqrt(variances) * rng.normal(size=turns), variances, labels


def test_measures_are_the_literal_equations():
    _, estimate, truth, noise, _ = synthetic(np.random.default_rng(0), turns=30)
    got = agreement(estimate, truth, noise)
    e, t, v = estimate.tolist(), truth.tolist(), noise.tolist()
    covariance = sum((a - mean(e)) * (b - mean(t)) for a, b in zip(e, t, strict=True)) / 29
    assert got["correlation"] == pytest.approx(covariance / (variance(e) * (variance(t) - mean(v))) ** 0.5)
    slope = sum(a * b for a, b in zip(e, t, strict=True)) / sum(a * a for a in e)
    assert got["slope"] == pytest.approx(slope)
    left = sum((slope * a - b) ** 2 for a, b in zip(e, t, strict=True)) / 29 - mean(v)
    assert got["mse"] == pytest.approx(left)
    assert got["mse_as_given"] == pytest.approx(
        mean((a - b) ** 2 for a, b in zip(e, t, strict=True)) - mean(v)
    )
    assert got["signal"] == pytest.approx(mean(b * b for b in t) - mean(v))
    assert got["unexplained"] == pytest.approx(left / got["signal"])
    assert got["n"] == 30 and got["patients"] is None and got["interval"] is None


@pytest.mark.parametrize("noise", [0.0, 0.5, 2.0])
def test_the_measures_find_the_truth_whatever_the_noise_of_the_continuations(noise):
    """Mean over 300 samples within four standard errors; the plain correlation is far off where there is noise."""
    rng = np.random.default_rng(1)
    drawn = [synthetic(rng, noise=noise) for _ in range(300)]
    found = [agreement(estimate, truth, variances) for _, estimate, truth, variances, _ in drawn]
    share = 1 / 1.64  # of the estimate's variance that is truth
    expected = {"correlation": share**0.5, "slope": share / 3, "mse": 1 - share, "signal": 1.0}
    for name, value in expected.items():
        values = np.array([one[name] for one in found])
        assert abs(values.mean() - value) < 4 * values.std() / np.sqrt(300) + 0.003, name
    plain = np.mean([np.corrcoef(estimate, truth)[0, 1] for _, estimate, truth, _, _ in drawn])
    assert plain == pytest.approx((share / (1 + noise)) ** 0.5, abs=0.01)


def test_the_noise_free_truth_gives_the_plain_measures():
    true, estimate, _, _, _ = synthetic(np.random.default_rng(2))
    got = agreement(estimate, true, np.zeros(400))
    assert got["correlation"] == pytest.approx(np.corrcoef(estimate, true)[0, 1])
    assert got["mse_as_given"] == pytest.approx(((estimate - true) ** 2).mean())


def test_the_unit_of_an_estimate_moves_the_slope_and_what_is_measured_as_given_alone():
    _, estimate, truth, noise, _ = synthetic(np.random.default_rng(3))
    one, ten = agreement(estimate, truth, noise), agreement(10 * estimate, truth, noise)
    assert ten["slope"] == pytest.approx(one["slope"] / 10)
    for name in ("correlation", "mse", "signal", "unexplained"):
        assert ten[name] == pytest.approx(one[name])
    assert ten["mse_as_given"] > 5 * one["mse_as_given"]


def test_an_estimate_that_points_the_wrong_way_is_not_praised():
    true = np.random.default_rng(4).normal(size=200)
    got = agreement(-true, true, np.zeros(200))
    assert got["correlation"] == pytest.approx(-1) and got["slope"] == pytest.approx(-1)
    assert got["mse"] == got["signal"] and got["unexplained"] == 1


def test_what_is_not_defined_is_none():
    rng = np.random.default_rng(5)
    silent = agreement(np.zeros(50), rng.normal(size=50), np.full(50, 0.1), np.arange(50), rng, reps=200)
    assert silent["signal"] > 0 and silent["interval"]["signal"] is not None
    for name in ("correlation", "slope", "mse", "unexplained"):
        assert silent[name] is None and silent["interval"][name] is None
    drowned = agreement(rng.normal(size=50), rng.normal(size=50), np.full(50, 4.0))
    assert drowned["correlation"] is None and drowned["unexplained"] is None and drowned["signal"] < 0
    constant = agreement(np.full(50, 0.1), rng.normal(size=50), np.full(50, 0.1))
    assert constant["correlation"] is None and constant["slope"] is not None


def half_right(rng):
    """60 patients x 20 turns: the estimate is right for half of the patients and nonsense for the others; correlation .5."""
    labels = np.repeat(np.arange(60), 20)
    true = rng.normal(size=1200)
    estimate = np.where((rng.random(60) < 0.5)[labels], true, rng.normal(size=1200))
    return estimate, true + rng.normal(size=1200), np.ones(1200), labels


def test_intervals_over_patients_hold_the_truth_about_as_often_as_they_say():
    rng = np.random.default_rng(6)
    intervals = [agreement(*half_right(rng), rng, reps=300)["interval"]["correlation"] for _ in range(120)]
    inside = np.mean([low <= 0.5 <= high for low, high in intervals])
    assert 0.88 <= inside <= 0.99


def test_turns_of_a_patient_are_not_taken_as_independent():
    estimate, truth, noise, labels = half_right(np.random.default_rng(6))
    widths = [
        np.diff(
            agreement(estimate, truth, noise, names, np.random.default_rng(7), 500)["interval"]["correlation"]
        )
        for names in (labels, np.arange(1200))
    ]
    assert widths[0] > 1.3 * widths[1]


def test_the_same_generator_gives_the_same_intervals_which_keep_to_what_is_possible():
    sample = synthetic(np.random.default_rng(7), noise=0.5, own=0.0)[1:]
    first, again = (agreement(*sample, np.random.default_rng(8), reps=700) for _ in range(2))
    assert first == again and first["patients"] == 40
    assert set(first["interval"]) == set(MEASURES)
    low, high = first["interval"]["correlation"]
    assert -1 <= low < high <= 1


def test_too_few_continuations_to_tell_signal_from_noise_give_no_interval():
    """Where many draws of patients vary no more than their noise, percentiles of the others would be too sure."""
    sample = synthetic(np.random.default_rng(8), turns=60, noise=6.0)[1:]
    got = agreement(*sample, np.random.default_rng(8), reps=500)
    assert got["correlation"] is not None and got["signal"] > 0
    assert got["interval"]["correlation"] is None and got["interval"]["signal"][0] < 0


def test_a_comparison_shares_its_draws_so_a_small_difference_is_seen():
    rng = np.random.default_rng(9)
    true, estimate, truth, noise, labels = synthetic(rng, turns=2000, patients=100)
    worse = estimate + 0.6 * rng.normal(size=2000)
    got = compare(
        {"anchor": estimate, "episode": worse, "same": worse},
        truth,
        noise,
        labels,
        "episode",
        np.random.default_rng(10),
        1000,
    )
    assert "difference" not in got["episode"]
    difference = got["anchor"]["difference"]["correlation"]
    assert difference["value"] == pytest.approx(got["anchor"]["correlation"] - got["episode"]["correlation"])
    assert 0 < difference["interval"][0] < difference["value"] < difference["interval"][1]
    alone = got["anchor"]["interval"]["correlation"]
    assert np.diff(difference["interval"]) < np.diff(alone)
    assert got["same"]["difference"]["correlation"] == {"value": 0.0, "interval": None}
    assert (
        got["anchor"]["interval"]
        == agreement(estimate, truth, noise, labels, np.random.default_rng(10), reps=1000)["interval"]
    )


def test_monte_carlo_advantages_are_unbiased_and_know_their_noise():
    rng = np.random.default_rng(11)
    q, v = rng.uniform(0.2, 0.8, 3000), rng.uniform(0.2, 0.8, 3000)
    after = (rng.random((3000, 64)) < q[:, None]).astype(float)
    before = (rng.random((3000, 32)) < v[:, None]).astype(float)
    advantages, noise = monte_carlo_advantage(after, before)
    errors = advantages - (q - v)
    assert abs(errors.mean()) < 4 * errors.std() / np.sqrt(3000)
    assert noise.mean() == pytest.approx((q * (1 - q) / 64 + v * (1 - v) / 32).mean(), rel=0.02)
    assert errors.var() == pytest.approx(noise.mean(), rel=0.1)
    perfect = agreement(q - v, advantages, noise)
    assert perfect["correlation"] == pytest.approx(1, abs=0.01) and perfect["slope"] == pytest.approx(
        1, abs=0.02
    )
    assert perfect["mse"] == pytest.approx(0, abs=0.001)


def test_one_turn_by_hand():
    advantages, noise = monte_carlo_advantage([[1.0, 0.0, 1.0, 0.0]], [[0.0, 0.0, 1.0]])
    assert advantages.tolist() == [pytest.approx(0.5 - 1 / 3)]
    assert noise.tolist() == [pytest.approx(1 / 3 / 4 + 1 / 3 / 3)]


def test_wrong_arguments_name_what_was_expected():
    good = np.zeros(5)
    with pytest.raises(ValueError, match="after has shape .*at least two continuations"):
        monte_carlo_advantage([[1.0]], [[1.0, 0.0]])
    with pytest.raises(ValueError, match="before has shape .*finite returns"):
        monte_carlo_advantage([[1.0, 0.0]], [[1.0, np.nan]])
    with pytest.raises(ValueError, match="got 2 turns after and 1 before"):
        monte_carlo_advantage(np.zeros((2, 2)), np.zeros((1, 2)))
    with pytest.raises(ValueError, match="estimate has 4 turns and the truth 5"):
        agreement(good[:4], good, good)
    with pytest.raises(ValueError, match="truth has shape .*finite numbers"):
        agreement(good, [np.nan] * 5, good)
    with pytest.raises(ValueError, match="variances >= 0"):
        agreement(good, good, good - 1)
    with pytest.raises(ValueError, match="at least three turns"):
        agreement(good[:2], good[:2], good[:2])
    with pytest.raises(ValueError, match="got a generator without patients"):
        agreement(good, good, good, rng=np.random.default_rng(0))
    with pytest.raises(ValueError, match="got baseline 'gigpo'; expected one of the estimates: episode"):
        compare({"episode": good}, good, good, baseline="gigpo")
