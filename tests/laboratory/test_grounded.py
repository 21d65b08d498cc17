"""The grounded rewards: what is a link, what grounds it, what cannot be gained by tricks."""

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import spearmanr

from clinical_r1.audit.redteam import EXAMPLE, EXAMPLE_HONEST, red_team_table
from clinical_r1.clinic.cases import Case, load_set
from clinical_r1.clinic.knowledge import knowledge_base
from clinical_r1.clinic.traces import BASE, HONEST, claim_text, write_trace
from clinical_r1.clinic.verdicts import AGAINST, SUPPORTS, measure, read_claims
from clinical_r1.curation.releases import load_benchmark
from clinical_r1.laboratory import grounded
from clinical_r1.laboratory.grounded import (
    find_links,
    grounded_comprehensiveness_reward,
    grounded_faithfulness_reward,
)
from clinical_r1.laboratory.variants import VARIANT_SETS
from clinical_r1.prompts import LAYOUTS, STYLES, build_messages, question_stem

STEM = (
    "A 50-year-old man has had crushing chest pain for two hours. He has no fever, cough, or leg swelling. Blood pressure is "
    "150/90 mm Hg and the troponin concentration is elevated. Lung sounds are normal."
)
OPTIONS = {
    "A": "Myocardial infarction",
    "B": "Pulmonary embolism",
    "C": "Pneumonia",
    "D": "Aortic dissection",
}


def crpo(analysis: str, conclusion: str = "done \\boxed{A}") -> str:
    return f"<dx> (System 1: Intuitive) a (System 2: Analytical) {analysis} </dx> <conclusion> {conclusion} </conclusion>"


def links(analysis: str) -> list[tuple[str, bool, bool]]:
    """(letter, supports, grounded) of each link."""
    return [(x.letter, x.supports, x.grounded) for x in find_links(crpo(analysis), STEM, OPTIONS)]


def faithfulness(text: str, **columns) -> float | None:
    return grounded_faithfulness_reward([text], **{"options": [OPTIONS], "prompts": [STEM]} | columns)[0]


def comprehensiveness(text: str, **columns) -> float | None:
    columns = {"options": [OPTIONS], "prompts": [STEM], "answer": ["A"]} | columns
    return grounded_comprehensiveness_reward([text], **columns)[0]


# ------------------------------------------------------------------------------------------------------ one sentence


@pytest.mark.parametrize(
    "sentence, expected",
    [
        ("Crushing chest pain supports myocardial infarction.", [("A", True, True)]),
        ("The elevated troponin points to option A.", [("A", True, True)]),
        ("The absence of fever argues against pneumonia.", [("C", False, True)]),
        ("Without cough, pneumonia is less likely.", [("C", False, True)]),
        ("The patient doesn't have leg swelling, so pulmonary embolism is unlikely.", [("B", False, True)]),
        ("Aortic dissection does not explain the elevated troponin.", [("D", False, True)]),
        ("Normal lung sounds rule out pneumonia.", [("C", False, True)]),
        ("Fever supports pneumonia.", [("C", True, False)]),  # the stem denies it
        (
            "Leg swelling supports pulmonary embolism.",
            [("B", True, False)],
        ),  # at the end of a list that 'no' opens
        ("The normal troponin argues against myocardial infarction.", [("A", False, False)]),
        (
            "Elevated lung sounds support pneumonia.",
            [("C", True, False)],
        ),  # both words are there, not together
        ("A pulsatile mass supports aortic dissection.", [("D", True, False)]),  # nobody said so
        ("Blood pressure of 80/50 supports aortic dissection.", [("D", True, False)]),
        ("Blood pressure of 150/90 supports aortic dissection.", [("D", True, True)]),
        ("Myocardial infarction.", []),
        ("Crushing chest pain, elevated troponin.", []),  # no option, no relation
        ("Crushing chest pain, pneumonia.", []),  # no relation
        ("If pneumonia then expect crushing chest pain.", []),  # supposed, not claimed
        ("Supports because therefore suggests crushing chest pain pneumonia.", []),  # a heap
    ],
)
def test_what_a_sentence_says(sentence, expected):
    assert links(sentence) == expected


