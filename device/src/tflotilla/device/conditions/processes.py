"""Which other processes took the processor while something was measured.

Two snapshots of `/proc` are subtracted. A process that began and ended between them is in neither: it shows with the
parent that waited for it, which the kernel charges with it. What nobody waited for, and what runs in other containers,
shows in what all processors were busy, less what is known.
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
#: How `between` marks what a process' children took that have ended.
ENDED = ", children that ended"
#: `/proc/PID/stat` after the name, where the third field is the first: parent; user and system time, the same of
#: children that ended and were waited for; start.
_PARENT, _TIMES, _START = 1, slice(11, 15), 19
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
    #: The same of its children that have ended, and theirs.
    ended_ticks: int = 0


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
    taken = {key: process.ticks - _known(before, key).ticks for key, process in after.processes.items()}
    ended = _ended(before, after)
    loads = [
        ProcessLoad(name=process.name + mark, pid=process.pid, cpu_percent=round(100 * counted[key] / ticks, 2))
        for counted, mark in ((taken, ""), (ended, ENDED))
        for key, process in after.processes.items()
        if process.pid not in mine and counted[key] > 0
    ]
    loads.sort(key=lambda load: (-load.cpu_percent, load.pid, load.name))
    if before.busy_ticks is None or after.busy_ticks is None:
        return tuple(loads[:shown]), None
    own_ticks = sum(
        max(0, taken[key]) + max(0, ended[key]) for key, process in after.processes.items() if process.pid in mine
    )
    others = max(0, after.busy_ticks - before.busy_ticks - own_ticks)
    return tuple(loads[:shown]), round(100 * others / ticks, 2)


_NOTHING = Process(name="", pid=0, parent=0, started=0, ticks=0)


def _known(before: Snapshot, key: tuple[int, int]) -> Process:
    return before.processes.get(key, _NOTHING)


def _ended(before: Snapshot, after: Snapshot) -> dict[tuple[int, int], int]:
    """Return what ended children took between the snapshots, by who was charged with it.

    When a process ends, all that it ever took is charged: what it had taken before the first snapshot comes off again,
    at the nearest ancestor that still runs.
    """
    ended = {key: process.ended_ticks - _known(before, key).ended_ticks for key, process in after.processes.items()}
    by_pid = {process.pid: (key, process) for key, process in before.processes.items()}
    for key, gone in before.processes.items():
        if key in after.processes:
            continue
        seen = {key}
        ancestor = by_pid.get(gone.parent)
        while ancestor is not None and ancestor[0] not in after.processes and ancestor[0] not in seen:
            seen.add(ancestor[0])
            ancestor = by_pid.get(ancestor[1].parent)
        if ancestor is not None and ended.get(ancestor[0], 0) > 0:
            ended[ancestor[0]] -= gone.ticks + gone.ended_ticks
    return ended


def named(loads: Sequence[ProcessLoad], root: Path = facts.ROOT) -> tuple[ProcessLoad, ...]:
    """Say which program an interpreter runs (`python3 tflotilla.device.worker`), for those that are still there.

    Only a module's or a script's name: what else stands on a command line may be secret.
    """

    def name(load: ProcessLoad, program: str) -> str:
        program_only, mark, _ = load.name.partition(ENDED)
        return f"{program_only} {program}{mark}"

    return tuple(
        dataclasses.replace(load, name=name(load, program))
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
    written = (fields[_PARENT], fields[_START], *fields[_TIMES])
    numbers = [value for word in written if (value := files.number(word, least=0, most=_MOST_TICKS)) is not None]
    if len(numbers) < len(written):
        return None
    parent, started, user, system, ended_user, ended_system = numbers
    return Process(
        name=_plain(name) or "?",
        pid=pid,
        parent=parent,
        started=started,
        ticks=user + system,
        ended_ticks=ended_user + ended_system,
    )


def _busy(text: str | None) -> int | None:
    found = re.match(r"cpu((?: +[0-9]{1,18}){4,})$", text or "", re.MULTILINE | re.ASCII)
    if found is None:
        return None
    fields = [int(word) for word in found[1].split()[:_BUSY_FIELDS]]
    return sum(value for place, value in enumerate(fields) if place not in _IDLE)
