"""A user's own file: arms, rewards, questions, a base model and other models' answers, without an edit of this package.

    ./reproduce.sh smoke --with mine.py
    settings = extensions.settings_for("smoke", own="mine.py")

The file may hold any of

    REWARD_SETS   {name: RewardSet(functions, weights, ranges)}
    ARMS          [Arm(name, family, label, rewards=...)]: trained, answered and compared beside the paper's five
    QUESTIONS     {benchmark: function that returns its Questions}, or {benchmark: {"test": ..., "sft": ..., "rl": ...}}
    BENCHMARKS    names of this package's benchmarks that are asked besides the profile's, such as ["medqa"]
    ANSWERS       {model: {benchmark: file of answers}}: models that are not trained here, see `engines.replay.AnswerFile`
    SERVERS       {model: {"base_url": ..., "model": ...}}: models that a server runs, see `engines.server.Server`
    BASE_MODEL    a folder (relative to the file) or a Hub id
    SETTINGS      {field of Settings: value}

A run with own things is a run of its own, `runs/<profile>-<file>`. Every child process loads the file; its code is part of the
stamps of just the arms that use it. Loading is all or nothing: a file with a fault leaves nothing behind.
"""

import hashlib
import json
import os
import re
import sys
import traceback
import types
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path

from clinical_r1 import settings as profiles
from clinical_r1.arms import ARMS, METHODS, Arm
from clinical_r1.artifacts import forget_code, settings_of
from clinical_r1.engines.replay import AnswerFile
from clinical_r1.engines.server import Server
from clinical_r1.extension_checks import (
    answer_files,
    base_model_of,
    check_arm,
    check_names,
    check_reward_set,
    readers_by_split,
    servers_of,
)
from clinical_r1.files import sha256
from clinical_r1.labels import BENCHMARK_LABELS, CLINIC_BENCHMARKS, METHOD_LABELS, PAPER_BENCHMARKS
from clinical_r1.questions import Question
from clinical_r1.rewards import REWARD_SETS, RewardSet
from clinical_r1.settings import Settings

VARIABLE = "CLINICAL_R1_WITH"  # the own file's path, for kernels and child processes
NAMES = ("ARMS", "REWARD_SETS", "QUESTIONS", "BENCHMARKS", "ANSWERS", "SERVERS", "BASE_MODEL", "SETTINGS")
NOT_TO_CHANGE = ("profile", "out", "seeds", "methods", "benchmarks", "outside", "own_file", "base_model")
# A general model's tokens are shorter than the clinic's words; used where the file does not set them itself
LIMITS = {"max_prompt_tokens": 1024, "max_completion_tokens": 256}


class OwnFileError(ValueError):
    """One sentence that names the file, the object in it, and how to fix it."""


