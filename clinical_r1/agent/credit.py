"""Rewards of turns -> advantages of turns: GRPO, GiGPO and Tree-GRPO, as pure functions of lists and tensors.

Notation: N = P * G episodes (rows), the G of one prompt are a group; r_t is the reward of turn t of an episode. A turn is all
that the agent writes between two messages of the environment; all its tokens get the turn's advantage. z(x) = (x - mean) /
(std + eps) within a set of values, std unbiased; with std=False z(x) = x - mean. z is exactly 0 in a set of one, and in a set
without a difference.

    R(i) = sum_t r_t                       episode return, never discounted (GiGPO eq. 3)
    R_t(i) = sum_k>=t gamma^(k-t) r_k      return-to-go (GiGPO eq. 5)

episode       A(i, t) = z of R(i) among the episodes of its group                              GRPO, arXiv 2402.03300
anchor        A(i, t) = episode + omega * z of R_t(i) among all turns, of all episodes of the group and at any time, that
              were taken in the same state                                                     GiGPO, arXiv 2505.10978, eq. 3-8
tree          A(i, t) = episode + z of R(i) among all leaves of its tree                       Tree-GRPO, arXiv 2509.21240
tree+anchor   A(i, t) = episode + tree + omega * anchor                                        ours

An anchor is a state from which several turns were taken. Every group shares its first state, so with gamma = 1 and a reward at
the end alone the anchor term of turn 0 is the episode term again: "no state repeats, so this is GRPO" holds beyond turn 0.

What the reference codes do and this module does not:
- GiGPO's baseline of the episode term averages over steps by default, so long episodes weigh more. Here every episode counts
  once, as in eq. 3.
- Both pay the raw reward where a group (or a tree) has one episode. Nothing was compared there: the advantage is 0.
- GiGPO can pool observations that look alike (difflib, against the first of each cluster): what is pooled then depends on the
  order of rows, and texts that look alike are not one state. Here equal keys are one state, and nothing else is. A key holds
  what the future depends on: the case, what is known, and the turns left.
- GiGPO takes the penalty of an invalid action from the return-to-go, after discounting. Here it is the turn's reward, so the
  turns before it are charged too.
- GiGPO copies rows at random until a batch divides. Copies would enter every mean: `check_groups` refuses them.
- Tree-GRPO names a group by the row's index in its data set, so that joined sets share groups. Here whoever calls names it, and
  `check_groups` refuses a name that two groups have.
"""

import math
from collections.abc import Hashable, Sequence

ESTIMATORS = ("episode", "anchor", "tree", "tree+anchor")
EPS = 1e-6  # added to each deviation, as in both references; TRL adds 1e-4
SAME = 1e-12  # relative: float64 sums that differ by no more are equal on paper
AS_GRPO = 0.65  # share of turns alone in their state, above which GiGPO has little to compare

Ragged = list[list[float]]


# --- tokens <-> turns


def turn_spans(mask) -> list[list[tuple[int, int]]]:
    """(N, T) mask, 1 where a token is the agent's own -> for each row the half-open spans of its maximal runs of ones.

    mask: completion_mask * tool_mask, of any type; TRL pads tool_mask with 1, so the product is needed. Spans are in
    order and apart; their lengths sum to the mask. ValueError for another shape or for values other than 0 and 1.
    """
    import torch

    mask = torch.as_tensor(mask)
    if mask.ndim != 2 or not ((mask == 0) | (mask == 1)).all():
        raise ValueError(
            f"got a mask of shape {tuple(mask.shape)}; expected (N, T) of 0 and 1: completion_mask * tool_mask."
        )
    edges = torch.nn.functional.pad(mask.int(), (1, 1)).diff(
        dim=1
    )  # 1 where a run starts, -1 where it has ended
    spans = [[] for _ in range(len(mask))]
    starts, ends = (edges == 1).nonzero().tolist(), (edges == -1).nonzero().tolist()
    for (row, start), (_, end) in zip(starts, ends, strict=True):
        spans[row].append((start, end))
    return spans


def check_spans(spans: Sequence[Sequence[tuple[int, int]]], turns: Sequence[int]) -> None:
    """ValueError, with the row, unless each row has as many spans as its trace has turns. turns: N numbers."""
    if len(spans) != len(turns):
        raise ValueError(
            f"got spans of {len(spans)} rows and traces of {len(turns)}; expected one trace a row."
        )
    for row, (found, expected) in enumerate(zip(spans, turns, strict=True)):
        if len(found) != expected:
            raise ValueError(
                f"row {row} has {len(found)} spans of the agent's tokens and {expected} turns in its trace; expected one span "
                "a turn: let each turn have a token, and be followed by a token of the environment, or two turns merge."
            )


