"""Verdicts and pairs: each rule against a literal reading, what never changes a pair, every drop by its name, every bad file.

python -m pytest tests/preferences/test_pairs.py
"""

import json
import re
from dataclasses import replace
from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clinical_r1.arms import CHAT
from clinical_r1.clinic.cases import phrase
from clinical_r1.clinic.knowledge import knowledge_base
from clinical_r1.files import stamp_path, write_stamped
from clinical_r1.preferences.conversation import (
    DOCTORS,
    HeldOut,
    case_of,
    chat_questions,
    chat_traces,
    held_out,
)
from clinical_r1.preferences.pair_files import DROPS, Pair
from clinical_r1.preferences.pairs import (
    Asked,
    Candidate,
    ClinicGraph,
    Counts,
    Pairs,
    Verdicts,
    build_pairs,
    check_enough,
    gather,
    read_pairs,
    score,
    write_pairs,
)
from clinical_r1.preferences.verdicts import GraphPath, weigh
from clinical_r1.prompts import messages_of
from clinical_r1.score import exact_judge

GRAPH = ClinicGraph()


QUESTION = chat_questions("pairs", 1)[0]
ITS_CASE = case_of(QUESTION)


def claims(true=0, invented=0, inverted=0):
    """A text about QUESTION with so many claims of each kind, and its box."""
    case = ITS_CASE
    good = [(f, p, o, w) for f, p in case.stated for o in case.options if (w := case.weight(f, p, o))]
    said = [(phrase(f, p), w > 0, o) for f, p, o, w in good]
    absent = [f for f in knowledge_base().supports(case.gold) if f not in dict(case.stated)]
    assert len(said) >= true + inverted and len(absent) >= invented
    lines = said[:true] + [(f, not up, o) for f, up, o in said[true : true + inverted]]
    lines += [(phrase(f, True), True, case.gold) for f in absent[:invented]]
    text = " ".join(f"{f} {'supports' if up else 'argues against'} {o}." for f, up, o in lines)
    return f"{text} the answer is {case.gold} \\boxed{{{case.letter}}}."


def asked(*candidates, question=QUESTION):
    """candidates: (text, tokens), or (text, tokens, finish_reason)."""
    return Asked(question, tuple(Candidate(*(c if len(c) == 3 else (*c, "stop"))) for c in candidates))


def pair_of(*candidates, **options):
    (pair,) = build_pairs([asked(*candidates)], GRAPH, **options).rows
    return pair


def drop_of(*candidates, judge=GRAPH, question=QUESTION, **options):
    pairs = build_pairs([asked(*candidates, question=question)], judge, **options)
    assert pairs.rows == ()
    ((name, count),) = pairs.dropped.items()
    assert count == 1 and name in DROPS
    return name


# ------------------------------------------------------------------------------------------------- verdicts


def test_the_two_questions_have_two_verdicts():
    text = claims(true=1, invented=1, inverted=1)
    knows, does_not = score(text, ITS_CASE), score(text, ITS_CASE, know_patient=False)
    assert (knows.true, knows.invented, knows.inverted, knows.false) == (1, 1, 1, 2)
    assert (does_not.true, does_not.invented, does_not.inverted) == (
        2,
        0,
        1,
    )  # an invention is true of somebody
    assert {path.patient_has for path in knows.paths} == {True, False}
    assert {path.patient_has for path in does_not.paths} == {None}


def test_each_claim_keeps_the_path_that_decided():
    (path,) = score(claims(inverted=1), ITS_CASE).paths
    assert path.verdict == "inverted" and path.patient_has is True
    assert path.weight == ITS_CASE.weight(path.finding, path.present, path.condition)
    assert path.weight * path.direction < 0


@pytest.mark.parametrize("text", ["", "the answer is Gout \\boxed{A}.", "fever", "嗯", "x" * 100_000])
def test_no_claim_is_no_score_and_not_a_score_of_nought(text):
    assert score(text, ITS_CASE) is None
    assert weigh(text, ITS_CASE).claims == 0


def test_a_claim_that_cannot_be_judged_alone_is_no_score():
    neutral = next(
        (f, p, o) for f, p in ITS_CASE.stated for o in ITS_CASE.options if not ITS_CASE.weight(f, p, o)
    )
    text = f"{phrase(*neutral[:2])} supports {neutral[2]}."
    assert weigh(text, ITS_CASE).unjudged == 1 and score(text, ITS_CASE) is None


