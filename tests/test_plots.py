"""Figures draw what the tables say and save the same bytes twice: pytest tests/test_plots.py"""

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt  # noqa: E402
import numpy as np  # noqa: E402
import pandas as pd  # noqa: E402
import pytest  # noqa: E402
from colours import SIGHTS, as_seen, ciede2000
from laboratory import write_laboratory  # noqa: E402

from clinical_r1 import labels, paper, plots  # noqa: E402
from clinical_r1.arms import ARMS, LABORATORY, METHODS  # noqa: E402
from clinical_r1.audit import accuracies, claims, reward_arithmetic  # noqa: E402
from clinical_r1.audit import plots as audit_plots  # noqa: E402
from clinical_r1.labels import CLINIC_BENCHMARKS, PAPER_BENCHMARKS
from clinical_r1.laboratory import comparisons, pareto, records, shares  # noqa: E402
from clinical_r1.laboratory import plots as laboratory_plots  # noqa: E402

FIGURES = (plots.fig1_radar, plots.fig3_cold_start_accuracy, plots.fig4_accuracy)


@pytest.fixture(autouse=True)
def fresh_figures():
    with matplotlib.rc_context():
        plots.set_style()
        yield
    plt.close("all")


def results(benchmarks=CLINIC_BENCHMARKS):
    """The paper's numbers five points better, in table 1's columns, with a chance row at 25."""
    table = paper.table1().rename(columns={"value": "paper_value"})
    back = dict(zip(PAPER_BENCHMARKS, benchmarks, strict=True))
    table["verdict"] = [
        "outside" if back[name] == name else "not comparable: clinic stand-in" for name in table["benchmark"]
    ]
    table["benchmark"] = table["benchmark"].map(back)
    table["value"] = table["paper_value"] + np.where(table["metric"] == "accuracy", 5.0, 0.0)
    table["ci_low"], table["ci_high"] = 0.9 * table["value"], 1.2 * table["value"]
    chance = pd.DataFrame({"benchmark": benchmarks, "method": "chance", "metric": "accuracy", "value": 25.0})
    return pd.concat([table, chance.assign(verdict="no printed value")], ignore_index=True)


def logs(seeds=(0, 1), steps=12):
    rng = np.random.default_rng(0)
    rows = [
        {
            "method": method,
            "seed": seed,
            "step": step,
            "completions/mean_length": 20 + step + rng.normal(),
            "rewards/accuracy_reward/mean": rng.uniform(),
            "rewards/clinical_reasoning_reward/mean": rng.uniform() if "crpo" in method else np.nan,
        }
        for method in METHODS[1:]
        for seed in seeds
        for step in range(1, steps + 1)
    ]
    return pd.DataFrame(
        rows + [{"method": "grpo", "seed": 0, "step": steps}]
    )  # the trainer's last row: no measures


def legend_texts(legend):
    return [text.get_text() for text in legend.get_texts()]


def no_text_overlaps(figure):
    figure.canvas.draw()
    unseen = set()  # matplotlib keeps labels of ticks outside the view, but does not draw them
    for axis in (axis for ax in figure.axes for axis in (ax.xaxis, ax.yaxis)):
        low, high = sorted(axis.get_view_interval())
        unseen |= {tick.label1 for tick in axis.get_major_ticks() if not low <= tick.get_loc() <= high}
    texts = [
        text for text in figure.findobj(matplotlib.text.Text) if text.get_visible() and text not in unseen
    ]
    boxes = [text.get_window_extent() for text in texts if text.get_text().strip()]
    assert len(boxes) > 5
    return not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[i + 1 :])


@pytest.mark.parametrize("benchmarks", [CLINIC_BENCHMARKS, PAPER_BENCHMARKS])
@pytest.mark.parametrize("figure", FIGURES)
def test_result_figures_draw_cleanly(figure, benchmarks):
    assert no_text_overlaps(figure(results(benchmarks)).figure)


def test_bars_are_the_table_s_numbers():
    ax = plots.fig4_accuracy(results())
    heights = {
        bars.get_label(): [bar.get_height() for bar in bars]
        for bars in ax.containers
        if hasattr(bars, "patches")
    }
    assert heights["GRPO"] == pytest.approx([50.35 + 5, 49.87 + 5, 12.64 + 5])
    assert list(heights) == ["Baseline", "GRPO", "CRPO"]
    ends = [path.vertices[:, 1] for path in ax.collections[0].get_paths()]  # the baseline's intervals
    assert ends[0] == pytest.approx([0.9 * 46.95, 1.2 * 46.95])


