"""What the benchmarks share: two things timed in turn, the machine they ran on, and results that survive a kill.

A result file holds {"question", "hardware", "notes", "points": [point]}; a point is {"settings": {...}, ...}. Points are
written one by one, so a benchmark that was stopped goes on where it was, and one that is asked again does nothing.
"""

import json
import os
import platform
import re
import statistics
import tempfile
import time
from pathlib import Path

from clinical_r1.files import write_json

RESULTS = (
    Path(__file__).parent / "results"
)  # what docs/speed.md speaks of; written with --results benchmarks/results only
MEASURED = Path(__file__).parent.parent / "runs" / "benchmarks"
LONG = 60.0  # seconds of one run beyond which a point is measured once


def hardware(device: str = "cpu") -> dict:
    """The machine in the terms that decide its speed. No host name, no path."""
    import torch

    known = {"torch": torch.__version__.split("+")[0], "python": platform.python_version()}
    if device == "cuda":
        card = torch.cuda.get_device_properties(0)
        memory = round(card.total_memory / 2**30)
        return {"name": card.name, "memory GiB": memory, "cuda": torch.version.cuda, **known}
    return {
        "name": _cpu_name(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        **known,
    }


def _cpu_name() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
        return re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)[1].strip()
    except (OSError, TypeError):  # not Linux, or an ARM that names no model
        return platform.machine()


def results_path(question: str, machine: dict, folder: Path = MEASURED) -> Path:
    """results/<question>.<hardware>.json; threads are part of a CPU's name, since they decide its figures."""
    name = machine["name"] + (f" {machine['threads']} threads" if "threads" in machine else "")
    return Path(folder) / f"{question}.{re.sub('[^a-z0-9]+', '-', name.lower()).strip('-')}.json"


class Results:
    """The file of one question on one machine, written after every point. ValueError when it is not such a file."""

    def __init__(self, question: str, notes: dict, folder: Path = MEASURED, device: str = "cpu"):
        machine = hardware(device)
        self.path = results_path(question, machine, folder)
        self.values = {"question": question, "hardware": machine, "notes": notes, "points": []}
        if self.path.exists():
            self.values["points"] = read_results(self.path)["points"]

    def kept(self, settings: dict, repeats: int) -> dict | None:
        """The point with these settings, measured with at least as many repeats on this torch, or None."""
        for point in self.values["points"]:
            same = point["settings"] == settings and point["torch"] == self.values["hardware"]["torch"]
            if same and "skipped" not in point and point["asked_repeats"] >= repeats:
                return point
        return None

    def add(self, settings: dict, repeats: int, point: dict) -> dict:
        """Put a point in the place of an older one with the same settings."""
        torch_version = self.values["hardware"]["torch"]
        point = {"settings": settings, "asked_repeats": repeats, "torch": torch_version, **point}
        others = [old for old in self.values["points"] if old["settings"] != settings]
        self.values["points"] = [*others, point]
        write_json(self.path, self.values)
        return point


def read_results(path: Path) -> dict:
    """A result file. ValueError names one that is damaged."""
    try:
        values = json.loads(Path(path).read_text(encoding="utf-8"))
        if not {"question", "hardware", "notes", "points"} <= values.keys():
            raise ValueError("question, hardware, notes or points is missing")
    except (json.JSONDecodeError, AttributeError, ValueError) as error:
        raise ValueError(
            f"{path} is no result of a benchmark ({error}); delete it and measure again."
        ) from error
    return values


def results_folder(folder: Path, smoke: bool) -> Path:
    """Where results go: a trial's never among those that are kept."""
    return Path(tempfile.mkdtemp()) if smoke and Path(folder) in (RESULTS, MEASURED) else Path(folder)


def in_turn(runs: dict, repeats: int, synchronise=None, long: float = LONG, clock=time.perf_counter) -> dict:
    """{name: [seconds]} of callables run A B A B …, after one round that warms up.

    clock: time.process_time counts CPU seconds, where other work shares the machine.

    When the first round's first run takes longer than `long` seconds, that round is the measurement.
    """
    first = _round(runs, synchronise, clock)
    if repeats < 1 or first[next(iter(runs))] > long:
        return {name: [value] for name, value in first.items()}
    rounds = [_round(runs, synchronise, clock) for _ in range(repeats)]
    return {name: [values[name] for values in rounds] for name in runs}


def _round(runs, synchronise, clock):
    seconds = {}
    for name, run in runs.items():
        start = clock()
        run()
        if synchronise is not None:
            synchronise()
        seconds[name] = clock() - start
    return seconds


def spread(values) -> dict:
    """Median, smallest and largest, and how many."""
    values = list(values)
    return {"median": statistics.median(values), "low": min(values), "high": max(values), "n": len(values)}


