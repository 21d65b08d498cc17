"""Figures of the laboratory draw what the tables say, and one collapsed arm stretches none of them."""

import matplotlib

matplotlib.use("Agg")

import numpy as np  # noqa: E402
import pandas as pd  # noqa: E402
import pytest  # noqa: E402
from laboratory import write_laboratory  # noqa: E402
from legible import assert_legible, fresh_figures  # noqa: E402, F401  (a fixture of every test here)

from clinical_r1 import labels  # noqa: E402
from clinical_r1.arms import METHODS  # noqa: E402
from clinical_r1.laboratory import comparisons, front_plots, pareto, records, shares  # noqa: E402
from clinical_r1.laboratory import plots as laboratory_plots  # noqa: E402


def legend_texts(legend):
    return [text.get_text() for text in legend.get_texts()]


PAIRS = [("accuracy", "faithfulness"), ("accuracy", "hallucination")]
MARKS = {"Honest policy": {"accuracy": 100.0, "faithfulness": 5.0, "drc": 3.0, "hallucination": 0.0}}


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    folder = tmp_path_factory.mktemp("laboratory")
    write_laboratory(folder)
    return records.read_laboratory(folder)


def names_on(ax):
    return [text.get_text() for text in ax.texts if text.get_text()]


def test_pareto_panels_name_the_methods_and_the_front(lab):
    rng = np.random.default_rng(0)
    points, fronts = pareto.points(lab), pareto.fronts(lab, PAIRS, rng)
    figure = laboratory_plots.pareto_panels(points, fronts, MARKS)
    assert len(figure.axes) == 2
    for ax, pair in zip(figure.axes, PAIRS, strict=True):
        rows = fronts[fronts["space"] == " and ".join(pair)]
        expected = {
            f"{row.label} ({row.frequency:.0%})" if row.on_front else row.label
            for row in rows.itertuples()
            if row.on_front or row.arm in METHODS
        }
        named = {
            text.rsplit(" (", 1)[0] if "," in text else text for text in names_on(ax)
        }  # without the values
        assert len(expected - named) < 2  # a crowded name may go
        assert all("," in text for text in names_on(ax) if text.rsplit(" (", 1)[0] in MARKS)
        assert ax.yaxis_inverted() == ("hallucination" in pair)
    assert legend_texts(figure.legends[0])[:5] == list(labels.METHOD_LABELS.values())[:5]
    assert_legible(figure)
    with pytest.raises(ValueError, match="expected pairs"):
        laboratory_plots.pareto_panels(points, fronts.assign(space="accuracy"))


def test_names_on_a_panel_hide_no_other_name(lab):
    rng = np.random.default_rng(0)
    ax = laboratory_plots.pareto_panels(pareto.points(lab), pareto.fronts(lab, PAIRS, rng)).axes[0]
    renderer = ax.figure.canvas.get_renderer()
    boxes = [matplotlib.text.Text.get_window_extent(text, renderer) for text in ax.texts]
    assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[i + 1 :])


def test_parallel_objectives_put_better_up_and_name_few_lines(lab):
    points = pareto.points(lab)
    figure = laboratory_plots.parallel_objectives(points, MARKS)
    (ax,) = figure.axes
    drawn = {line.get_label(): line for line in ax.lines if len(line.get_ydata()) == 4}
    assert drawn["Baseline"].get_ydata()[-1] == pytest.approx(
        -0.08
    )  # it hallucinates most by far: just outside the axis
    values = points.pivot(index="label", columns="objective", values="value")
    best = values["faithfulness"].idxmax()
    assert drawn[best].get_ydata()[1] == pytest.approx(1)
    texts = [text.get_text() for text in ax.texts]
    winners = {values[o].idxmin() if o == "hallucination" else values[o].idxmax() for o in records.OBJECTIVES}
    named = {name for name in values.index if name in texts}
    assert named == {"Baseline", "GRPO", "CRPO", "Cold Start + GRPO", "Cold Start + CRPO"} | winners
    assert f"Baseline: {values.loc['Baseline', 'hallucination']:.3g}" in texts
    quiet = [line for line in ax.lines if line.get_color() == labels.QUIET_COLOUR]
    assert len(quiet) == len(values) - len(named)
    assert "Honest policy (100, 5, 3, 0)" in figure.get_supxlabel()
    assert_legible(figure)


