"""The agent's command line: a consultation as a page, and one sentence for whatever cannot be done."""

import pytest

from clinical_r1.agent.__main__ import main
from clinical_r1.files import DATA_VARIABLE


@pytest.mark.parametrize("policy, turns", [("expert", (3, 5)), ("guess", (3, 3)), ("random_inquiry", (5, 5))])
def test_a_consultation_is_told_from_the_complaint_to_the_diagnosis(policy, turns, capsys):
    assert main(["show", "--policy", policy, "--index", "2"]) == 0
    said = capsys.readouterr().out
    assert said.startswith("Complaint: ") and "On offer: " in said and "not medical advice" in said
    told = [line for line in said.splitlines() if line.startswith("> ")]
    assert turns[0] <= len(told) <= turns[1]
    assert [" diagnose " in line for line in told] == [False] * (len(told) - 1) + [True]


def test_the_open_set_is_told_as_well(capsys):
    assert main(["show", "--open"]) == 0
    assert capsys.readouterr().out.count(", ") > 12


@pytest.mark.parametrize(
    "arguments, said",
    [
        (["show", "--index", "-1"], "--index: got -1; expected 0 to 9999"),
        (["show", "--index", "10000"], "--index: got 10000; expected 0 to 9999"),
        (["outside", ".", "--seed", "-1"], "--seed: got -1; expected 0 or more"),
        (["start", "--out", "x", "--steps", "0"], "--steps: got 0; expected 1 or more"),
        (["outside"], f"no folder: name one that holds agentclinic/ or mediq/, or set {DATA_VARIABLE}"),
        (["outside", "nowhere"], "nowhere"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_sentence(arguments, said, capsys, monkeypatch):
    monkeypatch.delenv(DATA_VARIABLE, raising=False)
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 2 and said in capsys.readouterr().err
