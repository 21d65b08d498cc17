"""What eq. 3 and 4 imply before anything is trained: reward maxima, owners of the advantage, worked groups.

Consistency is a ratio: of effective tokens to all tokens in the paper, of characters of a fixed ASCII set to all characters in
the released GRPO code. The ratios below are ours, near what the released rule gives English text with a few clinical signs.
"""

import numpy as np

REWARD_TERMS = ("accuracy", "clinical reasoning", "consistency")
REWARD_MAXIMA = (1.0, 1.5, 1.0)
EPS = 1e-6  # added to the deviation in the released code
GROUP = 5  # G

# Prompt difficulty: the success probability p of each prompt is 0.5, or Beta(a, a); is r_CR stuck at its maximum?
DIFFICULTIES = {
    "every p = 0.5": (None, False),
    "p ~ Beta(.5, .5)": (0.5, False),
    "p ~ Beta(.2, .2)": (0.2, False),
    "p ~ Beta(.5, .5), reasoning saturated": (0.5, True),
}
WORKED_GROUPS = {  # accuracy, clinical reasoning, consistency of five completions
    "three right, one of them cites": [
        (1, 1.5, 0.985),
        (1, 1, 0.985),
        (1, 1, 0.985),
        (0, 1, 0.985),
        (0, 1, 0.985),
    ],
    "all right, all cite, consistency differs": [
        (1, 1.5, ratio) for ratio in (0.980, 0.985, 0.988, 0.990, 0.992)
    ],
}


def reward_maximum(k=10.0):
    """Frame term, weight, highest, contributes, share: equation 4 at its maximum, k + 2."""
    import pandas as pd

    table = pd.DataFrame({"term": REWARD_TERMS, "weight": (k, 1.0, 0.5), "highest": REWARD_MAXIMA})
    table["contributes"] = table["weight"] * table["highest"]
    return table.assign(share=table["contributes"] / table["contributes"].sum())


def simulated_rewards(rng, prompts, beta=None, saturated=False):
    """(prompts * GROUP, 3) rewards in REWARD_TERMS' order, each in its own range, a prompt's completions together.

    Accuracy is Bernoulli(p), p = 0.5 or drawn per prompt from Beta(beta, beta); the format holds in 90 % and then
    half the conclusions cite (ours); saturated: all cite. Consistency is N(.985, .01), at most 1.
    """
    shape = (prompts, GROUP)
    p = np.full((prompts, 1), 0.5) if beta is None else rng.beta(beta, beta, size=(prompts, 1))
    accuracy = rng.random(shape) < p
    formatted, cites = rng.random(shape) < 0.9, rng.random(shape) < 0.5
    reasoning = np.full(shape, 1.5) if saturated else formatted * (1 + 0.5 * cites)
    consistency = np.clip(rng.normal(0.985, 0.01, size=shape), 0, 1)
    return np.stack([accuracy, reasoning, consistency], axis=-1).reshape(-1, 3).astype(float)


def advantage_owners(rng, prompts=20_000, k=10.0):
    """Who owns the advantage? Frame difficulty, tied (share of groups all right or all wrong), one column a term.

    The columns of terms hold the correlation of the advantage (equation 3) with the term's distance from its group
    mean, over all completions; NaN where the term never varies. Standard errors are about 1 / sqrt(n), 0.003 here.
    """
    import pandas as pd

    rows = []
    for name, (beta, saturated) in DIFFICULTIES.items():
        rewards = simulated_rewards(rng, prompts, beta, saturated)
        row = {"difficulty": name, "tied": float(_tied(rewards).mean()), "n": len(rewards)}
        rows.append(row | _correlations(rewards, _advantages(rewards, k)))
    return pd.DataFrame(rows)


def weight_sweep(rng, prompts=20_000, ks=(0, 1, 3, 10, 30), beta=0.5):
    """What k changes: frame k, groups ("mixed" | "tied"), share, and one correlation a term, on the same draws.

    Mixed groups hold right and wrong answers; in tied ones k adds the same to every total and cancels.
    """
    import pandas as pd

    rewards = simulated_rewards(rng, prompts, beta)
    tied = np.repeat(_tied(rewards), GROUP)
    rows = []
    for k in ks:
        advantages = _advantages(rewards, k)
        for name, chosen in (("mixed", ~tied), ("tied", tied)):
            row = {"k": k, "groups": name, "share": float(chosen.mean()), "n": int(chosen.sum())}
            rows.append(row | _correlations(rewards[chosen], advantages[chosen]))
    return pd.DataFrame(rows)


def worked_groups(k=10.0):
    """Two groups by hand: frame group, the three terms, total (equation 4), advantage (equation 3)."""
    import pandas as pd

    tables = []
    for name, rewards in WORKED_GROUPS.items():
        rewards = np.array(rewards, dtype=float)
        table = pd.DataFrame(rewards, columns=list(REWARD_TERMS))
        table.insert(0, "group", name)
        table["total"] = rewards @ np.array([k, 1.0, 0.5])
        tables.append(table.assign(advantage=_advantages(rewards, k)))
    return pd.concat(tables, ignore_index=True)


def _advantages(rewards, k):
    from clinical_r1.advantages import group_advantages

    return group_advantages(rewards, (k, 1.0, 0.5), GROUP, eps=EPS).numpy()


def _tied(rewards):
    """(prompts,) is every answer of the group right, or every one wrong?"""
    right = rewards[:, 0].reshape(-1, GROUP).sum(axis=1)
    return (right == 0) | (right == GROUP)


def _correlations(rewards, advantages):
    """Correlation of the advantage with each term, less the term's mean in its group: only that can be learnt."""
    grouped = rewards.reshape(-1, GROUP, len(REWARD_TERMS))
    centred = (grouped - grouped.mean(axis=1, keepdims=True)).reshape(rewards.shape)
    columns = dict(zip(REWARD_TERMS, np.where(np.ptp(rewards, axis=0) > 0, centred, 0.0).T, strict=True))
    return {
        term: float(np.corrcoef(column, advantages)[0, 1]) if np.ptp(column) else np.nan
        for term, column in columns.items()
    }
