"""Patients of real benchmarks as lists of facts: AgentClinic's and mediQ's files, and which facts a request names.

AgentClinic (Schmidgall et al. 2024, MIT) gives examinations as nested objects: each leaf is a fact, its path the topic. It
offers no options, so the diagnosis stays open. mediQ (Li et al. 2024, CC BY 4.0) gives numbered sentences and four options.
Texts written by models: for tests and evaluation, never for training. Teaching material, not medical advice.
"""

import re
import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

from clinical_r1.files import BadLine, json_lines
from clinical_r1.questions import LETTERS

KINDS = ("ask", "examine", "test")
# Share of a request's words that a fact must hold: of two words both, of three two. Measured once, by hand: with 0.5,
# .66 (AgentClinic) and .40 (mediQ) of the answers to another patient's topics are about the same topic, with 0.6 .83 and .54;
# with 0.7, requests with one wrong word uncover .20 and .63 of the facts, with 0.6 .55 and .79.
SAID = 0.6
TOPIC_WORDS = 4  # of a fact without a topic of its own: its first content words


@dataclass(frozen=True)
class FactPatient:
    """One patient who answers from facts alone.

    source: "agentclinic" or "mediq". complaint: what the patient says first. question: what is to be answered. options: the
    answers on offer, none where the diagnosis is open; gold: one of them, or the diagnosis in words. facts: records of
    {"kind": ask | examine | test, "topic", "text"} in the order of the file, without what the complaint tells.
    """

    id: str
    source: str
    complaint: str
    question: str
    options: tuple[str, ...]
    gold: str
    facts: tuple[dict, ...]

    @property
    def kinds_known(self) -> bool:
        """AgentClinic says how each fact is learnt. mediQ does not: its kinds are read from the words, and withhold nothing."""
        return self.source == "agentclinic"

    def naming_gold(self) -> list[int]:
        """Places of facts that hold the answer's own text: there a diagnosis is looked up, not made."""
        names = [f" {name} " for name in gold_names(self.gold)]
        texts = [f" {plain(fact['topic'] + ' ' + fact['text'])} " for fact in self.facts]
        return [place for place, text in enumerate(texts) if any(name in text for name in names)]


@dataclass
class Reading:
    """What a file gave. refused: {"row", "id", "reason"} of each case set aside; left_out: pieces that say nothing, by reason."""

    patients: list[FactPatient] = field(default_factory=list)
    refused: list[dict] = field(default_factory=list)
    left_out: Counter = field(default_factory=Counter)

    def reasons(self) -> Counter:
        """Refused cases by reason."""
        return Counter(row["reason"] for row in self.refused)


class Refused(ValueError):
    """Why a row is no patient."""


# ---------------------------------------------------------------- words

