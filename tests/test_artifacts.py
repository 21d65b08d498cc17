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
    artifacts._code_of.cache_clear()

    def edit(file, before, after):
        path = copy / file
        text = path.read_text(encoding="utf-8")
        assert before in text
        path.write_text(text.replace(before, after), encoding="utf-8")
        artifacts._code_of.cache_clear()

    yield edit
    artifacts._code_of.cache_clear()


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
        artifacts._code_of.cache_clear()
        return code_hash("mine:short")

    first = after("", "")
    assert after("return 1", "return 2") == first
    assert after("LIMIT = 20", "LIMIT = 30") != first
    artifacts._code_of.cache_clear()


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


@pytest.fixture
def laid(tmp_path):
    """Settings whose base is a folder, and an arm's policy beside it: files with the names of real ones."""
    settings = replace(SMOKE, out=str(tmp_path), base_model=str(tmp_path / "base"))
    policy = settings.model_dir("crpo", 0) / "policy"
    for folder, names in (
        (tmp_path / "base", ("model.safetensors", "config.json", "generation_config.json", "tokenizer.json")),
        (policy, ("adapter_model.safetensors", "adapter_config.json", "chat_template.jinja", "README.md")),
    ):
        folder.mkdir(parents=True)
        for name in names:
            (folder / name).write_text(f"what {name} says")
    return settings, tmp_path / "base", policy


@pytest.mark.parametrize(
    ("where", "name"),
    [
        (0, "model.safetensors"),
        (0, "config.json"),
        (0, "generation_config.json"),
        (0, "tokenizer.json"),
        (0, "added_tokens.json"),
        (0, "additional_chat_templates/other.jinja"),
        (1, "adapter_model.safetensors"),
        (1, "adapter_config.json"),
        (1, "chat_template.jinja"),
        (1, "generation_config.json"),
    ],
)
def test_the_hash_of_a_policy_covers_everything_that_speaks(laid, where, name):
    settings, *folders = laid
    before, base = (artifacts.policy_hash(settings, method, 0) for method in ("crpo", "baseline"))
    path = folders[where] / name
    path.parent.mkdir(exist_ok=True)
    path.write_text("other")
    assert artifacts.policy_hash(settings, "crpo", 0) != before
    assert (artifacts.policy_hash(settings, "baseline", 0) == base) == (where == 1)


def test_the_hash_of_a_policy_is_not_about_what_is_silent_nor_where_it_lies(laid, tmp_path):
    settings, base, policy = laid
    before = artifacts.policy_hash(settings, "crpo", 0)
    for folder in (base, policy):
        for name in ("README.md", ".DS_Store", "LICENSE"):
            (folder / name).write_text("no word of the model's")
    assert artifacts.policy_hash(settings, "crpo", 0) == before
    shutil.copytree(tmp_path, tmp_path.with_name("moved"))
    moved = replace(settings, out=str(tmp_path.with_name("moved")))
    assert artifacts.policy_hash(moved, "crpo", 0) == before
    hub = replace(settings, base_model="org/model")
    assert artifacts.policy_hash(hub, "baseline", 0) != artifacts.policy_hash(settings, "baseline", 0)
