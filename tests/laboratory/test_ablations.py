"""The ablations: every arm is what it says, and a tiny laboratory runs, resumes and is summarised.

python -m pytest tests/laboratory/test_ablations.py
"""

import gzip
from dataclasses import replace

import pandas as pd
import pytest

from clinical_r1.advantages import AGGREGATIONS
from clinical_r1.arms import (
    ABLATIONS,
    ARMS,
    LABORATORY,
    LOW_DATA,
    MAIN,
    METHODS,
    PREFERENCES,
    REFERENCE,
    STARTS,
)
from clinical_r1.artifacts import is_trained, settings_of
from clinical_r1.clinic.cases import load_set
from clinical_r1.curation.splits import ensure_splits
from clinical_r1.files import read_json
from clinical_r1.laboratory import ablations
from clinical_r1.laboratory.ablations import laboratory_settings, summarise, trace
from clinical_r1.laboratory.records import FILES, RECORD
from clinical_r1.laboratory.variants import VARIANT_SETS
from clinical_r1.pipeline import __main__ as command
from clinical_r1.rewards import REWARD_SETS
from clinical_r1.settings import SMOKE
from clinical_r1.train import train_arm

SETS = REWARD_SETS | VARIANT_SETS


def test_the_main_arms_are_the_papers():
    assert tuple(arm.name for arm in MAIN) == METHODS
    later = (*STARTS, *PREFERENCES, *LOW_DATA)
    assert len(LABORATORY) == len(MAIN) + len(ABLATIONS) == len(ARMS) - len(later)  # no name twice


@pytest.mark.parametrize("arm", [ARMS[name] for name in LABORATORY], ids=lambda arm: arm.name)
def test_every_arm_can_be_built(arm):
    rewards = SETS[arm.rewards]
    assert len(arm.weights or rewards.weights) == len(rewards.functions)
    assert arm.aggregation in AGGREGATIONS
    changed = settings_of(laboratory_settings(), arm.name)
    assert changed.rl_prompts * changed.num_generations == 64  # equal completions a step in every arm
    assert arm.label and (arm.family == "main") == (arm in MAIN)


@pytest.mark.parametrize("arm", ABLATIONS, ids=lambda arm: arm.name)
def test_an_ablation_changes_one_thing(arm):
    """Against crpo: the reward set with its prompt, or the weights, or the aggregation, or the settings."""
    reference = ARMS[REFERENCE]
    differs = [
        name
        for name in ("rewards", "weights", "aggregation", "stage", "start", "changes")
        if getattr(arm, name) != getattr(reference, name)
    ]
    if arm.aggregation in ("normalize_then_sum", "normalize_each"):  # weights mean something else there
        differs.remove("weights")
    assert len(differs) == 1, differs
    assert arm.style == "crpo" or arm.family == "prompt_x_reward"


def test_the_summary_has_the_same_bytes_twice(tmp_path):
    frame = pd.DataFrame({"a": [1.0, 2.0]})
    first, second = (ablations._write(tmp_path / name, frame) for name in ("a.csv.gz", "b.csv.gz"))
    assert first.read_bytes() == second.read_bytes()
    assert gzip.decompress(first.read_bytes()) == b"a\n1\n2\n"


def test_a_question_without_key_is_never_right():
    """None == None must not count: neither an unparsed text nor any letter is right where the key is secret."""
    question = load_set("clinic", "test", 1)[0]
    for key in (question.answer, None):
        asked = replace(question, answer=key)
        judged = [
            ablations._judged(text, "crpo", asked) for text in ("no letter", f"\\boxed{{{question.answer}}}")
        ]
        assert [row["parsed"] for row in judged] == [0, 1]
        assert [row["correct"] for row in judged] == [0, int(key is not None)]


