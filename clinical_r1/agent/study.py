"""Credit measured against the truth: how near each estimator comes to what a turn was worth, without training noise (ours).

Every state of a consultation can be continued again. So the value of a state under the current policy is the mean return of new
consultations from it, and a turn's true advantage is its reward, plus the value after it, less the value before it. The
estimators see the first consultations alone, in groups of several sizes; the continuations are others. A turn that stands in
several rows of a tree gets the mean of their credits: so much its tokens are pushed for each row.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from clinical_r1.agent.arms import TREES
from clinical_r1.agent.checks import is_number, is_whole
from clinical_r1.agent.consultation import Patient, Rules
from clinical_r1.agent.credit import credit
from clinical_r1.agent.episodes import Episode
from clinical_r1.agent.forest import chains, continuations, forest
from clinical_r1.agent.speaking import seed_of
from clinical_r1.agent.truth import agreement, monte_carlo_advantage
from clinical_r1.files import read_stamp, read_stamped, write_stamped

AGAIN = "run the study"
MEASURES = {
    "correlation": "correlation",
    "error": "unexplained",
}  # as tables name them -> of `truth.agreement`


@dataclass(frozen=True)
class Plan:
    """patients, of validation; pool: episodes of each patient, in chains and again in trees; continuations of each state.

    sizes: groups that the pool is cut into. gammas: of the returns-to-go of anchors. chunk: patients a file.
    """

    patients: int = 24
    pool: int = 16
    continuations: int = 64
    sizes: tuple[int, ...] = (2, 4, 8, 16)
    gammas: tuple[float, ...] = (1.0, 0.95, 0.8)
    chunk: int = 4
    seed: int = 20251206

    def __post_init__(self):
        whole = {"patients": 1, "pool": 1, "continuations": 2, "chunk": 1, "seed": 0}  # two: for a variance
        for name, least in whole.items():
            if not is_whole(value := getattr(self, name), least):
                raise ValueError(f"got {name} {value!r}; expected a whole number >= {least}.")
        for name in ("sizes", "gammas"):
            values = getattr(self, name)
            if not isinstance(values, tuple) or not values or len(set(values)) < len(values):
                raise ValueError(f"got {name} {values!r}; expected a tuple of at least one, each once.")
        if odd := [gamma for gamma in self.gammas if not is_number(gamma) or not 0 <= gamma <= 1]:
            raise ValueError(f"got gammas {odd}; expected numbers from 0 to 1.")
        if odd := [size for size in self.sizes if not is_whole(size, 2) or self.pool % size]:
            raise ValueError(
                f"got groups of {odd} from a pool of {self.pool}; expected divisors of it, at least 2."
            )
        if self.pool % TREES.keep:
            raise ValueError(f"got a pool of {self.pool}; expected whole trees of {TREES.keep} leaves.")


# ------------------------------------------------------------------------------------------------- episodes and their truth


def observe(
    speaker, patients: Sequence[Patient], rules: Rules, plan: Plan, folder: Path, made_from: Mapping
) -> list[dict]:
    """Rows {"kind", "episode", "returns"}: every episode ("chain", "tree"), with returns of new consultations.

    returns: a list for each turn, of what continuations earned from the state before it. Kept in files of `chunk` patients; what
    is finished is read. ValueError where a file was made from something else.
    """
    rows = []
    for start in range(0, len(patients), plan.chunk):
        some = patients[start : start + plan.chunk]
        path = folder / f"patients{start:04d}.jsonl"
        kept = {key: value for key, value in asdict(plan).items() if key in ("pool", "continuations", "seed")}
        stamp = {**made_from, **kept, "rules": rules.to_json(), "patients": [patient.id for patient in some]}
        if not path.exists():
            write_stamped(path, _observed(speaker, some, rules, plan), stamp)
        elif read_stamp(path, AGAIN) | stamp != read_stamp(path, AGAIN):
            raise ValueError(
                f"{path} was made from something else; expected the same policy, patients and plan: move it away."
            )
        rows += read_stamped(path, AGAIN)
    return rows


def _observed(speaker, patients, rules, plan) -> Iterator[dict]:
    by_id = {patient.id: patient for patient in patients}
    trees = vars(TREES) | {"trees": plan.pool // TREES.keep}
    played = {
        "chain": chains(speaker, patients, rules, plan.pool, seed_of(plan.seed, "chains")).episodes,
        "tree": forest(speaker, patients, rules, **trees, seed=seed_of(plan.seed, "trees")).episodes,
    }
    for kind, episodes in played.items():
        points = {}  # node of a turn -> a state from which it can be continued; copies in several leaves are one
        for episode in episodes:
            for depth, turn in enumerate(episode.turns):
                points.setdefault(turn.node, (episode, depth))
        seed = seed_of(plan.seed, "continuations", kind)
        several = continuations(speaker, list(points.values()), by_id, rules, plan.continuations, seed)
        found = {
            node: [float(sum(each.rewards[depth:])) for each in new]
            for (node, (_, depth)), new in zip(points.items(), several, strict=True)
        }
        for episode in episodes:
            returns = [found[turn.node] for turn in episode.turns]
            yield {"kind": kind, "episode": episode.to_json(), "returns": returns}


# -------------------------------------------------------------------------------------------------- estimates and agreement


def true_advantages(rows: Sequence[Mapping]) -> tuple[dict[str, float], dict[str, float]]:
    """({node: advantage}, {node: variance of its sampling error}) of every turn of the rows that `observe` gives."""
    nodes, after, before = [], [], []
    for row in rows:
        episode, returns = Episode.from_json(row["episode"]), row["returns"]
        for depth, turn in enumerate(episode.turns):
            later = returns[depth + 1] if depth + 1 < len(returns) else [0.0] * len(returns[depth])
            nodes.append(turn.node)
            after.append([turn.reward + value for value in later])
            before.append(returns[depth])
    advantages, variances = monte_carlo_advantage(after, before)
    return dict(zip(nodes, advantages, strict=True)), dict(zip(nodes, variances, strict=True))


def estimates(
    rows: Sequence[Mapping], estimator: str, size: int, std: bool, gamma: float, omega: float = 1.0
) -> dict[str, float]:
    """{node: credit}, each patient's episodes cut into groups of `size` in their order; a node in several rows has their mean.

    ValueError for a size that leaves a patient a smaller group, or cuts a tree.
    """
    if not isinstance(estimator, str) or not is_whole(size, 1):
        raise ValueError(
            f"got the estimator {estimator!r} and groups of {size!r}; expected a name and a whole number >= 1."
        )
    kind = "tree" if "tree" in estimator else "chain"
    by_patient: dict[str, list[Episode]] = {}
    for row in rows:
        if row["kind"] == kind:
            episode = Episode.from_json(row["episode"])
            by_patient.setdefault(episode.patient, []).append(episode)
    episodes = [episode for several in by_patient.values() for episode in several]
    groups = [f"{name}#{i // size}" for name, several in by_patient.items() for i in range(len(several))]
    _check_groups(by_patient, size)
    credited = credit(
        estimator,
        [episode.rewards for episode in episodes],
        groups,
        keys=[[turn.key for turn in episode.turns] for episode in episodes],
        trees=[episode.tree for episode in episodes] if kind == "tree" else None,
        std=std,
        omega=omega,
        gamma=gamma,
    )
    several: dict[str, list[float]] = {}
    for episode, values in zip(episodes, credited, strict=True):
        for turn, value in zip(episode.turns, values, strict=True):
            several.setdefault(turn.node, []).append(value)
    return {node: float(np.mean(values)) for node, values in several.items()}


def _check_groups(by_patient: Mapping[str, Sequence[Episode]], size: int) -> None:
    for name, several in by_patient.items():
        ends = [i for i in range(size, len(several), size) if several[i].tree is not None]
        if len(several) % size or any(several[i].tree == several[i - 1].tree for i in ends):
            raise ValueError(
                f"got groups of {size} for {name}, who has {len(several)} episodes; expected whole groups of whole trees."
            )


def credit_rows(rows: Sequence[Mapping], plan: Plan, rng: np.random.Generator) -> list[dict]:
    """Rows of credit.csv: estimator, std, group, gamma, measure, value, low, high, turns, patients.

    correlation: with the true advantage, corrected for the noise of the truth alone. error: share of the true advantages' mean
    square that the estimate leaves, at its best scale; 1 for an estimate that says nothing.
    """
    truth, noise = true_advantages(rows)
    found = []
    for estimator, std, size, gamma in _cases(plan):
        credited = estimates(rows, estimator, size, std, gamma)
        nodes = list(credited)
        agreed = agreement(
            [credited[n] for n in nodes],
            [truth[n] for n in nodes],
            [noise[n] for n in nodes],
            [n.split("/")[0] for n in nodes],
            rng,
        )
        for name, measure in MEASURES.items():
            low, high = (agreed["interval"] or {}).get(measure) or (None, None)
            row = {"estimator": estimator, "std": int(std), "group": size, "gamma": gamma, "measure": name}
            row |= {"value": agreed[measure], "low": low, "high": high}
            found.append(row | {"turns": agreed["n"], "patients": agreed["patients"]})
    return found


def _cases(plan: Plan):
    """(estimator, std, size, gamma): gamma matters to anchors alone, and a group of one tree has nothing beside its tree."""
    for size in plan.sizes:
        for std in (True, False):
            yield "episode", std, size, 1.0
            for gamma in plan.gammas:
                yield "anchor", std, size, gamma
            if size % TREES.keep == 0:
                yield "tree", std, size, 1.0
                for gamma in plan.gammas:
                    yield "tree+anchor", std, size, gamma
