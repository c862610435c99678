"""Which process is this, and does that one still live: for leases whose holder was killed.

Rules it keeps: a process counts as gone only where that is certain, which is on the same running kernel and in the same
space of process numbers; a number that was given to another process since is told by when that one began.
What it does NOT do: judge processes of other machines; their leases run out.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessIdentity:
    """One process among all there ever were; `place` and `began` are empty where the system doesn't say."""

    #: The running kernel and the space of process numbers.
    place: str
    pid: int
    #: When it began, in the kernel's ticks since boot.
    began: str


def of_this_process() -> ProcessIdentity:
    """Return who asks."""
    pid = os.getpid()
    return ProcessIdentity(place=_place(), pid=pid, began=_began(pid))


def is_gone(process: ProcessIdentity) -> bool:
    """Whether it is certain that this process does not live any more."""
    if not process.place or process.place != _place():
        return False
    return _began(process.pid) != process.began


def _place() -> str:
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        # A container of the same kernel counts from 1 again.
        return f"{boot}/{Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return ""


def _began(pid: int) -> str:
    """Return field 22 of /proc/PID/stat (proc_pid_stat(5)), empty for a process that is gone or waits to be buried."""
    try:
        # The name of a program may hold spaces and parentheses; fields are counted from its end.
        fields = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
    except OSError:
        return ""
    state, began = fields[0], fields[19]
    return "" if state in "ZX" else began
