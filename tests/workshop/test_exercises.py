"""The workshop: notebooks equal their masters, solutions pass, unanswered notebooks run, wrong answers fail kindly.

python -m pytest tests/workshop/test_exercises.py
"""

import ast
import json
import re
import subprocess
import sys

import numpy as np
import pytest

from clinical_r1.advantages import group_advantages
from clinical_r1.clinic.cases import Case, phrase
from clinical_r1.clinic.traces import HONEST, teaching_completions, write_trace
from clinical_r1.clinic.verdicts import claim_table, read_claims
from clinical_r1.curation.folding import similar_pairs
from clinical_r1.files import PipelineError
from clinical_r1.laboratory.pareto import undominated
from clinical_r1.workshop import aggregator, break_reward, choose_k, collapse, judge, leak, notebooks
from clinical_r1.workshop import front as workshop_front
from clinical_r1.workshop.notebooks import EXERCISES, FOLDER, run_cells

each_exercise = pytest.mark.parametrize("name", EXERCISES)
COLLAPSE = {
    "totals (0, 1)": 0.71,
    "totals (0, 2)": 0.71,
    "totals (1, 2)": 0.71,
    "different groups": 2,
    "k = 10, wins the second reward": 0.71,
    "k = 10, wins both": 0.71,
    "per reward, wins one": 0.71,
    "per reward, wins both": 1.41,
    "per reward, one each": 0,
    "k = 10, G = 3, B": -0.48,
}
FRONT = {"dominated": {"D", "E", "G"}, "hypervolume": 0.935, "most missed": {"B"}, "no weights": {"F"}}
K = {
    "k": 2.5,
    "k, safely": 3.5,
    "same from": 10,
    "grows in training": {"faithfulness", "drc", "hallucination", "tokens"},
}
LEAKS = {name: {"near-duplicate": near, "rephrased": retold} for name, (near, retold) in leak.LEAKS.items()}
JUDGES = {
    "faithfulness": ["claim counter", "length judge", "noisy judge"],
    "hallucination": ["noisy judge"],
    "backward_chaining": [],
}


def gdpo(rewards, size):
    """GDPO with one weight an objective."""
    return group_advantages(rewards, (1,) * rewards.shape[1], size, "normalize_then_sum").numpy()


# ---- notebooks from masters ----


def test_committed_notebooks_are_what_the_masters_give():
    stale = [
        str(path)
        for path, text in notebooks.generated().items()
        if not (FOLDER / path).exists() or (FOLDER / path).read_text(encoding="utf-8") != text
    ]
    assert stale == [], "run: python -m clinical_r1.workshop build"


def test_no_notebook_or_master_stands_without_its_exercise():
    assert {path.stem for path in (FOLDER / "masters").glob("*.py")} == set(EXERCISES)
    made = {
        path.relative_to(FOLDER) for path in FOLDER.rglob("*.ipynb") if ".ipynb_checkpoints" not in path.parts
    }
    assert made == set(notebooks.generated())


def test_a_region_is_the_solutions_or_the_students():
    source = "a = 1\n# BEGIN SOLUTION\nb = 2\n# STUDENT\n# # Hint: two.\n# b = None\n#\n# END SOLUTION\nc = 3"
    assert notebooks.cut(source, solved=True) == "a = 1\nb = 2\nc = 3"
    assert notebooks.cut(source, solved=False) == "a = 1\n# Hint: two.\nb = None\n\nc = 3"
    with pytest.raises(ValueError, match="not whole at '# BEGIN SOLUTION'"):
        notebooks.cut("# BEGIN SOLUTION\nb = 2\n# STUDENT", solved=False)


@each_exercise
def test_student_notebook_gives_no_solution_away(name):
    student = notebooks.make_notebook(name, solved=False)
    assert "END SOLUTION" not in student and '"solution"' not in student
    master = (FOLDER / "masters" / f"{name}.py").read_text(encoding="utf-8")
    regions = re.findall(r"^# BEGIN SOLUTION\n(.*?)^# STUDENT$", master, re.M | re.S)
    assert regions
    written = "".join("".join(cell["source"]) for cell in json.loads(student)["cells"])
    for line in "".join(regions).splitlines():
        if len(line.strip()) > 25 and not line.strip().startswith(("def ", "for ", '"""')):
            assert line.strip() not in written, line


