"""Aggregations inside TRL's trainer, on a tiny random model: real steps, checkpoints.

Run: pytest tests/test_trainer.py
"""

import json
import math
import shutil
from types import SimpleNamespace

import pytest
from tiny import QUIET

from clinical_r1.advantages import AGGREGATIONS, TRL_ARGUMENTS, group_advantages
from clinical_r1.files import PACKAGE, PipelineError
from clinical_r1.trainer import (
    MULTIPLIERS_FILE,
    MultiObjectiveMixin,
    WatchMixin,
    build_trainer_class,
    remarks,
    run,
    whole_checkpoints,
)

torch = pytest.importorskip("torch")
trl = pytest.importorskip("trl")

BASE = PACKAGE / "data" / "clinic_base"
OPTIONS = {
    "constrained": {"targets": {"spare": 0.9, "even": 0.1}},
    "gated": {"gate": "even", "threshold": 1},
    "binary": {"gate": "even", "penalty": 0.5, "center": False},
}


def rare(completion_ids, **columns):
    """Mean token number, in thousands."""
    return [sum(ids) / len(ids) / 1000 for ids in completion_ids]


def spare(completion_ids, **columns):
    """A number in [0, 1] that about a quarter of the completions lack."""
    return [None if sum(ids) % 4 == 0 else sum(ids) % 11 / 10 for ids in completion_ids]


def even(completion_ids, **columns):
    """1 if the first token's number is even."""
    return [1.0 - ids[0] % 2 for ids in completion_ids]


REWARDS = (rare, spare, even)


def tiny_trainer(folder, aggregation=None, options=None, rewards=REWARDS, trainer_class=None, **changes):
    from datasets import Dataset
    from transformers import AutoTokenizer, Qwen2Config, Qwen2ForCausalLM, set_seed

    tokenizer = AutoTokenizer.from_pretrained(BASE)
    set_seed(0)
    size = dict(hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2)
    model = Qwen2ForCausalLM(Qwen2Config(vocab_size=len(tokenizer), num_key_value_heads=1, **size))
    arguments = QUIET | dict(
        output_dir=str(folder),
        max_steps=2,
        per_device_train_batch_size=8,
        num_generations=4,
        max_completion_length=8,
        learning_rate=1e-2,
        reward_weights=[10.0, 1.0, 0.5][: len(rewards)],
        save_strategy="steps",
        save_steps=1,
    )
    arguments |= TRL_ARGUMENTS.get(aggregation, {}) | changes
    words = sorted(tokenizer.get_vocab())[100:116]
    extra = {} if aggregation is None else {"aggregation": aggregation, "aggregation_options": options}
    return (trainer_class or build_trainer_class())(
        model=model,
        reward_funcs=list(rewards),
        args=trl.GRPOConfig(**arguments),
        train_dataset=Dataset.from_list([{"prompt": f"{a} {b}"} for a in words[:4] for b in words[4:]]),
        processing_class=tokenizer,
        **extra,
    )


def recording(base):
    """A trainer class that keeps, per generation batch, the rewards, TRL's advantages and the ones handed on."""

    class Recording(base):
        def _calculate_rewards(self, *args, **kwargs):
            self.rewards = super()._calculate_rewards(*args, **kwargs)
            return self.rewards

        def _replace_advantages(self, output, advantages):
            self.trl_advantages = output["advantages"].clone()
            super()._replace_advantages(output, advantages)

        def _generate_and_score_completions(self, inputs):
            output = super()._generate_and_score_completions(inputs)
            record = {
                "rewards": self.rewards,
                "trl": getattr(self, "trl_advantages", None),
                "used": output["advantages"].clone(),
                "logged": list(self._logs["advantages"]),
            }
            self.records = [*getattr(self, "records", []), record]
            return output

    return Recording


def recorded(folder, aggregation, options=None, **changes):
    trainer = tiny_trainer(
        folder, aggregation, options, trainer_class=recording(build_trainer_class()), **changes
    )
    trainer.train()
    return trainer


