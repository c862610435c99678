"""How fast a bundle answered, over several windows, and what may be claimed of it.

Percentiles can't be averaged, so each figure is that of the median window, weighted by results: a window with a hiccup
does not decide. A percentile is compared only when both sides have the runs it needs at 99 % confidence (MLPerf's
early stopping: 662 for p99, 64 for p90, 11 for p50): a p99 of 50 runs is the worst of them, and says what the board's
scheduler did. What it does NOT do: decide how much slower is too slow (the board's `install.judge` and the gates of
a rollout do).
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

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


class Total(Protocol):
    """The `total` stage of one window, as `messages.StageLatency` has it; `count` is above 0."""

    @property
    def count(self) -> int:
        """How many inferences."""
        ...

    @property
    def p50_ns(self) -> int:
        """Nanoseconds, as are the others."""
        ...

    @property
    def p90_ns(self) -> int:
        """The 90th percentile."""
        ...

    @property
    def p99_ns(self) -> int:
        """The 99th percentile."""
        ...


def of(windows: Iterable[bytes]) -> Pace | None:
    """Return the pace over the bodies of Metrics messages, None when none of them has results."""
    totals = (json.loads(body)["stages"].get("total") for body in windows)
    return _over([(t["count"], int(t["p50_ns"]), int(t["p90_ns"]), int(t["p99_ns"])) for t in totals if t])


def over(totals: Iterable[Total]) -> Pace | None:
    """Return the pace over windows that were read already, None when there is none."""
    return _over([(total.count, total.p50_ns, total.p90_ns, total.p99_ns) for total in totals])


def _over(totals: list[tuple[int, int, int, int]]) -> Pace | None:
    if not totals:
        return None
    all_runs = sum(total[0] for total in totals)

    def median(column: int) -> int:
        half = all_runs / 2
        ordered = sorted((total[column], total[0]) for total in totals)
        for figure, count in ordered:
            half -= count
            if half <= 0:
                return figure
        return ordered[-1][0]

    return Pace(runs=median(0), all_runs=all_runs, p50_ns=median(1), p90_ns=median(2), p99_ns=median(3))


def comparable(one: Pace, other: Pace) -> Percentile | None:
    """Return the highest percentile that both support, None when there is none."""
    percentiles: tuple[Percentile, ...] = ("p99", "p90", "p50")
    return next((each for each in percentiles if one.supports(each) and other.supports(each)), None)
