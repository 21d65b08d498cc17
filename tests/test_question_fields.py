"""The reader for other people's layouts: placed rightly, or refused with the row's number."""

import json

import pytest

from clinical_r1.questions import Question, read_fields

TEXTS = ["Gout", "Lupus", "Sepsis"]
LETTERED = {"opa": "Gout", "opb": "Lupus", "opc": "Sepsis", "opd": None}


@pytest.fixture
def read(tmp_path):
    def written(*rows, **fields):
        path = tmp_path / "mine.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        return read_fields(path, "mine", **fields)

    return written


@pytest.mark.parametrize(
    "row",
    [
        {"question": "?", "options": TEXTS, "answer": "B"},
        {"question": "?", "options": TEXTS, "answer": "b"},
        {"question": "?", "options": TEXTS, "answer": " lupus "},
        {"stem": "?", "choices": dict(zip("ABC", TEXTS, strict=True)), "answer_idx": "B", "answer": "Lupus"},
        {"sent1": "?", "choices": dict(zip("abc", TEXTS, strict=True)), "label": "B"},
        {"question": "?", "options": dict(zip("123", TEXTS, strict=True)), "answer": 2},
        {"question": "?", "options": dict(zip("012", TEXTS, strict=True)), "answer": "1"},
        {"question": "?", **LETTERED, "answer": "Lupus"},
        {"question": "?", "choices": {"text": TEXTS, "label": ["A", "B", "C"]}, "answerKey": "B"},
        {
            "question": "?",
            "options": [{"key": k, "value": v} for k, v in zip("ABC", TEXTS, strict=True)],
            "answer": "B",
        },
    ],
)
def test_common_layouts(read, row):
    (question,) = read(row | {"id": 7})
    assert (question.id, question.stem, question.answer) == ("7", "?", "B")
    assert question.options == dict(zip("ABC", TEXTS, strict=True))


def test_an_index_is_counted_from_what_is_said(read):
    rows = [{"question": f"{i}?", "options": TEXTS, "answer": i} for i in (0, 1, 2)]
    assert [q.answer for q in read(*rows, index_base=0)] == ["A", "B", "C"]
    rows = [{"question": f"{i}?", **LETTERED, "cop": i} for i in (1, 2, 3)]
    assert [q.answer for q in read(*rows, index_base=1)] == ["A", "B", "C"]
    with pytest.raises(ValueError, match="whether the first option is 0 or 1; pass index_base"):
        read(*rows)
    with pytest.raises(ValueError, match="row 4 has the answer 0 counted from 1"):
        read(*rows, {"question": "?", **LETTERED, "cop": 0}, index_base=1)
    for base in ("1", 2, True):
        with pytest.raises(ValueError, match="index_base is"):
            read(*rows, index_base=base)
    with pytest.raises(ValueError, match="reads as A and as C|reads as C and as A|reads as B and as C"):
        read({"question": "?", "options": ["3", "1", "2"], "answer": "2"}, index_base=1)


@pytest.mark.parametrize("labels", ["1234", "0123"])
def test_numbered_options_are_named_by_their_numbers_alone(read, labels):
    options = dict(zip(labels, "wxyz", strict=True))
    assert read({"question": "?", "options": options, "answer": int(labels[2])})[0].answer == "C"
    outside = 0 if labels[0] == "1" else 4
    with pytest.raises(ValueError, match=f"has the answer {outside}, and options labelled"):
        read({"question": "?", "options": options, "answer": outside})


