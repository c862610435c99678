"""Whether the clock that latencies are taken with went evenly: CLOCK_MONOTONIC is steered by whoever sets the time.

ntpd and timesyncd bend it by at most 0.05 %, chrony by up to 8 % after a boot without a battery-backed clock, which is
every Raspberry Pi's. CLOCK_MONOTONIC_RAW is bent by nobody. Both stand still while the machine sleeps; CLOCK_BOOTTIME
doesn't.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

_NS = 1_000_000_000
#: Below that the clocks' own reading times would look like a bend.
_SHORTEST_NS = 100_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Clocks:
    """Three clocks at one moment, in nanoseconds."""

    monotonic_ns: int
    raw_ns: int
    boot_ns: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ClockChange:
    """What happened between two moments."""

    #: How much too fast the steered clock went: 0.01 makes every latency 1 % too long. None for too short a time.
    bend: float | None
    #: How long the machine slept.
    suspended_s: float


def read() -> Clocks:
    """Return the clocks now."""
    return Clocks(
        monotonic_ns=time.clock_gettime_ns(time.CLOCK_MONOTONIC),
        raw_ns=time.clock_gettime_ns(time.CLOCK_MONOTONIC_RAW),
        boot_ns=time.clock_gettime_ns(time.CLOCK_BOOTTIME),
    )


def between(before: Clocks, after: Clocks) -> ClockChange:
    """Return what happened to the clocks meanwhile."""
    monotonic_ns = after.monotonic_ns - before.monotonic_ns
    raw_ns = after.raw_ns - before.raw_ns
    slept_ns = after.boot_ns - before.boot_ns - monotonic_ns
    return ClockChange(
        bend=monotonic_ns / raw_ns - 1 if raw_ns >= _SHORTEST_NS else None,
        suspended_s=max(0, slept_ns) / _NS,
    )
