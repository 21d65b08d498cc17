"""What notebook 04 says it found, for runs of every kind: literal tables, literal words."""

import math

import pandas as pd
import pytest
from records import record

from clinical_r1 import metrics
from clinical_r1.findings import claims, endings, pairs
from clinical_r1.findings.wording import ONE_SEED, change, listed, p_value, plain
from clinical_r1.labels import METHOD_LABELS
from clinical_r1.metrics import NO_TEST, PRIMARY_BENCHMARKS, PRIMARY_METRICS, PROCESS_METRICS, status
from clinical_r1.tables import COMPARISON_COLUMNS

NAN = math.nan
SETS = ("clinic", "clinic-shift", "clinic-expert")
MEASURES = (
    *PRIMARY_METRICS,
    *(name for name in PROCESS_METRICS if name not in PRIMARY_METRICS),
)  # as metrics.compare has them


def row(metric="accuracy", benchmark="clinic", difference=0.0, half=1.0, p=0.5, seeds=10, pair=claims.PLAIN):
    """A row of metrics.compare: the first arm's mean, the second's, and what follows; n is 2,000, the detectable difference 5."""
    base = 80.0 if metric == "accuracy" else 2.0
    names = {"benchmark": benchmark, "metric": metric, "status": status(benchmark, metric)}
    numbers = {pair[0]: base + difference, pair[1]: base, "difference": difference}
    numbers |= {"ci_low": difference - half, "ci_high": difference + half, "p": p, "p_holm": p}
    more = {"mde_holm": 5.0 if p == p else NAN, "tests": 8, "test": "two-way" if p == p else NO_TEST}
    return names | numbers | more | {"n": 2000, "seeds": seeds, "coverage": 1.0}


def comparison(pair=claims.PLAIN, sets=SETS, measures=MEASURES, **numbers):
    """A comparison in which every row has these numbers."""
    return pd.DataFrame([row(metric, name, pair=pair, **numbers) for name in sets for metric in measures])


def head(text):
    first = text.split("\n")[0]
    assert first.startswith("### ") and "nan" not in text and "\n\n\n" not in text, text
    return first.removeprefix("### ")


EVERY_PAIR = tuple(claims.PAIRS.values())
ONE = {"p": NAN, "seeds": 1}
CLEAR = {"difference": 10.0, "half": 2.0, "p": 1e-4}
NONE = {"difference": 0.1, "half": 6.0, "p": 0.9}
CLOSE = {"difference": 0.1, "half": 0.15, "p": 0.9}  # within every margin


# ---- one row ----


@pytest.mark.parametrize(
    ("numbers", "found"),
    [
        (CLEAR, pairs.HIGHER),
        (CLEAR | {"difference": -10.0}, pairs.LOWER),
        (CLOSE, pairs.WITHIN),
        (NONE, pairs.OPEN),
        (CLEAR | {"p": 0.2}, pairs.OPEN),  # an interval apart from 0 that correction does not let pass
        (CLEAR | ONE, pairs.UNTESTED),
    ],
)
@pytest.mark.parametrize("metric", PRIMARY_METRICS)
def test_what_a_row_shows(metric, numbers, found):
    assert pairs.outcome(row(metric, **numbers)) == found


def test_a_measure_without_a_margin_is_never_called_as_good_as_equal():
    assert pairs.outcome(row("verification", **CLOSE)) == pairs.OPEN


def test_fewer_false_claims_speak_for_an_arm():
    assert pairs.in_favour(row("hallucination", difference=-1.0)) and pairs.in_favour(
        row("drc", difference=1.0)
    )
    assert not pairs.in_favour(row("hallucination", difference=1.0))


# ---- accuracy ----


def test_more_accurate_names_the_sets_by_what_was_found():
    pair = pairs.FIRST_PAIR
    rows = [row(benchmark="clinic", pair=pair, **CLEAR), row(benchmark="clinic-expert", pair=pair, **NONE)]
    text = pairs.more_accurate(pd.DataFrame(rows))
    assert head(text) == (
        "Cold Start + CRPO is more accurate than Baseline on `clinic` (+10.0 points); not found to differ on "
        "`clinic-expert` (+0.1 points)"
    )
    assert "90.0 against 80.0 %, +10.0 points [8.0, 12.0], p < .001." in text
    assert "a difference of 5.0 points would have been found with 80 % power, first Holm step" in text
    assert "2,000 questions a set, 10 training seeds" in text


