"""From tables of a run to verdicts on claims: literal tables, literal verdicts.   pytest tests/findings/test_claims.py"""

import json
import math
import re
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from pages import page

from clinical_r1.arms import ARMS
from clinical_r1.files import ROOT
from clinical_r1.findings import claims, claims_page
from clinical_r1.findings.claims import (
    AFTER,
    CLAIMS,
    CONTRADICTED,
    HIGHER,
    LOWER,
    MARGINS,
    MOST,
    NO_LOWER,
    NOT_RUN,
    PAIRS,
    SUPPORTED,
    UNSETTLED,
    WITHOUT,
    answer_rows,
    verdict,
    verdicts,
)
from clinical_r1.metrics import PRIMARY_BENCHMARKS, PRIMARY_METRICS, status
from clinical_r1.pipeline import readme as generator
from clinical_r1.settings import LABORATORY_QUESTIONS, LABORATORY_SEEDS, PUBLISHED, PUBLISHED_AS

NAN = math.nan
RULE = [  # direction, difference, low, high, p, seeds, margin -> verdict
    (HIGHER, 0.5, 0.2, 0.8, 0.01, 10, 0.3, SUPPORTED),
    (HIGHER, -0.5, -0.8, -0.2, 0.01, 10, 0.3, CONTRADICTED),  # the other way round
    (HIGHER, 0.05, -0.1, 0.2, 0.60, 10, 0.3, CONTRADICTED),  # a difference of 0.3 is excluded
    (HIGHER, 0.05, -0.3, 0.4, 0.60, 10, 0.3, UNSETTLED),
    (HIGHER, 0.05, -0.1, 0.2, 0.60, 10, None, UNSETTLED),  # no margin: nothing is excluded
    (HIGHER, 0.20, 0.1, 0.29, 0.01, 10, 0.3, SUPPORTED),  # small, and there
    (
        HIGHER,
        0.50,
        0.2,
        0.8,
        0.20,
        10,
        0.3,
        UNSETTLED,
    ),  # an interval apart from 0 that correction does not let pass
    (LOWER, -0.5, -0.8, -0.2, 0.01, 10, 0.3, SUPPORTED),
    (LOWER, 0.5, 0.2, 0.8, 0.01, 10, 0.3, CONTRADICTED),
    (LOWER, -0.1, -0.2, 0.05, 0.60, 10, 0.3, CONTRADICTED),
    (NO_LOWER, -0.5, -2.5, 1.5, 0.70, 10, 3.0, SUPPORTED),
    (NO_LOWER, -1.5, -2.5, -0.5, 0.01, 10, 3.0, SUPPORTED),  # lower, by less than matters
    (NO_LOWER, -4.0, -6.0, -2.0, 0.01, 10, 3.0, CONTRADICTED),
    (NO_LOWER, -1.0, -4.0, 2.0, 0.60, 10, 3.0, UNSETTLED),
    (NO_LOWER, 4.0, -3.5, 11.5, 0.30, 10, 3.0, UNSETTLED),
    (MOST, 80.0, 70.0, 90.0, NAN, 10, 10.0, SUPPORTED),
    (MOST, 5.0, 2.0, 8.0, NAN, 10, 10.0, CONTRADICTED),
    (MOST, 55.0, 45.0, 65.0, NAN, 10, 10.0, UNSETTLED),
    (MOST, 80.0, 70.0, 90.0, NAN, 1, 10.0, UNSETTLED),
    (HIGHER, 9.0, 8.0, 10.0, NAN, 1, 3.0, UNSETTLED),  # one seed settles nothing
    (NO_LOWER, 9.0, 8.0, 10.0, NAN, 1, 3.0, UNSETTLED),
    (HIGHER, NAN, NAN, NAN, NAN, NAN, 3.0, NOT_RUN),
]