# Only for matching. A wing of its own may not use the folding of `curation`; mediQ's dev item 196 holds Cyrillic letters.
_LOOK_ALIKE = str.maketrans(
    dict(zip("АВЕКМНОРСТУХІаеорсухі", "ABEKMHOPCTYXIaeopcyxi", strict=True))
    | {"’": "'", "‘": "'", "“": '"', "”": '"'}
    | dict.fromkeys("‐‑‒–—−", "-")
)
# One word for what files and questioners call by several names. Short on purpose: each line can be read and judged.
_SAME = tuple(
    (re.compile(rf"\b(?:{pattern})\b"), name)
    for pattern, name in (
        (r"complete blood counts?|full blood count|cbc", "bloodcount"),
        (r"white (?:blood )?cells?(?: count)?|leukocytes?(?: count)?|leucocytes?(?: count)?|wbcs?(?: count)?", "leukocytes"),
        (r"red (?:blood )?cells?(?: count)?|erythrocytes?(?: count)?|rbcs?(?: count)?", "erythrocytes"),
        (r"oxygen saturation|o2 sat(?:uration)?|spo2|so2|pulse oximetry", "saturation"),
        (r"heart rate|pulse(?: rate)?|hr", "pulse"),
        (r"bp", "blood pressure"),
        (r"respiratory rate|respirations?|breathing rate|rr|resp", "breathrate"),
        (r"temp|body temperature", "temperature"),
        (r"x[- ]?rays?|radiographs?|radiography", "xray"),
        (r"ct|cat scan|computed tomography", "ct"),
        (r"mri|magnetic resonance imaging", "mri"),
        (r"ecg|ekg|electrocardiogra(?:m|phy)", "ecg"),
        (r"echo|echocardiogra(?:m|phy)", "echocardiogram"),
        (r"ultrasonography|sonogra(?:m|phy)", "ultrasound"),
        (r"hgb|haemoglobin", "hemoglobin"),
        (r"neurologic(?:al)?", "neurologic"),
        (r"medicines?|medications?", "medication"),
        (r"smokes?|smoker|smoking|tobacco|cigarettes?", "smoking"),
        (r"alcohol|alcoholic drinks?|wine|beers?", "alcohol"),
    )
)  # fmt: skip
_SUFFIX = re.compile(r"(?<=\w{4})(?:ations?|ating|ated|ates?|ions?|ings?|ied|ies|ed|es|(?<![sui])s|e|ly|y)$")
_WORD = re.compile(r"[^\W\d_][^\W_]+")


def _root(word: str) -> str:
    return _SUFFIX.sub("", word)


def _roots(words: str) -> frozenset[str]:
    return frozenset(map(_root, words.split())) | frozenset(words.split())


STOP = _roots(
    """an the of in on at to for from by with and or as is are was were be been being it its this that these those he she
    his her him they their them you your yours me my we us who which what when where how why has have had having do does did
    there here any some about if can could would will shall may please tell show let get give take me also than then so more
    most very no not non nor neither never without denies denied deny denying absent absence negative patient case man woman
    male female boy girl child infant exam examination test finding result study comment ask check look perform order
    laboratory lab level count physical other mm mm3 hg mmhg mg dl ml kg cm lb oz meq mmol mcg ng pg deg min"""
)
# Words that open a fact and say little of what it is about; left out of a topic where others remain.
_OPENING = _roots(
    """history complain complaint present report show reveal note describe experience state year old month week day hour minute
    brought come physician doctor emergency department office clinic evaluation mother father recent last current ago
    significant notable diagnosed find found demonstrate appear within normal limit range"""
)


def plain(text: str) -> str:
    """Text for comparison: look-alike letters, case, quotes, possessives, hyphens and spaces made equal; symbols stay.

    >>> plain("Hirschsprung’s  disease."), plain("-0.45")
    ('hirschsprung disease', '-0.45')
    """
    text = unicodedata.normalize("NFC", text.translate(_LOOK_ALIKE)).casefold()
    text = re.sub(r"'s\b", "", re.sub(r"(?<=\w)-(?=\w)", " ", text))
    return " ".join(text.split()).rstrip(". ")


def _content(text: str) -> list[tuple[str, str]]:
    """(root, word) of a text in order: stop words, numbers and units left out, other names of one thing made equal."""
    folded = text.replace("_", " ").translate(_LOOK_ALIKE).casefold()
    for pattern, name in _SAME:
        folded = pattern.sub(name, folded)
    pairs = [(_root(word), word) for word in _WORD.findall(folded)]
    return [(root, word) for root, word in pairs if word not in STOP and root not in STOP]


@lru_cache(maxsize=200_000)
def content_words(text: str) -> tuple[str, ...]:
    """Roots of the content words of a text in order, each once. Two texts are compared by these.

    >>> content_words("Does she have a Heart_Rate above 90?"), content_words("any tests?")
    (('puls', 'abov'), ())
    """
    return tuple(dict.fromkeys(root for root, _ in _content(text)))


@lru_cache(maxsize=50_000)
def fact_words(topic: str, text: str) -> tuple[frozenset[str], frozenset[str]]:
    """(words of topic and text, words of the topic) of a fact."""
    named = frozenset(content_words(topic))
    return named | frozenset(content_words(text)), named


