"""The base model's corpus: drills in a frame of their own, notes whose claims alone decide, and writers who answer as they claim.

Run: pytest tests/clinic/test_corpus.py
"""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from clinical_r1.clinic import base_model
from clinical_r1.clinic.base_model import (
    PHASES,
    Lesson,
    encode_supervised,
    pretraining_corpus,
    shorter_phases,
)
from clinical_r1.clinic.cases import LEVELS, Case, draw_cases, load_set
from clinical_r1.clinic.drills import DRILL_MARKS, MAX_DRILLED, MAX_NOTED, write_drill, write_notes
from clinical_r1.clinic.knowledge import knowledge_base
from clinical_r1.clinic.traces import BASE, ERRORS, MAX_REJECTED, TEACHER, write_trace
from clinical_r1.clinic.verdicts import favoured, read_claims, tally, verdict
from clinical_r1.completions import parse_completion
from clinical_r1.files import ROOT
from clinical_r1.prompts import STYLES
from clinical_r1.settings import CPU, SMOKE

CASES = [case for name in LEVELS for case in draw_cases(name, "pretrain", 80)]
SURE = replace(BASE, answer_slip=0.0, well_formed=1.0)


@pytest.fixture(scope="module")
def tokenizer():
    return base_model.build_clinic_tokenizer()


def answered(text, case, style):
    """The option in the box of a completion."""
    letter = parse_completion(text, style).letter
    return case.options["ABCDEFGHIJ".index(letter)]


def top(claims, case):
    """The options with the most claims for them, less those against, counted one by one."""
    score = {
        option: sum(c.direction for c in set(claims) if c.condition == option) for option in case.options
    }
    return {option for option in score if score[option] == max(score.values())}


# ------------------------------------------------------------------------------------------------------------ drills


def test_every_drill_stands_in_a_frame_of_its_own():
    rng = np.random.default_rng(0)
    for drill in base_model.CLINIC_DRILLS:
        for case in CASES[::10]:
            text = write_drill(case, drill, rng)
            assert text.startswith(DRILL_MARKS[0]) and text.endswith(DRILL_MARKS[1])
            assert not set(DRILL_MARKS) & set(write_trace(case, "crpo", BASE, rng).split())


def test_drilled_claims_are_true_and_do_not_all_end_at_the_same_place():
    rng = np.random.default_rng(0)
    lengths = Counter()
    for case in CASES:
        claims = read_claims(write_drill(case, "evidence", rng))
        assert {verdict(claim, case) for claim in claims} == {"true"}
        lengths[len(claims)] += 1
    assert max(lengths) == MAX_DRILLED and len(lengths) > 5


# ------------------------------------------------------------------------------------------------------------- notes


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("denials", [False, True])
def test_the_answer_of_notes_is_what_their_claims_favour(style, denials):
    rng = np.random.default_rng(0)
    alone, right, against = 0, 0, 0
    for case in CASES:
        given, learned = write_notes(case, style, denials, rng)
        claims = read_claims(given)
        assert 1 <= len(claims) <= MAX_NOTED and "boxed" not in given
        answer = answered(f"{given} {learned}", case, style)
        assert answer in top(claims, case)
        alone += favoured(tally(claims, case.options)) is not None
        right += (answer == case.gold) / len(CASES)
        against += any(claim.direction < 0 for claim in claims)
    assert alone > 0.4 * len(CASES)
    # the case decides nothing: two sets in three have four options, one has ten
    assert right < 0.28
    assert (against > 0.5 * len(CASES)) if denials else not against


def test_only_what_is_learned_bears_a_loss(tokenizer):
    rng = np.random.default_rng(0)
    notes = Lesson("Think and answer.", *write_notes(CASES[0], "grpo", True, rng))
    (row,) = encode_supervised(tokenizer, [notes])
    learned = [i for i, label in zip(row["input_ids"], row["labels"], strict=True) if label != -100]
    assert tokenizer.decode(learned[:-1]) == notes.learned and learned[-1] == tokenizer.eos_token_id
    whole = tokenizer.decode(row["input_ids"])
    assert notes.given in whole and row["labels"][: -len(learned)] == [-100] * (
        len(row["labels"]) - len(learned)
    )


# ----------------------------------------------------------------------------------------------------------- writers


@pytest.mark.parametrize("habits", [BASE, TEACHER])
def test_writers_answer_what_their_written_claims_favour(habits):
    rng = np.random.default_rng(0)
    habits = replace(habits, answer_slip=0.0, well_formed=1.0)
    for case in CASES:
        text = write_trace(case, "crpo", habits, rng)
        assert answered(text, case, "crpo") in top(read_claims(parse_completion(text).dx), case)


