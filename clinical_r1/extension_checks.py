"""What an own file may hold, checked before anything is trained: each fault is one sentence that names the object and the fix.

`own` is the `extensions.OwnFile` that is being read; its `fault` makes the sentence.
"""

import importlib
import re
import unicodedata
from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import fields
from pathlib import Path

from clinical_r1.advantages import AGGREGATIONS, group_advantages, options_of
from clinical_r1.arms import ARMS, Arm, starts_of
from clinical_r1.artifacts import callable_hash, reward_set
from clinical_r1.engines.replay import PARTS_OF_FILES, AnswerFile, check_model_name
from clinical_r1.engines.server import FIELDS as SERVER_FIELDS
from clinical_r1.engines.server import Server
from clinical_r1.labels import BENCHMARK_LABELS, GUESSES, METHOD_LABELS
from clinical_r1.rewards import RewardSet, check_values, clinical_reasoning_reward
from clinical_r1.settings import CLINIC_BASE

SPLITS = ("test", "sft", "rl")
SEED = re.compile(r"seed\d+")
# The settings that one arm's training reads; what all arms share cannot differ for one
ARM_MAY_CHANGE = (
    "rl_steps", "rl_prompts", "num_generations", "rl_learning_rate", "rl_beta", "rl_temperature", "max_completion_tokens",
    "micro_batch", "shared_prefix", "draws", "gradient_checkpointing", "save_steps", "lora_alpha", "sft_epochs", "sft_batch",
    "sft_learning_rate", "teacher_traces",
)  # fmt: skip
# What a reward function is tried on before anything is trained: an answer in each format, a bare letter, nothing
TRIAL_OPTIONS = {"A": "Gout", "B": "Septic arthritis"}
TRIAL_TEXTS = (
    r"<dx> (System 1: Intuitive) gout? (System 2: Analytical) fever and a positive culture support septic arthritis. </dx> "
    r"<conclusion> Fever and a positive culture: \boxed{B} </conclusion>",
    r"<think> fever suggests an infection </think> <answer> fever: \boxed{B} </answer>",
    r"\boxed{A}",
    "",
)


def check_arm(own, arm: Arm) -> None:
    """The fault of an own arm: its stage, label, start, rewards, weights, aggregation or changes do not fit."""
    where = f"arm {arm.name!r}"
    if not arm.stage or arm.family == "main":
        raise own.fault(
            where,
            f"has the stage {arm.stage!r} and the family {arm.family!r}; expected sft, rl or preference, and a family of yours",
        )
    if [*METHOD_LABELS.values()].count(arm.label) > 1:
        raise own.fault(
            where, f"has the label {arm.label!r} of another arm; tables could not tell them apart"
        )
    try:
        starts_of(arm.name)
        rewards = reward_set(arm.rewards) if arm.stage == "rl" else None
        if arm.stage == "preference":
            importlib.import_module("clinical_r1.preferences.recipe").recipe_of(arm.options)
    except ValueError as error:
        raise own.fault(where, str(error)) from error
    if rewards and arm.weights is not None and len(arm.weights) != len(rewards.functions):
        raise own.fault(
            where,
            f"has {len(arm.weights)} weights; expected {len(rewards.functions)}, for {', '.join(rewards.names)}",
        )
    if rewards:
        if arm.style != "crpo" and clinical_reasoning_reward in rewards.functions:
            raise own.fault(
                where,
                f"is asked in style {arm.style!r} and paid by clinical_reasoning_reward, which is 0 for every text of that "
                "style; use style='crpo', or other rewards",
            )
        _check_aggregation(own, arm, rewards)
    if unknown := sorted(set(dict(arm.changes)) - set(ARM_MAY_CHANGE)):
        raise own.fault(where, f"changes {unknown}; an arm may change {', '.join(ARM_MAY_CHANGE)}")


