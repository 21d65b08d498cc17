"""Findings say what their frames say, whatever the laboratory: every case is solved by hand.

python -m pytest tests/findings/test_laboratory.py
"""

import re

import numpy as np
import pandas as pd
import pytest
from laboratory import laboratory, write_laboratory

from clinical_r1.arms import ARMS, LABORATORY, MAIN
from clinical_r1.findings import laboratory as findings
from clinical_r1.findings import laboratory_rows, wording
from clinical_r1.findings.laboratory_page import laboratory_page
from clinical_r1.laboratory import comparisons, pareto, records, shares

METRICS = ("accuracy", "faithfulness", "drc", "hallucination")


def row(arm, metric, difference, p=1.0, mde=5.0, seeds=8, family=None, value=80.0, n=1000):
    """A row of `comparisons.ablation_table`; its interval reaches one to either side."""
    arm_of = ARMS[arm]
    ends = {"difference_low": difference - 1, "difference_high": difference + 1}
    names = {"family": family or arm_of.family, "arm": arm, "label": arm_of.label, "metric": metric}
    numbers = {"difference": difference, "p_holm": p, "mde_holm": mde, "value": value, "ci_low": value - 2}
    return names | ends | numbers | {"ci_high": value + 2, "n": n, "seeds": seeds}


def rows(*listed):
    return pd.DataFrame(listed)


def k_table(tokens, claims, seeds=8, accuracy=80.0):
    """Of `comparisons.k_table`: arms with {arm: tokens}, {arm: true claims}; the rest is level."""
    lines = []
    for arm, count in tokens.items():
        values = {"accuracy": accuracy, "tokens": count, "faithfulness": claims[arm], "hallucination": 0.5}
        about = {"k": records.weight_of_accuracy(arm), "arm": arm, "n": 1000, "seeds": seeds}
        lines += [
            about | {"metric": metric, "value": value, "ci_low": value - 1, "ci_high": value + 1}
            for metric, value in values.items()
        ]
    return pd.DataFrame(lines)


TOKENS, CLAIMS = {"k1": 18.2, "crpo": 28.7, "k30": 30.0}, {"k1": 1.0, "crpo": 1.75, "k30": 1.8}


# ---- words ----


def test_numbers_lists_and_signs():
    assert wording.listed(["a", "b", "c"], "or") == "a, b or c" and wording.listed([]) == ""
    assert wording.written(-0.004, 2, "+") == "0.00" and wording.written(-0.34, 2, "+") == "−0.34"
    assert wording.level(2.0, np.nan, np.nan, 1) == "2.0"
    assert wording.level(2.0, -0.004, 3, 2, " %") == "2.00 % [0.00, 3.00]"
    assert wording.per_cent(0.404) == "40.4 %" and wording.per_cent(0.5, 0.45, 0.55) == "50.0 % [45.0, 55.0]"
    assert [wording.p_cell(p) for p in (np.nan, 1e-9, 0.012, 1.0)] == ["–", "< .001", ".012", "1.000"]
    assert wording.p_value(0.0496) == "p = .0496"  # what is found never reads .050
    assert wording.from_to([3, 1, 2], 0) == "1 to 3" and wording.from_to([0.111, 0.112], 2) == "0.11"
    assert (
        wording.arm("crpo") == "CRPO" and wording.arm("k30") == "*k = 30*" and wording.arm("a_b") == r"a\_b"
    )
    assert laboratory_rows.sizes(rows(row("k0", "drc", 1), row("k1", "drc", 1, seeds=5))) == (
        "1,000 questions, 5 to 8 training seeds"
    )
    assert laboratory_rows.sizes(rows(row("k0", "drc", 1, seeds=1))) == "1,000 questions, 1 training seed"


def test_no_difference_found_never_stands_without_what_would_have_been():
    table = rows(
        *(
            row("no_kl", metric, 0.1, mde=size)
            for metric, size in zip(METRICS, (3.1, 0.2, 0.3, 0.4), strict=True)
        )
    )
    said = laboratory_rows.outcome(table)
    assert said.startswith("no difference found in accuracy, true claims, rejected options or false claims")
    assert (
        "(a difference of 3.1 points of accuracy, 0.20 true claims, 0.30 rejected options or 0.40 false claims would have been "
        "found with 80 % power, first Holm step)" in said
    )
    mixed = laboratory_rows.outcome(pd.concat([table[1:], rows(row("no_kl", "accuracy", -3.0, 0.001))]))
    assert mixed.startswith("−3.0 points of accuracy [−4.0, −2.0]; no difference found in true claims")
    many = pd.concat([table] * 4)
    assert laboratory_rows.detectable(many).startswith(
        "in half of these comparisons a difference of 3.1 points"
    )
    beyond = laboratory_rows.detectable(rows(row("k0", "accuracy", -60, mde=250.0)))
    assert beyond.startswith("a difference of over 100 points of accuracy would") and beyond.endswith(
        wording.POWER
    )
    untested = rows(row("k0", "accuracy", -60, np.nan, np.nan, 1))
    assert laboratory_rows.detectable(untested) == "" and "found" not in laboratory_rows.outcome(untested)


