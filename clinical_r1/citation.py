"""The + 0.5 of eq. 4: does a conclusion cite the reasoning before it? Its word lists and its limits.

`cross_references` decides by shared content words, sentence by sentence; `rewards.CHOICES` states the rule in words. Ours: the
paper names the bonus and leaves the rule open.
"""

from collections.abc import Mapping
from functools import lru_cache
from itertools import pairwise

from clinical_r1.completions import Completion, remove_box

MIN_CITED_WORDS = 2
MIN_CITED_SHARE = 0.5
MAX_CONCLUSION_WORDS = 60
MAX_CONCLUSION_SHARE = 0.5
MAX_INFERENCE_WORDS = 60

# Words that cite nothing: function words, the format's own words, and the phrases of any conclusion ("as
# noted above, the analysis of the findings supports the most likely diagnosis"). Words under three letters
# never count.
_FUNCTION_WORDS = """
about above after again against all almost along already also although among and another any are around
because been before being below best better between both but came can cannot case cases clear clearly come
compared could did does doing done due during each either else even ever every few for from fully further
furthermore given gives had has have having hence her here hers him his how however its itself just last
later least less let like made mainly make makes many may me might more moreover most much must neither
never next nor not now obvious off often once only other others our over overall own per rather really
same see seem seems several shall she should show showing shown shows since some still strongly such than
that the their them then there therefore these they thing this those though through thus together too
toward towards under until upon use used using very via was way well went were what when where whether
which while who whom whose why will with within without would yes yet you your
first second third one two three
"""
_REASONING_WORDS = """
analysed analysis analytical analyze analyzed answer answers argue argued argues boxed check checked
choice choices choose chosen conclude concluded concludes conclusion conclusively confirm confirmed
confirms consider considered considering consistent correct decide decided decides decision deliberate
described diagnose diagnosed diagnoses diagnosis diagnostic discussed dx evidence expect expected explain
explained explains fact facts favor favored favors favour favoured favours final finally finding findings
fit fits history hypotheses hypothesis impression inconsistent indicate indicated indicates indicating
information intuition intuitive know known leading likely match matched matches mentioned noted option
options part patient patients point pointing points presentation presented presenting presents previous
previously probable question reason reasoned reasoning reasons refer reject rejected rejects rest reveal
revealed reveals rule ruled rules section select selected stated step steps suggest suggested suggesting
suggests summary support supported supporting supports suspect suspected symptom symptoms system test
testing tests text think thinking thought unlikely vignette weigh weighed weighs wrong
"""
STOP_WORDS = frozenset(_FUNCTION_WORDS.split() + _REASONING_WORDS.split())

# A sentence that holds one of these relates a finding to something; a list of findings holds none.
_CONTRARY_WORDS = """
against atypical contradict contradicted contradicts contraindicated exclude excluded excludes excluding implausible
improbable incompatible inconsistent less rather reject rejected rejects rule ruled rules ruling unlikely unsupported
"""

# Of a finding as often as of an option.
_DENYING_WORDS = "although but cannot except however instead lack lacks neither nor not unlike whereas wrong"
_RELATING_WORDS = """
argue argued argues arguing because cause caused causes characteristic classic compatible confirm confirmed confirms
consistent consequently due expect expected explain explained explaining explains favor favored favoring favors
favour favoured favouring favours fit fits hence hallmark imply implies indicate indicated indicates indicating lead
leading leads likely make makes mean means point pointed pointing points raise raises require required requires
reveal reveals show shows since suggest suggested suggesting suggests support supported supporting supports
therefore thus treat treated treats typical
"""
CONTRARY_WORDS = frozenset(_CONTRARY_WORDS.split())
DENYING_WORDS = frozenset(_DENYING_WORDS.split())
SUPPORTING_WORDS = frozenset(
    "favor favors favour favours indicates points suggest suggests support supports".split()
)
INFERENCE_WORDS = CONTRARY_WORDS.union(DENYING_WORDS, SUPPORTING_WORDS, _RELATING_WORDS.split())

# -------------------------------------------------------------------------------------------- cross-reference

# In ASCII, everything but letters and digits separates words; the mark between sentences stays.
_STOP = "\x02"
_SEPARATE = bytes(
    code if code > 127 or chr(code).isalnum() or chr(code) == _STOP else 32 for code in range(256)
)
_TYPOGRAPHY = "\u2010\u2011\u2012\u2013\u2014\u2018\u2019\u201c\u201d\u2026\u2022\u00a0\u202f"
_NEGATIONS = (" no ", " without ", " denies ", " denial of ")


