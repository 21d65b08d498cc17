"""The one place where scale lives: frozen profiles of the same run.

``smoke`` checks that everything runs, ``cpu`` really learns on two cores, ``laptop`` does so with a real language model of 135 M
parameters, ``colab`` is the same on one 16 GB card, ``paper`` is the 3B run. ``published`` is ``cpu`` with more seeds and
questions: the pages' run. Nothing else in the package branches on scale.
"""

import math
from dataclasses import asdict, dataclass, fields, replace
from functools import cache
from pathlib import Path

from clinical_r1.arms import ARMS, METHODS
from clinical_r1.labels import CLINIC_BENCHMARKS, PAPER_BENCHMARKS

CLINIC_BASE = "clinic-base"
PROTOCOLS = ("sampled", "greedy")  # the paper's sampling, and greedy decoding beside it


@dataclass(frozen=True)
class Settings:
    """Everything a run depends on. Times and sizes of each profile stand in the README."""

    profile: str
    out: str = "."  # runs/ and figures/ are made under this folder
    seeds: tuple[int, ...] = (0,)
    methods: tuple[str, ...] = METHODS
    benchmarks: tuple[str, ...] = CLINIC_BENCHMARKS
    outside: tuple[
        tuple[str, str], ...
    ] = ()  # (model, benchmark) of answers that came from elsewhere (`extensions`)
    own_file: str | None = None  # name of the user's own file that this run was made with

    # policy
    base_model: str = CLINIC_BASE  # the shipped model, a folder, or a Hub id
    backend: str = "trl"  # "trl" | "unsloth"
    use_vllm: bool = False
    load_in_4bit: bool = False
    device_dtype: str = "float32"  # "auto" measures once a run which is fast here (`bases.precision`)
    lora_rank: int = 32  # 0 means full fine-tuning
    lora_alpha: int = 32

    # questions: how many of each split are used; None means all
    train_benchmark: str = "clinic"
    n_sft: int | None = 2000
    n_rl: int | None = 2000
    n_test: int | None = 500
    n_test_of: tuple[tuple[str, int], ...] = ()  # (benchmark, number) of sets that have another number

    # cold start
    sft_epochs: float = 2.0
    sft_batch: int = 32
    sft_micro_batch: int | None = None  # rows per forward-backward pass; None means micro_batch
    sft_learning_rate: float = 1e-3
    teacher_traces: str | None = None  # JSON Lines: id, style, text; None: the clinic's scripted teacher

    # reinforcement learning; k of eq. 4 and the other weights live in rewards.REWARD_SETS
    rl_steps: int = 100
    rl_prompts: int = 8  # P, prompts per step
    num_generations: int = 8  # G
    rl_learning_rate: float = 1e-3
    rl_beta: float = 0.001
    rl_temperature: float = 1.0
    max_prompt_tokens: int = 128
    max_completion_tokens: int = 112
    micro_batch: int = 64  # completions per forward-backward pass, divides rl_prompts * num_generations
    gradient_checkpointing: bool = False
    shared_prefix: bool = True  # encode each prompt once per group; equal to stock TRL up to rounding
    draws: str = "inverse_cdf"  # | "stock": how Transformers' next tokens are drawn (`speed.draws`); TRL alone: its own
    save_steps: int = 25

    # evaluation: the paper's sampling (one sample per question), then greedy beside it
    engine: str = "transformers"  # "transformers" | "vllm": what answers (`engines`)
    eval_temperature: float = 0.8
    eval_top_p: float = 0.95
    eval_samples: int = 1  # > 1 adds majority voting
    eval_greedy: bool = True
    eval_batch: int = 125

    # causality: does the reasoning move the answer? (`clinical_r1.causality`; the clinic only)
    probe_questions: int = (
        60  # test questions of train_benchmark that each arm and seed is probed with; 0 leaves it out
    )
    probe_also: tuple[
        str, ...
    ] = ()  # arms that are trained and probed besides `methods`, and stand in no other table
    direct_seeds: int = 0  # the first so many seeds get the direct control, which is the dear one

    # machine
    workers: int = 1  # arms trained at the same time, each in its own process
    threads: int = 1  # CPU threads of each
    disk_gb: float = 0.5  # free space asked for before a run starts

    def __post_init__(self):
        _check_values(self)
        if (
            self.micro_batch % self.num_generations
            or (self.rl_prompts * self.num_generations) % self.micro_batch
        ):
            raise ValueError(
                f"micro_batch {self.micro_batch} must be a multiple of num_generations {self.num_generations} and divide "
                f"rl_prompts * num_generations = {self.rl_prompts * self.num_generations}: change one of the three."
            )
        unknown = {*self.methods, *self.probe_also} - set(ARMS)
        if unknown:
            raise ValueError(f"methods {sorted(unknown)} are not known; expected some of {tuple(ARMS)}.")

    @property
    def run_dir(self) -> Path:
        return Path(self.out) / "runs" / self.profile

    @property
    def figures_dir(self) -> Path:
        return Path(self.out) / "figures" / self.profile

    @property
    def published_dir(self) -> Path:
        """What README and docs/ speak of. No run writes here; `--publish` does."""
        return Path(self.out) / "figures" / "published" / PUBLISHED_AS.get(self.profile, self.profile)

    @property
    def prompt_layout(self) -> str:
        """The clinic's base model knows a tiny vocabulary and gets the compact prompts; every other model the full ones.

        Known by its tokenizer, so that it is still the clinic's when rebuilt, or trained further in a folder of its own.
        """
        own = Path(self.base_model) / "tokenizer.json"
        clinic = (
            self.base_model == CLINIC_BASE
            or own.is_file()
            and _reads_compact_prompts(own, own.stat().st_mtime_ns)
        )
        return "clinic" if clinic else "full"

    @property
    def base_profile(self) -> str:
        """The profile of this package that the run is made from."""
        return self.profile.partition("-")[0]

    def test_size(self, benchmark: str) -> int | None:
        """How many test questions of a benchmark are asked; None means all."""
        return dict(self.n_test_of).get(benchmark, self.n_test)

    @property
    def probed(self) -> tuple[str, ...]:
        """Arms that the probes of causality ask."""
        return tuple(dict.fromkeys((*self.methods, *self.probe_also)))

    @property
    def command(self) -> str:
        """What makes this run."""
        if not self.own_file:
            return f"./reproduce.sh {self.profile}"
        return f"./reproduce.sh {self.base_profile} --with {self.own_file}"

    # where a run keeps its files (architecture: everything expensive is joined through files on disk)

    def questions_path(self, benchmark: str, split: str) -> Path:
        return self.run_dir / "questions" / f"{benchmark}.{split}.jsonl"

    def model_dir(self, arm: str, seed: int) -> Path:
        return self.run_dir / "models" / arm / f"seed{seed}"

    def completions_path(self, benchmark: str, method: str, seed: int, protocol: str = "sampled") -> Path:
        return self._records("completions", benchmark, method, seed, protocol)

    def scores_path(self, benchmark: str, method: str, seed: int, protocol: str = "sampled") -> Path:
        return self._records("scores", benchmark, method, seed, protocol)

    def _records(self, kind, benchmark, method, seed, protocol) -> Path:
        suffix = "" if protocol == "sampled" else f".{protocol}"
        return self.run_dir / kind / benchmark / f"{method}.seed{seed}{suffix}.jsonl"

    def evaluations(self) -> list[tuple[str, int, str, str]]:
        """(method, seed, benchmark, protocol) of every completion file the tables need, one model's files together."""
        return [
            (method, seed, benchmark, protocol)
            for method in self.methods
            for seed in self.seeds
            for benchmark in self.benchmarks
            for protocol in (PROTOCOLS if self.eval_greedy else PROTOCOLS[:1])
        ] + [(model, self.seeds[0], benchmark, PROTOCOLS[0]) for model, benchmark in self.outside]

    def to_json(self) -> dict:
        """Plain values, without the output folder (a run may be moved)."""
        values = asdict(self)
        del values["out"]
        return values


