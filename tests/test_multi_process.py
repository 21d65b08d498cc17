"""Two processes train as one does: same rows, advantages, losses, multipliers and weights for one global batch.

The runs are tests/two_processes.py, alone and under `accelerate launch`, on completions that are known beforehand.

Run: pytest tests/test_multi_process.py
"""

import functools
import json
import os
import signal
import subprocess
import sys
from collections import Counter, defaultdict
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from two_processes import CASES, STEPS

torch = pytest.importorskip("torch")
trl = pytest.importorskip("trl")

SCRIPT = Path(__file__).with_name("two_processes.py")
LAUNCHER = ["-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2", "--num_machines", "1"]
LAUNCHER += ["--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", "0"]  # 0: a free one
FAST = ("sum_then_normalize", "normalize_then_sum", "constrained", "split_group", "uneven_groups")
# Names in two_processes.MIXINS, and the cases that they refuse: a slice that is neither whole groups nor one part of one
MIXINS = {(): (), ("shared_prefix",): ("split_group", "uneven_groups", "drawn")}
# statistics of a step that do not depend on how the rows lie in passes
STATISTICS = ("reward", "advantage/", "completions/", "frac_reward", "num_tokens", "loss", "grad_norm")


def launch(command, log):
    """Run python with these arguments to the end. Returns "", or where it fails or hangs the log's end."""
    place = {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "GLOO_SOCKET_IFNAME": "lo"}
    place |= {"PYTHONPATH": str(SCRIPT.parents[1])}
    with open(log, "w") as lines:
        pipes = {"stdin": subprocess.DEVNULL, "stdout": lines, "stderr": subprocess.STDOUT}
        process = subprocess.Popen(
            [sys.executable, *command], env=os.environ | place, start_new_session=True, **pipes
        )
        try:
            code = process.wait(timeout=240)
        except subprocess.TimeoutExpired:
            code = "none after 240 s"
            os.killpg(
                process.pid, signal.SIGKILL
            )  # of the session made above: the launcher and its processes
            process.wait()
    return f"exit status {code}: {Path(log).read_text()[-4000:]}" if code else ""


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """(fast or slow, mixins) -> folders of the run in one process and of the run in two, made when first asked for."""

    @functools.cache
    def made(slow, mixins):
        names = [name for name in CASES if is_slow(name, mixins) == slow and name not in MIXINS[mixins]]
        folder = tmp_path_factory.mktemp("runs")
        last = ["--mixins", *mixins] if mixins else []

        def run(name, launcher):
            return launch([*launcher, str(SCRIPT), str(folder / name), *names, *last], folder / f"{name}.log")

        with ThreadPoolExecutor(2) as pool:  # most of the time goes into imports
            return folder, "".join(pool.map(run, ("one", "two"), ([], LAUNCHER)))

    def folders(slow, mixins):
        folder, problem = made(slow, mixins)  # a failed run is not tried again for every test
        assert not problem, problem
        return folder / "one", folder / "two"

    return folders


def is_slow(case, mixins):
    return case not in FAST or bool(mixins)


def cases(names):
    """Each case with each of the mixins that take it."""
    return pytest.mark.parametrize(
        ("mixins", "case"),
        [
            pytest.param(
                mixins,
                name,
                marks=pytest.mark.slow if is_slow(name, mixins) else (),
                id="-".join([*mixins, name]),
            )
            for mixins, refused in MIXINS.items()
            for name in names
            if name not in refused
        ],
    )


@pytest.fixture
def pair(case, mixins, runs):
    folders = runs(is_slow(case, mixins), mixins)
    one, two = (json.loads((folder / f"{case}.json").read_text()) for folder in folders)
    assert (one["processes"], two["processes"]) == (1, 2)  # the launcher really started two
    return one, two


all_cases = cases([name for name in CASES if not CASES[name].drawn])


