"""Shares and differences of the probes over seeds.   pytest tests/causality/test_summary.py"""

import numpy as np
import pandas as pd
import pytest

from clinical_r1.arms import ARMS
from clinical_r1.causality.summary import (
    ITSELF,
    as_markdown,
    as_text,
    base_lines,
    compared,
    differences,
    direct_against_reasoned,
    headline,
    sentences,
    summary,
)

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
    shares = summary(outcomes(BOTH))
    first, _, crpo, tally = as_markdown(shares).split("\n")
    assert first == "| arm | swap | denied |" and tally.startswith("| exact tally (ours) |")
    row = shares.set_index(["method", "probe"]).loc[("crpo", "denied")]
    assert f"{100 * row.share:.1f} [{100 * row.ci_low:.1f}, {100 * row.ci_high:.1f}] |" in crpo
    missing = shares[~((shares["method"] == "crpo") & (shares["probe"] == "denied"))]
    assert as_markdown(missing).split("\n")[2].endswith("| – |")
    assert as_text(pd.DataFrame(rows)).split("\n")[-1].split() == ["crpo", "37.5", "37.5"]


# ---- tests of a run, and what they say ----

ALL = {
    "baseline": {"accuracy": 0.5, "swap": 0.95, "agreement": 0.9},
    "crpo": {"accuracy": 0.9, "swap": 0.05, "agreement": 0.9},
    "exact_tally": {"accuracy": 0.9, "swap": 0.95, "agreement": 0.95},
}


def with_control(frame, seeds=SEEDS[:2], share=0.95):
    """The direct control of crpo on some of the seeds."""
    rows = outcomes({"crpo": {"direct": share}}, seeds)
    return pd.concat([frame, rows], ignore_index=True)


def test_each_trained_arm_is_tested_against_the_baseline_and_swap_apart_from_the_rest():
    frame = with_control(outcomes(ALL))
    rows = compared(frame, "shipped", "clinic")
    pairs = rows[rows["p"].notna()]
    assert set(zip(pairs["method"], pairs["against"], strict=True)) == {
        ("crpo", "baseline"),
        ("exact_tally", "baseline"),
        ("exact_tally", "crpo"),
        ("crpo", ITSELF),
    }
    assert set(rows["base"]) == {"shipped"} and set(rows["benchmark"]) == {"clinic"}
    swaps, others = pairs[pairs["probe"] == "swap"], pairs[pairs["probe"] != "swap"]
    assert set(swaps["status"]) == {"primary"} and set(swaps["tests"]) == {3}
    assert set(others["status"]) == {"exploratory"} and set(others["tests"]) == {7}
    assert (pairs["p_holm"] >= pairs["p"]).all()
    removed = swaps[(swaps["method"] == "crpo") & (swaps["against"] == "baseline")].iloc[0]
    assert removed["difference"] < -0.8 and removed["ci_high"] < -0.7 and removed["p_holm"] < 0.01
    shares = rows[rows["against"].isna()].set_index("method")
    assert list(shares.index) == list(ALL) and shares["p"].isna().all()
    assert shares.difference["crpo"] == summary(frame).set_index(["method", "probe"]).share["crpo", "swap"]


def test_the_direct_control_is_compared_with_reasoning_on_its_own_seeds():
    frame = with_control(outcomes(ALL))
    row = direct_against_reasoned(frame, "crpo")
    own = frame[(frame["method"] == "crpo") & frame["seed"].isin(SEEDS[:2])]
    hit = (own["outcome"] == "hits").groupby(own["probe"]).mean()
    assert row["seeds"] == 2 and row["difference"] == pytest.approx(hit["direct"] - hit["accuracy"])
    assert direct_against_reasoned(frame, "baseline") is None
    one = direct_against_reasoned(with_control(outcomes(ALL), SEEDS[:1]), "crpo")
    assert np.isnan(one["p"])


def test_sentences_take_their_numbers_from_the_tables():
    frame = with_control(outcomes(ALL))
    shares, rows = summary(frame), compared(frame, "shipped", "clinic")
    value = (100 * shares.set_index(["method", "probe"])["share"]).round(1)
    assert headline(shares) == (
        f"Names exchanged in the reasoning: {value['crpo', 'swap']:.1f} % of the answers of CRPO follow"
    )
    said = sentences(shares, rows).splitlines()
    assert [line.split("**")[1] for line in said[:3]] == [ARMS[method].label for method in ALL]
    row = rows[(rows["method"] == "crpo") & (rows["probe"] == "swap") & (rows["against"] == "baseline")].iloc[
        0
    ]
    ends = f"[−{-100 * row['ci_low']:.1f}, −{-100 * row['ci_high']:.1f}]"
    tail = f"−{-100 * row['difference']:.1f} points {ends} against the baseline, p = .{1000 * row['p_holm']:03.0f})"
    assert f"{value['crpo', 'swap']:.1f} % [" in said[1] and tail in said[1]
    assert f"a copy trained to answer at once is right in {value['crpo', 'direct']:.1f} % [" in said[1]
    assert "copy" not in said[0] and "against the baseline" not in said[0]
    assert said[-1].startswith("40 questions, 3 training seeds, 2 of them for the copies; in brackets")
    every = with_control(outcomes(ALL), SEEDS)
    every = sentences(summary(every), compared(every, "shipped", "clinic"))
    assert "40 questions, 3 training seeds; in brackets" in every
    one = outcomes(ALL, SEEDS[:1])
    alone = sentences(summary(one), compared(one, "shipped", "clinic"))
    assert "p <" not in alone and "p =" not in alone and "1 training seed;" in alone
    assert "Student's t over questions" in alone


def test_probes_that_were_not_asked_and_arms_of_one_s_own_are_told_as_they_are():
    shares = summary(outcomes({"my|arm": {"agreement": 0.5}}))
    assert headline(shares).startswith("No answers were given with exchanged names")
    tests = compared(outcomes({"my|arm": {"swap": 0.5}}), "b|se", "clinic")
    said = sentences(shares, tests)
    assert (
        said.startswith(r"- **my\|arm**: ") and "swap" not in said and r"| my\|arm |" in as_markdown(shares)
    )
    assert base_lines(tests).startswith(r"- **Base b\|se**")
    assert base_lines(tests.assign(against="baseline")) == ""  # no share of any arm
