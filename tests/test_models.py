"""The clinic base model and its tokenizer: exact round trips, hashes checked; loading a policy with either backend.

No GPU, Unsloth, vLLM or bitsandbytes is here: stand-ins take their place, with the signatures of the real ones
(unsloth 2026.10.7), and what is checked is what our code asks of them.

Run: pytest tests/test_models.py
"""

import importlib.metadata
import json
import shutil
import subprocess
import sys
import types
from dataclasses import replace

import pytest

from clinical_r1 import generate, models, train
from clinical_r1.clinic import base_model
from clinical_r1.clinic.cases import LEVELS, load_set
from clinical_r1.engines.local import Transformers
from clinical_r1.prompts import STYLES, build_messages
from clinical_r1.settings import COLAB, CPU, PAPER, PROFILES, SMOKE

LESSONS = list(base_model.pretraining_corpus(400, seed=1))


@pytest.fixture(scope="module")
def tokenizer():
    return models.load_tokenizer(models.CLINIC_BASE)


def test_every_clinic_text_survives_the_tokenizer(tokenizer):
    for _, given, learned in LESSONS:
        completion = f"{given} {learned}".strip()
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
    assert base_model.build_clinic_tokenizer().get_vocab() == tokenizer.get_vocab()


def test_pretraining_and_training_render_the_same_prompt(tokenizer):
    user, _, completion = next(lesson for lesson in LESSONS if not lesson.given)
    row = base_model.encode_supervised(tokenizer, [base_model.Lesson(user, "", completion)])[0]
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
    assert recipe["phases"] == json.loads(json.dumps(base_model.PHASES)) and recipe["seed"] == base_model.SEED


def test_unsloth_without_unsloth_is_refused(monkeypatch):
    monkeypatch.setattr(models.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match="unsloth.*not installed"):
        models.load_backend("unsloth")
    assert models.load_backend("trl") == "trl"


def test_corpus_is_seeded():
    assert LESSONS[:50] == list(base_model.pretraining_corpus(400, seed=1))[:50]
    assert LESSONS[:50] != list(base_model.pretraining_corpus(400, seed=2))[:50]


def test_pretraining_runs_and_is_repeatable(tmp_path):
    for name in ("one", "two"):
        base_model.pretrain_clinic_base(
            tmp_path / name, phases=[(2, *phase[1:]) for phase in base_model.PHASES]
        )
        models.check_hashes(tmp_path / name)
    first, second = ((tmp_path / name / "model.safetensors").read_bytes() for name in ("one", "two"))
    assert first == second


# ---------------------------------------------------------------------------------------------------------- backends


@pytest.fixture
def stand_ins(tmp_path):
    """A folder of empty packages, to be imported in a process of its own: unsloth imports the others, as the real one."""
    for name in models.PATCHED_BY_UNSLOTH:
        (tmp_path / f"{name}.py").write_text("")
    (tmp_path / "unsloth.py").write_text("import transformers, trl, peft")
    return tmp_path


def import_order(folder, code):
    code = f"import sys; sys.path.insert(0, {str(folder)!r})\nfrom clinical_r1.models import load_backend\n{code}"
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)


def test_unsloth_that_comes_first_is_accepted_twice(stand_ins):
    run = import_order(stand_ins, "print(load_backend('unsloth'), load_backend('unsloth'))")
    assert run.stdout.split() == ["unsloth", "unsloth"], run.stderr


def test_unsloth_asked_for_too_late_names_what_came_first(stand_ins):
    run = import_order(stand_ins, "import transformers, peft\nload_backend('unsloth')")
    message = run.stderr.strip().splitlines()[-1]
    assert (
        "too late: transformers, peft came before it" in message
        and "load_backend('unsloth') first" in message
    )


@pytest.mark.parametrize(
    "body", ["DEVICE_TYPE = 'cpu'", "raise NotImplementedError('no torch accelerator')"], ids=["new", "old"]
)
def test_unsloth_without_a_gpu_is_refused(stand_ins, body):
    (stand_ins / "unsloth.py").write_text(body)
    run = import_order(stand_ins, "load_backend('unsloth')")
    assert "ImportError: backend 'unsloth' needs a GPU" in run.stderr


