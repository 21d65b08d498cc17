"""What a shared prompt saves, predicted: operations of a forward pass, stock against shared. Ours.

    tokens · 2W  +  pairs · 4·L·H·d  +  predictions · V · (2h + c)  +  L · o

tokens: that pass through the layers; W: weights of the matrices of all layers; pairs: (query, key) that attend to each
other in one layer of H heads of size d, L layers; predictions: completion tokens that get V logits from h hidden values,
and c operations a logit for its softmax; o: what calling a layer costs however little it computes, in the operations that
the device could have done meanwhile. The backward pass costs twice the forward pass on both sides and cancels.

    stock    tokens N(P+R)       pairs N(P+R)²/2 (the whole square where rows are padded: then a mask is used)
    shared   tokens P + ΣR_i     pairs P²/2 + PΣR_i + ΣR_i²/2        (a group; a micro-batch holds several)
"""

import math
import statistics
import time
from dataclasses import dataclass

# c: what the log-softmax and the entropy of one logit cost, in operations; measured on a CPU
SOFTMAX_PASSES = 60

# o by device: a stock layer, a shared layer, and each group of a shared layer. CPU: fitted to two-layer models of width 32 to
# 256 on one core. CUDA: assumed, not measured.
OVERHEAD = {"cpu": (4e7, 6.5e7, 1e6), "cuda": (1e10, 1.5e10, 1e8)}


@dataclass(frozen=True)
class ModelShape:
    """A decoder as the cost model sees it: W, L, H·d, h, V of the module docstring."""

    weights: int
    layers: int
    attention: int
    hidden: int
    vocabulary: int

    def __post_init__(self):
        for name, value in vars(self).items():
            if value < 1:
                raise ValueError(f"{name} is {value}, expected at least 1.")


def shape_of(model) -> ModelShape:
    """Read off a transformers model (with or without an adapter, whose matrices count). Embeddings do not count."""
    config = model.config.get_text_config()
    tables = {
        id(embedding.weight) for embedding in (model.get_input_embeddings(), model.get_output_embeddings())
    }
    weights = sum(_numbers(p) for p in model.parameters() if p.ndim == 2 and id(p) not in tables)
    heads = config.num_attention_heads
    size = getattr(config, "head_dim", None) or config.hidden_size // heads
    return ModelShape(weights, config.num_hidden_layers, heads * size, config.hidden_size, config.vocab_size)


def _numbers(p) -> int:
    """Weights that a parameter stands for: bitsandbytes packs two into a byte and keeps their shape in quant_state."""
    shape = getattr(getattr(p, "quant_state", None), "shape", None)
    return math.prod(shape) if shape else p.numel()


def stock_cost(
    shape: ModelShape, rows: int, prompt: int, completion: int, padded: bool = False, device: str = "cpu"
) -> float:
    """Operations of `rows` rows of prompt + completion tokens (as padded), one forward pass."""
    length = prompt + completion
    pairs = rows * length**2 / (1 if padded else 2)
    return _cost(shape, rows * length, pairs, rows * completion) + shape.layers * _overhead(device)[0]


def shared_cost(shape: ModelShape, groups: list[tuple[int, list[int]]], device: str = "cpu") -> float:
    """Operations of packed groups [(prompt tokens, [completion tokens])], one forward pass."""
    tokens = sum(prompt + sum(lengths) for prompt, lengths in groups)
    pairs = sum(
        prompt**2 / 2 + prompt * sum(lengths) + sum(n**2 for n in lengths) / 2 for prompt, lengths in groups
    )
    _, layer, group = _overhead(device)
    calls = shape.layers * (layer + group * len(groups))
    return _cost(shape, tokens, pairs, sum(sum(lengths) for _, lengths in groups)) + calls


def _overhead(device):
    return OVERHEAD.get(device, OVERHEAD["cuda"])


def _cost(shape, tokens, pairs, predictions):
    layers = 2 * shape.weights * tokens + 4 * shape.attention * shape.layers * pairs
    return layers + predictions * shape.vocabulary * (2 * shape.hidden + SOFTMAX_PASSES)


def predicted_speed_up(
    shape: ModelShape, prompt: int, completion: int, group: int, device: str = "cpu"
) -> float:
    """Stock time over shared time for a group of G completions, all of `completion` tokens: what the page's plot draws."""
    stock = stock_cost(shape, group, prompt, completion, device=device)
    return stock / shared_cost(shape, [(prompt, [completion] * group)], device)


def token_saving(prompt: int, completion: int, group: int) -> float:
    """ρ = G(P+R)/(P+GR) (Prefix Grouper, arXiv 2506.05433, A.2): the limit where attention and head cost nothing."""
    return group * (prompt + completion) / (prompt + group * completion)


def seconds_in_turn(runs: list, device, rounds: int = 3) -> list[float]:
    """Median seconds of callables without gradients, run A B A B … after one round that warms up and compiles."""
    import torch

    wait = (
        getattr(torch.get_device_module(device), "synchronize", lambda: None)
        if device.type != "cpu"
        else lambda: None
    )
    seconds = [[] for _ in runs]
    with torch.no_grad():
        for _ in range(rounds + 1):
            for kept, run in zip(seconds, runs, strict=True):
                wait()
                start = time.perf_counter()
                run()
                wait()
                kept.append(time.perf_counter() - start)
    return [statistics.median(kept[1:]) for kept in seconds]
