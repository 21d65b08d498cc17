"""Scored records small enough to check by hand, and manifests, shared by tests."""

import numpy as np

from clinical_r1 import metrics

QUESTIONS = ("q1", "q2", "q3", "q4")


def whole_manifest(settings, /, **parts):
    """A whole manifest of a run that has not finished a notebook, with some parts replaced."""
    return {
        "profile": settings.profile,
        "seeds": list(settings.seeds),
        "settings": settings.to_json(),
        "git": {"sha": None, "dirty": None},
        "versions": {},
        "hardware": {},
        "sha256": {},
        "stages": {},
    } | parts


def stage_record(**parts):
    """A stage's record in a manifest, with some parts replaced."""
    made = {"fingerprint": "f", "git_sha": None, "finished": "2026-01-01T00:00:00+00:00", "seconds": 1.0}
    return made | {"peak_memory_mb": 100, "outputs": {}} | parts


def rng(seed=0):
    return np.random.default_rng(seed)


def record(
    id,
    letter="A",
    correct=True,
    method="grpo",
    seed=0,
    sample=0,
    benchmark="clinic",
    tokens=20,
    fields=(),
    **counts,
):
    """One scored record; `fields` are the optional ones (n_options, protocol), anything else a measure's count."""
    measures = dict.fromkeys(metrics.PROCESS_METRICS, 1) | counts
    return {
        "id": id,
        "benchmark": benchmark,
        "method": method,
        "seed": seed,
        "sample": sample,
        "answer": "A",
        "letter": letter,
        "correct": correct,
        "problems": [],
        "tokens": tokens,
        "rewards": {},
        "measures": measures,
    } | dict(fields)


def cell(rows, metric, method="grpo", benchmark="clinic"):
    chosen = rows[(rows["metric"] == metric) & (rows["method"] == method) & (rows["benchmark"] == benchmark)]
    assert len(chosen) == 1
    return chosen.iloc[0]


def four_records(**common):
    return [
        record("q1", drc=2, **common),
        record("q2", drc=0, **common),
        record("q3", letter="B", correct=False, drc=1, **common),
        record("q4", letter=None, correct=False, drc=0, **common),
    ]
