"""Teacher traces for the cold start: any engine is asked for reasoning about the SFT questions, and what is right is kept.

    python -m clinical_r1.pipeline traces paper --teacher Qwen/Qwen2.5-32B-Instruct --tries 4
    python -m clinical_r1.pipeline traces paper --teacher gpt-4o --server https://api.openai.com/v1 --key-variable OPENAI_API_KEY

Questions take the two styles in turn, as the clinic's scripted teacher does. One that has no trace yet is asked again, with
another seed, up to `tries` times; its first try that passes every check of `REASONS` is its trace (rejection sampling: STaR,
Zelikman et al. 2022). Easy questions pass more often, so the report says how many of each style did, and why the others did not.

<to>.jsonl is what `teacher_traces` of the settings names; <to>.tries.jsonl keeps every try, <to>.report.json the counts.
"""

import hashlib
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from clinical_r1.arms import STYLES
from clinical_r1.artifacts import code_hash, digest
from clinical_r1.completions import parse_completion
from clinical_r1.curation.splits import ensure_splits
from clinical_r1.engines.chat import ChatError
from clinical_r1.files import (
    DATA_VARIABLE,
    PipelineError,
    json_line,
    locked,
    read_json,
    read_jsonl,
    read_stamp,
    sha256,
    stamp_path,
    write_json,
    write_stamp,
    write_stamped,
)
from clinical_r1.generate import kept_batches
from clinical_r1.intervals import wilson_interval
from clinical_r1.prompts import build_messages
from clinical_r1.questions import Question, read_questions
from clinical_r1.settings import Settings

REASONS = {  # in the order in which a try is looked at; the first that holds is named
    "no_text": "the model gave no text, such as a refusal",
    "cut": "it was cut at the limit of tokens",
    "not_well_formed": "the format does not hold (`completions.FORMAT_PROBLEMS`)",
    "no_letter": "no single answer can be read",
    "wrong": "another letter than the key",
    "too_long": "more tokens of the student's tokenizer than max_completion_tokens, its end included",
}


@dataclass(frozen=True)
class Request:
    """What is asked of a teacher. to: the file of traces. temperature: of every try; at 0 one try is all there is."""

    to: Path
    tries: int = 4
    temperature: float = 0.8
    limit: int | None = None

    def __post_init__(self):
        if self.tries < 1 or self.temperature < 0 or (self.limit is not None and self.limit < 1):
            raise ValueError(
                f"tries is {self.tries}, temperature {self.temperature:g}, limit {self.limit}; expected at least one try and "
                "one question, and a temperature of at least 0."
            )
        if self.temperature == 0 and self.tries > 1:
            raise ValueError("greedy tries are all the same; use --tries 1, or a temperature above 0.")
        if self.to.suffix != ".jsonl":
            raise ValueError(f"--to is {self.to}; expected a name that ends in .jsonl.")

    @property
    def tries_file(self) -> Path:
        return self.to.with_suffix(".tries.jsonl")


def default_file(settings: Settings, teacher: str) -> Path:
    """runs/<profile>/traces/<teacher>.jsonl."""
    name = "".join(c if c.isalnum() or c in "-_" else "-" for c in teacher.rstrip("/").rpartition("/")[2])
    return settings.run_dir / "traces" / f"{name.strip('-') or 'teacher'}.jsonl"


def engine_of(settings: Settings, teacher: str, server: str | None = None, key_variable: str | None = None):
    """The engine that answers as the teacher: a model behind a server, or one loaded here (`settings.engine`)."""
    if server:
        from clinical_r1.engines.server import Server

        return Server(server, teacher, api_key_variable=key_variable)
    if settings.engine == "vllm":
        from clinical_r1.engines import vllm

        return vllm.load(teacher, settings)
    from clinical_r1.engines.local import Transformers
    from clinical_r1.models import load_policy, load_tokenizer

    return Transformers(load_policy(teacher, settings), load_tokenizer(teacher))


def make_traces(
    settings: Settings, teacher: str, request: Request, server: str | None = None, key_variable=None
) -> dict:
    """Ask a teacher and write its traces; returns the report. A killed call goes on where it stopped, to the same bytes.

    PipelineError when no try of any question is kept, or the server gives no answer: the tries stay on disk. ValueError for
    tries that were made from something else.
    """
    from clinical_r1.models import load_tokenizer

    ensure_splits(settings, os.environ.get(DATA_VARIABLE))
    questions = read_questions(settings.questions_path(settings.train_benchmark, "sft"))[: request.limit]
    asked = replace(settings, base_model=teacher, backend="trl", load_in_4bit=False, lora_rank=0)
    asked = replace(asked, eval_temperature=request.temperature)
    student = load_tokenizer(settings.base_model)
    with locked(request.to.with_name(f".{request.to.name}.lock"), str(request.to)):
        rows = ask(asked, engine_of(asked, teacher, server, key_variable), questions, request, student)
        return keep(rows, questions, teacher, request)


