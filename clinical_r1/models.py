"""Load a policy: Unsloth on CUDA, Transformers + PEFT elsewhere; the clinic base model with its hashes checked.

torch, transformers, peft and unsloth are imported when called. Unsloth must come before trl and transformers, so
`load_backend` is the first call of every process that trains.
"""

import hashlib
import importlib.util
import json
from dataclasses import asdict, replace
from functools import cache
from importlib import resources
from pathlib import Path

from clinical_r1.arms import ARMS
from clinical_r1.files import code_hash, same_settings
from clinical_r1.rewards import REWARD_SETS

CLINIC_BASE = "clinic-base"
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
    if method == COLD_START or ARMS[method].cold_start:
        start = str(settings.model_dir(COLD_START, seed) / "policy")
    if method in ("baseline", COLD_START):
        return start, None
    trained = settings.model_dir(method, seed) / "policy"
    return (start, trained) if settings.lora_rank else (str(trained), None)


def is_trained(settings, arm: str, seed: int) -> bool:
    """True when the arm is complete on disk. ValueError when it was trained with other settings or reward rules."""
    stamp = settings.model_dir(arm, seed) / "done.json"
    if arm == COLD_START:
        return same_settings(stamp, settings, TRAINED_ON)
    return same_settings(stamp, settings_of(settings, arm), RL_ON, **arm_stamp(arm))


def settings_of(settings, arm: str):
    """The settings as an arm changes them."""
    return replace(settings, **dict(ARMS[arm].changes))


def arm_stamp(arm: str) -> dict:
    """What an arm's result depends on besides the settings: the reward rules, and for an ablation its own record."""
    spec, stamp = ARMS[arm], {"reward_rules": reward_rules()}
    if spec.family != "main":
        stamp["arm"] = asdict(spec)
    if spec.rewards not in REWARD_SETS:
        stamp["variant_rules"] = code_hash("reward_variants", "VARIANT_SETS")[:16]
    if spec.rewards == "grounded":
        stamp["grounded_rules"] = code_hash("grounded", "REWARDS")[:16]
    return stamp


@cache
def reward_rules() -> str:
    """What the rewards and the prompts are made of, as 16 digits: an arm trained under other rules is another arm."""
    parts = [
        code_hash("completions", "parse_completion", "remove_box", "Completion"),
        code_hash("rewards", "REWARD_SETS"),
        code_hash("prompts", "build_messages"),
    ]
    return hashlib.sha256(" ".join(parts).encode()).hexdigest()[:16]


def weights_hash(settings, method: str, seed: int) -> str:
    """sha256 (16 digits) of the weights a method answers with: its own, and those it was laid on; a Hub id as it is."""
    base, adapter = policy_of(settings, method, seed)
    folders = [Path(resolve_base(base)), *([adapter] if adapter else [])]
    files = [path for folder in folders for path in sorted(folder.glob("*.safetensors"))]
    digest = hashlib.sha256(b"" if folders[0].is_dir() else base.encode())
    for path in files:
        state = path.stat()
        digest.update(_file_hash(path, state.st_size, state.st_mtime_ns))
    return digest.hexdigest()[:16]


@cache
def _file_hash(path: Path, size: int, modified: int) -> bytes:
    """sha256 of a file, read once while it stays as it is: merged 3B weights are asked for by every completion file."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").digest()


def load_tokenizer(name: str):
    """Left-padded tokenizer of a base model or a trained folder.

    The clinic's tokenizer is a generic one beside a Qwen model; AutoTokenizer would rebuild it as Qwen's and lose its
    decoder, so what the folder says it is decides.
    """
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    folder = resolve_base(name)
    config = Path(folder) / "tokenizer_config.json"
    generic = config.is_file() and json.loads(config.read_text())["tokenizer_class"] == "TokenizersBackend"
    return (PreTrainedTokenizerFast if generic else AutoTokenizer).from_pretrained(
        folder, padding_side="left"
    )


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
    from transformers.utils import logging

    logging.disable_progress_bar()  # a bar for every model buries the pipeline's own
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


def write_hashes(folder: Path, recipe: dict) -> None:
    """sha256.json: the hash of every file beside it, and how they were made."""
    files = {
        p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(folder.iterdir()) if p.is_file()
    }
    files.pop("sha256.json", None)
    (folder / "sha256.json").write_text(json.dumps({"recipe": recipe, "files": files}, indent=1))
