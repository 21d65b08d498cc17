"""A policy of this run answers through vLLM, offline and in this process, with its LoRA adapter laid on by request.

The same protocol as `engines.local`: prompts go in as token ids, so that no special token is added twice, an answer ends at
`protocol.end_tokens`, and of the model's generation_config vLLM reads nothing. Greedy answers are those of Transformers
wherever two logits are not equal up to rounding; sampled ones follow the same distribution with draws of vLLM's own, from
each prompt's seed. What was run, and what it takes to install: docs/engines.md.

vllm, torch and transformers are imported when called.
"""

import importlib.util
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

from clinical_r1.engines.protocol import check_prompts, end_tokens, until_end
from clinical_r1.files import read_json
from clinical_r1.models import load_tokenizer, precision, resolve_base
from clinical_r1.prompts import render_chat
from clinical_r1.settings import Settings

RANKS = (8, 16, 32, 64, 128, 256, 512)  # of adapters that vLLM can set room aside for
COLDEST = 0.01  # vLLM samples at this temperature where a lower one is asked for
# Only where the user has not said otherwise. One process, so that nothing is left on the card when it is killed; no report of
# use to the makers; no page of log for each start.
ENVIRONMENT = {
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_LOGGING_LEVEL": "ERROR",
}
ON_A_CPU = {"VLLM_CPU_KVCACHE_SPACE": "2", "VLLM_CPU_OMP_THREADS_BIND": "nobind"}  # 2 GiB; no core of its own

_running: dict[tuple, object] = {}  # at most one vLLM a process, by what it was started for
_requests: dict[tuple, int] = {}  # number of each adapter, by its files; vLLM keeps adapters by number


def check_vllm(settings: Settings, adapter: str | Path | None = None) -> int:
    """The adapter rank that vLLM has to set room aside for, 0 for none; nothing is loaded.

    ImportError where vLLM is not installed. ValueError for what it cannot answer with: 4-bit weights, a temperature below
    `COLDEST`, an adapter that is none or of a rank above the highest of `RANKS`.
    """
    if "vllm" not in sys.modules and importlib.util.find_spec("vllm") is None:
        raise ImportError(
            "engine 'vllm' is not installed; pip install 'clinical_r1[vllm]' or use engine 'transformers'."
        )
    if settings.load_in_4bit:
        raise ValueError(
            "engine 'vllm' answers with whole weights and load_in_4bit is set; set it to False or use engine 'transformers'."
        )
    if 0 < settings.eval_temperature < COLDEST:
        raise ValueError(
            f"vLLM would sample at {COLDEST} where eval_temperature {settings.eval_temperature} is asked for; use engine "
            "'transformers', or 0 for greedy answers."
        )
    rank = max(settings.lora_rank, _rank_of(Path(adapter)) if adapter is not None else 0)
    if rank > RANKS[-1]:
        what = adapter if adapter is not None else "lora_rank"
        raise ValueError(
            f"{what} is of rank {rank} and vLLM has room for adapters up to rank {RANKS[-1]}; use engine 'transformers'."
        )
    return next(allowed for allowed in RANKS if allowed >= rank) if rank else 0


def _rank_of(adapter: Path) -> int:
    """The highest rank that an adapter has in any matrix."""
    try:
        values = read_json(adapter / "adapter_config.json")
        return max(int(rank) for rank in (values["r"], *(values.get("rank_pattern") or {}).values()))
    except (FileNotFoundError, KeyError, TypeError) as error:
        raise ValueError(
            f"{adapter} holds no LoRA adapter with a rank ({type(error).__name__}: {error}); expected an adapter_config.json "
            "with r, as training leaves it."
        ) from error


def load(name: str, settings: Settings, adapter: str | Path | None = None) -> "Vllm":
    """An engine that answers with a base model (Hub id, folder or "clinic-base"), and a trained adapter laid on it.

    Engines of one base share one vLLM; for another base it is closed and started anew. Errors as `check_vllm`.
    """
    from transformers import AutoConfig

    rank, base = check_vllm(settings, adapter), resolve_base(name)
    config, dtype, tokenizer = AutoConfig.from_pretrained(base), precision(settings), load_tokenizer(name)
    room = settings.max_prompt_tokens + 2 * settings.max_completion_tokens  # what is forced may be an answer
    room = min(room, getattr(config, "max_position_embeddings", None) or room)
    shape = SimpleNamespace(config=SimpleNamespace(max_position_embeddings=room))
    shape.generation_config = _generation_config(base, config)
    end_tokens(shape, tokenizer)  # refused before minutes of loading
    llm = _start(base, dtype, rank, room, settings.threads)
    return Vllm(llm, shape, tokenizer, dtype, _request(adapter) if adapter is not None else None)


