"""How much faster, and in how much memory, are loss and gradients when each prompt is encoded once per group?

    python benchmarks/shared_prefix.py [--repeats 5] [--lora] [--prompts 1024] [--completions 256] [--groups 8]

One group of G completions (R tokens each) of one prompt (P tokens): the GRPO loss through the trainer's own compute_loss,
then backward, three ways in turn.

stock           TRL's GRPOTrainer: G rows of P + R tokens
ours            `SharedPrefixMixin` as it ships, hence stock again where it predicts no gain
prefix_grouper  the algorithm of Prefix Grouper (arXiv 2506.05433): prompt with itself, then every completion with [its own
                copy of the prompt's keys and values; itself] in one call, causal from the bottom right. It is our route
                "sdpa"; its authors call flash-attention, which no CPU has, so here SDPA gets the mask spelt out

Model: layers of Qwen2-0.5B's shape, random weights, float32. Memory is what the backward pass waits for: the bytes of all
distinct storages that autograd saved, parameters left out, counted in a pass of its own.
"""

import argparse
import gc
import itertools
import logging
import tempfile
from pathlib import Path

from measuring import (
    LONG,
    MEASURED,
    SHAPES,
    Results,
    as_text,
    group_inputs,
    grpo_trainer,
    in_turn,
    loss_and_gradients,
    random_model,
    results_folder,
    speed_up,
)

from clinical_r1.speed.cost import predicted_speed_up, shape_of, token_saving
from clinical_r1.speed.prefix import THRESHOLD, SharedPrefixMixin

PROMPTS, COMPLETIONS, GROUPS = (128, 512, 1024, 4096), (64, 256), (4, 8, 16)
WAYS = ("stock", "ours", "prefix_grouper")
NOTES = {
    "seconds": "loss + backward of one group, each way in turn, after one round that is not counted; a stock run of more "
    f"than {LONG:.0f} s is measured once",
    "speed_up": "stock over each way within a round: median, low, high, n",
    "activation_bytes": "distinct storages saved for the backward pass, without parameters",
    "predicted": "clinical_r1.speed.cost.predicted_speed_up",
    "model": "layers of Qwen2-0.5B's shape, random weights, a small vocabulary",
}


