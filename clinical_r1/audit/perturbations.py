"""Does the answer hold when options are shuffled, and does it need the reasoning? Questions asked again, changed."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from clinical_r1.arms import ARMS
from clinical_r1.audit.options import read_mentions
from clinical_r1.completions import ANALYTICAL_MARKER, INTUITIVE_MARKER, SECTIONS, parse_completion
from clinical_r1.curation.checks import CHECKS, pointing_options
from clinical_r1.files import sha256
from clinical_r1.generate import answer_jobs, answer_questions, read_answers, read_completions
from clinical_r1.intervals import QUESTIONS_ONLY, WILSON, mcnemar_exact, paired_difference, wilson_interval
from clinical_r1.questions import Question, read_questions
from clinical_r1.score import is_correct
from clinical_r1.settings import Settings
from clinical_r1.workers import watched

# ------------------------------------------------------------------------------------------------- shuffled options


def shuffle_options(question: Question, rng: np.random.Generator) -> tuple[Question, dict[str, str]]:
    """The question with its options permuted uniformly, and {letter shown: letter before}.

    "All of the above" and its like keep their place. ValueError when options are letters or point to letters.
    """
    if CHECKS["letter_options"].finds(question):
        raise ValueError(
            f"question {question.id!r} has options that point to letters {list(question.options.values())}; "
            "expected options with a meaning of their own: leave it out."
        )
    fixed = pointing_options(question.options)
    free = [letter for letter in question.options if letter not in fixed]
    permutation = {letter: letter for letter in question.options}
    permutation |= dict(zip(free, map(str, rng.permutation(free)), strict=True))
    options = {shown: question.options[before] for shown, before in permutation.items()}
    answer = next((shown for shown, before in permutation.items() if before == question.answer), None)
    return replace(question, options=options, answer=answer), permutation


def shuffle_consistency(
    letters: Sequence[str | None], shuffled_letters: Sequence[str | None], permutations: Sequence[dict]
) -> dict:
    """Share of questions whose chosen option text stays the same when the options are permuted; a dict for one row.

    letters, shuffled_letters: (N,) the answers before and after, None where unparsed, which counts as inconsistent.
    permutations: (N,) {letter shown: letter before}. consistent, ci_low, ci_high: Wilson, in [0, 1]; position_only: the share
    if the same letters were given again whatever they stand for; same_letter: the share that did just that.
    ValueError when the three differ in length or are empty.
    """
    n = len(letters)
    if not n or not n == len(shuffled_letters) == len(permutations):
        raise ValueError(
            f"got {n} letters, {len(shuffled_letters)} shuffled letters and {len(permutations)} permutations; "
            "expected one of each for every question, and at least one question."
        )
    pairs = list(zip(letters, shuffled_letters, permutations, strict=True))
    same = sum(before is not None and moved.get(after) == before for before, after, moved in pairs)
    low, high = wilson_interval(same, n)
    return {
        "n": n,
        "consistent": same / n,
        "ci_low": low,
        "ci_high": high,
        "position_only": sum(a is not None and moved.get(a) == a for a, _, moved in pairs) / n,
        "same_letter": sum(a is not None and a == b for a, b, _ in pairs) / n,
        "unparsed": sum(a is None or b is None for a, b, _ in pairs) / n,
    }


def complete_shuffled(
    settings: Settings, policy, method: str, seed: int, benchmark: str, n: int = 200
) -> Path:
    """Greedy answers to the first n test questions with their options permuted; each row holds its `permutation`.

    {letter shown: letter before}, the same for every method and seed. Questions whose options point to letters are left out.
    The greedy answers in the options' own order are the run's own (protocol "greedy"). Resumable.
    """
    rng = np.random.default_rng(sum(benchmark.encode()))
    tasks = []
    for question in read_questions(settings.questions_path(benchmark, "test"))[:n]:
        if not CHECKS["letter_options"].finds(question):
            shuffled, permutation = shuffle_options(question, rng)
            tasks.append((shuffled, {"sample": 0, "permutation": permutation}))
    return answer_questions(settings, policy, method, seed, benchmark, "shuffled", tasks, questions=n)


def shuffle_table(settings: Settings, files: dict[str, dict], seed: int):
    """One row per method: the share of questions whose chosen option stays when the options are permuted."""
    import pandas as pd

    questions = {q.id: q for q in read_questions(settings.questions_path(settings.benchmarks[0], "test"))}

    def letter(row):
        options = questions[row["id"]].options
        if "permutation" in row:
            options = {shown: options[before] for shown, before in row["permutation"].items()}
        return parse_completion(row["text"], row["style"], options).letter

    table = []
    for method, paths in files.items():
        greedy = read_completions(settings, settings.benchmarks[0], method, seed, "greedy")
        own = {row["id"]: letter(row) for row in greedy}
        rows = read_answers(settings, paths["shuffled"])
        letters = [own[row["id"]] for row in rows], [letter(row) for row in rows]
        result = shuffle_consistency(*letters, [row["permutation"] for row in rows])
        table.append({"method": method} | result)
    return pd.DataFrame(table)


# ------------------------------------------------------------------------------------------------- without reasoning

# Put into the model's mouth before its answer: left to itself with an empty section, a model reasons in its conclusion.
# Both arms get these words, so that they differ in the reasoning alone.
CONCLUSION_OPENS = "the answer is"
EMPTY_REASONING = {  # style -> its tagged reasoning section with nothing in it
    "crpo": f"<dx> {INTUITIVE_MARKER} {ANALYTICAL_MARKER} </dx> <conclusion> {CONCLUSION_OPENS}",
    "grpo": f"<think> </think> <answer> {CONCLUSION_OPENS}",
}


def concluded(row: dict, question: Question, first_named: bool = True) -> dict:
    """One completion of `conclude_without_reasoning` -> {id, letter, answer, reasoned_again}.

    letter: with first_named the option that the model names first after the words put into its mouth, for it may go on to
    reason in its conclusion (reasoned_again: it closes a reasoning section a second time) and to change its mind; otherwise
    its box, as everywhere else. None when there is none. A row with nothing forced is read by its box.
    """
    read = {"id": row["id"], "answer": question.answer, "reasoned_again": False}
    if not row["forced"]:
        return read | {"letter": parse_completion(row["text"], row["style"], question.options).letter}
    written = row["text"][len(row["forced"]) :]
    closing = f"</{SECTIONS[row['style']][0]}>"
    named = (m.letter for _, _, _, mentions in read_mentions(written, question.options) for m in mentions)
    letter = next(named, None) if first_named else None
    letter = letter or parse_completion(written, row["style"], question.options).letter
    return read | {"letter": letter, "reasoned_again": closing in written}


def reasoning_effect(with_reasoning: Sequence[dict], without: Sequence[dict]):
    """What the answer owes to the reasoning: a frame with measure, value, ci_low, ci_high, interval, p, n.

    Both: one row a question with id, letter (None is unparsed: wrong) and answer, as `concluded` gives. `changed` is the
    share of questions whose letter differs, an unparsed letter being a letter of its own; `reasoned again` the share
    of those without that reason in their conclusion instead; `gain` is accuracy with minus without (paired;
    p is McNemar's, exact: one trained policy is judged, not its training). ValueError when the questions differ or repeat.
    """
    import pandas as pd

    first, second = ({row["id"]: row for row in rows} for rows in (with_reasoning, without))
    if not first or first.keys() != second.keys() or not len(first) == len(with_reasoning) == len(without):
        raise ValueError(
            f"got {len(with_reasoning)} answers with reasoning and {len(without)} without, "
            f"{len(first.keys() & second.keys())} questions in common; expected one of each for the same questions."
        )
    n = len(first)
    right = [
        np.array([is_correct(rows[key]["letter"], rows[key]["answer"]) for key in first])
        for rows in (first, second)
    ]
    changed = sum(first[key]["letter"] != second[key]["letter"] for key in first)
    counts = {
        "changed": changed,
        "accuracy with reasoning": int(right[0].sum()),
        "accuracy without": int(right[1].sum()),
        "reasoned again": sum(bool(row.get("reasoned_again")) for row in without),
    }
    rows = [_share_row(name, k, n) for name, k in counts.items()]
    paired = paired_difference(right[0].astype(float), right[1].astype(float), scale=1.0)
    low, high = paired.interval
    gain = {"measure": "gain", "value": paired.difference, "ci_low": low, "ci_high": high}
    rows.append(gain | {"interval": QUESTIONS_ONLY, "p": mcnemar_exact(*right)})
    return pd.DataFrame(rows).assign(n=n)


def _share_row(measure, k, n) -> dict:
    low, high = wilson_interval(k, n)
    return {"measure": measure, "value": k / n, "ci_low": low, "ci_high": high, "interval": WILSON}


def conclude_without_reasoning(
    settings: Settings, policy, method: str, seed: int, benchmark: str, n: int = 200
) -> tuple[Path, Path]:
    """(with, without): the conclusion that the model writes after its own reasoning, and after an empty one.

    The first n greedy completions of the run are cut where their conclusion opens; what stands before it is put into the
    model's mouth (`forced`), once as it is and once with the tagged reasoning emptied, both followed by
    CONCLUSION_OPENS, and greedy decoding writes the rest (read it with `concluded`). A completion without such a
    place keeps its own text under "with" (`forced` is None). Resumable.
    ValueError when the run holds no greedy completions of these questions.
    """
    style = ARMS[method].style
    path = settings.completions_path(benchmark, method, seed, "greedy")
    if not path.is_file():
        raise ValueError(f"{path} is missing; complete {benchmark} with protocol 'greedy' first.")
    own = {row["id"]: row["text"] for row in read_completions(settings, benchmark, method, seed, "greedy")}
    questions = read_questions(settings.questions_path(benchmark, "test"))[:n]
    if missing := [question.id for question in questions if question.id not in own]:
        raise ValueError(
            f"{path} lacks {len(missing)} of {n} questions (one is {missing[0]!r}); make it again."
        )
    kept, emptied = [], []
    for question in questions:
        text = own[question.id]
        forced = reasoning_prefix(text, style)
        extra = {"sample": 0, "forced": forced} | ({} if forced else {"text": text})
        kept.append((question, extra))
        emptied.append((question, {"sample": 0, "forced": EMPTY_REASONING[style]}))
    job = (settings, policy, method, seed, benchmark)
    return (
        answer_questions(*job, "own-reasoning", kept, questions=n, source=sha256(path)[:16]),
        answer_questions(*job, "no-reasoning", emptied, questions=n),
    )


def reasoning_prefix(text: str, style: str) -> str | None:
    """A completion up to the tag that opens its conclusion, then CONCLUSION_OPENS; None without such a tag."""
    tag = f"<{SECTIONS[style][1]}>"
    before, found, _ = text.partition(tag)
    return f"{before}{tag} {CONCLUSION_OPENS}" if found else None


READINGS = {"first option named": True, "final box": False}


def reasoning_table(settings: Settings, files: dict[str, dict]):
    """What the answer owes to the reasoning, by method and by reading (`READINGS`); rows of `reasoning_effect`.

    The two readings differ where a model, robbed of its reasoning section, reasons in its conclusion instead.
    """
    import pandas as pd

    questions = {q.id: q for q in read_questions(settings.questions_path(settings.benchmarks[0], "test"))}
    frames = []
    for method, paths in files.items():
        for reading, first_named in READINGS.items():
            arms = [
                [
                    concluded(row, questions[row["id"]], first_named)
                    for row in read_answers(settings, paths[arm])
                ]
                for arm in ("own", "none")
            ]
            frames.append(reasoning_effect(*arms).assign(method=method, reading=reading))
    return pd.concat(frames, ignore_index=True)


# ------------------------------------------------------------------------------------------------------------- both


def probe_answers(settings: Settings, seed: int, n: int = 200) -> dict[str, dict]:
    """method -> {"shuffled", "own", "none"}: completion files of the first n test questions of the first benchmark.

    Needs the run's greedy completions (ValueError otherwise). Each model is loaded once; resumable.
    """
    benchmark = settings.benchmarks[0]
    jobs = [(method, seed, benchmark, n) for method in settings.methods]
    names = {"shuffled": "shuffled", "own": "own-reasoning", "none": "no-reasoning"}
    files = {
        method: {key: settings.completions_path(benchmark, method, seed, name) for key, name in names.items()}
        for method in settings.methods
    }

    def done() -> int:
        return sum(path.exists() for paths in files.values() for path in paths.values())

    total = len(jobs) * len(names)
    if done() == total:  # they are only looked at: no process is started for that
        settings = replace(settings, workers=1)
    with watched(done, total, settings.run_dir / "completions", "probes", "file"):
        answer_jobs(settings, jobs, ask_both)
    return files


def ask_both(settings: Settings, engine, method: str, seed: int, benchmark: str, n: int) -> None:
    """All three files of `probe_answers` of one method."""
    conclude_without_reasoning(settings, engine, method, seed, benchmark, n)
    complete_shuffled(settings, engine, method, seed, benchmark, n)