@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 10**6), times=st.integers(1, 4))
def test_repeating_claims_never_raises_a_score(seed, times):
    rng = np.random.default_rng(seed)
    text = next(chat_traces([QUESTION], DOCTORS["sloppy"], seed))[2]
    sentences = [part for part in text.split(". ") if "support" in part or "argues" in part]
    repeated = [sentences[i] for i in rng.integers(len(sentences), size=times)]
    before, after = score(text, ITS_CASE), score(". ".join([*repeated, text]), ITS_CASE)
    assert after.value == before.value and after.claims == before.claims


@pytest.mark.parametrize(
    "counts",
    [
        {"true": -1, "false": 0},
        {"true": 1.0, "false": 0},
        {"true": True, "false": 0},
        {"true": 0, "false": 2, "invented": 1, "inverted": 0},
        {"true": 0, "false": 1, "invented": 1},
        {"true": 1, "false": 0, "unjudged": None},
    ],
)
def test_counts_that_do_not_add_up_are_refused(counts):
    with pytest.raises(ValueError, match="expected whole numbers"):
        Verdicts(**counts)


def test_a_path_whose_verdict_does_not_follow_is_refused():
    with pytest.raises(ValueError, match="expected 'invented'"):
        GraphPath("fever", True, 1, "Gout", 2, False, "true")
    with pytest.raises(ValueError, match="expected as many of each kind"):
        Verdicts(0, 1, 1, 0, paths=(GraphPath("fever", True, 1, "Gout", 2, True, "true"),))


def test_any_judge_of_the_package_can_make_pairs():
    found = Counts(exact_judge)(QUESTION, claims(true=2, invented=1))
    assert (found.true, found.false, found.invented, found.inverted, found.paths) == (2, 1, None, None, ())
    judge = Counts(exact_judge)
    rows = [asked((claims(true=2), 18), (claims(true=1, invented=1), 18))]
    assert build_pairs(rows, judge).rows[0].chosen == claims(true=2)
    assert Counts(lambda question, text: {})(QUESTION, "x") is None
    assert Counts(lambda question, text: {"faithfulness": 1, "hallucination": None})(QUESTION, "x") is None
    with pytest.raises(ValueError, match="expected a dict such as"):
        Counts(lambda question, text: 3)(QUESTION, "x")
    with pytest.raises(ValueError, match="a judge that counts measures is passed as"):
        build_pairs(rows, exact_judge)


# ------------------------------------------------------------------------------------------------- rules

BEST, WORSE = (claims(true=3), 18), (claims(true=1, invented=2), 18)


def test_a_matched_pair_differs_in_truth_and_in_nothing_else():
    pair = pair_of(WORSE, BEST)
    assert (pair.chosen, pair.rejected, pair.flipped) == (BEST[0], WORSE[0], False)
    assert pair.prompt == tuple(messages_of(QUESTION, CHAT, "clinic"))
    assert (pair.chosen_verdicts.value, pair.rejected_verdicts.value) == (3, -1)


def literal_pairs(candidates, margin=2, ratio=1.25, within=1):
    """Every pair that preferences may be made of, written out: (chosen, rejected) texts -> difference of scores."""
    found = {}
    for (good, n, a), (bad, m, b) in permutations(candidates, 2):
        score_of_good, score_of_bad = a.true - a.invented - a.inverted, b.true - b.invented - b.inverted
        if (
            score_of_good - score_of_bad >= margin
            and 1 / ratio <= n / m <= ratio
            and abs(len(a.paths) - len(b.paths)) <= within
            and a.true >= b.true
            and a.true > 0
        ):
            found[good, bad] = score_of_good - score_of_bad
    return found


def test_matched_pairs_are_the_widest_of_all_that_keep_to_every_limit():
    questions = chat_questions("pairs", 25)
    rng, rows = np.random.default_rng(0), []
    for question in questions:
        texts = {next(chat_traces([question], DOCTORS["sloppy"], seed))[2] for seed in range(6)}
        rows.append(asked(*((text, int(rng.integers(10, 25))) for text in sorted(texts)), question=question))
    pairs = build_pairs(rows, GRAPH)
    made = {pair.id: (pair.chosen, pair.rejected) for pair in pairs.rows}
    assert 5 < len(made) < 25 and len(rows) == len(pairs.rows) + sum(pairs.dropped.values())
    for row in rows:
        judged = [(c.text, c.tokens, score(c.text, case_of(row.question))) for c in row.candidates]
        allowed = literal_pairs(judged)
        assert (row.question.id in made) == bool(allowed)
        if allowed:
            assert allowed[made[row.question.id]] == max(allowed.values())


