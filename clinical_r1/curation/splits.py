"""Raw questions -> splits that can be trusted: duplicates and leaks found, set aside, and written to disk."""

import math
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace

from clinical_r1 import extensions
from clinical_r1.curation.checks import CHECKS, longest_option
from clinical_r1.curation.folding import first_similar, match_keys, option_key
from clinical_r1.curation.releases import RELEASES, load_benchmark
from clinical_r1.files import write_jsonl
from clinical_r1.labels import CLINIC_BENCHMARKS
from clinical_r1.questions import Quarantined, Question, write_questions

# fmt: on

# Traps of files that are not questions, and the module that answers for them.
ELSEWHERE = {
    23: "not loaded: mediQ's atomic facts serve only to test verifiers",
    24: "not loaded: AgentClinic's cases are talks with an agent; they are patients in agent/outside_patients.py",
    26: "score.score_all: completions must answer exactly the split's questions; no row drops out",
    27: "completions: degenerate text must parse to no letter",
    28: "completions.parse_mirage: letters with text, refusals and API errors",
    29: "completions.parse_mirage: several letters, empty lists; unparsed counts as wrong",
}
KEEP_ORDER = ("letter_options", "all_of_the_above", "none_of_the_above")


@dataclass(frozen=True)
class Curated:
    """questions: the kept, with meta["checks"] and meta["shuffle_ok"]. report: one row per check."""

    questions: list[Question]
    quarantined: list[Quarantined]
    report: list[dict]


def curate(questions: Sequence[Question], against: Sequence[Question] = ()) -> Curated:
    """Set aside what would spoil training or scoring, and report the rest by name.

    len(questions) == len(kept) + len(quarantined), always; a question is set aside for the first reason in
    the order of CHECKS. `against` are held-out questions: whatever matches one of them (same stem and
    options, same stem and gold text, or 5-gram Jaccard >= 0.5) is set aside. So give `against` for training
    pools; to look at the overlap of two evaluation sets, whose denominators must not change, read
    `similar_pairs`. Scores on an evaluation set belong to the whole set. Report rows: check, action, traps,
    count, ids (the first five), meaning. Counts of report checks cover all questions.
    """
    found: dict[str, dict[int, str]] = {name: {} for name in CHECKS}
    keys = []
    for i, question in enumerate(questions):  # every check of one question while its folded texts are at hand
        keys.append(match_keys(question))
        for name, check in CHECKS.items():
            if check.finds and check.finds(question):
                found[name][i] = check.meaning
    _find_duplicates(questions, keys, found)
    if against:
        _find_contaminated(questions, keys, against, found["contaminated"])

    setting_aside = [name for name, check in CHECKS.items() if check.action == "quarantine"]
    reporting = [name for name, check in CHECKS.items() if check.action == "report"]
    kept, quarantined = [], []
    for i, question in enumerate(questions):
        reason = next((name for name in setting_aside if i in found[name]), None)
        if reason is None:
            flags = [name for name in reporting if i in found[name]]
            meta = question.meta | {"checks": flags, "shuffle_ok": not set(flags) & set(KEEP_ORDER)}
            kept.append(replace(question, meta=meta))
        else:
            quarantined.append(_set_aside(question, reason, found[reason][i]))
    counts = Counter(row.check for row in quarantined)
    report = [
        _report_row(
            name,
            counts[name] if name in setting_aside else len(found[name]),
            [questions[i].id for i in sorted(found[name])[:5]],
        )
        for name in [*setting_aside, *reporting]
        if name != "partial_release"
    ]
    return Curated(kept, quarantined, [*report, _partial_release(questions)])


def _set_aside(q: Question, check: str, reason: str) -> Quarantined:
    return Quarantined(
        check, reason, q.benchmark, q.split, q.id, q.meta.get("file"), q.meta.get("line"), q.to_json()
    )


def _find_duplicates(questions, keys, found) -> None:
    groups = defaultdict(list)
    for i, own in enumerate(keys):
        groups[own.exact].append(i)
    for group in groups.values():
        if len(group) == 1:
            continue
        group.sort(key=lambda i: questions[i].answer is None)  # keep the first that has a gold answer
        golds = {option_key(questions[i].options[questions[i].answer]) for i in group if questions[i].answer}
        for i in group[len(golds) < 2 :]:  # contradictory: every side; otherwise all but the first
            if len(golds) > 1:
                others = [
                    questions[j].id for j in group[:10] if j != i
                ]  # ten name it; thousands would fill the disk
                found["contradictory_duplicate"][i] = f"same question as {others}, golds {sorted(golds)}"
            else:
                found["exact_duplicate"][i] = f"same question as {questions[group[0]].id}"
    for i, (j, similarity) in first_similar(keys).items():
        found["near_duplicate"][i] = f"{similarity:.2f} of {questions[j].id}"


