"""Loaders and curation: every bad input and every trap of the raw benchmarks on tiny hand-made rows, then the
counts of the real files. Run: CLINICAL_R1_DATA=<folder> python -m pytest tests/curation/test_questions.py
"""

import hashlib
import json
import random
import re
import subprocess
import sys
import types
from collections import Counter
from dataclasses import replace

import pytest

from clinical_r1.curation import folding, releases
from clinical_r1.curation.checks import CHECKS
from clinical_r1.curation.folding import (
    RT_VARIANTS,
    SHORT_STEM,
    first_similar,
    fold,
    gram_numbers,
    match_by_option_text,
    match_keys,
    similar_pairs,
    stem_tokens,
)
from clinical_r1.curation.releases import RELEASES, load_benchmark, read_raw
from clinical_r1.curation.splits import ELSEWHERE, curate, free_baselines
from clinical_r1.files import ROOT, json_line
from clinical_r1.questions import GLOSSARY, Question, question_row, read_questions, write_questions

# ---------------------------------------------------------------- hand-made rows


def medqa(n=0, **changes):
    options = dict(zip("ABCDE", ("gout", "lupus", "sepsis", "asthma", "anemia"), strict=True))
    row = {"question": f"Patient number {n} has what?", "answer": "lupus", "options": options}
    return row | {"meta_info": "step1", "answer_idx": "B"} | changes


def medmcqa(n=0, **changes):
    row = {"question": f"Cause of sign {n}", "exp": None, "cop": 1, "id": f"m{n}", "choice_type": "single"}
    row |= {
        "opa": "iron",
        "opb": "zinc",
        "opc": "lead",
        "opd": "gold",
        "subject_name": "Tox",
        "topic_name": None,
    }
    return row | changes


def medxpertqa(n=0, **changes):
    options = {letter: f"option {n} {letter.lower()}x" for letter in "ABCDEFGHIJ"}
    row = {"id": f"Text-{n}", "question": f"Which fits case {n}?", "options": options, "label": "J"}
    return (
        row | {"medical_task": "Diagnosis", "body_system": "Skeletal", "question_type": "Reasoning"} | changes
    )


def write_rows(path, rows, end="\n"):
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [row if isinstance(row, str) else json_line(row).rstrip("\n") for row in rows]
    path.write_text("\n".join(lines) + end, encoding="utf-8")
    return path


def make(
    id="q", stem="What is it?", options=("one", "two", "three", "four"), answer="A", split="dev", **meta
):
    lettered = dict(zip("ABCDEFGHIJ", options, strict=False))
    return Question(id, "medqa", split, stem, lettered, answer, meta)


# ---------------------------------------------------------------- the record


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"answer": "E"}, "'q': answer is 'E', expected one of"),
        ({"answer": "a"}, "'q': answer is 'a'"),
        ({"options": {"A": "one"}}, "'q': options are"),  # one option
        ({"options": {"A": "one", "C": "two"}}, "'q': options are"),  # a gap
        ({"options": {"B": "one", "A": "two"}}, "'q': options are"),  # out of order
        ({"options": {"A": "one", "B": " "}}, "'q': B is ' '"),
        ({"stem": ""}, "'q': stem is ''"),
        ({"id": 7}, "7: id is 7"),
    ],
)
def test_question_names_what_is_wrong(changes, message):
    with pytest.raises(ValueError, match=message):
        replace(make(), **changes)


def test_questions_survive_the_disk(tmp_path):
    kept = [make("a", file="x", line=1), make("b", stem="line\u2028separator", answer=None)]
    path = write_questions(tmp_path / "deep" / "q.jsonl", kept)
    assert read_questions(path) == kept
    assert [p.name for p in path.parent.iterdir()] == ["q.jsonl"]  # no temporary file left


@pytest.mark.parametrize("line", ['{"id": "a"}', "[1, 2]", '{"id": "a", "extra"'])
def test_read_questions_names_the_line(tmp_path, line):
    path = write_questions(tmp_path / "q.jsonl", [make()])
    path.write_text(path.read_text() + line + "\n")
    with pytest.raises(ValueError, match=r"q\.jsonl, line 2 is not"):
        read_questions(path)


def test_a_failed_write_keeps_the_old_file(tmp_path):
    path = write_questions(tmp_path / "q.jsonl", [make()])
    with pytest.raises(TypeError):
        write_questions(path, [make(meta_value={1, 2})])  # a set is not JSON
    assert read_questions(path) == [make()]


# ---------------------------------------------------------------- layouts


