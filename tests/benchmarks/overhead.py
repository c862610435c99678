"""What the agent's loop adds to a bare `invoke`: the whole agent running, reporting to a real broker, at full speed."""

from __future__ import annotations

import json
import statistics
import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tests.benchmarks import agents, models

if TYPE_CHECKING:
    from pathlib import Path

RUNTIME = "ai-edge-litert"
#: Where the promise is relative, and where it is absolute.
LARGE_NS = 500_000
LIMIT_RATIO = 1.01
LIMIT_ADDED_NS = 20_000
_PATIENCE_S = 120.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Overhead:
    """One model's figures in nanoseconds: medians, and means, which hold the work of each batch and window too."""

    model: str
    rounds: int
    broker: bool
    bare_p10_ns: float
    whole_p10_ns: float
    bare_p50_ns: float
    whole_p50_ns: float
    bare_mean_ns: float
    whole_mean_ns: float

    @property
    def added_p10_ns(self) -> float:
        """What an inference pays in the quietest moments: on a busy machine, nearest to what the loop itself costs."""
        return self.whole_p10_ns - self.bare_p10_ns

    @property
    def added_p50_ns(self) -> float:
        """What a typical inference pays."""
        return self.whole_p50_ns - self.bare_p50_ns

    @property
    def added_mean_ns(self) -> float:
        """What inferences pay on average, the work at each window's end and the neighbours on the cores included."""
        return self.whole_mean_ns - self.bare_mean_ns

    @property
    def ratio(self) -> float:
        """Whole over bare, of the medians."""
        return self.whole_p50_ns / self.bare_p50_ns

    @property
    def kept(self) -> bool:
        """Whether the promise holds: 1 % of a model of milliseconds, 20 µs of a tiny one."""
        if self.bare_p50_ns >= LARGE_NS:
            return self.ratio <= LIMIT_RATIO
        return self.added_p50_ns <= LIMIT_ADDED_NS


def measure(folder: Path, model: models.Measured, *, seconds: float, runtime: str = RUNTIME) -> Overhead | None:
    """Measure one model; None where this machine doesn't have it."""
    data = model.read()
    if data is None:
        return None
    folder.mkdir(parents=True)
    bundle = models.write_bundle(folder / "bundle", data, runtime)
    result = folder / "timed.json"
    worker = [sys.executable, "-m", "tests.benchmarks.timed_worker", str(result), str(seconds)]
    with (
        agents.broker(folder / "broker") as port,
        agents.serving(folder, bundle, runtime=runtime, port=port, interval_ms=0, worker=worker),
    ):
        deadline = time.monotonic() + seconds + _PATIENCE_S
        while not result.exists():
            if time.monotonic() > deadline:
                raise RuntimeError(f"{model.title}: no figures")
            time.sleep(0.2)
    timed = json.loads(result.read_text())
    bare, whole = timed["bare_ns"], timed["whole_ns"]
    return Overhead(
        model=model.title,
        rounds=len(whole),
        broker=port is not None,
        bare_p10_ns=_p10(bare),
        whole_p10_ns=_p10(whole),
        bare_p50_ns=statistics.median(bare),
        whole_p50_ns=statistics.median(whole),
        bare_mean_ns=statistics.fmean(bare),
        whole_mean_ns=statistics.fmean(whole),
    )


def _p10(values: list[int]) -> float:
    return float(sorted(values)[len(values) // 10])
