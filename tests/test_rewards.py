"""Each objective of eq. 4: ranges, zeros, the order best to worst.   pytest tests/test_rewards.py"""

import json
import pickle
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clinical_r1.audit.redteam import official_rule_score
from clinical_r1.rewards import (
    REWARD_SETS,
    accuracy_reward,
    checked,
    clinical_reasoning_reward,
    consistency_reward,
    effective_share,
    thinking_format_reward,
    total_reward,
)

OPTIONS = {"A": "Gout", "B": "Septic arthritis", "C": "Acute hepatitis A", "D": "Lyme arthritis"}
ANALYSIS = (
    "fever supports Septic arthritis. no crystals in the joint fluid argues against Gout. "
    "wheeze supports Septic arthritis. dark urine supports Acute hepatitis A. CRP 120 suggests infection."
)


def crpo(conclusion: str, analysis: str = ANALYSIS) -> str:
    return (
        f"<dx> (System 1: Intuitive) suspect Gout. (System 2: Analytical) {analysis} </dx> "
        f"<conclusion> {conclusion} </conclusion>"
    )


def grpo(answer: str, reasoning: str = ANALYSIS) -> str:
    return f"<think> {reasoning} </think> <answer> {answer} </answer>"


def total(name: str, completion: str, answer: str | None = "B") -> float | None:
    """The weighted sum of one completion under a reward set."""
    columns = {"answer": [answer], "options": [OPTIONS]}
    rewards = [reward([completion], **columns) for reward in REWARD_SETS[name].functions]
    return total_reward(rewards, REWARD_SETS[name].weights)[0]


PERFECT = crpo("fever and no crystals in the joint fluid favor Septic arthritis. \\boxed{B}")

# -------------------------------------------------------------------------------------------- the whole order

CRPO_ORDER = [  # best to worst under eq. 4 with k = 10; the total is written out
    (PERFECT, 10 + 1.5 + 0.5),
    (
        crpo("the answer is Septic arthritis. \\boxed{b}"),
        10 + 1 + 0.5,
    ),  # right and well formed, cites nothing
    ("so \\boxed{B}", 10 + 0 + 0.5),  # right, no format
    (
        crpo("dark urine favors Gout. \\boxed{A}", "dark urine supports Gout."),
        0 + 1.5 + 0.5,
    ),  # wrong, and cites
    (crpo("fever and wheeze favor Gout. \\boxed{A}"), 0 + 1 + 0.5),  # System 2 has them for another option
    (
        crpo("fever and wheeze favor it. \\boxed{A} \\boxed{B}"),
        0 + 1 + 0.5,
    ),  # two answers are none to cite for
    (crpo("the answer is Gout. \\boxed{A}"), 0 + 1 + 0.5),
    (crpo("the answer is Gout."), 0 + 1 + 0.5),  # no box
    ("I cannot tell.", 0 + 0 + 0.5),
    ("I 不 知 道", 0 + 0 + 0.5 * 1 / 4),  # other script
    ("", 0),
]


@pytest.mark.parametrize(("completion", "expected"), CRPO_ORDER)
def test_crpo_total_written_out(completion, expected):
    assert total("crpo", completion) == pytest.approx(expected)


def test_crpo_order_is_best_to_worst():
    totals = [total("crpo", completion) for completion, _ in CRPO_ORDER]
    assert totals == sorted(totals, reverse=True)
    assert totals[0] == 12.0
    assert totals[-1] == 0.0


def slow_crpo_total(completion: str, answer: str) -> float:
    """Eq. 4 word by word, with none of the package's functions: r = k r_acc + r_CR + 0.5 r_cons, k = 10.

    Plain enough for the completions of CRPO_ORDER: no wrapped letters, no nested tags.
    """
    k = 10
    boxes = re.findall(r"\\boxed\{(\w)\}", completion)
    accurate = 1 if len(boxes) == 1 and boxes[0].upper() == answer else 0
    layout = re.fullmatch(
        r"\s*<dx>.*\(System 1: Intuitive\).+\(System 2: Analytical\)(.+)</dx>\s*"
        r"<conclusion>(.+)</conclusion>\s*",
        completion,
    )
    reasoning = 0.0
    if layout:
        reasoning = 1.0
        analysis = layout.group(1)
        for finding, letter in (("no crystals in the joint fluid", "B"), ("dark urine", "A")):
            if finding in layout.group(2) and finding in analysis and boxes == [letter]:
                reasoning = 1.5
    tokens = completion.split()
    effective = [token for token in tokens if token.isascii()]
    consistent = len(effective) / len(tokens) if tokens else 0
    return k * accurate + reasoning + 0.5 * consistent


