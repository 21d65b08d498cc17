"""The losses of the preference stage: written out in plain Python, and TRL's own on the same numbers.

One pair: log pi(chosen), log pi(rejected) = -12, -15; under the reference -13, -14; 6 and 8 tokens.

Run: pytest tests/preferences/test_losses.py
"""

import math
import types
from dataclasses import replace

import pytest

from clinical_r1.preferences.recipe import LOSSES, SMOOTHED, Recipe, recipe_of

CHOSEN, REJECTED, REF_CHOSEN, REF_REJECTED = -12.0, -15.0, -13.0, -14.0
TOKENS = (6, 8)
GOLDEN = {  # loss -> (at beta 0.1, at beta 0.5)
    "sigmoid": (0.598139, 0.313262),
    "hinge": (0.8, 0.0),
    "robust": (0.573139, 0.188262),  # label_smoothing 0.1
    "ipo": (22.168403, 0.501736),
    "apo_zero": (0.950042, 0.755081),
    "apo_down": (0.975145, 0.891401),
    "sigmoid_norm": (0.678670, 0.622887),
    "sft": (2.0, 2.0),
}
SLOPE = (-0.045017, -0.134471)  # of "sigmoid" by log pi(chosen)
BETAS = (0.1, 0.5)


def sigma(x):
    return 1 / (1 + math.exp(-x))


def literal(loss, beta, chosen=CHOSEN):
    """DPO (arXiv 2305.18290), SLiC's hinge, robust DPO (2403.00409), IPO per token (2310.12036), APO (2408.06266)."""
    c, r = chosen - REF_CHOSEN, REJECTED - REF_REJECTED
    margin = c - r
    per_token = c / TOKENS[0] - r / TOKENS[1]
    smoothing = 0.1
    if loss == "sigmoid":
        return -math.log(sigma(beta * margin))
    if loss == "hinge":
        return max(0.0, 1 - beta * margin)
    if loss == "robust":
        right, wrong = -math.log(sigma(beta * margin)), -math.log(sigma(-beta * margin))
        return ((1 - smoothing) * right - smoothing * wrong) / (1 - 2 * smoothing)
    if loss == "ipo":
        return (per_token - 1 / (2 * beta)) ** 2
    if loss == "apo_zero":
        return 1 - sigma(beta * c) + sigma(beta * r)
    if loss == "apo_down":
        return sigma(beta * c) + 1 - sigma(beta * (c - r))
    if loss == "sigmoid_norm":
        return -math.log(sigma(beta * per_token))
    return -chosen / TOKENS[0]  # sft


@pytest.mark.parametrize("loss", GOLDEN)
@pytest.mark.parametrize("at", [0, 1])
def test_the_equations_give_the_golden_numbers(loss, at):
    assert literal(loss, BETAS[at]) == pytest.approx(GOLDEN[loss][at], abs=6e-7)


@pytest.mark.parametrize("at", [0, 1])
def test_the_slope_by_the_chosen(at):
    beta, step = BETAS[at], 1e-5
    slope = (literal("sigmoid", beta, CHOSEN + step) - literal("sigmoid", beta, CHOSEN - step)) / (2 * step)
    assert slope == pytest.approx(SLOPE[at], abs=1e-6)
    assert slope == pytest.approx(-beta * sigma(-beta * 2))  # the margin is 2


# ---- TRL's own


@pytest.fixture(scope="module")
def trainer(tmp_path_factory):
    """The stage's own trainer on the shipped model, as `preferences.train` builds it."""
    from clinical_r1.models import CLINIC_BASE, load
    from clinical_r1.preferences.train import dpo_arguments, preference_trainer
    from clinical_r1.settings import SMOKE

    model, tokenizer, adapter = load(CLINIC_BASE, SMOKE, 0)
    row = {"prompt": [{"role": "user", "content": "fever"}]}
    for side, text in (("chosen", "cough"), ("rejected", "rash")):
        row[side] = [{"role": "assistant", "content": text}]
    arguments = dpo_arguments(replace(SMOKE, sft_batch=2), Recipe(), 0, tmp_path_factory.mktemp("dpo"), 2)
    return preference_trainer(model, tokenizer, [row] * 2, arguments, adapter)


def losses_of(trainer, loss_types, weights, beta, smoothing=0.0):
    """(loss, its slope by log pi(chosen)) of TRL's trainer, whose model is replaced by one of known log-probabilities."""
    import torch

    chosen = torch.tensor(CHOSEN, dtype=torch.float64, requires_grad=True)
    width = 1 + max(TOKENS)
    mask = torch.zeros(2, width, dtype=torch.long)
    for row, count in enumerate(TOKENS):
        mask[row, 1 : 1 + count] = 1

    def model(**inputs):
        rejected = torch.tensor(REJECTED / TOKENS[1], dtype=torch.float64)
        said = torch.stack([chosen / TOKENS[0], rejected])  # of each token
        other = torch.log1p(-said.exp())
        return types.SimpleNamespace(logits=torch.stack([other, said], dim=1)[:, None].expand(2, width, 2))

    trainer.loss_types, trainer.loss_weights = list(loss_types), list(weights)
    trainer.beta, trainer.label_smoothing, trainer.precompute_ref_logps = beta, smoothing, True
    inputs = {
        "input_ids": torch.ones(2, width, dtype=torch.long),
        "attention_mask": torch.ones(2, width, dtype=torch.long),
        "completion_mask": mask,
        "ref_chosen_logps": torch.tensor([REF_CHOSEN], dtype=torch.float64),
        "ref_rejected_logps": torch.tensor([REF_REJECTED], dtype=torch.float64),
    }
    loss = trainer._compute_loss(model, inputs, False)
    loss.backward()
    return loss.item(), chosen.grad.item()


