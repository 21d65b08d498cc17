"""One function per objective (paper section 3, eq. 4), in TRL's calling convention.

A reward is `(completions, **columns) -> list[float | None]`, one value per completion, in a stated range.
completions are strings or message lists; columns are the data set's, one value per completion; whatever else
TRL passes is ignored. None means "cannot be scored here", never zero. The weights stand apart, in
`REWARD_SETS`, so that every objective can be logged, ablated and tested under its own name.

All reading of text is done by `completions`; what the paper leaves open about the rewards themselves is in
`CHOICES`.
"""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache, partial, wraps

from clinical_r1.citation import (
    COPIED_SHARE,
    COPIED_WORDS,
    MAX_CONCLUSION_SHARE,
    MAX_CONCLUSION_WORDS,
    MAX_INFERENCE_WORDS,
    MIN_CITED_WORDS,
    MIN_STATED_SHARE,
    NAMED_SHARE,
    NEAR,
    NEAR_CITED,
    cross_references,
)
from clinical_r1.completions import Completion, parse_completion, remove_box
from clinical_r1.questions import LETTERS

CHOICES = {  # where the paper is silent
    "accuracy": "1 if the one boxed letter is the answer, else 0; no negative values",
    "what is cited": "the conclusion's content words: no option words, common words, format words, units or the patient's age "
    "and sex; "
    f"three letters or a number of two digits; endings such as -s, -ed, -ing do not matter. At least {MIN_CITED_WORDS} "
    "different ones must be stated by the vignette and said in System 2. What nearly every vignette has (pulse, "
    "temperature, examination, pain, right, normal …) is not counted, or once where a number is cited too",
    "the vignette": "the question in `prompts`, without our instructions, its options and, where there is more, its question "
    f"sentence. It must state at least {MIN_STATED_SHARE:.0%} of the conclusion's content words. A third of what is "
    f"cited must stand within {NEAR_CITED} words of something else that is cited there, and words said side by side within "
    f"{NEAR}: no words at random. With prompts None these checks are left out",
    "polarity": "'fever' and 'no fever' are two things, in the vignette, in System 2 and in the conclusion: no, not, without, "
    "denies, never, lacks, absence of, free of, negative for, 'is absent', 'was ruled out' … deny. A word that the vignette, or "
    "System 2, says in the opposite alone undoes the citation. 'Afebrile' is not known to deny fever",
    "what is reasoning": f"sentences of System 2 of at most {MAX_INFERENCE_WORDS} words with a word such as "
    "'supports' or 'unlikely' "
    "(not a "
    "heap of them) that speak for no other option; questions are none. One at least, with a cited word that is no "
    "number, names the boxed option and speaks for it, or another and speaks against it. Where the conclusion itself "
    "names the boxed option, a sentence that names none will do ('a whoop points to pertussis'), with three words "
    "that the vignette has not. A word said for another option too is none. 'This …' and 'Therefore …' go on with the "
    "sentence before; what 'would' or 'may' be speaks for the boxed option at most; 'if' speaks for nothing. If the "
    "question asks for the exception, for and against change places",
    "named": f"'option B', or {NAMED_SHARE:.0%} of the words that no other option has; of all its words, where it has none such",
    "one answer": "more sentences of System 2 must speak for the boxed option (less those against it) than for any other, "
    "or none "
    "for any and the conclusion names it; one said twice is counted once. The conclusion must not speak as much for "
    "another one, nor name them all",
    "no repetition": "more than half of the content words that the conclusion says must be different ones: 'fever and "
    "chills, fever and chills' cites nothing",
    "no copying": f"a sentence with {COPIED_SHARE:.0%} of the words of one of the vignette's (of {COPIED_WORDS} or more) is no "
    f"reasoning; a conclusion longer than {MAX_CONCLUSION_WORDS} words and also than {MAX_CONCLUSION_SHARE:.0%} of the reasoning "
    "cites nothing",
    "what no text rule can see": "whether a stated finding really speaks for the option that it is said to speak for: "
    "words copied from "
    "one place "
    "of the vignette, with 'supports option A', are paid whatever they mean. Nor a denial outside the words above "
    "('resolved', 'nil', 'of no relevance'), nor another patient's finding",
    "effective token": "words split on white space; effective if every character is Latin, Greek, a European "
    "digit, punctuation or a medical or mathematical sign. In scripts written without spaces each character "
    "is one token",
    "summary bonus (GRPO)": "+0.5 if the answer section holds the one box and says something besides, as in "
    "the official code",
}


