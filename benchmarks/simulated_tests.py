"""How often are the intervals, tests and verdicts right when the truth is known? Coverage, type-I error and power, simulated.

    python benchmarks/simulated_tests.py [--runs 10000] [--save]

Two arms answer the same questions with several training seeds, and `clinical_r1.intervals` compares them as `metrics.compare`
does. The spreads are about those of an earlier laboratory (three seeds, 500 questions, before the clinic was corrected):
accuracy near 80 %; the probability of a right answer varies between questions with variance .07, and the difference of two
arms' probabilities on one question with variance .01; standard deviation between seeds 1.0 points after reinforcement
learning, 2.3 after a cold start. True claims: 1.75 a response, standard deviation between seeds .23. A right answer is a
latent normal variable above 0 (probit), so the true accuracy over all questions and seeds is known; a count is Poisson. Points
are kept one by one; --save writes results/statistics.json, of which docs/statistics.md speaks.
"""

import argparse
import json
from functools import cache

import numpy as np
from measuring import MEASURED, RESULTS
from scipy.optimize import brentq
from scipy.stats import multivariate_normal, norm

from clinical_r1.files import write_json
from clinical_r1.intervals import interval_of, share_interval, two_sided_p, two_way
from clinical_r1.metrics import PRIMARY_BENCHMARKS, PRIMARY_METRICS
from clinical_r1.tables import against_printed, margin, predicted

NAME = "statistics.json"
LEVEL, TESTS = 0.05, len(PRIMARY_METRICS) * len(PRIMARY_BENCHMARKS)
SEEDS = (2, 3, 5, 10)
ACCURACY, BETWEEN_QUESTIONS, APART = 0.80, 0.07, 0.01
CLAIMS, QUESTION_SPREAD, ARM_SPREAD = 1.75, 0.04, 0.01  # of counts: mean, and variances of factors of mean 1
# (measure, questions, standard deviation between seeds, difference for the power)
SCENES = (
    ("accuracy", 500, 1.0, 5.0),
    ("accuracy", 2000, 1.0, 5.0),
    ("accuracy", 500, 0.0, 5.0),
    ("true claims", 500, 0.23, 0.3),
    ("accuracy", 2000, 2.3, 5.0),
)
OFFSETS, ITEMS, RUN_SD = (0.0, 2.0, 5.0, 8.0), 1273, 1.0  # of the ledger: MedQA's size


@cache
def latent_shares() -> tuple[float, float]:
    """Shares of a latent variable of variance 1 that belong to the question, and to arm and question, by the variances above."""

    def covariance(share):
        threshold = norm.ppf(ACCURACY)
        both = multivariate_normal([0, 0], [[1, share], [share, 1]]).cdf([threshold, threshold])
        return both - ACCURACY**2

    common = brentq(lambda s: covariance(s) - (BETWEEN_QUESTIONS - APART / 2), 1e-6, 0.99)
    own = brentq(lambda s: covariance(s) - BETWEEN_QUESTIONS, 1e-6, 0.99) - common
    return common, own


@cache
def latent_seed_sd(points: float, accuracy: float) -> float:
    """The latent standard deviation of a seed whose accuracy varies by so many points over a population of questions."""
    if points == 0:
        return 0.0
    at, weights = np.polynomial.hermite_e.hermegauss(41)
    weights = weights / weights.sum()

    def spread(sd):
        reached = norm.cdf(norm.ppf(accuracy) * np.sqrt(1 + sd**2) + sd * at)
        return 100 * np.sqrt(weights @ (reached - weights @ reached) ** 2)

    return brentq(lambda sd: spread(sd) - points, 1e-6, 3.0)


def right_answers(rng, seeds: int, questions: int, seed_sd: float, difference: float) -> np.ndarray:
    """(2, S, Q) of 0 and 100: arms whose true accuracies are ACCURACY + difference points and ACCURACY."""
    common, own = latent_shares()
    of_question = np.sqrt(common) * rng.standard_normal(questions, dtype=np.float32)
    answers = []
    for accuracy in (ACCURACY + difference / 100, ACCURACY):
        sd = latent_seed_sd(seed_sd, accuracy)
        of_seed = sd * rng.standard_normal((seeds, 1), dtype=np.float32)
        latent = np.sqrt(1 - common - own) * rng.standard_normal((seeds, questions), dtype=np.float32)
        latent += of_question + np.sqrt(own) * rng.standard_normal(questions, dtype=np.float32) + of_seed
        answers.append(100.0 * (latent + norm.ppf(accuracy) * np.sqrt(1 + sd**2) > 0))
    return np.array(answers)


