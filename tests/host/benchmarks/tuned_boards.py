"""A board for tests of tuning: it answers as a real one would, with noise, and counts the seconds that would take."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from tests import facts_made
from tests.host.benchmarks import measured
from tflotilla.shared.contract.benchmark import BenchmarkCell, CellError, Configuration, Correctness, Method
from tflotilla.shared.contract.board import RuntimeOffer

if TYPE_CHECKING:
    from tflotilla.shared.contract.agent_config import DelegateConfig
    from tflotilla.shared.contract.board import BoardFacts

TFLITE = RuntimeOffer(name="tflite-runtime", version="2.14.0")
#: Samples per cell, however long it was measured: so many tell the same story as thousands.
_MOST_RUNS = 700


def pi(cores: int = 4) -> BoardFacts:
    """Return a board with both runtimes."""
    return replace(measured.identity("pi-1").facts, cores=cores, runtimes=(TFLITE, facts_made.LITERT))


@dataclass(slots=True, kw_only=True)
class FakeBoard:
    """The `Measure` port. Latency falls with threads and XNNPACK, as Amdahl would have it."""

    seed: int = 0
    #: Of a run's latency, as a share of it.
    noise: float = 0.05
    #: From one timed run to the next process' first.
    overhead_s: float = 1.0
    seconds: float = 0.0
    asked: list[tuple[tuple[Configuration, ...], Method]] = field(default_factory=list)
    #: Fast ones whose answers are wrong.
    wrong: tuple[Configuration, ...] = ()
    #: What these fail with.
    failing: dict[int, CellError] = field(default_factory=dict)
    rss_bytes: int = 60 << 20

    def truth_ns(self, configuration: Configuration) -> float:
        """Return the true median latency."""
        inference = configuration.inference
        kind = random.Random(f"{self.seed}/{inference}")  # noqa: S311 - a simulation
        best = 4e6 if inference.xnnpack else 9e6
        best *= 1.0 if inference.runtime == "ai-edge-litert" else 1.15
        best *= 0.25 + 0.75 / inference.num_threads
        best *= 0.97 if inference.affinity else 1.0
        return best * math.pow(configuration.batch, 0.8) * kind.uniform(0.9, 1.1)

    def __call__(self, configurations: tuple[Configuration, ...], method: Method) -> tuple[BenchmarkCell, ...]:
        """Measure."""
        self.asked.append((configurations, method))
        return tuple(self._cell(configuration, method) for configuration in configurations)

    def _cell(self, configuration: Configuration, method: Method) -> BenchmarkCell:
        self.seconds += self.overhead_s
        if (error := self.failing.get(configuration.inference.num_threads)) is not None:
            return BenchmarkCell(configuration=configuration, error=error)
        truth = self.truth_ns(configuration)
        seconds = min(max(method.min_seconds, method.min_runs * truth / 1e9), method.max_seconds)
        self.seconds += seconds
        runs = max(1, int(seconds * 1e9 / truth))
        dice = random.Random(f"{self.seed}/{configuration}/{method}")  # noqa: S311 - a simulation
        # A whole process may be slower: where its memory came to lie.
        luck = dice.uniform(1.0, 1.01)
        values = [int(truth * luck * (1 + abs(dice.gauss(0, self.noise)))) for _ in range(min(runs, _MOST_RUNS))]
        found = measured.measurement(values)
        wrong = configuration in self.wrong
        found = replace(
            found,
            samples_per_second=configuration.batch * 1e9 / found.latency.mean_ns,
            cpu_seconds_per_inference=configuration.inference.num_threads * found.latency.mean_ns / 1e9,
            peak_rss_bytes=self.rss_bytes,
            correctness=Correctness(goldens=7 if wrong else 8, goldens_total=8, worst_lsb=9 if wrong else 0),
        )
        delegate: DelegateConfig | None = configuration.inference.delegate
        return BenchmarkCell(
            configuration=configuration,
            runtime=TFLITE if configuration.inference.runtime == TFLITE.name else facts_made.LITERT,
            delegate_active=None if delegate is None or "missing" in delegate.library else delegate.library,
            delegate_reason="it is missing" if delegate is not None and "missing" in delegate.library else None,
            measurement=found,
        )