@cache
def _reads_compact_prompts(tokenizer: Path, _) -> bool:
    """Whether an instruction of `prompts.CLINIC_INSTRUCTIONS` is one of its words."""
    return '"Reason in two systems and conclude."' in tokenizer.read_text(encoding="utf-8")


AT_LEAST_ONE = (
    "sft_batch", "rl_steps", "rl_prompts", "max_prompt_tokens", "max_completion_tokens", "micro_batch", "save_steps",
    "eval_samples", "eval_batch", "workers", "threads", "sft_micro_batch",
)  # fmt: skip
NOT_NEGATIVE = (
    "sft_epochs", "sft_learning_rate", "rl_learning_rate", "rl_beta", "rl_temperature", "lora_rank", "lora_alpha", "disk_gb",
    "eval_temperature", "probe_questions", "direct_seeds",
)  # fmt: skip


def _check_values(settings: Settings) -> None:
    """ValueError for a value of another kind than the field's, or out of its range."""
    kinds = {"int": int, "float": int | float, "bool": bool, "str": str}
    for item in fields(settings):
        kind, *none = getattr(item.type, "__name__", str(item.type)).split(" | ")
        value = getattr(settings, item.name)
        if kind not in kinds or (value is None and none):
            continue
        right = isinstance(value, kinds[kind]) and (kind == "bool" or not isinstance(value, bool))
        if right and kind == "str" and (not value.strip() or "\n" in value):
            raise ValueError(f"{item.name} is {value!r}; expected a text of one line that is not empty.")
        if not right or (kind == "float" and not math.isfinite(value)):
            raise ValueError(
                f"{item.name} is {value!r}; expected {'a finite number' if kind == 'float' else kind}."
            )
    lowest = (
        dict.fromkeys(AT_LEAST_ONE, 1)
        | dict.fromkeys(NOT_NEGATIVE, 0)
        | {"num_generations": 2, "n_sft": 0, "n_rl": 0, "n_test": 1}
    )
    for name, known in (
        ("backend", ("trl", "unsloth")),
        ("draws", ("inverse_cdf", "stock")),
        ("engine", ("transformers", "vllm")),
        ("device_dtype", ("auto", "float32", "bfloat16", "float16", "float64")),
    ):
        if getattr(settings, name) not in known:
            raise ValueError(f"{name} is {getattr(settings, name)!r}; expected one of {', '.join(known)}.")
    for name, low in lowest.items():
        value = getattr(settings, name)
        if value is not None and value < low:
            raise ValueError(f"{name} is {value!r}; expected at least {low}.")
    if not settings.rl_temperature > 0:
        raise ValueError(
            f"rl_temperature is {settings.rl_temperature!r}; expected more than 0: greedy rollouts are all one."
        )
    if not 0 < settings.eval_top_p <= 1:
        raise ValueError(f"eval_top_p is {settings.eval_top_p!r}; expected a share above 0, at most 1.")
    _check_sets(settings)


