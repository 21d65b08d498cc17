"""The six tables of a knowledge base, and what is refused in them: file, row, what was found, what was expected.

A row's number is its line in the file, the header being line 1.
"""

import csv
import re
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

COLUMNS = {
    "families": ("family", "complaint", "beside"),
    "conditions": ("condition", "family"),
    "findings": (
        "finding",
        "kind",
        "present",
        "absent",
        "present_shift",
        "absent_shift",
        "implies",
    ),
    "relations": ("condition", "finding", "present", "absent", "basis"),
    "exclusions": ("finding", "state", "other", "other_state", "reason"),
    "coexist": ("condition", "other", "reason"),
}
CLASSES = {
    (2, -2): "hallmark",
    (2, 0): "specific",
    (1, -2): "sensitive",
    (1, 0): "typical",
    (0, 0): "neutral",
    (-1, 0): "weakly against",
    (-2, 0): "against",
}
PHRASES = ("present", "absent", "present_shift", "absent_shift")
KINDS = ("symptom", "sign", "vital", "risk", "test")
STATES = ("present", "absent")
SMALLEST_FAMILY = 5  # four options come from one family of this size, ten from two
FEWEST_WORDS = 3  # of a basis or a reason
FILLED = ("families", "conditions", "findings", "relations")  # tables that have rows
# What the grammar of claims reads back: words, one blank between them, none of them its own
WORDING = re.compile(r"(?=.*[A-Za-z])(?=.{3,100}$)[A-Za-z0-9'-]+(?: [A-Za-z0-9'-]+)*")
SPEECH = re.compile(r"(?<![\w-])(?:supports|argues against|favor|suspect|then expect)(?![\w-])")

Rows = dict[str, list[tuple[int, dict[str, str]]]]


def read(folder: Path) -> Rows:
    """Table -> (line number, row) of each row. ValueError for a file that is missing or has other columns or a ragged row."""
    rows: Rows = {}
    for name, columns in COLUMNS.items():
        path = Path(folder) / f"{name}.csv"
        if not path.is_file():
            raise ValueError(
                f"{path} is missing: a knowledge base has the files {', '.join(f'{n}.csv' for n in COLUMNS)}."
            )
        rows[name] = _rows(path, columns)
        for line, row in rows[name]:
            if None in row or None in row.values():
                got = (
                    len(columns) + len(row[None]) if None in row else sum(v is not None for v in row.values())
                )
                raise ValueError(
                    f"{path} row {line}: got {got} cells; expected {len(columns)}. Put text with commas in quotes."
                )
    return rows


def _rows(path: Path, columns: tuple[str, ...]) -> list[tuple[int, dict[str, str]]]:
    try:
        with path.open(
            encoding="utf-8-sig", newline=""
        ) as file:  # spreadsheets put a byte order mark before UTF-8
            reader = csv.DictReader(file)
            if tuple(reader.fieldnames or ()) != columns:
                got = f"the columns {','.join(reader.fieldnames)}" if reader.fieldnames else "no header"
                raise ValueError(f"{path} row 1: got {got}; expected {','.join(columns)}.")
            return [(reader.line_num, row) for row in reader]
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{path}: got no CSV in UTF-8 ({error}); save the table as 'CSV UTF-8'.") from error


def faults(rows: Rows) -> Iterator[str]:
    """Every row that is refused, one sentence each; rows that break a name's first use come before those that use it."""
    return chain(
        _empty(rows), _families(rows), _conditions(rows), _findings(rows), _relations(rows), _exclusions(rows), _coexist(rows)
    )  # fmt: skip


def refusal(name: str, line: int, got: str, expected: str) -> str:
    """The sentence on a row that is refused."""
    return f"{name}.csv row {line}: got {got}; expected {expected}."


def _empty(rows: Rows) -> Iterator[str]:
    for name in FILLED:
        if not rows[name]:
            yield refusal(name, 2, "no row", f"the {name} of the knowledge base")


def _misread(words: str, conditions: set[str]) -> str | None:
    """What a wording or a name should be that claims cannot be read back with; None for a good one."""
    if not WORDING.fullmatch(words):
        return "3 to 100 letters, digits, - and ' with one blank between words"
    if spoken := SPEECH.search(words):
        return f"no {spoken[0]!r} in it, which belongs to the grammar of claims"
    for name in sorted(c for c in conditions if c and c in words and c != words):
        if re.search(rf"(?<![\w-]){re.escape(name)}(?![\w-])", words):
            return f"nothing that holds the name {name!r}"
    return None


