"""Train one arm of the agent on TRL, from the shipped start. What the arms share is all but the credit of a turn.

    python -m clinical_r1.agent.train --settings JSON --arm gigpo --seed 0      (`experiment` starts one process an arm)

An arm is stamped with all that it is made of before its first step, is finished only when it has made all its steps, and goes on
from its newest whole checkpoint when it was killed.
"""

import argparse
import json
import sys
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

from clinical_r1.agent.arms import AGENT_ARMS, TRAINED_SPLIT, AgentSettings
from clinical_r1.agent.checks import check_arm, check_seed, check_settings, check_start
from clinical_r1.agent.consultation import draw_patients
from clinical_r1.agent.language import TURN_TOKENS
from clinical_r1.agent.rollouts import ConsultationRollout, consultation_reward, rows_of
from clinical_r1.agent.start import start_path
from clinical_r1.agent.trainer import build_agent_trainer_class
from clinical_r1.artifacts import BEGUN, DONE, LOG, StaleError, code_hash, digest, hashes_of
from clinical_r1.files import locked, read_json, whole_folder, write_json, write_jsonl
from clinical_r1.models import load_tokenizer, save_policy
from clinical_r1.trainer import run
from clinical_r1.workers import stop_with_parent

HEARD = 6  # tokens at most between two turns: a role, a finding, a full stop, the turns left, a role, and an end that lacked
# The code that an arm's result depends on, with all that it uses
CODE = (
    "clinical_r1.agent.trainer:TurnAdvantageMixin",
    "clinical_r1.agent.rollouts:ConsultationRollout",
    "clinical_r1.agent.consultation:draw_patients",
    "clinical_r1.agent.train:grpo_arguments",
)


def start_folder(settings: AgentSettings) -> Path:
    """Where the start lies: the shipped one, or a folder of the user's."""
    return start_path() if settings.start is None else Path(settings.start)


def made_from(settings: AgentSettings, arm: str, seed: int) -> dict:
    """All that a trained agent depends on, as JSON. ValueError as `checks`, for settings, an arm or a seed that cannot be."""
    check_settings(settings)
    check_arm(arm)
    check_seed(seed)
    values = settings.to_json()
    kept = ("rules", "patients", "episodes", "pool", "temperature", "beta", "schedule")
    stamp = {name: values[name] for name in kept}
    stamp |= {"arm": asdict(AGENT_ARMS[arm]), "seed": seed, "steps": settings.steps_of(arm)}
    stamp |= {"learning_rate": learning_rate(settings, arm), "code": code_hash(*CODE)[:16]}
    stamp["start"] = digest(json.dumps(hashes_of(start_folder(settings))))
    return json.loads(json.dumps(stamp))


def learning_rate(settings: AgentSettings, arm: str) -> float:
    """The arm's own. ValueError where it was given none: a rate tuned for one estimator is not fair to another."""
    if arm not in settings.learning_rates:
        raise ValueError(
            f"{settings.name} has no learning rate for {arm}; expected one for each of {', '.join(settings.arms)}."
        )
    return settings.learning_rates[arm]


def is_trained(settings: AgentSettings, arm: str, seed: int) -> bool:
    """Whether an arm is finished on disk. StaleError where it was made from something else than today's settings and code."""
    folder, now = settings.model_dir(arm, seed), made_from(settings, arm, seed)
    for name in (DONE, BEGUN):
        if (folder / name).exists():
            made = read_json(folder / name)
            changed = [key for key in now if made.get(key) != now[key]]
            if changed:
                raise StaleError(
                    f"{folder} was made with another {' and '.join(changed)}; restore that, or move the folder away.",
                    changed,
                )
            return name == DONE
    return False


