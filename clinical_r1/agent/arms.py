"""What is compared: each estimator of credit as data, and the settings in which an agent is trained (ours)."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from clinical_r1.agent.consultation import Rules
from clinical_r1.agent.forest import Shape

# Stages of a comparison: patients of tuning, validation and test come from the clinic's splits of these names
TRAINED_SPLIT, VALIDATION_SPLIT, TEST_SPLIT = "rl", "validation", "test"


@dataclass(frozen=True)
class AgentArm:
    """How the turns of an episode are credited. estimator: one of `credit.ESTIMATORS`; std, omega, gamma: as in `credit.credit`.

    forest: trees in place of independent episodes.
    """

    name: str
    label: str
    estimator: str
    std: bool = True
    omega: float = 1.0
    gamma: float = 1.0
    forest: Shape | None = None


TREES = Shape(trees=2, expand=3, rounds=1, keep=4)  # eight rows a patient, as many as the chains
GAMMA = 0.95  # GiGPO's own; with 1 and a reward at the end alone, anchors compare whole returns
LEAVES_PER_TOKEN = (
    1.4  # of TREES against chains: leaves for a sampled token, horizon 5 (benchmarks/agent_tokens.py)
)
AGENT_ARMS = {
    arm.name: arm
    for arm in (
        AgentArm("grpo", "GRPO", "episode"),
        AgentArm("gigpo", "GiGPO", "anchor", gamma=GAMMA),
        AgentArm("gigpo_no_std", "GiGPO without std", "anchor", std=False, gamma=GAMMA),
        AgentArm("tree_grpo", "Tree-GRPO", "tree", forest=TREES),
        AgentArm("tree_anchor", "Tree-GRPO + anchors", "tree+anchor", gamma=GAMMA, forest=TREES),
    )
}


@dataclass(frozen=True)
class AgentSettings:
    """One experiment. patients: of a step, with `episodes` rows each; steps: of training; learning_rates: arm -> rate.

    schedule: ((step, {verb: cost}), ...), between which costs change linearly; () keeps the rules' own. save_steps: distance of
    checkpoints. test: patients that the trained agents see once. gate: by how much a
    consultation must beat a diagnosis at once; None: no gate. start: a folder; None: the shipped one.
    """

    name: str
    rules: Rules = field(default_factory=Rules)
    patients: int = 8
    episodes: int = 8
    steps: int = 150
    pool: int = 2_000
    learning_rates: Mapping[str, float] = field(default_factory=dict)
    temperature: float = 1.0
    beta: float = 0.0
    schedule: tuple[tuple[int, Mapping[str, float]], ...] = ()
    save_steps: int = 50
    validation: int = 400
    test: int = 1_000
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    arms: tuple[str, ...] = tuple(AGENT_ARMS)
    gate: float | None = 0.05
    out: str = "."
    start: str | None = None

    @property
    def run_dir(self) -> Path:
        return Path(self.out) / "runs" / "agent" / self.name

    def model_dir(self, arm: str, seed: int) -> Path:
        return self.run_dir / "models" / arm / f"seed{seed}"

    def steps_of(self, arm: str) -> int:
        """Optimiser steps of an arm: a forest goes on until it has sampled as many tokens as the chains have."""
        return round(self.steps * (LEAVES_PER_TOKEN if AGENT_ARMS[arm].forest else 1))

    def to_json(self) -> dict:
        value = asdict(replace(self, rules=None)) | {"rules": self.rules.to_json()}
        return value | {"schedule": [[step, dict(costs)] for step, costs in self.schedule]}

    @classmethod
    def from_json(cls, value: dict) -> "AgentSettings":
        schedule = tuple((step, dict(costs)) for step, costs in value["schedule"])
        made = value | {"rules": Rules(**value["rules"]), "schedule": schedule}
        return cls(**made | {name: tuple(value[name]) for name in ("seeds", "arms")})


RATES, SPARE_SEED = (1e-4, 3e-4, 1e-3), 101  # tried for every arm of the main setting, on validation patients
_PRICES = {"ask": 0.05, "examine": 0.05, "test": 0.1, "invalid": 0.1}
_FREE = dict.fromkeys(_PRICES, 0.0) | {"invalid": 0.1}
_AT_ONCE = Rules(earliest=1, costs=_PRICES)
EXPERIMENTS = {
    settings.name: settings
    for settings in (
        AgentSettings("main"),
        # Premature closure, on purpose: inquiries are priced from the first step, and no gate stands before it
        AgentSettings("closure", rules=_AT_ONCE, arms=("grpo", "gigpo"), seeds=(0, 1, 2), gate=None),
        # Its cure: the same prices in the end, but inquiries are free until the agent has learned what they are good for
        AgentSettings(
            "cured",
            rules=_AT_ONCE,
            schedule=((75, _FREE), (125, _PRICES)),
            arms=("grpo", "gigpo"),
            seeds=(0, 1, 2),
            gate=None,
        ),
        # Where credit at the end alone might hurt: twice the turns. A wasted one costs less, or the start would fail the gate
        AgentSettings(
            "long",
            rules=Rules(horizon=9, menu=12, costs={"invalid": 0.02}),
            arms=("grpo", "gigpo"),
            seeds=(0, 1, 2),
        ),
    )
}
