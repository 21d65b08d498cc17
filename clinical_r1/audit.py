"""Checks on the printed numbers: what follows from them by arithmetic, and what cannot be known.

Pure: no model, no data, no network. Each check returns a tidy frame, and names the innocent explanation where
there is one. Printed numbers come from `paper`; what the text says is paraphrased from arXiv 2512.00601. That an
accuracy cannot be k / n shows a denominator that is not printed, not a wrong result.
"""

import numpy as np

from clinical_r1 import paper
from clinical_r1.metrics import LOWER_IS_BETTER, PROCESS_METRICS, holm, wilson_interval
from clinical_r1.settings import METHODS

GAIN_PAIRS = (("crpo", "grpo"), ("cold_start_crpo", "cold_start_grpo"))
VERDICTS = ("consistent", "contradicted", "cannot be checked")

# Other sets of questions that a reader might suspect behind a number
OTHER_SETS = {
    "medqa": {"the development set": 1272},
    "medmcqa": {"only the single-choice items": 2816},
    "medxpertqa": {"the 1,449 text items of a common copy": 1449, "text and images together": 4460},
}
LABELS = {"medqa": "MedQA", "medmcqa": "MedMCQA", "medxpertqa": "MedXpertQA"}
OPTIONS = {"medqa": 5, "medmcqa": 4, "medxpertqa": 10}
# The most frequent gold letter and the questions it was counted on (ours, from the public files)
MAJORITY_LETTER = {"medqa": (277, 1273), "medmcqa": (1348, 4183), "medxpertqa": (153, 1449)}

# Bold in Table 1: cold start + CRPO in every column but these
BOLD = {(benchmark, "hallucination"): "baseline" for benchmark in paper.BENCHMARKS} | {
    ("medxpertqa", "faithfulness"): "cold_start_grpo"
}

REWARD_TERMS = ("accuracy", "clinical reasoning", "consistency")
REWARD_MAXIMA = (1.0, 1.5, 1.0)
EPS = 1e-6  # added to the deviation in the released code
GROUP = 5  # G
# Prompt difficulty: the success probability p of each prompt is 0.5, or Beta(a, a); is r_CR stuck at its maximum?
DIFFICULTIES = {
    "every p = 0.5": (None, False),
    "p ~ Beta(.5, .5)": (0.5, False),
    "p ~ Beta(.2, .2)": (0.2, False),
    "p ~ Beta(.5, .5), reasoning saturated": (0.5, True),
}
WORKED_GROUPS = {  # accuracy, clinical reasoning, consistency of five completions
    "three right, one of them cites": [
        (1, 1.5, 0.985),
        (1, 1, 0.985),
        (1, 1, 0.985),
        (0, 1, 0.985),
        (0, 1, 0.985),
    ],
    "all right, all cite, characters differ": [
        (1, 1.5, ratio) for ratio in (0.980, 0.985, 0.988, 0.990, 0.992)
    ],
}


# --- 1. accuracies as k / n


def fits(percent, n, cut=False):
    """Is a two-decimal percentage some 100 k / n? The vectorised `paper.attainable`, in whole numbers.

    percent: a number, or an array that broadcasts against n. cut: decimals cut off rather than rounded.
    """
    hundredths = np.rint(np.asarray(percent, dtype=float) * 100).astype(np.int64)
    n = np.asarray(n, dtype=np.int64)
    if (n <= 0).any() or ((hundredths < 0) | (hundredths > 10_000)).any():
        raise ValueError(f"fits got percent={percent}, n={n}; expected a percentage in [0, 100] and n > 0.")
    rest = hundredths * n % 10_000
    if cut:
        return (rest == 0) | (10_000 - rest < n)
    return 2 * np.minimum(rest, 10_000 - rest) <= n


def share_of_any(n):
    """Of all two-decimal percentages, the share [0, 1] that some k / n gives: how easily a number fits by luck."""
    return float(fits(np.arange(10_001) / 100, n).mean())


