"""Before a prefix is shared: models whose answers would not be stock's, and the comparison at first use.

The comparison: two rows, and the same two with half of their prompt replaced by padding, are computed as they would be
shared; then each row alone, without padding or a mask, by the stock method. First in float32 arithmetic with the same
weights, where a right form differs by rounding only and a wrong one by a hundred times the tolerance; then as the model runs.

torch is imported when called.
"""

import math
from contextlib import contextmanager, nullcontext

from clinical_r1.speed.prefix_attention import NAME, CannotShare

# Mean and largest difference of a log-probability, and of a gradient as a share of the largest of its matrix. What models
# differ by, here and below, was measured once, by hand. In float32,
# SmolLM2-135M differs by 3e-6, 1e-5 and 3e-5 where the form is right, by .089, 1.4 and .21 where positions are off by one, and
# by .024, .17 and .04 where the scale of attention is 2 % wrong; a tiny untrained model by 6e-7, .3 and .02 in its gradients.
TOLERANCE = {"float64": (1e-7, 1e-6, 1e-6), "float32": (1e-4, 1e-3, 1e-3)}
# In bfloat16 the right form differs by .040, .16 and .093 (by .10 and .75 on random tokens), too much to tell it from a scale 2 %
# wrong at .049, .25 and .117. What float32 has decided is looked at there for a broken kernel only; the first is for
# quantised weights, which have no float32.
HALF_TOLERANCE = {"alone": (0.08, 0.6, 0.15), "after float32": (0.3, 3.0, 0.5)}
LONGEST = 256  # tokens of a completion that are compared


def unshareable(decoder) -> str | None:
    """Why a transformers model has no exact shared form whatever the batch, or None."""
    config = decoder.config.get_text_config()
    implementation = decoder.config._attn_implementation
    if implementation not in ("sdpa", NAME):
        return f"attn_implementation is {implementation!r}; load the model with 'sdpa'"
    if not getattr(decoder, "_supports_attention_backend", False):
        return f"{type(decoder).__name__} has an attention of its own"
    kinds = set(getattr(config, "layer_types", None) or ()) - {"full_attention", "sliding_attention"}
    if kinds:
        return f"layers of kind {', '.join(sorted(kinds))} carry a state from token to token"
    if getattr(config, "is_encoder_decoder", False):
        return "an encoder reads the prompt"
    tables = {id(e.weight) for e in (decoder.get_input_embeddings(), decoder.get_output_embeddings()) if e}
    matrices = [p for p in decoder.parameters() if id(p) not in tables]
    # A part of each in this process: DeepSpeed's and FSDP's first version leave no matrix, the second a DTensor.
    if not any(p.ndim == 2 and p.numel() for p in matrices) or any(
        hasattr(p, "placements") for p in matrices
    ):
        return "its weights are partitioned: this process holds none of its matrices whole"
    return None


def rope_limit(config) -> int | None:
    """Tokens of a padded row from which its rotary angles depend on that length, None for a model whose never do.

    In transformers these are the kinds "longrope" and "dynamic", of the whole model or of one kind of layer.
    """
    rope = getattr(config, "rope_parameters", None) or {}
    kinds = list(rope.values()) if all(isinstance(value, dict) for value in rope.values()) else [rope]
    moving = [
        kind
        for kind in kinds
        if kind.get("rope_type") == "longrope" or "dynamic" in str(kind.get("rope_type"))
    ]
    limits = [
        kind.get("original_max_position_embeddings") or config.max_position_embeddings for kind in moving
    ]
    return min(limits, default=None)


def active_dropout(decoder) -> float:
    """The largest dropout probability of a model's modules and attention, 0.0 when none is seen; see `draws_are_noticed`."""
    import torch

    module = max((m.p for m in decoder.modules() if isinstance(m, torch.nn.Dropout)), default=0.0)
    return max(module, getattr(decoder.config.get_text_config(), "attention_dropout", 0.0) or 0.0)


# --------------------------------------------------------------------------------------------------- random numbers


