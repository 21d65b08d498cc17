"""The pipeline runner on throwaway notebooks: what is kept, what is repeated, what each failure says.

python -m pytest tests/pipeline/test_pipeline.py
"""

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import namedtuple
from contextlib import chdir
from dataclasses import replace
from pathlib import Path

import pytest
from records import whole_manifest

from clinical_r1 import files
from clinical_r1.files import ROOT
from clinical_r1.pipeline import __main__ as command
from clinical_r1.pipeline import kernel, machine, stages
from clinical_r1.pipeline.manifest import open_manifest
from clinical_r1.pipeline.stages import Stage
from clinical_r1.settings import PROFILES, settings_for

MINUTES = {"smoke": 0.1, "cpu": 1, "laptop": 1, "colab": 1, "paper": 1}
WRITE_QUESTIONS = """
from pathlib import Path
folder = Path(out, "runs", profile, "questions")
folder.mkdir(parents=True, exist_ok=True)
(folder / "clinic.test.jsonl").write_text("{}")
with open(Path(out, "log.txt"), "a") as log: log.write("01 ")
"""
WRITE_TABLE = """
from pathlib import Path
folder = Path(out, "runs", profile, "tables")
folder.mkdir(parents=True, exist_ok=True)
(folder / "table1.csv").write_text(f"seeds,{seeds}")
(folder / "more.csv").write_text("more")
figures = Path(out, "figures", profile)
figures.mkdir(parents=True, exist_ok=True)
(figures / "fig4.png").write_text(f"picture of {seeds}")
with open(Path(out, "log.txt"), "a") as log: log.write("04 ")
"""
STAGES = (
    Stage("01_first", (), ("runs/{profile}/questions/*.jsonl",), MINUTES),
    Stage(
        "04_last",
        ("runs/{profile}/questions/*.jsonl",),
        ("runs/{profile}/tables/table1.csv", "figures/{profile}/fig*.*"),
        MINUTES,
        may_write=("runs/{profile}/tables/*.csv",),
    ),
)


def write_notebook(path: Path, *sources: str) -> None:
    parameters = 'profile = "cpu"\nout = ".."\nseeds = 1'
    cells = [
        {"cell_type": "code", "execution_count": None, "id": f"cell{number}", "outputs": [], "source": source}
        | {"metadata": {"tags": ["parameters"] if number == 0 else []}}
        for number, source in enumerate((parameters, *sources))
    ]
    kernel = {
        "kernelspec": {"name": "python3", "display_name": "Python 3"},
        "language_info": {"name": "python"},
    }
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps({"cells": cells, "metadata": kernel, "nbformat": 4, "nbformat_minor": 5}))


class Bench:
    """Two tiny notebooks, a folder for their results, and the command line on them."""

    def __init__(self, folder: Path):
        self.out, self.notebooks = folder / "with space", folder / "notebooks"
        self.out.mkdir()
        self.run_dir = self.out / "runs" / "smoke"
        self.write("01_first", WRITE_QUESTIONS)
        self.write("04_last", WRITE_TABLE)

    def write(self, name, *sources):
        write_notebook(self.notebooks / f"{name}.ipynb", *sources)

    def __call__(self, *arguments) -> int:
        argv = ["smoke", "--out", str(self.out), *arguments]
        return command.main(argv, stages=STAGES, notebooks=self.notebooks)

    def executed(self) -> list[str]:
        """The notebooks that ran so far, in order."""
        log = self.out / "log.txt"
        return log.read_text().split() if log.exists() else []

    def manifest(self) -> dict:
        return json.loads((self.run_dir / "manifest.json").read_text())


def execute_here(source, executed, parameters, way_on):
    """`kernel.execute` without a kernel, for tests of what is kept and what is repeated."""
    notebook, names = json.loads(source.read_text()), {}
    with chdir(source.parent), kernel.Watch(source.stem, executed) as watch:
        for cell in notebook["cells"]:
            exec("".join(cell["source"]), names)
            names |= parameters if cell["metadata"]["tags"] else {}
        files.write_json(executed, notebook)
    return watch


@pytest.fixture(autouse=True)
def no_kernel(request, monkeypatch):
    """A kernel takes a second to start: only tests that ask for one get it (and `finished_files`, made once)."""
    if "kernels" not in request.fixturenames:
        monkeypatch.setattr(kernel, "execute", execute_here)


@pytest.fixture
def kernels():
    """Notebooks run as they really do."""


@pytest.fixture
def bench(tmp_path):
    return Bench(tmp_path)


@pytest.fixture(scope="module")
def finished_files(tmp_path_factory):
    """A finished run, made once; tests start from copies of it."""
    bench = Bench(tmp_path_factory.mktemp("finished"))
    assert bench() == 0
    return bench


@pytest.fixture
def finished(finished_files, tmp_path):
    shutil.copytree(finished_files.out.parent, tmp_path, dirs_exist_ok=True)
    copy = object.__new__(Bench)
    copy.out, copy.notebooks = tmp_path / "with space", tmp_path / "notebooks"
    copy.run_dir = copy.out / "runs" / "smoke"
    copy.whole = finished_files.out
    return copy


