"""The audit of the printed numbers: each check by another route, and that it can fail: pytest tests/audit/test_audit.py"""

import json
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clinical_r1 import paper
from clinical_r1.audit import accuracies, reward_arithmetic
from clinical_r1.audit import claims as audit_claims
from clinical_r1.audit.closing import closing_table
from clinical_r1.audit.steps import steps
from clinical_r1.labels import PAPER_BENCHMARKS
from clinical_r1.rewards import REWARD_SETS


@pytest.fixture(scope="module")
def owners():
    return reward_arithmetic.advantage_owners(np.random.default_rng(0))


# ---- accuracies as k / n


@given(st.integers(0, 10_000), st.integers(1, 20_000))
def test_fits_agrees_with_the_exact_arithmetic(hundredths, n):
    assert bool(accuracies.fits(hundredths / 100, n)) is accuracies.attainable(hundredths / 100, n)


@pytest.mark.parametrize("n", [7, 40, 101, 1273])
def test_fits_when_decimals_are_cut(n):
    cut = {10_000 * k // n for k in range(n + 1)}
    assert set(np.flatnonzero(accuracies.fits(np.arange(10_001) / 100, n, cut=True))) == cut


@pytest.mark.parametrize(("percent", "n"), [(101, 10), (-1, 10), (50, 0)])
def test_fits_refuses(percent, n):
    with pytest.raises(ValueError, match="expected a percentage"):
        accuracies.fits(percent, n)


def test_share_of_any_is_about_n_in_ten_thousand():
    assert accuracies.share_of_any(1273) == pytest.approx(1274 / 10_001, abs=2e-4)
    assert accuracies.share_of_any(20_000) == 1.0


def test_nine_accuracies_are_impossible_and_a_few_dropped_answers_would_do():
    fit = accuracies.attainability()
    assert len(fit) == 15 and (~fit["attainable"]).groupby(fit["benchmark"]).sum().to_dict() == {
        "medqa": 3,
        "medmcqa": 1,
        "medxpertqa": 5,
    }
    assert (fit["dropped"] == 0).equals(fit["attainable"])
    assert fit["dropped"].tolist() == [0, 0, 6, 6, 1, 0, 0, 0, 0, 2, 4, 5, 3, 5, 2]
    for row in fit.itertuples():
        assert accuracies.attainable(row.printed, row.nearest_n)
        assert not any(accuracies.attainable(row.printed, n) for n in range(row.nearest_n + 1, row.n + 1))
    assert not fit.loc[~fit["attainable"], "attainable_if_cut"].any()


def test_denominator_fits_are_those_of_the_window():
    counts = accuracies.denominator_fits(50).groupby(["benchmark", "method"])["fits"].sum()
    for row in accuracies.attainability(50).itertuples():
        assert counts[row.benchmark, row.method] == row.fits_in_window


def test_no_denominator_serves_all_of_medqa():
    shared = accuracies.shared_denominators().set_index(["benchmark", "denominator"])
    smaller = shared[shared.index.get_level_values(1).str.startswith("smaller")].droplevel(1)
    assert smaller["n"].isna().to_dict() == {"medqa": True, "medmcqa": False, "medxpertqa": False}
    assert smaller["n"].dropna().tolist() == [4181, 1741]
    accuracy = paper.table1().query("metric == 'accuracy' and benchmark == 'medxpertqa'")["value"]
    assert [n for n in range(1, 2451) if all(accuracies.attainable(x, n) for x in accuracy)] == [1741]
    full = shared.xs("the official test set", level=1)["fits"]
    assert full.to_dict() == {"medqa": 2, "medmcqa": 4, "medxpertqa": 0}
    first = {
        name: min(s for s in range(2, 9) if shared.loc[(name, f"mean of {s} samples"), "fits"] == 5)
        for name in PAPER_BENCHMARKS
    }
    assert first == {"medqa": 7, "medmcqa": 2, "medxpertqa": 4}


# ---- intervals and tests


def test_intervals_hold_the_printed_value_and_shrink_with_n():
    table = accuracies.intervals()
    assert ((table["ci_low"] < table["printed"]) & (table["printed"] < table["ci_high"])).all()
    width = (table["ci_high"] - table["ci_low"]).groupby(table["benchmark"]).mean()
    assert width["medqa"] > width["medmcqa"]
    assert table.loc[4, ["ci_low", "ci_high"]].tolist() == pytest.approx([50.32, 55.80], abs=0.01)


def test_the_detectable_gain_has_the_power_it_claims():
    rng, n, power = np.random.default_rng(0), 1273, 0.8
    rise = accuracies.minimum_detectable(50.35, n, power)
    a, b = rng.binomial(n, 0.5035, 20_000) / n, rng.binomial(n, 0.5035 + rise / 100, 20_000) / n
    mean = (a + b) / 2
    z = (b - a) / np.sqrt(mean * (1 - mean) * 2 / n)
    assert (np.abs(z) > 1.96).mean() == pytest.approx(power, abs=0.015)
    assert accuracies.minimum_detectable(50.35, 4 * n) == pytest.approx(rise / 2, rel=0.02)


@pytest.mark.parametrize(("percent", "n"), [(0, 10), (100, 10), (50, 0)])
def test_minimum_detectable_refuses(percent, n):
    with pytest.raises(ValueError, match="expected 0 < percent < 100"):
        accuracies.minimum_detectable(percent, n)


def test_three_gains_survive_holm_and_none_on_medqa():
    tests = accuracies.gain_tests()
    assert (tests["p_holm"] >= tests["p"]).all()
    alone = accuracies.minimum_detectable(50.35, tests["n"].iloc[0])
    assert alone < tests["detectable"].iloc[0] < 2 * alone  # of the corrected test, which finds less
    clear = set(tests.loc[tests["p_holm"] < 0.05, ["benchmark", "method"]].itertuples(index=False, name=None))
    assert clear == {
        ("medmcqa", "crpo"),
        ("medmcqa", "cold_start_crpo"),
        ("medxpertqa", "cold_start_crpo"),
    }
    first = tests.iloc[0]  # 2.06 points with 14 % disagreement: McNemar's z is 1.96
    only_one = first["disagreement"] / 100 * first["n"]
    assert first["gain"] / 100 * first["n"] / np.sqrt(only_one) == pytest.approx(1.96, abs=0.001)
    assert tests["disagreement"].between(13, 100).all()


# ---- a size that is not printed


def test_if_n_says_what_hangs_on_it():
    table = accuracies.if_n().set_index("n")
    assert table["fits"].to_dict() == {2450: 0, 1449: 0, 4460: 1, 1741: 5}
    assert (table["p_baseline"] > 0.2).all() and (table["p_cold_start_crpo"] < 0.05).all()
    assert (table["p_crpo"] < 0.05).to_dict() == {2450: False, 1449: False, 4460: True, 1741: False}
    tests = accuracies.gain_tests().set_index(["benchmark", "method"])["p_holm"]
    assert table.loc[2450, "p_crpo"] == tests["medxpertqa", "crpo"]


# ---- the chance line


def test_the_medxpertqa_baseline_is_a_guess_and_the_others_are_not():
    table = accuracies.guessing().set_index("benchmark")
    assert table["k"].to_dict() == {"medqa": 534, "medmcqa": 1957, "medxpertqa": 257}
    assert table["chance"].tolist() == [20, 25, 10]
    assert table.loc["medxpertqa", "p_chance"] == pytest.approx(0.42, abs=0.01)
    assert table.loc["medxpertqa", "ci_low"] < 10 < table.loc["medxpertqa", "ci_high"]
    assert (table.loc[["medqa", "medmcqa"], ["p_chance", "p_majority"]] < 1e-50).all(axis=None)


@pytest.mark.parametrize(
    ("benchmark", "file", "key", "options"),
    [
        ("medqa", "medqa/test_5opt.jsonl", "answer_idx", lambda row: len(row["options"])),
        ("medmcqa", "medmcqa/dev.json", "cop", lambda row: sum(f"op{x}" in row for x in "abcd")),
        ("medxpertqa", "medxpertqa/text_test_medreason.jsonl", "label", lambda row: len(row["options"])),
    ],
)
def test_majority_letters_and_options_are_those_of_the_files(data_dir, benchmark, file, key, options):
    lines = (data_dir / file).read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines if line.strip()]
    most = Counter(row[key] for row in rows).most_common(1)[0][1]
    assert (most, len(rows)) == accuracies.MAJORITY_LETTER[benchmark]
    assert {options(row) for row in rows} == {accuracies.OPTIONS[benchmark]}


