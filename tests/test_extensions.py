"""A user's own file: what it brings is used, what does not fit is named, and nothing is left behind."""

import json
import os
import re
import textwrap
from dataclasses import replace

import pytest

from clinical_r1 import artifacts, extension_checks, extensions, score
from clinical_r1.arms import ARMS
from clinical_r1.curation.splits import write_splits
from clinical_r1.extensions import OwnFileError
from clinical_r1.labels import BENCHMARK_LABELS, METHOD_LABELS
from clinical_r1.questions import read_questions
from clinical_r1.rewards import REWARD_SETS
from clinical_r1.settings import SMOKE, settings_from_json
from clinical_r1.tables import build_table1, table1_markdown

OWN = """
from clinical_r1.arms import Arm
from clinical_r1.questions import Question
from clinical_r1.rewards import RewardSet, accuracy_reward, completion_text

LIMIT = 40

def short_reward(completions, answer, style, **columns):
    right = accuracy_reward(completions, answer=answer, style=style)
    return [r if len(completion_text(c).split()) <= LIMIT else 0.0 for r, c in zip(right, completions)]

def questions():
    for i in range(20):
        yield Question(f"q{i}", "any", "any", f"Number {i}?", {"A": "one", "B": "two"}, "AB"[i % 2], {})

REWARD_SETS = {"short": RewardSet((short_reward,), (1.0,), {"short_reward": (0, 1)})}
ARMS = [Arm("short", "own", "Short answers", rewards="short"), Arm("after", "own", "After", rewards="short", start="short")]
QUESTIONS = {"ward": questions}
"""


@pytest.fixture(autouse=True)
def nothing_stays():
    before = dict(ARMS), dict(REWARD_SETS), dict(METHOD_LABELS), dict(BENCHMARK_LABELS)
    yield
    extensions.unload()
    assert (dict(ARMS), dict(REWARD_SETS), dict(METHOD_LABELS), dict(BENCHMARK_LABELS)) == before
    assert extensions.VARIABLE not in os.environ


@pytest.fixture
def write(tmp_path):
    def written(text, name="mine.py"):
        path = tmp_path / name
        path.write_text(textwrap.dedent(text), encoding="utf-8")
        return path

    return written


def test_arms_benchmarks_and_rewards_join_the_run(write, tmp_path):
    settings = extensions.settings_for("smoke", tmp_path, own=write(OWN))
    assert settings.methods == (*SMOKE.methods, "short", "after")
    assert settings.benchmarks == (*SMOKE.benchmarks, "ward")
    assert (settings.profile, settings.base_profile, settings.own_file) == ("smoke-mine", "smoke", "mine.py")
    assert settings.command == "./reproduce.sh smoke --with mine.py"
    assert settings_from_json(json.loads(json.dumps(settings.to_json())), settings.out) == settings
    assert METHOD_LABELS["short"] == "Short answers"
    assert [f.__name__ for f in score.with_own_rewards(score.Rules()).rewards][-1] == "short_reward"
    assert artifacts.arm_stamp("after")["start"] == {"short": artifacts.arm_stamp("short")}
    assert (
        extensions.settings_for("smoke", tmp_path) == settings
    )  # children and kernels find it in the environment


def test_a_run_can_ask_benchmarks_of_this_package_besides(write, tmp_path):
    text = 'BENCHMARKS = ["medqa", "clinic"]'
    settings = extensions.settings_for("smoke", tmp_path, own=write(text))
    assert settings.benchmarks == (*SMOKE.benchmarks, "medqa"), "clinic is asked anyway"
    for names, said in (('["mmlu"]', "mmlu"), ('["medqa", "medqa"]', "each once"), ('"medqa"', "a list")):
        with pytest.raises(OwnFileError, match=f"mine.py, BENCHMARKS: .*{said}"):
            extensions.load(write(f"BENCHMARKS = {names}"))


