"""Grouped heads on a CPU: the numbers of Transformers' SDPA, to the bit, without its copies; and every other case left to it.

Run: pytest tests/speed/test_grouped.py
"""

import pytest

from clinical_r1.speed import grouped, prefix_attention
from clinical_r1.speed.grouped import grouped_heads
from clinical_r1.speed.prefill import shared_prefill

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

SIZE = dict(
    vocab_size=60, hidden_size=48, intermediate_size=48, num_hidden_layers=2, num_attention_heads=6, head_dim=8,
    max_position_embeddings=64, pad_token_id=0, bos_token_id=1, eos_token_id=2, initializer_range=0.3,
)  # fmt: skip


def model_of(heads=2, dtype=torch.float32, **changes):
    from transformers import AutoConfig, AutoModelForCausalLM, set_seed

    set_seed(0)
    config = AutoConfig.for_model("llama", **SIZE | {"num_key_value_heads": heads} | changes)
    return AutoModelForCausalLM.from_config(config).to(dtype).eval()


@pytest.fixture
def inputs():
    draw = torch.Generator().manual_seed(1)
    mask = (torch.arange(9) >= 9 - torch.tensor([[9], [5], [7]])).long()
    return {"input_ids": torch.randint(5, 60, (3, 9), generator=draw) * mask, "attention_mask": mask}


@pytest.fixture
def copies(monkeypatch):
    """How often Transformers copied keys or values for their query heads."""
    from transformers.integrations import sdpa_attention

    made, stock = [], sdpa_attention.repeat_kv
    monkeypatch.setattr(sdpa_attention, "repeat_kv", lambda *a: made.append(a) or stock(*a))
    return made


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
@pytest.mark.parametrize("heads", [1, 2, 3, 6])
def test_logits_are_those_of_stock_attention(heads, dtype, inputs, copies):
    model = model_of(heads, dtype)
    with torch.no_grad():
        stock = model(**inputs).logits
        assert bool(copies) == (heads < 6)
        copies.clear()
        with grouped_heads(model):
            ours = model(**inputs).logits
    assert not copies and torch.equal(ours, stock)
    assert model.config._attn_implementation == "sdpa"


def test_a_generation_copies_nothing_and_says_the_same(inputs, copies):
    model, decoding = model_of(), dict(max_new_tokens=12, do_sample=False, eos_token_id=[2, 3, 4])
    stock = model.generate(**inputs, **decoding)
    copies.clear()
    with shared_prefill(model):
        assert torch.equal(model.generate(**inputs, **decoding), stock)
    assert not copies


def test_a_model_prepared_for_shared_prefixes_gets_its_attention_back(inputs):
    model = model_of()
    model.set_attn_implementation(prefix_attention.register())
    with pytest.raises(KeyboardInterrupt):
        with grouped_heads(model):
            assert model.config._attn_implementation == grouped.NAME
            raise KeyboardInterrupt
    assert model.config._attn_implementation == prefix_attention.NAME


def test_another_attention_stays(inputs):
    model = model_of()
    model.set_attn_implementation("eager")
    with grouped_heads(model):
        assert model.config._attn_implementation == "eager"


@pytest.mark.parametrize("extra", [{"dropout": 0.5}, {"position_bias": torch.zeros(1, 6, 1, 4)}], ids=str)
def test_what_is_more_than_attention_is_left_to_transformers(extra, copies):
    module = torch.nn.Module()
    module.num_key_value_groups = 3
    query, key, mask = (
        torch.ones(1, 6, 1, 8),
        torch.ones(1, 2, 4, 8),
        torch.ones(1, 1, 1, 4, dtype=torch.bool),
    )
    grouped.attention_forward(module, query, key, key, mask, **extra)
    assert copies
