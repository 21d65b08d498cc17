"""The same completions under other rules, and an A/B of old against new; needs no model."""

import hashlib
import os
import re
import shutil
from pathlib import Path

import numpy as np

from clinical_r1.files import read_jsonl, read_stamp, write_json, write_jsonl, write_stamped, write_text
from clinical_r1.intervals import QUESTIONS_ONLY, paired_difference
from clinical_r1.score import Rules, check_rows, completion_files, score_rows, scored_from
from clinical_r1.settings import Settings
from clinical_r1.tables import build_table1, write_table1

SCORE_FIELDS = frozenset(
    "id benchmark method seed sample tokens answer letter correct problems rewards measures".split()
)
AB_COLUMNS = "benchmark method protocol metric old new difference ci_low ci_high n completions changed unpaired interval".split()


TODAY = Rules()


def rescore(settings: Settings, rules: Rules = TODAY, name: str = "today", workers: int = 1):
    """Score a run's stored completions under `rules`, rebuild Table 1, and compare with the run's own scores.

    Writes runs/<profile>/rescored/<name>/: scores/, table1.csv, table1.md, ab.csv, changed.jsonl and rules.json, all of
    them or, when killed, none. The run's own scores and tables are only read; where a score file is missing, `Rules()`
    takes its place. Needs no model.

    Returns `compare_rules`' frame. ValueError for a name that is no folder name, or for completions or scores that do
    not hold exactly the test questions.
    """
    if not re.fullmatch(r"\w[\w.-]*", name):
        raise ValueError(
            f"name is {name!r}; expected a folder name of letters, digits, '.', '_', '-', such as first-letter."
        )
    folder = settings.run_dir / "rescored" / name
    partial = folder.with_name(f".{name}.partial")
    shutil.rmtree(partial, ignore_errors=True)  # of a killed process
    old, new, stored, digest, named = [], [], 0, hashlib.sha256(), rules.to_json()
    try:
        for evaluation, rows, questions in completion_files(settings):
            scores = score_rows(rows, questions, rules, workers)
            own = settings.scores_path(*evaluation)
            made_from = scored_from(settings, evaluation, named)
            write_stamped(partial / own.relative_to(settings.run_dir), scores, made_from)
            new += scores
            by_default = scores if rules == Rules() else None
            old += _old_scores(own, evaluation, rows, questions, by_default, made_from["completions"])
            stored += own.is_file()
            digest.update(settings.completions_path(*evaluation).read_bytes())
        write_table1(build_table1(settings, new), partial)
        table = compare_rules(old, new)
        write_text(partial / "ab.csv", table.to_csv(index=False))
        write_jsonl(partial / "changed.jsonl", changed_rows(old, new))
        scored_here = len(settings.evaluations()) - stored
        against = {"stored score files": stored, "files scored by the default rules": scored_here}
        record = {"rules": named, "against": against, "completions_sha256": digest.hexdigest()}
        write_json(partial / "rules.json", record)
        shutil.rmtree(folder, ignore_errors=True)
        os.replace(partial, folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return table


def _old_scores(path: Path, evaluation, completions, questions, by_default, answered: str) -> list[dict]:
    """The stored scores of the same completions, in their order; those of the default rules where none are stored."""
    if not path.is_file():
        return by_default or score_rows(completions, questions)
    benchmark, protocol = evaluation[0], evaluation[3]
    if (made := read_stamp(path, "score").get("completions")) != answered:
        raise ValueError(
            f"{path} scores other completions ({made}) than those stored ({answered}); delete it, and the default rules take its "
            "place."
        )
    rows = read_jsonl(path)
    check_rows(path, rows, SCORE_FIELDS, questions, benchmark, "score")
    by_key = {(row["id"], row["sample"]): row | {"protocol": protocol} for row in rows}
    return [by_key[row["id"], row["sample"]] for row in completions]


def compare_rules(old: list[dict], new: list[dict]):
    """A/B of two scorings of identical completions: a row per benchmark, method, protocol and metric.

    old, new: scored records of the same completions in the same order. metric: accuracy and coverage (shares in [0, 1]),
    every reward, every measure. old, new, difference (new minus old) are means over the completions that both could
    score, with a 95 % interval of the paired difference over questions; n counts those questions. completions: all of
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
            scale = 1.0 if metric in ("accuracy", "coverage") else None
            rows.append((*key, metric, *_ab_numbers(a, b, ids, scale), QUESTIONS_ONLY))
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


def _ab_numbers(a, b, ids, scale):
    """(old, new, difference, ci_low, ci_high, n, completions, changed, unpaired) of one metric; scale: `paired_difference`'s."""
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
    result = paired_difference(b[both], a[both], clusters=ids[both], scale=scale)
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
