"""What TRL's rollout function is given and gives back, and transcripts that a killed run left half-way."""

import json
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from agent_cases import PRICED, Cut, ScriptedRollout, careless, model_of, patients, tokenizer

from clinical_r1.agent.consultation import Rules
from clinical_r1.agent.credit import check_groups
from clinical_r1.agent.episodes import read_transcripts
from clinical_r1.agent.forest import Shape, chains, forest
from clinical_r1.agent.rollouts import ConsultationRollout, consultation_reward, record, rows_of
from clinical_r1.agent.speaking import Forgetful, Speaker, seed_of
from clinical_r1.files import PipelineError, locked

SPEAKER = Cut(careless, 0.1)


def trainer_like(group=3, step=0, seed=1, training=True, limit=100, model=None):
    """What a rollout reads of a trainer."""
    model = model_of() if model is None else model
    model.train(training)
    accelerator = SimpleNamespace(
        unwrap_model=lambda model, **_: model, state=SimpleNamespace(deepspeed_plugin=None)
    )
    arguments = SimpleNamespace(
        seed=seed, ds3_gather_for_generation=True, top_p=1.0, top_k=0, min_p=None, repetition_penalty=1.0
    )
    return SimpleNamespace(
        model=model, model_wrapped=model, accelerator=accelerator, args=arguments, num_generations=group,
        num_generations_eval=1, state=SimpleNamespace(global_step=step), temperature=1.0, use_vllm=False,
        processing_class=tokenizer(), generation_kwargs={}, max_completion_length=limit,
    )  # fmt: skip


def prompts(people, group):
    return [row["prompt"] for row in rows_of(people, PRICED) for _ in range(group)]


@pytest.fixture
def rollout():
    return ScriptedRollout(patients(), PRICED)