# ---- what stands behind ----


def standing(**families):
    """family -> (arms, fewest seeds, most seeds)."""
    about = {"questions": 1000, "answers": 1, "code": "", "rl_steps": "", "shared_prefix": ""}
    lines = []
    for family, (arms, least, most) in families.items():
        names = [arm for arm in LABORATORY if ARMS[arm].family == family][:arms]
        lines.append(
            {"family": family, "arms": arms, "names": " ".join(names), "seeds": least, "most_seeds": most}
            | about
        )
    return pd.DataFrame(lines)


def test_seeds_are_said_by_family_and_missing_arms_by_name():
    said = findings.behind(standing(main=(5, 8, 8), k=(4, 8, 8), kl=(1, 5, 5)))
    assert (
        "### 10 arms on 1,000 questions: training seeds by family: 8 in the five methods and weight k; 5 in KL"
        in said
    )
    assert "*exact tally (ours)*" in said and "*k = 30*" not in said
    assert "no record of the code" in said and "commit" not in said.replace("record of the code", "")
    one = findings.behind(
        standing(main=(5, 1, 1)).assign(code="commit abcdef123456", rl_steps="100", shared_prefix="True")
    )
    assert "1 training seed each" in one and "training seeds" not in one
    assert (
        "commit `abcdef1`; 100 steps of reinforcement learning, with shared prompts" in one
        and "no record" not in one
    )
    cut = findings.behind(standing(main=(5, 3, 8)))
    assert "3 to 8 training seeds each" in cut


def test_a_summary_s_record_is_read_and_told(tmp_path):
    write_laboratory(tmp_path)
    assert records.read_laboratory(tmp_path).record is None
    (tmp_path / records.RECORD).write_text(
        '{"git": {"sha": "0123456789", "dirty": false}, "questions": 40, "trained": {"rl_steps": [100], "shared_prefix": [true]}}'
    )
    table = records.standing(records.read_laboratory(tmp_path))
    assert "commit `0123456`; 100 steps" in findings.behind(table)
    by_family = table.set_index("family")
    assert by_family.loc["main", ["arms", "seeds", "most_seeds", "questions", "answers"]].tolist() == [
        5,
        3,
        3,
        40,
        600,
    ]
    csv = pd.read_csv(records.save_table(table, "standing", tmp_path))
    assert findings.behind(csv) == findings.behind(table)  # the page reads what the notebook wrote
    no_commit = table.assign(code="", rl_steps="", shared_prefix="")
    again = pd.read_csv(records.save_table(no_commit, "standing", tmp_path))
    assert findings.behind(again) == findings.behind(no_commit)


def test_what_can_be_attained():
    honest = {"accuracy": 100.0, "faithfulness": 5.0, "drc": 3.0, "hallucination": 0.0}
    said = findings.attainable(honest, honest | {"faithfulness": 9.95}, 1000)
    assert (
        "### An honest policy states 5.00 true claims a response, rejects 3.00 options and claims nothing false"
        in said
    )
    assert "1,000 questions" in said and "At most 9.95 true claims" in said
    assert "makes 0.10 false claims" in findings.attainable(honest | {"hallucination": 0.1}, honest, 10)


# ---- k ----


def test_level_accuracy_over_k_names_what_would_have_been_found():
    tests = rows(
        row("k1", "accuracy", 1.0, mde=3.1), row("k30", "accuracy", 0.5, mde=4.4),
        row("k1", "faithfulness", -0.75, p=0.001), row("k1", "hallucination", -0.1, mde=0.2),
    )  # fmt: skip
    table = k_table(TOKENS, CLAIMS)
    said = findings.k(table, tests)
    assert said.startswith("### No difference in accuracy found between k = 10 and k = 1 or 30\n")
    assert (
        "3.1 to 4.4 points of accuracy would have been found" in said
        and "(1,000 questions, 8 training seeds)" in said
    )
    assert "From k = 1 to 10 tokens a response go from 18.2 to 28.7, true claims from 1.00 to 1.75" in said
    assert (
        "a difference is found in true claims; no difference found in false claims (a difference of 0.20 false claims would have "
        "been found with 80 % power, first Holm step)" in said
    )
    level = findings.k(table, tests.assign(p_holm=1.0))
    assert (
        "a difference is found" not in level
        and "no difference found in true claims or false claims (a difference of 5.00 true claims or" in level
    )
    short = findings.k_sentence(table, tests)
    assert len(re.findall(r"\.(?!\d)", short)) == 1  # one sentence
    assert "3.1 to 4.4 points" in short and "18.2 to 28.7" in short and "8 training seeds" in short


