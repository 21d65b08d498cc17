"""Who speaks for the agent: a language model, or a script. A speaker takes the states of some consultations and returns a turn
for each; it does not know which episodes they belong to.

    speaker(contexts, seeds, consultations) -> turns

contexts: R lists of token ids, the begin of each transcript. seeds: R whole numbers in [0, 2^63); a row's turn is drawn from its
own alone, so that it is the same in any batch (up to the rounding of matrix products). consultations: R, what a script looks at.
turns: R lists of token ids that end with the end token, or are cut.

    speaker.dialogue() -> such a function for consultations that go on, turn after turn, up to speaker.rows of them at once

torch and transformers are imported when called.
"""

import hashlib
import json
from collections.abc import Callable, Sequence

import numpy as np

from clinical_r1.agent.consultation import Consultation
from clinical_r1.agent.dialogue import Dialogue, can_keep
from clinical_r1.agent.language import TURN_TOKENS
from clinical_r1.speed.prefill import shared_prefill


def seed_of(*parts) -> int:
    """A seed in [0, 2^63) from numbers and texts: different parts, unrelated seeds."""
    return int(hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16], 16) % 2**63


class Speaker:
    """A causal language model.

    temperature: > 0 draws, 0 takes the likeliest token. tokens: most of a turn, its end included. draws: as `speed.draws`, where
    "stock" takes no seeds. rows: most that are generated at once. settings: more of a GenerationConfig, such as top_p.
    """

    def __init__(
        self,
        model,
        tokenizer,
        temperature=1.0,
        tokens=TURN_TOKENS,
        draws="inverse_cdf",
        rows=256,
        settings=None,
    ):
        if not temperature >= 0:
            raise ValueError(
                f"got a temperature of {temperature}; expected a number >= 0 (0: the likeliest token)."
            )
        if tokens < 1 or rows < 1:
            raise ValueError(
                f"got {tokens} tokens a turn and {rows} rows at once; expected at least 1 of each."
            )
        self.model, self.tokenizer = model, tokenizer
        self.temperature, self.tokens, self.draws, self.rows = temperature, tokens, draws, rows
        self.settings = dict(settings or {})

    def __call__(self, contexts, seeds: Sequence[int], consultations=None) -> list[list[int]]:
        turns = []
        for start in range(0, len(contexts), self.rows):
            part = slice(start, start + self.rows)
            turns += self._generated(contexts[part], list(seeds[part]))
        return turns

    def dialogue(self):
        """Who speaks in consultations that go on: one that keeps what it has encoded, where that draws the same turns."""
        if can_keep(self.model, self.draws, self.settings):
            return Dialogue(self.model, self.tokenizer, self.temperature, self.tokens)
        return self

    def _config(self):
        from transformers import GenerationConfig

        greedy = self.temperature == 0
        drawn = {} if greedy else {"temperature": self.temperature, "top_k": 0, "top_p": 1.0}
        return GenerationConfig(
            max_new_tokens=self.tokens,
            do_sample=not greedy,
            eos_token_id=self.tokenizer.eos_token_id,
            pad_token_id=self.tokenizer.pad_token_id,
            disable_compile=True,
            **drawn | self.settings,
        )

    def _generated(self, contexts, seeds) -> list[list[int]]:
        import torch

        width, pad = max(map(len, contexts)), self.tokenizer.pad_token_id
        device = self.model.device
        ids = torch.tensor([[pad] * (width - len(c)) + list(c) for c in contexts], device=device)
        mask = torch.tensor([[0] * (width - len(c)) + [1] * len(c) for c in contexts], device=device)
        own = self.temperature > 0 and self.draws != "stock"
        with torch.no_grad(), shared_prefill(self.model, self.draws, seeds if own else None) as model:
            output = model.generate(input_ids=ids, attention_mask=mask, generation_config=self._config())
        return [self._turn(row) for row in output[:, width:].tolist()]

    def _turn(self, row: list[int]) -> list[int]:
        """What follows an end is padding."""
        end = self.tokenizer.eos_token_id
        return row[: row.index(end) + 1] if end in row else row


class Forgetful:
    """A speaker that keeps nothing between two turns."""

    rows = 256

    def dialogue(self):
        """Itself."""
        return self


class Scripted(Forgetful):
    """A policy as a speaker: policy(consultation, generator) -> text of the action."""

    def __init__(self, policy: Callable[[Consultation, np.random.Generator], str], tokenizer):
        self.policy, self.tokenizer = policy, tokenizer

    def __call__(self, contexts, seeds: Sequence[int], consultations) -> list[list[int]]:
        texts = [
            self.policy(consultation, np.random.default_rng(seed))
            for consultation, seed in zip(consultations, seeds, strict=True)
        ]
        encoded = self.tokenizer(texts, add_special_tokens=False)["input_ids"]
        return [[*ids, self.tokenizer.eos_token_id] for ids in encoded]
