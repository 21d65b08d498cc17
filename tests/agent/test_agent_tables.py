"""Tables of agents against the same numbers made by hand: means, paired differences, fronts."""

import agent_summary
import numpy as np
import pandas as pd
import pytest

from clinical_r1.agent import measures, policies, records, tables
from clinical_r1.agent.consultation import Rules, draw_patients
from clinical_r1.agent.records import AgentSummary
from clinical_r1.intervals import holm, minimum_detectable_effect, paired_difference
from clinical_r1.metrics import PRIMARY

PATIENTS, RNG = draw_patients("validation", 12, 0), np.random.default_rng(0)


@pytest.fixture(scope="module")
def summary():
    return AgentSummary(**agent_summary.summary_frames())


def flat(summary, arm, measure, budget="sampled"):
    frame = summary.of("consultations", "main")
    own = frame[(frame["arm"] == arm) & (frame["budget"] == budget)].sort_values(["seed", "patient"])
    return own[measure].to_numpy(float), own["patient"].to_numpy(), own["seed"].to_numpy()


def test_a_difference_is_that_of_paired_difference(summary):
    table = tables.comparison_table(summary, "main")
    row = table[(table["arm"] == "gigpo") & (table["measure"] == "right")].iloc[0]
    a, patients, seeds = flat(summary, "gigpo", "right")
    b, *_ = flat(summary, "grpo", "right")
    known = paired_difference(100 * a, 100 * b, clusters=patients, seeds=seeds, scale=100.0)
    assert row["difference"] == pytest.approx(known.difference)
    assert (row["difference_low"], row["difference_high"]) == pytest.approx(known.interval)
    assert row["p"] == pytest.approx(known.p)
    assert (row["n"], row["seeds"]) == (60, 3)
    primary = table[table["status"] == PRIMARY]
    assert set(primary["measure"]) == set(tables.TESTED) and (primary["tests"] == 4).all()
    assert primary["p_holm"].tolist() == pytest.approx(holm(primary["p"]).tolist())
    assert row["mde_holm"] == pytest.approx(minimum_detectable_effect(known.standard_error, known.df, 4))


def test_every_other_arm_is_compared_and_both_budgets_stand_apart(summary):
    both = tables.both_budgets(tables.comparison_table, summary, "main", measures=("right",))
    assert list(both["arm"].unique()) == ["gigpo", "gigpo_no_std", "tree_grpo", "tree_anchor"]
    assert both.groupby("budget").size().to_dict() == {"sampled": 4, "trained": 4}
    a, *_ = flat(summary, "gigpo", "right", "trained")
    b, *_ = flat(summary, "grpo", "right", "trained")
    row = both[(both["arm"] == "gigpo") & (both["budget"] == "trained")].iloc[0]
    assert row["difference"] == pytest.approx(100 * (a.mean() - b.mean()))


def test_one_seed_has_an_interval_and_no_p():
    one = AgentSummary(consultations=agent_summary.consultations(seeds=(0,)))
    table = tables.comparison_table(one, "main")
    assert table["p"].isna().all() and table["p_holm"].isna().all() and (table["tests"] == 0).all()
    assert table["difference_low"].notna().all() and set(table["interval"]) == {tables.PATIENTS_ONLY}


def test_only_seeds_of_both_arms_are_paired():
    frame = agent_summary.consultations()
    frame = frame[(frame["arm"] != "gigpo") | (frame["seed"] < 2)]
    table = tables.comparison_table(AgentSummary(consultations=frame), "main", measures=("right",))
    assert table.set_index("arm")["seeds"].to_dict() == {
        "gigpo": 2,
        "gigpo_no_std": 3,
        "tree_grpo": 3,
        "tree_anchor": 3,
    }


def test_without_grpo_or_another_arm_there_is_nothing_to_compare():
    for levels in ({"gigpo": 0.6}, {"grpo": 0.6}):
        alone = AgentSummary(consultations=agent_summary.consultations(levels))
        assert tables.comparison_table(alone, "main") is None
        assert set(tables.arms_table(alone, "main")["arm"]) == {"start", *levels}
    assert tables.arms_table(AgentSummary(), "main") is None
    assert tables.both_budgets(tables.arms_table, AgentSummary(), "main") is None


def test_other_patients_are_an_error():
    frame = agent_summary.consultations()
    frame = frame[~((frame["arm"] == "tree_grpo") & (frame["patient"] == "test-0003"))]
    with pytest.raises(ValueError, match="met other patients"):
        tables.comparison_table(AgentSummary(consultations=frame), "main")


def test_a_gain_is_the_arm_less_the_start_on_each_patient(summary):
    table = tables.arms_table(summary, "main").set_index(["arm", "measure"])
    row = table.loc[("gigpo", "right")]
    frame = summary.of("consultations", "main")
    start = frame.loc[frame["arm"] == "start", "right"].mean()
    assert row["gain"] == pytest.approx(row["value"] - 100 * start)
    assert table.loc[("start", "right"), "gain"] is not None and np.isnan(
        table.loc[("start", "right"), "gain"]
    )
    assert row["gain_low"] < row["gain"] < row["gain_high"] and row["seeds"] == 3


