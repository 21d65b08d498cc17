"""Files on disk: any text comes back as it was, a torn file is cut at line ends alone, what cannot be read is named."""

import gzip
import hashlib
import json
import os
import signal
import subprocess
import sys
import time

import pytest

from clinical_r1 import files, generate
from clinical_r1.files import (
    DEEPEST,
    PipelineError,
    json_line,
    locked,
    numbered_rows,
    read_csv,
    read_json,
    read_jsonl,
    replacing,
    write_json,
    write_jsonl,
    write_text,
)

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
    batches = [
        "".join(json_line({"id": i, "text": text}) for i in pair).encode() for pair in ((0, 1), (2, 3))
    ]
    partial, begun = tmp_path / "answers.partial", tmp_path / "answers.partial.json"
    whole = b"".join(batches)
    partial.write_bytes(whole + b'{"id": 4, "text": "cut')
    ends = [[len(part), hashlib.sha256(part).hexdigest()] for part in (batches[0], whole)]
    begun.write_text(json.dumps({"batches": ends}))
    assert generate.kept_batches(partial, begun) == ends
    assert partial.read_bytes() == whole and len(read_jsonl(partial)) == 4


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


# ---------------------------------------------------------------- what cannot be read is named

ROW = b'{"id": "a"}\n'
NOT_TEXT = [
    (b"PAR1\x15\x04\x15", "is a Parquet table; save its rows as text"),
    (gzip.compress(ROW, mtime=0), "is compressed with gzip; unpack it with gunzip"),
    (b"PK\x03\x04" + ROW, "is a zip archive or an Excel workbook"),
    (b"BZh91AY" + ROW, "is compressed with bzip2"),
    ("\ufeff".encode("utf-16") + ROW, "is UTF-16 text; save it as UTF-8"),
    (ROW.decode().encode("utf-16-le"), "is UTF-16 text"),
    (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "is a Git LFS pointer.*git lfs pull"),
    (b"\xef\xbb\xbf \n<!DOCTYPE html><p>404", "is a web page"),
    (b"<HTML><p>Sign in", "is a web page"),
    (b'<?xml version="1.0"?><Error>AccessDenied</Error>', "is XML"),
    (
        ROW + '{"id": "Ménière"}\n'.encode("latin-1"),
        "is not UTF-8 .byte 0xe9 on line 2, perhaps Latin-1.; save it",
    ),
]
READERS = [read_jsonl, read_json, read_csv]


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize(("data", "message"), NOT_TEXT)
def test_what_is_no_text_is_named_by_every_reader(tmp_path, reader, data, message):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(data)
    with pytest.raises(ValueError, match=r"rows\.jsonl " + message):
        reader(path)


@pytest.mark.parametrize("reader", READERS)
def test_a_folder_and_a_missing_file_are_named(tmp_path, reader):
    with pytest.raises(ValueError, match="is a folder; name a file in it"):
        reader(tmp_path)
    with pytest.raises(FileNotFoundError, match="absent"):
        reader(tmp_path / "absent")


DEEP = '{"a":' + "[" * 100_000
LEVELS = '{"a":' + "[" * DEEPEST + "]" * DEEPEST + "}"
DIGITS = '{"a":' + "9" * 5000 + "}"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (DEEP + "\n", "line 1 is not JSON .nested more than"),
        (LEVELS + "\n", "line 1 is not JSON .nested more than"),
        (
            DIGITS + "\n",
            r"line 1 is not JSON .Exceeds the limit .4300 digits. for integer string conversion: value has",
        ),
        ('{"a": 1, "b": 2, "a": 3}\n', "line 1 is not JSON .an object holds a key twice: a"),
        ('{"a": 1}\n\n[1]\n', "line 3 is not an object but a list"),
        ('{"a": 1}\nnull\n', "line 2 is not an object but a NoneType"),
        ('{"a": 1}\n{"a": ', "line 2 is not JSON .*truncated there"),
        # whole lines, the last without its newline: nothing is cut off there
        (
            '{"a": 1}\n{"a": 1, "a": 2}',
            "line 2 is not JSON .an object holds a key twice: a.; expected one object a line",
        ),
        ('{"a": 1}\n{"a": 1}{"a": 2}', "line 2 is not JSON .Extra data.*; expected one object a line"),
        (
            '{"a": 1}\n{"a": ' + "9" * 5000 + "}",
            "line 2 is not JSON .Exceeds the limit .*; expected one object a line",
        ),
        ('[{"a": 1}]', "is one JSON list; expected one JSON object a line"),
        ('[\n {"a": 1}\n]\n', "is one JSON list"),
        ('{\n "a": 1\n}\n{\n "a": 2\n}', "is JSON over several lines an object"),
        ("id,answer\n1,A\n", "is a CSV table with the header 'id,answer'"),
        ("id;answer\n1;A\n", "is a CSV table"),
        ("Sorry, no.\nNothing\n", "line 1 is not JSON"),
    ],
)
def test_what_is_no_json_lines_is_named(tmp_path, text, message):
    path = tmp_path / "rows.jsonl"
    path.write_text(text)
    with pytest.raises(ValueError, match=message) as caught:
        read_jsonl(path)
    assert str(caught.value).startswith(str(path)) and len(str(caught.value)) < len(str(path)) + 300


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        ("\n", "is empty"),
        ("[1]", "holds a list|is one JSON list"),
        ("null", "holds a NoneType"),
        ('{"a": 1}\n{"a": 2}\n', "is not JSON .Extra data"),
        ("a,b\n1,2\n", "is a CSV table"),
        (DEEP, "is not JSON .nested more than"),
        (DIGITS, "is not JSON .Exceeds the limit"),
    ],
)
def test_what_is_no_json_object_is_named(tmp_path, text, message):
    path = tmp_path / "done.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=message):
        read_json(path)