@pytest.mark.parametrize("aggregation", AGGREGATIONS)
def test_a_real_step_uses_and_logs_this_aggregation(tmp_path, aggregation):
    trainer = recorded(tmp_path, aggregation, OPTIONS.get(aggregation), save_strategy="no")
    options = {"constrained": {"multipliers": [0, 0]}, "gated": {"gate": 2, "threshold": 1}}
    options["binary"] = OPTIONS["binary"] | {"gate": 2}
    first = trainer.records[0]
    assert first["rewards"].isnan().any() and first["used"].abs().max() > 0.01
    expected = group_advantages(
        first["rewards"], (10, 1, 0.5), 4, aggregation, **options.get(aggregation, {})
    )
    assert first["used"].tolist() == pytest.approx(expected.tolist(), abs=1e-4 if first["trl"] is None else 0)
    assert first["logged"] == first["used"].tolist()
    log = trainer.state.log_history[0]
    shares = [log[f"advantage/{function.__name__}/share"] for function in REWARDS]
    assert sum(shares) == pytest.approx(1)
    assert 0 <= log["advantage/tied_groups"] <= 1 and 0 <= log["advantage/silent_groups"] <= 1


@pytest.mark.parametrize(
    ("aggregation", "options"),
    [("std_floor", {"floor": 0}), ("gated", {"threshold": 0}), ("normalize_each", {}), ("constrained", {})],
)
def test_one_objective_equals_trls_own_grpo(tmp_path, aggregation, options):
    options = options | ({"targets": []} if aggregation == "constrained" else {})
    trainer = recorded(
        tmp_path, aggregation, options, rewards=(rare,), reward_weights=[1.0], save_strategy="no"
    )
    for record in trainer.records:
        assert record["trl"].abs().max() > 0.1
        assert record["used"].tolist() == pytest.approx(record["trl"].tolist(), abs=1e-6)


def test_summing_by_the_hook_equals_trl_summing(tmp_path):
    """A floor of 0 is sum_then_normalize, here made by the hook; several objectives, None among them."""
    ours = recorded(tmp_path / "a", "std_floor", {"floor": 0}, save_strategy="no", max_steps=4)
    stock = recorded(tmp_path / "b", "sum_then_normalize", save_strategy="no", max_steps=4)
    assert [len(trainer.records) for trainer in (ours, stock)] == [4, 4]
    for one, other in zip(ours.records, stock.records, strict=True):  # so every step generated the same
        assert torch.equal(one["rewards"].nan_to_num(-9), other["rewards"].nan_to_num(-9))
        assert one["used"].tolist() == pytest.approx(one["trl"].tolist(), abs=1e-5)
        assert one["used"].tolist() == pytest.approx(other["used"].tolist(), abs=1e-5)


def test_without_keywords_it_is_the_stock_trainer(tmp_path):
    """Same seed, same steps: the weights of a stock GRPOTrainer, bit by bit."""
    weights = []
    for name, trainer_class in (("stock", trl.GRPOTrainer), ("ours", None)):
        trainer = tiny_trainer(tmp_path / name, trainer_class=trainer_class, save_strategy="no")
        trainer.train()
        weights.append(trainer.model.state_dict())
    assert all(torch.equal(weights[0][key], weights[1][key]) for key in weights[0])


