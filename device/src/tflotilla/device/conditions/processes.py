"""Which other processes took the processor while something was measured.

Two snapshots of `/proc` are subtracted. A process that began and ended between them is in neither, nor is one of
another container: they show in what all processors were busy, less what is known.
The kernel counts in ticks of 10 ms, so a figure from a short time is coarse. What this module does NOT do: judge.
"""

from __future__ import annotations

import dataclasses
import os
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tflotilla.device import facts
from tflotilla.device.conditions import files
from tflotilla.shared.contract.benchmark import ProcessLoad

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

#: So many of the busiest are reported.
SHOWN = 8
_MOST_TICKS = 1 << 62
_MOST_PID = 1 << 32
#: `/proc/PID/stat` after the name: state, parent, …; user and system time and start are the 14th, 15th and 22nd field.
_PARENT, _USER, _SYSTEM, _START = 1, 11, 12, 19
#: user nice system idle iowait irq softirq steal; guests are in user already.
_IDLE = (3, 4)
_BUSY_FIELDS = 8
_INTERPRETERS = ("python", "node", "ruby", "perl", "java")
_OPTIONS_WITH_VALUE = frozenset({"-X", "-W", "-cp", "-classpath"})
_LONGEST_NAME = 60
_NS = 1_000_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Process:
    """What one process had taken so far, in ticks."""

    name: str
    pid: int
    parent: int
    #: With the pid it tells processes apart: pids come again.
    started: int
    ticks: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """All processes at one moment."""

    at_ns: int
    ticks_per_s: int
    #: What all processors together were busy since boot; None when it can't be read.
    busy_ticks: int | None
    processes: Mapping[tuple[int, int], Process] = field(default_factory=dict)


def snapshot(root: Path = facts.ROOT, *, clock: Callable[[], int] = time.monotonic_ns) -> Snapshot:
    """Return what every process has taken so far; some milliseconds of work."""
    at_ns = clock()
    found = {}
    try:
        names = [path.name for path in (root / "proc").iterdir()]
    except OSError:
        names = []
    for name in names:
        # Checked first: most of what lies in /proc is no process.
        pid = files.number(name, least=1, most=_MOST_PID) if name.isdigit() else None
        process = _parse(pid, files.text(root / "proc" / name / "stat")) if pid is not None else None
        if process is not None:
            found[process.pid, process.started] = process
    return Snapshot(
        at_ns=at_ns,
        ticks_per_s=os.sysconf("SC_CLK_TCK"),
        busy_ticks=_busy(files.text(root / "proc/stat")),
        processes=found,
    )


def between(
    before: Snapshot, after: Snapshot, own: frozenset[int], *, shown: int = SHOWN
) -> tuple[tuple[ProcessLoad, ...], float | None]:
    """Return the busiest others, most first, and what everything else took together; 100 is one core.

    `own` are the process ids that don't count, nor do their children. The sum is None when the kernel doesn't tell.
    """
    ticks = (after.at_ns - before.at_ns) / _NS * after.ticks_per_s
    if ticks <= 0:
        return (), None
    mine = _family(after, own)
    taken = {
        key: process.ticks - (before.processes[key].ticks if key in before.processes else 0)
        for key, process in after.processes.items()
    }
    loads = [
        ProcessLoad(name=process.name, pid=process.pid, cpu_percent=round(100 * taken[key] / ticks, 2))
        for key, process in after.processes.items()
        if process.pid not in mine and taken[key] > 0
    ]
    loads.sort(key=lambda load: (-load.cpu_percent, load.pid))
    if before.busy_ticks is None or after.busy_ticks is None:
        return tuple(loads[:shown]), None
    own_ticks = sum(max(0, taken[key]) for key, process in after.processes.items() if process.pid in mine)
    others = max(0, after.busy_ticks - before.busy_ticks - own_ticks)
    return tuple(loads[:shown]), round(100 * others / ticks, 2)


def named(loads: Sequence[ProcessLoad], root: Path = facts.ROOT) -> tuple[ProcessLoad, ...]:
    """Say which program an interpreter runs (`python3 tflotilla.device.worker`), for those that are still there.

    Only a module's or a script's name: what else stands on a command line may be secret.
    """
    return tuple(
        dataclasses.replace(load, name=f"{load.name} {program}")
        if load.name.startswith(_INTERPRETERS)
        and (program := _program(files.text(root / "proc" / str(load.pid) / "cmdline")))
        else load
        for load in loads
    )


def _program(cmdline: str | None) -> str | None:
    words = iter((cmdline or "").split("\0")[1:])
    for word in words:
        if word == "-m":
            return _plain(next(words, ""))
        if word in _OPTIONS_WITH_VALUE:
            next(words, None)
        elif word == "-c":
            return None
        elif word and not word.startswith("-"):
            return _plain(word.rpartition("/")[2])
    return None


def _plain(name: str) -> str | None:
    shown = "".join(letter if letter.isprintable() else "?" for letter in name[:_LONGEST_NAME])
    return shown or None


def _family(snapshot: Snapshot, own: frozenset[int]) -> frozenset[int]:
    children: dict[int, list[int]] = {}
    for process in snapshot.processes.values():
        children.setdefault(process.parent, []).append(process.pid)
    found = set()
    open_pids = list(own)
    while open_pids:
        pid = open_pids.pop()
        if pid not in found:
            found.add(pid)
            open_pids += children.get(pid, ())
    return frozenset(found)


def _parse(pid: int | None, text: str | None) -> Process | None:
    """Return what a `stat` says. The name may hold anything, brackets and spaces too, so the last bracket ends it."""
    if pid is None or text is None:
        return None
    head, closed, tail = text.rpartition(")")
    _, opened, name = head.partition("(")
    fields = tail.split()
    if not (opened and closed) or len(fields) <= _START:
        return None
    parent, user, system, started = (
        files.number(fields[place], least=0, most=_MOST_TICKS) for place in (_PARENT, _USER, _SYSTEM, _START)
    )
    if parent is None or user is None or system is None or started is None:
        return None
    return Process(name=_plain(name) or "?", pid=pid, parent=parent, started=started, ticks=user + system)


def _busy(text: str | None) -> int | None:
    found = re.match(r"cpu((?: +[0-9]{1,18}){4,})$", text or "", re.MULTILINE | re.ASCII)
    if found is None:
        return None
    fields = [int(word) for word in found[1].split()[:_BUSY_FIELDS]]
    return sum(value for place, value in enumerate(fields) if place not in _IDLE)
