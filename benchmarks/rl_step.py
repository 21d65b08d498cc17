"""How much faster is a whole RL step of the `cpu` profile than on stock TRL, and where does the time go?

    python benchmarks/rl_step.py [--repeats 15] [--profile cpu]

The shipped clinic model with a fresh LoRA adapter, the rewards and prompts of CRPO, 8 prompts x 8 completions. Three trainers
live in one process and make one step each in turn, from the same weights and the same questions:

stock         MultiObjectiveMixin on TRL's GRPOTrainer (the rewards' anatomy is logged by all)
stock_draws   the same with SharedPrefixMixin and SharedPrefillMixin before it, which draws as stock does: the same completions
ours          with its cheap draws, as training uses them: other completions of the same distribution

A step's parts: generation; forward, log-probabilities with and without gradient and the loss; backward; rest, which is the
optimiser, rewards, advantages, shuffling and logging. Seconds are CPU time of the process, which others disturb less than time
on the clock; with the one thread of the profile an idle machine shows the same on both.
"""

import argparse
import logging
import statistics
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from measuring import MEASURED, Results, as_text, results_folder, speed_up

from clinical_r1.arms import ARMS
from clinical_r1.clinic.cases import load_set
from clinical_r1.models import load_policy, load_tokenizer, lora_config
from clinical_r1.prompts import build_messages
from clinical_r1.rewards import REWARD_SETS
from clinical_r1.settings import PROFILES, settings_for
from clinical_r1.speed.prefill import SharedPrefillMixin
from clinical_r1.speed.prefix import SharedPrefixMixin
from clinical_r1.train import grpo_arguments
from clinical_r1.trainer import build_trainer_class

METHOD = "crpo"
PARTS = ("generation", "forward", "backward")
NOTES = {
    "seconds": "CPU time of one whole step each in turn, after one round that is not counted",
    "speed_up": "stock over ours within a round: median, low, high, n",
    "speed_up_stock_draws": "stock over ours with stock draws, the same completions",
    "parts": "median seconds of a step's parts; rest is what remains of the step",
    "tokens": "mean completion tokens a step: the same for stock and stock_draws when every draw agreed",
}


class Stopwatch:
    """Seconds of named parts of one step. A part that runs within another belongs to the outer one."""

    def __init__(self):
        self.seconds, self.running = dict.fromkeys(PARTS, 0.0), False

    def wrap(self, owner, method: str, part: str):
        call = getattr(owner, method)

        def timed(*args, **kwargs):
            if self.running:
                return call(*args, **kwargs)
            self.running, start = True, time.process_time()
            try:
                return call(*args, **kwargs)
            finally:
                self.running = False
                self.seconds[part] += time.process_time() - start

        setattr(owner, method, timed)


class Side:
    """One trainer with its stopwatch; every `step` is a train() of one step, timed without its preparations."""

    def __init__(self, bases: tuple, settings, rows: list[dict], folder: str, **options):
        import trl
        from datasets import Dataset
        from transformers import PrinterCallback, TrainerCallback, set_seed

        side = self
        rewards = REWARD_SETS[METHOD]
        changes = {"max_steps": 1, "save_strategy": "no", "output_dir": folder}
        set_seed(0)  # PEFT draws the adapter
        self.trainer = type("Trainer", (*bases, build_trainer_class()), {})(
            model=load_policy("clinic-base", settings, trainable=True),
            reward_funcs=list(rewards.functions),
            args=trl.GRPOConfig(**grpo_arguments(settings, 0, Path(folder), rewards.weights) | changes),
            train_dataset=Dataset.from_list(rows),
            processing_class=load_tokenizer("clinic-base"),
            peft_config=lora_config(settings),
            **options,
        )
        self.watch = Stopwatch()
        self.watch.wrap(self.trainer, "_generate", "generation")
        self.watch.wrap(self.trainer, "_get_per_token_logps_and_entropies", "forward")
        self.watch.wrap(self.trainer, "compute_loss", "forward")
        self.watch.wrap(self.trainer.accelerator, "backward", "backward")

        class Clock(TrainerCallback):
            def on_step_begin(self, *args, **kwargs):
                side.start = time.process_time()

            def on_step_end(self, *args, **kwargs):
                side.total = time.process_time() - side.start

        self.trainer.add_callback(Clock())
        self.trainer.remove_callback(PrinterCallback)

    def step(self, seed: int) -> dict:
        """Seconds of one step and of its parts, and the mean tokens of its completions."""
        from transformers import set_seed

        self.watch.seconds = dict.fromkeys(PARTS, 0.0)
        self.trainer.args.seed = seed  # of the order of the questions
        set_seed(seed)
        self.trainer.train()
        parts = self.watch.seconds | {"rest": self.total - sum(self.watch.seconds.values())}
        log = next(row for row in self.trainer.state.log_history if "reward" in row)
        return {
            "seconds": self.total,
            "parts": parts,
            "tokens": log["completions/mean_length"],
            "reward": log["reward"],
        }

    def weights(self):
        return [p for p in self.trainer.model.parameters() if p.requires_grad]


