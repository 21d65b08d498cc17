# %% [markdown]
# # 4 · Which k would you train with?
#
# CRPO adds $k \cdot r_\text{acc}$ to its other rewards. First a forecast that takes seconds: for each of 300 clinic
# questions four scripted completions, of which the one with the largest $k \cdot \text{correct} + \text{true claims}$ is
# kept. The writer often reasons well and then slips to another answer, so the two goals part. No policy is trained. Then
# training itself, from the laboratory's published runs: does it do what the forecast said?

# %%
from clinical_r1.workshop.choose_k import (
    FORECAST,
    MEASURES,
    accuracy_wanted,
    check_k,
    forecast,
    front_over_k,
    trained_with_k,
)

front = front_over_k()
front.round(3)

# %%
print(
    f"accuracy wanted: {accuracy_wanted():.0%}; from k = 1 to k = 10 the forecast for each goal: {forecast()}"
)

# %% [markdown]
# ## Read the forecast
#
# Wanted is the accuracy printed above, and as many true claims as possible with it.
# - `k`: the k of the table that gives the most true claims (faithfulness) with that accuracy
# - `k, safely`: the same, when the **lower end** of the interval of accuracy must reach it
# - `same from`: the smallest k of the table from which nothing changes any more
#
# ## Read the training
#
# The laboratory trained CRPO with k = 1 and with k = 10, each with the seeds that the table counts. `difference` is k = 10 minus
# k = 1, paired, with its interval; `p_holm` is its p, corrected because `tests` differences of this family were tested
# (several k, several measures; tokens were not named before looking, and are corrected apart). A true difference of the size
# `detectable` would be found in four of five such laboratories, a smaller one less often. Call a measure settled if `p_holm`
# is below 0.05.
# - `trained`: for each measure "rises", "falls" or "not settled"
# - `forecast`: for accuracy and faithfulness, "confirmed", "contradicted" or "not settled" by training

# %%
trained = trained_with_k()
trained.round(3)


# %%
# BEGIN SOLUTION
def largest_faithfulness(rows):
    return rows.loc[rows["faithfulness"].idxmax(), "k"]


def change(row):
    if not row["p_holm"] < 0.05:
        return "not settled"
    return "rises" if row["difference"] > 0 else "falls"


def outcome(measure):
    if changes[measure] == "not settled":
        return "not settled"
    return "confirmed" if changes[measure] == forecast()[measure] else "contradicted"


last = front.iloc[-1]
same = (front["accuracy"] == last["accuracy"]) & (front["faithfulness"] == last["faithfulness"])
changes = {measure: change(trained.set_index("measure").loc[measure]) for measure in MEASURES}
answer = {
    "k": largest_faithfulness(front[front["accuracy"] >= accuracy_wanted()]),
    "k, safely": largest_faithfulness(front[front["low"] >= accuracy_wanted()]),
    "same from": front.loc[same, "k"].min(),
    "trained": changes,
    "forecast": {measure: outcome(measure) for measure in FORECAST},
}
# STUDENT
# # Hint: read the first table from the top; in the second, p_holm first and the sign of the difference after it.
# answer = {
#     "k": None,
#     "k, safely": None,
#     "same from": None,
#     "trained": dict.fromkeys(MEASURES),
#     "forecast": dict.fromkeys(FORECAST),
# }
# END SOLUTION

# %% tags=["check"]
passed = check_k(answer)

# %% [markdown]
# ## The forecast, as a picture

# %%
axes = front.plot("accuracy", "faithfulness", marker="o", legend=False, ylabel="true claims per response")

# %% [markdown] tags=["solution"]
# ## Why the forecast stops
#
# k decides only between a right completion with fewer true claims and a wrong one with more. Once it exceeds the largest
# such difference, every question with a right completion is won, and larger k are the same policy. Where all four are right
# or all four wrong, k never mattered.
#
# ## Why training need not do the same
#
# Among finished texts k can only choose, so more accuracy can only cost true claims. A policy that is trained writes new
# texts: it may write more, or otherwise, and what it gains or loses on the way no selection can show. The check has printed
# what the published runs say. "Not settled" is no "no difference": compare `detectable` with a difference that you would
# care for, and ask how many seeds it would take.
