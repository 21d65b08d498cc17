"""The reward sets of the ablations: what each changes, ranges, pickling.   pytest tests/laboratory/test_variants.py"""

import pickle
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clinical_r1.arms import ARMS, LABORATORY
from clinical_r1.audit.redteam import EXAMPLE, EXAMPLE_HONEST, attacks
from clinical_r1.completions import SECTIONS
from clinical_r1.laboratory.grounded import grounded_comprehensiveness_reward
from clinical_r1.laboratory.variants import CONSISTENT, VARIANT_SETS, gated_consistency_reward
from clinical_r1.rewards import REWARD_SETS, RewardSet, check_values, clinical_reasoning_reward

RANGES = {  # name of every reward function -> (lowest, highest) value
    "accuracy_reward": (0.0, 1.0),
    "thinking_format_reward": (0.0, 1.5),
    "clinical_reasoning_reward": (0.0, 1.5),
    "consistency_reward": (0.0, 1.0),
    "clinical_format_reward": (0.0, 1.0),
    "quantised_consistency_reward": (0.0, 1.0),
    "gated_consistency_reward": (0.0, 1.0),
    "summary_format_reward": (0.0, 1.5),
    "cited_thinking_reward": (0.0, 1.5),
    "tally_accuracy_reward": (0.0, 1.0),
    "grounded_faithfulness_reward": (0.0, 1.0),
    "grounded_comprehensiveness_reward": (0.0, 1.0),
}
ALL_SETS = REWARD_SETS | VARIANT_SETS
IN_GRPO = EXAMPLE_HONEST.replace("<dx> (System 1: Intuitive)", "<think>").replace(
    "(System 2: Analytical) ", ""
)
IN_GRPO = IN_GRPO.replace("</dx>", "</think>").replace("conclusion>", "answer>")
UNCITED = (
    EXAMPLE_HONEST[: EXAMPLE_HONEST.index("<conclusion>")] + "<conclusion> it is \\boxed{B} </conclusion>"
)
BOX_ONLY = UNCITED.replace("it is ", "")
DRIFTED = EXAMPLE_HONEST.replace("favor septic", "favor 因此我们考虑感染的可能性 septic")
WRONG = EXAMPLE_HONEST.replace("\\boxed{B}", "\\boxed{A}")
MALFORMED = EXAMPLE_HONEST.replace("</dx>", "")


def rewards(name: str, *texts: str) -> list[list[float | None]]:
    """(N, K) under one set."""
    count = len(texts)
    columns = {
        "answer": ["B"] * count,
        "options": [EXAMPLE.options] * count,
        "prompts": [EXAMPLE.stem] * count,
    }
    return np.transpose([reward(list(texts), **columns) for reward in ALL_SETS[name].functions]).tolist()


def test_every_arm_has_its_rewards():
    for arm in map(ARMS.get, LABORATORY):
        names = ALL_SETS[arm.rewards].names
        assert arm.weights is None or len(arm.weights) == len(names)


@pytest.mark.parametrize("name", VARIANT_SETS)
def test_names_weights_ranges_and_pickling(name):
    reward_set = VARIANT_SETS[name]
    assert len(set(reward_set.names)) == len(reward_set.names) == len(reward_set.weights)
    assert set(reward_set.names) <= RANGES.keys()
    again = pickle.loads(pickle.dumps(reward_set.functions))
    columns = {"answer": ["B"], "options": [EXAMPLE.options], "prompts": [EXAMPLE.stem]}
    text = IN_GRPO if name == "crpo_in_grpo" else EXAMPLE_HONEST
    assert [f([text], **columns) for f in again] == [f([text], **columns) for f in reward_set.functions]
    unscored = name == "exact_tally"  # the example is no vignette of the clinic
    assert again[0]([text], **columns) == [None if unscored else 1.0]


def test_every_function_of_the_package_states_a_range_in_its_docstring():
    functions = {f.__name__: f for reward_set in ALL_SETS.values() for f in reward_set.functions}
    assert functions.keys() == RANGES.keys()
    for name, function in functions.items():
        docstring = getattr(function, "func", function).__doc__
        assert "{0, 1" in docstring or "[0, 1]" in docstring, name


