"""The notebooks: fit to be read on the web, fit for Colab, and the whole pipeline at smoke scale.

python -m pytest tests/test_notebooks.py                  (minutes)
python -m pytest tests/test_notebooks.py -m "not slow"    (a second)
"""

import ast
import csv
import importlib
import json
import os
import re
import shlex
import subprocess
import sys
import time
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace

import pytest
from packaging.requirements import Requirement

from clinical_r1 import paper
from clinical_r1.arms import METHODS
from clinical_r1.files import ROOT
from clinical_r1.findings import laboratory as findings
from clinical_r1.labels import CLINIC_BENCHMARKS
from clinical_r1.pipeline import __main__ as command
from clinical_r1.pipeline import stages
from clinical_r1.pipeline.shown import without_progress
from clinical_r1.settings import PROFILES

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
MACHINE_PATH = re.compile(r"(?<![\w.:/])/(?:home|root|tmp|work|mnt|opt|Users)/\w[^\s\"']*")
COLAB_PYTHON = "3.13"

each_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def cells(path: Path, kind: str | None = None) -> list[dict]:
    found = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return [cell | {"text": "".join(cell["source"])} for cell in found if kind in (None, cell["cell_type"])]


# ---- as committed ----


def test_every_stage_has_its_notebook():
    assert {stage.notebook for stage in stages.STAGES} <= {path.stem for path in NOTEBOOKS}


@each_notebook
def test_parameters_cell_has_the_three_parameters(path):
    (tagged,) = [cell for cell in cells(path, "code") if "parameters" in cell["metadata"].get("tags", [])]
    names = {node.id for node in ast.walk(ast.parse(tagged["text"])) if isinstance(node, ast.Name)}
    assert {"profile", "out", "seeds"} <= names
    assert re.search(r"# (.*)", tagged["text"])[1].split(" | ") == list(PROFILES)


@each_notebook
def test_the_next_cell_says_with_which_parameters_the_outputs_were_made(path):
    """Published outputs stand under the default parameters, which are a reader's own."""
    texts = [cell["text"] for cell in cells(path, "code")]
    (settings,) = [text for text in texts if "settings = settings_for(profile, out, seeds)" in text]
    assert re.search(r"\nprint\((run|folder)_line\(settings\)\)$", settings)
    assert texts.index(settings) == 2


@each_notebook
def test_kernel_is_python3(path):
    assert json.loads(path.read_text())["metadata"]["kernelspec"]["name"] == "python3"


@each_notebook
def test_badge_opens_this_notebook_on_colab(path):
    badge = re.search(
        r"https://colab\.research\.google\.com/github/[^)\s]+/notebooks/([\w.-]+\.ipynb)",
        cells(path)[0]["text"],
    )
    assert badge and badge[1] == path.name


@each_notebook
def test_committed_outputs_show_evidence_and_no_error(path):
    outputs = [output for cell in cells(path, "code") for output in cell["outputs"]]
    assert outputs, "readers on the web see no evidence; run ./reproduce.sh, then ./reproduce.sh --publish"
    assert [output["ename"] for output in outputs if output["output_type"] == "error"] == []


@each_notebook
def test_committed_outputs_hold_no_progress_bar(path):
    """A page shows a bar as it began: 0 of 15, above a full table."""
    for cell in cells(path, "code"):
        assert without_progress(cell["outputs"]) == cell["outputs"]


@each_notebook
def test_no_path_of_one_machine(path):
    assert MACHINE_PATH.findall(path.read_text(encoding="utf-8")) == []


# ---- on Colab ----


def set_up_cell(path: Path) -> str:
    (cell,) = [cell for cell in cells(path, "code") if "setup" in cell["metadata"].get("tags", [])]
    return cell["text"]


