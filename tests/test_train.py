"""Training and generation on TRL: every objective logged by name, weights moved, killed runs end where whole runs end.

Run: pytest tests/test_train.py
"""

import inspect
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import types
from dataclasses import replace

import pytest

from clinical_r1 import artifacts, generate, models, score, train, workers
from clinical_r1.arms import ARMS, COLD_START, METHODS, in_order
from clinical_r1.clinic.cases import load_set
from clinical_r1.files import PipelineError, read_jsonl, write_jsonl
from clinical_r1.questions import write_questions
from clinical_r1.rewards import REWARD_SETS
from clinical_r1.settings import SMOKE
from clinical_r1.speed.draws import DRAWS
from clinical_r1.trainer import check_lengths

TINY = replace(SMOKE, n_sft=64, n_rl=16, n_test=8, eval_batch=3, benchmarks=("clinic",), workers=1)


def prepare(folder, **changes):
    settings = replace(TINY, out=str(folder), **changes)
    for split, n in (("sft", settings.n_sft), ("rl", settings.n_rl), ("test", settings.n_test)):
        write_questions(settings.questions_path("clinic", split), load_set("clinic", split, n))
    return settings


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A whole tiny run of two arms, in this process."""
    settings = prepare(tmp_path_factory.mktemp("run"), methods=("baseline", "crpo", "cold_start_grpo"))
    for arm in in_order(settings.methods):
        train.train_arm(settings, arm, 0)
    return settings


def test_the_cold_start_comes_before_the_arms_that_need_it():
    assert in_order(TINY.methods) == [COLD_START, *METHODS[1:]]
    assert in_order(("baseline", "grpo")) == ["grpo"]


def test_every_objective_is_logged_under_its_own_name(trained):
    rows = [row for row in read_jsonl(trained.model_dir("crpo", 0) / "log_history.jsonl") if "reward" in row]
    assert [row["step"] for row in rows] == [1, 2]
    for function in REWARD_SETS["crpo"].functions:
        assert f"rewards/{function.__name__}/mean" in rows[0]
    assert {"kl", "completions/mean_length", "reward_std"} <= set(rows[0])


def test_prompts_are_encoded_once_per_group(trained):
    rows = [row for row in read_jsonl(trained.model_dir("crpo", 0) / "log_history.jsonl") if "reward" in row]
    assert all(0 < row["shared_prefix/tokens"] < 1 for row in rows)


@pytest.mark.parametrize(
    ("changes", "mixins"),
    [
        ({}, ["SharedPrefixMixin", "GroupShuffleMixin", "SharedPrefillMixin"]),
        ({"shared_prefix": False}, []),
        ({"backend": "unsloth"}, ["GroupShuffleMixin"]),  # it shares prompts by itself
    ],
)
def test_what_comes_before_the_trainer(changes, mixins):
    bases = [base.__name__ for base in train.trainer_class(replace(TINY, **changes)).__mro__]
    ours = [
        name for name in bases if name.startswith(("SharedPre", "GroupShuffle")) and name.endswith("Mixin")
    ]
    assert ours == mixins
    assert bases.index("MultiObjectiveMixin") < bases.index("GRPOTrainer")


@pytest.mark.parametrize("draws", DRAWS)
def test_the_draws_of_the_settings_reach_the_trainer(draws, tmp_path, monkeypatch):
    def stop(trainer):
        raise InterruptedError(trainer.draws)

    monkeypatch.setattr(train, "run", stop)
    with pytest.raises(InterruptedError, match=draws):
        train.train_arm(prepare(tmp_path, draws=draws), "grpo", 0)
    with pytest.raises(ValueError, match="draws is 'fast'; expected one of inverse_cdf, stock"):
        replace(TINY, draws="fast")


def test_processes_share_a_step_in_whole_groups(monkeypatch):
    assert train.reinforced_batch(TINY) == (8, 1)
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert train.reinforced_batch(TINY) == (4, 1)
    assert train.supervised_batch(replace(TINY, sft_batch=32, micro_batch=8)) == (8, 2)
    assert train.supervised_batch(replace(TINY, sft_batch=32, micro_batch=8, sft_micro_batch=2)) == (2, 8)
    with pytest.raises(RuntimeError, match="launch one arm"):
        train.train_all(TINY)
    monkeypatch.setenv("WORLD_SIZE", "3")
    with pytest.raises(ValueError, match="3 processes cannot share rl_prompts 2"):
        train.reinforced_batch(TINY)
    with pytest.raises(ValueError, match="3 processes cannot share sft_batch 32"):
        train.supervised_batch(replace(TINY, sft_batch=32))


def test_logged_total_is_equation_four(trained):
    weights, functions = REWARD_SETS["crpo"].weights, REWARD_SETS["crpo"].functions
    for row in read_jsonl(trained.model_dir("crpo", 0) / "log_history.jsonl"):
        if "reward" in row:
            total = sum(
                w * row[f"rewards/{f.__name__}/mean"] for w, f in zip(weights, functions, strict=True)
            )
            assert row["reward"] == pytest.approx(total, abs=1e-4)


def test_weights_moved_and_the_reference_did_not(trained):
    from safetensors.torch import load_file

    adapter = load_file(trained.model_dir("crpo", 0) / "policy" / "adapter_model.safetensors")
    assert any(value.abs().sum() > 0 for name, value in adapter.items() if "lora_B" in name)
    models.check_hashes(models.clinic_base_path())


def test_cold_start_arm_starts_from_merged_weights(trained):
    base, adapter = artifacts.policy_of(trained, "cold_start_grpo", 0)
    assert base.endswith("cold_start/seed0/policy") and (adapter / "adapter_config.json").exists()
    assert artifacts.policy_of(trained, "baseline", 0) == (models.CLINIC_BASE, None)
    # what an arm is trained from, and what a cold start is loaded as, is the same folder
    assert artifacts.policy_of(trained, COLD_START, 0) == (base, None)


@pytest.mark.parametrize("device, asked", [("cpu", "merged"), ("cuda", "trained")])
def test_the_start_is_counted_where_it_was_trained(tmp_path, monkeypatch, device, asked):
    """A merge through a file leaves the model on the CPU; what answers must be on the trainer's device."""
    import trl

    def model(name, device):
        return types.SimpleNamespace(name=name, device=types.SimpleNamespace(type=device))

    trainer = types.SimpleNamespace(
        model=model("trained", device), train_dataset=[0] * 64, is_world_process_zero=lambda: True
    )
    for name, value in {
        "load": lambda *a: (None, models.load_tokenizer("clinic-base"), None),
        "run": lambda trainer: {},
        "begin": lambda *a: None,
        "float32_adapter": lambda *a: None,
        "merged": lambda *a: model("merged", "cpu"),
        "measure_start": lambda model, *a: model.name,
        "finish": lambda model, trainer, settings, arm, seed, checked: said.append((model.name, checked)),
    }.items():
        monkeypatch.setattr(train, name, value)
    monkeypatch.setattr(trl, "SFTTrainer", lambda **k: trainer)
    said = []
    train.train_sft(prepare(tmp_path), COLD_START, 0)
    assert said == [("merged", {"start": asked})]


