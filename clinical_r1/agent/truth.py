"""Estimated advantages of turns against the true ones: what an estimator of credit gets right, without training (ours).

From a snapshot a consultation can be continued as often as one likes, so a turn's true advantage under the current policy, A =
Q(state, action) - V(state), can be estimated to any precision. With E the estimate, T = A + e the Monte Carlo advantage and v the
variance of e, over M turns:

    correlation = cov(E, T) / sqrt(var(E) (var(T) - mean(v)))       Spearman's correction for attenuation (1904), of T alone
    slope       = sum(E T) / sum(E E)                               the factor that brings E nearest to A
    mse         = sum((slope E - T)^2) / (M - 1) - mean(v)          what then remains; a slope below 0 counts as 0 here
    signal      = mean(T^2) - mean(v)                               mean of A^2: the mse of an estimate that says nothing

E is not corrected for its own noise, which is part of what is measured. The rest holds because e is independent of E and A: the
continuations must be others than the episodes of which E was made, and those for Q others than those for V.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from clinical_r1.intervals import DRAWS, Estimate, interval_of

MEASURES = ("correlation", "slope", "mse", "mse_as_given", "signal", "unexplained")
_BOUNDS = {
    "correlation": (-1.0, 1.0)
}  # of the interval; the value itself may lie beyond, or its mean would be biased
_BLOCK = 500  # bootstrap draws made at once


def monte_carlo_advantage(after, before) -> tuple[np.ndarray, np.ndarray]:
    """(advantages (M,), variances of their sampling errors (M,)) of M turns.

    after: (M, n) returns of independent continuations after the turn, its own reward included. before: (M, m) returns of
        continuations from its state, drawn apart from `after`: with shared ones the two errors would correlate. Both with the
        same discount, n and m at least 2. Two turns from one state may share `before`.
    """
    after, before = np.asarray(after, dtype=float), np.asarray(before, dtype=float)
    for name, returns in (("after", after), ("before", before)):
        if returns.ndim != 2 or returns.shape[1] < 2 or not np.isfinite(returns).all():
            raise ValueError(
                f"{name} has shape {returns.shape}; expected finite returns of at least two continuations of each turn."
            )
    if len(after) != len(before):
        raise ValueError(f"got {len(after)} turns after and {len(before)} before; expected the same turns.")
    variance = sum(returns.var(axis=1, ddof=1) / returns.shape[1] for returns in (after, before))
    return after.mean(axis=1) - before.mean(axis=1), variance


def agreement(estimate, truth, noise_variance, patients=None, rng=None, reps=DRAWS, level=0.95) -> dict:
    """How well estimated advantages agree with the true ones: the measures of this module's docstring, with intervals.

    estimate: (M,) from `credit`, in any unit. truth, noise_variance: (M,) from `monte_carlo_advantage`.
    patients: (M,) labels. rng: a generator for the bootstrap over patients, each taken with all its turns. Without the two, and
        with one patient, there are no intervals.
    Returns {"n": M, "patients": their number or None, each of MEASURES, "interval": {measure: (low, high) or None} or None}.
        mse_as_given: with a slope of 1, of use where E has the unit of rewards (std=False). unexplained: mse / signal, 1 for
        an estimate that says nothing. A measure is None where it is not defined: correlation and unexplained where T
        varies no more than its noise (more continuations or turns), all but signal and mse_as_given where E is 0
        throughout, the correlation where E does not vary. So is an interval where more draws than it leaves out on
        one side are not defined.
    The correlation can come out beyond 1 where the noise is large; its interval keeps to -1 to 1.
    """
    return compare({"estimate": estimate}, truth, noise_variance, patients, None, rng, reps, level)[
        "estimate"
    ]


def compare(
    estimates: Mapping[str, Sequence[float]],
    truth,
    noise_variance,
    patients=None,
    baseline: str | None = None,
    rng=None,
    reps=DRAWS,
    level=0.95,
) -> dict[str, dict]:
    """`agreement` of several estimates of the same turns, from the same draws of patients: {name: agreement}.

    baseline: a name; each other estimate then has "difference": {measure: {"value", "interval"}}, its measure less the
    baseline's. The draws are shared, so what the turns have in common cancels.
    """
    if not estimates or (baseline is not None and baseline not in estimates):
        raise ValueError(f"got baseline {baseline!r}; expected one of the estimates: {', '.join(estimates)}.")
    sums = _all_sums(estimates, truth, noise_variance, patients, rng)
    counted = len(next(iter(sums.values())))  # patients
    whole = {name: _measures(part.sum(axis=0)) for name, part in sums.items()}
    draws = _draws(sums, counted, rng, reps) if rng is not None and counted > 1 else None
    result = {}
    for name, values in whole.items():
        result[name] = {"n": len(truth), "patients": None if patients is None else counted}
        result[name] |= {measure: _known(values[measure]) for measure in MEASURES}
        result[name]["interval"] = draws and {
            measure: _interval(values[measure], draws[name][measure], counted, level, _BOUNDS.get(measure))
            for measure in MEASURES
        }
        if baseline is not None and name != baseline:
            result[name]["difference"] = _difference(name, baseline, whole, draws, counted, level)
    return result


def _all_sums(estimates, truth, noise_variance, patients, rng) -> dict[str, np.ndarray]:
    """{name: `_sums`} of arguments that have been checked; without labels all turns are one patient's."""
    truth, noise = _checked("truth", truth), _checked("noise_variance", noise_variance)
    if patients is None and rng is not None:
        raise ValueError(
            "got a generator without patients; expected (M,) labels: a patient's turns are not independent."
        )
    labels, codes = np.unique(np.zeros(len(truth)) if patients is None else patients, return_inverse=True)
    if not len(truth) == len(noise) == len(codes) or len(truth) < 3 or (noise < 0).any():
        raise ValueError(
            f"got {len(truth)} advantages, {len(noise)} variances and {len(codes)} patients; expected one of each for at least "
            "three turns, and variances >= 0."
        )
    sums = {}
    for name, values in estimates.items():
        values = _checked(name, values)
        if len(values) != len(truth):
            raise ValueError(
                f"{name} has {len(values)} turns and the truth {len(truth)}; expected the same turns."
            )
        sums[name] = _sums(values, truth, noise, codes, len(labels))
    return sums