def test_cold_start_bars_stand_beside_their_counterparts():
    texts = legend_texts(plots.fig3_cold_start_accuracy(results()).get_legend())
    assert texts == ["GRPO", "Cold Start + GRPO", "CRPO", "Cold Start + CRPO", "Chance"]


def test_printed_numbers_appear_only_on_the_paper_s_own_benchmarks():
    assert "Printed in the paper" not in legend_texts(plots.fig4_accuracy(results()).get_legend())
    assert "Printed in the paper" in legend_texts(plots.fig4_accuracy(results(PAPER_BENCHMARKS)).get_legend())


def test_a_method_missing_from_one_benchmark_leaves_a_gap():
    table = results()
    table = table[(table["method"] != "crpo") | (table["benchmark"] == "clinic")]
    ax = plots.fig4_accuracy(table)
    bars = next(bars for bars in ax.containers if bars.get_label() == "CRPO")
    assert np.isfinite([bar.get_height() for bar in bars]).tolist() == [True, False, False]


def test_accuracy_figures_refuse_a_table_without_their_methods():
    table = results()
    with pytest.raises(ValueError, match=r"\['baseline', 'chance'\]"):
        plots.fig3_cold_start_accuracy(table[table["method"].isin(["baseline", "chance"])])


def test_radar_turns_hallucination_round_and_says_so():
    ax = plots.fig1_radar(results(PAPER_BENCHMARKS))
    lines = {line.get_label(): line.get_ydata() for line in ax.lines}
    place = plots.RADAR_METRICS.index("hallucination")
    assert lines["Baseline"][place] > lines["GRPO"][place]  # 0.59 against 1.06: the fewer, the farther out
    accuracy = plots.RADAR_METRICS.index("accuracy")
    assert lines["Baseline"][accuracy] < lines["GRPO"][accuracy]
    assert any("inverted" in text.get_text() for text in ax.texts)
    assert all(0 <= radius <= 1 for radii in lines.values() for radius in radii)


def test_radar_survives_methods_that_agree():
    table = results().assign(value=0.0)
    assert all(np.isfinite(line.get_ydata()).all() for line in plots.fig1_radar(table).lines)


@pytest.mark.parametrize(("largest", "rim"), [(3.06, 3.5), (0.01, 0.5), (12.0, 12.0)])
def test_radar_draws_a_hundredth_of_a_count_as_small_as_it_is(largest, rim):
    table = results()
    table = table[table["method"].isin(METHODS)].assign(value=0.01)
    table.loc[table["metric"] == "faithfulness", "value"] = largest
    table.loc[table["metric"] == "accuracy", "value"] = 60.0
    ax = plots.fig1_radar(table)
    radii = dict(zip(plots.RADAR_METRICS, ax.lines[0].get_ydata(), strict=False))
    assert radii["verification"] == pytest.approx(0.01 / rim) and radii["accuracy"] == pytest.approx(0.6)
    assert radii["faithfulness"] == pytest.approx(largest / rim)
    assert radii["hallucination"] == pytest.approx(1 - 0.01 / rim)
    texts = " ".join(text.get_text() for text in ax.texts)
    assert f"0 → {rim:g}" in texts and f"{rim:g} → 0" in texts and "0 → 100" in texts


def test_length_figure_keeps_the_paper_in_its_own_panel():
    figure = plots.fig5_response_length(logs(), paper.fig5_curve())
    ours, theirs = figure.axes
    assert "paper" in theirs.get_title(loc="left") and ours.get_title(loc="left") == "This run"
    assert len(ours.lines) == 4 and len(ours.collections) == 4  # a line and a seed band per arm
    assert len(theirs.lines) == 1
    assert no_text_overlaps(figure)
    assert len(plots.fig5_response_length(logs(seeds=(0,))).axes[0].collections) == 0  # one seed has no band


def test_given_axes_are_used():
    _, ax = plt.subplots()
    assert (
        plots.fig5_response_length(logs(), paper.fig5_curve(), ax=ax) is ax.figure
        and len(ax.figure.axes) == 1
    )
    assert plots.fig4_accuracy(results(), ax=ax) is ax


