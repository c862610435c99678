"""Find the fastest configuration of a model on a board: successive halving. Pure; who measures is given.

    every cell, briefly → the best quarter, longer → the best of those, as long as a benchmark → the pick

Rules it keeps:
- cells of a rung run in an order that the seed shuffles, so that no neighbour and no heat favours the same one twice;
- cells of one rung are ranked by the same statistic, one that all of them have runs enough for; in short rungs by a
  median where a mean is wished for: one hiccup among five runs is no reason to be out;
- a cell whose answers are wrong, whose delegate is not used, or that breaks a constraint loses, however fast it is;
- a constraint holds where it was shown to hold: a p99 that has too few runs is no p99 below the limit;
- for every cell it says why it is out, in one sentence with the figures.

What it does NOT do: measure, remember (`fleet.tuned`), or print. Source of the method: Jamieson and Talwalkar,
"Non-stochastic Best Arm Identification and Hyperparameter Optimization" (2016).
"""

from __future__ import annotations

import dataclasses
import math
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from tflotilla.host.benchmarks import matrix
from tflotilla.shared.contract.benchmark import BenchmarkCell, Configuration, Method
from tflotilla.shared.contract.errors import BoardError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from tflotilla.shared.contract.agent_config import InferenceConfig
    from tflotilla.shared.contract.benchmark import Measurement
    from tflotilla.shared.contract.board import BoardFacts

Objective = Literal["p50", "p90", "p99", "mean", "throughput", "cpu"]
#: What short rungs are ranked by in place of a mean.
_ROBUST = {"mean": "p50", "throughput": "p50 a sample"}
OBJECTIVES: tuple[Objective, ...] = ("p50", "p90", "p99", "mean", "throughput", "cpu")
#: Cells come back in the order in which they are given, each measured by the method in a process of its own.
Measure = Callable[[tuple[Configuration, ...], Method], tuple[BenchmarkCell, ...]]

