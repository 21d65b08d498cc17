"""The + 0.5 of eq. 4: what cites, what does not, and what a negation reaches.   pytest tests/test_citation.py"""

import json
import time
from pathlib import Path

import numpy as np
import pytest

from clinical_r1.citation import cross_references
from clinical_r1.clinic.cases import Case, load_set
from clinical_r1.clinic.traces import HONEST, crpo_text, write_trace
from clinical_r1.completions import parse_completion
from clinical_r1.files import ROOT
from clinical_r1.prompts import LAYOUTS, STYLES, build_messages
from clinical_r1.questions import Question

STEM = (
    "A 45-year-old man comes to the clinic because of shaking chills and a swollen, painful right knee for two days. "
    "Temperature is 38.9 °C. He has no rash, sore throat, or recent travel. He denies alcohol use and drug use. Joint fluid is "
    "cloudy, holds 60,000 leukocytes per microliter, and shows no crystals. Blood cultures are negative. "
    "Which of the following is the most likely diagnosis?"
)
OPTIONS = {
    "A": "Gout",
    "B": "Septic arthritis",
    "C": "Acute hepatitis A",
    "D": "Lyme arthritis",
    "E": "Acute hepatitis",
}
QUESTION = Question("citation", "medqa", "teaching", STEM, OPTIONS, "B", {})


def cites(
    analysis: str, conclusion: str, letter: str = "B", prompt: str | None = STEM, options=OPTIONS
) -> bool:
    text = crpo_text("suspect something.", analysis, f"{conclusion} \\boxed{{{letter}}}")
    return cross_references(parse_completion(text), options, prompt)


CITES = [  # analysis, conclusion; the box holds B, septic arthritis
    ("Shaking chills support septic arthritis.", "Shaking chills favor septic arthritis."),
    ("shaking chills supports Septic arthritis.", "shaking chills favor Septic arthritis"),
    (
        "The absence of crystals in the joint fluid argues against gout. Shaking chills suggest option B.",
        "No crystals in the joint fluid and shaking chills: septic arthritis.",
    ),
    ("A temperature of 38.9 points to septic arthritis.", "The temperature of 38.9 decides."),
    ("60,000 leukocytes make septic arthritis likely.", "60,000 leukocytes decide."),
    (
        "Chills and a swollen knee are present. This makes septic arthritis likely.",
        "The chills and the swollen knee decide.",
    ),
    (  # the reasoning names the disease in its own words, the conclusion the option
        "Shaking chills and a swollen, painful knee point to bacteria in the joint space.",
        "Shaking chills and the swollen knee mean septic arthritis.",
    ),
    (  # what is only known of another disease is no vote for it
        "Lyme arthritis is a disease of ticks. Gout shows needles. Shaking chills point to bacteria in the joint space.",
        "Shaking chills mean septic arthritis.",
    ),
    (
        "Without crystals in the joint fluid, gout is unlikely. Chills do not fit gout.",
        "Chills without crystals in the joint fluid argue against gout.",
    ),
    (
        "Crystals are absent in the joint fluid and a chill is typical of septic arthritis.",
        "The chills and the absence of crystals in the joint fluid decide.",
    ),
    (
        "No travel makes Lyme arthritis unlikely, chills support septic arthritis.",
        "Chills, and no recent travel.",
    ),
    (
        "Shaking chills suggest septic arthritis rather than gout.",
        "Shaking chills favor septic arthritis over gout.",
    ),
    ("Gout does not explain the shaking chills.", "Shaking chills exclude gout."),
    ("Unlike gout, septic arthritis causes shaking chills.", "Shaking chills decide."),
    (
        "Swelling of the right knee and chills indicate septic arthritis.",
        "Chills and the swelling of the right knees",
    ),  # inflected
]
ATTACKED = [  # paid before: texts for any patient, questions, denials of the whole, the same evidence for every option
    (
        "The blood pressure and pulse support septic arthritis.",
        "Blood pressure and temperature favor septic arthritis.",
    ),
    (
        "The right side supports septic arthritis.",
        "The temperature and the right side favor septic arthritis.",
    ),
    ("Do shaking chills support septic arthritis?", "Shaking chills favor septic arthritis."),
    ("It is false that shaking chills support septic arthritis.", "Shaking chills favor septic arthritis."),
    ("Shaking chills fail to support septic arthritis.", "Shaking chills favor septic arthritis."),
    (
        "Shaking chills support gout. Shaking chills support septic arthritis. Shaking chills clearly support option B.",
        "Shaking chills favor septic arthritis.",
    ),
    ("Chills and leukocytes and travel support septic arthritis.", "Chills and leukocytes and travel."),
]


