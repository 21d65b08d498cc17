"""The summary of a comparison of agents: the frames that `./reproduce.sh agent` makes, written, found, read and checked (ours).

A frame is a file, and a file that is not there is a part that was not measured: whoever shows it says so. A file that is there
and wrong is an error.
"""

import gzip
import io
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from clinical_r1.agent.arms import AGENT_ARMS
from clinical_r1.agent.credit import ESTIMATORS
from clinical_r1.files import PACKAGE, read_json, replacing, write_json

FILES = {
    "references": "references.csv",
    "consultations": "consultations.csv.gz",
    "training": "training.csv.gz",
    "credit": "credit.csv",
    "density": "density.csv",
    "tuning": "tuning.csv",
}
RECORD = "record.json"
SHIPPED = PACKAGE / "data" / "agent"  # the summary that came with the package
FIX = "run ./reproduce.sh agent (add --summary-only when its arms are trained)"

START = "start"  # the arm, and the budget, of the policy that training starts from
# The run's settings, in the order in which they are told
SETTINGS = {
    "main": "no diagnosis before turn 3, inquiries free",
    "closure": "diagnosis at once allowed, inquiries priced",
    "cured": "diagnosis at once allowed, prices rise late",
    "long": "a longer horizon",
}
BUDGETS = {"sampled": "equal sampled tokens", "trained": "equal trained tokens"}
POLICIES = ("guess", "random_inquiry", "greedy", "expert")
STAGES = ("start", "half", "trained")

_NAMES = {
    "arm": (*AGENT_ARMS, START),
    "budget": (*BUDGETS, START),
    "policy": POLICIES,
    "stage": STAGES,
    "estimator": ESTIMATORS,
}
_INF = float("inf")
_SHARE, _COUNT, _SIZE, _REAL = (0.0, 1.0), (0.0, _INF), (1.0, _INF), (-_INF, _INF)
_BINARY = ("right", "answered", "premature")
# column -> the names that it may hold, None for any
_LABELS = {"setting": None, "measure": None, "patient": None, "menu": None} | _NAMES
COLUMNS = {
    "references": ("setting", "policy", "measure", "value", "n", "low", "high"),
    "consultations": (
        *("setting", "arm", "seed", "budget", "patient", "right", "answered", "turns", "asks"),
        *("examinations", "tests", "cost", "reward", "gain", "invalid", "repeats", "covered", "premature"),
    ),
    "training": (
        *("setting", "arm", "seed", "step", "right", "answered", "reward", "turns", "inquiries"),
        *("invalid", "repeated", "alone", "informative", "sampled", "trained"),
    ),
    "credit": (
        *("stage", "menu", "estimator", "std", "group", "gamma", "measure"),
        *("value", "low", "high", "turns", "patients"),
    ),
    "density": ("menu", "stage", "repeated", "alone", "size", "turns", "patients"),
    "tuning": ("setting", "arm", "rate", "value", "patients"),
}
_RANGES = {
    **dict.fromkeys(("right", "answered", "covered", "premature", "std", "gamma"), _SHARE),
    **dict.fromkeys(("repeated", "alone", "informative"), _SHARE),
    **dict.fromkeys(("seed", "step", "n", "asks", "examinations", "tests", "inquiries", "cost"), _COUNT),
    **dict.fromkeys(("invalid", "repeats", "rate"), _COUNT),
    **dict.fromkeys(("turns", "group", "size", "patients", "sampled", "trained"), _SIZE),
    **dict.fromkeys(("reward", "gain", "value", "low", "high"), _REAL),
}
# What may be missing: an interval, a measure that is not defined, what a step or a patient does not have
_OPTIONAL = {"low", "high", "repeated", "alone", "informative", "size", "right", "answered"}
_KEYS = {
    "references": ["setting", "policy", "measure"],
    "consultations": ["setting", "arm", "seed", "budget", "patient"],
    "training": ["setting", "arm", "seed", "step"],
    "credit": ["stage", "menu", "estimator", "std", "group", "gamma", "measure"],
    "density": ["menu", "stage"],
    "tuning": ["setting", "arm", "rate"],
}


class AgentSummary(NamedTuple):
    """The frames of a summary, with the columns of COLUMNS, and its record; None for what was not measured.

    consultations: a row for each consultation with a test patient. training: a row for each step of training. record: {"git",
    "settings", "seconds"}.
    """

    references: object = None
    consultations: object = None
    training: object = None
    credit: object = None
    density: object = None
    tuning: object = None
    record: dict | None = None

    def of(self, kind: str, *settings: str):
        """A frame, its rows of some settings where these are named; None without such a frame or any such row."""
        frame = getattr(self, kind)
        if frame is None or not settings:
            return frame
        own = frame[frame["setting"].isin(settings)]
        return own if len(own) else None


