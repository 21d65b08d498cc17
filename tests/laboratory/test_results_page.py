"""What docs/results.md says about the laboratory, read from the shipped summary: every number, and every "none is found"."""

import re

import numpy as np
import pytest

from clinical_r1.audit import reward_arithmetic
from clinical_r1.files import PACKAGE, ROOT
from clinical_r1.laboratory import comparisons, pareto, records, shares


@pytest.fixture(scope="module")
def shipped():
    return records.read_laboratory(PACKAGE / "data" / "laboratory")


@pytest.fixture(scope="module")
def results():
    text = (ROOT / "docs" / "results.md").read_text(encoding="utf-8")
    return " ".join(text.replace("**", "").replace("−", "-").split())


def test_results_show_the_shipped_table_of_k(shipped, results):
    table = comparisons.k_table(shipped)  # as notebook 05
    for k, rows in table.groupby("k"):
        cells = [
            "{value:.{p}f} [{ci_low:.{p}f}, {ci_high:.{p}f}]".format(
                **row, p=1 if row["metric"] in ("accuracy", "tokens") else 2
            )
            for row in rows.to_dict("records")
        ]
        assert f"| {k:g} | {' | '.join(cells)} |" in results
    tokens = table[table["metric"] == "tokens"].set_index("k")["value"]
    assert f"{tokens[1]:.0f} tokens a response at k = 1, {tokens[10]:.0f} at k = 10" in results
    parsed = shipped.scores[shipped.scores["arm"] == "k0"].groupby("seed")["parsed"].mean() * 100
    assert "{:.0f}, {:.0f} and {:.0f} % of the answers parse".format(*parsed) in results


def test_results_show_logged_shares_beside_their_predictions(shipped, results):
    """The size of a calculated share is judged, not its sign alone."""
    simulated = (
        reward_arithmetic.simulated_rewards(np.random.default_rng(0), 20_000, 0.5, full)
        for full in (False, True)
    )
    predicted, saturated = (
        shares.predicted_shares(rewards, reward_arithmetic.GROUP) for rewards in simulated
    )
    at, gaps, training = predicted.set_index("arm"), [], shipped.training.groupby("arm")
    names = {"k1": "k = 1", "k3": "k = 3", "crpo": "CRPO (k = 10)", "k30": "k = 30", "gdpo": "GDPO"}
    for arm, name in names.items():
        logged = training.get_group(arm).groupby("seed")["advantage/accuracy_reward/share"].mean().mean()
        shown = re.search(rf"\| {re.escape(name)} \| ([\d.]+) \| ([\d.]+) \|", results)
        assert float(shown[1]) == pytest.approx(at.loc[arm, "accuracy_reward"], abs=0.015)  # simulated
        assert shown[2] == f"{logged:.2f}"
        gaps.append(round(float(shown[2]) - float(shown[1]), 2))
    assert f"by {min(gaps):.2f} to {max(gaps):.2f}" in results
    logged = [
        training.get_group(arm)["advantage/accuracy_reward/share"].mean()
        for arm in ("k1", "k3", "crpo", "k30")
    ]
    assert logged == sorted(logged)  # "The order by k comes out as calculated"
    table = shares.claims(shipped, predicted, saturated)
    assert (table["verdict"] == "holds").sum() == 9 and len(table) == 10  # "the sign holds in nine"
    mixed = table.iloc[:2]
    numbers = re.search(
        r"([\d.]+) % predicted and ([\d.]+) % found at k = 10, ([\d.]+) % and ([\d.]+) % at k = 3", results
    )
    for (forecast, found), row in zip(((1, 2), (3, 4)), mixed.itertuples(), strict=True):
        assert float(numbers[forecast]) == pytest.approx(100 * row.predicted, abs=0.8)  # simulated
        assert numbers[found] == f"{100 * row.measured:.1f}"
    noise = table[table["claim"].str.contains("character noise")].iloc[0]
    gained = re.search(
        r"gain (\d+) points of the advantage late in training. It gained (\S+) points \[(\S+), (\S+)\]",
        results,
    )
    assert float(gained[1]) == pytest.approx(100 * noise["predicted"], abs=3)
    assert [gained[i] for i in (2, 3, 4)] == [
        f"{100 * noise[name]:.1f}" for name in ("measured", "ci_low", "ci_high")
    ]
    extra = table[table["quantity"].str.startswith("share of consistency, minus")]
    told = re.search(r"give consistency (\d+) points more than the normalised sum; they gave (\d+)", results)
    assert np.allclose(100 * extra["predicted"], float(told[1]), atol=2)
    assert {f"{100 * value:.0f}" for value in extra["measured"]} == {told[2]}


