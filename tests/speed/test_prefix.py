"""Shared-prefix training equals stock TRL: log-probabilities, entropies, losses, gradients, steps; and steps aside otherwise.

Run: pytest tests/speed/test_prefix.py
"""

import logging
from types import SimpleNamespace

import pytest

from clinical_r1.speed import prefix
from clinical_r1.speed.exactness import rope_limit, unshareable
from clinical_r1.speed.prefix import SharedPrefixMixin, check_groups, shuffle_groups
from clinical_r1.speed.prefix_attention import CannotShare, PackedGroups, attend

torch = pytest.importorskip("torch")
trl = pytest.importorskip("trl")
from prefix_cases import (  # noqa: E402
    FULL,
    LOSSES,
    RAGGED,
    P,
    R,
    assert_same,
    batch_of,
    falls_back,
    loss_inputs,
    model_of,
    out_of_memory_beyond,
    trainer_of,
)  # fmt: skip


def dense_mask(layout):
    """(T, T) True where a query may see a key, pair by pair from the groups: the definition."""
    segment = torch.zeros(layout.tokens, dtype=torch.long)
    for number, (index, valid) in enumerate(zip(layout.own, layout.valid, strict=True), start=1):
        segment[index[valid]] = number
    allowed = torch.zeros(layout.tokens, layout.tokens, dtype=torch.bool)
    for a, _, c in layout.groups:
        for query in range(a, c):
            for key in range(a, query + 1):
                allowed[query, key] = segment[key] == 0 or segment[key] == segment[query]
    return allowed


@pytest.fixture(autouse=True)
def heard(caplog, monkeypatch):
    """The module's log reaches caplog, whatever logging an application in an earlier test has set up."""
    monkeypatch.setattr(prefix.log, "disabled", False)
    monkeypatch.setattr(prefix.log, "propagate", True)
    monkeypatch.setattr(logging.root.manager, "disable", 0)
    caplog.set_level(logging.INFO, logger=prefix.__name__)


# --- layout and attention


def test_every_token_that_predicts_stands_once():
    ids, mask = batch_of(*RAGGED)
    layout = PackedGroups(ids, mask, R)
    groups, prompts, lengths = RAGGED
    assert layout.tokens == sum(prompts) + sum(max(n - 1, 0) for n in lengths)
    assert layout.sizes() == [(9, lengths[:4]), (6, lengths[4:])]
    assert layout.longest == max(9 + 7, 6 + 7)
    assert layout.input_ids.tolist() == [ids.flatten()[layout.source].tolist()]
    assert sorted(layout.cell.tolist()) == [r * R + t for r, n in enumerate(lengths) for t in range(n)]
    # The token before each completion token in its own row is the one that predicts it.
    cells = layout.cell.tolist()
    before = [ids[c // R, P + c % R - 1].item() for c in cells]
    assert layout.input_ids[0, layout.predict].tolist() == before
    assert layout.position_ids[0, layout.predict].tolist() == [P + c % R - 1 for c in cells]


@pytest.mark.parametrize("case", [RAGGED, FULL, ([1, 1, 1], [9, 5, 9], [3, 2, 1])])
@pytest.mark.parametrize("route", ["flash", "sdpa"])
@pytest.mark.parametrize("heads", [(4, 4), (6, 2)])
def test_attention_equals_its_definition(case, route, heads):
    layout = PackedGroups(*batch_of(*case), R)
    draw = torch.Generator().manual_seed(1)
    shape = lambda h: torch.randn(1, h, layout.tokens, 8, generator=draw, dtype=torch.float64)  # noqa: E731
    tensors = [shape(heads[0]), shape(heads[1]), shape(heads[1])]
    for tensor in tensors:
        tensor.requires_grad_()
    query, key, value = tensors
    repeats = heads[0] // heads[1]
    scores = query @ key.repeat_interleave(repeats, 1).transpose(-1, -2) * 0.3
    weights = scores.masked_fill(~dense_mask(layout), float("-inf")).softmax(-1)
    expected = weights @ value.repeat_interleave(repeats, 1)
    got = attend(query, key, value, layout, 0.3, route)
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-13)
    upstream = torch.randn(got.shape, generator=draw, dtype=torch.float64)
    for ours, theirs in zip(
        torch.autograd.grad(got, tensors, upstream),
        torch.autograd.grad(expected, tensors, upstream),
        strict=True,
    ):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-12)


