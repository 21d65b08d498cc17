"""The ledger of 135 cells, where a number came from, the harness's layout, the block of docs/results.md."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from records import whole_manifest

from clinical_r1 import metrics as measures
from clinical_r1 import paper, tables
from clinical_r1.arms import METHODS
from clinical_r1.clinic.review import PAGE_BEGIN, PAGE_END
from clinical_r1.files import PipelineError, sha256, write_text
from clinical_r1.labels import PAPER_BENCHMARKS
from clinical_r1.pipeline import explain, ledger, lm_eval, manifest
from clinical_r1.pipeline import map as house_map
from clinical_r1.pipeline import readme as readme_module
from clinical_r1.settings import COLAB, PAPER, PUBLISHED, SMOKE, settings_for

CELL = "table1.medqa.crpo.accuracy"
MANIFEST = {
    "git": {"sha": "a" * 40, "dirty": True},
    "versions": {"python": "3.11.7", "transformers": "5.17.0", "unsloth": None},
    "hardware": {"platform": "Linux x86_64", "cores": 2, "memory_gb": 16.0, "gpu": None},
    "sha256": {
        "clinical_r1/prompts.py": "b" * 64,
        "clinical_r1/data/clinic_kb/findings.csv": "9" * 64,
        "clinical_r1/data/clinic_kb/relations.csv": "c" * 64,
        "clinical_r1/data/clinic_base/model.safetensors": "d" * 64,
    },
    "stages": {
        "01_data_curation": {"git_sha": "a" * 40, "finished": "2026-01-01T00:00:00+00:00", "seconds": 1.0},
        "03_crpo_training": {"git_sha": "a" * 40, "finished": "2026-01-02T00:00:00+00:00", "seconds": 1.0},
        "04_benchmark_evaluation": {"git_sha": "e" * 40, "finished": "2026-01-03T00:00:00+00:00"},
    },
}


def table_of(
    benchmark="medqa",
    n=None,
    value=None,
    low=0.0,
    high=100.0,
    metrics=paper.METRICS,
    shift=0.0,
    seeds=1,
    seed_sd=np.nan,
):
    """Rows as `tables.table1` makes them: every arm at `value`, or at the printed value plus `shift`."""
    printed = paper.table1().set_index(["benchmark", "method", "metric"])["value"]
    theirs = paper.STANDS_FOR.get(benchmark, benchmark.removesuffix("-4"))
    rows = [
        {
            "benchmark": benchmark,
            "method": method,
            "metric": metric,
            "value": printed[theirs, method, metric] + shift if value is None else value,
            "ci_low": low,
            "ci_high": high,
            "n": n or paper.N_QUESTIONS[theirs],
            "seeds": seeds,
            "coverage": 0.9,
            "seed_sd": seed_sd,
        }
        for method in METHODS
        for metric in metrics
    ]
    return pd.DataFrame(rows)


def cell_of(rows, name=CELL):
    (row,) = rows[rows["cell"] == name].to_dict("records")
    return row


@pytest.fixture
def run(tmp_path):
    """Settings of a run of two arms on one clinic set, its files, and its table."""
    settings = replace(
        settings_for("smoke", tmp_path, seeds=2), methods=("baseline", "crpo"), benchmarks=("clinic",)
    )
    path = settings.questions_path("clinic", "test")
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps({"id": "q", "options": {"A": "x", "B": "y"}}) + "\n")
    for method, seed, benchmark, protocol in settings.evaluations():
        path = settings.completions_path(benchmark, method, seed, protocol)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{method} {seed} {protocol}\n")
    table = table_of("clinic", n=16, value=50.0, low=40.0, high=60.0)
    return settings, table[table["method"].isin(settings.methods)]


# ---- cells and verdicts ----


def test_the_135_printed_cells_in_the_papers_order():
    rows = ledger.ledger(table_of("clinic", n=500, value=1.0), SMOKE)
    assert list(rows.columns) == ledger.LEDGER_COLUMNS
    assert len(rows) == 135 == rows["cell"].nunique()
    assert rows["printed"].tolist() == paper.table1()["value"].tolist()
    assert rows["cell"].iloc[[0, 26, 134]].tolist() == [
        "table1.medqa.baseline.backtracking",
        CELL,
        "table1.medxpertqa.cold_start_crpo.accuracy",
    ]


@pytest.mark.parametrize(
    ("shift", "seeds", "seed_sd", "verdict"),
    [  # of 10 seeds: t of 9 df is 2.262, so half the prediction interval is 2.3726 times the seeds' standard deviation
        (0.0, 10, 1.0, "reproduced"),  # 0 +- 2.37, within 5
        (2.6, 10, 1.0, "reproduced"),  # 0.23 to 4.97: not the same number, and equivalent
        (2.7, 10, 1.0, "outside"),  # 0.33 to 5.07
        (-2.7, 10, 1.0, "outside"),
        (2.0, 10, 1.5, "inside interval"),  # -1.56 to 5.56: as narrow as the margin, and not within it
        (0.0, 10, 2.2, "uninformative"),  # +- 5.22
        (5.0, 10, 2.2, "uninformative"),
        (5.3, 10, 2.2, "outside"),
        (8.0, 3, 2.0, "uninformative"),  # three seeds: 4.303 * 2 * 1.155 = 9.94
        (0.0, 1, np.nan, "uninformative"),
        (40.0, 1, np.nan, "uninformative"),
    ],
)
def test_verdicts_of_a_comparable_run(shift, seeds, seed_sd, verdict):
    rows = ledger.ledger(table_of(shift=shift, seeds=seeds, seed_sd=seed_sd), PAPER, {"medqa": 5})
    row = cell_of(rows)
    assert (row["verdict"], row["measured_on"]) == (verdict, "medqa")
    assert row["reason"] == (ledger.ONE_SEED if seeds == 1 else "")
    assert row["value"] == pytest.approx(52.41 + shift) and row["n"] == row["printed_n"] == 1273
    counts = ledger.ledger_counts(rows)
    assert sum(counts.values()) == 135 and counts["not attempted"] == 90


def test_the_prediction_interval_and_the_margin_stand_in_the_row():
    rows = ledger.ledger(table_of(seeds=10, seed_sd=1.0), PAPER)
    row, judged = cell_of(rows), cell_of(rows, "table1.medqa.crpo.drc")
    half = 2.262157 * np.sqrt(1.1)
    assert (row["predicted_low"], row["predicted_high"]) == pytest.approx(
        (52.41 - half, 52.41 + half), abs=1e-4
    )
    assert (row["margin"], judged["margin"]) == (5.0, 0.5)
    text = ledger.ledger_markdown(rows)
    assert "[50.04, 54.78] | 5.0 | reproduced" in text and "uninformative: it holds it" in text
    one = cell_of(ledger.ledger(table_of(), PAPER))
    assert np.isnan(one["predicted_low"])


def test_noise_is_rarely_called_inside_and_a_target_far_off_never():
    """Runs that vary as the clinic's do, against one run that differs by 0 or by 8 points: 2,000 draws each."""
    generator, counts = np.random.default_rng(3), {}
    for off in (0.0, 8.0):
        for seeds in (1, 3, 10):
            runs = 50 + 2.0 * generator.normal(size=(2000, seeds + 1))
            means = runs[:, 1:].mean(axis=1)
            spread = runs[:, 1:].std(axis=1, ddof=1) if seeds > 1 else np.full(2000, np.nan)
            got = [
                tables.against_printed(theirs + off, ours, tables.predicted("accuracy", sd, seeds, 1273), 5.0)
                for theirs, ours, sd in zip(runs[:, 0], means, spread, strict=True)
            ]
            counts[off, seeds] = {name: got.count(name) / 2000 for name in ledger.VERDICTS}
    assert counts[0.0, 1]["uninformative"] == counts[8.0, 1]["uninformative"] == 1.0
    for (off, _), share in counts.items():
        agrees = share["reproduced"] + share["inside interval"]
        assert agrees < 0.05 if off else share["outside"] < 0.07
    assert counts[8.0, 10]["outside"] > 0.9


