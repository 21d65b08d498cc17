"""The last layer in chunks of tokens: log-probabilities without the (M, V) logits of a whole micro-batch.

Logits are the largest thing that a real vocabulary makes: 4,096 tokens of Qwen2.5's 151,936 words are 2.5 GB in float32, and
their gradient as much again. Here a chunk's logits are made, scored and forgotten. Three cases:

no gradient             chunk after chunk
a frozen head (LoRA)    a token's log-probability depends on its own hidden state alone, so its slope (h numbers) is computed
                        with it and the backward pass is one product: nothing is computed twice
anything else           each chunk's logits are computed again in the backward pass

The scores are TRL's own functions on the head's own module, so bias, adapter and precision are the model's. What a model
does to its logits afterwards (a cap, a scale) would be done to scores; the caller sees that and takes the logits whole.

M tokens, h hidden size, V vocabulary, K scores a token (log-probability; entropy). torch is imported when called.
"""

from contextlib import contextmanager
from functools import cache, partial

from clinical_r1.speed.exactness import draws_are_kept

# Bytes of a chunk's logits, and up to which logits are held whole, by whether the head is frozen. A frozen head's chunks cost
# little time (0.93 times as fast for 151,936 words, measured once, by hand); another's cost the head's pass once more, so they
# wait until memory is short.
CHUNK_BYTES = {True: 2**26, False: 2**28}
WHOLE_BYTES = {True: 2**27, False: 2**32}


def chunk_tokens(tokens: int, vocabulary: int, itemsize: int, frozen: bool) -> int | None:
    """Tokens of a chunk, or None where the logits of all are few enough to be held."""
    if tokens * vocabulary * itemsize <= WHOLE_BYTES[frozen]:
        return None
    return max(CHUNK_BYTES[frozen] // (vocabulary * itemsize), 1)


def is_frozen(head) -> bool:
    """Whether no parameter of the layer has a gradient."""
    return not any(p.requires_grad for p in head.parameters())


def scorer(entropy: bool, temperature: float, bonus: bool):
    """TRL's own functions: (logits (1, m, V), target (1, m)) → (log-probabilities,) or (log-probabilities, entropies)."""
    from trl.trainer.utils import selective_log_softmax, selective_log_softmax_and_entropy

    if entropy:
        return partial(
            selective_log_softmax_and_entropy, entropy_requires_grad=bonus, temperature=temperature
        )
    return lambda logits, target: (selective_log_softmax(logits, target, temperature=temperature),)


def scores_are_left_alone(decoder) -> bool:
    """Whether a model returns what its last layer gives: tried on two tokens with scores that no cap or scale keeps."""
    import torch

    head, device = decoder.get_output_embeddings(), next(decoder.parameters()).device
    if head is None:
        return False
    ids = torch.tensor([[0, 1]], device=device)
    with torch.no_grad(), draws_are_kept(device):
        with scores_for_logits(head, lambda logits, ids: (40.0 + 40.0 * ids,), ids, 2, False) as given:
            found = decoder(input_ids=ids, use_cache=False).logits
    return (
        len(given) == 1 and found.shape == given[0].shape and torch.equal(found.to(given[0].dtype), given[0])
    )


@contextmanager
def scores_for_logits(head, score, target, size: int | None, frozen: bool):
    """Within, the layer `head` returns scores (1, M, K) and not logits; yields the list of what it has returned.

    score: (logits (1, m, V), target (1, m)) → K tensors (1, m). target: (1, M). size: tokens of a chunk; None changes nothing.
    frozen: whether the first score alone, and of the hidden states alone, needs a gradient.
    """
    if size is None:
        yield []
        return
    given, before, stock = [], head.__dict__.get("forward"), head.forward

    def forward(hidden):
        given.append(scores_in_chunks(stock, hidden, target, score, size, frozen))
        return given[-1]

    head.forward = forward
    try:
        yield given
    finally:
        del head.forward  # the class's own shows again
        if before is not None:
            head.forward = before


def scores_in_chunks(head, hidden, target, score, size: int, frozen: bool):
    """(1, M, h) hidden states → (1, M, K) scores. frozen: only the first score, and of `hidden` alone, needs a gradient."""
    import torch
    from torch.utils.checkpoint import checkpoint

    def part(hidden, target):
        return torch.stack(score(head(hidden), target), dim=-1)

    chunks = list(zip(hidden.split(size, dim=1), target.split(size, dim=1), strict=True))
    if not torch.is_grad_enabled() or (frozen and not hidden.requires_grad):
        return torch.cat([part(*chunk) for chunk in chunks], dim=1)
    if frozen:
        return _scores_with_slopes().apply(hidden, chunks, part)
    return torch.cat([checkpoint(part, *chunk, use_reentrant=False) for chunk in chunks], dim=1)


@cache
def _scores_with_slopes():
    """The autograd function, made when torch is there."""
    import torch

    class ScoresWithSlopes(torch.autograd.Function):
        @staticmethod
        def forward(ctx, hidden, chunks, part):
            scores, slopes = [], []
            # Hooks of a checkpoint around this would take the chunk's own graph apart.
            with torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(_same, _same):
                for states, target in chunks:
                    states = states.detach().requires_grad_()
                    found = part(states, target)
                    slopes += torch.autograd.grad(found[..., 0].sum(), states)
                    scores.append(found.detach())
            ctx.save_for_backward(torch.cat(slopes, dim=1))
            return torch.cat(scores, dim=1)

        @staticmethod
        def backward(ctx, grad):
            (slopes,) = ctx.saved_tensors
            return grad[..., :1].to(slopes.dtype) * slopes, None, None

    return ScoresWithSlopes


def _same(tensor):
    return tensor