def own_topic(text: str) -> str:
    """What a fact without a topic is about: its first TOPIC_WORDS content words, opening words left out where others remain.

    >>> own_topic("2. The patient presents with a painful rash on both arms.")
    'painful rash both arms'
    """
    words = {root: word for root, word in reversed(_content(text))}
    telling = [root for root in content_words(text) if root not in _OPENING] or list(content_words(text))
    return " ".join(words[root] for root in telling[:TOPIC_WORDS])


def matching_facts(facts: Sequence[dict], request: str, kind: str | None = None) -> list[int]:
    """Places of the facts that a request names (ours): the best ones, all of them where several are as good.

    With R the request's content words, F a fact's and T its topic's: said = |R ∩ F| / |R|, named = |R ∩ T| / |T|. A fact matches
    where said >= SAID or named = 1; its rank is the larger of the two. So "vital signs" gives the whole group, "temperature"
    one of it, and "fever, chills or night sweats" each of the three. kind: facts of this kind alone; None takes all.
    """
    asked = set(content_words(request))
    if not asked:
        return []
    ranks = {}
    for place, fact in enumerate(facts):
        if kind not in (None, fact["kind"]):
            continue
        words, topic = fact_words(fact["topic"], fact["text"])
        said = len(asked & words) / len(asked)
        named = len(asked & topic) / len(topic) if topic else 0.0
        if said >= SAID or named == 1:
            ranks[place] = max(said, named)
    best = max(ranks.values(), default=None)
    return [place for place, rank in ranks.items() if rank == best]


# ---------------------------------------------------------------- diagnoses


def gold_names(gold: str) -> set[str]:
    """What an open diagnosis may be called: its text, its text without a bracket, and what stands in the bracket.

    >>> sorted(gold_names("Progressive multifocal encephalopathy (PML)"))
    ['pml', 'progressive multifocal encephalopathy', 'progressive multifocal encephalopathy (pml)']
    """
    names = {gold, re.sub(r"\s*\([^)]*\)", "", gold), *re.findall(r"\(([^)]*)\)", gold)}
    return {plain(name) for name in names if plain(name)}


def read_option(options: Sequence[str], text: str | None) -> str | None:
    """The option that a text names: by its letter ("B", "B.", "B. text") or by its text, and nothing else. None: none of them."""
    said = plain(text or "")
    lettered = re.fullmatch(r"\(?([a-j])[.):]*(?:\s+(.+))?", said)
    for letter, option in zip(LETTERS.casefold(), options, strict=False):
        if said == plain(option):
            return option
        if lettered and lettered[1] == letter and lettered[2] in (None, plain(option)):
            return option
    return None


def read_answer(patient: FactPatient, text: str | None) -> str | None:
    """`read_option`; an open diagnosis is the gold itself for one of its names, otherwise the text. None: unparsed, wrong."""
    if patient.options:
        return read_option(patient.options, text)
    said = plain(text or "")
    return (patient.gold if said in gold_names(patient.gold) else text) if said else None


# ---------------------------------------------------------------- AgentClinic

# Values that say that nothing is known; whole values only.
_NOTHING = re.compile(
    r"(?:n/?a|none|unknown|pending|not applicable(?: [\w ]{1,20})?|(?:information |data |details? )?not (?:been )?"
    r"(?:provided|specified|available|mentioned|indicated|performed|reported|assessed|given|done|stated)"
    r"(?: in the (?:scenario provided|scenario|case)| yet)?)\.?",
    re.IGNORECASE,
)
_PATIENT, _EXAMINED, _TESTED = "Patient_Actor", "Physical_Examination_Findings", "Test_Results"
_PARTS = {_PATIENT: "ask", _EXAMINED: "examine", _TESTED: "test"}
_TOLD_FIRST = (("Demographics",), ("Symptoms", "Primary_Symptom"))
_SILENT_KEYS = frozenset("findings finding results result comments".split())