@pytest.mark.filterwarnings(
    "ignore:flex_attention called without torch.compile"
)  # there is no CPU backward either
def test_flex_attention_has_the_same_mask():
    layout = PackedGroups(*batch_of(*RAGGED), R)
    draw = torch.Generator().manual_seed(1)
    query, key = (torch.randn(1, h, layout.tokens, 16, generator=draw) for h in (4, 2))
    ours = attend(query, key, key, layout, route="flex")
    torch.testing.assert_close(ours, attend(query, key, key, layout, route="flash"), rtol=0, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_stays_near(dtype):
    layout = PackedGroups(*batch_of(*RAGGED), R)
    tensors = [
        torch.randn(1, 2, layout.tokens, 8, generator=torch.Generator().manual_seed(i)) for i in range(3)
    ]
    expected = attend(*tensors, layout)
    got = attend(*(tensor.to(dtype) for tensor in tensors), layout)
    assert got.dtype == dtype
    torch.testing.assert_close(got.float(), expected, rtol=0, atol=0.03)


def test_what_cannot_be_packed():
    ids, mask = batch_of(*RAGGED)
    holes = mask.clone()
    holes[0, P + 1] = 0
    with pytest.raises(CannotShare, match="right-padded"):
        PackedGroups(ids, holes, R)
    empty = mask.clone()
    empty[:, P:] = 0
    with pytest.raises(CannotShare, match="no completion"):
        PackedGroups(ids, empty, R)
    empty = mask.clone()
    empty[:, :P] = 0
    with pytest.raises(CannotShare, match="prompt is empty"):
        PackedGroups(ids, empty, R)
    layout = PackedGroups(ids, mask, R)
    tensor = torch.zeros(1, 1, layout.tokens, 4)
    with pytest.raises(ValueError, match="route 'dense' is not known; expected one of flash, flex, sdpa"):
        attend(tensor, tensor, tensor, layout, route="dense")


# --- the trainer


@pytest.fixture(scope="module")
def trainer(tmp_path_factory):
    return trainer_of(tmp_path_factory.mktemp("trainer"), model_of(), beta=0.0)


@pytest.mark.parametrize("loss_type", LOSSES)
@pytest.mark.parametrize("level", ["token", "sequence"])
@pytest.mark.parametrize("beta", [0.0, 0.1])
def test_every_loss_of_trl(trainer, loss_type, level, beta, monkeypatch):
    for name, value in dict(loss_type=loss_type, importance_sampling_level=level, beta=beta).items():
        monkeypatch.setattr(trainer, name, value)
    assert_same(trainer, loss_inputs())


def test_entropy_bonus_and_entropy_mask(trainer, monkeypatch):
    for name, value in dict(_entropy_bonus_enabled=True, entropy_coef=0.3, top_entropy_quantile=0.5).items():
        monkeypatch.setattr(trainer, name, value)
    assert_same(trainer, loss_inputs())


@pytest.mark.parametrize("case", [RAGGED, FULL, ([2, 2, 2, 2], [9, 9, 4, 5], [3] * 8)])
def test_groups_of_any_shape_in_double_precision(tmp_path, case):
    model = model_of(dtype=torch.float64)
    # transformers rounds to float32 inside every RMSNorm, G times for a prompt that stands G times: exact norms here.
    for module in list(model.modules()):
        for name, child in module.named_children():
            if type(child).__name__ == "Qwen2RMSNorm":
                exact = torch.nn.RMSNorm(32, eps=child.variance_epsilon, dtype=torch.float64)
                setattr(module, name, exact)
    double = trainer_of(tmp_path, model, beta=0.0)
    assert_same(double, loss_inputs(case, dtype=torch.float64), torch.float64)


@pytest.mark.parametrize("route", ["flash", "sdpa"])
@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("lora", [0, 2, 32], ids="rank {}".format)
def test_adapters_and_gradient_checkpointing(tmp_path, route, checkpointing, lora):
    options = {"shared_prefix_route": route}
    made = trainer_of(tmp_path, model_of(), lora=lora, options=options, gradient_checkpointing=checkpointing)
    if checkpointing:  # as Trainer.train does before the first step
        made.model.gradient_checkpointing_enable({"use_reentrant": False})
    made.model.train()
    assert_same(made, loss_inputs())


@pytest.mark.parametrize("temperature", [0.7, 1.0])
def test_log_probabilities_and_entropies(trainer, monkeypatch, temperature):
    monkeypatch.setattr(trainer, "temperature", temperature)
    ids, mask = batch_of(*RAGGED)
    results = []
    for threshold in (0, float("inf")):
        trainer.shared_prefix_threshold = threshold
        with torch.no_grad():
            results.append(
                trainer._get_per_token_logps_and_entropies(
                    trainer.model, ids, mask, R, batch_size=4, compute_entropy=True
                )
            )
    for ours, stock in zip(*results, strict=True):
        if stock is not None:
            torch.testing.assert_close(ours, stock, rtol=1e-5, atol=1e-5)
    assert results[0][0][2].abs().max() == 0  # a completion without tokens


def test_chunks_may_cut_a_group(trainer):
    ids, mask = batch_of(*RAGGED)
    trainer.shared_prefix_threshold = 0
    answers = [
        trainer._get_per_token_logps_and_entropies(trainer.model, ids, mask, R, batch_size=size)[0]
        for size in (None, 2, 3)
    ]
    torch.testing.assert_close(answers[0], answers[1], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(answers[0], answers[2], rtol=1e-5, atol=1e-5)


FAMILIES = {
    "qwen3": {},
    "llama": {},
    "mistral": {"sliding_window": None},
    "gemma": {},
    "phi3": {"original_max_position_embeddings": 64},
    "olmo2": {},
    "smollm3": {},
    "granite": {},
    "starcoder2": {"sliding_window": None},
    "cohere": {},
}


@pytest.mark.parametrize("family", FAMILIES)
def test_other_families(tmp_path, family, caplog):
    made = trainer_of(tmp_path, model_of(family, **FAMILIES[family]), beta=0.0)
    with caplog.at_level(logging.INFO, logger=prefix.__name__):
        assert_same(made, loss_inputs())
    met = family in prefix.VERIFIED_FAMILIES
    assert met == ("verified" not in caplog.text)


# --- stepping aside


def test_falls_back_where_it_would_not_be_exact(tmp_path, caplog):
    window = {"sliding_window": 8, "use_sliding_window": True, "max_window_layers": 0}
    falls_back(
        trainer_of(tmp_path, model_of(**window), beta=0.0),
        "sliding window of 8 tokens is shorter than a row of 16",
    )
    dropout = trainer_of(tmp_path, model_of(attention_dropout=0.1), beta=0.0)
    dropout.model.train()
    falls_back(dropout, "dropout of 0.1")
    eager = model_of()
    eager.set_attn_implementation("eager")
    falls_back(
        trainer_of(tmp_path, eager, beta=0.0), "attn_implementation is 'eager'; load the model with 'sdpa'"
    )
    older = trainer_of(tmp_path, model_of("stablelm"), beta=0.0)
    falls_back(older, "StableLmForCausalLM has an attention of its own")
    assert caplog.text.count("left to the stock trainer") == 4


def test_a_window_longer_than_every_row_is_no_window(tmp_path):
    window = {"sliding_window": 40, "use_sliding_window": True, "max_window_layers": 0}
    assert_same(trainer_of(tmp_path, model_of(**window), beta=0.0), loss_inputs())


def test_falls_back_where_it_would_not_pay(trainer):
    lone = loss_inputs(([1] * 8, [9] * 8, [7] * 8))
    falls_back(trainer, r"predicted speed-up 0\.\d\d is under 1\.15", lone, threshold=1.15)


def test_an_unknown_family_that_differs_is_left_alone(tmp_path, monkeypatch):
    monkeypatch.setattr(prefix, "VERIFIED_FAMILIES", ())
    wrong = trainer_of(tmp_path, model_of(), beta=0.0)
    packed = SharedPrefixMixin._packed_logps
    monkeypatch.setattr(
        SharedPrefixMixin, "_packed_logps", lambda self, *args: (packed(self, *args)[0] + 0.01, None)
    )
    falls_back(
        wrong, r"log-probabilities of a qwen2 model differ in float32 by 0\.01 on average, 0\.01 at most"
    )


def test_layers_outside_the_interface_are_noticed(tmp_path, monkeypatch):
    made = trainer_of(tmp_path, model_of(), beta=0.0)
    made.model.model.layers[1].self_attn.forward = lambda hidden_states, **_: (hidden_states, None)
    falls_back(made, "1 of its 2 layers use transformers' attention interface")


# Other ways of knowing a token's place. OPT counts positions from the mask; stock's GPT-2 counts padding as well, so a row
# alone has other log-probabilities; the angles of GPT-NeoX and Phi depend on distances only; Bloom and MPT add a bias to the
# scores, in an attention of their own.
QUIET_LAYERS = dict(
    attention_dropout=0.0, hidden_dropout=0.0, dropout=0.0, layerdrop=0.0, resid_pdrop=0.0, embd_pdrop=0.0,
    attn_pdrop=0.0,
)  # fmt: skip
PLACES = {
    "opt": (dict(ffn_dim=48, word_embed_proj_dim=32), "opt model differ"),
    "gpt2": (dict(n_embd=32, n_layer=2, n_head=4, n_positions=64), "gpt2 model differ"),
    "gpt_neox": ({}, None),
    "phi": ({}, None),
    "bloom": (dict(n_layer=2, n_head=4), "attn_implementation is 'eager'"),
    "mpt": (dict(d_model=32, n_layers=2, n_heads=4, max_seq_len=64), "attn_implementation is 'eager'"),
}


@pytest.mark.parametrize("family", PLACES)
@pytest.mark.parametrize("frozen", [False, True])
def test_a_first_batch_without_padding_says_nothing_of_later_ones(tmp_path, family, frozen):
    """The first micro-batch is not padded; whatever is decided from it must hold for the left-padded second one."""
    changes, reason = PLACES[family]
    eager = {"implementation": "eager"} if reason and "eager" in reason else {}
    made = trainer_of(tmp_path, model_of(family, **QUIET_LAYERS, **changes, **eager), beta=0.0)
    # In training OPT draws a number for every layer that it might drop, though it drops none.
    made.model.train(family != "opt").requires_grad_(not frozen)
    made.shared_prefix_threshold = 0
    answers = []
    for case in (FULL, RAGGED):
        ids, mask = batch_of(*case)
        with torch.no_grad():
            ours, _, _ = made._get_per_token_logps_and_entropies(made.model, ids, mask, R)
            stock, _, _ = trl.GRPOTrainer._get_per_token_logps_and_entropies(made, made.model, ids, mask, R)
        answers.append((ours - stock)[mask[:, P:].bool()].abs().max().item())
    assert max(answers) < 1e-5
    if reason is None:
        assert not made._prefix_reasons
    else:
        assert len(made._prefix_reasons) == 1 and reason in made._prefix_reasons[0]
    assert all(p.requires_grad != frozen for p in made.model.parameters())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_positions_off_by_one_are_noticed_in_any_precision(tmp_path, monkeypatch, dtype, checkpointing):
    monkeypatch.setattr(prefix, "VERIFIED_FAMILIES", ())

    def trainer():
        made = trainer_of(tmp_path, model_of(dtype=dtype), beta=0.0, gradient_checkpointing=checkpointing)
        if checkpointing:
            made.model.gradient_checkpointing_enable(made.args.gradient_checkpointing_kwargs)
        made.model.train()
        return made

    right = trainer()
    right.shared_prefix_threshold = 0
    right.compute_loss(right.model, loss_inputs(dtype=dtype))
    assert not right._prefix_reasons
    packed = SharedPrefixMixin._packed_logps

    def shifted(self, model, layout, *args):
        layout.position_ids = layout.position_ids.clone()
        layout.position_ids[0, layout.suffix] += 1
        return packed(self, model, layout, *args)

    monkeypatch.setattr(SharedPrefixMixin, "_packed_logps", shifted)
    falls_back(trainer(), "gradients by")


ROPE = {
    "phi3": dict(
        original_max_position_embeddings=16, max_position_embeddings=64,
        rope_parameters={"rope_type": "longrope", "rope_theta": 1e4, "short_factor": [1.0] * 4, "long_factor": [3.0] * 4},
    ),
    "llama": dict(max_position_embeddings=16, rope_parameters={"rope_type": "dynamic", "rope_theta": 1e4, "factor": 4.0}),
    "qwen2": dict(
        max_position_embeddings=64,
        rope_parameters={"rope_type": "yarn", "rope_theta": 1e4, "factor": 4.0, "original_max_position_embeddings": 16},
    ),
}  # fmt: skip


@pytest.mark.parametrize("family", ROPE)
def test_angles_that_depend_on_length_are_shared_below_their_switch_only(tmp_path, family):
    """A row of 15 tokens is under the original 16, one of 17 is not; Yarn's angles are the same at every length."""
    made = trainer_of(tmp_path, model_of(family, **ROPE[family]), beta=0.0)
    made.shared_prefix_threshold = 0
    moves = family != "qwen2"
    for tokens, shared in ((15, True), (16, not moves), (17, not moves), (15, True)):
        ids, mask = batch_of([4, 4], [9, 6], [7, 3, 0, 1, 2, 7, 5, 4])
        if tokens == 15:
            ids, mask = ids[:, 1:], mask[:, 1:]
        elif tokens == 17:
            ids, mask = (torch.nn.functional.pad(x, (1, 0)) for x in (ids, mask))
        with torch.no_grad():
            ours, _, _ = made._get_per_token_logps_and_entropies(made.model, ids, mask, R)
            stock, _, _ = trl.GRPOTrainer._get_per_token_logps_and_entropies(made, made.model, ids, mask, R)
        torch.testing.assert_close(ours * mask[:, -R:], stock * mask[:, -R:], rtol=0, atol=1e-5)
        assert (made._metrics["train"]["shared_prefix/tokens"][-1] < 1) == shared
    reason = "from 16 tokens on, rotary angles depend on the length of the padded batch"
    assert made._prefix_reasons == ([reason] if moves else [])  # once


def test_the_length_from_which_angles_move():
    def config(**rope):
        return SimpleNamespace(max_position_embeddings=100, rope_parameters=rope)

    assert rope_limit(config(rope_type="default")) is None and rope_limit(SimpleNamespace()) is None
    assert rope_limit(config(rope_type="dynamic")) == 100
    two = {
        "full": {"rope_type": "longrope", "original_max_position_embeddings": 40},
        "local": {"rope_type": "default"},
    }
    assert rope_limit(config(**two)) == 40


def test_partitioned_weights_and_small_heads_step_aside(tmp_path):
    made = trainer_of(tmp_path, model_of(), beta=0.0)
    inputs = loss_inputs()
    whole = {name: p.data for name, p in made.model.named_parameters()}
    for name, p in made.model.named_parameters():
        if "layers" in name and p.ndim == 2:
            p.data = torch.empty(0)  # as DeepSpeed's third stage leaves them between calls
    assert "partitioned" in unshareable(made.model)
    for name, p in made.model.named_parameters():
        p.data = whole[name]
    flex = trainer_of(tmp_path, model_of(), beta=0.0, options={"shared_prefix_route": "flex"})
    falls_back(flex, "FlexAttention needs 16 dimensions a head, and queries have 8", inputs)


def test_micro_batches_that_cut_groups_unequally(tmp_path):
    with pytest.raises(ValueError, match="per_device_train_batch_size 6 and num_generations 4"):
        trainer_of(tmp_path, per_device_train_batch_size=6, gradient_accumulation_steps=2)


def test_a_group_cut_between_processes(tmp_path, monkeypatch):
    arguments = trl.GRPOConfig

    def two_processes(**kwargs):  # TRL itself checks the rows of all processes together
        config = arguments(**kwargs)
        config.steps_per_generation = 1
        return config

    monkeypatch.setattr(trl, "GRPOConfig", two_processes)
    with pytest.raises(ValueError, match="2 rows a pass times 1 passes cut a group of 4 between processes"):
        trainer_of(tmp_path, per_device_train_batch_size=2, gradient_accumulation_steps=2)


def test_rows_of_a_group_must_share_their_prompt():
    ids, mask = batch_of(*RAGGED)
    check_groups(ids[:, :P], mask[:, :P], 4)
    other = ids.clone()
    other[5, P - 1] += 1
    with pytest.raises(
        ValueError, match=r"rows 4\.\.7 of the batch are one group but differ in their prompt"
    ):
        check_groups(other[:, :P], mask[:, :P], 4)
    with pytest.raises(ValueError, match="8 completions is not a multiple of num_generations 3"):
        check_groups(ids[:, :P], mask[:, :P], 3)


# --- shuffling and whole steps


def test_the_shuffle_keeps_groups_and_draws_once():
    rows = 12
    batch = {
        "prompt_ids": torch.arange(rows)[:, None],
        "x": list(range(rows)),
        "n": torch.tensor(5),
        "none": None,
    }
    torch.manual_seed(4)
    shuffled = shuffle_groups(batch, 3)
    after = torch.rand(1)
    order = shuffled["x"]
    assert sorted(order) == list(range(rows)) and order != sorted(order)
    assert all(order[i : i + 3] == list(range(order[i], order[i] + 3)) for i in range(0, rows, 3))
    assert shuffled["prompt_ids"][:, 0].tolist() == order
    assert shuffled["n"] == 5 and shuffled["none"] is None
    torch.manual_seed(4)
    torch.randperm(rows)  # what TRL draws
    assert torch.rand(1) == after


@pytest.mark.parametrize(
    "rank", [2, 32]
)  # beside the layers, and merged: less work in layers as small as these
@pytest.mark.parametrize(
    "changes", [{}, {"num_iterations": 2, "beta": 0.1}, {"per_device_train_batch_size": 4}]
)
def test_two_training_steps_end_in_the_same_weights(tmp_path, changes, rank):
    """Generation, rewards, shuffle, micro-batches and optimiser, with and without the mixin."""
    size = {"gradient_accumulation_steps": 16 // changes.get("per_device_train_batch_size", 8)}
    ends = []
    for mixin in (None, SharedPrefixMixin):
        options = {"shared_prefix_threshold": 0} if mixin else None
        made = trainer_of(tmp_path, lora=rank, mixin=mixin, options=options, **(size | changes))
        made.train()
        logs = made.state.log_history
        ends.append(({n: p.detach() for n, p in made.model.named_parameters() if p.requires_grad}, logs))
    assert max(row.get("shared_prefix/tokens", 0) for row in ends[1][1]) < 1
    assert ends[0][1][0]["reward"] == ends[1][1][0]["reward"]
    for name, stock in ends[0][0].items():
        torch.testing.assert_close(ends[1][0][name], stock, rtol=1e-3, atol=1e-4, msg=name)


# --- too small a device


@pytest.mark.parametrize("threshold", [0, float("inf")])
def test_out_of_memory_in_the_forward_pass_halves_and_changes_nothing(tmp_path, caplog, threshold):
    made = trainer_of(tmp_path, model_of(), beta=0.0, options={"shared_prefix_threshold": threshold})
    inputs = loss_inputs()

    def result():
        made.model.zero_grad()
        loss = made.compute_loss(made.model, inputs)
        loss.backward()
        return loss.detach(), [p.grad.clone() for p in made.model.parameters()]

    expected = result()
    with out_of_memory_beyond(made.model, 20 if threshold == 0 else 40):
        got = result()
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-6)
    assert caplog.text.count("out of memory with 8 rows in a forward pass: going on with 4 at a time") == 1
    assert made._row_limit == (4 if threshold == 0 else 2) and "And more" not in caplog.text


def test_out_of_memory_that_halving_cannot_avoid(tmp_path, monkeypatch):
    made = trainer_of(tmp_path, model_of(), beta=0.0)
    with out_of_memory_beyond(made.model, 3):
        with pytest.raises(torch.OutOfMemoryError):  # one row is too much
            made.compute_loss(made.model, loss_inputs())
        made._row_limit = None
        monkeypatch.setattr(type(made.accelerator), "num_processes", 2)
        monkeypatch.setattr(prefix, "agreed", lambda values, accelerator: values)  # nobody answers
        with pytest.raises(RuntimeError, match="on one of 2 processes; start again from the last checkpoint"):
            made.compute_loss(made.model, loss_inputs())


@pytest.mark.parametrize(("lora", "failing"), [(2, 1), (2, 2), (0, 2)])
def test_out_of_memory_in_the_backward_pass_repeats_the_step(tmp_path, caplog, lora, failing):
    """First or second micro-batch of the first step: gradients are kept, completions not drawn again, logs whole."""
    ends = []
    for fails in (False, True):
        made = trainer_of(
            tmp_path, lora=lora, gradient_accumulation_steps=2, options={"shared_prefix_threshold": 0}
        )
        calls = []

        def once(gradient, calls=calls, fails=fails):
            calls.append(gradient)
            if fails and len(calls) == failing:
                raise torch.OutOfMemoryError("CUDA out of memory.")

        trained = [p for p in made.model.parameters() if p.requires_grad]
        trained[0].register_hook(once)
        made.train()
        ends.append(([p.detach() for p in trained], made.state.log_history))
    assert "going on with 4 at a time" in caplog.text
    torch.testing.assert_close(ends[0][0], ends[1][0], rtol=1e-3, atol=1e-4)
    for plain, again in zip(ends[0][1][:2], ends[1][1][:2], strict=True):
        assert plain["reward"] == again["reward"]
        assert plain["entropy"] == pytest.approx(again["entropy"], rel=1e-4)


def test_out_of_memory_in_the_rollouts_is_not_retried(tmp_path, monkeypatch):
    made = trainer_of(tmp_path, gradient_accumulation_steps=2)
    turns = []

    def generate(self, *args, **kwargs):
        turns.append(args)
        if len(turns) == 2:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return stock(self, *args, **kwargs)

    stock = trl.GRPOTrainer._generate_single_turn
    monkeypatch.setattr(trl.GRPOTrainer, "_generate_single_turn", generate)
    with pytest.raises(torch.OutOfMemoryError):  # and not the first step's completions again
        made.train()
    assert made.state.global_step == 1 and made._row_limit is None


def test_a_full_model_whose_gradients_were_spoilt_says_so(tmp_path, monkeypatch):
    made = trainer_of(tmp_path, gradient_accumulation_steps=2, options={"shared_prefix_threshold": 0})
    monkeypatch.setattr(
        SharedPrefixMixin, "_kept_gradients", lambda self, model: []
    )  # as on a GPU without an adapter
    calls = []

    def once(gradient):
        calls.append(gradient)
        if len(calls) == 2:
            raise torch.OutOfMemoryError("CUDA out of memory.")

    list(made.model.parameters())[-1].register_hook(once)
    with pytest.raises(RuntimeError, match="start again from the last checkpoint with half the micro_batch"):
        made.train()