def _find_contaminated(questions, keys, against, found) -> None:
    held_out = list(map(match_keys, against))
    same = {own.exact: question.id for question, own in zip(against, held_out, strict=True)}
    for question, own in zip(against, held_out, strict=True):
        if question.answer:
            same[_gold_key(question, own)] = question.id
    for i, (question, own) in enumerate(zip(questions, keys, strict=True)):
        name = same.get(own.exact) or (question.answer and same.get(_gold_key(question, own)))
        if name:
            found[i] = f"the same question as held-out {name}"
    for i, (j, similarity) in first_similar(keys, held_out).items():
        found.setdefault(i, f"{similarity:.2f} of its 5-grams shared with held-out {against[j].id}")


def _gold_key(question: Question, keys):
    """Catches the same question with other distractors; mere templates differ in their gold."""
    return keys.stem, option_key(question.options[question.answer])


def _partial_release(questions) -> dict:
    sizes = Counter((question.benchmark, question.split) for question in questions)
    wrong, count = [], 0
    for (name, split), n in sizes.items():
        official = RELEASES[name].rows.get(split) if name in RELEASES else None
        if official is not None and n != official:
            wrong.append(f"{name} {split}: {n} of {official}")
            count += abs(official - n)
    return _report_row("partial_release", count, wrong)


def _report_row(name: str, count: int, ids: list[str]) -> dict:
    check = CHECKS[name]
    return {
        "check": name,
        "action": check.action,
        "traps": check.traps,
        "count": count,
        "ids": ids,
        "meaning": check.meaning,
    }


def free_baselines(questions: Sequence[Question]) -> dict:
    """Rates in [0, 1] that cost nothing, to stand beside every accuracy.

    n counts the questions with a gold answer; with none, the three rates are None. Majority is measured on
    the same questions, so it is the best any constant letter can do.
    """
    labelled = [question for question in questions if question.answer]
    n = len(labelled)
    if not n:
        return {"n": 0, "chance": None, "majority_letter": None, "majority": None, "longest_option": None}
    letter, votes = max(sorted(Counter(q.answer for q in labelled).items()), key=lambda item: item[1])
    return {
        "n": n,
        "chance": math.fsum(1 / len(q.options) for q in labelled) / n,
        "majority_letter": letter,
        "majority": votes / n,
        "longest_option": sum(q.answer == longest_option(q) for q in labelled) / n,
    }


# ------------------------------------------------------------------------- the question files of a run


def write_splits(settings, source=None) -> list[dict]:
    """Write every split that a run trains and tests on, and its quarantine; one row per file.

    Training pools are curated against the test sets and then cut to the profile's size; test sets stay whole, because a
    score belongs to the whole set. source: folder of official raw files (the clinic needs none); None is the Hub.
    Files: questions/<benchmark>.<split>.jsonl and questions/quarantine.jsonl.
    """
    quarantined: list[Quarantined] = []

    def load(name, split):
        if extensions.has_questions(name):
            return extensions.questions_of(name, split), {"benchmark": name, "split": split}
        questions = load_benchmark(
            name, split, None if name in CLINIC_BENCHMARKS else source, quarantine=quarantined
        )
        return questions, {"benchmark": name, "split": split}

    tests = [load(name, "test" if name != "medmcqa" else "dev") for name in settings.benchmarks]
    rows = []
    for questions, row in tests:
        # a reader's own questions are never cut
        size = settings.test_size(row["benchmark"])
        kept = questions if extensions.has_questions(row["benchmark"]) else questions[:size]
        rows.append(row | {"split": "test", "questions": len(kept), "quarantined": 0})
        rows[-1]["file"] = str(write_questions(settings.questions_path(row["benchmark"], "test"), kept))
    held_out = [question for questions, _ in tests for question in questions]
    for split, n in (("sft", settings.n_sft), ("rl", settings.n_rl)):
        questions, row = load(settings.train_benchmark, split)
        curated = curate(questions, against=held_out)
        quarantined += curated.quarantined
        kept = curated.questions[:n]
        rows.append(row | {"questions": len(kept), "quarantined": len(curated.quarantined)})
        rows[-1]["file"] = str(
            write_questions(settings.questions_path(settings.train_benchmark, split), kept)
        )
    path = settings.run_dir / "questions" / "quarantine.jsonl"
    write_jsonl(path, [item.to_json() for item in quarantined])
    return rows


def ensure_splits(settings, source=None) -> None:
    """Write the run's question files unless they are there: a notebook opened by itself finds its questions."""
    wanted = [(settings.train_benchmark, "sft"), (settings.train_benchmark, "rl")]
    wanted += [(benchmark, "test") for benchmark in settings.benchmarks]
    if not all(settings.questions_path(*names).exists() for names in wanted):
        write_splits(settings, source)
