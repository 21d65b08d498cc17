"""A model behind a server answers the test questions: what is sent, kept, paid and refused; and a real server."""

import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from dataclasses import replace
from pathlib import Path

import pytest
from judge_server import KEY, answer, refusal, serving

from clinical_r1 import extensions
from clinical_r1.bases import folders
from clinical_r1.clinic.cases import load_set
from clinical_r1.curation.splits import write_splits
from clinical_r1.engines import transport
from clinical_r1.engines.chat import ChatError, Spent
from clinical_r1.engines.local import Transformers
from clinical_r1.engines.server import Server, ask_server
from clinical_r1.engines.store import read_store
from clinical_r1.files import read_jsonl, read_stamp
from clinical_r1.generate import complete_all, read_completions
from clinical_r1.models import load_policy, load_tokenizer, resolve_base
from clinical_r1.prompts import build_messages
from clinical_r1.questions import write_questions
from clinical_r1.score import score_all
from clinical_r1.settings import LAPTOP, SMOKE
from clinical_r1.tables import build_table1

VARIABLE = "CLINICAL_R1_TEST_KEY"


@pytest.fixture(autouse=True)
def alone(monkeypatch):
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


@pytest.fixture
def pauses(monkeypatch):
    waited = []
    monkeypatch.setattr(transport, "pause", waited.append)
    return waited


@pytest.fixture
def run(tmp_path):
    settings = replace(SMOKE, out=str(tmp_path))
    questions = load_set("clinic", "test", 4)
    write_questions(settings.questions_path("clinic", "test"), questions)
    return settings, questions


def said(messages) -> str:
    return rf"Of {len(messages[-1]['content'])} characters: \boxed{{A}}"


def good(messages, number):
    return answer(said(messages))


def engine(server, **options) -> Server:
    return Server(server.url, "tiny", **{"timeout": 5.0, "retries": 2, "at_once": 2} | options)


def test_answers_become_completions_under_their_own_name_and_nothing_is_asked_twice(run, capsys):
    settings, questions = run
    with serving(good) as server:
        model = engine(server, dollars_per_million=(2.0, 10.0))
        path = ask_server(settings, "gpt-x", "clinic", model)
        rows = read_completions(settings, "clinic", "gpt-x", 0)
        assert [row["id"] for row in rows] == [q.id for q in questions]
        for row, question in zip(rows, questions, strict=True):
            messages = build_messages(question, "crpo", "full")
            assert json.loads(row["prompt"]) == messages and row["text"] == said(messages)
            assert (row["method"], row["style"], row["finish_reason"]) == ("gpt-x", "crpo", "stop")
            assert (row["tokens"], row["prompt_tokens"], row["model"]) == (10, 100, "tiny")
        sent = {json.dumps(body["messages"]): body for body in server.bodies}
        first = sent[json.dumps(json.loads(rows[0]["prompt"]))]
        assert {name: first[name] for name in first if name not in ("messages", "seed")} == {
            "model": "tiny", "temperature": 0.8, "top_p": 0.95, "max_tokens": settings.max_completion_tokens,
        }  # fmt: skip
        assert (
            len({body["seed"] for body in server.bodies}) == 5 and server.most_in_flight <= 2
        )  # one once more
        told = capsys.readouterr().out
        assert "gpt-x, clinic: 5 asked now (500 + 50 tokens, 0.0015 dollars), 0 known before." in told

        whole = path.read_bytes()
        ask_server(settings, "gpt-x", "clinic", model)
        assert capsys.readouterr().out == ""  # the file stands
        path.unlink()
        ask_server(settings, "gpt-x", "clinic", model)
        assert path.read_bytes() == whole
        assert "0 asked now (0 + 0 tokens, 0.0000 dollars), 5 known before" in capsys.readouterr().out
        # other settings are other answers; another address or key is not
        ask_server(replace(settings, eval_temperature=0.5), "gpt-x", "clinic", model)
        assert len(server.bodies) == 10
        path.unlink()
        with serving(good) as other:
            ask_server(settings, "gpt-x", "clinic", engine(other, timeout=4.0, at_once=1))
            assert other.bodies == [] and path.read_bytes() == whole


