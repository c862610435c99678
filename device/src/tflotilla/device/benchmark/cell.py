"""Measures one cell: CellSpec in, BenchmarkCell out; every failure that this process survives becomes the cell's error.

Order: processors, cooling, import, delegate's trial, load, goldens, inputs, warm-up; then the board is watched and the
scenario timed; then the passes of their own (sustained, stages, operators, labelled samples), which disturb no figure.
The peak memory is read before the figures pile up: their memory is not the model's. What it does NOT do: survive a
crash or a hang (the supervisor reads the phases that were told), or decide what is measured.
"""

from __future__ import annotations

import errno
import itertools
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from tflotilla.device import facts, memory
from tflotilla.device.benchmark import loops, passes, setup
from tflotilla.device.benchmark.passes import Loaded
from tflotilla.device.bundle_folder import BundleFolder
from tflotilla.device.conditions import cooling, verdict
from tflotilla.device.conditions.watch import Watch
from tflotilla.device.reports import Phase
from tflotilla.shared import statistics
from tflotilla.shared.contract.benchmark import (
    BenchmarkCell,
    CellError,
    Correctness,
    HarnessCost,
    LoadTimes,
    Measurement,
    ServerTrial,
)
from tflotilla.shared.contract.errors import (
    BoardError,
    ConfigError,
    ContractError,
    DatasetError,
    DelegateError,
    ModelError,
    TflotillaError,
    VerificationError,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tflotilla.device.benchmark.loops import Calls, Limits, Record
    from tflotilla.device.benchmark.setup import Ready, Say
    from tflotilla.device.conditions.watch import Evidence
    from tflotilla.device.reports import CellSpec
    from tflotilla.shared.contract.benchmark import Failure, Method
    from tflotilla.shared.inference.runtime import Tensor

    Tensors = tuple[Tensor, ...]

_NS = 1_000_000_000
#: Beside waiting for the processor to cool.
_SLACK_S = 60.0
#: Computing the figures of two million runs on a slow board.
_FIGURES_S = 300.0
#: Which kind of failure an error is; the first that fits.
_KINDS: tuple[tuple[type[Exception], Failure], ...] = (
    (DelegateError, "delegate"),
    (DatasetError, "refused"),
    (BoardError, "refused"),
    (ConfigError, "refused"),
    (ModelError, "model"),
    (VerificationError, "model"),
    (ContractError, "model"),
    (MemoryError, "out_of_memory"),
)


def measure(spec: CellSpec, say: Say = lambda _: None) -> BenchmarkCell:
    """Measure; `say` hears each phase as it begins."""
    cell = _Cell(spec, say)
    try:
        return cell.measure()
    except MemoryError:
        return cell.failed("out_of_memory", f"no memory left {cell.doing}")
    except TflotillaError as error:
        return cell.failed(next((kind for base, kind in _KINDS if isinstance(error, base)), "model"), str(error))
    except (ValueError, RuntimeError) as error:
        # What the bare calls of a runtime raise: a tensor that doesn't fit, a kernel that fails.
        return cell.failed("model", f"{' '.join(str(error).split()) or type(error).__name__} ({cell.doing})")
    except OSError as error:
        kind: Failure = "disk" if error.errno == errno.ENOSPC else "refused"
        return cell.failed(kind, f"{error.strerror or error} ({cell.doing})")


class _Cell:
    """One measurement, step by step."""

    def __init__(self, spec: CellSpec, say: Say) -> None:
        self._spec = spec
        self._method: Method = spec.method
        self._batch = spec.configuration.batch
        self._tell = say
        self._ready: Ready | None = None
        self.doing = "while starting"

    def failed(self, kind: Failure, message: str) -> BenchmarkCell:
        """Return the cell without figures, with what is known of it."""
        inference = self._spec.configuration.inference
        ready = self._ready
        return BenchmarkCell(
            configuration=self._spec.configuration,
            runtime=facts.offer(inference.runtime) if ready is None else ready.runtime,
            delegate_active=None if ready is None else ready.delegate.active,
            delegate_reason=message if kind == "delegate" else None,
            nodes_delegated=None if ready is None else ready.nodes_taken,
            nodes_total=None if ready is None else ready.nodes_total,
            error=CellError(kind=kind, message=message),
        )

    def measure(self) -> BenchmarkCell:
        """Do all of it."""
        spec, method = self._spec, self._method
        inference = spec.configuration.inference
        setup.prepare_process(inference.affinity)
        watch = Watch(threads=inference.num_threads, cores=inference.affinity, clock=time.perf_counter_ns)
        cooled_s = 0.0
        if method.cool_to_c is not None:
            self._say("waiting for the processor to cool", method.cool_seconds + _SLACK_S)
            cooled_s = cooling.wait(method.cool_to_c, limit_s=method.cool_seconds).seconds
        watch.prepare()
        from tflotilla.device.benchmark.correctness import WrongAnswersError

        try:
            loaded = self._load()
        except WrongAnswersError as error:
            return self.failed("wrong", str(error))
        watch.begin()
        timed = self._time_server(loaded, watch) if method.scenario == "server" else self._time(loaded, watch)
        evidence = watch.end(cooled_s=cooled_s)
        measurement = self._measurement(loaded, timed, evidence)
        measurement = passes.add(loaded, measurement, spec, self._limits(), self._hear)
        ready = loaded.ready
        return BenchmarkCell(
            configuration=spec.configuration,
            runtime=ready.runtime,
            delegate_active=ready.delegate.active,
            nodes_delegated=ready.nodes_taken,
            nodes_total=ready.nodes_total,
            measurement=measurement,
        )

    def _say(self, doing: str, at_most_s: float) -> None:
        self.doing = f"while {doing}"
        self._tell(Phase(doing=doing, at_most_s=at_most_s))

    def _hear(self, phase: Phase) -> None:
        self._say(phase.doing, phase.at_most_s)

    def _load(self) -> Loaded:
        spec, method = self._spec, self._method
        bundle = BundleFolder.open(Path(spec.bundle))
        # The file is read here once: what is timed later is not the card.
        model_file = bundle.model()
        self._ready = ready = setup.load(spec, bundle, model_file, self._hear)
        from tflotilla.device.benchmark import correctness, inputs
        from tflotilla.shared.inference import goldens

        patience_s = setup.patience_s(spec)
        vectors = goldens.load(bundle.goldens())
        # The delegate's name stands in the phase: who dies or hangs here dies of it.
        with_delegate = " with the delegate" if ready.delegate.active else ""
        reproduced = correctness.reproduce(
            ready.model,
            vectors,
            bundle.manifest.goldens,
            batch=self._batch,
            specs=bundle.manifest.outputs,
            # Each by itself: a model that hangs is found out after one patience, not after eight.
            begins=lambda: self._say(f"running the golden vectors{with_delegate}", patience_s),
        )
        peak = facts.peak_rss_bytes()
        about_ns = reproduced.first_inference_ns
        samples = sample = None
        if spec.samples is not None:
            from tflotilla.shared.inference import sample_set

            self._say("reading the samples", _SLACK_S)
            samples = sample_set.load(Path(spec.samples))
            sample = inputs.sample_reader(samples, bundle.manifest)
        self._say("preparing the inputs", _SLACK_S + patience_s)
        rows = inputs.rotation(
            method, self._batch, goldens=vectors.inputs, sample=sample, sample_count=len(samples) if samples else 0
        )
        self._say("checking the answers", patience_s + len(rows) * 2 * about_ns / _NS)
        correctness.check_finite(ready.model, rows)
        found, alone = setup.calls(ready.model)
        calls = loops.Calls(*found)
        feed: Sequence[Any] = [row[0] for row in rows] if alone else rows
        # As the worker does before it serves: no collector interrupts a run.
        memory.settle()
        about_ns = self._warm_up(calls, feed, about_ns)
        return Loaded(
            ready=ready,
            bundle=bundle,
            calls=calls,
            feed=feed,
            rows=rows,
            reproduced=reproduced,
            samples=samples,
            sample=sample,
            about_ns=about_ns,
            peak_rss_bytes=peak,
        )

    def _warm_up(self, calls: Calls, feed: Sequence[Any], about_ns: int) -> int:
        method = self._method
        if not method.warmup_runs and not method.warmup_seconds:
            return about_ns
        self._say("warming up", setup.patience_s(self._spec) + method.warmup_seconds)
        limits = loops.Limits(
            min_runs=max(1, method.warmup_runs),
            min_ns=int(method.warmup_seconds * _NS),
            max_ns=int(max(method.max_seconds, method.warmup_seconds) * _NS),
        )
        record = loops.run(calls, itertools.cycle(feed), limits)
        return sorted(record.invokes)[len(record.invokes) // 2]

    def _limits(self) -> Limits:
        method = self._method
        return loops.Limits(
            min_runs=method.min_runs, min_ns=int(method.min_seconds * _NS), max_ns=int(method.max_seconds * _NS)
        )

    def _time(self, loaded: Loaded, watch: Watch) -> _Timed:
        method = self._method
        self._say("timing", setup.patience_s(self._spec) + 3 * loaded.about_ns / _NS)
        waiter, look = loops.Waiter(), _Look(watch)
        inputs: Iterator[Any] = itertools.cycle(loaded.feed)
        each = -(-method.samples_per_query // self._batch) if method.scenario == "multi_stream" else 1
        pace = None
        if method.rate_hz is not None:
            pace = loops.Pace(period_ns=int(_NS / method.rate_hz))
        elif method.run_delay_seconds:
            pace = loops.Pace(delay_ns=int(method.run_delay_seconds * _NS))
        begin_cpu = time.process_time_ns()
        record = loops.run(
            loaded.calls, inputs, self._limits(), pace=pace, invokes_per_query=each, between=look, wait=waiter
        )
        cpu_ns = time.process_time_ns() - begin_cpu - waiter.cpu_ns - look.cpu_ns
        per_query = method.samples_per_query if method.scenario == "multi_stream" else self._batch
        return _Timed(record=record, cpu_ns=max(0, cpu_ns), samples=record.runs * per_query)

    def _time_server(self, loaded: Loaded, watch: Watch) -> _Timed:
        from tflotilla.device.benchmark import arrivals

        method, limits = self._method, self._limits()
        bound_ns = None if method.latency_bound_ms is None else int(method.latency_bound_ms * 1e6)
        searching = method.qps is None
        if searching and bound_ns is not None:
            limits = arrivals.long_enough(limits, bound_ns)
        inputs: Iterator[Any] = itertools.cycle(loaded.feed)
        trials: list[ServerTrial] = []
        best: _Timed | None = None

        def keeps(qps: float) -> bool:
            nonlocal best
            self._say(f"serving {qps:.4g} queries a second", setup.patience_s(self._spec) + 3 * loaded.about_ns / _NS)
            waiter, look = loops.Waiter(), _Look(watch)
            begin_cpu = time.process_time_ns()
            trial = arrivals.run(
                loaded.calls,
                inputs,
                qps=qps,
                seed=method.seed,
                limits=limits,
                bound_ns=bound_ns if searching else None,
                wait=waiter,
                between=look,
            )
            cpu_ns = time.process_time_ns() - begin_cpu - waiter.cpu_ns - look.cpu_ns
            record = trial.record
            latency = statistics.distribution(record.queries)
            bound = next(figure.bound_ns for figure in latency.percentiles if figure.percent == 99)  # noqa: PLR2004
            kept = not trial.hopeless and (bound_ns is None or (bound is not None and bound <= bound_ns))
            trials.append(ServerTrial(qps=qps, latency=latency, kept=kept))
            timed = _Timed(
                record=record, cpu_ns=max(0, cpu_ns), samples=record.runs * self._batch, offered=qps, kept=kept
            )
            best = timed if best is None else _better(best, timed)
            return kept

        if method.qps is not None:
            keeps(method.qps)
        else:
            arrivals.search(self._service_ns(loaded), limits, keeps)
        assert best is not None  # noqa: S101 - at least one rate is tried
        return best._replace(trials=tuple(trials))

    def _service_ns(self, loaded: Loaded) -> int:
        """Return what a query takes that doesn't wait: a search begins there."""
        self._say("finding out what a query takes", setup.patience_s(self._spec))
        most_ns = min(_NS, int(self._method.max_seconds * _NS))
        limits = loops.Limits(min_runs=11, min_ns=most_ns // 4, max_ns=most_ns)
        record = loops.run(loaded.calls, itertools.cycle(loaded.feed), limits)
        return record.timed_ns // record.runs

    def _measurement(self, loaded: Loaded, timed: _Timed, evidence: Evidence) -> Measurement:
        method, record, ready = self._method, timed.record, loaded.ready
        self._say("computing the figures", _FIGURES_S)
        latency = statistics.distribution(record.queries)
        invoke = statistics.distribution(record.invokes)
        drift = statistics.drift(record.queries)
        loop_ns = max(0, record.elapsed_ns - record.waited_ns - record.timed_ns) // record.runs
        clock_ns = loops.clock_cost_ns()
        stride = -(-len(record.invokes) // method.keep_latencies) if method.keep_latencies else 0
        # Offline is quoted by what comes out in all, Server by what came in; the others by what a query takes.
        busy_ns = {"offline": record.elapsed_ns - record.waited_ns, "server": record.elapsed_ns}.get(
            method.scenario, record.timed_ns
        )
        return Measurement(
            runs=record.runs,
            seconds=record.elapsed_ns / _NS,
            load=LoadTimes(
                import_ns=ready.import_ns,
                load_ns=ready.steps.build_ns,
                delegate_ns=ready.steps.delegate_ns,
                allocate_ns=ready.steps.allocate_ns,
                first_inference_ns=loaded.reproduced.first_inference_ns,
            ),
            latency=latency,
            invoke=invoke,
            drift=drift,
            harness=HarnessCost(
                loop_ns=loop_ns, clock_ns=clock_ns, share=(loop_ns + clock_ns) / max(1, invoke.median_ns)
            ),
            samples_per_second=timed.samples * _NS / max(1, busy_ns),
            cpu_seconds_per_inference=timed.cpu_ns / _NS / max(1, timed.samples),
            peak_rss_bytes=loaded.peak_rss_bytes,
            correctness=Correctness(
                goldens=loaded.reproduced.count,
                goldens_total=loaded.reproduced.count,
                worst_lsb=loaded.reproduced.worst_lsb,
            ),
            conditions=evidence.conditions,
            verdict=verdict.judge(evidence, method=method, latency=latency, drift=drift, late=record.late),
            latencies_ns=tuple(record.invokes[::stride]) if stride else (),
            thinning=max(1, record.thinning * stride),
            late=record.late,
            qps=timed.offered if timed.kept else None,
            trials=timed.trials,
        )


class _Timed(NamedTuple):
    """What the timed pass gave."""

    record: Record
    cpu_ns: int
    samples: int
    #: Server: the rate of it, whether it kept the bound, and all rates that were tried.
    offered: float | None = None
    kept: bool = False
    trials: tuple[ServerTrial, ...] = ()


def _better(one: _Timed, other: _Timed) -> _Timed:
    """Return the higher rate of those that kept the bound; while none did, the lower one, which came nearest."""
    if one.kept != other.kept:
        return one if one.kept else other
    by_rate = sorted((one, other), key=lambda timed: timed.offered or 0.0)
    return by_rate[-1] if one.kept else by_rate[0]


class _Look:
    """Looks at the board between runs, and counts what that takes of the processor."""

    def __init__(self, watch: Watch) -> None:
        self._watch = watch
        self.cpu_ns = 0

    def __call__(self, now_ns: int) -> None:
        begin = time.thread_time_ns()
        self._watch.look(now_ns)
        self.cpu_ns += time.thread_time_ns() - begin
