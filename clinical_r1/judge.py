"""Completions → scores: parsed letter, every reward, every measure. Needs no model, so re-scoring is free.

A judge is a function (question, text) -> {measure: count}, or {} where it cannot judge. The clinic's judge is exact.
"""

import os
from pathlib import Path

from clinical_r1.clinic import Case
from clinical_r1.clinic_text import measure
from clinical_r1.completions import parse_completion, parse_mirage
from clinical_r1.files import read_jsonl, write_jsonl
from clinical_r1.questions import Question, load_benchmark, read_questions
from clinical_r1.rewards import (
    accuracy_reward,
    clinical_reasoning_reward,
    consistency_reward,
    thinking_format_reward,
)
from clinical_r1.settings import Settings

REWARDS = (accuracy_reward, thinking_format_reward, clinical_reasoning_reward, consistency_reward)


def exact_judge(question: Question, text: str) -> dict[str, int]:
    """The clinic's judge: the eight process measures, counted exactly. {} for a question without an evidence graph."""
    return measure(text, Case.from_json(question.meta["case"])) if "case" in question.meta else {}


def score_completion(row: dict, question: Question, judge=exact_judge) -> dict:
    """One scored record. An unparsed answer has letter None and is wrong."""
    parsed = parse_completion(row["text"], row["style"])
    columns = {"answer": [question.answer], "options": [question.options], "style": [row["style"]]}
    return {
        **{key: row[key] for key in ("id", "benchmark", "method", "seed", "sample", "tokens")},
        "answer": question.answer,
        "letter": parsed.letter,
        "correct": parsed.letter is not None and parsed.letter == question.answer,
        "problems": list(parsed.problems),
        "rewards": {reward.__name__: reward([row["text"]], **columns)[0] for reward in REWARDS},
        "measures": judge(question, row["text"]),
    }


# benchmark and split of the public chains of GPT-3.5 and GPT-4 (MIRAGE), and how their ids name a question
REAL_COMPLETIONS = {
    "medqa-4": ("test", lambda question: f"test_{question.meta['line'] - 1:04d}"),
    "medmcqa": ("dev", lambda question: f"dev_{question.id}"),
}
REAL_MODELS = ("gpt-35-turbo-16k", "gpt-4-32k")


def real_completions_table(source=None):
    """Accuracy and coverage of real model answers, a row per benchmark and model whose file is there.

    source: folder with the benchmarks' raw files and `real_completions/`; None takes CLINICAL_R1_DATA. Unreadable answers
    are wrong and stay in n; `parsed_only` is the flattering figure that leaves them out.
    """
    import pandas as pd

    from clinical_r1.metrics import wilson_interval

    source = source or os.environ.get("CLINICAL_R1_DATA")
    rows = []
    for benchmark, (split, name_of) in REAL_COMPLETIONS.items() if source else ():
        for model in REAL_MODELS:
            name = f"mirage_cot_{benchmark.removesuffix('-4')}_{model}.jsonl"
            path = Path(source) / "real_completions" / name
            if not path.is_file():
                continue  # a row that is not in the table has no file in the folder
            by_id = {
                name_of(question): question for question in load_benchmark(benchmark, split, source=source)
            }
            letters = {
                row["id"]: parse_mirage(row["raw"], by_id[row["id"]].options).letter
                for row in read_jsonl(path)
            }
            n, parsed = len(by_id), sum(letter is not None for letter in letters.values())
            right = sum(letters.get(key) == question.answer for key, question in by_id.items())
            low, high = wilson_interval(right, n)
            row = {"benchmark": benchmark, "split": split, "model": model, "n": n, "accuracy": right / n}
            row |= {"ci_low": low, "ci_high": high, "coverage": parsed / n, "parsed_only": right / parsed}
            rows.append(row)
    return pd.DataFrame(rows).round(3)


def score_all(settings: Settings, judge=exact_judge) -> list[dict]:
    """Score every completion file of a run, write the scores beside, and return the records with their protocol.

    ValueError when a file's questions are not exactly the benchmark's test questions.
    """
    from tqdm.auto import tqdm

    records = []
    for method, seed, benchmark, protocol in tqdm(settings.evaluations(), desc="scores", unit="file"):
        questions = {q.id: q for q in read_questions(settings.questions_path(benchmark, "test"))}
        path = settings.completions_path(benchmark, method, seed, protocol)
        rows = read_jsonl(path)
        if {row["id"] for row in rows} != set(questions):
            raise ValueError(
                f"{path} answers {len({row['id'] for row in rows})} questions, expected the {len(questions)} of "
                f"{benchmark}'s test split; delete it and generate again."
            )
        scores = [score_completion(row, questions[row["id"]], judge) for row in rows]
        write_jsonl(settings.scores_path(benchmark, method, seed, protocol), scores)
        records += [{**score, "protocol": protocol} for score in scores]
    return records