def read_agentclinic(path) -> Reading:
    """Patients of AgentClinic's MedQA cases (JSON Lines of OSCE examinations); ids are "agentclinic-<line>".

    The complaint is age and sex with the primary symptom; the doctor's objective is not told, it often lists findings that
    are to be asked for. Values that say nothing ("N/A", "Pending") are left out and counted.
    FileNotFoundError, or ValueError where the file as a whole is no JSON Lines.
    """
    return _read(path, "agentclinic", lambda line, row: f"agentclinic-{line:04d}", _agentclinic_patient)


def _agentclinic_patient(name: str, row: dict, left_out: Counter) -> FactPatient:
    case = row.get("OSCE_Examination")
    if not isinstance(case, dict):
        raise Refused("no OSCE_Examination")
    gold = case.get("Correct_Diagnosis")
    if not isinstance(gold, str) or not gold.strip():
        raise Refused("no Correct_Diagnosis in words")
    told, facts = {}, []
    for part, kind in _PARTS.items():
        for keys, value in _leaves(case.get(part, {})):
            if isinstance(value, str) and _NOTHING.fullmatch(value.strip()):
                left_out[f"{kind}: says nothing"] += 1
            elif part == _PATIENT and keys in _TOLD_FIRST:
                told[keys] = str(value).strip().rstrip(".")
            else:
                facts.append(_leaf_fact(kind, keys, value))
    if _TOLD_FIRST[1] not in told:
        raise Refused("no primary symptom")
    if not facts:
        raise Refused("no facts")
    complaint = ". ".join(told[keys] for keys in _TOLD_FIRST if keys in told) + "."
    return FactPatient(
        name, "agentclinic", complaint, "What is the diagnosis?", (), gold.strip(), tuple(facts)
    )


def _leaves(value, keys=()) -> Iterator[tuple[tuple[str, ...], str | bool | int | float]]:
    """(path of keys, value) of every leaf of nested objects and lists; each item of a list has the list's path."""
    if isinstance(value, dict | list):
        pairs = value.items() if isinstance(value, dict) else ((None, item) for item in value)
        for key, item in pairs:
            yield from _leaves(item, keys if key is None else (*keys, key))
    elif value is None or not str(value).strip():
        yield keys, "N/A"
    else:
        yield keys, value


def _leaf_fact(kind: str, keys: tuple[str, ...], value) -> dict:
    """A leaf as a fact. Its topic is its path, so that two leaves of one name differ; a list's item adds its own words."""
    labels = [key.replace("_", " ").strip() for key in keys]
    labels = [label for label in labels if label.casefold() not in _SILENT_KEYS] or labels
    value = {True: "yes", False: "no"}[value] if isinstance(value, bool) else str(value).strip()
    topic = ", ".join(labels)
    if keys == ("History",):
        topic = "History of present illness"
    if keys == ("Symptoms", "Secondary_Symptoms"):
        topic = own_topic(value)
    return {"kind": kind, "topic": topic, "text": f"{labels[-1] if labels else topic}: {value}"}


# ---------------------------------------------------------------- mediQ

_NUMBERED = re.compile(r"^\s*(?:\d+\.\s+|-\s*(?=[^\W\d_]))")
_EXAMINED_WORDS = re.compile(
    r"\b(?:examin\w*|exam|temperature|temp|pulses?|heart rate|blood pressure|respirations?|respiratory rate|saturation|"
    r"vital signs|bmi|percentile|auscultation|palpation|percussion|inspection|murmurs?|breath sounds|bowel sounds|tender\w*|"
    r"reflex\w*|appears)\b",
    re.IGNORECASE,
)
_TESTED_WORDS = re.compile(
    r"\b(?:laborator\w*|labs?|studies|hemoglobin|hematocrit|leukocytes?|platelets?|serum|sodium|potassium|creatinine|glucose|"
    r"urinalysis|urine|cultures?|gram stain|biops\w*|histolog\w*|histopatholog\w*|x-rays?|radiograph\w*|ct|tomography|mri|"
    r"magnetic resonance|ultraso\w*|echocardiogra\w*|ecg|ekg|electrocardiogra\w*|eeg|emg|endoscop\w*|colonoscop\w*|"
    r"angiogra\w*|scans?|antibod\w*|titers?|counts?|assays?|screen\w*|smears?|spirometry|puncture|cerebrospinal|karyotype|"
    r"tests?|testing)\b|mg/dl|meq/l|/mm\^?3|u/l",
    re.IGNORECASE,
)  # fmt: skip