@pytest.mark.parametrize(("analysis", "conclusion"), ATTACKED)
def test_what_fits_any_patient_cites_nothing(analysis, conclusion):
    assert not cites(analysis, conclusion)


CITES_NOT = [
    # not from the vignette
    ("Blorf zindle supports septic arthritis.", "Blorf zindle favors septic arthritis."),
    ("Positive gram stain supports septic arthritis.", "A positive gram stain favors septic arthritis."),
    ("48291 77350 supports septic arthritis.", "48291 77350 decide."),
    ("A 45-year-old man suggests septic arthritis.", "A 45-year-old man, so septic arthritis."),
    ("Which of the following supports septic arthritis.", "Which of the following: septic arthritis."),
    ("Microliter and mm Hg support septic arthritis.", "Microliter and mm Hg favor septic arthritis."),
    ("A temperature of 39.9 supports septic arthritis.", "The temperature of 39.9 decides."),
    ("38.9 and 60,000 support septic arthritis.", "38.9 and 60,000 decide."),  # numbers alone
    ("Chills support septic arthritis.", "Chills favor septic arthritis."),  # one bare word
    ("Knee cloudy chills support septic arthritis.", "Knee cloudy chills."),  # words of three sentences in one phrase
    # not in System 2, or no reasoning there
    ("It is what it is.", "Shaking chills favor septic arthritis."),
    ("Shaking chills, swollen knee, septic arthritis.", "Shaking chills favor septic arthritis."),  # a list
    ("Shaking chills are present.", "Shaking chills favor septic arthritis."),
    ("Because of shaking chills and a swollen, painful right knee for two days.", "Shaking chills and a swollen knee."),
    ("Because Temperature is 38.9 °C and chills and a swollen knee.", "Chills and a swollen knee."),
    ("If septic arthritis then expect shaking chills.", "Shaking chills favor septic arthritis."),
    ("Supports because suggests likely confirms shaking chills septic arthritis.", "Shaking chills decide."),  # a heap
    # another option, or none in particular
    ("Shaking chills support gout.", "Shaking chills favor septic arthritis."),
    ("Shaking chills support Lyme arthritis.", "Shaking chills decide."),
    ("Shaking chills argue against septic arthritis.", "Shaking chills favor septic arthritis."),
    ("Shaking chills do not support septic arthritis.", "Shaking chills favor septic arthritis."),
    ("Shaking chills support septic arthritis. Shaking chills support gout.", "Shaking chills decide."),
    ("Chills support gout. A swollen knee supports gout. Shaking chills support septic arthritis.", "Shaking chills"),
    ("Shaking chills support septic arthritis.", "Shaking chills favor gout."),
    ("Shaking chills argue against gout.", "Shaking chills decide."),  # and what about the others?
    ("Shaking chills support septic arthritis.", "Shaking chills: gout, septic arthritis, Lyme arthritis, hepatitis A."),
    # the conclusion's own rules
    ("Shaking chills support septic arthritis.", "Shaking chills, shaking chills, shaking chills."),
    ("Shaking chills support septic arthritis.", "Shaking chills, pus, growth, bacteria, sepsis and shock decide."),
    ("Shaking chills support septic arthritis.", ""),
]  # fmt: skip


