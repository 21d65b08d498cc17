"""What servers do to a judge: failures that pass, answers that hold no verdict, limits, secrets, and missing system turns."""

import gzip
import json
import math
import random
import re
import tracemalloc
import zlib

import pytest
from judge_server import KEY, QUESTION, answer, asker, expected, good, nonce_of, refusal, serving, verdict

from clinical_r1.engines import chat, transport
from clinical_r1.engines.replies import read_content
from clinical_r1.engines.transport import asked_wait, proxy_variable, scrub
from clinical_r1.judges import models
from clinical_r1.judges.models import JudgeError, LocalModel, OpenAIServer, server_from_environment
from clinical_r1.judges.rubric import REASONS, Replay, rubric_judge
from clinical_r1.prompts import build_judge_messages, fold_system, render_chat
from clinical_r1.score import judge_many

MESSAGES = build_judge_messages(QUESTION, "text", "drc")
COUNT = expected(MESSAGES)


def ok(**fields):
    """HTTP 200 with a body of these fields."""
    return 200, json.dumps(fields).encode(), {}


def once(fault):
    return lambda messages, number: fault if number == 1 else good(messages, number)


# --------------------------------------------------------------------------------------------------- what may pass

PASSING = {
    "content null": answer(None),
    "content empty": answer(""),
    "content blank": answer(" \n\t"),
    "content an empty list": answer([]),
    "no message": ok(choices=[{"finish_reason": "stop", "message": None}]),
    "choices null": ok(choices=None),
    "no choices": ok(choices=[]),
    "finish_reason error": answer("1. a", finish="error"),
    "an error with 200": ok(error={"code": 429, "message": "slow down"}),
    "an error text with 200": ok(error="overloaded"),
    "an error beside choices": ok(error={"message": "lost"}, choices=[{"message": {"content": "1."}}]),
    "408": refusal(408),
    "429": refusal(429),
    "502, a web page": (502, b"<html>bad gateway</html>", {"content_type": "text/html"}),
    "hangs up": (200, b"{", {"content_length": "99"}),
}


@pytest.mark.parametrize("fault", PASSING.values(), ids=PASSING)
def test_what_may_pass_is_asked_again_within_the_same_number_of_tries(tmp_path, pauses, fault):
    with serving(once(fault)) as server:
        judge = rubric_judge(asker(server), tmp_path, ("drc",))
        assert judge(QUESTION, "text") == {"drc": COUNT}
        assert (judge.totals.requests, judge.totals.retries, len(judge.cache)) == (1, 1, 1)
        server.play, server.bodies[:] = lambda messages, number: fault, []
        with pytest.raises(
            JudgeError, match=r"(?s)^drc of question q1: the judge server at .* 3 tries.*; .*\.$"
        ):
            judge(QUESTION, "other words")
        assert len(server.bodies) == 3 and len(judge.cache) == 1


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ({"retry-after": "3600"}, 3600),
        ({"retry-after": "inf"}, float("inf")),
        ({"retry-after-ms": "500000"}, 500),
        ({"retry-after": "7"}, 7),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "-1"}, None),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "Wed, 21 Oct 2015 07:28:00 GMT"}, None),  # has passed
        ({}, None),
    ],
)
def test_a_wait_longer_than_allowed_is_said_with_its_seconds(pauses, header, seconds):
    assert asked_wait(header) == seconds
    fault = refusal(429, **{name.replace("-", "_"): value for name, value in header.items()})
    with serving(once(fault)) as server:
        if seconds is None or seconds < 120:
            assert asker(server)(MESSAGES).retries == 1
            assert pauses == [7] if seconds else 0.375 <= pauses[0] <= 0.5
        else:
            with pytest.raises(
                JudgeError, match=f"asks to wait {seconds:g} s .*more than the 120 s.* 1 tries"
            ):
                asker(server)(MESSAGES)
            assert pauses == [] and len(server.bodies) == 1


def test_a_date_to_wait_for_is_read():
    assert 10**9 < asked_wait({"retry-after": "Wed, 21 Oct 2115 07:28:00 GMT"}) < 10**10


# --------------------------------------------------------------------------------------- answers that hold no verdict