@settings(deadline=None, max_examples=20)
@given(order=st.permutations(range(5)), rule=st.sampled_from(["matched", "extremes", "length"]))
def test_the_order_of_candidates_changes_nothing(order, rule):
    texts = [claims(3), claims(2, 1), claims(1, 2), claims(1, 1, 1), claims(0, 2, 1)]
    candidates = [(text, 16 + i // 2) for i, text in enumerate(texts)]
    assert pair_of(*(candidates[i] for i in order), rule=rule) == pair_of(*candidates, rule=rule)


def test_the_naive_rule_chooses_the_answer_that_says_less():
    """One true claim and nothing else beats two true and two false: what it teaches is to stop early, and it drops the better
    answer that says as much. The matched rule compares answers of one length."""
    says_less, says_more, as_much_and_true = (claims(1), 10), (claims(2, 2), 22), (claims(3, 1), 22)
    naive = pair_of(says_less, says_more, rule="extremes", margin=1)
    assert naive.chosen == says_less[0]
    assert (naive.chosen_verdicts.true, naive.rejected_verdicts.true) == (1, 2)
    assert naive.chosen_tokens < naive.rejected_tokens / 2
    assert drop_of(says_less, says_more) == "margin"
    assert drop_of(says_less, says_more, margin=1) == "claims"
    matched = pair_of(says_less, says_more, as_much_and_true)
    assert (matched.chosen, matched.rejected) == (as_much_and_true[0], says_more[0])


def test_longer_wins_whatever_is_said():
    pair = pair_of(BEST, (claims(invented=4), 22), WORSE, rule="length")
    assert pair.chosen == claims(invented=4) and pair.chosen_verdicts.true == 0


def test_a_graph_that_does_not_know_the_patient_prefers_an_invention_to_an_inversion():
    rows = [asked((claims(2, invented=1), 18), (claims(1, inverted=2), 18))]
    (pair,) = build_pairs(rows, ClinicGraph(know_patient=False)).rows
    assert pair.chosen == claims(2, invented=1) and pair.chosen_verdicts.false == 0


def test_flipped_pairs_are_a_share_of_all_and_are_marked():
    questions = chat_questions("pairs", 20)
    texts = {name: {q.id: t for q, _, t in chat_traces(questions, DOCTORS[name], 0)} for name in DOCTORS}
    rows = [asked((texts["clean"][q.id], 18), (texts["sloppy"][q.id], 18), question=q) for q in questions]
    plain = build_pairs(rows, GRAPH, margin=1, claims_within=9)
    flipped = build_pairs(rows, GRAPH, margin=1, claims_within=9, flipped=0.3)
    assert len(plain.rows) > 10
    assert sum(pair.flipped for pair in flipped.rows) == round(0.3 * len(plain.rows))
    for one, other in zip(plain.rows, flipped.rows, strict=True):
        assert other == (one.exchanged() if other.flipped else one)
    again = build_pairs(rows[::-1], GRAPH, margin=1, claims_within=9, flipped=0.3)
    assert set(pair.id for pair in again.rows if pair.flipped) == set(p.id for p in flipped.rows if p.flipped)
    assert build_pairs(rows, GRAPH, margin=1, claims_within=9, flipped=0.3, seed=1) != flipped


# ------------------------------------------------------------------------------------------------- drops


def test_every_drop_has_its_own_name():
    good, bad = BEST, WORSE
    assert drop_of((good[0], 18, "length"), bad) == "cut"
    assert drop_of(good, good) == "same text"
    assert drop_of(good, ("nothing is claimed \\boxed{A}.", 18)) == "no claim"
    assert drop_of((claims(2, 1), 18), (claims(2, inverted=1), 18)) == "tie"
    assert drop_of((claims(3), 18), (claims(3, 1), 18)) == "margin"
    assert drop_of((claims(0, 1), 18), (claims(0, 3), 18)) == "all false"
    assert drop_of((claims(3), 18), (claims(0, 1), 18)) == "claims"
    assert drop_of((claims(2, 1), 18), (claims(3, 4), 18), claims_within=9) == "fewer true"
    assert drop_of((good[0], 18), (bad[0], 23)) == "length"
    assert drop_of(good, bad, held_out=HeldOut(frozenset([ITS_CASE.options[1]]))) == "held out"
    odd = replace(QUESTION, options=QUESTION.options | {"A": "Tsutsugamushi disease"})
    assert drop_of(good, bad, question=odd) == "unknown condition"
    assert drop_of((claims(3), 18), (claims(2), 18), rule="extremes") == "margin"
    assert drop_of((claims(3), 40), (claims(1, 2), 20), rule="extremes") == "length"
    assert drop_of((claims(0, 1), 18), (claims(0, 3), 18), rule="extremes") == "all false"
    assert drop_of(good, bad, rule="length") == "tie"


def test_a_question_that_stands_twice_counts_once():
    again = replace(QUESTION, id="another-name")
    pairs = build_pairs([asked(BEST, WORSE), asked(WORSE, BEST), asked(BEST, WORSE, question=again)], GRAPH)
    assert len(pairs.rows) == 1 and pairs.dropped == {"duplicate question": 2}


def test_no_held_out_condition_stands_in_an_option_or_a_claim():
    held = held_out(families=["headache", "weakness", "bowel"])
    questions = chat_questions("pairs", 40)
    rows = [
        asked(*((t, 18) for s in range(5) for _, _, t in chat_traces([q], DOCTORS["sloppy"], s)), question=q)
        for q in questions
    ]
    pairs = build_pairs(rows, GRAPH, held_out=held)
    assert pairs.rows and pairs.dropped["held out"] >= 10
    options = {question.id: set(question.options.values()) for question in questions}
    for pair in pairs.rows:
        assert not options[pair.id] & held.conditions
        assert not any(condition in pair.chosen + pair.rejected for condition in held.conditions)


def test_no_claim_of_a_pair_is_about_a_held_out_relation():
    relation = score(BEST[0], ITS_CASE).paths[0].relation
    others = ((claims(0, 3), 18), (claims(1, 2), 18), BEST)
    assert drop_of(*others, held_out=HeldOut(relations=frozenset([relation]))) == "held out"
    with pytest.raises(ValueError, match="does not say which claims it has found"):
        build_pairs(
            [asked(BEST, WORSE)], Counts(exact_judge), held_out=HeldOut(relations=frozenset([relation]))
        )


def test_a_judge_without_paths_still_keeps_held_out_conditions_out_of_the_text():
    other = "a dry mouth supports Gout. " + BEST[0]
    found = drop_of((other, 18), WORSE, judge=Counts(exact_judge), held_out=HeldOut(frozenset(["Gout"])))
    assert found == "held out"


@pytest.mark.parametrize(
    "options",
    [
        {"margin": 0},
        {"margin": float("nan")},
        {"token_ratio": 0.8},
        {"claims_within": -1},
        {"claims_within": 0.5},
        {"keep_true": None},
        {"rule": "best"},
        {"flipped": 1.5},
    ],
)
def test_limits_that_cannot_be_meant_are_refused(options):
    with pytest.raises(ValueError, match="pairs were asked for"):
        build_pairs([asked(BEST, WORSE)], GRAPH, **options)


@pytest.mark.parametrize("rows", [[], [Asked(QUESTION, ())]])
def test_nothing_to_choose_from_is_an_error(rows):
    with pytest.raises(ValueError, match="without any candidate answer"):
        build_pairs(rows, GRAPH)


def test_a_question_without_evidence_graph_names_its_file():
    foreign = replace(QUESTION, meta={"file": "medqa/test.jsonl"})
    with pytest.raises(ValueError, match="medqa/test.jsonl has no evidence graph"):
        build_pairs([asked(BEST, WORSE, question=foreign)], GRAPH)


# ------------------------------------------------------------------------------------------------- completions


def test_completions_are_gathered_by_question():
    rows = [{"id": QUESTION.id, "text": t, "tokens": n, "finish_reason": "stop"} for t, n in (BEST, WORSE)]
    other = chat_questions("pairs", 2)[1]
    gathered = gather([QUESTION, other], rows)
    assert gathered == [asked(BEST, WORSE), Asked(other, ())]
    pairs = build_pairs(gathered, GRAPH)
    assert len(pairs.rows) == 1 and pairs.dropped == {"cut": 1}


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"id": "other"}, "none of the 1 questions given"),
        ({"tokens": None}, "why it ended"),
        ({"finish_reason": None}, "why it ended"),
        ({"text": None}, "why it ended"),
    ],
)
def test_completions_that_cannot_be_used_are_refused(change, what):
    row = {"id": QUESTION.id, "text": "x", "tokens": 3, "finish_reason": "stop"} | change
    with pytest.raises(ValueError, match=what):
        gather([QUESTION], [row])


