"""docs/recipes.md: every Python block runs, every own file loads, every command parses."""

import json
import re
import shutil
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from pages import PAGES, blocks, page
from records import record

from clinical_r1 import extensions, intervals, metrics, paper, plots, tables
from clinical_r1.arms import ARMS, METHODS
from clinical_r1.artifacts import reward_set
from clinical_r1.clinic import load_set
from clinical_r1.engines.replay import AnswerFile, replayed_rows
from clinical_r1.files import PACKAGE, ROOT, write_jsonl
from clinical_r1.findings import pairs
from clinical_r1.questions import Question
from clinical_r1.settings import PROFILES

PYTHON = blocks(page("docs/recipes.md"), "python")
OWN_FILES = [block for block in PYTHON if block.startswith("# mine.py")]
SHELL = [(name, block) for name in PAGES for block in blocks(page(name), "bash")]
RIGHT = r"<dx> (System 1: Intuitive) a. (System 2: Analytical) fever supports B. </dx> <conclusion> {} \boxed{{B}} </conclusion>"


@pytest.fixture
def mine(tmp_path, monkeypatch):
    """A function that loads the own file of the page that holds a word, beside the files that the page speaks of."""
    monkeypatch.setenv(extensions.VARIABLE, "")
    rows = [
        {"question": f"Question {i}?", "choices": ["Gout", "Sepsis", "Lupus"], "answer": i % 3}
        for i in range(20)
    ]
    write_jsonl(tmp_path / "questions.jsonl", rows)
    write_jsonl(
        tmp_path / "answers.jsonl", [{"id": q.id, "text": "B"} for q in load_set("clinic", "test", 16)]
    )
    shutil.copytree(PACKAGE / "data" / "clinic_base", tmp_path / "my-model")

    def load(word):
        (text,) = [block for block in OWN_FILES if word in block]
        path = tmp_path / "mine.py"
        path.write_text(text, encoding="utf-8")
        return extensions.load(path)

    yield load
    extensions.unload()


def test_an_own_reward_becomes_an_arm(mine):
    own = mine("short_accuracy")
    assert [arm.name for arm in own.arms] == ["short_crpo", "short_crpo_k1"] and "short_crpo" in ARMS
    short = reward_set("short").functions[0]
    texts = [RIGHT.format("fever."), RIGHT.format("fever " * 40)]
    assert short(texts, answer=["B", "B"]) == [1.0, 0.5]
    assert short(texts, answer=["A", None]) == [0.0, None]
    settings = extensions.settings_for("smoke", own=own.path)
    assert {"crpo", "short_crpo", "short_crpo_k1"} <= set(
        settings.methods
    ) and settings.profile == "smoke-mine"


def test_own_questions_are_read(mine):
    mine("QUESTIONS")
    questions = extensions.questions_of("ward_round", "test")
    assert [question.answer for question in questions] == ["ABC"[i % 3] for i in range(20)]
    assert "ward_round" in extensions.settings_for("smoke", own=mine("QUESTIONS").path).benchmarks


def test_an_own_base_model_is_taken(mine, tmp_path):
    settings = extensions.settings_for("smoke", own=mine("BASE_MODEL").path)
    assert settings.base_model == str((tmp_path / "my-model").resolve()) and settings.max_prompt_tokens == 512


def test_answers_of_another_model_stand_under_its_own_name(mine, tmp_path):
    own = mine("gpt-4-32k")
    assert own.answers == {"gpt-4-32k": {"clinic": AnswerFile(tmp_path.resolve() / "answers.jsonl")}}
    assert extensions.settings_for("smoke", own=own.path).outside == (("gpt-4-32k", "clinic"),)