def test_accuracy_that_moves_with_k_and_without_accuracy():
    tests = rows(
        row("k0", "accuracy", -60.0, p=0.3, mde=200.0, value=21.5), row("k1", "accuracy", -4.0, p=0.01),
        row("k3", "accuracy", 4.0, p=0.01), row("k30", "accuracy", 0.0),
    )  # fmt: skip
    said = findings.k(k_table(TOKENS, CLAIMS), tests)
    assert (
        "### Accuracy is higher at k = 3 and lower at k = 1 than at k = 10; no difference found at k = 30"
        in said
    )
    assert (
        "k = 0, 21.5 % [19.5, 23.5] of the answers are right, −60.0 points [−61.0, −59.0] against k = 10"
        in said
    )
    assert "against k = 10, no difference found (a difference of over 100 points of accuracy would" in said
    alone = findings.k(k_table({"crpo": 28.7}, CLAIMS), rows(row("k0", "accuracy", -60.0, p=0.001)))
    assert "### Accuracy is lower at k = 0 than at k = 10\n" in alone and "no difference" not in alone


def test_one_seed_of_k_is_not_tested_and_without_other_k_nothing_is_said():
    tests = rows(row("k1", "accuracy", 1.0, np.nan, np.nan, 1), row("k1", "drc", 1.0, np.nan, np.nan, 1))
    said = findings.k(k_table(TOKENS, CLAIMS, seeds=1), tests)
    assert "one training seed, nothing is tested" in said and "found" not in said and "power" not in said
    none = rows(row("crpo", "accuracy", np.nan, np.nan, np.nan))
    assert "No k is trained" in findings.k(k_table({"crpo": 28.7}, CLAIMS), none)
    assert "No k is trained" in findings.k_sentence(k_table({"crpo": 28.7}, CLAIMS), none)


def test_coverage_is_told_by_seed(tmp_path):
    lines = [
        {"k": 0.0, "arm": "k0", "seed": s, "coverage": c, "n": 500} for s, c in enumerate((0.404, 0.01, 0.94))
    ]
    lines += [
        {"k": 1.0, "arm": "k1", "seed": s, "coverage": c, "n": 500} for s, c in enumerate((0.996, 1.0, 1.0))
    ]
    said = findings.coverage(pd.DataFrame(lines))
    assert (
        "### Without accuracy in the reward 40.4, 1.0 and 94.0 % of the answers parse (seeds 0, 1 and 2)"
        in said
    )
    assert "99.6 to 100.0 % at every k above 0 and every seed; 500 questions each." in said
    assert "### Answers that parse: 99.6 to 100.0 %" in findings.coverage(pd.DataFrame(lines[3:]))
    write_laboratory(tmp_path)
    lab = records.read_laboratory(tmp_path)
    table = comparisons.coverage_table(lab)
    assert table["k"].is_monotonic_increasing and set(table["arm"]) == {"k0", "k3", "crpo", "k30"}
    assert (table["coverage"] == 1).all() and (table["n"] == 40).all()


# ---- arms against their reference ----


def test_every_other_choice_is_named_by_what_it_moves():
    table = rows(
        row("g2", "faithfulness", -0.75, 0.001, seeds=5), row("g2", "accuracy", 0.2, mde=3.0, seeds=5),
        row("gdpo", "hallucination", -0.33, 0.01), row("no_kl", "accuracy", 1.0, mde=4.0, seeds=5),
        row("crpo", "accuracy", np.nan, np.nan, np.nan),
    )  # fmt: skip
    said = findings.other_choices(table)
    assert "### 2 of 3 arms differ from their reference" in said
    assert "- Fewer true claims: *G = 2* −0.75 [−1.75, 0.25]" in said
    assert "- Fewer false claims: *normalised, then summed (GDPO)* −0.33" in said
    assert "No difference found in *no KL term*." in said and "3.0 to 4.0 points of accuracy" in said
    assert "Training seeds: 5 in group size and KL; 8 in aggregator." in said
    untested = findings.other_choices(table.assign(p_holm=np.nan, mde_holm=np.nan, seeds=1))
    assert "3 arms beside their references: one training seed, nothing is tested" in untested
    assert "differ" not in untested and "power" not in untested and "Training seeds: 1." in untested
    half = pd.concat([table, rows(row("grounded", "drc", 1.0, np.nan, np.nan, 1))])
    assert "Not tested, one training seed: grounded." in findings.other_choices(half)
    nothing = findings.other_choices(table[table["p_holm"] == 1.0])
    assert "### 0 of 2 arms differ" in nothing and "- " not in nothing


