"""Merged weights during rollouts: what the adapter says up to rounding, of this very step, and nothing left of it afterwards.

Run: pytest tests/speed/test_merged.py
"""

import logging
from contextlib import nullcontext
from types import SimpleNamespace

import pytest

from clinical_r1.speed.merged import (
    adapted_layers,
    less_work,
    merged_adapter,
    merged_for_training,
    why_not,
)
from clinical_r1.speed.prefill import SharedPrefillMixin

torch = pytest.importorskip("torch")
peft = pytest.importorskip("peft")
pytest.importorskip("transformers")


def adapted(dtype=torch.float32, drawn=True, words=60, **changes):
    """A small model with a LoRA adapter, whose matrices are drawn or, as at a run's begin, add nothing."""
    from transformers import Qwen2Config, Qwen2ForCausalLM, set_seed

    set_seed(0)
    model = Qwen2ForCausalLM(
        Qwen2Config(
            vocab_size=words, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
            num_key_value_heads=2, max_position_embeddings=64, pad_token_id=0, bos_token_id=1, eos_token_id=2,
            initializer_range=0.3,
        )
    ).to(dtype)  # fmt: skip
    options = {"r": 4, "lora_alpha": 6, "target_modules": "all-linear", "init_lora_weights": not drawn}
    return peft.get_peft_model(model, peft.LoraConfig(**(options | changes)), autocast_adapter_dtype=False)


IDS = torch.arange(3, 27).view(2, 12)


def logps(model):
    with torch.no_grad():
        return model(input_ids=IDS).logits.log_softmax(-1)


def state(model):
    """Every weight with the object that holds it, and every layer with its class."""
    weights = {name: (id(p), p.detach().clone()) for name, p in model.named_parameters()}
    return weights, {name: (id(module), type(module)) for name, module in model.named_modules()}


def assert_same(before, after):
    assert before[1] == after[1] and before[0].keys() == after[0].keys()
    for name, (place, value) in before[0].items():
        assert after[0][name][0] == place and torch.equal(after[0][name][1], value), name


@pytest.mark.parametrize(("dtype", "within"), [(torch.float32, 2e-5), (torch.float64, 1e-12)])
@pytest.mark.parametrize("changes", [{}, {"use_rslora": True}, {"rank_pattern": {"q_proj": 2}}], ids=str)
def test_merged_weights_say_what_the_adapter_says(dtype, within, changes):
    model = adapted(dtype, **changes).eval()
    adapter, before = logps(model), state(model)
    with model.disable_adapter():
        assert (logps(model) - adapter).abs().max() > 0.1, "the adapter does something"
    with merged_adapter(model):
        merged = logps(model)
        assert not any(isinstance(m, peft.tuners.lora.Linear) for m in model.modules())
    assert (merged - adapter).abs().max() < within
    assert_same(before, state(model))
    assert torch.equal(logps(model), adapter)


def test_in_half_precision_a_small_update_would_be_lost():
    """Why merged rollouts are left alone there: a matrix in bfloat16 has no room for a change of a thousandth."""
    layer = adapted().base_model.model.model.layers[0].self_attn.q_proj
    weight, update = layer.get_base_layer().weight.bfloat16(), layer.get_delta_weight("default") / 1000
    lost = {}
    for dtype in (torch.bfloat16, torch.float32):
        merged = (weight.float() + update).to(dtype).float()
        lost[dtype] = ((merged - weight.float() - update).norm() / update.norm()).item()
    assert lost[torch.bfloat16] > 0.5 and lost[torch.float32] < 1e-3


@pytest.mark.parametrize("problem", [RuntimeError, KeyboardInterrupt, GeneratorExit, SystemExit])
def test_the_layers_return_whatever_happens_within(problem):
    model = adapted()
    before = state(model)
    with pytest.raises(problem), merged_adapter(model):
        raise problem
    assert_same(before, state(model))


def test_the_layers_return_when_the_exchange_itself_is_interrupted(monkeypatch):
    model = adapted()
    before = state(model)
    attention = model.base_model.model.model.layers[1].self_attn

    class Interrupted(dict):
        def __setitem__(self, name, value):
            if name == "v_proj" and not isinstance(value, peft.tuners.lora.Linear):
                raise KeyboardInterrupt
            super().__setitem__(name, value)

    monkeypatch.setattr(attention, "_modules", Interrupted(attention._modules))
    with pytest.raises(KeyboardInterrupt), merged_adapter(model):
        pass
    assert_same(before, state(model))


def test_a_layer_at_two_places_and_a_model_without_adapter():
    model = adapted()
    layers = model.base_model.model.model.layers
    layers[1].mlp = layers[0].mlp
    adapter, before = logps(model), state(model)
    with merged_adapter(model):
        assert (logps(model) - adapter).abs().max() < 2e-5
    assert_same(before, state(model))
    bare = model.get_base_model().model.layers[0].input_layernorm
    assert why_not(adapted_layers(bare)) is None
    with merged_adapter(bare) as same:
        assert same is bare


