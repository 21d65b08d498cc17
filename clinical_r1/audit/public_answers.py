"""Public answers of real models: accuracy with its denominators, paired comparison, and what parsers disagree on.

Three sources, all under `<source>/real_completions/`: chains of GPT-3.5 and GPT-4 (MIRAGE), letters of ten models without
their texts (MedAgentsBench's zero-shot runs), and free text of a trained Qwen2.5-3B. They serve evaluation only. Rows
join to questions by id; a question without a row is wrong and counted. No frame holds a question's or a model's words.
"""

import json
import os
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from clinical_r1.completions import SECTIONS, Completion, parse_completion, parse_mirage
from clinical_r1.curation.releases import find_files, load_benchmark
from clinical_r1.files import read_csv, read_jsonl
from clinical_r1.intervals import (
    QUESTIONS_ONLY,
    holm,
    mcnemar_exact,
    minimum_detectable_effect,
    paired_difference,
    wilson_interval,
)
from clinical_r1.questions import Question
from clinical_r1.score import is_correct

CHAIN_MODELS = ("gpt-35-turbo-16k", "gpt-4-32k")
CHAINS, LETTERS_ONLY, FREE_TEXT = "chain, then JSON", "zero-shot letter", "free text"

# MedMCQA's choice_type "multi" has one key although several options may be right.
ALL, SINGLE = "all", "single answer"
SPLITS = {"medqa-4": "test", "medmcqa": "dev"}
FREE_TEXT_MODEL = "Qwen2.5-3B, GRPO"
ACCURACY_COLUMNS = (
    "benchmark model prompt options items n answered correct accuracy ci_low ci_high coverage "
    "answered_only reason"
).split()
COMPARISON_COLUMNS = (
    "benchmark options items n model against accuracy accuracy_against difference ci_low ci_high p p_holm "
    "mde_holm both_right only_model only_against neither interval"
).split()
DISAGREEMENT_COLUMNS = "benchmark model id ours first_character first_capital gold problems".split()
AGREEMENT_COLUMNS = (
    "benchmark model rule n agree agreement ours_only rule_only another accuracy_ours accuracy_rule "
    "intact intact_accuracy_rule"
).split()


@dataclass(frozen=True)
class Answers:
    """One model's letters on one benchmark.

    letters: question id -> letter, None where the answer cannot be read; a question without a row is not in it.
    gold: question id -> letter, of every question that was to be answered. items: `ALL` or `SINGLE`.
    """

    benchmark: str
    model: str
    prompt: str
    options: int
    items: str
    letters: dict[str, str | None]
    gold: dict[str, str]

    @property
    def right(self) -> np.ndarray:
        """(n,) booleans in gold's order; unreadable and missing answers are False."""
        return self.right_on(self.gold)

    def right_on(self, gold: dict[str, str]) -> np.ndarray:
        """(n,) booleans in the order of another model's gold."""
        return np.array([is_correct(self.letters.get(id), letter) for id, letter in gold.items()], dtype=bool)

    def single_only(self, multi: set[str]) -> "Answers":
        """The same answers without the questions named in `multi`."""
        kept = {
            "letters": {id: letter for id, letter in self.letters.items() if id not in multi},
            "gold": {id: letter for id, letter in self.gold.items() if id not in multi},
        }
        return Answers(self.benchmark, self.model, self.prompt, self.options, SINGLE, **kept)


# --- reading


def _folder(source) -> Path | None:
    """Where the real completions are; None where no data folder is named or holds any."""
    source = source or os.environ.get("CLINICAL_R1_DATA")
    if not source:
        return None
    if not Path(source).is_dir():
        raise FileNotFoundError(
            f"source {source} does not exist; give the folder that holds real_completions/."
        )
    folder = Path(source) / "real_completions"
    return folder if folder.is_dir() else None


def _questions(folder: Path) -> dict[str, list[Question]]:
    """Benchmark -> its questions, for those whose raw file is there."""
    source = folder.parent
    there = find_files(source)
    return {
        name: load_benchmark(name, split, source=source)
        for name, split in SPLITS.items()
        if (name, split) in there
    }


def _multi(questions) -> set[str]:
    return {question.id for question in questions if question.meta.get("multi")}


def _unique(path: Path, names: list[str], ids: dict[str, str]) -> None:
    """ValueError when rows repeat a name or name no question. ids: the file's name -> question id."""
    repeated = sorted(name for name, count in Counter(names).items() if count > 1)
    unknown = sorted(set(names) - ids.keys())
    for what, some in (("repeat an id", repeated), ("name no question", unknown)):
        if some:
            raise ValueError(
                f"{path}: {len(some)} of its {len(names)} rows {what} (one is {some[0]!r}), expected each of {len(ids)} "
                "questions at most once; give the released file."
            )


