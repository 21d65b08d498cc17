"""A laboratory small enough for tests: ten arms, three seeds, forty questions, in the files of the ablations."""

import numpy as np
import pandas as pd

from clinical_r1.arms import ARMS
from clinical_r1.laboratory.records import FILES, TERMS
from clinical_r1.metrics import PROCESS_METRICS

SEEDS, STEPS = (0, 1, 2), (25, 50, 75, 100)
# arm -> (accuracy, mean of the counts): the untrained policy is worst in everything
LEVELS = {
    "baseline": (0.3, 0.6),
    "grpo": (0.8, 0.9),
    "crpo": (0.7, 1.5),
    "cold_start_grpo": (0.85, 1.8),
    "cold_start_crpo": (0.8, 2.0),
    "k0": (0.5, 2.2),
    "k3": (0.65, 1.7),
    "k30": (0.75, 1.1),
    "grpo_in_crpo": (0.75, 1.0),
    "crpo_in_grpo": (0.7, 1.4),
    "mo_grpo": (0.6, 1.6),
}


def laboratory():
    """Frames of the four files by name, the same at every call."""
    rng = np.random.default_rng(20251205)
    scores = pd.concat([_answers(rng, arm, seed) for arm in LEVELS for seed in SEEDS], ignore_index=True)
    arms = [
        {"arm": arm, "family": ARMS[arm].family, "label": ARMS[arm].label, "setting": ARMS[arm].setting,
         "seconds": None if arm == "baseline" else 90.0 + i}
        for i, arm in enumerate(LEVELS)
    ]  # fmt: skip
    trained = [arm for arm in LEVELS if arm != "baseline"]
    training = [_step(rng, arm, seed, step) for arm in trained for seed in SEEDS for step in range(1, 31)]
    main = [arm for arm in trained if ARMS[arm].family == "main"]
    columns = ["arm", "seed", "id", "correct", "faithfulness", "drc", "hallucination"]
    kept = scores.loc[scores["arm"].isin(main), columns]
    flips = [
        kept.assign(step=step, correct=kept["correct"] * (rng.random(len(kept)) < step / 100))
        for step in STEPS
    ]
    frames = (scores, pd.DataFrame(arms), pd.DataFrame(training), pd.concat(flips, ignore_index=True))
    return dict(zip(FILES, frames, strict=True))


def write_laboratory(folder, frames=None):
    """The files in `folder`, from `frames` or `laboratory()`."""
    for kind, frame in (frames or laboratory()).items():
        frame.to_csv(folder / FILES[kind], index=False)


def _answers(rng, arm, seed):
    accuracy, level = LEVELS[arm]
    n = 40
    counts = {name: rng.poisson(level, n) for name in PROCESS_METRICS}
    worse = 3.0 if arm == "baseline" else 0.5 + 0.3 * level
    counts |= {"hallucination": rng.poisson(worse, n), "drc": np.minimum(counts["drc"], 3)}
    answers = {"correct": (rng.random(n) < accuracy + 0.02 * seed).astype(int), "parsed": 1, "tokens": 30}
    ids = [f"clinic-test-{i:05d}" for i in range(n)]
    return pd.DataFrame({"arm": arm, "seed": seed, "id": ids, **answers, **counts})


def _step(rng, arm, seed, step):
    """A log row: accuracy owns the larger part where k is large, consistency loses its part over time."""
    accuracy = {"k0": 0.0, "k3": 0.5, "k30": 0.85, "mo_grpo": 0.6}.get(arm, 0.75) * rng.uniform(0.97, 1.0)
    consistency = (1 - accuracy) * (0.3 - 0.005 * step) * rng.uniform(0.9, 1.0)
    parts = dict(zip(TERMS, (accuracy, 1 - accuracy - consistency, consistency), strict=True))
    shares = {f"advantage/{term}/share": part for term, part in parts.items()}
    means = {f"rewards/{term}/mean": rng.uniform() for term in TERMS}
    tied = {"advantage/tied_groups": rng.uniform(0.1, 0.2), "advantage/silent_groups": 0.0}
    return {"arm": arm, "seed": seed, "step": step, "reward": rng.uniform(5, 10), **means, **shares, **tied}
