"""The house: the root imports downward, a wing imports the root and the wings it names, nothing heavy on the way in."""

import ast
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from clinical_r1.files import PACKAGE, ROOT

# Files at the root are the paper, read top to bottom. Each imports its own row and the rows above it.
ROWS = {
    "ground": "files arms labels settings workers",
    "text": "questions prompts completions",
    "objective": "rewards citation advantages",
    "policy": "extensions extension_checks models artifacts starts trainer train generate",
    "results": "score metrics intervals paper tables plots",
}
# Wings: the whole root, and the wings named here.
WINGS = {
    "bases": (),
    "clinic": (),
    "speed": (),
    "engines": ("speed",),
    "curation": ("clinic",),
    "judges": ("clinic", "engines"),
    "laboratory": ("clinic", "curation", "engines"),
    "audit": ("clinic", "curation", "engines"),
    "causality": ("audit", "clinic", "curation", "engines", "findings"),
    "findings": ("agent", "laboratory"),
    "agent": ("clinic", "speed"),
    "preferences": ("clinic", "judges"),
    "workshop": ("agent", "clinic", "curation", "judges", "laboratory"),
    "pipeline": (
        "agent",
        "clinic",
        "curation",
        "engines",
        "judges",
        "laboratory",
        "audit",
        "causality",
        "findings",
        "preferences",
    ),
}
# What the root takes from wings: exact verdicts and scripted traces, faster training, who answers, the reward variants.
ROOT_FROM_WINGS = {
    "train": {"clinic", "engines", "speed"},
    "generate": {"engines"},
    "score": {"clinic", "engines"},
    "extensions": {"engines"},
    "extension_checks": {"engines"},
    "models": {"bases"},
    "starts": {"engines"},
    "artifacts": {"laboratory"},
}
LEVEL = {name: row for row, names in enumerate(ROWS.values()) for name in names.split()}
LIGHT = [
    *(f"clinical_r1.{name}" for row in ("ground", "text", "objective") for name in ROWS[row].split()),
    "clinical_r1.metrics",
    "clinical_r1.intervals",
    "clinical_r1.paper",
    *(f"clinical_r1.{wing}" for wing in WINGS),
    "clinical_r1.curation.splits",
    "clinical_r1.engines.protocol",
    "clinical_r1.engines.local",
    "clinical_r1.engines.chat",
    "clinical_r1.engines.replay",
    "clinical_r1.engines.server",
    "clinical_r1.engines.store",
    "clinical_r1.engines.transport",
    "clinical_r1.preferences.conversation",
    "clinical_r1.preferences.graph",
    "clinical_r1.preferences.measures",
    "clinical_r1.preferences.pairs",
    "clinical_r1.speed.cost",
    "clinical_r1.speed.prefix_attention",
    "clinical_r1.pipeline.__main__",
]
HEAVY = {"torch", "transformers", "trl", "vllm"}
LONGEST_FILE = 450
LONGEST_FUNCTION = 45


def modules() -> dict[str, Path]:
    """Dotted name within the package ("train", "clinic.cases", "clinic" for its __init__) -> file."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        found[".".join(part for part in parts if part != "__init__")] = path
    del found[""]
    return found


MODULES = modules()


def package_imports(path: Path) -> set[str]:
    """Modules of this package that a file imports, at any depth of the code."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            assert not node.level, (
                f"{path.name}:{node.lineno} imports relatively; write clinical_r1.<module>."
            )
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        else:
            continue
        found |= {name.removeprefix("clinical_r1.") for name in names} & MODULES.keys()
    return found


@pytest.mark.parametrize("module", LIGHT)
def test_light_modules_load_no_heavy_library(module):
    code = f"import sys, {module}\nprint(*sorted({{name.split('.')[0] for name in sys.modules}} & {HEAVY}))"
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert run.stdout.split() == []


def test_the_command_line_runs_on_the_standard_library():
    """./reproduce.sh checks its arguments with it before anything is installed."""
    code = (
        "import sys\nfor name in ('numpy', 'pandas', 'torch', 'psutil', 'papermill', 'tqdm'): sys.modules[name] = None\n"
        "from clinical_r1.pipeline.__main__ import main\nsys.exit(main(['smoke', '--dry-run']))"
    )
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr


def test_the_house_has_exactly_these_rooms():
    root = {name for name in MODULES if "." not in name} - WINGS.keys()
    assert root == LEVEL.keys()
    assert {name.split(".")[0] for name in MODULES if "." in name} == WINGS.keys()
    assert len(list(PACKAGE.glob("*.py"))) <= 26


@pytest.mark.parametrize("module", MODULES)
def test_imports_point_the_way_the_plan_says(module):
    for imported in package_imports(MODULES[module]):
        here, there = module.split(".")[0], imported.split(".")[0]
        if here in WINGS:
            assert there in (here, *LEVEL, *WINGS[here]), f"{module} imports {imported}"
        elif there in WINGS:
            assert there in ROOT_FROM_WINGS.get(here, ()), f"{module} imports {imported}"
        else:
            assert LEVEL[there] <= LEVEL[here], f"{module} imports {imported}"


def test_no_import_goes_round_in_a_circle():
    graph = {name: package_imports(path) for name, path in MODULES.items()}
    done, path = set(), []

    def visit(name):
        assert name not in path, f"import circle: {' -> '.join([*path[path.index(name) :], name])}"
        if name in done:
            return
        path.append(name)
        for imported in sorted(graph[name]):
            visit(imported)
        done.add(path.pop())

    for name in graph:
        visit(name)


@pytest.mark.parametrize("wing", WINGS)
def test_every_wing_says_what_it_is_for(wing):
    tree = ast.parse((PACKAGE / wing / "__init__.py").read_text(encoding="utf-8"))
    assert 1 <= ast.get_docstring(tree).count(".") <= 6


@pytest.mark.parametrize("module", MODULES)
def test_no_file_is_longer_than_one_can_read(module):
    assert len(MODULES[module].read_text(encoding="utf-8").splitlines()) <= LONGEST_FILE


@pytest.mark.parametrize("module", MODULES)
def test_no_module_uses_the_private_names_of_another(module):
    tree = ast.parse(MODULES[module].read_text(encoding="utf-8"))
    private = [
        f"{node.module}.{alias.name}"
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("clinical_r1")
        for alias in node.names
        if alias.name.startswith("_") and not alias.name.startswith("__")
    ]
    assert private == []


def test_the_wheel_holds_every_wing():
    """Colab installs from it: setuptools takes each folder that the project's rule names and that has an __init__.py."""
    rule = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]
    assert rule["packages"] == {"find": {"include": ["clinical_r1*"]}}
    folders = {path.parent for path in PACKAGE.rglob("*.py")}
    assert folders == {PACKAGE, *(PACKAGE / wing for wing in WINGS)}
    assert all((folder / "__init__.py").is_file() for folder in folders)


def test_no_module_finds_its_files_from_where_it_stands():
    """`__file__` of a module changes when it moves; `files.PACKAGE` and `files.ROOT` do not."""
    users = [name for name, path in MODULES.items() if "Path(__file__)" in path.read_text(encoding="utf-8")]
    assert users == ["files"]


@pytest.mark.parametrize("module", MODULES)
def test_modules_that_are_started_by_name_exist(module):
    tree = ast.parse(MODULES[module].read_text(encoding="utf-8"))
    texts = [
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    ]
    named = {name for text in texts for name in re.findall(r"-m clinical_r1\.([a-z_.]+[a-z_])", text)}
    named |= {
        text.removeprefix("clinical_r1.") for text in texts if re.fullmatch(r"clinical_r1\.[a-z_.]+", text)
    }
    assert named <= MODULES.keys()


@pytest.mark.parametrize("module", MODULES)
def test_no_function_is_longer_than_a_screen(module):
    tree = ast.parse(MODULES[module].read_text(encoding="utf-8"))
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    long = {
        f.name: f.end_lineno - f.lineno + 1
        for f in functions
        if f.end_lineno - f.lineno + 1 > LONGEST_FUNCTION
    }
    assert long == {}
