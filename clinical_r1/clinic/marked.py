"""One question of the clinic as several arms answer it, every claim coloured and signed by its verdict: HTML and plain text."""

import html
import re
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from clinical_r1.arms import ARMS
from clinical_r1.clinic.cases import Case
from clinical_r1.clinic.knowledge import knowledge_base
from clinical_r1.clinic.verdicts import VERDICTS, find_claims, verdict
from clinical_r1.completions import LETTER_PROBLEMS, MIRAGE_PROBLEMS, Completion, parse_completion
from clinical_r1.labels import METHOD_LABELS, VERDICT_LOOKS
from clinical_r1.questions import Question
from clinical_r1.score import parser_of

LONGEST = 4000  # characters of one answer that are shown; claims beyond them are counted
NOT_ADVICE = "Teaching data, not medical advice; not yet reviewed by a clinician."
NO_LETTER = LETTER_PROBLEMS | MIRAGE_PROBLEMS
_BRACKETS = str.maketrans(
    {"⟦": "[", "⟧": "]"}
)  # they mark claims in the plain text: no answer may write its own


@dataclass(frozen=True)
class Answer:
    """One arm's answer, read. letter: None where none was stated. claims: (start, end, verdict), none overlapping.

    counts: verdict -> distinct claims.
    """

    label: str
    text: str
    letter: str | None
    problem: str | None
    claims: tuple[tuple[int, int, str], ...]
    counts: Mapping[str, int]


@dataclass(frozen=True, repr=False)
class MarkedAnswers:
    """A question and its answers. A notebook shows the HTML, or, where it cannot, the plain text that `print` gives."""

    question: Question
    answers: tuple[Answer, ...]

    def __str__(self) -> str:
        lines = [*_asked(self.question), "", "Claims: " + "   ".join(_legend()), ""]
        for answer in self.answers:
            lines += [f"{_visible(answer.label)}: {_summary(answer, self.question)}"]
            lines += [f"    {line}" for line in _as_text(answer).split("\n")] + [""]
        return "\n".join([*lines, NOT_ADVICE])

    __repr__ = __str__

    def _repr_html_(self) -> str:
        asked = "<br>".join(_escaped(line) for line in _asked(self.question))
        legend = " &nbsp; ".join(_mark(VERDICT_LOOKS[kind][1], kind) for kind in VERDICTS)
        blocks = [
            f'<div style="margin:0.8em 0"><div><b>{_escaped(answer.label)}</b>: {_escaped(_summary(answer, self.question))}</div>'
            f'<div style="white-space:pre-wrap;margin-left:1.5em;line-height:1.8">{_as_html(answer)}</div></div>'
            for answer in self.answers
        ]
        # Neither class is typeset: a dollar sign in an answer is no formula
        return (
            '<div class="tex2jax_ignore mathjax_ignore" style="max-width:60em;text-align:left">'
            f"<div>{asked}</div><p>Claims: {legend}</p>{''.join(blocks)}<p><small>{NOT_ADVICE}</small></p></div>"
        )


def mark_answers(question: Question, answers: Iterable[tuple[str, str, str]]) -> MarkedAnswers:
    """Read the answers to one question: (label, text, style) each, style "crpo" or "grpo".

    Every place that states a claim is marked, repetitions too; counts are of distinct claims. ValueError for a question
    without an evidence graph (only the clinic's have one), or without any answer.
    """
    read = [(label, text, parse_completion(text, style, question.options)) for label, text, style in answers]
    return _marked(question, read)


def mark_rows(
    question: Question, rows: Iterable[Mapping], labels: Mapping[str, str] = METHOD_LABELS
) -> MarkedAnswers:
    """The same from rows of stored completions, of any number of arms:

        rows = [row for arm in arms for row in read_completions(settings, question.benchmark, arm, seed)]
        mark_rows(question, rows)

    Of each arm the first row counts that answers this question, read as scoring reads it. labels: method -> printed name.
    ValueError when none answers it, and as for `mark_answers`.
    """
    first: dict[str, Mapping] = {}
    for row in rows:
        if row["id"] == question.id:
            first.setdefault(row["method"], row)
    if not first:
        raise ValueError(
            f"none of the completions answers {question.id}; expected rows of {question.benchmark!r}."
        )
    read = [
        (
            labels.get(name) or _label(name),
            row["text"],
            (parser_of(row) or parse_completion)(row["text"], row["style"], question.options),
        )
        for name, row in first.items()
    ]
    return _marked(question, read)


