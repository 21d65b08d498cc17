"""The clinic's knowledge base (`data/clinic_kb/*.csv`, ours): conditions, findings, and how strongly each speaks for which.

Every relation has two weights from -2 to 2: the evidence for the condition when the finding is stated present, and when it is
stated absent. Teaching data, not medical advice; not yet reviewed by a clinician.

    hallmark   ( 2, -2)  specific and sensitive: present rules in, absent rules out
    specific   ( 2,  0)  rules in; its absence says nothing
    sensitive  ( 1, -2)  its absence rules out
    typical    ( 1,  0)  fits
    against    (-2,  0)  argues against; (-1, 0) weakly
    no row               neutral: a claim about it is unverifiable, not false

By rule, a finding that is specific for another option argues against a condition it has no relation with (rival evidence),
unless the two diseases occur together (`coexist.csv`).
"""

import csv
import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from clinical_r1.files import PACKAGE

FOLDER = PACKAGE / "data" / "clinic_kb"
STATUS = "DRAFT: not clinically reviewed. Teaching data, not medical advice."
TABLES = ("families", "conditions", "findings", "relations", "exclusions", "coexist")
RULES_IN, RULES_OUT = 2, -2
RIVAL = -2  # weight of another option's specific finding


@dataclass(frozen=True)
class Relation:
    """Evidence for a condition when a finding is stated present or absent, each from -2 to 2, and why."""

    present: int
    absent: int
    basis: str


@dataclass(frozen=True)
class KnowledgeBase:
    """findings: id -> kind and four phrases; families: name -> complaint, beside and members; relations: condition -> finding ->
    Relation; sha256 over all files.
    """

    findings: dict[str, dict[str, str]]
    families: dict[str, dict]
    relations: dict[str, dict[str, Relation]]
    implies: dict[str, tuple[str, ...]]  # finding -> findings that are present whenever it is
    exclusions: frozenset  # of frozensets of two (finding, present) that cannot both be stated
    coexist: frozenset  # of frozensets of two conditions
    sha256: str

    @property
    def conditions(self) -> dict[str, str]:
        """Condition -> family, in the order of the files."""
        return {name: family for family, entry in self.families.items() for name in entry["members"]}

    def weight(self, finding: str, present: bool, condition: str, options: Iterable[str] = ()) -> int:
        """Evidence for a condition, -2 to 2, by a stated finding, where these options are on offer (the module's table)."""
        relation = self.relations[condition].get(finding)
        if relation is not None:
            return relation.present if present else relation.absent
        if present and any(self._is_rival(finding, condition, option) for option in options):
            return RIVAL
        return 0

    def _is_rival(self, finding: str, condition: str, option: str) -> bool:
        relation = self.relations[option].get(finding)
        return (
            option != condition
            and relation is not None
            and relation.present == RULES_IN
            and frozenset((option, condition)) not in self.coexist
        )

    def effect(self, finding: str, present: bool, condition: str, options: Iterable[str] = ()) -> int:
        """The sign of the weight: +1 supports, -1 argues against, 0 neutral."""
        weight = self.weight(finding, present, condition, options)
        return (weight > 0) - (weight < 0)

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


def read_table(folder: Path, name: str) -> list[dict[str, str]]:
    with (folder / f"{name}.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def load(folder: Path) -> KnowledgeBase:
    """A knowledge base from its six tables."""
    tables = {name: read_table(folder, name) for name in TABLES}
    families = {
        row["family"]: {
            "complaint": row["complaint"],
            "beside": row["beside"],
            "members": [c["condition"] for c in tables["conditions"] if c["family"] == row["family"]],
        }
        for row in tables["families"]
    }
    relations: dict[str, dict[str, Relation]] = {row["condition"]: {} for row in tables["conditions"]}
    for row in tables["relations"]:
        relations[row["condition"]][row["finding"]] = Relation(
            int(row["present"]), int(row["absent"]), row["basis"]
        )
    digest = hashlib.sha256(b"".join((folder / f"{name}.csv").read_bytes() for name in TABLES))
    return KnowledgeBase(
        {
            row["finding"]: {k: v for k, v in row.items() if k not in ("finding", "implies")}
            for row in tables["findings"]
        },
        families,
        relations,
        {row["finding"]: tuple(row["implies"].split("|")) for row in tables["findings"] if row["implies"]},
        frozenset(
            frozenset(
                ((row["finding"], row["state"] == "present"), (row["other"], row["other_state"] == "present"))
            )
            for row in tables["exclusions"]
        ),
        frozenset(frozenset((row["condition"], row["other"])) for row in tables["coexist"]),
        digest.hexdigest(),
    )


@lru_cache(maxsize=1)
def knowledge_base() -> KnowledgeBase:
    """The shipped knowledge base. Every relation carries a short basis: `relations[condition][finding].basis`."""
    return load(FOLDER)
