"""Running the agent's children for real: one spec in, lines out."""

from __future__ import annotations

import os
import select
import subprocess
import sys
import time
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tflotilla.device import facts
from tflotilla.shared.contract import codec

if TYPE_CHECKING:
    from types import TracebackType

#: The runtimes of this environment: one on a board, two in the workspace.
RUNTIMES = tuple(offer.name for offer in facts.runtimes())
#: For a machine busy with other tests; nothing waits that long unless something is broken.
PATIENCE_S = 60.0


def ask(module: str, spec: object, *, timeout_s: float = PATIENCE_S) -> subprocess.CompletedProcess[bytes]:
    """Run a child that answers once."""
    return subprocess.run(
        [sys.executable, "-m", f"tflotilla.device.{module}"],
        input=codec.canonical_json(spec),
        capture_output=True,
        timeout=timeout_s,
        check=False,
    )


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a worker."""

    kind: bytes
    body: bytes

    def decode(self, kind: type[Any]) -> Any:  # noqa: ANN401 - whatever was asked for
        """Read the body as a message's."""
        return codec.decode(kind, codec.parse_json(self.body, "line"), "line")


class RunningWorker(AbstractContextManager["RunningWorker"]):
    """A worker process whose lines are read when asked for; a context that leaves nothing behind."""

    def __init__(self, spec: object) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tflotilla.device.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self._stdout = self.process.stdout.fileno()
        self._rest = b""
        self.process.stdin.write(codec.canonical_json(spec))
        self.process.stdin.close()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.process.kill()
        self.process.wait()
        for stream in (self.process.stdout, self.process.stderr):
            assert stream is not None
            stream.close()

    def line(self) -> Line | None:
        """Return the next line; None at the end. Fails when none comes for long."""
        deadline = time.monotonic() + PATIENCE_S
        while b"\n" not in self._rest:
            assert select.select([self._stdout], [], [], max(0.0, deadline - time.monotonic()))[0], "no line came"
            piece = os.read(self._stdout, 1 << 20)
            if not piece:
                assert self._rest == b"", "the last line is not whole"
                return None
            self._rest += piece
        line, _, self._rest = self._rest.partition(b"\n")
        return Line(line[:1], line[1:])

    def next(self, kind: bytes) -> Line:
        """Return the next line of a kind, skipping others."""
        while (line := self.line()) is not None:
            if line.kind == kind:
                return line
        raise AssertionError(f"the worker ended without a line {kind!r}: {self.log()}")

    def rest(self) -> list[Line]:
        """Return every line up to the end."""
        lines = []
        while (line := self.line()) is not None:
            lines.append(line)
        return lines

    def log(self) -> str:
        """Return what it wrote to stderr; only after its end."""
        assert self.process.stderr is not None
        self.process.wait(PATIENCE_S)
        return self.process.stderr.read().decode(errors="replace")
