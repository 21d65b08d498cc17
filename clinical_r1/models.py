"""Load a policy: Unsloth or Transformers + PEFT behind one interface; the clinic base model with its hashes checked.

torch, transformers, peft and unsloth are imported when called. Unsloth must come before trl and transformers, so
`load_backend` is the first call of every process that trains. Both backends train LoRA of the same rank on the same
matrices, and both generate through `model.generate`.
"""

import importlib.util
import os
import sys
from functools import cache
from pathlib import Path

from clinical_r1.bases.folders import check_model_folder, folder_of
from clinical_r1.bases.precision import chosen, native_bfloat16, say_if_emulated
from clinical_r1.files import PACKAGE, compare_hashes, read_json, write_json
from clinical_r1.settings import CLINIC_BASE

PATCHED_BY_UNSLOTH = ("trl", "transformers", "peft")

# What PEFT's "all-linear" finds in Qwen2 and its relatives; Unsloth takes names only.
LORA_TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
# For a tokenizer that brings no chat template; its assistant turn ends with the end token
PLAIN_TEMPLATE = (
    "{% for message in messages %}{{ message['role'].capitalize() }}: {{ message['content'] }}"
    "{{ eos_token if message['role'] == 'assistant' else '\n\n' }}{% endfor %}"
    "{% if add_generation_prompt %}Assistant:{% endif %}"
)
VLLM_MEMORY = 0.45  # share of the card that colocated vLLM takes; weights, gradients and logits need the rest


def load_backend(name: str = "trl") -> str:
    """Import what must come first. Returns "unsloth" or "trl".

    ImportError, with "unsloth" asked for: it is not installed, finds no GPU, or comes too late, after a library that it
    patches while it is imported (the message names which).
    """
    if name != "unsloth":
        return "trl"
    if not _is_installed("unsloth"):
        raise ImportError(
            "backend 'unsloth' is not installed; pip install 'clinical_r1[gpu]' or use backend 'trl'."
        )
    if late := _imported_before_unsloth():
        raise ImportError(
            f"Unsloth imported too late: {', '.join(late)} came before it and would stay unpatched. Call "
            "models.load_backend('unsloth') first, in a fresh process or kernel, or use backend 'trl'."
        )
    try:
        import unsloth
    except NotImplementedError as error:
        raise ImportError(
            f"backend 'unsloth' needs a GPU ({error}); use the cpu profile or backend 'trl'."
        ) from error
    if getattr(unsloth, "DEVICE_TYPE", "cuda") == "cpu":  # it then hands out stock Transformers on the CPU
        raise ImportError(
            "backend 'unsloth' needs a GPU and found none; use the cpu profile or backend 'trl'."
        )
    return "unsloth"


def _imported_before_unsloth() -> list[str]:
    """What came first. Nothing when Unsloth is already there: it then warned at its own import and keeps no record."""
    return (
        [name for name in PATCHED_BY_UNSLOTH if name in sys.modules] if "unsloth" not in sys.modules else []
    )


def _is_installed(package: str) -> bool:
    return package in sys.modules or importlib.util.find_spec(package) is not None


@cache
def _say(sentence: str) -> None:
    """Once in a process, where a run's log shows it."""
    print(sentence, file=sys.stderr, flush=True)


def clinic_base_path() -> Path:
    """Folder of the shipped base model, after its sha256 has been checked. ValueError when a file differs."""
    folder = PACKAGE / "data" / "clinic_base"
    check_hashes(folder)
    return folder


def check_hashes(folder: Path) -> None:
    """Compare every file with `sha256.json`. ValueError names the file, what was got and how to fix it."""
    if not (folder / "sha256.json").is_file():
        raise FileNotFoundError(
            f"{folder} holds no base model (sha256.json is missing); rebuild it with "
            "`python -m clinical_r1.clinic pretrain --out DIR` or reinstall the package."
        )
    compare_hashes(
        folder,
        "Reinstall the package, or rebuild the model with `python -m clinical_r1.clinic pretrain --out DIR`.",
    )


def resolve_base(name: str) -> str:
    """A base model's folder, or a Hub id without a revision: see `bases.folders`."""
    return str(clinic_base_path()) if name == CLINIC_BASE else folder_of(name)


def load_tokenizer(name: str):
    """Left-padded tokenizer of a base model or a trained folder, with a pad token and a chat template.

    The clinic's tokenizer is a generic one beside a Qwen model; AutoTokenizer would rebuild it as Qwen's and lose its
    decoder, so what the folder says it is decides. Without a pad token the unknown token pads, or else the end token; without a
    chat template `PLAIN_TEMPLATE` serves. Either is said.
    """
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    folder = resolve_base(name)
    check_model_folder(folder, ("tokenizer",))
    config = Path(folder) / "tokenizer_config.json"
    generic = config.is_file() and read_json(config).get("tokenizer_class") == "TokenizersBackend"
    tokenizer = (PreTrainedTokenizerFast if generic else AutoTokenizer).from_pretrained(
        folder, padding_side="left"
    )
    if tokenizer.pad_token is None:
        distinct = tokenizer.unk_token not in (None, tokenizer.eos_token)
        tokenizer.pad_token = tokenizer.unk_token if distinct else tokenizer.eos_token
        if tokenizer.pad_token is None:
            raise ValueError(
                f"the tokenizer of {name} has no pad, unknown or end token; name its eos_token in tokenizer_config.json."
            )
        _say(f"the tokenizer of {name} has no pad token: {tokenizer.pad_token!r} pads.")
    if tokenizer.chat_template is None:
        tokenizer.chat_template = PLAIN_TEMPLATE
        _say(f"the tokenizer of {name} has no chat template: a plain one serves (models.PLAIN_TEMPLATE).")
    return tokenizer


