"""The benchmarks run at a tiny size, keep what they measured, and make the block of docs/speed.md from their files alone.

Run: pytest tests/test_benchmarks.py
"""

import importlib
import importlib.util
import json
import sys
from pathlib import Path

import numpy as np
import pytest

from clinical_r1.clinic.cases import Case, load_set
from clinical_r1.clinic.traces import BASE, write_trace
from clinical_r1.curation.folding import match_keys
from clinical_r1.files import ROOT, replace_block
from clinical_r1.intervals import mean_squares, wilson_interval
from clinical_r1.judges.rubric import Totals
from clinical_r1.labels import BENCHMARK_LABELS
from clinical_r1.metrics import PROCESS_METRICS
from clinical_r1.score import exact_judge
from clinical_r1.settings import PROFILES

torch = pytest.importorskip("torch")
pytest.importorskip("trl")

FOLDER = Path(__file__).resolve().parents[1] / "benchmarks"


@pytest.fixture(autouse=True)
def scripts(monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER))
    yield
    for name in (
        "measuring",
        "shared_prefix",
        "rl_step",
        "rollouts",
        "evaluation",
        "gpu",
        "table",
        "against_package",
        "head",
        "curate",
        "local_judge",
        "simulated_tests",
    ):
        sys.modules.pop(name, None)


def script(name):
    return importlib.import_module(name)


def the_point(path):
    values = json.loads(path.read_text())
    assert {"name", "cores", "threads", "torch"} <= values["hardware"].keys()
    assert str(FOLDER.parent) not in path.read_text()
    return values["points"][0]


# --- measuring


def test_runs_take_turns_after_a_round_that_does_not_count():
    measuring, order = script("measuring"), []
    seconds = measuring.in_turn({"a": lambda: order.append("a"), "b": lambda: order.append("b")}, 3)
    assert order == ["a", "b"] * 4
    assert [len(values) for values in seconds.values()] == [3, 3]


def test_a_long_run_is_measured_once():
    measuring, order = script("measuring"), []
    seconds = measuring.in_turn({"a": lambda: order.append("a"), "b": lambda: order.append("b")}, 3, long=-1)
    assert order == ["a", "b"] and [len(values) for values in seconds.values()] == [1, 1]


def test_ratios_are_taken_within_a_round():
    measuring = script("measuring")
    ratio = measuring.speed_up({"stock": [4.0, 9.0, 8.0], "ours": [2.0, 3.0, 2.0]}, "stock", "ours")
    assert ratio == {"median": 3.0, "low": 2.0, "high": 4.0, "n": 3}
    assert measuring.as_text(ratio) == "3.00 (2.00–4.00)"


def test_results_keep_points_and_replace_them(tmp_path):
    measuring = script("measuring")
    results = measuring.Results("a_question", {}, tmp_path)
    assert results.path.name.startswith("a_question.") and results.path.name.endswith("-threads.json")
    results.add({"P": 1}, 3, {"x": 1})
    results.add({"P": 2}, 3, {"skipped": "too large"})
    again = measuring.Results("a_question", {}, tmp_path)
    assert again.kept({"P": 1}, 3)["x"] == 1
    assert again.kept({"P": 1}, 4) is None  # measured less often than asked
    assert again.kept({"P": 2}, 3) is None  # another time it may fit
    assert again.kept({"P": 3}, 3) is None
    again.add({"P": 1}, 4, {"x": 2})
    assert [point.get("x") for point in again.values["points"]] == [None, 2]
    again.values["hardware"]["torch"] = "0.1"
    assert again.kept({"P": 1}, 1) is None
    results.path.write_text('{"question": 1')
    with pytest.raises(ValueError, match="is no result of a benchmark .* delete it and measure again"):
        measuring.Results("a_question", {}, tmp_path)


def test_a_trial_is_not_kept_among_the_results():
    measuring = script("measuring")
    for folder in (measuring.RESULTS, measuring.MEASURED):
        assert measuring.results_folder(folder, smoke=False) == folder
        assert measuring.results_folder(folder, smoke=True) != folder


@pytest.mark.parametrize("name", ["against_package", "gpu", "head", "rl_step", "rollouts", "shared_prefix"])
def test_a_measurement_does_not_change_what_the_speed_page_speaks_of(name):
    text = (ROOT / "benchmarks" / f"{name}.py").read_text(encoding="utf-8")
    assert "default=MEASURED" in text and "RESULTS" not in text
    assert script("measuring").MEASURED == ROOT / "runs" / "benchmarks"  # which git ignores