def test_answers_of_any_schema_are_told_field_by_field(mine, tmp_path):
    write_jsonl(tmp_path / "medqa.jsonl", [{"qid": "test_0000", "response": "the answer is C.", "key": "C"}])
    own = mine("another-model")
    assert extensions.settings_for("smoke", own=own.path).outside == (("another-model", "medqa"),)
    options = {"A": "Gout", "B": "Lupus", "C": "Sepsis"}
    asked = Question("medqa-test-0000", "medqa", "test", "A red knee.", options, "C", {})
    source = own.answers["another-model"]["medqa"]
    (row,) = replayed_rows(source, [asked])
    assert source.read(row["text"], "crpo", options).letter == "C"
    with pytest.raises(
        ValueError, match="has the right answer 'C' for 'medqa-test-0000', which has 'A' here"
    ):
        replayed_rows(source, [replace(asked, answer="A")])


def test_servers_are_asked_for_the_benchmarks_of_the_run(mine):
    own = mine("SERVERS")
    settings = extensions.settings_for("smoke", own=own.path)
    assert ("gpt-4o", "clinic-expert") in settings.outside and (
        "served-here",
        "clinic-expert",
    ) not in settings.outside
    assert own.servers["o-mini"].sampling(settings, "sampled") == {
        "temperature": None,
        "top_p": None,
        "max_tokens": 8000,
    }


def handmade_scores(benchmark="clinic"):
    """Twelve questions, two seeds of the five methods, and one outside model that is right where CRPO's first seed is not."""
    ids = [f"q{i:02d}" for i in range(12)]
    rows = [
        record(
            q, method=method, seed=seed, correct=i % 3 > 0, letter="A" if i % 3 else "B", benchmark=benchmark
        )
        for method in METHODS
        for seed in (0, 1)
        for i, q in enumerate(ids)
    ]
    rows += [record(q, method="gpt-4-32k", benchmark=benchmark, letter="A", tokens=None) for q in ids]
    return pd.DataFrame(rows)


def test_answers_of_another_model_are_compared_by_the_notebook(mine, tmp_path):
    """The cell of notebook 04, on scores made by hand: beside every seed, and into comparisons.csv and figure 4."""
    settings = extensions.settings_for("smoke", out=str(tmp_path), own=mine("gpt-4-32k").path)
    settings = replace(settings, seeds=(0, 1))
    cells = json.loads((ROOT / "notebooks" / "04_benchmark_evaluation.ipynb").read_text())["cells"]
    (cell,) = [source for c in cells if "settings.outside" in (source := "".join(c["source"]))]
    scores, shown = handmade_scores(), []
    names = {
        "display": lambda *what: shown.extend(what),
        "Markdown": str,
        "pairs": pairs,
        "settings": settings,
        "sampled": scores,
        "measured": ["drc"],
        "METHODS": METHODS,
        "np": np,
        "metrics": metrics,
        "tables": tables,
        "ARMS": ARMS,
    }
    exec(cell, names)
    assert list(names["own"]) == ["gpt-4-32k against CRPO, clinic"]
    assert shown[0].startswith("### gpt-4-32k ") and "CRPO" in shown[0]
    tables.write_comparisons(settings, names["own"])
    written = pd.read_csv(settings.figures_dir / "comparisons.csv")
    assert len(written) == 1
    row = written.iloc[0]
    assert (row["method"], row["against"], row["benchmark"], row["metric"]) == (
        "gpt-4-32k",
        "crpo",
        "clinic",
        "accuracy",
    )
    assert row["difference"] == pytest.approx(100 * 4 / 12, abs=1e-3)
    assert row["p_holm"] == 0.125  # four against none: the sign test binds
    assert (row["test"], row["n"], row["seeds"]) == (intervals.QUESTIONS_AND_SEEDS, 12, 2)
    assert row["ci_low"] <= 0 < row["ci_high"] <= 100
    summary = metrics.summarise(scores)
    table = tables.table1(summary, paper.table1(), paper.STANDS_FOR)
    own = table[(table["method"] == "gpt-4-32k") & (table["metric"] == "accuracy")].iloc[0]
    assert (own["value"], own["n"], own["seeds"], own["verdict"]) == (100, 12, 1, "no printed value")
    assert own["ci_low"] < 100 == own["ci_high"]
    assert "gpt-4-32k" in [text.get_text() for text in plots.fig4_accuracy(table).get_legend().get_texts()]


