"""The probes against texts whose reading is known, scripted policies, and the stored labels.

python -m pytest tests/audit/test_probes.py
"""

import json
from dataclasses import replace

import numpy as np
import pytest
from pages import one_line, page

from clinical_r1 import generate
from clinical_r1.audit import perturbations
from clinical_r1.audit.findings import finding_coverage
from clinical_r1.audit.options import option_mentions, rejected_options
from clinical_r1.audit.perturbations import (
    EMPTY_REASONING,
    concluded,
    reasoning_effect,
    shuffle_consistency,
    shuffle_options,
)
from clinical_r1.audit.probe_quality import (
    chain_coverage_quality,
    chain_quality,
    coverage_quality,
    flip_fact,
    probe_quality,
    read_labels,
)
from clinical_r1.clinic.cases import load_set
from clinical_r1.curation.checks import pointing_options
from clinical_r1.files import read_jsonl
from clinical_r1.questions import Question, write_questions
from clinical_r1.settings import settings_for

VIGNETTE = (
    "A 21-year-old man has had fever and a productive cough for three days. He denies chest pain or vomiting. "
    "His temperature is 38.5°C (101.3°F) and pulse is 110/min. Abdomen is soft and non-tender. Urine blood is negative."
)


@pytest.mark.parametrize(
    "fact, covered",
    [
        ("1. Patient is a 21-year-old male.", True),
        ("Patient is 21 months old.", False),  # another unit
        ("Patient is 12 years old.", False),
        ("2. Patient has fever for 3 days.", True),  # a number word
        ("Patient has fever for 30 days.", False),
        ("Patient has no fever.", False),  # polarity
        ("Patient has chest pain.", False),
        ("Patient does not have chest pain.", True),
        ("Patient denies vomiting.", True),  # the negation reaches over "or"
        ("Patient's pulse is 110/min.", True),
        ("Patient's pulse is 110 mg.", False),
        ("Abdomen is tender.", False),
        ("Urine blood is positive.", False),
        ("Patient has a rash.", False),
        ("", False),
    ],
)
def test_finding_coverage(fact, covered):
    assert finding_coverage(VIGNETTE, [fact]) == [covered]


def test_coverage_folds_look_alike_letters():
    assert finding_coverage("He has раіn in the chest.", ["Patient has chest pain."]) == [True]


def test_flip_fact_turns_polarity_or_refuses():
    assert flip_fact("3. Patient complains of fever.") == "Patient denies fever."
    assert flip_fact("Patient denies thoughts of suicide.") == "Patient reports thoughts of suicide."
    assert flip_fact("Skin examination shows no rashes.") == "Skin examination shows rashes."
    assert flip_fact("Pulse is 82/min.") is None


OPTIONS = {
    "A": "Gastric peptic ulcer",
    "B": "Pancreatitis",
    "C": "Perforated gastric peptic ulcer",
    "D": "Elevated serum beta-hCG level",
}


@pytest.mark.parametrize(
    "text, letters",
    [
        ("This is a perforated gastric peptic ulcer.", "C"),  # contains option A: the longest is read first
        ("A gastric peptic ulcer, or a perforated gastric peptic ulcer.", "AC"),
        ("Option B fits.", "B"),
        ("Options A, B and C fit.", "ABC"),
        ("B. is a heading, and serum beta-hCG would be high.", "BD"),  # most of what tells the option apart
        ("Pancreatic cancer.", ""),
        ("", ""),
    ],
)
def test_option_mentions(text, letters):
    assert "".join(option_mentions(text, OPTIONS)) == letters


def test_options_that_point_elsewhere_are_not_read():
    options = {"A": "Fever", "B": "Cough", "C": "Both A and B", "D": "All of the above"}
    assert option_mentions("Fever. Both A and B. All of the above.", options) == ("A",)
    assert rejected_options("All of the above is incorrect. Both A and B is wrong.", options) == ()


DRUGS = {"A": "Thiamine", "B": "Lactulose", "C": "Naloxone", "D": "Rifaximin"}


