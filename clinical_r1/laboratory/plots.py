"""Figures of the laboratory: ablations, k, volumes, who owns the advantage; those of trade-offs are `front_plots`', named here
too. Draws, never computes; one style, that of `plots`."""

import textwrap

import matplotlib.pyplot as plt
import numpy as np

from clinical_r1.labels import (
    FAMILY_COLOURS,
    METHOD_COLOURS,
    OBJECTIVE_LABELS,
    PAPER_COLOUR,
    family_label,
    objective_label,
)
from clinical_r1.laboratory.front_plots import parallel_objectives, pareto_panels, trajectories
from clinical_r1.metrics import EXPLORATORY
from clinical_r1.plots import (
    LIT,
    SLIDE,
    SMALL,
    errors_of,
    filled,
    interval_words,
    legend_below,
    look_of,
    note_above,
)

__all__ = [
    "ablation_forest",
    "advantage_shares",
    "hypervolume_bars",
    "k_curve",
    "parallel_objectives",
    "pareto_panels",
    "trajectories",
]


def hypervolume_bars(volumes, title="Hypervolume"):
    """Volumes of single arms (left) and of families' fronts (right), with intervals. Returns the figure.

    volumes: frame kind ("arm" | "front"), name, family, label, volume, ci_low, ci_high, share.
    """
    kinds = [kind for kind in ("arm", "front") if kind in set(volumes["kind"])]
    tallest = max((volumes["kind"] == kind).sum() for kind in kinds)
    size = (4.8 * len(kinds), _height(tallest))
    fig, axes = plt.subplots(1, len(kinds), figsize=size, squeeze=False, layout="constrained")
    for ax, kind in zip(axes.flat, kinds, strict=True):
        rows = volumes[volumes["kind"] == kind].sort_values("volume", kind="stable")
        colours = [
            METHOD_COLOURS["crpo"] if name == "main" else look_of(name, family)["color"]
            for name, family in zip(rows["name"], rows["family"], strict=True)
        ]
        y = np.arange(len(rows))
        ax.barh(y, rows["volume"], 0.72, color=colours)
        ends = {"ecolor": PAPER_COLOUR, "elinewidth": 0.9, "capsize": 2}
        _, caps, lines = ax.errorbar(rows["volume"], y, xerr=errors_of(rows, "volume"), fmt="none", **ends)
        for part in (*caps, *lines):
            part.set_path_effects(LIT)
        names = rows["label"] if kind == "arm" else [family_label(name) for name in rows["name"]]
        ax.set_yticks(y, names, fontsize=SMALL)
        ax.set(
            title="Each arm by itself" if kind == "arm" else "Front of a family",
            xlabel=title,
            ylim=(len(rows) - tallest - 0.6, len(rows) - 0.4),
        )
        ax.grid(axis="y", visible=False)
    note_above(fig, interval_words(volumes))
    return fig


def _height(rows):
    """Inches of a figure with so many rows of small text: no more than a slide's, unless they would touch."""
    return 1.0 + rows * float(np.clip((SLIDE[1] - 1.0) / rows, 0.14, 0.21))


