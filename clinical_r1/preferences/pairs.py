"""Candidate answers -> preference pairs, at most one a question, every question that gives none counted under a name (ours).

Rules, by name (`RULES`):

    matched    of all pairs of two answers that are alike in tokens and in claims, the chosen with as many true claims at least,
               the one with the widest margin: what differs is whether claims are true, not how many are made
    extremes   the best against the worst (argmax, argmin): a control, which teaches to say less
    length     the longest against the shortest, whatever is said: a control

The other controls are data as well: a graph that does not know the patient is another judge
(`verdicts.ClinicGraph(know_patient=False)`), and `flipped` turns a share of the pairs round.

    rows = gather(questions, completions)           # completions: id, text, tokens, finish_reason
    pairs = build_pairs(rows, ClinicGraph(), held_out=held_out())
    check_enough(pairs, batch=8)
    write_pairs(path, pairs, made_from)             # and read_pairs(path)

The prompt of a pair is the plain one of style "chat", without whatever the graph told the policy when the answer was sampled:
what is learned is to know it.
"""

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import permutations
from math import isfinite

from clinical_r1.arms import CHAT
from clinical_r1.preferences.conversation import HeldOut
from clinical_r1.preferences.pair_files import Pair, Pairs, check_enough, read_pairs, write_pairs
from clinical_r1.preferences.verdicts import ClinicGraph, Counts, Miner, Verdicts, score
from clinical_r1.prompts import messages_of, render_question
from clinical_r1.questions import Question

__all__ = [
    "RULES", "Asked", "Candidate", "ClinicGraph", "Counts", "HeldOut", "Limits", "Pair", "Pairs", "Verdicts", "build_pairs",
    "check_enough", "gather", "read_pairs", "score", "write_pairs",
]  # fmt: skip

NOTHING = HeldOut()
STOP = "stop"  # the finish_reason of an answer that its model has ended: one that was cut has lost its box
LONGEST_CHOSEN = 1.5  # of rule "extremes": the chosen has at most so many times the tokens of the rejected


@dataclass(frozen=True)
class Candidate:
    """One sampled answer. tokens: how many it has, its end mark included or not, but alike for all."""

    text: str
    tokens: int
    finish_reason: str


@dataclass(frozen=True)
class Asked:
    """A question and the answers that were sampled for it, in any order."""

    question: Question
    candidates: tuple[Candidate, ...]


@dataclass(frozen=True)
class Limits:
    """What a pair must keep to. margin: the least difference in `Verdicts.value`, above 0 (2: one claim true instead of false);
    token_ratio: the most tokens that one side has, over the other's, 1 or more; claims_within: the most claims more, 0 or more;
    keep_true: the chosen makes as many true claims as the rejected at least.
    """

    margin: float = 2
    token_ratio: float = 1.25
    claims_within: int = 1
    keep_true: bool = True

    def __post_init__(self):
        fine = {
            "margin": isfinite(self.margin) and self.margin > 0,
            "token_ratio": isfinite(self.token_ratio) and self.token_ratio >= 1,
            "claims_within": isinstance(self.claims_within, int) and self.claims_within >= 0,
            "keep_true": isinstance(self.keep_true, bool),
        }
        if wrong := [f"{name} {getattr(self, name)!r}" for name, kept in fine.items() if not kept]:
            raise ValueError(
                f"pairs were asked for with {', '.join(wrong)}; expected a margin above 0, a token_ratio of 1 or more, "
                "claims_within 0 or more, keep_true True or False."
            )


Judged = tuple[Candidate, Verdicts]


def gather(questions: Iterable[Question], completions: Iterable[Mapping]) -> list[Asked]:
    """Completions, as `generate` writes them, by question: one row for each question, in the order of these.

    ValueError for a completion of another question, or without text, tokens or finish_reason.
    """
    by_id: dict[str, list[Candidate]] = {}
    questions = list(questions)
    known = {question.id for question in questions}
    for row in completions:
        if row.get("id") not in known:
            raise ValueError(
                f"a completion answers the question {row.get('id')!r}, which is none of the {len(known)} questions given; pass "
                "the questions that were asked."
            )
        text, tokens, reason = (row.get(name) for name in ("text", "tokens", "finish_reason"))
        if not isinstance(text, str) or not isinstance(tokens, int) or not isinstance(reason, str):
            raise ValueError(
                f"a completion of question {row['id']!r} has the tokens {tokens!r} and the finish_reason {reason!r}; expected a "
                "text, its number of tokens, and why it ended, such as 'stop': answer the questions again."
            )
        by_id.setdefault(row["id"], []).append(Candidate(text, tokens, reason))
    return [Asked(question, tuple(by_id.get(question.id, ()))) for question in questions]


