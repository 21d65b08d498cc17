"""Public answers of real models: denominators, joins by id, refused comparisons, and what naive parsers read.

Run: pytest tests/audit/test_public_answers.py   (the last part reads the files that CLINICAL_R1_DATA names)
"""

import json
from dataclasses import replace

import pandas as pd
import pytest

from clinical_r1.audit import public_answers
from clinical_r1.files import write_jsonl

WORDS = ("SECRETSTEM", "SECRETOPTION", "SECRETTHOUGHT")  # no frame may show them


def medqa(number, answer):
    options = {letter: f"{WORDS[1]} {letter} {number}" for letter in "ABCD"}
    row = {"question": f"{WORDS[0]} {number}", "options": options, "meta_info": "step1"}
    return row | {"answer": options[answer], "answer_idx": answer}


def medmcqa(number, cop, choice="single"):
    row = {"id": f"m{number}", "question": f"{WORDS[0]} {number}", "cop": cop, "choice_type": choice}
    return row | {f"op{letter}": f"{WORDS[1]} {letter} {number}" for letter in "abcd"}


def chain(id, answer):
    if isinstance(answer, dict):
        return {"id": id, "raw": answer["raw"]}
    return {"id": id, "raw": json.dumps({"step_by_step_thinking": WORDS[2], "answer_choice": answer})}


def write_chains(folder, benchmark, model, answers):
    names = [f"test_{n:04d}" if benchmark == "medqa" else f"dev_m{n}" for n in range(len(answers))]
    rows = [chain(name, answer) for name, answer in zip(names, answers, strict=True) if answer is not None]
    write_jsonl(folder / "real_completions" / f"mirage_cot_{benchmark}_{model}.jsonl", rows)


def write_letters(folder, benchmark, rows):
    path = folder / "real_completions" / f"medagents_zeroshot_letters_{benchmark}.csv"
    pd.DataFrame(rows).to_csv(path, index=False)


@pytest.fixture
def source(tmp_path):
    """Four questions of each kind; MedMCQA's last has several right options."""
    write_jsonl(tmp_path / "medqa" / "test_4opt_metamap.jsonl", [medqa(n, "ABCD"[n]) for n in range(4)])
    items = [medmcqa(n, n + 1, "multi" if n == 3 else "single") for n in range(4)]
    write_jsonl(tmp_path / "medmcqa" / "dev.json", items)
    broken = {"raw": f"Blocked by a filter {WORDS[2]}"}
    write_chains(tmp_path, "medqa", "gpt-4-32k", ["A", "B. yes", "C", "None of the above"])
    write_chains(tmp_path, "medqa", "gpt-35-turbo-16k", ["A", "Cannot be determined", "D", broken])
    write_chains(tmp_path, "medmcqa", "gpt-4-32k", ["A", None, "C", "D"])  # one row is lacking
    write_letters(
        tmp_path,
        "medmcqa",
        [dict(realidx=f"m{n}", gold="ABC"[n], one="ABC"[n], other=["A", "", "X"][n]) for n in range(3)],
    )
    return tmp_path


def line(table, model, benchmark="medmcqa", items=None):
    chosen = table[(table["model"] == model) & (table["benchmark"] == benchmark)]
    chosen = chosen if items is None else chosen[chosen["items"] == items]
    assert len(chosen) == 1
    return chosen.iloc[0]


# --- accuracy


def test_a_missing_row_is_wrong_and_counted(source):
    table = public_answers.real_accuracy_table(source)
    every = line(table, "gpt-4-32k", items="all")
    assert (every["n"], every["answered"], every["correct"]) == (4, 3, 3)
    assert (every["accuracy"], every["coverage"], every["answered_only"]) == (75, 75, 100)
    single = line(table, "gpt-4-32k", items="single answer")
    assert (single["n"], single["answered"], single["correct"]) == (3, 2, 2)


def test_letters_cover_single_answers_only_and_empty_or_foreign_cells_are_wrong(source):
    table = public_answers.real_accuracy_table(source)
    assert line(table, "one")["accuracy"] == 100 and line(table, "one")["items"] == "single answer"
    other = line(table, "other")
    assert (other["n"], other["answered"], other["correct"]) == (3, 2, 1)  # the empty cell is no row
    assert other["coverage"] == pytest.approx(33.33) and other["answered_only"] == 100  # X is no option


