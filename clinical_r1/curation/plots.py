"""Figures of curation: one case of the clinic with the weight of every finding, and what each check has found in each set."""

import textwrap

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.patches import Patch, Rectangle

from clinical_r1.labels import BENCHMARK_LABELS, PAPER_COLOUR, WEIGHT_COLOURS
from clinical_r1.plots import ASIDE, SLIDE, SMALL, note_above

DARK = (-2, 2)  # weights whose cells are dark: their numbers are white
HUE = LinearSegmentedColormap.from_list(
    "share", ["#EAF3FA", WEIGHT_COLOURS[2]]
)  # share of a set that a check has found
SETTING_ASIDE, REPORTING = "set aside", "reported"


def case_matrix(table):
    """A case as a matrix: a finding a row, an option a column, the weight as colour and number. Returns the axes.

    table: `tables.case_table`. The right option is framed; the last row is the sum of the weights.
    """
    weights = table.pivot_table(index="wording", columns="option", values="weight", sort=False)
    options, findings = list(weights.columns), list(weights.index)
    letters = table.drop_duplicates("option").set_index("option")["letter"]
    key = table.loc[table["is_key"], "option"].iloc[0]
    wide = min(1.5, (SLIDE[0] - 3.3) / len(options))  # inches of a column
    fig, ax = plt.subplots(
        figsize=(3.2 + wide * len(options), 2.3 + 0.42 * (len(findings) + 1)), layout="constrained"
    )
    for y, finding in enumerate(findings):
        for x, option in enumerate(options):
            _cell(ax, x, y, weights.loc[finding, option])
    bottom = len(findings) + 0.3
    for x, option in enumerate(options):
        look = {
            "ha": "center",
            "va": "center",
            "fontsize": 10,
            "weight": "bold" if option == key else "normal",
        }
        ax.text(x, bottom, _signed(weights[option].sum()), **look)
    place = options.index(key)
    frame = {"fill": False, "edgecolor": PAPER_COLOUR, "linewidth": 2.2, "clip_on": False, "zorder": 4}
    ax.add_patch(Rectangle((place - 0.5, -0.5), 1, bottom + 0.9, **frame))
    _axes_of_case(ax, [(letters[option], option) for option in options], findings, place, wide)
    words = {-2: "strongly against", -1: "against", 0: "says nothing", 1: "for", 2: "strongly for"}
    handles = [
        Patch(facecolor=WEIGHT_COLOURS[w], edgecolor="#8A8A8A", label=f"{_signed(w)}  {words[w]}")
        for w in words
    ]
    fig.legend(handles=handles, loc="outside lower center", ncols=5, fontsize=SMALL + 1)
    note_above(fig, "What each stated finding says about each option; the frame marks the right one.")
    return ax


def _axes_of_case(ax, options, findings, key, wide):
    """Options (letter, name) above, findings to the left. key: place of the right option; wide: inches of a column."""
    around = int(wide * 10.5)  # characters of a line over a column
    names = [f"{letter}\n" + textwrap.fill(name, around, break_long_words=False) for letter, name in options]
    names[key] += "\n(right)"
    bottom = len(findings) + 0.3
    ax.set_xticks(range(len(options)), names, fontsize=9)
    ax.xaxis.tick_top()
    ax.set_yticks(
        [*range(len(findings)), bottom], [*(textwrap.fill(f, 34) for f in findings), "Sum"], fontsize=9
    )
    ax.set(xlim=(-0.55, len(options) - 0.45), ylim=(bottom + 0.45, -0.55))
    ax.tick_params(length=0)
    ax.grid(visible=False)
    ax.spines[:].set_visible(False)


def _cell(ax, x, y, weight):
    weight = int(weight)
    ax.add_patch(Rectangle((x - 0.47, y - 0.46), 0.94, 0.92, facecolor=WEIGHT_COLOURS[weight], lw=0))
    colour = "white" if weight in DARK else PAPER_COLOUR
    ax.text(x, y, _signed(weight), ha="center", va="center", fontsize=10, color=colour)


def _signed(number):
    return f"{number:+.0f}".replace("-", "−") if number else "0"


def checks_matrix(table):
    """What each check has found in each set: the count, coloured by its share of the set. Returns the axes.

    table: `tables.checks_table`; checks that found nothing anywhere have no row and are counted above the figure.
    """
    hits = table[table.groupby("check")["count"].transform("sum") > 0]
    checks = hits.drop_duplicates("check").sort_values(
        "action", key=lambda a: a != SETTING_ASIDE, kind="stable"
    )
    sets = list(dict.fromkeys(zip(table["benchmark"], table["split"], strict=True)))
    sizes = table.drop_duplicates(["benchmark", "split"]).set_index(["benchmark", "split"])["n"]
    fig, ax = plt.subplots(
        figsize=(3.0 + 0.95 * len(sets), 1.7 + 0.2 * max(len(checks), 4)), layout="constrained"
    )
    counts = hits.set_index(["check", "benchmark", "split"])["count"]
    for y, check in enumerate(checks["check"]):
        for x, name in enumerate(sets):
            _share(ax, x, y, counts.get((check, *name), np.nan), sizes[name])
    cut = int((checks["action"] == SETTING_ASIDE).sum())
    if 0 < cut < len(checks):
        ax.axhline(cut - 0.5, color=PAPER_COLOUR, lw=1.2)
    heads = [f"{BENCHMARK_LABELS.get(b, b)}\n{split}\n{sizes[b, split]:,}" for b, split in sets]
    ax.set_xticks(range(len(sets)), heads, fontsize=SMALL)
    ax.xaxis.tick_top()
    named = [f"{row.check.replace('_', ' ')}  ({row.action})" for row in checks.itertuples()]
    ax.set_yticks(range(len(checks)), named, fontsize=SMALL)
    ax.set(xlim=(-0.5, len(sets) - 0.5), ylim=(max(len(checks), 1) - 0.5, -0.5))
    ax.tick_params(length=0)
    ax.grid(visible=False)
    ax.spines[:].set_visible(False)
    silent = table["check"].nunique() - len(checks)
    words = "Questions that a check has found; darker: a larger share of the set. A dash: not looked for."
    note_above(fig, f"{words} {silent} check{'s' * (silent != 1)} found none.")
    return ax


def _share(ax, x, y, count, size):
    if np.isnan(count):
        ax.text(x, y, "–", ha="center", va="center", fontsize=SMALL, color=ASIDE)
        return
    share = count / size if size else 0.0
    if count:
        ax.add_patch(
            Rectangle((x - 0.48, y - 0.45), 0.96, 0.9, facecolor=HUE(min(1.0, np.sqrt(share))), lw=0)
        )
    look = {
        "ha": "center",
        "va": "center",
        "fontsize": SMALL,
        "color": "white" if share > 0.4 else PAPER_COLOUR,
    }
    ax.text(x, y, f"{count:,.0f}", **look)
