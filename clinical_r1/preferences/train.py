"""The stage that learns from pairs of answers, on TRL's DPOTrainer.

A fresh LoRA adapter lies on merged weights, and the reference is the same model with the adapter switched off: no second model.
What TRL would pass over in silence is refused before a model is loaded: no pairs or fewer than a step takes, equal answers,
answers that would lose their end.
"""

import math
from collections.abc import Sequence

from clinical_r1.arms import ARMS
from clinical_r1.artifacts import begin, settings_of
from clinical_r1.models import float32_adapter, largest_divisor, load, load_tokenizer
from clinical_r1.preferences.pairs import Pairs
from clinical_r1.preferences.recipe import Recipe, recipe_of
from clinical_r1.preferences.stages import learned_pairs
from clinical_r1.settings import Settings
from clinical_r1.train import finish, process_count, shared_arguments, whole_start
from clinical_r1.trainer import run

LAST = 0.2  # of the steps: where the probability of the chosen answers is read


def train_preference(settings: Settings, name: str, seed: int) -> None:
    """One arm of stage "preference" as `arms.ARMS` describes it, from the weights of the arm it starts from.

    ValueError, before the model that is trained is loaded, for a recipe or pairs that do not fit.
    """
    folder, own = settings.model_dir(name, seed), settings_of(settings, name)
    recipe = recipe_of(ARMS[name].options)
    if own.backend != "trl":
        raise ValueError(
            f"{name} is trained by backend 'trl' alone, got {own.backend!r}; set backend to 'trl'."
        )
    rows = rows_of(learned_pairs(settings, name, seed))
    start = whole_start(settings, name, seed)
    check_pair_lengths(name, own, load_tokenizer(start), rows)
    model, tokenizer, adapter = load(start, own, seed)
    arguments = dpo_arguments(own, recipe, seed, folder, len(rows)) | {"run_name": f"{name}, seed {seed}"}
    trainer = preference_trainer(model, tokenizer, rows, arguments, adapter)
    float32_adapter(trainer.model, own)
    begin(settings, name, seed, process_count())
    checked = run(trainer)
    checked["chosen"] = chosen_shift(trainer.state.log_history, recipe.beta)
    checked["said"] = [sentence] if (sentence := displaced(checked["chosen"])) else []
    finish(trainer.model, trainer, settings, name, seed, checked)


def rows_of(pairs: Pairs) -> list[dict]:
    """What DPOTrainer reads: prompt, chosen and rejected as messages."""
    return [
        {
            "prompt": list(pair.prompt),
            "chosen": [{"role": "assistant", "content": pair.chosen}],
            "rejected": [{"role": "assistant", "content": pair.rejected}],
        }
        for pair in pairs.rows
    ]


def preference_trainer(model, tokenizer, rows: Sequence[dict], arguments: dict, adapter):
    """TRL's DPOTrainer. rows: as `rows_of` gives them. adapter: a fresh LoRA; None trains all weights, and then the reference is
    a second model, read from the folder that the first came from.

    ValueError for a model that carries an adapter already (it would become its own reference, or be laid over a second time), and
    for pairs that TRL would leave out.
    """
    import trl
    from datasets import Dataset
    from peft import PeftModel

    if isinstance(model, PeftModel):
        raise ValueError(
            "the model carries a trained adapter already; merge it first (`models.merge_adapter`), so that the start speaks "
            "where the fresh one is switched off."
        )
    if not rows:
        raise ValueError("there is no pair to learn from; build some first (`pairs.build_pairs`).")
    trainer = trl.DPOTrainer(
        model=model,
        args=trl.DPOConfig(**arguments),
        train_dataset=Dataset.from_list(list(rows)),
        processing_class=tokenizer,
        peft_config=adapter,
    )
    if (kept := len(trainer.train_dataset)) < len(rows):
        raise ValueError(
            f"TRL leaves out {len(rows) - kept} of {len(rows)} pairs; leave them out, or raise max_length."
        )
    return trainer


def dpo_arguments(settings: Settings, recipe: Recipe, seed: int, folder, count: int) -> dict:
    """The DPOConfig of a stage on `count` pairs, as keywords: bfloat16 and checkpointing only where the settings say so."""
    batch = settings.sft_batch
    if batch % process_count():
        raise ValueError(f"{process_count()} processes cannot share sft_batch {batch}; expected a divisor.")
    part = batch // process_count()
    rows = largest_divisor(part, max(1, settings.micro_batch // 2))  # a pair is two sequences
    return dict(
        output_dir=str(folder / "checkpoints"),
        max_steps=math.ceil(recipe.epochs * (count // batch)),
        per_device_train_batch_size=rows,
        gradient_accumulation_steps=part // rows,
        dataloader_drop_last=True,
        learning_rate=recipe.learning_rate,
        lr_scheduler_type="cosine",
        warmup_steps=0.1,
        loss_type=list(recipe.loss_type),
        loss_weights=list(recipe.loss_weights),
        beta=recipe.beta,
        label_smoothing=recipe.label_smoothing,
        max_length=None,  # nothing is cut: `check_pair_lengths` has refused what is too long
        **shared_arguments(settings, seed),
    )


# ------------------------------------------------------------------------------------------------------------- checks


def check_pair_lengths(arm: str, settings: Settings, tokenizer, pairs: Sequence[dict]) -> None:
    """ValueError when a prompt with an answer does not fit: TRL would drop the pair, or cut the answer's end with its box."""
    limit = settings.max_prompt_tokens + settings.max_completion_tokens
    lengths = [
        len(tokenizer.apply_chat_template(pair["prompt"] + pair[side], tokenize=True, return_dict=False))
        for pair in pairs
        for side in ("chosen", "rejected")
    ]
    if longer := sum(length > limit for length in lengths):
        raise ValueError(
            f"{arm}: {longer} of {len(lengths)} answers with their prompt are longer than max_prompt_tokens + "
            f"max_completion_tokens = {limit} tokens of this tokenizer, the longest has {max(lengths)}; raise the limit, or "
            "leave these pairs out."
        )


# ------------------------------------------------------------------------------------- the probability of the chosen


def chosen_shift(log: Sequence[dict], beta: float) -> dict[str, float]:
    """What became of log pi(chosen), in nats an answer, over the last `LAST` of the logged steps.

    {"start": the mean under the reference, "end": under the policy, of the same answers}. log: TRL's, whose rewards/chosen is
    beta (log pi - log pi_ref). ValueError for a log without them.
    """
    rows = [row for row in log if "logps/chosen" in row and "rewards/chosen" in row]
    if not rows:
        raise ValueError(f"none of {len(log)} logged rows holds logps/chosen; expected one a step.")
    rows = rows[-max(1, math.ceil(LAST * len(rows))) :]
    end = math.fsum(row["logps/chosen"] for row in rows) / len(rows)
    moved = math.fsum(row["rewards/chosen"] for row in rows) / len(rows) / beta
    return {"start": end - moved, "end": end}


def displaced(chosen: dict[str, float]) -> str | None:
    """A sentence where the chosen answers have become less probable than at the start; None where they have not."""
    if chosen["end"] >= chosen["start"]:
        return None
    return (
        f"log pi(chosen) fell from {chosen['start']:.2f} to {chosen['end']:.2f} nats an answer (likelihood displacement), so "
        "what is preferred is said less often than before: add the loss 'sft', or raise its weight"
    )
