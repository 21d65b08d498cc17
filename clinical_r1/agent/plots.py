"""Figures of the diagnostic agent: one consultation, learning, comparison, accuracy against tests, premature closure; those of
credit are `credit_plots`'. They draw the tables of `tables` and compute nothing; one style, that of the root's `plots`.
"""

import textwrap

import matplotlib.pyplot as plt
import numpy as np

from clinical_r1.agent.arms import AGENT_ARMS
from clinical_r1.agent.records import BUDGETS, SETTINGS, START
from clinical_r1.agent.tables import ARM_LABELS, MEASURES, REFERENCE
from clinical_r1.labels import AGENT_COLOURS, AGENT_MARKERS, PAPER_COLOUR, REWARD_COLOURS, REWARD_HATCHES
from clinical_r1.metrics import PRIMARY
from clinical_r1.plots import ASIDE, LIT, SLIDE, SMALL, legend_below, note_above
from clinical_r1.tables import whole

POLICY_LINES = {"guess": ":", "random_inquiry": "-.", "greedy": (0, (6, 2)), "expert": "-"}
WINDOW = 10  # steps of training that a point of a curve is the mean of
TEXT_WIDTH = 46  # characters of a turn in a line


def agent_look(arm: str) -> dict:
    """Colour, marker and label of an arm, the same in every figure."""
    return {"color": AGENT_COLOURS[arm], "marker": AGENT_MARKERS[arm], "label": ARM_LABELS[arm]}


# ------------------------------------------------------------------------------------------------------ one consultation


def told(played) -> list[tuple[str, str, dict]]:
    """(text, observation, posterior once it is known) of the complaint and of each turn, for `consultation_story`.

    played: `policies.Played`. The complaint comes first, with "" for text.
    """
    from clinical_r1.clinic.cases import phrase

    consultation, turns = played.consultation, played.turns
    after = [turn.posterior for turn in turns[1:]] + [consultation.posterior()]
    complaint = ", ".join(phrase(finding, True) for finding in consultation.patient.complaint)
    rows = [("", complaint, turns[0].posterior)]
    for turn, known in zip(turns, after, strict=True):
        paid = f"reward {turn.observation.reward:g}"
        rows.append((turn.text, turn.observation.text or paid, known))
    return rows


def consultation_story(rows, gold: str | None = None):
    """A consultation turn by turn: what was said, what it brought, and beside it the exact posterior. Returns the figure.

    rows: (text of the turn, "" for the complaint; observation; {option: probability once it is known}), in order. gold: the
    patient's diagnosis, marked in the legend.
    """
    if not rows:
        raise ValueError("got no row; expected at least the complaint: (text, observation, posterior).")
    options = list(rows[0][2])
    said = [_said(number, text, observation) for number, (text, observation, _) in enumerate(rows)]
    tall = min(SLIDE[1] - 0.3, 1.1 + sum(0.19 * (text.count("\n") + 1) + 0.2 for text in said))
    fig, ax = plt.subplots(figsize=(9.6, tall), layout="constrained")
    left = np.zeros(len(rows))
    for i, option in enumerate(options):
        values = np.array([posterior[option] for _, _, posterior in rows])
        look = {
            "facecolor": REWARD_COLOURS[i],
            "hatch": REWARD_HATCHES[i],
            "edgecolor": "white",
            "linewidth": 0.8,
        }
        name = f"{option} (what the patient has)" if option == gold else option
        ax.barh(range(len(rows)), values, 0.72, left, label=name, **look)
        for row, (start, value) in enumerate(zip(left, values, strict=True)):
            if value >= 0.07:
                place = {"ha": "center", "va": "center", "fontsize": SMALL, "path_effects": LIT}
                ax.text(start + value / 2, row, f"{value:.2f}".removeprefix("0"), **place)
        left += values
    ax.set_yticks(range(len(rows)), said, fontsize=SMALL, linespacing=1.25)
    for label in ax.get_yticklabels():
        label.set_horizontalalignment("left")
    widest = max(label.get_window_extent().width for label in ax.get_yticklabels()) * 72 / fig.dpi
    ax.tick_params(axis="y", pad=widest + 6, length=0)
    ax.set(
        xlim=(0, 1), ylim=(len(rows) - 0.5, -0.5), xlabel="Exact probability of each option, once it is known"
    )
    ax.grid(axis="y", visible=False)
    note_above(fig, "n = 1 patient, no seed of training. Teaching material, not medical advice.")
    legend_below(fig, ax)
    return fig


def _said(number, text, observation) -> str:
    head = f"{number}. {text}" if text else f"Complaint: {observation}"
    lines = textwrap.wrap(head, TEXT_WIDTH, subsequent_indent="    ")
    if text:
        lines += textwrap.wrap(
            f"→ {observation}", TEXT_WIDTH, initial_indent="    ", subsequent_indent="    "
        )
    return "\n".join(lines)


# -------------------------------------------------------------------------------------------------------------- training


