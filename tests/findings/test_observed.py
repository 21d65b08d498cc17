"""What the other tables of notebook 04 say: seeds, protocols, rewards, judges, probes, the ledger."""

import math

import pandas as pd
from records import record

from clinical_r1.findings import observed

NAN = math.nan


def head(text):
    first = text.split("\n")[0]
    assert first.startswith("### ") and "nan" not in text and "\n\n\n" not in text, text
    return first.removeprefix("### ")


def per_seed(values):
    index = pd.MultiIndex.from_tuples([("clinic", name) for name in values], names=["benchmark", "method"])
    return pd.DataFrame(list(values.values()), index=index)


def test_seeds():
    table = per_seed(
        {"baseline": [50.0, 52.0], "crpo": [80.0, 86.0], "grpo": [81.0, 83.0], "gpt": [70.0, NAN]}
    )
    text = observed.seeds_differ(table)
    assert head(text) == "Another training seed moves accuracy by up to 6.0 points (CRPO on `clinic`)"
    assert "of 2 seeds: median 4.0 points" in text and "its accuracies lie 2.0 points apart" in text
    assert (
        head(observed.seeds_differ(table[[0]])) == "One training seed: how far another would lie is not known"
    )


def protocol_rows(protocol, values, coverage=(0.9, 1.0)):
    rows = []
    for name, value, parsed in zip(("grpo", "crpo"), values, coverage, strict=True):
        numbers = {"value": value, "ci_low": value - 0.01, "ci_high": value + 0.01, "coverage": parsed}
        rows.append({"benchmark": "clinic-expert", "method": name, "protocol": protocol} | numbers)
    return pd.DataFrame(rows)


def test_protocols():
    both = pd.concat([protocol_rows("one sample", (0.50, 0.40)), protocol_rows("greedy", (0.51, 0.60))])
    text = observed.protocols_differ(both, {"clinic-expert": 10})
    assert head(text) == "Greedy answers differ from one sample by +1.0 to +20.0 points of accuracy"
    assert "intervals apart in 1 of 2 cases; most moves CRPO on `clinic-expert`, +20.0 points." in text
    assert "on `clinic-expert` GRPO has the highest value with one sample, CRPO with greedy." in text
    assert (
        "with 10 options, on `clinic-expert`, 90.0 to 100.0 % of the answers state a letter (one sample; fewest: GRPO)"
        in text
    )
    alone = observed.protocols_differ(both[both["protocol"] == "one sample"], {})
    assert head(alone).startswith("One protocol")


def reward_records(seeds=(0, 1)):
    given = {"accuracy_reward": 1.0, "clinical_reasoning_reward": 1.5, "consistency_reward": 0.5}
    return pd.DataFrame(
        [
            record(key, method=method, seed=seed)
            | {"rewards": given | {"accuracy_reward": float(key == "q1"), "thinking_format_reward": None}}
            for method in ("baseline", "crpo")
            for seed in seeds
            for key in ("q1", "q2", "q3", "q4")
        ]
    )


def test_rewards_have_intervals_within_their_range_and_no_row_where_none_was_given():
    rows = observed.reward_rows(reward_records())
    assert set(rows["reward"]) == {"accuracy_reward", "clinical_reasoning_reward", "consistency_reward"}
    own = rows[rows["method"] == "crpo"].set_index("reward")
    assert (
        own.loc["accuracy_reward", "value"] == 0.25 and own.loc["clinical_reasoning_reward", "ci_high"] == 1.5
    )
    assert (own["n"] == 4).all() and (own["seeds"] == 2).all() and (rows["ci_low"] >= 0).all()
    text = observed.rewards_seen(rows)
    assert (
        head(text)
        == "On `clinic` trained arms earn, of what they are paid for, accuracy 0.25, clinical-reasoning 1.50 and consistency 0.50"
    )
    assert "- Baseline, which is asked with CRPO's prompt and paid nothing: accuracy 0.25" in text
    assert head(observed.rewards_seen(rows[rows["method"] == "baseline"])).startswith("No trained arm")


def test_judges():
    numbers = {
        "kappa_low": 0.1,
        "kappa_high": 0.2,
        "slope": 1.1,
        "slope_low": 1.0,
        "slope_high": 1.2,
        "n": 1000,
    }
    kappas = [("length judge", "drc", 0.4), ("length judge", "faithfulness", 0.15), ("other", "drc", 0.9)]
    table = pd.DataFrame([{"judge": j, "measure": m, "kappa": k} | numbers for j, m, k in kappas])
    text = observed.judges_agree(table)
    assert (
        head(text)
        == "Lowest kappa of each judge: length judge 0.15 (true claims), other 0.90 (rejected options)"
    )
    assert "slope 1.10 [1.00, 1.20]" in text and "1,000 answers of one training seed" in text
    about = {"method": "crpo", "against": "grpo", "n": 500, "judged": 1.0, "exact": -1.0}
    about |= {f"{side}_{end}": 1.0 for side in ("judged", "exact") for end in ("low", "high")}
    orders = [
        ("length judge", "drc", "same"),
        ("length judge", "hallucination", "reversed"),
        ("other", "drc", "same"),
    ]
    frame = pd.DataFrame([about | {"judge": j, "measure": m, "order": o} for j, m, o in orders])
    assert head(observed.judges_order(frame)) == (
        "The order of CRPO and GRPO, right wherever there is one: other; not everywhere: length judge"
    )
    assert head(observed.judges_order(frame.assign(order="exact undecided"))).startswith("No order to find")


