"""Shared-prefix training on TRL's trainer: each prompt is encoded once per group. Same losses, same gradients.

    class Trainer(SharedPrefixMixin, trl.GRPOTrainer): ...          (or before any subclass of it; `train` does so)

TRL asks one method for log-probabilities, for the policy, the old policy and the reference alike; it is overridden here, and
the shuffle between generation and training keeps groups together. Where the shared form would not be exact or would not
pay, the stock method answers and the log says why, once. `prefix_attention` packs and attends, `cost` predicts.

A micro-batch that does not fit on the device is taken in halves, whose activations are computed again in the backward pass:
the loss still sees all its rows, so no result changes, whatever the loss.

Logged at every step:
shared_prefix/tokens    tokens that went through the layers as a share of stock's, (0, 1]; 1 where the stock method answered

torch, transformers and trl are imported when called.
"""

import logging
import math
from collections import defaultdict
from contextlib import nullcontext
from functools import partial

from clinical_r1.speed.cost import seconds_in_turn, shape_of, shared_cost, stock_cost
from clinical_r1.speed.exactness import (
    active_dropout,
    agreed,
    differences,
    draws_are_kept,
    draws_are_noticed,
    rope_limit,
    rows_to_verify,
    unlike,
    unshareable,
    ways_to_verify,
)
from clinical_r1.speed.head import chunk_tokens, is_frozen, scorer, scores_are_left_alone, scores_for_logits
from clinical_r1.speed.merged import merged_for_training
from clinical_r1.speed.prefix_attention import CannotShare, Layouts, register, route_for

THRESHOLD = 1.15  # predicted speed-up below which a micro-batch is left to the stock method

# Compared with the stock trainer in the tests, on a CPU. Another family, or another device, is compared at first use.
VERIFIED_FAMILIES = ("qwen2", "qwen3", "llama", "mistral")

OTHER_PROCESS = "another process cannot share its rows"
STOCK_KEYWORDS = ("batch_size", "compute_entropy", "compute_aux_loss")
log = logging.getLogger(__name__)


class GroupShuffleMixin:
    """Groups stay together between generation and training. All that a backend with a shared prefix of its own needs."""

    _again = False  # the next inputs are those of the step that failed

    def _prepare_inputs(self, generation_batch):
        """As TRL's, but whole groups are shuffled: in the order in which its shuffle of rows first meets them."""
        if not self.model.training or self._is_vlm:
            return super()._prepare_inputs(generation_batch)
        from trl.trainer.utils import split_tensor_dict

        steps = self.args.steps_per_generation
        again, self._again = self._again, False
        due = self._step % (steps * self.num_iterations) == 0 and not again
        if due or self._buffered_inputs is None:
            batch = self._generate_and_score_completions(generation_batch)
            check_groups(batch["prompt_ids"], batch["prompt_mask"], self.num_generations)
            self._buffered_inputs = split_tensor_dict(shuffle_groups(batch, self.num_generations), steps)
        return self._buffered_inputs[self._step % steps]


