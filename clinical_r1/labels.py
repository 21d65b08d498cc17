"""Printed names of methods, measures, objectives and benchmarks: each once, for tables, figures and pages."""

from clinical_r1.arms import MAIN

CLINIC_BENCHMARKS = ("clinic", "clinic-shift", "clinic-expert")
PAPER_BENCHMARKS = ("medqa", "medmcqa", "medxpertqa")
GUESSES = ("chance", "majority_letter")
METHOD_LABELS = {arm.name: arm.label for arm in MAIN}
METRIC_LABELS = {
    "backtracking": "Backtracking",
    "backward_chaining": "Backward chaining",
    "subgoal_setting": "Subgoal setting",
    "verification": "Verification",
    "faithfulness": "Faithfulness",
    "cecd": "CECD",
    "drc": "DRC",
    "hallucination": "Hallucination ↓",
    "accuracy": "Accuracy (%)",
}
BENCHMARK_LABELS = {
    "clinic": "clinic",
    "clinic-shift": "clinic-shift",
    "clinic-expert": "clinic-expert",
    "medqa": "MedQA",
    "medmcqa": "MedMCQA",
    "medxpertqa": "MedXpertQA",
}
OBJECTIVE_LABELS = METRIC_LABELS | {
    "tokens": "Tokens per response",
    "reward": "Total reward",
    "accuracy_reward": "Accuracy reward",
    "thinking_format_reward": "Thinking-format reward",
    "clinical_reasoning_reward": "Clinical-reasoning reward",
    "consistency_reward": "Consistency reward",
    "kl": "KL to the reference",
    "entropy": "Entropy",
    "completions/mean_length": "Completion length (tokens)",
}


def objective_label(column):
    """What an objective or a log column is called in a figure."""
    name = column.removeprefix("rewards/").removesuffix("/mean")
    return OBJECTIVE_LABELS.get(column) or OBJECTIVE_LABELS.get(name) or name.replace("_", " ")
