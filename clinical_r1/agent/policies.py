"""Reference policies of a consultation, from guessing to the best there is: lines to compare learned agents with (ours).

    guess            the likeliest option after the complaint alone; turns it must spend first, it spends as cheaply as it can
    random_inquiry   open findings at random, then the likeliest option
    greedy           the open finding with the largest expected information gain, then the likeliest option
    expert           the largest expected return, by dynamic programming; stops when no further inquiry is worth its cost

Each is `policy(consultation, rng) -> text of a turn`, sees what the agent sees, and knows the exact posterior. The first three
spend the horizon (guess: what comes before `earliest`), whatever it costs. Each turn's hypothesis is the option that the policy
would diagnose.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from clinical_r1.agent.consultation import (
    DIAGNOSE,
    Action,
    Consultation,
    Observation,
    Patient,
    Rules,
    information,
    posterior,
    verb_of,
)
from clinical_r1.clinic.cases import phrase

EXACT = 10  # findings that dynamic programming takes in: 3 ** 10 states of knowledge
MARGIN = 0.05  # what inquiring must be worth
WAIT = "wait"  # a turn given away before any diagnosis is accepted
TIE = 1e-9  # expected returns that differ by less count as equal


# ---------------------------------------------------------------------------------------------------------- the policies


def guess(consultation: Consultation, rng: np.random.Generator) -> str:
    """Diagnoses by the complaint alone, as soon as it may. Before that it takes the cheapest turns and reads nothing of them.

    Among equally cheap findings it draws; where an invalid turn is cheaper than any, it gives turns away.
    """
    patient = consultation.patient
    best = likeliest(patient, dict.fromkeys(patient.complaint, True))
    if consultation.may_diagnose:
        return diagnose(best)
    costs = {f: cost_of(consultation.rules, verb_of(f)) for f in consultation.open()}
    if not costs or cost_of(consultation.rules, "invalid") < min(costs.values()):
        return diagnose(best)
    cheap = [f for f, cost in costs.items() if cost == min(costs.values())]
    return inquire(best, cheap[int(rng.integers(len(cheap)))])


def random_inquiry(consultation: Consultation, rng: np.random.Generator) -> str:
    """Open findings at random; the likeliest option at the last turn, or when nothing is open."""
    best, open_ = likeliest(consultation.patient, consultation.known), consultation.open()
    if consultation.turns_left == 1 or not open_:
        return diagnose(best)
    return inquire(best, open_[int(rng.integers(len(open_)))])


def greedy(consultation: Consultation, rng: np.random.Generator) -> str:
    """The open finding that is expected to tell most, whatever it costs; the likeliest option at the last turn."""
    best, gains = likeliest(consultation.patient, consultation.known), expected_gains(consultation)
    if consultation.turns_left == 1 or not gains:
        return diagnose(best)
    return inquire(best, _drawn_best(gains, rng))


def expert(consultation: Consultation, rng: np.random.Generator) -> str:
    """The action with the largest expected return; where a diagnosis is as good as anything, the diagnosis."""
    best, values = likeliest(consultation.patient, consultation.known), action_values(consultation)
    for choice in (DIAGNOSE, WAIT):
        if values.get(choice, -np.inf) >= max(values.values()) - TIE:
            return diagnose(best)  # which is refused, and costs the turn, where waiting is best
    return inquire(best, _drawn_best(values, rng))


Policy = Callable[[Consultation, np.random.Generator], str]
POLICIES: dict[str, Policy] = {
    "guess": guess,
    "random_inquiry": random_inquiry,
    "greedy": greedy,
    "expert": expert,
}


class Turn(NamedTuple):
    """A turn that was played. key, posterior: of the state before it, as `Consultation` gives them."""

    text: str
    observation: Observation
    key: tuple
    posterior: dict[str, float]


class Played(NamedTuple):
    """A consultation that is over, and its turns in order."""

    consultation: Consultation
    turns: list[Turn]


def play(patient: Patient, rules: Rules, policy: Policy, rng: np.random.Generator) -> Played:
    """One consultation with a policy, from the complaint to its end."""
    consultation, turns = Consultation(patient, rules), []
    while not consultation.done:
        key, before = consultation.state_key(), consultation.posterior()
        text = policy(consultation, rng)
        turns.append(Turn(text, consultation.step(text), key, before))
    return Played(consultation, turns)


# ------------------------------------------------------------------------------------------------- what a turn is made of


def inquire(hypothesis: str, finding: str) -> str:
    """The text of a turn that inquires after a finding with its own verb."""
    return Action(hypothesis, verb_of(finding), phrase(finding, True)).text


def diagnose(option: str) -> str:
    """The text of a turn that diagnoses an option."""
    return Action(option, DIAGNOSE, option).text


def likeliest(patient: Patient, known: Mapping[str, bool]) -> str:
    """The option with the largest posterior, the first of equals."""
    return patient.options[int(posterior(patient, known).argmax())]


def cost_of(rules: Rules, name: str) -> float:
    """What a verb or an "invalid" turn costs, >= 0."""
    return float(rules.costs.get(name, 0.0))


def expected_gains(consultation: Consultation) -> dict[str, float]:
    """Open finding -> bits that inquiring after it is expected to tell, >= 0 up to rounding."""
    p, patient = posterior(consultation.patient, consultation.known), consultation.patient
    return {f: expected_gain(p, patient.likelihoods(f)) for f in consultation.open()}


def expected_gain(p: np.ndarray, likelihoods: np.ndarray) -> float:
    """H(p) - sum over both outcomes of P(outcome) H(p | outcome), in bits. p, likelihoods (of being present): (options,)."""
    joint = p * likelihoods, p * (1 - likelihoods)
    return information(p) - sum(part.sum() * information(part / part.sum()) for part in joint)


def _drawn_best(values: Mapping[str, float], rng) -> str:
    """One of the keys with the largest value, ties drawn."""
    best = [name for name, value in values.items() if value >= max(values.values()) - TIE]
    return best[int(rng.integers(len(best)))]


# ----------------------------------------------------------------------------------------------------- expected returns


def action_values(consultation: Consultation) -> dict[str, float]:
    """Expected return from here, costs included, of each thing to do now if the rest is done by the expert.

    Keys: open findings, and DIAGNOSE once a diagnosis is accepted, or WAIT before. Exact where at most EXACT findings can be
    inquired after. With more, the EXACT findings with the largest expected gain after the complaint are all that the expert
    considers, from the start: what it can do with them is exact, and at most what is possible. ValueError once it is over.
    """
    if consultation.done:
        raise ValueError(
            f"the consultation of {consultation.patient.id} is over; expected a state in which a turn is left."
        )
    patient, rules, known = consultation.patient, consultation.rules, consultation.known
    considered = _considered(patient)
    outside = {f: p for f, p in known.items() if f not in considered}
    values, weights = _solved(patient, rules, considered, outside)
    turn = rules.horizon - consultation.turns_left
    here = sum((1 + known[f]) * 3**i for i, f in enumerate(considered) if f in known)
    total, later = weights[here].sum(), values[turn + 1]
    if consultation.may_diagnose:
        found = {DIAGNOSE: weights[here].max() / total}
    else:
        found = {WAIT: later[here] / total - cost_of(rules, "invalid")}
    for i, f in enumerate(considered):
        if f not in known:
            then = later[here + 3**i] + later[here + 2 * 3**i]
            found[f] = then / total - cost_of(rules, verb_of(f))
    return {name: float(value) for name, value in found.items()}


def optimal_value(patient: Patient, rules: Rules) -> float:
    """Exact expected return of the expert after the complaint, over the diagnosis and findings that such a patient may have.

    In (-inf, 1]. The best possible where at most EXACT findings can be inquired after: see `action_values`.
    """
    return max(action_values(Consultation(patient, rules)).values())


def guess_value(patient: Patient, rules: Rules) -> float:
    """Exact expected return of `guess`: the best posterior after the complaint, less the cheapest turns until `earliest`."""
    dearest = cost_of(rules, "invalid")
    costs = sorted(min(dearest, cost_of(rules, verb_of(f))) for f in patient.findings)
    forced = (costs + [dearest] * rules.earliest)[: rules.earliest - 1]
    return float(posterior(patient, dict.fromkeys(patient.complaint, True)).max() - sum(forced))


def check_costs(rules: Rules, patients: Sequence[Patient], margin: float = MARGIN) -> tuple[float, float]:
    """(mean expected return of the expert, of guessing); ValueError where the first is not at least `margin` above the second.

    There even the best agent would earn next to nothing by inquiring, and learning can only end in premature closure.
    """
    if not patients:
        raise ValueError("check_costs got no patients; expected some of the split that is trained on.")
    best = float(np.mean([optimal_value(patient, rules) for patient in patients]))
    guessed = float(np.mean([guess_value(patient, rules) for patient in patients]))
    if best < guessed + margin:
        raise ValueError(
            f"under these rules the expert's expected return is {best:.3f} and that of guessing {guessed:.3f} (mean of "
            f"{len(patients)} patients); expected at least {margin:g} between them: lower the costs {dict(rules.costs)}."
        )
    return best, guessed


def _considered(patient: Patient) -> tuple[str, ...]:
    """The findings that dynamic programming takes in: all, or the EXACT with the largest expected gain after the complaint."""
    if len(patient.findings) <= EXACT:
        return tuple(patient.findings)
    p = posterior(patient, dict.fromkeys(patient.complaint, True))
    gains = {f: expected_gain(p, patient.likelihoods(f)) for f in patient.findings}
    return tuple(sorted(gains, key=gains.get, reverse=True)[:EXACT])


def _solved(patient, rules, considered, outside):
    """`_solve` for the findings F that are considered, given what is known of others. The patient's truth is not in it."""
    weights = posterior(patient, outside)
    likelihoods = np.stack([patient.likelihoods(f) for f in considered])
    costs = tuple(cost_of(rules, verb_of(f)) for f in considered)
    return _solve(
        weights.tobytes(),
        likelihoods.tobytes(),
        costs,
        cost_of(rules, "invalid"),
        rules.horizon,
        rules.earliest,
    )


