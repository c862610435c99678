"""What boards reported while a bundle served there: the fold of telemetry that gates are judged by.

One `Evidence` is one board and one bundle. Latency is by `shared.pace`: percentiles only where there are runs for them.
What it does NOT do: judge (`gates`), listen (`watcher`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

#: Bins of the winners' scores.
SCORE_BINS = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Total:
    """The `total` stage of one window: how many, and its percentiles in nanoseconds."""

    count: int
    p50_ns: int
    p90_ns: int
    p99_ns: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """One board while one bundle served, since `since` (Unix seconds by this machine's clock)."""

    since: float
    #: When the last message of this bundle came, by this machine's clock.
    until: float
    windows: int = 0
    results: int = 0
    errors: int = 0
    crashes: int = 0
    #: The newest windows; older ones go, so that memory is bounded.
    totals: tuple[Total, ...] = ()
    rss_bytes: int | None = None
    temperature_c: float | None = None
    #: Label → how often it won.
    labels: Mapping[str, int] = field(default_factory=dict)
    #: How many winners had a score in each tenth; empty where the agent doesn't say.
    scores: tuple[int, ...] = ()
    #: A figure that came and was none (NaN, negative): the gate it belongs to must not pass.
    broken: tuple[str, ...] = ()
