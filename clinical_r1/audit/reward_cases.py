"""The rewards and the exact judge on the same completions: a few written by hand, many written by a model.

P questions with G completions each, N = P * G; the completions of a question stand together. Ours, for notebook 02.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from clinical_r1.advantages import group_advantages
from clinical_r1.audit.redteam import official_rule_score
from clinical_r1.completions import parse_completion
from clinical_r1.labels import objective_label
from clinical_r1.prompts import render_question
from clinical_r1.questions import Question
from clinical_r1.rewards import REWARD_SETS, RewardSet
from clinical_r1.score import exact_judge

MEASURES = {"true claims": "faithfulness", "false claims": "hallucination", "options rejected": "drc"}


def judge_groups(
    questions: Sequence[Question], groups: Sequence[Mapping], reward_set: RewardSet | None = None
):
    """What each reward pays and what the exact judge counts: one row per completion, N rows.

    groups: per question {name: completion}, G each. Columns: question (id), completion (name), letter ("" for none), problems,
    the K rewards by their labels, total (equation 4), advantage (equation 3, among the G of its question), released rule
    (of GRPO, in our transcription), MEASURES, and tied: are all G right, or all wrong? reward_set: None takes CRPO's.
    """
    import pandas as pd

    rewards, tables = reward_set or REWARD_SETS["crpo"], []
    for question, group in zip(questions, groups, strict=True):
        texts = list(group.values())
        parsed = [parse_completion(text, options=question.options) for text in texts]
        table = pd.DataFrame({"question": question.id, "completion": list(group)})
        table["letter"] = [one.letter or "" for one in parsed]
        table["problems"] = [", ".join(one.problems) for one in parsed]
        matrix = reward_matrix(question, texts, rewards)
        for name, values in zip(rewards.names, matrix.T, strict=True):
            table[objective_label(name)] = values
        table["total"] = matrix @ rewards.weights
        table["advantage"] = group_advantages(matrix, rewards.weights, num_generations=len(texts)).numpy()
        table["released rule"] = [official_rule_score(text, question.answer) for text in texts]
        judged = [exact_judge(question, text) for text in texts]
        for name, measure in MEASURES.items():
            table[name] = [counts.get(measure) for counts in judged]
        right = table["letter"] == question.answer
        tables.append(table.assign(tied=bool(right.all() or not right.any())))
    return pd.concat(tables, ignore_index=True)


def reward_matrix(question: Question, texts: Sequence[str], rewards: RewardSet) -> np.ndarray:
    """(G, K) rewards of completions of one question, as in training; NaN where one cannot be scored."""
    columns = {"answer": question.answer, "options": question.options, "prompts": render_question(question)}
    given = {name: [value] * len(texts) for name, value in columns.items()}
    return np.array([reward(list(texts), **given) for reward in rewards.functions], dtype=float).T


def advantage_follows(table, columns: Sequence[str]):
    """How closely the advantage follows each column: frame number (of groups), one correlation a column; rows mixed, tied.

    Correlations over completions, of the advantage with the column less its mean in its group; NaN where it never varies.
    table: from `judge_groups`.
    """
    import pandas as pd

    rows = []
    for name, tied in (("mixed", False), ("tied", True)):
        part = table[table["tied"] == tied]
        centred = part[list(columns)] - part.groupby("question")[list(columns)].transform("mean")
        found = {column: _correlation(centred[column], part["advantage"]) for column in columns}
        rows.append({"groups": name, "number": part["question"].nunique()} | found)
    return pd.DataFrame(rows).set_index("groups")


def means_by_completion(table):
    """Means over questions of every number, a row per name of a completion, in the order of the first question's group."""
    numbers = table.drop(columns="tied").select_dtypes("number")
    return numbers.groupby(table["completion"], sort=False).mean()


def by_false_claims(table, most: int = 3):
    """Answers by how many false claims they make, `most` and more in one row: frame answers, and means of total and MEASURES."""
    kept = (
        table["false claims"]
        .clip(upper=most)
        .map(lambda count: f"{count} or more" if count == most else str(count))
    )
    means = table.groupby(kept.rename("claims that are false"))[["total", *MEASURES]].mean()
    means.insert(0, "answers", kept.value_counts())
    return means


def _correlation(values, advantages) -> float:
    varies = len(values) > 1 and np.ptp(values) > 1e-9 and np.ptp(advantages) > 1e-9
    return float(np.corrcoef(values, advantages)[0, 1]) if varies else np.nan


# ------------------------------------------------------------------------------------------------------- completions


def base_completions(
    questions: Sequence[Question], samples: int = 8, seed: int = 0
) -> tuple[list[dict[str, str]], str]:
    """G completions per question by the clinic's base model, from which training starts, and who wrote them, in words.

    Drawn as at evaluation, each from a seed of its own, so that the same call gives the same texts. A base model whose tokenizer
    does not know the questions' words cannot be asked: then a script with its habits writes them, which the words say.
    """
    from clinical_r1.engines.protocol import seed_of
    from clinical_r1.generate import load_method
    from clinical_r1.prompts import build_messages
    from clinical_r1.settings import settings_for

    settings = settings_for("cpu")
    engine = load_method(settings, "baseline", 0)
    prompts = [
        engine.prompt(build_messages(question, "crpo", settings.prompt_layout)) for question in questions
    ]
    try:
        engine.check(prompts, settings, "these questions")
    except ValueError as error:
        why = str(error).partition(":")[0]
        return scripted_completions(questions, samples, seed), f"a script, not a model ({why})"
    asked = [prompt for prompt in prompts for _ in range(samples)]
    seeds = [
        seed_of(seed, question.benchmark, question.id, i) for question in questions for i in range(samples)
    ]
    texts = iter([answer["text"] for answer in engine.answer(asked, settings, "sampled", seeds)])
    groups = [{f"sample {i + 1}": next(texts) for i in range(samples)} for _ in questions]
    return (
        groups,
        f"the clinic's base model, from which training starts, at temperature {settings.eval_temperature}",
    )


def scripted_completions(questions: Sequence[Question], samples: int, seed: int) -> list[dict[str, str]]:
    """The same shape, written by the script that the base model learnt from: often hasty, sometimes wrong."""
    from clinical_r1.clinic.cases import Case
    from clinical_r1.clinic.traces import BASE, write_trace

    rng = np.random.default_rng(seed)
    cases = [Case.from_json(question.meta["case"]) for question in questions]
    return [
        {f"sample {i + 1}": write_trace(case, "crpo", BASE, rng) for i in range(samples)} for case in cases
    ]
