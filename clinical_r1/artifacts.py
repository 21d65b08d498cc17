"""An arm on disk: what to load for it, whether it is finished, and with which settings, weights and rules.

A stamp holds what a result was made from and no more, so that a changed rule makes stale just the arms that it touches.
"""

import ast
import hashlib
import json
import sys
import sysconfig
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache, partial
from importlib import metadata
from pathlib import Path

from clinical_r1.advantages import TRL_ARGUMENTS
from clinical_r1.arms import ARMS, in_order
from clinical_r1.files import PACKAGE, read_json, read_jsonl, sha256, write_json
from clinical_r1.files import digest as file_digest
from clinical_r1.laboratory.variants import VARIANT_SETS
from clinical_r1.models import precision, resolve_base
from clinical_r1.rewards import REWARD_SETS, RewardSet

# The settings a trained policy depends on; a result made with others is refused, not reused.
TRAINED_ON = (
    "base_model", "backend", "use_vllm", "load_in_4bit", "device_dtype", "lora_rank", "lora_alpha", "train_benchmark", "n_sft",
    "sft_epochs", "sft_batch", "sft_learning_rate", "teacher_traces", "micro_batch",
    "sft_micro_batch",
)  # fmt: skip
RL_ON = TRAINED_ON + (
    "n_rl", "rl_steps", "rl_prompts", "num_generations", "rl_learning_rate", "rl_beta", "rl_temperature",
    "max_completion_tokens", "shared_prefix", "draws",
)  # fmt: skip
PREFERENCE_ON = (*TRAINED_ON[:8], "micro_batch", "sft_batch")  # the policy, and how many rows a step takes
# In an arm's folder: what it is made from, written before its first step; and the same with what came of it, the last file
BEGUN, DONE, LOG = "begun.json", "done.json", "log_history.jsonl"
PAIRS, TRACES = "pairs.jsonl", "traces.jsonl"  # what an arm with `data` learns from
KEPT = (BEGUN, LOG, "start", "policy", PAIRS, TRACES)  # what done.json lists, file by file
# Of an arm with `data`: the module that has a function of each name; and how a stage learns from pairs
DATA_RULES, RECIPE = "clinical_r1.preferences.learned", "clinical_r1.preferences.recipe:Recipe"
TEACHER = "clinical_r1.clinic.traces:scripted_traces"  # the clinic's own


# ------------------------------------------------------------------------------------------------- what an arm is made of


def reward_set(name: str) -> RewardSet:
    """A reward set by name: the paper's two, a user's own, or the laboratory's. ValueError for another name."""
    known = VARIANT_SETS | REWARD_SETS
    if name not in known:
        raise ValueError(f"reward set {name!r} is not known; expected one of {', '.join(known)}.")
    return known[name]


def settings_of(settings, arm: str):
    """The settings as an arm changes them."""
    return replace(settings, **dict(ARMS[arm].changes))


def arm_stamp(name: str) -> dict:
    """What an arm's result depends on besides the settings, and nothing that it does not: see `code_hash`.

    For RL: the prompt, the code of its reward functions with their weights, how they become one advantage, and the same of the
    arms it starts from. What TRL computes itself is named, not hashed. An arm with `data` is stamped with the file of it, too.
    """
    arm = ARMS[name]
    stamp = {} if arm.start == "baseline" or not arm.stage else {"start": {arm.start: arm_stamp(arm.start)}}
    if arm.stage:
        stamp["prompt_rules"] = digest(code_hash("clinical_r1.prompts:build_messages"))
    if arm.data:
        stamp["data_rules"] = {arm.data: digest(code_hash(f"{DATA_RULES}:{arm.data}"))}
    if arm.stage == "preference":
        stamp["recipe"] = {"options": dict(arm.options), "rules": digest(code_hash(RECIPE))}
    if arm.stage != "rl":
        return stamp
    rewards = reward_set(arm.rewards)
    aggregation = {"name": arm.aggregation, "options": dict(arm.options)}
    if arm.aggregation not in TRL_ARGUMENTS:
        frame = code_hash("clinical_r1.advantages:contributions", leave_out=("AGGREGATIONS",))
        aggregation["rules"] = digest(frame, code_hash(f"clinical_r1.advantages:{arm.aggregation}"))
    return stamp | {
        "style": arm.style,
        "reward_rules": digest(*map(callable_hash, rewards.functions)),
        "weights": list(arm.weights or rewards.weights),
        "aggregation": aggregation,
    }


