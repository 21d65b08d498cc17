"""Two processes credit turns as one does: whole groups each, the same episodes, advantages, log and weights."""

import json
from pathlib import Path

import pytest
from agent_processes import CASES, ROWS
from test_multi_process import LAUNCHER, launch

pytestmark = pytest.mark.slow
SCRIPT = Path(__file__).parents[1] / "agent_processes.py"


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """[{case: what was recorded}] of one process and of two."""
    found = []
    for name, launcher in (("one", []), ("two", LAUNCHER)):
        folder = tmp_path_factory.mktemp(name)
        problem = launch([*launcher, str(SCRIPT), str(folder), *CASES], folder / "log.txt")
        assert not problem, problem
        found.append({case: json.loads((folder / f"{case}.json").read_text()) for case in CASES})
    return found


@pytest.mark.parametrize("case", CASES)
def test_two_processes_train_as_one_does(runs, case):
    one, two = (run[case] for run in runs)
    assert (one["processes"], two["processes"]) == (1, 2)
    assert [row["process"] for row in two["rows"]] == [0] * (ROWS // 2) + [1] * (ROWS // 2)
    expected = {row["id"]: row["advantages"] for row in one["rows"]}
    assert len(expected) == ROWS and {row["id"] for row in two["rows"]} == expected.keys()
    for row in two["rows"]:
        assert row["advantages"] == pytest.approx(expected[row["id"]], abs=1e-6)
    assert len(set(two["digests"])) == 1
    assert two["weights"] == pytest.approx(one["weights"], abs=1e-4)
    names = [name for name in one["log"] if name.startswith(("agent/", "credit/", "anchors/"))]
    assert len(names) > 10
    for name in [*names, "reward", "loss"]:
        assert two["log"][name] == pytest.approx(one["log"][name], abs=1e-5), name
    assert sorted(two["table"]) == pytest.approx(sorted(one["table"]), abs=1e-6)