@pytest.mark.parametrize("loss", GOLDEN)
@pytest.mark.parametrize("at", [0, 1])
def test_trls_own_losses_give_the_golden_numbers(trainer, loss, at):
    smoothing = 0.1 if loss == "robust" else 0.0
    got, _ = losses_of(trainer, [loss], [1.0], BETAS[at], smoothing)
    assert got == pytest.approx(GOLDEN[loss][at], abs=1e-6)


@pytest.mark.parametrize("at", [0, 1])
def test_trls_own_slope_by_the_chosen(trainer, at):
    assert losses_of(trainer, ["sigmoid"], [1.0], BETAS[at])[1] == pytest.approx(SLOPE[at], abs=1e-6)


def test_the_default_recipe_is_dpo_and_half_the_likelihood_of_the_chosen(trainer):
    recipe = Recipe()
    got, slope = losses_of(trainer, recipe.loss_type, recipe.loss_weights, recipe.beta)
    assert got == pytest.approx(GOLDEN["sigmoid"][0] + 0.5 * 2.0, abs=1e-6)
    assert slope == pytest.approx(SLOPE[0] - 0.5 / TOKENS[0], abs=1e-6)


def test_the_reference_is_the_adapter_switched_off(trainer):
    assert trainer.ref_model is None and list(trainer.model.peft_config) == ["default"]
    assert not (trainer.args.bf16 or trainer.args.fp16 or trainer.args.gradient_checkpointing)
    assert trainer.args.max_length is None  # nothing is cut


# ---- what TRL takes in silence, and is refused here


def test_label_smoothing_is_ignored_by_sigmoid(trainer):
    assert losses_of(trainer, ["sigmoid"], [1.0], 0.1, 0.3) == losses_of(trainer, ["sigmoid"], [1.0], 0.1)
    with pytest.raises(ValueError, match="label_smoothing is 0.3 and sigmoid, sft would not read it"):
        Recipe(label_smoothing=0.3)
    assert Recipe(loss_type="robust", loss_weights=1, label_smoothing=0.1).loss_type == ("robust",)


def test_robust_at_one_half_is_no_finite_number(trainer):
    loss, slope = losses_of(trainer, ["robust"], [1.0], 0.1, 0.5)
    assert not math.isfinite(loss) or not math.isfinite(slope)
    for value in (0.5, 0.7, -0.1, math.nan, "0.1", True):
        with pytest.raises(ValueError, match="expected a number in \\[0, 0.5\\)"):
            Recipe(loss_type=("robust",), loss_weights=(1.0,), label_smoothing=value)


def test_every_loss_of_the_list_is_known_to_trl_and_no_other(trainer):
    for loss in LOSSES:
        value, _ = losses_of(trainer, [loss], [1.0], 0.1, 0.1 if loss in SMOOTHED else 0.0)
        assert math.isfinite(value)
    with pytest.raises(ValueError, match="Unknown loss type") as unknown:
        losses_of(trainer, ["sigmoid2"], [1.0], 0.1)
    assert str(unknown.value).partition("one of ")[2] == str(list(LOSSES))
    with pytest.raises(ValueError, match="loss_type names \\['sigmoid2'\\]; expected some of sigmoid, hinge"):
        Recipe(loss_type=("sigmoid2",), loss_weights=(1.0,))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rpo_alpha": 1.0}, "options \\['rpo_alpha'\\]; expected some of loss_type.*the loss 'sft'"),
        ({"betta": 1.0}, "options \\['betta'\\]"),
        ({"loss_type": ()}, "expected one loss at least"),
        ({"loss_type": ("sigmoid", "sigmoid")}, "each once"),
        ({"loss_type": ("sft",), "loss_weights": (1.0,)}, "never looks at the rejected answer"),
        ({"loss_weights": (1.0,)}, "expected 2 finite numbers above 0, one for each of sigmoid, sft"),
        ({"loss_weights": (1.0, 0.0)}, "above 0"),
        ({"loss_type": ("exo_pair",), "loss_weights": (1.0,)}, "exo_pair needs a label_smoothing above 0"),
        ({"beta": 0}, "beta is 0; expected a finite number above 0"),
        ({"beta": math.inf}, "beta is inf"),
        ({"batch": 8}, "options \\['batch'\\]; expected some of loss_type"),
        ({"samples": 1}, "samples is 1; expected a whole number of at least 2"),
        ({"samples": 2.0}, "samples is 2.0"),
        ({"flipped": 1.1}, "flipped is 1.1; expected a share from 0 to 1"),
    ],
)
def test_a_recipe_that_does_not_fit_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        recipe_of(options.items())
