"""The words for how a process ended. Light: the supervisor and its guard use it too."""

from __future__ import annotations

import signal


def signal_name(number: int) -> str:
    """Return what a signal is called: most real-time ones, which can end a process too, have no name."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