def test_gradients_go_on_where_they_were():
    """An optimiser's parameters and what autograd has kept are those of the layers that come back."""
    model = adapted(drawn=False)
    kept = model(input_ids=IDS).logits.sum()
    with merged_adapter(model), torch.no_grad():
        model(input_ids=IDS)
    kept.backward()
    gradients = [p.grad for p in model.parameters() if p.requires_grad]
    assert all(g is not None for g in gradients) and any(g.abs().sum() > 0 for g in gradients)


def beside_modules():
    return adapted(modules_to_save=["lm_head"])


def two_adapters():
    model = adapted()
    model.add_adapter("second", peft.LoraConfig(r=2, target_modules="all-linear"))
    model.base_model.set_adapter(["default", "second"])
    return model


def switched_off():
    model = adapted()
    model.base_model.disable_adapter_layers()
    return model


def merged_already():
    model = adapted()
    model.merge_adapter()
    return model


def watched():
    model = adapted()
    model.base_model.model.model.layers[0].mlp.up_proj.lora_A["default"].register_forward_hook(
        lambda *_: None
    )
    return model


def quantised():
    model = adapted()
    layer = model.base_model.model.model.layers[0].mlp.up_proj
    layer.base_layer.__class__ = type("Linear4bit", (torch.nn.Linear,), {})
    return model


def partitioned():
    model = adapted()
    model.base_model.model.model.layers[0].mlp.up_proj.base_layer.weight.ds_id = 3
    return model


LEFT = {
    "modules_to_save": (beside_modules, "whole modules are trained beside the adapter"),
    "two adapters": (two_adapters, "2 adapters are active at once"),
    "off": (switched_off, "switched off, or merged already"),
    "merged": (merged_already, "switched off, or merged already"),
    "dora": (lambda: adapted(use_dora=True), "variant of LoRA"),
    "bias": (lambda: adapted(lora_bias=True, target_modules=["q_proj"]), "the adapter has biases"),
    "dropout": (lambda: adapted(lora_dropout=0.1).train(), "drops out at random while it generates"),
    "hooks": (watched, "hooks watch its layers"),
    "quantised": (quantised, "holds a lora Linear on a Linear4bit"),
    "embedding": (lambda: adapted(target_modules=["embed_tokens"]), "holds a lora Embedding on a Embedding"),
    "partitioned": (partitioned, "in parts, on several devices"),
    "bfloat16": (lambda: adapted(torch.bfloat16), "its weights are bfloat16"),
    "float16": (lambda: adapted(torch.float16), "its weights are float16"),
}


@pytest.mark.parametrize("case", LEFT)
def test_left_to_the_adapter(case):
    make, reason = LEFT[case]
    model = make()
    assert reason in why_not(adapted_layers(model))
    before = state(model)
    with pytest.raises(ValueError, match="the adapter cannot be merged: .*; generate without merged_adapter"):
        with merged_adapter(model):
            pass
    assert_same(before, state(model))


def test_dropout_that_does_not_act_does_not_hinder():
    model = adapted(lora_dropout=0.1).eval()
    adapter = logps(model)
    with merged_adapter(model):
        assert (logps(model) - adapter).abs().max() < 2e-5


# -------------------------------------------------------------------------------------------------------------- training


def loss_and_gradients(model, context):
    model.zero_grad()
    with context:
        loss = model(input_ids=IDS).logits.log_softmax(-1)[..., 5].sum()
    loss.backward()
    return loss.detach(), {name: p.grad for name, p in model.named_parameters() if p.requires_grad}


@pytest.mark.parametrize(("dtype", "within"), [(torch.float32, 1e-5), (torch.float64, 1e-13)])
@pytest.mark.parametrize("lora_dropout", [0.0, 0.1])
def test_gradients_of_merged_weights_are_the_adapter_s(dtype, within, lora_dropout):
    model = adapted(dtype, r=32, lora_dropout=lora_dropout).train()
    model = model.eval() if lora_dropout else model
    before = state(model)
    loss, expected = loss_and_gradients(model, nullcontext())
    context = merged_for_training(model, model.get_base_model())
    assert not isinstance(context, nullcontext)
    merged, got = loss_and_gradients(model, context)
    assert_same(before, state(model))
    assert abs(merged - loss) <= within * abs(loss)
    largest = max(gradient.abs().max() for gradient in expected.values())
    assert expected.keys() == got.keys() and largest > 0.1
    assert max((got[name] - expected[name]).abs().max() for name in got) <= within * largest


@pytest.mark.parametrize(
    ("rank", "targets", "less"),
    [(32, "all-linear", True), (4, "all-linear", False), (6, ["q_proj"], True), (5, ["q_proj"], False)],
)
def test_merged_where_that_is_less_work(rank, targets, less):
    """in · out = 1,024 products of the 32 x 32 layer, against 3 · r · (in + out) = 192 r."""
    adapted_there = adapted_layers(adapted(r=rank, target_modules=targets))
    assert less_work(adapted_there) == less


