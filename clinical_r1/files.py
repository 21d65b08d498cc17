"""Reading and writing files: what cannot be read is named with what it is; a killed write leaves the old file or the new."""

import csv
import hashlib
import io
import json
import os
import re
import shutil
from collections.abc import Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path

# ---------------------------------------------------------------- writing


@contextmanager
def replacing(path: str | Path):
    """A path beside `path` to write to: it takes the place of `path` when the block ends, and is removed when the block fails."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def whole_folder(path: str | Path):
    """A folder beside `path` to write into: it takes the place of `path`, and of all that lay there, when the block ends."""
    path = Path(path)
    partial = path.with_name(f".{path.name}")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    yield partial
    shutil.rmtree(path, ignore_errors=True)
    partial.rename(path)


def write_text(path: str | Path, text: str) -> Path:
    """UTF-8, whole or not at all. ValueError for half a surrogate pair, which UTF-8 cannot hold."""
    try:
        data = text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise ValueError(
            f"the text for {path} holds {error.object[error.start]!a} at character {error.start}, half a surrogate pair that "
            "no UTF-8 file can hold; take it out."
        ) from error
    with replacing(path) as temporary:
        temporary.write_bytes(data)
    return Path(path)


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
    return write_text(path, _json_text(value, indent=1))


def write_jsonl(path: str | Path, rows) -> Path:
    """One JSON value a line; whole or not at all."""
    return write_text(path, "".join(map(json_line, rows)))


def json_line(value) -> str:
    """One line of JSON Lines, readable as it is; half a surrogate pair, which UTF-8 cannot hold, makes it ASCII with escapes."""
    return _json_text(value)


def _json_text(value, indent=None) -> str:
    text = json.dumps(value, indent=indent, ensure_ascii=False)
    if not text.isascii() and any("\ud800" <= char <= "\udfff" for char in text):
        text = json.dumps(value, indent=indent)
    return text + "\n"


# ---------------------------------------------------------------- reading

# What is found under the name of a text file: its first bytes, what it is, what to do
SIGNATURES = (
    (b"PAR1", "a Parquet table", "save its rows as text, one JSON object a line"),
    (b"ARROW1", "an Arrow table", "save its rows as text, one JSON object a line"),
    (b"\x1f\x8b", "compressed with gzip", "unpack it with gunzip"),
    (b"BZh", "compressed with bzip2", "unpack it with bunzip2"),
    (b"\xfd7zXZ", "compressed with xz", "unpack it with unxz"),
    (b"\x28\xb5\x2f\xfd", "compressed with zstd", "unpack it with unzstd"),
    (b"PK\x03\x04", "a zip archive or an Excel workbook", "unpack it, or export it as text"),
    (b"%PDF", "a PDF", "give the file of rows"),
    (b"\xff\xfe", "UTF-16 text", "save it as UTF-8"),
    (b"\xfe\xff", "UTF-16 text", "save it as UTF-8"),
)
MARKS = (
    ("version https://git-lfs", "a Git LFS pointer, not the file it stands for", "run `git lfs pull`"),
    ("<!doctype", "a web page, such as an error page", "download the file itself"),
    ("<html", "a web page, such as an error page", "download the file itself"),
    ("<?xml", "XML, such as an error page of a file store", "download the file itself"),
)
DEEPEST = 64  # levels of a JSON value; what walks through a deeper one may end in a RecursionError


def read_text(path: str | Path) -> str:
    """The text of a data file, without a byte order mark.

    FileNotFoundError, or a ValueError that says what the file is instead (Parquet, gzip, UTF-16, a web page, ...) and the fix.
    """
    path = Path(path)
    if path.is_dir():
        raise ValueError(f"{path} is a folder; name a file in it.")
    data = path.read_bytes()
    head = data[:200].decode("utf-8", "replace").lstrip("\ufeff \t\r\n").lower()
    found = [(what, fix) for mark, what, fix in SIGNATURES if data.startswith(mark)]
    found += [(what, fix) for mark, what, fix in MARKS if head.startswith(mark)]
    if not found and b"\0" in data[:4]:
        found = [("UTF-16 text, or no text at all", "save it as UTF-8")]
    if found:
        raise ValueError(f"{path} is {found[0][0]}; {found[0][1]}.")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ValueError(
            f"{path} is not UTF-8 (byte 0x{data[error.start]:02x} on line {line}, perhaps Latin-1); save it as UTF-8."
        ) from error


def parse_json(text: str, finite: bool = False):
    """One JSON value. ValueError also for a key twice, of which one would be lost, numbers of thousands of digits, and more than
    `DEEPEST` levels; with `finite` for NaN and Infinity, which Python writes and JSON has not.
    """

    def refused(constant):
        raise ValueError(f"{constant} is no JSON")

    try:
        value = json.loads(text, object_pairs_hook=_whole, **({"parse_constant": refused} if finite else {}))
    except RecursionError:
        raise ValueError(f"nested more than {DEEPEST} levels deep") from None
    except json.JSONDecodeError:
        raise
    except ValueError as error:
        raise ValueError(str(error).partition("; use sys.")[0]) from None
    if text.count("[") + text.count("{") > DEEPEST:
        _check_depth(value)
    return value


def _whole(pairs):
    if len(found := dict(pairs)) < len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"an object holds a key twice: {next(key for key in keys if keys.count(key) > 1)}")
    return found


def _check_depth(value) -> None:
    level = [value]
    for _ in range(DEEPEST + 1):
        boxes = [item for item in level if isinstance(item, dict | list)]
        level = [child for box in boxes for child in (box.values() if isinstance(box, dict) else box)]
        if not boxes:
            return
    raise ValueError(f"nested more than {DEEPEST} levels deep")


_COLUMN = re.compile(r'"?[\w .()/-]{1,60}"?')


def layout_of(text: str) -> str | None:
    """What a text is that is not JSON Lines: one JSON list, JSON over several lines, or CSV. None where it looks like none."""
    start = text.strip()
    try:
        value, end = json.JSONDecoder().raw_decode(start)
    except (ValueError, RecursionError):
        header, *second = start.split("\n", 2)[:2]
        for mark in (",", "\t", ";"):
            names = header.strip().split(mark)
            if len(names) > 1 and all(map(_COLUMN.fullmatch, names)) and all(mark in line for line in second):
                return f"a CSV table with the header {header.strip()[:100]!r}"
        return None
    if isinstance(value, list) and end == len(start):
        return "one JSON list"
    return "JSON over several lines an object" if "\n" in start[:end] else None


class BadLine(ValueError):
    """Why one line of a file is no JSON value; `line` is its text."""

    def __init__(self, reason: str, line: str):
        super().__init__(reason)
        self.line = line


def json_lines(path: str | Path, finite: bool = False) -> list[tuple[int, object]]:
    """(line, JSON value or BadLine) of every line that is not blank.

    Lines end at "\\n" alone: a text may hold other separators. ValueError where the file as a whole is something else.
    """
    text = read_text(path)
    lines, rows = text.split("\n"), []
    for number, line in enumerate(lines, 1):
        if line.strip():
            try:
                rows.append((number, parse_json(line, finite)))
            except ValueError as error:
                rows.append((number, BadLine(str(error), line)))
    broken = [number for number, row in rows if isinstance(row, BadLine)]
    one_list = len(rows) == 1 and isinstance(rows[0][1], list)
    if (broken or one_list) and (layout := layout_of(text)):
        raise ValueError(f"{path} is {layout}; expected one JSON object a line: convert it.")
    if (
        broken and broken[-1] == len(lines) and not text.endswith("}")
    ):  # the last line lacks its end and its newline
        raise ValueError(
            f"{path}, line {broken[-1]} is not JSON ({rows[-1][1]}): the file is truncated there; make or download it again."
        )
    return rows


def numbered_rows(path: str | Path, finite: bool = False) -> list[tuple[int, dict]]:
    """(line, object) of a JSON Lines file, blank lines left out. ValueError names the file and the line that is no object."""
    rows = json_lines(path, finite)
    for number, row in rows:
        if isinstance(row, BadLine):
            raise ValueError(
                f"{path}, line {number} is not JSON ({row}); expected one object a line: fix or delete the file."
            ) from row
        if not isinstance(row, dict):
            raise ValueError(
                f"{path}, line {number} is not an object but a {type(row).__name__}; fix or delete the file."
            )
    return rows


def read_jsonl(path: str | Path) -> list[dict]:
    """All objects of a JSON Lines file. Errors as `numbered_rows`."""
    return [row for _, row in numbered_rows(path)]


def read_json(path: str | Path) -> dict:
    """The JSON object that is a file. FileNotFoundError, or a ValueError that says what the file is instead."""
    text = read_text(path)
    try:
        value = parse_json(text)
    except ValueError as error:
        what = layout_of(text) or f"not JSON ({error})" if text.strip() else "empty"
        raise ValueError(
            f"{path} is {what}; expected one JSON object: restore it, or make it again."
        ) from error
    if not isinstance(value, dict):
        raise ValueError(f"{path} holds a {type(value).__name__}; expected one JSON object.")
    return value


def read_csv(path: str | Path, columns=(), **options):
    """Frame of a CSV file, read with pandas' `options`. FileNotFoundError, or a ValueError that names what is wrong.

    Rows must be as long as the header: pandas would fill a short one, and take the first cell of a long one for an index.
    columns: must be there, with one row at least.
    """
    import pandas as pd

    text = read_text(path)
    try:
        reader, width = csv.reader(io.StringIO(text)), None
        for row in reader:
            width = width or len(row)
            if row and len(row) != width:
                raise ValueError(f"line {reader.line_num} has {len(row)} cells, the header {width}")
        table = pd.read_csv(io.StringIO(text), **options)
    except (ValueError, csv.Error) as error:  # pandas' errors are ValueErrors
        what = "empty" if not text.strip() else f"no CSV table ({str(error).splitlines()[0]})"
        raise ValueError(f"{path} is {what}; restore it, or make it again.") from error
    missing = [column for column in columns if column not in table.columns]
    if missing or (columns and not len(table)):
        raise ValueError(
            f"{path} has {len(table)} rows with columns {list(table.columns)}; expected some with {list(columns)}."
        )
    return table


PACKAGE = Path(__file__).resolve().parent
ROOT = PACKAGE.parent
DATA_VARIABLE = "CLINICAL_R1_DATA"


def sha256(path: Path) -> str:
    """sha256 of a file as hex digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest(path: Path) -> str:
    """`sha256`; a file is read once in a process while its place on disk and both its times stay (`touch` sets back one)."""
    state = path.stat()
    return _digest(path.resolve(), state.st_ino, state.st_size, state.st_mtime_ns, state.st_ctime_ns)


