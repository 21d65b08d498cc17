"""Which facts of a vignette a free text covers: a probe for models whose claims no grammar reads."""

import re
from collections.abc import Sequence
from functools import lru_cache

from clinical_r1.curation.folding import fold

COVERED = 0.7  # share of a fact's words that one sentence must hold; checked on mediQ cases with an even id

# ------------------------------------------------------------------------------------------------ sentences and words
_SENTENCE = re.compile(r"(?<=[.!?])\s+(?!\d+\s)|\n+")
_SUFFIX = re.compile(r"(?<=\w{4})(?:ations?|ating|ated|ates?|ions?|ings?|ied|ies|ed|es|(?<![sui])s|e|ly|y)$")
_SAME = {
    "man": "male", "boy": "male", "gentleman": "male", "woman": "female", "girl": "female", "lady": "female",
    "first": "1st", "second": "2nd", "third": "3rd", "fourth": "4th", "fibre": "fiber",
}  # fmt: skip
STOP = frozenset(
    """a an the of in on at to for from by with and or as is are was were be been being it its this that these those he she
    his her him they their them who which has have had do does did there patient case s t due
    no not non nor neither never without denies denied deny absent absence negative""".split()
)


@lru_cache(maxsize=50_000)
def word_root(word: str) -> str:
    """A word without its inflection: releases, releasing -> releas. Crude, the same on both sides."""
    word = _SAME.get(word, word)
    return _SUFFIX.sub("", word)


def split_sentences(text: str) -> list[str]:
    """Folded sentences; "n't" becomes "not". Line ends separate, a closing full stop of a list letter does not."""
    return [
        fold(part).replace("n't", " not").replace("cannot", "can not")
        for part in _SENTENCE.split(text)
        if part
    ]


# ------------------------------------------------------------------------------------------------------------ findings
_NUMBER_WORDS = dict(
    zip(
        "one two three four five six seven eight nine ten eleven twelve".split(),
        map(str, range(1, 13)),
        strict=True,
    )
)
_NUMBER_WORD = re.compile(rf"\b(?:{'|'.join(_NUMBER_WORDS)})\b")
_NUMBER = re.compile(
    r"(?<![\w.])([-<>≤≥]?\s?\d[\d,]*(?:\.\d+)?(?:/\d[\d,]*(?:\.\d+)?)?)[\s-]*"
    r"(%|°\s?[cf]|/?(?:years?|months?|weeks?|days?|hours?|minutes?|mins?|seconds?|mm ?hg|mm|cm|kg/m2|kg|lbs?|[mμµn]?g/d?l|"
    r"[mu]*eq/l|[mu]?mol/l|mg|mcg|g|ml|l|hz|per minute)(?![a-z]))?"
)
_MEASURE_WORDS = frozenset(
    "year years old month months week weeks day days hour hours minute minutes min mm hg cm kg lb lbs mg g dl ml l".split()
)

# A negation reaches to the end of its clause, through lists; "absent" and "negative" cover the clause on both sides.
_CLAUSE = re.compile(
    r"[;:.!?]|\b(?:but|however|although|though|except|which|who|while|whereas)\b"
    r"|,? and (?=(?:he|she|it|the|is|has|had|was)\b)"
)
_FORWARD = frozenset("no not non never without nor neither denies denied deny denying".split())
_BOTH_WAYS = frozenset("absent absence negative".split())
_FINDING_WORD = re.compile(r"[^\W\d_]+")


@lru_cache(maxsize=50_000)
def finding_words(sentence: str) -> frozenset[tuple[str, bool]]:
    """(root, negated) of every content word of a folded sentence."""
    words = set()
    for clause in _CLAUSE.split(sentence):
        tokens = _FINDING_WORD.findall(clause or "")
        negated = bool(_BOTH_WAYS.intersection(tokens))
        for word in tokens:
            negated = negated or word in _FORWARD
            if word not in STOP and word not in _MEASURE_WORDS and word not in _NUMBER_WORDS:
                words.add((word_root(word), negated))
    return frozenset(words)


@lru_cache(maxsize=50_000)
def fact_numbers(sentence: str) -> tuple[tuple[str, str], ...]:
    """(value, unit or "") of every number of a folded sentence; number words up to twelve count."""
    digits = _NUMBER_WORD.sub(lambda match: _NUMBER_WORDS[match.group()], sentence)
    found = _NUMBER.findall(digits)
    return tuple(
        (re.sub(r"[\s,]", "", value), re.sub(r"[\s/]|(?<=\w\w)s$", "", unit)) for value, unit in found
    )


def finding_coverage(text: str, facts: Sequence[str]) -> list[bool]:
    """Which facts the text states, one after another: "Patient has no fever." is not covered by "fever for 3 days".

    A fact is covered when one sentence holds COVERED of its content words with the same polarity, none of them only with
    the other, and all its numbers; a unit must agree where both state one.
    """
    sentences = split_sentences(text)
    return [any(_covers(sentence, fact) for sentence in sentences) for fact in map(bare_fact, facts)]


@lru_cache(maxsize=50_000)
def bare_fact(fact: str) -> str:
    """mediQ numbers its facts; 48 lack the number."""
    return " ".join(split_sentences(re.sub(r"^\s*\d+\.\s+", "", fact)))


def _covers(sentence: str, fact: str) -> bool:
    words, numbers = finding_words(fact), fact_numbers(fact)
    if not words and not numbers:
        return False
    stated = finding_words(sentence)
    contradicted = any((w, negated) not in stated and (w, not negated) in stated for w, negated in words)
    if contradicted or len(words & stated) < COVERED * len(words):
        return False
    there = fact_numbers(sentence)
    return all(_has_number(value, unit, there, alone=not words) for value, unit in numbers)


def _has_number(value, unit, there, alone) -> bool:
    return any(value == v and (unit == u or (not alone and not (unit and u))) for v, u in there)
