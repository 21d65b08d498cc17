"""The workshop's notebooks: equal to their masters, solutions pass, unanswered ones run, eighty minutes are planned.

python -m pytest tests/workshop/test_exercises.py
"""

import ast
import json
import re
import subprocess
import sys

import pytest

from clinical_r1.clinic.cases import DATA_SEED, load_set
from clinical_r1.files import PipelineError
from clinical_r1.workshop import break_reward, choose_k, judge, leak, notebooks
from clinical_r1.workshop.notebooks import EXERCISES, EXTRAS, FOLDER, PLANNED, SLOT, run_cells

each_exercise = pytest.mark.parametrize("name", EXERCISES)


# ---- notebooks from masters ----


def test_committed_notebooks_are_what_the_masters_give():
    stale = [
        str(path)
        for path, text in notebooks.generated().items()
        if not (FOLDER / path).exists() or (FOLDER / path).read_text(encoding="utf-8") != text
    ]
    assert stale == [], "run: python -m clinical_r1.workshop build"


def test_no_notebook_or_master_stands_without_its_exercise():
    assert {path.stem for path in (FOLDER / "masters").glob("*.py")} == set(EXERCISES)
    made = {
        path.relative_to(FOLDER) for path in FOLDER.rglob("*.ipynb") if ".ipynb_checkpoints" not in path.parts
    }
    assert made == set(notebooks.generated())


def test_a_region_is_the_solutions_or_the_students():
    source = "a = 1\n# BEGIN SOLUTION\nb = 2\n# STUDENT\n# # Hint: two.\n# b = None\n#\n# END SOLUTION\nc = 3"
    assert notebooks.cut(source, solved=True) == "a = 1\nb = 2\nc = 3"
    assert notebooks.cut(source, solved=False) == "a = 1\n# Hint: two.\nb = None\n\nc = 3"
    with pytest.raises(ValueError, match="not whole at '# BEGIN SOLUTION'"):
        notebooks.cut("# BEGIN SOLUTION\nb = 2\n# STUDENT", solved=False)


@each_exercise
def test_student_notebook_gives_no_solution_away(name):
    student = notebooks.make_notebook(name, solved=False)
    assert "END SOLUTION" not in student and '"solution"' not in student
    master = (FOLDER / "masters" / f"{name}.py").read_text(encoding="utf-8")
    regions = re.findall(r"^# BEGIN SOLUTION\n(.*?)^# STUDENT$", master, re.M | re.S)
    assert regions
    written = "".join("".join(cell["source"]) for cell in json.loads(student)["cells"])
    for line in "".join(regions).splitlines():
        if len(line.strip()) > 25 and not line.strip().startswith(("def ", "for ", '"""')):
            assert line.strip() not in written, line


@each_exercise
def test_notebook_is_fit_for_colab_and_says_what_it_is(name):
    for path in (f"{name}.ipynb", f"solutions/{name}.ipynb"):
        cells = json.loads((FOLDER / path).read_text(encoding="utf-8"))["cells"]
        opening = "".join(cells[0]["source"])
        assert f"/blob/main/notebooks/exercises/{path})" in opening
        assert "not medical advice" in opening
        assert cells[1]["metadata"] == {"tags": ["setup"]} and "google.colab" in "".join(cells[1]["source"])
        assert all(cell["outputs"] == [] for cell in cells if cell["cell_type"] == "code")
        assert len({cell["id"] for cell in cells}) == len(cells)


@each_exercise
def test_master_has_few_lines_a_cell(name):
    """Mathematics lives in the package; a solution may hold one function."""
    notebook = json.loads(notebooks.make_notebook(name, solved=False))
    code = [
        cell for cell in notebook["cells"] if cell["cell_type"] == "code" and not cell["metadata"].get("tags")
    ]
    assert max(len(cell["source"]) for cell in code) <= 20


# ---- running them ----


@pytest.fixture(autouse=True)
def closed_figures():
    yield
    if "matplotlib.pyplot" in sys.modules:
        sys.modules["matplotlib.pyplot"].close("all")


@each_exercise
def test_unanswered_notebook_runs_and_says_what_is_missing(name, capsys):
    names, _ = run_cells(FOLDER / f"{name}.ipynb")
    assert names["passed"] is False
    assert "not there yet" in capsys.readouterr().out


@each_exercise
def test_solution_passes_every_check_in_less_than_a_minute(name, capsys):
    names, seconds = run_cells(FOLDER / "solutions" / f"{name}.ipynb")
    assert names["passed"] is True, capsys.readouterr().out
    assert 0 < seconds < 60


