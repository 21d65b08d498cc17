"""What notebook 01 shows of curation, as frames: a case with its weights, what each check has found, what two splits share."""

from collections import Counter

from clinical_r1.clinic.cases import Case, phrase
from clinical_r1.clinic.verdicts import AGAINST
from clinical_r1.curation.checks import CHECKS
from clinical_r1.curation.folding import similar_pairs
from clinical_r1.files import read_jsonl
from clinical_r1.questions import LETTERS, Quarantined

ACTIONS = {"load": "set aside", "quarantine": "set aside", "report": "reported"}  # of a check -> in words
TRAINING = ("sft", "rl")
NOT_OF_A_QUESTION = ("partial_release",)  # counts rows that a file lacks


def case_table(case):
    """Every stated finding against every option: frame wording, finding, present, letter, option, weight (-2 to 2), is_key."""
    import pandas as pd

    return pd.DataFrame(
        [
            {"wording": phrase(finding, present, case.shift), "finding": finding, "present": present, "letter": letter,
             "option": option, "weight": case.weight(finding, present, option), "is_key": option == case.gold}
            for finding, present in case.stated
            for letter, option in zip(LETTERS, case.options, strict=False)
        ]
    )  # fmt: skip


def decided_table(splits):
    """Whether the stated findings decide: frame benchmark, split, n, decided (the right option's weights add up to more than any
    other's), against (a stated finding argues against it); one row for each set of the clinic.

    splits: (benchmark, split) -> questions.
    """
    import pandas as pd

    rows = []
    for (benchmark, split), questions in splits.items():
        cases = [Case.from_json(question.meta["case"]) for question in questions if "case" in question.meta]
        if cases:
            leads = [case.net(case.gold) > max(map(case.net, case.distractors)) for case in cases]
            against = [bool(case.evidence(case.gold, AGAINST)) for case in cases]
            names = {"benchmark": benchmark, "split": split, "n": len(cases)}
            rows.append(names | {"decided": sum(leads), "against": sum(against)})
    return pd.DataFrame(rows, columns=["benchmark", "split", "n", "decided", "against"])


def read_quarantine(path):
    """The questions that a run set aside: a list of `Quarantined`, from its quarantine.jsonl."""
    return [Quarantined(**row) for row in read_jsonl(path)]


def checks_table(curated, set_aside=()):
    """What every check has found in every set: frame benchmark, split, check, action ("set aside" | "reported"), count, n.

    curated: (benchmark, split) -> `splits.Curated`. set_aside: more questions that were read and set aside before, such as those
    of quarantine.jsonl, each with benchmark, split and check; those of other sets are passed over. n: all that were read. A count
    is NaN where nothing was looked for: only training splits are held against the test sets.
    """
    import pandas as pd

    before = Counter((row.benchmark, row.split, row.check) for row in set_aside)
    rows = []
    for (benchmark, split), result in curated.items():
        found = {row["check"]: row["count"] for row in result.report}
        own = {check: n for (b, s, check), n in before.items() if (b, s) == (benchmark, split)}
        size = len(result.questions) + len(result.quarantined) + sum(own.values())
        for name, check in CHECKS.items():
            if name not in NOT_OF_A_QUESTION:
                count = found.get(name, 0) + own.get(name, 0)
                count = float("nan") if name == "contaminated" and split not in TRAINING else count
                names = {
                    "benchmark": benchmark,
                    "split": split,
                    "check": name,
                    "action": ACTIONS[check.action],
                }
                rows.append(names | {"count": count, "n": size})
    return pd.DataFrame(rows, columns=["benchmark", "split", "check", "action", "count", "n"])


def shared_table(splits):
    """What splits share: frame one, other, same_stem (questions), similar (pairs that share half their 5-grams).

    splits: (benchmark, split) -> questions. Every pair of splits but two test sets, which stand for themselves.
    """
    import pandas as pd

    names, rows = list(splits), []
    for i, one in enumerate(names):
        for other in names[i + 1 :]:
            if one[1] == other[1] == "test":
                continue
            a, b = splits[one], splits[other]
            same = len({q.stem for q in a} & {q.stem for q in b})
            row = {"one": " ".join(one), "other": " ".join(other), "same_stem": same}
            rows.append(row | {"similar": len(similar_pairs(a, b))})
    return pd.DataFrame(rows, columns=["one", "other", "same_stem", "similar"])
