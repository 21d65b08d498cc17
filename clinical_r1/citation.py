"""The + 0.5 of eq. 4: does a conclusion cite the vignette's evidence for the boxed answer, as the reasoning has it?

The paper names the bonus and leaves the rule open; this one is ours. In five sentences: the conclusion says findings that the
vignette states, with the vignette's polarity. System 2 says them too, in sentences that infer, and relates at least one to the
boxed option: for it, or against another. All its inferences together speak more for the boxed option than for any other. A
sentence that repeats most of one of the vignette's, or heaps up cue words, infers nothing. A conclusion that repeats itself,
copies the reasoning or names all options cites nothing. `rewards.CHOICES` has the numbers, and what no such rule can see.
"""

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

from clinical_r1.completions import Completion, remove_box
from clinical_r1.labels import CONTRARY_WORDS, FRAME_WORDS, INFERENCE_WORDS, STOP_WORDS
from clinical_r1.prompts import question_stem

MIN_CITED_WORDS = 2
MIN_STATED_SHARE = 0.4
MAX_CONCLUSION_WORDS, MAX_CONCLUSION_SHARE = 60, 0.5
MAX_INFERENCE_WORDS = 60
COPIED_SHARE, COPIED_WORDS = 0.75, 9
NAMED_SHARE = 0.6
NEAR = 3  # words said side by side stand so near each other in the vignette
NEAR_CITED = 5  # and a third of what is cited so near something else that is cited
_REACH, _LIST = 3, 15  # words from a negation to a cue that it turns; to the end of a denied list

# What a word does in a sentence. A cue is the side that it takes for the option beside it: for, against, or neither.
_AGAINST, _NEITHER, _FOR, _COMMA, _END, _AND, _OR, _THAN, _NOT, _NONE_OF, _ABSENT, _SEEN, _MAY, _IF = range(
    -1, 13
)
_SIDED = """
support supports supported supporting suggest suggests suggested suggesting favor favors favored favoring favour favours
favoured favouring indicate indicates indicated indicating point points pointed pointing confirm confirms confirmed consistent
compatible characteristic classic typical fit fits hallmark likely explain explains explained explaining cause caused causes
due best correct true possible effective needed treatment diagnosis choice urgent helpful useful appropriate necessary
recommended required
"""
_KINDS: dict[str, int] = {
    **dict.fromkeys((*INFERENCE_WORDS, "so", "should", "must", "prevents", "hallmarks"), _NEITHER),
    **dict.fromkeys((*CONTRARY_WORDS, "unlike", "wrong", "incorrect", "exception", "instead"), _AGAINST),
    **dict.fromkeys(_SIDED.split(), _FOR),
    **dict.fromkeys("no not without nor none nothing less lack lacks lacking absence cannot never".split(), _NOT),
    **dict.fromkeys("hardly free negative fail fails failed false untrue nonsense".split(), _NOT),
    **dict.fromkeys("denies denied deny denying neither".split(), _NONE_OF),
    **dict.fromkeys("seen found noted observed detected evident reported identified present".split(), _SEEN),
    **dict.fromkeys("but although however whereas while except in on at during after before with".split(), _END),
    **dict.fromkeys(("absent", "missing", "ruled", "excluded"), _ABSENT),
    **dict.fromkeys(("would", "could", "might", "may"), _MAY),
    "if": _IF, "\x05": _IF,
    "rather": _NEITHER,
    "than": _THAN, "over": _THAN, ",": _COMMA, "and": _AND, "or": _OR,
}  # fmt: skip
_NEEDS_NEXT = {"free": "of", "negative": "for"}  # a negation only before this word
_NEEDS_NEXT |= {
    "fail": "to",
    "fails": "to",
    "failed": "to",
    "false": "that",
    "untrue": "that",
    "nonsense": "that",
}
_BE = frozenset("is are was were be been".split())
_GOES_ON = frozenset("this these both it they thus therefore so hence consequently".split())
_LITTLE = frozenset(("", "a", "an", "as", "be", "by", "of", "the", "to"))
_EXCEPTION = re.compile(
    r"\b(which|what|following|all)\b.*\b(except|not|least|false|incorrect|untrue)\b", re.IGNORECASE
)
_AGE = re.compile(r"\b\d+[ -](?:years?|months?|weeks?|days?)[ -]old\b")

# ---------------------------------------------------------------------------------------------------------------- the rule


