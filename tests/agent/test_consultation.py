"""The world of the agent: exact posteriors, deterministic turns, states to continue from, and no way to see the diagnosis."""

import json
import math
from itertools import combinations

import numpy as np
import pytest
from agent_patients import after, drawn, inquiries, wrong_verb

from clinical_r1.agent import consultation as world
from clinical_r1.agent.consultation import (
    AMBIGUOUS,
    DIAGNOSE,
    PRESENT,
    PROBLEMS,
    VERBS,
    Consultation,
    Patient,
    Rules,
    Snapshot,
    beginning_split,
    draw_patients,
    information,
    posterior,
    probability,
)
from clinical_r1.agent.policies import diagnose, inquire
from clinical_r1.clinic.cases import phrase
from clinical_r1.clinic.drawing import SPLIT_SHARES
from clinical_r1.clinic.knowledge import knowledge_base

KB = knowledge_base()
RULES = Rules()
ANY_TIME = Rules(earliest=1)


def patient_of_menu() -> Patient:
    return drawn("rl", 300)[0]


# ------------------------------------------------------------------------------------------------- exact probabilities


def test_every_pair_of_weights_of_the_knowledge_base_has_a_probability():
    for finding in KB.findings:
        for condition, family in KB.conditions.items():
            options = tuple(KB.families[family]["members"])
            assert 0 < probability(finding, condition, options) < 1
    by_presence = sorted(PRESENT, key=lambda weights: weights[0])
    assert [PRESENT[w] for w in by_presence if w[1] == 0] == sorted(PRESENT[w] for w in PRESENT if w[1] == 0)


@pytest.mark.parametrize("menu", [8, None])
def test_the_posterior_is_bayes_written_out(menu):
    """P(o | known) = prod over known of P(f | o) or 1 - P(f | o), over the sum of the same for all options: a uniform prior."""
    for patient in drawn("rl", 300 if menu else 100, menu)[:40]:
        consultation = after(patient, Rules(menu=menu), *inquiries(patient)[:4])
        products = []
        for option in patient.options:
            product = 1.0
            for finding, present in consultation.known.items():
                weights = tuple(KB.weight(finding, said, option, patient.options) for said in (True, False))
                product *= PRESENT[weights] if present else 1 - PRESENT[weights]
            products.append(product)
        expected = [product / sum(products) for product in products]
        assert list(consultation.posterior()) == list(patient.options)
        assert list(consultation.posterior().values()) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("menu", [8, None])
@pytest.mark.parametrize("learned", [0, 2, 5])
def test_among_many_patients_a_posterior_comes_true_as_often_as_it_says(menu, learned):
    rng = np.random.default_rng(learned)
    said, came = [], []
    for patient in drawn("rl", 300 if menu else 100, menu):
        findings = [list(patient.findings)[i] for i in rng.permutation(len(patient.findings))[:learned]]
        known = {f: patient.findings[f] for f in findings} | dict.fromkeys(patient.complaint, True)
        said += posterior(patient, known).tolist()
        came += [option == patient.gold for option in patient.options]
    said, came = np.array(said), np.array(came)
    for low, high in ((0, 0.05), (0.05, 0.2), (0.2, 0.4), (0.4, 0.7), (0.7, 1.01)):
        here = (low <= said) & (said < high)
        spread = math.sqrt((said * (1 - said))[here].sum() * 2)  # options of one patient are not independent
        assert abs((came - said)[here].sum()) <= 3.5 * spread + 1e-9


def test_what_a_patient_has_is_drawn_from_the_worlds_own_probabilities():
    expected, spread, came = 0.0, 0.0, 0
    for patient in drawn("rl", 300):
        for finding, present in patient.findings.items():
            p = probability(finding, patient.gold, patient.options)
            expected, spread, came = expected + p, spread + p * (1 - p), came + present
    assert abs(came - expected) <= 3.5 * math.sqrt(spread)


