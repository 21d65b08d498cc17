"""The words of a consultation: what the agent is told, and the tokenizer that has a token for each phrase of it.

A transcript alternates between user turns (the complaint, then what each action brought) and assistant turns (one action each).
It is the clinic's own chat template, so a whole consultation is one sequence of tokens: prompt, turn, observation, turn, ...
"""

from clinical_r1.agent.consultation import DIAGNOSE, PROBLEMS, SUSPECT, VERBS, Patient, Rules, left
from clinical_r1.clinic.base_model import ASSISTANT, END, USER, build_clinic_tokenizer
from clinical_r1.clinic.cases import phrase
from clinical_r1.questions import LETTERS

INSTRUCTION = "Inquire and diagnose."
OFFER = "On offer:"
MOST_TURNS = 12  # that the tokenizer has a token for
TURN_TOKENS = 8  # of one action, its end included: five are needed


def opening(patient: Patient, rules: Rules) -> list[dict]:
    """The chat messages a consultation begins with: complaint, options, what is on offer, and how many turns there are."""
    if rules.horizon > MOST_TURNS:
        raise ValueError(
            f"got a horizon of {rules.horizon}; expected at most {MOST_TURNS}, the most the tokenizer can say."
        )
    lines = [INSTRUCTION, f"Patient: {', '.join(phrase(f, True) for f in patient.complaint)}."]
    lines += [f"{letter}: {option}" for letter, option in zip(LETTERS, patient.options, strict=False)]
    if rules.menu is not None:
        lines.append(
            f"{OFFER} " + ", ".join(f"{verb} {words}" for words, (_, verb) in patient.menu.items()) + "."
        )
    if rules.earliest > 1:
        lines.append(not_before(rules.earliest))
    return [{"role": "user", "content": "\n".join([*lines, left(rules.horizon)])}]


def not_before(turn: int) -> str:
    """How the agent is told from which turn on a diagnosis is accepted."""
    return f"no diagnosis before turn {turn}."


def observation_text(text: str) -> str:
    """The tokens between two turns of the agent, as text: the user's turn, and the mark that the agent is to go on."""
    return f"{USER} {text} {ASSISTANT}"


def words_of_consultations() -> list[str]:
    """What the clinic's vocabulary lacks."""
    turns = [left(n) for n in range(1, MOST_TURNS + 1)] + [not_before(n) for n in range(2, MOST_TURNS + 1)]
    return [INSTRUCTION, OFFER, SUSPECT, *VERBS, DIAGNOSE, *turns, *PROBLEMS]


def build_agent_tokenizer():
    """The clinic's tokenizer with the words of consultations behind its own, whose numbers they leave as they are."""
    from tokenizers import AddedToken

    tokenizer = build_clinic_tokenizer()
    words = [w for w in words_of_consultations() if w not in tokenizer.get_vocab()]
    tokenizer.add_tokens([AddedToken(w, single_word=w[-1].isalnum(), normalized=False) for w in words])
    return tokenizer


__all__ = ["ASSISTANT", "END", "USER", "build_agent_tokenizer", "observation_text", "opening"]
