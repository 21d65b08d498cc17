"""RL, conversation and preferences on the shipped model, in small: what each stage makes, keeps, and refuses.

Run: pytest tests/preferences/test_stages.py
"""

import json
import shutil
from dataclasses import replace

import pytest

from clinical_r1 import artifacts, generate, models, train, trainer
from clinical_r1.arms import ARMS, in_order
from clinical_r1.clinic.cases import load_set
from clinical_r1.files import read_json, read_jsonl, read_stamp, write_json
from clinical_r1.preferences import learned, stages
from clinical_r1.preferences import train as preference
from clinical_r1.preferences.conversation import PARTS
from clinical_r1.preferences.pairs import read_pairs
from clinical_r1.preferences.recipe import Recipe, recipe_of
from clinical_r1.questions import write_questions
from clinical_r1.settings import SMOKE

ARMS_HERE = ("kg_dpo", "sft_on_chosen")
BATCH = 4
TINY = replace(
    SMOKE, n_sft=80, n_rl=24, n_test=8, sft_epochs=2.0, sft_batch=BATCH, max_completion_tokens=48, eval_batch=48,
    benchmarks=("clinic",), methods=ARMS_HERE, workers=1,
)  # fmt: skip
FEW = {"samples": 6, "epochs": 2.0}


@pytest.fixture(scope="module")
def small():
    """Recipes of this size for every arm that learns from pairs."""
    before = dict(ARMS)
    for name, arm in before.items():
        if arm.stage == "preference":
            ARMS[name] = replace(arm, options=tuple((dict(arm.options) | FEW).items()))
    yield
    ARMS.update(before)


@pytest.fixture(scope="module")
def trained(small, tmp_path_factory):
    """A whole tiny chain, in this process."""
    settings = replace(TINY, out=str(tmp_path_factory.mktemp("run")))
    for split, n in (("sft", settings.n_sft), ("rl", settings.n_rl), ("test", settings.n_test)):
        write_questions(settings.questions_path("clinic", split), load_set("clinic", split, n))
    for arm in in_order(("kg_dpo",)):
        train.train_arm(settings, arm, 0)
    return settings


@pytest.mark.slow
def test_the_chain_is_trained_and_each_stage_starts_from_the_one_before(trained):
    for arm in ("crpo", "chat_sft", "kg_dpo"):
        assert artifacts.is_trained(trained, arm, 0)
    base, adapter = artifacts.policy_of(trained, "kg_dpo", 0)
    assert base == str(trained.model_dir("chat_sft", 0) / "policy") and adapter.name == "policy"
    begun = read_json(trained.model_dir("kg_dpo", 0) / "begun.json")
    assert begun["start_policy"] == artifacts.policy_hash(trained, "chat_sft", 0)
    assert not list(trained.model_dir("kg_dpo", 0).glob("start"))


@pytest.mark.slow
def test_pairs_lie_beside_the_arm_with_what_they_were_made_from(trained):
    path = artifacts.data_path(trained, "kg_dpo", 0)
    pairs, stamp = read_pairs(path), read_stamp(path, "train")
    assert len(pairs.rows) >= BATCH and pairs.questions == trained.n_rl
    assert stamp["start_policy"] == artifacts.policy_hash(trained, "chat_sft", 0)
    answers = read_jsonl(trained.completions_path(stages.PAIRED, "chat_sft", 0))
    assert len(answers) == trained.n_rl * FEW["samples"] and {row["style"] for row in answers} == {"chat"}
    said = {(row["id"], row["text"]) for row in answers if row["finish_reason"] == "stop"}
    for pair in pairs.rows:
        assert {(pair.id, pair.chosen), (pair.id, pair.rejected)} <= said
        assert pair.chosen_verdicts.value - pair.rejected_verdicts.value >= 2
    made = artifacts._made_from(trained, "kg_dpo", 0)
    assert made["data"] == artifacts.sha256(path)[:16]