def saved_bytes(trainer, inputs) -> int:
    """Bytes that autograd keeps between the forward and the backward pass of the loss, parameters left out."""
    import torch

    parameters = {p.untyped_storage().data_ptr() for p in trainer.model.parameters()}
    storages = {}

    def pack(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in parameters:
            storages[storage.data_ptr()] = storage.nbytes()
        return tensor.detach()  # an output that a node keeps of itself would hold its own graph for ever

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        loss = trainer.compute_loss(trainer.model, inputs)
    del loss  # until here the graph held every storage, so that no address stood for two
    return sum(storages.values())


def expected_bytes(settings: dict) -> int:
    """Memory that the stock run needs, roughly: 12 hidden and 5 intermediate values a token and layer, and the logits."""
    shape = SHAPES[settings["shape"]]
    rows, length = settings["G"], settings["P"] + settings["R"]
    values = 12 * shape["hidden_size"] + 5 * shape["intermediate_size"]
    layers = rows * length * settings["layers"] * values
    return 4 * (layers + 4 * rows * settings["R"] * settings["vocabulary"])


class Ways:
    """The trainers of one set of model settings, made once and used for every point."""

    def __init__(self, shape: str, layers: int, vocabulary: int, lora: bool, longest: int, folder: str):
        make = lambda: random_model(shape, layers, vocabulary, longest)  # noqa: E731
        self.stock = grpo_trainer((), make(), folder, lora)
        self.ours = grpo_trainer((SharedPrefixMixin,), make(), folder, lora)
        self.shape = shape_of(self.stock.model)

    def run(self, way: str, inputs):
        return loss_and_gradients(self.prepared(way), inputs)

    def prepared(self, way: str):
        if way == "stock":
            return self.stock
        theirs = way == "prefix_grouper"
        self.ours.shared_prefix_route = "sdpa" if theirs else None
        self.ours.shared_prefix_threshold = 0 if theirs else THRESHOLD
        return self.ours

    def fell_back(self) -> bool:
        return self.ours._metrics["train"]["shared_prefix/tokens"][-1] == 1


def measure(ways: Ways, settings: dict, repeats: int) -> dict:
    """One point of the grid."""
    size = settings["P"], settings["R"], settings["G"]
    inputs = group_inputs(*size, settings["vocabulary"])
    saved, losses, fell_back = {}, {}, None
    for way in WAYS:
        saved[way] = saved_bytes(ways.prepared(way), inputs)
    seconds = in_turn(
        {way: lambda way=way: losses.update({way: ways.run(way, inputs).item()}) for way in WAYS}, repeats
    )
    largest = _largest_difference(ways, inputs) if sum(size) < 2000 else None
    ways.prepared("ours").compute_loss(ways.ours.model, inputs)
    fell_back = ways.fell_back()
    ways.stock.model.zero_grad(set_to_none=True)
    ways.ours.model.zero_grad(set_to_none=True)
    gc.collect()
    predicted = predicted_speed_up(ways.shape, *size)
    ratios = {way: speed_up(seconds, "stock", way) for way in WAYS[1:]}
    return {
        "repeats": len(seconds["stock"]),
        "seconds": {way: [round(value, 5) for value in values] for way, values in seconds.items()},
        "speed_up": {way: _rounded(ratio) for way, ratio in ratios.items()},
        "activation_bytes": saved,
        "memory_ratio": {way: round(saved[way] / saved["stock"], 4) for way in WAYS[1:]},
        "predicted": round(predicted, 4),
        "token_saving": round(token_saving(*size), 4),
        "measured_over_predicted": round(ratios["ours"]["median"] / predicted, 4),
        "fell_back": fell_back,
        "loss_difference": max(abs(losses[way] - losses["stock"]) for way in WAYS),
        "gradient_difference": largest,
    }


def _largest_difference(ways, inputs) -> float:
    """Largest difference between ours' and stock's gradients, as a share of stock's largest gradient."""
    kept = []
    for way in ("stock", "ours"):
        ways.run(way, inputs)
        kept.append([p.grad for p in ways.prepared(way).model.parameters() if p.grad is not None])
    scale = max(stock.abs().max().item() for stock in kept[0])
    pairs = zip(*kept, strict=True)
    return max((ours - stock).abs().max().item() for stock, ours in pairs) / scale


def _rounded(ratio):
    return {key: value if key == "n" else round(value, 4) for key, value in ratio.items()}


def run_grid(arguments, folder: Path = MEASURED) -> Path:
    """Every point of the grid that is not in the file yet, the cheapest first; returns the file."""
    import psutil
    from tqdm.auto import tqdm

    logging.getLogger("clinical_r1").setLevel(logging.ERROR)  # falling back is a result here, not a warning
    results = Results("shared_prefix", NOTES, folder)
    model = {
        "shape": arguments.shape,
        "layers": arguments.layers,
        "vocabulary": arguments.vocabulary,
        "lora": arguments.lora,
        "dtype": "float32",
    }
    sizes = itertools.product(arguments.prompts, arguments.completions, arguments.groups)
    grid = [
        {"P": p, "R": r, "G": g, **model} for p, r, g in sorted(sizes, key=lambda x: x[2] * (x[0] + x[1]))
    ]
    missing = [settings for settings in grid if results.kept(settings, arguments.repeats) is None]
    longest = max(arguments.prompts) + max(arguments.completions)
    with tempfile.TemporaryDirectory() as scratch, tqdm(total=len(grid), unit="point") as bar:
        bar.update(len(grid) - len(missing))
        ways = None
        for settings in missing:
            bar.set_postfix_str(" ".join(f"{key}={settings[key]}" for key in "PRG"))
            room = arguments.memory_gb or psutil.virtual_memory().available / 2**30
            needed = expected_bytes(settings) / 2**30
            if needed > 0.8 * room:
                reason = f"stock needs about {needed:.0f} GiB, {room:.0f} GiB are free"
                results.add(settings, arguments.repeats, {"skipped": reason})
            else:
                if ways is None:
                    ways = Ways(
                        arguments.shape,
                        arguments.layers,
                        arguments.vocabulary,
                        arguments.lora,
                        longest,
                        scratch,
                    )
                results.add(settings, arguments.repeats, measure(ways, settings, arguments.repeats))
            bar.update()
    for settings in grid:
        point = next(point for point in results.values["points"] if point["settings"] == settings)
        print(sentence(point))
    return results.path


def sentence(point: dict) -> str:
    """One line for one point."""
    size = "P {P} R {R} G {G}".format(**point["settings"])
    if "skipped" in point:
        return f"{size}: skipped, {point['skipped']}"
    return (
        f"{size}: {as_text(point['speed_up']['ours'])} times faster than stock (predicted {point['predicted']:.2f}"
        f"{', fell back' if point['fell_back'] else ''}), Prefix Grouper {as_text(point['speed_up']['prefix_grouper'])}; "
        f"activations {point['memory_ratio']['ours']:.2f} and {point['memory_ratio']['prefix_grouper']:.2f} of stock's"
    )


def parsed(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--prompts", type=int, nargs="+", default=PROMPTS, help="P, tokens")
    parser.add_argument("--completions", type=int, nargs="+", default=COMPLETIONS, help="R, tokens")
    parser.add_argument("--groups", type=int, nargs="+", default=GROUPS, help="G, completions")
    parser.add_argument("--shape", choices=SHAPES, default="0.5B")
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--vocabulary", type=int, default=1024)
    parser.add_argument("--lora", action="store_true", help="an adapter of rank 32 instead of all weights")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--memory-gb", type=float, help="memory to plan with (default: what is free)")
    parser.add_argument("--smoke", action="store_true", help="one tiny point, to see that it runs")
    parser.add_argument("--results", type=Path, default=MEASURED, help="folder of the result files")
    arguments = parser.parse_args(argv)
    arguments.results = results_folder(arguments.results, arguments.smoke)
    if arguments.smoke:
        arguments.prompts, arguments.completions, arguments.groups = (32,), (4,), (4,)
        arguments.shape, arguments.vocabulary, arguments.repeats = "tiny", 64, 2
    return arguments


if __name__ == "__main__":
    options = parsed()
    print(run_grid(options, options.results))
