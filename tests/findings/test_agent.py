"""Findings about agents say what their frames say, whatever came out: python -m pytest tests/findings/test_agent.py"""

import re

import agent_summary
import numpy as np
import pandas as pd
import pytest

from clinical_r1.agent import by_hand, tables
from clinical_r1.agent.records import AgentSummary
from clinical_r1.findings import agent as findings
from clinical_r1.findings.wording import POWER


@pytest.fixture(scope="module")
def summary():
    return AgentSummary(**agent_summary.summary_frames(), record={"git": {"sha": "0123456789"}})


def row(label, measure, difference, p=1.0, mde=5.0, budget="sampled", seeds=5):
    """A row of `comparison_table`; its interval reaches one to either side."""
    ends = {"difference_low": difference - 1, "difference_high": difference + 1}
    numbers = {"difference": difference, "p_holm": p, "mde_holm": mde, "tests": 0 if np.isnan(p) else 16}
    return {"label": label, "measure": measure, "budget": budget, "n": 1000, "seeds": seeds} | ends | numbers


def rows(*listed):
    return pd.DataFrame(listed)


def heading(text):
    return text.split("\n")[0].removeprefix("### ")


def clean(text):
    """No hole of a template, no doubled mark, no number that is none."""
    assert re.match(r"### [A-Z0-9]", text), text
    assert not re.search(r"\bnan\b|None|\{|\}|  |\.\.|,,| ,|\(\)|\bbits? of information bits", text), text
    assert not re.search(r"\b1 (arms|settings|consultations|seeds|values)\b|\bseeds an\b", text), text
    return text


# ---- one outcome after another


def test_an_arm_that_is_better_is_named_with_its_difference():
    table = rows(row("GiGPO", "right", 8.0, 0.001), row("Tree-GRPO", "right", 0.4))
    said = clean(findings.comparison(table))
    assert heading(said) == "GiGPO is more accurate than GRPO, at equal sampled tokens"
    assert "Equal sampled tokens, GiGPO: +8.0 points of accuracy [7.0, 9.0]." in said
    assert "Tree-GRPO: no difference found in accuracy (a difference of 5.0 points of accuracy would" in said
    assert "Not measured: equal trained tokens. Paired, n = 1,000 test patients, 5 training seeds." in said
    end = clean(findings.answer(table))
    assert heading(end) == (
        "A turn should be credited as GiGPO does at equal sampled tokens: more right diagnoses than with GRPO"
    )


def test_two_that_are_better_and_one_that_is_worse():
    table = rows(
        row("GiGPO", "right", 8.0, 0.001),
        row("Tree-GRPO + anchors", "right", 6.0, 0.01),
        row("Tree-GRPO", "right", -4.0, 0.02),
    )
    said = clean(findings.comparison(table))
    assert heading(said).startswith(
        "GiGPO and Tree-GRPO + anchors are more accurate than GRPO and Tree-GRPO is less"
    )
    assert "credited as GiGPO and Tree-GRPO + anchors do at equal sampled" in findings.answer(table)
    assert heading(clean(findings.answer(table))).endswith(
        "than with GRPO; Tree-GRPO is found to diagnose worse"
    )


def test_budgets_that_disagree_are_both_told():
    table = rows(row("GiGPO", "right", 1.0), row("GiGPO", "right", 8.0, 0.001, budget="trained"))
    said = heading(clean(findings.comparison(table)))
    assert said.startswith(
        "No difference from GRPO is found in accuracy, at equal sampled tokens (a difference of 5.0"
    )
    assert said.endswith("; GiGPO is more accurate than GRPO, at equal trained tokens")
    assert heading(clean(findings.answer(table))) == (
        "A turn should be credited as GiGPO does at equal trained tokens: more right diagnoses than with GRPO; at equal sampled "
        "tokens none is found"
    )
    both = findings.answer(pd.concat([table[1:], table[1:].assign(budget="sampled")]))
    assert "as GiGPO does at equal sampled tokens and as GiGPO does at equal trained tokens:" in both