@pytest.mark.parametrize("menu", [8, None])
def test_no_finding_of_a_patient_says_anything_about_another(menu):
    """Literal: no statement about one implies, excludes or repeats a statement about another, the complaint among them."""
    for patient in drawn("rl", 300 if menu else 100, menu):
        for a, b in combinations([*patient.complaint, *patient.findings], 2):
            assert b not in KB.implies.get(a, ()) and a not in KB.implies.get(b, ())
            for p in (True, False):
                for q in (True, False):
                    assert frozenset(((a, p), (b, q))) not in KB.exclusions
                    assert (b, q) not in KB.clashes[a, p] | KB.entails[a, p]
                    assert (a, q) not in KB.clashes[b, p] | KB.entails[b, p]


def test_information_is_entropy_in_bits():
    assert information(np.array([0.25] * 4)) == pytest.approx(2)
    assert information(np.array([1.0, 0, 0, 0])) == 0
    assert information(np.array([0.5, 0.25, 0.25])) == pytest.approx(1.5)


# ------------------------------------------------------------------------------------------------------- who is drawn


@pytest.mark.parametrize("menu", [8, None])
def test_every_complaint_leaves_the_diagnosis_open(menu):
    for patient in drawn("rl", 300 if menu else 100, menu):
        best = max(Consultation(patient, Rules(menu=menu)).posterior().values())
        assert AMBIGUOUS[0] - 1e-9 <= best <= AMBIGUOUS[1] + 1e-9


def test_a_patient_has_four_options_two_complaints_and_a_menu_of_its_size():
    for patient in drawn("rl", 300):
        assert len(set(patient.options)) == 4 and patient.gold in patient.options
        assert len(set(patient.complaint)) == 2 and not set(patient.complaint) & set(patient.findings)
        assert len(patient.findings) == len(patient.menu) == 8
        assert patient.options["ABCD".index(patient.letter)] == patient.gold


def test_no_consultation_begins_alike_in_two_splits():
    begun = {}
    for split in SPLIT_SHARES:
        for patient in drawn(split, 300 if split == "rl" else 40):
            begun.setdefault(split, set()).add((frozenset(patient.options), frozenset(patient.complaint)))
            assert beginning_split(patient.options[::-1], patient.complaint[::-1]) == split
    assert not any(begun[a] & begun[b] for a, b in combinations(begun, 2))


def test_a_smaller_draw_is_the_beginning_of_a_larger_one_and_another_seed_is_another_draw():
    many = [p.to_json() for p in draw_patients("rl", 12, 5)]
    assert [p.to_json() for p in draw_patients("rl", 5, 5)] == many[:5]
    others = [p.to_json() for p in draw_patients("rl", 12, 6)]
    assert not any(a == b | {"id": a["id"]} for a in many for b in others)


def test_no_patient_is_drawn_twice_and_every_one_has_its_own_name():
    patients = [p for menu in (8, None) for p in drawn("rl", 300 if menu else 100, menu)]
    assert len({p.id for p in patients}) == len(patients)
    same = {
        (frozenset(p.options), frozenset(p.complaint), frozenset(p.findings.items()))
        for p in drawn("rl", 300)
    }
    assert len(same) == 300


def test_an_unknown_split_is_refused():
    with pytest.raises(ValueError, match="got split 'dev'"):
        draw_patients("dev", 1, 0)


def test_a_patient_comes_back_from_json():
    for patient in drawn("rl", 300)[:20]:
        assert Patient.from_json(json.loads(json.dumps(patient.to_json()))) == patient


class Forced:
    """A generator that draws as another does, except for the diagnosis: that one is given."""

    def __init__(self, seed, gold):
        self.rng, self.gold = np.random.default_rng(seed), gold

    def choice(self, n, p):
        assert n == len(p)
        self.rng.choice(n, p=p)
        return self.gold

    def __getattr__(self, name):
        return getattr(self.rng, name)


@pytest.mark.parametrize("menu", [8, None])
def test_options_complaint_and_menu_do_not_depend_on_the_diagnosis(menu):
    offered = []
    for gold in range(4):
        rng, found = Forced(3, gold), None
        while found is None:
            found = world._draw(KB, "rl", menu, rng)
        assert found[0] == found[1][gold]
        offered.append((found[1], found[2], list(found[3])))
    assert offered.count(offered[0]) == 4


