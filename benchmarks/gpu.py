"""On a GPU: loss + backward of stock TRL, TRL + Liger, Unsloth and ours; time, peak memory, tokens a second, share of the peak.

    python benchmarks/gpu.py [--models 0.5B 3B] [--ways stock liger unsloth prefix_grouper ours] [--rounds 3]
    python benchmarks/gpu.py --predict-paper        (hours of the paper profile; needs no GPU)

One group: P = 1024, R = 512, G = 8; bfloat16, LoRA of rank 32, random weights of Qwen2.5's shapes with their whole
vocabulary. Every way runs in a process of its own, since Unsloth patches the others' code; processes follow each other
A B A B …, each warms up and compiles before it measures. Without a GPU it says so and ends well.
"""

import argparse
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from measuring import (
    MEASURED,
    SHAPES,
    VOCABULARY,
    Results,
    group_inputs,
    grpo_trainer,
    loss_and_gradients,
    random_model,
    read_results,
    results_folder,
    spread,
)

from clinical_r1.settings import PROFILES
from clinical_r1.speed.cost import ModelShape, shape_of, shared_cost, stock_cost

WAYS = ("stock", "liger", "unsloth", "prefix_grouper", "ours")
PACKAGES = {"liger": "liger_kernel", "unsloth": "unsloth"}
PEAK_FLOPS = {  # dense, bfloat16 (T4: float16), as their maker states them; the first name that occurs decides
    "H100 PCIe": 756e12,
    "H100": 989e12,
    "H200": 989e12,
    "A100": 312e12,
    "L4": 121e12,
    "T4": 65e12,
}
NOTES = {
    "seconds": "loss + backward of one group; every run of every round",
    "speed_up": "stock's median over this way's, within a round: median, low, high, n",
    "peak_bytes": "torch.cuda.max_memory_allocated over the measured runs, weights included",
    "tokens_per_second": "G (P + R) tokens, as stock counts them, over the median time",
    "mfu": "operations this way needs (cost model; LoRA: forward + the inputs' gradients; recomputation not counted) "
    "over the median time, as a share of the peak",
}


def peak_flops(name: str) -> float | None:
    """Peak of a card by its name; None for one that is not listed."""
    return next((value for key, value in PEAK_FLOPS.items() if key in name), None)


def flops(way: str, shape: ModelShape, settings: dict) -> float:
    """Operations of forward and backward. With LoRA nothing but the inputs' gradients is computed: twice forward."""
    size = settings["P"], settings["R"], settings["G"]
    if way in ("ours", "prefix_grouper"):
        forward = shared_cost(shape, [(size[0], [size[1]] * size[2])])
    else:
        forward = stock_cost(shape, size[2], size[0], size[1])
    return forward * (2 if settings["lora"] else 3)


# --------------------------------------------------------------------------------------------------- the child process


def measure_here(way: str, settings: dict, repeats: int, folder: str) -> dict:
    """One way in this process: seconds of each run, peak bytes, the loss. {"failed": reason} when it does not fit or run."""
    if way == "unsloth":
        from clinical_r1.models import load_backend

        load_backend("unsloth")  # before torch's and transformers' users
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        trainer = trainer_of(way, settings, folder, device)
        inputs = group_inputs(settings["P"], settings["R"], settings["G"], settings["vocabulary"], device)
        for _ in range(2):  # compiles, then allocates
            loss = loss_and_gradients(trainer, inputs)
        _wait(device)
        if device == "cuda":
            torch.cuda.reset_peak_memory_stats()
        seconds = []
        for _ in range(repeats):
            start = time.perf_counter()
            loss = loss_and_gradients(trainer, inputs)
            _wait(device)
            seconds.append(time.perf_counter() - start)
    except torch.OutOfMemoryError:
        return {"failed": "out of memory"}
    peak = torch.cuda.max_memory_allocated() if device == "cuda" else None
    shared = trainer._metrics["train"].get("shared_prefix/tokens") if way == "ours" else None
    return {
        "seconds": seconds,
        "peak_bytes": peak,
        "loss": loss.item(),
        "fell_back": None if shared is None else shared[-1] == 1,
        "cost_shape": vars(shape_of(trainer.model)),
    }


