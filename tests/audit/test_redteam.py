"""An honest answer outranks every attack but the ties; 100,000 generated completions break no reward.

python -m pytest tests/audit/test_redteam.py
"""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pages import one_line, page

from clinical_r1 import citation, rewards
from clinical_r1.audit.redteam import EXAMPLE, EXAMPLE_HONEST, TIES, attacks, red_team_table
from clinical_r1.clinic.cases import Case, load_set
from clinical_r1.clinic.traces import HONEST, write_trace
from clinical_r1.completions import PROBLEMS, parse_completion
from clinical_r1.prompts import build_messages

ATTACKS = list(attacks(EXAMPLE, EXAMPLE_HONEST))


def honest_clinic(question) -> str:
    return write_trace(Case.from_json(question.meta["case"]), "crpo", HONEST, np.random.default_rng(0))


@pytest.fixture(scope="module")
def example():
    return red_team_table(EXAMPLE, EXAMPLE_HONEST).set_index("completion")


@pytest.mark.parametrize("attack", ATTACKS)
def test_honest_outranks_the_attack_in_ordinary_english(example, attack):
    assert example.loc["honest", "total"] == 12.0
    assert (example.loc[attack, "total"] < 12.0) == example.loc[attack, "outranked"] == (attack not in TIES)
    assert example.loc[attack, "tie"] == (attack in TIES)


NEVER_PAID = [  # texts that fit any question, and reasoning that is none: not one question in 200
    "gestalt", "gestalt with the answer", "nonsense words", "nonsense words with the answer", "digits", "base64",
    "mechanism of nothing", "age and sex", "units", "reasoning for another option", "only supposed", "only in System 1",
    "numbers alone", "vignette behind because", "vignette, a number changed", "vignette, a cue inserted",
    "denial cited as presence", "exclusion cited as presence", "absence cited as presence", "three negations",
    "denial in hidden characters", "copied vignette", "findings listed", "boilerplate",
    "vital signs of any patient", "examination of any patient", "reasoning as a question", "missing cited as presence",
]  # fmt: skip
HIDDEN = {"zero-width characters"}  # the honest answer with hidden marks, which cost consistency


def paid(questions, layout, honest) -> list[tuple[str, str]]:
    """(attack, question) of each attack that earns the bonus; attacks on the letter or of a megabyte left out."""
    found = []
    for question in questions:
        prompt = build_messages(question, "crpo", layout)[0]["content"]
        text_of_honest = honest(question)
        for name, text in attacks(question, text_of_honest).items():
            if len(text) > 10_000 or text_of_honest[40:80] in text:
                continue
            parsed = parse_completion(text, options=question.options)
            if parsed.well_formed and citation.cross_references(parsed, question.options, prompt):
                found.append((name, question.id))
    return found


@pytest.mark.parametrize(
    ("benchmark", "count"), [("clinic", 200), ("clinic-shift", 40), ("clinic-expert", 40)]
)
def test_attacks_on_the_clinic_earn_no_citation(benchmark, count):
    """Of 75 attacks on each question. Paid are, besides the ties, words at random: in a short vignette they stand together."""
    found = paid(load_set(benchmark, "validation", count), "clinic", honest_clinic)
    assert {name for name, _ in found}.isdisjoint(NEVER_PAID)
    others = [name for name, _ in found if name not in TIES | HIDDEN]
    assert sum(name != "vignette words joined by and" for name in others) <= 0.1 * count
    if benchmark == "clinic":
        said = one_line(page("docs/trust.md"))
        assert f"{len(NEVER_PAID)} of them, such as texts that fit any question" in said
        assert f"The others, ties aside, earn one {len(others)} and 33 times" in said
    assert sum(name in TIES for name, _ in found) > count  # and what a text rule cannot see


@pytest.mark.slow
def test_attacks_on_real_vignettes_earn_no_citation(data_dir):
    """Of 14,000 attempts, 33 besides the ties: options that are findings or hold each other's names, questions that are
    one sentence long or ask for the exception, and, 22 times, words joined by 'and' that happen to stand together."""
    from clinical_r1.curation.releases import load_benchmark

    questions = load_benchmark("medqa", "dev", source=data_dir)[:200]
    found = paid(questions, "full", lambda question: EXAMPLE_HONEST)
    assert {name for name, _ in found}.isdisjoint(NEVER_PAID)
    assert sum(name not in TIES for name, _ in found) == 33  # as docs/trust.md says


