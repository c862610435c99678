"""One SSH session on a virtual board: a program, its streams and the channel, joined with back-pressure both ways.

Rules it keeps, all of them OpenSSH's: the command goes to `sh -c` in the user's home; the exit status is sent when
the program has ended *and* nobody holds its output any more (so `daemon &` without redirection keeps a session open
here as it does there); a program whose client is gone is not killed, unless it had a terminal.

It does NOT do forwarding or X11; files go through `scp -O`, or sftp where the machine has OpenSSH's sftp-server.
"""

from __future__ import annotations

import asyncio
import fcntl
import functools
import os
import pty
import shutil
import signal
import struct
import termios
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from tflotilla.host.lab.reaper import Children

_SFTP_SERVERS = ("/usr/lib/openssh/sftp-server", "/usr/libexec/openssh/sftp-server", "/usr/lib/ssh/sftp-server")
_COMMAND_NOT_FOUND = 127
#: What a terminal still has to show after its program ended.
_TERMINAL_DRAIN_S = 0.1
_ACCEPTED_ENVIRONMENT = ("LANG", "LC_")


#: RFC 4254, 5.2: SSH_EXTENDED_DATA_STDERR.
_STDERR = 1


class Channel(Protocol):
    """What a session needs of an SSH channel. asyncssh's has it; `board.py` puts the two together."""

    def get_environment(self) -> Mapping[str, str]:
        """Return what the client set."""
        ...

    def get_extra_info(self, name: str, default: Any = None) -> Any:  # noqa: ANN401 - as asyncio has it
        """Return facts of the connection."""
        ...

    def write(self, data: bytes, datatype: int | None = None) -> None:
        """Send to the client."""
        ...

    def pause_reading(self) -> None:
        """Take no more data from the client for now."""
        ...

    def resume_reading(self) -> None:
        """Take data again."""
        ...

    def is_closing(self) -> bool:
        """Whether nothing can be sent any more."""
        ...

    def exit(self, status: int) -> None:
        """Tell the exit status and close."""
        ...

    def exit_with_signal(self, signal: str) -> None:
        """Tell which signal ended the program and close."""
        ...


