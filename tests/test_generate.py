"""Completions on disk: begun, continued and finished with a record of what they were made from, and refused when that changed.

No model answers here: `Scripted` stands where `engines.local.Transformers` stands.

Run: pytest tests/test_generate.py
"""

import json
import shutil
import subprocess
import sys
import time
import types
from dataclasses import replace

import pytest

from clinical_r1 import generate, models
from clinical_r1.artifacts import StaleError
from clinical_r1.clinic.cases import load_set
from clinical_r1.engines.local import Transformers
from clinical_r1.files import (
    PipelineError,
    locked,
    read_json,
    read_jsonl,
    read_stamp,
    write_json,
    write_jsonl,
)
from clinical_r1.questions import write_questions
from clinical_r1.settings import SMOKE

JOB = ("baseline", 0, "clinic", "sampled")


class Scripted(Transformers):
    """Says a text that depends on prompt and seed alone. calls: the prompts of each batch."""

    def __init__(self, model, tokenizer):
        super().__init__(model, tokenizer)
        self.calls = []

    def answer(self, prompts, settings, protocol, seeds):
        self.calls.append(prompts)
        return [
            {"text": f"{prompt[-40:]} {seed} \u2028", "finish_reason": "stop", "tokens": seed % 9}
            for prompt, seed in zip(prompts, seeds, strict=True)
        ]


@pytest.fixture(scope="module")
def tokenizer():
    return models.load_tokenizer(models.CLINIC_BASE)


@pytest.fixture
def run(tmp_path, monkeypatch, tokenizer):
    """Six questions in three batches, and a policy of which only the precision and the tokenizer are asked for."""
    import torch

    settings = replace(
        SMOKE, out=str(tmp_path), n_test=6, eval_batch=2, benchmarks=("clinic",), methods=("baseline",)
    )
    write_questions(settings.questions_path("clinic", "test"), load_set("clinic", "test", 6))
    model = types.SimpleNamespace(dtype=torch.float32, config=types.SimpleNamespace())
    return settings, Scripted(model, tokenizer)


def complete(run, **changes):
    return generate.complete(replace(run[0], **changes), run[1], *JOB)


@pytest.fixture
def killed(run, monkeypatch):
    """(run, the file's bytes when nothing goes wrong, the .partial): killed in the third batch."""
    whole = (path := complete(run)).read_bytes()
    path.unlink()
    path.with_suffix(".json").unlink()
    calls = []

    def dies(*arguments):
        calls.append(arguments)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return Scripted.answer(run[1], *arguments)

    with monkeypatch.context() as context:
        context.setattr(run[1], "answer", dies)
        with pytest.raises(KeyboardInterrupt):
            complete(run)
    run[1].calls.clear()
    return run, whole, path.with_suffix(".partial")


def lines_of(partial):
    return partial.read_bytes().splitlines(keepends=True)


# --- half a file


def test_a_killed_run_goes_on_where_it_stopped(killed, monkeypatch, capsys):
    run, whole, partial = killed
    assert len(read_jsonl(partial)) == 4 and len(read_json(f"{partial}.json")["batches"]) == 2
    with open(partial, "ab") as file:
        file.write(b'{"id": "half a r')  # as a kill in the middle of a write leaves it
    path = complete(run)
    assert path.read_bytes() == whole and len(run[1].calls) == 1 and not capsys.readouterr().err
    assert sorted(p.name for p in path.parent.iterdir() if p.name[0] != ".") == [
        "baseline.seed0.json",
        "baseline.seed0.jsonl",
    ]


EDITS = {  # what somebody does to a .partial -> batches of it that still stand
    "a word of the first row": (lambda rows: [rows[0].replace(b"A:", b"B:"), *rows[1:]], 0),
    "a word of the last row": (lambda rows: [*rows[:3], rows[3].replace(b"A:", b"B:")], 1),
    "ids out of order": (lambda rows: [rows[0], rows[1], rows[3], rows[2]], 1),
    "a row lost": (lambda rows: rows[1:], 0),
    "the last row lost": (lambda rows: rows[:3], 1),
    "rows of another file": (lambda rows: [b'{"id": "x"}\n'] * 4, 0),
    "emptied": (lambda rows: [], 0),
}