def _generation_config(base: str, config):
    """What `model.generation_config` would be; read from the config where there is no such file."""
    from transformers import GenerationConfig

    try:
        return GenerationConfig.from_pretrained(base)
    except OSError:
        return GenerationConfig.from_model_config(config)


def _start(base: str, dtype: str, rank: int, room: int, threads: int):
    """vLLM's `LLM` on a base, the one that runs if it will do."""
    key = (base, _state(base), dtype, room)
    for (*there, kept), llm in _running.items():
        if (*there,) == key and kept >= rank:
            return llm
    close()
    import torch

    on_cpu = not torch.cuda.is_available()
    for variable, value in (ENVIRONMENT | (ON_A_CPU if on_cpu else {})).items():
        os.environ.setdefault(variable, value)
    import vllm

    lora = {"enable_lora": True, "max_lora_rank": rank, "max_loras": 1} if rank else {}
    llm = vllm.LLM(
        base,
        dtype=dtype,
        max_model_len=room,
        generation_config="vllm",
        skip_tokenizer_init=True,  # it sees token ids only
        enforce_eager=on_cpu,  # nothing to compile for, minutes to wait for
        **lora,
    )
    if on_cpu:
        torch.set_num_threads(threads)
    _running[(*key, rank)] = llm
    return llm


def close() -> None:
    """Stop the vLLM of this process, if there is one, and free its memory; engines that share it cannot answer any more."""
    while _running:
        _, llm = _running.popitem()
        llm.llm_engine.engine_core.shutdown()
        del llm
        from vllm.distributed import cleanup_dist_env_and_memory

        cleanup_dist_env_and_memory()


def _state(folder: str | Path) -> tuple:
    """Files of a folder with size and time, so that weights trained again in it are loaded again; empty for a Hub id."""
    files = sorted(Path(folder).iterdir()) if Path(folder).is_dir() else ()
    return tuple((path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in files)


def _request(adapter: str | Path):
    from vllm.lora.request import LoRARequest

    number = _requests.setdefault((str(adapter), _state(adapter)), len(_requests) + 1)
    return LoRARequest(f"adapter-{number}", number, str(adapter))


class Vllm:
    """An engine (`engines.protocol`) around a running vLLM; `load` makes it."""

    def __init__(self, llm, shape, tokenizer, dtype: str, adapter=None):
        self.llm, self.shape, self.tokenizer, self.dtype, self.adapter = llm, shape, tokenizer, dtype, adapter

    @property
    def identity(self) -> dict:
        """{"answered_in": what the weights are answered in, such as "bfloat16"}; the settings name the engine."""
        return {"answered_in": self.dtype}

    def prompt(self, messages: list[dict], forced: str = "") -> str:
        return render_chat(self.tokenizer, messages) + forced

    def check(self, prompts: Sequence[str], settings: Settings, what: str) -> None:
        check_prompts(self.shape, self.tokenizer, prompts, settings, what)

    def answer(
        self, prompts: Sequence[str], settings: Settings, protocol: str, seeds: Sequence[int]
    ) -> list[dict]:
        """`tokens` and text end before the first end token. RuntimeError where vLLM gave an answer up."""
        from vllm import SamplingParams

        ends = end_tokens(self.shape, self.tokenizer)
        sampling = {"temperature": 0.0}
        if protocol == "sampled" and settings.eval_temperature > 0:
            sampling = {"temperature": settings.eval_temperature, "top_p": settings.eval_top_p}
        common = {"max_tokens": settings.max_completion_tokens, "stop_token_ids": ends, "detokenize": False}
        ids = self.tokenizer(list(prompts), add_special_tokens=False)["input_ids"]
        outputs = self.llm.generate(
            [{"prompt_token_ids": row} for row in ids],
            [SamplingParams(**sampling, **common, seed=seed) for seed in seeds],
            use_tqdm=False,
            lora_request=self.adapter,
        )
        return [self._answer(output.outputs[0], ends) for output in outputs]

    def _answer(self, completion, ends: list[int]) -> dict:
        reason = completion.finish_reason
        if reason not in ("stop", "length"):
            raise RuntimeError(
                f"vLLM ended an answer after {len(completion.token_ids)} tokens with {reason!r}; expected 'stop' or 'length': "
                "see its log (VLLM_LOGGING_LEVEL=INFO)."
            )
        kept, _ = until_end(completion.token_ids, ends)
        text = self.tokenizer.decode(kept, skip_special_tokens=True)
        return {"text": text, "finish_reason": reason, "tokens": len(kept)}
