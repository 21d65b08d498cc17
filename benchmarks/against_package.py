"""Is ours faster than the package prefix_grouper, with its documented flow, in one process, at real sizes and vocabularies?

    pip install --no-deps --target FOLDER prefix_grouper==0.0.1.post1
    PYTHONPATH=FOLDER OMP_NUM_THREADS=1 python benchmarks/against_package.py [--repeats 3]

Loss + backward of one group through TRL's own loss, an adapter of rank 32 on every matrix, three ways in turn:

stock    TRL's GRPOTrainer
ours     `SharedPrefixMixin` as it ships
package  `PrefixGrouper.from_ungrouped_masks`, `concat_input`, positions as its page has them, `forward` around scaled_dot_
         product_attention (its page uses flash-attention, which no CPU has), `split_output`; the last layer after the split,
         on completions only (its page takes logits of the prompt as well, which would cost it more)

And attention alone, forward and backward, ours and the package's. CPU seconds, since other work may share the machine.
"""

import argparse
import importlib.util
import tempfile
import time
from pathlib import Path

from measuring import (
    MEASURED,
    SHAPES,
    Results,
    as_text,
    group_inputs,
    grpo_trainer,
    in_turn,
    loss_and_gradients,
    random_model,
    results_folder,
    speed_up,
)
from shared_prefix import saved_bytes

from clinical_r1.speed.cost import predicted_speed_up, shape_of
from clinical_r1.speed.prefix import SharedPrefixMixin

NAME = "prefix_grouper_sdpa"
NOTES = {
    "seconds": "CPU seconds of loss + backward of one group (part: model) or of attention forward + backward (part: "
    "attention), each way in turn after one round that is not counted",
    "speed_up": "stock (of attention alone: the package) over each way within a round: median, low, high, n",
    "over_package": "the package's CPU seconds over ours' within a round",
    "activation_bytes": "distinct storages saved for the backward pass, without parameters",
    "predicted": "clinical_r1.speed.cost.predicted_speed_up",
}


def points() -> list[dict]:
    """What is measured: fewer layers than the models have, so that stock fits; the head is whole."""
    rows = [  # shape, layers, vocabulary, P, R, G
        ("0.5B", 2, 1024, 128, 64, 8),
        ("0.5B", 2, 151_936, 128, 64, 8),
        ("0.5B", 2, 151_936, 350, 600, 5),
        ("0.5B", 2, 151_936, 1024, 64, 8),
        ("SmolLM2", 6, 49_152, 262, 110, 8),
        ("SmolLM2", 6, 49_152, 350, 600, 5),
    ]
    keys = ("shape", "layers", "vocabulary", "P", "R", "G")
    found = [{"part": "model", **dict(zip(keys, row, strict=True)), "lora": True} for row in rows]
    sizes = ((128, 64, 8), (350, 600, 5), (1024, 64, 16))
    return found + [{"part": "attention", "shape": "0.5B", "P": p, "R": r, "G": g} for p, r, g in sizes]


# ----------------------------------------------------------------------------------------------------- the package's way


def package_attention(module, query, key, value, attention_mask, scaling=None, prefix_grouper=None, **kwargs):
    """What transformers calls in every layer: `prefix_grouper.forward` around SDPA, whose mask is made once a grouper."""
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    if prefix_grouper is None:
        stock = ALL_ATTENTION_FUNCTIONS["sdpa"]
        return stock(module, query, key, value, attention_mask, scaling=scaling, **kwargs)
    repeats = query.shape[1] // key.shape[1]
    key, value = (tensor.repeat_interleave(repeats, dim=1) for tensor in (key, value))
    return prefix_grouper.forward(_sdpa(prefix_grouper, scaling), query, key, value), None