def files_under(folder: Path) -> dict[str, int]:
    """Every path and when it was written; the lock's file is no result."""
    paths = (path for path in folder.rglob("*") if path.suffix != ".lock")
    return {str(path.relative_to(folder)): path.stat().st_mtime_ns for path in paths}


# ---- a run, and a run again ----


def test_run_writes_notebooks_manifest_and_results(finished, capsys):
    assert finished.executed() == ["01", "04"]
    names = sorted(path.name for path in (finished.run_dir / "notebooks").iterdir())
    assert names == ["01_first.ipynb", "04_last.ipynb"]
    manifest = finished.manifest()
    assert (
        manifest["unfinished"] is None
        and manifest["seeds"] == [0]
        and manifest["settings"]["profile"] == "smoke"
    )
    assert manifest["versions"]["trl"] and manifest["hardware"]["cores"] >= 1
    assert manifest["sha256"]["clinical_r1/prompts.py"] == files.sha256(files.PACKAGE / "prompts.py")
    for record in manifest["stages"].values():
        assert record["seconds"] > 0 and record["peak_memory_mb"] > 50
    assert str(finished.out) not in json.dumps(manifest)


def test_finished_run_is_kept_even_after_moving(finished, capsys):
    # `finished` is a copy in another folder: nothing in a result depends on where it lies
    before = files_under(finished.out)
    assert finished() == 0
    assert files_under(finished.out) == before
    said = capsys.readouterr().out
    assert said.count("kept") == 2 and "runs/smoke/tables/table1.csv" in said


def test_changed_notebook_repeats_itself_and_what_reads_its_files(finished):
    finished.write("01_first", WRITE_QUESTIONS, "1 + 1")
    assert finished() == 0
    assert finished.executed() == ["01", "04", "01"], "its questions are the same, so the table stands"
    finished.write("01_first", WRITE_QUESTIONS.replace("{}", "{ }"))
    assert finished() == 0
    assert finished.executed() == ["01", "04", "01", "01", "04"]


@pytest.fixture
def in_notebooks(monkeypatch):
    """The profile of these tests stands for the one whose outputs the notebooks show."""
    monkeypatch.setattr(command, "IN_NOTEBOOKS", "smoke")


def test_another_profile_than_the_pages_leaves_the_notebooks_as_they_are(finished, capsys):
    before = (finished.notebooks / "04_last.ipynb").read_bytes()
    assert finished("--publish") == 0
    assert (finished.notebooks / "04_last.ipynb").read_bytes() == before
    assert "published 04_last: not its outputs (notebooks show cpu's), but 1 files" in capsys.readouterr().out


@pytest.mark.usefixtures("in_notebooks")
def test_outputs_stored_in_a_notebook_do_not_repeat_it(finished):
    assert finished("--publish") == 0
    assert json.loads((finished.notebooks / "04_last.ipynb").read_text())["cells"][1]["execution_count"] == 3
    assert finished() == 0
    assert finished.executed() == ["01", "04"]


@pytest.mark.usefixtures("in_notebooks")
def test_publishing_leaves_progress_bars_out(finished):
    path = finished.run_dir / "notebooks" / "04_last.ipynb"
    executed = json.loads(path.read_text())
    said = {"name": "stdout", "output_type": "stream", "text": ["90 files\n"]}
    bar = {
        "name": "stderr",
        "output_type": "stream",
        "text": ["arms trained:   0%|          | 0/15 [00:00<?, ?arm/s]"],
    }
    executed["cells"][-1]["outputs"] = [bar, said]
    path.write_text(json.dumps(executed))
    record = finished.manifest()
    outputs = record["stages"]["04_last"]["outputs"]
    (name,) = [name for name in outputs if name.endswith("04_last.ipynb")]
    outputs[name] = files.sha256(path)
    (finished.run_dir / "manifest.json").write_text(json.dumps(record))
    assert finished("--publish") == 0
    published = json.loads((finished.notebooks / "04_last.ipynb").read_text())
    assert published["cells"][-1]["outputs"] == [said]


@pytest.mark.usefixtures("in_notebooks")
def test_a_run_writes_nothing_outside_its_folder_and_publishing_copies_what_it_made(finished, capsys):
    assert sorted(path.name for path in finished.notebooks.parent.iterdir()) == ["notebooks", "with space"]
    published = finished.notebooks.parent / "figures" / "published" / "smoke"
    published.mkdir(parents=True)
    for name in ("fig3_old.png", "reward_design.png"):
        (published / name).write_text("of an earlier version")
    assert finished("--publish") == 0
    assert "published 04_last: its outputs, and 1 files" in capsys.readouterr().out
    assert (published / "fig4.png").read_text() == "picture of 1"
    # the stage writes no fig3_old any more; reward_design is another stage's
    assert sorted(path.name for path in published.iterdir()) == ["fig4.png", "reward_design.png"]
    assert finished("--seeds", "2") == 0
    assert (published / "fig4.png").read_text() == "picture of 1", "a run publishes nothing"


def test_an_unfinished_run_publishes_nothing(finished, capsys):
    (finished.run_dir / "tables" / "table1.csv").unlink()
    before = files_under(finished.notebooks.parent)
    assert finished("--publish") == 1
    assert "04_last cannot be published (runs/smoke/tables/table1.csv is gone)" in capsys.readouterr().err
    assert files_under(finished.notebooks.parent) == before