def test_the_published_laboratory_trains_an_arm_for_as_many_seeds_as_it_needs(monkeypatch):
    """8 seeds for k, terms, aggregators, grounded and the paper's arms, 5 for the rest; whole seeds one after the other."""
    trained, answered, traced = [], [], []
    monkeypatch.setattr(ablations, "trace", lambda one, arm, seed: traced.append((seed, arm, len(answered))))
    monkeypatch.setattr(ablations, "ensure_splits", lambda settings: None)
    monkeypatch.setattr(
        ablations, "train_all", lambda one: trained.extend((*one.seeds, arm) for arm in one.methods)
    )
    monkeypatch.setattr(
        ablations, "answer", lambda one: answered.extend((*one.seeds, arm) for arm in one.methods)
    )
    arms = ("crpo", "k0", "no_format", "gdpo", "exact_tally", "g2", "no_kl", "quantised")
    settings = laboratory_settings("somewhere", (0, 1), arms, full=True)
    assert settings.seeds == tuple(range(8)) and settings.n_test == 1000
    ablations.run(settings, full=True)
    times = {arm: [seed for seed, one in trained if one == arm] for arm in arms}
    assert times == {arm: list(range(5 if arm in ("g2", "no_kl", "quantised") else 8)) for arm in arms}
    assert answered == trained and [seed for seed, _ in trained] == sorted(seed for seed, _ in trained)
    assert [(seed, arm) for seed, arm, _ in traced] == [(seed, "crpo") for seed in range(8)]
    done = [sum(seed <= last for seed, _ in answered) for last in range(8)]
    assert [before for *_, before in traced] == done, (
        "traced seed by seed, so that a run can be stopped after any"
    )
    trained.clear()
    ablations.run(laboratory_settings("somewhere", (0, 1), ("g2", "k0")))
    assert trained == [(0, "g2"), (0, "k0"), (1, "g2"), (1, "k0")]


def test_unknown_arm_is_refused(capsys):
    assert command.main(["ablations", "--only", "k11"]) == 2
    assert "k11" in capsys.readouterr().err


@pytest.fixture(scope="module")
def laboratory(tmp_path_factory):
    arms = ("baseline", "crpo", "k0")
    tiny = laboratory_settings(tmp_path_factory.mktemp("laboratory"), (0,), arms)
    names = (
        "n_sft",
        "n_rl",
        "n_test",
        "rl_steps",
        "rl_prompts",
        "num_generations",
        "micro_batch",
        "save_steps",
    )
    tiny = replace(tiny, **{name: getattr(SMOKE, name) for name in names}, eval_batch=16)
    ensure_splits(tiny)
    for arm in arms[1:]:
        train_arm(tiny, arm, 0)
    return tiny


@pytest.mark.slow
def test_a_tiny_laboratory(laboratory, tmp_path):
    ablations.answer(replace(laboratory, workers=1))
    trace(laboratory, "crpo", 0)
    summarise(laboratory, tmp_path, {"sha": "0123456789abcdef", "dirty": False})
    record = read_json(tmp_path / RECORD)
    assert record["git"]["sha"] == "0123456789abcdef" and record["questions"] == laboratory.n_test
    assert record["trained"]["rl_steps"] == [laboratory.rl_steps] and record["trained"]["shared_prefix"] == [
        True
    ]
    scores, arms, training, way = (pd.read_csv(tmp_path / name) for name in FILES.values())
    assert scores.groupby("arm").size().to_dict() == {"baseline": 16, "crpo": 16, "k0": 16}
    assert set(arms["arm"]) == set(laboratory.methods)
    assert {"rewards/accuracy_reward/mean", "advantage/tied_groups"} <= set(training.columns)
    assert way["step"].unique().tolist() == [1, 2] and set(way["arm"]) == {"crpo"}


@pytest.mark.slow
def test_an_arm_trained_as_another_is_refused(laboratory, monkeypatch):
    assert is_trained(laboratory, "k0", 0)
    monkeypatch.setitem(ARMS, "k0", replace(ARMS["k0"], weights=(1.0, 1.0, 0.5)))
    with pytest.raises(ValueError, match="weights was"):
        is_trained(laboratory, "k0", 0)
