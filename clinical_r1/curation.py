"""Curation: every known trap of the raw benchmarks under a named check, and a quarantine instead of deletion.

    curate(questions, against=held_out) -> Curated(questions, quarantined, report)

Matching always works on a folded copy (`fold`); the questions themselves are never rewritten. Symbols are
never stripped: "Increasing α" and "Increasing β", "-0.45" and "0.45", "Na+ ↑" and "Na+ ↓" stay different.
"""

import math
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

from clinical_r1.files import write_jsonl
from clinical_r1.questions import CLINIC, RELEASES, Quarantined, Question, load_benchmark, write_questions

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
_HOMOGLYPH = re.compile(f"[{''.join(_CYRILLIC)}]|{_MIXED_WORD.pattern}")


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


def _exact_key(question: Question):
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


# ---------------------------------------------------------------- the checks


@dataclass(frozen=True)
class Check:
    """One line of meaning; action "quarantine" and "report" happen in curate, "load" in the loader.

    traps: numbers of the known traps of the raw data that it answers. finds: for checks of one question.
    """

    meaning: str
    action: str
    traps: tuple[int, ...] = ()
    finds: Callable[[Question], bool] | None = None


def _texts(q: Question) -> str:
    return " ".join([q.stem, *q.options.values()])


def _others(q: Question) -> list[str]:
    return [text for letter, text in q.options.items() if letter != q.answer]


def _distinct(texts: Iterable[str], key) -> bool:
    keys = [key(text) for text in texts]
    return len(set(keys)) == len(keys)


def _bare(text: str) -> str:
    """What a symbol-stripping matcher would see: to find where such a matcher fails, never to match."""
    return re.sub(r"[^a-z0-9]", "", fold(text))


def _contains(outer: str, inner: str) -> bool:
    return re.search(rf"(?<!\w){re.escape(inner)}(?!\w)", outer) is not None


def _words(text: str) -> str:
    return f" {' '.join(re.findall(r'[a-z0-9]+', fold(text)))} "


def _gold_substring(q: Question) -> bool:
    gold = _words(q.options[q.answer]) if q.answer else "  "
    others = [_words(text) for text in _others(q)]
    return gold.strip() != "" and any(o != gold and o.strip() and (o in gold or gold in o) for o in others)


_ALL = re.compile(r"all(?: the| of)*(?: (?:above|these|those|the following))?(?: are)?(?: true| correct)?\.?")
_NONE = re.compile(r"none(?: the| of)*(?: (?:above|these|those|the following))?\.?")
_LETTERS_ONLY = re.compile(r"[a-hj](?:(?:[\s,&+/-]|and)*[a-hj])*\.?")  # no i: IA and IIB are grades
_MARK = r"\(?(?:[1-5a-e]|i{1,3}|iv)\)?"
_POINTS = re.compile(rf"both (?:of )?(?:the )?above\.?|(?:both |only )?{_MARK}\s*(?:and|&|,)\s*{_MARK}")


def _offers(q: Question, pattern: re.Pattern) -> bool:
    return any(pattern.fullmatch(fold(text)) for text in q.options.values())


def _letter_options(q: Question) -> bool:
    texts = [t for t in map(fold, q.options.values()) if not _ALL.fullmatch(t) and not _NONE.fullmatch(t)]
    only_letters = len(texts) > 1 and all(_LETTERS_ONLY.fullmatch(text) for text in texts)
    return only_letters or any(_POINTS.fullmatch(text) for text in texts)


def pointing_options(options) -> tuple[str, ...]:
    """Letters of options without a meaning of their own: letters only, "both A and B", all or none of the above."""
    texts = {letter: fold(text) for letter, text in options.items()}
    points = [x for x, text in texts.items() if any(p.fullmatch(text) for p in (_ALL, _NONE, _POINTS))]
    rest = [x for x in texts if x not in points]
    only_letters = len(rest) > 1 and all(_LETTERS_ONLY.fullmatch(texts[x]) for x in rest)
    return tuple(texts) if only_letters else tuple(points)


_NEGATED = re.compile(
    r"\b(?:except|not|least|false|incorrect|untrue|wrong|contraindicated|unlikely|excluded)\b"
)
_FIGURE = re.compile(
    r"\b(?:image|photograph|photo|picture|pictured|figure|diagram|exhibit|graph|depicted"
    r"|shown (?:in|below|above|here))\b"
)
_STATED = re.compile(r"\W*(?:the )?(?:correct )?ans(?:wer)?\b[\W_]*(?:is|key)?[\W_]*([a-d1-4])\b")
_LOST_RT = re.compile(rf"\b(?:{'|'.join(sorted(map(re.escape, RT_VARIANTS), key=len, reverse=True))})\b")


