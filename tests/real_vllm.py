"""Greedy answers of vLLM beside those of Transformers, for a base and for a rank-32 adapter on it, in a process of its own.

python tests/real_vllm.py BASE FOLDER [QUESTIONS] [TOKENS] [SPREAD]

prints {"base": ..., "adapter": ...} as its last line: the answers of both in float32, sampled ones asked twice in other company,
CPU seconds and load times. The adapter is drawn into FOLDER; SPREAD is that of its second matrices, enough to change what the
base says: 0.2 for the clinic's, 0.03 for SmolLM2.
"""

import json
import sys
import time
from dataclasses import replace
from pathlib import Path

from clinical_r1.clinic.cases import load_set
from clinical_r1.engines import vllm
from clinical_r1.engines.local import Transformers
from clinical_r1.models import load_policy, load_tokenizer, lora_config, save_policy
from clinical_r1.prompts import build_messages
from clinical_r1.settings import SMOKE

RANK = 32


def draw_adapter(settings, folder: Path, spread: float) -> None:
    import torch
    from peft import get_peft_model

    torch.manual_seed(0)
    model = get_peft_model(load_policy(settings.base_model, settings), lora_config(settings))
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "lora_B" in name:
                weight.normal_(0, spread)
    save_policy(model, load_tokenizer(settings.base_model), folder)


def timed(function, *arguments):
    """(what it returns, CPU seconds, seconds)"""
    cpu, wall = time.process_time(), time.perf_counter()
    value = function(*arguments)
    return value, round(time.process_time() - cpu, 2), round(time.perf_counter() - wall, 2)


def compare(settings, adapter, questions) -> dict:
    engine, *loading = timed(vllm.load, settings.base_model, settings, adapter)
    stock = Transformers(
        load_policy(settings.base_model, settings, adapter), load_tokenizer(settings.base_model)
    )
    prompts = [
        engine.prompt(build_messages(question, "crpo", settings.prompt_layout)) for question in questions
    ]
    engine.check(prompts, settings, "the clinic's test questions")
    seeds = list(range(len(prompts)))
    theirs, *vllm_seconds = timed(engine.answer, prompts, settings, "greedy", seeds)
    ours, *stock_seconds = timed(stock.answer, prompts, settings, "greedy", seeds)
    again = engine.answer(prompts[::-1], settings, "sampled", seeds[::-1])[::-1]
    return {
        "vllm": theirs,
        "transformers": ours,
        "sampled": engine.answer(prompts, settings, "sampled", seeds),
        "sampled_again": again,
        "other_seeds": engine.answer(prompts, settings, "sampled", [seed + 100 for seed in seeds]),
        "cpu_and_wall_seconds": {"load": loading, "vllm": vllm_seconds, "transformers": stock_seconds},
    }


def main(base: str, folder: str, questions: str = "4", tokens: str = "24", spread: str = "0.2") -> None:
    settings = replace(
        SMOKE,
        base_model=base,
        engine="vllm",
        lora_rank=RANK,
        max_prompt_tokens=512,
        max_completion_tokens=int(tokens),
    )
    asked = load_set("clinic", "test", int(questions))
    draw_adapter(settings, Path(folder), float(spread))
    print(
        json.dumps(
            {"base": compare(settings, None, asked), "adapter": compare(settings, Path(folder), asked)}
        )
    )
    vllm.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