def test_a_killed_run_goes_on_where_it_stopped_to_the_same_bytes(run, tmp_path):
    settings, questions = run
    with serving(good) as server:
        whole = ask_server(settings, "gpt-x", "clinic", engine(server)).read_bytes()
    elsewhere = replace(settings, out=str(tmp_path / "other"))
    write_questions(elsewhere.questions_path("clinic", "test"), questions)
    with serving(lambda messages, number: good(messages, number) if number < 3 else refusal(401)) as server:
        with pytest.raises(
            ChatError, match=r"^gpt-x, clinic: the server at .*refused the key in api_key_variable"
        ):
            ask_server(elsewhere, "gpt-x", "clinic", engine(server, at_once=1))
        assert not elsewhere.completions_path("clinic", "gpt-x", 0).exists()
        server.play = good
        path = ask_server(elsewhere, "gpt-x", "clinic", engine(server, at_once=1))
        assert (
            path.read_bytes() == whole and len(server.bodies) == 6
        )  # two, the refused one, the three that lacked


def half(handler):
    handler.send(200, b'{"choices": [', {"content_length": "999"})


HOSTILE = {  # what is played once -> the request after it is answered
    "429": refusal(429, "slow", **{"retry-after": "3"}),
    "500": refusal(500, "busy"),
    "half a body": half,
    "no choices": answer("x")[:1] + (b'{"choices": []}', {}),
    "content null, and no reason": answer(None, finish=None),
}


@pytest.mark.parametrize("fault", HOSTILE.values(), ids=HOSTILE)
def test_what_may_pass_is_asked_again(run, pauses, fault):
    settings, _ = run
    with serving(lambda messages, number: fault if number == 1 else good(messages, number)) as server:
        rows = read_jsonl(ask_server(settings, "gpt-x", "clinic", engine(server, at_once=1)))
        assert all(row["text"].endswith("{A}") for row in rows) and len(server.bodies) == 6
    assert len(pauses) == 1


LASTING = {
    "a redirect": ((307, b"", {"location": "http://other.org/v1"}), "a redirect to http://other.org/v1; nothing was"),
    "another model": (answer("x")[:1] + (json.dumps({"model": "mini", "choices": [{"message": {"content": "x"}}]}).encode(), {}),
                      "asked for 'tiny' and answers as 'mini'; fix model, or, .*answers_as='mini'"),
    "no room": (refusal(400, "x", {"code": "context_length_exceeded"}), "has no room for a question and its answer"),
    "a parameter": (refusal(400, "temperature is not supported"), "fix model, limit_name, leave_out"),
    "no page of an API": ((200, b"<html>", {}), "not with a chat completion"),
    "always busy": (refusal(503, "busy"), "failed in 3 tries"),
    "roles": (refusal(400, "bad chat template"), "refused the request for model 'tiny'"),
}  # fmt: skip


@pytest.mark.parametrize("fault", LASTING)
def test_what_stays_is_one_sentence_and_nothing_is_kept(run, pauses, fault):
    settings, _ = run
    played, sentence = LASTING[fault]
    with serving(lambda messages, number: played) as server:
        with pytest.raises(ChatError, match=rf"^gpt-x, clinic: the server at .*{sentence}"):
            ask_server(settings, "gpt-x", "clinic", engine(server))
        assert not settings.completions_path("clinic", "gpt-x", 0).exists()
        (kept,) = Path(settings.out, "runs", "server_answers").glob("tiny-*.jsonl")
        assert read_store(kept)[1] == {}


def test_another_name_is_accepted_where_it_is_given_and_stands_in_the_note(run):
    settings, _ = run
    with serving(good) as server:
        served = Server(server.url, "my-deployment", answers_as="tiny")
        rows = read_jsonl(ask_server(settings, "gpt-x", "clinic", served))
    assert {row["note"] for row in rows} == {"answered through a server by tiny"}


