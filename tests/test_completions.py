"""The parser: sections, markers, the one boxed letter, MIRAGE records.   pytest tests/test_completions.py"""

import json
import os
import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clinical_r1 import completions
from clinical_r1.completions import PROBLEMS, Completion, parse_completion, parse_mirage, remove_box

S1, S2 = "(System 1: Intuitive)", "(System 2: Analytical)"
DX = f"<dx> {S1} suspect Gout. {S2} fever supports Septic arthritis. </dx>"
END = "<conclusion> fever favors Septic arthritis. \\boxed{B} </conclusion>"


def boxed(box: str) -> str:
    return f"{DX} <conclusion> so {box} </conclusion>"


TABLE = [
    # text, letter, problems
    (f"{DX} {END}", "B", ()),  # perfect
    (f"\n {DX}\n\n{END}\t", "B", ()),  # white space between and around is fine
    (DX + END, "B", ()),  # so is none at all
    # ---- the box
    (f"{DX} <conclusion> Septic arthritis. </conclusion>", None, ("no_box",)),
    (f"{DX} <conclusion> \\boxed{{B}} or \\boxed{{C}} </conclusion>", None, ("several_boxes",)),
    (
        f"{DX} <conclusion> \\boxed{{B}}, yes \\boxed{{B}} </conclusion>",
        None,
        ("several_boxes",),
    ),  # even if they agree
    (f"{DX.replace('fever', chr(92) + 'boxed{B}')} {END}", None, ("several_boxes",)),  # one in each section
    (
        f"{DX.replace('fever', chr(92) + 'boxed{B}')} <conclusion> fever. </conclusion>",
        None,
        ("box_outside_conclusion",),
    ),
    (
        f"{DX} <conclusion> fever. </conclusion> \\boxed{{B}}",
        None,
        ("text_outside", "box_outside_conclusion"),
    ),
    (f"{DX} <conclusion> so \\boxed{{B </conclusion>}}", None, ("text_outside", "bad_box")),  # ends outside
    (boxed("\\boxed{b}"), "B", ("lower_case",)),
    (boxed("\\boxed{\\text{C}}"), "C", ()),
    (boxed("\\boxed{\\textbf{ C }}."), "C", ()),
    (boxed("\\boxed{\\mathrm{\\text{C}}}"), "C", ()),  # wrapped twice
    (boxed("\\boxed { (C). }"), "C", ()),  # space, brackets, period
    (boxed("\\boxed{[J]}"), "J", ()),  # ten options
    (boxed("\\boxed{C. Septic arthritis}"), "C", ("box_text",)),
    (boxed("\\boxed{C: Septic arthritis}"), "C", ("box_text",)),
    (boxed("\\boxed{C) Septic arthritis}"), "C", ("box_text",)),
    (boxed("\\boxed{\\text{c}. Septic arthritis}"), "C", ("lower_case", "box_text")),
    (boxed("\\boxed{\\text{(C) Septic arthritis}}"), "C", ("box_text",)),
    (boxed("\\boxed{A/B}"), None, ("several_letters",)),  # two letters
    (boxed("\\boxed{A, B}"), None, ("several_letters",)),
    (boxed("\\boxed{A. Gout or B. Septic arthritis}"), None, ("several_letters",)),
    (boxed("\\boxed{A: B}"), None, ("several_letters",)),
    (boxed("\\boxed{ABC}"), None, ("bad_box",)),
    (boxed("\\boxed{Gout}"), None, ("bad_box",)),  # G is a letter of Gout, not an answer
    (boxed("\\boxed{e.g. Gout}"), None, ("bad_box",)),  # not option E
    (boxed("\\boxed{Cannot be determined}"), None, ("bad_box",)),
    (boxed("\\boxed{K}"), None, ("bad_box",)),  # beyond J
    (boxed("\\boxed{С}"), None, ("bad_box",)),  # a Cyrillic letter that looks like C
    (boxed("\\boxed{}"), None, ("bad_box",)),
    (boxed("\\boxed{{}}"), None, ("bad_box",)),
    (boxed("\\boxed C"), None, ("bad_box",)),  # no braces
    (boxed("\\boxed{C"), None, ("bad_box",)),  # never closed
    # ---- no conclusion: the box may stand anywhere
    ("\\boxed{B}", "B", ("missing_section",)),  # no tags at all
    ("I think it is B.", None, ("missing_section", "no_box")),
    ("", None, ("missing_section", "no_box")),
    (f"{DX} so \\boxed{{B}}", "B", ("missing_section",)),
    # ---- tags
    (f"Sure! {DX} {END}", "B", ("text_outside",)),
    (f"{DX} so {END}", "B", ("text_outside",)),
    (f"{DX} {END} Thanks.", "B", ("text_outside",)),
    (f"{END} {DX}", "B", ("tag_order",)),  # conclusion first; its box still stands in it
    (
        f"{DX} </conclusion> \\boxed{{B}} <conclusion>",
        "B",
        ("tag_order",),
    ),  # closed before opened: no conclusion to be outside of
    (f"{DX[:-5]} {END}", "B", ("unclosed_tag", "nested_tags")),  # </dx> forgotten
    (f"{DX} {END[:-13]}", "B", ("unclosed_tag",)),  # cut off by the token limit
    (f"{DX[4:]} {END}", "B", ("unopened_tag",)),
    (f"{DX} {DX} {END}", "B", ("repeated_tags",)),
    (f"{DX} {END} {END}", None, ("repeated_tags", "several_boxes")),
    (f"<dx> {DX} </dx> {END}", "B", ("repeated_tags", "nested_tags")),
    (f"{DX[:-5]} {END} </dx>", "B", ("nested_tags",)),  # the conclusion inside the reasoning
    (
        f"{DX[:-5]} {END[:-13]} </dx> </conclusion>",
        "B",
        ("nested_tags",),
    ),  # overlapping; the box still stands in the conclusion
    (f"{DX.upper()} {END}", "B", ("missing_section", "foreign_tag")),  # <DX> is no tag of the style
    (
        f"<think> {S1} a {S2} b </think> <answer> \\boxed{{B}} </answer>",
        "B",
        ("missing_section", "foreign_tag"),
    ),  # the other style
    (f"{DX.replace('fever', 'fever <count>99</count>')} {END}", "B", ("foreign_tag",)),  # a judge's tag
    (f"{DX} {END}<|im_end|>", "B", ("text_outside", "foreign_tag")),  # a chat marker
    (f"{DX.replace('fever', 'BP <90 and HR > 100')} {END}", "B", ()),  # less than is no tag
    # ---- blank parts
    (f"<dx></dx> {END}", "B", ("empty_dx",)),
    (f"<dx> \n </dx> {END}", "B", ("empty_dx",)),
    (f"{DX} <conclusion> </conclusion>", None, ("empty_conclusion", "no_box")),
    (f"<dx> {S1} {S2} fever. </dx> {END}", "B", ("empty_intuitive",)),
    (f"<dx> {S1} Gout. {S2} </dx> {END}", "B", ("empty_analytical",)),
    # ---- markers
    (f"<dx> fever. </dx> {END}", "B", ("no_intuitive_marker", "no_analytical_marker")),
    (f"<dx> {S1} Gout. </dx> {END}", "B", ("no_analytical_marker",)),
    (f"<dx> (System 1) Gout. {S2} fever. </dx> {END}", "B", ("no_intuitive_marker",)),
    (f"<dx> {S2} fever. {S1} Gout. </dx> {END}", "B", ("marker_order",)),
    (f"<dx> {S1} Gout. {S2} fever. {S1} Gout. </dx> {END}", "B", ("repeated_marker",)),
    # ---- odd characters
    (
        f"{DX.replace('fever', chr(0xD800) + chr(0) + chr(27))} {END}",
        "B",
        (),
    ),  # lone surrogate and controls inside
    (f"\ud800{DX} {END}", "B", ("text_outside",)),
    (f"\ufeff{DX} {END}", "B", ("text_outside",)),  # a byte order mark is not white space
    (f"\u3000{DX}\u00a0{END}", "B", ()),  # these are
]


