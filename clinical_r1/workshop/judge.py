"""Exercise 7, calibrate a judge: three judges with known faults on two scripted writers, and its check."""

from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache

import numpy as np

from clinical_r1.clinic.cases import Case, load_set
from clinical_r1.clinic.traces import BASE, TEACHER, write_trace
from clinical_r1.workshop.checking import key_problems, report, shortened

JUDGED_MEASURES = ("faithfulness", "hallucination", "backward_chaining")
CAREFUL = replace(TEACHER, careful=0.95, claim_error=0.03, chain=0.0)  # writes much, invents little
HASTY = replace(BASE, careful=0.3, claim_error=0.4, chain=0.0)  # writes little, invents much


@lru_cache(maxsize=1)
def judged_methods(n: int = 150) -> tuple[list[str], dict, dict[str, dict]]:
    """(question ids, exact verdicts by method, judge -> verdicts by method) of two scripted writers.

    The shape that `calibration.ordering` takes: {method: [verdicts of n questions, in the same order]}.
    """
    from clinical_r1.judges.calibration import claim_counter, length_judge, noisy_judge
    from clinical_r1.score import exact_judge

    rng, questions = np.random.default_rng(77), load_set("clinic", "validation", n)
    texts = {
        name: [write_trace(Case.from_json(q.meta["case"]), "crpo", habits, rng) for q in questions]
        for name, habits in (("careful", CAREFUL), ("hasty", HASTY))
    }

    def verdicts(judge):
        return {
            name: [judge(q, text) for q, text in zip(questions, own, strict=True)]
            for name, own in texts.items()
        }

    judges = {
        "claim counter": claim_counter,
        "length judge": length_judge,
        "noisy judge": noisy_judge(0.2),
    }
    return (
        [q.id for q in questions],
        verdicts(exact_judge),
        {name: verdicts(j) for name, j in judges.items()},
    )


@lru_cache(maxsize=1)
def _orders() -> dict[str, dict[str, str]]:
    """judge -> measure -> what `calibration.ordering` says of the two methods."""
    from clinical_r1.judges.calibration import ordering

    ids, exact, judged = judged_methods()
    tables = {name: ordering(verdicts, exact, JUDGED_MEASURES, ids) for name, verdicts in judged.items()}
    return {name: dict(zip(table["measure"], table["order"], strict=True)) for name, table in tables.items()}


def check_judges(answer) -> bool:
    """answer: each of JUDGED_MEASURES -> names of judges that order the two methods as the exact judge does."""
    orders, problems = _orders(), key_problems(answer, JUDGED_MEASURES)
    for name, judges in answer.items() if isinstance(answer, Mapping) else ():
        if name not in JUDGED_MEASURES or judges is None:
            continue
        if isinstance(judges, str) or not isinstance(judges, (list, tuple, set, frozenset)):
            problems.append(f"{name!r} is {shortened(judges)}; expected a list of names, empty for nobody.")
            continue
        named = [str(judge).strip().lower() for judge in judges]
        if unknown := sorted(set(named) - set(orders)):
            problems.append(f"{name!r} names {', '.join(unknown)}; expected some of {', '.join(orders)}.")
        problems += _trust_problems(name, named, {j: o[name] for j, o in orders.items()})
    return report(
        "7 judges",
        problems,
        "A judge is trusted for a measure and a comparison, not once for all; and a right order can have a wrong reason.",
    )


WHY_NOT = {
    "reversed": "its difference has the other sign than the exact one, and the interval leaves out 0",
    "judge undecided": "the interval of its difference holds 0, so it ranks nobody",
    "no verdict": "it gave no count",
}


def _trust_problems(name: str, judges: list[str], orders: dict[str, str]) -> list[str]:
    """What is wrong with the judges that are trusted for one measure. orders: judge -> the word of `calibration.ordering`."""
    trusted = [judge for judge, order in orders.items() if judge in judges and order != "same"]
    if trusted and set(orders.values()) == {"exact undecided"}:
        return [
            f"{name!r}: the interval of the exact difference holds 0, so there is no order that {' or '.join(trusted)} "
            "could find."
        ]
    problems = [f"{name!r}: would you trust the {judge}? Here {WHY_NOT[orders[judge]]}." for judge in trusted]
    if left_out := sum(order == "same" and judge not in judges for judge, order in orders.items()):
        who = "one judge is" if left_out == 1 else f"{left_out} judges are"
        problems.append(f"{name!r}: {who} left out who put the two in the right order.")
    return problems