TOO_LONG = "This model's maximum context length is 512 tokens. However, you requested 900 tokens."
NO_VERDICT = {  # what is played for a tag with a count -> why there is none
    "cut by length": (lambda tag: answer(f"<think>perhaps {tag}; wait", finish="length"), "length"),
    "cut after the count": (lambda tag: answer(f"1. a\n{tag}", finish="length"), "length"),
    "cut before a word": (lambda tag: answer("", finish="length"), "length"),
    "cut, in other words": (lambda tag: answer(tag, finish="MAX_TOKENS"), "length"),
    "an open thought": (lambda tag: answer(f"<think>perhaps\n{tag}"), "unclosed thought"),
    "an open thought, apart": (lambda tag: answer(None, reasoning_content=tag), "unclosed thought"),
    "prose": (lambda tag: answer("About three."), "unreadable"),
    "refused": (lambda tag: answer(None, refusal="I cannot."), "refusal"),
    "refused in a part": (lambda tag: answer([{"type": "refusal", "refusal": "No."}]), "refusal"),
    "filtered": (lambda tag: answer(tag, finish="content_filter"), "content_filter"),
    "filtered, 400": (lambda tag: refusal(400, "no", {"code": "content_filter"}), "content_filter"),
    "filtered, inside": (
        lambda tag: refusal(400, "no", {"innererror": {"code": "ResponsibleAIPolicyViolation"}}),
        "content_filter",
    ),
    "too long": (
        lambda tag: refusal(400, "no", {"code": "context_length_exceeded"}),
        "context_length_exceeded",
    ),
    "too long, in words": (lambda tag: refusal(400, TOO_LONG), "context_length_exceeded"),
    "too long, another form": (
        lambda tag: (400, json.dumps({"object": "error", "message": TOO_LONG}).encode(), {}),
        "context_length_exceeded",
    ),
    "a tool": (lambda tag: answer(None, finish="tool_calls"), "tool_calls"),
}


@pytest.mark.parametrize(("play", "reason"), NO_VERDICT.values(), ids=NO_VERDICT)
def test_one_prompt_without_a_verdict_is_none_counted_kept_and_the_rest_goes_on(tmp_path, play, reason):
    def bad(messages, number):
        nonce = nonce_of(messages)
        spoilt = "in words 7." in messages[-1]["content"]
        return play(f"<count-{nonce}>9</count-{nonce}>") if spoilt else good(messages, number)

    texts = [f"Not B, in words {i}." for i in range(8)]
    pairs = [(QUESTION, text) for text in texts]
    truth = [{"drc": expected(build_judge_messages(QUESTION, text, "drc"))} for text in texts]
    with serving(bad) as server:
        judge = rubric_judge(asker(server), tmp_path, ("drc",))
        got = judge_many(pairs, judge, workers=4)
        assert got == [*truth[:7], {"drc": None}] and len(server.bodies) == 8
        (row,) = judge.report().reset_index().to_dict("records")
        assert row == {"measure": "drc", "verdicts": 8, "counted": 7, reason: 1}
        stored = [json.loads(line) for line in judge.cache.path.read_text().splitlines()[1:]]
        assert [row["reason"] for row in stored if row["count"] is None] == [reason]

        assert rubric_judge(asker(server), tmp_path, ("drc",))(*pairs[7]) == {"drc": None}
        others = tuple(other for other in REASONS if other != reason)
        assert rubric_judge(asker(server), tmp_path, ("drc",), again=others)(*pairs[7]) == {"drc": None}
        assert len(server.bodies) == 8  # kept
        server.play = good
        again = rubric_judge(asker(server), tmp_path, ("drc",), again=(reason,))
        assert judge_many(pairs, again, workers=4) == truth and len(server.bodies) == 9
        assert judge_many(pairs, rubric_judge(Replay(again.cache.path), measures=("drc",))) == truth


def test_what_is_asked_again_is_asked_once_in_a_judges_life(tmp_path):
    with serving(lambda messages, number: answer(None, refusal="No.")) as server:
        rubric_judge(asker(server), tmp_path, ("drc",))(QUESTION, "text")
        judge = rubric_judge(asker(server), tmp_path, ("drc",), again=("refusal",))
        assert [judge(QUESTION, "text") for _ in range(3)] == [{"drc": None}] * 3
        assert len(server.bodies) == 2
    for wrong in ("refusal", ("refused",)):
        with pytest.raises(ValueError, match="again is .*expected a tuple of some of .*'refusal'"):
            rubric_judge(asker(server), tmp_path, again=wrong)
    with pytest.raises(ValueError, match="asks nobody"):
        rubric_judge(Replay(judge.cache.path), again=("refusal",))


