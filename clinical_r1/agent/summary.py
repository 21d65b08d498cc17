"""The small files that a page needs of a whole experiment: what `records` reads, made from the runs on disk.

Nothing is trained here. What is not on disk yet is evaluated, and transcripts are kept.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from clinical_r1.agent import policies
from clinical_r1.agent.arms import TEST_SPLIT, VALIDATION_SPLIT, AgentSettings
from clinical_r1.agent.consultation import Patient, Rules, draw_patients
from clinical_r1.agent.credit import anchor_statistics
from clinical_r1.agent.episodes import Episode
from clinical_r1.agent.experiment import EVALUATION_SEED, evaluate, policy_folder, speaker_of
from clinical_r1.agent.forest import chains
from clinical_r1.agent.measures import measure, measures, summary
from clinical_r1.agent.study import Plan, credit_rows, observe
from clinical_r1.artifacts import LOG, digest, hashes_of
from clinical_r1.files import read_jsonl

DENSITY_PATIENTS, DENSITY_EPISODES, DENSITY_SEED = 100, 8, 20251207
# Column of consultations.csv -> of a record of `measures.measure`
COLUMNS = {
    "right": "right",
    "answered": "answered",
    "turns": "turns",
    "asks": "asks",
    "examinations": "examinations",
    "tests": "tests",
    "cost": "cost",
    "reward": "return",
    "gain": "information_gain",
    "invalid": "invalid",
    "repeats": "repeats",
    "covered": "coverage",
    "premature": "premature_closure",
}
# Column of training.csv -> of TRL's log
LOGGED = {
    "right": "agent/right",
    "answered": "agent/answered",
    "reward": "reward",
    "turns": "agent/turns",
    "inquiries": "agent/inquiries",
    "invalid": "agent/invalid",
    "repeated": "anchors/repeated",
    "alone": "anchors/alone",
    "informative": "anchors/informative",
}
TOKENS = {"sampled": "agent/sampled_tokens", "trained": "agent/trained_tokens"}  # of a step; summed up here


def reference_rows(settings: AgentSettings, reps_seed: int = EVALUATION_SEED) -> list[dict]:
    """references.csv: what each reference policy does with the test patients."""
    patients = draw_patients(TEST_SPLIT, settings.test, EVALUATION_SEED, settings.rules.menu)
    rows = []
    for name, policy in policies.POLICIES.items():
        rng = np.random.default_rng(reps_seed)
        played = [policies.play(patient, settings.rules, policy, rng) for patient in patients]
        histories = [
            (patient, settings.rules, [turn.text for turn in each.turns])
            for patient, each in zip(patients, played, strict=True)
        ]
        rows += [{"setting": settings.name, "policy": name, **row} for row in summary(measures(histories))]
    return rows


def consultation_rows(settings: AgentSettings) -> list[dict]:
    """consultations.csv: every test consultation of the start, of each finished arm, and of forests at equal trained tokens."""
    patients = {
        patient.id: patient
        for patient in draw_patients(TEST_SPLIT, settings.test, EVALUATION_SEED, settings.rules.menu)
    }
    rows = _evaluated(settings, patients, evaluate(settings, None), "start", 0, "start")
    for arm in settings.arms:
        for seed in settings.seeds:
            rows += _evaluated(settings, patients, evaluate(settings, arm, seed), arm, seed, "sampled")
            equal = settings.steps if settings.steps_of(arm) != settings.steps else None
            at = evaluate(settings, arm, seed, equal)
            rows += _evaluated(settings, patients, at, arm, seed, "trained")
    return rows


def _evaluated(settings, patients, episodes, arm, seed, budget) -> list[dict]:
    rows = []
    for episode in episodes:
        record = measured(episode, patients[episode.patient], settings.rules)
        for share in ("invalid", "repeats"):  # the table counts turns
            record[share] = round(record[share] * record["turns"])
        row = {
            "setting": settings.name,
            "arm": arm,
            "seed": seed,
            "budget": budget,
            "patient": episode.patient,
        }
        rows.append(row | {name: _number(record[key]) for name, key in COLUMNS.items()})
    return rows


def measured(episode: Episode, patient: Patient, rules: Rules) -> dict:
    """The record of an episode; a turn that was cut is not understood, whatever it says so far."""
    return measure(patient, rules, [turn.text if turn.ended else "" for turn in episode.turns])


def _number(value):
    return None if value is None else float(value)


def training_rows(settings: AgentSettings) -> list[dict]:
    """training.csv: a row a step of every finished arm and seed."""
    rows = []
    for arm in settings.arms:
        for seed in settings.seeds:
            policy_folder(settings, arm, seed)  # refuses an arm that is not finished
            total = dict.fromkeys(TOKENS, 0)
            for row in read_jsonl(settings.model_dir(arm, seed) / LOG):
                kept = {name: row.get(key) for name, key in LOGGED.items()}
                total = {name: total[name] + row[key] for name, key in TOKENS.items()}
                named = {"setting": settings.name, "arm": arm, "seed": seed, "step": row["step"]}
                rows.append(named | kept | total)
    return rows


# ---------------------------------------------------------------------------------------------------------- stages of a policy


def stages(settings: AgentSettings, arm: str, seed: int) -> dict[str, Path]:
    """The start, the arm half-way, and the arm trained: folders of three policies."""
    half = settings.steps // 2 // settings.save_steps * settings.save_steps
    return {
        "start": policy_folder(settings, None),
        "half": policy_folder(settings, arm, seed, half),
        "trained": policy_folder(settings, arm, seed),
    }


def density_rows(
    settings: AgentSettings, folders: Mapping[str, Path], menus: Sequence[int | None]
) -> list[dict]:
    """density.csv: how often states repeat, beyond the first and among valid turns, with a menu and without."""
    rows = []
    for stage, folder in folders.items():
        speaker = speaker_of(folder, settings.temperature)
        for menu in menus:
            rules = Rules(**settings.rules.to_json() | {"menu": menu})
            patients = draw_patients(VALIDATION_SPLIT, DENSITY_PATIENTS, DENSITY_SEED, menu)
            episodes = chains(speaker, patients, rules, DENSITY_EPISODES, DENSITY_SEED).episodes
            counted = anchor_statistics(
                [[turn.key for turn in episode.turns] for episode in episodes],
                [episode.patient for episode in episodes],
                [[turn.problem is None for turn in episode.turns] for episode in episodes],
            )
            row = {"menu": "open" if menu is None else menu, "stage": stage, "alone": counted["singletons"]}
            row |= {"repeated": counted["repeated"], "size": counted["mean_group"], "turns": counted["turns"]}
            rows.append(row | {"patients": len(patients)})
    return rows


def credit_table_rows(
    settings: AgentSettings, folders: Mapping[str, Path], menus: Sequence[int | None], plan: Plan
) -> list[dict]:
    """credit.csv: agreement of every estimator with the truth, for each policy and menu."""
    rows = []
    for stage, folder in folders.items():
        for menu in menus:
            rules = Rules(**settings.rules.to_json() | {"menu": menu})
            patients = draw_patients(VALIDATION_SPLIT, plan.patients, plan.seed, menu)
            made = {
                "policy": digest(str(sorted(hashes_of(folder).items()))),
                "temperature": settings.temperature,
            }
            kept = settings.run_dir / "study" / f"{stage}.{menu or 'open'}"
            observed = observe(speaker_of(folder, settings.temperature), patients, rules, plan, kept, made)
            named = {"stage": stage, "menu": "open" if menu is None else menu}
            rows += [named | row for row in credit_rows(observed, plan, np.random.default_rng(plan.seed))]
    return rows
