"""What a benchmark asks of a board and what it answers: configurations, method, figures, and what they are worth.

A request names one bundle, one method and some configurations. Each configuration is run as one cell, in a fresh
process, one after the other, and tells of each with a message of its own as soon as it is done; the last has
`position == total`. Whoever holds a result can ask for it again: every choice, the seed too, stands in the request.

Words: scenarios are MLPerf LoadGen's (SingleStream, MultiStream, Offline, Server), options are called as those of
TFLite's `benchmark_model` where they mean the same. Times are nanoseconds of the monotonic clock.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from tflotilla.shared.contract.agent_config import InferenceConfig
from tflotilla.shared.contract.board import BoardFacts, RuntimeOffer

Scenario = Literal["single_stream", "multi_stream", "offline", "server"]
Inputs = Literal["goldens", "random", "samples"]
#: One inference from the encoded picture to the report's bytes, in order.
BenchmarkStage = Literal["decode", "resize", "quantize", "invoke", "dequantize", "postprocess", "publish", "end_to_end"]
#: Why a cell has no figures.
Failure = Literal[
    "refused",  # the board does not try: more threads than cores, no such runtime
    "model",  # the runtime refuses the model, or a kernel fails
    "delegate",  # the delegate is missing, crashes, hangs or computes otherwise; without it would be another cell
    "wrong",  # the answers are not those of the host: goldens not reproduced, NaN
    "hung",  # no answer in time; ended
    "crashed",  # the process died; the signal is named
    "out_of_memory",  # it was killed for its memory, or reached the limit set for it
    "interrupted",  # the board or its agent was restarted, or the benchmark was cancelled
    "disk",  # the disk is full, or can't be written
]

MAX_CELLS = 256
MAX_RUNS = 10_000_000
MAX_SECONDS = 3600.0
MAX_LATENCIES = 100_000
MAX_ID = 128


def _check(*, holds: bool, message: str) -> None:
    if not holds:
        raise ValueError(message)


def _within(name: str, value: float, least: float, most: float) -> None:
    _check(holds=least <= value <= most, message=f"{name} must be {least:g}..{most:g}, not {value:g}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Configuration:
    """One way to run the model. `inference.runtime` `auto` is what the board would serve with."""

    inference: InferenceConfig = field(default_factory=InferenceConfig)
    #: Samples in one invoke; above 1 the model's inputs are resized.
    batch: int = 1

    def __post_init__(self) -> None:
        """Raise ValueError with the allowed range."""
        _within("batch", self.batch, 1, 1024)


@dataclass(frozen=True, slots=True, kw_only=True)
class Method:
    """How every cell of a request is measured."""

    scenario: Scenario = "single_stream"
    #: Both are reached before the first timed run.
    warmup_runs: int = 10
    warmup_seconds: float = 0.0
    #: Timed until both minima are reached, but never longer than `max_seconds`.
    min_runs: int = 662
    min_seconds: float = 1.0
    max_seconds: float = 30.0
    #: A pause after each run (`benchmark_model --run_delay`).
    run_delay_seconds: float = 0.0
    #: Runs begin at this rate; None is one after the other. A run that begins late is counted.
    rate_hz: float | None = None
    inputs: Inputs = "goldens"
    #: The timed runs rotate over so many inputs (goldens and samples: at most as many as there are).
    input_count: int = 8
    #: Of the random inputs and of Server's arrivals.
    seed: int = 0
    #: SHA-256 of the samples that were sent before, for `inputs = "samples"`.
    samples: str | None = None
    #: MultiStream: samples in one query.
    samples_per_query: int = 8
    #: Server: the rate of the Poisson arrivals; None searches for the highest that keeps the bound.
    qps: float | None = None
    #: Server: the p99 of the latency from the scheduled arrival must not exceed it.
    latency_bound_ms: float | None = None
    #: Time the stages around `invoke` as well, in a pass of their own.
    stages: bool = False
    #: Time the operators, in a pass of their own.
    profile: bool = False
    #: Run on for so long and report cold and steady latency; None is no such pass.
    sustained_seconds: float | None = None
    #: Wait before each cell until the processor is so cool, at most `cool_seconds`.
    cool_to_c: float | None = None
    cool_seconds: float = 300.0
    #: More than that of one core taken by any other process makes a cell invalid.
    max_other_cpu_percent: float = 10.0
    #: The process may take so much memory; None is no limit.
    max_rss_mib: float | None = None
    #: A report holds at most so many single latencies, evenly thinned; the figures are always of all of them.
    keep_latencies: int = 4000

    def __post_init__(self) -> None:
        """Raise ValueError with the field and its allowed range."""
        _within("warmup_runs", self.warmup_runs, 0, MAX_RUNS)
        _within("warmup_seconds", self.warmup_seconds, 0, MAX_SECONDS)
        _within("min_runs", self.min_runs, 1, MAX_RUNS)
        _within("max_seconds", self.max_seconds, 0.001, MAX_SECONDS)
        _within("min_seconds", self.min_seconds, 0, self.max_seconds)
        _within("run_delay_seconds", self.run_delay_seconds, 0, 60)
        _within("input_count", self.input_count, 1, 10_000)
        _within("seed", self.seed, 0, 2**63 - 1)
        _within("samples_per_query", self.samples_per_query, 1, 1024)
        _within("cool_seconds", self.cool_seconds, 0, MAX_SECONDS)
        _within("max_other_cpu_percent", self.max_other_cpu_percent, 0, 100_000)
        _within("keep_latencies", self.keep_latencies, 0, MAX_LATENCIES)
        for name, least, most in (
            ("rate_hz", 0.001, 1e6),
            ("qps", 0.001, 1e6),
            ("latency_bound_ms", 0.001, 1e6),
            ("sustained_seconds", 1, MAX_SECONDS),
            ("cool_to_c", 1, 120),
            ("max_rss_mib", 1, 1 << 20),
        ):
            value = getattr(self, name)
            if value is not None:
                _within(name, value, least, most)
        _check(
            holds=self.scenario != "server" or self.qps is not None or self.latency_bound_ms is not None,
            message="latency_bound_ms is missing: the server scenario without qps searches the rate that keeps it",
        )
        _check(
            holds=self.rate_hz is None or self.scenario == "single_stream",
            message=f"rate_hz is for single_stream; {self.scenario} decides itself when a run begins",
        )
        _check(
            holds=self.inputs != "samples" or self.samples is not None,
            message="samples is missing: inputs 'samples' needs the digest of those that were sent",
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchmarkRequest:
    """Sent to `command/benchmark`, or over the session. Without configurations: the one that serves."""

    request: str
    configurations: tuple[Configuration, ...] = ()
    method: Method = field(default_factory=Method)
    #: The bundle to measure, which must be on the board; None is the one that serves.
    bundle: str | None = None
    #: End the request of this id, if it is running; nothing else of this one counts then.
    cancel: bool = False

    def __post_init__(self) -> None:
        """Raise ValueError for what no board takes on."""
        length = len(self.request)
        _check(holds=0 < length <= MAX_ID, message=f"request must be 1..{MAX_ID} characters, not {length}")
        _within("configurations", len(self.configurations), 0, MAX_CELLS)


@dataclass(frozen=True, slots=True, kw_only=True)
class PercentileFigure:
    """One percentile (nearest rank), and what can be said of the true one at 99 % confidence.

    `value_ns` and `bound_ns` are None with fewer runs than `runs_needed`: no figure is better than a made-up one.
    """

    percent: float
    value_ns: int | None
    #: The true percentile is at most that (for those below 50: at least), at 99 % confidence.
    bound_ns: int | None
    runs_needed: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Distribution:
    """What some latencies are like, in nanoseconds. `std_ns` is of the sample (n - 1), `mad_ns` not scaled."""

    count: int
    mean_ns: float
    std_ns: float
    min_ns: int
    max_ns: int
    #: The middle one, for any number of runs.
    median_ns: int
    #: Median absolute deviation from the median.
    mad_ns: int
    #: p5, p50, p90, p95, p99, p99.9.
    percentiles: tuple[PercentileFigure, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Drift:
    """Whether latencies went up or down over the run: Mann-Kendall's test and Theil-Sen's slope on block medians."""

    #: From the beginning to the end, relative to the median; 0.05 is five per cent slower.
    change: float
    p_value: float
    drifting: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadTimes:
    """The steps to the first answer, apart."""

    #: Importing numpy and the runtime, in a process that has neither.
    import_ns: int
    #: Reading the model and building the interpreter.
    load_ns: int
    #: Loading and creating the delegate, without its trial in another process; None without one.
    delegate_ns: int | None
    #: Allocating tensors, where XNNPACK and delegates take their nodes and pack weights.
    allocate_ns: int
    first_inference_ns: int


@dataclass(frozen=True, slots=True, kw_only=True)
class StageFigures:
    """One stage's latencies."""

    stage: BenchmarkStage
    latency: Distribution


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerTrial:
    """Server: one rate that was tried. Latency is from the scheduled arrival to the answer."""

    qps: float
    latency: Distribution
    #: What the bound was held against: the bound of the p99, at 99 % confidence.
    kept: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class CoursePoint:
    """A moment of a sustained run."""

    at_s: float
    p50_ns: int
    temperature_c: float | None
    frequency_khz: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class SustainedFigures:
    """What heat does: latency at the beginning and when it does not change any more."""

    seconds: float
    cold_p50_ns: int
    steady_p50_ns: int
    #: Median latency and temperature over time: (seconds, nanoseconds, Celsius or None) for each of equal parts.
    course: tuple[CoursePoint, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class OperatorTime:
    """One line of a profile, with the columns of `benchmark_model`."""

    node_type: str
    name: str
    #: Of one call: the first, and on average; milliseconds.
    first_ms: float
    avg_ms: float
    #: In a run, on average and rounded: 0 is an operator that runs now and then only.
    times_called: int
    #: Whether XNNPACK or a delegate took this node, where that can be told.
    delegated: bool | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class OperatorProfile:
    """Where the time goes. How it was found out decides what it is worth, so it is said.

    `prefix_difference`: graphs that end with the k-th and with the k-1st operator are timed in turn; the difference is
    the k-th's.
    `benchmark_model`: the board's own program with its profiler.
    """

    method: Literal["prefix_difference", "benchmark_model"]
    xnnpack: bool
    operators: tuple[OperatorTime, ...]
    #: The whole model, timed in the same pass; the operators' sum should come near it.
    whole_ms: float
    #: What a reader must know.
    note: str
    #: benchmark_model: what it printed, when it could not be understood.
    text: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class BoardReading:
    """The board at one moment. None is what this board can't tell."""

    #: Seconds since the first timed run; negative before it.
    at_s: float
    temperature_c: float | None = None
    #: Per core, in kHz.
    frequencies_khz: tuple[int, ...] = ()
    governor: str | None = None
    #: Raspberry Pi's `vcgencmd get_throttled` bits.
    throttled: int | None = None
    #: The state of the cooling devices that slow the processor down; 0 is "not at all".
    cooling: int | None = None
    load_1min: float | None = None
    swap_used_bytes: int | None = None
    memory_available_bytes: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessLoad:
    """What another process took while a cell was timed; 100 is one whole core."""

    name: str
    pid: int
    cpu_percent: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Conditions:
    """Under which circumstances a cell was measured."""

    before: BoardReading
    after: BoardReading
    during: tuple[BoardReading, ...] = ()
    #: The busiest other processes, most first.
    others: tuple[ProcessLoad, ...] = ()
    #: Everything that was not this cell, kernel and short-lived processes included; 100 is one core.
    other_cpu_percent: float | None = None
    #: How long the board was waited for to cool down.
    cooled_s: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """Whether the figures may be quoted, and why not."""

    valid: bool
    #: What makes the figures invalid, one sentence each with its figures; empty when they are valid.
    reasons: tuple[str, ...] = ()
    #: What could not be checked on this board, and what a reader should know beside valid figures.
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Correctness:
    """What the answers were while the latencies were taken."""

    #: Golden vectors reproduced, of how many, and the worst difference.
    goldens: int
    goldens_total: int
    worst_lsb: int | None
    #: Labelled samples: right answers of how many; None without labels.
    right: int | None = None
    labelled: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ServingDuring:
    """How the model that serves fared while a cell was measured; the medians of its windows."""

    results: int
    errors: int
    p50_ns: int | None
    p99_ns: int | None
    #: Before the benchmark began.
    before_p50_ns: int | None
    before_p99_ns: int | None
    restarts: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class HarnessCost:
    """What measuring took per run, in nanoseconds: the loop around what is timed, and reading the clock twice."""

    loop_ns: int
    clock_ns: int
    #: Of both in `invoke`'s median.
    share: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """The figures of one cell. `latency` is of what the scenario times: a query, or Server's arrivals to answers."""

    runs: int
    seconds: float
    load: LoadTimes
    latency: Distribution
    #: SingleStream: of the invoke alone; the rest of a query is copying in and out.
    invoke: Distribution
    drift: Drift
    harness: HarnessCost
    samples_per_second: float
    cpu_seconds_per_inference: float
    peak_rss_bytes: int
    correctness: Correctness
    conditions: Conditions
    verdict: Verdict
    #: Every `thinning`-th invoke's latency, in order.
    latencies_ns: tuple[int, ...]
    thinning: int = 1
    #: Runs that began later than `rate_hz` wanted.
    late: int = 0
    #: Server: the highest rate that kept the bound (None when none did), and what was tried.
    qps: float | None = None
    trials: tuple[ServerTrial, ...] = ()
    stages: tuple[StageFigures, ...] = ()
    profile: OperatorProfile | None = None
    sustained: SustainedFigures | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CellError:
    """Why a cell has no figures, in one sentence."""

    kind: Failure
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchmarkCell:
    """One configuration's outcome: figures or an error, never both, never neither."""

    configuration: Configuration
    #: The runtime that ran, with its version.
    runtime: RuntimeOffer | None = None
    delegate_active: str | None = None
    #: Why the delegate that was asked for is not active.
    delegate_reason: str | None = None
    #: Nodes that XNNPACK or the delegate took, and all the model's nodes.
    nodes_delegated: int | None = None
    nodes_total: int | None = None
    error: CellError | None = None
    measurement: Measurement | None = None
    serving: ServingDuring | None = None

    def __post_init__(self) -> None:
        """Raise ValueError unless there is exactly one of error and measurement."""
        _check(
            holds=(self.error is None) != (self.measurement is None),
            message="a cell has an error or a measurement, and not both",
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """What was measured where: enough to tell two results apart, and to repeat one."""

    board: str
    facts: BoardFacts
    agent_version: str
    numpy: str
    bundle: str
    title: str
    model_sha256: str
    #: The kernel's clock source (`arch_sys_counter`, `tsc`), None when it can't be told.
    clock_source: str | None = None
    #: The board's revision code (Raspberry Pi), None elsewhere.
    revision: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchmarkReport:
    """One answer to a request: a cell that is done, or why nothing is measured at all.

    `position` counts from 1; with `error` set the request is over, whatever else it asked for.
    """

    #: The id of the request, and its method.
    request: str
    method: Method
    total: int
    position: int = 0
    identity: Identity | None = None
    cell: BenchmarkCell | None = None
    error: str | None = None

    @property
    def last(self) -> bool:
        """Whether nothing follows."""
        return self.error is not None or self.position >= self.total
