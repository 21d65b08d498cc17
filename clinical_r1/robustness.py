"""What does an arm's answer rest on: the place of the option, the reasoning it wrote? Two probes that ask the model again.

Answers are kept beside the run's completions (protocols "shuffled", "own-reasoning", "no-reasoning"), so a second call costs
nothing. Ours; `probes` does the counting.
"""

import numpy as np

from clinical_r1.completions import parse_completion
from clinical_r1.files import read_jsonl
from clinical_r1.generate import complete_shuffled, conclude_without_reasoning, load_method
from clinical_r1.probes import concluded, reasoning_effect, shuffle_consistency
from clinical_r1.questions import read_questions
from clinical_r1.settings import Settings

READINGS = {"first option named": True, "final box": False}


def probe_answers(settings: Settings, seed: int, n: int = 200) -> dict[str, dict]:
    """method -> {"shuffled", "own", "none"}: completion files of the first n test questions of the first benchmark.

    Needs the run's greedy completions (ValueError otherwise). Each model is loaded once; resumable.
    """
    from tqdm.auto import tqdm

    benchmark, files = settings.benchmarks[0], {}
    for method in tqdm(settings.methods, desc="probes", unit="arm"):
        job = (settings, load_method(settings, method, seed), method, seed, benchmark)
        own, none = conclude_without_reasoning(*job, n=n)
        files[method] = {"shuffled": complete_shuffled(*job, n=n), "own": own, "none": none}
    return files


def shuffle_table(settings: Settings, files: dict[str, dict], seed: int):
    """One row per method: the share of questions whose chosen option stays when the options are permuted."""
    import pandas as pd

    def letter(row):
        return parse_completion(row["text"], row["style"]).letter

    table = []
    for method, paths in files.items():
        greedy = settings.completions_path(settings.benchmarks[0], method, seed, "greedy")
        own = {row["id"]: letter(row) for row in read_jsonl(greedy)}
        rows = read_jsonl(paths["shuffled"])
        letters = [own[row["id"]] for row in rows], [letter(row) for row in rows]
        result = shuffle_consistency(*letters, [row["permutation"] for row in rows])
        table.append({"method": method} | result)
    return pd.DataFrame(table)


def reasoning_table(settings: Settings, files: dict[str, dict], rng: np.random.Generator):
    """What the answer owes to the reasoning, by method and by reading (`READINGS`); rows of `probes.reasoning_effect`.

    The two readings differ where a model, robbed of its reasoning section, reasons in its conclusion instead.
    """
    import pandas as pd

    questions = {q.id: q for q in read_questions(settings.questions_path(settings.benchmarks[0], "test"))}
    frames = []
    for method, paths in files.items():
        for reading, first_named in READINGS.items():
            arms = [
                [concluded(row, questions[row["id"]], first_named) for row in read_jsonl(paths[arm])]
                for arm in ("own", "none")
            ]
            frames.append(reasoning_effect(*arms, rng).assign(method=method, reading=reading))
    return pd.concat(frames, ignore_index=True)
