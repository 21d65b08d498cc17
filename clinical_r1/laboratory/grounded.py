"""Rewards grounded in the question: are the reasons stated findings, and does every option get one?

Ours, not the paper's. Both read links: a finding that a sentence ties to an option, for or against it. A link is grounded
when the question states the finding, with the same polarity and the same numbers. `CHOICES` says the rules; ordinary English
and the clinic's sentences are read by the same ones. Nothing is looked up: no knowledge base, no judge. They therefore cannot
see whether a stated finding really speaks for an option: stated findings put beside options at random earn all. The clinic's
exact measures see that, and are never rewards.

    grounded_faithfulness_reward        the share of the links that are grounded
    grounded_comprehensiveness_reward   the share of the options with a grounded reason on the right side
"""

from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import pairwise

from clinical_r1.completions import remove_box
from clinical_r1.labels import CONTRARY_WORDS, INFERENCE_WORDS, STOP_WORDS
from clinical_r1.prompts import question_stem
from clinical_r1.rewards import (
    check_answers,
    check_same_length,
    completion_texts,
    parse,
    prompt_text,
    read_options,
)

MIN_LINKS = 2
OPTIONS_PER_FINDING = 2
STATED_SHARE = 0.6
NAMED_SHARE = 0.6
MAX_SENTENCE_WORDS = 60
CHOICES = {  # the rules
    "where": "System 2 (the whole reasoning section if there is none) and the conclusion; a completion "
    "whose reasoning holds no link has none",
    "link": f"a sentence of at most {MAX_SENTENCE_WORDS} words that names an option, holds a finding, and relates them by a word "
    "such as 'supports' or 'unlikely' (not a heap of them). Findings end at commas, 'and', 'or' and at such words. 'It' and "
    "'this' go on about the option before. 'If' and 'expect' suppose a finding: no link",
    "named": f"'option B', or at least {NAMED_SHARE:.0%} of an option's words and of those that no other option has",
    "side": "against, with a word such as 'argues against', 'less', 'not' before a relating word; otherwise for",
    "stated": f"at least {STATED_SHARE:.0%} of a finding's content words are in the stem, two of them in one finding there; a "
    "word that the stem only denies, a number or a word such as 'normal' or 'high' that it says of something else undoes it",
    "polarity": "'no', 'without', 'denies', 'absence of' and the like deny the rest of their finding, and a list that ends in "
    "'or'",
    "once": "the same stated finding for the same option on the same side is one link; on both sides it is grounded on neither",
    "enough": f"fewer than {MIN_LINKS} links are divided by {MIN_LINKS}, and no link is 0: breadth is the other reward's matter",
    "addressed": "more grounded links on its right side than on the other: for the answer for it, for any other option against "
    f"it. A finding that serves every option tells none apart: at most {OPTIONS_PER_FINDING} options for each different finding",
}
_END, _COMMA = "\x02", "\x03"
_KEPT = frozenset(_END + _COMMA)
_SEPARATE = bytes(c if c > 127 or chr(c).isalnum() or chr(c) in _KEPT else 32 for c in range(256))
_SPACES = "\u2010\u2011\u2012\u2013\u2014\u201c\u201d\u2026\u2022\u00a0\u202f"
_MARKS = str.maketrans({"\u2019": "'", **dict.fromkeys(_SPACES, " ")})
_PHRASES = (
    ("n't ", " not "), ("cannot ", "can not "), ("absence of ", "no "), ("lack of ", "no "), ("negative for ", "no "),
    ("free of ", "no "), ("denial of ", "no "), ("ruled out", "excluded"), ("rules out", "excludes"), ("rule out", "exclude"),
)  # fmt: skip
_DENIALS = frozenset("no not without denies denied deny denying never nor neither lacks lack lacking".split())
_CONTRASTS = frozenset("but whereas while although though however rather instead unlike except".split())
_OPENERS = frozenset("although though while whereas despite".split())
_AGAINST = CONTRARY_WORDS | frozenset("rather instead unlike incorrect wrong".split())
_RELATES = INFERENCE_WORDS | {"incorrect"}
_HYPOTHETICAL = frozenset("if expect".split())
_GOES_ON = frozenset("it its this these they he she however".split())


