"""JSON Lines on disk: any text comes back as it was, and a torn file is cut at line ends alone."""

import json
import os
import signal
import subprocess
import sys

import pytest

from clinical_r1 import generate
from clinical_r1.files import PipelineError, json_line, locked, read_jsonl, write_jsonl

HOSTILE = [
    "one\u2028two",
    "one\u2029two",
    "one\x85two",
    "one\x0btwo\x0c",
    "one\r\ntwo\rthree",
    "\ud800 half",
    "\x00",
    "größer ≥ 3",
]


@pytest.mark.parametrize("text", HOSTILE)
def test_any_text_comes_back_as_it_was(tmp_path, text):
    path = write_jsonl(tmp_path / "rows.jsonl", [{"text": text}, {"text": "next"}])
    assert read_jsonl(path) == [{"text": text}, {"text": "next"}]
    assert path.read_bytes().count(b"\n") == 2


@pytest.mark.parametrize("text", HOSTILE)
def test_a_killed_file_keeps_its_whole_batches_whatever_the_texts(tmp_path, text):
    rows = [{"id": i, "text": text} for i in range(5)]
    partial = tmp_path / "answers.partial"
    partial.write_bytes("".join(map(json_line, rows)).encode() + b'{"id": 5, "text": "cut')
    assert generate._keep_whole_batches(partial, 2) == 4
    assert read_jsonl(partial) == rows[:4]
    assert partial.read_bytes() == "".join(map(json_line, rows[:4])).encode()


def test_readable_text_stays_readable():
    assert json_line({"text": "größer ≥ 3"}) == '{"text": "größer ≥ 3"}\n'
    assert json.loads(json_line("\ud800")) == "\ud800" and json_line("\ud800").isascii()


HOLDER = """
import sys, time
from clinical_r1.files import locked
with locked(sys.argv[1], "held"):
    print("held", flush=True)
    time.sleep(60)
"""


def test_one_process_holds_a_lock_and_a_killed_one_lets_go(tmp_path):
    path = tmp_path / "new" / "a.lock"
    with subprocess.Popen([sys.executable, "-c", HOLDER, path], stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"held\n"
        with pytest.raises(PipelineError, match=rf"the file is being written by .*process {process.pid}\)"):
            with locked(path, "the file"):
                pass
        process.send_signal(signal.SIGKILL)
    with locked(path, "the file"):
        with pytest.raises(PipelineError, match=f"process {os.getpid()}"):
            with locked(path, "the file"):
                pass
        with locked(path.with_name("b.lock"), "another file"):
            pass