class SharedPrefixMixin(GroupShuffleMixin):
    """Comes before `trl.GRPOTrainer` (or a subclass) among the bases. Two keywords more than the trainer's:

    shared_prefix_threshold: predicted speed-up from which a micro-batch is shared (default THRESHOLD; 0: always).
    shared_prefix_route: one of `prefix_attention.ROUTES`; None (default) takes the device's own.
    shared_prefix_measure: whether predictions are corrected by one measurement, both ways in turn on the first micro-batch;
        None (default): on every device but the CPU, whose costs were fitted.

    The models' attention implementation becomes "shared_prefix", which is SDPA unless a layout comes with the call.
    ValueError when micro-batches would cut groups into unequal parts, or when rows of a group differ in their prompt.
    """

    def __init__(
        self,
        *args,
        shared_prefix_threshold=THRESHOLD,
        shared_prefix_route=None,
        shared_prefix_measure=None,
        **kwargs,
    ):
        super().__init__(*args, **kwargs)
        self.shared_prefix_measure = shared_prefix_measure
        self.shared_prefix_threshold = shared_prefix_threshold
        self.shared_prefix_route = shared_prefix_route
        self._prefix_reasons, self._prefix_models, self._decoders = [], {}, {}
        self._row_limit, self._prepared = None, (None, {})
        self._layouts = Layouts(2 * self.args.steps_per_generation)
        rows, group = self.args.per_device_train_batch_size, self.num_generations
        if rows % group and group % rows:
            raise ValueError(
                f"per_device_train_batch_size {rows} and num_generations {group} cut groups into unequal parts; expected one "
                "to divide the other, best a multiple of num_generations."
            )
        if rows * self.args.steps_per_generation % group:
            raise ValueError(
                f"{rows} rows a pass times {self.args.steps_per_generation} passes cut a group of {group} between processes; "
                f"expected a multiple of num_generations {group} on every process."
            )

    # --- log-probabilities

    def _get_per_token_logps_and_entropies(self, model, input_ids, attention_mask, logits_to_keep, **kwargs):
        """TRL's contract: ((N, R) log-probabilities, (N, R) entropies or None, auxiliary loss or None)."""
        import torch

        call = (input_ids, attention_mask, logits_to_keep)
        while True:
            try:
                if self._row_limit is None or self._row_limit >= len(input_ids):
                    return self._logps(model, *call, **kwargs)
                return self._logps_in_pieces(model, *call, **kwargs)
            except torch.OutOfMemoryError as problem:
                self._halve(len(input_ids), problem, kwargs)

    def _logps_in_pieces(self, model, input_ids, attention_mask, logits_to_keep, **kwargs):
        """At most `_row_limit` rows at a time; with gradients, only one piece's activations exist at any time."""
        import torch
        from torch.utils.checkpoint import checkpoint

        call = partial(self._logps, **kwargs)
        if torch.is_grad_enabled():
            call = partial(checkpoint, call, use_reentrant=False)
        pieces = zip(input_ids.split(self._row_limit), attention_mask.split(self._row_limit), strict=True)
        parts = [call(model, ids, mask, logits_to_keep) for ids, mask in pieces]
        logps, entropies, _ = zip(*parts, strict=True)
        return torch.cat(logps), None if entropies[0] is None else torch.cat(entropies), None

    def _logps(self, model, input_ids, attention_mask, logits_to_keep, batch_size=None, **kwargs):
        """Shared where that is exact and pays, stock otherwise: the same for all processes, or one would wait for another."""
        call = (input_ids, attention_mask, logits_to_keep)
        layouts, costs, reason = [], (0.0, 0.0), self._why_not(model, input_ids.shape[1], kwargs)
        if reason is None:
            try:
                layouts = self._layouts.of(*call, batch_size or len(input_ids))
                costs = self._costs(model, layouts, input_ids.shape[1] - logits_to_keep, logits_to_keep)
            except CannotShare as problem:
                reason = str(problem)
        anywhere, stock, shared = agreed((float(reason is not None), *costs), self.accelerator)
        if not anywhere:
            answer, reason = self._shared_logps(model, *call, layouts, stock, shared, kwargs)
            if reason is None:
                self._log_tokens(sum(x.tokens for x in layouts), sum(x.padded_tokens for x in layouts))
                return answer
        self._say_once(reason or OTHER_PROCESS)
        self._log_tokens(1, 1)
        return super()._get_per_token_logps_and_entropies(model, *call, batch_size=batch_size, **kwargs)

    def _shared_logps(self, model, input_ids, attention_mask, logits_to_keep, layouts, stock, shared, kwargs):
        """(what TRL's method returns, None), or (None, why not) on every process. stock, shared: predicted, the slowest's."""
        import torch

        call = (input_ids, attention_mask, logits_to_keep)
        with draws_are_kept(input_ids.device):
            self._verify_once(model, *call, layouts[0])
            reason = self._why_not(model, 0, kwargs) or self._why_slow(model, *call, layouts, stock / shared)
        if reason is not None:
            return None, reason
        parts, entropy = [], kwargs.get("compute_entropy", False)
        try:
            with draws_are_noticed(input_ids.device):
                for layout, ids in zip(layouts, input_ids.split(len(layouts[0].lengths)), strict=True):
                    parts.append(self._packed_logps(model, layout, ids[:, -logits_to_keep:], entropy))
        except CannotShare as problem:
            reason = str(problem)
            if problem.always or problem.drawn:
                self._state(model)["why_training" if problem.drawn and model.training else "why"] = reason
        if any(agreed((float(reason is not None),), self.accelerator)):
            return None, reason or OTHER_PROCESS
        logps, entropies = zip(*parts, strict=True)
        return (torch.cat(logps), torch.cat(entropies) if entropy else None, None), None

    def _packed_logps(self, model, layout, completion_ids, compute_entropy, call=None, chunk=None):
        """One micro-batch: ((N, R), (N, R) or None). call: what to call in the model's place; chunk: tokens of the head's."""
        import torch

        decoder, state = self._decoder(model), self._state(model)
        layout.calls, device = 0, layout.source.device
        layout.route = self.shared_prefix_route or route_for(device.type, state["head_size"], layout.tokens)
        keep = {"logits_to_keep": layout.predict} if "logits_to_keep" in self.model_kwarg_keys else {}
        target = completion_ids.reshape(-1)[layout.cell][None]
        score = scorer(compute_entropy, self.temperature, self._entropy_bonus_enabled)
        bonus = compute_entropy and self._entropy_bonus_enabled
        frozen = not torch.is_grad_enabled() or (is_frozen(decoder.get_output_embeddings()) and not bonus)
        if not (keep and state["chunks"]):
            chunk = None
        elif chunk is None:
            size = state["shape"].vocabulary, next(decoder.parameters()).element_size()
            chunk = chunk_tokens(len(layout.cell), *size, frozen)
        # What is compared at first use computes in a precision of its own, which merged layers do not know.
        with merged_for_training(model, decoder) if call is None else nullcontext():
            with scores_for_logits(decoder.get_output_embeddings(), score, target, chunk, frozen):
                output = (call or model)(
                    input_ids=layout.input_ids,
                    position_ids=layout.position_ids,
                    # Four dimensions tell transformers that nothing has to be made; the attention below never reads it.
                    attention_mask=torch.ones(1, 1, 1, 1, dtype=torch.bool, device=device),
                    use_cache=False,
                    shared_prefix=layout,
                    **keep,
                )
        layers = decoder.config.get_text_config().num_hidden_layers
        if layout.calls != layers:
            interface = f"{layout.calls} of its {layers} layers use transformers' attention interface"
            raise CannotShare(interface, always=True)
        logits = output.logits if keep else output.logits[:, layout.predict]
        values = logits.unbind(-1) if chunk else score(logits, target)
        empty = values[0].new_zeros(completion_ids.numel())
        placed = [empty.index_copy(0, layout.cell, value[0]).view(completion_ids.shape) for value in values]
        if not compute_entropy:
            return placed[0], None
        return placed[0], placed[1] if bonus else placed[1].detach()

    # --- when not

    def _decoder(self, model):
        """The transformers model under wrappers of accelerate and PEFT, which are looked through once: that walks all modules."""
        if id(model) not in self._decoders:
            bare = self.accelerator.unwrap_model(model)
            bare = bare.get_base_model() if hasattr(bare, "get_base_model") else bare
            self._decoders[id(model)] = model, bare  # the wrapper is kept, so that no other can have its id
        return self._decoders[id(model)][1]

    def _state(self, model) -> dict:
        """What is known of a model; it is prepared at its first call."""
        decoder = self._decoder(model)
        state = self._prefix_models.get(id(decoder))
        if state is None:
            why = unshareable(decoder)
            state = self._prefix_models[id(decoder)] = {"why": why, "why_training": None, "speed": None}
            if why is None:
                config = decoder.config.get_text_config()
                decoder.set_attn_implementation(register())
                state["shape"], state["rope_limit"] = shape_of(decoder), rope_limit(config)
                state["head_size"] = state["shape"].attention // config.num_attention_heads
                state["chunks"] = scores_are_left_alone(decoder)
                met = config.model_type in VERIFIED_FAMILIES
                state["verified"] = met and decoder.device.type == "cpu"
        return state

    def _why_not(self, model, length, kwargs) -> str | None:
        """Why this process must send this call to the stock method, or None."""
        if kwargs.get("compute_aux_loss"):
            return "the router's auxiliary loss counts every row's tokens"
        if any(value is not None for key, value in kwargs.items() if key not in STOCK_KEYWORDS):
            return "prompts hold images"
        if getattr(self, "use_liger_kernel", False):
            return "use_liger_kernel scores completions its own way"
        state = self._state(model)
        if state["why"] is None and model.training:
            if p := active_dropout(self._decoder(model)):
                return f"dropout of {p} draws for every row"
            if state["why_training"] is not None:
                return state["why_training"]
        if state["why"] is None and state["rope_limit"] is not None and length >= state["rope_limit"]:
            return f"from {state['rope_limit']} tokens on, rotary angles depend on the length of the padded batch"
        return state["why"]

    def _costs(self, model, layouts, prompt, completion) -> tuple[float, float]:
        """Predicted operations of stock and of ours."""
        shape = self._state(model)["shape"]
        stock = shared = 0.0
        for layout in layouts:
            rows = len(layout.lengths)
            padded = sum(layout.prompt_lengths) < prompt * len(layout.groups)
            padded = padded or sum(layout.lengths) < completion * rows
            device = layout.source.device.type
            stock += stock_cost(shape, rows, prompt, completion, padded, device)
            shared += shared_cost(shape, layout.sizes(), device)
        return stock, shared

    def _why_slow(self, model, input_ids, attention_mask, logits_to_keep, layouts, predicted) -> str | None:
        """Why sharing does not pay, or None. Where no cost model was fitted, the prediction is corrected by a measurement."""
        state, device = self._state(model), input_ids.device
        measured = device.type != "cpu" if self.shared_prefix_measure is None else self.shared_prefix_measure
        if measured and state["speed"] is None:
            rows = slice(0, len(layouts[0].lengths))
            call = input_ids[rows], attention_mask[rows], logits_to_keep
            ids = call[0][:, -logits_to_keep:]
            stock = partial(super()._get_per_token_logps_and_entropies, model, *call)
            shared = partial(self._packed_logps, model, layouts[0], ids, False)
            stock, shared = seconds_in_turn([stock, shared], device)
            stock, shared = agreed((stock, shared), self.accelerator)
            state["speed"] = stock / shared / predicted
            first = "shared prefix: %.2f times stock's speed on the first micro-batch, predicted %.2f"
            log.info(first, stock / shared, predicted)
        found = predicted * (state["speed"] or 1.0)
        if found < self.shared_prefix_threshold:
            return f"the predicted speed-up {found:.2f} is under {self.shared_prefix_threshold}"
        return None

    def _verify_once(self, model, input_ids, attention_mask, logits_to_keep, layout) -> None:
        """A family or device that no test has met: rows computed alone and shared, in float32 and as the model runs.

        Sets "verified" or "why" of the model, alike on all processes.
        """
        state, decoder = self._state(model), self._decoder(model)
        if state["verified"] or state["why"] is not None:
            return
        reentrant = (self.args.gradient_checkpointing_kwargs or {}).get("use_reentrant")
        reentrant = reentrant and model.training and decoder.is_gradient_checkpointing
        rows = rows_to_verify(input_ids, attention_mask, logits_to_keep, layout)
        family = decoder.config.get_text_config().model_type
        for precision, allowed, within in ways_to_verify(self.accelerator.unwrap_model(model), decoder):
            with within as (call, leaves):
                packed, alone = partial(self._four_packed, model, call), partial(self._row_alone, call)
                try:
                    found, reason = differences(packed, alone, rows, [] if reentrant else leaves), None
                    drawn = False
                except CannotShare as problem:
                    found, reason = (math.inf,) * 3, str(problem)
                    drawn = problem.drawn and model.training
            found = agreed(found, self.accelerator)
            if not all(difference <= most for difference, most in zip(found, allowed, strict=True)):
                reason = reason or unlike(family, precision, found, allowed)
                state["why_training" if drawn else "why"] = reason
                return
            log.info("shared prefix: %s verified in %s, largest difference %.2g", family, precision, found[1])
        state["verified"] = True

    def _four_packed(self, model, call, ids, mask, keep):
        (layout,) = Layouts().of(ids, mask, keep, len(ids))
        chunk = max(len(layout.cell) // 3, 1)
        with draws_are_noticed(ids.device):
            return self._packed_logps(model, layout, ids[:, -keep:], False, call, chunk)[0]

    def _row_alone(self, call, ids, mask, keep):
        return super()._get_per_token_logps_and_entropies(call, ids, mask, keep)[0]

    def _say_once(self, reason):
        if reason not in self._prefix_reasons:
            self._prefix_reasons.append(reason)
            log.warning("shared prefix: left to the stock trainer: %s.", reason)

    def _log_tokens(self, ours, stock):
        mode = "train" if self.model.training else "eval"
        self._metrics[mode]["shared_prefix/tokens"].append(ours / stock)

    # --- a device that is too small

    def _prepare_inputs(self, generation_batch):
        inputs = super()._prepare_inputs(generation_batch)
        logged = {key: list(values) for key, values in self._metrics["train"].items()}
        self._prepared = self._step, logged
        return inputs

    def training_step(self, model, inputs, num_items_in_batch=None):
        """TRL's, tried again with half the rows a forward pass when the backward pass runs out of memory."""
        import torch

        before = [p.grad if p.grad is None else p.grad.clone() for p in self._kept_gradients(model)]
        while True:
            try:
                return super().training_step(model, inputs, num_items_in_batch)
            except torch.OutOfMemoryError as problem:
                step, logged = self._prepared
                if step != self._step:
                    raise  # in the rollouts, which no smaller forward pass can help
                self._halve(self.args.per_device_train_batch_size, problem, {})
                self._restore_gradients(model, before)
                self._metrics["train"] = defaultdict(list, {key: list(kept) for key, kept in logged.items()})
                self._again = True  # the same completions, not new ones

    def _kept_gradients(self, model) -> list:
        """Parameters whose gradients are copied before a backward pass that may fail: an adapter's, of which a copy is small."""
        trained = [p for p in model.parameters() if p.requires_grad]
        small = sum(p.numel() for p in trained) * 10 < sum(p.numel() for p in model.parameters())
        return trained if small or model.device.type == "cpu" else []

    def _restore_gradients(self, model, before):
        kept = self._kept_gradients(model)
        spoilt = [p for p in model.parameters() if p.grad is not None] if not kept else []
        if spoilt and self.current_gradient_accumulation_steps > 1:
            raise RuntimeError(
                "out of memory in a backward pass, with gradients of earlier micro-batches of which no copy was kept (a copy "
                "is kept for adapters only); start again from the last checkpoint with half the micro_batch."
            )
        for p in spoilt:
            p.grad = None
        for p, gradient in zip(kept, before, strict=True):
            p.grad = gradient if gradient is None else gradient.clone()

    def _halve(self, rows, problem, kwargs):
        """Half the rows a forward pass from now on, with a sentence; raises `problem` again where that cannot help."""
        import torch

        rows = min(rows, self._row_limit or rows)
        images = any(value is not None for key, value in kwargs.items() if key not in STOCK_KEYWORDS)
        if rows == 1 or images or kwargs.get("compute_aux_loss"):
            raise problem
        # In a process alone: the others would wait for ever for the passes of the one that halves.
        if self.accelerator.num_processes > 1:
            raise RuntimeError(
                f"out of memory with {rows} rows in a forward pass on one of {self.accelerator.num_processes} processes; start "
                "again from the last checkpoint with half the micro_batch (it halves by itself in a single process only)."
            ) from problem
        self._row_limit = (rows + 1) // 2
        log.warning(
            "out of memory with %d rows in a forward pass: going on with %d at a time, results unchanged (%s)",
            rows, self._row_limit, str(problem).splitlines()[0] if str(problem) else type(problem).__name__,
        )  # fmt: skip
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def check_groups(prompt_ids, prompt_mask, num_generations: int) -> None:
    """ValueError unless prompts (N, P) come in runs of `num_generations` equal rows, naming the first group that differs."""
    rows = len(prompt_ids)
    if rows % num_generations:
        raise ValueError(
            f"a batch of {rows} completions is not a multiple of num_generations {num_generations}; change one of the two."
        )
    known = prompt_ids.masked_fill(prompt_mask == 0, -1).view(-1, num_generations, prompt_ids.shape[1])
    differ = (known != known[:, :1]).any(dim=2).any(dim=1)
    if differ.any():
        group = int(differ.nonzero()[0])
        first = group * num_generations
        raise ValueError(
            f"rows {first}..{first + num_generations - 1} of the batch are one group but differ in their prompt; expected "
            f"{num_generations} completions of the same prompt in a row (a sampler or rollout of your own changed them?)."
        )


def shuffle_groups(batch: dict, num_generations: int) -> dict:
    """Rows of every entry permuted by whole groups. One draw of torch's generator, the same as TRL's shuffle of rows."""
    import torch

    rows = len(batch["prompt_ids"])
    order = dict.fromkeys((torch.randperm(rows) // num_generations).tolist())
    index = [group * num_generations + i for group in order for i in range(num_generations)]

    def permuted(value):
        if value is None or (isinstance(value, torch.Tensor) and value.ndim == 0):
            return value
        return value[index] if isinstance(value, torch.Tensor) else [value[i] for i in index]

    return {key: permuted(value) for key, value in batch.items()}
