"""The figure of truth and weight of claims.   pytest tests/causality/test_figure.py"""

import numpy as np
import pandas as pd
import pytest
from legible import assert_legible, fresh_figures

from clinical_r1.causality.plots import PANELS, TRUE_CLAIMS, causal_weight, weight_of_claims
from clinical_r1.labels import METHOD_LABELS
from clinical_r1.plots import set_style

assert fresh_figures  # a fixture
ARMS = ("baseline", "grpo", "crpo", "cold_start_grpo", "cold_start_crpo", "exact_tally")


def probed(seeds=(0, 1, 2), arms=ARMS):
    """causality.csv, with a share that names its arm, seed and probe."""
    return pd.DataFrame(
        [
            {"method": arm, "seed": seed, "probe": probe, "share": 0.1 * i + 0.01 * seed + 0.2 * j}
            for i, arm in enumerate(arms)
            for seed in seeds
            for j, probe in enumerate(("swap", "agreement", "direct", "denied"))
            if probe != "direct" or seed == 0
        ]
    )


def sampled(seeds=(0, 1, 2), arms=ARMS[:5]):
    return pd.DataFrame(
        [
            {"method": arm, "seed": seed, "benchmark": benchmark, "measures": {"faithfulness": i + seed + n}}
            for i, arm in enumerate(arms)
            for seed in seeds
            for benchmark in ("clinic", "clinic-shift")
            for n in (0, 2)
        ]
    )


def test_the_table_holds_each_arm_and_seed_and_says_nothing_of_what_was_not_counted():
    table = weight_of_claims(probed(), sampled()).set_index(["method", "seed", "measure"])["value"]
    assert table["crpo", 1, TRUE_CLAIMS] == 2 + 1 + 1  # the mean of two answers, on `clinic` only
    assert table["crpo", 1, "swap"] == pytest.approx(21) and table["crpo", 0, "direct"] == pytest.approx(60)
    assert ("exact_tally", 0, TRUE_CLAIMS) not in table.index and ("crpo", 1, "direct") not in table.index
    assert "denied" not in table.index.get_level_values("measure")
    assert TRUE_CLAIMS not in set(weight_of_claims(probed())["measure"])


def test_the_figure_is_legible_and_shows_every_mean():
    table = weight_of_claims(probed(), sampled())
    figure = causal_weight(table)
    assert_legible(figure)
    assert [ax.get_title(loc="left") for ax in figure.axes] == list(PANELS.values())
    for ax, measure in zip(figure.axes, PANELS, strict=True):
        drawn = [line.get_xdata()[0] for line in ax.lines if len(line.get_xdata()) == 1]
        means = table[table["measure"] == measure].groupby("method", sort=False)["value"].mean()
        assert np.allclose(drawn, means)
    assert "not asked" in [
        text.get_text() for text in figure.axes[0].texts
    ]  # the exact tally is not in Table 1


def test_one_seed_and_one_panel_have_no_interval():
    figure = causal_weight(weight_of_claims(probed((0,), ARMS[:1]).query("probe == 'swap'")))
    (ax,) = figure.axes
    assert all(len(line.get_xdata()) == 1 for line in ax.lines)
    assert figure.get_suptitle() == "One training seed."
    with pytest.raises(ValueError, match="expected some of"):
        causal_weight(probed().assign(measure="denied", value=1.0).head(0))


def test_arms_of_a_stranger_are_drawn_and_what_has_no_value_was_not_asked(monkeypatch):
    monkeypatch.setitem(METHOD_LABELS, "odd", "$\\foo$ " + 200 * "x")
    answers = sampled((0,), ("baseline", "crpo"))
    answers["measures"] = [None if row.method == "crpo" else row.measures for row in answers.itertuples()]
    shares = probed((0,), ("baseline", "crpo", "odd", "k30", "nobody"))
    shares.loc[shares["method"] == "nobody", "share"] = np.nan
    table = weight_of_claims(shares, answers)
    assert "nobody" not in set(table["method"]) and table["value"].notna().all()
    assert set(table.loc[table["measure"] == TRUE_CLAIMS, "method"]) == {"baseline"}
    set_style()
    figure = causal_weight(table)
    figure.canvas.draw()  # a $ in a label is no formula
    labels = [text.get_text() for text in figure.axes[0].get_yticklabels()]
    assert max(map(len, labels)) <= 32 and "k = 30" in labels
    causal_weight(table.assign(method="nobody"))
