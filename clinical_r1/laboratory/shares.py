"""Who owns the advantage: each objective's share, as logged in training and as calculated beforehand."""

import numpy as np

from clinical_r1.arms import ARMS, REFERENCE
from clinical_r1.laboratory.draws import mean_over_seeds, seed_means
from clinical_r1.laboratory.records import (
    ACCURACY,
    CONSISTENCY,
    FILES,
    FIX,
    REASONING,
    TERMS,
    reward_weights,
    weight_of_accuracy,
)

PREDICTED = ("k0", "k1", "k3", "crpo", "k30", "mo_grpo", "gdpo")


def shares(lab, arms, window=10):
    """Who owned the advantage over training: frame arm, label, step, term, share (mean over seeds, then of `window` steps).

    The term "tied groups" is no share: it is the part of groups whose answers are all right or all wrong.
    """
    import pandas as pd

    labels, rows = lab.arms.set_index("arm")["label"].to_dict(), []
    if REFERENCE in labels:
        labels[REFERENCE] += f" (k = {weight_of_accuracy(REFERENCE):g})"
    for arm in arms:
        own = lab.training[lab.training["arm"] == arm].groupby("step").mean(numeric_only=True)
        for column in _advantage_columns(own):
            if own[column].notna().any():
                value = own[column].rolling(window, min_periods=1).mean()
                names = {"arm": arm, "label": labels[arm], "term": _term(column)}
                rows.append(pd.DataFrame({**names, "step": value.index, "share": value.to_numpy()}))
    if not rows:
        raise ValueError(f"{FILES['training']} logs no advantage of {list(arms)}; {FIX}.")
    return pd.concat(rows, ignore_index=True)


def _advantage_columns(frame):
    tied = ["advantage/tied_groups"] if "advantage/tied_groups" in frame else []
    return [c for c in frame if c.startswith("advantage/") and c.endswith("/share")] + tied


def _term(column):
    return column.removeprefix("advantage/").removesuffix("/share").replace("tied_groups", "tied groups")


def shares_table(lab, arms):
    """Early and late thirds of training: frame arm, third, term, value, ci_low, ci_high, seeds.

    Student's t over seeds, cut off at 0 and 1, which no share can leave.
    """
    import pandas as pd

    rows = []
    for arm in arms:
        for column in _advantage_columns(lab.training):
            for third in ("early", "late"):
                values = seed_means(lab, arm, column, third)
                if values is not None:
                    rows.append(
                        {"arm": arm, "third": third, "term": _term(column), **mean_over_seeds(values)}
                    )
    frame = pd.DataFrame(rows)
    bounds = ["ci_low", "ci_high"]
    return frame.assign(**frame[bounds].clip(0, 1)) if rows else frame


def predicted_shares(rewards, num_generations, arms=PREDICTED):
    """Shares of the advantage in simulated groups, counted as in the training log: frame arm, one column a term, in_mixed.

    rewards: (N, 3) in the order of TERMS (`reward_arithmetic.simulated_rewards`). Each arm has its own weights and aggregation.
    in_mixed: accuracy's share in the groups that hold right and wrong answers.
    """
    import pandas as pd

    from clinical_r1.advantages import contributions

    mixed = np.ptp(np.asarray(rewards)[:, 0].reshape(-1, num_generations), axis=1).repeat(num_generations) > 0
    rows = []
    for arm in arms:
        parts = (
            contributions(rewards, reward_weights(arm), num_generations, ARMS[arm].aggregation).abs().numpy()
        )
        by_term = dict(zip(TERMS, parts.sum(axis=0) / parts.sum(), strict=True))
        rows.append({"arm": arm} | by_term | {"in_mixed": parts[mixed, 0].sum() / parts[mixed].sum()})
    return pd.DataFrame(rows)


