"""The summary of agents: what is written is read again, what is wrong is named with its file and the fix."""

import agent_summary
import numpy as np
import pandas as pd
import pytest

from clinical_r1.agent import records


@pytest.fixture(scope="module")
def frames():
    return agent_summary.summary_frames()


def test_what_is_written_is_read_again_and_the_same_frames_give_the_same_bytes(frames, tmp_path):
    record = {"git": {"sha": "0123456"}, "settings": {}, "seconds": 3.0}
    paths = records.write_agent(tmp_path, frames, record)
    before = {path: path.read_bytes() for path in paths}
    found = records.read_agent(tmp_path)
    for kind, frame in frames.items():
        pd.testing.assert_frame_equal(
            getattr(found, kind), frame[list(records.COLUMNS[kind])], check_dtype=False
        )
    assert found.record == record and found.credit["menu"].tolist()[0] == "8"
    records.write_agent(tmp_path, frames, record)
    assert {path: path.read_bytes() for path in paths} == before


def test_a_file_that_is_not_there_is_a_part_that_was_not_measured(frames, tmp_path):
    assert records.read_agent(tmp_path / "nowhere") == records.AgentSummary()
    records.write_agent(tmp_path, {"density": frames["density"]})
    found = records.read_agent(tmp_path)
    assert found.credit is None and found.of("consultations", "main") is None and len(found.density) == 6


def test_one_s_own_summary_is_found_where_it_is_whole(frames, tmp_path):
    own = tmp_path / "runs" / "agent" / "summary"
    records.write_agent(own, frames)
    assert records.find_agent(tmp_path) == records.SHIPPED  # the record lacks
    records.write_agent(own, {}, {"git": {}})
    assert records.find_agent(tmp_path) == own


def test_rows_of_a_setting_that_was_not_run_are_none(frames):
    summary = records.AgentSummary(**frames)
    assert summary.of("training", "long") is None
    assert set(summary.of("training", "closure")["setting"]) == {"closure"}


@pytest.mark.parametrize(
    ("kind", "change", "message"),
    [
        ("consultations", {"right": 2}, "right 2; expected numbers of 0 or 1"),
        ("consultations", {"right": 0.5}, "of 0 or 1"),
        ("consultations", {"tests": -1}, "tests -1; expected numbers of at least 0"),
        ("consultations", {"arm": "ppo"}, r"arm \['ppo'\]; expected some of"),
        ("consultations", {"budget": "free"}, "budget"),
        ("consultations", {"reward": np.nan}, "no reward in"),
        ("consultations", {"patient": "p"}, "two rows of"),
        ("training", {"repeated": 1.2}, "from 0 to 1"),
        ("training", {"reward": np.inf}, "that are finite"),
        ("credit", {"estimator": "critic"}, "estimator"),
        ("credit", {"turns": 0}, "at least 1"),
        ("density", {"stage": "late"}, "stage"),
        ("references", {"policy": "oracle"}, "policy"),
        ("tuning", {"rate": -1.0}, "rate"),
    ],
)
def test_a_wrong_value_is_named_with_its_file_and_the_fix(frames, tmp_path, kind, change, message):
    frame = frames[kind].assign(**change)
    with pytest.raises(ValueError, match=message) as error:
        records.write_agent(tmp_path, {kind: frame})
    assert not list(tmp_path.iterdir())
    frame.to_csv(tmp_path / records.FILES[kind], index=False)
    with pytest.raises(ValueError, match=message) as error:
        records.read_agent(tmp_path)
    assert records.FILES[kind] in str(error.value) and records.FIX in str(error.value)


def test_what_may_be_missing_is_no_error(frames, tmp_path):
    blank = {"covered": np.nan, "premature": np.nan}
    undefined = {"value": np.nan, "low": np.nan, "high": np.nan}
    made = {
        "consultations": frames["consultations"].assign(**blank),
        "credit": frames["credit"].assign(**undefined),
    }
    records.write_agent(tmp_path, made)
    assert records.read_agent(tmp_path).consultations["covered"].isna().all()


def test_missing_columns_empty_and_broken_files_are_errors(frames, tmp_path):
    with pytest.raises(ValueError, match="expected some of references"):
        records.write_agent(tmp_path, {"answers": frames["density"]})
    with pytest.raises(ValueError, match="has no rows"):
        records.write_agent(tmp_path, {"density": frames["density"][:0]})
    with pytest.raises(ValueError, match=r"lacks the columns \['alone'\]"):
        records.write_agent(tmp_path, {"density": frames["density"].drop(columns="alone")})
    (tmp_path / records.FILES["training"]).write_bytes(b"no gzip")
    with pytest.raises(ValueError, match="cannot be read"):
        records.read_agent(tmp_path)