def test_arms_that_are_only_worse():
    table = rows(row("Tree-GRPO", "right", -4.0, 0.02), row("GiGPO", "right", 1.0))
    assert (
        heading(clean(findings.comparison(table)))
        == "Tree-GRPO is less accurate than GRPO, at equal sampled tokens"
    )
    end = heading(clean(findings.answer(table)))
    assert end.startswith("A turn may be credited with the whole consultation's return")
    assert end.endswith("and Tree-GRPO is found to diagnose worse")


def test_a_tie_never_stands_without_what_would_have_been_found():
    table = rows(row("GiGPO", "right", 0.5, mde=3.0), row("Tree-GRPO", "right", -0.4, mde=4.25))
    said = heading(clean(findings.comparison(table)))
    assert said.startswith("No difference from GRPO is found in accuracy, at equal sampled tokens")
    assert said.endswith(f"(a difference of 4.2 points would have been found {POWER})")
    assert "no finer credit is found to diagnose better" in findings.answer(table)
    beyond = findings.comparison(rows(row("GiGPO", "right", 0.5, mde=130.0)))
    assert "over 100 points of accuracy" in beyond


def test_one_seed_tests_nothing():
    table = rows(*(row("GiGPO", measure, 0.5, np.nan, np.nan, seeds=1) for measure in tables.TESTED))
    said = clean(findings.comparison(table))
    assert heading(said).endswith("is open: one training seed, nothing is tested")
    assert "GiGPO: +0.5 points of accuracy [−0.5, 1.5]" in said and "found" not in said
    assert "Holm" not in said and "1 training seed." in said
    assert "is open: one training seed" in clean(findings.answer(table))


def test_the_primary_measure_and_both_budgets_have_their_sentence(summary):
    table = tables.both_budgets(tables.comparison_table, summary, "main")
    said = clean(findings.comparison(table))
    assert (
        said.count("\n- ") == 8 and said.count("Equal trained tokens, ") == 4 and "Not measured" not in said
    )
    assert "Holm over 4 tests a budget." in said
    only = clean(findings.comparison(table[table["budget"] == "trained"]))
    assert "at equal trained tokens" in heading(only) and "Not measured: equal sampled tokens." in only


@pytest.mark.parametrize(
    "made",
    [
        findings.references,
        findings.learning,
        findings.arms,
        findings.comparison,
        findings.credit,
        findings.gamma,
        findings.density,
        findings.closure,
        findings.front,
    ],
)
def test_what_was_not_measured_is_said(made):
    said = clean(made(None))
    assert heading(said).startswith("Not measured yet: ") and "./reproduce.sh agent" in said


def test_nothing_at_all_leaves_the_title_without_an_answer():
    said = clean(findings.answer(None))
    assert heading(said) == "What a turn should be credited with was not measured yet"
    assert said.count("not measured yet.") == 4
    assert heading(findings.behind(AgentSummary())).startswith("Not measured yet")


# ---- what stands behind, references, learning, arms


def test_behind_tells_settings_seeds_patients_and_code(summary):
    said = clean(findings.behind(summary))
    assert (
        "`main` (no diagnosis before turn 3, inquiries free): 5 arms, 60 test patients, 3 training seeds."
        in said
    )
    assert "commit `0123456`" in said and "Not in this summary" not in said
    one = AgentSummary(consultations=agent_summary.consultations({"grpo": 0.5}, seeds=(0,)))
    said = clean(findings.behind(one))
    assert "in 1 setting" in said and ": 1 arm, 60 test patients, 1 training seed." in said
    assert "Not in this summary: the settings `closure` and `cured`. The summary names no commit." in said


def test_references_say_what_there_is_to_gain(summary):
    lines = tables.reference_lines(summary, "main")
    said = clean(findings.references(lines))
    assert heading(said) == (
        "Guessing is right in 47.0 % [45.0, 49.0] and the expert is right in 91.0 % [89.0, 93.0] of consultations"
    )
    assert "Random inquiry in 70.0 % [68.0, 72.0] and greedy inquiry in 88.0 % [86.0, 90.0]." in said
    assert "at most 44.0 points over guessing. n = 1,000 patients." in said
    flat = lines.assign(value=47.0)
    assert "nothing to gain" in clean(findings.references(flat))
    assert "Greedy inquiry is right" in clean(findings.references(lines[lines["policy"] == "greedy"]))