# ---------------------------------------------------------------------------------------------- limits, redirects, proxies


def drip(first: bytes):
    """Ten bytes at once, then one every 20 ms for ever."""

    def play(handler):
        handler.wfile.write(first)
        while not handler.server.released.wait(0.02):
            handler.wfile.write(b" ")
            handler.wfile.flush()

    return lambda messages, number: play


@pytest.mark.parametrize(
    "first",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 99999\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX-Slow: ",
        b"HTTP/1.1 500 No\r\nContent-Length: 9999\r\n\r\n",
    ],
    ids=["body", "headers", "error"],
)
def test_a_request_has_an_end_however_slowly_the_server_drips(first):
    with (
        serving(drip(first)) as server,
        pytest.raises(JudgeError, match="did not answer within 0.3 s in 1 tries"),
    ):
        asker(server, timeout=0.3, retries=0)(MESSAGES)


def bomb(megabytes: int) -> bytes:
    packer = zlib.compressobj(9, wbits=31)
    block = bytes(1_000_000)
    return b"".join(packer.compress(block) for _ in range(megabytes)) + packer.flush()


@pytest.mark.parametrize(
    "fault",
    [
        (200, bomb(100), {"content_encoding": "gzip"}),
        (500, bomb(20), {"content_encoding": "gzip"}),
        (200, b" " * 5_000_000, {}),
    ],
    ids=["a bomb", "a bomb as an error", "a long answer"],
)
def test_an_answer_has_a_largest_size_after_unpacking(fault):
    with serving(lambda messages, number: fault) as server:
        tracemalloc.start()
        try:
            with pytest.raises(JudgeError, match="more than 4000000 bytes, unpacked"):
                asker(server)(MESSAGES)
            assert tracemalloc.get_traced_memory()[1] < 16_000_000
        finally:
            tracemalloc.stop()
        assert len(server.bodies) == 1


def test_packed_answers_are_read_and_unknown_packing_is_named():
    def play(messages, number):
        status, body, _ = answer(" " * 300_000 + verdict(messages))
        packed = {
            1: ("gzip", gzip.compress(body)),
            2: ("deflate", zlib.compress(body)),
            3: ("br", body),
            4: ("gzip", body),
        }
        return status, packed[number][1], {"content_encoding": packed[number][0]}

    with serving(play) as server:
        ask = asker(server)
        assert ask(MESSAGES).text == ask(MESSAGES).text == " " * 300_000 + verdict(MESSAGES)
        for sentence in ("packs its answers as 'br'", "is not gzip, though it says so"):
            with pytest.raises(JudgeError, match=sentence):
                ask(MESSAGES)


@pytest.mark.parametrize(
    ("encoding", "pack", "lost"),
    [("gzip", gzip.compress, 12), ("gzip", gzip.compress, 1), ("deflate", zlib.compress, 3)],
)
def test_a_packed_answer_that_ends_early_may_pass(encoding, pack, lost):
    def play(messages, number):
        status, body, _ = answer(verdict(messages))
        packed = pack(body)
        return status, packed[:-lost] if number == 1 else packed, {"content_encoding": encoding}

    with serving(play) as server:
        reply = asker(server)(MESSAGES)
    assert (reply.text, reply.retries) == (verdict(MESSAGES), 1)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_refused_and_its_target_gets_nothing(status):
    with serving(good) as other:
        fault = status, b"", {"location": f"{other.url}/chat/completions"}
        with serving(lambda messages, number: fault) as server:
            with pytest.raises(
                JudgeError, match=f"{status}, a redirect to {other.url}/chat.*nothing was sent there"
            ):
                asker(server)(MESSAGES)
            assert len(server.bodies) == 1 and other.bodies == []


DEAD = "http://me:hunter2@127.0.0.1:9"  # nobody listens there