@pytest.mark.parametrize("aggregation", ["gated", "lexicographic", "constrained", "std_floor"])
def test_none_rewards_leave_their_completion_out(tmp_path, aggregation):
    def nothing(completion_ids, **columns):
        return [None, 1.0, None, 0.0] * (len(completion_ids) // 4)

    options = {"constrained": {"targets": []}}.get(aggregation, {})
    trainer = recorded(
        tmp_path, aggregation, options, rewards=(nothing,), reward_weights=[1.0], save_strategy="no"
    )
    used = trainer.records[0]["used"].view(2, 4)
    assert used[:, [0, 2]].eq(0).all() and used.isfinite().all()
    assert used[0, 1] == -used[0, 3] and used[0, 1] > 0.5


def test_micro_batches_and_a_second_pass_keep_the_rows_together(tmp_path):
    """TRL shuffles and splits a generation batch after the hook; each row must take its advantage along."""
    seen = []

    class Watching(recording(build_trainer_class())):
        def _compute_loss(self, model, inputs):
            seen.append((inputs["completion_ids"], inputs["advantages"]))
            return super()._compute_loss(model, inputs)

        def _generate_and_score_completions(self, inputs):
            output = super()._generate_and_score_completions(inputs)
            self.table = {
                tuple(ids.tolist()): a
                for ids, a in zip(output["completion_ids"], output["advantages"], strict=True)
            }
            return output

    changes = dict(gradient_accumulation_steps=2, num_iterations=2, save_strategy="no")
    trainer = tiny_trainer(tmp_path, "lexicographic", trainer_class=Watching, **changes)
    trainer.train()
    assert len(trainer.records) == 1 and len(seen) == 4
    for ids, advantages in seen:
        assert [trainer.table[tuple(row)] for row in ids.tolist()] == advantages.tolist()


def test_evaluation_takes_the_same_aggregation(tmp_path):
    trainer = tiny_trainer(
        tmp_path, "lexicographic", save_strategy="no", per_device_eval_batch_size=8, num_generations_eval=2
    )
    trainer.eval_dataset = trainer.train_dataset.select(range(8))
    metrics = trainer.evaluate()
    logged = {**metrics, **trainer.state.log_history[-1]}
    assert 0 <= logged["eval_advantage/tied_groups"] <= 1
    assert not trainer._metrics["train"]


def test_multipliers_climb_and_are_resumed_from_the_checkpoint(tmp_path):
    options = {"targets": {"spare": 2.0, "even": -1.0}, "rate": 0.5}
    whole = recorded(tmp_path / "whole", "constrained", options, max_steps=4)
    logged = [row["advantage/spare/multiplier"] for row in whole.state.log_history if "reward" in row]
    assert logged[0] == 0 and logged == sorted(logged) and logged[-1] > 1
    assert whole.multipliers[0] > logged[-1] and whole.multipliers[1] == 0  # of even: its target is met

    stopped = recorded(tmp_path / "stopped", "constrained", options, max_steps=2)
    kept = json.loads((tmp_path / "stopped" / "checkpoint-2" / MULTIPLIERS_FILE).read_text())
    assert list(kept) == ["spare", "even"] and list(kept.values()) == stopped.multipliers
    resumed = tiny_trainer(tmp_path / "stopped", "constrained", options, max_steps=4)
    assert resumed.multipliers == [0, 0]
    resumed.train(resume_from_checkpoint=str(tmp_path / "stopped" / "checkpoint-2"))
    again = [row["advantage/spare/multiplier"] for row in resumed.state.log_history if "reward" in row]
    assert again == pytest.approx(logged) and resumed.multipliers == pytest.approx(whole.multipliers)


def test_a_checkpoint_without_multipliers_is_refused(tmp_path):
    recorded(tmp_path, "lexicographic", max_steps=1)
    trainer = tiny_trainer(tmp_path, "constrained", OPTIONS["constrained"])
    with pytest.raises(FileNotFoundError, match="checkpoint-1 holds no multipliers.json"):
        trainer.train(resume_from_checkpoint=str(tmp_path / "checkpoint-1"))
    (tmp_path / "checkpoint-1" / MULTIPLIERS_FILE).write_text('{"length": 1.0}')
    trainer = tiny_trainer(tmp_path, "constrained", OPTIONS["constrained"])
    with pytest.raises(ValueError, match="holds multipliers of length; expected spare, even"):
        trainer.train(resume_from_checkpoint=str(tmp_path / "checkpoint-1"))


@pytest.mark.parametrize(
    ("aggregation", "options", "changes", "message"),
    [
        ("mean", None, {}, "'mean' is not known"),
        ("gated", {"gate": "accuracy"}, {}, "gate is 'accuracy'.*rare, spare, even"),
        ("std_floor", {"flor": 1}, {}, "got the option flor; expected floor"),
        ("constrained", None, {}, "constrained got no targets; expected one for each of spare, even"),
        ("constrained", {"targets": {"spare": 1}}, {}, "targets name spare; expected one for each"),
        ("constrained", {"targets": [1]}, {}, "2 multipliers and 1 targets for 3 objectives"),
        ("constrained", {"targets": [1, 1], "rate": -1}, {}, "rate is -1"),
        ("lexicographic", None, {"reward_weights": [1, -1, 1]}, "-1 for spare"),
        ("sum_then_center", None, {"scale_rewards": "group"}, "expected scale_rewards='none'"),
    ],
)
def test_what_does_not_fit_is_refused_before_the_first_step(tmp_path, aggregation, options, changes, message):
    with pytest.raises(ValueError, match=message):
        tiny_trainer(tmp_path, aggregation, options, **changes)


def test_the_hook_is_still_where_trl_has_it():
    for method in ("_calculate_rewards", "_generate_and_score_completions"):
        assert hasattr(trl.GRPOTrainer, method), f"TRL {trl.__version__} has no {method}"
    assert issubclass(build_trainer_class(), MultiObjectiveMixin)


# ---- a run that is watched


def watched(folder, rewards=REWARDS, aggregation=None, **changes):
    """A trainer for `run`, without checkpoints."""
    options = {"save_strategy": "no", "logging_nan_inf_filter": False, "run_name": "arm, seed 3"} | changes
    return tiny_trainer(folder, aggregation, {}, rewards=rewards, **options)


def huge(completion_ids, **columns):
    return [1e38 * (1 + ids[0] % 2) for ids in completion_ids]


def enormous(completion_ids, **columns):
    return [1e38] * len(completion_ids)


def tied(completion_ids, **columns):
    return [1.0] * len(completion_ids)


def silent(completion_ids, **columns):
    return [None] * len(completion_ids)


def seldom(completion_ids, trainer_state, **columns):
    """Without any value in the second step."""
    return [None if trainer_state.global_step == 1 else 1.0] * len(completion_ids)


def test_a_run_says_what_it_has_checked(tmp_path):
    checked = run(watched(tmp_path, (rare, seldom), max_steps=3))
    assert checked["steps"] == 3 and math.isfinite(checked["loss"])
    assert 0 < checked["moved"] <= checked["tensors"] == 15


@pytest.mark.parametrize(
    ("rewards", "changes", "message"),
    [
        (REWARDS, {"learning_rate": 1e39}, "arm, seed 3, step 1: weight .* not finite"),
        ((huge, rare), {}, "step 1: rewards of this size cannot be compared .*huge 2e.38, rare 0"),
        ((enormous, rare), {}, "step 1: rewards of this size cannot be compared .*enormous 1e.38"),
        ((tied,), {"beta": 0.0}, "no weight of arm, seed 3 moved in 2 steps"),
        (REWARDS, {"learning_rate": 0.0}, "no weight of arm, seed 3 moved in 2 steps"),
        ((rare, silent), {}, "silent gave arm, seed 3 no value in any of 2 steps"),
        ((silent, even, silent_too := lambda completion_ids, **columns: [None] * len(completion_ids)), {}, "silent"),
        (REWARDS, {"per_device_train_batch_size": 256}, "ended after 0 steps, planned were 2"),
    ],
)  # fmt: skip
def test_a_run_that_learns_nothing_is_refused(tmp_path, rewards, changes, message):
    with pytest.raises(PipelineError, match=message):
        run(watched(tmp_path, rewards, **changes))


@pytest.mark.parametrize(("spoilt", "named"), [("loss", "loss"), ("gradient", "grad_norm")])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_run_stops_at_its_first_loss_or_gradient_that_is_not_finite(tmp_path, spoilt, named, value):
    trainer = watched(tmp_path, max_steps=3, save_strategy="steps", save_steps=1)
    real = trainer.compute_loss

    def compute_loss(model, *args, **kwargs):
        loss = real(model, *args, **kwargs)
        if trainer.state.global_step == 1:
            if spoilt == "loss":
                return loss + value
            loss.register_hook(lambda gradient: gradient * value)
        return loss

    trainer.compute_loss = compute_loss
    with pytest.raises(PipelineError, match=f"arm, seed 3, step 2: .*{named}.* not finite"):
        run(trainer)
    assert [path.name for path in whole_checkpoints(tmp_path)] == ["checkpoint-1"]
    assert not (tmp_path / "checkpoint-2").exists()


def test_what_a_step_lacks_is_said_once_and_counted(tmp_path, capfd):
    trainer = watched(tmp_path, (rare, seldom), max_steps=3, max_completion_length=2)
    checked = run(trainer)
    logged = [row["rewards/seldom/missing"] for row in trainer.state.log_history if "loss" in row]
    assert logged == [0, 1, 0]
    assert checked["lacking"] == {"completions/clipped_ratio": 3, "rewards/seldom/missing": 1}
    said = capfd.readouterr().err
    assert (
        said.count("arm, seed 3, step 1: every completion was cut")
        == said.count("every completion was cut")
        == 1
    )
    assert "step 2: seldom gave no completion a value (said once)" in said
    assert remarks(checked) == [
        "every completion was cut at max_completion_tokens, none came to an end in 3 of 3 steps",
        "seldom gave no completion a value in 1 of 3 steps",
    ]


def test_a_step_that_the_scaler_leaves_out_is_no_error_and_counted(tmp_path):
    watch = WatchMixin()
    state, arguments = SimpleNamespace(global_step=1), SimpleNamespace(run_name="arm, seed 3")
    logs = {"loss": 0.5, "grad_norm": math.inf}
    model = torch.nn.Linear(2, 2)
    watch.on_log(arguments, state, None, logs, model, SimpleNamespace(step_was_skipped=True))
    with pytest.raises(PipelineError, match="grad_norm not finite"):
        watch.on_log(arguments, state, None, logs, model, SimpleNamespace(step_was_skipped=False))
    with pytest.raises(PipelineError, match="loss not finite"):
        watch.on_log(
            arguments, state, None, {"loss": math.nan}, model, SimpleNamespace(step_was_skipped=True)
        )
    assert remarks({"lacking": {}, "steps": 5, "skipped_steps": 2}) == [
        "float16 overflowed in 2 steps, which moved no weight"
    ]


# ---- checkpoints


@pytest.fixture(scope="module")
def three_checkpoints(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    options = {"targets": {"spare": 0.9, "even": 0.1}}
    settings = {"run_name": "arm, seed 3", "max_steps": 3}
    run(tiny_trainer(folder, "constrained", options, **settings))
    return folder


def emptied(path):
    path.write_text("{}")


def of_wrong_types(path):
    path.write_text('{"global_step": "3", "log_history": 1}')


def cut(path):
    path.write_bytes(path.read_bytes()[:-100])


def turned(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def removed(path):
    path.unlink()


@pytest.mark.parametrize(
    ("name", "spoil", "said"),
    [
        *((name, removed, f"{name} is missing") for name in (
            "optimizer.pt", "scheduler.pt", "rng_state.pth", "model.safetensors", "trainer_state.json", MULTIPLIERS_FILE
        )),
        ("model.safetensors", cut, "model.safetensors was changed"),
        ("model.safetensors", turned, "model.safetensors was changed"),
        ("optimizer.pt", turned, "optimizer.pt was changed"),
        ("trainer_state.json", emptied, "trainer_state.json was changed"),
        ("trainer_state.json", of_wrong_types, "trainer_state.json was changed"),
        ("whole.json", removed, "it was not written to its end"),
        ("whole.json", cut, "whole.json is not JSON"),
        ("whole.json", emptied, "was added"),
    ],
)  # fmt: skip
def test_a_checkpoint_that_is_not_whole_is_passed_over_and_said(
    three_checkpoints, tmp_path, capfd, name, spoil, said
):
    folder = tmp_path / "checkpoints"
    shutil.copytree(three_checkpoints, folder)
    names = [path.name for path in whole_checkpoints(folder)]
    assert names == ["checkpoint-1", "checkpoint-2", "checkpoint-3"] and not capfd.readouterr().err
    spoil(folder / "checkpoint-3" / name)
    assert [path.name for path in whole_checkpoints(folder)] == names[:2]
    err = capfd.readouterr().err
    assert f"{folder / 'checkpoint-3'} is passed over" in err and said in err


def test_ten_comes_after_nine_and_other_folders_are_no_checkpoints(three_checkpoints, tmp_path):
    for name, source in (
        ("checkpoint-9", 1),
        ("checkpoint-10", 2),
        ("checkpoint-3.old", 3),
        ("checkpoint-x", 3),
    ):
        shutil.copytree(three_checkpoints / f"checkpoint-{source}", tmp_path / name)
    assert [path.name for path in whole_checkpoints(tmp_path)] == ["checkpoint-9", "checkpoint-10"]
    assert whole_checkpoints(tmp_path / "nowhere") == []
