"""Child processes that end with their parent; training and the laboratory start their arms in them."""

import gc
import os
import subprocess
import sys
import threading

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
