"""The clinic's signed knowledge base (`data/clinic_kb.json`, ours): conditions, findings, and how they speak.

H hallmark, T typical, N argues against, nothing = neutral. Teaching data, not medical advice; not yet reviewed by a clinician.

    H or T, stated present   supports
    N, stated present        argues against
    H, stated absent         argues against
    everything else          neutral: a claim about it is unverifiable, not false
"""

import hashlib
import json
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources


@dataclass(frozen=True)
class KnowledgeBase:
    """findings: id -> phrases; conditions: name -> family and relations; sha256 of the file it came from."""

    findings: dict
    conditions: dict
    implies: dict  # finding -> findings that are present whenever it is: sudden dyspnea is dyspnea
    sha256: str
    status: str

    def effect(self, finding: str, present: bool, condition: str) -> int:
        """+1 supports, -1 argues against, 0 neutral (the table in the module docstring)."""
        entry = self.conditions[condition]
        if present:
            return 1 if finding in entry["H"] or finding in entry["T"] else -1 if finding in entry["N"] else 0
        return -1 if finding in entry["H"] else 0

    def supports(self, condition: str) -> list[str]:
        entry = self.conditions[condition]
        return [*entry["H"], *entry["T"]]

    @property
    def families(self) -> dict[str, list[str]]:
        families: dict[str, list[str]] = {}
        for name, entry in self.conditions.items():
            families.setdefault(entry["family"], []).append(name)
        return families


@lru_cache(maxsize=1)
def knowledge_base() -> KnowledgeBase:
    """The shipped knowledge base. Every relation carries a short basis: `conditions[name]["H"][finding]`."""
    raw = resources.files("clinical_r1").joinpath("data/clinic_kb.json").read_bytes()
    content, meta = json.loads(raw), json.loads(raw)["meta"]
    return KnowledgeBase(
        content["findings"],
        content["conditions"],
        meta["implies"],
        hashlib.sha256(raw).hexdigest(),
        meta["status"],
    )
