"""What the agent starts from: the clinic base model, taught the consultation by scripted doctors who are not very good (ours).

Doctors know the exact posterior and use it badly: most of their inquiries are drawn at random, some keep their first impression,
some stop too early. The start reads what it is told, so that reinforcement learning has something to improve on; what it gets
wrong is for that to put right. Shipped in data/agent_start with hashes; `python -m clinical_r1.agent start --out DIR` rebuilds
it.
"""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from clinical_r1.agent.consultation import (
    DIAGNOSE,
    Action,
    Consultation,
    Patient,
    Rules,
    draw_patients,
    verb_of,
)
from clinical_r1.agent.language import END, build_agent_tokenizer, observation_text, opening
from clinical_r1.agent.policies import expected_gains
from clinical_r1.clinic.base_model import BATCH, teach
from clinical_r1.clinic.cases import phrase
from clinical_r1.clinic.knowledge import knowledge_base
from clinical_r1.files import PACKAGE, compare_hashes, write_hashes
from clinical_r1.models import clinic_base_path

SEED = 20251202
# (steps, learning rate): each on consultations of its own. The second half of what is learned is to stay within the menu.
PHASES = ((3_000, 2e-3), (4_000, 3e-3))
TRANSCRIPTS, PATIENTS = 24_000, 6_000  # of a phase
SHIPPED = PACKAGE / "data" / "agent_start"


@dataclass(frozen=True)
class Doctor:
    """Habits of a scripted doctor, each the share of occasions on which it shows, in [0, 1].

    informed: inquires after what tells most; else after anything. anchored: keeps the first impression for good. matching: the
    hypothesis is drawn from the posterior instead of being its best. hasty: diagnoses at the first turn that allows it. sure:
    diagnoses as soon as the posterior of the hypothesis is above .9.
    """

    informed: float = 0.25
    anchored: float = 0.1
    matching: float = 0.15
    hasty: float = 0.15
    sure: float = 0.3


# (share, rules): the main setting, a diagnosis at once allowed, an open set of actions, twice the turns
SETTINGS = (
    (0.6, Rules()),
    (0.15, Rules(earliest=1)),
    (0.1, Rules(menu=None)),
    (0.15, Rules(horizon=9, menu=12)),
)

Transcript = tuple[list[dict], list[tuple[str, str]]]  # opening, and (turn, observation) of each turn


def consult(patient: Patient, rules: Rules, doctor: Doctor, rng: np.random.Generator) -> Transcript:
    """One consultation as this doctor holds it."""
    consultation, turns = Consultation(patient, rules), []
    anchored, hasty, sure = (rng.random() < share for share in (doctor.anchored, doctor.hasty, doctor.sure))
    first = None
    while not consultation.done:
        posterior = consultation.posterior()
        hypothesis = _hypothesis(posterior, doctor, rng)
        first = first or hypothesis
        hypothesis = first if anchored else hypothesis
        stops = hasty or (sure and posterior[hypothesis] > 0.9)
        if consultation.turns_left == 1 or (consultation.may_diagnose and stops):
            action = Action(hypothesis, DIAGNOSE, hypothesis)
        else:
            finding = _inquiry(consultation, doctor, rng)
            action = Action(hypothesis, verb_of(finding), phrase(finding, True))
        turns.append((action.text, consultation.step(action.text).text))
    return opening(patient, rules), turns


def _inquiry(consultation, doctor, rng) -> str:
    if rng.random() < doctor.informed:
        gains = expected_gains(consultation)
        return max(gains, key=gains.get)
    return str(rng.choice(consultation.open()))


def _hypothesis(posterior, doctor, rng) -> str:
    if rng.random() < doctor.matching:
        return str(rng.choice(list(posterior), p=list(posterior.values())))
    return max(posterior, key=posterior.get)


def transcripts(n: int, seed: int, doctor: Doctor = Doctor(), settings=SETTINGS) -> Iterator[Transcript]:
    """n consultations with patients of the split "sft", in the settings by their shares; a patient may come again."""
    rng = np.random.default_rng(seed)
    pools = [
        draw_patients("sft", min(PATIENTS, max(8, int(n * share))), seed, rules.menu)
        for share, rules in settings
    ]
    shares = [share for share, _ in settings]
    for place in rng.choice(len(settings), n, p=shares):
        pool = pools[place]
        yield consult(pool[int(rng.integers(len(pool)))], settings[place][1], doctor, rng)


def encode(tokenizer, transcripts: Sequence[Transcript]) -> list[dict]:
    """input_ids and labels of transcripts: the loss covers the agent's turns and the ends of them, nothing else."""
    rows = []
    for messages, turns in transcripts:
        prompt = tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
        parts = [(prompt, False)]
        for said, heard in turns:
            parts += [(f"{said} {END}", True)] + ([(observation_text(heard), False)] if heard else [])
        ids = tokenizer([text for text, _ in parts], add_special_tokens=False)["input_ids"]
        learned = [
            token if own else -100 for tokens, (_, own) in zip(ids, parts, strict=True) for token in tokens
        ]
        rows.append({"input_ids": [token for tokens in ids for token in tokens], "labels": learned})
    return rows


def extended_base(tokenizer):
    """The clinic base model with rows for the words of consultations, which begin as the mean of all others."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(clinic_base_path())
    model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    return model


def train_start(out, phases=PHASES, seed: int = SEED, doctor: Doctor = Doctor()):
    """Make the start in `out`: tokenizer, safetensors, and sha256.json over all of it. Returns (model, tokenizer).

    About twenty minutes on one core. phases: as PHASES.
    """
    import torch
    from transformers import set_seed

    torch.set_num_threads(1)  # the same weights on any number of cores
    set_seed(seed)
    tokenizer = build_agent_tokenizer()
    model = extended_base(tokenizer)
    for phase, (steps, rate) in enumerate(phases):
        told = transcripts(min(TRANSCRIPTS, steps * BATCH), seed + phase, doctor)
        rows, options = encode(tokenizer, list(told)), {"learning_rate": rate, "lr_scheduler_type": "cosine"}
        teach(model, tokenizer, rows, out, steps, seed + phase, **options)
    model.generation_config.update(
        do_sample=True, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id
    )
    model.save_pretrained(out)
    tokenizer.save_pretrained(out)
    recipe = {
        "phases": phases,
        "seed": seed,
        "doctor": asdict(doctor),
        "knowledge_base": knowledge_base().sha256,
    }
    recipe["command"] = "python -m clinical_r1.agent start --out DIR"
    write_hashes(Path(out), recipe)
    return model, tokenizer


def start_path() -> Path:
    """Folder of the shipped start, after its sha256 has been checked. FileNotFoundError; ValueError when a file differs."""
    if not (SHIPPED / "sha256.json").is_file():
        raise FileNotFoundError(
            f"{SHIPPED} holds no start (sha256.json is missing); reinstall the package, or rebuild it with "
            "`python -m clinical_r1.agent start --out DIR` and name that folder."
        )
    compare_hashes(
        SHIPPED, "Reinstall the package, or rebuild it: python -m clinical_r1.agent start --out DIR."
    )
    return SHIPPED