def _explanation_disagrees(q: Question) -> bool:
    stated = _STATED.match(fold(q.meta.get("explanation") or ""))
    return bool(stated and q.answer) and "abcd1234".index(stated.group(1)) % 4 != "ABCD".index(q.answer)


def longest_option(q: Question) -> str:
    """Letter of the longest option text; the first of several."""
    return max(q.options, key=lambda letter: len(q.options[letter]))


# fmt: off
CHECKS = {
    # set aside by the loader, one row at a time
    "not_json": Check("a line that is not JSON", "load"),
    "wrong_schema": Check("fields of another benchmark, or none (swapped file names)", "load", (27,)),
    "option_count": Check("not the benchmark's number of options (4-option rows for 5)", "load", (2,)),
    "bad_answer": Check("an answer that is no option (cop 0 in a 1-based file stops the load)", "load", (1,)),
    "answer_text_disagrees": Check("the gold letter's option is not the gold text", "load", (2,)),
    "duplicate_id": Check("an id that stands twice in one file; the first is kept", "load"),
    # set aside by curate
    "no_gold": Check("no gold answer: unscorable (None), not wrong", "quarantine", (1,),
        lambda q: q.answer is None),
    "gold_option_duplicated": Check("the gold text is offered twice", "quarantine", (4,),
        lambda q: bool(q.answer) and option_key(q.options[q.answer]) in map(option_key, _others(q))),
    "contradictory_duplicate": Check("same stem and options, another gold: all of them",
        "quarantine", (10, 16)),
    "exact_duplicate": Check("same stem and options as an earlier question, whatever its split or benchmark",
        "quarantine", (10, 11, 30)),
    "contaminated": Check("equals a question of `against`, or shares half its 5-grams",
        "quarantine", (12, 13, 14, 15)),
    # reported, and kept
    "multi_choice": Check("labelled multi, one key only: give accuracy with and without", "report", (3,),
        lambda q: q.meta.get("multi", False)),
    "duplicate_options": Check("two options with the same text, case and full stop folded", "report", (4,),
        lambda q: not _distinct(q.options.values(), option_key)),
    "not_recalled_option": Check("an option reads Not Recalled", "report", (4,),
        lambda q: any("not recalled" in fold(text) for text in q.options.values())),
    "options_collide_without_symbols": Check("options alike once symbols are stripped", "report", (5,),
        lambda q: _distinct(q.options.values(), option_key) and not _distinct(q.options.values(), _bare)),
    "gold_collides_without_symbols": Check("the gold is one of them", "report", (5,),
        lambda q: _distinct(q.options.values(), option_key)
        and bool(q.answer) and _bare(q.options[q.answer]) in map(_bare, _others(q))),
    "gold_substring": Check("the gold's words contain a distractor's, or the reverse", "report", (6,),
        _gold_substring),
    "letter_options": Check("options are letters or point to options: never shuffle", "report", (7,),
        _letter_options),
    "all_of_the_above": Check("an option is All (of the above): never shuffle", "report", (7,),
        lambda q: _offers(q, _ALL)),
    "none_of_the_above": Check("an option is None (of the above): never shuffle", "report", (7,),
        lambda q: _offers(q, _NONE)),
    "gold_in_stem": Check("the gold text stands word for word in the stem", "report", (8,),
        lambda q: bool(q.answer) and not _letter_options(q)
        and _contains(fold(q.stem), fold(q.options[q.answer]))),
    "longest_option_is_gold": Check("a guesser of the longest option would be right", "report", (),
        lambda q: q.answer == longest_option(q)),
    "negated_stem": Check("NOT, EXCEPT, LEAST ... anywhere in the stem (upper bound)", "report", (9,),
        lambda q: bool(_NEGATED.search(fold(q.stem)))),
    "figure_reference": Check("the stem speaks of a figure (upper bound; none is held)", "report", (9,),
        lambda q: bool(_FIGURE.search(fold(q.stem)))),
    "near_duplicate": Check("shares half its 5-grams with another question", "report", (10, 12, 14)),
    "homoglyphs": Check("Cyrillic or Greek look-alikes inside English words", "report", (18,),
        lambda q: bool(_HOMOGLYPH.search(_texts(q)))),
    "lost_rt": Check("words that lost their rt in transit (aery, hypeension)", "report", (19,),
        lambda q: bool(_LOST_RT.search(fold(_texts(q))))),
    "changed_by_nfkc": Check("NFKC would change the text (10³ to 103): prompt from raw", "report", (20,),
        lambda q: unicodedata.normalize("NFKC", _texts(q)) != _texts(q)),
    "nonbreaking_space": Check("holds a no-break space", "report", (20,),
        lambda q: "\xa0" in _texts(q)),
    "no_explanation": Check("the benchmark gives explanations, but not here", "report", (21,),
        lambda q: "explanation" in q.meta and not q.meta["explanation"]),
    "explanation_disagrees": Check("the explanation states another letter than the key", "report", (21,),
        _explanation_disagrees),
    "partial_release": Check("not the official number of rows of the split", "report", (22, 26)),
}
# fmt: on

