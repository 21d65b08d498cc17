"""Figures of the laboratory: trade-offs, ablations, who owns the advantage. Draws, never computes; one style, that of `plots`."""

import textwrap

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.text import Text

from clinical_r1.arms import METHODS
from clinical_r1.labels import OBJECTIVE_LABELS, objective_label
from clinical_r1.plots import (
    METHOD_COLOURS,
    PAPER_COLOUR,
    REWARD_COLOURS,
    legend_below,
    look_of,
    present,
)

# Chosen by simulation: two families differ by at least 12 (CIEDE2000), and a family from a method by 11, for normal sight and
# under protanopia, deuteranopia and tritanopia; markers say it a second time
FAMILY_COLOURS = {
    "k": "#113377",
    "terms": "#BB88AA",
    "citation": "#663344",
    "consistency": "#AACC77",
    "prompt_x_reward": "#8877FF",
    "group_size": "#669977",
    "aggregator": "#AA4433",
    "kl": "#770000",
    "grounded": "#3300FF",
    "cold_start": "#56B4E9",
}
FAMILY_MARKERS = dict(zip(FAMILY_COLOURS, "PXhp<>*d8^", strict=True))
FAMILY_LABELS = {
    "k": "Weight k",
    "prompt_x_reward": "Prompt × reward",
    "kl": "KL",
    "main": "The five methods",
}


def pareto_panels(points, fronts, marks=None):
    """Arms in pairs of objectives, a panel a pair; better is up and to the right. Returns the figure.

    points: frame arm, family, label, objective, value, ci_low, ci_high, higher_is_better. fronts: frame space ("x and y"),
    arm, on_front, frequency; its spaces of two objectives are the panels. marks: name -> {objective: value}, hollow
    diamonds. Named are the methods and what is on the front (with its frequency over draws); grey joins the front. Arms and
    marks far from all others would squeeze them: they are written above the panel instead.
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
    legend_below(fig, *axes.flat[: len(spaces)])
    fig.canvas.draw()  # the layout settles before names are placed
    for ax in axes.flat[: len(spaces)]:
        _place_names(ax)
    return fig


def _pareto_panel(ax, points, front, space, marks):
    x, y = (points[points["objective"] == objective].set_index("arm") for objective in space)
    ranges = _seen(x["value"]), _seen(y["value"])
    ax.names, ax.spots, outside = [], [], []
    for arm in x.index:
        at = x.loc[arm, "value"], y.loc[arm, "value"]
        share = f" ({front.loc[arm, 'frequency']:.0%})" if front.loc[arm, "on_front"] else ""
        name = f"{x.loc[arm, 'label']}{share}"
        if not all(low <= value <= high for (low, high), value in zip(ranges, at, strict=True)):
            outside.append(f"{name} ({at[0]:.3g}, {at[1]:.3g})")
            continue
        errors = {f"{axis}err": np.array(_errors(own.loc[[arm]])) for axis, own in (("x", x), ("y", y))}
        bars = {"ls": "none", "elinewidth": 0.5, "ecolor": "#BDBDBD", "markersize": 6, **errors}
        ax.errorbar(*at, zorder=2 + (arm in METHODS), **bars, **_arm_look(arm, x.loc[arm, "family"]))
        ax.spots.append(at)
        if arm in METHODS or share:
            ax.names.append((at, name))
    on_front = [arm for arm in x.index if front.loc[arm, "on_front"]]
    line = sorted((x.loc[arm, "value"], y.loc[arm, "value"]) for arm in on_front)
    ax.margins(0.08)
    for axis, own, (low, high) in (("x", x, ranges[0]), ("y", y, ranges[1])):
        if not own["value"].between(low, high).all():
            getattr(ax, f"set_{axis}lim")(low - 0.2 * (high - low), high + 0.2 * (high - low))
    ax.plot(*zip(*line, strict=True), color="#9A9A9A", lw=1, zorder=1, scalex=False, scaley=False)
    _mark_targets(ax, space, marks, outside)
    for axis, own, objective in (("x", x, space[0]), ("y", y, space[1])):
        getattr(ax, f"set_{axis}label")(OBJECTIVE_LABELS.get(objective, objective))
        if not own["higher_is_better"].all():
            getattr(ax, f"invert_{axis}axis")()


def _seen(values):
    """(lowest, highest) value that is drawn: of all, unless leaving out those beyond Tukey's outer fences halves the axis."""
    q1, q3 = np.quantile(values, [0.25, 0.75])
    near = values[(values >= q1 - 3 * (q3 - q1)) & (values <= q3 + 3 * (q3 - q1))]
    seen = near if 0 < np.ptp(near) < np.ptp(values) / 2 else values
    return seen.min(), seen.max()


def _mark_targets(ax, space, marks, outside=(), to_scale=False):
    """Hollow marks of {name: {objective: value}}; those far from the arms are written above the panel, as arms `outside` are."""
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
    if beyond or outside:
        text = "Out of sight: " + ", ".join([*outside, *beyond])
        ax.set_title(textwrap.fill(text, 74), fontsize=8, color="#555555")


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


