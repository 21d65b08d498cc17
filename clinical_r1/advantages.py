"""Rewards (N, K) -> advantages (N,): the paper's equations 3 and 4, and GDPO's alternative, as pure tensors.

This is what TRL computes inside its trainer, written to be read, tested and taught from; a test holds the two
together.
"""

import math
from collections.abc import Sequence

import numpy as np

AGGREGATIONS = ("sum_then_normalize", "normalize_then_sum")


def total_reward(columns: Sequence[Sequence[float | None]], weights: Sequence[float]) -> list[float | None]:
    """Paper eq. 4 for any set of objectives: the weighted sum of each completion's rewards.

    columns: K lists of N rewards, None where unscorable. Returns N totals; an unscorable entry is left out of
    its sum, and a completion that no objective could score gets None. ValueError where K or N disagree.
    """
    if len(columns) != len(weights):
        raise ValueError(
            f"got {len(columns)} reward columns and {len(weights)} weights; expected one weight a column."
        )
    totals = []
    for row in zip(*columns, strict=True):
        scored = [weight * reward for weight, reward in zip(weights, row, strict=True) if reward is not None]
        totals.append(math.fsum(scored) if scored else None)
    return totals


def group_advantages(
    rewards, weights, num_generations, aggregation="sum_then_normalize", eps=1e-4, scale=True
):
    """Group-relative advantages from several objectives.

    rewards: (N, K) tensor, array or nested lists, each objective in its own range; NaN (None in lists) where
        it could not be scored. N = P * G, the G completions of one prompt contiguous.
    weights: (K,) non-negative; their ratio is the trade-off.
    num_generations: G >= 2.
    aggregation: "sum_then_normalize", the paper's eq. 3-4: weighted sum, then centred and divided by the
        group's unbiased standard deviation (with K = 1 this is GRPO's advantage). "normalize_then_sum", GDPO
        (arXiv 2601.05242): each objective normalised within the group, weighted sum, normalised over all N.
    eps: added to every standard deviation (TRL: 1e-4; the official Clinical-R1 code: 1e-6).
    scale: False centres without dividing (Dr. GRPO); only sum_then_normalize can.
    Returns a (N,) tensor of the rewards' floating type: exactly zero for a completion no objective could
        score, and for every group whose rewards all agree (GDPO: every objective of a group, and the batch).
        Unscorable completions enter no mean or deviation. ValueError for what does not fit.
    """
    import torch

    rewards = _as_tensor(rewards)  # (N, K)
    weights = torch.as_tensor(weights, dtype=torch.float64, device=rewards.device)  # (K,)
    _check(rewards, weights, num_generations, aggregation, scale)
    scores = rewards.double()
    unscorable = scores.isnan().all(dim=1)  # (N,)
    if aggregation == "normalize_then_sum":
        grouped = scores.view(-1, num_generations, scores.shape[1])  # (P, G, K)
        scores = _normalize(grouped, 1, eps).view_as(scores)
    totals = (scores * weights).nansum(dim=1).masked_fill(unscorable, torch.nan)  # (N,)
    if aggregation == "normalize_then_sum":
        advantages = _normalize(totals, 0, eps)  # over the batch
    else:
        advantages = _normalize(totals.view(-1, num_generations), 1, eps, scale).flatten()  # over each group
    return advantages.nan_to_num(nan=0.0).to(rewards.dtype)


def _as_tensor(rewards):
    import torch

    if isinstance(rewards, torch.Tensor):
        return rewards if rewards.is_floating_point() else rewards.float()
    if isinstance(rewards, (list, tuple)):
        rewards = [[math.nan if value is None else value for value in row] for row in rewards]
        return torch.tensor(rewards, dtype=torch.float32)
    return _as_tensor(torch.from_numpy(np.array(rewards)))  # a copy: a frame's own array may be read-only


def _check(rewards, weights, num_generations, aggregation, scale) -> None:
    if aggregation not in AGGREGATIONS:
        raise ValueError(f"aggregation {aggregation!r} is not known; expected one of {AGGREGATIONS}.")
    if not scale and aggregation != "sum_then_normalize":
        raise ValueError(
            f"scale=False got aggregation {aggregation!r}; only 'sum_then_normalize' can leave scaling out."
        )
    if rewards.ndim != 2:
        raise ValueError(f"rewards have shape {tuple(rewards.shape)}; expected (N, K), one row a completion.")
    if rewards.isinf().any():
        raise ValueError("rewards hold an infinite value; expected finite numbers, or NaN where unscorable.")
    if weights.shape != rewards.shape[1:]:
        raise ValueError(
            f"weights have shape {tuple(weights.shape)}; expected ({rewards.shape[1]},), one an objective."
        )
    if not (weights.isfinite() & (weights >= 0)).all():
        raise ValueError(f"weights are {weights.tolist()}; expected finite numbers >= 0.")
    if num_generations < 2:
        raise ValueError(
            f"num_generations is {num_generations}; a group needs at least 2 completions to compare."
        )
    if rewards.shape[0] == 0 or rewards.shape[0] % num_generations:
        raise ValueError(
            f"{rewards.shape[0]} completions do not divide into groups of {num_generations}: pass whole ones."
        )


def _normalize(values, dim, eps, scale=True):
    """Centre, and divide by the unbiased deviation + eps, along dim; NaN stays NaN and enters no statistic.

    Where all values agree the result is exactly zero: the mean of equal floats can miss them by a rounding
    error, which a division by eps alone would blow up into an advantage.
    """
    import torch

    missing = values.isnan()
    count = (~missing).sum(dim, keepdim=True)
    centred = values - values.nanmean(dim, keepdim=True)
    highest = values.masked_fill(missing, -torch.inf).amax(dim, keepdim=True)
    lowest = values.masked_fill(missing, torch.inf).amin(dim, keepdim=True)
    centred = torch.where((highest == lowest) & ~missing, 0.0, centred)
    if not scale:
        return centred
    deviation = (centred.square().nansum(dim, keepdim=True) / (count - 1).clamp(min=1)).sqrt()
    return centred / (deviation + eps)