def test_learning_counts_the_arms_that_rose(summary):
    ends = tables.training_ends(summary, ("main",))
    said = clean(findings.learning(ends))
    assert "than in the first with all of 5 arms" in heading(said)
    assert "3 training seeds; 95 % intervals are Student's t over seeds." in said
    down = ends.assign(last=ends["first"] - 1, last_low=np.nan, last_high=np.nan)
    assert "with none of 5 arms" in findings.learning(down)
    one = clean(findings.learning(down[down["arm"] == "grpo"].assign(seeds=1)))
    assert (
        "Accuracy is not higher in the last tenth" in one
        and "1 training seed; one seed has no interval." in one
    )


def test_gains_over_the_start_are_counted(summary):
    said = clean(findings.arms(tables.arms_table(summary, "main")))
    assert re.search(r"Arms more accurate than the start: [0-5] of 5", heading(said))
    assert (
        "The start is right in 50.0 % [37.0, 63.0] of consultations." in said
        and "points over the start" in said
    )
    frame = agent_summary.consultations({"grpo": 0.1})
    worse = clean(findings.arms(tables.arms_table(AgentSummary(consultations=frame), "main")))
    assert heading(worse).startswith("Arms more accurate than the start: 0 of 1; less accurate: 1 (")
    without = AgentSummary(consultations=frame[frame["arm"] != "start"])
    assert "the start was not measured" in clean(findings.arms(tables.arms_table(without, "main")))


# ---- credit, gamma, density


def at(summary, **values):
    rows = tables.credit_table(
        AgentSummary(credit=agent_summary.credit(values=values)) if values else summary
    )
    return rows[(rows["group"] == 16) & (~rows["estimator"].str.contains("anchor") | (rows["gamma"] == 0.95))]


def test_credit_says_who_is_nearest_and_whether_that_is_told_apart(summary):
    said = clean(findings.credit(at(summary)))
    assert heading(said).startswith(
        "At the start, Tree + anchor agrees best with the true advantages: correlation 0.63"
    )
    assert heading(said).endswith("GRPO's 0.42 [0.38, 0.46]; the intervals do not overlap")
    assert said.count("\n- ") == 3 and "Groups of 16, n = 3,000 turns of 60 patients, one seed." in said
    near = findings.credit(at(summary, **{"episode": 0.5, "anchor": 0.52}))
    assert heading(clean(near)).endswith("the intervals overlap, so the two are not told apart")
    best = findings.credit(at(summary, **{"episode": 0.6, "anchor": 0.52}))
    assert heading(clean(best)).endswith("no finer credit is nearer to them")
    alone = at(summary, **{"episode": 0.6})
    assert heading(clean(findings.credit(alone))).endswith("nothing else was measured")
    other = at(summary, **{"anchor": 0.6, "tree": 0.5})
    assert heading(clean(findings.credit(other))).endswith("GRPO's credit was not measured")


def test_a_credit_that_is_not_defined_is_counted_and_not_told(summary):
    table = at(summary)
    undefined = table.assign(value=table["value"].where(table["stage"] != "trained"))
    said = clean(findings.credit(undefined))
    assert "4 values are not defined." in said and "Trained:" not in said
    assert "beyond 1 is noise" in clean(findings.credit(table.assign(value=1.2))) and "beyond 1" not in said
    without = table.assign(low=np.nan, high=np.nan)
    assert "without intervals nothing tells them apart" in clean(findings.credit(without))


def test_gamma_is_told_apart_only_by_intervals_that_leave_each_other():
    table = pd.DataFrame(
        [
            {"estimator": "anchor", "stage": "start", "group": 16, "gamma": g, "value": v, "low": v - 0.02,
             "high": v + 0.02, "turns": 3000, "patients": 60}
            for g, v in ((1.0, 0.5), (0.8, 0.6))
        ]
    )  # fmt: skip
    assert heading(clean(findings.gamma(table))).startswith("A gamma of 0.8 brings GiGPO's credit nearer")
    tied = table.assign(low=0.4, high=0.7)
    assert heading(clean(findings.gamma(tied))).startswith("No gamma from 0.8 to 1 is told apart")
    bare = table.assign(low=np.nan, high=np.nan)
    assert heading(clean(findings.gamma(bare))).endswith("is told apart from another: there are no intervals")
    assert heading(findings.gamma(table[:1])).startswith("Not measured yet")


