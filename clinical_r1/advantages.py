"""Rewards (N, K) -> advantages (N,): ten ways to make one learning signal of several objectives, as pure tensors.

The first three are computed by TRL inside its trainer (`TRL_ARGUMENTS`), written here to be read, tested and taught
from; a test holds the two together. The others enter the trainer through `multi_objective`.

Notation: r_k is objective k's reward, w_k its weight, R = sum_k w_k r_k; mean, std (unbiased) and z(x) = (x - mean) /
(std + eps) are taken within the G completions of one prompt unless said otherwise.

sum_then_normalize  A = z(R)                                    paper eq. 3-4; K = 1: GRPO, arXiv 2402.03300
sum_then_center     A = R - mean(R)                             Dr. GRPO, arXiv 2503.20783
normalize_then_sum  A = S / (std_batch(S) + eps), S = sum_k w_k z(r_k)             GDPO, arXiv 2601.05242
normalize_each      A = sum_k w_k z(r_k)                        MO-GRPO, arXiv 2509.22047 (there every w_k = 1)
std_floor           A = (R - mean(R)) / (max(std(R), floor) + eps)                 ours
gated               A = z(R'), R' = R with w_k r_k paid only where r_gate >= threshold; conditioned as in GDPO
lexicographic       A = z(S), S_i = wins - losses of completion i in its group; a pair is decided by the first
                    objective in which the two differ                              ours
constrained         A = (z(r_0) + sum_k>0 l_k z(r_k)) / (1 + sum_k>0 l_k): the Lagrangian of "maximise r_0 where the
                    mean of each r_k reaches its target", on advantages as in Safe RLHF, arXiv 2310.12773; the targets
                    and the standardised z are ours. l is moved by `update_multipliers`
leave_one_out       A_i = R_i - mean of the other R             RLOO, arXiv 2402.14740
binary              A_i = (1 + l)(b_i - mean(b)), b_i = 1 where r_gate >= threshold and 0 below; with center=False
                    A_i = b_i - l (1 - b_i), whose mean is not zero: a group that agrees teaches too       ours
"""

import inspect
import math
from collections.abc import Sequence

import numpy as np

# The GRPOConfig keywords that make TRL itself compute these
TRL_ARGUMENTS = {
    "sum_then_normalize": {"multi_objective_aggregation": "sum_then_normalize", "scale_rewards": "group"},
    "sum_then_center": {"multi_objective_aggregation": "sum_then_normalize", "scale_rewards": "none"},
    "normalize_then_sum": {"multi_objective_aggregation": "normalize_then_sum"},
}

SILENT = 1e-9  # an advantage below this is rounding


# --- the aggregations: scores (P, G, K), weights (K,), eps -> terms (P, G, K), divisor (P, 1), or (1, 1) for the batch
#
# `contributions` is the frame around each: it centres the terms within the group where they are not centred yet, silences
# groups without a difference, and divides. A term is NaN where the score is.


def sum_then_normalize(scores, weights, eps):
    """z(R)."""
    terms = weights * scores
    return terms, _deviation(_totals(terms), 1) + eps


def sum_then_center(scores, weights, eps):
    """R - mean(R)."""
    import torch

    terms = weights * scores
    return terms, torch.ones_like(terms[:, :1, 0])


def normalize_then_sum(scores, weights, eps):
    """S = sum_k w_k z(r_k), divided by its deviation over the whole batch; its mean is zero, as that of every z."""
    terms = weights * _normalize(scores, 1, eps)
    return terms, _deviation(_totals(terms).view(1, -1), 1) + eps


def normalize_each(scores, weights, eps):
    """sum_k w_k z(r_k)."""
    import torch

    terms = weights * _normalize(scores, 1, eps)
    return terms, torch.ones_like(terms[:, :1, 0])


def std_floor(scores, weights, eps, floor=0.1):
    """z(R) with a deviation of at least `floor`, >= 0, in units of R.

    0.1 lies between CRPO's smallest deserved deviation (0.125: one of sixteen completions earns the 0.5 bonus) and the 0.005
    that a one-percent jitter of the consistency reward makes.
    """
    terms = weights * scores
    return terms, _deviation(_totals(terms), 1).clamp(min=floor) + eps


