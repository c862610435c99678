"""Ctrl-C comes twice where impatience or a script sends it so; the second must not cut short what the first began."""

from __future__ import annotations

import contextlib
import signal
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextlib.contextmanager
def held_off() -> Iterator[None]:
    """Ignore SIGINT for the time of the block; what is done in it must have an end of its own."""
    if threading.current_thread() is not threading.main_thread():
        # Signals arrive in the main thread alone.
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