def claims(lab, predicted, saturated):
    """What was calculated before training (who owns the advantage, and what k does) against trained arms.

    predicted, saturated: frames of `predicted_shares` for simulated groups, the latter with every conclusion citing.
    Frame claim, quantity, predicted, measured, ci_low, ci_high (Student's t over seeds), seeds, expected ("above x" or
    "below x"), verdict: "holds" or "contradicted" where the interval lies on one side, "open" where it does not, "one
    seed" without an interval, "not measured" where an arm or column is absent.
    """
    import pandas as pd

    rows = []
    for claim, quantity, expected, bound, forecast, measured in _claims(
        lab, predicted.set_index("arm"), saturated.set_index("arm")
    ):
        numbers = {"value": np.nan, "ci_low": np.nan, "ci_high": np.nan, "seeds": 0}
        if measured is not None and len(measured):
            numbers = mean_over_seeds(measured)
        row = {"claim": claim, "quantity": quantity, "predicted": forecast, "measured": numbers.pop("value")}
        verdict = _verdict(numbers, expected, bound)
        rows.append(row | numbers | {"expected": f"{expected} {bound:g}", "verdict": verdict})
    return pd.DataFrame(rows)


def _verdict(numbers, expected, bound):
    if numbers["seeds"] < 2:
        return "one seed" if numbers["seeds"] else "not measured"
    above, below = numbers["ci_low"] > bound, numbers["ci_high"] < bound
    if not (above or below):
        return "open"
    return "holds" if above == (expected == "above") else "contradicted"


def _claims(lab, predicted, saturated):
    """(claim, quantity, "above" | "below", bound, predicted, Series over seeds or None), one per claim."""

    def share(arm, term, third="all"):
        return seed_means(lab, arm, f"advantage/{term}/share", third)

    def minus(a, b):
        return None if a is None or b is None else (a - b).dropna()

    at, own = predicted.loc, REFERENCE
    for claim, arm in (
        ("With k = 10, accuracy owns the advantage of mixed groups", own),
        ("With k = 3, it already does", "k3"),
    ):
        measured = _share_in_mixed_groups(lab, arm)
        yield claim, "share of accuracy in mixed groups", "above", 0.5, at[arm, "in_mixed"], measured
    for claim, term, side in (
        ("k moves accuracy's share", ACCURACY, "above"),
        ("A large k crowds clinical reasoning out", REASONING, "below"),
    ):
        quantity = f"share of {term.removesuffix('_reward').replace('_', ' ')}, k = 30 minus k = 1"
        forecast, measured = at["k30", term] - at["k1", term], minus(share("k30", term), share("k1", term))
        yield claim, quantity, side, 0.0, forecast, measured
    yield (
        "Where accuracy ties, the other terms decide, however large k",
        "correlation over steps of tied groups and the others' share, k = 30", "above", 0.0,
        np.nan, _tied_correlation(lab, "k30"),
    )  # fmt: skip
    yield (
        "Once reasoning saturates, character noise takes its place", "share of consistency, late minus early, k = 10",
        "above", 0.0, saturated.loc[own, CONSISTENCY] - at[own, CONSISTENCY],
        minus(share(own, CONSISTENCY, "late"), share(own, CONSISTENCY, "early")),
    )  # fmt: skip
    for arm in ("mo_grpo", "gdpo"):
        for term in (ACCURACY, CONSISTENCY):
            forecast = at[arm, term] - at[own, term]
            yield (
                f"{ARMS[arm].label}, weights {', '.join(f'{w:g}' for w in reward_weights(arm))}",
                f"share of {term.removesuffix('_reward')}, minus that of the normalised sum",
                "above" if forecast > 0 else "below", 0.0, forecast, minus(share(arm, term), share(own, term)),
            )  # fmt: skip


def _share_in_mixed_groups(lab, arm):
    """Series seed -> accuracy's share where answers differ, or None.

    In normalised groups the |advantages| add up to nearly the same number, so mixed groups hold (1 - tied) of
    (1 - silent) of all. Accuracy has a contribution nowhere else.
    """
    share, tied, silent = (
        seed_means(lab, arm, f"advantage/{name}")
        for name in (f"{ACCURACY}/share", "tied_groups", "silent_groups")
    )
    if share is None or tied is None:
        return None
    return share * (1 - (0 if silent is None else silent)) / (1 - tied)


def _tied_correlation(lab, arm):
    """Series seed -> correlation over training steps of tied groups with the share that accuracy does not have."""
    columns = ["advantage/tied_groups", f"advantage/{ACCURACY}/share"]
    own = lab.training[lab.training["arm"] == arm]
    if own.empty or any(column not in own for column in columns):
        return None
    own = own.dropna(subset=columns)
    values = own.groupby("seed")[columns].apply(lambda rows: -rows.corr().iloc[0, 1])
    return values.dropna()
