"""Keeps the agent running where no systemd does: a daemon that starts it, restarts it, and keeps its log small.

Rules it keeps: one guard per home; the agent ends with its guard, also when that is killed; an agent that dies at once
is started again ever more slowly; the log takes at most twice `LOG_LIMIT_BYTES`.
What it does NOT do: outlive a reboot (the bootstrap installs an `@reboot` entry), or look into the agent.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

from tflotilla.device import control
from tflotilla.device.backoff import Backoff
from tflotilla.device.child import die_with_parent
from tflotilla.device.endings import signal_name
from tflotilla.device.pid_lock import PidLock, holder
from tflotilla.shared.contract.errors import BoardError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from tflotilla.device.home import Home

LOG_LIMIT_BYTES = 1 << 20
#: An agent that lived so long has come up; its next death starts a new series.
HEALTHY_AFTER_S = 60.0
FIRST_WAIT_S = 1.0
LONGEST_WAIT_S = 60.0
#: What an agent gets between SIGTERM and SIGKILL: a worker's end and the outbox's last commit.
STOP_TIMEOUT_S = 15.0
START_TIMEOUT_S = 30.0
_POLL_S = 0.05
_SHOWN_BYTES = 4096


def default_command(home: Home) -> tuple[str, ...]:
    """Return what runs the agent: the launcher, so that a restart takes up a new environment, else this Python."""
    program = (str(home.launcher),) if os.access(home.launcher, os.X_OK) else (sys.executable, "-m", "tflotilla.device")
    return (*program, "--home", str(home.path), "run")


def status(home: Home) -> int | None:
    """Return the process id of the guard, None when none runs."""
    return holder(home.guard_pid)


def start(home: Home, command: Sequence[str], *, timeout_s: float = START_TIMEOUT_S) -> int:
    """Start guard and agent as daemons and wait until the agent answers; one that runs already is left alone.

    Returns:
        The guard's process id.

    Raises:
        BoardError: the agent did not come up, with its last words; nothing keeps running then.

    """
    running = status(home)
    if running is not None:
        return running
    home.make()
    reading, writing = os.pipe()
    middle = os.fork()
    if middle == 0:
        _become_daemon(home, command, writing)
    os.close(writing)
    os.waitpid(middle, 0)
    with contextlib.closing(os.fdopen(reading, "rb", buffering=0)) as news:
        said = _await_agent(home, news.fileno(), time.monotonic() + timeout_s)
    pid = status(home)
    if said is None and pid is not None:
        return pid
    stop(home)
    reason = said or f"it did not answer in {timeout_s:g} s"
    message = f"the agent did not come up: {reason}; its log is {home.log}"
    raise BoardError(message)


def stop(home: Home) -> bool:
    """End guard and agent; return whether a guard ran. Raises BoardError when it doesn't end."""
    pid = status(home)
    if pid is None:
        return False
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGTERM)
    deadline = time.monotonic() + 2 * STOP_TIMEOUT_S
    while status(home) == pid:
        if time.monotonic() > deadline:
            message = f"the guard (process {pid}) does not end; see {home.log}"
            raise BoardError(message)
        time.sleep(_POLL_S)
    return True


def _await_agent(home: Home, news: int, deadline: float) -> str | None:
    """Return None when the agent answers, else what the guard said of its end."""
    while time.monotonic() < deadline:
        if select.select([news], [], [], _POLL_S)[0]:
            return os.read(news, _SHOWN_BYTES).decode(errors="replace").strip() or "its guard died"
        if control.is_running(home):
            return None
    return ""


def _become_daemon(home: Home, command: Sequence[str], news: int) -> None:
    """Fork again, leave the session and every inherited file, and guard. Never returns."""
    code = 1
    try:
        os.setsid()
        if os.fork() == 0:
            os.chdir(home.path)
            os.umask(0o077)
            null = os.open(os.devnull, os.O_RDWR)
            for standard in (0, 1, 2):
                os.dup2(null, standard)
            kept = os.dup2(news, 3, inheritable=False)
            os.closerange(kept + 1, os.sysconf("SC_OPEN_MAX"))
            code = run(home, command, news=kept)
        else:
            code = 0
    finally:
        # Not sys.exit: what the parent registered to be done at exit is the parent's to do.
        os._exit(code)


def run(home: Home, command: Sequence[str], *, news: int | None = None) -> int:
    """Guard in this process until SIGTERM or SIGINT. Returns the exit code: 0, or 1 when another guard runs.

    `news` is a descriptor that hears, once, why the first agent ended.
    """
    lock = PidLock(home.guard_pid)
    if not lock.acquire():
        return 1
    try:
        with _Log(home.log) as log:
            _Guard(command, log, news).watch()
    finally:
        lock.release()
    return 0