def two_by_two(p, seeds=8):
    effects = ("CRPO prompt", "CRPO reward", "both together")
    lines = [
        row("crpo", metric, -3.1, mde=2.0, seeds=seeds) | {"effect": e} for metric in METRICS for e in effects
    ]
    table = pd.DataFrame(lines)
    chosen = (table["effect"] == "CRPO reward") & (table["metric"] == "accuracy")
    return table.assign(p_holm=np.where(chosen, p, np.nan if seeds == 1 else 1.0))


def test_prompt_or_reward():
    said = findings.prompt_or_reward(two_by_two(0.001))
    assert "### CRPO reward: −3.1 points of accuracy [−4.1, −2.1]" in said
    assert "11 of 12 tests find no difference" in said and "2.0 points of accuracy" in said
    none = findings.prompt_or_reward(two_by_two(0.3))
    assert "### No difference found for *CRPO prompt*, *CRPO reward* or *both together*, in 12 tests" in none
    assert "nothing is tested" in findings.prompt_or_reward(two_by_two(np.nan, seeds=1))


def test_prompt_and_reward_without_one_of_its_arms(tmp_path):
    frames = laboratory()
    frames["scores"] = frames["scores"][frames["scores"]["arm"] != "crpo_in_grpo"]
    write_laboratory(tmp_path, frames)
    table = comparisons.prompt_and_reward(records.read_laboratory(tmp_path))
    assert table.empty and list(table) == comparisons.TWO_BY_TWO_COLUMNS
    assert "were not trained both ways" in findings.prompt_or_reward(table)


def test_aggregators():
    table = rows(
        row("gdpo", "accuracy", 1.0, mde=4.0),
        row("gdpo", "hallucination", -0.3, 0.01),
        row("gated", "accuracy", 0.0),
    )
    said = findings.aggregators(table)
    assert "### None of 2 aggregators is found to be more accurate than the normalised sum" in said
    assert (
        "- Fewer false claims: *normalised, then summed (GDPO)*" in said
        and "4.0 to 5.0 points of accuracy" in said
    )
    better = findings.aggregators(table.assign(p_holm=0.01))
    assert "### *normalised, then summed (GDPO)* is more accurate than the normalised sum" in better
    assert "No other aggregator" in findings.aggregators(table[:0])
    assert "nothing is tested" in findings.aggregators(table.assign(p_holm=np.nan))


# ---- fronts, volumes, the way ----


def test_fronts_and_the_best_of_each_objective():
    frame = pd.DataFrame(
        [("a and b", "k1", True, 0.9), ("a and b", "k3", True, 0.2), ("a and c", "k1", True, 0.4), ("a and c", "k3", False, 0.1),
         ("a and b and c", "k1", True, 0.7), ("a and b and c", "k3", True, 0.3)],
        columns=["space", "arm", "on_front", "frequency"],
    ).assign(seeds=5)  # fmt: skip
    frame["label"] = [ARMS[arm].label for arm in frame["arm"]]
    said = findings.fronts(frame)
    assert (
        "### *k = 1* stands on 2 of 2 fronts" in said and "*k = 1* in 40.0 to 90.0 % of the redraws" in said
    )
    assert (
        "2 of 2 arms are on at least one front, 1 of them in half of the redraws or more (5 training seeds)"
        in said
    )
    whole = findings.front_of(frame, "a and b and c")
    assert "### 2 of 2 arms are on the front; in at least half of the redraws *k = 1*" in whole
    assert "none of them" in findings.front_of(frame.assign(frequency=0.2), "a and b and c")
    points = pd.DataFrame(
        [("k1", "accuracy", 90, True), ("k3", "accuracy", 80, True), ("k1", "hallucination", 0.5, False),
         ("k3", "hallucination", 0.2, False)],
        columns=["arm", "objective", "value", "higher_is_better"],
    ).assign(seeds=5, n=100)  # fmt: skip
    points["label"] = [ARMS[arm].label for arm in points["arm"]]
    best = findings.all_objectives(points)
    assert "### No arm is best in all 2 objectives" in best
    assert "*k = 1* in accuracy; *k = 3* in false claims (fewest) (100 questions, 5 training seeds)" in best
    first = findings.all_objectives(points.assign(value=[90, 80, 0.2, 0.5]))
    assert "### One arm is best in all 2 objectives" in first


