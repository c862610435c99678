"""Which variant to try next, and which to take: the search as a pure function of what was measured so far.

    whole model    int8 → dynamic_range → float16 → (int8 lost too much) int16x8
    mixed          int8 with the 1, 2, 4, 8, … worst layers in float until one meets the bound, bisected to the fewest,
                   then layers given back one by one, the dearest first

The layers come ranked, the first to keep first. A variant meets the bound when its drop is at most `max_drop`. Nothing
is assumed of how the drop depends on the layers: where more float makes it worse, the search still ends, with a variant
that was measured.

What it does NOT do: measure, rank, or touch a file.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum
from itertools import pairwise
from typing import TYPE_CHECKING

from tflotilla.shared.contract.tensors import QuantizationScheme

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

#: Sizes and latencies nearer to each other than this are called the same: nobody trades speed for 3 % of a file.
SAME_SIZE, SAME_LATENCY = 0.05, 0.05
#: The share of the file that every kept layer is taken to cost.
_SPARE_BYTES = 0.01
#: How often at most a layer is given back for a try; dear are those of at least this share of the dearest one's bytes.
GIVE_BACK_TRIES = 6
_DEAR = 0.25
#: Whole-model schemes, in the order in which they are tried.
WHOLE = (QuantizationScheme.INT8, QuantizationScheme.DYNAMIC_RANGE, QuantizationScheme.FLOAT16)
#: Tried when int8 loses too much: never smaller or faster than int8, often as accurate as float.
WIDER = QuantizationScheme.INT16X8
SCHEMES = (*WHOLE, WIDER)


class Prefer(StrEnum):
    """What decides among the variants that meet the bound."""

    SIZE = "size"
    LATENCY = "latency"


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """An operator that can be kept in float; named by its first output tensor."""

    name: str
    op: str
    #: What it adds to the outputs' error when it alone is quantized: noise power / signal power.
    error: float
    #: By how much the file grows when it is kept.
    extra_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A variant. `kept` are places in the ranking (0 is the worst layer), ascending; of INT8 only."""

    scheme: QuantizationScheme
    kept: tuple[int, ...] = ()
    #: Inputs and outputs stay float though integers were asked for; of INT8 only.
    float_edges: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    """What was measured of a candidate; `refused` says why it could not be made or run, and then nothing was."""

    drop: float = float("inf")
    size_bytes: int = 0
    latency_ns: int = 0
    refused: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """What is asked."""

    max_drop: float
    #: As `ranked` orders them; empty until int8 lost too much and they were measured.
    layers: tuple[Layer, ...]
    schemes: tuple[QuantizationScheme, ...] = SCHEMES
    max_steps: int = 40
    #: Integer inputs and outputs alone lose too much: with them no mixture can meet the bound.
    float_edges: bool = False


#: What was tried, in order.
Path = tuple[tuple[Candidate, Observation], ...]


def ranked(layers: Iterable[Layer], prefer: Prefer, *, size_bytes: int) -> tuple[Layer, ...]:
    """Return the layers in the order in which they are to be kept.

    By latency it is the error alone: the fewest layers. By size it is the error for each byte that the file grows,
    with 1 % of the file added to each, so that small layers do not come first for being small alone.
    """
    spare = _SPARE_BYTES * size_bytes + 1.0

    def gain(layer: Layer) -> float:
        return layer.error if prefer is Prefer.LATENCY else layer.error / (layer.extra_bytes + spare)

    return tuple(sorted(layers, key=gain, reverse=True))


def needs_layers(problem: Problem, path: Path) -> bool:
    """Whether int8 was tried and lost too much, so that the layers are to be measured and ranked."""
    int8 = dict(path).get(Candidate(scheme=QuantizationScheme.INT8))
    return int8 is not None and int8.refused is None and not meets(problem, int8)


def next_candidate(problem: Problem, path: Path) -> Candidate | None:
    """Return what to try next, None when the search is over. Never one that is on the path."""
    if len(path) >= problem.max_steps:
        return None
    seen = dict(path)
    wanted = (*_whole(problem, seen), *_mixed(problem, seen))
    return next((candidate for candidate in wanted if candidate not in seen), None)


def meets(problem: Problem, observation: Observation) -> bool:
    """Whether a variant loses no more than asked."""
    return observation.refused is None and observation.drop <= problem.max_drop


def choose(problem: Problem, path: Path, prefer: Prefer) -> tuple[Candidate, ...]:
    """Return the variants that meet the bound, the one to take first.

    By size: the smallest; among those within 5 % of it the fastest; among those within 5 % of that the one that loses
    least. By latency the same with size and latency exchanged. Then the rest in the same way.
    """
    left = [entry for entry in path if meets(problem, entry[1])]
    ordered = []
    while left:
        best = _best(left, prefer)
        left.remove(best)
        ordered.append(best[0])
    return tuple(ordered)


