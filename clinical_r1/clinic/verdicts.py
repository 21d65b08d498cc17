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
from collections.abc import Iterable, Iterator
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
    """What is searched for begins with letters of its own, and what must not stand before it is looked at behind them: a pattern
    that begins with a thousand wordings tries them all at every character.
    """
    finding = f"({_alternatives(phrase_table())})"
    condition = f"({_alternatives(knowledge_base().conditions)})(?![\\w-])"
    return {
        "relation": re.compile(f" (supports|argues against) {condition}"),
        "citation": re.compile(f" favor {condition}"),
        "hypothesis": re.compile(
            f"(suspect(?<![\\w-]suspect)|on second thought consider(?<![\\w-]on second thought consider)) {condition}"
        ),
        "chain": re.compile(f"if(?<![\\w-]if) {condition} then expect {finding}(?![\\w-])"),
    }


@lru_cache(maxsize=1)
def _endings() -> dict[str, list[str]]:
    """The last three characters of a wording -> the wordings that end so, longest first: of one end, the leftmost beginnings."""
    endings: dict[str, list[str]] = {}
    for wording in sorted(phrase_table(), key=len, reverse=True):
        endings.setdefault(wording[-3:], []).append(wording)
    return endings


def _beginnings(text: str, start: int, end: int) -> Iterator[int]:
    """Where the wordings that end at `end` begin, the leftmost first, none before `start`."""
    for wording in _endings().get(text[max(start, end - 3) : end], ()):
        if end - len(wording) >= start and text.startswith(wording, end - len(wording)):
            yield end - len(wording)


def _free(text: str, place: int) -> bool:
    """Whether no word goes on at a place: neither a letter, a digit, an underscore nor a hyphen stands before it."""
    return place == 0 or not (text[place - 1].isalnum() or text[place - 1] in "_-")


def _relations(text: str) -> Iterator[tuple[Claim, bool, tuple[int, int]]]:
    """(claim, whether it is a check, (start, end)) of every "<finding phrase> supports|argues against <condition>", in order."""
    last = 0
    for verb in _grammar()["relation"].finditer(text):
        end = verb.start()
        begin = next((place for place in _beginnings(text, last, end) if _free(text, place)), None)
        if begin is not None:
            last, check = verb.end(), begin - len("check: ")
            sign = SUPPORTS if verb[1] == "supports" else AGAINST
            checked = text.startswith("check: ", check) if check >= 0 else False
            yield (
                Claim(*phrase_table()[text[begin:end]], sign, verb[2]),
                checked and _free(text, check),
                (begin, last),
            )


def _citations(text: str) -> Iterator[tuple[Claim, tuple[int, int]]]:
    """(claim, (start, end)) of every "<finding phrase> [and <finding phrase>] favor <condition>", in order: the leftmost reading
    of each. The first of two findings ends before " and "."""
    last, table = 0, phrase_table()
    for verb in _grammar()["citation"].finditer(text):
        end, readings = verb.start(), []
        for begin in _beginnings(text, last, end):
            if _free(text, begin):
                readings.append((begin, begin - end, ((begin, end),)))
            middle = begin - len(" and ")
            if middle >= last and text.startswith(" and ", middle):
                firsts = [place for place in _beginnings(text, last, middle) if _free(text, place)]
                readings += [(at, at - middle, ((at, middle), (begin, end))) for at in firsts]
        if readings:
            last = verb.end()
            for start, stop in min(readings)[-1]:
                written = start, last if stop == end else stop
                yield Claim(*table[text[start:stop]], SUPPORTS, verb[1]), written


def read_claims(text: str) -> tuple[Claim, ...]:
    """The distinct claims of a completion, in order of first appearance. Text outside the grammar is no claim."""
    return _in_order((claim for claim, *_ in _relations(text)), text)


def _in_order(related, text: str) -> tuple[Claim, ...]:
    return tuple(dict.fromkeys((*related, *(claim for claim, _ in _citations(text)))))


def find_claims(text: str) -> list[tuple[int, int, Claim]]:
    """(start, end, claim) of every place that states a claim, in the order of the text, repetitions included."""
    places = [(*span, claim) for claim, _, span in _relations(text)]
    places += [(*span, claim) for claim, span in _citations(text)]
    return sorted(places, key=lambda place: place[:2])


def verdict(claim: Claim, case: Case) -> str:
    """One of VERDICTS. The vignette is all that is known: citing what it does not state contradicts it."""
    if (claim.finding, claim.present) not in case.stated:
        return "contradicted_by_vignette"
    weight = case.weight(claim.finding, claim.present, claim.condition)
    if weight == 0:
        return "unverifiable"
    return "true" if weight * claim.direction > 0 else "contradicted_by_kb"


def read_vignette(stem: str) -> frozenset[tuple[str, bool]] | None:
    """The findings that a stem of `cases.vignette` states, as (finding, present); None for any other text."""
    wordings = stem.strip().removeprefix("Patient: ").removesuffix(".").split(", ")
    table = phrase_table()
    return frozenset(table[words] for words in wordings) if table.keys() >= set(wordings) else None


def tally(claims: Iterable[Claim], options: Iterable[str]) -> dict[str, int]:
    """{option: its claims that support it, minus those that argue against it}: distinct claims, each counted once, in the
    direction in which it is written, true or not. Claims about other conditions count for nothing.
    """
    totals = dict.fromkeys(options, 0)
    for claim in dict.fromkeys(claims):
        if claim.condition in totals:
            totals[claim.condition] += claim.direction
    return totals


def favoured(totals: dict[str, int]) -> str | None:
    """The option that stands alone at the top of a `tally`; None where two or more share the top."""
    best = [option for option, total in totals.items() if total == max(totals.values())]
    return best[0] if len(best) == 1 else None


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
    related = list(_relations(text))
    verdicts = {claim: verdict(claim, case) for claim in _in_order((claim for claim, *_ in related), text)}
    relevant = [claim for claim in verdicts if claim.condition in case.options]
    held, backtracks = None, set()
    for verb, condition in _grammar()["hypothesis"].findall(text):
        if verb != "suspect" and held is not None and condition != held:
            backtracks.add((held, condition))
        held = condition
    chains = {
        (condition, finding)
        for condition, finding in _grammar()["chain"].findall(text)
        if case.weight(*phrase_table()[finding], condition) > 0
    }
    checks = {c for c, checked, _ in related if checked and (c.finding, c.present) in case.stated}
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
