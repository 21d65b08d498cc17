"""Shared rollouts: each prompt is encoded once for its G completions, and a completion that has ended leaves the batch.

    class Trainer(SharedPrefillMixin, trl.GRPOTrainer): ...

`generate` of Transformers runs a prompt through the layers once for each of its G rows, and keeps every row in the batch
until the longest has ended. Here every distinct prompt runs once, its keys and values are copied to its rows, and rows
that have ended are dropped from cache and batch. Greedy completions are the same; sampled ones have the same distribution,
from draws that are cheaper and a row's own (`draws`), or are the very same with the stock draws, which are those of
`generate`. In training, a LoRA adapter is merged for as long as the rollouts run (`merged`). vLLM does all this of its own and
is left alone.

torch and transformers are imported when called.
"""

import logging
from contextlib import contextmanager, nullcontext
from functools import partial
from itertools import count

from clinical_r1.speed.draws import Draws, check_draws
from clinical_r1.speed.exactness import rope_limit
from clinical_r1.speed.grouped import grouped_heads
from clinical_r1.speed.merged import adapted_layers, merged_adapter, why_not
from clinical_r1.speed.prefix import VERIFIED_FAMILIES
from clinical_r1.speed.prefix_attention import NAME

# What these do to a row depends on that row alone, so rows may leave. With any other, `generate` decodes by itself.
ROW_BY_ROW = (
    "TemperatureLogitsWarper",
    "TopKLogitsWarper",
    "TopPLogitsWarper",
    "MinPLogitsWarper",
    "RepetitionPenaltyLogitsProcessor",
    "MinLengthLogitsProcessor",
    "MinNewTokensLengthLogitsProcessor",
)

# Asked for, each of these makes `generate` do more than a plain loop over tokens.
MORE_THAN_A_LOOP = (
    "cache_implementation",
    "past_key_values",
    "assistant_model",
    "prompt_lookup_num_tokens",
    "return_dict_in_generate",
    "streamer",
    "synced_gpus",
    "custom_generate",
)
LEAVE_AT = 0.25  # share of ended rows at which copying the cache of the others pays
log = logging.getLogger(__name__)


class SharedPrefillMixin:
    """Comes before `trl.GRPOTrainer` among the bases; rollouts by Transformers share their prompts, others are TRL's own.

    Two keywords more than the trainer's:
    draws: one of `draws.DRAWS` (default "inverse_cdf").
    merge_adapter: generate from merged weights (`merged`) where that is the same up to rounding (default); where it is not,
        the log says why, once.
    """

    def __init__(self, *args, draws="inverse_cdf", merge_adapter=True, **kwargs):
        self.draws, self.merge_adapter, self._not_merged = check_draws(draws), merge_adapter, None
        super().__init__(*args, **kwargs)

    def _generate_single_turn(self, *args, **kwargs):
        if self.use_vllm or self.use_transformers_continuous_batching or self._is_vlm:
            return super()._generate_single_turn(*args, **kwargs)
        model = self.accelerator.unwrap_model(self.model_wrapped)
        with shared_prefill(model, self.draws), self._merged(model):
            return super()._generate_single_turn(*args, **kwargs)

    def _merged(self, model):
        if not self.merge_adapter:
            return nullcontext()
        adapted = adapted_layers(model)
        reason = why_not(adapted)
        if reason is None:
            return merged_adapter(model, adapted)
        if reason != self._not_merged:
            self._not_merged = reason
            log.warning("rollouts: the adapter is not merged: %s.", reason)
        return nullcontext()


@contextmanager
def shared_prefill(model, draws: str = "inverse_cdf", seeds=None):
    """Within, `model.generate` encodes equal prompts once, drops rows that have ended, and draws as `draws` says.

    seeds, of "inverse_cdf": an int for each row of the batch that is generated; None takes them from torch's generator. A
    sampled row then depends on its own seed and prompt alone, up to the rounding of matrix products. ValueError for seeds
    that do not fit the rows, and for a generation that cannot keep to them (beams, an assistant, no cache and the like).
    """
    before = vars(model).get(
        "generate"
    )  # of a context around this one, or of a library that has put its own there
    model.generate = partial(generate_shared, model, model.generate, draws=check_draws(draws), seeds=seeds)
    try:
        yield model
    finally:
        del model.generate  # the class's own shows again
        if before is not None:
            model.generate = before


def generate_shared(
    model, generate, input_ids=None, attention_mask=None, draws="inverse_cdf", seeds=None, **kwargs
):
    """`generate` with `decode_shared` in place of its loop; falls back to `generate` where results could differ.

    It does so with beams or an assistant, with a cache given or asked for by name, without any cache, and where more than
    tokens is returned.
    """
    config = kwargs.get("generation_config") or model.generation_config
    value = {
        name: kwargs.get(name, getattr(config, name, None))
        for name in ("num_beams", "use_cache", *MORE_THAN_A_LOOP)
    }
    asked = [name for name in MORE_THAN_A_LOOP if value[name]]
    asked += [f"num_beams={value['num_beams']}"] if value["num_beams"] not in (None, 1) else []
    asked += ["use_cache=False"] if value["use_cache"] not in (None, True) else []
    asked += ["no attention_mask"] if input_ids is None or attention_mask is None else []
    if not asked:
        kwargs["custom_generate"] = partial(decode_shared, draws=draws, seeds=seeds)
    elif seeds is not None:
        raise ValueError(
            f"rows with seeds of their own cannot be generated with {', '.join(asked)}; leave that out, or the seeds."
        )
    return generate(input_ids=input_ids, attention_mask=attention_mask, **kwargs)


