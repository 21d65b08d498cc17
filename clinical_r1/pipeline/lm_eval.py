"""The run's numbers in the results layout of lm-evaluation-harness 0.4, so that its users can read them.

Not the harness's own scoring: the tasks carry our prefix, and `lm_eval_version` says who wrote the file.
"""

import re
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path

import numpy as np
import pandas as pd

from clinical_r1 import paper
from clinical_r1.files import PACKAGE, write_json
from clinical_r1.intervals import wilson_interval
from clinical_r1.metrics import LOWER_IS_BETTER
from clinical_r1.pipeline.ledger import provenance
from clinical_r1.settings import Settings

NORMAL_QUANTILE = 1.959964  # an interval of 95 % reaches so many standard errors to either side


def write_lm_eval(
    settings: Settings, table: pd.DataFrame, manifest: Mapping | str | Path | None = None
) -> list[Path]:
    """One results_<date>.json per method under runs/<profile>/lm_eval/<model>/, for readers of lm-evaluation-harness."""
    record, paths = provenance(settings, manifest), []
    for method in settings.methods:
        result = lm_eval_result(table[table["method"] == method], settings, record, method)
        name = f"results_{(record['date'] or 'undated').replace(':', '-')}.json"
        paths.append(write_json(settings.run_dir / "lm_eval" / result["model_name_sanitized"] / name, result))
    return paths


# Fields of the layout that a run of ours has nothing to say on
_NOT_KEPT = dict.fromkeys(
    ("upper_git_hash", "tokenizer_pad_token", "tokenizer_eos_token", "tokenizer_bos_token", "eot_token_id")
)
_NO_SYSTEM_PROMPT = {
    "system_instruction": None,
    "system_instruction_sha": None,
    "fewshot_as_multiturn": False,
    "chat_template": None,
}
_NOT_A_FOLDER_NAME = re.compile(r'["<>:/|\\?*\[\]]+')  # the harness's rule


def lm_eval_result(rows: pd.DataFrame, settings: Settings, record: Mapping, method: str) -> dict:
    """One method's numbers as lm-evaluation-harness 0.4 lays out its results.

    rows: that method's rows of Table 1. `acc` is a share in [0, 1]; the other measures are mean counts. Tasks carry the
    prefix clinical_r1_, because the harness's own medmcqa scores options by likelihood and ours reads generated answers.
    Standard errors come from our 95 % interval (its width / 3.92), or from sqrt(p (1 - p) / n), or are "N/A".
    """
    name = f"{settings.base_model}/{method}"
    tasks = {f"clinical_r1_{benchmark}": own for benchmark, own in rows.groupby("benchmark", sort=False)}
    sampling = {"do_sample": True, "temperature": settings.eval_temperature, "top_p": settings.eval_top_p}
    sampling |= {"max_gen_toks": settings.max_completion_tokens}
    versions = record["versions"]
    return {
        **_by_task(tasks, settings, record, sampling),
        "config": _run_config(settings, method, sampling),
        "git_hash": record["git"]["sha"],
        "date": datetime.fromisoformat(record["date"]).timestamp() if record["date"] else None,
        "pretty_env_info": ", ".join(f"{package} {version}" for package, version in versions.items()),
        "transformers_version": versions.get("transformers"),
        "lm_eval_version": "N/A (written by clinical_r1, not by the harness)",
        **_NOT_KEPT,
        "max_length": settings.max_prompt_tokens + settings.max_completion_tokens,
        "task_hashes": {task: _questions_hash(own, record, settings) for task, own in tasks.items()},
        "model_source": "clinical_r1",
        "model_name": name,
        "model_name_sanitized": _NOT_A_FOLDER_NAME.sub("__", name),
        **_NO_SYSTEM_PROMPT,
        "chat_template_sha": _chat_template_hash(settings, record),
        "total_evaluation_time_seconds": None,
    }


