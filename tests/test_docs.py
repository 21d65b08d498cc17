"""The pages: links that lead somewhere, names that exist, and every claimed number read from the table it speaks of."""

import ast
import importlib
import json
import re

import numpy as np
import pandas as pd
import pytest
from pages import PAGES, blocks, one_line, page, published
from test_imports import ROWS, WINGS

import clinical_r1
from clinical_r1.arms import METHODS
from clinical_r1.files import PACKAGE, ROOT
from clinical_r1.metrics import PRIMARY_BENCHMARKS
from clinical_r1.pipeline import map as house_map
from clinical_r1.pipeline import readme as generator

assert published  # a fixture
RESULTS = one_line(page("docs/results.md"))


# ---- words, links, names ----


@pytest.mark.parametrize("name", PAGES)
def test_links_lead_somewhere(name):
    text = page(name)
    targets = re.findall(r"\]\(([^)\s]+)\)", text) + re.findall(r"^\[[^\]]+\]: (\S+)$", text, re.MULTILINE)
    for target in targets:
        if target.startswith("https://"):
            continue
        file, _, anchor = target.partition("#")
        path = (ROOT / name).parent / file if file else ROOT / name
        assert path.exists(), f"{name} links to {target}"
        if anchor:
            headings = re.findall(r"^#+ (.+)$", path.read_text(encoding="utf-8"), re.MULTILINE)
            assert anchor in {re.sub(r"[^\w -]", "", h.lower()).replace(" ", "-") for h in headings}, target


@pytest.mark.parametrize("name", PAGES)
def test_pages_name_no_place_on_a_machine_and_speak_plainly(name):
    text = page(name)
    assert not re.findall(r"(?<![\w.])/(?:home|root|tmp|work|mnt|opt)/", text)
    assert not re.findall(r"\bmend", text, re.IGNORECASE)  # fix


@pytest.mark.parametrize("name", PAGES)
def test_names_in_code_exist(name):
    """`rewards.accuracy_reward`, `clinic/verdicts.py`, `REWARD_SETS["crpo"]`: whatever looks like ours is there."""
    modules = {path.stem for path in PACKAGE.glob("*.py")} | {
        path.parent.name for path in PACKAGE.glob("*/__init__.py")
    }
    for code in re.findall(r"(?<!`)`([^`\n]+)`(?!`)", page(name)):
        dotted = re.match(r"(?:clinical_r1\.)?([a-z_]\w*(?:\.[A-Za-z_]\w*)+)", code)
        if (
            dotted
            and dotted[1].split(".")[0] in modules
            and not re.search(r"\.(py|md|csv|json|jsonl)\b", code)
        ):
            thing = clinical_r1
            for part in dotted[1].split("."):
                if not hasattr(thing, part):
                    importlib.import_module(f"{thing.__name__}.{part}")
                thing = getattr(thing, part)
        for file in re.findall(r"(?<![\w/<>.*])((?:[\w.]+/)*\w+\.py)\b", code):
            places = (ROOT / file, PACKAGE / file, ROOT / "benchmarks" / file, *PACKAGE.glob(f"*/{file}"))
            assert file == "mine.py" or any(place.exists() for place in places), f"{name} names {file}"


def test_every_test_and_page_that_is_named_exists():
    for name in PAGES:
        for file in re.findall(r"\b((?:tests|docs|notebooks|figures|benchmarks)/[\w./-]*\w)", page(name)):
            if not file.startswith(("figures/cpu-", "docs/]")):
                assert (ROOT / file).exists(), f"{name} names {file}"


# ---- the map and the package's own docstring ----


def test_the_map_agrees_with_the_docstrings():
    """Fix: python -m clinical_r1.pipeline readme"""
    text = page("docs/map.md")
    begin, end = house_map.MAP_BEGIN, house_map.MAP_END
    assert generator.with_block(text, begin, end, house_map.map_block(), "docs/map.md") == text


def test_the_package_lists_its_files_in_the_rows_that_imports_obey():
    assert house_map.rows_of_files() == {row: names.split() for row, names in ROWS.items()}
    for wing in WINGS:
        assert wing in clinical_r1.__doc__