def digest(*parts: str) -> str:
    """sha256 of several texts in order, as 16 digits."""
    return hashlib.sha256(" ".join(parts).encode()).hexdigest()[:16]


def callable_hash(function) -> str:
    """`code_hash` of a reward function, a partial of one, or an object that can be called, with the values bound to it.

    A function of an installed library is named with the library's version. ValueError for what cannot be told apart from its
    own next version: a lambda, a function typed into a notebook, a bound value that is no plain one.
    """
    bound = []
    while isinstance(function, partial):
        bound += [_plain(value) for value in (*function.args, *sorted(function.keywords.items()))]
        function = function.func
    bound += [_plain(cell.cell_contents) for cell in getattr(function, "__closure__", None) or ()]
    if not hasattr(function, "__qualname__"):
        bound += [_plain(item) for item in sorted(vars(function).items())]
        function = type(function)
    module, name = function.__module__, function.__qualname__.split(".")[0]
    if _source_file(module) is None and (library := _library(module)):
        return " ".join((f"{library} {module}:{function.__qualname__}", *bound))
    return " ".join((code_hash(f"{module}:{name}"), *bound))


def _plain(value) -> str:
    """A bound value as text that is the same in every process."""
    if value is None or isinstance(value, str | int | float | bool):
        return repr(value)
    if isinstance(value, list | tuple | set | frozenset):
        parts = [_plain(item) for item in value]
        return f"{type(value).__name__}({', '.join(sorted(parts) if isinstance(value, set | frozenset) else parts)})"
    if isinstance(value, Mapping):
        return f"{{{', '.join(sorted(f'{_plain(key)}: {_plain(item)}' for key, item in value.items()))}}}"
    if callable(value):
        return callable_hash(value)
    raise ValueError(
        f"a {type(value).__name__} is bound to a reward function; bind numbers, texts, lists, dicts or functions."
    )


def _library(module: str) -> str | None:
    """ "name version" of the installed library that a module belongs to; "python" for the standard library."""
    top = module.split(".")[0]
    if top in sys.stdlib_module_names and top != "__main__":
        return "python"
    names = metadata.packages_distributions().get(top, ()) if top != "__main__" else ()
    return " ".join(f"{name} {metadata.version(name)}" for name in sorted(set(names))) or None


@cache
def code_hash(*roots: str, leave_out: tuple[str, ...] = ()) -> str:
    """sha256 over the code of `roots` and all code that they use, in this package or a user's own file.

    roots: "module:name" of functions, classes or constants. Imports are followed from module to module. Comments, docstrings and
    what the roots never name are left out, and so are the places where code stands: the hash changes when the rules may have,
    not when a file moves or a neighbour is added. leave_out: names that are not followed. ValueError for an unknown root.
    """
    used, waiting = {}, [tuple(root.split(":")) for root in roots]
    for module, name in waiting:
        if name not in _code_of(module)[0]:
            raise ValueError(f"{module} defines no {name}; name one of its functions, classes or constants.")
    while waiting:
        module, name = waiting.pop()
        if (module, name) in used or name in leave_out:
            continue
        defined, imported = _code_of(module)
        if name in imported:
            waiting += [imported[name]] if imported[name][1] else []
            continue
        nodes = defined.get(name, ())
        used[module, name] = "".join(map(ast.dump, nodes))
        for node in (inner for each in nodes for inner in ast.walk(each)):
            if isinstance(node, ast.Name) and (node.id in defined or node.id in imported):
                waiting.append((module, node.id))
            elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                there, whole = imported.get(node.value.id, ("", "not a module"))
                waiting += [(there, node.attr)] if there and whole is None else []
    return hashlib.sha256("\n".join(sorted(used.values())).encode()).hexdigest()


