"""`./reproduce.sh agent`: what it would run, and a whole small experiment from learning rates to its summary."""

from dataclasses import replace

import pytest

from clinical_r1.agent import records, reproduce
from clinical_r1.agent.arms import EXPERIMENTS
from clinical_r1.agent.study import Plan
from clinical_r1.files import PipelineError, read_json
from clinical_r1.pipeline.arguments import AGENT_SEEDS, AGENT_SETTINGS


def test_the_command_line_knows_the_settings_without_importing_them():
    assert AGENT_SETTINGS == tuple(EXPERIMENTS)
    assert len(EXPERIMENTS["main"].seeds) == AGENT_SEEDS


def test_every_setting_has_its_name_and_the_costs_of_its_schedule_end_in_its_rules():
    for name, settings in EXPERIMENTS.items():
        assert settings.name == name
        if settings.schedule:
            assert dict(settings.schedule[-1][1]) == dict(settings.rules.costs)


@pytest.mark.parametrize(
    "name, seeds, said", [("mian", None, "expected one of main"), ("main", 6, "expected 1 to 5")]
)
def test_unknown_settings_and_seeds_are_refused(name, seeds, said, tmp_path):
    with pytest.raises(ValueError, match=said):
        reproduce.settings_of(name, tmp_path, seeds)


@pytest.fixture
def small(monkeypatch):
    """The main setting alone, with one arm, a seed, two steps and a handful of patients."""
    tiny = {
        "patients": 2,
        "steps": 2,
        "pool": 6,
        "save_steps": 1,
        "validation": 4,
        "test": 6,
        "seeds": (0,),
        "gate": None,
    }
    main = replace(EXPERIMENTS["main"], arms=("tree_grpo",), **tiny)
    monkeypatch.setitem(EXPERIMENTS, "main", main)
    monkeypatch.setattr(reproduce, "RATES", (1e-3,))
    monkeypatch.setattr(reproduce, "STAGED_ARM", "tree_grpo")
    monkeypatch.setattr(reproduce.summary, "DENSITY_PATIENTS", 4)


PLAN = Plan(patients=2, pool=4, continuations=4, sizes=(2, 4), gammas=(1.0,), chunk=2)


@pytest.mark.slow
def test_a_whole_experiment_writes_every_frame_and_is_kept(small, tmp_path, capsys):
    reproduce.reproduce(tmp_path, ("main",), plan=PLAN, git={"sha": "abc", "dirty": False})
    found = records.read_agent(records.find_agent(tmp_path))
    assert all(frame is not None for frame in found)
    own = found.consultations
    assert set(own["arm"]) == {"start", "tree_grpo"} and set(own["budget"]) == {
        "start",
        "sampled",
        "trained",
    }
    assert len(own) == 6 * (1 + 2)
    assert (own["invalid"] == own["invalid"].round()).all() and (own["repeats"] <= own["invalid"]).all(), (
        "turns, no shares"
    )
    assert (found.training.groupby("arm")["sampled"].diff().dropna() > 0).all(), "tokens are summed up"
    assert found.record["git"]["sha"] == "abc"
    assert set(read_json(tmp_path / "runs/agent/main/tuning.json")["returns"]) == {"tree_grpo"}
    before = (tmp_path / "runs/agent/summary/credit.csv").read_bytes()
    reproduce.reproduce(tmp_path, ("main",), summary_only=True, plan=PLAN)
    assert (tmp_path / "runs/agent/summary/credit.csv").read_bytes() == before


def test_a_summary_of_nothing_is_an_error(tmp_path, monkeypatch):
    monkeypatch.setattr(records, "SHIPPED", tmp_path / "shipped")
    with pytest.raises(PipelineError, match="no learning rate was tuned"):
        reproduce.reproduce(tmp_path, ("main",), summary_only=True)


def test_what_needs_no_training_is_a_summary_of_its_own(small, tmp_path, capsys):
    from clinical_r1.pipeline.__main__ import main

    reproduce.reproduce_start(tmp_path, ("main",), plan=PLAN)
    found = records.read_agent(tmp_path / "runs/agent/summary")
    assert "out" not in found.record["settings"][0], "a folder of this machine"
    assert set(found.credit["stage"]) == set(found.density["stage"]) == {"start"}
    assert set(found.density["menu"]) == {"8", "open"}
    assert found.consultations is None and found.training is None and found.tuning is None
    assert main(["agent", "--start-only", "--dry-run"]) == 0
    assert "would measure the start of the settings: main, closure" in capsys.readouterr().out
    assert main(["agent", "--start-only", "--seeds", "2"]) == 2
    assert "--start-only trains no seed" in capsys.readouterr().err


def _tuned(monkeypatch, returns):
    """Counts how often rates are tried."""
    tried = []
    monkeypatch.setattr(reproduce, "tune", lambda *given: tried.append(given) or returns)
    return tried


def test_rates_that_came_with_the_package_are_taken_if_code_and_start_are_the_same(
    tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(records, "SHIPPED", tmp_path / "shipped")
    returns = {arm: {1e-4: 0.5, 3e-4: 0.6, 1e-3: 0.4} for arm in EXPERIMENTS["main"].arms}
    tried = _tuned(monkeypatch, returns)
    rates = reproduce.tune_rates(tmp_path / "a", publish=True)
    assert set(rates.values()) == {3e-4} and len(tried) == 1
    assert "grpo           rate 0.0003: returns 0.600 on validation (taken)" in capsys.readouterr().out
    assert reproduce.tune_rates(tmp_path / "b") == rates and len(tried) == 1
    assert "tuned with this very code" in capsys.readouterr().out
    monkeypatch.setattr(reproduce, "RATES", (1e-3, 3e-4))
    assert reproduce.tune_rates(tmp_path / "c") == rates and len(tried) == 2


def test_the_packages_own_rates_were_tuned_with_todays_code_and_start():
    path = records.SHIPPED / reproduce.TUNING
    if not path.exists():
        pytest.skip("no learning rate was published")
    every = EXPERIMENTS["main"]
    assert read_json(path)["made_from"] == reproduce._tuned_from(every)
    assert set(read_json(path)["returns"]) == set(every.arms)


def test_seeds_without_the_main_setting_are_refused(capsys):
    from clinical_r1.pipeline.__main__ import main

    assert main(["agent", "--seeds", "2", "--only", "long", "--dry-run"]) == 2
    assert "--seeds counts those of the setting main" in capsys.readouterr().err


def test_trying_rates_takes_no_setting(capsys):
    from clinical_r1.pipeline.__main__ import main

    assert main(["agent", "--tune-only", "--dry-run"]) == 0
    assert "would try the learning rates" in capsys.readouterr().out
    assert main(["agent", "--tune-only", "--only", "long"]) == 2
    assert "--tune-only tries every arm" in capsys.readouterr().err
