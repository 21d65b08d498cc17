"""Answers through Transformers: an answer is its prompt's and its seed's, adapters are merged where that changes nothing, and
memory that runs out halves the batch.   pytest tests/engines/test_local.py
"""

import random
from dataclasses import replace

import pytest

from clinical_r1.clinic.cases import load_set
from clinical_r1.engines import local
from clinical_r1.engines.protocol import decoding
from clinical_r1.labels import CLINIC_BENCHMARKS
from clinical_r1.models import CLINIC_BASE, load_policy, load_tokenizer, lora_config, save_policy
from clinical_r1.prompts import build_messages
from clinical_r1.settings import PROTOCOLS, SMOKE

torch = pytest.importorskip("torch")
SHORT = replace(SMOKE, max_completion_tokens=40)


@pytest.fixture(scope="module")
def adapter(tmp_path_factory):
    """A LoRA adapter that changes answers: both of its matrices are drawn."""
    from peft import get_peft_model

    torch.manual_seed(0)
    model = get_peft_model(load_policy(CLINIC_BASE, SMOKE), lora_config(SMOKE))
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.2)
    folder = tmp_path_factory.mktemp("arm") / "policy"
    save_policy(model, load_tokenizer(CLINIC_BASE), folder)
    return folder


@pytest.fixture(scope="module")
def beside(adapter):
    return local.Transformers(load_policy(CLINIC_BASE, SMOKE, adapter), load_tokenizer(CLINIC_BASE))


@pytest.fixture(scope="module")
def merged(adapter):
    return local.load(CLINIC_BASE, SMOKE, adapter)


@pytest.fixture(scope="module")
def prompts(merged):
    """Nine prompts of several lengths, one of them twice."""
    asked = [question for name in CLINIC_BENCHMARKS for question in load_set(name, "test", 3)]
    made = [merged.prompt(build_messages(question, "crpo", "clinic")) for question in asked[:8]]
    assert len({len(prompt.split()) for prompt in made}) > 1
    return [*made, made[0]]


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_an_answer_depends_on_its_prompt_and_its_seed_alone(merged, prompts, protocol):
    seeds = [11 * i for i in range(len(prompts))]
    whole = merged.answer(prompts, SHORT, protocol, seeds)
    for size in (1, 3):
        parts = [slice(i, i + size) for i in range(0, len(prompts), size)]
        assert [row for p in parts for row in merged.answer(prompts[p], SHORT, protocol, seeds[p])] == whole
    order = random.Random(1).sample(range(len(prompts)), len(prompts))
    mixed = merged.answer([prompts[i] for i in order], SHORT, protocol, [seeds[i] for i in order])
    assert mixed == [whole[i] for i in order]
    assert (whole[0] == whole[-1]) == (protocol == "greedy"), "one prompt, two seeds"
    other = merged.answer(prompts, SHORT, protocol, [seed + 1 for seed in seeds])
    assert (other == whole) == (protocol == "greedy")


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_merged_adapter_answers_as_it_does_beside_its_base(merged, beside, prompts, protocol):
    seeds = list(range(len(prompts)))
    answers = merged.answer(prompts, SHORT, protocol, seeds)
    assert answers == beside.answer(prompts, SHORT, protocol, seeds)
    plain = local.load(CLINIC_BASE, SMOKE)
    assert answers != plain.answer(prompts, SHORT, protocol, seeds), "the adapter changes something"
    assert merged.identity == {"answered_in": "float32", "adapter": "merged"}
    assert plain.identity == {"answered_in": "float32"}
    assert not [name for name, _ in merged.model.named_modules() if "lora" in name]


def test_in_half_precision_the_adapter_stays_beside_its_base_and_the_record_says_so(adapter):
    engine = local.load(CLINIC_BASE, replace(SMOKE, device_dtype="bfloat16"), adapter)
    assert engine.identity["answered_in"] == "bfloat16"
    assert engine.identity["adapter"].startswith("beside its base: its weights are bfloat16")
    assert [name for name, _ in engine.model.named_modules() if "lora" in name]


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_stock_draws_are_those_of_generate(beside, prompts, protocol):
    tokenizer = beside.tokenizer
    encoded = tokenizer(prompts, return_tensors="pt", padding=True, add_special_tokens=False)
    temperature = 0.8 if protocol == "sampled" else 0.0
    options = decoding(beside.model, tokenizer, SHORT.max_completion_tokens, temperature, 0.95)
    with torch.random.fork_rng([]):
        torch.manual_seed(7)
        output = beside.model.generate(
            input_ids=encoded["input_ids"], attention_mask=encoded["attention_mask"], **options
        )
    texts = tokenizer.batch_decode(output[:, encoded["input_ids"].shape[1] :], skip_special_tokens=True)
    stock = replace(SHORT, draws="stock")
    answers = beside.answer(prompts, stock, protocol, [7, *range(8)])
    assert [row["text"] for row in answers] == texts


# --- memory


@pytest.fixture
def small(merged, monkeypatch):
    """An engine whose memory holds three rows, and the sizes that were tried."""
    engine, tried = local.Transformers(merged.model, merged.tokenizer), []
    whole = engine._answered

    def answered(prompts, *rest):
        tried.append(len(prompts))
        if len(prompts) > 3:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return whole(prompts, *rest)

    monkeypatch.setattr(engine, "_answered", answered)
    return engine, tried


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_memory_that_runs_out_halves_the_batch_and_says_so(small, merged, prompts, protocol, capsys):
    (engine, tried), seeds = small, list(range(len(prompts)))
    assert engine.answer(prompts, SHORT, protocol, seeds) == merged.answer(prompts, SHORT, protocol, seeds)
    assert tried == [9, 4, 2, 2, 2, 2, 1]
    said = capsys.readouterr().err
    assert "memory ran out on 9 answers at once: 4 at a time" in said and "lower eval_batch" in said
    tried.clear()
    engine.answer(prompts[:4], SHORT, protocol, seeds[:4])
    assert tried == [2, 2] and not capsys.readouterr().err, "what was found out is remembered"


def test_memory_that_cannot_hold_one_row_is_an_error(small, prompts, monkeypatch):
    engine, tried = small

    def never(part, *_):
        tried.append(len(part))
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(engine, "_answered", never)
    with pytest.raises(torch.OutOfMemoryError):
        engine.answer(prompts, SHORT, "greedy", [0] * 9)
    assert tried == [9, 4, 2, 1]


def test_stock_draws_are_never_split(small, prompts):
    """Their numbers depend on the whole batch: halves would be other answers, without a word."""
    engine, tried = small
    with pytest.raises(torch.OutOfMemoryError):
        engine.answer(prompts, replace(SHORT, draws="stock"), "sampled", [0] * 9)
    assert tried == [9]
