"""Figures draw what the tables say and save the same bytes twice: pytest tests/test_plots.py"""

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt  # noqa: E402
import numpy as np  # noqa: E402
import pandas as pd  # noqa: E402
import pytest  # noqa: E402
from colours import SIGHTS, as_seen, ciede2000
from legible import assert_legible, fresh_figures, seen_texts  # noqa: E402, F401  (a fixture of every test here)

from clinical_r1 import labels, paper, plots  # noqa: E402
from clinical_r1.arms import ARMS, LABORATORY, METHODS  # noqa: E402
from clinical_r1.audit import accuracies, claims, reward_arithmetic  # noqa: E402
from clinical_r1.audit import plots as audit_plots  # noqa: E402
from clinical_r1.labels import CLINIC_BENCHMARKS, PAPER_BENCHMARKS

FIGURES = (plots.fig1_radar, plots.fig3_cold_start_accuracy, plots.fig4_accuracy)


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


@pytest.mark.parametrize("benchmarks", [CLINIC_BENCHMARKS, PAPER_BENCHMARKS])
@pytest.mark.parametrize("figure", FIGURES)
def test_result_figures_draw_cleanly(figure, benchmarks):
    assert_legible(figure(results(benchmarks)).figure)


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


def test_what_was_not_run_has_a_word_and_no_bar():
    table = results()
    gap = table[(table["method"] != "crpo") | (table["benchmark"] == "clinic")]
    ax = plots.fig4_accuracy(gap)
    assert [text.get_text() for text in ax.texts].count("not run") == 2
    assert_legible(ax.figure)
    ax = plots.fig3_cold_start_accuracy(table[~table["method"].str.startswith("cold_start")])
    assert "Not run: Cold Start + GRPO, Cold Start + CRPO" in ax.get_title(loc="left")
    assert "Cold Start + GRPO" not in legend_texts(ax.get_legend())
    assert_legible(ax.figure)
    assert "ot run" not in " ".join(text.get_text() for text in seen_texts(plots.fig4_accuracy(table).figure))


@pytest.mark.parametrize("figure", FIGURES)
def test_an_arm_without_a_row_has_no_place(figure):
    """Profile laptop trains the cold-started arms only."""
    arms = ("baseline", "cold_start_grpo", "cold_start_crpo")
    table = results()
    ax = figure(table[table["method"].isin([*arms, "chance"])])
    drawn = [bars for bars in ax.containers if hasattr(bars, "patches")]
    assert not {"GRPO", "CRPO"} & {text.get_text() for text in ax.get_legend().get_texts()}
    assert all(bar.get_height() > 0 for bars in drawn for bar in bars)
    if drawn:  # what is drawn stands in the middle of each set
        centres = [bars[0].get_x() + bars[0].get_width() / 2 for bars in drawn]
        assert sum(centres) == pytest.approx(0, abs=1e-9)


def test_bars_say_what_their_intervals_cover():
    table = results().assign(interval="Student's t over questions")
    assert "(Student's t over questions)" in plots.fig4_accuracy(table).get_title(loc="left")


def test_bars_of_methods_differ_without_colour():
    ax = plots.fig3_cold_start_accuracy(results())
    hatches = [bars[0].get_hatch() for bars in ax.containers if hasattr(bars, "patches")]
    assert len(hatches) == len(set(hatches)) == 4


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


def test_radar_names_the_axes_without_a_signal():
    table = results()
    table.loc[table["metric"] == "verification", "value"] = 0.01
    ax = plots.fig1_radar(table)
    marked = [text.get_text() for text in ax.texts if "no signal" in text.get_text()]
    assert marked == [f"Verification\n0 → {marked[0].split(' → ')[1].split()[0]}\nno signal: at most 0.01"]
    assert sum(line.get_linestyle() == ":" for line in ax.lines) == 1
    assert_legible(ax.figure)


def test_length_figure_keeps_the_paper_in_its_own_panel():
    figure = plots.fig5_response_length(logs(), paper.fig5_curve())
    ours, theirs = figure.axes
    assert "paper" in theirs.get_title(loc="left") and ours.get_title(loc="left") == "This run"
    assert len(ours.lines) == 4 and len(ours.collections) == 4  # a line and a seed band per arm
    assert len(theirs.lines) == 1
    assert_legible(figure)
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
    assert [text.get_text() for text in second.texts] == [
        "not in GRPO, Cold Start + GRPO"
    ] and not first.texts
    grpo = logs().query("method == 'grpo'").dropna(subset=columns[0])
    last = grpo[grpo["step"] > 9][columns[0]].mean()
    assert first.lines[0].get_ydata()[-1] == pytest.approx(last)
    assert_legible(figure)
    with pytest.raises(ValueError, match="lack"):
        plots.training_curves(logs(), ["rewards/no_such_reward/mean"])


def test_a_curve_that_stands_still_is_not_stretched():
    flat = logs()
    flat["rewards/consistency_reward/mean"] = 0.998 + 0.001 * flat["rewards/accuracy_reward/mean"]
    ax = plots.training_curves(flat, ["rewards/consistency_reward/mean"]).axes[0]
    assert np.ptp(ax.get_ylim()) == pytest.approx(0.0998, abs=2e-3)
    plotted = plots.training_curves(logs(), ["rewards/accuracy_reward/mean"]).axes[0]
    assert np.ptp(plotted.get_ylim()) < 1.1  # what moves fills its panel