def claim_counts(rng, seeds: int, questions: int, seed_sd: float, difference: float) -> np.ndarray:
    """(2, S, Q) counts: arms whose true means are CLAIMS + difference and CLAIMS."""
    of_question = rng.gamma(1 / QUESTION_SPREAD, QUESTION_SPREAD, questions)
    counts = []
    for mean in (CLAIMS + difference, CLAIMS):
        own = rng.gamma(1 / ARM_SPREAD, ARM_SPREAD, questions)
        level = np.maximum(mean + seed_sd * rng.standard_normal((seeds, 1)), 0.0)
        counts.append(rng.poisson(level * of_question * own))
    return np.array(counts, dtype=float)


def compared(measure: str, seeds: int, questions: int, seed_sd: float, difference: float, runs: int) -> dict:
    """Shares of runs: the interval of the difference, and of one arm, holds the truth; p below the level and Holm's."""
    scale = 100.0 if measure == "accuracy" else 1.0
    draw, truth = (right_answers, 100 * ACCURACY) if measure == "accuracy" else (claim_counts, CLAIMS)
    rng = np.random.default_rng([20261126, seeds, questions, int(100 * seed_sd), int(100 * difference)])
    found = np.zeros(4)
    for _ in range(runs):
        a, b = draw(rng, seeds, questions, seed_sd, difference)
        result = two_way(a - b, np.ones_like(a), scale, paired=True)
        low, high = interval_of(result)
        alone = two_way(b, np.ones_like(b), scale)
        ends = share_interval(alone, b.size, scale=100.0) if scale == 100 else interval_of(alone)
        p = two_sided_p(result)
        held = (low <= difference <= high, ends[0] <= truth <= ends[1])
        found += (*held, p < LEVEL, p < LEVEL / TESTS)
    names = ("coverage", "coverage_of_an_arm", "rejected", "rejected_at_first_holm_step")
    return dict(zip(names, np.round(found / runs, 4).tolist(), strict=True))


def verdicts(seeds: int, offset: float, runs: int) -> dict:
    """Shares of the ledger's verdicts on one run's value that differs by `offset` points, besides noise, from ours of S seeds."""
    rng = np.random.default_rng([20261126, seeds, int(offset)])
    rest = 1e4 * (ACCURACY * (1 - ACCURACY) - BETWEEN_QUESTIONS) / ITEMS  # of one run on the same questions
    every = 50 + np.sqrt(RUN_SD**2 + rest) * rng.standard_normal((runs, seeds + 1))
    named: dict[str, int] = {}
    means = every[:, 1:].mean(axis=1)
    spreads = every[:, 1:].std(axis=1, ddof=1) if seeds > 1 else np.full(runs, np.nan)
    halves = spreads * predicted("accuracy", 1.0, seeds, ITEMS)  # t sqrt(1 + 1/S) times a spread
    for theirs, ours, half in zip(every[:, 0], means, halves, strict=True):
        name = against_printed(theirs + offset, ours, half, margin("accuracy"))
        named[name] = named.get(name, 0) + 1
    return {name: round(count / runs, 4) for name, count in sorted(named.items())}


def measure(path, runs: int, seeds=SEEDS, scenes=SCENES) -> dict:
    """Every point of the file, simulated where it is not there with as many runs; written after each."""
    values = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    values = values or {"tests": TESTS, "points": [], "verdicts": []}

    def known(kind, key):
        """Whether it is there, with as many runs; one with fewer is dropped."""
        found = [point for point in values[kind] if point.items() >= key.items()]
        kept = [point for point in found if point["runs"] >= runs]
        values[kind] = [point for point in values[kind] if point not in found or point in kept]
        return bool(kept)

    for name, questions, sd, difference in scenes:
        for size in seeds:
            for true in (0.0, difference):
                key = {
                    "measure": name,
                    "questions": questions,
                    "seed_sd": sd,
                    "seeds": size,
                    "difference": true,
                }
                if not known("points", key):
                    values["points"].append(
                        key | {"runs": runs} | compared(name, size, questions, sd, true, runs)
                    )
                    write_json(path, values)
                    print(values["points"][-1], flush=True)
    for size in (1, *seeds):
        for offset in OFFSETS:
            key = {"seeds": size, "offset": offset}
            if not known("verdicts", key):
                values["verdicts"].append(key | {"runs": runs, "shares": verdicts(size, offset, runs)})
    write_json(path, values)
    return values


