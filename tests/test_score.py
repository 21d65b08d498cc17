"""Scoring from stored completions: what a score depends on, refused files, and re-scoring with its A/B. No model.

Run: pytest tests/test_score.py
"""

import json
import re
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from records import whole_manifest

from clinical_r1 import score
from clinical_r1.clinic.cases import load_set
from clinical_r1.completions import parse_completion
from clinical_r1.files import read_jsonl, read_stamp, sha256, write_json, write_jsonl, write_stamped
from clinical_r1.generate import questions_hash
from clinical_r1.pipeline import __main__ as command
from clinical_r1.pipeline.rescore import compare_rules, rescore
from clinical_r1.questions import write_questions
from clinical_r1.rewards import accuracy_reward
from clinical_r1.score import Rules, score_all
from clinical_r1.settings import SMOKE
from clinical_r1.tables import build_table1, write_table1

N = 6
REASONED = "<dx> (System 1: Intuitive) a (System 2: Analytical) b </dx> <conclusion> {} </conclusion>"


def completion(question, number, method):
    """Every third answers without a box, in words that name one letter: the key's."""
    box = rf"so \boxed{{{question.answer}}}" if number % 3 else f"it is {question.answer}"
    text = REASONED.format(box)
    row = {"id": question.id, "benchmark": question.benchmark, "method": method, "sample": 0, "style": "crpo"}
    return row | {
        "prompt": f"asked {question.id}",
        "text": text,
        "finish_reason": "stop",
        "tokens": 9 + number,
    }


def make_run(settings):
    """Questions and hand-written completions of a whole run."""
    for benchmark in settings.benchmarks:
        questions = load_set(benchmark, "test", N)
        write_questions(settings.questions_path(benchmark, "test"), questions)
        for method, seed, name, protocol in settings.evaluations():
            if name == benchmark:
                rows = [completion(q, n, method) for n, q in enumerate(questions)]
                rows = [row | {"seed": seed, "protocol": protocol} for row in rows]
                path = settings.completions_path(benchmark, method, seed, protocol)
                write_stamped(path, rows, {"test_questions": questions_hash(settings, benchmark)})
    return settings


@pytest.fixture
def run(tmp_path):
    changes = dict(out=str(tmp_path), methods=("baseline", "crpo"), benchmarks=("clinic",), seeds=(0, 1))
    return make_run(replace(SMOKE, **changes))


def restamped(path, rows):
    """Other rows in a file, as a maker with a fault would leave them: what it says it was made from is as before."""
    return write_stamped(path, rows, read_stamp(path, "make"))


def completions_path(settings):
    return settings.completions_path("clinic", "crpo", 1)


def unboxed_letter(text, style, options):
    """Another parser: without a box, the last capital that stands alone."""
    read = parse_completion(text, style, options)
    named = re.findall(r"\b[A-J]\b", text)
    return read if read.letter or not named else replace(read, letter=named[-1])