@pytest.mark.parametrize("edit", EDITS)
def test_an_edited_half_is_answered_again_from_the_first_batch_that_changed(
    killed, monkeypatch, capsys, edit
):
    run, whole, partial = killed
    change, stand = EDITS[edit]
    partial.write_bytes(b"".join(change(lines_of(partial))))
    assert complete(run).read_bytes() == whole and len(run[1].calls) == 3 - stand
    said = capsys.readouterr().err
    assert f"{partial} was changed" in said and f"{stand} of its batches are kept" in said


@pytest.mark.parametrize("rows", [1, 2, 4])
def test_a_half_without_a_record_is_begun_anew(killed, capsys, rows):
    run, whole, partial = killed
    partial.write_bytes(b"".join(lines_of(partial)[:rows]))
    partial.with_suffix(".partial.json").unlink()
    assert complete(run).read_bytes() == whole and "kept no record" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"eval_temperature": 0.5}, "eval_temperature was 0.8, now 0.5"),
        ({"eval_batch": 3}, "eval_batch was 2, now 3"),
        ({"device_dtype": "float64"}, "device_dtype was 'float32', now 'float64'"),
        ({"load_in_4bit": True}, "load_in_4bit was False, now True"),
    ],
    ids=str,
)
def test_a_half_of_other_settings_is_refused(killed, changes, said):
    run, _, partial = killed
    before = partial.read_bytes()
    with pytest.raises(StaleError, match=said) as error:
        complete(run, **changes)
    assert partial.read_bytes() == before and str(partial) in str(error.value)


def other_questions(run, monkeypatch):
    path = run[0].questions_path("clinic", "test")
    rows = read_jsonl(path)
    rows[0]["answer"] = "ABCD".replace(rows[0]["answer"], "")[0]
    write_jsonl(path, rows)


def other_policy(run, monkeypatch):
    monkeypatch.setattr(generate, "policy_hash", lambda *_: "another")


def other_prompts(run, monkeypatch):
    monkeypatch.setattr(generate, "code_hash", lambda *_: "another")


MADE_FROM = {"test_questions": other_questions, "policy": other_policy, "prompts": other_prompts}


@pytest.mark.parametrize("what", MADE_FROM)
def test_half_and_whole_of_something_else_are_refused(killed, monkeypatch, what):
    run, _, partial = killed
    with monkeypatch.context() as changed:
        MADE_FROM[what](run, changed)
        with pytest.raises(StaleError, match=f"{what} was"):
            complete(run)
    assert partial.exists()
    if what == "test_questions":
        write_questions(run[0].questions_path("clinic", "test"), load_set("clinic", "test", 6))
    path = complete(run)
    MADE_FROM[what](run, monkeypatch)
    for ask in (complete, lambda run: generate.is_complete(run[0], *JOB)):
        with pytest.raises(StaleError, match=f"{what} was"):
            ask(run)
    assert path.exists()


def test_half_answered_in_another_precision_is_refused(killed):
    import torch

    run, _, _ = killed
    run[1].model.dtype = torch.bfloat16  # another card took over
    with pytest.raises(StaleError, match="answered_in was 'float32', now 'bfloat16'"):
        complete(run)


@pytest.mark.parametrize("finished", [False, True])
def test_one_writer_at_a_time(run, finished):
    path = run[0].completions_path("clinic", "baseline", 0)
    if finished:
        complete(run)
    with (
        locked(path.with_name(f".{path.stem}.lock"), "x"),
        pytest.raises(PipelineError, match=f"{path.name} is being written"),
    ):
        complete(run)
    assert complete(run) == path and generate.is_complete(run[0], *JOB)


# --- the whole file


def test_the_stamp_says_what_the_answers_came_from(run):
    stamp = read_stamp(complete(run), "generate")
    assert set(generate.GENERATED_WITH) < set(stamp)
    assert stamp["answered_in"] == "float32" and stamp["finish_reasons"] == {"stop": 6}
    assert {"policy", "test_questions", "prompts", "sha256"} <= set(stamp)


