"""Beyond the clinic: consultations with patients of AgentClinic and mediQ, who answer from their own facts, and who gets how far.

No world model stands behind these patients: a request is matched with the facts by their words (`outside_patients`), and what no
fact holds is "no record of that". So these tables say how much a questioner can find out here, and how well the matcher answers,
before any model is judged on them. Teaching material, not medical advice.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

import numpy as np

from clinical_r1.agent.checks import is_number, is_whole
from clinical_r1.agent.consultation import Observation, left
from clinical_r1.agent.outside_patients import (
    KINDS,
    FactPatient,
    Reading,
    content_words,
    matching_facts,
    read_agentclinic,
    read_answer,
    read_mediq,
)
from clinical_r1.intervals import estimate, interval_of, mean_interval, share_interval

NO_RECORD = "No record of that."
DIAGNOSE = "diagnose"
# Why a turn was invalid
NOT_AN_ACTION, SAYS_NOTHING, ASKED_BEFORE = "not an action", "says nothing", "asked before"
ANOTHER_WAY, NOT_AN_OPTION, OUT_OF_TURNS = "found in another way", "not an option", "no diagnosis in time"


@dataclass(frozen=True)
class FactRules:
    """horizon: turns, the diagnosis included. costs: reward taken by a request of each kind and by an "invalid" turn, >= 0; a
    right diagnosis pays 1."""

    horizon: int = 20
    costs: Mapping[str, float] = field(default_factory=lambda: MappingProxyType({}))

    def __post_init__(self):
        if not is_whole(self.horizon, 1):
            raise ValueError(f"got a horizon of {self.horizon!r}; expected at least one turn.")
        for name, cost in self.costs.items():
            if name not in (*KINDS, "invalid") or not is_number(cost) or cost < 0:
                raise ValueError(
                    f"got a cost of {cost!r} for {name!r}; expected a finite number >= 0 for one of "
                    f"{', '.join((*KINDS, 'invalid'))}."
                )


class FactConsultation:
    """One patient and one questioner. `step` until `done`; `turns` is the transcript, `told` the places of facts uncovered."""

    def __init__(self, patient: FactPatient, rules: FactRules | None = None):
        self.patient, self.rules = patient, rules or FactRules()
        self.turns: list[dict] = []
        self.told: set[int] = set()
        self.problems: Counter = Counter()
        self.answer: str | None = None
        self.done = False
        self._requests: set[tuple] = set()

    @property
    def turns_left(self) -> int:
        return self.rules.horizon - len(self.turns)

    @property
    def correct(self) -> bool:
        """Whether the answer is the gold one. No answer, and one that could not be read, are wrong."""
        return self.answer is not None and self.answer == self.patient.gold

    def opening(self) -> str:
        """What is said before the first turn: complaint, question, and the options where there are any."""
        options = self.patient.options
        offered = f" Options: {'; '.join(options)}." if options else ""
        return f"{self.patient.complaint} {self.patient.question}{offered} {left(self.turns_left)}"

    def step(self, kind: str, request: str) -> Observation:
        """One turn: kind "ask", "examine" or "test" with what is wanted, or "diagnose" with an answer.

        Every matching fact is told. An invalid turn is counted in `problems`, costs its turn and `rules.costs["invalid"]`.
        ValueError once the consultation is over.
        """
        if self.done:
            raise ValueError(f"the consultation of {self.patient.id} is over; expected no further turn.")
        if kind == DIAGNOSE:
            return self._diagnosed(request)
        places, problem = self._found(kind, request)
        self.told.update(places)
        said = " ".join(self.patient.facts[place]["text"] for place in places)
        if problem not in (None, ANOTHER_WAY):
            said = f"{problem.capitalize()}."
        reward = -float(self.rules.costs.get("invalid" if problem else kind, 0.0))
        self._note(kind, request, places, said or NO_RECORD, reward, problem)
        if self.turns_left:
            return Observation(f"{said or NO_RECORD} {left(self.turns_left)}", reward, False, problem)
        self.done = True
        self.problems[OUT_OF_TURNS] += 1
        return Observation(said or NO_RECORD, reward, True, problem or OUT_OF_TURNS)

    def _found(self, kind: str, request: str) -> tuple[list[int], str | None]:
        if kind not in KINDS:
            return [], NOT_AN_ACTION
        words = content_words(request)
        if not words:
            return [], SAYS_NOTHING
        key = (kind, frozenset(words))
        if key in self._requests:
            return [], ASKED_BEFORE
        self._requests.add(key)
        places = matching_facts(self.patient.facts, request, kind if self.patient.kinds_known else None)
        if places or not self.patient.kinds_known:
            return places, None
        return [], ANOTHER_WAY if matching_facts(self.patient.facts, request) else None

    def _diagnosed(self, request: str) -> Observation:
        self.answer, self.done = read_answer(self.patient, request), True
        problem = NOT_AN_OPTION if self.answer is None else None
        self._note(DIAGNOSE, request, [], "", float(self.correct), problem)
        return Observation("", float(self.correct), True, problem)

    def _note(self, kind, request, places, text, reward, problem):
        if problem is not None:
            self.problems[problem] += 1
        turn = {"kind": kind, "request": request, "facts": places, "text": text}
        self.turns.append(turn | {"reward": reward, "problem": problem})


# ---------------------------------------------------------------- players


class Request(NamedTuple):
    """One turn of a player. aim: place of the fact that it asks for, where the player knows."""

    kind: str
    text: str
    aim: int | None = None


# Makes the turns of one consultation, which it may read as it goes; ends where it has no more to ask.
Player = Callable[[FactConsultation, np.random.Generator], Iterator[Request]]


def scripted(consultation: FactConsultation, rng) -> Iterator[Request]:
    """Asks for the topic of each fact in order: what can be uncovered at most, one request a fact."""
    for place, fact in enumerate(consultation.patient.facts):
        yield Request(fact["kind"], fact["topic"], place)


def one_word_off(patients: Sequence[FactPatient]) -> Player:
    """As `scripted`, one word of each topic replaced by one from the topics of these patients, or one added where it has one word
    only: who asks for the right thing in partly other words. `scripted` cannot miss, this player can."""
    others = sorted({word for p in patients for fact in p.facts for word in content_words(fact["topic"])})

    def play_them(consultation, rng):
        for place, fact in enumerate(consultation.patient.facts):
            words = list(content_words(fact["topic"]))
            other = others[int(rng.integers(len(others)))]
            if len(words) > 1:
                words[int(rng.integers(len(words)))] = other
            else:
                words.append(other)
            yield Request(fact["kind"], " ".join(words), place)

    return play_them


def random_requests(patients: Sequence[FactPatient]) -> Player:
    """Asks for topics of facts of the other patients, drawn at random, none twice: who does not listen.

    A topic that many patients have is drawn sooner.
    """
    pool = [(patient.id, fact["kind"], fact["topic"]) for patient in patients for fact in patient.facts]

    def play_them(consultation, rng):
        asked = set()
        for place in rng.permutation(len(pool)):
            owner, kind, topic = pool[place]
            key = kind, frozenset(content_words(topic))
            if owner != consultation.patient.id and key not in asked:
                asked.add(key)
                yield Request(kind, topic)

    return play_them


# What a student asks everybody (ours), in this order
CHECKLIST = (
    ("ask", "history of present illness"),
    ("ask", "other symptoms"),
    ("ask", "past medical history, surgeries"),
    ("examine", "vital signs: temperature, blood pressure, heart rate, respiratory rate"),
    ("ask", "medications"),
    ("ask", "social history: smoking, alcohol"),
    ("ask", "family history"),
    ("ask", "review of systems"),
    ("examine", "general appearance"),
    ("test", "complete blood count: hemoglobin, leukocytes, platelets"),
    ("examine", "abdomen, abdominal palpation, inspection, auscultation"),
    ("examine", "heart and lungs, breath sounds, murmur"),
    ("examine", "neurological: reflexes, motor strength, sensation, cranial nerves"),
    ("test", "chest x-ray"),
    ("test", "urinalysis"),
    ("test", "electrolytes: sodium, potassium, creatinine, glucose"),
    ("ask", "fever, chills, night sweats or weight loss"),
    ("ask", "pain"),
    ("ask", "allergies, travel, sexual activity"),
    ("examine", "skin"),
    ("test", "imaging: ct, mri, ultrasound"),
    ("test", "ecg"),
    ("test", "biopsy, culture"),
    ("ask", "nausea, vomiting or diarrhea"),
)


def checklist(consultation: FactConsultation, rng) -> Iterator[Request]:
    """CHECKLIST, the same for everybody."""
    yield from (Request(kind, text) for kind, text in CHECKLIST)


_WRITTEN = re.compile(
    rf"^\W*({'|'.join((*KINDS, DIAGNOSE))})\b[\s:*]*(.+?)\s*$", re.IGNORECASE | re.MULTILINE
)
HOW_TO = (
    "You are a doctor in training. Write one line a turn: 'ask: …', 'examine: …' or 'test: …' with what you want to know, "
    "or 'diagnose: …' with your answer."
)


def written(complete: Callable[[str], str]) -> Player:
    """A model as a player. complete: the talk so far -> its next turn, of which the last line that is an action counts."""

    def play_it(consultation, rng):
        while not consultation.done:
            lines = [HOW_TO, consultation.opening()]
            for turn in consultation.turns:
                lines += [f"{turn['kind']}: {turn['request']}", turn["text"]]
            reply = complete("\n".join(lines) + "\n")
            found = _WRITTEN.findall(reply)
            yield Request(found[-1][0].lower(), found[-1][1]) if found else Request("", reply)

    return play_it


def play(patient: FactPatient, player: Player, rules: FactRules | None = None, seed: int = 0) -> dict:
    """The transcript of one consultation: {"id", "source", "turns", "told", "facts", "answer", "correct", "problems"}.

    Each turn is {"kind", "request", "aim", "facts" told (places), "text", "reward", "problem"}. It ends when the player stops, or
    after `rules.horizon` turns. The generator depends on the seed and the patient's id, not on who was played before.
    """
    consultation = FactConsultation(patient, rules)
    rng = np.random.default_rng([seed, *patient.id.encode()])
    aims = []
    for request in player(consultation, rng):
        consultation.step(request.kind, request.text)
        aims.append(request.aim)
        if consultation.done:
            break
    turns = [turn | {"aim": aim} for turn, aim in zip(consultation.turns, aims, strict=True)]
    return {
        "id": patient.id,
        "source": patient.source,
        "turns": turns,
        "told": sorted(consultation.told),
        "facts": len(patient.facts),
        "answer": consultation.answer,
        "correct": consultation.correct,
        "problems": dict(consultation.problems),
    }


# ---------------------------------------------------------------- who gets how far

# Measure -> what it is a share or a mean of
MEASURES = {
    "covered": "facts of a patient told within the horizon, of all: mean over patients",
    "answered": "requests that a fact answered, of all requests",
    "facts an answer": "facts told in an answer",
    "asked-for": "answers that hold the fact asked for, of answers to a request with an aim",
    "asked-for alone": "answers that are the fact asked for and nothing else, of answers to a request with an aim",
    "same topic": "answers that hold a fact with the topic's own words, of answers",
    "invalid": "invalid turns, of all turns",
}


def _counts(transcript: dict, patient: FactPatient) -> dict[str, tuple[int, int]]:
    """Measure -> (numerator, denominator) of one transcript."""
    asked = [turn for turn in transcript["turns"] if turn["kind"] != DIAGNOSE]
    answers = [turn for turn in asked if turn["facts"]]
    aimed = [turn for turn in answers if turn["aim"] is not None]
    same = [
        any(
            set(content_words(patient.facts[place]["topic"])) == set(content_words(turn["request"]))
            for place in turn["facts"]
        )
        for turn in answers
    ]
    return {
        "answered": (len(answers), len(asked)),
        "facts an answer": (sum(len(turn["facts"]) for turn in answers), len(answers)),
        "asked-for": (sum(turn["aim"] in turn["facts"] for turn in aimed), len(aimed)),
        "asked-for alone": (sum(turn["facts"] == [turn["aim"]] for turn in aimed), len(aimed)),
        "same topic": (sum(same), len(same)),
        "invalid": (
            sum(turn["problem"] is not None for turn in transcript["turns"]),
            len(transcript["turns"]),
        ),
    }


def coverage_rows(patients: Sequence[FactPatient], player: Player, horizon: int, seed: int) -> list[dict]:
    """{"measure", "value", "low", "high", "n", "unit"} of one player on these patients; 95 % intervals over patients.

    "covered" is the mean over patients of the share of their facts that were told within the horizon (n: patients, Student's t);
    the others are ratios of sums, with patients drawn as a whole (n: their denominators). None where nothing could be counted.
    """
    rules = FactRules(horizon)
    transcripts = [play(patient, player, rules, seed) for patient in patients]
    shares = [len(t["told"]) / t["facts"] for t in transcripts]
    low, high = mean_interval(shares)
    rows = [_row("covered", np.mean(shares), (max(low, 0.0), min(high, 1.0)), len(shares), "patients")]
    counts = [_counts(t, patient) for t, patient in zip(transcripts, patients, strict=True)]
    for measure in list(MEASURES)[1:]:
        pairs = np.array([count[measure] for count in counts], dtype=float)
        pairs = pairs[pairs[:, 1] > 0]
        unit = "turns" if measure in ("answered", "invalid") else "answers"
        if not len(pairs):
            rows.append(_row(measure, None, (None, None), 0, unit))
            continue
        found = estimate(pairs[:, 0], pairs[:, 1], clusters=np.arange(len(pairs)))
        total = int(pairs[:, 1].sum())
        share = measure != "facts an answer"
        interval = share_interval(found, total) if share else interval_of(found, bounds=(1.0, np.inf))
        rows.append(_row(measure, found.value, interval, total, unit))
    return rows


def _row(measure, value, interval, n, unit) -> dict:
    low, high = (None if bound is None else float(bound) for bound in interval)
    value = None if value is None else float(value)
    return {"measure": measure, "value": value, "low": low, "high": high, "n": n, "unit": unit}


def coverage_table(patients: Mapping[str, Sequence[FactPatient]], horizon: int = 20, seed: int = 0):
    """`coverage_rows` of every set (name -> patients) and player, as a frame with the columns "set" and "player" before them."""
    import pandas as pd

    rows = []
    for name, those in patients.items():
        players = {
            "scripted": scripted,
            "scripted, one word off": one_word_off(those),
            "checklist": checklist,
            "random": random_requests(those),
        }
        for label, player in players.items():
            rows += [
                {"set": name, "player": label} | row for row in coverage_rows(those, player, horizon, seed)
            ]
    return pd.DataFrame(rows)


FILES = {
    "agentclinic": ("agentclinic/agentclinic_medqa.jsonl", read_agentclinic),
    "mediq": ("mediq/all_dev_good.jsonl", read_mediq),
    "mediq-craft": ("mediq/all_craft_md.jsonl", read_mediq),
}


def read_outside(folder) -> dict[str, Reading]:
    """Name -> Reading of each of FILES that lies in the folder (CLINICAL_R1_DATA). FileNotFoundError where none does."""
    found = {name: (Path(folder) / file, read) for name, (file, read) in FILES.items()}
    readings = {name: read(path) for name, (path, read) in found.items() if path.is_file()}
    if not readings:
        listed = ", ".join(file for file, _ in FILES.values())
        raise FileNotFoundError(f"{folder} holds none of {listed}; give the folder of benchmark files.")
    return readings


def outside_table(folder, horizon: int = 20, seed: int = 0):
    """`coverage_table` of the files in a folder. Errors as `read_outside`."""
    readings = read_outside(folder)
    return coverage_table({name: reading.patients for name, reading in readings.items()}, horizon, seed)


def reading_table(folder):
    """Frame (set, what, reason, count): patients, refused cases and pieces left out by reason, facts by kind, and how many
    patients have a fact that names the answer. Errors as `read_outside`."""
    import pandas as pd

    rows = []
    for name, reading in read_outside(folder).items():
        patients = reading.patients
        kinds = Counter(fact["kind"] for patient in patients for fact in patient.facts)
        counts = [("patients", "", len(patients))]
        counts += [("refused", reason, count) for reason, count in sorted(reading.reasons().items())]
        counts += [("left out", reason, count) for reason, count in sorted(reading.left_out.items())]
        counts += [("facts", kind, kinds[kind]) for kind in KINDS]
        counts.append(("answer named", "by a fact", sum(bool(p.naming_gold()) for p in patients)))
        rows += [{"set": name, "what": what, "reason": reason, "count": n} for what, reason, n in counts]
    return pd.DataFrame(rows)
