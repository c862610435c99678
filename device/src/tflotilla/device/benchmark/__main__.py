"""The child that measures one cell: `python -m tflotilla.device.benchmark`, BenchmarkSpec in, BenchmarkCell out.

MLPerf's SingleStream: one query after the other, each timed from tensors in to outputs copied out. Timed are at least
`min_runs` runs and `min_seconds`, but never longer than `max_seconds`; whether that is enough for a percentile at 99 %
confidence is said with the figures. A fresh process per cell: runtimes keep thread pools and caches.
"""

from __future__ import annotations

import sys
import time
from array import array
from pathlib import Path
from typing import TYPE_CHECKING

from tflotilla.device import child, facts
from tflotilla.device.bundle_folder import BundleFolder
from tflotilla.device.reports import BenchmarkSpec
from tflotilla.shared.contract.errors import TflotillaError
from tflotilla.shared.contract.messages import BenchmarkCell

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_NS = 1_000_000_000


def main() -> int:
    """Answer one BenchmarkSpec with one BenchmarkCell."""
    return child.answer_once(BenchmarkSpec, measure)


def measure(spec: BenchmarkSpec) -> BenchmarkCell:
    """Load and time; errors of ours become the cell's error."""
    try:
        return _measure(spec)
    except TflotillaError as error:
        offer = facts.offer(spec.inference.runtime)
        return BenchmarkCell(runtime=offer, num_threads=spec.inference.num_threads, error=str(error))


def _measure(spec: BenchmarkSpec) -> BenchmarkCell:
    from tflotilla.device import loading
    from tflotilla.shared import statistics
    from tflotilla.shared.inference import goldens

    bundle = BundleFolder.open(Path(spec.bundle))
    vectors = goldens.load(bundle.goldens())
    loaded = loading.load(bundle, spec.inference)
    model = loaded.model
    tensors = vectors.inputs[0] if vectors.inputs else loading.zeros(model.inputs)

    def once() -> None:
        model.set_inputs(tensors)
        model.invoke()
        model.get_outputs()

    clock = time.perf_counter_ns
    begin = clock()
    once()
    first_ns = clock() - begin
    deadline = begin + int(spec.max_seconds * _NS)
    for _ in range(spec.warmup_runs):
        if clock() >= deadline:
            break
        once()
    # Read before the long loop: the memory of the figures is not the model's.
    peak = facts.peak_rss_bytes()
    taken = timed_runs(
        once, min_runs=spec.min_runs, min_seconds=spec.min_seconds, max_seconds=spec.max_seconds, clock=clock
    )
    return BenchmarkCell(
        runtime=loaded.runtime,
        num_threads=spec.inference.num_threads,
        runs=len(taken),
        load_ns=loaded.load_ns,
        first_inference_ns=first_ns,
        latency=statistics.summarize(taken),
        enough_for_p90=len(taken) >= statistics.minimum_runs(90),
        enough_for_p99=len(taken) >= statistics.minimum_runs(99),
        peak_rss_bytes=peak,
        delegate_active=loaded.delegate.active,
    )


def timed_runs(
    once: Callable[[], None],
    *,
    min_runs: int,
    min_seconds: float,
    max_seconds: float,
    clock: Callable[[], int] = time.perf_counter_ns,
) -> Sequence[int]:
    """Time `once` until both minima are reached or `max_seconds` are over; at least one run. Nanoseconds."""
    taken = array("q")
    begin = now = clock()
    earliest, latest = begin + int(min_seconds * _NS), begin + int(max_seconds * _NS)
    while not taken or (now < latest and (now < earliest or len(taken) < min_runs)):
        start = clock()
        once()
        now = clock()
        taken.append(now - start)
    return taken


if __name__ == "__main__":
    sys.exit(main())
