"""What an arm is stamped with: all that its result depends on, and nothing else."""

import shutil
import sys
import types
from dataclasses import replace

import pytest

from clinical_r1 import artifacts
from clinical_r1.arms import ARMS, LABORATORY, Arm, in_order, starts_of
from clinical_r1.artifacts import arm_stamp, code_hash
from clinical_r1.files import PACKAGE
from clinical_r1.settings import SMOKE


@pytest.fixture
def edited(tmp_path, monkeypatch):
    """A copy of the package whose files a test edits; `hashes()` forgets what was read before."""
    copy = tmp_path / PACKAGE.name
    shutil.copytree(PACKAGE, copy, ignore=shutil.ignore_patterns("__pycache__", "data"))
    monkeypatch.setattr(artifacts, "PACKAGE", copy)
    artifacts.forget_code()

    def edit(file, before, after):
        path = copy / file
        text = path.read_text(encoding="utf-8")
        assert before in text
        path.write_text(text.replace(before, after), encoding="utf-8")
        artifacts.forget_code()

    yield edit
    artifacts.forget_code()


def stale(before: dict) -> set[str]:
    return {name for name, stamp in before.items() if arm_stamp(name) != stamp}


def stamps() -> dict:
    return {name: arm_stamp(name) for name in LABORATORY}


CITING = {"crpo", "cold_start_crpo", "k0", "gated", "grounded", "crpo_in_grpo"}


@pytest.mark.parametrize(
    ("file", "before", "after", "expected", "untouched"),
    [
        # a constant in a module that the reward imports from
        (
            "citation.py",
            "MIN_CITED_WORDS = 2",
            "MIN_CITED_WORDS = 3",
            CITING,
            {"grpo", "no_citation", "no_format"},
        ),
        # an option's default: of one aggregation only
        ("advantages.py", "floor=0.1", "floor=0.5", {"std_floor"}, set(LABORATORY) - {"std_floor"}),
        # the frame around the aggregations that are ours
        (
            "advantages.py",
            "1e-12 * weights.sum()",
            "1e-9 * weights.sum()",
            {"gated", "lexicographic"},
            {"crpo", "gdpo"},
        ),
        (
            "prompts.py",
            "You are an experienced physician",
            "You are a nurse",
            set(LABORATORY) - {"baseline"},
            {"baseline"},
        ),
        (
            "laboratory/grounded.py",
            "MIN_LINKS = ",
            "MIN_LINKS = 1 + ",
            {"grounded"},
            set(LABORATORY) - {"grounded"},
        ),
        (
            "laboratory/variants.py",
            "CONSISTENT = 0.95",
            "CONSISTENT = 0.9",
            {"quantised"},
            set(LABORATORY) - {"quantised"},
        ),
        # a neighbour: another set, a comment, a docstring
        (
            "rewards.py",
            "REWARD_SETS = {",
            'REWARD_SETS = {\n    "more": RewardSet((len,), (1.0,)),',
            set(),
            set(LABORATORY),
        ),
        ("citation.py", "MIN_CITED_WORDS = 2", "# two\nMIN_CITED_WORDS = 2", set(), set(LABORATORY)),
    ],
)
def test_a_change_makes_stale_what_depends_on_it_and_nothing_else(
    edited, file, before, after, expected, untouched
):
    old = stamps()
    edited(file, before, after)
    changed = stale(old)
    assert expected <= changed and not changed & untouched


def test_code_that_moves_keeps_its_hash(edited):
    """The rule is the same wherever it stands: the citation rule back in `rewards`, as it once was."""
    before = code_hash("clinical_r1.rewards:clinical_reasoning_reward")
    moved = (PACKAGE / "citation.py").read_text(encoding="utf-8").split('"""', 2)[2]
    edited("rewards.py", "from clinical_r1.citation import (", "from clinical_r1.elsewhere import (")
    (artifacts.PACKAGE / "elsewhere.py").write_text(moved, encoding="utf-8")
    assert code_hash("clinical_r1.rewards:clinical_reasoning_reward") == before


