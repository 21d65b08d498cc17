"""Completions → scores: parsed letter, every reward, every measure. Needs no model, so re-scoring is free."""

from clinical_r1.completions import parse_completion
from clinical_r1.files import read_jsonl, write_jsonl
from clinical_r1.judge import exact_judge
from clinical_r1.questions import Question, read_questions
from clinical_r1.rewards import (
    accuracy_reward,
    clinical_reasoning_reward,
    consistency_reward,
    thinking_format_reward,
)
from clinical_r1.settings import Settings

REWARDS = (accuracy_reward, thinking_format_reward, clinical_reasoning_reward, consistency_reward)


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
