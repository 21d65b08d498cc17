"""A base model's folder: the Hub's files at a pinned revision, or what stands for them in the folder CLINICAL_R1_MODELS.

A base model is named "owner/name@revision". Where `CLINICAL_R1_MODELS` names a folder with `<name>/` or with one
`<name>.<kind of numbers>.gguf` (letter case aside), that serves instead, without a network, and is said: its weights may be
quantised and are then not the Hub's. A GGUF file is converted once, into a folder of `cache_folder()` that is named by the
file's sha256.
"""

import os
import re
import sys
from functools import cache
from pathlib import Path

from clinical_r1.files import (
    PipelineError,
    compare_hashes,
    digest,
    locked,
    read_json,
    whole_folder,
    write_hashes,
)

MODELS_VARIABLE = "CLINICAL_R1_MODELS"
# What Transformers reads of a model repository: no copies for other programs, and no Python
NEEDED = ("*.json", "*.safetensors", "*.jinja", "*.txt", "tokenizer.model")
TOKENIZERS = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt", "spiece.model")
NUMBERS = (
    r"(?:i?q|tq)\d\w*|b?fp?\d+|mxfp4|imat|i1|ud"  # q4_1, iq3_xxs, f16, bf16, ... and how they were chosen
)
# special tokens: name in Transformers -> field of a GGUF file that holds the token's number
SPECIAL = {
    "bos_token": "tokenizer.ggml.bos_token_id",
    "eos_token": "tokenizer.ggml.eos_token_id",
    "unk_token": "tokenizer.ggml.unknown_token_id",
    "pad_token": "tokenizer.ggml.padding_token_id",
}