def precision(settings) -> str:
    """ "float32", "bfloat16" or "float16": what the settings ask for ("auto": `bases.precision`), or float16 on a card without
    bfloat16 (a T4).
    """
    wanted = settings.device_dtype
    if wanted == "auto":
        wanted = chosen(settings, lambda: _shape(settings.base_model))
    if wanted != "bfloat16" or native_bfloat16():
        return wanted
    _say("this GPU has no bfloat16: float16 is used instead.")
    return "float16"


def _shape(name: str) -> tuple[int, int]:
    """(width, inner width) of a base model's layers."""
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(resolve_base(name))
    return config.hidden_size, getattr(config, "intermediate_size", None) or 4 * config.hidden_size


def load_policy(
    name: str,
    settings,
    adapter: str | Path | None = None,
    trainable: bool = False,
    seed: int = 0,
    rollouts: bool = False,
):
    """A model ready to generate or train, with a trained LoRA adapter laid on when one is given.

    name: base model (Hub id, folder or "clinic-base"). The adapter is laid on this base whatever path its own
        configuration remembers, so a run that was moved still loads.
    trainable: with backend "unsloth" the model carries its fresh adapter already, drawn from `seed`; plain TRL lays the
        adapter itself (`lora_config`).
    rollouts: the model is going to make GRPO's rollouts, so Unsloth starts vLLM beside it where the settings say so.
    ValueError for 4-bit weights that are to be trained in full, or without a CUDA device. ImportError as `load_backend`,
    and for 4-bit weights without bitsandbytes.
    """
    if settings.load_in_4bit and trainable and not settings.lora_rank:
        raise ValueError(
            "4-bit weights cannot be trained in full; set lora_rank above 0 or load_in_4bit to False."
        )
    base = resolve_base(name)
    check_model_folder(base, ("config", "weights"))
    if load_backend(settings.backend) == "unsloth":
        return _load_with_unsloth(base, settings, adapter, trainable, seed, rollouts)
    return _load_with_transformers(base, settings, adapter, trainable)


def _load_with_unsloth(base, settings, adapter, trainable, seed, rollouts):
    from unsloth import FastLanguageModel  # isort: skip  (first: it patches the others)
    import torch

    checkpointing = "unsloth" if settings.gradient_checkpointing else False
    model, _ = FastLanguageModel.from_pretrained(
        base,
        max_seq_length=settings.max_prompt_tokens + settings.max_completion_tokens,
        dtype=getattr(torch, precision(settings)),
        load_in_4bit=settings.load_in_4bit,
        full_finetuning=trainable and not settings.lora_rank,
        use_exact_model_name=True,  # not a mirror of it that was quantised elsewhere
        use_gradient_checkpointing=checkpointing,
        fast_inference=rollouts and rollout_arguments(settings)["use_vllm"],
        gpu_memory_utilization=VLLM_MEMORY,
        max_lora_rank=max(settings.lora_rank, 8),
        random_state=seed,
    )
    if adapter is not None:
        from peft import PeftModel

        model = PeftModel.from_pretrained(model, str(adapter), is_trainable=False)
    if not trainable:
        return FastLanguageModel.for_inference(model)
    if not settings.lora_rank:
        return model
    return FastLanguageModel.get_peft_model(
        model,
        r=settings.lora_rank,
        lora_alpha=settings.lora_alpha,
        lora_dropout=0.0,
        bias="none",
        target_modules=list(LORA_TARGETS),
        use_gradient_checkpointing=checkpointing,
        random_state=seed,
    )


def _load_with_transformers(base, settings, adapter, trainable):
    import torch
    from safetensors import SafetensorError
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging

    logging.disable_progress_bar()  # a bar for every model buries the pipeline's own
    dtype = precision(settings)
    if settings.device_dtype == "bfloat16" and not torch.cuda.is_available():
        say_if_emulated(*_shape(base))
    if trainable and not settings.lora_rank and dtype == "float16":
        dtype = "float32"  # the gradient scaler refuses float16 weights; LoRA keeps its own in float32
    options = {"dtype": getattr(torch, dtype)}
    device = None
    if torch.cuda.is_available():
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)))  # accelerate's: a process a card
        options["attn_implementation"] = "sdpa"
    if settings.load_in_4bit:
        options |= {"quantization_config": _four_bit(dtype), "device_map": {"": device}}
    try:
        model = AutoModelForCausalLM.from_pretrained(base, **options)
    except (
        SafetensorError,
        ValueError,
    ) as error:  # Transformers lists every model that it knows: one line will do
        raise ValueError(
            f"{base} cannot be loaded as a language model ({str(error).splitlines()[0]}); download it whole again, or name "
            "another base model."
        ) from error
    if adapter is not None:
        from peft import PeftModel

        model = PeftModel.from_pretrained(model, str(adapter), is_trainable=False)
    return model if device is None or settings.load_in_4bit else model.to(device)


