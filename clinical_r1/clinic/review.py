"""The knowledge base for a clinician's eyes: a sheet to fill in, and the tables of docs/clinic.md."""

import csv
import io
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from clinical_r1.clinic.cases import Case, phrase
from clinical_r1.clinic.knowledge import KnowledgeBase
from clinical_r1.clinic.tables import CLASSES
from clinical_r1.questions import LETTERS

COLUMNS = (
    "family", "condition", "finding", "when present", "when absent", "class", "weight present", "weight absent", "basis",
    "agree (yes/no)", "change to", "comment",
)  # fmt: skip
PAGE_BEGIN, PAGE_END = "<!-- relations: generated -->", "<!-- /relations -->"
MEANING = {
    "hallmark": "present, it rules in; absent, it argues strongly against",
    "specific": "present, it rules in; absent, it says nothing",
    "sensitive": "present, it fits; absent, it argues strongly against",
    "typical": "present, it fits; absent, it says nothing",
    "neutral": "judged: says nothing, present or absent, and needs no explanation",
    "weakly against": "present, it argues weakly against",
    "against": "present, it argues strongly against",
}


def sheet(kb: KnowledgeBase, family: str | None = None) -> list[dict[str, str]]:
    """One row for each relation, of one family or of all, with three columns to fill in. ValueError for an unknown family."""
    if family is not None and family not in kb.families:
        raise ValueError(f"got the family {family!r}; expected one of {', '.join(kb.families)}.")
    rows = []
    for condition, relations in kb.relations.items():
        if family in (None, kb.conditions[condition]):
            for finding, relation in _ordered(relations):
                entry, weights = kb.findings[finding], (relation.present, relation.absent)
                name = CLASSES[weights]
                values = (
                    kb.conditions[condition], condition, finding, entry["present"], entry["absent"],
                    f"{name}: {MEANING[name]}", *(f"{w:+d}" if w else "0" for w in weights), relation.basis, "", "", "",
                )  # fmt: skip
                rows.append(dict(zip(COLUMNS, values, strict=True)))
    return rows


def _ordered(relations: dict) -> list[tuple]:
    """A condition's relations, what rules it in first and what is against it last."""
    return sorted(relations.items(), key=lambda item: (-item[1].present, item[1].absent))


def as_csv(rows: list[dict[str, str]]) -> str:
    """A sheet as CSV."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def as_markdown(rows: list[dict[str, str]]) -> str:
    """A sheet as Markdown: a table for each condition."""
    lines, columns = [], COLUMNS[3:]
    for row in rows:
        heading = f"## {row['condition']} ({row['family']})"
        if heading not in lines:
            lines += ["", heading, "", _line(columns), _line("---" for _ in columns)]
        lines.append(_line(row[column] for column in columns))
    return "\n".join(lines[1:]) + "\n"


def _line(cells) -> str:
    """A row of a Markdown table: what would end a cell or the line is written so that it does not."""
    return "| " + " | ".join(" ".join(cell.splitlines()).replace("|", r"\|") for cell in cells) + " |"


def evidence_table(case: Case):
    """The weight of each stated finding for each option, and their sums, the net evidence: frame, one column an option."""
    import pandas as pd

    rows = {phrase(f, p, case.shift): [case.weight(f, p, o) for o in case.options] for f, p in case.stated}
    names = [f"{letter} {option}" for letter, option in zip(LETTERS, case.options, strict=False)]
    return pd.DataFrame({**rows, "net evidence": [case.net(o) for o in case.options]}, index=names).T


def read_changes(docs: Path) -> list[dict[str, str]]:
    """clinic_changes.csv: what the readings proposed, and what became of it."""
    with (docs / "clinic_changes.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def _changes(rows: list[dict[str, str]]) -> Iterator[str]:
    """Counts, and each proposal that was not taken, with the reason."""
    proposed = [row for row in rows if row["source"] != "ours"]
    counts = Counter(row["taken"] for row in proposed)
    yield (
        f"Of {len(proposed)} proposals of the readings {counts['yes']} were taken as they stood, {counts['otherwise']} in "
        f"another way, {counts['covered by rule']} are covered by the rule on rivals, {counts['no']} were not taken. "
        f"{len(rows) - len(proposed)} further changes followed. Not taken:"
    )
    yield from ("", "| condition | finding | is | proposed | why not |", "| --- | --- | --- | --- | --- |")
    for row in proposed:
        if row["taken"] == "no":
            yield _line(row[column] for column in ("condition", "finding", "now", "proposed", "why"))


def page_block(kb: KnowledgeBase, changes: list[dict[str, str]]) -> str:
    """All relations, diseases that occur together, excluded pairs, changes: the generated part of docs/clinic.md."""
    total = sum(map(len, kb.relations.values()))
    lines = [
        f"{len(kb.conditions)} conditions in {len(kb.families)} families, {len(kb.findings)} findings, {total} relations, "
        f"{len(kb.exclusions)} excluded pairs, {len(kb.coexist)} pairs of diseases that occur together. "
        f"sha256 `{kb.sha256[:16]}`."
    ]
    for family, entry in kb.families.items():
        lines += ["", f"## {family.capitalize()}", ""]
        lines.append(f"Shared complaint: {entry['complaint']}. Beside it in sets of ten: {entry['beside']}.")
        for condition in entry["members"]:
            lines += ["", f"### {condition}", "", "| finding | class | basis |", "| --- | --- | --- |"]
            for finding, relation in _ordered(kb.relations[condition]):
                name = CLASSES[relation.present, relation.absent]
                lines.append(_line((kb.findings[finding]["present"], name, relation.basis)))
    lines += ["", "## Diseases that occur together", "", "| one | other | reason |", "| --- | --- | --- |"]
    lines += [_line((*sorted(pair), reason)) for pair, reason in kb.coexist.items()]
    lines += [
        "",
        "## Findings that are never stated together",
        "",
        "| one | other | reason |",
        "| --- | --- | --- |",
    ]
    lines += [_line((*_said(kb, pair), reason)) for pair, reason in kb.exclusions.items()]
    lines += ["", "## Proposals that were not taken", "", *_changes(changes)]
    return "\n".join(lines)


def _said(kb: KnowledgeBase, pair: frozenset) -> Iterator[str]:
    for finding, present in sorted(pair):
        yield kb.findings[finding]["present" if present else "absent"]
