"""The consultation as tools of a chat model: an environment for TRL's `environment_factory` (1.14.2, experimental there).

TRL makes one instance a rollout, calls `reset` with the columns of the row, offers every other public method as a tool, and takes
the reward from `get_reward`. The chat template must render tool calls, which the clinic's own does not: for real chat models.

    trainer = GRPOTrainer(model, train_dataset=Dataset.from_list(tool_rows(patients)),
                          environment_factory=partial(ClinicTools, rules), args=GRPOConfig(max_tool_calling_iterations=...))

A call that is malformed never reaches the environment and costs no turn, so max_tool_calling_iterations must bound the rollout: a
few more than `rules.horizon`. Teaching material, not medical advice.
"""

import json
from collections.abc import Iterable

from clinical_r1.agent.consultation import DIAGNOSE, VERBS, Action, Consultation, Patient, Rules
from clinical_r1.agent.language import opening
from clinical_r1.agent.outside_patients import matching_facts, plain, read_option
from clinical_r1.clinic.cases import phrase

HOW_TO = (
    "You are a doctor in training. Find out what you need with the tools ask, examine and test, one finding a call, then call "
    "diagnose with one of the options. Each call is a turn."
)
OVER = "The consultation is over."


def tool_rows(patients: Iterable[Patient]) -> list[dict]:
    """Rows of a data set for `ClinicTools`: {"prompt": what to do, as chat messages, "patient": JSON text}.

    The patient is text, since a table's column of objects would give every patient the findings of all others, as None. `reset`
    adds the opening to the prompt. TRL repeats a row once a generation, so a group has one patient.
    """
    prompt = [{"role": "user", "content": f"{HOW_TO}\n\n"}]
    return [{"prompt": prompt, "patient": json.dumps(patient.to_json())} for patient in patients]


class ClinicTools:
    """One consultation at a time, behind four tools. consultation: the one that is going on, or None before `reset`.

    problems: why turns were invalid, in order; late: calls after the end, which change nothing. A chat model thinks in its own
    words, so no hypothesis is read from it: the first option stands where the clinic's grammar wants one, which changes nothing
    either.
    """

    def __init__(self, rules: Rules | None = None):
        self.rules = rules or Rules()
        self.consultation: Consultation | None = None
        self.problems: list[str] = []
        self.late, self._return = 0, 0.0

    def reset(self, patient: str | None = None, **columns) -> str:
        """Begin with the patient of a row (`tool_rows`); returns the opening, which TRL adds to the prompt.

        columns: whatever else the row holds, not used. ValueError for a row without a patient.
        """
        if not isinstance(patient, str):
            raise ValueError(
                f"got a row with {', '.join(sorted(columns)) or 'no column'} and patient {patient!r}; expected the patient as "
                "JSON text: make the rows with tool_rows."
            )
        who = Patient.from_json(json.loads(patient))
        self.consultation = Consultation(who, self.rules)
        self.problems, self.late, self._return = [], 0, 0.0
        return opening(who, self.rules)[0]["content"]

    def get_reward(self) -> float:
        """The return of the consultation: 1 for a right diagnosis, less the costs of its turns; no diagnosis pays nothing.

        ValueError before `reset`.
        """
        self._begun()
        return self._return

    def ask(self, finding: str) -> str:
        """Ask the patient whether a symptom or a risk is there.

        Args:
            finding: The symptom or risk, in the words of the list on offer.

        Returns:
            What the patient says, and how many turns are left.
        """
        return self._inquire("ask", finding)

    def examine(self, finding: str) -> str:
        """Examine the patient for a sign or a vital sign.

        Args:
            finding: The sign, in the words of the list on offer.

        Returns:
            What is found, and how many turns are left.
        """
        return self._inquire("examine", finding)

    def test(self, finding: str) -> str:
        """Order a laboratory or imaging test.

        Args:
            finding: The result that is looked for, in the words of the list on offer.

        Returns:
            The result, and how many turns are left.
        """
        return self._inquire("test", finding)

    def diagnose(self, condition: str) -> str:
        """State the diagnosis, which ends the consultation.

        Args:
            condition: One of the options.

        Returns:
            That the consultation is over, or why the diagnosis was not accepted.
        """
        options = self._begun().patient.options
        return self._step(DIAGNOSE, read_option(options, str(condition)) or str(condition))

    # --- TRL takes every public method for a tool, so nothing else here is public

    def _begun(self) -> Consultation:
        if self.consultation is None:
            raise ValueError("no consultation has begun; expected a call of reset with a row of tool_rows.")
        return self.consultation

    def _inquire(self, verb: str, finding) -> str:
        return self._step(verb, menu_phrase(self._begun().patient, verb, str(finding)) or str(finding))

    def _step(self, verb: str, name: str) -> str:
        consultation = self._begun()
        if consultation.done:
            self.late += 1
            return OVER
        seen = consultation.step(Action(consultation.patient.options[0], verb, name).text)
        self._return += seen.reward
        if seen.problem is not None:
            self.problems.append(seen.problem)
        return OVER if seen.done else seen.text


def menu_phrase(patient: Patient, verb: str, said: str) -> str | None:
    """The phrase of the one finding of this verb that a chat model's words name, or None for none and for several.

    The phrase itself or its other wording, whatever the case; otherwise by words, as `outside_patients.matching_facts`.
    """
    if verb not in VERBS:
        raise ValueError(f"got the verb {verb!r}; expected one of {', '.join(VERBS)}.")
    named = {words: finding for words, (finding, its_verb) in patient.menu.items() if its_verb == verb}
    for words, finding in named.items():
        if plain(said) in (plain(words), plain(phrase(finding, True, shift=True))):
            return words
    places = matching_facts([{"kind": verb, "topic": words, "text": ""} for words in named], said)
    return list(named)[places[0]] if len(places) == 1 else None
