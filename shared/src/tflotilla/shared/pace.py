"""How fast a bundle answered, over several windows, and what may be claimed of it.

Percentiles can't be averaged, so each figure is that of the median window, weighted by results: a window with a hiccup
does not decide. A percentile is compared only when both sides have the runs it needs at 99 % confidence (MLPerf's
early stopping: 662 for p99, 64 for p90, 11 for p50): a p99 of 50 runs is the worst of them, and says what the board's
scheduler did. What it does NOT do: decide how much slower is too slow (`install.judge` does).
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from tflotilla.shared.statistics import minimum_runs

if TYPE_CHECKING:
    from collections.abc import Iterable

Percentile = Literal["p99", "p90", "p50"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """Total latency in nanoseconds. `runs` is of the median window, `all_runs` of all windows."""

    runs: int
    all_runs: int
    p50_ns: int
    p90_ns: int
    p99_ns: int

    def at(self, percentile: Percentile) -> int:
        """Return one of the percentiles, in nanoseconds."""
        return {"p99": self.p99_ns, "p90": self.p90_ns, "p50": self.p50_ns}[percentile]

    def supports(self, percentile: Percentile) -> bool:
        """Whether there were enough runs for it; a p50 may take its runs from all windows together."""
        if percentile == "p50":
            return self.all_runs >= minimum_runs(50)
        return self.runs >= minimum_runs(99 if percentile == "p99" else 90)


def of(windows: Iterable[bytes]) -> Pace | None:
    """Return the pace over the bodies of Metrics messages, None when none of them has results."""
    totals = [total for body in windows if (total := json.loads(body)["stages"].get("total"))]
    if not totals:
        return None
    counted = [total["count"] for total in totals]

    def median(key: str) -> int:
        ordered = sorted((int(total[key]), total["count"]) for total in totals)
        half = sum(counted) / 2
        for figure, count in ordered:
            half -= count
            if half <= 0:
                return figure
        return ordered[-1][0]

    return Pace(
        runs=median("count"),
        all_runs=sum(counted),
        p50_ns=median("p50_ns"),
        p90_ns=median("p90_ns"),
        p99_ns=median("p99_ns"),
    )


def comparable(one: Pace, other: Pace) -> Percentile | None:
    """Return the highest percentile that both support, None when there is none."""
    percentiles: tuple[Percentile, ...] = ("p99", "p90", "p50")
    return next((each for each in percentiles if one.supports(each) and other.supports(each)), None)