def attainability(window=50):
    """Frame of the 15 printed accuracies: is each k / n at the full test size, and which n' <= n would make it so?

    Columns: benchmark, method, printed (per cent), n, attainable (rounded), attainable_if_cut, share_of_any,
    nearest_n (largest n' <= n that fits), dropped (n - nearest_n), fits_in_window (how many of n, n - 1, ..,
    n - window fit).
    """
    rows = []
    for benchmark, method, printed, n in _accuracies():
        smaller = np.arange(n, 0, -1)
        fit = fits(printed, smaller)
        rows.append(
            {
                "benchmark": benchmark,
                "method": method,
                "printed": printed,
                "n": n,
                "attainable": bool(fit[0]),
                "attainable_if_cut": bool(fits(printed, n, cut=True)),
                "share_of_any": share_of_any(n),
                "nearest_n": int(smaller[fit.argmax()]),
                "dropped": int(fit.argmax()),
                "fits_in_window": int(fit[: window + 1].sum()),
            }
        )
    return _frame(rows)


def denominator_fits(dropped=60):
    """Tidy frame benchmark, method, dropped (0 .. dropped unread answers left out), fits (bool)."""
    left_out = np.arange(dropped + 1)
    rows = [
        {"benchmark": benchmark, "method": method, "dropped": int(d), "fits": bool(fit)}
        for benchmark, method, printed, n in _accuracies()
        for d, fit in zip(left_out, fits(printed, n - left_out), strict=True)
    ]
    return _frame(rows)


def shared_denominators(samples=range(2, 9)):
    """One denominator for all five methods of a benchmark: frame benchmark, denominator, n, fits, share_of_any.

    fits: how many of the five accuracies it allows. Tried: the full test set, other sets of questions, averages
    over s samples (k / (n s)), and every smaller n' (the largest that allows all five; n missing where none does).
    """
    import pandas as pd

    rows = []
    for benchmark in paper.BENCHMARKS:
        full = paper.N_QUESTIONS[benchmark]
        printed = np.array([value for name, _, value, _ in _accuracies() if name == benchmark])
        candidates = {"the full test set": full} | OTHER_SETS[benchmark]
        candidates |= {f"mean of {s} samples": full * s for s in samples}
        for name, n in candidates.items():
            rows.append((benchmark, name, n, int(fits(printed, n).sum()), share_of_any(n)))
        smaller = np.arange(1, full + 1)
        common = smaller[fits(printed[:, None], smaller).all(axis=0)]
        name = f"smaller n' ({len(common)} allow all five), the largest"
        rows.append(
            (benchmark, name, int(common[-1]), 5, share_of_any(common[-1]))
            if len(common)
            else (benchmark, name, None, 0, np.nan)
        )
    table = pd.DataFrame(rows, columns=["benchmark", "denominator", "n", "fits", "share_of_any"])
    return table.astype({"n": "Int64"})


# --- 2. intervals and tests


def intervals(level=0.95):
    """Frame benchmark, method, printed, n, ci_low, ci_high (per cent): Wilson at the full test size.

    Covers the choice of questions. Seeds, sampling and checkpoints are not in it: the paper prints one run.
    """
    rows = []
    for benchmark, method, printed, n in _accuracies():
        low, high = wilson_interval(printed * n / 100, n, level)
        row = {"benchmark": benchmark, "method": method, "printed": printed, "n": n}
        rows.append(row | {"ci_low": 100 * low, "ci_high": 100 * high})
    return _frame(rows)


def minimum_detectable(percent, n, power=0.8, alpha=0.05):
    """Smallest rise in points above `percent` that a two-sided unpaired z-test finds with this power, n in each arm."""
    from statsmodels.stats.power import NormalIndPower

    if not 0 < percent < 100 or n <= 0:
        raise ValueError(
            f"minimum_detectable got percent={percent}, n={n}; expected 0 < percent < 100 and n > 0."
        )
    effect = NormalIndPower().solve_power(nobs1=n, alpha=alpha, power=power)  # Cohen's h
    angle = min(np.arcsin(np.sqrt(percent / 100)) + effect / 2, np.pi / 2)
    return float(100 * np.sin(angle) ** 2 - percent)


