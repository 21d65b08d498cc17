"""The laboratory's files are read whole or refused; fronts, volumes and claims are right on cases solved by hand.

pytest tests/laboratory/test_tradeoffs.py
"""

import gzip

import numpy as np
import pandas as pd
import pytest
from laboratory import laboratory, write_laboratory

from clinical_r1 import intervals
from clinical_r1.audit import reward_arithmetic
from clinical_r1.clinic.cases import Case, load_set
from clinical_r1.laboratory import comparisons, draws, pareto, records, shares

PAIR = ("accuracy", "faithfulness")


@pytest.fixture
def lab(tmp_path):
    write_laboratory(tmp_path)
    return records.read_laboratory(tmp_path)


def rng():
    return np.random.default_rng(0)


def without(lab, arm=None, **columns):
    """The laboratory without an arm, or with columns of the scores replaced."""
    scores = lab.scores[lab.scores["arm"] != arm].assign(**columns)
    return lab._replace(scores=scores)


# --- reading


def test_missing_file_names_itself_and_the_command(tmp_path):
    write_laboratory(tmp_path)
    (tmp_path / "ablations_arms.csv").unlink()
    with pytest.raises(FileNotFoundError, match=r"ablations_arms\.csv is missing.*reproduce\.sh ablations"):
        records.read_laboratory(tmp_path)


