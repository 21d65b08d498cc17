"""What the tests of the agent share: some patients, scripted policies, a tiny model, and trainers on scripted episodes."""

from functools import cache

import torch
import trl
from tiny import QUIET

from clinical_r1.agent.consultation import DIAGNOSE, Rules, draw_patients
from clinical_r1.agent.language import build_agent_tokenizer
from clinical_r1.agent.rollouts import ConsultationRollout, consultation_reward, rows_of
from clinical_r1.agent.speaking import Forgetful, Scripted
from clinical_r1.agent.trainer import build_agent_trainer_class
from clinical_r1.clinic.base_model import build_clinic_model

PRICED = Rules(costs={"ask": 0.01, "examine": 0.02, "test": 0.05, "invalid": 0.1})
OPTIONS = {"omega": 0.5, "gamma": 0.9}


@cache
def tokenizer():
    return build_agent_tokenizer()


@cache
def patients(n=6, split="rl", seed=0):
    return tuple(draw_patients(split, n, seed))


def random_inquiry(consultation, rng):
    """Inquires after anything until the last turn, then guesses."""
    guess = str(rng.choice(consultation.patient.options))
    if consultation.turns_left == 1:
        return f"suspect {guess} {DIAGNOSE} {guess}"
    finding = str(rng.choice(consultation.open()))
    said = {name: f"{verb} {words}" for words, (name, verb) in consultation.patient.menu.items()}
    return f"suspect {guess} {said[finding]}"


def careless(consultation, rng):
    """As `random_inquiry`, but a turn may be nonsense, and a diagnosis may come as soon as it is allowed, or too early."""
    draw = rng.random()
    guess = str(rng.choice(consultation.patient.options))
    if draw < 0.15:
        return f"suspect {guess}"
    return f"suspect {guess} {DIAGNOSE} {guess}" if draw < 0.4 else random_inquiry(consultation, rng)


class Cut(Forgetful):
    """A scripted speaker of which some turns are cut before their end."""

    def __init__(self, policy, share):
        self.inner, self.share, self.tokenizer = Scripted(policy, tokenizer()), share, tokenizer()

    def __call__(self, contexts, seeds, consultations):
        turns = self.inner(contexts, seeds, consultations)
        return [
            ids[:-1] if seed % 100 < 100 * self.share else ids for ids, seed in zip(turns, seeds, strict=True)
        ]


class ScriptedRollout(ConsultationRollout):
    """Episodes of a script in place of the model's: their rewards differ, whatever the model is."""

    script = staticmethod(careless)

    def speaker(self, model, trainer):
        return Cut(self.script, 0.1)


def model_of(dtype=torch.float32):
    return build_clinic_model(tokenizer(), 0).to(dtype)


def trainer_of(folder, rollout=None, model=None, kind=None, rules=PRICED, n=6, options=None, **changes):
    """An agent's trainer: 2 patients a step, 6 episodes each."""
    from datasets import Dataset
    from transformers import set_seed

    people = patients(n)
    arguments = QUIET | dict(
        output_dir=str(folder),
        max_steps=1,
        per_device_train_batch_size=12,
        num_generations=6,
        max_completion_length=100,
        learning_rate=1e-2,
        optim="sgd",
        max_grad_norm=1e6,
        beta=0.0,
        seed=3,
    )
    arguments |= changes
    set_seed(3)
    made = (kind or build_agent_trainer_class())(
        model=model_of() if model is None else model,
        reward_funcs=[consultation_reward],
        args=trl.GRPOConfig(**arguments),
        train_dataset=Dataset.from_list(rows_of(people, rules)),
        processing_class=tokenizer(),
        rollout_func=ScriptedRollout(people, rules) if rollout is None else rollout,
        **(options or {}),
    )
    made.current_gradient_accumulation_steps = made.args.gradient_accumulation_steps  # what train() sets
    return made