def test_a_trained_arm_is_not_trained_again_and_not_reused_for_other_settings(trained):
    stamp = trained.model_dir("crpo", 0) / "done.json"
    before = stamp.stat().st_mtime_ns
    train.train_arm(trained, "crpo", 0)
    assert stamp.stat().st_mtime_ns == before
    with pytest.raises(ValueError, match=r"rl_steps was 2, now 3"):
        train.train_arm(replace(trained, rl_steps=3), "crpo", 0)


def test_hook_signature_of_the_pinned_trainer():
    """CRPO needs no subclass, only these options; a TRL that drops one must fail here."""
    import trl

    options = inspect.signature(trl.GRPOConfig).parameters
    assert {"reward_weights", "multi_objective_aggregation", "scale_rewards", "loss_type", "beta"} <= set(
        options
    )


def test_completions_carry_their_prompt_and_are_scored(trained):
    files = generate.complete_all(trained)
    rows = read_jsonl(files[0])
    assert len(rows) == trained.n_test and rows[0]["prompt"].endswith("<|assistant|> ")
    records = score.score_all(trained)
    assert len(records) == len(files) * trained.n_test
    assert {"backtracking", "drc", "hallucination"} <= set(records[0]["measures"])
    assert all(record["correct"] == (record["letter"] == record["answer"]) for record in records)


