"""Completions → scores: parsed letter, every reward, every measure. Needs no model, so re-scoring is free.

    score_all(settings)                        score a run's completions; its tables are made from what this returns
    rescore(settings, Rules(...), "my-rules")  the same completions under other rules, and an A/B of old against new

Scores are joined through files: runs/<profile>/scores for the run's own, runs/<profile>/rescored/<name> for others.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from clinical_r1 import extensions
from clinical_r1.artifacts import callable_hash, digest
from clinical_r1.clinic.cases import Case
from clinical_r1.clinic.verdicts import measure
from clinical_r1.completions import parse_completion
from clinical_r1.engines.replay import PARSERS
from clinical_r1.files import read_stamp, write_stamped
from clinical_r1.generate import questions_hash, read_completions
from clinical_r1.questions import Question, read_questions
from clinical_r1.rewards import (
    accuracy_reward,
    checked,
    clinical_reasoning_reward,
    consistency_reward,
    option_items,
    parse,
    thinking_format_reward,
)
from clinical_r1.settings import Settings
from clinical_r1.workers import in_threads

REWARDS = (accuracy_reward, thinking_format_reward, clinical_reasoning_reward, consistency_reward)
COMPLETION_FIELDS = frozenset("id benchmark method seed sample protocol style prompt text tokens".split())


def exact_judge(question: Question, text: str) -> dict[str, int]:
    """The clinic's judge: the eight process measures, counted exactly. {} for a question without an evidence graph."""
    return measure(text, Case.from_json(question.meta["case"])) if "case" in question.meta else {}


@dataclass(frozen=True)
class Rules:
    """Everything a score depends on besides the completion and its question.

    parse: (text, style, options) -> Completion; reads letter and problems. options: letter -> text, the question's own. The
        rewards read texts with their own parser: to change what they see, give other rewards too. Another model's answers
        that name a parser of their own (`engines.replay.AnswerFile`) are read by that one, whatever stands here.
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

    @cached_property
    def checked_rewards(self) -> tuple[Callable, ...]:
        """The rewards, their values checked."""
        return tuple(map(checked, self.rewards))

    def to_json(self) -> dict:
        """The rules by name and by what they do, for the record beside re-scored tables: the same wherever the code stands."""
        rules = {"parse": _named_rule(self.parse), "judge": _named_rule(self.judge)}
        return rules | {"rewards": [_named_rule(reward) for reward in self.rewards]}


def _named_rule(rule) -> dict:
    """{"name", "code": hash of its code}; the hash is None for what is written outside this package and own files.

    A rule with an `identity`, such as a judge model, carries that too.
    """
    try:
        code = digest(callable_hash(rule))
    except ValueError:
        code = None
    identity = {"identity": rule.identity} if hasattr(rule, "identity") else {}
    return {"name": getattr(rule, "__name__", type(rule).__name__), "code": code} | identity


def is_correct(letter: str | None, answer: str | None) -> bool:
    """The one rule of marking. No letter is wrong, and so is any letter of a question without a key."""
    return letter is not None and letter == answer


def score_completion(row: dict, question: Question, rules: Rules = Rules()) -> dict:
    """One scored record. An unparsed answer has letter None and is wrong."""
    return _scored(row, question, rules, rules.judge(question, row["text"]))


def _scored(row, question, rules, measures):
    reading = parser_of(row) or rules.parse
    if reading is parse_completion:  # the rewards read the same text: once for all
        parsed = parse(row["text"], row["style"], option_items(question.options))
    else:
        parsed = reading(row["text"], row["style"], question.options)
    columns = {"answer": [question.answer], "options": [question.options], "style": [row["style"]]}
    columns |= {"prompts": [row["prompt"]], "id": [row["id"]]}
    return {
        **{key: row[key] for key in ("id", "benchmark", "method", "seed", "sample", "protocol", "tokens")},
        "n_options": len(question.options),
        "answer": question.answer,
        "letter": parsed.letter,
        "correct": is_correct(parsed.letter, question.answer),
        "problems": list(parsed.problems),
        "rewards": {reward.__name__: reward([row["text"]], **columns)[0] for reward in rules.checked_rewards},
        "measures": measures,
    } | ({"note": row["note"]} if "note" in row else {})


def parser_of(row: dict) -> Callable | None:
    """The parser that a replayed answer names, None where it names none. ValueError for one of an own file that is not loaded."""
    name = row.get("parser")
    if name is None or name in PARSERS:
        return PARSERS.get(name)
    own = extensions.loaded()
    source = own.answers.get(row["method"], {}).get(row["benchmark"]) if own else None
    if source is None or source.parser_name != name:
        raise ValueError(
            f"the answers of {row['method']} to {row['benchmark']} are read by {name!r} of the user's own file, which is not "
            "loaded; start with --with, or load it with extensions.settings_for(profile, own=...)."
        )
    return source.read


def score_rows(rows: list[dict], questions: dict[str, Question], rules: Rules = Rules(), workers=1) -> list:
    """The scored records of one file's completions. workers > 1 asks the judge that often at the same time."""
    if workers == 1:
        return [score_completion(row, questions[row["id"]], rules) for row in rows]
    verdicts = judge_many([(questions[row["id"]], row["text"]) for row in rows], rules.judge, workers)
    return [
        _scored(row, questions[row["id"]], rules, verdict)
        for row, verdict in zip(rows, verdicts, strict=True)
    ]


