"""Completions → scores: parsed letter, every reward, every measure. Needs no model, so re-scoring is free.

    score_all(settings)                        score a run's completions; its tables are made from what this returns
    rescore(settings, Rules(...), "my-rules")  the same completions under other rules, and an A/B of old against new

Scores are joined through files: runs/<profile>/scores for the run's own, runs/<profile>/rescored/<name> for others.
"""

import hashlib
import os
import re
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from clinical_r1 import agreement, metrics, paper, tables
from clinical_r1.completions import parse_completion
from clinical_r1.files import read_jsonl, write_json, write_jsonl, write_text
from clinical_r1.intervals import paired_bootstrap
from clinical_r1.judge import exact_judge, judge_many
from clinical_r1.questions import Question, read_questions
from clinical_r1.rewards import (
    accuracy_reward,
    clinical_reasoning_reward,
    consistency_reward,
    thinking_format_reward,
)
from clinical_r1.settings import Settings

REWARDS = (accuracy_reward, thinking_format_reward, clinical_reasoning_reward, consistency_reward)
TABLE_SEED = 20251201  # of Table 1's bootstrap, so that equal scores give equal bytes
COMPLETION_FIELDS = frozenset("id benchmark method seed sample protocol style prompt text tokens".split())
SCORE_FIELDS = frozenset(
    "id benchmark method seed sample tokens answer letter correct problems rewards measures".split()
)
AB_COLUMNS = "benchmark method protocol metric old new difference ci_low ci_high n completions changed unpaired".split()


@dataclass(frozen=True)
class Rules:
    """Everything a score depends on besides the completion and its question.

    parse: (text, style) -> Completion; reads letter and problems. The rewards read texts with their own parser: to
        change what they see, give other rewards too.
    rewards: functions in TRL's convention (see `rewards`), each under its own __name__.
    judge: (question, text) -> {measure: count, or None for an unparsable verdict}; {} where it cannot judge.
    """

    parse: Callable = parse_completion
    rewards: tuple[Callable, ...] = REWARDS
    judge: Callable = exact_judge

    def __post_init__(self):
        names = [getattr(reward, "__name__", None) for reward in self.rewards]
        if None in names or len(set(names)) < len(names):
            raise ValueError(
                f"rewards are named {names}; expected a different __name__ for each: define them with def."
            )

    def to_json(self) -> dict:
        """The rules by name, for the record beside re-scored tables."""
        name = {"parse": self.parse, "judge": self.judge}
        return {key: _full_name(rule) for key, rule in name.items()} | {
            "rewards": [_full_name(reward) for reward in self.rewards]
        }


def _full_name(rule) -> str:
    return f"{rule.__module__}.{getattr(rule, '__qualname__', type(rule).__name__)}"


def score_completion(row: dict, question: Question, rules: Rules = Rules()) -> dict:
    """One scored record. An unparsed answer has letter None and is wrong."""
    return _scored(row, question, rules, rules.judge(question, row["text"]))


def _scored(row, question, rules, measures):
    parsed = rules.parse(row["text"], row["style"])
    columns = {"answer": [question.answer], "options": [question.options], "style": [row["style"]]}
    columns["prompts"] = [row["prompt"]]
    return {
        **{key: row[key] for key in ("id", "benchmark", "method", "seed", "sample", "protocol", "tokens")},
        "n_options": len(question.options),
        "answer": question.answer,
        "letter": parsed.letter,
        "correct": parsed.letter is not None and parsed.letter == question.answer,
        "problems": list(parsed.problems),
        "rewards": {reward.__name__: reward([row["text"]], **columns)[0] for reward in rules.rewards},
        "measures": measures,
    }


def score_rows(rows: list[dict], questions: dict[str, Question], rules: Rules = Rules(), workers=1) -> list:
    """The scored records of one file's completions. workers > 1 asks the judge that often at the same time."""
    if workers == 1:
        return [score_completion(row, questions[row["id"]], rules) for row in rows]
    verdicts = judge_many([(questions[row["id"]], row["text"]) for row in rows], rules.judge, workers)
    return [
        _scored(row, questions[row["id"]], rules, verdict)
        for row, verdict in zip(rows, verdicts, strict=True)
    ]