@pytest.mark.parametrize(
    ("table", "settings", "options", "reason"),
    [
        (table_of("clinic", n=500), SMOKE, {"clinic": 4}, ledger.STAND_IN),
        (table_of("medqa-4"), PAPER, {"medqa-4": 4}, "4 options here, 5 in the paper"),
        (table_of("medqa", n=1270), PAPER, {}, "1,270 items here, 1,273 in the paper"),
        (
            table_of("medqa"),
            replace(PAPER, base_model="Qwen/Qwen2.5-0.5B-Instruct"),
            {},
            "Qwen/Qwen2.5-0.5B-Instruct here, Qwen/Qwen2.5-3B-Instruct in the paper",
        ),
    ],
)
def test_unlike_numbers_get_no_verdict_and_the_reason_names_both_sides(table, settings, options, reason):
    """Every value equals the printed one: only what was measured differs."""
    row = cell_of(ledger.ledger(table, settings, options))
    assert (row["verdict"], row["reason"]) == ("not attempted", reason)
    assert row["value"] == 52.41 and row["measured_on"] == table["benchmark"].iloc[0]


def test_a_public_subset_of_medxpertqa_names_both_sizes():
    rows = ledger.ledger(table_of("medxpertqa", n=1449), PAPER, {"medxpertqa": 10})
    row = cell_of(rows, "table1.medxpertqa.grpo.accuracy")
    assert row["reason"] == "1,449 items here, 2,450 in the paper"