def test_no_citation_pays_the_same_with_and_without():
    assert rewards("crpo", EXAMPLE_HONEST, UNCITED) == [[1, 1.5, 1], [1, 1, 1]]
    assert rewards("crpo_no_citation", EXAMPLE_HONEST, UNCITED, MALFORMED) == [
        [1, 1, 1],
        [1, 1, 1],
        [1, 0, 1],
    ]


def test_quantised_consistency_has_no_jitter():
    drifted = rewards("crpo", DRIFTED)[0][2]
    assert 0.5 < drifted < CONSISTENT
    assert rewards("crpo_quantised", EXAMPLE_HONEST, DRIFTED) == [[1, 1.5, 1], [1, 1.5, 0]]
    nearly = EXAMPLE_HONEST.replace("favor septic", "favor 因 septic")
    assert CONSISTENT < rewards("crpo", nearly)[0][2] < 1.0
    assert rewards("crpo_quantised", nearly)[0][2] == 1.0


def test_gated_consistency_needs_the_format_and_the_answer():
    values = rewards("crpo_gated_consistency", EXAMPLE_HONEST, DRIFTED, WRONG, MALFORMED)
    assert [row[2] for row in values] == [1.0, rewards("crpo", DRIFTED)[0][2], 0.0, 0.0]
    gated = VARIANT_SETS["crpo_gated_consistency"].functions[2]
    assert gated([EXAMPLE_HONEST], answer=[None]) == [None]
    assert gated([IN_GRPO], answer=["B"], style=["grpo"]) == [1.0]
    with pytest.raises(ValueError, match="'answer' has 2 values"):
        gated([EXAMPLE_HONEST], answer=["A", "B"])


def test_left_out_terms():
    assert VARIANT_SETS["crpo_no_format"].names == ("accuracy_reward", "consistency_reward")
    assert VARIANT_SETS["crpo_no_format"].weights == (10.0, 0.5)
    assert VARIANT_SETS["crpo_no_consistency"].names == ("accuracy_reward", "clinical_reasoning_reward")
    assert VARIANT_SETS["crpo_no_consistency"].weights == (10.0, 1.0)


def test_the_two_by_two_swaps_reward_and_format():
    """Each reward judges its own format alone, and the bonus of the other method's reward."""
    assert rewards("grpo_in_crpo", EXAMPLE_HONEST, UNCITED, BOX_ONLY, IN_GRPO) == [
        [1, 1.5, 1],
        [1, 1.5, 1],  # GRPO's bonus is paid for any words
        [1, 1, 1],
        [1, 0, 1],
    ]
    uncited = IN_GRPO[: IN_GRPO.index("<answer>")] + "<answer> it is \\boxed{B} </answer>"
    assert rewards("crpo_in_grpo", IN_GRPO, uncited, EXAMPLE_HONEST) == [[1, 1.5, 1], [1, 1, 1], [1, 0, 1]]
    assert rewards("grpo", IN_GRPO, uncited) == [[1, 1.5, 1], [1, 1.5, 1]]


def test_unknown_options_leave_the_citation_unscored():
    cited = VARIANT_SETS["crpo_in_grpo"].functions[1]
    assert cited([IN_GRPO], options=[None]) == [None]
    with pytest.raises(ValueError, match="'options' has 2 values"):
        cited([IN_GRPO], options=[None, None])


def test_the_grounded_set_adds_to_the_papers():
    reward_set = VARIANT_SETS["grounded"]
    assert reward_set.weights == (10.0, 1.0, 1.0, 1.0, 0.5)
    honest = rewards("grounded", EXAMPLE_HONEST)[0]
    assert honest[:2] + honest[-1:] == rewards("crpo", EXAMPLE_HONEST)[0]
    assert honest[2] == pytest.approx(6 / 7) and honest[3] == pytest.approx(
        4 / 5
    )  # the tick bite; no word for Lyme


@pytest.mark.parametrize("name", VARIANT_SETS)
def test_values_of_every_attack_are_in_range(name):
    texts = [EXAMPLE_HONEST, IN_GRPO, *attacks(EXAMPLE, EXAMPLE_HONEST).values()]
    for key, values in zip(VARIANT_SETS[name].names, zip(*rewards(name, *texts), strict=True), strict=True):
        check_values(key, values, len(texts), RANGES[key])


