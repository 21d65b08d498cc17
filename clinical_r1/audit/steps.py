"""How large the runs were: steps, epochs and tokens that follow from the released GRPO code and from Figure 5.

The released code is GRPO's, of April 2025; no code of CRPO is public. That the CRPO runs used its batches is inferred.
"""

from clinical_r1 import paper
from clinical_r1.audit.reward_arithmetic import GROUP

STEP_COLUMNS = ("quantity", "arithmetic", "result", "numbers_of", "printed", "agrees", "note")
CODE, BOTH = "released GRPO code", "released GRPO code, the paper"
STEPS = (  # agrees: the name of a comparison in `_step_numbers`, or None where the two do not exclude each other
    (
        "RL steps after a cold start",
        "5,089 // 512 × 20 = {per_epoch} × 20",
        "{total}",
        BOTH,
        "Figure 5: {points} points up to step {last}, without {absent}",
        "ends_at_the_total",
        "the last step may not be logged; two points may lie under others",
    ),
    (
        "epochs of the cold start",
        "221 / (4,580 // 256) = 221 / {per_epoch_sft}",
        "{epochs_sft:g}",
        CODE,
        "stopped early at 13",
        "thirteen_epochs",
        "",
    ),
    (
        "epoch of the cold start + GRPO checkpoint",
        "105 / {per_epoch}",
        "{epoch_cold_start_grpo:.1f}",
        CODE,
        "trained for 20",
        None,
        "both can be true: how a checkpoint was chosen is not said. The training script reads its validation questions from a "
        "file named test.parquet; the preparation script makes them from MedQA's development set and names them val.parquet",
    ),
    ("epoch of the GRPO checkpoint", "35 / (10,178 // 1,024)", "{epoch_grpo:.1f}", CODE, "", None, ""),
    (
        "optimiser updates a step",
        "512 × {group} / (16 × {group})",
        "{updates}",
        CODE,
        "equation 1 samples from the policy itself: 1",
        "one_update",
        "a ratio and a clip, in the code, hold the difference small; the equation leaves them out",
    ),
    ("optimiser updates in all", "{total} × {updates}", "{all_updates:,}", BOTH, "", None, ""),
    (
        "tokens generated in a run",
        "{total} × {rollouts:,} × {mean_length:,.0f} (mean of Figure 5)",
        "{tokens:.2f} billion",
        BOTH,
        "",
        None,
        "",
    ),
)


def steps():
    """Frame quantity, arithmetic, result, numbers_of, printed, agrees (None: nothing that could disagree), note.

    numbers_of: whose numbers the arithmetic takes; `printed`: what the paper says of the same quantity.
    """
    import pandas as pd

    numbers = _step_numbers()
    rows = [
        (
            *(text.format(**numbers) for text in (quantity, arithmetic, result, whose, printed)),
            None if agrees is None else numbers[agrees],
            note,
        )
        for quantity, arithmetic, result, whose, printed, agrees, note in STEPS
    ]
    return pd.DataFrame(rows, columns=STEP_COLUMNS)


def _step_numbers() -> dict:
    """What the braces of STEPS stand for: 5,089 questions in batches of 512 for 20 epochs, and what follows."""
    curve = paper.fig5_curve()
    last, mean_length = int(curve["step"].max()), curve["mean_response_length"].mean()
    absent = sorted(set(range(1, last + 1)) - set(curve["step"].astype(int)))
    per_epoch, per_epoch_sft, per_epoch_full = 5089 // 512, 4580 // 256, 10178 // 1024
    total, rollouts = 20 * per_epoch, 512 * GROUP
    updates = rollouts // (16 * GROUP)
    return {
        **{"per_epoch": per_epoch, "total": total, "rollouts": rollouts, "group": GROUP},
        **{"points": len(curve), "last": last, "absent": ", ".join(map(str, absent))},
        **{"per_epoch_sft": per_epoch_sft, "epochs_sft": 221 / per_epoch_sft},
        **{"epoch_cold_start_grpo": 105 / per_epoch, "epoch_grpo": 35 / per_epoch_full},
        **{"updates": updates, "all_updates": total * updates},
        **{"mean_length": mean_length, "tokens": total * rollouts * mean_length / 1e9},
        "ends_at_the_total": total - last in (0, 1),
        "thirteen_epochs": 221 == 13 * per_epoch_sft,
        "one_update": updates == 1,
    }
