"""A micro-batch in which every prompt stands once: how it is packed, and attention over it.

Stock GRPO runs G rows [prompt; completion] of P + R tokens. Packed, a group is one stretch of P + Σ(R_i - 1) tokens,

    [prompt | completion_1 | completion_2 | … | completion_G],      groups one after the other, no padding at all,

and everything that works token by token needs no change. (The last token of a completion predicts nothing and is left
out.) Attention has three parts: the prompt with itself, causal; every completion with its prompt, all of it; every
completion with itself, causal. The paper of Prefix Grouper (arXiv 2506.05433) repeats the prompt's keys for the second
part; here all completions of a group ask the prompt in one unmasked call, and the two answers of a token are joined by
their log-sum-exp, so no mask over pairs of tokens and no copy of the prompt's keys exists. The joining is ours to
write; the kernels are PyTorch's.

Shapes: T tokens of the packed micro-batch, N rows (completions), M predicted tokens, H query heads over H_kv key heads of
size d. torch is imported when called.
"""

import importlib.util
from functools import cache

NAME = "shared_prefix"  # of the attention function, as transformers knows it
ROUTES = ("flash", "flex", "sdpa")


class CannotShare(Exception):
    """This model or batch has no exact shared form; the message says why, as the end of "…: <message>".

    always: whatever the batch. drawn: because random numbers were drawn, as a model in training does.
    """

    def __init__(self, message: str, always: bool = False, drawn: bool = False):
        super().__init__(message)
        self.always, self.drawn = always, drawn


# ------------------------------------------------------------------------------------------------------ the layout


