"""Cells and configurations of benchmarks that look measured."""

from __future__ import annotations

from tests import facts_made
from tests.facts_made import LITERT
from tflotilla.shared import statistics
from tflotilla.shared.contract.agent_config import DelegateConfig, InferenceConfig
from tflotilla.shared.contract.benchmark import (
    BenchmarkCell,
    BoardReading,
    Conditions,
    Configuration,
    Correctness,
    HarnessCost,
    Identity,
    LoadTimes,
    Measurement,
    Verdict,
)


def configuration(batch: int = 1, *, threads: int = 1, delegate: str | None = None) -> Configuration:
    """Return one for LiteRT."""
    inference = InferenceConfig(
        runtime="ai-edge-litert",
        num_threads=threads,
        delegate=None if delegate is None else DelegateConfig(library=delegate),
    )
    return Configuration(inference=inference, batch=batch)


def measured(wish: Configuration) -> BenchmarkCell:
    """Return a configuration's cell with figures."""
    latencies = tuple(range(1_000_000, 1_000_070))
    latency = statistics.distribution(latencies)
    return BenchmarkCell(
        configuration=wish,
        runtime=LITERT,
        measurement=Measurement(
            runs=len(latencies),
            seconds=1.0,
            load=LoadTimes(import_ns=1, load_ns=2, delegate_ns=None, allocate_ns=3, first_inference_ns=4),
            latency=latency,
            invoke=latency,
            drift=statistics.drift(latencies),
            harness=HarnessCost(loop_ns=900, clock_ns=90, share=0.0005),
            samples_per_second=1000.0,
            cpu_seconds_per_inference=0.001,
            peak_rss_bytes=60 << 20,
            correctness=Correctness(goldens=4, goldens_total=4, worst_lsb=0),
            conditions=Conditions(before=BoardReading(at_s=-1.0), after=BoardReading(at_s=1.0)),
            verdict=Verdict(valid=True),
            latencies_ns=latencies,
        ),
    )


def identity(bundle: str = "ab" * 32) -> Identity:
    """Return a board's."""
    facts = facts_made.facts(time=1.7e9, distribution=None, runtimes=(LITERT,))
    return Identity(
        board="pi-1",
        facts=facts,
        agent_version="0.1.0",
        numpy="1.26.4",
        bundle=bundle,
        title="tiny-1.0.0",
        model_sha256="cd" * 32,
    )
