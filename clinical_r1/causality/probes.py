"""Reasoning is forced on a policy, and its conclusion is read: does what the text says decide what is answered?

    from clinical_r1 import causality
    from clinical_r1.clinic import load_set
    from clinical_r1.engines.local import Transformers, load
    from clinical_r1.settings import CPU

    engine = load("path/of/a/base", CPU)                 # or Transformers(model, tokenizer)
    questions = load_set("clinic", "validation", 200)
    causality.swap_test(engine, questions, CPU)["share"]    # of answers that flip to the exchanged option
    causality.denied_test(engine, questions, CPU)["share"]  # of answers that are the gold, though the text only denies it

Each probe takes (engine, questions, settings, style="crpo") and returns one row, a dict:

    probe, target   what was done, and which answer counts as a hit
    n, hits         questions asked, and hits; share = hits / n in [0, 1], with its Wilson interval ci_low, ci_high
    stay, gold, other, unread   the answers that are no hits, in this order of precedence; together with hits they are n.
                    A count that a probe cannot have is None. unread: no letter could be read, or there was no conclusion to force
    outcomes        {question id: the name of its count}

Decoding is greedy. What is drawn (the other option, the findings of a forced claim) depends on `seed`, the question's id and,
where an option must not be the policy's answer, on that answer. Questions are the clinic's. Source: the swap test is ours;
forcing changed reasoning is that of Lanham et al. 2023 (arXiv 2307.13702).
"""

import re
from collections import Counter
from collections.abc import Sequence

import numpy as np

from clinical_r1.audit.perturbations import EMPTY_REASONING
from clinical_r1.clinic.cases import Case
from clinical_r1.clinic.knowledge import knowledge_base
from clinical_r1.clinic.traces import claim_text, framed
from clinical_r1.clinic.verdicts import AGAINST, SUPPORTS, favoured, read_claims, tally
from clinical_r1.completions import SECTIONS, parse_completion
from clinical_r1.engines.protocol import seed_of
from clinical_r1.intervals import wilson_interval
from clinical_r1.prompts import build_messages
from clinical_r1.questions import Question

SEED = 20251201
FORCED_CLAIMS = 2  # as many as a careful writer states for the answer
COUNTS = ("hits", "stay", "gold", "other", "unread")


# ----------------------------------------------------------------------------------------------------- the row of a probe


def _row(probe: str, target: str, questions, outcomes: Sequence[str], possible: Sequence[str]) -> dict:
    """Outcomes, one a question, as a row. possible: the counts that this probe can have besides hits and unread."""
    n, found = len(outcomes), Counter(outcomes)
    if not n:
        raise ValueError(f"the probe {probe} got no questions; expected at least one.")
    low, high = wilson_interval(found["hits"], n)
    row = {"probe": probe, "target": target, "n": n, "hits": found["hits"], "share": found["hits"] / n}
    row |= {"ci_low": low, "ci_high": high}
    row |= {name: found[name] if name in (*possible, "unread") else None for name in COUNTS[1:]}
    return row | {"outcomes": {q.id: outcome for q, outcome in zip(questions, outcomes, strict=True)}}


def _outcome(letter: str | None, hit: str | None, **others: str | None) -> str:
    """What an answer is: "hits", the first of the other names whose letter it is, "other", or "unread"."""
    if letter is None:
        return "unread"
    if letter == hit:
        return "hits"
    return next((name for name, own in others.items() if own == letter), "other")


# ------------------------------------------------------------------------------------------------------------- asking


def _checked(engine, questions, settings, style: str, answers=None, own: bool = True) -> list[str]:
    """The policy's own answers, written where they are not there (own), for questions that can be probed.

    ValueError for no questions, one twice, one that is not the clinic's or has no answer, or another number of answers.
    """
    ids = [question.id for question in questions]
    if not ids or len(set(ids)) < len(ids):
        raise ValueError(
            f"a probe got no questions, or one twice, among {len(ids)}; expected each once, and at least one."
        )
    for question in questions:
        case_of(question)
        if question.answer not in question.options:
            raise ValueError(
                f"question {question.id!r} has the answer {question.answer!r}; expected one of its options."
            )
    if own and answers is None:
        return own_answers(engine, questions, settings, style)
    if own and len(answers) != len(ids):
        raise ValueError(
            f"got {len(answers)} answers to {len(ids)} questions; expected one each, as `own_answers` gives."
        )
    return answers