def _values(rows: Rows, name: str) -> set[str]:
    """The first column of a table."""
    return {row[COLUMNS[name][0]] for _, row in rows[name]}


def _repeated(rows: Rows, name: str, columns: tuple[str, ...]) -> Iterator[str]:
    seen: dict[tuple, int] = {}
    for line, row in rows[name]:
        key = tuple(row[column] for column in columns)
        if not all(key):
            yield refusal(name, line, f"an empty {' or '.join(columns)}", "a name")
        elif name in FILLED and any(cell != cell.strip() for cell in key):
            yield refusal(name, line, f"{' + '.join(map(repr, key))}", "no blank before or after a name")
        elif key in seen:
            yield refusal(name, line, f"{' + '.join(key)} again", f"it once (it stands in row {seen[key]})")
        seen.setdefault(key, line)


def _families(rows: Rows) -> Iterator[str]:
    yield from _repeated(rows, "families", ("family",))
    names = _values(rows, "families")
    for line, row in rows["families"]:
        members = sum(condition["family"] == row["family"] for _, condition in rows["conditions"])
        if members < SMALLEST_FAMILY:
            yield refusal(
                "families", line, f"{members} conditions in {row['family']!r}", f"at least {SMALLEST_FAMILY}"
            )
        if row["beside"] not in names - {row["family"]}:
            yield refusal("families", line, f"beside {row['beside']!r}", "the name of another family")
        if not row["complaint"].strip():
            yield refusal("families", line, "no complaint", "the complaint its members share")


def _conditions(rows: Rows) -> Iterator[str]:
    yield from _repeated(rows, "conditions", ("condition",))
    names, spelled = _values(rows, "families"), {}
    for line, row in rows["conditions"]:
        if row["family"] not in names:
            yield refusal("conditions", line, f"family {row['family']!r}", "a family of families.csv")
        first = spelled.setdefault(row["condition"].casefold(), row["condition"])
        if first != row["condition"]:
            yield refusal(
                "conditions",
                line,
                f"{row['condition']!r} beside {first!r}",
                "names that differ in more than case",
            )
        if row["condition"] and (expected := _misread(row["condition"], _values(rows, "conditions"))):
            yield refusal("conditions", line, f"condition {_short(row['condition'])}", expected)


def _findings(rows: Rows) -> Iterator[str]:
    yield from _repeated(rows, "findings", ("finding",))
    known, conditions, implies = _values(rows, "findings"), _values(rows, "conditions"), implications(rows)
    wordings = {row[column] for _, row in rows["findings"] for column in PHRASES}
    taken = {
        name.casefold(): ("conditions", line)
        for line, row in rows["conditions"]
        for name in [row["condition"]]
    }
    for line, row in rows["findings"]:
        if row["kind"] not in KINDS:
            yield refusal("findings", line, f"kind {row['kind']!r}", f"one of {', '.join(KINDS)}")
        for column in PHRASES:
            words = row[column]
            if expected := _misread(words, conditions):
                yield refusal("findings", line, f"{column} {_short(words)}", expected)
            elif any({words[: m.start()], words[m.end() :]} <= wordings for m in re.finditer(" and ", words)):
                yield refusal(
                    "findings", line, f"{column} {words!r}", "no two other wordings with 'and' between them"
                )
            elif words.casefold() in taken:
                where = "{}.csv row {}".format(*taken[words.casefold()])
                yield refusal(
                    "findings", line, f"{column} {words!r} again", f"a wording of its kind (see {where})"
                )
            taken.setdefault(words.casefold(), ("findings", line))
        if "|" in row["finding"]:
            yield refusal(
                "findings", line, f"the id {row['finding']!r}", "an id without '|', which stands between ids"
            )
        for implied in filter(None, row["implies"].split("|")):
            if implied not in known - {row["finding"]}:
                yield refusal(
                    "findings", line, f"implies {implied!r}", "ids of other findings, '|' between them"
                )
            elif row["finding"] in implies.get(implied, ()):
                yield refusal(
                    "findings",
                    line,
                    f"{row['finding']} and {implied}, each implying the other",
                    "one finding",
                )


def _short(text: str) -> str:
    return repr(text if len(text) <= 60 else f"{text[:60]}…")


def _weights(row: dict[str, str]) -> tuple[int, int] | None:
    try:
        weights = int(row["present"]), int(row["absent"])
    except ValueError:
        return None
    return weights if weights in CLASSES else None


