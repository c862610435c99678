"""What may be said of latency over windows."""

from __future__ import annotations

import json

import pytest

from tflotilla.shared import pace
from tflotilla.shared.pace import Pace


def window(count: int, latency_ns: int) -> bytes:
    total = {"count": count, "p50_ns": latency_ns, "p90_ns": 2 * latency_ns, "p99_ns": 3 * latency_ns}
    return json.dumps({"count": count, "errors": 0, "stages": {"total": total}}).encode()


def test_the_median_result_decides() -> None:
    """One window with a hiccup, of few results, doesn't; neither does the worker's first and tiny one."""
    found = pace.of([window(100, 10), window(100, 12), window(3, 999)])

    assert found == Pace(runs=100, all_runs=203, p50_ns=12, p90_ns=24, p99_ns=36)
    assert pace.of([window(1, 999), window(100, 10)]) == Pace(runs=100, all_runs=101, p50_ns=10, p90_ns=20, p99_ns=30)


def test_windows_without_results_have_no_pace() -> None:
    assert pace.of([]) is None
    assert pace.of([b'{"count":0,"errors":3,"stages":{}}']) is None


@pytest.mark.parametrize(
    ("runs", "all_runs", "expected"),
    [(662, 662, "p99"), (661, 5000, "p90"), (64, 64, "p90"), (63, 500, "p50"), (1, 11, "p50"), (10, 10, None)],
)
def test_the_highest_percentile_with_enough_runs_is_compared(runs: int, all_runs: int, expected: str | None) -> None:
    plenty = Pace(runs=10_000, all_runs=10_000, p50_ns=1, p90_ns=1, p99_ns=1)
    few = Pace(runs=runs, all_runs=all_runs, p50_ns=1, p90_ns=1, p99_ns=1)

    assert pace.comparable(plenty, few) == expected
    assert pace.comparable(few, plenty) == expected