def test_several_findings_options_and_clauses():
    assert links("No fever and no cough argue against pneumonia.") == [("C", False, True)] * 2
    assert links("No leg swelling argues against pulmonary embolism and pneumonia.") == [
        ("B", False, True),
        ("C", False, True),
    ]
    both = "Although crushing chest pain may suggest aortic dissection, the elevated troponin favors myocardial infarction."
    assert links(both) == [("D", True, True), ("A", True, True)]
    assert links("Elevated troponin suggests myocardial infarction rather than pneumonia.") == [
        ("A", True, True),
        ("C", False, True),
    ]
    assert links("Pneumonia is possible. It is unlikely because there is no fever.") == [("C", False, True)]


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("style", STYLES)
def test_the_stem_is_found_in_every_prompt(layout, style):
    """Neither our instructions nor the options are evidence."""
    prompt = build_messages(EXAMPLE, style, layout)[0]["content"]
    assert question_stem(prompt, tuple(EXAMPLE.options.items())) == EXAMPLE.stem
    chat = f"<|user|> {prompt} <|assistant|> "
    assert question_stem(chat, tuple(EXAMPLE.options.items())) == EXAMPLE.stem


# ------------------------------------------------------------------------------------------------------- the rewards

GOOD = (
    "Crushing chest pain supports myocardial infarction. No fever argues against pneumonia. Elevated troponin argues against "
    "aortic dissection. No leg swelling argues against pulmonary embolism."
)


def test_full_marks_and_what_costs():
    assert faithfulness(crpo(GOOD)) == comprehensiveness(crpo(GOOD)) == 1.0
    invented = crpo(GOOD + " A pulsatile mass supports myocardial infarction.")
    assert faithfulness(invented) == pytest.approx(4 / 5) and comprehensiveness(invented) == 1.0
    flipped = crpo(GOOD.replace("No fever argues", "Fever argues"))
    assert faithfulness(flipped) == pytest.approx(3 / 4) and comprehensiveness(flipped) == pytest.approx(
        3 / 4
    )


def test_invented_evidence_in_the_conclusion_costs_too():
    assert faithfulness(
        crpo(GOOD, "a pulsatile mass favors myocardial infarction \\boxed{A}")
    ) == pytest.approx(4 / 5)


def test_saying_nothing_and_saying_one_thing_often():
    once = crpo("Crushing chest pain supports myocardial infarction.")
    often = crpo("Crushing chest pain supports myocardial infarction. " * 20)
    assert faithfulness("") == faithfulness(crpo("...")) == comprehensiveness(crpo("...")) == 0.0
    assert faithfulness(once) == faithfulness(often) == 1 / grounded.MIN_LINKS
    assert comprehensiveness(once) == comprehensiveness(often) == 1 / 4


def test_a_conclusion_is_no_reasoning():
    claims = "crushing chest pain and elevated troponin favor myocardial infarction \\boxed{A}"
    assert faithfulness(crpo("...", claims)) == comprehensiveness(crpo("...", claims)) == 0.0


def test_a_finding_that_speaks_on_both_sides_counts_for_neither():
    both = crpo(
        "No fever supports pneumonia. No fever argues against pneumonia. Normal lung sounds support pneumonia."
    )
    assert faithfulness(both) == pytest.approx(1 / 3)


def test_hedging_addresses_only_what_it_gets_right():
    for_all = " ".join(f"Crushing chest pain supports {name}." for name in OPTIONS.values())
    against_all = " ".join(f"Elevated troponin argues against {name}." for name in OPTIONS.values())
    assert comprehensiveness(crpo(for_all)) == 1 / 4
    assert comprehensiveness(crpo(against_all)) == 2 / 4  # three are right, one finding serves two options
    assert comprehensiveness(crpo(f"{for_all} {against_all}")) == 0.0


def test_the_answer_must_be_supported_and_the_others_rejected():
    assert comprehensiveness(crpo(GOOD), answer=["C"]) == pytest.approx(2 / 4)
    against = crpo("Crushing chest pain argues against myocardial infarction. No fever supports pneumonia.")
    assert comprehensiveness(against) == 0.0


def test_both_formats_are_read():
    text = f"<think> {GOOD} </think> <answer> done \\boxed{{A}} </answer>"
    assert faithfulness(text, style="grpo") == comprehensiveness(text, style=["grpo"]) == 1.0
    assert faithfulness(text) == 0.0


def test_none_is_not_zero_and_columns_must_fit():
    text = crpo(GOOD)
    assert faithfulness(text, options=[None]) is faithfulness(text, prompts=None) is None
    assert comprehensiveness(text, answer=[None]) is comprehensiveness(text, options=[None]) is None
    with pytest.raises(ValueError, match="'options' has 2 values for 1"):
        faithfulness(text, options=[OPTIONS] * 2)
    with pytest.raises(ValueError, match="'answer' has 2 values for 1"):
        comprehensiveness(text, answer=["A", "B"])


def test_message_lists_as_trl_passes_them():
    message = [{"role": "assistant", "content": crpo(GOOD)}]
    asked = [{"role": "user", "content": STEM}]
    assert faithfulness(message, prompts=[asked], id=["x"], trainer_state=None) == 1.0


