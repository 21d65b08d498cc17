"""The chain RL -> conversation -> preferences from end to end: trained, asked in both prompts, and what each arm says counted."""

from collections.abc import Sequence
from dataclasses import replace

from clinical_r1.arms import ARMS, CHAT, in_order
from clinical_r1.clinic.cases import load_set
from clinical_r1.files import read_stamped, write_text
from clinical_r1.generate import complete, load_method
from clinical_r1.preferences.measures import measure_answers, summarise
from clinical_r1.preferences.stages import chat_answers
from clinical_r1.preferences.verdicts import ClinicGraph
from clinical_r1.questions import read_questions, write_questions
from clinical_r1.settings import CPU, SMOKE, Settings
from clinical_r1.train import train_all

BENCHMARK = "clinic"
CHAIN = ("crpo", "chat_sft", "kg_dpo", "sft_on_chosen")
# Sizes of a run: 60 steps of RL are enough for its format, 1,500 conversations for its loss
SIZES = {
    "smoke": replace(
        SMOKE, profile="preferences-smoke", n_sft=96, n_rl=40, n_test=12, sft_batch=8, sft_epochs=2.0, max_completion_tokens=64,
        eval_batch=64,
    ),
    "cpu": replace(CPU, profile="preferences", rl_steps=60, n_sft=1500, n_rl=2000, n_test=500),
}  # fmt: skip


def preference_settings(
    size: str = "cpu", out: str = ".", seeds: Sequence[int] = (0,), arms: Sequence[str] = CHAIN
) -> Settings:
    """The settings of a run. ValueError for a size that is not known, or an arm without a place in the chain."""
    if size not in SIZES:
        raise ValueError(f"size {size!r} is not known; expected one of {', '.join(SIZES)}.")
    known = [arm.name for arm in ARMS.values() if arm.family in ("preferences", "low_data")]
    if wrong := [arm for arm in arms if arm not in (*known, "crpo")]:
        raise ValueError(f"arms {wrong} are not part of this; expected some of crpo, {', '.join(known)}.")
    methods = tuple(in_order(arms))
    changes = {"out": str(out), "seeds": tuple(seeds), "methods": methods, "benchmarks": (BENCHMARK,)}
    return replace(SIZES[size], **changes)


def write_clinic(settings: Settings, split: str = "test") -> None:
    """The clinic's questions of a run, where they are not there yet. split: of what is asked, "validation" or "test".

    ValueError where a file holds others, such as another split's.
    """
    sizes = {"sft": (settings.n_sft, "sft"), "rl": (settings.n_rl, "rl"), split: (settings.n_test, "test")}
    for name, (n, role) in sizes.items():
        path = settings.questions_path(BENCHMARK, role)
        if not path.exists():
            write_questions(path, load_set(BENCHMARK, name, n))
        there = read_questions(path)
        stems = [question.stem for question in load_set(BENCHMARK, name, 5)]
        if len(there) != n or [question.stem for question in there[:5]] != stems[:n]:
            first = there[0].id if there else "none"
            raise ValueError(
                f"{path} holds {len(there)} questions, the first {first}; expected {n} of split {name}: take another --out."
            )


def run(settings: Settings, split: str = "test"):
    """Train, ask and measure; resumable. Returns the frame of `measures.summarise`, which is written to tables/stages.csv."""
    write_clinic(settings, split)
    train_all(settings)
    questions = read_questions(settings.questions_path(BENCHMARK, "test"))
    records = []
    for seed in settings.seeds:
        for arm in settings.methods:
            engine = load_method(settings, arm, seed)
            for path in (
                chat_answers(settings, engine, arm, seed, BENCHMARK),
                complete(settings, engine, arm, seed, BENCHMARK, "greedy"),
            ):
                rows = [row | {"arm": arm} for row in read_stamped(path, "generate")]
                records += measure_answers(rows, questions, ClinicGraph())
    table = summarise(records)
    write_text(settings.run_dir / "tables" / "stages.csv", table.to_csv(index=False))
    return table


def shown(table, style: str = CHAT) -> str:
    """A table of all questions and of unseen families, a row an arm, for the terminal."""
    rows = table[table["style"] == style]
    whole = rows[rows["scope"] == "all"].pivot(index="arm", columns="measure", values="value")
    names = ["accuracy", "coverage", "tokens", "true", "invented", "inverted", "false", "false_share"]
    whole = whole.reindex(index=rows["arm"].unique(), columns=names)
    unseen = rows[(rows["scope"] == "unseen families") & (rows["measure"] == "false_share")]
    whole["unseen families"] = unseen.set_index("arm")["value"]
    return whole.round(2).to_string()