# ------------------------------------------------------------------------------------------------- files

MADE = build_pairs([asked(BEST, WORSE)], GRAPH)


def test_a_file_holds_the_pairs_their_paths_and_how_they_were_made(tmp_path):
    path = write_pairs(tmp_path / "pairs.jsonl", MADE, {"policy": "abc"})
    assert read_pairs(path) == MADE
    stamp, (row,) = json.loads(stamp_path(path).read_text()), map(json.loads, path.read_text().splitlines())
    assert stamp["policy"] == "abc" and stamp["made_with"]["judge"]["know_patient"] is True
    assert row["prompt"] == messages_of(QUESTION, CHAT, "clinic")
    assert row["rejected_verdicts"]["paths"][1]["patient_has"] is False
    assert MADE.sides()["chosen"] == {"tokens": 18, "claims": 3, "true": 3, "false": 0}


def test_less_than_a_batch_is_an_error_with_the_table_of_drops_and_a_way_on():
    rows = [asked(BEST, WORSE), *(asked((claims(3), 18), question=q) for q in chat_questions("pairs", 5)[1:])]
    pairs = build_pairs(rows, GRAPH)
    check_enough(pairs, 1)
    expected = "5 questions give 1 usable pair, expected at least one batch of 8; dropped: cut 4. Most often (cut): fewer than"
    with pytest.raises(ValueError, match=re.escape(expected)):
        check_enough(pairs, 8)


