"""One style, one way to save, one function per figure. Draws tidy tables; intervals are computed elsewhere.

A method has one colour and one marker in every figure (Okabe-Ito palette, safe for colour blindness).
"""

import os
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.text import Text

from clinical_r1.settings import METHODS

METHOD_LABELS = dict(
    zip(METHODS, ("Baseline", "GRPO", "CRPO", "Cold Start + GRPO", "Cold Start + CRPO"), strict=True)
)
METHOD_COLOURS = dict(zip(METHODS, ("#6E6E6E", "#0072B2", "#D55E00", "#56B4E9", "#E69F00"), strict=True))
METHOD_MARKERS = dict(zip(METHODS, "osD^v", strict=True))
BENCHMARK_LABELS = {
    "clinic": "clinic",
    "clinic-shift": "clinic-shift",
    "clinic-expert": "clinic-expert",
    "medqa": "MedQA",
    "medmcqa": "MedMCQA",
    "medxpertqa": "MedXpertQA",
}
OBJECTIVE_LABELS = {
    "backtracking": "Backtracking",
    "backward_chaining": "Backward chaining",
    "subgoal_setting": "Subgoal setting",
    "verification": "Verification",
    "faithfulness": "Faithfulness",
    "cecd": "CECD",
    "drc": "DRC",
    "hallucination": "Hallucination ↓",
    "accuracy": "Accuracy (%)",
    "reward": "Total reward",
    "accuracy_reward": "Accuracy reward",
    "thinking_format_reward": "Thinking-format reward",
    "clinical_reasoning_reward": "Clinical-reasoning reward",
    "consistency_reward": "Consistency reward",
    "kl": "KL to the reference",
    "entropy": "Entropy",
    "completions/mean_length": "Completion length (tokens)",
}
RADAR_METRICS = tuple(OBJECTIVE_LABELS)[:9]
# Arms of the laboratory that are none of the five methods: one colour and one marker a family
FAMILY_COLOURS = {
    "k": "#009E73",
    "terms": "#CC79A7",
    "citation": "#882255",
    "consistency": "#AA9A00",
    "prompt_x_reward": "#332288",
    "group_size": "#44AA99",
    "aggregator": "#117733",
    "kl": "#661100",
    "grounded": "#A6761D",
    "cold_start": "#56B4E9",
}
FAMILY_MARKERS = dict(zip(FAMILY_COLOURS, "PXhp<>*d8^", strict=True))
FAMILY_LABELS = {
    "k": "Weight k",
    "prompt_x_reward": "Prompt × reward",
    "kl": "KL",
    "main": "The five methods",
}
REWARD_COLOURS = ("#0072B2", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#6E6E6E")
PAPER_COLOUR = "#222222"


def set_style():
    """Matplotlib defaults of every figure: small serifless text, light grid, no box."""
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
        unfinished = directory / f".{name}.{suffix}.{os.getpid()}"
        try:
            write(unfinished)
            os.replace(unfinished, path)
        finally:
            unfinished.unlink(missing_ok=True)
        paths.append(path)
    return paths


# --- results


def fig1_radar(table, ax=None):
    """Radar of the nine metrics averaged over the benchmarks (the paper's Fig. 1). Returns the axes.

    table: benchmark, method, metric, value (accuracy in per cent). Each axis has its own range, printed under
    its name as centre → rim and not starting at zero. Hallucination is turned round: outwards is fewer.
    """
    means = table[table["metric"].isin(RADAR_METRICS)].groupby(["method", "metric"])["value"].mean().unstack()
    methods, metrics = _present(means.index), [m for m in RADAR_METRICS if m in means]
    if len(metrics) < 3:
        raise ValueError(f"fig1_radar got the metrics {metrics}; expected at least three of {RADAR_METRICS}.")
    ranges = {metric: _radar_range(metric, means.loc[methods, metric]) for metric in metrics}
    angles = np.linspace(0, 2 * np.pi, len(metrics), endpoint=False)
    ax = ax or plt.figure(figsize=(7.2, 5.6)).add_subplot(projection="polar")
    ax.set(
        theta_offset=np.pi / 2, theta_direction=-1, ylim=(0, 1), yticks=[0.25, 0.5, 0.75, 1.0], xticks=angles
    )
    ax.tick_params(labelleft=False, labelbottom=False)
    ax.spines["polar"].set_color("#C8C8C8")
    for method in methods:
        radii = [(means.loc[method, m] - ranges[m][0]) / (ranges[m][1] - ranges[m][0]) for m in metrics]
        ax.plot([*angles, angles[0]], [*radii, radii[0]], **_look(method), markersize=4)
    for angle, metric in zip(angles, metrics, strict=True):
        centre, rim = ranges[metric]
        turned = "\n(inverted: outer = fewer)" if metric == "hallucination" else ""
        side = "center" if abs(np.sin(angle)) < 0.2 else "left" if np.sin(angle) > 0 else "right"
        text = f"{OBJECTIVE_LABELS[metric]}\n{centre:.2f} → {rim:.2f}{turned}"
        ax.text(angle, 1.1, text, ha=side, va="center", fontsize=8.5, linespacing=1.3)
    ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.17), ncols=3)
    note = (
        "Mean over the benchmarks. Numbers under each name: value at the centre → at the rim (not from zero)."
    )
    ax.text(0.5, -0.13, note, transform=ax.transAxes, ha="center", va="top", fontsize=8, color="#555555")
    return ax


