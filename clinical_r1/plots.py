"""One style, one way to save, one function per figure. Draws tidy tables; intervals are computed elsewhere.

A method has one colour and one marker in every figure (Okabe-Ito palette, safe for colour blindness).
"""

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

from clinical_r1.arms import METHODS
from clinical_r1.files import replacing
from clinical_r1.labels import BENCHMARK_LABELS, METHOD_LABELS, OBJECTIVE_LABELS, objective_label

METHOD_COLOURS = dict(zip(METHODS, ("#6E6E6E", "#0072B2", "#D55E00", "#56B4E9", "#E69F00"), strict=True))
METHOD_MARKERS = dict(zip(METHODS, "osD^v", strict=True))
# Arms and models that a user brings, in the order of the own file; what repeats differs in its marker
OWN_COLOURS = ("#009E73", "#CC79A7", "#8C564B", "#332288")
OWN_MARKERS = "PX*<>"
RADAR_METRICS = tuple(OBJECTIVE_LABELS)[:9]

# Arms of the laboratory that are none of the five methods: one colour and one marker a family
REWARD_COLOURS = ("#0072B2", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#6E6E6E")
PAPER_COLOUR = "#222222"


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
            "lines.linewidth": 1.6,
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
    name as centre → rim. Hallucination is turned round: outwards is fewer.
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
        centre, rim = ranges[metric]
        turned = "\n(inverted: outer = fewer)" if metric == "hallucination" else ""
        side = "center" if abs(np.sin(angle)) < 0.2 else "left" if np.sin(angle) > 0 else "right"
        text = f"{OBJECTIVE_LABELS[metric]}\n{centre:g} → {rim:g}{turned}"
        ax.text(angle, 1.1, text, ha=side, va="center", fontsize=8.5, linespacing=1.3)
    ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.17), ncols=3)
    note = "Mean over the benchmarks. Under each name: value at the centre → at the rim. All counts share one scale."
    ax.text(0.5, -0.13, note, transform=ax.transAxes, ha="center", va="top", fontsize=8, color="#555555")
    return ax


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

    The paper's number is a hollow marker, and only where the benchmark is the paper's own.
    """
    rows = table[table["metric"] == "accuracy"]
    names, methods = methods, [method for method in methods if method in set(rows["method"])]
    if not methods:
        raise ValueError(
            f"the table has accuracies of {sorted(set(rows['method']))}; expected some of {names}."
        )
    benchmarks = list(dict.fromkeys(rows["benchmark"]))
    ax = ax or plt.subplots(figsize=(1.6 + 2.1 * len(benchmarks), 3.6))[1]
    width, highest = 0.8 / len(methods), 1.0
    for i, method in enumerate(methods):
        own = rows[rows["method"] == method].set_index("benchmark").reindex(benchmarks)
        x = np.arange(len(benchmarks)) + (i - (len(methods) - 1) / 2) * width
        ax.bar(x, own["value"], 0.92 * width, color=look_of(method)["color"], label=METHOD_LABELS[method])
        errors = np.fmax([own["value"] - own["ci_low"], own["ci_high"] - own["value"]], 0)
        ax.errorbar(x, own["value"], yerr=errors, fmt="none", ecolor="#222222", elinewidth=1, capsize=2.5)
        stand_in = own["verdict"].astype(str).str.startswith("not comparable")
        printed = own["paper_value"].where(~stand_in).astype(float)
        _printed_markers(ax, x, printed)
        tops = np.fmax(own[["value", "ci_high"]].max(axis=1), printed)
        highest = np.fmax(highest, np.fmax.reduce(tops.to_numpy()))
        for left, value, top in zip(x, own["value"], tops, strict=True):
            if np.isfinite(value):
                place = {"xytext": (0, 4), "textcoords": "offset points", "ha": "center"}
                ax.annotate(f"{value:.1f}", (left, top), fontsize=7.5, **place)
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
        ax.hlines(
            level, centre - 0.45, centre + 0.45, colors=PAPER_COLOUR, ls="--", lw=1.2, label=label, zorder=3
        )


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
    without a column (GRPO has no clinical-reasoning reward) is absent from that panel. Returns the figure.
    """
    missing = [column for column in columns if column not in logs]
    if missing or not columns:
        raise ValueError(f"the logs lack {missing}; expected some of {sorted(logs.columns)}.")
    across = min(3, len(columns))
    down = -(-len(columns) // across)
    fig, axes = plt.subplots(
        down, across, figsize=(3.0 * across, 2.5 * down), squeeze=False, layout="constrained"
    )
    for ax, column in zip(axes.flat, columns, strict=False):
        _seed_lines(ax, logs, column, window)
        ax.set_title(objective_label(column))
    for ax in axes.flat[len(columns) :]:
        ax.remove()
    for ax in axes.flat[max(0, len(columns) - across) : len(columns)]:
        ax.set_xlabel(f"Step (mean of the last {window})" if window > 1 else "Step")
    legend_below(fig, *axes.flat[: len(columns)])
    return fig


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
    ax = ax or plt.subplots(figsize=(7.2, 0.8 + (0.13 * len(names) + 0.08) * len(completions)))[1]
    height = 0.8 / len(names)
    for i, name in enumerate(names):
        y = np.arange(len(completions)) + (i - (len(names) - 1) / 2) * height
        values = table.loc[completions, name].to_numpy()
        colour = REWARD_COLOURS[i % len(REWARD_COLOURS)]
        ax.barh(y, np.nan_to_num(values), 0.9 * height, color=colour, label=objective_label(name))
        for place, value in zip(y, values, strict=True):
            text = "unscorable" if np.isnan(value) else f"{value:.3g}"
            side = {"xytext": (-3, 0), "ha": "right"} if value < 0 else {"xytext": (3, 0), "ha": "left"}
            side |= {"textcoords": "offset points", "va": "center"}
            ax.annotate(text, (np.nan_to_num(value), place), fontsize=7.5, **side)
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


def look_of(method):
    """Colour and marker of a method, the same in every figure."""
    if method in METHOD_COLOURS:
        colour, marker = METHOD_COLOURS[method], METHOD_MARKERS[method]
    else:
        place = [name for name in METHOD_LABELS if name not in METHOD_COLOURS].index(method)
        colour, marker = OWN_COLOURS[place % len(OWN_COLOURS)], OWN_MARKERS[place % len(OWN_MARKERS)]
    return {"color": colour, "marker": marker, "label": METHOD_LABELS[method]}


def legend_below(fig, *axes):
    """One legend for all panels, under the figure, each entry once."""
    entries = {}
    for ax in axes:
        entries |= {label: handle for handle, label in zip(*ax.get_legend_handles_labels(), strict=True)}
    if fig.get_layout_engine() is None:
        axes[0].legend(entries.values(), entries.keys(), loc="upper left", bbox_to_anchor=(1.02, 1.0))
    else:
        fig.legend(entries.values(), entries.keys(), loc="outside lower center", ncols=min(5, len(entries)))