def ablation_forest(table):
    """Difference to the reference with its interval, an arm a row, a metric a panel. Returns the figure.

    table: rows of `comparisons.ablation_table`, of one or several families. Filled: Holm-corrected p below .05; what was not
    tested stays hollow. A metric that is not primary is called exploratory.
    """
    rows = table[table["difference"].notna()]
    metrics = list(dict.fromkeys(rows["metric"]))
    order = rows.drop_duplicates(["family", "arm"])
    places = _forest_places(order)
    lowest = list(places.values())[-1]
    size = (min(SLIDE[0], 4.2 + 2.05 * len(metrics)), _height(lowest + 2))
    fig, axes = plt.subplots(1, len(metrics), figsize=size, sharey=True, squeeze=False, layout="constrained")
    for ax, metric in zip(axes.flat, metrics, strict=True):
        own = rows[rows["metric"] == metric]
        _forest_panel(ax, own, places)
        aside = " (exploratory)" if "status" in own and (own["status"] == EXPLORATORY).any() else ""
        # what is drawn is a difference: shares differ by points, not by per cent
        name = OBJECTIVE_LABELS.get(metric, metric).replace("(%)", "(points)")
        ax.set_title(f"Δ {name}{aside}", fontsize=9)
    first = axes[0, 0]
    first.set_yticks(list(places.values()), [row.label for row in order.itertuples()], fontsize=SMALL)
    first.set_ylim(lowest + 0.8, -0.8)
    widest = max(label.get_window_extent().width for label in first.get_yticklabels()) * 72 / fig.dpi
    for row in order.drop_duplicates("family").itertuples():
        at = {
            "xycoords": first.get_yaxis_transform(),
            "textcoords": "offset points",
            "ha": "right",
            "va": "center",
        }
        name = family_label(row.family)
        first.annotate(
            name,
            (0, places[row.family, row.arm]),
            xytext=(-widest - 16, 0),
            fontsize=SMALL,
            weight="bold",
            **at,
        )
    words = f"Arm minus its reference. {interval_words(rows)}. Filled: p < .05 after Holm over the family's primary measures"
    note_above(fig, words + ("" if rows["p_holm"].notna().any() else "; nothing was tested: one seed") + ".")
    return fig


def _forest_places(order):
    """(family, arm) -> height of its row; a gap stands between families."""
    places, y, previous = {}, 0.0, None
    for row in order.itertuples():
        y += 0.0 if previous is None else 1.0 if row.family == previous else 1.5
        places[row.family, row.arm], previous = y, row.family
    return places


def _forest_panel(ax, rows, places):
    ax.axvline(0, color=PAPER_COLOUR, lw=0.8)
    for row in rows.itertuples():
        look = look_of(row.arm, row.family)
        face = look["color"] if row.p_holm < 0.05 else "white"
        errors = [[row.difference - row.difference_low], [row.difference_high - row.difference]]
        ax.errorbar(
            row.difference, places[row.family, row.arm], xerr=errors, ls="none", capsize=2, markersize=5,
            markerfacecolor=face, elinewidth=1.1, color=look["color"], marker=look["marker"],
        )  # fmt: skip
    _leave_out_of_sight(ax, rows, places)
    ax.grid(axis="y", visible=False)
    ax.locator_params(axis="x", nbins=4)


