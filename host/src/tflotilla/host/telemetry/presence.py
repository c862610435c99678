"""Whether a board is there, as far as one can tell who listens. Pure.

Rules it keeps: a board is called silent only for a time in which we listened; how long it may be silent follows from
how often it reports.
What it does NOT do: look at a clock, or call a board dead: it says what was not heard.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tflotilla.host.telemetry.fleet_view import BoardView

#: Without a word for so many windows, and at least that long, a board whose model runs is silent.
WINDOWS_OF_SILENCE = 3
SILENT_S = 15.0
#: One whose model doesn't run says its state every 30 seconds.
SILENT_IDLE_S = 75.0
#: Who judges silence asks the broker so often whether it is there (MQTT's keep alive): one that hangs, or whose network
#: is gone, is found out after twice that, before any board is called silent for it.
KEEPALIVE_S = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Listening:
    """Since when we listen without a break, and until when we did (Unix seconds of this machine)."""

    since: float
    now: float


def patience_s(view: BoardView) -> float:
    """Return how long a board may say nothing."""
    runs = view.state is None or view.state.worker == "running"
    if not runs or view.metrics is None:
        return SILENT_IDLE_S
    return max(SILENT_S, WINDOWS_OF_SILENCE * view.metrics.window_s)


def silence_s(view: BoardView, listening: Listening) -> float:
    """Return for how long a board said nothing while we listened."""
    return max(0.0, listening.now - max(view.seen, listening.since))


def is_silent(view: BoardView, listening: Listening, *, after_s: float | None = None) -> bool:
    """Whether a board should have said something by now; `after_s` in place of its own patience."""
    return silence_s(view, listening) > (patience_s(view) if after_s is None else after_s)
