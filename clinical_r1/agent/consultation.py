"""A consultation of several turns: the patient complains, the agent asks, examines, tests, and diagnoses (ours).

Each turn the agent states a hypothesis and does one thing::

    suspect Pulmonary embolism ask coughing up blood
    suspect Pulmonary embolism diagnose Acute pericarditis

All findings of a patient are drawn once, so an action has one outcome, a consultation can be continued from any of its states,
and what is known has an exact posterior over the options. Given the diagnosis, findings are independent: two that imply or
exclude each other are never on one patient's list. The probabilities behind them (PRESENT) follow the signs and strengths of the
knowledge base and are ours. Teaching material, not medical advice.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property, lru_cache
from itertools import combinations

import numpy as np

from clinical_r1.agent.rules import VERBS, Rules, whole
from clinical_r1.clinic.cases import phrase
from clinical_r1.clinic.drawing import SPLIT_SHARES
from clinical_r1.clinic.knowledge import PRESENTING, knowledge_base
from clinical_r1.questions import LETTERS

VERB_OF = {"symptom": "ask", "risk": "ask", "sign": "examine", "vital": "examine", "test": "test"}
DIAGNOSE, SUSPECT = "diagnose", "suspect"

# (weight when present, weight when absent) of a finding for a condition -> probability that its patient has it
PRESENT = {(2, -2): 0.95, (1, -2): 0.9, (2, 0): 0.6, (1, 0): 0.6, (0, 0): 0.12, (-1, 0): 0.08, (-2, 0): 0.03}
AMBIGUOUS = (0.3, 0.55)  # posterior of the likeliest option after the complaint
OPTIONS, COMPLAINTS = 4, 2
SEPARATORS = 2  # findings of a menu that are there to tell two options apart; the others are drawn
TRIES = 20_000  # draws in a row without a patient, after which a split is called empty


@dataclass(frozen=True)
class Patient:
    """Who comes: options, what is complained of (present), and the truth about every finding that can be inquired after.

    options: condition names, option A first. findings: finding -> present, in the order of the menu.
    """

    id: str
    gold: str
    options: tuple[str, ...]
    complaint: tuple[str, ...]
    findings: Mapping[str, bool]

    @property
    def letter(self) -> str:
        return LETTERS[self.options.index(self.gold)]

    @cached_property
    def menu(self) -> dict[str, tuple[str, str]]:
        """Phrase of a finding -> (finding, verb), in the order of the menu."""
        return {phrase(f, True): (f, verb_of(f)) for f in self.findings}

    def likelihoods(self, finding: str) -> np.ndarray:
        """(options,) probability that a finding is present under each option, in (0, 1)."""
        return _likelihoods(knowledge_base(), finding, self.options)

    def to_json(self) -> dict:
        value = {name: getattr(self, name) for name in ("id", "gold", "options", "complaint")}
        return value | {"findings": dict(self.findings)}

    @classmethod
    def from_json(cls, value: dict) -> "Patient":
        findings = {name: bool(present) for name, present in value["findings"].items()}
        return cls(value["id"], value["gold"], tuple(value["options"]), tuple(value["complaint"]), findings)


def verb_of(finding: str) -> str:
    """Whether a finding is asked for, examined or tested."""
    return VERB_OF[knowledge_base().findings[finding]["kind"]]


def probability(finding: str, condition: str, options: Sequence[str]) -> float:
    """Probability that a patient with a condition has a finding, these options being on offer (PRESENT; ours)."""
    kb = knowledge_base()
    return PRESENT[tuple(kb.weight(finding, present, condition, options) for present in (True, False))]


@lru_cache(maxsize=100_000)
def _likelihoods(kb, finding: str, options: tuple[str, ...]) -> np.ndarray:
    found = np.array([probability(finding, option, options) for option in options])
    found.setflags(write=False)  # every patient with these options reads this one
    return found


# ------------------------------------------------------------------------------------------------------- the course of one


@dataclass(frozen=True)
class Observation:
    """What a turn brought. text: said to the agent; problem: why the turn was invalid, or None."""

    text: str
    reward: float
    done: bool
    problem: str | None = None


@dataclass(frozen=True)
class Snapshot:
    """A state of a consultation: enough to continue it elsewhere. known: in the order in which it was learned."""

    patient: str
    known: tuple[tuple[str, bool], ...]
    turn: int
    diagnosis: str | None
    done: bool


@dataclass(frozen=True)
class Action:
    """A turn that was read: hypothesis, verb, and the phrase of a finding or the name of an option."""

    hypothesis: str
    verb: str
    object: str

    @property
    def text(self) -> str:
        return f"{SUSPECT} {self.hypothesis} {self.verb} {self.object}"


def read_action(text: str) -> Action | None:
    """The action of a turn on one line, or None for whatever is not exactly one. Time grows with the length of the text alone."""
    words = text.split()
    if len(text.strip().splitlines()) != 1 or words.count(SUSPECT) != 1 or words[0] != SUSPECT:
        return None
    verb = next((i for i, word in enumerate(words) if i > 1 and word in (*VERBS, DIAGNOSE)), len(words))
    if verb + 1 >= len(words):
        return None
    return Action(" ".join(words[1:verb]), words[verb], " ".join(words[verb + 1 :]))


class Consultation:
    """One patient and one agent. `step` until it is done; `snapshot` and `restore` to go on from a state more than once."""

    def __init__(self, patient: Patient, rules: Rules):
        if rules.menu not in (None, len(patient.findings)):
            raise ValueError(
                f"got a menu of {rules.menu} for {patient.id}, drawn with {len(patient.findings)}; expected the same number."
            )
        self.patient, self.rules = patient, rules
        self._known: dict[str, bool] = {finding: True for finding in patient.complaint}
        self._turn, self._diagnosis, self._done = 0, None, False

    # --- what can be seen of it

    @property
    def known(self) -> dict[str, bool]:
        """Finding -> present, of all that has been said so far, the complaint included."""
        return dict(self._known)

    @property
    def turns_left(self) -> int:
        return self.rules.horizon - self._turn

    @property
    def done(self) -> bool:
        return self._done

    @property
    def diagnosis(self) -> str | None:
        return self._diagnosis

    @property
    def may_diagnose(self) -> bool:
        """Whether a diagnosis would be accepted now."""
        return not self._done and self._turn + 1 >= self.rules.earliest

    def open(self) -> list[str]:
        """Findings that can be inquired after and are not known yet."""
        return [finding for finding in self.patient.findings if finding not in self._known]

    def state_key(self) -> tuple:
        """(patient, what is known with its polarity, turns left): equal keys, equal futures. Nothing is left once it is over."""
        return self.patient.id, frozenset(self._known.items()), 0 if self._done else self.turns_left

    def posterior(self) -> dict[str, float]:
        """Option -> probability given what is known, exact under the world's own probabilities and a uniform prior."""
        return dict(zip(self.patient.options, posterior(self.patient, self._known).tolist(), strict=True))

    # --- acting

    def step(self, text: str) -> Observation:
        """One turn. What is not understood or not allowed costs the turn, and `rules.costs["invalid"]`.

        ValueError once the consultation is over.
        """
        if not isinstance(text, str):
            raise ValueError(f"got a turn of type {type(text).__name__}; expected its text.")
        if self._done:
            raise ValueError(f"the consultation of {self.patient.id} is over; expected no further turn.")
        self._turn += 1
        action = read_action(text)
        problem = self._problem(action)
        if problem is not None:
            return self._ended_turn(f"{problem}.", -self._cost("invalid"), problem)
        if action.verb == DIAGNOSE:
            self._diagnosis, self._done = action.object, True
            return Observation("", float(action.object == self.patient.gold), True)
        finding, verb = self.patient.menu[action.object]
        self._known[finding] = self.patient.findings[finding]
        return self._ended_turn(f"{phrase(finding, self._known[finding])}.", -self._cost(verb), None)

    def _cost(self, name: str) -> float:
        return float(self.rules.costs.get(name, 0.0))

    def _ended_turn(self, said, reward, problem):
        self._done = not self.turns_left
        return Observation(
            "" if self._done else f"{said} {left(self.turns_left)}", reward, self._done, problem
        )

    def _problem(self, action: Action | None) -> str | None:
        if action is None:
            return PROBLEMS[0]
        if action.hypothesis not in self.patient.options:
            return PROBLEMS[1]
        if action.verb == DIAGNOSE:
            if action.object not in self.patient.options:
                return PROBLEMS[1]
            return None if self._turn >= self.rules.earliest else PROBLEMS[2]
        finding, verb = self.patient.menu.get(action.object, (None, None))
        if finding is None or verb != action.verb:
            return PROBLEMS[3]
        return PROBLEMS[4] if finding in self._known else None

    # --- states

    def snapshot(self) -> Snapshot:
        return Snapshot(self.patient.id, tuple(self._known.items()), self._turn, self._diagnosis, self._done)

    def restore(self, state: Snapshot) -> "Consultation":
        """Back (or on) to a state of this patient. ValueError for a state of another, or one that these rules cannot reach."""
        if state.patient != self.patient.id:
            raise ValueError(
                f"got a snapshot of {state.patient} for {self.patient.id}; expected a state of the same patient."
            )
        if not self._reachable(state):
            raise ValueError(
                f"the snapshot of {state.patient} (turn {state.turn}, {len(state.known)} findings) is none of its states under a "
                f"horizon of {self.rules.horizon}; expected one that `snapshot` made under the same rules."
            )
        self._known, self._turn = dict(state.known), state.turn
        self._diagnosis, self._done = state.diagnosis, state.done
        return self

    def _reachable(self, state: Snapshot) -> bool:
        patient, complained = self.patient, len(self.patient.complaint)
        truth = {**patient.findings, **dict.fromkeys(patient.complaint, True)}
        begun = set(patient.complaint) <= {finding for finding, _ in state.known}  # a state has no order
        true = all(truth.get(f) is p for f, p in state.known) and len(dict(state.known)) == len(state.known)
        diagnosed = state.diagnosis is not None
        in_time = 0 <= len(state.known) - complained + diagnosed <= state.turn <= self.rules.horizon
        ended = state.done == (diagnosed or state.turn == self.rules.horizon)
        allowed = not diagnosed or (state.diagnosis in patient.options and state.turn >= self.rules.earliest)
        return begun and true and in_time and ended and allowed