def cross_references(completion: Completion, options: Mapping[str, str], prompt: str | None = None) -> bool:
    """Whether the conclusion cites evidence for the boxed option, by the rule in `rewards.CHOICES`. Linear in the length.

    options: letter -> text. prompt: what was asked, with or without our instructions; None leaves out what needs the vignette.
    `audit.redteam` holds the attacks that shaped it.
    """
    if not completion.analytical or not completion.conclusion or completion.letter not in options:
        return False
    question = _question(prompt, tuple(options.items()))
    cited, concluded = _cited(completion, question)
    return _enough(cited) and _reasons(completion, cited, concluded, question)


def _cited(completion: Completion, question: "_Question") -> tuple[frozenset[str], bool]:
    """The findings that the conclusion says and the vignette states, none if it breaks a rule of its own; whether it speaks for
    the boxed option by its name."""
    sentences = _sentences(_AGE.sub(" ", remove_box(completion.conclusion)), question.joined)
    length = sum(map(len, sentences))
    if length > MAX_CONCLUSION_WORDS and length > MAX_CONCLUSION_SHARE * len(completion.dx.split()):
        return frozenset(), False
    kinds, said, votes, naming = question.kinds_with(_contents(sentences)), [], Counter(), set()
    for words in sentences:
        found, cues, named, _ = _read(words, kinds)
        sides = question.sides(named, cues) if named else {}
        naming.update(sides)
        votes.update(sides)
        said += [word for word, _ in found]
        if not question.holds_together(found):
            return frozenset(), False
    boxed = votes.pop(completion.letter, 0)
    contrary = not question.exception and max(votes.values(), default=0) >= max(1, boxed)
    different = frozenset(said)
    if 2 * len(different) <= len(said) or len(naming) == len(question.names) or contrary:
        return frozenset(), False
    if question.stated is None:
        return different, boxed > 0
    stated = different & question.stated
    enough = (
        different and len(stated) >= MIN_STATED_SHARE * len(different) and question.from_one_place(stated)
    )
    return (stated if enough and not _reverses(different, question.stated) else frozenset()), boxed > 0


def _reasons(completion: Completion, cited: frozenset[str], concluded: bool, question: "_Question") -> bool:
    """Whether System 2 relates the cited findings to the boxed option, and speaks more for it than for any other.

    concluded: the conclusion names the boxed option, so that reasoning which names none ("a whoop points to pertussis") will do.
    """
    kinds, relevant = question.kinds_of_content, question.relevant
    if not question.content:
        roots = _forms(word.removeprefix("no_") for word in cited)
        kinds, relevant = question.kinds_with(roots), question.naming.union(roots)
    votes, said, related, shared = dict.fromkeys(question.names, 0), set(), set(), set()
    for words in _passages(completion.analytical, question.joined):
        if relevant.isdisjoint(words):
            continue
        found, cues, named, mood = _read(words, kinds)
        if mood == _IF or len(cues) > 3 and len(cues) > len(words) // 5:
            continue
        sides = question.sides(named, cues) if named else {}
        if not (sides or found) or question.copied(words):
            continue
        findings = [word for word, _ in found]
        unnamed = concluded and not sides and len(frozenset(words) - question.words) > 2  # words of its own
        if mood:
            sides = {x: side for x, side in sides.items() if side < 0 or x == completion.letter}
        if cues and sides:
            # "gout shows crystals" speaks for gout if the vignette does
            plain = found or any(side for _, side in cues)
            for letter, side in sides.items():
                votes[letter] += side if side < 0 or plain else 0
        boxed = sides.pop(completion.letter, 0)
        if sides and max(sides.values()) > 0:
            shared.update(findings)
        elif boxed >= 0 and len(words) <= MAX_INFERENCE_WORDS:
            said.update(findings)
            if cues and (boxed or sides or unnamed):
                related.update(findings)
    lead, best = votes.pop(completion.letter), max(votes.values(), default=-1)
    related = (related & cited) - shared
    decided = lead > best or (concluded and lead == best == 0 and not question.exception)
    specific = not all(word[-1].isdigit() for word in related)
    return decided and specific and _enough(cited & said) and not _reverses(cited, said)


def _enough(words: frozenset[str]) -> bool:
    """Enough to cite; a temperature counts with its number only."""
    own = [word for word in words if word.removeprefix("no_") not in FRAME_WORDS]
    return len(own) + any(word[-1].isdigit() for word in own) * (len(own) < len(words)) >= MIN_CITED_WORDS


