"""Tuning beside trying everything: 24 configurations of one model on this machine, searched and swept.

Both measure the same cells by the same method, each cell in the fresh process that a board would start. Promised: at
most a third of the sweep's time, and a pick within 3 % of the sweep's best. Where they differ, both are measured again
in turn, because the best of 24 noisy figures looks better than it is.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import statistics
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from tests.benchmarks import busy, models
from tests.benchmarks.busy import Others
from tflotilla.device import cells, facts
from tflotilla.device.reports import CellSpec
from tflotilla.host.benchmarks import tuning
from tflotilla.shared.contract.agent_config import InferenceConfig
from tflotilla.shared.contract.benchmark import Configuration, Method

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.benchmarks.models import Measured
    from tflotilla.shared.contract.benchmark import BenchmarkCell

CELLS = 24
MOST_TIME, MOST_LOSS = 1 / 3, 1.03
_AGAIN = 3
#: Kernels of two runtimes round differently, as `bundle create` would find out.
_TOLERANCE_LSB = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """What searching cost and found, beside the sweep. Latencies are medians, in nanoseconds."""

    model: str
    cells: int
    search_s: float
    sweep_s: float
    pick: str
    best: str
    pick_ns: float
    best_ns: float
    others: Others

    @property
    def time_ratio(self) -> float:
        """Return the search's time as a share of the sweep's."""
        return self.search_s / self.sweep_s

    @property
    def loss(self) -> float:
        """Return the pick's latency as a multiple of the best's."""
        return self.pick_ns / self.best_ns

    @property
    def kept(self) -> bool | None:
        """Whether both promises were kept; None where the machine was too busy to say so of the pick."""
        if self.time_ratio > MOST_TIME:
            return False
        if self.loss <= MOST_LOSS:
            return True
        return None if self.others.too_busy else False


def configurations() -> tuple[Configuration, ...] | None:
    """Return 24 ways to run a model here; None where this machine has not so many."""
    offers, processors = [offer.name for offer in facts.runtimes()], facts.processors()
    bound = [(), *((number,) for number in processors), processors]
    every = itertools.product(range(1, len(processors) + 1), bound, (True, False), offers)
    found = tuple(
        Configuration(
            inference=InferenceConfig(runtime=_literal(name), num_threads=threads, xnnpack=xnnpack, affinity=affinity)
        )
        for threads, affinity, xnnpack, name in every
        # More threads than processors is a cliff that takes minutes.
        if not affinity or threads <= len(affinity)
    )[:CELLS]
    return found if len(found) == CELLS else None


def measure(folder: Path, model: Measured, *, seconds: float) -> Comparison | None:
    """Sweep and search; `seconds` is how long a whole benchmark measures a cell. None where it can't be done here."""
    data, ways = model.read(), configurations()
    if data is None or ways is None:
        return None
    bundle = models.write_bundle(folder, data, facts.runtimes()[0].name, tolerance_lsb=_TOLERANCE_LSB)
    method = Method(min_runs=64, min_seconds=seconds, max_seconds=6 * seconds, warmup_runs=10)
    ask = _asking(bundle)

    watch = busy.Watch()
    begin = time.monotonic()
    search = tuning.run(tuning.begin(ways, method, tuning.Wish(), stretch=True), ask)
    search_s = time.monotonic() - begin
    order = list(ways)
    random.Random(0).shuffle(order)  # noqa: S311 - an order, no secret
    begin = time.monotonic()
    # What a benchmark would do that measures each as the last round did.
    full = search.rungs[-1].method
    swept = ask(tuple(order), full)
    sweep_s = time.monotonic() - begin
    picked = tuning.conclude(search).best
    figures = {str(cell.configuration): ns for cell in swept if (ns := _median(cell)) is not None}
    if picked is None or not figures:
        message = f"{model.title}: no configuration could be measured"
        raise RuntimeError(message)
    best = min((each for each in ways if str(each) in figures), key=lambda each: figures[str(each)])
    pick_ns, best_ns = figures.get(str(picked.configuration)), figures[str(best)]
    if pick_ns is None or pick_ns > best_ns:
        pick_ns, best_ns = _duel(ask, picked.configuration, best, full)
    return Comparison(
        model=model.title,
        cells=len(ways),
        search_s=search_s,
        sweep_s=sweep_s,
        pick=words(picked.configuration),
        best=words(best),
        pick_ns=pick_ns,
        best_ns=best_ns,
        others=watch.others(),
    )


def words(configuration: Configuration) -> str:
    """Return a configuration in few words."""
    inference = configuration.inference
    xnnpack = "" if inference.xnnpack else ", no XNNPACK"
    bound = f", on {','.join(map(str, inference.affinity))}" if inference.affinity else ""
    return f"{inference.runtime} x{inference.num_threads}{xnnpack}{bound}"


def _duel(ask: tuning.Measure, one: Configuration, other: Configuration, method: Method) -> tuple[float, float]:
    """Return the medians of both, measured in turn."""
    rounds = [ask((one, other), method) for _ in range(_AGAIN)]
    first, second = (
        statistics.median([ns for pair in rounds if (ns := _median(pair[place])) is not None]) for place in (0, 1)
    )
    return first, second


def _asking(bundle: Path) -> Callable[[tuple[Configuration, ...], Method], tuple[BenchmarkCell, ...]]:
    async def all_of(ways: tuple[Configuration, ...], method: Method) -> tuple[BenchmarkCell, ...]:
        return tuple([await _cell(bundle, way, method) for way in ways])

    return lambda ways, method: asyncio.run(all_of(ways, method))


async def _cell(bundle: Path, way: Configuration, method: Method) -> BenchmarkCell:
    spec = CellSpec(bundle=str(bundle), configuration=way, method=method)
    return await cells.measure(spec, facts.offer(way.inference.runtime))


def _median(cell: BenchmarkCell) -> float | None:
    return None if cell.measurement is None else float(cell.measurement.latency.median_ns)


def _literal(name: str) -> Literal["tflite-runtime", "ai-edge-litert"]:
    return "tflite-runtime" if name == "tflite-runtime" else "ai-edge-litert"
