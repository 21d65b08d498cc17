"""Settings are frozen, checked and survive JSON; files are written whole or not at all.

Run: pytest tests/test_settings.py
"""

import dataclasses
import json

import pytest

from clinical_r1 import artifacts, files, train
from clinical_r1.arms import METHODS
from clinical_r1.labels import CLINIC_BENCHMARKS
from clinical_r1.settings import CPU, PROFILES, PUBLISHED, SMOKE, settings_for, settings_from_json


@pytest.mark.parametrize("profile", PROFILES)
def test_settings_survive_json(profile):
    settings = settings_for(profile, out="somewhere", seeds=2)
    assert settings_from_json(json.loads(json.dumps(settings.to_json())), "somewhere") == settings
    assert settings.seeds == (0, 1) and settings.run_dir.parts[-2:] == ("runs", profile)


def test_unknown_profile_names_the_four():
    with pytest.raises(ValueError, match="smoke, cpu, laptop, colab, paper"):
        settings_for("gpu")


@pytest.mark.parametrize("seeds", [0, ()])
def test_no_seeds_are_refused(seeds):
    with pytest.raises(ValueError, match="at least one seed"):
        settings_for("cpu", seeds=seeds)


def test_settings_are_frozen_and_checked():
    with pytest.raises(dataclasses.FrozenInstanceError):
        CPU.rl_steps = 1
    with pytest.raises(ValueError, match="micro_batch 48"):
        dataclasses.replace(CPU, micro_batch=48)
    with pytest.raises(ValueError, match="ppo"):
        dataclasses.replace(CPU, methods=("ppo",))


ODD = [
    *(("seeds", value) for value in (0, "0", [0], (1.5,), (True,), ("0",), (-1,), (0, 0))),
    *(("methods", value) for value in (None, "crpo", ["crpo"], ("crpo", "crpo"), {"crpo": 1}, (["crpo"],))),
    *(("benchmarks", value) for value in (None, "clinic", ("clinic", "clinic"), (3,))),
    *(("eval_top_p", value) for value in (0, -1, 1.5, 10**30)),
    *(("rl_temperature", value) for value in (0, -0.0, -1)),
    *(("base_model", value) for value in ("", " ", "a\nb")),
    *(("outside", value) for value in (None, "gpt", ("gpt",), (("gpt", 1),), [("gpt", "clinic")])),
    ("train_benchmark", ""),
    ("teacher_traces", " "),
    ("own_file", ""),
    ("profile", ""),
]


@pytest.mark.parametrize(("name", "value"), ODD)
def test_a_value_that_no_run_could_mean_names_its_field(name, value):
    with pytest.raises(ValueError, match=f"^{name} "):
        dataclasses.replace(SMOKE, **{name: value})


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (None, "settings are 'None'; expected what `Settings.to_json` writes"),
        ([], "settings are"),
        ({}, "its profile at least"),
        ({"profile": "smoke", "rl_step": 3}, r"settings name \['rl_step'\]; expected some of"),
        ({"profile": "smoke", "out": "elsewhere"}, r"settings name \['out'\]"),
        ({"profile": "smoke", "seeds": 3}, "^seeds is 3"),
    ],
)
def test_json_that_is_no_settings_is_one_sentence(values, message, capsys):
    with pytest.raises(ValueError, match=message):
        settings_from_json(values)
    with pytest.raises(SystemExit, match="2"):
        train.main(["--settings", json.dumps(values), "--arm", "crpo", "--seed", "0"])
    assert "error: --settings: " in capsys.readouterr().err


def test_evaluations_cover_every_cell_of_the_table():
    jobs = CPU.evaluations()
    assert len(jobs) == len(set(jobs)) == len(CPU.methods) * len(CPU.seeds) * len(CPU.benchmarks) * 2
    assert len({CPU.completions_path(b, m, s, p) for m, s, b, p in jobs}) == len(jobs)


