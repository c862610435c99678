"""Find and end the processes of a lab: by recorded pid and start time, and by the mark in their environment.

Rules it keeps: a pid is only believed together with its start time or its mark, so a pid that the kernel gave to
somebody else is never signalled. A zombie counts as gone: only its parent can take it away.

It does NOT see processes of other users, and works on Linux alone (`/proc`).
"""

from __future__ import annotations

import os
import signal
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

#: Set in every process of a lab: `<lab id>/<board>`, or `<lab id>/` in those that carry the lab itself.
MARK = "TFLOTILLA_LAB_BOARD"
_PROC = Path("/proc")
_POLL_S = 0.01
_EXEC_POLLS = 100
#: PF_KTHREAD in the kernel's include/linux/sched.h.
_KERNEL_THREAD = 0x00200000


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordedProcess:
    """One process for ever: the pid alone is reused by the kernel, with its start time it is not."""

    pid: int
    #: Clock ticks after boot.
    started_ticks: int


def record(pid: int) -> RecordedProcess | None:
    """Return what identifies a running process; None when it is gone or a zombie."""
    fields = _stat(pid)
    return None if fields is None else RecordedProcess(pid=pid, started_ticks=int(fields[19]))


def alive(process: RecordedProcess) -> bool:
    """Whether that very process still runs."""
    return record(process.pid) == process


def _stat(pid: int) -> list[str] | None:
    try:
        text = (_PROC / str(pid) / "stat").read_text(errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return None
    # The command name in parentheses may hold anything, spaces and parentheses too.
    fields = text.rpartition(")")[2].split()
    return None if fields[0] in {"Z", "X"} else fields


def _pids() -> list[int]:
    return [int(entry) for entry in os.listdir(_PROC) if entry.isdigit()]  # noqa: PTH208 - 10x faster than Path


def marked(prefix: str) -> set[int]:
    """Return the pids whose environment carries a mark that begins with `prefix`, this process left out."""
    wanted = f"{MARK}={prefix}".encode()
    found = set()
    for pid in _pids():
        with suppress(OSError):
            environment = _environment(pid)
            if any(entry.startswith(wanted) for entry in environment.split(b"\0")) and _stat(pid) is not None:
                found.add(pid)
    return found - {os.getpid()}


def _environment(pid: int) -> bytes:
    """Return the environment of a process, waiting while it is in the middle of an exec: then it seems to have none."""
    folder = _PROC / str(pid)
    for _ in range(_EXEC_POLLS):
        environment = (folder / "environ").read_bytes()
        if environment or (folder / "cmdline").read_bytes():
            return environment
        fields = _stat(pid)
        if fields is None or int(fields[6]) & _KERNEL_THREAD:
            return b""
        time.sleep(_POLL_S)
    return b""


def descendants(root: int) -> set[int]:
    """Return the pids of everything below `root`, zombies left out.

    Looks twice: whoever loses its parent between two lines of one look is below nobody in it.
    """
    return _seen_below(root) | _seen_below(root)


def _seen_below(root: int) -> set[int]:
    parents: dict[int, int] = {}
    for pid in _pids():
        fields = _stat(pid)
        if fields is not None:
            parents[pid] = int(fields[1])
    found: set[int] = set()
    frontier = {root}
    while frontier:
        frontier = {pid for pid, parent in parents.items() if parent in frontier} - found
        found |= frontier
    return found


def send(pids: Iterable[int], number: signal.Signals) -> None:
    """Signal each process; those that are gone already are fine."""
    for pid in pids:
        with suppress(ProcessLookupError, PermissionError):
            os.kill(pid, number)


def wait_until(condition: Callable[[], bool], *, timeout_s: float) -> bool:
    """Poll until the condition holds; False when the time is over."""
    end = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(_POLL_S)
    return True


def kill_until_none(find: Callable[[], set[int]], *, timeout_s: float = 10.0) -> bool:
    """SIGKILL whatever `find` finds until it finds nothing: what forks while it is killed is found by the next look."""

    def none_left() -> bool:
        pids = find()
        send(pids, signal.SIGKILL)
        return not pids

    return wait_until(none_left, timeout_s=timeout_s)
