"""Texts that mean the same, made equal: for matching only, never for prompts."""

import math
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from functools import lru_cache

from clinical_r1.questions import Question

NEAR = 0.5  # Jaccard similarity of 5-grams from which two questions count as the same

# Tokens. A shorter stem may be a mere template ("adverse effect of X"), so its options join the key.
SHORT_STEM = 30

# ---------------------------------------------------------------- folding, for matching only
_CYRILLIC = dict(zip("АВЕКМНОРСТУХІЈЅаеорсухіјѕкһԁԛԝ", "ABEKMHOPCTYXIJSaeopcyxijskhdqw", strict=True))

# Folded only inside a word with Latin letters; elsewhere Greek means something.
_GREEK = dict(zip("ΑΒΕΖΗΙΚΜΝΟΡΤΥΧο", "ABEZHIKMNOPTYXo", strict=True))
_SUPERSCRIPTS = dict(zip("⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻", "0123456789+-", strict=True))
_BEFORE_NFKC = str.maketrans(
    _CYRILLIC
    | {mark: "^" + plain for mark, plain in _SUPERSCRIPTS.items()}  # else 10³ would become 103
    | {"ß": "β", "ꞵ": "β", "ẟ": "δ", "ɑ": "α", "∆": "Δ", "º": "°", "˚": "°"}
    | {dash: "-" for dash in "‐‑‒–—−"}
    | {"’": "'", "‘": "'", "“": '"', "”": '"'}
)
_MIXED_WORD = re.compile("(?:[A-Za-z][{0}]|[{0}][A-Za-z])".format("".join(_GREEK)))

# A letter of another script that stands for a Latin one
HOMOGLYPH = re.compile(f"[{''.join(_CYRILLIC)}]|{_MIXED_WORD.pattern}")


@lru_cache(maxsize=100_000)  # every check folds the same texts
def fold(text: str) -> str:
    """Text for matching, never for prompts: look-alike letters mapped, NFKC, case and white space folded.

    Keeps every symbol that carries meaning: + - ^ < > arrows, Greek letters, units.
    """
    if _MIXED_WORD.search(text):
        text = re.sub(r"\w+", lambda m: _latin(m.group()), text)
    text = unicodedata.normalize("NFKC", text.translate(_BEFORE_NFKC))
    return " ".join(text.casefold().split())


def _latin(word: str) -> str:
    return "".join(_GREEK.get(c, c) for c in word) if _MIXED_WORD.search(word) else word


# MedMCQA lost the letters "rt" in transit ("aery", "hea"). Only forms that are not English words or
# abbreviations stand here.
_WITH_RT = """
    abortion abortions advertisement alport aorta aortic aortoiliac arterial arteries arteriolar arteriole
    arterioles arteriosclerosis arteriosus arteritis artery arthritis arthrodesis arthroplasty articular
    articulation artificial bartholin bartonella birth births cartilage cartilaginous certain chlorthalidone
    cohort compartment cortex cortical corticospinal corticosteroid corticosteroids cortisol cortisone
    cotransporter discomfort diverticula diverticulitis diverticulum endarteritis everted exertion
    exertional ferroportin fertility fertilization fibrocartilage fourth further glucocorticoid
    glucocorticoids heart heartburn hemarthrosis hurthle hydrocortisone hypertension hypertensive
    hyperthermia hyperthyroidism hypertonic hypertriglyceridemia hypertrophic hypertrophied hypertrophy
    importance important infertility inserted insertion intervertebral intraarticular losartan
    mineralocorticoid mortality orthopaedic orthostatic osteoarthritis partial partially particle particles
    particular particularly partition pertussis polyarteritis portal portion portions postmortem postpartum
    prevertebral properties property proportion proportional puberty reported sartorius sertoli sertraline
    short shortening shortest shortness started starting support supporting supportive telmisartan tertiary
    transport transported transporter uncertain urticaria vertebra vertebrae vertebral vertex vertical
    vertigo wertheim
""".split()
RT_VARIANTS = {word.replace("rt", "", 1): word for word in _WITH_RT}
_TOKEN = re.compile(r"\w+|(?<!\w)-(?=[\d.])|[+^<>=≤≥±×°%←-⇿]")


def stem_tokens(text: str) -> tuple[str, ...]:
    """Folded words and meaningful symbols, no sentence punctuation, the lost "rt" restored: a stem's key."""
    return tuple(RT_VARIANTS.get(token, token) for token in _TOKEN.findall(fold(text)))


def option_key(text: str) -> str:
    """An option's text for comparison: folded, without a closing full stop."""
    return fold(text).rstrip(". ") or fold(text)


# ---------------------------------------------------------------- exact and near matches


def exact_key(question: Question):
    """Equal for questions with the same stem and the same options, in whatever order."""
    return stem_tokens(question.stem), frozenset(option_key(text) for text in question.options.values())


def _grams(question: Question, n: int = 5) -> set[tuple[str, ...]]:
    tokens = stem_tokens(question.stem)
    if len(tokens) < SHORT_STEM:
        tokens += sum((stem_tokens(text) for text in sorted(question.options.values(), key=fold)), ())
    return {tokens[i : i + n] for i in range(max(1, len(tokens) - n + 1))}


def similar_pairs(a: Sequence[Question], b: Sequence[Question] | None = None) -> list[tuple[int, int, float]]:
    """(i in a, j in b, Jaccard similarity of 5-grams) where that is >= NEAR; b = None compares a with itself.

    Exact: only each question's rarest grams are indexed, but any pair that similar must share one of them.
    """
    sets_a = [_grams(question) for question in a]
    sets_b = sets_a if b is None else [_grams(question) for question in b]
    frequency = Counter(gram for sets in (sets_a, sets_b) for grams in sets for gram in grams)

    def rarest(grams):
        enough = len(grams) - math.ceil(NEAR * len(grams)) + 1
        return sorted(grams, key=lambda gram: (frequency[gram], gram))[:enough]

    index = defaultdict(list)
    for i, grams in enumerate(sets_a):
        for gram in rarest(grams):
            index[gram].append(i)
    pairs = []
    for j, grams in enumerate(sets_b):
        for i in sorted({i for gram in rarest(grams) for i in index.get(gram, ())}):
            shared = len(sets_a[i] & grams)
            similarity = shared / (len(sets_a[i]) + len(grams) - shared)
            if similarity >= NEAR and (b is not None or i < j):
                pairs.append((i, j, similarity))
    return pairs


def match_by_option_text(
    a: Iterable[Question], b: Iterable[Question]
) -> list[tuple[Question, Question, dict]]:
    """Join two versions of one set (MedQA with 5 and 4 options) by stem and option text, never by letter.

    Returns (question of a, question of b, letter in a -> letter in b, or None where b lacks that option) for
    every question of a whose stem b has. Of several with the same stem, the one that shares most options.
    """
    by_stem = defaultdict(list)
    for question in b:
        by_stem[stem_tokens(question.stem)].append(question)
    joined = []
    for question in a:
        candidates = []
        for other in by_stem.get(stem_tokens(question.stem), ()):
            letters = {option_key(text): letter for letter, text in other.options.items()}
            mapping = {letter: letters.get(option_key(text)) for letter, text in question.options.items()}
            candidates.append((question, other, mapping))
        if candidates:
            joined.append(max(candidates, key=lambda match: sum(map(bool, match[2].values()))))
    return joined
