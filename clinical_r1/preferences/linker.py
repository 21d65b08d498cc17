"""Free text -> claims about the names of a graph: a small linker by longest match, with word lists that stand below (ours).

A claim is read where a finding and a condition stand on the two sides of a cue ("fever and cough suggest pneumonia", "gout is
unlikely given normal uric acid"), and only there. What is asked, supposed or denied ("would", "does not support") is no claim,
and other ways of saying it are passed over: a linker that reads less and is right makes fewer pairs, one that reads wrongly
makes wrong ones. `graph.measure_linker` says how often it is right.
"""

import re
from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import NamedTuple

from clinical_r1.clinic.verdicts import AGAINST, SUPPORTS
from clinical_r1.completions import fold_option

FINDING_FIRST = {  # "<finding> supports <condition>"
    SUPPORTS: (
        "supports", "support", "favors", "favor", "favours", "favour", "suggests", "suggest", "indicates", "indicate",
        "points to", "point to", "speaks for", "speak for", "argues for", "argue for", "fits", "fit", "is typical of",
        "are typical of", "is consistent with", "are consistent with", "rules in", "rule in",
    ),
    AGAINST: (
        "argues against", "argue against", "speaks against", "speak against", "rules out", "rule out", "excludes", "exclude",
        "is against", "are against", "does not fit", "do not fit", "is inconsistent with", "are inconsistent with",
    ),
}  # fmt: skip
CONDITION_FIRST = {  # "<condition> is supported by <finding>"
    SUPPORTS: (
        "is supported by", "is suggested by", "is favored by", "is favoured by", "is likely given", "is likely because of",
        "is indicated by",
    ),
    AGAINST: (
        "is unlikely given", "is unlikely with", "is unlikely because of", "is ruled out by", "is excluded by",
        "is less likely given", "is less likely with",
    ),
}  # fmt: skip
CUES = {
    tuple(cue.split()): (sign, finding_first)
    for finding_first, cues in ((True, FINDING_FIRST), (False, CONDITION_FIRST))
    for sign, phrases in cues.items()
    for cue in phrases
}
DENIALS = frozenset(
    "no not without denies denied absent lacks never negative neither nor cannot hardly".split()
)
DENIED_BY = (("absence", "of"), ("free", "of"), ("lack", "of"))  # right before a finding, as are the denials
SUPPOSED = frozenset("if would could might may should whether were unless expect neither".split())
TURNS = frozenset(
    "but yet whereas while however although though".split()
)  # what was supposed before is not after
LISTED = frozenset(
    ", and or nor plus with as well the a an his her".split()
)  # between two findings of one list
LINKING = frozenset(
    ", and but also yet it which this".split()
)  # "... supports gout, but argues against lupus"
REFERRING = {
    (",", "which"),
    ("which",),
    (",", "and", "this"),
    ("and", "this"),
}  # between findings and the cue that is theirs
FILLERS = frozenset("strongly clearly further therefore thus".split())  # read over, in names as well
MOST_BETWEEN = 4  # words between a finding or a condition and its cue

_WORD = re.compile(r"\d+(?:[.,]\d+)*|[^\W\d_]+|[<>≤≥%+,]")
_SENTENCE = re.compile(r"[.;:!?\n]+(?=\s|$)")


class Mention(NamedTuple):
    """A name of the graph at words[start:end]. denied: said not to be there."""

    name: str
    start: int
    end: int
    denied: bool


class Said(NamedTuple):
    """One claim as it is written: finding and condition by the names of the graph, direction 1 supports, -1 argues against."""

    finding: str
    present: bool
    direction: int
    condition: str


@lru_cache(maxsize=20_000)
def words_of(text: str) -> tuple[str, ...]:
    """Words, numbers and signs of comparison, folded: case, accents, hyphens and kinds of dashes make no difference."""
    return tuple(word for word in _WORD.findall(fold_option(text).replace("-", " ")) if word not in FILLERS)