def calibrate(settings: Settings, judges, rng, methods=("crpo", "grpo"), n=500, workers=1):
    """(agreement, ordering) of judges on the clinic, where the truth is exact: frames of `agreement`, judge by judge.

    judges: name -> judge. methods: two of the run's, whose first-seed answers to the first n test questions of `clinic` are
    judged. workers: how many completions a judge sees at the same time.
    """
    import pandas as pd

    questions = read_questions(settings.questions_path("clinic", "test"))[:n]
    ids = [question.id for question in questions]
    texts = {}
    for method in methods:
        rows = read_jsonl(settings.completions_path("clinic", method, settings.seeds[0]))
        first = {row["id"]: row["text"] for row in rows if row["sample"] == 0}
        texts[method] = [first[key] for key in ids]

    def ask(judge):
        pairs = [pair for own in texts.values() for pair in zip(questions, own, strict=True)]
        verdicts = judge_many(pairs, judge, workers) if workers > 1 else [judge(*pair) for pair in pairs]
        return {m: verdicts[i * len(ids) : (i + 1) * len(ids)] for i, m in enumerate(methods)}

    exact = ask(exact_judge)
    judged = {name: ask(judge) for name, judge in judges.items()}
    pooled = {name: sum(own.values(), []) for name, own in judged.items()}
    table = agreement.agreement_table(pooled, sum(exact.values(), []), rng, ids=ids * len(methods))
    orders = [agreement.ordering(own, exact, rng).assign(judge=name) for name, own in judged.items()]
    return table, pd.concat(orders, ignore_index=True)[["judge", *agreement.ORDERING_COLUMNS]]


def score_all(settings: Settings, rules: Rules = Rules(), workers: int = 1, judge=None) -> list[dict]:
    """Score every completion file of a run, write the scores beside, and return all records.

    judge: instead of rules.judge. ValueError when a file's questions are not exactly the benchmark's test questions.
    """
    rules = rules if judge is None else replace(rules, judge=judge)
    records = []
    for evaluation, rows, questions in _completion_files(settings):
        scores = score_rows(rows, questions, rules, workers)
        write_jsonl(settings.scores_path(*evaluation), scores)
        records += scores
    return records


# --- files


def _completion_files(settings: Settings) -> Iterator[tuple[tuple, list[dict], dict[str, Question]]]:
    """((benchmark, method, seed, protocol), completions, id -> question) of every file that the tables need."""
    from tqdm.auto import tqdm

    questions = {}
    for method, seed, benchmark, protocol in tqdm(settings.evaluations(), desc="scores", unit="file"):
        if benchmark not in questions:
            asked = read_questions(_there(settings.questions_path(benchmark, "test"), "notebook 01"))
            questions[benchmark] = {question.id: question for question in asked}
        evaluation = benchmark, method, seed, protocol
        path = _there(settings.completions_path(*evaluation), "notebook 04")
        rows = read_jsonl(path)
        _check(path, rows, COMPLETION_FIELDS, questions[benchmark], benchmark, "generate")
        yield evaluation, rows, questions[benchmark]


def _there(path: Path, maker: str) -> Path:
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist; run {maker}, which makes it, first.")
    return path


def _check(path: Path, rows: list[dict], fields: frozenset, questions, benchmark: str, again: str) -> None:
    """ValueError unless each question of the split is there once per sample, and nothing else is."""
    torn = [number for number, row in enumerate(rows, 1) if not fields <= row.keys()]
    if torn:
        lacking = sorted(fields - rows[torn[0] - 1].keys())
        raise ValueError(
            f"{path}: {len(torn)} of {len(rows)} rows lack fields (line {torn[0]} lacks {lacking}); "
            f"delete it and {again} again."
        )
    counts = Counter((row["id"], row["sample"]) for row in rows)
    answered, samples = {id for id, _ in counts}, sorted({sample for _, sample in counts})
    faults = {
        "missing": sorted(questions.keys() - answered),
        "unknown": sorted(answered - questions.keys()),
        "repeated": sorted(key for key, count in counts.items() if count > 1),
        "without one of the samples": [
            (id, sample) for id in sorted(answered) for sample in samples if (id, sample) not in counts
        ],
    }
    if any(faults.values()):
        found = "; ".join(f"{len(some)} {what}, such as {some[0]!r}" for what, some in faults.items() if some)
        raise ValueError(
            f"{path} answers {len(answered)} questions, expected the {len(questions)} of {benchmark}'s test split, each "
            f"once a sample: {found}; delete it and {again} again."
        )


