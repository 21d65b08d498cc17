"""docs/recipes.md: every Python block runs, every own file loads, every command parses."""

import json
import re
import shutil
import subprocess
import sys

import pytest
from pages import PAGES, blocks, page

from clinical_r1 import extensions
from clinical_r1.arms import ARMS
from clinical_r1.artifacts import reward_set
from clinical_r1.clinic import load_set
from clinical_r1.files import PACKAGE, ROOT, write_jsonl
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
    own = mine("ANSWERS")
    assert own.answers == {"gpt-4-32k": {"clinic": tmp_path.resolve() / "answers.jsonl"}}
    assert extensions.settings_for("smoke", own=own.path).outside == (("gpt-4-32k", "clinic"),)


def test_every_own_file_of_the_page_was_loaded_above():
    assert len(OWN_FILES) == 4


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
    command = [] if module in ("clinical_r1.train", "clinical_r1.workshop") else [sub or "run"]
    if module == "clinical_r1.pipeline" and sub in PROFILES:
        command = ["run"]
    argv = [sys.executable, "-m", module, *command, "--help"]
    run = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert not [flag for flag in flags if flag not in run.stdout]
