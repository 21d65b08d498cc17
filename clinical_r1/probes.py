"""Rule-based probes of real text: what a chain mentions, what it rejects, and whether its answer rests on its reasoning.

    finding_coverage    which atomic facts of a vignette a text states, polarity and numbers respected
    option_mentions     which options a chain names; rejected_options: which of them it argues away
    shuffle_consistency does the same option text win when the options are permuted
    reasoning_effect    does the answer change when the reasoning is taken away

Cheap, blind to medicine, and never a reward: read them only beside `probe_quality`, their measured precision and recall.
Pure: the two probes that need a model get its answers from `generate`.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np

from clinical_r1.completions import (
    ANALYTICAL_MARKER,
    INTUITIVE_MARKER,
    SECTIONS,
    parse_completion,
)
from clinical_r1.curation import CHECKS, fold, pointing_options, stem_tokens
from clinical_r1.metrics import mcnemar_exact, paired_bootstrap, wilson_interval
from clinical_r1.questions import Question

COVERED = 0.7  # share of a fact's words that one sentence must hold; checked on mediQ cases with an even id
MENTIONED = 0.6  # weighted share of an option's words in one sentence; set beforehand, never swept
SHARED_WEIGHT = 0.25  # of an option's word that another option has too

# ------------------------------------------------------------------------------------------------ sentences and words

_SENTENCE = re.compile(r"(?<=[.!?])\s+(?!\d+\s)|\n+")
_SUFFIX = re.compile(r"(?<=\w{4})(?:ations?|ating|ated|ates?|ions?|ings?|ied|ies|ed|es|(?<![sui])s|e|ly|y)$")
_SAME = {
    "man": "male", "boy": "male", "gentleman": "male", "woman": "female", "girl": "female", "lady": "female",
    "first": "1st", "second": "2nd", "third": "3rd", "fourth": "4th", "fibre": "fiber",
}  # fmt: skip
_STOP = frozenset(
    """a an the of in on at to for from by with and or as is are was were be been being it its this that these those he she
    his her him they their them who which has have had do does did there patient case s t due
    no not non nor neither never without denies denied deny absent absence negative""".split()
)


@lru_cache(maxsize=50_000)
def _root(word: str) -> str:
    """A word without its inflection: releases, releasing -> releas. Crude, the same on both sides."""
    word = _SAME.get(word, word)
    return _SUFFIX.sub("", word)


def _sentences(text: str) -> list[str]:
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
            if word not in _STOP and word not in _MEASURE_WORDS and word not in _NUMBER_WORDS:
                words.add((_root(word), negated))
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
    sentences = _sentences(text)
    return [any(_covers(sentence, fact) for sentence in sentences) for fact in map(bare_fact, facts)]


@lru_cache(maxsize=50_000)
def bare_fact(fact: str) -> str:
    """mediQ numbers its facts; 48 lack the number."""
    return " ".join(_sentences(re.sub(r"^\s*\d+\.\s+", "", fact)))


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


# ------------------------------------------------------------------------------------------------------------- options

# A letter that stands for an option is replaced by this word, so that its full stop ends no sentence.
_LIST = r"[A-J](?:(?:,? ?(?:and|or|&) |, ?|/)[A-J])*"
_LETTER_REFERENCE = re.compile(
    rf"\b[Oo]ptions? \(?({_LIST})\b\)?|\b[Cc]hoices? \(?({_LIST})\b\)?|\(({_LIST})\)"
    r"|(?:^|(?<=[.:?!;\n] ))([A-J])[.):](?=\s)|(?<=\bis )([A-J])[.:](?=\s)|\n([A-J])[.):](?=\s)"
)
_CONNECTOR = re.compile(
    r"([;:]|\b(?:but|however|although|though|while|whereas|because|since|which|so|therefore|given|if|unless)\b)"
)
# A clause without an option of its own speaks of the one before when it opens with a pronoun or with its verb.
_INHERITS = re.compile(
    r"(?:but|however|although|though|which|also|and|in this case|in this patient)?\s*(?:in this case )?"
    r"(?:(?:it|they|these|those|that|such)\b|this (?!patient|case|question|man|woman|child|presentation)|this$"
    r"|(?:is|are|was|were|do|does|did|has|have|can|could|may|might|would|will|should|not|less|more|unlikely|usually|"
    r"typically|rarely|generally|often)\b)"
)
_FILLERS = r"(?: (?:a|an|the|any|history|evidence|signs?|symptoms?|of|for|like|be|to|due|by|with|in|is|are|likely|option_\w))*$"
_BEFORE = re.compile(
    r"\b(?:(?:argu|speak|point)(?:es|s|ing|ed)? against|against|rul(?:es?|ing|ed) out|exclud(?:es?|ing|ed)"
    r"|eliminat(?:es?|ing|ed)|reject(?:s|ing|ed)?|rather than|instead of|unlike|other than|as opposed to|not|no|without|"
    r"neither|nor|(?:more|less) \w+ than|less likely|unlikely|consistent with \w+ than)" + _FILLERS
)
_AFTER = re.compile(
    r"\b(?:not|never|unlikely|incorrect|false|wrong|untrue|contraindicated|inappropriate|insufficient|inconsistent|"
    r"irrelevant|unrelated|excluded|rejected|eliminated|ruled out|less (?:likely|common|effective|appropriate|specific|useful)"
    r"|lacks?|fails?|no longer|second line|rarely|avoided|too)\b"
)
_NO_REJECTION = re.compile(  # double negation, and what the patient, not the option, does not do
    r"\bnot (?:be |been |yet )?(?:completely |entirely )?(?:ruled out|excluded|rejected|eliminated|unlikely|incorrect|false|"
    r"wrong|contraindicated|uncommon|only|just)\b"
    r"|\b(?:patient|he|she)(?: \w+)? (?:do|does|did|has|have|had|is|was) not\b|\bif not\b|\bwhether or not\b"
)
_NONE_OF = re.compile(r"\bnone of (?:the|these|those)\b|\bno option\b")
_COORDINATED = re.compile(r"(?:(?:and|or|nor|the|a|an|both|as well|as|either|option_\w) ?)*$")


@dataclass(frozen=True)
class _Mention:
    letter: str
    start: int  # in the sentence's words
    end: int


def _mark_letters(text: str) -> str:
    def mark(match):
        letters = re.findall(r"[A-J]", next(group for group in match.groups() if group))
        return " " + " and ".join(f"option_{letter.lower()}" for letter in letters) + " "

    return _LETTER_REFERENCE.sub(mark, text)


@lru_cache(maxsize=4096)
def _option_words(text: str) -> tuple[str, ...]:
    return tuple(map(_root, stem_tokens(text)))


def _content(words) -> set[str]:
    return {word for word in words if word not in _STOP}


def _mentions(words: Sequence[str], options: Mapping[str, str]) -> list[_Mention]:
    """Where the words of a sentence name an option: by letter, word for word (longest option first), or in most words."""
    roots = [_root(word) for word in words]
    found = [
        _Mention(word[-1].upper(), i, i + 1)
        for i, word in enumerate(words)
        if word.startswith("option_") and word[-1].upper() in options
    ]
    free = [True] * len(roots)
    for letter in sorted(options, key=lambda x: -len(_option_words(options[x]))):
        name = _option_words(options[letter])
        for start in range(len(roots) - len(name) + 1) if name else ():
            end = start + len(name)
            if all(free[start:end]) and tuple(roots[start:end]) == name:
                found.append(_Mention(letter, start, end))
                free[start:end] = [False] * len(name)
    named = {mention.letter for mention in found}
    left = [root if free[i] else "" for i, root in enumerate(roots)]
    weights = {letter: _weights(letter, tuple(options.items())) for letter in options if letter not in named}
    return sorted(found + _partial_mentions(left, weights), key=lambda m: (m.start, m.end))


@lru_cache(maxsize=4096)
def _weights(letter: str, options: tuple[tuple[str, str], ...]) -> dict[str, float]:
    """Content words of one option -> weight; a word that another option shares tells little."""
    words = {other: _content(_option_words(text)) for other, text in options}
    return {
        word: SHARED_WEIGHT if any(word in words[other] for other in words if other != letter) else 1.0
        for word in words[letter]
    }


def _partial_mentions(roots: Sequence[str], weights: Mapping[str, Mapping[str, float]]) -> list[_Mention]:
    there, found = set(roots), []
    for letter, weight in weights.items():
        own = {word for word, value in weight.items() if value == 1.0 and word in there}
        share = sum(value for word, value in weight.items() if word in there)
        if own and share >= MENTIONED * sum(weight.values()):
            found.append(_Mention(letter, *_shortest_span(roots, own)))
    return found


def _shortest_span(roots, own: set[str]) -> tuple[int, int]:
    """(start, end) of the shortest stretch that holds every one of these words; the first of several."""
    last, best = {}, (0, len(roots))
    for i, root in enumerate(roots):
        if root in own:
            last[root] = i
            if len(last) == len(own) and i + 1 - min(last.values()) < best[1] - best[0]:
                best = (min(last.values()), i + 1)
    return best


def _readable(options: Mapping[str, str]) -> dict[str, str]:
    points = pointing_options(options)
    return {letter: text for letter, text in options.items() if letter not in points}


def _read(text: str, options: Mapping[str, str]):
    """[(words, index of the clause of each word, clauses' words, mentions)] per sentence."""
    read = []
    for sentence in _sentences(_mark_letters(text)):
        parts = _CONNECTOR.split(sentence)
        clauses = [parts[0]] + [a + " " + b for a, b in zip(parts[1::2], parts[2::2], strict=True)]
        tokens = [list(stem_tokens(clause)) for clause in clauses]
        words = [word for clause in tokens for word in clause]
        of = [i for i, clause in enumerate(tokens) for _ in clause]
        read.append((words, of, clauses, _mentions(words, options)))
    return read


def option_mentions(text: str, options: Mapping[str, str]) -> tuple[str, ...]:
    """Letters of the options that the text names, by their words or as "option B", in the order of the options.

    Options that point to letters or to all or none of the above are never counted: their words say nothing about them.
    """
    options = _readable(options)
    named = {mention.letter for _, _, _, mentions in _read(text, options) for mention in mentions}
    return tuple(letter for letter in options if letter in named)


def rejected_options(text: str, options: Mapping[str, str], chosen: str | None = None) -> tuple[str, ...]:
    """Letters of the options that the text argues away, in the order of the options; never `chosen`, the conclusion's.

    An option is rejected when a cue of rejection governs it: right before it ("argues against X", "rather than X"), or
    after it in its clause or in a clause that speaks on about it ("X is …, but it does not …"), or when none of the
    options is said to fit. Reads explicit words only: "X usually presents with …" rejects nothing. Blind to questions that ask
    for the exception, where "is true" rejects.
    """
    options = _readable(options)
    rejected, named, topic = set(), set(), []
    for words, of, clauses, mentions in _read(text, options):
        named |= {mention.letter for mention in mentions}
        if _NONE_OF.search(" ".join(words)):
            rejected |= named
        groups = _groups(words, mentions)
        first = groups[0][0].start if groups else len(words)
        if topic and _INHERITS.match(" ".join(words)):
            if _cue_after(words, of, clauses, 0, first):
                rejected |= {mention.letter for mention in topic}
        elif words:
            topic = []
        for i, group in enumerate(groups):
            end = groups[i + 1][0].start if i + 1 < len(groups) else len(words)
            if _cue_before(words, group[0].start) or _cue_after(words, of, clauses, group[-1].end, end):
                rejected |= {mention.letter for mention in group}
        topic = groups[-1] if groups else topic
    return tuple(letter for letter in options if letter in rejected and letter != chosen)


def _groups(words, mentions) -> list[list[_Mention]]:
    """Mentions joined by nothing but and, or: "X, Y and Z are unlikely" rejects three."""
    groups: list[list[_Mention]] = []
    for mention in mentions:
        between = " ".join(words[groups[-1][-1].end : mention.start]) if groups else "start"
        if groups and _COORDINATED.fullmatch(between):
            groups[-1].append(mention)
        else:
            groups.append([mention])
    return groups


def _cue_before(words, start: int) -> bool:
    return bool(_BEFORE.search(_NO_REJECTION.sub(" ", " ".join(words[max(0, start - 8) : start]))))


def _cue_after(words, of, clauses, start: int, end: int) -> bool:
    """A cue between two places, in the clause of the first or in clauses that speak on about it."""
    stop = start
    while stop < end:
        if stop > start and of[stop] != of[stop - 1] and not _speaks_on(clauses[of[stop]]):
            break
        stop += 1
    said = " ".join(words[start:stop])
    before_next = (
        _BEFORE.search(said) if stop == end < len(words) else None
    )  # governs the next option instead
    said = said[: before_next.start()] if before_next else said
    return bool(_AFTER.search(_NO_REJECTION.sub(" ", said)))


def _speaks_on(clause: str) -> bool:
    return clause.startswith(":") or bool(_INHERITS.match(clause.lstrip("; ,").replace(",", "")))


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


# ------------------------------------------------------------------------------------------------- without reasoning

# Put into the model's mouth before its answer: left to itself with an empty section, a model reasons in its conclusion.
# Both arms get these words, so that they differ in the reasoning alone.
CONCLUSION_OPENS = "the answer is"
EMPTY_REASONING = {  # style -> its tagged reasoning section with nothing in it
    "crpo": f"<dx> {INTUITIVE_MARKER} {ANALYTICAL_MARKER} </dx> <conclusion> {CONCLUSION_OPENS}",
    "grpo": f"<think> </think> <answer> {CONCLUSION_OPENS}",
}


def concluded(row: dict, question: Question, first_named: bool = True) -> dict:
    """One completion of `generate.conclude_without_reasoning` -> {id, letter, answer, reasoned_again}.

    letter: with first_named the option that the model names first after the words put into its mouth, for it may go on to
    reason in its conclusion (reasoned_again: it closes a reasoning section a second time) and to change its mind; otherwise
    its box, as everywhere else. None when there is none. A row with nothing forced is read by its box.
    """
    read = {"id": row["id"], "answer": question.answer, "reasoned_again": False}
    if not row["forced"]:
        return read | {"letter": parse_completion(row["text"], row["style"]).letter}
    written = row["text"][len(row["forced"]) :]
    closing = f"</{SECTIONS[row['style']][0]}>"
    named = (m.letter for _, _, _, mentions in _read(written, question.options) for m in mentions)
    letter = next(named, None) if first_named else None
    letter = letter or parse_completion(written, row["style"]).letter
    return read | {"letter": letter, "reasoned_again": closing in written}


def reasoning_effect(with_reasoning: Sequence[dict], without: Sequence[dict], rng: np.random.Generator):
    """What the answer owes to the reasoning: a frame with measure, value, ci_low, ci_high, n, p.

    Both: one row a question with id, letter (None is unparsed: wrong) and answer, as `concluded` gives. `changed` is the
    share of questions whose letter differs, an unparsed letter being a letter of its own; `reasoned again` the share
    of those without that reason in their conclusion instead; `gain` is accuracy with minus without (paired bootstrap;
    p is McNemar's, exact). ValueError when the questions differ or repeat.
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
        np.array([rows[key]["letter"] == rows[key]["answer"] for key in first]) for rows in (first, second)
    ]
    changed = sum(first[key]["letter"] != second[key]["letter"] for key in first)
    rows = [
        {
            "measure": name,
            "value": k / n,
            **dict(zip(("ci_low", "ci_high"), wilson_interval(k, n), strict=True)),
        }
        for name, k in (
            ("changed", changed),
            ("accuracy with reasoning", int(right[0].sum())),
            ("accuracy without", int(right[1].sum())),
            ("reasoned again", sum(bool(row.get("reasoned_again")) for row in without)),
        )
    ]
    paired = paired_bootstrap(right[0].astype(float), right[1].astype(float), rng)
    rows.append(
        {
            "measure": "gain",
            "value": paired.difference,
            "ci_low": paired.interval[0],
            "ci_high": paired.interval[1],
        }
        | {"p": mcnemar_exact(*right)}
    )
    return pd.DataFrame(rows).assign(n=n)