def test_a_difference_that_correction_does_not_leave_is_not_said_to_hold_zero():
    """−8.0 [−14.4, −1.5] with a corrected p of .11: the interval holds neither 0 nor an end of what matters."""
    why = verdict(LOWER, -8.0, -14.4, -1.5, 0.11, 10, 10.0)
    assert why == (UNSETTLED, "no difference is found after correction, and one of −10 is not excluded")
    why = verdict(LOWER, 0.19, 0.05, 0.33, 0.11, 10, 0.3)  # +0.3 is inside, −0.3 is not
    assert why == (CONTRADICTED, "a difference of −0.3 is excluded")
    why = verdict(NO_LOWER, -2.2, -4.1, -0.4, 0.18, 10, 3.0)
    assert why == (UNSETTLED, "no loss is found, and one of 3 is not excluded")
    small = {
        "difference": 0.0026,
        "ci_low": 0.0014,
        "ci_high": 0.0037,
        "metric": "verification",
        "direction": HIGHER,
    }
    assert (
        claims_page.shown_value(SimpleNamespace(**small)) == "+0.0026 [0.0014, 0.0037]"
    )  # not 0.00 that is "there"


@pytest.mark.parametrize("case", RULE)
def test_the_rule(case):
    assert verdict(*case[:-1])[0] == case[-1]


def comparison(method, against, metric, benchmark, difference, half=0.1, p=0.001, seeds=10):
    """A row of comparisons.csv; in points for accuracy."""
    row = {"method": method, "against": against, "metric": metric, "benchmark": benchmark}
    row |= {"difference": difference, "ci_low": difference - half, "ci_high": difference + half}
    return row | {"p_holm": p, "mde_holm": 0.2, "n": 2000, "seeds": seeds, "status": "primary"}


def every_comparison(value=0.5, **more):
    return pd.DataFrame(
        [
            comparison(*pair, metric, benchmark, value, **more)
            for pair in PAIRS.values()
            for metric in (*PRIMARY_METRICS, *claims.BEHAVIOURS)
            for benchmark in ("clinic", "clinic-shift", "clinic-expert")
        ]
    )


def probes(bases=("shipped", "a", "b"), swap=-0.5):
    """causality_differences.csv: shares."""
    rows = []
    for base in bases:
        for method, against, probe, value in (
            ("crpo", "baseline", "swap", swap),
            ("grpo", "baseline", "swap", swap),
            ("exact_tally", "crpo", "swap", 0.9),
            ("crpo", None, "swap", 0.05),
            ("cold_start_crpo", None, "swap", 0.02),
            ("crpo", "itself, reasoning", "direct", 0.04),
            ("cold_start_crpo", "itself, reasoning", "direct", 0.05),
        ):
            row = {"base": base, "method": method, "against": against, "probe": probe, "benchmark": "clinic"}
            row |= {"difference": value, "ci_low": value - 0.03, "ci_high": value + 0.03, "p_holm": 0.001}
            rows.append(row | {"mde_holm": 0.05, "questions": 200, "seeds": 10})
    return pd.DataFrame(rows)


def said(tables):
    return verdicts(answer_rows(tables)).set_index(["key", "when"])["verdict"].to_dict()


def test_every_claim_with_everything_higher():
    found = said({"comparisons": every_comparison(), "causality": probes()})
    for when in (WITHOUT, AFTER):
        for key in ("accurate", "truthful", "complete", "behaviours", "expert"):
            assert found[key, when] == SUPPORTED
        assert found["fewer_false", when] == CONTRADICTED
    assert found["more_false", ""] == found["better_than_base", ""] == found["truer", ""] == SUPPORTED
    assert found["removed", ""] == found["exact_tally", ""] == found["direct", ""] == SUPPORTED
    assert found["moves", ""] == CONTRADICTED  # 5 and 2 % of answers follow
    assert found["voting", ""] == found["unstable", ""] == found["longest", ""] == NOT_RUN


def test_one_contradicted_set_contradicts_and_one_open_set_leaves_open():
    table = every_comparison()
    there = (table["method"] == "crpo") & (table["against"] == "grpo") & (table["metric"] == "faithfulness")
    shift = there & (table["benchmark"] == "clinic-shift")
    table.loc[shift, ["difference", "ci_low", "ci_high"]] = [-0.5, -0.6, -0.4]
    assert said({"comparisons": table})["truthful", WITHOUT] == CONTRADICTED
    table.loc[shift, ["difference", "ci_low", "ci_high", "p_holm"]] = [0.2, -0.2, 0.6, 0.3]
    assert said({"comparisons": table})["truthful", WITHOUT] == UNSETTLED
    assert said({"comparisons": table})["truthful", AFTER] == SUPPORTED
    assert said({"comparisons": table[~shift]})["truthful", WITHOUT] == UNSETTLED  # that set was not run