def _relations(rows: Rows) -> Iterator[str]:
    yield from _repeated(rows, "relations", ("condition", "finding"))
    conditions, findings = _values(rows, "conditions"), _values(rows, "findings")
    classes = ", ".join(f"{p},{a} ({name})" for (p, a), name in CLASSES.items())
    present: dict[tuple[str, str], int] = {}
    for line, row in rows["relations"]:
        if row["condition"] not in conditions:
            yield refusal(
                "relations", line, f"condition {row['condition']!r}", "a condition of conditions.csv"
            )
        if row["finding"] not in findings:
            yield refusal("relations", line, f"finding {row['finding']!r}", "a finding of findings.csv")
        weights = _weights(row)
        if weights is None:
            yield refusal("relations", line, f"weights {row['present']},{row['absent']}", f"one of {classes}")
        else:
            present[row["condition"], row["finding"]] = weights[0]
        if len(row["basis"].split()) < FEWEST_WORDS:
            yield refusal("relations", line, f"basis {row['basis']!r}", f"at least {FEWEST_WORDS} words")
    implies = implications(rows)
    for line, row in rows["relations"]:
        condition, finding = row["condition"], row["finding"]
        for implied in implies.get(finding, ()):
            if present.get((condition, finding), 0) > 0 > present.get((condition, implied), 0):
                yield refusal(
                    "relations",
                    line,
                    f"{finding} for {condition} while {implied}, which it implies, is against it",
                    "no opposite signs",
                )


def implications(rows: Rows) -> dict[str, frozenset[str]]:
    """Finding -> every finding that is present whenever it is, through all steps."""
    direct = {row["finding"]: set(filter(None, row["implies"].split("|"))) for _, row in rows["findings"]}
    found = {}
    for finding in direct:
        reached, new = set(), set(direct[finding])
        while new:
            reached |= new
            new = set().union(*(direct.get(f, ()) for f in new)) - reached
        found[finding] = frozenset(reached - {finding})
    return {finding: reached for finding, reached in found.items() if reached}


def _exclusions(rows: Rows) -> Iterator[str]:
    findings, implies, seen = _values(rows, "findings"), implications(rows), {}
    for line, row in rows["exclusions"]:
        one, other = (row["finding"], row["state"]), (row["other"], row["other_state"])
        for finding, state in (one, other):
            if finding not in findings:
                yield refusal("exclusions", line, f"finding {finding!r}", "a finding of findings.csv")
            if state not in STATES:
                yield refusal("exclusions", line, f"state {state!r}", "present or absent")
        if one[0] == other[0]:
            yield refusal("exclusions", line, f"{one[0]} beside itself", "two findings")
        if frozenset((one, other)) in seen:
            where = seen[frozenset((one, other))]
            yield refusal("exclusions", line, "the same pair again", f"it once (it stands in row {where})")
        seen.setdefault(frozenset((one, other)), line)
        for (a, state), (b, other_state) in ((one, other), (other, one)):
            if state == other_state == "present" and b in implies.get(a, ()):
                yield refusal("exclusions", line, f"{a} without {b}", f"no exclusion of what {a} implies")
        for finding, said in implies.items():
            if one[1] == other[1] == "present" and {one[0], other[0]} <= said:
                got = f"{one[0]} without {other[0]}, though {finding} implies both"
                yield refusal("exclusions", line, got, "no exclusion of what can be stated")
        if len(row["reason"].split()) < FEWEST_WORDS:
            yield refusal("exclusions", line, f"reason {row['reason']!r}", f"at least {FEWEST_WORDS} words")


def _coexist(rows: Rows) -> Iterator[str]:
    conditions, seen = _values(rows, "conditions"), {}
    for line, row in rows["coexist"]:
        pair = frozenset((row["condition"], row["other"]))
        for name in pair - conditions:
            yield refusal("coexist", line, f"condition {name!r}", "a condition of conditions.csv")
        if len(pair) == 1:
            yield refusal("coexist", line, f"{row['condition']} with itself", "two conditions")
        if pair in seen:
            yield refusal("coexist", line, "the same pair again", f"it once (it stands in row {seen[pair]})")
        seen.setdefault(pair, line)
        if len(row["reason"].split()) < FEWEST_WORDS:
            yield refusal("coexist", line, f"reason {row['reason']!r}", f"at least {FEWEST_WORDS} words")
