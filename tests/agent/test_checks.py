"""Settings, plans and starts that cannot be: one sentence, before anything is played or trained."""

import shutil
from dataclasses import replace

import pytest

from clinical_r1.agent import reproduce
from clinical_r1.agent.arms import AGENT_ARMS, EXPERIMENTS, AgentSettings
from clinical_r1.agent.checks import check_settings, check_start
from clinical_r1.agent.consultation import Rules, draw_patients
from clinical_r1.agent.episodes import read_transcripts
from clinical_r1.agent.experiment import check_gate, evaluate, gate, policy_folder, train_all, tune
from clinical_r1.agent.forest import chains, forest
from clinical_r1.agent.language import build_agent_tokenizer
from clinical_r1.agent.outside import FactRules
from clinical_r1.agent.outside_patients import read_mediq
from clinical_r1.agent.policies import POLICIES
from clinical_r1.agent.rollouts import record
from clinical_r1.agent.speaking import Scripted
from clinical_r1.agent.start import start_path
from clinical_r1.agent.study import Plan, estimates
from clinical_r1.agent.train import main, train_agent
from clinical_r1.artifacts import BEGUN, StaleError
from clinical_r1.files import PACKAGE, write_json, write_jsonl, write_stamped

NAN = float("nan")
FINE = AgentSettings("fine", learning_rates=dict.fromkeys(AGENT_ARMS, 1e-3))


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_the_experiments_of_the_package_pass(name):
    check_settings(EXPERIMENTS[name])


@pytest.mark.parametrize(
    "change, said",
    [
        *[({name: 0}, f"{name} 0; expected a whole number >= 1") for name in ("patients", "steps", "pool")],
        *[({name: 0}, f"{name} 0; expected a whole") for name in ("save_steps", "validation", "test")],
        ({"episodes": 1}, "episodes 1; expected a whole number >= 2"),
        ({"steps": 1.5}, "steps 1.5; expected a whole"),
        ({"test": True}, "test True; expected a whole"),
        ({"temperature": 0.0}, "temperature of 0.0; expected a finite number above 0"),
        ({"temperature": NAN}, "temperature of nan"),
        ({"beta": NAN}, "beta of nan; expected a finite number >= 0"),
        ({"gate": NAN}, "gate nan; expected a finite margin"),
        ({"rules": {"horizon": 5}}, "rules of type dict; expected Rules"),
        ({"rules": Rules(horizon=13, menu=None)}, "expected at most 12"),
        ({"name": "../elsewhere"}, "expected the name of one folder"),
        ({"name": ""}, "expected the name of one folder"),
        ({"arms": ()}, "expected a tuple of at least one"),
        ({"arms": "grpo"}, "expected a tuple of at least one"),
        ({"arms": ("grp",)}, "got the arm 'grp'; expected one of grpo"),
        ({"arms": ("grpo", "grpo")}, "expected each once"),
        ({"seeds": ()}, "expected a tuple of at least one"),
        ({"seeds": (0, 0)}, "expected each once"),
        ({"seeds": (-1,)}, "got the seed -1; expected a whole number from 0"),
        ({"episodes": 4}, "tree_grpo grows 8"),
        ({"learning_rates": {"gigpo": 0}}, "learning rate of 0 for gigpo"),
        ({"learning_rates": {"gigpo": NAN}}, "learning rate of nan for gigpo"),
        ({"learning_rates": {"gigpo": "1e-3"}}, "learning rate of '1e-3' for gigpo"),
        ({"learning_rates": {"gigpp": 1e-3}}, "got the arm 'gigpp'"),
    ],
)
def test_settings_that_cannot_be_are_refused_before_anything_is_played_or_written(change, said, tmp_path):
    settings = replace(FINE, out=str(tmp_path), **change)
    for act in (check_settings, check_gate, train_all, lambda s: evaluate(s, None)):
        with pytest.raises(ValueError, match=said):
            act(settings)
    assert not list(tmp_path.iterdir())


def test_an_arm_and_a_seed_that_are_none_are_named(tmp_path):
    settings = replace(FINE, out=str(tmp_path))
    with pytest.raises(ValueError, match="got the arm 'grp'; expected one of grpo"):
        train_agent(settings, "grp", 0)
    with pytest.raises(ValueError, match="got the seed -1; expected a whole number"):
        train_agent(settings, "grpo", -1)