@all_cases
def test_the_processes_share_the_batch_of_one_process(case, pair):
    """Gathered in process order, the rows are those of one process in its order: whole groups, one after the other."""
    one, two = pair
    rows, group = CASES[case].rows * CASES[case].passes, CASES[case].num_generations
    assert len(one["rows"]) == len(two["rows"]) == rows * STEPS // 2
    generations = defaultdict(list)
    for row in two["rows"]:
        generations[row["generation"]].append(row)
    gathered = [row for generation in sorted(generations) for row in generations[generation]]
    same = ("generation", "prompt", "completion")
    assert [[row[key] for key in same] for row in gathered] == [
        [row[key] for key in same] for row in one["rows"]
    ]
    for generation in generations.values():
        assert [row["process"] for row in generation] == [0] * (rows // 2) + [1] * (rows // 2)
        for start in range(0, rows, group):
            assert len({row["prompt"] for row in generation[start : start + group]}) == 1
        assert len({row["prompt"] for row in generation}) == rows // group
    assert len({tuple(row["completion"]) for row in one["rows"]}) == len(
        one["rows"]
    )  # each row is known by its text


@all_cases
def test_every_row_has_the_advantage_that_one_process_gives_it(case, pair):
    one, two = pair
    expected = {tuple(row["completion"]): row["advantage"] for row in one["rows"]}
    assert max(map(abs, expected.values())) > 0.1
    for row in two["rows"]:
        assert row["advantage"] == pytest.approx(expected[tuple(row["completion"])], abs=1e-6)
    for (
        run
    ) in pair:  # and takes it along into the loss, through TRL's shuffle: once in every pass over the rows
        for _, completion, advantage in run["trained"]:
            assert advantage == pytest.approx(expected[tuple(completion)], abs=1e-6)
    trained = [Counter((step, tuple(ids)) for step, ids, _ in run["trained"]) for run in pair]
    assert trained[0] == trained[1] and set(trained[0].values()) == {1}
    assert len(trained[0]) == CASES[case].rows * CASES[case].passes * STEPS


@all_cases
def test_losses_and_statistics_are_those_of_one_process(case, pair):
    means = []
    for run in pair:
        losses = defaultdict(float)
        for step, loss in run["losses"]:
            losses[step] += loss / run["processes"]
        means.append([losses[step] for step in range(STEPS)])
    assert means[1] == pytest.approx(means[0], abs=1e-5)
    assert max(map(abs, means[0])) > 1e-3
    for alone, together in zip(*(run["log"][:STEPS] for run in pair), strict=True):
        compared = [key for key in alone if key.startswith(STATISTICS)]
        assert {"loss", "grad_norm"} <= set(compared)
        assert set(alone) == set(together)
        for key in compared:
            # TRL rounds nothing: what remains is the order of the sums. A share of nothing is None on both sides.
            expected = alone[key] if alone[key] is None else pytest.approx(alone[key], rel=1e-4, abs=1e-5)
            assert together[key] == expected, key


@all_cases
def test_weights_are_those_of_one_process(case, pair, mixins, runs):
    from safetensors.torch import load_file

    one, two = (load_file(folder / f"{case}.safetensors") for folder in runs(is_slow(case, mixins), mixins))
    assert one.keys() == two.keys()
    for name, value in one.items():
        assert torch.allclose(value, two[name], rtol=0, atol=1e-5), name
    first, second = pair[1]["weights"]
    assert first == second  # bit by bit: a process that trained alone would drift away
    if not CASES[case].lora:
        from transformers import AutoModelForCausalLM

        from clinical_r1.models import clinic_base_path

        start = dict(AutoModelForCausalLM.from_pretrained(clinic_base_path()).named_parameters())
        assert max((value - start[name]).abs().max() for name, value in one.items()) > 1e-3


@cases([name for name in CASES if CASES[name].aggregation == "constrained"])
def test_multipliers_move_together(case, pair):
    one, two = pair
    first, second = two["multipliers"]
    assert first == second
    assert first == [pytest.approx(values, abs=1e-6) for values in one["multipliers"][0]]
    assert max(first[-1]) > 0.01


@pytest.mark.parametrize(("rows", "group", "allowed"), [(2, 4, True), (6, 4, True), (3, 4, False)])
def test_a_batch_of_all_processes_must_hold_whole_groups(tmp_path, monkeypatch, rows, group, allowed):
    """Rows of one of two processes: a group may lie across both, but TRL refuses a part of one."""
    monkeypatch.setattr(trl.GRPOConfig, "world_size", 2)
    arguments = dict(output_dir=str(tmp_path), per_device_train_batch_size=rows, num_generations=group)
    arguments |= dict(use_cpu=True, bf16=False)
    if allowed:
        assert trl.GRPOConfig(**arguments).generation_batch_size == 2 * rows
    else:
        with pytest.raises(
            ValueError, match=r"generation_batch_size \(6\) must be divisible by num_generations"
        ):
            trl.GRPOConfig(**arguments)


@cases(["drawn"])
def test_each_process_draws_completions_of_its_own(pair):
    """TRL seeds the processes apart; else the halves of a group that lies across two would be the same."""
    halves = [
        [row["completion"] for row in pair[1]["rows"] if (row["process"], row["generation"]) == (process, 0)]
        for process in (0, 1)
    ]
    assert len(halves[0]) == len(halves[1]) == 4 and halves[0] != halves[1]
    assert len({row["prompt"] for row in pair[1]["rows"]}) == 2  # one prompt a generation
