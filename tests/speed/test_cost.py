"""The cost model counts what it says, and predicts the limits that the papers state.

Run: pytest tests/speed/test_cost.py
"""

import pytest

from clinical_r1.speed.cost import (
    OVERHEAD,
    SOFTMAX_PASSES,
    ModelShape,
    predicted_speed_up,
    shape_of,
    shared_cost,
    stock_cost,
    token_saving,
)

SHAPE = ModelShape(weights=1000, layers=3, attention=16, hidden=8, vocabulary=50)


def literal(tokens, pairs, predictions, overhead):
    """The module's formula, term by term."""
    layers = tokens * 2 * 1000
    attention = pairs * 4 * 3 * 16
    return layers + attention + predictions * 50 * (2 * 8 + SOFTMAX_PASSES) + 3 * overhead


def test_a_group_counted_token_by_token():
    prompt, completions = 7, [3, 5, 0, 4]
    tokens = prompt + 12
    pairs = prompt * prompt / 2 + sum(n * prompt + n * n / 2 for n in completions)
    for device, (_, layer, group) in OVERHEAD.items():
        one = literal(tokens, pairs, 12, layer + group)
        three = literal(3 * tokens, 3 * pairs, 36, layer + 3 * group)
        assert shared_cost(SHAPE, [(prompt, completions)], device) == pytest.approx(one)
        assert shared_cost(SHAPE, [(prompt, completions)] * 3, device) == pytest.approx(three)


@pytest.mark.parametrize(("padded", "half"), [(False, 2), (True, 1)])
def test_stock_rows_are_padded_to_the_longest(padded, half):
    expected = literal(4 * 12, 4 * 12 * 12 / half, 4 * 5, OVERHEAD["cpu"][0])
    assert stock_cost(SHAPE, 4, 7, 5, padded) == pytest.approx(expected)


@pytest.mark.parametrize(("ratio", "saving"), [(1, 1.78), (2, 2.4), (4, 3.33), (8, 4.5), (32, 6.6)])
def test_token_savings_of_the_paper(ratio, saving):
    assert token_saving(256 * ratio, 256, 8) == pytest.approx(saving, abs=0.005)


def test_speed_up_goes_to_the_token_saving_where_layers_are_all():
    wide = ModelShape(weights=10**13, layers=1, attention=1, hidden=1, vocabulary=1)
    assert predicted_speed_up(wide, 1024, 256, 8) == pytest.approx(token_saving(1024, 256, 8), rel=1e-6)
    head = ModelShape(weights=1, layers=1, attention=1, hidden=1, vocabulary=10**9)
    assert predicted_speed_up(head, 1024, 256, 8) == pytest.approx(1, rel=1e-3)  # the head is never shared


def test_one_completion_has_nothing_to_share():
    large = ModelShape(weights=10**8, layers=3, attention=16, hidden=8, vocabulary=50)
    assert predicted_speed_up(large, 100, 50, 1) == pytest.approx(1, abs=0.01)
    assert predicted_speed_up(large, 100, 50, 2) > 1


def test_a_model_too_small_to_gain():
    assert predicted_speed_up(SHAPE, 32, 4, 4) < 1  # calling the layers costs more than they compute


def test_the_shape_of_a_model_leaves_out_embeddings_and_counts_adapters():
    pytest.importorskip("torch")
    from peft import LoraConfig, get_peft_model
    from transformers import Qwen2Config, Qwen2ForCausalLM

    size = dict(
        hidden_size=8, intermediate_size=12, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=1
    )
    model = Qwen2ForCausalLM(Qwen2Config(vocab_size=30, tie_word_embeddings=False, **size))
    attention, mlp = 8 * 8 + 2 * 8 * 4 + 8 * 8, 3 * 8 * 12
    assert shape_of(model) == ModelShape(2 * (attention + mlp), 2, 8, 8, 30)
    adapted = get_peft_model(model, LoraConfig(r=2, target_modules=["q_proj"]))
    assert shape_of(adapted.get_base_model()).weights == 2 * (attention + mlp + 2 * (8 + 8))


def test_packed_weights_count_as_what_they_stand_for():
    """bitsandbytes keeps two 4-bit weights in a byte, in a column, and their shape beside them."""
    torch = pytest.importorskip("torch")
    from types import SimpleNamespace

    from transformers import Qwen2Config, Qwen2ForCausalLM

    size = dict(
        hidden_size=8, intermediate_size=12, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=1
    )
    model = Qwen2ForCausalLM(Qwen2Config(vocab_size=30, **size))
    whole = shape_of(model)
    for layer in model.model.layers:
        shape = layer.mlp.up_proj.weight.shape
        packed = torch.nn.Parameter(
            torch.zeros(shape.numel() // 2, 1, dtype=torch.uint8), requires_grad=False
        )
        packed.quant_state = SimpleNamespace(shape=shape)
        layer.mlp.up_proj.weight = packed
    assert shape_of(model) == whole


def test_a_shape_that_cannot_be():
    with pytest.raises(ValueError, match="layers is 0, expected at least 1"):
        ModelShape(1, 0, 1, 1, 1)