_MS = 1e6
_MIB = 1 << 20
#: So near to the best, the one that takes less of the board is the better pick.
TIE = 0.01
_LEAST_RUNS = 5
_WARMUP_RUNS = 3
_P90_RUNS, _P99_RUNS = 64, 662
#: Up to so many cells are measured in full at once; up to so many more after one short rung.
_FEW, _SOME = 3, 8
_SCREEN_OF_SOME, _SCREEN_OF_MANY, _SEMIFINAL = 1 / 8, 1 / 40, 1 / 8
#: A process that takes long to start is worth measuring longer: starting 24 of them would cost more than they tell.
_TIMES_OVERHEAD, _MOST_STRETCHED_S = 7.0, 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What is to be found, and what it must keep to."""

    objective: Objective = "p50"
    max_p99_ms: float | None = None
    max_rss_mib: float | None = None
    #: Processors that the model must leave to others.
    leave_cores: int = 0
    seed: int = 0

    @property
    def min_runs(self) -> int:
        """How many runs the figures take that are asked for."""
        return _P99_RUNS if self.objective == "p99" or self.max_p99_ms is not None else _P90_RUNS


@dataclass(frozen=True, slots=True, kw_only=True)
class Rung:
    """One round: how it is measured, and how many go on to the next (of the last: one)."""

    method: Method
    keep: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One configuration, how far it came, and why not further."""

    configuration: Configuration
    #: Counted from 1; 0 was never measured.
    rung: int = 0
    cell: BenchmarkCell | None = None
    #: Why it is out of the search; None is still in it.
    out: str | None = None
    #: Out because it can't be served so, and not because others are faster.
    disqualified: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Search:
    """A search at one moment: `due` says what to measure next, `hearing` takes the answers."""

    wish: Wish
    rungs: tuple[Rung, ...]
    entries: tuple[Entry, ...]
    #: The rung that is due, counted from 0.
    at: int = 0
    #: Measure longer in the later rungs where starting a process takes long.
    stretch: bool = False
    #: The statistic that each finished rung was ranked by.
    ranked_by: tuple[str, ...] = ()

    @property
    def finished(self) -> bool:
        """Whether nothing is to be measured any more."""
        return self.at >= len(self.rungs) or not any(entry.out is None for entry in self.entries)

    def due(self) -> tuple[tuple[Configuration, ...], Method]:
        """Return what the next rung measures, in its shuffled order, and how."""
        order = self._order()
        return tuple(self.entries[n].configuration for n in order), self.rungs[self.at].method

    def hearing(self, cells: Sequence[BenchmarkCell], *, seconds: float | None = None) -> Search:
        """Return the search after the cells of `due`, in its order, which took so long.

        Raises:
            BoardError: some are missing.

        """
        order = self._order()
        if len(cells) != len(order):
            raise BoardError(f"{len(order)} configurations were asked for and {len(cells)} measured; tune again")
        entries = list(self.entries)
        for n, cell in zip(order, cells, strict=True):
            reason = disqualification(cell, self.wish)
            entries[n] = dataclasses.replace(
                entries[n], rung=self.at + 1, cell=cell, out=reason, disqualified=reason is not None
            )
        last = self.at + 1 == len(self.rungs)
        objective = self.wish.objective if last else _ROBUST.get(self.wish.objective, self.wish.objective)
        statistic = _statistic(objective, [entries[n] for n in order if entries[n].out is None])
        staying = [n for n in order if entries[n].out is None]
        staying.sort(key=lambda n: _score(entries[n], statistic))
        if not last:
            kept = _kept(staying, entries, self.rungs[self.at].keep)
            cut = _score(entries[kept[-1]], statistic) if kept else math.inf
            for n in staying:
                if n not in kept:
                    own = words(_score(entries[n], statistic), statistic)
                    behind = f"{statistic} {own}, the last that went on {words(cut, statistic)}"
                    entries[n] = dataclasses.replace(entries[n], out=f"slower in round {self.at + 1}: {behind}")
        return dataclasses.replace(
            self,
            rungs=self._stretched(cells, seconds),
            entries=tuple(entries),
            at=self.at + 1,
            ranked_by=(*self.ranked_by, statistic),
        )

    def _stretched(self, cells: Sequence[BenchmarkCell], seconds: float | None) -> tuple[Rung, ...]:
        """Return the rungs, after the first with more time where each process takes long to start."""
        if not self.stretch or seconds is None or self.at != 0 or len(self.rungs) == 1:
            return self.rungs
        timed = sum(cell.measurement.seconds for cell in cells if cell.measurement is not None)
        overhead = max(0.0, seconds - timed) / len(cells)
        full = self.rungs[-1].method
        wanted = max(full.min_seconds, min(_TIMES_OVERHEAD * overhead, _MOST_STRETCHED_S))
        longer = dataclasses.replace(full, min_seconds=wanted, max_seconds=max(full.max_seconds, wanted))
        return self.rungs[:1] + _rungs(len(self.entries), longer)[1:]

    def _order(self) -> list[int]:
        order = [n for n, entry in enumerate(self.entries) if entry.out is None]
        random.Random(f"{self.wish.seed}/{self.at}").shuffle(order)  # noqa: S311 - an order, no secret
        return order


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What a search came to."""

    #: The pick; None when nothing keeps to the constraints.
    best: Entry | None
    #: The pick among those that run one sample at a time, as serving does.
    served: Entry | None
    #: For each runtime, the best that can be served with it, of what was measured.
    by_runtime: tuple[Entry, ...]
    #: All cells, best first: who came further, and of those who was faster.
    ranking: tuple[Entry, ...]
    #: What the pick is the best by: `p99`, or `p50` where a p99 could not be shown.
    statistic: str
    #: Sentences for people.
    explanation: tuple[str, ...] = field(default=())


def cells(axes: matrix.Axes, facts: BoardFacts, wish: Wish, *, bind: bool = False) -> tuple[Configuration, ...]:
    """Return the configurations that are worth a try on a board: those it can run, each way to run once.

    With `bind`, also every number of threads bound to as many processors, the last ones: the first takes most
    interrupts.

    Raises:
        UsageError: nothing is left, or more than a board takes on.
        BoardError: the board has no runtime.

    """
    free = facts.cores - wish.leave_cores
    if free < 1:
        raise UsageError(
            f"--leave-cores {wish.leave_cores} leaves nothing of the {facts.cores} cores of {facts.hostname}"
        )
    names = {offer.name for offer in facts.runtimes}
    if axes.runtimes and not names & set(axes.runtimes):
        raise UsageError(
            f"{facts.hostname} has {', '.join(sorted(names)) or 'no runtime'}, and not {', '.join(axes.runtimes)}"
        )
    if facts.runtimes:
        axes = dataclasses.replace(axes, runtimes=tuple(name for name in axes.runtimes if name in names))
    last = {count: tuple(range(facts.cores - count, facts.cores)) for count in range(1, facts.cores)} if bind else {}
    # Bound to all processors is not bound, where that is tried as well.
    unbound = tuple(range(facts.cores)) if () in axes.affinities else None
    wider = dataclasses.replace(axes, affinities=tuple(dict.fromkeys((*axes.affinities, *last.values()))))
    found = tuple(
        configuration
        for configuration in matrix.configurations(wider, facts)
        if _runs(configuration.inference, free)
        and configuration.inference.affinity != unbound
        and (
            configuration.inference.affinity in axes.affinities
            or configuration.inference.affinity == last.get(configuration.inference.num_threads)
        )
    )
    if not found:
        may = f"{facts.hostname} may use {free} of its {facts.cores} cores"
        raise UsageError(f"{may}: every configuration takes more threads than that, or than processors of --affinity")
    return found


def begin(configurations: Sequence[Configuration], method: Method, wish: Wish, *, stretch: bool = False) -> Search:
    """Return the search over these; `method` is how a whole benchmark would measure each.

    With `stretch`, later rounds take longer where starting a process does: that bounds what starting may cost.
    """
    full = dataclasses.replace(method, min_runs=max(method.min_runs, wish.min_runs))
    return Search(
        wish=wish,
        rungs=_rungs(len(configurations), full),
        entries=tuple(Entry(configuration=configuration) for configuration in configurations),
        stretch=stretch,
    )


def run(
    search: Search,
    measure: Measure,
    *,
    on_rung: Callable[[Search], None] = lambda _search: None,
    clock: Callable[[], float] = time.monotonic,
) -> Search:
    """Measure rung by rung to the end; `on_rung` hears of each before it begins."""
    while not search.finished:
        on_rung(search)
        began = clock()
        cells = measure(*search.due())
        search = search.hearing(cells, seconds=clock() - began)
    return search


def conclude(search: Search) -> Found:
    """Return the pick of a finished search, and why it is that one."""
    wish = search.wish
    reached = max((entry.rung for entry in search.entries if not entry.disqualified), default=0)
    finalists = [entry for entry in search.entries if entry.out is None and entry.rung == reached]
    statistic = search.ranked_by[-1] if search.ranked_by else wish.objective
    proven = [entry for entry in finalists if _unproven(entry, wish) is None]
    best = _pick(proven, statistic)
    served = _pick([entry for entry in proven if entry.configuration.batch == 1], statistic)
    by_runtime = _by_runtime(search, served, statistic)
    return Found(
        best=best,
        served=served,
        by_runtime=by_runtime,
        ranking=_ranking(search, statistic),
        statistic=statistic,
        explanation=tuple(_explanation(search, best, served, finalists, statistic)),
    )


def disqualification(cell: BenchmarkCell, wish: Wish) -> str | None:
    """Say why a cell can't be the pick whatever its speed; None when it can."""
    if cell.error is not None:
        kind, message = cell.error.kind, cell.error.message
        return message if message.startswith(kind) else f"{kind}: {message}"
    measured = cell.measurement
    if measured is None:
        return "it was not measured"
    correct = measured.correctness
    if correct.goldens < correct.goldens_total:
        return f"wrong: {correct.goldens} of {correct.goldens_total} golden vectors are reproduced"
    if cell.configuration.inference.delegate is not None and cell.delegate_active is None:
        return f"delegate: it is not used ({cell.delegate_reason or 'no reason given'})"
    return _broken_limit(measured, wish)


