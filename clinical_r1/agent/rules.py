"""What a consultation allows, and what it costs: the rules that a world, an agent and its reference policies share (ours)."""

import math
import numbers
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType

VERBS = ("ask", "examine", "test")


def whole(name: str, value, least: int) -> None:
    """ValueError unless a value is a whole number of at least `least`: 2.5 turns never come to an end."""
    if isinstance(value, bool) or not isinstance(value, numbers.Integral) or value < least:
        raise ValueError(f"got {name} {value!r}; expected a whole number of at least {least}.")


@dataclass(frozen=True)
class Rules:
    """What a consultation allows, and what it costs.

    horizon: turns, the diagnosis included. menu: findings on offer, named in the prompt; None: all that concern the options, none
    of them named. earliest: first turn (from 1) at which a diagnosis is accepted. costs: reward taken by each verb and by an
    "invalid" turn, >= 0; a right diagnosis pays 1. ValueError for what does not fit.
    """

    horizon: int = 5
    menu: int | None = 8
    earliest: int = 3
    costs: Mapping[str, float] = field(default_factory=lambda: MappingProxyType({"invalid": 0.1}))

    def __post_init__(self):
        for name, value in (("horizon", self.horizon), ("earliest", self.earliest), ("menu", self.menu)):
            if name != "menu" or value is not None:
                whole(name, value, 1)
        if not 1 <= self.earliest <= self.horizon:
            raise ValueError(
                f"got earliest {self.earliest} and horizon {self.horizon}; expected 1 <= earliest <= horizon, or nobody may "
                "ever diagnose."
            )
        if self.menu is not None and self.menu < self.horizon - 1:
            raise ValueError(
                f"got a menu of {self.menu} for a horizon of {self.horizon}; expected at least {self.horizon - 1} findings, "
                "one for each turn before the last."
            )
        known = (*VERBS, "invalid")
        if not isinstance(self.costs, Mapping):
            raise ValueError(f"got the costs {self.costs!r}; expected {{verb: cost}} of {', '.join(known)}.")
        for name, cost in self.costs.items():
            number = isinstance(cost, int | float) and not isinstance(cost, bool) and math.isfinite(cost)
            if name not in known or not number or cost < 0:
                raise ValueError(
                    f"got a cost of {cost!r} for {name!r}; expected a finite number >= 0 for one of {', '.join(known)}."
                )
        object.__setattr__(self, "costs", MappingProxyType(dict(self.costs)))

    def with_costs(self, **costs: float) -> "Rules":
        """The same rules with other costs, those that are not named unchanged."""
        return replace(self, costs={**self.costs, **costs})

    def to_json(self) -> dict:
        return {
            "horizon": self.horizon,
            "menu": self.menu,
            "earliest": self.earliest,
            "costs": dict(self.costs),
        }