def volumes(best=400.0):
    lines = [("arm", "cold_start_grpo", "main", best), ("arm", "crpo", "main", 100.0), ("front", "k", "k", 120.0),
             ("front", "main", "main", 400.0)]  # fmt: skip
    frame = pd.DataFrame(lines, columns=["kind", "name", "family", "volume"]).assign(seeds=8)
    frame["label"] = ["Cold Start + GRPO", "CRPO", "k", "main"]
    return frame.assign(
        ci_low=frame["volume"] - 40, ci_high=frame["volume"] + 40, share=frame["volume"] / 1600
    )


def test_hypervolume():
    said = findings.hypervolume(volumes())
    assert (
        "### The largest volume is that of Cold Start + GRPO: 25.0 % [22.5, 27.5] of the honest policy's"
        in said
    )
    assert "CRPO covers 6.2 % [3.8, 8.8]. Fronts of families: weight k 7.5 %. 8 training seeds." in said
    bare = volumes().assign(ci_low=np.nan, ci_high=np.nan, seeds=1)
    assert "[" not in findings.hypervolume(bare) and "1 training seed." in findings.hypervolume(bare)


def test_the_way_is_told_by_how_many_went_it():
    lines = [(arm, step, metric, value) for arm, values in {"grpo": (60, 80), "crpo": (70, 65)}.items()
             for metric in ("accuracy", "drc") for step, value in zip((25, 100), values, strict=True)]  # fmt: skip
    table = pd.DataFrame(lines, columns=["arm", "step", "objective", "value"]).assign(seeds=8)
    table["label"] = [ARMS[arm].label for arm in table["arm"]]
    said = findings.travel(table)
    assert (
        "### From step 25 to 100, of the trained methods: accuracy rises in 1 of 2 and rejected options increase in 1 of 2"
        in said
    )
    assert "GRPO 60.0 to 80.0 %" in said and "8 training seeds" in said
    assert "no checkpoints" in findings.travel(table[:0])


# ---- the advantage ----


def thirds(**late):
    """arm -> accuracy's share of the advantage, late."""
    lines = [{"arm": arm, "third": third, "term": term, "value": value, "ci_low": value - 0.05, "ci_high": value + 0.05}
             for arm, share in late.items() for third in ("early", "late")
             for term, value in (("accuracy_reward", share if third == "late" else 0.9), ("tied groups", 0.3))]  # fmt: skip
    return pd.DataFrame(lines).assign(seeds=8)


def test_who_owns_the_advantage():
    said = findings.owners(thirds(k0=0.0, crpo=0.65, k1=0.5, k30=0.7))
    assert (
        "### Accuracy owns 50.0 % [45.0, 55.0] of the advantage at k = 1 and 70.0 % [65.0, 75.0] at k = 30, late in training"
        in said
    )
    assert "Between them k = 10: 65.0 % [60.0, 70.0]; the share rises with every step of k." in said
    assert "At the reference 30.0 % of the groups" in said and "8 training seeds" in said
    falling = findings.owners(thirds(k1=0.7, crpo=0.65, k30=0.66))
    assert "does not rise with every step of k" in falling
    one = findings.owners(thirds(k1=0.5, k30=0.7).assign(ci_low=np.nan, ci_high=np.nan, seeds=1))
    assert "[" not in one and "1 training seed." in one and "At the reference" not in one
    assert "No training log" in findings.owners(shares_of_nothing())
    by_aggregator = findings.owners_by_aggregator(thirds(gdpo=0.4, gated=0.8, leave_one_out=0.6))
    assert (
        "80.0 % [75.0, 85.0] with *gated on the right answer* and 40.0 % [35.0, 45.0] with *normalised, then summed"
        in by_aggregator
    )
    assert "No other aggregator" in findings.owners_by_aggregator(shares_of_nothing())


def shares_of_nothing():
    return pd.DataFrame()