def test_one_seed_settles_nothing():
    found = said({"comparisons": every_comparison(p=NAN, seeds=1)})
    assert {found[key] for key in found if found[key] != NOT_RUN} == {UNSETTLED}


def test_a_missing_arm_is_not_run_and_leaves_the_others():
    table = every_comparison()
    table = table[~table["method"].str.startswith("cold_start")]
    found = said({"comparisons": table})
    assert found["truthful", AFTER] == found["better_than_base", ""] == found["cold_start", ""] == NOT_RUN
    assert found["truthful", WITHOUT] == SUPPORTED and found["more_false", ""] == UNSETTLED
    assert set(said({}).values()) == {NOT_RUN}


def test_claims_about_causes_need_three_bases():
    few = answer_rows({"causality": probes(("shipped", "a"))})
    row = verdicts(few).set_index("key").loc["removed"]
    assert row["verdict"] == UNSETTLED and row["why"] == "so far on 2 of 3 base models"
    mixed = pd.concat([probes(("shipped", "a")), probes(("b",), swap=0.2)])
    assert said({"causality": mixed})["removed", ""] == CONTRADICTED
    assert said({"causality": probes()})["removed", ""] == SUPPORTED


def curves(kl, seeds=4):
    """training_curves.csv of two arms, 20 steps; the last two count."""
    rng = np.random.default_rng(3)
    return pd.DataFrame(
        [
            {"method": method, "seed": seed, "step": step, "kl": value + rng.normal(0, 0.01) * (step > 18)}
            | {"completions/mean_length": 10.0 + seed}
            for method, value in kl.items()
            for seed in range(seeds)
            for step in range(1, 21)
        ]
    )


def test_training_curves_are_compared_over_their_last_tenth_seed_by_seed():
    table = curves({"crpo": 0.5, "cold_start_crpo": 0.2})
    table.loc[table["step"] <= 18, "kl"] = -9.0
    (row,) = answer_rows({"training": table}).query("key == 'unstable'").to_dict("records")
    assert row["verdict"] == SUPPORTED and 0.27 < row["difference"] < 0.33 and row["seeds"] == 4
    last = table[table["step"] > 18].groupby(["seed", "method"])["kl"].mean().unstack()
    assert row["difference"] == pytest.approx((last["crpo"] - last["cold_start_crpo"]).mean())
    assert row["p"] < 0.05 and row["ci_low"] < row["difference"] < row["ci_high"] and row["mde"] > 0
    (one,) = (
        answer_rows({"training": curves({"crpo": 1, "cold_start_crpo": 0}, 1)})
        .query("key == 'unstable'")
        .verdict
    )
    assert one == UNSETTLED
    equal = answer_rows({"training": table}).query("key == 'longest' and method == 'cold_start_crpo'")
    assert list(equal["verdict"]) == [UNSETTLED]  # the same in every seed: no spread, no test


def test_where_a_pair_was_tested_twice_the_larger_p_counts():
    table = every_comparison()
    again = table[(table["method"] == "crpo") & (table["metric"] == "drc")].assign(p_holm=0.4)
    assert said({"comparisons": pd.concat([again, table])})["complete", WITHOUT] == UNSETTLED
    assert said({"comparisons": pd.concat([table, again])})["complete", WITHOUT] == UNSETTLED