@dataclass(frozen=True)
class OwnFile:
    """What an own file holds, checked. sha256: of its source. answers: model -> benchmark -> its file, absolute."""

    path: Path
    sha256: str
    arms: tuple[Arm, ...] = ()
    reward_sets: Mapping[str, RewardSet] = field(default_factory=dict)
    questions: Mapping[str, Mapping[str, Callable]] = field(default_factory=dict)
    benchmarks: tuple[str, ...] = ()
    answers: Mapping[str, Mapping[str, AnswerFile]] = field(default_factory=dict)
    servers: Mapping[str, Server] = field(default_factory=dict)
    base_model: str | None = None
    settings: Mapping[str, object] = field(default_factory=dict)

    def apply(self, settings: Settings) -> Settings:
        """The settings of a run with these things."""
        changes = dict(self.settings)
        if self.base_model:
            changes = LIMITS | changes | {"base_model": self.base_model}
        changes["methods"] = settings.methods + tuple(
            arm.name for arm in self.arms if arm.name in compared(self)
        )
        added = tuple(name for name in self.benchmarks if name not in settings.benchmarks)
        changes["benchmarks"] = settings.benchmarks + added + tuple(self.questions)
        places = {("ANSWERS", model): tuple(files) for model, files in self.answers.items()}
        for model, server in self.servers.items():
            asked = changes["benchmarks"] if server.benchmarks is None else server.benchmarks
            places["SERVERS", model] = tuple(asked)
        changes["outside"] = tuple((model, name) for (_, model), names in places.items() for name in names)
        changes |= {"profile": f"{settings.profile}-{self.path.stem}", "own_file": self.path.name}
        for (where, _), names in places.items():
            if unknown := sorted(set(names) - set(changes["benchmarks"])):
                raise self.fault(
                    where,
                    f"answers {unknown}, which this run does not ask; name one of {changes['benchmarks']}",
                )
        try:
            applied = replace(settings, **changes)
        except (TypeError, ValueError) as error:
            raise self.fault("SETTINGS", f"does not fit profile {settings.profile} ({error})") from error
        for arm in self.arms:
            try:
                settings_of(applied, arm.name)
            except (TypeError, ValueError) as error:
                raise self.fault(
                    f"arm {arm.name!r}", f"its changes do not fit profile {settings.profile} ({error})"
                ) from error
        return applied

    def fault(self, where: str, what: str) -> OwnFileError:
        return OwnFileError(f"{self.path.name}, {where}: {what.rstrip('.')}.")


_loaded: OwnFile | None = None


def loaded() -> OwnFile | None:
    """The own file of this process."""
    return _loaded


def compared(own: OwnFile) -> set[str]:
    """Own arms that are answered and compared; one that only serves as a start, family "start", is trained for it alone."""
    return {arm.name for arm in own.arms if arm.family != "start"}


def settings_for(profile="cpu", out=".", seeds=None, own: str | Path | None = None) -> Settings:
    """`settings.settings_for`, with the things of an own file where one is named here or in the environment."""
    settings = profiles.settings_for(profile, out, seeds)
    own = own or os.environ.get(VARIABLE)
    if not own:
        return settings
    before = _loaded
    try:
        return load(own).apply(settings)
    except BaseException:
        _restore(before)
        raise


def _restore(before: OwnFile | None) -> None:
    """Put the own file back that was in force, whatever has been registered since."""
    global _loaded
    if _loaded is before:
        return
    unload()
    if before:
        _register(before)
        _loaded, os.environ[VARIABLE] = before, str(before.path)


def load_from_environment() -> OwnFile | None:
    """The own file that the parent process runs with, if any: the first call of every child."""
    return load(os.environ[VARIABLE]) if os.environ.get(VARIABLE) else None


def load(path: str | Path) -> OwnFile:
    """Read an own file, check it, and make its arms, rewards and benchmarks known in this process and its children.

    Loading the same file again does nothing while it is unchanged; another file, or a changed one, takes its place.
    OwnFileError for whatever does not fit, before anything has changed.
    """
    global _loaded
    path = Path(path).expanduser().resolve()
    if not path.is_file():
        what = "is a folder" if path.is_dir() else "does not exist"
        raise OwnFileError(f"own file {path} {what}; name a Python file, such as --with mine.py.")
    if not re.fullmatch(r"[\w-]+", path.stem):
        raise OwnFileError(
            f"own file {path.name!r} names the folder of its run; use letters, digits, '_' and '-' only."
        )
    if _loaded and (_loaded.path, _loaded.sha256) == (path, sha256(path)):
        return _loaded
    before = _loaded
    unload()
    forget_code()
    try:
        own = _checked(_execute(path), path)
    except BaseException:
        _restore(before)
        raise
    _loaded = own
    os.environ[VARIABLE] = str(path)
    return own