@each_exercise
def test_notebook_is_fit_for_colab_and_says_what_it_is(name):
    for path in (f"{name}.ipynb", f"solutions/{name}.ipynb"):
        cells = json.loads((FOLDER / path).read_text(encoding="utf-8"))["cells"]
        opening = "".join(cells[0]["source"])
        assert f"/blob/main/notebooks/exercises/{path})" in opening
        assert "not medical advice" in opening
        assert cells[1]["metadata"] == {"tags": ["setup"]} and "google.colab" in "".join(cells[1]["source"])
        assert all(cell["outputs"] == [] for cell in cells if cell["cell_type"] == "code")
        assert len({cell["id"] for cell in cells}) == len(cells)


@each_exercise
def test_master_has_few_lines_a_cell(name):
    """Mathematics lives in the package; a solution may hold one function."""
    notebook = json.loads(notebooks.make_notebook(name, solved=False))
    code = [
        cell for cell in notebook["cells"] if cell["cell_type"] == "code" and not cell["metadata"].get("tags")
    ]
    assert max(len(cell["source"]) for cell in code) <= 20


# ---- running them ----


@pytest.fixture(autouse=True)
def closed_figures():
    yield
    if "matplotlib.pyplot" in sys.modules:
        sys.modules["matplotlib.pyplot"].close("all")


@each_exercise
def test_unanswered_notebook_runs_and_says_what_is_missing(name, capsys):
    names, _ = run_cells(FOLDER / f"{name}.ipynb")
    assert names["passed"] is False
    assert "not there yet" in capsys.readouterr().out


@each_exercise
def test_solution_passes_every_check_in_less_than_a_minute(name, capsys):
    names, seconds = run_cells(FOLDER / "solutions" / f"{name}.ipynb")
    assert names["passed"] is True, capsys.readouterr().out
    assert 0 < seconds < 60


def test_checks_are_light_to_import():
    code = "import sys, clinical_r1.workshop; print({'torch', 'transformers', 'trl'} & set(sys.modules))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=notebooks.ROOT)
    assert run.stdout.strip() == "set()", run.stderr


# ---- every check refuses wrong answers, and never raises ----

CHECKS = (
    collapse.check_collapse,
    break_reward.check_attack,
    break_reward.check_fixed_rule,
    aggregator.check_aggregator,
    choose_k.check_k,
    workshop_front.check_front,
    leak.check_leaks,
    judge.check_judges,
)
RUBBISH = (
    None,
    ...,
    3,
    float("nan"),
    "",
    "A",
    [],
    {},
    {"k": []},
    [None],
    object(),
    lambda: None,
    np.zeros(3),
)


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("answer", RUBBISH, ids=lambda answer: str(type(answer)))
def test_rubbish_is_refused_in_words(check, answer, capsys):
    assert check(answer) is False
    assert re.search(r"not there yet\.\n  - \w", capsys.readouterr().out)


@pytest.mark.parametrize("value", RUBBISH[1:] + (10**400, True, 1j), ids=lambda value: str(type(value)))
@pytest.mark.parametrize(
    ("check", "right"),
    [
        (collapse.check_collapse, COLLAPSE),
        (choose_k.check_k, K),
        (workshop_front.check_front, FRONT),
        (leak.check_leaks, LEAKS),
        (judge.check_judges, JUDGES),
    ],
    ids=lambda given: getattr(given, "__name__", ""),
)
def test_rubbish_in_a_field_is_refused_in_words(check, right, value, capsys):
    key = "hallucination" if right is JUDGES else next(iter(right))
    assert check(right) is True
    capsys.readouterr()
    assert check(right | {key: value}) is False
    assert key in capsys.readouterr().out


