"""How much faster are rollouts when each prompt is encoded once for all its completions?

    python benchmarks/rollouts.py [--repeats 5] [--prompts 1024] [--groups 8] [--new 64]
    python benchmarks/rollouts.py --padded --distinct 4 --shape SmolLM2 --prompts 300 --groups 8 --layers 4

Sampling of G completions, all of --new tokens (the end token is forbidden), for each of --distinct prompts of P tokens:
`generate` of Transformers, plain and within `shared_prefill`, in turn and with the same draws, in CPU time. Layers of
Qwen2-0.5B's shape, random weights. --padded: the prompts have P/2 to P tokens, so that a mask comes with every call.
"""

import argparse
import itertools
import time
from pathlib import Path

from measuring import MEASURED, SHAPES, Results, as_text, in_turn, random_model, results_folder, speed_up

from clinical_r1.speed.prefill import shared_prefill

PROMPTS, GROUPS = (128, 512, 1024), (4, 8, 16)
NOTES = {
    "seconds": "CPU time of one generate() each way in turn, after one round that is not counted",
    "speed_up": "plain over shared within a round: median, low, high, n",
    "tokens_per_second": "new tokens over the median time",
    "same_tokens": "share of new tokens on which the two agree, same draws",
}


def measure(model, settings: dict, repeats: int) -> dict:
    """One point of the grid."""
    import torch

    draw = torch.Generator().manual_seed(2)
    ids = torch.randint(3, settings["vocabulary"], (settings["distinct"], settings["P"]), generator=draw)
    lengths = torch.full((len(ids), 1), settings["P"])
    if settings.get("padded"):
        lengths = torch.linspace(settings["P"] / 2, settings["P"], len(ids)).long()[:, None]
    mask = (torch.arange(settings["P"]) >= settings["P"] - lengths).long()
    ids, mask = (each.repeat_interleave(settings["G"], dim=0).to(model.device) for each in (ids * mask, mask))
    answers = {}

    def generate(name):
        torch.manual_seed(3)
        answers[name] = model.generate(
            input_ids=ids,
            attention_mask=mask,
            do_sample=True,
            top_k=0,
            min_new_tokens=settings["new"],
            max_new_tokens=settings["new"],
        )

    def shared():
        with shared_prefill(model, draws="stock"):
            generate("shared")

    seconds = in_turn(
        {"plain": lambda: generate("plain"), "shared": shared}, repeats, clock=time.process_time
    )
    ratio = speed_up(seconds, "plain", "shared")
    tokens = len(ids) * settings["new"]
    same = (answers["plain"] == answers["shared"])[:, settings["P"] :]
    rates = {name: tokens / sorted(values)[len(values) // 2] for name, values in seconds.items()}
    return {
        "repeats": len(seconds["plain"]),
        "seconds": {name: [round(value, 5) for value in values] for name, values in seconds.items()},
        "speed_up": {"shared": ratio},
        "tokens_per_second": {name: round(rate, 1) for name, rate in rates.items()},
        "same_tokens": round(same.float().mean().item(), 4),
    }


def run_grid(arguments) -> Path:
    """Every point of the grid that is not in the file yet; returns the file."""
    from tqdm.auto import tqdm

    results = Results("rollouts", NOTES, arguments.results)
    fixed = {
        "new": arguments.new,
        "distinct": arguments.distinct,
        "shape": arguments.shape,
        "layers": arguments.layers,
        "vocabulary": arguments.vocabulary,
    } | ({"padded": True} if arguments.padded else {})
    grid = [
        {"P": p, "G": g, **fixed} for p, g in sorted(itertools.product(arguments.prompts, arguments.groups))
    ]
    model = None
    for settings in tqdm(grid, unit="point"):
        if results.kept(settings, arguments.repeats) is None:
            if model is None:
                longest = max(arguments.prompts) + arguments.new
                model = random_model(arguments.shape, arguments.layers, arguments.vocabulary, longest).eval()
            results.add(settings, arguments.repeats, measure(model, settings, arguments.repeats))
    for settings in grid:
        point = next(point for point in results.values["points"] if point["settings"] == settings)
        rates = point["tokens_per_second"]
        print(
            f"P {settings['P']} G {settings['G']}: {as_text(point['speed_up']['shared'])} times faster, {rates['shared']:,.0f} "
            f"against {rates['plain']:,.0f} tokens a second; {point['same_tokens']:.0%} of the tokens agree"
        )
    return results.path


def parsed(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--prompts", type=int, nargs="+", default=PROMPTS, help="P, tokens")
    parser.add_argument("--groups", type=int, nargs="+", default=GROUPS, help="G, completions")
    parser.add_argument("--new", type=int, default=64, help="tokens of each completion")
    parser.add_argument("--distinct", type=int, default=1, help="prompts at once")
    parser.add_argument("--padded", action="store_true", help="prompts of unequal lengths")
    parser.add_argument("--shape", choices=SHAPES, default="0.5B")
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--vocabulary", type=int, default=1024)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--smoke", action="store_true", help="one tiny point, to see that it runs")
    parser.add_argument("--results", type=Path, default=MEASURED, help="folder of the result files")
    arguments = parser.parse_args(argv)
    arguments.results = results_folder(arguments.results, arguments.smoke)
    if arguments.smoke:
        arguments.prompts, arguments.groups, arguments.new = (24,), (4,), 4
        arguments.shape, arguments.vocabulary, arguments.repeats = "tiny", 64, 2
    return arguments


if __name__ == "__main__":
    options = parsed()
    print(run_grid(options))