@pytest.mark.parametrize(("text", "letter", "problems"), TABLE)
def test_table(text, letter, problems):
    parsed = parse_completion(text)
    assert (parsed.letter, parsed.problems) == (letter, problems)
    assert parsed.well_formed == completions.FORMAT_PROBLEMS.keys().isdisjoint(problems)


def test_every_problem_is_named_and_met():
    met = {problem for *_, problems in [*TABLE, *BOXES, *MIRAGE] for problem in problems}
    assert met == PROBLEMS.keys()
    kinds = completions.FORMAT_PROBLEMS, completions.LETTER_PROBLEMS, completions.MIRAGE_PROBLEMS
    assert len(PROBLEMS) == sum(map(len, kinds))  # no name twice


# ---- what a box may hold. C is Septic arthritis where options are known.

GOUT = {"A": "Gout", "B": "Lyme arthritis", "C": "Septic arthritis", "D": "Hepatitis B, C. difficile"}
DIGITS = {"A": "2", "B": "6", "C": "6.5", "D": "X"}  # MedQA and MedMCQA have such options
WORDS = {
    "A": "Vitamin A",
    "B": "B cells",
    "C": "Hepatitis A or B",
    "D": "-0.45",
    "E": "0.45",
    "F": "gout",
    "G": "Gout.",
}
SIGNS = {
    "A": "β-blocker",
    "B": "Sjögren syndrome",
    "C": "50 mg",
    "D": "> 4 weeks",
    "E": "95%",
    "F": "1-2 weeks",
}
LATEX = {"A": r"$\beta$-blocker", "B": r"$\alpha$-blocker"}
DOSES = {"A": "5 mg", "B": "0.5 mg", "C": "15 mg", "D": "2-5 mg", "E": "> 5 mg"}
B_VITAMINS = {"A": "Vitamin B1", "B": "Vitamin B12"}
TYPES = {"A": "Type 1 diabetes mellitus", "B": "Type 2 diabetes mellitus", "C": "Diabetes"}
C_ALONE = r"""C| C |C.|(C)|[C]|C)|**C**|__C__|`C`|"C"|'C'.|“C”|$C$|\(C\)|\mathbf{C}|\textrm{C}|\boldsymbol{C}|\text{C}|\text{(C)}
\mathrm {C}|{\bf C}|\bm C|\textbf{\mathsf{C}}|\displaystyle \text{C}\,|\left(C\right)|\mathbf{C}$|\text{C}.\\|Option C
option (C)
answer is: C|\fbox{C}|\{C\}|Answer: C|The correct answer is C.|Answer: Option C|\text{Option }\mathbf{C}|choice C|**Answer:** C
Ｃ|（Ｃ）|Ⓒ|𝐂|Ｃ．"""
C_AND_TEXT = r"""C - Septic arthritis|C – Septic arthritis|C: Septic arthritis|(C) Septic arthritis|C) Septic arthritis
C.Septic arthritis|C\text{. Septic arthritis}|\textbf{C.} Septic arthritis|Option C: Septic arthritis|C (Septic arthritis)
C. septic  ARTHRITIS.|**C.** Septic arthritis|Ｃ．Septic arthritis|C. Sepsis of the joint|C. Arthritis, septic"""
SEVERAL = r"""A. Gout or B|A. no, it is B|A) Gout B) Lyme arthritis C) Septic arthritis|either A or B|A, B|A/B|A & B|A and B
A or B
A) B|A. Gout, (C)|A. Gout, not sure, maybe also B|A. gout or b|\text{A} or \text{B}|Options A and C
A. Gout / C. Septic arthritis
A. Gout - B - Lyme arthritis|B. B and C. C|A. Gout; Option B"""
NONE = r"""E. coli|e.g. Gout|not C|Not C.|C?|C Gout|I'd say Gout|A patient with gout|C-reactive protein|\frac{A}{B}|\cancel{C}
\color{red}{C}|\textbfC|D-dimer|I.V. fluids|A–a gradient|AB||$$|СD|ı|İ|ⓩ|Answer|Option|the answer is|\text{}"""


