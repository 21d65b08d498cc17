"""What is counted before reinforcement learning begins, and what long work says of the time it still takes.

python -m pytest tests/test_starts.py
"""

import json
import os
from dataclasses import replace

import pytest

from clinical_r1 import models, starts
from clinical_r1.curation.splits import ensure_splits
from clinical_r1.engines.local import Transformers
from clinical_r1.pipeline.kernel import Watch
from clinical_r1.questions import read_questions
from clinical_r1.settings import CLINIC_BASE, SMOKE
from clinical_r1.workers import PROGRESS, Progress

RIGHT = "<think> so. </think> <answer> it is \\boxed{%s}. </answer>"


def test_the_start_is_counted_on_training_questions_in_both_styles(tmp_path, monkeypatch):
    settings = replace(SMOKE, out=str(tmp_path), n_rl=4, eval_batch=3)
    ensure_splits(settings)
    questions = read_questions(settings.questions_path("clinic", "rl"))
    asked = []

    def answer(self, prompts, settings, protocol, seeds):
        asked.append((len(prompts), protocol, settings.eval_temperature, settings.eval_top_p, [*seeds]))
        letters = [questions[i % 4].answer for i in seeds]
        return [{"text": RIGHT % letters[0]}] + [{"text": f"it is \\boxed{{{x}}}"} for x in letters[1:]]

    monkeypatch.setattr(Transformers, "answer", answer)
    policy = models.load_policy(CLINIC_BASE, settings), models.load_tokenizer(CLINIC_BASE)
    found = starts.measure_start(*policy, settings)
    assert found["grpo"]["answers"] == 4 and found["grpo"]["well_formed"] == 2 and found["grpo"]["right"] == 4
    assert found["crpo"] == {"answers": 4, "read": 4, "well_formed": 0, "right": 4}
    assert asked == [(3, "sampled", 1.0, 1.0, [0, 1, 2]), (1, "sampled", 1.0, 1.0, [3])] * 2


@pytest.mark.parametrize("found, warned", [((0, 3), True), ((3, 0), True), ((3, 1), False)])
def test_a_start_from_which_nothing_can_be_learned_is_said_with_its_numbers(found, warned):
    (said,) = starts.said_of(
        {"crpo": {"answers": 32, "read": 30, "well_formed": found[0], "right": found[1]}}
    )
    assert "of 32 sampled" in said and f"{found[0]} are well formed and {found[1]} right" in said
    assert ("raise n_sft or sft_epochs" in said) == warned


def test_the_time_left_is_predicted_from_the_steps_of_this_process(tmp_path, capsys):
    now = [0.0]
    progress = Progress(tmp_path, "crpo, seed 0", 30, done=10, clock=lambda: now[0])
    for done in (11, 12, 13):
        now[0] += 60
        sentence = progress.step(done)
    assert sentence == "crpo, seed 0: 13 of 30, about 17 min left, from the first 3"
    kept = json.loads((tmp_path / PROGRESS).read_text())
    assert (kept["sentence"], kept["seconds_left"]) == (sentence, 17 * 60)
    assert (
        capsys.readouterr().err
        == "crpo, seed 0: 12 of 30, about 18 min left, from the first 2\n" + sentence + "\n"
    )
    now[0] += 17
    assert "about 16 s left" in Progress(tmp_path, "x", 2, clock=iter([0.0, 16.0]).__next__).step(1)
    progress.end()
    progress.end()
    assert not (tmp_path / PROGRESS).exists()


def test_the_pipelines_line_says_what_moves_and_not_what_an_earlier_run_left(tmp_path):
    run = tmp_path / "runs" / "smoke"
    watch = Watch("03", run / "notebooks" / "03.partial.ipynb")
    for arm, age in (("grpo", -100), ("crpo", 100)):
        Progress(run / "models" / arm / "seed0", arm, 4, clock=iter([0.0, 120.0]).__next__).step(1)
        path = run / "models" / arm / "seed0" / PROGRESS
        os.utime(path, (watch.since + age, watch.since + age))
    assert watch._work() == "; crpo: 1 of 4, about 6 min left, from the first 1"
