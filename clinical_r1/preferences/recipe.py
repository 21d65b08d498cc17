"""How a stage learns from pairs of answers: the loss and its numbers, each checked before a model is loaded (ours).

The losses are TRL's (`DPOTrainer`). What it takes in silence and does nothing with, or trains to a value that is no number, is
refused here in one sentence.
"""

import math
from dataclasses import dataclass, fields

# TRL 1.14.2; and those of them that read label_smoothing
LOSSES = (
    "sigmoid", "hinge", "ipo", "exo_pair", "nca_pair", "robust", "bco_pair", "sppo_hard", "aot", "aot_unpaired", "apo_zero",
    "apo_down", "discopop", "sft", "sigmoid_norm",
)  # fmt: skip
SMOOTHED = ("robust", "exo_pair", "aot", "aot_unpaired")


@dataclass(frozen=True)
class Recipe:
    """One way to learn from pairs.

    loss_type, loss_weights: TRL's losses and what each counts; beta: > 0, how hard the policy is held near its start. The default
        is DPO (arXiv 2305.18290) with half the negative log-likelihood of the chosen answer: without that term the probability of
        the chosen falls together with that of the rejected (likelihood displacement).
    label_smoothing: in [0, 0.5), the share of pairs taken to be the wrong way round, for the losses of SMOOTHED.
    learning_rate, epochs: of the optimiser; a step takes `Settings.sft_batch` pairs.
    samples: answers to a question that pairs are made of, >= 2; temperature: of these.
    flipped: share of pairs, in [0, 1], whose two answers change places in the data "flipped".
    ValueError for a value that does not fit, or that the chosen losses would not read.
    """

    loss_type: tuple[str, ...] = ("sigmoid", "sft")
    loss_weights: tuple[float, ...] = (1.0, 0.5)
    beta: float = 0.1
    label_smoothing: float = 0.0
    learning_rate: float = 1e-3
    epochs: float = 2.0
    samples: int = 8
    temperature: float = 1.0
    flipped: float = 0.3

    def __post_init__(self):
        for name in ("loss_type", "loss_weights"):
            value = getattr(self, name)
            if isinstance(value, str | int | float):
                value = (value,)
            object.__setattr__(self, name, tuple(value))
        self._check_losses()
        for name, low in (("beta", 0), ("learning_rate", 0), ("epochs", 0), ("temperature", 0)):
            value = getattr(self, name)
            if not _is_number(value) or value <= low:
                raise ValueError(f"{name} is {value!r}; expected a finite number above {low}.")
        if type(self.samples) is not int or self.samples < 2:
            raise ValueError(f"samples is {self.samples!r}; expected a whole number of at least 2.")
        if not _is_number(self.flipped) or not 0 <= self.flipped <= 1:
            raise ValueError(f"flipped is {self.flipped!r}; expected a share from 0 to 1.")

    def _check_losses(self) -> None:
        if unknown := [name for name in self.loss_type if name not in LOSSES]:
            raise ValueError(f"loss_type names {unknown}; expected some of {', '.join(LOSSES)}.")
        if not self.loss_type or len(set(self.loss_type)) < len(self.loss_type):
            raise ValueError(f"loss_type is {self.loss_type}; expected one loss at least, each once.")
        if self.loss_type == ("sft",):
            raise ValueError(
                "loss_type is 'sft' alone, which never looks at the rejected answer; take an arm of stage 'sft' that learns "
                "from 'chosen', or add 'sigmoid'."
            )
        weights = self.loss_weights
        if len(weights) != len(self.loss_type) or not all(_is_number(w) and w > 0 for w in weights):
            raise ValueError(
                f"loss_weights are {weights}; expected {len(self.loss_type)} finite numbers above 0, one for each of "
                f"{', '.join(self.loss_type)}."
            )
        if not _is_number(self.label_smoothing) or not 0 <= self.label_smoothing < 0.5:
            raise ValueError(
                f"label_smoothing is {self.label_smoothing!r}; expected a number in [0, 0.5): at 0.5 robust divides by 0."
            )
        reading = [name for name in self.loss_type if name in SMOOTHED]
        if self.label_smoothing and not reading:
            raise ValueError(
                f"label_smoothing is {self.label_smoothing} and {', '.join(self.loss_type)} would not read it; expected 0, or a "
                f"loss of {', '.join(SMOOTHED)}."
            )
        if "exo_pair" in reading and not self.label_smoothing:
            raise ValueError("exo_pair needs a label_smoothing above 0 (its paper: 0.001), got 0.")


def _is_number(value) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def recipe_of(options) -> Recipe:
    """An arm's options as a recipe. ValueError names an option that is none, such as TRL's former rpo_alpha."""
    options = dict(options)
    known = [item.name for item in fields(Recipe)]
    if unknown := sorted(set(options) - set(known)):
        hint = " (rpo_alpha has become the loss 'sft' and its weight)" if "rpo_alpha" in unknown else ""
        raise ValueError(
            f"a stage of preferences has the options {unknown}; expected some of {', '.join(known)}{hint}."
        )
    return Recipe(**options)