@lru_cache(maxsize=16)  # up to 5 MB each; a patient is played turn after turn
def _solve(weights, likelihoods, costs, invalid, horizon, earliest):
    """values (horizon + 1, 3^F) by turns used, and weights (3^F, options), of all that can be known of F findings.

    A state of knowledge is a number in base 3, with one digit a finding: 0 unknown, 1 absent, 2 present. Its weights are
    P(option, what is known), and its value is P(what is known) times the largest expected return: so the value of an inquiry is
    the sum of the values that its outcomes lead to, less its cost.
    """
    weights = np.frombuffer(weights)[None]
    for present in np.frombuffer(likelihoods).reshape(len(costs), -1):
        weights = np.concatenate([weights, weights * (1 - present), weights * present])
    total, best = weights.sum(axis=1), weights.max(axis=1)
    values = np.zeros((horizon + 1, len(weights)))
    for turn in reversed(range(horizon)):
        now, later = values[turn], values[turn + 1]
        now[:] = best if turn + 1 >= earliest else later - invalid * total
        for i, cost in enumerate(costs):
            of = [array.reshape(-1, 3, 3**i) for array in (now, later, total)]
            asked = of[1][:, 1] + of[1][:, 2] - cost * of[2][:, 0]
            np.maximum(of[0][:, 0], asked, out=of[0][:, 0])
    return values, weights