def accuracy_reward(completions, answer, style="crpo", options=None, **columns) -> list[float | None]:
    """r_acc of paper eq. 4, in {0, 1}: the one boxed letter is the answer. No letter is 0; no answer is None.

    answer: the correct letter of each question, A to J, or None where it is not known; ValueError for anything else, which no
    completion could ever match. style: of all, or one per completion. options: of each question, as `read_options` reads them
    (TRL passes it), so that a box may hold an option's text; None where they are not known.
    """
    texts = completion_texts(completions)
    count = len(texts)
    styles = [style] * count if isinstance(style, str) else style
    options = [None] * count if options is None else options
    check_same_length(count, answer=answer, style=styles, options=options)
    items = [option_items(choices) for choices in options]
    check_answers(answer, items)
    parsed = (parse(text, style, choices) for text, style, choices in zip(texts, styles, items, strict=True))
    return [None if a is None else float(p.letter == a) for p, a in zip(parsed, answer, strict=True)]


def thinking_format_reward(completions, options=None, **columns) -> list[float]:
    """GRPO's format term, in {0, 1, 1.5}: well-formed <think>/<answer>, +0.5 for a summary.

    options changes nothing; with them the text is read once for this term and for accuracy.
    """
    texts = completion_texts(completions)
    options = [None] * len(texts) if options is None else options
    check_same_length(len(texts), options=options)
    parsed = (parse(text, "grpo", option_items(own)) for text, own in zip(texts, options, strict=True))
    return [(1.0 + 0.5 * has_summary(each)) if each.well_formed else 0.0 for each in parsed]


def clinical_reasoning_reward(completions, options, prompts=None, **columns) -> list[float | None]:
    """r_CR of paper eq. 4, in {0, 1, 1.5}: well-formed <dx>/<conclusion>, +0.5 if `cross_references`.

    options: of each question, as `read_options` reads them; None where they are not known, which makes the completion
    unscorable. prompts: what was asked (TRL passes it), whose vignette must state what is cited; None, for all or for one,
    leaves that check out.
    """
    texts = completion_texts(completions)
    count = len(texts)
    prompts = [None] * count if prompts is None else prompts
    options = [None] * count if options is None else options
    check_same_length(count, options=options, prompts=prompts)
    rewards: list[float | None] = []
    for text, choices, prompt in zip(texts, map(read_options, options), prompts, strict=True):
        parsed = parse(text, "crpo", choices and tuple(choices.items()))
        if choices is None:
            rewards.append(None)
        elif not parsed.well_formed:
            rewards.append(0.0)
        else:
            rewards.append(1.0 + 0.5 * cross_references(parsed, choices, prompt_text(prompt)))
    return rewards


def consistency_reward(completions, **columns) -> list[float]:
    """r_cons of paper eq. 4, in [0, 1]: effective tokens / total tokens (`effective_share`); 0 if blank."""
    return [effective_share(text) for text in completion_texts(completions)]


