"""Every prompt sent to any model, once.

A style names what the answer must look like: "crpo" (`<dx>`, `<conclusion>`) or "grpo" (`<think>`, `<answer>`). A layout
names who reads it: "full" for pretrained models, "clinic" for the clinic base model, whose vocabulary holds one word for
each instruction. Training, evaluation and notebooks all render through `build_messages`, so they cannot drift apart.

The paper prints no CRPO prompt; these are ours, written from its description of the format (section 3, figure 6).
"""

import hashlib
import json

STYLES = ("crpo", "grpo")
LAYOUTS = ("full", "clinic")

_TASK = (
    "You are an experienced physician. Work through the multiple-choice question below and choose the single best option. "
    "This is an exercise for teaching, not advice about a real patient.\n\n"
)
_ONCE = "State the letter exactly once, as \\boxed{A} (with your letter), inside the last section.\n\n"

FULL = {
    "crpo": _TASK + "Answer in exactly two sections and write nothing outside them:\n"
    "<dx> (System 1: Intuitive) your first impression: the hypotheses that the presentation brings to mind. "
    "(System 2: Analytical) your deliberate analysis: test those hypotheses against the findings of this patient, say which "
    "findings support or argue against each option, and why the other options are less likely. </dx>\n"
    "<conclusion> the decision, citing the evidence from your analysis that carries it, and the letter. </conclusion>\n"
    + _ONCE
    + "Question:\n{question}",
    "grpo": _TASK + "Answer in exactly two sections and write nothing outside them:\n"
    "<think> your reasoning. </think>\n"
    "<answer> a short summary and the letter. </answer>\n" + _ONCE + "Question:\n{question}",
}
CLINIC_INSTRUCTIONS = {"crpo": "Reason in two systems and conclude.", "grpo": "Think and answer."}
CLINIC_DRILLS = {  # base corpus only
    "findings": "Repeat the findings.",
    "options": "Give the letter of each option.",
    "evidence": "Weigh every finding.",
}
CLINIC = {style: words + "\n{question}" for style, words in CLINIC_INSTRUCTIONS.items()}
TEMPLATES = {"full": FULL, "clinic": CLINIC}

STYLE_OF_METHOD = {  # paper section 4.2: the baseline is asked with the CRPO reasoning template
    "baseline": "crpo",
    "grpo": "grpo",
    "crpo": "crpo",
    "cold_start_grpo": "grpo",
    "cold_start_crpo": "crpo",
}


def render_question(question) -> str:
    """Stem, then one option a line as 'A: text'."""
    return "\n".join([question.stem, *(f"{letter}: {text}" for letter, text in question.options.items())])


def build_messages(question, style: str, layout: str = "full") -> list[dict]:
    """The chat messages for one question: a single user turn. ValueError for an unknown style or layout."""
    if style not in STYLES or layout not in LAYOUTS:
        raise ValueError(
            f"prompt {style!r}/{layout!r} is not known; expected a style of {STYLES}, a layout of {LAYOUTS}."
        )
    return [
        {
            "role": "user",
            "content": TEMPLATES[layout][style].replace("{question}", render_question(question)),
        }
    ]


def prompts_hash() -> str:
    """sha256 over every template, stamped into the manifest."""
    return hashlib.sha256(json.dumps(TEMPLATES, sort_keys=True).encode()).hexdigest()
