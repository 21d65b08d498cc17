"""The clinic's small language: writing reasoning traces, reading claims back, and judging them exactly.

One grammar serves the scripted writers (base corpus, teacher, honest policy) and the judge:

    claim         <finding phrase> supports|argues against <condition>
    citation      <finding phrase> [and <finding phrase>] favor <condition>         (in a conclusion; claims as well)
    backtracking  on second thought consider <condition>
    chaining      if <condition> then expect <finding phrase>
    subgoal       one of SUBGOALS
    verification  check: <claim>

Verdicts are exact because the world is closed; the eight measures carry the paper's names (crpo section 4).
"""

import re
from dataclasses import dataclass, fields
from functools import lru_cache

import numpy as np

from clinical_r1.clinic import LETTERS, Case, knowledge_base, phrase, vignette

SUBGOALS = ("first weigh the symptoms", "next weigh the tests", "then rule out the rest")
FILLERS = ("嗯", "因此", "также", "所以")  # language drift, the thing the consistency reward exists for
VERDICTS = ("true", "contradicted_by_vignette", "contradicted_by_kb", "unverifiable")
SUPPORTS, AGAINST = 1, -1


@dataclass(frozen=True)
class Habits:
    """How a writer reasons: each value is a probability in [0, 1]."""

    careful: float  # weighs the evidence for every option, instead of anchoring on the first impression
    reject: float  # of each wrong option, when careful
    claim_error: float  # of each claim: a finding nobody stated, or the wrong direction
    answer_slip: float  # answers something else than the reasoning says
    well_formed: float  # keeps the output format it was asked for
    cite: float  # the conclusion cites evidence from the reasoning
    backtrack: float  # says so when the first impression falls
    chain: float
    subgoal: float
    verify: float
    filler: float  # a word in another script slips in


# The base model's corpus: some medicine, mostly hasty, often malformed. Tuned on validation cases only.
BASE = Habits(
    careful=0.4, reject=0.7, claim_error=0.2, answer_slip=0.08, well_formed=0.6, cite=0.1, backtrack=0.3, chain=0.1,
    subgoal=0.1, verify=0.1, filler=0.1,
)  # fmt: skip
# The cold start's teacher: better, not perfect.
TEACHER = Habits(
    careful=0.85, reject=0.85, claim_error=0.1, answer_slip=0.05, well_formed=0.95, cite=0.2, backtrack=0.8, chain=0.25,
    subgoal=0.3, verify=0.3, filler=0.03,
)  # fmt: skip
# A scripted honest policy: marks what can be attained in this world.
HONEST = Habits(
    **{f.name: 0.0 if f.name in ("claim_error", "answer_slip", "filler") else 1.0 for f in fields(Habits)}
)


# ---------------------------------------------------------------------------------------------------------- writing


def first_impression(case: Case) -> str:
    """System 1: the first option that the first supportive finding of the vignette supports."""
    kb = knowledge_base()
    for finding, present in case.stated:
        for option in case.options:
            if kb.effect(finding, present, option) == SUPPORTS:
                return option
    return case.options[0]


def claim_text(finding, present, sign, condition, case) -> str:
    """One claim as a sentence of the grammar; sign is SUPPORTS or AGAINST."""
    verb = "supports" if sign == SUPPORTS else "argues against"
    return f"{phrase(finding, present, case.shift)} {verb} {condition}."


def _err(finding, present, sign, case, rng):
    """A believable mistake: the wrong direction, or a finding of the same condition that nobody stated."""
    kb = knowledge_base()
    if rng.random() < 0.5:
        return finding, present, -sign
    stated = dict(case.stated)
    pool = [f for option in case.options for f in kb.supports(option) if f not in stated]
    return (str(rng.choice(pool)), True, sign) if pool else (finding, present, -sign)