# --- the scripts at a tiny size


def test_shared_prefix_measures_and_resumes(tmp_path, monkeypatch, capsys):
    shared_prefix = script("shared_prefix")
    monkeypatch.setattr(shared_prefix, "THRESHOLD", 0)  # so tiny a model would be left to the stock trainer
    arguments = shared_prefix.parsed(["--smoke", "--results", str(tmp_path)])
    path = shared_prefix.run_grid(arguments, tmp_path)
    point = the_point(path)
    assert point["settings"].keys() == {"P", "R", "G", "shape", "layers", "vocabulary", "lora", "dtype"}
    for way in ("stock", "ours", "prefix_grouper"):
        assert len(point["seconds"][way]) == point["repeats"] == 2
    # 32 + 4 · 3 tokens instead of 4 · 36; the copies of the prompt's keys cost the published algorithm memory
    assert point["memory_ratio"]["ours"] < point["memory_ratio"]["prefix_grouper"] < 1
    assert point["gradient_difference"] < 1e-5
    assert not point["fell_back"] and 0 < point["predicted"] < 1
    assert "times faster than stock (predicted 0." in capsys.readouterr().out

    monkeypatch.setattr(shared_prefix, "measure", lambda *_: pytest.fail("measured again"))
    before = path.read_text()
    assert shared_prefix.run_grid(arguments, tmp_path) == path and path.read_text() == before


def test_shared_prefix_skips_what_does_not_fit(tmp_path, capsys):
    shared_prefix = script("shared_prefix")
    sizes = ["--prompts", "4096", "--completions", "256", "--groups", "16", "--memory-gb", "8"]
    path = shared_prefix.run_grid(shared_prefix.parsed([*sizes, "--results", str(tmp_path)]), tmp_path)
    assert "GiB, 8 GiB are free" in the_point(path)["skipped"]
    assert "skipped" in capsys.readouterr().out


def test_saved_bytes_counts_each_storage_once():
    shared_prefix = script("shared_prefix")
    weight = torch.nn.Parameter(torch.ones(8, 8))

    class Trainer:
        model = torch.nn.Module()

        def compute_loss(self, model, x):
            return ((x @ weight) * (x @ weight).detach().view(-1).view(4, 8)).sum()

    Trainer.model.weight = weight
    x = torch.ones(4, 8)
    assert shared_prefix.saved_bytes(Trainer(), x) == 2 * 4 * 8 * 4  # x, and the detached product


def test_the_last_layer_in_chunks(tmp_path, capsys):
    assert script("head").main(["--smoke", "--results", str(tmp_path)]) == 0
    (path,) = tmp_path.iterdir()
    values = json.loads(path.read_text())
    assert [point["settings"]["frozen"] for point in values["points"]] == [True, False]
    assert all(point["peak_bytes"].keys() == {"whole", "chunks"} for point in values["points"])
    assert "frozen: chunks" in capsys.readouterr().out
    table = script("table").head_table(values)
    assert "| V 64, h 8, frozen (LoRA) |" in table and "16 tokens" in table


def test_beside_the_package(tmp_path, capsys, monkeypatch):
    """With the package where it is installed; without it nothing is measured and the script says so."""
    against = script("against_package")
    if importlib.util.find_spec("prefix_grouper"):
        path = against.run(against.parsed(["--smoke", "--results", str(tmp_path)]))
        point = the_point(path)
        assert point["loss_difference"] < 1e-4 and point["over_package"]["n"] == 1
        assert "times the package" in capsys.readouterr().out
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert against.main([]) == 0
    assert capsys.readouterr().out.startswith("The package prefix_grouper is not installed")
    sizes = [point["vocabulary"] for point in against.points() if point["part"] == "model"]
    assert {1024, 49_152, 151_936} == set(sizes)