def parallel_objectives(points, marks=None):
    """Parallel coordinates, a panel a family: an axis an objective, a line an arm, up is better; grey: all others.

    points, marks: as in `pareto_panels`. Each axis runs from the worst to the best arm, printed under it; arms far from all
    others stand at its end. Marks are written below, because they lie far beyond every arm. Returns the figure.
    """
    table = points.pivot(index="arm", columns="objective", values="value")
    about = points.drop_duplicates("arm").set_index("arm")
    better = points.drop_duplicates("objective").set_index("objective")["higher_is_better"]
    objectives = list(better.index)
    ends = {o: _seen(table[o])[:: 1 if better[o] else -1] for o in objectives}
    heights = {
        arm: [(table.loc[arm, o] - ends[o][0]) / ((ends[o][1] - ends[o][0]) or 1.0) for o in objectives]
        for arm in about.index
    }
    families = about["family"].where(~about.index.isin(METHODS), "main")
    panels = list(dict.fromkeys(["main", *families]))
    down = -(-len(panels) // 2)
    fig, axes = plt.subplots(down, 2, figsize=(10.2, 1.9 * down + 0.5), squeeze=False, layout="constrained")
    for ax, family in zip(axes.flat, panels, strict=False):
        _parallel_panel(ax, family, families, heights, about["label"])
        names = [f"{OBJECTIVE_LABELS.get(o, o)}\n{ends[o][0]:.3g} to {ends[o][1]:.3g}" for o in objectives]
        ax.set_xticks(range(len(objectives)), names, fontsize=7)
    for ax in axes.flat[len(panels) :]:
        ax.remove()
    far = [f"{name} ({', '.join(f'{mark[o]:.3g}' for o in objectives)})" for name, mark in (marks or {}).items()
           if set(objectives) <= set(mark)]  # fmt: skip
    note = "Under an axis: its worst to its best arm; beyond that, an arm stands just outside. Grey: all other arms"
    fig.supxlabel("; ".join([note, *far]), fontsize=8)
    return fig


def _parallel_panel(ax, family, families, heights, labels):
    for arm, own in families.items():
        look = {"color": "#D8D8D8", "lw": 0.8, "zorder": 1}
        if own == family:
            place = list(families.index[families == family]).index(arm)
            look = _arm_look(arm, family) | {"label": labels[arm], "lw": 1.6, "markersize": 4.5, "zorder": 3}
            look["ls"] = ("-", "--", ":", "-.")[place % 4] if family != "main" else "-"
        ax.plot(np.clip(heights[arm], -0.08, 1.08), clip_on=False, **look)
    ax.set(title=_family_label(family), yticks=[], ylim=(-0.08, 1.08), xlim=(-0.15, len(heights[arm]) - 0.85))
    ax.tick_params(length=0)
    ax.grid(axis="x", color="#8A8A8A")
    ax.spines[["left", "bottom"]].set_visible(False)
    ax.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), fontsize=7, handlelength=3)


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
        ax.errorbar(
            rows["volume"],
            y,
            xerr=_errors(rows, "volume"),
            fmt="none",
            ecolor="#222222",
            elinewidth=0.9,
            capsize=2,
        )
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

    table: rows of `comparisons.ablation_table`, of one or several families. Filled: Holm-corrected p below .05.
    """
    rows = table[table["difference"].notna()]
    metrics = list(dict.fromkeys(rows["metric"]))
    order = rows.drop_duplicates(["family", "arm"])
    places = _forest_places(order)
    lowest = list(places.values())[-1]
    fig, axes = plt.subplots(
        1, len(metrics), figsize=(2.6 + 1.85 * len(metrics), 1.0 + 0.21 * (lowest + 1)), sharey=True, squeeze=False,
        layout="constrained",
    )  # fmt: skip
    for ax, metric in zip(axes.flat, metrics, strict=True):
        _forest_panel(ax, rows[rows["metric"] == metric], places)
        ax.set_title(OBJECTIVE_LABELS.get(metric, metric), fontsize=9)
    first = axes[0, 0]
    first.set_yticks(list(places.values()), [row.label for row in order.itertuples()], fontsize=8)
    first.set_ylim(lowest + 0.8, -1.7)
    for row in order.drop_duplicates("family").itertuples():
        first.text(
            -0.04, places[row.family, row.arm] - 0.95, _family_label(row.family), ha="right", va="center", fontsize=8,
            weight="bold", transform=first.get_yaxis_transform(),
        )  # fmt: skip
    fig.supxlabel(
        "Arm minus its reference, 95 % interval; filled: p < .05 after Holm within the family", fontsize=8.5
    )
    return fig


def _forest_places(order):
    """(family, arm) -> height of its row; a family's name stands in the gap above it."""
    places, y, previous = {}, 0.0, None
    for row in order.itertuples():
        y += 0.0 if previous is None else 1.0 if row.family == previous else 2.2
        places[row.family, row.arm], previous = y, row.family
    return places