def colab_requirements(path: Path) -> list[Requirement]:
    """What a notebook's set-up cell gives pip on Colab: the words after %pip install, as the shell splits them."""
    installs = [line for line in set_up_cell(path).splitlines() if line.split()[:2] == ["%pip", "install"]]
    found = [
        Requirement(word) for line in installs for word in shlex.split(line)[2:] if not word.startswith("-")
    ]
    assert found, "the set-up cell must hold a line `%pip install -q trl==…`"
    return found


def as_python(cell: str) -> str:
    """A cell as IPython runs it: magics are calls."""
    inputs = importlib.import_module("IPython.core.inputtransformer2")  # IPython comes with ipykernel
    return inputs.TransformerManager().transform_cell(cell)


class Shell:
    """Takes the magics of the set-up cell: what pip was given is noted, the extension is loaded as by IPython."""

    def __init__(self):
        self.pip = []

    def run_line_magic(self, name: str, line: str) -> None:
        if name == "pip":
            self.pip.append(line)
        else:
            assert name == "reload_ext"
            importlib.reload(importlib.import_module(line)).load_ipython_extension(self)


@each_notebook
def test_set_up_cell_is_short_and_the_same_everywhere(path):
    assert len(set_up_cell(path).splitlines()) <= 5
    assert set_up_cell(path) == set_up_cell(NOTEBOOKS[0]) and cells(path, "code")[0]["text"] == set_up_cell(
        path
    )


@each_notebook
def test_colab_cell_leaves_colabs_packages_alone(path):
    names = {requirement.name for requirement in colab_requirements(path)}
    assert {"trl", "datasets", "clinical_r1"} <= {name.replace("-", "_") for name in names}
    assert not names & {"torch", "transformers", "numpy"}


class Killed(BaseException):
    """In place of the signal that ends the kernel."""


@pytest.fixture
def colab(monkeypatch, tmp_path):
    """As if on Colab: its /content is tmp_path, and a kernel that is ended says so. Yields the shell."""

    def killed(*_):
        raise Killed

    make, go, here = os.makedirs, os.chdir, Path.cwd()
    shell = Shell()
    monkeypatch.setitem(sys.modules, "google.colab", object())
    monkeypatch.setitem(sys.modules, "pyarrow", SimpleNamespace(__version__=metadata.version("pyarrow")))
    monkeypatch.setattr(
        os, "makedirs", lambda path, **how: make(path.replace("/content", str(tmp_path)), **how)
    )
    monkeypatch.setattr(os, "chdir", lambda path: go(path.replace("/content", str(tmp_path))))
    monkeypatch.setattr(os, "kill", killed)
    monkeypatch.setattr(time, "sleep", lambda _: None)
    yield shell
    go(here)


@each_notebook
def test_colab_cell_puts_results_where_the_file_pane_shows_them(path, colab, tmp_path, capsys):
    """On Colab a notebook runs in /content, where out = ".." would be the root of the machine."""
    (parameters,) = [
        cell["text"] for cell in cells(path, "code") if "parameters" in cell["metadata"].get("tags", [])
    ]
    names = {"get_ipython": lambda: colab}
    for _ in range(2):  # Run all, and again in the same kernel
        exec(as_python(set_up_cell(path)), names)
        exec(parameters, names)
        assert Path(names["out"]).resolve() == tmp_path / "clinical_r1"
    assert len(colab.pip) == 2 and capsys.readouterr().out == ""


def test_colab_cell_restarts_once_where_an_older_pyarrow_is_loaded(colab, monkeypatch, tmp_path, capsys):
    names = {"get_ipython": lambda: colab}
    monkeypatch.setitem(sys.modules, "pyarrow", SimpleNamespace(__version__="18.1.0"))
    with pytest.raises(Killed):
        exec(as_python(set_up_cell(NOTEBOOKS[0])), names)
    assert "Colab restarts once" in (said := capsys.readouterr().out) and "Choose Run all again" in said
    monkeypatch.delitem(sys.modules, "pyarrow")  # the new kernel
    exec(as_python(set_up_cell(NOTEBOOKS[0])), names)
    assert len(colab.pip) == 2 and Path.cwd() == tmp_path / "clinical_r1" / "notebooks"


