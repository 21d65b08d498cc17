"""Figures of trade-offs: pairs of objectives with their fronts, all objectives of an arm in one line, checkpoints on their way.

One collapsed arm does not stretch an axis: it stands at the border with an arrow and its values. Draws, never computes.
"""

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.text import Text

from clinical_r1.arms import METHODS
from clinical_r1.labels import OBJECTIVE_LABELS, PAPER_COLOUR, QUIET_COLOUR
from clinical_r1.plots import (
    ASIDE,
    LIT,
    SLIDE,
    SMALL,
    errors_of,
    interval_words,
    legend_below,
    legend_beside,
    look_of,
    note_above,
    present,
)

HOLLOW = {"markerfacecolor": "white", "markeredgecolor": PAPER_COLOUR, "markeredgewidth": 1.2}
PAPER_WHITE = {
    "facecolor": "white",
    "edgecolor": "none",
    "alpha": 0.85,
    "pad": 0.6,
}  # behind a name, over lines
BORDER = 0.05  # of the panel: how far from its edge stands what lies beyond it
BEYOND = 0.08  # of an axis: how far outside stands what lies beyond it, in parallel coordinates


def pareto_panels(points, fronts, marks=None):
    """Arms in pairs of objectives, a panel a pair; better is up and to the right. Returns the figure.

    points: frame arm, family, label, objective, value, ci_low, ci_high, higher_is_better. fronts: frame space ("x and y"),
    arm, on_front, frequency; its spaces of two objectives are the panels. marks: name -> {objective: value}, hollow. The
    methods and what is on the front (with its frequency over draws) have names and intervals; grey joins the front. Axes fit
    the bulk of the arms: what is far from it stands at the border, with an arrow and its values.
    """
    spaces = [space for space in dict.fromkeys(fronts["space"]) if len(space.split(" and ")) == 2]
    if not spaces:
        raise ValueError(f"fronts has the spaces {sorted(set(fronts['space']))}; expected pairs: 'x and y'.")
    across = min(2, len(spaces))
    down = -(-len(spaces) // across)
    size = (min(SLIDE[0], 5.2 * across + 2.1), min(SLIDE[1], 3.15 * down + 0.4))
    fig, axes = plt.subplots(down, across, figsize=size, squeeze=False, layout="constrained")
    for ax, space in zip(axes.flat, spaces, strict=False):
        front = fronts[fronts["space"] == space].set_index("arm")
        _pareto_panel(ax, points, front, space.split(" and "), marks or {})
    for ax in axes.flat[len(spaces) :]:
        ax.remove()
    legend_beside(fig, *axes.flat[: len(spaces)])
    note = "In brackets: how often on the front, over draws; of what lies beyond an axis, both values."
    note_above(fig, f"{interval_words(points)}. {note}")
    fig.canvas.draw()  # the layout settles before names are placed
    for ax in axes.flat[: len(spaces)]:
        _place_names(ax)
    return fig


def _pareto_panel(ax, points, front, space, marks):
    x, y = (points[points["objective"] == objective].set_index("arm") for objective in space)
    targets = {name: [mark[o] for o in space] for name, mark in marks.items() if set(space) <= set(mark)}
    for axis, own, objective, place in (("x", x, space[0], 0), ("y", y, space[1], 1)):
        _set_axis(ax, axis, objective, own["value"], [target[place] for target in targets.values()])
        if not own["higher_is_better"].all():
            getattr(ax, f"invert_{axis}axis")()
    ax.names, ax.spots, ax.outside = [], [], []
    for arm in x.index:
        at = x.loc[arm, "value"], y.loc[arm, "value"]
        share = f" ({front.loc[arm, 'frequency']:.0%})" if front.loc[arm, "on_front"] else ""
        named, look = arm in METHODS or bool(share), look_of(arm, x.loc[arm, "family"])
        if not _is_seen(ax, at):
            ax.outside.append((at, f"{x.loc[arm, 'label']}{share}", look))
            continue
        if named:
            bars = {f"{axis}err": np.array(errors_of(own.loc[[arm]])) for axis, own in (("x", x), ("y", y))}
            ax.errorbar(*at, fmt="none", elinewidth=0.8, ecolor="#ABABAB", zorder=1.5, **bars)
            ax.plot(*at, ls="none", ms=7, zorder=4, **look)
            ax.names.append((at, f"{x.loc[arm, 'label']}{share}"))
        else:
            ax.plot(*at, ls="none", ms=5, zorder=2, **look)
        ax.spots.append(at)
    on_front = [(x.loc[arm, "value"], y.loc[arm, "value"]) for arm in x.index if front.loc[arm, "on_front"]]
    line = np.array(sorted(at for at in on_front if _is_seen(ax, at))).reshape(-1, 2)
    ax.plot(*line.T, color="#9A9A9A", lw=1, zorder=1, scalex=False, scaley=False)
    _put_targets(ax, targets)


def _set_axis(ax, axis, objective, values, others=()):
    """The bulk of the values, a margin, and on each side room for what lies beyond it: of the values, or of the others."""
    low, high = bulk(values)
    span = (high - low) or 1.0
    everything = [*values, *others]
    below, above = min(everything) < low - 0.1 * span, max(everything) > high + 0.1 * span
    getattr(ax, f"set_{axis}lim")(
        low - (0.25 if below else 0.1) * span, high + (0.25 if above else 0.1) * span
    )
    getattr(ax, f"set_{axis}label")(OBJECTIVE_LABELS.get(objective, objective))


def bulk(values):
    """(lowest, highest) value of all, unless leaving out those beyond Tukey's outer fences halves the axis."""
    q1, q3 = np.quantile(values, [0.25, 0.75])
    near = values[(values >= q1 - 3 * (q3 - q1)) & (values <= q3 + 3 * (q3 - q1))]
    seen = near if 0 < np.ptp(near) < np.ptp(values) / 2 else values
    return seen.min(), seen.max()


def _is_seen(ax, at):
    (left, right), (low, high) = sorted(ax.get_xlim()), sorted(ax.get_ylim())
    return left <= at[0] <= right and low <= at[1] <= high


def _put_targets(ax, targets):
    """Hollow marks of {name: (x, y)}; last, because the border is shared among all that lie beyond it."""
    for (name, at), shape in zip(targets.items(), "DsP", strict=False):
        look = {"marker": shape, "label": name, "color": PAPER_COLOUR} | HOLLOW
        if _is_seen(ax, at):
            ax.plot(*at, ls="none", ms=7, zorder=4, **look)
            ax.spots.append(at)
        else:
            ax.outside.append((at, name, look))
    _fill_border(ax)


def _fill_border(ax):
    """A marker at the edge of the panel, an arrow towards where it lies, and its name with both values, for all `ax.outside`."""
    to_panel = ax.transData + ax.transAxes.inverted()
    wanted = np.array([to_panel.transform(at) for at, *_ in ax.outside]).reshape(-1, 2)
    inside = np.clip(wanted, BORDER, 1 - BORDER)
    for side in set(inside[:, 0]):  # what stands on one side keeps its order and a distance
        there = inside[:, 0] == side
        heights = _spread(inside[there, 1], 0.1)
        heights -= max(0, heights.max() - 1 + BORDER) + min(0, heights.min() - BORDER)
        inside[there, 1] = heights
    for (at, name, look), (u, v), far in zip(ax.outside, inside, wanted, strict=True):
        ax.plot(u, v, ls="none", ms=6, zorder=4, transform=ax.transAxes, **look)
        outwards = np.where((far < 0) | (far > 1), np.sign(far - 0.5), 0) * 15
        arrow = {"arrowstyle": "<|-", "color": look["color"], "lw": 1, "shrinkA": 0, "shrinkB": 3}
        place = {"xycoords": "axes fraction", "textcoords": "offset points", "annotation_clip": False}
        ax.annotate("", (u, v), xytext=tuple(outwards), arrowprops=arrow, **place).set_in_layout(False)
        spot = to_panel.inverted().transform((u, v))
        ax.spots.append(spot)
        ax.names.append((spot, f"{name} ({at[0]:.3g}, {at[1]:.3g})"))


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
            line = {"arrowstyle": "-", "color": ASIDE, "lw": 0.6, "ls": ":"} if distance > 10 else None
            place = {"xytext": (dx, dy), "textcoords": "offset points", "ha": side, "va": "center"}
            name = ax.annotate(
                text, at, fontsize=SMALL, arrowprops=line, zorder=2.5, bbox=PAPER_WHITE, **place
            )
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


def parallel_objectives(points, marks=None, named=None):
    """Parallel coordinates: an axis an objective, a line an arm, up is better. Returns the figure.

    points, marks: as in `pareto_panels`. named: the arms that have a colour and a name at the end of their line; default: the
    methods and the best arm of each objective. All others are grey. Each axis runs from the worst to the best arm of the bulk;
    beyond it an arm stands just outside, with its value. Marks are written below, because they lie far beyond every arm.
    """
    table = points.pivot(index="arm", columns="objective", values="value")
    about = points.drop_duplicates("arm").set_index("arm")
    better = points.drop_duplicates("objective").set_index("objective")["higher_is_better"]
    objectives = list(better.index)
    if named is None:
        best = [table[o].idxmax() if better[o] else table[o].idxmin() for o in objectives]
        named = list(dict.fromkeys([arm for arm in about.index if arm in METHODS] + best))
    if unknown := set(named) - set(about.index):
        raise ValueError(f"points has no arms {sorted(unknown)}; expected some of {list(about.index)}.")
    ends = {o: bulk(table[o])[:: 1 if better[o] else -1] for o in objectives}
    heights = (table[objectives] - [ends[o][0] for o in objectives]) / [
        np.subtract(*ends[o][::-1]) or 1.0 for o in objectives
    ]
    fig, ax = plt.subplots(figsize=(11.0, 5.6), layout="constrained")
    for arm in about.index.difference(named):
        ax.plot(
            heights.loc[arm].clip(-BEYOND, 1 + BEYOND), color=QUIET_COLOUR, lw=0.9, zorder=1, clip_on=False
        )
    _named_lines(ax, named, about, heights, table[objectives])
    for i, o in enumerate(objectives):
        ax.plot([i, i], [0, 1], color="#8A8A8A", lw=1.2, zorder=2)
        for end, value in enumerate(ends[o]):
            beside = {"xytext": (-9, 0), "textcoords": "offset points", "ha": "right", "va": "center"}
            ax.annotate(f"{value:.3g}", (i, end), zorder=5, path_effects=LIT, annotation_clip=False, **beside)
    ax.set_xticks(range(len(objectives)), [OBJECTIVE_LABELS.get(o, o) for o in objectives], fontsize=10)
    ax.set(yticks=[], ylim=(-1.6 * BEYOND, 1 + 1.6 * BEYOND), xlim=(-0.2, len(objectives) - 1 + 0.95))
    ax.tick_params(length=0)
    ax.grid(visible=False)
    ax.spines[["left", "bottom"]].set_visible(False)
    far = [f"{name} ({', '.join(f'{mark[o]:.3g}' for o in objectives)})" for name, mark in (marks or {}).items()
           if set(objectives) <= set(mark)]  # fmt: skip
    note = "At an axis: its worst and its best arm; beyond that an arm stands just outside, with its value. Grey: other arms"
    fig.supxlabel("; ".join([note, *far]), fontsize=SMALL, color=ASIDE)
    return fig


def _named_lines(ax, named, about, heights, values):
    """Lines with a marker and a name at the right end; arms of one family differ in their dashes."""
    ends = _spread(heights.loc[list(named)].iloc[:, -1].clip(-BEYOND, 1 + BEYOND).to_numpy(), 0.062)
    right = values.shape[1] - 1
    families = [about.loc[arm, "family"] if arm not in METHODS else arm for arm in named]
    for i, (arm, end) in enumerate(zip(named, ends, strict=True)):
        look = look_of(arm, about.loc[arm, "family"]) | {"label": about.loc[arm, "label"]}
        dashes = ("-", "--", ":", "-.")[families[:i].count(families[i]) % 4]
        drawn = heights.loc[arm].clip(-BEYOND, 1 + BEYOND)
        ax.plot(drawn, ls=dashes, lw=1.8, markersize=6, zorder=3, clip_on=False, **look)
        ax.plot([right, right + 0.12], [drawn.iloc[-1], end], color=look["color"], lw=0.8, clip_on=False)
        ax.text(right + 0.14, end, look["label"], va="center", fontsize=9)
        for place, (height, value) in enumerate(zip(heights.loc[arm], values.loc[arm], strict=True)):
            if not 0 <= height <= 1:
                others = heights.loc[list(named)].iloc[:, place]
                _write_beyond(ax, (place, height), f"{look['label']}: {value:.3g}", others, place == right)


def _write_beyond(ax, at, text, others, last):
    """The value of an arm beyond an axis; the farther out, the farther its line of text. Left of the last axis: names follow."""
    place, height = at
    nearer = (
        sum(0 > others) - sum(others <= height) if height < 0 else sum(others >= height) - sum(others > 1)
    )
    away = {
        "xytext": (-9 if last else 9, -11 * nearer),
        "textcoords": "offset points",
        "ha": "right" if last else "left",
    }
    spot = place, np.clip(height, -BEYOND, 1 + BEYOND)
    look = {"va": "center", "fontsize": SMALL, "zorder": 5, "path_effects": LIT, "annotation_clip": False}
    ax.annotate(text, spot, **away, **look)


def _spread(heights, gap):
    """Places near the heights, in their order, that are at least `gap` apart."""
    order = np.argsort(heights, kind="stable")
    places = heights[order].astype(float)
    for i in range(1, len(places)):
        places[i] = max(places[i], places[i - 1] + gap)
    places -= (places - heights[order]).mean()
    spread = np.empty_like(places)
    spread[order] = places
    return spread


def trajectories(table, pairs, marks=None):
    """Checkpoints through objective space, an arrow from each to the next, a panel a pair. Returns the figure.

    table: frame arm, step, objective, value, error, as of `pareto.trajectory_points`; pairs: tuples (x, y) of
    objectives; marks: as in `pareto_panels`. A cross at each checkpoint is one standard error over seeds.
    """
    size = (min(SLIDE[0], 4.1 * len(pairs)), 4.4)
    fig, axes = plt.subplots(1, len(pairs), figsize=size, squeeze=False, layout="constrained")
    for ax, pair in zip(axes.flat, pairs, strict=True):
        ax.names, ax.spots, ax.outside = [], [], []
        targets = {
            name: [mark[o] for o in pair] for name, mark in (marks or {}).items() if set(pair) <= set(mark)
        }
        for axis, name, place in (("x", pair[0], 0), ("y", pair[1], 1)):
            rows = table[table["objective"] == name]
            reach = np.concatenate(
                [rows["value"] - rows["error"].fillna(0), rows["value"] + rows["error"].fillna(0)]
            )
            _set_axis(ax, axis, name, reach, [target[place] for target in targets.values()])
            if OBJECTIVE_LABELS.get(name, name).endswith("↓"):
                getattr(ax, f"invert_{axis}axis")()
        for arm in present(table["arm"]):
            _trajectory(ax, table[table["arm"] == arm], pair, look_of(arm))
        _put_targets(ax, targets)
    steps = ", ".join(f"{step}" for step in sorted(set(table["step"])))
    note = f"Arrows: from one checkpoint to the next (steps {steps})."
    note += " Cross: one standard error over seeds." if table["error"].notna().any() else ""
    note_above(fig, note + (" Arrow at the border: beyond the axis, with both values." if marks else ""))
    legend_below(fig, *axes.flat)
    fig.canvas.draw()
    for ax in axes.flat:
        _place_names(ax)
    return fig


def _trajectory(ax, own, pair, look):
    x, y = (own[own["objective"] == name].set_index("step").sort_index() for name in pair)
    bars = {"xerr": x["error"], "yerr": y["error"], "ls": "none", "ms": 5.5, "elinewidth": 0.7}
    ax.errorbar(x["value"], y["value"], **bars, **look)
    spots = list(zip(x["value"], y["value"], strict=True))
    ax.spots += spots
    for start, end in zip(spots, spots[1:], strict=False):
        arrow = {"arrowstyle": "-|>", "color": look["color"], "lw": 1.3, "shrinkA": 3, "shrinkB": 1}
        ax.annotate("", end, start, arrowprops=arrow)