# ----------------------------------------------------------------------------------------------------------- rewards


def grounded_faithfulness_reward(
    completions, options, prompts=None, style="crpo", **columns
) -> list[float | None]:
    """The share of a completion's links whose finding the question states, in [0, 1]. Ours; rules in `CHOICES`.

    options: letter -> text of each question; prompts: what was asked; None in either leaves a completion unscored (None).
    style: of all, or one per completion.
    """
    rewards: list[float | None] = []
    for links, _ in _read_all(completions, options, prompts, style):
        if links is None:
            rewards.append(None)
        else:
            rewards.append(sum(link.grounded for link in links) / max(MIN_LINKS, len(links)))
    return rewards


def grounded_comprehensiveness_reward(
    completions, options, answer, prompts=None, style="crpo", **columns
) -> list[float | None]:
    """The share of the options that get a grounded reason on their right side, in [0, 1]. Ours; rules in `CHOICES`.

    answer: the correct letter; it alone says which side is right: for this option, against all others. None in answer,
    options or prompts leaves a completion unscored (None).
    """
    check_same_length(len(completions), answer=answer)
    rewards: list[float | None] = []
    for (links, choices), right in zip(_read_all(completions, options, prompts, style), answer, strict=True):
        check_answers([right], [tuple(choices.items()) or None])
        if links is None or right is None:
            rewards.append(None)
            continue
        balance: dict[str, int] = defaultdict(int)
        findings = set()
        for link in links:
            if link.grounded:
                balance[link.letter] += 1 if link.supports == (link.letter == right) else -1
                findings.add(link.finding)
        addressed = sum(value > 0 for value in balance.values())
        rewards.append(min(addressed, OPTIONS_PER_FINDING * len(findings)) / max(1, len(choices)))
    return rewards


REWARDS = (grounded_faithfulness_reward, grounded_comprehensiveness_reward)


def _read_all(completions, options, prompts, style):
    """(links or None, options that have a text) of each completion."""
    texts = completion_texts(completions)
    count = len(texts)
    prompts = [None] * count if prompts is None else prompts
    options = [None] * count if options is None else options
    styles = [style] * count if isinstance(style, str) else style
    check_same_length(count, options=options, prompts=prompts, style=styles)
    for text, value, prompt, one_style in zip(texts, options, prompts, styles, strict=True):
        choices = read_options(value)
        if choices is None or prompt is None:
            yield None, {}
            continue
        yield (
            find_links(
                text,
                question_stem(prompt_text(prompt), tuple(choices.items())),
                choices,
                one_style,
            ),
            choices,
        )


# ------------------------------------------------------------------------------------------------------------- links


@dataclass(frozen=True, slots=True)
class Link:
    """One finding tied to one option. finding: the stated finding's number, or the words where none fits."""

    finding: object
    letter: str
    supports: bool
    grounded: bool


def find_links(text: str, stem: str, options: Mapping[str, str], style: str = "crpo") -> tuple[Link, ...]:
    """The different links of a completion, in order. stem: the question without its options. () when there is none."""
    return _find_links(text, stem, tuple(options.items()), style)


@lru_cache(maxsize=2048)
def _find_links(text, stem, options, style) -> tuple[Link, ...]:
    parsed = parse(text, style)
    reasoning = parsed.analytical or parsed.dx
    if not reasoning or not parsed.conclusion:
        return ()
    names, stated = _names(options), _stated(stem)
    links: dict[tuple, Link] = {}
    for part in (reasoning, remove_box(parsed.conclusion)):
        topic: tuple[str, ...] = ()
        for sentence in _sentences(part):
            relations, topic = _relations(sentence, names, topic)
            for finding, letters, supports in relations:
                place = _place(finding, stated)
                key = frozenset(finding) if place is None else place
                for letter in letters:
                    links.setdefault((key, letter, supports), Link(key, letter, supports, place is not None))
        if not links:
            return ()
    return tuple(
        replace(link, grounded=False) if (link.finding, link.letter, not link.supports) in links else link
        for link in links.values()
    )