def _chains(folder: Path, benchmark: str, questions: list[Question], models=CHAIN_MODELS):
    """(model, question, raw, Completion) of every chain, model by model. ValueError for a row of no question."""
    for model in models:
        path = folder / chain_file(benchmark, model)
        if path.is_file():
            by_name = {chain_name(question): question for question in questions}
            rows = read_jsonl(path)
            _unique(path, [str(row.get("id")) for row in rows], by_name)
            for row in rows:
                question, raw = by_name[row["id"]], row.get("raw")
                yield model, question, raw, parse_mirage(raw, question.options)


def chain_file(benchmark: str, model: str) -> str:
    """The file of MIRAGE's chains of one model."""
    return f"mirage_cot_{benchmark.removesuffix('-4')}_{model}.jsonl"


def chain_name(question: Question) -> str:
    """The id that MIRAGE's chains give a question: test_0000, counted from 0, or dev_ and MedMCQA's own id."""
    if question.benchmark == "medmcqa":
        return f"dev_{question.id}"
    return f"test_{question.meta['line'] - 1:04d}"


def read_answers(source=None, faults: list | None = None) -> list[Answers]:
    """The letters of every model in `<source>/real_completions`; None takes CLINICAL_R1_DATA. Empty without files.

    A benchmark whose questions are not there is left out. MedMCQA chains come twice: all items, and those with a single
    answer, which are all that the letter files hold. Raises FileNotFoundError for a folder that does not exist,
    ValueError for a file whose rows repeat, name no question, or carry another key than ours. faults: a list that receives
    {benchmark, model (the file's name), reason} of such a file instead, so that one foreign file does not hide the others.
    """
    folder = _folder(source)
    answers = []
    for benchmark, questions in _questions(folder).items() if folder else ():
        files = {chain_file(benchmark, model): (_chain_answers, model) for model in CHAIN_MODELS}
        files[f"medagents_zeroshot_letters_{benchmark.removesuffix('-4')}.csv"] = (_letter_answers, None)
        for name, (read, model) in files.items():
            if (folder / name).is_file():
                try:
                    answers += read(folder / name, benchmark, questions, model)
                except ValueError as error:
                    if faults is None:
                        raise
                    faults.append({"benchmark": benchmark, "model": name, "reason": str(error)})
    return answers


def _chain_answers(path, benchmark, questions, model):
    letters = {
        question.id: parsed.letter
        for _, question, _, parsed in _chains(path.parent, benchmark, questions, [model])
    }
    if not letters:
        raise ValueError(f"{path} is empty; give the released file.")
    gold = {question.id: question.answer for question in questions}
    multi = _multi(questions)
    every = Answers(benchmark, model, CHAINS, len(questions[0].options), ALL, letters, gold)
    return [every, every.single_only(multi)] if multi else [every]


def _letter_answers(path, benchmark, questions, _):
    """The letter files hold every MedQA item, but only MedMCQA's items with a single answer."""
    table = read_csv(path, ["realidx", "gold"], dtype=str, keep_default_na=False)
    multi = _multi(questions)
    asked = {
        question.id if benchmark == "medmcqa" else str(question.meta["line"] - 1): question
        for question in questions
        if question.id not in multi
    }
    names = table["realidx"].tolist()
    _unique(path, names, asked)
    other_key = sum(asked[name].answer != letter for name, letter in zip(names, table["gold"], strict=True))
    if other_key:
        raise ValueError(
            f"{path}: {other_key} of {len(names)} keys differ from {benchmark}'s; give matching files."
        )
    gold = {question.id: question.answer for question in asked.values()}
    items, answers = SINGLE if multi else ALL, []
    for model in table.columns.drop(["realidx", "gold"]):
        letters = {
            asked[name].id: letter if letter in asked[name].options else None
            for name, letter in zip(names, table[model], strict=True)
            if letter  # an empty cell is a row that the released run lacks
        }
        answers.append(
            Answers(benchmark, model, LETTERS_ONLY, len(questions[0].options), items, letters, gold)
        )
    return answers


# --- accuracy


def real_accuracy_table(source=None):
    """Accuracy of every model in `<source>/real_completions`, a row per benchmark, model and set of items; per cent.

    n: questions asked, accuracy's denominator; 95 % Wilson interval. answered: rows that the file holds; coverage: share
    of n with a readable letter; answered_only: accuracy over the readable ones, the flattering figure. A row without
    accuracy says in `reason` why nothing can be scored, be it a file that is not what its name says.
    FileNotFoundError for a folder that does not exist.
    """
    import pandas as pd

    faults: list[dict] = []
    rows = [_accuracy_row(answers) for answers in read_answers(source, faults)]
    folder = _folder(source)
    rows += _free_text_rows(folder, faults) if folder else []
    rows += faults
    table = pd.DataFrame(rows, columns=ACCURACY_COLUMNS)
    return table.astype(dict.fromkeys(("options", "correct"), "Int64")).round(2)