def test_the_map_has_every_file_and_needs_a_docstring_of_each(tmp_path):
    block = house_map.map_block()
    for path in PACKAGE.rglob("*.py"):
        if path.name != "__init__.py":
            assert f"| `{path.name}` |" in block
    (tmp_path / "bare.py").write_text("x = 1\n")
    with pytest.raises(ValueError, match="bare.py has no docstring"):
        house_map.docstring(tmp_path / "bare.py")


def test_the_map_s_sentences_are_safe_in_a_table(tmp_path):
    wing = tmp_path / "wing"
    wing.mkdir()
    (tmp_path / "__init__.py").write_text('"""House.\n\nRows:\n\n    ground      one\n"""\n')
    (tmp_path / "one.py").write_text('"""Eq. 3 of <a | b>, see ``x<y>``: all. More."""\n')
    (wing / "__init__.py").write_text('"""A wing.\nTwo lines."""\n')
    (wing / "__main__.py").write_text('"""Runs."""\n')
    block = house_map.map_block(tmp_path)
    assert "| `one.py` | Eq. 3 of &lt;a \\| b>, see `x<y>`: all |" in block
    assert (
        "**wing/** A wing. Two lines.\n\n| file | what it holds |\n| --- | --- |\n| `__main__.py` | Runs |\n"
        in block
    )


def test_the_pipeline_in_ten_lines_calls_what_exists():
    code = re.search(r"::\n\n(.+?)\n\n(?=\S)", clinical_r1.__doc__, re.DOTALL)[1]
    tree = ast.parse("\n".join(line.strip() for line in code.splitlines()))
    assert len(tree.body) == 10
    for call in (node for node in ast.walk(tree) if isinstance(node, ast.Call)):
        name = ast.unparse(call.func)
        module, _, function = name.rpartition(".")
        if not module.startswith(("numpy", "pandas")):
            assert callable(getattr(importlib.import_module(f"clinical_r1.{module}"), function)), name


# ---- results.md, the five arms ----


def test_results_agree_with_the_published_ledger(published):
    """Fix: python -m clinical_r1.pipeline readme"""
    text = page("docs/results.md")
    block = generator.published_block(published)
    assert generator.with_block(text, generator.BEGIN, generator.END, block, "docs/results.md") == text


def test_the_words_below_the_tables_are_generated(published):
    """Fix: python -m clinical_r1.pipeline readme. No sentence of a result is written by hand around the blocks."""
    text = page("docs/results.md")
    marks, block = (generator.FINDINGS_BEGIN, generator.FINDINGS_END), generator.findings_block(published)
    assert generator.with_block(text, *marks, block, "docs/results.md") == text
    section = text[text.index("## The five arms") : text.index("## The laboratory")]
    by_hand = re.sub(r"<!-- (\w+): generated -->.*?<!-- /\1 -->", "", section, flags=re.DOTALL)
    assert not re.findall(r"\d\.\d|[+−]\d|p [<=]|surviv", by_hand)


# ---- speed.md ----


def test_predictions_of_the_speed_page():
    """The cost model at the sizes that the page names."""
    from clinical_r1.speed.cost import ModelShape, predicted_speed_up

    def shape(layers, hidden, heads, key_values, inner, vocabulary):
        head = hidden // heads
        weights = 2 * hidden**2 + 2 * hidden * head * key_values + 3 * hidden * inner
        return ModelShape(weights * layers, layers, hidden, hidden, vocabulary)

    half, real = (24, 896, 14, 2, 4864), 151_936
    text = one_line(page("docs/speed.md"))
    small, large = (predicted_speed_up(shape(*half, vocabulary), 1024, 64, 16) for vocabulary in (1024, real))
    assert f"gain {small:.1f} times with the small vocabulary and {large:.1f} times with the real one" in text
    paper_sizes = [
        predicted_speed_up(shape(*size, real), 350, 600, 5) for size in (half, (36, 2048, 16, 2, 11008))
    ]
    assert "the gain is {:.2f} with the shape of 0.5B and {:.2f} with that of 3B".format(*paper_sizes) in text
    equal = predicted_speed_up(shape(*half, 1024), 1000, 1000, 8)
    assert 1.7 < equal < 2 * 8 / 9 + 0.02  # "at P = R and G = 8 the limit is 1.8"


