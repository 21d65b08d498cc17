"""An exported arm answers as the trained one, says where it comes from, appears whole or not at all, and leaks nothing.

Run: pytest tests/pipeline/test_export.py
"""

import json
import shutil
from dataclasses import replace
from importlib import metadata

import httpx
import huggingface_hub
import pandas
import pytest
from huggingface_hub.errors import OfflineModeIsEnabled
from records import stage_record, whole_manifest

from clinical_r1 import artifacts, generate, models
from clinical_r1.clinic.cases import load_set
from clinical_r1.files import (
    PipelineError,
    read_jsonl,
    read_stamp,
    sha256,
    write_json,
    write_stamped,
    write_text,
)
from clinical_r1.pipeline import __main__ as command
from clinical_r1.pipeline import export, ledger
from clinical_r1.questions import write_questions
from clinical_r1.settings import PAPER, SMOKE

TOKEN = "hf_" + "secret" * 5
HEADER = "benchmark,method,metric,value,ci_low,ci_high,n,seeds,coverage,seed_sd,paper_value,verdict\n"
SHA = "0123456789abcdef0123456789abcdef01234567"
NOT_ASKED = export.Exported({"model.safetensors": "f" * 64}, "float32", None)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished run in small: CRPO with an adapter of random numbers on the clinic base, its table and its manifest."""
    import torch
    from peft import get_peft_model

    settings = replace(SMOKE, out=str(tmp_path_factory.mktemp("run")), benchmarks=("clinic",), n_test=6)
    torch.manual_seed(0)
    policy = get_peft_model(models.load_policy(models.CLINIC_BASE, settings), models.lora_config(settings))
    with torch.no_grad():
        for name, value in policy.named_parameters():
            if "lora_B" in name:
                value.normal_(std=0.05)
    finish(settings, policy)
    answered(settings)
    table = settings.run_dir / "tables" / "table1.csv"
    write_text(
        table,
        HEADER
        + "clinic,crpo,accuracy,81.5333,77.2197,85.8469,500,3,0.999,,,x\n"
        + "clinic,crpo,hallucination,0.5567,0.4172,0.6961,500,3,1.0,,,x\n"
        + "clinic,grpo,accuracy,12.3456,10.0,14.0,500,3,1.0,,,x\n",
    )
    write_json(
        settings.run_dir / "manifest.json",
        whole_manifest(
            settings,
            git={"sha": SHA, "dirty": False},
            stages={"03_crpo_training": stage_record(git_sha=SHA)},
            versions={"trl": "0.0.1"},
        ),
    )
    for protocol in ("sampled", "greedy"):
        write_text(settings.scores_path("clinic", "crpo", 0, protocol), f"scores of {protocol}\n")
    ledger.write_ledger(settings, pandas.read_csv(table))
    return settings


@pytest.fixture
def run(finished, tmp_path):
    """A copy of the finished run to change."""
    shutil.copytree(finished.out, tmp_path, dirs_exist_ok=True)
    return replace(finished, out=str(tmp_path))


def answered(settings, **changes):
    """Sampled and greedy answers of its policy to the first questions of `clinic`."""
    settings = replace(settings, **changes)
    write_questions(settings.questions_path("clinic", "test"), load_set("clinic", "test", settings.n_test))
    policy = generate.load_method(settings, "crpo", 0)
    for protocol in ("sampled", "greedy"):
        generate.complete(settings, policy, "crpo", 0, "clinic", protocol)


def test_a_card_names_the_libraries_that_trained_the_arm_not_those_of_the_last_notebook(run):
    card = export.model_card(run, "crpo", 0, NOT_ASKED)
    for name in ("torch", "transformers", "trl", "peft"):
        assert f"| `trained with {name}` | {metadata.version(name)} |" in card
    assert "0.0.1" not in card  # what the manifest says of today


def test_a_table_that_is_gone_alone_is_not_a_model_that_was_never_measured(run):
    table = run.run_dir / "tables" / "table1.csv"
    table.unlink()
    with pytest.raises(PipelineError, match=r"table1.csv is gone and the ledger beside it is not"):
        export.measured(run, "crpo", 0)
    table.parent.rename(table.parent.with_name("away"))  # the second of the two ways on
    assert export.measured(run, "crpo", 0) is None


def finish(settings, policy):
    """What the end of training leaves."""
    folder = settings.model_dir("crpo", 0)
    artifacts.begin(settings, "crpo", 0)
    models.save_policy(policy, models.load_tokenizer(models.CLINIC_BASE), folder / "policy")
    artifacts.end(settings, "crpo", 0, {})


def logits(model, tokenizer):
    import torch

    with torch.no_grad():
        return model(**tokenizer(["fever . cough . which is it ?"], return_tensors="pt")).logits


def test_merged_weights_answer_as_the_adapter_on_its_base(run, tmp_path):
    folder = export.export(run, "crpo", 0, tmp_path / "exported")
    tokenizer = models.load_tokenizer(str(folder))
    base, adapter = artifacts.policy_of(run, "crpo", 0)
    trained = logits(models.load_policy(base, run, adapter), tokenizer)
    merged = models.load_policy(str(folder), run)
    # Adapter and merged weights add up in another order: float32 differs by rounding, 1e-5 of the largest logit.
    assert (logits(merged, tokenizer) - trained).abs().max() < 1e-5 * trained.abs().max()
    untrained = logits(models.load_policy(base, run), tokenizer)
    assert (trained - untrained).abs().max() > 0.1 * trained.abs().max()
    assert not hasattr(merged, "peft_config")


def test_merging_is_exact_where_rounding_is_not_in_the_way(run):
    base, adapter = artifacts.policy_of(run, "crpo", 0)
    tokenizer = models.load_tokenizer(base)
    wide = replace(run, device_dtype="float64")
    trained = logits(models.load_policy(base, wide, adapter).double(), tokenizer)
    merged = logits(models.merge_adapter(base, adapter, wide), tokenizer)
    assert trained.dtype == merged.dtype and "64" in str(merged.dtype)
    assert (merged - trained).abs().max() < 1e-10


def test_exported_folder_stands_alone(run, tmp_path):
    folder = export.export(run, "crpo", 0, tmp_path / "exported")
    names = {path.name for path in folder.iterdir()}
    assert {"model.safetensors", "config.json", "tokenizer.json", "README.md"} <= names
    assert not [name for name in names if "adapter" in name or name.endswith((".bin", ".pt", ".pkl"))]
    ours, base = (models.load_tokenizer(name) for name in (str(folder), models.CLINIC_BASE))
    assert ours.get_vocab() == base.get_vocab() and ours.chat_template == base.chat_template
    for path in folder.iterdir():
        assert str(tmp_path).encode() not in path.read_bytes(), f"{path.name} names a path of this machine"
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_card_says_what_it_is_and_how_good_with_n_and_interval(run, tmp_path):
    folder = export.export(run, "crpo", 0, tmp_path / "exported")
    card = huggingface_hub.ModelCard.load(folder / "README.md")
    data = card.data.to_dict()
    assert (data["base_model"], data["library_name"], data["license"]) == (
        "clinic-base",
        "transformers",
        "apache-2.0",
    )
    assert {"crpo", "not-for-clinical-use"} <= set(data["tags"])
    (result,) = card.data.eval_results
    assert (result.dataset_name, result.metric_value) == ("clinic", 81.5333)
    assert "n = 500" in result.metric_name and "training seeds = 3" in result.metric_name
    for said in (
        export.WARNING,
        "Teaching",
        "not for clinical use",
        "| clinic | accuracy, % | 81.53 | [77.22, 85.85] | 500 | 3 | 0.999 |",
        "| clinic | hallucination | 0.56 | [0.42, 0.70] | 500 | 3 | 1.000 |",
        "3 training seeds, of which this is one",
        f"| `notebook 03 last ran at commit` | {SHA} |",
        "| `notebook 04 last ran at commit` | not recorded |",
        "| `uncommitted changes` | no |",
        "| `rl_steps` | 2 |",
        "| `seed` | 0 |",
        artifacts.policy_hash(run, "crpo", 0),
    ):
        assert said in card.text
    assert "12.35" not in card.text  # another method's number


def test_unevaluated_arm_claims_nothing(run):
    shutil.rmtree(run.run_dir / "tables")
    (run.run_dir / "manifest.json").unlink()
    card = export.model_card(run, "crpo", 0, NOT_ASKED)
    assert "has not been evaluated" in card and "model-index" not in card
    assert "| `notebook 03 last ran at commit` | not recorded |" in card


def test_a_seed_the_table_does_not_cover_claims_nothing(run):
    for protocol in ("sampled", "greedy"):
        run.completions_path("clinic", "crpo", 0, protocol).unlink()
    assert export.measured(run, "crpo", 0) is None


@pytest.mark.parametrize("protocol", ["sampled", "greedy"])
def test_numbers_of_another_policy_are_refused(run, tmp_path, protocol):
    path = run.completions_path("clinic", "crpo", 0, protocol)
    write_stamped(path, read_jsonl(path), read_stamp(path, "make") | {"policy": "feedfacefeedface"})
    with pytest.raises(ValueError, match=r"table1\.csv does not describe crpo.*feedface"):
        export.export(run, "crpo", 0, tmp_path / "exported")
    assert not (tmp_path / "exported").exists()


CHANGED = {  # what was changed after the run -> what is said
    "models/crpo/seed0/policy/adapter_config.json": "crpo",
    "models/crpo/seed0/policy/tokenizer.json": "crpo",
    "completions/clinic/crpo.seed0.jsonl": "was changed after it was made",
    "tables/table1.csv": "table1.csv has changed since the tables",
    "tables/ledger.csv": "is not the one that results.json describes|damaged",
    "scores/clinic/crpo.seed0.jsonl": "crpo.seed0.jsonl has changed since the tables",
}


@pytest.mark.parametrize("name", CHANGED)
def test_what_changed_since_is_not_exported(run, tmp_path, name):
    path = run.run_dir / name
    path.write_text(path.read_text() + " ")
    with pytest.raises((ValueError, PipelineError), match=CHANGED[name]):
        export.export(run, "crpo", 0, tmp_path / "exported")
    assert not (tmp_path / "exported").exists()


def test_card_names_each_file_with_its_hash(run, tmp_path):
    folder = export.export(run, "crpo", 0, tmp_path / "exported")
    card, names = (folder / "README.md").read_text(), {path.name for path in folder.iterdir()} - {"README.md"}
    assert {
        "model.safetensors",
        "config.json",
        "tokenizer.json",
        "chat_template.jinja",
        "generation_config.json",
    } <= names
    for name in names:
        assert f"| `{name}` | {sha256(folder / name)} |" in card


def test_card_says_what_was_measured_and_what_is_exported(run, tmp_path):
    card = (export.export(run, "crpo", 0, tmp_path / "exported") / "README.md").read_text()
    assert (
        "Exported: adapter and base, merged, in float32. The numbers above were measured on the adapter"
        in card
    )
    assert "beside its base, in float32. Asked the first questions of clinic again" in card
    assert "gave 6 of 6 greedy letters equal" in card and "not the exported precision" not in card


@pytest.mark.parametrize("measured_in", ["bfloat16", "float16, 4-bit base"])
def test_card_of_another_precision_says_so(run, tmp_path, measured_in):
    path = run.completions_path("clinic", "crpo", 0, "greedy")
    rows = read_jsonl(path)
    rows[0] |= {"text": "no letter"}  # as bfloat16 answers otherwise once in a while
    for protocol in ("sampled", "greedy"):
        path = run.completions_path("clinic", "crpo", 0, protocol)
        stamp = read_stamp(path, "make") | {"answered_in": measured_in}
        write_stamped(path, rows if protocol == "greedy" else read_jsonl(path), stamp)
    card = (export.export(run, "crpo", 0, tmp_path / "exported") / "README.md").read_text()
    assert f"in {measured_in}. That is not the exported precision: single answers may differ" in card
    assert "gave 5 of 6 greedy letters equal" in card


@pytest.mark.parametrize("why", ["no greedy answers", "a large model and no GPU"])
def test_what_was_not_asked_again_is_not_claimed(run, monkeypatch, tmp_path, why):
    if why == "no greedy answers":
        run.completions_path("clinic", "crpo", 0, "greedy").unlink()
    else:
        monkeypatch.setattr(type(run), "prompt_layout", "full")
    card = (export.export(run, "crpo", 0, tmp_path / "exported") / "README.md").read_text()
    assert "The exported weights themselves were not asked again." in card and "letters equal" not in card


def test_damaged_manifest_is_named(run):
    (run.run_dir / "manifest.json").write_text('{"stages": ')
    with pytest.raises(PipelineError, match=r"manifest\.json is damaged"):
        export.model_card(run, "crpo", 0, NOT_ASKED)


def test_licence_and_name_follow_the_base(tmp_path):
    def card_of(settings):
        write_json(settings.model_dir("crpo", 0) / "policy" / "adapter_config.json", {})
        artifacts.begin(settings, "crpo", 0)
        artifacts.end(settings, "crpo", 0, {})
        return export.model_card(settings, "crpo", 0, NOT_ASKED)

    card = card_of(replace(PAPER, out=str(tmp_path)))
    data = huggingface_hub.ModelCard(card).data
    assert (data.license, data.license_name) == ("other", "qwen-research")
    (tmp_path / "my-base").mkdir()
    local = {"base_model": str(tmp_path / "my-base"), "teacher_traces": "/home/me/traces.jsonl"}
    card = card_of(replace(PAPER, out=str(tmp_path / "local"), **local))
    assert "base_model: my-base\n" in card
    assert str(tmp_path) not in card and "/home/me" not in card and "traces.jsonl" in card


def test_nothing_is_overwritten_and_nothing_half_written_stays(run, tmp_path, monkeypatch):
    full = tmp_path / "full"
    full.mkdir()
    (full / "mine.txt").write_text("mine")
    with pytest.raises(FileExistsError, match="not empty"):
        export.export(run, "crpo", 0, full)
    assert [path.name for path in full.iterdir()] == ["mine.txt"]
    before = set(tmp_path.iterdir())
    with monkeypatch.context() as broken:
        broken.setattr(export, "load_tokenizer", lambda name: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            export.export(run, "crpo", 0, tmp_path / "new")
    assert set(tmp_path.iterdir()) == before
    (tmp_path / "empty").mkdir()
    assert (export.export(run, "crpo", 0, tmp_path / "empty") / "model.safetensors").is_file()


def test_fully_trained_weights_are_copied(tmp_path):
    settings = replace(SMOKE, out=str(tmp_path), lora_rank=0)
    finish(settings, models.load_policy(models.CLINIC_BASE, settings))
    source = settings.model_dir("crpo", 0) / "policy"
    (source / "training_args.bin").write_bytes(b"a pickle")
    artifacts.end(settings, "crpo", 0, {})
    folder = export.export(settings, "crpo", 0, tmp_path / "exported")
    assert (folder / "model.safetensors").read_bytes() == (source / "model.safetensors").read_bytes()
    assert (
        not (folder / "training_args.bin").exists()
        and "all weights trained" in (folder / "README.md").read_text()
    )
    quantised = json.loads((source / "config.json").read_text()) | {
        "quantization_config": {"load_in_4bit": True}
    }
    (source / "config.json").write_text(json.dumps(quantised))
    artifacts.end(settings, "crpo", 0, {})
    with pytest.raises(ValueError, match="holds quantised weights"):
        export.export(settings, "crpo", 0, tmp_path / "again")


def test_an_adapter_is_never_merged_into_a_quantised_base(run, tmp_path):
    import shutil

    base = tmp_path / "base"
    shutil.copytree(models.clinic_base_path(), base)
    config = json.loads((base / "config.json").read_text())
    (base / "config.json").write_text(
        json.dumps(config | {"quantization_config": {"quant_method": "bitsandbytes"}})
    )
    adapter = artifacts.policy_of(run, "crpo", 0)[1]
    with pytest.raises(ValueError, match="name the unquantised model"):
        models.merge_adapter(str(base), adapter, run)
    # trained on 4-bit weights, merged on whole ones
    merged = models.merge_adapter(models.CLINIC_BASE, adapter, replace(run, load_in_4bit=True))
    assert {str(value.dtype) for value in merged.parameters()} == {"torch.float32"}


@pytest.mark.parametrize(
    "method, said", [("baseline", "no weights of its own"), ("grpo", "is not trained in")]
)
def test_what_cannot_be_exported_says_so(run, tmp_path, method, said):
    with pytest.raises(ValueError, match=said):
        export.export(run, method, 0, tmp_path / "exported")


# -------------------------------------------------------------------------------------------------------------- Hub


class Hub:
    """Stands where huggingface_hub.HfApi stands."""

    def __init__(self, public=False, error=None):
        self.public, self.error, self.calls = public, error, []

    def __call__(self, token):
        self.token = token
        return self

    def create_repo(self, repo, private, exist_ok):
        self.calls.append(("create", repo, private))
        if self.error:
            raise self.error

    def model_info(self, repo):
        return type("Info", (), {"private": not self.public})

    def upload_folder(self, repo_id, folder_path, commit_message):
        self.calls.append(("upload", repo_id, str(folder_path)))


@pytest.fixture
def hub(monkeypatch):
    def install(**options):
        api = Hub(**options)
        monkeypatch.setattr(huggingface_hub, "HfApi", api)
        return api

    monkeypatch.setattr(huggingface_hub, "get_token", lambda: TOKEN)
    return install


def test_push_is_private_unless_told_otherwise(hub, tmp_path):
    api = hub()
    assert export.push(tmp_path, "me/model").endswith("/me/model")
    assert api.calls == [("create", "me/model", True), ("upload", "me/model", str(tmp_path))]
    api = hub(public=True)
    with pytest.raises(ValueError, match="exists and is public"):
        export.push(tmp_path, "me/model")
    assert [call[0] for call in api.calls] == ["create"]
    export.push(tmp_path, "me/model", private=False)
    assert api.calls[-1][0] == "upload"


@pytest.mark.parametrize(
    "error",
    [
        OfflineModeIsEnabled("offline mode is enabled"),
        httpx.ConnectError(f"no route, header Bearer {TOKEN}"),
        OSError("the line is down"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_unreachable_hub_keeps_the_export_and_the_secret(hub, tmp_path, error):
    hub(error=error)
    with pytest.raises(ConnectionError, match=r"was not pushed.*hf upload me/model .* --private") as raised:
        export.push(tmp_path, "me/model")
    assert TOKEN not in str(raised.value)
    assert raised.value.__cause__ is None and raised.value.__context__ is None


def test_push_needs_a_token_and_an_owner(monkeypatch):
    monkeypatch.setattr(huggingface_hub, "get_token", lambda: None)
    with pytest.raises(PermissionError, match="hf auth login"):
        export.check_destination("me/model")
    for name in ("model", "me/a b", "me/../x"):
        with pytest.raises(ValueError, match="expected ORG/NAME"):
            export.check_destination(name)


def test_command_line_exports_and_pushes(run, hub, tmp_path, capsys):
    api = hub()
    target = tmp_path / "exported"
    arguments = ["export", "--profile", "smoke", "--method", "crpo", "--to", str(target), "--out", run.out]
    assert command.main([*arguments, "--push", "me/model"]) == 0
    shown = capsys.readouterr()
    assert "pushed to" in shown.out and api.token == TOKEN
    assert TOKEN not in shown.out + shown.err
    assert not [path for path in target.iterdir() if TOKEN.encode() in path.read_bytes()]
    assert command.main(arguments) == 1
    assert "not empty" in capsys.readouterr().err


def test_command_line_asks_for_the_token_before_it_merges(run, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(huggingface_hub, "get_token", lambda: None)
    target = tmp_path / "exported"
    arguments = ["export", "--profile", "smoke", "--method", "crpo", "--to", str(target), "--out", run.out]
    assert command.main([*arguments, "--push", "me/model"]) == 1
    assert "access token" in capsys.readouterr().err and not target.exists()


@pytest.mark.parametrize("changes", [{}, {"backend": "unsloth"}, {"load_in_4bit": True}], ids=str)
def test_the_cold_start_is_merged_the_same_on_every_route(run, tmp_path, changes):
    """In place on plain weights; through the adapter's file where those are 4-bit or shared with vLLM."""
    from peft import PeftModel

    adapter = artifacts.policy_of(run, "crpo", 0)[1]
    trained = PeftModel.from_pretrained(models.load_policy(models.CLINIC_BASE, run), adapter)
    expected = models.merge_adapter(models.CLINIC_BASE, adapter, run).state_dict()
    merged = models.merged(
        trained, models.CLINIC_BASE, replace(run, **changes), tmp_path / "cold_start"
    ).state_dict()
    assert merged.keys() == expected.keys()
    assert all((merged[name] == expected[name]).all() for name in expected)
    assert (tmp_path / "cold_start" / "adapter").exists() == bool(changes)
