"""The + 0.5 of eq. 4: does a conclusion cite the vignette's evidence for the boxed answer, as the reasoning has it?

The paper names the bonus and leaves the rule open; this one is ours. In five sentences: the conclusion says findings that the
vignette states, with the vignette's polarity. System 2 says them too, and relates them to the boxed option: for it, or against
another one. All in all it speaks more for the boxed option than for any other. A sentence that the vignette holds already, or a
heap of cue words, is no reasoning. Nor is a repetition, or a copy of the reasoning, a conclusion. `rewards.CHOICES` has the
numbers, and what no such rule can see.
"""

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import accumulate, pairwise

from clinical_r1.completions import Completion, remove_box
from clinical_r1.labels import CONTRARY_WORDS, INFERENCE_WORDS, STOP_WORDS
from clinical_r1.prompts import question_stem

MIN_CITED_WORDS = 2
MIN_STATED_SHARE = 0.5
MAX_CONCLUSION_WORDS, MAX_CONCLUSION_SHARE = 60, 0.5
MAX_INFERENCE_WORDS = 60
COPIED_SHARE = 0.75
NAMED_SHARE, LONG_NAME = 0.6, 4
NEAR = 3
_LIST_ITEM = 5  # words of one item of "no fever, chills, or cough"

# What a word does in a sentence. A cue's number is the side that it takes: for the option beside it, against it, or neither.
_AGAINST, _NEITHER, _FOR, _NOT, _THAN, _ABSENT, _SEEN, _OUT, *_JOINTS = range(-1, 13)
_AND, _OR, _WHERE, _COMMA, _BREAK, _VERB = _JOINTS
_SIDED_WORDS = """
support supports supported supporting suggest suggests suggested suggesting favor favors favored favoring favour favours
favoured favouring indicate indicates indicated indicating point points pointed pointing confirm confirms confirmed consistent
compatible characteristic classic typical fit fits hallmark likely explain explains explained explaining cause caused causes
due best correct true possible effective needed treatment diagnosis choice urgent helpful useful appropriate necessary
recommended required
"""
_NOT_WORDS = """
no not without denies denied deny denying denial never nor neither lack lacks lacking absence cannot nothing none less hardly
free devoid negative
"""
_KINDS: dict[str, int] = {
    **dict.fromkeys((*INFERENCE_WORDS, "so", "should", "must", "prevents"), _NEITHER),
    **dict.fromkeys((*CONTRARY_WORDS, "unlike", "wrong", "incorrect", "exception", "instead"), _AGAINST),
    **dict.fromkeys(_SIDED_WORDS.split(), _FOR),
    **dict.fromkeys(_NOT_WORDS.split(), _NOT),
    **dict.fromkeys("seen found noted observed detected evident reported described identified present".split(), _SEEN),
    **dict.fromkeys("but although however whereas while except".split(), _BREAK),
    **dict.fromkeys("has have had is are was were reports".split(), _VERB),
    **dict.fromkeys("in on at during after before within under".split(), _WHERE),
    **dict.fromkeys(("ruled", "excluded"), _OUT),
    "rather": _NEITHER, "absent": _ABSENT, "than": _THAN, "over": _THAN, ",": _COMMA, "and": _AND, "or": _OR,
}  # fmt: skip
_NEEDS_NEXT = {"free": "of", "devoid": "of", "negative": "for"}  # a negation only before this word
_LISTS = frozenset("denies denied deny denying neither".split())  # "denies fever, chills, and cough"
_BE = frozenset("is are was were be been".split())
_GOES_ON = frozenset("this these it its they thus therefore so hence consequently".split())
_LITTLE = frozenset(("", "a", "an", "as", "be", "by", "of", "the", "to"))
_SUPPOSES = frozenset("would could might may".split())
_EXCEPTION = re.compile(
    r"\b(which|what|following|all)\b.*\b(except|not|least|false|incorrect|untrue)\b", re.IGNORECASE
)

# ------------------------------------------------------------------------------------------------ the rule


def cross_references(completion: Completion, options: Mapping[str, str], prompt: str | None = None) -> bool:
    """Whether the conclusion cites evidence for the boxed option, by the rule in `rewards.CHOICES`. Linear in the length.

    options: letter -> text. prompt: what was asked, with or without our instructions; None leaves out what needs the vignette.
    `audit.redteam` holds the attacks that shaped it.
    """
    if not completion.analytical or not completion.conclusion or completion.letter not in options:
        return False
    question = _question(prompt, tuple(options.items()))
    cited = _cited(completion, question)
    if len(cited) < MIN_CITED_WORDS:
        return False
    return _reasons(completion.analytical, completion.letter, cited, question)


