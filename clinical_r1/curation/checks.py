"""What is looked at in every question before it is trained or tested on, and which options may be shuffled."""

import re
import unicodedata
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache

from clinical_r1.curation.folding import HOMOGLYPH, RT_VARIANTS, fold, option_key
from clinical_r1.questions import Question


@dataclass(frozen=True)
class Check:
    """One line of meaning; action "quarantine" and "report" happen in curate, "load" in the loader.

    traps: numbers of the known traps of the raw data that it answers. finds: for checks of one question.
    """

    meaning: str
    action: str
    traps: tuple[int, ...] = ()
    finds: Callable[[Question], bool] | None = None


def _texts(q: Question) -> str:
    return " ".join([q.stem, *q.options.values()])


def _others(q: Question) -> list[str]:
    return [text for letter, text in q.options.items() if letter != q.answer]


def _distinct(texts: Iterable[str], key) -> bool:
    keys = [key(text) for text in texts]
    return len(set(keys)) == len(keys)


_SYMBOL = re.compile(r"[^a-z0-9]")


def _bare(text: str) -> str:
    """What a symbol-stripping matcher would see: to find where such a matcher fails, never to match."""
    return _SYMBOL.sub("", fold(text))


def _contains(outer: str, inner: str) -> bool:
    return inner in outer and re.search(rf"(?<!\w){re.escape(inner)}(?!\w)", outer) is not None


def _words(text: str) -> str:
    return f" {' '.join(re.findall(r'[a-z0-9]+', fold(text)))} "


def _gold_substring(q: Question) -> bool:
    gold = _words(q.options[q.answer]) if q.answer else "  "
    others = [_words(text) for text in _others(q)]
    return gold.strip() != "" and any(o != gold and o.strip() and (o in gold or gold in o) for o in others)


# What an option says about the others. "of the above" is searched for, since options go on behind it ("none of the above as
# ..."), lose blanks ("none ofthese") and gain letters ("d) none of the above"); shapes that are common words are not.
_OTHERS = r"(?:of ?)?(?:the ?)?(?:above\b|about$|(?:these|those|them|following)(?=\W*$|,? (?:are|is|as|except|but)\b))"
_TRUE = r"(?:true|correct|right|false|incorrect|wrong)"
_ALL = re.compile(
    rf"\b(?:all|any|some|either|combination) {_OTHERS}|^(?:all|any|any one|aota)\W*$"
    rf"|^all (?:of them )?(?:are )?(?:{_TRUE}|possible)\W*$|\b(?:all|any|either) (?:of )?(?:the )?(?:two|three|four|[2-4])\W*$"
    r"|^(?:all|any) of the\W*$|^(?:an?y? )?combination (?:of )?(?:all|both|any|possible)\W*$"
)
_NONE = re.compile(
    rf"none {_OTHERS}|\bneither {_OTHERS}|^(?:none|nota)\W*$|^none (?:of them )?(?:is|are) {_TRUE}\W*$"
    r"|^none of the(?: (?:two|three|four))?\W*$"
)
_LETTERS_ONLY = re.compile(r"[a-hj](?:(?:[\s,&+/-]|and)*[a-hj])*\.?")  # no i: IA and IIB are grades
_MARK = r"""['"(]?(?:[1-5a-e]|i{1,3}|iv|v)['")]?"""
_MORE_MARKS = rf"(?:(?:\s*,)?\s*(?:,|\band\b|&|\bor\b|\+)\s*{_MARK})"
_CLAIM = rf"{_MARK}{_MORE_MARKS}*\s*(?:is |are )?(?:both |all )?{_TRUE}"  # "1 and 2 are correct"
_POINTS = re.compile(
    rf"^(?:both|either|neither)(?: {_OTHERS}| [a-e]{{2,3}})?\W*$|^(?:option|answer|choice)s? {_MARK}\W*$|^{_MARK} only\W*$"
    rf"|^(?:both |either |neither |only )*(?:(?:option|answer|choice|statement)s? )?{_MARK}{_MORE_MARKS}+(?: only)?\W*$"
    rf"|^{_CLAIM}(?:\s*(?:,|;|and|&|but)\s*{_CLAIM})*\W*$|\b(?:except|but) (?:option )?{_MARK}\W*$"
)


@lru_cache(maxsize=100_000)  # several checks ask, and many questions offer the same
def _points(folded: str) -> tuple[bool, bool, bool]:
    """Whether a folded option says: all of the above, none of the above, or another option."""
    return tuple(pattern.search(folded) is not None for pattern in (_ALL, _NONE, _POINTS))


def _letter_options(q: Question) -> bool:
    texts = list(map(fold, q.options.values()))
    own = [t for t in texts if not any(_points(t)[:2])]
    only_letters = len(own) > 1 and all(_LETTERS_ONLY.fullmatch(text) for text in own)
    return only_letters or any(_points(text)[2] for text in texts)


def pointing_options(options) -> tuple[str, ...]:
    """Letters of options without a meaning of their own: letters only, "both A and B", all, any or none of the above."""
    texts = {letter: fold(text) for letter, text in options.items()}
    points = [x for x, text in texts.items() if any(_points(text))]
    rest = [x for x in texts if x not in points]
    only_letters = len(rest) > 1 and all(_LETTERS_ONLY.fullmatch(texts[x]) for x in rest)
    return tuple(texts) if only_letters else tuple(points)


