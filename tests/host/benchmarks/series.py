"""Seeded series of latencies whose truth is known: independent ones, ones that remember, ones with a heavy tail."""

from __future__ import annotations

import math
import random


def independent(count: int, seed: int, *, median_ns: float = 5e6, spread: float = 0.05) -> list[int]:
    """Return log-normal latencies."""
    rng = random.Random(seed)  # noqa: S311 - a test wants the same numbers each time
    return [int(median_ns * math.exp(spread * rng.gauss(0, 1))) for _ in range(count)]


def remembering(
    count: int, seed: int, *, memory: float = 0.9, median_ns: float = 5e6, spread: float = 0.05
) -> list[int]:
    """Return log-normal latencies of which each resembles the one before: an AR(1) process, begun where it settles."""
    rng = random.Random(seed)  # noqa: S311 - a test wants the same numbers each time
    state = rng.gauss(0, 1)
    found = []
    for _ in range(count):
        found.append(int(median_ns * math.exp(spread * state)))
        state = memory * state + math.sqrt(1 - memory * memory) * rng.gauss(0, 1)
    return found


def with_tail(count: int, seed: int, *, share: float, factor: float = 4.0) -> list[int]:
    """Return latencies of which a share is so many times slower."""
    rng = random.Random(seed)  # noqa: S311 - a test wants the same numbers each time
    return [int(value * (factor if rng.random() < share else 1)) for value in independent(count, seed + 1)]