def has_summary(parsed: Completion) -> bool:
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
    """What one method optimises: K reward functions and their K weights, in the same order.

    ranges: {function's name: (lowest, highest)} for the functions that state one; training stops at a value outside.
    """

    functions: tuple[Callable, ...]
    weights: tuple[float, ...]
    ranges: Mapping[str, tuple[float, float]] = field(default_factory=dict)

    def __post_init__(self):
        if not self.functions or len(self.functions) != len(self.weights):
            raise ValueError(
                f"a reward set got {len(self.functions)} functions and {len(self.weights)} weights; expected one weight a "
                "function, and at least one of each."
            )
        if not all(isinstance(w, int | float) and 0 <= w < math.inf for w in self.weights) or not any(
            self.weights
        ):
            raise ValueError(
                f"a reward set has the weights {self.weights}; expected finite numbers >= 0, not all of them 0."
            )
        if unnamed := [function for function in self.functions if not hasattr(function, "__name__")]:
            raise ValueError(f"{unnamed[0]!r} has no __name__, which the logs need; define it with def.")
        if len(set(self.names)) < len(self.names):
            raise ValueError(
                f"the reward functions are named {self.names}; expected a different name for each."
            )
        for name, limits in self.ranges.items():
            numbers = isinstance(limits, tuple | list) and all(isinstance(end, int | float) for end in limits)
            if not numbers or len(limits) != 2 or not limits[0] <= limits[1]:
                raise ValueError(f"the range of {name} is {limits!r}; expected (lowest, highest).")
        if unknown := sorted(set(self.ranges) - set(self.names)):
            raise ValueError(f"ranges name {unknown}; expected some of {self.names}.")

    @property
    def names(self) -> tuple[str, ...]:
        """The functions' names, which are the names of the logged metrics."""
        return tuple(function.__name__ for function in self.functions)


def total_reward(columns: Sequence[Sequence[float | None]], weights: Sequence[float]) -> list[float | None]:
    """Paper eq. 4 for any set of objectives: the weighted sum of each completion's rewards.

    columns: K lists of N rewards, None where unscorable. Returns N totals; an unscorable entry is left out of
    its sum, and a completion that no objective could score gets None. ValueError where K or N disagree.
    """
    if len(columns) != len(weights):
        raise ValueError(
            f"got {len(columns)} reward columns and {len(weights)} weights; expected one weight a column."
        )
    totals = []
    for row in zip(*columns, strict=True):
        scored = [weight * reward for weight, reward in zip(weights, row, strict=True) if reward is not None]
        totals.append(math.fsum(scored) if scored else None)
    return totals


def check_values(name: str, values, count: int, limits: tuple[float, float] | None = None) -> None:
    """ValueError, naming the reward, unless `values` holds a number within `limits`, or None, for each completion."""
    listed = hasattr(values, "__len__") and not isinstance(values, str | Mapping | set | frozenset)
    if not listed or len(values) != count:
        got = f"{len(values)} values" if listed else f"a {type(values).__name__}"
        raise ValueError(
            f"reward {name} gave {got} for {count} completions; expected a list, one number or None each."
        )
    low, high = limits or (-math.inf, math.inf)
    for value in values:
        if value is None:
            continue
        try:
            number = math.nan if isinstance(value, str) else float(value)
        except (TypeError, ValueError, OverflowError, RuntimeError):
            number = math.nan
        if not math.isfinite(number):
            raise ValueError(
                f"reward {name} gave {value!r}; expected a finite number, or None where it cannot be scored."
            )
        if not low <= number <= high:
            raise ValueError(
                f"reward {name} gave {number:g}; expected a value in its stated range [{low:g}, {high:g}]."
            )


def checked(function: Callable, limits: tuple[float, float] | None = None) -> Callable:
    """The function, its values checked before anybody averages them: NaN must not pass for "cannot be scored".

    It gets copies of the lists that all functions of a step share: what it does to them, no other function sees.
    """

    @wraps(function)
    def reward(completions, **columns):
        count = len(completions)
        own = {name: _copy(value) for name, value in (columns | {"completions": completions}).items()}
        values = function(**own)
        check_values(function.__name__, values, count, limits)
        return list(values)

    return reward


_BOXES, _TEXT_OR_NONE, _LETTERS = (list, dict), (str, type(None)), frozenset(LETTERS)


def _copy(value):
    """Lists and dicts, copied all the way down; anything else as it is."""
    if isinstance(value, list):
        return [_copy(item) if isinstance(item, _BOXES) else item for item in value]
    if isinstance(value, dict):
        return {key: _copy(item) if isinstance(item, _BOXES) else item for key, item in value.items()}
    return value


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


# ----------------------------------------------------------------------------------------- calling convention
@lru_cache(maxsize=2048)
def parse(text: str, style: str, options: tuple[tuple[str, str], ...] | None = None) -> Completion:
    """`parse_completion`, remembered, for the K rewards of a batch read the same texts. options: as `option_items` gives."""
    return parse_completion(text, style, dict(options) if options else None)


