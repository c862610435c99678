"""How long `tflotilla --help` takes: the command line imports nothing heavy until it is asked to."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from dataclasses import dataclass

LIMIT_S = 0.5
_RUNS = 7


@dataclass(frozen=True, slots=True, kw_only=True)
class Startup:
    """Seconds of wall time."""

    command: str
    runs: int
    median_s: float
    best_s: float

    @property
    def kept(self) -> bool:
        """Whether the promise holds."""
        return self.median_s < LIMIT_S


def measure(module: str, title: str) -> Startup:
    """Run `python -m <module> --help` a few times; the first run only warms the disk's cache."""
    taken = []
    for _ in range(_RUNS + 1):
        begin = time.perf_counter()
        done = subprocess.run([sys.executable, "-m", module, "--help"], capture_output=True, check=False)
        taken.append(time.perf_counter() - begin)
        if done.returncode != 0:
            raise RuntimeError(f"{title} fails: {done.stderr.decode(errors='replace').strip()}")
    return Startup(command=title, runs=_RUNS, median_s=statistics.median(taken[1:]), best_s=min(taken[1:]))
