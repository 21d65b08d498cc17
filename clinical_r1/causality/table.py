"""All probes over the arms and seeds of a run, into causality.csv: one row for each arm, seed and probe.

    python -m clinical_r1.causality --profile cpu --seeds 101 102 --methods baseline crpo grpo exact_tally

Resumable: the rows of an arm and seed lie in runs/<profile>/causality/<benchmark>.<split>.<questions>/, each file with a stamp
of the policy, the questions and the rules that made it, and are kept while these are the same. The table is written to
runs/<profile>/tables and figures/<profile>, with a stamp that lists every policy.
"""

import json
from functools import partial
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


def rows_path(settings, method: str, seed: int, benchmark: str, split: str, n: int) -> Path:
    """Where the rows of one arm and seed lie."""
    return settings.run_dir / "causality" / f"{benchmark}.{split}.{n}" / f"{method}.seed{seed}.jsonl"


def _made_from(settings, method: str, seed: int, questions, steps: int) -> dict:
    """What the rows of one arm and seed depend on besides `PROBED_WITH`. steps 0: without the direct control."""
    asked = digest(json.dumps([question.to_json() for question in questions], sort_keys=True))
    made = {"policy": policy_hash(settings, method, seed), "probed_questions": asked, "probe_seed": SEED}
    made |= {
        "probe_rules": digest(code_hash(*RULES)),
        "precision": precision(settings),
        "direct_steps": steps,
    }
    if steps:
        values = settings.to_json()
        made["direct"] = {key: values[key] for key in TRAINED_ON} | {
            "rules": digest(code_hash("clinical_r1.causality.direct:direct_control"))
        }
    return made


def is_probed(settings, method: str, seed: int, benchmark: str, split: str, n: int, steps: int) -> bool:
    """True when the rows are on disk. StaleError when they were made from something else, ValueError when they were changed."""
    path = rows_path(settings, method, seed, benchmark, split, n)
    if not path.exists():
        return False
    read_stamp(path, "probe")
    made = _made_from(settings, method, seed, questions_of(settings, benchmark, split, n), steps)
    return same_settings(stamp_path(path), settings, PROBED_WITH, **made)


def probe_arm(
    settings, engine, method: str, seed: int, benchmark: str, split: str, n: int, steps: int = STEPS
) -> Path:
    """The rows of one arm and seed, unless they are on disk. engine: the arm's. steps: of the direct control; 0 leaves it out."""
    path = rows_path(settings, method, seed, benchmark, split, n)
    with locked(path.with_name(f".{path.stem}.lock"), str(path)):
        if is_probed(settings, method, seed, benchmark, split, n, steps):
            return path
        questions = questions_of(settings, benchmark, split, n)
        rows = all_probes(engine, questions, settings, ARMS[method].style)
        if steps:
            rows.append(direct_control(settings, method, seed, questions, steps))
        names = {"method": method, "seed": seed, "benchmark": benchmark, "split": split}
        stamp = {key: settings.to_json()[key] for key in PROBED_WITH}
        stamp |= _made_from(settings, method, seed, questions, steps)
        return write_stamped(path, [names | row for row in rows], stamp)


def causality_table(settings, benchmark: str, split: str, n: int):
    """Frame of COLUMNS: the rows of every method and seed of the settings, which must be on disk."""
    import pandas as pd

    rows = []
    for method in settings.methods:
        for seed in settings.seeds:
            rows += read_stamped(rows_path(settings, method, seed, benchmark, split, n), "probe")
    counts = ["n", "hits", "stay", "gold", "other", "unread"]
    return pd.DataFrame(rows, columns=list(COLUMNS)).astype(dict.fromkeys(counts, "Int64"))


def read_outcomes(settings, benchmark: str, split: str, n: int):
    """Frame method, seed, probe, id, outcome: what came of each question, for tests that pair questions."""
    import pandas as pd

    rows = []
    for method in settings.methods:
        for seed in settings.seeds:
            for row in read_stamped(rows_path(settings, method, seed, benchmark, split, n), "probe"):
                names = {"method": method, "seed": seed, "probe": row["probe"]}
                rows += [names | {"id": key, "outcome": outcome} for key, outcome in row["outcomes"].items()]
    return pd.DataFrame(rows)


def probe_all(
    settings, benchmark: str = "clinic", split: str = "validation", n: int = 200, steps: int = STEPS
):
    """Probe every method and seed of the settings, write causality.csv and its stamp, and return the frame.

    ValueError for an arm that is not trained. RuntimeError names the log of a worker that failed; what was probed stays.
    """
    jobs = [
        (method, seed, benchmark, split, n, steps) for method in settings.methods for seed in settings.seeds
    ]
    waiting = [job for job in jobs if not is_probed(settings, *job)]

    def done() -> int:
        return sum(rows_path(settings, *job[:5]).exists() for job in waiting)

    if waiting:
        folder = settings.run_dir / "causality"
        with watched(done, len(waiting), folder, "probes of causality", "arm"):
            answer_jobs(settings, waiting, probe_arm)
    table = causality_table(settings, benchmark, split, n)
    write_table(settings, table, [rows_path(settings, *job[:5]) for job in jobs])
    return table


def write_table(settings, table, paths) -> None:
    """causality.csv, and causality.json beside it: {"rows": {file of rows: its stamp}, "sha256"}, in tables and figures."""
    made = {path.stem: read_json(stamp_path(path)) for path in paths}
    text = table.to_csv(index=False, lineterminator="\n")
    for folder in (settings.run_dir / "tables", settings.figures_dir):
        write_stamp(write_text(folder / NAME, text), {"rows": made})


def summary(table):
    """Over seeds: frame method, probe, seeds, n, share (mean over seeds), lowest, highest. Arms stand in the table's order."""
    groups = table.groupby(["method", "probe"], sort=False)
    return groups.agg(
        seeds=("seed", "nunique"),
        n=("n", "sum"),
        share=("share", "mean"),
        lowest=("share", "min"),
        highest=("share", "max"),
    ).reset_index()


def as_markdown(table) -> str:
    """A line for each arm and seed, a column for each probe: per cent, with the interval over questions."""
    probes = list(dict.fromkeys(table["probe"]))
    lines = [f"| arm | seed | {' | '.join(probes)} |", "| --- | --- |" + " --- |" * len(probes)]
    for (method, seed), rows in table.groupby(["method", "seed"], sort=False):
        own = rows.set_index("probe")
        cells = [
            f"{100 * own.share[probe]:.1f} ({100 * own.ci_low[probe]:.1f} to {100 * own.ci_high[probe]:.1f})"
            for probe in probes
        ]
        lines.append(f"| {ARMS[method].label} | {seed} | {' | '.join(cells)} |")
    return "\n".join(lines)


def as_text(table) -> str:
    """A line for each arm, a column for each probe: the mean over seeds in per cent."""
    shares = summary(table).pivot(index="method", columns="probe", values="share")
    order = list(dict.fromkeys(table["method"])), list(dict.fromkeys(table["probe"]))
    percent = partial("{:.1f}".format)
    return (100 * shares.loc[order[0], order[1]]).map(percent).to_string()
