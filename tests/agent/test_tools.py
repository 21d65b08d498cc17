"""The clinic's consultation behind tools: driven by hand as TRL drives it, then by TRL's own trainer and tool loop.

Run: pytest tests/agent/test_tools.py
"""

import inspect
import json
from functools import partial

import pytest
from tiny import QUIET

from clinical_r1.agent.consultation import PROBLEMS, Rules, draw_patients
from clinical_r1.agent.tools import HOW_TO, OVER, ClinicTools, menu_phrase, tool_rows
from clinical_r1.clinic.cases import phrase

RULES = Rules(horizon=5, menu=8, earliest=2, costs={"test": 0.125, "invalid": 0.25})


@pytest.fixture(scope="module")
def patients():
    return draw_patients("rl", 4, seed=5)


@pytest.fixture
def begun(patients):
    tools = ClinicTools(RULES)
    tools.reset(**tool_rows(patients)[0])
    return tools


def call(tools, words, patient):
    """The right tool for a phrase of the menu."""
    return getattr(tools, patient.menu[words][1])(words)


# --- what TRL asks of an environment


def test_the_public_methods_are_four_tools_reset_and_get_reward():
    found = {
        name for name, _ in inspect.getmembers(ClinicTools(), predicate=inspect.ismethod) if name[0] != "_"
    }
    assert found == {"ask", "examine", "test", "diagnose", "reset", "get_reward"}


@pytest.mark.parametrize(
    ("name", "argument"),
    [("ask", "finding"), ("examine", "finding"), ("test", "finding"), ("diagnose", "condition")],
)
def test_docstrings_become_the_schema_of_a_tool(name, argument):
    schema = pytest.importorskip("transformers.utils").get_json_schema(getattr(ClinicTools(), name))[
        "function"
    ]
    assert schema["name"] == name and schema["description"]
    assert schema["parameters"]["required"] == [argument]
    assert schema["parameters"]["properties"][argument]["type"] == "string"
    assert schema["parameters"]["properties"][argument]["description"]


def test_rows_keep_each_patients_own_findings_through_a_table(patients):
    datasets = pytest.importorskip("datasets")
    table = datasets.Dataset.from_list(tool_rows(patients))
    for row, patient in zip(table, patients, strict=True):
        tools = ClinicTools(RULES)
        tools.reset(**row)
        assert tools.consultation.patient == patient


def test_reset_returns_the_opening_and_forgets_the_patient_before(patients):
    tools, rows = ClinicTools(RULES), tool_rows(patients)
    tools.reset(**rows[0])
    tools.ask("nonsense")
    said = tools.reset(**rows[1], task="another column")
    assert all(option in said for option in patients[1].options) and "5 turns left" in said
    assert (tools.get_reward(), tools.problems, tools.consultation.known.keys()) == (
        0.0,
        [],
        set(patients[1].complaint),
    )


@pytest.mark.parametrize("row", [{}, {"prompt": "?"}, {"patient": {"id": "x"}}])
def test_a_row_without_a_patient_is_named(row):
    with pytest.raises(ValueError, match="make the rows with tool_rows"):
        ClinicTools(RULES).reset(**row)


@pytest.mark.parametrize("method", ["ask", "diagnose", "get_reward"])
def test_nothing_works_before_reset(method):
    with pytest.raises(ValueError, match="expected a call of reset"):
        getattr(ClinicTools(RULES), method)(*(["fever"] if method != "get_reward" else []))


# --- what the tools do


def test_a_tool_says_what_is_true_of_this_patient(begun, patients):
    patient = patients[0]
    words = next(iter(patient.menu))
    finding = patient.menu[words][0]
    assert call(begun, words, patient) == f"{phrase(finding, patient.findings[finding])}. 4 turns left"
    assert begun.consultation.known[finding] is patient.findings[finding]


def test_the_reward_is_the_return_a_right_diagnosis_less_the_costs(patients):
    patient = next(p for p in patients if any(verb == "test" for _, verb in p.menu.values()))
    tools = ClinicTools(RULES)
    tools.reset(**tool_rows([patient])[0])
    tools.test(next(words for words, (_, verb) in patient.menu.items() if verb == "test"))
    assert tools.get_reward() == -0.125
    assert tools.diagnose(patient.gold) == OVER
    assert tools.get_reward() == 1 - 0.125 and not tools.problems


