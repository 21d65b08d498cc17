"""Answers on disk: kills, several writers at once, and lines that somebody has edited."""

import json
import subprocess
import sys
import threading

import pytest

from clinical_r1.engines.store import Store, digest, read_store
from clinical_r1.files import ROOT

HEADER = {"identity": {"model": "tiny"}}


def row(number: int, **fields) -> dict:
    return {"key": f"k{number}", "reply": f"answer {number} \ud800"} | fields


@pytest.fixture
def path(tmp_path):
    store = Store(tmp_path / "a.jsonl", HEADER)
    for number in range(3):
        store.add(row(number))
    return store.path


def test_what_was_added_is_read_back(path):
    assert read_store(path) == (HEADER, {f"k{i}": row(i) for i in range(3)})
    assert Store(path, HEADER).find("k1") == row(1) and Store(path, HEADER).find("k9") is None
    with pytest.raises(ValueError, match="was made with .*tiny.*, expected .*other"):
        Store(path, {"identity": {"model": "other"}})
    assert read_store(path.with_name("nowhere.jsonl")) == (None, {})


def edited(line: str, **fields) -> str:
    return json.dumps(json.loads(line) | fields)


BAD = {  # line -> what somebody made of it
    "an edited answer": (2, lambda line: edited(line, reply="answer 7")),
    "an edited key": (2, lambda line: edited(line, key="k7")),
    "a field more": (3, lambda line: edited(line, count=9)),
    "a wrong type": (2, lambda line: edited(line, reply=["answer"])),
    "a check of another type": (2, lambda line: edited(line, check=None)),
    "a list": (3, lambda line: json.dumps([line])),
    "a number": (3, lambda line: "7"),
    "no check": (2, lambda line: json.dumps({k: v for k, v in json.loads(line).items() if k != "check"})),
    "half a line": (2, lambda line: line[:20]),
    "nested too deep": (2, lambda line: "[" * 100_000),
    "5,000 digits": (2, lambda line: line.replace('"answer 0', "9" * 5000 + ', "x": "')),
    "no text": (3, lambda line: "\xff\xfe"),
    "nothing": (3, lambda line: ""),
    "another first line": (1, lambda line: edited(line, identity={"model": "better"})),
}


@pytest.mark.parametrize(("number", "change"), BAD.values(), ids=BAD)
def test_a_bad_line_is_refused_by_its_number(path, number, change):
    lines = path.read_text().splitlines()
    lines[number - 1] = change(lines[number - 1])
    path.write_bytes("".join(f"{line}\n" for line in lines).encode("latin-1"))
    for read in (read_store, lambda p: Store(p, HEADER)):
        with pytest.raises(
            ValueError, match=rf"(?s)a\.jsonl, line {number} is no stored answer .*; delete the line"
        ):
            read(path)


def test_a_row_with_a_key_of_another_type_is_refused(path):
    bad = {"key": 7}
    with open(path, "a") as file:
        file.write(json.dumps(bad | {"check": digest(bad)[:16]}) + "\n")
    with pytest.raises(ValueError, match="line 5 is no stored answer .*its key is no text"):
        read_store(path)


@pytest.mark.parametrize("torn", [b'{"key": "k', b"{", b'{"key": "k9", "reply": "a", "check": "0"}'])
def test_a_line_that_a_kill_left_is_no_answer_and_harms_no_other_writer(path, torn):
    first = Store(path, HEADER)
    with open(path, "ab") as file:
        file.write(torn)  # another process, killed
    assert len(read_store(path)[1]) == 3
    first.add(row(3))
    assert list(read_store(path)[1]) == ["k0", "k1", "k2", "k3"]
    with open(path, "ab") as file:
        file.write(torn)
    assert len(Store(path, HEADER)) == 4
    assert path.read_bytes().endswith(b"}\n") and len(read_store(path)[1]) == 4


def test_of_two_writers_the_first_answer_holds_for_both(path):
    one, two = Store(path, HEADER), Store(path, HEADER)
    assert one.add(row(5)) == row(5)
    assert two.add(row(5, reply="another")) == row(5) == two.find("k5")
    # Unless it is the answer that was asked again.
    assert two.add(row(5, reply="better"), instead_of=row(5)) == row(5, reply="better")
    assert one.add(row(5, reply="late"), instead_of=row(5)) == row(5, reply="better")
    assert read_store(path)[1]["k5"] == Store(path, HEADER).find("k5") == row(5, reply="better")


def test_threads_and_processes_lose_nothing(path):
    code = (
        "import sys\nfrom clinical_r1.engines.store import Store\nstore = Store(sys.argv[1], {'identity': {'model': 'tiny'}})\n"
        "for i in range(200): store.add({'key': f'p{i}', 'reply': 'x' * (i * 37 % 5000)})"
    )
    child = subprocess.Popen([sys.executable, "-c", code, str(path)], cwd=ROOT)
    stores = [Store(path, HEADER) for _ in range(2)]
    threads = [
        threading.Thread(target=lambda s=s, t=t: [s.add(row(i, key=f"t{t}-{i}")) for i in range(100)])
        for t, s in enumerate(stores * 2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert child.wait(60) == 0
    assert len(read_store(path)[1]) == 3 + 200 + 400


def test_a_file_that_shrinks_while_in_use_is_named(path):
    store = Store(path, HEADER)
    path.unlink()
    with pytest.raises(ValueError, match="was cut or replaced while in use; run again"):
        store.add(row(8))
