"""The clinic's knowledge base (`data/clinic_kb/*.csv`, ours): conditions, findings, and how strongly each speaks for which.

Every relation has two weights from -2 to 2: the evidence for the condition when the finding is stated present, and when it is
stated absent. Teaching data, not medical advice; not yet reviewed by a clinician.

    hallmark   ( 2, -2)  specific and sensitive: present rules in, absent rules out
    specific   ( 2,  0)  rules in; its absence says nothing
    sensitive  ( 1, -2)  its absence rules out
    typical    ( 1,  0)  fits
    against    (-2,  0)  argues against; (-1, 0) weakly
    neutral    ( 0,  0)  judged, and says nothing; no rival evidence either
    no row               neutral, if no rule says otherwise: a claim about it is unverifiable, not false

By rule, a finding that rules in another option (hallmark or specific) argues against a condition that it has no relation with
(rival evidence), unless the two diseases occur together (`coexist.csv`).
"""

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import combinations, islice
from pathlib import Path

from clinical_r1.clinic.tables import COLUMNS, Rows, faults, implications, read, refusal
from clinical_r1.files import PACKAGE

FOLDER = PACKAGE / "data" / "clinic_kb"
STATUS = "DRAFT: not clinically reviewed. Teaching data, not medical advice."
RULES_IN = 2
PRESENTING = ("symptom", "sign")  # nobody comes with a risk, a rate or a test alone
FEWEST_COMBINATIONS = 5  # as many as there are splits
MOST_SUPPORTING = 40  # findings of one condition: all combinations of up to four of them are dealt out
RIVAL = -2  # weight of another option's specific finding


@dataclass(frozen=True)
class Relation:
    """Evidence for a condition when a finding is stated present or absent, each from -2 to 2, and why."""

    present: int
    absent: int
    basis: str


Statement = tuple[str, bool]  # a finding and whether it is present


@dataclass(frozen=True, eq=False)
class KnowledgeBase:
    """findings: id -> kind and four phrases; families: name -> complaint, beside and members; relations: condition -> finding ->
    Relation; sha256 over all files.
    """

    findings: dict[str, dict[str, str]]
    families: dict[str, dict]
    relations: dict[str, dict[str, Relation]]
    implies: dict[str, frozenset[str]]  # finding -> all findings that are present whenever it is
    exclusions: dict[frozenset[Statement], str]  # two statements that no vignette makes together -> why
    coexist: dict[frozenset[str], str]  # two conditions that occur together -> why
    sha256: str
    status: str = STATUS

    @cached_property
    def conditions(self) -> dict[str, str]:
        """Condition -> family, in the order of the files."""
        return {name: family for family, entry in self.families.items() for name in entry["members"]}

    def weight(self, finding: str, present: bool, condition: str, options: Iterable[str] = ()) -> int:
        """Evidence for a condition, -2 to 2, by a stated finding, where these options are on offer (the module's table)."""
        relation = self.relations[condition].get(finding)
        if relation is not None:
            return relation.present if present else relation.absent
        rivals = self.ruled_in_by.get(finding, frozenset()) if present else frozenset()
        if rivals and any(o in rivals and frozenset((o, condition)) not in self.coexist for o in options):
            return RIVAL
        return 0

    @cached_property
    def ruled_in_by(self) -> dict[str, frozenset[str]]:
        """Finding -> the conditions that it rules in: those it is a hallmark of, or specific for."""
        found: dict[str, set[str]] = {}
        for condition in self.relations:
            for finding in self.rules_in(condition):
                found.setdefault(finding, set()).add(condition)
        return {finding: frozenset(conditions) for finding, conditions in found.items()}

    @cached_property
    def entails(self) -> dict[Statement, frozenset[Statement]]:
        """A statement -> itself and what it says with it: what is implied when present, and what an absence rules out."""
        found = {(f, present): {(f, present)} for f in self.findings for present in (True, False)}
        for finding, implied in self.implies.items():
            for other in implied:
                found[finding, True].add((other, True))
                found[other, False].add((finding, False))
        return {statement: frozenset(said) for statement, said in found.items()}

    @cached_property
    def clashes(self) -> dict[Statement, frozenset[Statement]]:
        """A statement -> those that no vignette states beside it: its contraries, the excluded ones, and what repeats it."""
        said_by: dict[Statement, set[Statement]] = {statement: set() for statement in self.entails}
        for statement, said in self.entails.items():
            for part in said:
                said_by[part].add(statement)
        excluded: dict[Statement, set[Statement]] = {}
        for one, other in map(tuple, self.exclusions):
            excluded.setdefault(one, set()).add(other)
            excluded.setdefault(other, set()).add(one)
        found = {}
        for statement, said in self.entails.items():
            barred = {(f, not present) for f, present in said}.union(*(excluded.get(s, ()) for s in said))
            beside = set().union(*(said_by[s] for s in barred)) | said | said_by[statement]
            found[statement] = frozenset(beside - {statement})
        return found

    def presents(self, findings: Iterable[str]) -> bool:
        """Whether a symptom or a sign is among findings."""
        return any(self.findings[finding]["kind"] in PRESENTING for finding in findings)

    def compatible(self, findings: Iterable[str]) -> bool:
        """Whether findings can be stated present side by side."""
        return not any((b, True) in self.clashes[a, True] for a, b in combinations(findings, 2))

    def supports(self, condition: str) -> list[str]:
        """The findings whose presence supports a condition, the specific ones first."""
        found = [
            (f, relation.present) for f, relation in self.relations[condition].items() if relation.present > 0
        ]
        return [finding for finding, weight in sorted(found, key=lambda pair: -pair[1])]

    def rules_in(self, condition: str) -> list[str]:
        """Hallmarks and specific findings of a condition."""
        return [f for f, relation in self.relations[condition].items() if relation.present == RULES_IN]

    def rules_out(self, condition: str) -> list[str]:
        """Hallmarks and sensitive findings: those whose absence argues against a condition."""
        return [f for f, relation in self.relations[condition].items() if relation.absent < 0]


