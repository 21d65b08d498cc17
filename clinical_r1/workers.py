"""Child processes that end with their parent, in which arms are trained and questions answered; how far long work is.
Threads for work that waits, such as for a server's answers.
"""

import gc
import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, ThreadPoolExecutor, as_completed
from contextlib import contextmanager
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


# ------------------------------------------------------------------------------------- jobs shared out among children


class Jobs:
    """Jobs that several workers take one by one; a job is a list whose first two items name what has to be loaded for it."""

    def __init__(self, jobs):
        self.waiting, self.loaded, self.lock = [list(job) for job in jobs], {}, threading.Lock()

    def take(self, worker: int) -> list | None:
        """The next job: one for what this worker has loaded, else for what no other has, else for what has most left; None after
        the last.
        """
        with self.lock:
            if not self.waiting:
                return None
            left = Counter(tuple(job[:2]) for job in self.waiting)
            others = {group for other, group in self.loaded.items() if other != worker}
            group = self.loaded.get(worker)
            if group not in left:
                group = max([g for g in left if g not in others] or left, key=left.get)
            self.loaded[worker] = group
            job = next(job for job in self.waiting if tuple(job[:2]) == group)
            self.waiting.remove(job)
            return job

    def stop(self) -> None:
        """Give out no more of them."""
        with self.lock:
            self.waiting.clear()


def in_children(module: str, arguments, jobs, count: int, threads: int, folder: Path) -> None:
    """Share jobs (`Jobs`; JSON) out among `count` children `python -m module arguments`, which read them by `given_jobs`.

    A child's log is folder/worker<number>.log; what it said there is repeated here when it ends. RuntimeError with the log's last
    lines when a child fails; then, and when this call is interrupted, the others are ended too.
    """
    jobs, children = Jobs(jobs), []

    def one(number: int) -> None:
        path = folder / f"worker{number}.log"
        with open(path, "ab") as log:
            begin, pipes = log.tell(), {"stdout": subprocess.PIPE, "stderr": log}
            with start_child(module, *arguments, threads=threads, **pipes) as child:
                children.append(child)
                job = jobs.take(number)
                while _is_done(child, job):
                    job = jobs.take(number)
                code = child.wait()
        said = path.read_bytes()[begin:].decode(errors="replace").splitlines()
        if code or job is not None:
            tail = said[-12:] or ["nothing was said"]
            if code == -signal.SIGKILL:
                tail.append("killed, as the system does where memory runs out; run the same command to go on")
            raise RuntimeError(
                f"{module} ended with exit status {code} ({tail[-1]}); see {path}:\n" + "\n".join(tail)
            )
        print("".join(f"{line}\n" for line in said), end="", file=sys.stderr)

    folder.mkdir(parents=True, exist_ok=True)
    with ThreadPoolExecutor(count) as pool:
        futures = [pool.submit(one, number) for number in range(1, count + 1)]
        try:
            for future in as_completed(futures):
                future.result()
        except BaseException:  # also an interrupted notebook
            jobs.stop()
            for child in children:
                child.kill()
            raise


def _is_done(child, job: list | None) -> bool:
    """Give a child its next job, None for no more, and wait until it has done it; False when it ends instead."""
    try:
        child.stdin.write(json.dumps(job).encode() + b"\n")
        child.stdin.flush()
    except BrokenPipeError:
        return False
    return bool(child.stdout.readline())


def given_jobs() -> Iterator[list]:
    """In a child of `in_children`: its jobs, one by one. It ends with its parent, and what it prints goes to its log."""
    jobs, reports = queue.Queue(), os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)

    def read():
        rest = b""
        while chunk := os.read(0, 65536):
            *lines, rest = (rest + chunk).split(b"\n")
            for line in lines:
                jobs.put(json.loads(line))
        os._exit(PARENT_GONE)

    threading.Thread(target=read, daemon=True).start()
    while (job := jobs.get()) is not None:
        yield job
        print("done", file=reports, flush=True)


@contextmanager
def watched(done: Callable[[], int], of: int, folder: Path, what: str, unit: str, every: float = 1.0):
    """A bar, and folder/progress.json (`Progress`), of work that leaves its traces on disk: `done` counts them, asked by a thread
    every so many seconds while `with` lasts.
    """
    from tqdm.auto import tqdm

    first, over = done(), threading.Event()
    progress = Progress(folder, what, of, first)
    with tqdm(total=of, initial=first, desc=what, unit=unit) as bar:

        def look() -> None:
            if (now := done()) > bar.n:
                bar.update(now - bar.n)
                progress.step(now)

        def watch() -> None:
            while not over.wait(every):
                look()

        thread = threading.Thread(target=watch, daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()
            look()
            progress.end()


# --------------------------------------------------------------------------------------------------------------- the rest


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