def gain_tests(power=0.8, alpha=0.05):
    """CRPO minus GRPO, six comparisons: `paper.accuracy_gains` with what n can and cannot show.

    Adds n, p_holm (over the six), detectable (points, unpaired, at this power) and disagreement: the largest share
    of questions, in per cent, on which the two arms may differ in being right for a paired (McNemar, asymptotic)
    test to reach alpha. Nobody can tell it from the paper, which prints no per-question results.
    """
    from scipy.stats import norm

    accuracy = {(benchmark, method): value for benchmark, method, value, _ in _accuracies()}
    table = paper.accuracy_gains()
    table["p_holm"] = holm(table["p"])
    table["n"] = table["benchmark"].map(paper.N_QUESTIONS)
    table["detectable"] = [
        minimum_detectable(accuracy[row.benchmark, row.against], row.n, power, alpha)
        for row in table.itertuples()
    ]
    share = table["n"] * (table["gain"] / 100) ** 2 / norm.isf(alpha / 2) ** 2
    table["disagreement"] = 100 * share.clip(upper=1.0)
    return table


# --- 3. the chance line


def guessing():
    """The printed baseline beside two guessers: one row per benchmark.

    Columns: benchmark, printed, n, k (nearest whole number of right answers), ci_low, ci_high, chance,
    majority_letter (per cent; the letter most frequent among the answers), majority_n (questions it was counted on),
    p_chance (two-sided exact binomial of k against chance), p_majority (the same against the majority letter).
    """
    from scipy.stats import binomtest

    table = intervals().query("method == 'baseline'").drop(columns="method").reset_index(drop=True)
    table["k"] = (table["printed"] * table["n"] / 100).round().astype(int)
    table["chance"] = [100 / OPTIONS[name] for name in table["benchmark"]]
    counts = [MAJORITY_LETTER[name] for name in table["benchmark"]]
    table["majority_letter"] = [100 * most / n for most, n in counts]
    table["majority_n"] = [n for _, n in counts]
    for guess, p in (("chance", "p_chance"), ("majority_letter", "p_majority")):
        table[p] = [
            float(binomtest(k, n, share / 100).pvalue)
            for k, n, share in zip(table["k"], table["n"], table[guess], strict=True)
        ]
    return table


# --- 4. text against table


def text_against_table():
    """Frame claim, where, table_says, verdict (one of VERDICTS), innocent: sentences of the text held to the numbers.

    Claims are paraphrased. What the table says is computed from it; the verdict is about the printed numbers only.
    """
    rows = [
        _accuracy_claim(),
        _process_claim(),
        _hallucination_claim(),
        _cold_start_claim(),
        _bold_claim(),
        _coverage_claim(),
        (
            "CECD is a density",
            "name of the metric",
            f"a mean count per response, {_cell('medqa', 'cold_start_crpo', 'cecd'):.2f} on MedQA; no lengths beside it",
            "contradicted",
            "'per response' is a denominator of a kind; without lengths no count can be made a rate",
        ),
        (
            "MedQA has four choices",
            "text, data",
            "the original files have five in all 1,273 test items, and the paper's own sample (Figure 6) shows A to E",
            "contradicted",
            "a four-option copy is in wide use; if that one was tested, chance is 25 % and not 20 %",
        ),
        (
            "majority voting adds little, as Table 1 shows",
            "text, inference",
            "no row with voting, and no number of votes",
            "cannot be checked",
            "the rows may have been cut for space",
        ),
        (
            "Figure 1 shows the averages of Table 1",
            "Figure 1",
            "the vertices agree with the averages (read off the figure)",
            "consistent",
            "",
        ),
        (
            "Figure 1 shows 100 − hallucination",
            "caption of Figure 1",
            "GRPO, which has the most hallucinations, lies farthest out (read off the figure)",
            "contradicted",
            "a caption written for an earlier drawing",
        ),
        (
            "the highest reward is k + 2",
            "equation 4",
            f"10 + 1.5 + 0.5 = {reward_maximum()['contributes'].sum():g}",
            "consistent",
            "",
        ),
    ]
    return _frame(rows, ["claim", "where", "table_says", "verdict", "innocent"])