def _forest_panel(ax, rows, places):
    ax.axvline(0, color=PAPER_COLOUR, lw=0.8)
    for row in rows.itertuples():
        look = _arm_look(row.arm, row.family)
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
    """One interval far longer than all others would squeeze them: the axis fits the others, and its numbers are written."""
    reach = rows[["difference_low", "difference_high"]].abs().max(axis=1).sort_values()
    if len(reach) < 3 or reach.iloc[-1] < 2.5 * reach.iloc[-2]:
        return
    edge = 1.12 * reach.iloc[-2]
    ax.set_xlim(-edge, edge)
    row = rows.loc[reach.index[-1]]
    ends = row["difference_low"], row["difference"], row["difference_high"]
    ax.text(
        0, places[row["family"], row["arm"]] - 0.62, "{1:.3g} [{0:.3g}, {2:.3g}]".format(*ends), fontsize=7, ha="center",
        va="center", bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.5},
    )  # fmt: skip


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
    fig.supxlabel("k, the weight of accuracy (log(1 + k) scale); diamond: the paper's k", fontsize=9)
    return fig


def _k_panel(ax, rows):
    x = np.log1p(rows["k"])
    line = {"color": FAMILY_COLOURS["k"], "capsize": 2.5, "lw": 1.2, "elinewidth": 1, "zorder": 2}
    ax.errorbar(x, rows["value"], yerr=_errors(rows), **line)
    for place, row in zip(x, rows.itertuples(), strict=True):
        look = _arm_look(row.arm, "k") | {"ls": "none", "markersize": 6, "zorder": 3}
        look.pop("label")
        ax.plot(place, row.value, **look)
    ax.set_xticks(x, [f"{k:g}" for k in rows["k"]])


def _errors(rows, column="value"):
    """(2, n) distances from the value down and up to the ends of its interval."""
    low, high = rows[column] - rows["ci_low"], rows["ci_high"] - rows[column]
    return [low.clip(lower=0), high.clip(lower=0)]


def advantage_shares(shares):
    """Who owned the advantage over training: stacked shares, an arm a panel; dashes: tied groups. Returns the figure.

    shares: frame arm, label, step, term, share, as of `shares.shares`.
    """
    arms = list(dict.fromkeys(shares["arm"]))
    terms = [term for term in dict.fromkeys(shares["term"]) if term != "tied groups"]
    known = list(OBJECTIVE_LABELS)
    terms.sort(key=lambda term: known.index(term) if term in known else len(known))
    across = min(3, len(arms))
    down = -(-len(arms) // across)
    size = (2.9 * across, 2.2 * down + 0.4)
    fig, axes = plt.subplots(
        down, across, figsize=size, sharex=True, sharey=True, squeeze=False, layout="constrained"
    )
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
    colours = [REWARD_COLOURS[terms.index(term) % len(REWARD_COLOURS)] for term in here]
    names = [objective_label(term) for term in here]
    ax.stackplot(table.index, table[here].fillna(0).T, colors=colours, labels=names, lw=0)
    if "tied groups" in table:
        tied = {"color": PAPER_COLOUR, "ls": "--", "lw": 1.3, "label": "Tied groups"}
        ax.plot(table.index, table["tied groups"], **tied)
    ax.set(title=own["label"].iloc[0], ylim=(0, 1), xlim=(table.index.min(), table.index.max()))
    ax.grid(visible=False)


def trajectories(table, pairs, marks=None):
    """Checkpoints through objective space, an arrow from each to the next, a panel a pair. Returns the figure.

    table: frame arm, step, objective, value, error, as of `pareto.trajectory_points`; pairs: tuples (x, y) of
    objectives; marks: as in `pareto_panels`. A cross at each checkpoint is one standard error over seeds.
    """
    fig, axes = plt.subplots(
        1, len(pairs), figsize=(3.4 * len(pairs), 3.5), squeeze=False, layout="constrained"
    )
    for ax, pair in zip(axes.flat, pairs, strict=True):
        for arm in present(table["arm"]):
            own = table[table["arm"] == arm]
            x, y = (own[own["objective"] == name].set_index("step").sort_index() for name in pair)
            look = look_of(arm)
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
    legend_below(fig, *axes.flat)
    return fig


def _arm_look(arm, family):
    """A method keeps its own look; every other arm has its family's."""
    if arm in METHODS:
        return look_of(arm)
    colour, marker = FAMILY_COLOURS.get(family, PAPER_COLOUR), FAMILY_MARKERS.get(family, "o")
    return {"color": colour, "marker": marker, "label": _family_label(family)}


def _family_label(family):
    return FAMILY_LABELS.get(family, family.replace("_", " ").capitalize())