def unload() -> None:
    """Forget the own file: its arms, rewards, labels and benchmarks."""
    global _loaded
    if _loaded:
        for arm in _loaded.arms:
            ARMS.pop(arm.name, None)
            METHOD_LABELS.pop(arm.name, None)
        for name in _loaded.reward_sets:
            REWARD_SETS.pop(name, None)
        for name in _loaded.questions:
            BENCHMARK_LABELS.pop(name, None)
        for name in (*_loaded.answers, *_loaded.servers):
            METHOD_LABELS.pop(name, None)
        os.environ.pop(VARIABLE, None)
    _loaded = None


def _register(own: OwnFile) -> None:
    for arm in own.arms:
        ARMS[arm.name] = arm
        METHOD_LABELS[arm.name] = arm.label
    REWARD_SETS.update(own.reward_sets)
    BENCHMARK_LABELS.update({name: name for name in own.questions})
    METHOD_LABELS.update({name: name for name in (*own.answers, *own.servers)})


def _execute(path: Path):
    """The file as a module, under a name of its own; `artifacts.code_hash` follows imports into it."""
    name = f"clinical_r1_own_{hashlib.sha256(str(path).encode()).hexdigest()[:12]}"
    module = types.ModuleType(name)
    module.__file__, module.CLINICAL_R1_OWN_FILE = str(path), True
    sys.modules[name] = module
    try:
        source = path.read_text(encoding="utf-8-sig")
        exec(
            compile(source, str(path), "exec"), module.__dict__
        )  # the user's own code, named on the command line
    except (Exception, SystemExit) as error:
        del sys.modules[name]
        lines = [
            frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)
        ]
        line = getattr(error, "lineno", None) if isinstance(error, SyntaxError) else (lines or [None])[-1]
        where = f", line {line}" if line else ""
        raise OwnFileError(
            f"{path.name}{where} does not import ({type(error).__name__}: {error}); fix it, `python {path.name}` shows the same."
        ) from error
    return module


# ------------------------------------------------------------------------------------------------------------- checks


def _checked(module, path: Path) -> OwnFile:
    """The file's objects, each checked; its arms and reward sets are registered when all of them fit."""
    found = {name: getattr(module, name) for name in NAMES if hasattr(module, name)}
    own = OwnFile(path, sha256(path))
    if meant := [name for name in vars(module) if name not in NAMES and _is_nearly(name)]:
        raise own.fault(meant[0], f"is read by nobody; the names are {', '.join(NAMES)}")
    if not any(
        value or isinstance(value, str) for value in found.values()
    ):  # BASE_MODEL = "" has a sentence of its own
        raise own.fault("nothing to use", f"it defines none of {', '.join(NAMES)}; define one of them")
    for name in ("REWARD_SETS", "QUESTIONS", "ANSWERS", "SERVERS", "SETTINGS"):
        if not isinstance(found.get(name, {}), Mapping):
            raise own.fault(name, f"is a {type(found[name]).__name__}; expected a dict")
    for name, of in (("ARMS", "Arm"), ("BENCHMARKS", "names")):
        if not isinstance(found.get(name, ()), list | tuple):
            raise own.fault(name, f"is a {type(found[name]).__name__}; expected a list of {of}")
    own = replace(
        own,
        arms=tuple(found.get("ARMS", ())),
        reward_sets=dict(found.get("REWARD_SETS", {})),
        questions={
            name: readers_by_split(own, name, given) for name, given in found.get("QUESTIONS", {}).items()
        },
        benchmarks=tuple(found.get("BENCHMARKS", ())),
        base_model=base_model_of(own, found.get("BASE_MODEL")),
        settings=dict(found.get("SETTINGS", {})),
    )
    own = replace(own, answers=answer_files(own, found.get("ANSWERS", {})))
    own = replace(own, servers=servers_of(own, found.get("SERVERS", {})))
    check_names(own)
    for name, rewards in own.reward_sets.items():
        check_reward_set(own, name, rewards)
    shipped = (*CLINIC_BENCHMARKS, *PAPER_BENCHMARKS)
    if wrong := [name for name in own.benchmarks if name not in shipped or own.benchmarks.count(name) > 1]:
        raise own.fault("BENCHMARKS", f"names {wrong}; expected some of {', '.join(shipped)}, each once")
    known = {item.name for item in fields(Settings)} - set(NOT_TO_CHANGE)
    if unknown := sorted(map(str, set(own.settings) - known)):
        raise own.fault("SETTINGS", f"{unknown} cannot be set; expected some of {', '.join(sorted(known))}")
    _check_arms(own)
    return own


