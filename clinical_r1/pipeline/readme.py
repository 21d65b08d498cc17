"""The generated parts of README.md and docs/: results and verdicts from the published tables, the map, the clinic's relations."""

from contextlib import contextmanager
from pathlib import Path

import pandas as pd

from clinical_r1 import labels
from clinical_r1.arms import METHODS
from clinical_r1.causality.stage import DIFFERENCES, SHARES, SHIPPED
from clinical_r1.causality.summary import as_markdown, base_lines, sentences
from clinical_r1.clinic.knowledge import knowledge_base
from clinical_r1.clinic.review import PAGE_BEGIN, PAGE_END, page_block, read_changes
from clinical_r1.files import ROOT, PipelineError, replace_block, write_text
from clinical_r1.findings.claims import PAIRS, answer_rows
from clinical_r1.findings.claims_page import claims_block, first_screen
from clinical_r1.findings.laboratory_page import TABLES, laboratory_page
from clinical_r1.findings.pairs import richer
from clinical_r1.findings.wording import POWER, change, level, p_cell, places, plain
from clinical_r1.metrics import EXPLORATORY, NO_TEST, PRIMARY
from clinical_r1.pipeline.explain import EXAMPLE
from clinical_r1.pipeline.ledger import counts_sentence, read_pair
from clinical_r1.pipeline.map import MAP_BEGIN, MAP_END, map_block
from clinical_r1.settings import PUBLISHED, Settings
from clinical_r1.tables import COMPARISON_COLUMNS, markdown, number, whole

DOCS = ROOT / "docs"
RESULTS, MAP, CLINIC, CLAIMS, CAUSALITY = "results.md", "map.md", "clinic.md", "claims.md", "causality.md"
README = "README.md"
BEGIN, END = "<!-- results: generated -->", "<!-- /results -->"
CLAIMS_BEGIN, CLAIMS_END = "<!-- claims: generated -->", "<!-- /claims -->"
TO_COME = (
    "Not run yet: the published tables are of an earlier run, with other rules and fewer seeds. What the run with "
    f"{len(PUBLISHED.seeds)} seeds will decide, and how, is written in {{claims}}.\n"
)
FINDINGS_BEGIN, FINDINGS_END = "<!-- findings: generated -->", "<!-- /findings -->"
LABORATORY_BEGIN, LABORATORY_END = "<!-- laboratory: generated -->", "<!-- /laboratory -->"
NO_LABORATORY = "Not published yet: run notebook 05 and publish it.\n"
CAUSALITY_BEGIN, CAUSALITY_END = "<!-- causality: generated -->", "<!-- /causality -->"
SHOWN_METRICS = {
    "faithfulness": "true claims (faithfulness)",
    "drc": "options rejected (DRC)",
    "hallucination": "false claims (hallucination)",
}


def results_block(
    rows: pd.DataFrame, comparisons: pd.DataFrame | None = None, record: dict | None = None
) -> str:
    """A ledger as markdown: where it is from, arms x measures with 95 % intervals, paired differences, cells by verdict.

    rows: the ledger. comparisons: rows of `write_comparisons`, or None to leave their table out. record: results.json, or
    None to leave out which run it was. The process measures are those of the first set.
    """
    measured = rows[rows["value"].notna()]
    sets = list(dict.fromkeys(measured["measured_on"]))
    if not sets:
        return f"No cell has a value yet.\n\n{counts_sentence(rows)}\n"
    shown = [(name, "accuracy") for name in sets] + [(sets[0], metric) for metric in SHOWN_METRICS]
    cells = {(row.method, row.measured_on, row.metric): row for row in measured.itertuples()}
    header = ["", *(_heading(name, metric) for name, metric in shown), "n", "seeds"]
    lines = []
    for method in METHODS:
        own = [cells.get((method, *key)) for key in shown]
        values = [
            level(row.value, row.ci_low, row.ci_high, places(row.metric)) if row else "–" for row in own
        ]
        sizes = [
            " / ".join(dict.fromkeys(whole(getattr(row, at)) for row in own if row)) or "–"
            for at in ("n", "seeds")
        ]
        lines.append([labels.METHOD_LABELS[method], *values, *sizes])
    blocks = [_which_run(record)] if record else []
    blocks.append(markdown(header, lines))
    if comparisons is not None and len(comparisons):
        blocks += [
            "Paired differences on the same questions: accuracy in percentage points, measures per response; p is "
            "Holm-corrected over its family of tests.",
            _differences(comparisons),
            *([f"{NO_TEST[0].upper()}{NO_TEST[1:]}."] if comparisons["p_holm"].isna().any() else []),
        ]
    blocks.append(
        f"{counts_sentence(rows)} `python -m clinical_r1.pipeline explain {EXAMPLE}` says where a "
        "number comes from."
    )
    return "\n\n".join(blocks) + "\n"