def each(texts, options, letter, *problems):
    return [(text, one, letter, problems) for text in re.split(r"[|\n]", texts) for one in options]


BOXES = [
    # content of the box, options, letter, problems
    *each(C_ALONE, [None, GOUT], "C"),
    *each("\u00a0C\u00a0|\u2009C|\u200bC|\ufeffC", [None, GOUT], "C"),
    *each(C_AND_TEXT, [None, GOUT], "C", "box_text"),  # the last two are paraphrases: the letter counts
    *each("c|Answer: c", [None, GOUT], "C", "lower_case"),
    # options of one character
    *each("B: 6|B. 6|B) 6|(B) 6|B.6|B - 6", [None, DIGITS], "B", "box_text"),
    *each("D. X", [None, DIGITS], "D", "box_text"),
    *each("B. 6.5|B. 2", [DIGITS], None, "letter_text_conflict"),  # the texts of C and A
    *each("6.5", [DIGITS], "C", "option_text"),
    *each("A: B", [{"A": "B", "B": "C"}], "A", "box_text"),  # an option's text may be a letter
    *each("B", [{"A": "B", "B": "C"}], "B"),  # a letter alone is a letter
    # the rest holds another letter: its own option's text, a name, or another answer
    *each("D. Hepatitis B, C. difficile", [None, GOUT], "D", "box_text"),
    *each("A. Vitamin A|A. vitamin A", [None, WORDS], "A", "box_text"),
    *each("B. B cells|B. E. coli", [None, WORDS], "B", "box_text"),
    *each("A. Vitamin B. complex|A. Influenza A", [None], "A", "box_text"),
    *each("C. Hepatitis A or B", [WORDS], "C", "box_text"),
    *each("C. Hepatitis A or B", [None], None, "several_letters"),  # who knows
    *each(SEVERAL, [None, GOUT], None, "several_letters"),
    *each("A. Gout or septic arthritis|A. Gout, Lyme arthritis", [GOUT], None, "several_letters"),
    *each("A. Septic arthritis|A. Septic arthritis of the knee", [GOUT], None, "letter_text_conflict"),
    *each("D. 0.45", [WORDS], None, "letter_text_conflict"),  # not -0.45
    # the text alone
    *each("Gout|gout.|\\textbf{Gout}", [GOUT], "A", "option_text"),
    *each(
        "C Septic arthritis|C, Septic arthritis|C = Septic arthritis|Septic arthritis (C)|septic arthritis [C].",
        [GOUT],
        "C",
        "box_text",
    ),
    *each("Gout", [WORDS], None, "ambiguous_option"),
    *each("Gouty arthritis|Gout or septic arthritis|Gout (C)", [GOUT], None, "bad_box"),
    # one option, written another way
    *each(
        "beta-blocker|beta blocker|\\beta\\text{-blocker}|β–blocker|$\\beta$-blocker",
        [SIGNS, LATEX],
        "A",
        "option_text",
    ),
    *each("Sjogren syndrome|Sjo\u0308gren syndrome|SJÖGREN SYNDROME", [SIGNS], "B", "option_text"),
    *each("50mg|50\\,\\text{mg}|50 mg", [SIGNS], "C", "option_text"),
    *each(">4 weeks|$>$ 4 weeks|> 4\u00a0weeks", [SIGNS], "D", "option_text"),
    *each("95 %|95\\%|95%", [SIGNS], "E", "option_text"),
    *each("1–2 weeks|1-2 weeks|1\u22122 weeks", [SIGNS], "F", "option_text"),
    *each("5 mg|4 weeks|< 4 weeks|5%|1-2|gamma-blocker|blocker", [SIGNS], None, "bad_box"),
    *each(
        "B. beta-blocker|C. Beta–Blocker|A. Sjogren syndrome|B. 50mg", [SIGNS], None, "letter_text_conflict"
    ),
    *each("Septic arthritis, C|Septic arthritis - C|Septic arthritis: option C", [GOUT], "C", "box_text"),
    *each("A. Type 1 diabetes|A. type 1", [TYPES], "A", "box_text"),  # shortened; C's text is in A's own
    *each(
        "A. Diabetes|B. Type 1 diabetes mellitus|C. Type 2 diabetes mellitus",
        [TYPES],
        None,
        "letter_text_conflict",
    ),
    # whole numbers and words alone: neither a part of one's own option nor of another's
    *each("A. 15 mg or 5 mg|A. 5 mg, 15 mg|A. 5 mg/15 mg", [DOSES], None, "several_letters"),
    *each("B. 5 mg|B. 15 mg|A. 0.5 mg|A. 2-5 mg|C. 5 mg", [DOSES], None, "letter_text_conflict"),
    *each("B. 0.5 mg daily", [DOSES], "B", "box_text"),
    *each("D. 2-5 mg daily|D. 2–5mg", [DOSES], "D", "box_text"),
    *each("E. >5 mg a day", [DOSES], "E", "box_text"),
    *each(
        "A. Vitamin B12 or vitamin B1|A. Vitamin B1 and B12: vitamin B12",
        [B_VITAMINS],
        None,
        "several_letters",
    ),
    # other letters, however they are joined; a letter that its words deny
    *each(
        "A. then B|A. D too|A. alternatively, C|A. second choice: B|A. plus B|A. with D|A. vs. C",
        [GOUT],
        None,
        "several_letters",
    ),
    *each(
        "A. not correct|A: no|A. is not the right answer|A. wrong|A. ruled out", [GOUT], None, "denied_letter"
    ),
    *each("B. No|B. no", [{"A": "Yes", "B": "No"}], "B", "box_text"),
    *each("C. no change", [{"A": "Rises", "C": "No change"}], "C", "box_text"),
    *each("A. Vitamin K", [{"A": "Phylloquinone", "K": "x"}], "A", "box_text"),
    # no letter of an option, and none at all
    *each("J|E. Pseudogout", [GOUT], None, "not_an_option"),
    *each(NONE, [None, GOUT], None, "bad_box"),
]


