"""reproduce.sh with a Python that only says how it was called: from where, through what, and what Ctrl-C leaves.

python -m pytest tests/pipeline/test_shell.py
"""

import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import psutil
import pytest

from clinical_r1.files import ROOT

# A Python of version 3.11 that makes environments, and installs with a pip that never ends where $SLOW is set
PYTHON = r"""#!/bin/sh
case "$*" in
    -c*) echo True ;;
    *" venv "*) for last; do :; done; mkdir -p "$last/bin"; cp "$0" "$last/bin/python" ;;
    *" pip "*)
        printf '%s\n' "$@" > "$FOLDER/pip"
        trap 'echo "Traceback (most recent call last):" >&2; exit 2' INT
        if [ -n "${SLOW:-}" ]; then sleep 300 & echo $! > "$FOLDER/sleeper"; wait; fi ;;
    *) printf 'cwd %s\npath %s\ndata %s\n' "$(pwd -P)" "$PYTHONPATH" "${CLINICAL_R1_DATA:-}"
        printf 'models %s\n' "${CLINICAL_R1_MODELS:-}"; printf 'arg %s\n' "$@" ;;
esac
"""


class Clone:
    """A clone in a folder with a space, and a caller's folder beside it."""

    def __init__(self, folder: Path):
        self.root, self.caller, self.tools = folder / "the clone", folder / "my work", folder / "tools"
        for path in (self.root, self.caller, self.tools):
            path.mkdir()
        for name in ("reproduce.sh", "environment.yml"):
            shutil.copy(ROOT / name, self.root / name)
        (self.tools / "python3.11").write_text(PYTHON)
        (self.tools / "python3.11").chmod(0o755)
        self.environment = {"PATH": f"{self.tools}:/usr/bin:/bin", "FOLDER": str(folder)}
        self.folder = folder

    def start(self, *command, cwd=None, **environment):
        return subprocess.Popen(
            [str(part) for part in command or (self.root / "reproduce.sh",)],
            cwd=cwd or self.caller,
            env=self.environment | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,  # a process group of its own, as a terminal gives one
        )

    def __call__(self, *command, **keywords):
        """(status, standard output, standard error)"""
        process = self.start(*command, **keywords)
        out, error = process.communicate(timeout=60)
        return process.returncode, out, error


@pytest.fixture
def clone(tmp_path):
    return Clone(tmp_path)


@pytest.fixture
def as_it_is(clone):
    clone.environment["CLINICAL_R1_PYTHON"] = "python3.11"
    return clone


def called(out):
    """What the stand-in for Python says of its call."""
    pairs = [line.split(" ", 1) for line in out.splitlines()]
    return dict(pairs) | {"args": [value for name, value in pairs if name == "arg"]}


def test_arguments_are_those_of_the_callers_folder_however_it_is_called(as_it_is):
    """Directly, through links, from the PATH, with sh, and with a CDPATH that knows another folder of that name."""
    clone, script = as_it_is, as_it_is.root / "reproduce.sh"
    (clone.folder / "elsewhere" / "the clone").mkdir(parents=True)
    (clone.tools / "first").symlink_to(script)
    (clone.caller / "second").symlink_to("../tools/first")
    (clone.tools / "again").symlink_to(script)
    for cwd, command in (
        (clone.caller, (script,)),
        (clone.caller, ("../the clone/reproduce.sh",)),
        (clone.folder, ("the clone/reproduce.sh",)),
        (clone.caller, ("./second",)),
        (clone.caller, ("again",)),
        (clone.caller, ("sh", script)),
        (clone.root, ("./reproduce.sh",)),
        (clone.root, ("bash", "reproduce.sh")),
    ):
        status, out, error = clone(
            *command, "smoke", "--out", "here it is", cwd=cwd, CDPATH=f"{clone.folder}/elsewhere"
        )
        assert (status, error) == (0, ""), command
        said = called(out)
        assert said["cwd"] == str(cwd) and said["path"] == str(clone.root), command
        assert said["args"] == ["-P", "-m", "clinical_r1.pipeline", "smoke", "--out", "here it is"], command