@cache
def _digest(path, *_):
    return sha256(path)


# --- a folder and its hashes


def write_hashes(folder: Path, recipe: Mapping) -> None:
    """sha256.json: the hash of every file beside it, and how they were made."""
    files = {p.name: sha256(p) for p in sorted(folder.iterdir()) if p.is_file()}
    files.pop("sha256.json", None)
    write_json(folder / "sha256.json", {"recipe": recipe, "files": files})


def compare_hashes(folder: Path, way_on: str) -> None:
    """ValueError for a file that is not what sha256.json lists, or is missing. way_on: the end of the sentence."""
    for name, expected in read_json(folder / "sha256.json")["files"].items():
        path = folder / name
        got = digest(path) if path.is_file() else "no file"
        if got != expected:
            raise ValueError(
                f"base model file {name} has sha256 {got[:12]}…, expected {expected[:12]}…: it was changed or truncated. {way_on}"
            )


# --- a file and its stamp: X.jsonl, and X.json beside it


def stamp_path(path: str | Path) -> Path:
    """Where the stamp of a file stands."""
    return Path(path).with_suffix(".json")


def write_stamp(path: str | Path, made_from: Mapping, content: str | Path | None = None) -> Path:
    """Beside a file: what it was made from, and its own sha256. content: where the bytes stand that are to become the file."""
    return write_json(stamp_path(path), {**made_from, "sha256": sha256(Path(content or path))})