def _accuracy_claim():
    tests = gain_tests()
    up, clear = int((tests["gain"] > 0).sum()), int((tests["p_holm"] < 0.05).sum())
    return (
        "CRPO is at least as accurate as GRPO",
        "abstract",
        f"{up} of 6 gains are positive, {clear} of 6 beyond chance at the full test sizes (Holm)",
        "consistent" if up == 6 else "contradicted",
        "the others may be real too: the sets are small and the test unpaired",
    )


def _process_claim():
    worse = [
        (benchmark, method, metric)
        for benchmark in paper.BENCHMARKS
        for method, against in GAIN_PAIRS
        for metric in PROCESS_METRICS
        if not _better(metric, _cell(benchmark, method, metric), _cell(benchmark, against, metric))
    ]
    total = len(paper.BENCHMARKS) * len(GAIN_PAIRS) * len(PROCESS_METRICS)
    named = "; ".join(
        f"{paper.METRIC_LABELS[metric]} of {paper.METHOD_LABELS[method]} on {LABELS[benchmark]}"
        for benchmark, method, metric in worse
    )
    return (
        "CRPO's reasoning is more truthful and more complete than GRPO's",
        "abstract",
        f"better in {total - len(worse)} of {total} comparisons of counts; not in: {named}",
        "consistent",
        "the two may be noise: no count has an interval",
    )


def _hallucination_claim():
    rises = [
        _cell(benchmark, method, "hallucination") - _cell(benchmark, "baseline", "hallucination")
        for benchmark in paper.BENCHMARKS
        for method in METHODS[1:]
    ]
    up = sum(rise > 0 for rise in rises)
    below = sum(
        _cell(benchmark, method, "hallucination") < _cell(benchmark, against, "hallucination")
        for benchmark in paper.BENCHMARKS
        for method, against in GAIN_PAIRS
    )
    return (
        "hallucination falls below the untrained model's (our reading of 'faithful'; not a sentence of the paper)",
        "title",
        f"{up} of {len(rises)} trained cells lie above the untrained baseline, by {min(rises):.2f} to {max(rises):.2f}",
        "contradicted" if up else "consistent",
        f"the paper compares CRPO with GRPO: lower in {below} of 6; and longer answers make more statements",
    )


def _cold_start_claim():
    from statsmodels.stats.proportion import proportions_ztest

    n = paper.N_QUESTIONS["medmcqa"]
    before, after = (_cell("medmcqa", method, "accuracy") for method in ("grpo", "cold_start_grpo"))
    p = proportions_ztest([before * n / 100, after * n / 100], [n, n])[1]
    return (
        "a cold start raises accuracy (our reading of Figure 3)",
        "Figure 3",
        f"GRPO on MedMCQA goes from {before:.2f} to {after:.2f} (unpaired p = {p:.2f}), on MedXpertQA stays "
        f"{_cell('medxpertqa', 'cold_start_grpo', 'accuracy'):.2f}; CRPO rises on all three",
        "contradicted" if after < before else "consistent",
        "the fall is within chance",
    )


def _bold_claim():
    wrong = []
    for benchmark in paper.BENCHMARKS:
        for metric in paper.METRICS:
            bold = BOLD.get((benchmark, metric), "cold_start_crpo")
            values = {method: _cell(benchmark, method, metric) for method in METHODS}
            best = (min if metric in LOWER_IS_BETTER else max)(values, key=values.get)
            if best != bold:
                wrong.append(
                    f"{paper.METRIC_LABELS[metric]} on {LABELS[benchmark]}: {values[bold]:.2f} is bold, "
                    f"{values[best]:.2f} ({paper.METHOD_LABELS[best]}) is larger"
                )
    total = len(paper.BENCHMARKS) * len(paper.METRICS)
    return (
        "bold marks the best of each column",
        "Table 1",
        f"right in {total - len(wrong)} of {total}; " + "; ".join(wrong),
        "contradicted" if wrong else "consistent",
        "typesetting",
    )


