"""Where an answer ends and what a model can read; answers of other models, or a sentence that says what is wrong with them."""

import json
import types
from dataclasses import replace

import pytest

from clinical_r1.clinic.cases import LEVELS, load_set
from clinical_r1.engines import protocol
from clinical_r1.engines.local import Transformers
from clinical_r1.engines.replay import AnswerFile, replay
from clinical_r1.files import read_jsonl, write_jsonl
from clinical_r1.generate import read_completions
from clinical_r1.models import load_policy, load_tokenizer
from clinical_r1.prompts import build_messages, render_chat
from clinical_r1.questions import write_questions
from clinical_r1.settings import CLINIC_BASE, SMOKE


@pytest.fixture
def run(tmp_path):
    settings = replace(SMOKE, out=str(tmp_path))
    questions = load_set("clinic", "test", 4)
    write_questions(settings.questions_path("clinic", "test"), questions)
    rows = [{"id": q.id, "text": rf"\boxed{{{q.answer}}} – q", "tokens": 3} for q in reversed(questions)]
    write_jsonl(tmp_path / "answers.jsonl", rows)
    return settings, tmp_path / "answers.jsonl", questions


def test_answers_become_completions_in_the_questions_order(run):
    settings, source, questions = run
    path = replay(settings, "gpt-4", "clinic", source)
    rows = read_jsonl(path)
    assert path.name == "gpt-4.seed0.jsonl" and [row["id"] for row in rows] == [q.id for q in questions]
    assert {(row["method"], row["finish_reason"], row["tokens"]) for row in rows} == {
        ("gpt-4", "replayed", 3)
    }
    first = path.stat().st_mtime_ns
    assert replay(settings, "gpt-4", "clinic", source).stat().st_mtime_ns == first
    source.write_text(source.read_text().replace("– q", "– r"), encoding="utf-8")
    assert read_jsonl(replay(settings, "gpt-4", "clinic", source))[0]["text"].endswith("r")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda rows: [*rows, rows[0]], "line 5 answers 'clinic-test-00003' again"),
        (lambda rows: rows[:3], "answers 3 of 4 questions and lacks 'clinic-test-00000'"),
        (
            lambda rows: [*rows, {"id": "x9", "text": ""}],
            "answers 1 questions that are not asked, such as 'x9'",
        ),
        (lambda rows: [{"id": "clinic-test-00003", "text": 3}, *rows[1:]], "line 1 holds"),
        (lambda rows: [{"text": "B"}, *rows[1:]], "line 1 holds"),
        (lambda rows: [], "answers 0 of 4 questions"),
    ],
)
def test_a_file_that_does_not_answer_each_question_once_is_refused(run, change, message):
    settings, source, _ = run
    write_jsonl(source, change(read_jsonl(source)))
    with pytest.raises(ValueError, match=message):
        replay(settings, "gpt-4", "clinic", source)
    assert not settings.completions_path("clinic", "gpt-4", 0).exists()


def test_an_outside_model_never_poses_as_an_arm(run):
    settings, source, _ = run
    with pytest.raises(ValueError, match="'crpo' is an arm or guess of this run"):
        replay(settings, "crpo", "clinic", source)
    with pytest.raises(ValueError, match="style 'free' is not known"):
        replay(settings, "gpt-4", "clinic", AnswerFile(source, style="free"))


@pytest.mark.parametrize("name", ["box", "mirage"])
def test_a_parser_that_a_row_could_not_tell_from_one_of_this_package_is_refused(name):
    def own(text, style, options):
        raise AssertionError("not called")

    own.__name__ = name
    with pytest.raises(ValueError, match=f"a function named {name}, as a parser of this package is"):
        AnswerFile("answers.jsonl", parser=own)


@pytest.mark.parametrize(
    "name", ["a/b", "../x", "", None, 3, "a b", ".hidden", "-x", "x" * 82, "a\n", "ä" * 3 + "/"]
)
def test_a_name_that_is_no_plain_name_is_refused(run, name):
    settings, source, _ = run
    with pytest.raises(ValueError, match="a model is named"):
        replay(settings, name, "clinic", source)
    assert not (settings.run_dir / "completions").exists()


def test_a_byte_order_mark_and_blank_lines_are_passed_over(run):
    settings, source, questions = run
    source.write_bytes(b"\xef\xbb\xbf" + source.read_bytes().replace(b"\n", b"\n\n  \r\n"))
    assert len(read_jsonl(replay(settings, "gpt-4", "clinic", source))) == len(questions)


