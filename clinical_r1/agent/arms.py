"""What is compared: each estimator of credit as data, and the settings in which an agent is trained (ours)."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from clinical_r1.agent.consultation import Rules

# Stages of a comparison: patients of tuning, validation and test come from the clinic's splits of these names
TRAINED_SPLIT, VALIDATION_SPLIT, TEST_SPLIT = "rl", "validation", "test"


@dataclass(frozen=True)
class Forest:
    """Tree-GRPO's shape (companion paper, section 3): rounds in which `expand` nodes of each tree are continued, and leaves kept."""

    expand: int = 3
    rounds: int = 1
    keep: int = 4

    def __post_init__(self):
        leaves = 1 + self.expand * self.rounds
        if not 1 <= self.keep <= leaves:
            raise ValueError(
                f"got {self.keep} leaves to keep of a tree with {leaves}; expected 1 to 1 + expand * rounds = {leaves}."
            )


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
    forest: Forest | None = None


GAMMA = 0.95  # GiGPO's own; with 1 and a reward at the end alone, anchors compare whole returns
AGENT_ARMS = {
    arm.name: arm
    for arm in (
        AgentArm("grpo", "GRPO", "episode"),
        AgentArm("gigpo", "GiGPO", "anchor", gamma=GAMMA),
        AgentArm("gigpo_no_std", "GiGPO without std", "anchor", std=False, gamma=GAMMA),
        AgentArm("tree_grpo", "Tree-GRPO", "tree", forest=Forest()),
        AgentArm("tree_anchor", "Tree-GRPO + anchors", "tree+anchor", gamma=GAMMA, forest=Forest()),
    )
}


@dataclass(frozen=True)
class AgentSettings:
    """One experiment. patients: of a step, with `episodes` rows each; steps: of training; learning_rates: arm -> rate.

    schedule: ((step, {verb: cost}), ...), between which costs change linearly; () keeps the rules' own. save_steps: distance of
    checkpoints. test: patients that the trained agents see once. start: a folder; None: the shipped one.
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
    gate: float = 0.05
    out: str = "."
    start: str | None = None

    @property
    def run_dir(self) -> Path:
        return Path(self.out) / "runs" / "agent" / self.name

    def model_dir(self, arm: str, seed: int) -> Path:
        return self.run_dir / "models" / arm / f"seed{seed}"

    def to_json(self) -> dict:
        value = asdict(replace(self, rules=None)) | {"rules": self.rules.to_json()}
        return value | {"schedule": [[step, dict(costs)] for step, costs in self.schedule]}