def find_agent(out=".") -> Path:
    """The folder of the summary: this checkout's own if all of its files are there, otherwise the shipped one, if any."""
    own = Path(out) / "runs" / "agent" / "summary"
    return own if all((own / name).is_file() for name in (*FILES.values(), RECORD)) else SHIPPED


def read_agent(folder) -> AgentSummary:
    """The frames of a folder, None where a file is not there. ValueError names the file, what is wrong, and how to fix it."""
    folder = Path(folder)
    frames = {
        kind: _read(folder / name, kind) if (folder / name).exists() else None for kind, name in FILES.items()
    }
    record = folder / RECORD
    return AgentSummary(**frames, record=read_json(record) if record.exists() else None)


def write_agent(folder, frames: Mapping, record: Mapping | None = None) -> list[Path]:
    """Write frames by kind, and the record; the paths. Checked first, so that nothing wrong is written; no time stamp in it."""
    folder, paths = Path(folder), []
    for kind, frame in frames.items():
        if kind not in FILES:
            raise ValueError(f"got the frame {kind!r}; expected some of {', '.join(FILES)}.")
        check(frame, kind, FILES[kind])
    folder.mkdir(parents=True, exist_ok=True)
    for kind, frame in frames.items():
        path = folder / FILES[kind]
        data = frame[[*COLUMNS[kind]]].to_csv(index=False, lineterminator="\n").encode()
        if path.suffix == ".gz":
            data = _compressed(data)
        with replacing(path) as unfinished:
            unfinished.write_bytes(data)
        paths.append(path)
    return [*paths, write_json(folder / RECORD, dict(record))] if record is not None else paths


def _compressed(data: bytes) -> bytes:
    whole = io.BytesIO()
    with gzip.GzipFile(filename="", mode="wb", fileobj=whole, mtime=0) as file:
        file.write(data)
    return whole.getvalue()


def _read(path, kind):
    import pandas as pd

    try:
        frame = pd.read_csv(path, dtype={"menu": str, "patient": str})
    except (OSError, EOFError, ValueError, zlib.error) as error:  # gzip, encoding and parsing faults
        raise ValueError(f"{path} cannot be read ({error}); delete it and {FIX}.") from error
    check(frame, kind, path)
    return frame


def check(frame, kind: str, path) -> None:
    """ValueError, in one sentence that names the file and the fix, for a frame that is not what COLUMNS and its ranges say."""
    missing = [column for column in COLUMNS[kind] if column not in frame]
    if missing or frame.empty:
        what = f"lacks the columns {missing}" if missing else "has no rows"
        raise ValueError(f"{path} {what}; expected at least {list(COLUMNS[kind])}: {FIX}.")
    for column in COLUMNS[kind]:
        values, may_miss = frame[column], column in _optional(kind)
        if not may_miss and values.isna().any():
            raise ValueError(
                f"{path} has no {column} in {values.isna().sum()} of {len(frame)} rows; expected one in each: {FIX}."
            )
        if column in _LABELS:
            _check_names(values, column, path)
        else:
            flag = column == "std" or (kind == "consultations" and column in _BINARY)
            _check_numbers(values, column, path, flag)
    if (twice := frame.duplicated(_KEYS[kind])).any():
        first = frame.loc[twice, _KEYS[kind]].iloc[0].to_dict()
        raise ValueError(f"{path} has two rows of {first}; expected one: {FIX}.")


def _optional(kind):
    """Columns that may lack a value. Of a consultation only what need not be defined; a credit may be undefined itself."""
    if kind == "consultations":
        return {"covered", "premature"}
    return _OPTIONAL | ({"value"} if kind in ("credit", "references") else set())


def _check_names(values, column, path):
    known = _LABELS[column]
    if known and (unknown := sorted(set(values.astype(str)) - set(known))):
        raise ValueError(f"{path} has {column} {unknown}; expected some of {list(known)}: {FIX}.")


def _check_numbers(values, column, path, flag):
    """flag: 0 or 1, as of one consultation; in training the same columns are shares of a batch."""
    import pandas as pd

    low, high = _RANGES[column]
    numbers = pd.to_numeric(values, errors="coerce")
    wrong = values.notna() & ~(numbers.between(low, high) & numbers.abs().lt(_INF))
    if flag:
        wrong |= values.notna() & ~numbers.isin([0, 1])
    if wrong.any():
        expected = f"from {low:g} to {high:g}" if high < _INF else f"of at least {low:g}"
        expected = "that are finite" if low == -_INF else "of 0 or 1" if flag else expected
        raise ValueError(f"{path} has {column} {values[wrong].iloc[0]}; expected numbers {expected}: {FIX}.")