def test_calculations_by_sign_and_by_size():
    table = pd.DataFrame(
        {"claim": ["A", "B", "C"], "quantity": ["share"] * 3, "predicted": [0.5, 0.45, np.nan], "measured": [0.52, 0.01, 0.3],
         "ci_low": [0.48, -0.02, 0.1], "ci_high": [0.56, 0.04, 0.5], "seeds": [8, 8, 8], "verdict": ["holds", "open", "holds"]}
    )  # fmt: skip
    said = findings.calculations(table)
    assert "### 2 of 3 calculated signs hold; 1 open" in said
    assert (
        "Of 2 with a calculated size, 1 lies in its interval. Farthest off: “B”, share: 0.45 calculated, 0.01 [−0.02, 0.04]"
        in said
    )
    one = findings.calculations(table.assign(ci_low=np.nan, ci_high=np.nan, seeds=1, verdict="one seed"))
    assert (
        "### 0 of 3 calculated signs hold; 3 one seed" in one
        and "Farthest" not in one
        and "1 training seed." in one
    )


def test_cost():
    table = pd.DataFrame(
        {
            "label": ["G = 16", "CRPO", "GDPO"],
            "seconds": [140.0, 100.0, 90.0],
            "against_reference": [1.4, 1, 0.9],
        }
    )
    said = findings.cost(table)
    assert "### An arm trains for 100 seconds on the median" in said
    assert "*G = 16*, takes 140 seconds (1.4 times CRPO); the fastest, *GDPO*, 90." in said
    assert "(" not in findings.cost(table.assign(against_reference=np.nan)).replace("(ours)", "")
    assert "No training time" in findings.cost(table[:0])


# ---- the whole ----


def test_the_ending_has_a_line_for_each_objective_that_was_trained():
    tests = rows(
        row("k1", "accuracy", 1.0, mde=3.1), row("no_format", "faithfulness", -0.5, 0.01), row("no_consistency", "drc", 0.0),
        row("grounded", "hallucination", 0.24, 0.01),
    )  # fmt: skip
    said = findings.closing(k_table(TOKENS, CLAIMS), tests, volumes())
    lines = said.strip().split("\n")
    assert [line.split("**")[1] for line in lines] == [
        "Accuracy", "Clinical reasoning", "Consistency", "Claims, paid directly", "All together",
    ]  # fmt: skip
    assert (
        "*no clinical reasoning*: −0.50 true claims [−1.50, 0.50] (1,000 questions, 8 training seeds)"
        in lines[1]
    )
    assert "(a difference of 5.00 rejected options would have been found with" in lines[2]
    assert (
        "covers 25.0 % [22.5, 27.5] of the volume that an honest policy does, CRPO 6.2 % [3.8, 8.8]; none of these"
        in lines[4]
    )
    few = findings.closing(k_table(TOKENS, CLAIMS), tests[:1], volumes())
    assert len(few.strip().split("\n")) == 2
    whole = findings.closing(k_table(TOKENS, CLAIMS), tests, volumes(1600.0))
    assert "none of these" not in whole


@pytest.fixture(scope="module")
def tables(tmp_path_factory):
    """What notebook 05 makes of the small laboratory, with other numbers of seeds in two families, read back from its files."""
    folder, rng = tmp_path_factory.mktemp("laboratory"), np.random.default_rng(0)
    frames = laboratory()
    fewer = frames["scores"]["arm"].isin(["grpo_in_crpo", "crpo_in_grpo"]) & (frames["scores"]["seed"] > 1)
    write_laboratory(folder, frames | {"scores": frames["scores"][~fewer]})
    lab = records.read_laboratory(folder)
    families = [name for name in records.families(lab) if name != "main"]
    made = {
        "standing": records.standing(lab),
        "k": comparisons.k_table(lab),
        "coverage": comparisons.coverage_table(lab),
        "ablations": pd.concat(
            [comparisons.ablation_table(lab, name) for name in families], ignore_index=True
        ),
        "prompt_or_reward": comparisons.prompt_and_reward(lab),
        "fronts": pareto.fronts(lab, [("accuracy", "drc"), METRICS[:3]], rng),
        "points": pareto.points(lab),
        "volumes": pareto.hypervolume_table(
            lab, rng=rng, bound=dict(zip(METRICS, (100, 5, 3, 0), strict=True)), reps=20
        ),
        "travel": pareto.trajectory_points(lab),
        "thirds": shares.shares_table(lab, ["k0", "k3", "crpo", "k30", "mo_grpo"]),
        "seconds": comparisons.seconds_per_arm(lab),
    }
    return {kind: pd.read_csv(records.save_table(frame, kind, folder)) for kind, frame in made.items()}


