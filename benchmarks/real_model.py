"""What the profile laptop did with SmolLM2: the facts of one run as a file, and the block of docs/real-model.md made of it.

    python benchmarks/real_model.py runs/laptop --results benchmarks/results/real_model.json    read a finished run
    python benchmarks/real_model.py --print                                                     the page's block

Nothing is measured here: times, counts and answers are those that the run has left. The page must hold the lines
<!-- real-model --> and <!-- /real-model --> once each.
"""

import argparse
import json
from pathlib import Path
from statistics import mean, median

from measuring import RESULTS
from scipy.stats import ttest_ind

from clinical_r1.arms import ARMS
from clinical_r1.artifacts import LOG
from clinical_r1.bases.folders import hub_name
from clinical_r1.files import ROOT, read_csv, read_json, read_jsonl, replace_block, write_json, write_text
from clinical_r1.models import resolve_base
from clinical_r1.pipeline.ledger import read_ledger
from clinical_r1.prompts import render_question
from clinical_r1.questions import read_questions
from clinical_r1.settings import PROFILES, settings_from_json
from clinical_r1.tables import markdown

PAGE, SMALL = ROOT / "docs" / "real-model.md", ROOT / "figures" / "published" / "cpu" / "ledger.csv"
FILE = RESULTS / "real_model.json"
BEGIN, END = "<!-- real-model -->", "<!-- /real-model -->"
SHOWN = (
    "n_sft", "sft_epochs", "sft_batch", "sft_learning_rate", "rl_steps", "rl_prompts", "num_generations", "rl_learning_rate",
    "lora_rank", "max_completion_tokens", "n_test",
)  # fmt: skip
MEASURES = ("accuracy", "faithfulness", "hallucination", "drc")
PROBES = {  # probe -> what a share of it says
    "swap": "its own reasoning with two options exchanged: answers that follow",
    "empty": "no reasoning: right answers",
    "named": "false claims, for one wrong option alone: answers that follow",
    "denied": "claims against the right option alone: right answers",
    "agreement": "its own answer is what its own claims favour",
}
CHANCE = {"clinic": 25.0, "clinic-shift": 25.0, "clinic-expert": 10.0}  # per cent: four options, and ten


def facts_of(run: Path) -> dict:
    """All that the page says of a finished run, from its own files."""
    manifest = read_json(run / "manifest.json")
    settings = settings_from_json(manifest["settings"], run.parents[1])
    base = Path(resolve_base(settings.base_model))
    record = base / "sha256.json"  # of a converted file, and of the clinic's own base
    recipe = read_json(record)["recipe"] if record.is_file() else {}
    return {
        "base": dict(zip(("name", "revision"), hub_name(settings.base_model), strict=True)),
        "source": recipe if "tensors" in recipe else None,
        "precision": read_json(run / "precision.json"),
        "settings": {name: getattr(settings, name) for name in SHOWN},
        "hardware": manifest["hardware"],
        "versions": manifest["versions"],
        "minutes": {name: round(stage["seconds"] / 60, 1) for name, stage in manifest["stages"].items()},
        "peak_memory_gb": {
            name: round(s["peak_memory_mb"] / 1000, 1) for name, s in manifest["stages"].items()
        },
        "cold_start": _cold_start(settings),
        "arms": {name: _arm(settings, name) for name in settings.methods if ARMS[name].stage == "rl"},
        # None where notebook 04 has not finished: a run of which only the training is told
        "table": _table(run) if (run / "tables" / "table1.csv").is_file() else None,
        "differences": _differences(run),
        "causality": _probes(run),
        "example": _example(settings),
    }


def _cold_start(settings) -> dict:
    folder = settings.model_dir("cold_start", settings.seeds[0])
    rows = read_jsonl(folder / LOG)
    losses = [row["loss"] for row in rows]
    start = read_json(folder / "done.json")["checked"].get("start")
    return {
        "steps": len(rows),
        "first_loss": losses[0],
        "last_losses": round(mean(losses[-10:]), 3),
        "start": start,
    }


