"""The last layer in chunks gives TRL's log-probabilities, entropies and gradients, and never holds all logits.

Run: pytest tests/speed/test_head.py
"""

import pytest

torch = pytest.importorskip("torch")
trl = pytest.importorskip("trl")

from prefix_cases import (  # noqa: E402
    LOSSES,
    RAGGED,
    P,
    R,
    assert_same,
    batch_of,
    both_ways,
    loss_inputs,
    model_of,
    out_of_memory_beyond,
    trainer_of,
)  # fmt: skip

from clinical_r1.speed import head, prefix  # noqa: E402

M, HIDDEN, V = 23, 6, 31


@pytest.fixture
def small_chunks(monkeypatch):
    """So that the tests' few tokens are many chunks; the list of tokens a chunk that were asked for."""
    asked = []

    def chunk(tokens, vocabulary, itemsize, frozen):
        asked.append(tokens)
        return 5

    monkeypatch.setattr(prefix, "chunk_tokens", chunk)
    return asked


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("frozen", [True, False])
@pytest.mark.parametrize(("entropy", "bonus"), [(False, False), (True, False), (True, True)])
@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_chunks_are_the_whole(dtype, frozen, entropy, bonus, temperature):
    draw = torch.Generator().manual_seed(0)
    layer = torch.nn.Linear(HIDDEN, V, dtype=dtype).requires_grad_(not frozen)
    hidden = torch.randn(1, M, HIDDEN, generator=draw).to(dtype).requires_grad_()
    target = torch.randint(V, (1, M), generator=draw)
    weights = torch.randn(1 + bonus, 1, M, generator=draw).to(dtype)
    score = head.scorer(entropy, temperature, bonus)
    results = []
    for size in (None, 1, 5, M):
        if size is None:
            scores = torch.stack(score(layer(hidden), target), dim=-1)
        else:
            with head.scores_for_logits(layer, score, target, size, frozen and not bonus):
                scores = layer(hidden)
        assert scores.shape == (1, M, 1 + entropy)
        loss = sum((w * scores[..., k]).sum() for k, w in enumerate(weights))
        wanted = [hidden, *([] if frozen else layer.parameters())]
        results.append([scores.detach(), *torch.autograd.grad(loss, wanted)])
    assert "forward" not in layer.__dict__
    exact = {torch.float64: 1e-12, torch.float32: 1e-5, torch.bfloat16: 0.05}[dtype]
    for chunked in results[1:]:
        torch.testing.assert_close(chunked, results[0], rtol=exact, atol=exact)


def test_no_tensor_of_all_logits_is_made():
    """The largest tensor, forward and backward, is a chunk's logits."""
    from torch.utils._python_dispatch import TorchDispatchMode

    class Largest(TorchDispatchMode):
        numbers = 0

        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            out = function(*args, **(kwargs or {}))
            for tensor in out if isinstance(out, tuple | list) else [out]:
                if isinstance(tensor, torch.Tensor):
                    self.numbers = max(self.numbers, tensor.numel())
            return out

    wide, tokens, size = 500, 64, 4
    target = torch.zeros(1, tokens, dtype=torch.long)
    for frozen in (True, False):
        layer = torch.nn.Linear(2, wide, bias=False).requires_grad_(not frozen)
        hidden = torch.randn(1, tokens, 2, requires_grad=True)
        with (
            Largest() as seen,
            head.scores_for_logits(layer, head.scorer(True, 1.0, False), target, size, frozen),
        ):
            layer(hidden)[..., 0].sum().backward()
        assert seen.numbers == size * wide


def test_chunks_by_size():
    words, four = 151_936, 4
    assert (
        head.chunk_tokens(100, words, four, True) is None
        and head.chunk_tokens(220, words, four, True) is None
    )
    assert head.chunk_tokens(3000, words, four, True) == 110  # 64 MiB of logits
    assert head.chunk_tokens(3000, words, 2, True) == 220
    assert head.chunk_tokens(3000, words, four, False) is None  # 1.7 GiB
    assert head.chunk_tokens(8000, words, four, False) == 441  # 4.5 GiB
    assert head.chunk_tokens(10, 10**9, four, True) == 1


