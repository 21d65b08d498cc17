"""Reading and writing JSON so that a killed process leaves either the old file or the new one."""

import ast
import hashlib
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


def code_hash(module: str, *roots: str) -> str:
    """sha256 over the code of `roots` (functions, classes, constants of a module of this package) and all it uses there.

    Comments, docstrings and the module's other code are left out, so that it changes only when the rules may have.
    """
    tree = ast.parse((Path(__file__).parent / f"{module}.py").read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and ast.get_docstring(node) is not None:
            del node.body[0]
    defined = {}
    for node in tree.body:
        targets = node.targets if isinstance(node, ast.Assign) else [node]
        names = [getattr(target, "id", getattr(target, "name", None)) for target in targets]
        defined |= dict.fromkeys(filter(None, names), node)
    if missing := set(roots) - set(defined):
        raise ValueError(f"{module} defines no {sorted(missing)}; name its functions or constants.")
    used, waiting = set(), list(roots)
    while waiting:
        name = waiting.pop()
        if name in defined and name not in used:
            used.add(name)
            waiting += [node.id for node in ast.walk(defined[name]) if isinstance(node, ast.Name)]
    code = "\n".join(ast.dump(defined[name]) for name in sorted(used))
    return hashlib.sha256(code.encode()).hexdigest()


def same_settings(stamp: Path, settings, keys, **stamped) -> bool:
    """True when `stamp` exists and agrees with the settings (and with `stamped`), False when it is missing.

    ValueError when it was made with others: a stale result must not pass for a new one.
    """
    if not stamp.exists():
        return False
    made, now = json.loads(stamp.read_text()), json.loads(json.dumps(settings.to_json() | stamped))
    changed = [key for key in (*keys, *stamped) if made.get(key) != now[key]]
    if changed:
        listed = "; ".join(f"{key} was {made.get(key)!r}, now {now[key]!r}" for key in changed)
        raise ValueError(
            f"{stamp.parent} was made with other settings ({listed}); move {settings.run_dir} away or use --fresh."
        )
    return True
