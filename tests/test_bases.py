"""Real base models: where they come from, what a damaged folder is told, and which numbers a run computes in.

python -m pytest tests/test_bases.py
"""

import importlib.util
import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from clinical_r1 import models
from clinical_r1.bases import folders, precision
from clinical_r1.files import PipelineError, write_json
from clinical_r1.prompts import render_chat
from clinical_r1.settings import CLINIC_BASE, LAPTOP, SMOKE

HUB = "HuggingFaceTB/SmolLM2-135M-Instruct"


@pytest.fixture
def local(tmp_path, monkeypatch):
    """A folder of models that the variable names, and a cache of this test's own."""
    monkeypatch.setenv(folders.MODELS_VARIABLE, str(tmp_path / "models"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "models").mkdir()
    return tmp_path / "models"


def whole(folder: Path) -> Path:
    """A folder with the names of a whole model in two parts."""
    folder.mkdir(parents=True)
    parts = {"a": "model-1.safetensors", "b": "model-2.safetensors"}
    write_json(folder / "model.safetensors.index.json", {"weight_map": parts})
    for name in ("config.json", "tokenizer.json", *parts.values()):
        (folder / name).write_text("{}")
    return folder


# ---- where a base model comes from ----


def test_a_pinned_name_is_a_name_and_a_revision():
    name, revision = folders.hub_name(LAPTOP.base_model)
    assert name == HUB and len(revision) == 40 and set(revision) <= set("0123456789abcdef")
    assert folders.hub_name("a/b") == ("a/b", None) and folders.folder_of("a/b") == "a/b"


@pytest.mark.parametrize("content", [b"", b"hello", b"GGUF\x03\0\0\0"])
def test_a_damaged_gguf_file_is_named(local, content):
    pytest.importorskip("gguf")
    (local / "SmolLM2-135M-Instruct.gguf").write_bytes(content)
    with pytest.raises(ValueError, match="SmolLM2-135M-Instruct.gguf cannot be read as a GGUF.*download it"):
        folders.folder_of(HUB)
    assert not [path for path in folders.cache_folder().rglob("*") if path.name == "sha256.json"]


def test_a_cache_that_cannot_be_written_is_named(local, tmp_path):
    (local / "SmolLM2-135M-Instruct.gguf").write_bytes(b"GGUF")
    (tmp_path / "cache").write_text("a file stands where the folder should")
    with pytest.raises(
        PipelineError, match="cache/clinical_r1/models, which cannot be written; let XDG_CACHE_"
    ):
        folders.folder_of(HUB)


def test_damaged_weights_are_one_sentence(tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(models.clinic_base_path(), folder)
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(
        ValueError, match=r"^\S+ cannot be loaded as a language model \([^\n]+\); download it"
    ):
        models.load_policy(str(folder), SMOKE)


@pytest.mark.parametrize(
    "gone, said",
    [
        ("config.json", "lacks config.json"),
        ("tokenizer.json", r"lacks a tokenizer \(tokenizer.json\)"),
        ("model-2.safetensors", "lacks model-2.safetensors"),
    ],
)
def test_a_model_folder_that_lacks_a_file_is_told_which(tmp_path, gone, said):
    folder = whole(tmp_path / "model")
    assert models.resolve_base(str(folder)) == str(folder) and folders.check_model_folder(str(folder)) is None
    (folder / gone).unlink()
    load = models.load_tokenizer if "tokenizer" in gone else lambda name: models.load_policy(name, SMOKE)
    with pytest.raises(ValueError, match=said):
        load(str(folder))


def test_a_model_folder_without_weights_is_told_so(tmp_path):
    folder = whole(tmp_path / "model")
    for path in folder.glob("model*"):
        path.unlink()
    with pytest.raises(ValueError, match=r"lacks weights \(model.safetensors\)"):
        models.load_policy(str(folder), SMOKE)


def test_a_local_folder_serves_instead_of_the_hub_and_is_named(local, capsys):
    folder = whole(local / "smollm2-135m-instruct")
    folders._say.cache_clear()
    assert models.resolve_base(LAPTOP.base_model) == str(folder)
    assert "not from the Hub" in capsys.readouterr().err


def test_two_local_models_of_one_name_are_refused(local):
    for kind in ("Q4_1", "F16"):
        (local / f"SmolLM2-135M-Instruct.{kind}.gguf").write_bytes(b"GGUF")
    with pytest.raises(ValueError, match="F16.gguf and SmolLM2-135M-Instruct.Q4_1.gguf .*leave one"):
        models.resolve_base(LAPTOP.base_model)


@pytest.mark.parametrize(
    "behind, serves",
    [
        (".Q4_1", True),
        ("-q4_k_m", True),
        ("-IQ3_XXS", True),
        ("-bf16", True),
        ("", True),
        ("-UD-Q4_K_XL", True),
    ]
    + [("-Instruct.Q4_1", False), ("-v2-Q4_1", False), ("B.Q4_1", False)],
)
def test_a_file_of_another_model_whose_name_only_begins_alike_does_not_serve(
    local, monkeypatch, behind, serves
):
    (local / f"SmolLM2-135M{behind}.gguf").write_bytes(b"GGUF")
    monkeypatch.setattr(folders, "converted", lambda source, name: source)
    assert (folders.folder_of("HuggingFaceTB/SmolLM2-135M") == "HuggingFaceTB/SmolLM2-135M") != serves


def test_a_variable_that_names_no_folder_is_refused(monkeypatch, tmp_path):
    monkeypatch.setenv(folders.MODELS_VARIABLE, str(tmp_path / "nowhere"))
    with pytest.raises(ValueError, match="is no folder"):
        models.resolve_base(LAPTOP.base_model)


def test_a_hub_that_cannot_be_reached_is_one_sentence(local, monkeypatch):
    import huggingface_hub

    def unreachable(name, revision, allow_patterns):
        assert (name, revision) == folders.hub_name(LAPTOP.base_model) and "*.py" not in allow_patterns
        raise OSError("no route")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", unreachable)
    with pytest.raises(ValueError, match="could not be fetched .* CLINICAL_R1_MODELS names"):
        models.resolve_base(LAPTOP.base_model)


# ---- which numbers a run computes in ----


@pytest.mark.parametrize("half, expected", [(0.5, "bfloat16"), (0.9, "float32"), (3.0, "float32")])
def test_auto_takes_bfloat16_only_where_it_was_measured_to_be_faster(
    tmp_path, monkeypatch, capsys, half, expected
):
    asked = []

    def probe(width, inner, dtypes):
        asked.append((width, inner))
        return dict(zip(dtypes, (1.0, half), strict=True))

    monkeypatch.setattr(precision, "probe", probe)
    settings = replace(SMOKE, device_dtype="auto", out=str(tmp_path))
    assert models.precision(settings) == models.precision(settings) == expected
    assert len(asked) == 1 and asked[0][1] > asked[0][0]
    assert f"{expected} is used" in capsys.readouterr().err
    kept = json.loads((settings.run_dir / precision.FILE).read_text())
    assert kept["dtype"] == expected and kept["seconds"]["bfloat16"] == half
    assert os.listdir(settings.run_dir) == [precision.FILE]


def test_what_a_run_was_begun_in_stays_whatever_is_measured_later(tmp_path, monkeypatch):
    monkeypatch.setattr(precision, "probe", None)
    settings = replace(SMOKE, device_dtype="auto", out=str(tmp_path))
    write_json(settings.run_dir / precision.FILE, {"dtype": "bfloat16"})
    assert models.precision(settings) == "bfloat16"
    write_json(settings.run_dir / precision.FILE, {"dtype": "int4"})
    with pytest.raises(ValueError, match="names the type 'int4'"):
        models.precision(settings)


def test_the_first_process_that_measures_decides_for_all(tmp_path):
    path = tmp_path / precision.FILE
    precision._write_first(path, {"dtype": "float32"})
    precision._write_first(path, {"dtype": "bfloat16"})
    assert json.loads(path.read_text()) == {"dtype": "float32"} and os.listdir(tmp_path) == [precision.FILE]


def test_the_probe_multiplies_in_both_types():
    seconds = precision.probe(8, 16)
    assert seconds.keys() == {"float32", "bfloat16"} and min(seconds.values()) > 0


@pytest.mark.parametrize("half, said", [(2.5, True), (0.5, False)])
def test_bfloat16_by_name_is_told_where_it_is_slow(monkeypatch, capsys, half, said):
    precision.say_if_emulated.cache_clear()
    monkeypatch.setattr(precision, "probe", lambda *_: {"float32": 1.0, "bfloat16": half})
    models.load_policy(CLINIC_BASE, replace(SMOKE, device_dtype="bfloat16"))
    words = capsys.readouterr().err
    assert ("only emulates bfloat16: a product takes 2.5 times as long" in words) == said
    assert ('set device_dtype to "auto"' in words) == said
    precision.say_if_emulated.cache_clear()


# ---- the real model ----


@pytest.fixture(scope="module")
def smollm2(tmp_path_factory):
    """The folder that SmolLM2's GGUF file is converted into."""
    given = os.environ.get(folders.MODELS_VARIABLE)
    if not given or not list(Path(given).glob("SmolLM2-135M-Instruct*.gguf")):
        pytest.skip("CLINICAL_R1_MODELS names no folder with SmolLM2-135M-Instruct*.gguf")
    if importlib.util.find_spec("gguf") is None:
        pytest.skip("the package gguf is not installed")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        folders.converted.cache_clear()
        yield Path(models.resolve_base(LAPTOP.base_model))
        folders.converted.cache_clear()


@pytest.mark.slow
def test_smollm2_is_converted_whole_with_the_tokens_that_its_file_names(smollm2, capsys):
    record = json.loads((smollm2 / "sha256.json").read_text())
    assert record["recipe"]["source"].endswith(".gguf") and len(record["recipe"]["sha256"]) == 64
    assert "quantization_config" not in json.loads((smollm2 / "config.json").read_text())
    tokenizer = models.load_tokenizer(str(smollm2))
    assert (tokenizer.bos_token, tokenizer.eos_token) == ("<|im_start|>", "<|im_end|>")
    assert (tokenizer.unk_token, tokenizer.pad_token) == ("<|endoftext|>", "<|im_end|>")
    text = render_chat(tokenizer, [{"role": "user", "content": "Réaction à 38.5 °C?\n\nA: 嗯"}])
    assert text.startswith("<|im_start|>system\n") and text.endswith("<|im_start|>assistant\n")
    assert tokenizer.decode(tokenizer(text, add_special_tokens=False)["input_ids"]) == text
    assert "no pad token" not in capsys.readouterr().err
    (smollm2 / "generation_config.json").write_text("{}")
    folders.converted.cache_clear()
    with pytest.raises(ValueError, match=r"generation_config.json has sha256 .*Delete .*converts"):
        models.resolve_base(LAPTOP.base_model)