@pytest.mark.parametrize(
    ("name", "split", "file", "row", "answer_text"),
    [
        ("medqa", "train", "US/train.jsonl", medqa(), "lupus"),
        ("medqa", "dev", "questions/US/dev.jsonl", medqa(), "lupus"),
        ("medqa", "validation", "medqa/dev_5opt.jsonl", medqa(), "lupus"),
        ("medqa", "test", "medqa/test_5opt.jsonl", medqa(), "lupus"),
        ("medmcqa", "dev", "medmcqa/dev.json", medmcqa(cop=4), "gold"),
        ("medmcqa", "train", "train.json", medmcqa(cop=1), "iron"),
        (
            "medmcqa",
            "test",
            "medmcqa/test_unlabelled.json",
            {k: v for k, v in medmcqa().items() if k != "cop"},
            None,
        ),
        ("medxpertqa", "test", "medxpertqa/text_test_medreason.jsonl", medxpertqa(), "option 0 jx"),
        ("medxpertqa", "dev", "Text/dev.jsonl", medxpertqa(), "option 0 jx"),
    ],
)
def test_every_official_layout_is_found_and_read(tmp_path, name, split, file, row, answer_text):
    path = write_rows(tmp_path / file, [row])
    for source in (tmp_path, path):
        (question,) = load_benchmark(name, split, source)
        assert (question.options[question.answer] if question.answer else None) == answer_text
        assert question.meta["file"] == path.name and question.meta["line"] == 1
        assert question.meta["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
        assert list(question_row(question)) == list(GLOSSARY)


def test_four_option_medqa_is_a_benchmark_of_its_own(tmp_path):
    four = medqa(options=dict(zip("ABCD", ("gout", "lupus", "sepsis", "asthma"), strict=True)))
    write_rows(tmp_path / "4_options" / "phrases_no_exclude_test.jsonl", [four | {"metamap_phrases": ["x"]}])
    (question,) = load_benchmark("medqa-4", "test", tmp_path)
    assert question.id == "medqa-4-test-0000"
    path = write_rows(tmp_path / "medqa" / "test_5opt.jsonl", [four])  # trap 2: 4-option rows taken for 5
    with pytest.raises(ValueError, match="4 options, expected 5 for medqa"):
        load_benchmark("medqa", "test", path)


def test_medxpertqa_input_layout_lists_options_and_repeats_them_in_the_stem(tmp_path):
    plain = medxpertqa()
    listed = [{"letter": letter, "content": text} for letter, text in plain["options"].items()]
    tail = "\nAnswer Choices: " + " ".join(f"({letter}) {text}" for letter, text in plain["options"].items())
    both = medxpertqa(options=listed, label=["J"], question=plain["question"] + tail)
    (a,) = load_benchmark("medxpertqa", "test", write_rows(tmp_path / "a" / "test.jsonl", [plain]))
    (b,) = load_benchmark("medxpertqa", "test", write_rows(tmp_path / "b" / "test.jsonl", [both]))
    assert (a.stem, a.options, a.answer) == (b.stem, b.options, b.answer)
    assert (a.meta["options_in_stem"], b.meta["options_in_stem"]) == (False, True)


def test_halves_of_train_are_disjoint_ordered_and_stamped(tmp_path):
    """Trap 30: the released preparation script reads the dev file for every split."""
    for split, n in (("train", 7), ("dev", 2), ("test", 3)):
        write_rows(tmp_path / f"{split}.jsonl", [medqa(f"{split}{i}") for i in range(n)])
    loaded = {
        split: load_benchmark("medqa", split, tmp_path) for split in ("train", "dev", "test", "sft", "rl")
    }
    assert [x.id for x in loaded["sft"] + loaded["rl"]] == [x.id for x in loaded["train"]]
    assert len(loaded["sft"]) == 3 and loaded["rl"][0].id == "medqa-train-0003"
    assert {x.meta["half"] for x in loaded["sft"]} == {"first"} and loaded["rl"][0].meta["line"] == 4
    places = [{(x.meta["sha256"], x.meta["line"]) for x in loaded[s]} for s in ("sft", "rl", "dev", "test")]
    assert len(set.union(*places)) == sum(map(len, places))
    with pytest.raises(ValueError, match=r"dev\.jsonl is named as dev, asked for test"):
        load_benchmark("medqa", "test", tmp_path / "dev.jsonl")


def test_official_halves_have_the_papers_size():
    rows = RELEASES["medqa"].rows
    assert rows["sft"] == rows["train"] // 2 and rows["sft"] + rows["rl"] == rows["train"]


# ---------------------------------------------------------------- bad files, bad rows


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "dev.jsonl is empty"),
        ("\n\n", "dev.jsonl is empty"),
        (json.dumps(medqa()) + "\n" + json.dumps(medqa(1))[:40], r"line 2 is not JSON.*is truncated there"),
        (json.dumps([medqa()]), "dev.jsonl is one JSON list; expected one JSON object a line"),
        (json.dumps([medqa(), medqa(1)], indent=1) + "\n", "dev.jsonl is one JSON list"),
        (json.dumps(medqa(), indent=1), "dev.jsonl is JSON over several lines an object"),
        (json.dumps(medqa(), indent=1) + "\n" + json.dumps(medqa(1), indent=1), "is JSON over several lines"),
        (
            "id,question,opa,opb\n1,Which?,x,y\n",
            "dev.jsonl is a CSV table with the header 'id,question,opa,opb'",
        ),
        ("id\tquestion\n1\tWhich?", "dev.jsonl is a CSV table"),
        ("<!DOCTYPE html><title>404</title>", "dev.jsonl is a web page"),
        ("version https://git-lfs.github.com/spec/v1\noid sha256:00\n", "dev.jsonl is a Git LFS pointer"),
        ("PAR1\x15\x04", "dev.jsonl is a Parquet table"),
        ("hello\nworld\n", r"dev\.jsonl does not look like medqa: none of its 2 rows .*line 1: not JSON"),
        (json.dumps(medmcqa()) + "\n", "does not look like medqa: its rows are medmcqa's"),  # trap 27
        (json.dumps(medxpertqa()) + "\n", "does not look like medqa: its rows are medxpertqa's"),
        (json.dumps({"12": {"QUESTION": "?", "final_decision": "yes"}}) + "\n", "does not look like medqa"),
    ],
)
def test_a_bad_file_is_an_error_even_with_a_quarantine(tmp_path, content, message):
    (tmp_path / "dev.jsonl").write_text(content)
    for quarantine in (None, []):
        with pytest.raises(ValueError, match=message):
            load_benchmark("medqa", "dev", tmp_path, quarantine=quarantine)


def test_not_utf8(tmp_path):
    (tmp_path / "dev.jsonl").write_bytes(json.dumps(medqa()).encode() + b"\n\xff\xfe\n")
    with pytest.raises(ValueError, match=r"dev\.jsonl is not UTF-8"):
        load_benchmark("medqa", "dev", tmp_path)