def test_unreadable_answers_are_wrong(source):
    row = line(public_answers.real_accuracy_table(source), "gpt-35-turbo-16k", "medqa-4")
    assert (row["n"], row["correct"], row["accuracy"], row["coverage"]) == (4, 1, 25, 50)
    assert row["ci_low"] < 25 < row["ci_high"]


def test_free_text_without_options_is_reported_and_not_scored(source):
    folder = source / "real_completions"
    rows = [{"input": WORDS[0], "actual": WORDS[1], "model_output": WORDS[2], "llm_score": 5}]
    pd.DataFrame(rows).to_csv(folder / "qwen25_3b_model_predictions_PubMedQA.csv", index=False)
    rows[0]["instructions"] = "Answer from the context"
    pd.DataFrame(rows).to_csv(folder / "qwen25_3b_model_predictions_bigbio_med_qa.csv", index=False)
    table = public_answers.real_accuracy_table(source).tail(2)
    assert table["accuracy"].isna().all() and table["coverage"].eq(0).all()
    assert table["benchmark"].tolist() == ["medqa", "pubmedqa"]  # by content: the names are swapped
    assert table["reason"].str.contains("no options, no key letter").all()


SPOILT = {
    "repeats an id": (lambda rows: rows + rows[:1], "1 of its 4 rows repeat an id .*'dev_m0'"),
    "another benchmark's": (lambda rows: rows + [chain("test_0000", "A")], "name no question .*'test_0000'"),
    "no id": (lambda rows: rows + [{"raw": "x"}], "name no question .*'None'"),
}


@pytest.mark.parametrize("fault", SPOILT)
def test_chains_of_other_questions_are_refused(source, fault):
    spoil, message = SPOILT[fault]
    path = source / "real_completions" / "mirage_cot_medmcqa_gpt-4-32k.jsonl"
    write_jsonl(path, spoil([json.loads(row) for row in path.read_text().splitlines()]))
    with pytest.raises(ValueError, match=message):
        public_answers.read_answers(source)


FOREIGN = {
    "medagents_zeroshot_letters_medmcqa.csv": [
        ("id;gold\nm0;A\n", "expected some with"),
        ("realidx,gold,one\nm0,A\n", "line 2 has 2 cells, the header 3"),
        ("realidx,gold,one\nm0,B,B\n", "1 of 1 keys differ"),
        ("<html>404</html>", "is a web page"),
        ("", "is empty"),
    ],
    "mirage_cot_medmcqa_gpt-4-32k.jsonl": [
        ("realidx,gold\nm0,A\n", "is a CSV table"),
        ('{"id": "test_0000", "raw": "x"}\n', "name no question"),
        ("", "is empty"),
    ],
    "qwen25_3b_model_predictions_mine.csv": [
        ("id,text\n1,x\n", "expected some with"),
        ("PAR1\x15", "is a Parquet table"),
        ("input,actual,model_output\n", "has 0 rows"),
    ],
}


@pytest.mark.parametrize(
    ("name", "text", "message"), [(n, *case) for n, cases in FOREIGN.items() for case in cases]
)
def test_one_foreign_file_is_a_row_with_its_reason_and_hides_no_other(source, name, text, message):
    before = public_answers.real_accuracy_table(source)
    (source / "real_completions" / name).write_text(text)
    table = public_answers.real_accuracy_table(source)
    told = line(table.assign(benchmark="x"), name, "x")
    assert message in told["reason"] and pd.isna(told["accuracy"]) and pd.isna(told["n"])
    kept = table[table["model"] != name]
    lost = {"meda": ["one", "other"], "mira": ["gpt-4-32k"], "qwen": []}[name[:4]]
    expected = before[~((before["benchmark"] == "medmcqa") & before["model"].isin(lost))]
    pd.testing.assert_frame_equal(
        kept.reset_index(drop=True), expected.reset_index(drop=True), check_dtype=False
    )


