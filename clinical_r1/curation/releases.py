"""Official benchmark files, the Hub at a pinned commit, or the clinic -> questions; nothing vanishes.

    load_benchmark("medqa", "test", source=folder)   official files, the Hub at a pinned commit, or the clinic
    read_raw(path, "medqa", "test")                  the same rows, the unusable ones set aside beside them

Text is kept exactly as released, because prompts are made from it; folding for matching lives in `folding`.
A fault of a file (missing, truncated, of another schema) is always an error. A fault of one row is an error
too, unless the caller hands in a list to collect it: len(rows) == len(questions) + len(quarantined).
"""

import re
from dataclasses import dataclass
from pathlib import Path

from clinical_r1.clinic.cases import load_set
from clinical_r1.files import BadLine, json_lines, parse_json, sha256
from clinical_r1.labels import CLINIC_BENCHMARKS
from clinical_r1.questions import LETTERS, Quarantined, Question

HALVES = {"sft": "first", "rl": "second"}  # of MedQA train, in file order, not shuffled: the paper's rule
ALIASES = {"validation": "dev"}


# ---------------------------------------------------------------- where each benchmark's rows are


@dataclass(frozen=True)
class Release:
    """Where one benchmark is found. files: split -> names, best first; rows: split -> its official size."""

    options: int
    folders: tuple[str, ...]
    files: dict[str, tuple[str, ...]]
    rows: dict[str, int]
    repo: str
    revision: str
    hub_files: dict[str, str]


# The pinned revisions are commits, so that the data cannot change under a result; `revision=` of
# load_benchmark overrides. bigbio/med_qa is the five-option release; this commit is on its automatic Parquet
# branch (no loading script to run).
RELEASES = {
    "medqa": Release(
        options=5,
        folders=("", "US", "medqa", "MedQA/US", "questions/US", "data_clean/questions/US"),
        files={
            "train": ("train.jsonl", "train_5opt.jsonl"),
            "dev": ("dev.jsonl", "dev_5opt.jsonl"),
            "test": ("test.jsonl", "test_5opt.jsonl"),
        },
        rows={"train": 10_178, "dev": 1272, "test": 1273, "sft": 5089, "rl": 5089},
        repo="bigbio/med_qa",
        revision="e04abdc0672c54547fa1dbe36cfefc000e4f2657",
        hub_files={
            "train": "med_qa_en_source/train/0000.parquet",
            "dev": "med_qa_en_source/validation/0000.parquet",
            "test": "med_qa_en_source/test/0000.parquet",
        },
    ),
    "medqa-4": Release(
        options=4,
        folders=(
            "",
            "4_options",
            "US/4_options",
            "medqa",
            "MedQA/US/4_options",
            "data_clean/questions/US/4_options",
        ),
        files={
            "train": ("phrases_no_exclude_train.jsonl",),
            "dev": ("phrases_no_exclude_dev.jsonl",),
            "test": ("phrases_no_exclude_test.jsonl", "test_4opt_metamap.jsonl"),
        },
        rows={"train": 10_178, "dev": 1272, "test": 1273, "sft": 5089, "rl": 5089},
        repo="GBaker/MedQA-USMLE-4-options",
        revision="0fb93dd23a7339b6dcd27e241cb9b5eca62d4d18",
        hub_files={"train": "phrases_no_exclude_train.jsonl", "test": "phrases_no_exclude_test.jsonl"},
    ),
    "medmcqa": Release(
        options=4,
        folders=("", "data", "medmcqa", "MedMCQA"),
        files={"train": ("train.json",), "dev": ("dev.json",), "test": ("test.json", "test_unlabelled.json")},
        rows={"train": 182_822, "dev": 4183, "test": 6150},
        repo="openlifescienceai/medmcqa",
        revision="91c6572c454088bf71b679ad90aa8dffcd0d5868",
        hub_files={
            "train": "data/train-00000-of-00001.parquet",
            "dev": "data/validation-00000-of-00001.parquet",
            "test": "data/test-00000-of-00001.parquet",
        },
    ),
    "medxpertqa": Release(
        options=10,
        folders=("", "Text", "medxpertqa", "MedXpertQA", "MedXpertQA/Text"),
        files={
            "dev": ("dev.jsonl",),
            "test": ("test.jsonl", "medxpertqa_text_input.jsonl", "text_test_medreason.jsonl"),
        },
        rows={"dev": 5, "test": 2450},
        repo="TsinghuaC3I/MedXpertQA",
        revision="7e7c465a68eb2b866926bfa59c8c9d17a8daba65",
        hub_files={"dev": "Text/dev.jsonl", "test": "Text/test.jsonl"},
    ),
}


