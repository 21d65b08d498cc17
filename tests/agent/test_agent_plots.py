"""Figures of agents draw what their tables say, and can be read on a slide."""

from itertools import combinations

import matplotlib

matplotlib.use("Agg")

import agent_summary  # noqa: E402
import numpy as np  # noqa: E402
import pytest  # noqa: E402
from colours import SIGHTS, as_seen, ciede2000  # noqa: E402
from legible import assert_legible, fresh_figures  # noqa: E402, F401  (a fixture of every test here)

from clinical_r1 import labels  # noqa: E402
from clinical_r1.agent import credit_plots, plots, policies, tables  # noqa: E402
from clinical_r1.agent.arms import AGENT_ARMS  # noqa: E402
from clinical_r1.agent.consultation import Rules, draw_patients  # noqa: E402
from clinical_r1.agent.records import AgentSummary  # noqa: E402


@pytest.fixture(scope="module")
def summary():
    return AgentSummary(**agent_summary.summary_frames())


def note(figure):
    return figure.get_suptitle().replace("\n", " ")


def test_every_arm_has_a_colour_of_its_own_and_a_marker():
    assert list(labels.AGENT_COLOURS) == ["start", *AGENT_ARMS] == list(labels.AGENT_MARKERS)
    assert len(set(labels.AGENT_MARKERS.values())) == len(labels.AGENT_MARKERS)
    for sight in SIGHTS:
        seen = [as_seen(colour, sight) for colour in labels.AGENT_COLOURS.values()]
        assert min(ciede2000(a, b) for a, b in combinations(seen, 2)) > 10, sight


@pytest.mark.parametrize("index", [0, 2, 5])
def test_a_consultation_shows_each_turn_beside_its_exact_posterior(index):
    patient = draw_patients("validation", index + 1, 0)[-1]
    played = policies.play(patient, Rules(), policies.greedy, np.random.default_rng(0))
    rows = plots.told(played)
    assert len(rows) == len(played.turns) + 1 and rows[0][0] == "" and rows[1][0] == played.turns[0].text
    assert rows[-1][2] == pytest.approx(played.consultation.posterior())
    figure = plots.consultation_story(rows, patient.gold)
    (ax,) = figure.axes
    widths = np.array([[bar.get_width() for bar in bars] for bars in ax.containers]).T
    assert widths == pytest.approx(np.array([list(row[2].values()) for row in rows]))
    assert any("what the patient has" in text.get_text() for text in figure.legends[0].get_texts())
    assert "n = 1 patient" in note(figure)
    assert_legible(figure)
    with pytest.raises(ValueError, match="at least the complaint"):
        plots.consultation_story([])


def test_learning_curves_end_at_the_mean_of_the_last_steps(summary):
    rows = summary.of("training", "main")
    figure = plots.learning_curves(rows, tables.reference_lines(summary, "main"))
    right = figure.axes[0]
    line = next(line for line in right.lines if line.get_label() == "GRPO")
    late = rows[(rows["arm"] == "grpo") & (rows["step"] > 30)]["right"].mean()
    assert line.get_ydata()[-1] == pytest.approx(100 * late)
    assert line.get_xdata()[-1] == pytest.approx(72.0)
    levels = [line.get_ydata()[0] for line in right.lines if len(set(line.get_ydata())) == 1]
    assert levels == pytest.approx([47, 70, 88, 91])
    assert "3 training seeds" in note(figure) and "n = 1,000 patients" in note(figure)
    assert_legible(figure)
    assert_legible(plots.learning_curves(rows))


def test_closure_draws_the_settings_that_are_there(summary):
    figure = plots.closure_curves(summary.training)
    assert len(figure.axes) == 4 and "n = 40 steps" in note(figure)
    assert min(figure.axes[0].lines[0].get_ydata()) == pytest.approx(1.0)
    assert_legible(figure)
    one = plots.closure_curves(summary.of("training", "closure"))
    assert len(one.axes) == 2
    assert_legible(one)
    with pytest.raises(ValueError, match="expected training"):
        plots.closure_curves(summary.of("training", "main"))


def test_the_forest_fills_what_survives_holm(summary):
    table = tables.both_budgets(tables.comparison_table, summary, "main")
    figure = plots.comparison_forest(table)
    assert len(figure.axes) == len(tables.TESTED)
    for ax, measure in zip(figure.axes, tables.TESTED, strict=True):
        rows = table[table["measure"] == measure]
        filled = sum(bars.lines[0].get_markerfacecolor() != "white" for bars in ax.containers)
        assert filled == (rows["p_holm"] < 0.05).sum() and len(ax.containers) == 8
    assert "n = 60 test patients, 3 training seeds" in note(figure) and "Filled" in note(figure)
    assert_legible(figure)
    one = AgentSummary(consultations=agent_summary.consultations(seeds=(0,), budgets=("sampled",)))
    figure = plots.comparison_forest(tables.comparison_table(one, "main"))
    assert "nothing was tested" in note(figure) and "1 training seed." in note(figure)
    assert_legible(figure)


def test_accuracy_against_tests_names_policies_and_marks_arms(summary):
    front = tables.front_table(summary, "main", np.random.default_rng(0), reps=50)
    figure = plots.accuracy_against_tests(front)
    (ax,) = figure.axes
    named = {text.get_text() for text in figure.legends[0].get_texts()}
    assert named == {"Front of the arms", *tables.ARM_LABELS.values()}
    assert {text.get_text() for text in ax.texts} == set(tables.POLICY_LABELS.values())
    assert "n = 60 test patients, 3 training seeds" in note(figure)
    assert_legible(figure)


def test_credit_by_group_has_a_panel_a_stage_and_says_its_n(summary):
    rows = tables.credit_table(summary)
    figure = credit_plots.credit_by_group(rows)
    assert [ax.get_title(loc="left") for ax in figure.axes] == ["The start", "Half trained", "Trained"]
    assert len(figure.axes[0].containers) == 4
    assert "n = 3,000 turns of 60 patients, one seed" in note(figure) and "gamma 0.95" in note(figure)
    assert_legible(figure)
    assert_legible(credit_plots.credit_by_group(rows[rows["stage"] == "start"]))


def test_credit_by_gamma_takes_the_largest_group_of_all(summary):
    rows = tables.credit_table(summary, measure="error")
    assert tables.largest_group(rows) == 16
    short = rows[(rows["estimator"] != "tree") | (rows["group"] < 16)]
    assert tables.largest_group(short) == 8
    figure = credit_plots.credit_by_gamma(rows)
    assert "Groups of 16 episodes" in note(figure) and len(figure.axes[0].containers) == 2
    assert_legible(figure)


def test_density_bars_are_per_cent_and_say_what_was_not_measured(summary):
    figure = credit_plots.density_bars(summary.density)
    assert figure.axes[0].containers[0][0].get_height() == pytest.approx(30.0)
    assert "n = 900 to 902 valid turns" in note(figure)
    assert_legible(figure)
    frame = summary.density
    part = credit_plots.density_bars(frame[(frame["menu"] == "8") | (frame["stage"] == "start")])
    assert "not\nmeasured" in [text.get_text() for text in part.axes[0].texts]
    assert_legible(part)
