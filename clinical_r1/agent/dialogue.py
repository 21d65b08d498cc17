"""Turn after turn of many consultations at once, each token encoded once: keys and values are kept from one turn to the next.

`Speaker` by itself encodes the whole transcript again for every turn, which is half of a rollout's time. Here only what was heard
since is new. Rows are matched by their tokens, in their order; whatever does not continue a row that is kept is encoded whole.

torch and transformers are imported when called.
"""

from collections.abc import Sequence

from clinical_r1.speed.draws import Draws
from clinical_r1.speed.grouped import grouped_heads
from clinical_r1.speed.prefill import fill_cache
from clinical_r1.speed.prefix import VERIFIED_FAMILIES
from clinical_r1.speed.prefix_attention import NAME

NEUTRAL = {"top_p": 1.0, "top_k": 0, "min_p": 0.0, "repetition_penalty": 1.0}  # shaping that changes no score


def can_keep(model, draws: str, settings) -> bool:
    """Whether a model's turns can be drawn here: plain keys and values, and nothing that shapes the scores but a temperature."""
    config = model.config.get_text_config()
    known = config.model_type in VERIFIED_FAMILIES and not getattr(config, "use_sliding_window", False)
    plain = known and model.config._attn_implementation in ("sdpa", NAME)
    # Recomputing activations switches the cache off in training
    plain = plain and not getattr(model, "is_gradient_checkpointing", False)
    shaped = any(settings.get(name) not in (None, value) for name, value in NEUTRAL.items())
    more = set(settings) - set(NEUTRAL)
    return plain and not shaped and not more and draws == "inverse_cdf"


class Dialogue:
    """The next turns of rows that come again, a few fewer each time: dialogue(contexts, seeds) -> turns, as a speaker's.

    model, tokenizer, temperature, tokens: of the `Speaker`. The weights must not change while a dialogue goes on.
    """

    def __init__(self, model, tokenizer, temperature: float, tokens: int):
        self.model, self.tokenizer = model, tokenizer
        self.temperature, self.tokens = temperature, tokens
        self._cache, self._held = None, []
        self._valid = None  # (R, L): which places of the cache are tokens

    def __call__(self, contexts: Sequence[Sequence[int]], seeds, consultations=None) -> list[list[int]]:
        import torch

        with torch.inference_mode(), grouped_heads(self.model):
            rows = self._rows(contexts)
            if rows is None:
                self._encode(contexts)
            else:
                self._keep(rows)
                self._hear(contexts)
            turns = self._say(contexts, seeds)
        self._held = [[*context, *turn] for context, turn in zip(contexts, turns, strict=True)]
        return turns

    def _rows(self, contexts) -> list[int] | None:
        """Which kept row each context continues, or None where one continues none."""
        rows, at = [], 0
        for context in contexts:
            while at < len(self._held) and list(context[: len(self._held[at])]) != self._held[at]:
                at += 1
            if at == len(self._held) or len(context) == len(self._held[at]):
                return None
            rows.append(at)
            at += 1
        return rows

    def _encode(self, contexts) -> None:
        """All but the last token of every context, into a new cache; equal ones run once."""
        from transformers import DynamicCache

        ids, mask = self._padded(contexts)
        self._cache, self._valid = DynamicCache(config=self.model.config), mask[:, :-1].bool()
        if ids.shape[1] > 1:
            position = (mask.cumsum(-1) - 1).clamp(min=0)
            fill_cache(self.model, self._cache, ids, mask, position)

    def _keep(self, rows: list[int]) -> None:
        import torch

        if len(rows) < len(self._held):
            kept = torch.tensor(rows, device=self._valid.device)
            self._cache.batch_select_indices(kept)
            self._valid = self._valid[kept]

    def _hear(self, contexts) -> None:
        """What is new of every context, but for its last token."""
        counts = self._valid.sum(1).tolist()
        new = [context[count:-1] for context, count in zip(contexts, counts, strict=True)]
        if any(new):
            ids, mask = self._padded(new)
            self._feed(ids, mask.bool())

    def _padded(self, rows):
        """(ids, mask), both (R, W), padded on the left."""
        import torch

        width, device = max(map(len, rows)), self.model.device
        ids = [[self.tokenizer.pad_token_id] * (width - len(row)) + list(row) for row in rows]
        mask = [[0] * (width - len(row)) + [1] * len(row) for row in rows]
        return torch.tensor(ids, device=device), torch.tensor(mask, device=device)

    def _feed(self, ids, real):
        """Run (R, W) tokens behind the cache, of which `real` (R, W) are no padding; scores (R, V) after the last."""
        import torch

        before, width = self._valid.sum(1, keepdim=True), ids.shape[1]
        position = (before + real.cumsum(1) - 1).clamp(min=0)
        past = self._valid[:, None, None].expand(-1, 1, width, -1)
        causal = torch.ones(width, width, dtype=torch.bool, device=ids.device).tril()
        # A place of padding sees itself, so that no row of the softmax is empty; nobody sees it later
        now = (real[:, None, None] & causal) | torch.eye(width, dtype=torch.bool, device=ids.device)
        output = self.model(
            input_ids=ids,
            attention_mask=torch.cat([past, now.expand(len(ids), 1, width, width)], dim=-1),
            position_ids=position,
            past_key_values=self._cache,
            use_cache=True,
            logits_to_keep=1,
        )
        self._valid = torch.cat([self._valid, real], dim=1)
        return output.logits[:, -1].float()

    def _say(self, contexts, seeds) -> list[list[int]]:
        """One turn of each row, drawn token by token."""
        import torch

        last = torch.tensor([[context[-1]] for context in contexts], device=self.model.device)
        rows, end = len(contexts), self.tokenizer.eos_token_id
        draw = Draws("inverse_cdf", rows, self.tokens, list(seeds), last.device) if self.temperature else None
        live, every = (
            torch.ones(rows, dtype=torch.bool, device=last.device),
            torch.arange(rows, device=last.device),
        )
        said = []
        for step in range(self.tokens):
            scores = self._feed(last, live[:, None])
            chosen = scores.argmax(-1) if draw is None else draw(scores / self.temperature, every, step)
            said.append(chosen.masked_fill(~live, end))
            live = live & (chosen != end)
            last = chosen[:, None]
            if not live.any():
                break
        turns = torch.stack(said, dim=1).tolist()
        return [turn[: turn.index(end) + 1] if end in turn else turn for turn in turns]
