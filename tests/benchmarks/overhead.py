"""What the agent's loop adds to a bare `invoke`: the whole agent running, reporting to a real broker, at full speed.

Each round times the loop and the bare call one after the other; what counts is the difference within a round, and of
those the median. What the worker does for many inferences at once (answers, JSON, the window's figures) is left out of
that median and added by its own: what it takes, divided among those it is done for.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tests.benchmarks import agents, busy, models

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

RUNTIME = "ai-edge-litert"
#: Where the promise is relative, and where it is absolute.
LARGE_NS = 500_000
LIMIT_RATIO = 1.01
LIMIT_ADDED_NS = 20_000
_PATIENCE_S = 120.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """Nanoseconds: the least, the quartiles, and the mean, which holds every disturbance."""

    least: float
    low: float
    median: float
    high: float
    mean: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Summarize at least two values."""
        low, median, high = statistics.quantiles(values, n=4)
        return cls(least=min(values), low=low, median=median, high=high, mean=statistics.fmean(values))


@dataclass(frozen=True, slots=True, kw_only=True)
class Overhead:
    """One model's figures."""

    model: str
    rounds: int
    broker: bool
    others: busy.Others
    bare_ns: Spread
    #: One copy in and one copy out: what no loop can do without.
    copies_ns: Spread
    #: Whole minus its own invoke: the loop's own time, without what it does to the invoke's caches.
    outside_ns: Spread
    #: Whole minus bare, of rounds in which nothing was done for many.
    alone_ns: Spread
    #: An inference's share in what is done for many at once, of a window's end too.
    shared_ns: float
    #: The processor's part of that: what it would take if nobody interrupted it.
    shared_cpu_ns: float
    #: Whole minus bare on average, all included, also what other processes did to either.
    added_mean_ns: float

    @property
    def added_ns(self) -> float:
        """What an inference pays."""
        return self.alone_ns.median + self.shared_ns

    @property
    def ratio(self) -> float:
        """Whole over bare."""
        return 1 + self.added_ns / self.bare_ns.median

    @property
    def relative(self) -> bool:
        """Whether the promise for this model is a ratio."""
        return self.bare_ns.median >= LARGE_NS

    @property
    def kept(self) -> bool | None:
        """Whether the promise holds: 1 % of a model of milliseconds, 20 µs of a tiny one; None: nobody can tell."""
        if self.others.too_busy:
            return None
        return self.ratio <= LIMIT_RATIO if self.relative else self.added_ns <= LIMIT_ADDED_NS


def measure(
    folder: Path, model: models.Measured, *, seconds: float, patience_s: float, runtime: str = RUNTIME
) -> Overhead | None:
    """Measure one model, waiting for a quiet moment for a while; None where this machine doesn't have it."""
    data = model.read()
    if data is None:
        return None
    folder.mkdir(parents=True)
    bundle = models.write_bundle(folder / "bundle", data, runtime)
    seconds *= model.patience
    busy.wait_for_quiet(patience_s)
    result = folder / "timed.json"
    worker = [sys.executable, "-m", "tests.benchmarks.timed_worker", str(result), str(seconds)]
    with (
        agents.broker(folder / "broker") as port,
        agents.serving(folder, bundle, runtime=runtime, port=port, interval_ms=0, worker=worker),
    ):
        watch = busy.Watch()
        deadline = time.monotonic() + seconds + _PATIENCE_S
        while not result.exists():
            if time.monotonic() > deadline:
                raise RuntimeError(f"{model.title}: no figures")
            time.sleep(0.2)
        others = watch.others()
    return _evaluate(model.title, json.loads(result.read_text()), broker=port is not None, others=others)


def _evaluate(title: str, timed: dict[str, Any], *, broker: bool, others: busy.Others) -> Overhead:
    rounds = timed["rounds"]
    bare = Spread.of([row[1] for row in rounds])
    alone = Spread.of([whole - bare_ns for whole, bare_ns, _, invoke in rounds if invoke])
    collects, closings = (timed["together"].get(kind, []) for kind in ("collect", "window"))
    # Here two of three calls are not the agent's: without them a window would hold so many more.
    per_window = agents.WINDOW_S * 1e9 / (bare.median + alone.median)
    shared, shared_cpu = (
        _median(collects, clock) * len(collects) / len(rounds) + _median(closings, clock) / per_window
        for clock in (0, 1)
    )
    return Overhead(
        model=title,
        rounds=len(rounds),
        broker=broker,
        others=others,
        bare_ns=bare,
        copies_ns=Spread.of([row[2] for row in rounds]),
        outside_ns=Spread.of([whole - invoke for whole, _, _, invoke in rounds if invoke]),
        alone_ns=alone,
        shared_ns=shared,
        shared_cpu_ns=shared_cpu,
        added_mean_ns=statistics.fmean([row[0] - row[1] for row in rounds]),
    )


def _median(taken: Sequence[tuple[int, int]], clock: int) -> float:
    return statistics.median([one[clock] for one in taken]) if taken else 0.0
