"""Keys as they are pressed, without Enter: the only door to the terminal's modes.

    with keyboard.keys() as pressed:
        for key in pressed(): ...        # returns at once with what was pressed since: "p", "down", "pgup"

Rules it keeps: the terminal is as it was when the block ends, however it ends; where there is no terminal nobody
presses anything; Ctrl-C stays what it is.
"""

from __future__ import annotations

import os
import re
import select
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_MOST_BYTES = 1024
_SEQUENCE = re.compile(r"\x1b[\[O]([0-9;]*)([A-Za-z~])|\x1b|.", re.DOTALL)
_FINAL = {"A": "up", "B": "down", "H": "home", "F": "end"}
_NUMBERED = {"1": "home", "4": "end", "5": "pgup", "6": "pgdn", "7": "home", "8": "end"}


def parse(text: str) -> list[str]:
    """Return the keys in what a terminal sent; sequences that mean nothing here are left out."""
    found = []
    for match in _SEQUENCE.finditer(text):
        if match[2] is not None:
            name = _NUMBERED.get(match[1]) if match[2] == "~" else _FINAL.get(match[2])
            if name is not None:
                found.append(name)
        elif match[0].isprintable():
            found.append(match[0])
    return found


@contextmanager
def keys() -> Iterator[Callable[[], list[str]] | None]:
    """Give a function that returns what was pressed since it was asked last; None where there is no keyboard."""
    if sys.stdin is None or not sys.stdin.isatty():
        yield None
        return
    import termios
    import tty

    number = sys.stdin.fileno()
    before = termios.tcgetattr(number)

    def pressed() -> list[str]:
        if not select.select([number], [], [], 0)[0]:
            return []
        return parse(os.read(number, _MOST_BYTES).decode(errors="ignore"))

    tty.setcbreak(number)
    try:
        yield pressed
    finally:
        termios.tcsetattr(number, termios.TCSADRAIN, before)