def test_as_accurate_is_said_only_where_a_loss_of_the_margin_is_excluded():
    def said(**numbers):
        return head(pairs.as_accurate(pd.DataFrame([row(**numbers)])))

    assert (
        said(**CLOSE)
        == "CRPO is as accurate as GRPO on `clinic` (+0.1 points): a loss of 3 points is excluded"
    )
    assert said(**NONE).startswith("Whether CRPO is as accurate as GRPO stays unsettled on `clinic`")
    assert said(**CLEAR).startswith("CRPO is more accurate than GRPO")
    assert said(difference=-1.5, half=1.0, p=0.01).endswith(
        "less accurate than GRPO on `clinic` (−1.5 points), by less than 3 points"
    )
    assert (
        said(difference=-9.0, half=1.0, p=0.01) == "CRPO is less accurate than GRPO on `clinic` (−9.0 points)"
    )


@pytest.mark.parametrize("say", [pairs.more_accurate, pairs.as_accurate, pairs.richer])
def test_one_seed_gives_numbers_and_no_verdict(say):
    text = say(comparison(**CLEAR | ONE))
    assert head(text).endswith(ONE_SEED)
    assert "+10.0 points [8.0, 12.0]" in text and "p <" not in text and "1 training seed;" in text
    assert not any(word in text for word in ("more accurate", "less accurate", "surviv", "10 training"))


@pytest.mark.parametrize("say", [pairs.more_accurate, pairs.as_accurate, pairs.richer])
def test_a_missing_arm_is_named(say):
    assert head(say(None, claims.PLAIN)) == "Not asked: this run does not have both CRPO and GRPO"


# ---- all measures ----


def test_ten_seeds_with_a_clear_difference():
    text = pairs.richer(comparison(**CLEAR))
    assert (
        head(text)
        == "CRPO against GRPO: 8 of 8 primary differences survive correction, 6 in its favour and 2 against it"
    )
    assert "**against it**: false claims on `clinic` (+10.00 [8.00, 12.00], p < .001)" in text
    assert "exploratory: 19 of 19 survive; higher: backtracking on `clinic`" in text and "lower:" not in text


def test_ten_seeds_with_none():
    text = pairs.richer(comparison(**NONE))
    assert head(text) == "CRPO against GRPO: none of 27 differences survives correction"
    assert (
        "no difference found: accuracy on `clinic` (+0.1 points [−5.9, 6.1]; a difference of 5.0 points would"
        in text
    )
    assert "exploratory: 0 of 19 survive." in text and "excluded" not in text
    assert "excluded either way: accuracy on `clinic`" in pairs.richer(comparison(**CLOSE))


def test_survivors_are_counted_apart_from_the_exploratory_ones():
    frame = comparison(**NONE)
    frame.loc[frame["metric"].isin(["verification", "cecd"]), ["difference", "p_holm"]] = [-3.0, 0.001]
    text = pairs.richer(frame)
    assert head(text).endswith(
        "none of the 8 primary differences survives correction, and 6 of 19 exploratory"
    )
    assert "6 of 19 survive; lower: verification on `clinic`" in text
    frame.loc[(frame["metric"] == "drc") & (frame["benchmark"] == "clinic"), ["difference", "p_holm"]] = [
        0.4,
        0.01,
    ]
    assert head(pairs.richer(frame)).endswith("1 of 8 primary differences survives correction, in its favour")


def test_without_a_judge_or_without_the_clinic():
    only = comparison(measures=("accuracy",), **NONE)
    assert head(pairs.richer(only)).endswith(
        "no judge has scored these answers, so only accuracy can be compared"
    )
    real = comparison(sets=("medqa", "medmcqa"), **CLEAR)
    assert head(pairs.richer(real)).startswith("CRPO against GRPO: 18 of 18 exploratory differences survive")
    assert pairs.compared(only).startswith(
        "### Whether"
    ) is False and "not found to differ" in pairs.compared(only)