@pytest.mark.parametrize("completion", [completion for completion, _ in CRPO_ORDER])
def test_reward_set_is_equation_4(completion):
    assert total("crpo", completion) == pytest.approx(slow_crpo_total(completion, "B"))


GRPO_ORDER = [
    (grpo("fever favors Septic arthritis. \\boxed{B}"), 12.0),
    (grpo("\\boxed{B}"), 11.5),  # box only: no summary
    (grpo("\\boxed{B}."), 11.5),  # a period is no summary
    ("so \\boxed{B}", 10.5),
    (grpo("fever favors Gout. \\boxed{A}"), 2.0),
    (grpo("fever \\boxed{B} \\boxed{B}"), 1.5),  # two boxes: no letter, no summary
    (grpo("fever favors Septic arthritis."), 1.5),  # no box
    (grpo("so B", "it is \\boxed{B}"), 1.5),  # the box is in the reasoning
    (PERFECT, 10.5),  # CRPO's format earns no format reward here
]


@pytest.mark.parametrize(("completion", "expected"), GRPO_ORDER)
def test_grpo_total_written_out(completion, expected):
    assert total("grpo", completion) == pytest.approx(expected)


def test_reward_sets_share_weights_and_name_their_metrics():
    assert REWARD_SETS["crpo"].weights == REWARD_SETS["grpo"].weights == (10.0, 1.0, 0.5)
    assert REWARD_SETS["crpo"].names == ("accuracy_reward", "clinical_reasoning_reward", "consistency_reward")
    assert REWARD_SETS["grpo"].names == ("accuracy_reward", "thinking_format_reward", "consistency_reward")
    assert pickle.loads(pickle.dumps(REWARD_SETS)).keys() == REWARD_SETS.keys()


# ----------------------------------------------------------------------- each objective: what must score zero

MUST_BE_ZERO = [
    (accuracy_reward, crpo("Gout \\boxed{A}")),  # wrong letter
    (accuracy_reward, crpo("Septic arthritis.")),  # no letter
    (accuracy_reward, crpo("so \\boxed{Z}")),  # no option
    (thinking_format_reward, PERFECT),
    (thinking_format_reward, grpo("\\boxed{B}") + " and so on"),
    (thinking_format_reward, grpo("\\boxed{B}") * 2),  # the official pattern pays for repeated blocks
    (clinical_reasoning_reward, grpo("fever \\boxed{B}")),
    (clinical_reasoning_reward, "<dx></dx><conclusion>fever and wheeze</conclusion>"),
    (clinical_reasoning_reward, PERFECT.replace("(System 2: Analytical)", "")),
    (consistency_reward, ""),
    (consistency_reward, " \n"),
    (consistency_reward, "因此"),
]


@pytest.mark.parametrize(("reward", "completion"), MUST_BE_ZERO)
def test_must_be_zero(reward, completion):
    assert reward([completion], answer=["B"], options=[OPTIONS]) == [0.0]


def test_none_is_not_zero():
    completions = [PERFECT, PERFECT, "nothing"]
    assert accuracy_reward(completions, answer=["B", None, None]) == [1.0, None, None]
    assert clinical_reasoning_reward(completions, options=[OPTIONS, None, OPTIONS]) == [1.5, None, 0.0]