def _sdpa(grouper, scale):
    import torch
    from torch.nn.functional import scaled_dot_product_attention as sdpa

    masks = grouper.__dict__.setdefault("_masks_of_sdpa", {})

    def attention(query, key, value, known):
        queries, keys = query.shape[2], key.shape[2]
        if queries == keys and known.all():
            return sdpa(query, key, value, is_causal=True, scale=scale).transpose(1, 2)
        if (queries, keys) not in masks:  # causal from the bottom right, as flash-attention's
            causal = torch.ones(queries, keys, dtype=torch.bool, device=query.device).tril(keys - queries)
            masks[queries, keys] = causal[None, None] & known[:, None, None, :]
        mask = masks[queries, keys]
        return sdpa(query, key, value, attn_mask=mask, scale=scale).transpose(1, 2)

    return attention


class PackageMixin:
    """The documented flow as a way to TRL's log-probabilities."""

    def _get_per_token_logps_and_entropies(self, model, input_ids, attention_mask, logits_to_keep, **kwargs):
        import torch
        from prefix_grouper import PrefixGrouper
        from trl.trainer.utils import selective_log_softmax_and_entropy

        group, width = self.num_generations, input_ids.shape[1] - logits_to_keep
        prompts, prompt_mask = input_ids[::group, :width], attention_mask[::group, :width].bool()
        completions, mask = input_ids[:, width:], attention_mask[:, width:].bool()
        grouper = PrefixGrouper.from_ungrouped_masks(
            prompt_mask, mask, group, device=input_ids.device, padding_mode="right"
        )
        ids = grouper.concat_input(prompts, prompt_mask, completions, mask)
        lengths = [
            [int(p), *map(int, s)] for p, s in zip(prompt_mask.sum(1), mask.sum(1).split(group), strict=True)
        ]
        positions = torch.zeros_like(ids)
        for row, (first, *others) in enumerate(lengths):
            places = [torch.arange(first), *(first + torch.arange(n) for n in others)]
            positions[row, : first + sum(others)] = torch.cat(places)
        inner = self.accelerator.unwrap_model(model)
        inner = inner.get_base_model() if hasattr(inner, "get_base_model") else inner
        any_mask = torch.ones(1, 1, 1, 1, dtype=torch.bool)
        output = inner.model(
            input_ids=ids,
            position_ids=positions,
            attention_mask=any_mask,
            use_cache=False,
            prefix_grouper=grouper,
        )
        _, _, states, _ = grouper.split_output(output.last_hidden_state, include_prefix_last=1)
        completions = grouper.convert_padding(completions, mask, padding_mode="right")
        scores = selective_log_softmax_and_entropy(
            inner.lm_head(states[:, :-1]),
            completions,
            entropy_requires_grad=False,
            temperature=self.temperature,
        )
        return *scores, None


def prepared(settings: dict, folder: str) -> dict:
    """{way: trainer} of one point."""
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import sdpa_mask

    AttentionInterface.register(NAME, package_attention)
    AttentionMaskInterface.register(NAME, sdpa_mask)
    size = settings["shape"], settings["layers"], settings["vocabulary"], settings["P"] + settings["R"]
    trainers = {}
    changes = {"num_generations": settings["G"], "per_device_train_batch_size": settings["G"]}
    for way, bases in (("stock", ()), ("ours", (SharedPrefixMixin,)), ("package", (PackageMixin,))):
        made = grpo_trainer(bases, random_model(*size), folder, settings["lora"], **changes)
        if way == "package":
            made.model.get_base_model().set_attn_implementation(NAME)
        trainers[way] = made
    return trainers


# --------------------------------------------------------------------------------------------------------- measuring


def measure_model(settings: dict, repeats: int, folder: str) -> dict:
    trainers = prepared(settings, folder)
    inputs = group_inputs(settings["P"], settings["R"], settings["G"], settings["vocabulary"])
    losses = {}
    saved = {way: saved_bytes(made, inputs) for way, made in trainers.items()}
    runs = {
        way: lambda way=way, made=made: losses.update({way: loss_and_gradients(made, inputs).item()})
        for way, made in trainers.items()
    }
    seconds = in_turn(runs, repeats, clock=time.process_time)
    shape = shape_of(trainers["ours"].model.get_base_model())
    return {
        **ratios(seconds, "stock"),
        "activation_bytes": saved,
        "memory_ratio": {way: round(saved[way] / saved["stock"], 4) for way in ("ours", "package")},
        "predicted": round(predicted_speed_up(shape, settings["P"], settings["R"], settings["G"]), 4),
        "fell_back": trainers["ours"]._metrics["train"]["shared_prefix/tokens"][-1] == 1,
        "loss_difference": max(abs(losses[way] - losses["stock"]) for way in losses),
    }


