"""Asks the firmware of a Raspberry Pi directly, by the property mailbox behind `/dev/vcio`: microseconds, no program.

The kernel's driver takes one buffer of 32-bit words: its size, a code, then properties (tag, size of the value, code,
value) and a zero; it answers in place (Raspberry Pi firmware wiki, "Mailbox property interface"). The device belongs to
the group `video`. What this module does NOT do: set anything; the one property it knows is read with an empty mask.
"""

from __future__ import annotations

import fcntl
import os
import stat
import struct
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

DEVICE = "dev/vcio"
#: _IOWR(100, 0, char *)
REQUEST = 3 << 30 | struct.calcsize("P") << 16 | 100 << 8
GET_THROTTLED = 0x00030046
SUCCESS = 0x80000000
_WORDS = struct.Struct("=7I")
_VALUE_BYTES = 4
#: Set by the firmware beside the length of its answer.
_ANSWERED = 1 << 31


def question() -> bytearray:
    """Return the buffer that asks for the throttling bits; the value's zero means that none of them is cleared."""
    return bytearray(_WORDS.pack(_WORDS.size, 0, GET_THROTTLED, _VALUE_BYTES, 0, 0, 0))


def answer(buffer: bytes | bytearray) -> int | None:
    """Return the bits that the firmware put into the buffer, None when it doesn't know the question."""
    if len(buffer) != _WORDS.size:
        return None
    _, status, tag, _, code, value, _ = _WORDS.unpack(buffer)
    return value if status == SUCCESS and tag == GET_THROTTLED and code & _ANSWERED else None


def throttled(root: Path, *, ioctl: Callable[[int, int, bytearray], int] = fcntl.ioctl) -> int | None:
    """Return `get_throttled`'s bits, None where there is no such firmware or this user may not ask it."""
    try:
        handle = os.open(root / DEVICE, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        if not stat.S_ISCHR(os.fstat(handle).st_mode):
            return None
        buffer = question()
        ioctl(handle, REQUEST, buffer)
        return answer(buffer)
    except OSError:
        return None
    finally:
        os.close(handle)