def test_generation_killed_half_way_writes_the_same_bytes(trained, tmp_path):
    path = generate.complete_all(trained)[0]
    whole = path.read_text()
    lines = whole.splitlines(keepends=True)
    path.with_suffix(".partial").write_text(
        "".join(lines[:4]) + lines[4][:20]
    )  # one whole batch, one torn line
    path.unlink()
    generate.complete_all(trained)
    assert path.read_text() == whole


def test_edited_completions_are_not_scored(trained):
    path = generate.complete_all(trained)[0]
    whole = path.read_text()
    path.write_text("".join(whole.splitlines(keepends=True)[1:]))
    with pytest.raises(ValueError, match="was changed after it was made"):
        score.score_all(trained)
    path.write_text(whole)


def test_untrained_arm_says_so(tmp_path):
    with pytest.raises(ValueError, match="not trained"):
        generate.load_method(prepare(tmp_path), "grpo", 0)


def test_a_failing_arm_names_its_log(tmp_path):
    settings = prepare(tmp_path, methods=("grpo",))
    settings.questions_path("clinic", "rl").write_text("not json\n")
    with pytest.raises(RuntimeError, match=r"training grpo with seed 0 .*train\.log"):
        train.train_all(settings)


def child(settings, arm):
    """The process that `train_all` starts for one arm."""
    command = [sys.executable, "-m", "clinical_r1.train", "--arm", arm, "--seed", "0", "--out", settings.out]
    command += ["--settings", json.dumps(settings.to_json()), "--with-parent"]
    return subprocess.Popen(command, stdin=subprocess.PIPE, env={**os.environ, "OMP_NUM_THREADS": "1"})


@pytest.mark.slow
@pytest.mark.parametrize("arm", ["crpo", COLD_START])
def test_training_killed_and_resumed_ends_in_the_same_weights(tmp_path, arm):
    from safetensors.torch import load_file

    weights = {}
    for name in ("whole", "killed"):
        settings = prepare(
            tmp_path / name, n_sft=128, rl_steps=6, save_steps=1, methods=("crpo", "cold_start_crpo")
        )
        if name == "killed":
            checkpoint = settings.model_dir(arm, 0) / "checkpoints" / "checkpoint-2" / "trainer_state.json"
            with child(settings, arm) as process:
                while not checkpoint.exists() and process.poll() is None:
                    time.sleep(0.02)
                process.send_signal(signal.SIGKILL)
            assert not (settings.model_dir(arm, 0) / "done.json").exists()
        with child(settings, arm) as process:
            assert process.wait() == 0
        weights[name] = load_file(next((settings.model_dir(arm, 0) / "policy").glob("*.safetensors")))
    assert weights["whole"].keys() == weights["killed"].keys()
    assert all((weights["whole"][key] == weights["killed"][key]).all() for key in weights["whole"])


def test_a_child_stops_when_its_parent_closes(tmp_path):
    with child(prepare(tmp_path, rl_steps=10_000), "grpo") as process:
        process.stdin.close()
        assert process.wait(timeout=60) == workers.PARENT_GONE


@pytest.mark.parametrize(
    ("trace", "fields"),
    [
        ({"style": "crpo", "text": "x"}, "id"),
        ({"id": "q", "style": "crpo", "text": None}, "text"),
        ({"id": "q", "style": "crpo", "text": " \n"}, "text"),
        ({"id": "q", "style": "CRPO", "text": "x"}, "style"),
        ({"id": 3, "text": ""}, "id, style, text"),
    ],
)
def test_a_trace_that_teaches_nothing_is_named_with_its_line(tmp_path, trace, fields):
    settings = prepare(tmp_path)
    good = {"id": "clinic-sft-00000", "style": "crpo", "text": "said"}
    path = write_jsonl(tmp_path / "traces.jsonl", [good, trace])
    with pytest.raises(ValueError, match=f"line 2 has no usable {fields} "):
        train.teacher_rows(replace(settings, teacher_traces=str(path)))