def cache_folder() -> Path:
    """Where converted models are kept: clinical_r1/ under `XDG_CACHE_HOME`, which is ~/.cache where it is unset."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "clinical_r1"


def hub_name(base: str) -> tuple[str, str | None]:
    """("owner/name", revision or None) of "owner/name@revision".

    >>> hub_name("HuggingFaceTB/SmolLM2-135M-Instruct@12fd25f")
    ('HuggingFaceTB/SmolLM2-135M-Instruct', '12fd25f')
    """
    name, _, revision = base.partition("@")
    return name, revision or None


def folder_of(base: str) -> str:
    """The folder (or the plain Hub id) that a base model is loaded from. base: a folder, "owner/name" or "owner/name@revision".

    ValueError for several files that could be meant, and for a Hub that cannot be reached.
    """
    if Path(base).is_dir():
        return base
    name, revision = hub_name(base)
    if local := _local(name):
        return str(local)
    return name if revision is None else _from_hub(name, revision)


def _local(name: str) -> Path | None:
    """What stands for a Hub model in the folder CLINICAL_R1_MODELS; None where nothing does."""
    given = os.environ.get(MODELS_VARIABLE)
    if not given:
        return None
    folder, wanted = Path(given), name.split("/")[-1].lower()
    if not folder.is_dir():
        raise ValueError(
            f"{MODELS_VARIABLE} names {given}, which is no folder; name one with models, or unset it."
        )
    whole = [path for path in folder.iterdir() if path.is_dir() and path.name.lower() == wanted]
    # Behind the name stand kinds of numbers and no other word: with "-Instruct" it would be another model
    named = re.compile(rf"{re.escape(wanted)}([._-]({NUMBERS}))*\.gguf")
    files = [path for path in folder.iterdir() if path.is_file() and named.fullmatch(path.name.lower())]
    if len(found := sorted(whole + files)) > 1:
        raise ValueError(
            f"{MODELS_VARIABLE} holds {' and '.join(path.name for path in found)} for {name}; leave one of them there."
        )
    if not found:
        return None
    if found[0].is_dir():
        _say(f"{name} is read from {MODELS_VARIABLE} ({found[0].name}), not from the Hub.")
        return found[0]
    return converted(found[0], name)


@cache
def _from_hub(name: str, revision: str) -> str:
    from huggingface_hub import snapshot_download
    from huggingface_hub.utils import HfHubHTTPError, LocalEntryNotFoundError, disable_progress_bars

    disable_progress_bars()
    try:
        folder = snapshot_download(name, revision=revision, allow_patterns=list(NEEDED))
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        raise ValueError(
            f"{name} at revision {revision} could not be fetched from the Hub ({type(error).__name__}); check the network and "
            f"the name, or put the model into a folder that {MODELS_VARIABLE} names."
        ) from error
    return folder


def check_model_folder(base: str, parts=("config", "tokenizer", "weights")) -> None:
    """ValueError for a folder that lacks a configuration, a tokenizer, its weights, or a part of them: names what is missing.

    parts: which of the three are looked for. A Hub id is not looked at.
    """
    folder = Path(base)
    if not folder.is_dir():
        return
    names = {path.name for path in folder.iterdir()}
    missing = []
    if "config" in parts and "config.json" not in names:
        missing.append("config.json")
    if "tokenizer" in parts and not names & set(TOKENIZERS):
        missing.append("a tokenizer (tokenizer.json)")
    if "weights" in parts:
        index = folder / "model.safetensors.index.json"
        if index.name in names:
            missing += sorted({*read_json(index).get("weight_map", {}).values()} - names)
        elif not any(name.endswith(".safetensors") for name in names):
            missing.append("weights (model.safetensors)")
    if missing:
        raise ValueError(
            f"the model folder {folder} lacks {', '.join(missing)}; copy or download it whole, or name another base model."
        )


# ---------------------------------------------------------------------------------------------------------- GGUF


@cache
def converted(source: Path, name: str) -> Path:
    """The folder of a GGUF file's model for Transformers, in float32; converted at its first use, checked at each.

    sha256.json in it has the hash of the source, the kinds of its numbers, and the hash of every file. Rounding of the quantised
    values is part of the weights: they are not those of the Hub.
    ImportError without the package gguf. ValueError for a damaged file. PipelineError while another process converts it, and for
    a cache that cannot be written.
    """
    found = digest(source)
    folder = cache_folder() / "models" / f"{source.stem}-{found[:16]}"
    if not (folder / "sha256.json").exists():
        _make_cache(folder.parent)
        with locked(folder.with_name(f"{folder.name}.lock"), f"the model of {source.name}"):
            with whole_folder(folder) as partial:
                kinds = _convert(source, partial)
                write_hashes(partial, {"source": source.name, "sha256": found, "tensors": kinds})
    compare_hashes(folder, f"Delete {folder}: the next run converts {source.name} again.")
    kinds = read_json(folder / "sha256.json")["recipe"]["tensors"]
    listed = ", ".join(f"{count} in {kind}" for kind, count in kinds.items())
    _say(
        f"{name} is read from {source.name} (sha256 {found[:16]}; tensors: {listed}): quantised weights, not the Hub's."
    )
    return folder


def _make_cache(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        writable = os.access(folder, os.W_OK)
    except OSError:
        writable = False
    if not writable:
        raise PipelineError(
            f"converted models are kept in {folder}, which cannot be written; let XDG_CACHE_HOME name a folder that can."
        )


def _convert(source: Path, folder: Path) -> dict[str, int]:
    """Write model and tokenizer; returns {kind of number: tensors}, the most frequent first."""
    try:
        from gguf import GGUFReader
    except ImportError as error:
        raise ImportError(
            f"{source.name} is a GGUF file, which needs the package gguf; pip install gguf."
        ) from error
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import logging

    logging.disable_progress_bar()
    where = {"pretrained_model_name_or_path": str(source.parent), "gguf_file": source.name}
    try:
        reader = GGUFReader(source)
        model = AutoModelForCausalLM.from_pretrained(**where, dtype=torch.float32)
    except (ValueError, IndexError, KeyError, TypeError, NotImplementedError) as error:
        raise ValueError(
            f"{source} cannot be read as a GGUF file of a chat model ({type(error).__name__}: {error}); download it whole "
            "again, or put another model there."
        ) from error
    # The weights are plain numbers now; with this entry Transformers refuses to save them
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    model.hf_quantizer, model.quantization_method, model.is_quantized = None, None, False
    model.config._name_or_path = ""
    model.save_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(**where)
    for (
        token,
        field,
    ) in SPECIAL.items():  # Transformers 5 takes the first token of a chat for the one that ends it
        if field in reader.fields:
            setattr(tokenizer, token, tokenizer.convert_ids_to_tokens(int(reader.fields[field].contents())))
    tokenizer.name_or_path, tokenizer.clean_up_tokenization_spaces = "", False
    tokenizer.save_pretrained(folder)
    kinds = [tensor.tensor_type.name for tensor in reader.tensors]
    return {
        kind: kinds.count(kind) for kind in sorted(set(kinds), key=lambda kind: (-kinds.count(kind), kind))
    }


@cache
def _say(sentence: str) -> None:
    """Once in a process, where a run's log shows it."""
    print(sentence, file=sys.stderr, flush=True)