@pytest.mark.parametrize("variable", ["HTTP_PROXY", "http_proxy", "ALL_PROXY"])
def test_a_proxy_is_named_when_the_connection_fails_and_never_stands_before_this_machine(
    monkeypatch, variable
):
    monkeypatch.setenv(variable, DEAD)
    with pytest.raises(
        JudgeError, match=f"judge.example/v1, through the proxy in {variable}, could not be"
    ) as caught:
        OpenAIServer("http://judge.example/v1", "tiny", retries=0)(MESSAGES)
    assert "hunter2" not in str(caught.value)
    with serving(good) as server:
        assert asker(server)(MESSAGES).text == verdict(MESSAGES)
        there = server.url.replace("127.0.0.1", "localhost")
        assert OpenAIServer(there, "tiny")(MESSAGES).text == verdict(MESSAGES)
    monkeypatch.setenv("NO_PROXY", "judge.example")
    assert proxy_variable("http://judge.example/v1") is None
    assert proxy_variable("http://[::1]:8000/v1") is None


@pytest.mark.parametrize("value", ["ftp://me:hunter2@proxy:1", "http://me:hunter2@proxy:port"])
def test_a_proxy_that_is_none_is_refused_without_its_password(monkeypatch, value):
    monkeypatch.setenv("ALL_PROXY", value)
    with pytest.raises(ValueError, match=r"a proxy variable \(ALL_PROXY\) names no proxy") as caught:
        OpenAIServer("http://judge.example/v1", "tiny")
    assert "hunter2" not in str(caught.value)


# ------------------------------------------------------------------------------------------------------------ secrets

ODD_KEY = 'sk-"quoted"\\and/slashed+0123'


@pytest.mark.parametrize("key", [KEY, ODD_KEY, "SK-UPPER-0123456789"])
def test_a_key_that_a_server_repeats_stands_in_no_file_and_no_error(tmp_path, monkeypatch, key):
    monkeypatch.setenv("OPENAI_API_KEY", key)
    echoes = [
        lambda messages: answer(f"your key is {key}, Bearer {key}, {json.dumps(key)}\n{verdict(messages)}"),
        lambda messages: answer(verdict(messages), finish=f"stop {key}"),
        lambda messages: refusal(400, f"Bearer {key}", {"code": "content_filter"}),
        lambda messages: answer(None, refusal=f"not with {key}"),
        lambda messages: answer(f"no count for {key}", finish="length"),
        lambda messages: refusal(401, f"wrong: {key}"),
    ]
    with serving(lambda messages, number: echoes[number - 1](messages)) as server:
        judge = rubric_judge(asker(server), tmp_path, ("drc",))
        for i in range(5):
            judge(QUESTION, f"text {i}")
        with pytest.raises(JudgeError, match=r"\[OPENAI_API_KEY\]") as caught:
            judge(QUESTION, "text 5")
        assert server.keys == {f"Bearer {key}"}
    for written in (judge.cache.path.read_text(), str(caught.value)):
        forms = [key, json.dumps(key)[1:-1], json.dumps(json.dumps(key)[1:-1])[1:-1], key.lower()]
        assert not any(form in written for form in forms)
    assert (
        judge.totals.outcomes["drc", "counted"] == 2
    )  # what a server repeats beside its count changes nothing


def test_scrubbing_leaves_short_placeholders_and_everything_else_alone():
    assert scrub("EMPTY words", "EMPTY", "KEY") == "EMPTY words"
    assert scrub("EMPTY words", "EMPTY", "KEY", shortest=1) == "[KEY] words"
    assert scrub("words", "", "KEY", shortest=1) == "words"
    assert scrub(r"a\/b/cdefgh a/b/cdefgh a%2Fb%2Fcdefgh", "a/b/cdefgh", "KEY") == r"a\/b/cdefgh [KEY] [KEY]"
    assert scrub(r"a\/b\/cdefgh", "a/b/cdefgh", "KEY") == "[KEY]"


# ------------------------------------------------------------------------------------------------- forms of answers


@pytest.mark.parametrize(
    ("content", "expected_text"),
    [
        (None, ""),
        ("a", "a"),
        ([{"type": "text", "text": "a"}, {"type": "text", "text": "b"}], "ab"),
        (
            [
                {"type": "thinking", "thinking": [{"type": "text", "text": "no"}]},
                {"type": "text", "text": "b"},
            ],
            "b",
        ),
        ([{"type": "image_url", "image_url": {}}], ""),
    ],
)
def test_content_is_a_text_or_a_list_of_parts(content, expected_text):
    assert read_content(content) == (expected_text, False)


