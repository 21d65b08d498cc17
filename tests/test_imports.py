"""The house stays cheap to enter and imports only downward.

python -m pytest tests/test_imports.py
"""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "clinical_r1"

# From the ground up. A module imports rows below its own; sideways only in the first two.
LAYERS = (
    ("settings", "files", "arms"),
    ("questions", "curation", "clinic", "clinic_text", "prompts", "completions"),
    ("intervals",),
    ("rewards", "advantages", "metrics", "paper", "plots", "cost", "prefix_attention"),
    (
        "tables",
        "real",
        "agreement",
        "audit",
        "redteam",
        "probes",
        "grounded",
        "anatomy",
        "tradeoffs",
        "plots_laboratory",
    ),
    ("probe_quality", "reward_variants", "plots_laboratory"),
    ("models", "prefix", "prefill", "multi_objective"),
    ("judge_models", "export"),
    ("judge",),
    ("generate",),
    ("scoring", "robustness", "train", "pretrain"),
    ("manifest",),
    ("ledger", "ablations"),
    ("harness", "readme", "workbooks"),
    ("pipeline", "exercises"),
    ("reproduce",),
)
SIDEWAYS_ROWS = 2
LEVEL = {module: row for row, modules in enumerate(LAYERS) for module in modules}
LIGHT = [module for modules in LAYERS[:6] for module in modules if (PACKAGE / f"{module}.py").exists()]
# "python -m clinical_r1.clinic pretrain" trains the base model that the clinic ships.
UPWARD = {("clinic", "pretrain")}


def modules() -> list[str]:
    return sorted(path.stem for path in PACKAGE.glob("*.py") if path.stem != "__init__")


@pytest.mark.parametrize("module", LIGHT + ["reproduce"])
def test_light_modules_load_no_heavy_library(module):
    code = (
        f"import sys, clinical_r1.{module}\n"
        "print(*sorted({name.split('.')[0] for name in sys.modules} & {'torch', 'transformers', 'trl', 'vllm'}))"
    )
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert run.stdout.split() == []


def test_the_layer_table_names_every_module():
    # Rows may name modules that come later; every module that exists must have its row.
    assert set(modules()) <= LEVEL.keys()


def own_imports(path: Path) -> set[str]:
    """Modules of this package that a file imports, at any depth of the code."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            assert not node.level, (
                f"{path.name}:{node.lineno} imports relatively; write clinical_r1.<module>."
            )
            if node.module == "clinical_r1":
                found |= {alias.name for alias in node.names} & LEVEL.keys()
            elif node.module.startswith("clinical_r1."):
                found.add(node.module.split(".")[1])
        elif isinstance(node, ast.Import):
            found |= {
                alias.name.split(".")[1] for alias in node.names if alias.name.startswith("clinical_r1.")
            }
    return found


@pytest.mark.parametrize("module", modules())
def test_imports_point_downward(module):
    for imported in own_imports(PACKAGE / f"{module}.py"):
        sideways = LEVEL[imported] == LEVEL[module] < SIDEWAYS_ROWS
        downward = LEVEL[imported] < LEVEL[module]
        assert downward or sideways or (module, imported) in UPWARD, f"{module} imports {imported}"
