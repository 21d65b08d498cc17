"""Reward sets that take CRPO's reward apart: a term left out, changed, gated, or swapped with GRPO's; and the grounded ones.

Each function differs from its model in `rewards` in one thing, which its docstring names, and has a name of its own for the
logs. All can be pickled. Ours; the paper compares none of them.
"""

from dataclasses import replace

from clinical_r1.grounded import grounded_comprehensiveness_reward, grounded_faithfulness_reward
from clinical_r1.rewards import (
    REWARD_SETS,
    RewardSet,
    _has_summary,
    _parse,
    _prompt_text,
    _same_length,
    _text,
    clinical_reasoning_reward,
    consistency_reward,
    cross_references,
    effective_share,
)

CONSISTENT = 0.95  # share of effective tokens that counts as consistent
WEIGHTS = (10.0, 1.0, 0.5)


def clinical_format_reward(completions, **columns) -> list[float]:
    """r_CR without the cross-reference bonus, in {0, 1}: well-formed <dx>/<conclusion>."""
    return [float(_parse(_text(completion), "crpo").well_formed) for completion in completions]


def quantised_consistency_reward(completions, **columns) -> list[float]:
    """r_cons as {0, 1}: 1 where at least CONSISTENT of the tokens are effective, so that jitter below is no advantage."""
    return [float(effective_share(_text(completion)) >= CONSISTENT) for completion in completions]


def gated_consistency_reward(completions, answer, style="crpo", **columns) -> list[float | None]:
    """r_cons where the format holds and the answer is right, else 0; in [0, 1]. The conditioning of GDPO (arXiv 2601.05242).

    answer: the correct letter, or None where it is not known (None). style: of all, or one per completion.
    """
    count = len(completions)
    styles = [style] * count if isinstance(style, str) else style
    _same_length(count, answer=answer, style=styles)
    rewards: list[float | None] = []
    for completion, right, one_style in zip(completions, answer, styles, strict=True):
        text = _text(completion)
        parsed = _parse(text, one_style)
        paid = parsed.well_formed and parsed.letter == right
        rewards.append(None if right is None else effective_share(text) if paid else 0.0)
    return rewards


def summary_format_reward(completions, **columns) -> list[float]:
    """GRPO's generic format term in CRPO's sections, in {0, 1, 1.5}: well-formed <dx>/<conclusion>, +0.5 for any summary.

    A summary is any word besides the one box, as in `rewards.thinking_format_reward`.
    """
    parsed = (_parse(_text(completion), "crpo") for completion in completions)
    return [(1.0 + 0.5 * _has_summary(p)) if p.well_formed else 0.0 for p in parsed]


def cited_thinking_reward(completions, options, prompts=None, **columns) -> list[float | None]:
    """r_CR in GRPO's sections, in {0, 1, 1.5}: well-formed <think>/<answer>, +0.5 if the answer section cites the reasoning.

    `rewards.cross_references` decides, the whole of <think> standing for System 2. options, prompts: as in
    `rewards.clinical_reasoning_reward`; options None leaves a completion unscored (None).
    """
    prompts = [""] * len(completions) if prompts is None else prompts
    _same_length(len(completions), options=options, prompts=prompts)
    rewards: list[float | None] = []
    for completion, choices, prompt in zip(completions, options, prompts, strict=True):
        parsed = _parse(_text(completion), "grpo")
        if choices is None:
            rewards.append(None)
        elif not parsed.well_formed:
            rewards.append(0.0)
        else:
            cites = cross_references(replace(parsed, analytical=parsed.dx), choices, _prompt_text(prompt))
            rewards.append(1.0 + 0.5 * cites)
    return rewards


_CRPO_ACCURACY, _GRPO_ACCURACY = (REWARD_SETS[name].functions[0] for name in ("crpo", "grpo"))

VARIANT_SETS = {
    "crpo_no_citation": RewardSet((_CRPO_ACCURACY, clinical_format_reward, consistency_reward), WEIGHTS),
    "crpo_quantised": RewardSet(
        (_CRPO_ACCURACY, clinical_reasoning_reward, quantised_consistency_reward), WEIGHTS
    ),
    "crpo_gated_consistency": RewardSet(
        (_CRPO_ACCURACY, clinical_reasoning_reward, gated_consistency_reward), WEIGHTS
    ),
    "crpo_no_format": RewardSet((_CRPO_ACCURACY, consistency_reward), (10.0, 0.5)),
    "crpo_no_consistency": RewardSet((_CRPO_ACCURACY, clinical_reasoning_reward), (10.0, 1.0)),
    "grpo_in_crpo": RewardSet((_CRPO_ACCURACY, summary_format_reward, consistency_reward), WEIGHTS),
    "crpo_in_grpo": RewardSet((_GRPO_ACCURACY, cited_thinking_reward, consistency_reward), WEIGHTS),
    "grounded": RewardSet(
        (
            _CRPO_ACCURACY,
            clinical_reasoning_reward,
            grounded_faithfulness_reward,
            grounded_comprehensiveness_reward,
            consistency_reward,
        ),
        (10.0, 1.0, 1.0, 1.0, 0.5),
    ),
}

RANGES = {  # name of every reward function -> (lowest, highest) value; `advantages.check_rewards` compares
    "accuracy_reward": (0.0, 1.0),
    "thinking_format_reward": (0.0, 1.5),
    "clinical_reasoning_reward": (0.0, 1.5),
    "consistency_reward": (0.0, 1.0),
    "clinical_format_reward": (0.0, 1.0),
    "quantised_consistency_reward": (0.0, 1.0),
    "gated_consistency_reward": (0.0, 1.0),
    "summary_format_reward": (0.0, 1.5),
    "cited_thinking_reward": (0.0, 1.5),
    "grounded_faithfulness_reward": (0.0, 1.0),
    "grounded_comprehensiveness_reward": (0.0, 1.0),
}
