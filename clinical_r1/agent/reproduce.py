"""`./reproduce.sh agent`: learning rates on validation, the gate, every arm of every setting, evaluation, credit against the
truth, and a summary small enough to commit. Resumable: what is finished on disk is kept.
"""

import json
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from clinical_r1.agent import records, summary
from clinical_r1.agent.arms import EXPERIMENTS, RATES, SPARE_SEED, AgentSettings
from clinical_r1.agent.checks import is_number, is_whole
from clinical_r1.agent.experiment import check_gate, policy_folder, train_all, tune
from clinical_r1.agent.study import Plan
from clinical_r1.agent.train import made_from
from clinical_r1.artifacts import digest
from clinical_r1.files import PipelineError, read_json, write_json

MAIN = "main"
TUNING = (
    "tuning.json"  # of the main setting's run; in the package, what its published agents were trained with
)
STAGED_ARM = "gigpo"  # whose start, half-way and trained policies credit is measured under
MENUS = (8, None)
PLAN = Plan()


def settings_of(name: str, out: str | Path, seeds: int | None = None) -> AgentSettings:
    """An experiment by name, kept under `out`. seeds: its first so many; None: all it has. ValueError for another name."""
    if name not in EXPERIMENTS:
        raise ValueError(f"got the setting {name!r}; expected one of {', '.join(EXPERIMENTS)}.")
    found = replace(EXPERIMENTS[name], out=str(out))
    if seeds is not None and not is_whole(seeds, 1, len(found.seeds)):
        raise ValueError(f"got --seeds {seeds!r}; expected 1 to {len(found.seeds)}, the seeds of {name}.")
    return replace(found, seeds=found.seeds[:seeds])


def reproduce(
    out: str | Path,
    names: Sequence[str] = tuple(EXPERIMENTS),
    seeds: int | None = None,
    summary_only: bool = False,
    publish: bool = False,
    git: Mapping | None = None,
    plan: Plan = PLAN,
    workers: int = 2,
) -> list[Path]:
    """Run the experiments, summarise them in runs/agent/summary; publish copies the summary into the package.

    summary_only: train nothing; PipelineError where something is not trained yet. git: {"sha", "dirty"}, for the record.
    """
    names = tuple(dict.fromkeys(names))  # named twice, run once
    if not names:
        raise ValueError(f"got no settings; expected some of {', '.join(EXPERIMENTS)}.")
    for name in names:
        check_checkpoints(settings_of(name, out))  # a name that is none, too, before anything is tuned
    begun = time.monotonic()
    main = settings_of(MAIN, out, seeds)
    rates, tuning = _rates(main, summary_only, workers)
    chosen = [
        replace(settings_of(name, out, seeds if name == MAIN else None), learning_rates=rates)
        for name in names
    ]
    for settings in chosen if not summary_only else ():
        if settings.gate is not None:
            print(f"{settings.name}: {_said(check_gate(settings))}", flush=True)
        train_all(settings, workers)
    return _written(out, _frames(chosen, tuning, plan), chosen, begun, publish, git)


def reproduce_start(
    out: str | Path,
    names: Sequence[str] = tuple(EXPERIMENTS),
    publish: bool = False,
    git: Mapping | None = None,
    plan: Plan = PLAN,
) -> list[Path]:
    """What can be measured before any arm is trained: reference policies, how often states come again, and credit against the
    truth, both under the start. Written, and published, as a summary without the rest.
    """
    begun, chosen = time.monotonic(), [settings_of(name, out) for name in dict.fromkeys(names)]
    frames = {"references": _frame(row for settings in chosen for row in summary.reference_rows(settings))}
    main = settings_of(MAIN, out)
    folders = {"start": policy_folder(main, None)}
    frames["density"] = _frame(summary.density_rows(main, folders, MENUS))
    frames["credit"] = _frame(summary.credit_table_rows(main, folders, MENUS, plan))
    return _written(out, frames, chosen, begun, publish, git)


def _frame(rows):
    import pandas as pd

    return pd.DataFrame(list(rows))


def _written(out, frames, chosen, begun: float, publish: bool, git) -> list[Path]:
    told = [{key: value for key, value in s.to_json().items() if key != "out"} for s in chosen]
    record = {"git": dict(git or {"sha": None, "dirty": None}), "settings": told}
    record["seconds"] = round(time.monotonic() - begun, 1)
    paths = records.write_agent(Path(out) / "runs" / "agent" / "summary", frames, record)
    for path in paths:
        print(f"  {path.stat().st_size / 1000:8.1f} kB  {path.name}")
        if publish:
            records.SHIPPED.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, records.SHIPPED / path.name)
    return paths