def _coverage_claim():
    over = [
        f"{_cell(benchmark, method, 'drc'):.2f} of {OPTIONS[benchmark] - 1} on {LABELS[benchmark]}"
        for benchmark in paper.BENCHMARKS
        for method in METHODS
        if _cell(benchmark, method, "drc") > OPTIONS[benchmark] - 1
    ]
    return (
        "DRC is the coverage of the wrong options",
        "name of the metric",
        f"more rejected than there are: {'; '.join(over)}",
        "contradicted" if over else "consistent",
        "the judge may have counted one option's rejections several times",
    )


# --- 5. Figure 1's caption


def figure1_readings():
    """Frame reading, method, value, rank (1 = farthest out): the hallucination axis of Figure 1, read in two ways."""
    import pandas as pd

    count = paper.averages()["hallucination"].rename("value").rename_axis("method").reset_index()
    readings = {
        "as drawn: the count": count,
        "as captioned: 100 − count": count.assign(value=100 - count["value"]),
    }
    table = pd.concat([frame.assign(reading=name) for name, frame in readings.items()], ignore_index=True)
    table["rank"] = table.groupby("reading")["value"].rank(ascending=False).astype(int)
    return table[["reading", "method", "value", "rank"]]


# --- 6. the arithmetic of the reward


def reward_maximum(k=10.0):
    """Frame term, weight, highest, contributes, share: equation 4 at its maximum, k + 2."""
    import pandas as pd

    table = pd.DataFrame({"term": REWARD_TERMS, "weight": (k, 1.0, 0.5), "highest": REWARD_MAXIMA})
    table["contributes"] = table["weight"] * table["highest"]
    return table.assign(share=table["contributes"] / table["contributes"].sum())


def simulated_rewards(rng, prompts, beta=None, saturated=False):
    """(prompts * GROUP, 3) rewards in REWARD_TERMS' order, each in its own range, a prompt's completions together.

    Accuracy is Bernoulli(p), p = 0.5 or drawn per prompt from Beta(beta, beta); the format holds in 90 % and then
    half the conclusions cite (ours); saturated: all cite. Consistency is N(.985, .01), at most 1.
    """
    shape = (prompts, GROUP)
    p = np.full((prompts, 1), 0.5) if beta is None else rng.beta(beta, beta, size=(prompts, 1))
    accuracy = rng.random(shape) < p
    formatted, cites = rng.random(shape) < 0.9, rng.random(shape) < 0.5
    reasoning = np.full(shape, 1.5) if saturated else formatted * (1 + 0.5 * cites)
    consistency = np.clip(rng.normal(0.985, 0.01, size=shape), 0, 1)
    return np.stack([accuracy, reasoning, consistency], axis=-1).reshape(-1, 3).astype(float)


def advantage_owners(rng, prompts=20_000, k=10.0):
    """Who owns the advantage? Frame difficulty, tied (share of groups all right or all wrong), one column a term.

    The columns of terms hold the correlation of the advantage (equation 3) with the term's distance from its group
    mean, over all completions; NaN where the term never varies. Standard errors are about 1 / sqrt(n), 0.003 here.
    """
    rows = []
    for name, (beta, saturated) in DIFFICULTIES.items():
        rewards = simulated_rewards(rng, prompts, beta, saturated)
        row = {"difficulty": name, "tied": float(_tied(rewards).mean()), "n": len(rewards)}
        rows.append(row | _correlations(rewards, _advantages(rewards, k)))
    return _frame(rows)


def weight_sweep(rng, prompts=20_000, ks=(0, 1, 3, 10, 30), beta=0.5):
    """What k changes: frame k, groups ("mixed" | "tied"), share, and one correlation a term, on the same draws.

    Mixed groups hold right and wrong answers; in tied ones k adds the same to every total and cancels.
    """
    rewards = simulated_rewards(rng, prompts, beta)
    tied = np.repeat(_tied(rewards), GROUP)
    rows = []
    for k in ks:
        advantages = _advantages(rewards, k)
        for name, chosen in (("mixed", ~tied), ("tied", tied)):
            row = {"k": k, "groups": name, "share": float(chosen.mean()), "n": int(chosen.sum())}
            rows.append(row | _correlations(rewards[chosen], advantages[chosen]))
    return _frame(rows)