def _check_sets(settings: Settings) -> None:
    """ValueError unless seeds, methods, benchmarks and the like are tuples of their kind, nothing in them twice."""
    for name, kind in (("seeds", int), ("methods", str), ("benchmarks", str), ("probe_also", str)):
        values = getattr(settings, name)
        if not isinstance(values, tuple) or not all(type(value) is kind for value in values):
            raise ValueError(f"{name} is {values!r}; expected a tuple of {kind.__name__}.")
        if len(set(values)) < len(values):
            raise ValueError(f"{name} names {values}, one of them twice; name each once.")
    pairs = settings.outside if isinstance(settings.outside, tuple) else (None,)
    if not all(isinstance(p, tuple) and [*map(type, p)] == [str, str] for p in pairs):
        raise ValueError(f"outside is {settings.outside!r}; expected pairs of a model and a benchmark.")
    sizes = settings.n_test_of if isinstance(settings.n_test_of, tuple) else (None,)
    if not all(isinstance(p, tuple) and [*map(type, p)] == [str, int] and p[1] > 0 for p in sizes):
        raise ValueError(
            f"n_test_of is {settings.n_test_of!r}; expected pairs of a benchmark and a number of questions."
        )
    if min(settings.seeds, default=0) < 0:
        raise ValueError(f"seeds is {settings.seeds}; expected whole numbers of at least 0.")


CPU = Settings(profile="cpu", workers=2)
# The run behind the published pages (docs/claims.md): fixed before it starts. It is published in place of `cpu`.
PUBLISHED = replace(
    CPU,
    profile="published",
    seeds=tuple(range(10)),
    n_test=1000,
    n_test_of=(("clinic", 2000),),
    probe_questions=200,
    probe_also=("exact_tally",),
    direct_seeds=3,
)
PUBLISHED_AS = {PUBLISHED.profile: CPU.profile}
# Training seeds of the laboratory's arms: those of CLAIM_FAMILIES carry a claim of the paper or of these pages
CLAIM_FAMILIES = ("main", "k", "terms", "aggregator", "grounded")
LABORATORY_SEEDS, LABORATORY_QUESTIONS = {"claim": 8, "rest": 5}, 1000
SPARE_SEEDS, SPARE_STEPS = (101, 102), (100, 200)  # that decide how many steps the published run takes
SMOKE = replace(
    CPU,
    profile="smoke",
    n_sft=64,
    n_rl=32,
    n_test=16,
    sft_epochs=1.0,
    rl_steps=2,
    rl_prompts=2,
    num_generations=4,
    micro_batch=8,
    save_steps=1,
    eval_batch=16,
    probe_questions=8,
)

# The revision is the one that public code pins for this model; a local copy serves instead where there is one, and is named
# (`bases.folders`).
SMOLLM2 = "HuggingFaceTB/SmolLM2-135M-Instruct@12fd25f77366fa6b3b4b768ec3050bf629380bac"
# A real language model on two cores. The base alone does not find the format, so both RL arms leave the cold start.
LAPTOP = replace(
    CPU,
    profile="laptop",
    methods=("baseline", "cold_start_grpo", "cold_start_crpo"),
    base_model=SMOLLM2,
    device_dtype="auto",
    n_sft=240,
    n_rl=400,
    n_test=100,  # a set; 200 would take as long as all the training
    sft_epochs=1.0,
    sft_batch=4,
    sft_micro_batch=2,
    sft_learning_rate=1e-3,
    rl_steps=40,
    rl_prompts=2,
    num_generations=8,
    rl_learning_rate=2e-4,
    max_prompt_tokens=512,
    max_completion_tokens=192,
    micro_batch=8,
    gradient_checkpointing=True,  # half the memory; on a CPU no slower
    save_steps=5,
    eval_greedy=False,  # one protocol fits into the hour
    eval_batch=50,
    probe_questions=100,
    disk_gb=5.0,
)

