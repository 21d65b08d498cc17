"""A whole comparison of agents: gate, trainings, evaluations; each of it on disk, resumable (`./reproduce.sh agent`).

The gate comes before any training: where a policy's consultations return less than its own diagnosis at once, reinforcement
learning teaches it to stop inquiring, whatever the estimator.
"""

import json
import subprocess
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from copy import copy
from dataclasses import replace
from pathlib import Path

from clinical_r1.agent.arms import TEST_SPLIT, VALIDATION_SPLIT, AgentSettings
from clinical_r1.agent.checks import check_settings, check_start, is_number
from clinical_r1.agent.consultation import (
    DIAGNOSE,
    SUSPECT,
    Patient,
    Rules,
    draw_patients,
    read_action,
)
from clinical_r1.agent.episodes import Episode
from clinical_r1.agent.forest import chains, prompt_ids
from clinical_r1.agent.policies import check_costs
from clinical_r1.agent.rollouts import record
from clinical_r1.agent.speaking import Speaker, seed_of
from clinical_r1.agent.train import is_trained, start_folder
from clinical_r1.artifacts import digest, hashes_of
from clinical_r1.files import PipelineError, write_json
from clinical_r1.models import load_tokenizer
from clinical_r1.trainer import whole_checkpoints
from clinical_r1.workers import start_child

EVALUATION_SEED, GATE_SEED, GATE_PATIENTS = 20251203, 20251204, 200
COSTS_PATIENTS = 40  # whose exact best and guessed returns are compared


def speaker_of(folder: Path | str, temperature: float = 1.0) -> Speaker:
    """The agent in a folder, ready to speak."""
    from transformers import AutoModelForCausalLM

    return Speaker(
        AutoModelForCausalLM.from_pretrained(folder).eval(), load_tokenizer(str(folder)), temperature
    )


# ------------------------------------------------------------------------------------------------------------- the gate


def forced_diagnoses(
    speaker: Speaker, patients: Sequence[Patient], rules: Rules, seed: int
) -> list[str | None]:
    """What the agent diagnoses when it is made to at once: its own hypothesis, then "diagnose", then its own word for what."""
    tokenizer = speaker.tokenizer
    contexts = [list(prompt_ids(tokenizer, patient, rules)) for patient in patients]
    word = copy(speaker)
    word.tokens = 1
    for given in (SUSPECT, DIAGNOSE):
        contexts = [c + tokenizer(given, add_special_tokens=False)["input_ids"] for c in contexts]
        seeds = [seed_of(seed, patient.id, given) for patient in patients]
        contexts = [c + said for c, said in zip(contexts, word(contexts, seeds), strict=True)]
    texts = [tokenizer.decode(c[-4:], skip_special_tokens=True) for c in contexts]
    return [action.object if (action := read_action(text)) else None for text in texts]


def gate(
    speaker: Speaker, patients: Sequence[Patient], rules: Rules, margin: float, seed: int = GATE_SEED
) -> dict:
    """{"return", "at_once", "margin", "patients"}: mean return of one consultation a patient, and of a diagnosis at once.

    A diagnosis at once costs nothing, and is right or not. PipelineError, with both numbers, unless the first is ahead by
    `margin`.
    """
    if not patients or not is_number(margin):
        raise ValueError(
            f"got a margin of {margin!r} and {len(patients)} patients; expected a finite number, and at least one patient."
        )
    episodes = chains(speaker, patients, rules, 1, seed).episodes
    earned = sum(episode.reward for episode in episodes) / len(episodes)
    at_once = forced_diagnoses(speaker, patients, rules, seed)
    right = sum(d == p.gold for d, p in zip(at_once, patients, strict=True)) / len(patients)
    found = {"return": earned, "at_once": right, "margin": margin, "patients": len(patients)}
    if earned < right + margin:
        raise PipelineError(
            f"the start returns {earned:.3f} a consultation and {right:.3f} when it diagnoses at once ({len(patients)} patients "
            f"each); expected at least {margin} more for the consultation, or training teaches it to stop asking: lower costs, "
            "raise `earliest`, or teach the start to read what it is told."
        )
    return found


def check_gate(settings: AgentSettings) -> dict:
    """`gate` of the settings' start, on validation patients that nothing else sees; kept in gate.json.

    ValueError where even the best agent would earn no more than by guessing: the costs are too high for anybody.
    """
    check_settings(settings)
    check_start(start_folder(settings))
    patients = draw_patients(VALIDATION_SPLIT, GATE_PATIENTS, GATE_SEED, settings.rules.menu)
    check_costs(settings.rules, patients[:COSTS_PATIENTS])
    found = gate(
        speaker_of(start_folder(settings), settings.temperature), patients, settings.rules, settings.gate
    )
    write_json(settings.run_dir / "gate.json", found)
    return found


# -------------------------------------------------------------------------------------------------------------- training


