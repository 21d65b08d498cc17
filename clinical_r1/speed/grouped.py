"""Grouped-query attention on a CPU without copies: a decoding step reads each key head once, not once a query head.

    with grouped_heads(model):
        model(...)

Where a mask comes with the call, Transformers' SDPA copies every key and value for each query head that shares them, the whole
cache in every layer at every token. PyTorch's kernel takes grouped heads with a mask as well, on a CPU with the same numbers;
so it is called directly. For 25 rows of 600 tokens and 9 heads on 3, one layer's step took a sixteenth of the time (measured
once, by hand).

torch and transformers are imported when called.
"""

from contextlib import contextmanager
from functools import cache

from clinical_r1.speed.prefix_attention import NAME as SHARED
from clinical_r1.speed.prefix_attention import register_as

NAME = "grouped_heads"
NOT_PLAIN = ("softcap", "s_aux", "position_bias")  # keywords with which an attention is more than SDPA


@contextmanager
def grouped_heads(model):
    """Within, a model on a CPU whose attention is SDPA attends without copies of its keys; any other stays as it is."""
    before = model.config._attn_implementation
    if model.device.type != "cpu" or before not in (
        "sdpa",
        SHARED,
    ):  # SDPA where no layout comes with the call
        yield model
        return
    model.set_attn_implementation(register())
    try:
        yield model
    finally:
        model.set_attn_implementation(before)


def attention_forward(module, query, key, value, attention_mask, dropout=0.0, scaling=None, **kwargs):
    """Transformers' interface: query (N, H, R, d), key and value (N, h, T, d) → ((N, R, H, d), None)."""
    from torch.nn.functional import scaled_dot_product_attention
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    alone = query.shape[1] == key.shape[1] or attention_mask is None
    if alone or dropout or any(kwargs.get(name) is not None for name in NOT_PLAIN):
        stock = ALL_ATTENTION_FUNCTIONS["sdpa"]
        return stock(module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **kwargs)
    out = scaled_dot_product_attention(
        query, key, value, attn_mask=attention_mask, scale=scaling, enable_gqa=True
    )
    return out.transpose(1, 2).contiguous(), None


@cache
def register() -> str:
    """Make NAME known to transformers; returns NAME."""
    return register_as(NAME, attention_forward)
