"""README.md: its length, its one example, and every number it claims, read against the tables they come from."""

import re

import pandas as pd
import pytest
from pages import blocks, one_line, page, published

from clinical_r1.arms import ABLATIONS
from clinical_r1.clinic import Case, knowledge_base, load_set
from clinical_r1.clinic.verdicts import SUPPORTS, phrase_table, read_claims, verdict
from clinical_r1.completions import parse_completion
from clinical_r1.files import ROOT
from clinical_r1.pipeline.stages import STAGES
from clinical_r1.prompts import render_question
from clinical_r1.rewards import REWARD_SETS
from clinical_r1.settings import PROFILES

assert published  # a fixture
README = page("README.md")
EXAMPLE = re.search(r"<!-- example: (\S+) -->\n(.*?)<!-- /example -->", README, re.DOTALL)
MARKS = {
    "true": "true",
    "contradicted_by_vignette": "**false**: contradicted by the vignette",
    "contradicted_by_kb": "**false**: contradicted by the knowledge base",
    "unverifiable": "unverifiable",
}


@pytest.fixture(scope="module")
def example():
    """(question, case, the model's answer) of the printed example."""
    number = int(EXAMPLE[1].rsplit("-", 1)[1])
    question = load_set("clinic", "validation", number + 1)[number]
    assert question.id == EXAMPLE[1]
    (answer,) = blocks(EXAMPLE[2], "text")
    return question, Case.from_json(question.meta["case"]), answer


def test_five_minutes_are_enough():
    words = [token for token in README.split() if re.search(r"\w", token)]  # the rules of a table are none
    assert len(words) <= 2000


def test_the_example_prints_the_question_as_it_is(example):
    question, _, _ = example
    quoted = one_line(EXAMPLE[2].replace("> ", "").replace(" · ", " "))
    assert question.stem in quoted
    for letter, option in question.options.items():
        assert f"{letter}: {option}{' (right)' if letter == question.answer else ''}" in quoted


def test_every_claim_of_the_example_is_marked_with_its_verdict(example):
    """Recomputed from the case: the marks cannot drift from the rules."""
    _, case, answer = example
    words = {meaning: text for text, meaning in phrase_table().items() if text in answer}
    expected = [
        (
            f"{words[claim.finding, claim.present]} {'supports' if claim.direction == SUPPORTS else 'argues against'} "
            f"{claim.condition}",
            MARKS[verdict(claim, case)],
        )
        for claim in read_claims(answer)
    ]
    rows = re.findall(r"^\| (?!claim|---)(.+?) \| (.+?) \|$", EXAMPLE[2], re.MULTILINE)
    assert [claim for claim, _ in rows] == [claim for claim, _ in expected]
    for (_, mark), (_, expected_mark) in zip(rows, expected, strict=True):
        assert mark == expected_mark or mark.startswith(f"{expected_mark},")


def test_the_example_follows_its_rule_and_is_paid_as_written(example):
    question, case, answer = example
    verdicts = [verdict(claim, case) for claim in read_claims(answer)]
    assert "true" in verdicts and any(v.startswith("contradicted") for v in verdicts)
    assert question.id == "clinic-validation-00003"  # "It is the fourth validation question"
    assert parse_completion(answer, "crpo").letter == question.answer  # "and the answer is right"
    columns = {
        "answer": [question.answer],
        "options": [question.options],
        "prompts": [render_question(question)],
    }
    rewards = REWARD_SETS["crpo"]
    parts = [function([answer], **columns)[0] for function in rewards.functions]
    paid = [weight * part for weight, part in zip(rewards.weights, parts, strict=True)]
    finding = "continuous mucosal inflammation from the rectum"
    once = answer.replace(f"{finding} and {finding} favor", f"{finding} favor")
    assert once != answer and rewards.functions[1]([once], **columns) == [
        1.5
    ]  # "which says one finding twice"
    assert paid == [10.0, 1.0, 0.5] and f"pays this answer {sum(paid):.1f} of 12:" in README