def test_the_option_that_most_of_the_menu_is_about_is_right_no_more_often_than_its_posterior_says():
    excess, spread = 0.0, 0.0
    for patient in drawn("rl", 300):
        p = posterior(patient, dict.fromkeys(patient.complaint, True))
        about = [
            sum(KB.weight(f, True, option, patient.options) > 0 for f in patient.findings)
            for option in patient.options
        ]
        most = int(np.argmax(about))
        excess += (patient.options[most] == patient.gold) - p[most]
        spread += p[most] * (1 - p[most])
    assert abs(excess) <= 3.5 * math.sqrt(spread)


# ------------------------------------------------------------------------------------------------------------ one turn


@pytest.mark.parametrize("problem", PROBLEMS)
def test_what_is_not_allowed_costs_the_turn_and_teaches_nothing(problem):
    patient = patient_of_menu()
    option, finding = patient.options[0], next(iter(patient.findings))
    stranger = next(c for c in KB.conditions if c not in patient.options)
    elsewhere = next(f for f in KB.findings if f not in patient.findings and f not in patient.complaint)
    texts = {
        "not understood": ["", "fever", f"suspect {option}", f"suspect {option} {DIAGNOSE}"],
        "not an option": [diagnose(stranger), inquire(stranger, finding), f"suspect {option} diagnose fever"],
        "too early": [diagnose(option)],
        "not on offer": [
            inquire(option, elsewhere),
            inquire(option, patient.complaint[0]),
            f"suspect {option} {wrong_verb(finding)} {phrase(finding, True)}",
            f"suspect {option} ask {phrase(finding, False)}x",
        ],
        "known already": [inquire(option, finding)],
    }[problem]
    first = [inquire(option, finding)] if problem == "known already" else []
    for text in texts:
        consultation = after(patient, RULES.with_costs(invalid=0.25), *first)
        known, turns = consultation.known, consultation.turns_left
        seen = consultation.step(text)
        assert (seen.problem, seen.reward, seen.done) == (problem, -0.25, False)
        assert seen.text == f"{problem}. {turns - 1} turns left"
        assert consultation.known == known and consultation.turns_left == turns - 1


def test_an_inquiry_tells_the_truth_and_takes_the_cost_of_its_verb():
    rules = Rules().with_costs(ask=0.01, examine=0.02, test=0.04)
    told = set()
    for patient in drawn("rl", 300)[:30]:
        for finding, (text, verb) in zip(
            patient.findings,
            zip(inquiries(patient), (v for _, v in patient.menu.values()), strict=True),
            strict=True,
        ):
            consultation = Consultation(patient, rules)
            seen = consultation.step(text)
            assert seen.text == f"{phrase(finding, patient.findings[finding])}. 4 turns left"
            assert (seen.reward, seen.problem) == (-rules.costs[verb], None)
            assert consultation.known[finding] is patient.findings[finding]
            assert finding not in consultation.open()
            told.add(verb)
    assert told == set(VERBS)


def test_a_diagnosis_ends_it_and_pays_one_only_if_right():
    patient = patient_of_menu()
    for option in patient.options:
        consultation = Consultation(patient, ANY_TIME)
        seen = consultation.step(diagnose(option))
        assert (seen.text, seen.done, seen.problem) == ("", True, None)
        assert seen.reward == (1.0 if option == patient.gold else 0.0)
        assert consultation.done and consultation.diagnosis == option and not consultation.may_diagnose


def test_without_a_diagnosis_the_horizon_ends_it_unanswered_and_unpaid():
    patient = patient_of_menu()
    consultation = Consultation(patient, RULES)
    seen = [consultation.step(text) for text in inquiries(patient)[:5]]
    assert [o.done for o in seen] == [False] * 4 + [True]
    assert seen[3].text.endswith(". last turn") and seen[4].text == ""
    assert sum(o.reward for o in seen) == 0 and consultation.diagnosis is None


def test_nothing_is_said_after_the_end():
    patient = patient_of_menu()
    consultation = after(patient, ANY_TIME, diagnose(patient.gold))
    with pytest.raises(ValueError, match="is over"):
        consultation.step(inquiries(patient)[0])


