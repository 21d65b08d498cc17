"""One style, one way to save, one function per figure. Draws tidy tables; intervals are computed elsewhere.

Every figure fits a slide and is read there at its own size. Colours are `labels`', and each is doubled by a marker or a hatch.
"""

import textwrap
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from matplotlib import patheffects

from clinical_r1.arms import METHODS
from clinical_r1.files import replacing
from clinical_r1.labels import (
    BENCHMARK_LABELS,
    FAMILY_COLOURS,
    FAMILY_MARKERS,
    METHOD_COLOURS,
    METHOD_HATCHES,
    METHOD_LABELS,
    METHOD_MARKERS,
    OBJECTIVE_LABELS,
    OWN_COLOURS,
    OWN_HATCHES,
    OWN_MARKERS,
    PAPER_COLOUR,
    REWARD_COLOURS,
    REWARD_HATCHES,
    family_label,
    objective_label,
)

RADAR_METRICS = tuple(OBJECTIVE_LABELS)[:9]
NO_SIGNAL = 0.02  # of an axis of the radar: below it no line can be told from the centre
# A figure stands on a slide (13.3 x 7.5 inches) at its own size if it is no larger than this; no text is smaller than SMALL
SLIDE = (12.5, 6.7)
SMALL = 8
ASIDE = "#555555"  # the colour of notes
LIT = [patheffects.withStroke(linewidth=2.6, foreground="white")]  # seen on any colour


def set_style():
    """Matplotlib's own defaults, whatever a matplotlibrc says, then ours: small serifless text, light grid, no box."""
    plt.rcdefaults()
    plt.rcParams.update(
        {
            "figure.dpi": 100,
            "font.size": 9,
            "axes.titlesize": 10,
            "axes.titlelocation": "left",
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.grid": True,
            "axes.axisbelow": True,
            "grid.color": "#E4E4E4",
            "grid.linewidth": 0.7,
            "legend.frameon": False,
            "hatch.linewidth": 0.6,
            "lines.linewidth": 1.6,
            "text.parse_math": False,  # a $ in a reader's label is a $
        }
    )


def save_figure(fig, name, directory, data=None):
    """Write <name>.png (150 dpi), <name>.pdf and, with `data` (a frame), <name>.csv; return the paths.

    Each file appears whole or not at all, and carries no time stamp: the same figure gives the same bytes.
    """
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    layout = {"bbox_inches": "tight", "pad_inches": 0.1}
    writers = {
        "png": lambda path: fig.savefig(path, format="png", dpi=150, metadata={"Software": None}, **layout),
        "pdf": lambda path: fig.savefig(path, format="pdf", metadata={"CreationDate": None}, **layout),
    }
    if data is not None:
        writers["csv"] = lambda path: data.to_csv(path, index=False, lineterminator="\n")
    paths = []
    for suffix, write in writers.items():
        path = directory / f"{name}.{suffix}"
        with replacing(path) as unfinished:
            write(unfinished)
        paths.append(path)
    return paths


# --- results


def fig1_radar(table, ax=None):
    """Radar of the nine metrics averaged over the benchmarks (the paper's Fig. 1). Returns the axes.

    table: benchmark, method, metric, value (accuracy in per cent). All counts have one scale, from 0 to the rim, so that a
    hundredth of a count a response looks as small as it is; accuracy has 0 to 100 %. Each range is printed under its
    name as centre → rim. A count of which no method has NO_SIGNAL of the rim is grey and named so, with its largest value.
    Hallucination is turned round: outwards is fewer.
    """
    means = table[table["metric"].isin(RADAR_METRICS)].groupby(["method", "metric"])["value"].mean().unstack()
    methods, metrics = present(means.index), [m for m in RADAR_METRICS if m in means]
    if len(metrics) < 3:
        raise ValueError(f"fig1_radar got the metrics {metrics}; expected at least three of {RADAR_METRICS}.")
    counts = [metric for metric in metrics if metric != "accuracy"]
    rim = max(0.5, np.ceil(2 * means.loc[methods, counts].max(axis=None)) / 2)
    ranges = dict.fromkeys(counts, (0.0, rim)) | {"accuracy": (0.0, 100.0), "hallucination": (rim, 0.0)}
    angles = np.linspace(0, 2 * np.pi, len(metrics), endpoint=False)
    ax = ax or plt.figure(figsize=(7.2, 5.6)).add_subplot(projection="polar")
    ax.set(
        theta_offset=np.pi / 2, theta_direction=-1, ylim=(0, 1), yticks=[0.25, 0.5, 0.75, 1.0], xticks=angles
    )
    ax.tick_params(labelleft=False, labelbottom=False)
    ax.spines["polar"].set_color("#C8C8C8")
    for method in methods:
        radii = [(means.loc[method, m] - ranges[m][0]) / (ranges[m][1] - ranges[m][0]) for m in metrics]
        ax.plot([*angles, angles[0]], [*radii, radii[0]], **look_of(method), markersize=4)
    for angle, metric in zip(angles, metrics, strict=True):
        _radar_label(ax, angle, metric, ranges[metric], means.loc[methods, metric].max())
    ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.17), ncols=3)
    note = "Mean over the benchmarks. Under each name: value at the centre → at the rim. All counts share one scale."
    ax.text(0.5, -0.13, note, transform=ax.transAxes, ha="center", va="top", fontsize=SMALL, color=ASIDE)
    return ax