def option_items(options) -> tuple[tuple[str, str], ...] | None:
    """The options of one question in a form that can be remembered: (letter, text) pairs, as `read_options` reads them."""
    return None if options is None else tuple(read_options(options).items())


def completion_texts(completions) -> list[str]:
    """Each completion as text. ValueError for one text alone, whose characters are no completions."""
    if isinstance(completions, str | bytes | Mapping):
        raise ValueError(
            f"completions is one {type(completions).__name__}; expected a list, one text or message list each."
        )
    return [completion_text(completion) for completion in completions]


def completion_text(completion) -> str:
    """A completion as text: itself, or what the assistant said last in a message list. ValueError for anything else."""
    if isinstance(completion, str):
        return completion
    for message in [*completion][::-1] if hasattr(completion, "__len__") else ():
        if isinstance(message, Mapping) and message.get("role") == "assistant":
            return _said(message)
    raise ValueError(
        f"completion {completion!r} holds no assistant message; expected a string or a message list with one."
    )


def _said(message: Mapping) -> str:
    """What a message says, in one text or in parts; nothing where it calls a tool."""
    content = message.get("content")
    return content if isinstance(content, str) else "".join(part.get("text") or "" for part in content or ())


def check_answers(answers, options=None) -> None:
    """ValueError unless each is one letter A to J, or None: an option's text, a small letter or an index would never be right.

    options: of each question, as `option_items` gives them; where they are known, the answer must be one of their letters.
    """
    for answer, choices in zip(answers, options or [None] * len(answers), strict=True):
        letters = LETTERS if choices is None else "".join(letter for letter, _ in choices)
        if answer is not None and not (isinstance(answer, str) and len(answer) == 1 and answer in letters):
            expected = f"A to {LETTERS[-1]}" if choices is None else f"of its options ({', '.join(letters)})"
            raise ValueError(
                f"the answer of a question is {answer!r}; expected one letter {expected}, or None."
            )


def read_options(options) -> Mapping[str, str] | None:
    """The options of one question as letter -> text, those without a text left out (Arrow pads with None). None stays None.

    options: a mapping by letter A to J, a list of texts (A, B, … by position), or either as JSON text. ValueError for others.
    """
    if options is None:
        return None
    read = options
    if isinstance(read, str):
        try:
            read = json.loads(read)
        except (ValueError, RecursionError):
            pass
    if isinstance(read, list | tuple) and len(read) <= len(LETTERS):
        read = dict(zip(LETTERS, read, strict=False))
    if isinstance(read, dict) or isinstance(read, Mapping):  # dicts are told much faster than other mappings
        texts = {}
        for letter, text in read.items():
            if not isinstance(letter, str) or letter not in _LETTERS or not isinstance(text, _TEXT_OR_NONE):
                break
            if text and not text.isspace():
                texts[letter] = text
        else:
            if texts:
                return texts
    raise ValueError(
        f"the options of a question are {shortened(options)}; expected letter -> text with letters A to {LETTERS[-1]}, a list of "
        "texts, JSON text of either, or None."
    )


def shortened(value, limit: int = 200) -> str:
    """A value as a message can quote it: its repr, at most so many characters and a mark where it was cut."""
    text = repr(value)
    return text if len(text) <= limit else f"{text[:limit]}…"


def prompt_text(prompt) -> str | None:
    """A prompt as text: itself, or all that its messages say. None stays None."""
    if prompt is None or isinstance(prompt, str):
        return prompt
    return "\n".join(map(_said, prompt))


def check_same_length(count: int, **columns: Sequence) -> None:
    """ValueError unless each column is a list that holds one value a completion."""
    for name, values in columns.items():
        if isinstance(values, str | Mapping) or not hasattr(values, "__len__"):
            raise ValueError(
                f"column {name!r} is {shortened(values)}; expected a list, one value a completion."
            )
        if len(values) != count:
            raise ValueError(
                f"column {name!r} has {len(values)} values for {count} completions; pass one a completion."
            )