def extra_rows(lengths, rate):
    """Tokens, and true claims per 100 tokens, of two arms: value and an interval of one to either side."""
    rows = []
    for name, tokens, per in zip(claims.PLAIN, lengths, rate, strict=True):
        for metric, value in (("tokens", tokens), ("faithfulness_per_100_tokens", per)):
            numbers = {"value": value, "ci_low": value - 1, "ci_high": value + 1}
            rows.append({"benchmark": "clinic", "method": name, "metric": metric} | numbers)
    return pd.DataFrame(rows)


def test_whether_it_is_just_longer():
    frame = comparison(sets=("clinic",), measures=("faithfulness",), **CLEAR)
    text = pairs.longer(extra_rows((40.0, 20.0), (5.0, 5.5)), frame, None)
    assert head(text).endswith(
        "the one count that is found to differ, true claims on `clinic`, points the other way per 100 tokens"
    )
    assert (
        "40.0 [39.0, 41.0] and 20.0 [19.0, 21.0] tokens; per 100 tokens true claims 5.00 [4.00, 6.00] and 5.50"
        in text
    )
    assert "points the same way per 100 tokens, with intervals apart" in pairs.longer(
        extra_rows((40.0, 20.0), (9.0, 5.0)), frame
    )
    nothing = comparison(sets=("clinic",), measures=("faithfulness",), **NONE)
    assert "no count is found to differ" in head(pairs.longer(extra_rows((40.0, 20.0), (9.0, 5.0)), nothing))
    assert (
        head(pairs.longer(extra_rows((1.0, 1.0), (1.0, 1.0)), None))
        == "No two arms of known length to compare"
    )


# ---- the end of notebook 04 ----


def stack(pairs=EVERY_PAIR, **numbers):
    frames = [comparison(pair, **numbers).assign(method=pair[0], against=pair[1]) for pair in pairs]
    return pd.concat(frames).reindex(columns=COMPARISON_COLUMNS)


def test_the_end_of_notebook_04_is_the_verdicts_of_the_claims():
    text = endings.which_reasons_better({"comparisons": stack(**CLEAR)})
    both = [f"in 2 of 3 respects {when} (1 contradicted)" for when in (claims.WITHOUT, claims.AFTER)]
    assert head(text).endswith(f"is supported {listed(both)}")
    line = (
        "| CRPO rejects more options than GRPO, without a cold start | the paper, abstract | **supported** | "
    )
    assert line + "`clinic` +10.00 [8.00, 12.00]; `clinic-shift` +10.00 [8.00, 12.00] |" in text
    assert (
        "up to 2,000 questions a set, 10 training seeds" in text
        and "5.0 points of accuracy would have been found" in text
    )
    expected = claims.verdicts(claims.answer_rows({"comparisons": stack(**CLEAR)}))["verdict"].value_counts()
    assert (
        f"{expected['supported']} supported, {expected['contradicted']} contradicted and 0 unsettled" in text
    )


def test_one_seed_settles_nothing():
    text = endings.which_reasons_better({"comparisons": stack(**CLEAR | ONE)})
    assert head(text) == "One training seed settles nothing: no claim is supported or contradicted"
    assert (
        "**supported**" not in text and "**contradicted**" not in text and "a test takes three seeds" in text
    )


def test_missing_arms_and_other_questions_are_said_to_be_missing():
    laptop = stack([claims.COLD, pairs.FIRST_PAIR], **NONE)
    text = endings.which_reasons_better({"comparisons": laptop})
    assert "more were not run, for want of their arms, sets or probes" in text
    assert "without a cold start" not in text and "after a cold start" in head(text)
    real = endings.which_reasons_better({"comparisons": stack([claims.PLAIN], sets=("medqa",), **CLEAR)})
    assert head(real).startswith("The claims of docs/claims.md are asked of the clinic")


# ---- real frames, and words ----


@pytest.mark.parametrize("seeds", [1, 3])
def test_the_frame_of_metrics_compare_is_read(seeds):
    scores = [
        record(
            f"q{i}",
            "A" if i % 3 else "B",
            bool(i % 3),
            method=method,
            seed=seed,
            drc=(i + seed) % 3 + (method == "crpo"),
        )
        for method in claims.PLAIN
        for seed in range(seeds)
        for i in range(12)
    ]
    frame = metrics.compare(scores, *claims.PLAIN, ["drc", "accuracy"])
    assert pairs.pair_of(frame) == claims.PLAIN
    for text in (
        pairs.richer(frame),
        pairs.as_accurate(frame),
        pairs.longer(metrics.extra_rows(scores), frame),
    ):
        assert (ONE_SEED in head(text)) == (seeds == 1)
    with pytest.raises(ValueError, match="expected two"):
        pairs.pair_of(frame.drop(columns="crpo"))


