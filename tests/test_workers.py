"""Jobs shared out among child processes: each is done once, a child that fails is named, none outlives its parent.

Run: pytest tests/test_workers.py
"""

import json
import subprocess
import sys
import time

import pytest

from clinical_r1.files import read_json
from clinical_r1.workers import PARENT_GONE, PROGRESS, Jobs, in_children, watched

CHILD = """
import os, sys, time
from pathlib import Path
from clinical_r1.workers import given_jobs

for name, number, what in given_jobs():
    print(f"{name} {number} {what}")
    if what == "fails":
        raise ValueError("no such thing")
    if what == "ends":
        os._exit(0)
    if what == "killed":
        os.kill(os.getpid(), 9)
    if what == "waits":
        Path(sys.argv[1], "waiting").write_text(str(os.getpid()))
        time.sleep(600)
    with open(Path(sys.argv[1], f"{name}.{number}.{what}"), "a") as file:
        file.write("x")
"""


@pytest.fixture
def share(tmp_path, monkeypatch):
    """`in_children` of a child that touches a file for each job."""
    (tmp_path / "its_child.py").write_text(CHILD)
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{':'.join(filter(None, sys.path))}")
    monkeypatch.chdir(tmp_path)
    return lambda jobs, count=2: in_children("its_child", [str(tmp_path)], jobs, count, 1, tmp_path / "logs")


def test_every_job_is_done_once_and_what_was_said_is_heard(share, tmp_path, capsys):
    jobs = [(name, number, what) for name in ("a", "b") for number in (0, 1) for what in "xyz"]
    share(jobs)
    done = {path.name: path.read_text() for path in tmp_path.glob("*.*.[xyz]")}
    assert done == {f"{name}.{number}.{what}": "x" for name, number, what in jobs}
    assert sorted(capsys.readouterr().err.splitlines()) == sorted(f"{a} {b} {c}" for a, b, c in jobs)
    share(jobs[:1], 1)
    assert capsys.readouterr().err.splitlines() == ["a 0 x"], "what an earlier run has said is not said again"


def test_a_child_that_fails_is_named_with_its_last_words_and_the_others_end(share, tmp_path):
    begin = time.monotonic()
    with pytest.raises(
        RuntimeError, match=r"exit status 1 \(ValueError: no such thing\); see .*worker\d.log"
    ):
        share([("a", 0, "waits"), ("b", 0, "fails"), ("a", 0, "x")])
    assert time.monotonic() - begin < 300, "the one that waits was ended"
    assert not (tmp_path / "a.0.x").exists()


def test_a_child_that_ends_without_a_word_has_not_done_its_job(share):
    with pytest.raises(RuntimeError, match=r"exit status 0 \(a 0 ends\)"):
        share([("a", 0, "ends")], 1)


def test_a_child_that_is_killed_says_what_may_have_done_it(share):
    with pytest.raises(
        RuntimeError, match=r"exit status -9 \(killed, .*memory runs out; run the same command"
    ):
        share([("a", 0, "killed")], 1)


def test_workers_keep_what_they_have_loaded_and_then_help_each_other():
    jobs = Jobs([("a", 0, i) for i in range(2)] + [("b", 0, i) for i in range(5)] + [("c", 0, 0)])
    taken = [(worker, *jobs.take(worker)[::2]) for worker in (1, 2, 1, 2, 2, 2, 1, 2)]
    assert taken[:2] == [(1, "b", 0), (2, "a", 0)]  # the longest first, and none twice
    assert taken[2:4] == [(1, "b", 1), (2, "a", 1)]
    assert taken[4] == (2, "c", 0)  # what nobody has loaded
    assert {name for _, name, _ in taken[5:]} == {"b"}  # then both work on what is left
    assert jobs.take(1) is None and jobs.take(2) is None
    stopped = Jobs([("a", 0, 0)])
    stopped.stop()
    assert stopped.take(1) is None


def test_a_process_that_answers_ends_with_its_parent(tmp_path):
    command = [sys.executable, "-m", "clinical_r1.generate", "--out", str(tmp_path)]
    command += ["--settings", json.dumps({"profile": "smoke"}), "--function", "clinical_r1.generate:complete"]
    closed = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=120)
    assert closed.returncode == PARENT_GONE


def test_progress_is_what_lies_on_disk(tmp_path):
    counts = iter([2, 2, 5, 10])
    with watched(lambda: next(counts), 10, tmp_path, "answers", "answer", every=0.02):
        end = time.monotonic() + 30
        while not (tmp_path / PROGRESS).exists() and time.monotonic() < end:
            time.sleep(0.005)
        seen = read_json(tmp_path / PROGRESS)
    assert seen["done"] == 5 and seen["of"] == 10 and "left" in seen["sentence"]
    assert not (tmp_path / PROGRESS).exists(), "nothing is in progress any more"
