"""Which numbers a run computes in: those that its settings name, or, for "auto", those that this machine multiplies fastest.

"auto" is measured once a run, with a matrix product of the model's own shape, and kept in `precision.json` in the run's folder:
a run that goes on, each of its processes, and the stamps of its arms all have the same.
"""

import os
import statistics
import sys
import time
from functools import cache
from pathlib import Path

from clinical_r1.files import read_json, write_json

FILE = "precision.json"
TOKENS, REPEATS = 1024, 5  # rows of the matrix product, and how often each is timed
WORTH = 1.2  # bfloat16 must be so many times faster: it rounds to three digits
DTYPES = ("float32", "bfloat16", "float16")


def probe(width: int, inner: int, dtypes=("float32", "bfloat16")) -> dict[str, float]:
    """{type of number: seconds} of a (TOKENS, width) x (width, inner) product on this machine's device, the median of REPEATS.

    On a CPU these are CPU seconds of all threads: other work on the machine does not count.
    """
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    clock = time.perf_counter if device == "cuda" else time.process_time
    seconds = {}
    for name in dtypes:
        left = torch.ones(TOKENS, width, dtype=getattr(torch, name), device=device)
        right = torch.ones(width, inner, dtype=getattr(torch, name), device=device)
        times = []
        for _ in range(REPEATS + 1):  # the first one warms up
            start = clock()
            left @ right
            if device == "cuda":
                torch.cuda.synchronize()
            times.append(clock() - start)
        seconds[name] = statistics.median(times[1:])
    return seconds


def native_bfloat16() -> bool:
    """Whether a CUDA card computes bfloat16 itself; on a CPU `probe` tells."""
    import torch

    return not torch.cuda.is_available() or torch.cuda.is_bf16_supported(including_emulation=False)


def chosen(settings, shape) -> str:
    """The type for "auto": read from the run's folder, or measured and written there by the first process that asks.

    shape: function that returns (width, inner) of the base model. ValueError for a damaged file.
    """
    path = settings.run_dir / FILE
    if not path.exists():
        _write_first(path, _measured(*shape()))
    name = read_json(path).get("dtype")
    if name not in DTYPES:
        raise ValueError(
            f"{path} names the type {name!r}; expected one of {', '.join(DTYPES)}. Delete it to measure again."
        )
    return name


def _measured(width: int, inner: int) -> dict:
    """{"dtype", "seconds", "shape", "device"}, after it has been said."""
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    seconds = probe(width, inner, ("float32", "bfloat16") if native_bfloat16() else ("float32", "float16"))
    (_, full), (name, half) = seconds.items()
    dtype = name if full >= WORTH * half else "float32"
    print(
        f"precision: a {TOKENS} x {width} x {inner} product takes {full * 1e3:.1f} ms in float32 and {half * 1e3:.1f} ms in "
        f"{name} on this {'GPU' if device == 'cuda' else 'CPU'}: {dtype} is used.",
        file=sys.stderr,
        flush=True,
    )
    rounded = {key: round(value, 6) for key, value in seconds.items()}
    return {"dtype": dtype, "seconds": rounded, "shape": [TOKENS, width, inner], "device": device}


def _write_first(path: Path, value: dict) -> None:
    """Write a file unless another process was first; whole or not at all."""
    temporary = write_json(path.with_name(f".{path.stem}.{os.getpid()}.json"), value)
    try:
        os.link(temporary, path)
    except FileExistsError:
        pass  # what stands there counts, for all processes
    finally:
        temporary.unlink()


@cache
def say_if_emulated(width: int, inner: int) -> None:
    """Say once, where bfloat16 was asked for by name, that this CPU takes longer for it than for float32."""
    seconds = probe(width, inner)
    if seconds["bfloat16"] > seconds["float32"]:
        times = seconds["bfloat16"] / seconds["float32"]
        print(
            f"this CPU only emulates bfloat16: a product takes {times:.1f} times as long as in float32; set device_dtype to "
            '"auto" or "float32".',
            file=sys.stderr,
            flush=True,
        )
