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


def age(seconds: float) -> str:
    """Write how long something took or is ago, to the unit that matters: `40 s`, `12 min`, `3 h`, `5 d`."""
    for unit, scale, enough in (("s", 1.0, 120.0), ("min", 60.0, 120.0), ("h", 3600.0, 48.0)):
        if seconds / scale < enough:
            return f"{max(0.0, seconds) / scale:.0f} {unit}"
    return f"{seconds / 86400:.0f} d"


def printable(text: str, width: int = 40) -> str:
    """Show foreign words without obeying them: control characters become `?`, long ones end in an ellipsis."""
    safe = "".join(character if character.isprintable() else "?" for character in text)
    return safe if len(safe) <= width else safe[: width - 1] + "…"