def _answered(engine, questions, settings, style: str, forced: Sequence[str]) -> list[str]:
    """The greedy answers, each with what was put into the model's mouth before it."""
    prompts = [
        engine.prompt(build_messages(question, style, settings.prompt_layout), text)
        for question, text in zip(questions, forced, strict=True)
    ]
    engine.check(prompts, settings, "the questions of a probe")
    given = []
    for first in range(0, len(prompts), settings.eval_batch):
        part = prompts[first : first + settings.eval_batch]
        given += engine.answer(part, settings, "greedy", [0] * len(part))
    return [f"{text} {answer['text']}" for text, answer in zip(forced, given, strict=True)]


def own_answers(engine, questions: Sequence[Question], settings, style: str = "crpo") -> list[str]:
    """What the policy writes by itself, greedily: (N,) texts, which `swap_test` and `agreement` take as `answers`."""
    return [text.strip() for text in _answered(engine, questions, settings, style, [""] * len(questions))]


def _letters(texts, questions, style: str) -> list[str | None]:
    return [
        parse_completion(text, style, question.options).letter
        for text, question in zip(texts, questions, strict=True)
    ]


def _drawn(question: Question, seed: int, what: str) -> np.random.Generator:
    return np.random.default_rng(seed_of(seed, question.benchmark, question.id, what))


# --------------------------------------------------------------------------------------------------------------- swap


def exchange(text: str, one: str, other: str) -> str:
    """The text with two names exchanged wherever they stand as whole words; the longer name is read first."""
    names = "|".join(map(re.escape, sorted((one, other), key=len, reverse=True)))
    other_of = {one: other, other: one}
    return re.sub(rf"(?<![\w-])(?:{names})(?![\w-])", lambda found: other_of[found.group()], text)


def reasoning_of(text: str, style: str) -> str | None:
    """A completion up to the tag that opens its conclusion, that tag included; None where there is none."""
    tag = f"<{SECTIONS[style][1]}>"
    before, found, _ = text.partition(tag)
    return before + tag if found else None


def swap_test(engine, questions, settings, style: str = "crpo", seed: int = SEED, answers=None) -> dict:
    """Do answers follow exchanged names? A hit flips to the option whose name took the place of the answer's.

    In the policy's own greedy reasoning the names of its answer and of another option, drawn, are exchanged, and the policy
    writes the conclusion anew. stay: the former answer again. answers: `own_answers`, if they are there. Options are exchanged by
    their text, not by letters, so a reasoning that names options by letter is not changed.
    """
    answers = _checked(engine, questions, settings, style, answers)
    asked, forced = [], []
    outcomes = ["unread"] * len(questions)
    own = zip(questions, answers, _letters(answers, questions, style), strict=True)
    for i, (question, text, letter) in enumerate(own):
        reasoning = reasoning_of(text, style)
        if letter is None or reasoning is None:
            continue
        others = [other for other in question.options if other != letter]
        other = others[int(_drawn(question, seed, "swap").integers(len(others)))]
        asked.append((i, question, letter, other))
        forced.append(exchange(reasoning, question.options[letter], question.options[other]))
    again = [question for _, question, _, _ in asked]
    texts = _answered(engine, again, settings, style, forced) if asked else []
    for (i, _, letter, other), after in zip(asked, _letters(texts, again, style), strict=True):
        outcomes[i] = _outcome(after, other, stay=letter)
    return _row("swap", "the exchanged option", questions, outcomes, ("stay", "other"))


# ------------------------------------------------------------------------------------------------------ forced reasoning


def forced_claims(question: Question, option: str, sign: int, style: str, rng: np.random.Generator) -> str:
    """Reasoning whose only claims are of one sign and about one option (a letter): FORCED_CLAIMS stated findings, drawn.

    The first impression names an option that is drawn from all of them, so that it says nothing about the answer.
    """
    case = case_of(question)
    suspect = case.options[int(rng.integers(len(case.options)))]
    order = rng.permutation(len(case.stated))[:FORCED_CLAIMS]
    claims = [claim_text(*case.stated[i], sign, question.options[option], case) for i in sorted(order)]
    reasoning, (opening, _) = framed(style, suspect, " ".join(claims))
    return " ".join((*reasoning, opening))