def test_pages_show_verdicts_numbers_and_signs():
    rows = answer_rows({"comparisons": every_comparison(), "causality": probes()})
    first, block = claims_page.first_screen(rows), claims_page.claims_block(rows)
    assert "up to 2,000 questions a set, 10 training seeds" in first
    line = next(line for line in first.splitlines() if line.startswith("| CRPO makes fewer false"))
    assert line.count("**contradicted**: +0.50 [0.40, 0.60] · +0.50 [0.40, 0.60]") == 2
    assert (
        "CRPO minus GRPO on `clinic` · `clinic-shift`" in first and "a loss of 3 points is ruled out" in first
    )
    table = every_comparison()
    only = answer_rows({"comparisons": table[table["benchmark"] != "clinic-shift"]})
    line = next(
        line for line in claims_page.first_screen(only).splitlines() if line.startswith("| CRPO states more")
    )
    assert line.count("**unsettled**: +0.50 [0.40, 0.60] · –") == 2
    assert "| **not run** | **not run** |" in claims_page.first_screen(answer_rows({}))
    assert "| reward for the outcome makes claims matter less to the answer | ours | **supported** |" in block
    assert "| majority voting adds little | the paper, text | not run | one answer a question |" in block
    assert (
        "| truthful | CRPO − GRPO: true claims | `clinic` | +0.50 [0.40, 0.60] | .001 | 0.20 | 2,000 | 10 | supported"
        in block
    )
    assert "5.0 [2.0, 8.0] | – |" in block  # a share has no sign and no p
    assert len(verdicts(rows)) == len(CLAIMS)


def test_what_was_found_in_five_bullets():
    rows = answer_rows({"comparisons": every_comparison(), "causality": probes()})
    gain, over, used, weight, needed = claims_page.in_short(rows).splitlines()
    assert (
        "make the base model more accurate**: +0.5 points [0.4, 0.6] on `clinic`, +0.5 points [0.4, 0.6] on"
        in gain
    )
    assert (
        "**10 of 12 verdicts on CRPO against GRPO support the paper.** Without a cold start or after" in over
    )
    assert (
        "**supported** that CRPO is no less accurate, states more true claims, rejects more options," in over
    )
    assert (
        over.count("**contradicted** that CRPO makes fewer false claims") == 1
    )  # the same in both is said once
    assert "means here" not in over  # more false claims were found: the opposite
    assert "**The answer does not always follow the written reasoning**" in used
    assert (
        "changes with them in 5.0 % [2.0, 8.0] (200 questions, 10 training seeds); on 2 other bases 5.0 % ["
        in used
    )
    assert (
        "**On every base model tested reward for the outcome makes the reasoning matter less to the answer**"
        in weight
    )
    assert (
        "CRPO minus its base model: true claims an answer +0.50 [0.40, 0.60], answers that change with the names −50.0 points "
        "[−53.0, −47.0]; on 2 other" in weight
    )
    assert weight.count("true claims an answer +0.50 [0.40, 0.60]") == 2
    mixed = pd.concat([probes(("shipped", "a")), probes(("b",), swap=0.2)])
    assert "On 2 of 3 base models reward for" in claims_page.in_short(answer_rows({"causality": mixed}))
    none = claims_page.in_short(answer_rows({"causality": probes(("b",), swap=0.2)}))
    assert "On no base model tested reward for the outcome is found to make" in none
    assert "**A copy trained to answer without reasoning is as accurate**" in needed
    assert "minus CRPO with reasoning, +4.0 points [1.0, 7.0] of accuracy (200 questions, 10" in needed
    few = answer_rows({"comparisons": every_comparison(p=NAN, seeds=1)})
    gain, over = claims_page.in_short(few).splitlines()  # what was not run is not spoken of
    assert "**Whether training makes the base model more accurate is open**" in gain
    assert over.count("**unsettled**") == 1 and "0 of 12 verdicts" in over and "supported" not in over
    assert claims_page.in_short(answer_rows({})) == "\n"


def test_a_claim_that_holds_on_too_few_bases_says_on_how_many():
    one = claims_page.in_short(answer_rows({"causality": probes(("shipped",))}))
    assert "is as accurate** (unsettled: 1 of 3 required base models tested): " in one
    assert (
        "other base" not in one and "does not always follow" in one
    )  # 5 % follow: no base is missing for that
    table = probes(("shipped",))
    table.loc[table["probe"] == "direct", ["ci_low", "difference"]] = -0.2, 0.0
    assert "**Open: a copy trained to answer without reasoning is as accurate**" in claims_page.in_short(
        answer_rows({"causality": table})
    )