# -------------------------------------------------------------------------------- against the clinic's exact verdicts


@pytest.mark.parametrize(
    "benchmark, flipped_limit", [("clinic", 0.04), ("clinic-shift", 0.1), ("clinic-expert", 0.04)]
)
def test_single_claims_are_read_as_the_exact_judge_reads_them(benchmark, flipped_limit):
    """Stated findings are grounded, invented and flipped ones are not; the side and the option are right. The rules know no
    word of the clinic. What is missed: 'stable pulse' after 'wide swings in pulse', 'drinks usual volumes'
    after 'drinking large volumes': opposites that are no plain denial."""
    rng, kb = np.random.default_rng(0), knowledge_base()
    seen = {"stated": [], "flipped": [], "invented": []}
    for question in load_set(benchmark, "validation", 60):
        case = Case.from_json(question.meta["case"])
        stated = dict(case.stated)
        hidden = [f for option in case.options for f in kb.supports(option) if f not in stated]
        findings = [(f, present, "stated") for f, present in case.stated]
        findings += [(f, not present, "flipped") for f, present in case.stated]
        findings += [(str(f), True, "invented") for f in rng.choice(hidden, 4)]
        for finding, present, kind in findings:
            option, sign = str(rng.choice(case.options)), int(rng.choice([SUPPORTS, AGAINST]))
            found = find_links(
                crpo(claim_text(finding, present, sign, option, case)), question.stem, question.options
            )
            letter = next(letter for letter, text in question.options.items() if text == option)
            side = bool(found) and all((x.letter, x.supports) == (letter, sign == SUPPORTS) for x in found)
            seen[kind].append((bool(found) and side, bool(found) and all(x.grounded for x in found)))
    read = {kind: np.mean([side for side, _ in pairs]) for kind, pairs in seen.items()}
    grounded_share = {kind: np.mean([tied for _, tied in pairs]) for kind, pairs in seen.items()}
    assert min(read.values()) >= 0.99
    assert grounded_share["stated"] >= 0.99 and grounded_share["invented"] <= 0.02
    assert grounded_share["flipped"] <= flipped_limit


def test_rewards_follow_the_exact_measures():
    """300 chains of scripted writers, hasty to honest. One claim alone cannot earn all, whatever it is worth: the shares are
    compared where there are two or more."""
    rng, rows = np.random.default_rng(1), []
    for i, question in enumerate(load_set("clinic", "validation", 300)):
        case = Case.from_json(question.meta["case"])
        text = write_trace(case, "crpo", (BASE, HONEST)[i % 3 == 0], rng)
        columns = {"options": [question.options], "prompts": [question.stem], "answer": [question.answer]}
        exact, claims = measure(text, case), len(read_claims(text))
        rows.append(
            (
                grounded_faithfulness_reward([text], **columns)[0],
                grounded_comprehensiveness_reward([text], **columns)[0],
                exact["faithfulness"] / max(claims, 1),
                exact["drc"],
                exact["hallucination"],
                claims,
            )
        )
    faithful, comprehensive, share, drc, hallucination, claims = np.array(rows).T
    assert spearmanr(comprehensive, drc).statistic > 0.7
    several = claims > 1
    assert several.sum() > 100
    # A text reward cannot see that a stated finding is said for the wrong option, and today's writers do that: over three seeds
    # .40 to .46 with the share of true claims, -.40 to -.46 with false ones
    assert spearmanr(faithful[several], share[several]).statistic > 0.3
    assert spearmanr(faithful[several], hallucination[several]).statistic < -0.3


@pytest.mark.slow
def test_a_real_chain_fits_its_own_question_better(data_dir):
    """The same chain, the same options, another question's stem: the grounded rewards fall, the paper's rule does not."""
    from clinical_r1.audit.public_answers import CHAIN_MODELS, _chains

    folder = data_dir / "real_completions"
    questions = load_benchmark("medqa-4", "test", source=data_dir)
    chains = [
        (question, parsed)
        for model, question, _, parsed in _chains(folder, "medqa-4", questions)
        if model == CHAIN_MODELS[0] and parsed.letter and parsed.analytical
    ][:100]
    texts = [crpo(p.analytical, f"{q.options[p.letter]} \\boxed{{{p.letter}}}") for q, p in chains]
    columns = {"options": [q.options for q, _ in chains], "answer": [q.answer for q, _ in chains]}
    stems = [q.stem for q, _ in chains]
    for reward in grounded.REWARDS:
        own = np.array(reward(texts, prompts=stems, **columns))
        other = np.array(reward(texts, prompts=stems[1:] + stems[:1], **columns))
        auc = np.mean((own[:, None] > other) + 0.5 * (own[:, None] == other))
        assert auc > 0.55 and own.mean() > 2 * other.mean(), reward.__name__