def test_marks_blank_lines_and_windows_line_ends_are_no_rows(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'\xef\xbb\xbf{"a": 1}\r\n\r\n \n{"a": "x\xe2\x80\xa8y"}\r\n')
    assert numbered_rows(path) == [(1, {"a": 1}), (4, {"a": "x\u2028y"})]
    (tmp_path / "one.json").write_bytes(b'\xef\xbb\xbf{"a":\r\n 1}')
    assert read_json(tmp_path / "one.json") == {"a": 1}
    path.write_text("")
    assert read_jsonl(path) == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        ("id,gold\n", "has 0 rows"),
        ("id;gold\n1;A\n", "1 rows with columns ..id;gold.."),
        ("id,gold\n1\n", "line 2 has 1 cells, the header 2"),
        ("id,gold\n1,A\n2,B,C\n", "line 3 has 3 cells, the header 2"),
        ('id,gold\n1,"A\n', "no CSV table"),
        ("id,other\n1,A\n", r"expected some with \['id', 'gold'\]"),
    ],
)
def test_what_is_no_csv_table_is_named(tmp_path, text, message):
    path = tmp_path / "letters.csv"
    path.write_text(text)
    with pytest.raises(ValueError, match=message):
        read_csv(path, ["id", "gold"], dtype=str)


def test_a_csv_table_is_read_as_pandas_reads_it(tmp_path):
    path = tmp_path / "letters.csv"
    path.write_bytes(b'\xef\xbb\xbfid,gold\r\n1,"A, or\nB"\r\n\r\n2,\r\n')
    table = read_csv(path, ["id", "gold"], dtype=str, keep_default_na=False)
    assert table.to_dict("list") == {"id": ["1", "2"], "gold": ["A, or\nB", ""]}


# ---------------------------------------------------------------- a write that fails leaves nothing behind


@pytest.mark.parametrize(
    ("write", "error"),
    [
        (lambda path: write_text(path, "half \ud800"), ValueError),
        (lambda path: write_json(path, {"a": {1}}), TypeError),
        (lambda path: write_jsonl(path, [{"a": 1}, {"a": {1}}]), TypeError),
        (lambda path: write_jsonl(path, (row / 0 for row in [1])), ZeroDivisionError),
    ],
)
def test_a_failed_write_leaves_the_old_file_and_no_temporary(tmp_path, write, error):
    path = tmp_path / "kept.json"
    path.write_text("old")
    with pytest.raises(error):
        write(path)
    assert [p.name for p in tmp_path.iterdir()] == ["kept.json"] and path.read_text() == "old"


@pytest.mark.parametrize("stop", [OSError("No space left on device"), KeyboardInterrupt()])
def test_a_write_that_is_stopped_removes_its_temporary(tmp_path, stop):
    path = tmp_path / "deep" / "kept.bin"
    with pytest.raises(type(stop)), replacing(path) as temporary:
        temporary.write_bytes(b"half")
        raise stop
    assert list(path.parent.iterdir()) == []
    with replacing(path) as temporary:
        temporary.write_bytes(b"whole")
    assert [(p.name, p.read_bytes()) for p in path.parent.iterdir()] == [("kept.bin", b"whole")]


@pytest.mark.parametrize("text", ["\ud800", "x\udfffy"])
def test_half_a_surrogate_pair_comes_back_from_json(tmp_path, text):
    assert read_json(write_json(tmp_path / "one.json", {"a": text, "b": "ü"})) == {"a": text, "b": "ü"}
    with pytest.raises(ValueError, match="half a surrogate pair"):
        write_text(tmp_path / "page.md", text)


@pytest.mark.parametrize("way", ["in place", "renamed over", "cut and filled"])
def test_other_bytes_of_the_same_size_and_time_are_another_file(tmp_path, way):
    path = tmp_path / "policy.safetensors"
    path.write_bytes(b"one")
    state, first = path.stat(), files.digest(path)
    time.sleep(0.02)  # the coarsest clock of a file system
    if way == "renamed over":
        (tmp_path / "other").write_bytes(b"two")
        (tmp_path / "other").replace(path)
    elif way == "in place":
        with open(path, "r+b") as file:
            file.write(b"two")
    else:
        path.write_bytes(b"")
        path.write_bytes(b"two")
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))
    assert (path.stat().st_size, path.stat().st_mtime_ns) == (state.st_size, state.st_mtime_ns)
    assert files.digest(path) == files.sha256(path) != first