def test_own_questions_are_written_whole_under_their_benchmark(write, tmp_path):
    settings = extensions.settings_for("smoke", tmp_path, own=write(OWN))
    write_splits(settings)
    found = read_questions(settings.questions_path("ward", "test"))
    assert len(found) == 20 > settings.n_test and {(q.benchmark, q.split) for q in found} == {
        ("ward", "test")
    }


def test_a_changed_reward_makes_its_arms_stale_and_no_other(write, tmp_path):
    path = write(OWN)
    extensions.load(path)
    before = {name: artifacts.arm_stamp(name) for name in ARMS}
    path.write_text(path.read_text() + "\n# a remark\n")
    extensions.load(path)
    assert {name: artifacts.arm_stamp(name) for name in ARMS} == before
    path.write_text(path.read_text().replace("LIMIT = 40", "LIMIT = 50"))
    extensions.load(path)
    assert {name for name in ARMS if artifacts.arm_stamp(name) != before[name]} == {"short", "after"}


def test_answers_of_another_model_stand_in_table_1_under_its_own_name(write, tmp_path):
    from clinical_r1.generate import complete_all

    rows = [{"id": f"q{i}", "text": rf"so \boxed{{{'AB'[i % 2]}}}"} for i in range(20)]
    (tmp_path / "answers.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    own = write(OWN.replace("ARMS = [", "_ = [") + 'ANSWERS = {"gpt-4": {"ward": "answers.jsonl"}}\n')
    settings = extensions.settings_for("smoke", tmp_path, own=own)
    settings = replace(settings, methods=(), benchmarks=("ward",), eval_greedy=False)
    write_splits(settings)
    complete_all(settings)
    records = score.score_all(settings)
    table = build_table1(settings, records)
    row = table[(table["method"] == "gpt-4") & (table["metric"] == "accuracy")].iloc[0]
    assert (row["value"], row["n"], row["benchmark"]) == (100.0, 20, "ward")
    assert "gpt-4" not in ARMS


def test_a_server_answers_every_benchmark_of_the_run_under_its_own_name(write, tmp_path):
    from judge_server import answer, serving

    from clinical_r1.generate import complete_all

    with serving(lambda messages, number: answer(r"so \boxed{B}")) as server:
        own = write(
            OWN.replace("ARMS = [", "_ = [")
            + f'SERVERS = {{"gpt-x": {{"base_url": "{server.url}", "model": "tiny", "benchmarks": ["ward"]}}}}\n'
        )
        settings = extensions.settings_for("smoke", tmp_path, own=own)
        assert settings.outside == (("gpt-x", "ward"),) and METHOD_LABELS["gpt-x"] == "gpt-x"
        everywhere = write(
            f'SERVERS = {{"gpt-x": {{"base_url": "{server.url}", "model": "tiny"}}}}', "all.py"
        )
        run = extensions.settings_for("smoke", tmp_path, own=everywhere)
        assert run.outside == tuple(("gpt-x", name) for name in SMOKE.benchmarks)
        settings = extensions.settings_for("smoke", tmp_path, own=own)
        settings = replace(settings, methods=(), benchmarks=("ward",), eval_greedy=False)
        write_splits(settings)
        complete_all(settings)
        assert len(server.bodies) == 21  # one of them once more
    table = build_table1(settings, score.score_all(settings))
    row = table[(table["method"] == "gpt-x") & (table["metric"] == "accuracy")].iloc[0]
    assert (row["value"], row["n"], row["benchmark"]) == (50.0, 20, "ward")
    assert "gpt-x: answered through a server by tiny." in table1_markdown(table, METHOD_LABELS)


def test_answers_name_their_fields_and_their_parser_which_table_1_says(write, tmp_path):
    from clinical_r1.generate import complete_all

    rows = [{"qid": i, "response": f"I think the answer is {'AB'[i % 2]}."} for i in range(25)]
    (tmp_path / "answers.json").write_text(json.dumps(rows))
    text = (
        OWN.replace("ARMS = [", "_ = [")
        + """
def place(row):
    return f"q{row['qid']}"

def last_letter(text, style, options):
    from clinical_r1.completions import parse_completion
    return replace(parse_completion(text, style, options), letter=text[-2])

from dataclasses import replace
HOW = {"file": "answers.json", "id": place, "text": "response", "others": True}
ANSWERS = {
    "words": {"ward": HOW | {"parser": "free_text"}},
    "mine": {"ward": HOW | {"parser": last_letter}},
    "box": {"ward": HOW},
}
"""
    )
    settings = extensions.settings_for("smoke", tmp_path, own=write(text))
    settings = replace(settings, methods=(), benchmarks=("ward",), eval_greedy=False)
    write_splits(settings)
    complete_all(settings)
    table = build_table1(settings, score.score_all(settings))
    found = table[table["metric"] == "accuracy"].set_index("method")["value"].to_dict()
    assert (found["words"], found["mine"], found["box"]) == (100.0, 100.0, 0.0)
    shown = table1_markdown(table, METHOD_LABELS)
    assert "words: its letters are read by free_text." in shown
    assert "mine: its letters are read by last_letter." in shown and "box: its" not in shown
    for model, name in (("words", "free_text"), ("mine", "last_letter")):
        for path in (settings.completions_path("ward", model, 0), settings.scores_path("ward", model, 0)):
            assert json.loads(path.with_suffix(".json").read_text())["parser"]["name"] == name
    extensions.unload()
    with pytest.raises(
        ValueError, match="mine to ward are read by 'last_letter' of the user's own file, which is not"
    ):
        score.score_all(settings)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (
            'SERVERS = {"gpt": {"url": "http://x/v1", "model": "m"}}',
            "SERVERS['gpt']: is no dict with a base_url",
        ),
        (
            'SERVERS = {"gpt": {"base_url": "http://x/v1", "model": "m", "key": "k"}}',
            "SERVERS['gpt']: has ['key']; expected some of base_url, model, api_key_variable",
        ),
        (
            'SERVERS = {"gpt": {"base_url": "http://me:pw@x/v1", "model": "m"}}',
            "SERVERS['gpt']: the server's base_url must look like",
        ),
        (
            'SERVERS = {"gpt": {"base_url": "http://x/v1", "model": "m", "benchmarks": ["medqa"]}}',
            "SERVERS: answers ['medqa'], which this run does not ask",
        ),
        (
            'SERVERS = {"CRPO": {"base_url": "http://x/v1", "model": "m"}}',
            "'CRPO' differs from 'crpo' in case alone",
        ),
        (
            'SERVERS = {"g": {"base_url": "http://x/v1", "model": "m"}}\nANSWERS = {"g": {"clinic": __file__}}',
            "SERVERS['g']: is also in ANSWERS",
        ),
        ('SERVERS = ["g"]', "SERVERS: is a list; expected a dict"),
        (
            'ANSWERS = {"g": {"clinic": {"file": __file__, "parsr": "box"}}}',
            "has ['parsr']; expected some of file, id",
        ),
        (
            'ANSWERS = {"g": {"clinic": {"file": __file__, "parser": "words"}}}',
            "parser 'words' is not known; expected",
        ),
        (
            'ANSWERS = {"g": {"clinic": {"file": __file__, "parser": lambda *_: 1}}}',
            "ANSWERS['g']['clinic']: parser cannot be stamped",
        ),
        ('ANSWERS = {"g": {"clinic": {"text": "x"}}}', "expected a file, or a dict that names one as 'file'"),
        (
            OWN.replace('"Short answers", rewards="short"', '"S", rewards="crpo", style="grpo"'),
            "is asked in style 'grpo' and paid by clinical_reasoning_reward, which is 0",
        ),
    ],
)
def test_a_server_or_a_file_that_does_not_fit_is_named(write, tmp_path, text, sentence):
    with pytest.raises(OwnFileError, match=re.escape(sentence)) as caught:
        extensions.settings_for("smoke", tmp_path, own=write(text))
    assert "me:pw" not in str(caught.value)


def test_a_general_model_gets_full_prompts_and_room(write, tmp_path):
    (tmp_path / "tiny").mkdir()
    (tmp_path / "tiny" / "config.json").write_text("{}")
    settings = extensions.settings_for("smoke", tmp_path, own=write('BASE_MODEL = "tiny"\n'))
    assert settings.base_model == str((tmp_path / "tiny").resolve())
    assert settings.prompt_layout == "full" and SMOKE.prompt_layout == "clinic"
    assert settings.max_prompt_tokens == extensions.LIMITS["max_prompt_tokens"]
    own = write('BASE_MODEL = "tiny"\nSETTINGS = {"max_prompt_tokens": 300}\n', "other.py")
    assert extensions.settings_for("smoke", tmp_path, own=own).max_prompt_tokens == 300


SHORT = '"Short answers", rewards="short"'
FAULTS = {
    "does not import": "mine.py, line 2 does not import (ModuleNotFoundError",
    "nothing": "nothing to use: it defines none of ARMS",
    "unknown reward": "arm 'short': reward set 'shrt' is not known",
    "unknown start": "arm 'short': arm short starts from 'nowhere', which is no arm",
    "circle": "starts from itself (short -> after -> short)",
    "taken name": "arm 'crpo': has the name of an arm of this package",
    "twice": "hold one twice",
    "weights": "has 2 weights; expected 1, for short_reward",
    "option": "gives std_floor the option ['flor']; expected ['floor']",
    "weights that are none": "does not import (ValueError: arm short has the weights (nan,)",
    "option's value": "has options that gated cannot take (gate is 'format'",
    "no targets": "has the targets None; constrained needs 0",
    "label": "has the label 'CRPO' of another arm",
    "not trained": "has the stage ''",
    "recipe of pairs": "a stage of preferences has the options ['betta']",
    "data of another stage": "of stage 'rl' learns from 'kg'; expected one of ''",
    "change of what all share": "changes ['base_model']; an arm may change rl_steps",
    "change that does not fit": "its changes do not fit profile smoke (rl_steps is 0; expected at least 1",
    "change of another kind": "its changes do not fit profile smoke (rl_beta is 'x'; expected a finite number",
    "lambda": "reward <lambda> of 'short': cannot be stamped",
    "range": "reward short_reward of 'short': reward short_reward gave 3; expected a value in its stated range [0, 1]",
    "length": "reward short_reward gave 1 values for 4 completions",
    "texts only": "fails on message lists, as training passes them (AttributeError",
    "setting": "SETTINGS: ['rl_step'] cannot be set",
    "setting of the run": "SETTINGS: ['profile'] cannot be set",
    "setting that does not fit": "SETTINGS: does not fit profile smoke (micro_batch 7",
    "base model": "BASE_MODEL: 'no-such-folder' is no folder beside the file and no Hub id",
    "benchmark": "QUESTIONS['medqa']: has the name of a benchmark",
    "answers": "ANSWERS['gpt']['clinic']: names",
    "arm in answers": "ANSWERS['crpo']: 'crpo' is an arm or guess of this run",
    "all empty": "nothing to use: it defines none of ARMS",
    "one empty": "nothing to use: it defines none of ARMS",
    "no base model": "nothing to use: it defines none of ARMS",
    "near name": "REWARDSETS: is read by nobody; the names are ARMS, REWARD_SETS",
    "another case": "Arms: is read by nobody",
    "near setting": "Settings_: is read by nobody",
    "no answers": "ANSWERS['gpt']: is {}; expected {benchmark: file}",
    "a folder of answers": "which is a folder",
    "a folder that is not there": "BASE_MODEL: './model' is no folder beside the file and no Hub id",
    "a folder above": "BASE_MODEL: '../model' is no folder beside the file and no Hub id",
    "a hidden folder": "BASE_MODEL: '.cache/model' is no folder beside the file and no Hub id",
    "changed twice": "the changes (('rl_beta', 0.0), ('rl_beta', 0.1)), one of them twice",
    "greedy rollouts": "SETTINGS: does not fit profile smoke (rl_temperature is 0; expected more than 0",
    "top-p": "SETTINGS: does not fit profile smoke (eval_top_p is 1.5; expected a share",
}
BROKEN = {
    "does not import": "\nimport no_such_module\n",
    "nothing": "x = 1\n",
    "unknown reward": OWN.replace('rewards="short")', 'rewards="shrt")', 1),
    "unknown start": OWN.replace(
        '"Short answers", rewards="short"', '"Short answers", rewards="short", start="nowhere"'
    ),
    "circle": OWN.replace(
        '"Short answers", rewards="short"', '"Short answers", rewards="short", start="after"'
    ),
    "taken name": OWN.replace('Arm("short"', 'Arm("crpo"'),
    "twice": OWN.replace('Arm("after"', 'Arm("short"'),
    "weights": OWN.replace(
        '"Short answers", rewards="short"', '"Short answers", rewards="short", weights=(1.0, 2.0)'
    ),
    "option": OWN.replace(
        '"Short answers", rewards="short"',
        '"Short answers", rewards="short", aggregation="std_floor", options=(("flor", 1),)',
    ),
    "weights that are none": OWN.replace(SHORT, SHORT + ', weights=(float("nan"),)'),
    "option's value": OWN.replace(SHORT, SHORT + ', aggregation="gated", options={"gate": "format"}'),
    "no targets": OWN.replace(SHORT, SHORT + ', aggregation="constrained"'),
    "label": OWN.replace("Short answers", "CRPO"),
    "not trained": OWN.replace(SHORT, SHORT + ', stage=""'),
    "recipe of pairs": OWN.replace(SHORT, SHORT + ', stage="preference", data="kg", options={"betta": 1}'),
    "data of another stage": OWN.replace(SHORT, SHORT + ', data="kg"'),
    "change of what all share": OWN.replace(SHORT, SHORT + ', changes={"base_model": "x"}'),
    "change that does not fit": OWN.replace(SHORT, SHORT + ', changes={"rl_steps": 0}'),
    "change of another kind": OWN.replace(SHORT, SHORT + ', changes={"rl_beta": "x"}'),
    "lambda": OWN.replace("(short_reward,)", "(lambda completions, **c: [1.0] * len(completions),)").replace(
        ', {"short_reward": (0, 1)}', ""
    ),
    "range": OWN.replace("return [r if", "return [3.0 if"),
    "length": OWN.replace("return [r if", "return [1.0] or [r if"),
    "texts only": OWN.replace("completion_text(c).split()", "c.split()"),
    "setting": 'SETTINGS = {"rl_step": 3}\n',
    "setting of the run": 'SETTINGS = {"profile": "x"}\n',
    "setting that does not fit": 'SETTINGS = {"micro_batch": 7}\n',
    "base model": 'BASE_MODEL = "no-such-folder"\n',
    "benchmark": 'QUESTIONS = {"medqa": list}\n',
    "answers": 'ANSWERS = {"gpt": {"clinic": "none.jsonl"}}\n',
    "arm in answers": 'ANSWERS = {"crpo": {"clinic": "none.jsonl"}}\n',
    "all empty": "ARMS = []\nREWARD_SETS = {}\nQUESTIONS = {}\nANSWERS = {}\nSETTINGS = {}\n",
    "one empty": "ARMS = ()\n",
    "no base model": "BASE_MODEL = None\n",
    "near name": OWN + "REWARDSETS = {}\n",
    "another case": OWN.replace("ARMS = [", "Arms = ["),
    "near setting": 'SETTINGS = {"rl_steps": 3}\nSettings_ = {"rl_steps": 4}\n',
    "no answers": 'ANSWERS = {"gpt": {}}\n',
    "a folder of answers": 'ANSWERS = {"gpt": {"clinic": "."}}\n',
    "a folder that is not there": 'BASE_MODEL = "./model"\n',
    "a folder above": 'BASE_MODEL = "../model"\n',
    "a hidden folder": 'BASE_MODEL = ".cache/model"\n',
    "changed twice": OWN.replace(SHORT, SHORT + ', changes=(("rl_beta", 0.0), ("rl_beta", 0.1))'),
    "greedy rollouts": 'SETTINGS = {"rl_temperature": 0}\n',
    "top-p": 'SETTINGS = {"eval_top_p": 1.5}\n',
}


@pytest.mark.parametrize("fault", FAULTS)
def test_what_does_not_fit_is_named_in_one_sentence_and_leaves_nothing_behind(write, tmp_path, fault):
    before = dict(ARMS), dict(REWARD_SETS)
    with pytest.raises(OwnFileError) as caught:
        extensions.settings_for("smoke", tmp_path, own=write(BROKEN[fault]))
    assert FAULTS[fault] in str(caught.value) and str(caught.value).startswith("mine.py")
    if "does not fit" not in str(caught.value) and "do not fit" not in str(caught.value):
        assert (dict(ARMS), dict(REWARD_SETS)) == before and extensions.loaded() is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('QUESTIONS = {"Clinic": list}\n', "QUESTIONS['Clinic']: differs from 'clinic' in case alone"),
        (
            'QUESTIONS = {"ward": list, "WARD": list}\n',
            "QUESTIONS['WARD']: differs from 'ward' in case alone",
        ),
        (OWN.replace('Arm("short"', 'Arm("CRPO"'), "arm 'CRPO': differs from 'crpo' in case alone"),
        (OWN.replace('Arm("after"', 'Arm("Short"'), "arm 'Short': differs from 'short' in case alone"),
        (
            OWN + 'ANSWERS = {"SHORT": {"ward": __file__}}\n',
            "ANSWERS['SHORT']: differs from 'short' in case alone",
        ),
        (
            'ANSWERS = {"Crpo": {"clinic": __file__}}\n',
            "ANSWERS['Crpo']: 'Crpo' differs from 'crpo' in case alone",
        ),
        (
            'ANSWERS = {"g": {"clinic": __file__}, "G": {"clinic": __file__}}\n',
            "ANSWERS['G']: differs from 'g'",
        ),
        (
            'ANSWERS = {"g.greedy": {"clinic": __file__}}\n',
            "ANSWERS['g.greedy']: 'g.greedy' has '.greedy' in its name",
        ),
        ('ANSWERS = {"g.Sampled.x": {"clinic": __file__}}\n', "has '.sampled' in its name"),
        ('ANSWERS = {"g.seed0": {"clinic": __file__}}\n', "has '.seed0' in its name"),
        ('QUESTIONS = {"ward.test": list}\n', "QUESTIONS['ward.test']: has '.test' in its name"),
        ('ANSWERS = {"g.": {"clinic": __file__}}\n', "ANSWERS['g.']: a model is named 'g.'"),
        ('QUESTIONS = {"ward.": list}\n', "QUESTIONS['ward.']: is no name for a file"),
    ],
)
def test_names_that_become_files_are_told_apart(write, tmp_path, text, message):
    with pytest.raises(OwnFileError) as caught:
        extensions.settings_for("smoke", tmp_path, own=write(text))
    assert message in str(caught.value) and extensions.loaded() is None