def test_an_unknown_root_is_named():
    with pytest.raises(ValueError, match="clinical_r1.rewards defines no accuracy"):
        code_hash("clinical_r1.rewards:accuracy")


def test_a_users_own_file_is_followed_into_the_package(tmp_path, monkeypatch):
    path = tmp_path / "mine.py"
    path.write_text(
        "from clinical_r1.rewards import accuracy_reward\nLIMIT = 20\n"
        "def short(completions, **columns):\n    return [LIMIT * r for r in accuracy_reward(completions, **columns)]\n"
        "def other():\n    return 1\n"
    )
    module = types.ModuleType("mine")
    module.__file__, module.CLINICAL_R1_OWN_FILE = str(path), True
    monkeypatch.setitem(sys.modules, "mine", module)

    def after(before, now):
        path.write_text(path.read_text().replace(before, now))
        artifacts.forget_code()
        return code_hash("mine:short")

    first = after("", "")
    assert after("return 1", "return 2") == first
    assert after("LIMIT = 20", "LIMIT = 30") != first
    artifacts.forget_code()


def test_what_is_bound_to_a_reward_is_part_of_its_stamp():
    from functools import partial

    def made(limit):
        def reward(completions, **columns):
            return [limit] * len(completions)

        return reward

    assert (
        artifacts.callable_hash(made(1))
        == artifacts.callable_hash(made(1))
        != artifacts.callable_hash(made(2))
    )
    bound = [artifacts.callable_hash(partial(made(1), limit=value)) for value in (1, [1], {"a": 1}, made(2))]
    assert len(set(bound)) == 4
    with pytest.raises(ValueError, match="a object is bound to a reward function"):
        artifacts.callable_hash(made(object()))


def test_a_librarys_function_is_named_with_its_version():
    from importlib import metadata

    assert artifacts.callable_hash(shutil.copy).startswith("python shutil:copy")
    assert artifacts.callable_hash(pytest.approx).startswith(f"pytest {metadata.version('pytest')} _pytest.")


# ---- what starts from what


@pytest.fixture
def chain(monkeypatch):
    for arm in (
        Arm("first", "own", "First"),
        Arm("second", "own", "Second", start="first"),
        Arm("third", "own", "Third", start="second"),
    ):
        monkeypatch.setitem(ARMS, arm.name, arm)


def test_arms_are_trained_after_what_they_start_from(chain):
    assert starts_of("third") == ["second", "first", "baseline"]
    assert in_order(["third", "crpo"]) == ["first", "second", "third", "crpo"]
    assert in_order(["cold_start_crpo", "baseline"]) == ["cold_start", "cold_start_crpo"]


def test_a_start_that_is_no_arm_and_a_circle_are_named(chain, monkeypatch):
    monkeypatch.setitem(ARMS, "first", replace(ARMS["first"], start="third"))
    with pytest.raises(ValueError, match="third -> second -> first -> third"):
        starts_of("third")
    monkeypatch.setitem(ARMS, "first", replace(ARMS["first"], start="fourth"))
    with pytest.raises(ValueError, match="arm first starts from 'fourth', which is no arm"):
        in_order(["third"])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": "a/b"}, "arm 'a/b' has the label"),
        ({"stage": "dpo"}, "the stage 'dpo'; expected one of sft, rl"),
        ({"style": "x"}, "the style 'x'"),
    ],
)
def test_an_arm_that_cannot_be_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        replace(ARMS["crpo"], **changes)


def test_what_is_loaded_follows_the_start(chain):
    base, adapter = artifacts.policy_of(SMOKE, "second", 0)
    folder = SMOKE.model_dir("second", 0)
    assert (base, adapter) == (
        str(folder / "start"),
        folder / "policy",
    )  # a merged copy of the adapter it starts from
    assert artifacts.policy_of(replace(SMOKE, lora_rank=0), "second", 0) == (str(folder / "policy"), None)
    assert artifacts.start_of(SMOKE, "cold_start_crpo", 0) == str(SMOKE.model_dir("cold_start", 0) / "policy")
    assert arm_stamp("second")["start"] == {"first": arm_stamp("first")}