def cross_references(completion: Completion, options: Mapping[str, str | None], prompt: str = "") -> bool:
    """Whether the conclusion cites evidence of the analytical part, by the rule in `CHOICES`.

    Ours; the paper names the bonus and gives no rule. Repeating an option, or "as noted above", cites
    nothing. It cannot see whether the cited evidence is true or supports the answer: that is measured
    elsewhere. `redteam` holds the attacks that shaped it.
    """
    if not completion.analytical or not completion.conclusion:
        return False
    conclusion = words(remove_box(completion.conclusion))
    long = len(conclusion) > MAX_CONCLUSION_WORDS
    if long and len(conclusion) > MAX_CONCLUSION_SHARE * len(words(completion.dx)):
        return False
    names = _option_names("\n".join(text for text in options.values() if text))
    option_words = frozenset().union(*names)
    said = [word for word in conclusion if _has_content(word, option_words)]
    content = set(said)
    if 2 * len(content) <= len(said):
        return False
    sentences = _sentences(completion.analytical)
    inferences = [own for own in sentences if _infers(own, option_words) and not _is_copied(own, prompt)]
    if _hedges(conclusion, sentences, inferences, names):
        return False
    analysis = [word for own in inferences for word in (*own, _STOP)]  # no pair reaches over a full stop
    cited = content.intersection(analysis)
    if len(cited) < MIN_CITED_WORDS or len(cited) < MIN_CITED_SHARE * len(content):
        return False
    if len(cited) == len(content):
        return True
    pairs = {pair for pair in pairwise(conclusion) if cited.issuperset(pair)}
    return bool(pairs) and not pairs.isdisjoint(pairwise(analysis))


def words(text: str) -> list[str]:
    """Lower-case words; a negation is joined to the word it negates ("no_fever")."""
    return _separated(text).split()


def _separated(text: str) -> str:
    """The words with spaces between. Bytes make this several times faster than a pattern, which is why there is none."""
    if not text.isascii():
        for mark in _TYPOGRAPHY:
            text = text.replace(mark, " ")
    raw = text.lower().encode("utf-8", "surrogatepass").translate(_SEPARATE).decode("utf-8", "surrogatepass")
    raw = f" {raw}"
    for negation in _NEGATIONS:
        raw = raw.replace(negation, " no_")
    return raw


def _sentences(analysis: str) -> list[list[str]]:
    """The words of each sentence; a decimal point ends none."""
    marked = analysis.replace("\n", ". ").replace("; ", ". ").replace(". ", f" {_STOP} ")
    return [part.split() for part in _separated(marked).split(_STOP)]


def _infers(sentence: list[str], option_words: frozenset[str]) -> bool:
    """Whether a sentence relates a finding to something, by the rule in `CHOICES`; an option's own words do not."""
    cues = INFERENCE_WORDS.intersection(sentence) - option_words
    if len(cues) < 3 or len(sentence) > MAX_INFERENCE_WORDS:
        return bool(cues) and len(sentence) <= MAX_INFERENCE_WORDS
    is_cue = [word in cues for word in sentence]
    return sum(is_cue) <= len(sentence) // 5 and not any(
        all(is_cue[i : i + 4]) for i in range(len(sentence) - 3)
    )


def _hedges(conclusion, sentences, inferences, names: tuple[frozenset[str], ...]) -> bool:
    """Every option is named in the conclusion, or several are in the analysis and no inference speaks against one."""
    names = [name - STOP_WORDS for name in names if name - STOP_WORDS]
    if len(names) < 2:
        return False
    concluded, analysed = set(conclusion), set().union(*sentences)
    if all(name <= concluded for name in names):
        return True
    option_words = frozenset().union(*names)
    return sum(name <= analysed for name in names) > 1 and not any(
        _speaks_against(set(own) - option_words) for own in inferences
    )


def _speaks_against(sentence: set[str]) -> bool:
    """'not' and its like may belong to a finding: beside 'supports' they reject nothing."""
    if not CONTRARY_WORDS.isdisjoint(sentence):
        return True
    return not DENYING_WORDS.isdisjoint(sentence) and SUPPORTING_WORDS.isdisjoint(sentence)


def _has_content(word: str, option_words: frozenset[str]) -> bool:
    stem = word.removeprefix("no_")
    if stem in STOP_WORDS or stem in option_words:
        return False
    return len(stem) > 2 or any(map(str.isdigit, stem))


@lru_cache(maxsize=1024)
def _option_names(option_texts: str) -> tuple[frozenset[str], ...]:
    """The words of each option of a question: to say them again cites nothing."""
    return tuple(
        frozenset(word.removeprefix("no_") for word in words(text)) for text in option_texts.splitlines()
    )


def _is_copied(sentence: list[str], prompt: str) -> bool:
    return bool(prompt) and f" {' '.join(sentence)} " in _asked(prompt)


@lru_cache(maxsize=64)
def _asked(prompt: str) -> str:
    return f" {' '.join(words(prompt))} "