def test_a_measure_without_a_judge_and_an_arm_without_a_run():
    rows = ledger.ledger(table_of(metrics=["accuracy"]).query("method != 'grpo'"), PAPER)
    judged = cell_of(rows, "table1.medqa.crpo.drc")
    assert (judged["verdict"], judged["reason"], judged["measured_on"]) == (
        "not attempted",
        "no judge",
        "medqa",
    )
    assert np.isnan(judged["value"]) and pd.isna(judged["n"])
    for name in ("table1.medqa.grpo.accuracy", "table1.medqa.grpo.drc", "table1.medmcqa.crpo.accuracy"):
        assert cell_of(rows, name)["reason"] == "not run"


def test_items_are_those_asked_even_where_a_judge_left_some_out():
    table = table_of()
    table.loc[table["metric"] == "drc", "n"] = 1200
    row = cell_of(ledger.ledger(table, PAPER), "table1.medqa.crpo.drc")
    assert (row["verdict"], row["n"]) == ("uninformative", 1200) and row["reason"] == ledger.ONE_SEED


def test_the_benchmark_itself_comes_before_its_stand_in():
    rows = ledger.ledger(pd.concat([table_of("clinic", n=500, value=1.0), table_of()]), PAPER)
    assert cell_of(rows)["measured_on"] == "medqa" and cell_of(rows)["verdict"] == "uninformative"


def test_a_table_that_is_no_table1_is_refused():
    with pytest.raises(ValueError, match="lacks .'coverage'"):
        ledger.ledger(table_of().drop(columns="coverage"), PAPER)
    with pytest.raises(ValueError, match="twice"):
        ledger.ledger(pd.concat([table_of(), table_of()]), PAPER)


# ---- on disk ----


def test_writing_twice_gives_the_same_bytes_in_both_places(run):
    settings, table = run
    written = {}
    for _ in range(2):
        rows = ledger.write_ledger(settings, table, MANIFEST)
        folders = (settings.run_dir / "tables", settings.figures_dir)
        now = {name: [(f / name).read_bytes() for f in folders] for name in ("ledger.csv", "results.json")}
        assert all(a == b for a, b in now.values()) and written in ({}, now)
        written = now
    pd.testing.assert_frame_equal(ledger.read_ledger(settings.figures_dir / "ledger.csv"), rows)
    assert "not attempted" in (settings.run_dir / "tables" / "ledger.md").read_text()


def test_provenance_quotes_the_manifest_and_hashes_the_files(run):
    settings, table = run
    ledger.write_ledger(settings, table, MANIFEST)
    lost = settings.completions_path("clinic", "crpo", 1, "greedy")
    lost.unlink()
    record = ledger.provenance(settings, MANIFEST)
    assert record["git"] == MANIFEST["git"] and record["inputs"] == MANIFEST["sha256"]
    assert record["date"] == "2026-01-02T00:00:00+00:00", (
        "the evaluation's own end is not known while it runs"
    )
    assert record["command"] == "./reproduce.sh smoke --seeds 2"
    assert len(record["completions"]) == 8 and list(record["questions"]) == [
        "runs/smoke/questions/clinic.test.jsonl"
    ]
    path = settings.completions_path("clinic", "crpo", 1)
    assert record["completions"]["runs/smoke/completions/clinic/crpo.seed1.jsonl"] == sha256(path)
    assert record["completions"]["runs/smoke/completions/clinic/crpo.seed1.greedy.jsonl"] is None
    assert str(settings.out) not in json.dumps(record)