# Traps of files that are not questions, and the module that answers for them.
ELSEWHERE = {
    23: "not loaded: mediQ's atomic facts serve only to test verifiers",
    24: "not loaded: AgentClinic's cases belong to the diagnostic agent",
    26: "scoring.score_all: completions must answer exactly the split's questions; no row drops out",
    27: "completions: degenerate text must parse to no letter",
    28: "completions.parse_mirage: letters with text, refusals and API errors",
    29: "completions.parse_mirage: several letters, empty lists; unparsed counts as wrong",
}
KEEP_ORDER = ("letter_options", "all_of_the_above", "none_of_the_above")


@dataclass(frozen=True)
class Curated:
    """questions: the kept, with meta["checks"] and meta["shuffle_ok"]. report: one row per check."""

    questions: list[Question]
    quarantined: list[Quarantined]
    report: list[dict]


def curate(questions: Sequence[Question], against: Sequence[Question] = ()) -> Curated:
    """Set aside what would spoil training or scoring, and report the rest by name.

    len(questions) == len(kept) + len(quarantined), always; a question is set aside for the first reason in
    the order of CHECKS. `against` are held-out questions: whatever matches one of them (same stem and
    options, same stem and gold text, or 5-gram Jaccard >= 0.5) is set aside. So give `against` for training
    pools; to look at the overlap of two evaluation sets, whose denominators must not change, read
    `similar_pairs`. Scores on an evaluation set belong to the whole set. Report rows: check, action, traps,
    count, ids (the first five), meaning. Counts of report checks cover all questions.
    """
    found: dict[str, dict[int, str]] = {name: {} for name in CHECKS}
    for name, check in CHECKS.items():
        if check.finds:
            found[name] = {i: check.meaning for i, question in enumerate(questions) if check.finds(question)}
    _find_duplicates(questions, found)
    if against:
        _find_contaminated(questions, against, found["contaminated"])

    setting_aside = [name for name, check in CHECKS.items() if check.action == "quarantine"]
    reporting = [name for name, check in CHECKS.items() if check.action == "report"]
    kept, quarantined = [], []
    for i, question in enumerate(questions):
        reason = next((name for name in setting_aside if i in found[name]), None)
        if reason is None:
            flags = [name for name in reporting if i in found[name]]
            meta = question.meta | {"checks": flags, "shuffle_ok": not set(flags) & set(KEEP_ORDER)}
            kept.append(replace(question, meta=meta))
        else:
            quarantined.append(_set_aside(question, reason, found[reason][i]))
    counts = Counter(row.check for row in quarantined)
    report = [
        _report_row(
            name,
            counts[name] if name in setting_aside else len(found[name]),
            [questions[i].id for i in sorted(found[name])[:5]],
        )
        for name in [*setting_aside, *reporting]
        if name != "partial_release"
    ]
    return Curated(kept, quarantined, [*report, _partial_release(questions)])


def _set_aside(q: Question, check: str, reason: str) -> Quarantined:
    return Quarantined(
        check, reason, q.benchmark, q.split, q.id, q.meta.get("file"), q.meta.get("line"), q.to_json()
    )


def _find_duplicates(questions, found) -> None:
    groups = defaultdict(list)
    for i, question in enumerate(questions):
        groups[_exact_key(question)].append(i)
    for group in groups.values():
        group.sort(key=lambda i: questions[i].answer is None)  # keep the first that has a gold answer
        golds = {option_key(questions[i].options[questions[i].answer]) for i in group if questions[i].answer}
        for i in group[len(golds) < 2 :]:  # contradictory: every side; otherwise all but the first
            others = [questions[j].id for j in group if j != i]
            if len(golds) > 1:
                found["contradictory_duplicate"][i] = f"same question as {others}, golds {sorted(golds)}"
            else:
                found["exact_duplicate"][i] = f"same question as {questions[group[0]].id}"
    for i, j, similarity in similar_pairs(questions):
        if _exact_key(questions[i]) != _exact_key(questions[j]):
            for one, other in ((i, j), (j, i)):
                found["near_duplicate"].setdefault(one, f"{similarity:.2f} of {questions[other].id}")