OUTPUTS = {
    "table": "runs/smoke/tables/table1.csv",
    "optional table": "runs/smoke/tables/more.csv",
    "picture": "figures/smoke/fig4.png",
    "executed notebook": "runs/smoke/notebooks/04_last.ipynb",
    "questions": "runs/smoke/questions/clinic.test.jsonl",
}
HARM = {
    "lost": lambda path: path.unlink(),
    "emptied": lambda path: path.write_bytes(b""),
    "zeroed": lambda path: path.write_bytes(bytes(path.stat().st_size)),
    "cut": lambda path: path.write_bytes(path.read_bytes()[:-1]),
    "edited": lambda path: path.write_text(path.read_text().replace("1", "2") + " "),
}


@pytest.mark.parametrize("harm", HARM)
def test_whatever_a_stage_wrote_is_made_again_once_it_differs(finished, harm, capsys):
    for name in OUTPUTS.values():
        HARM[harm](finished.out / name)
        assert finished("--dry-run") == 0
        said = capsys.readouterr().out
        assert f"{name} {'is gone' if harm == 'lost' else 'has changed since it was written'}" in said, name
        assert finished.executed() == ["01", "04"]
        restore(finished, name)


@pytest.mark.parametrize("harm", ["emptied", "zeroed", "cut", "edited"])
def test_a_stage_takes_nothing_that_changed_since_an_earlier_one_wrote_it(finished, harm, capsys):
    """Not even when it is asked for alone: what it would make of a forged file would carry the forged file's own hash."""
    questions = finished.out / OUTPUTS["questions"]
    HARM[harm](questions)
    assert finished("--only", "04") == 1
    said = capsys.readouterr().err
    assert (
        "04_last reads runs/smoke/questions/clinic.test.jsonl, which 01_first wrote and which has changed"
        in said
    )
    assert "run without --only" in said
    assert finished("--publish", "--only", "04") == 1
    assert finished.executed() == ["01", "04"]
    assert finished() == 0  # what the sentence says
    assert questions.read_text() == "{}"
    assert finished.executed() == ["01", "04", "01"]


ADDED = ("runs/smoke/questions/forged.jsonl", "figures/smoke/fig3.svg", "figures/smoke/figure.png")


@pytest.mark.parametrize("name", ADDED)
def test_what_a_stage_did_not_write_is_not_taken_for_its_result(finished, name, capsys):
    (finished.out / name).write_text("forged")
    assert finished("--publish") == 1
    assert f"{name} was added since" in capsys.readouterr().err
    assert finished() == 0
    assert finished("--publish") == 0
    assert not list(finished.notebooks.parent.rglob("published/**/fig3.svg"))


@pytest.mark.parametrize("extra", [False, True])
def test_a_record_without_outputs_keeps_nothing(finished, extra, capsys):
    path, record = finished.run_dir / "manifest.json", finished.manifest()
    record["stages"]["04_last"]["outputs"] = {}
    path.write_text(json.dumps(record))
    if not extra:
        for name in ("table", "optional table", "picture"):
            (finished.out / OUTPUTS[name]).unlink()
    assert finished("--dry-run") == 0
    assert ("fig4.png was added since" if extra else "table1.csv is gone") in capsys.readouterr().out


def test_only_what_the_stage_wrote_is_published(finished):
    stage = replace(STAGES[1], may_write=("figures/{profile}/radar.*",))
    (finished.out / "figures/smoke/radar.png").write_text("forged")
    argv = ["smoke", "--out", str(finished.out), "--publish"]
    assert command.main(argv, stages=(STAGES[0], stage), notebooks=finished.notebooks) == 0
    assert not list(finished.notebooks.parent.rglob("published/**/radar.png"))


def test_a_stage_is_made_again_when_a_variable_that_it_uses_is_set_to_something_else(
    finished, monkeypatch, capsys
):
    """Set anew or changed; unset, its result stands: `--publish` from another shell publishes it as it is."""
    asked = replace(STAGES[1], environment=("JUDGE_MODEL", "JUDGE_LIMIT"))

    def said():
        argv = ["smoke", "--out", str(finished.out), "--only", "04"]
        assert command.main(argv, stages=(STAGES[0], asked), notebooks=finished.notebooks) == 0
        return capsys.readouterr().out

    assert "04_last: kept" in said()
    monkeypatch.setenv("JUDGE_MODEL", "one")
    assert "04_last: JUDGE_MODEL was not set, is one" in said()
    assert "04_last: kept" in said()
    monkeypatch.setenv("JUDGE_LIMIT", "7")
    assert "04_last: JUDGE_LIMIT was not set, is 7" in said()
    monkeypatch.setenv("JUDGE_MODEL", "two")
    assert "04_last: JUDGE_MODEL was one, is two" in said()
    monkeypatch.delenv("JUDGE_LIMIT")
    assert "04_last: JUDGE_LIMIT was 7, is not set" in said()
    monkeypatch.delenv("JUDGE_MODEL")
    assert "04_last: kept" in said()