@pytest.mark.parametrize(
    ("box", "known", "unknown"),
    [
        ("B", 1, 1),
        ("B: 6", 1, 1),
        ("\\mathbf{B}", 1, 1),
        ("6", 1, 0),  # an option's whole text, where the options are known
        ("B. 7", 0, 1),  # the text of C
        ("B. 6 or C", 0, 0),
        ("6 or 7", 0, 0),
        ("A. 2, B. 6, C. 7", 0, 0),
    ],
)
def test_accuracy_reads_the_box_among_the_options(box, known, unknown):
    columns = {"answer": ["B"], "style": "crpo"}
    text = [f"\\boxed{{{box}}}"]
    assert accuracy_reward(text, options=[{"A": "2", "B": "6", "C": "7"}], **columns) == [known]
    assert accuracy_reward(text, **columns) == accuracy_reward(text, options=[None], **columns) == [unknown]
    with pytest.raises(ValueError, match="'options' has 2 values for 1 completions"):
        accuracy_reward(text, options=[None, None], **columns)


def test_accuracy_letters_must_be_options_and_boxes_in_the_conclusion():
    in_reasoning = grpo("so B", "it is \\boxed{B}")
    assert accuracy_reward([in_reasoning], answer=["B"], style="grpo") == [0.0]
    assert accuracy_reward([in_reasoning, in_reasoning], answer=["B", "B"], style=["grpo", "crpo"]) == [
        0.0,
        1.0,
    ]


# ------------------------------------------------------------------------------------------- TRL's convention


def test_message_lists_and_the_columns_of_trl():
    def ignored(*_):
        raise AssertionError("a reward logged something")

    conversation = [[{"role": "assistant", "content": "hm"}, {"role": "assistant", "content": PERFECT}]]
    conversation += [[{"role": "assistant", "content": [{"type": "text", "text": PERFECT}]}]]
    conversation += [[{"role": "assistant", "content": None}]]  # a bare tool call
    extra = {
        "prompts": ["Fever, wheeze, no crystals in the joint fluid."] * 3,
        "completion_ids": [[1]] * 3,
        "trainer_state": None,
    }
    columns = {
        "answer": ["B"] * 3,
        "options": [OPTIONS] * 3,
        "log_extra": ignored,
        "log_metric": ignored,
        **extra,
    }
    values = [reward(completions=conversation, **columns) for reward in REWARD_SETS["crpo"].functions]
    assert values == [[1.0, 1.0, 0.0], [1.5, 1.5, 0.0], [1.0, 1.0, 0.0]]


def test_options_that_an_arrow_column_pads_with_none():
    padded = OPTIONS | {"E": None}
    assert clinical_reasoning_reward([PERFECT], options=[padded]) == [1.5]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: accuracy_reward([PERFECT], answer=["A", "B"]), "'answer' has 2 values for 1 completions"),
        (lambda: accuracy_reward([PERFECT], answer=["A"], style=[]), "'style' has 0 values"),
        (lambda: accuracy_reward([PERFECT], answer=["A"], style="ppo"), "'ppo' is not known"),
        (lambda: clinical_reasoning_reward([PERFECT], options=[]), "'options' has 0 values"),
        (lambda: consistency_reward([[{"role": "user", "content": "hi"}]]), "no assistant message"),
    ],
)
def test_programming_errors_raise(call, message):
    with pytest.raises(ValueError, match=message):
        call()


texts = st.text(st.characters(exclude_categories=())) | st.lists(
    st.sampled_from(
        ["<dx>", "</dx>", "<think>", "</think>", "<answer>", "</answer>", "fever", "dark urine", "\\boxed{B}"]
    )
    | st.just(PERFECT),
    max_size=8,
).map(" ".join)


@settings(max_examples=300, deadline=None)
@given(texts, st.sampled_from("ABCD"))
def test_ranges(text, answer):
    columns = {"answer": [answer], "options": [OPTIONS]}
    assert accuracy_reward([text], **columns)[0] in (0.0, 1.0)
    assert thinking_format_reward([text], **columns)[0] in (0.0, 1.0, 1.5)
    assert clinical_reasoning_reward([text], **columns)[0] in (0.0, 1.0, 1.5)
    assert 0.0 <= consistency_reward([text], **columns)[0] <= 1.0
    assert official_rule_score(text, answer) <= 12.0