def test_relative_variables_are_those_of_the_callers_folder_too(as_it_is):
    shutil.copy(as_it_is.tools / "python3.11", as_it_is.caller / "mine")
    relative = {"CLINICAL_R1_PYTHON": "./mine", "CLINICAL_R1_DATA": "my data", "CLINICAL_R1_MODELS": "../m"}
    _, out, _ = as_it_is(PYTHONPATH="/also", **relative)
    assert called(out)["data"] == f"{as_it_is.caller}/my data"
    assert called(out)["models"] == f"{as_it_is.caller}/../m"
    assert called(out)["path"] == f"{as_it_is.root}:/also"
    _, out, _ = as_it_is(as_it_is.root / "reproduce.sh", "test", "-x", **relative)
    assert called(out)["cwd"] == str(as_it_is.root), "pytest's arguments are files of the clone"
    assert called(out)["data"] == f"{as_it_is.caller}/my data"


@pytest.mark.parametrize("program", ["nothing", "true", "false", "/", "cat"])
def test_what_is_no_python_is_said(clone, program):
    status, out, error = clone(CLINICAL_R1_PYTHON=program)
    assert status == 1 and out == ""
    assert (
        error.startswith(f"reproduce: CLINICAL_R1_PYTHON={program} is no ") and len(error.splitlines()) == 1
    )


def test_an_environment_is_made_once_with_nothing_taken_from_the_callers_folder(clone):
    (clone.caller / "environment.yml").write_text("wrong")
    status, out, error = clone(CLINICAL_R1_PIP_ARGS="--index-url somewhere")
    assert status == 0 and "the environment is ready" in error and called(out)["cwd"] == str(clone.caller)
    given = (clone.folder / "pip").read_text().splitlines()
    assert given[-2:] == ["-e", str(clone.root)] and "--index-url" in given
    assert "trl" in (clone.root / ".venv" / "requirements.txt").read_text()
    assert clone()[2] == ""
    assert not (clone.root / ".venv.lock").is_symlink()
    assert [path.name for path in clone.caller.iterdir()] == ["environment.yml"]


def wait_for(path: Path):
    while not (path.is_file() and path.read_text().strip()):
        time.sleep(0.02)
    return path.read_text().strip()


@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)]
)
def test_an_interrupt_while_the_environment_is_made_is_one_sentence_and_leaves_no_child(
    clone, number, status
):
    process = clone.start(SLOW="1")
    sleeper = wait_for(clone.folder / "sleeper")
    os.killpg(process.pid, number)  # what Ctrl-C does
    _, error = process.communicate(timeout=60)
    assert process.returncode == status
    making, said = error.strip().splitlines()
    assert making.startswith("reproduce: making .venv") and said.startswith(
        "reproduce: interrupted; run the same command"
    )
    assert not running(sleeper) and not (clone.root / ".venv.lock").is_symlink()
    assert "the environment is ready" in clone()[2], "the same command makes it anew"


def running(number: str) -> bool:
    try:
        return psutil.Process(int(number)).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_two_commands_do_not_make_one_environment(clone):
    first = clone.start(SLOW="1")
    wait_for(clone.folder / "sleeper")
    status, _, error = clone()
    assert status == 1 and f"process {first.pid} is making .venv" in error
    first.kill()  # leaves its lock
    os.kill(int(wait_for(clone.folder / "sleeper")), signal.SIGKILL)
    first.communicate()
    assert (clone.root / ".venv.lock").is_symlink()
    assert "the environment is ready" in clone()[2]


def test_a_failing_installation_is_said_and_tried_again(clone):
    broken = clone.tools / "python3.11"
    broken.write_text(PYTHON.replace("trap ", "echo 'no matching distribution' >&2; exit 1; trap "))
    status, out, error = clone()
    assert status == 1 and out == "" and "no matching distribution" in error
    assert "reproduce: pip could not install the packages (its message is above)" in error
    broken.write_text(PYTHON)
    assert "the environment is ready" in clone()[2]
