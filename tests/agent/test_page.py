"""docs/agent.md: its numbers are those of the tables they speak of, and its rules those of the code."""

import csv
import json
import math
import re

import pytest

from clinical_r1.agent.arms import AGENT_ARMS, EXPERIMENTS, RATES, SPARE_SEED
from clinical_r1.agent.consultation import AMBIGUOUS, PRESENT, Rules
from clinical_r1.agent.start import SHIPPED, Doctor
from clinical_r1.files import ROOT

PAGE = (ROOT / "docs" / "agent.md").read_text(encoding="utf-8")
RESULTS = ROOT / "benchmarks" / "results"
SETS = ("agentclinic", "mediq", "mediq-craft")
PLAYERS = {
    "in the words of the facts": "scripted",
    "one word of each left out": "scripted, one word off",
    "a checklist of standard questions": "checklist",
    "questions for other patients": "random",
}


def rows(name):
    with open(RESULTS / name, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def outside():
    return {(row["set"], row["player"], row["measure"]): row for row in rows("agent_outside.csv")}


def percent(row) -> str:
    value, low, high = (f"{100 * float(row[name]):.1f}" for name in ("value", "low", "high"))
    return f"{value} [{low}, {high}]"


@pytest.mark.parametrize("words, player", PLAYERS.items())
def test_what_players_uncover_is_what_was_measured(words, player, outside):
    cells = " | ".join(percent(outside[name, player, "covered"]) for name in SETS)
    assert f"| {words} | {cells} |" in PAGE


def test_the_matcher_and_the_patients_are_those_of_the_tables(outside):
    for name in SETS:
        assert percent(outside[name, "scripted, one word off", "asked-for"]) in PAGE
    read = rows("agent_reading.csv")
    count = {row["set"]: int(row["count"]) for row in read if row["what"] == "patients"}
    assert f"| patients | {' | '.join(f'{count[name]:,}' for name in SETS)} |" in PAGE
    refused = sum(
        int(row["count"]) for row in read if row["what"] == "refused" and row["set"] != "agentclinic"
    )
    assert refused == 5 and "Five rows of mediQ are refused" in PAGE


def test_the_rules_of_the_page_are_those_of_the_code():
    rules, main = Rules(), EXPERIMENTS["main"]
    assert f"| menu | {rules.menu} findings" in PAGE and f"| horizon | {rules.horizon} turns" in PAGE
    assert f"| earliest diagnosis | turn {rules.earliest} |" in PAGE
    assert f"| costs | {rules.costs['invalid']:g} for an invalid turn; inquiries are free" in PAGE
    assert {name for name, cost in rules.costs.items() if cost} == {"invalid"}
    assert f"between {AMBIGUOUS[0]:.0%} and {AMBIGUOUS[1]:.0%}".replace("%", "").replace(
        " and", " and"
    ) in PAGE.replace(" %", "")
    for weights, said in {
        (2, -2): "95 % for a hallmark",
        (1, -2): "90 % for a sensitive",
        (0, 0): "12 % where nothing",
    }.items():
        assert said.startswith(f"{PRESENT[weights]:.0%}".replace("%", " %")) and said in PAGE
    assert "60 % for a specific or typical one" in PAGE and PRESENT[2, 0] == PRESENT[1, 0] == 0.6
    assert "8 % and 3 % where it argues against" in PAGE and (PRESENT[-1, 0], PRESENT[-2, 0]) == (0.08, 0.03)
    assert f"at least {main.gate:g} more" in PAGE


def test_what_decides_the_comparison_is_what_is_run():
    main = EXPERIMENTS["main"]
    assert f"on {main.test:,} test patients" in PAGE and f"on {main.validation} validation patients" in PAGE
    assert f"**Seeds**: {main.seeds[0]} to {main.seeds[-1]}. Spare seed {SPARE_SEED}" in PAGE
    assert f"{main.steps} for the chains; {main.steps_of('tree_grpo')} for the forests" in PAGE
    assert len(RATES) == 3 and "the best of three rates" in PAGE
    assert (main.patients, main.episodes) == (8, 8) and "Eight patients and eight rows a patient" in PAGE
    assert len(AGENT_ARMS) - 1 == 4 and "over the four comparisons" in PAGE
    for arm in AGENT_ARMS.values():
        assert arm.estimator in re.findall(r"\| `([a-z+]+)`", PAGE)


def test_the_doctors_are_as_bad_as_the_page_says():
    doctor = Doctor()
    assert doctor.informed == 0.25 and "three quarters of their inquiries are drawn at random" in PAGE
    assert doctor.anchored == 0.1 and "one in ten keeps the first impression" in PAGE


def test_the_agent_has_as_many_weights_as_the_page_says():
    with open(SHIPPED / "model.safetensors", "rb") as file:
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    weights = sum(math.prod(entry["shape"]) for name, entry in header.items() if name != "__metadata__")
    assert f"the agent has {weights / 1e6:.1f} million weights" in PAGE


def test_the_smaller_settings_are_those_that_run_and_only_they_have_no_gate():
    closure, cured, long = (EXPERIMENTS[name] for name in ("closure", "cured", "long"))
    assert set(EXPERIMENTS) == {"main", "closure", "cured", "long"}
    assert all((each.arms, each.seeds) == (("grpo", "gigpo"), (0, 1, 2)) for each in (closure, cured, long))
    assert "Three smaller settings train GRPO and GiGPO with seeds 0 to 2" in PAGE
    assert [name for name, each in EXPERIMENTS.items() if each.gate is None] == ["closure", "cured"]
    costs, (free, prices) = closure.rules.costs, cured.schedule
    assert closure.rules == cured.rules and closure.rules.earliest == 1 and not closure.schedule
    said = f"asking and examining cost {costs['ask']:g}, testing {costs['test']:g}"
    assert said in PAGE and costs["ask"] == costs["examine"] and dict(prices[1]) == dict(costs)
    assert f"free until step {free[0]}, and reach these prices at step {prices[0]}" in PAGE
    assert {name for name, cost in free[1].items() if cost} == {"invalid"}
    assert (
        f"{long.rules.horizon} turns, {long.rules.menu} findings, {long.rules.costs['invalid']:g} for" in PAGE
    )