@pytest.mark.parametrize("way", [str.upper, lambda name: f"{name}.", None])
def test_a_diagnosis_may_be_an_option_in_any_case_or_its_letter(begun, patients, way):
    patient = patients[0]
    begun.ask("nonsense")
    begun.diagnose(way(patient.gold) if way else patient.letter)
    assert begun.consultation.diagnosis == patient.gold and begun.get_reward() == 1 - 0.25


def test_a_wrong_diagnosis_pays_nothing(begun, patients):
    begun.examine("nonsense")
    begun.diagnose(next(option for option in patients[0].options if option != patients[0].gold))
    assert begun.get_reward() == -0.25 and begun.consultation.done


@pytest.mark.parametrize(
    ("tool", "said", "problem"),
    [
        ("ask", "unicorns", PROBLEMS[3]),
        ("ask", "two\nlines", PROBLEMS[0]),
        ("ask", "", PROBLEMS[0]),
        ("test", 7, PROBLEMS[3]),
        ("diagnose", "unicorns", PROBLEMS[1]),
    ],
)
def test_what_cannot_be_done_is_said_costs_the_turn_and_is_kept(begun, patients, tool, said, problem):
    call(begun, next(iter(patients[0].menu)), patients[0])  # a diagnosis is accepted from turn 2
    before = begun.get_reward()
    answer = getattr(begun, tool)(said)
    assert begun.problems == [problem] and answer == f"{problem}. 3 turns left"
    assert begun.get_reward() == before - 0.25


def test_a_diagnosis_too_early_is_not_accepted(begun, patients):
    assert begun.diagnose(patients[0].gold) == f"{PROBLEMS[2]}. 4 turns left"
    assert not begun.consultation.done


def test_calls_after_the_end_change_nothing(begun, patients):
    for _ in range(RULES.horizon):
        answer = begun.ask("nonsense")
    assert answer == OVER and begun.get_reward() == -0.25 * RULES.horizon and begun.late == 0
    assert begun.diagnose(patients[0].gold) == OVER
    assert begun.get_reward() == -0.25 * RULES.horizon and begun.late == 1


def test_other_words_for_one_finding_are_understood_and_for_several_not(patients):
    patient = patients[0]
    for words, (finding, verb) in patient.menu.items():
        assert menu_phrase(patient, verb, words.upper()) == words
        assert menu_phrase(patient, verb, phrase(finding, True, shift=True)) == words
        assert menu_phrase(patient, verb, f"Is there {words}?") == words
    both = {}
    for words, (_, verb) in patient.menu.items():
        both.setdefault(verb, []).append(words)
    verb, several = max(both.items(), key=lambda item: len(item[1]))
    assert menu_phrase(patient, verb, " ".join(several[:2])) is None


# --- TRL's own trainer


@pytest.fixture(scope="module")
def chat_tokenizer(patients):
    """A small tokenizer with the chat template of Qwen2.5, trained on the prompts so that they are short."""
    pytest.importorskip("trl")
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast
    from trl.chat_template_utils import qwen2_5_chat_template

    special = ["<pad>", "<|im_start|>", "<|im_end|>"]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.ByteLevel(False), decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    texts = [qwen2_5_chat_template, HOW_TO, *(row["patient"] for row in tool_rows(patients))]
    texts += [inspect.getsource(ClinicTools)]
    tokenizer.train_from_iterator(
        texts,
        trainers.BpeTrainer(
            vocab_size=900, special_tokens=special, initial_alphabet=alphabet, show_progress=False
        ),
    )
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", eos_token="<|im_end|>")
    fast.chat_template = qwen2_5_chat_template
    return fast


