"""What do log-probabilities in chunks cost in time, and save in memory, at real vocabularies?

    OMP_NUM_THREADS=1 python benchmarks/head.py [--repeats 3]

The last layer alone, forward and backward: whole logits as stock TRL holds them, and chunks as `speed/head.py` makes them (in
the sizes that it takes there), with a frozen head (LoRA) and with one that is trained. Time: CPU seconds, in turn in one
process. Memory: growth of a fresh process's largest resident size over the pass, so weights and inputs are not counted.
"""

import argparse
import json
import resource
import subprocess
import sys
import time
from pathlib import Path

from measuring import MEASURED, Results, as_text, in_turn, results_folder, speed_up

from clinical_r1.speed import head

NOTES = {
    "seconds": "CPU seconds of forward + backward of the last layer, each way in turn after one round that is not counted",
    "speed_up": "whole over chunks within a round: median, low, high, n",
    "peak_bytes": "growth of the largest resident size of a fresh process",
}
SIZES = ((151_936, 896), (49_152, 576))  # vocabulary and hidden size of Qwen2.5-0.5B and of SmolLM2-135M
TOKENS = 2048


def one_pass(settings: dict, way: str):
    """A callable that runs one forward and backward pass."""
    import torch

    torch.manual_seed(0)
    dtype = getattr(torch, settings["dtype"])
    layer = torch.nn.Linear(settings["hidden"], settings["vocabulary"], bias=False, dtype=dtype)
    layer.requires_grad_(not settings["frozen"])
    hidden = torch.randn(1, settings["tokens"], settings["hidden"], dtype=dtype).requires_grad_()
    target = torch.randint(settings["vocabulary"], (1, settings["tokens"]))
    score = head.scorer(True, 1.0, False)
    size = max(head.CHUNK_BYTES[settings["frozen"]] // (settings["vocabulary"] * dtype.itemsize), 1)

    def run():
        hidden.grad = layer.weight.grad = None
        with head.scores_for_logits(
            layer, score, target, size if way == "chunks" else None, settings["frozen"]
        ):
            found = layer(hidden)
        logps = found[..., 0] if way == "chunks" else score(found, target)[0]
        logps.sum().backward()

    return run


def peak_here(settings: dict, way: str) -> int:
    """Bytes by which the largest resident size of this process grows in one pass."""
    run = one_pass(settings, way)
    before = _largest_size()
    run()
    return _largest_size() - before


def _largest_size() -> int:
    """Bytes. On Linux not ru_maxrss, in which a child begins with the size that its parent had."""
    status = Path("/proc/self/status")
    if status.is_file():
        (line,) = (line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def in_child(settings: dict, way: str) -> int:
    """`peak_here` in a fresh process."""
    task = json.dumps({"settings": settings, "way": way})
    done = subprocess.run(
        [sys.executable, __file__, "--child", task], capture_output=True, text=True, check=True
    )
    return int(done.stdout.strip().splitlines()[-1])


def run(arguments) -> Path:
    """Every point that is not in the file yet; returns the file."""
    results = Results("head", NOTES, arguments.results)
    for vocabulary, hidden in arguments.sizes:
        for frozen in (True, False):
            settings = {
                "vocabulary": vocabulary,
                "hidden": hidden,
                "tokens": arguments.tokens,
                "frozen": frozen,
            }
            settings["dtype"] = "float32"
            if (point := results.kept(settings, arguments.repeats)) is None:
                runs = {way: one_pass(settings, way) for way in ("whole", "chunks")}
                seconds = in_turn(runs, arguments.repeats, clock=time.process_time)
                del runs
                found = {
                    "seconds": {
                        way: [round(value, 4) for value in values] for way, values in seconds.items()
                    },
                    "speed_up": speed_up(seconds, "whole", "chunks"),
                    "peak_bytes": {way: in_child(settings, way) for way in ("whole", "chunks")},
                }
                point = results.add(settings, arguments.repeats, found)
            print(sentence(point), flush=True)
    return results.path


def sentence(point: dict) -> str:
    """One line for one point."""
    size, peak = point["settings"], point["peak_bytes"]
    return (
        f"V {size['vocabulary']:,}, {size['tokens']} tokens, {'frozen' if size['frozen'] else 'trained'}: chunks "
        f"{as_text(point['speed_up'])} times as fast, {peak['chunks'] / 2**20:,.0f} MiB instead of {peak['whole'] / 2**20:,.0f}"
    )


def main(argv=None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--tokens", type=int, default=TOKENS)
    parser.add_argument("--smoke", action="store_true", help="a tiny layer, to see that it runs")
    parser.add_argument("--results", type=Path, default=MEASURED, help="folder of the result files")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    arguments = parser.parse_args(argv)
    if arguments.child:
        print(peak_here(**json.loads(arguments.child)))
        return 0
    arguments.results, arguments.sizes = results_folder(arguments.results, arguments.smoke), SIZES
    if arguments.smoke:
        arguments.sizes, arguments.tokens, arguments.repeats = ((64, 8),), 16, 1
    print(run(arguments))
    return 0


if __name__ == "__main__":
    sys.exit(main())
