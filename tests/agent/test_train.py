"""An agent's arm on disk: made from what it says, finished only when whole, refused when something has changed; and the gate."""

import json
from dataclasses import replace

import pytest

from clinical_r1.agent.arms import AGENT_ARMS, AgentSettings
from clinical_r1.agent.consultation import DIAGNOSE, Rules, draw_patients
from clinical_r1.agent.experiment import (
    check_gate,
    evaluate,
    forced_diagnoses,
    gate,
    policy_folder,
    speaker_of,
    train_all,
)
from clinical_r1.agent.policies import POLICIES
from clinical_r1.agent.speaking import Scripted
from clinical_r1.agent.start import start_path
from clinical_r1.agent.train import is_trained, made_from, train_agent
from clinical_r1.artifacts import StaleError, hashes_of
from clinical_r1.files import PipelineError, read_json, read_jsonl

RATES = dict.fromkeys(AGENT_ARMS, 1e-3)
TINY = AgentSettings(
    "tiny",
    patients=2,
    episodes=8,
    steps=2,
    pool=6,
    save_steps=1,
    learning_rates=RATES,
    seeds=(0,),
    test=6,
    validation=4,
)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """GiGPO and Tree-GRPO, two steps each, as `./reproduce.sh agent` trains them."""
    settings = replace(TINY, out=str(tmp_path_factory.mktemp("agents")), arms=("gigpo", "tree_grpo"))
    for arm in settings.arms:
        train_agent(settings, arm, 0)
    return settings


def test_a_finished_arm_has_made_its_steps_and_is_kept(trained):
    folder = trained.model_dir("gigpo", 0)
    assert is_trained(trained, "gigpo", 0)
    rows = read_jsonl(folder / "log_history.jsonl")
    assert [row["step"] for row in rows] == [1, 2]
    assert all(row["agent/sampled_tokens"] == row["agent/trained_tokens"] > 0 for row in rows), (
        "chains train what they say"
    )
    before = (folder / "done.json").stat().st_mtime_ns
    train_agent(trained, "gigpo", 0)
    assert (folder / "done.json").stat().st_mtime_ns == before


def test_a_forest_trains_more_tokens_than_it_samples_and_makes_more_steps(trained):
    rows = read_jsonl(trained.model_dir("tree_grpo", 0) / "log_history.jsonl")
    assert len(rows) == trained.steps_of("tree_grpo") > trained.steps_of("gigpo")
    assert all(row["agent/trained_tokens"] > row["agent/sampled_tokens"] for row in rows)


@pytest.mark.parametrize(
    "change, said",
    [
        ({"rules": Rules(horizon=4)}, "rules"),
        ({"learning_rates": RATES | {"gigpo": 2e-3}}, "learning_rate"),
        ({"steps": 3}, "steps"),
        ({"schedule": ((0, {"test": 0.1}),)}, "schedule"),
    ],
)
def test_an_arm_made_with_other_settings_is_refused(trained, change, said):
    with pytest.raises(StaleError, match=f"another {said}"):
        is_trained(replace(trained, **change), "gigpo", 0)


def test_a_change_that_does_not_touch_an_arm_leaves_it_fresh(trained):
    assert is_trained(replace(trained, seeds=(0, 1), test=50, arms=("gigpo",)), "gigpo", 0)
    assert is_trained(replace(trained, learning_rates=RATES | {"grpo": 9.0}), "gigpo", 0)


def test_a_killed_arm_goes_on_from_its_checkpoint_and_ends_in_the_same_weights(trained, tmp_path):
    import shutil

    settings = replace(trained, out=str(tmp_path))
    folder = settings.model_dir("gigpo", 0)
    shutil.copytree(trained.model_dir("gigpo", 0), folder)
    (folder / "done.json").unlink()
    for name in ("policy", "checkpoints/checkpoint-2"):
        shutil.rmtree(folder / name)
    assert not is_trained(settings, "gigpo", 0)
    train_agent(settings, "gigpo", 0)
    assert hashes_of(folder / "policy") == hashes_of(trained.model_dir("gigpo", 0) / "policy")