def main() -> None:
    """Simulate what is not kept, then print the tables of docs/statistics.md."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=10_000)
    parser.add_argument("--save", action="store_true", help="write benchmarks/results/statistics.json")
    arguments = parser.parse_args()
    folder = RESULTS if arguments.save else MEASURED
    folder.mkdir(parents=True, exist_ok=True)
    values = measure(folder / NAME, arguments.runs)
    print(f"\n{table(values['points'])}\n\n{verdict_table(values['verdicts'])}")


def table(points: list[dict]) -> str:
    """Markdown: coverage, type-I error and power in per cent, a row per measure, questions, spread and number of seeds."""
    pairs: dict[tuple, dict] = {}
    for point in points:
        key = (point["measure"], point["questions"], point["seed_sd"], point["seeds"])
        pairs.setdefault(key, {})["power" if point["difference"] else "null"] = point
    lines = [
        "| measure | questions | SD between seeds | seeds | coverage | of one arm | type-I error | at Holm's first step | "
        "difference | power | at Holm's first step | runs |",
        "|---|" + "---:|" * 11,
    ]
    for (name, questions, sd, seeds), pair in sorted(pairs.items()):
        if len(pair) < 2:
            continue  # half of it is still to be simulated
        null, other = pair["null"], pair["power"]
        covered = (null["coverage"] + other["coverage"]) / 2
        arm = (null["coverage_of_an_arm"] + other["coverage_of_an_arm"]) / 2
        shares = [covered, arm, null["rejected"], null["rejected_at_first_holm_step"]]
        power = [other["rejected"], other["rejected_at_first_holm_step"]]
        cells = [f"{100 * share:.1f}" for share in shares[:3]] + [f"{100 * shares[3]:.2f}"]
        cells += [f"{other['difference']:g}"] + [f"{100 * share:.1f}" for share in power]
        cells.append(f"{min(null['runs'], other['runs']):,}")
        lines.append(f"| {name} | {questions:,} | {sd:g} | {seeds} | {' | '.join(cells)} |")
    return "\n".join(lines)


def verdict_table(rows: list[dict]) -> str:
    """Markdown: how often the ledger says what, in per cent, by seeds and by how far the other run's mean is off."""
    names = ("reproduced", "inside interval", "outside", "uninformative")
    lines = [f"| seeds | points off | {' | '.join(names)} |", "|---:|" + "---:|" * (len(names) + 1)]
    for row in rows:
        cells = [f"{100 * row['shares'].get(name, 0.0):.1f}" for name in names]
        lines.append(f"| {row['seeds']} | {row['offset']:g} | {' | '.join(cells)} |")
    return "\n".join(lines)


def sentences(values: dict) -> list[str]:
    """What docs/statistics.md says of the results in words."""
    many = [p for p in values["points"] if p["seeds"] >= 3]
    usual = [p for p in many if p["measure"] == "accuracy" and p["seed_sd"] == 1.0]
    covered, null = [p["coverage"] for p in usual], [p for p in usual if not p["difference"]]
    wide = [p["coverage"] for p in many]
    ten = {p["questions"]: p for p in usual if p["seeds"] == 10 and p["difference"]}
    at_five, at_first = (
        " and ".join(f"{100 * ten[n][name]:.1f}" for n in sorted(ten))
        for name in ("rejected", "rejected_at_first_holm_step")
    )
    off = {row["seeds"]: row["shares"] for row in values["verdicts"] if row["offset"] == 8.0}
    agrees = max(shares.get("reproduced", 0) + shares.get("inside interval", 0) for shares in off.values())
    false = {p["seeds"]: 1 - (1 - p["rejected_at_first_holm_step"]) ** values["tests"] for p in null}
    return [
        f"the 95 % interval of a difference holds the truth in {_range(covered)} % of runs",
        f"a difference of 0 is called one in {_range([p['rejected'] for p in null])} %",
        f"{values['tests']} independent tests at Holm's first step would call one falsely in "
        + ", ".join(f"{100 * share:.1f} % with {seeds} seeds" for seeds, share in sorted(false.items())),
        f"find a difference of 5 points in {at_five} % of runs (500 and 2,000 questions), and at Holm's first step, level .05 / "
        f"{values['tests']}, in {at_first} %",
        f"Over all rows with 3 seeds or more coverage is {_range(wide)} %",
        f"*outside* in {100 * off[10].get('outside', 0):.1f} % with 10 seeds, and *reproduced* or *inside interval* in at most "
        f"{100 * agrees:.1f} %, whatever the seeds",
    ]


def _range(shares):
    return f"{100 * min(shares):.1f} to {100 * max(shares):.1f}"


if __name__ == "__main__":
    main()