def test_without_an_id_the_place_names(read):
    rows = [{"question": "?", "options": TEXTS, "answer": "A"}] * 2
    assert [q.id for q in read(*rows, split="rl")] == ["mine-rl-00000", "mine-rl-00001"]
    assert (
        read({"q": "?", "o": TEXTS, "a": "C", "k": "x"}, stem="q", options="o", answer="a", id="k")[0].id
        == "x"
    )


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"options": TEXTS, "answer": "A"}, "row 1 has no stem: its fields are options, answer"),
        ({"question": "?", "answer": "A"}, "row 1 has no options"),
        ({"question": "?", "options": TEXTS}, "row 1 has no answer"),
        ({"question": "?", "options": TEXTS, "answer": "D"}, "answer 'D', which names no option"),
        ({"question": "?", "options": TEXTS, "answer": None}, "answer None, which names no option"),
        ({"question": "?", "options": TEXTS, "answer": "Flu"}, "which names no option"),
        ({"question": "?", "options": ["B", "x", "A"], "answer": "B"}, "which reads as A and as B"),
        ({"question": "?", "options": ["x", "X"], "answer": "x"}, "the text of several options"),
        ({"question": "?", "options": ["1", "2", "3"], "answer": 2}, "whether the first option is 0 or 1"),
        (
            {"question": "?", "options": {"A": "Gout", "C": "Lupus"}, "answer": "C"},
            "options labelled A, C; expected A, B",
        ),
        (
            {"question": "?", "opa": "Gout", "opb": None, "opc": "Lupus", "answer": "C"},
            "has no opb before a later option",
        ),
        (
            {"question": "?", "options": TEXTS, "opa": "x", "opb": "y", "answer": "A"},
            "has options and opa; say which",
        ),
        (
            {"question": "?", "options": TEXTS, "choices": ["Flu", "Cold"], "answer": "A"},
            "options that differ in options, choices",
        ),
        (
            {"question": "?", "choices": TEXTS, "endings": TEXTS[::-1], "answer": "A"},
            "options that differ in choices, endings",
        ),
        (
            {
                "question": "?",
                "options": TEXTS,
                "choices": dict(zip("ABC", TEXTS, strict=False)),
                "answer": "A",
            },
            "options that differ in options, choices; name the right field with options=",
        ),
        (
            {"question": "?", "options": {"text": ["Gout", "Flu"], "label": ["A"]}, "answer": "A"},
            "1 labels for 2 options; expected one each",
        ),
        (
            {"question": "?", "options": {"text": ["Gout"], "label": ["A", "B"]}, "answer": "A"},
            "2 labels for 1 options; expected one each",
        ),
        (
            {"question": "?", "options": TEXTS, "answer": "Gout", "answer_idx": "B"},
            "answers that differ, B and A",
        ),
        (
            {"question": "?", "options": ["B. Gout", "A. Lupus"], "answer": "B"},
            "has the option 'B. Gout' at place A",
        ),
        (
            {"question": "?", "options": TEXTS, "answer": "B", "label": "Sepsis"},
            "answers that differ, B and C",
        ),
        (
            {"question": "?", "options": [{"text": "x"}, {"text": "y"}], "answer": "A"},
            "expected a label and a text",
        ),
        ({"question": "?", "options": TEXTS[:1], "answer": "A"}, "has 1 options; expected 2 to 10"),
        ({"question": "?", "options": list("abcdefghijk"), "answer": "A"}, "has 11 options"),
        ({"question": "?", "options": "Gout", "answer": "A"}, "has options 'Gout'"),
        ({"question": " ", "options": TEXTS, "answer": "A"}, "row 1 is no question"),
        ({"question": "?", "options": {"text": "xy", "label": "AB"}, "answer": "A"}, "a list of texts"),
        ({"question": "?", "options": {"text": 2, "label": ["A"]}, "answer": "A"}, "a list of texts"),
        ({"question": "\ud800?", "options": TEXTS, "answer": "A"}, "stem holds half a surrogate pair"),
        ({"question": "?", "options": ["x", "y\udfff"], "answer": "A"}, "B holds half a surrogate pair"),
        (3, "line 1 is not an object but a int"),
        ([3], "row 1 is a int; expected an object"),
    ],
)
def test_what_cannot_be_placed_is_named_with_its_row(read, row, message):
    with pytest.raises(ValueError, match=message.replace("[", r"\[")):
        read(row)


def test_a_dict_out_of_order_is_put_in_order(read):
    (question,) = read(
        {"question": "?", "options": {"C": "Sepsis", "A": "Gout", "B": "Lupus"}, "answer": "B"}
    )
    assert list(question.options.values()) == TEXTS and question.answer == "B"


@pytest.mark.parametrize("text", ["\ufeff{row}\n", "{row}\r\n", "\n{row}\n\n"])
def test_marks_and_blank_lines_are_no_questions(tmp_path, text):
    row = json.dumps({"question": "one\u2028line", "options": TEXTS, "answer": "A"}, ensure_ascii=False)
    path = tmp_path / "mine.jsonl"
    path.write_bytes(text.replace("{row}", row).encode())
    (question,) = read_fields(path, "mine")
    assert (question.stem, question.id) == ("one\u2028line", "mine-test-00000")
    assert question.meta["line"] == 1 + text.startswith("\n")


@pytest.mark.parametrize(
    "text",
    [
        "{ 1}",
        '{"options": {"A": "x", "A": "y"}}',
        '{"a": NaN}',
        '{"a":' + "9" * 5000 + "}",
        '{"a":' + "[" * 100_000,
        '{"a":' + "[" * 70 + "]" * 70 + "}",
    ],
)
def test_what_is_no_json_line_is_said(tmp_path, text):
    path = tmp_path / "mine.jsonl"
    path.write_text(text + "\n")
    with pytest.raises(ValueError, match=r"line 1 is not JSON .*expected one object a line"):
        read_fields(path, "mine")


def test_an_id_twice_and_an_empty_file_are_refused(read):
    row = {"id": "a", "question": "?", "options": TEXTS, "answer": "A"}
    with pytest.raises(ValueError, match="row 2 has the id 'a' of row 1"):
        read(row, row)
    with pytest.raises(ValueError, match="holds no row"):
        read()


def test_one_json_list_is_read_too(tmp_path):
    path = tmp_path / "mine.json"
    path.write_text(json.dumps([{"question": "?", "options": TEXTS, "answer": "A"}], indent=2))
    assert len(read_fields(path, "mine")) == 1
    path.write_text("[3]")
    with pytest.raises(ValueError, match="row 1 is a int"):
        read_fields(path, "mine")
    path.write_text("[1,")
    with pytest.raises(ValueError, match="starts like a JSON list and is none"):
        read_fields(path, "mine")


def test_options_that_stand_in_two_fields_alike_or_in_the_named_one_are_read(read):
    row = {"question": "?", "options": TEXTS, "choices": TEXTS, "answer": "B"}
    assert read(row)[0].options["B"] == TEXTS[1]
    row |= {"choices": ["Flu", "Cold"]}
    assert [read(row, options=name)[0].options["B"] for name in ("options", "choices")] == [TEXTS[1], "Cold"]


@pytest.mark.parametrize("meta", [None, [], "x"])
def test_a_question_whose_meta_is_no_dict_is_refused(meta):
    with pytest.raises(ValueError, match="meta is .* expected a dict"):
        Question("q", "mine", "test", "?", {"A": "Gout", "B": "Flu"}, "A", meta)
