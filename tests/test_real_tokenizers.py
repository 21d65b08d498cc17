"""What real tokenizers, templates and configurations do differently, on a tiny model of SmolLM2's make.

A byte-level BPE, a chat template that writes a system turn of its own, one token that ends turn and text and may pad, grouped
queries. python -m pytest tests/test_real_tokenizers.py
"""

import json
from dataclasses import replace

import pytest

from clinical_r1 import models, train
from clinical_r1.artifacts import is_trained
from clinical_r1.curation.splits import ensure_splits
from clinical_r1.engines.local import Transformers
from clinical_r1.engines.protocol import end_tokens
from clinical_r1.files import read_json, write_json
from clinical_r1.judges.models import LocalModel
from clinical_r1.prompts import build_messages, render_chat
from clinical_r1.questions import read_questions
from clinical_r1.settings import SMOKE

TEMPLATE = (
    "{% for message in messages %}{% if loop.first and message['role'] != 'system' %}<|im_start|>system\nYou help.<|im_end|>\n"
    "{% endif %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]


@pytest.fixture(scope="module")
def question(tmp_path_factory):
    settings = replace(SMOKE, out=str(tmp_path_factory.mktemp("questions")))
    ensure_splits(settings)
    return read_questions(settings.questions_path("clinic", "test"))[0]


@pytest.fixture
def folder(tmp_path, question):
    """A whole model folder; tests change one thing in it."""
    import torch
    from tokenizers import Tokenizer, decoders, pre_tokenizers, trainers
    from tokenizers import models as kinds
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    tokenizer = Tokenizer(kinds.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=700, special_tokens=SPECIAL, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator([build_messages(question, "crpo")[0]["content"]], trainer)
    names = {"bos_token": SPECIAL[1], "eos_token": SPECIAL[2], "unk_token": SPECIAL[0]}
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names)
    fast.chat_template = TEMPLATE
    fast.save_pretrained(tmp_path)
    torch.manual_seed(0)
    shape = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "head_dim": 16}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 1, "tie_word_embeddings": True}
    config = LlamaConfig(
        vocab_size=len(fast), max_position_embeddings=4096, bos_token_id=1, eos_token_id=2, **shape, **heads
    )
    LlamaForCausalLM(config).save_pretrained(tmp_path)
    return tmp_path


def engine_of(folder, settings=SMOKE):
    return Transformers(models.load_policy(str(folder), settings), models.load_tokenizer(str(folder)))


def changed(path, **values):
    write_json(path, read_json(path) | values)


def test_texts_come_back_as_they_went_in(folder, question):
    tokenizer = models.load_tokenizer(str(folder))
    for style in ("crpo", "grpo"):
        text = render_chat(tokenizer, build_messages(question, style)) + "<dx> 38.5 °C, 嗯 \\boxed{A}"
        assert tokenizer.decode(tokenizer(text, add_special_tokens=False)["input_ids"]) == text


def test_without_a_pad_token_one_is_taken_and_named_and_uneven_prompts_are_answered(folder, capsys):
    engine = engine_of(folder)
    assert "has no pad token: '<|endoftext|>' pads." in capsys.readouterr().err
    prompts = [engine.prompt([{"role": "user", "content": text}]) for text in ("a", "a longer question")]
    few = replace(SMOKE, max_completion_tokens=4)
    together = engine.answer(prompts, few, "greedy", [0, 1])
    alone = [engine.answer([prompt], few, "greedy", [seed])[0] for seed, prompt in enumerate(prompts)]
    assert together == alone and all(answer["tokens"] <= 4 for answer in together)


def test_each_of_several_end_tokens_ends_an_answer(folder):
    changed(folder / "generation_config.json", eos_token_id=[0, 2])
    engine = engine_of(folder)
    assert end_tokens(engine.model, engine.tokenizer) == [0, 2]
    changed(
        folder / "tokenizer_config.json", eos_token="<|im_start|>"
    )  # what a GGUF file of SmolLM2 is read as
    engine = engine_of(folder)
    assert end_tokens(engine.model, engine.tokenizer) == [0, 1, 2]


def test_a_template_without_a_system_turn_serves_policies_and_judges(folder, question, capsys):
    refuses = (
        "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system turn') }}{% endif %}"
        + TEMPLATE
    )
    (folder / "chat_template.jinja").write_text(refuses)
    tokenizer = models.load_tokenizer(str(folder))
    assert question.stem in render_chat(tokenizer, build_messages(question, "crpo"))
    with pytest.raises(ValueError, match="refuses these messages .no system turn."):
        render_chat(tokenizer, [{"role": "system", "content": "s"}, {"role": "user", "content": "u"}])
    asked = [{"role": "system", "content": "Count."}, {"role": "user", "content": "What?"}]
    reply = LocalModel(str(folder), max_tokens=2)(asked)
    assert reply.folded and reply.prompt_tokens > 0 and "takes no system turn" in capsys.readouterr().err


def test_a_template_that_drops_the_question_is_refused_in_one_sentence(folder, question):
    (folder / "chat_template.jinja").write_text(
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    with pytest.raises(ValueError, match="leaves out the user turn; the model would never see it"):
        engine_of(folder).prompt(build_messages(question, "crpo"))


def test_a_context_too_short_for_the_prompts_is_refused_with_both_lengths(folder, question):
    changed(folder / "config.json", max_position_embeddings=64)
    engine = engine_of(folder)
    settings = replace(SMOKE, base_model=str(folder))
    with pytest.raises(ValueError, match=r"longest prompt of x has \d+ tokens, .* exceeds the 64"):
        engine.check([engine.prompt(build_messages(question, "crpo"))], settings, "x")


def test_a_byte_level_tokenizer_knows_every_word(folder):
    engine = engine_of(folder)
    engine.check(["발열 и кашель 嗯"], replace(SMOKE, base_model=str(folder)), "x")


@pytest.mark.slow
def test_it_goes_from_the_cold_start_to_an_answer(folder, tmp_path_factory):
    """Full prompts by the model, not by the benchmark; pad and end are one token; the start is counted before RL."""
    changed(folder / "tokenizer_config.json", pad_token="<|im_end|>")
    settings = replace(
        SMOKE, base_model=str(folder), out=str(tmp_path_factory.mktemp("out")), methods=("baseline", "cold_start_crpo"), n_sft=8,
        sft_batch=4, sft_micro_batch=2, rl_steps=1, rl_prompts=1, num_generations=2, micro_batch=2, n_rl=4, sft_epochs=1.0,
        max_prompt_tokens=1024, max_completion_tokens=512, gradient_checkpointing=True,
    )  # fmt: skip
    assert settings.prompt_layout == "full"
    ensure_splits(settings)
    train.train_arm(settings, "cold_start", 0)
    done = json.loads((settings.model_dir("cold_start", 0) / "done.json").read_text())
    assert done["checked"]["start"]["crpo"]["answers"] == 4 and is_trained(settings, "cold_start", 0)
    train.train_arm(replace(settings, max_completion_tokens=16), "cold_start_crpo", 0)
    log = (settings.model_dir("cold_start_crpo", 0) / "log_history.jsonl").read_text().splitlines()
    assert len(log) == 1 and json.loads(log[0])["completions/mean_length"] <= 16