def _find_contaminated(questions, against, found) -> None:
    exact = {_exact_key(question): question.id for question in against}
    exact |= {_gold_key(question): question.id for question in against if question.answer}
    for i, question in enumerate(questions):
        same = exact.get(_exact_key(question)) or (question.answer and exact.get(_gold_key(question)))
        if same:
            found[i] = f"the same question as held-out {same}"
    for i, j, similarity in similar_pairs(questions, against):
        found.setdefault(i, f"{similarity:.2f} of its 5-grams shared with held-out {against[j].id}")


def _gold_key(question: Question):
    """Catches the same question with other distractors; mere templates differ in their gold."""
    return stem_tokens(question.stem), option_key(question.options[question.answer])


def _partial_release(questions) -> dict:
    sizes = Counter((question.benchmark, question.split) for question in questions)
    wrong, count = [], 0
    for (name, split), n in sizes.items():
        official = RELEASES[name].rows.get(split) if name in RELEASES else None
        if official is not None and n != official:
            wrong.append(f"{name} {split}: {n} of {official}")
            count += abs(official - n)
    return _report_row("partial_release", count, wrong)


def _report_row(name: str, count: int, ids: list[str]) -> dict:
    check = CHECKS[name]
    return {
        "check": name,
        "action": check.action,
        "traps": check.traps,
        "count": count,
        "ids": ids,
        "meaning": check.meaning,
    }


def free_baselines(questions: Sequence[Question]) -> dict:
    """Rates in [0, 1] that cost nothing, to stand beside every accuracy.

    n counts the questions with a gold answer; with none, the three rates are None. Majority is measured on
    the same questions, so it is the best any constant letter can do.
    """
    labelled = [question for question in questions if question.answer]
    n = len(labelled)
    if not n:
        return {"n": 0, "chance": None, "majority_letter": None, "majority": None, "longest_option": None}
    letter, votes = max(sorted(Counter(q.answer for q in labelled).items()), key=lambda item: item[1])
    return {
        "n": n,
        "chance": math.fsum(1 / len(q.options) for q in labelled) / n,
        "majority_letter": letter,
        "majority": votes / n,
        "longest_option": sum(q.answer == longest_option(q) for q in labelled) / n,
    }


# ------------------------------------------------------------------------- the question files of a run


def write_splits(settings, source=None) -> list[dict]:
    """Write every split that a run trains and tests on, and its quarantine; one row per file.

    Training pools are curated against the test sets and then cut to the profile's size; test sets stay whole, because a
    score belongs to the whole set. source: folder of official raw files (the clinic needs none); None is the Hub.
    Files: questions/<benchmark>.<split>.jsonl and questions/quarantine.jsonl.
    """
    quarantined: list[Quarantined] = []

    def load(name, split):
        questions = load_benchmark(name, split, None if name in CLINIC else source, quarantine=quarantined)
        return questions, {"benchmark": name, "split": split}

    tests = [load(name, "test" if name != "medmcqa" else "dev") for name in settings.benchmarks]
    rows = []
    for questions, row in tests:
        kept = questions[: settings.n_test]
        rows.append(row | {"split": "test", "questions": len(kept), "quarantined": 0})
        rows[-1]["file"] = str(write_questions(settings.questions_path(row["benchmark"], "test"), kept))
    held_out = [question for questions, _ in tests for question in questions]
    for split, n in (("sft", settings.n_sft), ("rl", settings.n_rl)):
        questions, row = load(settings.train_benchmark, split)
        curated = curate(questions, against=held_out)
        quarantined += curated.quarantined
        kept = curated.questions[:n]
        rows.append(row | {"questions": len(kept), "quarantined": len(curated.quarantined)})
        rows[-1]["file"] = str(
            write_questions(settings.questions_path(settings.train_benchmark, split), kept)
        )
    path = settings.run_dir / "questions" / "quarantine.jsonl"
    write_jsonl(path, [item.to_json() for item in quarantined])
    return rows


def ensure_splits(settings, source=None) -> None:
    """Write the run's question files unless they are there: a notebook opened by itself finds its questions."""
    wanted = [(settings.train_benchmark, "sft"), (settings.train_benchmark, "rl")]
    wanted += [(benchmark, "test") for benchmark in settings.benchmarks]
    if not all(settings.questions_path(*names).exists() for names in wanted):
        write_splits(settings, source)