@pytest.mark.parametrize("content", [3, {"type": "text"}, ["a"], [{"type": "text", "text": 3}], [None], True])
def test_content_of_another_type_is_no_chat_completion(content):
    with serving(lambda messages, number: answer(content)) as server:
        with pytest.raises(JudgeError, match="not with a chat completion"):
            asker(server)(MESSAGES)
        assert len(server.bodies) == 1


@pytest.mark.parametrize(
    ("usage", "tokens"),
    [
        ("many", (None, None)),
        ([1, 2], (None, None)),
        ({"prompt_tokens": "many", "completion_tokens": 3}, (None, 3)),
        ({"prompt_tokens": -1, "completion_tokens": 2.5}, (None, None)),
        ({"prompt_tokens": True, "completion_tokens": None}, (None, None)),
        ({"prompt_tokens": 5, "completion_tokens": 0}, (5, 0)),
    ],
)
def test_usage_of_another_type_is_unknown(usage, tokens):
    with serving(
        lambda messages, number: answer([{"type": "text", "text": "a"}], usage, finish=None)
    ) as server:
        reply = asker(server, dollars_per_million=(1.0, 1.0))(MESSAGES)
    assert (reply.text, reply.prompt_tokens, reply.completion_tokens) == ("a", *tokens)
    assert reply.finish_reason is None
    assert (reply.dollars is None) == (None in tokens)


# -------------------------------------------------------------------------------------------------------- environment


@pytest.mark.parametrize(
    ("variables", "sent"),
    [
        ({}, {"max_tokens": 1024, "temperature": 0.0, "top_p": 1.0, "seed": 0}),
        (
            {"MAX_TOKENS": "4096", "TEMPERATURE": "0.6"},
            {"max_tokens": 4096, "temperature": 0.6, "top_p": 1.0, "seed": 0},
        ),
        (
            {"LIMIT_NAME": "max_completion_tokens", "TEMPERATURE": ""},
            {"max_completion_tokens": 1024, "seed": 0},
        ),
        ({"MAX_TOKENS": "", "LIMIT_NAME": ""}, {"temperature": 0.0, "top_p": 1.0, "seed": 0}),
    ],
)
def test_the_environment_sets_limit_and_temperature(monkeypatch, variables, sent):
    with serving(good) as server:
        monkeypatch.setenv(models.URL_VARIABLE, server.url)
        monkeypatch.setenv(models.MODEL_VARIABLE, "tiny")
        for name, value in variables.items():
            monkeypatch.setenv(f"CLINICAL_R1_JUDGE_{name}", value)
        server_from_environment()(MESSAGES)
    assert {k: v for k, v in server.bodies[0].items() if k not in ("model", "messages")} == sent


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("MAX_TOKENS", "many"),
        ("MAX_TOKENS", "0"),
        ("MAX_TOKENS", "1.5"),
        ("TEMPERATURE", "-1"),
        ("TEMPERATURE", "nan"),
        ("TEMPERATURE", "hot"),
        ("LIMIT_NAME", "max tokens"),
        ("LIMIT_NAME", "messages"),
        ("LIMIT_NAME", "stream"),
        ("LIMIT_NAME", "n"),
    ],
)
def test_a_variable_that_makes_no_sense_is_named(monkeypatch, name, value):
    monkeypatch.setenv(models.URL_VARIABLE, "http://127.0.0.1:1/v1")
    monkeypatch.setenv(models.MODEL_VARIABLE, "tiny")
    monkeypatch.setenv(f"CLINICAL_R1_JUDGE_{name}", value)
    with pytest.raises(ValueError, match=f"CLINICAL_R1_JUDGE_{name} is '{re.escape(value)}'; expected"):
        server_from_environment()


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"MODEL": "tiny"}, "CLINICAL_R1_JUDGE_MODEL is set and CLINICAL_R1_JUDGE_URL is not"),
        ({"URL": " ", "MODEL": "tiny", "MAX_TOKENS": "9"}, "MAX_TOKENS, CLINICAL_R1_JUDGE_MODEL is set and"),
        ({"TEMPERATURE": "0"}, "CLINICAL_R1_JUDGE_TEMPERATURE is set and"),
        ({"URL": "http://127.0.0.1:1/v1"}, "CLINICAL_R1_JUDGE_URL is set and CLINICAL_R1_JUDGE_MODEL is not"),
        (
            {"URL": "http://127.0.0.1:1/v1", "MODEL": "tiny", "TEMP": "1"},
            "CLINICAL_R1_JUDGE_TEMP is set and read by nobody",
        ),
        (
            {"BASE_URL": "http://127.0.0.1:1/v1", "MODEL": "tiny"},
            "CLINICAL_R1_JUDGE_BASE_URL is set and read by nobody",
        ),
    ],
)
def test_a_variable_that_would_do_nothing_is_named(monkeypatch, variables, message):
    for name, value in variables.items():
        monkeypatch.setenv(f"CLINICAL_R1_JUDGE_{name}", value)
    with pytest.raises(ValueError, match=message):
        server_from_environment()