# ------------------------------------------------------------------------------------------------ consistency

SHARES = [
    ("fever and wheeze", 1.0),
    (
        "39.4 °C, CRP ≥ 120 µg, β-blocker ± 5% → naïve Sjögren, ½ × 10³ ♀ “quoted” – …",
        1.0,
    ),  # clinical notation
    ("cafe\u0301", 1.0),  # a combining accent
    ("fever 因此", 1 / 3),  # two characters, two tokens
    ("fever因此", 1 / 3),  # the same without a space
    ("fever также wheeze", 2 / 3),  # one Cyrillic word is one token
    ("fеver", 0.0),  # one Cyrillic look-alike spoils the word
    ("fever الحمى", 1 / 2),
    ("fever 🙂", 1 / 2),
    ("fever ٣", 1 / 2),  # a digit of another script
    ("fever \x00", 1 / 2),  # a control character
    ("fev\x07er ok", 1 / 2),
    ("fever \ud800", 1 / 2),  # a lone surrogate
    ("\u3000\u00a0", 0.0),  # blank
]


@pytest.mark.parametrize(("text", "share"), SHARES)
def test_effective_share(text, share):
    assert effective_share(text) == pytest.approx(share)


# ---------------------------------------------------------------------------------- the official rule, beside

OFFICIAL = [  # text, score: the published behaviour of the released function for the answer C
    (grpo("fever, so \\boxed{C}"), 12.0),  # perfect
    (grpo("fever, so \\boxed{A}"), 2.0),  # wrong letter
    (grpo("\\boxed{C}"), 11.5),  # box only
    ("fever, so \\boxed{C}", 10.5),  # no tags
    (grpo("fever, so \\boxed{C}") + " Thanks.", 10.5),  # trailing text
    (grpo("fever, so \\boxed{C}", "hence \\boxed{C}"), -18.0),  # two boxes, both right
    (grpo("fever, so \\boxed{\\text{C}}"), -3.0),
    (grpo("fever, so \\boxed{C. foo}"), -3.0),
    (grpo("fever, so \\boxed{c}"), -3.0),
    (grpo("fever, so \\boxed C"), -8.5),  # no braces
    (grpo("fever"), 1.5),  # no box
    ("", 0.0),
    (grpo("fever, so \\boxed{C}") + grpo("fever"), 12.0),  # a repeated pair still earns the format
    (grpo("fever, so \\boxed{C}").replace("</think>", "<\\think>"), 12.0),  # repaired before scoring
]


@pytest.mark.parametrize(("text", "score"), OFFICIAL)
def test_official_rule(text, score):
    assert official_rule_score(text, "C") == pytest.approx(score)


def test_official_rule_charges_for_clinical_symbols_and_ours_does_not():
    text = grpo("≥ ° µ β → fever, so \\boxed{C}", "≥ ° µ β →")
    assert 11.5 < official_rule_score(text, "C") < 12.0
    assert total("grpo", text, "C") == 12.0


@pytest.mark.parametrize("answer", ["Ceftriaxone", "d", " D", "(D)", 3, ["D"], "", "DD", "K", True])
def test_an_answer_that_no_completion_could_match_is_refused(answer):
    from clinical_r1.laboratory.variants import gated_consistency_reward

    for reward in (accuracy_reward, gated_consistency_reward):
        with pytest.raises(ValueError, match="expected one letter A to J, or None"):
            reward([r"\boxed{D}"] * 2, answer=["D", answer])
    assert accuracy_reward([r"\boxed{D}"] * 2, answer=["D", None]) == [1.0, None]


def emptying(completions, **columns):
    values = [1.0] * len(completions)
    completions.clear()
    return values


def rewriting(completions, **columns):
    for completion in completions:
        completion[0]["content"] = "\\boxed{A}"
    return [1.0] * len(completions)


def answering(completions, answer, options, completion_ids, **columns):
    answer[:] = ["A"] * len(answer)
    options[0].pop("B")
    completion_ids[0].append(7)
    return [1.0] * len(completions)