def _by_task(tasks, settings, record, sampling) -> dict:
    """The fields that hold one entry a task: benchmark name with prefix -> its rows."""
    profile = settings.run_dir.name
    return {
        "results": {task: {"alias": task} | _lm_eval_measures(own) for task, own in tasks.items()},
        "group_subtasks": {task: [] for task in tasks},
        "configs": {
            task: _lm_eval_config(task, own, record, sampling, profile) for task, own in tasks.items()
        },
        "versions": dict.fromkeys(tasks, 1.0),
        "n-shot": dict.fromkeys(tasks, 0),
        "higher_is_better": {
            task: {_lm_eval_name(m): m not in LOWER_IS_BETTER for m in own["metric"]} | {"coverage": True}
            for task, own in tasks.items()
        },
        "n-samples": {task: _sample_counts(own) for task, own in tasks.items()},
    }


def _sample_counts(rows) -> dict:
    """Questions of the paper's test set, and of ours."""
    asked = int(rows["n"].max())
    return {"original": paper.N_QUESTIONS.get(rows["benchmark"].iloc[0], asked), "effective": asked}


def _run_config(settings, method, sampling) -> dict:
    pretrained = {"pretrained": settings.base_model, "method": method, "seeds": list(settings.seeds)}
    seeds = dict.fromkeys(("random_seed", "numpy_seed", "torch_seed", "fewshot_seed"), settings.seeds[0])
    return {
        "model": "clinical_r1",
        "model_args": pretrained,
        "batch_size": settings.eval_batch,
        "batch_sizes": [],
        "device": None,
        "use_cache": None,
        "limit": None if settings.n_test_of else settings.n_test,
        "bootstrap_iters": 2000,
        "gen_kwargs": sampling,
        **seeds,
    }


def _chat_template_hash(settings, record):
    """Known of the shipped base model only; any other brings its template from elsewhere."""
    if settings.base_model != "clinic-base":
        return None
    return record["inputs"].get(f"{PACKAGE.name}/data/clinic_base/chat_template.jinja")


def _lm_eval_name(metric):
    return "acc" if metric == "accuracy" else metric


def _lm_eval_measures(rows):
    """{"acc,none", "acc_stderr,none", …} of one benchmark."""
    measures = {}
    for row in rows.itertuples():
        name, scale = _lm_eval_name(row.metric), 100 if row.metric == "accuracy" else 1
        value, width = row.value / scale, (row.ci_high - row.ci_low) / scale
        error = width / (2 * NORMAL_QUANTILE)
        if not error > 0 and name == "acc" and row.n > 0:
            low, high = wilson_interval(value * row.n, row.n)
            error = np.sqrt(value * (1 - value) / row.n) or (high - low) / (2 * NORMAL_QUANTILE)
        measures[f"{name},none"] = _or_na(value)
        measures[f"{name}_stderr,none"] = _or_na(
            error if error > 0 else np.nan
        )  # never 0: no finite sample is certain
        if name == "acc":
            measures |= {"coverage,none": _or_na(row.coverage), "coverage_stderr,none": "N/A"}
    return measures


def _or_na(value):
    return "N/A" if np.isnan(value) else float(f"{value:.6g}")


def _lm_eval_config(task, rows, record, sampling, profile):
    measures = [_lm_eval_name(metric) for metric in rows["metric"]]
    return {
        "task": task,
        "dataset_path": f"runs/{profile}/questions/{rows['benchmark'].iloc[0]}.test.jsonl",
        "test_split": "test",
        "num_fewshot": 0,
        "output_type": "generate_until",
        "generation_kwargs": sampling,
        "repeats": 1,
        "metric_list": [
            {"metric": name, "aggregation": "mean", "higher_is_better": name not in LOWER_IS_BETTER}
            for name in measures
        ],
        "metadata": {"version": 1.0, "seeds": record["seeds"], "protocol": record["protocol"]},
    }


def _questions_hash(rows, record, settings):
    path = settings.questions_path(rows["benchmark"].iloc[0], "test").relative_to(settings.out).as_posix()
    return record["questions"].get(path)