# `laptop` on one T4: 16 GB, no bfloat16, with more of everything. Nothing has to be brought: the clinic's questions and its
# teacher are part of the package, the model is free. Colab may stop at any time, so a checkpoint every 10 steps.
COLAB = replace(
    LAPTOP,
    profile="colab",
    seeds=(0, 1, 2),
    device_dtype="float16",
    n_sft=1000,
    n_rl=1000,
    n_test=500,
    sft_batch=16,
    sft_micro_batch=8,
    rl_steps=100,
    rl_prompts=8,
    micro_batch=16,
    save_steps=10,
    eval_greedy=True,
    eval_batch=125,
    workers=1,  # one card
    disk_gb=10.0,
)

# Memory below is arithmetic, not measured. The cache takes 2 x layers x key-value heads x head size x 2 bytes a token, logits
# and their gradient 3 x 151,936 x 2 bytes a completion token, LoRA 16 bytes a weight (value, gradient, two moments).

# Batch, beta and temperature of the CRPO runs are not in the paper: these are the released GRPO script's. Its learning rate
# (1e-6) is for full fine-tuning; LoRA takes ten times that. Its 1,024 tokens would cut the longest prompts of MedQA and
# MedXpertQA, and a prompt that does not fit is refused here.
# One card of 48 GB or more: weights 6.2 GB; LoRA (60 M weights) 1.0 GB; logits of 5 x 4,096 tokens 18.7 GB without a fused
# head; vLLM 45 % of the card (models.VLLM_MEMORY), weights of its own included. Without vLLM, and in evaluation, the cache
# of 128 completions takes up to 27 GB (37 kB a token). A step is 2,560 completions: a checkpoint every 10 of them.
PAPER = Settings(
    profile="paper",
    benchmarks=PAPER_BENCHMARKS,
    base_model="Qwen/Qwen2.5-3B-Instruct",
    backend="unsloth",
    use_vllm=True,
    device_dtype="bfloat16",
    lora_alpha=16,
    train_benchmark="medqa",
    n_sft=None,
    n_rl=None,
    n_test=None,
    sft_epochs=13.0,
    sft_batch=256,
    sft_learning_rate=1e-4,
    rl_steps=180,
    rl_prompts=512,
    num_generations=5,
    rl_learning_rate=1e-5,
    rl_temperature=0.6,
    max_prompt_tokens=1536,
    max_completion_tokens=4096,
    micro_batch=5,
    gradient_checkpointing=True,
    save_steps=10,
    engine="vllm",
    eval_batch=128,
    disk_gb=60.0,
)
PROFILES = {settings.profile: settings for settings in (SMOKE, CPU, LAPTOP, COLAB, PAPER, PUBLISHED)}


def settings_for(profile: str, out: str | Path = ".", seeds: int | tuple[int, ...] | None = None) -> Settings:
    """A profile's settings, written under `out`; `seeds` is a count (seeds 0..n-1) or the seeds themselves.

    Raises ValueError for an unknown profile or no seeds.
    """
    if profile not in PROFILES:
        raise ValueError(f"profile {profile!r} is not known; expected one of {', '.join(PROFILES)}.")
    settings = replace(PROFILES[profile], out=str(out))
    if seeds is None:
        return settings
    seeds = tuple(range(seeds)) if isinstance(seeds, int) else tuple(seeds)
    if not seeds:
        raise ValueError("seeds must name at least one seed, got none; pass --seeds 1 or more.")
    return replace(settings, seeds=seeds)


def settings_from_json(values: dict, out: str | Path = ".") -> Settings:
    """The inverse of `Settings.to_json`; ValueError names a field that does not exist."""
    known = {item.name for item in fields(Settings)} - {"out"}
    if not isinstance(values, dict) or "profile" not in values:
        raise ValueError(
            f"settings are {str(values)[:80]!r}; expected what `Settings.to_json` writes, its profile at least."
        )
    if unknown := sorted(set(values) - known):
        raise ValueError(f"settings name {unknown}; expected some of {', '.join(sorted(known))}.")

    def tuples(value):
        return tuple(map(tuples, value)) if isinstance(value, list) else value

    return Settings(**{key: tuples(value) for key, value in values.items()}, out=str(out))