# Why a turn was invalid, as the agent is told
PROBLEMS = ("not understood", "not an option", "too early", "not on offer", "known already")


def left(turns: int) -> str:
    """How the agent is told how many turns remain."""
    return f"{turns} turns left" if turns != 1 else "last turn"


def posterior(patient: Patient, known: Mapping[str, bool]) -> np.ndarray:
    """(options,) P(option | known): product of the findings' likelihoods over a uniform prior, normalised."""
    log = np.zeros(len(patient.options))
    for finding, present in known.items():
        p = patient.likelihoods(finding)
        log += np.log(p if present else 1 - p)
    weights = np.exp(log - log.max())
    return weights / weights.sum()


def information(p: np.ndarray) -> float:
    """Entropy of a distribution in bits."""
    p = p[p > 0]
    return float(-(p * np.log2(p)).sum())


# ----------------------------------------------------------------------------------------------------------- who comes


def draw_patients(split: str, n: int, seed: int, menu: int | None = Rules.menu) -> list[Patient]:
    """n different patients of one split; the first m of n are the m that a smaller call gives.

    A split holds whole beginnings (options and complaint), so no consultation begins alike in two of them. The menu is drawn
    before the diagnosis and does not depend on it: the posterior stays exact. ValueError for an unknown split, and for what is
    no whole number: n >= 1, seed >= 0, menu >= 1.
    """
    if split not in SPLIT_SHARES:
        raise ValueError(f"got split {split!r}; expected one of {', '.join(SPLIT_SHARES)}.")
    for name, value, least in (("n", n, 1), ("seed", seed, 0), ("menu", 1 if menu is None else menu, 1)):
        whole(name, value, least)
    kb = knowledge_base()
    rng = np.random.default_rng([seed, *f"agent/{split}".encode()])
    patients, seen, tries = [], set(), 0
    size = "all" if menu is None else f"menu{menu}"  # other menus are other patients
    while len(patients) < n:
        tries += 1
        drawn = _draw(kb, split, menu, rng)
        key = drawn and (frozenset(drawn[1]), frozenset(drawn[2]), frozenset(drawn[3].items()))
        if drawn is not None and key not in seen:
            seen.add(key)
            patients.append(Patient(f"{split}-{seed}-{size}-{len(patients):05d}", *drawn))
            tries = 0
        elif tries > TRIES:
            raise ValueError(
                f"{split} yields only {len(patients)} different patients with a menu of {size.removeprefix('menu')}, expected "
                f"{n}: ask for fewer, or for a smaller menu."
            )
    return patients


