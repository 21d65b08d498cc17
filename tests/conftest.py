"""What every test shares: one thread, no window, no network, and the folder of real benchmark files."""

import os
import signal
from pathlib import Path

# A suite started in the background inherits that these are ignored, and so would every run that a test interrupts.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)

# Before anything imports torch, matplotlib or transformers. More threads than free cores slow tiny models tenfold.
os.environ.update(OMP_NUM_THREADS="1", MPLBACKEND="Agg", HF_HUB_OFFLINE="1", TOKENIZERS_PARALLELISM="false")

import pytest  # noqa: E402
from pages import published  # noqa: E402, F401  (a fixture of every test that reads the published tables)

DATA_VARIABLE = "CLINICAL_R1_DATA"
NO_DATA = f"{DATA_VARIABLE} is unset: no folder of real benchmark files"


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder of real benchmark files; the test is skipped where none is named."""
    folder = os.environ.get(DATA_VARIABLE)
    if not folder:
        pytest.skip(NO_DATA)
    if not Path(folder).is_dir():
        pytest.fail(
            f"{DATA_VARIABLE}={folder} is no folder; name the one with medqa/, medmcqa/, … or unset it."
        )
    return Path(folder)


def pytest_collection_modifyitems(items):
    for item in items:
        if "data_dir" in getattr(item, "fixturenames", ()):
            item.add_marker("real_data")


def pytest_report_header():
    return (
        f"real benchmark files: {'present' if os.environ.get(DATA_VARIABLE) else 'absent'} ({DATA_VARIABLE})"
    )


def pytest_terminal_summary(terminalreporter):
    counts = {
        outcome: sum("real_data" in report.keywords for report in terminalreporter.stats.get(outcome, ()))
        for outcome in ("passed", "failed", "skipped")
    }
    if sum(counts.values()):
        listed = ", ".join(f"{count} {outcome}" for outcome, count in counts.items())
        terminalreporter.write_line(f"tests on real benchmark files: {listed}")