@pytest.mark.parametrize(("content", "options", "letter", "problems"), BOXES)
def test_boxes(content, options, letter, problems):
    text = f"{DX} <conclusion> so $\\boxed{{{content}}}$. </conclusion>"
    parsed = parse_completion(text, options=options)
    assert (parsed.letter, parsed.problems) == (letter, problems)


def test_options_of_a_mixed_table_may_hold_none():
    """Arrow gives every row of a column all the letters."""
    assert parse_completion("\\boxed{E}", options=GOUT | {"E": None}).letter is None
    assert parse_completion("\\boxed{Gout}", options=GOUT | {"E": None}).letter == "A"


def test_sections_are_read_and_trimmed():
    parsed = parse_completion(f"{DX} {END}")
    assert parsed == Completion(
        letter="B",
        dx=DX[4:-5].strip(),
        intuitive="suspect Gout.",
        analytical="fever supports Septic arthritis.",
        conclusion="fever favors Septic arthritis. \\boxed{B}",
        problems=(),
    )


def test_absent_is_none_and_blank_is_empty():
    assert parse_completion("nothing").dx is None
    assert parse_completion("<dx> </dx>").dx == ""
    assert parse_completion(f"<dx> fever </dx> {END}").analytical is None


GRPO_TABLE = [
    ("<think> fever. </think>\n<answer> Septic arthritis \\boxed{B} </answer>", "B", ()),
    (f"<think> {S1} {S2} </think><answer>\\boxed{{B}}</answer>", "B", ()),  # markers mean nothing here
    (f"{DX} {END}", "B", ("missing_section", "foreign_tag")),  # the other style
    ("<think> \\boxed{B} </think> <answer> B </answer>", None, ("box_outside_conclusion",)),
    ("<think></think> <answer> \\boxed{B} </answer>", "B", ("empty_dx",)),
    ("<think> a </think> <answer> \\boxed{B} </answer> <think> b </think>", "B", ("repeated_tags",)),
]