class FakeUnsloth:
    """Keeps what it was asked for; gives the clinic base, with real LoRA from PEFT."""

    def __init__(self):
        self.asked = {}

    def from_pretrained(self, model_name, **options):
        self.asked["load"] = {"model_name": model_name} | options
        return models.load_policy(models.CLINIC_BASE, SMOKE), "its own tokenizer"

    def get_peft_model(self, model, *, use_gradient_checkpointing, random_state, **lora):
        from peft import LoraConfig, get_peft_model

        self.asked["lora"] = {"use_gradient_checkpointing": use_gradient_checkpointing, "seed": random_state}
        return get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", **lora))

    def for_inference(self, model):
        self.asked["inference"] = True
        return model.eval()


@pytest.fixture
def unsloth(monkeypatch):
    fake = FakeUnsloth()
    monkeypatch.setitem(sys.modules, "unsloth", types.SimpleNamespace(FastLanguageModel=fake))
    return fake


@pytest.fixture(autouse=True)
def say_again():
    models._say.cache_clear()


def trainable_shapes(model):
    return {name: tuple(value.shape) for name, value in model.named_parameters() if value.requires_grad}


def test_both_backends_train_the_same_matrices(unsloth):
    from peft import get_peft_model

    plain = get_peft_model(models.load_policy(models.CLINIC_BASE, SMOKE), models.lora_config(SMOKE))
    ours = models.load_policy("some/base", replace(SMOKE, backend="unsloth"), trainable=True, seed=7)
    assert trainable_shapes(ours) == trainable_shapes(plain) != {}
    for key in ("r", "lora_alpha", "lora_dropout", "bias", "use_rslora"):
        assert getattr(ours.peft_config["default"], key) == getattr(plain.peft_config["default"], key)
    assert unsloth.asked["lora"] == {"use_gradient_checkpointing": False, "seed": 7}
    assert unsloth.asked["load"]["random_state"] == 7 and "inference" not in unsloth.asked


FOUR_BITS = replace(PAPER, profile="four-bits", device_dtype="float16", load_in_4bit=True, use_vllm=False)


@pytest.mark.parametrize("settings", [FOUR_BITS, PAPER], ids=lambda settings: settings.profile)
def test_unsloth_is_asked_for_what_the_profile_says(unsloth, monkeypatch, settings):
    import torch

    monkeypatch.setitem(sys.modules, "vllm", types.SimpleNamespace())
    models.load_policy("some/base", settings, trainable=True, rollouts=True)
    asked = unsloth.asked["load"]
    assert asked["model_name"] == "some/base" and asked["use_exact_model_name"]
    assert asked["max_seq_length"] == settings.max_prompt_tokens + settings.max_completion_tokens
    assert (asked["dtype"], asked["load_in_4bit"], asked["fast_inference"]) == {
        "four-bits": (torch.float16, True, False),
        "paper": (torch.bfloat16, False, True),
    }[settings.profile]
    assert asked["max_lora_rank"] >= settings.lora_rank and not asked["full_finetuning"]
    models.load_policy("some/base", settings, trainable=True)  # the cold start makes no rollouts
    assert not unsloth.asked["load"]["fast_inference"]


def test_unsloth_policy_generates_with_its_adapter(unsloth, tmp_path):
    from peft import get_peft_model

    fresh = get_peft_model(models.load_policy(models.CLINIC_BASE, SMOKE), models.lora_config(SMOKE))
    fresh.save_pretrained(tmp_path)
    policy = models.load_policy(models.CLINIC_BASE, replace(SMOKE, backend="unsloth"), tmp_path)
    assert unsloth.asked["inference"] and not policy.training and not trainable_shapes(policy)
    assert unsloth.asked["load"]["model_name"].endswith("clinic_base")  # not the path the adapter remembers
    assert set(policy.peft_config) == {"default"}


def test_unsloth_trains_everything_at_rank_zero(unsloth):
    policy = models.load_policy("some/base", replace(SMOKE, backend="unsloth", lora_rank=0), trainable=True)
    assert unsloth.asked["load"]["full_finetuning"] and "lora" not in unsloth.asked
    assert trainable_shapes(policy).keys() == dict(policy.named_parameters()).keys()


# ----------------------------------------------------------------------------------------------- precision, 4 bits


@pytest.fixture
def card(monkeypatch):
    """A CUDA card that only answers questions; `card(bfloat16=False)` is a T4."""
    import torch

    def answer(bfloat16):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: bfloat16)

    return answer


def test_a_card_without_bfloat16_gets_float16_and_one_sentence(card, capsys):
    assert models.precision(PAPER) == "bfloat16"  # no card, nothing to say
    card(bfloat16=True)
    assert models.precision(PAPER) == "bfloat16" and not capsys.readouterr().err
    card(bfloat16=False)
    assert [models.precision(settings) for settings in (PAPER, PAPER, CPU)] == [
        "float16",
        "float16",
        "float32",
    ]
    assert capsys.readouterr().err.count("no bfloat16") == 1