# ------------------------------------------------------------------------------------------------- rules


def _matched(judged: Sequence[Judged], limits: Limits) -> tuple[Judged, Judged] | str:
    """The widest margin among pairs that keep to all limits, or the name of the limit that the last of them failed."""
    pairs = [pair for pair in permutations(judged, 2) if pair[0][1].value > pair[1][1].value]
    steps = (
        ("tie", lambda c, r: True),
        ("margin", lambda c, r: c[1].value - r[1].value >= limits.margin),
        ("all false", lambda c, r: c[1].true > 0),
        ("claims", lambda c, r: abs(c[1].claims - r[1].claims) <= limits.claims_within),
        ("fewer true", lambda c, r: c[1].true >= r[1].true or not limits.keep_true),
        ("length", lambda c, r: _within(c[0].tokens, r[0].tokens, limits.token_ratio)),
    )
    for name, keeps in steps:
        pairs = [pair for pair in pairs if keeps(*pair)]
        if not pairs:
            return name
    return min(pairs, key=_preferred)


def _within(tokens: int, others: int, ratio: float) -> bool:
    return max(tokens, others) <= ratio * min(tokens, others)


def _preferred(pair: tuple[Judged, Judged]):
    """The widest margin first, then the most alike in tokens; then by hash, which favours no kind of text."""
    (chosen, for_it), (rejected, against) = pair
    apart = abs(chosen.tokens - rejected.tokens)
    return against.value - for_it.value, apart, _digest(chosen.text), _digest(rejected.text)


def _extremes(judged: Sequence[Judged], limits: Limits) -> tuple[Judged, Judged] | str:
    """argmax and argmin of the score, with a margin, not both all false, the chosen not much longer (VERI-DPO, arXiv 2603.10494,
    names what such pairs lack).
    """
    best, worst = min(judged, key=_best_first), max(judged, key=_best_first)
    if best[1].value == worst[1].value:
        return "tie"
    if best[1].value - worst[1].value < limits.margin:
        return "margin"
    if not best[1].true:
        return "all false"
    return (best, worst) if best[0].tokens <= LONGEST_CHOSEN * worst[0].tokens else "length"


def _best_first(judged: Judged):
    return -judged[1].value, _digest(judged[0].text)


def _length(judged: Sequence[Judged], limits: Limits) -> tuple[Judged, Judged] | str:
    """The longest and the shortest."""
    order = sorted(judged, key=lambda one: (-one[0].tokens, _digest(one[0].text)))
    return (order[0], order[-1]) if order[0][0].tokens > order[-1][0].tokens else "tie"


RULES: dict[str, Callable] = {"matched": _matched, "extremes": _extremes, "length": _length}


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "backslashreplace")).hexdigest()


# ------------------------------------------------------------------------------------------------- building


def build_pairs(
    rows: Sequence[Asked],
    judge: Miner,
    *,
    margin: float = 2,
    token_ratio: float = 1.25,
    claims_within: int = 1,
    keep_true: bool = True,
    held_out: HeldOut = NOTHING,
    rule: str = "matched",
    flipped: float = 0.0,
    seed: int = 0,
    layout: str = "clinic",
) -> Pairs:
    """At most one pair for each row: len(rows) == len(pairs.rows) + sum(pairs.dropped.values()).

    judge: (question, text) -> Verdicts, or None where there is nothing to judge (`verdicts.Miner`). margin to keep_true:
        `Limits`; rule "extremes" reads the margin alone, rule "length" none of them.
    held_out: what no option and no claim of a pair names. flipped: share of the pairs, 0 to 1, whose sides are exchanged, drawn
        with `seed`. layout: of the prompt.
    The order of the candidates changes no pair; of two equal questions the first counts. ValueError for a limit that cannot be
    meant, or rows without a candidate.
    """
    limits = Limits(margin, token_ratio, claims_within, keep_true)
    if rule not in RULES or not 0 <= flipped <= 1:
        raise ValueError(
            f"pairs were asked for by rule {rule!r}, {flipped!r} of them flipped; expected one of {', '.join(RULES)} and 0 to 1."
        )
    if not any(row.candidates for row in rows):
        raise ValueError(
            f"got {len(rows)} questions without any candidate answer; sample some answers to each first."
        )
    dropped, kept, seen = Counter(), [], set()
    for row in rows:
        found = _pair_of(row, judge, RULES[rule], limits, held_out, layout, seen)
        if isinstance(found, str):
            dropped[found] += 1
        else:
            kept.append(found)
    made_with = {"rule": rule, "limits": vars(limits), "flipped": flipped, "seed": seed}
    made_with |= {"held_out": _listed(held_out), "judge": _identity(judge)}
    return Pairs(tuple(_flip(kept, flipped, seed)), dict(dropped), made_with)