def _which_run(record):
    """Command, commit, date, seeds and protocol of the run that a results.json describes."""
    if missing := [name for name in ("git", "command", "date", "seeds", "protocol") if name not in record]:
        raise PipelineError(f"results.json lacks {', '.join(missing)}; run notebook 04 again and publish it.")
    git = record["git"]
    commit = f"commit `{git['sha'][:7]}`" if git.get("sha") else "a folder without git"
    changed = " with changes that were not committed" if git.get("dirty") else ""
    listed = ", ".join(map(str, record["seeds"]))
    return (
        f"Made by `{record['command']}` at {commit}{changed} on {record['date'][:10]}: training seeds {listed}; "
        f"{record['protocol']}."
    )


def _heading(name, metric):
    return f"accuracy `{name}`" if metric == "accuracy" else SHOWN_METRICS[metric]


def _differences(comparisons):
    """The primary rows and every accuracy; where a pair was tested in two families, the one with the larger p."""
    primary = comparisons["status"] == PRIMARY
    kept = comparisons[
        (comparisons["metric"] == "accuracy") | (comparisons["metric"].isin(SHOWN_METRICS) & primary)
    ]
    by_p = kept.sort_values("p_holm", ascending=False, kind="stable")
    kept = by_p.drop_duplicates(["method", "against", "metric", "benchmark"]).sort_index()
    lines = [
        [
            f"{_called(row.method)} − {_called(row.against)}",
            _measure(row),
            change(row.difference, row.ci_low, row.ci_high, places(row.metric)),
            p_cell(row.p_holm),
            number(row.mde_holm, places(row.metric)),
            whole(row.n),
        ]
        for row in kept.itertuples()
    ]
    return markdown(["pair", "measure", "difference", "p", f"detectable difference, {POWER}", "n"], lines)


def _called(name):
    """What an arm or a model is called, a reader's own by its name."""
    return labels.METHOD_LABELS.get(name) or plain(name)


def _measure(row):
    """The heading of a measure, with its set and its status."""
    name = "accuracy" if row.metric == "accuracy" else SHOWN_METRICS[row.metric]
    return f"{name} `{row.benchmark}`" + (" (exploratory)" if row.status == EXPLORATORY else "")


def with_block(text: str, begin: str, end: str, block: str, name: str) -> str:
    """A page's text with what stands between two markers replaced. PipelineError when they are not there once."""
    try:
        return replace_block(text, begin, end, block)
    except ValueError as error:
        raise PipelineError(f"{name}: {error}") from error


def read_comparisons(path: Path) -> pd.DataFrame:
    """comparisons.csv with COMPARISON_COLUMNS. ValueError for what is no table, KeyError for one that lacks columns."""
    return pd.read_csv(path)[COMPARISON_COLUMNS]


def published_block(folder: Path) -> str:
    """The block of results from a folder's ledger.csv, results.json and, where it is there, comparisons.csv."""
    rows, record = read_pair(folder)
    path = folder / "comparisons.csv"
    try:
        comparisons = read_comparisons(path) if path.exists() else None
    except (ValueError, KeyError) as error:
        raise PipelineError(f"{path} is damaged ({error}); run notebook 04 again, or restore it.") from error
    return results_block(rows, comparisons, record)


def is_of_the_claims(folder: Path) -> bool:
    """Whether a folder of published tables holds the run that docs/claims.md was written for."""
    _, record = read_pair(folder)
    return (record.get("profile"), record.get("seeds")) == (PUBLISHED.profile, list(PUBLISHED.seeds))


@contextmanager
def _damage(folder: Path):
    """PipelineError for tables that lack what is read of them."""
    try:
        yield
    except KeyError as error:
        raise PipelineError(f"a table in {folder} has no column {error}; publish the run again.") from error
    except ValueError as error:
        raise PipelineError(f"{folder}: {error}") from error