def test_a_notebook_opened_by_itself_is_described_now(run):
    settings, table = run
    ledger.write_ledger(settings, table)
    record = json.loads((settings.figures_dir / "results.json").read_text())
    assert record["date"] is None and record["inputs"]["clinical_r1/data/clinic_kb/relations.csv"]
    assert "unrecorded time" in explain.explain("ledger", settings)


def test_another_runs_manifest_is_refused(run):
    settings, table = run
    (settings.run_dir / "manifest.json").write_text(
        json.dumps(whole_manifest(settings, settings=settings.to_json() | {"rl_steps": 7}))
    )
    with pytest.raises(PipelineError, match="rl_steps 7, now 2"):
        ledger.write_ledger(settings, table)


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda text: "", "is damaged"),
        (lambda text: text.replace("printed_n", "n_printed", 1), "printed_n"),
        (lambda text: "\n".join(text.splitlines()[:100]), "99 rows, expected the paper's 135"),
        (lambda text: text.replace(",52.41,", ",fifty,"), "is damaged"),
        (lambda text: text.replace("not attempted", "reproduced!"), "reproduced!"),
        (lambda text: text.replace(",50.0,", ",51.0,"), "not the one that results.json describes"),
    ],
)
def test_a_damaged_ledger_gives_a_sentence(run, damage, said):
    settings, table = run
    ledger.write_ledger(settings, table, MANIFEST)
    path = settings.run_dir / "tables" / "ledger.csv"
    path.write_text(damage(path.read_text()))
    with pytest.raises(PipelineError, match="notebook 04 again") as error:
        explain.explain(CELL, settings)
    assert said in str(error.value) and len(str(error.value).splitlines()) == 1


def test_damaged_results_give_a_sentence(run):
    settings, table = run
    ledger.write_ledger(settings, table, MANIFEST)
    (settings.run_dir / "tables" / "results.json").write_text("[]")
    with pytest.raises(PipelineError, match=r"results\.json is missing or damaged"):
        explain.explain(CELL, settings)


@pytest.mark.parametrize(
    "profile", [COLAB, PAPER, replace(SMOKE, use_vllm=True)], ids=["colab", "paper", "vllm"]
)
def test_the_record_of_a_gpu_profile_is_written_on_a_machine_without_one(profile):
    assert manifest.describe(profile, [])["hardware"]["gpu"] is None


@pytest.mark.parametrize(
    "what",
    ["scores/clinic/crpo.seed1.jsonl", "scores/clinic/baseline.seed0.greedy.jsonl", "tables/table1.csv"],
)
def test_tables_of_other_scores_are_refused(run, what):
    settings, table = run
    for method, seed, benchmark, protocol in settings.evaluations():
        write_text(settings.scores_path(benchmark, method, seed, protocol), f"{method} {seed} {protocol}\n")
    write_text(settings.run_dir / "tables" / "table1.csv", "a table\n")
    ledger.write_ledger(settings, table, MANIFEST)
    assert "a run on disk" in explain.explain(CELL, settings)
    path = settings.run_dir / what
    path.write_text("other\n")
    with pytest.raises(PipelineError, match=f"{what} has changed since the tables .* run notebook 04 again"):
        explain.explain(CELL, settings)
    path.unlink()  # a run that was thinned out still explains its numbers
    assert "a run on disk" in explain.explain(CELL, settings)


HARMS = {
    "edited": lambda path: path.write_text(path.read_text().replace("4.0", "9.0")),
    "cut": lambda path: path.write_text(path.read_text()[:-9]),
    "gone": lambda path: path.unlink(),
}


