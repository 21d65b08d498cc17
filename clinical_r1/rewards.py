"""One function per objective (paper section 3, eq. 4), in TRL's calling convention.

A reward is `(completions, **columns) -> list[float | None]`, one value per completion, in a stated range.
completions are strings or message lists; columns are the data set's, one value per completion; whatever else
TRL passes is ignored. None means "cannot be scored here", never zero. The weights stand apart, in
`REWARD_SETS`, so that every objective can be logged, ablated and tested under its own name.

All reading of text is done by `completions`; what the paper leaves open about the rewards themselves is in
`CHOICES`.
"""

import string
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from itertools import pairwise

from clinical_r1.completions import OFFICIAL_BOX, OFFICIAL_FORMAT, Completion, parse_completion, remove_box

MIN_CITED_WORDS = 2
MIN_CITED_SHARE = 0.5
MAX_CONCLUSION_WORDS = 60
MAX_CONCLUSION_SHARE = 0.5
MAX_INFERENCE_WORDS = 60

CHOICES = {  # where the paper is silent
    "accuracy": "1 if the one boxed letter is the answer, else 0; no negative values",
    "cross-reference": "take the conclusion's content words: no option words, no common or format words, "
    f"three letters or a digit. At least {MIN_CITED_WORDS} different ones must occur in System 2, and "
    f"either all of them do, or at least {MIN_CITED_SHARE:.0%} do and two that stand side by side in the "
    "conclusion stand so in System 2. 'no fever' is not 'fever'. One finding of two words is a citation, one "
    "bare word is not",
    "what can be cited": f"sentences of System 2 that infer: at most {MAX_INFERENCE_WORDS} words, with a word such as "
    "'supports', 'because', 'unlikely' (not a heap of them), and not copied word for word from the prompt. A list of "
    "findings, or the vignette again, is nothing to cite",
    "no repetition": "more than half of the content words that the conclusion says must be different ones: 'fever and "
    "chills, fever and chills' cites nothing",
    "no hedging": "a conclusion that names every option cites nothing; nor does one whose System 2 names several "
    "options and speaks against none",
    "no copying": f"a conclusion longer than {MAX_CONCLUSION_WORDS} words and also than "
    f"{MAX_CONCLUSION_SHARE:.0%} of the reasoning cites nothing",
    "effective token": "words split on white space; effective if every character is Latin, Greek, a European "
    "digit, punctuation or a medical or mathematical sign. In scripts written without spaces each character "
    "is one token",
    "summary bonus (GRPO)": "+0.5 if the answer section holds the one box and says something besides, as in "
    "the official code",
}

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


def accuracy_reward(completions, answer, style="crpo", **columns) -> list[float | None]:
    """r_acc of paper eq. 4, in {0, 1}: the one boxed letter is the answer. No letter is 0; no answer is None.

    answer: the correct letter of each question, or None where it is not known. style: of all, or one per
    completion.
    """
    count = len(completions)
    styles = [style] * count if isinstance(style, str) else style
    _same_length(count, answer=answer, style=styles)
    parsed = (_parse(_text(completion), style) for completion, style in zip(completions, styles, strict=True))
    return [None if a is None else float(p.letter == a) for p, a in zip(parsed, answer, strict=True)]


def thinking_format_reward(completions, **columns) -> list[float]:
    """GRPO's format term, in {0, 1, 1.5}: well-formed <think>/<answer>, +0.5 for a summary."""
    rewards = []
    for completion in completions:
        parsed = _parse(_text(completion), "grpo")
        rewards.append((1.0 + 0.5 * _has_summary(parsed)) if parsed.well_formed else 0.0)
    return rewards


