"""How far does a small local model agree, as a judge, with the clinic's exact counts?

    python benchmarks/local_judge.py FOLDER --name SmolLM2-135M-Instruct --run DIR [--methods baseline crpo] [--save]

FOLDER: the model, in bfloat16 where the processor has it. DIR holds runs/<profile> with completions (`--profile smoke`). The
first --questions test questions of `clinic` are judged, one answer of each method, eight measures each, greedy. Verdicts are
kept in --cache: a run that is killed goes on where it stopped.
"""

import argparse
import json
import math
import time
from collections import Counter
from pathlib import Path

import numpy as np
from measuring import RESULTS, hardware

from clinical_r1.files import write_json
from clinical_r1.generate import read_completions
from clinical_r1.judges.calibration import agreement
from clinical_r1.judges.models import LocalModel
from clinical_r1.judges.rubric import rubric_judge
from clinical_r1.questions import read_questions
from clinical_r1.score import exact_judge
from clinical_r1.settings import settings_for

FILE = RESULTS / "judge_smollm2.json"


def pairs_of(settings, methods, count: int) -> list[tuple]:
    """(question, text) of the first `count` questions, one answer of each method."""
    questions = read_questions(settings.questions_path("clinic", "test"))[:count]
    pairs = []
    for method in methods:
        texts = {row["id"]: row["text"] for row in read_completions(settings, "clinic", method, 0)}
        pairs += [(question, texts[question.id]) for question in questions]
    return pairs


def measure(judge, pairs) -> dict:
    """Agreement with the exact counts by measure, and why replies could not be read."""
    from tqdm.auto import tqdm

    start, judged = time.process_time(), []
    for question, text in tqdm(pairs, desc="judged", unit="completion"):
        judged.append(judge(question, text))
    seconds = time.process_time() - start
    exact = [exact_judge(question, text) for question, text in pairs]
    table = agreement(judged, exact, np.random.default_rng(0), ids=[question.id for question, _ in pairs])
    outcomes = Counter()
    for (_, outcome), n in judge.totals.outcomes.items():
        outcomes[outcome] += n
    rows = [
        {
            name: None if isinstance(value, float) and math.isnan(value) else value
            for name, value in row.items()
        }
        for row in table.to_dict("records")
    ]
    asked = judge.totals.requests
    return {
        "completions": len(pairs),
        "verdicts": len(pairs) * len(judge.measures),
        "outcomes": dict(sorted(outcomes.items())),
        "cpu_seconds_a_verdict": round(seconds / asked, 2) if asked else None,
        "agreement": rows,
    }


def sentence(result: dict) -> str:
    """A result in two sentences."""
    known = [row for row in result["agreement"] if row["kappa"] is not None]
    read = result["outcomes"].get("counted", 0)
    said = (
        f"Of {result['verdicts']} replies ({result['completions']} completions, eight measures), {read} hold a count that can be "
        "read."
    )
    if not known:
        return f"{said} Kappa against the exact counts is defined for none of the eight measures."
    listed = "; ".join(
        f"{row['measure']} {row['kappa']:.2f} ({_number(row['kappa_low'])} to {_number(row['kappa_high'])}, n = {row['n']})"
        for row in known
    )
    return f"{said} Kappa against the exact counts, with its 95 % interval: {listed}."


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder")
    parser.add_argument("--name", required=True, help="what the result calls the model, and its file")
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--profile", default="smoke")
    parser.add_argument("--methods", nargs="+", default=["baseline", "cold_start_crpo"])
    parser.add_argument("--questions", type=int, default=16)
    parser.add_argument("--max-tokens", type=int, default=96)
    parser.add_argument("--cache", type=Path, required=True)
    parser.add_argument("--save", action="store_true", help="keep the result in benchmarks/results")
    arguments = parser.parse_args()
    model = LocalModel(arguments.folder, max_tokens=arguments.max_tokens)
    pairs = pairs_of(settings_for(arguments.profile, arguments.run), arguments.methods, arguments.questions)
    result = measure(rubric_judge(model, arguments.cache), pairs)
    machine = {key: value for key, value in hardware().items() if key in ("name", "cores", "torch")}
    judge = {"name": arguments.name, "dtype": model.identity["dtype"], "max_tokens": arguments.max_tokens}
    result = {"hardware": machine, "judge": judge, "methods": arguments.methods} | result
    print(json.dumps(result, indent=1))
    if arguments.save:
        write_json(FILE, result)
        print(sentence(result))