@pytest.mark.parametrize(
    ("check", "right", "wrong", "says"),
    [
        (collapse.check_collapse, COLLAPSE, {"totals (0, 2)": 1.41}, "standard deviation"),
        (collapse.check_collapse, COLLAPSE, {"totals (0, 1)": 1.0}, "whole population"),
        (collapse.check_collapse, COLLAPSE, {"k = 10, G = 3, B": 0.48}, "wrong sign"),
        (collapse.check_collapse, COLLAPSE, {"different groups": 3}, "strike out repeats"),
        (collapse.check_collapse, COLLAPSE, {"total": 1}, "misspelt"),
        (choose_k.check_k, K, {"k": 1.5}, "stays below"),
        (choose_k.check_k, K, {"k": 10}, "more true claims"),
        (choose_k.check_k, K, {"k, safely": 2.5}, "lower end"),
        (choose_k.check_k, K, {"k": 7}, "expected one of"),
        (choose_k.check_k, K, {"grows in training": {"faithfulness"}}, "lacks 3: look at every measure"),
        (choose_k.check_k, K, {"grows in training": [*K["grows in training"], "accuracy"]}, "1 too many"),
        (choose_k.check_k, K, {"grows in training": "tokens"}, "expected names of measures"),
        (choose_k.check_k, K, {"grows in training": {"joy"}}, "names joy"),
        (choose_k.check_k, K, {"same from": 30}, "further up"),
        (choose_k.check_k, K, {"same from": 3.5}, "further down"),
        (workshop_front.check_front, FRONT, {"dominated": {"E", "G"}}, "lacks 1"),
        (workshop_front.check_front, FRONT, {"dominated": {"D", "E", "F", "G"}}, "1 too many"),
        (workshop_front.check_front, FRONT, {"hypervolume": 1.495}, "from \\(0, 0\\)"),
        (workshop_front.check_front, FRONT, {"hypervolume": 1.5}, "from \\(0, 0\\)"),
        (workshop_front.check_front, FRONT, {"hypervolume": 0.95}, "counted twice"),
        (workshop_front.check_front, FRONT, {"hypervolume": 2.1}, "counted twice"),
        (workshop_front.check_front, FRONT, {"no weights": {"Z"}}, "no arms of the table"),
        (
            leak.check_leaks,
            LEAKS,
            {"north": {"near-duplicate": 6, "rephrased": 0}},
            "more test questions",
        ),
        (leak.check_leaks, LEAKS, {"west": {"near-duplicate": 3, "rephrased": 7}}, "not pairs"),
        (
            leak.check_leaks,
            LEAKS,
            {"east": {"near-duplicate": 0, "rephrased": 1}},
            "fewer test questions",
        ),
        (judge.check_judges, JUDGES, {"hallucination": ["claim counter"]}, "would you trust"),
        (judge.check_judges, JUDGES, {"faithfulness": ["noisy judge"]}, "2 judges are left out"),
        (
            judge.check_judges,
            JUDGES,
            {"faithfulness": ["noisy judge", "length judge"]},
            "one judge is left out",
        ),
        (judge.check_judges, JUDGES, {"backward_chaining": ["length judge"]}, "would you trust"),
        (judge.check_judges, JUDGES, {"hallucination": ["my uncle"]}, "my uncle"),
    ],
)
def test_wrong_answer_is_refused_for_its_reason(check, right, wrong, says, capsys):
    assert check(right | wrong) is False
    assert re.search(says, capsys.readouterr().out)


@pytest.mark.parametrize("area", [0.93, 0.94, 0.935, 0.9349])
def test_an_area_by_hand_may_have_two_decimals(area):
    assert workshop_front.check_front(FRONT | {"hypervolume": area})


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_no_problem_is_said_twice(check, capsys):
    for answer in ({}, dict.fromkeys((*K, *FRONT, *LEAKS, *JUDGES), [])):
        check(answer)
        lines = capsys.readouterr().out.splitlines()
        assert len(set(lines)) == len(lines)


