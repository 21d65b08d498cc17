"""Answers on disk, so that nothing is asked twice: one JSON Lines file that only grows.

The first line says what the answers were made with; every other line is one answer under its key. Each line carries a hash of
itself, so an edited line is refused. A process killed while writing leaves at most one broken last line, which counts as not
written. Several threads and processes may share a file. Nothing here knows what was asked.
"""

import hashlib
import json
import os
import threading
from contextlib import contextmanager
from pathlib import Path


def digest(value) -> str:
    """sha256 of a JSON value."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def _signed(row: dict) -> bytes:
    # ASCII: an answer may hold half a surrogate pair.
    return json.dumps(row | {"check": digest(row)[:16]}).encode() + b"\n"


def _read_lines(path: Path, data: bytes, first: int) -> list[dict]:
    """The rows of whole lines, the first of which is line `first` of the file. ValueError names the line that is none."""
    rows = []
    for number, line in enumerate(data.split(b"\n")[:-1], first):
        try:
            row = json.loads(line)
            if row.pop("check") != digest(row)[:16]:
                raise ValueError("edited: its check does not fit")
            if number > 1 and not isinstance(row["key"], str):
                raise TypeError("its key is no text")
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise ValueError(
                f"{path}, line {number} is no stored answer ({type(error).__name__}: {error}); delete the line, or the "
                "file, to ask again."
            ) from None
        rows.append(row)
    return rows


def read_store(path: str | Path) -> tuple[dict | None, dict[str, dict]]:
    """(first line, key -> row) of a file; of a key that occurs twice the last row holds. A missing or empty file has first line
    None. ValueError names a bad line."""
    path = Path(path)
    data = path.read_bytes() if path.exists() else b""
    header, *rows = _read_lines(path, data[: data.rfind(b"\n") + 1], 1) or [None]
    return header, {row["key"]: row for row in rows}


class Store:
    """The answers of a file, made if it is not there. ValueError when its first line is not `header`, or a line is bad."""

    def __init__(self, path: str | Path, header: dict):
        self.path = Path(path)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._rows, self._size, self._lines = {}, 0, 0
        self._header, self._lock = None, threading.Lock()
        with self._open() as file:
            if self._header is None:
                self._write(file, header)
                self._header = header
        if self._header != header:
            raise ValueError(f"{self.path} was made with {self._header}, expected {header}; move it away.")

    def __len__(self) -> int:
        return len(self._rows)

    def find(self, key: str) -> dict | None:
        return self._rows.get(key)

    def add(self, row: dict, instead_of: dict | None = None) -> dict:
        """Keep a row; returns the one that holds, which is another process's where that was first.

        instead_of: the row that was there and was asked again.
        """
        with self._open() as file:
            held = self._rows.get(row["key"])
            if held is not None and held != instead_of:
                return held
            self._write(file, row)
            self._rows[row["key"]] = row
        return row

    @contextmanager
    def _open(self):
        """The file, for this thread of this process alone, after all that others have written was read."""
        import fcntl

        with self._lock, open(self.path, "ab+") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            if os.path.getsize(self.path) < self._size:
                raise ValueError(f"{self.path} was cut or replaced while in use; run again.")
            file.seek(self._size)
            data = file.read()
            whole = data[: data.rfind(b"\n") + 1]
            rows = _read_lines(self.path, whole, self._lines + 1)
            if rows and self._lines == 0:
                self._header = rows.pop(0)
            self._rows |= {row["key"]: row for row in rows}
            self._lines += whole.count(b"\n")
            self._size += len(whole)
            if len(whole) < len(data):  # of a killed process: nobody else can be writing now
                file.truncate(self._size)
            yield file

    def _write(self, file, row: dict) -> None:
        line = _signed(row)
        file.write(line)
        file.flush()
        self._size += len(line)
        self._lines += 1