def trainer_of(way: str, settings: dict, folder: str, device: str):
    """The trainer of one way, on the device, with gradient checkpointing switched on where asked."""
    from clinical_r1.speed.prefix import SharedPrefixMixin

    size = settings["layers"], settings["vocabulary"], settings["P"] + settings["R"]
    model = random_model(settings["shape"], *size, settings["dtype"], device)
    changes = {
        "gradient_checkpointing": settings["checkpointing"],
        "per_device_train_batch_size": settings["G"],
        "num_generations": settings["G"],
    }
    if way == "unsloth":
        return _unsloth_trainer(model, settings, folder, changes)
    bases = (SharedPrefixMixin,) if way in ("ours", "prefix_grouper") else ()
    options = {"shared_prefix_threshold": 0, "shared_prefix_route": "sdpa"} if way == "prefix_grouper" else {}
    if way == "liger":
        changes["use_liger_kernel"] = True
    made = grpo_trainer(bases, model, folder, settings["lora"], options, **changes)
    if settings["checkpointing"]:  # as Trainer.train does before its first step
        made.model.gradient_checkpointing_enable({"use_reentrant": False})
    return made


def _unsloth_trainer(model, settings, folder, changes):
    """Unsloth loads from a folder only, so the random weights go through one."""
    from unsloth import FastLanguageModel

    weights = Path(folder) / "weights"
    model.save_pretrained(weights)
    from clinical_r1.models import LORA_TARGETS, load_tokenizer

    load_tokenizer("clinic-base").save_pretrained(weights)
    del model
    checkpointing = "unsloth" if settings["checkpointing"] else False
    loaded, _ = FastLanguageModel.from_pretrained(
        str(weights),
        max_seq_length=settings["P"] + settings["R"],
        load_in_4bit=False,
        full_finetuning=not settings["lora"],
        use_gradient_checkpointing=checkpointing,
    )
    if settings["lora"]:
        loaded = FastLanguageModel.get_peft_model(
            loaded,
            r=32,
            lora_alpha=32,
            target_modules=list(LORA_TARGETS),
            use_gradient_checkpointing=checkpointing,
        )
    return grpo_trainer((), loaded, folder, False, **changes)


def _wait(device):
    if device == "cuda":
        import torch

        torch.cuda.synchronize()


# --------------------------------------------------------------------------------------------------- the parent process


def ways_here(ways) -> dict:
    """{way: None, or why it cannot be measured}."""
    return {
        way: f"{PACKAGES[way]} is not installed"
        if way in PACKAGES and importlib.util.find_spec(PACKAGES[way]) is None
        else None
        for way in ways
    }


def in_child(way: str, settings: dict, repeats: int) -> dict:
    """`measure_here` in a fresh process; {"failed": last line of its error} when it ends badly."""
    with tempfile.TemporaryDirectory() as folder:
        task = json.dumps({"way": way, "settings": settings, "repeats": repeats, "folder": folder})
        command = [sys.executable, __file__, "--child", task]
        done = subprocess.run(
            command, capture_output=True, text=True, env={**os.environ, "TQDM_DISABLE": "1"}
        )
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
        return {"failed": lines[-1][:200]}
    return json.loads(done.stdout.strip().splitlines()[-1])


def measure(settings: dict, ways, repeats: int, rounds: int, machine: dict) -> dict:
    """One point: every way in its own process, `rounds` times in turn."""
    missing, runs = ways_here(ways), {way: [] for way in ways}
    failed = {way: reason for way, reason in missing.items() if reason}
    for _ in range(rounds):
        for way in ways:
            if way not in failed:
                result = in_child(way, settings, repeats)
                if "failed" in result:
                    failed[way] = result["failed"]
                else:
                    runs[way].append(result)
    point = {"repeats": rounds, "failed": failed, "ways": {}}
    medians = {way: [spread(run["seconds"])["median"] for run in done] for way, done in runs.items()}
    for way, done in runs.items():
        if way in failed or not done:
            continue
        seconds = spread([value for run in done for value in run["seconds"]])
        # The base of Unsloth may be counted differently (fused matrices): stock's own shape serves for all.
        shape = ModelShape(**(runs.get("stock") or done)[0]["cost_shape"])
        peak = peak_flops(machine["name"])
        point["ways"][way] = {
            "seconds": seconds,
            "peak_bytes": max((run["peak_bytes"] for run in done if run["peak_bytes"]), default=None),
            "tokens_per_second": settings["G"] * (settings["P"] + settings["R"]) / seconds["median"],
            # Unsloth shares prefixes or not by rules of its own, so what it computes is not known here.
            "mfu": flops(way, shape, settings) / seconds["median"] / peak
            if peak and way != "unsloth"
            else None,
            "fell_back": done[-1]["fell_back"],
            "cost_shape": vars(shape),
        }
        if way != "stock" and medians.get("stock") and "stock" not in failed:
            ratios = [a / b for a, b in zip(medians["stock"], medians[way], strict=True)]
            point["ways"][way]["speed_up"] = spread(ratios)
    return point