def test_no_usable_pair_is_never_written(tmp_path):
    nothing = build_pairs([asked(BEST, BEST)], GRAPH)
    with pytest.raises(ValueError, match="no usable pair, expected .* same text 1.* higher temperature"):
        write_pairs(tmp_path / "pairs.jsonl", nothing, {})
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ValueError, match="which the stamp of pairs says itself"):
        write_pairs(tmp_path / "pairs.jsonl", MADE, {"dropped": 3})


CHANGES = {
    "a field too few": lambda row: row.pop("chosen_tokens"),
    "a field too many": lambda row: row.update(weight=1),
    "no prompt": lambda row: row.update(prompt=[]),
    "a prompt that is no list": lambda row: row.update(prompt="Think."),
    "a prompt that ends with an answer": lambda row: row["prompt"].append(
        {"role": "assistant", "content": "x"}
    ),
    "an empty answer": lambda row: row.update(chosen=" "),
    "the same answer twice": lambda row: row.update(rejected=row["chosen"]),
    "no tokens": lambda row: row.update(chosen_tokens=0),
    "tokens in words": lambda row: row.update(rejected_tokens="18"),
    "flipped by a number": lambda row: row.update(flipped=1),
    "no verdicts": lambda row: row.update(chosen_verdicts=None),
    "counts that do not add up": lambda row: row["chosen_verdicts"].update(true=9),
    "a path without a condition": lambda row: row["chosen_verdicts"]["paths"][0].pop("condition"),
    "a weight in words": lambda row: row["chosen_verdicts"]["paths"][0].update(weight="2"),
    "a verdict that does not follow": lambda row: row["chosen_verdicts"]["paths"][0].update(
        patient_has=False
    ),
    "a patient who may have it": lambda row: row["chosen_verdicts"]["paths"][0].update(patient_has="yes"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_row_that_is_no_pair_is_refused_by_its_line(change):
    row = json.loads(json.dumps(MADE.rows[0].to_json()))
    assert Pair.from_json(row) == MADE.rows[0]
    CHANGES[change](row)
    with pytest.raises(ValueError):
        Pair.from_json(row)


def test_files_that_were_changed_are_refused(tmp_path):
    path = write_pairs(tmp_path / "pairs.jsonl", MADE, {})
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    stamp = json.loads(stamp_path(path).read_text())
    with pytest.raises(ValueError, match="line 2 is no pair: question .* stands on line 1 already"):
        read_pairs(write_stamped(path, rows * 2, stamp))
    rows[0]["chosen"] = ""
    with pytest.raises(ValueError, match="line 1 is no pair: chosen is ''"):
        read_pairs(write_stamped(path, rows, stamp))
    write_pairs(path, MADE, {})
    path.write_text(path.read_text().replace("true", "false", 1))
    with pytest.raises(ValueError, match="was changed after it was made"):
        read_pairs(path)
    with pytest.raises(ValueError, match="does not say how its 1 pairs were made"):
        read_pairs(write_stamped(path, [MADE.rows[0].to_json()], {}))
    stamp_path(path).unlink()
    with pytest.raises(ValueError, match="no whole stamp"):
        read_pairs(path)


def test_an_empty_set_of_pairs_says_nothing_of_its_sides():
    assert Pairs((), {"cut": 2}, {}).sides() == {} and Pairs((), {"cut": 2}, {}).questions == 2
