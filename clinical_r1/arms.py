"""Every arm that can be trained: the paper's five, and the ablations that the paper leaves out. Data only.

An arm names a reward set (`rewards.REWARD_SETS`, `laboratory.variants.VARIANT_SETS`), how its K rewards become one advantage
(`advantages.AGGREGATIONS`), the prompt it is asked with, and what it changes in the settings. Everything else, from data
to seeds, is shared by all.
"""

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

# What each stage may learn from (`Arm.data`). "" in "sft": the teacher's traces; in "rl": rewards of the policy's own answers
LEARNED_FROM = {
    "": ("",),
    "sft": ("", "chat", "chat_clean", "chat_taught", "chosen"),
    "rl": ("",),
    "preference": ("kg", "kg_relations", "kg_extremes", "kg_taught", "length", "flipped"),
}
STAGES = tuple(LEARNED_FROM)
STYLES = ("crpo", "grpo")
CHAT = "chat"  # the style of a conversation, which no reward reads


@dataclass(frozen=True)
class Arm:
    """One arm of an experiment.

    family: arms of one family are compared with each other and with crpo. setting: what is varied, in words.
    weights: of the reward set's objectives; None takes the set's own. options: of the aggregation; of a stage "preference",
        fields of `preferences.recipe.Recipe`.
    style: of the prompt and of the format the rewards read. changes: fields of Settings.
    stage: "sft" (supervised), "rl", or "preference" (pairs of answers); "" is not trained at all. start: the arm whose weights
        it starts from and, in RL and from pairs, is held near. data: what it learns from, one of `LEARNED_FROM[stage]`.
    options and changes may be dicts. ValueError for what cannot be meant, before anything is trained with it.
    """

    name: str
    family: str
    label: str
    setting: str = ""
    rewards: str = "crpo"
    weights: tuple[float, ...] | None = None
    aggregation: str = "sum_then_normalize"
    options: tuple[tuple[str, object], ...] = ()
    style: str = "crpo"
    stage: str = "rl"
    start: str = "baseline"
    changes: tuple[tuple[str, object], ...] = ()
    data: str = ""

    def __post_init__(self):
        texts = {
            name: getattr(self, name)
            for name in (
                "name",
                "family",
                "label",
                "rewards",
                "aggregation",
                "style",
                "stage",
                "start",
                "data",
            )
        }
        for name, value in texts.items():
            if not isinstance(value, str) or "\n" in value:
                raise ValueError(f"arm {self.name!r} has the {name} {value!r}; expected one line of text.")
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_]*", self.name) or not self.label.strip():
            raise ValueError(
                f"arm {self.name!r} has the label {self.label!r}; expected a name of letters, digits and '_', such as "
                "short_answers, and a label that is not empty."
            )
        for what, known in (("stage", STAGES), ("style", STYLES)):
            if texts[what] not in known:
                expected = ", ".join(filter(None, known))
                raise ValueError(
                    f"arm {self.name} has the {what} {texts[what]!r}; expected one of {expected}."
                )
        if self.data not in LEARNED_FROM[self.stage]:
            expected = ", ".join(map(repr, LEARNED_FROM[self.stage]))
            raise ValueError(
                f"arm {self.name} of stage {self.stage!r} learns from {self.data!r}; expected one of {expected}."
            )
        for what in ("options", "changes"):
            object.__setattr__(self, what, _pairs(self.name, what, getattr(self, what)))
        if self.weights is not None:
            object.__setattr__(self, "weights", _weights(self.name, self.weights))


def _pairs(arm: str, what: str, given) -> tuple[tuple[str, object], ...]:
    """A dict, or pairs of a name and a value, as pairs."""
    pairs = given.items() if isinstance(given, Mapping) else given
    whole = isinstance(pairs, Iterable) and not isinstance(pairs, str)
    pairs = tuple(pairs) if whole else ()
    if not whole or not all(
        isinstance(pair, tuple) and len(pair) == 2 and isinstance(pair[0], str) for pair in pairs
    ):
        raise ValueError(
            f"arm {arm} has the {what} {given!r}; expected a dict, or pairs of a name and a value."
        )
    if len({name for name, _ in pairs}) < len(pairs):
        raise ValueError(f"arm {arm} has the {what} {given!r}, one of them twice; name each once.")
    return pairs


