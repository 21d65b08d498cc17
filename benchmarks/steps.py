"""How many steps of reinforcement learning: 100 or 200? Two spare seeds of every arm, by the rule of docs/claims.md.

    python benchmarks/steps.py            trains what is missing (about 12 minutes on two quiet cores), then prints both tables
    python benchmarks/steps.py --summary  prints what is on disk

With --results benchmarks/results both tables are also written to steps.csv, which docs/claims.md speaks of.

Only the longer run is trained: the learning rate is constant, so its first half is the shorter run. Nothing is tested on, only
the training reward is read. The arms lie in runs/steps; a run that is stopped goes on. The answer decides `rl_steps` of the
profile `published`.
"""

import argparse
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from clinical_r1.arms import ARMS
from clinical_r1.files import write_text
from clinical_r1.settings import PUBLISHED, SPARE_SEEDS, SPARE_STEPS, Settings

SETTLED = 0.1  # of the whole rise may fall into the last half


def steps_settings(out: str = ".") -> Settings:
    """The published run's settings with the longest training, on the spare seeds, in runs/steps."""
    methods = tuple(name for name in PUBLISHED.probed if ARMS[name].stage)
    return replace(
        PUBLISHED, profile="steps", out=out, seeds=SPARE_SEEDS, methods=methods, rl_steps=max(SPARE_STEPS)
    )


def rises(logs: pd.DataFrame, steps: int) -> pd.DataFrame:
    """Frame arm -> first, middle, end, rise, last_half, slope, settled: mean total reward, over the seeds.

    logs: `artifacts.read_logs`. first, middle, end: of the first tenth, the tenth before the middle, the last tenth of the steps.
    rise: end - first; last_half: end - middle; slope: of a line through the last half, per 100 steps. settled: the last half
    brought less than SETTLED of the rise; also true where the reward fell over the last half.
    """
    tenth, half = steps // 10, steps // 2
    if tenth < 1 or logs["step"].max() < steps:
        raise ValueError(f"the logs end at step {logs['step'].max()}; expected {steps}, and at least 10.")
    rows = []
    for method, own in logs.groupby("method", sort=False):
        mean = own.groupby("step")["reward"].mean().loc[1:steps]
        first, middle, end = (mean.loc[at + 1 : at + tenth].mean() for at in (0, half - tenth, steps - tenth))
        late = mean.loc[half + 1 :]
        slope = 100 * np.polyfit(late.index, late, 1)[0]
        rise, last_half = end - first, end - middle
        row = {
            "arm": method,
            "first": first,
            "middle": middle,
            "end": end,
            "rise": rise,
            "last_half": last_half,
        }
        rows.append(row | {"slope": slope, "settled": bool(last_half < SETTLED * rise)})
    return pd.DataFrame(rows).set_index("arm")


def answer(table: pd.DataFrame) -> str:
    """What the rule says, in one sentence. table: `rises` of the longer run."""
    open_arms = [ARMS[arm].label for arm in table.index[~table["settled"]]]
    if not open_arms:
        return "Training has settled in every arm: take the longer run."
    return f"Training has not settled in {', '.join(open_arms)}: take the longer run where the time allows, and say so."


def main(argv=None) -> int:
    """Train the longer run and print how the reward rose in either."""
    parser = argparse.ArgumentParser(prog="python benchmarks/steps.py", description=main.__doc__)
    parser.add_argument("--out", default=".", help="folder that holds runs/")
    parser.add_argument("--summary", action="store_true", help="train nothing")
    parser.add_argument("--results", type=Path, help="folder to write steps.csv to")
    arguments = parser.parse_args(argv)
    from clinical_r1.artifacts import read_logs
    from clinical_r1.curation.splits import ensure_splits
    from clinical_r1.train import train_all

    settings = steps_settings(arguments.out)
    if not arguments.summary:
        ensure_splits(settings)
        train_all(settings)
    logs = read_logs(settings)
    tables = {steps: rises(logs, steps) for steps in SPARE_STEPS}
    for steps, table in tables.items():
        print(f"\n{steps} steps, seeds {', '.join(map(str, SPARE_SEEDS))}\n{table.round(3).to_string()}")
    if arguments.results:
        both = pd.concat(tables, names=["steps"]).round(4)
        write_text(arguments.results / "steps.csv", both.to_csv())
    print(f"\n{answer(tables[max(SPARE_STEPS)])}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
