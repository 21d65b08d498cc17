"""A LoRA layer as one matrix instead of three: in rollouts, and in the training pass where that is less work.

    with merged_adapter(model):
        model.generate(...)

W + s·B·A is computed anew each time, so the next rollout sees the next step, into copies that take the places of the LoRA layers
in their parents; afterwards the layers are back, the same objects, whatever happened within. No weight is written to, so
nothing has to be subtracted again. The copies take as much memory as the adapted matrices for as long as the context lasts; in
training, until the backward pass.

Rollouts: only sampling is concerned; log-probabilities are of the adapter path, which merged weights equal up to rounding.
In half precision the sum would be rounded to the grid of W, which is coarser than what a step changes. SmolLM2-135M in bfloat16,
LoRA of rank 32, measured once by hand: after one step at learning rates of 1e-5 and 1e-4, 98 to 100 % of the update is lost (norm
of what is lost over norm of the update); after ten at 1e-4 it is 85 %, and log-probabilities are 0.31 from those in float32, 0.17
with the adapter. So there the adapter stays what it is. (After ten steps at 1e-3 the two are equally near: a cold start may be
merged.)
Training: the sum is part of the graph, so gradients reach A and B. A token then costs a gradient of W, in·out products, and
saves those of the adapter, 3r(in + out): less for small layers and large ranks only, such as the clinic's model.

torch and peft are imported when called.
"""

from contextlib import contextmanager, nullcontext

HALF = "its weights are {0}, in which an adapter's small changes would be rounded away"


@contextmanager
def merged_adapter(model, adapted=None):
    """Within, every LoRA layer of `model` is a plain linear layer of the merged matrix. ValueError where `why_not` has a reason.

    A model without an adapter stays as it is. adapted: what `adapted_layers` has found, where it was asked before.
    """
    import torch

    adapted = adapted_layers(model) if adapted is None else adapted
    if reason := why_not(adapted):
        raise ValueError(f"the adapter cannot be merged: {reason}; generate without merged_adapter.")
    with torch.no_grad():
        places = [(parent, name, layer, _plain(layer)) for parent, name, layer in adapted]
    with _in_place(places):
        yield model


def merged_for_training(model, decoder):
    """A context for one forward pass with gradients: merged where that is less work and nothing is computed again later.

    decoder: the transformers model inside `model`. Autocast would round the sum, checkpointing would meet other layers in the
    backward pass, so either leaves the model as it is; so does all that `why_not` names.
    """
    import torch

    if not torch.is_grad_enabled() or torch.is_autocast_enabled(decoder.device.type):
        return nullcontext()
    adapted = [] if decoder.is_gradient_checkpointing else adapted_layers(model)
    if not adapted or why_not(adapted) or not less_work(adapted):
        return nullcontext()
    return _in_place([(parent, name, layer, _plain(layer)) for parent, name, layer in adapted])


def less_work(adapted) -> bool:
    """Whether a token's products for the gradients of the matrices are fewer than those for the adapters beside them."""
    merged = beside = 0
    for *_, layer in adapted:
        size = layer.in_features, layer.out_features
        merged += size[0] * size[1]
        beside += 3 * sum(layer.r[name] for name in layer.active_adapters if name in layer.lora_A) * sum(size)
    return merged < beside


@contextmanager
def _in_place(places):
    """Within, the fourth of each (parent, name, layer, plain) stands where the third stood."""
    try:
        for parent, name, _, plain in places:
            parent._modules[name] = plain
        yield
    finally:
        for parent, name, layer, _ in places:
            parent._modules[name] = layer


def adapted_layers(model) -> list[tuple]:
    """[(parent, name, layer)] of every layer that PEFT has put in, at every place where it stands."""
    from peft.tuners.tuners_utils import BaseTunerLayer
    from peft.utils.other import AuxiliaryTrainingWrapper

    kinds = BaseTunerLayer, AuxiliaryTrainingWrapper
    return [
        (parent, name, child)
        for parent in model.modules()
        for name, child in parent._modules.items()
        if isinstance(child, kinds)
    ]


def why_not(adapted) -> str | None:
    """Why merged weights would not do what `adapted_layers` do, as the end of "…: <reason>"; None where they do."""
    return next((fault for *_, layer in adapted if (fault := _layer_fault(layer))), None)


def _layer_fault(layer) -> str | None:
    import torch
    from peft.tuners.lora import Linear
    from peft.utils.other import AuxiliaryTrainingWrapper

    if isinstance(layer, AuxiliaryTrainingWrapper):
        return "whole modules are trained beside the adapter (modules_to_save, trainable tokens)"
    if type(layer) is not Linear or type(layer.get_base_layer()) is not torch.nn.Linear:
        kind = f"{type(layer).__module__.split('.')[-2]} {type(layer).__name__}"
        return (
            f"it holds a {kind} on a {type(layer.get_base_layer()).__name__}, not LoRA on plain linear layers"
        )
    base, active = layer.get_base_layer(), [name for name in layer.active_adapters if name in layer.lora_A]
    if layer.disable_adapters or layer.merged:
        return "the adapter is switched off, or merged already"
    if len(active) > 1:
        return f"{len(active)} adapters are active at once"
    if any(name in layer.lora_variant for name in active):
        return "the adapter is a variant of LoRA (DoRA and the like)"
    if any(layer.lora_bias[name] for name in active):
        return "the adapter has biases"
    if layer.training and any(getattr(layer.lora_dropout[name], "p", 0.0) for name in active):
        return "the adapter drops out at random while it generates"
    if any(
        map(_hooks, [layer, base, *(part[name] for part in (layer.lora_A, layer.lora_B) for name in active)])
    ):
        return "hooks watch its layers"
    weight = base.weight
    if type(weight) is not torch.nn.Parameter or hasattr(weight, "ds_id") or weight.device.type == "meta":
        return "its weights are in parts, on several devices"
    if weight.dtype not in (torch.float32, torch.float64):
        return HALF.format(str(weight.dtype).removeprefix("torch."))
    return None


def _hooks(module) -> bool:
    return bool(module._forward_hooks or module._forward_pre_hooks)


def _plain(layer):
    """A linear layer of the merged matrix (out, in), with the base's own bias; the base itself where no adapter is active."""
    import torch

    base = layer.get_base_layer()
    active = [name for name in layer.active_adapters if name in layer.lora_A]
    if not active:
        return base
    plain = torch.nn.Linear(base.in_features, base.out_features, bias=False, device="meta")
    del plain.weight  # not a parameter: in training it is part of the graph
    plain.weight = base.weight + layer.get_delta_weight(active[0]).to(base.weight.dtype)
    plain.bias = base.bias
    return plain.train(base.training)