class Session:
    """One channel; `environment` gives what the program sees on top of what the client may set."""

    def __init__(
        self,
        children: Children,
        *,
        home: Path,
        environment: Callable[[Mapping[str, str]], dict[str, str]],
        log: Callable[[str], None],
    ) -> None:
        self._children = children
        self._home = home
        self._environment = environment
        self._log = log
        self._chan: Channel
        self._argv: list[str] = []
        self._terminal: tuple[str, tuple[int, int, int, int]] | None = None
        self._master: int | None = None
        self._pid: int | None = None
        self._stdin: asyncio.WriteTransport | None = None
        self._outputs: list[asyncio.ReadTransport] = []
        self._open_outputs = 0
        self._status: int | None = None
        self._eof = False
        self._lost = False
        self._early: list[bytes] = []
        self._starting: asyncio.Task[None] | None = None

    def connection_made(self, chan: Channel) -> None:
        """Take the channel."""
        self._chan = chan

    def pty_requested(
        self, term_type: str, term_size: tuple[int, int, int, int], term_modes: Mapping[int, int]
    ) -> bool:
        """Give a terminal to whoever asks."""
        del term_modes
        self._terminal = (term_type, term_size)
        return True

    def exec_requested(self, command: str) -> bool:
        """Run a command as sshd does."""
        self._argv = ["/bin/sh", "-c", command]
        return True

    def shell_requested(self) -> bool:
        """Run a shell. Not a login shell: /etc/profile would bring the machine's own PATH back."""
        bash = shutil.which("bash", path="/usr/bin:/bin")
        interactive = self._terminal is not None
        shell = [bash, "--norc", "--noprofile"] if bash else ["/bin/sh"]
        self._argv = [*shell, "-i"] if interactive else shell
        return True

    def subsystem_requested(self, subsystem: str) -> bool:
        """Serve sftp where OpenSSH's program for it is installed."""
        found = [path for path in _SFTP_SERVERS if Path(path).exists()]
        if subsystem != "sftp" or not found:
            return False
        self._argv = [found[0]]
        return True

    def session_started(self) -> None:
        """Start the program."""
        self._starting = asyncio.get_running_loop().create_task(self._start())

    async def _start(self) -> None:
        given = {
            key: value
            for key, value in self._chan.get_environment().items()
            if isinstance(value, str) and key.startswith(_ACCEPTED_ENVIRONMENT)
        }
        peer = self._chan.get_extra_info("peername") or ("?", 0)
        given["SSH_CONNECTION"] = f"{peer[0]} {peer[1]} 127.0.0.1 22"
        if self._terminal is not None:
            given["TERM"] = self._terminal[0]
        environment = self._environment(given)
        self._log(f"runs {' '.join(self._argv)[:200]!r}")
        try:
            await (self._start_on_pipes(environment) if self._terminal is None else self._start_on_pty(environment))
        except OSError as error:
            self._log(f"can't start: {error}")
            self._chan.write(f"{error}\n".encode(), _STDERR)
            self._chan.exit(_COMMAND_NOT_FOUND)
            return
        for data in self._early:
            self.data_received(data, None)
        self._early.clear()
        if self._eof:
            self.eof_received()
        if self._lost:
            self._let_go()
        else:
            self._chan.resume_reading()

    async def _start_on_pipes(self, environment: Mapping[str, str]) -> None:
        ends = [os.pipe() for _ in range(3)]
        (stdin_read, stdin_write), (stdout_read, stdout_write), (stderr_read, stderr_write) = ends
        inside = (stdin_read, stdout_write, stderr_write)
        try:
            pid, exited = self._children.start(self._argv, streams=inside, environment=environment, folder=self._home)
        except OSError:
            for end in (stdin_write, stdout_read, stderr_read):
                os.close(end)
            raise
        finally:
            for end in inside:
                os.close(end)
        self._pid = pid
        exited.add_done_callback(self._exited)
        await self._connect(stdin_write, {stdout_read: None, stderr_read: _STDERR})

    async def _start_on_pty(self, environment: Mapping[str, str]) -> None:
        assert self._terminal is not None  # noqa: S101 - by the caller
        master, slave = pty.openpty()
        self._master = master
        self.terminal_size_changed(*self._terminal[1])

        def take_terminal() -> None:
            fcntl.ioctl(0, termios.TIOCSCTTY, 0)

        greeting = {"PS1": rf"\u@{environment['TFLOTILLA_LAB_BOARD'].rpartition('/')[2]}:\w\$ "}
        try:
            pid, exited = self._children.start(
                self._argv,
                streams=(slave, slave, slave),
                environment={**environment, **greeting},
                folder=self._home,
                before_exec=take_terminal,
            )
        finally:
            os.close(slave)
        self._pid = pid
        exited.add_done_callback(self._exited)
        await self._connect(os.dup(master), {os.dup(master): None})

    async def _connect(self, stdin: int, outputs: Mapping[int, int | None]) -> None:
        loop = asyncio.get_running_loop()
        self._open_outputs = len(outputs)
        for descriptor, datatype in outputs.items():
            file = os.fdopen(descriptor, "rb", buffering=0)
            transport, _ = await loop.connect_read_pipe(functools.partial(_Output, self, datatype), file)
            self._outputs.append(transport)
        file = os.fdopen(stdin, "wb", buffering=0)
        self._stdin, _ = await loop.connect_write_pipe(functools.partial(_Input, self), file)

    def data_received(self, data: bytes, datatype: int | None) -> None:
        """Hand the client's bytes to the program; bytes for a program that closed its stdin are dropped."""
        del datatype
        if self._stdin is None:
            # asyncssh resumes reading as soon as the session is accepted, before there is a program.
            self._early.append(data)
            self._chan.pause_reading()
        elif not self._stdin.is_closing():
            self._stdin.write(data)

    def eof_received(self) -> bool:
        """Close the program's stdin; the other direction stays open."""
        self._eof = True
        if self._stdin is not None:
            if self._master is None:
                self._stdin.close()
            else:
                self._stdin.write(b"\x04")
        return True

    def pause_writing(self) -> None:
        """Stop reading the program's output: the client does not take it fast enough."""
        for output in self._outputs:
            if not output.is_closing():
                output.pause_reading()

    def resume_writing(self) -> None:
        """Go on reading."""
        for output in self._outputs:
            if not output.is_closing():
                output.resume_reading()

    def signal_received(self, signal: str) -> None:
        """Signal the program and what it started."""
        self._kill(signal)

    def break_received(self, msec: int) -> bool:
        """Treat a break as an interrupt."""
        del msec
        self._kill("INT")
        return True

    def _kill(self, name: str) -> None:
        number = getattr(signal, f"SIG{name}", None)
        if number is not None and self._pid is not None and self._status is None:
            with suppress(ProcessLookupError):
                os.killpg(self._pid, number)

    def terminal_size_changed(self, width: int, height: int, pixwidth: int, pixheight: int) -> None:
        """Tell the terminal."""
        if self._master is not None:
            fcntl.ioctl(self._master, termios.TIOCSWINSZ, struct.pack("HHHH", height, width, pixwidth, pixheight))

    def connection_lost(self, exc: Exception | None) -> None:
        """Close the program's streams; a terminal hangs up, everything else may go on without us."""
        del exc
        self._lost = True
        self._let_go()

    def _let_go(self) -> None:
        if self._stdin is not None:
            # What arrived before the connection broke still reaches the program.
            self._stdin.close()
        for output in self._outputs:
            output.close()
        if self._master is not None:
            os.close(self._master)
            self._master = None

    def pause_input(self) -> None:
        """Stop taking bytes from the client: the program does not read them fast enough."""
        self._chan.pause_reading()

    def resume_input(self) -> None:
        """Take bytes again.

        Not at once: the pipe calls this while it empties its buffer, and would drop what is written to it, and the
        end of file with it, before it returns.
        """
        asyncio.get_running_loop().call_soon(self._chan.resume_reading)

    def output(self, data: bytes, datatype: int | None) -> None:
        """Pass what the program wrote to the client."""
        if not self._chan.is_closing():
            self._chan.write(data, datatype)

    def output_closed(self) -> None:
        """Notice that nobody holds one of the program's outputs any more."""
        self._open_outputs -= 1
        self._finish()

    def _exited(self, exited: asyncio.Future[int]) -> None:
        self._status = exited.result()
        if self._master is not None:
            asyncio.get_running_loop().call_later(_TERMINAL_DRAIN_S, self._end_terminal)
        self._finish()

    def _end_terminal(self) -> None:
        self._open_outputs = 0
        self._finish()

    def _finish(self) -> None:
        if self._status is None or self._open_outputs > 0 or self._chan.is_closing():
            return
        if self._status < 0:
            self._chan.exit_with_signal(signal.Signals(-self._status).name.removeprefix("SIG"))
        else:
            self._chan.exit(self._status)


class _Output(asyncio.Protocol):
    def __init__(self, session: Session, datatype: int | None) -> None:
        self._session = session
        self._datatype = datatype

    def data_received(self, data: bytes) -> None:
        self._session.output(data, self._datatype)

    def connection_lost(self, exc: Exception | None) -> None:
        del exc
        self._session.output_closed()


class _Input(asyncio.BaseProtocol):
    def __init__(self, session: Session) -> None:
        self._session = session

    def pause_writing(self) -> None:
        self._session.pause_input()

    def resume_writing(self) -> None:
        self._session.resume_input()
