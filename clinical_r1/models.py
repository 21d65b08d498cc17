"""Load a policy: Unsloth on CUDA, Transformers + PEFT elsewhere; and the clinic base model, its tokenizer and its making.

torch, transformers, peft and unsloth are imported when called. Unsloth must come before trl and transformers, so
`load_backend` is the first call of every process that trains.
"""

import hashlib
import importlib.util
import json
import math
from importlib import resources
from pathlib import Path

import numpy as np

from clinical_r1.clinic import LETTERS, LEVELS, draw_cases, vignette
from clinical_r1.clinic_text import BASE, vocabulary, write_drill, write_trace
from clinical_r1.files import same_settings
from clinical_r1.prompts import CLINIC_DRILLS, CLINIC_INSTRUCTIONS, STYLES, build_messages, render_question
from clinical_r1.questions import Question

CLINIC_BASE = "clinic-base"
PAD, END, USER, ASSISTANT, UNKNOWN = "<|pad|>", "<|end|>", "<|user|>", "<|assistant|>", "<|unknown|>"
CHAT_TEMPLATE = (
    "{% for message in messages %}{% if message['role'] == 'user' %}" + USER + " {{ message['content'] }} "
    "{% else %}" + ASSISTANT + " {{ message['content'] }} " + END + "{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}" + ASSISTANT + " {% endif %}"
)
PRETRAIN = {"steps": 3000, "batch": 32, "learning_rate": 3e-3, "seed": 20251201}
# Shares of the corpus. Answered cases are what the base is like; the drills teach a small model to read, fast.
PRETRAIN_SHARES = {"findings": 0.1, "options": 0.15, "evidence": 0.3, "answered": 0.45}
PRETRAIN_MIX = {"clinic": 0.6, "clinic-shift": 0.2, "clinic-expert": 0.2}

COLD_START = "cold_start"
# The settings a trained policy depends on; a result made with others is refused, not reused.
TRAINED_ON = (
    "base_model", "backend", "lora_rank", "lora_alpha", "train_benchmark", "n_sft", "sft_epochs", "sft_batch",
    "sft_learning_rate", "teacher_traces",
)  # fmt: skip
RL_ON = TRAINED_ON + (
    "n_rl", "rl_steps", "rl_prompts", "num_generations", "rl_learning_rate", "rl_beta", "rl_temperature",
    "max_completion_tokens", "micro_batch",
)  # fmt: skip


def load_backend(name: str = "trl") -> str:
    """Import what must come first. Returns "unsloth" or "trl"; with "unsloth" asked for and absent, ImportError."""
    if name != "unsloth":
        return "trl"
    if importlib.util.find_spec("unsloth") is None:
        raise ImportError(
            "backend 'unsloth' is not installed; pip install 'clinical_r1[gpu]' or use backend 'trl'."
        )
    try:
        import unsloth  # noqa: F401
    except NotImplementedError as error:
        raise ImportError(
            f"backend 'unsloth' needs a GPU ({error}); use the cpu profile or backend 'trl'."
        ) from error
    return "unsloth"


def clinic_base_path() -> Path:
    """Folder of the shipped base model, after its sha256 has been checked. ValueError when a file differs."""
    folder = Path(str(resources.files("clinical_r1").joinpath("data/clinic_base")))
    check_hashes(folder)
    return folder


def check_hashes(folder: Path) -> None:
    """Compare every file with `sha256.json`. ValueError names the file, what was got and the mend."""
    try:
        listed = json.loads((folder / "sha256.json").read_text())
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f"{folder} holds no base model (sha256.json is missing); rebuild it with "
            "`python -m clinical_r1.clinic pretrain --out DIR` or reinstall the package."
        ) from error
    for name, expected in listed["files"].items():
        path = folder / name
        got = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "no file"
        if got != expected:
            raise ValueError(
                f"base model file {name} has sha256 {got[:12]}…, expected {expected[:12]}…: it was changed or truncated. "
                "Reinstall the package, or rebuild the model with `python -m clinical_r1.clinic pretrain --out DIR`."
            )


def resolve_base(name: str) -> str:
    """A base model's folder or Hub id."""
    return str(clinic_base_path()) if name == CLINIC_BASE else name


def policy_of(settings, method: str, seed: int) -> tuple[str, Path | None]:
    """What to load for a method: (base model or folder of merged weights, adapter folder or None)."""
    start = settings.base_model
    if method.startswith(COLD_START):
        start = str(settings.model_dir(COLD_START, seed) / "policy")
    if method in ("baseline", COLD_START):
        return start, None
    trained = settings.model_dir(method, seed) / "policy"
    return (start, trained) if settings.lora_rank else (str(trained), None)


def is_trained(settings, arm: str, seed: int) -> bool:
    """True when the arm is complete on disk. ValueError when it was trained with other settings."""
    return same_settings(
        settings.model_dir(arm, seed) / "done.json", settings, TRAINED_ON if arm == COLD_START else RL_ON
    )


def load_tokenizer(name: str):
    """Left-padded tokenizer of a base model or a trained folder."""
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(resolve_base(name), padding_side="left")