class PackedGroups:
    """Where each token of a packed micro-batch lies.

    source (T,)         index of each packed token in the flattened (N, L) batch
    position_ids (1, T) its position in its own row, so rotary angles are those of the stock trainer
    groups              [(a, b, c)]: tokens a..b are a prompt, b..c its completions; empty completions are allowed
    own (n, R)          the n rows with more than one token, right-padded: packed index of each of their tokens
    valid (n, R)        False where `own` is padding
    predict (M,)        packed index of the token whose output predicts a completion token
    cell (M,)           that completion token's place in the flattened (N, R) answer
    longest             P + R of the longest row, in tokens
    """

    def __init__(self, input_ids, attention_mask, logits_to_keep: int):
        """input_ids, attention_mask: (N, L), prompts left-padded, completions right-padded to logits_to_keep tokens.

        Rows that follow each other and have the same prompt share it. CannotShare for a mask with holes or without any
        completion token.
        """
        import torch

        rows, length = input_ids.shape
        width = length - logits_to_keep  # of the prompts
        mask = attention_mask.bool()
        prompt_mask, completion_mask = mask[:, :width], mask[:, width:]
        whole = (prompt_mask[:, 1:] >= prompt_mask[:, :-1]).all() & (
            completion_mask[:, 1:] <= completion_mask[:, :-1]
        ).all()
        prompts = input_ids[:, :width].masked_fill(~prompt_mask, -1)
        same = torch.zeros(rows, dtype=torch.bool, device=input_ids.device)
        same[1:] = (prompts[1:] == prompts[:-1]).all(dim=1)
        facts = torch.stack([prompt_mask.sum(1), completion_mask.sum(1), same.long(), whole.expand(rows)])
        prompt_lengths, lengths, same, whole = facts.tolist()  # the one wait for the device
        if not all(whole):
            raise CannotShare("a prompt is not left-padded or a completion not right-padded")
        if not any(lengths):
            raise CannotShare("no completion of the micro-batch holds a token")
        if not all(prompt_lengths):
            raise CannotShare("a prompt is empty")
        self.lengths, self.longest = lengths, max(map(sum, zip(prompt_lengths, lengths, strict=True)))
        self.padded_tokens, self.calls = rows * length, 0
        self._place(prompt_lengths, same, width, length, logits_to_keep)
        move = {
            name: getattr(self, name).to(input_ids.device)
            for name in ("source", "own", "valid", "predict", "cell")
        }
        self.__dict__.update(move)
        self.position_ids = (self.source % length)[None]
        self.suffix = self.own[self.valid]  # (S,) packed index of every completion token, in order
        self.input_ids = input_ids.reshape(-1)[self.source][None]
        self._flex_mask, self.route = None, None

    def _place(self, prompt_lengths, same, width, length, keep):
        import torch

        source, predict, cell, own = [], [], [], []
        self.groups, self.group_of_row = [], []
        at = 0
        for row, known in enumerate(same):
            tokens = prompt_lengths[row]
            if not known:
                source.append(row * length + torch.arange(width - tokens, width))
                self.groups.append((at, at + tokens, at + tokens))
                at += tokens
            self.group_of_row.append(len(self.groups) - 1)
            start, end, _ = self.groups[-1]
            number = self.lengths[row]
            if number:
                source.append(row * length + width + torch.arange(number - 1))
                predict += [torch.tensor([end - 1]), torch.arange(at, at + number - 1)]
                cell.append(row * keep + torch.arange(number))
            if number > 1:
                own.append(torch.arange(at, at + number - 1))
                at += number - 1
            self.groups[-1] = (start, end, at)
        self.tokens = at
        self.prompt_lengths = [b - a for a, b, _ in self.groups]
        self.source, self.predict, self.cell = torch.cat(source), torch.cat(predict), torch.cat(cell)
        # A completion of one token has no token of its own here: its only prediction is the prompt's.
        longest = max((len(index) for index in own), default=0)
        self.own = torch.zeros(len(own), longest, dtype=torch.long)
        self.valid = torch.zeros(len(own), longest, dtype=torch.bool)
        for row, index in enumerate(own):
            self.own[row, : len(index)] = index
            self.valid[row, : len(index)] = True

    def sizes(self) -> list[tuple[int, list[int]]]:
        """[(prompt tokens, [tokens of each completion])], a group an entry: what `cost.shared_cost` reads."""
        per_group = [[] for _ in self.groups]
        for group, tokens in zip(self.group_of_row, self.lengths, strict=True):
            per_group[group].append(tokens)
        return list(zip(self.prompt_lengths, per_group, strict=True))

    def flex_mask(self):
        """FlexAttention's block mask, made once a micro-batch: (T, T) in blocks, never in full on a GPU."""
        if self._flex_mask is None:
            import torch
            from torch.nn.attention.flex_attention import create_block_mask

            device = self.source.device
            group = torch.zeros(self.tokens, dtype=torch.long, device=device)
            segment = torch.zeros(self.tokens, dtype=torch.long, device=device)  # 0 for prompts
            for number, (a, _, c) in enumerate(self.groups):
                group[a:c] = number
            row = torch.arange(1, len(self.own) + 1, device=device)[:, None].expand_as(self.own)
            segment[self.suffix] = row[self.valid]

            def allowed(batch, head, query, key):
                seen = (segment[key] == 0) | (segment[key] == segment[query])
                return (key <= query) & (group[key] == group[query]) & seen

            make = _compiled(create_block_mask) if device.type == "cuda" else create_block_mask
            self._flex_mask = make(allowed, None, None, self.tokens, self.tokens, device=device.type)
        return self._flex_mask


@cache
def _compiled(function):
    """A function compiled once for every length."""
    import torch

    return torch.compile(function, dynamic=True)


class Layouts:
    """Layouts of micro-batches, the last `most` kept: policy, old policy and reference see the same tokens in a step.

    A layout is found again by its tokens, not by the tensors that held them: those may be made anew or written over.
    """

    def __init__(self, most: int = 0):
        self.most, self._kept = most, []

    def of(self, input_ids, attention_mask, logits_to_keep: int, size: int) -> list[PackedGroups]:
        """One for every `size` rows of (N, L) ids and mask. CannotShare as PackedGroups."""
        batch = zip(input_ids.split(size), attention_mask.split(size), strict=True)
        return [self._one(ids, mask, logits_to_keep) for ids, mask in batch]

    def _one(self, ids, mask, logits_to_keep):
        import torch

        tokens = ids.masked_fill(mask == 0, -1)
        for known, keep, layout in self._kept:
            if keep == logits_to_keep and torch.equal(known, tokens):
                return layout
        layout = PackedGroups(ids, mask, logits_to_keep)
        if self.most:
            self._kept = [*self._kept, (tokens, logits_to_keep, layout)][-self.most :]
        return layout