def closest(path: Path) -> tuple[tuple[Candidate, Observation], ...]:
    """Return what was measured, the least drop first, then the smallest: what to tell when nothing meets the bound."""
    measured = [entry for entry in path if entry[1].refused is None]
    return tuple(sorted(measured, key=lambda entry: (entry[1].drop, entry[1].size_bytes)))


def pareto(path: Path) -> frozenset[Candidate]:
    """Return the variants that none beats in drop, size and latency at once."""
    measured = [entry for entry in path if entry[1].refused is None]
    return frozenset(candidate for candidate, seen in measured if not any(_beats(o, seen) for _, o in measured))


def _beats(one: Observation, other: Observation) -> bool:
    ours, theirs = ((o.drop, o.size_bytes, o.latency_ns) for o in (one, other))
    return ours != theirs and all(a <= b for a, b in zip(ours, theirs, strict=True))


_COSTS: Mapping[Prefer, tuple[Callable[[tuple[Candidate, Observation]], int], float]] = {
    Prefer.SIZE: (lambda entry: entry[1].size_bytes, SAME_SIZE),
    Prefer.LATENCY: (lambda entry: entry[1].latency_ns, SAME_LATENCY),
}


def _best(entries: Sequence[tuple[Candidate, Observation]], prefer: Prefer) -> tuple[Candidate, Observation]:
    near = list(entries)
    for by in (Prefer.SIZE, Prefer.LATENCY) if prefer is Prefer.SIZE else (Prefer.LATENCY, Prefer.SIZE):
        cost, same = _COSTS[by]
        limit = min(map(cost, near)) * (1 + same)
        near = [entry for entry in near if cost(entry) <= limit]
    return min(near, key=lambda entry: (entry[1].drop, len(entry[0].kept), entry[1].size_bytes))


def _whole(problem: Problem, seen: Mapping[Candidate, Observation]) -> Iterator[Candidate]:
    for scheme in WHOLE:
        if scheme in problem.schemes:
            yield Candidate(scheme=scheme)
    int8 = seen.get(Candidate(scheme=QuantizationScheme.INT8))
    if WIDER in problem.schemes and (int8 is None or not meets(problem, int8)):
        yield Candidate(scheme=WIDER)


def _mixed(problem: Problem, seen: Mapping[Candidate, Observation]) -> Iterator[Candidate]:
    """Yield the mixed variants up to the first that is not measured yet; what follows depends on it."""
    if not needs_layers(problem, tuple(seen.items())):
        return
    if problem.float_edges:
        plain = _worst(0, problem)
        yield plain
        if plain not in seen or meets(problem, seen[plain]):
            return
    fails, passes = 0, None
    for count in _counts(len(problem.layers)):
        candidate = _worst(count, problem)
        yield candidate
        if candidate not in seen:
            return
        if meets(problem, seen[candidate]):
            passes = count
            break
        fails = count
    if passes is None:
        return
    while passes - fails > 1:
        middle = (passes + fails) // 2
        candidate = _worst(middle, problem)
        yield candidate
        if candidate not in seen:
            return
        fails, passes = (fails, middle) if meets(problem, seen[candidate]) else (middle, passes)
    yield from _given_back(problem, seen, _worst(passes, problem))


def _given_back(problem: Problem, seen: Mapping[Candidate, Observation], start: Candidate) -> Iterator[Candidate]:
    """Yield the variant without one layer after the other: the dearest first, then those ranked last.

    Never without the very last: that is the variant of which bisecting found that it loses too much.
    """
    kept = start.kept
    bytes_of = {place: problem.layers[place].extra_bytes for place in kept}
    dear = max(bytes_of.values()) * _DEAR
    tried = sorted(kept[:-1], key=lambda place: (-bytes_of[place] if bytes_of[place] > dear else 0, -place))
    for place in tried[:GIVE_BACK_TRIES]:
        fewer = replace(start, kept=tuple(k for k in kept if k != place))
        yield fewer
        if fewer not in seen:
            return
        if meets(problem, seen[fewer]):
            kept = fewer.kept


def _counts(layers: int) -> Iterator[int]:
    """Yield 1, 2, 4, … and at last all but one layer: with all of them it would be the float model."""
    counts = [1]
    while counts[-1] * 2 < layers:
        counts.append(counts[-1] * 2)
    counts.append(layers - 1)
    yield from (count for count in counts[:1] if count < layers)
    yield from (later for earlier, later in pairwise(counts) if earlier < later < layers)


def _worst(count: int, problem: Problem) -> Candidate:
    return Candidate(scheme=QuantizationScheme.INT8, kept=tuple(range(count)), float_edges=problem.float_edges)