@pytest.mark.parametrize(
    "fields",
    [
        {"tokens": "many"},
        {"tokens": -1},
        {"tokens": 2.5},
        {"tokens": True},
        {"prompt": None},
        {"prompt": ["a"]},
    ],
    ids=str,
)
def test_tokens_and_prompts_of_another_kind_are_refused(run, fields):
    settings, source, _ = run
    rows = read_jsonl(source)
    write_jsonl(source, [rows[0], rows[1] | fields, *rows[2:]])
    with pytest.raises(
        ValueError, match="line 2 has tokens .* expected a whole number from 0, or none, and a text"
    ):
        replay(settings, "gpt-4", "clinic", source)


@pytest.mark.parametrize(
    "fields",
    [
        {"answer": "B", "output": "It is A."},
        {"completion": "x", "output": "y"},
        {"completion": "x", "answer": "B"},
    ],
)
def test_of_two_texts_that_differ_none_is_taken(run, fields):
    settings, source, _ = run
    rows = read_jsonl(source)
    write_jsonl(source, [{"id": rows[0]["id"], **fields}, *rows[1:]])
    with pytest.raises(ValueError, match=f"line 1 has {' and '.join(fields)}, which differ; name"):
        replay(settings, "gpt-4", "clinic", source)
    write_jsonl(
        source, [{"id": rows[0]["id"], **fields, "text": "mine"}, *rows[1:]]
    )  # text is the name we ask for
    written = read_jsonl(replay(settings, "gpt-4", "clinic", source))
    assert [row["id"] for row in written if row["text"] == "mine"] == [rows[0]["id"]]


CSV = "id,text,tokens,right\n" + "".join(f"clinic-test-{i:05d},B,{i or ''},{{{i}}}\n" for i in range(4))


def test_a_csv_table_and_a_json_list_are_read_and_another_key_is_refused(run, tmp_path):
    settings, source, questions = run
    table = tmp_path / "answers.csv"
    table.write_text(CSV.format(*(question.answer for question in questions)))
    rows = read_jsonl(replay(settings, "csv", "clinic", AnswerFile(table, gold="right")))
    assert [(row["text"], row["tokens"]) for row in rows] == [("B", None), ("B", 1), ("B", 2), ("B", 3)]
    listed = tmp_path / "answers.json"
    listed.write_text(json.dumps(read_jsonl(source)))
    assert [row["text"] for row in read_jsonl(replay(settings, "list", "clinic", AnswerFile(listed)))] == [
        row["text"] for row in read_jsonl(replay(settings, "lines", "clinic", AnswerFile(source)))
    ]
    wrong = [question.answer for question in questions]
    wrong[2] = "A" if wrong[2] != "A" else "B"
    table.write_text(CSV.format(*wrong))
    with pytest.raises(ValueError, match=f"line 4 has the right answer '{wrong[2]}' for 'clinic-test-00002'"):
        replay(settings, "csv", "clinic", AnswerFile(table, gold="right"))


@pytest.mark.parametrize("name", ["CRPO", "Baseline", "Chance", "x.seed0", "x.greedy", "x."])
def test_a_name_that_a_runs_files_or_arms_use_is_refused(run, name):
    settings, source, _ = run
    with pytest.raises(ValueError, match="in case alone|which a run's files use|no '.' at the end"):
        replay(settings, name, "clinic", source)
    assert not (settings.run_dir / "completions").exists()


def test_more_answers_than_are_asked_are_passed_over_where_that_is_said(run):
    settings, source, _ = run
    write_jsonl(source, [*read_jsonl(source), {"id": "x9", "text": ""}])
    with pytest.raises(ValueError, match="or, if the file answers more than is asked, add others=True"):
        replay(settings, "gpt-4", "clinic", source)
    assert len(read_jsonl(replay(settings, "gpt-4", "clinic", AnswerFile(source, others=True)))) == 4
    with pytest.raises(ValueError, match="the function that reads it fails .KeyError"):
        replay(settings, "gpt-4", "clinic", AnswerFile(source, id=lambda row: row["qid"]))


def test_the_parser_is_part_of_what_replayed_answers_are_made_from(run):
    settings, source, _ = run
    path = replay(settings, "gpt-4", "clinic", source)
    boxed = path.read_bytes()
    assert b"parser" not in boxed and b"note" not in boxed
    replay(settings, "gpt-4", "clinic", AnswerFile(source, parser="free_text"))
    assert {row["parser"] for row in read_jsonl(path)} == {"free_text"}
    assert replay(settings, "gpt-4", "clinic", source).read_bytes() == boxed