def _radar_label(ax, angle, metric, ends, largest):
    """The name and range of an axis of the radar; an axis without a signal is dotted, grey and says so."""
    text, look = f"{OBJECTIVE_LABELS[metric]}\n{ends[0]:g} → {ends[1]:g}", {"fontsize": 8.5}
    if metric == "hallucination":
        text += "\n(inverted: outer = fewer)"
    elif largest < NO_SIGNAL * ends[1]:
        text += f"\nno signal: at most {largest:.2g}"
        look |= {"color": "#767676", "style": "italic"}
        ax.plot([angle, angle], [0, 1], color="#767676", ls=":", lw=1, zorder=1)
    side = "center" if abs(np.sin(angle)) < 0.2 else "left" if np.sin(angle) > 0 else "right"
    ax.text(angle, 1.1, text, ha=side, va="center", linespacing=1.3, **look)


def fig3_cold_start_accuracy(table, ax=None):
    """Accuracy of GRPO and CRPO, each beside its cold-started counterpart (Fig. 3), and of own arms. Returns the axes."""
    return _accuracy_bars(table, ("grpo", "cold_start_grpo", "crpo", "cold_start_crpo", *_own(table)), ax)


def fig4_accuracy(table, ax=None):
    """Accuracy of the baseline, GRPO and CRPO (Fig. 4), and of own arms. Returns the axes."""
    return _accuracy_bars(table, ("baseline", "grpo", "crpo", *_own(table)), ax)


def _own(table):
    """Arms and models of the table that the user brought."""
    return [method for method in METHOD_LABELS if method not in METHODS and method in set(table["method"])]


