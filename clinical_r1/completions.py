"""Text -> `Completion`: the only regular expressions on model output.

Training rewards, evaluation and figures all read this one record, so no score can rest on another parser. The
paper leaves the extraction open; `CHOICES` states what we chose and `PROBLEMS` names everything the parser
can complain about. Parsing never raises on a string and takes time linear in its length.
"""

import json
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

INTUITIVE_MARKER = "(System 1: Intuitive)"  # paper figure 6
ANALYTICAL_MARKER = "(System 2: Analytical)"
SECTIONS = {  # style -> (section that becomes `dx`, section that becomes `conclusion`)
    "crpo": ("dx", "conclusion"),
    "grpo": ("think", "answer"),
}
FORMAT_PROBLEMS = {
    "missing_section": "a section has neither its opening nor its closing tag",
    "unclosed_tag": "a section is opened more often than it is closed",
    "unopened_tag": "a section is closed more often than it is opened",
    "repeated_tags": "a tag occurs more than once",
    "nested_tags": "a section begins before the one before it has ended",
    "tag_order": "a closing tag precedes its opening tag, or the conclusion precedes the reasoning",
    "foreign_tag": "a tag besides the style's own four, or a chat marker such as <|im_end|>",
    "text_outside": "something other than whitespace stands before, between or after the two sections",
    "empty_dx": "the reasoning section is blank",
    "empty_conclusion": "the conclusion is blank",
    "no_intuitive_marker": f"{INTUITIVE_MARKER} is not in the reasoning",
    "no_analytical_marker": f"{ANALYTICAL_MARKER} is not in the reasoning",
    "repeated_marker": "a System marker occurs more than once in the reasoning",
    "marker_order": "System 2 stands before System 1",
    "empty_intuitive": "nothing follows the System 1 marker",
    "empty_analytical": "nothing follows the System 2 marker",
}
LETTER_PROBLEMS = {
    "no_box": "there is no \\boxed anywhere: no letter",
    "several_boxes": "\\boxed occurs more than once, even if both agree: no letter",
    "box_outside_conclusion": "there is a conclusion, and the box is not in it: no letter",
    "bad_box": "the box does not hold one letter A-J: no letter",
    "lower_case": "the letter was written in lower case: accepted",
    "box_text": "words follow the letter inside the box: accepted",
}
MIRAGE_PROBLEMS = {
    "not_text": "the record holds no text (the call failed): no letter",
    "broken_json": "the text is not JSON (an error message, unescaped quotes): no letter",
    "no_answer_choice": "the JSON is no object with a text under answer_choice: no letter",
    "several_letters": "more than one option is named: no letter",
    "bad_choice": "neither one letter nor the text of one option: no letter",
    "not_an_option": "the letter is not among the options: no letter",
    "letter_text_conflict": "the letter is followed by the text of another option: no letter",
    "ambiguous_option": "the text is that of several identical options: no letter",
    "option_text": "the letter was read from the verbatim text of an option: accepted",
}
PROBLEMS = FORMAT_PROBLEMS | LETTER_PROBLEMS | MIRAGE_PROBLEMS
CHOICES = {  # where the paper is silent
    "format": "exactly one of each of the four tags, lower case, in order, no other tag, only white space "
    "outside, no blank section",
    "System 1 and System 2": "both markers of figure 6, once each, in order, in the reasoning, each followed "
    "by text",
    "one answer, stated once": "one \\boxed{} in the whole completion; none or several give no letter",
    "where the box may stand": "inside the conclusion if there is exactly one; anywhere if there is none",
    "what the box may hold": "one letter A-J of either case, also in \\text{}, \\textbf{}, \\mathrm{}, "
    "brackets, with a period, or followed by words ('C. text', 'C: text', 'C) text'); else no letter",
    "no letter": "counts as wrong, stays in the denominator; never negative (it is in the official code)",
    "letters beyond the options": "are read here and judged by the accuracy reward",
}
_TAG = re.compile(r"</?[A-Za-z][\w-]{0,30}>|<\|[\w-]{1,30}\|>")
_EXPECTED = {
    style: tuple(t for n in names for t in (f"<{n}>", f"</{n}>")) for style, names in SECTIONS.items()
}
_BRACE = re.compile(r"[{}]")
_BOX_OPENING = re.compile(r"\s*\{")
_WRAPPED_LETTER = re.compile(r"(?:[\s(\[{$*]|\\(?:textbf|text|mathrm)\s*\{)*([A-Ja-j])")
_LETTER_ENDS = re.compile(r"[\s}*]*(?:[:)\]]|\.\s)")
_ANOTHER_LETTER = re.compile(r"(?:\bor\b|\band\b|[,;/&.])\s*\(?[A-J][.):]")
_LETTER_LIST = re.compile(r"[A-J](?:\s*(?:[/,&>]|and\b|or\b)\s*[A-J]\b)+")
_AROUND = " \t\r\n\f\v)]}.$*"


