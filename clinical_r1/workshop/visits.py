"""Exercise 8's material: three consultations of one patient, and what GRPO and GiGPO pay each turn of them.

They are played under the rules of `agent.consultation`, and their credit is `agent.credit`'s: no state and no advantage is
written down here. A turn is named by its consultation and its number: B3 is the third turn of B. Invented teaching material, not
medical advice.
"""

from dataclasses import dataclass
from functools import lru_cache

from clinical_r1.agent import credit
from clinical_r1.agent.consultation import DIAGNOSE, SUSPECT, Consultation, Patient, Rules, phrase, verb_of

GAMMA = 0.5  # GiGPO's scripts have .95; halves are worked out by head
POINTS = 16  # for a right diagnosis, which pays 1 in the clinic: halved four times, it is still whole
RULES = Rules(horizon=4, menu=None, earliest=3, costs={"test": 0.25, "invalid": 0.25})
EMBOLISM, PERICARDITIS = "Pulmonary embolism", "Acute pericarditis"
BLOOD, OXYGEN, DIMER = "hemoptysis", "hypoxemia", "d_dimer_high"
PATIENT = Patient(
    id="exercise 8",
    gold=EMBOLISM,
    options=(EMBOLISM, PERICARDITIS, "Acute myocardial infarction", "Aortic dissection"),
    complaint=("pleuritic_chest_pain", "prolonged_chest_pain"),
    findings={BLOOD: True, OXYGEN: True, DIMER: True},
)
ACTIONS = {  # consultation -> (hypothesis, finding that is inquired after; None: diagnose the hypothesis) of each turn
    "A": ((EMBOLISM, BLOOD), (EMBOLISM, OXYGEN), (EMBOLISM, None)),
    "B": ((PERICARDITIS, OXYGEN), (EMBOLISM, BLOOD), (EMBOLISM, DIMER), (EMBOLISM, None)),
    "C": ((PERICARDITIS, BLOOD), (PERICARDITIS, BLOOD), (PERICARDITIS, OXYGEN), (PERICARDITIS, None)),
}
ROW = "B"  # the consultation whose tokens are asked for
# ------------------------------------------------------------------------------------------------------------ material


@dataclass(frozen=True)
class Turn:
    """A turn and the state before it.

    known: (finding, present), in the order in which they were learned. left: turns, this one included. state: the clinic's key.
    heard: the clinic's last words, without the turns left. answer: what the clinic says to the turn.
    """

    name: str
    known: tuple[tuple[str, bool], ...]
    left: int
    state: tuple
    heard: str
    writes: str
    answer: str
    points: int

    @property
    def consultation(self) -> str:
        return self.name[0]

    @property
    def number(self) -> int:
        return int(self.name[1:])


@lru_cache(maxsize=1)
def played() -> dict[str, list[Turn]]:
    """Consultation -> its turns, played in the clinic. Points are POINTS times the clinic's reward."""
    return {name: _played(name, actions) for name, actions in ACTIONS.items()}


def _played(name, actions) -> list[Turn]:
    world, turns, heard = Consultation(PATIENT, RULES), [], ""
    for number, (hypothesis, finding) in enumerate(actions, start=1):
        known, left, state = world.snapshot().known, world.turns_left, world.state_key()
        does = (DIAGNOSE, hypothesis) if finding is None else (verb_of(finding), phrase(finding, True))
        writes = " ".join((SUSPECT, hypothesis, *does))
        seen = world.step(writes)
        points = round(POINTS * seen.reward)
        turns.append(Turn(f"{name}{number}", known, left, state, heard, writes, seen.text, points))
        heard = seen.text.split(".")[0]
    return turns


def consultations():
    """The three consultations, one row a turn: known before it (as learned), turns left, what the agent writes, points."""
    import pandas as pd

    rows = [
        {
            "turn": turn.name,
            "known before": "; ".join(
                ["the complaint", *(phrase(*each) for each in turn.known[len(PATIENT.complaint) :])]
            ),
            "turns left": turn.left,
            "the agent writes": turn.writes,
            "points": turn.points,
        }
        for turns in played().values()
        for turn in turns
    ]
    return pd.DataFrame(rows).set_index("turn")


def row_pieces(name: str = ROW):
    """One consultation as training sees it: a table of who wrote which piece, in order, from the first turn on."""
    import pandas as pd

    pieces = []
    for turn in played()[name]:
        pieces += [("agent", turn.writes), ("clinic", turn.answer)]
    return pd.DataFrame(pieces[:-1], columns=["who", "writes"])  # nothing is said after the diagnosis


# ---------------------------------------------------------------------------------------------------------- answer key


def all_turns() -> list[Turn]:
    """The eleven turns, in the order of the table."""
    return [turn for turns in played().values() for turn in turns]


def by_name(ragged) -> dict[str, float]:
    """Ragged values in the shape of the consultations -> turn's name -> value."""
    return dict(zip([turn.name for turn in all_turns()], [v for row in ragged for v in row], strict=True))


def points_paid() -> list[list[int]]:
    """One list a consultation, one number a turn."""
    return [[turn.points for turn in turns] for turns in played().values()]


def anchor_terms(state=lambda turn: turn.state, values=None, std=False) -> dict[str, float]:
    """Anchor advantages of the returns, or of other values a turn; `state` names the state of a turn."""
    states = [[state(turn) for turn in turns] for turns in played().values()]
    values = values or credit.returns_to_go(points_paid(), GAMMA)
    return by_name(credit.anchor_advantages(values, states, ["patient"] * len(states), std=std))


def episode_terms(values, std=False) -> dict[str, float]:
    """Consultation -> its value less the mean of the three."""
    return dict(zip(played(), credit.group_relative(values, ["patient"] * 3, std=std).tolist(), strict=True))


@lru_cache(maxsize=1)
def shared_states() -> list[set[str]]:
    """Names of the turns taken in each state that was met more than once."""
    found: dict = {}
    for turn in all_turns():
        found.setdefault(turn.state, set()).add(turn.name)
    return [names for names in found.values() if len(names) > 1]


def own_pieces() -> list[bool]:
    """Of each piece of the row, whether the agent wrote it."""
    return (row_pieces()["who"] == "agent").tolist()


def turns_alone() -> set[str]:
    """Names of the turns whose state was met once."""
    return {turn.name for turn in all_turns()} - set().union(*shared_states())


@lru_cache(maxsize=1)
def answer_key() -> dict[str, dict]:
    """What `agent.credit` says, without deviations, omega 1: "returns", "anchor", "total" (by turn), "episode", "row B"."""
    keys = [[turn.state for turn in turns] for turns in played().values()]
    totals = credit.credit("anchor", points_paid(), ["patient"] * 3, keys, std=False, gamma=GAMMA)
    own = own_pieces()
    spans = credit.turn_spans([[int(by_agent) for by_agent in own]])
    row = credit.spread([totals[list(played()).index(ROW)]], spans, len(own))[0].tolist()
    return {
        "returns": by_name(credit.returns_to_go(points_paid(), GAMMA)),
        "anchor": anchor_terms(),
        "episode": episode_terms(credit.episode_returns(points_paid())),
        "total": by_name(totals),
        f"row {ROW}": {f"piece {number}": value for number, value in enumerate(row, start=1)},
    }


def opposite() -> set[str]:
    """The turns that GRPO and GiGPO credit with opposite signs."""
    truth = answer_key()
    return {name for name, value in truth["total"].items() if value * truth["episode"][name[0]] < 0}
