"""A child of a child: one that may crash or hang is asked once, by a process that waits for it and nothing else.

Rules it keeps: it has a session of its own, and what it leaves behind ends with it; nobody waits without a limit.
What it does NOT do: know what the answer means. The supervisor, which has more to do than to wait, has `children`.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from dataclasses import dataclass

from tflotilla.shared.contract import codec

_LAST_WORDS = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """What a child answered, and how it ended."""

    answer: bytes
    #: Its exit code, negative for a signal.
    code: int
    #: The end of the last line of its log.
    last_words: str


def ask(module: str, spec: object, *, timeout_s: float) -> Ended:
    """Run `python -m tflotilla.device.<module>` with a spec on its stdin, to its end.

    Raises:
        TimeoutError: it gave no answer in time, and was ended with all it started.

    """
    process = subprocess.Popen(
        [sys.executable, "-m", f"tflotilla.device.{module}"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        # A group of its own: a delegate's helpers must not survive its timeout.
        start_new_session=True,
    )
    try:
        answer, log = process.communicate(codec.canonical_json(spec), timeout=timeout_s)
    except subprocess.TimeoutExpired as error:
        _end(process)
        message = f"no answer within {timeout_s:g} s"
        raise TimeoutError(message) from error
    except BaseException:
        _end(process)
        raise
    last_words = log.decode(errors="replace").strip().rpartition("\n")[2][-_LAST_WORDS:]
    return Ended(answer=answer, code=process.returncode, last_words=last_words)


def _end(process: subprocess.Popen[bytes]) -> None:
    # It may have ended by itself in this moment; its group is gone with it.
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
