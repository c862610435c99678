"""Where a model's time goes, operator by operator, found out with runtimes that have no profiler for Python.

For each operator two graphs are cut out of the model: one that ends with it and one that ends before it, both beginning
some operators earlier. They run in turn; the median of the paired differences is the operator's time. Where there is
time for it the whole model runs before each pair: caches are then what they are in earnest.

What it is worth, and what each profile says of itself:
- it is a difference of two graphs: what an operator saves its neighbours (a fusion, a copy that is not needed) is
  counted where the graph was cut; below zero it is shown as zero, and their number is said;
- with one thread it is processor time, which waiting for a core does not lengthen; with more, or a delegate, it is
  time that passes;
- the sum, and what a call without any operator takes, is held against the whole model, timed by the same clock
  between all these runs.

When the time does not suffice for every cut, or a runtime refuses one, operators in a row share one line. What it does
NOT do: survive a runtime that crashes on a cut (`profiling` gives it a process of its own).
"""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

from tflotilla.device.benchmark import graph_windows
from tflotilla.shared.contract.benchmark import OperatorProfile, OperatorTime
from tflotilla.shared.contract.errors import ModelError, TflotillaError
from tflotilla.shared.inference import runtime
from tflotilla.shared.inference.runtime import Delegate, Inspectable, LoadOptions, Node

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from tflotilla.device.benchmark.graph_windows import Graph
    from tflotilla.shared.contract.agent_config import InferenceConfig
    from tflotilla.shared.inference.runtime import LoadedModel, Runtime, Tensor

_NS = 1_000_000_000
_NS_PER_MS = 1_000_000
#: Operators that run before the one in question: it finds its input where its predecessor left it.
_CONTEXT = 3
_LEAST_PAIRS, _MOST_PAIRS = 5, 400
#: Even the smallest graph takes so long to be cut and loaded.
_LEAST_LOAD_NS = 1_000_000
#: The whole model is timed before every so many cuts where there is little time.
_SELDOM = 4
#: The whole model's time may move so far from the first to the last quarter of the pass without a word.
_QUIET_CHANGE = 0.05
#: The operators' sum may be so far from the whole model's time without a word.
_ADDS_UP_WITHIN = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """The time between two cuts: that of operators `begin` to `end` (not included), in nanoseconds."""

    begin: int
    end: int
    first_ns: int
    #: Median of the paired differences; may be negative.
    median_ns: float
    #: Median of the shorter graph alone: before the first operator that is a call without any.
    lower_ns: float
    pairs: int
    #: Of these operators, those that XNNPACK or a delegate runs here and not in the whole model, or the reverse.
    otherwise: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Clocks:
    """What time is kept to, and what a run is timed with; both in nanoseconds."""

    passing: Callable[[], int] = time.perf_counter_ns
    working: Callable[[], int] = time.perf_counter_ns


def clocks_for(inference: InferenceConfig) -> Clocks:
    """Choose what runs are timed with: see the module's words."""
    alone = inference.num_threads == 1 and inference.delegate is None
    return Clocks(working=time.thread_time_ns if alone else time.perf_counter_ns)


class _Part:
    """Operators, loaded, with inputs set and run once."""

    def __init__(self, model: LoadedModel, tensors: Sequence[Tensor], clock: Callable[[], int]) -> None:
        self.model = model
        model.set_inputs(tuple(tensors))
        self.once = model.bare_invoke if isinstance(model, Inspectable) else model.invoke
        begin = clock()
        model.invoke()
        self.first_ns = clock() - begin


def profile(
    model: Path,
    inference: InferenceConfig,
    inputs: Sequence[Tensor],
    *,
    seconds: float,
    batch: int = 1,
    clocks: Clocks | None = None,
) -> OperatorProfile:
    """Time every operator of the model's main graph.

    Args:
        model: the .tflite file.
        inference: a concrete runtime, threads, XNNPACK and delegate.
        inputs: one tensor per input, of the model's dtypes and shapes (times `batch`).
        seconds: roughly what it may take; never more than half as much again, and the runs that are under way.
        batch: samples in one invoke.
        clocks: None is those that fit the configuration.

    Raises:
        ModelError: the file has no operators that could be told apart, or the runtime refuses or fails to run it.
        DelegateError: the delegate can't be used.
        BoardError: the runtime isn't there.

    """
    data = _bytes(model)
    graph = graph_windows.read(data)
    clocks = clocks or clocks_for(inference)
    loader = _Loader(data, graph, inference, batch, clocks.working)
    deadline_ns = clocks.passing() + int(seconds * _NS)
    whole, load_ns = loader.whole(inputs, clocks.passing)
    nodes = _nodes(whole)
    loader.run_like(nodes)
    collecting = gc.isenabled()
    gc.disable()
    try:
        whole_ns = _passing_ns(whole.once, clocks.passing, at_most_ns=int(seconds * _NS / 10))
        plan = plan_for(
            len(graph.operators), load_ns=load_ns, whole_ns=whole_ns, left_ns=deadline_ns - clocks.passing()
        )
        values = dict(zip(graph.inputs, inputs, strict=True))
        steps, wholes = _Walk(loader, whole, values, clocks).steps(plan, deadline_ns)
    finally:
        if collecting:
            gc.enable()
    return summarize(graph, nodes, steps, wholes=wholes, plan=plan, inference=inference, runtime=loader.runtime)


