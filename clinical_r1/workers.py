"""Child processes that end with their parent; training and the laboratory start their arms in them.
Threads for work that waits, such as for a server's answers.
"""

import gc
import os
import subprocess
import sys
import threading
from concurrent.futures import CancelledError, ThreadPoolExecutor, as_completed

PARENT_GONE = 75  # exit status of a child whose parent died: temporary, run again


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
