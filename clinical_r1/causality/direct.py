"""The direct control: a copy of a policy that is trained to answer at once, without any reasoning.

How much of a task needs no reasoning? A copy of the policy is asked with an empty reasoning section and learns, supervised on the
training questions' answers, the option that comes next; the loss covers the answer alone. What it then gets right on questions
that it has not seen needed no written reasoning. Ours.

A copy lies in runs/<profile>/direct/<arm>/seed<seed>: begun.json says what it is made from, done.json is its last file. It is
trained once, goes on from its last whole checkpoint, and is refused when its policy, questions or rules have changed.

torch, trl and datasets are imported when called.
"""

import shutil
from dataclasses import replace
from pathlib import Path

from clinical_r1.arms import ARMS
from clinical_r1.artifacts import (
    BEGUN,
    DONE,
    code_hash,
    difference,
    digest,
    hashes_of,
    policy_hash,
    policy_of,
    same_settings,
)
from clinical_r1.audit.perturbations import EMPTY_REASONING
from clinical_r1.causality.probes import empty_test
from clinical_r1.completions import SECTIONS
from clinical_r1.engines import local
from clinical_r1.files import locked, read_json, sha256, whole_folder, write_json
from clinical_r1.models import float32_adapter, load, load_backend, load_tokenizer, merge_adapter, save_policy
from clinical_r1.prompts import build_messages, render_chat
from clinical_r1.questions import Question, read_questions
from clinical_r1.train import sft_arguments
from clinical_r1.trainer import run

STEPS = 300  # of sft_batch questions: two and a half passes over the 4,000 that profile cpu trains on
TRAINED_ON = (
    "base_model", "backend", "load_in_4bit", "device_dtype", "lora_rank", "lora_alpha", "train_benchmark", "sft_batch",
    "sft_micro_batch", "micro_batch", "sft_learning_rate",
)  # fmt: skip
SPLITS = ("sft", "rl")  # all that a run trains on


def direct_dir(settings, method: str, seed: int) -> Path:
    """Where the copy of an arm lies."""
    return settings.run_dir / "direct" / method / f"seed{seed}"


def answer_row(question: Question, style: str) -> tuple[str, str]:
    """(empty reasoning up to "the answer is", what is to follow): the answer's text, its box, and the closing tag."""
    name = question.options[question.answer]
    closing = f"</{SECTIONS[style][1]}>"
    return EMPTY_REASONING[style], f" {name} \\boxed{{{question.answer}}}. {closing}"


def direct_rows(settings, style: str, tokenizer) -> list[dict]:
    """Supervised rows {"prompt", "completion"}, both text, of every training question whose answer is known."""
    rows = []
    for split in SPLITS:
        for question in read_questions(settings.questions_path(settings.train_benchmark, split)):
            if question.answer is not None:
                asked = render_chat(tokenizer, build_messages(question, style, settings.prompt_layout))
                forced, answer = answer_row(question, style)
                rows.append({"prompt": asked + forced, "completion": answer})
    return rows


def _made_from(settings, method: str, seed: int, steps: int) -> dict:
    questions = [sha256(settings.questions_path(settings.train_benchmark, split)) for split in SPLITS]
    rules = code_hash("clinical_r1.causality.direct:direct_rows")
    made = {"arm": method, "seed": seed, "direct_steps": steps, "policy": policy_hash(settings, method, seed)}
    return made | {"questions": digest(*questions), "rules": digest(rules)}


def is_direct(settings, method: str, seed: int, steps: int = STEPS) -> bool:
    """True when the copy is complete on disk. StaleError when it was made from something else; ValueError when a file of it is
    another one than training wrote.
    """
    folder = direct_dir(settings, method, seed)
    made = _made_from(settings, method, seed, steps)
    if not same_settings(folder / DONE, settings, TRAINED_ON, **made):
        return False
    if found := difference(hashes_of(folder / "policy"), read_json(folder / DONE)["files"]):
        raise ValueError(
            f"in {folder / 'policy'}, {found} since it was trained; delete {folder} and run it again."
        )
    return True


def train_direct(settings, method: str, seed: int, steps: int = STEPS) -> Path:
    """Train the copy, unless it is complete on disk; its folder. steps: of `sft_batch` questions each.

    ValueError for a policy that is not trained or for too few questions; PipelineError where nothing was learned, or another
    process trains the same copy.
    """
    folder = direct_dir(settings, method, seed)
    with locked(folder.with_name(f"{folder.name}.lock"), f"the direct copy of {method} with seed {seed}"):
        if is_direct(settings, method, seed, steps):
            return folder
        stamp = {key: settings.to_json()[key] for key in TRAINED_ON} | _made_from(
            settings, method, seed, steps
        )
        if not same_settings(
            folder / BEGUN, settings, TRAINED_ON, **_made_from(settings, method, seed, steps)
        ):
            write_json(folder / BEGUN, stamp)
        trainer = _trainer(settings, method, seed, steps)
        checked = run(trainer)
        with whole_folder(folder / "policy") as partial:
            save_policy(trainer.model, trainer.processing_class, partial)
        write_json(folder / DONE, stamp | {"checked": checked, "files": hashes_of(folder / "policy")})
        shutil.rmtree(folder / "checkpoints")  # they only served to go on
    return folder


def _trainer(settings, method: str, seed: int, steps: int):
    load_backend(settings.backend)
    import trl
    from datasets import Dataset
    from transformers import set_seed

    folder, start = direct_dir(settings, method, seed), _start(settings, method, seed)
    set_seed(seed)  # PEFT draws the adapter before the trainer sets its own seed
    model, tokenizer, adapter = load(start, settings, seed)
    rows = direct_rows(settings, ARMS[method].style, tokenizer)
    if len(rows) < settings.sft_batch:
        raise ValueError(
            f"the direct copy of {method} needs sft_batch = {settings.sft_batch} questions with an answer and has {len(rows)}; "
            "add questions, or set sft_batch lower."
        )
    arguments = sft_arguments(settings, seed, folder, len(rows)) | {"max_steps": steps, "save_total_limit": 2}
    trainer = trl.SFTTrainer(
        model=model,
        args=trl.SFTConfig(**arguments, run_name=f"direct copy of {method}, seed {seed}"),
        train_dataset=Dataset.from_list(rows),
        processing_class=tokenizer,
        peft_config=adapter,
    )
    float32_adapter(trainer.model, settings)
    return trainer


def _start(settings, method: str, seed: int) -> str:
    """The policy as whole weights: where it ends as an adapter, a merged copy in `start/`."""
    base, adapter = policy_of(settings, method, seed)
    if adapter is None:
        return base
    folder = direct_dir(settings, method, seed) / "start"
    if not folder.exists():
        with whole_folder(folder) as partial:
            save_policy(merge_adapter(base, adapter, settings), load_tokenizer(base), partial)
    return str(folder)


def load_direct(settings, method: str, seed: int) -> local.Transformers:
    """The engine of a copy that is trained."""
    policy = direct_dir(settings, method, seed) / "policy"
    if not settings.lora_rank:
        return local.load(str(policy), settings)
    return local.load(_start(settings, method, seed), settings, policy)


def direct_control(settings, method: str, seed: int, questions, steps: int = STEPS) -> dict:
    """The row of a probe: what the copy gets right when it answers at once. It is trained first where it is not yet."""
    train_direct(settings, method, seed, steps)
    engine = load_direct(settings, method, seed)
    own = replace(settings, max_completion_tokens=min(16, settings.max_completion_tokens))
    row = empty_test(engine, questions, own, ARMS[method].style)
    return row | {"probe": "direct", "target": "the gold, by a copy trained to answer at once"}
