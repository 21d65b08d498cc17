"""A policy of this run answers through Transformers, in this process."""

from collections.abc import Sequence

from clinical_r1.engines.protocol import check_prompts, decoding, until_end
from clinical_r1.prompts import render_chat
from clinical_r1.settings import Settings


class Transformers:
    """An engine (`engines.protocol`) around a loaded model and its tokenizer."""

    def __init__(self, model, tokenizer):
        self.model, self.tokenizer = model, tokenizer

    @property
    def identity(self) -> dict:
        """{"answered_in": what the weights are answered in, such as "bfloat16" or "float16, 4-bit base"}."""
        four_bit = ", 4-bit base" if getattr(self.model, "is_loaded_in_4bit", False) else ""
        return {"answered_in": str(self.model.dtype).removeprefix("torch.") + four_bit}

    def prompt(self, messages: list[dict], forced: str = "") -> str:
        return render_chat(self.tokenizer, messages) + forced

    def check(self, prompts: Sequence[str], settings: Settings, what: str) -> None:
        check_prompts(self.model, self.tokenizer, prompts, settings, what)

    def answer(
        self, prompts: Sequence[str], settings: Settings, protocol: str, seeds: Sequence[int]
    ) -> list[dict]:
        import torch

        # more threads than free cores make small models many times slower
        torch.set_num_threads(settings.threads)
        encoded = self.tokenizer(
            list(prompts), return_tensors="pt", padding=True, add_special_tokens=False
        ).to(self.model.device)
        temperature = settings.eval_temperature if protocol == "sampled" else 0.0
        options = decoding(
            self.model, self.tokenizer, settings.max_completion_tokens, temperature, settings.eval_top_p
        )
        devices = [self.model.device] if self.model.device.type == "cuda" else []
        with torch.random.fork_rng(devices), torch.inference_mode():
            torch.manual_seed(seeds[0])
            output = self.model.generate(
                input_ids=encoded["input_ids"], attention_mask=encoded["attention_mask"], **options
            )
        answers = []
        for ids in output[:, encoded["input_ids"].shape[1] :].tolist():
            kept, ended = until_end(ids, options["eos_token_id"])
            text = self.tokenizer.decode(kept, skip_special_tokens=True)
            answers.append(
                {"text": text, "finish_reason": "stop" if ended else "length", "tokens": len(kept)}
            )
        return answers