def run_grid(arguments) -> Path:
    """Every model, with and without gradient checkpointing, that is not in the file yet; returns the file."""
    from tqdm.auto import tqdm

    device = "cpu" if arguments.smoke else "cuda"
    results = Results("gpu", NOTES, arguments.results, device)
    size = {"P": arguments.prompt, "R": arguments.completion, "G": arguments.group}
    grid = [
        {
            "shape": shape,
            **size,
            "layers": arguments.layers,
            "vocabulary": arguments.vocabulary,
            "dtype": "float32" if arguments.smoke else "bfloat16",
            "lora": not arguments.full,
            "checkpointing": checkpointing,
            "ways": list(arguments.ways),
        }
        for shape in arguments.models
        for checkpointing in arguments.checkpointing
    ]
    for settings in tqdm(grid, unit="point"):
        if results.kept(settings, arguments.rounds) is None:
            machine = results.values["hardware"]
            point = measure(settings, arguments.ways, arguments.repeats, arguments.rounds, machine)
            results.add(settings, arguments.rounds, point)
    for settings in grid:
        point = next(point for point in results.values["points"] if point["settings"] == settings)
        print("\n".join(sentences(point)))
    return results.path


def sentences(point: dict) -> list[str]:
    """A line for the point and one for each way."""
    settings = point["settings"]
    lines = [
        "{shape} P {P} R {R} G {G}, checkpointing {0}:".format(
            "on" if settings["checkpointing"] else "off", **settings
        )
    ]
    for way, values in point["ways"].items():
        memory = f", {values['peak_bytes'] / 2**30:.1f} GiB" if values["peak_bytes"] else ""
        share = f", {values['mfu']:.0%} of the peak" if values["mfu"] else ""
        ratio = (
            f", {values['speed_up']['median']:.2f} times faster than stock" if "speed_up" in values else ""
        )
        rate = f"{values['tokens_per_second']:,.0f} tokens/s"
        lines.append(f"  {way}: {values['seconds']['median']:.4f} s{ratio}, {rate}{memory}{share}")
    return lines + [f"  {way}: not measured, {reason}" for way, reason in point["failed"].items()]


# ------------------------------------------------------------------------------------------------ the paper's duration

ASSUMED = {  # of one H100 with vLLM beside the trainer; replaced by what a result file has measured
    "card": "H100",
    "utilisation": 0.30,  # share of the peak reached by the shared forward and backward pass
    "rollout_tokens_per_second": 12_000,  # vLLM, 3B, a few hundred sequences at once
    "prompt_tokens": 350,  # mean of a MedQA vignette with the full CRPO prompt
    "completion_tokens": 600,  # mean; the profile's limit is 4,096
}


def predict_hours(settings, measured: dict | None = None, assumed: dict | None = None) -> dict:
    """Hours of one RL arm of a profile with a 3B policy: a prediction, not a measurement.

    measured: values of a gpu result file; the utilisation of its 3B point on "ours" and its card replace the assumption.
    Counted: rollouts, the reference's forward pass, the policy's forward and backward pass, recomputed where the profile
    checkpoints. Not counted: rewards, the optimiser, saving, the cold start, evaluation.
    ValueError when the result file holds no 3B point of ours or a card without a known peak.
    """
    assumed = ASSUMED | (assumed or {})
    card, utilisation, source = assumed["card"], assumed["utilisation"], "assumed"
    if measured is not None:
        card, utilisation = measured["hardware"]["name"], _measured_utilisation(measured)
        source = "measured"
    peak = peak_flops(card)
    if peak is None:
        raise ValueError(f"no peak is known for {card!r}; expected one of {', '.join(PEAK_FLOPS)}.")
    size, heads = SHAPES["3B"], SHAPES["3B"]["num_attention_heads"]
    per_layer = 2 * size["hidden_size"] ** 2 + 3 * size["hidden_size"] * size["intermediate_size"]
    per_layer += 2 * size["hidden_size"] * size["num_key_value_heads"] * size["hidden_size"] // heads
    layers = size["num_hidden_layers"]
    shape = ModelShape(per_layer * layers, layers, size["hidden_size"], size["hidden_size"], VOCABULARY)
    group = [(assumed["prompt_tokens"], [assumed["completion_tokens"]] * settings.num_generations)]
    forward = shared_cost(shape, group) * settings.rl_prompts
    rows = settings.rl_prompts * settings.num_generations
    passes = (2 if settings.lora_rank else 3) + settings.gradient_checkpointing
    seconds = {
        "rollouts": rows * assumed["completion_tokens"] / assumed["rollout_tokens_per_second"],
        "reference": forward / (peak * utilisation) if settings.rl_beta else 0.0,
        "policy": passes * forward / (peak * utilisation),
    }
    hours = {name: value * settings.rl_steps / 3600 for name, value in seconds.items()}
    return {
        "prediction": True,
        "profile": settings.profile,
        "hours": hours | {"total": sum(hours.values())},
        "card": card,
        "utilisation": utilisation,
        "utilisation_is": source,
        "assumed": {key: assumed[key] for key in assumed if key not in ("card", "utilisation")},
    }