def spread(per_turn: Sequence[Sequence[float]], spans, width: int, dtype=None):
    """Ragged values (N rows, one a turn) -> (N, width) tensor: a turn's value on all its tokens, 0 elsewhere.

    spans: from `turn_spans`. width: T, at least the end of the last span. dtype: float32 where None.
    """
    import torch

    check_spans(spans, [len(row) for row in per_turn])
    result = torch.zeros(len(spans), width, dtype=torch.float64)
    for row, (values, places) in enumerate(zip(per_turn, spans, strict=True)):
        for value, (start, end) in zip(values, places, strict=True):
            if not 0 <= start < end <= width:
                raise ValueError(f"row {row} has the span {(start, end)}; expected it within 0 and {width}.")
            if not math.isfinite(value):
                raise ValueError(f"row {row} has the value {value}; expected finite numbers: 0 where none.")
            result[row, start:end] = value
    return result.to(dtype or torch.float32)


# --- returns


def returns_to_go(rewards: Sequence[Sequence[float | None]], gamma: float = 1.0) -> Ragged:
    """GiGPO eq. 5: R_t = r_t + gamma R_(t+1), in the shape of `rewards`.

    rewards: N rows, one number a turn; None (or NaN) where a turn could not be scored, which makes its own return and
    those before it NaN. gamma: in [0, 1]. ValueError for a row without a turn and for infinite rewards.
    """
    if not 0 <= gamma <= 1:
        raise ValueError(f"gamma is {gamma}; expected a number from 0 to 1.")
    result = []
    for row in _numbers(rewards):
        after, returns = 0.0, []
        for reward in reversed(row):
            after = reward + gamma * after if gamma else reward  # 0 * NaN is NaN
            returns.append(after)
        result.append(returns[::-1])
    return result


def episode_returns(rewards: Sequence[Sequence[float | None]]) -> list[float]:
    """GiGPO eq. 3: the sum of an episode's rewards, not discounted; N numbers, NaN where a turn could not be scored."""
    return [sum(row) if any(map(math.isnan, row)) else math.fsum(row) for row in _numbers(rewards)]


# --- advantages


def group_relative(values, groups: Sequence[Hashable], std: bool = True, eps: float = EPS, dtype=None):
    """z of each value within its group: (M,) values and (M,) group names -> (M,) tensor, computed in float64.

    std: divide by the unbiased deviation + eps; False centres only. NaN enters no mean and gets 0. Exactly 0 in a group of
    one (ours: the references give the raw value for episodes and trees) and where all values agree: a rounded mean
    divided by eps alone made advantages of 0.3 of equal float32 rewards. dtype: by default that of a tensor,
    float64 for lists. Within each group the result sums to 0.
    """
    import torch

    if not isinstance(values, torch.Tensor):
        values = torch.tensor(values, dtype=torch.float64)
    dtype = dtype or (values.dtype if values.is_floating_point() else torch.float64)
    values = values.detach().double()
    codes, size = _codes(groups, "group")
    if values.shape != (len(codes),) or values.isinf().any():
        raise ValueError(
            f"got values of shape {tuple(values.shape)} for {len(codes)} group names; expected as many finite numbers (or NaN)."
        )
    codes = torch.tensor(codes, dtype=torch.long, device=values.device)
    known = ~values.isnan()

    def total(terms):
        return terms.new_zeros(size).index_add(0, codes, torch.where(known, terms, 0.0))

    count = total(torch.ones_like(values))
    centred = values - (total(values) / count)[codes]
    empty = values.new_full((size,), -torch.inf)
    highest, lowest, largest = (
        empty.scatter_reduce(0, codes, part.masked_fill(~known, -torch.inf), "amax")
        for part in (values, -values, values.abs())
    )
    tied = highest + lowest <= SAME * largest
    if std:
        centred = centred / ((total(centred.square()) / (count - 1).clamp(min=1)).sqrt() + eps)[codes]
    return torch.where(known & ~tied[codes], centred, 0.0).to(dtype)


