"""The base model of the clinic, made from nothing: its vocabulary, tokenizer, corpus and training.

The corpus is scripted (`traces`, `drills`): some medicine, mostly hasty, and answers that follow from claims. The tokenizer
knows one token a phrase, so a model of 0.6 M parameters learns to read and answer on a CPU.
"""

import math
from pathlib import Path
from typing import NamedTuple

import numpy as np

from clinical_r1.clinic.cases import Case, draw_cases, vignette
from clinical_r1.clinic.drills import DRILL_MARKS, write_drill, write_notes
from clinical_r1.clinic.knowledge import knowledge_base
from clinical_r1.clinic.traces import BASE, FILLERS, write_trace
from clinical_r1.clinic.verdicts import SUBGOALS, phrase_table
from clinical_r1.files import write_hashes
from clinical_r1.labels import CLINIC_BENCHMARKS
from clinical_r1.prompts import CLINIC_DRILLS, CLINIC_INSTRUCTIONS, STYLES, build_messages, render_question
from clinical_r1.questions import LETTERS, Question


def vocabulary() -> list[str]:
    """Every token of the clinic's language: whole phrases first, then single words and marks. No duplicates."""
    kb = knowledge_base()
    marks = ["<dx>", "</dx>", "<conclusion>", "</conclusion>", "<think>", "</think>", "<answer>", "</answer>"]
    marks += ["(System 1: Intuitive)", "(System 2: Analytical)", "Patient:", ".", ",", *FILLERS]
    marks += DRILL_MARKS
    marks += [f"\\boxed{{{letter}}}" for letter in LETTERS]
    # an option line is one token
    lines = [f"{letter}: {condition}" for letter in LETTERS for condition in kb.conditions]
    words = [
        "suspect",
        "supports",
        "argues against",
        "and",
        "favor",
        "the answer is",
        "on second thought consider",
    ]
    words += ["if", "then expect", "check:", *SUBGOALS]
    return list(dict.fromkeys([*marks, *words, *kb.conditions, *lines, *phrase_table()]))


PAD, END, USER, ASSISTANT, UNKNOWN = "<|pad|>", "<|end|>", "<|user|>", "<|assistant|>", "<|unknown|>"
CHAT_TEMPLATE = (
    "{% for message in messages %}{% if message['role'] == 'user' %}" + USER + " {{ message['content'] }} "
    "{% else %}" + ASSISTANT + " {{ message['content'] }} " + END + "{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}" + ASSISTANT + " {% endif %}"
)
SEED = 20251201
BATCH = 32
LEARNING_RATE = 3e-3
MIX = dict(zip(CLINIC_BENCHMARKS, (0.5, 0.15, 0.35), strict=True))

# (steps, kinds of text, benchmarks). First only the letters of the options: looking up a letter is the slowest thing for a
# small model to learn, and the one it cannot do without. Then notes, whose claims alone decide the answer: learned before any
# case is answered, or the model answers from the case and its claims mean nothing. Then all that makes the base what it is.
PHASES = (
    (800, {"options": 1.0}, {"clinic": 1.0}),
    (600, {"options": 0.2, "easy notes": 0.8}, {"clinic": 1.0}),
    (600, {"options": 0.2, "notes": 0.8}, MIX),
    (5000, {"options": 0.08, "findings": 0.05, "evidence": 0.22, "notes": 0.2, "answered": 0.45}, MIX),
)


class Lesson(NamedTuple):
    """One text of the corpus: what the user says, the part of the answer that is given, and the part that is learned."""

    user: str
    given: str
    learned: str