def _marked(question: Question, read: Iterable[tuple[str, str, Completion]]) -> MarkedAnswers:
    if "case" not in question.meta:
        raise ValueError(
            f"{question.id} of {question.benchmark!r} has no evidence graph in its meta, so its claims have no verdict; expected "
            "a question of the clinic, such as one of clinic.load_set."
        )
    drawn, today = question.meta.get("kb_sha256"), knowledge_base().sha256
    if drawn not in (None, today):  # wordings that are no longer known would count as no claims
        raise ValueError(
            f"{question.id} was drawn from the knowledge base {drawn[:12]}, not from today's {today[:12]}, so today's verdicts "
            "are not its; draw the questions and answer them again, or mark them with the code that made them."
        )
    case = Case.from_json(question.meta["case"])
    answers = tuple(_answer(label, text, parsed, case) for label, text, parsed in read)
    if not answers:
        raise ValueError(f"got no answers to {question.id}; expected at least one (label, text, style).")
    return MarkedAnswers(question, answers)


def _label(method: str) -> str:
    return ARMS[method].label if method in ARMS else method


def _answer(label: str, text: str, parsed: Completion, case: Case) -> Answer:
    found, claims, last = find_claims(text), [], 0
    for start, end, claim in found:
        if start >= last:
            claims.append((start, end, verdict(claim, case)))
            last = end
    distinct = [verdict(claim, case) for claim in dict.fromkeys(claim for *_, claim in found)]
    problem = next((name for name in parsed.problems if name in NO_LETTER), None)
    counts = {kind: distinct.count(kind) for kind in VERDICTS}
    return Answer(label, text, parsed.letter, problem, tuple(claims), counts)


def _asked(question: Question) -> list[str]:
    lines = [question.id, question.stem]
    lines += [
        f"{letter}: {text}{'   (right)' if letter == question.answer else ''}"
        for letter, text in question.options.items()
    ]
    return [_visible(line) for line in lines]


def _summary(answer: Answer, question: Question) -> str:
    """ "answers B, wrong; claims: 2 true, 1 contradicted by the vignette"."""
    if answer.letter is None:
        said = (
            f"no answer ({NO_LETTER[answer.problem].removesuffix(': no letter')})"
            if answer.problem
            else "no answer"
        )
    else:
        said = f"answers {answer.letter}, {'right' if answer.letter == question.answer else 'wrong'}"
    counts = [f"{n} {VERDICT_LOOKS[kind][1]}" for kind, n in answer.counts.items() if n]
    return f"{said}; distinct claims: {', '.join(counts) or 'none'}"


def _legend() -> list[str]:
    return [f"⟦{VERDICT_LOOKS[kind][0]} {VERDICT_LOOKS[kind][1]}⟧" for kind in VERDICTS]


def _pieces(answer: Answer):
    """(text, verdict or None) of what is shown, in order; a last piece says what is not."""
    last, shown = 0, answer.text[:LONGEST]
    for start, end, kind in answer.claims:
        if end > LONGEST:
            shown = answer.text[: min(start, LONGEST)]  # no claim is cut in half
            break
        yield answer.text[last:start], None
        yield answer.text[start:end], kind
        last = end
    yield shown[last:], None
    if len(shown) < len(answer.text):
        yield (
            f" … ({len(answer.text) - len(shown):,} more characters, not shown; their claims are counted)",
            None,
        )


def _as_text(answer: Answer) -> str:
    parts = [
        _visible(text) if kind is None else f"⟦{VERDICT_LOOKS[kind][0]} {_visible(text)}⟧"
        for text, kind in _pieces(answer)
    ]
    return "".join(parts) or "(nothing)"


def _as_html(answer: Answer) -> str:
    parts = [_escaped(text) if kind is None else _mark(text, kind) for text, kind in _pieces(answer)]
    return "".join(parts) or "(nothing)"


def _mark(text: str, kind: str) -> str:
    """A claim in its verdict's colour, with its sign and its kind of underline, which stay where a page drops the colours."""
    sign, words, colour, line = VERDICT_LOOKS[kind]
    look = f"background:{colour};color:#111;padding:0 0.2em;border-radius:0.2em"
    return (
        f'<span style="{look}" title="{words}"><b>{sign}</b> '
        f'<u style="text-decoration:underline {line};text-underline-offset:0.2em">{_escaped(text)}</u></span>'
    )


def _escaped(text: str) -> str:
    """Text for HTML that is neither a tag, the end of an attribute nor the beginning of a formula."""
    return re.sub(r"[$\\]", r"<span>\g<0></span>", html.escape(_visible(text), quote=True))


def _visible(text: str) -> str:
    """The text without what a terminal or page would obey: controls, directions and half surrogates are written as escapes."""
    text = text.translate(_BRACKETS)
    return "".join(
        char if char == "\n" or unicodedata.category(char) not in ("Cc", "Cf", "Cs", "Zl", "Zp")
        else char.encode("unicode_escape", "surrogatepass").decode()
        for char in text
    )  # fmt: skip
