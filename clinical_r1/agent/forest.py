"""Playing consultations: chains from the begin, and small forests of them (Tree-GRPO, Ji et al., ICLR 2026).

All consultations that are still open say their next turn in one batch. Whatever is drawn for an episode depends on the seed, its
patient and its number alone: the same episode comes out in any batch, with any other patients beside it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from clinical_r1.agent.consultation import Consultation, Patient, Rules
from clinical_r1.agent.credit import check_forest
from clinical_r1.agent.episodes import Episode, Turn, act, key_text, state_of
from clinical_r1.agent.language import observation_text, opening
from clinical_r1.agent.speaking import seed_of


@dataclass(frozen=True)
class Shape:
    """Of a forest: M trees a patient; in each of L rounds N nodes of every tree are continued; K leaves of a tree are kept.

    Defaults: Tree-GRPO's own. ValueError where a tree cannot have K leaves: it has 1 + N * L.
    """

    trees: int = 2
    expand: int = 2
    rounds: int = 1
    keep: int = 3

    def __post_init__(self):
        check_forest(self.trees, self.expand, self.rounds, self.keep)

    @property
    def rows(self) -> int:
        """G, the rows of a patient."""
        return self.trees * self.keep


@dataclass(frozen=True)
class Played:
    """Episodes, patient after patient and tree after tree. sampled: tokens that the agent said for them, pruned ones too."""

    episodes: tuple[Episode, ...]
    sampled: int

    @property
    def trained(self) -> int:
        """Tokens of the agent in all rows: those before a fork count in every row that holds them."""
        return sum(episode.agent_tokens for episode in self.episodes)

    @property
    def leaves_per_token(self) -> float:
        """Episodes for each token sampled."""
        return len(self.episodes) / self.sampled


def chains(speaker, patients: Sequence[Patient], rules: Rules, n: int = 1, seed: int = 0) -> Played:
    """n episodes of each patient, each from the begin."""
    _check_patients(patients)
    begins = [_Begin(speaker.tokenizer, patient, rules) for patient in patients]
    courses = [_Course(begin, f"{begin.patient.id}/{i}", seed) for begin in begins for i in range(n)]
    sampled = _play(speaker, courses)
    return Played(tuple(course.episode() for course in courses), sampled)


def forest(
    speaker,
    patients: Sequence[Patient],
    rules: Rules,
    trees: int = 2,
    expand: int = 2,
    rounds: int = 1,
    keep: int = 3,
    seed: int = 0,
) -> Played:
    """Tree-GRPO's rollouts: trees * keep episodes of each patient, the leaves of a tree in the order in which they grew.

    A round draws nodes with replacement, uniformly from the root and all turns of the tree that are no leaf, and continues each
    to an end of its own. Leaves are kept at random, without replacement. ValueError as `Shape`.
    """
    shape = Shape(trees, expand, rounds, keep)
    _check_patients(patients)
    begins = [_Begin(speaker.tokenizer, patient, rules) for patient in patients]
    names = [(begin, f"{begin.patient.id}/{t}") for begin in begins for t in range(trees)]
    grown = [[_Course(begin, f"{name}.0", seed, name)] for begin, name in names]
    sampled = _play(speaker, [leaves[0] for leaves in grown])
    for number in range(rounds):
        branches = [branch for leaves in grown for branch in _branches(leaves, shape.expand, number)]
        sampled += _play(speaker, branches)
    kept = []
    for leaves in grown:
        rng = np.random.default_rng(seed_of(seed, leaves[0].tree, "keep"))
        chosen = sorted(rng.choice(len(leaves), keep, replace=False).tolist())
        kept += [leaves[i].episode() for i in chosen]
    return Played(tuple(kept), sampled)


def continuations(
    speaker,
    points: Sequence[tuple[Episode, int]],
    patients: Mapping[str, Patient],
    rules: Rules,
    n: int,
    seed: int = 0,
) -> list[list[Episode]]:
    """n episodes from each point (episode, depth): its first `depth` turns, and then new ones.

    patients: by id. Their mean reward from `depth` on estimates the value of the state before turn number `depth` (from 0).
    """
    courses = []
    for episode, depth in points:
        begin = _Begin(speaker.tokenizer, patients[episode.patient], rules)
        names = [f"{episode.id}@{depth}/{i}" for i in range(n)]
        courses.append([_Course.of(begin, episode, depth, name, seed) for name in names])
    _play(speaker, [course for several in courses for course in several])
    return [[course.episode() for course in several] for several in courses]


def _check_patients(patients: Sequence[Patient]) -> None:
    ids = [patient.id for patient in patients]
    if twice := next((name for name in ids if ids.count(name) > 1), None):
        raise ValueError(
            f"patient {twice} comes twice, and the two would get the same draws; expected each once (raise n for more episodes)."
        )


# ------------------------------------------------------------------------------------------------------ one at a time


class _Begin:
    """What all episodes of a patient begin with."""

    def __init__(self, tokenizer, patient: Patient, rules: Rules):
        self.tokenizer, self.patient, self.rules = tokenizer, patient, rules
        self.prompt_ids = prompt_ids(tokenizer, patient, rules)


class _Course:
    """An episode while it is played."""

    def __init__(self, begin: _Begin, name: str, seed: int, tree: str | None = None):
        self.begin, self.name, self.seed, self.tree = begin, name, seed, tree
        self.parent, self.depth, self.turns = None, 0, []
        self.consultation = Consultation(begin.patient, begin.rules)
        self.context = list(begin.prompt_ids)

    @classmethod
    def of(cls, begin: _Begin, episode: Episode, depth: int, name: str, seed: int) -> "_Course":
        """Begins with the first `depth` turns of an episode. ValueError for a depth at which it says nothing more."""
        if not 0 <= depth < len(episode.turns):
            raise ValueError(
                f"got depth {depth} of episode {episode.id} with {len(episode.turns)} turns; expected 0 to "
                f"{len(episode.turns) - 1}: a leaf is not continued."
            )
        course = cls(begin, name, seed, episode.tree)
        course.consultation.restore(state_of(episode.turns[depth].key, begin.rules))
        course.depth = depth
        for turn in episode.turns[:depth]:
            course.append(turn)
        return course

    def append(self, turn: Turn) -> None:
        self.turns.append(turn)
        self.context += [*turn.ids, *turn.env_ids]

    def turn_seed(self) -> int:
        return seed_of(self.seed, self.name, len(self.turns))

    def take(self, ids: Sequence[int], text: str, ended: bool) -> Turn:
        """The agent's next turn has its effect. Returns it, not appended, and without what the environment says in tokens."""
        key = key_text(self.consultation)
        found = act(self.consultation, text, ended)
        node = f"{self.name}:{len(self.turns)}"
        return Turn(text, tuple(ids), ended, found.text, (), found.reward, key, found.problem, node)

    def episode(self) -> Episode:
        patient = self.begin.patient
        return Episode(
            self.name, patient.id, patient.gold, self.consultation.diagnosis, self.begin.prompt_ids,
            tuple(self.turns), self.tree, self.parent, self.depth,
        )  # fmt: skip


