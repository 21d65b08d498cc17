"""Whole runs of an agent: a model that speaks for itself and learns, and a run that was killed and goes on."""

import pytest
import torch
from agent_cases import OPTIONS, PRICED, ScriptedRollout, model_of, patients, tokenizer, trainer_of

from clinical_r1.agent.consultation import Consultation
from clinical_r1.agent.forest import Shape
from clinical_r1.agent.language import opening
from clinical_r1.agent.rollouts import ConsultationRollout
from clinical_r1.agent.start import encode

FOREST = Shape(2, 2, 1, 3)


def test_a_model_speaks_and_is_trained(tmp_path):
    """From end to end without a script: taught two consultations by heart, it goes on from what it says itself."""
    model, people = model_of(), patients()[:2]
    heart = [taught(patient) for patient in people]
    rows = encode(tokenizer(), heart)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(25):
        for row in rows:
            ids, labels = torch.tensor([row["input_ids"]]), torch.tensor([row["labels"]])
            model(input_ids=ids, labels=labels).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    rollout = ConsultationRollout(patients(), PRICED)
    made = trainer_of(
        tmp_path, rollout, model, n=2, options={"estimator": "anchor", **OPTIONS}, temperature=1.0
    )
    before = {n: p.detach().clone() for n, p in made.model.named_parameters()}
    made.train()
    logged = made.state.log_history[0]
    assert logged["agent/invalid"] < 0.7 and logged["agent/turns"] > 1
    assert logged["grad_norm"] > 0 and logged["shared_prefix/tokens"] < 1
    assert any((p - before[n]).abs().max() > 0 for n, p in made.model.named_parameters())


def taught(patient):
    consultation, turns = Consultation(patient, PRICED), []
    inquiries = [f"suspect {patient.gold} {verb} {words}" for words, (_, verb) in patient.menu.items()][:2]
    for text in [*inquiries, f"suspect {patient.gold} diagnose {patient.gold}"]:
        turns.append((text, consultation.step(text).text))
    return opening(patient, PRICED), turns


def test_a_run_that_was_killed_ends_with_the_same_weights(tmp_path):
    def build(folder, steps=4, rollout=None):
        changes = dict(
            max_steps=steps, save_strategy="steps", save_steps=2, optim="adamw_torch", learning_rate=1e-3
        )
        rollout = rollout or ScriptedRollout(patients(), PRICED, FOREST)
        options = OPTIONS | {"estimator": "tree+anchor", "shared_prefix_threshold": 0}
        return trainer_of(tmp_path / folder, rollout, options=options, **changes)

    class Killed(ScriptedRollout):
        def __call__(self, prompts, trainer):
            if trainer.state.global_step == 3:
                raise KeyboardInterrupt
            return super().__call__(prompts, trainer)

    whole = build("whole")
    whole.train()
    broken = build("broken", rollout=Killed(patients(), PRICED, FOREST))
    with pytest.raises(KeyboardInterrupt):
        broken.train()
    again = build("broken")
    again.train(resume_from_checkpoint=str(tmp_path / "broken" / "checkpoint-2"))
    assert again.state.global_step == 4
    expected = dict(whole.model.named_parameters())
    assert all(torch.equal(p, expected[n]) for n, p in again.model.named_parameters())