def worked_groups(k=10.0):
    """Two groups by hand: frame group, the three terms, total (equation 4), advantage (equation 3)."""
    import pandas as pd

    tables = []
    for name, rewards in WORKED_GROUPS.items():
        rewards = np.array(rewards, dtype=float)
        table = pd.DataFrame(rewards, columns=list(REWARD_TERMS))
        table.insert(0, "group", name)
        table["total"] = rewards @ np.array([k, 1.0, 0.5])
        tables.append(table.assign(advantage=_advantages(rewards, k)))
    return pd.concat(tables, ignore_index=True)


def _advantages(rewards, k):
    from clinical_r1.advantages import group_advantages

    return group_advantages(rewards, (k, 1.0, 0.5), GROUP, eps=EPS).numpy()


def _tied(rewards):
    """(prompts,) is every answer of the group right, or every one wrong?"""
    right = rewards[:, 0].reshape(-1, GROUP).sum(axis=1)
    return (right == 0) | (right == GROUP)


def _correlations(rewards, advantages):
    """Correlation of the advantage with each term, less the term's mean in its group: only that can be learnt."""
    grouped = rewards.reshape(-1, GROUP, len(REWARD_TERMS))
    centred = (grouped - grouped.mean(axis=1, keepdims=True)).reshape(rewards.shape)
    columns = dict(zip(REWARD_TERMS, np.where(np.ptp(rewards, axis=0) > 0, centred, 0.0).T, strict=True))
    return {
        term: float(np.corrcoef(column, advantages)[0, 1]) if np.ptp(column) else np.nan
        for term, column in columns.items()
    }


# --- 7. steps


def steps():
    """Frame quantity, arithmetic, result, printed, agrees (None: nothing to compare with), innocent: the runs' size.

    Batch sizes and checkpoint names are those of the released GRPO code; that the CRPO runs used them is inferred.
    """
    curve = paper.fig5_curve()
    last, mean_length = int(curve["step"].max()), curve["mean_response_length"].mean()
    absent = sorted(set(range(1, last + 1)) - set(curve["step"].astype(int)))
    per_epoch, per_epoch_sft, per_epoch_full = 5089 // 512, 4580 // 256, 10178 // 1024
    total, rollouts = 20 * per_epoch, 512 * GROUP
    updates = rollouts // (16 * GROUP)
    rows = [
        (
            "RL steps after a cold start",
            f"5,089 // 512 × 20 = {per_epoch} × 20",
            f"{total}",
            f"Figure 5: {len(curve)} points up to step {last}, without {', '.join(map(str, absent))}",
            total - last in (0, 1),
            "the last step may not be logged; two points may lie under others",
        ),
        (
            "epochs of the cold start",
            f"221 / (4,580 // 256) = 221 / {per_epoch_sft}",
            f"{221 / per_epoch_sft:g}",
            "stopped early at 13",
            221 == 13 * per_epoch_sft,
            "",
        ),
        (
            "epoch of the cold start + GRPO checkpoint",
            f"105 / {per_epoch}",
            f"{105 / per_epoch:.1f}",
            "20 epochs",
            False,
            "trained for 20, tested at the best; the script names a test file for validation",
        ),
        (
            "epoch of the GRPO checkpoint",
            "35 / (10,178 // 1,024)",
            f"{35 / per_epoch_full:.1f}",
            "",
            None,
            "",
        ),
        (
            "optimiser updates a step",
            f"512 × {GROUP} / (16 × {GROUP})",
            f"{updates}",
            "equation 1 samples from the policy itself: 1",
            False,
            "a ratio and a clip, in the code, hold the difference small; the equation leaves them out",
        ),
        ("optimiser updates in all", f"{total} × {updates}", f"{total * updates:,}", "", None, ""),
        (
            "tokens generated in a run",
            f"{total} × {rollouts:,} × {mean_length:,.0f} (mean of Figure 5)",
            f"{total * rollouts * mean_length / 1e9:.2f} billion",
            "",
            None,
            "",
        ),
    ]
    return _frame(rows, ["quantity", "arithmetic", "result", "printed", "agrees", "innocent"])