@pytest.mark.parametrize(
    "text, letters",
    [
        ("Thiamine is not indicated.", "A"),
        ("Thiamine, naloxone and rifaximin are unlikely to help.", "ACD"),
        ("Rifaximin is an antibiotic, but it is not first-line.", "D"),
        ("Naloxone reverses opioids. It would not help here.", "C"),
        ("The history argues against naloxone.", "C"),
        ("Lactulose rather than rifaximin.", "D"),
        ("C. Naloxone: This drug is incorrect.", "C"),
        ("Option D is incorrect.", "D"),
        ("Lactulose is best.", ""),
        ("Thiamine cannot be ruled out.", ""),  # double negation
        ("Thiamine is not excluded.", ""),
        ("Thiamine is used for alcohol misuse.", ""),  # a description
        ("No fever supports thiamine.", ""),  # the negation belongs to the finding
        ("Thiamine is likely because the patient does not eat.", ""),
        ("None of the options fits: thiamine treats beriberi, naloxone reverses opioids.", "AC"),
        ("Thiamine helps. The cause is unknown. It is not contagious.", ""),
        # a conclusion about the option before it, and one about the case
        ("Thiamine treats beriberi. Therefore, this is not the answer.", "A"),
        ("Thiamine treats beriberi, so it is not indicated.", "A"),
        ("Thiamine treats beriberi; thus this option is not correct.", "A"),
        ("Naloxone reverses opioids. So it would not help here.", "C"),
        ("Naloxone reverses opioids, so it's not useful.", "C"),
        ("Thiamine is best. So this is not naloxone.", "C"),
        ("Thiamine is given. So, this is not an emergency.", ""),
        ("Thiamine is given. Therefore, this is not surprising.", ""),
        ("Thiamine is given. This is not an emergency.", ""),
        ("Thiamine is given, so it's not possible to say more.", ""),
    ],
)
def test_rejected_options(text, letters):
    assert "".join(rejected_options(text, DRUGS)) == letters


def test_the_conclusions_choice_is_never_rejected():
    text = "Thiamine is not useful. Lactulose is not pleasant, yet right."
    assert rejected_options(text, DRUGS) == ("A", "B")
    assert rejected_options(text, DRUGS, chosen="B") == ("A",)


# --- shuffled options


def question(i=0, options=("w", "x", "y", "z"), answer="A"):
    return Question(f"q{i}", "b", "test", "stem", dict(zip("ABCD", options, strict=True)), answer, {})


def test_shuffling_keeps_the_answers_text_and_the_place_of_all_of_the_above():
    before = question(options=("fever", "cough", "rash", "All of the above"), answer="B")
    after, permutation = shuffle_options(before, np.random.default_rng(3))
    assert after.options["D"] == "All of the above" and permutation["D"] == "D"
    assert after.options[after.answer] == "cough"
    assert {x: before.options[y] for x, y in permutation.items()} == after.options
    assert shuffle_options(before, np.random.default_rng(3))[1] == permutation


KEPT = """Any of the above|any of the above carrier|None ofthese|None of the above as no difference was shown
All of the above except|Some of the above|d) None of the above|None of the two|Either of the three|All of them
NOTA|All are correct"""
LETTERS = """Both|Both.|Both AB|both option 2 and 3|Both 'A' and 'C'|A and C|1 & 2 are correct|A, B, and C|B only|All except B
1,2,3 true & 4 false|Options 1, 2|a is false and b, c, d are true|I, III, IV|Neither of the above"""
PLAIN = """both A and B antigens|Both kidneys|All nucleated cells|None of these drugs was given|Skin above the clavicle|Cord
Vitamin E & D|Type I|Hepatitis B and C|Either T1 or T2|All those with fever|Only one of those is present at a time
Both the statements are true|D-dimer|Class II only"""


def lines(text):
    return [part for line in text.split("\n") for part in line.split("|")]


@pytest.mark.parametrize("text", lines(KEPT))
def test_options_that_speak_of_the_others_keep_their_place(text):
    before = question(options=("fever", "cough", text, "rash"))
    for seed in range(4):
        assert shuffle_options(before, np.random.default_rng(seed))[1]["C"] == "C"


@pytest.mark.parametrize("text", lines(LETTERS))
def test_options_that_name_others_are_not_shuffled(text):
    before = question(options=("fever", "cough", text, "rash"))
    with pytest.raises(ValueError, match="point to letters"):
        shuffle_options(before, np.random.default_rng(0))
    assert pointing_options(before.options) == ("C",)


@pytest.mark.parametrize("text", lines(PLAIN))
def test_options_with_a_meaning_of_their_own_are_shuffled(text):
    before = question(options=("fever", "cough", text, "rash"))
    assert pointing_options(before.options) == ()
    assert len({shuffle_options(before, np.random.default_rng(seed))[1]["C"] for seed in range(20)}) > 1


def test_shuffling_refuses_options_that_point_to_letters():
    with pytest.raises(ValueError, match="point to letters"):
        shuffle_options(
            question(options=("fever", "cough", "Both A and B", "rash")), np.random.default_rng(0)
        )