def _leave_out_of_sight(ax, rows, places):
    """Intervals far longer than those of most arms would squeeze them: the axis fits the others; an arrow and numbers tell."""
    reach = rows[["difference_low", "difference_high"]].abs().max(axis=1).sort_values()
    longer = [
        i for i in range(max(2, 3 * len(reach) // 4), len(reach)) if reach.iloc[i] >= 2.5 * reach.iloc[i - 1]
    ]
    if not longer:
        return
    edge = 1.12 * reach.iloc[longer[0] - 1]
    ax.set_xlim(-edge, edge)
    for _, row in rows.loc[reach.index[longer[0] :]].iterrows():
        y, side = places[row["family"], row["arm"]], np.sign(row["difference"]) or 1.0
        arrow = {"arrowstyle": "-|>", "color": look_of(row["arm"], row["family"])["color"], "lw": 1.1}
        ax.annotate(
            "", (side * 1.04 * edge, y), (side * 0.8 * edge, y), arrowprops=arrow, annotation_clip=False
        )
        ends = "{:.3g} [{:.3g}, {:.3g}]".format(*row[["difference", "difference_low", "difference_high"]])
        box = {"facecolor": "white", "edgecolor": "none", "pad": 0.5}
        ha = "left" if side < 0 else "right"
        ax.text(-0.04 * side * edge, y, ends.replace("-", "−"), fontsize=SMALL, ha=ha, va="center", bbox=box)


def k_curve(table):
    """What k buys: a panel a metric, k from 0 on a log(1 + k) axis, with intervals. Returns the figure.

    table: rows of `comparisons.k_table`: k, metric, value, ci_low, ci_high.
    """
    metrics = list(dict.fromkeys(table["metric"]))
    across = min(3, len(metrics))
    down = -(-len(metrics) // across)
    fig, axes = plt.subplots(
        down, across, figsize=(2.9 * across, 2.4 * down), squeeze=False, layout="constrained"
    )
    for ax, metric in zip(axes.flat, metrics, strict=False):
        _k_panel(ax, table[table["metric"] == metric].sort_values("k"))
        ax.set_title(objective_label(metric))
        ax.margins(x=0.08)
    for ax in axes.flat[len(metrics) :]:
        ax.remove()
    note_above(fig, interval_words(table))
    fig.supxlabel("k, the weight of accuracy (log(1 + k) scale); diamond: the paper's k", fontsize=9)
    return fig


def _k_panel(ax, rows):
    x = np.log1p(rows["k"])
    line = {"color": FAMILY_COLOURS["k"], "capsize": 2.5, "lw": 1.2, "elinewidth": 1, "zorder": 2}
    ax.errorbar(x, rows["value"], yerr=errors_of(rows), **line)
    for place, row in zip(x, rows.itertuples(), strict=True):
        look = look_of(row.arm, "k") | {"ls": "none", "markersize": 6, "zorder": 3}
        look.pop("label")
        ax.plot(place, row.value, **look)
    ax.set_xticks(x, [f"{k:g}" for k in rows["k"]])


def advantage_shares(shares):
    """Who owned the advantage over training: stacked shares, an arm a panel; dashes: tied groups. Returns the figure.

    shares: frame arm, label, step, term, share, as of `shares.shares`.
    """
    arms = list(dict.fromkeys(shares["arm"]))
    terms = [term for term in dict.fromkeys(shares["term"]) if term != "tied groups"]
    known = list(OBJECTIVE_LABELS)
    terms.sort(key=lambda term: known.index(term) if term in known else len(known))
    across = min(5, len(arms) if len(arms) <= 5 else -(-len(arms) // 2))
    down = -(-len(arms) // across)
    wide = min(3.0, SLIDE[0] / across)
    fig, axes = plt.subplots(
        down, across, figsize=(wide * across, 2.5 * down + 0.4), sharex=True, sharey=True, squeeze=False, layout="constrained",
    )  # fmt: skip
    for ax, arm in zip(axes.flat, arms, strict=False):
        _shares_panel(ax, shares[shares["arm"] == arm], terms)
    for ax in axes.flat[len(arms) :]:
        ax.remove()
    for ax in axes.flat[max(0, len(arms) - across) : len(arms)]:
        ax.set_xlabel("Step")
        ax.tick_params(labelbottom=True)
    fig.supylabel("Share of the advantage", fontsize=9)
    legend_below(fig, *axes.flat[: len(arms)])
    return fig


def _shares_panel(ax, own, terms):
    """One arm's shares; a term has the same colour in every panel."""
    table = own.pivot(index="step", columns="term", values="share")
    here = [term for term in terms if term in table]
    names = [objective_label(term) for term in here]
    for area, term in zip(
        ax.stackplot(table.index, table[here].fillna(0).T, labels=names), here, strict=True
    ):
        area.set(**filled(terms.index(term)))
    if "tied groups" in table:
        tied = {"color": PAPER_COLOUR, "ls": "--", "lw": 1.3, "label": "Tied groups", "path_effects": LIT}
        ax.plot(table.index, table["tied groups"], **tied)
    wide = int(ax.figure.get_figwidth() / ax.get_gridspec().ncols * 10.5)  # characters of a title
    ax.set_title(textwrap.fill(own["label"].iloc[0], wide), fontsize=9)
    ax.set(ylim=(0, 1), xlim=(table.index.min(), table.index.max()))
    ax.grid(visible=False)
