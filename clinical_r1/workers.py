"""Child processes that end with their parent; training and the laboratory start their arms in them."""

import os
import threading

PARENT_GONE = 75  # exit status of a child whose parent died: temporary, run again


def stop_with_parent() -> None:
    """End this process when its standard input closes, which a parent's death does: children never outlive it."""

    def wait():
        while os.read(0, 1024):  # not sys.stdin: a thread that holds its lock aborts the interpreter at exit
            pass
        os._exit(PARENT_GONE)

    threading.Thread(target=wait, daemon=True).start()
