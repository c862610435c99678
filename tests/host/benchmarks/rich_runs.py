"""A run in which everything occurs that a result can hold, and in which boards say hostile things."""

from __future__ import annotations

import dataclasses
import functools
from typing import TYPE_CHECKING

from tests import facts_made
from tests.host.benchmarks import measured
from tflotilla.host.benchmarks.foreign import ForeignFigures
from tflotilla.shared import statistics
from tflotilla.shared.contract.agent_config import DelegateConfig, InferenceConfig
from tflotilla.shared.contract.benchmark import (
    BenchmarkCell,
    BoardReading,
    CellError,
    Conditions,
    Configuration,
    Correctness,
    CoursePoint,
    Measurement,
    Method,
    OperatorProfile,
    OperatorTime,
    ProcessLoad,
    ServerTrial,
    ServingDuring,
    StageFigures,
    SustainedFigures,
    Verdict,
)

if TYPE_CHECKING:
    from tflotilla.host.benchmarks.results import BoardRun, Run
    from tflotilla.shared.contract.benchmark import BenchmarkStage

#: In the order of a run.
STAGES: tuple[BenchmarkStage, ...] = ("decode", "invoke", "publish", "end_to_end")
HTML = "<script>alert('x')</script>"
ANSI = "\x1b[31mred\x1b]0;title\x07"
CELL = "a | b\n# head [link](javascript:alert(1)) ![x](https://x.example/p.png) `code`"
FORMULA = '=HYPERLINK("https://x.example";"x")'
HOSTILE = f"{HTML}{ANSI}{CELL}"