def test_values_beyond_an_axis_hide_no_other(lab):
    points = pareto.points(lab)
    for arm, value in (("k0", -400.0), ("baseline", -300.0), ("grpo", 900.0), ("crpo", 950.0)):
        points.loc[(points["arm"] == arm) & (points["objective"] == "accuracy"), "value"] = value
    figure = laboratory_plots.parallel_objectives(points, named=["k0", "k3", "baseline", "grpo", "crpo"])
    places = {text.get_text(): text.xyann[1] for text in figure.axes[0].texts if ": " in text.get_text()}
    written = [places[name] for name in ("CRPO: 950", "GRPO: 900", "Baseline: -300", "k = 0: -400")]
    assert written == [11, 0, 0, -11]
    assert_legible(figure)


def test_parallel_objectives_name_what_is_asked_for(lab):
    points = pareto.points(lab)
    two = ["k0", "k3"]
    (ax,) = laboratory_plots.parallel_objectives(points, named=two).axes
    lines = [line for line in ax.lines if line.get_label() in ("k = 0", "k = 3")]
    assert [line.get_linestyle() for line in lines] == ["-", "--"]  # one family, one colour, two lines
    with pytest.raises(ValueError, match="no arms"):
        laboratory_plots.parallel_objectives(points, named=["nobody"])


@pytest.mark.parametrize("heights", [[0.5, 0.5, 0.5], [0.0, 0.01, 0.9], [1.0, 0.2, 0.21, 0.2], [0.3]])
def test_names_at_the_end_of_lines_keep_their_order_and_a_distance(heights):
    places = front_plots._spread(np.array(heights), 0.06)
    assert np.all(np.diff(np.sort(places)) > 0.0599)
    assert all(a <= b for i, a in enumerate(places) for j, b in enumerate(places) if heights[i] < heights[j])
    assert places.mean() == pytest.approx(np.mean(heights))


@pytest.mark.parametrize(
    ("values", "seen"),
    [
        (
            [48.8, 21.5, 77.1, 80, 81, 82, 82.5, 83, 83, 83.4, 84, 84.6, 85.9],
            (77.1, 85.9),
        ),  # one arm collapsed
        ([0.05, 0.06, 0.1, 0.4, 0.5, 0.5, 0.53, 0.6, 0.6, 1.14, 1.43, 1.57], (0.05, 1.57)),  # the best stay
        ([1.0, 2.0, 3.0], (1.0, 3.0)),
        ([2.0, 2.0, 2.0, 2.0, 9.0], (2.0, 9.0)),
    ],
)
def test_an_axis_leaves_out_what_would_squeeze_all_others(values, seen):
    assert front_plots.bulk(pd.Series(values)) == seen


def test_a_collapsed_arm_stands_at_the_border_with_its_values(lab):
    points, fronts = pareto.points(lab), pareto.fronts(lab, PAIRS, np.random.default_rng(0))
    far = (points["arm"] == "k0") & (points["objective"] == "accuracy")
    points.loc[far, ["value", "ci_low", "ci_high"]] = [-400.0, -410.0, -300.0]
    figure = laboratory_plots.pareto_panels(points, fronts)
    for ax in figure.axes:
        assert ax.get_xlim()[0] > 0
        (text,) = (text for text in names_on(ax) if text.startswith("k = 0"))
        assert "(-400, " in text
        (spot,) = (
            line
            for line in ax.lines
            if line.get_label() == "Weight k" and line.get_transform() == ax.transAxes
        )
        assert spot.get_xdata()[0] == pytest.approx(front_plots.BORDER)
        heads = [text for text in ax.texts if not text.get_text()]  # the arrows
        assert any(text.xyann[0] < 0 for text in heads)
    assert_legible(figure)


def test_what_lies_beyond_one_border_keeps_its_order(lab):
    points, fronts = pareto.points(lab), pareto.fronts(lab, PAIRS[:1], np.random.default_rng(0))
    marks = {
        "Low": {"accuracy": 500.0, "faithfulness": 1.0},
        "High": {"accuracy": 500.0, "faithfulness": 1.001},
    }
    (ax,) = laboratory_plots.pareto_panels(points, fronts, marks).axes
    low, high = (line.get_ydata()[0] for line in ax.lines if line.get_label() in marks)
    assert high - low == pytest.approx(0.1) and low >= front_plots.BORDER


