"""A trained arm as a folder that stands alone: merged weights, tokenizer, model card; and, if asked, on the Hub.

    python -m clinical_r1.pipeline export --profile cpu --method crpo --seed 0 --to DIR [--push ORG/NAME] [--public] [--out ROOT]

The folder appears whole or not at all, and an existing one is never written into. LoRA is added into the unquantised base,
also after 4-bit training (`models.merge_adapter`); fully trained weights are copied. The card's numbers come from the run's
own tables, and only when those were made from this very policy. What was measured and what is exported are not always the same
weights: the card says on which, in which precision, and how many greedy answers the exported ones repeat.
"""

import os
import shutil
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from clinical_r1.arms import ARMS, CHAT
from clinical_r1.artifacts import (
    DONE,
    PREFERENCE_ON,
    RL_ON,
    TRAINED_ON,
    hashes_of,
    is_trained,
    policy_hash,
    policy_of,
    settings_of,
)
from clinical_r1.completions import parse_completion
from clinical_r1.engines.local import Transformers
from clinical_r1.files import PipelineError, read_json, read_stamp, write_text
from clinical_r1.generate import read_completions
from clinical_r1.models import load_tokenizer, merge_adapter, precision
from clinical_r1.pipeline.ledger import read_tables
from clinical_r1.pipeline.manifest import read_manifest
from clinical_r1.questions import read_questions
from clinical_r1.settings import CLINIC_BASE, PROTOCOLS, SMOLLM2, Settings
from clinical_r1.tables import interval, markdown, number

WARNING = "Teaching and research material. Not a medical device, not medical advice, not for clinical use."
TRAINING_STAGE, EVALUATION_STAGE = "03_crpo_training", "04_benchmark_evaluation"

# base model -> card metadata; Qwen2.5-3B is not under Apache-2.0 as its sisters are
LICENCES = {name: {"license": "apache-2.0"} for name in (CLINIC_BASE, SMOLLM2)}
LICENCES["Qwen/Qwen2.5-3B-Instruct"] = {
    "license": "other",
    "license_name": "qwen-research",
    "license_link": "https://huggingface.co/Qwen/Qwen2.5-3B-Instruct/blob/main/LICENSE",
}
WEIGHTS_AND_TOKENIZER = (
    "*.safetensors",
    "model.safetensors.index.json",
    "config.json",
    "generation_config.json",
    "tokenizer*.json",
    "special_tokens_map.json",
    "vocab.json",
    "merges.txt",
    "chat_template.jinja",
)


def export(settings: Settings, method: str, seed: int, target: str | Path) -> Path:
    """Write a trained arm to `target`: safetensors, configuration, tokenizer, README.md. Returns the folder.

    ValueError: the arm is not trained, was trained with other settings, or its answers came from another policy. PipelineError:
    its tables were made from other scores. FileExistsError: `target` holds something; nothing is overwritten.
    """
    target = Path(target).resolve()
    _refuse_unready(settings, method, seed)
    base, adapter = policy_of(settings, method, seed)
    measured(settings, method, seed)  # what may not be exported is found before the weights are merged
    with _whole_or_nothing(target) as folder:
        if adapter is None:
            _copy_weights(Path(base), folder)
        else:
            merge_adapter(base, adapter, settings).save_pretrained(folder)
            load_tokenizer(base).save_pretrained(folder)
        exported = Exported(hashes_of(folder), _dtype(folder), greedy_letters(settings, method, seed, folder))
        write_text(folder / "README.md", model_card(settings, method, seed, exported))
    return target


@dataclass(frozen=True)
class Exported:
    """What a card says of the folder it lies in: sha256 of each file, precision of the weights, result of `greedy_letters`."""

    hashes: dict[str, str]
    dtype: str
    letters: tuple[int, int, str] | None


def _dtype(folder: Path) -> str:
    config = read_json(folder / "config.json")
    return config.get("dtype") or config["torch_dtype"]


