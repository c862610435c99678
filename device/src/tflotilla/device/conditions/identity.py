"""What tells one board from another of the same name: its revision, and the clock its kernel counts with."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tflotilla.device import facts
from tflotilla.device.conditions import files

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Hardware:
    """Both as in `contract.benchmark.Identity`; None where it can't be told."""

    clock_source: str | None
    revision: str | None


def read(root: Path = facts.ROOT) -> Hardware:
    """Return what this board says of itself."""
    return Hardware(
        clock_source=files.word(root / "sys/devices/system/clocksource/clocksource0/current_clocksource"),
        revision=_revision(root),
    )


def _revision(root: Path) -> str | None:
    """Return a Raspberry Pi's revision code (`c03114`), as `/proc/cpuinfo` writes it."""
    found = re.search(r"^Revision\s*:\s*([0-9a-fA-F]{4,8})\s*$", files.text(root / "proc/cpuinfo") or "", re.MULTILINE)
    # Other ARM boards write zeros there.
    return found[1].lower() if found and found[1].strip("0") else None