@pytest.mark.parametrize(
    "damage", [lambda path: path.write_bytes(b""), lambda path: path.with_suffix(".json").unlink()]
)
def test_a_replayed_file_that_was_changed_is_written_anew(run, damage):
    settings, source, _ = run
    path = replay(settings, "gpt-4", "clinic", source)
    whole = path.read_bytes()
    damage(path)
    assert replay(settings, "gpt-4", "clinic", source).read_bytes() == whole
    assert len(read_completions(settings, "clinic", "gpt-4", 0)) == 4


# --- where an answer ends


@pytest.fixture(scope="module")
def policy():
    return load_policy(CLINIC_BASE, SMOKE), load_tokenizer(CLINIC_BASE)


@pytest.fixture
def prompts(policy):
    questions = [question for name in LEVELS for question in load_set(name, "test", 3)]
    return [render_chat(policy[1], build_messages(question, "crpo", "clinic")) for question in questions]


@pytest.fixture
def asks(policy, prompts, monkeypatch):
    """Greedy or sampled answers with another generation_config, to all prompts together or to each alone."""

    def ask(how="greedy", alone=False, **config):
        model, tokenizer = policy
        with monkeypatch.context() as changed:
            for name, value in config.items():
                changed.setattr(model.generation_config, name, value)
            batches = [[prompt] for prompt in prompts] if alone else [prompts]
            return [
                row
                for batch in batches
                for row in Transformers(*policy).answer(batch, SMOKE, how, [0] * len(batch))
            ]

    return ask


def test_an_answer_ends_at_the_first_of_all_end_tokens(policy, asks):
    tokenizer, plain = policy[1], asks()
    other = tokenizer.convert_tokens_to_ids("supports")  # a word that every answer holds
    expected = []
    for row in plain:
        ids = tokenizer(row["text"], add_special_tokens=False)["input_ids"]
        assert row["finish_reason"] == "stop" and row["tokens"] == len(ids)
        expected.append(ids.index(other) if other in ids else len(ids))
    assert len(set(expected)) > 1, "rows of one batch that end at different places"
    for ends in ([1, other], [other], other, (other,)):  # the tokenizer's own end token counts beside them
        for alone in (False, True):
            rows = asks(eos_token_id=ends, alone=alone)
            assert [row["tokens"] for row in rows] == expected
            assert {row["finish_reason"] for row in rows} == {"stop"}
    for none in (None, []):
        assert asks(eos_token_id=none) == plain


@pytest.mark.parametrize("pad", ["<|end|>", "supports", "<|pad|>"])
def test_a_pad_token_that_is_an_end_token_hides_no_end(policy, asks, pad):
    tokenizer = policy[1]
    other, own = tokenizer.convert_tokens_to_ids("supports"), tokenizer.pad_token
    before = asks(eos_token_id=[1, other], alone=True)
    try:
        tokenizer.pad_token = pad
        assert asks(eos_token_id=[1, other]) == before
    finally:
        tokenizer.pad_token = own


def test_an_answer_without_an_end_is_cut_by_length(policy, prompts):
    short = replace(SMOKE, max_completion_tokens=4)
    assert [
        (row["finish_reason"], row["tokens"])
        for row in Transformers(*policy).answer(prompts, short, "greedy", [0] * len(prompts))
    ] == [("length", 4)] * len(prompts)


def test_a_model_without_any_end_token_is_refused(policy, monkeypatch):
    monkeypatch.setattr(policy[0].generation_config, "eos_token_id", None)
    with pytest.raises(ValueError, match="names an end token"):
        protocol.end_tokens(policy[0], types.SimpleNamespace(eos_token_id=None, name_or_path="x"))


@pytest.mark.parametrize("how", ["greedy", "sampled"])
def test_what_a_model_would_ask_for_besides_changes_nothing(asks, how):
    plain = asks(how)
    for config in (
        {"repetition_penalty": 1.8},  # Qwen2.5-Instruct ships 1.05, with top-k 20
        {"top_k": 2, "top_p": 0.1, "temperature": 0.1, "min_p": 0.5, "typical_p": 0.1},
        {"suppress_tokens": [5, 6, 7, 8], "no_repeat_ngram_size": 1, "min_new_tokens": 60, "num_beams": 3},
    ):
        assert asks(how, **config) == plain