def question_rows(count: int) -> list[dict]:
    """The rows that `train.reward_rows` makes, from the clinic itself instead of a run's files."""
    style = ARMS[METHOD].style
    return [
        {
            "prompt": build_messages(question, style, "clinic"),
            "id": question.id,
            "answer": question.answer,
            "options": question.options,
            "style": style,
        }
        for question in load_set("clinic", "rl", count)
    ]


def measure(settings, repeats: int) -> dict:
    """Steps in turn; after each round all sides go on from stock's weights."""
    import torch
    from tqdm.auto import tqdm

    torch.set_num_threads(settings.threads)
    rows, ours = question_rows(max(16, 4 * settings.rl_prompts)), (SharedPrefixMixin, SharedPrefillMixin)
    with tempfile.TemporaryDirectory() as folder:
        sides = {
            "stock": Side((), settings, rows, folder),
            "stock_draws": Side(ours, settings, rows, folder, draws="stock"),
            "ours": Side(ours, settings, rows, folder),
        }
        taken = {name: [] for name in sides}
        for number in tqdm(range(repeats + 1), unit="round"):
            for name, side in sides.items():
                step = side.step(number)
                if number:
                    taken[name].append(step)
            with torch.no_grad():
                for side in (sides["stock_draws"], sides["ours"]):
                    for weight, stock in zip(side.weights(), sides["stock"].weights(), strict=True):
                        weight.copy_(stock)
        shared = sides["ours"].trainer.state.log_history[0].get("shared_prefix/tokens", 1.0)
    seconds = {name: [step["seconds"] for step in steps] for name, steps in taken.items()}
    means = {
        key: {name: statistics.fmean(step[key] for step in steps) for name, steps in taken.items()}
        for key in ("tokens", "reward")
    }
    return {
        "repeats": repeats,
        "seconds": {name: [round(value, 4) for value in values] for name, values in seconds.items()},
        "speed_up": _speed_ups(taken, seconds, "ours"),
        "speed_up_stock_draws": _speed_ups(taken, seconds, "stock_draws"),
        "parts": {name: _parts(steps) for name, steps in taken.items()},
        "tokens": {name: round(value, 2) for name, value in means["tokens"].items()},
        "reward": {name: round(value, 4) for name, value in means["reward"].items()},
        "shared_tokens": shared,
    }


def _parts(steps):
    names = (*PARTS, "rest")
    return {name: round(statistics.median(step["parts"][name] for step in steps), 5) for name in names}


def _speed_ups(taken, seconds, name):
    """Of the whole step, and of its parts."""
    parts = {
        part: {way: [step["parts"][part] for step in taken[way]] for way in ("stock", name)} for part in PARTS
    }
    ratios = {part: speed_up(values, "stock", name) for part, values in parts.items()}
    return {"step": speed_up(seconds, "stock", name), **ratios}


def run(arguments) -> Path:
    from transformers.utils import logging as hub_logging

    hub_logging.set_verbosity_error()
    logging.getLogger("clinical_r1").setLevel(logging.ERROR)
    settings = settings_for(arguments.profile)
    if settings.prompt_layout != "clinic":
        raise ValueError(f"profile {arguments.profile} trains no clinic model; expected cpu or smoke.")
    if arguments.smoke:
        settings = replace(settings, max_completion_tokens=8)
    sizes = {
        key: getattr(settings, key)
        for key in (
            "profile",
            "rl_prompts",
            "num_generations",
            "max_completion_tokens",
            "lora_rank",
            "micro_batch",
        )
    }
    results = Results("rl_step", NOTES, arguments.results)
    point = results.kept(sizes, arguments.repeats)
    if point is None:
        point = results.add(sizes, arguments.repeats, measure(settings, arguments.repeats))
    ratios, parts = point["speed_up"], point["parts"]
    print(f"a whole step of {sizes['profile']}: {as_text(ratios['step'])} times faster than stock TRL")
    print(f"  with stock draws: {as_text(point['speed_up_stock_draws']['step'])}")
    for part in PARTS:
        print(
            f"  {part}: {as_text(ratios[part])}; {parts['stock'][part]:.3f} s against {parts['ours'][part]:.3f} s"
        )
    print(f"  rest: {parts['stock']['rest']:.3f} s against {parts['ours']['rest']:.3f} s")
    return results.path


def parsed(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=15, help="steps of each trainer")
    parser.add_argument("--profile", choices=PROFILES, default="cpu")
    parser.add_argument("--smoke", action="store_true", help="the smoke profile with short completions")
    parser.add_argument("--results", type=Path, default=MEASURED, help="folder of the result files")
    arguments = parser.parse_args(argv)
    arguments.results = results_folder(arguments.results, arguments.smoke)
    if arguments.smoke:
        arguments.profile, arguments.repeats = "smoke", min(arguments.repeats, 2)
    return arguments


if __name__ == "__main__":
    options = parsed()
    print(run(options))
