"""Shared rollouts: each prompt is encoded once for its G completions, and a completion that has ended leaves the batch.

    class Trainer(SharedPrefillMixin, trl.GRPOTrainer): ...

`generate` of Transformers runs a prompt through the layers once for each of its G rows, and keeps every row in the batch
until the longest has ended. Here every distinct prompt runs once, its keys and values are copied to its rows, and rows
that have ended are dropped from cache and batch. Greedy completions are the same; sampled ones are the same given the same
draws, and the draws are those of `generate`: one exponential a row and token at every step, for ended rows as well.
vLLM does both of its own and is left alone.

torch and transformers are imported when called.
"""

from contextlib import contextmanager
from functools import partial

from clinical_r1.speed.exactness import rope_limit

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


class SharedPrefillMixin:
    """Comes before `trl.GRPOTrainer` among the bases; rollouts by Transformers share their prompts, others are TRL's own."""

    def _generate_single_turn(self, *args, **kwargs):
        if self.use_vllm or self.use_transformers_continuous_batching or self._is_vlm:
            return super()._generate_single_turn(*args, **kwargs)
        with shared_prefill(self.accelerator.unwrap_model(self.model_wrapped)):
            return super()._generate_single_turn(*args, **kwargs)


@contextmanager
def shared_prefill(model):
    """Within, `model.generate` encodes equal prompts once and drops rows that have ended."""
    model.generate = partial(generate_shared, model, model.generate)
    try:
        yield model
    finally:
        del model.generate  # the class's own shows again


def generate_shared(model, generate, input_ids=None, attention_mask=None, **kwargs):
    """`generate` with `decode_shared` in place of its loop; falls back to `generate` where results could differ.

    It does so with beams or an assistant, with a cache given or asked for by name, without any cache, and where more than
    tokens is returned.
    """
    config = kwargs.get("generation_config") or model.generation_config
    value = {
        name: kwargs.get(name, getattr(config, name, None))
        for name in ("num_beams", "use_cache", *MORE_THAN_A_LOOP)
    }
    plain = (
        input_ids is not None
        and attention_mask is not None
        and not any(value[name] for name in MORE_THAN_A_LOOP)
    )
    plain = plain and value["num_beams"] in (None, 1) and value["use_cache"] in (None, True)
    if plain:
        kwargs["custom_generate"] = decode_shared
    return generate(input_ids=input_ids, attention_mask=attention_mask, **kwargs)


def decode_shared(model, input_ids, logits_processor, stopping_criteria, generation_config, **model_kwargs):
    """The loop that Transformers' `generate` calls: (N, P) prompts → (N, P + T) prompts and completions, padded.

    input_ids and model_kwargs["attention_mask"]: (N, P), left-padded. Decodes with the model's own loop if its cache holds
    more than keys and values, if a logits processor is not known to work row by row, or if rotary angles depend on the
    longest row of the batch and it can get so long.
    """
    import torch

    cache = model_kwargs.get("past_key_values")
    if not _rows_may_leave(model, cache, logits_processor, generation_config):
        return model._sample(
            input_ids, logits_processor, stopping_criteria, generation_config, **model_kwargs
        )
    mask = model_kwargs["attention_mask"]
    position = mask.long().cumsum(-1) - 1  # as `generate` counts them
    rows, pad = len(input_ids), generation_config._pad_token_tensor
    if input_ids.shape[1] > 1:
        fill_cache(model, cache, input_ids, mask, position.clamp(min=0))
    live, ids, last, columns = torch.arange(rows, device=input_ids.device), input_ids, position[:, -1:], []
    ended = torch.zeros(rows, dtype=torch.bool, device=input_ids.device)
    while True:
        output = model(
            input_ids=ids[:, -1:],
            attention_mask=mask,
            position_ids=last,
            past_key_values=cache,
            use_cache=True,
        )
        scores = logits_processor(ids, output.logits[:, -1].float())
        chosen = choose(scores, live, rows) if generation_config.do_sample else scores.argmax(dim=-1)
        if pad is not None:
            chosen = torch.where(ended, pad.to(chosen.device), chosen)
        columns.append(chosen.new_full((rows,), 0 if pad is None else int(pad)).index_copy(0, live, chosen))
        ids = torch.cat([ids, chosen[:, None]], dim=1)
        ended = ended | stopping_criteria(ids, None)
        left = len(ended) - int(ended.sum())
        if not left:
            return torch.cat([input_ids, torch.stack(columns, dim=1)], dim=1)
        mask, last = torch.cat([mask, mask.new_ones(len(mask), 1)], dim=1), last + 1
        if len(ended) - left >= LEAVE_AT * len(ended):
            stay = (~ended).nonzero()[:, 0]
            cache.batch_select_indices(stay)
            live, ids, mask, last, ended = (value[stay] for value in (live, ids, mask, last, ended))


def _rows_may_leave(model, cache, logits_processor, generation_config) -> bool:
    limit = rope_limit(model.config.get_text_config())
    alone = all(type(processor).__name__ in ROW_BY_ROW for processor in logits_processor)
    short = limit is None or generation_config.max_length < limit
    return alone and short and holds_keys_and_values(cache) and cache.get_seq_length() == 0


def choose(scores, live, rows: int):
    """One token for each of the live rows, as `torch.multinomial` draws it for all `rows`: scores (n, V), live (n,) → (n,).

    multinomial divides each probability by an exponential draw of its own and takes the largest.
    """
    probabilities = scores.softmax(dim=-1)
    draws = probabilities.new_empty(rows, probabilities.shape[1]).exponential_(1)
    if len(live) < rows:
        draws = draws[live]
    return (probabilities / draws).argmax(dim=-1)


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