def test_training_curves_average_seeds_after_smoothing():
    columns = ["rewards/accuracy_reward/mean", "rewards/clinical_reasoning_reward/mean"]
    figure = plots.training_curves(logs(), columns, window=3)
    first, second = figure.axes
    titles = [ax.get_title(loc="left") for ax in figure.axes]
    assert titles == ["Accuracy reward", "Clinical-reasoning reward"]
    assert [line.get_label() for line in second.lines] == ["CRPO", "Cold Start + CRPO"]
    grpo = logs().query("method == 'grpo'").dropna(subset=columns[0])
    last = grpo[grpo["step"] > 9][columns[0]].mean()
    assert first.lines[0].get_ydata()[-1] == pytest.approx(last)
    assert no_text_overlaps(figure)
    with pytest.raises(ValueError, match="lack"):
        plots.training_curves(logs(), ["rewards/no_such_reward/mean"])


def test_reward_bars_write_unscorable_for_missing():
    rewards = pd.DataFrame(
        {
            "completion": ["well argued", "well argued", "empty", "empty"],
            "reward": ["accuracy_reward", "consistency_reward"] * 2,
            "value": [1.0, 0.5, None, -1.0],
        }
    )
    ax = plots.reward_bars(rewards)
    assert [text.get_text() for text in ax.texts] == ["1", "unscorable", "0.5", "-1"]
    assert [label.get_text() for label in ax.get_yticklabels()] == ["well argued", "empty"]
    assert no_text_overlaps(ax.figure)


def test_saved_files_are_the_same_bytes_twice(tmp_path):
    table = results()
    for folder in ("a", "b"):
        figure = plots.fig4_accuracy(table).figure
        written = plots.save_figure(figure, "fig4_accuracy", tmp_path / folder, table)
        assert [path.name for path in written] == [
            f"fig4_accuracy.{suffix}" for suffix in ("png", "pdf", "csv")
        ]
    for path in (tmp_path / "a").iterdir():
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes()
    assert len(list((tmp_path / "a").iterdir())) == 3  # nothing unfinished is left
    assert len(pd.read_csv(tmp_path / "a" / "fig4_accuracy.csv")) == len(table)


def test_a_failed_save_leaves_the_earlier_file(tmp_path):
    figure, _ = plt.subplots()
    plots.save_figure(figure, "fig", tmp_path)
    before = (tmp_path / "fig.png").read_bytes()
    figure.savefig = lambda *args, **kwargs: (_ for _ in ()).throw(OSError("disk full"))
    with pytest.raises(OSError, match="disk full"):
        plots.save_figure(figure, "fig", tmp_path)
    assert (tmp_path / "fig.png").read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["fig.pdf", "fig.png"]


def test_one_look_per_method_and_one_name_per_metric():
    assert tuple(plots.METHOD_COLOURS) == tuple(plots.METHOD_MARKERS) == METHODS
    assert len(set(plots.METHOD_COLOURS.values())) == len(METHODS)
    assert plots.RADAR_METRICS == paper.METRICS
    assert {metric: labels.OBJECTIVE_LABELS[metric] for metric in paper.METRICS} == labels.METRIC_LABELS


# --- the paper's printed numbers


def test_audit_denominators_marks_what_fits():
    fits = accuracies.denominator_fits(10)
    figure = audit_plots.audit_denominators(fits)
    assert [ax.get_title(loc="left") for ax in figure.axes] == [
        "MedQA",
        "MedMCQA",
        "MedXpertQA, if n = 2,450",
    ]
    for ax, benchmark in zip(figure.axes, PAPER_BENCHMARKS, strict=True):
        rows = fits[(fits["benchmark"] == benchmark) & fits["fits"]]
        drawn = [line.get_xdata().tolist() for line in ax.lines]
        assert drawn == [rows.loc[rows["method"] == method, "dropped"].tolist() for method in METHODS]


def test_audit_accuracies_draws_two_guessers():
    axes = audit_plots.audit_accuracies(accuracies.intervals(), accuracies.guessing())
    labels = legend_texts(axes.get_legend())
    assert {"Chance", "Majority letter", "CRPO"} <= set(labels) and len(labels) == 2 + len(METHODS)
    assert axes.get_ylim()[0] == 0 and axes.get_ylim()[1] > 59