def kind_of(text: str) -> str:
    """How a mediQ fact would be learnt, read from its words (ours, a guess): for costs and counts, it withholds no answer."""
    if _EXAMINED_WORDS.search(text):
        return "examine"
    return "test" if _TESTED_WORDS.search(text) else "ask"


def read_mediq(path) -> Reading:
    """Patients of mediQ's files (JSON Lines); ids are "mediq-<file>-<id>". The first fact is the complaint.

    Numbers and dashes before a fact are taken off; headings ("Physical Examination:") are left out and counted. Refused: cases
    without facts beyond the first, options that read the same, an answer that is not the option of its letter.
    """
    stem = getattr(path, "stem", None) or re.sub(r"\.\w+$", "", str(path).rpartition("/")[2])
    return _read(path, "mediq", lambda line, row: f"mediq-{stem}-{row.get('id', line)}", _mediq_patient)


def _mediq_patient(name: str, row: dict, left_out: Counter) -> FactPatient:
    facts, options = row.get("facts"), row.get("options")
    if not isinstance(facts, list) or not all(isinstance(fact, str) for fact in facts) or not facts:
        raise Refused("no facts")
    if not isinstance(options, dict) or list(options) != list(LETTERS[: len(options)]) or len(options) < 2:
        raise Refused("options are not A, B, … in order")
    texts = tuple(str(text).strip() for text in options.values())
    if len(set(map(plain, texts))) < len(texts):
        raise Refused("two options read the same")
    letter = row.get("answer_idx")
    gold = str(options.get(letter, "")).strip() if isinstance(letter, str) else ""
    if not gold or plain(gold) != plain(str(row.get("answer"))):
        raise Refused("the answer is not the option of its letter")
    if not isinstance(row.get("question"), str) or not row["question"].strip():
        raise Refused("no question")
    said = [" ".join(_NUMBERED.sub("", fact).split()) for fact in facts]
    telling = [fact for fact in said if fact and not fact.endswith(":")]
    left_out["a heading, or empty"] += len(said) - len(telling)
    asked_for = [fact for fact in telling[1:] if content_words(fact)]
    left_out["no content words"] += len(telling[1:]) - len(asked_for)
    if not asked_for:
        raise Refused("one fact only: nothing to ask for")
    records = tuple({"kind": kind_of(fact), "topic": own_topic(fact), "text": fact} for fact in asked_for)
    return FactPatient(name, "mediq", telling[0], row["question"].strip().strip('"'), texts, gold, records)


def _read(path, source: str, name_of, patient_of) -> Reading:
    reading, seen = Reading(), set()
    for line, row in json_lines(path):
        name = None
        try:
            if isinstance(row, BadLine):
                raise Refused("not JSON")
            if not isinstance(row, dict):
                raise Refused("not an object")
            name = name_of(line, row)
            left_out = Counter()
            patient = patient_of(name, row, left_out)
            case = (patient.complaint, *(fact["text"] for fact in patient.facts))
            if name in seen or case in seen:
                raise Refused("an id or a case that was read before")
            seen |= {name, case}
        except Refused as error:
            reading.refused.append({"row": line, "id": name, "reason": str(error)})
            continue
        reading.patients.append(patient)
        reading.left_out.update({key: count for key, count in left_out.items() if count})
    if not reading.patients:
        raise ValueError(
            f"{path} gave no patient ({dict(reading.reasons()) or 'no row'}); expected {source}'s JSON Lines: give that file."
        )
    return reading
