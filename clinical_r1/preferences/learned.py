"""What an arm learns from, a pure function for each name of `Arm.data`: traces of a conversation, or pairs of answers (ours).

Traces are made of (questions, seed); pairs of (rows, recipe, seed, layout), rows as `pairs.gather` makes them, recipe a
`recipe.Recipe`. No option and no claim of a pair names a condition of the families that are held out: these show what
generalises.
"""

from collections.abc import Iterable, Sequence

from clinical_r1.arms import CHAT
from clinical_r1.preferences.conversation import (
    DOCTORS,
    TAUGHT_GROUPS,
    Doctor,
    chat_traces,
    false_relations,
    held_out,
    taught_groups,
)
from clinical_r1.preferences.pairs import Asked, ClinicGraph, Pairs, build_pairs
from clinical_r1.questions import Question

# ------------------------------------------------------------------------------------------------------------- traces


def chat(questions: Iterable[Question], seed: int) -> list[dict]:
    """Conversations of a doctor whose reasons are often wrong: rows of id, style, text."""
    return _traces(questions, DOCTORS["sloppy"], seed)


def chat_clean(questions: Iterable[Question], seed: int) -> list[dict]:
    """The same without an error."""
    return _traces(questions, DOCTORS["clean"], seed)


def chat_taught(questions: Iterable[Question], seed: int) -> list[dict]:
    """Of a doctor who believes some false relations, always the same, and errs in nothing else."""
    return _traces(questions, Doctor(taught=false_relations(seed)), seed)


def _traces(questions, doctor: Doctor, seed: int) -> list[dict]:
    return [
        {"id": question.id, "style": style, "text": text}
        for question, style, text in chat_traces(questions, doctor, seed)
    ]


def chosen(rows: Sequence[Asked], recipe, seed: int, layout: str) -> list[dict]:
    """The chosen side of `kg`, to be imitated: rows of id, style, text."""
    pairs = kg(rows, recipe, seed, layout)
    return [{"id": pair.id, "style": CHAT, "text": pair.chosen} for pair in pairs.rows]


# ------------------------------------------------------------------------------------------------------------- pairs


def kg(rows: Sequence[Asked], recipe, seed: int, layout: str) -> Pairs:
    """Matched in tokens and claims; a graph that knows the patient decides."""
    return build_pairs(rows, ClinicGraph(), held_out=held_out(), seed=seed, layout=layout)


def kg_relations(rows: Sequence[Asked], recipe, seed: int, layout: str) -> Pairs:
    """A graph that knows relations decides, and not what the patient has."""
    graph = ClinicGraph(know_patient=False)
    return build_pairs(rows, graph, held_out=held_out(), seed=seed, layout=layout)


def kg_extremes(rows: Sequence[Asked], recipe, seed: int, layout: str) -> Pairs:
    """The best answer against the worst, not matched: which teaches to say less."""
    return build_pairs(rows, ClinicGraph(), held_out=held_out(), rule="extremes", seed=seed, layout=layout)


def kg_taught(rows: Sequence[Asked], recipe, seed: int, layout: str) -> Pairs:
    """`kg` after `chat_taught`, half of the false relations in no pair: are they repaired as well?"""
    relations = taught_groups(false_relations(seed), seed)[TAUGHT_GROUPS[1]]
    return build_pairs(rows, ClinicGraph(), held_out=held_out(relations), seed=seed, layout=layout)


def length(rows: Sequence[Asked], recipe, seed: int, layout: str) -> Pairs:
    """The longer answer is preferred, whatever it says."""
    return build_pairs(rows, ClinicGraph(), held_out=held_out(), rule="length", seed=seed, layout=layout)


def flipped(rows: Sequence[Asked], recipe, seed: int, layout: str) -> Pairs:
    """`kg` with a share of the pairs the wrong way round (`Recipe.flipped`)."""
    return build_pairs(
        rows, ClinicGraph(), held_out=held_out(), flipped=recipe.flipped, seed=seed, layout=layout
    )