@pytest.fixture
def loaded(monkeypatch):
    """What plain Transformers is asked for, instead of loading it."""
    import transformers

    asked = {}

    class Model:
        def to(self, device):
            asked["moved to"] = str(device)
            return self

    def from_pretrained(name, **options):
        asked.update(options, name=name)
        return Model()

    monkeypatch.setattr(transformers.AutoModelForCausalLM, "from_pretrained", from_pretrained)
    return asked


def test_plain_backend_on_a_card(card, loaded, monkeypatch):
    import torch

    card(bfloat16=False)
    monkeypatch.setenv("LOCAL_RANK", "1")
    plain = replace(PAPER, backend="trl")
    models.load_policy("some/base", plain, trainable=True)
    assert (loaded["attn_implementation"], loaded["dtype"]) == ("sdpa", torch.float16)
    assert loaded["moved to"] == "cuda:1" and "quantization_config" not in loaded
    models.load_policy("some/base", replace(plain, lora_rank=0), trainable=True)
    assert loaded["dtype"] == torch.float32  # the gradient scaler refuses float16 weights


def test_plain_backend_in_four_bits(card, loaded, monkeypatch):
    import torch

    plain, version = replace(FOUR_BITS, backend="trl"), importlib.metadata.version
    with pytest.raises(ValueError, match="needs a CUDA device"):
        models.load_policy("some/base", plain)
    card(bfloat16=False)
    monkeypatch.setattr(models.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match="bitsandbytes, which is not installed"):
        models.load_policy("some/base", plain)
    monkeypatch.setitem(sys.modules, "bitsandbytes", types.SimpleNamespace())
    monkeypatch.setattr(
        importlib.metadata, "version", lambda name: "0.50.2" if name == "bitsandbytes" else version(name)
    )
    models.load_policy("some/base", plain)
    config = loaded["quantization_config"]
    assert config.load_in_4bit and config.bnb_4bit_quant_type == "nf4"
    assert config.bnb_4bit_compute_dtype == torch.float16
    assert (
        str(loaded["device_map"][""]) == "cuda:0" and "moved to" not in loaded
    )  # 4-bit weights cannot be moved


def test_four_bits_are_not_trained_in_full():
    with pytest.raises(ValueError, match="lora_rank above 0"):
        models.load_policy("some/base", replace(FOUR_BITS, lora_rank=0), trainable=True)


def test_adapter_of_a_scaled_run_is_float32():
    import torch

    layer = torch.nn.Linear(2, 2).to(torch.bfloat16)  # as TRL leaves a 4-bit model's adapter
    layer.bias.requires_grad_(False)
    models.float32_adapter(layer, PAPER)
    assert layer.weight.dtype == torch.bfloat16
    models.float32_adapter(layer, COLAB)
    assert (layer.weight.dtype, layer.bias.dtype) == (torch.float32, torch.bfloat16)


# ------------------------------------------------------------------------------------------------ rollouts, batches


def test_vllm_runs_inside_the_trainer_where_it_is_installed(monkeypatch):
    import trl

    monkeypatch.setitem(sys.modules, "vllm", types.SimpleNamespace())
    arguments = models.rollout_arguments(PAPER)
    assert arguments["use_vllm"] and arguments["vllm_mode"] == "colocate"
    assert arguments["vllm_max_model_length"] == 1536 + 4096
    assert {*arguments} <= {*trl.GRPOConfig.__dataclass_fields__}
    assert models.rollout_arguments(CPU) == {"use_vllm": False}


def test_without_vllm_transformers_serves_in_batches_that_fit(monkeypatch, capsys):
    monkeypatch.setattr(models.importlib.util, "find_spec", lambda name: None)
    arguments = [models.rollout_arguments(PAPER) for _ in range(2)][0]
    assert capsys.readouterr().err.count("vllm is not installed") == 1
    passes = PAPER.rl_prompts * PAPER.num_generations // PAPER.micro_batch
    assert not arguments["use_vllm"] and passes % arguments["steps_per_generation"] == 0
    assert arguments["steps_per_generation"] * PAPER.micro_batch <= PAPER.eval_batch


