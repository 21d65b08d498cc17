"""The clinic base model and its tokenizer: exact round trips, hashes checked, LoRA and reloading.

Run: pytest tests/test_models.py
"""

import json
import shutil

import pytest

from clinical_r1 import models, pretrain
from clinical_r1.clinic import LEVELS, load_set
from clinical_r1.prompts import STYLES, build_messages
from clinical_r1.settings import SMOKE

PAIRS = list(pretrain.pretraining_corpus(400, seed=1))


@pytest.fixture(scope="module")
def tokenizer():
    return models.load_tokenizer(models.CLINIC_BASE)


def test_every_clinic_text_survives_the_tokenizer(tokenizer):
    for _, completion in PAIRS:
        ids = tokenizer(completion, add_special_tokens=False)["input_ids"]
        assert tokenizer.unk_token_id not in ids, completion
        assert tokenizer.decode(ids) == completion


def test_prompts_have_no_unknown_word_and_stay_short(tokenizer):
    for name in LEVELS:
        for question in load_set(name, "test", 100):
            for style in STYLES:
                text = tokenizer.apply_chat_template(
                    build_messages(question, style, "clinic"), add_generation_prompt=True, tokenize=False
                )
                ids = tokenizer(text, add_special_tokens=False)["input_ids"]
                assert tokenizer.unk_token_id not in ids and len(ids) < SMOKE.max_prompt_tokens


def test_shipped_tokenizer_is_the_one_the_code_builds(tokenizer):
    assert pretrain.build_clinic_tokenizer().get_vocab() == tokenizer.get_vocab()


def test_pretraining_and_training_render_the_same_prompt(tokenizer):
    user, completion = PAIRS[0]
    row = pretrain.encode_supervised(tokenizer, PAIRS[:1])[0]
    text = tokenizer.apply_chat_template(
        [{"role": "user", "content": user}], add_generation_prompt=True, tokenize=False
    )
    prompt = tokenizer(text, add_special_tokens=False)["input_ids"]
    assert row["input_ids"][: len(prompt)] == prompt and set(row["labels"][: len(prompt)]) == {-100}
    assert row["input_ids"][-1] == tokenizer.eos_token_id
    assert tokenizer.decode(row["input_ids"][len(prompt) : -1]) == completion


def test_shipped_model_is_small_and_whole():
    folder = models.clinic_base_path()
    assert sum(path.stat().st_size for path in folder.iterdir()) < 8_000_000
    model = models.load_policy(models.CLINIC_BASE, SMOKE)
    assert sum(p.numel() for p in model.parameters()) < 3_000_000
    assert model.config.model_type == "qwen2"


@pytest.mark.parametrize("damage", ["changed", "truncated", "missing"])
def test_damaged_base_model_is_refused(tmp_path, damage):
    folder = tmp_path / "base"
    shutil.copytree(models.clinic_base_path(), folder)
    weights = folder / "model.safetensors"
    if damage == "missing":
        weights.unlink()
    else:
        raw = weights.read_bytes()
        weights.write_bytes(raw[:-1] if damage == "truncated" else raw[:-1] + bytes([raw[-1] ^ 1]))
    with pytest.raises(ValueError, match=r"model\.safetensors.*expected.*pretrain"):
        models.check_hashes(folder)


def test_folder_without_a_model_says_how_to_make_one(tmp_path):
    with pytest.raises(FileNotFoundError, match="clinical_r1.clinic pretrain"):
        models.check_hashes(tmp_path)


def test_recipe_is_stamped():
    recipe = json.loads((models.clinic_base_path() / "sha256.json").read_text())["recipe"]
    assert recipe["phases"] == json.loads(json.dumps(pretrain.PHASES)) and recipe["seed"] == pretrain.SEED


def test_unsloth_without_unsloth_is_refused(monkeypatch):
    monkeypatch.setattr(models.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match="unsloth.*not installed"):
        models.load_backend("unsloth")
    assert models.load_backend("trl") == "trl"


def test_corpus_is_seeded():
    assert PAIRS[:50] == list(pretrain.pretraining_corpus(400, seed=1))[:50]
    assert PAIRS[:50] != list(pretrain.pretraining_corpus(400, seed=2))[:50]


def test_pretraining_runs_and_is_repeatable(tmp_path):
    for name in ("one", "two"):
        pretrain.pretrain_clinic_base(tmp_path / name, phases=[(2, *phase[1:]) for phase in pretrain.PHASES])
        models.check_hashes(tmp_path / name)
    first, second = ((tmp_path / name / "model.safetensors").read_bytes() for name in ("one", "two"))
    assert first == second