@cache
def _code_of(module: str) -> tuple[dict, dict]:
    """A module's top-level names -> the statements that make them, and local names -> (module, name or None) imported.

    Imports of installed libraries are not listed: a hash is not about libraries.
    """
    path = _source_file(module)
    if path is None:
        raise ValueError(
            f"the code of {module} stands in no file, so it cannot be stamped: write it into one and load that "
            "(`extensions.load`, or ./reproduce.sh --with FILE)."
        )
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and ast.get_docstring(node) is not None:
            del node.body[0]
    defined = {}
    for node in tree.body:
        for name in _names_made_by(node):
            defined.setdefault(name, []).append(node)
    imported = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module and _source_file(node.module):
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                local = alias.asname or alias.name
                imported[local] = (inner, None) if _source_file(inner) else (node.module, alias.name)
        elif isinstance(node, ast.Import):
            found = [alias for alias in node.names if _source_file(alias.name)]
            imported |= {alias.asname or alias.name: (alias.name, None) for alias in found}
    return defined, imported


def _names_made_by(node) -> set[str]:
    """Names that a top-level statement defines, also inside if, try, with or a loop, or changes by index or attribute."""
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return {node.name}
    names = set()
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.stmt | ast.ExceptHandler):
            names |= _names_made_by(child)
    for target in getattr(node, "targets", [getattr(node, "target", None)]):
        for leaf in getattr(target, "elts", [target]):
            while isinstance(leaf, ast.Subscript | ast.Attribute):
                leaf = leaf.value
            names |= {leaf.id} if isinstance(leaf, ast.Name) else set()
    return names


def forget_code() -> None:
    """Read modules anew: an own file has changed while this process lives."""
    _code_of.cache_clear()
    code_hash.cache_clear()


def _source_file(module: str) -> Path | None:
    """Where a module of this package, or a file of the user's, is written; None for what is installed or has no file."""
    if module.split(".")[0] == PACKAGE.name:
        path = PACKAGE.joinpath(*module.split(".")[1:])
        return next(
            (file for file in (path.with_suffix(".py"), path / "__init__.py") if file.is_file()), None
        )
    file = getattr(sys.modules.get(module), "__file__", None)
    if not file or not file.endswith(".py") and not hasattr(sys.modules[module], "CLINICAL_R1_OWN_FILE"):
        return None
    path = Path(file).resolve()
    packages = {"site-packages", "dist-packages"} & set(path.parts)
    return None if packages or any(path.is_relative_to(folder) for folder in _installed()) else path


@cache
def _installed() -> tuple[Path, ...]:
    """Folders of the standard library and of installed libraries: what lies there is named by its version."""
    kinds = ("stdlib", "platstdlib", "purelib", "platlib")
    return tuple(Path(sysconfig.get_path(kind)).resolve() for kind in kinds)


# ------------------------------------------------------------------------------------------------------------- on disk


class StaleError(ValueError):
    """A result that was made from something else than today's. changed: the keys of the stamp that differ."""

    def __init__(self, message: str, changed: Sequence[str]):
        super().__init__(message)
        self.changed = tuple(changed)


def same_settings(stamp: Path, settings, keys, **stamped) -> bool:
    """True when `stamp` exists and agrees with the settings (and with `stamped`), False when it is missing.

    StaleError when it was made with others: a stale result must not pass for a new one. ValueError when it is damaged.
    """
    if not stamp.exists():
        return False
    made, now = read_json(stamp), json.loads(json.dumps(settings.to_json() | stamped))
    changed = [key for key in (*keys, *stamped) if made.get(key) != now[key]]
    if changed:
        listed = "; ".join(f"{key} was {made.get(key)!r}, now {now[key]!r}" for key in changed)
        raise StaleError(
            f"{stamp} was made from something else ({listed}); restore that, or move {settings.run_dir} away or use --fresh.",
            changed,
        )
    return True


