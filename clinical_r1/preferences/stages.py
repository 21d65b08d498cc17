"""What the stages of conversation and preference learn from, made once and kept beside the arm: traces, or pairs of answers.

Pairs are made of the start's own answers to questions that no other stage asks. Their file is stamped with the weights that have
answered, the answers and the rules; one that was made from other weights than the arm starts from is refused.
"""

from collections.abc import Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from clinical_r1.arms import ARMS, CHAT
from clinical_r1.artifacts import (
    DATA_RULES,
    StaleError,
    code_hash,
    data_path,
    digest,
    policy_hash,
    same_settings,
    settings_of,
)
from clinical_r1.clinic.cases import set_size
from clinical_r1.files import read_stamped, sha256, write_stamped
from clinical_r1.generate import answer_questions, load_method
from clinical_r1.preferences import learned
from clinical_r1.preferences.conversation import SOURCE, chat_questions
from clinical_r1.preferences.pairs import Pairs, check_enough, gather, read_pairs, write_pairs
from clinical_r1.preferences.recipe import Recipe, recipe_of
from clinical_r1.prompts import messages_of
from clinical_r1.questions import Question, read_questions, write_questions
from clinical_r1.settings import Settings

PAIRED = f"{SOURCE[0]}-pairs"  # the questions whose answers become pairs, as a benchmark of their own


# ---------------------------------------------------------------------------------------------------------- questions


def questions_of(settings: Settings, part: str) -> tuple[list[Question], Path]:
    """The questions of one part (`conversation.PARTS`), and their file, which is written when they are first asked for.

    "chat" has as many as the supervised stage (n_sft), "pairs" as many as RL (n_rl). ValueError where another benchmark than the
    clinic is trained on: no graph judges its answers.
    """
    if settings.train_benchmark != SOURCE[0]:
        raise ValueError(
            f"the stages of preferences ask questions of {SOURCE[0]}, got train_benchmark {settings.train_benchmark!r}; "
            f"set it to {SOURCE[0]!r}."
        )
    wanted, names = (
        (settings.n_rl, (PAIRED, "test")) if part == "pairs" else (settings.n_sft, (SOURCE[0], part))
    )
    path = settings.questions_path(*names)
    with _in_turn(path.with_name(f".{path.stem}.turn")):
        if not path.exists():
            write_questions(path, chat_questions(part, set_size(*SOURCE) if wanted is None else wanted))
    return read_questions(path)[:wanted], path


# ---------------------------------------------------------------------------------------------------------- answers


def chat_answers(
    settings: Settings, engine, method: str, seed: int, benchmark: str, protocol: str = CHAT, samples: int = 1
) -> Path:
    """The answers of an arm that is asked in conversation, in one file as `generate.answer_questions` writes it, resumable.

    protocol: "sampled" draws at the settings' temperature; any other name decodes greedily and names the file.
    """
    questions = read_questions(settings.questions_path(benchmark, "test"))
    tasks = [
        (question, {"sample": sample, "style": CHAT}) for question in questions for sample in range(samples)
    ]
    rules = digest(code_hash("clinical_r1.prompts:messages_of"))
    return answer_questions(settings, engine, method, seed, benchmark, protocol, tasks, chat_prompt=rules)


def candidates(settings: Settings, method: str, seed: int, recipe: Recipe) -> Path:
    """The file of `recipe.samples` answers of an arm to each question of part "pairs".

    Arms that start from the same weights share it: the first to come makes it, and the others wait. Leaves the random numbers of
    this process as they were.
    """
    import torch

    asking = replace(
        settings, eval_temperature=float(recipe.temperature), eval_top_p=1.0, eval_samples=recipe.samples
    )
    questions_of(settings, "pairs")
    path = settings.completions_path(PAIRED, method, seed)
    with _in_turn(path.with_name(f".{path.stem}.turn")), torch.random.fork_rng():
        engine = _WhenAsked(asking, method, seed)
        return chat_answers(asking, engine, method, seed, PAIRED, "sampled", recipe.samples)