def test_files_that_may_be_read_count_once_they_are_there_and_by_their_names(finished):
    stage = replace(STAGES[1], may_read=("runs/ablations/summary/*",))
    run = stages.Run(settings_for("smoke", finished.out), finished.notebooks)
    folder = finished.out / "runs/ablations/summary"
    prints = [run.fingerprint(STAGES[1]), run.fingerprint(stage)]
    assert prints[0] == prints[1]
    folder.mkdir(parents=True)
    for name in ("a.csv", "b.csv"):
        (folder / name).write_text("the same")
        prints.append(run.fingerprint(stage))
    (folder / "b.csv").rename(folder / "c.csv")
    prints.append(run.fingerprint(stage))
    assert len(set(prints)) == 4


def test_what_the_real_stages_depend_on_is_declared():
    """The laboratory's own summary (05), the judge's server and every file of a policy (04)."""
    by_number = {stage.number: stage for stage in stages.STAGES}
    assert by_number["05"].may_read == ("runs/ablations/summary/*",)
    assert "CLINICAL_R1_JUDGE_MODEL" in by_number["04"].environment
    for file in ("policy/**/*", "done.json"):
        assert f"runs/{{profile}}/models/*/seed*/{file}" in by_number["04"].reads


def restore(bench, name):
    """Put an output back as the finished run wrote it."""
    whole = bench.whole / name
    shutil.copyfile(whole, bench.out / name)


def test_a_harmed_result_is_made_again_as_it_was(finished, capsys):
    table, picture = finished.out / OUTPUTS["table"], finished.out / OUTPUTS["picture"]
    before = table.read_bytes(), picture.read_bytes()
    table.write_text("")
    picture.unlink()
    assert finished() == 0
    assert finished.executed() == ["01", "04", "04"]
    assert (table.read_bytes(), picture.read_bytes()) == before
    assert finished() == 0
    assert finished.executed() == ["01", "04", "04"]


def test_files_written_again_with_the_same_bytes_are_kept(finished):
    for name in OUTPUTS.values():
        (finished.out / name).write_bytes((finished.out / name).read_bytes())
    assert finished() == 0
    assert finished.executed() == ["01", "04"]


def test_a_run_that_is_read_from_elsewhere_is_kept(finished):
    """The folder of results moves, the notebooks do not."""
    finished.out.rename(finished.out.with_name("moved"))
    finished.out = finished.out.with_name("moved")
    assert finished() == 0
    assert finished.executed() == ["01", "04"]


def test_a_figure_that_is_not_made_any_more_is_put_away(finished, capsys):
    finished.write("04_last", WRITE_TABLE.replace("more.csv", "other.csv"))
    assert finished() == 0
    tables = finished.run_dir / "tables"
    assert sorted(path.name for path in tables.iterdir()) == ["other.csv", "table1.csv"]
    assert (finished.run_dir / "set_aside/shown-1/runs/smoke/tables/more.csv").read_text() == "more"
    assert "more.csv is of an earlier run and was not made again" in capsys.readouterr().out
    assert finished() == 0
    assert finished.executed() == ["01", "04", "04"]


def test_more_seeds_extend_a_run_and_fewer_are_refused(finished, capsys):
    assert finished("--seeds", "2") == 0
    assert (finished.run_dir / "tables" / "table1.csv").read_text() == "seeds,2"
    before = files_under(finished.run_dir)
    assert finished("--seeds", "1") == 1
    assert "runs/smoke was made with other settings (seeds [0, 1], now [0])" in capsys.readouterr().err
    assert files_under(finished.run_dir) == before


def test_fresh_moves_the_old_run_aside(finished, capsys):
    manifest = finished.manifest()
    manifest["settings"]["rl_steps"] = 7
    (finished.run_dir / "manifest.json").write_text(json.dumps(manifest))
    assert finished() == 1
    assert "rl_steps 7, now 2" in capsys.readouterr().err
    (finished.out / "runs" / "smoke.old-1").mkdir()
    assert finished("--fresh") == 0
    old = finished.out / "runs" / "smoke.old-2"
    assert json.loads((old / "manifest.json").read_text())["settings"]["rl_steps"] == 7
    assert finished.executed() == ["01", "04", "01", "04"]


def test_only_runs_one_stage_and_says_what_it_lacks(bench, capsys):
    assert bench("--only", "4") == 1
    assert "04_last reads runs/smoke/questions/*.jsonl, which is not there" in capsys.readouterr().err
    assert bench("--only", "9") == 1
    assert "--only 09 names no notebook; expected one of 01, 04" in capsys.readouterr().err
    assert bench("--only", "1") == 0
    assert bench.executed() == ["01"]


def test_dry_run_touches_nothing(finished, capsys):
    finished.write("04_last", WRITE_TABLE, "2 + 2")
    before = files_under(finished.out)
    assert finished("--dry-run") == 0
    assert files_under(finished.out) == before
    said = capsys.readouterr().out
    assert "settings, code or input changed" in said and "runs/smoke/tables/table1.csv" in said
    assert "expected: about 0.1 min" in said
    assert "seeds: 1 here; no table of profile smoke is published; with one seed no difference" in said


