"""Student and solution notebooks of the workshop, both from one master, and how long they take.

A master (notebooks/exercises/masters, py:percent) is the solution with marks. What stands between `# BEGIN SOLUTION` and
`# STUDENT` is the solution's alone; what follows up to `# END SOLUTION` is the student's, there without its comment marks.
A cell tagged "solution" is the solution's alone. Badge, set-up cell and disclaimer are added here.
"""

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

from clinical_r1.files import ROOT, PipelineError, replace_block, write_text
from clinical_r1.tables import markdown

FOLDER = ROOT / "notebooks" / "exercises"
SLOT = 90  # minutes; ten of them to open, to close, and for what goes wrong
PLANNED = {  # name -> minutes, 80 in all
    "01_collapse_by_hand": 10,
    "02_break_a_reward": 18,
    "03_write_an_aggregator": 14,
    "04_choose_k": 12,
    "05_read_a_front": 8,
    "06_spot_the_leak": 10,
    "07_calibrate_a_judge": 8,
}
EXTRAS = {  # name -> minutes, beyond the 80: if there is time, in place of another one, or at home
    "08_credit_turns": 12,
}
EXERCISES = PLANNED | EXTRAS

# ------------------------------------------------------------------------------------ notebooks from their masters
_REGION = re.compile(
    r"^# BEGIN SOLUTION\n(?P<solution>.*?)^# STUDENT\n(?P<student>.*?)^# END SOLUTION$\n?", re.M | re.S
)
SETUP_FROM = ROOT / "notebooks" / "02_reward_design.ipynb"  # its set-up cell serves here too
BADGE = (
    "[![Open In Colab](https://colab.research.google.com/assets/colab-badge.svg)]"
    "(https://colab.research.google.com/github/clinical-r1/clinical_r1/blob/main/notebooks/exercises/{path})"
)
DISCLAIMER = "*Everything clinical here is teaching material, not medical advice.*"


def cut(source: str, solved: bool) -> str:
    """One cell's source for the solution (solved) or the student. ValueError for a region that is not whole."""

    def chosen(match):
        if solved:
            return match["solution"]
        return "".join(re.sub(r"^# ?", "", line) for line in match["student"].splitlines(keepends=True))

    text = _REGION.sub(chosen, source + "\n").rstrip("\n")
    if left := re.search(r"^# (BEGIN SOLUTION|STUDENT|END SOLUTION)$", text, re.M):
        raise ValueError(
            f"a region is not whole at {left[0]!r}; expected # BEGIN SOLUTION, # STUDENT, # END SOLUTION, in this order."
        )
    return text


def make_notebook(name: str, solved: bool) -> str:
    """The text of one notebook, without outputs; the same master always gives the same bytes."""
    master = (FOLDER / "masters" / f"{name}.py").read_text(encoding="utf-8")
    path = f"solutions/{name}.ipynb" if solved else f"{name}.ipynb"
    (setup,) = [
        cell for cell in _cells(SETUP_FROM.read_text("utf-8")) if "setup" in cell["metadata"].get("tags", [])
    ]
    first, *rest = _percent_cells(master)
    title, _, words = first["source"].partition("\n")
    minutes = f"about {EXERCISES[name]} minutes" + (", an extra if there is time" if name in EXTRAS else "")
    kind = f"solution of exercise `{name}`" if solved else minutes
    opening = (
        f"{title}\n\n{BADGE.format(path=path)}\n\n*{kind[0].upper()}{kind[1:]}.*\n{words}\n\n{DISCLAIMER}"
    )
    cells = [first | {"source": opening}, setup | {"source": "".join(setup["source"])}]
    cells += [cell for cell in rest if solved or "solution" not in cell["metadata"].get("tags", [])]
    written = []
    for number, cell in enumerate(cells):
        source = cut(cell["source"], solved).splitlines(keepends=True)
        plain = {"cell_type": cell["cell_type"], "id": f"{name[:2]}-{number:02d}"}
        if cell["cell_type"] == "code":
            plain |= {"execution_count": None}
        plain |= {"metadata": dict(cell["metadata"])}
        if cell["cell_type"] == "code":
            plain |= {"outputs": []}
        written.append(plain | {"source": source})
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    metadata = {"kernelspec": kernel, "language_info": {"name": "python"}}
    notebook = {"cells": written, "metadata": metadata, "nbformat": 4, "nbformat_minor": 5}
    return json.dumps(notebook, indent=1, ensure_ascii=False) + "\n"


