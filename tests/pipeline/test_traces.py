"""Teacher traces: what is kept and why not, all tries on disk, the same bytes after a kill, and a cold start that takes them.

Run: pytest tests/pipeline/test_traces.py
"""

import json
from dataclasses import replace

import numpy as np
import pytest
from judge_server import answer, refusal, serving

from clinical_r1.clinic.cases import Case
from clinical_r1.clinic.traces import HONEST, write_trace
from clinical_r1.curation.splits import write_splits
from clinical_r1.files import PipelineError, read_json, read_jsonl
from clinical_r1.models import load_tokenizer
from clinical_r1.pipeline import traces
from clinical_r1.pipeline.__main__ import main
from clinical_r1.prompts import build_messages
from clinical_r1.questions import read_questions
from clinical_r1.settings import settings_for
from clinical_r1.train import teacher_rows


@pytest.fixture(scope="module")
def settings(tmp_path_factory):
    made = replace(settings_for("smoke", tmp_path_factory.mktemp("run")), eval_batch=5)
    write_splits(made)
    return made


@pytest.fixture
def questions(settings):
    return read_questions(settings.questions_path("clinic", "sft"))[:12]


def right(question, style) -> str:
    """A well-formed right answer of the clinic's careful student."""
    case = Case.from_json(question.meta["case"])
    texts = (write_trace(case, style, HONEST, np.random.default_rng(seed)) for seed in range(100))
    return next(
        text
        for text in texts
        if traces.reason_against(
            {"text": text, "style": style, "finish_reason": "stop", "tokens": 1}, question, 100
        )
        is None
    )


class Scripted:
    """An engine whose answers are a function of the question, the style and the seed; stops when `left` runs out."""

    identity = {"engine": "scripted"}

    def __init__(self, questions, says, left=10**9):
        self.says, self.left, self.asked = says, left, []
        self.known = {
            self.prompt(build_messages(question, style, layout)): (question, style)
            for question in questions
            for style in ("crpo", "grpo")
            for layout in ("clinic", "full")
        }

    def prompt(self, messages, forced=""):
        return json.dumps(messages) + forced

    def check(self, prompts, settings, what):
        assert set(prompts) <= self.known.keys()

    def answer(self, prompts, settings, protocol, seeds):
        answers = []
        for prompt, seed in zip(prompts, seeds, strict=True):
            if not self.left:
                raise KeyboardInterrupt
            self.left -= 1
            self.asked.append((*self.known[prompt], seed))
            text, reason = self.says(*self.known[prompt], seed)
            answers.append({"text": text, "finish_reason": reason, "tokens": 1})
        return answers


def sometimes(question, style, seed):
    """Right in a third of the tries."""
    return (right(question, style) if seed % 3 == 0 else "no idea"), "stop"


def asked(settings, engine, questions, tmp_path, **options):
    request = traces.Request(tmp_path / "to.jsonl", **options)
    rows = traces.ask(settings, engine, questions, request, load_tokenizer("clinic-base"))
    return request, rows


def test_each_reason_is_named_and_the_first_that_holds_counts(settings, questions):
    question = questions[0]
    good = right(question, "crpo")
    wrong = next(letter for letter in question.options if letter != question.answer)

    def reason(text=good, finish="stop", tokens=50):
        row = {"text": text, "style": "crpo", "finish_reason": finish, "tokens": tokens}
        return traces.reason_against(row, question, 80)

    found = {
        None: reason(),
        "no_text": reason("  ", "content_filter"),
        "cut": reason(finish="length"),
        "not_well_formed": reason(good.replace("</dx>", "")),
        "no_letter": reason(good.replace("\\boxed", "")),
        "wrong": reason(good.replace(f"\\boxed{{{question.answer}}}", f"\\boxed{{{wrong}}}")),
        "too_long": reason(tokens=81),
    }
    assert list(found) == [None, *traces.REASONS] == list(found.values())
    assert reason("no idea", "length") == "cut" and reason(tokens=80) is None


def test_a_question_is_asked_until_a_try_is_kept_and_never_after(settings, questions, tmp_path):
    engine = Scripted(questions, sometimes)
    request, rows = asked(settings, engine, questions, tmp_path, tries=6)
    assert [row["id"] for row in rows] == [question.id for question, *_ in engine.asked]
    assert len({seed for *_, seed in engine.asked}) == len(rows)  # each try has a seed of its own
    by_question = {question.id: [row for row in rows if row["id"] == question.id] for question in questions}
    for i, (name, tries) in enumerate(by_question.items()):
        assert {row["style"] for row in tries} == {("crpo", "grpo")[i % 2]}, name
        assert [row["try"] for row in tries] == list(range(len(tries)))
        assert all(row["reason"] is not None for row in tries[:-1])
        assert tries[-1]["reason"] is None or len(tries) == 6
    report = traces.keep(rows, questions, "scripted", request)
    kept = [name for name, tries in by_question.items() if tries[-1]["reason"] is None]
    assert [row["id"] for row in read_jsonl(request.to)] == kept and 0 < len(kept)
    assert read_jsonl(request.tries_file) == rows
    assert report == read_json(request.to.with_suffix(".report.json"))
    assert report["all"]["kept"] == len(kept) == sum(report["all"]["kept_in_try"])
    assert report["all"]["tries"] == len(rows)
    assert report["all"]["reasons"] == {"not_well_formed": len(rows) - len(kept)}
    assert report["crpo"]["asked"] + report["grpo"]["asked"] == 12
    lengths = sorted(row["tokens"] for row in read_jsonl(request.to))
    assert report["all"]["tokens"]["max"] == lengths[-1]
    assert report["all"]["tokens"]["median"] == np.median(lengths)
    low, high = report["all"]["yield"][1:]
    assert 0 < low < len(kept) / 12 < high <= 1