def _broken_limit(measured: Measurement, wish: Wish) -> str | None:
    rss_mib = measured.peak_rss_bytes / _MIB
    if wish.max_rss_mib is not None and rss_mib > wish.max_rss_mib:
        return f"memory: {rss_mib:.1f} MiB, at most {wish.max_rss_mib:g} MiB may be"
    if wish.max_p99_ms is not None:
        # The p99 is never below a lower percentile: what already breaks the limit needs no more runs.
        named, value_ns = _highest(measured)
        if value_ns / _MS > wish.max_p99_ms:
            return f"{named} {value_ns / _MS:.3f} ms, at most {wish.max_p99_ms:g} ms may be"
    return None


def value(measured: Measurement, statistic: str, *, batch: int = 1) -> float | None:
    """Return a statistic, the smaller the better: nanoseconds, of one sample where it is `throughput` or `cpu`.

    `p50 a sample` is the median of a run by the samples in it. None where the runs were too few for it.
    """
    if statistic == "p50 a sample":
        return measured.latency.median_ns / batch
    if statistic == "throughput":
        return 1e9 / measured.samples_per_second if measured.samples_per_second > 0 else None
    if statistic == "cpu":
        return measured.cpu_seconds_per_inference * 1e9
    if statistic == "mean":
        return measured.latency.mean_ns
    if statistic == "p50":
        return float(measured.latency.median_ns)
    return _percentile(measured, float(statistic.removeprefix("p")))