def _generators(device):
    """[(state now, how to set it)] of the generators that a forward pass on this device may draw from."""
    import torch

    found = [(torch.get_rng_state(), torch.set_rng_state)]
    if device.type != "cpu":
        module = torch.get_device_module(device)
        found.append((module.get_rng_state(device), lambda state: module.set_rng_state(state, device)))
    return found


@contextmanager
def draws_are_kept(device):
    """Random numbers that are drawn within are drawn again afterwards."""
    before = _generators(device)
    try:
        yield
    finally:
        for state, restore in before:
            restore(state)


@contextmanager
def draws_are_noticed(device):
    """CannotShare, with the numbers put back, when anything within has drawn: dropout by whatever name or function."""
    import torch

    before = _generators(device)
    yield
    after = _generators(device)
    if not all(torch.equal(old, new) for (old, _), (new, _) in zip(before, after, strict=True)):
        for state, restore in before:
            restore(state)
        raise CannotShare("its forward pass draws random numbers for every row, as dropout does", drawn=True)


# -------------------------------------------------------------------------------------------------- several processes


def agreed(values, accelerator) -> tuple:
    """Each number's largest value on any process, so that all decide alike; NaN counts as infinite."""
    import torch

    values = tuple(math.inf if math.isnan(value) else value for value in values)
    if accelerator.num_processes == 1:
        return values
    largest = torch.tensor(values, dtype=torch.float64, device=accelerator.device)
    torch.distributed.all_reduce(largest, torch.distributed.ReduceOp.MAX)
    return tuple(largest.tolist())


# ----------------------------------------------------------------------------------------------------- the comparison