def _reverses(words: Iterable[str], said: Iterable[str]) -> bool:
    """Whether one of the words is said in its opposite alone."""
    return any(word not in said and _opposite(word) in said for word in words)


def _deny(found: list[tuple[str, int]], since: int) -> None:
    """Turn what was found since then into its denial."""
    found[since:] = [(word if word[:3] == "no_" else _opposite(word), at) for word, at in found[since:]]


def _opposite(word: str) -> str:
    """A number has none: "has not eaten for 36 hours"."""
    return word if word[-1].isdigit() else word[3:] if word[:3] == "no_" else f"no_{word}"


def _read(words: list[str], kinds: Mapping[str, object]) -> tuple[list, list, dict, int]:
    """One sentence: findings (word, place), "no_fever" where denied; cues (place, side); letter -> {word that names it: place};
    _MAY or _IF where it supposes, else 0. A negation reaches up to a comma, 'and', 'but', a place or a cue; through a list up to
    its 'or'; back from 'is absent', 'was not seen', 'was ruled out'."""
    found, cues, named, mood = [], [], {}, 0
    denied, lists, last, clause, run = False, False, -9, 0, None  # clause, run: where in `found` these begin
    for i, kind in [(i, kind) for i, kind in enumerate(map(kinds.get, words)) if kind is not None]:
        if kind.__class__ is str:
            found.append((_opposite(kind) if denied else kind, i))
        elif kind.__class__ is tuple:
            if i - last < _REACH:  # "not gout"
                cues.append((i, _AGAINST))
            for letter in kind[1]:
                named.setdefault(letter, {}).setdefault(kind[0], i)
        elif kind <= _FOR:
            turned = i - last <= _REACH and (not found or found[-1][1] < last)  # "does not cause"
            cues.append((i, -kind if turned else kind))
            denied, run, clause = turned and not kind, None, len(found)
        elif kind <= _AND and not (lists and kind == _AND):  # "no crystals in the fluid": there is fluid
            clause = clause if kind == _AND else len(found)
            denied, run = False, run if kind == _COMMA else None
        elif kind <= _OR:  # "no fever, chills, or cough"
            if run is not None and i - last <= _LIST:
                _deny(found, run)
                denied = True
        elif kind == _THAN:
            cues.append((i, next((-side for _, side in reversed(cues) if side), _NEITHER)))
        elif kind <= _NONE_OF:
            following = words[i + 1] if i + 1 < len(words) else ""
            if following != "only" and _NEEDS_NEXT.get(words[i], following) == following:
                denied = words[i] == "nor" or not (denied and i - last < _REACH)  # "not without"
                last, run, lists = i, len(found), kind == _NONE_OF
                mood = _IF if _NEEDS_NEXT.get(words[i]) == "that" else mood  # "it is false that ..."
        elif kind >= _MAY:
            mood = max(mood, kind)
        elif kind == _SEEN or (kind == _ABSENT and words[i - 1] in _BE):
            if kind == _ABSENT or i - last <= _REACH:  # "was not seen"
                _deny(found, clause)
                denied = False
        elif words[i] in ("absent", "missing"):
            denied = True
        else:  # "ruled out gout"
            cues.append((i, _AGAINST))
    return found, cues, named, mood


# ------------------------------------------------------------------------------------------------------------ one question


