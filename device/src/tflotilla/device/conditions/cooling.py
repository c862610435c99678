"""Waiting until the processor is cool, so that every cell begins alike.

A board without a sensor is not waited for; a board that doesn't get so cool is waited for as long as was said, and the
verdict says so. The clock and the sleep are ports.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tflotilla.device.conditions.readings import Sensors

if TYPE_CHECKING:
    from collections.abc import Callable

POLL_S = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Cooled:
    """How waiting ended; `temperature_c` is the last one read, None without a sensor."""

    seconds: float
    temperature_c: float | None
    reached: bool


def wait(
    cool_to_c: float,
    *,
    limit_s: float,
    temperature_c: Callable[[], float | None] | None = None,
    on_wait: Callable[[float], None] = lambda _celsius: None,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> Cooled:
    """Wait until the processor is at most so warm, or `limit_s` are over. `on_wait` hears each temperature above it."""
    measure = temperature_c or Sensors().temperature_c
    began = clock()
    while True:
        celsius = measure()
        seconds = clock() - began
        if celsius is None or celsius <= cool_to_c or seconds >= limit_s:
            return Cooled(
                seconds=round(seconds, 3),
                temperature_c=celsius,
                reached=celsius is not None and celsius <= cool_to_c,
            )
        on_wait(celsius)
        sleep(min(POLL_S, limit_s - seconds))