def greedy_letters(settings: Settings, method: str, seed: int, folder: Path) -> tuple[int, int, str] | None:
    """(letters that are the same, answers, benchmark): exported weights on the first batch that the run has answered greedily.

    Loaded as the card says. None where this policy has no greedy answers, or where only a GPU could give them in a bearable time.
    """
    import torch
    from transformers import AutoModelForCausalLM

    rows = measured(settings, method, seed)
    asked = [] if rows is None else [b for b in settings.benchmarks if b in set(rows["benchmark"])]
    asked = [b for b in asked if settings.completions_path(b, method, seed, "greedy").is_file()]
    if not asked or not (settings.prompt_layout == "clinic" or torch.cuda.is_available()):
        return None
    before = read_completions(settings, asked[0], method, seed, "greedy")[: settings.eval_batch]
    model = AutoModelForCausalLM.from_pretrained(folder).to("cuda" if torch.cuda.is_available() else "cpu")
    prompts = [row["prompt"] for row in before]
    engine = Transformers(model, load_tokenizer(str(folder)))
    after = engine.answer(prompts, settings, "greedy", [0] * len(prompts))
    options = {q.id: q.options for q in read_questions(settings.questions_path(asked[0], "test"))}
    pairs = [
        [
            parse_completion(text, row["style"], options[row["id"]]).letter
            for text in (row["text"], new["text"])
        ]
        for row, new in zip(before, after, strict=True)
    ]
    return sum(old == new for old, new in pairs), len(pairs), asked[0]


def _refuse_unready(settings, method, seed) -> None:
    trainable = set(ARMS) - {"baseline"}
    if method not in trainable:
        raise ValueError(
            f"method {method!r} has no weights of its own; expected one of {', '.join(sorted(trainable))}."
        )
    if not is_trained(settings, method, seed):
        raise ValueError(
            f"{method} with seed {seed} is not trained in {settings.run_dir}; run `{settings.command}` first "
            "or name another --out."
        )


@contextmanager
def _whole_or_nothing(target: Path):
    """A folder beside `target` to write into, renamed to it at the end and removed on failure."""
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise FileExistsError(f"{target} is not empty; name a new folder (nothing is overwritten).")
    target.parent.mkdir(parents=True, exist_ok=True)
    folder = target.with_name(f".{target.name}.{os.getpid()}")
    folder.mkdir()
    try:
        yield folder
        os.replace(folder, target)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _copy_weights(source: Path, folder: Path) -> None:
    if "quantization_config" in read_json(source / "config.json"):
        raise ValueError(
            f"{source} holds quantised weights, expected whole ones; train the arm again with this version."
        )
    for pattern in WEIGHTS_AND_TOKENIZER:
        for path in source.glob(pattern):
            shutil.copy2(path, folder / path.name)


# ------------------------------------------------------------------------------------------------------- model card


def model_card(settings: Settings, method: str, seed: int, exported: Exported) -> str:
    """README.md of an exported arm: YAML front matter for the Hub, then what it is, its numbers, and how it was made."""
    path = settings.run_dir / "manifest.json"
    manifest = read_manifest(path) if path.is_file() else {}
    rows = measured(settings, method, seed)
    title = f"{settings.profile}-{method}-seed{seed}".replace("_", "-")
    base = public_name(settings.base_model)
    parts = [
        f"---\n{_front_matter(settings, method, title, rows)}\n---",
        f"# {title}",
        f"**{WARNING}**",
        _what_it_is(settings, method, seed, base),
        "## Measured",
        _numbers(settings, seed, rows),
        "## These weights",
        _weights(settings, method, seed, rows, exported),
        "## Use",
        _use(settings, method),
        "## How it was made",
        _provenance(settings, method, seed, manifest),
        "## Limits",
        "It answers multiple-choice questions and was rewarded for doing so. Its reasoning can be wrong where its letter is "
        "right, and it can invent findings. The counts above are means over responses; no clinician has reviewed any.",
    ]
    return "\n\n".join(parts) + "\n"


def public_name(base_model: str) -> str:
    """A base model as a card may name it: a Hub id without its revision, "clinic-base", or the last part of a folder."""
    folder = Path(base_model)
    return folder.name if folder.is_absolute() or folder.is_dir() else base_model.partition("@")[0]


def measured(settings: Settings, method: str, seed: int):
    """Table 1's rows of a method on the benchmarks that this seed has answered, or None where there are none.

    ValueError when the answers were made by another policy than that on disk: the table would describe another model.
    PipelineError when the table was made from other scores (`ledger.read_tables`), or is gone alone.
    """
    path = settings.run_dir / "tables" / "table1.csv"
    if not path.is_file() and not path.with_name("ledger.csv").is_file():
        return None
    import pandas as pd

    read_tables(settings)
    if not path.is_file():
        raise PipelineError(
            f"{path} is gone and the ledger beside it is not; run `{settings.command} --only 04` or move tables/ away."
        )
    table = pd.read_csv(path)
    rows = table[table["method"] == method]
    now, answered = policy_hash(settings, method, seed), []
    for benchmark in rows["benchmark"].unique():
        for answers in _answer_files(settings, benchmark, method, seed):
            if (made := read_stamp(answers, "generate")["policy"]) != now:
                raise ValueError(
                    f"table1.csv does not describe {method} with seed {seed}: {answers} holds answers of the policy {made}, the "
                    f"arm is {now}; run `{settings.command} --only 04` or move tables/ away."
                )
            answered.append(benchmark)
    return rows[rows["benchmark"].isin(answered)] if answered else None