def _check_aggregation(own, arm: Arm, rewards: RewardSet) -> None:
    """Its name and options, tried on rewards of zero as training would use them."""
    where, options = f"arm {arm.name!r}", dict(arm.options)
    if arm.aggregation not in AGGREGATIONS:
        raise own.fault(
            where, f"has the aggregation {arm.aggregation!r}; expected one of {', '.join(AGGREGATIONS)}"
        )
    # constrained also takes what moves its multipliers (`trainer.MultiObjectiveMixin`)
    known = {*options_of(arm.aggregation), *(("targets", "rate") if arm.aggregation == "constrained" else ())}
    if unknown := sorted(set(options) - known):
        raise own.fault(
            where, f"gives {arm.aggregation} the option {unknown}; expected {sorted(known) or 'none'}"
        )
    if not known:
        return
    count = len(rewards.functions)
    if arm.aggregation == "constrained":
        targets = options.pop("targets", None)
        targets = list(targets.values()) if isinstance(targets, Mapping) else targets
        options = {"multipliers": options.get("multipliers", [0.0] * (count - 1))}
        if not isinstance(targets, list | tuple) or len(targets) != count - 1:
            raise own.fault(
                where,
                f"has the targets {targets!r}; constrained needs {count - 1}, one for {', '.join(rewards.names[1:])}",
            )
    try:
        weights = arm.weights or rewards.weights
        group_advantages(
            [[0.0] * count] * 2, weights, 2, arm.aggregation, names=list(rewards.names), **options
        )
    except (ValueError, TypeError, RuntimeError) as error:
        raise own.fault(where, f"has options that {arm.aggregation} cannot take ({error})") from error


def check_reward_set(own, name: str, rewards) -> None:
    """The fault of an own reward set, each function tried on texts and on message lists as training passes them."""
    if not isinstance(rewards, RewardSet):
        raise own.fault(
            f"REWARD_SETS[{name!r}]", f"is a {type(rewards).__name__}; expected clinical_r1.rewards.RewardSet"
        )
    try:
        reward_set(name)
    except ValueError:
        pass  # a new name, as it should be
    else:
        raise own.fault(
            f"REWARD_SETS[{name!r}]", "has the name of a reward set of this package; give it another"
        )
    count = len(TRIAL_TEXTS)
    columns = {
        "prompts": ["A red, hot knee, fever and a positive culture."] * count,
        "answer": ["B"] * count,
        "options": [dict(TRIAL_OPTIONS) for _ in range(count)],
        "style": ["crpo"] * count,
        "id": [f"trial-{i}" for i in range(count)],
    }
    for function in rewards.functions:
        try:
            callable_hash(function)
        except ValueError as error:
            raise own.fault(
                f"reward {function.__name__} of {name!r}", f"cannot be stamped ({error}); define it with def"
            ) from error
        where = f"reward {function.__name__} of {name!r}"
        # as training passes them: message lists
        for texts in (TRIAL_TEXTS, [[{"role": "assistant", "content": text}] for text in TRIAL_TEXTS]):
            try:
                values = function(completions=list(texts), **deepcopy(columns))  # it may change what it gets
            except (Exception, SystemExit) as error:
                kind = "message lists, as training passes them" if texts is not TRIAL_TEXTS else "texts"
                raise own.fault(
                    where,
                    f"fails on {kind} ({type(error).__name__}: {error}); `rewards.completion_text` reads both kinds",
                ) from error
            try:
                check_values(function.__name__, values, count, rewards.ranges.get(function.__name__))
            except ValueError as error:
                raise own.fault(where, str(error)) from error


def check_names(own) -> None:
    """The fault of a name that becomes a file's: own arms, models and benchmarks, told apart also where case is not."""
    arms = {f"arm {arm.name!r}": arm.name for arm in own.arms if isinstance(arm, Arm)}
    models = {f"ANSWERS[{model!r}]": model for model in own.answers}
    models |= {f"SERVERS[{model!r}]": model for model in own.servers}
    benchmarks = {f"QUESTIONS[{name!r}]": name for name in own.questions}
    for given, taken in ((arms | models, [*ARMS, *GUESSES]), (benchmarks, [*BENCHMARK_LABELS])):
        known = {_folded(name): name for name in taken}
        for where, name in given.items():
            if not isinstance(name, str) or not re.fullmatch(r"\w(?:[\w.-]*[\w-])?", name):
                raise own.fault(where, "is no name for a file; use letters, digits, '.', '_' and '-'")
            parts = [
                part for part in name.lower().split(".")[1:] if part in PARTS_OF_FILES or SEED.fullmatch(part)
            ]
            if parts:
                raise own.fault(
                    where, f"has '.{parts[0]}' in its name, which a run's files use; leave it out"
                )
            other = known.setdefault(_folded(name), name)
            if other != name:
                raise own.fault(
                    where,
                    f"differs from {other!r} in case alone, which some file systems ignore; give it another name",
                )


def _folded(name: str) -> str:
    return unicodedata.normalize("NFKC", str(name)).casefold()