# ---- what speaks


SPEAKS = ("adapter_model.safetensors", "adapter_config.json", "tokenizer.json", "chat_template.jinja")


def laid_arm(settings, arm="crpo", **checked):
    """An arm as training leaves it, of files that hold any text."""
    folder = settings.model_dir(arm, 0)
    for name in SPEAKS:
        (folder / "policy").mkdir(parents=True, exist_ok=True)
        (folder / "policy" / name).write_text(f"what {name} of {arm} says")
    artifacts.begin(settings, arm, 0)
    artifacts.end(settings, arm, 0, checked)
    return folder


@pytest.fixture
def laid(tmp_path):
    """Settings whose base is a folder, and a finished arm on it."""
    base = tmp_path / "base"
    base.mkdir()
    for name in ("model.safetensors", "config.json", "generation_config.json", "tokenizer.json"):
        (base / name).write_text(f"what {name} says")
    settings = replace(SMOKE, out=str(tmp_path / "out"), base_model=str(base))
    return settings, base, laid_arm(settings)


def changed(path):
    """A file with one bit turned."""
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("name", SPEAKS)
def test_a_policy_that_changed_after_training_is_refused_by_the_name_of_its_file(laid, name):
    settings, _, folder = laid
    assert artifacts.is_trained(settings, "crpo", 0)
    changed(folder / "policy" / name)
    for ask in (artifacts.is_trained, artifacts.policy_hash):
        with pytest.raises(ValueError, match=f"policy/{name} was changed since done.json was written"):
            ask(settings, "crpo", 0)
    (folder / "policy" / name).unlink()
    with pytest.raises(ValueError, match=f"policy/{name} is missing since"):
        artifacts.is_trained(settings, "crpo", 0)


@pytest.mark.parametrize("name", ["generation_config.json", "model.safetensors", "templates/other.jinja"])
def test_a_file_that_was_added_to_a_policy_is_refused(laid, name):
    settings, _, folder = laid
    path = folder / "policy" / name
    path.parent.mkdir(exist_ok=True)
    path.write_text("{}")
    with pytest.raises(ValueError, match=f"policy/{name} was added"):
        artifacts.policy_hash(settings, "crpo", 0)


@pytest.mark.parametrize(
    "name", ["model.safetensors", "config.json", "generation_config.json", "tokenizer.json", "new.jinja"]
)
def test_another_base_is_another_policy_and_makes_what_was_trained_on_it_stale(laid, name):
    settings, base, _ = laid
    before = artifacts.policy_hash(settings, "baseline", 0)
    (base / name).write_text("other")
    assert artifacts.policy_hash(settings, "baseline", 0) != before
    with pytest.raises(artifacts.StaleError, match=f"start_policy was '{before}', now"):
        artifacts.is_trained(settings, "crpo", 0)


def test_the_hash_of_a_policy_is_of_what_speaks_wherever_it_lies(laid, tmp_path):
    settings, base, folder = laid
    before = artifacts.policy_hash(settings, "crpo", 0)
    for silent in ("README.md", ".DS_Store", "LICENSE"):
        (base / silent).write_text("no word of the model's")
        (folder / "policy" / silent).write_text("nor this")
    assert artifacts.policy_hash(settings, "crpo", 0) == before
    shutil.copytree(tmp_path / "out", tmp_path / "moved")
    assert artifacts.policy_hash(replace(settings, out=str(tmp_path / "moved")), "crpo", 0) == before
    changed(folder / "policy" / "tokenizer.json")
    artifacts.end(settings, "crpo", 0, {})
    assert artifacts.policy_hash(settings, "crpo", 0) != before
    hubs = {
        artifacts.policy_hash(replace(settings, base_model=f"org/{name}"), "baseline", 0) for name in "ab"
    }
    assert len(hubs) == 2


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is not JSON"),
        ("[1]", "holds a list; expected one JSON object"),
        ("[" * 3000 + "]" * 3000, "nested more than"),
        ("\xff", "is not JSON"),
        ("", "is empty"),
        ("files", "lists no files"),
        ("arm", "arm was 'grpo', now 'crpo'"),
        ("seed", "seed was 1, now 0"),
        ("device_dtype", "device_dtype was 'bfloat16', now 'float32'"),
    ],
)
def test_a_record_that_is_damaged_or_of_another_arm_is_named(laid, text, message):
    settings, _, folder = laid
    record = folder / "done.json"
    values = {"files": 3, "arm": "grpo", "seed": 1, "device_dtype": "bfloat16"}
    if text in values:
        artifacts.write_json(record, artifacts.read_json(record) | {text: values[text]})
    else:
        record.write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=message) as caught:
        artifacts.is_trained(settings, "crpo", 0)
    assert str(folder) in str(caught.value)