def test_answers_slip_at_the_stated_rate():
    rng = np.random.default_rng(0)
    habits, slips, fours = (
        replace(SURE, answer_slip=0.4),
        0,
        [case for case in CASES if len(case.options) == 4],
    )
    for case in fours:
        text = write_trace(case, "crpo", habits, rng)
        slips += answered(text, case, "crpo") not in top(read_claims(parse_completion(text).dx), case)
    assert 0.2 < slips / len(fours) < 0.4  # one slip in four falls on what is favoured


def test_wrong_claims_lead_to_wrong_answers():
    right = {}
    for error in (0.0, 1.0):
        rng, habits = np.random.default_rng(0), replace(SURE, careful=1.0, claim_error=error)
        texts = [(case, write_trace(case, "crpo", habits, rng)) for case in CASES]
        right[error] = np.mean([answered(text, case, "crpo") == case.gold for case, text in texts])
    assert right[0.0] == 1 and right[1.0] < 0.5


def test_errors_are_of_every_kind():
    rng, habits, kinds = (
        np.random.default_rng(0),
        replace(SURE, careful=1.0, reject=0.0, claim_error=1.0, verify=0.0),
        Counter(),
    )
    for case in CASES:
        for claim in read_claims(parse_completion(write_trace(case, "crpo", habits, rng)).dx):
            told = verdict(claim, case)
            assert told != "true"
            if told == "contradicted_by_vignette":
                kinds["finding"] += 1
            else:  # all claims were to support the answer
                kinds["direction" if claim.condition == case.gold else "condition"] += 1
    assert set(kinds) == set(ERRORS) and min(kinds.values()) > 0.2 * sum(kinds.values())


def test_options_are_rejected_once_and_in_the_order_of_the_knowledge_base():
    rng, habits = np.random.default_rng(0), replace(SURE, careful=1.0, claim_error=0.0)
    places, many = {name: i for i, name in enumerate(knowledge_base().conditions)}, 0
    for case in CASES:
        claims = read_claims(parse_completion(write_trace(case, "crpo", habits, rng)).dx)
        rejected = [places[claim.condition] for claim in claims if claim.direction < 0]
        assert rejected == sorted(set(rejected)) and len(rejected) <= MAX_REJECTED
        many += len(rejected) > 2
    assert many > 0.3 * len(CASES)


def test_what_writers_write_fits_into_the_budget(tokenizer):
    rng = np.random.default_rng(0)
    for case in CASES:
        for habits in (
            BASE,
            TEACHER,
            replace(TEACHER, careful=1.0, reject=1.0, chain=1.0, subgoal=1.0, verify=1.0),
        ):
            ids = tokenizer(write_trace(case, "crpo", habits, rng), add_special_tokens=False)["input_ids"]
            assert len(ids) < 0.9 * min(CPU.max_completion_tokens, SMOKE.max_completion_tokens)


def test_the_supervised_part_holds_ten_options():
    questions = load_set("clinic", "sft", 40)
    assert [len(q.options) for q in questions] == [4, 4, 4, 4, 10] * 8
    assert all(Case.from_json(q.meta["case"]).letter == q.answer for q in questions)
    assert {len(q.options) for split in ("rl", "validation") for q in load_set("clinic", split, 40)} == {4}


# ------------------------------------------------------------------------------------------------------------ phases


def test_each_phase_teaches_what_it_names():
    for _, shares, mix in PHASES:
        lessons = list(pretraining_corpus(300, 1, shares, mix))
        given = sum(bool(lesson.given) for lesson in lessons) / len(lessons)
        assert given == pytest.approx(
            sum(share for kind, share in shares.items() if "notes" in kind), abs=0.08
        )


def test_fewer_steps_are_shared_out_as_before():
    whole = sum(phase[0] for phase in PHASES)
    assert shorter_phases(whole) == PHASES
    assert [phase[0] for phase in shorter_phases(4)] == [1, 1, 1, 1]
    tenth = shorter_phases(whole // 10)
    assert sum(phase[0] for phase in tenth) == whole // 10 and [phase[1:] for phase in tenth] == [
        p[1:] for p in PHASES
    ]
    with pytest.raises(ValueError, match="got 3 steps; expected at least 4"):
        shorter_phases(3)


def test_the_page_says_what_the_base_is_taught():
    text = (ROOT / "docs" / "benchmarks.md").read_text(encoding="utf-8")
    shares = PHASES[-1][1]
    assert (
        f"{100 * shares['answered']:.0f} % answered cases, {100 * shares['notes']:.0f} % notes, the rest drills"
        in text
    )
    assert MAX_REJECTED == 6 and "rejects at most six" in text
    assert f"an answer may take {CPU.max_completion_tokens} tokens" in text