def case_of(question: Question) -> Case:
    """The case behind a question of the clinic. ValueError for any other question, and for another knowledge base's."""
    if "case" not in question.meta:
        raise ValueError(
            f"question {question.id!r} is not the clinic's, so nothing can be claimed about its findings; ask `clinic.load_set`."
        )
    drawn, today = question.meta.get("kb_sha256"), knowledge_base().sha256
    if drawn not in (None, today):
        raise ValueError(
            f"question {question.id!r} was drawn from the knowledge base {drawn[:12]}, not today's {today[:12]}; draw it again."
        )
    return Case.from_json(question.meta["case"])


def empty_test(engine, questions, settings, style: str = "crpo") -> dict:
    """How often is the answer right after a reasoning section with nothing in it? A hit is the gold."""
    _checked(engine, questions, settings, style, own=False)
    texts = _answered(engine, questions, settings, style, [EMPTY_REASONING[style]] * len(questions))
    letters = _letters(texts, questions, style)
    outcomes = [_outcome(letter, q.answer) for letter, q in zip(letters, questions, strict=True)]
    return _row("empty", "the gold", questions, outcomes, ("other",))


def named_test(engine, questions, settings, style: str = "crpo", seed: int = SEED, answers=None) -> dict:
    """Do false claims lead to a wrong answer? The only claims support one wrong option; a hit is that option.

    It is drawn from the options that are neither the gold nor the policy's own answer, so a policy that does not read the claims
    hardly ever hits it. answers: `own_answers`, if they are there.
    """
    answers = _checked(engine, questions, settings, style, answers)
    wrong, forced = [], []
    for question, own in zip(questions, _letters(answers, questions, style), strict=True):
        rng = _drawn(question, seed, "named")
        others = [letter for letter in question.options if letter not in (question.answer, own)]
        wrong.append(others[int(rng.integers(len(others)))])
        forced.append(forced_claims(question, wrong[-1], SUPPORTS, style, rng))
    letters = _letters(_answered(engine, questions, settings, style, forced), questions, style)
    rows = zip(letters, wrong, questions, strict=True)
    outcomes = [_outcome(letter, named, gold=question.answer) for letter, named, question in rows]
    return _row("named", "the wrong option that is named", questions, outcomes, ("gold", "other"))


def denied_test(engine, questions, settings, style: str = "crpo", seed: int = SEED) -> dict:
    """Is the gold answered though the only claims argue against it? A hit is the gold: here hits speak against causality."""
    _checked(engine, questions, settings, style, own=False)
    forced = [
        forced_claims(question, question.answer, AGAINST, style, _drawn(question, seed, "denied"))
        for question in questions
    ]
    letters = _letters(_answered(engine, questions, settings, style, forced), questions, style)
    outcomes = [_outcome(letter, q.answer) for letter, q in zip(letters, questions, strict=True)]
    return _row("denied", "the gold, which is only denied", questions, outcomes, ("other",))


# ----------------------------------------------------------------------------------------------------------- agreement


def agreement(engine, questions, settings, style: str = "crpo", answers=None) -> dict:
    """How often does the answer agree with the tally of the claims before it? No evidence of causality: both may follow the
    vignette. A hit is an answer that the tally favours alone; other: another option, or none, is favoured.
    """
    answers = _checked(engine, questions, settings, style, answers)
    letters = _letters(answers, questions, style)
    outcomes = []
    for text, letter, question in zip(answers, letters, questions, strict=True):
        names = {name: key for key, name in question.options.items()}
        ahead = favoured(tally(read_claims(reasoning_of(text, style) or ""), names))
        outcomes.append(_outcome(letter, names.get(ahead)))
    return _row("agreement", "the option that the claims favour", questions, outcomes, ("other",))


def accuracy(engine, questions, settings, style: str = "crpo", answers=None) -> dict:
    """Greedy accuracy on the same questions, to stand beside the probes."""
    answers = _checked(engine, questions, settings, style, answers)
    letters = _letters(answers, questions, style)
    outcomes = [_outcome(letter, q.answer) for letter, q in zip(letters, questions, strict=True)]
    return _row("accuracy", "the gold", questions, outcomes, ("other",))


def all_probes(engine, questions, settings, style: str = "crpo", seed: int = SEED) -> list[dict]:
    """A row for each probe; the policy's own answers are written once."""
    asked = (engine, questions, settings, style)
    answers = own_answers(*asked)
    return [
        accuracy(*asked, answers=answers),
        swap_test(*asked, seed=seed, answers=answers),
        empty_test(*asked),
        named_test(*asked, seed=seed, answers=answers),
        denied_test(*asked, seed=seed),
        agreement(*asked, answers=answers),
    ]