def test_a_key_alone_asks_for_no_judge(monkeypatch):
    monkeypatch.setenv(models.KEY_VARIABLE, "secret")
    assert server_from_environment() is None


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("retries", value) for value in (-1, 1.5, None, True)),
        *(("timeout", value) for value in (0, math.nan, math.inf, "5")),
        *(("max_tokens", value) for value in (0, "5", 1.5)),
        *(("temperature", value) for value in (-1, math.nan, math.inf, "0")),
        *(("top_p", value) for value in (2, -0.1)),
        *(("requests_per_minute", value) for value in (0, -1)),
        *(("dollars_per_million", value) for value in ((1,), (1, -1), (1, "2"))),
        *(("limit_name", value) for value in ("messages", "n", "")),
        ("model", ""),
        ("seed", "x"),
        ("max_reply_bytes", 0),
    ],
)
def test_a_field_that_makes_no_sense_is_refused_before_anything_is_asked(name, value):
    with pytest.raises(ValueError, match=f"the judge's {name} is {re.escape(repr(value))}; expected"):
        OpenAIServer("http://127.0.0.1:1/v1", **({"model": "tiny"} | {name: value}))


def test_a_key_in_the_place_of_its_variable_is_not_repeated():
    for value in ("", "sk-live-1234567890"):
        with pytest.raises(ValueError, match="api_key_variable is no name of an environment") as error:
            OpenAIServer("http://127.0.0.1:1/v1", "tiny", api_key_variable=value)
        assert "1234567890" not in str(error.value)


# -------------------------------------------------------------------------------------------------------- system turns

NO_SYSTEM = {
    "a server's template": refusal(400, "System role not supported"),
    "a template's own error": refusal(
        500, "jinja2.exceptions.TemplateError: Conversation roles must alternate"
    ),
    "a hosted model": refusal(
        400, "Unsupported value: 'messages[0].role' does not support 'system' with this model."
    ),
    "a list of roles": (422, b'{"detail": "Only user and assistant roles are supported!"}', {}),
}


@pytest.mark.parametrize("fault", NO_SYSTEM.values(), ids=NO_SYSTEM)
def test_a_refused_system_turn_is_folded_into_the_users_said_once_and_kept_apart(tmp_path, capsys, fault):
    def play(messages, number):
        return fault if messages[0]["role"] == "system" else good(messages, number)

    chat.say_once.cache_clear()
    folded = expected(fold_system(MESSAGES))
    with serving(play) as server:
        judge = rubric_judge(asker(server), tmp_path, ("drc",))
        assert judge(QUESTION, "text") == {"drc": folded}
        judge(QUESTION, "more text")
        assert [len(body["messages"]) for body in server.bodies] == [2, 1, 1]
        shown = server.bodies[1]["messages"][0]
        assert shown["role"] == "user" and shown["content"] == "\n\n".join(m["content"] for m in MESSAGES)
        assert capsys.readouterr().err.count("the model tiny takes no system turn") == 1
        rows = [json.loads(line) for line in judge.cache.path.read_text().splitlines()[1:]]
        assert [row["system_turn"] for row in rows] == ["folded"] * 2
        assert rubric_judge(asker(server), tmp_path, ("drc",))(QUESTION, "text") == {"drc": folded}
        assert len(server.bodies) == 3  # another process finds it without asking
    assert rubric_judge(Replay(judge.cache.path), measures=("drc",))(QUESTION, "text") == {"drc": folded}