# ---------------------------------------------------------------- one row -> one question


class RowFault(ValueError):
    """This row cannot be used; `check` names why."""

    def __init__(self, check: str, reason: str):
        super().__init__(reason)
        self.check = check


class FileFault(ValueError):
    """The whole file is not what it was taken for."""


def _options(value) -> dict[str, str]:
    """Options come as {"A": text}, as [{"letter", "content"}] (MedXpertQA) or as [{"key", "value"}] (Hub)."""
    if isinstance(value, dict):
        pairs = [(letter, text) for letter, text in value.items() if text is not None]
    elif isinstance(value, list) and all(isinstance(item, dict) and len(item) == 2 for item in value):
        pairs = [(o.get("letter", o.get("key")), o.get("content", o.get("value"))) for o in value]
    else:
        raise RowFault("wrong_schema", f"options are {type(value).__name__}, expected letters with texts")
    options = dict(sorted(pairs))
    if len(options) < len(pairs):
        raise RowFault("wrong_schema", f"option letters {[letter for letter, _ in pairs]} repeat")
    return options


def _medqa(row: dict, from_hub: bool):
    options = _options(row["options"])
    letter, text = row["answer_idx"], row["answer"]
    if letter in list(options) and options[letter] != text:
        raise RowFault("answer_text_disagrees", f"option {letter} is {options[letter]!r}, answer is {text!r}")
    return None, row["question"], options, letter, {"step": row.get("meta_info")}


def _medmcqa(row: dict, from_hub: bool):
    """`cop` counts from 1 in the official files, from 0 on the Hub, where -1 means no label."""
    first, cop = (0 if from_hub else 1), row.get("cop")
    if cop is not None and (not isinstance(cop, int) or isinstance(cop, bool)):
        raise RowFault("bad_answer", f"cop is {cop!r}, expected a whole number")
    if cop == (4 if from_hub else 0):
        raise FileFault(
            f"cop is {cop}, but this source counts from {first}, so every answer would shift by one; "
            "use the official files with source=, or source=None for the Hub's copy"
        )
    if cop is not None and cop != -1 and not first <= cop < first + 4:
        raise RowFault("bad_answer", f"cop is {cop}, expected {first} to {first + 3}, or none")
    answer = None if cop in (None, -1) else LETTERS[cop - first]
    meta = {
        "subject": row.get("subject_name"),
        "topic": row.get("topic_name"),
        "multi": row.get("choice_type") == "multi",
        "explanation": row.get("exp"),
    }
    return row["id"], row["question"], {letter: row[f"op{letter.lower()}"] for letter in "ABCD"}, answer, meta


_OPTIONS_IN_STEM = re.compile(r"\bAnswer Choices:\s*\(?A\b")


def _medxpertqa(row: dict, from_hub: bool):
    """Some copies repeat the options inside `question`; the stem is what stands before them."""
    label = row["label"]
    if isinstance(label, list) and len(label) == 1:
        label = label[0]
    found = _OPTIONS_IN_STEM.search(row["question"])
    stem = row["question"][: found.start()].rstrip() if found else row["question"]
    meta = {key: row.get(key) for key in ("medical_task", "body_system", "question_type")}
    meta["options_in_stem"] = stem != row["question"]
    return row["id"], stem, _options(row["options"]), label, meta


_READERS = {"medqa": _medqa, "medqa-4": _medqa, "medmcqa": _medmcqa, "medxpertqa": _medxpertqa}


def _question(row, name: str, split: str, row_name: str, stamp: dict, from_hub: bool) -> Question:
    """RowFault when the row is unusable. A row without an id of its own is called `row_name`."""
    if not isinstance(row, dict):
        raise RowFault("wrong_schema", f"a row is {type(row).__name__}, expected a JSON object")
    try:
        own_id, stem, options, answer, meta = _READERS[name](row, from_hub)
    except KeyError as error:
        raise RowFault("wrong_schema", f"no field {error}; the fields are {sorted(row)}") from error
    except TypeError as error:  # a field of another type than the schema's
        raise RowFault("wrong_schema", str(error)) from error
    if len(options) != RELEASES[name].options:
        expected = RELEASES[name].options
        raise RowFault("option_count", f"{len(options)} options, expected {expected} for {name}")
    if answer is not None and answer not in list(options):  # list(): the answer may be unhashable
        raise RowFault("bad_answer", f"answer {answer!r} is not among the options {list(options)}")
    try:
        own_id = row_name if own_id is None else own_id
        return Question(own_id, name, split, stem, options, answer, meta | stamp)
    except (TypeError, AttributeError, ValueError) as error:
        raise RowFault("wrong_schema", str(error)) from error