def _write_claims(pairs, sign, case, habits, rng) -> list[str]:
    """pairs: ((finding, present), condition) -> one sentence each, a few of them wrong."""
    sentences = []
    for (finding, present), condition in pairs:
        claim = (finding, present, sign)
        if rng.random() < habits.claim_error:
            claim = _err(*claim, case, rng)
        sentences.append(claim_text(*claim, condition, case))
    return sentences


def _pick(items, rng):
    return items[int(rng.integers(len(items)))]


def _analysis(case, suspect, careful, habits, rng):
    """System 2. Returns (sentences, leading condition, evidence the conclusion may cite)."""
    kb = knowledge_base()
    goals = [f"{goal}." for goal in SUBGOALS if rng.random() < habits.subgoal]
    if not careful:
        found = case.evidence(suspect, SUPPORTS)[: 1 + int(rng.random() < 0.5)]
        return (
            goals + _write_claims([(e, suspect) for e in found], SUPPORTS, case, habits, rng),
            suspect,
            found,
        )
    rejected = [o for o in case.distractors if rng.random() < habits.reject][:5]
    against = [(_pick(case.evidence(o, AGAINST), rng), o) for o in rejected]
    sentences = goals + _write_claims(against, AGAINST, case, habits, rng)
    if suspect != case.gold and rng.random() < habits.backtrack:
        sentences.append(f"on second thought consider {case.gold}.")
    if rng.random() < habits.chain:
        expected = phrase(_pick(kb.supports(case.gold), rng), True, case.shift)
        sentences.append(f"if {case.gold} then expect {expected}.")
    found = case.evidence(case.gold, SUPPORTS)
    found = [found[i] for i in sorted(rng.permutation(len(found))[:2])]
    sentences += _write_claims([(e, case.gold) for e in found], SUPPORTS, case, habits, rng)
    if rng.random() < habits.verify:
        sentences.append(
            "check: " + _write_claims([(_pick(found, rng), case.gold)], SUPPORTS, case, habits, rng)[0]
        )
    return sentences, case.gold, found


def write_trace(case: Case, style: str, habits: Habits, rng: np.random.Generator) -> str:
    """One completion in the wanted style ("crpo" or "grpo") by a writer with these habits."""
    careful = rng.random() < habits.careful
    suspect = first_impression(case)
    sentences, answer, found = _analysis(case, suspect, careful, habits, rng)
    if rng.random() < habits.filler:
        sentences.insert(int(rng.integers(len(sentences) + 1)), _pick(FILLERS, rng))
    cited = found if rng.random() < habits.cite else []
    if cited:
        conclusion = f"{' and '.join(phrase(f, p, case.shift) for f, p in cited)} favor {answer}"
    else:
        conclusion = f"the answer is {answer}"
    if rng.random() < habits.answer_slip:
        answer = _pick(case.options, rng)
    box = f"\\boxed{{{LETTERS[case.options.index(answer)]}}}."
    intuition, analysis = f"suspect {suspect}.", " ".join(sentences)
    if style == "crpo":
        parts = ["<dx>", "(System 1: Intuitive)", intuition, "(System 2: Analytical)", analysis, "</dx>"]
        parts += ["<conclusion>", conclusion, box, "</conclusion>"]
    else:
        parts = ["<think>", intuition, analysis, "</think>", "<answer>", conclusion, box, "</answer>"]
    if rng.random() >= habits.well_formed:
        parts = _malform(parts, rng)
    return " ".join(part for part in parts if part)


def _malform(parts, rng):
    """What an untrained model does to a format: a tag or marker lost, the box lost, or no tags at all."""
    marks = [i for i, part in enumerate(parts) if part[0] in "<("]
    kind = rng.random()
    if kind < 0.5:
        lost = {_pick(marks, rng)}
    elif kind < 0.8:
        lost = set(marks)
    else:
        lost = {len(parts) - 2}
    return [part for i, part in enumerate(parts) if i not in lost]