# ---- text against table


def test_the_paper_is_contradicted_five_times_and_our_two_readings_are_not_among_them():
    claims = audit_claims.text_against_table()
    assert set(claims["verdict"]) <= set(audit_claims.VERDICTS)
    assert set(claims["said_by"]) == set(audit_claims.SPEAKERS) and set(claims["rests_on"]) <= set(
        audit_claims.GROUNDS
    )
    counts = audit_claims.verdict_counts(claims)
    assert counts["the paper"].to_dict() == {"consistent": 4, "contradicted": 5, "cannot be checked": 1}
    assert counts["us"].to_dict() == {"consistent": 0, "contradicted": 2, "cannot be checked": 0}
    assert counts.loc["contradicted", "by print alone"] == 1
    ours = claims[claims["said_by"] == "us"]
    assert ours["where"].str.startswith("our reading").all() and list(ours.index) == [10, 11]
    assert (claims.loc[claims["verdict"] != "consistent", "innocent"].str.len() > 0).all()


def test_only_what_follows_from_the_print_is_called_print():
    """A drawing, a data file or the meaning of a name is no arithmetic on printed numbers."""
    rests = audit_claims.text_against_table().set_index("claim")["rests_on"]
    assert rests["bold marks the best of each column"] == "print"
    assert rests["MedQA has four choices"] == rests["DRC is the coverage of the wrong options"] == "file"
    assert rests["CECD is a density"] == "words"
    assert (rests[[claim for claim in rests.index if "Figure 1" in claim]] == "drawing").all()


