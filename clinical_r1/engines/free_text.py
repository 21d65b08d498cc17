"""The answer of a text that keeps to no format, such as another model's chain of reasoning. Never used in training.

    ANSWERS = {"gpt-4": {"medqa": {"file": "gpt-4.jsonl", "parser": "free_text"}}}   one model's, in every score of the run
    rescore(settings, Rules(parse=read_free_text), "words")                          all completions of a run, once more

Whoever is trained is asked for one box, and a text without it has no answer (`completions.CHOICES`). Models of other people
were never asked; this reader asks what they say in words. `audit.free_text` measures how often it reads what a model then
answered; the rules were refined on the same chains. What docs/trust.md says of others was measured once: every distinct MedQA
chain in notebooks/experiment_data of OpenBioLink/ThoughtSource at 6a9d8f1, against the first letter recorded for it.
"""

import re
from collections import deque
from collections.abc import Mapping
from dataclasses import replace

from clinical_r1.completions import Completion, fold_option, named_options, parse_completion, read_option

CHOICES = {
    "a box": "is read as everywhere else; the rest holds for texts without any",
    "a statement": "'the answer is B', 'Answer: (B)', 'B is the correct answer', 'the best option is Gout'. The last one counts; "
    "a negated one ('the answer is not B') states nothing; a last one that names several options gives no letter",
    "no statement": "a last line that is one option's letter or text, else a last sentence that concludes ('therefore', 'most "
    "likely'), denies nothing and names one option, whose text is not a part of another option's",
}
PROBLEMS = {
    "no_statement": "nothing in the text says clearly which option is the answer: no letter",
    "free_text": "the letter was read from words, not from a box: accepted",
    "changed_answer": "the text states different answers, and the last one counts: accepted",
}
_STATEMENTS, _WINDOW = 20, 300  # how many statements are read, from the end, and how many characters of each
_CUE = re.compile(
    # "the answer here is", "Answer:", "the most likely option would be"; no lone capital between: "answer choice A is ..."
    r"(?i:\b(?:ans(?:wer)?|(?:correct|best|right|appropriate|likely|suitable) (?:option|choice))(?:[ _]choice)?\b"
    r"(?:(?:(?!\b(?-i:[A-J])\b)[^.:\n]){0,60}?\b(?:is|would be|must be|should be)\b|[\"'*_`)\].]*+ ?(?:[:=]|[-–—](?= )))"
    r"|\b(?:choose|select|pick|go with)(?= (?:option )?\(?(?-i:[A-J])\b))"
    # "Option B is the correct answer", "B. Gout is therefore the best choice"
    r"|(?<![\w.])(?P<letter>[A-J])\b\)?(?:[.:)] ?[^.\n]{1,80}?)?,? (?:is|would be) "
    r"(?:(?:also|therefore|thus|likely|clearly|indeed|probably) )?the (?:single )?"
    r"(?:correct|right|best|most (?:likely|appropriate|accurate)) (?:answer|option|choice)\b"
)
_NEGATED = re.compile(r"(?i)\b(?:not|isn't|incorrect|wrong|false|unlikely|other|neither)(?: \w+){0,2}\s*$")
_HEAD = re.compile(r"^\W*(?:most likely|probably|likely|clearly|definitely|indeed|therefore|thus|then)\b")
_TAIL = re.compile(
    r"[,;(]? ?\b(?:not|because|since|as|which|due to|given|rather than|instead of|although|while|but)\b|\n"
)
_CLOSE = re.compile(r"(?<!\b[A-Ja-j])[.!?](?=\s|$)|\n")  # ends a sentence; the stop of "B." does not
_DENIES = re.compile(
    r"(?i)\b(?:not|no|nor|never|cannot|unlikely|except|against|without|incorrect|false|wrong|excluded?|least|rather than|"
    r"instead of|ruled? out|contraindicated)\b|n't\b"
)
_CONCLUDES = re.compile(
    r"(?i)\b(?:therefore|thus|hence|so|conclusion|overall|answer|correct|best|most (?:likely|appropriate))\b"
)
_LISTED = re.compile(r"(?m)^\W*[A-J][).:]")


def read_free_text(text: str, style: str = "crpo", options: Mapping[str, str] | None = None) -> Completion:
    """Read a completion as `parse_completion` does and, where it has no box, what it says in words (`CHOICES`).

    Problems: the parser's; instead of its "no_box" those of `PROBLEMS` here, or what is wrong with the last statement.
    Never raises on a string; linear in its length. Options that are not known cannot be read by their text.
    """
    read = parse_completion(text, style, options)
    if "no_box" not in read.problems:
        return read
    options = {letter: own for letter, own in (options or {}).items() if own}
    cues = deque(_CUE.finditer(text), maxlen=_STATEMENTS)
    found = [reading for cue in cues if any(reading := _statement(text, cue, options))]
    letter, problem = found[-1] if found else _last_words(text, options)
    problems = [problem] if problem else []
    problems.append("free_text" if letter else "no_statement")
    if letter and len({other for other, _ in found if other}) > 1:
        problems.append("changed_answer")
    kept = [other for other in read.problems if other != "no_box"]
    return replace(read, letter=letter, problems=(*kept, *problems))


def _statement(text: str, cue: re.Match, options) -> tuple[str | None, str | None]:
    """(letter, problem) of what follows a cue, up to the end of its sentence; (None, None) if it states nothing."""
    if _NEGATED.search(text[max(0, cue.start() - 40) : cue.start()]):
        return None, None
    if letter := cue.group("letter"):
        return (None, "not_an_option") if options and letter not in options else (letter, None)
    said = text[cue.end() : cue.end() + _WINDOW].lstrip()
    said = _TAIL.split(_CLOSE.split(_HEAD.sub("", said), maxsplit=1)[0], maxsplit=1)[0]
    letter, _, problem = read_option(said, options)
    return (letter and letter.upper(), problem) if letter or problem else _named(said, options)


def _named(said: str, options) -> tuple[str | None, str | None]:
    """(letter, problem) of the one option that a few words name, if they deny nothing."""
    texts = {letter: fold_option(own) for letter, own in options.items()}
    named = [] if _DENIES.search(said) else named_options(fold_option(said), texts)
    if len(named) != 1:
        return None, "several_letters" if named else None
    part = any(texts[named[0]] in own for letter, own in texts.items() if letter != named[0])
    return (None, None) if part else (named[0], "option_text")


def _last_words(text: str, options) -> tuple[str | None, str | None]:
    """(letter, problem) of a text without a statement, from its last line or its last sentence."""
    end = text.rstrip()[-1000:]
    line = end.rpartition("\n")[2]
    letter, words, problem = read_option(line, options) if len(line) < _WINDOW else (None, "", None)
    listed = len(_LISTED.findall(end)) > 1 or _CLOSE.search(words)
    if (letter or problem) and not (words and listed):  # the last line of a list of options is no answer
        return letter and letter.upper(), problem
    sentence = next((part for part in reversed(_CLOSE.split(line)) if part.strip()), "")
    return _named(sentence, options) if _CONCLUDES.search(sentence) else (None, None)