def test_another_model_is_no_start_and_a_folder_that_is_not_there_neither(tmp_path):
    check_start(start_path())
    wrong = [
        (str(tmp_path / "none"), FileNotFoundError, "none holds no model"),
        (str(PACKAGE / "data" / "clinic_base"), ValueError, "lacks 3. words of consultations, such as"),
    ]
    for start, error, said in wrong:
        settings = replace(FINE, out=str(tmp_path / "out"), start=start, arms=("grpo",), seeds=(0,))
        acts = (check_gate, train_all, lambda s: train_agent(s, "grpo", 0), lambda s: evaluate(s, None))
        for act in acts:
            with pytest.raises(error, match=said):
                act(settings)
    assert not [
        path for path in (tmp_path / "out").rglob("*") if path.suffix in (".json", ".jsonl", ".partial")
    ]


def test_a_model_with_fewer_rows_than_its_tokenizer_has_words_is_no_start(tmp_path):
    folder = tmp_path / "start"
    shutil.copytree(start_path(), folder)
    config = folder / "config.json"
    config.write_text(config.read_text().replace('"vocab_size": ', '"vocab_size": 1, "was": '))
    with pytest.raises(ValueError, match="words and the model 1 rows"):
        check_start(folder)


@pytest.mark.parametrize("margin", [NAN, None, "0.05"])
def test_a_margin_that_nothing_is_compared_with_opens_no_gate(margin):
    with pytest.raises(ValueError, match="expected a finite number"):
        gate(None, draw_patients("validation", 1, 0), Rules(), margin)


def test_a_gate_needs_a_patient():
    with pytest.raises(ValueError, match="0 patients; expected"):
        gate(None, [], Rules(), 0.05)


def test_a_checkpoint_of_other_settings_is_refused_as_the_finished_arm_is(tmp_path):
    settings = replace(FINE, out=str(tmp_path))
    write_json(settings.model_dir("grpo", 0) / BEGUN, {"steps": 1})
    with pytest.raises(StaleError, match="was made with another"):
        policy_folder(settings, "grpo", 0, step=50)


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"schedule": [], "rules": {"horizons": 5}}'])
def test_settings_that_are_no_json_of_settings_end_the_process_with_one_sentence(text, capsys):
    with pytest.raises(SystemExit):
        main(["--settings", text, "--arm", "grpo", "--seed", "0"])
    assert "expected the JSON that `AgentSettings.to_json` gives" in capsys.readouterr().err


# ------------------------------------------------------------------------------------------------ tuning, and the study's plan


@pytest.mark.parametrize("rates", [(), (1e-3, 1e-3)])
def test_rates_to_tune_are_there_and_each_once(rates):
    with pytest.raises(ValueError, match="expected at least one, each once"):
        tune(FINE, rates, 101)


def test_no_setting_and_an_unknown_one_are_refused_before_anything_is_tuned(tmp_path):
    with pytest.raises(ValueError, match="got no settings; expected some of main"):
        reproduce.reproduce(tmp_path, ())
    with pytest.raises(ValueError, match="got the setting 'mian'"):
        reproduce.reproduce(tmp_path, ("main", "mian"))
    with pytest.raises(ValueError, match="got --seeds '2'"):
        reproduce.settings_of("main", tmp_path, "2")
    assert not list(tmp_path.iterdir())


def test_returns_that_were_tuned_with_something_else_decide_on_no_rate(tmp_path):
    kept = {arm: {"0.001": 0.5} for arm in EXPERIMENTS["main"].arms}
    write_json(tmp_path / "runs/agent/main/tuning.json", {"made_from": "another start", "returns": kept})
    with pytest.raises(ValueError, match="tuned with another start, code or settings"):
        reproduce.reproduce(tmp_path, ("main",), summary_only=True)


@pytest.mark.parametrize("values", [None, {}, {"0.001": NAN}, {"0.001": "0.5"}, [0.5]])
def test_kept_returns_that_decide_on_no_rate_are_refused(values, tmp_path):
    kept = {arm: {"0.001": 0.5} for arm in EXPERIMENTS["main"].arms} | {"gigpo": values}
    stamp = reproduce._tuned_from(reproduce.settings_of("main", tmp_path))
    write_json(tmp_path / "runs/agent/main/tuning.json", {"made_from": stamp, "returns": kept})
    with pytest.raises(ValueError, match="for gigpo; expected a finite return for each rate"):
        reproduce.reproduce(tmp_path, ("main",), summary_only=True)


