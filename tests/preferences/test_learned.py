"""What arms learn from: each name makes pairs that keep to what it says, on answers without a model.

python -m pytest tests/preferences/test_learned.py
"""

import pytest

from clinical_r1.preferences import learned
from clinical_r1.preferences.conversation import (
    TAUGHT_GROUPS,
    Doctor,
    chat_questions,
    chat_traces,
    false_relations,
    held_out,
    taught_groups,
)
from clinical_r1.preferences.pairs import gather
from clinical_r1.preferences.recipe import Recipe

QUESTIONS = chat_questions("pairs", 25)
DOCTOR = Doctor(0.35, false_relations(0))
ROWS = gather(
    QUESTIONS,
    [
        {"id": question.id, "text": text, "tokens": len(text.split()), "finish_reason": "stop"}
        for seed in range(5)
        for question, _, text in chat_traces(QUESTIONS, DOCTOR, seed)
    ],
)


@pytest.mark.parametrize("name", ["kg", "kg_relations", "kg_extremes", "kg_taught", "length", "flipped"])
def test_every_set_of_pairs_can_be_made_and_names_nothing_that_is_held_out(name):
    pairs = getattr(learned, name)(ROWS, Recipe(), 0, "clinic")
    assert len(pairs.rows) >= 8 and pairs.questions == len(QUESTIONS)
    kept_out = held_out().conditions
    assert not any(condition in pair.chosen + pair.rejected for pair in pairs.rows for condition in kept_out)
    assert any(pair.flipped for pair in pairs.rows) == (name == "flipped")


def test_half_of_the_beliefs_are_in_no_pair_and_the_other_half_is():
    pairs = learned.kg_taught(ROWS, Recipe(), 0, "clinic")
    groups = taught_groups(false_relations(0), 0)
    named = {
        path.relation
        for pair in pairs.rows
        for verdicts in (pair.chosen_verdicts, pair.rejected_verdicts)
        for path in verdicts.paths
    }
    assert named & groups[TAUGHT_GROUPS[0]] and not named & (
        groups[TAUGHT_GROUPS[1]] | groups[TAUGHT_GROUPS[2]]
    )
