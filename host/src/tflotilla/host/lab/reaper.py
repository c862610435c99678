"""The process space of one virtual board: every child and every orphan below it belongs to this process.

Rules it keeps: it is a subreaper, so a daemon that forks itself away becomes its child instead of init's; every
exit status is collected here and nowhere else (asyncio's own child watchers are not used: two that wait for the same
pid take the status from each other); when it ends, nothing below it lives.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import signal
import subprocess
from typing import TYPE_CHECKING

from tflotilla.host.lab import processes

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

_PR_SET_CHILD_SUBREAPER = 36
_POLL_S = 0.01


def become_subreaper() -> None:
    """Let orphans below this process become its children. Raises OSError where the kernel refuses."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


class Children:
    """Starts children and reaps them and all that they leave behind; lives in one event loop."""

    def __init__(self) -> None:
        become_subreaper()
        self._loop = asyncio.get_running_loop()
        self._waiting: dict[int, tuple[subprocess.Popen[bytes], asyncio.Future[int]]] = {}
        self._loop.add_signal_handler(signal.SIGCHLD, self._reap)

    def start(
        self,
        argv: Sequence[str],
        *,
        streams: tuple[int, int, int],
        environment: Mapping[str, str],
        folder: Path,
        before_exec: Callable[[], None] | None = None,
    ) -> tuple[int, asyncio.Future[int]]:
        """Start a program in a session of its own on three descriptors.

        Returns:
            Its pid, and the future of its wait status as `os.waitstatus_to_exitcode` gives it (negative: a signal).

        Raises:
            OSError: it can't be started.

        """
        stdin, stdout, stderr = streams
        started = subprocess.Popen(
            argv,
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            env=dict(environment),
            cwd=folder,
            start_new_session=True,
            preexec_fn=before_exec,  # noqa: PLW1509 - this process has one thread
        )
        exited: asyncio.Future[int] = self._loop.create_future()
        # No race with _reap: both run in the loop's thread, and signals are handled between two callbacks.
        self._waiting[started.pid] = (started, exited)
        return started.pid, exited

    def _reap(self) -> bool:
        """Collect who ended; True when nobody is left."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return True
            if pid == 0:
                return False
            if pid in self._waiting:
                started, exited = self._waiting.pop(pid)
                # Popen must not wait for it again when it is collected.
                started.returncode = os.waitstatus_to_exitcode(status)
                if not exited.done():
                    exited.set_result(started.returncode)

    async def end(self, *, grace_s: float) -> None:
        """Ask everything below this process to end, kill what stays, and return when nothing is left."""
        below = processes.descendants(os.getpid())
        processes.send(below, signal.SIGTERM)
        deadline = self._loop.time() + grace_s
        # The kernel says when nothing is left: a look at /proc may miss who is changing parents meanwhile.
        while not self._reap():
            if self._loop.time() >= deadline:
                processes.send(processes.descendants(os.getpid()), signal.SIGKILL)
            await asyncio.sleep(_POLL_S)


def end_of(lifeline: int | None) -> asyncio.Event:
    """Return what is set by SIGTERM, SIGINT, or when whoever holds the other end of `lifeline` is gone."""
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    if lifeline is not None:
        loop.add_reader(lifeline, stop.set)
    return stop
