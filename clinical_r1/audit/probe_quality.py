"""How good are the probes? Precision and recall, measured where the truth is known or was labelled."""

import os
import re
from collections import Counter
from collections.abc import Mapping
from importlib import resources
from pathlib import Path

from clinical_r1.arms import METHODS
from clinical_r1.audit.findings import bare_fact, fact_numbers, finding_coverage, finding_words
from clinical_r1.audit.options import option_mentions, rejected_options
from clinical_r1.audit.public_answers import CHAIN_MODELS, SPLITS, chain_file, chain_name
from clinical_r1.clinic.cases import Case
from clinical_r1.clinic.verdicts import AGAINST, read_claims, verdict
from clinical_r1.completions import parse_completion, parse_mirage
from clinical_r1.curation.folding import fold
from clinical_r1.curation.releases import load_benchmark
from clinical_r1.files import read_jsonl
from clinical_r1.generate import read_answers
from clinical_r1.intervals import wilson_interval
from clinical_r1.questions import read_questions

# Facts that are false for a case are those of the case this many places on: of another patient, and not a neighbour's.
STRANGER = 7
ASKED = 120  # characters at the end of a stem, where it says what is asked for
QUALITY_COLUMNS = (
    "probe", "data", "kind", "precision", "p_low", "p_high", "recall", "r_low", "r_high", "false_alarms", "f_low", "f_high",
    "n", "absent",
)  # fmt: skip


def probe_quality(settings=None, source=None):
    """Measured precision and recall of the probes: one row per probe, data and kind, with Wilson intervals.

    settings: of a run whose clinic completions are read (first seed). source: folder of the real files (mediq/, medqa/,
    medmcqa/, real_completions/); None takes CLINICAL_R1_DATA. What is not there is a row that says so in `absent`, without
    numbers. n counts the decisions. Precision depends on how many negatives a table holds; false_alarms, the
    share of negatives that the probe takes for positives, does not.
    """
    import pandas as pd

    source = source or os.environ.get("CLINICAL_R1_DATA")
    rows = (
        coverage_quality(source)
        + chain_coverage_quality(source)
        + clinic_quality(settings)
        + chain_quality(source)
    )
    return pd.DataFrame(rows, columns=QUALITY_COLUMNS)


def _quality_row(probe: str, data: str, kind: str, counts: Mapping[tuple[bool, bool], int]) -> dict:
    """counts: (true, said) -> how often."""
    hit, missed, alarm = counts[True, True], counts[True, False], counts[False, True]
    row = {"probe": probe, "data": data, "kind": kind, "n": sum(counts.values())}
    for name, k, n in (
        ("precision", hit, hit + alarm),
        ("recall", hit, hit + missed),
        ("false_alarms", alarm, alarm + counts[False, False]),
    ):
        if n:
            row[name] = k / n
            row[name[0] + "_low"], row[name[0] + "_high"] = wilson_interval(k, n)
    return row


def _absent(probe: str, data: str, reason: str) -> dict:
    return {"probe": probe, "data": data, "absent": reason}


# Finding coverage: mediQ's facts of real MedQA dev vignettes (CC BY 4.0, Li et al. 2024).
_REMOVED = (
    (re.compile(r"\b[Dd]en(?:ies|ied)\b"), "reports"),
    (re.compile(r"\b(?:does|do|did) not (?:have|has|had)\b"), "has"),
    (re.compile(r"\b[Ww]ithout\b"), "with"),
    (re.compile(r"\b(?:[Nn]o|not|never|any)\b "), ""),
)
_SUBJECT = re.compile(
    r"(?:The )?(?:[Pp]atient|[Hh]e|[Ss]he)(?: also)? (?:has|complains of|reports|presents with|had|experiences) "
)
_EXAMINATION = re.compile(
    r"((?:examination|exam|studies|ultrasound|x-ray|ct scan|mri) (?:shows?|reveals?)) ", re.I
)


def flip_fact(fact: str) -> str | None:
    """The opposite of a fact in plain words, or None where no simple rule turns it."""
    fact = re.sub(r"^\s*\d+\.\s+", "", fact)
    if _is_negative(fact):
        for pattern, positive in _REMOVED:
            fact = pattern.sub(positive, fact)
        return None if _is_negative(fact) else fact
    if _SUBJECT.match(fact):
        return _SUBJECT.sub("Patient denies ", fact, count=1)
    flipped = _EXAMINATION.sub(r"\1 no ", fact, count=1)
    return None if flipped == fact else flipped


def _is_negative(fact: str) -> bool:
    return any(negated for _, negated in finding_words(bare_fact(fact)))