def learning_curves(training, lines=None, measures=("right", "inquiries"), window=WINDOW):
    """One panel a measure, one line an arm over sampled tokens, a band over seeds, reference policies beside. Returns the figure.

    training: rows of one setting. lines: `tables.reference_lines`, or None.
    """
    fig, axes = plt.subplots(
        1, len(measures), figsize=(5.6 * len(measures), 4.4), squeeze=False, layout="constrained"
    )
    for ax, measure in zip(axes.flat, measures, strict=True):
        _curves(ax, training, measure, window, by_tokens=True)
        if lines is not None:
            _reference_lines(ax, lines[lines["measure"] == measure])
        ax.set(title=MEASURES[measure].label, xlabel="Tokens sampled (thousands)")
    lines_too = "" if lines is None else f" Grey: reference policies, n = {whole(lines['n'].max())} patients."
    note_above(fig, _curve_words(training, window) + lines_too)
    legend_below(fig, *axes.flat)
    return fig


def _curve_words(training, window):
    seeds = training.groupby("arm")["seed"].nunique()
    steps = training.groupby(["setting", "arm", "seed"]).size().max()
    band = " Band: from the lowest to the highest seed." if seeds.max() > 1 else ""
    return (
        f"Patients of training, n = {whole(steps)} steps at most, {_seeds(seeds)} an arm. Line: mean of {window} steps and all "
        f"seeds.{band}"
    )


def _seeds(numbers) -> str:
    low, high = int(min(numbers)), int(max(numbers))
    return f"{low if low == high else f'{low} to {high}'} training seed{'s' * (high > 1)}"


