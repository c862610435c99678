"""Whether the clock that latencies are taken with went evenly: CLOCK_MONOTONIC is steered by whoever sets the time.

ntpd and timesyncd bend it by at most 0.05 %, chrony by up to 8 % after a boot without a battery-backed clock, which is
every Raspberry Pi's. CLOCK_MONOTONIC_RAW is bent by nobody. Both stand still while the machine sleeps; CLOCK_BOOTTIME
doesn't.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

_NS = 1_000_000_000
#: Three clocks can't be read at once: of so many attempts the closest counts.
_ATTEMPTS = 10
#: A bend is told only when the moments between the clocks can't be a thousandth of it all.
_SHARPNESS = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Clocks:
    """Three clocks at one moment, in nanoseconds."""

    monotonic_ns: int
    raw_ns: int
    boot_ns: int
    #: The other two were read within so long.
    width_ns: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ClockChange:
    """What happened between two moments."""

    #: How much too fast the steered clock went: 0.01 makes every latency 1 % too long. None when the time was too short
    #: to tell.
    bend: float | None
    #: How long the machine slept.
    suspended_s: float


def read() -> Clocks:
    """Return the clocks now; an interruption between two of them would look like a bend, so it is tried again."""
    return min((_read_once() for _ in range(_ATTEMPTS)), key=lambda read: read.width_ns)


def _read_once() -> Clocks:
    began_ns = time.clock_gettime_ns(time.CLOCK_MONOTONIC)
    raw_ns = time.clock_gettime_ns(time.CLOCK_MONOTONIC_RAW)
    boot_ns = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    width_ns = time.clock_gettime_ns(time.CLOCK_MONOTONIC) - began_ns
    return Clocks(monotonic_ns=began_ns + width_ns // 2, raw_ns=raw_ns, boot_ns=boot_ns, width_ns=width_ns)


def between(before: Clocks, after: Clocks) -> ClockChange:
    """Return what happened to the clocks meanwhile."""
    monotonic_ns = after.monotonic_ns - before.monotonic_ns
    raw_ns = after.raw_ns - before.raw_ns
    slept_ns = after.boot_ns - before.boot_ns - monotonic_ns
    return ClockChange(
        bend=monotonic_ns / raw_ns - 1 if raw_ns > _SHARPNESS * (before.width_ns + after.width_ns) else None,
        suspended_s=max(0, slept_ns) / _NS,
    )
