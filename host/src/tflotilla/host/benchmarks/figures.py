"""One figure of a comparison and how it is judged. Pure, and the same for our results and other programs'."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from tflotilla.shared.contract.errors import UsageError

if TYPE_CHECKING:
    from tflotilla.host.benchmarks.significance import Ratio

Metric = Literal["p50", "p90", "p99", "mean", "qps", "rss"]
Judgement = Literal["regression", "improvement", "unchanged", "uncertain"]
#: More is better; of all others less.
RATES: tuple[Metric, ...] = ("qps",)


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """When a difference counts, and what may be held against each other."""

    #: Which figures; empty is p50, for Offline and Server qps.
    metrics: tuple[Metric, ...] = ()
    #: A difference within this share is none: processes differ by as much without a reason.
    tolerance: float = 0.05
    #: How often chance alone may be taken for a difference.
    alpha: float = 0.01
    #: Pair cells of different models, or of different boards and machines.
    across_models: bool = False
    across_boards: bool = False
    #: Compare cells that their boards called INVALID.
    include_invalid: bool = False

    def __post_init__(self) -> None:
        """Raise UsageError with the allowed range."""
        if not 0 <= self.tolerance < 10:  # noqa: PLR2004 - ten times slower is no tolerance
            raise UsageError(f"--tolerance must be 0 % or more and less than 1000 %, not {self.tolerance * 100:g} %")
        if not 0 < self.alpha <= 0.5:  # noqa: PLR2004 - a coin's
            raise UsageError(f"--alpha must be above 0 and at most 0.5, not {self.alpha:g}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One metric in both results: nanoseconds, samples a second (qps) or bytes (rss).

    `low`, `high` and `p_value` are None where each side has one figure and nothing can be tested.
    """

    metric: Metric
    base: float
    new: float
    #: New over base.
    ratio: float
    low: float | None
    high: float | None
    p_value: float | None
    outcome: Judgement
    note: str | None = None


def judged(metric: Metric, found: Ratio | tuple[float, float], limits: Limits, *, note: str | None = None) -> Figure:
    """Return a figure with its judgement; a tuple is (base, new), of which base is above 0."""
    if isinstance(found, tuple):
        base, new = found
        ratio = new / base
        return Figure(
            metric=metric,
            base=base,
            new=new,
            ratio=ratio,
            low=None,
            high=None,
            p_value=None,
            outcome=judge(metric, ratio, ratio, 0.0, limits),
            note=note,
        )
    return Figure(
        metric=metric,
        base=found.base,
        new=found.new,
        ratio=found.ratio,
        low=found.low,
        high=found.high,
        p_value=found.p_value,
        outcome=judge(metric, found.low, found.high, found.p_value, limits),
        note=note,
    )


def judge(metric: Metric, low: float, high: float, p_value: float, limits: Limits) -> Judgement:
    """Judge a ratio by its interval: beyond the tolerance as a whole, within it as a whole, or neither."""
    worst, best = 1 + limits.tolerance, 1 / (1 + limits.tolerance)
    # How many times worse: of a rate the inverse.
    least, most = (_inverse(high), _inverse(low)) if metric in RATES else (low, high)
    if p_value < limits.alpha and least > worst:
        return "regression"
    if p_value < limits.alpha and most < best:
        return "improvement"
    if best <= least and most <= worst:
        return "unchanged"
    return "uncertain"


def _inverse(ratio: float) -> float:
    return 1 / ratio if ratio > 0 else float("inf")
