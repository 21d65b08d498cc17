"""One GRPO run on completions that are known beforehand, in one process or in several; test_multi_process.py compares them.

    python tests/two_processes.py FOLDER CASE [CASE ...] [--mixins shared_prefix]
    accelerate launch --multi_gpu --num_processes 2 tests/two_processes.py FOLDER CASE ...

`accelerate launch --cpu --num_processes 2` starts one process alone unless MPI is there; --multi_gpu starts two anywhere.
Each case leaves FOLDER/CASE.json and FOLDER/CASE.safetensors (the trained weights of the first process).
"""

import argparse
import gc
import hashlib
import importlib
import os
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from tiny import QUIET

from clinical_r1.advantages import TRL_ARGUMENTS
from clinical_r1.files import write_json
from clinical_r1.models import clinic_base_path, load_tokenizer, lora_config
from clinical_r1.settings import SMOKE
from clinical_r1.trainer import build_trainer_class

# What may come before the trainer: module, class and keywords of the constructor. Imported when named.
MIXINS = {"shared_prefix": ("clinical_r1.speed.prefix", "SharedPrefixMixin", {"shared_prefix_threshold": 0})}
STEPS, ITERATIONS = (
    4,
    2,
)  # two generations, each used twice: on the second use the ratio is no longer 1, nor the loss 0


@dataclass(frozen=True)
class Case:
    aggregation: str = "sum_then_normalize"
    options: dict = field(default_factory=dict)
    rows: int = 8  # completions of one forward pass, all processes together
    num_generations: int = 4
    passes: int = 1  # gradient accumulation
    lora: bool = False
    drawn: bool = False  # by the policy, and not invented: no two runs alike
    changes: dict = field(default_factory=dict)  # of the GRPOConfig


CONSTRAINED = {"targets": {"vowels": 0.6, "brief": 0.9}, "rate": 0.5}
CASES = {
    "sum_then_normalize": Case(),
    "normalize_then_sum": Case("normalize_then_sum"),
    "gated": Case("gated", {"gate": "brief"}),
    "std_floor": Case("std_floor"),
    "constrained": Case("constrained", CONSTRAINED),
    "lexicographic": Case("lexicographic"),
    # ten z-scores make a step of ten times the size, which would carry rounding past what is compared
    "normalize_each": Case("normalize_each", changes={"learning_rate": 1e-3}),
    "split_group": Case("constrained", CONSTRAINED, rows=8, num_generations=8),  # half of it in each process
    "uneven_groups": Case("gated", {"gate": "brief"}, rows=12),  # 4 + 2 rows, and 2 + 4
    "odd_slices": Case("normalize_then_sum", rows=10, num_generations=5),  # 5 rows each: whole groups
    "two_passes": Case("std_floor", passes=2),
    "dapo": Case(changes={"loss_type": "dapo", "learning_rate": 3e-3}),
    "dr_grpo": Case("sum_then_center", changes={"loss_type": "dr_grpo", "learning_rate": 1e-3}),
    "lora": Case("constrained", CONSTRAINED, lora=True),
    "no_kl": Case(changes={"beta": 0.0}),
    "drawn": Case(num_generations=8, drawn=True),
}


def length(completions, **columns):
    """Words, in tens."""
    return [len(text.split()) / 10 for text in completions]


def vowels(completions, **columns):
    """Share of vowels among the characters; None for every fifth length of text."""
    return [
        None if len(text) % 5 == 0 else sum(map(text.count, "aeiou")) / max(len(text), 1)
        for text in completions
    ]


def brief(completions, **columns):
    """1 for fewer than fifteen words."""
    return [float(len(text.split()) < 15) for text in completions]


def invented(prompt_ids, place, vocabulary):
    """Completion number `place` of a prompt: 3 to 12 tokens, the same in every run and every process."""
    rng = np.random.default_rng([*prompt_ids, place])
    return rng.integers(10, vocabulary, size=rng.integers(3, 13)).tolist()


