"""What a board is and offers. Facts are read on the board (`device.facts`, or the host's probe script before that)."""

from __future__ import annotations

import re
from dataclasses import dataclass

_BOARD_ID = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")


def check_board_id(text: str) -> str:
    """Return `text` if it is a BoardId (`^[a-z0-9][a-z0-9-]{0,62}$`). Raises ValueError."""
    if not _BOARD_ID.fullmatch(text):
        message = f"board name {text[:80]!r}: use lower-case letters, digits and '-', at most 63, no '-' in front"
        raise ValueError(message)
    return text


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class RuntimeOffer:
    """One importable runtime: `tflite-runtime` or `ai-edge-litert`, by its PyPI name, and its version."""

    name: str
    version: str

    def __str__(self) -> str:
        """`tflite-runtime==2.14.0`, as pip and `--target-runtime` write it."""
        return f"{self.name}=={self.version}"


@dataclass(frozen=True, slots=True, kw_only=True)
class BoardFacts:
    """One board, measured at `time` (Unix seconds by the board's clock)."""

    time: float
    hostname: str
    #: `/proc/device-tree/model`; None on machines that have none.
    model: str | None
    arch: str
    kernel: str
    #: `glibc 2.36` or `musl`; None when it can't be told.
    libc: str | None
    python: str
    cores: int
    ram_bytes: int
    disk_free_bytes: int
    distribution: str | None
    systemd: bool
    user: str
    #: Empty before the bootstrap: nothing is installed then.
    runtimes: tuple[RuntimeOffer, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ServedBundle:
    """Which release serves."""

    digest: str
    name: str
    version: str
    release: int