@pytest.mark.parametrize(("text", "letter", "problems"), GRPO_TABLE)
def test_grpo_table(text, letter, problems):
    parsed = parse_completion(text, "grpo")
    assert (parsed.letter, parsed.problems) == (letter, problems)
    assert parsed.intuitive is None
    assert parsed.analytical is None


def test_unknown_style_is_named():
    with pytest.raises(ValueError, match=r"'ppo'.*crpo.*grpo"):
        parse_completion("", "ppo")


FRAGMENTS = [
    "<dx>",
    "</dx>",
    "<conclusion>",
    "</conclusion>",
    "<think>",
    "</answer>",
    S1,
    S2,
    "\\boxed",
    "{",
    "}",
    "C",
]
FRAGMENTS += [
    "Option ",
    "(",
    ")",
    "*",
    " or B",
    "Septic arthritis",
    "gout",
    "Ｃ",
    "ı",
    " - ",
    ": ",
    "\\mathbf",
    "$",
]
FRAGMENTS += ["\\text{", "\\boxed{B}", " ", "\n", "fever.", "<", ">", "\ud83d", "\x00", "因此", "A. ", "/"]
hostile = st.lists(st.sampled_from(FRAGMENTS), max_size=25).map("".join) | st.text(
    st.characters(exclude_categories=())
)  # every code point, surrogates as well


@settings(max_examples=300, deadline=None)
@given(hostile, st.sampled_from(["crpo", "grpo"]), st.sampled_from([None, GOUT, WORDS]))
def test_never_raises_and_keeps_its_promises(text, style, options):
    parsed = parse_completion(text, style, options)
    assert options is None or parsed.letter is None or parsed.letter in options
    assert PROBLEMS.keys() >= set(parsed.problems)
    assert len(set(parsed.problems)) == len(parsed.problems)
    assert (parsed.letter is None) == any(PROBLEMS[p].endswith("no letter") for p in parsed.problems)
    assert parsed.letter is None or parsed.letter in tuple("ABCDEFGHIJ")
    assert parsed.well_formed <= bool(parsed.dx and parsed.conclusion)
    assert parsed.conclusion is None or parsed.conclusion in text
    remove_box(text)


