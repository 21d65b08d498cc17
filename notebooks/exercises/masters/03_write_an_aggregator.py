# %% [markdown]
# # 3 · How should several rewards become one advantage?
#
# Write a function from the rewards of N completions to N advantages. What is easy to get wrong, and what training does not
# reveal, is checked: constant groups, order, units, who is compared with whom, whether every objective has a say, missing
# values, and the ranking itself. The frame is there; the lines in the middle are yours.

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
# - compare a completion with its group alone: the advantages of a group add up to 0, and an easier question, on which all
#   rewards are higher by the same, changes nothing;
# - not care about the units of an objective, nor about the order of the objectives;
# - leave NaN out of every mean and deviation, and give 0 to a completion that is NaN throughout;
# - rank a completion that wins two rewards above one that wins one.


# %%
def in_groups(rewards, G):
    """Rewards (N, K) as P groups (P, G, K), and whether each is known (P, G, K)."""
    grouped = np.asarray(rewards, dtype=float).reshape(-1, G, rewards.shape[1])
    return grouped, ~np.isnan(grouped)


# %%
# BEGIN SOLUTION
def aggregate(rewards, G):
    """Normalise each objective within its group, leaving NaN out, then add."""
    grouped, known = in_groups(rewards, G)
    count = known.sum(axis=1, keepdims=True)  # (P, 1, K)
    mean = np.where(known, grouped, 0.0).sum(axis=1, keepdims=True) / np.maximum(count, 1)
    centred = np.where(known, grouped - mean, 0.0)  # what is missing adds nothing
    deviation = np.sqrt((centred**2).sum(axis=1, keepdims=True) / np.maximum(count - 1, 1))
    return (centred / (deviation + 1e-4)).sum(axis=2).ravel()


# STUDENT
# def aggregate(rewards, G):
#     values, known = in_groups(rewards, G)
#     # Put your lines here. With axis=1 and keepdims=True a sum is one number for each group and objective:
#     # 1. the mean of each objective in each group, over what is known (that may be nothing)
#     # 2. the difference from it, 0 where nothing is known
#     # 3. its deviation, which may be 0: how do you divide?
#     values = np.where(known, values, 0.0)
#     return values.sum(axis=2).ravel()  # add the objectives
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