def train_all(settings: AgentSettings, workers: int = 2) -> None:
    """Every arm and seed that is not finished, seed by seed, each in a process of its own.

    PipelineError names the arm, its log file and the log's last lines; arms that finished stay finished.
    """
    from tqdm.auto import tqdm

    check_settings(settings)
    check_start(start_folder(settings))  # once, before any process is started
    jobs = [(arm, seed) for seed in settings.seeds for arm in settings.arms]
    waiting = [job for job in jobs if not is_trained(settings, *job)]
    with ThreadPoolExecutor(workers) as pool, tqdm(total=len(jobs), desc="agents trained", unit="arm") as bar:
        bar.update(len(jobs) - len(waiting))
        futures = [pool.submit(_train_in_child, settings, *job) for job in waiting]
        try:
            for future in as_completed(futures):
                future.result()
                bar.update()
        except BaseException:
            pool.shutdown(cancel_futures=True, wait=False)
            raise


def _train_in_child(settings: AgentSettings, arm: str, seed: int) -> None:
    folder = settings.model_dir(arm, seed)
    folder.mkdir(parents=True, exist_ok=True)
    arguments = [
        "--settings",
        json.dumps(settings.to_json()),
        "--arm",
        arm,
        "--seed",
        str(seed),
        "--with-parent",
    ]
    with open(folder / "train.log", "a", encoding="utf-8") as log:
        pipes = {"stdout": log, "stderr": subprocess.STDOUT}
        with start_child("clinical_r1.agent.train", *arguments, **pipes) as child:
            code = child.wait()
    if code:
        tail = (folder / "train.log").read_text(encoding="utf-8").splitlines()[-12:] or ["nothing was said"]
        raise PipelineError(
            f"training {arm} with seed {seed} ended with exit status {code} ({tail[-1]}); see {folder / 'train.log'}:\n"
            + "\n".join(tail)
        )


# ------------------------------------------------------------------------------------------------------------ evaluation


def policy_folder(settings: AgentSettings, arm: str | None, seed: int = 0, step: int | None = None) -> Path:
    """Where a policy lies: the start (arm None), a finished arm, or its checkpoint at a step. FileNotFoundError where none is."""
    if arm is None:
        return start_folder(settings)
    folder = settings.model_dir(arm, seed)
    finished = is_trained(
        settings, arm, seed
    )  # a checkpoint that was made from something else is refused too
    if step is None:
        if not finished:
            raise FileNotFoundError(
                f"{arm} with seed {seed} is not trained in {settings.run_dir}; train it first."
            )
        return folder / "policy"
    found = [path for path in whole_checkpoints(folder / "checkpoints") if path.name == f"checkpoint-{step}"]
    if not found:
        raise FileNotFoundError(
            f"{folder} has no whole checkpoint of step {step}; save_steps is {settings.save_steps}."
        )
    return found[0]


def evaluate(
    settings: AgentSettings, arm: str | None, seed: int = 0, step: int | None = None, split: str = TEST_SPLIT
) -> list[Episode]:
    """One consultation with each patient of a split, drawn at the settings' temperature; kept as transcripts.

    All policies meet the same patients, and draw with the same seeds.
    """
    check_settings(settings)
    folder = policy_folder(settings, arm, seed, step)
    if arm is None:
        check_start(folder)
    n = settings.test if split == TEST_SPLIT else settings.validation
    patients = draw_patients(split, n, EVALUATION_SEED, settings.rules.menu)
    name = f"{arm or 'start'}.seed{seed}" + (f".step{step}" if step is not None else "")
    made = {"policy": digest(json.dumps(hashes_of(folder))), "temperature": settings.temperature}
    path = settings.run_dir / "transcripts" / split / f"{name}.jsonl"
    return record(
        path, _Lazy(folder, settings.temperature), patients, settings.rules, made, 1, EVALUATION_SEED
    )


class _Lazy:
    """A speaker that loads its model when it first speaks: finished transcripts need none."""

    def __init__(self, folder, temperature):
        self.folder, self.temperature, self._speaker = folder, temperature, None

    def _loaded(self):
        self._speaker = self._speaker or speaker_of(self.folder, self.temperature)
        return self._speaker

    @property
    def tokenizer(self):
        return self._loaded().tokenizer

    @property
    def rows(self):
        return self._loaded().rows

    def dialogue(self):
        return self._loaded().dialogue()

    def __call__(self, *arguments):
        return self._loaded()(*arguments)


# ------------------------------------------------------------------------------------------------- learning rates, on validation


def tune(
    settings: AgentSettings, rates: Sequence[float], seed: int, workers: int = 2
) -> dict[str, dict[float, float]]:
    """{arm: {rate: mean return on validation patients}} after training with each rate and one spare seed, the same for all."""
    if not rates or len(set(rates)) < len(rates):
        raise ValueError(f"got the learning rates {rates}; expected at least one, each once.")
    found: dict[str, dict[float, float]] = {arm: {} for arm in settings.arms}
    for rate in rates:
        one = replace(
            settings,
            name=f"{settings.name}-rate{rate:g}",
            seeds=(seed,),
            learning_rates=dict.fromkeys(settings.arms, rate),
        )
        train_all(one, workers)
        for arm in settings.arms:
            episodes = evaluate(one, arm, seed, split=VALIDATION_SPLIT)
            found[arm][rate] = sum(episode.reward for episode in episodes) / len(episodes)
    return found