def test_audit_figure1_has_a_panel_a_reading():
    figure = audit_plots.audit_figure1(claims.figure1_readings())
    drawn, captioned = ([line.get_xdata()[0] for line in ax.lines] for ax in figure.axes)
    assert [100 - value for value in drawn] == pytest.approx(captioned)


def test_audit_rewards_says_where_a_term_is_constant():
    owners = reward_arithmetic.advantage_owners(np.random.default_rng(0), 100)
    sweep = reward_arithmetic.weight_sweep(np.random.default_rng(0), 100)
    figure = audit_plots.audit_rewards(owners, sweep)
    left, right = figure.axes
    texts = [text.get_text() for text in left.texts]
    assert len(texts) == 12 and texts.count("constant") == 1 and "-0.00" not in texts
    assert len(right.lines) == 6


# --- the laboratory


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
        assert set(names_on(ax)) <= expected and len(names_on(ax)) > len(expected) - 2  # crowded names may go
        assert ax.yaxis_inverted() == ("hallucination" in pair)
    with pytest.raises(ValueError, match="expected pairs"):
        laboratory_plots.pareto_panels(points, fronts.assign(space="accuracy"))


def test_names_on_a_panel_hide_no_other_name(lab):
    rng = np.random.default_rng(0)
    ax = laboratory_plots.pareto_panels(pareto.points(lab), pareto.fronts(lab, PAIRS, rng)).axes[0]
    renderer = ax.figure.canvas.get_renderer()
    boxes = [matplotlib.text.Text.get_window_extent(text, renderer) for text in ax.texts]
    assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[i + 1 :])


def test_parallel_objectives_put_better_up_and_a_family_in_each_panel(lab):
    points = pareto.points(lab)
    figure = laboratory_plots.parallel_objectives(points, MARKS)
    drawn = {line.get_label(): line.get_ydata() for ax in figure.axes for line in ax.lines}
    assert drawn["Baseline"][-1] == pytest.approx(-0.08)  # it hallucinates most by far: just outside the axis
    values = points.pivot(index="label", columns="objective", values="value")
    best = values["faithfulness"].idxmax()
    assert drawn[best][1] == pytest.approx(1)
    arms = [legend_texts(ax.get_legend()) for ax in figure.axes]
    assert arms[0] == ["Baseline", "GRPO", "CRPO", "Cold Start + GRPO", "Cold Start + CRPO"]
    assert sorted(sum(arms, [])) == sorted(set(points["label"]))  # every arm in one panel, grey in the others
    assert all(len(ax.lines) == len(values) for ax in figure.axes)
    assert "Honest policy (100, 5, 3, 0)" in figure.get_supxlabel()
    assert no_text_overlaps(figure)


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
    assert laboratory_plots._seen(pd.Series(values)) == seen


def test_a_collapsed_arm_is_written_above_the_panel(lab):
    points, fronts = (
        pareto.points(lab),
        pareto.fronts(lab, PAIRS, np.random.default_rng(0)),
    )
    far = (points["arm"] == "k0") & (points["objective"] == "accuracy")
    points.loc[far, ["value", "ci_low", "ci_high"]] = [-400.0, -410.0, -300.0]
    for ax in laboratory_plots.pareto_panels(points, fronts).axes:
        assert ax.get_xlim()[0] > 0 and "k = 0 (" in ax.get_title(loc="left").replace("\n", " ")


def test_hypervolume_bars_are_the_table_s_volumes(lab):
    table = pareto.hypervolume_table(lab, rng=np.random.default_rng(0), reps=20)
    arms, fronts = laboratory_plots.hypervolume_bars(table).axes
    for ax, kind in ((arms, "arm"), (fronts, "front")):
        widths = sorted(patch.get_width() for patch in ax.patches)
        assert widths == pytest.approx(sorted(table.loc[table["kind"] == kind, "volume"]))
    assert no_text_overlaps(arms.figure)


