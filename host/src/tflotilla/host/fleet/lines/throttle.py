"""A token bucket that many transfers share: together they send no faster than its rate.

Rules it keeps: whoever asks first goes first, and pays for what it takes by waiting after those before it, so that ten
transfers share a rate instead of taking turns at it; a pause is worth at most `burst_bytes`. Clock and sleep are ports.
What it does NOT do: send, or count what a connection needs besides (handshakes, headers).
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

#: A piece that is waited for at once: small enough for a slow line to look alive, large enough to cost nothing.
BURST_BYTES = 32 << 10


class Throttle:
    """Lets so many bytes per second through; safe to use from many threads."""

    def __init__(
        self,
        bytes_per_s: float,
        *,
        burst_bytes: int = BURST_BYTES,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """Begin with a full bucket. Raises ValueError when the rate is not above zero."""
        if not bytes_per_s > 0:
            message = f"a rate must be above 0 bytes per second, not {bytes_per_s}"
            raise ValueError(message)
        self.bytes_per_s = bytes_per_s
        self._lead_s = burst_bytes / bytes_per_s
        self._clock = clock
        self._sleep = sleep
        self._lock = threading.Lock()
        #: When everything that was let through would have gone at exactly the rate.
        self._paid_until = clock() - self._lead_s

    def take(self, size_bytes: int) -> None:
        """Wait until `size_bytes` may be sent."""
        with self._lock:
            now = self._clock()
            self._paid_until = max(self._paid_until, now - self._lead_s) + size_bytes / self.bytes_per_s
            wait_s = self._paid_until - now
        # Outside the lock: others may reserve what comes after this.
        if wait_s > 0:
            self._sleep(wait_s)
