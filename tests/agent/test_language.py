"""The words of a consultation: each phrase is one token, nothing is unknown, and what is written is what is read."""

from dataclasses import replace

import pytest
from agent_patients import drawn, inquiries, other_truth

from clinical_r1.agent.consultation import DIAGNOSE, PROBLEMS, VERBS, Consultation, Rules, left, read_action
from clinical_r1.agent.language import (
    ASSISTANT,
    END,
    MOST_TURNS,
    TURN_TOKENS,
    USER,
    build_agent_tokenizer,
    observation_text,
    opening,
)
from clinical_r1.clinic.base_model import build_clinic_tokenizer
from clinical_r1.clinic.cases import phrase
from clinical_r1.clinic.knowledge import knowledge_base

KB = knowledge_base()


@pytest.fixture(scope="module")
def tokenizer():
    return build_agent_tokenizer()


def encoded(tokenizer, text):
    """The numbers of a text's tokens; none of them the unknown one."""
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    assert tokenizer.unk_token_id not in ids, tokenizer.convert_ids_to_tokens(ids)
    return ids


def prompt(tokenizer, patient, rules):
    return tokenizer.apply_chat_template(opening(patient, rules), add_generation_prompt=True, tokenize=False)


def test_the_words_of_the_clinic_keep_their_numbers(tokenizer):
    ours, clinic = tokenizer.get_vocab(), build_clinic_tokenizer().get_vocab()
    assert {word: ours[word] for word in clinic} == clinic
    assert sorted(ours.values()) == list(range(len(ours)))


def test_every_action_is_four_tokens_and_comes_back_as_the_same_action(tokenizer):
    """Every finding with every verb, every condition with every verb and as a diagnosis."""
    conditions = list(KB.conditions)
    texts = [
        f"suspect {conditions[i % len(conditions)]} {verb} {phrase(finding, True)}"
        for i, finding in enumerate(KB.findings)
        for verb in VERBS
    ]
    texts += [f"suspect {c} {verb} {c}" for c in conditions for verb in (*VERBS, DIAGNOSE)]
    for text in texts:
        ids = encoded(tokenizer, text)
        assert len(ids) == 4 and len(ids) + 1 <= TURN_TOKENS
        assert read_action(tokenizer.decode(ids)) == read_action(text) is not None
        assert encoded(tokenizer, f"{text} {END}") == [*ids, tokenizer.eos_token_id]


def test_every_observation_is_made_of_known_tokens_and_has_at_least_one(tokenizer):
    said = [phrase(finding, present) for finding in KB.findings for present in (True, False)]
    for i, words in enumerate([*said, *PROBLEMS]):
        text = f"{words}. {left(1 + i % MOST_TURNS)}"
        ids = encoded(tokenizer, observation_text(text))
        assert len(ids) == 5  # user, what is said, its full stop, turns left, assistant
        assert tokenizer.convert_ids_to_tokens([ids[0], ids[-1]]) == [USER, ASSISTANT]


@pytest.mark.parametrize("menu, most", [(8, 60), (None, 20)])
def test_a_prompt_is_short_and_has_no_unknown_token(tokenizer, menu, most):
    for patient in drawn("rl", 300 if menu else 100, menu):
        for earliest in (1, 3):
            ids = encoded(tokenizer, prompt(tokenizer, patient, Rules(menu=menu, earliest=earliest)))
            assert len(ids) <= most


def test_a_prompt_names_what_is_on_offer_and_not_what_is_true():
    for patient in drawn("rl", 300)[:50]:
        text = opening(patient, Rules())[0]["content"]
        for words, (_, verb) in patient.menu.items():
            assert f"{verb} {words}" in text
        for finding in patient.complaint:
            assert phrase(finding, True) in text
        for gold in patient.options:
            assert opening(replace(other_truth(patient), gold=gold), Rules())[0]["content"] == text
    hidden = opening(drawn("rl", 100, None)[0], Rules(menu=None))[0]["content"]
    assert "On offer" not in hidden


def test_two_patients_of_a_draw_begin_with_different_prompts(tokenizer):
    """Or a prompt would not tell whose consultation it opens."""
    patients = drawn("rl", 300)
    assert len({prompt(tokenizer, patient, Rules()) for patient in patients}) == len(patients)


@pytest.mark.parametrize("horizon", [4, 5, 6])
def test_a_whole_consultation_is_one_row_of_known_tokens(tokenizer, horizon):
    rules = Rules(horizon=horizon)
    for patient in drawn("rl", 300)[:20]:
        consultation, row = Consultation(patient, rules), prompt(tokenizer, patient, rules)
        for text in [*inquiries(patient)[: horizon - 1], inquiries(patient)[0]]:
            row += f"{text} {END} "
            seen = consultation.step(text)
            row += observation_text(seen.text) if seen.text else ""
        assert consultation.done and len(encoded(tokenizer, row)) <= 60 + 10 * horizon


def test_a_horizon_that_the_tokenizer_cannot_say_is_refused():
    with pytest.raises(ValueError, match="horizon of 13"):
        opening(drawn("rl", 300)[0], Rules(horizon=13, menu=12))