def _cells(text: str) -> list[dict]:
    return json.loads(text)["cells"]


def _percent_cells(text: str) -> list[dict]:
    try:
        import jupytext
    except ImportError as error:
        raise PipelineError(
            "building the exercises needs jupytext; install it: pip install jupytext."
        ) from error
    return [
        {"cell_type": cell.cell_type, "metadata": dict(cell.metadata), "source": cell.source}
        for cell in jupytext.reads(text, fmt="py:percent").cells
    ]


def generated() -> dict[Path, str]:
    """Path below FOLDER -> text, of every student and solution notebook."""
    notebooks = {Path(f"{name}.ipynb"): make_notebook(name, solved=False) for name in EXERCISES}
    return notebooks | {
        Path("solutions") / f"{name}.ipynb": make_notebook(name, solved=True) for name in EXERCISES
    }


def build(folder: Path = FOLDER) -> list[Path]:
    """Write every notebook; returns the paths."""
    return [write_text(folder / path, text) for path, text in generated().items()]


# --------------------------------------------------------------------------------------------------- running and timing
BEGIN, END = "<!-- times: generated -->", "<!-- /times -->"
NUMBERS = {1: "one CPU core", 2: "two CPU cores", 4: "four CPU cores", 8: "eight CPU cores"}


def run_cells(path: Path) -> tuple[dict, float]:
    """Run a notebook's code cells in this process, from top to bottom; the set-up cell is Colab's.

    Returns (its names, seconds of the cells tagged "check").
    """
    names, seconds = {"__name__": "__main__"}, 0.0
    for cell in _cells(path.read_text(encoding="utf-8")):
        if cell["cell_type"] == "code" and "setup" not in cell["metadata"].get("tags", []):
            start = time.perf_counter()
            exec(compile("".join(cell["source"]), f"{path.name}:{cell['id']}", "exec"), names)
            if "check" in cell["metadata"].get("tags", []):
                seconds += time.perf_counter() - start
    return names, seconds


def timings(runs: int = 3) -> list[list[str]]:
    """One row per exercise: name, planned minutes, slowest check and slowest whole notebook of `runs` fresh processes."""
    rows = []
    for name, minutes in EXERCISES.items():
        checks, wholes = [], []
        for _ in range(runs):
            start = time.perf_counter()
            run = subprocess.run(
                [sys.executable, "-m", "clinical_r1.workshop", "run", name],
                cwd=ROOT,
                capture_output=True,
                text=True,
            )
            if run.returncode:
                raise PipelineError(
                    f"the solution of {name} fails:\n{run.stdout[-2000:]}{run.stderr[-2000:]}"
                )
            wholes.append(time.perf_counter() - start)
            checks.append(float(run.stdout.rsplit(maxsplit=1)[-1]))
        rows.append([f"`{name}`", str(minutes), f"{max(checks):.3f}", f"{max(wholes):.1f}"])
    return rows


def write_timings(rows: list[list[str]], page: Path = FOLDER / "README.md") -> Path:
    """Put the table between the page's two markers. PipelineError where they are not there once each."""
    text = page.read_text(encoding="utf-8")
    table = markdown(["exercise", "minutes planned", "checks, seconds", "whole solution, seconds"], rows)
    machine = NUMBERS.get(os.cpu_count(), f"{os.cpu_count()} CPU cores")
    words = f"Measured on {machine}, the slowest of three runs, each in a fresh Python, imports included in the last column."
    try:
        return write_text(page, replace_block(text, BEGIN, END, f"{table}\n\n{words}"))
    except ValueError as error:
        raise PipelineError(f"{page.name}: {error}") from error