@dataclass(frozen=True, slots=True)
class Completion:
    """One parsed completion. None means absent; an empty string means present and blank.

    letter: one of A-J, or None where no single answer was stated.
    dx, conclusion: the two sections (`<think>`, `<answer>` in style "grpo").
    intuitive, analytical: the two halves of dx (None in style "grpo").
    problems: keys of `PROBLEMS`, in order of discovery.
    """

    letter: str | None
    dx: str | None
    intuitive: str | None
    analytical: str | None
    conclusion: str | None
    problems: tuple[str, ...]

    @property
    def well_formed(self) -> bool:
        """The format holds (`CHOICES["format"]`). Says nothing about the letter."""
        return (
            self.dx is not None
            and self.conclusion is not None
            and FORMAT_PROBLEMS.keys().isdisjoint(self.problems)
        )


def parse_completion(text: str, style: str = "crpo") -> Completion:
    """Read one completion written in a style, "crpo" or "grpo" (ValueError for another).

    In style "grpo" `<think>` becomes dx, `<answer>` becomes conclusion; intuitive and analytical are None.
    """
    if style not in SECTIONS:
        raise ValueError(f"style {style!r} is not known; expected one of {tuple(SECTIONS)}.")
    expected = _EXPECTED[style]
    found = [(match.group(), match.start(), match.end()) for match in _TAG.finditer(text)]
    tags = [tag for tag in found if tag[0] in expected]
    problems = _tag_problems(text, tags, expected)
    if len(tags) < len(found):
        problems.append("foreign_tag")
    dx = _only_section(tags, *expected[:2])
    conclusion = _only_section(tags, *expected[2:])
    dx_body = intuitive = analytical = conclusion_body = None
    if dx:
        dx_body = text[dx[0] : dx[1]].strip()
        if not dx_body:
            problems.append("empty_dx")
        elif style == "crpo":
            intuitive, analytical = _systems(dx_body, problems)
    if conclusion:
        conclusion_body = text[conclusion[0] : conclusion[1]].strip()
        if not conclusion_body:
            problems.append("empty_conclusion")
    letter = _boxed_letter(text, conclusion or (0, len(text)), problems)
    return Completion(letter, dx_body, intuitive, analytical, conclusion_body, tuple(problems))


def _tag_problems(text, tags, expected) -> list[str]:
    """What is wrong with the sequence of tags, or with what stands outside the sections."""
    names = tuple(name for name, _, _ in tags)
    if names == expected:
        outside = text[: tags[0][1]], text[tags[1][2] : tags[2][1]], text[tags[3][2] :]
        return ["text_outside"] if any(part.strip() for part in outside) else []
    counts = Counter(names)
    pairs = expected[:2], expected[2:]
    balance = [(counts[opening], counts[closing]) for opening, closing in pairs]
    found = {
        "missing_section": (0, 0) in balance,
        "unclosed_tag": any(opened > closed for opened, closed in balance),
        "unopened_tag": any(closed > opened for opened, closed in balance),
        "repeated_tags": any(count > 1 for count in counts.values()),
        "nested_tags": _nested(names),
        "tag_order": any(
            counts[first] and counts[second] and names.index(second) < names.index(first)
            for first, second in (*pairs, (expected[0], expected[2]))
        ),
    }
    return [problem for problem, present in found.items() if present]


def _nested(names) -> bool:
    """Whether any section begins while another is open."""
    depth = 0
    for name in names:
        closing = name.startswith("</")
        if depth and not closing:
            return True
        depth = 0 if closing else 1
    return False


def _only_section(tags, opening, closing) -> tuple[int, int] | None:
    """Where the body of a section begins and ends, if it is opened once and then closed once."""
    ends = [end for name, _, end in tags if name == opening]
    starts = [start for name, start, _ in tags if name == closing]
    return (ends[0], starts[0]) if len(ends) == len(starts) == 1 and ends[0] <= starts[0] else None