def test_arms_of_the_comparison_differ_in_nothing_but_the_method():
    assert not [
        field.name for field in dataclasses.fields(CPU) if "crpo" in field.name or "grpo" in field.name
    ]


def test_a_failed_write_leaves_the_old_file(tmp_path):
    path = files.write_json(tmp_path / "a" / "x.json", {"old": 1})
    with pytest.raises(TypeError):
        files.write_json(path, {"new": object()})
    assert json.loads(path.read_text()) == {"old": 1} and list(path.parent.iterdir()) == [path]


def test_a_line_that_is_not_json_is_named(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text('{"a": 1}\n{"a": \n')
    with pytest.raises(ValueError, match=r"rows\.jsonl, line 2 is not JSON"):
        files.read_jsonl(path)


def test_stale_results_are_refused(tmp_path):
    settings = settings_for("cpu", tmp_path)
    stamp = tmp_path / "done.json"
    assert not artifacts.same_settings(stamp, settings, ["rl_steps"])
    files.write_json(stamp, {"rl_steps": settings.rl_steps})
    assert artifacts.same_settings(stamp, settings, ["rl_steps"])
    files.write_json(stamp, {"rl_steps": settings.rl_steps + 1})
    with pytest.raises(ValueError, match="made from something else"):
        artifacts.same_settings(stamp, settings, ["rl_steps"])


@pytest.mark.parametrize("profile", ["laptop", "colab", "paper"])
def test_long_profiles_lose_little_when_a_session_ends(profile):
    settings = PROFILES[profile]
    assert settings.save_steps * 5 < settings.rl_steps
    assert settings.n_test is None or settings.n_test % settings.eval_batch == 0


def test_colab_is_laptop_on_a_card_and_needs_nothing_brought():
    """No gated data, no traces, no package beyond what the notebooks' first cell installs."""
    laptop, colab = PROFILES["laptop"], PROFILES["colab"]
    assert colab.base_model == laptop.base_model and colab.methods == laptop.methods
    assert (colab.backend, colab.use_vllm, colab.load_in_4bit, colab.teacher_traces) == (
        "trl",
        False,
        False,
        None,
    )
    assert colab.train_benchmark == "clinic" and set(colab.benchmarks) == set(CLINIC_BENCHMARKS)
    assert len(colab.seeds) > len(laptop.seeds) and colab.device_dtype == "float16"
    for name in ("n_sft", "n_rl", "n_test", "rl_steps", "rl_prompts"):
        assert getattr(colab, name) > getattr(laptop, name)


def test_the_published_run_is_cpu_with_more_seeds_and_questions_and_is_shown_in_its_place():
    differs = {
        item.name
        for item in dataclasses.fields(CPU)
        if getattr(CPU, item.name) != getattr(PUBLISHED, item.name)
    }
    sizes = {"seeds", "n_test", "n_test_of", "probe_questions", "probe_also", "direct_seeds", "rl_steps"}
    assert {"profile", *sizes} - differs <= {"rl_steps"} and differs <= {"profile", *sizes}
    assert PUBLISHED.run_dir.name == "published" and PUBLISHED.published_dir == CPU.published_dir
    assert [PUBLISHED.test_size(name) for name in CLINIC_BENCHMARKS] == [2000, 1000, 1000]
    assert CPU.test_size("clinic") == CPU.n_test
    assert PUBLISHED.probed == (*METHODS, "exact_tally") and CPU.probed == METHODS


@pytest.mark.parametrize("value", [("clinic", 2000), (("clinic", 0),), (("clinic", "2"),), [("clinic", 2)]])
def test_numbers_of_questions_are_pairs(value):
    with pytest.raises(ValueError, match="^n_test_of "):
        dataclasses.replace(CPU, n_test_of=value)


def test_an_arm_that_is_only_probed_must_be_known():
    with pytest.raises(ValueError, match="methods .'ppo'. are not known"):
        dataclasses.replace(CPU, probe_also=("ppo",))