def start_of(settings, arm: str, seed: int) -> str:
    """What an arm's training starts from: the base model, or a folder of whole weights.

    Of a start that is an adapter on its own start, the arm keeps a merged copy, `start/`, which `train` writes.
    """
    start = ARMS[arm].start
    if not ARMS[start].stage:
        return settings.base_model
    if _ends_as_adapter(settings, start):
        return str(settings.model_dir(arm, seed) / "start")
    return str(settings.model_dir(start, seed) / "policy")


def policy_of(settings, arm: str, seed: int) -> tuple[str, Path | None]:
    """What to load for an arm: (base model or folder of whole weights, adapter folder or None)."""
    if not ARMS[arm].stage:
        return settings.base_model, None
    trained = settings.model_dir(arm, seed) / "policy"
    adapter = _ends_as_adapter(settings, arm)
    return (start_of(settings, arm, seed), trained) if adapter else (str(trained), None)


def _ends_as_adapter(settings, arm: str) -> bool:
    return ARMS[arm].stage in ("rl", "preference") and settings_of(settings, arm).lora_rank > 0


def data_path(settings, arm: str, seed: int) -> Path:
    """What an arm with `data` learns from."""
    return settings.model_dir(arm, seed) / (PAIRS if ARMS[arm].stage == "preference" else TRACES)


# ------------------------------------------------------------------------------------------------- the chain of custody

# Files of a model's folder that change nothing of what it says
SILENT = ("README.md", "LICENSE", "sha256.json")


def hashes_of(folder: Path) -> dict[str, str]:
    """{path within the folder: sha256} of all that a model or an adapter is loaded from: weights, configuration of either,
    generation_config, tokenizer, chat template. Hidden files and `SILENT` are left out; what stays as it is, is read once.
    """
    found = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder)
        if path.is_file() and path.name not in SILENT and not any(part[0] == "." for part in name.parts):
            found[name.as_posix()] = file_digest(path)
    return found


def difference(now: Mapping[str, str], expected: Mapping[str, str]) -> str | None:
    """The first file whose hash differs, in words; None where all agree."""
    for name in sorted(now.keys() | expected.keys()):
        if name not in expected:
            return f"{name} was added"
        if now.get(name) != expected[name]:
            return f"{name} {'was changed' if name in now else 'is missing'}"
    return None


def _hashes_in(folder: Path, parts=KEPT) -> dict[str, str]:
    found = {part: sha256(folder / part) for part in parts if (folder / part).is_file()}
    return found | {
        f"{part}/{name}": value for part in parts for name, value in hashes_of(folder / part).items()
    }


def _check_files(record: Path, parts=KEPT) -> None:
    """ValueError unless these parts of an arm's folder are, file by file, what `record` beside them lists."""
    listed = read_json(record).get("files")
    if not isinstance(listed, dict):
        raise ValueError(f"{record} lists no files; expected the sha256 of each. Move {record.parent} away.")
    if found := difference(_hashes_in(record.parent, parts), listed):
        raise ValueError(
            f"in {record.parent}, {found} since {record.name} was written; restore the file, or delete {record.name} and train "
            "again: an arm whose checkpoints are whole ends in the same weights."
        )


def policy_hash(settings, method: str, seed: int) -> str:
    """sha256 (16 digits) of all that speaks when a method answers: every file of its own policy (`hashes_of`) and of the folder
    it is laid on. A Hub id stands for itself. ValueError for an arm that is not trained, or has changed since.
    """
    if ARMS[method].stage and not is_trained(settings, method, seed):
        raise ValueError(
            f"{method} with seed {seed} is not trained in {settings.run_dir}; run the training stage first."
        )
    base, adapter = policy_of(settings, method, seed)
    folder = Path(resolve_base(base))
    parts = [*hashes_of(folder).items()] if folder.is_dir() else [("hub", base)]
    parts += [("adapter", ""), *hashes_of(adapter).items()] if adapter else []
    return digest(json.dumps(parts))


