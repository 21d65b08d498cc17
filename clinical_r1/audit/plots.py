"""Figures of the audit: denominators, printed accuracies, Figure 1 in two readings, owners of the advantage."""

import matplotlib.pyplot as plt
import numpy as np

from clinical_r1.labels import BENCHMARK_LABELS, METHOD_LABELS, PAPER_COLOUR, REWARD_COLOURS
from clinical_r1.paper import N_QUESTIONS, SIZE_NOT_PRINTED
from clinical_r1.plots import SMALL, filled, legend_below, look_of, present


def audit_denominators(fits):
    """Which denominators would make the printed accuracies k / n. Returns the figure.

    fits: frame benchmark, method, dropped (questions left out of the official test set), fits (bool). A mark is a
    denominator that works; the official test set is the shaded column at 0.
    """
    benchmarks, methods = list(dict.fromkeys(fits["benchmark"])), present(fits["method"])
    size = (1.2 + 2.6 * len(benchmarks), 0.9 + 0.32 * len(methods))
    fig, axes = plt.subplots(
        1, len(benchmarks), figsize=size, sharey=True, squeeze=False, layout="constrained"
    )
    for ax, benchmark in zip(axes.flat, benchmarks, strict=True):
        rows = fits[fits["benchmark"] == benchmark]
        ax.axvspan(-0.5, 0.5, color="#E4E4E4", lw=0)
        for y, method in enumerate(methods):
            works = rows.loc[(rows["method"] == method) & rows["fits"], "dropped"]
            ax.plot(works, np.full(len(works), y), ls="none", markersize=3.5, **look_of(method))
        ax.set(title=_named(benchmark), xlim=(-1.5, rows["dropped"].max() + 1))
        ax.set_ylim(len(methods) - 0.5, -0.5)
        ax.grid(axis="x", visible=False)
    axes[0, 0].set_yticks(range(len(methods)), [METHOD_LABELS[method] for method in methods])
    fig.supxlabel("Questions left out of the denominator (0: the official test set)", fontsize=9)
    return fig


def audit_accuracies(intervals, guesses, ax=None):
    """The printed accuracies with the intervals that n implies, and two guessers. Returns the axes.

    intervals: benchmark, method, printed, ci_low, ci_high; guesses: benchmark, chance, majority_letter; per cent.
    """
    benchmarks, methods = list(dict.fromkeys(intervals["benchmark"])), present(intervals["method"])
    ax = ax or plt.subplots(figsize=(1.6 + 2.0 * len(benchmarks), 3.6))[1]
    for i, method in enumerate(methods):
        own = intervals[intervals["method"] == method].set_index("benchmark").loc[benchmarks]
        x = np.arange(len(benchmarks)) + 0.15 * (i - (len(methods) - 1) / 2)
        errors = [own["printed"] - own["ci_low"], own["ci_high"] - own["printed"]]
        ax.errorbar(x, own["printed"], yerr=errors, ls="none", capsize=2.5, markersize=5, **look_of(method))
    guesses = guesses.set_index("benchmark").loc[benchmarks]
    for column, style, label in (("chance", "--", "Chance"), ("majority_letter", ":", "Majority letter")):
        place = np.arange(len(benchmarks))
        ax.hlines(
            guesses[column], place - 0.45, place + 0.45, colors=PAPER_COLOUR, ls=style, lw=1.2, label=label
        )
    ax.set_xticks(range(len(benchmarks)), list(map(_named, benchmarks)))
    ax.set(ylabel="Printed accuracy (%), Wilson 95 %", ylim=(0, None))
    ax.grid(axis="x", visible=False)
    ax.legend(loc="upper left", bbox_to_anchor=(1.02, 1.0))
    return ax


def _named(benchmark):
    """A benchmark's label, with the size that we had to suppose where the paper prints none."""
    label = BENCHMARK_LABELS[benchmark]
    return f"{label}, if n = {N_QUESTIONS[benchmark]:,}" if benchmark in SIZE_NOT_PRINTED else label


def audit_figure1(readings):
    """The hallucination axis of Figure 1 in two readings, outwards to the right. Returns the figure.

    readings: frame reading, method, value, rank (1 = farthest out).
    """
    names, methods = list(dict.fromkeys(readings["reading"])), present(readings["method"])
    fig, axes = plt.subplots(
        1, len(names), figsize=(3.6 * len(names), 2.4), sharey=True, squeeze=False, layout="constrained"
    )
    for ax, name in zip(axes.flat, names, strict=True):
        rows = readings[readings["reading"] == name].set_index("method")
        for y, method in enumerate(methods):
            value, place = rows.loc[method, "value"], int(rows.loc[method, "rank"])
            ax.plot(value, y, ls="none", markersize=7, **look_of(method))
            ax.annotate(
                str(place), (value, y), xytext=(0, 6), textcoords="offset points", ha="center", fontsize=8
            )
        ax.set(title=name, xlabel="centre  →  rim")
        ax.margins(x=0.1)
        ax.locator_params(axis="x", nbins=5)
        ax.set_ylim(len(methods) - 0.5, -0.7)
    axes[0, 0].set_yticks(range(len(methods)), [METHOD_LABELS[method] for method in methods])
    return fig


def audit_rewards(owners, sweep):
    """Correlation of the advantage with each reward term: by prompt difficulty, and by k. Returns the figure.

    owners: frame difficulty, tied, n and one column a term; sweep: k, groups ("mixed" | "tied"), share, n and the
    same columns. A term that never varies has no bar and no line.
    """
    terms = [column for column in owners if column not in ("difficulty", "tied", "n")]
    fig, (left, right) = plt.subplots(1, 2, figsize=(9.6, 3.6), layout="constrained", width_ratios=(1.25, 1))
    height = 0.8 / len(terms)
    for i, term in enumerate(terms):
        y = np.arange(len(owners)) + (i - (len(terms) - 1) / 2) * height
        left.barh(y, owners[term], 0.9 * height, label=term.capitalize(), **filled(i))
        for place, value in zip(y, owners[term], strict=True):
            text = "constant" if np.isnan(value) else f"{round(value, 2) + 0:.2f}"  # + 0: no "-0.00"
            at = (max(0.0, np.nan_to_num(value)), place)
            left.annotate(text, at, xytext=(3, 0), textcoords="offset points", va="center", fontsize=SMALL)
        for groups, style in (("mixed", "-"), ("tied", "--")):
            rows = sweep[sweep["groups"] == groups]
            right.plot(
                range(len(rows)), rows[term], ls=style, marker="osD"[i % 3], ms=5, color=REWARD_COLOURS[i]
            )
    names = [f"{row.difficulty}\n{row.tied:.0%} tied groups" for row in owners.itertuples()]
    left.set_yticks(range(len(owners)), names)
    left.invert_yaxis()
    left.set(title="By prompt difficulty, k = 10", xlabel="Correlation with the advantage", xlim=(0, 1.1))
    left.grid(axis="y", visible=False)
    ks = list(dict.fromkeys(sweep["k"]))
    right.set_xticks(range(len(ks)), [f"{k:g}" for k in ks])
    right.set(title="By k (dashes: tied groups)", xlabel="k", ylim=(-0.05, 1.05))
    legend_below(fig, left)
    return fig
