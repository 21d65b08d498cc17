"""Reference policies: the expert is the best there is, the others do what their names say, and none sees the patient's truth."""

from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from agent_patients import after, drawn, inquiries, other_truth

from clinical_r1.agent import policies
from clinical_r1.agent.consultation import (
    DIAGNOSE,
    Consultation,
    Patient,
    Rules,
    information,
    posterior,
    probability,
    read_action,
    verb_of,
)
from clinical_r1.agent.policies import (
    POLICIES,
    WAIT,
    action_values,
    check_costs,
    diagnose,
    expected_gains,
    expert,
    greedy,
    guess,
    guess_value,
    inquire,
    optimal_value,
    play,
    random_inquiry,
)

RULES = [
    Rules(horizon=4, menu=4, earliest=1, costs={}),
    Rules(horizon=4, menu=4, earliest=3).with_costs(ask=0.02, examine=0.05, test=0.1),
    Rules(horizon=4, menu=4, earliest=1).with_costs(ask=0.02, examine=0.05, test=0.1),
    Rules(horizon=3, menu=4, earliest=3, costs={"ask": 0.2, "examine": 0.4, "test": 0.4, "invalid": 0.05}),
    Rules(horizon=5, menu=4, earliest=2, costs={"ask": 0.01, "test": 0.3, "invalid": 0.1}),
]


def small() -> list[Patient]:
    return drawn("rl", 6, 4)


def rng():
    return np.random.default_rng(0)


def weighted_patients(patient: Patient):
    """(probability, patient) of every diagnosis and every truth that a patient who begins like this may have."""
    complaint = dict.fromkeys(patient.complaint, True)
    for gold, p in zip(patient.options, posterior(patient, complaint), strict=True):
        for truth in product((True, False), repeat=len(patient.findings)):
            chances = [probability(f, gold, patient.options) for f in patient.findings]
            weight = p * np.prod([c if t else 1 - c for c, t in zip(chances, truth, strict=True)])
            yield (
                weight,
                replace(patient, gold=gold, findings=dict(zip(patient.findings, truth, strict=True))),
            )


def expected_return(patient, rules, policy) -> float:
    return sum(
        weight * sum(turn.observation.reward for turn in play(one, rules, policy, rng()).turns)
        for weight, one in weighted_patients(patient)
    )


def best_return(patient, rules, known, turn) -> float:
    """Literal: the largest expected return with `turn` turns used, over every action of every later turn."""
    if turn == rules.horizon:
        return 0.0
    p = posterior(patient, known)
    waited = best_return(patient, rules, known, turn + 1) - rules.costs.get("invalid", 0.0)
    found = [waited, *([p.max()] if turn + 1 >= rules.earliest else [])]
    for f in patient.findings:
        if f not in known:
            present = sum(
                q * probability(f, option, patient.options)
                for q, option in zip(p, patient.options, strict=True)
            )
            then = [best_return(patient, rules, known | {f: t}, turn + 1) for t in (True, False)]
            found.append(
                present * then[0] + (1 - present) * then[1] - rules.costs.get(verb_of(f), 0.0),
            )
    return max(found)


# ------------------------------------------------------------------------------------------------------ expected returns


@pytest.mark.parametrize("rules", RULES)
def test_the_optimal_value_is_that_of_every_tree_of_actions_searched(rules):
    for patient in small()[:2]:
        literal = best_return(patient, rules, dict.fromkeys(patient.complaint, True), 0)
        assert optimal_value(patient, rules) == pytest.approx(literal, abs=1e-9)


@pytest.mark.parametrize("rules", RULES)
def test_the_expert_earns_the_optimal_value_over_all_truths_and_no_policy_earns_more(rules):
    for patient in small()[:3]:
        assert sum(weight for weight, _ in weighted_patients(patient)) == pytest.approx(1)
        best = optimal_value(patient, rules)
        assert expected_return(patient, rules, expert) == pytest.approx(best, abs=1e-9)
        assert expected_return(patient, rules, guess) == pytest.approx(guess_value(patient, rules), abs=1e-9)
        for policy in POLICIES.values():
            assert expected_return(patient, rules, policy) <= best + 1e-9


def test_action_values_are_worth_what_the_expert_earns_after_them():
    """V(state) = max of its action values, and that of an inquiry is the mean of V after its outcomes, less its cost."""
    rules = Rules().with_costs(ask=0.02, examine=0.05, test=0.1)
    for patient in drawn("rl", 300)[:5]:
        consultation = after(patient, rules, *inquiries(patient)[:2])
        values = action_values(consultation)
        assert values[DIAGNOSE] == pytest.approx(max(consultation.posterior().values()))
        for f in consultation.open():
            mean = 0.0
            p = posterior(patient, consultation.known) @ patient.likelihoods(f)
            for present, chance in ((True, p), (False, 1 - p)):
                one = replace(patient, findings={**patient.findings, f: present})
                state = after(one, rules, *inquiries(patient)[:2], inquire(one.options[0], f))
                mean += chance * max(action_values(state).values())
            assert values[f] == pytest.approx(mean - rules.costs[verb_of(f)], abs=1e-9)