def clinical_reasoning_reward(completions, options, prompts=None, **columns) -> list[float | None]:
    """r_CR of paper eq. 4, in {0, 1, 1.5}: well-formed <dx>/<conclusion>, +0.5 if `cross_references`.

    options: letter -> text of each question; None where they are not known, which makes the completion
    unscorable. prompts: what was asked (TRL passes it), so that a copied vignette is no reasoning; None
    leaves that check out.
    """
    prompts = [""] * len(completions) if prompts is None else prompts
    _same_length(len(completions), options=options, prompts=prompts)
    rewards: list[float | None] = []
    for completion, choices, prompt in zip(completions, options, prompts, strict=True):
        parsed = _parse(_text(completion), "crpo")
        if choices is None:
            rewards.append(None)
        elif not parsed.well_formed:
            rewards.append(0.0)
        else:
            rewards.append(1.0 + 0.5 * cross_references(parsed, choices, _prompt_text(prompt)))
    return rewards


def consistency_reward(completions, **columns) -> list[float]:
    """r_cons of paper eq. 4, in [0, 1]: effective tokens / total tokens (`effective_share`); 0 if blank."""
    return [effective_share(_text(completion)) for completion in completions]


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


def _has_summary(parsed: Completion) -> bool:
    """Something is said besides the box, and there is exactly one box, in the answer section."""
    if {"no_box", "several_boxes", "box_outside_conclusion"}.intersection(parsed.problems):
        return False
    return any(map(str.isalnum, remove_box(parsed.conclusion)))


# ------------------------------------------------------------------------------------------------ consistency

# Unicode blocks (first, last) of effective characters; all else is another script, an emoji or a control.
EFFECTIVE_BLOCKS = (
    (0x21, 0x7E),  # ASCII
    (0xA1, 0x2FF),  # Latin with accents, phonetic letters; degree, micro, plus-minus, times
    (0x300, 0x3FF),  # combining accents, Greek
    (0x1E00, 0x1FFF),  # more Latin and Greek
    (0x2010, 0x2027),  # dashes, quotation marks, bullets
    (0x2030, 0x205E),  # per mille, primes
    (0x2070, 0x218F),  # super- and subscripts, currency, letter-like signs, fractions, Roman numerals
    (0x2190, 0x22FF),  # arrows, mathematics
    (0x2640, 0x2642),  # female, male
    (0x27F0, 0x27FF),  # long arrows
    (0xFB00, 0xFB06),  # Latin ligatures
)
UNSPACED_BLOCKS = (
    (0xE00, 0xEFF),  # Thai, Lao
    (0x1000, 0x109F),  # Myanmar
    (0x1780, 0x17FF),  # Khmer
    (0x2E80, 0xA4CF),  # Chinese, Japanese
    (0xAC00, 0xD7AF),  # Korean syllables
    (0xF900, 0xFAFF),  # Chinese, compatibility
    (0x20000, 0x3FFFF),  # Chinese, extensions
)
_EFFECTIVE = frozenset(chr(code) for first, last in EFFECTIVE_BLOCKS for code in range(first, last + 1))
_CONTROLS = bytes(code for code in (*range(32), 127) if not chr(code).isspace())


def effective_share(text: str) -> float:
    """Effective tokens / total tokens, in [0, 1]; 0 for blank text. `CHOICES` says what a token is.

    Clinical notation (>=, degrees, Greek letters) costs nothing, unlike in the official character ratio.
    """
    raw = text.encode("utf-8", "surrogatepass")
    printable = len(raw.translate(None, _CONTROLS)) == len(raw)
    if printable and text.isascii():
        return float(bool(text) and not text.isspace())
    tokens = text.split()
    doubtful = [token for token in tokens if not (printable and token.isascii())]
    effective = total = len(tokens) - len(doubtful)
    for token in doubtful:
        if _EFFECTIVE.issuperset(token):
            effective, total = effective + 1, total + 1
        else:
            spaced = [char for char in token if not _is_unspaced(char)]
            total += len(token) - len(spaced) + bool(spaced)
            effective += bool(spaced) and _EFFECTIVE.issuperset(spaced)
    return effective / total if total else 0.0