def test_contradicted_is_explained_where_the_opposite_was_not_found():
    table = every_comparison(0.05, p=0.6)
    over = claims_page.in_short(answer_rows({"comparisons": table})).splitlines()[1]
    assert over.endswith("an advantage of 0.3 an answer is ruled out. The opposite was not found.")
    worse = (table["metric"] == "drc") & (table["method"] == "crpo") & (table["against"] == "grpo")
    table.loc[worse, ["difference", "ci_low", "ci_high", "p_holm"]] = -0.4, -0.5, -0.3, 0.001
    assert "was not found" not in claims_page.in_short(answer_rows({"comparisons": table}))


# ---- the page that was written before the run ----


def test_the_page_names_every_claim_margin_and_size():
    text = page("docs/claims.md").split(generator.CLAIMS_BEGIN)[0]
    for phrase in ("3 points** of accuracy", "0.3** true, rejected or false", "10 points** of the swap test"):
        assert phrase in text
    assert (MARGINS["accuracy"], MARGINS["drc"], MARGINS["swap"], MARGINS["direct"]) == (3.0, 0.3, 10.0, 3.0)
    assert PUBLISHED.seeds == tuple(range(10)) and "10: 0 to 9" in text
    sizes = [f"{PUBLISHED.test_size(name):,} of `{name}`" for name in PUBLISHED.benchmarks]
    assert ", ".join(sizes) in text
    assert (
        f"{PUBLISHED.probe_questions} test questions" in text
        and "seeds 0, 1, 2" in text
        and PUBLISHED.direct_seeds == 3
    )
    assert (
        f"{LABORATORY_SEEDS['claim']} seeds for the families" in text
        and f"{LABORATORY_SEEDS['rest']} for the rest" in text
    )
    assert f"{LABORATORY_QUESTIONS:,} questions of `clinic`" in text
    shown = re.findall(
        r"^\| (?!claim|a claim)(.+?) \|.*\| (higher|lower|no lower|more than half|not run) \|$",
        text,
        re.MULTILINE,
    )
    keys = dict.fromkeys((claim.key, claim.direction) for claim in CLAIMS)
    assert [what for _, what in shown] == [NOT_RUN if key == "voting" else what for key, what in keys]


def test_primary_claims_are_those_of_the_primary_measures():
    rows = answer_rows({"comparisons": every_comparison()})
    primary = rows[rows["status"] == "primary"]
    assert set(primary["metric"]) == set(PRIMARY_METRICS) and set(primary["benchmark"]) == set(
        PRIMARY_BENCHMARKS
    )
    assert {claim.table for claim in CLAIMS} == {"comparisons", "training", "causality"}
    assert {arm for claim in CLAIMS for pair in claim.pairs for arm in pair} - {
        "",
        "itself, reasoning",
    } <= set(ARMS)
    assert {pair for claim in CLAIMS if claim.table == "comparisons" for pair in claim.pairs} <= set(
        PAIRS.values()
    )


def test_the_blocks_agree_with_the_published_tables():
    """Fix: python -m clinical_r1.pipeline readme"""
    found = generator.published_answers(ROOT / "figures" / "published" / PUBLISHED_AS[PUBLISHED.profile])
    marks = generator.CAUSALITY_BEGIN, generator.CAUSALITY_END
    block = generator.causality_block(ROOT / "figures" / "published" / PUBLISHED_AS[PUBLISHED.profile])
    assert generator.with_block(page("docs/causality.md"), *marks, block, "causality.md") == page(
        "docs/causality.md"
    )
    marks = generator.CLAIMS_BEGIN, generator.CLAIMS_END
    for name, block in (
        ("docs/claims.md", generator.verdicts_block(found)),
        ("README.md", generator.readme_block(found)),
    ):
        assert generator.with_block(page(name), *marks, block, name) == page(name)