def test_letters_with_another_key_are_refused(source):
    write_letters(source, "medmcqa", [{"realidx": "m0", "gold": "B", "one": "B"}])
    with pytest.raises(ValueError, match="1 of 1 keys differ from medmcqa's"):
        public_answers.read_answers(source)
    write_letters(
        source, "medmcqa", [{"realidx": "m3", "gold": "D", "one": "D"}]
    )  # has several right options
    with pytest.raises(ValueError, match="1 of its 1 rows name no question .*'m3'"):
        public_answers.read_answers(source)
    write_letters(source, "medmcqa", [{"id": "m0", "gold": "A"}])
    with pytest.raises(ValueError, match="expected some with"):
        public_answers.read_answers(source)


def test_what_is_not_there_has_no_row(source, tmp_path_factory, monkeypatch):
    (source / "medqa" / "test_4opt_metamap.jsonl").unlink()
    (source / "real_completions" / "medagents_zeroshot_letters_medmcqa.csv").unlink()
    assert set(public_answers.real_accuracy_table(source)["model"]) == {"gpt-4-32k"}
    monkeypatch.delenv("CLINICAL_R1_DATA", raising=False)
    for empty in (None, tmp_path_factory.mktemp("empty")):
        assert (
            public_answers.real_accuracy_table(empty).empty
            and public_answers.extraction_disagreements(empty).empty
        )
        assert public_answers.real_comparison(empty).empty
        assert public_answers.extraction_agreement(empty).empty


