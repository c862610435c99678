"""Facts of boards that look asked for: a Raspberry Pi 4 with both runtimes, or what a test makes of it."""

from __future__ import annotations

import dataclasses
from typing import Any

from tflotilla.shared.contract.board import BoardFacts, RuntimeOffer

LITERT = RuntimeOffer(name="ai-edge-litert", version="2.3.0")
TFLITE = RuntimeOffer(name="tflite-runtime", version="2.14.0")
_PI_4 = BoardFacts(
    time=1.0,
    hostname="pi",
    model="Raspberry Pi 4 Model B Rev 1.4",
    arch="aarch64",
    kernel="6.1.0-rpi7-rpi-v8",
    libc="glibc 2.36",
    python="3.11.2",
    cores=4,
    ram_bytes=4 << 30,
    disk_free_bytes=20 << 30,
    distribution="Debian GNU/Linux 12 (bookworm)",
    systemd=True,
    user="pi",
    runtimes=(LITERT, TFLITE),
)


def facts(**changes: Any) -> BoardFacts:  # noqa: ANN401 - any field of BoardFacts
    """Return the board's facts with some fields changed."""
    return dataclasses.replace(_PI_4, **changes)