def test_traces_that_do_not_fit_are_refused_before_training(tmp_path):
    settings = replace(prepare(tmp_path), max_prompt_tokens=10, max_completion_tokens=10)
    with pytest.raises(
        ValueError, match=r"\d+ of \d+ traces are longer than max_prompt_tokens \+ max_completion_tokens = 20"
    ):
        train.train_sft(settings, COLD_START, 0)
    assert not (settings.model_dir(COLD_START, 0) / "done.json").exists()


def test_completions_of_other_questions_are_refused(tmp_path):
    settings = replace(prepare(tmp_path), methods=("baseline",), benchmarks=("clinic",), eval_greedy=False)
    questions = load_set("clinic", "test", 3)
    path = write_questions(settings.questions_path("clinic", "test"), questions)
    job = ("baseline", 0, "clinic", "sampled")
    generate.complete_all(settings)
    assert generate.is_complete(settings, *job)
    write_questions(path, [replace(question, stem=f"{question.stem} Again?") for question in questions])
    with pytest.raises(ValueError, match="test_questions was"):
        generate.is_complete(settings, *job)


# ---- refused before training


@pytest.mark.parametrize("count", [0, 1, 3, 7])
@pytest.mark.parametrize(
    ("arm", "split", "needs"),
    [("crpo", "rl", "rl_prompts = 8"), (COLD_START, "sft", "sft_batch = 8")],
)
def test_fewer_questions_than_a_step_takes_are_refused(tmp_path, count, arm, split, needs):
    settings = prepare(tmp_path, rl_prompts=8, sft_batch=8)
    path = write_questions(settings.questions_path("clinic", split), load_set("clinic", split, 7)[:count])
    with pytest.raises(
        ValueError, match=f"{arm} needs {needs} questions for a step and has {count}: "
    ) as caught:
        train.train_arm(settings, arm, 0)
    assert str(path) in str(caught.value)
    assert not list(settings.model_dir(arm, 0).glob("*.json"))


def test_too_few_traces_are_refused_with_their_file(tmp_path):
    settings = prepare(tmp_path)
    rows = [{"id": f"clinic-sft-{i:05d}", "style": "crpo", "text": "said"} for i in range(31)]
    path = write_jsonl(tmp_path / "traces.jsonl", rows)
    with pytest.raises(ValueError, match=f"has 31: so many stand in .* with a trace in {path}"):
        train.train_arm(replace(settings, teacher_traces=str(path)), COLD_START, 0)
    with pytest.raises(ValueError, match="cold_start would make no step: sft_epochs is 0"):
        train.train_arm(replace(settings, sft_epochs=0.0), COLD_START, 0)


@pytest.mark.parametrize("limit", [1, 7, 14])
def test_prompts_that_do_not_fit_are_refused(tmp_path, limit):
    settings = prepare(tmp_path, max_prompt_tokens=limit)
    with pytest.raises(
        ValueError, match=rf"crpo: \d+ of 16 prompts are longer than max_prompt_tokens = {limit} "
    ) as caught:
        train.train_arm(settings, "crpo", 0)
    assert str(settings.questions_path("clinic", "rl")) in str(caught.value)


