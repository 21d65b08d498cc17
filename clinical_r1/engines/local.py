"""A policy of this run answers through Transformers, in this process.

Equal prompts are encoded once and answers that have ended leave the batch (`speed.prefill`). A trained adapter is added into its
base's weights when it is loaded, where that changes nothing but rounding (`load`). Each sampled answer is drawn from its
own seed, so what stands beside it in the batch changes it by the rounding of matrix products alone.

torch, transformers and peft are imported when called.
"""

import gc
import sys
from collections.abc import Sequence
from pathlib import Path

from clinical_r1.engines.protocol import check_prompts, decoding, until_end
from clinical_r1.models import load_policy, load_tokenizer
from clinical_r1.prompts import render_chat
from clinical_r1.settings import Settings
from clinical_r1.speed.merged import adapted_layers, why_not
from clinical_r1.speed.prefill import shared_prefill


def load(name: str, settings: Settings, adapter: str | Path | None = None) -> "Transformers":
    """An engine of a base model and the adapter that is laid on it. Errors as `models.load_policy`.

    In float32 and float64 a LoRA adapter is merged: one matrix a layer instead of three. In half precision it stays beside its
    base, as in training, for the sum would be rounded to the grid of the base's weights and lose the small changes; so it does on
    4-bit weights, with Unsloth, and where `speed.merged.why_not` has another reason. `Transformers.identity` says which.
    """
    model = load_policy(name, settings, adapter)
    if adapter is None:
        return Transformers(model, load_tokenizer(name))
    reason = "Unsloth's own layers" if settings.backend == "unsloth" else why_not(adapted_layers(model))
    if reason is None:
        return Transformers(model.merge_and_unload(progressbar=False), load_tokenizer(name), "merged")
    return Transformers(model, load_tokenizer(name), f"beside its base: {reason}")


class Transformers:
    """An engine (`engines.protocol`) around a loaded model and its tokenizer.

    adapter: how the model holds its adapter, for the record; None for a model that has none.
    """

    def __init__(self, model, tokenizer, adapter: str | None = None):
        self.model, self.tokenizer, self.adapter = model, tokenizer, adapter
        self._rows = None  # how many prompts fit at once, where memory has run out before

    @property
    def identity(self) -> dict:
        """{"answered_in": what the weights are answered in, such as "bfloat16" or "float16, 4-bit base"}, and, with an adapter,
        {"adapter": "merged" or "beside its base: <why>"}.
        """
        four_bit = ", 4-bit base" if getattr(self.model, "is_loaded_in_4bit", False) else ""
        held = {"adapter": self.adapter} if self.adapter else {}
        return {"answered_in": str(self.model.dtype).removeprefix("torch.") + four_bit} | held

    def prompt(self, messages: list[dict], forced: str = "") -> str:
        return render_chat(self.tokenizer, messages) + forced

    def check(self, prompts: Sequence[str], settings: Settings, what: str) -> None:
        check_prompts(self.model, self.tokenizer, prompts, settings, what)

    def answer(
        self, prompts: Sequence[str], settings: Settings, protocol: str, seeds: Sequence[int]
    ) -> list[dict]:
        """All prompts at once, or in halves where memory runs out, which is said; with stock draws, whose every number depends
        on the whole batch, that is torch.OutOfMemoryError, as it is for a single prompt.
        """
        import torch

        # more threads than free cores make small models many times slower
        torch.set_num_threads(settings.threads)
        answers = []
        while len(answers) < len(prompts):
            rows, done = self._rows or len(prompts), len(answers)
            part = slice(done, done + rows)
            try:
                answers += self._answered(prompts[part], settings, protocol, seeds[part])
            except torch.OutOfMemoryError:
                rows = min(rows, len(prompts) - done)
                if rows == 1 or not _rows_are_their_own(settings, protocol):
                    raise
                self._rows = rows // 2
            else:
                continue
            gc.collect()  # out of the handler, whose traceback still holds the tensors
            torch.cuda.empty_cache()
            print(
                f"memory ran out on {rows} answers at once: {self._rows} at a time from here on; lower eval_batch.",
                file=sys.stderr,
            )
        return answers

    def _answered(self, prompts, settings: Settings, protocol: str, seeds) -> list[dict]:
        import torch

        encoded = self.tokenizer(
            list(prompts), return_tensors="pt", padding=True, add_special_tokens=False
        ).to(self.model.device)
        temperature = settings.eval_temperature if protocol == "sampled" else 0.0
        options = decoding(
            self.model, self.tokenizer, settings.max_completion_tokens, temperature, settings.eval_top_p
        )
        given = {"input_ids": encoded["input_ids"], "attention_mask": encoded["attention_mask"]}
        devices = [self.model.device] if self.model.device.type == "cuda" else []
        with torch.random.fork_rng(devices), torch.inference_mode():
            torch.manual_seed(seeds[0])
            if settings.backend == "unsloth":  # it has a loop of its own
                output = self.model.generate(**given, **options)
            else:
                own = _rows_are_their_own(settings, protocol) and options["do_sample"]
                with shared_prefill(self.model, settings.draws, list(seeds) if own else None) as model:
                    output = model.generate(**given, **options)
        ends, width = set(options["eos_token_id"]), encoded["input_ids"].shape[1]
        return [self._read(ids, ends) for ids in output[:, width:].tolist()]

    def _read(self, ids: list[int], ends) -> dict:
        kept, ended = until_end(ids, ends)
        text = self.tokenizer.decode(kept, skip_special_tokens=True)
        return {"text": text, "finish_reason": "stop" if ended else "length", "tokens": len(kept)}


def _rows_are_their_own(settings: Settings, protocol: str) -> bool:
    """Whether an answer is the same in any batch, up to rounding: greedy ones, and those drawn from seeds of their own."""
    sampled = protocol == "sampled" and settings.eval_temperature > 0
    return not sampled or (settings.draws == "inverse_cdf" and settings.backend == "trl")
