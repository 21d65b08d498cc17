# %% [markdown]
# # 1 · When do different rewards become the same advantage?
#
# GRPO and CRPO add up the rewards of a completion and then normalise the sums within the group. With paper and
# pencil: what does the division throw away? The other order, first normalise each reward and then add, is GDPO's
# (arXiv 2601.05242); its last step, a normalisation over the whole batch, is left out here.

# %%
from clinical_r1.advantages import group_advantages
from clinical_r1.workshop.collapse import COLLAPSE_HINTS, check_collapse

# %% [markdown]
# ## The rule
#
# Totals $R_1, \dots, R_G$ of one group: $A_i = (R_i - \bar R)\,/\,s$, where $s^2 = \sum_i (R_i - \bar R)^2 / (G - 1)$.
#
# Two totals 3 and 7 have the mean 5 and $s = \sqrt{(4 + 4)/1} = 2.83$, so the advantages are −0.71 and 0.71. The package
# agrees:

# %%
group_advantages([[3], [7]], weights=(1,), num_generations=2)

# %% [markdown]
# ## By hand
#
# Two binary rewards, written $(r_1, r_2)$. Always: the advantage of the completion named **last**, to two decimals.
#
# **Sum, then normalise**, weights 1 and 1, G = 2. A total is 0, 1 or 2.
# - `totals (0, 1)`, `totals (0, 2)`, `totals (1, 2)`: the better completion's advantage
# - `different groups`: of the six pairs (0, 0), (0, 1), (0, 2), (1, 1), (1, 2), (2, 2), how many different pairs of
#   advantages come out?
#
# **Sum, then normalise**, weights 10 and 1 (k = 10), G = 2, beside a completion with (0, 0):
# - `k = 10, wins the second reward`: (0, 1); `k = 10, wins both`: (1, 1)
#
# **Normalise each reward, then add**, weights 1 and 1, G = 2:
# - `per reward, wins one`: (0, 1) beside (0, 0); `per reward, wins both`: (1, 1) beside (0, 0)
# - `per reward, one each`: (0, 1) beside (1, 0)
#
# **Sum, then normalise**, weights 10 and 1, G = 3:
# - `k = 10, G = 3, B`: the group is (1, 0), (0, 0) and B = (0, 1). Is B, which won a reward, pushed up or down?

# %%
# BEGIN SOLUTION
answer = {
    "totals (0, 1)": 0.71,
    "totals (0, 2)": 0.71,
    "totals (1, 2)": 0.71,
    "different groups": 2,
    "k = 10, wins the second reward": 0.71,
    "k = 10, wins both": 0.71,
    "per reward, wins one": 0.71,
    "per reward, wins both": 1.41,
    "per reward, one each": 0.0,
    "k = 10, G = 3, B": -0.48,
}
# STUDENT
# answer = {
#     "totals (0, 1)": None,
#     "totals (0, 2)": None,
#     "totals (1, 2)": None,
#     "different groups": None,
#     "k = 10, wins the second reward": None,
#     "k = 10, wins both": None,
#     "per reward, wins one": None,
#     "per reward, wins both": None,
#     "per reward, one each": None,
#     "k = 10, G = 3, B": None,
# }
# END SOLUTION

# %% tags=["check"]
passed = check_collapse(answer)

# %% [markdown] tags=["solution"]
# ## Why
#
# Two totals that differ by $d$ lie $d/2$ from their mean and have $s = d/\sqrt 2$. The quotient is $1/\sqrt 2 = 0.71$
# whatever $d$ is: a pair is either tied or not, which leaves two groups of six. Weights change $d$, and $d$ cancels.
#
# Each reward by itself gives 0.71 to its winner and 0 where both agree, so winning both is worth 1.41. But one win
# each still cancels: GDPO keeps apart what sums confuse, not everything. Unequal weights would separate those two.
#
# For B: the totals 10, 0, 1 have the mean 3.67 and $s = 5.51$, so B gets −0.48. It won the reward for reasoning and is
# pushed down, because somebody else in its group was right.

# %% [markdown]
# ## Stuck?
#
# One hint for each key:

# %%
for key, hint in COLLAPSE_HINTS.items():
    print(f"{key}: {hint}")