def _fact_kind(fact: str) -> str:
    if _is_negative(fact):
        return "negative finding"
    return "with a number" if fact_numbers(bare_fact(fact)) else "positive finding"


def _same_fact(fact: str) -> tuple:
    return finding_words(bare_fact(fact)), fact_numbers(bare_fact(fact))


def coverage_quality(source) -> list[dict]:
    """Finding coverage on mediQ cases with an odd id (the rules were fixed on the even ones).

    Three kinds of fact, two of negatives. One rule, that no word may stand with the other polarity only, was added after this
    table had shown flipped facts slip through: the figures on flipped polarity may be slightly optimistic.

    True: each fact against its own vignette. False: the facts of a case further on, without those that read the same
    as a fact of this case (counted in `kind`); and facts with their polarity flipped. These facts keep their vignette's words;
    `chain_coverage_quality` has the recall on a chain's own words, which is lower.
    """
    path = Path(source or ".") / "mediq" / "all_dev_good.jsonl"
    data = "mediQ, MedQA dev"
    if not source or not path.is_file():
        reason = "CLINICAL_R1_DATA is unset" if not source else f"no mediq/{path.name} in the folder"
        return [_absent("finding coverage", data, reason)]
    cases = [row for row in read_jsonl(path) if row["facts"] and row["id"] % 2]
    own, foreign, flipped, shared = (Counter() for _ in range(4))
    for i, case in enumerate(cases):
        text = "\n".join([*case["context"], case["question"]])
        there = {_same_fact(fact) for fact in case["facts"]}
        others = cases[(i + STRANGER) % len(cases)]["facts"]
        strangers = [fact for fact in others if _same_fact(fact) not in there]
        shared.update(_fact_kind(fact) for fact in others if _same_fact(fact) in there)
        turned = {fact: flip for fact in case["facts"] if (flip := flip_fact(fact))}
        own.update(zip(map(_fact_kind, case["facts"]), finding_coverage(text, case["facts"]), strict=True))
        foreign.update(zip(map(_fact_kind, strangers), finding_coverage(text, strangers), strict=True))
        flips = finding_coverage(text, list(turned.values()))
        flipped.update(zip(map(_fact_kind, turned), flips, strict=True))
    rows = []
    for negatives, name in ((foreign, "facts of another case"), (flipped, "flipped polarity")):
        for kind in ("positive finding", "negative finding", "with a number", "all"):
            counts = Counter()
            for truth, table in ((True, own), (False, negatives)):
                for (fact_kind, said), count in table.items():
                    counts[truth, said] += count if kind in (fact_kind, "all") else 0
            left_out = sum(shared.values()) if kind == "all" else shared[kind]
            note = f" ({left_out} true here left out)" if negatives is foreign else ""
            rows.append(_quality_row("finding coverage", data, f"{kind} / {name}{note}", counts))
    return rows


def clinic_quality(settings) -> list[dict]:
    """Mentions and rejections on the run's clinic completions, where the truth is exact.

    A rejection is true when the completion claims that a finding argues against the option; `valid rejection` also asks
    that the claim be true (the paper's DRC), which no probe of words can know.
    """
    probe, data = "option rejection", "clinic completions"
    seed = settings.seeds[0] if settings else 0
    paths = [settings.completions_path("clinic", method, seed) for method in METHODS] if settings else []
    paths = [path for path in paths if path.is_file()]
    if not paths:
        return [_absent(probe, data, "the run holds no clinic completions")]
    questions = {q.id: q for q in read_questions(settings.questions_path("clinic", "test"))}
    mentions, rejections, valid = Counter(), Counter(), Counter()
    for row in (row for path in paths for row in read_answers(settings, path)):
        question = questions[row["id"]]
        case = Case.from_json(question.meta["case"])
        chosen = parse_completion(row["text"], row["style"], question.options).letter
        said = option_mentions(row["text"], question.options)
        rejected = rejected_options(row["text"], question.options, chosen)
        claims = [claim for claim in read_claims(row["text"]) if claim.direction == AGAINST]
        against = {claim.condition for claim in claims}
        sound = {claim.condition for claim in claims if verdict(claim, case) == "true"} - {case.gold}
        for letter, name in question.options.items():
            mentions[name in row["text"], letter in said] += 1
            rejections[name in against and letter != chosen, letter in rejected] += 1
            valid[name in sound and letter != chosen, letter in rejected] += 1
    rows = [_quality_row("option mention", data, "any mention", mentions)]
    rows.append(_quality_row(probe, data, "any rejection", rejections))
    rows.append(_quality_row(probe, data, "valid rejection (DRC)", valid))
    return rows


