"""The graph of stages: arms as data, what each learns from and starts from, and which old stamps stay as they were.

Run: pytest tests/test_arms.py
"""

import shutil
from dataclasses import replace

import pytest

from clinical_r1 import artifacts
from clinical_r1.arms import (
    ARMS,
    LABORATORY,
    LEARNED_FROM,
    LOW_DATA,
    METHODS,
    PREFERENCES,
    STAGES,
    STARTS,
    Arm,
    in_order,
    starts_of,
)
from clinical_r1.files import PACKAGE
from clinical_r1.settings import CPU, SMOKE

NEW = {arm.name for arm in (*PREFERENCES, *LOW_DATA)}


def test_the_chain_of_preferences_is_trained_in_order():
    assert starts_of("kg_dpo") == ["chat_sft", "crpo", "baseline"]
    assert in_order(["kg_dpo", "sft_on_chosen", "flipped"]) == [
        "crpo", "chat_sft", "kg_dpo", "sft_on_chosen", "flipped",
    ]  # fmt: skip
    assert in_order(["chat_sft_clean"]) == ["crpo", "chat_sft_clean"]


def test_the_new_arms_stand_in_no_table():
    assert not NEW & {*METHODS, *LABORATORY, *CPU.methods, *CPU.probe_also}
    assert {ARMS[name].family for name in NEW} == {"preferences", "low_data"}
    labels = [arm.label for arm in ARMS.values()]
    assert len(set(labels)) == len(labels)


def test_every_control_is_kg_dpo_but_for_one_thing():
    arms = {arm.name: arm for arm in PREFERENCES}
    reference = arms["kg_dpo"]
    for name, changed in {
        "kg_dpo_sigmoid": {"options"},
        "kg_extremes": {"data"},
        "kg_relations": {"data"},
        "flipped": {"data"},
        "length": {"data"},
        "sft_on_chosen": {"data", "stage"},
        "taught_dpo": {"data", "start"},
    }.items():
        differs = {
            key
            for key in (
                "rewards",
                "weights",
                "aggregation",
                "options",
                "style",
                "stage",
                "start",
                "changes",
                "data",
            )
            if getattr(arms[name], key) != getattr(reference, key)
        }
        assert differs == changed


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_learns_from_its_own_kinds_of_data(stage):
    fields = dict(name="mine", family="own", label="Mine", stage=stage)
    for data in LEARNED_FROM[stage]:
        assert Arm(**fields, data=data).data == data
    for data in {"kg", "chat", "", "traces", "KG"} - {*LEARNED_FROM[stage]}:
        with pytest.raises(
            ValueError, match=f"arm mine of stage '{stage}' learns from '{data}'; expected one of"
        ):
            Arm(**fields, data=data)
    with pytest.raises(ValueError, match="has the data 3; expected one line of text"):
        Arm(**fields, data=3)


def test_pairs_without_a_source_are_refused():
    with pytest.raises(ValueError, match="learns from ''; expected one of 'kg', 'kg_relations'"):
        Arm("mine", "own", "Mine", stage="preference")


@pytest.mark.parametrize("name", [name for name in ARMS if name not in NEW])
def test_no_older_arm_is_stamped_with_anything_of_the_new_stage(name):
    """Or a trained arm would be stale because a stage was added."""
    stamp = artifacts._made_from(CPU, name, 0)
    assert not {"data", "data_rules", "recipe"} & set(stamp)
    keys = artifacts.TRAINED_ON if ARMS[name].stage == "sft" else artifacts.RL_ON
    own = {"sft": {"prompt_rules", "teacher"}, "": set()}.get(
        ARMS[name].stage, {"prompt_rules", "style", "reward_rules", "weights", "aggregation"}
    )
    start = {"start"} if ARMS[name].start != "baseline" else set()
    assert set(stamp) == {*keys, "arm", "seed", *own, *start}


def test_a_pair_stage_is_stamped_with_its_own_settings_alone():
    stamp = artifacts._made_from(SMOKE, "kg_dpo", 0)
    assert stamp["data"] is None  # not made yet
    assert stamp["data_rules"].keys() == {"kg"} and stamp["start"].keys() == {"chat_sft"}
    assert not {"rl_steps", "rl_beta", "sft_epochs", "n_sft", "teacher_traces", "teacher"} & set(stamp)
    others = [replace(SMOKE, rl_beta=0.5), replace(SMOKE, sft_epochs=3.0), replace(SMOKE, eval_batch=3)]
    assert stamp["sft_batch"] == SMOKE.sft_batch
    assert all(artifacts._made_from(other, "kg_dpo", 0) == stamp for other in others)
    assert artifacts._made_from(replace(SMOKE, lora_rank=8), "kg_dpo", 0) != stamp
    recipes = {str(artifacts.arm_stamp(name)["recipe"]) for name in ("kg_dpo", "kg_dpo_sigmoid")}
    assert len(recipes) == 2


def test_how_pairs_are_learned_from_is_no_part_of_how_they_are_made(tmp_path, monkeypatch):
    """Or a changed learning rate would make files of pairs, and the arms that imitate them, stale."""
    copy = tmp_path / PACKAGE.name
    shutil.copytree(PACKAGE, copy, ignore=shutil.ignore_patterns("__pycache__", "data"))
    monkeypatch.setattr(artifacts, "PACKAGE", copy)
    before = {arm.name: artifacts.arm_stamp(arm.name) for arm in PREFERENCES}
    recipe = copy / "preferences" / "recipe.py"
    recipe.write_text(recipe.read_text().replace("beta: float = 0.1", "beta: float = 0.2"))
    artifacts.forget_code()
    changed = {name for name, stamp in before.items() if artifacts.arm_stamp(name) != stamp}
    monkeypatch.undo()
    artifacts.forget_code()
    assert changed == {arm.name for arm in PREFERENCES if arm.stage == "preference"}


def test_what_is_loaded_for_each_stage():
    folder = SMOKE.model_dir("kg_dpo", 0)
    assert artifacts.policy_of(SMOKE, "kg_dpo", 0) == (
        str(SMOKE.model_dir("chat_sft", 0) / "policy"), folder / "policy",
    )  # fmt: skip
    assert artifacts.policy_of(SMOKE, "chat_sft", 0) == (str(SMOKE.model_dir("chat_sft", 0) / "policy"), None)
    # an adapter that is started from is merged into a copy first
    assert artifacts.start_of(SMOKE, "chat_sft", 0) == str(SMOKE.model_dir("chat_sft", 0) / "start")


def test_the_arms_of_little_data_differ_in_their_aggregation_alone():
    assert {
        replace(arm, name="x", label="x", setting="", aggregation="gated", options=()) for arm in LOW_DATA
    } == {Arm("x", "low_data", "x", aggregation="gated", changes=LOW_DATA[0].changes)}
    changed = artifacts.settings_of(CPU, "few_binary")
    assert (changed.n_rl, changed.rl_prompts, changed.num_generations) == (64, 4, 4)


def test_starts_are_unchanged():
    assert [arm.name for arm in STARTS] == ["cold_start"] and in_order(METHODS)[0] == "cold_start"