def test_what_is_not_defined_for_a_patient_enters_no_mean(summary):
    row = tables.arms_table(summary, "main").set_index(["arm", "measure"]).loc[("grpo", "covered")]
    frame = summary.of("consultations", "main")
    own = frame[(frame["arm"] == "grpo") & (frame["budget"] == "sampled")]["covered"]
    assert row["value"] == pytest.approx(100 * own.mean()) and row["n"] == own.notna().sum() / 3 < 60


def test_reference_lines_stand_in_the_order_of_what_they_know(summary):
    lines = tables.reference_lines(summary, "main")
    assert lines.drop_duplicates("policy")["label"].tolist() == [
        "Guess",
        "Random inquiry",
        "Greedy",
        "Expert",
    ]
    right = lines[lines["measure"] == "right"].set_index("policy")
    assert right.loc["expert", ["value", "ci_low", "ci_high"]].tolist() == pytest.approx([91, 89, 93])
    assert tables.reference_lines(AgentSummary(), "main") is None


def test_reference_lines_read_the_measures_of_consultations():
    """`measures.summary` names what it measures otherwise, and shares of turns are no numbers of turns."""
    history = [
        (p, Rules(), [t.text for t in policies.play(p, Rules(), policies.guess, RNG).turns]) for p in PATIENTS
    ]
    rows = [
        {"setting": "main", "policy": "guess", **row} for row in measures.summary(measures.measures(history))
    ]
    records.check(pd.DataFrame(rows), "references", "references.csv")
    lines = tables.reference_lines(AgentSummary(references=pd.DataFrame(rows)), "main").set_index("measure")[
        "value"
    ]
    assert {"right", "reward", "gain", "covered", "inquiries", "turns"} <= set(lines.index)
    assert not {"invalid", "repeats"} & set(lines.index)
    assert lines["inquiries"] == pytest.approx(2.0) and lines["turns"] == pytest.approx(3.0)
    assert lines["right"] == pytest.approx(
        100 * np.mean([row["value"] for row in rows if row["measure"] == "right"])
    )


# ---- fronts


@pytest.mark.parametrize(
    ("points", "on", "area"),
    [
        ([(1, 3), (2, 2), (3, 1)], [True, True, True], 6.0),
        ([(1, 1), (2, 2)], [False, True], 4.0),
        ([(2, 2), (2, 2)], [True, True], 4.0),
        ([(2, 1), (2, 3)], [False, True], 6.0),
        ([(0, 5), (4, 0)], [True, True], 0.0),
    ],
)
def test_fronts_and_areas_solved_by_hand(points, on, area):
    points = np.array(points, dtype=float)
    assert tables.undominated(points).tolist() == on
    assert tables.area(points, np.zeros(2)) == pytest.approx(area)
    assert tables.area(points[None, ::-1], np.zeros(2)).tolist() == pytest.approx([area])


def test_area_is_the_share_of_a_grid_that_some_point_covers():
    rng = np.random.default_rng(5)
    points = rng.random((6, 2))
    grid = (np.stack(np.meshgrid(*[np.arange(400)] * 2), axis=-1).reshape(-1, 2) + 0.5) / 400
    covered = (grid[:, None] <= points).all(axis=-1).any(axis=1).mean()
    assert tables.area(points, np.zeros(2)) == pytest.approx(covered, abs=0.01)


def test_the_front_holds_arms_and_names_policies(summary):
    table = tables.front_table(summary, "main", np.random.default_rng(0), reps=200).set_index("name")
    arms = table[table["kind"] == "arm"]
    assert set(arms.index) == {"start", *agent_summary.LEVELS}
    assert arms["right"].idxmax() in arms.index[arms["on_front"].astype(bool)]
    assert arms["frequency"].between(0, 1).all()
    assert table.loc["front", "volume"] >= arms["volume"].max()
    most = summary.of("consultations", "main")["tests"].max()
    grpo = arms.loc["grpo"]
    assert grpo["volume"] == pytest.approx(grpo["right"] * (most - grpo["spent"]) / most)
    assert (table["volume_low"] <= table["volume"])[arms.index].all()
    again = tables.front_table(summary, "main", np.random.default_rng(0), reps=200).set_index("name")
    pd.testing.assert_frame_equal(table, again)


# ---- training and credit


def test_ends_of_training_are_means_of_its_tenths(summary):
    ends = tables.training_ends(summary).set_index(["setting", "arm", "measure"])
    own = summary.of("training", "closure")
    own = own[own["arm"] == "grpo"]
    first, last = (own[own["step"].isin(steps)]["turns"].mean() for steps in (range(1, 5), range(37, 41)))
    row = ends.loc[("closure", "grpo", "turns")]
    assert (row["first"], row["last"], row["seeds"]) == pytest.approx((first, last, 3))
    assert np.isnan(row["last_low"])  # seeds that agree exactly have no spread
    assert ends.loc[("main", "grpo", "right"), "last_low"] < ends.loc[("main", "grpo", "right"), "last"]
    assert tables.training_ends(AgentSummary()) is None


def test_credit_rows_are_of_one_menu_measure_and_std(summary):
    rows = tables.credit_table(summary, "open", "error", 0)
    assert rows["stage"].tolist() == sorted(rows["stage"], key=["start", "half", "trained"].index)
    assert set(rows["menu"]) == {"open"} and set(rows["std"]) == {0} and set(rows["measure"]) == {"error"}
    assert tables.credit_table(summary, "12") is None and tables.credit_table(AgentSummary()) is None
