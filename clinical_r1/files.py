"""Reading and writing JSON so that a killed process leaves either the old file or the new one."""

import hashlib
import json
import os
from contextlib import contextmanager
from pathlib import Path


def write_text(path: str | Path, text: str) -> Path:
    """Write through a temporary file beside the target, then rename."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(text, encoding="utf-8")
    os.replace(temporary, path)
    return path


def replace_block(text: str, begin: str, end: str, content: str) -> str:
    """A page's text with `content` between two marker lines, a blank line around it. ValueError unless both stand there once."""
    if text.count(begin) != 1 or text.count(end) != 1 or text.index(begin) > text.index(end):
        raise ValueError(
            f"the page must hold the lines {begin} and {end} once each, in this order; restore them."
        )
    head, rest = text.split(begin)
    return f"{head}{begin}\n\n{content.strip()}\n\n{end}{rest.split(end)[1]}"


def write_json(path: str | Path, value) -> Path:
    """One JSON value, indented; whole or not at all."""
    return write_text(path, json.dumps(value, indent=1, ensure_ascii=False) + "\n")


def write_jsonl(path: str | Path, rows) -> Path:
    """One JSON value a line; whole or not at all."""
    return write_text(path, "".join(map(json_line, rows)))


def json_line(value) -> str:
    """One line of JSON Lines, readable as it is; half a surrogate pair, which UTF-8 cannot hold, makes it ASCII with escapes."""
    line = json.dumps(value, ensure_ascii=False) + "\n"
    return (
        line
        if line.isascii() or not any("\ud800" <= char <= "\udfff" for char in line)
        else json.dumps(value) + "\n"
    )


def read_jsonl(path: str | Path) -> list[dict]:
    """All rows of a JSON Lines file. ValueError names the file and the line that is not JSON."""
    rows = []
    with open(path, encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            try:
                rows.append(json.loads(line))
            except (ValueError, RecursionError) as error:
                raise ValueError(
                    f"{path}, line {number} is not JSON ({error}); fix or delete the file."
                ) from error
    return rows


PACKAGE = Path(__file__).resolve().parent
ROOT = PACKAGE.parent
DATA_VARIABLE = "CLINICAL_R1_DATA"


def sha256(path: Path) -> str:
    """sha256 of a file as hex digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class PipelineError(RuntimeError):
    """A sentence for the person who typed the command: what was found, what was expected, how to fix it."""


@contextmanager
def locked(path: str | Path, what: str):
    """Be the only process that holds the file `path`, and so the only one that writes `what`, for as long as `with` lasts.

    The system drops the lock of a process that ends, however it ends: a file that is left over never blocks. PipelineError
    names the process that holds it.
    """
    import fcntl

    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "a+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            raise PipelineError(
                f"{what} is being written by another run (process {file.read().strip() or 'unknown'}); "
                "wait for it, or stop it and run this again."
            ) from None
        file.truncate(0)
        file.write(f"{os.getpid()}\n")
        file.flush()
        yield
