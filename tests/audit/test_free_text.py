"""The reader of texts without a box: statements, negations, changes of mind.   pytest tests/audit/test_free_text.py"""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pages import one_line, page

from clinical_r1.audit.free_text import free_text_agreement
from clinical_r1.completions import PROBLEMS, parse_completion
from clinical_r1.engines import free_text
from clinical_r1.engines.free_text import read_free_text
from clinical_r1.intervals import wilson_interval

OPTIONS = {"A": "Gout", "B": "16", "C": "Septic arthritis", "D": "Arthritis"}

TEXTS = [
    # text, letter, problems besides missing_section
    ("Let us think. 7 + 9 = 16. Therefore, the answer is B) 16.", "B", ["free_text"]),
    ("Fever and pus.\nAnswer: C", "C", ["free_text"]),
    ("**Answer: (D)**", "D", ["free_text"]),
    ("**Answer:** C. Septic arthritis", "C", ["free_text"]),
    ('{"reasoning": "pus", "answer": "C"}', "C", ["free_text"]),
    ("The correct option is B. This is because A and D are rare.", "B", ["free_text"]),
    ("So option C is the correct answer.", "C", ["free_text"]),
    ("C. Septic arthritis is therefore the best choice.", "C", ["free_text"]),
    ("The answer is c.", "C", ["free_text"]),
    ("The answer is most likely C, not A.", "C", ["free_text"]),
    ("I would go with option C.", "C", ["free_text"]),
    ("Pus in a joint.\n\nC", "C", ["free_text"]),
    ("Pus in a joint.\n(C) Septic arthritis", "C", ["free_text"]),
    ("The final answer is Septic arthritis.", "C", ["option_text", "free_text"]),
    ("Pus in a joint.\nseptic arthritis", "C", ["option_text", "free_text"]),
    ("Crystals are seen. Therefore, the most likely diagnosis is gout.", "A", ["option_text", "free_text"]),
    # a change of mind: the last one counts
    ("The answer is A. Wait, there are no crystals. The answer is C.", "C", ["free_text", "changed_answer"]),
    ("The answer is C. So the answer is C.", "C", ["free_text"]),
    ("The answer is A.\nOn reflection the answer is A or C.", None, ["several_letters", "no_statement"]),
    ("The answer is C. The answer is not A.", "C", ["free_text"]),
    # negations and what states nothing
    ("The answer is not B.", None, ["no_statement"]),
    ("B is not the correct answer.", None, ["no_statement"]),
    ("The incorrect answer is B.", None, ["no_statement"]),
    ("Therefore it is not gout.", None, ["no_statement"]),
    ("Option B is incorrect. Option C is right about fever.", None, ["no_statement"]),
    ("The answer depends. A loop diuretic is a good idea.", None, ["no_statement"]),
    ("Therefore the diagnosis is arthritis.", None, ["no_statement"]),  # a part of option C's name
    ("Thus gout and septic arthritis are most likely.", None, ["several_letters", "no_statement"]),
    ("A. Gout\nB. 16\nC. Septic arthritis\nD. Arthritis", None, ["no_statement"]),  # the options again
    ("The answer is F.", None, ["not_an_option", "no_statement"]),
    ("The answer is C. Gout.", None, ["letter_text_conflict", "no_statement"]),
    ("", None, ["no_statement"]),
    # a box is read as everywhere
    ("The answer is A, so \\boxed{C}.", "C", []),
    ("\\boxed{A} or \\boxed{C}. The answer is C.", None, ["several_boxes"]),
]


@pytest.mark.parametrize(("text", "letter", "problems"), TEXTS)
def test_texts(text, letter, problems):
    read = read_free_text(text, options=OPTIONS)
    assert (read.letter, list(read.problems)) == (letter, ["missing_section", *problems])


def test_without_options_letters_alone_are_read():
    assert read_free_text("The answer is B) 16.").letter == "B"
    assert read_free_text("The final answer is Septic arthritis.").letter is None


def test_the_parser_of_training_reads_none_of_it():
    assert [
        text for text, *_ in TEXTS if "boxed" not in text and parse_completion(text, options=OPTIONS).letter
    ] == []


def test_sections_are_kept():
    text = "<think> no crystals </think> <answer> The answer is C. </answer>"
    read = read_free_text(text, "grpo", OPTIONS)
    assert (read.letter, read.dx, read.problems) == ("C", "no crystals", ("free_text",)) and read.well_formed


PIECES = [
    "the answer is ",
    "Answer: ",
    "A",
    "B. ",
    " or ",
    "not ",
    "Gout",
    "\n",
    ".",
    "Option ",
    " is the correct answer",
    "C)",
    "\\boxed{",
    "ı",
    "16",
]


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.sampled_from(PIECES), max_size=20).map("".join) | st.text(), st.sampled_from([None, OPTIONS])
)
def test_never_raises_and_names_every_problem(text, options):
    read = read_free_text(text, options=options)
    assert set(read.problems) <= PROBLEMS.keys() | free_text.PROBLEMS.keys()
    assert read.letter is None or read.letter in (options or "ABCDEFGHIJ")
    assert len(set(read.problems)) == len(read.problems)


@pytest.mark.parametrize(
    "unit",
    ["answer ", "answer is A. ", "A is the best ", "A. A. ", "\n", "a", " ", "Gout ", "not the answer: "],
)
def test_a_megabyte_is_read(unit):
    read_free_text(unit * (1_000_000 // len(unit)), options=OPTIONS)


def test_agreement_with_what_the_models_answered(data_dir):
    table = free_text_agreement(data_dir).set_index(["benchmark", "model"])
    whole = table.loc[("all", "all")]
    assert whole[["n", "read", "agree"]].tolist() == [10_319, 3_842, 3_830]
    assert whole[["read_share", "agreement", "ci_low", "ci_high"]].tolist() == [37.23, 99.69, 99.45, 99.82]
    sentence = "10,319 real chains of GPT-3.5 and GPT-4 it finds a letter in 3,842, for a chain need not name its answer; 3,830"
    assert sentence in one_line(page("docs/trust.md")) and "99.69 % [99.45, 99.82]" in page("docs/trust.md")
    assert (table["ci_low"] > 96).all() and table["n"].iloc[:-1].sum() == whole["n"]


def test_the_interval_of_the_chains_that_are_not_at_hand():
    low, high = wilson_interval(1_065, 1_073)
    assert f"1,073 letters, of which 1,065 agreed with the recorded answers, {1_065 / 1_073:.1%}".replace(
        "%", " %"
    ) in page("docs/trust.md")
    assert f"[{100 * low:.1f}, {100 * high:.1f}]" in page("docs/trust.md")


def test_agreement_without_files_is_empty(monkeypatch):
    monkeypatch.delenv("CLINICAL_R1_DATA", raising=False)
    assert free_text_agreement().empty