def test_a_wasted_turn_lowers_what_can_be_earned_and_before_the_earliest_turn_waiting_is_an_action():
    patient = drawn("rl", 300)[0]
    first, wasted = Consultation(patient, Rules()), after(patient, Rules(), "nonsense")
    assert WAIT in action_values(first) and DIAGNOSE not in action_values(first)
    assert max(action_values(wasted).values()) < max(action_values(first).values())
    assert action_values(first)[WAIT] == pytest.approx(max(action_values(wasted).values()) - 0.1)


def test_no_values_are_given_after_the_end():
    patient = drawn("rl", 300)[0]
    with pytest.raises(ValueError, match="is over"):
        action_values(after(patient, Rules(earliest=1), diagnose(patient.gold)))


def test_with_a_larger_set_the_expert_considers_the_findings_that_tell_most(monkeypatch):
    """More findings considered are never worth less, and the value is still exactly what this expert earns."""
    patient, rules = small()[0], RULES[1]
    values = []
    for exact in (1, 2, 3, 4):
        monkeypatch.setattr(policies, "EXACT", exact)
        values.append(optimal_value(patient, rules))
        assert expected_return(patient, rules, expert) == pytest.approx(values[-1], abs=1e-9)
    assert min(np.diff(values)) > -1e-9 and values[0] < values[-1]


def test_what_is_known_beyond_the_findings_considered_counts():
    """A learner may have asked for what the expert would not: its evidence is still read."""
    rules, patient = Rules(menu=None), drawn("rl", 100, None)[0]
    considered = policies._considered(patient)
    assert len(considered) == policies.EXACT < len(patient.findings)
    beyond = [f for f in patient.findings if f not in considered][:2]
    consultation = after(patient, rules, *(inquire(patient.options[0], f) for f in beyond))
    assert action_values(consultation)[DIAGNOSE] == pytest.approx(max(consultation.posterior().values()))


# ------------------------------------------------------------------------------------------------------------ policies


@pytest.mark.parametrize("name", POLICIES)
@pytest.mark.parametrize("rules", [Rules(), Rules(earliest=1), Rules(horizon=6).with_costs(test=0.1)])
def test_a_policy_never_wastes_a_turn_and_always_answers(name, rules):
    for patient in drawn("rl", 300)[:15]:
        played = play(patient, rules, POLICIES[name], rng())
        assert all(turn.observation.problem is None for turn in played.turns)
        assert played.consultation.diagnosis in patient.options
        assert read_action(played.turns[-1].text).hypothesis == played.consultation.diagnosis


@pytest.mark.parametrize("name", POLICIES)
def test_a_policy_sees_nothing_that_the_agent_does_not(name):
    """Its first turn is the same whatever the patient's truth and diagnosis."""
    for patient in drawn("rl", 300)[:15]:
        texts = {
            POLICIES[name](Consultation(replace(one, gold=gold), Rules()), rng())
            for one in (patient, other_truth(patient))
            for gold in patient.options
        }
        assert len(texts) == 1


def test_guessing_reads_nothing():
    for patient in drawn("rl", 300)[:30]:
        texts = [turn.text for turn in play(patient, Rules(), guess, rng()).turns]
        assert texts == [turn.text for turn in play(other_truth(patient), Rules(), guess, rng()).turns]
        assert len(texts) == Rules().earliest
        first = posterior(patient, dict.fromkeys(patient.complaint, True))
        assert texts[-1] == diagnose(patient.options[int(first.argmax())])


def test_guessing_takes_the_cheapest_turns():
    patient = next(p for p in drawn("rl", 300) if {v for _, v in p.menu.values()} >= {"ask", "test"})
    dear = Rules(earliest=2, costs={"ask": 0.05, "examine": 0.2, "test": 0.2, "invalid": 0.1})
    assert read_action(play(patient, dear, guess, rng()).turns[0].text).verb == "ask"
    dearer = Rules(earliest=3, costs={"ask": 0.2, "examine": 0.2, "test": 0.2, "invalid": 0.1})
    problems = [turn.observation.problem for turn in play(patient, dearer, guess, rng()).turns]
    assert problems == ["too early", "too early", None]