@pytest.mark.parametrize("spoiling", [emptying, rewriting, answering])
def test_what_a_reward_does_to_its_inputs_no_other_reward_sees(spoiling):
    def given():
        return {
            "completions": [[{"role": "assistant", "content": "\\boxed{B}"}] for _ in range(2)],
            "answer": ["B", None],
            "options": [{"A": "x", "B": "y"}, {"A": "x", "B": "y"}],
            "completion_ids": [[1, 2], [3]],
        }

    shared = given()
    assert checked(spoiling)(**shared) == [1.0, 1.0]
    assert shared == given()


@pytest.mark.parametrize(
    "options",
    [
        OPTIONS,
        OPTIONS | {"E": None},
        list(OPTIONS.values()),
        tuple(OPTIONS.values()),
        json.dumps(OPTIONS),
        json.dumps(list(OPTIONS.values())),
    ],
)
def test_options_as_a_mapping_a_list_or_json(options):
    from clinical_r1.laboratory.grounded import grounded_faithfulness_reward
    from clinical_r1.laboratory.variants import cited_thinking_reward

    prompts = ["Fever, no crystals in the joint fluid."]
    assert clinical_reasoning_reward([PERFECT], options=[options], prompts=prompts) == [1.5]
    assert accuracy_reward([r"\boxed{Septic arthritis}"], answer=["B"], options=[options]) == [1.0]
    text = grpo("fever and no crystals in the joint fluid favor Septic arthritis. \\boxed{B}")
    assert cited_thinking_reward([text], options=[options], prompts=prompts) == [1.5]
    assert grounded_faithfulness_reward([PERFECT], options=[options], prompts=prompts)[0] > 0


def test_unknown_options_are_none_and_never_zero():
    assert clinical_reasoning_reward([PERFECT] * 2, options=None) == [None, None]
    assert clinical_reasoning_reward([PERFECT] * 2, options=[None, OPTIONS]) == [None, 1.5]
    assert accuracy_reward([PERFECT], answer=["E"], options=None) == [0.0]


@pytest.mark.parametrize(
    "options",
    [
        "many",
        "[[1]]",
        "{}",
        {},
        [],
        5,
        {"1": "Gout"},
        {"AB": "Gout"},
        {"A": 6},
        ["Gout", 6],
        {"A": ""},
        ["x"] * 11,
        "[" * 100_000,
    ],
)
def test_options_of_another_kind_are_refused(options):
    for reward in (clinical_reasoning_reward, accuracy_reward):
        with pytest.raises(ValueError, match="the options of a question are .* expected letter -> text"):
            reward([PERFECT], options=[options], answer=["B"])


def test_a_column_that_is_no_list_and_an_answer_outside_the_options_are_refused():
    for options in (OPTIONS, json.dumps(OPTIONS), 4):
        with pytest.raises(
            ValueError, match="column 'options' is .* expected a list, one value a completion"
        ):
            clinical_reasoning_reward([PERFECT] * 4, options=options)
    with pytest.raises(
        ValueError, match=r"is 'E'; expected one letter of its options \(A, B, C, D\), or None"
    ):
        accuracy_reward([PERFECT], answer=["E"], options=[OPTIONS])


def test_empty_texts_and_a_megabyte():
    columns = {"answer": ["B"] * 3, "options": [OPTIONS] * 3, "prompts": ["", "fever " * 100_000, None]}
    texts = ["", crpo("fever and chills \\boxed{B}", "fever " * 100_000), crpo("", "")]
    assert clinical_reasoning_reward(texts, **columns) == [0.0, 1.0, 0.0]
    assert accuracy_reward(texts, **columns) == [0.0, 1.0, 0.0]


def test_total_reward():
    weights = REWARD_SETS["crpo"].weights
    columns = [[1.0, 0.0, None], [1.5, None, None], [1.0, 0.5, None]]
    assert total_reward(columns, weights) == [12.0, 0.25, None]
    with pytest.raises(ValueError, match="3 reward columns and 2 weights"):
        total_reward(columns, (1, 1))
    with pytest.raises(ValueError, match="shorter"):
        total_reward([[1.0], []], (1, 1))
