"""Figures and foreign words as people read them, on every page and in every terminal."""

from __future__ import annotations


def duration(nanoseconds: float) -> str:
    """Write a latency with three digits and its unit: `25.4 µs`, `1.84 ms`, `12.0 s`."""
    for unit, scale in (("µs", 1e3), ("ms", 1e6), ("s", 1e9)):
        value = nanoseconds / scale
        if value < 999.5 or unit == "s":  # noqa: PLR2004 - what is not rounded to 1000
            digits = 2 if value < 9.995 else 1 if value < 99.95 else 0  # noqa: PLR2004 - three digits
            return f"{value:.{digits}f} {unit}"
    raise AssertionError


def printable(text: str, width: int = 40) -> str:
    """Show foreign words without obeying them: control characters become `?`, long ones end in an ellipsis."""
    safe = "".join(character if character.isprintable() else "?" for character in text)
    return safe if len(safe) <= width else safe[: width - 1] + "…"