# ---- failures ----


def test_failing_cell_is_named_and_the_earlier_notebook_stays(finished, kernels, capsys):
    earlier = (finished.run_dir / "notebooks" / "04_last.ipynb").read_text()
    finished.write("04_last", WRITE_TABLE, "raise OSError(28, 'No space left on device')")
    assert finished() == 1
    said = capsys.readouterr().err.strip()
    assert said.startswith(
        "reproduce: 04_last stopped in cell 3 (OSError: [Errno 28] No space left on device)"
    )
    assert "runs/smoke/notebooks/04_last.partial.ipynb" in said and len(said.splitlines()) == 1
    assert (finished.run_dir / "notebooks" / "04_last.ipynb").read_text() == earlier
    assert finished.manifest()["unfinished"] == "04_last"
    finished.write("04_last", WRITE_TABLE)  # fixed
    assert finished() == 0


def test_stage_that_writes_too_little_fails(bench, capsys):
    bench.write("04_last", "1 + 1")
    assert bench() == 1
    assert "04_last ended without writing runs/smoke/tables/table1.csv" in capsys.readouterr().err


def test_killed_kernel_gives_one_sentence(bench, kernels, capfd):
    bench.write("01_first", "import os; os.kill(os.getpid(), 9)")
    assert bench() == 1
    assert "reproduce: 01_first stopped, its kernel ended" in capfd.readouterr().err


def test_a_notebook_that_leaves_before_its_end_is_not_finished(bench, kernels, capsys):
    bench.write("01_first", WRITE_QUESTIONS, "import sys; sys.exit(0)", "1 + 1")
    assert bench() == 1
    assert "01_first stopped before cell 3 (it left on its own)" in capsys.readouterr().err
    assert bench.manifest()["stages"] == {}


def test_the_last_words_of_a_kernel_that_cannot_start_are_said(bench, kernels, monkeypatch, capfd):
    """What stands in the way is a broken module; too many open files look the same."""
    (bench.out / "ipykernel_launcher.py").write_text("raise OSError(24, 'Too many open files')")
    monkeypatch.setenv("PYTHONPATH", str(bench.out))
    assert bench("--only", "01") == 1
    said = capfd.readouterr().err
    assert "its kernel ended" in said and "OSError: [Errno 24] Too many open files); what ran" in said
    assert len(said.splitlines()) == 1


def test_an_exception_that_ipython_cannot_print_is_said_all_the_same(tmp_path):
    cell = {
        "metadata": {"papermill": {"exception": True}},
        "outputs": [{"name": "stderr", "text": ["a\n", "OSError: b\n"]}],
    }
    files.write_json(tmp_path / "n.ipynb", {"cells": [{"metadata": {}, "outputs": []}, cell]})
    assert kernel.last_line_of_a_cell(tmp_path / "n.ipynb") == "OSError: b"


def run_in_process(bench) -> subprocess.Popen:
    """The second notebook waits for ever; returns once it does."""
    bench.write(
        "04_last", "print('half')", "open(f'{out}/waiting', 'w').close()\nimport time; time.sleep(600)"
    )
    code = (
        "import sys; sys.path[:0] = ['tests', 'tests/pipeline']; import test_pipeline as t; from pathlib import Path\n"
        f"sys.exit(t.command.main(['smoke', '--out', {str(bench.out)!r}], stages=t.STAGES,"
        f" notebooks=Path({str(bench.notebooks)!r})))"
    )
    root = ROOT
    process = subprocess.Popen([sys.executable, "-c", code], cwd=root, stderr=subprocess.PIPE, text=True)
    while not (bench.out / "waiting").exists():
        assert process.poll() is None
        time.sleep(0.05)
    return process


def test_killed_run_goes_on_where_it_died(bench, capsys):
    process = run_in_process(bench)
    assert bench() == 1, "two runs must not write one folder"
    assert f"is being written by another run (process {process.pid})" in capsys.readouterr().err
    process.kill()
    process.communicate()
    assert (bench.run_dir / "notebooks" / "04_last.partial.ipynb").exists()
    assert not (bench.run_dir / "notebooks" / "04_last.ipynb").exists()
    assert bench.manifest()["unfinished"] == "04_last"
    bench.write("04_last", WRITE_TABLE)
    assert bench() == 0
    assert bench.executed() == ["01", "04"]


def test_interrupt_exits_130_and_says_how_to_go_on(bench):
    process = run_in_process(bench)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=120)
    assert process.returncode == 130
    assert said == "reproduce: interrupted; run the same command to go on where it stopped.\n"


def test_unknown_profile_names_the_four(capsys):
    assert command.main(["gpu"]) == 2
    assert "smoke, cpu, laptop, colab, paper" in capsys.readouterr().err