def _is_nearly(name: str) -> bool:
    """Whether a name differs from one of `NAMES` in case or in "_" only; small letters alone are a variable or a module."""
    return not name.islower() and name.upper().replace("_", "") in {known.replace("_", "") for known in NAMES}


def _check_arms(own: OwnFile) -> None:
    """Registers, so that arms can start from each other, and takes everything back when one does not fit."""
    for arm in own.arms:
        if not isinstance(arm, Arm):
            raise own.fault("ARMS", f"holds {arm!r}; expected clinical_r1.arms.Arm(name, family, label, ...)")
        if arm.name in ARMS:
            raise own.fault(f"arm {arm.name!r}", "has the name of an arm of this package; give it another")
    names = [arm.name for arm in own.arms]
    if len(set(names)) < len(names):
        raise own.fault("ARMS", f"names {names} hold one twice; give each arm a name of its own")
    _register(own)
    try:
        for arm in own.arms:
            check_arm(own, arm)
    except BaseException:
        global _loaded
        _loaded = own
        unload()
        raise


# ------------------------------------------------------------------------------------------------- own questions


def inputs_hash() -> str | None:
    """sha256 over the own file and all that it brings: its questions as they are read now, and its files of answers."""
    if _loaded is None:
        return None
    read = {
        f"{name}.{split}": [question.to_json() for question in questions_of(name, split)]
        for name, readers in _loaded.questions.items()
        for split in readers
    }
    files = [sha256(each.file) for model in _loaded.answers.values() for each in model.values()]
    return hashlib.sha256(json.dumps([_loaded.sha256, read, files], sort_keys=True).encode()).hexdigest()


def has_questions(benchmark: str) -> bool:
    """Whether the own file brings this benchmark."""
    return _loaded is not None and benchmark in _loaded.questions


def questions_of(benchmark: str, split: str) -> list[Question]:
    """The own file's questions of a benchmark, under this benchmark's and split's name.

    OwnFileError when the reader fails, yields none, something else than a Question, an id twice, or no answer.
    """
    own, where = _loaded, f"QUESTIONS[{benchmark!r}]"
    if split not in own.questions[benchmark]:
        raise own.fault(where, f"has no split {split!r}; give a dict with a function for it")
    questions = []
    seen = set()
    try:
        given = own.questions[benchmark][split]()
        if not isinstance(given, Iterable):
            raise own.fault(where, f"its reader of {split} gave a {type(given).__name__}; expected Questions")
        for place, question in enumerate(given, 1):
            if not isinstance(question, Question):
                raise own.fault(
                    where, f"item {place} of {split} is a {type(question).__name__}; expected a Question"
                )
            if question.id in seen:
                raise own.fault(
                    where, f"{split} holds the id {question.id!r} twice; give every question an id of its own"
                )
            if question.answer is None:
                options = ", ".join(question.options)
                raise own.fault(where, f"question {question.id!r} has no answer; expected one of {options}")
            seen.add(question.id)
            questions.append(question)
    except OwnFileError:
        raise
    except (Exception, SystemExit) as error:
        raise own.fault(where, f"its reader of {split} fails ({type(error).__name__}: {error})") from error
    if not questions:
        raise own.fault(where, f"its reader of {split} yields no question; expected one at least")
    return [replace(question, benchmark=benchmark, split=split) for question in questions]


def is_own(arm: str) -> bool:
    """Whether an arm comes from the own file."""
    return arm in ARMS and arm not in METHODS and _loaded is not None and ARMS[arm] in _loaded.arms