def test_what_is_loaded_before_the_restart_is_the_standard_library():
    code = (
        "import sys; before = set(sys.modules); import clinical_r1.pipeline.colab\n"
        "new = {name.split('.')[0] for name in set(sys.modules) - before}\n"
        "print(*sorted(new - set(sys.stdlib_module_names)))"
    )
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert run.stdout.split() == ["clinical_r1"], run.stderr


@each_notebook
def test_elsewhere_the_set_up_cell_does_nothing(path, monkeypatch):
    monkeypatch.delitem(sys.modules, "google.colab", raising=False)
    shell, here, names = Shell(), Path.cwd(), {}
    exec(as_python(set_up_cell(path)), names | {"get_ipython": lambda: shell})
    assert shell.pip == [] and Path.cwd() == here


@pytest.mark.slow
def test_colab_cell_resolves_against_colabs_versions(tmp_path):
    """A pin or range that would make Colab replace its torch, transformers or numpy fails here."""
    wanted = {str(requirement) for path in NOTEBOOKS for requirement in colab_requirements(path)}
    published = {text for text in wanted if " @ " not in text}
    assert published < wanted, "the set-up cell installs this package too"
    (tmp_path / "cell.in").write_text("\n".join(sorted(published)))
    uv = [sys.executable, "-m", "uv", "pip", "compile", "--quiet"]
    target = ["--python-version", COLAB_PYTHON, "--python-platform", "x86_64-manylinux_2_28"]
    constraints = ["--constraint", str(ROOT / "tests" / "colab_runtime.txt")]
    # pyproject.toml stands for "clinical_r1 @ git+…": the same dependencies, of this checkout
    command = [*uv, *target, *constraints, str(tmp_path / "cell.in"), str(ROOT / "pyproject.toml")]
    run = subprocess.run(command, capture_output=True, text=True, timeout=300)
    if run.returncode and re.search(r"[Ff]ailed to fetch|error sending request|dns error", run.stderr):
        pytest.skip("no package registry can be reached")
    assert run.returncode == 0, run.stderr
    for package in ("torch==2.11.0", "transformers==5.15.0", "numpy==2.1.3", "peft==0.20.0"):
        assert f"\n{package}\n" in run.stdout


# ---- the pipeline, smoke scale ----


@pytest.mark.slow
def test_smoke_run_makes_table_and_figures_and_is_then_kept(tmp_path, capsys):
    assert command.main(["smoke", "--out", str(tmp_path)]) == 0, capsys.readouterr().err
    assert capsys.readouterr().out.count(": done in") == len(stages.STAGES)

    run_dir, figures = tmp_path / "runs" / "smoke", tmp_path / "figures" / "smoke"
    with open(run_dir / "tables" / "table1.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    expected = {
        (b, method, metric) for b in CLINIC_BENCHMARKS for method in METHODS for metric in paper.METRICS
    }
    assert len(expected) == 135
    table = {(row["benchmark"], row["method"], row["metric"]): row for row in rows}
    assert expected <= table.keys()
    for key in expected:
        assert float(table[key]["ci_low"]) <= float(table[key]["value"]) <= float(table[key]["ci_high"])
        assert int(table[key]["n"]) > 0
    for name in ("fig1_radar", "fig3_cold_start_accuracy", "fig4_accuracy", "fig5_response_length"):
        for suffix in ("png", "pdf", "csv"):
            assert (figures / f"{name}.{suffix}").stat().st_size > 0

    # whatever a run leaves is a result whose change would be noticed, but for these
    stages_of_run = json.loads((run_dir / "manifest.json").read_text())["stages"].values()
    recorded = {name for record in stages_of_run for name in record["outputs"]}
    left = {
        path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()
    } - recorded
    no_result = (
        r"runs/smoke(\.lock|/manifest\.json|/models/.*/(checkpoints/.*|train\.log|[^/]*lock)|/completions/worker\d+\.log)"
        r"|.*\.lock"
    )
    assert [name for name in sorted(left) if not re.fullmatch(no_result, name)] == []

    # the same command again: everything is kept, nothing is written
    def written():
        paths = [*run_dir.rglob("*"), *figures.rglob("*")]
        return {path: path.stat().st_mtime_ns for path in paths}

    before = written()
    assert command.main(["smoke", "--out", str(tmp_path)]) == 0
    assert capsys.readouterr().out.count(": kept") == len(stages.STAGES)
    assert written() == before


