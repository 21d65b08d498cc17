"""Child processes that end with their parent, in which training and the laboratory start their arms; how far long work is.
Threads for work that waits, such as for a server's answers.
"""

import gc
import os
import subprocess
import sys
import threading
import time
from concurrent.futures import CancelledError, ThreadPoolExecutor, as_completed
from pathlib import Path

from clinical_r1.files import write_json

PARENT_GONE = 75  # exit status of a child whose parent died: temporary, run again
PROGRESS = "progress.json"


def stop_with_parent() -> None:
    """End this process when its standard input closes, which a parent's death does: children never outlive it."""

    def wait():
        while os.read(0, 1024):  # not sys.stdin: a thread that holds its lock aborts the interpreter at exit
            pass
        os._exit(PARENT_GONE)

    threading.Thread(target=wait, daemon=True).start()


def start_child(module: str, *arguments: str, threads: int = 1, **pipes) -> subprocess.Popen:
    """`python -m module arguments` with this many CPU threads. It must call `stop_with_parent`; pipes: keywords of Popen."""
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "TOKENIZERS_PARALLELISM": "false"}
    return subprocess.Popen(
        [sys.executable, "-m", module, *arguments], stdin=subprocess.PIPE, env=environment, **pipes
    )


def leave_processes() -> None:
    """End the process group of `accelerate launch`, after the trainer: with a trainer still there, gloo can wait for ever."""
    import torch

    if torch.distributed.is_available() and torch.distributed.is_initialized():
        gc.collect()
        torch.distributed.destroy_process_group()


def in_threads(function, items, workers: int, what: str) -> list:
    """[function(item), …] in the order of the items, `workers` of them at a time, for work that waits for others.

    The first failure stops it: items that have not begun are dropped and the error is raised.
    """
    from tqdm.auto import tqdm

    items, failed = list(items), threading.Event()

    def one(item):
        if failed.is_set():
            raise CancelledError
        try:
            return function(item)
        except BaseException:
            failed.set()
            raise

    with ThreadPoolExecutor(workers) as pool:
        futures = [pool.submit(one, item) for item in items]
        try:
            for future in tqdm(as_completed(futures), total=len(items), desc=what):
                if (error := future.exception()) and not isinstance(error, CancelledError):
                    raise error
        except BaseException:  # also an interrupted notebook
            failed.set()
            pool.shutdown(cancel_futures=True)
            raise
    return [future.result() for future in futures]


class Progress:
    """How far one piece of work is, and how long the rest takes at the speed of the steps that this process has made.

    Kept in `folder`/progress.json, which the pipeline's line reads, until `end`; said on stderr after the third step and at each
    tenth of the way, while a minute or more is left. of: steps in all; done: those made before this process.
    """

    def __init__(self, folder: Path, what: str, of: int, done: int = 0, clock=time.monotonic):
        self.path, self.what, self.of = Path(folder) / PROGRESS, what, of
        self.first, self.clock, self.started = done, clock, clock()

    def step(self, done: int) -> str:
        """Note that `done` steps are made; returns the sentence."""
        made = done - self.first
        seconds = (self.clock() - self.started) / made * (self.of - done)
        sentence = f"{self.what}: {done} of {self.of}, about {_minutes(seconds)} left, from the first {made}"
        write_json(
            self.path, {"sentence": sentence, "done": done, "of": self.of, "seconds_left": round(seconds, 1)}
        )
        if seconds >= 60 and (made == 3 or done * 10 // self.of > (done - 1) * 10 // self.of):
            print(sentence, file=sys.stderr, flush=True)
        return sentence

    def end(self) -> None:
        """Take the file away: a piece of work that is over is not in progress."""
        self.path.unlink(missing_ok=True)


def _minutes(seconds: float) -> str:
    return f"{seconds / 60:.0f} min" if seconds >= 90 else f"{seconds:.0f} s"
