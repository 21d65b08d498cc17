# %% [markdown]
# # 8 · Which turn earned it?
#
# A consultation has several turns and one end. GRPO pays every turn what the whole consultation earned; GiGPO
# (arXiv 2505.10978) also compares turns that were taken in the same state. With paper and pencil: whom does that praise, whom
# does it blame, and where does it say nothing?

# %%
import pandas as pd

from clinical_r1.agent.credit import group_relative
from clinical_r1.workshop import visits
from clinical_r1.workshop.credit_turns import ALONE, HINTS, check_credit

pd.set_option("display.max_colwidth", None)
visits.consultations()

# %% [markdown]
# ## Three consultations of one patient
#
# Somebody comes with a sharp chest pain, worse on a deep breath, for over twenty minutes. Pulmonary embolism (the truth) and
# pericarditis fit equally well. There are four turns at most. A right diagnosis earns 16 points, a wrong one 0; a test costs 4,
# and so does a turn that the clinic refuses.
#
# - **A** asks after coughing up blood (yes), measures the oxygen saturation (low), and diagnoses an embolism.
# - **B** measures the saturation, asks after coughing up blood, orders a D-dimer as well (raised), and diagnoses an embolism.
# - **C** holds on to pericarditis. It asks the same question twice, and the second time is refused as known already. It
#   measures the saturation, and diagnoses pericarditis.
#
# A turn has the name of its consultation and its number: B3 is the third turn of B, the D-dimer.
#
# ## The rule
#
# What is compared is grouped, and each value has the mean of its group taken off. Two values 3 and 7 of one group have the mean
# 5, so −2 and 2 are left; a third value, 6, in a group of its own, is its own mean. The package agrees:

# %%
group_relative([3, 7, 6], ["one", "one", "another"], std=False)

# %% [markdown]
# ## By hand
#
# Take $\gamma = 1/2$ and **no standard deviations** (GiGPO's "w/o std"), so whole numbers will do.
#
# - `returns`: for each turn $R_t = r_t + \gamma R_{t+1}$; $r_t$ are its own points, and after the last turn nothing follows
# - `groups`: for each state that was met **more than once**, the names of all turns that were taken in it, in any consultation
#   and at any time. Two states are the same if the same can still happen from there, and nothing else counts
# - `anchor`: for each turn $A_S = R_t$ minus the mean return of all turns of its state
# - `alone`: a turn that is alone in its state gets 0 by this rule, and not its return. Why? One letter of the list below
# - `episode`: for each consultation $A_E$ = the plain sum of its points minus the mean of the three sums
# - `opposite`: GRPO pays a turn $A_E$, GiGPO $A_E + A_S$. Predict the one turn for which the two have opposite signs, then
#   work it out
# - `row B`: the table below is B as training sees it. With GiGPO, what is the advantage of the tokens of each piece?

# %%
for letter, reason in ALONE.items():
    print(f"{letter}: {reason}")
visits.row_pieces()

# %%
# BEGIN SOLUTION
answer = {
    "returns": {"A": [4, 8, 16], "B": [1, 2, 4, 16], "C": [-2, -4, 0, 0]},
    "groups": [["A1", "B1", "C1"], ["A2", "C2"], ["A3", "B3"]],
    "anchor": {"A": [3, 6, 6], "B": [0, 0, -6, 0], "C": [-3, -6, 0, 0]},
    "alone": "e",
    "episode": {"A": 8, "B": 4, "C": -12},
    "opposite": "B3",
    "row B": [4, 0, 4, 0, -2, 0, 4],
}
# STUDENT
# # Hint: write each consultation's points in a row, and work out the returns from the last turn backwards.
# answer = {
#     "returns": {"A": [None] * 3, "B": [None] * 4, "C": [None] * 4},
#     "groups": None,  # such as [["A1", "C4"], ["B2", "C3"]], or "A1 C4; B2 C3"
#     "anchor": {"A": [None] * 3, "B": [None] * 4, "C": [None] * 4},
#     "alone": None,
#     "episode": {"A": None, "B": None, "C": None},
#     "opposite": None,
#     "row B": [None] * 7,
# }
# END SOLUTION

# %% tags=["check"]
passed = check_credit(answer)

# %% [markdown] tags=["solution"]
# ## Why
#
# Before B3 the embolism has a probability of 0.97 in the clinic, and it stays ahead whatever the D-dimer says (raised 0.99,
# normal 0.80): B3 paid 4 points and a turn for a test that could not change the diagnosis. GRPO praises it with +4, because B
# ended well. A3 was taken in the same state and shows what else was possible, 16 against 4, so GiGPO blames B3 with
# 4 − 6 = −2. Mind what did that: with $\gamma = 1$ it is 4 − 2 = +2, since then only the cost counts and not the delay.
#
# A3 and B3 know the same two findings, learned in another order: one state. C4 knows them as well, but it is the last turn,
# which can only diagnose: another state. For the same reason C3 is not in the state of A2 and C2. A refused turn teaches
# nothing and takes time.
#
# A turn alone in its state is its own mean. Its return (16 for B4) says how it went on, not what another turn would have
# brought; paid in full, B4 would be praised for standing where a right diagnosis was near. With 0, GRPO's term is what remains:
# where nothing repeats, GiGPO is GRPO. B1 has 0 for another reason: it was compared, and is exactly the mean.
#
# The clinic's words are no choice of the agent's, so their tokens are masked: 0. What the package's `agent.credit` pays each
# turn with GiGPO:

# %% tags=["solution"]
visits.answer_key()["total"]

# %% [markdown]
# ## Stuck?

# %%
for key, hint in HINTS.items():
    print(f"{key}: {hint}")