@pytest.mark.parametrize("left", [0, 3, 5, 13, 21])
def test_after_a_kill_the_bytes_are_the_same(settings, questions, tmp_path, left):
    whole, rows = asked(settings, Scripted(questions, sometimes), questions, tmp_path, tries=3)
    traces.keep(rows, questions, "scripted", whole)
    killed = traces.Request(tmp_path / "killed.jsonl", tries=3)
    student = load_tokenizer("clinic-base")
    with pytest.raises(KeyboardInterrupt):
        traces.ask(settings, Scripted(questions, sometimes, left), questions, killed, student)
    partial = killed.tries_file.with_suffix(".partial")
    with open(partial, "ab") as file:
        file.write(b'{"id": "torn')  # a line that the kill cut
    again = Scripted(questions, sometimes)
    rows = traces.ask(settings, again, questions, killed, student)
    assert left - 5 < len(rows) - len(again.asked) <= left  # whole batches are not asked again
    traces.keep(rows, questions, "scripted", killed)
    for suffix in (".jsonl", ".tries.jsonl", ".report.json", ".tries.json"):
        assert killed.to.with_suffix(suffix).read_bytes() == whole.to.with_suffix(suffix).read_bytes()
    assert not partial.exists() and not partial.with_suffix(".partial.json").exists()
    nobody = Scripted(questions, sometimes, 0)
    assert traces.ask(settings, nobody, questions, killed, student) == rows  # finished: no one is asked


def test_tries_of_other_questions_or_another_model_are_refused(settings, questions, tmp_path):
    asked(settings, Scripted(questions, sometimes), questions, tmp_path, tries=2)
    with pytest.raises(ValueError, match="made from something else .questions was .* name another file with"):
        asked(settings, Scripted(questions, sometimes), questions[:5], tmp_path, tries=2)
    other = replace(settings, eval_temperature=0.5)
    with pytest.raises(ValueError, match=r"eval_temperature was 0.8, now 0.5"):
        asked(other, Scripted(questions, sometimes), questions, tmp_path, tries=2)
    engine = Scripted(questions, sometimes)
    engine.identity = {"engine": "another"}
    with pytest.raises(ValueError, match="engine was {'engine': 'scripted'}, now {'engine': 'another'}"):
        asked(settings, engine, questions, tmp_path, tries=2)


def test_nothing_kept_is_an_error_and_all_tries_stay(settings, questions, tmp_path):
    never = Scripted(questions, lambda question, style, seed: ("no idea", "stop"))
    request, rows = asked(settings, never, questions, tmp_path, tries=2)
    with pytest.raises(PipelineError, match=r"none of the 24 tries of x is a trace \(24 not_well_formed\)"):
        traces.keep(rows, questions, "x", request)
    assert len(read_jsonl(request.tries_file)) == 24 and not request.to.exists()


@pytest.mark.parametrize(
    ("options", "words"),
    [({"tries": 0}, "tries is 0"), ({"limit": 0}, "limit 0"), ({"temperature": 0.0}, "use --tries 1")],
)
def test_a_request_that_makes_no_sense_is_refused(tmp_path, options, words):
    with pytest.raises(ValueError, match=words):
        traces.Request(tmp_path / "to.jsonl", **options)
    with pytest.raises(ValueError, match="ends in .jsonl"):
        traces.Request(tmp_path / "to.json")


def by_stem(questions):
    """A play for the scripted server: the right answer in the style that is asked for; nothing for the first question."""

    def play(messages, number):
        said = messages[-1]["content"]
        question = next(question for question in questions if question.stem in said)
        style = "crpo" if "<dx>" in said else "grpo"
        return answer("" if question is questions[0] else right(question, style))

    return play


def test_the_command_asks_a_server_and_a_cold_start_takes_the_traces(settings, questions, capsys):
    to = settings.run_dir / "traces" / "tiny.jsonl"
    command = ["traces", "smoke", "--out", settings.out, "--teacher", "tiny", "--limit", "12", "--tries", "2"]
    with serving(by_stem(questions)) as server:
        assert main([*command, "--server", server.url]) == 0
    said = capsys.readouterr().out
    assert "all: 11 of 12 questions have a trace (92 %" in said and "2 no_text" in said and str(to) in said
    rows = teacher_rows(replace(settings, teacher_traces=str(to)))
    assert len(rows) == 11
    assert rows[0]["completion"][0]["content"] == right(questions[1], "grpo")
    assert main([*command, "--key-variable", "KEY"]) == 2
    assert "give the server with --server" in capsys.readouterr().err


def test_a_server_that_refuses_ends_in_one_sentence(settings, capsys):
    with serving(lambda *_: refusal(401, "no such key")) as server:
        to = str(settings.run_dir / "traces" / "refused.jsonl")
        command = ["traces", "smoke", "--out", settings.out, "--teacher", "tiny", "--limit", "2", "--to", to]
        assert main([*command, "--server", server.url]) == 1
    said = capsys.readouterr().err
    assert "no such key" in said and "Traceback" not in said