def test_rows_come_in_the_order_of_the_prompts(rollout):
    people = patients()[3:5]
    found = rollout(prompts(people, 3), trainer_like())
    assert {name: len(found[name]) for name in found if name != "logprobs"} == dict.fromkeys(
        ("prompt_ids", "completion_ids", "env_mask", "episode"), 6
    )
    assert found["logprobs"] is None
    for i, episode in enumerate(found["episode"]):
        assert episode.patient == people[i // 3].id
        text = tokenizer().apply_chat_template(
            prompts(people, 3)[i], tokenize=False, add_generation_prompt=True
        )
        assert found["prompt_ids"][i] == tokenizer()(text, add_special_tokens=False)["input_ids"]
        assert found["completion_ids"][i] == episode.completion_ids
        assert found["env_mask"][i] == episode.env_mask


def test_the_reward_is_the_sum_of_an_episodes_rewards(rollout):
    episodes = rollout(prompts(patients(), 3), trainer_like())["episode"]
    rewards = consultation_reward(completions=None, episode=episodes, prompts=None)
    assert rewards == [sum(turn.reward for turn in e.turns) for e in episodes]
    assert len(set(rewards)) > 3


def test_a_forests_rows_are_its_leaves():
    rollout = ScriptedRollout(patients(), PRICED, Shape(2, 2, 1, 3))
    episodes = rollout(prompts(patients(), 6), trainer_like(6))["episode"]
    check_groups([e.patient for e in episodes], 6, [e.tree for e in episodes], 3)
    assert 1.2 < rollout.trained / rollout.sampled < 1.6


@pytest.mark.parametrize("order", ["once each", "alternating", "one too few"])
def test_prompts_that_are_not_repeated_are_refused(rollout, order):
    given = {
        "once each": prompts(patients(), 1),
        "alternating": prompts(patients()[:2], 1) * 3,
        "one too few": prompts(patients()[:2], 3)[:-1],
    }[order]
    with pytest.raises(ValueError, match="not repeated 3 times each"):
        rollout(given, trainer_like())


def test_a_prompt_of_nobody_is_refused(rollout):
    with pytest.raises(ValueError, match="is none of the rollout's patients'"):
        rollout(prompts(patients(3, "validation"), 3), trainer_like())


def test_a_prompt_under_other_rules_is_refused(rollout):
    rows = [row["prompt"] for row in rows_of(patients(), Rules(horizon=4)) for _ in range(3)]
    with pytest.raises(
        ValueError, match="expected rows that `rows_of` made of the rollout's own patients and rules"
    ):
        rollout(rows, trainer_like())


def test_two_patients_with_one_prompt_are_told_apart_by_the_rows_or_refused():
    """Nothing in a prompt says what the findings are."""
    one = patients()[0]
    two = replace(one, id="twin", findings={name: not present for name, present in one.findings.items()})
    rollout = ScriptedRollout([one, two], PRICED)
    asked = prompts([two], 3)
    assert asked == prompts([one], 3)
    with pytest.raises(ValueError, match=f"patients {one.id} and twin begin with one prompt"):
        rollout(asked, trainer_like())
    rollout.patients_of_rows = ["twin"] * 3
    assert {e.patient for e in rollout(asked, trainer_like())["episode"]} == {"twin"}
    rollout.patients_of_rows = [one.id] * 3
    assert {e.patient for e in rollout(asked, trainer_like())["episode"]} == {one.id}


def test_a_row_with_the_prompt_of_another_patient_is_refused(rollout):
    rollout.patients_of_rows = [patients()[1].id] * 3
    with pytest.raises(ValueError, match="is not that of rl-0-menu8-00001"):
        rollout(prompts(patients()[:1], 3), trainer_like())


def test_a_group_of_another_size_than_the_forests_is_refused():
    rollout = ScriptedRollout(patients(), PRICED, Shape(2, 2, 1, 3))
    with pytest.raises(
        ValueError, match="num_generations is 3 and the forest has 2 trees of 3 leaves; expected 6"
    ):
        rollout(prompts(patients(), 3), trainer_like(3))


def test_an_episode_longer_than_the_trainers_limit_is_refused(rollout):
    with pytest.raises(ValueError, match="max_completion_length is 10; raise it"):
        rollout(prompts(patients(), 3), trainer_like(limit=10))


def test_vllm_is_refused(rollout):
    trainer = trainer_like()
    trainer.use_vllm = True
    with pytest.raises(ValueError, match="expected False"):
        rollout(prompts(patients(), 3), trainer)


def test_patients_with_one_id_are_refused():
    with pytest.raises(ValueError, match="got 2 patients with 1 ids"):
        ScriptedRollout([patients()[0]] * 2, PRICED)


def test_a_step_has_draws_of_its_own_which_come_again():
    """A run that is continued from a checkpoint calls the rollout in a process of its own."""

    def played(**changes):
        return ScriptedRollout(patients(), PRICED)(prompts(patients(), 3), trainer_like(**changes))["episode"]

    assert played(step=4) == played(step=4)
    assert played(step=4) != played(step=5)
    assert played(seed=1) != played(seed=2)


def test_two_calls_of_one_step_differ(rollout):
    """Gradient accumulation may ask twice before the step is over."""
    trainer = trainer_like(step=4)
    first, second = (rollout(prompts(patients(), 3), trainer)["episode"] for _ in range(2))
    assert first != second
    again = ScriptedRollout(patients(), PRICED)
    assert [again(prompts(patients(), 3), trainer)["episode"] for _ in range(2)] == [first, second]


def test_an_evaluation_between_two_steps_changes_no_draw(rollout):
    """A run that goes on from a checkpoint may not have made it."""
    trainer, validation = trainer_like(step=4), trainer_like(step=4, training=False)
    first = ScriptedRollout(patients(), PRICED)(prompts(patients(), 3), trainer)["episode"]
    rollout(prompts(patients(), 1), validation)
    assert rollout(prompts(patients(), 3), trainer)["episode"] == first


def test_evaluation_plays_chains():
    rollout = ScriptedRollout(patients(), PRICED, Shape(2, 2, 1, 3))
    found = rollout(prompts(patients(), 1), trainer_like(6, training=False))["episode"]
    assert [e.patient for e in found] == [p.id for p in patients()] and {e.tree for e in found} == {None}
    assert rollout.sampled == 0


def test_the_model_speaks_at_the_trainers_temperature():
    rollout, trainer = ConsultationRollout(patients(), PRICED), trainer_like()
    trainer.temperature, trainer.args.top_p = 0.7, 0.9
    speaker = rollout.speaker(trainer.model, trainer)
    config = speaker._config()
    assert (config.temperature, config.top_p, config.top_k, config.do_sample) == (0.7, 0.9, 0, True)
    assert config.min_p is None and config.repetition_penalty == 1.0


def test_a_models_rollout_leaves_the_model_as_it_was():
    trainer = trainer_like(2)
    before = {name: value.clone() for name, value in trainer.model.state_dict().items()}
    found = ConsultationRollout(patients(), PRICED)(prompts(patients()[:2], 2), trainer)
    assert len(found["episode"]) == 4 and trainer.model.training
    assert "generate" not in vars(trainer.model)
    assert all(torch.equal(value, before[name]) for name, value in trainer.model.state_dict().items())


def test_an_adapter_speaks_as_the_model_that_it_is_merged_into():
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(r=4, target_modules="all-linear", init_lora_weights=False)
    torch.manual_seed(0)
    adapted = get_peft_model(model_of(torch.float64), config)
    trainer = trainer_like(2, model=adapted)
    found = ConsultationRollout(patients(), PRICED)(prompts(patients()[:2], 2), trainer)["episode"]
    merged = adapted.merge_and_unload()
    seed = seed_of(trainer.args.seed, "train", 0, 0)
    alone = chains(Speaker(merged, tokenizer()), patients()[:2], PRICED, 2, seed)
    plain = chains(Speaker(model_of(torch.float64), tokenizer()), patients()[:2], PRICED, 2, seed)
    assert tuple(found) == alone.episodes != plain.episodes


# --------------------------------------------------------------------------------------------------------- on disk


class Dies(Forgetful):
    """A speaker whose process is killed in its n-th call."""

    def __init__(self, n):
        self.left, self.tokenizer = n, SPEAKER.tokenizer

    def __call__(self, *args):
        self.left -= 1
        if self.left < 0:
            raise KeyboardInterrupt
        return SPEAKER(*args)


def recorded(path, speaker=SPEAKER, rules=PRICED, people=None, **changes):
    options = dict(n=2, seed=3, batch=2) | changes
    return record(path, speaker, people or patients(), rules, {"policy": "careless"}, **options)


def test_recorded_episodes_are_those_that_were_played(tmp_path):
    assert recorded(tmp_path / "a.jsonl") == list(chains(SPEAKER, patients(), PRICED, 2, 3).episodes)
    stamp = json.loads((tmp_path / "a.json").read_text())
    assert stamp["policy"] == "careless" and stamp["rules"]["horizon"] == 5 and stamp["seed"] == 3
    shape = Shape(2, 2, 1, 3)
    found = recorded(tmp_path / "b.jsonl", shape=shape)
    assert found == list(forest(SPEAKER, patients(), PRICED, 2, 2, 1, 3, 3).episodes)


def test_a_killed_recording_goes_on_to_the_same_bytes(tmp_path):
    whole, broken = tmp_path / "whole.jsonl", tmp_path / "broken.jsonl"
    recorded(whole)
    with pytest.raises(KeyboardInterrupt):
        recorded(broken, Dies(8))
    assert (
        not broken.exists()
        and len(json.loads((tmp_path / "broken.partial.json").read_text())["batches"]) == 1
    )
    recorded(broken)
    assert broken.read_bytes() == whole.read_bytes()
    assert broken.with_suffix(".json").read_bytes() == whole.with_suffix(".json").read_bytes()
    assert sorted(p.name for p in tmp_path.iterdir() if not p.name.startswith(".")) == [
        "broken.json", "broken.jsonl", "whole.json", "whole.jsonl",
    ]  # fmt: skip


def test_a_finished_recording_asks_nobody(tmp_path):
    first = recorded(tmp_path / "a.jsonl")
    assert recorded(tmp_path / "a.jsonl", Dies(0)) == first == read_transcripts(tmp_path / "a.jsonl")


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        (dict(seed=4), "seed"),
        (dict(n=3), "n"),
        (dict(rules=Rules()), "rules"),
        (dict(people=patients(2)), "patients"),
    ],
)
def test_a_recording_of_something_else_is_refused(tmp_path, changes, name):
    recorded(tmp_path / "a.jsonl")
    with pytest.raises(ValueError, match=f"was made with another {name}; expected the same"):
        recorded(tmp_path / "a.jsonl", **changes)
    with pytest.raises(KeyboardInterrupt):
        recorded(tmp_path / "b.jsonl", Dies(8))
    with pytest.raises(ValueError, match=f"was made with another {name}; expected the same"):
        recorded(tmp_path / "b.jsonl", **changes)


def test_one_process_records_at_a_time(tmp_path):
    with (
        locked(tmp_path / ".a.lock", "a"),
        pytest.raises(PipelineError, match="being written by another run"),
    ):
        recorded(tmp_path / "a.jsonl")