class _Guard:
    def __init__(self, command: Sequence[str], log: _Log, news: int | None) -> None:
        self._command = tuple(command)
        self._log = log
        self._news = news
        self._stopping = False
        self._woken, waker = os.pipe()
        for end in (self._woken, waker):
            os.set_blocking(end, False)
        signal.set_wakeup_fd(waker, warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._stop)
        # A handler, if an empty one: ignored signals wake nobody.
        signal.signal(signal.SIGCHLD, lambda _number, _frame: None)

    def _stop(self, _number: int, _frame: object) -> None:
        self._stopping = True

    def watch(self) -> None:
        backoff = Backoff(first_s=FIRST_WAIT_S, limit_s=LONGEST_WAIT_S)
        while not self._stopping:
            began = time.monotonic()
            ending = self._run_once()
            if self._stopping:
                break
            if time.monotonic() - began >= HEALTHY_AFTER_S:
                backoff.reset()
            wait_s = backoff.next_s()
            self._tell_news(ending)
            self._note(f"{ending}; starting it again in {wait_s:.1f} s")
            self._sleep(wait_s)
        self._note("stopped")

    def _run_once(self) -> str:
        """Run the agent to its end, keeping what it says; return how it ended."""
        try:
            agent = subprocess.Popen(
                self._command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=die_with_parent,  # noqa: PLW1509 - this process has one thread, so nothing can be locked
            )
        except OSError as error:
            return f"the agent can't be started ({' '.join(self._command)}: {error.strerror})"
        self._note(f"started the agent as process {agent.pid}")
        kill_at: float | None = None
        with agent:
            if agent.stdout is None:
                raise AssertionError
            output = agent.stdout.fileno()
            os.set_blocking(output, False)
            open_output = True
            while agent.poll() is None:
                if self._stopping and kill_at is None:
                    agent.terminate()
                    kill_at = time.monotonic() + STOP_TIMEOUT_S
                if kill_at is not None and time.monotonic() > kill_at:
                    agent.kill()
                self._wait(output if open_output else None, 1.0 if kill_at else None)
                open_output = open_output and self._copy(output)
            self._copy(output)
            # Whatever the agent left behind: workers die with it, this is for what doesn't keep that rule.
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(agent.pid, signal.SIGKILL)
        code = agent.returncode
        ending = f"was killed by {signal_name(-code)}" if code < 0 else f"ended with exit code {code}"
        return f"the agent {ending}"

    def _copy(self, output: int) -> bool:
        """Move what the agent said into the log; False once it can say nothing more."""
        with contextlib.suppress(BlockingIOError):
            while data := os.read(output, 64 << 10):
                self._log.write(data)
            return False
        return True

    def _wait(self, output: int | None, timeout_s: float | None) -> None:
        watched = [self._woken] if output is None else [self._woken, output]
        ready = select.select(watched, [], [], timeout_s)[0]
        if self._woken in ready:
            with contextlib.suppress(BlockingIOError):
                os.read(self._woken, 4096)

    def _sleep(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while not self._stopping and (left := until - time.monotonic()) > 0:
            self._wait(None, left)

    def _tell_news(self, ending: str) -> None:
        if self._news is not None:
            last = self._log.last_line()
            with contextlib.suppress(OSError):  # whoever started us has gone
                os.write(self._news, f"{ending}: {last}".encode()[:_SHOWN_BYTES] if last else ending.encode())
            os.close(self._news)
            self._news = None

    def _note(self, text: str) -> None:
        stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        self._log.write(f"{stamp} guard: {text}\n".encode())


class _Log:
    """A file that begins anew when it is full; the one before it is kept as `….1`."""

    def __init__(self, path: Path, limit_bytes: int = LOG_LIMIT_BYTES) -> None:
        self._path = path
        self._limit_bytes = limit_bytes
        self._handle = self._open()
        self._last = b""

    def __enter__(self) -> _Log:  # noqa: PYI034 - typing.Self is newer than the oldest Python here
        return self

    def __exit__(self, *_error: object) -> None:
        os.close(self._handle)

    def write(self, data: bytes) -> None:
        self._last = (self._last + data)[-_SHOWN_BYTES:]
        with contextlib.suppress(OSError):  # a full disk must not end the guard
            if os.fstat(self._handle).st_size + len(data) > self._limit_bytes:
                self._path.replace(self._path.with_name(self._path.name + ".1"))
                os.close(self._handle)
                self._handle = self._open()
            os.write(self._handle, data)

    def last_line(self) -> str:
        """Return the last line that the agent wrote, not the guard."""
        lines = self._last.decode(errors="replace").splitlines()
        return next((line.strip() for line in reversed(lines) if line.strip() and " guard: " not in line), "")

    def _open(self) -> int:
        return os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
