"""What the base model's corpus holds besides answered cases: plain drills in a frame of their own, and notes to be concluded.

A drill that looked like reasoning and ended where it was cut would teach a policy to end there, so every drill stands in
DRILL_MARKS.

Notes are claims at random about a real case, true or not, and the answer is what they favour (`traces.concluded`). Only the
conclusion is learned, so the claims decide the answer and the case does not.
"""

import numpy as np

from clinical_r1.clinic.cases import Case, phrase, vignette
from clinical_r1.clinic.knowledge import knowledge_base
from clinical_r1.clinic.traces import (
    boxed,
    claim_text,
    concluded,
    conclusion_text,
    framed,
    in_order,
    sentence,
)
from clinical_r1.clinic.verdicts import AGAINST, SUBGOALS, SUPPORTS, Claim, favoured, tally

DRILL_MARKS = ("<drill>", "</drill>")
MAX_DRILLED = 16  # claims of one drill, drawn from all that hold

MAX_NOTED = 8  # claims of one set of notes
DENIALS = (0.0, 0.3, 0.6, 1.0)  # shares of claims that argue against, one of these for each set of notes
INVENTED = 0.1  # of the claims of notes, those whose finding nobody stated
CITED = 0.15  # of the conclusions of notes
ASIDE = 0.15  # how often each thing that is no claim stands among the notes
TIED = 0.7  # of the notes whose claims favour no option alone, those that are kept


def write_drill(case: Case, drill: str, rng: np.random.Generator) -> str:
    """The findings, the letter of each option in random order, or true claims, in DRILL_MARKS."""
    opening, closing = DRILL_MARKS
    return f"{opening} {_drilled(case, drill, rng)} {closing}"


def _drilled(case: Case, drill: str, rng: np.random.Generator) -> str:
    if drill == "findings":
        return vignette(case)
    if drill == "options":
        return " ".join(
            f"{case.options[i]} {boxed(case.options[i], case)}" for i in rng.permutation(len(case.options))
        )
    claims = [
        claim_text(finding, present, SUPPORTS if weight > 0 else AGAINST, option, case)
        for option in in_order(case.options)
        for finding, present in case.stated
        if (weight := case.weight(finding, present, option))
    ]
    return " ".join(claims[i] for i in sorted(rng.permutation(len(claims))[:MAX_DRILLED]))


def write_notes(case: Case, style: str, denials: bool, rng: np.random.Generator) -> tuple[str, str]:
    """(reasoning, conclusion) in a style's format: claims at random, and the answer that they favour.

    denials: whether claims may argue against an option; without, all support one.
    """
    while True:
        claims = _random_claims(case, denials, rng)
        if favoured(tally(claims, case.options)) or rng.random() < TIED:
            break
    suspect = str(rng.choice(case.options))
    answer = concluded(claims, case, suspect, rng)
    sentences = [sentence(claim, case) for claim in claims]
    for aside in _asides(case, rng):
        sentences.insert(int(rng.integers(len(sentences) + 1)), aside)
    parts, (opening, closing) = framed(style, suspect, " ".join(sentences))
    conclusion = conclusion_text(claims, answer, rng.random() < CITED, case)
    return " ".join(parts), f"{opening} {conclusion} {boxed(answer, case)} {closing}"


def _random_claims(case: Case, denials: bool, rng) -> list[Claim]:
    """Claims on a few options of the case, at least one on each of them."""
    kb = knowledge_base()
    topics = rng.permutation(case.options)[: int(rng.integers(1, min(MAX_NOTED, len(case.options)) + 1))]
    count = int(rng.integers(len(topics), MAX_NOTED + 1))
    share = float(rng.choice(DENIALS)) if denials else 0.0
    invented = [f for option in case.options for f in kb.supports(option)]
    claims = []
    for i in range(count):
        option = str(topics[i] if i < len(topics) else rng.choice(topics))
        finding, present = case.stated[int(rng.integers(len(case.stated)))]
        if rng.random() < INVENTED:
            finding, present = str(rng.choice(invented)), True
        claims.append(Claim(finding, present, AGAINST if rng.random() < share else SUPPORTS, option))
    claims = list(dict.fromkeys(claims))
    return [claims[i] for i in rng.permutation(len(claims))]


def _asides(case: Case, rng) -> list[str]:
    """What may stand among the claims and decides nothing."""
    kb = knowledge_base()
    options = [str(option) for option in rng.choice(case.options, 2)]
    expected = phrase(str(rng.choice(kb.supports(options[1]))), True, case.shift)
    asides = [
        f"{rng.choice(SUBGOALS)}.",
        f"on second thought consider {options[0]}.",
        f"if {options[1]} then expect {expected}.",
    ]
    return [aside for aside in asides if rng.random() < ASIDE]
