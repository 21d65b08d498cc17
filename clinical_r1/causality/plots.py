"""One figure of the probes: for every arm how true its claims are, and whether they move its answers, side by side."""

import matplotlib.pyplot as plt
import numpy as np

from clinical_r1.arms import ARMS
from clinical_r1.intervals import mean_interval
from clinical_r1.labels import METHOD_LABELS
from clinical_r1.plots import ASIDE, LIT, SMALL, look_of, note_above

TRUE_CLAIMS = "true_claims"
PANELS = {
    TRUE_CLAIMS: "True claims a response",
    "swap": "Answers that follow a swap (%)",
    "agreement": "Answers that agree\nwith their claims (%)",
    "direct": "Right without reasoning,\nretrained (%)",
}
PER_CENT = tuple(PANELS)[1:]
LONGEST = 32  # characters of an arm's label


def weight_of_claims(rows, sampled=None, benchmark: str = "clinic"):
    """Frame method, seed, measure, value: true claims a sampled answer, and the shares of three probes in per cent.

    rows: causality.csv (method, seed, probe, share). sampled: scored answers with method, seed, benchmark and `measures`, or
    None; arms without any there, such as the laboratory's, have no true claims.
    """
    import pandas as pd

    kept = rows[rows["probe"].isin(PER_CENT)]
    shares = kept.assign(measure=kept["probe"], value=100 * kept["share"])
    parts = [shares[["method", "seed", "measure", "value"]]]
    if sampled is not None:
        own = sampled[(sampled["benchmark"] == benchmark) & sampled["method"].isin(set(rows["method"]))]
        counts = own.assign(value=[(given or {}).get("faithfulness", np.nan) for given in own["measures"]])
        means = counts.groupby(["method", "seed"], sort=False)["value"].mean().reset_index()
        parts.insert(0, means.assign(measure=TRUE_CLAIMS).dropna())
    table = pd.concat(parts, ignore_index=True)[["method", "seed", "measure", "value"]]
    return table.dropna(subset="value", ignore_index=True)


def causal_weight(table):
    """One panel a measure, one line an arm: every seed small, their mean large with its 95 % interval over seeds.

    table: `weight_of_claims`. An arm without a value in a panel has "not asked" there. ValueError for an empty table.
    """
    measures = [name for name in PANELS if name in set(table["measure"])]
    if not measures:
        raise ValueError(f"the table holds {sorted(set(table['measure']))}; expected some of {list(PANELS)}.")
    arms = list(dict.fromkeys(table["method"]))
    figure, axes = plt.subplots(
        1,
        len(measures),
        figsize=(2.2 + 2.3 * len(measures), 1.5 + 0.36 * len(arms)),
        sharey=True,
        layout="constrained",
        squeeze=False,
    )
    for ax, measure in zip(axes[0], measures, strict=True):
        own = table[table["measure"] == measure]
        for place, arm in enumerate(arms):
            _arm(
                ax,
                place,
                arm,
                own.loc[own["method"] == arm, "value"].to_numpy(),
                100 if measure in PER_CENT else np.inf,
            )
        ax.set_title(PANELS[measure])
        ax.set_xlim(*(-3, 103) if measure in PER_CENT else (0, 1.15 * max(own["value"].max(), 0.1)))
        ax.grid(axis="y", visible=False)
    axes[0, 0].set_yticks(range(len(arms)), [_label(arm) for arm in arms])
    axes[0, 0].set_ylim(len(arms) - 0.5, -0.5)
    several = table.groupby(["method", "measure"])["seed"].nunique().max() > 1
    note_above(
        figure,
        "Small marks: training seeds; large marks: their mean with its 95 % interval over seeds."
        if several
        else "One training seed.",
    )
    return figure


def _label(arm):
    """What an arm is called beside its line, cut where it would leave no room for the panels."""
    label = METHOD_LABELS.get(arm) or (ARMS[arm].label if arm in ARMS else arm)
    return label if len(label) <= LONGEST else f"{label[: LONGEST - 1]}…"


def _arm(ax, place, arm, values, most):
    if not len(values):
        look = {"color": ASIDE, "fontsize": SMALL, "va": "center"}
        ax.text(0.03, place, "not asked", transform=ax.get_yaxis_transform(), **look)
        return
    family = ARMS[arm].family if arm in ARMS else ""
    look = look_of(arm, None if arm in METHOD_LABELS else family)
    spread = np.linspace(-0.16, 0.16, len(values)) if len(values) > 1 else [0.0]
    ax.scatter(
        values, place + np.asarray(spread), s=9, color=look["color"], alpha=0.45, linewidths=0, zorder=2
    )
    mean = values.mean()
    if len(values) > 1 and values.std() > 0:
        ax.plot(
            np.clip(mean_interval(values), 0, most),
            [place, place],
            color=look["color"],
            lw=2,
            path_effects=LIT,
            zorder=3,
        )
    ax.plot(mean, place, look["marker"], color=look["color"], ms=7, mec="white", mew=0.8, zorder=4)