def is_trained(settings, arm: str, seed: int) -> bool:
    """True when an arm is complete on disk, False when it is not, or when what it starts from is not.

    StaleError when it was trained, or begun, with other settings, rules, questions or traces, or from another start than today's.
    ValueError when a file of its policy is missing, new or another one than training wrote.
    """
    folder = settings.model_dir(arm, seed)
    record = folder / (DONE if (folder / DONE).exists() else BEGUN)
    if not same_settings(record, settings, (), **_made_from(settings, arm, seed)) or record.name == BEGUN:
        return False
    start = ARMS[arm].start
    if ARMS[start].stage and not is_trained(settings, start, seed):
        return False
    same_settings(record, settings, (), start_policy=policy_hash(settings, start, seed))
    _check_files(record)
    return True


def _made_from(settings, arm: str, seed: int) -> dict:
    """All that an arm is stamped with, but for the weights that it starts from.

    questions: hash of the file, where it still lies on disk. teacher: of a supervised stage's traces, or of the scripted teacher;
    data: of an arm's own pairs or traces, None where they are not made yet.
    """
    stage, values = ARMS[arm].stage, settings_of(settings, arm).to_json()
    stamp = {key: values[key] for key in {"sft": TRAINED_ON, "preference": PREFERENCE_ON}.get(stage, RL_ON)}
    stamp |= {"arm": arm, "seed": seed, "device_dtype": precision(settings)} | arm_stamp(arm)
    path = settings.questions_path(values["train_benchmark"], stage)
    stamp |= {"questions": sha256(path)[:16]} if path.exists() else {}
    if ARMS[arm].data:
        data = data_path(settings, arm, seed)
        stamp["data"] = sha256(data)[:16] if data.exists() else None
    elif stage == "sft":
        traces = values["teacher_traces"]
        stamp["teacher"] = (sha256(Path(traces)) if traces else code_hash(TEACHER))[:16]
    return stamp


def begin(settings, arm: str, seed: int, processes: int = 1) -> None:
    """Stamp an arm before its first step; of one that was begun before, see that it goes on from the same.

    processes: that train together, each with random numbers of its own. StaleError when it goes on from something else, or when
    there are checkpoints that nothing says the origin of.
    """
    folder = settings.model_dir(arm, seed)
    stamp = _made_from(settings, arm, seed) | {"processes": processes}
    stamp["start_policy"] = policy_hash(settings, ARMS[arm].start, seed)
    if same_settings(folder / BEGUN, settings, (), **stamp):
        _check_files(folder / BEGUN, ("start",))
    elif found := sorted((folder / "checkpoints").glob("checkpoint-*")):
        raise StaleError(
            f"{found[0]} lies in a folder without {BEGUN}, so nothing says what it was made from; move {folder} away.",
            (BEGUN,),
        )
    else:
        write_json(folder / BEGUN, stamp | {"files": _hashes_in(folder, ("start",))})


def end(settings, arm: str, seed: int, checked: Mapping) -> None:
    """Write done.json, the last file of an arm: its stamp, what was checked, the sha256 of every file that speaks, and with
    which libraries it was trained (of a continued arm, its end).
    """
    folder = settings.model_dir(arm, seed)
    versions = {name: metadata.version(name) for name in ("torch", "transformers", "trl", "peft")}
    found = {"checked": dict(checked), "files": _hashes_in(folder), "versions": versions}
    write_json(folder / DONE, read_json(folder / BEGUN) | found)


def read_logs(settings):
    """Frame of every RL arm's log, a row a step: method, seed, step, reward, rewards/<name>/mean, kl, lengths.

    Supervised logs are not among them.
    """
    import pandas as pd

    frames = []
    for method in in_order(settings.methods):
        for seed in settings.seeds if ARMS[method].stage == "rl" else ():
            rows = pd.DataFrame(read_jsonl(settings.model_dir(method, seed) / LOG))
            frames.append(rows[rows["reward"].notna()].assign(method=method, seed=seed))
    return pd.concat(frames, ignore_index=True)