@pytest.mark.parametrize("harm", HARMS)
@pytest.mark.parametrize("folder", ["tables", "published"])
def test_comparisons_that_the_record_does_not_describe_are_refused(run, folder, harm):
    settings, table = run
    tables.write_comparisons(settings, {"CRPO against GRPO": comparison()})
    ledger.write_ledger(settings, table, MANIFEST)
    shutil.copytree(settings.figures_dir, settings.published_dir)
    assert "paired differences" in readme_module.published_block(settings.published_dir).lower()
    here = settings.published_dir if folder == "published" else settings.run_dir / "tables"
    HARMS[harm](here / "comparisons.csv")
    with pytest.raises(PipelineError, match="comparisons.csv is not the one that results.json describes"):
        if folder == "published":
            readme_module.published_block(here)
        else:
            explain.explain(CELL, settings)


# ---- explain ----


def test_explain_names_all_that_a_number_came_from(run):
    settings, table = run
    ledger.write_ledger(settings, table, MANIFEST)
    text = explain.explain(CELL, settings)
    for part in (
        "52.41 (arXiv 2512.00601, Table 1, medqa, CRPO",
        "50.00 [40.00, 60.00] on clinic; n 16 questions, 1 seed(s), coverage 0.900",
        "temperature 0.8, top-p 0.95",
        f"not attempted: {ledger.STAND_IN}",
        "runs/smoke/tables/ledger.csv (a run on disk)",
        f"{'a' * 40}, with uncommitted changes",
        "Linux x86_64, 2 cores",
        f"prompts.py  sha256 {'b' * 64}",
        f"knowledge  clinical_r1/data/clinic_kb/findings.csv  sha256 {'9' * 64}",
        f"knowledge  clinical_r1/data/clinic_kb/relations.csv  sha256 {'c' * 64}",
        f"model.safetensors  sha256 {'d' * 64}",
        "seeds      0, 1",
        "./reproduce.sh smoke --seeds 2",
        "completions/clinic/crpo.seed0.jsonl  sha256",
        "completions/clinic/crpo.seed1.jsonl  sha256",
    ):
        assert part in text
    assert "greedy" not in text and "baseline.seed0" not in text and "CHANGED" not in text
    stand_in = explain.explain("table1.clinic.crpo.accuracy", settings)
    assert stand_in.splitlines()[1:] == text.splitlines()[1:]


def test_explain_sees_a_changed_answer_file(run):
    settings, table = run
    ledger.write_ledger(settings, table, MANIFEST)
    settings.completions_path("clinic", "crpo", 0).write_text("edited\n")
    settings.completions_path("clinic", "crpo", 1).unlink()
    text = explain.explain(CELL, settings)
    assert text.count("on disk, CHANGED since") == 1 and text.count("not on disk here") == 1


def test_explain_falls_back_on_the_published_copy_and_says_so(run):
    settings, table = run
    ledger.write_ledger(settings, table, MANIFEST)
    (settings.run_dir / "tables" / "ledger.csv").unlink()
    with pytest.raises(
        PipelineError, match="neither runs/smoke/tables nor figures/published/smoke holds a ledger"
    ):
        explain.explain(CELL, settings)
    shutil.copytree(settings.figures_dir, settings.published_dir)
    assert "figures/published/smoke/ledger.csv, the published copy" in explain.explain(CELL, settings)
    (settings.published_dir / "ledger.csv").unlink()
    with pytest.raises(PipelineError, match="holds a ledger"):
        explain.explain(CELL, settings)


def test_the_published_run_is_named_by_where_it_is_published(tmp_path):
    with pytest.raises(PipelineError, match="neither runs/published/tables nor figures/published/cpu holds"):
        ledger.find_ledger(replace(PUBLISHED, out=str(tmp_path)))


@pytest.mark.parametrize(
    ("cell", "said"),
    [
        ("table1.clinic.k0.accuracy", "paper      no such cell (clinic, k0, Accuracy"),
        ("table1.clinic.crpo.length", "paper      no such cell (clinic, CRPO, "),
        ("table1.ward.crpo.accuracy", "paper      no such cell (ward, CRPO, Accuracy"),
    ],
)
def test_explain_knows_arms_measures_and_sets_that_the_paper_lacks(run, cell, said):
    settings, table = run
    more = table[table["metric"] == "accuracy"].iloc[:1]
    _, benchmark, method, metric = cell.split(".")
    table = pd.concat([table, more.assign(benchmark=benchmark, method=method, metric=metric, value=61.25)])
    path = settings.run_dir / "tables" / "table1.csv"
    path.parent.mkdir()
    table.to_csv(path, index=False)
    ledger.write_ledger(settings, table, MANIFEST)
    text = explain.explain(cell, settings)
    for part in (
        said,
        "this run   61.25 [40.00, 60.00] on " + benchmark,
        "not attempted: not in the paper",
        "prompts.py",
    ):
        assert part in text
    assert "one more" not in text
    assert "52.41" in explain.explain(CELL, settings)
    path.write_text(path.read_text().replace("61.25", "99.25"))
    with pytest.raises(PipelineError, match="table1.csv has changed since"):
        explain.explain(cell, settings)


