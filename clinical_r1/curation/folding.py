"""Texts that mean the same, made equal: for matching only, never for prompts."""

import heapq
import math
import re
import unicodedata
from array import array
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from sys import intern

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
    return tuple(intern(RT_VARIANTS.get(token, token)) for token in _TOKEN.findall(fold(text)))


def option_key(text: str) -> str:
    """An option's text for comparison: folded, without a closing full stop."""
    return fold(text).rstrip(". ") or fold(text)


# ---------------------------------------------------------------- exact and near matches


def exact_key(question: Question):
    """Equal for questions with the same stem and the same options, in whatever order."""
    return stem_tokens(question.stem), frozenset(option_key(text) for text in question.options.values())


def gram_tokens(question: Question) -> tuple[str, ...]:
    """The tokens whose 5-grams are compared: of the stem, and of the options where the stem is short."""
    tokens = stem_tokens(question.stem)
    if len(tokens) < SHORT_STEM:
        tokens += sum((stem_tokens(text) for text in sorted(question.options.values(), key=fold)), ())
    return tokens


def _grams(tokens: Sequence[str], n: int = 5) -> frozenset[tuple[str, ...]]:
    return frozenset(tokens[i : i + n] for i in range(max(1, len(tokens) - n + 1)))


class NearIndex:
    """Token sequences by their rarest 5-grams, so that few are compared with the whole of each other.

    Exact: of two that are NEAR alike, the larger one's rarest 1 - NEAR of its 5-grams and the smaller one's rarest
    (1 - NEAR) / (1 + NEAR) share one (prefix filtering of set joins, Bayardo et al. 2007). `compared` counts the pairs whose
    5-grams were compared.
    """

    def __init__(self, texts: Sequence[tuple[str, ...]], others: Iterable[tuple[str, ...]] = ()):
        self.texts, self.compared = texts, 0
        others = list(others)
        buckets = max(1024, sum(map(len, (*texts, *others))))
        self.counts = array("I", bytes(4 * buckets))  # how often a 5-gram occurs, or one of the same hash
        for tokens in (*texts, *others):
            for gram in _grams(tokens):
                self.counts[hash(gram) % buckets] += 1
        self.sizes, self.short = [], defaultdict(list)
        self.long = defaultdict(lambda: defaultdict(list))  # by size, since only the larger are looked up
        for place, tokens in enumerate(texts):
            short, long, size = self._rarest(tokens)
            self.sizes.append(size)
            for gram in short:
                self.short[gram].append(place)
            for gram in long:
                self.long[gram][size].append(place)

    def _rarest(self, tokens):
        """Its 5-grams that a larger one must share, those that a smaller one must share, and how many it has."""
        grams = _grams(tokens)
        common = {gram: self.counts[hash(gram) % len(self.counts)] for gram in grams}
        ordered = sorted(grams, key=lambda gram: (common[gram], gram))
        # one that occurs once is shared with nobody
        short, long = (
            [gram for gram in ordered[: len(grams) - math.ceil(share * len(grams)) + 1] if common[gram] > 1]
            for share in (2 * NEAR / (1 + NEAR), NEAR)
        )
        return short, long, len(grams)

    def similar(self, tokens) -> Iterator[tuple[int, float]]:
        """(place, Jaccard similarity) of every text that is NEAR alike, in order of place; stop early to save comparisons."""
        short, long, size = self._rarest(tokens)
        grams, before = _grams(tokens), -1
        places = [self.short.get(gram, ()) for gram in long]
        places += [
            found for gram in short for larger, found in self.long.get(gram, {}).items() if larger > size
        ]
        for place in heapq.merge(*places):
            if place != before and NEAR * size <= self.sizes[place] <= size / NEAR:
                self.compared += 1
                shared = len(grams & _grams(self.texts[place]))
                similarity = shared / (self.sizes[place] + size - shared)
                if similarity >= NEAR:
                    yield place, similarity
            before = place


def similar_pairs(a: Sequence[Question], b: Sequence[Question] | None = None) -> list[tuple[int, int, float]]:
    """(i in a, j in b, Jaccard similarity of 5-grams) where that is >= NEAR; b = None compares a with itself.

    Grows with the number of such pairs, n * n where all are alike; `first_similar` does not.
    """
    texts = [gram_tokens(question) for question in a]
    others = texts if b is None else [gram_tokens(question) for question in b]
    index = NearIndex(texts, () if b is None else others)
    pairs = []
    for j, tokens in enumerate(others):
        for i, similarity in index.similar(tokens):
            if b is None and i >= j:
                break
            pairs.append((i, j, similarity))
    return pairs


def first_similar(a: Sequence[Question], b: Sequence[Question] | None = None) -> dict[int, tuple[int, float]]:
    """i in a -> (the first j in b that is NEAR alike, similarity); b = None compares a with itself, exact duplicates left out.

    Questions with the same tokens are compared once, so thousands of copies cost no more than one.
    """
    rows, columns = _alike(a, b is None), _alike(a if b is None else b, b is None)
    keys = list(columns)
    index = NearIndex([tokens for tokens, _ in keys], () if b is None else [tokens for tokens, _ in rows])
    found = {}
    for (tokens, exact), members in rows.items():
        for place, similarity in index.similar(tokens):
            if b is not None or keys[place][1] != exact:
                found |= dict.fromkeys(members, (columns[keys[place]][0], similarity))
                break
    return found


def _alike(questions, exact: bool) -> dict[tuple, list[int]]:
    """(gram tokens, exact key or None) -> the questions that have them, in order."""
    groups = defaultdict(list)
    for i, question in enumerate(questions):
        groups[gram_tokens(question), exact_key(question) if exact else None].append(i)
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
