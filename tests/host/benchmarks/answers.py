"""Made-up answers of boards as they come over the broker; their figures are `measured`'s."""

from __future__ import annotations

from tests.host.benchmarks import measured
from tflotilla.shared.contract.benchmark import BenchmarkCell, BenchmarkReport, Method

METHOD = Method(max_seconds=5.0)


def report(
    position: int = 1, total: int = 1, *, request: str = "r1", board: str = "pi-1", cell: BenchmarkCell | None = None
) -> BenchmarkReport:
    return BenchmarkReport(
        request=request,
        method=METHOD,
        total=total,
        position=position,
        identity=measured.identity(board),
        cell=cell or measured.cell([25_000 + number % 7 * 100 for number in range(700)], threads=position),
    )


def refusal(error: str, *, request: str = "r1") -> BenchmarkReport:
    return BenchmarkReport(request=request, method=METHOD, total=0, error=error)