@pytest.mark.slow
def test_the_log_holds_the_probability_of_the_chosen(trained):
    rows = read_jsonl(trained.model_dir("kg_dpo", 0) / "log_history.jsonl")
    pairs = read_pairs(artifacts.data_path(trained, "kg_dpo", 0))
    assert len(rows) == 2 * (len(pairs.rows) // BATCH)
    assert all({"logps/chosen", "rewards/chosen", "rewards/margins", "loss"} <= set(row) for row in rows)
    assert rows[0]["rewards/chosen"] == 0  # at the start the policy is the reference
    checked = read_json(trained.model_dir("kg_dpo", 0) / "done.json")["checked"]
    assert checked["chosen"] == preference.chosen_shift(rows, 0.1)
    assert trainer.remarks(checked) == checked["said"]


@pytest.mark.slow
def test_an_arm_is_asked_in_conversation_and_in_the_words_of_rl(trained):
    engine = generate.load_method(trained, "kg_dpo", 0)
    path = stages.chat_answers(trained, engine, "kg_dpo", 0, "clinic")
    chat = read_jsonl(path)
    assert path.name == "kg_dpo.seed0.chat.jsonl" and len(chat) == trained.n_test
    rl = read_jsonl(generate.complete(trained, engine, "kg_dpo", 0, "clinic", "greedy"))
    assert {row["style"] for row in chat} == {"chat"} and {row["style"] for row in rl} == {"crpo"}
    assert chat[0]["id"] == rl[0]["id"] and chat[0]["prompt"] != rl[0]["prompt"]


@pytest.mark.slow
def test_a_control_shares_the_answers_and_learns_from_the_chosen_alone(trained, monkeypatch):
    monkeypatch.setattr(stages, "load_method", lambda *a: pytest.fail("the answers are on disk"))
    monkeypatch.setattr(stages, "recipe_of", lambda options: recipe_of(FEW.items()))
    train.train_arm(trained, "sft_on_chosen", 0)
    traces = read_jsonl(artifacts.data_path(trained, "sft_on_chosen", 0))
    pairs = read_pairs(artifacts.data_path(trained, "kg_dpo", 0))
    assert [row["text"] for row in traces] == [pair.chosen for pair in pairs.rows]
    assert artifacts.is_trained(trained, "sft_on_chosen", 0)
    assert "start" not in read_json(trained.model_dir("sft_on_chosen", 0) / "done.json")["checked"]


# ---- refused


def copied(trained, folder):
    settings = replace(trained, out=str(folder))
    shutil.copytree(trained.run_dir, settings.run_dir)
    return settings


@pytest.mark.slow
def test_pairs_of_other_weights_are_refused(trained, tmp_path):
    settings = copied(trained, tmp_path)
    folder = settings.model_dir("kg_dpo", 0)
    for name in ("done.json", "begun.json"):
        (folder / name).unlink()
    shutil.rmtree(folder / "checkpoints")
    stamp = folder / "pairs.json"
    write_json(stamp, read_json(stamp) | {"start_policy": "0" * 16})
    with pytest.raises(
        artifacts.StaleError, match="was made from other weights than chat_sft with seed 0 has now; move"
    ):
        train.train_arm(settings, "kg_dpo", 0)
    write_json(
        stamp,
        read_json(stamp) | {"start_policy": artifacts.policy_hash(settings, "chat_sft", 0), "rules": "0"},
    )
    with pytest.raises(artifacts.StaleError, match="rules was '0'"):
        train.train_arm(settings, "kg_dpo", 0)


@pytest.mark.slow
def test_a_changed_pair_makes_the_arm_stale_and_nothing_else(trained, tmp_path):
    settings = copied(trained, tmp_path)
    path = artifacts.data_path(settings, "kg_dpo", 0)
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:-1]))
    with pytest.raises(artifacts.StaleError, match="data was"):
        artifacts.is_trained(settings, "kg_dpo", 0)
    assert artifacts.is_trained(settings, "chat_sft", 0)
    path.unlink()
    with pytest.raises(artifacts.StaleError, match="now None"):
        artifacts.is_trained(settings, "kg_dpo", 0)


@pytest.mark.slow
def test_an_arm_with_changes_of_its_own_starts_from_one_without(trained, tmp_path, monkeypatch):
    """Its start was trained with the run's settings, not with the arm's."""
    settings = copied(trained, tmp_path)
    changes = (("n_sft", 32), ("sft_epochs", 1.0))
    monkeypatch.setitem(
        ARMS, "mine", replace(ARMS["chat_sft"], name="mine", start="chat_sft", changes=changes)
    )
    train.train_arm(settings, "mine", 0)
    assert len(read_jsonl(artifacts.data_path(settings, "mine", 0))) == 32
    assert artifacts.is_trained(settings, "mine", 0)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("answers", "changes", "message"),
    [
        (
            lambda rows: [row | {"text": rows[0]["text"]} for row in rows],
            {},
            "no usable pair.*dropped: same text 19, held out 5",
        ),
        (
            lambda rows: [row | {"finish_reason": "length"} for row in rows],
            {},
            "dropped: cut 19, held out 5. Most often",
        ),
        (lambda rows: rows, {"sft_batch": 25}, "expected at least one batch of 25; dropped: "),
    ],
    ids=["equal", "cut", "few"],
)
def test_too_few_pairs_are_refused_before_a_model_is_loaded(
    trained, tmp_path, monkeypatch, answers, changes, message
):
    settings = copied(trained, tmp_path)
    shutil.rmtree(settings.model_dir("kg_dpo", 0))
    rows = read_jsonl(settings.completions_path(stages.PAIRED, "chat_sft", 0))
    monkeypatch.setattr(stages, "read_stamped", lambda *a: answers(rows))
    monkeypatch.setattr(preference, "load", lambda *a: pytest.fail("a model is loaded"))
    monkeypatch.setitem(ARMS, "kg_dpo", replace(ARMS["kg_dpo"], changes=changes))
    with pytest.raises(ValueError, match=message):
        train.train_arm(settings, "kg_dpo", 0)
    assert not artifacts.data_path(settings, "kg_dpo", 0).exists()


