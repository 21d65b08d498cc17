"""100 or 200 steps: the rule of docs/claims.md on literal reward curves.   pytest tests/test_steps.py"""

import importlib.util

import numpy as np
import pandas as pd
import pytest

from clinical_r1.arms import ARMS
from clinical_r1.files import ROOT
from clinical_r1.settings import PUBLISHED, SPARE_SEEDS, SPARE_STEPS

spec = importlib.util.spec_from_file_location("steps", ROOT / "benchmarks" / "steps.py")
steps = importlib.util.module_from_spec(spec)
spec.loader.exec_module(steps)


def logs(curve, method="crpo", n=20):
    at = np.arange(1, n + 1)
    return pd.concat(
        pd.DataFrame({"method": method, "seed": s, "step": at, "reward": curve(at) + s}) for s in (0, 2)
    )


def test_a_line_has_not_settled_and_its_slope_is_per_hundred_steps():
    row = steps.rises(logs(lambda at: 0.1 * at), 20).loc["crpo"]
    assert row["first"] == pytest.approx(1.15) and row["middle"] == pytest.approx(
        1.95
    )  # seeds 0 and 2, their mean 1
    assert row["rise"] == pytest.approx(1.8) and row["last_half"] == pytest.approx(1.0)
    assert row["slope"] == pytest.approx(10.0) and not row["settled"]


def test_a_step_that_stays_up_has_settled_and_so_has_one_that_falls_late():
    up = steps.rises(logs(lambda at: (at > 5) * 4.0), 20).loc["crpo"]
    assert up["settled"] and up["slope"] == pytest.approx(0) and up["rise"] == pytest.approx(4)
    assert steps.rises(logs(lambda at: (at > 5) * 4.0 - (at > 15)), 20).loc["crpo", "settled"]


def test_the_answer_names_the_arms_that_still_rise():
    table = pd.concat(
        [steps.rises(logs(lambda at: 0.1 * at), 20), steps.rises(logs(lambda at: (at > 5) * 4.0, "grpo"), 20)]
    )
    assert steps.answer(table).startswith("Training has not settled in CRPO: take")
    assert steps.answer(table.loc[["grpo"]]).startswith("Training has settled in every arm")
    with pytest.raises(ValueError, match="end at step 20"):
        steps.rises(logs(lambda at: at), 40)


def test_the_trial_is_the_published_run_on_spare_seeds():
    settings = steps.steps_settings("somewhere")
    assert settings.rl_steps == max(SPARE_STEPS) and settings.seeds == SPARE_SEEDS and min(SPARE_SEEDS) >= 100
    assert not set(settings.seeds) & set(PUBLISHED.seeds) and "exact_tally" in settings.methods
    assert settings.run_dir.name == "steps"


def test_the_first_half_of_the_longer_run_is_read_as_the_shorter_run():
    whole = logs(lambda at: np.minimum(at, 10) * 1.0, n=20)
    assert (
        steps.rises(whole, 10)["slope"]["crpo"] == pytest.approx(100)
        and not steps.rises(whole, 10)["settled"]["crpo"]
    )
    assert steps.rises(whole, 20)["settled"]["crpo"]


def test_the_page_s_table_is_that_of_the_file():
    """Fix: python benchmarks/steps.py --results benchmarks/results, and its numbers in docs/claims.md."""
    table = pd.read_csv(ROOT / "benchmarks" / "results" / "steps.csv").set_index(["steps", "arm"])
    page = (ROOT / "docs" / "claims.md").read_text(encoding="utf-8")
    short, long = SPARE_STEPS
    for arm in table.loc[long].index:
        row, share = (
            table.loc[(long, arm)],
            table.loc[(long, arm), "last_half"] / table.loc[(long, arm), "rise"],
        )
        ends = f"{row['first']:.2f} | {table.loc[(short, arm), 'end']:.2f} | {row['end']:.2f} | {100 * share:.0f} %"
        assert f"| {ARMS[arm].label} | {ends} |" in page
    assert not table["settled"].any() and "no arm settles, neither at 100 steps nor at 200" in page
