"""What arrived over MQTT and was not taken yet: bounded, because whoever takes it may be slow.

Rules it keeps: the oldest go first when there are too many, and are counted; filled by one thread, emptied by another.
What it does NOT do: read messages, or know where they come from.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

_MOST_WAITING = 200_000
_MOST_WAITING_BYTES = 128 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Received:
    """One message as it came. `at` is Unix seconds by this machine's clock."""

    topic: str
    payload: bytes
    at: float
    retained: bool = False


class Inbox:
    """What arrived and was not taken yet; filled by paho's thread."""

    def __init__(self, *, most: int = _MOST_WAITING, most_bytes: int = _MOST_WAITING_BYTES) -> None:
        #: Notified whenever something came.
        self.arrived = threading.Condition()
        self._most = most
        self._most_bytes = most_bytes
        #: Messages lost in here, because nobody took them for too long.
        self.dropped = 0
        self._waiting: deque[Received] = deque()
        self._bytes = 0

    def put(self, publications: Sequence[tuple[bytes, bytes, bool]]) -> None:
        """Add what arrived now: (topic, payload, whether it was retained)."""
        at = time.time()
        received = [
            # A topic that is no UTF-8 can't be one of ours.
            Received(topic=topic.decode(errors="replace"), payload=payload, at=at, retained=retained)
            for topic, payload, retained in publications
        ]
        with self.arrived:
            self._waiting.extend(received)
            self._bytes += sum(len(each.payload) for each in received)
            while len(self._waiting) > self._most or self._bytes > self._most_bytes:
                self._bytes -= len(self._waiting.popleft().payload)
                self.dropped += 1
            self.arrived.notify_all()

    def take(self, *, timeout_s: float, most: int | None) -> tuple[Received, ...]:
        """Wait until something is there, at most that long; return all of it, or the first `most`."""
        with self.arrived:
            self.arrived.wait_for(lambda: self._waiting, timeout=max(0.0, timeout_s))
            if most is None or len(self._waiting) <= most:
                received = tuple(self._waiting)
                self._waiting.clear()
                self._bytes = 0
            else:
                received = tuple(self._waiting.popleft() for _ in range(most))
                self._bytes -= sum(len(each.payload) for each in received)
        return received