def _nodes(part: _Part) -> tuple[Node, ...]:
    return part.model.nodes if isinstance(part.model, Inspectable) else ()


def _passing_ns(once: Callable[[], None], clock: Callable[[], int], *, at_most_ns: int) -> int:
    """Return what a run takes on average; of a slow model one is enough to plan with."""
    begin = now = clock()
    runs = 0
    while not runs or (runs < _LEAST_PAIRS and now - begin < at_most_ns):
        once()
        now = clock()
        runs += 1
    return (now - begin) // runs


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What the time suffices for."""

    #: Operators that share a line; 1 is a line for each.
    stride: int
    #: Whether the whole model runs before each pair of runs. Each graph has weights of its own: the second of a pair
    #: finds them as cold as the first, and no colder than the whole model finds its own.
    refill: bool


def plan_for(operators: int, *, load_ns: int, whole_ns: int, left_ns: int) -> Plan:
    """Plan a pass; `load_ns` and `whole_ns` are what loading and running the whole model takes.

    Two graphs are loaded for a cut; of a model's n operators they have some 5, and its weights as well as its time are
    taken to be spread evenly, twice over.
    """
    part = min(1.0, 2 * (_CONTEXT + 1) / operators)
    loads_ns = 2 * (part * load_ns + _LEAST_LOAD_NS)
    pairs_ns = _LEAST_PAIRS * 2 * part * whole_ns
    refilled_ns = loads_ns + pairs_ns + _LEAST_PAIRS * whole_ns
    if refilled_ns * operators <= left_ns:
        return Plan(stride=1, refill=True)
    affordable = max(1, int(left_ns / (loads_ns + pairs_ns + 2 * whole_ns / _SELDOM)))
    return Plan(stride=-(-operators // affordable), refill=False)


class Pairs(NamedTuple):
    """What pairs of runs took, in nanoseconds."""

    #: How much longer the first call took than the second.
    differences: list[int]
    #: The second call alone.
    lowers: list[int]
    #: The whole model.
    wholes: list[int]


def paired_differences(
    upper: Callable[[], None],
    lower: Callable[[], None],
    whole: Callable[[], None] | None,
    *,
    refill: bool,
    until_ns: int,
    latest_ns: int,
    clocks: Clocks,
) -> Pairs:
    """Time two calls in turn, with the whole model's before each pair (`refill`) or before all of them; None is never.

    At least 5 pairs are taken where that does not go beyond `latest_ns`, and no more than 400.
    """
    clock = clocks.working
    differences: list[int] = []
    lowers: list[int] = []
    wholes: list[int] = []
    while not differences or (
        len(differences) < _MOST_PAIRS
        and clocks.passing() < (latest_ns if len(differences) < _LEAST_PAIRS else until_ns)
    ):
        # The order changes from pair to pair: what goes up or down all the time cancels out.
        calls = (upper, lower) if len(differences) % 2 else (lower, upper)
        taken: dict[Callable[[], None], int] = {}
        if whole is not None and (refill or not wholes):
            if not refill:
                # Loading has emptied the caches; what is timed is a run like the others.
                whole()
            begin = clock()
            whole()
            wholes.append(clock() - begin)
        for call in calls:
            begin = clock()
            call()
            taken[call] = clock() - begin
        differences.append(taken[upper] - taken[lower])
        lowers.append(taken[lower])
    return Pairs(differences, lowers, wholes)


class _Walk:
    """Goes through the operators in their order, and knows the values that those behind the last cut read."""

    def __init__(self, loader: _Loader, whole: _Part, values: dict[int, Tensor], clocks: Clocks) -> None:
        self._loader, self._whole, self._values, self._clocks = loader, whole, values, clocks

    def steps(self, plan: Plan, deadline_ns: int) -> tuple[list[Step], list[int]]:
        """Time the operators between cuts; a cut that can't be made is left out. The whole model's times, too."""
        steps: list[Step] = []
        wholes: list[int] = []
        nodes = _nodes(self._whole)
        begin, operators = 0, self._loader.operators
        clock = self._clocks.passing
        # Without the refilling it is timed before some of the cuts only: they are many, and it is long.
        seldom = 1 if plan.refill else max(1, min(_SELDOM, operators // plan.stride // 8))
        latest_ns = deadline_ns + (deadline_ns - clock()) // 2
        for end in _cuts(operators, plan.stride):
            if end < operators and clock() > latest_ns:
                # Much slower than expected: what is left shares a line.
                continue
            parts = self._parts(begin, end)
            if parts is None:
                continue
            upper, lower = parts
            cuts_left = -(-(operators - end) // plan.stride) + 1
            until_ns = clock() + max(0, deadline_ns - clock()) // cuts_left
            taken = paired_differences(
                upper.once,
                lower.once,
                None if len(steps) % seldom else self._whole.once,
                refill=plan.refill and clock() < deadline_ns,
                until_ns=until_ns,
                latest_ns=latest_ns,
                clocks=self._clocks,
            )
            steps.append(
                Step(
                    begin=begin,
                    end=end,
                    first_ns=upper.first_ns - lower.first_ns,
                    median_ns=statistics.median(taken.differences),
                    lower_ns=statistics.median(taken.lowers),
                    pairs=len(taken.differences),
                    otherwise=_run_otherwise(nodes[begin:end], _nodes(upper)),
                )
            )
            wholes += taken.wholes
            begin = end
        return steps, wholes

    def _parts(self, cut: int, end: int) -> tuple[_Part, _Part] | None:
        """Load the graphs that end with and before the operators in question; None when they can't be cut out.

        A graph that can't begin in between (nobody knows the shapes, say) begins at the model's inputs.
        """
        for begin in dict.fromkeys((max(0, cut - _CONTEXT), 0)):
            try:
                upper, made = self._loader.part(begin, end, self._values)
                lower, _ = self._loader.part(begin, cut, self._values)
            except (TflotillaError, ValueError, RuntimeError, KeyError):
                continue
            self._values |= made
            self._values = self._loader.still_read(self._values, max(0, end - _CONTEXT))
            return upper, lower
        return None


def _takes_nothing(nodes: Sequence[Node]) -> bool:
    return bool(nodes) and not any(node.taken for node in nodes)


def _run_otherwise(whole: Sequence[Node], part: Sequence[Node]) -> int:
    """Count the nodes that another hand runs in a part, which ends with them."""
    return sum(a.taken != b.taken for a, b in zip(reversed(whole), reversed(part), strict=False))


def _cuts(operators: int, stride: int) -> Iterator[int]:
    yield from range(stride, operators, stride)
    yield operators


class _Loader:
    """Cuts one model and loads the parts the way the whole is loaded."""

    def __init__(
        self, data: bytes, graph: Graph, inference: InferenceConfig, batch: int, clock: Callable[[], int]
    ) -> None:
        self._data, self._graph, self._clock = data, graph, clock
        self._runtime: Runtime = runtime.find(inference.runtime)
        delegate = inference.delegate
        self._options = LoadOptions(
            num_threads=inference.num_threads,
            xnnpack=inference.xnnpack,
            delegate=None if delegate is None else Delegate(library=delegate.library, options=delegate.options),
            batch=batch,
        )

    def run_like(self, nodes: Sequence[Node]) -> None:
        """Keep XNNPACK off the parts of a model of which it takes nothing: it may still take parts of it.

        tflite-runtime gives it no model with a tensor whose shape is not known before it runs.
        """
        if _takes_nothing(nodes):
            self._options = replace(self._options, xnnpack=False)

    @property
    def runtime(self) -> str:
        """The runtime's name and version."""
        return str(self._runtime.offer)

    @property
    def operators(self) -> int:
        """How many the main graph has."""
        return len(self._graph.operators)

    def whole(self, inputs: Sequence[Tensor], clock: Callable[[], int]) -> tuple[_Part, int]:
        """Load the model as it is; also what loading took. Raises ModelError."""
        begin = clock()
        loaded = self._runtime.load(self._data, self._options)
        load_ns = clock() - begin
        try:
            return _Part(loaded, inputs, self._clock), load_ns
        except (ValueError, RuntimeError) as error:
            message = f"the inputs do not fit the model: {error}"
            raise ModelError(message) from error

    def part(self, begin: int, end: int, values: Mapping[int, Tensor]) -> tuple[_Part, dict[int, Tensor]]:
        """Load some operators and run them once; also what they gave out.

        Raises whatever a cut, a runtime or a missing value leads to: the caller has another way.
        """
        window = graph_windows.cut(self._data, self._graph, begin, end)
        loaded = self._runtime.load(window.data, self._options)
        part = _Part(loaded, [values[tensor] for tensor in window.inputs], self._clock)
        return part, dict(zip(window.outputs, loaded.get_outputs(), strict=True))

    def still_read(self, values: Mapping[int, Tensor], begin: int) -> dict[int, Tensor]:
        """Leave out the values that no operator from `begin` on reads; the model's inputs stay."""
        kept = set(self._graph.inputs).union(*(operator.inputs for operator in self._graph.operators[begin:]))
        return {tensor: value for tensor, value in values.items() if tensor in kept}


