"""One Ctrl-C is often two signals: `timeout -s INT` sends to the child and to its group, impatient people press twice.

The second, right after the first, must not cut short how a command ends.
"""

from __future__ import annotations

import signal
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import FrameType
    from typing import NoReturn

#: Who presses again later than that means it.
_ECHO_S = 1.0


def take_echoes_for_one() -> None:
    """Let a SIGINT that follows another within a second do nothing. Where SIGINT is ignored, it stays so."""
    if signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        return
    last_s = -_ECHO_S

    def interrupt(number: int, frame: FrameType | None) -> None:
        nonlocal last_s
        before, last_s = last_s, time.monotonic()
        if last_s - before > _ECHO_S:
            signal.default_int_handler(number, frame)

    signal.signal(signal.SIGINT, interrupt)


def take_the_end_for_one() -> None:
    """Let SIGTERM end a command as Ctrl-C does: what it holds is given back, and where it stands is said."""

    def interrupt(_number: int, _frame: FrameType | None) -> NoReturn:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, interrupt)


def ignore() -> None:
    """Let nothing that comes now change the exit code of a command that was interrupted already."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