def test_temperature_zero_is_greedy(policy, prompts):
    cold = replace(SMOKE, eval_temperature=0.0)
    sampled, greedy = (
        Transformers(*policy).answer(prompts, cold, name, [0] * len(prompts))
        for name in ("sampled", "greedy")
    )
    assert sampled == greedy


# --- what a model can read

MMLU = (
    "<|user|> Which gland secretes melatonin?\nA: Pituitary\nB: Pineal\nC: Thyroid\nD: Adrenal <|assistant|> "
)
UNREADABLE = {
    "a question of MMLU": (MMLU, "'Which', 'gland', 'secretes'"),
    "German": ("<|user|> Welcher Befund spricht dagegen? <|assistant|> ", "'Welcher'"),
    "signs": ("<|user|> ∑ ☃ <|assistant|> ", "'∑'"),
}


@pytest.mark.parametrize("kind", UNREADABLE)
def test_prompts_of_unknown_words_are_refused_with_share_and_example(policy, prompts, kind):
    text, words = UNREADABLE[kind]
    protocol.check_prompts(*policy, prompts, SMOKE, "clinic")
    with pytest.raises(
        ValueError, match=r"clinic-base does not know \d+% of the tokens of mmlu: 1 of 10 texts"
    ) as error:
        protocol.check_prompts(*policy, [*prompts, text], SMOKE, "mmlu")
    assert words in str(error.value) and len(str(error.value)) < 400


@pytest.mark.parametrize(("unknown", "refused"), [(0, False), (5, False), (6, True)])
def test_one_token_in_twenty_may_be_unknown(policy, unknown, refused):
    prompt = " ".join(["supports"] * (100 - unknown) + ["melatonin"] * unknown)
    wide = replace(SMOKE, max_completion_tokens=8)
    if not refused:
        return protocol.check_prompts(*policy, [prompt], wide, "mine")
    with pytest.raises(ValueError, match="6% of the tokens of mine.*such as 'melatonin'"):
        protocol.check_prompts(*policy, [prompt], wide, "mine")


def byte_level(**special):
    """A tokenizer that knows every byte, as GPT-2's and Qwen's."""
    from tokenizers import Tokenizer, decoders, pre_tokenizers
    from tokenizers.models import BPE
    from transformers import PreTrainedTokenizerFast

    alphabet = {char: i for i, char in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    tokenizer = Tokenizer(BPE(vocab=alphabet | {"<end>": 256}, merges=[]))
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.ByteLevel(False), decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<end>", **special)


def test_a_tokenizer_of_another_model_is_refused():
    model = types.SimpleNamespace(config=types.SimpleNamespace(max_position_embeddings=4096, vocab_size=257))
    protocol.check_prompts(model, byte_level(), ["fever<end>", ""], SMOKE, "mine")
    model.config.vocab_size = 256
    with pytest.raises(ValueError, match="mine with the token 256 and the model has 256.*another model"):
        protocol.check_prompts(model, byte_level(), ["fever<end>", ""], SMOKE, "mine")


@pytest.mark.parametrize("special", [{}, {"unk_token": "<end>"}], ids=["none", "GPT-2: the end token"])
def test_a_byte_level_tokenizer_knows_every_word(policy, special):
    roomy = types.SimpleNamespace(config=types.SimpleNamespace(max_position_embeddings=4096))
    protocol.check_prompts(roomy, byte_level(**special), [MMLU + "<end>" * 9, "∑ ☃"], SMOKE, "mmlu")


@pytest.mark.parametrize(
    ("room", "changes", "longest"),
    [
        (132, {}, 21),
        (None, {}, 10_000),
        (None, {"backend": "unsloth", "max_prompt_tokens": 30}, 31),
        (512, {}, 401),
    ],
)
def test_a_prompt_that_leaves_no_room_for_the_answer_is_refused(policy, room, changes, longest):
    model = types.SimpleNamespace(config=types.SimpleNamespace(max_position_embeddings=room))
    settings = replace(SMOKE, **changes)
    fits, exceeds = ("supports " * n for n in (longest - 1, longest))
    protocol.check_prompts(model, policy[1], [fits], settings, "mine")
    if room is None and not changes:
        return  # a model that says no limit, such as one without positions
    with pytest.raises(
        ValueError, match=f"longest prompt of mine has {longest} tokens.*max_completion_tokens 112"
    ):
        protocol.check_prompts(model, policy[1], [fits, exceeds], settings, "mine")