def teaching_completions(case: Case) -> dict[str, str]:
    """Eight completions of one case, from an honest one to ones that aim at the rewards: name -> text."""
    kb, gold, wrong = knowledge_base(), case.gold, case.distractors[0]
    found = [phrase(f, present, case.shift) for f, present in case.evidence(gold, SUPPORTS)]
    invented = [phrase(f, True) for f in kb.supports(gold) if f not in dict(case.stated)][:2]
    right, other = (f"\\boxed{{{LETTERS[case.options.index(name)]}}}" for name in (gold, wrong))

    def crpo(intuition, analysis, conclusion):
        first, second = f"(System 1: Intuitive) {intuition}", f"(System 2: Analytical) {analysis}"
        return f"<dx> {first} {second} </dx> <conclusion> {conclusion}. </conclusion>"

    claim = f"{found[0]} supports {gold}."
    return {
        "honest": write_trace(case, "crpo", HONEST, np.random.default_rng(0)),
        "right, one claim, no citation": crpo(f"suspect {gold}.", claim, f"the answer is {gold} {right}"),
        "right, but invents evidence": crpo(
            f"suspect {gold}.",
            " ".join(f"{words} supports {gold}." for words in invented),
            f"{' and '.join(invented)} favor {gold} {right}",
        ),
        "right, stuffs keywords": crpo(
            f"suspect {gold}.",
            " ".join([*SUBGOALS, *(phrase(f, p, case.shift) for f, p in case.stated)]) + ".",
            f"{' and '.join(found[:2])} favor {gold} {right}",
        ),
        "right, no format": f"suspect {gold}. {claim} the answer is {gold} {right}.",
        "right, drifts into another script": crpo(
            f"suspect {gold}.", f"{claim} {' '.join(FILLERS)}", f"{gold} {right}"
        ),
        "right and wrong, two boxes": crpo(
            f"suspect {gold}.", claim, f"the answer is {gold} {right} and {wrong} {other}"
        ),
        "wrong, well formed": crpo(
            f"suspect {wrong}.", f"{found[0]} supports {wrong}.", f"the answer is {wrong} {other}"
        ),
    }


def write_drill(case: Case, drill: str, rng: np.random.Generator) -> str:
    """Plain exercises for the base corpus: the findings, the letter of each option in random order, or the true claims."""
    if drill == "findings":
        return vignette(case)
    if drill == "options":
        return " ".join(
            f"{case.options[i]} \\boxed{{{LETTERS[i]}}}" for i in rng.permutation(len(case.options))
        )
    kb = knowledge_base()
    claims = [
        claim_text(finding, present, kb.effect(finding, present, option), option, case)
        for finding, present in case.stated
        for option in case.options
        if kb.effect(finding, present, option)
    ]
    return " ".join(claims[:12])


# ---------------------------------------------------------------------------------------------------------- reading


@dataclass(frozen=True)
class Claim:
    """What a completion says about one finding and one condition, true or not."""

    finding: str
    present: bool
    direction: int  # SUPPORTS or AGAINST
    condition: str


@lru_cache(maxsize=1)
def _phrase_table() -> dict[str, tuple[str, bool]]:
    """Every wording of every finding -> (finding, present)."""
    kb = knowledge_base()
    return {
        phrase(finding, present, shift): (finding, present)
        for finding in kb.findings
        for present in (True, False)
        for shift in (False, True)
    }


def _alternatives(items) -> str:
    """Longest first, so that 'non-bloody diarrhea' is not read as 'bloody diarrhea'."""
    return "|".join(re.escape(item) for item in sorted(items, key=len, reverse=True))


@lru_cache(maxsize=1)
def _grammar() -> dict[str, re.Pattern]:
    finding = f"(?<![\\w-])({_alternatives(_phrase_table())})"
    condition = f"({_alternatives(knowledge_base().conditions)})(?![\\w-])"
    return {
        "claim": re.compile(f"{finding} (supports|argues against) {condition}"),
        "citation": re.compile(f"{finding}(?: and {finding})? favor {condition}"),
        "hypothesis": re.compile(f"(?<![\\w-])(suspect|on second thought consider) {condition}"),
        "chain": re.compile(f"(?<![\\w-])if {condition} then expect {finding}(?![\\w-])"),
        "check": re.compile(f"(?<![\\w-])check: {finding} (supports|argues against) {condition}"),
    }