# --- Table 1


def build_table1(settings: Settings, records, rng: np.random.Generator):
    """Table 1 (`tables.table1`) of a run's records: the paper's protocol, the first sample of each question.

    records: list or frame of scored records, all protocols; greedy ones are left out.
    """
    import pandas as pd

    frame = pd.DataFrame(records)
    sampled = frame[(frame["protocol"] == "sampled") & (frame["sample"] == 0)]
    questions = [q for b in settings.benchmarks for q in read_questions(settings.questions_path(b, "test"))]
    summary = pd.concat([metrics.summarise(sampled, rng), metrics.baseline_rows(questions)])
    return tables.table1(summary, paper.TABLE1, paper.STANDS_FOR)


def write_table1(table, folder: Path) -> Path:
    """Write table1.csv and table1.md into a folder; the path of the markdown."""
    from clinical_r1.plots import BENCHMARK_LABELS

    labels = BENCHMARK_LABELS | paper.METHOD_LABELS | paper.METRIC_LABELS
    write_text(folder / "table1.csv", table.to_csv(index=False))
    return write_text(folder / "table1.md", tables.table1_markdown(table, labels, paper.STANDS_FOR))


# --- the same completions under other rules


def rescore(settings: Settings, rules: Rules = Rules(), name: str = "today", rng=None, workers: int = 1):
    """Score a run's stored completions under `rules`, rebuild Table 1, and compare with the run's own scores.

    Writes runs/<profile>/rescored/<name>/: scores/, table1.csv, table1.md, ab.csv, changed.jsonl and rules.json, all of
    them or, when killed, none. The run's own scores and tables are only read; where a score file is missing, `Rules()`
    takes its place. rng: of the intervals; None is `TABLE_SEED`, as in notebook 04. Needs no model.

    Returns `compare_rules`' frame. ValueError for a name that is no folder name, or for completions or scores that do
    not hold exactly the test questions.
    """
    if not re.fullmatch(r"\w[\w.-]*", name):
        raise ValueError(
            f"name is {name!r}; expected a folder name of letters, digits, '.', '_', '-', such as first-letter."
        )
    rng = np.random.default_rng(TABLE_SEED) if rng is None else rng
    folder = settings.run_dir / "rescored" / name
    partial = folder.with_name(f".{name}.partial")
    shutil.rmtree(partial, ignore_errors=True)  # of a killed process
    old, new, stored, digest = [], [], 0, hashlib.sha256()
    try:
        for evaluation, rows, questions in _completion_files(settings):
            scores = score_rows(rows, questions, rules, workers)
            own = settings.scores_path(*evaluation)
            write_jsonl(partial / own.relative_to(settings.run_dir), scores)
            new += scores
            old += _old_scores(own, evaluation, rows, questions, scores if rules == Rules() else None)
            stored += own.is_file()
            digest.update(settings.completions_path(*evaluation).read_bytes())
        write_table1(build_table1(settings, new, rng), partial)
        table = compare_rules(old, new, rng)
        write_text(partial / "ab.csv", table.to_csv(index=False))
        write_jsonl(partial / "changed.jsonl", changed_rows(old, new))
        by_default = len(settings.evaluations()) - stored
        against = {"stored score files": stored, "files scored by the default rules": by_default}
        record = {"rules": rules.to_json(), "against": against, "completions_sha256": digest.hexdigest()}
        write_json(partial / "rules.json", record)
        shutil.rmtree(folder, ignore_errors=True)
        os.replace(partial, folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return table


def _old_scores(path: Path, evaluation, completions, questions, by_default) -> list[dict]:
    """The stored scores of the same completions, in their order; those of the default rules where none are stored."""
    if not path.is_file():
        return by_default or score_rows(completions, questions)
    benchmark, protocol = evaluation[0], evaluation[3]
    rows = read_jsonl(path)
    _check(path, rows, SCORE_FIELDS, questions, benchmark, "score")
    by_key = {(row["id"], row["sample"]): row | {"protocol": protocol} for row in rows}
    other = [
        row["id"]
        for row in completions
        if by_key.get((row["id"], row["sample"]), {}).get("tokens") != row["tokens"]
    ]
    if other or len(rows) != len(completions):
        raise ValueError(
            f"{path} scores other completions than the {len(completions)} stored: {len(other)} differ in sample or length"
            f"{f' (one is {other[0]!r})' if other else ''}; delete it, and the default rules take its place."
        )
    return [by_key[row["id"], row["sample"]] for row in completions]


def compare_rules(old: list[dict], new: list[dict], rng: np.random.Generator):
    """A/B of two scorings of identical completions: a row per benchmark, method, protocol and metric.

    old, new: scored records of the same completions in the same order. metric: accuracy and coverage (shares in [0, 1]),
    every reward, every measure. old, new, difference (new minus old) are means over the completions that both could
    score, with a 95 % paired bootstrap interval clustered by question; n counts those questions. completions: all of
    them; changed: those whose value differs; unpaired: those that only one of the two could score.
    """
    import pandas as pd

    groups = {}
    for pair in _pairs(old, new):
        groups.setdefault(tuple(pair[0][key] for key in ("benchmark", "method", "protocol")), []).append(pair)
    rows = []
    for key, pairs in groups.items():
        ids = np.array([before["id"] for before, _ in pairs])
        values = [pd.DataFrame([_values(pair[side]) for pair in pairs], dtype=float) for side in (0, 1)]
        for metric in dict.fromkeys([*values[0], *values[1]]):
            a, b = (
                frame[metric].to_numpy() if metric in frame else np.full(len(ids), np.nan) for frame in values
            )
            rows.append((*key, metric, *_ab_numbers(a, b, ids, rng)))
    return pd.DataFrame(rows, columns=AB_COLUMNS)


def _pairs(old, new):
    keys = ("benchmark", "method", "seed", "protocol", "id", "sample")
    differ = [a["id"] for a, b in zip(old, new, strict=False) if any(a[key] != b[key] for key in keys)]
    if len(old) != len(new) or differ:
        raise ValueError(
            f"got {len(old)} old and {len(new)} new records, {len(differ)} of them of another completion; expected two "
            "scorings of the same completions in the same order."
        )
    return zip(old, new, strict=True)


def _values(record):
    read = {"accuracy": record["correct"], "coverage": record["letter"] is not None}
    return read | record["rewards"] | record["measures"]


def _ab_numbers(a, b, ids, rng):
    """(old, new, difference, ci_low, ci_high, n, completions, changed, unpaired) of one metric."""
    there_a, there_b = ~np.isnan(a), ~np.isnan(b)
    both = there_a & there_b
    unpaired = int((there_a != there_b).sum())
    changed = int((a[both] != b[both]).sum()) + unpaired
    n = len(set(ids[both]))
    if not both.any():
        means = [
            values[there].mean() if there.any() else np.nan for values, there in ((a, there_a), (b, there_b))
        ]
        return *means, np.nan, np.nan, np.nan, n, len(ids), changed, unpaired
    old, new = a[both].mean(), b[both].mean()
    if (a[both] == b[both]).all():
        return old, new, 0.0, 0.0, 0.0, n, len(ids), changed, unpaired
    result = paired_bootstrap(b[both], a[both], rng, clusters=ids[both])
    return old, new, result.difference, *result.interval, n, len(ids), changed, unpaired


def changed_rows(old: list[dict], new: list[dict]) -> list[dict]:
    """One row per completion and value that differ: id, benchmark, method, seed, sample, protocol, what, old, new."""
    rows = []
    for before, after in _pairs(old, new):
        a, b = ({key: row[key] for key in ("letter", "problems")} | _values(row) for row in (before, after))
        who = {key: before[key] for key in ("id", "benchmark", "method", "seed", "sample", "protocol")}
        rows += [
            who | {"what": what, "old": a.get(what), "new": b.get(what)}
            for what in dict.fromkeys([*a, *b])
            if a.get(what) != b.get(what)
        ]
    return rows