def rows_to_verify(input_ids, attention_mask, logits_to_keep, layout):
    """(ids, mask, tokens kept) of four rows: two of one group where there are, and the same with half their prompt padded.

    A model that counts positions from the mask, or reads what is padded, is caught by the second two whatever the batch.
    """
    import torch

    width, rows = input_ids.shape[1] - logits_to_keep, range(len(layout.lengths))
    answered = sorted(rows, key=lambda row: (layout.lengths[row] == 0, layout.group_of_row[row], row))
    chosen, keep = sorted(answered[:2]), min(logits_to_keep, LONGEST)
    ids, mask = (tensor[chosen, : width + keep] for tensor in (input_ids, attention_mask))
    prompt = mask[:, :width]
    kept = prompt * (prompt.cumsum(dim=1) > prompt.sum(dim=1, keepdim=True) // 2)
    padded = torch.cat([kept, mask[:, width:]], dim=1)
    return torch.cat([ids, ids.masked_fill(padded == 0, 0)]), torch.cat([mask, padded]), keep


def differences(packed, alone, rows, leaves) -> tuple[float, float, float]:
    """Mean and largest difference of log-probabilities, and the largest of `leaves`' gradients (0.0 without leaves).

    packed, alone: (ids, mask, tokens kept) -> (n, tokens kept) log-probabilities, of rows together or of one row.
    """
    import torch

    ids, mask, keep = rows
    there = mask[:, -keep:].bool()
    with torch.set_grad_enabled(bool(leaves)):
        shared = packed(ids, mask, keep)[there]
        single = []
        for row, known in zip(ids, mask.bool(), strict=True):
            if tokens := int(known[-keep:].sum()):
                row = row[known][None]
                single.append(alone(row, torch.ones_like(row), tokens)[0])
        stock = torch.cat(single)
        return *apart(shared, stock), gradients_apart(shared, stock, leaves)


def apart(a, b) -> tuple[float, float]:
    """Mean and largest absolute difference."""
    difference = (a - b).detach().abs()
    return difference.mean().item(), difference.max().item()


def gradients_apart(shared, stock, leaves) -> float:
    """Largest difference of gradients of a weighted sum of log-probabilities (M,), as a share of the largest of its matrix.

    0.0 without leaves.
    """
    import torch

    if not leaves:
        return 0.0
    weights = torch.linspace(-1.0, 2.0, len(stock), device=stock.device)
    ours, theirs = (torch.autograd.grad((logps * weights).sum(), leaves) for logps in (shared, stock))
    shares = [0.0]
    for a, b in zip(ours, theirs, strict=True):
        largest, difference = b.abs().max().item(), (a - b).abs().max().item()
        if largest or difference:  # an adapter begins with matrices whose gradient is zero
            shares.append(difference / largest if largest else math.inf)
    return max(shares)


def ways_to_verify(model, decoder) -> list:
    """[(name, tolerance, context that yields (what to call, leaves))]: in float32 where weights are numbers, and as it runs."""
    import torch

    kinds = {p.dtype for p in decoder.parameters()}
    as_it_runs = {torch.bfloat16, torch.float16} & kinds or "_original_forward" in model.__dict__
    ways = []
    if all(kind.is_floating_point and kind.itemsize > 1 for kind in kinds):
        name = "float64" if kinds == {torch.float64} else "float32"
        ways.append((name, TOLERANCE[name], in_float32(model, decoder)))
    if as_it_runs or not ways:
        allowed = HALF_TOLERANCE["after float32" if ways else "alone"]
        ways.append(("its own precision", allowed, as_is(model, decoder)))
    return ways


def last_matrices(decoder) -> list:
    """Attention's matrices in the last layer that has any, quantised ones left out."""
    named = [(name, p) for name, p in decoder.named_parameters() if p.ndim == 2 and p.is_floating_point()]
    attention = [(name[: name.rindex("att")], p) for name, p in named if "att" in name.lower()]
    return [p for place, p in attention if place == attention[-1][0]]


@contextmanager
def _only(leaves, decoder):
    """Within, these alone have gradients."""
    before = [(p, p.requires_grad) for p in decoder.parameters()]
    try:
        for p, _ in before:
            p.requires_grad_(False)
        for p in leaves:
            p.requires_grad_(True)
        yield
    finally:
        for p, required in before:
            p.requires_grad_(required)


@contextmanager
def as_is(model, decoder):
    """Within, the model as it runs, and the matrices whose gradients are compared."""
    leaves = last_matrices(decoder)
    with _only(leaves, decoder):
        yield model, leaves


@contextmanager
def in_float32(model, decoder):
    """Within, every module of half precision computes in float32 with its own weights, one module's copies at a time."""
    import torch

    half, swapped = (torch.bfloat16, torch.float16), {}
    matrices = last_matrices(decoder)
    leaves = {id(p): p.detach().float() for p in matrices if p.dtype in half}

    def enter(module, args, kwargs):
        mine = {name: p for name, p in module._parameters.items() if p is not None and p.dtype in half}
        if mine:
            swapped.setdefault(module, {}).update(mine)
            module._parameters.update({n: leaves.get(id(p), p.detach().float()) for n, p in mine.items()})
        wide = [value.float() if _half(value) else value for value in args]
        return tuple(wide), {name: value.float() if _half(value) else value for name, value in kwargs.items()}

    def leave(module, args, output):
        module._parameters.update(swapped.pop(module, {}))

    def _half(value):
        return isinstance(value, torch.Tensor) and value.dtype in half

    hooks = []
    for module in decoder.modules():
        if any(p.dtype in half for p in module.parameters(recurse=False)):
            hooks += [
                module.register_forward_pre_hook(enter, with_kwargs=True),
                module.register_forward_hook(leave),
            ]
    precision = torch.get_float32_matmul_precision()
    device = next(decoder.parameters()).device.type
    try:
        torch.set_float32_matmul_precision("highest")
        chosen = [leaves.get(id(p), p) for p in matrices]
        with (
            _only(chosen, decoder),
            torch.autocast(device, enabled=False) if device != "mps" else nullcontext(),
        ):
            yield model.__dict__.get("_original_forward", model), chosen
    finally:
        torch.set_float32_matmul_precision(precision)
        for hook in hooks:
            hook.remove()
        for module, mine in swapped.items():  # one that an error has interrupted
            module._parameters.update(mine)


def unlike(family, precision, found, allowed) -> str:
    """The sentence's end for a model that differs."""
    return (
        f"log-probabilities of a {family} model differ in {precision} by {found[0]:.2g} on average, {found[1]:.2g} at most, "
        f"gradients by {found[2]:.2g} of the largest (allowed {allowed[0]:g}, {allowed[1]:g}, {allowed[2]:g})"
    )