def load_policy(name: str, settings, adapter: str | Path | None = None, trainable: bool = False):
    """A model ready to generate or train, with a LoRA adapter laid on when one is given.

    `name` is a base model (Hub id, folder or "clinic-base"). With backend "unsloth" the model comes from FastLanguageModel,
    and a trainable one carries its fresh adapter already; plain TRL lays the adapter itself (`lora_config`).
    """
    import torch

    if settings.backend == "unsloth":
        from unsloth import FastLanguageModel

        model, _ = FastLanguageModel.from_pretrained(
            str(adapter) if adapter else resolve_base(name),
            max_seq_length=settings.max_prompt_tokens + settings.max_completion_tokens,
            load_in_4bit=settings.load_in_4bit,
            dtype=getattr(torch, settings.device_dtype),
            fast_inference=settings.use_vllm,
            max_lora_rank=max(settings.lora_rank, 8),
        )
        if trainable and settings.lora_rank:
            model = FastLanguageModel.get_peft_model(
                model, r=settings.lora_rank, lora_alpha=settings.lora_alpha
            )
        return model
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(
        resolve_base(name), dtype=getattr(torch, settings.device_dtype)
    )
    if adapter is not None:
        from peft import PeftModel

        model = PeftModel.from_pretrained(model, str(adapter), is_trainable=False)
    return model.to("cuda") if torch.cuda.is_available() else model


def lora_config(settings):
    """PEFT configuration of the settings, or None for full fine-tuning."""
    if not settings.lora_rank:
        return None
    from peft import LoraConfig

    return LoraConfig(
        r=settings.lora_rank,
        lora_alpha=settings.lora_alpha,
        target_modules="all-linear",
        task_type="CAUSAL_LM",
    )


# ------------------------------------------------------------------------------------------- the clinic base model


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
        num_key_value_heads=4, max_position_embeddings=512, tie_word_embeddings=True, rope_parameters={"rope_type": "default", "rope_theta": 1e6},
        bos_token_id=None, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id,
        initializer_range=0.05,  # wider than the usual 0.02: copying from the prompt is learned several times sooner
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return Qwen2ForCausalLM(config)


def clinic_question(case, benchmark="clinic") -> Question:
    return Question(
        "pretrain",
        benchmark,
        "pretrain",
        vignette(case),
        dict(zip(LETTERS, case.options, strict=False)),
        case.letter,
        {},
    )


def pretraining_corpus(n: int, seed: int, habits=BASE):
    """n (user text, completion) pairs of mixed quality.

    Most are cases answered in either style by a hasty, error-prone hand; the others are plain drills (the letter of each
    option, the bearing of each finding), which teach reading and medicine without teaching how to answer.
    """
    rng = np.random.default_rng(seed)
    pools = {
        name: draw_cases(name, "pretrain", max(200, int(min(n, 20_000) * share)))
        for name, share in PRETRAIN_MIX.items()
    }
    names = rng.choice(list(PRETRAIN_MIX), n, p=list(PRETRAIN_MIX.values()))
    kinds = rng.choice(list(PRETRAIN_SHARES), n, p=list(PRETRAIN_SHARES.values()))
    for name, kind in zip(names, kinds, strict=True):
        case = pools[name][int(rng.integers(len(pools[name])))]
        question = clinic_question(case, name)
        if kind != "answered":
            yield (
                CLINIC_DRILLS[kind] + "\n" + render_question(question),
                write_drill(case, kind, rng),
            )
            continue
        style = STYLES[int(rng.integers(2))]
        yield build_messages(question, style, "clinic")[0]["content"], write_trace(case, style, habits, rng)


def encode_supervised(tokenizer, pairs) -> list[dict]:
    """input_ids and labels of (user text, completion) pairs: the loss covers the completion and the end mark only."""
    prompts = [f"{USER} {user} {ASSISTANT} " for user, _ in pairs]
    prompt_ids = tokenizer(prompts, add_special_tokens=False)["input_ids"]
    answer_ids = tokenizer([f"{text} {END}" for _, text in pairs], add_special_tokens=False)["input_ids"]
    return [
        {"input_ids": prompt + answer, "labels": [-100] * len(prompt) + answer}
        for prompt, answer in zip(prompt_ids, answer_ids, strict=True)
    ]


def pretrain_clinic_base(out, steps=PRETRAIN["steps"], seed=PRETRAIN["seed"], habits=BASE):
    """Make the clinic base model in `out`: tokenizer, safetensors, and sha256.json over all of it.

    About ten minutes on two cores. The stand-in for an instruction-tuned base: knows some medicine, anchors, hallucinates,
    keeps the asked-for format part of the time.
    """
    import torch
    from datasets import Dataset
    from transformers import DataCollatorForSeq2Seq, Trainer, TrainingArguments, set_seed

    out = Path(out)
    set_seed(seed)
    tokenizer = build_clinic_tokenizer()
    model = build_clinic_model(tokenizer, seed)
    batch = PRETRAIN["batch"]
    rows = encode_supervised(tokenizer, list(pretraining_corpus(steps * batch, seed, habits)))
    arguments = TrainingArguments(
        output_dir=str(out), max_steps=steps, per_device_train_batch_size=batch, seed=seed, report_to=[],
        learning_rate=PRETRAIN["learning_rate"], lr_scheduler_type="cosine", warmup_steps=math.ceil(steps / 20),
        weight_decay=0.01, logging_steps=50, save_strategy="no", train_sampling_strategy="group_by_length", use_cpu=not torch.cuda.is_available(),
    )  # fmt: skip
    collator = DataCollatorForSeq2Seq(tokenizer, padding=True, label_pad_token_id=-100)
    Trainer(model, arguments, train_dataset=Dataset.from_list(rows), data_collator=collator).train()
    model.generation_config.update(
        do_sample=True, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id
    )
    model.save_pretrained(out)
    tokenizer.save_pretrained(out)
    write_hashes(
        out, {"steps": steps, "seed": seed, "command": "python -m clinical_r1.clinic pretrain --out DIR"}
    )
    return model, tokenizer


def write_hashes(folder: Path, recipe: dict) -> None:
    """sha256.json: the hash of every file beside it, and how they were made."""
    files = {
        p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(folder.iterdir()) if p.is_file()
    }
    files.pop("sha256.json", None)
    (folder / "sha256.json").write_text(
        json.dumps({"recipe": recipe, "levels": list(LEVELS), "files": files}, indent=1)
    )