def test_only_the_run_of_the_page_is_answered(tmp_path, monkeypatch):
    every_comparison().to_csv(tmp_path / "comparisons.csv")
    record = {"profile": "cpu", "seeds": [0, 1, 2]}
    monkeypatch.setattr(generator, "read_pair", lambda folder: (None, json.loads(json.dumps(record))))
    assert generator.published_answers(tmp_path) is None
    assert "10 seeds will decide" in generator.readme_block(None)
    record.update(profile="published", seeds=list(range(10)))
    found = generator.published_answers(tmp_path)
    assert verdicts(found).set_index("key")["verdict"]["better_than_base"] == SUPPORTED
    record["seeds"] = [0]
    assert generator.published_answers(tmp_path) is None


def test_the_words_of_the_results_are_those_of_the_comparisons(tmp_path, monkeypatch):
    record = {"profile": "published", "seeds": list(range(10))}
    monkeypatch.setattr(generator, "read_pair", lambda folder: (None, record))
    table = every_comparison(0.5, half=0.1).assign(tests=8, test="random effects")
    named = {pair: name for name, pair in PAIRS.items()}
    table["status"] = [status(*row) for row in zip(table["benchmark"], table["metric"], strict=True)]
    table["comparison"] = [named[pair] for pair in zip(table["method"], table["against"], strict=True)]
    table.to_csv(tmp_path / "comparisons.csv", index=False)
    block = generator.findings_block(tmp_path)
    assert block.count("### ") == len(PAIRS)
    assert (
        "### CRPO against GRPO: 8 of 8 primary differences survive correction, 6 in its favour and 2 against it"
        in block
    )
    assert "true claims on `clinic` (+0.50 [0.40, 0.60], p = .001)" in block
    record["seeds"] = [0]
    assert generator.findings_block(tmp_path) == generator.TO_COME.format(claims="[claims](claims.md)")


def test_the_page_of_causes_speaks_of_the_published_run_and_of_other_bases(tmp_path, monkeypatch):
    record = {"profile": "published", "seeds": list(range(10))}
    monkeypatch.setattr(generator, "read_pair", lambda folder: (None, record))
    assert generator.causality_block(tmp_path) == generator.TO_COME.format(claims="[claims](claims.md)")
    probes().to_csv(tmp_path / "causality_differences.csv", index=False)
    shares = [
        {
            "method": "crpo",
            "probe": probe,
            "seeds": 10,
            "questions": 200,
            "share": share,
            "ci_low": share,
            "ci_high": share,
        }
        for probe, share in (("swap", 0.05), ("agreement", 0.8))
    ]
    pd.DataFrame(shares).assign(interval="over both").to_csv(tmp_path / "causality_shares.csv", index=False)
    block = generator.causality_block(tmp_path)
    assert (
        "- **CRPO**: 5.0 % [5.0, 5.0] of the answers follow a swap (−50.0 points [−53.0, −47.0] against the baseline, p = .001); "
        "80.0 % agree" in block
    )
    assert (
        "- **Base b** (10 training seeds), answers that follow a swap: CRPO 5.0 % [2.0, 8.0] "
        "(−50.0 points [−53.0, −47.0] against the baseline, p = .001); Cold Start + CRPO 2.0 % [−1.0, 5.0]."
        in block
    )
    assert "| CRPO | 5.0 [5.0, 5.0] | 80.0 [80.0, 80.0] |" in block and "causality_weight.png" in block
    record["profile"] = "cpu"
    assert "Not run yet" in generator.causality_block(tmp_path)


def test_a_table_without_a_column_is_named():
    with pytest.raises(ValueError, match=r"comparisons\.csv lacks the columns p_holm; run the notebook"):
        answer_rows({"comparisons": every_comparison().drop(columns="p_holm")})
    assert set(answer_rows({"comparisons": every_comparison()[:0]})["verdict"]) == {NOT_RUN}


@pytest.mark.parametrize("direction", ["higher", "lower", "no lower", "more than half"])
def test_without_an_interval_no_word_is_said_of_what_it_holds(direction):
    assert verdict(direction, 60.0, NAN, NAN, NAN, 2, 3.0) == (
        UNSETTLED,
        "there is no interval: nothing varies",
    )