# ------------------------------------------------------------------------------------------------------- attention


def route_for(device_type: str, head_size: int = 16, tokens: int = 128) -> str:
    """The kernel to use: "flash" on a CPU, "flex" on CUDA with Triton, "sdpa" (the prompt's keys copied) anywhere else.

    FlexAttention needs 16 dimensions a head, and PyTorch 2.6: before it, fewer than 128 tokens went to a decoding kernel that
    refuses some numbers of heads (7 for a key head, as Qwen2.5-0.5B has); so few tokens are left to "sdpa" in any version.
    """
    import torch

    if device_type == "cpu" and hasattr(torch.ops.aten, "_scaled_dot_product_flash_attention_for_cpu"):
        return "flash"
    recent = tuple(map(int, torch.__version__.split(".")[:2])) >= (2, 6)
    flex = recent and head_size >= 16 and tokens >= 128 and importlib.util.find_spec("triton")
    return "flex" if device_type == "cuda" and flex else "sdpa"


def attend(query, key, value, layout: PackedGroups, scale: float | None = None, route: str | None = None):
    """Attention of a packed micro-batch. query (1, H, T, d), key and value (1, H_kv, T, d); returns (1, H, T, d).

    ValueError for a route that is not one of ROUTES.
    """
    import torch

    route = route or route_for(query.device.type)
    if route not in ROUTES:
        raise ValueError(f"route {route!r} is not known; expected one of {', '.join(ROUTES)}.")
    if torch.is_autocast_enabled(query.device.type):  # as scaled_dot_product_attention itself does
        lower = torch.get_autocast_dtype(query.device.type)
        query, key, value = query.to(lower), key.to(lower), value.to(lower)
    if value.shape[-1] != query.shape[-1]:
        sizes = f"values have {value.shape[-1]} dimensions a head and queries {query.shape[-1]}"
        raise CannotShare(sizes, always=True)
    scale = query.shape[-1] ** -0.5 if scale is None else scale
    if route == "flex" and query.is_cuda and query.dtype == torch.float32:
        route = "sdpa"  # as in the comparison at first use; Flex's tiles may not fit a card's shared memory in float32
    if route == "flex" and query.shape[-1] < 16:
        small = f"FlexAttention needs 16 dimensions a head, and queries have {query.shape[-1]}"
        raise CannotShare(small, always=True)
    if route == "flex":
        return _flex()(query, key, value, block_mask=layout.flex_mask(), scale=scale, enable_gqa=True)
    if route == "sdpa":
        return _two_part(query, key, value, layout, scale)
    return _grouped_attention().apply(query, key, value, layout, scale)


def _flex():
    import torch
    from torch.nn.attention.flex_attention import flex_attention

    # One graph for every length: without dynamic shapes each new micro-batch would be compiled again.
    return _compiled(flex_attention) if torch.cuda.is_available() else flex_attention


def _heads(tensor, repeats):
    """(B, H_kv, T, d) → (B, H_kv · repeats, T, d), each head `repeats` times in a row."""
    return tensor.repeat_interleave(repeats, dim=1) if repeats > 1 else tensor


