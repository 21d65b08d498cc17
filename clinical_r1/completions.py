"""Text -> `Completion`: the only regular expressions on model output.

Training rewards, evaluation and figures all read this one record, so no score can rest on another parser. The
paper leaves the extraction open; `CHOICES` states what we chose and `PROBLEMS` names everything the parser
can complain about. Parsing never raises on a string and takes time linear in its length.
"""

import re
import unicodedata
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from types import MappingProxyType

from clinical_r1.arms import CHAT
from clinical_r1.files import parse_json

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
    "bad_box": "the box holds neither one letter A-J nor the text of one option: no letter",
    "several_letters": "more than one option is named: no letter",
    "not_an_option": "the letter is not among the options: no letter",
    "letter_text_conflict": "the letter is followed by the text of another option: no letter",
    "denied_letter": "the words after the letter deny it: no letter",
    "ambiguous_option": "the text is that of several identical options: no letter",
    "lower_case": "the letter in the box was written in lower case: accepted",
    "box_text": "words follow the letter inside the box: accepted",
    "option_text": "the letter was read from the text of an option: accepted",
}
MIRAGE_PROBLEMS = {
    "not_text": "the record holds no text (the call failed): no letter",
    "broken_json": "the text is not JSON (an error message, unescaped quotes, a key said twice): no letter",
    "no_answer_choice": "the JSON is no object with a text under answer_choice: no letter",
    "bad_choice": "neither one letter nor the text of one option: no letter",
}
PROBLEMS = FORMAT_PROBLEMS | LETTER_PROBLEMS | MIRAGE_PROBLEMS
CHOICES = {  # where the paper is silent
    "format": "exactly one of each of the four tags, lower case, in order, no other tag, only white space "
    "outside, no blank section",
    "System 1 and System 2": "both markers of figure 6, once each, in order, in the reasoning, each followed "
    "by text",
    "one answer, stated once": "one \\boxed{} in the whole completion; none or several give no letter",
    "where the box may stand": "inside the conclusion if there is exactly one; anywhere if there is none",
    "what the box may hold": "one letter A-J of either case, in any styling (LaTeX, markdown, brackets, quotes, full "
    "width), after 'Option' or 'Answer:', or before words ('C. text', 'C: text', 'C) text', 'C - text'); where the "
    "options are known also the whole text of exactly one of them, also without accents, with another dash, a Greek letter or "
    "its name ('beta-blocker'), or the letter behind ('Gout (C)'); else no letter",
    "words after the letter": "may repeat the option's text, shorten or paraphrase it; the letter counts. Another "
    "option's letter or text among them gives no letter, unless the option's own text holds it ('D. Hepatitis B, C. "
    "difficile'); nor do words that deny the letter ('C. wrong')",
    "no letter": "counts as wrong, stays in the denominator; never negative (it is in the official code)",
    "letters beyond the options": "are no letter where the options are known",
}
_TAG = re.compile(r"</?[A-Za-z][\w-]{0,30}>|<\|[\w-]{1,30}\|>")
_EXPECTED = {
    style: tuple(t for n in names for t in (f"<{n}>", f"</{n}>")) for style, names in SECTIONS.items()
}
_BRACE = re.compile(r"[{}]")
_BOX_OPENING = re.compile(r"\s*\{")


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