def test_hypervolume_bars_are_the_table_s_volumes(lab):
    table = pareto.hypervolume_table(lab, rng=np.random.default_rng(0), reps=20)
    arms, fronts = laboratory_plots.hypervolume_bars(table).axes
    for ax, kind in ((arms, "arm"), (fronts, "front")):
        widths = sorted(patch.get_width() for patch in ax.patches)
        assert widths == pytest.approx(sorted(table.loc[table["kind"] == kind, "volume"]))
    assert_legible(arms.figure)


@pytest.fixture(scope="module")
def ablations(lab):
    names = [name for name in records.families(lab) if name != "main"]
    return pd.concat([comparisons.ablation_table(lab, name) for name in names], ignore_index=True)


def test_ablation_forest_fills_what_survives_holm(ablations):
    figure = laboratory_plots.ablation_forest(ablations)
    tested = ablations.dropna(subset="difference")
    assert [ax.get_title(loc="left") for ax in figure.axes][0] == "Δ Accuracy (points)"
    for ax, metric in zip(figure.axes, records.OBJECTIVES, strict=True):
        rows = tested[tested["metric"] == metric]
        marks = [bars.lines[0] for bars in ax.containers]
        assert [mark.get_xdata()[0] for mark in marks] == pytest.approx(rows["difference"].tolist())
        filled = [mark.get_markerfacecolor() != "white" for mark in marks]
        assert filled == (rows["p_holm"] < 0.05).tolist()
    assert rows["interval"].iloc[0] in figure.get_suptitle()
    assert_legible(figure)


def test_ablation_forest_says_what_is_exploratory_and_what_was_not_tested(ablations):
    table = ablations.assign(
        status=np.where(ablations["metric"] == "drc", "exploratory", "primary"), p_holm=np.nan
    )
    figure = laboratory_plots.ablation_forest(table)
    titles = [ax.get_title(loc="left") for ax in figure.axes]
    assert [("exploratory" in title) for title in titles] == [m == "drc" for m in records.OBJECTIVES]
    assert "nothing was tested: one seed" in figure.get_suptitle().replace("\n", " ")
    faces = {bars.lines[0].get_markerfacecolor() for ax in figure.axes for bars in ax.containers}
    assert faces == {"white"}


def test_intervals_of_collapsed_arms_do_not_squeeze_the_forest(ablations):
    table = ablations[ablations["metric"] == "accuracy"].copy()
    names = ["difference", "difference_low", "difference_high"]
    table.loc[table["arm"] == "k0", names] = [-600.0, -1000.0, -90.0]
    table.loc[table["arm"] == "k3", names] = [900.0, 500.0, 4000.0]
    (ax,) = laboratory_plots.ablation_forest(table).axes
    others = table[~table["arm"].isin(["k0", "k3"])]
    assert ax.get_xlim()[1] == pytest.approx(1.12 * others[names[1:]].abs().max(axis=None))
    written = [text.get_text() for text in ax.texts]
    assert "−600 [−1e+03, −90]" in written and "900 [500, 4e+03]" in written
    assert_legible(ax.figure)


def test_k_curve_stands_on_the_table_s_ks(lab):
    table = comparisons.k_table(lab)
    figure = laboratory_plots.k_curve(table)
    assert len(figure.axes) == 6
    assert [label.get_text() for label in figure.axes[0].get_xticklabels()] == ["0", "3", "10", "30"]
    assert_legible(figure)


def test_advantage_shares_fill_the_panel(lab):
    figure = laboratory_plots.advantage_shares(shares.shares(lab, ["k0", "k3", "crpo", "k30"]))
    assert [ax.get_title(loc="left") for ax in figure.axes] == ["k = 0", "k = 3", "CRPO (k = 10)", "k = 30"]
    top = figure.axes[0].collections[-1].get_paths()[0].vertices[:, 1].max()
    assert top == pytest.approx(1)
    assert_legible(figure)


def test_trajectories_draw_an_arrow_between_checkpoints(lab):
    figure = laboratory_plots.trajectories(pareto.trajectory_points(lab), PAIRS, MARKS)
    for ax in figure.axes:
        arrows = [text for text in ax.texts if not text.get_text() and text.get_annotation_clip() is None]
        assert len(arrows) == 4 * 3  # four trained methods, four checkpoints
    assert {text.rsplit(" (", 1)[0] for text in names_on(figure.axes[0])} == set(MARKS)
    assert "steps" in figure.get_suptitle()
    assert_legible(figure)