@pytest.mark.parametrize("damage", ["cut", "not gzip", "column", "empty"])
def test_damaged_file_names_itself_and_the_command(tmp_path, damage):
    write_laboratory(tmp_path)
    path = tmp_path / "ablations_scores.csv.gz"
    whole = path.read_bytes()
    text = gzip.decompress(whole).decode()
    path.write_bytes(
        {
            "cut": whole[: len(whole) // 2],
            "not gzip": b"arm,seed\n",
            "column": gzip.compress(text.replace("correct", "other", 1).encode()),
            "empty": gzip.compress(text.splitlines()[0].encode()),
        }[damage]
    )
    with pytest.raises(ValueError, match=r"ablations_scores\.csv\.gz.*reproduce\.sh ablations"):
        records.read_laboratory(tmp_path)


def test_rows_twice_and_unknown_arms_are_refused(tmp_path):
    frames = laboratory()
    write_laboratory(tmp_path, frames | {"scores": pd.concat([frames["scores"], frames["scores"][:1]])})
    with pytest.raises(ValueError, match="twice"):
        records.read_laboratory(tmp_path)
    write_laboratory(tmp_path, frames | {"arms": frames["arms"][frames["arms"]["arm"] != "k0"]})
    with pytest.raises(ValueError, match=r"\['k0'\]"):
        records.read_laboratory(tmp_path)


# --- draws and ablations


def test_draws_give_the_intervals_of_the_interval_module(lab):
    own = lab.scores[lab.scores["arm"] == "k0"]
    expected = intervals.mean_interval(own["faithfulness"], clusters=own["id"], seeds=own["seed"])
    row = pareto.points(lab, PAIR).query("arm == 'k0' and objective == 'faithfulness'").iloc[0]
    assert row["value"] == pytest.approx(own["faithfulness"].mean())
    assert (row["ci_low"], row["ci_high"]) == pytest.approx(expected)


def test_ablation_table_is_the_paired_comparison(lab):
    table = comparisons.ablation_table(lab, "k")
    assert list(dict.fromkeys(table["arm"])) == ["k0", "k3", "crpo", "k30"]  # by k
    row = table[(table["arm"] == "k30") & (table["metric"] == "faithfulness")].iloc[0]
    pair = [lab.scores[lab.scores["arm"] == arm].sort_values(["seed", "id"]) for arm in ("k30", "crpo")]
    values = [rows["faithfulness"].to_numpy(float) for rows in pair]
    expected = intervals.paired_difference(*values, clusters=pair[0]["id"], seeds=pair[0]["seed"])
    assert row["difference"] == pytest.approx(expected.difference)
    bounds = (row["difference_low"], row["difference_high"])
    assert bounds == pytest.approx(expected.interval) and row["p"] == pytest.approx(expected.p)
    tested = table[table["against"].notna()]
    assert tested["p_holm"].to_numpy() == pytest.approx(intervals.holm(tested["p"]))
    assert set(tested["tests"]) == {12} and set(tested["status"]) == {"primary"}
    first = intervals.minimum_detectable_effect(expected.standard_error, expected.df, tests=12)
    assert row["mde_holm"] == pytest.approx(first)
    own = table[table["arm"] == "crpo"]
    assert own["difference"].isna().all() and own["setting"].iloc[0] == "k = 10"
    assert set(table["seeds"]) == {3} and set(table["n"]) == {40}


def test_cold_start_arms_are_compared_with_their_own_counterpart(lab):
    table = comparisons.ablation_table(lab, "cold_start")
    against = table.dropna(subset="difference").drop_duplicates("arm").set_index("arm")["against"]
    assert against.to_dict() == {"cold_start_grpo": "grpo", "cold_start_crpo": "crpo"}


@pytest.mark.parametrize("seeds", [1, 3])
def test_an_arm_that_is_always_right_or_silent_has_no_certain_number(lab, seeds):
    scores = lab.scores[lab.scores["seed"] < seeds].copy()
    k0, k3 = scores["arm"] == "k0", scores["arm"] == "k3"
    scores.loc[k0, ["accuracy", "faithfulness", "drc"]] = [100.0, 0, 2]
    scores.loc[k3, "accuracy"] = 0.0
    given = lab._replace(scores=scores)
    points = pareto.points(given, ("accuracy", "faithfulness", "drc")).set_index(["arm", "objective"])
    bound = intervals.wilson_interval(0, 40)[1]
    for key, expected in {
        ("k0", "accuracy"): (100 - 100 * bound, 100.0),
        ("k3", "accuracy"): (0.0, 100 * bound),
        ("k0", "faithfulness"): (0.0, bound),
        ("k0", "drc"): (2 - bound, 2 + bound),
    }.items():
        assert points.loc[key, ["ci_low", "ci_high"]].tolist() == pytest.approx(expected), key
    volumes = pareto.hypervolume_table(given, rng=rng(), reps=20).set_index(["kind", "name"])
    silent = volumes.loc[
        ("arm", "k0")
    ]  # no true claim, no volume: and no draw that could say how sure that is
    assert silent["volume"] == 0 and np.isnan(silent["ci_low"]) and np.isnan(silent["ci_high"])
    table = comparisons.ablation_table(given, "k", "k0", ("accuracy",)).set_index("arm")
    assert table.loc["k3", "difference"] == -100 == table.loc["k3", "difference_low"]
    assert table.loc["k3", "difference_high"] == pytest.approx(-100 + 100 * bound)


def test_differences_of_accuracy_stay_within_a_hundred_points(lab):
    """Three seeds at 0, 20 and 100 per cent against three at 100: Student's t alone says -190 points."""
    scores = lab.scores.copy()
    scores.loc[scores["arm"] == "crpo", "accuracy"] = 100.0
    scores.loc[scores["arm"] == "k0", "accuracy"] = scores["seed"].map({0: 0.0, 1: 20.0, 2: 100.0})
    row = comparisons.ablation_table(lab._replace(scores=scores), "k", metrics=("accuracy",)).set_index("arm")
    assert row.loc["k0", "difference"] == -60 and row.loc["k0", "difference_low"] == -100
    assert (row.loc["k0", "ci_low"], row.loc["k0", "ci_high"]) == (0.0, 100.0)


def test_tables_name_their_draws_and_seed(lab):
    seed = np.random.default_rng(5)
    volumes = pareto.hypervolume_table(lab, rng=seed, reps=20)
    assert set(volumes["interval"]) == {"bootstrap over questions and seeds (20 draws, seed 5)"}
    again = pareto.hypervolume_table(lab, rng=seed, reps=20)  # whatever the generator has drawn before
    assert again.equals(volumes)
    assert set(pareto.fronts(lab, [PAIR], seed)["draws"]) == {
        "bootstrap over questions and seeds (1,000 draws, seed 5)"
    }
    one = lab._replace(scores=lab.scores[lab.scores["seed"] == 0])
    assert set(pareto.points(one, PAIR)["interval"]) == {"Student's t over questions"}
    table = comparisons.ablation_table(one, "k")
    assert table[["p", "p_holm", "mde_holm"]].isna().all(axis=None) and table["difference_low"].notna().any()
    assert comparisons.prompt_and_reward(one)["p_holm"].isna().all()


def test_measures_that_were_not_named_before_are_exploratory_and_corrected_apart(lab):
    table = comparisons.ablation_table(lab, "k", metrics=("tokens", "cecd", "accuracy", "drc"))
    tested = table[table["p"].notna()]
    for status, names in (("primary", {"accuracy", "drc"}), ("exploratory", {"tokens", "cecd"})):
        rows = tested[tested["status"] == status]
        assert set(rows["metric"]) <= names
        assert rows["p_holm"].to_numpy() == pytest.approx(intervals.holm(rows["p"]))


def test_volumes_need_a_generator_and_means_do_not(lab):
    with pytest.raises(ValueError, match="expected rng="):
        pareto.hypervolume_table(lab, reps=20)
    assert len(pareto.points(lab)) == 44


def test_seeds_that_agree_exactly_have_no_interval():
    for values in ([0.0, 0.0, 0.0], [0.7, 0.7], [0.3]):
        assert np.isnan(draws.mean_over_seeds(values)["ci_low"])
    assert draws.mean_over_seeds([0.0, 0.1])["ci_low"] < 0


def test_unknown_family_and_uncomputed_objective_are_named(lab):
    with pytest.raises(ValueError, match="'colour'"):
        comparisons.ablation_table(lab, "colour")
    with pytest.raises(ValueError, match="objective 'kindness' is named but not computed"):
        pareto.points(lab, ("accuracy", "kindness"))


def test_a_missing_verdict_is_no_zero(lab):
    gap = lab.scores["drc"].astype(float).where(lab.scores.index != lab.scores.index[-1])
    with pytest.raises(ValueError, match="no drc for 1 of 40"):
        pareto.points(without(lab, drc=gap), ("drc",))


def test_arms_are_compared_on_the_seeds_they_share(lab):
    half = lab.scores[(lab.scores["arm"] != "k30") | (lab.scores["seed"] < 1)]
    table = comparisons.ablation_table(lab._replace(scores=half), "k")
    assert set(table["seeds"]) == {1} and np.isfinite(table["ci_high"]).all()
    none = half[(half["arm"] == "k30") | (half["seed"] > 0)]
    with pytest.raises(ValueError, match="no training seed in common"):
        comparisons.ablation_table(lab._replace(scores=none), "k")


def test_prompt_and_reward_effects_add_up(lab):
    table = comparisons.prompt_and_reward(lab, ("drc",)).set_index("effect")["difference"]
    mean = lab.scores.groupby("arm")["drc"].mean()
    assert table["CRPO prompt"] + table["CRPO reward"] == pytest.approx(mean["crpo"] - mean["grpo"])
    interaction = mean["crpo"] - mean["grpo_in_crpo"] - mean["crpo_in_grpo"] + mean["grpo"]
    assert table["both together"] == pytest.approx(interaction)


def test_k_table_reads_k_from_the_arms(lab):
    table = comparisons.k_table(lab)
    assert sorted(table["k"].unique()) == [0, 3, 10, 30]
    paid = table[table["metric"] == "clinical_reasoning_reward"]
    assert len(paid) == 4 and paid["seeds"].eq(3).all()


# --- objective space


def test_fronts_by_hand(lab):
    """Accuracy up, hallucination down: 'baseline' is worst in both, so it is on no front in no draw."""
    table = pareto.fronts(lab, [("accuracy", "hallucination")], rng()).set_index("arm")
    means = lab.scores.groupby("arm")[["accuracy", "hallucination"]].mean().loc[table.index]
    expected = pareto.pareto_front(means.to_numpy(), [True, False])
    assert table["on_front"].tolist() == expected.tolist()
    assert not table.loc["baseline", "on_front"] and table.loc["baseline", "frequency"] < 0.05
    assert table["frequency"].between(0, 1).all()


def test_undominated_agrees_with_the_pareto_front():
    clouds = rng().integers(0, 4, size=(20, 9, 3)).astype(float)  # many ties
    expected = [pareto.pareto_front(points) for points in clouds]
    assert (pareto.undominated(clouds) == expected).all()


def test_hypervolume_of_one_arm_is_the_product_of_its_means(lab):
    table = pareto.hypervolume_table(
        lab, rng=rng(), reps=50, bound={"accuracy": 100, "faithfulness": 5, "drc": 3}
    )
    arms = table[table["kind"] == "arm"].set_index("name")
    means = lab.scores.groupby("arm")[["accuracy", "faithfulness", "drc"]].mean()
    assert arms["volume"].to_dict() == pytest.approx(means.prod(axis=1).to_dict())
    assert arms["share"].to_dict() == pytest.approx((means.prod(axis=1) / 1500).to_dict())
    front = table[(table["kind"] == "front") & (table["name"] == "k")].iloc[0]
    assert front["volume"] >= arms.loc[["k0", "k3", "crpo", "k30"], "volume"].max()
    assert (table["ci_low"] <= table["volume"]).all() and (table["volume"] <= table["ci_high"]).all()


def test_hypervolume_counts_less_as_more_for_hallucination(lab):
    objectives, reference = ("accuracy", "hallucination"), {"accuracy": 0.0, "hallucination": 9.0}
    table = pareto.hypervolume_table(lab, objectives, reference, rng(), reps=20).set_index("name")
    means = lab.scores.groupby("arm")[list(objectives)].mean().loc["k0"]
    assert table.loc["k0", "volume"] == pytest.approx(means["accuracy"] * (9 - means["hallucination"]))


@pytest.mark.parametrize(
    "reference, message",
    [
        ({"accuracy": 99.0, "faithfulness": 0.0, "drc": 0.0}, "99 of accuracy does not bound the front: "),
        ({"accuracy": 0.0, "drc": 0.0}, "the reference has"),
    ],
)
def test_reference_that_does_not_bound_the_front_names_the_objective(lab, reference, message):
    with pytest.raises(ValueError, match=message):
        pareto.hypervolume_table(lab, reference=reference, rng=rng())


def test_honest_policy_is_below_the_ideal_and_above_nothing():
    honest, ideal = pareto.honest_point(30), pareto.ideal_point(30)
    assert honest["accuracy"] == ideal["accuracy"] == 100 and honest["hallucination"] == 0
    assert 2.4 <= honest["drc"] == ideal["drc"] <= 3  # four options, nearly every distractor can be rejected
    assert 0 < honest["faithfulness"] < ideal["faithfulness"]
    assert pareto.honest_point(30) == honest


def test_no_text_can_have_more_true_claims_than_the_ideal():
    from clinical_r1.clinic.traces import claim_text
    from clinical_r1.clinic.verdicts import AGAINST, SUPPORTS, measure

    case = Case.from_json(load_set("clinic", "test", 1)[0].meta["case"])
    everything = " ".join(
        claim_text(f, p, sign, o, case)
        for f, p in case.stated
        for o in case.options
        for sign in (SUPPORTS, AGAINST)
    )
    counts, ideal = measure(everything, case), pareto.ideal_point(1)
    assert (counts["faithfulness"], counts["drc"]) == (ideal["faithfulness"], ideal["drc"])


def test_trajectories_average_seeds(lab):
    table = pareto.trajectory_points(lab, ("accuracy",)).set_index(["arm", "step"])
    rows = lab.trajectories.query("arm == 'crpo' and step == 50")
    assert table.loc[("crpo", 50), "value"] == pytest.approx(100 * rows["correct"].mean())
    per_seed = 100 * rows.groupby("seed")["correct"].mean()
    assert table.loc[("crpo", 50), "error"] == pytest.approx(per_seed.std() / np.sqrt(3))
    with pytest.raises(ValueError, match="objective 'verification' is named"):
        pareto.trajectory_points(lab, ("verification",))


# --- who owns the advantage


def predictions():
    pair = [reward_arithmetic.simulated_rewards(rng(), 300, 0.5, saturated) for saturated in (False, True)]
    return [shares.predicted_shares(rewards, reward_arithmetic.GROUP) for rewards in pair]


def test_predicted_shares_sum_to_one_and_accuracy_grows_with_k():
    predicted, saturated = (table.set_index("arm") for table in predictions())
    assert predicted[list(records.TERMS)].sum(axis=1).to_numpy() == pytest.approx(1)
    by_k = predicted.loc[["k0", "k1", "k3", "crpo", "k30"], "accuracy_reward"]
    assert by_k.is_monotonic_increasing and by_k["k0"] == 0
    assert predicted.loc["crpo", "in_mixed"] > 0.85  # the calculation that the claims rest on
    assert saturated.loc["crpo", "clinical_reasoning_reward"] == 0


def test_claims_have_a_verdict_each(lab):
    table = shares.claims(lab, *predictions())
    verdicts = table.set_index("claim")["verdict"]
    assert verdicts["With k = 10, accuracy owns the advantage of mixed groups"] == "holds"
    assert verdicts["k moves accuracy's share"] == "not measured"  # this laboratory has no k = 1
    assert verdicts["Once reasoning saturates, character noise takes its place"] == "contradicted"
    assert set(verdicts) <= {"holds", "contradicted", "open", "not measured"}
    one = lab._replace(training=lab.training[lab.training["seed"] == 0])
    assert "one seed" in set(shares.claims(one, *predictions())["verdict"])


def test_shares_keep_tied_groups_apart(lab):
    table = shares.shares(lab, ["crpo"], window=1)
    parts = table[table["term"] != "tied groups"].groupby("step")["share"].sum()
    assert parts.to_numpy() == pytest.approx(1)
    assert table["label"].iloc[0] == "CRPO (k = 10)"
    with pytest.raises(ValueError, match="logs no advantage"):
        shares.shares(lab, ["baseline"])


def test_seconds_are_relative_to_the_reference(lab):
    table = comparisons.seconds_per_arm(lab).set_index("arm")
    assert "baseline" not in table.index and table.loc["crpo", "against_reference"] == 1


def test_a_family_without_other_arms_has_no_difference_and_a_missing_reference_is_named(lab):
    alone = without_arms(lab, "k0", "k3", "k30")
    table = comparisons.ablation_table(alone, "k")
    assert set(table["arm"]) == {"crpo"} and table["difference"].isna().all() and (table["tests"] == 0).all()
    with pytest.raises(ValueError, match="the arm 'crpo', which family 'k' is compared with, has no answers"):
        comparisons.ablation_table(without_arms(lab, "crpo"), "k")


def without_arms(lab, *arms):
    return lab._replace(scores=lab.scores[~lab.scores["arm"].isin(arms)])


def test_an_arm_is_never_compared_with_one_that_is_missing(lab):
    table = comparisons.ablation_table(without_arms(lab, "grpo"), "cold_start").set_index("arm")
    assert table.loc["cold_start_grpo", ["difference", "p_holm"]].isna().all(axis=None)
    assert table.loc["cold_start_crpo", "difference"].notna().all()
    drawn = draws.draw(lab, ("crpo",), ("drc",))
    with pytest.raises(ValueError, match=r"no answers were drawn of \['grpo'\]"):
        drawn.contrast("drc", {"crpo": 1.0, "grpo": -1.0})