def _shares(measured):
    points = [p for p in measured["points"] if p["settings"]["shape"] == "3B" and "ours" in p["ways"]]
    return [p["ways"]["ours"]["mfu"] for p in points if p["ways"]["ours"]["mfu"]]


def _measured_utilisation(measured):
    if not (shares := _shares(measured)):
        raise ValueError(
            "the result file holds no share of the peak for the 3B model on 'ours'; measure it first."
        )
    return max(shares)


def measured_on_gpu(folder: Path) -> dict | None:
    """The first GPU result file that a prediction can rest on, or None."""
    files = (read_results(path) for path in sorted(Path(folder).glob("gpu.*.json")))
    return next((values for values in files if _shares(values)), None)


def prediction_sentence(found: dict) -> str:
    """The prediction with everything it rests on."""
    hours = ", ".join(f"{name} {value:.1f} h" for name, value in found["hours"].items() if name != "total")
    rest = found["assumed"]
    return (
        f"Predicted, not measured: one RL arm of `{found['profile']}` takes about {found['hours']['total']:.0f} hours on one "
        f"{found['card']} ({hours}), at {found['utilisation']:.0%} of its peak ({found['utilisation_is']}), "
        f"{rest['rollout_tokens_per_second']:,} rollout tokens a second, prompts of {rest['prompt_tokens']} and completions "
        f"of {rest['completion_tokens']} tokens (assumed)."
    )


def main(argv=None) -> int:
    arguments = parsed(argv)
    if arguments.child:
        task = json.loads(arguments.child)
        print(json.dumps(measure_here(**task)))
        return 0
    if arguments.predict_paper:
        found = predict_hours(PROFILES["paper"], measured_on_gpu(arguments.results))
        print(prediction_sentence(found))
        return 0
    import torch

    if not torch.cuda.is_available() and not arguments.smoke:
        print("No GPU here, so nothing was measured; --predict-paper works without one.")
        return 0
    print(run_grid(arguments))
    return 0


def parsed(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="+", choices=SHAPES, default=("0.5B", "3B"))
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=WAYS)
    parser.add_argument("--prompt", type=int, default=1024, help="P, tokens")
    parser.add_argument("--completion", type=int, default=512, help="R, tokens")
    parser.add_argument("--group", type=int, default=8, help="G, completions")
    parser.add_argument("--layers", type=int, help="fewer than the model has")
    parser.add_argument("--vocabulary", type=int, default=VOCABULARY)
    parser.add_argument("--full", action="store_true", help="train all weights instead of an adapter")
    parser.add_argument("--checkpointing", type=int, nargs="+", choices=(0, 1), default=(0, 1))
    parser.add_argument("--repeats", type=int, default=5, help="runs in a process")
    parser.add_argument("--rounds", type=int, default=3, help="processes of each way")
    parser.add_argument(
        "--predict-paper", action="store_true", help="predict the paper profile's hours and end"
    )
    parser.add_argument("--smoke", action="store_true", help="stock and ours of a tiny model, on the CPU")
    parser.add_argument("--results", type=Path, default=MEASURED, help="folder of the result files")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    arguments = parser.parse_args(argv)
    arguments.results = results_folder(arguments.results, arguments.smoke)
    arguments.checkpointing = [bool(value) for value in arguments.checkpointing]
    if arguments.smoke:
        arguments.models, arguments.ways, arguments.checkpointing = ("tiny",), ("stock", "ours"), [False]
        arguments.prompt, arguments.completion, arguments.group = 48, 4, 4
        arguments.vocabulary, arguments.repeats, arguments.rounds = 64, 2, 1
    return arguments


if __name__ == "__main__":
    sys.exit(main())
