"""Before a prefix is shared: models whose answers would not be stock's, and the comparison at first use.

torch is imported when called.
"""

from contextlib import contextmanager

from clinical_r1.speed.prefix_attention import NAME

# Mean and largest difference of a log-probability, and of a gradient as a share of the largest, allowed at first use. Half
# precision rounds every layer's output: SmolLM2-135M in bfloat16 differs by .056, .31 and .066 where the form is right,
# and by .095, 1.0 and .32 where positions are off by one.
TOLERANCE = {"float64": (1e-7, 1e-6, 1e-6), "float32": (1e-4, 1e-3, 1e-3)}
HALF_TOLERANCE = (0.08, 0.6, 0.15)


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
    if not any(p.ndim == 2 and p.numel() for p in decoder.parameters() if id(p) not in tables):
        return "its weights are partitioned: this process holds none of its matrices"
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
    """The largest dropout probability of a model's modules and attention, 0.0 when nothing is dropped."""
    import torch

    module = max((m.p for m in decoder.modules() if isinstance(m, torch.nn.Dropout)), default=0.0)
    return max(module, getattr(decoder.config.get_text_config(), "attention_dropout", 0.0) or 0.0)


def rows_to_verify(input_ids, attention_mask, logits_to_keep, layout):
    """(ids, mask) of four rows: two of one group where there are, and the same with the first half of their prompt padded.

    A model that counts positions from the mask, or reads what is padded, is caught by the second two whatever the batch.
    """
    import torch

    width, rows = input_ids.shape[1] - logits_to_keep, range(len(layout.lengths))
    answered = sorted(rows, key=lambda row: (layout.lengths[row] == 0, layout.group_of_row[row], row))
    chosen = sorted(answered[:2])
    ids, mask = input_ids[chosen], attention_mask[chosen]
    prompt = mask[:, :width]
    kept = prompt * (prompt.cumsum(dim=1) > prompt.sum(dim=1, keepdim=True) // 2)
    padded = torch.cat([kept, mask[:, width:]], dim=1)
    return torch.cat([ids, ids.masked_fill(padded == 0, 0)]), torch.cat([mask, padded])


def first_matrices(decoder) -> list:
    """The first two matrices of the layers that can have a gradient: not an embedding, not quantised."""
    tables = {id(decoder.get_input_embeddings().weight)}
    found = [p for p in decoder.parameters() if p.ndim == 2 and p.is_floating_point() and id(p) not in tables]
    return found[:2]


def apart(a, b) -> tuple[float, float]:
    """Mean and largest absolute difference."""
    difference = (a - b).detach().abs()
    return difference.mean().item(), difference.max().item()


def gradients_apart(shared, stock, matrices) -> float:
    """Largest difference of the gradients of a weighted sum of log-probabilities (M,), as a share of the largest gradient.

    0.0 without matrices.
    """
    import torch

    if not matrices:
        return 0.0
    weights = torch.linspace(-1.0, 2.0, len(stock), device=stock.device)
    ours, theirs = (torch.autograd.grad((logps * weights).sum(), matrices) for logps in (shared, stock))
    largest = max(gradient.abs().max() for gradient in theirs)
    return (max((a - b).abs().max() for a, b in zip(ours, theirs, strict=True)) / largest).item()


@contextmanager
def differentiable(matrices):
    """Within, gradients of these matrices can be had, also of a frozen model's."""
    import torch

    before = [p.requires_grad for p in matrices]
    try:
        for p in matrices:
            p.requires_grad_(True)
        with torch.set_grad_enabled(bool(matrices)):
            yield
    finally:
        for p, required in zip(matrices, before, strict=True):
            p.requires_grad_(required)