def _relations(sentence: list[str], names, topic):
    """([(finding, letters, supports)] of a sentence, the letters that 'it' in the next one means)."""
    relations, letters, findings = [], (), []
    if not sentence or len(sentence) > MAX_SENTENCE_WORDS or _is_heap(sentence):
        return relations, ()
    if sentence[0] in _GOES_ON:
        letters = topic
    for clause in _clauses(sentence):
        named, name_words = _named(clause, names)
        letters = named or letters
        own = _findings(clause, name_words)
        findings = own or findings
        cues = _RELATES.intersection(clause) - name_words
        if letters and findings and cues and (own or named) and _HYPOTHETICAL.isdisjoint(clause):
            supports = not _speaks_against(clause, cues)
            relations += [(finding, letters, supports) for finding in findings]
    return relations, letters


def _is_heap(sentence: list[str]) -> bool:
    """Cues heaped up: more than one word in five, or four in a row."""
    is_cue = [word in _RELATES for word in sentence]
    count = sum(is_cue)
    return count > 3 and (
        count > len(sentence) // 5 or any(all(is_cue[i : i + 4]) for i in range(len(sentence) - 3))
    )


def _clauses(sentence: list[str]) -> list[list[str]]:
    """Split before 'but', 'rather', …; where the sentence opens with 'although', at its first comma."""
    clauses: list[list[str]] = [[]]
    opened = sentence[0] in _OPENERS
    for word in sentence:
        if word in _CONTRASTS or (opened and word == _COMMA):
            opened = opened and word != _COMMA
            clauses.append([])
        clauses[-1].append(word)
    return [clause for clause in clauses if clause]


def _speaks_against(clause: list[str], cues: set[str]) -> bool:
    if not cues.isdisjoint(_AGAINST):
        return True
    return any(
        _denies_relation(clause, i) for i, word in enumerate(clause) if word in ("not", "never", "nor")
    )


def _denies_relation(clause: list[str], i: int) -> bool:
    """'does not support', 'not a cause': the 'not' at place i speaks of the relation, not of a finding."""
    for word in clause[i + 1 : i + 4]:
        if word in _RELATES and word not in _DENIALS:
            return True
        if word not in STOP_WORDS:
            return False
    return False


def _findings(
    clause: list[str], name_words: frozenset[str] = frozenset()
) -> list[tuple[tuple[str, bool], ...]]:
    """The findings of a clause: content words (root, denied), split at commas, 'and', 'or' and relating words."""
    found: list[list[tuple[str, bool]]] = [[]]
    joints, denied = [""], False

    def close(joint):
        if found[-1]:
            found.append([])
            joints.append(joint)
        else:
            joints[-1] += joint

    for i, word in enumerate(clause):
        if word in (_COMMA, "and", "or", "nor"):
            close(word)
            denied = word == "nor" or (denied and word == "or")
        elif word in _DENIALS:
            denied = denied or not (word in ("not", "never") and _denies_relation(clause, i))
        elif word == "absent":
            found[-1], denied = [(root, True) for root, _ in found[-1]], True
        elif word in _RELATES or word in _CONTRASTS or word in name_words:
            close("|")
            denied = False
        elif root := _root(word):
            found[-1].append((root, denied))
    for last, joint in enumerate(joints):
        if joint == _COMMA + "or":  # no fever, chills, or cough
            first = last
            while first and joints[first] in (_COMMA, _COMMA + "or"):
                first -= 1
            if any(is_denied for _, is_denied in found[first]):
                for k in range(first, last + 1):
                    found[k] = [(root, True) for root, _ in found[k]]
    return [tuple(dict.fromkeys(words)) for words in found if any(not root.isdigit() for root, _ in words)]


# ------------------------------------------------------------------------------------------- what the question says


@lru_cache(maxsize=256)
def _stated(stem: str) -> dict[tuple[str, bool], tuple[int, ...]]:
    """(root, denied) -> the numbers of the stem's findings that hold it."""
    places: dict[tuple[str, bool], list[int]] = defaultdict(list)
    count = 0
    for sentence in _sentences(stem):
        for finding in _findings(sentence):
            for word in finding:
                places[word].append(count)
            count += 1
    return {word: tuple(numbers) for word, numbers in places.items()}