def _weights(arm: str, given) -> tuple[float, ...]:
    numbers = isinstance(given, list | tuple) and all(
        isinstance(w, int | float) and not isinstance(w, bool) for w in given
    )
    if not numbers or not all(0 <= w < math.inf for w in given) or not any(given):
        raise ValueError(
            f"arm {arm} has the weights {given!r}; expected finite numbers >= 0, not all of them 0."
        )
    return tuple(given)


MAIN = (
    # paper section 4.2: the baseline is asked with the CRPO reasoning template
    Arm("baseline", "main", "Baseline", "untrained", stage=""),
    Arm("grpo", "main", "GRPO", "GRPO's prompt and reward", rewards="grpo", style="grpo"),
    Arm("crpo", "main", "CRPO", "CRPO's prompt and reward"),
    Arm("cold_start_grpo", "main", "Cold Start + GRPO", "", rewards="grpo", style="grpo", start="cold_start"),
    Arm("cold_start_crpo", "main", "Cold Start + CRPO", "", start="cold_start"),
)
# One supervised start serves both cold-start arms; it is trained for them and stands in no table.
COLD_START = "cold_start"
STARTS = (Arm(COLD_START, "start", "Cold start", "supervised, both formats", rewards="", stage="sft"),)
METHODS = tuple(arm.name for arm in MAIN)
REFERENCE = "crpo"  # k = 10, all terms, raw consistency, G = 8, sum_then_normalize, beta = 0.001
ABLATIONS = (
    *(Arm(f"k{k}", "k", f"k = {k}", f"k = {k}", weights=(float(k), 1.0, 0.5)) for k in (0, 1, 3, 30)),
    Arm("no_format", "terms", "no clinical reasoning", "without r_CR", rewards="crpo_no_format"),
    Arm("no_consistency", "terms", "no consistency", "without r_cons", rewards="crpo_no_consistency"),
    Arm("no_citation", "citation", "no citation bonus", "r_CR without + 0.5", rewards="crpo_no_citation"),
    Arm("quantised", "consistency", "consistency in {0, 1}", "r_cons >= 0.95", rewards="crpo_quantised"),
    Arm(
        "gated_consistency", "consistency", "consistency gated", "r_cons if right and well formed",
        rewards="crpo_gated_consistency",
    ),
    Arm("grpo_in_crpo", "prompt_x_reward", "CRPO prompt, GRPO reward", "", rewards="grpo_in_crpo"),
    Arm("crpo_in_grpo", "prompt_x_reward", "GRPO prompt, CRPO reward", "", rewards="crpo_in_grpo", style="grpo"),
    *(
        Arm(f"g{g}", "group_size", f"G = {g}", f"G = {g}", changes=(("num_generations", g), ("rl_prompts", 64 // g)))
        for g in (2, 4, 16)
    ),
    Arm("centred", "aggregator", "sum, not scaled (Dr. GRPO)", "", aggregation="sum_then_center"),
    # normalised objectives are of one size, so a weight of 10 would again leave accuracy alone
    Arm(
        "gdpo", "aggregator", "normalised, then summed (GDPO)", "weights 1, 1, 0.5", weights=(1.0, 1.0, 0.5),
        aggregation="normalize_then_sum",
    ),
    Arm(
        "mo_grpo", "aggregator", "each normalised (MO-GRPO)", "weights 1, 1, 0.5", weights=(1.0, 1.0, 0.5),
        aggregation="normalize_each",
    ),
    Arm("std_floor", "aggregator", "std with a floor", "", aggregation="std_floor"),
    Arm("gated", "aggregator", "gated on the right answer", "", aggregation="gated"),
    Arm(
        "lexicographic", "aggregator", "lexicographic", "r_cons tied within 0.05", aggregation="lexicographic",
        options=(("tolerance", (0.0, 0.0, 0.05)),),
    ),
    Arm(
        "constrained", "aggregator", "constrained (Lagrangian)", "r_CR >= 1.3, r_cons >= 0.99", aggregation="constrained",
        options=(("targets", (1.3, 0.99)),),
    ),
    Arm("leave_one_out", "aggregator", "leave one out", "", aggregation="leave_one_out"),
    Arm("no_kl", "kl", "no KL term", "beta = 0", changes=(("rl_beta", 0.0),)),
    Arm("grounded", "grounded", "grounded rewards (ours)", "claims tied to the question", rewards="grounded"),
    Arm("exact_tally", "grounded", "exact tally (ours)", "claims must favour the boxed option alone", rewards="exact_tally"),
)  # fmt: skip
# RL, then conversation, then pairs of answers that a knowledge graph has put in order; "GRPO++-style", ours (`preferences`)
_PAIRED = dict(family="preferences", rewards="", stage="preference", start="chat_sft")
PREFERENCES = (
    Arm("chat_sft", "preferences", "Conversation", "sloppy", rewards="", stage="sft", start="crpo", data="chat"),
    Arm(
        "chat_sft_clean", "preferences", "Conversation without errors", "none wrong", rewards="", stage="sft", start="crpo",
        data="chat_clean",
    ),
    Arm("kg_dpo", label="Graph preferences", setting="matched pairs, SFT term", data="kg", **_PAIRED),
    Arm(
        "kg_dpo_sigmoid", label="Without the SFT term", setting="matched pairs", data="kg", **_PAIRED,
        options=(("loss_type", ("sigmoid",)), ("loss_weights", (1.0,))),
    ),
    Arm("kg_extremes", label="Best against worst", setting="pairs not matched", data="kg_extremes", **_PAIRED),
    Arm("kg_relations", label="Graph without the patient", setting="relations only", data="kg_relations", **_PAIRED),
    Arm("flipped", label="Labels flipped", setting="30 % of the pairs", data="flipped", **_PAIRED),
    Arm("length", label="Longer wins", setting="no graph", data="length", **_PAIRED),
    Arm(
        "chat_taught", "preferences", "Conversation with false beliefs", "fixed relations inverted", rewards="", stage="sft",
        start="crpo", data="chat_taught",
    ),
    Arm(
        "taught_dpo", label="Graph preferences after false beliefs", setting="half of these relations held out",
        data="kg_taught", **_PAIRED | {"start": "chat_taught"},
    ),
    Arm("sft_on_chosen", label="SFT on the chosen", setting="no rejected", data="chosen", **_PAIRED | {"stage": "sft"}),
)  # fmt: skip
# Ways to keep RL stable where there are 64 questions and small groups
_FEW = dict(changes=(("n_rl", 64), ("rl_prompts", 4), ("num_generations", 4), ("micro_batch", 16)))
LOW_DATA = (
    Arm("few_plain", "low_data", "64 questions", "plain", **_FEW),
    Arm("few_leave_one_out", "low_data", "64 questions, leave one out", "", aggregation="leave_one_out", **_FEW),
    Arm("few_std_floor", "low_data", "64 questions, std with a floor", "", aggregation="std_floor", **_FEW),
    Arm(
        "few_binary", "low_data", "64 questions, binary", "accuracy, not centred", aggregation="binary",
        options=(("center", False),), **_FEW,
    ),
)  # fmt: skip
LABORATORY = tuple(arm.name for arm in (*MAIN, *ABLATIONS))  # what `./reproduce.sh ablations` trains
ARMS = {arm.name: arm for arm in (*MAIN, *STARTS, *ABLATIONS, *PREFERENCES, *LOW_DATA)}


def starts_of(name: str) -> list[str]:
    """The arms whose weights this one is built on, the nearest first, down to the baseline; [] for the baseline.

    ValueError for a start that no arm has, or for arms that start from each other.
    """
    starts, arm = [], ARMS[name]
    while arm.stage:
        if arm.start not in ARMS:
            raise ValueError(
                f"arm {arm.name} starts from {arm.start!r}, which is no arm; expected one of {', '.join(ARMS)}."
            )
        if arm.start in (name, *starts):
            circle = " -> ".join((name, *starts, arm.start))
            raise ValueError(
                f"arm {name} starts from itself ({circle}); let one of these start from 'baseline'."
            )
        starts.append(arm.start)
        arm = ARMS[arm.start]
    return starts


def in_order(names: Iterable[str]) -> list[str]:
    """What has to be trained for these arms, in order: first all that they start from, each after its own start."""
    names = list(names)
    ordered = [*(start for name in names for start in reversed(starts_of(name))), *names]
    return [name for name in dict.fromkeys(ordered) if ARMS[name].stage]
