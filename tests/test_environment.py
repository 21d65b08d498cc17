"""One set of direct dependencies: pyproject's ranges, environment.yml's pins, and what the package imports.

python -m pytest tests/test_environment.py
"""

import ast
import re
import shutil
import subprocess
import sys
import tomllib

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from clinical_r1.files import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]


def by_name(requirements) -> dict[str, Requirement]:
    parsed = [Requirement(text) for text in requirements]
    return {canonicalize_name(requirement.name): requirement for requirement in parsed}


def environment() -> tuple[str, list[str]]:
    """The Python version and the pip requirements of environment.yml."""
    text = (ROOT / "environment.yml").read_text()
    _, pip_block = text.split("- pip:\n")
    return re.search(r"- python=(\S+)", text)[1], re.findall(r"^ +- (\S+)", pip_block, re.MULTILINE)


RANGES = by_name(PROJECT["dependencies"] + EXTRAS["dev"])
PINS = by_name(environment()[1])


def test_both_files_name_the_same_packages():
    assert PINS.keys() == RANGES.keys()


@pytest.mark.parametrize("name", sorted(PINS))
def test_each_pin_is_exact_and_in_range(name):
    (pin,) = PINS[name].specifier
    assert pin.operator == "==" and "*" not in pin.version
    assert RANGES[name].specifier.contains(pin.version)


def test_python_of_environment_is_supported():
    version, _ = environment()
    assert Requirement(f"python{PROJECT['requires-python']}").specifier.contains(version)


def test_ranges_admit_colab():
    """Colab's own torch, transformers, numpy, … must satisfy pyproject, or its set-up cell would replace them."""
    shipped = by_name(
        line
        for line in (ROOT / "tests/colab_runtime.txt").read_text().splitlines()
        if line and line[0] != "#"
    )
    shared = shipped.keys() & RANGES.keys()
    assert {"torch", "transformers", "peft", "accelerate", "numpy", "pandas", "matplotlib"} <= shared
    for name in shared:
        (pin,) = shipped[name].specifier
        assert RANGES[name].specifier.contains(pin.version), (
            f"{RANGES[name]} refuses Colab's {name} {pin.version}"
        )


def test_trl_that_cannot_run_on_a_cpu_is_excluded():
    assert not RANGES["trl"].specifier.contains("1.15.0")


def imported(folder: str) -> set[str]:
    """Top-level names of third-party modules that any file of `folder` imports, at any depth."""
    names = set()
    for path in (ROOT / folder).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                names |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and not node.level:
                names.add(node.module.split(".")[0])
    own = {name for path in (ROOT / folder).rglob("*.py") for name in (path.stem, path.parent.name)}
    return names - set(sys.stdlib_module_names) - own - {"clinical_r1"}


@pytest.mark.parametrize(
    "folder, declared",
    [
        (
            "clinical_r1",
            PROJECT["dependencies"] + EXTRAS["gguf"] + EXTRAS["gpu"] + EXTRAS["vllm"] + EXTRAS["workshop"],
        ),
        ("tests", PROJECT["dependencies"] + EXTRAS["dev"]),
    ],
)
def test_every_import_is_declared(folder, declared):
    names = {name.replace("-", "_") for name in by_name(declared)}
    assert imported(folder) <= names


@pytest.mark.parametrize(
    "name", ["reproduce.sh", "clinical_r1/data/clinic_base/config.json", "notebooks/01_data_curation.ipynb"]
)
def test_a_clone_keeps_the_line_ends_of_every_file(tmp_path, name):
    """With core.autocrlf a base model's files would be others than their sha256, and bash would refuse the script."""
    source, clone = tmp_path / "source", tmp_path / "clone"
    source.mkdir()
    for path in (".gitattributes", name):
        (source / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / path, source / path)
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@b.example", "-c", "core.autocrlf=true"]
    for arguments in (["init", "-q"], ["add", "."], ["commit", "-qm", "one"]):
        subprocess.run([*git, "-C", str(source), *arguments], check=True, capture_output=True)
    subprocess.run([*git, "clone", "-q", str(source), str(clone)], check=True, capture_output=True)
    assert (clone / name).read_bytes() == (ROOT / name).read_bytes()