def parse_completion(text: str, style: str = "crpo", options: Mapping[str, str] | None = None) -> Completion:
    """Read one completion written in a style, "crpo" or "grpo" (ValueError for another).

    In style "grpo" `<think>` becomes dx, `<answer>` becomes conclusion; intuitive and analytical are None.
    options: letter -> text, the question's own; None where they are not known, and then only letters can be read.
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
    letter = _boxed_letter(text, conclusion or (0, len(text)), options or {}, problems)
    return Completion(letter, dx_body, intuitive, analytical, conclusion_body, tuple(problems))


def read_answer(text: str, style: str, options: Mapping[str, str] | None = None) -> Completion:
    """`parse_completion` for the styles that rewards read. In style "chat" there are no sections: a letter, read wherever the one
    box stands, and never a format that holds.
    """
    if style != CHAT:
        return parse_completion(text, style, options)
    problems = ["foreign_tag"] if _TAG.search(text) else []
    letter = _boxed_letter(text, (0, len(text)), options or {}, problems)
    return Completion(letter, None, None, None, None, tuple(problems))


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


def _boxed_letter(text: str, scope: tuple[int, int], options, problems: list[str]) -> str | None:
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
    letter, words, problem = read_option(text[text.index("{", start) + 1 : end - 1], options)
    if letter is None or problem:
        problems.append(problem or "bad_box")
    elif letter.islower():
        problems.append("lower_case")
    if words:
        problems.append("box_text")
    return letter and letter.upper()


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


# Styling that says nothing: LaTeX font commands and spaces, braces, dollar signs.
_STYLING = re.compile(
    r"\\(?:(?:text|math)(?:bf|it|rm|sf|tt|up|md|sc|normal|bb|cal)?|boldsymbol|bm|pmb|mbox|hbox|fbox|emph|underline|operatorname"
    r"|displaystyle|left|right|quad|qquad|bf|it|rm|large|Large|LARGE|huge|Huge)(?![A-Za-z])\*?|\\[,;:!()\[\]{}\\\s]|[{}~$]"
)
_ESCAPED = re.compile(r"\\([%#_&$])")
# Full width, circled, bracketed and mathematical letters read as plain ones; characters of no width vanish.
_PLAIN_FORMS = {
    code: unicodedata.normalize("NFKC", chr(code))
    for code in (*range(0x249C, 0x24EA), *range(0xFF01, 0xFF5F), *range(0x1D400, 0x1D6A4))
} | dict.fromkeys((0xAD, 0x200B, 0x200C, 0x200D, 0x2060, 0xFEFF))
# Other ways to write one option: dashes, Greek letters by name, no accents, a space beside a number, sign or hyphen.
_GREEK = {code: unicodedata.name(chr(code)).split()[-1].lower() for code in range(0x3B1, 0x3CA)}
_SAME_SIGNS = (
    dict.fromkeys((*range(0x2010, 0x2016), 0x2212), "-")
    | _GREEK
    | {0x3BB: "lambda", 0x2018: "'", 0x2019: "'"}
)
_SAME_SPACES = (
    (re.compile(r"(?<=[^\W\d]) ?- ?(?=[^\W\d])|(?<=\d)(?=[^\W\d])"), " "),
    (re.compile(r"(?<=[<>≤≥]) | (?=[<>≤≥%])|\\(?=[a-z])"), ""),
)
_OPENING = r"[\s(\[\"'*_`“‘]*+"
_SPECIES = (
    r"(?:coli|difficile|albicans|pylori|perfringens|botulinum|tetani|diphtheriae|jejuni|trachomatis|pneumoniae|psittaci|"
    r"neoformans|immitis|burnetii|faecalis|faecium|histolytica|influenzae|ducreyi|fragilis|pertussis|anthracis|cereus|"
    r"henselae|burgdorferi|abortus|fumigatus|lumbricoides|israelii|baumannii|duodenale|lamblia|tularensis)\b"
)
_LEADING_LETTER = re.compile(
    rf"{_OPENING}(?i:(?:(?:the|my) )?(?:(?:final|correct|right|best|most likely) )*+(?:answer|option|choice|letter)\b"
    rf"{_OPENING}(?:(?:is\b *+:?|[:=-]){_OPENING})?){{0,3}}+([A-Ja-j])(?![^\W_]|['’]\w|\. ?{_SPECIES})"
)
_LETTER_ENDS = re.compile(
    r"[ *_`\"'”’]*+(?:[)\]][ *_`]*+[:.,-]?|:|\.(?![a-z]|[A-Z]\b)|(?<= )[-–—](?= )|(?=\([^()]*+\)$))"
)
_BEFORE, _AFTER = " ([\"'*_`“‘", " )].,;:!*_`\"'”’\\"  # "-0.45" and ".45" keep their first signs
_LETTER_BEHIND = re.compile(r"(?:[(\[]|[,;:=] ?| [-–—] )(?i:option )?([A-J])[)\]]?[ .]*$")
_DENIED = re.compile(
    r"(?:is |are )?(?:no|not(?: .{0,20}(?:correct|right|answer))?|wrong|incorrect|false|excluded|ruled out)"
)
_LETTER_LIST = re.compile(r"\b[A-J](?: ?(?:[/,&>]|and\b|or\b) ?\(?[A-J]\b\)?)+")
# What else may name an option behind the first letter: "B.", "(B)", "or B", "it is B".
_LETTER_MARK = re.compile(
    rf"(?:\b(\w{{1,20}}) )?\(?\b([A-J])(?:[).:\]](?! ?{_SPECIES})(?=\W|\d|[A-Z]|$)| [-–—] | (?:too|also)\b|\W*$)"
)
_LETTER_WORD = re.compile(
    r"(?:\b(?i:or|and|is|not|option|choice|answer|also|vs)\b|[,;/&])[ (*]*+([A-Jb-j])(?=[ )*]*+(?:\.?$|[,;/&!?]|or\b|and\b))"
)
_LETTERED = frozenset(
    "vitamin vitamins hepatitis type group factor class stage grade influenza hemophilia haemophilia hemoglobin protein "
    "immunoglobulin apolipoprotein coenzyme phase category complement toxin penicillin amphotericin polymyxin lipid".split()
)


def _plain(text: str) -> str:
    """The text without styling, with single spaces."""
    text = text if text.isascii() else text.translate(_PLAIN_FORMS)
    return " ".join(_STYLING.sub(" ", _ESCAPED.sub(r"\1", text)).split())


def fold_option(text: str) -> str:
    """Case, spacing, styling, accents, kinds of dashes, Greek letters or their names and what stands around do not tell options
    apart; other symbols do ("-0.45" is not "0.45")."""
    plain = _plain(text)
    if plain.isascii():
        plain = plain.lower()
    else:
        plain = unicodedata.normalize("NFD", plain).casefold().translate(_SAME_SIGNS)
        plain = "".join(char for char in plain if not unicodedata.combining(char))
    for written, folded in _SAME_SPACES:
        plain = written.sub(folded, plain)
    return plain.lstrip(_BEFORE).rstrip(_AFTER)


@lru_cache(maxsize=4096)
def _folded(options: tuple[tuple[str, str], ...]) -> Mapping[str, str]:
    """letter -> folded text of the options that have one; remembered, for many completions answer one question."""
    return MappingProxyType({letter: fold_option(own) for letter, own in options if own})


def read_option(text: str, options: Mapping[str, str]) -> tuple[str | None, str, str | None]:
    """(letter as written, words after it, problem) of a short text that is to name one option, by letter or by its text.

    Without a letter the problem says why not; None if the text names nothing.
    """
    plain, texts = _plain(text), _folded(tuple(options.items()))
    whole = fold_option(plain)
    named = [letter for letter, own in texts.items() if own and own == whole]
    letter, words = _leading_letter(plain, texts)
    if named and (letter is None or words):
        return (named[0], "", "option_text") if len(named) == 1 else (None, "", "ambiguous_option")
    end = _LETTER_BEHIND.search(plain)  # "Septic arthritis (C)", "Septic arthritis, C"
    if end and texts.get(end.group(1)) == fold_option(plain[: end.start()]):
        return end.group(1), texts[end.group(1)], None
    if letter is None:
        return None, "", "several_letters" if _LETTER_LIST.search(plain) else None
    if texts and letter.upper() not in texts:
        return None, "", "not_an_option"
    problem = _contradiction(letter.upper(), words, texts, options.get(letter.upper(), ""))
    return (None, "", problem) if problem else (letter, words, None)


def _leading_letter(plain: str, texts: Mapping[str, str]) -> tuple[str | None, str]:
    """(the letter a text begins with, the words after it); (None, "") where none is set off from the words."""
    found = _LEADING_LETTER.match(plain)
    if not found:
        return None, ""
    letter, rest = found.group(1), plain[found.end() :]
    if not rest.strip(_BEFORE + _AFTER):
        return letter, ""
    end = _LETTER_ENDS.match(rest)
    if end:
        return letter, rest[end.end() :].lstrip(_BEFORE).rstrip(_AFTER)
    own = texts.get(letter.upper())  # "C Gout" and "C, Gout" only if Gout is option C
    return (letter, own) if own and fold_option(rest.lstrip(" .,:;-–—=")) == own else (None, "")


def _contradiction(letter: str, words: str, texts: Mapping[str, str], own_text: str) -> str | None:
    """Why the words after a letter do not speak of its option: another letter, or another option's text; else None."""
    own, said = texts.get(letter, ""), fold_option(words)
    if not words or said == own:
        return None
    if any(said == text for text in texts.values()):
        return "letter_text_conflict"
    if texts and _DENIED.fullmatch(said):
        return "denied_letter"
    if _standing(said).search(own):
        return None  # shortened
    allowed = {letter, *re.findall(r"\b[A-J]\b", own_text)}
    marks = {mark for before, mark in _LETTER_MARK.findall(words) if before.lower() not in _LETTERED}
    marks |= {mark.upper() for mark in _LETTER_WORD.findall(words)} | set(re.findall(r"^[A-J]$", words))
    if (marks & texts.keys() if texts else marks) - allowed:
        return "several_letters"
    others = named_options(_standing(own).sub(" ", said) if own else said, texts)
    if others:
        return "several_letters" if own and own in said else "letter_text_conflict"
    return None