def test_the_table_beside_the_package():
    ratio = {"median": 2.0, "low": 1.9, "high": 2.1, "n": 2}
    model = {
        "part": "model",
        "shape": "0.5B",
        "layers": 2,
        "vocabulary": 151_936,
        "P": 350,
        "R": 600,
        "G": 5,
        "lora": True,
    }
    points = [
        {"settings": {"part": "attention", "shape": "0.5B", "P": 128, "R": 64, "G": 8}, "over_package": ratio},
        {
            "settings": model, "speed_up": {"ours": ratio, "package": ratio}, "over_package": ratio, "predicted": 1.3,
            "fell_back": False, "memory_ratio": {"ours": 0.5, "package": 0.6},
        },
    ]  # fmt: skip
    machine = {"name": "Abacus 9", "cores": 4, "threads": 1, "torch": "2.0"}
    text = script("table").against_package_table({"points": points, "hardware": machine})
    two = "2.00 (1.90–2.10)"
    assert f"| 0.5B × 2, V 151,936 | 350 600 5 | {two} | 1.30 | {two} | {two} | 0.50, 0.60 |" in text
    assert f"| attention alone | 128 64 8 | – | – | – | {two} | – |" in text


def test_rollouts(tmp_path, capsys):
    rollouts = script("rollouts")
    point = the_point(rollouts.run_grid(rollouts.parsed(["--smoke", "--results", str(tmp_path)])))
    assert point["same_tokens"] == 1 and point["speed_up"]["shared"]["n"] == 2
    assert point["tokens_per_second"].keys() == {"plain", "shared"}
    assert "100% of the tokens agree" in capsys.readouterr().out


@pytest.mark.slow
def test_rl_step(tmp_path, capsys):
    rl_step = script("rl_step")
    point = the_point(rl_step.run(rl_step.parsed(["--smoke", "--results", str(tmp_path)])))
    for way in ("stock", "ours"):
        assert sorted(point["parts"][way]) == ["backward", "forward", "generation", "rest"]
        assert all(value > 0 for value in point["parts"][way].values())
    assert point["tokens"]["stock"] == pytest.approx(point["tokens"]["ours"], abs=1)
    assert point["shared_tokens"] < 1
    assert "a whole step of smoke" in capsys.readouterr().out


# --- GPU


