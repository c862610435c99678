"""Finished lines on their way to the supervisor: written when the pipe takes them, never waited for.

Rules it keeps:
- `offer` and `flush` never block, however long nobody reads;
- what waits is bounded in bytes; beyond that the oldest results go first and are counted, then the oldest metrics;
- a line is written whole or not at all: one that the pipe took half of is never thrown away.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import time
from collections import deque
from dataclasses import dataclass

#: About half a minute of a small model at full speed, or a day of one result per second.
LIMIT_BYTES = 8 << 20
#: What Linux lets every user ask for; the default of 64 KiB is full after 6 ms at 40,000 results per second.
_PIPE_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class _Line:
    data: bytes
    results: int


class Handover:
    """A queue of lines in front of a pipe. Owns the descriptor's flags, not the descriptor."""

    def __init__(self, channel: int, *, limit_bytes: int = LIMIT_BYTES) -> None:
        self.channel = channel
        self._limit = limit_bytes
        self._lines: deque[_Line] = deque()
        self._size = 0
        #: Bytes of the first line that the pipe already took.
        self._written = 0
        self._dropped = 0
        os.set_blocking(channel, False)
        # Not a pipe, or the system's limit for pipes is used up: the default works too.
        with contextlib.suppress(OSError):
            fcntl.fcntl(channel, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)

    @property
    def waiting(self) -> bool:
        """Whether lines wait for the reader."""
        return bool(self._lines)

    @property
    def waiting_bytes(self) -> int:
        """How many bytes wait; at most the limit plus one line."""
        return self._size

    def take_dropped(self) -> int:
        """Return how many results were thrown away since this was last asked."""
        dropped, self._dropped = self._dropped, 0
        return dropped

    def offer(self, kind: bytes, body: bytes, *, results: int = 0) -> None:
        """Queue one line holding so many results, and write what the pipe takes. Raises BrokenPipeError."""
        line = _Line(kind + body + b"\n", results)
        self._lines.append(line)
        self._size += len(line.data)
        self.flush()
        if self._size > self._limit:
            self._make_room()

    def flush(self) -> None:
        """Write what the pipe takes now. Raises BrokenPipeError when the reader is gone."""
        while self._lines:
            line = self._lines[0]
            try:
                self._written += os.write(self.channel, memoryview(line.data)[self._written :])
            except BlockingIOError:
                return
            if self._written == len(line.data):
                self._lines.popleft()
                self._size -= len(line.data)
                self._written = 0

    def drain(self, timeout_s: float) -> None:
        """Write everything, waiting that long at most; for the end, when nothing is left to be held up."""
        deadline = time.monotonic() + timeout_s
        while self._lines and (rest_s := deadline - time.monotonic()) > 0:
            if select.select([], [self.channel], [], rest_s)[1]:
                self.flush()

    def _make_room(self) -> None:
        begun = [self._lines.popleft()] if self._written else []
        results = [line for line in self._lines if line.results]
        others = [line for line in self._lines if not line.results]
        for victims in (results, others):
            while self._size > self._limit and victims:
                victim = victims.pop(0)
                self._size -= len(victim.data)
                self._dropped += victim.results
        kept = {id(line) for line in (*results, *others)}
        self._lines = deque([*begun, *(line for line in self._lines if id(line) in kept)])