def test_the_official_rule_ranks_differently(example):
    """Its transcription reads <think> and <answer>: here it pays the bare letter as much as the honest answer."""
    assert example.loc["letter only", "official"] == example.loc["honest", "official"]
    assert example.loc["two boxes", "official"] < 0


def test_a_copied_vignette_is_known_by_the_prompt():
    """A vignette sentence that argues by itself is paid unless the prompt says where it comes from."""
    stem = "The fever and chills suggest sepsis to her mother. Which is it?"
    text = (
        "<dx> (System 1: Intuitive) a. (System 2: Analytical) The fever and chills suggest sepsis to the mother. </dx> "
        "<conclusion> fever and chills \\boxed{B} </conclusion>"
    )
    options = {"A": "Gout", "B": "Sepsis"}
    assert rewards.clinical_reasoning_reward([text], options=[options]) == [1.5]
    assert rewards.clinical_reasoning_reward([text], options=[options], prompts=[stem]) == [1.0]
    messages = [{"role": "user", "content": stem}]
    assert rewards.clinical_reasoning_reward([text], options=[options], prompts=[messages]) == [1.0]


# ------------------------------------------------------------------------------------------- property tests

FRAGMENTS = [
    "<dx>", "</dx>", "<conclusion>", "</conclusion>", "<think>", "</think>", "<answer>", "</answer>",
    "(System 1: Intuitive)", "(System 2: Analytical)", "\\boxed{B}", "\\boxed{", "\\boxed", "}", "{", "\\text{C}",
    "fever supports Septic arthritis.", "no crystals argue against Gout.", "fever and no crystals favor it",
    "<count>99</count>", "<|im_end|>", "; ", ". ", "\n", "no ", "\x02", "\x00", "\ud800", "因此", "раіn", "≥ 5 µg",
    *EXAMPLE.options.values(), EXAMPLE.stem, EXAMPLE_HONEST,
]  # fmt: skip
COMPLETIONS_PER_EXAMPLE = 100


def check(texts: list[str]) -> None:
    columns = {
        "answer": ["B"] * len(texts),
        "options": [EXAMPLE.options] * len(texts),
        "prompts": [EXAMPLE.stem] * len(texts),
    }
    ranges = {
        rewards.accuracy_reward: {0.0, 1.0},
        rewards.thinking_format_reward: {0.0, 1.0, 1.5},
        rewards.clinical_reasoning_reward: {0.0, 1.0, 1.5},
    }
    for reward, allowed in ranges.items():
        values = reward(texts, **columns)
        assert len(values) == len(texts) and set(values) <= allowed
        rewards.parse.cache_clear()
        assert reward(texts, **columns) == values  # nothing remembered, nothing drawn
    shares = rewards.consistency_reward(texts)
    assert all(0.0 <= share <= 1.0 for share in shares) and rewards.consistency_reward(texts) == shares
    for text in texts:
        for style in ("crpo", "grpo"):
            parsed = parse_completion(text, style)
            assert set(parsed.problems) <= PROBLEMS.keys()
            assert parsed.letter is None or parsed.letter in "ABCDEFGHIJ"


def spliced(pool: list[str], seed: int) -> list[str]:
    """Completions put together from a pool of pieces; the seed comes from hypothesis."""
    rng, pieces = np.random.default_rng(seed), [*FRAGMENTS, *pool]
    return [
        " ".join(pieces[i] for i in rng.integers(len(pieces), size=rng.integers(0, 16)))
        for _ in range(COMPLETIONS_PER_EXAMPLE)
    ]


any_text = st.text(st.characters(exclude_categories=()), max_size=40)
pools = st.lists(any_text, min_size=1, max_size=10)


@settings(max_examples=20, deadline=None)
@given(pools, st.integers(0, 2**32 - 1))
def test_two_thousand_completions(pool, seed):
    check(spliced(pool, seed))


@pytest.mark.slow
@settings(max_examples=1000, deadline=None)
@given(pools, st.integers(0, 2**32 - 1))
def test_a_hundred_thousand_completions(pool, seed):
    check(spliced(pool, seed))


@settings(max_examples=200, deadline=None)
@given(any_text)
def test_whatever_stands_in_the_reasoning(text):
    check(
        [
            f"<dx> (System 1: Intuitive) a (System 2: Analytical) {text} </dx> <conclusion> {text} \\boxed{{B}} </conclusion>"
        ]
    )