def test_a_dot_in_a_name_is_no_fault(write):
    assert list(extensions.load(write('ANSWERS = {"gpt-4.1": {"clinic": __file__}}\n')).answers) == [
        "gpt-4.1"
    ]


def test_a_broken_file_leaves_the_one_before_in_force(write):
    good = write(OWN, "good.py")
    extensions.load(good)
    with pytest.raises(OwnFileError):
        extensions.load(write(BROKEN["range"], "bad.py"))
    assert (
        extensions.loaded().path == good.resolve()
        and "short" in ARMS
        and os.environ[extensions.VARIABLE] == str(good.resolve())
    )


READERS = {
    "holds the id 'a' twice": '[Question("a", "w", "t", "?", {"A": "x", "B": "y"}, "A", {})] * 2',
    "question 'a' has no answer": '[Question("a", "w", "t", "?", {"A": "x", "B": "y"}, None, {})]',
    "item 1 of test is a dict": '[{"id": "a"}]',
    "yields no question": "[]",
    "fails (ValueError: question 'a': answer is 'C'": '[Question("a", "w", "t", "?", {"A": "x", "B": "y"}, "C", {})]',
    "gave a int": "3",
}


@pytest.mark.parametrize("message", READERS)
def test_a_reader_that_yields_something_else_is_named(write, message):
    extensions.load(
        write(
            f"from clinical_r1.questions import Question\nQUESTIONS = {{'ward': lambda: {READERS[message]}}}\n"
        )
    )
    with pytest.raises(OwnFileError) as caught:
        extensions.questions_of("ward", "test")
    assert message in str(caught.value) and "QUESTIONS['ward']" in str(caught.value)