def _four_bit(dtype: str):
    """NF4 with doubly quantised constants (QLoRA, Dettmers et al. 2023); what Unsloth does too."""
    import torch
    from transformers import BitsAndBytesConfig

    if not torch.cuda.is_available():
        raise ValueError(
            "load_in_4bit needs a CUDA device, got none; set load_in_4bit to False or use the cpu profile."
        )
    if not _is_installed("bitsandbytes"):
        raise ImportError(
            "load_in_4bit needs bitsandbytes, which is not installed; pip install bitsandbytes, or set load_in_4bit to False."
        )
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=getattr(torch, dtype),
    )


def float32_adapter(model, settings) -> None:
    """Give trainable weights float32 where training is scaled float16: TRL makes a 4-bit model's adapter bfloat16.

    Call it on the trainer's model before `train`. Nothing changes on other settings.
    """
    if precision(settings) == "float16":
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.data = parameter.data.float()


def rollout_arguments(settings) -> dict:
    """GRPOConfig keywords of the rollouts: vLLM in the trainer's own process, or Transformers.

    Where vLLM is asked for and not installed, Transformers serves, at most `eval_batch` completions at a time (one
    micro-batch at least) so that the cache fits; the policy is the same for all of a step's completions either way.
    """
    if not settings.use_vllm:
        return {"use_vllm": False}
    if _is_installed("vllm"):
        return {
            "use_vllm": True,
            "vllm_mode": "colocate",
            "vllm_gpu_memory_utilization": VLLM_MEMORY,
            "vllm_max_model_length": settings.max_prompt_tokens + settings.max_completion_tokens,
        }
    _say(
        "vllm is not installed: rollouts use Transformers, many times slower; pip install 'clinical_r1[vllm]'."
    )
    passes = settings.rl_prompts * settings.num_generations // settings.micro_batch
    fitting = max(1, settings.eval_batch // settings.micro_batch)
    return {"use_vllm": False, "steps_per_generation": largest_divisor(passes, fitting)}


def largest_divisor(number: int, limit: int) -> int:
    """The largest divisor of a number that is at most `limit`, at least 1."""
    return max(divisor for divisor in range(1, min(number, limit) + 1) if number % divisor == 0)


def merge_adapter(name: str, adapter: str | Path, settings):
    """The base with a trained LoRA adapter added into its weights: a plain Transformers model, on the CPU.

    The sum is always taken on the base as published, in the settings' precision, never on 4-bit weights: adding into those
    would round the adapter to the grid of the quantised values. So the merged model of a 4-bit run differs from what was
    trained by the quantisation error of the base alone.
    ValueError when the base itself is a quantised checkpoint.
    """
    import torch
    from peft import PeftModel
    from transformers import AutoConfig, AutoModelForCausalLM
    from transformers.utils import logging

    logging.disable_progress_bar()
    base = resolve_base(name)
    if getattr(AutoConfig.from_pretrained(base), "quantization_config", None):
        raise ValueError(
            f"{name} is a quantised checkpoint and an adapter cannot be merged into it; name the unquantised model as "
            "base_model and set load_in_4bit."
        )
    model = AutoModelForCausalLM.from_pretrained(base, dtype=getattr(torch, precision(settings)))
    return PeftModel.from_pretrained(model, str(adapter), torch_device="cpu").merge_and_unload()


def merged(model, start: str, settings, folder: Path):
    """The adapter in its base's own weights. 4-bit or shared with vLLM, those cannot take it: it goes through a file."""
    if settings.backend == "trl" and not settings.load_in_4bit:
        return model.merge_and_unload()
    model.save_pretrained(folder / "adapter")
    return merge_adapter(start, folder / "adapter", settings)


def save_policy(model, tokenizer, folder: Path) -> None:
    """All that `load_policy` and `load_tokenizer` read, in the same bytes for the same policy.

    PEFT's own file lists a set, in any order, and names the base by this machine's path, which nothing here reads.
    """
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    (folder / "README.md").unlink(missing_ok=True)  # PEFT's, empty but for that path
    if (path := folder / "adapter_config.json").exists():
        values = read_json(path) | {"base_model_name_or_path": None}
        write_json(path, values | {"target_modules": sorted(values["target_modules"])})


def load(name: str, settings, seed: int, rollouts: bool = False):
    """(model, tokenizer, adapter) to train from a base model or a folder of whole weights.

    adapter: the LoRA that TRL is to lay on; None for full fine-tuning, and with Unsloth, whose model carries it already.
    """
    model = load_policy(name, settings, trainable=True, seed=seed, rollouts=rollouts)
    return model, load_tokenizer(name), lora_config(settings) if settings.backend == "trl" else None


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