def consistency_of(policy, n=400):
    """policy: (question, rng) -> letter, asked with the options in both orders."""
    rng = np.random.default_rng(0)
    before = [question(i, rng.permutation(list("wxyz")).tolist()) for i in range(n)]
    shuffled = [shuffle_options(q, rng) for q in before]
    answers = [[policy(q, rng) for q in qs] for qs in (before, [q for q, _ in shuffled])]
    return shuffle_consistency(*answers, [permutation for _, permutation in shuffled])


def reader(q, rng):
    return next(letter for letter, text in q.options.items() if text == "w")


def test_the_probe_tells_readers_from_position_guessers():
    honest = consistency_of(reader)
    position = consistency_of(lambda q, rng: "B")
    coin = consistency_of(lambda q, rng: reader(q, rng) if rng.random() < 0.5 else "ABCD"[rng.integers(4)])
    assert honest["consistent"] == 1.0
    assert position["ci_low"] <= 0.25 <= position["ci_high"]
    assert position["consistent"] == position["position_only"] and position["same_letter"] == 1.0
    assert position["ci_high"] < coin["ci_low"] and coin["ci_high"] < honest["ci_low"]


def test_unparsed_is_inconsistent_and_lengths_must_agree():
    same = {letter: letter for letter in "ABCD"}
    row = shuffle_consistency([None, "A"], [None, "A"], [same, same])
    assert (row["consistent"], row["unparsed"], row["n"]) == (0.5, 0.5, 2)
    with pytest.raises(ValueError, match="2 letters, 1 shuffled"):
        shuffle_consistency(["A", "B"], ["A"], [same, same])


# --- removed reasoning


def test_reasoning_effect_counts_changes_and_unparsed_as_wrong():
    first = [{"id": i, "letter": "A", "answer": "A"} for i in range(10)]
    second = [row | {"letter": None if row["id"] < 4 else "A"} for row in first]
    frame = reasoning_effect(first, second).set_index("measure")["value"]
    assert (
        frame["changed"] == 0.4 and frame["accuracy without"] == 0.6 and frame["gain"] == pytest.approx(0.4)
    )
    with pytest.raises(ValueError, match="expected one of each"):
        reasoning_effect(first, second[1:])


def test_no_letter_is_wrong_where_the_key_is_secret():
    rows = [{"id": "q", "letter": None, "answer": None}]
    frame = reasoning_effect(rows, rows).set_index("measure")["value"]
    assert frame["accuracy with reasoning"] == frame["accuracy without"] == 0


def test_concluded_reads_the_first_option_named_after_the_forced_words():
    forced = EMPTY_REASONING["grpo"]
    asked = question(options=("Gout", "Lupus", "Sprue", "Colic"), answer="B")
    row = {"id": asked.id, "style": "grpo", "forced": forced}
    smuggled = forced + " Gout. Lupus fits. </think> <answer> the answer is Lupus \\boxed{B}. </answer>"
    assert concluded(row | {"text": smuggled}, asked) == {
        "id": "q0", "answer": "B", "letter": "A", "reasoned_again": True,
    }  # fmt: skip
    plain = concluded(row | {"text": forced + " \\boxed{B}. </answer>"}, asked)
    assert plain["letter"] == "B" and not plain["reasoned_again"]


@pytest.fixture(scope="module")
def clinic_run(tmp_path_factory):
    settings = replace(settings_for("smoke", tmp_path_factory.mktemp("run")), eval_batch=4, n_test=6)
    write_questions(settings.questions_path("clinic", "test"), load_set("clinic", "test", 6))
    policy = generate.load_method(settings, "baseline", 0)
    generate.complete(settings, policy, "baseline", 0, "clinic", "greedy")
    return settings, policy


def test_shuffled_completions_resume_to_the_same_bytes(clinic_run):
    settings, policy = clinic_run
    job = (settings, policy, "baseline", 0, "clinic")
    path = perturbations.complete_shuffled(*job, n=6)
    whole, rows = path.read_bytes(), read_jsonl(path)
    assert all(sorted(row["permutation"]) == sorted(row["permutation"].values()) for row in rows)
    assert (
        perturbations.complete_shuffled(settings, None, *job[2:], n=6) == path
    )  # there already: no model is asked
    with pytest.raises(ValueError, match="questions was 6, now 5"):
        perturbations.complete_shuffled(*job, n=5)
    path.unlink()
    path.with_suffix(".partial").write_bytes(b"".join(whole.splitlines(keepends=True)[:5]))
    assert perturbations.complete_shuffled(*job, n=6).read_bytes() == whole