def test_a_refusal_that_folding_does_not_mend_is_said_in_the_servers_words():
    faults = [refusal(400, "unknown chat template x"), refusal(400, "another fault")]
    with serving(lambda messages, number: faults[number - 1]) as server:
        with pytest.raises(
            JudgeError, match="refused the request for model 'tiny' .*unknown chat template x"
        ):
            asker(server)(MESSAGES)
        assert len(server.bodies) == 2


def test_a_server_known_to_drop_system_turns_gets_none(tmp_path):
    with serving(good) as server:
        rubric_judge(asker(server), tmp_path, ("drc",))(QUESTION, "text")
        judge = rubric_judge(asker(server, system_turn=False), tmp_path, ("drc",))
        assert judge(QUESTION, "text") == {"drc": expected(fold_system(MESSAGES))}
        assert judge.totals.requests == 1, "the verdict with a system turn is another verdict"
        server.bodies.clear()
        assert asker(server, system_turn=False)(MESSAGES).folded
        assert [message["role"] for message in server.bodies[0]["messages"]] == ["user"]


TURN = "<|{{ message['role'] }}|> {{ message['content'] }} "
WITHOUT_SYSTEM = {
    "drops it": "{% for message in messages %}{% if message['role'] != 'system' %}"
    + TURN
    + "{% endif %}{% endfor %}",
    "refuses it": "{% for message in messages %}{% if message['role'] == 'system' %}"
    "{{ raise_exception('System role not supported') }}{% endif %}" + TURN + "{% endfor %}",
    "takes it for the assistant": None,  # the clinic base model's own
}


@pytest.fixture(scope="module")
def tokenizer():
    return models.load_tokenizer("clinic-base")


@pytest.mark.parametrize("template", WITHOUT_SYSTEM)
def test_a_local_model_that_takes_no_system_turn_reads_the_instructions_as_the_user(
    tokenizer, monkeypatch, template
):
    monkeypatch.setattr(tokenizer, "chat_template", WITHOUT_SYSTEM[template] or tokenizer.chat_template)
    monkeypatch.setattr(models, "load_tokenizer", lambda name: tokenizer)
    ask = LocalModel("clinic-base", max_tokens=2)
    short = [{"role": "system", "content": "Think and answer."}, {"role": "user", "content": "fever"}]
    reply = ask(short)
    assert reply.folded and reply == ask(fold_system(short))
    if template != "takes it for the assistant":
        with pytest.raises(ValueError, match="leaves out the system turn|System role not supported"):
            render_chat(tokenizer, short)


def test_a_local_model_with_a_system_turn_gets_one(tokenizer, monkeypatch):
    turn = "{% for message in messages %}" + TURN + "{% endfor %}"
    monkeypatch.setattr(tokenizer, "chat_template", turn)
    monkeypatch.setattr(models, "load_tokenizer", lambda name: tokenizer)
    ask = LocalModel("clinic-base", max_tokens=2)
    short = [{"role": "system", "content": "Think and answer."}, {"role": "user", "content": "fever"}]
    assert not ask(short).folded
    # A template that opens a thought: what follows is a thought until it is closed.
    monkeypatch.setattr(
        tokenizer, "chat_template", turn + "{% if add_generation_prompt %}<think>\n{% endif %}"
    )
    assert ask(short).text.startswith("<think>\n")
    assert ask(short).finish_reason == "length"
    # More tokens than the model has positions for.
    long = [{"role": "user", "content": "fever " * 600}]
    assert (ask(long).finish_reason, ask(long).completion_tokens) == ("context_length_exceeded", 0)


def test_backoff_doubles_to_eight_seconds(pauses, monkeypatch):
    monkeypatch.setattr(random, "uniform", lambda low, high: high)
    with pytest.raises(transport.Lasting, match="failed in 7 tries; look"):
        transport.persist(lambda: (_ for _ in ()).throw(transport.Passing("failed in", "; look")), 6)
    assert pauses == [0.5, 1, 2, 4, 8, 8]
