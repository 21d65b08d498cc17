"""What a run leaves behind is either right or refused: kills at any moment, damaged files, two runs in one folder.

CLINICAL_R1_STRESS=20 tries twenty times as much as the default does. Each test prints what it counted (pytest -s).
"""

import json
import os
import random
import shutil
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
from stress import chain

from clinical_r1.files import PipelineError

TIMES = int(os.environ.get("CLINICAL_R1_STRESS", "1"))
REFUSALS = (ValueError, FileNotFoundError, PipelineError)
pytestmark = pytest.mark.slow


def start(out) -> subprocess.Popen:
    """A chain in a process of its own, with its stages on standard output."""
    return subprocess.Popen(
        [sys.executable, chain.__file__, str(out)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """(settings of an undisturbed run, its results, seconds of each stage)."""
    out, began = tmp_path_factory.mktemp("whole"), []
    with start(out) as process:
        for line in process.stdout:
            if line.strip() in (*chain.STAGES, "done"):
                began.append((line.strip(), time.monotonic()))
        errors = process.stderr.read()
    assert process.returncode == 0, errors[-3000:]
    seconds = {name: then - now for (name, now), (_, then) in zip(began, began[1:], strict=False)}
    settings = chain.settings_in(out)
    found = chain.results(settings)
    return settings, found, seconds


def copy_of(settings, folder):
    """The run in another folder: what is stamped must not name the first."""
    shutil.copytree(settings.out, folder)
    return chain.settings_in(folder)


# ------------------------------------------------------------------------------------------------------------- kills


def kill_in(stage: str, after: float, out) -> bool:
    """Start a chain and kill it so many seconds into a stage; False when it had ended before."""
    with start(out) as process:
        for line in process.stdout:
            if line.strip() == stage:
                time.sleep(after)
                break
        alive = process.poll() is None
        process.kill()
    return alive


@pytest.mark.parametrize("stage", chain.STAGES)
def test_a_chain_killed_in_any_stage_ends_in_the_same_bytes(whole, tmp_path, stage):
    settings, expected, seconds = whole
    rng = random.Random(stage)
    for trial in range(TIMES):
        out = tmp_path / str(trial)
        kills = sum(kill_in(stage, rng.uniform(0, seconds[stage]), out) for _ in range(1 + trial % 3))
        with start(out) as process:
            _, errors = process.communicate()
        assert process.returncode == 0, errors[-3000:]
        found = chain.results(chain.settings_in(out))
        assert sorted(found) == sorted(expected)
        assert [name for name in expected if found[name] != expected[name]] == [], (
            f"after {kills} kills in {stage}"
        )


# ------------------------------------------------------------------------------------------------------ damaged files


def flipped(data: bytes) -> bytes:
    """One bit in the middle turned."""
    at = len(data) // 2
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


DAMAGES = {
    "cut": lambda data: data[: len(data) // 2],
    "emptied": lambda data: b"",
    "one bit": flipped,
    "longer": lambda data: data + b"\x00garbage",
    "another object": lambda data: b"{}",
    "a list": lambda data: b"[]",
    "a number": lambda data: b"7\n",
    "no text": lambda data: bytes(range(128, 256)),
    "gone": None,
}


# What a finished run never reads again: how training got there.
NOT_READ_AGAIN = ("checkpoints/", ".lock", "train.log", "questions/quarantine.jsonl", "policy/README.md")


def victims(settings) -> list[str]:
    """Every file that a run leaves; of the checkpoints, which only an unfinished arm reads, one file in ten."""
    run = settings.run_dir
    files = sorted(str(path.relative_to(run)) for path in run.rglob("*") if path.is_file())
    rest = [name for name in files if "checkpoints/" in name]
    return [name for name in files if name not in set(rest)] + rest[::10]


def damage(path: Path, how: str) -> bool:
    """False where nothing would change."""
    change = DAMAGES[how]
    if change is None:
        path.unlink()
        return True
    before = path.read_bytes()
    after = change(before) if before else b"x"
    path.write_bytes(after)
    return after != before


def outcome(settings, expected, name: str) -> str:
    """What going on after the damage comes to: refused by name, rebuilt, unused, or what is wrong."""
    damaged = (settings.run_dir / name).read_bytes() if (settings.run_dir / name).exists() else None
    try:
        chain.go_on(settings)
    except REFUSALS as error:
        folder, *_, stem = Path(name).with_suffix("").parts
        named = stem in str(error) or (folder == "questions" and "questions was" in str(error))
        return "refused by name" if named else f"WRONG: refused without its name: {error}"
    except Exception as error:  # whatever else is raised is what this test looks for
        return f"WRONG: {type(error).__name__}: {error}"
    found = chain.results(settings)
    if different := [key for key in expected if found.get(key) != expected[key]]:
        return f"WRONG: went on with other results: {different}"
    path = settings.run_dir / name
    now = path.read_bytes() if path.exists() else None
    if name in expected or now != damaged:
        return "rebuilt"
    return "not read again" if any(part in name for part in NOT_READ_AGAIN) else "WRONG: nobody noticed"


def damage_each(settings, expected, cases, folder, first=lambda copy: None) -> int:
    """Do each damage to a copy of its own and go on; returns how many there were. first: what happens to the copy before."""
    counts, wrong = Counter(), []
    for number, (name, how) in enumerate(cases):
        copy = copy_of(settings, folder / str(number))
        first(copy)
        if damage(copy.run_dir / name, how):
            result = outcome(copy, expected, name)
            counts[result.split(":")[0]] += 1
            wrong += [(name, how, result)] if result.startswith("WRONG") else []
        shutil.rmtree(copy.out)
    print(json.dumps({"tried": sum(counts.values()), **counts}))
    assert wrong == []
    return sum(counts.values())


def test_a_damaged_file_is_refused_by_name_or_rebuilt(whole, tmp_path):
    settings, expected, _ = whole
    cases = [(name, how) for name in victims(settings) for how in DAMAGES]
    random.Random(11).shuffle(cases)
    tried = damage_each(settings, expected, cases[: 40 * TIMES], tmp_path)
    assert tried >= 35 * TIMES


def test_an_arm_killed_while_it_ended_passes_over_a_damaged_checkpoint(whole, tmp_path):
    settings, expected, _ = whole
    files = sorted((settings.model_dir("crpo", 0) / "checkpoints").rglob("checkpoint-*/*"))
    newest = max(int(path.parent.name.split("-")[1]) for path in files)
    names = [str(p.relative_to(settings.run_dir)) for p in files if p.parent.name == f"checkpoint-{newest}"]
    cases = [(name, how) for name in names for how in DAMAGES]
    random.Random(13).shuffle(cases)

    def unfinished(copy):
        folder = copy.model_dir("crpo", 0)
        (folder / "done.json").unlink()
        (folder / "log_history.jsonl").unlink()
        shutil.rmtree(folder / "policy")

    tried = damage_each(settings, expected, cases[: 8 * TIMES], tmp_path, unfinished)
    assert tried >= 7 * TIMES


# ----------------------------------------------------------------------------------------------- two in one folder


def test_two_chains_in_one_folder_are_one_or_the_second_says_so(whole, tmp_path):
    _, expected, seconds = whole
    for trial in range(TIMES):
        out = tmp_path / str(trial)
        first = start(out)
        time.sleep(random.Random(trial).uniform(0, 3))
        second = start(out)
        ends = [(process.communicate()[1], process.returncode) for process in (first, second)]
        assert 0 in [code for _, code in ends], ends
        for errors, code in ends:
            assert code == 0 or "is being written by another run" in errors, errors[-3000:]
        with start(out) as process:
            process.communicate()
        assert chain.results(chain.settings_in(out)) == expected