def test_only_own_arms_are_set_aside_when_they_are_stale(write, tmp_path):
    from clinical_r1 import train
    from clinical_r1.files import read_json, set_aside, write_json

    settings = extensions.settings_for("smoke", tmp_path, own=write(OWN))
    for arm in ("short", "crpo"):
        folder = settings.model_dir(arm, 0)
        write_json(folder / "policy" / "adapter_config.json", {})
        artifacts.begin(settings, arm, 0)
        artifacts.end(settings, arm, 0, {})
        assert artifacts.is_trained(settings, arm, 0) and not train._is_outdated(settings, arm, 0)
        for name in ("done.json", "begun.json"):
            write_json(folder / name, read_json(folder / name) | {"reward_rules": "others"})
    for kind in ("completions", "scores"):
        path = settings.run_dir / kind / "ward" / "short.seed0.jsonl"
        path.parent.mkdir(parents=True)
        path.write_text("{}\n")
    assert train._is_outdated(settings, "short", 0)
    (settings.model_dir("short", 0) / "done.json").unlink()  # begun with other rules is outdated too
    assert train._is_outdated(settings, "short", 0)
    set_aside(settings, "short", 0)
    aside = settings.run_dir / "set_aside" / "short.seed0.1"
    assert (aside / "models/short/seed0/begun.json").is_file() and (
        aside / "scores/ward/short.seed0.jsonl"
    ).is_file()
    assert not settings.model_dir("short", 0).exists() and not list(
        (settings.run_dir / "completions/ward").iterdir()
    )
    with pytest.raises(ValueError, match="reward_rules was 'others'"):
        train._is_outdated(settings, "crpo", 0)


@pytest.mark.parametrize(
    "body",
    [
        "[one.clear() for one in options]",
        "options.clear()",
        "[one.pop('B') for one in options]",
        "completions.clear(); columns['id'].clear()",
    ],
)
def test_the_trial_of_one_reward_changes_nothing_for_the_next(write, body):
    own = extensions.load(
        write(
            "from clinical_r1.rewards import RewardSet, accuracy_reward\n"
            f"def greedy(completions, options, **columns):\n    {body}\n    return [0.0] * 4\n"
            "def second(completions, answer, options, **columns):\n"
            "    if [*options[0]] != ['A', 'B'] or len(completions) != 4 or len(columns['id']) != 4:\n"
            "        raise RuntimeError('somebody changed my inputs')\n    return [0.0] * 4\n"
            "REWARD_SETS = {'two': RewardSet((greedy, second), (1.0, 1.0))}\n"
        )
    )
    assert [*own.reward_sets] == ["two"]
    assert extension_checks.TRIAL_OPTIONS == {"A": "Gout", "B": "Septic arthritis"}