def measure_attention(settings: dict, repeats: int) -> dict:
    """Attention alone over one group, heads of the shape, float32."""
    import torch
    from prefix_grouper import PrefixGrouper

    from clinical_r1.speed.prefix_attention import PackedGroups, attend

    shape, group = SHAPES[settings["shape"]], settings["G"]
    heads, few = shape["num_attention_heads"], shape["num_key_value_heads"]
    inputs = group_inputs(settings["P"], settings["R"], group, 1024)
    ids = torch.cat([inputs["prompt_ids"], inputs["completion_ids"]], dim=1)
    draw = torch.Generator().manual_seed(0)

    def tensors(tokens):
        size = shape["hidden_size"] // heads
        return [torch.randn(1, h, tokens, size, generator=draw).requires_grad_() for h in (heads, few, few)]

    layout = PackedGroups(ids, torch.ones_like(ids), settings["R"])
    grouper = PrefixGrouper([[settings["P"], *[settings["R"]] * group]])
    ours, theirs = tensors(layout.tokens), tensors(settings["P"] + group * settings["R"])
    runs = {
        "ours": lambda: attend(*ours, layout).sum().backward(),
        "package": lambda: package_attention(None, *theirs, None, prefix_grouper=grouper)[0].sum().backward(),
    }
    return ratios(in_turn(runs, 5 * repeats, clock=time.process_time), "package")


def ratios(seconds: dict, against: str) -> dict:
    rounded = lambda ratio: {k: v if k == "n" else round(v, 4) for k, v in ratio.items()}  # noqa: E731
    return {
        "repeats": len(seconds["ours"]),
        "seconds": {way: [round(value, 5) for value in values] for way, values in seconds.items()},
        "speed_up": {way: rounded(speed_up(seconds, against, way)) for way in seconds if way != against},
        "over_package": rounded(speed_up(seconds, "package", "ours")),
    }


def run(arguments) -> Path:
    """Every point that is not in the file yet; returns the file."""
    results = Results("against_package", NOTES, arguments.results)
    for settings in arguments.points:
        if (point := results.kept(settings, arguments.repeats)) is None:
            if settings["part"] == "model":
                with tempfile.TemporaryDirectory() as folder:
                    found = measure_model(settings, arguments.repeats, folder)
            else:
                found = measure_attention(settings, arguments.repeats)
            point = results.add(settings, arguments.repeats, found)
        print(sentence(point), flush=True)
    return results.path


def sentence(point: dict) -> str:
    """One line for one point."""
    size = " ".join(f"{key} {value}" for key, value in point["settings"].items())
    stock = f"{as_text(point['speed_up']['ours'])} times stock, " if "stock" in point["seconds"] else ""
    return f"{size}: ours {stock}{as_text(point['over_package'])} times the package"


def parsed(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument(
        "--smoke", action="store_true", help="one tiny point of each part, to see that it runs"
    )
    parser.add_argument("--results", type=Path, default=MEASURED, help="folder of the result files")
    arguments = parser.parse_args(argv)
    arguments.results = results_folder(arguments.results, arguments.smoke)
    arguments.points = points()
    if arguments.smoke:
        small = {"shape": "tiny", "P": 32, "R": 4, "G": 4}
        arguments.repeats = 1
        arguments.points = [
            {"part": "model", **small, "layers": 2, "vocabulary": 64, "lora": True},
            {"part": "attention", **small},
        ]
    return arguments


def main(argv=None) -> int:
    arguments = parsed(argv)
    if importlib.util.find_spec("prefix_grouper") is None:
        print(
            "The package prefix_grouper is not installed, so nothing was measured; see the top of this file."
        )
        return 0
    print(run(arguments))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
