"""What is checked before a prefix is shared: draws of random numbers, positions, scales, partitions; alike on every process.

Run: pytest tests/speed/test_exactness.py
"""

import json
import logging
import os
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
trl = pytest.importorskip("trl")

from prefix_cases import (  # noqa: E402
    FULL,
    RAGGED,
    P,
    R,
    batch_of,
    falls_back,
    loss_inputs,
    model_of,
    trainer_of,
)  # fmt: skip
from test_multi_process import LAUNCHER, launch  # noqa: E402

from clinical_r1.speed import exactness, prefix, prefix_attention  # noqa: E402
from clinical_r1.speed.prefix import SharedPrefixMixin  # noqa: E402
from clinical_r1.speed.prefix_attention import CannotShare, Layouts, route_for  # noqa: E402


@pytest.fixture(autouse=True)
def heard(caplog, monkeypatch):
    """The module's log reaches caplog, whatever logging an application in an earlier test has set up."""
    monkeypatch.setattr(prefix.log, "disabled", False)
    monkeypatch.setattr(prefix.log, "propagate", True)
    monkeypatch.setattr(logging.root.manager, "disable", 0)
    caplog.set_level(logging.INFO, logger=prefix.__name__)


@pytest.fixture
def every_family_is_new(monkeypatch):
    monkeypatch.setattr(prefix, "VERIFIED_FAMILIES", ())


# --- random numbers


@pytest.mark.parametrize(
    "options", [{"residual_dropout": 0.2}, {"attention_dropout": 0.0, "residual_dropout": 0.2}]
)
def test_dropout_of_any_name_steps_aside_and_stock_draws_what_it_would(tmp_path, options):
    """seed_oss drops by a function and a number of its own: nothing in its modules says so."""
    losses = []
    for mixin in (SharedPrefixMixin, None):
        made = trainer_of(tmp_path, model_of("seed_oss", **options), beta=0.0, mixin=mixin)
        made.model.train()
        made.shared_prefix_threshold = 0
        torch.manual_seed(5)
        losses.append([made.compute_loss(made.model, loss_inputs()).item() for _ in range(2)])
        if mixin:
            assert not exactness.active_dropout(made.model)
            assert made._prefix_reasons == [
                "its forward pass draws random numbers for every row, as dropout does"
            ]
            made.model.eval()  # nothing is dropped there
            made.compute_loss(made.model, loss_inputs())
            assert made._metrics["eval"]["shared_prefix/tokens"][-1] < 1
    assert losses[0] == losses[1] and losses[0][0] != losses[0][1]


def test_a_draw_anywhere_in_the_forward_pass_is_noticed(tmp_path):
    made = trainer_of(tmp_path, model_of(), beta=0.0)
    made.model.train()
    made.model.model.layers[1].mlp.register_forward_hook(lambda module, args, out: out + 0 * torch.rand(1))
    falls_back(made, "draws random numbers")


# --- positions and scales


def off_by_one(monkeypatch):
    packed = SharedPrefixMixin._packed_logps

    def shifted(self, model, layout, *args):
        right = layout.position_ids
        layout.position_ids = right.clone()
        layout.position_ids[0, layout.suffix] += 1
        try:
            return packed(self, model, layout, *args)
        finally:
            layout.position_ids = right

    monkeypatch.setattr(SharedPrefixMixin, "_packed_logps", shifted)


def two_per_cent(monkeypatch):
    attend = prefix_attention.attend

    def scaled(query, key, value, layout, scale=None, route=None):
        return attend(query, key, value, layout, 1.02 * (scale or query.shape[-1] ** -0.5), route)

    monkeypatch.setattr(prefix_attention, "attend", scaled)


FAULTS = {"positions": off_by_one, "scale": two_per_cent}