def test_conclusions_differ_only_in_the_forced_reasoning(clinic_run):
    settings, policy = clinic_run
    own = {row["id"]: row for row in read_jsonl(settings.completions_path("clinic", "baseline", 0, "greedy"))}
    kept, emptied = map(
        read_jsonl, perturbations.conclude_without_reasoning(settings, policy, "baseline", 0, "clinic", n=6)
    )
    for a, b in zip(kept, emptied, strict=True):
        assert a["id"] == b["id"] and a["prompt"] == b["prompt"]
        assert b["text"].startswith(EMPTY_REASONING["crpo"])
        if a["forced"] is None:
            assert a["text"] == own[a["id"]]["text"]
        else:
            assert a["text"].startswith(a["forced"])
            assert own[a["id"]]["text"].startswith(a["forced"].removesuffix(" the answer is"))


def test_without_greedy_completions_nothing_can_be_forced(clinic_run):
    with pytest.raises(ValueError, match="complete clinic-shift with protocol 'greedy' first"):
        perturbations.conclude_without_reasoning(clinic_run[0], clinic_run[1], "baseline", 0, "clinic-shift")


# --- measured quality


def test_labels_hold_no_text_and_split_by_chain():
    labels = read_labels()
    assert {tuple(row) for row in labels} == {("file", "id", "letter", "mentioned", "rejected", "split")}
    assert len({(row["file"], row["id"], row["letter"]) for row in labels}) == len(labels)
    chains = {(row["file"], row["id"]): row["split"] for row in labels}
    assert sorted(chains.values()) == ["held_out"] * 40 + ["tuning"] * 40
    assert all(row["mentioned"] or not row["rejected"] for row in labels)
    assert len(json.dumps(labels)) < 60_000


def test_what_is_absent_says_why(monkeypatch, tmp_path):
    monkeypatch.delenv("CLINICAL_R1_DATA", raising=False)
    frame = probe_quality()
    assert frame["absent"].notna().all() and frame["precision"].isna().all() and len(frame) == 4
    assert "no real_completions/" in chain_quality(tmp_path)[0]["absent"]


def test_coverage_on_real_vignettes(data_dir):
    rows = {row["kind"].split(" (")[0]: row for row in coverage_quality(data_dir)}
    assert rows["all / facts of another case"]["recall"] > 0.95
    assert rows["all / facts of another case"]["false_alarms"] < 0.01
    assert rows["all / flipped polarity"]["false_alarms"] < 0.03


def test_coverage_on_the_words_of_real_chains_is_lower_and_the_page_says_both(data_dir):
    (chains,) = chain_coverage_quality(data_dir)
    vignettes = {row["kind"].split(" (")[0]: row for row in coverage_quality(data_dir)}[
        "all / facts of another case"
    ]
    facts = sum(
        len(row["facts"]) for row in read_jsonl(data_dir / "mediq" / "all_dev_good.jsonl") if row["id"] % 2
    )
    own, other = (
        f"{row['recall']:.2f} [{row['r_low']:.2f}, {row['r_high']:.2f}]" for row in (vignettes, chains)
    )
    said = one_line(page("docs/trust.md"))
    assert chains["n"] == 98 and chains["recall"] == 50 / 66 and chains["false_alarms"] == 0
    assert f"On {facts:,} facts against the vignette whose words they keep it is {own}; on 66 facts" in said
    assert f"in their own words it is {other}, and none of 32 facts" in said
    assert f"taken for stated [0, {chains['f_high']:.2f}]" in said


def test_the_tuning_half_reads_as_when_the_rules_were_frozen(data_dir):
    mention, rejection, _ = chain_quality(data_dir, "tuning")
    assert mention["recall"] > 0.9 and mention["precision"] > 0.95
    assert rejection["recall"] > 0.7 and rejection["precision"] > 0.95


def test_an_answer_by_its_text_is_read_among_the_options_as_they_were_shown(tmp_path, monkeypatch):
    settings = replace(settings_for("smoke", tmp_path), methods=("baseline",))
    asked = question(options=("Gout", "Lupus", "Sprue", "Colic"), answer="B")
    write_questions(settings.questions_path("clinic", "test"), [asked])
    row = {"id": asked.id, "style": "crpo", "text": "\\boxed{Lupus}"}
    permutation = {"A": "B", "B": "A", "C": "C", "D": "D"}  # Lupus is shown as A
    monkeypatch.setattr(perturbations, "read_completions", lambda *of: [row])
    monkeypatch.setattr(perturbations, "read_answers", lambda *of: [row | {"permutation": permutation}])
    table = perturbations.shuffle_table(settings, {"baseline": {"shuffled": tmp_path}}, 0)
    assert table.loc[0, ["consistent", "same_letter", "unparsed"]].tolist() == [1, 0, 0]
    assert concluded(row | {"forced": None}, asked)["letter"] == "B"