def test_explain_of_an_unknown_cell_names_the_nearest(run):
    settings, table = run
    ledger.write_ledger(settings, table, MANIFEST)
    with pytest.raises(ValueError, match=f"nearest name is '{CELL}'"):
        explain.explain("table1.medqa.crpo.acuracy", settings)
    assert (
        "0 reproduced, 0 inside interval, 0 outside, 0 uninformative, 135 not attempted"
        in explain.explain("ledger", settings)
    )


def test_explain_of_a_cell_that_was_not_run(run):
    settings, table = run
    ledger.write_ledger(settings, table, MANIFEST)
    text = explain.explain("table1.medmcqa.crpo.drc", settings)
    assert "no value" in text and "not attempted: not run" in text and "answers" not in text


# ---- the harness's layout ----


def test_lm_eval_layout(run):
    settings, table = run
    guess = table.iloc[:1].assign(method="chance", metric="accuracy")
    paths = lm_eval.write_lm_eval(settings, pd.concat([table, guess]), MANIFEST)
    name = "results_2026-01-02T00-00-00+00-00.json"
    assert [p.relative_to(settings.run_dir / "lm_eval").as_posix() for p in paths] == [
        f"clinic-base__baseline/{name}",
        f"clinic-base__crpo/{name}",
    ]
    result = json.loads(paths[1].read_text())
    task = "clinical_r1_clinic"
    own = result["results"][task]
    assert own["alias"] == task and own["acc,none"] == 0.5
    assert own["acc_stderr,none"] == pytest.approx(0.2 / 3.92, abs=1e-5)
    assert own["drc,none"] == 50.0 and own["drc_stderr,none"] == pytest.approx(20 / 3.92, abs=1e-3)
    assert own["coverage,none"] == 0.9 and own["coverage_stderr,none"] == "N/A"
    assert result["higher_is_better"][task]["hallucination"] is False
    assert result["n-samples"][task] == {"original": 16, "effective": 16}
    for part in ("group_subtasks", "configs", "versions", "n-shot", "task_hashes"):
        assert result[part].keys() == {task}
    assert result["model_name"] == "clinic-base/crpo" and result["date"] == 1767312000.0
    assert result["transformers_version"] == "5.17.0" and result["git_hash"] == "a" * 40
    assert "NaN" not in paths[1].read_text()


def test_lm_eval_says_not_available_instead_of_nan(run):
    settings, table = run
    table = table.assign(ci_low=np.nan, ci_high=np.nan)
    own = json.loads(lm_eval.write_lm_eval(settings, table, MANIFEST)[0].read_text())["results"][
        "clinical_r1_clinic"
    ]
    assert own["acc_stderr,none"] == pytest.approx(np.sqrt(0.25 / 16)) and own["drc_stderr,none"] == "N/A"


@pytest.mark.parametrize("value", [0.0, 100.0])
@pytest.mark.parametrize("ends", ["missing", "equal"])
def test_lm_eval_has_no_standard_error_of_zero(run, value, ends):
    settings, table = run
    end = np.nan if ends == "missing" else value
    table = table.assign(ci_low=end, ci_high=end).assign(value=value)
    text = lm_eval.write_lm_eval(settings, table, MANIFEST)[0].read_text()
    own = json.loads(text)["results"]["clinical_r1_clinic"]
    assert own["acc_stderr,none"] == pytest.approx(0.19361 / 3.92, abs=1e-4)  # Wilson's 0 of 16
    assert own["drc_stderr,none"] == "N/A"