def test_settings_survive_json_and_every_arm_needs_a_rate_of_its_own():
    settings = replace(TINY, schedule=((0, {"test": 0.0}), (9, {"test": 0.1})))
    again = AgentSettings.from_json(json.loads(json.dumps(settings.to_json())))
    assert again == settings and made_from(again, "gigpo", 0) == made_from(settings, "gigpo", 0)
    with pytest.raises(ValueError, match="no learning rate for grpo"):
        made_from(replace(TINY, learning_rates={"gigpo": 1e-3}), "grpo", 0)


def test_every_policy_meets_the_same_patients_and_transcripts_are_kept(trained):
    start, after = evaluate(trained, None), evaluate(trained, "gigpo", 0)
    assert [e.patient for e in start] == [e.patient for e in after] and len(start) == trained.test
    assert evaluate(trained, "gigpo", 0) == after
    halfway = evaluate(trained, "gigpo", 0, step=1, split="validation")
    assert len(halfway) == trained.validation
    with pytest.raises(FileNotFoundError, match="no whole checkpoint of step 7"):
        policy_folder(trained, "gigpo", 0, 7)
    with pytest.raises(FileNotFoundError, match="grpo with seed 0 is not trained"):
        policy_folder(trained, "grpo", 0)


def test_an_arm_that_fails_in_its_process_is_named_with_its_log(tmp_path):
    settings = replace(TINY, out=str(tmp_path), arms=("grpo",), pool=1)
    with pytest.raises(RuntimeError, match=r"training grpo with seed 0 ended with exit status 1"):
        train_all(settings, workers=1)


# ------------------------------------------------------------------------------------------------------------- the gate


def test_the_gate_lets_a_doctor_pass_who_inquires_and_stops_one_who_guesses(monkeypatch):
    from clinical_r1.agent import experiment
    from clinical_r1.agent.language import build_agent_tokenizer

    patients, tokenizer = draw_patients("validation", 40, 9), build_agent_tokenizer()
    first = [
        max(p.options, key=lambda o, p=p: o == p.gold) if i % 2 else None for i, p in enumerate(patients)
    ]
    monkeypatch.setattr(experiment, "forced_diagnoses", lambda *_: first)  # half of them right
    found = gate(Scripted(POLICIES["expert"], tokenizer), patients, Rules(), 0.05)
    assert found["at_once"] == 0.5 and found["return"] > 0.7 and found["patients"] == 40
    with pytest.raises(
        PipelineError, match=r"returns 0\.\d+ a consultation and 0\.500 when it diagnoses at once"
    ):
        gate(Scripted(POLICIES["guess"], tokenizer), patients, Rules(), 0.05)


def test_costs_that_make_guessing_best_are_refused_before_anything_is_played(tmp_path):
    dear = replace(
        TINY, out=str(tmp_path), rules=Rules(earliest=1, costs={"ask": 0.5, "examine": 0.5, "test": 0.5})
    )
    with pytest.raises(ValueError, match="lower the costs"):
        check_gate(dear)
    assert not list(tmp_path.rglob("gate.json"))


def test_a_forced_diagnosis_is_the_models_own_word_after_its_own_hypothesis():
    patients = draw_patients("validation", 6, 9)
    speaker = speaker_of(start_path(), temperature=0.0)
    given = forced_diagnoses(speaker, patients, Rules(), 0)
    assert len(given) == 6 and all(d is None or isinstance(d, str) for d in given)
    assert sum(d in p.options for d, p in zip(given, patients, strict=True)) >= 5, (
        f"{DIAGNOSE} is followed by an option"
    )


def test_the_shipped_start_is_what_its_hashes_say():
    folder = start_path()
    recipe = read_json(folder / "sha256.json")
    assert recipe["recipe"]["command"] == "python -m clinical_r1.agent start --out DIR"