def _radar_range(metric, values):
    """(value at the centre, value at the rim), wider than the data so that no polygon shrinks to a point."""
    spread = (values.max() - values.min()) or max(abs(values.max()), 1.0)
    low, high = max(0.0, values.min() - 0.3 * spread), values.max() + 0.05 * spread
    return (high, low) if metric == "hallucination" else (low, high)


def fig3_cold_start_accuracy(table, ax=None):
    """Accuracy of GRPO and CRPO, each beside its cold-started counterpart (Fig. 3). Returns the axes."""
    return _accuracy_bars(table, ("grpo", "cold_start_grpo", "crpo", "cold_start_crpo"), ax)


def fig4_accuracy(table, ax=None):
    """Accuracy of the baseline, GRPO and CRPO (Fig. 4). Returns the axes."""
    return _accuracy_bars(table, ("baseline", "grpo", "crpo"), ax)


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
        ax.bar(x, own["value"], 0.92 * width, color=METHOD_COLOURS[method], label=METHOD_LABELS[method])
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
    _legend_below(ax.figure, ax)
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
        ax.set_title(_objective_label(column))
    for ax in axes.flat[len(columns) :]:
        ax.remove()
    for ax in axes.flat[max(0, len(columns) - across) : len(columns)]:
        ax.set_xlabel(f"Step (mean of the last {window})" if window > 1 else "Step")
    _legend_below(fig, *axes.flat[: len(columns)])
    return fig


