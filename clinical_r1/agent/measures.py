"""What consultations were like: one record for each, from its texts alone, and a table of means with intervals (ours).

A consultation is deterministic, so what an agent wrote is all that is needed: `measure` plays it again, whoever the agent was.

    right, answered      the diagnosis is the patient's; there was one. Without one, `right` is False
    turns                turns taken, invalid ones included
    asks, examinations, tests   valid inquiries with each verb
    cost, return         what turns took, >= 0; what they paid less what they took, so `right - cost`
    information_gain     bits: entropy of the exact posterior after the complaint, less that at the end; below 0 after evidence
                         that misleads
    repeats, invalid     share of turns that inquired after what was known already; that were invalid for any reason
    coverage             share of the findings on offer that speak for the patient's diagnosis when present, that were inquired
                         after. None where there are none
    premature_closure    a wrong diagnosis before the last turn, with findings open, while the likeliest option's exact posterior
                         was below SURE. None without a diagnosis
    hypotheses           for each turn, whether its hypothesis was the patient's diagnosis; None where it named no option
"""

from collections.abc import Iterable, Sequence

import numpy as np

from clinical_r1.agent.consultation import (
    PROBLEMS,
    Consultation,
    Observation,
    Patient,
    Rules,
    information,
    posterior,
    read_action,
    verb_of,
)
from clinical_r1.clinic.knowledge import knowledge_base
from clinical_r1.intervals import mean_interval

SURE = 0.8  # posterior from which a diagnosis is no longer premature
REPEAT = PROBLEMS[4]
COUNTED = {"ask": "asks", "examine": "examinations", "test": "tests"}
BINARY = ("right", "answered", "premature_closure")
SHARES = ("repeats", "invalid", "coverage")
AMOUNTS = ("turns", *COUNTED.values(), "cost")
SIGNED = ("return", "information_gain")
HYPOTHESIS = "hypothesis_right_turn_{}"


def measure(
    patient: Patient,
    rules: Rules,
    texts: Sequence[str],
    observations: Sequence[Observation] | None = None,
) -> dict:
    """The record of one consultation, from the texts of its turns in order: see the module's docstring.

    observations: what the turns brought, to be checked. ValueError where they differ from what these texts bring, and where
    the texts end before the consultation does or go on after it.
    """
    consultation, seen = Consultation(patient, rules), []
    before = information(posterior(patient, consultation.known))
    for text in texts:
        best, open_ = max(consultation.posterior().values()), consultation.open()
        seen.append(consultation.step(text))
    if not consultation.done:
        raise ValueError(
            f"the consultation of {patient.id} is not over after {len(texts)} turns; expected the texts of all its turns."
        )
    _same(patient, seen, observations)
    answered, right = consultation.diagnosis is not None, consultation.diagnosis == patient.gold
    hasty = bool(consultation.turns_left and open_ and best < SURE and not right)
    record = {"id": patient.id, "right": right, "answered": answered, "turns": len(seen)}
    known = [f for f in consultation.known if f not in patient.complaint]
    record |= {name: sum(verb_of(f) == verb for f in known) for verb, name in COUNTED.items()}
    return record | {
        "cost": sum(max(0.0, -o.reward) for o in seen),
        "return": sum(o.reward for o in seen),
        "information_gain": before - information(posterior(patient, consultation.known)),
        "repeats": sum(o.problem == REPEAT for o in seen) / len(seen),
        "invalid": sum(o.problem is not None for o in seen) / len(seen),
        "coverage": coverage(patient, known),
        "premature_closure": hasty if answered else None,
        "hypotheses": [_hypothesis_right(patient, text) for text in texts],
    }


def measures(histories: Iterable[tuple]) -> list[dict]:
    """`measure` of each history: (patient, rules, texts), or (patient, rules, texts, observations)."""
    return [measure(*history) for history in histories]


def coverage(patient: Patient, known: Iterable[str]) -> float | None:
    """Share of the findings on offer that speak for the diagnosis when present that are among `known`; None for none."""
    kb = knowledge_base()
    telling = {f for f in patient.findings if kb.weight(f, True, patient.gold, patient.options) > 0}
    return len(telling & set(known)) / len(telling) if telling else None


def summary(records: Sequence[dict], seeds: Sequence | None = None, level: float = 0.95) -> list[dict]:
    """The table of records: rows {measure, n, value, low, high}, where n is how many consultations could be scored.

    value is the mean over these n; (low, high) as in `intervals.mean_interval`, patients taken as a whole when they came more
    than once. seeds: training seed of each record, or None. What is not defined is None, never 0: the value of no
    consultation, the interval of a single amount.
    """
    seeds = list(seeds) if seeds is not None else None
    if seeds is not None and len(seeds) != len(records):
        raise ValueError(
            f"summary got {len(seeds)} seeds for {len(records)} records; expected one for each record."
        )
    longest = max((len(record["hypotheses"]) for record in records), default=0)
    columns = {name: [record[name] for record in records] for name in (*BINARY, *SHARES, *AMOUNTS, *SIGNED)}
    for turn in range(longest):
        columns[HYPOTHESIS.format(turn + 1)] = [(*r["hypotheses"], *[None] * longest)[turn] for r in records]
    ids = [record["id"] for record in records]
    return [{"measure": name, **_mean(name, values, ids, seeds, level)} for name, values in columns.items()]


def _mean(name, values, ids, seeds, level) -> dict:
    scored = [i for i, value in enumerate(values) if value is not None]
    if not scored:
        return {"n": 0, "value": None, "low": None, "high": None}
    numbers = np.array([float(values[i]) for i in scored])
    low, high = mean_interval(
        numbers,
        level,
        [ids[i] for i in scored],
        [seeds[i] for i in scored] if seeds is not None else None,
        share=name not in (*SHARES, *AMOUNTS, *SIGNED),
    )
    if name not in SIGNED:
        low, high = np.clip((low, high), 0.0, np.inf if name in AMOUNTS else 1.0)
    found = {"value": numbers.mean(), "low": low, "high": high}
    return {"n": len(scored)} | {key: float(v) if np.isfinite(v) else None for key, v in found.items()}


def _hypothesis_right(patient: Patient, text: str) -> bool | None:
    action = read_action(text)
    named = action is not None and action.hypothesis in patient.options
    return action.hypothesis == patient.gold if named else None


def _same(patient, seen, observations) -> None:
    if observations is None:
        return
    if len(observations) != len(seen):
        raise ValueError(
            f"got {len(observations)} observations for {len(seen)} turns of {patient.id}; expected one for each turn."
        )
    for turn, (new, old) in enumerate(zip(seen, observations, strict=True), start=1):
        if new != old:
            raise ValueError(
                f"turn {turn} of {patient.id} brings {new}, the transcript says {old}; expected the same: it was held under "
                "other rules, or changed."
            )
