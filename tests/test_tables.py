"""Table 1, its verdicts and its markdown: python -m pytest tests/test_tables.py"""

from types import SimpleNamespace

import pandas as pd
import pytest
from records import cell, four_records

from clinical_r1 import labels, metrics, paper, tables


def summary(benchmark="clinic"):
    scores = four_records(method="crpo", benchmark=benchmark, hallucination=3) + four_records(
        benchmark=benchmark
    )
    return metrics.summarise(scores)


def test_table1_carries_the_paper_beside_and_never_compares_the_clinic():
    table = tables.table1(summary(), paper.table1(), paper.STANDS_FOR)
    assert table.columns.tolist() == tables.TABLE1_COLUMNS
    accuracy = cell(table, "accuracy", "crpo")
    assert (accuracy["value"], accuracy["paper_value"]) == (50.0, 52.41)
    assert set(table["verdict"]) == {"not comparable: clinic stand-in"}


@pytest.mark.parametrize(
    ("printed", "seeds", "verdict"),
    [
        (50.0, 1, "uninformative"),
        (99.0, 1, "uninformative"),
        # two seeds that agree: Wilson's bound for 0 of 4 is all there is, 49 points to either side
        (50.0, 2, "uninformative"),
        (100.0, 2, "outside"),
        (None, 1, "no printed value"),
    ],
)
def test_table1_verdicts_on_a_real_benchmark(printed, seeds, verdict):
    theirs = paper.table1()
    ours = (theirs["benchmark"] == "medqa") & (theirs["method"] == "grpo") & (theirs["metric"] == "accuracy")
    theirs.loc[ours, "value"] = printed
    scores = [row for seed in range(seeds) for row in four_records(benchmark="medqa", seed=seed)]
    table = tables.table1(metrics.summarise(scores), theirs, paper.STANDS_FOR)
    assert cell(table, "accuracy", "grpo", "medqa")["verdict"] == verdict


def test_table1_gives_the_same_bytes_twice(tmp_path):
    for name in "ab":
        tables.table1(summary(), paper.table1(), paper.STANDS_FOR).to_csv(tmp_path / name, index=False)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_table1_takes_a_clinic_set_and_the_benchmark_it_stands_for():
    both = metrics.summarise(four_records() + four_records(benchmark="medqa"))
    table = tables.table1(both, paper.table1(), paper.STANDS_FOR)
    assert len(table) == 18 and (table.groupby("metric")["paper_value"].nunique() == 1).all()
    with pytest.raises(ValueError, match="twice"):
        tables.table1(pd.concat([both, both]), paper.table1(), paper.STANDS_FOR)


def test_table1_refuses_per_cent_twice():
    with pytest.raises(ValueError, match="shares in"):
        tables.table1(tables.table1(summary(), paper.table1(), {}), paper.table1(), {})


def test_markdown_keeps_ours_and_theirs_apart():
    questions = [SimpleNamespace(benchmark="clinic", answer="A", options=dict.fromkeys("ABCD"))] * 4
    rows = pd.concat([summary(), metrics.baseline_rows(questions)])
    table = tables.table1(rows, paper.table1(), paper.STANDS_FOR)
    text = tables.table1_markdown(table, labels.METHOD_LABELS | labels.METRIC_LABELS, paper.STANDS_FOR)
    ours, theirs = text.split("# The paper's printed numbers")
    assert "52.41" not in ours and "52.41" in theirs and "not comparable" in theirs
    lines = {line.split(" | ")[0].strip("| "): line for line in ours.splitlines() if line.startswith("|")}
    assert "| 50.00 [15.00, 85.00]" in lines["GRPO"]  # a draw has no best
    assert "**1.00**" in lines["GRPO"] and "3.00 [" in lines["CRPO"] and "**3.00**" not in lines["CRPO"]
    assert lines["chance"].split(" | ")[1] == "25.00"
    head = next(line for line in ours.splitlines() if line.startswith("| Method"))
    assert head.startswith(
        "| Method | Accuracy (%) | Faithfulness | DRC | Hallucination ↓ | Backtracking"
    )  # primary first
    assert (
        "named before looking: Accuracy (%), Faithfulness, DRC and Hallucination ↓, on clinic and clinic-shift"
        in ours
    )
    assert "## clinic\n" in ours and "no p is given between arms" in ours
    explored = tables.table1_markdown(table.assign(benchmark="clinic-expert"))
    assert "## clinic-expert (exploratory)" in explored
    assert "**" not in lines["majority letter"]  # a guesser at 100 % takes the bold from nobody
    assert lines["GRPO"].endswith("| 4 | 1 | 0.750 |")


def test_arms_that_a_run_lacks_are_not_compared_and_named(capsys):
    """Profile laptop has no arm without a cold start; its notebook goes on."""
    scores = four_records(method="cold_start_crpo") + four_records(method="cold_start_grpo")
    frame = pd.DataFrame(scores)
    assert tables.compare_arms(frame, "crpo", "cold_start_grpo", ["accuracy"]) is None
    assert capsys.readouterr().out == "not in this run: CRPO; nothing is compared\n"
    pair = ("cold_start_crpo", "cold_start_grpo")
    expected = metrics.compare(frame, *pair, ["accuracy"])
    assert capsys.readouterr().out == ""
    pd.testing.assert_frame_equal(tables.compare_arms(frame, *pair, ["accuracy"]), expected)
    said = capsys.readouterr().out
    assert said.startswith("no p: one training seed") and "--seeds 3" in said
    assert tables.of_metric(expected, "accuracy").equals(expected) and tables.of_metric(None, "drc") is None


def test_a_bar_in_a_name_ends_no_cell():
    shown = tables.markdown(["Method", "n"], [["k = 1 | short", "3"]])
    assert shown.splitlines()[2] == r"| k = 1 \| short | 3 |"