ENDS = {  # reply -> (text, finish_reason, tokens)
    "empty, ended by itself": (answer(""), ("", "stop", 10)),
    "null, ended by itself": (answer(None), ("", "stop", 10)),
    "cut": (answer("so far", finish="length"), ("so far", "length", 10)),
    "cut within the thought": (answer(None, finish="length", reasoning_content="hm"), ("", "length", 10)),
    "filtered": (answer("part", finish="content_filter"), ("", "content_filter", 10)),
    "filtered, 400": (refusal(400, "no", {"code": "content_filter"}), ("", "content_filter", None)),
    "refused": (answer(None, refusal="No."), ("", "refusal", 10)),
    "a tool": (answer(None, finish="tool_calls"), ("", "tool_calls", 10)),
    "no reason": (answer("x", finish=None), ("x", "not said", 10)),
    "no usage": (answer("x", usage=None), ("x", "stop", None)),
    "usage that is none": (answer("x", usage={"completion_tokens": float("nan")}), ("x", "stop", None)),
}


@pytest.mark.parametrize("kind", ENDS)
def test_how_an_answer_ended_is_kept_and_a_count_that_is_not_given_is_none(run, kind):
    settings, _ = run
    reply, expected = ENDS[kind]
    with serving(lambda messages, number: reply) as server:
        path = ask_server(settings, "gpt-x", "clinic", engine(server))
        assert len(server.bodies) == 5
    rows = read_jsonl(path)
    assert {(row["text"], row["finish_reason"], row["tokens"]) for row in rows} == {expected}
    assert read_stamp(path, "")["finish_reasons"] == {expected[1]: 4}


def test_half_a_surrogate_pair_breaks_nothing_that_reads_the_answer(run):
    with serving(lambda m, n: answer("\ud800 \\boxed{A} \U0001f637", reasoning_content="\udfff")) as server:
        rows = read_jsonl(ask_server(run[0], "gpt-x", "clinic", engine(server)))
    assert {(row["text"], row["thought"]) for row in rows} == {("\ufffd \\boxed{A} \U0001f637", "\ufffd")}


def test_a_thought_that_a_server_takes_apart_stands_beside_the_text(run, capsys):
    settings, _ = run
    with serving(lambda m, n: answer(said(m), reasoning_content=r"perhaps \boxed{C}")) as server:
        rows = read_jsonl(ask_server(settings, "gpt-x", "clinic", engine(server)))
    assert {row["thought"] for row in rows} == {r"perhaps \boxed{C}"}
    assert not any("perhaps" in row["text"] for row in rows)
    # what gave no answer is said
    with serving(lambda m, n: answer(None, refusal="No.")) as server:
        ask_server(settings, "gpt-y", "clinic", engine(server, extra={"top_k": 5}))
    assert "4 refusal: what holds no letter counts as wrong" in capsys.readouterr().out


def test_parameters_that_a_model_refuses_are_left_out_and_said(run):
    settings, _ = run
    with serving(good) as server:
        model = engine(server, leave_out=("temperature", "top_p", "seed"), limit_name="max_completion_tokens",
                       max_tokens=900, extra={"reasoning_effort": "low"})  # fmt: skip
        rows = read_jsonl(ask_server(settings, "o-x", "clinic", model))
        assert all(
            {name: body[name] for name in body if name != "messages"}
            == {"model": "tiny", "max_completion_tokens": 900, "reasoning_effort": "low"}
            for body in server.bodies
        )
    assert rows[0]["note"].endswith("by tiny, with the server's own temperature and top_p")
    with pytest.raises(ValueError, match="tiny cannot be asked for 'greedy' answers"):
        model.answer(["[]"], settings, "greedy", [0])


def test_more_samples_of_a_question_have_seeds_of_their_own(run):
    settings, _ = run
    with serving(good) as server:
        rows = read_jsonl(ask_server(replace(settings, eval_samples=2), "gpt-x", "clinic", engine(server)))
        assert [row["sample"] for row in rows] == [0] * 4 + [1] * 4
        assert len({body["seed"] for body in server.bodies}) == 9
        ask_server(replace(settings, eval_samples=3), "gpt-x", "clinic", engine(server))
        assert len(server.bodies) == 13  # the first two samples are known