def bytes_below(folder):
    return {path: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


# --- one score


def test_a_record_says_protocol_and_number_of_options(run):
    records = score_all(run)
    assert len(records) == 2 * 2 * 2 * N
    assert {record["protocol"] for record in records} == {"sampled", "greedy"}
    assert {record["n_options"] for record in records} == {4}
    assert read_jsonl(run.scores_path("clinic", "baseline", 0)) == records[:N]


def test_rewards_are_told_prompt_options_and_answer(run):
    seen = []

    def spy(completions, **columns):
        seen.append((completions, columns))
        return [None]

    question = load_set("clinic", "test", 1)[0]
    row = completion(question, 1, "crpo") | {"seed": 0, "protocol": "sampled"}
    record = score.score_completion(row, question, Rules(rewards=(spy, accuracy_reward)))
    assert record["rewards"] == {"spy": None, "accuracy_reward": 1.0}
    assert seen == [
        (
            [row["text"]],
            {
                "answer": [question.answer],
                "options": [question.options],
                "style": ["crpo"],
                "prompts": [row["prompt"]],
                "id": [row["id"]],
            },
        )
    ]


@pytest.mark.parametrize("workers", [1, 3])
def test_the_judge_is_asked_about_each_text_once_and_may_give_none(run, workers):
    asked = []

    def judge(question, text):
        asked.append((question.id, text))
        return {"drc": None if question.id.endswith("3") else int(question.id[-1])}

    records = score_all(run, judge=judge, workers=workers)
    assert len(asked) == len(records)
    for record in records:
        last = record["id"][-1]
        assert record["measures"] == {"drc": None if last == "3" else int(last)}


def test_rewards_with_one_name_are_refused():
    with pytest.raises(ValueError, match="different __name__"):
        Rules(rewards=(accuracy_reward, accuracy_reward))


# --- files that are not the split


FAULTS = {
    "lacks": (lambda rows: rows[1:], "answers 5 questions, expected the 6 .* 1 missing, such as 'clinic-"),
    "repeats": (lambda rows: rows + rows[:2], r"2 repeated, such as \('clinic-test-00000', 0\)"),
    "unknown": (lambda rows: rows + [rows[0] | {"id": "other"}], "1 unknown, such as 'other'"),
    "uneven samples": (
        lambda rows: rows + [rows[0] | {"sample": 1}],
        "5 without one of the samples, such as",
    ),
    "torn": (lambda rows: rows[:-1] + [{"id": rows[-1]["id"]}], r"1 of 6 rows lack fields \(line 6 lacks"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_completions_that_are_not_the_split_are_refused(run, fault):
    spoil, message = FAULTS[fault]
    path = completions_path(run)
    restamped(path, spoil(read_jsonl(path)))
    with pytest.raises(ValueError, match=message) as error:
        score_all(run)
    assert str(path) in str(error.value) and "generate again" in str(error.value)


@pytest.mark.parametrize("fault", FAULTS)
def test_stored_scores_that_are_not_the_split_are_refused(run, fault):
    spoil, message = FAULTS[fault]
    score_all(run)
    path = run.scores_path("clinic", "crpo", 1)
    restamped(path, spoil(read_jsonl(path)))
    with pytest.raises(ValueError, match=message) as error:
        rescore(run)
    assert str(path) in str(error.value) and "score again" in str(error.value)


def test_scores_of_other_completions_are_refused(run):
    score_all(run)
    path = completions_path(run)
    restamped(path, [row | {"text": row["text"] + " "} for row in read_jsonl(path)])
    with pytest.raises(ValueError, match="scores other completions .* than those stored"):
        rescore(run)


EDITS = {
    "a word": lambda text: text.replace("so ", "No ", 1),
    "a row twice": lambda text: text + text.splitlines(keepends=True)[0],
    "a token count": lambda text: text.replace('"tokens": 9', '"tokens": 8', 1),
}


@pytest.mark.parametrize("edit", EDITS)
@pytest.mark.parametrize("kind", ["completions", "scores"])
def test_edited_files_are_refused_by_name(run, kind, edit):
    score_all(run)
    path = run.run_dir / kind / "clinic" / "crpo.seed1.jsonl"
    text = path.read_text()
    path.write_text(EDITS[edit](text) if kind == "completions" else EDITS[edit](text) + "\n")
    for read in (score_all, rescore) if kind == "completions" else (rescore,):
        with pytest.raises(ValueError, match="was changed after it was made") as error:
            read(run)
        assert str(path) in str(error.value)


@pytest.mark.parametrize("change", [{"answer": "other"}, {"stem": "other"}, {"meta": {}}], ids=str)
def test_completions_of_other_questions_are_not_scored(run, change):
    path = run.questions_path("clinic", "test")
    rows = read_jsonl(path)
    if "answer" in change:
        change = {"answer": "ABCD".replace(rows[2]["answer"], "")[0]}
    write_jsonl(path, [*rows[:2], rows[2] | change, *rows[3:]])
    with pytest.raises(
        ValueError, match=r"than .*clinic.test.jsonl holds today \(sha256 \w{16}, now \w{16}\); restore"
    ):
        score_all(run)


def test_a_score_file_says_what_it_was_made_from(run):
    score_all(run)
    for method, seed, benchmark, protocol in run.evaluations():
        stamp = read_stamp(run.scores_path(benchmark, method, seed, protocol), "score")
        assert stamp["completions"] == sha256(run.completions_path(benchmark, method, seed, protocol))
        assert stamp["questions"] == questions_hash(run, "clinic")
        assert stamp["rules"] == Rules().to_json()
    before = stamp
    score_all(run, Rules(parse=unboxed_letter))
    after = read_stamp(run.scores_path(benchmark, method, seed, protocol), "score")
    assert after["rules"] != before["rules"] and after["sha256"] != before["sha256"]
    assert after["completions"] == before["completions"]


def test_missing_completions_say_so(run):
    completions_path(run).unlink()
    with pytest.raises(FileNotFoundError, match="does not exist; run notebook 04"):
        score_all(run)


# --- re-scoring


def test_same_rules_change_nothing_and_give_the_same_table(run):
    records = score_all(run)
    write_table1(build_table1(run, records), run.run_dir / "tables")
    before = bytes_below(run.run_dir)
    table = rescore(run, name="same")
    assert (table[["changed", "difference"]] == 0).all(axis=None)
    assert (table["ci_low"] < 0).all() and (table["ci_high"] > 0).all()  # equal on six questions is not equal
    folder = run.run_dir / "rescored" / "same"
    assert read_jsonl(folder / "changed.jsonl") == []
    for name in ("table1.csv", "table1.md"):
        assert (folder / name).read_bytes() == (run.run_dir / "tables" / name).read_bytes()
    after = bytes_below(run.run_dir)
    assert before.items() <= after.items()  # the run's own files are as they were
    assert {path.relative_to(folder).parts[0] for path in after.keys() - before.keys()} == {
        *("scores", "table1.csv", "table1.md", "ab.csv", "changed.jsonl", "rules.json")
    }


def test_another_parser_is_compared_by_hand(run):
    score_all(run)
    table = rescore(run, Rules(parse=unboxed_letter), "unboxed").set_index(["method", "protocol", "metric"])
    row = table.loc[("crpo", "sampled", "accuracy")]
    assert row["old"] == pytest.approx(4 / 6) and row["new"] == 1.0  # 2 of 6 questions have no box
    assert row["difference"] == pytest.approx(2 / 6) and row["ci_low"] <= 2 / 6 <= row["ci_high"]
    assert (row["n"], row["completions"], row["changed"], row["unpaired"]) == (6, 12, 4, 0)
    assert table.loc[("crpo", "sampled", "coverage"), "changed"] == 4
    assert table.loc[("crpo", "sampled", "drc"), "changed"] == 0
    changed = read_jsonl(run.run_dir / "rescored" / "unboxed" / "changed.jsonl")
    letters = [row for row in changed if row["what"] == "letter"]
    assert len(letters) == 2 * 2 * 2 * 2  # questions, seeds, methods, protocols
    keys = {question.id: question.answer for question in load_set("clinic", "test", N)}
    assert all(row["old"] is None and row["new"] == keys[row["id"]] for row in letters)
    assert {row["what"] for row in changed} == {"letter", "accuracy", "coverage"}
    new = pd.read_csv(run.run_dir / "rescored" / "unboxed" / "table1.csv")
    assert new.query("method == 'crpo' and metric == 'accuracy'")["value"].item() == 100


def test_a_new_reward_stands_beside_nothing(run):
    def brevity(completions, **columns):
        return [float(len(text) < 50) for text in completions]

    score_all(run)
    table = rescore(run, Rules(rewards=(accuracy_reward, brevity)), "brief").set_index(
        ["method", "protocol", "metric"]
    )
    new, gone = (table.loc[("crpo", "sampled", name)] for name in ("brevity", "consistency_reward"))
    assert np.isnan(new["old"]) and new["new"] == 0 and np.isnan(new["difference"])
    assert np.isnan(gone["new"]) and not np.isnan(gone["old"])
    assert (new["n"], new["changed"], new["unpaired"]) == (0, 12, 12)


def test_without_stored_scores_the_default_rules_stand_in(run):
    table = rescore(run, Rules(parse=unboxed_letter), "first")
    assert table.query("metric == 'accuracy'")["changed"].tolist() == [4, 4, 4, 4]
    record = json.loads((run.run_dir / "rescored" / "first" / "rules.json").read_text())
    assert record["against"] == {"stored score files": 0, "files scored by the default rules": 8}
    assert record["rules"]["parse"] == {
        "name": "unboxed_letter",
        "code": Rules(parse=unboxed_letter).to_json()["parse"]["code"],
    }
    assert record["rules"]["judge"] == {"name": "exact_judge", "code": Rules().to_json()["judge"]["code"]}
    assert [rule["name"] for rule in record["rules"]["rewards"]] == [f.__name__ for f in Rules().rewards]
    assert "clinical_r1." not in json.dumps(record["rules"])  # a file may move
    assert not (run.run_dir / "scores").exists()


def test_killed_half_way_leaves_the_former_result(run):
    rescore(run, name="mine")
    before, calls = bytes_below(run.run_dir), []

    def judge(question, text):
        calls.append(text)
        if len(calls) == 20:
            raise KeyboardInterrupt
        return {}

    with pytest.raises(KeyboardInterrupt):
        rescore(run, Rules(judge=judge), "mine")
    assert bytes_below(run.run_dir) == before
    left_over = run.run_dir / "rescored" / ".mine.partial" / "scores" / "old.jsonl"
    write_jsonl(left_over, [{}])  # as a process leaves it that could not clean up
    rescore(run, name="mine")
    assert bytes_below(run.run_dir) == before


@pytest.mark.parametrize("name", ["", "../cpu", "a/b", ".hidden", "/tmp/x"])
def test_a_name_is_a_plain_folder_name(run, name):
    with pytest.raises(ValueError, match="expected a folder name"):
        rescore(run, name=name)


# --- the comparison


def record(id="q", **changes):
    row = dict(id=id, benchmark="clinic", method="crpo", seed=0, sample=0, protocol="sampled", letter="A")
    return row | {"correct": True, "problems": [], "rewards": {"r": 1.0}, "measures": {"drc": 2}} | changes


def test_a_verdict_that_one_scoring_lacks_is_unpaired_not_zero():
    old = [record("q1"), record("q2", measures={"drc": None})]
    new = [record("q1", measures={"drc": 5}), record("q2")]
    row = compare_rules(old, new).set_index("metric").loc["drc"]
    assert (row["old"], row["new"], row["difference"]) == (2, 5, 3)
    assert (row["n"], row["completions"], row["changed"], row["unpaired"]) == (1, 2, 2, 1)


def test_turned_round_the_difference_changes_its_sign():
    rng = np.random.default_rng(5)
    old = [record(f"q{n}", rewards={"r": float(value)}) for n, value in enumerate(rng.integers(0, 3, 40))]
    new = [record(f"q{n}", rewards={"r": float(value)}) for n, value in enumerate(rng.integers(0, 3, 40))]
    there, back = (compare_rules(a, b).set_index("metric").loc["r"] for a, b in ((old, new), (new, old)))
    assert there["difference"] == pytest.approx(-back["difference"])
    assert there["ci_low"] == pytest.approx(-back["ci_high"])


def test_seeds_of_one_question_are_one_cluster():
    old = [record("q1", seed=seed, rewards={"r": 0.0}) for seed in range(50)] + [record("q2")]
    new = [record("q1", seed=seed) for seed in range(50)] + [record("q2")]
    row = compare_rules(old, new).set_index("metric").loc["r"]
    assert row["n"] == 2 and row["ci_low"] <= 0 < 1 <= row["ci_high"]  # two questions say next to nothing


def test_scorings_of_other_completions_are_not_compared():
    with pytest.raises(ValueError, match="1 old and 2 new records"):
        compare_rules([record()], [record(), record("p")])
    with pytest.raises(ValueError, match="1 of them of another completion"):
        compare_rules([record()], [record(seed=1)])


# --- the command line


@pytest.fixture
def whole(tmp_path):
    settings = make_run(replace(SMOKE, out=str(tmp_path), seeds=(0, 1)))
    write_json(settings.run_dir / "manifest.json", whole_manifest(settings))
    return settings


def test_command_scores_the_seeds_of_the_run(whole, capsys):
    score_all(whole)
    path = whole.scores_path("clinic", "grpo", 1)
    rows = read_jsonl(path)
    rows[0]["rewards"]["accuracy_reward"] = 0.5
    restamped(path, rows)
    assert command.main(["rescore", "smoke", "--out", whole.out, "--name", "now"]) == 0
    out = capsys.readouterr().out
    assert "60 files of completions scored" in out and "1 of 420 comparisons differ" in out
    assert "accuracy_reward" in out and "drc" not in out and "runs/smoke/rescored/now" in out
    changed = read_jsonl(whole.run_dir / "rescored" / "now" / "changed.jsonl")
    assert [(row["method"], row["seed"], row["what"], row["old"]) for row in changed] == [
        ("grpo", 1, "accuracy_reward", 0.5)
    ]


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["rescore", "smoke"], 1, "run notebook 01"),
        (["rescore", "smoke", "--name", "../up"], 2, "expected a folder name"),
        (["rescore", "huge"], 2, "'huge' is not known"),
        (["rescore", "smoke", "--seeds", "0"], 2, "at least one seed"),
    ],
)
def test_command_says_what_is_wrong(tmp_path, capsys, arguments, status, message):
    assert command.main([*arguments, "--out", str(tmp_path)]) == status
    assert message in capsys.readouterr().err


def test_command_with_a_damaged_manifest_says_so(whole, capsys):
    (whole.run_dir / "manifest.json").write_text("{")
    assert command.main(["rescore", "smoke", "--out", whole.out]) == 1
    assert "manifest.json is damaged" in capsys.readouterr().err
