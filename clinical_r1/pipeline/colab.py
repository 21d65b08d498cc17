"""What the notebooks' first cell asks for on Google Colab: the folder that results go to, and one restart where it is needed.

It is an IPython extension: `%reload_ext clinical_r1.pipeline.colab` calls `load_ipython_extension`, on every Run all. It imports
the standard library alone, since whatever else is loaded before the restart would be an older version.
"""

import os
import sys
import time
from importlib import metadata

FOLDER = (
    "/content/clinical_r1/notebooks"  # where out = ".." is /content/clinical_r1, which the file pane shows
)
RESTART = "An older pyarrow is loaded: Colab restarts once and calls it a crash. Choose Run all again."


def load_ipython_extension(_=None) -> None:
    """Go to FOLDER; where the kernel has loaded another pyarrow than pip installed, say what comes and end the kernel."""
    os.makedirs(FOLDER, exist_ok=True)
    os.chdir(FOLDER)
    if must_restart():
        print(RESTART, flush=True)
        time.sleep(2)  # or the sentence is lost
        os.kill(os.getpid(), 9)


def must_restart() -> bool:
    """Whether a pyarrow is loaded that is not the installed one: pip has replaced it, and `datasets` needs the new one."""
    loaded = sys.modules.get("pyarrow")
    return loaded is not None and getattr(loaded, "__version__", None) != metadata.version("pyarrow")