BAD_ROWS = [
    ("medqa", "{not json", "not_json", "not JSON"),
    ("medqa", '{"question": ' + "9" * 5000 + "}", "not_json", "Exceeds the limit"),
    ("medqa", '{"question": ' + "[" * 9000, "not_json", "nested more than"),
    ("medqa", '{"question": "a", "question": "b"}', "not_json", "a key twice: question"),
    ("medqa", '{"question": NaN}', "not_json", "NaN is no JSON"),
    ("medqa", medqa(question="\ud83d?"), "wrong_schema", "stem holds half a surrogate pair"),
    ("medqa", [1, 2], "wrong_schema", "a row is list"),
    ("medqa", {"question": "?"}, "wrong_schema", "no field 'options'"),
    ("medqa", medqa(options="A gout"), "wrong_schema", "options are str"),
    ("medqa", medqa(question=None), "wrong_schema", "stem is None"),
    ("medqa", medqa(answer_idx="F"), "bad_answer", "'F' is not among the options"),
    ("medqa", medqa(answer_idx=["B"]), "bad_answer", "is not among the options"),
    ("medqa", medqa(answer="gout"), "answer_text_disagrees", "option B is 'lupus', answer is 'gout'"),
    ("medqa", medqa(options={"A": "x", "B": "lupus"}), "option_count", "2 options, expected 5"),
    ("medmcqa", medmcqa(1), "duplicate_id", "'m1' is already on line 1"),
    ("medmcqa", medmcqa(9, cop=5), "bad_answer", "cop is 5, expected 1 to 4"),
    ("medmcqa", medmcqa(9, cop="2"), "bad_answer", "cop is '2'"),
    ("medmcqa", medmcqa(9, opc=None), "wrong_schema", "C is None"),
    ("medxpertqa", medxpertqa(9, label=["A", "B"]), "bad_answer", "is not among the options"),
    ("medxpertqa", medxpertqa(9, options=[{"letter": "A", "content": "x"}] * 10), "wrong_schema", "repeat"),
    ("medxpertqa", medxpertqa(9, question=5), "wrong_schema", "expected string"),
]


@pytest.mark.parametrize(("name", "bad", "check", "reason"), BAD_ROWS)
def test_a_bad_row_is_an_error_or_quarantined_with_file_and_line(tmp_path, name, bad, check, reason):
    good = {"medqa": medqa, "medmcqa": medmcqa, "medxpertqa": medxpertqa}[name]
    path = write_rows(tmp_path / "test.jsonl", [good(1), bad, good(2)])
    with pytest.raises(ValueError, match=r"1 of 3 rows of test\.jsonl cannot be used, the first on line 2"):
        load_benchmark(name, "test", path)
    set_aside = []
    kept = load_benchmark(name, "test", path, quarantine=set_aside)
    assert [x.meta["line"] for x in kept] == [1, 3]
    (row,) = set_aside
    assert (row.check, row.file, row.line) == (check, "test.jsonl", 2) and reason in row.reason
    assert check in CHECKS and CHECKS[check].action == "load"
    assert row.record == bad and json.loads(json.dumps(row.to_json()))["check"] == check
    assert read_raw(path, name, "test") == (kept, set_aside)


def test_a_line_separator_inside_a_text_is_not_a_line(tmp_path):
    path = write_rows(tmp_path / "test.jsonl", [medqa(question="one\u2028two\u0085three"), medqa(2)], end="")
    assert len(load_benchmark("medqa", "test", path)) == 2


def test_missing_things_are_named(tmp_path):
    with pytest.raises(ValueError, match="benchmark 'mmlu' is not known; expected one of"):
        load_benchmark("mmlu", "test", tmp_path)
    with pytest.raises(ValueError, match="medxpertqa has no split 'train'"):
        load_benchmark("medxpertqa", "train", tmp_path)
    with pytest.raises(FileNotFoundError, match="nowhere does not exist"):
        load_benchmark("medqa", "dev", tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match="does not exist; give the medqa dev file"):
        read_raw(tmp_path / "dev.jsonl", "medqa", "dev")
    write_rows(tmp_path / "medqa" / "dev_5opt.jsonl", [medqa()])
    with pytest.raises(
        FileNotFoundError, match=r"no file for medqa train .*found medqa dev \(medqa.dev_5opt"
    ):
        load_benchmark("medqa", "sft", tmp_path)


FOUR = medqa(options=dict(zip("ABCD", ("gout", "lupus", "sepsis", "asthma"), strict=True)))


@pytest.mark.parametrize(
    ("files", "found"),
    [
        ({"test.jsonl": medqa()}, {("medqa", "test"): "test.jsonl"}),
        ({"test.jsonl": medxpertqa()}, {("medxpertqa", "test"): "test.jsonl"}),
        (
            {"dev.jsonl": medxpertqa(), "US/dev.jsonl": medqa()},
            {("medqa", "dev"): "US/dev.jsonl", ("medxpertqa", "dev"): "dev.jsonl"},
        ),
        ({"medqa/test.jsonl": FOUR}, {}),
        (
            {"test.json": medmcqa(cop=0)},
            {("medmcqa", "test"): "test.json"},
        ),  # refused with its reason on loading
        ({"test.jsonl": "no JSON"}, {("medqa", "test"): "test.jsonl"}),
        ({"test.jsonl": ""}, {("medqa", "test"): "test.jsonl"}),
    ],
)
def test_a_file_belongs_to_one_benchmark_by_its_fields(tmp_path, files, found):
    for name, row in files.items():
        write_rows(tmp_path / name, [row])
    assert {
        key: str(path.relative_to(tmp_path)) for key, path in releases.find_files(tmp_path).items()
    } == found


def test_a_file_of_another_benchmark_or_two_files_are_a_sentence(tmp_path):
    write_rows(tmp_path / "medqa" / "test.jsonl", [FOUR])
    with pytest.raises(ValueError, match=r"test\.jsonl does not look like medqa: its rows are medqa-4's"):
        load_benchmark("medqa", "test", tmp_path)
    write_rows(tmp_path / "US" / "test.jsonl", [medqa(1)])
    assert len(load_benchmark("medqa", "test", tmp_path)) == 1
    write_rows(tmp_path / "medqa" / "test_5opt.jsonl", [medqa(1)])  # the same bytes
    assert len(load_benchmark("medqa", "test", tmp_path)) == 1
    write_rows(tmp_path / "medqa" / "test_5opt.jsonl", [medqa(2)])
    with pytest.raises(
        ValueError, match=r"several files for medqa test, US.test\.jsonl and medqa.test_5opt\.jsonl"
    ):
        load_benchmark("medqa", "test", tmp_path)


@pytest.mark.parametrize("near", ["dev.jsonl.gz", "medqa/dev.parquet", "US/dev_5opt.csv"])
def test_what_lies_beside_a_missing_file_is_named(tmp_path, near):
    write_rows(tmp_path / near, ["x"])
    with pytest.raises(FileNotFoundError, match=f"found nothing known; unpack or convert {near}"):
        load_benchmark("medqa", "dev", tmp_path)


