"""How long to wait before trying again: doubling, bounded, jittered. Pure; the caller sleeps.

The jitter keeps a fleet from coming back to its broker in one instant after a power cut.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(slots=True, kw_only=True)
class Backoff:
    """Waits of `first_s`, twice that, … up to `limit_s`, each times a random 0.5..1."""

    first_s: float
    limit_s: float
    chance: Callable[[], float] = random.random
    failures: int = 0

    def next_s(self) -> float:
        """Count a failure and return the seconds to wait."""
        # Beyond 2^32 the limit holds anyway, and the power would only grow.
        wait = min(self.limit_s, self.first_s * float(1 << min(self.failures, 32)))
        self.failures += 1
        return wait * (0.5 + 0.5 * self.chance())

    def reset(self) -> None:
        """Begin again after a success."""
        self.failures = 0
