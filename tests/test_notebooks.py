"""The notebooks: fit to be read on the web, fit for Colab, and the whole pipeline at smoke scale.

python -m pytest tests/test_notebooks.py                  (minutes)
python -m pytest tests/test_notebooks.py -m "not slow"    (a second)
"""

import ast
import csv
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from packaging.requirements import Requirement

from clinical_r1 import paper
from clinical_r1.arms import METHODS
from clinical_r1.files import ROOT
from clinical_r1.labels import CLINIC_BENCHMARKS
from clinical_r1.pipeline import __main__ as command
from clinical_r1.pipeline import stages

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
def test_no_path_of_one_machine(path):
    assert MACHINE_PATH.findall(path.read_text(encoding="utf-8")) == []


# ---- on Colab ----


def colab_requirements(path: Path) -> list[Requirement]:
    """What a notebook's Colab set-up cell gives pip: the strings after "install" in that call."""
    (cell,) = [cell for cell in cells(path, "code") if "google.colab" in cell["text"]]
    found = []
    for call in (node for node in ast.walk(ast.parse(cell["text"])) if isinstance(node, ast.Call)):
        strings = [leaf.value for leaf in ast.walk(call) if isinstance(leaf, ast.Constant)]
        if "install" in strings:
            given = strings[strings.index("install") + 1 :]
            found += [Requirement(text) for text in given if isinstance(text, str) and text[0] != "-"]
            break
    assert found, "the set-up cell must call pip as a list of strings: [..., 'pip', 'install', 'trl==…', …]"
    return found


@each_notebook
def test_colab_cell_leaves_colabs_packages_alone(path):
    names = {requirement.name for requirement in colab_requirements(path)}
    assert {"trl", "datasets", "clinical_r1"} <= {name.replace("-", "_") for name in names}
    assert not names & {"torch", "transformers", "numpy"}


@each_notebook
@pytest.mark.parametrize("old_pyarrow", [False, True])
def test_colab_cell_puts_results_where_the_file_pane_shows_them(
    path, old_pyarrow, tmp_path, monkeypatch, capsys
):
    """On Colab a notebook runs in /content, where out = ".." would be the root of the machine."""
    setup = next(cell["text"] for cell in cells(path, "code") if "google.colab" in cell["text"])
    (parameters,) = [
        cell["text"] for cell in cells(path, "code") if "parameters" in cell["metadata"].get("tags", [])
    ]
    calls = []
    monkeypatch.setitem(sys.modules, "google.colab", object())
    monkeypatch.setattr(subprocess, "run", lambda command, check: calls.append(command[1:4]))
    monkeypatch.setattr(os, "kill", lambda *_: calls.append("restart"))
    monkeypatch.setattr(time, "sleep", lambda _: None)
    if old_pyarrow:
        monkeypatch.setitem(sys.modules, "pyarrow", object())
    else:
        monkeypatch.delitem(sys.modules, "pyarrow", raising=False)
    monkeypatch.chdir(tmp_path)
    names = {}
    exec(setup.replace("/content", str(tmp_path)), names)
    exec(parameters, names)
    assert Path(names["out"]).resolve() == tmp_path / "clinical_r1"
    assert calls == [["-m", "pip", "install"]] + ["restart"] * old_pyarrow
    assert ("Choose Run all again" in capsys.readouterr().out) == old_pyarrow


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


# ---- what the prose says of the published run ----


def prose(name: str) -> str:
    return " ".join(cell["text"] for cell in cells(ROOT / "notebooks" / f"{name}.ipynb", "markdown"))


def test_answers_of_notebook_04_are_those_of_the_published_table(published):
    rows = pd.read_csv(published / "comparisons.csv")
    found = {name: rows[rows["comparison"] == name] for name in rows["comparison"].unique()}
    survives = {name: frame[frame["p_holm"] < 0.05] for name, frame in found.items()}
    text = prose("04_benchmark_evaluation")
    assert set(rows["seeds"]) == {3} and text.count("published run (three seeds)") == 3

    baseline = survives["cold start and CRPO against baseline"]
    assert set(baseline["benchmark"]) == {"clinic", "clinic-shift"} and (baseline["difference"] > 0).all()
    assert "yes on the two sets with four options; on `clinic-expert` no gain is found" in text

    accuracy = found["CRPO against GRPO"]
    assert survives["CRPO against GRPO"].empty and "no difference is found on any of the three sets" in text
    assert "Differences of 7 to 15 points would have been" in text
    assert (int(accuracy["mde"].min()), round(accuracy["mde"].max())) == (7, 15)

    assert survives["CRPO against GRPO, all measures"].empty
    assert (
        len(found["CRPO against GRPO, all measures"]) == 27 and "none of the 27 differences survives" in text
    )
    cold = survives["after a cold start, all measures"]
    worse = cold["difference"].where(cold["metric"] == "hallucination", -cold["difference"])
    assert len(cold) == 6 and (worse > 0).all() and "six do, all of them against CRPO" in text


def test_answers_of_notebook_05_are_those_of_the_published_tables(published):
    table = (
        pd.read_csv(published / "tradeoffs_ablations.csv").set_index(["family", "arm", "metric"]).sort_index()
    )
    survives = table[table["p_holm"] < 0.05]

    def moved(family, arm):
        return {
            key[2]: int(np.sign(row["difference"]))
            for key, row in survives.iterrows()
            if key[:2] == (family, arm)
        }

    text = prose("05_objective_tradeoffs")
    lower = {"faithfulness": -1, "drc": -1, "hallucination": -1}
    assert all("accuracy" not in moved("k", arm) for arm in ("k1", "k3", "k30"))
    assert "it is level from $k = 1$ to 30" in text
    tokens = pd.read_csv(published / "tradeoffs_k.csv").query("metric == 'tokens'").set_index("k")["value"]
    assert (
        f"in {tokens[1]:.0f} tokens and states little" in text
        and f"at 10 it takes {tokens[10]:.0f} tokens" in text
    )

    assert not {"terms", "citation", "kl"} & {family for family, *_ in survives.index}
    assert "the citation bonus or the KL penalty makes no difference that three seeds can find" in text
    assert moved("group_size", "g2") == lower and "Groups of two say less, true or false" in text
    assert moved("consistency", "gated_consistency")["faithfulness"] == -1 and "costs true claims" in text
    assert moved("grounded", "grounded") == {"hallucination": 1} and "make more false claims" in text

    assert moved("aggregator", "constrained") == lower
    for arm in ("gdpo", "mo_grpo"):
        assert moved("aggregator", arm) == {"hallucination": -1}
        assert (table.loc[("aggregator", arm)].loc[list(lower), "difference"] < 0).all()
    assert "fewer false claims and, on average, fewer of any kind" in text

    fronts = pd.read_csv(published / "tradeoffs_hypervolume.csv").query("kind == 'front'").set_index("family")
    arms = pd.read_csv(published / "tradeoffs_hypervolume.csv").query("kind == 'arm'").set_index("name")
    cold = arms.loc[["cold_start_grpo", "cold_start_crpo"], "share"]
    assert 0.19 < cold.min() and cold.max() < 0.25 and "cover a fifth to a quarter" in text
    others = fronts["share"].drop(["main", "cold_start", "grounded"])
    assert others.between(0.045, 0.065).all() and "every other family a twentieth" in text