def test_a_server_that_does_not_sample_is_noticed_and_table_1_says_so(run, capsys):
    settings, _ = run
    with serving(lambda messages, number: answer("the same words " * 9)) as server:
        (note,) = {row["note"] for row in read_jsonl(ask_server(settings, "cold", "clinic", engine(server)))}
        assert note.endswith("gives the same words whatever the seed: it does not sample")
        assert (
            "cold: the server does not sample, though it was asked to with temperature 0.8"
            in capsys.readouterr().err
        )
        server.play = lambda messages, number: answer(f"{number} is another number " * 9)
        rows = read_jsonl(ask_server(settings, "warm", "clinic", engine(server, extra={"top_k": 0})))
        assert {row["note"] for row in rows} == {"answered through a server by tiny"}


def test_a_greedy_answer_has_no_seed(run):
    settings, _ = run
    with serving(good) as server:
        model, spent = engine(server), Spent()
        prompts = [model.prompt([{"role": "user", "content": "a"}])] * 2
        first, second = model.answer(prompts, settings, "greedy", [1, 2], spent)
        assert first == second and {body["temperature"] for body in server.bodies} == {0.0}
        assert all("seed" not in body for body in server.bodies)
        model.answer(prompts, settings, "greedy", [3, 4], spent)
        assert spent.cached >= 2 and len(server.bodies) <= 2


def test_nothing_is_put_into_a_servers_mouth():
    with pytest.raises(ValueError, match="cannot go on from a text that is put into its mouth"):
        Server("http://127.0.0.1:1/v1", "tiny").prompt([{"role": "user", "content": "a"}], "<dx>")


def test_the_key_is_named_and_never_shown(run, monkeypatch):
    settings, _ = run
    monkeypatch.delenv(VARIABLE, raising=False)
    with serving(good) as server:
        model = engine(server, api_key_variable=VARIABLE)
        with pytest.raises(ChatError, match=f"{VARIABLE}, which is to hold the key .* is not set"):
            ask_server(settings, "gpt-x", "clinic", model)
        monkeypatch.setenv(VARIABLE, KEY)
        server.play = lambda messages, number: answer(f"the key is {KEY}")
        path = ask_server(settings, "gpt-x", "clinic", model)
        assert server.keys == {f"Bearer {KEY}"}
    files = [path, path.with_suffix(".json"), *Path(settings.out, "runs", "server_answers").glob("*")]
    assert not any(KEY in file.read_text() for file in files) and KEY not in repr(model)
    assert f"the key is [{VARIABLE}]" in path.read_text()


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"leave_out": ("n",)}, "leave_out is .*expected a list of some of temperature"),
        ({"leave_out": "seed"}, "leave_out is 'seed'"),
        ({"extra": {"max_tokens": 3}}, "extra is .*none of .*max_tokens"),
        ({"extra": {"x": {1, 2}}}, "extra cannot be sent as JSON"),
        ({"style": "free"}, "style is 'free'; expected one of"),
        ({"at_once": 0}, "at_once is 0"),
        ({"max_tokens": 0}, "max_tokens is 0"),
        ({"answers_as": ""}, "answers_as is ''"),
        ({"benchmarks": "medqa"}, "benchmarks is 'medqa'"),
        ({"dollars_per_million": 3}, "dollars_per_million is 3; expected two prices"),
        ({"api_key_variable": 3}, "api_key_variable is no name of an environment variable"),
        (
            {"api_key_variable": "sk-1"},
            "api_key_variable is no name of .*, such as OPENAI_API_KEY; put the key into",
        ),
        ({"system_turn": "no"}, "system_turn is 'no'; expected True or False"),
        ({"benchmarks": []}, r"benchmarks is \[\]; expected one or more"),
        ({"benchmarks": ["clinic", "clinic"]}, "benchmarks is .*each once"),
        ({"base_url": 5}, "base_url must look like"),
    ],
)
def test_a_field_that_makes_no_sense_is_refused(options, sentence):
    with pytest.raises(ValueError, match=f"^the server's {sentence}"):
        Server(**{"base_url": "http://127.0.0.1:1/v1", "model": "tiny"} | options)


