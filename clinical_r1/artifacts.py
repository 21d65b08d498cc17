"""An arm on disk: what to load for it, whether it is finished, and with which settings, weights and rules.

A stamp holds what a result was made from and no more, so that a changed rule makes stale just the arms that it touches.
"""

import ast
import hashlib
import json
from dataclasses import asdict, replace
from functools import cache
from pathlib import Path

from clinical_r1.arms import ARMS
from clinical_r1.models import resolve_base
from clinical_r1.rewards import REWARD_SETS


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


COLD_START = "cold_start"

# The settings a trained policy depends on; a result made with others is refused, not reused.
TRAINED_ON = (
    "base_model", "backend", "lora_rank", "lora_alpha", "train_benchmark", "n_sft", "sft_epochs", "sft_batch",
    "sft_learning_rate", "teacher_traces",
)  # fmt: skip
RL_ON = TRAINED_ON + (
    "n_rl", "rl_steps", "rl_prompts", "num_generations", "rl_learning_rate", "rl_beta", "rl_temperature",
    "max_completion_tokens", "micro_batch", "shared_prefix",
)  # fmt: skip


def policy_of(settings, method: str, seed: int) -> tuple[str, Path | None]:
    """What to load for a method: (base model or folder of merged weights, adapter folder or None)."""
    start = settings.base_model
    if method == COLD_START or ARMS[method].cold_start:
        start = str(settings.model_dir(COLD_START, seed) / "policy")
    if method in ("baseline", COLD_START):
        return start, None
    trained = settings.model_dir(method, seed) / "policy"
    return (start, trained) if settings.lora_rank else (str(trained), None)


def is_trained(settings, arm: str, seed: int) -> bool:
    """True when the arm is complete on disk. ValueError when it was trained with other settings or reward rules."""
    stamp = settings.model_dir(arm, seed) / "done.json"
    if arm == COLD_START:
        return same_settings(stamp, settings, TRAINED_ON)
    return same_settings(stamp, settings_of(settings, arm), RL_ON, **arm_stamp(arm))


def settings_of(settings, arm: str):
    """The settings as an arm changes them."""
    return replace(settings, **dict(ARMS[arm].changes))


def arm_stamp(arm: str) -> dict:
    """What an arm's result depends on besides the settings: the reward rules, and for an ablation its own record."""
    spec, stamp = ARMS[arm], {"reward_rules": reward_rules()}
    if spec.family != "main":
        stamp["arm"] = asdict(spec)
    if spec.rewards not in REWARD_SETS:
        stamp["variant_rules"] = code_hash("reward_variants", "VARIANT_SETS")[:16]
    if spec.rewards == "grounded":
        stamp["grounded_rules"] = code_hash("grounded", "REWARDS")[:16]
    return stamp


@cache
def reward_rules() -> str:
    """What the rewards and the prompts are made of, as 16 digits: an arm trained under other rules is another arm."""
    parts = [
        code_hash("completions", "parse_completion", "remove_box", "Completion"),
        code_hash("rewards", "REWARD_SETS"),
        code_hash("prompts", "build_messages"),
    ]
    return hashlib.sha256(" ".join(parts).encode()).hexdigest()[:16]


def weights_hash(settings, method: str, seed: int) -> str:
    """sha256 (16 digits) of the weights a method answers with: its own, and those it was laid on; a Hub id as it is."""
    base, adapter = policy_of(settings, method, seed)
    folders = [Path(resolve_base(base)), *([adapter] if adapter else [])]
    files = [path for folder in folders for path in sorted(folder.glob("*.safetensors"))]
    digest = hashlib.sha256(b"" if folders[0].is_dir() else base.encode())
    for path in files:
        state = path.stat()
        digest.update(_file_hash(path, state.st_size, state.st_mtime_ns))
    return digest.hexdigest()[:16]


@cache
def _file_hash(path: Path, size: int, modified: int) -> bytes:
    """sha256 of a file, read once while it stays as it is: merged 3B weights are asked for by every completion file."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").digest()