def _answer_files(settings, benchmark, method, seed) -> list[Path]:
    """Those of the sampled and the greedy answers that are on disk."""
    paths = (settings.completions_path(benchmark, method, seed, protocol) for protocol in PROTOCOLS)
    return [path for path in paths if path.is_file()]


def _front_matter(settings, method, title, rows) -> str:
    from huggingface_hub import EvalResult, ModelCardData

    results = []
    if rows is not None:
        results = [
            EvalResult(
                task_type="question-answering",
                dataset_type=row.benchmark,
                dataset_name=row.benchmark,
                metric_type="accuracy",
                metric_name=f"accuracy, % (95 % interval {row.ci_low:.1f} to {row.ci_high:.1f}, n = {row.n}, "
                f"training seeds = {row.seeds})",
                metric_value=float(row.value),
            )
            for row in rows[rows["metric"] == "accuracy"].itertuples()
        ]
    data = ModelCardData(
        base_model=public_name(settings.base_model),
        library_name="transformers",
        pipeline_tag="text-generation",
        language="en",
        tags=["clinical-reasoning", "grpo", "trl", method.replace("_", "-"), "not-for-clinical-use"],
        model_name=title if results else None,
        eval_results=results or None,
        **LICENCES.get(settings.base_model, {"license": "other", "license_name": "as-the-base-model"}),
    )
    return data.to_yaml().strip()


def _what_it_is(settings, method, seed, base) -> str:
    if ARMS[method].data:
        how = f'the stage "{ARMS[method].label}" after reinforcement learning'
    elif ARMS[method].stage == "sft":
        how = "fine-tuned on teacher traces (the cold start, before reinforcement learning)"
    else:
        how = f'trained by reinforcement learning, arm "{ARMS[method].label}"'
    form = "LoRA, merged into the base's weights" if settings.lora_rank else "all weights trained"
    return (
        f"{base}, {how}; {form}. Seed {seed} of the `{settings.profile}` profile of clinical_r1, a reproduction of CRPO "
        "(Clinical Objective Relative Policy Optimization, arXiv:2512.00601)."
    )


def _numbers(settings, seed, rows) -> str:
    if rows is None:
        return "This model has not been evaluated: its run holds no table with its results."
    lines = [
        [
            row.benchmark,
            row.metric.replace("_", " ") + (", %" if row.metric == "accuracy" else ""),
            number(row.value),
            interval(row.ci_low, row.ci_high, 2),
            str(row.n),
            str(row.seeds),
            number(row.coverage, 3),
        ]
        for row in rows.itertuples()
    ]
    seeds = rows["seeds"].max()
    pooled = f" Means over the method's {seeds} training seeds, of which this is one." if seeds > 1 else ""
    return (
        f"Table 1 of the `{settings.profile}` run: one sampled answer a question, n questions, 95 % intervals; accuracy counts "
        f"an unparsed answer as wrong, coverage is the share that parsed, the other rows are counts per response.{pooled}\n\n"
        + markdown(["benchmark", "measure", "value", "interval", "n", "seeds", "coverage"], lines)
    )


def _weights(settings, method, seed, rows, exported: Exported) -> str:
    """On what the numbers were measured, what the folder holds, what was compared, and the hash of every file."""
    _, adapter = policy_of(settings, method, seed)
    lines = [
        f"Exported: {'the trained weights' if adapter is None else 'adapter and base, merged'}, in {exported.dtype}."
    ]
    if rows is not None:
        files = [
            path for b in rows["benchmark"].unique() for path in _answer_files(settings, b, method, seed)
        ]
        precision = " and ".join(sorted({read_stamp(path, "generate")["answered_in"] for path in files}))
        laid = "these weights" if adapter is None else "the adapter beside its base"
        lines += [f"The numbers above were measured on {laid}, in {precision}."]
        if precision != exported.dtype:
            lines += [
                "That is not the exported precision: single answers may differ, and so may the numbers."
            ]
    if exported.letters:
        equal, n, benchmark = exported.letters
        lines += [
            f"Asked the first questions of {benchmark} again, the exported weights gave {equal} of {n} greedy letters"
        ]
        lines[-1] += " equal."
    else:
        lines += ["The exported weights themselves were not asked again."]
    table = markdown(["file", "sha256"], [[f"`{name}`", value] for name, value in exported.hashes.items()])
    return " ".join(lines) + "\n\n" + table


