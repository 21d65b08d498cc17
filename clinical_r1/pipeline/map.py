"""What is where, as markdown: the first sentence of every module's docstring, in the order of the package's own docstring."""

import ast
import re
from pathlib import Path

from clinical_r1.files import PACKAGE

MAP_BEGIN, MAP_END = "<!-- map: generated -->", "<!-- /map -->"
# "    text        questions prompts completions": a row of files in the docstring of clinical_r1/__init__.py
ROW = re.compile(r"^ {4}(\w+) {2,}([a-z_]+(?: [a-z_]+)*)$", re.MULTILINE)


def docstring(path: Path) -> str:
    """A module's docstring; ValueError names the file that has none."""
    text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
    if not text:
        raise ValueError(f"{path} has no docstring; its first sentence is the module's line on the map.")
    return text


def first_sentence(text: str) -> str:
    """The first sentence of a docstring on one line, without its full stop.

    >>> first_sentence("The sum of eq. 4, as data. More text.")
    'The sum of eq. 4, as data'
    """
    paragraph = " ".join(text.split("\n\n")[0].split())
    return re.split(r"\.(?:\s+(?=[A-Z`])|$)", paragraph, maxsplit=1)[0].rstrip(":")


def rows_of_files(package: Path = PACKAGE) -> dict[str, list[str]]:
    """Row -> names of its files at the package's root, as the package's docstring lists them."""
    return {row: names.split() for row, names in ROW.findall(docstring(package / "__init__.py"))}


def map_block(package: Path = PACKAGE) -> str:
    """The map as markdown: a table for each row of root files, then one for each wing, headed by the wing's docstring."""
    parts = [
        f"**{row.capitalize()}**\n\n{_table(package / f'{name}.py' for name in names)}"
        for row, names in rows_of_files(package).items()
    ]
    for wing in sorted(path.parent for path in package.glob("*/__init__.py")):
        modules = sorted(wing.glob("*.py"), key=lambda path: (path.name == "__main__.py", path.name))
        files = [path for path in modules if path.name != "__init__.py"]
        about = " ".join(docstring(wing / "__init__.py").split())
        parts.append(f"**{wing.name}/** {about}\n\n{_table(files)}")
    return "\n\n".join(parts) + "\n"


def _table(files) -> str:
    lines = [f"| `{path.name}` | {_cell(first_sentence(docstring(path)))} |" for path in files]
    return "\n".join(["| file | what it holds |", "| --- | --- |", *lines])


def _cell(text: str) -> str:
    """A sentence that a table can hold; outside code, nothing in it is markup."""
    parts = text.replace("``", "`").replace("|", "\\|").split("`")
    return "`".join(part if i % 2 else part.replace("<", "&lt;") for i, part in enumerate(parts))