def test_an_outside_model_that_answers_part_of_the_questions_is_not_compared(mine):
    scores = handmade_scores()
    part = scores[(scores["method"] != "gpt-4-32k") | (scores["id"] < "q08")]
    with pytest.raises(ValueError, match="gpt-4-32k seed 0 answers 8 questions and .* 12"):
        metrics.compare(part[part["seed"] == 0], "gpt-4-32k", "crpo", ["accuracy"])
    with pytest.raises(ValueError, match="12 responses of seeds 0 and crpo has 24 responses of seeds 0, 1"):
        metrics.compare(scores, "gpt-4-32k", "crpo", ["accuracy"])


@pytest.mark.parametrize("name", ["p", "test", "difference"])
def test_a_model_named_like_a_column_is_refused_by_name(name):
    scores = handmade_scores().replace({"method": {"gpt-4-32k": name}})
    with pytest.raises(ValueError, match=f"a method is called {name!r}, like a column"):
        metrics.compare(scores[scores["seed"] == 0], name, "crpo", ["accuracy"])


def test_every_own_file_of_the_page_was_loaded_above():
    assert len(OWN_FILES) == 6


@pytest.mark.parametrize("number", range(len(PYTHON)))
def test_every_python_block_runs(number, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    if PYTHON[number] not in OWN_FILES:
        exec(compile(PYTHON[number], f"recipe {number}", "exec"), {"__name__": "recipe"})


def test_settings_for_several_processes_survive_the_file(tmp_path, monkeypatch):
    from clinical_r1.settings import settings_for, settings_from_json

    monkeypatch.chdir(tmp_path)
    exec(next(block for block in PYTHON if "settings.json" in block), {})
    assert settings_from_json(json.loads((tmp_path / "settings.json").read_text())) == settings_for("paper")


@pytest.mark.parametrize("name", [name for name in PAGES if name not in ("docs/recipes.md", "docs/speed.md")])
def test_python_of_the_other_pages_runs(name):
    for block in blocks(page(name), "python"):
        exec(compile(block, name, "exec"), {"__name__": "page"})


def test_the_trainer_of_the_speed_page_can_be_made():
    namespace = {"__name__": "page"}
    exec(blocks(page("docs/speed.md"), "python")[0], namespace)
    names = [parent.__name__ for parent in namespace["FastGRPOTrainer"].__mro__]
    assert names.index("SharedPrefixMixin") < names.index("SharedPrefillMixin") < names.index("GRPOTrainer")


@pytest.mark.parametrize("name, block", SHELL, ids=[f"{name}-{i}" for i, (name, _) in enumerate(SHELL)])
def test_shell_blocks_are_shell(name, block):
    run = subprocess.run(["bash", "-n"], input=block, text=True, capture_output=True)
    assert run.returncode == 0, f"{name}: {run.stderr}"


def commands():
    """(module, subcommand or "", flags) of every `python -m clinical_r1…` and `./reproduce.sh …` on the pages."""
    found = set()
    for name in PAGES:
        for module, rest in re.findall(
            r"(?:-m (clinical_r1[\w.]*)|\./reproduce\.sh)((?: [^\n`#|]*)?)", page(name)
        ):
            words = rest.split()
            sub = words[0] if words and re.fullmatch(r"[a-z]+", words[0]) else ""
            flags = tuple(word for word in words if re.fullmatch(r"--[a-z-]+", word))
            if sub != "test":  # what follows goes to pytest
                found.add((module or "clinical_r1.pipeline", sub, flags))
    return sorted(found)


@pytest.mark.parametrize("module, sub, flags", commands())
def test_every_command_on_the_pages_exists_with_its_options(module, sub, flags):
    alone = ("clinical_r1.train", "clinical_r1.workshop", "clinical_r1.preferences")  # without subcommands
    command = [] if module in alone else [sub or "run"]
    if module == "clinical_r1.pipeline" and sub in PROFILES:
        command = ["run"]
    argv = [sys.executable, "-m", module, *command, "--help"]
    run = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert not [flag for flag in flags if flag not in run.stdout]
