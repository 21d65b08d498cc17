"""Reading and writing JSON so that a killed process leaves either the old file or the new one."""

import json
import os
from pathlib import Path


def write_text(path: str | Path, text: str) -> Path:
    """Write through a temporary file beside the target, then rename."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(text, encoding="utf-8")
    os.replace(temporary, path)
    return path


def write_json(path: str | Path, value) -> Path:
    """One JSON value, indented; whole or not at all."""
    return write_text(path, json.dumps(value, indent=1, ensure_ascii=False) + "\n")


def write_jsonl(path: str | Path, rows) -> Path:
    """One JSON value a line; whole or not at all."""
    return write_text(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def read_jsonl(path: str | Path) -> list[dict]:
    """All rows of a JSON Lines file. ValueError names the file and the line that is not JSON."""
    rows = []
    with open(path, encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            try:
                rows.append(json.loads(line))
            except json.JSONDecodeError as error:
                raise ValueError(
                    f"{path}, line {number} is not JSON ({error}); mend or delete the file."
                ) from error
    return rows


def same_settings(stamp: Path, settings, keys) -> bool:
    """True when `stamp` exists and agrees with the settings, False when it is missing.

    ValueError when it was made with other settings: a stale result must not pass for a new one.
    """
    if not stamp.exists():
        return False
    made, now = json.loads(stamp.read_text()), json.loads(json.dumps(settings.to_json()))
    changed = [f"{key} was {made.get(key)!r}, now {now[key]!r}" for key in keys if made.get(key) != now[key]]
    if changed:
        raise ValueError(
            f"{stamp.parent} was made with other settings ({'; '.join(changed)}); move {settings.run_dir} away or use --fresh."
        )
    return True
