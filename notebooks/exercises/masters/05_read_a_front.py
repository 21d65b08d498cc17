# %% [markdown]
# # 5 · Which arms are worth keeping?
#
# Seven arms, two goals, numbers invented for this page. Which arms are beaten in everything, how much do the rest
# cover, and which of them could a weighted sum ever find?

# %%
import pandas as pd

from clinical_r1.workshop.front import FRONT, REFERENCE, check_front

arms = pd.DataFrame(FRONT, index=["accuracy", "true claims"]).T
arms.round(2)

# %%
axes = arms.plot.scatter("accuracy", "true claims")
for name, (accuracy, claims) in FRONT.items():
    axes.annotate(name, (accuracy, claims), xytext=(4, 4), textcoords="offset points")
(mark,) = axes.plot(*REFERENCE, "x")

# %% [markdown]
# ## By hand
#
# - `dominated`: the arms for which another arm is at least as good in both goals and better in one. Mind equal values.
# - `hypervolume`: the area between the front and the declared reference (0.20, 0), marked ×. Add strips of the staircase;
#   two decimals are enough, rounded up or down.
# - `most missed`: the one arm without which the front would lose the most area
# - `no weights`: arms of the front that no weighted sum $w \cdot \text{accuracy} + v \cdot \text{claims}$, $w, v \ge 0$,
#   would choose

# %%
# BEGIN SOLUTION
answer = {
    "dominated": {"D", "E", "G"},
    "hypervolume": (0.60 - 0.20) * 1.0 + (0.55 - 0.20) * 0.5 + (0.50 - 0.20) * 1.0 + (0.40 - 0.20) * 0.3,
    "most missed": {"B"},
    "no weights": {"F"},
}
# STUDENT
# # Hint: from the right, each arm of the front adds a strip: (its accuracy - 0.20) * (rise in true claims).
# answer = {"dominated": None, "hypervolume": None, "most missed": None, "no weights": None}
# END SOLUTION

# %% tags=["check"]
passed = check_front(answer)

# %% [markdown] tags=["solution"]
# ## Why
#
# B has D's accuracy and more claims: a tie in one goal is enough. E loses to A, G to everyone. The strips are 0.400 for
# C, 0.175 for F, 0.300 for B and 0.060 for A: 0.935. Without B its corner of 0.1 × 1.0 is lost (D would save part of it).
#
# F lies below the line from B to C. Whatever the weights, B or C is better, although nothing dominates F. Training with
# weighted sums, one k after the other, would never show it. And a hypervolume is a number only together with its
# reference: move that to (0, 0), and the arm with the most claims gains most.
