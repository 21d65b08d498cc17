"""Episodes for TRL's GRPOTrainer (`rollout_func`), and episodes of many patients on disk.

    rollout = ConsultationRollout(patients, rules, forest=None)
    trainer = Trainer(..., rollout_func=rollout, reward_funcs=[consultation_reward], train_dataset=rows_of(patients, rules))

TRL gives a rollout the prompts of one process, each repeated G times already, and nothing else of the data set. What the
rollout returns besides tokens and masks is laid into the rows of the batch: there the reward finds the "episode".

trl and torch are imported when called.
"""

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path

from clinical_r1.agent.consultation import Patient, Rules
from clinical_r1.agent.episodes import AGAIN, Episode, read_transcripts
from clinical_r1.agent.forest import Played, Shape, chains, forest
from clinical_r1.agent.language import TURN_TOKENS, opening
from clinical_r1.agent.speaking import Speaker, seed_of
from clinical_r1.files import json_line, locked, read_json, read_stamp, write_json, write_stamp
from clinical_r1.generate import kept_batches
from clinical_r1.speed.merged import adapted_layers, merged_adapter, why_not

SHAPING = ("top_p", "top_k", "min_p", "repetition_penalty")  # of a GRPOConfig, beside the temperature


def rows_of(patients: Sequence[Patient], rules: Rules) -> list[dict]:
    """A data set's rows: the prompt as chat messages, and the patient's id."""
    return [{"prompt": opening(patient, rules), "patient": patient.id} for patient in patients]


def consultation_reward(completions, episode: Sequence[Episode], **columns) -> list[float]:
    """TRL's reward function: the sum of an episode's rewards, 1 for the right diagnosis less the costs."""
    return [each.reward for each in episode]


class ConsultationRollout:
    """TRL's `rollout_func`: plays G episodes of each patient in the batch.

    patients: all that the prompts may show. rules: theirs; the costs may change between two calls. forest: a Shape, whose rows
    are the trainer's num_generations; None plays chains. tokens: most of a turn. draws: as `speed.draws`.

    Temperature and top-p are the trainer's. Draws depend on the trainer's seed, its step, the patient and the number of the
    episode: a run that was killed and continued goes on as it would have. `patients_of_rows` (ids, or None) names the patients of
    the next call; `trainer.TurnAdvantageMixin` sets it, else they are known by their prompts.
    """

    def __init__(
        self,
        patients: Sequence[Patient],
        rules: Rules,
        forest: Shape | None = None,
        tokens: int = TURN_TOKENS,
        draws: str = "inverse_cdf",
    ):
        self.rules, self.forest, self.tokens, self.draws = rules, forest, tokens, draws
        self.patients = {patient.id: patient for patient in patients}
        if len(self.patients) != len(patients):
            raise ValueError(
                f"got {len(patients)} patients with {len(self.patients)} ids; expected an id for each."
            )
        self.patients_of_rows, self.sampled, self.trained = None, 0, 0
        self._by_prompt: dict[str, list[str]] = {}
        for patient in patients:
            self._by_prompt.setdefault(_text(opening(patient, rules)), []).append(patient.id)
        self._calls = {}

    def __call__(self, prompts: Sequence, trainer) -> dict:
        """prompt_ids, completion_ids, logprobs (None), env_mask, episode: N rows, in the order of the prompts.

        ValueError for prompts that are not repeated G times, or of nobody, and where G is not that of the forest.
        """
        training = trainer.model.training
        group = trainer.num_generations if training else trainer.num_generations_eval
        patients = self._patients(prompts, group)
        played = self._played(trainer, patients, group, training)
        rows = played.episodes
        limit = trainer.max_completion_length
        if (longest := max(len(row.completion_ids) for row in rows)) > limit:
            raise ValueError(
                f"an episode has {longest} tokens after its prompt and max_completion_length is {limit}; raise it, or lower the "
                "horizon."
            )
        if training:
            self.sampled, self.trained = self.sampled + played.sampled, self.trained + played.trained
        return {
            "prompt_ids": [list(row.prompt_ids) for row in rows],
            "completion_ids": [row.completion_ids for row in rows],
            "logprobs": None,
            "env_mask": [row.env_mask for row in rows],
            "episode": list(rows),
        }

    def _played(self, trainer, patients, group: int, training: bool) -> Played:
        if training and self.forest is not None and self.forest.rows != group:
            raise ValueError(
                f"num_generations is {group} and the forest has {self.forest.trees} trees of {self.forest.keep} leaves; expected "
                f"{self.forest.rows} generations."
            )
        seed = seed_of(
            trainer.args.seed, *self._call("train" if training else "eval", trainer.state.global_step)
        )
        with _generating(trainer) as model:
            speaker = self.speaker(model, trainer)
            if training and self.forest is not None:
                return forest(speaker, patients, self.rules, **vars(self.forest), seed=seed)
            return chains(speaker, patients, self.rules, group, seed)

    def speaker(self, model, trainer) -> Speaker:
        """Who speaks: the model as the trainer's arguments say."""
        given = {name: getattr(trainer.args, name) for name in SHAPING}
        settings = {name: value for name, value in given.items() if value is not None}
        tokenizer = trainer.processing_class
        return Speaker(model, tokenizer, trainer.temperature, self.tokens, self.draws, settings=settings)

    def _call(self, mode: str, step: int) -> tuple[str, int, int]:
        """(mode, step, number of the call within it): a checkpoint lies between two steps, and so may an evaluation."""
        last, number = self._calls.get(mode, (None, 0))
        self._calls[mode] = (step, number + 1 if last == step else 0)
        return mode, *self._calls[mode]

    def _patients(self, prompts, group: int) -> list[Patient]:
        """One patient for each run of G equal prompts."""
        texts, known = [_text(prompt) for prompt in prompts], self.patients_of_rows
        runs = [set(texts[i : i + group]) for i in range(0, len(texts), group)]
        if not texts or len(texts) % group or any(len(run) != 1 for run in runs):
            raise ValueError(
                f"got {len(texts)} prompts that are not repeated {group} times each, one after the other; expected whole groups "
                "on every process: a multiple of num_generations rows, and TRL's own sampler."
            )
        if known is not None and len(known) != len(texts):
            raise ValueError(f"got {len(texts)} prompts and {len(known)} patients; expected one a row.")
        return [self._patient(texts[i], known and known[i : i + group]) for i in range(0, len(texts), group)]

    def _patient(self, text: str, known: Sequence[str] | None) -> Patient:
        found = self._by_prompt.get(text, [])
        named = list(dict.fromkeys(known or ()))
        if named:
            found = [name for name in named if name in found]
        if not found:
            whose = f"is not that of {', '.join(named)}" if named else "is none of the rollout's patients'"
            raise ValueError(
                f"the prompt {text[:80]!r} {whose}; expected rows that `rows_of` made of the rollout's own patients and rules."
            )
        if len(found) > 1:
            raise ValueError(
                f"patients {' and '.join(found)} begin with one prompt; expected a trainer with TurnAdvantageMixin and rows "
                "with a `patient`, or patients that differ."
            )
        return self.patients[found[0]]