def gated(scores, weights, eps, gate=0, threshold=1.0):
    """z(R) of what is paid: all objectives where the gate reaches the threshold, below it the gate alone.

    gate: column (or name) of the hard objective. threshold: in its units; 1 is the accuracy reward's maximum.
    """
    return sum_then_normalize(_gate(scores, gate, threshold), weights, eps)


def lexicographic(scores, weights, eps, tolerance=0.0):
    """z(wins - losses). tolerance: >= 0, two rewards that differ by no more are tied; one number, or one an objective."""
    import torch

    terms = _decided(scores, weights, tolerance).masked_fill(scores.isnan(), torch.nan)
    return terms, _deviation(_totals(terms), 1) + eps


def constrained(scores, weights, eps, multipliers=None):
    """The Lagrangian. multipliers: K - 1 numbers >= 0, for every objective but the first; there is no default."""
    import torch

    weights = (weights > 0) * weights.new_tensor([1.0, *multipliers])  # of the objectives that take part
    terms = weights * _normalize(scores, 1, eps)
    return terms, torch.full_like(terms[:, :1, 0], weights.sum().item())


def leave_one_out(scores, weights, eps):
    """R_i less the mean of the others: (R_i - mean(R)) n / (n - 1)."""
    terms = weights * scores
    count = (~_totals(terms).isnan()).sum(dim=1, keepdim=True).double()
    return terms, (count - 1) / count.clamp(min=1)


def binary(scores, weights, eps, gate=0, threshold=1.0, penalty=1.0, center=True):
    """(1 + l) b, b = 1 where the gate's reward reaches the threshold, 0 below: no deviation, and no other objective has a say.

    gate: column (or name) of the hard objective. threshold: in its units. penalty: l, >= 0, what a miss costs beside a hit's 1;
    a mere scale where the group is centred. center: `advantage_parts` alone leaves it out.
    """
    import torch

    if not center:
        raise ValueError("contributions are centred, got center=False; take `advantage_parts`.")

    terms = torch.zeros_like(scores)
    terms[..., gate] = (1 + penalty) * (scores[..., gate] >= threshold).double()
    terms = terms.masked_fill(scores[..., gate : gate + 1].isnan(), torch.nan)
    return terms, torch.ones_like(terms[:, :1, 0])


AGGREGATIONS = {
    function.__name__: function
    for function in (
        sum_then_normalize, sum_then_center, normalize_then_sum, normalize_each, std_floor, gated, lexicographic, constrained,
        leave_one_out, binary,
    )
}  # fmt: skip
# Made of standardised objectives, or of wins less losses: every objective is centred within the group as it comes
CENTRED = ("normalize_then_sum", "normalize_each", "lexicographic", "constrained")


def options_of(aggregation: str) -> dict:
    """The keywords of an aggregation with their defaults; {} for most."""
    parameters = list(inspect.signature(AGGREGATIONS[aggregation]).parameters.values())[3:]
    return {parameter.name: parameter.default for parameter in parameters}


# --- advantages


def group_advantages(
    rewards, weights, num_generations, aggregation="sum_then_normalize", eps=1e-4, scale=True, *, names=None, **options
):  # fmt: skip
    """Group-relative advantages from several objectives.

    rewards: (N, K) tensor, array or nested lists, each objective in its own range; NaN (None in lists) where
        it could not be scored. N = P * G, the G completions of one prompt contiguous.
    weights: (K,) non-negative; their ratio is the trade-off. lexicographic and constrained trade nothing: they
        only leave out objectives of weight 0.
    num_generations: G >= 2; nothing here is defined for a group of one.
    aggregation: one of AGGREGATIONS; the equations stand at the head of this module.
    eps: added to every standard deviation (TRL: 1e-4; the official Clinical-R1 code: 1e-6).
    scale: False centres without dividing, which is sum_then_center; only sum_then_normalize takes it.
    names: K names of the objectives, for the messages.
    options: the aggregation's own keywords (`options_of`).
    Returns a (N,) tensor of the rewards' floating type, computed in float64: exactly zero for a completion no
        objective could score, and for every group whose rewards all agree. An unscorable entry enters no mean or
        deviation and is left out of its completion's sum; where the gate cannot be scored the completion is left
        out, since nobody knows what it has earned. ValueError for what does not fit.
    """
    rewards = as_tensor(rewards)
    options |= {"eps": eps, "scale": scale, "names": names}
    parts = advantage_parts(rewards, weights, num_generations, aggregation, **options)
    return parts.sum(dim=1).to(rewards.dtype)


