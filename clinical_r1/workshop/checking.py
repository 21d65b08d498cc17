"""What the exercises' checks share: sentences for the learner, and a reader of forgiving answers."""

from collections.abc import Mapping

import numpy as np

from clinical_r1.rewards import shortened as quoted


def report(exercise: str, problems: list[str], lesson: str) -> bool:
    """Print what is missing, or the lesson where nothing is; True when nothing is."""
    if problems:
        print(f"{exercise}: not there yet.", *(f"  - {problem}" for problem in problems), sep="\n")
    else:
        print(f"{exercise}: all checks pass. {lesson}")
    return not problems


def key_problems(answer, expected) -> list[str]:
    """What keeps `answer` from being read: not a dictionary, keys that are missing, misspelt or still None."""
    if not isinstance(answer, Mapping):
        return [
            f"the answer is {shortened(answer)}; expected a dictionary with the keys {', '.join(map(repr, expected))}."
        ]
    empty = [repr(key) for key in expected if answer.get(key) is None]
    unknown = [repr(key) for key in answer if key not in expected]
    problems = [f"not answered yet: {', '.join(empty)}."] if empty else []
    return problems + [f"{key} is no key of this exercise; is it misspelt?" for key in unknown]


def is_number(value) -> bool:
    """A finite number of sensible size; True and False are none."""
    known = isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool)
    return known and abs(value) < 1e9


def shortened(value) -> str:
    """An answer as it can be quoted: its repr, at most 60 characters."""
    return quoted(value, 60)


def error_sentence(error: Exception) -> str:
    """What a learner's own function raised, as a problem to report."""
    return f"it stopped with {type(error).__name__}: {shortened(str(error))}"