class _WhenAsked:
    """An engine that is loaded when it is first needed: answers on disk need none."""

    def __init__(self, *loaded_with):
        self._loaded_with, self._engine = loaded_with, None

    def __getattr__(self, name):
        if self._engine is None:
            self._engine = load_method(*self._loaded_with)
        return getattr(self._engine, name)


@contextmanager
def _in_turn(path: Path):
    """Wait until no other process is within. The system drops the lock of a process that ends."""
    import fcntl

    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "a", encoding="utf-8") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


# ------------------------------------------------------------------------------------------------- traces and pairs


def supervised_rows(settings: Settings, name: str, seed: int) -> list[dict]:
    """Rows {"prompt": messages, "completion": messages} of a supervised arm with `data`, whose traces are kept in its folder.

    StaleError when the file was made from something else than today's.
    """
    arm, own = ARMS[name], settings_of(settings, name)
    path = data_path(settings, name, seed)
    if arm.data == "chosen":
        questions, answers, made = _sampled(settings, name, seed, recipe := recipe_of(()))
        arguments = (gather(questions, answers), recipe, seed, own.prompt_layout)
    else:
        questions, file = questions_of(own, "chat")
        made, arguments = _made_from(settings, name, seed, questions=sha256(file)[:16]), (questions, seed)
    if not path.exists():
        write_stamped(path, getattr(learned, arm.data)(*arguments), made)
    _check_origin(path, settings, name, seed, made)
    asked = {question.id: question for question in questions}
    return [
        {
            "prompt": messages_of(asked[row["id"]], CHAT, own.prompt_layout),
            "completion": [{"role": "assistant", "content": row["text"]}],
        }
        for row in read_stamped(path, "train")
    ]


def learned_pairs(settings: Settings, name: str, seed: int) -> Pairs:
    """The pairs of an arm of stage "preference", made of its start's answers and kept in its folder.

    ValueError, with the table of drops, where they do not fill a batch. StaleError when the file was made from other weights,
    answers or rules than today's.
    """
    arm, path = ARMS[name], data_path(settings, name, seed)
    recipe, batch = recipe_of(arm.options), settings_of(settings, name).sft_batch
    questions, answers, made = _sampled(settings, name, seed, recipe)
    if not path.exists():
        make = getattr(learned, arm.data)
        pairs = make(gather(questions, answers), recipe, seed, settings.prompt_layout)
        check_enough(pairs, batch)
        write_pairs(path, pairs, made)
    _check_origin(path, settings, name, seed, made)
    pairs = read_pairs(path)
    check_enough(pairs, batch)
    return pairs


def _sampled(
    settings: Settings, name: str, seed: int, recipe: Recipe
) -> tuple[list[Question], list[dict], dict]:
    """(questions, the start's answers to them, what is made from these)."""
    path = candidates(settings, ARMS[name].start, seed, recipe)
    questions, _ = questions_of(settings, "pairs")
    made = _made_from(settings, name, seed, answers=sha256(path)[:16])
    if ARMS[name].data == "flipped":
        made["flipped"] = recipe.flipped
    return questions, read_stamped(path, "generate"), made


def _made_from(settings: Settings, name: str, seed: int, **more) -> dict:
    arm = ARMS[name]
    rules = digest(code_hash(f"{DATA_RULES}:{arm.data}"))
    return (
        {"data": arm.data, "seed": seed, "rules": rules}
        | more
        | {"start_policy": policy_hash(settings, arm.start, seed)}
    )


def _check_origin(path: Path, settings: Settings, name: str, seed: int, made: Mapping) -> None:
    """StaleError unless a data file was made from this."""
    try:
        same_settings(path.with_suffix(".json"), settings, (), **made)
    except StaleError as error:
        if "start_policy" not in error.changed:
            raise
        raise StaleError(
            f"{path} was made from other weights than {ARMS[name].start} with seed {seed} has now; move {path.parent} away, and "
            "it is made anew.",
            error.changed,
        ) from error
