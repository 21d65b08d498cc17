# %% [markdown]
# # 4 · Which k buys the accuracy you want, and what does it cost?
#
# CRPO adds $k \cdot r_\text{acc}$ to its other rewards. Here a stand-in for training, in seconds: for each of 300 clinic
# questions four scripted completions, of which the one with the largest $k \cdot \text{correct} + \text{true claims}$ is
# kept. The writer often reasons well and then slips to another answer, so the two goals part. No policy is trained, and
# the numbers are no result about CRPO.

# %%
from clinical_r1.workshop.choose_k import ACCURACY_WANTED, check_k, front_over_k, trained_with_k

front = front_over_k()
front.round(3)

# %% [markdown]
# ## Choose
#
# The ward wants an accuracy of at least `ACCURACY_WANTED`, and as many true claims as possible with it.
# - `k`: the k of the table that gives the most true claims (faithfulness) with that accuracy
# - `k, safely`: the same, when the **lower end** of the interval of accuracy must reach it
# - `same from`: the smallest k of the table from which nothing changes any more
#
# Then look at training itself. The laboratory trained CRPO with k = 1 and with k = 10, three seeds each (notebook 05):
# - `grows in training`: the measures whose whole interval at k = 10 lies above the one at k = 1

# %%
print(f"accuracy wanted: {ACCURACY_WANTED:.0%}")
trained = trained_with_k()
trained.round(2)


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
    "grows in training": {
        metric
        for metric, rows in trained.groupby("metric")
        if rows["ci_low"].iloc[-1] > rows["ci_high"].iloc[0]
    },
}
# STUDENT
# # Hint: read the table from the top; faithfulness never rises with k, accuracy never falls.
# answer = {"k": None, "k, safely": None, "same from": None, "grows in training": None}
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
#
# ## Why training does not do the same
#
# Here the texts are finished and k only chooses among them, so true claims can only be lost. A policy that is trained
# writes new texts: with k = 10 it learned to write more, and got more true *and* more false claims, at an accuracy that
# the intervals cannot tell from that of k = 1. A picture made by selection says nothing about what training will find.