def _convert(rows, name: str, split: str, file: str, stamp: dict, from_hub: bool):
    """rows: [(line, parsed row or BadLine)] -> (questions, quarantined). Halves are cut before any check."""
    of_file = "train" if split in HALVES else split
    numbered = list(enumerate(rows))
    if split in HALVES:
        middle = len(rows) // 2
        numbered = numbered[:middle] if split == "sft" else numbered[middle:]
        stamp = {"half": HALVES[split]} | stamp
    questions, quarantined, seen = [], [], {}
    for index, (line, row) in numbered:
        row_name = f"{name}-{of_file}-{index:04d}"  # from 0, as most published lists of item numbers count
        try:
            if isinstance(row, BadLine):
                raise RowFault("not_json", f"not JSON ({row})")
            question = _question(row, name, split, row_name, {"file": file, "line": line} | stamp, from_hub)
            if question.id in seen:
                raise RowFault("duplicate_id", f"id {question.id!r} is already on line {seen[question.id]}")
            seen[question.id] = line
            questions.append(question)
        except RowFault as fault:
            own_id = str(row["id"]) if isinstance(row, dict) and row.get("id") else row_name
            record = row.line if isinstance(row, BadLine) else row
            quarantined.append(Quarantined(fault.check, str(fault), name, split, own_id, file, line, record))
        except FileFault as fault:
            raise ValueError(f"{file}, line {line}: {fault}.") from fault
    if quarantined and not questions:
        first = quarantined[0]
        raise ValueError(
            f"{file} does not look like {name}: none of its {len(quarantined)} rows is usable "
            f"(line {first.line}: {first.reason}); give the official {name} file."
        )
    return questions, quarantined


# ---------------------------------------------------------------- files and the Hub