@pytest.mark.parametrize("loss_type", LOSSES)
@pytest.mark.parametrize("lora", [0, 2])
def test_losses_and_gradients(tmp_path, small_chunks, loss_type, lora):
    made = trainer_of(tmp_path, model_of(), lora=lora, loss_type=loss_type, beta=0.0)
    made.beta = 0.1
    assert_same(made, loss_inputs())
    assert small_chunks


@pytest.mark.parametrize("lora", [0, 2, 32])  # 32: merged for the pass
@pytest.mark.parametrize("checkpointing", [False, True])
def test_entropy_bonus_temperature_and_checkpointing(
    tmp_path, small_chunks, lora, checkpointing, monkeypatch
):
    made = trainer_of(
        tmp_path, model_of(), lora=lora, gradient_checkpointing=checkpointing, temperature=0.7, beta=0.0
    )
    if checkpointing:
        made.model.gradient_checkpointing_enable({"use_reentrant": False})
    made.model.train()
    assert_same(made, loss_inputs())
    for name, value in dict(_entropy_bonus_enabled=True, entropy_coef=0.3, top_entropy_quantile=0.5).items():
        monkeypatch.setattr(made, name, value)
    assert_same(made, loss_inputs())
    assert small_chunks


def test_in_pieces_on_a_small_device(tmp_path, small_chunks):
    """Within a checkpoint of the whole forward pass, whose hooks must not meet the chunks' own graphs."""
    made = trainer_of(tmp_path, model_of(), lora=2, beta=0.0, options={"shared_prefix_threshold": 0})
    inputs = loss_inputs()
    (expected, kept), _ = both_ways(made, inputs)
    made.shared_prefix_threshold = 0
    made.model.zero_grad()
    with out_of_memory_beyond(made.model.get_base_model(), 20):
        loss = made.compute_loss(made.model, inputs)
        loss.backward()
    assert made._row_limit == 4
    torch.testing.assert_close(loss.detach(), expected, rtol=1e-5, atol=1e-6)
    for name, p in made.model.named_parameters():
        if name in kept:
            torch.testing.assert_close(p.grad, kept[name], rtol=1e-4, atol=1e-6)


# What a model does to its logits after the last layer: a scale, a cap, nothing; a bias is the layer's own.
AFTER = {
    "cohere": ({"logit_scale": 0.5}, False),
    "granite": ({"logits_scaling": 2.0}, False),
    "gemma2": ({"final_logit_softcapping": 3.0, "attn_logit_softcapping": None, "sliding_window": 64}, False),
    "phi": ({}, True),
    "llama": ({}, True),
}


@pytest.mark.parametrize("family", AFTER)
def test_a_cap_or_scale_after_the_last_layer_takes_the_logits_whole(tmp_path, small_chunks, family):
    changes, alone = AFTER[family]
    made = trainer_of(tmp_path, model_of(family, **changes), beta=0.0)
    state = torch.get_rng_state()
    assert head.scores_are_left_alone(made.model) == alone
    assert (
        torch.equal(torch.get_rng_state(), state)
        and "forward" not in made.model.get_output_embeddings().__dict__
    )
    assert_same(made, loss_inputs())
    assert bool(small_chunks) == alone


@pytest.mark.parametrize("rank", [2, 32])  # beside the layer, and merged with it
def test_an_adapter_on_the_last_layer(tmp_path, small_chunks, rank):
    from peft import LoraConfig, get_peft_model

    adapter = LoraConfig(r=rank, target_modules=["lm_head", "q_proj"], init_lora_weights=False)
    made = trainer_of(tmp_path, get_peft_model(model_of(tie_word_embeddings=False), adapter), beta=0.0)
    assert_same(made, loss_inputs())
    assert small_chunks and any(
        "lm_head" in n and p.grad is not None for n, p in made.model.named_parameters()
    )


def test_log_probabilities_without_gradients(tmp_path, small_chunks):
    made = trainer_of(tmp_path, model_of(), beta=0.0)
    ids, mask = batch_of(*RAGGED)
    answers = []
    for threshold in (0, float("inf")):
        made.shared_prefix_threshold = threshold
        with torch.no_grad():
            found = made._get_per_token_logps_and_entropies(made.model, ids, mask, R, compute_entropy=True)
        answers.append([value[mask[:, P:].bool()] for value in found[:2]])
    torch.testing.assert_close(*answers, rtol=1e-5, atol=1e-5)
    assert small_chunks