def check_checkpoints(settings: AgentSettings) -> None:
    """ValueError where a checkpoint that is evaluated in the end would never be saved."""
    steps, every = settings.steps, settings.save_steps
    if settings.name == MAIN and every > steps // 2:
        raise ValueError(
            f"{settings.name} makes {steps} steps and saves every {every}; expected a checkpoint half-way: lower save_steps."
        )
    forests = [arm for arm in settings.arms if settings.steps_of(arm) != steps]
    if forests and steps % every:
        raise ValueError(
            f"{settings.name} makes {steps} steps, saves every {every} and compares {', '.join(forests)} at step {steps}; "
            "expected steps that are a multiple of save_steps."
        )


def _said(found: Mapping) -> str:
    return (
        f"the start returns {found['return']:.3f} a consultation, {found['at_once']:.3f} when it diagnoses at once "
        f"({found['patients']} patients)"
    )


def _rates(main: AgentSettings, summary_only: bool, workers: int) -> tuple[dict[str, float], list[dict]]:
    """(arm -> the rate with the largest return on validation, rows of tuning.csv); kept in tuning.json."""
    path = main.run_dir / TUNING
    every = replace(main, arms=EXPERIMENTS[MAIN].arms)
    stamp = _tuned_from(every)
    if not path.exists() and (given := _given_tuning(stamp)):
        print(
            f"learning rates: those that came with the package, tuned with this very code ({given})",
            flush=True,
        )
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(given, path)
    if not path.exists():
        if summary_only:
            raise PipelineError(f"{path} is missing: no learning rate was tuned; run without --summary-only.")
        write_json(path, {"made_from": stamp, "returns": tune(every, RATES, SPARE_SEED, workers)})
    read = read_json(path)
    if read.get("made_from") != stamp:
        raise ValueError(
            f"{path} was tuned with another start, code or settings; expected today's: move it away to tune again."
        )
    _check_tuning(path, kept := read.get("returns") or {})
    found = {arm: {float(rate): value for rate, value in values.items()} for arm, values in kept.items()}
    rows = [
        {"setting": main.name, "arm": arm, "rate": rate, "value": value, "patients": main.validation}
        for arm, values in found.items()
        for rate, value in values.items()
    ]
    return {arm: max(values, key=values.get) for arm, values in found.items()}, rows


def _given_tuning(stamp: str) -> Path | None:
    """The package's own tuning, if it was made with this code, start and settings."""
    path = records.SHIPPED / TUNING
    return path if path.exists() and read_json(path).get("made_from") == stamp else None


def tune_rates(out: str | Path, publish: bool = False, workers: int = 2) -> dict[str, float]:
    """arm -> its learning rate, each of RATES tried with the spare seed; publish copies the returns into the package."""
    main = settings_of(MAIN, out)
    check_checkpoints(main)
    rates, rows = _rates(main, False, workers)
    for row in rows:
        chosen = " (taken)" if rates[row["arm"]] == row["rate"] else ""
        print(f"{row['arm']:14} rate {row['rate']:g}: returns {row['value']:.3f} on validation{chosen}")
    if publish:
        records.SHIPPED.mkdir(parents=True, exist_ok=True)
        shutil.copy(main.run_dir / TUNING, records.SHIPPED / TUNING)
    return rates


def _tuned_from(settings: AgentSettings) -> str:
    """A digest of all that the tuned returns depend on; which rates were tried is in the file itself."""
    rated = replace(settings, learning_rates=dict.fromkeys(settings.arms, RATES[0]))
    parts = [made_from(rated, arm, SPARE_SEED) for arm in settings.arms]
    return digest(json.dumps([*parts, settings.validation, list(RATES)]))


def _check_tuning(path: Path, kept: Mapping) -> None:
    """ValueError unless every arm of the main setting has returns by rate, as `tune` gives them."""
    for arm in EXPERIMENTS[MAIN].arms:
        values = kept.get(arm)
        if not isinstance(values, dict) or not values or not all(map(is_number, values.values())):
            raise ValueError(
                f"{path} has {values!r} for {arm}; expected a finite return for each rate: move it away to tune again."
            )


def _frames(chosen: Sequence[AgentSettings], tuning: list[dict], plan: Plan) -> dict:
    frames = {
        "references": [row for settings in chosen for row in summary.reference_rows(settings)],
        "consultations": [row for settings in chosen for row in summary.consultation_rows(settings)],
        "training": [row for settings in chosen for row in summary.training_rows(settings)],
        "tuning": tuning,
    }
    main = next((settings for settings in chosen if settings.name == MAIN), None)
    if main is not None:
        folders = summary.stages(main, STAGED_ARM, main.seeds[0])
        frames["density"] = summary.density_rows(main, folders, MENUS)
        frames["credit"] = summary.credit_table_rows(main, folders, MENUS, plan)
    return {name: _frame(rows) for name, rows in frames.items()}
