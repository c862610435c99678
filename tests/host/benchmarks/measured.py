"""Runs that look measured: latencies are given, everything else has the values of an untroubled board."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from tests import facts_made
from tests.facts_made import LITERT
from tflotilla.host.benchmarks.results import BoardRun, Run
from tflotilla.shared import statistics
from tflotilla.shared.contract.agent_config import InferenceConfig
from tflotilla.shared.contract.benchmark import (
    BenchmarkCell,
    BenchmarkRequest,
    BoardReading,
    CellError,
    Conditions,
    Configuration,
    Correctness,
    HarnessCost,
    Identity,
    LoadTimes,
    Measurement,
    Method,
    Verdict,
)

if TYPE_CHECKING:
    from collections.abc import Sequence


def measurement(latencies_ns: Sequence[int]) -> Measurement:
    """Return the figures of these invokes."""
    latency = statistics.distribution(latencies_ns)
    return Measurement(
        runs=len(latencies_ns),
        seconds=sum(latencies_ns) / 1e9,
        load=LoadTimes(
            import_ns=180_000_000,
            load_ns=2_000_000,
            delegate_ns=None,
            allocate_ns=900_000,
            first_inference_ns=3_000_000,
        ),
        latency=latency,
        invoke=latency,
        drift=statistics.drift(latencies_ns),
        harness=HarnessCost(loop_ns=900, clock_ns=90, share=0.0005),
        samples_per_second=1e9 / latency.mean_ns,
        cpu_seconds_per_inference=latency.mean_ns / 1e9,
        peak_rss_bytes=60 << 20,
        correctness=Correctness(goldens=8, goldens_total=8, worst_lsb=0),
        conditions=Conditions(before=BoardReading(at_s=-1.0), after=BoardReading(at_s=9.0)),
        verdict=Verdict(valid=True),
        latencies_ns=tuple(latencies_ns),
    )


def cell(latencies_ns: Sequence[int] = (), *, threads: int = 1, error: CellError | None = None) -> BenchmarkCell:
    """Return one cell with these latencies, or with an error."""
    return BenchmarkCell(
        configuration=Configuration(inference=InferenceConfig(runtime="ai-edge-litert", num_threads=threads)),
        runtime=LITERT,
        measurement=None if error is not None else measurement(latencies_ns),
        error=error,
    )


def identity(board: str, *, sha256: str = "ab" * 32) -> Identity:
    """Return a Raspberry Pi 4's."""
    facts = facts_made.facts(time=1.7e9, hostname=board, runtimes=(LITERT,))
    return Identity(
        board=board,
        facts=facts,
        agent_version="0.1.0",
        numpy="1.26.4",
        bundle="cd" * 32,
        title="birds-1.0.0",
        model_sha256=sha256,
    )


def board_run(
    cells: Sequence[BenchmarkCell], *, board: str = "pi-1", sha256: str = "ab" * 32, method: Method | None = None
) -> BoardRun:
    """Return what a board answered."""
    request = BenchmarkRequest(request="r1", configurations=tuple(each.configuration for each in cells))
    if method is not None:
        request = dataclasses.replace(request, method=method)
    return BoardRun(
        board=board,
        model="birds-1.0.0",
        request=request,
        identity=identity(board, sha256=sha256),
        cells=tuple(cells),
    )


def run(
    *boards: BoardRun, identifier: str = "0123456789abcdef", name: str | None = None, created: float = 1.8e9
) -> Run:
    """Return one command's worth."""
    return Run(id=identifier, created=created, boards=boards, name=name)