def _use(settings, method) -> str:
    style = repr(ARMS[method].style) if ARMS[method].stage == "rl" else "'crpo' or 'grpo'"
    style = repr(CHAT) if ARMS[method].data else style
    return (
        f"Prompts come from `clinical_r1.prompts.messages_of(question, {style}, {settings.prompt_layout!r})`; the model "
        "knows no other. The tokenizer pads on the left.\n\n```python\nfrom transformers import AutoModelForCausalLM\n\n"
        "from clinical_r1.models import load_tokenizer\n\n"
        "model, tokenizer = AutoModelForCausalLM.from_pretrained(FOLDER), load_tokenizer(FOLDER)\n```"
    )


def _provenance(settings, method, seed, manifest) -> str:
    stages, git = manifest.get("stages", {}), manifest.get("git", {})
    values = settings_of(settings, method)
    keys = {"sft": TRAINED_ON, "preference": PREFERENCE_ON}.get(ARMS[method].stage, RL_ON)
    made = [
        ["seed", str(seed)],
        [
            "notebook 03 last ran at commit",
            (stages.get(TRAINING_STAGE) or {}).get("git_sha") or "not recorded",
        ],
        [
            "notebook 04 last ran at commit",
            (stages.get(EVALUATION_STAGE) or {}).get("git_sha") or "not recorded",
        ],
        ["uncommitted changes", {True: "yes", False: "no"}.get(git.get("dirty"), "not recorded")],
        ["policy", policy_hash(settings, method, seed)],
        ["precision", precision(settings) + (", trained on a 4-bit base" if settings.load_in_4bit else "")],
    ]
    versions = read_json(settings.model_dir(method, seed) / DONE).get("versions", {})
    made += [[f"trained with {name}", version] for name, version in versions.items()]
    made += [[key, _shown(getattr(values, key))] for key in keys]
    return markdown(["setting", "value"], [[f"`{name}`", value] for name, value in made])


def _shown(value) -> str:
    """A setting without the path of a machine."""
    return public_name(value) if isinstance(value, str) else str(value)


# -------------------------------------------------------------------------------------------------------------- Hub


def check_destination(repo: str) -> str:
    """The access token, after the name has been checked. ValueError for a bad name, PermissionError without a token."""
    import huggingface_hub
    from huggingface_hub.utils import HFValidationError, validate_repo_id

    try:
        validate_repo_id(repo)
    except HFValidationError as error:
        raise ValueError(f"{repo!r} is no name on the Hub; expected ORG/NAME.") from error
    if repo.count("/") != 1:
        raise ValueError(f"{repo!r} names no owner; expected ORG/NAME.")
    token = huggingface_hub.get_token()
    if token is None:
        raise PermissionError(
            "pushing needs an access token and none was found; run `hf auth login` or set HF_TOKEN."
        )
    return token


def push(folder: str | Path, repo: str, private: bool = True) -> str:
    """Upload an exported folder to the Hub and return its address. Private unless told otherwise.

    ValueError: a bad name, or a repository that exists and is public while a private one was asked for. PermissionError:
    no token. ConnectionError: the Hub was not reached or refused. No message holds the token.
    """
    import httpx
    import huggingface_hub
    from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

    token = check_destination(repo)
    hub = huggingface_hub.HfApi(token=token)
    failure = None
    try:
        hub.create_repo(repo, private=private, exist_ok=True)
        if private and not hub.model_info(repo).private:
            raise ValueError(
                f"{repo} exists and is public; name a new repository, or pass --public to publish."
            )
        hub.upload_folder(repo_id=repo, folder_path=folder, commit_message="Merged weights and model card")
    except (HfHubHTTPError, OfflineModeIsEnabled, httpx.HTTPError, OSError) as error:
        failure = f"{type(error).__name__}: {error}".replace(token, "[token]")
    if failure:  # raised outside, so that no traceback carries the original text
        raise ConnectionError(
            f"{repo} was not pushed ({failure}). The export in {folder} is whole; fix the cause, then "
            f"`hf upload {repo} {folder}{' --private' if private else ''}`."
        )
    return f"https://huggingface.co/{repo}"


# ----------------------------------------------------------------------------------------------------- command line


def export_and_push(
    settings: Settings, method: str, seed: int, to: str, repo: str | None = None, public=False
) -> None:
    """`export`, then `push` where a repository is named; its name is checked before the weights are merged."""
    if repo:
        check_destination(repo)
    print(f"wrote {export(settings, method, seed, to)}")
    if repo:
        print(f"pushed to {push(to, repo, private=not public)}")