def _accuracy_row(answers: Answers) -> dict:
    n, correct = len(answers.gold), int(answers.right.sum())
    read = sum(letter is not None for letter in answers.letters.values())
    low, high = wilson_interval(correct, n)
    row = {key: getattr(answers, key) for key in ("benchmark", "model", "prompt", "options", "items")}
    row |= {"n": n, "answered": len(answers.letters), "correct": correct, "accuracy": 100 * correct / n}
    row |= {"ci_low": 100 * low, "ci_high": 100 * high, "coverage": 100 * read / n}
    return row | {"answered_only": 100 * correct / read if read else None, "reason": ""}


def _free_text_rows(folder: Path, faults: list) -> list[dict]:
    """What the two Qwen files hold, told from their content, because their names are swapped."""
    rows = []
    for path in sorted(folder.glob("qwen25_3b_model_predictions_*.csv")):
        try:
            table = read_csv(path, ["input", "actual", "model_output"], dtype=str, keep_default_na=False)
        except ValueError as error:
            faults.append({"model": path.name, "reason": str(error)})
            continue
        letters = sum(
            any(parse_completion(text, style).letter for style in SECTIONS) for text in table["model_output"]
        )
        with_context = "instructions" in table.columns
        benchmark, key = ("pubmedqa", "a sentence") if with_context else ("medqa", "an option's text")
        reason = (
            f"nothing to mark: no options, no key letter (the key is {key}), and {letters} of {len(table)} outputs hold "
            f"a boxed letter; the file is named {path.stem.removeprefix('qwen25_3b_model_predictions_')}"
        )
        row = {"benchmark": benchmark, "model": FREE_TEXT_MODEL, "prompt": FREE_TEXT, "items": "a sample"}
        row |= {"n": len(table), "answered": len(table), "coverage": 100 * letters / len(table)}
        rows.append(row | {"reason": reason})
    return rows


# --- comparison


def real_comparison(source, model="gpt-4-32k", against="gpt-35-turbo-16k"):
    """model minus against on the same questions, a row per benchmark that both answered; per cent and points.

    difference with its 95 % paired interval over questions, p: exact McNemar, p_holm over the rows, mde_holm: the
    smallest difference that the first step of that correction finds with 80 % power, then how many questions both, one or
    neither got right. All items where a model answered all. Raises ValueError when their protocols are unlike, and for a
    model that is not there.
    """
    import pandas as pd

    faults: list[dict] = []
    every = read_answers(source, faults)
    pairs = []
    for benchmark in dict.fromkeys(answers.benchmark for answers in every):
        first = {}
        for answers in every:
            if answers.benchmark == benchmark:
                first.setdefault(answers.model, answers)
        missing = [name for name in (model, against) if name not in first]
        if missing:
            why = "".join(f" {fault['reason']}" for fault in faults if fault["benchmark"] == benchmark)
            raise ValueError(
                f"{benchmark} has no answers of {missing}; expected some of {sorted(first)}.{why}"
            )
        pairs.append((first[model], first[against]))
    rows = [compare_answers(*pair, tests=len(pairs)) for pair in pairs]
    table = pd.DataFrame(rows, columns=COMPARISON_COLUMNS)
    if len(table):
        table["p_holm"] = holm(table["p"])
    return table.round(
        {name: 2 for name in ("accuracy", "accuracy_against", *COMPARISON_COLUMNS[8:11], "mde_holm")}
    )


def compare_answers(a: Answers, b: Answers, tests: int = 1) -> dict:
    """One row of `real_comparison`, without Holm. ValueError when the two did not answer the same thing."""
    _check_alike(a, b)
    right_a, right_b = a.right, b.right_on(a.gold)
    result = paired_difference(100.0 * right_a, 100.0 * right_b, scale=100.0)
    low, high = result.interval
    row = {"benchmark": a.benchmark, "options": a.options, "items": a.items, "n": len(a.gold)}
    row |= {"model": a.model, "against": b.model}
    row |= {"accuracy": 100 * right_a.mean(), "accuracy_against": 100 * right_b.mean()}
    row |= {
        "difference": result.difference,
        "ci_low": low,
        "ci_high": high,
        "p": mcnemar_exact(right_a, right_b),
    }
    row |= {"mde_holm": minimum_detectable_effect(result.standard_error, result.df, tests)}
    row |= {"interval": QUESTIONS_ONLY}
    row |= {"both_right": (right_a & right_b).sum(), "only_model": (right_a & ~right_b).sum()}
    return row | {"only_against": (~right_a & right_b).sum(), "neither": (~right_a & ~right_b).sum()}