def anchor_advantages(returns, keys, groups, std: bool = True, eps: float = EPS) -> Ragged:
    """GiGPO eq. 6-7: z of each return-to-go among all turns of the group that were taken in the same state.

    returns: ragged (N rows, one number a turn), from `returns_to_go`. keys: the same shape, a hashable state before each
    turn. groups: N names of prompts or patients; equal keys of two groups are two states. All rows and all times of a
    group are pooled, the same state twice in one episode too. Exactly 0 for a state met once.
    In a forest the copies of a shared turn are members once for each leaf, each with the return of its own leaf.
    TypeError for a key that is None or cannot be hashed: lists, dicts and arrays (which the reference accepts) can change.
    """
    _check_rows(groups, returns=returns, keys=keys)
    names = [
        (group, _key(key, i, t))
        for i, (group, row) in enumerate(zip(_listed(groups), keys, strict=True))
        for t, key in enumerate(row)
    ]
    values = iter(group_relative([value for row in returns for value in row], names, std, eps).tolist())
    return [[next(values) for _ in row] for row in returns]


def tree_advantages(returns, trees, std: bool = True, eps: float = EPS) -> list[float]:
    """Tree-GRPO's A_intra: z of each leaf's episode return among all leaves of its tree; N numbers.

    returns: N numbers. trees: N names, different for trees of different prompts. All leaves of a tree are pooled, as in the
    reference code, not the siblings of one fork. A fork's effect comes with the sum over rows: a node's tokens stand
    in the row of each leaf below it, so its weight is the sum of their advantages, 0 for what a whole tree shares.
    """
    return group_relative([float(value) for value in returns], trees, std, eps).tolist()


def credit_terms(
    estimator, rewards, groups, keys=None, trees=None, std=True, omega=1.0, gamma=1.0, eps=EPS
) -> dict[str, Ragged]:
    """The terms of `credit`, {"episode": ..., "tree": ..., "anchor": ...}, those that the estimator has, each ragged.

    Arguments as in `credit`. The anchor term is already multiplied by omega, so the terms sum to the advantage.
    """
    if estimator not in ESTIMATORS:
        raise ValueError(f"estimator {estimator!r} is not known; expected one of {', '.join(ESTIMATORS)}.")
    if not (math.isfinite(omega) and omega >= 0):
        raise ValueError(f"omega is {omega}; expected a finite number >= 0.")
    parts = estimator.split("+")
    for part, name, given in (("anchor", "keys", keys), ("tree", "trees", trees)):
        if part in parts and given is None:
            raise ValueError(
                f"estimator {estimator!r} got no {name}; expected {name}=, N rows as the rewards."
            )
    _check_rows(groups, rewards=rewards)
    groups = _listed(groups)
    returns = episode_returns(rewards)
    of_rows = {"episode": group_relative(returns, groups, std, eps).tolist()}
    if "tree" in parts:
        if len(trees) != len(groups):
            raise ValueError(f"got {len(trees)} trees for {len(groups)} rows; expected one name a row.")
        _codes(trees, "tree")
        # with the group: the first tree of two patients may have one name
        of_rows["tree"] = tree_advantages(returns, list(zip(groups, _listed(trees), strict=True)), std, eps)
    terms = {
        name: [[value] * len(row) for value, row in zip(values, rewards, strict=True)]
        for name, values in of_rows.items()
    }
    if "anchor" in parts:
        anchor = anchor_advantages(returns_to_go(rewards, gamma), keys, groups, std, eps)
        terms["anchor"] = [[omega * value for value in row] for row in anchor]
    return terms


def credit(
    estimator, rewards, groups, keys=None, trees=None, std=True, omega=1.0, gamma=1.0, eps=EPS
) -> Ragged:
    """Advantages of turns, ragged as the rewards; the equations stand at the head of this module.

    estimator: one of ESTIMATORS. rewards: N rows, one number a turn, in any unit; None where a turn could not be scored: every
        term that needs it is 0 and it enters no mean.
    groups: N names of prompts or patients. keys: ragged, a hashable state before each turn; for the anchor estimators.
    trees: N names, unique within a group; for the tree estimators. What an estimator does not need is not read.
    std: divide every term by its unbiased deviation ("w/ std" in GiGPO); False centres every term only.
    omega: weight >= 0 of the anchor term, 1 in the paper. gamma: in [0, 1], of the anchor term's return-to-go alone: .95 in
        GiGPO's scripts. eps: added to each deviation.
    Over the episodes of a group the episode term sums to 0. Over its turns it does not, where winners and losers differ in
    length: a mean advantage over tokens drifts from 0 for that reason alone.
    """
    terms = credit_terms(estimator, rewards, groups, keys, trees, std, omega, gamma, eps)
    return [[sum(parts) for parts in zip(*rows, strict=True)] for rows in zip(*terms.values(), strict=True)]


