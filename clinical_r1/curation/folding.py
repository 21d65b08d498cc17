"""Texts that mean the same, made equal: for matching only, never for prompts."""

import heapq
import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain, count
from sys import intern

import numpy as np

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
    if text.isascii():
        return " ".join(text.lower().split())
    if _MIXED_WORD.search(text):
        text = re.sub(r"\w+", lambda m: _latin(m.group()), text)
    text = unicodedata.normalize("NFKC", text.translate(_BEFORE_NFKC))
    return " ".join(text.casefold().split())


def _latin(word: str) -> str:
    return "".join(_GREEK.get(c, c) for c in word) if _MIXED_WORD.search(word) else word


# MedMCQA lost the letters "rt" in transit ("aery", "hea"). Only forms that are not English words, names or abbreviations, and
# that no intact benchmark holds, stand here: "sta" (start) and "was" (warts) do not.
_WITH_RT = """
    abortion abortions abortive adrenocortical adrenocorticotrophic adrenocorticotropic adrenocorticotropin advertisement
    advertisements alertness alport antepartum anteverted antihypertensive antihypertensives aorta aortic aorticopulmonary
    aortitis aortocaval aortography aortoiliac aortopulmonary aortorenal apartment apartments aperture apertures artefact
    artefacts artemether arterial arteries arteriogram arteriography arteriolar arteriole arterioles arteriolosclerosis
    arteriosclerosis arteriosum arteriosus arteriovenous arteritis artery arthralgia arthralgias arthritis arthrocentesis
    arthrodesis arthrogram arthrography arthrogryposis arthropathies arthropathy arthroplasty arthroscopic arthroscopy
    arthrosis articaine articular articulate articulated articulates articulating articulation articulator articulatory
    artifact artifacts artificial artistic ascertain ascertainment aspartame aspartate aspartic assertive assortment
    bartholin bartonella birth birthday births candesartan cardioverter cartilage cartilaginous certain certolizumab
    childbirth chlorthalidone cohort comfort comfortable comfortably comforted compartment compartmental compartments
    consortium convert converted converting converts cortex cortical cortices corticospinal corticosteroid corticosteroids
    corticosterone corticotrophs corticotropin cortisol cortisone costovertebral cotransporter counterpart
    countertransference decorticate deoxycorticosterone deoxycortisol department departments departure diarthroses
    disarticulation discomfort disproportion disproportionate distorted distortion diverted diverticula diverticular
    diverticulitis diverticulosis diverticulum diverting dysarthria dysarthric earthquake endarterectomy endarteritis
    enfuvirtide entertainment ertapenem escorted everted everting exerting exertion exertional expertise ferroportin fertile
    fertilin fertilisation fertilised fertility fertilization fertilize fertilized fertilizer fibrocartilage fingertips
    fludricortisone fludrocortisone foreshortened fortunately fourth further furthermore gilbert glucocorticoid
    glucocorticoids glucocorticosteroids hamartomatous heart heartbeat heartbeats heartburn hemarthrosis hemiarthroplasty
    hurthle hydrochlorthiazide hydrocortisone hydroxycorticosteroids hypercortisolism hypertelorism hypertension hypertensive
    hypertensives hyperthecosis hyperthermia hyperthermic hyperthyroid hyperthyroidism hypertonia hypertonic hypertonicity
    hypertrichosis hypertrichotic hypertriglyceridemia hypertrophic hypertrophied hypertrophy hypocortisolism immortality
    importance important imported inadvertent inadvertently infertile infertility insert inserted inserting insertion inserts
    intercortical intertransverse intertrigo intertwined intervertebral intraarticular intrapartum inverted kartagener
    kindergarten lipohemarthrosis losartan martensitic melanocortin mineralocorticoid mirtazapine monoarticular mortality
    mortem nifurtimox nonarticulated northern nortriptyline noteworthy olmesartan opportunistic opportunity orthodontic
    orthodontically orthodontics orthodontist orthognathic orthokeratinized orthopaedic orthopedic orthopedics orthopnea
    orthoses orthosis orthostasis orthostatic osteoarthritic osteoarthritis osteoarthropathy outskirts overtime paravertebral
    parthenogenetic partial partially participant participants participate participated participates participating
    participation particle particles particular particularly partition partner partners partum parturition pauciarticular
    peripartum periportal pertaining pertechnetate pertinent pertussis polyarteritis polyarthritis portal portion portions
    portosystemic postmortem postpartum preparticipation prevertebral properties property proportion proportional
    proportionate proportions pseudarthrosis pseudoarthrosis pubertal puberty quarterly quarternary quartile reassortment
    reinsert reinserted reinsertion reportable reported reportedly reporting reports resorting restarted restarting
    retroverted reverted robertsonian sartorius schwartz sertoli sertraline short shortages shortening shortest shortness
    smartphone started starting stillbirth subcortical submentovertex support supported supporting supportive supports
    symporter synarthroses tartrate telmisartan tertiary thirteen thirteenth thirties thirty tortuosity tortuous
    transcortical transport transported transporter transporters transporting ultrashort uncertain uncertainty uncomfortable
    underreport undertaken unfertilized unfortunate unfortunately unreported unsupported urticaria urticarial valsartan
    vertebra vertebrae vertebral vertebrobasilar vertebroplasty vertex vertical vertically vertigo vertucci wertheim
    worthless
""".split()
RT_VARIANTS = {word.replace("rt", "", 1): word for word in _WITH_RT}
_TOKEN = re.compile(r"\w+|(?<!\w)-(?=[\d.])|[+^<>=≤≥±×°%←-⇿]")