def _check_alike(a: Answers, b: Answers) -> None:
    if a.benchmark != b.benchmark or a.options != b.options or a.prompt != b.prompt or a.gold != b.gold:
        told = [
            f"{one.model} on {one.benchmark} ({one.options} options, {len(one.gold):,} items: {one.items}, {one.prompt})"
            for one in (a, b)
        ]
        raise ValueError(
            f"unlike protocols: {told[0]} against {told[1]}; expected the same questions, options and prompt: choose "
            "two of read_answers() that agree in them."
        )


# --- what other parsers would have read


def _answer_field(raw) -> str | None:
    """The text under `answer_choice` of an intact record, perhaps empty."""
    try:
        answer = json.loads(raw)["answer_choice"]
    except (KeyError, TypeError, ValueError, RecursionError):
        return None
    return answer if isinstance(answer, str) else None


def first_character(raw) -> str | None:
    """The answer field's first character if it is A-J: "Cannot be determined" is C. None for a record that is not JSON."""
    start = (_answer_field(raw) or "").strip()[:1]
    return start if re.fullmatch("[A-J]", start) else None


def first_capital(raw) -> str | None:
    """The first capital A-J anywhere in the answer field, or in the whole text where there is no such field."""
    answer = _answer_field(raw)
    found = re.search("[A-J]", raw if answer is None and isinstance(raw, str) else answer or "")
    return found.group() if found else None


RULES = {"first_character": first_character, "first_capital": first_capital}


def read_chains(source=None):
    """(benchmark, model, question, raw, our Completion) of every chain of reasoning; none without files."""
    folder = _folder(source)
    for benchmark, questions in _questions(folder).items() if folder else ():
        for model, question, raw, parsed in _chains(folder, benchmark, questions):
            yield benchmark, model, question, raw, parsed


def extraction_disagreements(source=None):
    """Every chain that a naive rule reads differently: benchmark, model, id, ours, both rules, gold, our problem codes.

    A letter that is not there is an empty string. Holds no text, so that it can be shown in full. Errors as
    `read_answers`.
    """
    import pandas as pd

    rows = []
    for benchmark, model, question, raw, parsed in read_chains(source):
        read = [rule(raw) for rule in RULES.values()]
        if any(letter != parsed.letter for letter in read):
            letters = [letter or "" for letter in (parsed.letter, *read, question.answer)]
            rows.append((benchmark, model, question.id, *letters, " ".join(parsed.problems)))
    return pd.DataFrame(rows, columns=DISAGREEMENT_COLUMNS)


def extraction_agreement(source=None):
    """Our parser against each naive rule, a row per benchmark, model and rule; accuracies in per cent.

    n: chains; agree: equal letters, or none by both; ours_only, rule_only: read by one of them; another: two different
    letters. accuracy_ours, accuracy_rule: over all n. intact_accuracy_rule: over the `intact` records only, whose answer
    field is a text: the denominator that flatters.
    """
    import pandas as pd

    groups = {}
    for benchmark, model, question, raw, parsed in read_chains(source):
        for name, rule in RULES.items():
            groups.setdefault((benchmark, model, name), []).append((question, raw, parsed, rule(raw)))
    return pd.DataFrame(
        [_agreement_row(*key, rows) for key, rows in groups.items()], columns=AGREEMENT_COLUMNS
    ).round(2)


def _agreement_row(benchmark, model, rule, rows: list[tuple[Question, str, Completion, str | None]]):
    pairs = [(parsed.letter, other) for _, _, parsed, other in rows]
    n, agree = len(rows), sum(ours == other for ours, other in pairs)
    ours_only = sum(ours is not None and other is None for ours, other in pairs)
    rule_only = sum(ours is None and other is not None for ours, other in pairs)
    right = [
        sum(
            is_correct(letters[side], question.answer)
            for letters, (question, *_) in zip(pairs, rows, strict=True)
        )
        for side in (0, 1)
    ]
    intact = [(question, other) for question, raw, _, other in rows if _answer_field(raw) is not None]
    intact_right = sum(is_correct(other, question.answer) for question, other in intact)
    counts = agree, 100 * agree / n, ours_only, rule_only, n - agree - ours_only - rule_only
    accuracies = 100 * right[0] / n, 100 * right[1] / n
    return (
        benchmark,
        model,
        rule,
        n,
        *counts,
        *accuracies,
        len(intact),
        100 * intact_right / max(len(intact), 1),
    )
