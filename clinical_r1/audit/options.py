"""Which options a free text names, and which of them it rejects: probes for models whose claims no grammar reads."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

from clinical_r1.audit.findings import STOP, split_sentences, word_root
from clinical_r1.curation.checks import pointing_options
from clinical_r1.curation.folding import stem_tokens

MENTIONED = 0.6  # weighted share of an option's words in one sentence; set beforehand, never swept
SHARED_WEIGHT = 0.25  # of an option's word that another option has too

# A letter that stands for an option is replaced by this word, so that its full stop ends no sentence.
_LIST = r"[A-J](?:(?:,? ?(?:and|or|&) |, ?|/)[A-J])*"
_LETTER_REFERENCE = re.compile(
    rf"\b[Oo]ptions? \(?({_LIST})\b\)?|\b[Cc]hoices? \(?({_LIST})\b\)?|\(({_LIST})\)"
    r"|(?:^|(?<=[.:?!;\n] ))([A-J])[.):](?=\s)|(?<=\bis )([A-J])[.:](?=\s)|\n([A-J])[.):](?=\s)"
)
_CONNECTOR = re.compile(
    r"([;:]|\b(?:but|however|although|though|while|whereas|because|since|which|so|therefore|given|if|unless)\b)"
)

_SO = r"(?:so|therefore|thus|hence|consequently|as a result)"
# "this is not an emergency" is about the case, "this is not the answer" about the option
_FITS = (
    r"(?:\w+ ){0,3}?(?:answer|option|choice|cause|diagnosis|treatment|therapy|drug|feature|factor|reason|target|test|correct|"
    r"right|best|first|ideal|likely|appropriate|suitable|indicated|recommended|effective|consistent|applicable|associated|related|"
    r"responsible|useful|helpful|used|needed|required|involved|affected|valid|true|typical|characteristic|advantageous|preferred)\b"
)

# A clause without an option of its own speaks of the one before when it opens with a pronoun or with its verb.
_INHERITS = re.compile(
    rf"(?:{_SO}\s+(?=it|they|these|those|that|this)"
    r"|(?:but|however|although|though|which|also|and|in this case|in this patient)\s*)?"
    r"(?:in this case )?"
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
_OF_THE_CASE = re.compile(
    rf"\b(?:{_SO} (?:it|they|these|those|this|that)(?: \w+)?? (?:is|s|are|was|were) not\b|this is not an?\b)(?! {_FITS})"
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
    return tuple(map(word_root, stem_tokens(text)))


def _content(words) -> set[str]:
    return {word for word in words if word not in STOP}


def _mentions(words: Sequence[str], options: Mapping[str, str]) -> list[_Mention]:
    """Where the words of a sentence name an option: by letter, word for word (longest option first), or in most words."""
    roots = [word_root(word) for word in words]
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


def read_mentions(text: str, options: Mapping[str, str]):
    """[(words, index of the clause of each word, clauses' words, mentions)] per sentence."""
    read = []
    for sentence in split_sentences(_mark_letters(text)):
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
    named = {mention.letter for _, _, _, mentions in read_mentions(text, options) for mention in mentions}
    return tuple(letter for letter in options if letter in named)


def rejected_options(text: str, options: Mapping[str, str], chosen: str | None = None) -> tuple[str, ...]:
    """Letters of the options that the text argues away, in the order of the options; never `chosen`, the conclusion's.

    An option is rejected when a cue of rejection governs it: right before it ("argues against X", "rather than X"), or
    after it in its clause or in a clause that speaks on about it ("X is …, but it does not …", "So this is not the answer"),
    or when none of the options is said to fit. "So this is not an emergency" is about the case. Reads explicit words only:
    "X usually presents with …" rejects nothing. Blind to questions that ask for the exception, where "is true" rejects.
    """
    options = _readable(options)
    rejected, named, topic = set(), set(), []
    for words, of, clauses, mentions in read_mentions(text, options):
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
    return bool(_AFTER.search(_OF_THE_CASE.sub(" ", _NO_REJECTION.sub(" ", said))))


def _speaks_on(clause: str) -> bool:
    return clause.startswith(":") or bool(_INHERITS.match(clause.lstrip("; ,").replace(",", "")))