def test_the_page_is_the_findings_of_its_tables(tables):
    page = laboratory_page(tables)
    for finding in (
        findings.behind(tables["standing"]),
        findings.coverage(tables["coverage"]),
        findings.prompt_or_reward(tables["prompt_or_reward"]),
        findings.cost(tables["seconds"]),
        findings.closing(tables["k"], tables["ablations"], tables["volumes"]),
    ):
        assert finding.strip() in page
    assert "2 in prompt × reward" in page and "3 in the five methods" in page  # seeds by family
    assert page.count("| 10 |") == 1 and "nan" not in page
    assert "mo_grpo" not in page  # labels, not names


def test_the_page_leaves_out_what_it_has_no_table_for(tables):
    few = {kind: tables[kind] for kind in ("k", "ablations", "volumes")}
    page = laboratory_page(few)
    assert "seconds on the median" not in page and "### What each objective buys" in page
    with pytest.raises(ValueError, match=r"tradeoffs_hypervolume\.csv"):
        laboratory_page({kind: few[kind] for kind in ("k", "ablations")})


def test_the_findings_of_one_seed_claim_nothing(tmp_path):
    frames = {
        kind: frame[frame["seed"] == 0] if "seed" in frame else frame for kind, frame in laboratory().items()
    }
    write_laboratory(tmp_path, frames)
    lab = records.read_laboratory(tmp_path)
    tests = comparisons.ablation_table(lab, "k")
    table = comparisons.k_table(lab)
    for said in (
        findings.k(table, tests),
        findings.other_choices(tests),
        findings.prompt_or_reward(comparisons.prompt_and_reward(lab)),
        findings.k_sentence(table, tests),
    ):
        assert (
            "one training seed, nothing is tested" in said
            and "differ from" not in said
            and "80 % power" not in said
        )


def test_all_arms_of_the_laboratory_have_names_in_words():
    assert {ARMS[arm].family for arm in LABORATORY} >= {"main", "k", "kl"} and len(MAIN) == 5
    assert [laboratory_rows.family(name) for name in ("kl", "k", "main", "group_size")] == [
        "KL", "weight k", "the five methods", "group size",
    ]  # fmt: skip


# ---- inputs of a stranger: what is missing, single, equal, or named oddly ----


def test_a_missing_value_is_a_dash_and_never_a_number():
    assert wording.written(np.nan, 2) == wording.level(np.nan, 1, 2, 1, " %") == wording.from_to([], 1) == "–"
    assert wording.from_to([2, np.nan, 1], 1) == wording.from_to([np.nan, 1, 2], 1) == "1.0 to 2.0"
    assert wording.seeds_of(np.nan, 2) == "2 training seeds" and wording.seeds_of(1, 1) == "1 training seed"


def test_one_of_a_thing_is_singular():
    assert wording.size([1], [1], "questions a set") == "1 question a set, 1 training seed"
    assert wording.size([1, 2], []) == "1 to 2 questions" and wording.size([np.nan], []) == ""
    assert wording.counted(1, "pair") == "1 pair" and wording.counted(2000, "pair") == "2,000 pairs"


def test_all_that_equal_the_most_are_named():
    values = pd.Series({"a": 0.3, "b": 0.1 + 0.2, "c": 0.1, "d": np.nan})
    assert wording.most(values) == ["a", "b"] and wording.most(values, lowest=True) == ["c"]
    assert wording.most(pd.Series(dtype=float)) == wording.most(pd.Series({"a": np.nan})) == []


def test_a_name_of_one_s_own_is_written_as_it_is(monkeypatch):
    odd = "a|b *x* <script> $y$ `z` ~~no~~\n# 1"
    said = wording.plain(odd)
    assert "<" not in said and "\n" not in said and not re.search(r"(?<!\\)[|*`$~#]", said)
    monkeypatch.setitem(wording.METHOD_LABELS, "mine", "gpt_mine")
    assert wording.finding(f"{wording.arm('mine')} is better") == r"### gpt\_mine is better"
    assert wording.finding("gpt is better") == "### Gpt is better"


def test_k_without_its_reference_or_above_zero_has_no_growth_to_tell():
    table, zero = k_table(TOKENS, CLAIMS), rows(row("k0", "accuracy", -60.0, p=0.001))
    assert "From k = 1 to 30 tokens" in findings.k(
        table[table["arm"] != "crpo"], rows(row("k1", "accuracy", 1.0))
    )
    alone = findings.k(k_table({"k0": 1.0, "crpo": 2.0}, {"k0": 1, "crpo": 2}), zero)
    assert "to 10" not in alone and "Accuracy is lower at k = 0" in alone
    assert "No k above 0 is trained" in findings.k_sentence(k_table({"crpo": 2.0}, {"crpo": 2}), zero)
    mixed = rows(row("k1", "accuracy", 1.0), row("k30", "accuracy", 1.0, np.nan, np.nan, 1))
    assert "; not tested at k = 30" in findings.k(table, mixed)