def latencies(count: int, median_ns: int) -> tuple[int, ...]:
    """Return latencies with a tail, the same every time."""
    return tuple(median_ns + (n * 7919 % 97) * 200 + (median_ns // 2 if n % 50 == 49 else 0) for n in range(count))


def conditions() -> Conditions:
    """Return those of a board that got warm and was throttled."""
    first = BoardReading(
        at_s=-0.5,
        temperature_c=48.2,
        frequencies_khz=(1_800_000,) * 4,
        governor="ondemand",
        throttled=0x50000,
        cooling=0,
        load_1min=0.2,
        swap_used_bytes=0,
        memory_available_bytes=3 << 30,
    )
    warm = dataclasses.replace(first, at_s=3.0, temperature_c=70.5, frequencies_khz=(1_500_000, 1_800_000))
    return Conditions(
        before=first,
        during=(dataclasses.replace(first, at_s=1.0, temperature_c=60.0), warm),
        after=dataclasses.replace(warm, at_s=6.0, throttled=0x50005, cooling=1),
        others=(ProcessLoad(name=f"apt {HTML}", pid=4711, cpu_percent=38.5),),
        other_cpu_percent=44.0,
        cooled_s=12.0,
    )


def profile() -> OperatorProfile:
    """Return a profile of three operators whose sum comes near the whole."""
    return OperatorProfile(
        method="prefix_difference",
        xnnpack=True,
        operators=(
            OperatorTime(node_type="CONV_2D", name="conv1", first_ms=0.9, avg_ms=0.6, times_called=1, delegated=True),
            OperatorTime(node_type="CONV_2D", name=f"conv2{HTML}", first_ms=0.5, avg_ms=0.3, times_called=1),
            OperatorTime(node_type="SOFTMAX", name="p", first_ms=0.2, avg_ms=0.1, times_called=1),
        ),
        whole_ms=1.05,
        note="one difference was below 0 and is shown as 0",
        text="raw\x1b[31m line",
    )


def measurement(count: int = 700, median_ns: int = 1_000_000) -> Measurement:
    """Return figures with every pass, of an untroubled board."""
    values = latencies(count, median_ns)
    stage = statistics.distribution(values)
    return dataclasses.replace(
        measured.measurement(values),
        conditions=conditions(),
        correctness=Correctness(goldens=8, goldens_total=8, worst_lsb=1, right=912, labelled=1000),
        stages=tuple(StageFigures(stage=name, latency=stage) for name in STAGES),
        profile=profile(),
        sustained=SustainedFigures(
            seconds=600.0,
            cold_p50_ns=median_ns,
            steady_p50_ns=median_ns * 3 // 2,
            course=tuple(
                CoursePoint(
                    at_s=60.0 * n, p50_ns=median_ns + n * 50_000, temperature_c=45.0 + 3 * n, frequency_khz=None
                )
                for n in range(10)
            ),
        ),
    )


def cell(threads: int, figures: Measurement | None, error: CellError | None = None) -> BenchmarkCell:
    """Return a cell of LiteRT with so many threads."""
    return BenchmarkCell(
        configuration=Configuration(inference=InferenceConfig(runtime="ai-edge-litert", num_threads=threads)),
        runtime=facts_made.LITERT,
        nodes_delegated=64,
        nodes_total=66,
        error=error,
        measurement=figures,
        serving=ServingDuring(
            results=100, errors=1, p50_ns=2_000_000, p99_ns=None, before_p50_ns=1_800_000, before_p99_ns=None
        ),
    )


def hostile_board() -> BoardRun:
    """Return what a board says that means no good; it never finished."""
    error = CellError(kind="crashed", message=f"signal 11 {HOSTILE}")
    strange = BenchmarkCell(
        configuration=Configuration(
            inference=InferenceConfig(
                num_threads=2, delegate=DelegateConfig(library=f"/lib/{HTML}.so", options={FORMULA: HTML})
            ),
            batch=4,
        ),
        runtime=dataclasses.replace(facts_made.LITERT, name=f"=litert{HTML}", version=ANSI),
        delegate_active=HOSTILE,
        delegate_reason=HOSTILE,
        measurement=dataclasses.replace(
            measured.measurement((1, 10**30, 0)), verdict=Verdict(valid=False, reasons=(HOSTILE,), notes=(HOSTILE,))
        ),
    )
    board = measured.board_run([cell(8, None, error), strange], board="pi-2")
    identity = board.identity
    assert identity is not None
    facts = dataclasses.replace(identity.facts, model=f"{FORMULA}{HTML}", kernel=HOSTILE, ram_bytes=10**400)
    return dataclasses.replace(
        board,
        model=f"{FORMULA}{HOSTILE}",
        identity=dataclasses.replace(identity, facts=facts, clock_source=HOSTILE, title=HOSTILE),
        error=f"link lost {HOSTILE}",
        error_kind=f"UnreachableError{HTML}",
    )


@functools.cache
def full() -> Run:
    """Return a run of three boards: a good one, a hostile one, one that never answered."""
    throttled = dataclasses.replace(
        measurement(120, 1_700_000),
        verdict=Verdict(valid=False, reasons=("the processor was throttled (0x50005)",), notes=("no swap to read",)),
    )
    good = measured.board_run([cell(1, measurement()), cell(2, measurement(700, 600_000)), cell(4, throttled)])
    silent = dataclasses.replace(
        measured.board_run([], board="pi-3"), identity=None, error="pi-3 is offline", error_kind="BrokerError"
    )
    silent = dataclasses.replace(silent, request=good.request)
    return measured.run(good, hostile_board(), silent, name=f"before{HTML}")


def server() -> Run:
    """Return a run of the server scenario that searched."""
    values = measurement()
    trials = tuple(
        ServerTrial(qps=qps, latency=statistics.distribution(latencies(700, int(qps) * 10_000)), kept=qps < 300)
        for qps in (100.0, 200.0, 400.0)
    )
    found = dataclasses.replace(values, qps=200.0, trials=trials)
    method = Method(scenario="server", latency_bound_ms=30.0)
    return measured.run(measured.board_run([cell(1, found)], method=method))


def imported() -> Run:
    """Return a run that another program measured."""
    figures = ForeignFigures(
        tool="benchmark_model", model=f"{FORMULA}.tflite", num_threads=4, runs=50, mean_ns=1e6, profile=profile()
    )
    return dataclasses.replace(measured.run(), tool="benchmark_model", foreign=(figures,))