@pytest.mark.parametrize("profile", ["colab", "paper"])
def test_gpu_profiles_are_refused_without_cuda(profile, tmp_path, monkeypatch, capsys):
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert command.main([profile, "--out", str(tmp_path)]) == 1
    assert f"profile {profile} needs a CUDA GPU" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_full_disk_is_refused_before_anything_is_written(bench, monkeypatch, capsys):
    usage = namedtuple("usage", "free")(free=10**8)
    monkeypatch.setattr(machine.shutil, "disk_usage", lambda folder: usage)
    assert bench() == 1
    assert "needs 0.5 GB of free disk space, 0.1 GB is left" in capsys.readouterr().err
    assert list(bench.out.iterdir()) == []


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EACCES])
def test_unwritable_folder_gives_one_sentence(finished, number, monkeypatch, capsys):
    def refuse(path, value):
        raise OSError(number, os.strerror(number), str(path))

    before = files_under(finished.run_dir)
    finished.write("04_last", WRITE_TABLE, "3 + 3")
    monkeypatch.setattr(stages, "write_json", refuse)
    assert finished() == 1
    said = capsys.readouterr().err
    assert os.strerror(number) in said and "--out" in said and len(said.splitlines()) == 1
    assert files_under(finished.run_dir) == before


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("", "Expecting value"),
        ("{", "Expecting property name"),
        ("[]", "it is a list"),
        ("null", "it is a NoneType"),
        ("{}", "settings is lacking"),
        ("[" * 100_000, "RecursionError"),
        (b"\xff\xfe", "UnicodeDecodeError"),
        ({"settings": 3}, "settings is a int"),
        ({"settings": {}}, "seeds is lacking"),
        ({"stages": []}, "stages is a list"),
        ({"git": {}}, "sha is lacking"),
        ({"versions": "1.0"}, "versions is a str"),
    ],
)
def test_damaged_manifest_is_refused_in_one_sentence(finished, text, fault, capsys):
    path = finished.run_dir / "manifest.json"
    if isinstance(text, dict):
        text = json.dumps(finished.manifest() | text)
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    for arguments in ((), ("--dry-run",), ("--publish",)):
        assert finished(*arguments) == 1
        said = capsys.readouterr().err
        assert "manifest.json is damaged" in said and fault in said and "delete it" in said
        assert len(said.splitlines()) == 1


@pytest.mark.parametrize("record", ["done", None, [], {}, {"fingerprint": 3}, "outputs of another kind"])
def test_a_stage_whose_record_is_damaged_is_run_again_and_says_so(finished, record, capsys):
    made = finished.manifest()
    if record == "outputs of another kind":
        record = made["stages"]["04_last"] | {"outputs": []}
    made["stages"]["04_last"] = record
    files.write_json(finished.run_dir / "manifest.json", made)
    assert finished("--dry-run") == 0
    assert "its record in manifest.json is damaged" in capsys.readouterr().out
    if record is None:
        assert finished() == finished() == 0
        assert finished.executed() == ["01", "04", "04"]


@pytest.mark.parametrize(
    ("error", "parts"),
    [
        (OSError(errno.EMFILE, os.strerror(errno.EMFILE), "a"), ("Too many open files (a)", "ulimit -n")),
        (
            OSError(errno.ENFILE, os.strerror(errno.ENFILE)),
            ("Too many open files in system", "close programs"),
        ),
        (
            OSError(errno.ENOMEM, os.strerror(errno.ENOMEM)),
            ("Cannot allocate memory", "close other programs"),
        ),
        (OSError(errno.EAGAIN, os.strerror(errno.EAGAIN)), ("Resource temporarily unavailable", "ulimit -u")),
        (OSError(errno.EIO, os.strerror(errno.EIO), "b"), ("Input/output error (b)", "fix the cause")),
        (OSError(errno.EFBIG, os.strerror(errno.EFBIG)), ("File too large", "ulimit -f")),
        (MemoryError(), ("memory ran out", "close other programs")),
        (OSError("a sentence of ours"), ("a sentence of ours",)),
    ],
)
def test_what_the_system_refuses_is_one_sentence_with_a_way_on(finished, error, parts, monkeypatch, capsys):
    def refuse(*_):
        raise error

    finished.write("04_last", WRITE_TABLE, "4 + 4")
    monkeypatch.setattr(stages, "write_json", refuse)
    assert finished() == 1
    said = capsys.readouterr().err
    assert all(part in said for part in parts) and len(said.splitlines()) == 1


@pytest.mark.parametrize(
    ("allowed", "highest", "refused"), [(64, 64, True), (64, 4096, False), (64, -1, False), (-1, -1, False)]
)
def test_open_files_are_raised_where_the_shell_allows_it(bench, allowed, highest, refused, monkeypatch):
    import resource

    raised = []
    monkeypatch.setattr(resource, "getrlimit", lambda _: (allowed, highest))
    monkeypatch.setattr(resource, "setrlimit", lambda _, limits: raised.append(limits))
    if refused:
        with pytest.raises(files.PipelineError, match="allows 64 open files at once and a run needs 256"):
            machine.check_machine(settings_for("smoke", bench.out))
    else:
        machine.check_machine(settings_for("smoke", bench.out))
        assert raised == ([(256, highest)] if allowed > 0 else [])


