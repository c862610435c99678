"""Saved benchmarks as pages show them, and two of them held against each other. Pure but for the time it takes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tflotilla.host.benchmarks import compare, pairing
from tflotilla.host.benchmarks.figures import Limits
from tflotilla.host.benchmarks.rendering import comparison as words
from tflotilla.shared.contract import codec

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from tflotilla.host.benchmarks.figures import Metric
    from tflotilla.host.benchmarks.pairing import Couple
    from tflotilla.host.benchmarks.results import Run
    from tflotilla.host.benchmarks.sqlite import Entry
    from tflotilla.shared.contract.benchmark import BenchmarkCell

#: Points of a curve; a screen has hardly more.
_POINTS = 200
_NS_PER_MS = 1e6
_METRICS: tuple[Metric, ...] = ("p50", "p90", "p99", "qps", "rss")


def entries(found: Iterable[Entry]) -> dict[str, Any]:
    """Return the runs that were saved, newest first."""
    return {"runs": [codec.encode(entry) for entry in found]}


def document(base: Run, new: Run, *, across_boards: bool = False, across_models: bool = False) -> dict[str, Any]:
    """Hold a run against another: each pair with its figures, and how its latencies are distributed."""
    limits = Limits(metrics=_METRICS, across_boards=across_boards, across_models=across_models)
    found = compare.compare(base, new, limits)
    # The comparison has its pairs in this order, and those of other programs after them.
    couples: list[Couple | None] = list(pairing.couples(base, new, limits))
    couples += [None] * (len(found.pairs) - len(couples))
    rows = [
        codec.encode(pair) | {"outcome": pair.outcome, "cdf": None if couple is None else _curves(couple)}
        for pair, couple in zip(found.pairs, couples, strict=True)
    ]
    return {
        "base": found.base,
        "new": found.new,
        "heading": words.heading(found),
        "tolerance": limits.tolerance,
        "alpha": limits.alpha,
        "counts": dict(found.counted()),
        "rows": rows,
    }


def _curves(couple: Couple) -> dict[str, list[dict[str, float]] | None]:
    return {"base": _curve(couple.base), "new": _curve(couple.new)}


def _curve(cell: BenchmarkCell | None) -> list[dict[str, float]] | None:
    if cell is None or cell.measurement is None or not cell.measurement.latencies_ns:
        return None
    return cumulative(cell.measurement.latencies_ns)


def cumulative(latencies_ns: Sequence[int]) -> list[dict[str, float]]:
    """Return the cumulative distribution, at most 200 points of it, the least and the greatest among them."""
    ordered = sorted(latencies_ns)
    count = len(ordered)
    ranks = sorted({round(number * (count - 1) / (_POINTS - 1)) for number in range(_POINTS)})
    return [{"ms": ordered[rank] / _NS_PER_MS, "share": (rank + 1) / count} for rank in ranks]