def test_what_it_is_not_agrees_with_the_ledger(published):
    counts = pd.read_csv(published / "ledger.csv")["verdict"].value_counts()
    assert set(counts.index) == {"not attempted"}
    assert (
        f"Of the paper's {counts.sum()} printed cells, 0 are reproduced and {counts.sum()} are not attempted"
        in one_line(README)
    )


def test_the_picture_shows_what_its_caption_says(published):
    shown = pd.read_csv(published / "fig4_accuracy.csv").set_index(["benchmark", "method"])
    measured = shown[shown["seeds"] > 0]
    sizes = measured.groupby(level="benchmark")["n"].unique().map(list).to_dict()
    assert set(measured["seeds"]) == {10}
    assert sizes == {"clinic": [2000], "clinic-shift": [1000], "clinic-expert": [1000]}
    assert "Ten training seeds; 2,000 test questions of `clinic`, 1,000 of the other two" in README
    for benchmark in sizes:
        for method in ("grpo", "crpo"):
            assert shown.loc[(benchmark, method), "value"] - shown.loc[(benchmark, "baseline"), "value"] > 20
    rows = pd.read_csv(published / "comparisons.csv")
    accuracy = rows[(rows["method"] == "crpo") & (rows["against"] == "grpo") & (rows["metric"] == "accuracy")]
    assert len(accuracy) == 3 and not ((accuracy["p_holm"] < 0.05) & (accuracy["difference"] > 0)).any()


def test_sizes_are_those_of_the_package():
    kb = knowledge_base()
    text = one_line(README)
    assert f"{len(kb.conditions)} conditions in {len(set(kb.families))} families" in text
    assert f"{len(kb.findings)} findings" in text
    assert f"trains {len(ABLATIONS)} more arms" in text
    from safetensors import safe_open

    with safe_open(ROOT / "clinical_r1/data/clinic_base/model.safetensors", "np") as file:
        weights = sum(file.get_tensor(name).size for name in file.keys())
    assert f"{weights / 1e6:.1f} M parameters" in text


def test_times_of_the_notebooks_are_those_that_a_dry_run_tells():
    for stage in STAGES:
        minutes, (row,) = stage.minutes["cpu"], re.findall(rf"^\| \[{stage.number} .*$", README, re.MULTILINE)
        assert f"| {minutes:g} min{' a seed |' * stage.per_seed}" in row
    totals = {
        name: (sum(s.minutes[name] for s in STAGES if s.per_seed), sum(s.minutes[name] for s in STAGES))
        for name in PROFILES
    }
    assert round(totals["cpu"][0]) == 5 and 6 <= totals["cpu"][1] <= 7
    assert "about 5 minutes a seed and one more" in README
    assert 2 <= totals["smoke"][1] <= 3 and "about 3 minutes" in README
    assert totals["laptop"][0] == 144 and "about 145 min a seed (measured)" in README
    assert round(totals["colab"][0]) == 45 and "about 45 min a seed (estimate)" in README


def test_profiles_are_as_large_as_the_table_says():
    smoke, cpu, colab, paper = (PROFILES[name] for name in ("smoke", "cpu", "colab", "paper"))
    assert f"{smoke.rl_steps} RL steps | clinic, {smoke.n_test} test questions a set" in README
    assert f"{cpu.n_sft:,} SFT and {cpu.n_rl:,} RL questions, three test sets of {cpu.n_test}" in README
    laptop, (small, large) = (
        PROFILES["laptop"],
        (s.base_model.split("/")[1].split("@")[0] for s in (colab, paper)),
    )
    assert laptop.base_model == colab.base_model and f"{small}, LoRA" in README
    assert (
        f"{laptop.n_sft} SFT questions, {laptop.rl_steps} RL steps; {laptop.n_test} test questions a set"
        in README
    )
    assert (
        f"{colab.n_sft:,} SFT questions, {colab.rl_steps} RL steps, {len(colab.seeds)} seeds; {colab.n_test} test"
        in README
    )
    assert paper.use_vllm and f"{large}, LoRA, vLLM | MedQA train in halves" in README