FAULTS = {
    "a word": lambda path: path.write_bytes(path.read_bytes().replace(b"A:", b"B:", 1)),
    "a row lost": lambda path: path.write_bytes(b"".join(lines_of(path)[1:])),
    "a row twice": lambda path: path.write_bytes(b"".join(lines_of(path)[:1]) + path.read_bytes()),
    "a blank line": lambda path: path.write_bytes(path.read_bytes() + b"\n"),
    "emptied": lambda path: path.write_bytes(b""),
    "no stamp": lambda path: path.with_suffix(".json").unlink(),
    "an empty stamp": lambda path: path.with_suffix(".json").write_text(""),
    "a stamp without a hash": lambda path: write_json(path.with_suffix(".json"), {"sha": 1}),
    "a stamp that is a list": lambda path: path.with_suffix(".json").write_text("[]"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_edited_completions_are_refused_by_name(run, fault):
    path = complete(run)
    assert (
        generate.is_complete(run[0], *JOB)
        and len(generate.read_completions(run[0], "clinic", "baseline", 0)) == 6
    )
    FAULTS[fault](path)
    said = "so what it was made from is unknown" if "stamp" in fault else "was changed after it was made"
    for ask in (
        lambda: generate.is_complete(run[0], *JOB),
        lambda: generate.read_completions(run[0], "clinic", "baseline", 0),
        lambda: complete(run),
    ):
        with pytest.raises(ValueError, match=said) as error:
            ask()
        assert str(path) in str(error.value) and len(str(error.value).splitlines()) == 1


@pytest.mark.parametrize(
    "other",
    [
        {"seed": 1},
        {"protocol": "greedy"},
        {"protocol": "shuffled"},
        {"method": "crpo"},
        {"benchmark": "clinic-shift"},
    ],
    ids=str,
)
def test_answers_of_another_file_are_refused_though_the_policy_is_the_same(run, other):
    """A base model answers as every seed, and one policy in every protocol: stamps that agree are not enough."""
    path = complete(run)
    names = {"benchmark": "clinic", "method": "baseline", "seed": 0, "protocol": "sampled"} | other
    there = run[0].completions_path(*names.values())
    there.parent.mkdir(parents=True, exist_ok=True)
    for suffix in (".jsonl", ".json"):
        shutil.copyfile(path.with_suffix(suffix), there.with_suffix(suffix))
    with pytest.raises(
        ValueError,
        match="another file .benchmark clinic, method baseline, seed 0, protocol sampled",
    ):
        generate.read_answers(run[0], there)
    assert len(generate.read_answers(run[0], path)) == 6


def test_answers_to_other_questions_are_not_read(run, monkeypatch):
    complete(run)
    other_questions(run, monkeypatch)  # another key: the same ids, the same prompts
    with pytest.raises(
        ValueError, match=r"than .*clinic.test.jsonl holds today \(sha256 \w{16}, now \w{16}\); restore"
    ):
        generate.read_completions(run[0], "clinic", "baseline", 0)


@pytest.mark.parametrize(("cut", "said"), [(6, "6 of 6"), (4, "4 of 6"), (3, "")])
def test_answers_cut_by_the_limit_are_said(run, monkeypatch, capsys, cut, said):
    numbers = iter(range(6))

    def limited(*arguments):
        return [
            row | {"finish_reason": "length" if next(numbers) < cut else "stop"}
            for row in Scripted.answer(run[1], *arguments)
        ]

    monkeypatch.setattr(run[1], "answer", limited)
    stamp = json.loads(complete(run).with_suffix(".json").read_text())
    assert stamp["finish_reasons"]["length"] == cut
    err = capsys.readouterr().err
    assert (
        (f"{said} answers were cut at max_completion_tokens = {SMOKE.max_completion_tokens}" in err)
        if said
        else not err
    )


# --- answers that do not come


@pytest.mark.parametrize("lost", [1, 2])
def test_a_batch_that_lacks_answers_is_an_error_and_what_came_before_stays(run, monkeypatch, lost):
    whole = (path := complete(run)).read_bytes()
    path.unlink()
    path.with_suffix(".json").unlink()
    run[1].calls.clear()

    def lossy(*arguments):
        rows = Scripted.answer(run[1], *arguments)
        return rows if len(run[1].calls) < 3 else rows[lost:]

    with monkeypatch.context() as changed:
        changed.setattr(run[1], "answer", lossy)
        with pytest.raises(
            RuntimeError, match=f"baseline gave {2 - lost} answers to 2 prompts of clinic; expected one each"
        ):
            complete(run)
    assert len(read_jsonl(path.with_suffix(".partial"))) == 4
    assert complete(run).read_bytes() == whole


def test_a_model_that_says_nothing_is_said(run, monkeypatch, capsys):
    def silent(*arguments):
        return [row | {"text": " "} for row in Scripted.answer(run[1], *arguments)]

    monkeypatch.setattr(run[1], "answer", silent)
    path = complete(run)
    assert f"{path}: all 6 answers are empty: the model ends at once" in capsys.readouterr().err


def test_the_samples_of_a_question_stand_together(run):
    rows = read_jsonl(complete(run, eval_samples=2))
    assert [row["sample"] for row in rows] == [0, 1] * 6
    assert all(a["id"] == b["id"] for a, b in zip(rows[::2], rows[1::2], strict=True))
    assert {len(set(batch)) for batch in run[1].calls} == {1}


RUN = """
import json, sys
from clinical_r1 import generate
from clinical_r1.settings import settings_from_json
generate.complete_all(settings_from_json(json.loads(sys.argv[1]), sys.argv[2]))
"""


def killed_half_way(settings) -> None:
    """Two workers, ended together with their parent as soon as a batch is on disk."""
    command = [sys.executable, "-c", RUN, json.dumps(settings.to_json()), settings.out]
    folder = settings.run_dir / "completions"
    with subprocess.Popen(command, start_new_session=True) as process:
        while not list(folder.rglob("*.partial.json")) and process.poll() is None:
            time.sleep(0.02)
        process.kill()  # the parent alone
    for path in folder.rglob(".*.lock"):  # its children let go of what they wrote: they ended with it
        end = time.monotonic() + 60
        while time.monotonic() < end:
            try:
                with locked(path, "x"):
                    break
            except PipelineError:
                time.sleep(0.02)
        else:
            raise AssertionError(f"{path} is held")


@pytest.mark.slow
def test_one_worker_and_two_write_the_same_bytes_and_so_does_a_killed_run(tmp_path):
    """The base model answers as two seeds, in this process, and in two children that were killed once with their parent."""
    written = {}
    for workers in (1, 2):
        settings = replace(
            SMOKE, out=str(tmp_path / str(workers)), seeds=(0, 1), methods=("baseline",), workers=workers,
            benchmarks=("clinic", "clinic-shift"), n_test=6, eval_batch=2, max_completion_tokens=20,
        )  # fmt: skip
        for name in settings.benchmarks:
            write_questions(settings.questions_path(name, "test"), load_set(name, "test", 6))
        if workers == 2:
            killed_half_way(settings)
        files = generate.complete_all(settings)
        assert len(files) == 8 and generate.complete_all(settings) == files
        written[workers] = [path.read_bytes() for file in files for path in (file, file.with_suffix(".json"))]
        logs = settings.run_dir / "completions"
        assert len(list(logs.glob("worker*.log"))) == (2 if workers == 2 else 0)
        assert not list(logs.rglob("*.partial*")) and not list(logs.rglob("progress.json"))
    assert written[1] == written[2]


def test_answers_in_numbers_that_were_measured_are_not_kept_after_another_measurement(run):
    """Of "auto" the stamp holds what the run has measured, also for a model that nobody trained."""
    settings = replace(run[0], device_dtype="auto")
    write_json(settings.run_dir / "precision.json", {"dtype": "float32"})
    generate.complete(settings, run[1], *JOB)
    assert generate.is_complete(settings, *JOB)
    write_json(settings.run_dir / "precision.json", {"dtype": "bfloat16"})
    with pytest.raises(StaleError, match="precision"):
        generate.is_complete(settings, *JOB)