class Recorded:
    """Before a trainer: its completions are invented, and what it makes of them is kept."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.rows, self.trained, self.losses, self.multipliers_by_generation = [], [], [], []

    def _generate_single_turn(self, prompt_ids, *args, **kwargs):
        if self.drawn:
            return super()._generate_single_turn(prompt_ids, *args, **kwargs)
        first = self.accelerator.process_index * len(prompt_ids)
        places = [(first + row) % self.num_generations for row in range(len(prompt_ids))]
        vocabulary = len(self.processing_class)
        return [invented(ids, place, vocabulary) for ids, place in zip(prompt_ids, places, strict=True)], None

    def _generate_and_score_completions(self, inputs):
        output = super()._generate_and_score_completions(inputs)
        generation = self.state.global_step // ITERATIONS
        for row, texts in enumerate(inputs):
            kept = {"generation": generation, "process": self.accelerator.process_index}
            kept |= {"prompt": texts["prompt"], "completion": unpadded(output, row)}
            self.rows.append(kept | {"advantage": output["advantages"][row].item()})
        self.multipliers_by_generation.append(getattr(self, "multipliers", None))
        return output

    def compute_loss(self, model, inputs, *args, **kwargs):
        loss = super().compute_loss(model, inputs, *args, **kwargs)
        step = self.state.global_step
        self.losses.append([step, loss.item()])
        advantages = inputs["advantages"].tolist()
        self.trained += [[step, unpadded(inputs, row), value] for row, value in enumerate(advantages)]
        return loss


def unpadded(batch, row):
    return batch["completion_ids"][row][batch["completion_mask"][row].bool()].tolist()


def trainer_class(mixins=()):
    """(class, keywords): the project's trainer with the named mixins before it, recorded."""
    named = [MIXINS[name] for name in mixins]
    classes = [getattr(importlib.import_module(module), name) for module, name, _ in named]
    keywords = {key: value for _, _, given in named for key, value in given.items()}
    return type("RecordedTrainer", (Recorded, *classes, build_trainer_class()), {}), keywords


def build(case, folder, processes, mixins=()):
    """A trainer whose batch is the same whole for any number of processes: each takes its part of the rows."""
    import trl
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, set_seed

    base = clinic_base_path()
    tokenizer = load_tokenizer(str(base))
    words = sorted(word for word in tokenizer.get_vocab() if word.isalpha())[:24]
    prompts = [{"prompt": " ".join(words[: 3 + number % 5] + [word])} for number, word in enumerate(words)]
    arguments = QUIET | dict(
        output_dir=str(folder / "run"),
        max_steps=STEPS,
        num_iterations=ITERATIONS,
        per_device_train_batch_size=case.rows // processes,
        gradient_accumulation_steps=case.passes,
        num_generations=case.num_generations,
        max_completion_length=16,
        # plain descent: Adam's step forgets the gradient's size, so a sum in place of a mean would pass unseen
        optim="sgd",
        learning_rate=0.01,
        max_grad_norm=1e6,
        beta=0.04,
        loss_type="grpo",
        reward_weights=[10.0, 1.0, 0.5],
    )
    set_seed(0)
    kind, keywords = trainer_class(mixins)
    kind.drawn = case.drawn
    return kind(
        model=AutoModelForCausalLM.from_pretrained(base),
        reward_funcs=[length, vowels, brief],
        args=trl.GRPOConfig(**arguments | TRL_ARGUMENTS.get(case.aggregation, {}) | case.changes),
        train_dataset=Dataset.from_list(prompts),
        processing_class=tokenizer,
        peft_config=lora_config(SMOKE) if case.lora else None,
        aggregation=case.aggregation,
        aggregation_options=case.options,
        **keywords,
    )


def record(trainer, path):
    """Everything of all processes, in process order; the first process writes."""
    from accelerate.utils import gather_object
    from safetensors.torch import save_file

    weights = {
        name: value.detach() for name, value in trainer.model.named_parameters() if value.requires_grad
    }
    digest = hashlib.sha256(b"".join(value.numpy().tobytes() for value in weights.values())).hexdigest()
    found = {
        "processes": trainer.accelerator.num_processes,
        "rows": gather_object(trainer.rows),
        "trained": gather_object(trainer.trained),
        "losses": gather_object(trainer.losses),
        "multipliers": gather_object([trainer.multipliers_by_generation]),
        "weights": gather_object([digest]),
        "log": trainer.state.log_history,
    }
    if trainer.accelerator.is_main_process:
        save_file(weights, path.with_suffix(".safetensors"))
        write_json(path, found)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("cases", nargs="+", choices=CASES)
    parser.add_argument("--mixins", nargs="*", default=[], choices=MIXINS)
    args = parser.parse_args()
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    args.folder.mkdir(parents=True, exist_ok=True)
    for name in args.cases:
        trainer = build(CASES[name], args.folder, processes, args.mixins)
        trainer.train()
        record(trainer, args.folder / f"{name}.json")
        del trainer
    if processes > 1:
        # The trainers first: the process group waits for its threads, which may wait for an interpreter that is letting
        # go of a trainer.
        gc.collect()
        torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main()