def _systems(dx: str, problems: list[str]) -> tuple[str | None, str | None]:
    """(intuitive, analytical) of a reasoning section; (None, None) and a problem if it does not split."""
    counts = dx.count(INTUITIVE_MARKER), dx.count(ANALYTICAL_MARKER)
    if counts != (1, 1):
        missing = ("no_intuitive_marker", counts[0] == 0), ("no_analytical_marker", counts[1] == 0)
        problems += [problem for problem, present in missing if present]
        if max(counts) > 1:
            problems.append("repeated_marker")
        return None, None
    intuitive, _, analytical = dx.partition(ANALYTICAL_MARKER)
    _, marker, intuitive = intuitive.partition(INTUITIVE_MARKER)
    if not marker:
        problems.append("marker_order")
        return None, None
    intuitive, analytical = intuitive.strip(), analytical.strip()
    problems += [
        name for name, part in (("empty_intuitive", intuitive), ("empty_analytical", analytical)) if not part
    ]
    return intuitive, analytical


# ---------------------------------------------------------------------------------------------------- letters


def _boxed_letter(text: str, scope: tuple[int, int], problems: list[str]) -> str | None:
    """The letter of the only box of the text if it stands within scope; otherwise None and the reason."""
    boxes = text.count("\\boxed")
    if boxes != 1:
        problems.append("several_boxes" if boxes else "no_box")
        return None
    start, end = _box(text)
    if not scope[0] <= start < scope[1]:
        problems.append("box_outside_conclusion")
        return None
    if end is None or end > scope[1]:
        problems.append("bad_box")
        return None
    letter, rest = _read_letter(text[text.index("{", start) + 1 : end - 1])
    if letter is None or _ANOTHER_LETTER.search(rest):
        problems.append("bad_box")
        return None
    if letter.islower():
        problems.append("lower_case")
    if rest:
        problems.append("box_text")
    return letter.upper()


def _box(text: str) -> tuple[int, int | None]:
    """(where the first box begins, where its closing brace ends or None). Braces inside the box may nest."""
    start = text.find("\\boxed")
    opening = _BOX_OPENING.match(text, start + len("\\boxed"))
    depth = 0
    for brace in _BRACE.finditer(text, opening.end() - 1) if opening else ():
        depth += 1 if brace.group() == "{" else -1
        if depth == 0:
            return start, brace.end()
    return start, None


def remove_box(text: str) -> str:
    """The text without its (first) box: what a conclusion says besides the letter."""
    if "\\boxed" not in text:
        return text
    start, end = _box(text)
    rest = end if end is not None else start + len("\\boxed")
    return f"{text[:start]} {text[rest:]}"


def _read_letter(content: str) -> tuple[str | None, str]:
    """One letter, perhaps wrapped or followed by words -> (letter as written, words), or (None, "")."""
    match = _WRAPPED_LETTER.match(content)
    if not match:
        return None, ""
    rest = content[match.end() :]
    if not rest.strip(_AROUND):
        return match.group(1), ""
    delimiter = _LETTER_ENDS.match(rest)
    words = rest[delimiter.end() :].strip(_AROUND) if delimiter else ""
    # "A) B" and "A: B" name two letters; "A. B cells" names one.
    return (match.group(1), words) if len(words) > 1 else (None, "")


# ------------------------------------------------------------------------------ real chains (MIRAGE's format)


def _fold(text: str) -> str:
    """Case, spacing and a final period do not tell options apart; symbols do ("-0.45" is not "0.45")."""
    return " ".join(text.split()).casefold().rstrip(".")


def _named_option(answer: str, options: Mapping[str, str], problems: list[str]) -> str | None:
    """The one option that an `answer_choice` names, by letter or by its verbatim text."""
    same_text = [letter for letter, text in options.items() if _fold(text) == _fold(answer)]
    letter, words = _read_letter(answer)
    if same_text and (letter is None or words):
        problems.append("option_text" if len(same_text) == 1 else "ambiguous_option")
        return same_text[0] if len(same_text) == 1 else None
    if letter is None:
        problems.append("several_letters" if _LETTER_LIST.search(answer) else "bad_choice")
        return None
    letter = letter.upper()
    if letter not in options:
        problems.append("not_an_option")
        return None
    if words and _fold(words) != _fold(options[letter]):  # a paraphrase or a shortened text is fine
        if any(_fold(words) == _fold(text) for text in options.values()):
            problems.append("letter_text_conflict")
            return None
        if _ANOTHER_LETTER.search(words):
            problems.append("several_letters")
            return None
    return letter


