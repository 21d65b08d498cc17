"""How much CPU time and memory does curation take at the size of MedMCQA's training set, and do they grow linearly?

    python benchmarks/curate.py [--rows 45000 91000 182822] [--save] [--digest 20000]

The rows are made from a seed: no benchmark file is read. Their stems, options, repeated questions and frames ("Which of the
following is not true about ...") follow MedMCQA's dev set in number and length: 11 words a stem in the median, 60 at the 99th
percentile, 2 an option; Zipf's law for words; 0.5 % exact and 1.5 % near duplicates, "all of the above" in 6 %. Each size runs
in a process of its own, so that the memory is its own: `before curate` holds the rows and the interpreter, `peak` all of it.
--digest prints a hash of all that `curate` returns, to compare two versions of the code.
"""

import argparse
import hashlib
import json
import resource
import subprocess
import sys
import time

import numpy as np
from measuring import RESULTS, hardware

from clinical_r1.curation.splits import curate
from clinical_r1.files import write_json
from clinical_r1.questions import Question

FILE = RESULTS / "curate.json"
SIZES = (45_000, 91_000, 182_822)
TEST_ROWS = 4183  # held out: the rows that a training pool is checked against, as many as MedMCQA's dev set
VOCABULARY = 40_000
SYLLABLES = (
    "ba ce di fo gu ha je ki lo mu na pe ri so tu va xe zi bro cla dre fli gro pla ster thy phro".split()
)
FRAMES = (
    "{} is seen in", "Which of the following is not true about {}", "All of the following are true about {} except",
    "Drug of choice for {}", "Most common cause of {} is", "{} is derived from", "True about {} is:", "A 45-year-old man "
    "presents with {}. The most likely diagnosis is", "Which of these is associated with {}?", "Investigation of choice for {}",
)  # fmt: skip


def words(count: int, rng: np.random.Generator) -> list[str]:
    """Different pseudo-words of two to five syllables, the shorter ones first, which Zipf's law makes the frequent ones."""
    made: dict[str, None] = dict.fromkeys(
        "of the is in a to and with which for are by on not patient".split()
    )
    while len(made) < count:
        syllables = rng.integers(len(SYLLABLES), size=2 + len(made) * 3 // count + rng.integers(2))
        made["".join(SYLLABLES[i] for i in syllables)] = None
    return list(made)


def synthetic_rows(count: int, seed: int = 0, split: str = "train") -> list[Question]:
    """Questions like MedMCQA's, from a seed; equal for equal arguments."""
    rng = np.random.default_rng([seed, count])
    vocabulary = np.array(words(VOCABULARY, np.random.default_rng(seed)))
    weights = 1 / (np.arange(VOCABULARY) + 3)
    edges = np.cumsum(weights / weights.sum())

    def text(length: int) -> str:
        return " ".join(vocabulary[np.minimum(np.searchsorted(edges, rng.random(length)), VOCABULARY - 1)])

    rows: list[Question] = []
    for i in range(count):
        kind, old = rng.random(), rows[rng.integers(len(rows))] if rows else None
        if old and kind < 0.02:
            stem = old.stem if kind < 0.005 else f"{old.stem} {text(1)}"
            options = dict(old.options)
        else:
            long = rng.random() < 0.08
            stem = text(int(rng.integers(20, 60) if long else rng.geometric(0.18) + 3))
            stem = FRAMES[rng.integers(len(FRAMES))].format(stem) if rng.random() < 0.4 else f"{stem}?"
            options = {letter: text(int(rng.geometric(0.4))) for letter in "ABCD"}
            options |= {"D": "All of the above"} if rng.random() < 0.06 else {}
        meta = {"multi": bool(rng.random() < 0.33), "explanation": text(38), "line": i + 1}
        answer = old.answer if old and kind < 0.004 else "ABCD"[rng.integers(4)]
        rows.append(Question(f"{split}-{i}", "medmcqa", split, stem, options, answer, meta))
    return rows


def result_hash(rows: int) -> str:
    """sha256 of all that curate returns for so many synthetic rows."""
    result = curate(synthetic_rows(rows), against=synthetic_rows(TEST_ROWS, 1, "dev"))
    values = [
        [question.to_json() for question in result.questions],
        [row.to_json() for row in result.quarantined],
    ]
    return hashlib.sha256(json.dumps([*values, result.report], sort_keys=True).encode()).hexdigest()


def measure_one(rows: int) -> dict:
    """CPU seconds of `curate` and memory of this process, for so many rows against a held-out set."""
    questions, held_out = synthetic_rows(rows), synthetic_rows(TEST_ROWS, 1, "dev")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.process_time()
    result = curate(questions, against=held_out)
    seconds = time.process_time() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    unit = 2**20 if sys.platform == "darwin" else 2**10  # of ru_maxrss in a MiB
    found = {row["check"]: row["count"] for row in result.report}
    return {
        "rows": rows,
        "cpu_seconds": round(seconds, 2),
        "peak_mib": round(peak / unit),
        "before_curate_mib": round(before / unit),
        "found": {name: found[name] for name in ("exact_duplicate", "contaminated", "near_duplicate")},
    }


def measure(sizes) -> list[dict]:
    """One point a size, each in a process of its own."""
    points = []
    for rows in sizes:
        command = [sys.executable, __file__, "--one", str(rows)]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        points.append(json.loads(done.stdout))
        print(f"{rows:,} rows: {points[-1]['cpu_seconds']} s, {points[-1]['peak_mib']} MiB", flush=True)
    return points


def sentence(points: list[dict]) -> str:
    """What docs/benchmarks.md says of a result."""
    small, large = min(points, key=_rows), max(points, key=_rows)
    return (
        f"Curating {large['rows']:,} made-up rows like MedMCQA's against {TEST_ROWS:,} held-out ones takes "
        f"{large['cpu_seconds']:.0f} s of one core and {large['peak_mib'] / 1024:.1f} GiB; {large['rows'] / small['rows']:.1f} "
        f"times the rows take {large['cpu_seconds'] / small['cpu_seconds']:.1f} times as long (`benchmarks/curate.py`)."
    )


def _rows(point: dict) -> int:
    return point["rows"]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, nargs="+", default=SIZES)
    parser.add_argument("--save", action="store_true", help="keep the result for docs/benchmarks.md")
    parser.add_argument("--digest", type=int, metavar="ROWS", help="print a hash of curate's result instead")
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps(measure_one(arguments.one)))
    elif arguments.digest:
        print(result_hash(arguments.digest))
    else:
        points = measure(arguments.rows)
        if arguments.save:
            machine = {key: value for key, value in hardware().items() if key in ("name", "cores", "python")}
            write_json(FILE, {"hardware": machine, "points": points})