@pytest.mark.parametrize("earliest", [1, 2, 3, 5])
def test_a_diagnosis_is_accepted_from_the_earliest_turn_on(earliest):
    patient, rules = patient_of_menu(), Rules(earliest=earliest)
    for before in range(5):
        consultation = after(patient, rules, *inquiries(patient)[:before])
        allowed = before + 1 >= earliest
        assert consultation.may_diagnose == allowed
        seen = consultation.step(diagnose(patient.gold))
        assert seen.problem == (None if allowed else "too early") and (seen.reward == 1) == allowed


@pytest.mark.parametrize(
    "wrong, said",
    [
        ({"earliest": 0}, "earliest 0"),
        ({"earliest": 6}, "earliest 6"),
        ({"menu": 3}, "menu of 3"),
        ({"costs": {"ask": -0.1}}, "-0.1 for 'ask'"),
        ({"costs": {"ask": math.nan}}, "nan for 'ask'"),
        ({"costs": {"diagnose": 0.1}}, "for 'diagnose'"),
    ],
)
def test_rules_that_cannot_be_kept_are_refused(wrong, said):
    with pytest.raises(ValueError, match=said):
        Rules(**wrong)


# -------------------------------------------------------------------------------------------------------------- states


def wandering(patient, rules, rng):
    """Texts of a consultation held at random: inquiries, repeats, nonsense, diagnoses."""
    said = [
        *inquiries(patient),
        *inquiries(patient),
        *(diagnose(o) for o in patient.options),
        "suspect nothing",
    ]
    return [said[i] for i in rng.integers(len(said), size=rules.horizon)]


def held(consultation, texts):
    seen = []
    for text in texts:
        if not consultation.done:
            seen.append(consultation.step(text))
    return seen


def test_a_snapshot_restores_every_future():
    rng = np.random.default_rng(1)
    for patient in drawn("rl", 300)[:30]:
        rules = Rules(earliest=2).with_costs(ask=0.1, test=0.2)
        texts = wandering(patient, rules, rng)
        consultation = Consultation(patient, rules)
        for turn, text in enumerate(texts):
            state, key = consultation.snapshot(), consultation.state_key()
            rest = held(consultation, texts[turn:])
            other = Consultation(patient, rules).restore(state)
            assert (other.state_key(), other.snapshot()) == (key, state)
            assert held(other, texts[turn:]) == rest
            assert (
                other.snapshot() == consultation.snapshot() and other.posterior() == consultation.posterior()
            )
            if consultation.restore(state).done:
                break
            consultation.step(text)


def test_equal_keys_have_equal_futures():
    rng = np.random.default_rng(2)
    patient, rules = patient_of_menu(), Rules(earliest=2).with_costs(ask=0.1, examine=0.3)
    states = {}
    for _ in range(400):
        consultation = Consultation(patient, rules)
        for text in wandering(patient, rules, rng):
            consultation.step(text)
            states.setdefault(consultation.state_key(), {})[consultation.snapshot()] = None
            if consultation.done:
                break
    shared = [list(same) for same in states.values() if len(same) > 1]
    assert len(shared) > 20
    for same in shared:
        for texts in (wandering(patient, rules, rng) for _ in range(5)):
            futures = [held(Consultation(patient, rules).restore(state), texts) for state in same]
            assert futures.count(futures[0]) == len(futures)


def test_the_order_of_inquiries_makes_no_other_state_and_a_wasted_turn_does():
    patient = patient_of_menu()
    a, b = inquiries(patient)[:2]
    assert after(patient, RULES, a, b).state_key() == after(patient, RULES, b, a).state_key()
    assert after(patient, RULES, a, a).state_key() != after(patient, RULES, a).state_key()
    assert after(patient, RULES, a, a).state_key() == after(patient, RULES, a, "nonsense").state_key()
    assert after(patient, RULES, a, a).state_key() != after(patient, RULES, a, b).state_key()