def _curves(ax, training, measure, window, by_tokens):
    for arm in (name for name in AGENT_ARMS if name in set(training["arm"])):
        own, look = training[(training["arm"] == arm) & training[measure].notna()], agent_look(arm)
        if own.empty:
            continue
        curves = own.pivot(index="step", columns="seed", values=measure) * MEASURES[measure].scale
        curves = curves.rolling(window, min_periods=1).mean()
        x = own.groupby("step")["sampled"].mean() / 1000 if by_tokens else curves.index
        ax.plot(x, curves.mean(axis=1), markevery=max(1, len(curves) // 6), markersize=5, **look)
        if curves.shape[1] > 1:
            ax.fill_between(x, curves.min(axis=1), curves.max(axis=1), color=look["color"], alpha=0.15, lw=0)


def _reference_lines(ax, rows):
    """Horizontal lines with their names at the right end, apart from one another where they would touch."""
    if rows.empty:
        return
    for row in rows.itertuples():
        ax.axhline(row.value, color=ASIDE, ls=POLICY_LINES[row.policy], lw=1.1, zorder=1.5)
    low, high = ax.get_ylim()
    ax.set_ylim(low, high)  # the names move no axis
    heights = _apart((rows["value"].to_numpy(float) - low) / (high - low), 0.055)
    for row, height in zip(rows.itertuples(), heights, strict=True):
        place = {"xytext": (4, 0), "textcoords": "offset points", "xycoords": "axes fraction", "va": "center"}
        ax.annotate(row.label, (1, height), fontsize=SMALL, color=ASIDE, annotation_clip=False, **place)


def _apart(heights, least):
    """The heights in their order, moved so that neighbours are at least that far apart, around where they were."""
    order = np.argsort(heights, kind="stable")
    places = np.array(heights, dtype=float)
    for before, after in zip(order, order[1:], strict=False):
        places[after] = max(places[after], places[before] + least)
    return places - (places - heights).mean()


def closure_curves(training, settings=("closure", "cured"), measures=("turns", "right"), window=WINDOW):
    """Premature closure: turns and accuracy over training, a column for each setting, a line an arm. Returns the figure.

    training: rows of several settings; one that is not there is left out.
    """
    there = [name for name in settings if name in set(training["setting"])]
    if not there:
        raise ValueError(
            f"got no step of {' or '.join(settings)}; expected training of one of them at least."
        )
    size = (min(SLIDE[0], 4.9 * len(there) + 0.6), 2.5 * len(measures) + 1.2)
    shape = {"sharex": "col", "sharey": "row", "squeeze": False, "layout": "constrained"}
    fig, axes = plt.subplots(len(measures), len(there), figsize=size, **shape)
    for column, setting in zip(axes.T, there, strict=True):
        rows = training[training["setting"] == setting]
        for ax, measure in zip(column, measures, strict=True):
            _curves(ax, rows, measure, window, by_tokens=False)
        words = textwrap.fill(f"{setting}: {SETTINGS[setting]}", 44) if setting in SETTINGS else setting
        column[0].set_title(words, fontsize=9)
        column[-1].set_xlabel(f"Step (mean of the last {window})")
    for ax, measure in zip(axes[:, 0], measures, strict=True):
        ax.set_ylabel({"turns": "Turns, diagnosis included"}.get(measure, MEASURES[measure].label))
    note_above(fig, _curve_words(training[training["setting"].isin(there)], window))
    legend_below(fig, *axes.flat)
    return fig


# ------------------------------------------------------------------------------------------------------------ comparison


def comparison_forest(table, measures=None):
    """Each arm minus GRPO with its interval, a measure a panel, an arm and a budget a row. Returns the figure.

    table: `tables.comparison_table` under one or both budgets (column budget). Filled: Holm-corrected p below .05; what was not
    tested stays hollow.
    """
    rows = table if "budget" in table else table.assign(budget="sampled")
    measures = list(measures or dict.fromkeys(rows.loc[rows["status"] == PRIMARY, "measure"]))
    keys = list(rows[["arm", "budget"]].drop_duplicates().itertuples(index=False, name=None))
    keys.sort(key=lambda key: (list(AGENT_ARMS).index(key[0]), list(BUDGETS).index(key[1])))
    size = (min(SLIDE[0], 2.6 + 2.3 * len(measures)), 1.5 + 0.34 * len(keys))
    fig, axes = plt.subplots(1, len(measures), figsize=size, sharey=True, squeeze=False, layout="constrained")
    for ax, measure in zip(axes.flat, measures, strict=True):
        ax.axvline(0, color=PAPER_COLOUR, lw=0.9)
        for y, (arm, budget) in enumerate(keys):
            _difference(ax, rows[(rows["arm"] == arm) & (rows["budget"] == budget)], measure, y)
        ax.set_title(f"Δ {MEASURES[measure].label.replace('(%)', '(points)')}", fontsize=9)
        ax.grid(axis="y", visible=False)
        ax.locator_params(axis="x", nbins=4)
    names = [f"{ARM_LABELS[arm]}, {BUDGETS[budget]}" for arm, budget in keys]
    axes[0, 0].set_yticks(range(len(keys)), names, fontsize=SMALL)
    axes[0, 0].set_ylim(len(keys) - 0.4, -0.6)
    about = rows[rows["measure"].isin(measures)]
    tested = "Filled: p < .05 after Holm." if about["p_holm"].notna().any() else "Hollow: nothing was tested."
    words = f"Arm minus {ARM_LABELS[REFERENCE]}, n = {whole(about['n'].max())} test patients, {_seeds(about['seeds'])}."
    note_above(fig, f"{words} 95 % intervals ({'; '.join(dict.fromkeys(about['interval']))}). {tested}")
    return fig


def _difference(ax, rows, measure, y):
    own = rows[rows["measure"] == measure]
    if own.empty or own["difference"].isna().all():
        return
    row, look = own.iloc[0], agent_look(own.iloc[0]["arm"])
    error = [[row.difference - row.difference_low], [row.difference_high - row.difference]]
    face = look["color"] if row.p_holm < 0.05 else "white"
    ends = {
        "color": look["color"],
        "elinewidth": 1.3,
        "capsize": 2.5,
        "markerfacecolor": face,
        "markersize": 6,
    }
    error = None if np.isnan(error).any() else error
    ax.errorbar(row.difference, y, xerr=error, fmt=look["marker"], **ends)


# ------------------------------------------------------------------------------------------------ accuracy against tests


def accuracy_against_tests(front, spent="Tests ordered"):
    """Accuracy against what was spent for it; grey joins the arms that no other arm beats in both. Returns the figure.

    front: `tables.front_table`. Better is up and to the left. Reference policies are hollow and named, arms in the legend.
    """
    arms, policies = (front[front["kind"] == kind] for kind in ("arm", "policy"))
    fig, ax = plt.subplots(figsize=(7.6, 4.9), layout="constrained")
    on = arms[arms["on_front"].astype(bool)].sort_values("spent")
    ax.step(
        on["spent"], on["right"], where="post", color="#BBBBBB", lw=3, zorder=1, label="Front of the arms"
    )
    for row in arms.itertuples():
        errors = {"xerr": _ends(row, "spent"), "yerr": _ends(row, "right")}
        ax.errorbar(
            row.spent, row.right, fmt="none", ecolor=AGENT_COLOURS[row.name], elinewidth=1.1, **errors
        )
        ax.plot(row.spent, row.right, ls="", markersize=8, markeredgecolor="white", **agent_look(row.name))
    for row in policies.itertuples():
        ax.plot(row.spent, row.right, "X", color="white", markeredgecolor=ASIDE, markersize=8)
        place = {"xytext": (7, 4), "textcoords": "offset points", "fontsize": SMALL, "color": ASIDE}
        ax.annotate(row.label, (row.spent, row.right), path_effects=LIT, **place)
    trained = arms.loc[arms["name"] != START, "seeds"]
    ax.margins(0.14)
    ax.set(xlabel=f"{spent} (fewer is better: to the left)", ylabel="Accuracy (%)")
    note_above(
        fig,
        f"n = {whole(arms['n'].max())} test patients, {_seeds(trained)}. Bars: 95 % intervals. Hollow: reference policies.",
    )
    legend_below(fig, ax)
    return fig


def _ends(row, name):
    """(2, 1) distances from a value to the ends of its interval, None without one."""
    value, low, high = (getattr(row, f"{name}{end}") for end in ("", "_low", "_high"))
    return None if np.isnan([low, high]).any() else [[max(0, value - low)], [max(0, high - value)]]