@pytest.mark.parametrize("return_dict", [True, False], ids=["transformers", "unsloth"])
def test_prompts_are_counted_whatever_a_template_returns_by_itself(tmp_path, return_dict):
    """Unsloth sets return_dict of every tokenizer back to False (unsloth_zoo, temporary_patches/misc.py)."""

    def applied(messages, tokenize, add_generation_prompt, return_dict=return_dict):
        return {"input_ids": [1] * 7, "attention_mask": [1] * 7} if return_dict else [1] * 7

    tokenizer = types.SimpleNamespace(apply_chat_template=applied)
    settings = prepare(tmp_path, max_prompt_tokens=7)
    check_lengths("crpo", settings, tokenizer, [[]])
    with pytest.raises(ValueError, match="1 of 1 prompts are longer than max_prompt_tokens = 6"):
        check_lengths("crpo", replace(settings, max_prompt_tokens=6), tokenizer, [[]])


def test_an_arm_whose_start_is_not_trained_is_refused(tmp_path):
    with pytest.raises(ValueError, match="cold_start with seed 0 is not trained"):
        train.train_arm(prepare(tmp_path), "cold_start_crpo", 0)


def test_one_process_trains_an_arm(tmp_path):
    settings = prepare(tmp_path)
    with train._sole_writer(settings, "crpo", 0):
        with pytest.raises(
            PipelineError, match=f"crpo with seed 0 in .* is being written .*process {os.getpid()}"
        ):
            train.train_arm(settings, "crpo", 0)
        with child(settings, "crpo") as process:
            assert process.wait(timeout=60) == 1
        with pytest.raises(PipelineError, match="grpo with seed 0"), train._sole_writer(settings, "grpo", 0):
            train.train_arm(settings, "grpo", 0)


# ---- stopped, and gone on with


def test_a_supervised_run_stops_where_it_diverges(tmp_path):
    settings = prepare(tmp_path, sft_learning_rate=1e39)
    with pytest.raises(PipelineError, match="cold_start, seed 0, step 2: .*not finite"):
        train.train_arm(settings, COLD_START, 0)
    folder = settings.model_dir(COLD_START, 0)
    assert sorted(path.name for path in folder.iterdir()) == ["begun.json", "checkpoints"]


def policies(settings, *arms):
    return {
        path.relative_to(settings.run_dir): path.read_bytes()
        for arm in arms
        for path in (settings.model_dir(arm, 0) / "policy").iterdir()
    }


def unfinished(settings, folder, *arms):
    """A copy of a run in which a kill took the last files of these arms."""
    copy = replace(settings, out=str(folder))
    shutil.copytree(settings.run_dir, copy.run_dir)
    for arm in arms:
        shutil.rmtree(copy.model_dir(arm, 0) / "policy")
        for name in ("done.json", "log_history.jsonl"):
            (copy.model_dir(arm, 0) / name).unlink()
    return copy


def test_an_arm_killed_at_its_end_is_finished_without_a_step_more(trained, tmp_path):
    arms = ("crpo", COLD_START)
    settings = unfinished(trained, tmp_path, *arms)
    for arm in reversed(arms):
        train.train_arm(settings, arm, 0)
        folder, before = settings.model_dir(arm, 0), trained.model_dir(arm, 0)
        assert (folder / "done.json").read_bytes() == (before / "done.json").read_bytes()
        assert (folder / "log_history.jsonl").read_bytes() == (before / "log_history.jsonl").read_bytes()
    assert policies(settings, *arms) == policies(trained, *arms)
    assert artifacts.is_trained(settings, "cold_start_grpo", 0)  # its start is what it was


def test_the_log_of_an_arm_that_went_on_is_that_of_one_that_was_never_stopped(trained, tmp_path):
    """The tokens seen are counted by the trainer's process, and must not begin again with it."""
    settings = unfinished(trained, tmp_path, COLD_START)
    folder, before = settings.model_dir(COLD_START, 0), trained.model_dir(COLD_START, 0)
    checkpoints = sorted((folder / "checkpoints").glob("checkpoint-*"), key=lambda path: int(path.name[11:]))
    shutil.rmtree(checkpoints[-1])
    train.train_arm(settings, COLD_START, 0)
    rows, expected = read_jsonl(folder / "log_history.jsonl"), read_jsonl(before / "log_history.jsonl")
    assert len(checkpoints) > 1 and rows[-1]["num_tokens"] > rows[0]["num_tokens"]
    assert [row["num_tokens"] for row in rows] == [row["num_tokens"] for row in expected]