@pytest.mark.slow
def test_what_does_not_fit_is_refused_and_not_cut(trained, monkeypatch):
    rows = preference.rows_of(read_pairs(artifacts.data_path(trained, "kg_dpo", 0)))
    tokenizer = models.load_tokenizer(models.CLINIC_BASE)
    preference.check_pair_lengths("kg_dpo", trained, tokenizer, rows)
    short = replace(trained, max_prompt_tokens=20, max_completion_tokens=20)
    with pytest.raises(
        ValueError, match=r"kg_dpo: \d+ of \d+ answers with their prompt are longer than .* = 40 tokens"
    ):
        preference.check_pair_lengths("kg_dpo", short, tokenizer, rows)
    # TRL itself: a prompt that fills max_length is dropped in silence
    arguments = preference.dpo_arguments(trained, Recipe(), 0, trained.run_dir / "x", len(rows))
    model, _, adapter = models.load(models.CLINIC_BASE, trained, 0)
    with pytest.raises(ValueError, match=f"TRL leaves out {len(rows)} of {len(rows)} pairs"):
        preference.preference_trainer(model, tokenizer, rows, arguments | {"max_length": 10}, adapter)


def test_a_model_with_an_adapter_is_refused():
    from peft import get_peft_model

    model, tokenizer, adapter = models.load(models.CLINIC_BASE, SMOKE, 0)
    with pytest.raises(ValueError, match="carries a trained adapter already; merge it first"):
        preference.preference_trainer(get_peft_model(model, adapter), tokenizer, [{}], {}, adapter)


def test_no_pairs_are_refused_in_a_sentence_and_not_by_stopiteration():
    model, tokenizer, adapter = models.load(models.CLINIC_BASE, SMOKE, 0)
    with pytest.raises(ValueError, match="there is no pair to learn from"):
        preference.preference_trainer(model, tokenizer, [], {}, adapter)


def test_a_start_that_is_not_trained_is_named(tmp_path):
    with pytest.raises(ValueError, match="chat_sft with seed 0 is not trained"):
        train.train_arm(replace(SMOKE, out=str(tmp_path)), "kg_dpo", 0)


def test_another_benchmark_has_no_graph(tmp_path):
    settings = replace(SMOKE, out=str(tmp_path), train_benchmark="medqa")
    with pytest.raises(ValueError, match="ask questions of clinic, got train_benchmark 'medqa'"):
        stages.questions_of(settings, "pairs")


# ---- pure parts


def test_every_kind_of_data_has_its_function():
    named = {arm.data for arm in ARMS.values()} - {""}
    assert named == {name for name in named if callable(getattr(learned, name))}
    for arm in ARMS.values():
        if arm.stage == "preference":
            recipe_of(arm.options)


def test_questions_are_written_once_and_no_stage_has_those_of_another(tmp_path):
    settings = replace(SMOKE, out=str(tmp_path))
    asked = {part: stages.questions_of(settings, part) for part in PARTS}
    stems = {part: {question.stem for question in questions} for part, (questions, _) in asked.items()}
    assert (len(asked["chat"][0]), len(asked["pairs"][0])) == (settings.n_sft, settings.n_rl)
    assert not stems["chat"] & stems["pairs"]
    before = asked["pairs"][1].read_bytes()
    assert stages.questions_of(settings, "pairs")[0] == asked["pairs"][0]
    assert asked["pairs"][1].read_bytes() == before


def test_the_probability_of_the_chosen_is_read_at_the_end_and_compared_on_the_same_answers():
    log = [{"logps/chosen": -20.0, "rewards/chosen": 0.0}] * 8 + [
        {"logps/chosen": -30.0, "rewards/chosen": -0.2},
        {"logps/chosen": -26.0, "rewards/chosen": -0.4},
        {"train_runtime": 3.0},
    ]
    shift = preference.chosen_shift(log, beta=0.1)
    assert shift == pytest.approx({"start": -25.0, "end": -28.0})  # (-0.2 - 0.4) / 2 / 0.1 = -3 nats
    assert "fell from -25.00 to -28.00 nats an answer (likelihood displacement)" in preference.displaced(
        shift
    )
    assert preference.displaced({"start": -25.0, "end": -25.0}) is None
    with pytest.raises(ValueError, match="none of 1 logged rows holds logps/chosen"):
        preference.chosen_shift(log[-1:], 0.1)


def test_what_a_stage_says_of_itself_is_a_remark():
    checked = {"lacking": {}, "skipped_steps": 0, "steps": 3}
    assert trainer.remarks(checked) == [] and trainer.remarks(checked | {"said": ["x fell"]}) == ["x fell"]


def test_a_step_of_pairs_takes_two_sequences_each():
    arguments = preference.dpo_arguments(replace(SMOKE, micro_batch=8), Recipe(), 0, SMOKE.run_dir, 70)
    assert arguments["per_device_train_batch_size"] == 4 and arguments["gradient_accumulation_steps"] == 8
    assert arguments["max_steps"] == 4  # two epochs of two whole batches
    assert (arguments["loss_type"], arguments["loss_weights"]) == (["sigmoid", "sft"], [1.0, 0.5])
    json.dumps(arguments)