def test_a_key_in_the_place_of_its_variable_is_not_shown():
    with pytest.raises(
        ChatError, match="^the variable that api_key_variable names, which is to hold the key"
    ):
        Server("http://127.0.0.1:1/v1", "tiny", api_key_variable="hf_0123456789").key()


# ------------------------------------------------------------------------------------------------------- a real server


@pytest.fixture(scope="module")
def smollm2(tmp_path_factory):
    """The folder that SmolLM2's GGUF file is converted into, or a skip that says why there is none."""
    given = os.environ.get(folders.MODELS_VARIABLE)
    if not given or not list(Path(given).glob("SmolLM2-135M-Instruct*.gguf")):
        pytest.skip("CLINICAL_R1_MODELS names no folder with SmolLM2-135M-Instruct*.gguf")
    pytest.importorskip("gguf", reason="the package gguf is not installed")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        folders.converted.cache_clear()
        yield Path(resolve_base(LAPTOP.base_model))
        folders.converted.cache_clear()


@pytest.fixture(scope="module")
def transformers_serve(smollm2, tmp_path_factory):
    """Its base_url: the OpenAI-compatible server that Transformers ships, with SmolLM2."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = tmp_path_factory.mktemp("serve") / "log.txt"
    command = [Path(sys.executable).with_name("transformers"), "serve", smollm2, "--dtype", "float32"]
    command += ["--host", "127.0.0.1", "--port", str(port)]
    with open(log, "w") as out, subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT) as server:
        try:
            deadline = time.monotonic() + 300
            while server.poll() is None and time.monotonic() < deadline:
                try:
                    urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=1).close()
                    break
                except OSError:
                    time.sleep(0.2)
            else:
                pytest.fail(f"transformers serve did not start:\n{log.read_text()}")
            yield f"http://127.0.0.1:{port}/v1"
        finally:
            server.terminate()


@pytest.mark.slow
def test_a_real_server_answers_table_1_under_its_own_name_and_as_transformers_does(
    smollm2, transformers_serve, tmp_path, monkeypatch
):
    monkeypatch.delenv(extensions.VARIABLE, raising=False)
    own = tmp_path / "mine.py"
    entry = {"base_url": transformers_serve, "model": str(smollm2), "at_once": 2, "benchmarks": ["clinic"]}
    own.write_text(
        f"SERVERS = {{'smollm2-served': {entry!r}}}\nSETTINGS = {{'max_completion_tokens': 32, 'n_test': 4}}\n"
    )
    try:
        settings = extensions.settings_for("smoke", tmp_path, own=own)
        settings = replace(settings, methods=(), benchmarks=("clinic",), eval_greedy=False)
        write_splits(settings)
        complete_all(settings)
        rows = read_completions(settings, "clinic", "smollm2-served", 0)
        assert len(rows) == 4 and all(row["text"] and row["tokens"] <= 32 for row in rows)
        assert {row["model"] for row in rows} == {f"{smollm2}@main"}
        assert {row["note"] for row in rows} == {f"answered through a server by {smollm2.name}@main"}
        table = build_table1(settings, score_all(settings))
        assert "smollm2-served" in set(table["method"])
        engine = extensions.loaded().servers["smollm2-served"]
    finally:
        extensions.unload()
    local = Transformers(load_policy(str(smollm2), settings), load_tokenizer(str(smollm2)))
    messages = [json.loads(row["prompt"]) for row in rows[:2]]
    prompts, seeds = [engine.prompt(each) for each in messages], [0] * 2
    served = engine.answer(prompts, settings, "greedy", seeds)
    here = local.answer([local.prompt(each) for each in messages], settings, "greedy", seeds)
    assert [answer["text"] for answer in served] == [answer["text"] for answer in here]
    assert [answer["finish_reason"] for answer in served] == [answer["finish_reason"] for answer in here]