def test_an_arm_goes_on_from_the_checkpoint_before_a_damaged_one(trained, tmp_path, capfd):
    settings = unfinished(trained, tmp_path, "crpo")
    damaged = settings.model_dir("crpo", 0) / "checkpoints" / "checkpoint-2" / "adapter_model.safetensors"
    damaged.write_bytes(damaged.read_bytes()[:-1000])
    train.train_arm(settings, "crpo", 0)
    assert "checkpoint-2 is passed over: adapter_model.safetensors was changed" in capfd.readouterr().err
    assert policies(settings, "crpo") == policies(trained, "crpo")


def test_an_arm_begun_with_other_rules_is_not_gone_on_with(trained, tmp_path):
    settings = unfinished(trained, tmp_path, "crpo")
    with pytest.raises(artifacts.StaleError, match="rl_beta was 0.001, now 0.0"):
        train.train_arm(replace(settings, rl_beta=0.0), "crpo", 0)
    path = settings.questions_path("clinic", "rl")
    write_questions(path, load_set("clinic", "rl", 20))
    with pytest.raises(artifacts.StaleError, match="questions was"):
        train.train_arm(settings, "crpo", 0)


# ---- an arm that starts from an arm with an adapter


def test_an_arm_starts_from_the_merged_copy_of_an_adapter(trained, tmp_path, monkeypatch):
    import torch

    monkeypatch.setitem(ARMS, "after", replace(ARMS["grpo"], name="after", start="crpo"))
    settings = replace(trained, out=str(tmp_path))
    shutil.copytree(trained.run_dir, settings.run_dir)
    train.train_arm(settings, "after", 0)
    base, adapter = artifacts.policy_of(settings, "after", 0)
    start = settings.model_dir("after", 0) / "start"
    assert base == str(start) and adapter.name == "policy"

    tokenizer = models.load_tokenizer(base)
    ids = tokenizer(["fever . cough . which is it ?"], return_tensors="pt")
    with torch.no_grad():
        merged = models.load_policy(base, settings)(**ids).logits
        first = models.load_policy(models.CLINIC_BASE, settings, artifacts.policy_of(settings, "crpo", 0)[1])(
            **ids
        ).logits
        after = models.load_policy(base, settings, adapter)(**ids).logits
    assert torch.allclose(merged, first, atol=1e-4) and not torch.allclose(after, merged, atol=1e-4)

    whole = artifacts.policy_hash(settings, "after", 0)
    weights = start / "model.safetensors"
    kept = weights.read_bytes()
    weights.write_bytes(kept[:-1] + bytes([kept[-1] ^ 1]))
    with pytest.raises(ValueError, match="start/model.safetensors was changed"):
        artifacts.policy_hash(settings, "after", 0)
    (settings.model_dir("after", 0) / "done.json").unlink()
    with pytest.raises(ValueError, match="start/model.safetensors was changed since begun.json"):
        train.train_arm(settings, "after", 0)
    weights.write_bytes(kept)
    train.train_arm(settings, "after", 0)
    assert artifacts.policy_hash(settings, "after", 0) == whole


def test_what_was_trained_on_a_damaged_start_is_refused_before_it_is_merged(trained, tmp_path, monkeypatch):
    monkeypatch.setitem(ARMS, "after", replace(ARMS["grpo"], name="after", start="crpo"))
    settings = replace(trained, out=str(tmp_path))
    shutil.copytree(trained.run_dir, settings.run_dir)
    path = settings.model_dir("crpo", 0) / "policy" / "adapter_config.json"
    path.write_text(path.read_text().replace('"lora_alpha": 32', '"lora_alpha": 3200'))
    with pytest.raises(ValueError, match="crpo/seed0, policy/adapter_config.json was changed"):
        train.train_arm(settings, "after", 0)
    assert not (settings.model_dir("after", 0) / "start").exists()
    with pytest.raises(ValueError, match="policy/adapter_config.json was changed"):
        generate.load_method(settings, "crpo", 0)