def test_clinic_sets_come_from_the_clinic(monkeypatch):
    monkeypatch.setattr(releases, "load_set", lambda name, split: [name, split])
    assert load_benchmark("clinic-shift", "test") == ["clinic-shift", "test"]
    assert load_benchmark("clinic", "dev") == ["clinic", "validation"]
    with pytest.raises(ValueError, match="clinic is generated, not read"):
        load_benchmark("clinic", "test", "somewhere")


def test_ground_modules_import_no_pandas_torch_or_datasets():
    code = "import sys, clinical_r1.curation.splits; print({'pandas', 'torch', 'datasets', 'trl'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout.strip() == "set()", done.stderr


# ---------------------------------------------------------------- the Hub, replaced by a stub


@pytest.fixture
def hub(monkeypatch):
    """A stand-in for `datasets`; `calls` records what was asked, `rows` is the answer (or an exception)."""
    stub = types.SimpleNamespace(calls=[], rows=[])

    def load_dataset(repo, **asked):
        stub.calls.append((repo, asked))
        if isinstance(stub.rows, Exception):
            raise stub.rows
        return stub.rows

    monkeypatch.setitem(sys.modules, "datasets", types.SimpleNamespace(load_dataset=load_dataset))
    return stub


def test_hub_medmcqa_counts_from_zero(hub):
    """Trap 1: cop 0 is A on the Hub and an error in a file, and cop 4 the reverse; -1 means no label."""
    hub.rows = [medmcqa(i, cop=cop) for i, cop in enumerate((0, 3, -1))]
    loaded = load_benchmark("medmcqa", "validation")
    assert [x.answer for x in loaded] == ["A", "D", None]
    (repo, asked), release = hub.calls[0], RELEASES["medmcqa"]
    assert (repo, asked["revision"]) == (release.repo, release.revision) and len(release.revision) == 40
    assert loaded[0].meta["revision"] == release.revision and loaded[0].split == "dev"
    load_benchmark("medmcqa", "dev", revision="another")
    assert hub.calls[1][1]["revision"] == "another"
    hub.rows = [medmcqa(0, cop=1), medmcqa(1, cop=4)]
    with pytest.raises(ValueError, match="cop is 4, but this source counts from 0"):
        load_benchmark("medmcqa", "dev")


def test_a_file_that_counts_from_zero_is_refused_whole(tmp_path):
    path = write_rows(tmp_path / "dev.json", [medmcqa(i, cop=i % 4) for i in range(8)])
    with pytest.raises(ValueError, match=r"dev\.json, line 1: cop is 0, but this source counts from 1"):
        load_benchmark("medmcqa", "dev", path, quarantine=[])
    unlabelled = write_rows(tmp_path / "test.json", [medmcqa(0, cop=-1), medmcqa(1, cop=None)])
    assert [x.answer for x in load_benchmark("medmcqa", "test", unlabelled)] == [None, None]


def test_hub_medqa_lists_options_by_key(hub):
    row = medqa()
    hub.rows = [row | {"options": [{"key": k, "value": v} for k, v in row["options"].items()]}] * 2
    sft, rl = load_benchmark("medqa", "sft"), load_benchmark("medqa", "rl")
    assert (sft[0].id, rl[0].id) == ("medqa-train-0000", "medqa-train-0001")
    assert sft[0].options == row["options"]
    with pytest.raises(ValueError, match="on the Hub has no dev split"):
        load_benchmark("medqa-4", "dev")


def test_hub_out_of_reach_says_what_to_do(hub):
    hub.rows = OSError("no route to host")
    with pytest.raises(ConnectionError, match=r"medxpertqa test could not be read.*no route.*with source="):
        load_benchmark("medxpertqa", "test")


# ---------------------------------------------------------------- folding


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ("раіn in dіаbеtes", "pain in diabetes"),  # Cyrillic letters, trap 18
        ("ΗEPATITIS", "hepatitis"),  # a Greek capital inside a Latin word
        ("10 mg\xa0of  Iron", "10 mg of iron"),
        ("ﬁbrosis", "fibrosis"),
        ("ß-blocker", "β-blocker"),
        ("37℃", "37°C"),
        ("−0.45", "-0.45"),
        ("the patient’s", "the patient's"),
    ],
)
def test_fold_joins(a, b):
    assert a != b and fold(a) == fold(b)


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ("Increasing α", "Increasing β"),
        ("-0.45", "0.45"),
        ("Na+", "Na"),
        ("T4 ↑", "T4 ↓"),
        ("10³", "103"),  # NFKC alone joins these
        ("Ca²⁺", "Ca2"),
        ("κ chain", "k chain"),  # Greek that stands alone means something
        ("NFκB", "NFkB"),
        (">5 mm", "<5 mm"),
        ("Β", "B"),
    ],
)
def test_fold_never_strips_a_symbol(a, b):
    assert fold(a) != fold(b)


def test_lost_letters_are_restored_in_keys_only():
    assert stem_tokens("Hypeension of the renal aery:") == stem_tokens("hypertension of the renal artery")
    assert fold("renal aery") == "renal aery"
    assert stem_tokens("HCO3 -5 mmol/L") != stem_tokens("HCO3 5 mmol/L")
    assert all("rt" in word for word in RT_VARIANTS.values()) and len(RT_VARIANTS) > 100


@pytest.mark.parametrize(
    ("lost", "word"),
    [
        ("depament", "department"),
        ("feile", "fertile"),
        ("feilized", "fertilized"),
        ("infeile", "infertile"),
        ("ahralgia", "arthralgia"),
        ("retroveed", "retroverted"),
        ("Antihypeensive", "antihypertensive"),
        ("post paum", "post partum"),
    ],
)
def test_a_lost_rt_is_found_and_restored(lost, word):
    assert stem_tokens(f"The {lost}?") == stem_tokens(f"the {word}")
    assert counts(curate([make(stem=f"Of the {lost}?")])).get("lost_rt") == 1


@pytest.mark.parametrize(
    "text", ["Klippel-Feil syndrome", "chemo was given, so the sport is stale", "the main cause", "pa view"]
)
def test_what_lost_nothing_is_left_alone(text):
    assert "lost_rt" not in counts(curate([make(stem=text)]))


# ---------------------------------------------------------------- matching