def test_a_consultation_that_is_over_shares_no_key_with_one_that_goes_on():
    patient = patient_of_menu()
    a, b = inquiries(patient)[:2]
    over, on = after(patient, RULES, a, b, diagnose(patient.gold)), after(patient, RULES, a, b, a)
    assert over.turns_left == on.turns_left and over.known == on.known
    assert over.state_key() != on.state_key()


def test_a_snapshot_that_no_turns_lead_to_is_refused():
    patient, another = drawn("rl", 300)[:2]
    with pytest.raises(ValueError, match=another.id):
        Consultation(patient, RULES).restore(Consultation(another, RULES).snapshot())
    begun = tuple((f, True) for f in patient.complaint)
    f, present = next(iter(patient.findings.items()))
    option = patient.options[0]
    unreachable = [
        (begun + ((f, not present),), 1, None, False),  # another truth
        (begun + ((f, present),), 0, None, False),  # learned in no turn
        (begun + ((f, present), (f, present)), 2, None, False),
        (begun[:1], 1, None, False),  # the complaint forgotten
        (begun + (("nothing", True),), 1, None, False),
        (begun, 6, None, True),
        (begun, -1, None, False),
        (begun, 5, None, False),  # the horizon is over, the consultation is not
        (begun, 2, None, True),
        (begun, 3, option, False),
        (begun, 2, option, True),  # too early
        (begun, 3, "influenza of nobody", True),
        (begun + tuple((f, patient.findings[f]) for f in list(patient.findings)[:3]), 3, option, True),
    ]
    for state in unreachable:
        with pytest.raises(ValueError, match="none of its states"):
            Consultation(patient, RULES).restore(Snapshot(patient.id, *state))
    assert Consultation(patient, RULES).restore(Snapshot(patient.id, begun, 3, option, True)).done
    learned = begun + ((f, present),)
    turned = Consultation(patient, RULES).restore(Snapshot(patient.id, learned[::-1], 1, None, False))
    assert (
        turned.state_key() == after(patient, RULES, inquiries(patient)[0]).state_key()
    )  # a state has no order


def test_what_a_consultation_gives_away_cannot_change_it():
    consultation = Consultation(patient_of_menu(), RULES)
    consultation.known.clear()
    consultation.open().clear()
    assert len(consultation.known) == 2 and len(consultation.open()) == 8


def test_rules_of_another_menu_than_the_patients_are_refused():
    with pytest.raises(ValueError, match="got a menu of 6 for .* drawn with 8; expected the same number"):
        Consultation(patient_of_menu(), Rules(menu=6))


@pytest.mark.parametrize(
    "values, said",
    [
        ({"horizon": 5.5}, "got horizon 5.5; expected a whole number of at least 1"),
        ({"earliest": 2.5}, "got earliest 2.5"),
        ({"earliest": 0}, "got earliest 0"),
        ({"menu": 8.0}, "got menu 8.0"),
        ({"menu": True}, "got menu True"),
        ({"horizon": "5"}, "got horizon '5'"),
        ({"costs": None}, "got the costs None"),
        ({"costs": {"ask": "1"}}, "got a cost of '1' for 'ask'"),
        ({"costs": {"ask": True}}, "got a cost of True for 'ask'"),
    ],
)
def test_rules_that_are_no_numbers_are_refused(values, said):
    with pytest.raises(ValueError, match=said):
        Rules(**values)


@pytest.mark.parametrize(
    "values, said",
    [
        ({"n": -1}, "got n -1; expected a whole number of at least 1"),
        ({"n": 1.5}, "got n 1.5"),
        ({"seed": -1}, "got seed -1; expected a whole number of at least 0"),
        ({"seed": None}, "got seed None"),
        ({"menu": 0}, "got menu 0"),
        ({"menu": 2.5}, "got menu 2.5"),
    ],
)
def test_patients_that_cannot_be_counted_are_refused(values, said):
    with pytest.raises(ValueError, match=said):
        draw_patients("rl", **{"n": 1, "seed": 0} | values)


@pytest.mark.parametrize("turn", [None, 3, b"suspect"])
def test_a_turn_that_is_no_text_is_refused(turn):
    with pytest.raises(ValueError, match="expected its text"):
        Consultation(patient_of_menu(), Rules()).step(turn)