def test_every_point_of_the_grid_reaches_what_the_page_says():
    import json

    (file,) = (ROOT / "benchmarks/results").glob("shared_prefix.*.json")
    points = json.loads(file.read_text(encoding="utf-8"))["points"]
    lowest = min(point["measured_over_predicted"] for point in points if "measured_over_predicted" in point)
    assert f"at least {int(lowest * 1000) / 1000:.2f} of its prediction" in page("docs/speed.md")


# ---- engines.md, and what has run where ----


def test_the_engines_page_says_what_the_parsers_read_in_real_answers(data_dir):
    """MIRAGE's chains and medagents' letters, against the questions with four and with five options."""
    from clinical_r1.audit.public_answers import CHAIN_MODELS
    from clinical_r1.curation.releases import load_benchmark
    from clinical_r1.engines.replay import PARSERS
    from clinical_r1.files import read_csv, read_jsonl

    folder, text = data_dir / "real_completions", one_line(page("docs/engines.md"))
    sets = {"medqa-4": "test", "medmcqa": "dev", "medqa": "test"}
    questions = {name: load_benchmark(name, split, source=data_dir) for name, split in sets.items()}

    def shares(name, model, parser):
        """(right, with a letter) in per cent of all questions."""
        rows = read_jsonl(folder / f"mirage_cot_{name.removesuffix('-4')}_{model}.jsonl")
        texts = {re.sub(r"^(dev|test)_", "", row["id"]): row["raw"] or "" for row in rows}
        key = [q.id.removeprefix(f"{name}-test-") for q in questions[name]]
        letters = [
            PARSERS[parser](texts[k], "crpo", q.options).letter
            for k, q in zip(key, questions[name], strict=True)
        ]
        right = [letter == q.answer for letter, q in zip(letters, questions[name], strict=True)]
        return 100 * np.mean(right), 100 * np.mean([letter is not None for letter in letters])

    cells = [(name, model) for name in ("medqa-4", "medmcqa") for model in reversed(CHAIN_MODELS)]
    mirage, words = ([shares(*cell, parser) for cell in cells] for parser in ("mirage", "free_text"))
    own = "{:.2f} and {:.2f} % on MedQA with four options, {:.2f} and {:.2f} % on MedMCQA"
    assert own.format(*(right for right, _ in mirage)) in text
    assert "with {:.2f}, {:.2f}, {:.2f} and {:.2f} %".format(*(right for right, _ in words)) in text
    more = max(more - read for (_, more), (_, read) in zip(words, mirage, strict=True))
    assert f"up to {more:.1f} percentage points more" in text
    assert all(shares(*cell, "box")[1] == 0 for cell in cells)
    right, read = shares("medqa", "gpt-4-32k", "mirage")
    assert f"a letter in {read:.0f} % of its answers and {right:.0f} % right" in text
    letters = read_csv(folder / "medagents_zeroshot_letters_medqa.csv", ("gpt-4o",))["gpt-4o"]
    four, five = (
        100 * np.mean(letters == [q.answer for q in questions[name]]) for name in ("medqa-4", "medqa")
    )
    assert f'{four:.2f} % right on four options, are {five:.2f} % "right" on five' in text


def test_every_variable_that_a_reader_may_set_stands_in_the_readme():
    sources = [*PACKAGE.rglob("*.py"), ROOT / "reproduce.sh"]
    named = {
        name for path in sources for name in re.findall(r"CLINICAL_R1_[A-Z_]*[A-Z]", path.read_text("utf-8"))
    }
    ours = {"CLINICAL_R1_WITH", "CLINICAL_R1_OWN_FILE"}  # set by the pipeline for its own kernels
    judge = {name for name in named if name.startswith("CLINICAL_R1_JUDGE")}  # the rest is in recipes.md
    assert ours < named and "CLINICAL_R1_MODELS" in named
    for name in named - ours - judge:
        assert f"| `{name}` |" in page("README.md"), name