# --- what the states allow


def anchor_statistics(keys, groups, valid=None, advantages=None, nodes=None, depth: int = 1) -> dict:
    """How often a state is met again, beyond the first state and among valid turns: what GiGPO has to compare.

    keys: ragged states before each turn. groups: N names. valid: ragged booleans; a turn that was wasted is left out, since
        turns that change nothing meet the same states for that reason alone. advantages: ragged, from
        `anchor_advantages`. nodes: ragged hashable names of the turns as sampled; in a forest several rows hold copies
        of one turn, which then count once. depth: turns of each row left out at its start; 1 leaves out the
        first state, which every episode of a group shares.
    Returns {"turns": number counted, "repeated": share of them whose state another one has, "singletons": the other share,
        "mean_group": mean number of turns a state, "lone_states": share of the states that one turn has (GiGPO's figure
        counts groups), "informative": share of turns with an anchor advantage other than 0 (None without advantages),
        "by_turn": {turn: share repeated}, "sentence": what follows, or None}. Shares are None where no turn counts.
    """
    counted = _counted_turns(keys, _listed(groups), valid, advantages, nodes, depth)
    sizes: dict = {}
    for state, _, _ in counted:
        sizes[state] = sizes.get(state, 0) + 1
    by_turn: dict[int, list[bool]] = {}
    for state, t, _ in counted:
        by_turn.setdefault(t, []).append(sizes[state] > 1)
    total = len(counted)
    alone = sum(size == 1 for size in sizes.values())
    singletons = alone / total if total else None
    return {
        "turns": total,
        "repeated": 1 - singletons if total else None,
        "singletons": singletons,
        "mean_group": total / len(sizes) if total else None,
        "lone_states": alone / len(sizes) if total else None,
        "informative": sum(moved for _, _, moved in counted) / total
        if total and advantages is not None
        else None,
        "by_turn": {t: sum(shared) / len(shared) for t, shared in sorted(by_turn.items())},
        "sentence": _sentence(singletons),
    }


def _counted_turns(keys, groups, valid, advantages, nodes, depth) -> list[tuple[Hashable, int, bool]]:
    """(state, turn, has an anchor advantage) of each sampled turn that counts, copies once."""
    given = {"keys": keys, "valid": valid, "advantages": advantages, "nodes": nodes}
    _check_rows(groups, **{name: rows for name, rows in given.items() if rows is not None})
    found: dict = {}
    for i, (group, row) in enumerate(zip(groups, keys, strict=True)):
        for t, key in enumerate(row):
            if t < depth or (valid is not None and not valid[i][t]):
                continue
            node = (i, t) if nodes is None else (group, _key(nodes[i][t], i, t))
            moved = advantages is not None and advantages[i][t] != 0
            state = (group, _key(key, i, t))
            if found.setdefault(node, (state, t, moved))[:2] != (state, t):
                raise ValueError(
                    f"row {i}, turn {t} is a copy of {node[1]!r} with another state; expected one state a node."
                )
            found[node] = (state, t, found[node][2] or moved)
    return list(found.values())


def _sentence(singletons: float | None) -> str | None:
    if singletons is None or singletons <= AS_GRPO:
        return None
    return (
        f"In {singletons:.0%} of the turns beyond the first the state is met once: there the anchor estimator behaves as GRPO. A "
        "shorter menu, more episodes a patient or a coarser state key make states repeat."
    )


# --- the shape of a batch


def check_groups(groups: Sequence[Hashable], size: int, trees=None, keep: int | None = None) -> None:
    """ValueError unless the rows are whole groups: each name (or prompt) `size` times in a row, and nowhere else.

    size: G. trees, keep: N names and K, where the rows are leaves of forests: each tree K times in a row within its group.
    A name with more rows is two groups that share it, a row that was copied, or a prompt that two patients have.
    """
    groups = _listed(groups)
    _check_runs(groups, size, "group")
    if trees is None:
        return
    if len(trees) != len(groups) or not keep or size % keep:
        raise ValueError(
            f"got {len(trees)} trees of {keep} leaves for {len(groups)} rows in groups of {size}; expected one name a row, and "
            "leaves that divide the group."
        )
    _codes(trees, "tree")
    _check_runs(list(zip(groups, _listed(trees), strict=True)), keep, "tree")