def test_ablation_forest_fills_what_survives_holm(lab):
    np.random.default_rng(0)
    names = [name for name in records.families(lab) if name != "main"]
    table = pd.concat([comparisons.ablation_table(lab, name) for name in names])
    figure = laboratory_plots.ablation_forest(table)
    tested = table.dropna(subset="difference")
    assert [ax.get_title(loc="left") for ax in figure.axes][0] == "Accuracy (%)"
    for ax, metric in zip(figure.axes, records.OBJECTIVES, strict=True):
        rows = tested[tested["metric"] == metric]
        marks = [bars.lines[0] for bars in ax.containers]
        assert [mark.get_xdata()[0] for mark in marks] == pytest.approx(rows["difference"].tolist())
        filled = [mark.get_markerfacecolor() != "white" for mark in marks]
        assert filled == (rows["p_holm"] < 0.05).tolist()
    assert no_text_overlaps(figure)


def test_k_curve_stands_on_the_table_s_ks(lab):
    table = comparisons.k_table(lab)
    figure = laboratory_plots.k_curve(table)
    assert len(figure.axes) == 6
    assert [label.get_text() for label in figure.axes[0].get_xticklabels()] == ["0", "3", "10", "30"]
    assert no_text_overlaps(figure)


def test_advantage_shares_fill_the_panel(lab):
    figure = laboratory_plots.advantage_shares(shares.shares(lab, ["k0", "k3", "crpo", "k30"]))
    assert [ax.get_title(loc="left") for ax in figure.axes] == ["k = 0", "k = 3", "CRPO (k = 10)", "k = 30"]
    top = figure.axes[0].collections[-1].get_paths()[0].vertices[:, 1].max()
    assert top == pytest.approx(1)
    assert no_text_overlaps(figure)


def test_trajectories_draw_an_arrow_between_checkpoints(lab):
    figure = laboratory_plots.trajectories(pareto.trajectory_points(lab), PAIRS, MARKS)
    for ax in figure.axes:
        assert len(ax.texts) == 4 * 3  # four trained methods, four checkpoints
    assert no_text_overlaps(figure)


def test_every_family_has_its_own_look():
    assert {ARMS[name].family for name in LABORATORY} <= {*laboratory_plots.FAMILY_COLOURS, "main"}
    assert len(set(laboratory_plots.FAMILY_MARKERS.values())) == len(laboratory_plots.FAMILY_COLOURS)
    assert not set(laboratory_plots.FAMILY_COLOURS.values()) - {"#56B4E9"} & set(
        plots.METHOD_COLOURS.values()
    )


PALETTES = {
    "families": laboratory_plots.FAMILY_COLOURS.values(),
    "families and methods": {*laboratory_plots.FAMILY_COLOURS.values(), *plots.METHOD_COLOURS.values()},
    "own arms and methods": (*plots.OWN_COLOURS, *plots.METHOD_COLOURS.values()),
    "rewards": plots.REWARD_COLOURS,
}


@pytest.mark.parametrize("sight", SIGHTS)
@pytest.mark.parametrize("palette", PALETTES)
def test_colours_differ_whatever_the_sight(palette, sight):
    """The reader with deuteranopia saw families 3.5 apart."""
    colours = sorted(PALETTES[palette])
    seen = [as_seen(colour, sight) for colour in colours]
    pairs = {
        (a, b): ciede2000(seen[i], seen[j])
        for i, a in enumerate(colours)
        for j, b in enumerate(colours)
        if i < j
    }
    assert min(pairs.values()) > 10, min(pairs, key=pairs.get)


def test_the_simulation_of_sight_is_right():
    """Published pairs of Sharma, Wu and Dalal (2005); grey stays grey, and red and green come near for who lacks a cone."""
    assert ciede2000((50, 2.6772, -79.7751), (50, 0, -82.7485)) == pytest.approx(2.0425, abs=1e-4)
    assert ciede2000((60.2574, -34.0099, 36.2677), (60.4626, -34.1751, 39.4387)) == pytest.approx(
        1.2644, abs=1e-4
    )
    assert ciede2000((90.8027, -2.0831, 1.4410), (91.1528, -1.6435, 0.0447)) == pytest.approx(
        1.4441, abs=1e-4
    )
    for sight in SIGHTS:
        assert np.abs(as_seen("#808080", sight)[1:]).max() < 1.5
    red_green = [ciede2000(as_seen("#B22222", s), as_seen("#556B2F", s)) for s in ("normal", "deuteranopia")]
    assert red_green[1] < red_green[0] / 2