def test_what_was_measured_by_hand_says_so_and_tolerances_are_the_code_s():
    from clinical_r1.engines import vllm
    from clinical_r1.speed import exactness, head
    from clinical_r1.starts import ASKED

    speed, engines, real = (one_line(page(f"docs/{name}.md")) for name in ("speed", "engines", "real-model"))
    assert (
        f"and {exactness.TOLERANCE['float32'][0]:.4f} is allowed. These three were measured once, by hand"
        in speed
    )
    assert f"from {head.WHOLE_BYTES[False] // 2**30} GiB of logits on only" in speed
    assert f"an adapter above rank {max(vllm.RANKS)}" in engines
    assert f"a temperature between 0 and {vllm.COLDEST} (vLLM would take {vllm.COLDEST})" in engines
    assert f"cache of {vllm.ON_A_CPU['VLLM_CPU_KVCACHE_SPACE']} GiB" in engines
    assert engines.count("nce, by hand; no test holds these numbers") == 1
    assert f"answers to {ASKED} training questions in each style" in real
    assert "It is never medical advice" in real


# ---- trust.md ----


def test_attacks_are_outranked_as_the_page_says_and_fluent_lies_are_not():
    from clinical_r1.audit.redteam import EXAMPLE, EXAMPLE_HONEST, red_team_table
    from clinical_r1.audit.reward_cases import judge_groups
    from clinical_r1.clinic import Case, load_set
    from clinical_r1.clinic.cases import phrase
    from clinical_r1.clinic.traces import crpo_text, teaching_completions

    text = one_line(page("docs/trust.md"))
    table = red_team_table(EXAMPLE, EXAMPLE_HONEST).iloc[1:]
    assert (
        f"outranks {sum(table['outranked'])} of {len(table)} degenerate and adversarial completions" in text
    )
    assert f"{sum(table['tie'])} of the {len(table)} tie" in text
    questions, groups = load_set("clinic", "validation", 40), []
    for question in questions:
        case = Case.from_json(question.meta["case"])
        strange = [f for f, p in case.stated if p and (f, p) not in case.evidence(case.gold, 1)]
        words = phrase(strange[0], True, case.shift) if strange else None
        said = f"{words} supports {case.gold}.", f"{words} favors {case.gold} \\boxed{{{case.letter}}}"
        groups.append(teaching_completions(case) | ({"stranger": crpo_text("so.", *said)} if words else {}))
    totals = judge_groups(questions, groups).pivot(index="question", columns="completion", values="total")
    blind = totals[["right, but invents evidence", "right, stuffs keywords"]]
    assert (blind.round(2) == 11.5).all(axis=1).mean() > 0.5 and "On most clinic cases" in text
    assert "both earn 11.50" in text and (totals["honest"] == 12).all()
    strangers = totals["stranger"].dropna()
    assert len(strangers) > 30 and (strangers == 12).mean() > 0.5
    assert "earns 12.00, as much as the honest one" in text


def test_the_judges_of_notebook_04_find_what_the_page_says():
    cells = json.loads((ROOT / "notebooks/04_benchmark_evaluation.ipynb").read_text(encoding="utf-8"))[
        "cells"
    ]
    shown = "".join(json.dumps(cell.get("outputs", [])) for cell in cells)
    text = one_line(page("docs/trust.md"))
    assert "the exact counts do not tell the two apart" in text
    assert "No order to find: the exact counts do not tell these two policies apart" in shown


# ---- statistics.md and causality.md ----


def test_spreads_between_seeds_are_those_of_the_published_run(published):
    table = pd.read_csv(published / "fig1_radar.csv")
    table = table[table["method"].isin(METHODS[1:])].set_index(["metric", "benchmark"])["seed_sd"]
    ends = [
        f"{table.loc['accuracy', name].min():.1f} to {table.loc['accuracy', name].max():.1f}"
        for name in PRIMARY_BENCHMARKS
    ]
    true = pd.concat([table.loc["faithfulness", name] for name in PRIMARY_BENCHMARKS])
    said = f"{ends[0]} points on `clinic` and {ends[1]} on `clinic-shift`, and {true.min():.2f} to {true.max():.2f} true claims"
    assert said in one_line(page("docs/statistics.md"))


def test_the_probe_that_points_the_other_way_does(published):
    rows = pd.read_csv(published / "causality_differences.csv").query(
        "base == 'shipped' and method == 'crpo'"
    )
    rows = rows[rows["against"] == "baseline"].set_index("probe")
    text = one_line(page("docs/causality.md"))
    assert (
        "many more of CRPO's answers still name it than of the base model's (the column above; p < .001"
        in text
    )
    assert rows.loc["denied", "difference"] > 0.2 and rows.loc["denied", "p_holm"] < 0.001
    assert "no fewer are found to follow a swap" in text and rows.loc["swap", "p_holm"] > 0.05
    assert rows.loc["denied", "status"] == "exploratory"


