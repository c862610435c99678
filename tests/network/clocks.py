"""Boards whose clock is wrong: a library, preloaded, that shifts what every program there takes for the time of day.

The shift lies in a file that is mapped into each process, so that a clock can be set right while programs run, as NTP
does some seconds after a board without a battery came up.

What it does NOT do: shift the kernel's own stamps (files keep the real time), or monotonic clocks.
"""

from __future__ import annotations

import shutil
import struct
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.network.boards import Board

_SOURCE = Path(__file__).with_name("clock.c")


@dataclass(frozen=True, slots=True, kw_only=True)
class Clock:
    """The clock of one board."""

    file: Path

    def shift(self, seconds: int) -> None:
        """Be so far from the right time, for whatever runs on the board and whatever is started."""
        with self.file.open("r+b") as stream:
            stream.write(struct.pack("=q", seconds))


def give(board: Board, seconds: int) -> Clock:
    """Give a board a clock that is wrong by so many seconds; its sshd starts anew."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("cc is not on this machine (Debian: apt install gcc)")
    library, clock = board.folder / "clock.so", of(board)
    clock.file.write_bytes(struct.pack("=q", seconds))
    subprocess.run([compiler, "-shared", "-fPIC", "-O1", "-o", str(library), str(_SOURCE), "-ldl"], check=True)
    board.environment |= {"LD_PRELOAD": str(library), "BOARD_CLOCK": str(clock.file)}
    board.reboot()
    return clock


def of(board: Board) -> Clock:
    """Return the clock that a board was given."""
    return Clock(file=board.folder / "clock")