def test_folding_ascii_alone_is_folding():
    for text in ("The A/B  ratio\tIS\n5", *map(chr, range(128)), *(f"x{chr(c)}Y" for c in range(128))):
        assert fold(text) == fold(f"{text} ½").removesuffix("1⁄2").rstrip()


def grams(tokens):
    """Literally: the 5-grams of a text, or all of a shorter one."""
    return {tokens[i : i + 5] for i in range(max(1, len(tokens) - 4))}


def test_numbers_of_5_grams_are_equal_where_the_5_grams_are():
    rng = random.Random(1)
    texts = [tuple(rng.choice("abc") for _ in range(rng.randrange(12))) for _ in range(300)]
    owner, number = gram_numbers(texts)
    said = [[] for _ in texts]
    for i, gram in zip(owner.tolist(), number.tolist(), strict=True):
        said[i].append(gram)
    assert [len(own) for own in said] == [len(grams(text)) for text in texts]
    for i in range(0, 300, 7):
        assert [len({*said[i]} & {*other}) for other in said] == [
            len(grams(texts[i]) & grams(text)) for text in texts
        ]
    assert all(len(part) == 0 for part in gram_numbers([]))


def test_similar_pairs_agrees_with_comparing_all():
    rng = random.Random(3)
    words = [f"w{i}" for i in range(12)]
    items = []
    for i in range(60):
        text = [rng.choice(words) for _ in range(rng.randrange(2, SHORT_STEM + 30))]
        items.append(make(f"q{i}", stem=" ".join(text), options=("yes", "no")))
        if i % 3 == 0:  # a variant with a few words changed
            for _ in range(rng.randrange(4)):
                text[rng.randrange(len(text))] = "new"
            items.append(make(f"v{i}", stem=" ".join(text), options=("yes", "no")))

    def slow(a, b, within):
        pairs = []
        for j, y in enumerate(b):
            for i, x in enumerate(a):
                gx, gy = grams(match_keys(x).grams), grams(match_keys(y).grams)
                if len(gx & gy) / len(gx | gy) >= 0.5 and (not within or i < j):
                    pairs.append((i, j))
        return pairs

    assert [pair[:2] for pair in similar_pairs(items)] == slow(items, items, True) != []
    # The tightest case for the index: one stem inside another, and the shared half is what everybody has.
    common = " ".join(f"common{i}" for i in range(34))  # 30 grams
    longer = [" ".join(f"own{i}x{k}" for k in range(30)) + " " + common for i in range(6)]  # 30 more
    edge = [make(f"e{i}", stem) for i, stem in enumerate([common, *longer])]
    assert similar_pairs(edge) == [(0, i, 0.5) for i in range(1, 7)]
    a, b = items[::2], items[1::2]
    assert [pair[:2] for pair in similar_pairs(a, b)] == slow(a, b, False) != []


def near_rows(kind, n):
    """n rows that are alike in different ways, every one with options of its own."""
    words = {
        "one stem": lambda i: LONG,
        "one word changed": lambda i: LONG.replace("word7 ", f"own{i} "),
        "exact copies": lambda i: LONG,
        "a template of three fifths": lambda i: " ".join(
            LONG.split()[:32] + [f"own{i}x{k}" for k in range(20)]
        ),
        "nothing shared": lambda i: " ".join(f"own{i}x{k}" for k in range(40)),
    }[kind]
    return [
        make(f"q{i}", words(i), ("a", "b") if kind == "exact copies" else (f"a{i}", f"b{i}"))
        for i in range(n)
    ]


