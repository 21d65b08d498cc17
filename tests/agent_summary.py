"""A summary of agents small enough for tests, in the files of `agent.records`: numbers that nobody measured."""

import numpy as np
import pandas as pd

from clinical_r1.agent.arms import AGENT_ARMS
from clinical_r1.agent.records import POLICIES, STAGES

# arm -> accuracy of a policy that draws no luck from its seed
LEVELS = {"grpo": 0.55, "gigpo": 0.7, "gigpo_no_std": 0.56, "tree_grpo": 0.54, "tree_anchor": 0.6}
START_LEVEL = 0.43


def consultations(
    levels=LEVELS, settings=("main",), seeds=(0, 1, 2), patients=60, budgets=("sampled", "trained")
):
    """Frame of consultations: a patient is right where its own difficulty lies below an arm's level."""
    rng = np.random.default_rng(20251203)
    hard = rng.random(patients)
    parts = []
    for setting in settings:
        runs = [("start", 0, "start", START_LEVEL)]
        runs += [
            (arm, seed, budget, level)
            for arm, level in levels.items()
            for seed in seeds
            for budget in budgets
        ]
        for arm, seed, budget, level in runs:
            noise = rng.normal(0, 0.12, patients) + 0.02 * (seed - 1)
            right = (hard + noise < level).astype(int)
            asks, tests = rng.integers(0, 3, patients), rng.integers(0, 3, patients)
            parts.append(
                pd.DataFrame(
                    {
                        "setting": setting, "arm": arm, "seed": seed, "budget": budget,
                        "patient": [f"test-{i:04d}" for i in range(patients)], "right": right, "answered": 1,
                        "turns": asks + tests + 1, "asks": asks, "examinations": 0, "tests": tests,
                        "cost": 0.02 * tests, "reward": right - 0.02 * tests, "gain": rng.normal(0.5, 0.3, patients),
                        "invalid": 0, "repeats": 0, "covered": np.where(hard < 0.1, np.nan, 0.5),
                        "premature": np.where(right, 0, rng.integers(0, 2, patients)),
                    }
                )
            )  # fmt: skip
    return pd.concat(parts, ignore_index=True)


def references(settings=("main",)):
    values = {
        "guess": (0.47, 0.2),
        "random_inquiry": (0.7, 1.2),
        "greedy": (0.88, 1.6),
        "expert": (0.91, 1.5),
    }
    lines = []
    for setting in settings:
        for policy in POLICIES:
            right, tests = values[policy]
            for measure, value in (("right", right), ("tests", tests), ("inquiries", 2.5 * tests)):
                ends = {"low": value - 0.02, "high": value + 0.02}
                line = {"setting": setting, "policy": policy, "measure": measure, "value": value, "n": 1000}
                lines.append(line | ends)
    return pd.DataFrame(lines)


def training(arms=tuple(LEVELS), settings=("main",), seeds=(0, 1, 2), steps=40):
    """Arms learn in "main" and "cured"; in "closure" they fall to one turn."""
    rng = np.random.default_rng(7)
    rows = []
    for setting in settings:
        for arm in arms:
            for seed in seeds:
                for step in range(1, steps + 1):
                    along = step / steps
                    closing = setting == "closure"
                    turns = 4 - 3 * min(1, 2 * along) if closing else 4 + 0.5 * along
                    right = (0.45 if closing else 0.43 + 0.2 * along) + rng.normal(0, 0.02)
                    tokens = {"sampled": 1800.0 * step, "trained": 2500.0 * step}
                    shares = {"repeated": 0.4, "alone": 0.6, "informative": 0.3, "invalid": 0.05}
                    rows.append(
                        {"setting": setting, "arm": arm, "seed": seed, "step": step, "right": right, "answered": 1.0}
                        | {"reward": right, "turns": turns, "inquiries": turns - 1} | shares | tokens
                    )  # fmt: skip
    return pd.DataFrame(rows)


def credit(stages=STAGES, menus=("8", "open"), values=None):
    """values: estimator -> correlation in the largest group."""
    values = values or {"episode": 0.42, "anchor": 0.6, "tree": 0.48, "tree+anchor": 0.63}
    rows = []
    for stage in stages:
        for menu in menus:
            for estimator, top in values.items():
                for group in (2, 4, 8, 16):
                    if "tree" in estimator and group < 4:
                        continue
                    for gamma in (1.0, 0.95, 0.8) if "anchor" in estimator else (1.0,):
                        for std in (0, 1):
                            value = top * (0.5 + group / 32) * (1 - 0.2 * abs(gamma - 0.95))
                            key = {
                                "stage": stage,
                                "menu": menu,
                                "estimator": estimator,
                                "std": std,
                                "group": group,
                            }
                            for measure, at in (("correlation", value), ("error", 1 - value**2)):
                                line = {"gamma": gamma, "measure": measure, "value": at}
                                ends = {"low": at - 0.04, "high": at + 0.04, "turns": 3000, "patients": 60}
                                rows.append(key | line | ends)
    return pd.DataFrame(rows)


def density(menus=("8", "open"), stages=STAGES):
    rows = []
    for menu in menus:
        for i, stage in enumerate(stages):
            repeated = (0.3 if menu == "8" else 0.04) + 0.1 * i
            about = {"menu": menu, "stage": stage, "repeated": repeated, "alone": 1 - repeated}
            rows.append(about | {"size": 1 + 2 * repeated, "turns": 900 + i, "patients": 60})
    return pd.DataFrame(rows)


def tuning(arms=tuple(LEVELS)):
    rates = (3e-4, 1e-3)
    return pd.DataFrame(
        [
            {"setting": "main", "arm": arm, "rate": rate, "value": 0.5 + i / 100, "patients": 400}
            for arm in arms
            for i, rate in enumerate(rates)
        ]
    )


def summary_frames(**consultation_options):
    """All frames by kind, the three settings in each."""
    settings = ("main", "closure", "cured")
    assert set(LEVELS) == set(AGENT_ARMS)
    return {
        "references": references(settings),
        "consultations": consultations(settings=settings, **consultation_options),
        "training": training(settings=settings),
        "credit": credit(),
        "density": density(),
        "tuning": tuning(),
    }