def grpo_arguments(settings: AgentSettings, arm: str, seed: int, folder: Path) -> dict:
    """The GRPOConfig of an arm, as keywords: one step is one batch of whole groups, at a constant learning rate."""
    import torch

    return dict(
        output_dir=str(folder / "checkpoints"),
        run_name=f"{arm}, seed {seed}",
        max_steps=settings.steps_of(arm),
        per_device_train_batch_size=settings.patients * settings.episodes,
        num_generations=settings.episodes,
        max_completion_length=settings.rules.horizon * (TURN_TOKENS + HEARD),
        temperature=settings.temperature,
        learning_rate=learning_rate(settings, arm),
        lr_scheduler_type="constant",
        beta=settings.beta,
        seed=seed,
        bf16=False,  # TRL's default, and four times slower for a tiny model
        use_cpu=not torch.cuda.is_available(),
        gradient_checkpointing=False,
        save_steps=settings.save_steps,
        logging_steps=1,
        logging_nan_inf_filter=False,
        report_to=[],
        disable_tqdm=True,
    )


def build_trainer(settings: AgentSettings, arm: str, seed: int):
    """TRL's trainer of an arm: the rollout plays consultations, and the mixin credits their turns."""
    import trl
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, set_seed

    set_seed(seed)
    what, folder = AGENT_ARMS[arm], start_folder(settings)
    patients = draw_patients(TRAINED_SPLIT, settings.pool, seed, settings.rules.menu)
    return build_agent_trainer_class()(
        model=AutoModelForCausalLM.from_pretrained(folder),
        reward_funcs=[consultation_reward],
        args=trl.GRPOConfig(**grpo_arguments(settings, arm, seed, settings.model_dir(arm, seed))),
        train_dataset=Dataset.from_list(rows_of(patients, settings.rules)),
        processing_class=load_tokenizer(str(folder)),
        rollout_func=ConsultationRollout(patients, settings.rules, what.forest),
        estimator=what.estimator,
        turn_std=what.std,
        omega=what.omega,
        gamma=what.gamma,
        cost_schedule=settings.schedule or None,
    )


def train_agent(settings: AgentSettings, arm: str, seed: int) -> Path:
    """Train one arm in this process, unless it is finished on disk; its folder. StaleError as `is_trained`."""
    folder = settings.model_dir(arm, seed)
    with locked(folder.with_name(f"{folder.name}.lock"), f"{arm} with seed {seed} in {settings.run_dir}"):
        if is_trained(settings, arm, seed):
            return folder
        check_start(start_folder(settings))
        trainer = build_trainer(settings, arm, seed)
        stamp = made_from(settings, arm, seed)
        write_json(folder / BEGUN, stamp)
        checked = run(trainer)
        with whole_folder(folder / "policy") as partial:
            save_policy(trainer.model, trainer.processing_class, partial)
        rows = [dict(sorted(row.items())) for row in trainer.state.log_history if "loss" in row]
        write_jsonl(folder / LOG, rows)
        write_json(folder / DONE, stamp | {"checked": checked, "policy": _policy(folder)})
    return folder


def _policy(folder: Path) -> Mapping[str, str]:
    return hashes_of(folder / "policy")


def main(argv=None) -> int:
    """Train one arm: what `experiment` starts for each arm and seed."""
    parser = argparse.ArgumentParser(prog="python -m clinical_r1.agent.train", description=main.__doc__)
    parser.add_argument("--settings", required=True, help="AgentSettings as JSON")
    parser.add_argument("--arm", required=True, choices=list(AGENT_ARMS))
    parser.add_argument("--seed", required=True, type=int)
    parser.add_argument("--with-parent", action="store_true", help="end when standard input closes")
    arguments = parser.parse_args(argv)
    if arguments.with_parent:
        stop_with_parent()
    import torch

    torch.set_num_threads(1)
    try:
        settings = AgentSettings.from_json(json.loads(arguments.settings))
    except (ValueError, KeyError, TypeError) as error:
        parser.error(
            f"--settings: got no settings ({error}); expected the JSON that `AgentSettings.to_json` gives."
        )
    train_agent(settings, arguments.arm, arguments.seed)
    return 0


if __name__ == "__main__":
    sys.exit(main())