def _standing(text: str) -> re.Pattern:
    """Finds a text as whole words and numbers: neither "5 mg" in "0.5 mg" or "2-5 mg", nor "vitamin b1" in "vitamin b12"."""
    before = r"(?<![\w.,<>≤≥-])" if text[:1].isdigit() else r"(?<!\w)"
    after = r"(?![\w%]|[.,-]\d)" if text[-1:].isdigit() else r"(?!\w)"
    return re.compile(before + re.escape(text) + after)


def named_options(said: str, texts: Mapping[str, str]) -> list[str]:
    """Letters of the options whose text of three or more characters stands in a folded text, the longest read first."""
    found = []
    for letter in sorted(texts, key=lambda letter: -len(texts[letter])):
        if len(texts[letter]) > 2:
            said, count = _standing(texts[letter]).subn(" ", said)
            found += [letter] if count else []
    return found


# ------------------------------------------------------------------------------ real chains (MIRAGE's format)


def parse_mirage(raw: str | None, options: Mapping[str, str]) -> Completion:
    """Read one MIRAGE record: JSON with `step_by_step_thinking` and `answer_choice`.

    These become analytical and conclusion; the other sections are None.
    options: letter -> text, the question's own. A letter outside them, two letters, or words that are no
    option give None. Broken JSON is not repaired: it counts as unparsed, hence wrong.
    """
    if not isinstance(raw, str):
        return Completion(None, None, None, None, None, ("not_text",))
    try:
        record = parse_json(raw)
    except ValueError:
        return Completion(None, None, None, None, None, ("broken_json",))
    fields = record if isinstance(record, dict) else {}
    reasoning, answer = fields.get("step_by_step_thinking"), fields.get("answer_choice")
    reasoning = reasoning if isinstance(reasoning, str) else None
    if not isinstance(answer, str) or not answer.strip():
        return Completion(None, None, None, reasoning, None, ("no_answer_choice",))
    letter, _, problem = read_option(answer, options)
    if letter is None:
        problem = problem or "bad_choice"
    return Completion(letter and letter.upper(), None, None, reasoning, answer, (problem,) if problem else ())