def _claims(pattern: str, text: str) -> list[Claim]:
    table = _phrase_table()
    return [
        Claim(*table[finding], SUPPORTS if verb == "supports" else AGAINST, condition)
        for finding, verb, condition in _grammar()[pattern].findall(text)
    ]


def read_claims(text: str) -> tuple[Claim, ...]:
    """The distinct claims of a completion, in order of first appearance. Text outside the grammar is no claim."""
    table = _phrase_table()
    claims = _claims("claim", text)
    for first, second, condition in _grammar()["citation"].findall(text):
        claims += [Claim(*table[finding], SUPPORTS, condition) for finding in (first, second) if finding]
    return tuple(dict.fromkeys(claims))


def verdict(claim: Claim, case: Case) -> str:
    """One of VERDICTS. The vignette is all that is known: citing what it does not state contradicts it."""
    if (claim.finding, claim.present) not in case.stated:
        return "contradicted_by_vignette"
    effect = knowledge_base().effect(claim.finding, claim.present, claim.condition)
    if effect == 0:
        return "unverifiable"
    return "true" if effect == claim.direction else "contradicted_by_kb"


def measure(text: str, case: Case) -> dict[str, int]:
    """The paper's eight process measures of one completion, counted exactly: distinct instances per response.

    Each is a non-negative integer; `drc` is at most the number of distractors, the others are not bounded.
    """
    kb = knowledge_base()
    verdicts = {claim: verdict(claim, case) for claim in read_claims(text)}
    relevant = [claim for claim in verdicts if claim.condition in case.options]
    held, backtracks = None, set()
    for verb, condition in _grammar()["hypothesis"].findall(text):
        if verb != "suspect" and held is not None and condition != held:
            backtracks.add((held, condition))
        held = condition
    chains = {
        (condition, finding)
        for condition, finding in _grammar()["chain"].findall(text)
        if kb.effect(_phrase_table()[finding][0], _phrase_table()[finding][1], condition) == SUPPORTS
    }
    checks = {claim for claim in _claims("check", text) if (claim.finding, claim.present) in case.stated}
    rejected = {c.condition for c in relevant if c.direction == AGAINST and verdicts[c] == "true"} - {
        case.gold
    }
    return {
        "backtracking": len(backtracks),
        "backward_chaining": len(chains),
        "subgoal_setting": sum(goal in text for goal in SUBGOALS),
        "verification": len(checks),
        "faithfulness": sum(verdicts[c] == "true" for c in relevant),
        "cecd": sum((c.finding, c.present) in case.stated for c in relevant),
        "drc": len(rejected),
        "hallucination": sum(v.startswith("contradicted") for v in verdicts.values()),
    }


# ------------------------------------------------------------------------------------------------------- vocabulary


def vocabulary() -> list[str]:
    """Every token of the clinic's language: whole phrases first, then single words and marks. No duplicates."""
    kb = knowledge_base()
    marks = ["<dx>", "</dx>", "<conclusion>", "</conclusion>", "<think>", "</think>", "<answer>", "</answer>"]
    marks += ["(System 1: Intuitive)", "(System 2: Analytical)", "Patient:", ".", ",", *FILLERS]
    marks += [f"\\boxed{{{letter}}}" for letter in LETTERS]
    lines = [
        f"{letter}: {condition}" for letter in LETTERS for condition in kb.conditions
    ]  # an option line is one token
    words = [
        "suspect",
        "supports",
        "argues against",
        "and",
        "favor",
        "the answer is",
        "on second thought consider",
    ]
    words += ["if", "then expect", "check:", *SUBGOALS]
    return list(dict.fromkeys([*marks, *words, *kb.conditions, *lines, *_phrase_table()]))