@pytest.mark.parametrize("profile", PROFILES)
def test_a_cold_start_step_has_exactly_its_batch(profile):
    settings = PROFILES[profile]
    rows, passes = train.supervised_batch(settings)
    assert rows * passes == settings.sft_batch and rows <= settings.micro_batch


# ----------------------------------------------------------------------------------- what a base model does not bring


def byte_level(folder, **special):
    """A folder with a tokenizer that knows every byte, as SmolLM2's and Llama's."""
    from tokenizers import Tokenizer, decoders, pre_tokenizers
    from tokenizers.models import BPE
    from transformers import PreTrainedTokenizerFast

    names = dict.fromkeys(special.values())
    alphabet = [*sorted(pre_tokenizers.ByteLevel.alphabet()), *names]
    tokenizer = Tokenizer(BPE(vocab={token: i for i, token in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.ByteLevel(False), decoders.ByteLevel()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special).save_pretrained(folder)
    return folder


@pytest.mark.parametrize(
    ("special", "pad"),
    [
        ({"eos_token": "<end>"}, "<end>"),  # Llama
        ({"eos_token": "<end>", "unk_token": "<end>"}, "<end>"),  # SmolLM2
        ({"eos_token": "<end>", "unk_token": "<unk>"}, "<unk>"),  # Llama 2
        ({"unk_token": "<unk>"}, "<unk>"),
        ({"eos_token": "<end>", "pad_token": "<pad>"}, "<pad>"),
    ],
    ids=str,
)
def test_a_tokenizer_without_a_pad_token_gets_one_and_says_so(tmp_path, capsys, special, pad):
    tokenizer = models.load_tokenizer(str(byte_level(tmp_path, **special)))
    assert tokenizer.pad_token == pad and tokenizer.padding_side == "left"
    assert (f"has no pad token: {pad!r} pads" in capsys.readouterr().err) == ("pad_token" not in special)
    batch = tokenizer(["a", "abc"], padding=True)
    assert batch["attention_mask"] == [[0, 0, 1], [1, 1, 1]]


def test_a_tokenizer_without_any_special_token_is_refused(tmp_path):
    with pytest.raises(ValueError, match="no pad, unknown or end token"):
        models.load_tokenizer(str(byte_level(tmp_path)))


TEMPLATES = {  # chat template -> what is said of it; None where it serves
    "plain": (models.PLAIN_TEMPLATE, None),
    "refuses": ("{{ raise_exception('Only system turns here') }}", "refuses .*Only system turns here"),
    "does not parse": ("{% for m in messages %}", "refuses"),
    "drops users": (
        "{% for m in messages if m['role'] == 'system' %}{{ m['content'] }}{% endfor %}",
        "leaves out the user",
    ),
    "cuts": ("{{ messages[0]['content'][:40] }}", "leaves out the user"),
    "strips": ("{{ messages[0]['content'].strip() }}", None),
}


@pytest.mark.parametrize("kind", TEMPLATES)
def test_a_template_that_shows_no_question_is_refused_where_policies_are_asked(tmp_path, kind):
    template, said = TEMPLATES[kind]
    tokenizer = models.load_tokenizer(str(byte_level(tmp_path, eos_token="<end>")))
    tokenizer.chat_template = template
    roomy = types.SimpleNamespace(config=types.SimpleNamespace())
    tasks = [(question, {"sample": 0}) for question in load_set("clinic", "test", 2)]

    def prompts():
        return generate._prompts(
            replace(SMOKE, base_model="mine"), Transformers(roomy, tokenizer), tasks, "crpo", "clinic"
        )

    if said is None:
        assert all(question.stem in prompt for (question, _), prompt in zip(tasks, prompts(), strict=True))
        return
    with pytest.raises(ValueError, match=said):
        prompts()


def test_the_prompt_follows_the_model(tmp_path):
    for name in ("sha256.json", "config.json"):
        (tmp_path / name).write_text('{"files": {}}')  # another maker's list of hashes makes no clinic of it
    trained = tmp_path / "trained further"
    shutil.copytree(models.clinic_base_path(), trained)
    (trained / "sha256.json").unlink()
    general = byte_level(tmp_path / "general", eos_token="<end>")
    for base, layout in (
        (models.CLINIC_BASE, "clinic"),
        (str(models.clinic_base_path()), "clinic"),
        (str(trained), "clinic"),
        (str(tmp_path), "full"),
        (str(general), "full"),
        ("Qwen/Qwen2.5-0.5B-Instruct", "full"),
    ):
        assert replace(SMOKE, base_model=base).prompt_layout == layout, base