def _tables(folder: Path, names: dict[str, str]) -> dict[str, pd.DataFrame]:
    """kind -> frame of those files that are there. PipelineError for one that is damaged."""
    try:
        return {kind: pd.read_csv(folder / name) for kind, name in names.items() if (folder / name).exists()}
    except ValueError as error:
        raise PipelineError(f"a table in {folder} is damaged ({error}); publish the run again.") from error


def published_answers(folder: Path) -> pd.DataFrame | None:
    """`claims.answer_rows` of a folder of published tables; None while it holds another run than that of docs/claims.md."""
    names = {"comparisons": "comparisons.csv", "training": "training_curves.csv", "causality": DIFFERENCES}
    if not is_of_the_claims(folder):
        return None
    with _damage(folder):
        return answer_rows(_tables(folder, names))


def causality_block(folder: Path) -> str:
    """The block of docs/causality.md: what the probes of the published run say, and the same on other bases."""
    found = _tables(folder, {"shares": SHARES, "tests": DIFFERENCES}) if is_of_the_claims(folder) else {}
    if len(found) < 2:
        return TO_COME.format(claims="[claims](claims.md)")
    figure = "![Truth and weight of the claims, arm by arm](../figures/published/cpu/causality_weight.png)"
    with _damage(folder):
        shares, tests, own = found["shares"], found["tests"], found["tests"]["base"] == SHIPPED
        table = f"Every probe, per cent of all questions:\n\n{as_markdown(shares)}"
        blocks = [sentences(shares, tests[own]), figure, table, base_lines(tests[~own])]
    return "\n\n".join(filter(None, blocks)) + "\n"


def laboratory_block(folder: Path) -> str:
    """The block of docs/results.md on the laboratory: the findings of notebook 05, from the tables that it published."""
    tables = _tables(folder, TABLES)
    if not tables:
        return NO_LABORATORY
    with _damage(folder):
        return laboratory_page(tables)


def findings_block(folder: Path) -> str:
    """The block of docs/results.md below the tables of the five arms: which differences survive, a section for each pair.

    Without tables of today's columns, and while another run is published, only that is said.
    """
    path = folder / "comparisons.csv"
    if not (path.exists() and is_of_the_claims(folder)):
        return TO_COME.format(claims="[claims](claims.md)")
    rows, found = read_comparisons(path), []
    for name, (method, against) in PAIRS.items():
        own = rows[rows["comparison"] == name]
        if len(own):
            found.append(
                richer(
                    own.drop(columns=["comparison", "method", "against"]).assign(
                        **{method: None, against: None}
                    )
                )
            )
    return "\n\n".join(found) + "\n"


def write_readme(settings: Settings, docs: Path = DOCS) -> Path:
    """Rewrite the generated blocks, and nothing else: of five pages in docs, three of results.md, and of README.md above them."""
    answers = published_answers(settings.published_dir)
    marks = CLAIMS_BEGIN, CLAIMS_END
    blocks = [
        (docs / RESULTS, BEGIN, END, published_block(settings.published_dir)),
        (docs / RESULTS, FINDINGS_BEGIN, FINDINGS_END, findings_block(settings.published_dir)),
        (docs / RESULTS, LABORATORY_BEGIN, LABORATORY_END, laboratory_block(settings.published_dir)),
        (docs / MAP, MAP_BEGIN, MAP_END, map_block()),
        (docs / CLINIC, PAGE_BEGIN, PAGE_END, page_block(knowledge_base(), read_changes(DOCS))),
        (docs / CLAIMS, *marks, verdicts_block(answers)),
        (docs / CAUSALITY, CAUSALITY_BEGIN, CAUSALITY_END, causality_block(settings.published_dir)),
        (docs.parent / README, *marks, readme_block(answers)),
    ]
    texts = {}
    for path, begin, end, block in blocks:
        name = README if path.name == README else f"docs/{path.name}"
        before = texts.get(path) or path.read_text(encoding="utf-8")
        texts[path] = with_block(before, begin, end, block, name)
    for path, text in texts.items():
        write_text(path, text)
    return docs / RESULTS


def verdicts_block(answers: pd.DataFrame | None) -> str:
    """The block of docs/claims.md."""
    return TO_COME.format(claims="this page") if answers is None else claims_block(answers)


def readme_block(answers: pd.DataFrame | None) -> str:
    """The block on the README's first screen."""
    link = "[docs/claims.md](docs/claims.md)"
    return TO_COME.format(claims=link) if answers is None else first_screen(answers)