def test_eight_panels_still_fit_a_slide():
    wide = logs()
    columns = [f"rewards/term_{i}/mean" for i in range(8)]
    assert_legible(
        plots.training_curves(wide.assign(**{c: wide["completions/mean_length"] for c in columns}), columns)
    )


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
    assert_legible(ax.figure)


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
    assert tuple(labels.METHOD_COLOURS) == tuple(labels.METHOD_MARKERS) == METHODS
    assert len(set(labels.METHOD_COLOURS.values())) == len(METHODS)
    assert plots.RADAR_METRICS == paper.METRICS
    assert {metric: labels.OBJECTIVE_LABELS[metric] for metric in paper.METRICS} == labels.METRIC_LABELS


# --- the paper's printed numbers


def test_audit_denominators_marks_what_fits():
    fits = accuracies.denominator_fits(10)
    figure = audit_plots.audit_denominators(fits)
    assert_legible(figure)
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
    assert_legible(axes.figure)
    labels = legend_texts(axes.get_legend())
    assert {"Chance", "Majority letter", "CRPO"} <= set(labels) and len(labels) == 2 + len(METHODS)
    assert axes.get_ylim()[0] == 0 and axes.get_ylim()[1] > 59


def test_audit_figure1_has_a_panel_a_reading():
    figure = audit_plots.audit_figure1(claims.figure1_readings())
    assert_legible(figure)
    drawn, captioned = ([line.get_xdata()[0] for line in ax.lines] for ax in figure.axes)
    assert [100 - value for value in drawn] == pytest.approx(captioned)


def test_audit_rewards_says_where_a_term_is_constant():
    owners = reward_arithmetic.advantage_owners(np.random.default_rng(0), 100)
    sweep = reward_arithmetic.weight_sweep(np.random.default_rng(0), 100)
    figure = audit_plots.audit_rewards(owners, sweep)
    assert_legible(figure)
    left, right = figure.axes
    texts = [text.get_text() for text in left.texts]
    assert len(texts) == 12 and texts.count("constant") == 1 and "-0.00" not in texts
    assert len(right.lines) == 6


# --- colours


def test_every_family_has_its_own_look():
    assert {ARMS[name].family for name in LABORATORY} <= {*labels.FAMILY_COLOURS, "main"}
    assert len(set(labels.FAMILY_MARKERS.values())) == len(labels.FAMILY_COLOURS)
    assert not set(labels.FAMILY_COLOURS.values()) - {"#56B4E9"} & set(labels.METHOD_COLOURS.values())


PALETTES = {
    "families": labels.FAMILY_COLOURS.values(),
    "families and methods": {*labels.FAMILY_COLOURS.values(), *labels.METHOD_COLOURS.values()},
    "own arms and methods": (*labels.OWN_COLOURS, *labels.METHOD_COLOURS.values()),
    "rewards": labels.REWARD_COLOURS,
    "verdicts and the page": (*(look[2] for look in labels.VERDICT_LOOKS.values()), "#FFFFFF"),
}


@pytest.mark.parametrize("sight", SIGHTS)
@pytest.mark.parametrize("palette", PALETTES)
def test_colours_differ_whatever_the_sight(palette, sight):
    """At least 10 (CIEDE2000; 1 is just visible side by side): the reader with deuteranopia once saw families 3.5 apart."""
    colours = sorted(PALETTES[palette])
    seen = [as_seen(colour, sight) for colour in colours]
    pairs = {
        (a, b): ciede2000(seen[i], seen[j])
        for i, a in enumerate(colours)
        for j, b in enumerate(colours)
        if i < j
    }
    assert min(pairs.values()) > 10, min(pairs, key=pairs.get)


@pytest.mark.parametrize("sight", SIGHTS)
@pytest.mark.parametrize("palette", list(PALETTES)[1:-1])
def test_colours_stand_out_from_paper_and_from_what_is_quiet(palette, sight):
    for colour in PALETTES[palette]:
        for behind in ("#FFFFFF", labels.QUIET_COLOUR):
            assert ciede2000(as_seen(colour, sight), as_seen(behind, sight)) > 10, (colour, behind)


def test_what_has_one_colour_has_two_markers_or_hatches():
    for colours, doubled in (
        (labels.METHOD_COLOURS.values(), labels.METHOD_MARKERS.values()),
        (labels.OWN_COLOURS, labels.OWN_MARKERS),
        (labels.FAMILY_COLOURS.values(), labels.FAMILY_MARKERS.values()),
        (labels.REWARD_COLOURS, labels.REWARD_HATCHES),
        (
            [look[2] for look in labels.VERDICT_LOOKS.values()],
            [look[0] for look in labels.VERDICT_LOOKS.values()],
        ),
        (
            [look[2] for look in labels.VERDICT_LOOKS.values()],
            [look[3] for look in labels.VERDICT_LOOKS.values()],
        ),
    ):
        assert len(set(doubled)) == len(list(doubled)) >= len(set(colours))
    trained = [labels.METHOD_HATCHES[name] for name in METHODS[1:]]
    assert len(set(trained)) == len(trained) and labels.METHOD_HATCHES["baseline"] == ""  # grey beside blue


def test_verdicts_are_readable_on_their_backgrounds():
    """WCAG 2 contrast of #111 on each, at least 4.5."""

    def light(colour):
        srgb = np.array([int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)])
        linear = np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)
        return linear @ [0.2126, 0.7152, 0.0722] + 0.05

    assert min(light(look[2]) / light("#111111") for look in labels.VERDICT_LOOKS.values()) >= 4.5


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
