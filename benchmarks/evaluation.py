"""How much less CPU time does an answer take than with Transformers' plain `generate`, as evaluation ran before?

    python benchmarks/evaluation.py [--rounds 5] [--adapter RUN/models/ARM/seed0/policy]

A batch of `cpu`'s test questions, sampled and greedy, with the base model and with an adapter on it: before, the adapter stands
beside its base and every row is decoded to the end of the longest; now, `engines.local`. Both in turn, in one process, by
its CPU time. Without --adapter a random one of the same rank stands in, whose answers end when the base's would.
"""

import argparse
import time
from dataclasses import replace
from pathlib import Path

from measuring import MEASURED, Results, as_text, results_folder, speed_up

from clinical_r1.clinic.cases import load_set
from clinical_r1.engines import local
from clinical_r1.engines.protocol import decoding
from clinical_r1.models import CLINIC_BASE, load_policy, load_tokenizer, lora_config
from clinical_r1.prompts import build_messages
from clinical_r1.settings import CPU, PROTOCOLS

NOTES = {
    "seconds": "CPU time of one batch each way in turn, after one round that is not counted",
    "speed_up": "before over now within a round: median, low, high, n",
    "tokens": "of the answers of the last round, in all",
}


def plain(model, tokenizer, prompts, settings, protocol) -> int:
    """A batch as it was answered before; returns the tokens that are not padding."""
    import torch

    encoded = tokenizer(prompts, return_tensors="pt", padding=True, add_special_tokens=False)
    temperature = settings.eval_temperature if protocol == "sampled" else 0.0
    options = decoding(model, tokenizer, settings.max_completion_tokens, temperature, settings.eval_top_p)
    with torch.random.fork_rng([]), torch.inference_mode():
        torch.manual_seed(0)
        output = model.generate(
            input_ids=encoded["input_ids"], attention_mask=encoded["attention_mask"], **options
        )
    new = output[:, encoded["input_ids"].shape[1] :]
    tokenizer.batch_decode(new, skip_special_tokens=True)
    return int((new != tokenizer.pad_token_id).sum())


def engines(adapter: Path | None, with_adapter: bool, settings):
    """(model as before, engine of now) of the base, or of an adapter on it."""
    if with_adapter and adapter is None:
        import torch
        from peft import get_peft_model

        torch.manual_seed(0)
        models = [get_peft_model(load_policy(CLINIC_BASE, settings), lora_config(settings)) for _ in "12"]
        merged = models[1].merge_and_unload(progressbar=False)
        return models[0].eval(), local.Transformers(merged.eval(), load_tokenizer(CLINIC_BASE), "merged")
    laid = adapter if with_adapter else None
    return load_policy(CLINIC_BASE, settings, laid), local.load(CLINIC_BASE, settings, laid)


def measure(before, engine, prompts, settings, protocol: str, rounds: int) -> dict:
    """One point: a batch answered both ways."""
    tokens = {}

    def now() -> None:
        answers = engine.answer(prompts, settings, protocol, range(len(prompts)))
        tokens["now"] = sum(answer["tokens"] for answer in answers)

    def then() -> None:
        tokens["before"] = plain(before, engine.tokenizer, prompts, settings, protocol)

    seconds = {"before": [], "now": []}
    for number in range(rounds + 1):
        for name, run in (("before", then), ("now", now)):
            start = time.process_time()
            run()
            if number:
                seconds[name].append(round(time.process_time() - start, 5))
    ratio = speed_up(seconds, "before", "now")
    return {"repeats": rounds, "seconds": seconds, "speed_up": {"now": ratio}, "tokens": tokens}


def run_grid(arguments) -> Path:
    """Every point that is not in the file yet; returns the file."""
    import torch

    torch.set_num_threads(1)
    adapter = arguments.adapter
    named = f"{adapter.parents[1].name} of {adapter.parents[3].name}" if adapter else "random"
    settings = replace(CPU, eval_batch=arguments.batch)
    results = Results("evaluation", NOTES, arguments.results)
    questions = load_set("clinic", "test", settings.eval_batch)
    for with_adapter in (False, True):
        before, engine = engines(adapter, with_adapter, settings)
        prompts = [
            engine.prompt(build_messages(question, "crpo", settings.prompt_layout)) for question in questions
        ]
        for protocol in PROTOCOLS:
            kind = named if with_adapter else "none"
            asked = {"profile": "cpu", "adapter": kind, "protocol": protocol, "batch": settings.eval_batch}
            point = results.kept(asked, arguments.rounds)
            if point is None:
                point = measure(before, engine, prompts, settings, protocol, arguments.rounds)
                point = results.add(asked, arguments.rounds, point)
            each = sorted(point["seconds"]["now"])[len(point["seconds"]["now"]) // 2] / settings.eval_batch
            print(
                f"adapter {kind}, {protocol}: {as_text(point['speed_up']['now'])} times less CPU time, {1000 * each:.2f} ms an "
                "answer",
                flush=True,
            )
    return results.path


def parsed(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batch", type=int, default=CPU.eval_batch, help="questions of a batch")
    parser.add_argument("--adapter", type=Path, help="RUN/models/ARM/seed0/policy, on the clinic's base")
    parser.add_argument("--smoke", action="store_true", help="one round of a tiny batch, to see that it runs")
    parser.add_argument("--results", type=Path, default=MEASURED, help="folder of the result files")
    arguments = parser.parse_args(argv)
    arguments.results = results_folder(arguments.results, arguments.smoke)
    if arguments.smoke:
        arguments.rounds, arguments.batch = 1, 4
    return arguments


if __name__ == "__main__":
    run_grid(parsed())