def summarize(
    graph: Graph,
    nodes: Sequence[Node],
    steps: Sequence[Step],
    *,
    wholes: Sequence[int],
    plan: Plan,
    inference: InferenceConfig,
    runtime: str,
) -> OperatorProfile:
    """Turn what was measured into a profile that says how it was measured and how well it adds up.

    Raises:
        ModelError: nothing could be timed.

    """
    if not steps:
        message = f"{runtime} takes none of the model's operators out of their graph: they can't be timed apart"
        raise ModelError(message)
    rows = tuple(_row(graph, nodes, step) for step in steps)
    whole_ns = max(1.0, statistics.median(wholes))
    bare_ns = steps[0].lower_ns
    share = (sum(row.avg_ms for row in rows) * _NS_PER_MS + bare_ns) / whole_ns
    below = sum(step.median_ns < 0 for step in steps)
    shared = sum(step.end - step.begin > 1 for step in steps)
    pairs = [step.pairs for step in steps]
    alone = inference.num_threads == 1 and inference.delegate is None
    kind = "processor time of the one thread" if alone else "time that passed"
    note = [
        "Differences, not a profiler's figures: graphs that end with and before each operator ran in turn with "
        f"{runtime}, {min(pairs)} to {max(pairs)} times each; medians of {kind}.",
        f"Their sum, with the {bare_ns / _NS_PER_MS:.4f} ms of a call without operators, is {share:.0%} of the whole "
        "model's median in between.",
    ]
    if abs(share - 1) > _ADDS_UP_WITHIN:
        less = "less" if share > 1 else "more"
        note.append(f"That does not add up: the board was busy, or operators cost {less} together than apart.")
    otherwise = sum(step.otherwise for step in steps)
    if otherwise:
        note.append(
            f"XNNPACK or a delegate runs {otherwise} of the operators in the whole model and not when cut out, "
            "or the reverse: their times are of something else."
        )
    if inference.xnnpack and _takes_nothing(nodes):
        note.append("XNNPACK is on and takes nothing of this model; its parts ran without it, too.")
    if not plan.refill:
        note.append("There was no time to run the whole model before each pair: caches were warmer than usual.")
    if below:
        as_measured = (sum(step.median_ns for step in steps) + bare_ns) / whole_ns
        note.append(
            f"{below} of {len(rows)} came out below zero and are shown as 0: they cost less than the noise, or save "
            f"their neighbours a copy. As they were measured, the sum is {as_measured:.0%}."
        )
    if shared:
        note.append(
            f"Lines that stand for several operators: {shared}; the time, or the runtime, allowed no cut between them."
        )
    quarter = max(1, len(wholes) // 4)
    change = statistics.median(wholes[-quarter:]) / max(1.0, statistics.median(wholes[:quarter])) - 1
    if abs(change) > _QUIET_CHANGE:
        note.append(f"The whole model took {change:+.0%} at the end of the pass: the board was not steady meanwhile.")
    return OperatorProfile(
        method="prefix_difference",
        xnnpack=inference.xnnpack,
        operators=rows,
        whole_ms=whole_ns / _NS_PER_MS,
        note=" ".join(note),
    )


def _row(graph: Graph, nodes: Sequence[Node], step: Step) -> OperatorTime:
    covered = range(step.begin, step.end)
    known = [nodes[index] for index in covered if index < len(nodes)]
    taken = {node.taken for node in known}
    node_type = known[0].op if len(known) == 1 else f"{len(covered)} operators"
    names = [graph.operators[index].name for index in (step.begin, step.end - 1)]
    if len(covered) > 1 and known:
        names = [f"{known[0].op} {names[0]}", f"{known[-1].op} {names[-1]}"]
    return OperatorTime(
        node_type=node_type,
        name=names[0] if len(covered) == 1 else " … ".join(names),
        first_ms=max(0, step.first_ns) / _NS_PER_MS,
        avg_ms=max(0.0, step.median_ns) / _NS_PER_MS,
        times_called=1,
        delegated=taken.pop() if len(taken) == 1 else None,
    )


def _bytes(model: Path) -> bytes:
    try:
        return model.read_bytes()
    except OSError as error:
        message = f"{model} can't be read: {error.strerror}"
        raise ModelError(message) from error
