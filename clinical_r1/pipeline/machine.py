"""What a profile needs of the machine: a card, an engine, open files, free disk space; asked before a run starts."""

import shutil
from importlib.util import find_spec

from clinical_r1.files import PipelineError
from clinical_r1.pipeline.manifest import needs_cuda
from clinical_r1.settings import Settings

OPEN_FILES = 256  # a run has up to about a hundred open at once


def check_machine(settings: Settings) -> None:
    """PipelineError without the CUDA device, vLLM, the open files or the free disk space that the profile needs."""
    import resource

    allowed, highest = resource.getrlimit(resource.RLIMIT_NOFILE)
    if 0 <= allowed < OPEN_FILES:
        if 0 <= highest < OPEN_FILES:
            raise PipelineError(
                f"this shell allows {highest} open files at once and a run needs {OPEN_FILES}; start it from a shell with more "
                "(`ulimit -n` says how many)."
            )
        resource.setrlimit(resource.RLIMIT_NOFILE, (OPEN_FILES, highest))
    if needs_cuda(settings):  # torch is imported only where the profile needs it
        import torch

        if not torch.cuda.is_available():
            raise PipelineError(
                f"profile {settings.profile} needs a CUDA GPU and PyTorch sees none; "
                "use smoke or cpu here, or run it on a GPU machine."
            )
    if settings.engine == "vllm" and find_spec("vllm") is None:
        raise PipelineError(
            "engine 'vllm' is not installed; pip install 'clinical_r1[vllm]', or set engine to 'transformers'."
        )
    folder = settings.run_dir.absolute()
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free / 1e9
    if free < settings.disk_gb:
        raise PipelineError(
            f"profile {settings.profile} needs {settings.disk_gb:g} GB of free disk space, {free:.1f} GB is left; "
            "free some or choose another folder with --out."
        )