@pytest.mark.parametrize(
    ("kind", "found"),
    [
        ("one stem", 1),
        ("one word changed", 1),
        ("exact copies", 0),
        ("a template of three fifths", 0),
        ("nothing shared", 0),
    ],
)
def test_near_rows_are_found_with_comparisons_in_step_with_their_number(monkeypatch, kind, found):
    indices, made = [], folding.NearIndex.__init__

    def noted(self, *given):
        made(self, *given)
        indices.append(self)

    monkeypatch.setattr(folding.NearIndex, "__init__", noted)
    for n in (50, 200):
        rows = near_rows(kind, n)
        keys = list(map(match_keys, rows))
        assert len(first_similar(keys)) == n * found
        assert indices[-1].compared <= 3 * n
        assert len(first_similar(keys[: n // 2], keys[n // 2 :])) == n // 2 * (
            found or kind == "exact copies"
        )
        assert indices[-1].compared <= 3 * n


def test_the_first_similar_question_is_the_first_of_all_similar_pairs():
    rng = random.Random(5)
    bases, items = [[f"w{rng.randrange(40)}" for _ in range(rng.randrange(25, 40))] for _ in range(9)], []
    for i in range(120):
        stem = list(rng.choice(bases))
        for _ in range(rng.randrange(4)):
            stem[rng.randrange(len(stem))] = f"own{i}"
        items.append(make(f"q{i}", " ".join(stem), rng.sample(["no", "yes", "so"], 2)))
    keys, first = list(map(match_keys, items)), {}
    for i, j, similarity in similar_pairs(items):
        if keys[i].exact != keys[j].exact:
            first.setdefault(i, (j, similarity))
            first.setdefault(j, (i, similarity))
    assert first_similar(keys) == first != {}
    a, b = items[::2], items[1::2]
    held_out = {}
    for i, j, similarity in similar_pairs(a, b):
        held_out.setdefault(i, (j, similarity))
    assert first_similar(keys[::2], keys[1::2]) == held_out != {}


@pytest.mark.parametrize("filler", [" ", "\n", "\xa0", "-", "a ", "Answer Choices: "])
def test_a_field_of_any_length_is_read(tmp_path, filler):
    """Patterns that go back over blanks took 31 s for 40,000 of them."""
    question = "Why" + filler * 40_000 + "?"
    path = write_rows(tmp_path / "test.jsonl", [medxpertqa(question=question)])
    (read,) = load_benchmark("medxpertqa", "test", path)
    assert read.stem == question
    explained = make(stem=question, explanation="ans " + filler * 40_000, options=(question, "b", "c", "d"))
    assert len(curate([explained]).questions) == 1


def test_versions_join_by_option_text_never_by_letter():
    """Trap 2: dropping an option moves the letters."""
    five = make("five", "Which drug?", ("aspirin", "heparin", "Warfarin", "insulin", "iron"), "C")
    four = make("four", "Which drug", ("iron", "warfarin", "heparin", "insulin"), "B")
    other = make("other", "Which drug?", ("a", "b", "c", "d"), "A")
    ((a, b, letters),) = match_by_option_text([five, make("alone", "Who?")], [other, four])
    assert (a.id, b.id) == ("five", "four")
    assert letters == {"A": None, "B": "C", "C": "B", "D": "D", "E": "A"}
    assert letters[five.answer] == four.answer != five.answer


# ---------------------------------------------------------------- curation


def counts(result):
    return {
        row["check"]: row["count"]
        for row in result.report
        if row["count"] and row["check"] != "partial_release"
    }


LONG = " ".join(f"word{i}" for i in range(SHORT_STEM + 20))

ONE_QUESTION = [  # (question, checks it must meet); longest_option_is_gold is left out of the comparison
    (make(), []),
    (make(answer=None), ["no_gold"]),
    (make(multi=True), ["multi_choice"]),
    (
        make(options=("Iron.", "iron", "zinc", "lead"), answer="A"),
        ["gold_option_duplicated", "duplicate_options"],
    ),
    (make(options=("Iron", "iron", "zinc", "lead"), answer="C"), ["duplicate_options"]),
    (make(options=("x one", "Not Recalled", "y", "z"), answer="C"), ["not_recalled_option"]),
    (
        make(options=("Increasing α", "Increasing β", "y2", "z2"), answer="C"),
        ["options_collide_without_symbols"],
    ),
    (
        make(options=("-0.45", "0.45", "7", "9"), answer="A"),
        ["options_collide_without_symbols", "gold_collides_without_symbols"],
    ),
    (make(options=("acute gout", "gout", "lupus", "sepsis"), answer="B"), ["gold_substring"]),
    (make(options=("acute gout", "gout", "lupus", "sepsis"), answer="A"), ["gold_substring"]),
    (make(options=("acute gout", "gout", "lupus", "sepsis"), answer="C"), []),
    (make(options=("ab", "cd", "ac", "None of the above")), ["letter_options", "none_of_the_above"]),
    (make(options=("A", "B", "C", "D"), stem="A man points to A?"), ["letter_options"]),
    (make(options=("Dewey", "Proffit", "Ackerman", "Both 1 and 2")), ["letter_options"]),
    (
        make(options=("Dewey", "Proffit", "Both (A) & (B)", "all of the above.")),
        ["letter_options", "all_of_the_above"],
    ),
    (make(options=("IA", "IB", "IIA", "IIB")), []),  # grades, not letters
    (make(options=("All primary teeth", "x1", "y1", "z1")), []),
    (make(options=("All", "None.", "y1", "z1")), ["all_of_the_above", "none_of_the_above"]),
    (make(stem="She takes metformin daily. Why?", options=("Metformin", "x", "y", "z")), ["gold_in_stem"]),
    (make(stem="She takes metformins. Why?", options=("Metformin", "x", "y", "z")), []),
    (make(stem="All are true EXCEPT:"), ["negated_stem"]),
    (make(stem="A chest film is shown in the image."), ["figure_reference"]),
    (make(stem="The pаtient is ill"), ["homoglyphs"]),  # a Cyrillic a
    (make(stem="Expression of Ζ and β chains?"), []),  # Greek that is Greek
    (make(stem="Branch of the aery?"), ["lost_rt"]),
    (make(stem="A count of 10³ cells"), ["changed_by_nfkc"]),
    (make(stem="5\xa0mg of what?"), ["changed_by_nfkc", "nonbreaking_space"]),
    (make(explanation=None), ["no_explanation"]),
    (make(explanation="Ans-a. because"), []),
    (make(explanation="Ans. is 'c' i.e., three"), ["explanation_disagrees"]),
    (make(explanation="Answer: 3. because"), ["explanation_disagrees"]),
    (make(explanation="Answers to this differ"), []),
]


@pytest.mark.parametrize(("question", "expected"), ONE_QUESTION)
def test_checks_of_one_question(question, expected):
    result = curate([question])
    found = counts(result)
    found.pop("longest_option_is_gold", None)
    assert found == dict.fromkeys(expected, 1)
    aside = [name for name in expected if CHECKS[name].action == "quarantine"]
    assert [row.check for row in result.quarantined] == aside[:1] and len(result.questions) == 1 - bool(aside)
    for kept in result.questions:
        points = {"letter_options", "all_of_the_above", "none_of_the_above"}
        assert kept.meta["shuffle_ok"] is not bool(points & set(expected))
        assert set(expected) <= set(kept.meta["checks"])
        assert replace(kept, meta=question.meta) == question  # nothing but meta is touched


def test_every_check_of_one_question_has_a_row_in_the_table():
    met = {name for _, expected in ONE_QUESTION for name in expected} | {"longest_option_is_gold"}
    assert met == {name for name, check in CHECKS.items() if check.finds}


def test_every_trap_has_a_named_answer():
    answered = {trap for check in CHECKS.values() for trap in check.traps} | set(ELSEWHERE)
    assert answered == set(range(1, 31)) - {17, 25}


def test_exact_duplicates_keep_the_first():
    """Traps 10 and 11: other punctuation, order of options, benchmark and split make no new question."""
    first = make("first", "Renal aery supplies:", ("one", "two", "x3", "x4"), "A", split="train")
    again = make("again", "renal artery supplies", ("x4", "x3", "Two.", "one"), "D", split="test")
    unlike = make("unlike", "Renal artery supplies", ("p", "r", "s", "t"), "D")
    result = curate([first, again, unlike])
    assert [x.id for x in result.questions] == ["first", "unlike"]
    assert (result.quarantined[0].id, result.quarantined[0].check) == ("again", "exact_duplicate")
    assert "first" in result.quarantined[0].reason


def test_the_labelled_copy_of_a_duplicate_is_kept():
    result = curate([make("secret", answer=None), make("known", answer="B")])
    assert [x.id for x in result.questions] == ["known"]
    assert [(x.id, x.check) for x in result.quarantined] == [("secret", "no_gold")]


def test_contradictory_duplicates_lose_every_side():
    """Traps 10 and 16. The same letter may be another text, and another letter the same text."""
    a = make("a", "Dose of X is", ("20 mg", "60 mg", "1 g", "2 g"), "A")
    b = make("b", "Dose of X is:", ("60 mg", "20 mg", "1 g", "2 g"), "A")
    agrees = make("c", "Dose of Y is", ("20 mg", "60 mg", "1 g", "2 g"), "A")
    moved = make("d", "Dose of Y is:", ("60 mg", "20 mg", "1 g", "2 g"), "B")
    result = curate([a, b, agrees, moved])
    assert counts(result)["contradictory_duplicate"] == 2 and counts(result)["exact_duplicate"] == 1
    assert [x.id for x in result.questions] == ["c"]
    assert all("20 mg" in x.reason and "60 mg" in x.reason for x in result.quarantined[:2])


def test_near_duplicates_are_reported_and_kept():
    a, b = make("a", LONG), make("b", LONG.replace("word4 ", "another "), ("p", "r", "s", "t"))
    result = curate([a, b, make("c", " ".join(reversed(LONG.split())))])
    assert counts(result)["near_duplicate"] == 2 and len(result.questions) == 3
    short = [
        make(f"s{i}", f"Which is not an adverse effect of {x}?", (x + "1", x + "2"))
        for i, x in enumerate("uvw")
    ]
    assert "near_duplicate" not in counts(curate(short))  # trap 14: templates are not duplicates


def test_contamination_sets_the_pool_aside_not_the_held_out():
    """Traps 12 to 15: exact, other distractors, an age changed; a shared template is none of these."""
    held_out = [make("h0", LONG, answer="A"), make("h1", "Dose of X?", ("20 mg", "p", "r", "s"))]
    pool = [
        make("exact", LONG),
        make("age", LONG.replace("word7 ", "word77 "), ("other", "gold", "x", "y")),
        make("distractors", "Dose of X", ("u", "v", "20 mg", "w"), "C"),
        make("template", "Dose of Z?", ("20 mg", "p", "r", "s")),
        make("clean", "Nothing in common"),
    ]
    result = curate(pool, against=held_out)
    assert [x.id for x in result.quarantined if x.check == "contaminated"] == ["exact", "age", "distractors"]
    assert "held-out h0" in result.quarantined[0].reason
    assert [x.id for x in result.questions] == ["template", "clean"]


def test_partial_release_is_reported():
    """Trap 22: a file named test that is not the whole test."""
    rows = [replace(make(f"Text-{i}", f"case {i}"), benchmark="medxpertqa", split="test") for i in range(5)]
    (row,) = [row for row in curate(rows).report if row["check"] == "partial_release"]
    assert row["ids"] == ["medxpertqa test: 5 of 2450"] and row["count"] == 2445
    dev = [replace(x, split="dev") for x in rows]  # the official dev split has 5
    assert curate(dev).report[-1]["count"] == 0


def test_report_has_one_row_for_every_check_and_nothing_vanishes():
    pool = [replace(question, id=f"q{i}") for i, (question, _) in enumerate(ONE_QUESTION)]
    result = curate(pool, against=pool[:3])
    assert [row["check"] for row in result.report] == [n for n, c in CHECKS.items() if c.action != "load"]
    assert len(pool) == len(result.questions) + len(result.quarantined)
    assert {x.id for x in pool} == {x.id for x in result.questions} | {x.id for x in result.quarantined}
    aside = sum(row["count"] for row in result.report if row["action"] == "quarantine")
    assert aside == len(result.quarantined)
    assert curate([]).questions == []


def test_free_baselines_by_hand():
    pool = [
        make("a", options=("longest", "b", "c", "d"), answer="A"),
        make("b", options=("a", "longest", "c", "d"), answer="A"),
        make("c", options=("a", "b"), answer="B"),  # a tie goes to the first option
        make("d", answer=None),
    ]
    expected = {"n": 3, "chance": (0.25 + 0.25 + 0.5) / 3, "majority_letter": "A", "majority": 2 / 3}
    assert free_baselines(pool) == pytest.approx(expected | {"longest_option": 1 / 3})
    assert free_baselines(pool[3:])["chance"] is None  # None is not zero


# ---------------------------------------------------------------- the real files

REAL = [
    ("medqa", "dev", 1272, {"A": 256, "B": 279, "C": 245, "D": 278, "E": 214}),
    ("medqa", "test", 1273, {"A": 273, "B": 277, "C": 252, "D": 269, "E": 202}),
    ("medqa-4", "test", 1273, {"A": 353, "B": 309, "C": 346, "D": 265}),
    ("medmcqa", "dev", 4183, {"A": 1348, "B": 1085, "C": 925, "D": 825}),
    ("medmcqa", "test", 6150, {None: 6150}),
]


@pytest.fixture(scope="module")
def real(data_dir):
    return {key: load_benchmark(*key, data_dir) for key in releases.find_files(data_dir)}


@pytest.fixture(scope="module")
def curated(real):
    return {key: curate(questions) for key, questions in real.items()}


@pytest.mark.parametrize(("name", "split", "n", "letters"), REAL)
def test_real_counts_and_letters(real, name, split, n, letters):
    assert len(real[name, split]) == n == RELEASES[name].rows[split]
    assert Counter(x.answer for x in real[name, split]) == letters


def test_real_medxpertqa_is_partial(real, curated):
    questions = real["medxpertqa", "test"]
    assert len(questions) == 1449 and (questions[0].id, questions[-1].id) == ("Text-1001", "Text-2449")
    letters = Counter(x.answer for x in questions)
    assert (min(letters.values()), max(letters.values()), len(letters)) == (132, 153, 10)
    assert curated["medxpertqa", "test"].report[-1]["ids"] == ["medxpertqa test: 1449 of 2450"]


@pytest.mark.parametrize(
    ("name", "split", "expected"),
    [
        (
            "medqa",
            "dev",
            {"options_collide_without_symbols": 6, "gold_collides_without_symbols": 5, "gold_in_stem": 7}
            | {
                "changed_by_nfkc": 42,
                "homoglyphs": 1,
                "lost_rt": 0,
                "near_duplicate": 0,
                "duplicate_options": 0,
            },
        ),
        (
            "medqa",
            "test",
            {"options_collide_without_symbols": 2, "gold_collides_without_symbols": 2, "gold_substring": 17}
            | {
                "changed_by_nfkc": 44,
                "homoglyphs": 2,
                "lost_rt": 0,
                "near_duplicate": 4,
                "nonbreaking_space": 0,
            },
        ),
        (
            "medmcqa",
            "dev",
            {
                "multi_choice": 1367,
                "duplicate_options": 21,
                "gold_option_duplicated": 4,
                "not_recalled_option": 6,
            }
            | {
                "gold_substring": 78,
                "contradictory_duplicate": 2,
                "exact_duplicate": 12,
                "none_of_the_above": 171,
                "all_of_the_above": 138,
                "letter_options": 60,
            }
            | {"no_explanation": 1977, "explanation_disagrees": 0, "homoglyphs": 0},
        ),
        ("medmcqa", "test", {"no_gold": 6150, "duplicate_options": 29}),
        (
            "medxpertqa",
            "test",
            {
                "gold_substring": 50,
                "gold_in_stem": 12,
                "changed_by_nfkc": 157,
                "nonbreaking_space": 32,
                "lost_rt": 0,
            },
        ),
    ],
)
def test_real_checks(curated, name, split, expected):
    result = curated[name, split]
    found = {row["check"]: row["count"] for row in result.report}
    assert {check: found[check] for check in expected} == expected


def test_real_items_named_in_the_reports(curated):
    def flagged(name, split, check):
        return {x.id for x in curated[name, split].questions if check in x.meta["checks"]}

    assert flagged("medqa", "test", "homoglyphs") == {"medqa-test-0041", "medqa-test-0468"}
    assert flagged("medqa", "dev", "homoglyphs") == {"medqa-dev-0196"}
    assert {"medqa-test-0454", "medqa-test-0709"} <= flagged("medqa", "test", "letter_options")
    assert "Text-1978" in flagged("medxpertqa", "test", "duplicate_options")
    near = {f"medqa-test-{n:04d}" for n in (535, 1129, 316, 382)}
    assert flagged("medqa", "test", "near_duplicate") == near
    lost = flagged("medmcqa", "dev", "lost_rt"), flagged("medmcqa", "test", "lost_rt")
    assert len(lost[0]) >= 166 and not lost[1]  # the unlabelled test is quarantined as a whole
    assert {r["check"]: r["count"] for r in curated["medmcqa", "test"].report}["lost_rt"] >= 377


def test_real_words_that_lose_their_rt_are_known_and_no_intact_one_is_taken_for_it(real):
    """Losses made from every intact word with rt: 58 % were known with 130 words."""
    intact = Counter(
        word
        for key in (("medqa", "dev"), ("medqa", "test"), ("medxpertqa", "test"))
        for question in real[key]
        for word in re.findall("[a-z]+", fold(" ".join([question.stem, *question.options.values()])))
    )
    assert not RT_VARIANTS.keys() & intact.keys()
    losses = [
        (word[: m.start()] + word[m.end() :], n)
        for word, n in intact.items()
        for m in re.finditer("rt", word)
    ]
    known = sum(n for lost, n in losses if lost in RT_VARIANTS)
    assert known / sum(n for _, n in losses) > 0.9


def test_real_cross_benchmark_pairs(real):
    def pairs(a, b):
        return {(real[a][i].id, real[b][j].id) for i, j, _ in similar_pairs(real[a], real[b])}

    assert pairs(("medqa", "dev"), ("medqa", "test")) == set()
    assert pairs(("medqa", "dev"), ("medxpertqa", "test")) == {
        ("medqa-dev-0341", "Text-1606"),
        ("medqa-dev-0958", "Text-2285"),
        ("medqa-dev-0773", "Text-1507"),
    }
    assert pairs(("medqa", "test"), ("medxpertqa", "test")) == {
        ("medqa-test-0052", "Text-1194"),
        ("medqa-test-0415", "Text-1864"),
    }
    result = curate(real["medqa", "dev"], against=real["medqa", "test"] + real["medxpertqa", "test"])
    assert {x.id for x in result.quarantined} == {f"medqa-dev-{n:04d}" for n in (341, 773, 958)}


def test_real_versions_join_by_text_and_disagree_by_letter(real):
    joined = match_by_option_text(real["medqa", "test"], real["medqa-4", "test"])
    assert len(joined) == 1273
    assert sum(five.answer == four.answer for five, four, _ in joined) == 673
    assert all(letters[five.answer] == four.answer for five, four, letters in joined)
    assert all(sum(letter is None for letter in letters.values()) == 1 for *_, letters in joined)


@pytest.mark.parametrize(
    ("name", "split", "majority", "longest"),
    [
        ("medqa", "dev", 0.219, None),
        ("medqa", "test", 0.218, None),
        ("medqa-4", "test", 0.277, None),
        ("medmcqa", "dev", 0.322, 0.309),
        ("medxpertqa", "test", 0.106, None),
    ],
)
def test_real_free_baselines(real, name, split, majority, longest):
    free = free_baselines(real[name, split])
    assert round(free["majority"], 3) == majority
    assert free["chance"] == pytest.approx(1 / RELEASES[name].options)
    assert longest is None or round(free["longest_option"], 3) == longest


def test_real_quarantine_loses_nothing(real, curated):
    for key, result in curated.items():
        assert len(result.questions) + len(result.quarantined) == len(real[key])


@pytest.mark.parametrize("folder", ["elsewhere", "a/b", "medqa/US"])
def test_a_file_in_a_folder_that_is_not_looked_in_is_told_where_to_lie(tmp_path, folder):
    write_rows(tmp_path / folder / "test.jsonl", [medqa()])
    with pytest.raises(FileNotFoundError, match=r"expected test.jsonl .* in it or in US, medqa, MedQA/US, "):
        load_benchmark("medqa", "test", tmp_path)


def test_no_source_is_named_as_such():
    with pytest.raises(
        FileNotFoundError, match="source is None; give the folder or a file of official files"
    ):
        releases.find_files(None)
