"""Figures of credit against the truth, by group size and by gamma, and of how often a state is met again.

They draw the frames of `records` and compute nothing; one style, that of the root's `plots`.
"""

import matplotlib.pyplot as plt
import numpy as np

from clinical_r1.agent.arms import GAMMA
from clinical_r1.agent.records import STAGES
from clinical_r1.agent.tables import ANCHORED, ESTIMATOR_ARMS, ESTIMATOR_LABELS, credit_at, largest_group
from clinical_r1.labels import AGENT_COLOURS, AGENT_MARKERS, REWARD_COLOURS, REWARD_HATCHES
from clinical_r1.plots import SLIDE, SMALL, legend_below, note_above
from clinical_r1.tables import whole

STAGE_LABELS = {"start": "The start", "half": "Half trained", "trained": "Trained"}
LABELS = {
    "correlation": "Correlation with the true advantage",
    "error": "Share of the true advantage left unexplained",
}


def credit_by_group(rows, gamma=GAMMA):
    """Agreement of each estimator with the true advantage over the group's size, a panel a stage. Returns the figure.

    rows: `tables.credit_table` of one menu, measure and std. gamma: of the anchors' returns-to-go.
    """
    own = credit_at(rows, gamma)
    sizes = sorted(own["group"].unique())
    fig, axes = _panels(own)
    for ax, stage in zip(axes.flat, _stages(own), strict=True):
        for i, (estimator, line) in enumerate(_by_estimator(own[own["stage"] == stage])):
            x = np.array([sizes.index(size) for size in line["group"]]) + 0.07 * (i - 1.5)
            _line(ax, x, line, estimator)
        ax.set_xticks(range(len(sizes)), [whole(size) for size in sizes])
        ax.set(title=STAGE_LABELS[stage], xlabel="Episodes of a patient (group size)")
        _level(ax, rows)
    axes[0, 0].set_ylabel(LABELS[rows["measure"].iloc[0]])
    note_above(fig, f"{_words(own)} Anchors with gamma {gamma:g}.")
    legend_below(fig, *axes.flat)
    return fig


def credit_by_gamma(rows, group=None):
    """The same over gamma in groups of one size, by default the largest that all estimators have. Returns the figure.

    Gamma has no bearing on the estimators without anchors: each is a level line.
    """
    group = largest_group(rows) if group is None else group
    own = rows[rows["group"] == group]
    fig, axes = _panels(own)
    gammas = sorted(own.loc[own["estimator"].isin(ANCHORED), "gamma"].unique())
    for ax, stage in zip(axes.flat, _stages(own), strict=True):
        for i, (estimator, line) in enumerate(_by_estimator(own[own["stage"] == stage])):
            if estimator in ANCHORED:
                x = np.array([gammas.index(gamma) for gamma in line["gamma"]]) + 0.05 * (i - 1.5)
                _line(ax, x, line, estimator)
            else:
                look = {
                    "color": AGENT_COLOURS[ESTIMATOR_ARMS[estimator]],
                    "label": ESTIMATOR_LABELS[estimator],
                }
                ax.axhline(line["value"].iloc[0], ls="--" if estimator == "tree" else "-", lw=1.3, **look)
        ax.set_xticks(range(len(gammas)), [f"{gamma:g}" for gamma in gammas])
        ax.set(title=STAGE_LABELS[stage], xlabel="Gamma of the returns-to-go", xlim=(-0.5, len(gammas) - 0.5))
        _level(ax, rows)
    axes[0, 0].set_ylabel(LABELS[rows["measure"].iloc[0]])
    note_above(
        fig, f"{_words(own)} Groups of {whole(group)} episodes; lines without marks do not depend on gamma."
    )
    legend_below(fig, *axes.flat)
    return fig


def _stages(rows):
    return [stage for stage in STAGES if stage in set(rows["stage"])]


def _by_estimator(rows):
    return [
        (name, own)
        for name in ESTIMATOR_LABELS
        if len(own := rows[(rows["estimator"] == name) & rows["value"].notna()])
    ]


def _panels(rows):
    n = len(_stages(rows))
    size = (min(SLIDE[0], 3.7 * n + 1.0), 4.3)
    return plt.subplots(1, n, figsize=size, sharey=True, squeeze=False, layout="constrained")


def _line(ax, x, rows, estimator):
    arm = ESTIMATOR_ARMS[estimator]
    low, high = rows["value"] - rows["low"], rows["high"] - rows["value"]
    errors = np.nan_to_num([low.clip(lower=0), high.clip(lower=0)])
    look = {"color": AGENT_COLOURS[arm], "marker": AGENT_MARKERS[arm], "label": ESTIMATOR_LABELS[estimator]}
    ax.errorbar(x, rows["value"], yerr=errors, markersize=6, capsize=2.5, elinewidth=1.1, **look)


def _level(ax, rows):
    """Where an estimate says nothing: correlation 0, all of the truth unexplained."""
    ax.axhline(0.0 if rows["measure"].iloc[0] == "correlation" else 1.0, color="#9A9A9A", lw=0.9, zorder=0.5)


def _words(rows):
    n, turns = rows["patients"].max(), sorted(rows["turns"].unique())
    between = f"{turns[0]:,.0f}" + (f" to {turns[-1]:,.0f}" if len(turns) > 1 else "")
    divided = "divided by the standard deviation" if rows["std"].iloc[0] else "centred only"
    about = f"n = {between} turns of {whole(n)} patients, one seed; estimates {divided}."
    return f"{about} Bars: 95 % intervals, bootstrap over patients."


def density_bars(density):
    """Share of the valid turns beyond the first whose state another turn shares, by menu and stage. Returns the figure.

    density: the frame of `records`. Over each bar stands the mean number of turns a state.
    """
    menus, stages = list(dict.fromkeys(density["menu"])), _stages(density)
    fig, ax = plt.subplots(figsize=(2.0 + 2.1 * len(menus), 4.0), layout="constrained")
    width = 0.8 / len(stages)
    for i, stage in enumerate(stages):
        own = density[density["stage"] == stage].set_index("menu").reindex(menus)
        x = np.arange(len(menus)) + (i - (len(stages) - 1) / 2) * width
        look = {
            "facecolor": REWARD_COLOURS[i],
            "hatch": REWARD_HATCHES[i],
            "edgecolor": "white",
            "linewidth": 0,
        }
        ax.bar(x, 100 * own["repeated"], 0.92 * width, label=STAGE_LABELS[stage], **look)
        for place, value, size in zip(x, own["repeated"], own["size"], strict=True):
            measured = np.isfinite(value)
            text = f"{100 * value:.0f} %" + (f"\n{size:.1f} a state" if np.isfinite(size) else "")
            at = {"xytext": (0, 3), "textcoords": "offset points", "ha": "center", "va": "bottom"}
            words = text if measured else "not\nmeasured"
            ax.annotate(words, (place, 100 * value if measured else 0), fontsize=SMALL, **at)
    names = [f"a menu of {menu}" if menu != "open" else "open: none named" for menu in menus]
    ax.set_xticks(range(len(menus)), names)
    ax.set(ylabel="Turns whose state is met again (%)", ylim=(0, max(10.0, 125 * density["repeated"].max())))
    ax.grid(axis="x", visible=False)
    note_above(
        fig,
        f"n = {_from_to(density['turns'])} valid turns beyond the first, of {_from_to(density['patients'])} patients; one seed.",
    )
    legend_below(fig, ax)
    return fig


def _from_to(values):
    return " to ".join(dict.fromkeys(f"{value:,.0f}" for value in (values.min(), values.max())))
