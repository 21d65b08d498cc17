"""Shared prefill changes nothing but the work: greedy and sampled completions are those of plain `generate`.

Run: pytest tests/test_prefill.py
"""

import pytest

from clinical_r1 import prefill
from clinical_r1.prefill import SharedPrefillMixin, generate_once_per_prompt, shared_prefill

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

P, G, NEW = 9, 4, 12


@pytest.fixture(scope="module")
def model():
    return model_of()


def model_of(family="qwen2", **changes):
    from transformers import AutoConfig, AutoModelForCausalLM, set_seed

    set_seed(0)
    size = dict(
        vocab_size=60, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, head_dim=8, max_position_embeddings=64, pad_token_id=0, bos_token_id=1, eos_token_id=2,
        initializer_range=0.3,
    )  # fmt: skip
    return AutoModelForCausalLM.from_config(AutoConfig.for_model(family, **(size | changes))).eval()


def prompts(lengths=(9, 5, 7), copies=G):
    """Left-padded rows, each prompt `copies` times in a row."""
    draw = torch.Generator().manual_seed(1)
    ids = torch.randint(5, 60, (len(lengths), P), generator=draw)
    mask = torch.stack([(torch.arange(P) >= P - n).long() for n in lengths])
    return {
        "input_ids": (ids * mask).repeat_interleave(copies, 0),
        "attention_mask": mask.repeat_interleave(copies, 0),
    }


def answers(model, inputs, sample):
    torch.manual_seed(7)
    decoding = (
        {"do_sample": True, "temperature": 0.9, "top_p": 0.95, "top_k": 0} if sample else {"do_sample": False}
    )
    return model.generate(**inputs, max_new_tokens=NEW, **decoding)


def encoded_tokens(model):
    """Tokens that pass the first layer, counted."""
    seen = []
    layer = model.model.layers[0]
    layer.register_forward_pre_hook(lambda _, args: seen.append(args[0].shape[:2].numel()))
    return seen


@pytest.mark.parametrize("sample", [False, True])
@pytest.mark.parametrize("family", ["qwen2", "llama", "qwen3"])
def test_the_same_completions(family, sample):
    model, inputs = model_of(family), prompts()
    plain = answers(model, inputs, sample)
    with shared_prefill(model):
        shared = answers(model, inputs, sample)
    assert torch.equal(plain, shared)
    assert len({tuple(row) for row in plain.tolist()}) > (3 if sample else 1)
    assert "generate" not in vars(model)


def test_each_prompt_is_encoded_once():
    model, inputs = model_of(), prompts()
    seen = encoded_tokens(model)
    with shared_prefill(model):
        answers(model, inputs, True)
    rows = 3 * G
    assert seen[0] == 3 * (P - 1)
    assert set(seen[1:]) == {rows}  # the last prompt token of every row, then the completions


def test_rows_need_not_be_neighbours(model):
    inputs = {
        key: value[torch.randperm(12, generator=torch.Generator().manual_seed(3))]
        for key, value in prompts().items()
    }
    plain = answers(model, inputs, True)
    with shared_prefill(model):
        assert torch.equal(answers(model, inputs, True), plain)


@pytest.mark.parametrize(
    ("inputs", "more"),
    [
        (prompts(copies=1), {}),
        ({key: value[:, -1:] for key, value in prompts().items()}, {}),
        (prompts(), {"cache_implementation": "static"}),
        (prompts(), {"use_cache": False}),
    ],
)
def test_left_alone(model, inputs, more, monkeypatch):
    def refuse(*_):
        raise AssertionError("prefilled")

    from transformers import GenerationConfig

    monkeypatch.setattr(prefill, "prefill", refuse)
    config = GenerationConfig(max_new_tokens=2, eos_token_id=2, pad_token_id=0, **more)
    called = []
    generate_once_per_prompt(model, lambda **call: called.append(call), **inputs, generation_config=config)
    assert called[0].keys() == {"input_ids", "attention_mask", "generation_config"}


def test_a_cache_of_another_kind_is_left_alone():
    model = model_of()
    model.forward = lambda **_: type("Output", (), {"past_key_values": object()})()
    inputs = prompts()
    called = []
    generate_once_per_prompt(model, lambda **call: called.append(call), **inputs)
    assert "past_key_values" not in called[0]


def test_the_class_method_returns_after_an_error(model):
    with pytest.raises(RuntimeError, match="stop"), shared_prefill(model):
        raise RuntimeError("stop")
    assert "generate" not in vars(model)


def test_the_mixin_leaves_vllm_alone():
    class Trainer(
        SharedPrefillMixin, type("Stock", (), {"_generate_single_turn": lambda self, *a, **k: (a, k)})
    ):
        use_vllm, use_transformers_continuous_batching, _is_vlm = True, False, False

    assert Trainer()._generate_single_turn(1, x=2) == ((1,), {"x": 2})