def readers_by_split(own, name, given) -> dict[str, Callable]:
    """An entry of QUESTIONS as {split: reader}; a function alone reads the test split."""
    where = f"QUESTIONS[{name!r}]"
    if not isinstance(name, str) or not re.fullmatch(r"\w[\w.-]*", name):
        raise own.fault(where, "is no name for a folder; use letters, digits, '.', '_' and '-'")
    if name in BENCHMARK_LABELS:
        raise own.fault(where, "has the name of a benchmark of this package; give it another")
    readers = {"test": given} if callable(given) else given
    if not isinstance(readers, Mapping) or "test" not in readers or not all(map(callable, readers.values())):
        raise own.fault(where, f"is {given!r}; expected a function, or a dict with a function for 'test'")
    if unknown := sorted(set(readers) - set(SPLITS)):
        raise own.fault(where, f"has the splits {unknown}; expected some of {', '.join(SPLITS)}")
    return dict(readers)


def answer_files(own, given: Mapping) -> dict[str, dict[str, AnswerFile]]:
    """ANSWERS as {model: {benchmark: AnswerFile}}, existing files, paths taken from the own file."""
    answers = {}
    for model, files in given.items():
        where = f"ANSWERS[{model!r}]"
        _check_outside_name(own, where, model)
        if not isinstance(files, Mapping) or not files:
            raise own.fault(where, f"is {files!r}; expected {{benchmark: file}}")
        answers[model] = {name: _answer_file(own, f"{where}[{name!r}]", item) for name, item in files.items()}
    return answers


def _answer_file(own, where: str, item) -> AnswerFile:
    """One entry of ANSWERS: a file, a dict of the fields of AnswerFile, or an AnswerFile."""
    known = [each.name for each in fields(AnswerFile)]
    if isinstance(item, AnswerFile):
        item = {name: getattr(item, name) for name in known}
    item = {"file": item} if isinstance(item, str | Path) else item
    if not isinstance(item, Mapping) or not isinstance(item.get("file"), str | Path):
        raise own.fault(where, f"is {item!r}; expected a file, or a dict that names one as 'file'")
    if unknown := sorted(map(str, set(item) - set(known))):
        raise own.fault(where, f"has {unknown}; expected some of {', '.join(known)}")
    file = own.path.parent / item["file"]
    if not file.is_file():
        raise own.fault(where, f"names {file}, which {'is a folder' if file.is_dir() else 'does not exist'}")
    try:
        return AnswerFile(**{**item, "file": file})
    except ValueError as error:
        raise own.fault(where, str(error)) from error


def servers_of(own, given: Mapping) -> dict[str, Server]:
    """SERVERS as {model: Server}. No server is asked yet."""
    servers = {}
    for model, item in given.items():
        where = f"SERVERS[{model!r}]"
        _check_outside_name(own, where, model)
        if model in own.answers:
            raise own.fault(where, "is also in ANSWERS; give one of them another name")
        if isinstance(item, Server):
            servers[model] = item
            continue
        if not isinstance(item, Mapping) or not {"base_url", "model"} <= item.keys():
            raise own.fault(where, "is no dict with a base_url and a model")  # not shown: it may hold a key
        if unknown := sorted(map(str, set(item) - set(SERVER_FIELDS))):
            raise own.fault(where, f"has {unknown}; expected some of {', '.join(SERVER_FIELDS)}")
        try:
            servers[model] = Server(**item)
        except (ValueError, TypeError) as error:
            raise own.fault(where, str(error)) from error
    return servers


def _check_outside_name(own, where: str, model) -> None:
    try:
        check_model_name(model)
    except ValueError as error:
        raise own.fault(where, str(error)) from error
    if model in {arm.name for arm in own.arms if isinstance(arm, Arm)}:
        raise own.fault(where, "is the name of an arm; another model goes under a name of its own")


def base_model_of(own, name) -> str | None:
    """An absolute folder, a Hub id, or the clinic's base model as it is."""
    if name is None:
        return None
    if not isinstance(name, str | Path):
        raise own.fault("BASE_MODEL", f"is a {type(name).__name__}; expected a folder or a Hub id")
    folder = own.path.parent / Path(name).expanduser()
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            raise own.fault(
                "BASE_MODEL", f"{folder} holds no config.json; name a folder that save_pretrained wrote"
            )
        return str(folder.resolve())
    if name != CLINIC_BASE and not re.fullmatch(r"\w[\w.-]*/\w[\w.-]*", str(name)):
        raise own.fault("BASE_MODEL", f"{name!r} is no folder beside the file and no Hub id such as org/name")
    return str(name)