# ---- what an arm is made from


def test_training_data_belongs_to_what_an_arm_is_made_from(tmp_path):
    traces = tmp_path / "traces.jsonl"
    traces.write_text("{}\n")
    settings = replace(SMOKE, out=str(tmp_path), teacher_traces=str(traces))
    questions = {split: settings.questions_path("clinic", split) for split in ("sft", "rl", "test")}
    for path in questions.values():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("{}\n")
    laid_arm(settings, "cold_start"), laid_arm(settings, "crpo")

    def stale(path):
        """The arms that are stale with one more line in a file, and their reasons."""
        path.write_text("{}\n{}\n")
        found = {}
        for arm in ("cold_start", "crpo"):
            try:
                assert artifacts.is_trained(settings, arm, 0)
            except artifacts.StaleError as error:
                found[arm] = error.changed
        path.write_text("{}\n")
        return found

    assert stale(questions["rl"]) == {"crpo": ("questions",)}
    assert stale(questions["sft"]) == {"cold_start": ("questions",)}
    assert stale(traces) == {"cold_start": ("teacher",)}
    assert stale(questions["test"]) == {}


def test_an_arm_is_stale_when_the_weights_it_started_from_are_others(tmp_path):
    settings = replace(SMOKE, out=str(tmp_path))
    for arm in ("cold_start", "cold_start_crpo", "crpo"):
        laid_arm(settings, arm)
    start = settings.model_dir("cold_start", 0)
    changed(start / "policy" / "adapter_model.safetensors")
    with pytest.raises(ValueError, match="cold_start/seed0, policy/adapter_model.safetensors was changed"):
        artifacts.is_trained(settings, "cold_start_crpo", 0)
    artifacts.end(settings, "cold_start", 0, {})  # trained again, to other weights
    with pytest.raises(artifacts.StaleError, match="start_policy was"):
        artifacts.is_trained(settings, "cold_start_crpo", 0)
    assert artifacts.is_trained(settings, "crpo", 0)
    start.rename(start.with_name("elsewhere"))
    assert not artifacts.is_trained(settings, "cold_start_crpo", 0)


def test_what_was_begun_with_something_else_is_not_gone_on_with(tmp_path):
    settings = replace(SMOKE, out=str(tmp_path))
    folder = laid_arm(settings)
    (folder / "done.json").unlink()
    assert not artifacts.is_trained(settings, "crpo", 0)
    artifacts.begin(settings, "crpo", 0)  # from the same: it may go on
    for change in ({"rl_learning_rate": 1e-5}, {"rl_steps": 3}, {"load_in_4bit": True}):
        for ask in (artifacts.begin, artifacts.is_trained):
            with pytest.raises(artifacts.StaleError, match=f"{next(iter(change))} was"):
                ask(replace(settings, **change), "crpo", 0)
    with pytest.raises(artifacts.StaleError, match="processes was 1, now 2"):
        artifacts.begin(settings, "crpo", 0, processes=2)
    (folder / "checkpoints" / "checkpoint-1").mkdir(parents=True)
    (folder / "begun.json").unlink()
    with pytest.raises(artifacts.StaleError, match="checkpoint-1 lies in a folder without begun.json"):
        artifacts.begin(settings, "crpo", 0)
