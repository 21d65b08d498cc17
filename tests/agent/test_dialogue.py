"""Turns drawn with kept keys and values are those drawn by encoding every transcript whole."""

import numpy as np
import pytest
import torch
from agent_cases import PRICED, model_of, patients, tokenizer

from clinical_r1.agent.dialogue import Dialogue, can_keep
from clinical_r1.agent.forest import chains, continuations, forest, prompt_ids
from clinical_r1.agent.speaking import Forgetful, Speaker

MODEL = model_of(torch.float64)


class Whole(Forgetful):
    """The model that encodes every transcript whole."""

    def __init__(self, **options):
        self.inner = Speaker(MODEL, tokenizer(), **options)
        self.tokenizer, self.rows = self.inner.tokenizer, self.inner.rows

    def __call__(self, *arguments):
        return self.inner(*arguments)


def speaker(**options):
    made = Speaker(MODEL, tokenizer(), **options)
    assert isinstance(made.dialogue(), Dialogue)
    return made


@pytest.mark.parametrize("temperature", [1.0, 0.7, 0.0])
def test_chains_are_the_same(temperature):
    ours, whole = (kind(temperature=temperature) for kind in (speaker, Whole))
    assert chains(ours, patients(), PRICED, 3, 5) == chains(whole, patients(), PRICED, 3, 5)


def test_forests_and_continuations_are_the_same():
    both = speaker(), Whole()
    grown = [forest(each, patients(), PRICED, trees=2, expand=3, rounds=2, keep=4, seed=2) for each in both]
    assert grown[0] == grown[1]
    by_id = {patient.id: patient for patient in patients()}
    points = [(episode, depth) for episode in grown[0].episodes for depth in range(len(episode.turns))][::3]
    new = [continuations(each, points, by_id, PRICED, 2, 4) for each in both]
    assert new[0] == new[1]


def test_more_consultations_than_rows_are_played_in_blocks():
    assert chains(speaker(rows=4), patients(), PRICED, 3, 5) == chains(Whole(), patients(), PRICED, 3, 5)


def test_a_row_that_continues_no_other_is_encoded_whole():
    prompts = [list(prompt_ids(tokenizer(), patient, PRICED)) for patient in patients()]
    dialogue, whole = speaker().dialogue(), Whole()
    first = dialogue(prompts, range(len(prompts)))
    longer = [p + t + [7, 8, 9][: 1 + i % 3] for i, (p, t) in enumerate(zip(prompts, first, strict=True))]
    seeds = np.arange(len(prompts)) + 50
    for rows in (longer, longer[::2], longer[::-1], prompts, [longer[0], longer[0]]):
        some = [int(seed) for seed in seeds[: len(rows)]]
        assert dialogue(rows, some) == whole(rows, some)


def test_one_token_is_a_context():
    assert speaker().dialogue()([[5], [6]], [1, 2]) == Whole()([[5], [6]], [1, 2])


def test_every_token_is_encoded_once(monkeypatch):
    fed, forward = [], type(MODEL).forward

    def counted(self, input_ids=None, **options):
        fed.append(input_ids.numel())
        return forward(self, input_ids=input_ids, **options)

    monkeypatch.setattr(type(MODEL), "forward", counted)
    played = chains(speaker(), patients(), PRICED, 1, 5)
    ours = sum(fed)
    fed.clear()
    assert chains(Whole(), patients(), PRICED, 1, 5) == played
    assert max(len(episode.turns) for episode in played.episodes) > 2
    assert ours < 0.8 * sum(fed)


@pytest.mark.parametrize(
    ("options", "kept"),
    [
        ({}, True),
        ({"settings": {"top_p": 1.0, "top_k": 0, "repetition_penalty": 1.0, "min_p": None}}, True),
        ({"settings": {"top_p": 0.9}}, False),
        ({"settings": {"repetition_penalty": 1.1}}, False),
        ({"settings": {"typical_p": 0.9}}, False),
        ({"draws": "stock"}, False),
    ],
)
def test_what_shapes_the_scores_is_left_to_generate(options, kept):
    made = Speaker(MODEL, tokenizer(), **options)
    assert isinstance(made.dialogue(), Dialogue) == kept
    assert kept or made.dialogue() is made


def test_a_model_that_recomputes_in_training_keeps_nothing():
    model = model_of()
    model.gradient_checkpointing_enable()
    assert not can_keep(model, "inverse_cdf", {})