def test_what_the_table_says_of_the_claims():
    said = audit_claims.text_against_table().set_index("claim")["found"]
    assert "46 of 48" in said["CRPO's reasoning is more truthful and more complete than GRPO's"]
    assert said["bold marks the best of each column"].endswith("5.15 is bold, 5.33 (CRPO) is larger")
    assert said["DRC is the coverage of the wrong options"].endswith("3.24 of 3 on MedMCQA")
    assert "12 of 12" in said["hallucination falls below the untrained model's"]


def test_a_verdict_follows_the_numbers(monkeypatch):
    monkeypatch.setitem(audit_claims.BOLD, ("medxpertqa", "cecd"), "crpo")
    monkeypatch.setitem(accuracies.OPTIONS, "medmcqa", 5)
    verdicts = audit_claims.text_against_table().set_index("claim")["verdict"]
    assert verdicts["bold marks the best of each column"] == "consistent"
    assert verdicts["DRC is the coverage of the wrong options"] == "consistent"


def test_the_two_readings_of_figure_1_are_opposite():
    ranks = audit_claims.figure1_readings().pivot(index="method", columns="reading", values="rank")
    assert (ranks.sum(axis=1) == 6).all()
    assert ranks.loc["grpo", "as drawn: the count"] == 1


# ---- the reward


def test_the_terms_are_those_of_our_crpo_reward():
    table = reward_arithmetic.reward_maximum()
    assert tuple(table["weight"]) == tuple(REWARD_SETS["crpo"].weights)
    assert table["contributes"].sum() == 12
    assert reward_arithmetic.reward_maximum(3)["contributes"].sum() == 5


def tied_share(a):
    """E[p^5 + (1 - p)^5] for p ~ Beta(a, a), by the moments of the beta distribution."""
    return 2 * np.prod([(a + i) / (2 * a + i) for i in range(5)])


def test_who_owns_the_advantage(owners):
    assert owners["tied"].tolist() == pytest.approx(
        [2 / 32, tied_share(0.5), tied_share(0.2), tied_share(0.5)], abs=0.015
    )
    expected = [[0.96, 0.12, 0.00], [0.71, 0.47, 0.02], [0.54, 0.66, 0.03], [0.71, np.nan, 0.47]]
    assert owners[list(reward_arithmetic.REWARD_TERMS)].to_numpy() == pytest.approx(
        np.array(expected), abs=0.02, nan_ok=True
    )