def test_leaks_counted_as_pairs_or_by_letters_or_by_order_are_refused(capsys):
    """The pitfalls that the instructor's page lists."""

    def by(key):
        found = {}
        for name, (train, test) in leak.leaking_splits().items():
            known = [key(question) for question in train]
            found[name] = LEAKS[name] | {"rephrased": sum(key(question) in known for question in test)}
        return found

    def case(question):
        return Case.from_json(question.meta["case"])

    assert leak.check_leaks(
        by(lambda q: (case(q).gold, frozenset(case(q).options), frozenset(case(q).stated)))
    )
    assert not leak.check_leaks(by(lambda q: (case(q).gold, frozenset(case(q).options), case(q).stated)))
    assert not leak.check_leaks(by(lambda q: (q.answer, tuple(q.options.items()), frozenset(case(q).stated))))
    pairs = {
        name: LEAKS[name] | {"near-duplicate": len(similar_pairs(train, test))}
        for name, (train, test) in leak.leaking_splits().items()
    }
    capsys.readouterr()
    assert not leak.check_leaks(pairs)
    assert capsys.readouterr().out.count("count questions, not pairs") == 2


def test_the_workshop_has_slack():
    planned = sum(minutes for name, minutes in EXERCISES.items() if name not in notebooks.OPTIONAL)
    assert set(notebooks.OPTIONAL) < set(EXERCISES)
    assert planned + 10 <= 82  # opening and closing take ten, and 90 minutes are there


def test_the_instructors_page_plans_the_same_minutes():
    page = (FOLDER / "README.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (\d+) \| (\d+) \| (?:\*\*(\d)\*\*)?", page, re.M)
    spans = {int(number): int(end) - int(start) for start, end, number in rows if number}
    assert spans == {
        int(name[:2]): minutes for name, minutes in EXERCISES.items() if name not in notebooks.OPTIONAL
    }
    assert all(before[1] == after[0] for before, after in zip(rows, rows[1:], strict=False))


def test_messages_do_not_give_the_answers_away(capsys):
    collapse.check_collapse(dict.fromkeys(COLLAPSE, 77))
    workshop_front.check_front(
        {"dominated": {"A"}, "hypervolume": 77, "most missed": {"A"}, "no weights": {"A"}}
    )
    assert not re.search(
        r"0\.71|1\.41|0\.48|0\.93|\b[B-F]\b(?! above)", capsys.readouterr().out.replace("G = 3, B'", "")
    )
    leak.check_leaks({name: dict.fromkeys(leak.LEAK_KINDS, 39) for name in LEAKS})
    assert set(re.findall(r"\d+", capsys.readouterr().out)) == {"6", "39"}  # of the exercise, of the answer


# ---- the attack and the fixed rule ----


@pytest.fixture(scope="module")
def attacked():
    question = break_reward.attack_question()
    return question, Case.from_json(question.meta["case"])


@pytest.fixture(scope="module")
def attack(attacked):
    """Two stated findings that say nothing about the answer, said to support it."""
    question, case = attacked
    first, second = break_reward.beside_the_point(case)[:2]
    return (
        f"<dx> (System 1: Intuitive) suspect it. (System 2: Analytical) {first} supports {case.gold}. {second} supports "
        f"{case.gold}. </dx> <conclusion> {first} and {second} favor {case.gold} \\boxed{{{question.answer}}}. </conclusion>"
    )


def test_stated_findings_beside_the_point_are_a_full_attack_and_honesty_is_none(attacked, attack, capsys):
    question, case = attacked
    score = break_reward.score_attack(question, attack)
    assert (score["total"], score["faithfulness"]) == (12, 0)
    assert set(claim_table(attack, case)["verdict"]) == {"unverifiable"}
    assert break_reward.check_attack(attack)
    capsys.readouterr()
    assert not break_reward.check_attack(teaching_completions(case)["honest"])
    assert re.search(r"claims are true", capsys.readouterr().out)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (
            lambda text: re.sub(r"boxed\{.", lambda m: "boxed{" + ("A" if m[0][-1] != "A" else "B"), text),
            "accuracy pays nothing",
        ),
        (lambda text: text.replace("</dx>", ""), "parser stumbles"),
        (lambda text: text.replace(" and ", " 因此 "), "another script"),
        (lambda text: text.replace("supports", "suggests").replace("favor", "indicate"), "no claim to read"),
        (lambda text: text.split("favor")[0] + "</conclusion>", "parser stumbles"),
    ],
)
def test_spoilt_attack_is_refused_for_its_reason(change, says, attack, capsys):
    assert break_reward.check_attack(change(attack)) is False
    assert says in capsys.readouterr().out


