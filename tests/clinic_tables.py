"""The clinic's tables read and weighed word for word, with no code of the package's loader or drawing."""

import csv

from clinical_r1.clinic.knowledge import FOLDER


def rows(name):
    """The rows of one of the six tables."""
    with (FOLDER / f"{name}.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


NUMBERS = {(row["condition"], row["finding"]): row for row in rows("relations")}
TOGETHER = {frozenset((row["condition"], row["other"])) for row in rows("coexist")}


def literal_weight(finding, present, condition, options):
    """The rows of the tables, and the rule on rivals, spelled out."""
    if (condition, finding) in NUMBERS:
        return int(NUMBERS[condition, finding]["present" if present else "absent"])
    for option in options:
        row = NUMBERS.get((option, finding))
        if present and row and row["present"] == "2" and {option, condition} not in TOGETHER:
            return -2
    return 0