@pytest.mark.parametrize(("analysis", "conclusion"), CITES)
def test_cites(analysis, conclusion):
    if (
        "argue against gout" not in analysis
        and "gout is unlikely" not in analysis
        and "explain" not in analysis
    ):
        assert cites(analysis, conclusion)
    others = (
        "The rest argues against gout, Lyme arthritis and acute hepatitis A. Acute hepatitis is unlikely."
    )
    assert cites(f"{analysis} {others}", conclusion)


@pytest.mark.parametrize(("analysis", "conclusion"), CITES_NOT)
def test_cites_not(analysis, conclusion):
    assert not cites(analysis, conclusion)


@pytest.mark.parametrize(
    ("said", "cited"),
    [
        ("No rash", "no rash"), ("absence of rash", "the absence of a rash"), ("Without a sore throat", "no sore throat"),
        ("A rash is absent, a sore throat is absent", "no rash, no sore throat"), ("He denies drug use", "no drug use"),
        ("He does not have a rash or a sore throat", "neither rash nor sore throat"),
        ("Lack of rash and lack of travel", "lack of rash and lack of travel"),
        ("Rash and travel were ruled out", "no rash, no travel"),
        ("He is free of rash, negative for travel", "no rash, no travel"), ("He hasn't a rash or sore throat", "no sore throat"),
    ],
)  # fmt: skip
def test_a_denial_in_any_words_is_a_denial(said, cited):
    """The vignette denies rash, sore throat, travel, alcohol and drugs, in a list up to its 'or' or 'and'."""
    assert cites(f"{said}. Shaking chills favor septic arthritis.", f"Shaking chills and {cited} decide.")
    for word in ("rash", "sore throat", "recent travel", "alcohol use", "drug use"):
        assert not cites(f"{said} favors septic arthritis.", f"{word} and shaking chills decide.")
        assert not cites(
            f"The {word} and shaking chills support septic arthritis.", f"{word} and shaking chills decide."
        )


@pytest.mark.parametrize(
    "denial",
    [
        "No {}",
        "Without {}",
        "The absence of {}",
        "Lack of {}",
        "He never had {}",
        "He doesn't have {}",
        "He denies {}",
    ],
)
def test_what_is_denied_cannot_be_cited_as_present(denial):
    finding = "shaking chills"
    assert cites(f"{finding} support septic arthritis.", f"{finding} favor septic arthritis.")
    said = denial.format(finding)
    assert not cites(f"{said} support septic arthritis.", f"{finding} favor septic arthritis.")
    assert not cites(f"{finding} support septic arthritis.", f"{said} favor septic arthritis.")
    assert not cites(
        f"{said} support septic arthritis.", f"{said} favor septic arthritis."
    )  # the vignette has them


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("style", STYLES)
def test_neither_our_instructions_nor_the_options_are_the_vignette(layout, style):
    prompt = build_messages(QUESTION, style, layout)[0]["content"]
    chat = f"<|im_start|>user {prompt}<|im_end|> <|im_start|>assistant "
    for asked in (prompt, chat):
        assert cites("Shaking chills support septic arthritis.", "Shaking chills decide.", prompt=asked)
        for words in (
            "experienced physician",
            "deliberate hypotheses",
            "lyme hepatitis",
            "reason in two systems",
        ):
            assert not cites(f"The {words} supports septic arthritis.", f"The {words} decides.", prompt=asked)


def test_without_a_prompt_the_vignette_is_not_checked_and_an_empty_one_states_nothing():
    invented = "Positive gram stain supports septic arthritis.", "A positive gram stain decides."
    assert cites(*invented, prompt=None)
    assert not cites(*invented, prompt="")


def test_the_box_decides_whom_the_reasoning_must_support():
    reasons = "Shaking chills support septic arthritis.", "Shaking chills decide."
    assert cites(*reasons, letter="B")
    assert not any(cites(*reasons, letter=letter) for letter in "ACDEJ")
    assert not cites(reasons[0], "Shaking chills decide. \\boxed{B}")  # two boxes: no letter
    assert not cites("Shaking chills decide.", "Shaking chills decide, says System 1.")


