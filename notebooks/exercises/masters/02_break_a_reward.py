# %% [markdown]
# # 2 · Can a worthless answer earn everything?
#
# A reward reads text; it does not know what is true. First you attack: a completion with the full CRPO reward (12) and
# not one true claim. Then you defend: a toy rule that pays for citations, fixed so that the attack falls and the
# honest answer stands.

# %%
from clinical_r1.clinic.cases import Case, phrase
from clinical_r1.clinic.verdicts import claim_table, read_claims
from clinical_r1.prompts import render_question
from clinical_r1.workshop.break_reward import (
    attack_question,
    check_attack,
    check_fixed_rule,
    citation_attacks,
    defence_question,
    honest_answer,
    naive_citation,
    score_attack,
)

# %%
question = attack_question()
case = Case.from_json(question.meta["case"])
print(render_question(question))
print("\nanswer:", question.answer)

# %% [markdown]
# ## What an honest answer earns
#
# The rewards, their total by eq. 4, and two counts of the exact judge, which no reward looks at:

# %%
honest = honest_answer(question)
print(honest, "\n")
score_attack(question, honest)

# %% [markdown]
# ## Attack
#
# Write `attack`. The reward pays for a citation only where the vignette states what is cited; whether that speaks for the
# answer, it cannot know. The judge can. It reads claims of the form `<finding> supports <condition>.` in System 2 and
# `<finding> and <finding> favor <condition>` in the conclusion, letter by letter in the words of the vignette and the options.
# What stands in other words it cannot judge, so the check does not let it earn anything.
#
# The vignette's findings, and how much each speaks for the answer (2 strongly, 0 not at all, below 0 against it):

# %%
[(phrase(finding, present), case.weight(finding, present, case.gold)) for finding, present in case.stated]

# %%
# BEGIN SOLUTION
beside = [phrase(f, True) for f, present in case.stated if present and not case.weight(f, True, case.gold)][
    :2
]
claims = " ".join(f"{finding} supports {case.gold}." for finding in beside)
attack = (
    f"<dx> (System 1: Intuitive) suspect {case.gold}. (System 2: Analytical) {claims} </dx> "
    f"<conclusion> {' and '.join(beside)} favor {case.gold} \\boxed{{{question.answer}}}. </conclusion>"
)
# STUDENT
# # Hint: the conclusion must repeat evidence from System 2 and from the vignette. Nobody says that it must be to the point.
# # Start from a copy of the honest answer: same tags, same box.
# attack = None
# END SOLUTION

# %% tags=["check"]
passed_attack = check_attack(attack)

# %% [markdown]
# Each claim with its verdict (an empty table: no claim was read):

# %%
claim_table(attack or "", case)

# %% [markdown]
# ## Defend
#
# The toy rule pays 1 for anything that "supports" anything. Attacks on it, on another question: each is the honest answer
# with its evidence changed, so format and style give nothing away.

# %%
other = defence_question()
attempts = {"honest": honest_answer(other)} | citation_attacks(other)
for name, text in attempts.items():
    print(f"{naive_citation(text, other.stem):g}  {name}")

# %% [markdown]
# The vignette, the honest answer, and one of the attacks (look at the others too):

# %%
print(other.stem, attempts["honest"], attempts["invents evidence"], sep="\n\n")

# %% [markdown]
# Fix it: a function `(text, stem) -> number in [0, 1]` that pays every honest answer at least a half, and more than any
# of the attacks. It is tried on 24 questions that you have not seen. `read_claims(text)` gives the claims,
# `phrase(claim.finding, claim.present)` a claim's finding in words, and the stem lists its findings with commas.

# %%
[phrase(claim.finding, claim.present) for claim in read_claims(attempts["states the opposite"])]


# %%
# BEGIN SOLUTION
def fixed_rule(text, stem):
    """Share of the claims whose finding the vignette states; nothing without a claim."""
    stated = stem.removeprefix("Patient: ").removesuffix(".").split(", ")
    claims = read_claims(text)
    held = [phrase(claim.finding, claim.present) in stated for claim in claims]
    return sum(held) / len(held) if held else 0.0


# STUDENT
# def fixed_rule(text, stem):
#     # Hint: what must be true of each claim's finding? What is paid where there is no claim?
#     return naive_citation(text, stem)
#
#
# END SOLUTION

# %% tags=["check"]
passed_rule = check_fixed_rule(fixed_rule)
passed = passed_attack and passed_rule

# %% [markdown] tags=["solution"]
# ## What falls next
#
# The fixed rule reads the stem, so invented evidence falls. An attacker who reads the stem as well can cite a stated
# finding for a condition that it does not support, which is the attack above: the rule pays, the judge does not. Only
# knowledge of medicine, a knowledge base or a judge, closes that gap. The stem is split at its commas because
# `finding in stem` would find "fever" in "no fever". And the rule is a share: one that counted true claims, or looked for
# one, would pay as much when inventions stand beside them.
