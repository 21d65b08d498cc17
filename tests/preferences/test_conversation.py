"""Conversations: words that the clinic's model has, questions of their own, a known rate of wrong reasons, beliefs always said.

python -m pytest tests/preferences/test_conversation.py
"""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from tokenizers import Tokenizer

from clinical_r1 import prompts
from clinical_r1.arms import STYLES
from clinical_r1.clinic.base_model import UNKNOWN
from clinical_r1.clinic.cases import SPLIT_SHARES, Case, load_set, split_of
from clinical_r1.clinic.knowledge import knowledge_base
from clinical_r1.clinic.verdicts import read_claims, verdict
from clinical_r1.completions import parse_completion, read_answer
from clinical_r1.files import PACKAGE
from clinical_r1.preferences import conversation
from clinical_r1.preferences.conversation import DOCTORS, Doctor, chat_questions, chat_traces
from clinical_r1.questions import Question

TAUGHT = conversation.false_relations(0)
CHAT, PAIRS = (chat_questions(part, 120) for part in conversation.PARTS)


def texts(doctor, questions=CHAT, seed=0):
    return [text for _, _, text in chat_traces(questions, doctor, seed)]


def verdicts(doctor, questions=CHAT, seed=0):
    """Counter of the exact verdicts of all claims."""
    found = Counter()
    for question, text in zip(questions, texts(doctor, questions, seed), strict=True):
        case = conversation.case_of(question)
        found.update(verdict(claim, case) for claim in read_claims(text))
    return found


# ------------------------------------------------------------------------------------------------- prompt and parser


def test_golden_text_of_the_chat_prompt():
    question = Question("q", "clinic", "test", "A {question} stem.", {"A": "Gout", "B": "Lupus"}, "A", {})
    (message,) = prompts.messages_of(question, "chat", "clinic")
    assert message == {
        "role": "user",
        "content": "Weigh every finding. Think and answer.\nA {question} stem.\nA: Gout\nB: Lupus",
    }
    (full,) = prompts.messages_of(question, "chat")
    assert full["content"].endswith(
        "\\boxed{A} (with your letter).\n\nQuestion:\nA {question} stem.\nA: Gout\nB: Lupus"
    )
    assert "not advice about a real patient" in full["content"]


@pytest.mark.parametrize("style", STYLES)
def test_the_styles_of_rewards_are_asked_and_read_as_before(style):
    assert prompts.messages_of(CHAT[0], style, "clinic") == prompts.build_messages(CHAT[0], style, "clinic")
    text = "<think> a </think> <answer> \\boxed{B} </answer>"
    assert read_answer(text, style, CHAT[0].options) == parse_completion(text, style, CHAT[0].options)


def test_style_chat_does_not_pass_where_only_the_styles_of_rewards_make_sense():
    with pytest.raises(ValueError, match="expected a style of"):
        prompts.build_messages(CHAT[0], "chat", "clinic")
    with pytest.raises(ValueError, match="style 'chat' is not known"):
        parse_completion("\\boxed{A}", "chat")
    with pytest.raises(ValueError, match="expected a style of"):
        prompts.messages_of(CHAT[0], "chat", "tiny")


@pytest.mark.parametrize(
    ("text", "letter", "problems"),
    [
        ("fever supports Gout. the answer is Gout \\boxed{A}.", "A", ()),
        ("the answer is Gout.", None, ("no_box",)),
        ("\\boxed{A} or \\boxed{B}", None, ("several_boxes",)),
        ("\\boxed{C}", None, ("not_an_option",)),
        ("<dx> a </dx> \\boxed{A}", "A", ("foreign_tag",)),
        ("", None, ("no_box",)),
    ],
)
def test_a_chat_answer_has_a_letter_and_no_sections(text, letter, problems):
    read = read_answer(text, "chat", {"A": "Gout", "B": "Lupus"})
    assert (read.letter, read.problems) == (letter, problems)
    assert read.dx is read.conclusion is None and not read.well_formed


def test_every_word_of_prompts_and_answers_is_in_the_vocabulary_of_the_shipped_model():
    tokenizer = Tokenizer.from_file(str(PACKAGE / "data" / "clinic_base" / "tokenizer.json"))
    unknown, shown = tokenizer.token_to_id(UNKNOWN), []
    for doctor in (*DOCTORS.values(), Doctor(0.35, TAUGHT)):
        for question, text in zip(CHAT, texts(doctor), strict=True):
            shown.append(f"{prompts.messages_of(question, 'chat', 'clinic')[0]['content']} {text}")
    assert unknown in tokenizer.encode("appendectomy").ids
    assert not any(unknown in encoded.ids for encoded in tokenizer.encode_batch(shown))


# ------------------------------------------------------------------------------------------------- questions


def test_no_combination_of_the_two_parts_is_shared_or_stands_in_another_split():
    parts = {}
    for part, questions in zip(conversation.PARTS, (CHAT, PAIRS), strict=True):
        for case in map(conversation.case_of, questions):
            key = case.gold, frozenset(case.evidence(case.gold, 1))
            assert parts.setdefault(key, part) == part == conversation.part_of(case)
            assert split_of(case) == "sft"
    for split in SPLIT_SHARES.keys() - {"sft"}:
        for question in load_set("clinic", split, 100):
            case = Case.from_json(question.meta["case"])
            assert (case.gold, frozenset(case.evidence(case.gold, 1))) not in parts
    assert len({question.id for question in CHAT + PAIRS}) == 240