def test_lm_eval_counts_the_whole_benchmark_as_original(run):
    settings, _ = run
    settings = replace(settings, benchmarks=("medqa",), methods=("crpo",))
    (path,) = lm_eval.write_lm_eval(settings, table_of("medqa", n=200), MANIFEST)
    counts = json.loads(path.read_text())["n-samples"]
    assert counts == {"clinical_r1_medqa": {"original": 1273, "effective": 200}}


# ---- docs/results.md ----


def comparison(method="crpo", against="grpo", p=0.01, mde_holm=4.0, names=("accuracy", "drc", "cecd")):
    rows = [
        {"benchmark": benchmark, "metric": metric, method: 52.0, against: 50.0, "difference": -2.0}
        | {"ci_low": -4.0, "ci_high": 0.25, "p": p, "p_holm": p, "n": 500, "mde_holm": mde_holm}
        | {"status": measures.status(benchmark, metric), "tests": 4, "seeds": 3, "test": "two-way"}
        for benchmark in ("clinic", "clinic-shift")
        for metric in names
    ]
    return pd.DataFrame(rows)


def test_results_block_holds_what_the_ledger_holds(run):
    settings, _ = run
    table = pd.concat(
        [
            table_of("clinic", n=500, value=50.04, low=45.0, high=55.0),
            table_of("clinic-shift", n=400, value=40.0, low=np.nan, high=np.nan, metrics=["accuracy"]),
        ]
    )
    stacked = tables.write_comparisons(
        settings, {"one": comparison(names=["accuracy"], p=0.0001), "all": comparison(mde_holm=np.nan)}
    )
    assert list(stacked.columns) == tables.COMPARISON_COLUMNS and len(stacked) == 8
    block = readme_module.results_block(ledger.ledger(table, settings), stacked)
    lines = {line.split(" | ")[0].strip("| "): line for line in block.splitlines()}
    assert lines["CRPO"].startswith("| CRPO | 50.0 [45.0, 55.0] | 40.0 | 50.04 [45.00, 55.00] |")
    assert lines["CRPO"].endswith("| 500 / 400 | 1 |")
    differences = [line for line in block.splitlines() if line.startswith("| CRPO − GRPO")]
    assert differences == [
        "| CRPO − GRPO | accuracy `clinic` | −2.0 [−4.0, 0.2] | .010 | – | 500 |",  # the more careful p
        "| CRPO − GRPO | options rejected (DRC) `clinic` | −2.00 [−4.00, 0.25] | .010 | – | 500 |",
        "| CRPO − GRPO | accuracy `clinic-shift` | −2.0 [−4.0, 0.2] | .010 | – | 500 |",
        "| CRPO − GRPO | options rejected (DRC) `clinic-shift` | −2.00 [−4.00, 0.25] | .010 | – | 500 |",
    ]
    assert (
        "detectable difference, with 80 % power, first Holm step" in block
        and measures.NO_TEST[1:] not in block
    )
    assert "135 not attempted" in block and CELL in block
    expert = comparison(names=["accuracy"], p=np.nan).assign(benchmark="clinic-expert", status="exploratory")
    block = readme_module.results_block(
        ledger.ledger(table, settings), tables.write_comparisons(settings, {"one": expert[:1]})
    )
    assert "| accuracy `clinic-expert` (exploratory) | −2.0 [−4.0, 0.2] | – | 4.0 | 500 |" in block
    assert measures.NO_TEST[1:] in block  # no p: the page says why


def test_comparisons_without_a_column_are_refused(tmp_path):
    frame = comparison().assign(comparison="one", method="crpo", against="grpo").drop(columns="mde_holm")
    frame.to_csv(tmp_path / "comparisons.csv", index=False)
    with pytest.raises(KeyError, match="mde_holm"):
        readme_module.read_comparisons(tmp_path / "comparisons.csv")


def test_comparisons_of_metrics_compare_stack(run):
    from records import four_records

    scores = four_records(method="crpo") + four_records()
    frame = measures.compare(scores, "crpo", "grpo", ["accuracy", "drc"])
    rows = tables.write_comparisons(run[0], {"crpo against grpo": frame})
    assert rows[["method", "against", "metric", "n"]].values.tolist() == [
        ["crpo", "grpo", "accuracy", 4],
        ["crpo", "grpo", "drc", 4],
    ]
    with pytest.raises(ValueError, match="expected two"):
        tables.write_comparisons(run[0], {"odd": frame.drop(columns="grpo")})


