"""The direct control and the table of all probes, on a tiny run.   pytest tests/causality/test_direct.py"""

import shutil
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from clinical_r1.artifacts import StaleError
from clinical_r1.causality import direct, stage, summary, table
from clinical_r1.causality.__main__ import main
from clinical_r1.clinic.cases import load_set
from clinical_r1.curation.splits import ensure_splits
from clinical_r1.files import read_json, read_jsonl
from clinical_r1.models import CLINIC_BASE, load_tokenizer
from clinical_r1.rewards import accuracy_reward
from clinical_r1.settings import SMOKE
from clinical_r1.train import train_arm

torch = pytest.importorskip("torch")
SEED, STEPS = 101, 2


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    settings = replace(
        SMOKE,
        out=str(tmp_path_factory.mktemp("run")),
        seeds=(SEED,),
        methods=("baseline", "exact_tally"),
        workers=1,
    )
    ensure_splits(settings)
    train_arm(settings, "exact_tally", SEED)
    return settings


@pytest.fixture(scope="module")
def probed(run):
    return table.probe_all(run, n=6, steps=STEPS)


@pytest.mark.parametrize("style", ["crpo", "grpo"])
def test_a_row_holds_the_answer_alone_behind_empty_reasoning(style):
    question = load_set("clinic", "validation", 1)[0]
    forced, answer = direct.answer_row(question, style)
    assert accuracy_reward([forced + answer], [question.answer], style, [question.options]) == [1.0]
    name = question.options[question.answer]
    assert answer.replace(f"{name} \\boxed{{{question.answer}}}.", "?") in (
        " ? </conclusion>",
        " ? </answer>",
    )
    assert name not in forced and "supports" not in forced


def test_the_loss_covers_the_answer_alone(run, probed):
    trainer = direct._trainer(run, "baseline", SEED, STEPS)
    questions = [
        q
        for split in direct.SPLITS
        for q in direct.read_questions(run.questions_path(run.train_benchmark, split))
    ]
    assert len(trainer.train_dataset) == len(questions) == run.n_sft + run.n_rl
    batch = trainer.data_collator([trainer.train_dataset[i] for i in range(8)])
    tokenizer = load_tokenizer(CLINIC_BASE)
    for labels, question in zip(batch["labels"], questions, strict=False):
        learned = tokenizer.decode(labels[labels >= 0]).split()
        assert learned == direct.answer_row(question, "crpo")[1].split() + ["<|end|>"]


def test_a_copy_is_trained_once_and_moves(run, probed, monkeypatch):
    record = read_json(direct.direct_dir(run, "exact_tally", SEED) / "done.json")
    assert record["checked"]["steps"] == STEPS and record["checked"]["moved"] > 0
    assert direct.is_direct(run, "exact_tally", SEED, STEPS)
    monkeypatch.setattr(direct, "_trainer", None)  # nothing is trained again
    direct.train_direct(run, "exact_tally", SEED, STEPS)
    with pytest.raises(StaleError, match="direct_steps was 2, now 3"):
        direct.is_direct(run, "exact_tally", SEED, STEPS + 1)
    with pytest.raises(StaleError, match="sft_learning_rate"):
        direct.is_direct(replace(run, sft_learning_rate=0.5), "exact_tally", SEED, STEPS)


def test_a_killed_copy_goes_on_to_the_same_weights(run, probed, tmp_path, monkeypatch):
    from transformers import TrainerCallback

    class Kill(TrainerCallback):
        def on_step_begin(self, args, state, control, **kwargs):
            if state.global_step == 1:
                raise KeyboardInterrupt

    def killed(trainer):
        trainer.add_callback(Kill())
        return trained(trainer)

    other, trained = replace(run, out=str(tmp_path)), direct.run
    shutil.copytree(run.run_dir / "questions", other.run_dir / "questions")
    with monkeypatch.context() as patched:
        patched.setattr(direct, "run", killed)
        with pytest.raises(KeyboardInterrupt):
            direct.train_direct(other, "baseline", SEED, STEPS)
    assert not direct.is_direct(other, "baseline", SEED, STEPS)
    checkpoints = direct.direct_dir(other, "baseline", SEED) / "checkpoints"
    assert [path.name for path in checkpoints.glob("checkpoint-*")] == ["checkpoint-1"]
    folders = [direct.train_direct(settings, "baseline", SEED, STEPS) for settings in (run, other)]
    first, second = (read_json(folder / "done.json")["files"] for folder in folders)
    assert first == second and not checkpoints.exists()


def test_a_changed_copy_is_refused(run, probed):
    weights = direct.direct_dir(run, "exact_tally", SEED) / "policy" / "adapter_model.safetensors"
    kept = weights.read_bytes()
    weights.write_bytes(kept[:-1] + b"x")
    with pytest.raises(ValueError, match="adapter_model.safetensors was changed since it was trained"):
        direct.is_direct(run, "exact_tally", SEED, STEPS)
    weights.write_bytes(kept)
    assert direct.is_direct(run, "exact_tally", SEED, STEPS)


