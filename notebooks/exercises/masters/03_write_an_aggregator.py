# %% [markdown]
# # 3 · How should several rewards become one advantage?
#
# Write a function from the rewards of N completions to N advantages. Seven things that are easy to get wrong, and that
# training does not reveal, are checked: constant groups, order within a group, order of the groups, units, missing
# values, rows that nothing could score, and the ranking itself.

# %%
import numpy as np

from clinical_r1.advantages import group_advantages
from clinical_r1.workshop.aggregator import check_aggregator

# %% [markdown]
# ## The material
#
# Two groups of three; rewards for accuracy, reasoning and consistency. NaN means "could not be scored", which is not 0.

# %%
rewards = np.array(
    [
        [1, 1.5, 0.98],
        [0, 1.0, 0.99],
        [0, 0.0, 1.00],
        [1, 1.0, 0.95],
        [1, np.nan, 0.95],
        [1, 1.5, 0.95],
    ]
)

# %% [markdown]
# CRPO adds first. Write the last reward in per cent instead of as a share, and the advantages turn round:

# %%
for units in (1, 100):
    print(group_advantages(rewards * [1, 1, units], weights=(1, 1, 1), num_generations=3).numpy().round(2))

# %% [markdown]
# ## Your turn
#
# `aggregate(rewards, G)`: rewards (N, K), the G completions of one question next to each other; returns (N,). All
# objectives count the same. It must
# - give 0 to every completion of a group whose rewards agree, without 0/0 and without blown-up rounding errors;
# - follow the completions when they change places, within a group or with it;
# - not care about the units of an objective;
# - leave NaN out of every mean and deviation, and give 0 to a completion that is NaN throughout;
# - rank a completion that wins two rewards above one that wins one.


# %%
# BEGIN SOLUTION
def aggregate(rewards, G):
    """Normalise each objective within its group, leaving NaN out, then add."""
    grouped = np.asarray(rewards, dtype=float).reshape(-1, G, rewards.shape[1])  # (P, G, K)
    known = ~np.isnan(grouped)
    count = known.sum(axis=1, keepdims=True)
    values = np.where(known, grouped, 0.0)
    mean = values.sum(axis=1, keepdims=True) / np.maximum(count, 1)
    centred = np.where(known, grouped - mean, 0.0)  # what is missing adds nothing
    deviation = np.sqrt((centred**2).sum(axis=1, keepdims=True) / np.maximum(count - 1, 1))
    return (centred / (deviation + 1e-4)).sum(axis=2).ravel()


# STUDENT
# def aggregate(rewards, G):
#     # Hint: rewards.reshape(-1, G, K) has one group a row; np.isnan tells what is missing. Start with the mean.
#     return None
#
#
# END SOLUTION

# %% tags=["check"]
passed = check_aggregator(aggregate)

# %% [markdown]
# On the two groups above:

# %%
if passed:
    print(aggregate(rewards, 3).round(2))

# %% [markdown] tags=["solution"]
# ## Compare
#
# The package's GDPO has one step more, a normalisation over the batch, so its numbers differ by a factor and keep the
# order. Look at the first group: the consistency rewards 0.98, 0.99 and 1.00 now weigh as much as being right. Balanced
# voices also give a voice to noise; a floor under the deviation, or a coarser reward, takes it away again.

# %% tags=["solution"]
print(group_advantages(rewards, (1, 1, 1), 3, "normalize_then_sum").numpy().round(2))