def test_a_smaller_set_is_the_beginning_of_a_larger_one():
    assert chat_questions("chat", 20) == CHAT[:20] != chat_questions("chat", 20, seed=1)


def test_questions_of_held_out_families_offer_only_their_conditions_and_no_others_do():
    kb, held = knowledge_base(), conversation.held_out()
    assert {kb.families[name]["beside"] for name in conversation.HELD_OUT_FAMILIES} == set(
        conversation.HELD_OUT_FAMILIES
    )
    for question in CHAT + PAIRS:
        inside = {option in held.conditions for option in question.options.values()}
        assert inside == {
            conversation.family_of(conversation.case_of(question)) in conversation.HELD_OUT_FAMILIES
        }


@pytest.mark.parametrize(("part", "n"), [("test", 10), ("chat", 0)])
def test_parts_and_numbers_that_cannot_be_are_refused(part, n):
    with pytest.raises(ValueError, match="expected at least 1 of one of"):
        chat_questions(part, n)


@pytest.mark.parametrize(
    ("meta", "where"), [({"file": "mine.jsonl"}, "mine.jsonl"), ({}, "the set clinic/chat")]
)
def test_a_question_without_evidence_graph_names_its_file(meta, where):
    with pytest.raises(ValueError, match=f"{where} has no evidence graph"):
        list(chat_traces([replace(CHAT[0], meta=meta)], DOCTORS["clean"], 0))


# ------------------------------------------------------------------------------------------------- traces


def test_answers_are_short_right_and_end_with_the_box():
    for question, text in zip(CHAT, texts(DOCTORS["sloppy"]), strict=True):
        claims = read_claims(text)
        assert 1 <= len(claims) <= conversation.CLAIMS[1] and text.endswith("}.")
        assert read_answer(text, "chat", question.options).letter == question.answer


def test_the_clean_doctor_says_nothing_false():
    assert verdicts(DOCTORS["clean"]).keys() == {"true"}


def test_the_sloppy_doctor_is_wrong_at_the_rate_and_in_the_two_ways_that_are_named():
    found = sum((verdicts(DOCTORS["sloppy"], seed=seed) for seed in range(4)), Counter())
    total = sum(found.values())
    invented, inverted = found["contradicted_by_vignette"], found["contradicted_by_kb"]
    assert found["true"] + invented + inverted == total  # nothing that could not be judged
    assert abs((invented + inverted) / total - 0.35) < 4 * np.sqrt(0.35 * 0.65 / total)
    assert 0.6 < invented / (invented + inverted) < 0.9


def test_what_is_invented_is_true_of_another_patient():
    """A graph that does not know the patient has nothing to say against it."""
    for question, text in zip(CHAT, texts(DOCTORS["sloppy"]), strict=True):
        case = conversation.case_of(question)
        for claim in read_claims(text):
            if verdict(claim, case) == "contradicted_by_vignette":
                assert case.weight(claim.finding, claim.present, claim.condition) * claim.direction > 0


def test_an_answer_depends_on_its_question_and_the_seed_alone():
    forward, backward = texts(DOCTORS["sloppy"]), texts(DOCTORS["sloppy"], CHAT[::-1])
    assert forward == backward[::-1] != texts(DOCTORS["sloppy"], seed=1)


def test_beliefs_are_always_said_always_inverted_and_nothing_else_is_false():
    doctor, said = Doctor(0.0, TAUGHT), 0
    for question, text in zip(CHAT, texts(doctor), strict=True):
        case = conversation.case_of(question)
        claims = {(c.finding, c.present, c.condition): verdict(c, case) for c in read_claims(text)}
        due = {(f, p, o) for f, p in case.stated for o in case.options if (f, p, o) in TAUGHT}
        assert {relation for relation, found in claims.items() if found != "true"} == due
        said += len(due)
    assert said > 50


def test_false_relations_are_seeded_and_dealt_out_whole():
    assert conversation.false_relations(0) == TAUGHT != conversation.false_relations(1)
    groups = conversation.taught_groups(TAUGHT, 0)
    assert sorted(map(len, groups.values())) == [20, 30, 30]
    assert frozenset.union(*groups.values()) == TAUGHT and sum(map(len, groups.values())) == len(TAUGHT)
    kb = knowledge_base()
    assert all(kb.relations[condition][finding].present > 0 for finding, _, condition in TAUGHT)
    unseen = {kb.conditions[condition] for _, _, condition in groups[conversation.TAUGHT_GROUPS[2]]}
    assert unseen == set(conversation.HELD_OUT_FAMILIES)


@pytest.mark.parametrize("wrong", [-0.1, 1.01, float("nan")])
def test_a_rate_that_is_none_is_refused(wrong):
    with pytest.raises(ValueError, match="rate of wrong claims"):
        Doctor(wrong)


def test_an_unknown_family_is_refused():
    with pytest.raises(ValueError, match=r"families \['skin'\] are not known"):
        conversation.held_out(families=["skin"])