_NEGATED = re.compile(
    r"\b(?:except|not|least|false|incorrect|untrue|wrong|contraindicated|unlikely|excluded)\b"
)
_FIGURE = re.compile(
    r"\b(?:image|photograph|photo|picture|pictured|figure|diagram|exhibit|graph|depicted"
    r"|shown (?:in|below|above|here))\b"
)
_STATED = re.compile(r"\W*(?:the )?(?:correct )?ans(?:wer)?\b[\W_]*(?:(?:is|key)[\W_]*)?([a-d1-4])\b")
_WORD = re.compile(r"\w+")


def _explanation_disagrees(q: Question) -> bool:
    stated = _STATED.match(fold(q.meta.get("explanation") or ""))
    return bool(stated and q.answer) and "abcd1234".index(stated.group(1)) % 4 != "ABCD".index(q.answer)


def longest_option(q: Question) -> str:
    """Letter of the longest option text; the first of several."""
    return max(q.options, key=lambda letter: len(q.options[letter]))


# fmt: off
CHECKS = {
    # set aside by the loader, one row at a time
    "not_json": Check("a line that is not JSON", "load"),
    "wrong_schema": Check("fields of another benchmark, or none (swapped file names)", "load", (27,)),
    "option_count": Check("not the benchmark's number of options (4-option rows for 5)", "load", (2,)),
    "bad_answer": Check("an answer that is no option (cop 0 in a 1-based file stops the load)", "load", (1,)),
    "answer_text_disagrees": Check("the gold letter's option is not the gold text", "load", (2,)),
    "duplicate_id": Check("an id that stands twice in one file; the first is kept", "load"),
    # set aside by curate
    "no_gold": Check("no gold answer: unscorable (None), not wrong", "quarantine", (1,),
        lambda q: q.answer is None),
    "gold_option_duplicated": Check("the gold text is offered twice", "quarantine", (4,),
        lambda q: bool(q.answer) and option_key(q.options[q.answer]) in map(option_key, _others(q))),
    "contradictory_duplicate": Check("same stem and options, another gold: all of them",
        "quarantine", (10, 16)),
    "exact_duplicate": Check("same stem and options as an earlier question, whatever its split or benchmark",
        "quarantine", (10, 11, 30)),
    "contaminated": Check("equals a question of `against`, or shares half its 5-grams",
        "quarantine", (12, 13, 14, 15)),
    # reported, and kept
    "multi_choice": Check("labelled multi, one key only: give accuracy with and without", "report", (3,),
        lambda q: q.meta.get("multi", False)),
    "duplicate_options": Check("two options with the same text, case and full stop folded", "report", (4,),
        lambda q: not _distinct(q.options.values(), option_key)),
    "not_recalled_option": Check("an option reads Not Recalled", "report", (4,),
        lambda q: any("not recalled" in fold(text) for text in q.options.values())),
    "options_collide_without_symbols": Check("options alike once symbols are stripped", "report", (5,),
        lambda q: _distinct(q.options.values(), option_key) and not _distinct(q.options.values(), _bare)),
    "gold_collides_without_symbols": Check("the gold is one of them", "report", (5,),
        lambda q: _distinct(q.options.values(), option_key)
        and bool(q.answer) and _bare(q.options[q.answer]) in map(_bare, _others(q))),
    "gold_substring": Check("the gold's words contain a distractor's, or the reverse", "report", (6,),
        _gold_substring),
    "letter_options": Check("options are letters or point to options: never shuffle", "report", (7,),
        _letter_options),
    "all_of_the_above": Check("an option is All or Any (of the above): never shuffle", "report", (7,),
        lambda q: any(_points(fold(text))[0] for text in q.options.values())),
    "none_of_the_above": Check("an option is None (of the above): never shuffle", "report", (7,),
        lambda q: any(_points(fold(text))[1] for text in q.options.values())),
    "gold_in_stem": Check("the gold text stands word for word in the stem", "report", (8,),
        lambda q: bool(q.answer) and not _letter_options(q)
        and _contains(fold(q.stem), fold(q.options[q.answer]))),
    "longest_option_is_gold": Check("a guesser of the longest option would be right", "report", (),
        lambda q: q.answer == longest_option(q)),
    "negated_stem": Check("NOT, EXCEPT, LEAST ... anywhere in the stem (upper bound)", "report", (9,),
        lambda q: bool(_NEGATED.search(fold(q.stem)))),
    "figure_reference": Check("the stem speaks of a figure (upper bound; none is held)", "report", (9,),
        lambda q: bool(_FIGURE.search(fold(q.stem)))),
    "near_duplicate": Check("shares half its 5-grams with another question", "report", (10, 12, 14)),
    "homoglyphs": Check("Cyrillic or Greek look-alikes inside English words", "report", (18,),
        lambda q: not _texts(q).isascii() and bool(HOMOGLYPH.search(_texts(q)))),
    "lost_rt": Check("words that lost their rt in transit (aery, hypeension)", "report", (19,),
        lambda q: not RT_VARIANTS.keys().isdisjoint(_WORD.findall(fold(_texts(q))))),
    "changed_by_nfkc": Check("NFKC would change the text (10³ to 103): prompt from raw", "report", (20,),
        lambda q: unicodedata.normalize("NFKC", _texts(q)) != _texts(q)),
    "nonbreaking_space": Check("holds a no-break space", "report", (20,),
        lambda q: "\xa0" in _texts(q)),
    "no_explanation": Check("the benchmark gives explanations, but not here", "report", (21,),
        lambda q: "explanation" in q.meta and not q.meta["explanation"]),
    "explanation_disagrees": Check("the explanation states another letter than the key", "report", (21,),
        _explanation_disagrees),
    "partial_release": Check("not the official number of rows of the split", "report", (22, 26)),
}