@pytest.mark.parametrize("unit", ["a", " ", "<", "{", "<dx>", "</dx><dx>", "\\boxed{", "\\text{", "\ud800"])
def test_one_megabyte_of_anything_parses(unit):
    parse_completion(unit * (1_000_000 // len(unit)))
    parse_completion("\\boxed{" + unit * (1_000_000 // len(unit)))


@pytest.mark.parametrize(
    "unit",
    ["a", " ", "A ", "(", "*(", ", ", "or B", "B) C) ", "A/", " - ", "answer is ", "Gout ", "(a", ",(("],
)
def test_a_box_of_a_megabyte_is_read(unit):
    many = unit * (1_000_000 // len(unit))
    assert parse_completion(f"\\boxed{{{many}}}", options=GOUT).letter is None
    parse_completion(f"\\boxed{{A. {many}}}", options=GOUT)


@pytest.mark.parametrize(
    ("text", "rest"),
    [
        ("so \\boxed{B} it is", "so   it is"),
        ("so \\boxed{\\text{B}}.", "so  ."),  # braces nest
        ("so \\boxed B", "so   B"),  # only the command can be taken out
        ("no box", "no box"),
    ],
)
def test_remove_box(text, rest):
    assert remove_box(text) == rest


# ----------------------------------------------------------------------------------------------------- MIRAGE

OPTIONS = {"A": "Gout", "B": "-0.45", "C": "0.45", "D": "None of the above"}
TWINS = {"A": "Gout", "B": "gout.", "C": "Septic arthritis"}


def record(answer) -> str:
    return json.dumps({"step_by_step_thinking": "because", "answer_choice": answer})


MIRAGE = [
    # raw, options, letter, problems
    (record("C"), OPTIONS, "C", ()),
    (record(" c "), OPTIONS, "C", ()),
    (record("(C)"), OPTIONS, "C", ()),
    (record("A. Gout"), OPTIONS, "A", ()),
    (record("A. Gouty arthritis"), OPTIONS, "A", ()),  # a paraphrase after the letter
    (record("gout."), OPTIONS, "A", ("option_text",)),
    (record("-0.45"), OPTIONS, "B", ("option_text",)),  # symbols are not stripped
    (record("None of the above"), OPTIONS, "D", ("option_text",)),
    (record("None of the above"), TWINS, None, ("bad_choice",)),  # not offered
    (record("GOUT"), TWINS, None, ("ambiguous_option",)),
    (record("A. gout"), TWINS, "A", ()),  # the letter decides between twins
    (record("B. 0.45"), OPTIONS, None, ("letter_text_conflict",)),  # B's letter, C's text
    (record("Cannot be determined"), OPTIONS, None, ("bad_choice",)),  # not C
    ('{"answer_choice": "A", "answer_choice": "B"}', OPTIONS, None, ("broken_json",)),  # said twice
    ('{"answer_choice": NaN, "answer_choice": "B"}', OPTIONS, None, ("broken_json",)),
    ('{"a": {"b": 1, "b": 2}, "answer_choice": "B"}', OPTIONS, None, ("broken_json",)),
    (record("All of the statements are true"), OPTIONS, None, ("bad_choice",)),  # not A
    (record("N/A"), OPTIONS, None, ("bad_choice",)),
    (record("A/B"), OPTIONS, None, ("several_letters",)),
    (record("A, B, C, D"), OPTIONS, None, ("several_letters",)),
    (record("Uncertain (either A or B)"), OPTIONS, None, ("several_letters",)),
    (record("A. Gout or C. Septic arthritis"), OPTIONS, None, ("several_letters",)),
    (record("E. Hepatitis E infection"), OPTIONS, None, ("not_an_option",)),
    (record(""), OPTIONS, None, ("no_answer_choice",)),
    (record([]), OPTIONS, None, ("no_answer_choice",)),
    (record(None), OPTIONS, None, ("no_answer_choice",)),
    ('["A"]', OPTIONS, None, ("no_answer_choice",)),  # not an object
    ("{}", OPTIONS, None, ("no_answer_choice",)),
    (
        '{"step_by_step_thinking": "the "slapped cheek"", "answer_choice": "B"}',
        OPTIONS,
        None,
        ("broken_json",),
    ),
    ("The response was filtered due to the prompt triggering a policy", OPTIONS, None, ("broken_json",)),
    ("'content'", OPTIONS, None, ("broken_json",)),
    ("[" * 100_000, OPTIONS, None, ("broken_json",)),  # deeper than the decoder goes
    (None, OPTIONS, None, ("not_text",)),
]


@pytest.mark.parametrize(("raw", "options", "letter", "problems"), MIRAGE)
def test_mirage_table(raw, options, letter, problems):
    parsed = parse_mirage(raw, options)
    assert (parsed.letter, parsed.problems) == (letter, problems)
    assert not parsed.well_formed


def test_mirage_keeps_reasoning_and_answer():
    parsed = parse_mirage(record("A. Gout"), OPTIONS)
    assert (parsed.analytical, parsed.conclusion) == ("because", "A. Gout")


def real_questions(data: Path) -> dict[str, tuple[dict, str]]:
    """MIRAGE id -> (options, answer), from the official raw files."""
    questions = {}
    with open(data / "medqa/test_4opt_metamap.jsonl", encoding="utf-8") as lines:
        for number, row in enumerate(map(json.loads, lines)):
            questions[f"test_{number:04d}"] = row["options"], row["answer_idx"]
    with open(data / "medmcqa/dev.json", encoding="utf-8") as lines:
        for row in map(json.loads, lines):
            options = {letter: row[f"op{letter.lower()}"] for letter in "ABCD"}
            questions[f"dev_{row['id']}"] = options, "ABCD"[row["cop"] - 1]  # 1-based in the official file
    return questions


def first_letter(raw) -> str | None:
    """What a naive parser reads from an intact record: the first character. None if it is not intact."""
    try:
        answer = json.loads(raw)["answer_choice"]
    except (KeyError, TypeError, ValueError):
        return None
    return answer.strip()[:1]


@pytest.mark.skipif("CLINICAL_R1_DATA" not in os.environ, reason="needs the real files: set CLINICAL_R1_DATA")
@pytest.mark.parametrize(
    ("name", "naive", "accuracy", "coverage"),
    [  # naive: right / intact rows; accuracy: right / all rows; coverage: rows with a letter / all rows
        ("medqa_gpt-35-turbo-16k", 0.648, 0.640, 0.971),
        ("medqa_gpt-4-32k", 0.837, 0.829, 0.978),
        ("medmcqa_gpt-35-turbo-16k", 0.540, 0.527, 0.927),
        ("medmcqa_gpt-4-32k", 0.689, 0.679, 0.946),
    ],
)
def test_real_chains(name, naive, accuracy, coverage):
    data = Path(os.environ["CLINICAL_R1_DATA"])
    questions = real_questions(data)
    with open(data / f"real_completions/mirage_cot_{name}.jsonl", encoding="utf-8") as lines:
        rows = [(row["raw"], *questions[row["id"]]) for row in map(json.loads, lines)]
    first = [(first_letter(raw), answer) for raw, _, answer in rows]
    json_rows = [(letter, answer) for letter, answer in first if letter is not None]
    assert sum(letter == answer for letter, answer in json_rows) / len(json_rows) == pytest.approx(
        naive, abs=5e-4
    )

    letters = [(parse_mirage(raw, options).letter, answer) for raw, options, answer in rows]
    assert sum(letter == answer for letter, answer in letters) / len(rows) == pytest.approx(
        accuracy, abs=5e-4
    )
    assert sum(letter is not None for letter, _ in letters) / len(rows) == pytest.approx(coverage, abs=5e-4)


@pytest.mark.skipif("CLINICAL_R1_DATA" not in os.environ, reason="needs the real files: set CLINICAL_R1_DATA")
def test_real_options_are_read_whole():
    """ "C. its text" is C, and its text alone is C or ambiguous, for every option of MedQA and MedMCQA."""
    for options, _ in real_questions(Path(os.environ["CLINICAL_R1_DATA"])).values():
        for letter, text in options.items():
            assert parse_completion(f"\\boxed{{{letter}. {text}}}", options=options).letter == letter, (
                letter,
                options,
            )
            alone = parse_completion(f"\\boxed{{{text}}}", options=options)
            assert alone.letter == letter or alone.problems or text in options, (letter, options, alone)
