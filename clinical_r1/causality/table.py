"""All probes over the arms and seeds of a run, into causality.csv: one row for each arm, seed and probe.

    python -m clinical_r1.causality --profile cpu --seeds 101 102 --methods baseline crpo grpo exact_tally

Resumable: the rows of an arm and seed lie in runs/<profile>/causality/<benchmark>.<split>.<questions>/, each file with a stamp
of the policy, the questions and the rules that made it, and are kept while these are the same. The table is written to
runs/<profile>/tables and figures/<profile>, with a stamp that lists every policy.
"""

import json
from pathlib import Path

from clinical_r1.arms import ARMS
from clinical_r1.artifacts import code_hash, digest, policy_hash, same_settings
from clinical_r1.causality.direct import STEPS, TRAINED_ON, direct_control
from clinical_r1.causality.probes import SEED, all_probes
from clinical_r1.clinic.cases import load_set
from clinical_r1.files import (
    locked,
    read_json,
    read_stamp,
    read_stamped,
    stamp_path,
    write_stamp,
    write_stamped,
    write_text,
)
from clinical_r1.generate import answer_jobs
from clinical_r1.models import precision
from clinical_r1.questions import Question, read_questions
from clinical_r1.workers import watched

NAME = "causality.csv"
COLUMNS = ("method", "seed", "benchmark", "split", "probe", "target", "n", "hits", "share", "ci_low", "ci_high", "stay", "gold",
           "other", "unread")  # fmt: skip
PROBED_WITH = ("base_model", "engine", "backend", "load_in_4bit", "max_completion_tokens", "eval_batch")
RULES = ("clinical_r1.causality.probes:all_probes", "clinical_r1.prompts:build_messages")
DIRECT_RULES = ("clinical_r1.causality.direct:direct_rows", "clinical_r1.causality.probes:empty_test")
Job = tuple[str, int, str, str, int]  # method, seed, benchmark, split, number of questions


def questions_of(settings, benchmark: str, split: str, n: int) -> list[Question]:
    """The first n questions that are probed. split "test" reads the run's own file; any other is drawn for the clinic.

    ValueError when there are fewer.
    """
    if split == "test":
        found = read_questions(settings.questions_path(benchmark, split))[:n]
    else:
        found = load_set(benchmark, split, n)
    if len(found) < n:
        raise ValueError(
            f"{benchmark} has {len(found)} {split} questions and {n} were asked for; ask for fewer."
        )
    return found


def rows_path(settings, method: str, seed: int, benchmark: str, split: str, n: int, steps: int = 0) -> Path:
    """Where the rows of one arm and seed lie: of the probes, or, with steps, of its direct control."""
    folder = settings.run_dir / "causality" / f"{benchmark}.{split}.{n}"
    return folder / f"{method}.seed{seed}{'.direct' if steps else ''}.jsonl"


def _made_from(settings, method: str, seed: int, questions, steps: int) -> dict:
    """What the rows of one arm and seed depend on besides the settings in `PROBED_WITH`, with steps also in `TRAINED_ON`."""
    asked = digest(json.dumps([question.to_json() for question in questions], sort_keys=True))
    rules = digest(code_hash(*(DIRECT_RULES if steps else RULES)))
    made = {"policy": policy_hash(settings, method, seed), "probed_questions": asked, "probe_rules": rules}
    more = {"direct_steps": steps} if steps else {"probe_seed": SEED}
    return made | more | {"precision": precision(settings)}


def _keys(steps: int) -> tuple[str, ...]:
    return tuple(dict.fromkeys((*PROBED_WITH, *(TRAINED_ON if steps else ()))))


def _is_written(settings, job: Job, steps: int) -> bool:
    path = rows_path(settings, *job, steps)
    if not path.exists():
        return False
    read_stamp(path, "probe")
    made = _made_from(settings, *job[:2], questions_of(settings, *job[2:]), steps)
    return same_settings(stamp_path(path), settings, _keys(steps), **made)


def _parts(steps: int) -> tuple[int, ...]:
    return (0, steps) if steps else (0,)


def is_probed(settings, job: Job, steps: int) -> bool:
    """True when the rows are on disk. StaleError when they were made from something else, ValueError when they were changed.

    job: (method, seed, benchmark, split, n). steps: of the direct control; 0 leaves it out.
    """
    return all([_is_written(settings, job, part) for part in _parts(steps)])