def _two_part(query, key, value, layout, scale):
    """Prompts with themselves, then completions with [their prompt; themselves] under one mask: public PyTorch alone."""
    import torch
    from torch.nn.functional import scaled_dot_product_attention as sdpa

    repeats = query.shape[1] // key.shape[1]
    key, value = _heads(key, repeats), _heads(value, repeats)
    out = torch.empty_like(query)
    pieces, places = [], []
    for a, b, _ in layout.groups:
        part = sdpa(query[:, :, a:b], key[:, :, a:b], value[:, :, a:b], is_causal=True, scale=scale)
        pieces.append(part)
        places.append(torch.arange(a, b, device=query.device))
    if len(layout.own):
        prompts = torch.zeros(
            len(layout.own), max(layout.prompt_lengths), dtype=torch.long, device=query.device
        )
        known = torch.zeros_like(prompts, dtype=torch.bool)
        for a, b, c in layout.groups:
            rows = ((layout.own[:, 0] >= b) & (layout.own[:, 0] < c)).nonzero()[:, 0]
            prompts[rows, : b - a] = torch.arange(a, b, device=query.device)
            known[rows, : b - a] = True
        causal = torch.ones(layout.own.shape[1], layout.own.shape[1], device=query.device).tril().bool()
        ours = causal[None] & layout.valid[:, None, :]
        mask = torch.cat([known[:, None, :].expand(-1, causal.shape[0], -1), ours], dim=2)[:, None]
        index = torch.cat([prompts, layout.own], dim=1)
        part = sdpa(
            query[0][:, layout.own].transpose(0, 1),
            key[0][:, index].transpose(0, 1),
            value[0][:, index].transpose(0, 1),
            attn_mask=mask,
            scale=scale,
        )
        pieces.append(part.transpose(0, 1)[:, layout.valid][None])
        places.append(layout.suffix)
    return out.index_copy(2, torch.cat(places), torch.cat(pieces, dim=2))


def _flash(query, key, value, causal, scale):
    """(output, log-sum-exp (B, H, T)) of one block of attention."""
    import torch

    op = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
    return op(query, key, value, 0.0, causal, scale=scale)


def _flash_backward(grad, query, key, value, out, lse, causal, scale):
    """Gradients of one block, given the output and log-sum-exp over *all* blocks a query sees.

    A softmax's backward needs of the other blocks nothing but these two, so the blocks' gradients simply add up.
    """
    import torch

    op = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward
    return op(grad, query, key, value, out, lse, 0.0, causal, scale=scale)


@cache
def _grouped_attention():
    """The autograd function, made when torch is there."""
    import torch

    class GroupedAttention(torch.autograd.Function):
        @staticmethod
        def forward(ctx, query, key, value, layout, scale):
            out, lse = _grouped_forward(query, key, value, layout, scale)
            ctx.save_for_backward(query, key, value, out, lse)
            ctx.layout, ctx.scale = layout, scale
            return out

        @staticmethod
        def backward(ctx, grad):
            gradients = _grouped_backward(grad, *ctx.saved_tensors, ctx.layout, ctx.scale)
            return *gradients, None, None

    return GroupedAttention


def _grouped_forward(query, key, value, layout, scale):
    """(output (1, H, T, d), log-sum-exp (1, H, T)): prompts, completions on their prompts, then completions on themselves."""
    import torch

    repeats = query.shape[1] // key.shape[1]
    k, v = _heads(key, repeats), _heads(value, repeats)
    out = torch.empty_like(query)
    # Not smaller than float32: the kernels keep it so for half precision as well.
    lse = query.new_empty(query.shape[:3], dtype=torch.promote_types(query.dtype, torch.float32))
    for a, b, c in layout.groups:
        prompt = k[:, :, a:b], v[:, :, a:b]
        out[:, :, a:b], lse[:, :, a:b] = _flash(query[:, :, a:b], *prompt, True, scale)
        if c > b:
            out[:, :, b:c], lse[:, :, b:c] = _flash(query[:, :, b:c], *prompt, False, scale)
    if len(layout.own):
        _join_own(out, lse, query, k, v, layout, scale)
    return out, lse