def test_random_inquiries_differ_with_the_generator_and_take_the_whole_horizon():
    patient = drawn("rl", 300)[0]
    played = [play(patient, Rules(), random_inquiry, np.random.default_rng(seed)) for seed in range(60)]
    assert {len(p.turns) for p in played} == {Rules().horizon}
    assert {read_action(p.turns[0].text).object for p in played} == set(patient.menu)
    for p in played:
        p_end = p.turns[-1].posterior
        assert p.consultation.diagnosis == max(p_end, key=p_end.get)


def test_greedy_inquires_after_what_tells_most():
    """Literal: H(o) - sum over outcomes of P(outcome) H(o | outcome)."""
    for patient in drawn("rl", 300)[:10]:
        consultation = after(patient, Rules(), inquiries(patient)[0])
        before, gains = posterior(patient, consultation.known), {}
        for f in consultation.open():
            present = float(before @ patient.likelihoods(f))
            after_it = [posterior(patient, consultation.known | {f: said}) for said in (True, False)]
            gains[f] = information(before) - present * information(after_it[0])
            gains[f] -= (1 - present) * information(after_it[1])
        assert expected_gains(consultation) == pytest.approx(gains, abs=1e-12)
        assert min(gains.values()) > -1e-12
        finding, _ = patient.menu[read_action(greedy(consultation, rng())).object]
        assert gains[finding] == pytest.approx(max(gains.values()), abs=1e-9)


def test_the_expert_stops_when_nothing_is_worth_its_cost():
    free, dear = Rules(earliest=1, costs={}), Rules(earliest=1).with_costs(ask=1, examine=1, test=1)
    some = Rules(earliest=1).with_costs(ask=0.05, examine=0.05, test=0.05)
    turns = {
        name: [len(play(p, rules, expert, rng()).turns) for p in drawn("rl", 300)[:25]]
        for name, rules in (("free", free), ("some", some), ("dear", dear))
    }
    assert set(turns["dear"]) == {1}
    assert 1 < np.mean(turns["some"]) < np.mean(turns["free"]) <= 5


def test_the_expert_gives_turns_away_only_where_that_is_cheapest():
    rules = Rules(costs={"ask": 1, "examine": 1, "test": 1, "invalid": 0.01})
    turns = play(drawn("rl", 300)[0], rules, expert, rng()).turns
    assert [turn.observation.problem for turn in turns] == ["too early", "too early", None]


def test_a_history_says_what_was_known_before_each_turn():
    patient = drawn("rl", 300)[0]
    played = play(patient, Rules(), greedy, rng())
    consultation = Consultation(patient, Rules())
    for turn in played.turns:
        assert (turn.key, turn.posterior) == (consultation.state_key(), consultation.posterior())
        assert consultation.step(turn.text) == turn.observation
    assert played.consultation.snapshot() == consultation.snapshot()


# ------------------------------------------------------------------------------------------- a world worth inquiring in


def test_guessing_is_right_at_most_half_the_time_and_the_expert_at_least_85_percent():
    """400 validation patients: exact expected accuracy (costs are 0), and played with the truths they were drawn with."""
    rules, patients = Rules(), drawn("validation", 400)
    expected, right = {"guess": 0.0, "expert": 0.0}, {"guess": 0, "expert": 0}
    for patient in patients:
        expected["guess"] += guess_value(patient, rules) / 400
        expected["expert"] += optimal_value(patient, rules) / 400
        for name in right:
            right[name] += play(patient, rules, POLICIES[name], rng()).consultation.diagnosis == patient.gold
    assert expected["guess"] <= 0.5 and expected["expert"] >= 0.85
    for name, value in expected.items():
        assert abs(right[name] / 400 - value) <= 3.5 * np.sqrt(value * (1 - value) / 400)


def test_costs_that_make_guessing_best_from_the_start_are_refused():
    patients = drawn("rl", 300)[:20]
    best, guessed = check_costs(Rules(), patients)
    assert best == pytest.approx(np.mean([optimal_value(p, Rules()) for p in patients]))
    assert guessed == pytest.approx(np.mean([guess_value(p, Rules()) for p in patients]))
    dear = Rules(earliest=1).with_costs(ask=0.4, examine=0.4, test=0.4)
    with pytest.raises(ValueError) as refused:
        check_costs(dear, patients)
    for value in (optimal_value, guess_value):
        assert f"{np.mean([value(p, dear) for p in patients]):.3f}" in str(refused.value)
    with pytest.raises(ValueError, match="at least 0.9"):
        check_costs(Rules(), patients, margin=0.9)
    with pytest.raises(ValueError, match="no patients"):
        check_costs(Rules(), [])