def advantage_parts(
    rewards, weights, num_generations, aggregation="sum_then_normalize", *, names=None, **options
):
    """`contributions` (same arguments), and binary with center=False: 1 for a hit, -penalty for a miss, 0 where the gate is not
    known. Its mean is not zero, and a group that agrees has an advantage too: hold it by a KL term or a clip.
    """
    import torch

    if aggregation != "binary":
        return contributions(rewards, weights, num_generations, aggregation, names=names, **options)
    rewards, options = as_tensor(rewards), options_of("binary") | options
    columns = dict(enumerate(names)) if names else dict.fromkeys(range(rewards.shape[-1]))
    gate = next((k for k, name in columns.items() if options["gate"] in (k, name)), None)
    if gate is None or not math.isfinite(options["threshold"]):
        got = f"gate {options['gate']!r} and threshold {options['threshold']}"
        raise ValueError(f"{got} do not fit; expected one of {columns} and a finite number in its units.")
    _numbers("penalty", [options["penalty"]], 1)
    center, options["gate"] = options.pop("center"), gate
    parts = contributions(rewards, weights, num_generations, aggregation, names=names, **options)
    if center:
        return parts
    earned = torch.where(rewards[:, gate] >= options["threshold"], 1.0, -float(options["penalty"]))
    parts = torch.zeros_like(parts)
    parts[:, gate] = earned.masked_fill(rewards[:, gate].isnan(), 0.0).to(parts)
    return parts


def contributions(
    rewards, weights, num_generations, aggregation="sum_then_normalize", eps=1e-4, scale=True, *, names=None, **options
):  # fmt: skip
    """What each objective adds to each advantage: (N, K) in float64, rows sum to `group_advantages` (same arguments).

    Every advantage here is a sum over objectives divided by one number of the group (or the batch), so the split is
    exact. For the sums it is w_k (r_k - mean) over that number; for gated the reward that is still paid stands in for
    r_k; for lexicographic it counts the comparisons that objective k decided, won minus lost. Not in the split: the
    other objectives' share in the common divisor. An entry that could not be scored counts as nothing paid in R. Zero
    throughout a group that has no advantage, even where opposite parts cancel.
    """
    import torch

    rewards = as_tensor(rewards)  # (N, K)
    weights = torch.as_tensor(weights, dtype=torch.float64, device=rewards.device)  # (K,)
    _check(rewards, weights, num_generations, aggregation, scale, names)
    options = _checked_options(aggregation, options, rewards.shape[1], names)
    if not scale:
        aggregation = "sum_then_center"
    scores = rewards.double().view(-1, num_generations, rewards.shape[1])  # (P, G, K)
    terms, divisor = AGGREGATIONS[aggregation](scores, weights, eps, **options)
    totals = _totals(terms)  # (P, G), NaN where unscorable
    silent = spread(totals.view(len(divisor), -1), 1) <= _noise(terms, weights, aggregation, rewards.dtype)
    terms = terms.nan_to_num(nan=0.0).masked_fill(totals.isnan().unsqueeze(2), torch.nan)
    if aggregation not in CENTRED:
        terms = terms - terms.nanmean(dim=1, keepdim=True)
    terms = terms.masked_fill(silent.unsqueeze(2), 0.0).nan_to_num(nan=0.0)
    return torch.where(divisor.unsqueeze(2) > 0, terms / divisor.unsqueeze(2), 0.0).view_as(rewards)


