"""Episodes: what was said and heard in one consultation, as tokens, rewards and states; and transcripts of them on disk.

A row of training is prompt, turn, observation, turn, ...: the agent's tokens have mask 1, those of the environment mask 0. A
consultation has one outcome for each action, so a transcript can be played again: `replay` compares, `rescored` prices anew.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from clinical_r1.agent.consultation import Consultation, Observation, Patient, Rules, Snapshot, read_action
from clinical_r1.files import read_stamped

AGAIN = "record the episodes"  # how a file of transcripts is made anew


@dataclass(frozen=True)
class Turn:
    """One turn of the agent, and what it brought.

    text: the action as it was said. ids: its tokens, the end included where the agent came to one (ended). observation: what the
    agent was told; env_ids: the tokens of that, first the end where the turn was cut; () after a last turn that was not. key: the
    state before the turn, as JSON. problem: why the turn was invalid, or None. node: a name, the same in all episodes of a tree
    that share the turn.
    """

    text: str
    ids: tuple[int, ...]
    ended: bool
    observation: str
    env_ids: tuple[int, ...]
    reward: float
    key: str
    problem: str | None
    node: str

    @property
    def hypothesis(self) -> str | None:
        """The condition that the turn suspects; None for a turn that was not understood."""
        action = read_action(self.text) if self.ended else None
        return None if action is None else action.hypothesis


@dataclass(frozen=True)
class Episode:
    """A whole consultation. diagnosis: None where none was made.

    id: unique among the episodes of one call. tree: that of a forest, else None; parent: the leaf of the tree from which this one
    branches off (leaf 0 is the trunk and has none), and depth: how many turns are the parent's.
    """

    id: str
    patient: str
    gold: str
    diagnosis: str | None
    prompt_ids: tuple[int, ...]
    turns: tuple[Turn, ...]
    tree: str | None = None
    parent: int | None = None
    depth: int = 0

    @property
    def rewards(self) -> list[float]:
        return [turn.reward for turn in self.turns]

    @property
    def reward(self) -> float:
        """Sum over the turns: 1 for the right diagnosis, less the costs."""
        return float(sum(self.rewards))

    @property
    def right(self) -> bool:
        return self.diagnosis == self.gold

    @property
    def completion_ids(self) -> list[int]:
        """All that comes after the prompt, the agent's and the environment's."""
        return [token for turn in self.turns for token in (*turn.ids, *turn.env_ids)]

    @property
    def env_mask(self) -> list[int]:
        """As long as `completion_ids`: 1 for a token of the agent, 0 for one of the environment."""
        return [own for turn in self.turns for own in [1] * len(turn.ids) + [0] * len(turn.env_ids)]

    @property
    def spans(self) -> list[tuple[int, int]]:
        """(first token, token after the last) of each turn, counted from the begin of the completion."""
        found, at = [], 0
        for turn in self.turns:
            found.append((at, at + len(turn.ids)))
            at += len(turn.ids) + len(turn.env_ids)
        return found

    @property
    def agent_tokens(self) -> int:
        return sum(len(turn.ids) for turn in self.turns)

    def to_json(self) -> dict:
        return asdict(self)

    @classmethod
    def from_json(cls, value: Mapping) -> "Episode":
        turns = tuple(
            Turn(**{**turn, "ids": tuple(turn["ids"]), "env_ids": tuple(turn["env_ids"])})
            for turn in value["turns"]
        )
        return cls(**{**value, "prompt_ids": tuple(value["prompt_ids"]), "turns": turns})


# ------------------------------------------------------------------------------------------------------------ states


def key_text(consultation: Consultation) -> str:
    """`Consultation.state_key` as JSON: [patient, [[finding, present], ...] sorted, turns left]."""
    patient, known, left = consultation.state_key()
    return json.dumps([patient, sorted(known), left])


def state_of(key: str, rules: Rules) -> Snapshot:
    """The state that a key stands for, under the rules with which it was made."""
    patient, known, left = json.loads(key)
    return Snapshot(
        patient, tuple((finding, present) for finding, present in known), rules.horizon - left, None, False
    )


def act(consultation: Consultation, text: str, ended: bool) -> Observation:
    """One step; a turn that was cut is not understood, whatever it says so far."""
    return consultation.step(text if ended else "")


def rescored(episode: Episode, patient: Patient, rules: Rules) -> Episode:
    """The same actions under these rules: what each brings, and the keys. The tokens stay.

    ValueError for another patient, and where the consultation ends sooner or later than the episode.
    """
    if episode.patient != patient.id:
        raise ValueError(
            f"episode {episode.id} is one of {episode.patient} and was given {patient.id}; expected its own patient."
        )
    consultation, turns = Consultation(patient, rules), []
    for turn in episode.turns:
        if consultation.done:
            break
        key = key_text(consultation)
        found = act(consultation, turn.text, turn.ended)
        turns.append(
            replace(turn, observation=found.text, reward=found.reward, key=key, problem=found.problem)
        )
    if len(turns) < len(episode.turns) or not consultation.done:
        raise ValueError(
            f"episode {episode.id} has {len(episode.turns)} turns, and its consultation is "
            f"{'over' if consultation.done else 'open'} after {len(turns)}; expected the rules it was played with (costs may "
            "differ)."
        )
    return replace(episode, gold=patient.gold, diagnosis=consultation.diagnosis, turns=tuple(turns))


def replay(episode: Episode, patient: Patient, rules: Rules) -> Episode:
    """The episode, after its actions have brought the same rewards, observations and states again; ValueError where not."""
    found = rescored(episode, patient, rules)
    for number, (before, now) in enumerate(zip(episode.turns, found.turns, strict=True), 1):
        for name in ("observation", "reward", "problem", "key"):
            if getattr(before, name) != getattr(now, name):
                raise ValueError(
                    f"turn {number} of episode {episode.id} has the {name} {getattr(before, name)!r}, played again it is "
                    f"{getattr(now, name)!r}; expected the rules and the patient that it was played with."
                )
    if (episode.gold, episode.diagnosis) != (found.gold, found.diagnosis):
        raise ValueError(
            f"episode {episode.id} ends with {episode.diagnosis!r} for {episode.gold!r}, played again with "
            f"{found.diagnosis!r} for {found.gold!r}; expected the patient that it was played with."
        )
    return episode


# ---------------------------------------------------------------------------------------------------------- on disk


def read_transcripts(path: str | Path) -> list[Episode]:
    """The episodes of a finished file. ValueError when it was changed since it was made, and for rows that are no episodes."""
    found = []
    for number, row in enumerate(read_stamped(path, AGAIN), 1):
        try:
            found.append(Episode.from_json(row))
        except (KeyError, TypeError) as error:
            raise ValueError(
                f"{path} has no episode in row {number} ({error}); expected what `Episode.to_json` gives: {AGAIN} again."
            ) from error
    return found