def prompt_ids(tokenizer, patient: Patient, rules: Rules) -> tuple[int, ...]:
    """The tokens with which a consultation begins, the mark that the agent is to speak included."""
    text = tokenizer.apply_chat_template(opening(patient, rules), tokenize=False, add_generation_prompt=True)
    return tuple(tokenizer(text, add_special_tokens=False)["input_ids"])


def _play(speaker, courses: Sequence[_Course]) -> int:
    """All courses to their ends. Returns how many tokens the agent said."""
    sampled = 0
    for start in range(0, len(courses), speaker.rows):
        block, speak = courses[start : start + speaker.rows], speaker.dialogue()
        while live := [course for course in block if not course.consultation.done]:
            turns = speak(
                [course.context for course in live],
                [course.turn_seed() for course in live],
                [course.consultation for course in live],
            )
            _take(speaker.tokenizer, live, turns)
            sampled += sum(map(len, turns))
    return sampled


def _take(tokenizer, live: Sequence[_Course], said: Sequence[Sequence[int]]) -> None:
    """One turn of each open course, in its tokens. The texts are coded in one call."""
    end = tokenizer.eos_token_id
    ended = [bool(ids) and ids[-1] == end for ids in said]
    texts = tokenizer.batch_decode(
        [ids[:-1] if whole else ids for ids, whole in zip(said, ended, strict=True)]
    )
    turns = [
        course.take(ids, text, whole)
        for course, ids, text, whole in zip(live, said, texts, ended, strict=True)
    ]
    heard = [observation_text(turn.observation) for turn in turns]
    encoded = tokenizer(heard, add_special_tokens=False)["input_ids"]
    for course, turn, ids in zip(live, turns, encoded, strict=True):
        ids = () if course.consultation.done else ids
        course.append(replace(turn, env_ids=(*(() if turn.ended else (end,)), *ids)))


def _branches(leaves: list[_Course], expand: int, number: int) -> list[_Course]:
    """New courses of one tree, appended to its leaves and not played yet."""
    nodes = _nodes(leaves)
    rng = np.random.default_rng(seed_of(leaves[0].seed, leaves[0].tree, "nodes", number))
    made = []
    for drawn in rng.integers(len(nodes), size=expand):
        leaf, depth = nodes[drawn]
        parent, name = leaves[leaf], f"{leaves[0].tree}.{len(leaves) + len(made)}"
        branch = _Course.of(parent.begin, parent.episode(), depth, name, parent.seed)
        branch.parent = leaf
        made.append(branch)
    leaves += made
    return made


def _nodes(leaves: Sequence[_Course]) -> list[tuple[int, int]]:
    """(leaf, depth) of the root and of every turn that does not end an episode: each once, with the leaf that grew it."""
    return [(0, 0)] + [
        (number, depth)
        for number, leaf in enumerate(leaves)
        for depth in range(leaf.depth + 1, len(leaf.turns))
    ]
