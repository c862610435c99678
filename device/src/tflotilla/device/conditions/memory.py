"""Memory as the kernel counts it: processes killed for want of it, pages swapped, and who is killed first."""

from __future__ import annotations

import resource
from typing import TYPE_CHECKING

from tflotilla.device import facts
from tflotilla.device.conditions import files

if TYPE_CHECKING:
    from pathlib import Path

_MOST = 1 << 62
_LEAST_ADJ, _MOST_ADJ = -1000, 1000


def oom_kills(root: Path = facts.ROOT) -> int | None:
    """Return how many processes were killed for want of memory since boot; None before Linux 4.13.

    Inside a container this counts the whole machine's.
    """
    return _vmstat(root).get("oom_kill")


def pages_swapped(root: Path = facts.ROOT) -> int | None:
    """Return how many pages went to or came from swap since boot; None on a kernel without swap."""
    counters = _vmstat(root)
    return counters["pswpin"] + counters["pswpout"] if {"pswpin", "pswpout"} <= counters.keys() else None


def disk_faults() -> int:
    """Return how often this process had to wait for a page to be read from disk since it began."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_majflt


def set_oom_score_adj(value: int, root: Path = facts.ROOT) -> bool:
    """Say how soon this process is killed when memory runs out, 1000 being first; False when that isn't allowed.

    Any process may volunteer; only root can ask to be spared.

    Raises:
        ValueError: outside -1000..1000.

    """
    if not _LEAST_ADJ <= value <= _MOST_ADJ:
        message = f"oom_score_adj is {_LEAST_ADJ}..{_MOST_ADJ}, not {value}"
        raise ValueError(message)
    try:
        (root / "proc/self/oom_score_adj").write_text(f"{value}\n")
    except OSError:
        return False
    return True


def _vmstat(root: Path) -> dict[str, int]:
    found = {}
    for line in (files.text(root / "proc/vmstat") or "").splitlines():
        key, _, rest = line.partition(" ")
        value = files.number(rest, least=0, most=_MOST)
        if value is not None:
            found[key] = value
    return found