# --- 8. the closing table


def closing_table(owners):
    """Every check in one row: frame check, found, certainty, innocent. owners: from `advantage_owners`.

    certainty: "arithmetic" (follows from the print), "statistics" (holds with its error rate), "figure" (rests on
    our reading of a vector figure), "simulation" (rests on stated assumptions).
    """
    fit, gains, guess, claims = attainability(), gain_tests(), guessing(), text_against_table()
    owners = owners.set_index("difficulty")
    expert = guess.set_index("benchmark").loc["medxpertqa"]
    clear = gains[gains["p_holm"] < 0.05]
    unclear = gains.loc[gains["p_holm"] >= 0.05]
    named = ", ".join(
        f"{paper.METHOD_LABELS[row.method]} on {LABELS[row.benchmark]}" for row in unclear.itertuples()
    )
    verdicts = claims["verdict"].value_counts()
    jitter = worked_groups()["advantage"].iloc[GROUP:]
    spread, even = owners.loc["p ~ Beta(.5, .5)"], owners.loc["every p = 0.5"]
    rows = [
        (
            "accuracies as k / n",
            f"{(~fit['attainable']).sum()} of {len(fit)} are no share of the full test set",
            "arithmetic",
            f"unreadable answers left out (at most {fit['dropped'].max()} a cell would do), or several samples averaged",
        ),
        (
            "gains over GRPO",
            f"{len(clear)} of {len(gains)} beyond chance (Holm); not {named}",
            "statistics",
            "a paired test could be sharper; one run each, so seeds are not in it",
        ),
        (
            "the chance line",
            f"the MedXpertQA baseline, {expert['printed']:.2f} %, cannot be told from guessing (p = {expert['p_chance']:.2f})",
            "statistics",
            "a hard set for a small model",
        ),
        (
            "text against table",
            ", ".join(f"{verdicts.get(verdict, 0)} {verdict}" for verdict in VERDICTS),
            "arithmetic",
            "typesetting, and names that promise more than the definitions",
        ),
        (
            "Figure 1's caption",
            "the hallucination axis shows the count: outwards is worse there, better on the other eight",
            "figure",
            "a caption written for an earlier drawing",
        ),
        (
            "who owns the advantage",
            f"accuracy: correlation {even['accuracy']:.2f} where every p = 0.5, {spread['accuracy']:.2f} with "
            f"{spread['tied']:.0%} tied groups; clinical reasoning: {even['clinical reasoning']:.2f} and "
            f"{spread['clinical reasoning']:.2f}",
            "simulation",
            "accuracy was meant to come first",
        ),
        (
            "noise at full scale",
            f"character shares .980 to .992 in an all-right group give advantages {jitter.min():.2f} to {jitter.max():.2f}",
            "arithmetic",
            "they may average out over many groups: they pull towards plain characters, not towards errors",
        ),
        (
            "steps and epochs",
            "180 steps follow from 5,089 questions, batch 512, 20 epochs; Figure 5 ends at 179",
            "figure",
            "the last step not logged, or counted from 0",
        ),
    ]
    return _frame(rows, ["check", "found", "certainty", "innocent"])


# --- shared


def _accuracies():
    """(benchmark, method, printed per cent, full test size) of the 15 accuracies, in the table's order."""
    rows = paper.TABLE1.query("metric == 'accuracy'")
    return [
        (row.benchmark, row.method, row.value, paper.N_QUESTIONS[row.benchmark]) for row in rows.itertuples()
    ]


def _cell(benchmark, method, metric):
    line = paper.PRINTED[benchmark].strip().splitlines()[METHODS.index(method)]
    return float(line.split()[paper.METRICS.index(metric)])


def _better(metric, value, than):
    return value < than if metric in LOWER_IS_BETTER else value > than


def _frame(rows, columns=None):
    import pandas as pd

    return pd.DataFrame(rows, columns=columns)
