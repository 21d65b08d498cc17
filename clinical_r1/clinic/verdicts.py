"""Completions of the clinic -> claims, each with an exact verdict, and the eight process measures as counts.

One grammar serves the scripted writers (`traces`) and the judge:

    claim         <finding phrase> supports|argues against <condition>
    citation      <finding phrase> [and <finding phrase>] favor <condition>         (in a conclusion; claims as well)
    backtracking  on second thought consider <condition>
    chaining      if <condition> then expect <finding phrase>
    subgoal       one of SUBGOALS
    verification  check: <claim>

Verdicts are exact because the world is closed; a claim about a neutral relation is unverifiable, not false. The measures
carry the paper's names.
"""

import re
from dataclasses import dataclass
from functools import lru_cache

from clinical_r1.clinic.cases import Case, phrase
from clinical_r1.clinic.knowledge import knowledge_base

SUBGOALS = ("first weigh the symptoms", "next weigh the tests", "then rule out the rest")
VERDICTS = ("true", "contradicted_by_vignette", "contradicted_by_kb", "unverifiable")
SUPPORTS, AGAINST = 1, -1


@dataclass(frozen=True)
class Claim:
    """What a completion says about one finding and one condition, true or not."""

    finding: str
    present: bool
    direction: int  # SUPPORTS or AGAINST
    condition: str


@lru_cache(maxsize=1)
def phrase_table() -> dict[str, tuple[str, bool]]:
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
    finding = f"(?<![\\w-])({_alternatives(phrase_table())})"
    condition = f"({_alternatives(knowledge_base().conditions)})(?![\\w-])"
    return {
        "claim": re.compile(f"{finding} (supports|argues against) {condition}"),
        "citation": re.compile(f"{finding}(?: and {finding})? favor {condition}"),
        "hypothesis": re.compile(f"(?<![\\w-])(suspect|on second thought consider) {condition}"),
        "chain": re.compile(f"(?<![\\w-])if {condition} then expect {finding}(?![\\w-])"),
        "check": re.compile(f"(?<![\\w-])check: {finding} (supports|argues against) {condition}"),
    }


def _claims(pattern: str, text: str) -> list[Claim]:
    table = phrase_table()
    return [
        Claim(*table[finding], SUPPORTS if verb == "supports" else AGAINST, condition)
        for finding, verb, condition in _grammar()[pattern].findall(text)
    ]


def read_claims(text: str) -> tuple[Claim, ...]:
    """The distinct claims of a completion, in order of first appearance. Text outside the grammar is no claim."""
    table = phrase_table()
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


def claim_table(text: str, case: Case):
    """Every distinct claim that a completion makes, with its verdict: frame finding, direction, condition, verdict."""
    import pandas as pd

    rows = [
        {
            "finding": phrase(claim.finding, claim.present),
            "direction": "supports" if claim.direction == SUPPORTS else "argues against",
            "condition": claim.condition,
            "verdict": verdict(claim, case),
        }
        for claim in read_claims(text)
    ]
    return pd.DataFrame(rows, columns=["finding", "direction", "condition", "verdict"])


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
        if kb.effect(phrase_table()[finding][0], phrase_table()[finding][1], condition) == SUPPORTS
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