def test_results_of_the_other_choices(shipped, results):
    def table(family):
        return comparisons.ablation_table(shipped, family).set_index(["arm", "metric"])

    aggregators = table("aggregator")
    assert set(aggregators["tests"]) == {0, 32}  # the reference's own rows are not tested
    open_ = [aggregators.loc[(arm, "hallucination"), "p_holm"] for arm in ("gdpo", "mo_grpo")]
    assert "(p = {:.3f} and {:.3f})".format(*open_) in results and min(open_) > 0.05
    constrained = aggregators.loc[("constrained", "hallucination")]
    assert constrained["p_holm"] < 0.05 and f"fewer too ({constrained['value']:.2f})" in results
    values = [aggregators.loc[(arm, "hallucination"), "value"] for arm in ("gdpo", "mo_grpo", "crpo")]
    assert "({:.2f} and {:.2f} against {:.2f} a response)".format(*values) in results
    accuracy = aggregators.xs("accuracy", level="metric")
    assert len(accuracy) == 9 and not (accuracy["p_holm"] < 0.05).any()
    for family, arm in (("citation", "no_citation"), ("kl", "no_kl"), ("terms", "no_consistency")):
        assert (table(family).loc[arm, "p_holm"] > 0.05).all()
    grounded = table("grounded")
    for metric in ("faithfulness", "hallucination"):
        values = [grounded.loc[(arm, metric), "value"] for arm in ("crpo", "grounded")]
        assert "from {:.2f} to {:.2f}".format(*values) in results
        by_seed = shipped.scores.groupby(["arm", "seed"])[metric].mean()
        assert (by_seed["grounded"] > by_seed["crpo"]).all()
    assert f"(p = {grounded.loc[('grounded', 'hallucination'), 'p_holm']:.3f} after correction)" in results
    assert grounded.loc[("grounded", "faithfulness"), "p_holm"] > 0.05  # "which leaves the difference open"
    seconds = shipped.arms["seconds"]
    assert (
        f"({seconds.min():.0f} to {np.floor(seconds.max() + 0.5):.0f})" in results
        and 100 < seconds.median() < 115
    )


def test_results_tell_the_price_of_crpo_s_reward(shipped, results):
    effect = comparisons.prompt_and_reward(shipped).set_index(["metric", "effect"])  # nothing is drawn
    price = effect.loc[("accuracy", "CRPO reward")]
    ends = f"[{-price['difference_high']:.1f}, {-price['difference_low']:.1f}]"
    told = f"costs {-price['difference']:.1f} points of accuracy {ends}; after correction p is {price['p_holm']:.3f}."
    assert told in results
    assert set(effect["tests"]) == {12}
    assert (effect.drop(index="accuracy", level="metric")["p_holm"] > 0.05).all()


def test_results_show_the_hypervolumes(shipped, results):
    honest = pareto.honest_point(500)
    table = pareto.hypervolume_table(
        shipped, reference=pareto.SILENCE, rng=np.random.default_rng(20251205), bound=honest, reps=100
    )
    volume = table[table["kind"] == "arm"].set_index("name")["volume"]
    assert (
        f"is {volume['cold_start_grpo']:.0f} for Cold Start + GRPO and {volume['cold_start_crpo']:.0f} for Cold Start + CRPO, "
        f"against {volume['crpo']:.0f} for CRPO"
    ) in results
    assert (
        f"{honest['accuracy'] * honest['faithfulness'] * honest['drc']:.0f} for the scripted honest policy"
        in results
    )
    assert f"Grounded rewards reach {volume['grounded']:.0f}, with an interval of 0 to 600" in results
    grounded = table[(table["kind"] == "arm") & (table["name"] == "grounded")].iloc[0]
    assert grounded["ci_low"] == 0 and round(grounded["ci_high"], -2) == 600
