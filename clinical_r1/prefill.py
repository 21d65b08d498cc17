"""Shared prefill: rollouts encode each prompt once and hand its keys and values to all G completions.

    class Trainer(SharedPrefillMixin, trl.GRPOTrainer): ...

`generate` of Transformers runs a prompt through the layers once for each of its G rows. Here every distinct prompt runs
once, up to its last token; the cache is copied to its rows and generation goes on from there. Same tokens when decoding
greedily, and the same when sampling with the same draws. vLLM has this of its own (prefix caching) and is left alone.

torch and transformers are imported when called.
"""

from contextlib import contextmanager
from functools import partial


class SharedPrefillMixin:
    """Comes before `trl.GRPOTrainer` among the bases; rollouts by Transformers share their prompts, others are TRL's own."""

    def _generate_single_turn(self, *args, **kwargs):
        if self.use_vllm or self.use_transformers_continuous_batching or self._is_vlm:
            return super()._generate_single_turn(*args, **kwargs)
        with shared_prefill(self.accelerator.unwrap_model(self.model_wrapped)):
            return super()._generate_single_turn(*args, **kwargs)


@contextmanager
def shared_prefill(model):
    """Within, `model.generate` encodes equal prompts once."""
    model.generate = partial(generate_once_per_prompt, model, model.generate)
    try:
        yield model
    finally:
        del model.generate  # the class's own shows again


def generate_once_per_prompt(model, generate, input_ids=None, attention_mask=None, **kwargs):
    """`generate` with a cache that was filled once for each distinct row of input_ids (N, P), left-padded.

    Without repeated rows, with one token a prompt, with a cache given or asked for by name, or for a model whose cache
    holds more than keys and values, it is called as it came.
    """
    import torch

    call = dict(input_ids=input_ids, attention_mask=attention_mask, **kwargs)
    config = kwargs.get("generation_config") or model.generation_config
    named = kwargs.get("cache_implementation") or getattr(config, "cache_implementation", None)
    usable = kwargs.get("past_key_values") is None and named is None and getattr(config, "use_cache", True)
    if input_ids is None or attention_mask is None or not usable or input_ids.shape[1] < 2:
        return generate(**call)
    known = input_ids.masked_fill(attention_mask == 0, -1)
    _, row = torch.unique(known, dim=0, return_inverse=True)
    if int(row.max()) + 1 == len(row):
        return generate(**call)
    cache = prefill(model, input_ids, attention_mask, row)
    return generate(**call) if cache is None else generate(**call, past_key_values=cache)


def prefill(model, input_ids, attention_mask, row):
    """A DynamicCache of N rows and P - 1 tokens; `row` (N,) says which distinct prompt each is. None when it is no such cache."""
    import torch
    from transformers import DynamicCache
    from transformers.cache_utils import DynamicLayer

    first = torch.stack([(row == prompt).nonzero()[0, 0] for prompt in range(int(row.max()) + 1)])
    mask = attention_mask[first]
    position_ids = (mask.long().cumsum(-1) - 1).clamp(min=0)  # as `generate` counts them
    with torch.no_grad():
        output = model(
            input_ids=input_ids[first, :-1],
            attention_mask=mask[:, :-1],
            position_ids=position_ids[:, :-1],
            use_cache=True,
            logits_to_keep=1,
        )
    cache = getattr(output, "past_key_values", None)
    if type(cache) is not DynamicCache or not all(isinstance(layer, DynamicLayer) for layer in cache.layers):
        return None
    cache.batch_select_indices(row)
    return cache