def test_without_a_gpu_it_says_so(monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert script("gpu").main([]) == 0
    assert capsys.readouterr().out.startswith("No GPU here, so nothing was measured")


@pytest.mark.slow
def test_gpu_script_on_a_tiny_model(tmp_path):
    gpu = script("gpu")
    point = the_point(gpu.run_grid(gpu.parsed(["--smoke", "--results", str(tmp_path)])))
    assert point["ways"].keys() == {"stock", "ours"} and not point["failed"]
    assert point["ways"]["ours"]["fell_back"] is True  # too small to gain
    assert point["ways"]["ours"]["speed_up"]["n"] == 1
    assert point["ways"]["stock"]["tokens_per_second"] > 0


def test_a_way_that_fails_is_recorded_and_the_others_go_on(monkeypatch):
    gpu = script("gpu")
    shape = {"weights": 10, "layers": 1, "attention": 4, "hidden": 4, "vocabulary": 5}

    def child(way, settings, repeats):
        if way == "stock":
            return {"failed": "out of memory"}
        return {"seconds": [0.5, 0.7], "peak_bytes": 2**30, "fell_back": False, "cost_shape": shape}

    monkeypatch.setattr(gpu, "in_child", child)
    monkeypatch.setattr(gpu, "ways_here", lambda ways: dict.fromkeys(ways) | {"liger": "is not installed"})
    settings = {"shape": "3B", "P": 8, "R": 2, "G": 4, "lora": True, "checkpointing": False}
    machine = {"name": "NVIDIA H100 80GB HBM3"}
    point = gpu.measure(settings, ("stock", "liger", "ours"), 2, 2, machine)
    assert point["failed"] == {"stock": "out of memory", "liger": "is not installed"}
    assert "speed_up" not in point["ways"]["ours"] and point["ways"]["ours"]["mfu"] > 0
    assert "not measured, out of memory" in "\n".join(gpu.sentences({"settings": settings, **point}))


def test_peaks_are_found_by_name():
    gpu = script("gpu")
    assert gpu.peak_flops("NVIDIA H100 80GB HBM3") == 989e12
    assert gpu.peak_flops("NVIDIA H100 PCIe") == 756e12
    assert gpu.peak_flops("Tesla T4") == 65e12
    assert gpu.peak_flops("AMD EPYC") is None


def test_the_paper_s_hours_are_marked_as_a_prediction():
    gpu = script("gpu")
    found = gpu.predict_hours(PROFILES["paper"])
    hours = found["hours"]
    assert found["prediction"] is True and found["utilisation_is"] == "assumed"
    assert hours["total"] == pytest.approx(hours["rollouts"] + hours["reference"] + hours["policy"])
    assert hours["policy"] == pytest.approx(3 * hours["reference"])  # forward, recomputed, inputs' gradients
    assert gpu.prediction_sentence(found).startswith("Predicted, not measured: one RL arm of `paper`")
    faster = gpu.predict_hours(PROFILES["paper"], assumed={"utilisation": 0.6})
    assert faster["hours"]["policy"] == pytest.approx(hours["policy"] / 2)

    point = {"settings": {"shape": "3B"}, "ways": {"ours": {"mfu": 0.6}}}
    measured = {"hardware": {"name": "NVIDIA A100-SXM4-80GB"}, "points": [point]}
    on_another_card = gpu.predict_hours(PROFILES["paper"], measured)
    assert on_another_card["utilisation_is"] == "measured"
    assert on_another_card["hours"]["policy"] == pytest.approx(faster["hours"]["policy"] * 989 / 312)
    with pytest.raises(ValueError, match="no share of the peak for the 3B model"):
        gpu.predict_hours(PROFILES["paper"], {"hardware": {"name": "NVIDIA A100"}, "points": []})
    with pytest.raises(ValueError, match="no peak is known for 'abacus'"):
        gpu.predict_hours(PROFILES["paper"], assumed={"card": "abacus"})


# --- the table


def fabricated(folder):
    """Result files of every question, with invented numbers."""
    cpu = {"name": "Abacus 9", "cores": 4, "threads": 2, "torch": "2.0"}
    model = {"shape": "0.5B", "layers": 2, "vocabulary": 1024, "lora": False, "dtype": "float32"}
    ratio = lambda x: {"median": x, "low": x - 0.1, "high": x + 0.1, "n": 3}  # noqa: E731
    grid = []
    for p, fell_back in ((128, True), (1024, False), (4096, False)):
        for g in (4, 8):
            own = 1.0 if fell_back else 2.5 + p / 4096
            point = {
                "settings": {"P": p, "R": 256, "G": g, **model},
                "seconds": {"stock": [g * p / 500] * 3, "ours": [g * p / 500 / own] * 3, "prefix_grouper": [0.4] * 3},
                "speed_up": {"ours": ratio(own), "prefix_grouper": ratio(2.0)},
                "memory_ratio": {"ours": 0.31, "prefix_grouper": 0.52},
                "predicted": 3.0, "measured_over_predicted": own / 3, "fell_back": fell_back,
            }  # fmt: skip
            grid.append(point)
    grid.append({"settings": {"P": 4096, "R": 256, "G": 16, **model}, "skipped": "stock needs about 30 GiB"})
    parts = {"generation": 1.0, "forward": 0.5, "backward": 0.4, "rest": 0.1}
    step = {
        "settings": {"profile": "cpu", "rl_prompts": 8, "num_generations": 8},
        "repeats": 3,
        "seconds": {"stock": [2.0] * 3, "stock_draws": [1.5] * 3, "ours": [1.0] * 3},
        "speed_up": {part: ratio(2.0) for part in ("step", "generation", "forward", "backward")},
        "parts": dict.fromkeys(("stock", "stock_draws", "ours"), parts),
    }
    rollout = {
        "settings": {"P": 512, "G": 8, "new": 64},
        "tokens_per_second": {"plain": 1000.0, "shared": 1500.0},
        "speed_up": {"shared": ratio(1.5)},
    }
    evaluation = {
        "settings": {"profile": "cpu", "adapter": "none", "protocol": "greedy", "batch": 100},
        "seconds": {"before": [2.0] * 3, "now": [0.5] * 3},
        "speed_up": {"now": ratio(4.0)},
    }
    rewards = {
        "words per completion": 1200,
        "completions per second": {"crpo set": 500, "grpo set": 900, "official rule": 1000},
    }
    files = {
        "evaluation": [evaluation],
        "shared_prefix": grid,
        "rl_step": [step],
        "rollouts": [rollout],
        "rewards": [rewards],
    }
    for question, points in files.items():
        values = {"question": question, "hardware": cpu, "notes": {}, "points": points}
        (folder / f"{question}.abacus-9-2-threads.json").write_text(json.dumps(values))


def test_the_block_is_made_from_the_files_alone(tmp_path):
    table = script("table")
    assert table.block(tmp_path) == "No benchmark has been run yet."
    fabricated(tmp_path)
    block = table.block(tmp_path)
    assert "Abacus 9, 2 of 4 cores, torch 2.0" in block
    assert "| 1024 256 8 | 16.38 | 2.75 (2.65–2.85) | 3.00 | 0.92 | 2.00 (1.90–2.10) | 0.31 | 0.52 |" in block
    assert "1.00 (0.90–1.10) (stock's own method) | 3.00 | – |" in block
    assert "| 4096 256 16 | stock needs about 30 GiB |" in block
    assert "| step | 2.000 | 1.500 | 1.000 | 2.00 (1.90–2.10) |" in block
    assert "| 512 64 8 | 1,000 | 1,500 | 1.50 (1.40–1.60) |" in block
    assert "| crpo set | 500 | 0.50 |" in block
    assert "| none | greedy | 20.00 | 5.00 | 4.00 (3.90–4.10) |" in block
    assert "No GPU could be had" in block and "Predicted, not measured" in block
    widths = {line.count("|") for line in block.splitlines() if line.startswith("| 1024") or "P R G" in line}
    assert len(widths) == 1


def test_gpu_results_enter_the_table_and_the_prediction(tmp_path):
    table = script("table")
    ours = {"seconds": {"median": 0.5}, "peak_bytes": 2**35, "tokens_per_second": 24576.0, "mfu": 0.5}
    ours["speed_up"] = {"median": 2.4, "low": 2.3, "high": 2.5, "n": 3}
    point = {
        "settings": {"shape": "3B", "P": 1024, "R": 512, "G": 8, "checkpointing": True},
        "ways": {"ours": ours},
        "failed": {"unsloth": "unsloth is not installed"},
    }
    card = {"name": "NVIDIA H100 80GB HBM3", "memory GiB": 79, "cuda": "13.0", "torch": "2.0"}
    values = {"question": "gpu", "hardware": card, "notes": {}, "points": [point]}
    (tmp_path / "gpu.nvidia.json").write_text(json.dumps(values))
    block = table.block(tmp_path)
    row = "| 3B P 1024 R 512 G 8, checkpointing | ours | 0.500 | 2.40 (2.30–2.50) | 32.0 | 24,576 | 50% |"
    assert row in block and "Unsloth | unsloth is not installed" in block
    assert "at 50% of its peak (measured)" in block and "No GPU" not in block


def test_page_and_plot_are_written(tmp_path):
    table = script("table")
    fabricated(tmp_path)
    page = tmp_path / "speed.md"
    page.write_text("before\n<!-- benchmarks -->\nold\n<!-- /benchmarks -->\nafter\n")
    for _ in range(2):
        assert table.main(["--results", str(tmp_path), "--page", str(page)]) == 0
        text = page.read_text()
        assert text.startswith("before\n") and text.endswith("<!-- /benchmarks -->\nafter\n")
        assert "old" not in text and "2.75 (2.65–2.85)" in text
    assert (tmp_path / "shared_prefix.png").stat().st_size > 10_000
    assert not (tmp_path / "shared_prefix.pdf").exists()
    page.write_text("no markers")
    with pytest.raises(ValueError, match="must hold the lines <!-- benchmarks --> and <!-- /benchmarks -->"):
        table.main(["--results", str(tmp_path), "--page", str(page)])


def test_the_plot_knows_the_benchmark_s_model_without_building_it():
    from clinical_r1.speed.cost import shape_of

    measuring, table = script("measuring"), script("table")
    model = measuring.random_model("tiny", 3, 70, 16)
    assert table.cost_shape({"shape": "tiny", "layers": 3, "vocabulary": 70}) == shape_of(model)


def test_the_notebook_says_of_a_step_what_its_result_says():
    (path,) = (ROOT / "benchmarks" / "results").glob("rl_step.*.json")
    (point,) = json.loads(path.read_text())["points"]
    assert point["settings"]["profile"] == "cpu" and point["speed_up"]["step"]["median"] > 2
    notebook = (ROOT / "notebooks" / "03_crpo_training.ipynb").read_text(encoding="utf-8")
    assert "a step of `cpu` takes less than half of stock TRL's CPU time" in notebook


def test_the_page_shows_the_results_that_lie_here():
    """Fix: python benchmarks/table.py"""
    table = script("table")
    text = table.PAGE.read_text(encoding="utf-8")
    assert replace_block(text, table.BEGIN, table.END, table.block()) == text


# --- the real model


def test_the_page_of_the_real_model_is_made_of_its_file_and_names_whose_weights_ran():
    real_model = script("real_model")
    facts, text = json.loads(real_model.FILE.read_text()), (ROOT / "docs" / "real-model.md").read_text()
    block = real_model.block(facts)
    assert replace_block(text, real_model.BEGIN, real_model.END, block) == text
    assert "quantised weights, not the Hub's" in block and facts["source"]["sha256"] in block
    assert facts["precision"]["dtype"] in text and str(ROOT) not in real_model.FILE.read_text()
    for arm in facts["arms"].values():
        assert arm["steps"] >= 15


def accuracy_row(benchmark, method, right, n, coverage=1.0):
    low, high = wilson_interval(right, n)
    row = {"benchmark": benchmark, "method": method, "metric": "accuracy", "n": n, "coverage": coverage}
    return row | {"value": 100 * right / n, "ci_low": 100 * low, "ci_high": 100 * high}


def test_what_the_real_model_learned_is_told_whichever_way_it_came_out():
    real_model = script("real_model")
    facts = json.loads(real_model.FILE.read_text())
    arms = {name: {"steps": 40, "rise": rise} for name, rise in (("cold_start_grpo", [1, 0.5, 1.5]),)}
    arms["cold_start_crpo"] = {"steps": 40, "rise": [-1, -1.5, -0.5]}
    table = [
        accuracy_row("clinic", "cold_start_grpo", 50, 100),
        accuracy_row("clinic", "cold_start_crpo", 30, 100),
        accuracy_row("clinic-expert", "cold_start_crpo", 30, 100, 0.5),
    ]
    difference = {"benchmark": "clinic", "metric": "accuracy", "difference": -20.0, "ci_low": -30.0}
    told = real_model._learned(
        facts | {"arms": arms, "table": table, "differences": [difference | {"ci_high": -10.0, "n": 100}]}
    )
    assert "Cold Start + GRPO rises in training: +1.00 [0.50, 1.50]" in told
    assert "Cold Start + CRPO falls in training: -1.00 [-1.50, -0.50]" in told
    assert "100 of 100 (Cold Start + GRPO), 150 of 200 (Cold Start + CRPO)" in told
    assert "Cold Start + GRPO is right more often than guessing (whole interval above) on clinic." in told
    assert (
        "Cold Start + CRPO is right more often than guessing (whole interval above) on clinic-expert." in told
    )
    assert "accuracy on clinic: -20.00 points [-30.00, -10.00], over 100 questions" in told
    arms["cold_start_grpo"]["rise"] = [0.1, -0.5, 0.7]
    told = real_model._learned(facts | {"arms": arms, "table": table[1:2], "differences": []})
    assert (
        "Cold Start + GRPO does not clearly move" in told
        and "is not shown to be right more often than guessing on any set" in told
    )


def test_chance_is_what_guessing_among_the_options_gives():
    from clinical_r1.clinic import load_set

    for name, chance in script("real_model").CHANCE.items():
        assert {100 / len(question.options) for question in load_set(name, "validation", 5)} == {chance}


def test_real_benchmarks_on_the_page_are_those_of_the_file():
    text = (ROOT / "docs" / "real-model.md").read_text()
    found = json.loads((ROOT / "benchmarks" / "results" / "real_benchmarks.json").read_text())["benchmarks"]
    for name, row in found.items():
        n, accuracies = row["n"], []
        for right in (row["right"], row["right_in_words"]):
            low, high = (100 * bound for bound in wilson_interval(right, n))
            accuracies.append(f"{100 * right / n:.1f} ({low:.1f} to {high:.1f})")
        line = [BENCHMARK_LABELS[name], n, row["read"], accuracies[0], row["read_in_words"], accuracies[1]]
        line += [f"{100 * row['chance']:.1f}", f"{100 * row['majority']:.1f}"]
        assert f"| {' | '.join(map(str, line))} |" in text
        assert row["read"] == 0 and row["read_in_words"] < n / 2, "No answer has the box ... under half"
        assert row["right_in_words"] / n < row["chance"], "too few are right to beat guessing"


def test_what_the_real_model_is_worth_as_a_judge_is_told_as_in_the_file():
    text = (ROOT / "docs" / "real-model.md").read_text()
    judge = json.loads((ROOT / "benchmarks" / "results" / "real_benchmarks.json").read_text())["judge"]
    assert judge["with_a_count"] + judge["without"] + judge["cut"] == judge["replies"]
    assert (
        f"a count in {judge['with_a_count']} of {judge['replies']} replies: {judge['without']} held none"
        in text
    )
    assert f"and {judge['cut']} were cut" in text


def test_a_run_without_answers_says_so_and_one_with_them_shows_every_arm():
    real_model = script("real_model")
    facts = json.loads(real_model.FILE.read_text())
    assert "no table in this run" in real_model.block(facts | {"table": None, "example": None})
    row = {
        "benchmark": "clinic",
        "method": "crpo",
        "metric": "accuracy",
        "value": 25.0,
        "n": 4,
        "coverage": 0.75,
    }
    example = {"id": "q1", "question": "What?", "answer": "B", "answers": {"crpo": "it is \\boxed{B}"}}
    shown = real_model.block(facts | {"table": [row | {"ci_low": 4.6, "ci_high": 69.9}], "example": example})
    assert "| clinic | CRPO | 4 | 25.0 (4.6 to 69.9) | 75 % |" in shown and "it is \\boxed{B}" in shown


# --- curation, and a small model as judge


def test_made_up_rows_are_of_medmcqas_kind_and_equal_for_equal_seeds():
    curate = script("curate")
    rows = curate.synthetic_rows(2000)
    assert rows == curate.synthetic_rows(2000) != curate.synthetic_rows(2000, 1)
    keys = list(map(match_keys, rows))
    lengths = sorted(len(own.stem) for own in keys)
    assert 9 <= lengths[1000] <= 13 and 45 <= lengths[1980] <= 70
    assert {len(row.options) for row in rows} == {4}
    assert len({own.exact for own in keys}) < 2000


def test_a_point_says_what_curation_found():
    point = script("curate").measure_one(1500)
    assert point["rows"] == 1500 and point["before_curate_mib"] <= point["peak_mib"]
    assert point["found"]["near_duplicate"] > point["found"]["exact_duplicate"] > 0


def test_a_judge_is_compared_with_the_exact_counts():
    local_judge = script("local_judge")
    rng = np.random.default_rng(0)
    pairs = [
        (question, write_trace(Case.from_json(question.meta["case"]), "crpo", BASE, rng))
        for question in load_set("clinic", "validation", 12)
    ]

    def judge(question, text):
        counts = exact_judge(question, text)
        return counts | {"drc": None}

    judge.measures = PROCESS_METRICS
    judge.totals = Totals(requests=96)
    judge.totals.outcomes.update({("faithfulness", "counted"): 84, ("drc", "unreadable"): 12})
    result = local_judge.measure(judge, pairs)
    rows = {row["measure"]: row for row in result["agreement"]}
    assert rows["faithfulness"]["kappa"] == 1 and rows["faithfulness"]["n"] == 12
    assert rows["drc"]["kappa"] is None and rows["drc"]["n"] == 0  # no verdict is no agreement
    assert result["outcomes"] == {"counted": 84, "unreadable": 12} and result["verdicts"] == 96
    said = local_judge.sentence(result)
    assert said.startswith(
        "Of 96 replies (12 completions, eight measures), 84 hold a count that can be read."
    )
    assert "faithfulness 1.00" in said and "drc" not in said
    blind = result | {"agreement": [row | {"kappa": None} for row in result["agreement"]]}
    assert "defined for none of the eight measures" in local_judge.sentence(blind)


def test_the_page_says_what_the_result_of_curation_says():
    curate = script("curate")
    points = json.loads(curate.FILE.read_text(encoding="utf-8"))["points"]
    assert curate.sentence(points) in (ROOT / "docs" / "benchmarks.md").read_text(encoding="utf-8")


# --- statistics


def test_the_simulated_arms_have_the_spreads_that_they_claim():
    simulated, rng = script("simulated_tests"), np.random.default_rng(0)
    better = simulated.right_answers(rng, 100, 4000, 2.3, 5.0)
    assert better.mean(axis=(1, 2)) == pytest.approx([85, 80], abs=1.5)
    answers = simulated.right_answers(rng, 100, 4000, 2.3, 0.0)
    for values, expected in (
        (answers[1], simulated.BETWEEN_QUESTIONS),
        (answers[0] - answers[1], simulated.APART),
    ):
        of_seeds, of_questions, error = mean_squares(values)
        assert (of_questions - error) / 100 / 1e4 == pytest.approx(expected, rel=0.1)
    of_seeds, _, error = mean_squares(answers[1])
    assert np.sqrt((of_seeds - error) / 4000) == pytest.approx(2.3, abs=0.5)
    counts = simulated.claim_counts(rng, 100, 2000, 0.23, 0.3)
    assert counts.mean(axis=(1, 2)) == pytest.approx([2.05, 1.75], abs=0.1)
    assert counts[1].mean(axis=1).std(ddof=1) == pytest.approx(0.23, abs=0.06)


@pytest.mark.parametrize("seeds", [3, 5, 10])
def test_coverage_type_one_error_and_power_in_small(seeds):
    """200 runs with 200 questions: over three standard errors about 95 %, on the safe side where seeds agree."""
    simulated = script("simulated_tests")
    null = simulated.compared("accuracy", seeds, 200, 1.0, 0.0, 200)
    assert null["coverage"] == 1 - null["rejected"]
    assert 0.9 <= null["coverage"] <= 1 and 0.9 <= null["coverage_of_an_arm"] <= 1
    assert null["rejected_at_first_holm_step"] <= 0.025
    power = simulated.compared("accuracy", seeds, 200, 1.0, 10.0, 60)
    assert power["coverage"] > 0.85 and power["rejected"] > 0.7


def test_simulated_points_survive_a_kill_and_are_not_done_twice(tmp_path, capsys):
    simulated, path = script("simulated_tests"), tmp_path / "statistics.json"
    scenes = (("accuracy", 20, 1.0, 5.0),)
    values = simulated.measure(path, 5, (2,), scenes)
    assert len(capsys.readouterr().out.splitlines()) == 2 == len(values["points"])
    assert simulated.measure(path, 5, (2,), scenes) == values == json.loads(path.read_text())
    assert capsys.readouterr().out == ""
    values["points"].pop()
    path.write_text(json.dumps(values))
    again = simulated.measure(path, 5, (2,), scenes)
    assert len(capsys.readouterr().out.splitlines()) == 1 and len(again["points"]) == 2
    assert "| accuracy | 20 | 1 | 2 |" in simulated.table(again["points"])


def test_the_page_of_statistics_says_what_was_simulated():
    simulated = script("simulated_tests")
    values = json.loads((simulated.RESULTS / simulated.NAME).read_text(encoding="utf-8"))
    page = (ROOT / "docs" / "statistics.md").read_text(encoding="utf-8")
    assert min(point["runs"] for point in values["points"]) >= 2_500 and values["tests"] == 8
    assert simulated.table(values["points"]) in page
    assert simulated.verdict_table(values["verdicts"]) in page
    headings = [line for line in page.splitlines() if line.startswith("#")]
    assert len(headings) == len(set(headings))
    points = [p for p in values["points"] if p["measure"] == "accuracy"]
    many = [p for p in points if p["seeds"] >= 3 and p["seed_sd"] == 1.0]
    assert len(many) == 12 and all(0.93 <= p["coverage"] <= 0.97 for p in many)
    power = {p["questions"]: p for p in many if p["seeds"] == 10 and p["difference"] == 5.0}
    assert all(p["rejected_at_first_holm_step"] >= 0.9 for p in power.values()) and len(power) == 2
    null = [p["rejected"] for p in many if p["difference"] == 0.0]
    for text in simulated.sentences(values):
        assert text in page
    assert max(null) < 0.07


def test_evaluation_before_and_now(tmp_path, capsys):
    evaluation = script("evaluation")
    point = the_point(evaluation.run_grid(evaluation.parsed(["--smoke", "--results", str(tmp_path)])))
    assert point["settings"] == {"profile": "cpu", "adapter": "none", "protocol": "sampled", "batch": 4}
    assert point["speed_up"]["now"]["n"] == 1 and point["tokens"].keys() == {"now", "before"}
    assert capsys.readouterr().out.count("times less CPU time") == 4
