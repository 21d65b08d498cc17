"""JSON Lines on disk: any text comes back as it was, and a torn file is cut at line ends alone."""

import json

import pytest

from clinical_r1 import generate
from clinical_r1.files import json_line, read_jsonl, write_jsonl

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
