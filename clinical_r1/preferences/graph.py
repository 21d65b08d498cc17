"""A knowledge graph of one's own as the judge that makes pairs: triples in a CSV table, linked to text by `linker` (ours).

    subject,relation,object,sign
    fever,supports,Community-acquired pneumonia,1
    bronchial breath sounds,rules in,Community-acquired pneumonia,2
    no fever,argues against,Community-acquired pneumonia,-1
    raised temperature,synonym of,fever,
    Migraine,occurs with,Ischemic stroke,

sign: evidence of the subject, a finding, for the object, a condition: a whole number from -2 to 2 (+ and - stand for 1 and -1).
Three relations mean something by their name; any other is kept for the reader. "synonym of" gives a name another name, without a
sign. "rules in" says that the finding argues against any other option that it has no row with, unless the two conditions have a
row "occurs with", which has no sign either: the clinic's own rule (`clinic.knowledge`).

    graph = read_graph("mine.csv")                       # or read_graph("mine.csv", know_patient=False)
    pairs = build_pairs(rows, graph)                     # what the patient has, it reads from the question
"""

import csv
import hashlib
import io
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from clinical_r1.clinic.knowledge import RIVAL, RULES_IN, knowledge_base
from clinical_r1.files import numbered_rows, read_text
from clinical_r1.intervals import wilson_interval
from clinical_r1.preferences.linker import CUES, DENIALS, Linker, Said, words_of
from clinical_r1.preferences.verdicts import GraphPath, Verdicts, verdict_of
from clinical_r1.questions import Question

COLUMNS = ("subject", "relation", "object", "sign")
SYNONYM, RULING, TOGETHER = "synonym of", "rules in", "occurs with"
SIGNS = {"+": 1, "-": -1, "−": -1} | {
    f"{mark}{n}": int(f"{mark}{n}") for n in (0, 1, 2) for mark in ("", "+", "-")
}


@dataclass(frozen=True)
class Graph:
    """Names, weights and rules of a table, as a miner: (question, text) -> Verdicts, or None where there is nothing to judge.

    weights: (finding, condition) -> -2 to 2. rules_in: finding -> the conditions that it rules in. together: pairs of conditions
    that occur together. know_patient: whether a claim about a finding that the question does not state is invented.
    """

    weights: Mapping[tuple[str, str], int]
    rules_in: Mapping[str, frozenset[str]]
    together: frozenset[frozenset[str]]
    linker: Linker = field(repr=False)
    sha256: str = ""
    know_patient: bool = True

    @cached_property
    def findings(self) -> frozenset[str]:
        return frozenset(finding for finding, _ in self.weights)

    @cached_property
    def conditions(self) -> frozenset[str]:
        return frozenset(condition for _, condition in self.weights)

    @property
    def identity(self) -> dict:
        return {"judge": "triples", "know_patient": self.know_patient, "graph": self.sha256}

    def knows(self, option: str) -> bool:
        """Whether an option's text is a condition of the graph, or another name of one."""
        return self.linker.names.get(words_of(option)) in self.conditions

    def weight(self, finding: str, condition: str, options: Iterable[str] = ()) -> int:
        """Evidence of a finding for a condition, -2 to 2, where these conditions are on offer; 0 where the table says nothing."""
        if (finding, condition) in self.weights:
            return self.weights[finding, condition]
        rivals = self.rules_in.get(finding, frozenset())
        return (
            RIVAL
            if any(o in rivals and frozenset((o, condition)) not in self.together for o in options)
            else 0
        )

    def claims(self, text: str) -> tuple[Said, ...]:
        """The distinct claims that are read in a text."""
        return self.linker.claims(text, self.findings, self.conditions)

    def weigh(self, question: Question, text: str) -> Verdicts:
        """Every claim of an answer that is read, with its verdict."""
        stated = self.linker.statements(question.stem) if self.know_patient else None
        options = {self.linker.names.get(words_of(option)) for option in question.options.values()} - {None}
        return Verdicts.of(self._judged(said, stated, options) for said in self.claims(text))

    def _judged(self, said: Said, stated, options) -> GraphPath:
        weight = self.weight(said.finding, said.condition, options) if said.present else 0
        has = None if stated is None else (said.finding, said.present) in stated
        return GraphPath(*said, weight, has, verdict_of(weight, said.direction, has))

    def __call__(self, question: Question, text: str) -> Verdicts | None:
        found = self.weigh(question, text)
        return found if found.true + found.false else None