def update_multipliers(
    multipliers: Sequence[float], rewards, targets: Sequence[float], rate: float
) -> list[float]:
    """One step of dual ascent for "constrained": l_k <- max(0, l_k + rate * (target_k - mean r_k)), k = 1 .. K-1.

    multipliers, targets: K - 1 numbers, for every objective but the first; targets in the rewards' units.
    rewards: (N, K) as in `group_advantages`; an objective that nothing in the batch could score keeps its multiplier.
    rate: > 0, per step. Returns a plain list, so that it can be kept in a checkpoint.
    """
    means = as_tensor(rewards).double().nanmean(dim=0).tolist()[1:]
    if not len(multipliers) == len(targets) == len(means):
        raise ValueError(
            f"got {len(multipliers)} multipliers and {len(targets)} targets for {len(means) + 1} objectives; "
            f"expected {len(means)} of each: every objective but the first."
        )
    if not (math.isfinite(rate) and rate > 0):
        raise ValueError(f"rate is {rate}; expected a finite number > 0.")
    if not all(map(math.isfinite, targets)):
        raise ValueError(f"targets are {list(targets)}; expected finite numbers in the rewards' units.")
    return [
        float(multiplier) if math.isnan(mean) else max(0.0, float(multiplier) + rate * (float(target) - mean))
        for multiplier, target, mean in zip(multipliers, targets, means, strict=True)
    ]


# --- parts


def _gate(scores, gate, threshold):
    """Objectives other than the gate are paid 0 where it is below the threshold; all NaN where it is unknown."""
    import torch

    reached = scores[..., gate : gate + 1]  # (P, G, 1)
    paid = torch.where(reached >= threshold, scores, torch.where(scores.isnan(), torch.nan, 0.0))
    paid[..., gate] = scores[..., gate]
    return paid.masked_fill(reached.isnan(), torch.nan)


def _decided(scores, weights, tolerance):
    """(P, G, K): comparisons of completion i with its group that objective k decided, won minus lost.

    The columns are in order of importance. An objective that one of the two lacks decides nothing between them.
    """
    import torch

    tolerance = torch.as_tensor(tolerance, dtype=scores.dtype, device=scores.device)
    differences = scores.unsqueeze(2) - scores.unsqueeze(1)  # (P, G, G, K)
    signs = torch.where(differences.abs() > tolerance, differences.sign(), 0.0) * (weights > 0)
    before = torch.cummax(signs.abs(), dim=3).values.roll(1, dims=3)  # decided by an earlier objective
    before[..., 0] = 0.0
    return (signs * (1 - before)).sum(dim=2)


def _totals(terms):
    """(P, G) sums over the objectives that could be scored; NaN where none could."""
    import torch

    return terms.nansum(dim=2).masked_fill(terms.isnan().all(dim=2), torch.nan)


def _noise(terms, weights, aggregation, dtype):
    """Totals that differ by no more are equal: on paper they are, and their parts were rounded."""
    import torch

    if aggregation in CENTRED:  # standardised in float64, or whole numbers
        return 1e-12 * weights.sum()
    rounding = torch.finfo(dtype).eps * max(int((weights > 0).sum()) - 1, 0)
    return rounding * terms.abs().nansum(dim=2).amax(dim=1, keepdim=True)


def _normalize(values, dim, eps):
    """Centre, and divide by the unbiased deviation + eps, along dim; NaN stays NaN and enters no statistic.

    Where all values agree the result is exactly zero: the mean of equal floats can miss them by a rounding
    error, which a division by eps alone would blow up into an advantage.
    """
    import torch

    centred = values - values.nanmean(dim, keepdim=True)
    normalized = centred / (_deviation(values, dim) + eps)
    return torch.where((spread(values, dim) == 0) & ~values.isnan(), 0.0, normalized)


def spread(values, dim):
    """Highest minus lowest value along dim, NaN aside; 0 where there is none."""
    import torch

    missing = values.isnan()
    highest = values.masked_fill(missing, -torch.inf).amax(dim, keepdim=True)
    lowest = values.masked_fill(missing, torch.inf).amin(dim, keepdim=True)
    return (highest - lowest).clamp(min=0.0)


def _deviation(values, dim):
    """Unbiased standard deviation along dim of what is not NaN; 0 where fewer than two are left."""
    count = (~values.isnan()).sum(dim, keepdim=True)
    centred = values - values.nanmean(dim, keepdim=True)
    return (centred.square().nansum(dim, keepdim=True) / (count - 1).clamp(min=1)).sqrt()