def test_a_closed_pipe_is_one_sentence(finished):
    """Such as `./reproduce.sh | head`."""
    code = (
        "import os, sys; from clinical_r1.pipeline.__main__ import main\n"
        "read, write = os.pipe(); os.close(read); os.dup2(write, 1)\nsys.exit(main(sys.argv[1:]))"
    )
    command = [sys.executable, "-c", code, "run", "smoke", "--dry-run", "--out", str(finished.out / "none")]
    run = subprocess.run(command, cwd=ROOT, stderr=subprocess.PIPE, text=True)
    assert run.returncode == 141
    assert (
        run.stderr
        == "reproduce: nobody reads its output any more; run the same command to go on where it stopped.\n"
    )


def test_lock_file_of_a_dead_run_does_not_block(bench):
    (bench.out / "runs").mkdir()
    (bench.out / "runs" / "smoke.lock").write_text("999999999\n")
    assert bench("--only", "01") == 0


def test_missing_notebook_is_named(bench, capsys):
    (bench.notebooks / "04_last.ipynb").unlink()
    assert bench("--only", "01") == 0
    assert bench() == 1
    assert "04_last.ipynb is missing" in capsys.readouterr().err


STRANGE_HOME = {
    ".ipython/profile_default/startup/00.py": "print('from a stranger')\nimport pandas\npandas = None\n",
    ".ipython/profile_default/ipython_config.py": "c = get_config()\nc.InlineBackend.figure_formats = {'svg'}\n",
    ".ipython/profile_default/ipython_kernel_config.py": "raise SystemExit(3)\n",
    ".local/share/jupyter/kernels/python3/kernel.json": json.dumps(
        {"argv": ["/bin/false", "{connection_file}"], "display_name": "Python 3", "language": "python"}
    ),
    ".config/matplotlib/matplotlibrc": "font.family: serif\nsavefig.dpi: 31\nno.such.key: 1\n",
    "startup.py": "raise SystemExit('from PYTHONSTARTUP')\n",
}
DRAWING = """
import matplotlib.pyplot as plt
import os, sys
assert 1 < 2, "assertions are on"
print(sys.flags.optimize, plt.rcParams["font.family"], plt.rcParams["savefig.dpi"], sorted(globals())[-3:])
plt.figure(figsize=(1, 1)).gca().set_title("text");
"""


def test_the_executed_notebook_is_the_same_in_every_home(bench, kernels, monkeypatch, capfd):
    """Start-up files, kernels, settings and environment variables of whoever runs it do not reach the kernel."""
    bench.write("01_first", WRITE_QUESTIONS, DRAWING)

    def cells():
        assert bench("--only", "01", "--fresh") == 0
        executed = json.loads((bench.run_dir / "notebooks" / "01_first.ipynb").read_text())["cells"]
        return [(cell["source"], cell.get("outputs")) for cell in executed]

    monkeypatch.setenv("HOME", str(bench.out))
    expected = cells()
    assert "stranger" not in str(expected) and "image/png" in str(expected)
    home = bench.out.parent / "home"
    for name, text in STRANGE_HOME.items():
        files.write_text(home / name, text)
    for name, value in {
        "HOME": home,
        "PYTHONSTARTUP": home / "startup.py",
        "PYTHONOPTIMIZE": "2",
        "PYTHONWARNINGS": "error",
        "IPYTHONDIR": home / ".ipython",
        "JUPYTER_PATH": home / ".local/share/jupyter",
        "MATPLOTLIBRC": home / ".config/matplotlib/matplotlibrc",
        "MPLBACKEND": "svg",
    }.items():
        monkeypatch.setenv(name, str(value))
    assert cells() == expected
    assert "stranger" not in "".join(capfd.readouterr())


def test_kernels_see_the_same_environment_in_every_shell(monkeypatch):
    monkeypatch.setenv("PYTHONHASHSEED", "7")
    monkeypatch.delenv("PYTHONPATH", raising=False)
    with kernel.sealed():
        assert os.environ["PYTHONHASHSEED"] == "0" and "inline" in os.environ["MPLBACKEND"]
    assert os.environ["PYTHONHASHSEED"] == "7" and "PYTHONPATH" not in os.environ


def test_declared_stages_are_the_notebooks_in_order():
    names = [stage.notebook for stage in stages.STAGES]
    assert names == sorted(names)
    for stage in stages.STAGES:
        assert stage.minutes.keys() == PROFILES.keys()


# ---- questions about a finished run ----


def test_explain_prints_a_published_number_and_fails_with_the_statuses_of_main(published, tmp_path, capsys):
    clone = ["--out", str(tmp_path / "clone")]
    shutil.copytree(published, tmp_path / "clone" / "figures" / "published" / "cpu")
    assert command.main(["explain", "table1.medqa.crpo.accuracy", *clone]) == 0
    said = capsys.readouterr().out
    command_of_run = json.loads((published / "results.json").read_text())["command"]
    assert "52.41" in said and "not attempted" in said and command_of_run in said
    assert command.main(["explain", "ledger", "--profile", "cpu", *clone]) == 0
    assert "135 not attempted" in capsys.readouterr().out
    assert command.main(["explain", "table1.medqa.crpo.acuracy", *clone]) == 2
    assert "nearest name is 'table1.medqa.crpo.accuracy'" in capsys.readouterr().err
    assert command.main(["explain", "ledger", "--profile", "gpu"]) == 2
    assert "smoke, cpu, laptop, colab, paper" in capsys.readouterr().err
    assert command.main(["explain", "ledger", "--out", str(tmp_path / "empty")]) == 1
    assert "run ./reproduce.sh cpu first" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["clone"]


