# %% [markdown]
# # 4 · Which k buys the accuracy you want, and what does it cost?
#
# CRPO adds $k \cdot r_\text{acc}$ to its other rewards. Here a stand-in for training, in seconds: for each of 300 clinic
# questions four scripted completions, of which the one with the largest $k \cdot \text{correct} + \text{true claims}$ is
# kept. The writer often reasons well and then slips to another answer, so the two goals part. No policy is trained, and
# the numbers are no result about CRPO.

# %%
from clinical_r1.workshop.choose_k import ACCURACY_WANTED, check_k, front_over_k

front = front_over_k()
front.round(3)

# %% [markdown]
# ## Choose
#
# The ward wants an accuracy of at least `ACCURACY_WANTED`, and as many true claims as possible with it.
# - `k`: the k of the table that gives the most true claims (faithfulness) with that accuracy
# - `k, safely`: the same, when the **lower end** of the interval of accuracy must reach it
# - `same from`: the smallest k of the table from which nothing changes any more

# %%
print(f"accuracy wanted: {ACCURACY_WANTED:.0%}")


# %%
# BEGIN SOLUTION
def largest_faithfulness(rows):
    return rows.loc[rows["faithfulness"].idxmax(), "k"]


last = front.iloc[-1]
same = (front["accuracy"] == last["accuracy"]) & (front["faithfulness"] == last["faithfulness"])
answer = {
    "k": largest_faithfulness(front[front["accuracy"] >= ACCURACY_WANTED]),
    "k, safely": largest_faithfulness(front[front["low"] >= ACCURACY_WANTED]),
    "same from": front.loc[same, "k"].min(),
}
# STUDENT
# # Hint: read the table from the top; faithfulness never rises with k, accuracy never falls.
# answer = {"k": None, "k, safely": None, "same from": None}
# END SOLUTION

# %% tags=["check"]
passed = check_k(answer)

# %% [markdown]
# ## What k buys, as a picture

# %%
axes = front.plot("accuracy", "faithfulness", marker="o", legend=False, ylabel="true claims per response")

# %% [markdown] tags=["solution"]
# ## Why it stops
#
# k decides only between a right completion with fewer true claims and a wrong one with more. Once it exceeds the largest
# such difference, here less than ten claims, every question with a right completion is won, and 10 and 30 are the same
# policy. Where all four are right or all four wrong, k never mattered.