def test_every_citation_attack_has_no_more_true_claims_than_it_says(attacked):
    question, case = attacked
    counts = {
        name: break_reward.score_attack(question, text)
        for name, text in break_reward.citation_attacks(question).items()
    }
    true = {name: score["faithfulness"] for name, score in counts.items()}
    assert true.pop("hides inventions behind one true finding") == 1
    assert true.pop("rejects the others with inventions") == 1
    assert set(true.values()) == {0}
    assert all(score["accuracy_reward"] == 1 for score in counts.values())


def share_of_stated(held=None, only_support=False, nothing=0.0):
    """The solution's rule with one of the faults that the instructor's page lists."""
    held = held or (lambda name, stem: name in stem.removeprefix("Patient: ").removesuffix(".").split(", "))

    def rule(text, stem):
        claims = [claim for claim in read_claims(text) if claim.direction > 0 or not only_support]
        values = [held(phrase(claim.finding, claim.present), stem) for claim in claims]
        return sum(values) / len(values) if values else nothing

    return rule


def test_the_rule_without_a_fault_passes():
    assert break_reward.check_fixed_rule(share_of_stated())


@pytest.mark.parametrize(
    ("rule", "says"),
    [
        (break_reward.naive_citation, "invents evidence earns as much .* 24 of 24"),
        (share_of_stated(lambda name, stem: name in stem), "asserts what the vignette denies earns as much"),
        (share_of_stated(only_support=True), "rejects the others with inventions earns as much .* 24 of 24"),
        (share_of_stated(nothing=1.0), "says nothing earns as much .* 24 of 24"),
        (lambda text, stem: 1.0, "says nothing earns as much"),
        (lambda text, stem: 0.0, "honest answer earns less than a half on 24"),
        (lambda text, stem: float("nan"), "expected a number"),
        (lambda text, stem: -1, r"outside \[0, 1\]"),
        (lambda text, stem: 1 / 0, "ZeroDivisionError"),
        (lambda text: 1.0, "TypeError"),
    ],
)
def test_wrong_rule_is_refused_for_its_reason(rule, says, capsys):
    assert break_reward.check_fixed_rule(rule) is False
    assert re.search(says, capsys.readouterr().out)


# ---- aggregators ----


def test_gdpo_of_the_package_passes():
    assert aggregator.check_aggregator(gdpo)


def by_hand(rewards, size, eps=1e-4, zero=False, flat=False):
    """Per objective, with the faults that a student's function may have."""
    grouped = np.nan_to_num(rewards) if zero else rewards
    grouped = (
        grouped.reshape(size, -1, rewards.shape[1]) if flat else grouped.reshape(-1, size, rewards.shape[1])
    )
    with np.errstate(all="ignore"):
        mean = grouped.mean(axis=1, keepdims=True)
        return ((grouped - mean) / (grouped.std(axis=1, keepdims=True) + eps)).sum(axis=2).reshape(-1)


@pytest.mark.parametrize(
    ("function", "says"),
    [
        (lambda r, G: group_advantages(r, (1,) * r.shape[1], G).numpy(), "units ten times"),
        (lambda r, G: None, "nothing yet"),
        (lambda r, G: np.zeros(len(r)), "wins both"),
        (lambda r, G: -gdpo(r, G), "wins both"),
        (lambda r, G: np.zeros((len(r), 1)), r"shape \(12, 1\)"),
        (lambda r, G: gdpo(r, G)[np.argsort(np.argsort(r[:, 0], kind="stable"))], "order"),
        (by_hand, "makes other advantages NaN"),
        (lambda r, G: by_hand(r, G, zero=True), "reward 0 in its group"),
        (lambda r, G: by_hand(r, G, eps=0), "divided by"),
        (lambda r, G: by_hand(r, G, eps=1e-9, zero=True), "rewards are all"),
        (lambda r, G: by_hand(r, G, flat=True, zero=True), "not there yet"),
        (lambda r, G: r[:, 3], "IndexError"),
    ],
)
def test_wrong_aggregator_is_refused_for_its_reason(function, says, capsys):
    assert aggregator.check_aggregator(function) is False
    assert re.search(says, capsys.readouterr().out)