def test_probes():
    shuffled = pd.DataFrame(
        [
            {
                "method": name,
                "n": 200,
                "consistent": share,
                "ci_low": 0.8,
                "ci_high": 0.99,
                "position_only": 0.25,
            }
            for name, share in (("crpo", 0.95), ("grpo", 0.9))
        ]
    )
    text = observed.options_exchanged(shuffled)
    assert head(text) == "90.0 to 95.0 % of the answers stay when the options change places"
    assert "Fewest: GRPO 90.0 % [80.0, 99.0]; 200 questions" in text and "reach 25.0 %" in text
    assert head(observed.options_exchanged(pd.DataFrame())).startswith("Not asked")
    effect = pd.DataFrame(
        [
            {"measure": "gain", "method": name, "reading": reading, "value": value, "n": 200}
            | {"ci_low": value - 0.1, "ci_high": value + 0.1}
            for name, value in (("baseline", -0.2), ("crpo", 0.3), ("grpo", 0.05))
            for reading in ("first option named", "final box")
        ]
    )  # fmt: skip
    assert head(observed.reasoning_removed(effect)) == (
        "With the reasoning taken out, CRPO is less accurate, in both readings; Baseline is more accurate in at least one"
    )
    assert "GRPO: +5.0 points [−5.0, 15.0] (first option named)" in observed.reasoning_removed(effect)
    assert head(observed.reasoning_removed(None)).startswith("Not asked")


def test_the_ledger():
    rows = pd.DataFrame(
        {"verdict": ["outside", "not attempted", "not attempted"], "reason": ["", "no judge", "no judge"]}
    )
    text = observed.ledger_says(rows)
    assert (
        head(text) == "1 of 3 printed cells is answered by this run: 1 outside"
        and "- 2 not attempted: no judge." in text
    )


# ---- inputs of a stranger ----


def test_one_seed_of_an_arm_says_nothing_of_another():
    table = per_seed({"baseline": [50.0, 52.0], "crpo": [80.0, NAN]})
    assert head(observed.seeds_differ(table)) == "No trained arm has several training seeds that could differ"
    same = per_seed({"crpo": [80.0, 80.0]})
    assert head(observed.seeds_differ(same)) == "None of 2 training seeds moves the accuracy of a trained arm"


def test_protocols_with_ties_or_nothing_in_common():
    one = protocol_rows("one sample", (0.5, 0.5), (0.9, 0.9))
    text = observed.protocols_differ(
        pd.concat([one, protocol_rows("greedy", (0.4, 0.5))]), {"clinic-expert": 10}
    )
    assert "GRPO and CRPO have the highest value with one sample, CRPO with greedy" in text
    assert "fewest: GRPO" in text and "(one sample)" in text  # as many in both arms: none has the fewest
    other = protocol_rows("greedy", (0.4, 0.5)).assign(method=["a", "b"])
    assert (
        head(observed.protocols_differ(pd.concat([one, other]), {}))
        == "No arm answered a set by two protocols"
    )


def test_the_fewest_of_one_arm_is_no_finding():
    row = {"method": "crpo", "consistent": 0.5, "ci_low": 0.4, "ci_high": 0.6, "n": 1, "position_only": 0.2}
    text = observed.options_exchanged(pd.DataFrame([row]))
    assert "Fewest" not in text and "CRPO 50.0 % [40.0, 60.0]; 1 question," in text
    text = observed.options_exchanged(pd.DataFrame([row, row | {"method": "grpo"}]))
    assert "Fewest" not in text and "CRPO 50.0 % [40.0, 60.0] and GRPO" in text


def test_reasoning_of_one_reading_or_of_none():
    row = {
        "method": "crpo",
        "reading": "letter",
        "measure": "gain",
        "value": 0.1,
        "ci_low": 0.05,
        "ci_high": 0.2,
        "n": 1,
    }
    assert head(observed.reasoning_removed(pd.DataFrame([row]))).endswith("less accurate, in the one reading")
    none = pd.DataFrame([row | {"measure": "with"}])
    assert head(observed.reasoning_removed(none)).startswith("No answer was given both")