def chain_coverage_quality(source) -> list[dict]:
    """Finding coverage on the wording of real chains: facts of the vignette that a chain states in its own words, or does not.

    98 facts of 22 chains drawn at random (stems and chains under 900 characters), as places in MedQA's stems, labelled by one
    reader, not a clinician, before the probe was run on them. true: the chain states the whole fact, perhaps in other words.
    No rule was tuned on them. The facts of a chain are not independent, so the intervals are somewhat narrow.
    """
    probe, data = "finding coverage", "MIRAGE chains, MedQA test"
    folder = Path(source or ".") / "real_completions"
    labels = read_jsonl(str(resources.files("clinical_r1").joinpath("data/coverage_labels.jsonl")))
    missing = [name for name in dict.fromkeys(row["file"] for row in labels) if not (folder / name).is_file()]
    if not source or missing:
        reason = f"no real_completions/{missing[0]} in the folder" if source else "CLINICAL_R1_DATA is unset"
        return [_absent(probe, data, reason)]
    stems = {chain_name(q): q.stem for q in load_benchmark("medqa-4", SPLITS["medqa-4"], source=source)}
    raw = {
        (name, row["id"]): row["raw"]
        for name in {row["file"] for row in labels}
        for row in read_jsonl(folder / name)
    }
    counts = Counter()
    for row in labels:
        said = parse_mirage(raw[row["file"], row["id"]], {}).analytical
        fact = stems[row["id"]][row["start"] : row["end"]]
        counts[row["stated"], finding_coverage(said, [fact])[0]] += 1
    return [_quality_row(probe, data, "all / facts of the same case that the chain leaves out", counts)]


def read_labels() -> list[dict]:
    """320 options less two of 80 real chains: file, id, letter, mentioned, rejected, split ("tuning" or "held_out").

    Labelled by one reader, not a clinician, who read both halves before writing the rules; only "tuning" was looked at
    after that. mentioned: a reader recognises the option, by name,
    letter or unmistakable paraphrase. rejected: the chain says in words of negation, exclusion, comparison or contradiction
    that the option is not the answer (in a question for the exception: that it holds); the option it concludes with
    never is; describing what else an option is for is no rejection. Options that point to others have no label.
    """
    path = resources.files("clinical_r1").joinpath("data/probe_labels.jsonl")
    return read_jsonl(str(path))


# file of real chains -> its benchmark
_CHAINS = {chain_file(benchmark, model): benchmark for benchmark in SPLITS for model in CHAIN_MODELS}
_EXCEPTION = re.compile(r"\b(?:except|not|false|incorrect|untrue|least)\b")


def chain_quality(source, split: str = "held_out") -> list[dict]:
    """Mentions and rejections on real chains of GPT-3.5 and GPT-4 (MIRAGE), against the labels of one split.

    The options of a chain are not independent, so the intervals are somewhat narrow.
    """
    probe, data = "option rejection", f"MIRAGE chains, {split.replace('_', ' ')}"
    if not source:
        return [
            _absent(probe, data, "CLINICAL_R1_DATA is unset: the texts are not shipped, only their labels")
        ]
    labels = [row for row in read_labels() if row["split"] == split]
    missing = [name for name in _CHAINS if not (Path(source) / "real_completions" / name).is_file()]
    if missing:
        return [_absent(probe, data, f"no real_completions/{missing[0]} in the folder")]
    mentions, rejections, plain = Counter(), Counter(), Counter()
    for name, benchmark in _CHAINS.items():
        asked = load_benchmark(benchmark, SPLITS[benchmark], source=source)
        questions = {chain_name(question): question for question in asked}
        raw = {row["id"]: row["raw"] for row in read_jsonl(Path(source) / "real_completions" / name)}
        for key in dict.fromkeys(row["id"] for row in labels if row["file"] == name):
            question, parsed = questions[key], parse_mirage(raw[key], questions[key].options)
            said = option_mentions(parsed.analytical, question.options)
            rejected = rejected_options(parsed.analytical, question.options, parsed.letter)
            asks_exception = _EXCEPTION.search(fold(question.stem)[-ASKED:])
            for row in labels:
                if (row["file"], row["id"]) == (name, key):
                    mentions[row["mentioned"], row["letter"] in said] += 1
                    rejections[row["rejected"], row["letter"] in rejected] += 1
                    if not asks_exception:
                        plain[row["rejected"], row["letter"] in rejected] += 1
    rows = [_quality_row("option mention", data, "any mention", mentions)]
    rows.append(_quality_row(probe, data, "any rejection", rejections))
    return [*rows, _quality_row(probe, data, "any rejection, questions for an exception left out", plain)]