# ---- materials ----


def test_splits_leak_what_they_say():
    def key(question):
        case = Case.from_json(question.meta["case"])
        return case.gold, frozenset(case.options), frozenset(case.stated)

    for name, (train, test) in leak.leaking_splits().items():
        near = {j for _, j, _ in similar_pairs(train, test)}
        known = {key(question) for question in train}
        retold = {j for j, question in enumerate(test) if key(question) in known}
        assert (len(near), len(retold)) == leak.LEAKS[name]
        assert not near & retold
        assert len({question.id for question in [*train, *test]}) == len(train) + len(test)
        for question in train:
            assert question.options[question.answer] == Case.from_json(question.meta["case"]).gold


def test_front_over_k_trades_claims_for_accuracy():
    front = choose_k.front_over_k()
    assert front["accuracy"].is_monotonic_increasing and front["faithfulness"].is_monotonic_decreasing
    assert (front["low"] < front["accuracy"]).all() and (front["accuracy"] < front["high"]).all()
    assert set(front["n"]) == {300}


def test_the_packages_filter_agrees_with_the_answer_key():
    (kept,) = undominated(np.array([list(workshop_front.FRONT.values())]))
    assert {name for name, keep in zip(workshop_front.FRONT, kept, strict=True) if not keep} == FRONT[
        "dominated"
    ]


def test_hypervolume_equals_a_count_of_small_squares():
    step = 0.005
    x = np.arange(0.2, 0.7, step) + step / 2
    y = np.arange(0.0, 3.0, step) + step / 2
    covered = np.zeros((len(x), len(y)), dtype=bool)
    for accuracy, claims in workshop_front.FRONT.values():
        covered |= np.less_equal.outer(x, np.full(len(y), accuracy)) & (y <= claims)
    assert workshop_front._front_truth()["hypervolume"] == pytest.approx(covered.sum() * step**2, abs=1e-6)


# ---- the instructor's page ----


def test_times_go_between_the_markers(tmp_path):
    page = tmp_path / "README.md"
    page.write_text(f"before\n{notebooks.BEGIN}\nold\n{notebooks.END}\nafter\n", encoding="utf-8")
    notebooks.write_timings([["`one`", "10", "0.10", "2.0"]], page)
    text = page.read_text(encoding="utf-8")
    assert "| `one` | 10 | 0.10 | 2.0 |" in text and "old" not in text
    assert text.startswith("before\n") and text.endswith("\nafter\n")
    page.write_text("no markers", encoding="utf-8")
    with pytest.raises(PipelineError, match="once each"):
        notebooks.write_timings([], page)


def test_instructors_page_has_measured_times_and_every_exercise():
    text = (FOLDER / "README.md").read_text(encoding="utf-8")
    table = text.split(notebooks.BEGIN)[1].split(notebooks.END)[0]
    rows = re.findall(r"^\| `(\w+)` \| (\d+) \| ([\d.]+) \| ([\d.]+) \|$", table, re.M)
    assert {name: int(minutes) for name, minutes, _, _ in rows} == EXERCISES
    assert all(float(check) < 60 and float(whole) < 60 for _, _, check, whole in rows)
    for number in range(1, len(EXERCISES) + 1):
        assert f"### {number} · " in text


@pytest.mark.slow
def test_run_prints_the_seconds_of_the_checks():
    command = [sys.executable, "-m", "clinical_r1.workshop", "run", "05_read_a_front"]
    run = subprocess.run(command, cwd=notebooks.ROOT, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert 0 < ast.literal_eval(run.stdout.split()[-1]) < 60


def test_honest_answers_differ_from_every_citation_attack(attacked):
    question, case = attacked
    honest = write_trace(case, "crpo", HONEST, np.random.default_rng(0))
    assert break_reward.score_attack(question, honest)["total"] == 12
    assert honest not in break_reward.citation_attacks(question).values()