def test_simulations_depend_on_their_rng_alone():
    first, again = (reward_arithmetic.advantage_owners(np.random.default_rng(3), 200) for _ in range(2))
    assert first.equals(again)
    assert not first.equals(reward_arithmetic.advantage_owners(np.random.default_rng(4), 200))


def test_simulated_rewards_stay_in_range():
    rewards = reward_arithmetic.simulated_rewards(np.random.default_rng(0), 500, 0.5)
    assert rewards.shape == (2500, 3)
    assert set(rewards[:, 0]) == {0, 1} and set(rewards[:, 1]) == {0, 1, 1.5}
    assert (rewards[:, 2] <= 1).all() and (rewards >= 0).all()


def test_k_matters_in_mixed_groups_only():
    sweep = reward_arithmetic.weight_sweep(np.random.default_rng(0), 2000)
    mixed, tied = (sweep[sweep["groups"] == name].set_index("k") for name in ("mixed", "tied"))
    assert mixed["accuracy"].is_monotonic_increasing and mixed["clinical reasoning"].is_monotonic_decreasing
    assert abs(mixed.loc[0, "accuracy"]) < 0.05 and mixed.loc[10, "accuracy"] > 0.98
    assert tied["accuracy"].isna().all()
    assert np.ptp(tied["clinical reasoning"]) < 1e-6
    assert (sweep.groupby("k")["share"].sum() == 1).all()


def test_worked_groups():
    first, second = (
        rows["advantage"] for _, rows in reward_arithmetic.worked_groups().groupby("group", sort=False)
    )
    assert first.iloc[0] - first.iloc[1] == pytest.approx(0.09, abs=0.001)
    assert first.iloc[1] - first.iloc[3] == pytest.approx(1.79, abs=0.01)
    assert second.iloc[[0, -1]].tolist() == pytest.approx([-1.49, 1.07], abs=0.01)


# ---- steps, and everything together


def test_steps():
    table = steps().set_index("quantity")
    assert table["result"].tolist() == ["180", "13", "11.7", "3.9", "32", "5,760", "0.55 billion"]
    assert table["agrees"].tolist() == [True, True, None, None, False, None, None]
    assert table.iloc[0]["printed"].endswith("177 points up to step 179, without 7, 49")
    assert table["numbers_of"].str.startswith("released GRPO code").all()


def test_a_checkpoint_before_the_last_epoch_contradicts_nothing():
    row = steps().set_index("quantity").loc["epoch of the cold start + GRPO checkpoint"]
    assert row["agrees"] is None and row["note"].startswith("both can be true")
    assert "development set" in row["note"]


def test_closing_table_has_every_check_and_whose_numbers_it_takes(owners):
    table = closing_table(owners)
    assert len(table) == 8 and table["check"].is_unique
    grounds = {ground for row in table["rests_on"] for ground in row.split(", ")}
    assert grounds == set(audit_claims.GROUNDS)
    assert (table[["numbers_of", "innocent"]].map(len) > 0).all(axis=None)
    found = table.set_index("check")["found"]
    assert found["accuracies as k / n"].startswith("4 of 10 are no share")
    assert found["accuracies as k / n"].endswith("2,450, which the paper does not print, 5 of 5 more")
    assert "5 contradicted" in found["the paper against its numbers"]
    assert "1 of the 5 contradicted by print alone. Beside them 2" in found["the paper against its numbers"]
    assert "nan" not in " ".join(found) and "{" not in " ".join(found)


@pytest.mark.parametrize("check", ["accuracies as k / n", "gains over GRPO", "the chance line"])
def test_what_is_said_of_medxpertqa_is_said_under_an_if(owners, check):
    assert paper.SIZE_NOT_PRINTED == {"medxpertqa"}
    assert (
        "if n = 2,450" in (found := closing_table(owners).set_index("check")["found"][check])
        or "n is 2,450" in found
    )


def test_noise_is_not_called_character_noise_of_the_paper(owners):
    row = closing_table(owners).set_index("check").loc["noise at full scale"]
    assert row["rests_on"] == "assumption" and "character" not in row["found"]
    assert "the paper counts tokens, and only the released GRPO code counts characters" in row["innocent"]