def trainer_of(folder, tokenizer, patients, monkeypatch, bases=(), **changes):
    import trl
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, Qwen2Config, set_seed

    monkeypatch.setenv("TRL_EXPERIMENTAL_SILENCE", "1")
    set_seed(3)
    size = dict(hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2)
    config = Qwen2Config(
        **size,
        num_key_value_heads=2,
        vocab_size=len(tokenizer),
        max_position_embeddings=8192,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        bos_token_id=None,
    )
    arguments = dict(
        output_dir=str(folder),
        max_steps=1,
        per_device_train_batch_size=2,
        num_generations=2,
        max_completion_length=8,
        max_tool_calling_iterations=RULES.horizon + 2,
        learning_rate=1e-3,
        seed=3,
    )
    return type("Trainer", (*bases, trl.GRPOTrainer), {})(
        model=AutoModelForCausalLM.from_config(config),
        args=trl.GRPOConfig(**(QUIET | arguments | changes)),
        train_dataset=Dataset.from_list(tool_rows(patients)),
        processing_class=tokenizer,
        environment_factory=partial(ClinicTools, RULES),
    )


def test_trl_trains_a_chat_model_on_the_environment(tmp_path, chat_tokenizer, patients, monkeypatch):
    """A random model calls no tool: nothing is diagnosed, which pays 0, and the step runs."""
    trainer = trainer_of(tmp_path, chat_tokenizer, patients, monkeypatch)
    assert [tool.__name__ for tool in trainer.tools] == ["ask", "diagnose", "examine", "test"]
    assert trainer.reward_func_names == ["ClinicTools"]
    trainer.train()
    assert trainer.state.global_step == 1
    log = next(row for row in trainer.state.log_history if "rewards/ClinicTools/mean" in row)
    assert log["rewards/ClinicTools/mean"] == 0.0
    assert len({env.consultation.patient.id for env in trainer.environments}) == 1  # a group has one patient


class Scripted:
    """Generation by script: the first row inquires and then names the right answer, the second diagnoses at once (too early)."""

    def _generate_single_turn(self, prompt_ids, images, multimodal_fields, num_generations, **options):
        self.prompts_seen.append([self.processing_class.decode(ids) for ids in prompt_ids])
        rows = [env for env in self.environments if not env.consultation.done][: len(prompt_ids)]
        texts = []
        for place, env in enumerate(rows):
            patient = env.consultation.patient
            words, (_, verb) = next(iter(patient.menu.items()))
            inquire = not place and env.consultation.turns_left == RULES.horizon
            name, arguments = (
                (verb, {"finding": words}) if inquire else ("diagnose", {"condition": patient.gold})
            )
            body = json.dumps({"name": name, "arguments": arguments})
            texts.append(f"<tool_call>\n{body}\n</tool_call><|im_end|>")
        texts += ["Done.<|im_end|>"] * (len(prompt_ids) - len(texts))
        return [self.processing_class(text)["input_ids"] for text in texts], None


def test_trls_tool_loop_plays_a_consultation_to_its_reward(tmp_path, chat_tokenizer, patients, monkeypatch):
    trainer = trainer_of(
        tmp_path, chat_tokenizer, patients[:1], monkeypatch, bases=(Scripted,), max_completion_length=600
    )
    trainer.prompts_seen = []
    trainer.train()
    patient = patients[0]
    words, (finding, verb) = next(iter(patient.menu.items()))
    first, second = trainer.environments
    cost = RULES.costs.get(verb, 0.0)
    assert [env.get_reward() for env in (first, second)] == [1 - cost, 1 - 0.25]
    assert (first.problems, second.problems) == ([], [PROBLEMS[2]])
    log = next(row for row in trainer.state.log_history if "rewards/ClinicTools/mean" in row)
    assert log["rewards/ClinicTools/mean"] == pytest.approx((2 - cost - 0.25) / 2)
    assert log["tools/call_frequency"] == 2.0 and log["tools/failure_frequency"] == 0.0
    # the opening stands in the prompt, what was found in the continuation
    assert all(option in trainer.prompts_seen[0][0] for option in patient.options)
    assert f"{phrase(finding, patient.findings[finding])}. 4 turns left" in trainer.prompts_seen[1][0]
    assert PROBLEMS[2] in trainer.prompts_seen[1][1]


def test_the_clinics_own_template_is_refused_by_trl(tmp_path, patients, monkeypatch):
    """It renders no tool calls: the reason why the clinic's base is trained by a rollout function instead."""
    pytest.importorskip("trl")
    from clinical_r1.agent.language import build_agent_tokenizer

    with pytest.raises(ValueError, match="does not support tool calling"):
        trainer_of(tmp_path, build_agent_tokenizer(), patients, monkeypatch)