def _text(prompt) -> str:
    """A prompt as a key: chat messages, or a text."""
    return prompt if isinstance(prompt, str) else json.dumps([[m["role"], m["content"]] for m in prompt])


@contextmanager
def _generating(trainer):
    """The trainer's model as TRL generates with it, an adapter merged where that is the same up to rounding."""
    from trl.models.utils import unwrap_model_for_generation

    if trainer.use_vllm:
        raise ValueError(
            "got use_vllm=True; expected False: a consultation is generated by the trainer's own model."
        )
    options = {"gather_deepspeed3_params": trainer.args.ds3_gather_for_generation}
    options["generation_kwargs"] = trainer.generation_kwargs
    with unwrap_model_for_generation(trainer.model_wrapped, trainer.accelerator, **options) as model:
        adapted = adapted_layers(model)
        with merged_adapter(model, adapted) if adapted and not why_not(adapted) else nullcontext():
            yield model


# ---------------------------------------------------------------------------------------------------------- on disk


def record(
    path: str | Path,
    speaker,
    patients: Sequence[Patient],
    rules: Rules,
    made_from: Mapping,
    n: int = 1,
    seed: int = 0,
    shape: Shape | None = None,
    batch: int = 64,
) -> list[Episode]:
    """Play n chains, or a forest, of each patient into a stamped file, `batch` patients at a time, and read it.

    A finished file is read, and one that a killed run left half-way is continued: the same bytes either way. made_from: what the
    speaker is made from, JSON. ValueError where the file was made from something else, or was changed; PipelineError while
    another process writes it.
    """
    path = Path(path)
    if n < 1 or batch < 1:
        raise ValueError(
            f"got {n} episodes of each patient and batches of {batch} patients; expected at least 1 of each."
        )
    asked = {"rules": rules.to_json(), "n": n, "seed": seed, "forest": shape and vars(shape), "batch": batch}
    digest = hashlib.sha256(json.dumps([patient.to_json() for patient in patients]).encode()).hexdigest()
    stamp = json.loads(json.dumps({**made_from, **asked, "patients": digest[:16]}))
    with locked(path.with_name(f".{path.stem}.lock"), str(path)):
        if path.exists():
            _same(path, read_stamp(path, AGAIN), stamp)
        else:
            _write(path, stamp, speaker, patients, rules, n, seed, shape, batch)
    return read_transcripts(path)


def _same(path: Path, found: Mapping, stamp: Mapping) -> None:
    if other := [name for name, value in stamp.items() if found.get(name) != value]:
        raise ValueError(
            f"{path} was made with another {' and '.join(other)}; expected the same: delete it, or name another file."
        )


def _write(path, stamp, speaker, patients, rules, n, seed, shape, batch) -> None:
    partial, begun = path.with_suffix(".partial"), path.with_suffix(".partial.json")
    if begun.exists():
        _same(partial, read_json(begun), stamp)
    ends = kept_batches(partial, begun)
    running = hashlib.sha256(partial.read_bytes() if ends else b"")
    write_json(begun, stamp | {"batches": ends})
    with open(partial, "ab" if ends else "wb") as out:
        for start in range(len(ends) * batch, len(patients), batch):
            some = patients[start : start + batch]
            options = vars(shape) if shape else {"n": n}
            played = (forest if shape else chains)(speaker, some, rules, **options, seed=seed)
            written = "".join(json_line(episode.to_json()) for episode in played.episodes).encode()
            out.write(written)
            out.flush()
            running.update(written)
            ends.append([out.tell(), running.hexdigest()])
            write_json(begun, stamp | {"batches": ends})
    write_stamp(path, stamp, partial)
    os.replace(partial, path)
    begun.unlink()