def _seed_lines(ax, logs, column, window):
    for method in _present(logs["method"]):
        rows = logs[(logs["method"] == method) & logs[column].notna()]
        if rows.empty:
            continue
        curves = rows.pivot_table(index="step", columns="seed", values=column, aggfunc="last")
        curves = curves.rolling(window, min_periods=1).mean()
        look = _look(method)
        ax.plot(curves.index, curves.mean(axis=1), markevery=max(1, len(curves) // 6), markersize=4, **look)
        if curves.shape[1] > 1:
            ax.fill_between(
                curves.index, curves.min(axis=1), curves.max(axis=1), color=look["color"], alpha=0.18, lw=0
            )


def _objective_label(column):
    name = column.removeprefix("rewards/").removesuffix("/mean")
    return OBJECTIVE_LABELS.get(column) or OBJECTIVE_LABELS.get(name) or name.replace("_", " ")


# --- rewards


def reward_bars(rewards, ax=None):
    """Grouped bars: what each reward gives a few named completions. Returns the axes.

    rewards: tidy frame completion, reward, value, in the order to be drawn. A missing value is written
    "unscorable", because it is not a zero.
    """
    completions, names = list(dict.fromkeys(rewards["completion"])), list(dict.fromkeys(rewards["reward"]))
    table = rewards.pivot(index="completion", columns="reward", values="value").astype(float)
    ax = ax or plt.subplots(figsize=(7.2, 0.8 + (0.2 * len(names) + 0.15) * len(completions)))[1]
    height = 0.8 / len(names)
    for i, name in enumerate(names):
        y = np.arange(len(completions)) + (i - (len(names) - 1) / 2) * height
        values = table.loc[completions, name].to_numpy()
        colour = REWARD_COLOURS[i % len(REWARD_COLOURS)]
        ax.barh(y, np.nan_to_num(values), 0.9 * height, color=colour, label=_objective_label(name))
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
    _legend_below(ax.figure, ax)
    return ax


# --- the paper's printed numbers


def audit_denominators(fits):
    """Which denominators would make the printed accuracies k / n. Returns the figure.

    fits: frame benchmark, method, dropped (questions left out of the full test set), fits (bool). A mark is a
    denominator that works; the full test set is the shaded column at 0.
    """
    benchmarks, methods = list(dict.fromkeys(fits["benchmark"])), _present(fits["method"])
    size = (1.2 + 2.6 * len(benchmarks), 0.9 + 0.32 * len(methods))
    fig, axes = plt.subplots(
        1, len(benchmarks), figsize=size, sharey=True, squeeze=False, layout="constrained"
    )
    for ax, benchmark in zip(axes.flat, benchmarks, strict=True):
        rows = fits[fits["benchmark"] == benchmark]
        ax.axvspan(-0.5, 0.5, color="#E4E4E4", lw=0)
        for y, method in enumerate(methods):
            works = rows.loc[(rows["method"] == method) & rows["fits"], "dropped"]
            ax.plot(works, np.full(len(works), y), ls="none", markersize=3.5, **_look(method))
        ax.set(title=BENCHMARK_LABELS[benchmark], xlim=(-1.5, rows["dropped"].max() + 1))
        ax.set_ylim(len(methods) - 0.5, -0.5)
        ax.grid(axis="x", visible=False)
    axes[0, 0].set_yticks(range(len(methods)), [METHOD_LABELS[method] for method in methods])
    fig.supxlabel("Questions left out of the denominator (0: the full test set)", fontsize=9)
    return fig


def audit_accuracies(intervals, guesses, ax=None):
    """The printed accuracies with the intervals that n implies, and two guessers. Returns the axes.

    intervals: benchmark, method, printed, ci_low, ci_high; guesses: benchmark, chance, majority_letter; per cent.
    """
    benchmarks, methods = list(dict.fromkeys(intervals["benchmark"])), _present(intervals["method"])
    ax = ax or plt.subplots(figsize=(1.6 + 2.0 * len(benchmarks), 3.6))[1]
    for i, method in enumerate(methods):
        own = intervals[intervals["method"] == method].set_index("benchmark").loc[benchmarks]
        x = np.arange(len(benchmarks)) + 0.15 * (i - (len(methods) - 1) / 2)
        errors = [own["printed"] - own["ci_low"], own["ci_high"] - own["printed"]]
        ax.errorbar(x, own["printed"], yerr=errors, ls="none", capsize=2.5, markersize=5, **_look(method))
    guesses = guesses.set_index("benchmark").loc[benchmarks]
    for column, style, label in (("chance", "--", "Chance"), ("majority_letter", ":", "Majority letter")):
        place = np.arange(len(benchmarks))
        ax.hlines(
            guesses[column], place - 0.45, place + 0.45, colors=PAPER_COLOUR, ls=style, lw=1.2, label=label
        )
    ax.set_xticks(range(len(benchmarks)), [BENCHMARK_LABELS[name] for name in benchmarks])
    ax.set(ylabel="Printed accuracy (%), Wilson 95 %", ylim=(0, None))
    ax.grid(axis="x", visible=False)
    ax.legend(loc="upper left", bbox_to_anchor=(1.02, 1.0))
    return ax


def audit_figure1(readings):
    """The hallucination axis of Figure 1 in two readings, outwards to the right. Returns the figure.

    readings: frame reading, method, value, rank (1 = farthest out).
    """
    names, methods = list(dict.fromkeys(readings["reading"])), _present(readings["method"])
    fig, axes = plt.subplots(
        1, len(names), figsize=(3.6 * len(names), 2.4), sharey=True, squeeze=False, layout="constrained"
    )
    for ax, name in zip(axes.flat, names, strict=True):
        rows = readings[readings["reading"] == name].set_index("method")
        for y, method in enumerate(methods):
            value, place = rows.loc[method, "value"], int(rows.loc[method, "rank"])
            ax.plot(value, y, ls="none", markersize=7, **_look(method))
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
        left.barh(y, owners[term], 0.9 * height, color=REWARD_COLOURS[i], label=term.capitalize())
        for place, value in zip(y, owners[term], strict=True):
            text = "constant" if np.isnan(value) else f"{round(value, 2) + 0:.2f}"  # + 0: no "-0.00"
            at = (max(0.0, np.nan_to_num(value)), place)
            left.annotate(text, at, xytext=(3, 0), textcoords="offset points", va="center", fontsize=7.5)
        for groups, style in (("mixed", "-"), ("tied", "--")):
            rows = sweep[sweep["groups"] == groups]
            right.plot(range(len(rows)), rows[term], ls=style, marker="o", ms=4, color=REWARD_COLOURS[i])
    names = [f"{row.difficulty}\n{row.tied:.0%} tied groups" for row in owners.itertuples()]
    left.set_yticks(range(len(owners)), names)
    left.invert_yaxis()
    left.set(title="By prompt difficulty, k = 10", xlabel="Correlation with the advantage", xlim=(0, 1.1))
    left.grid(axis="y", visible=False)
    ks = list(dict.fromkeys(sweep["k"]))
    right.set_xticks(range(len(ks)), [f"{k:g}" for k in ks])
    right.set(title="By k: mixed (lines) and tied groups (dashes)", xlabel="k", ylim=(-0.05, 1.05))
    _legend_below(fig, left)
    return fig


# --- the laboratory


def pareto_panels(points, fronts, marks=None):
    """Arms in pairs of objectives, a panel a pair; better is up and to the right. Returns the figure.

    points: frame arm, family, label, objective, value, ci_low, ci_high, higher_is_better. fronts: frame space ("x and y"),
    arm, on_front, frequency; its spaces of two objectives are the panels. marks: name -> {objective: value}, hollow
    diamonds. Named are the methods and what is on the front (with its frequency over draws); grey joins the front.
    """
    spaces = [space for space in dict.fromkeys(fronts["space"]) if len(space.split(" and ")) == 2]
    if not spaces:
        raise ValueError(f"fronts has the spaces {sorted(set(fronts['space']))}; expected pairs: 'x and y'.")
    across = min(2, len(spaces))
    down = -(-len(spaces) // across)
    size = (4.9 * across, 3.7 * down + 0.6)
    fig, axes = plt.subplots(down, across, figsize=size, squeeze=False, layout="constrained")
    for ax, space in zip(axes.flat, spaces, strict=False):
        _pareto_panel(
            ax, points, fronts[fronts["space"] == space].set_index("arm"), space.split(" and "), marks
        )
    for ax in axes.flat[len(spaces) :]:
        ax.remove()
    _legend_below(fig, *axes.flat[: len(spaces)])
    fig.canvas.draw()  # the layout settles before names are placed
    for ax in axes.flat[: len(spaces)]:
        _place_names(ax)
    return fig


def _pareto_panel(ax, points, front, space, marks):
    x, y = (points[points["objective"] == objective].set_index("arm") for objective in space)
    ax.names, ax.spots = [], []
    for arm in x.index:
        look = _arm_look(arm, x.loc[arm, "family"])
        errors = {
            f"{axis}err": [
                [max(0.0, own.loc[arm, "value"] - own.loc[arm, "ci_low"])],
                [max(0.0, own.loc[arm, "ci_high"] - own.loc[arm, "value"])],
            ]
            for axis, own in (("x", x), ("y", y))
        }
        at = x.loc[arm, "value"], y.loc[arm, "value"]
        ax.errorbar(
            *at,
            **errors,
            ls="none",
            elinewidth=0.5,
            ecolor="#BDBDBD",
            markersize=6,
            zorder=2 + (arm in METHODS),
            **look,
        )
        ax.spots.append(at)
        if arm in METHODS or front.loc[arm, "on_front"]:
            share = f" ({front.loc[arm, 'frequency']:.0%})" if front.loc[arm, "on_front"] else ""
            ax.names.append((at, f"{x.loc[arm, 'label']}{share}"))
    on_front = [arm for arm in x.index if front.loc[arm, "on_front"]]
    line = sorted((x.loc[arm, "value"], y.loc[arm, "value"]) for arm in on_front)
    ax.plot(*zip(*line, strict=True), color="#9A9A9A", lw=1, zorder=1)
    ax.margins(0.08)
    _mark_targets(ax, space, marks)
    for axis, own, objective in (("x", x, space[0]), ("y", y, space[1])):
        getattr(ax, f"set_{axis}label")(OBJECTIVE_LABELS.get(objective, objective))
        if not own["higher_is_better"].all():
            getattr(ax, f"invert_{axis}axis")()


def _mark_targets(ax, space, marks, to_scale=False):
    """Hollow marks of {name: {objective: value}}; those far from the arms are written above the panel instead."""
    (left, right), (low, high) = sorted(ax.get_xlim()), sorted(ax.get_ylim())
    beyond = []
    for (name, mark), shape in zip((marks or {}).items(), "DsP", strict=False):
        if not set(space) <= set(mark):
            continue
        x, y = (mark[objective] for objective in space)
        near = left <= x <= right + 0.3 * (right - left) and low <= y <= high + 0.3 * (high - low)
        if near or to_scale:
            hollow = {"facecolor": "white", "edgecolor": PAPER_COLOUR, "linewidth": 1.2, "marker": shape}
            ax.scatter(x, y, s=40, label=name, zorder=4, **hollow)
        else:
            beyond.append(f"{name} ({x:.3g}, {y:.3g})")
    if beyond:
        ax.set_title("Out of sight: " + ", ".join(beyond), fontsize=8, color="#555555")


def _place_names(ax):
    """Write each of `ax.names` [((x, y), text), ...] at the nearest place that hides none of `ax.spots` and no other name.

    Where every place near by hides a point, hiding other names is still avoided.
    """
    renderer, taken = ax.figure.canvas.get_renderer(), []
    spots = ax.transData.transform(ax.spots)
    for at, text in ax.names:
        for distance, angle, spare in _name_places():
            dx, dy = distance * np.cos(angle), distance * np.sin(angle)
            side = "left" if dx > 1 else "right" if dx < -1 else "center"
            line = {"arrowstyle": "-", "color": "#555555", "lw": 0.6, "ls": ":"} if distance > 10 else None
            place = {"xytext": (dx, dy), "textcoords": "offset points", "ha": side, "va": "center"}
            name = ax.annotate(text, at, fontsize=7.5, arrowprops=line, **place)
            name.update_positions(renderer)
            box = Text.get_window_extent(name, renderer)  # without its line
            inside = ax.bbox.contains(box.x0, box.y0) and ax.bbox.contains(box.x1, box.y1)
            hidden = any(box.padded(3).contains(*spot) for spot in spots) and not spare
            if inside and not hidden and not any(box.overlaps(other) for other in taken):
                taken.append(box)
                break
            name.remove()


def _name_places():
    """(points away, angle, may it hide a marker), in the order to be tried."""
    for spare in (False, True):
        for distance in (9, 16, 24, 34, 46, 60, 76):
            for degrees in (0, 180, 45, 135, -45, -135, 90, -90, 20, 160, -20, -160):
                yield distance, np.deg2rad(degrees), spare


def parallel_objectives(points, marks=None, ax=None):
    """Parallel coordinates: an axis an objective, a line an arm, up is better. Returns the axes.

    points, marks: as in `pareto_panels`. Each axis runs from the worst to the best arm or mark, printed at its ends.
    """
    table = points.pivot(index="arm", columns="objective", values="value")
    objectives = list(dict.fromkeys(points["objective"]))
    better = points.drop_duplicates("objective").set_index("objective")["higher_is_better"]
    family = points.drop_duplicates("arm").set_index("arm")["family"]
    marks = {name: mark for name, mark in (marks or {}).items() if set(objectives) <= set(mark)}
    ends = {}
    for objective in objectives:
        values = [*table[objective], *(mark[objective] for mark in marks.values())]
        ends[objective] = (min(values), max(values)) if better[objective] else (max(values), min(values))

    def heights(values):
        return [(values[o] - ends[o][0]) / ((ends[o][1] - ends[o][0]) or 1.0) for o in objectives]

    ax = ax or plt.subplots(figsize=(7.6, 4.2), layout="constrained")[1]
    for arm in sorted(table.index, key=lambda arm: arm in METHODS):
        thick = {"lw": 2.2, "zorder": 3} if arm in METHODS else {"lw": 0.9, "alpha": 0.75}
        ax.plot(heights(table.loc[arm]), markersize=4, **thick, **_arm_look(arm, family[arm]))
    for (name, mark), style in zip(marks.items(), ("--", ":", "-."), strict=False):
        ax.plot(heights(mark), color=PAPER_COLOUR, ls=style, lw=1.4, label=name)
    names = [f"{ends[o][1]:.3g}\n\n{ends[o][0]:.3g}\n{OBJECTIVE_LABELS.get(o, o)}" for o in objectives]
    for i, name in enumerate(names):
        top, bottom = name.split("\n\n")
        ax.text(i, 1.04, top, ha="center", fontsize=8)
        ax.text(i, -0.05, bottom, ha="center", va="top", fontsize=8.5)
    ax.set(xticks=range(len(objectives)), xticklabels=[], yticks=[], ylim=(-0.02, 1.02))
    ax.tick_params(length=0)
    ax.grid(axis="x", color="#8A8A8A")
    ax.spines[["left", "bottom"]].set_visible(False)
    handles = dict(zip(*ax.get_legend_handles_labels()[::-1], strict=True))
    named = [label for label in (*METHOD_LABELS.values(), *handles) if label in handles]
    handles = {label: handles[label] for label in dict.fromkeys(named)}
    ax.figure.legend(handles.values(), handles.keys(), loc="outside right center")
    return ax


def hypervolume_bars(volumes, title="Hypervolume"):
    """Volumes of single arms (left) and of families' fronts (right), with intervals. Returns the figure.

    volumes: frame kind ("arm" | "front"), name, family, label, volume, ci_low, ci_high, share.
    """
    kinds = [kind for kind in ("arm", "front") if kind in set(volumes["kind"])]
    tallest = max((volumes["kind"] == kind).sum() for kind in kinds)
    fig, axes = plt.subplots(
        1, len(kinds), figsize=(4.8 * len(kinds), 1.0 + 0.2 * tallest), squeeze=False, layout="constrained"
    )
    for ax, kind in zip(axes.flat, kinds, strict=True):
        rows = volumes[volumes["kind"] == kind].sort_values("volume", kind="stable")
        colours = [
            METHOD_COLOURS["crpo"] if name == "main" else _arm_look(name, family)["color"]
            for name, family in zip(rows["name"], rows["family"], strict=True)
        ]
        y = np.arange(len(rows))
        ax.barh(y, rows["volume"], 0.72, color=colours, alpha=0.85)
        errors = [
            (rows["volume"] - rows["ci_low"]).clip(lower=0),
            (rows["ci_high"] - rows["volume"]).clip(lower=0),
        ]
        ax.errorbar(rows["volume"], y, xerr=errors, fmt="none", ecolor="#222222", elinewidth=0.9, capsize=2)
        names = rows["label"] if kind == "arm" else [_family_label(name) for name in rows["name"]]
        ax.set_yticks(y, names, fontsize=8)
        ax.set(
            title="Each arm by itself" if kind == "arm" else "Front of a family",
            xlabel=title,
            ylim=(len(rows) - tallest - 0.6, len(rows) - 0.4),
        )
        ax.grid(axis="y", visible=False)
    return fig


def ablation_forest(table):
    """Difference to the reference with its interval, an arm a row, a metric a panel. Returns the figure.

    table: rows of `tradeoffs.ablation_table`, of one or several families. Filled: Holm-corrected p below .05.
    """
    rows = table[table["difference"].notna()]
    metrics = list(dict.fromkeys(rows["metric"]))
    order = rows.drop_duplicates(["family", "arm"])
    places, y, previous = {}, 0.0, None
    for row in order.itertuples():
        y += 0.0 if previous is None else 1.0 if row.family == previous else 2.2
        places[row.family, row.arm], previous = y, row.family
    fig, axes = plt.subplots(
        1, len(metrics), figsize=(2.6 + 1.85 * len(metrics), 1.0 + 0.21 * (y + 1)), sharey=True, squeeze=False,
        layout="constrained",
    )  # fmt: skip
    for ax, metric in zip(axes.flat, metrics, strict=True):
        ax.axvline(0, color=PAPER_COLOUR, lw=0.8)
        for row in rows[rows["metric"] == metric].itertuples():
            look = _arm_look(row.arm, row.family)
            sure = row.p_holm < 0.05
            errors = [[row.difference - row.difference_low], [row.difference_high - row.difference]]
            face = look["color"] if sure else "white"
            ax.errorbar(
                row.difference, places[row.family, row.arm], xerr=errors, ls="none", capsize=2, markersize=5,
                markerfacecolor=face, elinewidth=1.1, color=look["color"], marker=look["marker"],
            )  # fmt: skip
        ax.set_title(OBJECTIVE_LABELS.get(metric, metric), fontsize=9)
        ax.grid(axis="y", visible=False)
        ax.locator_params(axis="x", nbins=4)
    names = [row.label for row in order.itertuples()]
    axes[0, 0].set_yticks(list(places.values()), names, fontsize=8)
    axes[0, 0].set_ylim(y + 0.8, -1.7)
    heads = order.drop_duplicates("family")
    for row in heads.itertuples():
        at = {
            "x": -0.04,
            "y": places[row.family, row.arm] - 0.95,
            "transform": axes[0, 0].get_yaxis_transform(),
        }
        axes[0, 0].text(s=_family_label(row.family), ha="right", va="center", fontsize=8, weight="bold", **at)
    fig.supxlabel(
        "Arm minus its reference, 95 % interval; filled: p < .05 after Holm within the family", fontsize=8.5
    )
    return fig


def k_curve(table):
    """What k buys: a panel a metric, k from 0 on a log(1 + k) axis, with intervals. Returns the figure.

    table: rows of `tradeoffs.k_table`: k, metric, value, ci_low, ci_high.
    """
    metrics = list(dict.fromkeys(table["metric"]))
    across = min(3, len(metrics))
    down = -(-len(metrics) // across)
    fig, axes = plt.subplots(
        down, across, figsize=(2.9 * across, 2.4 * down), squeeze=False, layout="constrained"
    )
    for ax, metric in zip(axes.flat, metrics, strict=False):
        rows = table[table["metric"] == metric].sort_values("k")
        x = np.log1p(rows["k"])
        errors = [
            (rows["value"] - rows["ci_low"]).clip(lower=0),
            (rows["ci_high"] - rows["value"]).clip(lower=0),
        ]
        ax.errorbar(
            x,
            rows["value"],
            yerr=errors,
            color=FAMILY_COLOURS["k"],
            capsize=2.5,
            lw=1.2,
            elinewidth=1,
            zorder=2,
        )
        for place, row in zip(x, rows.itertuples(), strict=True):
            look = _arm_look(row.arm, "k")
            ax.plot(
                place,
                row.value,
                ls="none",
                markersize=6,
                color=look["color"],
                marker=look["marker"],
                zorder=3,
            )
        ax.set_xticks(x, [f"{k:g}" for k in rows["k"]])
        ax.set_title(_objective_label(metric))
        ax.margins(x=0.08)
    for ax in axes.flat[len(metrics) :]:
        ax.remove()
    fig.supxlabel("k, the weight of accuracy (log(1 + k) scale); diamond: the paper's k", fontsize=9)
    return fig


def advantage_shares(shares):
    """Who owned the advantage over training: stacked shares, an arm a panel; dashes: tied groups. Returns the figure.

    shares: frame arm, label, step, term, share, as of `tradeoffs.shares`.
    """
    arms = list(dict.fromkeys(shares["arm"]))
    terms = [term for term in dict.fromkeys(shares["term"]) if term != "tied groups"]
    known = list(OBJECTIVE_LABELS)
    terms.sort(key=lambda term: known.index(term) if term in known else len(known))
    across = min(3, len(arms))
    down = -(-len(arms) // across)
    fig, axes = plt.subplots(
        down,
        across,
        figsize=(2.9 * across, 2.2 * down + 0.4),
        sharex=True,
        sharey=True,
        squeeze=False,
        layout="constrained",
    )
    for ax, arm in zip(axes.flat, arms, strict=False):
        own = shares[shares["arm"] == arm]
        table = own.pivot(index="step", columns="term", values="share")
        here = [term for term in terms if term in table]
        colours = [REWARD_COLOURS[terms.index(term) % len(REWARD_COLOURS)] for term in here]
        ax.stackplot(
            table.index,
            table[here].fillna(0).T,
            colors=colours,
            labels=[_objective_label(t) for t in here],
            lw=0,
        )
        if "tied groups" in table:
            ax.plot(
                table.index, table["tied groups"], color=PAPER_COLOUR, ls="--", lw=1.3, label="Tied groups"
            )
        ax.set(title=own["label"].iloc[0], ylim=(0, 1), xlim=(table.index.min(), table.index.max()))
        ax.grid(visible=False)
    for ax in axes.flat[len(arms) :]:
        ax.remove()
    for ax in axes.flat[max(0, len(arms) - across) : len(arms)]:
        ax.set_xlabel("Step")
        ax.tick_params(labelbottom=True)
    fig.supylabel("Share of the advantage", fontsize=9)
    _legend_below(fig, *axes.flat[: len(arms)])
    return fig


def trajectories(table, pairs, marks=None):
    """Checkpoints through objective space, an arrow from each to the next, a panel a pair. Returns the figure.

    table: frame arm, step, objective, value, error, as of `tradeoffs.trajectory_points`; pairs: tuples (x, y) of
    objectives; marks: as in `pareto_panels`. A cross at each checkpoint is one standard error over seeds.
    """
    fig, axes = plt.subplots(
        1, len(pairs), figsize=(3.4 * len(pairs), 3.5), squeeze=False, layout="constrained"
    )
    for ax, pair in zip(axes.flat, pairs, strict=True):
        for arm in _present(table["arm"]):
            own = table[table["arm"] == arm]
            x, y = (own[own["objective"] == name].set_index("step").sort_index() for name in pair)
            look = _look(arm)
            ax.errorbar(
                x["value"],
                y["value"],
                xerr=x["error"],
                yerr=y["error"],
                ls="none",
                ms=4.5,
                elinewidth=0.7,
                **look,
            )
            steps = list(x.index)
            for a, b in zip(steps, steps[1:], strict=False):
                ends = [(x.loc[step, "value"], y.loc[step, "value"]) for step in (b, a)]
                arrow = {"arrowstyle": "-|>", "color": look["color"], "lw": 1.3, "shrinkA": 3, "shrinkB": 1}
                ax.annotate("", *ends, arrowprops=arrow)
        _mark_targets(ax, pair, marks, to_scale=True)
        ax.set(xlabel=OBJECTIVE_LABELS.get(pair[0], pair[0]), ylabel=OBJECTIVE_LABELS.get(pair[1], pair[1]))
        ax.margins(0.08)
        for axis, name in zip("xy", pair, strict=True):
            if OBJECTIVE_LABELS.get(name, name).endswith("↓"):
                getattr(ax, f"invert_{axis}axis")()
    _legend_below(fig, *axes.flat)
    return fig


def _arm_look(arm, family):
    """A method keeps its own look; every other arm has its family's."""
    if arm in METHODS:
        return _look(arm)
    colour, marker = FAMILY_COLOURS.get(family, PAPER_COLOUR), FAMILY_MARKERS.get(family, "o")
    return {"color": colour, "marker": marker, "label": _family_label(family)}


def _family_label(family):
    return FAMILY_LABELS.get(family, family.replace("_", " ").capitalize())


def _present(methods):
    """The methods that occur, in the paper's order."""
    present = [method for method in METHODS if method in set(methods)]
    if not present:
        raise ValueError(f"got the methods {sorted(set(methods))}; expected some of {METHODS}.")
    return present


def _look(method):
    return {"color": METHOD_COLOURS[method], "marker": METHOD_MARKERS[method], "label": METHOD_LABELS[method]}


def _legend_below(fig, *axes):
    """One legend for all panels, under the figure, each entry once."""
    entries = {}
    for ax in axes:
        entries |= {label: handle for handle, label in zip(*ax.get_legend_handles_labels(), strict=True)}
    if fig.get_layout_engine() is None:
        axes[0].legend(entries.values(), entries.keys(), loc="upper left", bbox_to_anchor=(1.02, 1.0))
    else:
        fig.legend(entries.values(), entries.keys(), loc="outside lower center", ncols=min(5, len(entries)))
