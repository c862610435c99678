"""When a report counts, and when it comes to nobody's store: the decisions at the door.

A board's clock may be years off: boards have no battery, and one that finds no time server lives in 1970. A report
counts by the board's clock where that agrees with when it came (a board's outbox may hold a month), and else by when it
came: wrong by the outage, instead of wrong by decades.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tflotilla.host.telemetry.store.port import Arrival

#: An outbox is emptied after an outage: that old may it be.
OLDEST_S = 31 * 86400.0
#: Two clocks that nobody set are not that far apart.
MOST_AHEAD_S = 300.0
_MOST_SEQ = (1 << 63) - 1
_LONGEST_NAME = 200
#: Numbered, and kept each.
NUMBERED = frozenset({"metrics", "predictions", "deployment", "benchmark", "event"})
#: Of the moment, and the newest kept.
LATEST = frozenset({"state", "model"})


def when(time: float, at: float) -> float:
    """Return when a report counts (Unix seconds), which says `time` and came `at`."""
    return time if at - OLDEST_S <= time <= at + MOST_AHEAD_S else at


def is_numbered(arrival: Arrival) -> bool:
    """Whether it is one of those that are kept each, under a number and names that can be written down."""
    return (
        arrival.channel in NUMBERED
        and 0 < arrival.seq <= _MOST_SEQ
        and is_name(arrival.boot)
        and math.isfinite(arrival.at)
    )


def is_name(text: str) -> bool:
    """Whether it is a short line of text: some databases can't hold others."""
    return 0 < len(text) <= _LONGEST_NAME and text.isprintable()