def build_clinic_tokenizer():
    """One token a phrase: whole findings and conditions keep a case near 64 tokens. Whitespace carries no meaning."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(
        models.WordLevel({PAD: 0, END: 1, UNKNOWN: 2, USER: 3, ASSISTANT: 4}, unk_token=UNKNOWN)
    )
    words = [*vocabulary(), *CLINIC_INSTRUCTIONS.values(), *CLINIC_DRILLS.values()]
    # Added tokens are matched leftmost-longest, so a phrase wins over the shorter phrase inside it.
    tokenizer.add_tokens(
        [AddedToken(word, single_word=word[-1].isalnum(), normalized=False) for word in words]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.decoder = decoders.WordPiece(prefix="##", cleanup=True)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token=PAD, eos_token=END, unk_token=UNKNOWN, padding_side="left",
        additional_special_tokens=[USER, ASSISTANT],
    )  # fmt: skip
    fast.chat_template = CHAT_TEMPLATE
    return fast


def build_clinic_model(tokenizer, seed: int):
    """A fresh Qwen2 decoder: 2 layers of width 128, about 0.6 M parameters."""
    import torch
    from transformers import Qwen2Config, Qwen2ForCausalLM

    config = Qwen2Config(
        vocab_size=len(tokenizer), hidden_size=128, intermediate_size=384, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=4, max_position_embeddings=512, tie_word_embeddings=True,
        rope_parameters={"rope_type": "default", "rope_theta": 1e6},
        bos_token_id=None, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id,
        initializer_range=0.05,  # wider than the usual 0.02: copying from the prompt is learned several times sooner
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return Qwen2ForCausalLM(config)


def pretraining_corpus(n: int, seed: int, shares=PHASES[-1][1], mix=MIX, habits=BASE):
    """n Lessons, of the kinds in `shares`, on the benchmarks in `mix`.

    "answered" are cases answered in either style by a hasty, error-prone hand; "notes" are claims at random, of which the
    conclusion alone is learned ("easy notes": all of them support); the others are plain drills (the letter of each option, the
    bearing of findings), which teach reading and medicine without teaching how to answer.
    """
    rng = np.random.default_rng(seed)
    pools = {
        name: draw_cases(name, "pretrain", max(200, int(min(n, 20_000) * share)))
        for name, share in mix.items()
    }
    names = rng.choice(list(mix), n, p=list(mix.values()))
    kinds = rng.choice(list(shares), n, p=list(shares.values()))
    for name, kind in zip(names, kinds, strict=True):
        yield _lesson(pools[name][int(rng.integers(len(pools[name])))], name, str(kind), habits, rng)


def _lesson(case: Case, benchmark: str, kind: str, habits, rng: np.random.Generator) -> Lesson:
    question = _question(case, benchmark)
    if kind in CLINIC_DRILLS:
        return Lesson(
            CLINIC_DRILLS[kind] + "\n" + render_question(question), "", write_drill(case, kind, rng)
        )
    style = STYLES[int(rng.integers(2))]
    user = build_messages(question, style, "clinic")[0]["content"]
    if kind == "answered":
        return Lesson(user, "", write_trace(case, style, habits, rng))
    return Lesson(user, *write_notes(case, style, kind == "notes", rng))


def _question(case: Case, benchmark: str) -> Question:
    options = dict(zip(LETTERS, case.options, strict=False))
    return Question("pretrain", benchmark, "pretrain", vignette(case), options, case.letter, {})


def encode_supervised(tokenizer, lessons) -> list[dict]:
    """input_ids and labels of Lessons: the loss covers what is to be learned and the end mark only."""
    prompts = [f"{USER} {lesson.user} {ASSISTANT} {lesson.given}" for lesson in lessons]
    prompt_ids = tokenizer(prompts, add_special_tokens=False)["input_ids"]
    learned_ids = tokenizer([f"{lesson.learned} {END}" for lesson in lessons], add_special_tokens=False)[
        "input_ids"
    ]
    return [
        {"input_ids": prompt + learned, "labels": [-100] * len(prompt) + learned}
        for prompt, learned in zip(prompt_ids, learned_ids, strict=True)
    ]


def shorter_phases(steps: int, phases=PHASES):
    """The same phases with `steps` training steps in all, shared out as before; at least one each."""
    if steps < len(phases):
        raise ValueError(f"got {steps} steps; expected at least {len(phases)}, one for each phase.")
    whole = sum(phase[0] for phase in phases)
    shares = [max(1, steps * phase[0] // whole) for phase in phases[:-1]]
    return tuple((n, *phase[1:]) for n, phase in zip([*shares, steps - sum(shares)], phases, strict=True))


def _trainer_class():
    from torch.nn.functional import cross_entropy
    from transformers import Trainer

    class LearnedTokensTrainer(Trainer):
        """The usual loss, but what bears none gets no logits: with a vocabulary of phrases those are a quarter of all work."""

        def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
            following = inputs.pop("labels")[:, 1:]
            hidden, learned = model.model(**inputs).last_hidden_state[:, :-1], following != -100
            return cross_entropy(model.lm_head(hidden[learned]), following[learned])

    return LearnedTokensTrainer


def teach(model, tokenizer, rows: list[dict], out, steps: int, seed: int, **options) -> None:
    """Train a model in place on rows of input_ids and labels, BATCH at a time. options: more TrainingArguments."""
    import torch
    from datasets import Dataset
    from transformers import DataCollatorForSeq2Seq, TrainingArguments

    arguments = TrainingArguments(
        output_dir=str(out),
        max_steps=steps,
        per_device_train_batch_size=BATCH,
        seed=seed,
        report_to=[],
        warmup_steps=math.ceil(steps / 20),
        weight_decay=0.01,
        logging_steps=50,
        save_strategy="no",
        use_cpu=not torch.cuda.is_available(),
        **options,
    )
    collator = DataCollatorForSeq2Seq(tokenizer, padding=True, label_pad_token_id=-100)
    dataset = Dataset.from_list(rows)
    _trainer_class()(model, arguments, train_dataset=dataset, data_collator=collator).train()


def pretrain_clinic_base(out, phases=PHASES, seed=SEED, habits=BASE):
    """Make the clinic base model in `out`: tokenizer, safetensors, and sha256.json over all of it.

    About twelve minutes on one core. phases: as in PHASES. Returns (model, tokenizer).
    """
    import torch
    from transformers import set_seed

    torch.set_num_threads(1)  # the same weights on any number of cores
    set_seed(seed)
    tokenizer = build_clinic_tokenizer()
    model = build_clinic_model(tokenizer, seed)
    for phase, (steps, shares, mix) in enumerate(phases):
        lessons = list(pretraining_corpus(steps * BATCH, seed + phase, shares, mix, habits))
        last = phase == len(phases) - 1
        teach(
            model,
            tokenizer,
            encode_supervised(tokenizer, lessons),
            out,
            steps,
            seed,
            learning_rate=LEARNING_RATE,
            lr_scheduler_type="cosine" if last else "constant_with_warmup",
            train_sampling_strategy="group_by_length",
        )
    model.generation_config.update(
        do_sample=True, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id
    )
    model.save_pretrained(out)
    tokenizer.save_pretrained(out)
    recipe = {"phases": phases, "seed": seed, "knowledge_base": knowledge_base().sha256}
    recipe["command"] = "python -m clinical_r1.clinic pretrain --out DIR"
    write_hashes(Path(out), recipe)
    return model, tokenizer