def load(folder: Path) -> KnowledgeBase:
    """A knowledge base from the six tables in a folder: the shipped one, or a user's.

    ValueError, in one sentence that names file and row, for whatever `refusals` finds.
    """
    kb, found = _read(folder)
    if found:
        more = f" ({len(found) - 1} more: python -m clinical_r1.clinic check {folder})" if found[1:] else ""
        raise ValueError(f"The knowledge base in {folder} is refused: {found[0]}{more}")
    return kb


def refusals(folder: Path) -> list[str]:
    """What is wrong in the tables of a folder, one sentence each: `tables.faults`, then conditions that no set could draw."""
    return _read(folder)[1]


def _read(folder: Path) -> tuple[KnowledgeBase | None, list[str]]:
    rows = read(folder)
    if found := list(faults(rows)):
        return None, found
    digest = hashlib.sha256(b"".join((Path(folder) / f"{name}.csv").read_bytes() for name in COLUMNS))
    kb = _build(rows, digest.hexdigest())
    return kb, list(_undrawable(kb, rows))


def _undrawable(kb: KnowledgeBase, rows: Rows) -> Iterator[str]:
    """Conditions that some set could not draw, or that no bedside finding could reject."""
    for line, row in rows["conditions"]:
        name = row["condition"]
        if (many := len(kb.supports(name))) > MOST_SUPPORTING:
            yield refusal(
                "conditions", line, f"{many} findings that support {name}", f"at most {MOST_SUPPORTING}"
            )
        bedside = [f for f in kb.supports(name) if kb.findings[f]["kind"] != "test"]
        if not set(bedside) & set(kb.rules_out(name)):
            yield refusal(
                "conditions",
                line,
                f"no hallmark or sensitive finding of {name} that is no test",
                "one, whose absence rejects it",
            )
        quiet = [f for f in kb.supports(name) if f not in kb.rules_in(name)]
        for found, what in ((bedside, "that are no tests"), (quiet, "that do not rule it in")):
            some = (findings for size in (2, 3) for findings in combinations(found, size))
            fit = (findings for findings in some if kb.presents(findings) and kb.compatible(findings))
            count = len(list(islice(fit, FEWEST_COMBINATIONS)))
            if count < FEWEST_COMBINATIONS:
                yield refusal(
                    "conditions",
                    line,
                    f"{count} combinations of two or three findings for {name} {what}, one a symptom or sign, none excluded",
                    f"at least {FEWEST_COMBINATIONS}, one for each split",
                )


def _build(rows: Rows, sha256: str) -> KnowledgeBase:
    families = {
        row["family"]: {
            "complaint": row["complaint"],
            "beside": row["beside"],
            "members": [c["condition"] for _, c in rows["conditions"] if c["family"] == row["family"]],
        }
        for _, row in rows["families"]
    }
    relations: dict[str, dict[str, Relation]] = {row["condition"]: {} for _, row in rows["conditions"]}
    for _, row in rows["relations"]:
        relation = Relation(int(row["present"]), int(row["absent"]), row["basis"])
        relations[row["condition"]][row["finding"]] = relation
    return KnowledgeBase(
        {
            row["finding"]: {k: v for k, v in row.items() if k not in ("finding", "implies")}
            for _, row in rows["findings"]
        },
        families,
        relations,
        implications(rows),
        {
            frozenset(
                ((r["finding"], r["state"] == "present"), (r["other"], r["other_state"] == "present"))
            ): r["reason"]
            for _, r in rows["exclusions"]
        },
        {frozenset((row["condition"], row["other"])): row["reason"] for _, row in rows["coexist"]},
        sha256,
    )


@lru_cache(maxsize=1)
def knowledge_base() -> KnowledgeBase:
    """The shipped knowledge base. Every relation carries a short basis: `relations[condition][finding].basis`."""
    return load(FOLDER)
