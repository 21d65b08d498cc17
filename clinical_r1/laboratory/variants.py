"""Reward sets that take CRPO's reward apart: a term left out, changed, gated, or swapped with GRPO's; and those that read claims.

Each function differs from its model in `rewards` in one thing, which its docstring names, and has a name of its own for the
logs. All can be pickled. Ours; the paper compares none of them.
"""

from dataclasses import replace

from clinical_r1.citation import cross_references
from clinical_r1.laboratory.exact_tally import tally_accuracy_reward
from clinical_r1.laboratory.grounded import grounded_comprehensiveness_reward, grounded_faithfulness_reward
from clinical_r1.rewards import (
    REWARD_SETS,
    RewardSet,
    check_answers,
    check_same_length,
    clinical_reasoning_reward,
    completion_texts,
    consistency_reward,
    effective_share,
    has_summary,
    option_items,
    parse,
    prompt_text,
    read_options,
)

CONSISTENT = 0.95  # share of effective tokens that counts as consistent
WEIGHTS = (10.0, 1.0, 0.5)


def clinical_format_reward(completions, **columns) -> list[float]:
    """r_CR without the cross-reference bonus, in {0, 1}: well-formed <dx>/<conclusion>."""
    return [float(parse(text, "crpo").well_formed) for text in completion_texts(completions)]


def quantised_consistency_reward(completions, **columns) -> list[float]:
    """r_cons as {0, 1}: 1 where at least CONSISTENT of the tokens are effective, so that jitter below is no advantage."""
    return [float(effective_share(text) >= CONSISTENT) for text in completion_texts(completions)]


def gated_consistency_reward(
    completions, answer, style="crpo", options=None, **columns
) -> list[float | None]:
    """r_cons where the format holds and the answer is right, else 0; in [0, 1]. The conditioning of GDPO (arXiv 2601.05242).

    answer: the correct letter, or None where it is not known (None). style, options: as in `rewards.accuracy_reward`.
    """
    texts = completion_texts(completions)
    count = len(texts)
    styles = [style] * count if isinstance(style, str) else style
    options = [None] * count if options is None else options
    check_same_length(count, answer=answer, style=styles, options=options)
    items = [option_items(choices) for choices in options]
    check_answers(answer, items)
    rewards: list[float | None] = []
    for text, right, one_style, choices in zip(texts, answer, styles, items, strict=True):
        parsed = parse(text, one_style, choices)
        paid = parsed.well_formed and parsed.letter == right
        rewards.append(None if right is None else effective_share(text) if paid else 0.0)
    return rewards


def summary_format_reward(completions, **columns) -> list[float]:
    """GRPO's generic format term in CRPO's sections, in {0, 1, 1.5}: well-formed <dx>/<conclusion>, +0.5 for any summary.

    A summary is any word besides the one box, as in `rewards.thinking_format_reward`.
    """
    parsed = (parse(text, "crpo") for text in completion_texts(completions))
    return [(1.0 + 0.5 * has_summary(p)) if p.well_formed else 0.0 for p in parsed]


def cited_thinking_reward(completions, options, prompts=None, **columns) -> list[float | None]:
    """r_CR in GRPO's sections, in {0, 1, 1.5}: well-formed <think>/<answer>, +0.5 if the answer section cites the reasoning.

    `citation.cross_references` decides, the whole of <think> standing for System 2. options, prompts: as in
    `rewards.clinical_reasoning_reward`; options None leaves a completion unscored (None).
    """
    texts = completion_texts(completions)
    count = len(texts)
    prompts = [None] * count if prompts is None else prompts
    options = [None] * count if options is None else options
    check_same_length(count, options=options, prompts=prompts)
    rewards: list[float | None] = []
    for text, choices, prompt in zip(texts, map(read_options, options), prompts, strict=True):
        parsed = parse(text, "grpo", option_items(choices))
        if choices is None:
            rewards.append(None)
        elif not parsed.well_formed:
            rewards.append(0.0)
        else:
            cites = cross_references(replace(parsed, analytical=parsed.dx), choices, prompt_text(prompt))
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
    "exact_tally": RewardSet((tally_accuracy_reward, clinical_reasoning_reward, consistency_reward), WEIGHTS),
}