def _runs(inference: InferenceConfig, free: int) -> bool:
    # More threads than processors is a cliff: tflite-runtime takes 100 times as long.
    return inference.num_threads <= free and (
        not inference.affinity or inference.num_threads <= len(inference.affinity) <= free
    )


def _rungs(count: int, full: Method) -> tuple[Rung, ...]:
    last = Rung(method=full, keep=1)
    quarter = max(2, math.ceil(count / 4))
    if count <= _FEW:
        return (last,)
    if count <= _SOME:
        return Rung(method=_shortened(full, _SCREEN_OF_SOME), keep=quarter), last
    return (
        Rung(method=_shortened(full, _SCREEN_OF_MANY), keep=quarter),
        Rung(method=_shortened(full, _SEMIFINAL), keep=max(2, math.ceil(count / 12))),
        last,
    )


def _shortened(full: Method, share: float) -> Method:
    """Return a method that takes that share of the time; nothing but latencies is of interest yet."""
    min_seconds = full.min_seconds * share
    return dataclasses.replace(
        full,
        min_runs=min(full.min_runs, max(_LEAST_RUNS, int(full.min_runs * share))),
        min_seconds=min_seconds,
        max_seconds=max(full.max_seconds * share, min_seconds, 0.001),
        warmup_runs=min(full.warmup_runs, _WARMUP_RUNS),
        warmup_seconds=full.warmup_seconds * share,
        stages=False,
        profile=False,
        sustained_seconds=None,
        keep_latencies=0,
    )


def _statistic(objective: str, entries: Iterable[Entry]) -> str:
    """Return what a rung is ranked by: the objective, or the highest percentile below it that all have runs for."""
    lower = {"p99": ("p99", "p90", "p50"), "p90": ("p90", "p50")}.get(objective, (objective,))
    measured = [entry.cell.measurement for entry in entries if entry.cell is not None and entry.cell.measurement]
    for candidate in lower:
        if all(value(each, candidate) is not None for each in measured):
            return candidate
    return lower[-1]


def _kept(ordered: list[int], entries: Sequence[Entry], keep: int) -> list[int]:
    """Return the first so many, and the first that can be served: with batches only, nothing would be."""
    kept = ordered[:keep]
    if not any(entries[n].configuration.batch == 1 for n in kept):
        kept += [n for n in ordered[keep:] if entries[n].configuration.batch == 1][:1]
    return kept


def _pick(entries: Sequence[Entry], statistic: str) -> Entry | None:
    """Return the best; of those that are as good within `TIE`, the one that takes the fewest processors."""
    if not entries:
        return None
    least = min(_score(entry, statistic) for entry in entries)
    near = [entry for entry in entries if _score(entry, statistic) <= least * (1 + TIE)]
    return min(near, key=lambda entry: (*_burden(entry), _score(entry, statistic)))


def _burden(entry: Entry) -> tuple[int, float]:
    measured = entry.cell.measurement if entry.cell is not None else None
    return entry.configuration.inference.num_threads, measured.cpu_seconds_per_inference if measured else math.inf


def _unproven(entry: Entry, wish: Wish) -> str | None:
    """Say which constraint was not shown to hold, None when all were."""
    measured = entry.cell.measurement if entry.cell is not None else None
    if wish.max_p99_ms is None or measured is None or _percentile(measured, 99) is not None:
        return None
    return f"{measured.latency.count} of the {_P99_RUNS} runs that a p99 takes"