# ---- what the prose says ----


def prose(name: str) -> str:
    return " ".join(cell["text"] for cell in cells(ROOT / "notebooks" / f"{name}.ipynb", "markdown"))


RESULT_BY_HAND = re.compile(
    r"published run|surviv"
    r"|\b(?!95 %|80 %)\d+ (?:%|per cent)"  # 95 % intervals and 80 % power belong to the method
    r"|\d points\b|\bp [=<]|\[[−-]?\d[\d.]*, [−-]?\d"
)


@pytest.mark.parametrize("name", ["03_crpo_training", "04_benchmark_evaluation"])
def test_results_of_notebooks_03_and_04_are_written_by_the_run(name):
    """Their prose asks; the numbers come from `findings`: `pairs`, `observed`, `training` and `endings`."""
    assert RESULT_BY_HAND.findall(prose(name)) == []
    shown = " ".join(cell["text"] for cell in cells(ROOT / "notebooks" / f"{name}.ipynb", "code"))
    title = prose(name).split("\n")[0].split(" · ")[1]
    assert f"## {title}" in prose(name)[200:] and "Markdown(endings." in shown, (
        "the title's question has no answer"
    )


def test_what_counts_as_a_result_by_hand():
    for text in (
        "none of the 27 differences survives",
        "it is 34 % there",
        "7 to 15 points",
        "+0.17 [0.10, 0.24]",
        "p < .05",
    ):
        assert RESULT_BY_HAND.search(text), text
    for text in (
        "with its 95 % interval",
        "finds with 80 % power",
        "G = 8, $A_i$, k = 10",
        "all 135 printed cells",
    ):
        assert not RESULT_BY_HAND.search(text), text


def test_notebook_05_holds_no_result_by_hand():
    """Its findings are made by its cells (`findings.laboratory`), so that another laboratory needs no edit of it."""
    name = "05_objective_tradeoffs"
    text = prose(name)
    assert not re.search(r"shipped summary|[Tt]hree seeds|no difference that|None is found|level from", text)
    plain = re.sub(r"\(https?:[^)]*\)|`[^`]*`|\bnotebooks? \d\d\b|\bNotebook \d\d\b|^# 05", "", text)
    designed = {  # the paper's k, equation 4, the citation's 0.5; level, interval and power; Beta(.5, .5), silence at 0
        *("10", "4", "0.5", ".05", "95", "80", ".5", "0"),
    }  # fmt: skip
    assert set(re.findall(r"(?<![\w.])\.?\d+(?:\.\d+)?", plain)) <= designed
    code = "\n".join(cell["text"] for cell in cells(ROOT / "notebooks" / f"{name}.ipynb", "code"))
    called = set(re.findall(r"findings\.(\w+)\(", code))
    assert called == set(findings.__all__) - {"k_sentence"}  # every finding is shown


def test_every_question_of_notebook_05_has_its_finding():
    """A question stands as a heading of the second level; the next cell of code shows the finding first."""
    asked = cells(ROOT / "notebooks" / "05_objective_tradeoffs.ipynb")
    for i, cell in enumerate(asked):
        if cell["cell_type"] == "markdown" and re.match(r"## .*\?\n", cell["text"]):
            following = [after["text"] for after in asked[i + 1 : i + 4] if after["cell_type"] == "code"]
            assert any("Markdown(findings." in text for text in following), cell["text"]