def parse_mirage(raw: str | None, options: Mapping[str, str]) -> Completion:
    """Read one MIRAGE record: JSON with `step_by_step_thinking` and `answer_choice`.

    These become analytical and conclusion; the other sections are None.
    options: letter -> text, the question's own. A letter outside them, two letters, or words that are no
    option give None. Broken JSON is not repaired: it counts as unparsed, hence wrong.
    """
    if not isinstance(raw, str):
        return Completion(None, None, None, None, None, ("not_text",))
    try:
        record = json.loads(raw)
    except (ValueError, RecursionError):  # the decoder recurses once per bracket
        return Completion(None, None, None, None, None, ("broken_json",))
    fields = record if isinstance(record, dict) else {}
    reasoning, answer = fields.get("step_by_step_thinking"), fields.get("answer_choice")
    reasoning = reasoning if isinstance(reasoning, str) else None
    if not isinstance(answer, str) or not answer.strip():
        return Completion(None, None, None, reasoning, None, ("no_answer_choice",))
    problems: list[str] = []
    letter = _named_option(answer, options, problems)
    return Completion(letter, None, None, reasoning, answer, tuple(problems))


# ------------------------------------------------------------------------------------------- judges' verdicts
_COUNT = re.compile(r"<count-(\w++)>\s*+([0-9]++)\s*+</count-\1>")
_MOST_DIGITS = 3  # no completion of a few thousand tokens holds 1,000 instances; such a number is no count
_LONGEST_REMARK = (
    80  # characters after the count; a model that was asked to end there and writes on is in a loop
)
# How models mark a thought: Qwen, DeepSeek and many; Magistral; Kimi; Command; gpt-oss, with and without its special tokens; Gemma
_THOUGHT_OPENS = (
    r"<(?:think|thinking|thought|reasoning|seed:think)>|\[THINK\]|◁think▷|<\|START_THINKING\|>"
    r"|<\|channel\|>(?:analysis|commentary)|\Aanalysis(?=[A-Z])|<\|channel>thought"
)
_THOUGHT_CLOSES = (
    r"</(?:think|thinking|thought|reasoning|seed:think)>|\[/THINK\]|◁/think▷|<\|END_THINKING\|>"
    r"|<\|channel\|>final|assistantfinal|<channel\|>"
)
_OPENS_AT_LINE_START = re.compile(rf"^[ \t]*+(?:{_THOUGHT_OPENS})", re.MULTILINE | re.IGNORECASE)
_OPENS_AT_END = re.compile(rf"(?:{_THOUGHT_OPENS})\s*\Z", re.IGNORECASE)
_CLOSES = re.compile(_THOUGHT_CLOSES, re.IGNORECASE)


def opened_thought(prompt: str) -> str:
    """The mark by which a prompt ends in a thought that the model is to go on with, or ""."""
    found = _OPENS_AT_END.search(prompt[-40:])
    return found.group() if found else ""


def split_thought(reply: str) -> tuple[str, bool]:
    """(what follows the last thought, whether a thought is still open there). A mark opens a thought where a line begins:
    elsewhere it may be quoted from the judged text."""
    end = 0
    for mark in _CLOSES.finditer(reply):
        end = mark.end()
    return reply[end:], _OPENS_AT_LINE_START.search(reply[end:]) is not None


def parse_count(reply: str | None, nonce: str) -> int | None:
    """The count in a judge's reply: 0 to 999, or None unless `<count-NONCE>N</count-NONCE>` stands there exactly once, as the
    verdict.

    Tags without the nonce, or with another, are not read: they may be quoted from the judged text. What a thinking judge
    writes before it closes its last thought is a draft, and so is a count in the middle of a sentence, or one that more than
    a remark follows; a thought that is still open gives None. Never raises; linear in the length.
    """
    if not isinstance(reply, str):
        return None
    verdict, thinking = split_thought(reply)
    counts = [found for found in _COUNT.finditer(verdict) if found.group(1) == nonce]
    if thinking or len(counts) != 1 or len(counts[0].group(2)) > _MOST_DIGITS:
        return None
    before = verdict[: counts[0].start()].rpartition("\n")[2]
    after = verdict[counts[0].end() :].strip()
    inside = any(c.isalnum() for c in before) and any(c.isalnum() for c in after)
    return None if inside or len(after) > _LONGEST_REMARK else int(counts[0].group(2))
