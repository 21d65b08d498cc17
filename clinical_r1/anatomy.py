"""Anatomy of advantages: how much of each completion's advantage each objective contributed.

A weight in eq. 4 is not the weight an objective has in the advantages: where accuracy varies within a group it drowns
the rest, where it does not the rest is blown up to full size, and no k changes that. Effective weights are measured
here, on any batch of rewards: of a simulation, of a run's records, of a trainer's step.

share    objective k's part [0, 1] of the summed |contributions| over completions; over objectives the shares sum to 1
tied     a group in which the first objective (accuracy) does not vary; all others are mixed
silent   a group without any advantage

torch is imported when called.
"""

import math

from clinical_r1.advantages import SILENT, as_tensor, check_rewards, contributions, spread

__all__ = [
    "anatomy",
    "anatomy_frame",
    "anatomy_table",
    "contributions",
    "silent_groups",
    "tied_groups",
    "weight_shares",
]

PREFIX, SHARE = "advantage/", "/share"  # of the names in a training log


def weight_shares(parts) -> list[float]:
    """Effective weight of each objective: K shares in [0, 1] that sum to 1, or K NaN where nothing has an advantage.

    parts: (N, K) tensor from `contributions`.
    """
    sizes = parts.abs().sum(dim=0)
    total = sizes.sum()
    return (sizes / total).tolist() if total > SILENT else [math.nan] * parts.shape[1]


def tied_groups(rewards, num_generations):
    """(P,) bool tensor: groups in which the first objective does not vary among the completions it could score."""
    first = as_tensor(rewards)[:, 0].view(-1, num_generations)
    return (spread(first, 1) == 0).flatten()


def silent_groups(parts, num_generations):
    """(P,) bool tensor: groups in which no completion has an advantage. parts: (N, K) from `contributions`."""
    return ~(parts.sum(dim=1).abs() > SILENT).view(-1, num_generations).any(dim=1)


def anatomy(
    rewards,
    weights,
    num_generations,
    aggregation="sum_then_normalize",
    *,
    names=None,
    ranges=None,
    rng=None,
    level=0.95,
    **options,
) -> dict:
    """Who owns the advantages of this batch of rewards.

    rewards, weights, num_generations, aggregation, options (eps among them): as in `group_advantages`.
    names: K names of the objectives. ranges: {name: (lowest, highest)}, checked. rng: numpy Generator; with one, the
    shares get bootstrap intervals over groups at `level` (1000 resamples).
    Returns {"completions": N, "groups": P, "tied_groups": share [0, 1], "silent_groups": share [0, 1],
    "objectives": {name: {"weight", "share", "share_mixed", "share_tied" [0, 1], "correlation" [-1, 1] of the advantage
    with the reward less its group's mean over the completions it could score, "scored": their number, and with an rng
    "share_interval" (low, high)}}}.
    NaN where a kind of group does not occur or nothing varies. ValueError naming the objective as in `check_rewards`.
    """
    import torch

    rewards = as_tensor(rewards)
    names = list(names or (f"objective {k}" for k in range(rewards.shape[-1])))
    check_rewards(rewards, names, ranges)
    parts = contributions(rewards, weights, num_generations, aggregation, names=names, **options)
    advantages = parts.sum(dim=1)
    tied = tied_groups(rewards, num_generations).repeat_interleave(num_generations)
    shares = weight_shares(parts), weight_shares(parts[~tied]), weight_shares(parts[tied])
    grouped = rewards.double().view(-1, num_generations, len(names))
    centred = (grouped - grouped.nanmean(dim=1, keepdim=True)).view_as(rewards)
    objectives = {}
    for k, name in enumerate(names):
        scored = ~rewards[:, k].isnan()
        pair = torch.stack([centred[scored, k], advantages[scored]])
        varies = bool((pair.amax(dim=1) > pair.amin(dim=1)).all())
        objectives[name] = {
            "weight": float(weights[k]),
            **{
                key: share[k]
                for key, share in zip(("share", "share_mixed", "share_tied"), shares, strict=True)
            },
            "correlation": torch.corrcoef(pair)[0, 1].item() if varies else math.nan,
            "scored": int(scored.sum()),
        }
    if rng is not None:
        for name, interval in zip(names, _share_intervals(parts, num_generations, rng, level), strict=True):
            objectives[name]["share_interval"] = interval
    return {
        "completions": len(rewards),
        "groups": len(rewards) // num_generations,
        "tied_groups": tied.double().mean().item(),
        "silent_groups": silent_groups(parts, num_generations).double().mean().item(),
        "objectives": objectives,
    }


def _share_intervals(parts, num_generations, rng, level, resamples=1000) -> list[tuple[float, float]]:
    """Percentile bootstrap over whole groups: completions of one prompt are not independent."""
    import numpy as np

    sizes = parts.abs().view(-1, num_generations, parts.shape[1]).sum(dim=1).numpy()  # (P, K)
    if not sizes.sum() > SILENT:
        return [(math.nan, math.nan)] * sizes.shape[1]
    drawn = rng.multinomial(len(sizes), np.full(len(sizes), 1 / len(sizes)), resamples) @ sizes
    drawn = drawn[drawn.sum(axis=1) > SILENT]  # (resamples, K)
    ends = np.quantile(drawn / drawn.sum(axis=1, keepdims=True), [(1 - level) / 2, (1 + level) / 2], axis=0)
    return [(float(low), float(high)) for low, high in ends.T]


def anatomy_table(result: dict):
    """The objectives of `anatomy` as a frame, one row each: objective, weight, share, ..., n (groups)."""
    import pandas as pd

    table = pd.DataFrame.from_dict(result["objectives"], orient="index").rename_axis("objective")
    return table.reset_index().assign(n=result["groups"])


def anatomy_frame(rows):
    """Training log -> tidy frame, a row per step and objective, for plotting.

    rows: `log_history` of a run, or a frame or list of such rows that also carries columns arm, method or seed, which are
    kept. Columns: (arm, method, seed,) step, objective, share, multiplier (NaN where there is none), tied_groups,
    silent_groups. Rows without an anatomy (evaluation, the last summary) are left out; ValueError if none has one.
    """
    import pandas as pd

    rows = pd.DataFrame(rows)
    shares = [name for name in rows.columns if name.startswith(PREFIX) and name.endswith(SHARE)]
    if not shares:
        raise ValueError(
            f"the log has the columns {', '.join(map(str, rows.columns)) or 'none'}; expected "
            f"{PREFIX}<reward>{SHARE}, which the trainer of multi_objective logs."
        )
    rows = rows[rows[f"{PREFIX}tied_groups"].notna()]
    frames = []
    for column in shares:
        name = column[len(PREFIX) : -len(SHARE)]
        kept = [key for key in ("arm", "method", "seed", "step") if key in rows]
        frame = rows[kept].assign(objective=name, share=rows[column].astype(float))
        multiplier = f"{PREFIX}{name}/multiplier"
        frame["multiplier"] = rows[multiplier].astype(float) if multiplier in rows else math.nan
        for group in ("tied_groups", "silent_groups"):
            frame[group] = rows[f"{PREFIX}{group}"].astype(float) if f"{PREFIX}{group}" in rows else math.nan
        frames.append(frame)
    return pd.concat(frames, ignore_index=True).sort_values(kept, kind="stable", ignore_index=True)