def _by_runtime(search: Search, served: Entry | None, statistic: str) -> tuple[Entry, ...]:
    found: dict[str, Entry] = {}
    fitting = [
        entry
        for entry in search.entries
        if entry.rung > 0
        and not entry.disqualified
        and entry.configuration.batch == 1
        and _unproven(entry, search.wish) is None
    ]
    for name in dict.fromkeys(entry.configuration.inference.runtime for entry in fitting):
        of_it = [entry for entry in fitting if entry.configuration.inference.runtime == name]
        furthest = max(entry.rung for entry in of_it)
        best = _pick([entry for entry in of_it if entry.rung == furthest], statistic)
        if best is not None:
            found[name] = best
    if served is not None:
        found[served.configuration.inference.runtime] = served
    return tuple(found.values())


def _ranking(search: Search, statistic: str) -> tuple[Entry, ...]:
    def place(entry: Entry) -> tuple[bool, int, float]:
        return entry.disqualified, -entry.rung, _score(entry, statistic)

    return tuple(sorted(search.entries, key=place))


def _explanation(
    search: Search, best: Entry | None, served: Entry | None, finalists: Sequence[Entry], statistic: str
) -> Iterable[str]:
    wish, count = search.wish, len(search.entries)
    sizes = [sum(entry.rung > n for entry in search.entries) for n in range(search.at)]
    rounds = "in one round" if len(sizes) == 1 else f"{' → '.join(map(str, sizes))} in rounds of growing length"
    yield f"{count} configuration{'' if count == 1 else 's'}, {rounds}, order by seed {wish.seed}"
    wrong = sum(entry.disqualified for entry in search.entries)
    if wrong:
        yield f"{wrong} of {count} can't be served so, whatever their speed"
    if statistic != wish.objective:
        yield f"ranked by {statistic}: not all had runs enough for {wish.objective}; give --max-seconds more"
    if best is None:
        for entry in finalists:
            if (reason := _unproven(entry, wish)) is not None:
                yield f"--max-p99 {wish.max_p99_ms:g} ms was not shown to hold: {reason}; give --max-seconds more"
                break
        return
    measured = best.cell.measurement if best.cell is not None else None
    if measured is not None and not measured.verdict.valid:
        yield f"the pick's figures are INVALID: {'; '.join(measured.verdict.reasons)}"
    if best is not served:
        kept = "nothing is kept; try --batch 1, too" if served is None else "what is kept is the best of those"
        yield f"the pick runs several samples at once, serving runs one: {kept}"
    others = [entry for entry in finalists if entry is not best and _score(entry, statistic) < _score(best, statistic)]
    if others:
        yield f"within {TIE:.0%} of the fastest, the pick takes less of the board"
    if measured is not None and wish.max_p99_ms is not None:
        bound = next((each.bound_ns for each in measured.latency.percentiles if each.percent == 99), None)  # noqa: PLR2004
        if bound is not None and bound / _MS > wish.max_p99_ms:
            yield f"its p99 keeps {wish.max_p99_ms:g} ms; at 99 % confidence it is at most {bound / _MS:.3f} ms"


def _highest(measured: Measurement) -> tuple[str, float]:
    for percent in (99.0, 90.0):
        if (found := _percentile(measured, percent)) is not None:
            return f"p{percent:g}", found
    return "p50", float(measured.latency.median_ns)


def _percentile(measured: Measurement, percent: float) -> float | None:
    found = next((each for each in measured.latency.percentiles if each.percent == percent), None)
    return None if found is None or found.value_ns is None else float(found.value_ns)


def _score(entry: Entry, statistic: str) -> float:
    measured = entry.cell.measurement if entry.cell is not None else None
    found = None if measured is None else value(measured, statistic, batch=entry.configuration.batch)
    return math.inf if found is None else found


def words(figure: float, statistic: str) -> str:
    """Return a statistic's value for people: milliseconds, or samples per second."""
    if not math.isfinite(figure):
        return "none"
    if statistic == "throughput":
        return f"{1e9 / figure:.1f}/s"
    return f"{figure / _MS:.3f} ms"