def decode_shared(
    model,
    input_ids,
    logits_processor,
    stopping_criteria,
    generation_config,
    draws="inverse_cdf",
    seeds=None,
    **model_kwargs,
):
    """The loop that Transformers' `generate` calls: (N, P) prompts → (N, P + T) prompts and completions, padded.

    input_ids and model_kwargs["attention_mask"]: (N, P), left-padded. Decodes with the model's own loop if its cache holds
    more than keys and values, if a logits processor is not known to work row by row, or if rotary angles depend on the
    longest row of the batch and it can get so long; the draws stay the same.
    """
    import torch

    (rows, width), cache, draw = input_ids.shape, model_kwargs.get("past_key_values"), None
    if generation_config.do_sample:
        draw = Draws(draws, rows, generation_config.max_length - width, seeds, input_ids.device)
    if not _rows_may_leave(model, cache, logits_processor, generation_config):
        if draw is not None and draw.uniforms is not None:
            logits_processor = type(logits_processor)([*logits_processor, draw.as_processor(width)])
        return model._sample(
            input_ids, logits_processor, stopping_criteria, generation_config, **model_kwargs
        )
    mask = model_kwargs["attention_mask"]
    position = mask.long().cumsum(-1) - 1  # as `generate` counts them
    # Models that the tests know keep nothing of a call for later, so that autograd need not be able to use it.
    known = model.config.get_text_config().model_type in VERIFIED_FAMILIES
    known = known and model.config._attn_implementation in ("sdpa", NAME)
    with torch.inference_mode() if known else nullcontext(), grouped_heads(model) if known else nullcontext():
        if width > 1:
            fill_cache(model, cache, input_ids, mask, position.clamp(min=0))
        state = _mask_of(mask, generation_config.max_length, known), position[:, -1:]
        answer = _decode(
            model, cache, input_ids, state, logits_processor, stopping_criteria, draw, generation_config
        )
    return answer.clone()


def _mask_of(mask, length: int, known: bool):
    """The mask of a whole generation, of which each step reads the begin: (N, length), or None where nothing is padding.

    known: (N, 1, 1, length), in the form that the attention of these models reads, so that no step makes it anew.
    """
    import torch

    if known and mask.all():
        return None
    mask = torch.cat([mask, mask.new_ones(len(mask), length - mask.shape[1])], dim=1)
    return mask.bool()[:, None, None] if known else mask


def _decode(model, cache, input_ids, state, processors, stopping, draw, config):
    """(N, P + T) tokens, from a cache of all but the last of each prompt (N, P). state: (mask of `_mask_of`, position (N, 1))."""
    import torch

    (rows, at), (mask, last) = input_ids.shape, state
    pad = 0 if config._pad_token_tensor is None else int(config._pad_token_tensor)
    # The whole length at once, so that no step copies the tokens before it
    answer = torch.cat([input_ids, input_ids.new_full((rows, config.max_length - at), pad)], dim=1)
    live, ids = torch.arange(rows, device=answer.device), answer.clone()
    ended = torch.zeros(rows, dtype=torch.bool, device=answer.device)
    processors, top_p = (processors, 1.0) if draw is None else draw.split(processors)
    for step in count():
        output = model(
            input_ids=ids[:, at - 1 : at],
            attention_mask=None if mask is None else mask[..., :at],
            position_ids=last,
            past_key_values=cache,
            use_cache=True,
        )
        scores = processors(ids[:, :at], output.logits[:, -1].float())
        chosen = scores.argmax(dim=-1) if draw is None else draw(scores, live, step, top_p)
        if config._pad_token_tensor is not None:
            chosen = chosen.masked_fill(ended, pad)
        ids[:, at], answer[live, at] = chosen, chosen
        at, last = at + 1, last + 1
        ended = ended | stopping(ids[:, :at], None)
        left = len(ended) - int(ended.sum())
        if not left:
            return answer[:, :at]
        if len(ended) - left >= LEAVE_AT * len(ended):
            stay = (~ended).nonzero()[:, 0]
            cache.batch_select_indices(stay)
            live, ids, last, ended = (value[stay] for value in (live, ids, last, ended))
            mask = None if mask is None else mask[stay]


def _rows_may_leave(model, cache, logits_processor, generation_config) -> bool:
    limit = rope_limit(model.config.get_text_config())
    alone = all(type(processor).__name__ in ROW_BY_ROW for processor in logits_processor)
    short = limit is None or generation_config.max_length < limit
    return alone and short and holds_keys_and_values(cache) and cache.get_seq_length() == 0


def holds_keys_and_values(cache) -> bool:
    """Whether a cache is keys and values of every token and nothing else: no window, no recurrent state."""
    from transformers import DynamicCache
    from transformers.cache_utils import DynamicLayer

    return type(cache) is DynamicCache and all(type(layer) is DynamicLayer for layer in cache.layers)


def fill_cache(model, cache, input_ids, mask, position_ids) -> None:
    """Run every distinct prompt once, without its last token, and give each row its copy of the keys and values."""
    import torch

    _, row = torch.unique(input_ids.masked_fill(mask == 0, -1), dim=0, return_inverse=True)
    first = torch.stack([(row == prompt).nonzero()[0, 0] for prompt in range(int(row.max()) + 1)])
    model(
        input_ids=input_ids[first, :-1],
        attention_mask=mask[first, :-1],
        position_ids=position_ids[first, :-1],
        past_key_values=cache,
        use_cache=True,
        logits_to_keep=1,
    )
    cache.batch_select_indices(row)