@pytest.mark.parametrize("family", ["qwen2", "gemma", "cohere", "phi"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("lora", [0, 2])
def test_a_small_fault_is_noticed_in_any_precision(
    tmp_path, monkeypatch, every_family_is_new, family, dtype, lora
):
    """Right is right, and a position off by one or a scale 2 % wrong is not: in float32 arithmetic, whatever it runs in."""
    size = {} if family == "phi" else {"head_dim": 8}

    def trainer():
        made = trainer_of(tmp_path, model_of(family, dtype=dtype, **size), lora=lora, beta=0.0)
        made.model.train()
        made.shared_prefix_threshold = 0
        return made

    right = trainer()
    before = {n: (p.clone(), p.requires_grad) for n, p in right.model.named_parameters()}
    right.compute_loss(right.model, loss_inputs(dtype=dtype))
    assert not right._prefix_reasons
    for name, p in right.model.named_parameters():
        value, required = before[name]
        assert (
            torch.equal(p, value)
            and p.dtype == value.dtype
            and p.requires_grad == required
            and p.grad is None
        )
    for fault in FAULTS.values():
        with monkeypatch.context() as patch:
            fault(patch)
            falls_back(trainer(), rf"{family} model differ in float32 by .* gradients by")


def test_weights_come_back_after_an_error(every_family_is_new):
    model = model_of(dtype=torch.bfloat16)
    kept = dict(model.named_parameters())
    with pytest.raises(CannotShare), exactness.in_float32(model, model) as (call, leaves):
        assert all(leaf.dtype == torch.float32 for leaf in leaves)
        model.lm_head.register_forward_pre_hook(lambda *_: (_ for _ in ()).throw(CannotShare("stop")))
        assert torch.get_float32_matmul_precision() == "highest"
        call(torch.tensor([[1, 2]]))
    assert all(p is kept[name] and p.dtype == torch.bfloat16 for name, p in model.named_parameters())
    assert not any(m._forward_hooks for m in model.modules())


def test_the_reference_is_each_row_alone_without_padding(tmp_path, monkeypatch, every_family_is_new):
    made = trainer_of(tmp_path, model_of(), beta=0.0)
    made.shared_prefix_threshold = 0
    seen = []
    stock = trl.GRPOTrainer._get_per_token_logps_and_entropies

    def spy(self, model, ids, mask, keep, **kwargs):
        seen.append((tuple(ids.shape), mask.all().item(), keep))
        return stock(self, model, ids, mask, keep, **kwargs)

    monkeypatch.setattr(trl.GRPOTrainer, "_get_per_token_logps_and_entropies", spy)
    ids, mask = batch_of(*RAGGED)
    with torch.no_grad():
        made._get_per_token_logps_and_entropies(made.model, ids, mask, R)
    # rows of 9 + 7 and 9 + 3 tokens, then with 5 of the 9 prompt tokens
    assert seen == [((1, 16), True, 7), ((1, 12), True, 3), ((1, 12), True, 7), ((1, 8), True, 3)]


def test_long_completions_are_cut_for_the_comparison(monkeypatch):
    monkeypatch.setattr(exactness, "LONGEST", 4)
    ids, mask = batch_of(*RAGGED)
    (layout,) = Layouts().of(ids, mask, R, len(ids))
    rows, known, keep = exactness.rows_to_verify(ids, mask, R, layout)
    assert keep == 4 and rows.shape == known.shape == (4, P + 4)
    assert torch.equal(rows[:2], ids[:2, : P + 4])


@pytest.mark.slow
def test_faults_in_smollm2_in_bfloat16(tmp_path, monkeypatch, every_family_is_new):
    pytest.importorskip("gguf")
    folder = os.environ.get("CLINICAL_R1_MODELS") or pytest.skip("CLINICAL_R1_MODELS is not set")
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(
        folder, gguf_file="SmolLM2-135M-Instruct.Q4_1.gguf", dtype=torch.bfloat16
    )
    model.is_quantized, model.hf_quantizer = False, None  # its weights are plain numbers by now
    del model.config.quantization_config
    model.model.layers, model.config.num_hidden_layers = model.model.layers[:6], 6
    draw = torch.Generator().manual_seed(0)
    ids = torch.randint(100, 40_000, (2, 24), generator=draw)
    ids[1, :12] = ids[0, :12]
    reasons = []
    for fault in (None, *FAULTS.values()):
        with monkeypatch.context() as patch:
            if fault:
                fault(patch)
            made = trainer_of(tmp_path, model, beta=0.0, options={"shared_prefix_threshold": 0})
            with torch.no_grad():
                made._get_per_token_logps_and_entropies(made.model, ids, torch.ones_like(ids), 12)
        reasons.append(made._prefix_reasons)
    assert reasons[0] == []
    assert all(
        "llama model differ in float32" in reason for _, (reason,) in zip("ps", reasons[1:], strict=True)
    )


# --- what is not a plain model


def test_a_dtensor_is_a_partition():
    model = model_of()
    assert exactness.unshareable(model) is None
    model.model.layers[0].mlp.up_proj.weight.placements = ("Shard(0)",)  # as FSDP's second version has them
    assert "partitioned" in exactness.unshareable(model)


def test_small_heads_few_tokens_and_old_versions_do_not_meet_flexattention(monkeypatch):
    monkeypatch.setattr(prefix_attention.importlib.util, "find_spec", lambda name: True)
    assert route_for("cuda") == "flex"
    assert route_for("cuda", head_size=8) == route_for("cuda", tokens=127) == "sdpa"
    monkeypatch.setattr(torch, "__version__", "2.5.1+cu124")
    assert route_for("cuda") == "sdpa"
    monkeypatch.setattr(torch, "__version__", "2.10.0")
    assert route_for("cuda") == "flex"


def test_quantised_weights_are_compared_as_they_run():
    model = model_of(dtype=torch.bfloat16)
    names = lambda: [name for name, _, _ in exactness.ways_to_verify(model, model)]  # noqa: E731
    assert names() == ["float32", "its own precision"]
    packed = torch.nn.Parameter(torch.zeros(4, 1, dtype=torch.uint8), requires_grad=False)
    model.model.layers[0].mlp.up_proj.weight = packed
    assert names() == ["its own precision"]
    assert [name for name, _, _ in exactness.ways_to_verify(model_of(), model_of())] == ["float32"]


# --- layouts


def test_a_layout_is_found_again_by_its_tokens():
    ids, mask = batch_of(*RAGGED)
    layouts = Layouts(3)
    first = layouts.of(ids, mask, R, 4)
    assert len(first) == 2
    again = layouts.of(ids.clone(), mask.clone(), R, 4)  # other tensors, the same tokens
    assert all(a is b for a, b in zip(first, again, strict=True))
    ids[0, P + 1] += 1  # written over
    other = layouts.of(ids, mask, R, 4)
    assert other[0] is not first[0] and other[1] is first[1]
    assert other[0].input_ids.tolist() != first[0].input_ids.tolist()
    for size in (8, 4):
        layouts.of(*batch_of(*FULL), R, size)
    assert layouts.of(ids, mask, R, 4)[1] is not first[1]  # three are kept
    full = batch_of(*FULL)
    assert layouts.of(*full, R - 1, 4)[0] is not layouts.of(*full, R, 4)[0]
    assert Layouts().of(ids, mask, R, 4)[0] is not Layouts().of(ids, mask, R, 4)[0]


def test_policy_and_old_policy_share_layouts_and_masks(tmp_path, monkeypatch):
    made = []
    packed = prefix_attention.PackedGroups

    class Counted(packed):
        def __init__(self, *args):
            made.append(args)
            super().__init__(*args)

    monkeypatch.setattr(prefix_attention, "PackedGroups", Counted)
    trainer = trainer_of(
        tmp_path, lora=2, num_iterations=2, beta=0.1, per_device_train_batch_size=4, gradient_accumulation_steps=4,
        options={"shared_prefix_threshold": 0},
    )  # fmt: skip
    trainer.train()
    # One group a micro-batch, two steps on the same completions: old policy, reference and both steps meet four layouts.
    assert len(made) == 4


def test_the_block_mask_is_compiled_once_without_the_deprecated_flag(monkeypatch):
    compiled = []
    monkeypatch.setattr(
        torch, "compile", lambda function, **options: compiled.append((function, options)) or function
    )
    prefix_attention._compiled.cache_clear()
    for _ in range(2):
        assert prefix_attention._compiled(len)("ab") == 2
    prefix_attention._compiled.cache_clear()
    assert compiled == [(len, {"dynamic": True})]
    source = Path(prefix_attention.__file__).read_text(encoding="utf-8")
    assert "_compile=" not in source and '"_compile"' not in source


# --- measured at first use


@pytest.mark.parametrize(("seconds", "shared"), [([3.0, 1.0], True), ([1.0, 1.0], False)])
def test_the_prediction_is_corrected_by_the_first_micro_batch(tmp_path, monkeypatch, caplog, seconds, shared):
    made = trainer_of(tmp_path, model_of(), beta=0.0, options={"shared_prefix_measure": True})
    calls = []

    def in_turn(runs, device):
        assert all(run()[0].shape == (8, R) for run in runs)  # both ways run, on the real rows
        calls.append(device.type)
        return seconds

    monkeypatch.setattr(prefix, "seconds_in_turn", in_turn)
    for _ in range(2):
        made.compute_loss(made.model, loss_inputs(FULL))
        assert (made._metrics["train"]["shared_prefix/tokens"][-1] < 1) == shared
    assert calls == ["cpu"]
    assert (
        f"{seconds[0] / seconds[1]:.2f} times stock's speed on the first micro-batch, predicted 0."
        in caplog.text
    )
    state = made._state(made.model)
    made.compute_loss(
        made.model, loss_inputs(RAGGED)
    )  # another size: its own prediction, the same correction
    assert calls == ["cpu"] and state["speed"] > 1


def test_both_ways_take_turns_without_gradients():
    from clinical_r1.speed.cost import seconds_in_turn

    order = []

    def run(name):
        assert not torch.is_grad_enabled()
        order.append(name)

    found = seconds_in_turn([lambda: run("a"), lambda: run("b")], torch.device("cpu"), rounds=2)
    assert order == ["a", "b"] * 3 and len(found) == 2 and min(found) >= 0


# --- two processes


@pytest.mark.slow
def test_two_processes_decide_alike(tmp_path):
    problem = launch(
        [*LAUNCHER, str(Path(__file__).parents[1] / "two_ranks.py"), str(tmp_path)], tmp_path / "log"
    )
    assert not problem, problem
    first, second = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in (0, 1))
    assert first["processes"] == second["processes"] == 2
    assert first["gradient"] == pytest.approx(second["gradient"], abs=1e-6)
    shared = {"as they are", "again", "a new family", "a new family, again"}
    for name, (tokens, difference, _) in first["calls"].items():
        other, far, _ = second["calls"][name]
        assert (tokens < 1, other < 1) == (name in shared,) * 2, name
        assert max(difference, far) < 1e-5, name
    reasons = [run["calls"]["a batch of one cannot be packed"][2] for run in (first, second)]
    assert reasons[0] == prefix.OTHER_PROCESS and "right-padded" in reasons[1]
    assert "differ in float32" in second["calls"]["a new family that differs on one"][2]