def beginning_split(options: Sequence[str], complaint: Sequence[str]) -> str:
    """The split of a beginning, by hash of its options and complaint in any order; shares as in `drawing.SPLIT_SHARES`."""
    digest = hashlib.sha256("|".join([*sorted(options), *sorted(complaint)]).encode()).digest()
    place = int.from_bytes(digest[:8], "big") % 100
    return next(name for name, (low, high) in SPLIT_SHARES.items() if low <= place < high)


def _draw(kb, split, menu, rng):
    """(gold, options, complaint, findings), or None where this draw does not fit: nothing in it depends on the diagnosis."""
    options = _draw_options(kb, rng)
    presenting = list(dict.fromkeys(f for option in options for f in _supports(kb, option)[1]))
    complaint = tuple(_shuffled(presenting, rng)[:COMPLAINTS])
    if complaint[1] in _bound(kb)[complaint[0]] or beginning_split(options, complaint) != split:
        return None
    weights = np.prod([_likelihoods(kb, f, options) for f in complaint], axis=0)
    weights = weights / weights.sum()
    if not AMBIGUOUS[0] <= weights.max() <= AMBIGUOUS[1]:
        return None
    for_them = list(dict.fromkeys(f for option in options for f in _supports(kb, option)[0]))
    offered = _unbound(kb, complaint, _shuffled(for_them, rng))
    if menu is not None:
        if len(offered) < menu:
            return None
        offered = _draw_menu(kb, options, offered, menu, rng)
    gold = int(rng.choice(len(options), p=weights))
    findings = {f: bool(rng.random() < _likelihoods(kb, f, options)[gold]) for f in offered}
    return options[gold], options, complaint, findings