# ---- constants ----


def test_pages_state_the_constants_of_the_code():
    from clinical_r1 import citation, intervals
    from clinical_r1.engines import protocol
    from clinical_r1.judges.models import OpenAIServer
    from clinical_r1.settings import PAPER

    choices, trust, recipes = (one_line(page(f"docs/{name}.md")) for name in ("choices", "trust", "recipes"))
    assert citation.MAX_CONCLUSION_SHARE == 0.5
    assert (
        f"at least {citation.MIN_CITED_WORDS} of the conclusion's content words, other than what nearly every vignette has, "
        f"and at least {citation.MIN_STATED_SHARE:.0%} of them" in choices
    )
    assert (
        f"a conclusion of over {citation.MAX_CONCLUSION_WORDS} words and half the reasoning earns nothing"
        in choices
    )
    batch = f"β {PAPER.rl_beta}, {PAPER.rl_prompts} prompts × {PAPER.num_generations}, {PAPER.rl_steps} steps"
    assert (
        f"{batch}, T {PAPER.rl_temperature}, {PAPER.max_completion_tokens:,} tokens a completion" in choices
    )
    assert f"{PAPER.max_prompt_tokens:,} a prompt" in choices
    assert PAPER.rl_learning_rate == 1e-5 and "learning rate 1e-5, constant, for LoRA" in choices
    assert f"LoRA throughout (rank {PAPER.lora_rank})" in choices
    n = 500
    assert f"({n * intervals.wilson_interval(0, n)[1]:.1f}/n)" in choices
    assert f"fewer than {intervals.FEW} questions that differ" in choices
    assert f"more than {100 * protocol.UNKNOWN_LIMIT:.0f} %" in trust
    server = OpenAIServer("http://localhost:8000/v1", model="m")
    assert server.retries == 5 and "It is asked again, five times at most" in recipes
    assert f"| `CLINICAL_R1_JUDGE_MAX_TOKENS` | {server.max_tokens};" in recipes


# ---- CHANGELOG.md ----


def test_the_changelog_s_counts_on_real_files_are_today_s(data_dir):
    from clinical_r1.audit.public_answers import real_accuracy_table
    from clinical_r1.curation.checks import CHECKS
    from clinical_r1.curation.releases import load_benchmark

    text = page("CHANGELOG.md")
    table = (
        real_accuracy_table(data_dir).query("items == 'all'").set_index(["benchmark", "model"])["accuracy"]
    )
    medqa, medmcqa = table["medqa-4", "gpt-4-32k"], table["medmcqa", "gpt-4-32k"]
    assert f"accuracy 82.72 to {medqa:.2f} % on MedQA, 67.85 to {medmcqa:.2f} % on MedMCQA" in text
    assert (table["medqa-4", "gpt-35-turbo-16k"], table["medmcqa", "gpt-35-turbo-16k"]) == (
        64.02,
        52.69,
    )  # as in 0.1.0
    questions = load_benchmark("medmcqa", "dev", source=data_dir)
    count = sum(bool(CHECKS["lost_rt"].finds(question)) for question in questions)
    assert f"`lost_rt` counts {count} of MedMCQA dev instead of 288" in text


# ---- habits ----


def test_hooks_and_workflow_agree_with_the_pins_and_the_supported_versions():
    import tomllib

    hooks = (ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8")
    pins = (ROOT / "environment.yml").read_text(encoding="utf-8")
    assert re.search(r"ruff-pre-commit\n +rev: v(\S+)", hooks)[1] == re.search(r"- ruff==(\S+)", pins)[1]
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    workflow = (ROOT / ".github/workflows/ci.yml").read_text(encoding="utf-8")
    assert 'python: ["3.11", "3.13"]' in workflow and project["requires-python"] == ">=3.11,<3.14"
    assert "run: .ci/run" in workflow
    module, _, function = project["scripts"]["clinical-r1"].partition(":")
    assert callable(getattr(importlib.import_module(module), function))


def test_no_page_has_an_empty_code_block():
    for name in PAGES:
        for language in ("python", "bash"):
            assert all(block.strip() for block in blocks(page(name), language))