def read_stamp(path: str | Path, again: str) -> dict:
    """What a file was made from, after its own hash has been compared.

    again: how the file is made anew, for the ValueError that names a file without a stamp, or one changed since it was made.
    """
    try:
        stamp = read_json(stamp_path(path))
        expected = stamp["sha256"]
    except (FileNotFoundError, ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{path} has no whole stamp beside it ({type(error).__name__}), so what it was made from is unknown; delete it and "
            f"{again} again."
        ) from error
    if (got := sha256(path)) != expected:
        raise ValueError(
            f"{path} was changed after it was made (sha256 {got[:12]}…, expected {expected[:12]}…); delete it and {again} again."
        )
    return stamp


def write_stamped(path: str | Path, rows, made_from: Mapping) -> Path:
    """JSON Lines with a stamp beside them."""
    write_jsonl(path, rows)
    write_stamp(path, made_from)
    return Path(path)


def read_stamped(path: str | Path, again: str) -> list[dict]:
    """`read_jsonl`, after `read_stamp`."""
    read_stamp(path, again)
    return read_jsonl(path)


def set_aside(settings, arm: str, seed: int) -> Path:
    """Move a trained arm, its completions and its scores into runs/<profile>/set_aside, the first free number of it."""
    number, parent = 1, settings.run_dir / "set_aside"
    while (aside := parent / f"{arm}.seed{seed}.{number}").exists():
        number += 1
    found = [settings.model_dir(arm, seed)]
    for kind in ("completions", "scores"):
        found += sorted((settings.run_dir / kind).glob(f"*/{arm}.seed{seed}.*"))
    for path in filter(Path.exists, found):
        target = aside / path.relative_to(settings.run_dir)
        target.parent.mkdir(parents=True, exist_ok=True)
        path.rename(target)
    return aside


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
