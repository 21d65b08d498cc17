"""The probes as a part of a run: the arms, seeds and questions that its settings name, and the tables that they leave.

    probed = probe_run(settings)      trained arms are needed; what is probed is kept
    probed.shares, probed.tests       `summary.summary`, `summary.compared`, those of other bases after the run's

In runs/<profile>/tables and figures/<profile>: causality.csv (a row for each arm, seed and probe), causality_shares.csv,
causality_differences.csv. Runs on other bases, runs/<profile>-base.<name> (`python -m clinical_r1.causality --base`), are read
where they are.
"""

from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from clinical_r1.causality.direct import STEPS
from clinical_r1.causality.summary import compared, summary
from clinical_r1.causality.table import probe_all, read_outcomes
from clinical_r1.files import write_text
from clinical_r1.labels import CLINIC_BENCHMARKS
from clinical_r1.settings import CLINIC_BASE, Settings

SHARES, DIFFERENCES = "causality_shares.csv", "causality_differences.csv"
SHIPPED = "shipped"  # the base model of this package


class Probed(NamedTuple):
    """Frames of the three tables."""

    rows: object
    shares: object
    tests: object


def probe_run(settings: Settings) -> Probed | None:
    """Probe what the settings name, on test questions; None where they name nothing, or where the questions are not the clinic's.

    ValueError for an arm that is not trained.
    """
    benchmark = settings.train_benchmark
    if not settings.probe_questions or benchmark not in CLINIC_BENCHMARKS:
        return None
    direct = settings.seeds[: settings.direct_seeds]
    asked = replace(settings, methods=settings.probed)
    size = settings.test_size(benchmark) or settings.probe_questions
    n = min(settings.probe_questions, size)
    return probe_and_write(asked, benchmark, "test", n, STEPS if direct else 0, direct)


def probe_and_write(settings: Settings, *asked) -> Probed:
    """Probe every method and seed of the settings and write the three tables. asked: as in `table.jobs_of`."""
    import pandas as pd

    rows = probe_all(settings, *asked)
    outcomes = read_outcomes(settings, *asked)
    shares, own = summary(outcomes), compared(outcomes, base_name(settings), asked[0])
    every = pd.concat([own, *map(pd.read_csv, other_bases(settings))], ignore_index=True)
    for folder in (settings.run_dir / "tables", settings.figures_dir):
        write_text(folder / SHARES, shares.round(5).to_csv(index=False))
        write_text(folder / DIFFERENCES, every.to_csv(index=False, float_format="%.6g"))
    return Probed(rows, shares, every)


def base_name(settings: Settings) -> str:
    """What tables call the base model: "shipped", or the last part of its folder or id."""
    return SHIPPED if settings.base_model == CLINIC_BASE else Path(settings.base_model).name


def other_bases(settings: Settings) -> list[Path]:
    """causality_differences.csv of runs/<profile>-base.<name>; none for such a run."""
    found = settings.run_dir.parent.glob(f"{settings.profile}-base.*/tables/{DIFFERENCES}")
    return sorted(found) if settings.base_model == CLINIC_BASE else []