# ------------------------------------------------------------------------------------------------- reading


def read_graph(path: str | Path, know_patient: bool = True) -> Graph:
    """The graph of a CSV table with COLUMNS; other columns are for the reader.

    ValueError, naming file and line, for a row without a name, with a sign that is none, or that contradicts another.
    """
    text = read_text(path)
    reader = csv.DictReader(io.StringIO(text), strict=True, restkey="more", restval=None)
    try:
        rows = [(reader.line_num, row) for row in reader]
    except csv.Error as error:
        raise ValueError(f"{path}, line {reader.line_num} is no CSV ({error}); fix the row.") from error
    missing = [name for name in COLUMNS if name not in (reader.fieldnames or ())]
    if missing or not rows:
        raise ValueError(
            f"{path} has {len(rows)} rows with columns {reader.fieldnames or []}; expected some with {list(COLUMNS)}."
        )
    faults = list(_bad_cells(rows))
    if not faults:
        triples = [(line, *(row[name].strip() for name in COLUMNS)) for line, row in rows]
        graph, faults = _built(triples, know_patient, hashlib.sha256(text.encode()).hexdigest())
    if faults:
        line, fault = min(faults)
        more = f" ({len(faults) - 1} more rows like this)" if faults[1:] else ""
        raise ValueError(f"{path}, line {line}: {fault}{more}")
    return graph


def _bad_cells(rows) -> Iterator[tuple[int, str]]:
    """(line, what is wrong) of rows that cannot be read by themselves."""
    for line, row in rows:
        cells = [row[name] for name in COLUMNS]
        if None in cells or "more" in row:
            yield line, "the row is not as long as the header; expected a cell for each column."
            continue
        subject, relation, other, sign = (cell.strip() for cell in cells)
        if not words_of(subject) or not words_of(other):
            yield (
                line,
                f"got the subject {subject!r} and the object {other!r}; expected a name in words for each.",
            )
        elif relation in (SYNONYM, TOGETHER) and sign:
            yield line, f"got the sign {sign!r} for {relation!r}; expected none: leave the cell empty."
        elif relation not in (SYNONYM, TOGETHER) and sign not in SIGNS:
            yield line, f"got the sign {sign!r}; expected a whole number from -2 to 2, or + or -."
        elif words_of(subject) in CUES or words_of(other) in CUES:
            yield (
                line,
                f"got {subject!r} and {other!r}, one of which is a word that joins them; give it another name.",
            )


def _built(triples, know_patient: bool, sha256: str) -> tuple[Graph, list[tuple[int, str]]]:
    """(graph, faults): names by their folded words, the first spelling of each kept."""
    names, faults = {}, []
    evidence = [row for row in triples if row[2] not in (SYNONYM, TOGETHER)]
    for _, subject, _, condition, _ in evidence:
        for name in (subject, condition):
            names.setdefault(words_of(name), name)
    main, synonyms = frozenset(names), [row for row in triples if row[2] == SYNONYM]
    for line, other, _, name, _ in synonyms:
        if words_of(name) not in main:
            faults.append(
                (line, f"{name!r} stands in no other row; expected a name that has evidence of its own.")
            )
        elif names.setdefault(words_of(other), names[words_of(name)]) != names[words_of(name)]:
            faults.append(
                (line, f"{other!r} already stands for {names[words_of(other)]!r}; expected one meaning.")
            )
    weights, rules_in, lines = {}, {}, {}
    for line, subject, relation, condition, sign in evidence:
        key = names[words_of(subject)], names[words_of(condition)]
        if weights.setdefault(key, SIGNS[sign]) != SIGNS[sign]:
            faults.append(
                (
                    line,
                    f"{key[0]!r} has the sign {sign} for {key[1]!r}, and {weights[key]} on line {lines[key]}.",
                )
            )
        lines.setdefault(key, line)
        if relation == RULING:
            rules_in.setdefault(key[0], set()).add(key[1])
    together = set()
    for line, one, relation, other, _ in triples:
        if relation == TOGETHER:
            pair = [names.get(words_of(name)) for name in (one, other)]
            together.add(frozenset(pair))
            if not {*pair} <= {condition for _, condition in weights}:
                faults.append(
                    (line, f"{one!r} and {other!r} are not both conditions with evidence; expected two.")
                )
    denied = {
        names[words[1:]]: name for words, name in names.items() if words[0] in DENIALS and words[1:] in names
    }
    ruling = {finding: frozenset(conditions) for finding, conditions in rules_in.items()}
    linker = Linker(names, denied)
    return Graph(weights, ruling, frozenset(together), linker, sha256, know_patient), faults


