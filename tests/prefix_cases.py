"""Tiny models, trainers and batches for the tests of the shared prefix, and how both ways are compared."""

import re

import torch
import trl
from tiny import QUIET

from clinical_r1.files import PACKAGE
from clinical_r1.speed.prefix import SharedPrefixMixin

BASE = PACKAGE / "data" / "clinic_base"

P, R, VOCABULARY = 9, 7, 60

# (completions of each group, tokens of each prompt, tokens of each completion): unequal everywhere, one empty, one single
RAGGED = ([4, 4], [9, 6], [7, 3, 0, 1, 2, 7, 5, 4])

FULL = ([8], [9], [7] * 8)

EXACT = {torch.float32: 1e-5, torch.float64: 1e-10}

LOSSES = ("grpo", "bnpo", "dr_grpo", "dapo", "cispo", "sapo", "luspo", "vespo")


def batch_of(groups, prompts, completions, seed=0):
    """(ids, mask) of shape (N, P + R): prompts left-padded with their own group's tokens, completions right-padded."""
    draw = torch.Generator().manual_seed(seed)
    rows = sum(groups)
    ids = torch.randint(5, VOCABULARY, (rows, P + R), generator=draw)
    mask = torch.zeros(rows, P + R, dtype=torch.long)
    row = 0
    for number, tokens in zip(groups, prompts, strict=True):
        prompt = torch.randint(5, VOCABULARY, (P,), generator=draw)
        for _ in range(number):
            ids[row, :P], mask[row, P - tokens : P] = prompt, 1
            mask[row, P : P + completions[row]] = 1
            row += 1
    return ids * mask, mask


def model_of(family="qwen2", dtype=torch.float32, implementation="sdpa", **changes):
    from transformers import AutoConfig, AutoModelForCausalLM, set_seed

    size = dict(
        vocab_size=VOCABULARY,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        max_position_embeddings=64,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        attention_dropout=0.0,
    )
    set_seed(0)
    config = AutoConfig.for_model(family, **(size | changes))
    return AutoModelForCausalLM.from_config(config, attn_implementation=implementation, dtype=dtype)


def trainer_of(folder, model=None, lora=0, mixin=SharedPrefixMixin, options=None, **changes):
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import AutoTokenizer, set_seed

    arguments = QUIET | dict(
        output_dir=str(folder),
        max_steps=2,
        per_device_train_batch_size=8,
        num_generations=4,
        max_completion_length=R,
        learning_rate=1e-2,
        seed=3,
    )
    arguments |= changes
    tokenizer = AutoTokenizer.from_pretrained(BASE)
    words = sorted(tokenizer.get_vocab())[100:116]
    set_seed(3)
    bases = (mixin, trl.GRPOTrainer) if mixin else (trl.GRPOTrainer,)
    made = type("Trainer", bases, {})(
        model=model_of(vocab_size=len(tokenizer)) if model is None else model,
        reward_funcs=[lambda completion_ids, **_: [sum(ids) % 7 for ids in completion_ids]],
        args=trl.GRPOConfig(**arguments),
        train_dataset=Dataset.from_list([{"prompt": f"{a} {b}"} for a in words[:4] for b in words[4:]]),
        processing_class=tokenizer,
        peft_config=LoraConfig(r=lora, target_modules="all-linear", init_lora_weights=False)
        if lora
        else None,
        **(options or {}),
    )
    made.current_gradient_accumulation_steps = 1  # what train() sets
    return made


def loss_inputs(case=RAGGED, reference=True, dtype=torch.float32):
    ids, mask = batch_of(*case)
    rows = len(ids)
    draw = torch.Generator().manual_seed(2)
    noise = lambda: -3 + torch.randn(rows, R, generator=draw).to(dtype)  # noqa: E731
    return {
        "prompt_ids": ids[:, :P],
        "prompt_mask": mask[:, :P],
        "completion_ids": ids[:, P:],
        "completion_mask": mask[:, P:],
        "advantages": torch.randn(rows, generator=draw).to(dtype),
        "old_per_token_logps": noise(),
        "ref_per_token_logps": noise() if reference else None,
        "num_items_in_batch": mask[:, P:].sum(),
    }


def both_ways(trainer, inputs):
    """[(loss, gradients by name)] of the shared and of the stock method, same model, same inputs."""
    results = []
    for threshold in (0, float("inf")):
        trainer.shared_prefix_threshold = threshold
        trainer.model.zero_grad()
        loss = trainer.compute_loss(trainer.model, inputs)
        loss.backward()
        kept = {n: p.grad.clone() for n, p in trainer.model.named_parameters() if p.grad is not None}
        results.append((loss.detach(), kept))
    return results


def assert_same(trainer, inputs, dtype=torch.float32):
    tokens = trainer._metrics["train"]["shared_prefix/tokens"]
    (loss, gradients), (stock_loss, stock_gradients) = both_ways(trainer, inputs)
    assert tokens[-2] < 1 and tokens[-1] == 1  # one way each
    torch.testing.assert_close(loss, stock_loss, rtol=EXACT[dtype], atol=EXACT[dtype])
    assert gradients.keys() == stock_gradients.keys() and gradients
    scale = max(g.abs().max() for g in stock_gradients.values())
    assert scale > 0
    for name, gradient in stock_gradients.items():
        difference = (gradients[name] - gradient).abs().max()
        assert difference <= EXACT[dtype] * scale, f"{name}: {difference:.2g} of {scale:.2g}"


def falls_back(made, match, inputs=None, **kwargs):
    """The stock answer, the reason said exactly once."""
    made.shared_prefix_threshold = kwargs.get("threshold", 0)
    made._prefix_reasons.clear()
    inputs = inputs or loss_inputs()
    for _ in range(2):
        loss = made.compute_loss(made.model, inputs)
        assert made._metrics["train"]["shared_prefix/tokens"][-1] == 1
    assert torch.isfinite(loss)
    assert len(made._prefix_reasons) == 1
    assert re.search(match, made._prefix_reasons[0]), made._prefix_reasons


def out_of_memory_beyond(model, tokens):
    """The model's first layer refuses more tokens at once, as a small device would."""

    def check(_, args, kwargs):
        if args[0].shape[:2].numel() > tokens:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nAnd more.")

    return model.model.layers[0].register_forward_pre_hook(check, with_kwargs=True)
