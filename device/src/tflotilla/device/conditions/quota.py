"""Whether a control group's CPU quota stopped this process: containers and systemd's `CPUQuota=` do that in bursts.

The quota of any group above counts as well. Both hierarchies are known: cgroup v2 counts microseconds, v1 nanoseconds.
"""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from tflotilla.device import facts
from tflotilla.device.conditions import files

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_MOST = 1 << 62
_DEEPEST = 32
#: In cpu.stat, and how many of its units are a microsecond.
_COUNTERS = {"throttled_usec": 1, "throttled_time": 1000}


def stopped_us(root: Path = facts.ROOT) -> int | None:
    """Return for how many microseconds this process' groups were stopped so far; None where nobody counts."""
    found = [us for folder in _groups(root) if (us := _stopped(files.text(folder / "cpu.stat"))) is not None]
    return sum(found) if found else None


def _groups(root: Path) -> Iterator[Path]:
    for line in (files.text(root / "proc/self/cgroup") or "").splitlines():
        _, _, rest = line.partition(":")
        controllers, _, name = rest.partition(":")
        base = root / "sys/fs/cgroup"
        if controllers:
            if "cpu" not in controllers.split(","):
                continue
            # One hierarchy per controller; its folder is a link from each of their names.
            base /= "cpu"
        group = PurePosixPath(name.lstrip("/"))
        # "/../.." is a group above the one that a container can see.
        if name.startswith("/") and ".." not in group.parts and len(group.parts) <= _DEEPEST:
            yield from (base / above for above in _with_parents(group))


def _with_parents(group: PurePosixPath) -> tuple[PurePosixPath, ...]:
    return (group, *group.parents) if group.parts else (group,)


def _stopped(text: str | None) -> int | None:
    for line in (text or "").splitlines():
        key, _, rest = line.partition(" ")
        value = files.number(rest, least=0, most=_MOST) if key in _COUNTERS else None
        if value is not None:
            return value // _COUNTERS[key]
    return None