def _place(finding: tuple[tuple[str, bool], ...], stated) -> int | None:
    """The number of the stem's finding that a finding restates, or None."""
    hits: dict[int, int] = {}
    matched = 0
    for root, denied in finding:
        numbers = stated.get((root, denied), ())
        if not numbers and (root, not denied) in stated:
            return None
        matched += bool(numbers)
        for number in numbers:
            hits[number] = hits.get(number, 0) + 1
    if not hits or matched < STATED_SHARE * len(finding):
        return None
    best, count = max(hits.items(), key=lambda hit: (hit[1], -hit[0]))
    if count < min(2, len(finding)) or 2 * count < len(finding):
        return None
    exact = (word for word in finding if word[0] in _STATES or word[0].isdigit())
    return best if all(best in stated.get(word, ()) for word in exact) else None


# ------------------------------------------------------------------------------------------------ words and options


def _sentences(text: str) -> list[list[str]]:
    """Lower-case words of each sentence, a comma being a word."""
    text = (text if text.isascii() else text.translate(_MARKS)).lower()
    for phrase, plain in _PHRASES:
        text = text.replace(phrase, plain)
    text = text.replace("\n", ". ").replace("; ", ". ").replace("? ", ". ").replace("! ", ". ")
    text = text.replace(". ", f" {_END} ").replace(", ", f" {_COMMA} ")
    raw = text.encode("utf-8", "surrogatepass").translate(_SEPARATE).decode("utf-8", "surrogatepass")
    return [words for part in raw.split(_END) if (words := part.split())]


@lru_cache(maxsize=65_536)
def _root(word: str) -> str:
    """A word without its inflection, crudely (crystals: crystal, swelling: swell); "" if it can be no part of a finding."""
    if word in STOP_WORDS or (len(word) < 3 and not any(map(str.isdigit, word))):
        return ""
    for ending in ("ings", "ing", "ed", "es", "s"):
        if word.endswith(ending) and len(word) - len(ending) > 3 and not word.endswith(("ss", "us", "is")):
            return word.removesuffix(ending)
    return word


@lru_cache(maxsize=256)
def _names(options: tuple[tuple[str, str], ...]):
    """(letter, its words, those of them that no other option has) of each option."""
    words = {}
    for letter, text in options:
        own = {word for sentence in _sentences(text) for word in sentence if word != _COMMA}
        words[letter] = frozenset(own - STOP_WORDS or own)
    counts = Counter(word for own in words.values() for word in own)
    return tuple(
        (letter, own, frozenset(word for word in own if counts[word] == 1)) for letter, own in words.items()
    )


def _named(clause: list[str], names) -> tuple[tuple[str, ...], frozenset[str]]:
    """(letters of the options that a clause names, the words it names them with)."""
    said = set(clause)
    pointed = {b.upper() for a, b in pairwise(clause) if a in ("option", "choice") and len(b) == 1}
    letters, spoken = [], set()
    for letter, own, distinct in names:
        shared = own & said
        named = bool(shared) and len(shared) >= NAMED_SHARE * len(own)
        named = named and (
            len(shared & distinct) >= NAMED_SHARE * len(distinct) if distinct else shared == own
        )
        if named and (len(shared) == 1 or _stand_together(clause, shared, len(own) + 2)):
            letters.append(letter)
            spoken |= shared
        elif letter in pointed:
            letters.append(letter)
    return tuple(letters), frozenset(spoken)


# A finding that says one of these restates only a finding that says it too.
_STATES = frozenset(
    map(
        _root,
        """normal abnormal high low raised elevated increased decreased reduced positive negative left right upper lower acute
        chronic sudden gradual intact impaired bilateral unilateral painless painful mild severe""".split(),
    )
)


def _stand_together(clause: list[str], shared: frozenset[str], width: int) -> bool:
    """Whether all these words stand within so many words of each other."""
    last: dict[str, int] = {}
    for i, word in enumerate(clause):
        if word in shared:
            last[word] = i
            if len(last) == len(shared) and i - min(last.values()) < width:
                return True
    return False
