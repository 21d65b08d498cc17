"""Shared prefill changes nothing but the work: greedy and sampled completions are those of plain `generate`.

Run: pytest tests/speed/test_prefill.py
"""

import pytest

from clinical_r1.speed import prefill
from clinical_r1.speed.draws import multinomial
from clinical_r1.speed.prefill import SharedPrefillMixin, generate_shared, shared_prefill

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

P, G, NEW = 9, 4, 12
ENDS = list(range(2, 8))  # a tenth of the vocabulary ends a completion, so that rows end early


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
    return model.generate(**inputs, max_new_tokens=NEW, eos_token_id=ENDS, **decoding)


def encoded_tokens(model):
    """Tokens that pass the first layer, counted."""
    seen = []
    layer = model.base_model.layers[0]
    layer.register_forward_pre_hook(lambda _, args: seen.append(args[0].shape[:2].numel()))
    return seen


@pytest.mark.parametrize("sample", [False, True])
@pytest.mark.parametrize("family", ["qwen2", "llama", "qwen3"])
def test_the_same_completions(family, sample):
    model, inputs = model_of(family), prompts()
    plain = answers(model, inputs, sample)
    with shared_prefill(model, "stock"):
        shared = answers(model, inputs, sample)
    assert torch.equal(plain, shared)
    assert len({tuple(row) for row in plain.tolist()}) > (3 if sample else 1)
    assert "generate" not in vars(model)


@pytest.mark.parametrize("family", ["qwen2", "gpt_neox"])
@pytest.mark.parametrize("lengths", [(9, 9, 9), (9, 5, 7)], ids=["no padding", "padded"])
def test_with_and_without_padding_in_known_families_and_others(family, lengths):
    model, inputs = model_of(family), prompts(lengths)
    plain = answers(model, inputs, True)
    seen = encoded_tokens(model)
    with shared_prefill(model, "stock"):
        shared = answers(model, inputs, True)
    assert torch.equal(plain, shared) and seen[0] == 3 * (P - 1)
    assert not shared.is_inference(), "training goes on with these tokens"
    loss = model(input_ids=shared).logits.sum()
    loss.backward()  # nothing that the generation left behind is without gradients


def test_each_prompt_is_encoded_once_and_ended_rows_leave():
    model, inputs = model_of(), prompts()
    seen = encoded_tokens(model)
    with shared_prefill(model, "stock"):
        tokens = answers(model, inputs, True)[:, P:]
    rows = 3 * G
    assert seen[:2] == [3 * (P - 1), rows]  # then the last prompt token of every row
    assert seen[1:] == sorted(seen[1:], reverse=True) and seen[-1] < rows
    ended = torch.isin(tokens, torch.tensor(ENDS)).cumsum(dim=1).bool()
    at_work = [rows, *(rows - ended[:, :-1].sum(dim=0)).tolist()]
    assert all(n <= row <= n / (1 - prefill.LEAVE_AT) for row, n in zip(seen[1:], at_work, strict=True))


def test_rows_need_not_be_neighbours(model):
    order = torch.randperm(12, generator=torch.Generator().manual_seed(3))
    inputs = {key: value[order] for key, value in prompts().items()}
    plain = answers(model, inputs, True)
    with shared_prefill(model, "stock"):
        assert torch.equal(answers(model, inputs, True), plain)


@pytest.mark.parametrize(
    "more", [{"min_new_tokens": 5}, {"repetition_penalty": 1.5}, {"min_p": 0.02, "top_k": 9}]
)
def test_processors_that_work_row_by_row(model, more, monkeypatch):
    ends = {"max_new_tokens": NEW, "eos_token_id": ENDS, "do_sample": True}
    torch.manual_seed(7)
    plain = model.generate(**prompts(), **ends, **more)
    monkeypatch.setattr(type(model), "_sample", None)
    torch.manual_seed(7)
    with shared_prefill(model, "stock"):
        assert torch.equal(model.generate(**prompts(), **ends, **more), plain)


@pytest.mark.parametrize("copies", [1, G])
def test_prompts_of_one_token_and_prompts_without_a_twin(model, copies):
    for inputs in (
        prompts(copies=copies),
        {key: value[:, -1:] for key, value in prompts(copies=copies).items()},
    ):
        plain = answers(model, inputs, True)
        with shared_prefill(model, "stock"):
            assert torch.equal(answers(model, inputs, True), plain)


def test_the_draws_are_those_of_multinomial():
    scores = torch.randn(6, 40, generator=torch.Generator().manual_seed(5)) * 3
    torch.manual_seed(11)
    expected = torch.multinomial(scores.softmax(-1), 1)[:, 0]
    for live in (torch.arange(6), torch.tensor([1, 4])):
        torch.manual_seed(11)
        assert torch.equal(multinomial(scores[live], live, 6), expected[live])
    torch.manual_seed(11)
    multinomial(scores[:1], torch.tensor([0]), 6)
    after = torch.rand(1)
    torch.manual_seed(11)
    torch.multinomial(scores.softmax(-1), 1)
    assert torch.rand(1) == after


