"""Credit small enough to follow with a pencil: three episodes of an example, and a handful of consultations, turn by turn (ours).

Each table has one row a turn: what it was paid, what came of it, and what GRPO and GiGPO credit it with.
"""

from collections.abc import Sequence

from clinical_r1.agent.arms import AGENT_ARMS
from clinical_r1.agent.credit import credit, credit_terms, episode_returns, returns_to_go
from clinical_r1.agent.episodes import Episode

# Three episodes that begin in one state and meet others again: (state before the turn, reward of the turn), turn by turn
EXAMPLE = {
    "a": (("s0", 0.0), ("s1", 0.0), ("s2", 1.0)),
    "b": (("s0", 0.0), ("s3", 0.0), ("s1", 0.0), ("s2", 0.0)),
    "c": (("s0", 0.0), ("s1", 0.0), ("s4", 1.0)),
}


def example(arm: str = "gigpo"):
    """The example's turns: the columns of `credited`, text being the state's name."""
    names = list(EXAMPLE)
    turns = [[state for state, _ in EXAMPLE[name]] for name in names]
    rewards = [[reward for _, reward in EXAMPLE[name]] for name in names]
    return _table(names, ["one"] * len(names), turns, turns, rewards, arm)


def credited(episodes: Sequence[Episode], arm: str = "gigpo"):
    """Turns of consultations: frame episode, turn, text, state, met, reward, return, to_go, grpo, anchor, credit.

    episodes: several of each patient, with independent courses. state: a number for what the agent knew and the turns that
    it had left, equal where these are. met: how many turns of the patient's episodes were taken in that state. return: of the
    episode; to_go: discounted from this turn on. grpo: what GRPO credits the turn with. anchor: what the arm's anchors add.
    credit: their sum.
    """
    patients = [episode.patient for episode in episodes]
    one = len(set(patients)) == 1  # then the part of the id after the patient's name says all
    return _table(
        [episode.id.rsplit("/", 1)[-1] if one else episode.id for episode in episodes],
        patients,
        [[turn.text for turn in episode.turns] for episode in episodes],
        [[turn.key for turn in episode.turns] for episode in episodes],
        [list(episode.rewards) for episode in episodes],
        arm,
    )


def _table(names, groups, texts, keys, rewards, arm):
    import pandas as pd

    what = AGENT_ARMS[arm]
    if what.estimator != "anchor":
        raise ValueError(
            f"got the arm {arm!r}, which has no anchors or has trees; expected gigpo or gigpo_no_std."
        )
    about = {"keys": keys, "std": what.std, "omega": what.omega, "gamma": what.gamma}
    terms = credit_terms("anchor", rewards, groups, **about)
    plain = credit("episode", rewards, groups)
    returns, to_go = episode_returns(rewards), returns_to_go(rewards, what.gamma)
    met, numbers, rows = {}, {}, []
    for group, row in zip(groups, keys, strict=True):
        for key in row:
            met[group, key] = met.get((group, key), 0) + 1
            numbers.setdefault((group, key), len(numbers))
    for i, (name, group) in enumerate(zip(names, groups, strict=True)):
        for t, key in enumerate(keys[i]):
            credit_of = {"grpo": plain[i][t], "anchor": terms["anchor"][i][t]}
            of_turn = {"episode": name, "turn": t + 1, "text": texts[i][t], "state": numbers[group, key]}
            of_turn |= {
                "met": met[group, key],
                "reward": rewards[i][t] + 0.0,  # no -0
                "return": returns[i],
                "to_go": to_go[i][t],
            }
            rows.append(of_turn | credit_of | {"credit": terms["episode"][i][t] + terms["anchor"][i][t]})
    return pd.DataFrame(rows)