def probe_arm(
    settings, engine, method: str, seed: int, benchmark: str, split: str, n: int, steps: int
) -> None:
    """Write the rows of one arm and seed that are not on disk. engine: the arm's. steps: as in `is_probed`."""
    job = (method, seed, benchmark, split, n)
    names = dict(zip(("method", "seed", "benchmark", "split"), job, strict=False))
    questions = questions_of(settings, benchmark, split, n)
    for part in _parts(steps):
        path = rows_path(settings, *job, part)
        with locked(path.with_name(f".{path.stem}.lock"), str(path)):
            if _is_written(settings, job, part):
                continue
            if part:
                rows = [direct_control(settings, method, seed, questions, part)]
            else:
                rows = all_probes(engine, questions, settings, ARMS[method].style)
            stamp = {key: settings.to_json()[key] for key in _keys(part)}
            stamp |= _made_from(settings, method, seed, questions, part)
            write_stamped(path, [names | row for row in rows], stamp)


def _rows(settings, jobs) -> list[dict]:
    return [
        row
        for job, steps in jobs
        for part in _parts(steps)
        for row in read_stamped(rows_path(settings, *job, part), "probe")
    ]


def jobs_of(
    settings, benchmark: str, split: str, n: int, steps: int = STEPS, direct_seeds=None
) -> list[tuple[Job, int]]:
    """(job, steps of its direct control) for each method and seed of the settings.

    direct_seeds: those with a direct control; None means all.
    """
    controlled = settings.seeds if direct_seeds is None else direct_seeds
    return [
        ((method, seed, benchmark, split, n), steps if seed in controlled else 0)
        for method in settings.methods
        for seed in settings.seeds
    ]


def causality_table(settings, *asked):
    """Frame of COLUMNS: the rows of every method and seed of the settings, which must be on disk. asked: as in `jobs_of`."""
    import pandas as pd

    rows = _rows(settings, jobs_of(settings, *asked))
    counts = ["n", "hits", "stay", "gold", "other", "unread"]
    return pd.DataFrame(rows, columns=list(COLUMNS)).astype(dict.fromkeys(counts, "Int64"))


def read_outcomes(settings, *asked):
    """Frame method, seed, probe, id, outcome: what came of each question, for tests that pair them. asked: as in `jobs_of`."""
    import pandas as pd

    rows = _rows(settings, jobs_of(settings, *asked))
    return pd.DataFrame(
        [
            {key: row[key] for key in ("method", "seed", "probe")} | {"id": name, "outcome": outcome}
            for row in rows
            for name, outcome in row["outcomes"].items()
        ]
    )


def probe_all(
    settings,
    benchmark: str = "clinic",
    split: str = "validation",
    n: int = 200,
    steps: int = STEPS,
    direct_seeds=None,
):
    """Probe every method and seed of the settings, write causality.csv and its stamp, and return the frame.

    steps: of the direct control, which takes most of the time; 0 leaves it out. direct_seeds: as in `jobs_of`. ValueError for an
    arm that is not trained. RuntimeError names the log of a worker that failed; what was probed stays.
    """
    asked = (benchmark, split, n, steps, direct_seeds)
    jobs = jobs_of(settings, *asked)
    waiting = [(job, own) for job, own in jobs if not is_probed(settings, job, own)]

    def done() -> int:
        return sum(rows_path(settings, *job, own).exists() for job, own in waiting)

    if waiting:
        folder = settings.run_dir / "causality"
        with watched(done, len(waiting), folder, "probes of causality", "arm"):
            answer_jobs(settings, [(*job, own) for job, own in waiting], probe_arm)
    table = causality_table(settings, *asked)
    paths = [rows_path(settings, *job, part) for job, own in jobs for part in _parts(own)]
    write_table(settings, table, paths)
    return table


def write_table(settings, table, paths) -> None:
    """causality.csv, and causality.json beside it: {"rows": {file of rows: its stamp}, "sha256"}, in tables and figures."""
    made = {path.stem: read_json(stamp_path(path)) for path in paths}
    text = table.to_csv(index=False, lineterminator="\n")
    for folder in (settings.run_dir / "tables", settings.figures_dir):
        write_stamp(write_text(folder / NAME, text), {"rows": made})
