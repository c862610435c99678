"""What can be wrong with a virtual board, as values; `board.py` obeys them, `Lab.set_faults` changes them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True, kw_only=True)
class Faults:
    """Everything off is a healthy board. New connections see a change at once, those that are open keep what they had.

    Raises:
        ValueError: a figure that can't be.

    """

    #: Nothing listens: connecting is refused, as by a board whose sshd is down.
    refuse_connections: bool = False
    #: Every key is refused.
    refuse_login: bool = False
    #: `old` speaks of itself as Python 3.7, `missing` is no `python3` on PATH.
    python: Literal["present", "old", "missing"] = "present"
    #: The connection breaks after the board got that many bytes of it, handshake (about 4 KiB) included …
    cut_after_bytes: int | None = None
    #: … and so do that many connections, after which the fault is gone.
    cuts: int = 1
    #: In each direction.
    bytes_per_second: int | None = None

    def __post_init__(self) -> None:
        """Refuse figures that would stop the board for ever."""
        for name in ("cut_after_bytes", "bytes_per_second"):
            figure = getattr(self, name)
            if figure is not None and figure < 1:
                message = f"{name} must be at least 1, not {figure}"
                raise ValueError(message)

    @property
    def of_the_line(self) -> bool:
        """Whether bytes must be counted or delayed."""
        return self.cut_after_bytes is not None or self.bytes_per_second is not None