def test_density_stands_by_menu_and_stage(summary):
    said = clean(findings.density(summary.density))
    assert heading(said) == (
        "The share of turns whose state is met again is 30.0 % with a menu of 8 and 4.0 % in the open world, at the start"
    )
    assert "With a menu of 8: at the start 30.0 %, half trained 40.0 % and trained 50.0 %." in said
    one = clean(findings.density(summary.density[summary.density["menu"] == "open"]))
    assert heading(one).endswith("is 4.0 % in the open world, at the start")


# ---- premature closure, front


def test_closure_counts_the_arms_that_stop_asking(summary):
    ends = tables.training_ends(summary)
    said = clean(findings.closure(ends))
    assert heading(said) == (
        "Arms that end with a diagnosis at once: 5 of 5 with priced inquiries, 0 of 5 with prices that rise late"
    )
    assert "With priced inquiries, GRPO: turns 3.6" in said and "3 training seeds" in said.lower()
    half = clean(findings.closure(ends[ends["setting"] != "cured"]))
    assert heading(half).endswith("5 of 5 with priced inquiries, not measured with prices that rise late")
    one = clean(findings.closure(ends[ends["arm"] == "grpo"].assign(seeds=1)))
    assert heading(one).endswith(": 1 of 1 with priced inquiries, 0 of 1 with prices that rise late")
    assert heading(findings.closure(ends[ends["setting"] == "main"])).startswith("Not measured yet")


def test_the_front_is_named_with_its_draws(summary):
    table = tables.front_table(summary, "main", np.random.default_rng(0), reps=50)
    said = clean(findings.front(table))
    on = table[(table["kind"] == "arm") & table["on_front"].astype(bool)]
    assert all(label in heading(said) for label in on["label"]) and "% of draws" in heading(said)
    assert "All arms together cover" in said and "3 training seeds" in said and "1 to 3" not in said


def test_the_end_has_the_headings_of_its_sections(summary):
    table = tables.both_budgets(tables.comparison_table, summary, "main")
    said = clean(findings.answer(table, at(summary), summary.density, tables.training_ends(summary)))
    for part in ("In training", "Against the truth", "What the world allows", "Premature closure"):
        assert f"- **{part}**: " in said
    assert "not measured" not in said and "A tie is a result" in said


# ---- by hand, and one consultation


def test_credit_by_hand_names_the_turn_that_moves_most():
    said = clean(findings.by_hand(by_hand.example()))
    assert heading(said) == "Turns that GiGPO credits otherwise than GRPO: 8 of 10; in a state met again: 8"
    assert re.search(r"The most, at turn \d of episode b: −1.15 becomes −2.31", said)
    assert "2 turns were taken in a state met once: there the anchors add 0. n = 3 episodes." in said
    table = by_hand.example().query("episode == 'a'").assign(met=1, anchor=0.0)
    alone = clean(findings.by_hand(table.assign(credit=table["grpo"])))
    assert (
        heading(alone).startswith("Turns that GiGPO credits otherwise than GRPO: 0 of 3")
        and "The most" not in alone
    )


def test_a_story_says_how_the_likeliest_option_moved():
    rows = [("", "cough", {"A": 0.5, "B": 0.5}), ("ask x", "no x.", {"A": 0.2, "B": 0.8})]
    said = clean(findings.story([*rows, ("diagnose B", "reward 1", {"A": 0.2, "B": 0.8})], "B"))
    assert heading(said) == "After the complaint A is likeliest, with 0.50; at the end B, with 0.80"
    assert "The patient has B. Turn 1 moves its probability most: 0.50 becomes 0.80." in said
    assert heading(clean(findings.by_hand(None))).startswith("Not shown: consultations of the start")
    short = clean(findings.story(rows[:1], "A"))
    assert "at the end" not in short and "Turn" not in short