def test_two_seeds_that_agree_are_not_one_seed():
    table = rows(row("k1", "accuracy", 1.0, np.nan, np.nan, 2))
    for said in (
        findings.k(k_table(TOKENS, CLAIMS), table),
        findings.other_choices(table),
        findings.aggregators(table),
        findings.prompt_or_reward(two_by_two(np.nan, seeds=1).assign(seeds=2)),
        laboratory_rows.outcome(table),
    ):
        assert wording.NO_SPREAD in said and "one training seed" not in said


def test_a_measure_that_never_varies_has_no_size_and_says_so():
    table = rows(row("k1", "accuracy", 0.0, mde=np.nan), row("k1", "drc", 0.0, mde=0.3))
    assert laboratory_rows.detectable(table).endswith(
        "; nothing varies in accuracy, so what would have been found is not known"
    )


def test_untested_arms_are_named_by_family_or_label():
    table = rows(
        row("k1", "accuracy", 1.0, 0.001),
        row("k30", "accuracy", 1.0, np.nan, np.nan, 1),
        row("crpo_in_grpo", "accuracy", 1.0, np.nan, np.nan, 1),
    )
    said = findings.other_choices(table)
    assert "### 1 of 1 arm differs from its reference" in said
    assert "Not tested, one training seed: prompt × reward and *k = 30*." in said


def test_equals_share_what_they_are_first_in():
    points = pd.DataFrame(
        [(arm, "hallucination", 0.0, False) for arm in ("k1", "k3")],
        columns=["arm", "objective", "value", "higher_is_better"],
    ).assign(seeds=5, n=100)
    points["label"] = [ARMS[arm].label for arm in points["arm"]]
    said = findings.all_objectives(points)
    assert (
        "### 2 arms are best in the one objective" in said
        and "*k = 3* in false claims (fewest, shared)" in said
    )
    assert "Fewer than two arms" in findings.all_objectives(points[:1])
    level = findings.hypervolume(volumes().assign(volume=100.0, share=0.1))
    assert "### The largest volume is that of Cold Start + GRPO and CRPO: 10.0 %" in level
    tied = findings.owners_by_aggregator(thirds(gdpo=0.4, gated=0.4))
    assert tied.count("40.0 %") == 1 and "*gated on the right answer*" in tied and "*normalised" in tied


def test_no_volume_no_front_no_way_and_no_calculation():
    none = volumes().assign(volume=0.0, share=0.0)
    assert "No arm covers any" in findings.hypervolume(none)
    assert "No arm covers any" in findings.closing(k_table(TOKENS, CLAIMS), rows(row("k1", "drc", 1.0)), none)
    assert "All together" not in findings.closing(
        k_table(TOKENS, CLAIMS), rows(row("k1", "drc", 1.0)), none[:0]
    )
    assert "No arm of this laboratory" in findings.behind(pd.DataFrame())
    assert "No arm is trained beside" in findings.other_choices(rows(row("k1", "drc", 1.0))[:0])
    assert "Nothing was calculated" in findings.calculations(pd.DataFrame())
    frame = pd.DataFrame([("a and b and c", "k1", True, 0.9, "k = 1", 5)])
    frame.columns = ["space", "arm", "on_front", "frequency", "label", "seeds"]
    assert "No front of two" in findings.fronts(frame) and "No front of these" in findings.front_of(
        frame, "a and b"
    )
    assert "### 1 of 1 arm is on the front" in findings.front_of(frame, "a and b and c")
    way = pd.DataFrame(
        [("grpo", 25, "accuracy", 60.0), ("grpo", 50, "accuracy", 70.0), ("crpo", 25, "accuracy", 70.0)]
    )
    way = way.set_axis(["arm", "step", "objective", "value"], axis=1).assign(seeds=8, label=way[0])
    assert "crpo" not in findings.travel(way) and "–" not in findings.travel(way)
    assert "All checkpoints are of step 25" in findings.travel(way[way["step"] == 25])


def test_one_arm_is_neither_slowest_nor_fastest():
    one = pd.DataFrame({"label": ["CRPO"], "seconds": [1.0], "against_reference": [1.0]})
    assert findings.cost(one).endswith("It is the time of CRPO alone.") and "1 second on" in findings.cost(
        one
    )
