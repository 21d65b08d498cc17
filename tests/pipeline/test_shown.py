"""What a stored notebook says of its parameters, and that it keeps no progress bar.

python -m pytest tests/pipeline/test_shown.py
"""

import io
from dataclasses import replace

import pytest
from tqdm import tqdm

from clinical_r1.labels import CLINIC_BENCHMARKS
from clinical_r1.pipeline.shown import WIDGET, folder_line, run_line, without_progress
from clinical_r1.settings import settings_for


def test_the_line_names_profile_seeds_questions_and_base_model():
    assert run_line(settings_for("published")) == (
        "profile published · seeds 0 to 9 · test questions: clinic 2,000, clinic-shift 1,000, clinic-expert 1,000 "
        "· base model clinic-base"
    )


def test_the_line_of_a_readers_own_run():
    assert "profile cpu · seed 0 · test questions: clinic 500" in run_line(settings_for("cpu", seeds=1))
    assert " all" in run_line(settings_for("paper")) and "Qwen/Qwen2.5-3B-Instruct" in run_line(
        settings_for("paper")
    )


@pytest.mark.parametrize(
    "seeds, said",
    [((0,), "seed 0 "), ((0, 1), "seeds 0, 1 "), ((3, 4, 5), "seeds 3 to 5 "), ((0, 2, 9), "seeds 0, 2, 9 ")],
)
def test_seeds_as_they_are(seeds, said):
    assert f" {said}" in run_line(settings_for("cpu", seeds=seeds))


def test_questions_that_the_user_brings_may_be_fewer_than_asked_for():
    settings = replace(settings_for("cpu"), benchmarks=("mine", CLINIC_BENCHMARKS[0]), n_test=300)
    assert "mine at most 300, clinic 300" in run_line(settings)


def test_a_notebook_without_a_run_says_what_the_profile_is_for():
    line = folder_line(settings_for("published"))
    assert line.startswith("profile published: ") and "seeds" in line and "\n" not in line


# ---- progress ----


def drawn(**how) -> str:
    """What a bar of tqdm leaves on standard error."""
    file = io.StringIO()
    with tqdm(desc="arms trained", unit="arm", file=file, **how) as bar:
        bar.update(15)
    return file.getvalue()


def stderr(text: str) -> dict:
    return {"output_type": "stream", "name": "stderr", "text": text.splitlines(keepends=True)}


@pytest.mark.parametrize("how", [{"total": 15}, {}, {"total": 10**6, "unit_scale": True}])
def test_bars_are_left_out_and_warnings_stay(how):
    assert "arms trained" in drawn(**how)
    assert without_progress([stderr(drawn(**how))]) == []
    (kept,) = without_progress([stderr(drawn(**how) + "UserWarning: 15% of answers were cut\n")])
    assert kept == stderr("UserWarning: 15% of answers were cut\n")


def test_a_widget_is_left_out_since_a_page_shows_it_as_it_began():
    began = "arms trained:   0%|          | 0/15 [00:00<?, ?arm/s]"
    widget = {"output_type": "display_data", "data": {WIDGET: {"model_id": "a"}, "text/plain": [began]}}
    table = {"output_type": "execute_result", "data": {"text/plain": ["method  seed"]}, "metadata": {}}
    printed = {"output_type": "stream", "name": "stdout", "text": ["90 files, 50%|half| of them\n"]}
    assert without_progress([widget, printed, table]) == [printed, table]


def test_bars_with_a_unit_of_a_word_and_moves_of_the_cursor_are_bars():
    split = "Generating train split: 0 examples [00:00, ? examples/s]\rGenerating train split: 12 examples [00:00, 9 ex/s]\n"
    assert without_progress([stderr(split), stderr("\x1b[A\n")]) == []
    warning = stderr("UserWarning: 5 samples [a, b] were cut\n")
    assert without_progress([warning]) == [warning]
