"""Public answers of real models, read with our parser: accuracy, coverage and intervals."""

import os
from pathlib import Path

from clinical_r1.completions import parse_mirage
from clinical_r1.files import read_jsonl
from clinical_r1.questions import load_benchmark

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