def _difference(name, baseline, whole, draws, patients, level) -> dict:
    found = {}
    for measure in MEASURES:
        value = whole[name][measure] - whole[baseline][measure]
        drawn = draws and draws[name][measure] - draws[baseline][measure]
        interval = None if draws is None else _interval(value, drawn, patients, level)
        found[measure] = {"value": _known(value), "interval": interval}
    return found


def _sums(estimate, truth, noise, codes, patients) -> np.ndarray:
    """(patients, 7) sums over each patient's turns: number, E, T, E E, T T, E T, v. All measures are functions of them."""
    columns = (np.ones_like(truth), estimate, truth, estimate**2, truth**2, estimate * truth, noise)
    return np.stack([np.bincount(codes, column, patients) for column in columns], axis=1)


def _measures(sums) -> dict[str, np.ndarray]:
    """The measures of (..., 7) sums; NaN where not defined."""
    n, e, t, ee, tt, et, v = np.moveaxis(np.asarray(sums, dtype=float), -1, 0)
    with np.errstate(divide="ignore", invalid="ignore"):
        covariance, of_estimate = (et - e * t / n) / (n - 1), (ee - e * e / n) / (n - 1)
        of_truth = (tt - t * t / n) / (n - 1) - v / n
        of_estimate = np.where(of_estimate > 1e-12 * ee / n, of_estimate, np.nan)
        of_truth = np.where(of_truth > 0, of_truth, np.nan)
        slope = np.where(ee > 0, et / ee, np.nan)
        signal = tt / n - v / n
        # the wrong sign is no merit: then nothing of E is used, and nothing is fitted
        mse = np.where(slope > 0, (tt - slope * et) / (n - 1) - v / n, np.where(ee > 0, signal, np.nan))
        return {
            "correlation": covariance / np.sqrt(of_estimate * of_truth),
            "slope": slope,
            "mse": mse,
            "mse_as_given": (ee - 2 * et + tt) / n - v / n,
            "signal": signal,
            "unexplained": np.where(signal > 0, mse / signal, np.nan),
        }


def _draws(sums, patients, rng, reps) -> dict[str, dict[str, np.ndarray]]:
    """{name: {measure: (reps,)}} over patients drawn with replacement, the same for all names."""
    found = {name: [] for name in sums}
    for start in range(0, reps, _BLOCK):
        size = min(_BLOCK, reps - start)
        counts = rng.multinomial(patients, np.full(patients, 1 / patients), size)  # (size, patients)
        for name, part in sums.items():
            found[name].append(_measures(counts @ part))
    return {
        name: {measure: np.concatenate([block[measure] for block in blocks]) for measure in MEASURES}
        for name, blocks in found.items()
    }


def _interval(value, draws, patients, level, bounds=None) -> tuple[float, float] | None:
    """Percentiles of the draws; None where the value, or more draws than lie outside the interval, are not defined."""
    defined = draws[np.isfinite(draws)]
    if not np.isfinite(value) or len(defined) < (1 + level) / 2 * len(draws) or not np.ptp(defined) > 0:
        return None
    found = Estimate(float(value), float(defined.std()), patients - 1, patients, draws=defined)
    return interval_of(found, level, bounds or (-np.inf, np.inf))


def _known(value) -> float | None:
    return float(value) if np.isfinite(value) else None


def _checked(name, values) -> np.ndarray:
    values = np.asarray(values, dtype=float)
    if values.ndim != 1 or not np.isfinite(values).all():
        raise ValueError(f"{name} has shape {values.shape}; expected (M,) finite numbers, one a turn.")
    return values
