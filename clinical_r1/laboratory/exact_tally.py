"""Accuracy that counts only where the stated claims lead to the answer: the exact tally, a reward of the clinic (ours).

The claims of the reasoning section are read by the clinic's grammar (`clinic.verdicts.read_claims`); what the conclusion cites
comes after the choice and is not among them. Those whose finding the vignette does not state are ignored. The rest are counted
for each option: +1 for a claim that supports it, -1 for one that argues against it, whether or not it is true. The answer earns
its 1 only where it is right and this tally favours it alone.
"""

from clinical_r1.clinic.verdicts import favoured, read_claims, read_vignette, tally
from clinical_r1.prompts import question_stem
from clinical_r1.rewards import (
    check_answers,
    check_same_length,
    completion_texts,
    option_items,
    parse,
    prompt_text,
)


def tally_accuracy_reward(
    completions, answer, options, prompts, style="crpo", **columns
) -> list[float | None]:
    """r_acc of paper eq. 4 where the tally of the stated claims favours the boxed option alone, else 0; in {0, 1}.

    answer, options, style: as in `rewards.accuracy_reward`. prompts: what was asked; its vignette says what is stated. None where
    the answer is not known, or the prompt holds no vignette of the clinic.
    """
    texts = completion_texts(completions)
    count = len(texts)
    styles = [style] * count if isinstance(style, str) else style
    check_same_length(count, answer=answer, style=styles, options=options, prompts=prompts)
    items = [option_items(choices) for choices in options]
    check_answers(answer, items)
    rewards: list[float | None] = []
    for text, right, own_style, choices, prompt in zip(texts, answer, styles, items, prompts, strict=True):
        stated = read_vignette(question_stem(prompt_text(prompt), choices)) if choices and prompt else None
        if right is None or stated is None:
            rewards.append(None)
            continue
        parsed, names = parse(text, own_style, choices), dict(choices)
        claims = [c for c in read_claims(parsed.dx or "") if (c.finding, c.present) in stated]
        paid = parsed.letter == right and favoured(tally(claims, names.values())) == names[right]
        rewards.append(float(paid))
    return rewards