def _join_own(out, lse, query, k, v, layout, scale) -> None:
    """Add to the completions' answers from their prompts (in `out`, `lse`) what they see of themselves; in place."""
    import torch

    mine = [_rows(tensor, layout.own) for tensor in (query, k, v)]
    own_out, own_lse = _flash(*mine, True, scale)
    own_out = own_out.transpose(0, 1)[:, layout.valid]  # (H, S, d)
    own_lse = own_lse.transpose(0, 1)[:, layout.valid]
    prompt_out, prompt_lse = out[0][:, layout.suffix], lse[0][:, layout.suffix]
    total = torch.logaddexp(prompt_lse, own_lse)
    joined = prompt_out * (prompt_lse - total).exp()[..., None]
    joined = joined + own_out * (own_lse - total).exp()[..., None]
    out[0][:, layout.suffix] = joined.to(out.dtype)
    lse[0][:, layout.suffix] = total


def _grouped_backward(grad, query, key, value, out, lse, layout, scale):
    """Gradients of query, key and value: the sum over the same blocks."""
    import torch

    repeats = query.shape[1] // key.shape[1]
    k, v = _heads(key, repeats), _heads(value, repeats)
    dq, dk, dv = torch.zeros_like(query), torch.zeros_like(k), torch.zeros_like(v)
    for a, b, c in layout.groups:
        prompt = k[:, :, a:b], v[:, :, a:b]
        for start, end, causal in ((a, b, True), (b, c, False)):
            if end > start:
                rows = slice(start, end)
                parts = _flash_backward(
                    grad[:, :, rows], query[:, :, rows], *prompt, out[:, :, rows], lse[:, :, rows], causal, scale
                )  # fmt: skip
                dq[:, :, rows] += parts[0]
                dk[:, :, a:b] += parts[1]
                dv[:, :, a:b] += parts[2]
    if len(layout.own):
        padding = ~layout.valid[:, None, :]
        mine = [_rows(tensor, layout.own) for tensor in (grad, query, k, v, out)]
        mine[0] = mine[0].masked_fill(padding[..., None], 0.0)
        # A padded query repeats token 0; an infinite denominator keeps its weights at zero.
        own_lse = lse[0][:, layout.own].transpose(0, 1).masked_fill(padding, 1e30)
        parts = _flash_backward(*mine, own_lse, True, scale)
        for total, part in zip((dq, dk, dv), parts, strict=True):
            total[0][:, layout.suffix] += part.transpose(0, 1)[:, layout.valid]
    if repeats > 1:
        dk = dk.unflatten(1, (key.shape[1], repeats)).sum(2)
        dv = dv.unflatten(1, (key.shape[1], repeats)).sum(2)
    return dq, dk, dv


def _rows(tensor, index):
    """(1, H, T, d) at (n, R) packed indices → (n, H, R, d)."""
    return tensor[0][:, index].transpose(0, 1)


# ------------------------------------------------------------------------------------------- transformers' interface


def attention_forward(
    module, query, key, value, attention_mask, dropout=0.0, scaling=None, shared_prefix=None, **kwargs
):
    """What transformers calls in every layer of a prepared model: stock SDPA, or ours when a layout came with the call."""
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    if shared_prefix is None:
        stock = ALL_ATTENTION_FUNCTIONS["sdpa"]
        return stock(module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **kwargs)
    extras = [name for name in ("softcap", "s_aux", "position_bias") if kwargs.get(name) is not None]
    if extras:
        raise CannotShare(f"its attention uses {', '.join(extras)}", always=True)
    if dropout:
        raise CannotShare(f"attention dropout is {dropout}")
    window = kwargs.get("sliding_window")
    if window is not None and window < shared_prefix.longest:
        raise CannotShare(
            f"a sliding window of {window} tokens is shorter than a row of {shared_prefix.longest}"
        )
    shared_prefix.calls += 1
    out = attend(query, key, value, shared_prefix, scaling, shared_prefix.route)
    return out.transpose(1, 2).contiguous(), None


@cache
def register() -> str:
    """Make NAME known to transformers; returns NAME."""
    return register_as(NAME, attention_forward)


def register_as(name: str, forward) -> str:
    """Make an attention implementation known to transformers whose masks are SDPA's; returns its name."""
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import sdpa_mask

    AttentionInterface.register(name, forward)
    AttentionMaskInterface.register(name, sdpa_mask)
    return name