def _accuracy_bars(table, methods, ax):
    """Bars with 95 % intervals per benchmark and the chance level; table: rows of `metrics.table1`.

    The paper's number is a hollow marker, and only where the benchmark is the paper's own. What was not run has no bar, but
    the words "not run", in its place or, without any row, above the figure.
    """
    rows = table[table["metric"] == "accuracy"]
    names, methods = methods, [method for method in methods if method in set(rows["method"])]
    if not methods:
        raise ValueError(
            f"the table has accuracies of {sorted(set(rows['method']))}; expected some of {names}."
        )
    benchmarks = list(dict.fromkeys(rows["benchmark"]))
    each = max(2.1, 0.45 * len(methods) + 0.3)  # inches: wide enough for the number over each bar
    ax = ax or plt.subplots(figsize=(1.6 + each * len(benchmarks), 3.6))[1]
    width, highest = 0.8 / len(methods), 1.0
    for i, method in enumerate(methods):
        own = rows[rows["method"] == method].set_index("benchmark").reindex(benchmarks)
        x = np.arange(len(benchmarks)) + (i - (len(methods) - 1) / 2) * width
        ax.bar(x, own["value"], 0.92 * width, label=METHOD_LABELS[method], **filled(method))
        errors = np.fmax([own["value"] - own["ci_low"], own["ci_high"] - own["value"]], 0)
        ax.errorbar(x, own["value"], yerr=errors, fmt="none", ecolor="#222222", elinewidth=1, capsize=2.5)
        stand_in = own["verdict"].astype(str).str.startswith("not comparable")
        printed = own["paper_value"].where(~stand_in).astype(float)
        _printed_markers(ax, x, printed)
        tops = np.fmax(own[["value", "ci_high"]].max(axis=1), printed)
        highest = np.fmax(highest, np.fmax.reduce(tops.to_numpy()))
        for left, value, top in zip(x, own["value"], tops, strict=True):
            place = {"xytext": (0, 4), "textcoords": "offset points", "ha": "center", "fontsize": SMALL}
            if np.isfinite(value):
                ax.annotate(f"{value:.1f}", (left, top), **place)
            else:
                ax.annotate("not run", (left, 0), rotation=90, color=ASIDE, **place)
    _say_aside(ax, interval_words(rows[rows["method"].isin(methods)]), [m for m in names if m not in methods])
    _chance_lines(ax, rows, benchmarks)
    highest = max([highest, *rows.loc[rows["method"] == "chance", "value"]])
    ax.set_xticks(range(len(benchmarks)), [BENCHMARK_LABELS.get(name, name) for name in benchmarks])
    ax.set(ylabel="Accuracy (%), unparsed = wrong", ylim=(0, 1.1 * highest))
    ax.grid(axis="x", visible=False)
    handles, labels = ax.get_legend_handles_labels()
    order = sorted(range(len(labels)), key=lambda i: labels[i] not in METHOD_LABELS.values())
    place = {"loc": "upper center", "bbox_to_anchor": (0.5, -0.1), "ncols": 3 if len(labels) > 4 else 4}
    ax.legend([handles[i] for i in order], [labels[i] for i in order], **place)
    return ax


def interval_words(rows):
    """What the intervals cover, as the table names it."""
    kinds = list(dict.fromkeys(rows["interval"].dropna())) if "interval" in rows else []
    return "Thin lines: 95 % intervals" + (f" ({'; '.join(kinds)})" if kinds else "")


def _say_aside(ax, words, not_run):
    """A small note above the axes, and what was not run."""
    missing = f"Not run: {', '.join(METHOD_LABELS[name] for name in not_run)}" if not_run else ""
    width = int(ax.get_window_extent().width / ax.figure.dpi * 15)  # characters of SMALL text in a line
    lines = [textwrap.fill(line, width) for line in (words, missing) if line]
    ax.set_title("\n".join(lines), fontsize=SMALL, color=ASIDE)


def _printed_markers(ax, x, printed):
    if printed.notna().any():
        label = (
            None if "Printed in the paper" in ax.get_legend_handles_labels()[1] else "Printed in the paper"
        )
        hollow = {"facecolor": "white", "edgecolor": PAPER_COLOUR, "linewidth": 1.2}
        ax.scatter(x, printed, s=34, marker="D", label=label, zorder=4, **hollow)


def _chance_lines(ax, rows, benchmarks):
    chance = rows[rows["method"] == "chance"].set_index("benchmark")["value"].reindex(benchmarks).dropna()
    for i, (benchmark, level) in enumerate(chance.items()):
        centre, label = benchmarks.index(benchmark), "Chance" if i == 0 else None
        line = {"colors": PAPER_COLOUR, "ls": "--", "lw": 1.2, "label": label, "zorder": 3}
        ax.hlines(level, centre - 0.45, centre + 0.45, path_effects=LIT, **line)


# --- training


def fig5_response_length(logs, paper_curve=None, ax=None):
    """Mean completion length per step, a band from lowest to highest seed (Fig. 5). Returns the figure.

    logs: method, seed, step, completions/mean_length. paper_curve: frame step, mean_response_length; it gets
    a panel of its own (another model, other questions, other axes), unless `ax` is given.
    """
    column = "completions/mean_length"
    if ax is not None or paper_curve is None:
        ax = ax or plt.subplots(figsize=(6.4, 3.4))[1]
    else:
        fig, (ax, right) = plt.subplots(1, 2, figsize=(8.4, 3.4), layout="constrained")
        right.plot(paper_curve["step"], paper_curve["mean_response_length"], color=PAPER_COLOUR, lw=1.2)
        right.set(
            title="Printed in the paper: CRPO, 3B, MedQA", xlabel="Step", ylabel="Response length (tokens)"
        )
        right.set_ylim(0, None)
    _seed_lines(ax, logs, column, window=1)
    ax.set(title="This run", xlabel="Step", ylabel=OBJECTIVE_LABELS[column])
    ax.set_ylim(0, None)
    legend_below(ax.figure, ax)
    return ax.figure


