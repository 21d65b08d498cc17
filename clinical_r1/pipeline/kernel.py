"""How one notebook is executed: in a sealed kernel, under a watch."""

import importlib.util
import json
import logging
import os
import tempfile
import threading
import time
from contextlib import contextmanager, suppress
from pathlib import Path

from clinical_r1.files import ROOT, PipelineError, read_json
from clinical_r1.workers import PROGRESS


class Watch(threading.Thread):
    """Seconds and peak memory of what runs inside `with`, and a line of progress each minute.

    peak_memory_mb sums the resident size of this process and all its descendants, every half second; pages that two
    of them share count twice.
    """

    def __init__(self, label: str, notebook: Path):
        super().__init__(daemon=True)
        self.label, self.notebook = label, notebook
        self.peak_memory_mb, self.started, self.since = 0.0, time.monotonic(), time.time()
        self._over = threading.Event()

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        self._over.set()
        self.join()
        self.seconds = time.monotonic() - self.started

    def run(self):
        last_said = self.started
        while True:
            self.peak_memory_mb = max(self.peak_memory_mb, _tree_memory_mb())
            if time.monotonic() - last_said >= 60:
                last_said = time.monotonic()
                minutes = (last_said - self.started) / 60
                memory = self.peak_memory_mb / 1000
                with suppress(OSError):  # nobody reads any more: the run itself finds that out and says it
                    print(
                        f"  {self.label}: {minutes:.0f} min, {self._cells()}, peak {memory:.1f} GB{self._work()}",
                        flush=True,
                    )
            if self._over.wait(0.5):
                return

    def _work(self) -> str:
        """What the trainings and evaluations of this run that have moved on since the start say of themselves."""
        run, said = self.notebook.parent.parent, []
        for path in sorted(
            [*run.glob(f"models/*/seed*/{PROGRESS}"), *run.glob(f"completions/**/{PROGRESS}")]
        ):
            with suppress(OSError, ValueError, KeyError):  # it has ended in this moment
                if path.stat().st_mtime >= self.since:
                    said.append(read_json(path)["sentence"])
        return "".join(f"; {sentence}" for sentence in said)

    def _cells(self) -> str:
        try:
            cells = json.loads(self.notebook.read_text(encoding="utf-8"))["cells"]
        except (OSError, ValueError):  # read in the middle of an autosave
            return "running"
        done = sum(cell["metadata"].get("papermill", {}).get("status") == "completed" for cell in cells)
        return f"{done} of {len(cells)} cells"


def _tree_memory_mb() -> float:
    import psutil

    me, total = psutil.Process(), 0
    for process in [me, *me.children(recursive=True)]:
        try:
            total += process.memory_info().rss
        except psutil.NoSuchProcess:  # ended since the listing
            continue
    return total / 1e6


UNSET = (
    "PYTHONSTARTUP",
    "PYTHONWARNINGS",
    "PYTHONOPTIMIZE",
)  # what would run in the kernel, or change what it prints


@contextmanager
def sealed():
    """What every kernel is started with, whatever the caller's shell has set and the home folder holds.

    The kernel is this very Python, not one that somebody registered as python3. Start-up files and settings of IPython,
    Jupyter and Matplotlib come from an empty folder and from Matplotlib's own defaults.
    """
    from ipykernel.kernelspec import write_kernel_spec

    defaults = Path(importlib.util.find_spec("matplotlib").origin).parent / "mpl-data" / "matplotlibrc"
    with tempfile.TemporaryDirectory(prefix="clinical_r1-") as folder:
        write_kernel_spec(os.path.join(folder, "jupyter", "kernels", "python3"))
        wanted = (
            dict.fromkeys(UNSET)
            | {
                "PYTHONHASHSEED": "0",
                "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")])),
                "MPLBACKEND": "module://matplotlib_inline.backend_inline",  # pictures land in the executed notebook
                "MATPLOTLIBRC": str(defaults),
                "IPYTHONDIR": os.path.join(folder, "ipython"),
                "JUPYTER_PATH": os.path.join(folder, "jupyter"),  # searched before every other place
                "JUPYTER_CONFIG_DIR": os.path.join(folder, "config"),
                "JUPYTER_RUNTIME_DIR": os.path.join(folder, "runtime"),
            }
        )
        before = {name: os.environ.get(name) for name in wanted}
        try:
            _set_environment(wanted)
            yield
        finally:
            _set_environment(before)


def _set_environment(values):
    for name, value in values.items():
        os.environ.pop(name, None) if value is None else os.environ.__setitem__(name, value)


def execute(source: Path, executed: Path, parameters: dict, way_on: str) -> Watch:
    """Run the notebook `source` in its own folder and write it to `executed`, cell by cell.

    way_on: the end of the sentence when it stops, a PipelineError that names the cell and the cause.
    """
    import papermill

    logging.getLogger("papermill").setLevel(logging.CRITICAL)  # what it logs stands in its exceptions too
    name = source.stem
    executed.parent.mkdir(parents=True, exist_ok=True)
    with sealed(), tempfile.TemporaryFile() as words, Watch(name, executed) as watch:
        try:
            notebook = papermill.execute_notebook(
                str(source),
                str(executed),
                parameters=parameters,
                kernel_name="python3",
                language="python",
                cwd=str(source.parent),
                progress_bar=False,
                request_save_on_cell_execute=True,
                autosave_cell_every=30,
                kernel_manager_class=_manager(words),
            )
        except KeyboardInterrupt:
            logging.getLogger(
                "asyncio"
            ).disabled = True  # it would report each task that the interrupt cut short
            raise
        except papermill.PapermillExecutionError as error:
            what = f"{error.ename}: {error.evalue}" if error.traceback else last_line_of_a_cell(executed)
            what = what.strip().splitlines()[0]
            raise PipelineError(f"{name} stopped in cell {error.cell_index} ({what}); {way_on}") from None
        except RuntimeError as error:  # nbclient's DeadKernelError: killed, or out of memory
            words.seek(0)
            last = (words.read().decode(errors="replace").strip().splitlines() or [""])[-1]
            what = f"{error}{f': {last}' if last else ''}"
            raise PipelineError(f"{name} stopped, its kernel ended ({what}); {way_on}") from error
    for number, cell in enumerate(notebook.cells):
        if cell.cell_type == "code" and cell.metadata.papermill.status != "completed":
            raise PipelineError(f"{name} stopped before cell {number} (it left on its own); {way_on}")
    return watch


def _manager(words):
    """A kernel manager whose kernels write what they say beside the cells, warnings and last words, to the file `words`."""
    from jupyter_client.manager import AsyncKernelManager

    class Manager(AsyncKernelManager):
        async def start_kernel(self, **keywords):
            return await super().start_kernel(**keywords, stderr=words)

    return Manager


def last_line_of_a_cell(executed):
    """The last line on standard error of the cell that failed: all there is where IPython could not print the exception."""
    cells = json.loads(executed.read_text(encoding="utf-8"))["cells"]
    failed = [cell for cell in cells if cell["metadata"].get("papermill", {}).get("exception")]
    said = [
        "".join(output["text"])
        for cell in failed
        for output in cell["outputs"]
        if output.get("name") == "stderr"
    ]
    lines = "".join(said).strip().splitlines()
    return lines[-1] if lines else "it gave no reason"
