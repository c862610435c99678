"""What a collector asks of a store.

    with database.open_store(url) as store:
        outcomes = store.append(arrivals)      # durable when it returns
        ...
        store.maintain(now=time.time())        # in a thread of its own: sums up, forgets; appends are not held up

Rules of every store: (board, boot, seq) is kept once, however often and in whatever order it comes, also after
retention deleted it; what was "stored" survives a power cut; a batch that can't be kept is kept not at all, and
`UnavailableError` says why: the same batch may be given again later.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

from tflotilla.shared.contract.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

#: `stored`: durable now. `duplicate`: was durable already. Both may be acked. `refused`: no store can keep it (a number
#: that is none, a boot that can't be written down, a channel of the moment); giving it again is no use.
Outcome = Literal["stored", "duplicate", "refused"]


class UnavailableError(InputError):
    """The store can't keep anything just now: it is locked, its disk is full, its server is away. Nothing was kept."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrival:
    """One understood message of a board.

    Numbered ones (seq > 0) are kept each; of `state` and `model` (seq 0), the newest per board.
    """

    board: str
    boot: str
    seq: int
    channel: str
    #: Unix seconds: by the board's clock, and when it came here by ours.
    time: float
    at: float
    bundle: str | None
    #: As it came over MQTT.
    payload: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Maintained:
    """What a call of `maintain` did."""

    folded: int = 0
    forgotten: int = 0
    #: Whether there is more to do at once: call again.
    more: bool = False


class Store(Protocol):
    """Where reports are kept. Several threads may use it; on a server, several processes."""

    def append(self, batch: Sequence[Arrival]) -> Sequence[Outcome]:
        """Keep a batch; return what became of each message, in order. What is `stored` is durable.

        Raises:
            UnavailableError: not now; nothing of the batch was kept, and it may be given again.
            InputError: never: the store is damaged, somebody else's, or of a newer version.

        """
        ...

    def maintain(self, *, now: float, stop: Callable[[], bool] = lambda: False) -> Maintained:
        """Sum up what was appended, and forget what is too old: one step of about a second; some may be left over.

        `stop` is asked between parts of it.

        Raises:
            UnavailableError: not now; what was done stays done.
            InputError: as `append`.

        """
        ...

    def close(self) -> None:
        """Let go of files and connections."""
        ...
