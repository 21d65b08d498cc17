"""Can a real chat model hold the clinic's consultation by tool calls? TRL's own tool loop, nothing is trained.

    python benchmarks/agent_tools.py FOLDER --name SmolLM2-135M-Instruct [--patients 20] [--save]

FOLDER: a model whose turns stand between <|im_start|> and <|im_end|>. Where its chat template renders no tool calls, that of
Qwen2.5 is put in its place, and this is said. Each validation patient is met once, at temperature 1. Teaching material, never
medical advice.
"""

import argparse
import os
import tempfile
import time
from functools import partial

from measuring import RESULTS, hardware

from clinical_r1.agent.consultation import Rules, draw_patients
from clinical_r1.agent.tools import ClinicTools, tool_rows
from clinical_r1.files import write_json
from clinical_r1.intervals import wilson_interval
from clinical_r1.models import load_tokenizer

FILE, SEED = RESULTS / "agent_tools.json", 20251209
RULES = Rules()


class Noted(ClinicTools):
    """Keeps what each consultation came to, when TRL asks for its reward."""

    def __init__(self, rules, notes):
        super().__init__(rules)
        self.notes = notes

    def get_reward(self) -> float:
        earned, course = super().get_reward(), self.consultation
        self.notes.append(
            {
                "turns": self.rules.horizon - course.turns_left,
                "invalid": len(self.problems),
                "diagnosed": course.diagnosis is not None,
                "right": course.diagnosis == course.patient.gold,
                "reward": earned,
            }
        )
        return earned


def consultations(folder: str, patients, tokens: int) -> tuple[list[dict], dict, bool]:
    """(what each consultation came to, TRL's log of its tools, whether the template is the model's own)."""
    import torch
    import trl
    from datasets import Dataset
    from transformers import AutoModelForCausalLM
    from trl.chat_template_utils import qwen2_5_chat_template, supports_tool_calling

    os.environ["TRL_EXPERIMENTAL_SILENCE"] = "1"
    tokenizer, notes, texts = load_tokenizer(folder), [], []

    def kept(completions, **columns):
        texts.extend(
            " ".join(str(part.get("content") or part.get("tool_calls")) for part in said)
            for said in completions
        )
        return [0.0] * len(completions)

    own = supports_tool_calling(tokenizer)
    if not own:
        tokenizer.chat_template = qwen2_5_chat_template
    rows = Dataset.from_list(tool_rows(patients))
    with tempfile.TemporaryDirectory() as scratch:
        arguments = dict(per_device_train_batch_size=2, per_device_eval_batch_size=2, num_generations=2)
        arguments |= dict(num_generations_eval=1, max_completion_length=tokens, temperature=1.0, seed=SEED)
        arguments |= dict(max_tool_calling_iterations=RULES.horizon + 2, report_to=[], disable_tqdm=True)
        trainer = trl.GRPOTrainer(
            model=AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32),
            args=trl.GRPOConfig(
                output_dir=scratch, bf16=False, use_cpu=not torch.cuda.is_available(), **arguments
            ),
            train_dataset=rows,
            eval_dataset=rows,
            processing_class=tokenizer,
            reward_funcs=[kept],
            environment_factory=partial(Noted, RULES, notes),
        )
        log = trainer.evaluate()
    tools = {key.removeprefix("eval_"): value for key, value in log.items() if "tools/" in key}
    return notes, tools | {"first_reply": texts[0]}, own


def sentence(found: dict) -> str:
    """A result in two sentences."""
    n = found["patients"]
    return (
        f"Of {n} consultations, {found['called']} hold a call that reached the environment, {found['invalid_turns']} of "
        f"{found['turns']} turns were invalid, and {found['diagnosed']} ended in a diagnosis. {found['right']} were right."
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", help="the model")
    parser.add_argument("--name", required=True, help="how tables name it")
    parser.add_argument("--patients", type=int, default=20, help="validation patients (default 20)")
    parser.add_argument("--tokens", type=int, default=400, help="most that all turns may have (default 400)")
    parser.add_argument("--save", action="store_true", help=f"write {FILE.name}")
    arguments = parser.parse_args()
    patients, begun = draw_patients("validation", arguments.patients, SEED, RULES.menu), time.process_time()
    notes, log, own = consultations(arguments.folder, patients, arguments.tokens)
    found = {"model": arguments.name, "template": "its own" if own else "Qwen2.5's", "patients": len(notes)}
    found |= {"called": sum(note["turns"] > 0 for note in notes)}
    found |= {"turns": sum(note["turns"] for note in notes)}
    found |= {"invalid_turns": sum(note["invalid"] for note in notes)}
    found |= {name: sum(note[name] for note in notes) for name in ("diagnosed", "right")}
    found |= {"right_interval": list(wilson_interval(found["right"], len(notes)))}
    found |= {"return": sum(note["reward"] for note in notes) / len(notes), "trl": log}
    found |= {"cpu_seconds": round(time.process_time() - begun), "hardware": hardware()}
    print(sentence(found), log)
    if arguments.save:
        write_json(FILE, found)


if __name__ == "__main__":
    main()