@pytest.mark.parametrize(
    "values", [[1.0, 1.6], [-0.1, 1.0], [1.0, np.inf], [np.nan, 1], ["1", 0], 1.0, {"a": 1, "b": 1}, [1.0]]
)
def test_values_that_are_no_reward_are_named(values):
    with pytest.raises(ValueError, match="reward short_reward gave"):
        check_values("short_reward", values, 2, (0, 1.5))
    check_values("short_reward", [None, np.float32(1.5)], 2, (0, 1.5))


@pytest.mark.parametrize(
    ("functions", "weights", "ranges", "message"),
    [
        ((len,), (1.0, 2.0), {}, "got 1 functions and 2 weights"),
        ((), (), {}, "at least one of each"),
        ((len, len), (1.0, 2.0), {}, "expected a different name for each"),
        ((len,), (1.0,), {"length": (0, 1)}, "ranges name \\['length'\\]"),
        ((object(),), (1.0,), {}, "has no __name__"),
    ],
)
def test_a_reward_set_that_does_not_fit_together_is_refused(functions, weights, ranges, message):
    with pytest.raises(ValueError, match=message):
        RewardSet(functions, weights, ranges)


PIECES = [
    *SECTIONS["crpo"],
    EXAMPLE_HONEST,
    IN_GRPO,
    UNCITED,
    "<dx>",
    "</dx>",
    "<answer>",
    "\\boxed{B}",
    "因此",
    "\ud800",
    " ",
]


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.one_of(st.sampled_from(PIECES), st.text(st.characters(exclude_categories=()), max_size=20)),
        max_size=8,
    )
)
def test_any_text_is_scored_in_range_and_the_same_again(pieces):
    text = "".join(pieces)
    for name, reward_set in VARIANT_SETS.items():
        values = rewards(name, text)
        assert values == rewards(name, text)
        for key, value in zip(reward_set.names, values[0], strict=True):
            check_values(key, [value], 1, RANGES[key])


@pytest.mark.parametrize("name", ALL_SETS)
@pytest.mark.parametrize(
    ("completions", "message"),
    [
        ("one text", "completions is one str; expected a list"),  # not a value a character
        (b"one text", "completions is one bytes; expected a list"),
        ({"role": "assistant", "content": "x"}, "completions is one dict; expected a list"),
        ([None], "completion None holds no assistant message; expected a string or a message list with one"),
        ([3.5], "completion 3.5 holds no assistant message"),
        ([b"text"], "completion b'text' holds no assistant message"),
        ([{"role": "assistant", "content": "x"}], "holds no assistant message"),
        ([[]], "holds no assistant message"),
        ([["text"]], "holds no assistant message"),
    ],
)
def test_what_is_no_list_of_completions_is_refused(name, completions, message):
    count = len(completions)
    columns = {
        "answer": ["A"] * count,
        "options": [{"A": "Gout", "B": "Sepsis"}] * count,
        "prompts": ["?"] * count,
    }
    for function in ALL_SETS[name].functions:
        with pytest.raises(ValueError, match=re.escape(message)):
            function(completions, **columns)


@pytest.mark.parametrize("answer", ["b", "Gout", "E", 1])
def test_every_reward_that_reads_the_answer_refuses_one_that_is_none_of_the_options(answer):
    columns = {"answer": [answer], "options": [{"A": "Gout", "B": "Sepsis"}], "prompts": ["Fever?"]}
    for function in (gated_consistency_reward, grounded_comprehensiveness_reward):
        with pytest.raises(ValueError, match="the answer of a question is"):
            function(["x"], **columns)


def test_a_vignette_in_parts_is_read_as_one_in_a_text():
    vignette, options = "Fever, wheeze and crystals in the joint fluid.", {"A": "Gout", "B": "Sepsis"}
    text = (
        "<dx> (System 1: Intuitive) gout? (System 2: Analytical) crystals in the joint fluid support gout. </dx> "
        r"<conclusion> Crystals in the joint fluid support gout: \boxed{A} </conclusion>"
    )
    parts = [{"type": "text", "text": vignette}]
    for asked, invented in (
        (vignette, "Cough."),
        ([{"role": "user", "content": vignette}], [{"role": "user", "content": "Cough."}]),
        (
            [{"role": "user", "content": parts}],
            [{"role": "user", "content": [{"type": "text", "text": "Cough."}]}],
        ),
    ):
        assert clinical_reasoning_reward([text], [options], [asked]) == [1.5]
        assert clinical_reasoning_reward([text], [options], [invented]) == [1.0]