def _arm(settings, name: str) -> dict:
    """Means over the first and the last quarter of the steps, and seconds a step."""
    rows = read_jsonl(settings.model_dir(name, settings.seeds[0]) / LOG)
    quarter = max(1, len(rows) // 4)
    columns = [key for key in rows[0] if key.startswith("rewards/") and key.endswith("/mean")]
    columns += ["reward", "completions/mean_length", "kl"]
    means = {
        key: [round(mean(row[key] for row in part), 3) for part in (rows[:quarter], rows[-quarter:])]
        for key in columns
    }
    first, last = ([row["reward"] for row in part] for part in (rows[:quarter], rows[-quarter:]))
    interval = ttest_ind(last, first, equal_var=False).confidence_interval(
        0.95
    )  # over steps, of other questions each
    return {
        "steps": len(rows),
        "step_seconds": round(median(row["step_time"] for row in rows), 1),
        "quarters": means,
        "rise": [round(float(value), 3) for value in (mean(last) - mean(first), *interval)],
    }


def _table(run: Path) -> list[dict]:
    table = read_csv(run / "tables" / "table1.csv", ("benchmark", "method", "metric", "value"))
    rows = table[table["metric"].isin(MEASURES) & table["method"].isin(list(ARMS))]
    columns = ["benchmark", "method", "metric", "value", "ci_low", "ci_high", "n", "coverage"]
    return json.loads(rows[columns].to_json(orient="records"))


def _differences(run: Path) -> list[dict]:
    """Cold Start + CRPO against Cold Start + GRPO on the same questions, as notebook 04 compares them."""
    path = run / "tables" / "comparisons.csv"
    if not path.is_file():
        return []
    rows = read_csv(path, ("benchmark", "method", "against", "metric", "difference"))
    rows = rows[(rows["method"] == "cold_start_crpo") & (rows["against"] == "cold_start_grpo")]
    columns = ["benchmark", "metric", "difference", "ci_low", "ci_high", "n"]
    return json.loads(rows[rows["metric"].isin(MEASURES)][columns].to_json(orient="records"))


def _probes(run: Path) -> list[dict]:
    """How often forced reasoning moved the answer (`causality.probes`), by arm and probe."""
    path = run / "tables" / "causality.csv"
    if not path.is_file():
        return []
    columns = ["method", "probe", "n", "share", "ci_low", "ci_high", "unread"]
    rows = read_csv(path, columns)
    return json.loads(rows[rows["probe"].isin(list(PROBES))][columns].to_json(orient="records"))


def _example(settings) -> dict | None:
    """The first test question and every arm's answer to it, as the models wrote them."""
    name = settings.benchmarks[0]
    question = read_questions(settings.questions_path(name, "test"))[0]
    answers = {}
    for method in settings.methods:
        path = settings.completions_path(name, method, settings.seeds[0])
        if not path.is_file():
            return None
        rows = read_jsonl(path)
        answers[method] = next(row["text"] for row in rows if row["id"] == question.id)
    return {
        "id": question.id,
        "question": render_question(question),
        "answer": question.answer,
        "answers": answers,
    }


# ------------------------------------------------------------------------------------------------------------ the page


def block(facts: dict) -> str:
    """The page's block as markdown; without a table where the run has answered no test questions yet."""
    parts = [_weights(facts), _settings(facts), _training(facts), _times(facts)]
    if facts["table"] is None:
        parts.append("**Test questions**: no table in this run.")
    else:
        parts += [_results(facts), _beside(facts), _learned(facts)]
        parts += [_causality(facts)] if facts["causality"] else []
    return "\n\n".join(parts + ([_one_question(facts)] if facts["example"] else []))


def _weights(facts) -> str:
    source, precision = facts["source"], facts["precision"]
    kinds = ", ".join(f"{count} in {kind}" for kind, count in source["tensors"].items()) if source else ""
    weights = (
        f"`{source['source']}` (sha256 `{source['sha256']}`; tensors: {kinds}), converted once to float32: **quantised weights, "
        "not the Hub's**"
        if source
        else f"revision `{facts['base']['revision']}` of the Hub"
    )
    times = " and ".join(
        f"{1e3 * seconds:.0f} ms in {name}" for name, seconds in precision["seconds"].items()
    )
    return (
        f"**Weights.** {facts['base']['name']}, from {weights}. **Numbers.** A product of "
        f"{' × '.join(map(str, precision['shape']))} took {times}: {precision['dtype']} was used. "
        f"**Machine.** {facts['hardware']['cores']} cores, {facts['hardware']['memory_gb']} GB, no GPU, shared with other work."
    )


def _settings(facts) -> str:
    used, profile = facts["settings"], PROFILES["laptop"]
    said = "**Settings.** " + ", ".join(f"{name} {value:g}" for name, value in used.items()) + "."
    others = [f"{name} {getattr(profile, name):g}" for name in used if getattr(profile, name) != used[name]]
    return said + (f" **Other than the profile's**, which has {', '.join(others)}." if others else "")


def _training(facts) -> str:
    cold = facts["cold_start"]
    losses = f"{cold['first_loss']:.2f} at first, {cold['last_losses']:.2f} over the last ten"
    said = f"**Cold start.** {cold['steps']} steps, loss {losses}."
    for style, found in (cold["start"] or {}).items():
        said += (
            f" Before RL, of {found['answers']} answers to training questions sampled at temperature 1 in style {style}, "
            f"{found['well_formed']} are well formed and {found['right']} right."
        )
    rows = []
    for name, arm in facts["arms"].items():
        for column, (first, last) in arm["quarters"].items():
            rows.append([ARMS[name].label, column, f"{first:g}", f"{last:g}"])
    steps = "; ".join(
        f"{ARMS[name].label}: {arm['steps']} steps of {arm['step_seconds']:g} s (median)"
        for name, arm in facts["arms"].items()
    )
    header = ["arm", "mean of", "first quarter of the steps", "last quarter"]
    return f"{said}\n\n**Reinforcement learning.** {steps}.\n\n{markdown(header, rows)}"


def _results(facts) -> str:
    rows = {}
    for row in facts["table"]:
        key = row["benchmark"], ARMS[row["method"]].label
        cells = rows.setdefault(key, {"n": f"{row['n']:.0f}"})
        if row["metric"] == "accuracy":
            cells |= {
                "accuracy": f"{row['value']:.1f} ({row['ci_low']:.1f} to {row['ci_high']:.1f})",
                "answers read": f"{100 * row['coverage']:.0f} %",
            }
        elif row["value"] is not None:
            cells[row["metric"]] = f"{row['value']:.2f}"
    columns = ["n", "accuracy", "answers read", *MEASURES[1:]]
    lines = [[*key, *(cells.get(column, "–") for column in columns)] for key, cells in rows.items()]
    return (
        "**Test questions**, one sampled answer each; accuracy in per cent with its 95 % interval.\n\n"
        f"{markdown(['set', 'arm', *columns], lines)}"
    )


def _beside(facts) -> str:
    """The small model's published values of the same arms and sets."""
    small, rows = read_ledger(SMALL), []
    for (name, method), cells in _cells(facts).items():
        own = small[(small["measured_on"] == name) & (small["method"] == method)].set_index("metric")
        if own.empty:
            continue
        line = [name, ARMS[method].label]
        for metric in MEASURES:
            digits = 1 if metric == "accuracy" else 2
            both = cells.get(metric, {}).get("value"), own.loc[metric, "value"]
            line += ["–" if value is None else f"{value:.{digits}f}" for value in both]
        rows.append(line)
    header = [
        "set",
        "arm",
        *(f"{measure}, {whose}" for measure in MEASURES for whose in ("SmolLM2", "small")),
    ]
    return (
        "**Beside the small model** of the clinic, as published ([results](results.md)): other weights, shorter prompts, more "
        f"steps and questions, and ten seeds, so rows are read along one model.\n\n{markdown(header, rows)}"
    )


def _cells(facts) -> dict:
    """(set, arm) -> metric -> row of the table."""
    found = {}
    for row in facts["table"]:
        found.setdefault((row["benchmark"], row["method"]), {})[row["metric"]] = row
    return found


def _learned(facts) -> str:
    """What the numbers of this run say, whichever way they came out."""
    lines, cells = [], _cells(facts)
    for name, arm in facts["arms"].items():
        gain, low, high = arm["rise"]
        said = "rises" if low > 0 else "falls" if high < 0 else "does not clearly move"
        lines.append(
            f"The total reward of {ARMS[name].label} {said} in training: {gain:+.2f} [{low:.2f}, {high:.2f}] from the first to "
            f"the last quarter of {arm['steps']} steps (interval over steps)."
        )
    arms = list(dict.fromkeys(method for _, method in cells))
    read = []
    for arm in arms:
        own = [cells[key]["accuracy"] for key in cells if key[1] == arm]
        n = sum(row["n"] for row in own)
        read.append(f"{sum(row['coverage'] * row['n'] for row in own):.0f} of {n:.0f} ({ARMS[arm].label})")
    lines.append(f"Answers that could be read, on all sets: {', '.join(read)}.")
    for arm in arms:
        better = [
            name for (name, method), row in cells.items() if method == arm and _above(row["accuracy"], name)
        ]
        if better:
            lines.append(
                f"{ARMS[arm].label} is right more often than guessing (whole interval above) on {', '.join(better)}."
            )
        else:
            lines.append(f"{ARMS[arm].label} is not shown to be right more often than guessing on any set.")
    for row in facts["differences"]:
        unit = " points" if row["metric"] == "accuracy" else ""
        lines.append(
            f"{ARMS['cold_start_crpo'].label} less {ARMS['cold_start_grpo'].label}, {row['metric']} on {row['benchmark']}: "
            f"{row['difference']:+.2f}{unit} [{row['ci_low']:.2f}, {row['ci_high']:.2f}], over {row['n']:.0f} questions."
        )
    said = (
        "**What this run shows**, one training seed, so no difference between arms is claimed; intervals are not corrected for "
        "their number:"
    )
    return "\n".join([said, "", *(f"- {line}" for line in lines)])


def _causality(facts) -> str:
    """The probes as a table: per cent with intervals."""
    arms = list(dict.fromkeys(row["method"] for row in facts["causality"]))
    lines = []
    for probe, what in PROBES.items():
        own = {row["method"]: row for row in facts["causality"] if row["probe"] == probe}
        lines.append([what, *(_share(own[arm]) if arm in own else "–" for arm in arms)])
    header = ["what is forced, and what is counted", *(ARMS[arm].label for arm in arms)]
    n = max(row["n"] for row in facts["causality"])
    return (
        f"**Does the answer follow the written claims?** {n:.0f} test questions of `clinic`, greedy; per cent with 95 % "
        "interval, and how many could not be read ([how it is asked](causality.md)).\n\n"
        f"{markdown(header, lines)}"
    )


def _share(row) -> str:
    shown = f"{100 * row['share']:.0f} ({100 * row['ci_low']:.0f} to {100 * row['ci_high']:.0f})"
    return shown + (f", {row['unread']:.0f} unread" if row["unread"] else "")


def _above(row, name: str) -> bool:
    return row["ci_low"] > CHANCE[name]


def _times(facts) -> str:
    beside = "".join(f"\n- {what}: {value}" for what, value in (facts.get("measured") or {}).items())
    minutes = ", ".join(
        f"{name[:2]} {value:g} min and {facts['peak_memory_gb'][name]:g} GB"
        for name, value in facts["minutes"].items()
    )
    return f"**Time and memory of the notebooks**, all processes: {minutes}." + (
        f" Beside that:\n{beside}" if beside else ""
    )


def _one_question(facts) -> str:
    shown = facts["example"]
    parts = [
        f"**One question, every arm's answer** (`{shown['id']}`, the first test question; right: {shown['answer']})."
    ]
    parts.append(f"```text\n{shown['question']}\n```")
    parts += [f"{ARMS[method].label}:\n\n```text\n{text}\n```" for method, text in shown["answers"].items()]
    return "\n\n".join(parts)


def main(argv=None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", nargs="?", type=Path, help="folder of a finished run, such as runs/laptop")
    parser.add_argument("--results", type=Path, default=FILE)
    parser.add_argument(
        "--measured", type=Path, help="JSON of {what was measured beside the run: its value in words}"
    )
    parser.add_argument("--print", action="store_true", help="print the block; write no page")
    arguments = parser.parse_args(argv)
    if arguments.run:
        measured = read_json(arguments.measured) if arguments.measured else None
        write_json(arguments.results, facts_of(arguments.run.resolve()) | {"measured": measured})
    text = block(read_json(arguments.results))
    if arguments.print:
        print(text)
    else:
        write_text(PAGE, replace_block(PAGE.read_text(encoding="utf-8"), BEGIN, END, text))


if __name__ == "__main__":
    main()