def ask(settings: Settings, engine, questions: Sequence[Question], request: Request, student) -> list[dict]:
    """Every try of every question, in the order asked: id, style, try, text, finish_reason, tokens (of the student), reason.

    student: the tokenizer of the model that is going to be trained. reason: None for a kept try, else one of `REASONS`.
    """
    from tqdm.auto import tqdm

    path = request.tries_file
    partial, begun = path.with_suffix(".partial"), path.with_suffix(".partial.json")
    made = _made_from(settings, engine, questions, request, student)
    if path.exists():
        _check_stamp(path, read_stamp(path, "ask for traces"), made)
        return read_jsonl(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    if begun.exists():
        _check_stamp(partial, read_json(begun), made)
    styled = [(question, STYLES[i % len(STYLES)]) for i, question in enumerate(questions)]
    layout = settings.prompt_layout
    prompts = {
        question.id: engine.prompt(build_messages(question, style, layout)) for question, style in styled
    }
    engine.check(list(prompts.values()), settings, "the SFT questions")
    ends = kept_batches(partial, begun)
    rows, kept = read_jsonl(partial) if ends else [], set()
    write_json(begun, made | {"batches": ends})
    with _Writer(partial, begun, made, ends) as out, tqdm(desc="tries", unit="answer") as bar:
        for number in range(request.tries):
            left = [each for each in styled if each[0].id not in kept]
            bar.total = bar.n + len(left) * (request.tries - number)  # the most that can be left
            for start in range(0, len(left), settings.eval_batch):
                batch = left[start : start + settings.eval_batch]
                if out.is_written():
                    found = rows[out.rows : out.rows + len(batch)]
                else:
                    found = _answered(settings, engine, batch, prompts, number, student)
                    rows += found
                out.add(found)
                kept |= {row["id"] for row in found if row["reason"] is None}
                bar.update(len(batch))
    write_stamp(path, made, partial)
    os.replace(partial, path)
    begun.unlink()
    return rows


class _Writer:
    """Appends batches behind those that a killed call has left, and notes where each ends."""

    def __init__(self, partial: Path, begun: Path, made: dict, ends: list):
        self.partial, self.begun, self.made, self.ends = partial, begun, made, ends
        self.batches = self.rows = 0

    def __enter__(self):
        self.hash = hashlib.sha256(self.partial.read_bytes() if self.ends else b"")
        self.file = open(self.partial, "ab" if self.ends else "wb")
        return self

    def __exit__(self, *_):
        self.file.close()

    def is_written(self) -> bool:
        """Whether the next batch is on disk already."""
        return self.batches < len(self.ends)

    def add(self, found: list[dict]) -> None:
        if not self.is_written():
            written = "".join(map(json_line, found)).encode()
            self.file.write(written)
            self.file.flush()
            self.hash.update(written)
            self.ends.append([self.file.tell(), self.hash.hexdigest()])
            write_json(self.begun, self.made | {"batches": self.ends})
        self.batches, self.rows = self.batches + 1, self.rows + len(found)


def _made_from(settings, engine, questions, request, student) -> dict:
    sent = "eval_temperature eval_top_p max_completion_tokens eval_batch device_dtype".split()
    return {
        "teacher": settings.base_model,
        "engine": engine.identity,
        "questions": digest(*(json_line(question.to_json()) for question in questions)),
        "prompts": digest(code_hash("clinical_r1.prompts:build_messages")),
        "checks": digest(code_hash("clinical_r1.completions:parse_completion")),
        "student": hashlib.sha256(str(sorted(student.get_vocab().items())).encode()).hexdigest()[:16],
        "tries": request.tries,
        **{name: getattr(settings, name) for name in sent},
    }


def _check_stamp(path: Path, found: dict, made: dict) -> None:
    if changed := [name for name in made if found.get(name) != made[name]]:
        listed = "; ".join(f"{name} was {found.get(name)!r}, now {made[name]!r}" for name in changed)
        raise ValueError(
            f"{path} holds tries that were made from something else ({listed}); name another file with --to, or delete it."
        )


def _answered(settings, engine, batch, prompts: dict, number: int, student) -> list[dict]:
    """The rows of one batch of (question, style): each try has a seed of its own, whatever else is asked."""
    seeds = [int(digest("trace", q.benchmark, q.id, style, str(number)), 16) % 2**63 for q, style in batch]
    protocol = "sampled" if settings.eval_temperature else "greedy"
    try:
        answers = engine.answer([prompts[q.id] for q, _ in batch], settings, protocol, seeds)
    except ChatError as error:
        raise PipelineError(str(error)) from None
    rows = []
    for (question, style), answer in zip(batch, answers, strict=True):
        tokens = len(student(answer["text"], add_special_tokens=False)["input_ids"]) + 1
        row = {"id": question.id, "style": style, "try": number, "text": answer["text"]}
        row |= {"finish_reason": answer["finish_reason"], "tokens": tokens}
        rows.append(row | {"reason": reason_against(row, question, settings.max_completion_tokens)})
    return rows


def reason_against(row: dict, question: Question, limit: int) -> str | None:
    """The first of `REASONS` that speaks against a try, or None. limit: of tokens, the end token included."""
    parsed = parse_completion(row["text"], row["style"], question.options)
    found = {
        "no_text": not row["text"].strip(),
        "cut": row["finish_reason"] == "length",
        "not_well_formed": not parsed.well_formed,
        "no_letter": parsed.letter is None,
        "wrong": parsed.letter != question.answer,
        "too_long": row["tokens"] > limit,
    }
    return next((reason for reason in REASONS if found[reason]), None)


def keep(rows: Sequence[dict], questions: Sequence[Question], teacher: str, request: Request) -> dict:
    """Write the kept traces, in the order of the questions, and the report; returns the report.

    PipelineError when there is none to keep.
    """
    report = report_of(rows, teacher)
    write_json(request.to.with_suffix(".report.json"), report)
    by_id = {row["id"]: row for row in rows if row["reason"] is None}
    if not by_id:
        reasons = ", ".join(f"{count} {name}" for name, count in report["all"]["reasons"].items())
        raise PipelineError(
            f"none of the {len(rows)} tries of {teacher} is a trace ({reasons}); ask a stronger teacher, or raise --tries. All "
            f"tries are in {request.tries_file}."
        )
    traces = [
        {name: by_id[question.id][name] for name in ("id", "style", "text", "tokens")}
        for question in questions
        if question.id in by_id
    ]
    made = {"teacher": teacher, "tries": sha256(request.tries_file)}
    if not (request.to.exists() and stamp_path(request.to).exists()) or read_jsonl(request.to) != traces:
        write_stamped(request.to, traces, made)
    return report


def report_of(rows: Sequence[dict], teacher: str) -> dict:
    """Yield, reasons and lengths of all tries and of each style.

    kept, asked: questions; yield: their ratio with a 95 % Wilson interval. tries: answers; kept_in_try: of the first, second, ….
    tokens: of kept traces, with the student's tokenizer; None where none is kept.
    """
    groups = {"all": rows} | {style: [row for row in rows if row["style"] == style] for style in STYLES}
    report: dict = {"teacher": teacher}
    for name, group in groups.items():
        kept, asked = [row for row in group if row["reason"] is None], {row["id"] for row in group}
        if not asked:
            continue
        in_try, reasons = Counter(row["try"] for row in kept), Counter(row["reason"] for row in group)
        lengths = [row["tokens"] for row in kept]
        report[name] = {
            "asked": len(asked),
            "kept": len(kept),
            "yield": [len(kept) / len(asked), *wilson_interval(len(kept), len(asked))],
            "tries": len(group),
            "kept_in_try": [in_try[number] for number in range(1 + max(row["try"] for row in group))],
            "reasons": {reason: reasons[reason] for reason in REASONS if reasons[reason]},
            "tokens": _lengths(lengths) if lengths else None,
        }
    return report


def _lengths(lengths: list[int]) -> dict:
    median, high = np.percentile(lengths, [50, 90])
    return {"median": float(median), "90 %": float(high), "max": max(lengths)}


def as_text(report: dict) -> str:
    """The report in a few lines."""
    lines = []
    for name, found in report.items():
        if name == "teacher":
            continue
        share, low, high = (f"{100 * value:.0f}" for value in found["yield"])
        line = f"{name}: {found['kept']} of {found['asked']} questions have a trace ({share} %, 95 % interval {low} to {high}), "
        line += f"from {found['tries']} tries"
        if found["tokens"]:
            median, high, most = found["tokens"].values()
            line += f"; tokens: median {median:g}, 90 % {high:g}, longest {most}"
        against = ", ".join(f"{count} {reason}" for reason, count in found["reasons"].items())
        lines.append(f"{line}; rejected: {against or 'none'}")
    return "\n".join(lines)