def speed_up(seconds: dict, against: str, name: str) -> dict:
    """How many times faster `name` is than `against`: the spread of the ratios within each round."""
    return spread(slow / fast for slow, fast in zip(seconds[against], seconds[name], strict=True))


def as_text(ratio: dict, places: int = 2) -> str:
    """ "2.91 (2.85–2.97)"."""
    return f"{ratio['median']:.{places}f} ({ratio['low']:.{places}f}–{ratio['high']:.{places}f})"


# ------------------------------------------------------------------------------------------------ a model to measure

SHAPES = {  # layer shapes of Qwen2-0.5B, of Qwen2.5-3B and of SmolLM2-135M
    "0.5B": dict(
        hidden_size=896, num_attention_heads=14, num_key_value_heads=2, intermediate_size=4864, num_hidden_layers=24
    ),
    "3B": dict(
        hidden_size=2048, num_attention_heads=16, num_key_value_heads=2, intermediate_size=11008, num_hidden_layers=36
    ),
    "SmolLM2": dict(
        hidden_size=576, num_attention_heads=9, num_key_value_heads=3, intermediate_size=1536, num_hidden_layers=30
    ),
    "tiny": dict(
        hidden_size=64, num_attention_heads=4, num_key_value_heads=2, intermediate_size=96, num_hidden_layers=2
    ),
}  # fmt: skip
VOCABULARY = 151_936


def random_model(
    shape: str, layers: int | None, vocabulary: int, longest: int, dtype: str = "float32", device="cpu"
):
    """A Qwen2 of random weights with the layer shapes of `shape`: speed does not depend on what it knows."""
    import torch
    from transformers import AutoModelForCausalLM, Qwen2Config, set_seed

    size = SHAPES[shape] | ({"num_hidden_layers": layers} if layers else {})
    config = Qwen2Config(
        **size,
        vocab_size=vocabulary,
        max_position_embeddings=max(longest, 4096),
        rope_parameters={"rope_type": "default", "rope_theta": 1e6},
        tie_word_embeddings=True,
        attention_dropout=0.0,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
    )
    set_seed(0)
    with torch.device(device):
        return AutoModelForCausalLM.from_config(
            config, attn_implementation="sdpa", dtype=getattr(torch, dtype)
        )


def grpo_trainer(bases: tuple, model, folder, lora: bool, options: dict | None = None, **changes):
    """A GRPOTrainer (or what stands before it) around `model`, ready for compute_loss and nothing else."""
    import torch
    import trl
    from datasets import Dataset
    from peft import LoraConfig

    from clinical_r1.models import load_tokenizer

    cuda = torch.cuda.is_available()
    bfloat16 = next(model.parameters()).dtype == torch.bfloat16
    arguments = dict(
        output_dir=str(folder),
        per_device_train_batch_size=8,
        num_generations=8,
        beta=0.0,
        loss_type="grpo",
        bf16=bfloat16,
        use_cpu=not cuda,
        gradient_checkpointing=False,
        save_strategy="no",
        report_to=[],
        disable_tqdm=True,
        dataloader_pin_memory=False,
    )
    arguments |= changes
    made = type("Trainer", (*bases, trl.GRPOTrainer), {})(
        model=model,
        reward_funcs=[lambda completions, **_: [0.0] * len(completions)],
        args=trl.GRPOConfig(**arguments),
        train_dataset=Dataset.from_list([{"prompt": "fever"}] * 8),
        processing_class=load_tokenizer("clinic-base"),  # never used: token numbers are drawn
        peft_config=LoraConfig(r=32, lora_alpha=32, target_modules="all-linear") if lora else None,
        **(options or {}),
    )
    made.current_gradient_accumulation_steps = 1  # what train() sets
    made.model.train()
    return made


def group_inputs(prompt: int, completion: int, group: int, vocabulary: int, device="cpu") -> dict:
    """What the loss of one group of G completions is computed from, all of one length, on-policy, beta 0."""
    import torch

    draw = torch.Generator().manual_seed(1)
    ids = torch.randint(3, vocabulary, (1, prompt), generator=draw).expand(group, -1).contiguous()
    inputs = {
        "prompt_ids": ids,
        "prompt_mask": torch.ones_like(ids),
        "completion_ids": torch.randint(3, vocabulary, (group, completion), generator=draw),
        "completion_mask": torch.ones(group, completion, dtype=torch.long),
        "advantages": torch.randn(group, generator=draw),
        "num_items_in_batch": torch.tensor(group * completion),
    }
    return {key: value.to(device) for key, value in inputs.items()}


def loss_and_gradients(trainer, inputs):
    """One forward and backward pass of the trainer's own loss; returns the loss."""
    trainer.model.zero_grad(set_to_none=True)
    loss = trainer.compute_loss(trainer.model, inputs)
    trainer.accelerator.backward(loss)
    return loss.detach()
