"""Quantities as people type them: `30ms`, `10min`, `120MiB`. A bare number is in the unit the option is named for."""

from __future__ import annotations

import re

from tflotilla.shared.contract.errors import UsageError

_QUANTITY = re.compile(r"(\d+(?:\.\d+)?)\s*([a-zA-Zµ]*)")
_SECONDS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "min": 60.0, "h": 3600.0}
_BYTES = {"b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "kib": 1 << 10, "mib": 1 << 20, "gib": 1 << 30}


def milliseconds(option: str, text: str | None) -> float | None:
    """Read a time like `30ms` or `0.5s`; a bare number is milliseconds. Raises UsageError."""
    found = _read(option, text, _SECONDS, bare="ms", like="30ms or 0.5s")
    return None if found is None else found * 1e3


def seconds(option: str, text: str | None) -> float | None:
    """Read a time like `90s` or `10min`; a bare number is seconds. Raises UsageError."""
    return _read(option, text, _SECONDS, bare="s", like="90s or 10min")


def mebibytes(option: str, text: str | None) -> float | None:
    """Read a size like `120MiB`; a bare number is MiB. Raises UsageError."""
    found = _read(option, text, _BYTES, bare="mib", like="120MiB or 1GiB")
    return None if found is None else found / (1 << 20)


def bytes_per_second(option: str, text: str | None) -> float | None:
    """Read a rate like `500kB`; a bare number is bytes per second. Raises UsageError."""
    found = _read(option, None if text is None else text.removesuffix("/s"), _BYTES, bare="b", like="500kB or 1MB")
    if found is not None and found < 1:
        raise UsageError(f"{option} must be at least 1 byte per second")
    return found


def _read(
    option: str, text: str | None, units: dict[str, float] | dict[str, int], *, bare: str, like: str
) -> float | None:
    if text is None:
        return None
    found = _QUANTITY.fullmatch(text.strip())
    unit = None if found is None else units.get(found[2].lower() or bare)
    if found is None or unit is None:
        raise UsageError(f"{option} must be like {like}, not {text!r}")
    return float(found[1]) * unit