@dataclass(frozen=True, slots=True)
class _Question:
    """What the rule has to know of a question."""

    names: Mapping[str, frozenset[str]]  # letter -> the words that name it
    enough: Mapping[str, float]  # letter -> how many of them name it
    within: Mapping[str, frozenset[str]]  # letter -> the options that hold all its words, if any
    naming: frozenset[str]  # those words in all forms, and "option b"
    kinds: Mapping[
        str, object
    ]  # word -> what it does: _KINDS; (word, letters) for what names an option; None for its other words
    joined: tuple[str, ...]  # "hepatitis a" is one word
    exception: bool  # it asks for the exception: for and against change places
    stated: frozenset[str] | None  # "fever", "no_chill"; None: not known
    stands: frozenset[str]  # words of the vignette, without a sign
    near: frozenset[tuple[str, str]]  # those that stand near each other
    around: Mapping[str, frozenset[str]]  # word -> those that stand less near
    words: frozenset[str]  # all that the vignette says
    content: Mapping[str, str]  # what can be cited of it, in any form -> its root
    told: tuple[tuple[float, frozenset[str]], ...]  # its longer sentences: how many words copy it, its words
    kinds_of_content: Mapping[str, object]  # `kinds_with` what can be cited
    relevant: frozenset[str]  # a sentence without one of these says nothing of options or vignette

    def kinds_with(self, roots: Mapping[str, str]) -> dict[str, object]:
        """What every word does when these can be cited; an option's own words cannot."""
        return {**roots, **self.kinds}

    def sides(self, named: Mapping[str, dict[str, int]], cues: list[tuple[int, int]]) -> dict[str, int]:
        """Letter -> 1 if a sentence speaks for a named option, -1 if against: the side of the sided cue nearest to its name."""
        sided, sides = [cue for cue in cues if cue[1]], {}
        for letter, words in named.items():
            if len(words) >= self.enough[letter] or _LETTER in words:
                side = _FOR
                if len(sided) == 1:
                    side = sided[0][1]
                elif sided:
                    place = min(words.values())
                    side = min([(abs(at - place), side) for at, side in sided])[1]
                sides[letter] = -side if self.exception else side
        if self.within and len(sides) > 1:
            for letter in self.within.keys() & sides.keys():
                # "septic arthritis" does not name "arthritis"
                if not sides.keys().isdisjoint(self.within[letter]):
                    del sides[letter]
        return sides

    def copied(self, words: list[str]) -> bool:
        """Most words of one of the vignette's longer sentences."""
        length = len(words)
        for most, own in self.told:
            if length >= most and len(own.intersection(words)) >= most:
                return True
        return False

    def holds_together(self, found: list[tuple[str, int]]) -> bool:
        """Words said side by side stand near each other in the vignette too, if it has them."""
        for (word, at), (after, there) in pairwise(found):
            pair = word.removeprefix("no_"), after.removeprefix("no_")
            if there == at + 1 and pair not in self.near and self.stands.issuperset(pair):
                return False
        return True

    def from_one_place(self, cited: frozenset[str]) -> bool:
        """A third of the words stand near another one of them in the vignette: no words picked at random."""
        roots = {word.removeprefix("no_") for word in cited}
        return 3 * sum(not roots.isdisjoint(self.around.get(root, ())) for root in roots) >= len(roots)


@lru_cache(maxsize=256)
def _question(prompt: str | None, options: tuple[tuple[str, str], ...]) -> _Question:
    stem = "" if prompt is None else question_stem(prompt, options)
    all_words = frozenset(word.strip(".") for words in _sentences(stem) for word in words)
    stem = _AGE.sub(" ", stem)
    parts = [part for part in stem.replace("? ", "?\n").replace(". ", ".\n").splitlines() if part.strip()]
    vignette = "\n".join([part for part in parts if not part.rstrip().endswith("?")] or parts)
    texts = {letter: [word for part in _sentences(text) for word in part] for letter, text in options}
    joined = {" ".join(text[-2:]) for text in texts.values() if len(text) > 1 and len(text[-1]) == 1}
    joined = tuple(sorted(joined | {"option", "choice"}))
    texts = {letter: [w for part in _sentences(text, joined) for w in part] for letter, text in options}
    names, within, kinds = _names(texts)
    told = _sentences(vignette, joined)
    exception = bool(parts) and bool(_EXCEPTION.search(parts[-1]))
    stated, roots = set(), _contents(told)
    for words in told:
        found, *_ = _read(words, {**roots, **kinds})
        stated.update(word for word, _ in found)
        if exception and words is told[-1]:  # "Which is not a branch of ...?" denies nothing
            stated.update(_opposite(word) for word, _ in found)
    near, around = _neighbours(told, roots)
    content = _forms(roots.values())
    naming = frozenset(word for word, kind in kinds.items() if kind.__class__ is tuple)
    longer = [frozenset(words) for words in told if len(words) >= COPIED_WORDS]
    return _Question(
        names=names,
        enough={letter: NAMED_SHARE * len(words) for letter, words in names.items()},
        within={letter: others for letter, others in within.items() if others},
        naming=naming,
        kinds=kinds,
        joined=joined,
        exception=exception,
        stated=None if prompt is None else frozenset(stated),
        stands=frozenset(roots.values()),
        near=frozenset(near),
        around=around,
        words=all_words,
        content=content,
        told=tuple((COPIED_SHARE * len(words), words) for words in longer),
        kinds_of_content={**content, **kinds},
        relevant=naming.union(content),
    )