def stem_tokens(text: str) -> tuple[str, ...]:
    """Folded words and meaningful symbols, no sentence punctuation, the lost "rt" restored: a stem's key."""
    tokens = _TOKEN.findall(fold(text))
    if not RT_VARIANTS.keys().isdisjoint(tokens):
        tokens = [RT_VARIANTS.get(token, token) for token in tokens]
    return tuple(map(intern, tokens))


def option_key(text: str) -> str:
    """An option's text for comparison: folded, without a closing full stop."""
    folded = fold(text)
    return folded.rstrip(". ") or folded


# ---------------------------------------------------------------- exact and near matches


@dataclass(frozen=True, slots=True)
class Keys:
    """What a question is matched by. stem: its tokens. options: folded, in whatever order. grams: what 5-grams are made of, the
    stem's tokens, and those of the options where the stem is short."""

    stem: tuple[str, ...]
    options: frozenset[str]
    grams: tuple[str, ...]

    @property
    def exact(self):
        """Equal for questions with the same stem and the same options."""
        return self.stem, self.options


def match_keys(question: Question) -> Keys:
    """The keys of one question: made once, since folding costs more than matching."""
    stem, texts = stem_tokens(question.stem), question.options.values()
    short = len(stem) < SHORT_STEM
    grams = stem + tuple(chain.from_iterable(map(stem_tokens, sorted(texts, key=fold)))) if short else stem
    return Keys(stem, frozenset(map(option_key, texts)), grams)


GRAM = 5


def gram_numbers(texts: Sequence[tuple[str, ...]]) -> tuple[np.ndarray, np.ndarray]:
    """(text of each, number of each): the 5-grams of every text, each once, in order; equal numbers are equal 5-grams.

    A text of fewer tokens is one gram. Nothing is hashed: tokens are numbered, then pairs, pairs of pairs, and those with a
    fifth.
    """
    number = defaultdict(count(1).__next__, {None: 0})  # None fills a short text up
    filled = [tokens + (None,) * (GRAM - len(tokens)) for tokens in texts]
    lengths = np.fromiter(map(len, filled), np.int64, len(filled))
    tokens = np.fromiter(map(number.__getitem__, chain.from_iterable(filled)), np.int64, lengths.sum())
    if not len(tokens):
        return tokens, tokens
    pairs = _dense(tokens[:-1] * len(number) + tokens[1:])
    fours = _dense(pairs[:-2] * len(pairs) + pairs[2:])
    grams = fours[:-1] * len(number) + tokens[4:]
    owner = np.repeat(np.arange(len(filled)), lengths)
    whole = owner[: len(grams)] == owner[4:]  # not across the border of two texts
    grams, owner = _dense(grams[whole]), owner[: len(grams)][whole]
    return np.divmod(np.unique(owner * len(grams) + grams), len(grams))


def _dense(values: np.ndarray) -> np.ndarray:
    """Equal numbers for equal values, smaller than their number."""
    return np.unique(values, return_inverse=True)[1]


