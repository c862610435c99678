"""Child processes of the supervisor: started with a spec on stdin, read line by line, ended for certain.

Rules it keeps: a child has a session of its own, so that ending it ends what it started; nobody waits for a child
without a limit; a crash becomes one sentence that names the signal and the child's last words.
What it does NOT do: know what the lines mean.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections import deque
from typing import TYPE_CHECKING, TypeVar

from tflotilla.device.endings import signal_name
from tflotilla.device.waiting import within
from tflotilla.shared.contract import codec
from tflotilla.shared.contract.errors import ContractError, ProbeError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

T = TypeVar("T")
#: A worker's lines are tens of kilobytes; one longer than this is a child gone mad.
_LINE_LIMIT_BYTES = 16 << 20
_LAST_WORDS_BYTES = 300
_GRACE_S = 3.0


class Child:
    """One running child."""

    def __init__(self, process: asyncio.subprocess.Process, name: str) -> None:
        self._process = process
        self._name = name
        self._last_words: deque[bytes] = deque(maxlen=4)
        self._listening = asyncio.create_task(self._listen())

    @classmethod
    async def start(cls, module: str, spec: object) -> Child:
        """Run `python -m tflotilla.device.<module>` and hand it its spec. Raises ProbeError when it can't start."""
        return await cls.launch((sys.executable, "-m", f"tflotilla.device.{module}"), module, spec)

    @classmethod
    async def launch(cls, command: tuple[str, ...], name: str, spec: object) -> Child:
        """Run a command that behaves like one of our children, and hand it its spec. Raises ProbeError."""
        try:
            process = await asyncio.create_subprocess_exec(
                *command,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                start_new_session=True,
                limit=_LINE_LIMIT_BYTES,
                # `-m` puts the folder it starts in before everything else on the path.
                cwd="/",
            )
        except OSError as error:
            message = f"the {name} process can't be started: {error.strerror or error}"
            raise ProbeError(message) from error
        child = cls(process, name)
        stdin = process.stdin
        if stdin is not None:
            with contextlib.suppress(OSError):
                stdin.write(codec.canonical_json(spec))
                await stdin.drain()
            stdin.close()
        return child

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    async def lines(self) -> AsyncIterator[bytes]:
        """Yield its lines without their ends, until it closes its stdout. Raises ContractError for an endless one."""
        stdout = self._process.stdout
        if stdout is None:
            return
        while True:
            try:
                line = await stdout.readline()
            except ValueError as error:
                message = f"the {self._name} process wrote a line of more than {_LINE_LIMIT_BYTES >> 20} MiB"
                raise ContractError(message) from error
            if not line.endswith(b"\n"):
                # Half a line: it died in the middle of it.
                return
            yield line[:-1]

    async def end(self) -> int:
        """Wait for its end, which is asked for and then forced; return the exit code, negative for a signal."""
        if self._process.returncode is None:
            self._signal(signal.SIGTERM)
            with contextlib.suppress(asyncio.TimeoutError):
                await within(_GRACE_S, self._process.wait())
        return await self.kill()

    async def kill(self) -> int:
        """End it and everything it started at once; return the exit code."""
        self._signal(signal.SIGKILL)
        code = await self._process.wait()
        self._listening.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._listening
        return code

    async def ended(self, grace_s: float = 1.0) -> int:
        """Collect the exit code of a child that closed its stdout by itself."""
        with contextlib.suppress(asyncio.TimeoutError):
            await within(grace_s, self._process.wait())
            await asyncio.wait([self._listening], timeout=grace_s)
        return await self.kill()

    def account(self, code: int) -> str:
        """Say in one sentence how it ended."""
        words = b" ".join(self._last_words).decode(errors="replace")[-_LAST_WORDS_BYTES:]
        how = f"crashed ({signal_name(-code)})" if code < 0 else f"ended with code {code}"
        return f"the {self._name} process {how}" + (f"; its last words: {words}" if words else "")

    def _signal(self, number: signal.Signals) -> None:
        # The group: a delegate's helpers must not outlive it. It may be gone by now.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, number)

    async def _listen(self) -> None:
        """Pass its log on, keeping the last lines."""
        stderr = self._process.stderr
        if stderr is None:
            return
        with contextlib.suppress(ValueError):
            while line := await stderr.readline():
                sys.stderr.buffer.write(line)
                sys.stderr.buffer.flush()
                if line.strip():
                    self._last_words.append(line.strip())


async def ask(module: str, spec: object, kind: type[T], *, timeout_s: float) -> T:
    """Let a fresh child answer one question.

    Raises:
        ProbeError: it crashed, took too long, or answered nothing that can be understood; the message says which.

    """
    child = await Child.start(module, spec)
    try:
        answer = await within(timeout_s, _first_line(child))
    except asyncio.TimeoutError as error:
        await child.kill()
        message = f"the {module} process gave no answer within {timeout_s:g} s"
        raise ProbeError(message) from error
    except BaseException:
        await child.kill()
        raise
    code = await child.ended()
    if answer is None:
        raise ProbeError(child.account(code))
    try:
        return codec.decode(kind, codec.parse_json(answer, module), module)
    except ContractError as error:
        message = f"the {module} process answered nonsense: {error}"
        raise ProbeError(message) from error


async def _first_line(child: Child) -> bytes | None:
    async for line in child.lines():
        return line
    return None