@pytest.mark.parametrize(
    "table",
    [
        public_answers.real_accuracy_table,
        public_answers.extraction_disagreements,
        public_answers.extraction_agreement,
    ],
)
def test_a_folder_that_does_not_exist_is_an_error(table, tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere does not exist"):
        table(tmp_path / "nowhere")


# --- comparison


def answers(right, **changes):
    gold = {f"q{n}": "A" for n in range(len(right))}
    letters = {id: "A" if yes else "B" for id, yes in zip(gold, right, strict=True)}
    made = public_answers.Answers(
        "medqa-4", "model", public_answers.CHAINS, 4, public_answers.ALL, letters, gold
    )
    return replace(made, **changes)


def test_paired_counts_by_hand():
    a, b = answers([1, 1, 1, 0, 0, 1]), answers([1, 0, 0, 1, 0, 0], model="other")
    b = replace(b, gold=dict(reversed(b.gold.items())))  # pairs join by id, not by order
    row = public_answers.compare_answers(a, b)
    assert [row[key] for key in ("both_right", "only_model", "only_against", "neither")] == [1, 3, 1, 1]
    assert (
        row["difference"] == pytest.approx(100 * 2 / 6)
        and row["ci_low"] <= row["difference"] <= row["ci_high"]
    )
    assert row["p"] == pytest.approx(0.625)  # two-sided sign test, 3 of 4
    assert row["n"] == 6
    assert public_answers.compare_answers(a, b, tests=3)["mde_holm"] > row["mde_holm"]


UNLIKE = {
    "options": ({"options": 5, "benchmark": "medqa"}, "4 options.*against.*5 options"),
    "items": (
        {"gold": {"q0": "A"}, "items": public_answers.SINGLE},
        "6 items: all.*against.*1 items: single answer",
    ),
    "prompt": ({"prompt": public_answers.LETTERS_ONLY}, "chain, then JSON.*against.*zero-shot letter"),
    "keys": ({"gold": {f"q{n}": "B" for n in range(6)}}, "expected the same questions"),
}


@pytest.mark.parametrize("what", UNLIKE)
def test_unlike_protocols_are_refused_naming_both(what):
    changes, message = UNLIKE[what]
    with pytest.raises(ValueError, match=message):
        public_answers.compare_answers(answers([1] * 6), answers([1] * 6, **changes))


def test_comparison_takes_holm_over_the_benchmarks_and_names_an_absent_model(source):
    with pytest.raises(ValueError, match=r"medmcqa has no answers of \['gpt-35-turbo-16k'\]"):
        public_answers.real_comparison(source)
    write_chains(source, "medmcqa", "gpt-35-turbo-16k", ["A", "B", "D", "A"])
    table = public_answers.real_comparison(source)
    assert table["benchmark"].tolist() == ["medqa-4", "medmcqa"] and table["items"].eq("all").all()
    assert (table["p_holm"] >= table["p"]).all()
    pd.testing.assert_frame_equal(table, public_answers.real_comparison(source))
    with pytest.raises(ValueError, match=r"unlike protocols: one on medmcqa \(4 options, 3 items.*gpt-4-32k"):
        (source / "medqa" / "test_4opt_metamap.jsonl").unlink()
        public_answers.real_comparison(source, "one", "gpt-4-32k")


# --- other parsers


@pytest.mark.parametrize(
    ("answer", "character", "capital"),
    [
        ("B", "B", "B"),
        ("b", None, None),
        (" D. text", "D", "D"),
        ("Cannot be determined", "C", "C"),
        ("None of the above, Doctor", None, "D"),
        ("", None, None),
        (["A"], None, "A"),  # no text in the field: the rule runs over the whole record
        ({"raw": "All calls failed"}, None, "A"),
        ({"raw": None}, None, None),
        ({"raw": "[" * 100_000}, None, None),
    ],
)
def test_naive_rules(answer, character, capital):
    raw = chain("x", answer)["raw"]
    assert (
        public_answers.first_character(raw),
        public_answers.first_capital(raw.replace(WORDS[2], "") if raw else raw),
    ) == (
        character,
        capital,
    )


def test_disagreements_are_listed_one_by_one_without_text(source):
    table = public_answers.extraction_disagreements(source)
    assert table[["model", "id", "ours", "first_character", "first_capital", "gold"]].values.tolist() == [
        ["gpt-35-turbo-16k", "medqa-4-test-0001", "", "C", "C", "B"],
        ["gpt-35-turbo-16k", "medqa-4-test-0003", "", "", "B", "D"],
    ]
    assert table["problems"].tolist() == ["bad_choice", "broken_json"]
    for frame in (
        table,
        public_answers.extraction_agreement(source),
        public_answers.real_accuracy_table(source),
    ):
        assert not any(word in frame.to_csv() for word in WORDS)


def test_agreement_adds_up(source):
    table = public_answers.extraction_agreement(source)
    assert (table["agree"] + table[["ours_only", "rule_only", "another"]].sum(axis=1) == table["n"]).all()
    row = table.query("model == 'gpt-35-turbo-16k' and rule == 'first_capital'").iloc[0]
    assert (row["n"], row["agree"], row["rule_only"], row["intact"]) == (4, 2, 2, 3)
    assert (row["accuracy_ours"], row["accuracy_rule"]) == (25, 25)
    assert row["intact_accuracy_rule"] == pytest.approx(33.33)


# --- the released files


def test_real_accuracy(data_dir):
    table = public_answers.real_accuracy_table(data_dir)
    assert len(table) == 28 and table["accuracy"].notna().sum() == 26
    sonnet = line(table, "claude-3-5-sonnet")
    assert (sonnet["n"], sonnet["answered"]) == (2816, 2815) and sonnet["accuracy"] < sonnet["answered_only"]
    expected = {("gpt-35-turbo-16k", "all"): (4183, 52.69), ("gpt-4-32k", "single answer"): (2816, 69.74)}
    for (model, items), numbers in expected.items():
        row = line(table, model, items=items)
        assert (row["n"], row["accuracy"]) == numbers


def test_real_comparison(data_dir):
    table = public_answers.real_comparison(data_dir).set_index("benchmark")
    assert table.loc["medqa-4", ["both_right", "only_model", "only_against", "neither"]].tolist() == [
        769,
        286,
        46,
        172,
    ]
    assert (
        table.loc["medmcqa", "n"] == 4183 and (table["ci_low"] > 0).all() and (table["p_holm"] < 1e-40).all()
    )


def test_first_characters_of_intact_records(data_dir):
    """The published way of reading these files, over its own denominator."""
    table = public_answers.extraction_agreement(data_dir).query("rule == 'first_character'")
    expected = {"medqa-4": (64.8, 83.7), "medmcqa": (54.0, 68.9)}  # GPT-3.5, GPT-4
    for benchmark, accuracies in expected.items():
        found = table[table["benchmark"] == benchmark]["intact_accuracy_rule"]
        assert found.tolist() == pytest.approx(accuracies, abs=0.05)
    assert table["agree"].tolist() == [1267, 1269, 4087, 4130]
    disagreements = public_answers.extraction_disagreements(data_dir)
    assert len(disagreements) == 242 and not {"medqa-4-test-0075", "medqa-4-test-0823"} & set(
        disagreements.query("model == 'gpt-4-32k'")["id"]
    )  # "A. 5" and "C. X" are read