def test_results_say_which_run_they_are_of(run):
    settings, table = run
    record = {
        "git": {"sha": "a" * 40, "dirty": True},
        "command": "./reproduce.sh cpu --seeds 2",
        "date": "2026-01-02T00:00:00+00:00",
        "seeds": [0, 1],
        "protocol": "one sample",
    }
    rows = ledger.ledger(table, settings)
    first = readme_module.results_block(rows, record=record).splitlines()[0]
    assert first == (
        "Made by `./reproduce.sh cpu --seeds 2` at commit `aaaaaaa` with changes that were not committed on 2026-01-02: "
        "training seeds 0, 1; one sample."
    )
    without_git = readme_module.results_block(rows, record=record | {"git": {"sha": None, "dirty": None}})
    assert "at a folder without git on 2026" in without_git


def test_pages_keep_what_stands_around_their_blocks(run, tmp_path):
    settings, table = run
    tmp_path = tmp_path / "docs"
    tmp_path.mkdir()
    ledger.write_ledger(settings, table, MANIFEST)
    shutil.copytree(settings.figures_dir, settings.published_dir)
    module = readme_module
    more = [(module.FINDINGS_BEGIN, module.FINDINGS_END), (module.LABORATORY_BEGIN, module.LABORATORY_END)]
    ending = "".join(f"\n\nbetween\n\n{begin}\nold\n{end}" for begin, end in more)
    begins = {
        "results.md": (module.BEGIN, f"{module.END}{ending}"),  # three blocks
        "map.md": (house_map.MAP_BEGIN, house_map.MAP_END),
        "clinic.md": (PAGE_BEGIN, PAGE_END),
        "claims.md": (readme_module.CLAIMS_BEGIN, readme_module.CLAIMS_END),
        "causality.md": (readme_module.CAUSALITY_BEGIN, readme_module.CAUSALITY_END),
        "../README.md": (readme_module.CLAIMS_BEGIN, readme_module.CLAIMS_END),
    }
    for name, (begin, end) in begins.items():
        (tmp_path / name).write_text(f"before\n\n{begin}\nold\n{end}\n\nafter\n")
    page = tmp_path / "results.md"
    assert readme_module.write_readme(settings, tmp_path) == page
    for name in begins:
        text = (tmp_path / name).read_text()
        assert text.startswith("before\n\n") and text.endswith("\n\nafter\n") and "\nold\n" not in text
    once = page.read_text()
    assert once.count("\n\nbetween\n\n") == 2
    assert readme_module.NO_LABORATORY in once  # this run has published none
    readme_module.write_readme(settings, tmp_path)
    assert page.read_text() == once
    whole = (tmp_path / "map.md").read_text()
    for text in ("no markers", f"{readme_module.END} {readme_module.BEGIN}", once + once):
        page.write_text(text)
        (tmp_path / "map.md").write_text(whole.replace("**Ground**", "edited"))
        with pytest.raises(PipelineError, match="docs/results.md: .*restore them"):
            readme_module.write_readme(settings, tmp_path)
        assert "edited" in (tmp_path / "map.md").read_text()  # all pages or none


def test_the_published_results_name_no_place_on_a_machine(published):
    text = (published / "results.json").read_text(encoding="utf-8")
    assert json.loads(text)["ledger"]["sha256"] == sha256(published / "ledger.csv")
    assert not any(f'"{root}' in text for root in ("/home", "/root", "/tmp", "/work", "/mnt", "/opt"))


def test_every_paper_benchmark_has_its_option_count():
    assert tuple(ledger.OPTIONS) == PAPER_BENCHMARKS


def test_option_counts_are_read_from_the_question_files(run):
    assert ledger.option_counts(run[0]) == {"clinic": 2}


def test_official_files_have_the_options_and_items_the_ledger_expects(data_dir):
    from clinical_r1.curation.releases import load_benchmark

    for name, split, n in (("medqa", "test", 1273), ("medmcqa", "dev", 4183), ("medxpertqa", "test", None)):
        questions = load_benchmark(name, split, data_dir)
        assert {len(question.options) for question in questions} == {ledger.OPTIONS[name]}
        assert n in (None, len(questions)) and paper.N_QUESTIONS[name] == (n or 2450)