def as_tensor(rewards):
    """Rewards of any kind as a floating tensor, None as NaN; an array is copied."""
    import torch

    if isinstance(rewards, torch.Tensor):
        return rewards if rewards.is_floating_point() else rewards.float()
    if isinstance(rewards, (list, tuple)):
        rewards = [[math.nan if value is None else value for value in row] for row in rewards]
        return torch.tensor(rewards, dtype=torch.float32)
    return as_tensor(torch.from_numpy(np.array(rewards)))  # a copy: a frame's own array may be read-only


def _check(rewards, weights, num_generations, aggregation, scale, names) -> None:
    if aggregation not in AGGREGATIONS:
        raise ValueError(f"aggregation {aggregation!r} is not known; expected one of {tuple(AGGREGATIONS)}.")
    if not scale and aggregation != "sum_then_normalize":
        raise ValueError(
            f"scale=False got aggregation {aggregation!r}; only 'sum_then_normalize' can leave scaling out."
        )
    if rewards.ndim != 2:
        raise ValueError(f"rewards have shape {tuple(rewards.shape)}; expected (N, K), one row a completion.")
    if names is not None and len(names) != rewards.shape[1]:
        raise ValueError(
            f"names are {', '.join(names)}, and the rewards have {rewards.shape[1]} columns; expected one an objective."
        )
    names = names or [f"objective {k}" for k in range(rewards.shape[1])]
    infinite = rewards.isinf().any(dim=0).tolist()
    if any(infinite):
        raise ValueError(
            f"{names[infinite.index(True)]} holds an infinite value; expected finite numbers, or NaN where unscorable."
        )
    if weights.shape != rewards.shape[1:]:
        raise ValueError(
            f"weights have shape {tuple(weights.shape)}; expected ({rewards.shape[1]},), one an objective: "
            f"{', '.join(names)}."
        )
    wrong = (~(weights.isfinite() & (weights >= 0))).tolist()
    if any(wrong):
        at = wrong.index(True)
        raise ValueError(
            f"weights are {weights.tolist()}, {weights[at].item():g} for {names[at]}; expected finite numbers >= 0."
        )
    if num_generations < 2:
        raise ValueError(
            f"num_generations is {num_generations}; a group needs at least 2 completions to compare."
        )
    if rewards.shape[0] == 0 or rewards.shape[0] % num_generations:
        raise ValueError(
            f"{rewards.shape[0]} completions do not divide into groups of {num_generations}: pass whole ones."
        )


def _checked_options(aggregation, given, objectives, names) -> dict:
    """The aggregation's options with defaults filled in, the gate as a column number."""
    known = options_of(aggregation)
    unknown = sorted(set(given) - set(known))
    if unknown:
        raise ValueError(
            f"{aggregation} got the option {', '.join(unknown)}; expected {', '.join(known) or 'no option'}."
        )
    options = known | given
    if aggregation == "std_floor":
        _numbers("floor", [options["floor"]], 1)
    if aggregation == "gated":
        gate = options["gate"]
        columns = dict(zip(names or (), range(objectives), strict=False))
        if gate not in columns and not (isinstance(gate, int) and 0 <= gate < objectives):
            raise ValueError(
                f"gate is {gate!r}; expected a column from 0 to {objectives - 1}"
                + (f" or one of {', '.join(names)}." if names else ".")
            )
        options["gate"] = columns.get(gate, gate)
        if not math.isfinite(options["threshold"]):
            raise ValueError(
                f"threshold is {options['threshold']}; expected a finite number in the gate's units."
            )
    if aggregation == "lexicographic":
        tolerance = options["tolerance"]
        _numbers("tolerance", tolerance if np.ndim(tolerance) else [tolerance] * objectives, objectives)
    if aggregation == "constrained":
        others = ", ".join(names[1:]) if names else "every objective but the first"
        _numbers("multipliers", options["multipliers"] or [], objectives - 1, others)
    return options


def _numbers(name, values, count, of="") -> None:
    values = [float(value) for value in values]
    if len(values) != count or not all(math.isfinite(value) and value >= 0 for value in values):
        got = values[0] if count == 1 and len(values) == 1 else values
        raise ValueError(
            f"{name} is {got}; expected {count} finite number{'s' * (count != 1)} >= 0{of and f', for {of}'}."
        )


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