@cache
def _supports(kb, condition: str) -> tuple[list[str], list[str]]:
    """The findings whose presence supports a condition, and those of them that somebody may come with."""
    found = kb.supports(condition)
    return found, [f for f in found if kb.findings[f]["kind"] in PRESENTING]


def _draw_options(kb, rng) -> tuple[str, ...]:
    """Four conditions of one family, or three and one of the family beside it."""
    names = list(kb.families)
    family = kb.families[names[int(rng.integers(len(names)))]]
    own = _shuffled(family["members"], rng)
    beside = _shuffled(kb.families[family["beside"]]["members"], rng)
    chosen = own[:OPTIONS] if rng.random() < 0.5 else [*own[: OPTIONS - 1], beside[0]]
    return tuple(_shuffled(chosen, rng))


def _shuffled(items, rng) -> list:
    return [items[i] for i in rng.permutation(len(items))]


def _unbound(kb, complaint, findings) -> list[str]:
    """The findings, in order, of which none says or excludes anything about another, or about the complaint."""
    barred, kept = set(complaint), []
    for finding in complaint:
        barred |= _bound(kb)[finding]
    for finding in findings:
        if finding not in barred:
            kept.append(finding)
            barred |= _bound(kb)[finding] | {finding}
    return kept


@cache
def _bound(kb) -> dict[str, frozenset[str]]:
    """Finding -> the others of which a statement about it says something, or beside which it may not stand."""
    found = {}
    for finding in kb.findings:
        said = [kb.clashes[finding, p] | kb.entails[finding, p] for p in (True, False)]
        found[finding] = frozenset(other for other, _ in said[0] | said[1]) - {finding}
    return found


def _draw_menu(kb, options, offered, size, rng) -> list[str]:
    """A menu that can settle the case: the finding that separates each pair of options best, then others at random, shuffled."""
    likelihoods = {f: _likelihoods(kb, f, options) for f in offered}
    chosen: list[str] = []
    for i, j in combinations(range(len(options)), 2):
        if len(chosen) < SEPARATORS:
            best = max(offered, key=lambda f: abs(likelihoods[f][i] - likelihoods[f][j]))
            chosen += [best] if best not in chosen else []
    rest = [f for f in offered if f not in chosen]
    chosen += _shuffled(rest, rng)[: size - len(chosen)]
    return _shuffled(chosen, rng)