def _neighbours(told, roots) -> tuple[set, dict]:
    """({pairs of words at most NEAR apart in a sentence}, word -> {others at most NEAR_CITED apart})."""
    near, around = set(), {}
    for words in told:
        spots = [(i, roots[word]) for i, word in enumerate(w for w in words if w != ",") if word in roots]
        for n, (i, a) in enumerate(spots):
            for j, b in spots[n + 1 : n + 1 + NEAR_CITED]:
                near |= {(a, b), (b, a)} if j - i <= NEAR else set()
                for one, other in ((a, b), (b, a)) if a != b and j - i <= NEAR_CITED else ():
                    around.setdefault(one, set()).add(other)
    return near, around


def _names(texts: Mapping[str, list[str]]) -> tuple[dict, dict, dict[str, object]]:
    """(letter -> the roots that name it, letter -> the options that hold them all, what every word does)."""
    own = {letter: frozenset(_root(w) for w in text if _content(w)) for letter, text in texts.items()}
    plain = {
        letter: frozenset(w for w in text if w not in _LITTLE and _KINDS.get(w, _FOR) <= _FOR)
        for letter, text in texts.items()
    }
    own = {letter: roots or plain[letter] for letter, roots in own.items()}
    counts = Counter(word for roots in own.values() for word in roots)
    names = {letter: frozenset(w for w in roots if counts[w] == 1) or roots for letter, roots in own.items()}
    within = {x: frozenset(y for y in own if own[x] < own[y]) for x in own}
    kinds: dict[str, object] = dict(_KINDS)  # an option's own words are neither cues nor findings
    kinds |= dict.fromkeys(w for text in texts.values() for w in text if _KINDS.get(w, _NOT) <= _FOR)
    for word in counts:
        letters = tuple(letter for letter in names if word in names[letter])
        kinds |= dict.fromkeys(_forms([word]), (word, letters) if letters else None)
    for letter in texts:
        kinds |= {f"{word}{_LETTER}{letter.lower()}": (_LETTER, (letter,)) for word in ("option", "choice")}
    return names, within, kinds


# ------------------------------------------------------------------------------------------------------------------- words
_STOP, _LETTER = "\x02", "\x03"
_ENDS = {ord(end): ord(_STOP) for end in "\n;!"}
_SEPARATE = bytes(
    _ENDS.get(c, c if c > 127 or chr(c).isalnum() or chr(c) in f".,{_STOP}{_LETTER}\x05" else 32)
    for c in range(256)
)
_SPACES = "\u00b0\u2010\u2011\u2012\u2013\u2014\u2018\u201c\u201d\u2026\u2022\u00a0\u202f"
_UNSEEN = "\u200b\u200c\u200d\u2060\ufeff\u00ad"
_MARKS = str.maketrans({"\u2019": "'", **dict.fromkeys(_SPACES, " "), **dict.fromkeys(_UNSEEN)})
_ENDINGS = ("ings", "ing", "ed", "es", "s", "e")


def _sentences(text: str, joined: Iterable[str] = ()) -> list[list[str]]:
    """The lower-case words of each sentence; a comma, "38.9", "60,000" and "option b" are one word each."""
    return [words for part in _parts(text, joined) if (words := part.split())]


def _parts(text: str, joined: Iterable[str]) -> list[str]:
    """Raw sentences; bytes make this several times faster than a pattern. joined: "hepatitis a" becomes one word."""
    text = f"{text if text.isascii() else text.translate(_MARKS)} ".lower().replace("n't", " not")
    text = (
        text.replace("..", ". ").replace(". ", f" {_STOP}").replace(", ", " , ").replace("?", f" \x05{_STOP}")
    )
    raw = text.encode("utf-8", "surrogatepass").translate(_SEPARATE).decode("utf-8", "surrogatepass")
    for phrase in joined:
        first, _, second = phrase.partition(" ")
        raw = raw.replace(f"{phrase} ", f"{first}{_LETTER}{second}{' ' * bool(second)}")
    return raw.split(_STOP)


def _passages(text: str, joined: Iterable[str]) -> list[list[str]]:
    """Sentences, one said twice once; one that goes on about the one before ("This makes ...", "Hence ...") is part of it."""
    passages: list[list[str]] = []
    for part in dict.fromkeys(_parts(text, joined)):
        words = part.split()
        if (
            words
            and words[0] in _GOES_ON
            and passages
            and len(passages[-1]) + len(words) < MAX_INFERENCE_WORDS
        ):
            passages[-1] += [",", *words]
        elif words:
            passages.append(words)
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
    if word in STOP_WORDS or word in _KINDS or len(word) < (2 if word.isdigit() else 3):
        return ""
    return _root(word)