def _cited(completion: Completion, question: "_Question") -> frozenset[str]:
    """The words that the conclusion says and the vignette states; none if it breaks a rule of its own."""
    sentences = _sentences(remove_box(completion.conclusion))
    length = sum(map(len, sentences))
    if length > MAX_CONCLUSION_WORDS and length > MAX_CONCLUSION_SHARE * len(completion.dx.split()):
        return frozenset()
    kinds = {**_contents(sentences), **question.kinds}
    read = [_read(words, kinds) for words in sentences]
    said = [word for sentence in read for word in sentence.said]
    different = frozenset(said)
    if 2 * len(different) <= len(said) or not question.may_conclude(read, completion.letter):
        return frozenset()
    if question.stated is None:
        return different
    stated = different & question.stated
    share = len(stated) / len(different) if different else 0.0
    if share < MIN_STATED_SHARE or _reverses(different, question.stated):
        return frozenset()
    return stated if all(map(question.holds_together, read)) else frozenset()


def _reasons(analysis: str, boxed: str, cited: frozenset[str], question: "_Question") -> bool:
    """Whether System 2 relates the cited words to the boxed option, and speaks more for it than for any other."""
    content = _forms(word.removeprefix("no_") for word in cited)
    kinds, relevant = {**content, **question.kinds}, question.names.union(content)
    votes, related, said = dict.fromkeys(question.options, 0), set(), set()
    for words in _passages(analysis):
        if relevant.isdisjoint(words):
            continue
        sentence = _read(words, kinds)
        if not sentence.infers() or question.copied(words, sides := question.sides(sentence)):
            continue
        if not _SUPPOSES.isdisjoint(words):  # "gout would show crystals" speaks for the boxed option at most
            sides = {letter: side for letter, side in sides.items() if side < 0 or letter == boxed}
        for letter, side in sides.items():
            votes[letter] += side
        own = sides.pop(boxed, 0)
        if own < 0 or max(sides.values(), default=0) > 0 or len(words) > MAX_INFERENCE_WORDS:
            continue
        if sentence.said and question.holds_together(sentence):
            said.update(sentence.said)
            if own or sides:
                related.update(sentence.said)
    lead, related = votes.pop(boxed), related & cited
    decided = lead > max(votes.values(), default=-1) and not all(word[-1].isdigit() for word in related)
    return decided and len(cited & said) >= MIN_CITED_WORDS and not _reverses(cited, said)


def _reverses(words: Iterable[str], said: Iterable[str]) -> bool:
    """Whether one of the words is said in its opposite alone."""
    return any(
        (word[3:] if word[:3] == "no_" else f"no_{word}") in said for word in words if word not in said
    )


# ------------------------------------------------------------------------------------------- one sentence


def _read(words: list[str], kinds: Mapping[str, object]) -> "_Sentence":
    sentence = _Sentence(words)
    for i, kind in enumerate(map(kinds.get, words)):
        if kind is None:
            continue
        if kind.__class__ is str:
            sentence.say(kind, i)
        elif kind.__class__ is tuple:
            if len(words[i]) > 1 and sentence.just_denied(i):  # "not gout"
                sentence.cues.append((sentence.clause, i, _AGAINST))
                sentence.denied = False
            sentence.named.append((i, sentence.clause, kind))
        elif kind <= _FOR:
            turned = sentence.just_denied(i)  # "does not cause"
            sentence.cues.append((sentence.clause, i, -kind if turned else kind))
            sentence.denied, sentence.run, sentence.unsure = turned and not kind, None, False
        elif kind == _THAN:
            side = next((-side for *_, side in reversed(sentence.cues) if side), _NEITHER)
            sentence.cues.append((sentence.clause, i, side))
        elif kind == _NOT:
            sentence.deny(i)
        elif kind >= _AND:
            sentence.join(kind, i)
        elif not sentence.deny_before(kind, i):
            sentence.cues.append((sentence.clause, i, _AGAINST))
    return sentence