def training_curves(logs, columns, window=10):
    """One panel per objective, one line per arm: mean of the last `window` steps, band over seeds.

    logs: method, seed, step and the trainer's columns, such as "rewards/accuracy_reward/mean" or "kl". An arm
    without a column (GRPO has no clinical-reasoning reward) is absent from that panel, which says so. A panel spans at least
    a tenth of its mean value, so that noise in the third digit does not look like learning. Returns the figure.
    """
    missing = [column for column in columns if column not in logs]
    if missing or not columns:
        raise ValueError(f"the logs lack {missing}; expected some of {sorted(logs.columns)}.")
    across = min(3 if len(columns) <= 6 else 4, len(columns))
    down = -(-len(columns) // across)
    fig, axes = plt.subplots(
        down, across, figsize=(3.0 * across, 2.5 * down), squeeze=False, layout="constrained"
    )
    for ax, column in zip(axes.flat, columns, strict=False):
        _seed_lines(ax, logs, column, window)
        absent = [m for m in present(logs["method"]) if logs.loc[logs["method"] == m, column].isna().all()]
        ax.set_title(objective_label(column))
        if absent:
            words = textwrap.fill(f"not in {', '.join(METHOD_LABELS[method] for method in absent)}", 34)
            place = {"xytext": (3, 3), "textcoords": "offset points", "va": "bottom"}
            ax.annotate(words, (0, 0), xycoords="axes fraction", fontsize=SMALL, color=ASIDE, **place)
            low, high = ax.get_ylim()
            ax.set_ylim(low - 0.12 * (words.count("\n") + 1) * (high - low), high)
        _widen(ax, logs[column].mean())
    for ax in axes.flat[len(columns) :]:
        ax.remove()
    for ax in axes.flat[max(0, len(columns) - across) : len(columns)]:
        ax.set_xlabel(f"Step (mean of the last {window})" if window > 1 else "Step")
    if logs["seed"].nunique() > 1:
        note_above(fig, "Line: mean over seeds. Band: from the lowest to the highest seed.")
    legend_below(fig, *axes.flat[: len(columns)])
    return fig


def _widen(ax, mean, share=0.1):
    """Stretch no axis over less than a share of the mean value; 0 stays where it is."""
    low, high = ax.get_ylim()
    missing = share * abs(mean) - (high - low)
    if missing > 0:
        ax.set_ylim(low - missing / 2, high + missing / 2)


def _seed_lines(ax, logs, column, window):
    for method in present(logs["method"]):
        rows = logs[(logs["method"] == method) & logs[column].notna()]
        if rows.empty:
            continue
        curves = rows.pivot_table(index="step", columns="seed", values=column, aggfunc="last")
        curves = curves.rolling(window, min_periods=1).mean()
        look = look_of(method)
        ax.plot(curves.index, curves.mean(axis=1), markevery=max(1, len(curves) // 6), markersize=4, **look)
        if curves.shape[1] > 1:
            ax.fill_between(
                curves.index, curves.min(axis=1), curves.max(axis=1), color=look["color"], alpha=0.18, lw=0
            )


# --- rewards


def reward_bars(rewards, ax=None):
    """Grouped bars: what each reward gives a few named completions. Returns the axes.

    rewards: tidy frame completion, reward, value, in the order to be drawn. A missing value is written
    "unscorable", because it is not a zero.
    """
    completions, names = list(dict.fromkeys(rewards["completion"])), list(dict.fromkeys(rewards["reward"]))
    table = rewards.pivot(index="completion", columns="reward", values="value").astype(float)
    tall = min(SLIDE[1] - 0.8, 0.8 + (0.145 * len(names) + 0.08) * len(completions))
    ax = ax or plt.subplots(figsize=(7.2, tall))[1]
    height = 0.8 / len(names)
    for i, name in enumerate(names):
        y = np.arange(len(completions)) + (i - (len(names) - 1) / 2) * height
        values = table.loc[completions, name].to_numpy()
        ax.barh(y, np.nan_to_num(values), 0.9 * height, label=objective_label(name), **filled(i))
        for place, value in zip(y, values, strict=True):
            text = "unscorable" if np.isnan(value) else f"{value:.3g}"
            side = {"xytext": (-3, 0), "ha": "right"} if value < 0 else {"xytext": (3, 0), "ha": "left"}
            side |= {"textcoords": "offset points", "va": "center"}
            ax.annotate(text, (np.nan_to_num(value), place), fontsize=SMALL, **side)
    ax.set_yticks(range(len(completions)), completions)
    ax.invert_yaxis()
    ax.margins(x=0.12)
    ax.axvline(0, color="#222222", lw=0.8)
    ax.grid(axis="y", visible=False)
    ax.set_xlabel("Reward")
    legend_below(ax.figure, ax)
    return ax


# --- shared


def present(methods):
    """The methods that occur, in the paper's order, and after them a user's own arms."""
    present = [method for method in METHOD_LABELS if method in set(methods)]
    if not present:
        raise ValueError(f"got the methods {sorted(set(methods))}; expected some of {tuple(METHOD_LABELS)}.")
    return present


def look_of(arm, family=None):
    """Colour, marker and label of an arm, the same in every figure: a method's or a user's own, else those of its family."""
    if arm in METHOD_COLOURS:
        colour, marker, label = METHOD_COLOURS[arm], METHOD_MARKERS[arm], METHOD_LABELS[arm]
    elif family is not None:
        colour, marker = FAMILY_COLOURS.get(family, PAPER_COLOUR), FAMILY_MARKERS.get(family, "o")
        label = family_label(family)
    else:
        place = _own_place(arm)
        colour, marker = OWN_COLOURS[place % len(OWN_COLOURS)], OWN_MARKERS[place % len(OWN_MARKERS)]
        label = METHOD_LABELS[arm]
    return {"color": colour, "marker": marker, "label": label}


def filled(what):
    """Colour and hatch of a bar or an area: of a method, or of the i-th term of a reward."""
    if isinstance(what, int):
        colour = REWARD_COLOURS[what % len(REWARD_COLOURS)]
        hatch = REWARD_HATCHES[what % len(REWARD_HATCHES)]
    else:
        colour = look_of(what)["color"]
        hatch = (
            METHOD_HATCHES[what]
            if what in METHOD_HATCHES
            else OWN_HATCHES[_own_place(what) % len(OWN_HATCHES)]
        )
    return {"facecolor": colour, "hatch": hatch, "edgecolor": "white", "linewidth": 0}


def _own_place(arm):
    """Where a user's own arm stands among them."""
    return [name for name in METHOD_LABELS if name not in METHOD_COLOURS].index(arm)


def errors_of(rows, column="value"):
    """(2, n) distances from the value down and up to the ends of its interval; NaN without one."""
    low, high = rows[column] - rows["ci_low"], rows["ci_high"] - rows[column]
    return [low.clip(lower=0), high.clip(lower=0)]


def legend_below(fig, *axes):
    """One legend for all panels, under the figure, each entry once; beside it where no layout engine makes room."""
    handles, labels = _entries(axes)
    if fig.get_layout_engine() is None:
        axes[0].legend(handles, labels, loc="upper left", bbox_to_anchor=(1.02, 1.0))
    else:
        fig.legend(
            handles,
            labels,
            loc="outside lower center",
            ncols=min(len(labels), max(1, int(fig.get_figwidth() / 2))),
        )


def legend_beside(fig, *axes):
    """One legend for all panels, to their right, each entry once."""
    fig.legend(*_entries(axes), loc="outside right upper", labelspacing=0.7)


def _entries(axes):
    entries = {}
    for ax in axes:
        entries |= {label: handle for handle, label in zip(*ax.get_legend_handles_labels(), strict=True)}
    known = list(METHOD_LABELS.values())
    labels = sorted(entries, key=lambda label: known.index(label) if label in known else len(known))
    return [entries[label] for label in labels], labels


def note_above(fig, text):
    """A small note over all panels: what lines, marks and brackets mean."""
    width = int(fig.get_figwidth() * 16)  # characters of SMALL text in a line
    look = {"fontsize": SMALL, "color": ASIDE, "x": 0.01, "ha": "left", "linespacing": 1.3}
    fig.suptitle(textwrap.fill(text, width), **look)