def test_an_options_own_words_are_neither_cues_nor_findings():
    options = {"A": "Supportive treatment suggests nothing", "B": "Shaking chills", "C": "Rest"}
    assert not cites("Swollen knee, painful knee, shaking chills.", "Swollen painful knee.", options=options)
    assert not cites("Shaking chills support shaking chills.", "Shaking chills decide.", options=options)
    treated = "Supportive treatment suggests nothing, swollen painful knee."
    assert not cites(treated, "Swollen painful knee.", letter="A", options=options)


@pytest.mark.parametrize(
    "options", [{"A": "2", "B": "6", "C": "8"}, {"A": "Hepatitis A", "B": "Hepatitis B", "C": "None"}]
)
def test_options_of_one_character(options):
    reasons = f"Shaking chills support {options['B']}.", "Shaking chills decide."
    assert cites(*reasons, options=options) and cites(
        "Shaking chills support option B.", reasons[1], options=options
    )
    assert not cites(*reasons, letter="A", options=options)


def test_questions_that_ask_for_the_exception_turn_for_and_against_round():
    asked = STEM.replace("is the most likely diagnosis?", "is NOT a possible diagnosis?")
    rejects = (
        "Shaking chills argue against gout. Shaking chills support septic arthritis.",
        "Shaking chills exclude gout.",
    )
    assert cites(*rejects, letter="A", prompt=asked)
    assert not cites(*rejects, letter="B", prompt=asked)


def test_time_grows_with_the_length_not_faster():
    pieces = [
        "Shaking chills support gout. ", "no chills, or ", "not ", "absent is ", "septic arthritis ", "gout likely than ",
        "chills and ", "option b ", "This is gout. ", "neither chills nor crystals, and ", "a", ".", ", ", "because ",
    ]  # fmt: skip

    def seconds(piece, size):
        analysis = piece * (size // len(piece))
        start = time.process_time()
        cites(analysis, "Shaking chills and a swollen painful knee decide.")
        return time.process_time() - start

    for piece in pieces:
        short, long = (min(seconds(piece, size) for _ in range(2)) for size in (20_000, 200_000))
        assert long < 40 * short + 0.2, piece


@pytest.mark.parametrize("benchmark", ["clinic", "clinic-shift", "clinic-expert"])
def test_honest_answers_of_the_clinic_cite(benchmark):
    """599 of 600 over the three sets."""
    rng, cited = np.random.default_rng(0), 0
    for question in load_set(benchmark, "validation", 60):
        text = write_trace(Case.from_json(question.meta["case"]), "crpo", HONEST, rng)
        prompt = build_messages(question, "crpo", "clinic")[0]["content"]
        cited += cross_references(parse_completion(text), question.options, prompt)
    assert cited >= 59


# Option "50" beside "200 persons"; "Inj. mgso4" holds a full stop; a question without a vignette; one finding in two sentences;
# options of many words that all speak of one transfusion.
NOT_READ = {("medmcqa", 202), ("medmcqa", 11), ("medqa", 953), ("medqa", 1146)}


@pytest.mark.slow
def test_honest_answers_in_ordinary_english_cite(data_dir):
    """10 of 14, written before they were tried; the rule before this one paid 6."""
    from clinical_r1.curation.releases import load_benchmark

    sets = {
        name: load_benchmark(name, split, source=data_dir)
        for name, split in (("medqa", "test"), ("medmcqa", "dev"))
    }
    written = json.loads((Path(__file__).parent / "honest_english.json").read_text(encoding="utf-8"))
    assert (
        f"of {len(written)} honest answers written by hand for real questions it pays {len(written) - len(NOT_READ)}"
        in (ROOT / "docs" / "trust.md").read_text(encoding="utf-8")
    )
    for row in written:
        name, place = row["benchmark"], row["place"]
        question = sets[name][place]
        prompt = build_messages(question, "crpo")[0]["content"]
        text = crpo_text(row["intuition"], row["analysis"], row["conclusion"])
        parsed = parse_completion(text, options=question.options)
        assert parsed.letter == question.answer
        assert cross_references(parsed, question.options, prompt) == ((name, place) not in NOT_READ), (
            name,
            place,
        )