def with_own_rewards(rules: Rules) -> Rules:
    """The rules, and after their rewards those of the user's own file that have another name."""
    names = {reward.__name__ for reward in rules.rewards}
    own = extensions.loaded()
    found = [
        f
        for rewards in (own.reward_sets.values() if own else ())
        for f in rewards.functions
        if f.__name__ not in names
    ]
    more = {function.__name__: function for function in found}
    return replace(rules, rewards=(*rules.rewards, *more.values())) if more else rules


def score_all(settings: Settings, rules: Rules = Rules(), workers: int = 1, judge=None) -> list[dict]:
    """Score every completion file of a run, write the scores beside, and return all records.

    judge: instead of rules.judge. ValueError when a file's questions are not exactly the benchmark's test questions.
    """
    rules = with_own_rewards(rules if judge is None else replace(rules, judge=judge))
    records, named = [], rules.to_json()
    for evaluation, rows, questions in completion_files(settings):
        scores = score_rows(rows, questions, rules, workers)
        write_stamped(settings.scores_path(*evaluation), scores, scored_from(settings, evaluation, named))
        records += scores
    return records


def scored_from(settings: Settings, evaluation: tuple, rules: dict) -> dict:
    """What the scores of (benchmark, method, seed, protocol) are made from: the stamp that stands beside them."""
    answered = read_stamp(settings.completions_path(*evaluation), "generate")
    return {
        "completions": answered["sha256"],
        "questions": questions_hash(settings, evaluation[0]),
        "rules": rules,
    } | ({"parser": answered["parser"]} if "parser" in answered else {})


# --- files


def completion_files(settings: Settings) -> Iterator[tuple[tuple, list[dict], dict[str, Question]]]:
    """((benchmark, method, seed, protocol), completions, id -> question) of every file that the tables need."""
    from tqdm.auto import tqdm

    questions = {}
    for method, seed, benchmark, protocol in tqdm(settings.evaluations(), desc="scores", unit="file"):
        if benchmark not in questions:
            asked = read_questions(_there(settings.questions_path(benchmark, "test"), "notebook 01"))
            questions[benchmark] = {question.id: question for question in asked}
        evaluation = benchmark, method, seed, protocol
        path = _there(settings.completions_path(*evaluation), "notebook 04")
        rows = read_completions(settings, *evaluation)
        check_rows(path, rows, COMPLETION_FIELDS, questions[benchmark], benchmark, "generate")
        yield evaluation, rows, questions[benchmark]


def _there(path: Path, maker: str) -> Path:
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist; run {maker}, which makes it, first.")
    return path


def check_rows(
    path: Path, rows: list[dict], fields: frozenset, questions, benchmark: str, again: str
) -> None:
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


def judge_many(pairs, judge: Callable, workers: int = 8) -> list[dict]:
    """Judge (question, text) pairs with several threads; results in the order of the pairs.

    The first failure stops it: pairs that have not begun are dropped and the error is raised. Verdicts reached by then
    are in the judge's cache, so the same call continues from there.
    """
    return in_threads(lambda pair: judge(*pair), pairs, workers, "judging")