@pytest.mark.parametrize(
    "more",
    [
        {"cache_implementation": "dynamic"},
        {"use_cache": False},
        {"num_beams": 2},
        {"return_dict_in_generate": True},
    ],
)
def test_left_alone(model, more):
    from transformers import GenerationConfig

    config = GenerationConfig(max_new_tokens=2, eos_token_id=2, pad_token_id=0, **more)
    called = []
    generate_shared(model, lambda **call: called.append(call), **prompts(), generation_config=config)
    assert called[0].keys() == {"input_ids", "attention_mask", "generation_config"}
    generate_shared(model, lambda **call: called.append(call), **prompts(), **more)
    assert "custom_generate" not in called[1]


@pytest.mark.parametrize(("original", "shared"), [(8, False), (12, False), (21, False), (40, True)])
@pytest.mark.parametrize("family", ["llama", "phi3"])
@pytest.mark.parametrize("sample", [False, True])
def test_angles_that_depend_on_length_are_generate_s(family, original, shared, sample):
    """The switch lies in the prompt, in the completion, at the last token, or beyond: 9 tokens and 12 more."""
    rope = {"rope_theta": 1e4, "rope_type": "dynamic", "factor": 8.0}
    changes = {"max_position_embeddings": original}
    if family == "phi3":
        rope = rope | {"rope_type": "longrope", "short_factor": [1.0] * 4, "long_factor": [9.0] * 4}
        changes = {"original_max_position_embeddings": original}
    inputs = prompts()
    plain = answers(model_of(family, rope_parameters=dict(rope), **changes), inputs, sample)
    model = model_of(
        family, rope_parameters=dict(rope), **changes
    )  # dynamic angles remember the longest row ever seen
    seen = encoded_tokens(model)
    with shared_prefill(model, "stock"):
        assert torch.equal(answers(model, inputs, sample), plain)
    assert (seen[0] < inputs["input_ids"].numel()) == shared


@pytest.mark.parametrize(
    ("family", "changes", "more"),
    [
        ("qwen2", {}, {"no_repeat_ngram_size": 2}),  # a processor that is not listed
        ("qwen2", {"sliding_window": 4, "use_sliding_window": True, "max_window_layers": 0}, {}),
    ],
)
def test_the_models_own_loop_where_rows_may_not_leave(family, changes, more, monkeypatch):
    model, inputs = model_of(family, **changes), prompts()
    torch.manual_seed(7)
    plain = model.generate(**inputs, max_new_tokens=NEW, do_sample=True, **more)
    monkeypatch.setattr(prefill, "fill_cache", None)
    torch.manual_seed(7)
    with shared_prefill(model, "stock"):
        assert torch.equal(model.generate(**inputs, max_new_tokens=NEW, do_sample=True, **more), plain)


def test_an_adapter_takes_part(model):
    from peft import LoraConfig, get_peft_model
    from transformers import set_seed

    set_seed(0)
    config = LoraConfig(r=2, target_modules="all-linear", init_lora_weights=False)
    adapted, inputs = get_peft_model(model_of(), config), prompts()
    plain = answers(adapted, inputs, True)
    with shared_prefill(adapted, "stock"):
        assert torch.equal(answers(adapted, inputs, True), plain)
    assert not torch.equal(answers(model, inputs, True)[:, : plain.shape[1]], plain)


@pytest.mark.parametrize(("ends", "pad"), [([2, 7, 11], 0), ([2, 7, 11], 7), ((7,), 0), (7, 2)], ids=str)
def test_all_end_tokens_end_a_row(model, ends, pad):
    """Qwen2.5-Instruct ships two end tokens, one of which pads."""
    asked = {"max_new_tokens": NEW, "do_sample": True, "eos_token_id": ends, "pad_token_id": pad}
    torch.manual_seed(7)
    plain = model.generate(**prompts(), **asked)
    torch.manual_seed(7)
    with shared_prefill(model, "stock"):
        assert torch.equal(model.generate(**prompts(), **asked), plain)
    new = plain[:, prompts()["input_ids"].shape[1] :]
    ended = torch.isin(new, torch.tensor(ends)).any(dim=1)
    assert ended.any() and (new[:, -1] == pad)[ended].any(), "a row that ended is padded while others go on"


def test_the_class_method_returns_after_an_error(model):
    with pytest.raises(RuntimeError, match="stop"), shared_prefill(model):
        raise RuntimeError("stop")
    assert "generate" not in vars(model)


def test_what_stood_in_the_models_own_place_returns(model):
    with shared_prefill(model):
        outer = model.generate
        with shared_prefill(model, "stock"):
            assert model.generate is not outer
        assert model.generate is outer
    assert "generate" not in vars(model)


def test_the_mixin_leaves_vllm_alone():
    class Trainer(
        SharedPrefillMixin, type("Stock", (), {"_generate_single_turn": lambda self, *a, **k: (a, k)})
    ):
        use_vllm, use_transformers_continuous_batching, _is_vlm = True, False, False

    assert Trainer()._generate_single_turn(1, x=2) == ((1,), {"x": 2})
