"""The chain from end to end, and its command.

Run: pytest tests/preferences/test_experiment.py
"""

import pandas as pd
import pytest

from clinical_r1.arms import ARMS, in_order
from clinical_r1.clinic.cases import load_set
from clinical_r1.preferences import __main__ as command
from clinical_r1.preferences import experiment
from clinical_r1.questions import read_questions


@pytest.mark.slow
def test_the_command_trains_asks_and_counts(tmp_path, capsys):
    argv = ["smoke", "--out", str(tmp_path), "--arms", "kg_dpo", "--split", "validation"]
    assert command.main(argv) == 0
    said = capsys.readouterr().out
    assert "asked in style chat:" in said and "asked in style crpo:" in said
    table = pd.read_csv(tmp_path / "runs" / "preferences-smoke" / "tables" / "stages.csv")
    assert list(table["arm"].unique()) == ["crpo", "chat_sft", "kg_dpo"]
    whole = table[table["scope"] == "all"]
    assert {"accuracy", "coverage", "tokens", "true", "false", "false_share"} <= set(whole["measure"])
    assert (whole["n"] == 12).all()


def test_sizes_and_arms_that_are_not_known_are_named(tmp_path):
    with pytest.raises(ValueError, match="size 'paper' is not known; expected one of smoke, cpu"):
        experiment.preference_settings("paper")
    with pytest.raises(
        ValueError, match=r"arms \['grpo', 'kg'\] are not part of this; expected some of crpo, chat_sft"
    ):
        experiment.preference_settings("smoke", arms=("grpo", "kg_dpo", "kg"))
    with pytest.raises(SystemExit):
        command.main(["smoke", "--arms", "nothing"])


def test_every_arm_of_the_chain_has_a_place_in_a_run():
    arms = [arm.name for arm in ARMS.values() if arm.family in ("preferences", "low_data")]
    for size in experiment.SIZES:
        settings = experiment.preference_settings(size, arms=arms, seeds=(3, 4))
        assert settings.methods == tuple(in_order(arms)) and settings.seeds == (3, 4)
        assert settings.run_dir.name.startswith("preferences")  # no run of the pipeline's own


@pytest.mark.parametrize("split", ["validation", "test"])
def test_the_questions_of_a_run_are_the_clinics_own(tmp_path, split):
    settings = experiment.preference_settings("smoke", tmp_path)
    experiment.write_clinic(settings, split)
    asked = read_questions(settings.questions_path("clinic", "test"))
    assert [question.stem for question in asked] == [
        q.stem for q in load_set("clinic", split, settings.n_test)
    ]
    other = {"validation": "test", "test": "validation"}[split]
    with pytest.raises(
        ValueError, match=f"holds 12 questions, the first clinic-{split}-00000; expected 12 of split {other}"
    ):
        experiment.write_clinic(settings, other)
    trained = read_questions(settings.questions_path("clinic", "rl"))
    assert (len(trained), trained[0].id) == (settings.n_rl, "clinic-rl-00000")


def test_a_table_has_a_row_an_arm():
    rows = [
        {"arm": arm, "style": "chat", "scope": scope, "measure": measure, "value": value}
        for arm, value in (("crpo", 1.0), ("chat_sft", 2.0))
        for scope, measure in (
            ("all", "accuracy"),
            ("all", "false_share"),
            ("unseen families", "false_share"),
        )
    ]
    lines = experiment.shown(pd.DataFrame(rows)).splitlines()
    assert [line.split()[0] for line in lines[2:]] == ["crpo", "chat_sft"]  # in the order of training
    assert "unseen families" in lines[0]
