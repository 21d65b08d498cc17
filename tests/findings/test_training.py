"""What the training curves of notebook 03 say: tenths of the steps, and sentences about them."""

import numpy as np
import pandas as pd
import pytest

from clinical_r1.findings import endings, training


def head(text):
    first = text.split("\n")[0]
    assert first.startswith("### ") and "nan" not in text and "\n\n\n" not in text, text
    return first.removeprefix("### ")


def logs(arms=("grpo", "crpo"), seeds=3, rise=3.0, steps=20, **columns):
    """Training logs of so many seeds: the reward rises by `rise` in all, seeds differ by a tenth; more columns are constant."""
    rows = []
    for place, name in enumerate(arms):
        for seed in range(seeds):
            for step in range(1, steps + 1):
                values = {
                    "reward": 5 + rise * (step - 1) / (steps - 1) + 0.1 * seed,
                    "kl": 0.01 * step * (1 + place + 0.1 * seed),
                }
                values |= {"completions/mean_length": 20.0 + place + 0.1 * seed * (1 + place)}
                rows.append({"method": name, "seed": seed, "step": step} | values | columns)
    return pd.DataFrame(rows)


def test_tenths_are_means_with_intervals_over_seeds():
    table = training.tenths(logs())
    (one,) = table[table["method"] == "grpo"].to_dict("records")
    assert table["method"].tolist() == ["grpo", "crpo"] and one["seeds"] == 3 and one["apart"]
    assert one["first"] == pytest.approx(5 + 3 * 0.5 / 19 + 0.1) and one["rise"] == pytest.approx(3 * 18 / 19)
    assert one["first_high"] - one["first"] == pytest.approx(
        4.303 * 0.1 / np.sqrt(3), rel=1e-3
    )  # t, two degrees of freedom
    alone = training.tenths(logs(seeds=1)).iloc[0]
    assert (
        np.isnan(alone["first_low"])
        and alone["apart"] is None
        and alone["rise"] == pytest.approx(3 * 18 / 19)
    )
    assert training.tenths(logs(), "advantage/silent_groups").empty


def test_an_arm_with_other_steps_has_tenths_of_its_own():
    both = pd.concat([logs(("grpo",), steps=20), logs(("crpo",), steps=40)])
    assert (
        training.tenths(both)["last"].round(6).nunique() == 2 and (training.tenths(both)["rise"] > 2.7).all()
    )


def varied(*args, **more):
    """Logs in which the rise differs a little from seed to seed."""
    rows = logs(*args, **more)
    return rows.assign(reward=rows["reward"] + 0.01 * rows["seed"] * rows["step"])


def test_whether_each_arm_learned():
    text = head(training.learned(training.tenths(varied())))
    assert text.startswith("Total reward rises in 2 of 2 trained arms (95 % interval of the rise above 0)")
    assert text.endswith("first and last tenth have intervals apart in 2")
    flat = pd.concat([varied(("grpo",)), varied(("crpo",), rise=-0.1)])
    assert "rises in 1 of 2 trained arms, not in CRPO (" in head(training.learned(training.tenths(flat)))
    small = training.tenths(varied(("grpo",), rise=0.5))  # seeds differ by more than each of them rises
    assert "in 1 of 1" in training.rises(small) and training.rises(small).endswith("apart in 0")
    alone = training.learned(training.tenths(logs(seeds=1)))
    assert head(alone).endswith("in 2 of 2 trained arms; one training seed: no interval over seeds")
    assert "[" not in alone
    assert head(training.learned(training.tenths(logs().iloc[:0]))).startswith("No arm was trained")


def test_lengths_and_kl_come_with_the_paper_s_sentence_and_its_verdict():
    text = training.lengths(logs(("grpo", "crpo", "cold_start_crpo")))
    assert (
        head(text) == "Tokens an answer in the last tenth: from 20.1 with GRPO to 22.3 with Cold Start + CRPO"
    )
    assert (
        "*answers are longest after a cold start, and shortest with GRPO* (the paper, text): **supported**"
        in text
    )
    text = training.moved(logs(("crpo", "cold_start_crpo"), seeds=1))
    assert "**unsettled** (one training seed settles nothing); KL, CRPO minus Cold Start + CRPO −0.1" in text
    assert "the paper" not in training.moved(logs(("grpo",)))


def test_groups_that_teach_nothing():
    text = training.silent(logs(**{training.SILENT: 0.05, training.TIED: 0.4}))
    assert (
        head(text)
        == "In the last tenth 5.0 % of the groups give no advantage; in 40.0 % accuracy alone would give none"
    )
    assert head(training.silent(logs())) == "This run does not log which groups teach nothing"


def test_the_end_of_notebook_03():
    text = endings.what_changes(logs(**{"rewards/clinical_reasoning_reward/mean": 1.2}))
    assert head(text).startswith(
        "Rewarded for how it reasons, CRPO changes this: clinical-reasoning reward 1.20 in the first"
    )
    assert "- CRPO minus GRPO: +1.1 tokens" in text and "not corrected" in text
    text = endings.what_changes(logs(("cold_start_grpo",), seeds=1))
    assert "rises in 1 of 1 trained arm; one training seed" in head(text) and "one seed tests none" in text


def test_seeds_that_agree_have_no_interval_and_are_not_said_to_fall():
    table = training.tenths(logs(seeds=1))
    twice = pd.concat([logs(seeds=1), logs(seeds=1).assign(seed=1)])
    text = training.learned(training.tenths(twice))
    assert "no interval over seeds for" in head(text) and "not in" not in head(text) and len(table)
    assert "nan" not in text


def test_arms_of_equal_length_are_both_named_and_sparse_logs_are_read():
    own = logs(("grpo", "crpo"), seeds=1).assign(**{training.LENGTH: 3.0})
    assert head(training.lengths(own)) == "Tokens an answer in the last tenth: 3.0 with GRPO and CRPO"
    rare = logs(("crpo",), seeds=1)[lambda rows: rows["step"] % 10 == 0]
    assert "nan" not in training.lengths(rare) and "–" not in head(training.lengths(rare))