# ------------------------------------------------------------------------------------------------- how good it is


def clinic_triples() -> Iterator[dict[str, str]]:
    """The clinic's knowledge base as rows of such a table: what a graph of one's own may look like, and what the linker is
    measured on. Each finding is two subjects, present and absent, each with the wording of `clinic-shift` as a synonym.
    """
    kb = knowledge_base()
    for condition, rows in kb.relations.items():
        for finding, relation in rows.items():
            words = kb.findings[finding]
            for state, weight in (("present", relation.present), ("absent", relation.absent)):
                name = RULING if (state, weight) == ("present", RULES_IN) else "bears on"
                yield dict(zip(COLUMNS, (words[state], name, condition, str(weight)), strict=True))
    for finding, words in kb.findings.items():
        if any(finding in rows for rows in kb.relations.values()):
            for state in ("present", "absent"):
                yield dict(zip(COLUMNS, (words[f"{state}_shift"], SYNONYM, words[state], ""), strict=True))
    for pair in kb.coexist:
        one, other = sorted(pair)
        yield dict(zip(COLUMNS, (one, TOGETHER, other, ""), strict=True))


def measure_linker(graph: Graph, path: str | Path) -> dict[str, float]:
    """How often the linker is right on sentences that were labelled by hand: JSON Lines of {"text", "claims": [[finding,
    direction, condition], ...]}, with names as the graph has them, direction 1 or -1.

    precision: share of the claims it reads that are labelled, with Wilson's 95 % interval (precision_low, precision_high);
    recall: share of the labelled claims that it reads; NaN where there is none. ValueError for a line that is not so, or a name
    that the graph has not.
    """
    read = labelled = right = count = 0
    for line, row in numbered_rows(path):
        text, expected = _labels(graph, path, line, row)
        found = {(said.finding, said.direction, said.condition) for said in graph.claims(text)}
        read, labelled = read + len(found), labelled + len(expected)
        right, count = right + len(found & expected), count + 1
    low, high = wilson_interval(right, read) if read else (float("nan"), float("nan"))
    return {
        "sentences": count, "labelled": labelled, "read": read, "right": right,
        "precision": right / read if read else float("nan"), "precision_low": low, "precision_high": high,
        "recall": right / labelled if labelled else float("nan"),
    }  # fmt: skip


def _labels(graph: Graph, path, line: int, row: Mapping) -> tuple[str, set]:
    text, claims = row.get("text"), row.get("claims")
    if not isinstance(text, str) or not isinstance(claims, list):
        raise ValueError(f"{path}, line {line} has no text and list of claims; expected both.")
    for claim in claims:
        known = isinstance(claim, list) and len(claim) == 3 and claim[1] in (1, -1)
        if not known or not {claim[0], claim[2]} <= set(graph.linker.names.values()):
            raise ValueError(
                f"{path}, line {line} has the claim {claim!r}; expected [finding, 1 or -1, condition] by names of the graph."
            )
    return text, {tuple(claim) for claim in claims}