def read_raw(path, name: str, split: str) -> tuple[list[Question], list[Quarantined]]:
    """All rows of one official raw file as (questions, quarantined); their numbers add up to the file's rows.

    Split "sft" or "rl" reads the train file and keeps its first or second half. Raises ValueError or
    FileNotFoundError for a fault of the file as a whole.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist; give the {name} {split} file.")
    if not (rows := json_lines(path, finite=True)):
        raise ValueError(f"{path} is empty; download the file again.")
    return _convert(rows, name, split, path.name, {"sha256": sha256(path)}, from_hub=False)


def benchmark_of(path: Path) -> str | None:
    """The benchmark whose fields the file's first readable row has, whatever the file is called; None where it has none's."""
    with open(path, "rb") as file:
        lines = file.read(1_000_000).split(b"\n")[:100]
    for line in lines:
        for name in RELEASES:
            try:
                _question(parse_json(line.decode("utf-8-sig")), name, "", "row", {}, from_hub=False)
            except FileFault:  # MedMCQA's fields, counted from 0
                return name
            except ValueError:  # no JSON, or a row of another benchmark
                continue
            return name
    return None


def _named(source: Path, name: str, split: str) -> list[Path]:
    """Every file under `source` with an official name of this split, best first."""
    release = RELEASES[name]
    places = [source / folder / file for file in release.files[split] for folder in release.folders]
    return list({path.resolve(): path for path in places if path.is_file()}.values())


def find_files(source) -> dict[tuple[str, str], Path]:
    """(benchmark, split) -> file, for every known official file name in `source` or its `Release.folders`.

    FileNotFoundError where there is no such source.

    Several benchmarks call a file test.jsonl: its fields say whose it is. A file that nothing can be read from keeps its name's
    first benchmark, so that loading it says what it is.
    """
    if not isinstance(source, str | Path):
        raise FileNotFoundError(f"source is {source!r}; give the folder or a file of official files.")
    source = Path(source)
    if not source.exists():
        raise FileNotFoundError(
            f"source {source} does not exist; give a folder or file of official files (CLINICAL_R1_DATA, or source=)."
        )
    found = {}
    for name, release in RELEASES.items():
        for split in release.files:
            for path in _named(source, name, split):
                holds = benchmark_of(path)
                if holds == name or (holds is None and path not in found.values()):
                    found.setdefault((name, split), path)
    return found


def _locate(source, name: str, split: str) -> Path:
    source = Path(source)
    if source.is_file():
        named = [s for s in RELEASES[name].files if re.search(rf"(?:^|_){s}(?:_|$)", source.stem)]
        if named and split not in named:  # one file read as three splits is how dev becomes test
            raise ValueError(f"{source} is named as {named[0]}, asked for {split}; give the {split} file.")
        return source
    found = find_files(source)
    named = _named(source, name, split)
    fitting = [path for path in named if benchmark_of(path) in (name, None)]
    if len(set(map(sha256, fitting))) > 1:
        listed = " and ".join(str(path.relative_to(source)) for path in fitting)
        raise ValueError(f"{source} holds several files for {name} {split}, {listed}; move all but one away.")
    if fitting:
        return fitting[0]
    if named:
        raise ValueError(
            f"{named[0]} does not look like {name}: its rows are {benchmark_of(named[0])}'s; give the {name} file."
        )
    names = RELEASES[name].files[split]
    stems = tuple(f"{Path(file).stem}." for file in names)
    near = [
        str(path.relative_to(source))
        for folder in RELEASES[name].folders
        if (source / folder).is_dir()
        for path in sorted((source / folder).iterdir())
        if path.name.startswith(stems)
    ]
    listed = ", ".join(f"{n} {s} ({path.relative_to(source)})" for (n, s), path in found.items())
    folders = ", ".join(filter(None, RELEASES[name].folders))
    raise FileNotFoundError(
        f"no file for {name} {split} under {source}: expected {' or '.join(names)}, in it or in {folders}; found "
        f"{listed or 'nothing known'}"
        f"{f'; unpack or convert {near[0]}' if near else ''}."
    )


def _from_hub(name: str, split: str, revision: str | None):
    release = RELEASES[name]
    of_file = "train" if split in HALVES else split
    if of_file not in release.hub_files:
        raise ValueError(
            f"{release.repo} on the Hub has no {of_file} split; give source=, a folder with the {name} file."
        )
    revision, file = revision or release.revision, release.hub_files[of_file]
    try:
        from datasets import load_dataset

        rows = load_dataset(release.repo, data_files={of_file: file}, split=of_file, revision=revision)
    except Exception as error:  # the Hub client raises a dozen kinds; each means: no data from there
        raise ConnectionError(
            f"{name} {split} could not be read from the Hugging Face Hub ({release.repo} at {revision}: "
            f"{type(error).__name__}: {str(error)[:200]}); download the official files and give their folder "
            "with source=, or in CLINICAL_R1_DATA."
        ) from error
    stamp = {"sha256": None, "repo": release.repo, "revision": revision}
    return _convert([(i, row) for i, row in enumerate(rows, 1)], name, split, file, stamp, from_hub=True)


def load_benchmark(
    name: str, split: str, source=None, quarantine: list | None = None, revision: str | None = None
) -> list[Question]:
    """The questions of one benchmark split, in file order.

    name: "medqa" (five options, the paper's), "medqa-4", "medmcqa", "medxpertqa", or one of CLINIC_BENCHMARKS.
    split: official names; "validation" means "dev"; "sft", "rl" are the first and second half of MedQA train.
    source: a folder or file of official raw files; None is the Hub at `revision` (None: the pinned one), or
    the built-in clinic.
    quarantine: a list that receives the unusable rows; when None, one of them is an error.

    Raises ValueError (unknown name or split, wrong schema, unusable rows), FileNotFoundError or, without
    the Hub, ConnectionError.
    """
    if name in CLINIC_BENCHMARKS:
        if source is not None:
            raise ValueError(f"{name} is generated, not read: source is {str(source)!r}, expected None.")
        return load_set(name, "validation" if split == "dev" else split)
    if name not in RELEASES:
        raise ValueError(
            f"benchmark {name!r} is not known; expected one of {[*RELEASES, *CLINIC_BENCHMARKS]}."
        )
    split = ALIASES.get(split, split)
    of_file = "train" if split in HALVES else split
    if split not in RELEASES[name].rows:
        raise ValueError(f"{name} has no split {split!r}; expected one of {list(RELEASES[name].rows)}.")
    if source is None:
        questions, faults = _from_hub(name, split, revision)
    else:
        questions, faults = read_raw(_locate(source, name, of_file), name, split)
    if faults and quarantine is None:
        first = faults[0]
        raise ValueError(
            f"{len(faults)} of {len(faults) + len(questions)} rows of {first.file} cannot be used, the first "
            f"on line {first.line}: {first.reason}; fix the file, or pass quarantine=[] to set them aside."
        )
    if faults:
        quarantine.extend(faults)
    return questions
