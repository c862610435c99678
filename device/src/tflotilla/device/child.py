"""How a child of the supervisor lives: its spec comes on stdin, its answers go on what was stdout, it dies in time.

Rules it keeps:
- the answers' channel is a private copy of stdout; stdout itself becomes stderr, so that a runtime, a delegate or a
  stray print can't break the lines;
- a child ends with its parent (PR_SET_PDEATHSIG), on SIGTERM, and when nobody reads it any more;
- an error of ours is the child's last words in its own format, and its exit code; a bug is a traceback in the log.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from typing import TYPE_CHECKING, TypeVar

from tflotilla.shared.contract import codec
from tflotilla.shared.contract.errors import ContractError

if TYPE_CHECKING:
    from collections.abc import Callable

    from tflotilla.shared.contract.board import RuntimeOffer

    #: Writes a line: what kind of line it is, and what it says.
    Write = Callable[[bytes, object], None]

T = TypeVar("T")
# Before anything imports numpy: its OpenBLAS would start a thread per core, to wait beside the runtime's for matrices
# that never come.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
_PR_SET_PDEATHSIG = 1
#: More than any spec: a parent gone mad must not fill the board's memory.
_SPEC_LIMIT_BYTES = 1 << 20


def claim_stdout() -> int:
    """Return a descriptor for the answers, and send whatever is written to stdout from now on to stderr."""
    sys.stdout.flush()
    channel = os.dup(1)
    os.dup2(2, 1)
    return channel


def die_with_parent() -> None:
    """Ask the kernel for a SIGTERM when the parent ends; where it can't, the closed pipe must do."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_PR_SET_PDEATHSIG, int(signal.SIGTERM), 0, 0, 0)


def read_spec(kind: type[T]) -> T:
    """Read one JSON spec from stdin, up to its end. Raises ContractError."""
    data = sys.stdin.buffer.read(_SPEC_LIMIT_BYTES + 1)
    if len(data) > _SPEC_LIMIT_BYTES:
        message = f"stdin: a spec of more than {_SPEC_LIMIT_BYTES} bytes"
        raise ContractError(message)
    return codec.decode(kind, codec.parse_json(data, "stdin"), "stdin")


def write_all(channel: int, data: bytes) -> None:
    """Write everything, waiting for the reader. Raises BrokenPipeError when it is gone."""
    view = memoryview(data)
    while view:
        view = view[os.write(channel, view) :]


def answer_in_lines(kind: type[T], respond: Callable[[T, Write], None]) -> int:
    """Be a child that answers its spec with the lines that `respond` writes; return the exit code.

    `respond` turns errors of ours into its own kind of report; what it lets out is a bug and ends with a traceback.
    """
    channel = claim_stdout()
    die_with_parent()

    def write(label: bytes, value: object) -> None:
        write_all(channel, label + codec.canonical_json(value) + b"\n")

    try:
        respond(read_spec(kind), write)
    except ContractError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code
    except BrokenPipeError:
        # Whoever asked is gone; the answer interests nobody.
        return 0
    return 0


def answer_once(kind: type[T], answer: Callable[[T], object]) -> int:
    """Be a child that answers its spec with one line of JSON; return the exit code."""
    return answer_in_lines(kind, lambda spec, write: write(b"", answer(spec)))


def absent(name: str) -> RuntimeOffer:
    """Name a runtime in a report although it is not installed."""
    from tflotilla.shared.contract.board import RuntimeOffer

    return RuntimeOffer(name=name, version="not installed")