class Linker:
    """Finds names in text. names: folded words -> the name that they stand for; denied: a name -> the name of its absence, where
    the graph has one of its own ("no fever").
    """

    def __init__(self, names: Mapping[tuple[str, ...], str], denied: Mapping[str, str]):
        self.names, self.denied = dict(names), dict(denied)
        self._lengths: dict[str, list[int]] = {}
        for words in sorted({*names, *CUES}, key=len, reverse=True):
            lengths = self._lengths.setdefault(words[0], [])
            lengths += [len(words)] if len(words) not in lengths else []

    def statements(self, text: str) -> frozenset[tuple[str, bool]]:
        """(name, whether it is present) of all that a text states, questions included."""
        return frozenset(
            self._resolved(mention)
            for sentence in _sentences(text)
            for mention in self._mentions(words_of(sentence))[0]
        )

    def claims(self, text: str, findings: frozenset[str], conditions: frozenset[str]) -> tuple[Said, ...]:
        """The distinct claims of a text, in order; findings, conditions: the names that may stand on either side."""
        found = (
            said
            for sentence in _sentences(text)
            if not sentence.endswith("?")
            for said in self._claims(words_of(sentence), findings, conditions)
        )
        return tuple(dict.fromkeys(found))

    def _resolved(self, mention: Mention) -> tuple[str, bool]:
        if mention.denied and mention.name in self.denied:
            return self.denied[mention.name], True
        return mention.name, not mention.denied

    def _mentions(
        self, words: Sequence[str]
    ) -> tuple[list[Mention], list[tuple[int, int, tuple[int, bool]]]]:
        """(mentions, cues as (start, end, (sign, finding first))): each the longest that begins where it does, no two overlap."""
        mentions, cues, place = [], [], 0
        while place < len(words):
            for length in self._lengths.get(words[place], ()):
                piece, end = tuple(words[place : place + length]), place + length
                if len(piece) < length:  # the text ends before
                    continue
                if piece in self.names:
                    denied = _denied(words, place, mentions)
                    mentions.append(Mention(self.names[piece], place, end, denied))
                elif piece in CUES:
                    cues.append((place, end, CUES[piece]))
                else:
                    continue
                place = end - 1
                break
            place += 1
        return mentions, cues

    def _claims(self, words: Sequence[str], findings, conditions) -> Iterator[Said]:
        mentions, cues = self._mentions(words)
        starts, supposed = [mention.start for mention in mentions], _supposed(words, mentions)
        last: list[Mention] = []  # the findings of the cue before, for "... and argues against"
        edges = [0, *(end for _, end, _ in cues)], [*(start for start, _, _ in cues), len(words)]
        windows = [
            mentions[bisect_left(starts, floor) : bisect_left(starts, ceiling)]
            for floor, ceiling in zip(*edges, strict=True)
        ]
        for number, (start, end, (sign, finding_first)) in enumerate(cues):
            left, right = (findings, conditions) if finding_first else (conditions, findings)
            ahead, behind = windows[number], windows[number + 1]
            before = _list_before(words, [m for m in ahead if m.name in left], start)
            if before and before[-1] is not ahead[-1]:
                before = []
            after = _list_after(words, [m for m in behind if m.name in right], end)
            gap = words[ahead[-1].end if ahead else edges[0][number] : start]
            if finding_first and not before and len(gap) <= MOST_BETWEEN and set(gap) <= LINKING:
                before = last
            found, named = (before, after) if finding_first else (after, before)
            found = list({self._resolved(mention): mention for mention in found}.values())
            last = found if finding_first else []
            if not supposed(start):
                conditions_named = dict.fromkeys(m.name for m in named if not m.denied)
                yield from (Said(*self._resolved(m), sign, name) for m in found for name in conditions_named)


def _supposed(words: Sequence[str], mentions: Sequence[Mention]) -> Callable[[int], bool]:
    """(place of a cue) -> whether what stands before it, outside of names, makes of it something supposed or denied."""
    inside = {place for mention in mentions for place in range(mention.start, mention.end)}
    own = [(place, word) for place, word in enumerate(words) if place not in inside]
    turns = [place for place, word in own if word in TURNS]
    supposing = [place for place, word in own if word in SUPPOSED]
    begins = {mention.start for mention in mentions}  # what stands before one denies it, and not the cue
    denials = {place for place, word in own if word in DENIALS and place + 1 not in begins}

    def holds(start: int) -> bool:
        turn = turns[at - 1] if (at := bisect_left(turns, start)) else -1
        last = supposing[at - 1] if (at := bisect_left(supposing, start)) else -1
        return last > turn or not denials.isdisjoint((start - 2, start - 1))

    return holds


def _sentences(text: str) -> Iterator[str]:
    """Sentences with what ends them."""
    begin = 0
    for match in _SENTENCE.finditer(text):
        yield text[begin : match.end()]
        begin = match.end()
    yield text[begin:]


def _denied(words: Sequence[str], start: int, before: Sequence[Mention]) -> bool:
    """Whether the word before denies a mention, or it goes on with "or" from one that is denied."""
    if words[start - 1 : start] and (
        words[start - 1] in DENIALS or tuple(words[start - 2 : start]) in DENIED_BY
    ):
        return True
    last = before[-1] if before else None
    return (
        last is not None
        and (last.denied or words[last.start] in DENIALS)
        and tuple(words[last.end : start]) in {("or",), ("nor",), (",", "or")}
    )


def _list_before(words: Sequence[str], mentions: Sequence[Mention], start: int) -> list[Mention]:
    """The list of mentions that ends before a cue: few words between, no comma; within the list only `LISTED` between two."""
    found: list[Mention] = []
    for mention in reversed(mentions):
        between = words[mention.end : found[0].start if found else start]
        if found and not (between and set(between) <= LISTED | DENIALS):
            break
        if not found and tuple(between) not in REFERRING and (len(between) > MOST_BETWEEN or "," in between):
            break
        found.insert(0, mention)
    return found


def _list_after(words: Sequence[str], mentions: Sequence[Mention], end: int) -> list[Mention]:
    """The list of mentions that begins behind a cue."""
    found: list[Mention] = []
    for mention in mentions:
        between = words[found[-1].end if found else end : mention.start]
        if found and not (between and set(between) <= LISTED):
            break
        if not found and (len(between) > MOST_BETWEEN or "," in between):
            break
        found.append(mention)
    return found
