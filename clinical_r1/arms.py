"""Every arm that can be trained: the paper's five, and the ablations that the paper leaves out. Data only.

An arm names a reward set (`rewards.REWARD_SETS`, `reward_variants.VARIANT_SETS`), how its K rewards become one advantage
(`advantages.AGGREGATIONS`), the prompt it is asked with, and what it changes in the settings. Everything else, from data
to seeds, is shared by all.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Arm:
    """One arm of an experiment.

    family: arms of one family are compared with each other and with crpo. setting: what is varied, in words.
    weights: of the reward set's objectives; None takes the set's own. options: of the aggregation.
    style: of the prompt and of the format the rewards read. changes: fields of Settings.
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
    cold_start: bool = False
    changes: tuple[tuple[str, object], ...] = ()


MAIN = (
    Arm("baseline", "main", "Baseline", "untrained"),
    Arm("grpo", "main", "GRPO", "GRPO's prompt and reward", rewards="grpo", style="grpo"),
    Arm("crpo", "main", "CRPO", "CRPO's prompt and reward"),
    Arm("cold_start_grpo", "main", "Cold Start + GRPO", "", rewards="grpo", style="grpo", cold_start=True),
    Arm("cold_start_crpo", "main", "Cold Start + CRPO", "", cold_start=True),
)
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
)  # fmt: skip
ARMS = {arm.name: arm for arm in (*MAIN, *ABLATIONS)}