class NearIndex:
    """Token sequences by their rarest 5-grams, so that few are compared with the whole of each other.

    Exact: of two that are NEAR alike, the larger one's rarest 1 - NEAR of its 5-grams and the smaller one's rarest
    (1 - NEAR) / (1 + NEAR) share one (prefix filtering of set joins, Bayardo et al. 2007). `compared` counts the pairs whose
    5-grams were compared. others: the sequences that are looked up; None looks up the texts themselves.
    """

    def __init__(self, texts: Sequence[tuple[str, ...]], others: Sequence[tuple[str, ...]] | None = None):
        self.compared, self.first = 0, 0 if others is None else len(texts)
        owner, self.grams = gram_numbers([*texts, *(others or ())])
        owners = np.arange(len(texts) + len(others or ()) + 1)
        self.starts = np.searchsorted(owner, owners)
        sizes = np.diff(self.starts)
        common = np.bincount(self.grams)[self.grams] if len(owner) else self.grams
        rarest = np.lexsort((self.grams, common, owner))
        rank, size = np.arange(len(owner)) - self.starts[owner], sizes[owner]

        def rare(share):  # one that occurs once is shared with nobody
            chosen = rarest[(rank <= size - np.ceil(share * size)) & (common[rarest] > 1)]
            whose, grams = owner[chosen], self.grams[chosen].tolist()
            return whose.tolist(), grams, np.searchsorted(whose, owners).tolist()

        self.sizes, self.short, self.long = sizes.tolist(), {}, {}
        places, grams, *starts = rare(2 * NEAR / (1 + NEAR))
        self.looked_up_in_long = grams, *starts
        for place, gram in zip(places, grams, strict=True):
            if place < len(texts):
                self.short.setdefault(gram, []).append(place)
        places, grams, *starts = rare(NEAR)
        self.looked_up_in_short = grams, *starts
        for place, gram in zip(places, grams, strict=True):
            if place < len(texts):  # by size, since only the larger are looked up
                self.long.setdefault(gram, {}).setdefault(self.sizes[place], []).append(place)

    def _set(self, place: int) -> set[int]:
        return set(self.grams[self.starts[place] : self.starts[place + 1]].tolist())

    def similar(self, j: int) -> Iterator[tuple[int, float]]:
        """(place, Jaccard similarity) of every text that is NEAR alike to the j-th that is looked up, in order of place.

        Stop early to save comparisons.
        """
        j += self.first
        size, grams, before = self.sizes[j], None, -1
        rare, starts = self.looked_up_in_short
        places = [found for gram in rare[starts[j] : starts[j + 1]] if (found := self.short.get(gram))]
        rare, starts = self.looked_up_in_long
        for gram in rare[starts[j] : starts[j + 1]]:
            places += [found for larger, found in self.long.get(gram, {}).items() if larger > size]
        for place in heapq.merge(*places):
            if place != before and place != j and NEAR * size <= self.sizes[place] <= size / NEAR:
                self.compared += 1
                grams = grams or self._set(j)
                shared = len(grams & self._set(place))
                similarity = shared / (self.sizes[place] + size - shared)
                if similarity >= NEAR:
                    yield place, similarity
            before = place


def similar_pairs(a: Sequence[Question], b: Sequence[Question] | None = None) -> list[tuple[int, int, float]]:
    """(i in a, j in b, Jaccard similarity of 5-grams) where that is >= NEAR; b = None compares a with itself.

    Grows with the number of such pairs, n * n where all are alike; `first_similar` does not.
    """
    texts = [match_keys(question).grams for question in a]
    others = None if b is None else [match_keys(question).grams for question in b]
    index = NearIndex(texts, others)
    pairs = []
    for j in range(len(texts if others is None else others)):
        for i, similarity in index.similar(j):
            if b is None and i >= j:
                break
            pairs.append((i, j, similarity))
    return pairs


def first_similar(a: Sequence[Keys], b: Sequence[Keys] | None = None) -> dict[int, tuple[int, float]]:
    """i in a -> (the first j in b that is NEAR alike, similarity); b = None compares a with itself, exact duplicates left out.

    Questions with the same tokens are compared once, so thousands of copies cost no more than one.
    """
    rows, columns = _alike(a, b is None), None if b is None else _alike(b, False)
    looked_up = [grams for grams, _ in rows]
    index = NearIndex(looked_up) if columns is None else NearIndex([grams for grams, _ in columns], looked_up)
    firsts = [members[0] for members in (rows if columns is None else columns).values()]
    exact, found = [key for _, key in rows], {}
    for row, members in enumerate(rows.values()):
        for place, similarity in index.similar(row):
            if columns is not None or exact[place] != exact[row]:
                found |= dict.fromkeys(members, (firsts[place], similarity))
                break
    return found


def _alike(keys: Sequence[Keys], exact: bool) -> dict[tuple, list[int]]:
    """(gram tokens, exact key or None) -> the questions that have them, in order."""
    groups = defaultdict(list)
    for i, own in enumerate(keys):
        groups[own.grams, own.exact if exact else None].append(i)
    return groups


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
