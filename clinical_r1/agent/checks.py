"""What an experiment with agents may be, checked before anything is played or trained: its settings, and what it starts from."""

import math
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from clinical_r1.agent.arms import AGENT_ARMS, AgentSettings
from clinical_r1.agent.consultation import Rules
from clinical_r1.agent.language import MOST_TURNS
from clinical_r1.files import read_json

MOST_SEED = 2**32 - 1  # the largest that numpy's global generator takes, which TRL seeds
# Whole numbers of the settings -> the least that makes sense: credit compares the episodes of a patient, so it needs two
LEAST = {
    **dict.fromkeys(("patients", "steps", "pool", "save_steps", "validation", "test"), 1),
    "episodes": 2,
}


def is_whole(value, least: int = 0, most: float = math.inf) -> bool:
    """Whether a value is an int (no bool) from `least` to `most`."""
    return isinstance(value, int) and not isinstance(value, bool) and least <= value <= most


def is_number(value) -> bool:
    """Whether a value is a finite int or float (no bool)."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def check_arm(arm: str) -> None:
    """ValueError for an arm that is none of `AGENT_ARMS`."""
    if arm not in AGENT_ARMS:
        raise ValueError(f"got the arm {arm!r}; expected one of {', '.join(AGENT_ARMS)}.")


def check_seed(seed: int) -> None:
    """ValueError for a seed that is no whole number from 0 to 2^32 - 1."""
    if not is_whole(seed, 0, MOST_SEED):
        raise ValueError(f"got the seed {seed!r}; expected a whole number from 0 to {MOST_SEED}.")


def check_settings(settings: AgentSettings) -> None:
    """ValueError, in one sentence, for settings with which nothing could be trained or compared."""
    for name, least in LEAST.items():
        if not is_whole(value := getattr(settings, name), least):
            raise ValueError(f"{settings.name} has {name} {value!r}; expected a whole number >= {least}.")
    for name, low in (("temperature", "above 0"), ("beta", ">= 0")):
        value = getattr(settings, name)
        if not is_number(value) or value < 0 or (name == "temperature" and value == 0):
            raise ValueError(f"{settings.name} has a {name} of {value!r}; expected a finite number {low}.")
    if settings.gate is not None and not is_number(settings.gate):
        raise ValueError(
            f"{settings.name} has the gate {settings.gate!r}; expected a finite margin, or None for no gate."
        )
    _check_rules(settings.name, settings.rules)
    _check_names(settings)
    _check_rates(settings)


def _check_rules(name: str, rules: Rules) -> None:
    if not isinstance(rules, Rules):
        raise ValueError(f"{name} has rules of type {type(rules).__name__}; expected Rules(...).")
    if rules.horizon > MOST_TURNS:
        raise ValueError(
            f"{name} has a horizon of {rules.horizon}; expected at most {MOST_TURNS}, the most the tokenizer can say."
        )


def _check_names(settings: AgentSettings) -> None:
    """Of the experiment, its arms and its seeds."""
    if not settings.name or settings.name in (".", "..") or Path(settings.name).name != settings.name:
        raise ValueError(f"got settings named {settings.name!r}; expected the name of one folder.")
    for kind, values, check in (("arms", settings.arms, check_arm), ("seeds", settings.seeds, check_seed)):
        if not isinstance(values, Sequence) or isinstance(values, str) or not values:
            raise ValueError(f"{settings.name} has {kind} {values!r}; expected a tuple of at least one.")
        for value in values:
            check(value)
        if len(set(values)) < len(values):
            raise ValueError(f"{settings.name} has {kind} {values}; expected each once.")
    for arm in settings.arms:
        shape = AGENT_ARMS[arm].forest
        if shape is not None and shape.rows != settings.episodes:
            raise ValueError(
                f"{settings.name} has {settings.episodes} episodes a patient and {arm} grows {shape.rows} "
                f"({shape.trees} trees of {shape.keep} leaves); expected {shape.rows}, or leave {arm} out."
            )


def _check_rates(settings: AgentSettings) -> None:
    for arm, rate in settings.learning_rates.items():
        check_arm(arm)
        if not is_number(rate) or rate <= 0:
            raise ValueError(
                f"{settings.name} has a learning rate of {rate!r} for {arm}; expected a finite number above 0."
            )


def check_start(folder: Path) -> None:
    """That an agent can start from this folder: it is there, and knows every word of a consultation.

    FileNotFoundError, or ValueError: another model would read what it is told as unknown words, and nobody would understand it.
    """
    if not (folder / "config.json").is_file():
        raise FileNotFoundError(
            f"{folder} holds no model (config.json is missing); expected a start that "
            "`python -m clinical_r1.agent start --out DIR` makes, or no `start` for the shipped one."
        )
    from clinical_r1.models import load_tokenizer

    tokenizer = load_tokenizer(str(folder))
    known, rows = tokenizer.get_vocab(), read_json(folder / "config.json").get("vocab_size", 0)
    lacking = sorted(_words() - known.keys())
    if lacking or len(tokenizer) > rows:
        what = (
            f"lacks {len(lacking)} words of consultations, such as {lacking[0]!r}"
            if lacking
            else f"has {len(tokenizer)} words and the model {rows} rows"
        )
        raise ValueError(
            f"the tokenizer of {folder} {what}; expected a start that `python -m clinical_r1.agent start --out DIR` makes."
        )


@cache
def _words() -> frozenset[str]:
    from clinical_r1.agent.language import build_agent_tokenizer

    return frozenset(build_agent_tokenizer().get_vocab())