def _pair_of(row: Asked, judge, rule, limits, held_out: HeldOut, layout: str, seen: set) -> Pair | str:
    """The pair of one question, or the name of why there is none."""
    question, asked = row.question, render_question(row.question)
    if asked in seen or question.id in seen:
        return "duplicate question"
    seen |= {asked, question.id}
    options, knows = set(question.options.values()), getattr(judge, "knows", None)
    if knows is not None and not all(map(knows, options)):
        return "unknown condition"
    if options & held_out.conditions:
        return "held out"
    whole = [candidate for candidate in row.candidates if candidate.finish_reason == STOP]
    if len(whole) < 2:
        return "cut"
    whole.sort(key=lambda one: (one.text, one.tokens))
    different = [
        one
        for one, before in zip(whole, [None, *whole], strict=False)
        if not before or one.text != before.text
    ]
    if len(different) < 2:
        return "same text"
    verdicts = [(candidate, _verdicts(judge, question, candidate.text)) for candidate in different]
    judged = [(candidate, found) for candidate, found in verdicts if found is not None]
    if len(judged) < 2:
        return "no claim"
    allowed = [one for one in judged if not _names(*one, held_out)]
    if len(allowed) < 2:
        return "held out"
    found = rule(allowed, limits)
    if isinstance(found, str):
        return found
    (chosen, for_it), (rejected, against) = found
    prompt = tuple(messages_of(question, CHAT, layout))
    return Pair(
        question.id, prompt, chosen.text, rejected.text, for_it, against, chosen.tokens, rejected.tokens
    )


def _verdicts(judge, question: Question, text: str) -> Verdicts | None:
    found = judge(question, text)
    if found is not None and not isinstance(found, Verdicts):
        raise ValueError(
            f"the judge gave {found!r} for question {question.id!r}; expected verdicts.Verdicts, or None where there is nothing "
            "to judge (a judge that counts measures is passed as verdicts.Counts(judge))."
        )
    return found


def _names(candidate: Candidate, found: Verdicts, held_out: HeldOut) -> bool:
    """Whether an answer names a condition that is held out, or a claim of it such a relation."""
    if held_out.relations and found.claims and not found.paths:
        raise ValueError(
            "relations are held out, and the judge does not say which claims it has found; hold out conditions alone, or take a "
            "judge that gives paths, such as verdicts.ClinicGraph()."
        )
    said = candidate.text.casefold()
    return any(condition.casefold() in said for condition in held_out.conditions) or any(
        path.condition in held_out.conditions or path.relation in held_out.relations for path in found.paths
    )


def _flip(pairs: list[Pair], share: float, seed: int) -> list[Pair]:
    """The sides of this share of the pairs exchanged: those whose ids come first by hash."""
    order = sorted(pair.id for pair in pairs)
    order.sort(key=lambda name: _digest(f"{seed}|{name}"))
    chosen = set(order[: round(share * len(order))])
    return [pair.exchanged() if pair.id in chosen else pair for pair in pairs]


def _listed(held_out: HeldOut) -> dict:
    relations = sorted(map(list, held_out.relations))
    return {"conditions": sorted(held_out.conditions), "relations": relations}


def _identity(judge) -> dict:
    name = getattr(judge, "__name__", type(judge).__name__)
    return dict(getattr(judge, "identity", {"judge": name}))
