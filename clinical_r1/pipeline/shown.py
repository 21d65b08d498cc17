"""What a stored notebook shows besides its results: with which parameters they were made, and no progress bars.

The published notebooks keep their default parameters, for a reader's own run, above the outputs of a larger run.
"""

import re
from collections.abc import Iterable

from clinical_r1.labels import CLINIC_BENCHMARKS
from clinical_r1.settings import Settings

WIDGET = "application/vnd.jupyter.widget-view+json"
_BAR = re.compile(r"\d+%\|.*\||\d+\w*(?: \w+)? \[[\d:]+, ")  # a tqdm bar with a known total, and one without
_MOVES = re.compile(r"\x1b\[\d*[A-K]")  # what moves a terminal's cursor between bars


def run_line(settings: Settings) -> str:
    """One line: the parameters that a run of these settings was made with, whatever its notebook's cell of parameters says."""
    sizes = [f"{name} {_size(settings, name)}" for name in settings.benchmarks]
    return " · ".join(
        (
            f"profile {settings.profile}",
            _seeds(settings.seeds),
            f"test questions: {', '.join(sizes)}",
            f"base model {settings.base_model}",
        )
    )


def folder_line(settings: Settings) -> str:
    """The same line for a notebook whose numbers come from no run."""
    return f"profile {settings.profile}: it names the folder of the figures; no number here depends on it, nor on seeds"


def _size(settings, benchmark):
    size = settings.test_size(benchmark)
    if size is None:
        return "all"
    return f"{size:,}" if benchmark in CLINIC_BENCHMARKS else f"at most {size:,}"


def _seeds(seeds):
    if len(seeds) > 2 and seeds == tuple(range(seeds[0], seeds[-1] + 1)):
        return f"seeds {seeds[0]} to {seeds[-1]}"
    return f"seed{'s' if len(seeds) > 1 else ''} {', '.join(map(str, seeds))}"


def without_progress(outputs: Iterable[dict]) -> list[dict]:
    """A cell's outputs less its progress bars, which a page keeps as they began: 0 of 15, above a full table.

    A bar is a widget, or text on standard error; what else stands there, such as a warning, is kept.
    """
    kept = []
    for output in outputs:
        if WIDGET in output.get("data", {}):
            continue
        if output.get("name") == "stderr":
            lines = "".join(output["text"]).splitlines(
                keepends=True
            )  # a bar writes over itself: its lines end in \r
            lines = [line for line in lines if line != "\r" and not _BAR.search(line)]
            lines = [line for line in lines if not _MOVES.search(line) or _MOVES.sub("", line).strip()]
            if not "".join(lines).strip():
                continue
            output = output | {"text": lines}
        kept.append(output)
    return kept