def check_forest(trees: int, expand: int, rounds: int, keep: int) -> int:
    """G = M K leaves a prompt, of M trees of which K leaves each are kept; ValueError where such a forest cannot be.

    trees: M >= 1. expand: N >= 1 nodes drawn a round. rounds: L >= 0. keep: K from 1 to 1 + N L, the leaves that a tree has:
    its trunk's and one of each branch.
    """
    given = {"trees": (trees, 1), "expand": (expand, 1), "rounds": (rounds, 0), "keep": (keep, 1)}
    for name, (value, least) in given.items():
        if not isinstance(value, int) or value < least:
            raise ValueError(f"{name} is {value!r}; expected a whole number >= {least}.")
    if keep > 1 + expand * rounds:
        raise ValueError(
            f"keep is {keep} and a tree has {1 + expand * rounds} leaves (1 + {expand} x {rounds}); expected no more: expand "
            "more nodes or more rounds."
        )
    return trees * keep


def _check_runs(names, size, what) -> None:
    if size < 1 or not names or len(names) % size:
        raise ValueError(
            f"got {len(names)} rows for {what}s of {size}; expected whole ones: the batch cuts a {what}."
        )
    _codes(names, what)
    seen = set()
    for start in range(0, len(names), size):
        name = names[start]
        if any(other != name for other in names[start : start + size]) or name in seen:
            raise ValueError(
                f"rows {start} to {start + size - 1} are not one {what} of their own, which starts with {name!r}; expected each "
                f"{what} {size} times in a row and nowhere else: do not sort, cut or copy rows, and name {what}s apart."
            )
        seen.add(name)


# --- parts


def _listed(names) -> list:
    """Names as plain Python values: elements of a tensor hash by identity."""
    return names.tolist() if hasattr(names, "tolist") else list(names)


def _codes(names, what) -> tuple[list[int], int]:
    """Names -> numbers from 0, and how many; ValueError for None, TypeError for what cannot be hashed."""
    numbers: dict = {}
    names = _listed(names)
    for at, name in enumerate(names):
        if name is None:
            raise ValueError(
                f"row {at} has no {what}; expected a name: None would join all rows without one."
            )
        try:
            numbers.setdefault(name, len(numbers))
        except TypeError:
            raise TypeError(
                f"the {what} of row {at} is a {type(name).__name__}; expected a hashable name, such as a string or a tuple."
            ) from None
    if not names:
        raise ValueError(f"got no rows; expected at least one {what}.")
    return [numbers[name] for name in names], len(numbers)


def _key(key, row, turn) -> Hashable:
    """The key itself; TypeError for None, for a tensor (equal ones hash apart), and for what cannot be hashed."""
    try:
        hash(key)
        wrong = key is None or hasattr(key, "requires_grad")
    except TypeError:
        wrong = True
    if wrong:
        raise TypeError(
            f"the key of row {row}, turn {turn} is {key!r}, a {type(key).__name__}; expected a hashable state, such as a string "
            "or a tuple of strings."
        )
    return key


def _check_rows(groups, **ragged) -> None:
    """All N rows long, and each as long as the first one's at every row; no row without a group."""
    _codes(groups, "group")
    first = next(iter(ragged))
    for name, rows in ragged.items():
        if len(rows) != len(groups):
            raise ValueError(
                f"got {len(rows)} rows of {name} for {len(groups)} groups; expected one group a row."
            )
        for i, (row, other) in enumerate(zip(rows, ragged[first], strict=True)):
            if len(row) != len(other):
                raise ValueError(
                    f"row {i} has {len(other)} {first} and {len(row)} {name}; expected one of each for every turn."
                )


def _numbers(rewards) -> Ragged:
    """Rows of floats, None as NaN; ValueError for a row without a turn and for infinite values."""
    result = []
    for i, row in enumerate(rewards):
        result.append([math.nan if value is None else float(value) for value in row])
        if not result[-1] or any(map(math.isinf, result[-1])):
            raise ValueError(
                f"row {i} has the rewards {list(row)}; expected one finite number a turn, None where unscored."
            )
    return result