@lru_cache(maxsize=65_536)
def _is_unspaced(char: str) -> bool:
    return any(first <= ord(char) <= last for first, last in UNSPACED_BLOCKS)


# ------------------------------------------------------------------------------------------------ reward sets


@dataclass(frozen=True)
class RewardSet:
    """What one method optimises: K reward functions and their K weights, in the same order."""

    functions: tuple[Callable, ...]
    weights: tuple[float, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """The functions' names, which are the names of the logged metrics."""
        return tuple(function.__name__ for function in self.functions)


def _accuracy_in(style: str):
    """The accuracy reward bound to a style; a partial can be pickled, and TRL sees the function's name."""
    bound = partial(accuracy_reward, style=style)
    bound.__name__ = accuracy_reward.__name__
    return bound


REWARD_SETS = {
    # The paper's GRPO arms: accuracy and a generic thinking format; the official code's weights equal CRPO's.
    "grpo": RewardSet((_accuracy_in("grpo"), thinking_format_reward, consistency_reward), (10.0, 1.0, 0.5)),
    # Paper eq. 4 with k = 10; the maximum is 10 + 1.5 + 0.5 = 12.
    "crpo": RewardSet(
        (_accuracy_in("crpo"), clinical_reasoning_reward, consistency_reward), (10.0, 1.0, 0.5)
    ),
}


# --------------------------------------------------------------------------------------------- for comparison

_OFFICIAL_CHARACTERS = frozenset(string.ascii_letters + string.digits + string.punctuation + " \n")


def official_rule_score(text: str, answer: str) -> float:
    """The released GRPO reward (April 2025) in our own transcription; for comparison, it trains nothing.

    10 * accuracy (one box: 1 right, 0 wrong, -0.5 not a bare capital; -1 for one box without braces;
    otherwise minus the number of boxes) + format (1, +0.5 with a summary) + 0.5 * share of ASCII characters.
    From -inf to 12.
    """
    text = text.replace("<\\think>", "</think>").replace(
        "<\\answer>", "</answer>"
    )  # the released code repairs these
    boxes, count = OFFICIAL_BOX.findall(text), text.count("\\boxed")
    if count == len(boxes) == 1:
        bare = len(boxes[0]) == 1 and boxes[0] in string.ascii_uppercase
        accuracy = float(boxes[0] == answer) if bare else -0.5
    else:
        accuracy = -float(count)
    well_formed = OFFICIAL_FORMAT.match(text)
    body = well_formed.group(1) if well_formed else ""
    summary = len(OFFICIAL_BOX.findall(body)) == 1 and bool(OFFICIAL_BOX.sub("", body).strip())
    english = sum(map(_OFFICIAL_CHARACTERS.__contains__, text)) / len(text) if text else 0.0
    return 10 * accuracy + bool(well_formed) + 0.5 * summary + 0.5 * english


# ----------------------------------------------------------------------------------------- calling convention

_parse = lru_cache(maxsize=2048)(parse_completion)  # the K rewards of a batch read the same texts


def _text(completion) -> str:
    """A completion as text: itself, or what the assistant said last in a message list."""
    if isinstance(completion, str):
        return completion
    for message in reversed(completion):
        if message["role"] == "assistant":
            content = message["content"]
            if isinstance(content, str):
                return content
            return "".join(part.get("text") or "" for part in content or ())
    raise ValueError(
        f"completion {completion!r} holds no assistant message; expected a string or a message list with one."
    )


def _prompt_text(prompt) -> str:
    """A prompt as text: itself, or all that its messages say."""
    if isinstance(prompt, str):
        return prompt
    return "\n".join(m["content"] for m in prompt if isinstance(m["content"], str))


def _same_length(count: int, **columns: Sequence) -> None:
    for name, values in columns.items():
        if len(values) != count:
            raise ValueError(
                f"column {name!r} has {len(values)} values for {count} completions; pass one a completion."
            )