def test_the_table_has_a_row_for_each_arm_and_probe_and_is_stamped(run, probed):
    probes = ["accuracy", "swap", "empty", "named", "denied", "agreement", "direct"]
    assert list(probed["method"]) == ["baseline"] * 7 + ["exact_tally"] * 7
    assert list(probed["probe"]) == probes * 2
    assert (probed["n"] == 6).all() and probed["share"].between(0, 1).all()
    counts = probed[["hits", "stay", "gold", "other", "unread"]].fillna(0).sum(axis=1)
    assert (counts == 6).all()
    for folder in (run.run_dir / "tables", run.figures_dir):
        kept = pd.read_csv(folder / "causality.csv")
        assert list(kept.columns) == list(table.COLUMNS) and len(kept) == 14
        stamp = read_json(folder / "causality.json")
        names = {f"{method}.seed101" for method in run.methods}
        assert set(stamp["rows"]) == names | {f"{name}.direct" for name in names}
        assert stamp["sha256"] == table.read_stamp(folder / "causality.csv", "probe")["sha256"]
    each = table.read_outcomes(run, "clinic", "validation", 6, STEPS)
    hits = each[each["outcome"] == "hits"].groupby(["method", "seed", "probe"]).size()
    for row in probed.itertuples():
        assert hits.get((row.method, row.seed, row.probe), 0) == row.hits
    assert summary.as_markdown(probed).count("\n") == 3
    assert summary.as_text(probed).split("\n")[0].split()[1:] == probes


def test_what_is_probed_is_kept_and_what_has_changed_is_refused(run, probed, monkeypatch):
    monkeypatch.setattr(table, "answer_jobs", None)  # no model is asked
    pd.testing.assert_frame_equal(table.probe_all(run, n=6, steps=STEPS), probed)
    assert len(table.probe_all(run, n=6, steps=0)) == 12  # without the direct control
    with pytest.raises(StaleError, match="direct_steps was 2, now 3"):
        table.probe_all(run, n=6, steps=STEPS + 1)
    path = table.rows_path(run, "exact_tally", SEED, "clinic", "validation", 6)
    kept = path.read_bytes()
    path.write_bytes(kept.replace(b'"n": 6', b'"n": 9', 1))
    with pytest.raises(ValueError, match="was changed after it was made"):
        table.probe_all(run, n=6, steps=STEPS)
    path.write_bytes(kept)


def test_arms_that_are_not_trained_and_too_many_questions_are_refused(run):
    with pytest.raises(ValueError, match="grpo with seed 101 is not trained"):
        table.probe_all(replace(run, methods=("grpo",)), n=6, steps=0)
    with pytest.raises(ValueError, match="16 test questions and 17 were asked for"):
        table.questions_of(run, "clinic", "test", 17)


def test_the_exact_tally_is_logged_as_a_reward_of_its_arm(run):
    log = read_jsonl(run.model_dir("exact_tally", SEED) / "log_history.jsonl")
    assert (
        all(0 <= row["rewards/tally_accuracy_reward/mean"] <= 1 for row in log) and len(log) == run.rl_steps
    )


def test_a_run_is_probed_as_its_settings_say_and_reads_runs_on_other_bases(run, probed, monkeypatch):
    own = replace(run, methods=("baseline",), probe_also=("exact_tally",), probe_questions=7)
    found = stage.probe_run(own)
    assert list(dict.fromkeys(found.rows["method"])) == ["baseline", "exact_tally"]
    assert set(found.rows["split"]) == {"test"} and (found.rows["n"] == 7).all()
    assert "direct" not in set(found.rows["probe"]) and set(found.tests["base"]) == {"shipped"}
    for folder in (run.run_dir / "tables", run.figures_dir):
        assert len(pd.read_csv(folder / stage.SHARES)) == len(found.shares) == 12
        assert len(pd.read_csv(folder / stage.DIFFERENCES)) == len(found.tests)
    monkeypatch.setattr(table, "answer_jobs", None)  # no model is asked again
    other = run.run_dir.with_name("smoke-base.second") / "tables" / stage.DIFFERENCES
    other.parent.mkdir(parents=True)
    found.tests.assign(base="second").to_csv(other, index=False)
    both = stage.probe_run(own).tests
    assert list(dict.fromkeys(both["base"])) == ["shipped", "second"] and len(both) == 2 * len(found.tests)
    assert stage.other_bases(replace(own, base_model="some/second")) == []
    assert stage.base_name(replace(own, base_model="some/second")) == "second"
    assert stage.probe_run(replace(own, probe_questions=0)) is None
    assert stage.probe_run(replace(own, train_benchmark="medqa")) is None


def test_the_direct_control_may_have_fewer_seeds(run, probed):
    rows = table.probe_all(run, "clinic", "validation", 6, STEPS, ())
    assert "direct" not in set(rows["probe"])
    assert set(table.probe_all(run, "clinic", "validation", 6, STEPS, (SEED,))["probe"]) > {"direct"}


def test_the_command(run, probed, capsys):
    common = ["--profile", "smoke", "--out", run.out, "--seeds", "101", "--methods", "baseline"]
    assert main([*common, "--questions", "5", "--direct-steps", "0"]) == 0
    printed = capsys.readouterr().out
    assert "agreement" in printed and "causality.csv" in printed
    elsewhere = ["--out", str(Path(run.out) / "nothing"), "--methods", "baseline"]
    for asked, said in (
        (["--questions", "0"], "--questions must be at least 1"),
        (["--seeds", "101", "101"], "--seeds got [101, 101]; expected each once"),
        (["--methods", "crpo", "crpo"], "--methods got ['crpo', 'crpo']; expected each once"),
        ([*elsewhere, "--direct-steps", "3"], "the direct control needs "),
        ([*elsewhere, "--split", "test", "--direct-steps", "0"], "--split test needs "),
    ):
        with pytest.raises(SystemExit):
            main([*common, *asked])
        assert said in capsys.readouterr().err
    assert main([*common, *elsewhere, "--methods", "crpo", "--direct-steps", "0"]) == 1
    assert "ValueError: " in capsys.readouterr().err