class _Sentence:
    """What a sentence says, and how far its negations reach: up to a comma, 'and', verb, place or cue; through a list up to its
    'or'; backwards from 'is absent', 'was not seen' and 'was ruled out'.

    said: content words ("no_fever" where denied), places: theirs; named: (place, clause, (word, letters)) of the options' words;
    cues: (clause, place, side).
    """

    __slots__ = tuple(
        "begins clause cues denied doubted edge last lists named places run said unsure verb words".split()
    )

    def __init__(self, words: list[str]):
        self.words, self.said, self.places, self.named, self.cues = words, [], [], [], []
        self.denied = self.lists = self.unsure = self.verb = False
        self.clause = self.begins = self.edge = 0
        self.doubted: list[str] = []  # "denies fever and chills": are there chills?
        self.last, self.run = -9, None  # the last negation; where a denied list begins in `said`

    def infers(self) -> bool:
        """It relates things: some cues, not a heap of them, and nothing supposed."""
        return 0 < len(self.cues) <= max(3, len(self.words) // 5) and "if" not in self.words

    def say(self, root: str, i: int) -> None:
        if not (self.words[i].isdigit() and "old" in self.words[i + 1 : i + 3]):  # an age is no finding
            self.doubted += [root] if self.unsure else []
            self.said.append(f"no_{root}" if self.denied else root)
            self.places.append(i)

    def just_denied(self, i: int) -> bool:
        """Nothing of weight stands between the last negation and word i."""
        near = i - self.last < 5
        return near and all(len(word) < 4 or word in STOP_WORDS for word in self.words[self.last + 1 : i])

    def deny(self, i: int) -> None:
        word, following = self.words[i], self.words[i + 1] if i + 1 < len(self.words) else ""
        if following != "only" and _NEEDS_NEXT.get(word, following) == following:
            self.denied = not (self.denied and self.just_denied(i))
            self.last, self.edge, self.run = i, i, len(self.said)
            self.lists, self.unsure = word in _LISTS, False

    def deny_before(self, kind: int, i: int) -> bool:
        """'absent', 'seen' or 'ruled', of what stands before; False if it is said of an option."""
        if (
            self.just_denied(i)
            if kind == _SEEN
            else self.words[i - 1] in _BE and len(self.said) > self.begins
        ):
            self.turn(self.begins)
            self.denied, self.begins = False, len(self.said)
        elif kind == _ABSENT:
            self.denied = True
        else:
            return kind == _SEEN
        return True

    def join(self, kind: int, i: int) -> None:
        said, short = len(self.said), i - self.edge <= _LIST_ITEM
        if kind == _VERB and self.just_denied(i):  # "does not have"
            return
        if kind == _WHERE:  # "no crystals in the fluid": there is fluid
            self.denied = False
        elif kind in (_AND, _OR):
            self.unsure = kind == _AND and self.denied
            listed = kind == _OR or (self.lists and self.words[i - 1] == ",")
            self.denied = listed and short and self.run is not None and said - self.run < MAX_INFERENCE_WORDS
            if self.denied:
                self.turn(self.run)
            self.begins, self.verb = said if self.verb else self.begins, False
        else:
            self.denied = self.unsure = False
            self.run = self.run if kind == _COMMA and short else None
            self.edge, self.verb = i, kind == _VERB
            if kind != _VERB:
                self.clause, self.begins = self.clause + 1, said

    def turn(self, since: int) -> None:
        self.said[since:] = [word if word[:3] == "no_" else f"no_{word}" for word in self.said[since:]]


# ------------------------------------------------------------------------------------------- one question


@dataclass(frozen=True, slots=True)
class _Question:
    """What the rule has to know of a question."""

    options: Mapping[str, frozenset[str]]  # letter -> the words that name it
    spans: Mapping[str, int]  # letter -> within how many words they stand
    names: frozenset[str]  # those words in all forms, and "option b"
    kinds: Mapping[str, object]  # word -> what it does: _KINDS, and (word, letters) for the options' words
    exception: bool  # it asks for the exception: for and against change places
    stated: frozenset[str] | None  # "fever", "no_chill"; None: not known
    near: Mapping[str, list[int]]  # word without its sign -> places
    told: tuple[
        tuple[frozenset[str], frozenset[str]], ...
    ] = ()  # of each sentence the words, and the letters of options named

    def sides(self, sentence: _Sentence) -> dict[str, int]:
        """Letter -> 1 if the sentence speaks for a named option, -1 if against: the side of the cue nearest to its name."""
        found, last = {}, {}
        for place, clause, (word, letters) in sentence.named:
            for letter in letters:
                seen, own = last.setdefault(letter, {}), self.options[letter]
                seen[word] = place
                near = {other for other, there in seen.items() if place - there <= self.spans[letter]}
                if word == _LETTER or len(near & own) >= NAMED_SHARE * len(own):
                    first = min(seen[other] for other in near)
                    found[letter] = near, len(near) / self.spans[letter], (clause, first, place)
        sides = {}
        for letter, (near, share, where) in found.items():  # "hepatitis A" does not name "hepatitis"
            if not any(near < other or (near == other and share < more) for other, more, _ in found.values()):
                sides[letter] = self.side(sentence, *where)
        return sides

    def side(self, sentence: _Sentence, clause: int, first: int, last: int) -> int:
        """That of the nearest cue, in the same clause if there is one; for where no cue takes a side."""
        sided = [(at != clause, max(first - i, i - last), side) for at, i, side in sentence.cues if side]
        side = (min(sided) if len(sided) > 1 else sided[0])[2] if sided else _FOR
        return -side if self.exception else side

    def may_conclude(self, read: list[_Sentence], boxed: str) -> bool:
        """The conclusion speaks for no other option, and does not name them all."""
        votes = Counter(dict.fromkeys(self.options, 0))
        sides = [self.sides(sentence) for sentence in read]
        for each in sides:
            votes.update(each)
        if len(set().union(*sides)) == len(self.options):
            return False
        lead = votes.pop(boxed)
        return self.exception or max(votes.values(), default=0) < max(1, lead)

    def copied(self, words: list[str], letters: Iterable[str]) -> bool:
        """The vignette has a sentence with nearly all of these words that names the same options, if any."""
        said = frozenset(words)
        return any(
            named.issuperset(letters) and len(said & own) >= COPIED_SHARE * len(said)
            for own, named in self.told
        )

    def holds_together(self, sentence: _Sentence) -> bool:
        """Words said side by side stand near each other in the vignette too."""
        for (word, place), (after, there) in pairwise(zip(sentence.said, sentence.places, strict=True)):
            if there == place + 1:
                mine, other = (self.near.get(each.removeprefix("no_"), ()) for each in (word, after))
                if min((abs(a - b) for a in mine for b in other), default=0) > NEAR:
                    return False
        return True


@lru_cache(maxsize=256)
def _question(prompt: str | None, options: tuple[tuple[str, str], ...]) -> _Question:
    stem = "" if prompt is None else question_stem(prompt, options)
    parts = [part for part in stem.replace("? ", "?\n").replace(". ", ".\n").splitlines() if part.strip()]
    told = _sentences("\n".join([part for part in parts if not part.rstrip().endswith("?")] or parts))
    content = _contents(told)
    texts = {
        letter: [word.strip(".,") for part in _sentences(text) for word in part] for letter, text in options
    }
    own, words = _names(texts, frozenset(content.values()))
    stated, near, offset = set(), {}, 0
    for part in told:
        read = _read(part, {**content, **_KINDS, **words})
        stated.update(set(read.said).difference(read.doubted))
        stated.update(f"no_{word}" for word in read.doubted if read.lists)
        commas = list(accumulate(word == "," for word in part))
        for word, place in zip(read.said, read.places, strict=True):
            places = near.setdefault(word.removeprefix("no_"), [])
            if len(places) < MAX_INFERENCE_WORDS:  # so that time stays linear
                places.append(offset + place - commas[place])
        offset += len(part) + 1
    question = _Question(
        options=own,
        spans={letter: len(text) + 1 for letter, text in texts.items()},
        names=frozenset(words),
        kinds={**_KINDS, **words},
        exception=bool(parts) and bool(_EXCEPTION.search(parts[-1])),
        stated=None if prompt is None else frozenset(stated),
        near=near,
    )
    named = (frozenset(question.sides(_read(part, question.kinds))) for part in told)
    return replace(question, told=tuple(zip(map(frozenset, told), named, strict=True)))


def _names(texts: Mapping[str, list[str]], told: frozenset[str]) -> tuple[dict, dict]:
    """(letter -> the words that name it, any word of the options -> (root, the letters that it names))."""
    names, own = {}, {}
    for letter, text in texts.items():
        short = {word for word in text if len(word) < 3 and word not in _KINDS and word not in _LITTLE}
        short |= {"a"}.intersection(text[-1:])  # hepatitis A
        plain = {word for word in text if word not in _LITTLE and _KINDS.get(word, _FOR) <= _FOR}
        names[letter] = frozenset(map(_root, filter(_content, text))) | short or frozenset(plain)
    counts = Counter(word for name in names.values() for word in name)
    for letter, name in names.items():
        only = frozenset(word for word in name if counts[word] == 1)
        told_apart = 3 * len(only) >= len(name) and any(len(word) > 1 or word.isdigit() for word in only)
        best = only if told_apart else name
        own[letter] = best - told or best if len(best) > LONG_NAME else best
    spoken = {word for text in texts.values() for word in text if _KINDS.get(word, _NOT) <= _FOR}
    words = {word: (word, ()) for word in spoken}  # an option's own words are no cues
    words |= {
        form: (root, tuple(x for x in names if root in names[x])) for form, root in _forms(counts).items()
    }
    words |= {f"{word}{_LETTER}{x.lower()}": (_LETTER, (x,)) for x in own for word in ("option", "choice")}
    return own, words


# ------------------------------------------------------------------------------------------------ words
_STOP, _LETTER = "\x02", "\x03"
_ENDS = {ord(end): ord(_STOP) for end in "\n;?!"}
_SEPARATE = bytes(
    _ENDS.get(c, c if c > 127 or chr(c).isalnum() or chr(c) in f".,{_STOP}{_LETTER}" else 32)
    for c in range(256)
)
_SPACES = "\u00b0\u2010\u2011\u2012\u2013\u2014\u2018\u201c\u201d\u2026\u2022\u00a0\u202f"
_UNSEEN = "\u200b\u200c\u200d\u2060\ufeff\u00ad"
_MARKS = str.maketrans({"\u2019": "'", **dict.fromkeys(_SPACES, " "), **dict.fromkeys(_UNSEEN)})
_ENDINGS = ("ings", "ing", "ed", "es", "s", "e")


def _sentences(text: str) -> list[list[str]]:
    """The lower-case words of each sentence; a comma, "38.9", "60,000" and "option b" are one word each. Bytes make this several
    times faster than a pattern."""
    text = f"{text if text.isascii() else text.translate(_MARKS)} ".lower().replace("n't", " not")
    for word in ("option", "choice"):
        text = text.replace(f"{word} ", f"{word}{_LETTER}")
    text = text.replace("..", ". ").replace(". ", _STOP).replace(", ", " , ")
    raw = text.encode("utf-8", "surrogatepass").translate(_SEPARATE).decode("utf-8", "surrogatepass")
    return [words for part in raw.split(_STOP) if (words := part.split())]


def _passages(text: str) -> list[list[str]]:
    """Sentences, one said twice once; one that goes on about the one before ("This makes ...", "Hence ...") is part of it."""
    passages: list[list[str]] = []
    for words in dict.fromkeys(map(tuple, _sentences(text))):
        if words[0] in _GOES_ON and passages and len(passages[-1]) + len(words) < MAX_INFERENCE_WORDS:
            passages[-1] = [*passages[-1], ",", *words]
        else:
            passages.append(list(words))
    return passages


def _root(word: str) -> str:
    """A word without its inflection, crudely: crystals is crystal, radiating and radiates are one."""
    for ending in _ENDINGS:
        if word.endswith(ending) and len(word) - len(ending) > 3 and not word.endswith(("ss", "us", "is")):
            return word.removesuffix(ending)
    return word


def _forms(roots: Iterable[str]) -> dict[str, str]:
    """A word in any of its forms -> its root."""
    return {root + ending: root for root in roots for ending in ("", *_ENDINGS)}


def _contents(sentences: list[list[str]]) -> dict[str, str]:
    """Word -> root, of those words that can be cited."""
    return {word: root for words in sentences for word in words if (root := _content(word))}


@lru_cache(maxsize=65_536)
def _content(word: str) -> str:
    """The root of a word, or "" if it cites nothing."""
    word = word.strip(".,")
    if word in STOP_WORDS or word in _KINDS or not (len(word) > 2 or word.isdigit()):
        return ""
    return _root(word)