def test_checks_are_light_to_import():
    code = "import sys, clinical_r1.workshop; print({'torch', 'transformers', 'trl'} & set(sys.modules))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=notebooks.ROOT)
    assert run.stdout.strip() == "set()", run.stderr


OF_CASES = {
    "02_break_a_reward": break_reward,
    "04_choose_k": choose_k,
    "06_spot_the_leak": leak,
    "07_calibrate_a_judge": judge,
}
CACHED = (
    break_reward.attack_question,
    break_reward._unseen_questions,
    choose_k._candidates,
    leak.leaking_splits,
    leak._miscounts,
    judge.judged_methods,
    judge._orders,
)


@pytest.fixture
def other_cases(monkeypatch):
    """The same sets, drawn anew, as a new knowledge base would draw them."""

    def drawn_anew(name, split, n=None):
        return load_set(name, split, n, seed=DATA_SEED + 1)

    for module in OF_CASES.values():
        monkeypatch.setattr(module, "load_set", drawn_anew)
    for function in CACHED:
        function.cache_clear()
    yield
    for function in CACHED:
        function.cache_clear()


@pytest.mark.parametrize("name", OF_CASES)
def test_solution_passes_on_other_cases(name, other_cases, capsys):
    before = load_set("clinic", "validation", 3)
    assert OF_CASES[name].load_set("clinic", "validation", 3)[0].stem != before[0].stem
    names, _ = run_cells(FOLDER / "solutions" / f"{name}.ipynb")
    assert names["passed"] is True, capsys.readouterr().out


# ---- the instructor's page ----


def test_eighty_minutes_are_planned_and_ten_left():
    assert sum(PLANNED.values()) == SLOT - 10 == 80


@pytest.mark.parametrize("name", EXTRAS)
def test_an_extra_says_that_it_is_one(name):
    """It does not fit into the eighty minutes: whoever opens it, and whoever teaches, is told."""
    assert name not in PLANNED and PLANNED | EXTRAS == EXERCISES
    opening = json.loads(notebooks.make_notebook(name, solved=False))["cells"][0]["source"]
    assert f"*About {EXTRAS[name]} minutes, an extra if there is time.*\n" in opening
    page = (FOLDER / "README.md").read_text(encoding="utf-8")
    assert f"**{int(name[:2])}** is an extra of {EXTRAS[name]} minutes" in page
    same = [int(other[:2]) for other, minutes in PLANNED.items() if minutes == EXTRAS[name]]
    assert f"in place of {same[0]}, which takes as long" in page


def test_the_instructors_page_plans_the_same_minutes():
    page = (FOLDER / "README.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (\d+) \| (\d+) \| (?:\*\*(\d)\*\*)?", page, re.M)
    spans = {int(number): int(end) - int(start) for start, end, number in rows if number}
    assert spans == {int(name[:2]): minutes for name, minutes in PLANNED.items()}
    assert all(before[1] == after[0] for before, after in zip(rows, rows[1:], strict=False))
    assert (rows[0][0], rows[-1][1]) == ("0", str(SLOT))


def test_times_go_between_the_markers(tmp_path):
    page = tmp_path / "README.md"
    page.write_text(f"before\n{notebooks.BEGIN}\nold\n{notebooks.END}\nafter\n", encoding="utf-8")
    notebooks.write_timings([["`one`", "10", "0.10", "2.0"]], page)
    text = page.read_text(encoding="utf-8")
    assert "| `one` | 10 | 0.10 | 2.0 |" in text and "old" not in text
    assert text.startswith("before\n") and text.endswith("\nafter\n")
    page.write_text("no markers", encoding="utf-8")
    with pytest.raises(PipelineError, match="once each"):
        notebooks.write_timings([], page)


def test_instructors_page_has_measured_times_and_every_exercise():
    text = (FOLDER / "README.md").read_text(encoding="utf-8")
    table = text.split(notebooks.BEGIN)[1].split(notebooks.END)[0]
    rows = re.findall(r"^\| `(\w+)` \| (\d+) \| ([\d.]+) \| ([\d.]+) \|$", table, re.M)
    assert {name: int(minutes) for name, minutes, _, _ in rows} == EXERCISES
    assert all(float(check) < 60 and float(whole) < 60 for _, _, check, whole in rows)
    for number in range(1, len(EXERCISES) + 1):
        assert f"### {number} · " in text


@pytest.mark.slow
def test_run_prints_the_seconds_of_the_checks():
    command = [sys.executable, "-m", "clinical_r1.workshop", "run", "05_read_a_front"]
    run = subprocess.run(command, cwd=notebooks.ROOT, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert 0 < ast.literal_eval(run.stdout.split()[-1]) < 60