def test_names_that_readers_give_stay_names(monkeypatch):
    monkeypatch.setitem(METHOD_LABELS, "mine", "<b>*bold*</b> | $x$ {}")
    text = pairs.richer(comparison(("mine", "crpo"), **CLEAR))
    assert r"&lt;b&gt;\*bold\*&lt;/b&gt; \| \$x\$ {} against CRPO" in head(text)
    assert head(pairs.more_accurate(comparison(("crpo", "mine"), **CLEAR))).startswith(
        "CRPO is more accurate than &lt;b"
    )


def test_words():
    assert (
        listed("") == ""
        and listed("a") == "a"
        and listed("ab") == "a and b"
        and listed("abc") == "a, b and c"
    )
    assert [p_value(p) for p in (1e-9, 0.0123, 0.9999, 1.0)] == [
        "p < .001",
        "p = .012",
        "p = 1.000",
        "p = 1.000",
    ]
    assert (
        change(-0.0001, -0.1, 0.04, 2) == "0.00 [−0.10, 0.04]"
        and change(-1.5, NAN, NAN, 1, " points") == "−1.5 points"
    )
    assert plain("a_b") == r"a\_b" and set(PRIMARY_BENCHMARKS) <= set(SETS)


# ---- inputs of a stranger ----


@pytest.mark.parametrize("say", [pairs.more_accurate, pairs.as_accurate, pairs.richer])
def test_several_seeds_that_agree_are_not_called_one_seed(say):
    text = say(comparison(**{"difference": 10.0, "half": NAN, "p": NAN, "seeds": 2}))
    assert head(text).endswith("nothing varies, so nothing is tested")
    assert "one training seed" not in text and "2 training seeds" in text and "[" not in text


def test_what_is_not_tested_is_named_beside_what_is_and_not_counted():
    rows = [row("accuracy", **CLEAR), row("drc", **CLEAR | {"p": NAN})]
    text = pairs.richer(pd.DataFrame(rows))
    assert head(text).endswith("1 of 1 primary difference survives correction, in its favour")
    assert "- not tested: rejected options on `clinic` (+10.00" in text
    text = pairs.more_accurate(pd.DataFrame([rows[0], row(benchmark="clinic-expert", **CLEAR | {"p": NAN})]))
    assert "; not tested on `clinic-expert`" in head(text) and "CRPO is more accurate" in head(text)


def test_without_a_size_no_difference_says_so():
    table = comparison(sets=("clinic",), measures=("accuracy",), **NONE).assign(mde_holm=NAN)
    assert "so what would have been found is not known" in pairs.more_accurate(table)


def test_no_shared_question_is_said():
    empty = comparison(sets=("clinic",), measures=("accuracy",))[:0]
    assert head(pairs.more_accurate(empty)) == "No question has an answer of both CRPO and GRPO"
    assert head(pairs.as_accurate(empty)).startswith("No question")


def test_one_difference_is_singular():
    text = pairs.richer(pd.DataFrame([row("drc", **NONE)]))
    assert head(text) == "CRPO against GRPO: the one difference does not survive correction"
    both = [row("drc", **NONE), row("verification", **CLEAR)]
    assert "the one primary difference does not survive correction, and 1 of 1" in pairs.richer(
        pd.DataFrame(both)
    )
    assert "exploratory: 1 of 1 survives" in pairs.richer(pd.DataFrame(both))


def test_equal_counts_per_100_tokens_point_no_way():
    frame = comparison(sets=("clinic",), measures=("drc",), **CLEAR)
    names = {
        "benchmark": "clinic",
        "metric": "drc_per_100_tokens",
        "value": 0.0,
        "ci_low": 0.0,
        "ci_high": 0.0,
    }
    extra = pd.DataFrame([names | {"method": name} for name in claims.PLAIN])
    assert "rejected options on `clinic`, is equal per 100 tokens" in pairs.longer(extra, frame)