def test_left_as_it_is_in_training():
    model = adapted(r=32)
    bare = model.get_base_model()
    with torch.no_grad():
        assert isinstance(merged_for_training(model, bare), nullcontext)
    with torch.autocast("cpu", torch.bfloat16):
        assert isinstance(merged_for_training(model, bare), nullcontext)
    with model.disable_adapter():
        assert isinstance(merged_for_training(model, bare), nullcontext)
    model.gradient_checkpointing_enable()
    assert isinstance(merged_for_training(model, bare), nullcontext)
    model.gradient_checkpointing_disable()
    assert not isinstance(merged_for_training(model, bare), nullcontext)
    assert isinstance(merged_for_training(bare.model.norm, bare), nullcontext), "nothing is adapted"
    assert isinstance(merged_for_training(adapted(torch.bfloat16, r=32), bare), nullcontext)


# ---------------------------------------------------------------------------------------------------------- in a trainer


class Stock:
    """As much of a trainer as the mixin sees."""

    use_vllm = use_transformers_continuous_batching = _is_vlm = False

    def __init__(self, model, use_vllm=False):
        self.model_wrapped, self.use_vllm = model, use_vllm
        self.accelerator = type("Accelerator", (), {"unwrap_model": staticmethod(lambda model: model)})

    def _generate_single_turn(self):
        return [type(m) for m in self.model_wrapped.modules()]


class Trainer(SharedPrefillMixin, Stock):
    pass


@pytest.mark.parametrize(
    ("options", "merged"), [({}, True), ({"merge_adapter": False}, False), ({"use_vllm": True}, False)]
)
def test_rollouts_are_merged_unless_told_otherwise(options, merged, caplog):
    with caplog.at_level(logging.WARNING):
        kinds = Trainer(adapted(), **options)._generate_single_turn()
    assert (peft.tuners.lora.Linear not in kinds) == merged
    assert not caplog.records


def test_why_not_is_said_once(monkeypatch):
    said = []  # not caplog: what else ran in this process may keep loggers from the root
    log = SimpleNamespace(warning=lambda text, *values: said.append(text % values))
    monkeypatch.setitem(SharedPrefillMixin._generate_single_turn.__globals__, "log", log)
    trainer = Trainer(adapted(torch.bfloat16))
    for _ in range(3):
        assert peft.tuners.lora.Linear in trainer._generate_single_turn()
    assert len(said) == 1 and "the adapter is not merged: its weights are bfloat16" in said[0]


def test_every_rollout_is_of_the_weights_of_its_step(tmp_path):
    """Two steps of GRPO: the first rollout meets the base, the second what the first step has learned; and stock draws agree."""
    trl, datasets = pytest.importorskip("trl"), pytest.importorskip("datasets")
    from clinical_r1.models import load_tokenizer

    class Watched(trl.GRPOTrainer):
        def _generate_single_turn(self, *args, **kwargs):
            layer = self.model.base_model.model.model.layers[0].self_attn.q_proj
            weight = layer.weight if type(layer) is torch.nn.Linear else None
            adapter = [p.detach().clone() for name, p in self.adapter if "layers.0.self_attn.q_proj" in name]
            answer = super()._generate_single_turn(*args, **kwargs)
            self.seen.append((weight, adapter, answer[0]))
            return answer

    def seen(**options):
        tokenizer = load_tokenizer("clinic-base")
        model = adapted(words=len(tokenizer), drawn=False).unload()  # the trainer lays the adapter itself
        base = model.model.layers[0].self_attn.q_proj.weight.detach().clone()
        trainer = type("Trainer", (SharedPrefillMixin, Watched), {})(
            model=model,
            reward_funcs=[lambda completion_ids, **_: [sum(ids) % 7 / 7 for ids in completion_ids]],
            args=trl.GRPOConfig(
                output_dir=str(tmp_path), max_steps=2, per_device_train_batch_size=8, num_generations=4, report_to=[],
                max_completion_length=6, learning_rate=0.1, use_cpu=True, bf16=False, save_strategy="no", seed=1,
                disable_tqdm=True, beta=0.01, gradient_checkpointing=False,
            ),
            train_dataset=datasets.Dataset.from_list([{"prompt": "fever"}] * 8),
            processing_class=tokenizer,
            peft_config=peft.LoraConfig(r=4, lora_alpha=6, target_modules="all-linear"),
            draws="stock",
            **options,
        )  # fmt: skip
        trainer.adapter = [item for item in trainer.model.named_parameters() if item[1].requires_grad]
        trainer.seen = []
        trainer.train()
        return base, trainer.seen

    base, merged = seen()
    for weight, (a, b), _ in merged:
        assert torch.allclose(weight, base + b @ a * 6 / 4, atol=1e-6)
    assert torch.equal(merged[0][0], base) and not torch.allclose(merged[1][0], base, atol=1e-3)
    _, adapter = seen(merge_adapter=False)
    assert all(weight is None for weight, _, _ in adapter)
    assert [row for *_, row in merged] == [row for *_, row in adapter]