def test_explain_without_a_cell_is_a_wrong_argument(capsys):
    with pytest.raises(SystemExit) as stop:
        command.main(["explain"])
    assert stop.value.code == 2


def test_readme_without_a_ledger_gives_one_sentence(monkeypatch, capsys):
    page = (ROOT / "docs/results.md").read_text()
    assert command.main(["readme", "--profile", "paper"]) == 1
    assert "figures/published/paper/ledger.csv is missing" in capsys.readouterr().err
    assert (ROOT / "docs/results.md").read_text() == page


def test_questions_can_be_checked_before_an_environment_is_made(capsys):
    """reproduce.sh adds --dry-run with whatever Python is there, and must hear of a wrong argument."""
    assert command.main(["explain", "ledger", "--dry-run"]) == 0
    assert command.main(["readme", "--dry-run"]) == 0
    assert capsys.readouterr().out == ""
    code = "import sys; sys.modules['pandas'] = sys.modules['numpy'] = None\n"
    code += (
        "from clinical_r1.pipeline.__main__ import main; sys.exit(main(['explain', 'ledger', '--dry-run']))"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0


def test_help_tells_of_the_questions(capsys):
    with pytest.raises(SystemExit):
        command.main(["--help"])
    said = " ".join(capsys.readouterr().out.split())
    assert all(
        name in said for name in ("explain", "readme", "rescore", "ablations", "export", "that of `run`")
    )


@pytest.mark.parametrize("file", ["clinic/cases.py", "rewards.py", "pipeline/explain.py"])
def test_a_changed_file_of_any_wing_repeats_the_stages(tmp_path, monkeypatch, file):
    copy = tmp_path / "clinical_r1"
    shutil.copytree(files.PACKAGE, copy, ignore=shutil.ignore_patterns("__pycache__", "data"))
    monkeypatch.setattr(stages, "PACKAGE", copy)
    write_notebook(tmp_path / "01_first.ipynb", "1")
    run = stages.Run(settings_for("smoke", tmp_path), tmp_path)
    before = run.fingerprint(STAGES[0])
    (copy / file).write_text((copy / file).read_text() + "\nMORE = 1\n")
    assert run.fingerprint(STAGES[0]) != before


def test_two_files_of_one_name_in_two_wings_are_two_files(tmp_path, monkeypatch):
    """Keyed by bare name, one of them would hide the other's changes."""
    test_a_changed_file_of_any_wing_repeats_the_stages(tmp_path / "a", monkeypatch, "audit/plots.py")
    test_a_changed_file_of_any_wing_repeats_the_stages(tmp_path / "b", monkeypatch, "laboratory/plots.py")


def test_a_changed_own_file_repeats_the_stages(tmp_path):
    write_notebook(tmp_path / "01_first.ipynb", "1")
    runs = [stages.Run(settings_for("smoke", tmp_path), tmp_path, own) for own in (None, "one", "two")]
    assert len({run.fingerprint(STAGES[0]) for run in runs}) == 3


def test_more_seeds_arms_and_benchmarks_extend_a_run_and_other_settings_do_not(tmp_path):
    settings = settings_for("smoke", tmp_path)
    path = settings.run_dir / "manifest.json"
    files.write_json(path, whole_manifest(settings))
    more = replace(
        settings, seeds=(0, 1), methods=(*settings.methods, "k0"), benchmarks=(*settings.benchmarks, "medqa")
    )
    assert open_manifest(path, more)["stages"] == {}
    for other in (replace(settings, methods=settings.methods[:2]), replace(settings, rl_steps=3)):
        with pytest.raises(files.PipelineError, match="was made with other settings"):
            open_manifest(path, other)


def test_two_own_files_of_one_name_do_not_share_a_run(tmp_path):
    write_notebook(tmp_path / "01_first.ipynb", "1")
    settings = settings_for("smoke", tmp_path / "out")

    def run(folder, inputs):
        return stages.Run(settings, tmp_path, inputs, tmp_path / folder / "mine.py")

    made = run("a", "one")
    files.write_json(made.manifest_path, whole_manifest(settings, own=made.own_record))
    assert str(tmp_path) not in made.manifest_path.read_text()
    assert (
        made.manifest()["own"]
        == run("a", "edited").manifest()["own"]
        == run("moved", "one").manifest()["own"]
    )
    with pytest.raises(files.PipelineError, match=r"made with a mine\.py of another folder"):
        run("b", "two").manifest()


def test_with_names_the_own_file_and_its_fault(tmp_path, capsys):
    (tmp_path / "mine.py").write_text("ARMS = 3\n")
    assert (
        command.main(["smoke", "--out", str(tmp_path), "--with", str(tmp_path / "mine.py"), "--dry-run"]) == 2
    )
    assert "mine.py, ARMS: is a int; expected a list of Arm" in capsys.readouterr().err
    assert command.main(["smoke", "--out", str(tmp_path), "--with", str(tmp_path / "none.py")]) == 2
    assert "none.py does not exist" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["mine.py"]
