"""Shares and differences of the probes over seeds.   pytest tests/causality/test_summary.py"""

import numpy as np
import pandas as pd
import pytest

from clinical_r1.causality.summary import as_markdown, as_text, differences, summary

QUESTIONS, SEEDS = 40, (101, 102, 103)


def outcomes(shares, seeds=SEEDS):
    """method -> probe -> share of hits, the same questions for all."""
    rng = np.random.default_rng(3)
    return pd.DataFrame(
        [
            {"method": method, "seed": seed, "probe": probe, "id": f"q{i}", "outcome": outcome}
            for method, own in shares.items()
            for probe, share in own.items()
            for seed in seeds
            for i, outcome in enumerate(np.where(rng.random(QUESTIONS) < share, "hits", "unread"))
        ]
    )


BOTH = {"crpo": {"swap": 0.05, "denied": 0.8}, "exact_tally": {"swap": 0.95, "denied": 0.1}}


def test_shares_are_out_of_all_questions_and_seeds():
    frame = outcomes(BOTH)
    rows = summary(frame).set_index(["method", "probe"])
    for key, own in frame.groupby(["method", "probe"]):
        row = rows.loc[key]
        assert row["share"] == (own["outcome"] == "hits").mean()
        assert row["ci_low"] <= row["share"] <= row["ci_high"]
        assert (row["seeds"], row["questions"]) == (3, QUESTIONS)
    assert set(rows["interval"]) == {"two-way random effects over questions and seeds"}
    alone = summary(outcomes(BOTH, SEEDS[:1]))
    assert set(alone["interval"]) == {"Student's t over questions"}


def test_differences_pair_questions_and_seeds():
    frame = outcomes(BOTH)
    rows = differences(frame, "exact_tally", "crpo").set_index("probe")
    shares = summary(frame).set_index(["method", "probe"])["share"]
    for probe in ("swap", "denied"):
        expected = shares["exact_tally", probe] - shares["crpo", probe]
        assert rows.difference[probe] == pytest.approx(expected)
        assert rows.ci_low[probe] <= expected <= rows.ci_high[probe] and rows.p[probe] < 0.05
    assert differences(outcomes(BOTH, SEEDS[:1]), "exact_tally", "crpo")["p"].isna().all()
    with pytest.raises(ValueError, match="crpo and grpo were not both asked"):
        differences(frame, "crpo", "grpo")
    with pytest.raises(ValueError, match="were not both asked"):
        differences(frame[1:], "exact_tally", "crpo")


def test_tables_for_a_page_and_a_terminal():
    rows = [
        {"method": "crpo", "seed": seed, "probe": probe, "share": share, "ci_low": 0.1, "ci_high": 0.9}
        for seed, share in ((101, 0.25), (102, 0.5))
        for probe in ("swap", "empty")
    ]
    assert as_markdown(pd.DataFrame(rows)).split("\n") == [
        "| arm | seed | swap | empty |",
        "| --- | --- | --- | --- |",
        "| CRPO | 101 | 25.0 (10.0 to 90.0) | 25.0 (10.0 to 90.0) |",
        "| CRPO | 102 | 50.0 (10.0 to 90.0) | 50.0 (10.0 to 90.0) |",
    ]
    assert as_text(pd.DataFrame(rows)).split("\n")[-1].split() == ["crpo", "37.5", "37.5"]