@pytest.mark.parametrize(
    "change, said",
    [
        *[({name: 0}, f"got {name} 0; expected a whole") for name in ("patients", "pool", "chunk")],
        ({"pool": -16}, "got pool -16; expected a whole"),
        ({"pool": "16"}, "got pool '16'; expected a whole"),
        ({"continuations": 1}, "got continuations 1; expected a whole number >= 2"),
        ({"seed": -1}, "got seed -1"),
        ({"sizes": ()}, "got sizes .*expected a tuple of at least one"),
        ({"sizes": 4}, "got sizes 4; expected a tuple"),
        ({"sizes": (4, 4)}, "each once"),
        ({"sizes": (0,)}, "expected divisors of it, at least 2"),
        ({"sizes": (2.0,)}, "expected divisors of it, at least 2"),
        ({"gammas": (NAN,)}, "got gammas .nan.; expected numbers from 0 to 1"),
        ({"gammas": (2.0,)}, "expected numbers from 0 to 1"),
    ],
)
def test_a_plan_that_measures_nothing_is_refused(change, said):
    with pytest.raises(ValueError, match=said):
        replace(Plan(), **change)


@pytest.mark.parametrize(
    "change, said", [({"save_steps": 100}, "a checkpoint half-way"), ({"save_steps": 40}, "a multiple of")]
)
def test_checkpoints_that_are_evaluated_in_the_end_are_saved(change, said):
    reproduce.check_checkpoints(EXPERIMENTS["main"])
    with pytest.raises(ValueError, match=said):
        reproduce.check_checkpoints(replace(EXPERIMENTS["main"], **change))
    other = {"arms": ("grpo",), "name": "mine"}
    reproduce.check_checkpoints(replace(EXPERIMENTS["main"], **change, **other))


# ---------------------------------------------------------------------------------------------------- groups, files, real cases


@pytest.fixture(scope="module")
def rows():
    tokenizer, patients = build_agent_tokenizer(), draw_patients("validation", 1, 0)
    speaker = Scripted(POLICIES["random_inquiry"], tokenizer)
    played = {
        "chain": chains(speaker, patients, Rules(), 8),
        "tree": forest(speaker, patients, Rules(), **TREE),
    }
    return [{"kind": k, "episode": e.to_json()} for k, found in played.items() for e in found.episodes]


TREE = {"trees": 2, "expand": 3, "rounds": 1, "keep": 4}


@pytest.mark.parametrize("estimator, size", [("episode", 3), ("anchor", 16), ("tree", 2), ("tree+anchor", 3)])
def test_a_size_that_leaves_a_smaller_group_or_cuts_a_tree_is_refused(rows, estimator, size):
    assert estimates(rows, estimator, 8, True, 1.0)
    with pytest.raises(ValueError, match=f"got groups of {size} .* has 8 episodes; expected whole groups"):
        estimates(rows, estimator, size, True, 1.0)


@pytest.mark.parametrize("estimator, size", [("episode", 0), ("episode", 2.0), (None, 8)])
def test_an_estimator_and_a_size_that_are_none_are_refused(rows, estimator, size):
    with pytest.raises(ValueError, match="expected a name and a whole number >= 1"):
        estimates(rows, estimator, size, True, 1.0)


@pytest.mark.parametrize("odd", [{"n": 0}, {"batch": 0}, {"batch": -1}])
def test_a_file_of_no_episodes_is_not_called_finished(odd, tmp_path):
    with pytest.raises(ValueError, match="expected at least 1 of each"):
        record(tmp_path / "e.jsonl", None, draw_patients("validation", 1, 0), Rules(), {}, **odd)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("row", [{}, {"turns": [], "prompt_ids": []}, {"turns": [{}], "prompt_ids": []}])
def test_rows_that_are_no_episodes_are_named(row, tmp_path):
    path = write_stamped(tmp_path / "e.jsonl", [row], {})
    with pytest.raises(ValueError, match="has no episode in row 1"):
        read_transcripts(path)


def test_an_answer_that_is_no_letter_is_refused_with_its_row(tmp_path):
    fine = {"facts": ["a rash", "fever at night", "pain in the leg"], "options": {"A": "x", "B": "y"}}
    fine |= {"answer_idx": "A", "answer": "x", "question": "What is it?"}
    other = fine | {"facts": ["a cough", "fever by day"], "answer_idx": ["A"]}
    path = write_jsonl(tmp_path / "m.jsonl", [{"id": 0} | fine, {"id": 1} | other])
    reading = read_mediq(path)
    assert len(reading.patients) == 1
    assert reading.refused == [
        {"row": 2, "id": "mediq-m-1", "reason": "the answer is not the option of its letter"}
    ]


@pytest.mark.parametrize(
    "odd", [{"horizon": "5"}, {"horizon": 1.5}, {"costs": {"ask": "1"}}, {"costs": {"ask": None}}]
)
def test_rules_of_real_cases_with_odd_values_are_refused(odd):
    with pytest.raises(ValueError, match="expected (at least one turn|a finite number)"):
        FactRules(**odd)