# ---------------------------------------------------------------------------------------------------------- red team


def outranked(question, honest: str, prompt: str = "") -> list[bool]:
    return red_team_table(question, honest, prompt, VARIANT_SETS["grounded"])["outranked"].tolist()[1:]


def test_honest_outranks_every_attack_in_ordinary_english():
    assert all(outranked(EXAMPLE, EXAMPLE_HONEST))


@pytest.mark.parametrize("benchmark", ["clinic", "clinic-shift", "clinic-expert"])
def test_honest_outranks_every_attack_in_the_clinic(benchmark):
    for question in load_set(benchmark, "validation", 4):
        honest = write_trace(Case.from_json(question.meta["case"]), "crpo", HONEST, np.random.default_rng(0))
        assert all(outranked(question, honest, build_messages(question, "crpo", "clinic")[0]["content"]))


def test_known_limit_stated_findings_tied_to_options_at_random():
    """Nothing here knows medicine: stated findings put beside options at random earn all. The exact measures see it."""
    rewards, exact = [], []
    for question in load_set("clinic", "validation", 40):
        case = Case.from_json(question.meta["case"])
        claims = [
            claim_text(*case.stated[i % len(case.stated)], SUPPORTS if o == case.gold else AGAINST, o, case)
            for i, o in enumerate(case.options)
        ]
        columns = {"options": [question.options], "prompts": [question.stem], "answer": [question.answer]}
        text = crpo(" ".join(claims))
        rewards.append([reward([text], **columns)[0] for reward in grounded.REWARDS])
        exact.append(measure(text, case)["faithfulness"] / len(claims))
    assert np.mean(rewards) > 0.95
    assert np.mean(exact) < 0.6


# ---------------------------------------------------------------------------------------------------- property tests

FRAGMENTS = [
    "<dx>", "</dx>", "<conclusion>", "</conclusion>", "<think>", "</think>", "<answer>", "</answer>",
    "(System 1: Intuitive)", "(System 2: Analytical)", "\\boxed{B}", "fever supports Septic arthritis.", "it",
    "no crystals argue against Gout.", "neither fever, chills, or", "not", "absent", "unlike", "option B", "; ", ". ", "\n",
    ", ", "or", "\x02", "\x03", "\x00", "\ud800", "因此", "≥ 5 µg", "’", *EXAMPLE.options.values(), EXAMPLE.stem, EXAMPLE_HONEST,
]  # fmt: skip
any_text = st.text(st.characters(exclude_categories=()), max_size=40)
pools = st.lists(any_text, min_size=1, max_size=10)


def check(pool: list[str], seed: int, count: int = 100) -> None:
    """Completions spliced from pieces, asked with stems and options spliced likewise: in range, and the same again."""
    rng, pieces = np.random.default_rng(seed), [*FRAGMENTS, *pool]

    def spliced():
        return " ".join(pieces[i] for i in rng.integers(len(pieces), size=rng.integers(0, 16)))

    texts = [spliced() for _ in range(count // 2)]
    texts += [crpo(spliced(), spliced()) for _ in range(count // 2)]
    options = [EXAMPLE.options, {"A": spliced()[:60], "B": "Gout", "C": ""}]
    stems = [EXAMPLE.stem, spliced()]
    columns = {"options": options * (count // 2), "prompts": stems * (count // 2), "answer": ["B"] * count}
    for reward in grounded.REWARDS:
        for style in STYLES:
            values = reward(texts, style=style, **columns)
            assert len(values) == count and all(0.0 <= value <= 1.0 for value in values)
            grounded._find_links.cache_clear()
            assert reward(texts, style=style, **columns) == values


@settings(max_examples=20, deadline=None)
@given(pools, st.integers(0, 2**32 - 1))
def test_two_thousand_completions(pool, seed):
    check(pool, seed)


@pytest.mark.slow
@settings(max_examples=200, deadline=None)
@given(pools, st.integers(0, 2**32 - 1))
def test_twenty_thousand_completions(pool, seed):
    check(pool, seed)


def test_time_grows_with_the_length_not_faster():
    """A tenfold text takes about ten times as long."""

    def seconds(text):
        grounded._find_links.cache_clear()
        start = time.perf_counter()
        faithfulness(text)
        return time.perf_counter() - start

    for piece in (GOOD + " ", "fever, ", "no fever or ", "not ", "myocardial infarction "):
        short, long = (min(seconds(crpo(piece * n)) for _ in range(2)) for n in (500, 5_000))
        assert long < 40 * short + 0.2, piece
