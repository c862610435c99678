"""What is done with a board over as many connections as it takes: lines break, and it goes on where it was.

Rules it keeps: a board that never answered is off, and is not tried twice; one that was cut off is worth another try,
a few of them, each later than the one before.
What it does NOT do: know what is done there. Beginning it again must be safe.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar

from tflotilla.host.fleet.lines import ssh
from tflotilla.shared.contract.errors import UnreachableError

if TYPE_CHECKING:
    from collections.abc import Callable

    from tflotilla.host.fleet.inventory.fleet import Fleet
    from tflotilla.host.fleet.lines.ssh import Link

T = TypeVar("T")
#: Before each further try.
WAITS_S = (0.5, 1.0, 2.0, 4.0, 8.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Done(Generic[T]):
    """What came of it, over all connections."""

    result: T
    bytes_sent: int
    #: How often the line broke.
    cuts: int


def outlived(
    name: str,
    fleet: Fleet,
    attempt: Callable[[Link], T],
    *,
    pause: Callable[[float], None],
    on_cut: Callable[[], None] = lambda: None,
) -> Done[T]:
    """Connect and attempt it, again after each cut. Raises UnreachableError, and what `attempt` raises."""
    entry = fleet.board(name)
    cuts = 0
    sent = 0
    while True:
        connected = False
        try:
            with ssh.connect(name, entry, fleet) as link:
                connected = True
                try:
                    result = attempt(link)
                finally:
                    sent += link.bytes_sent
        except UnreachableError:
            if (cuts == 0 and not connected) or cuts >= len(WAITS_S):
                raise
            on_cut()
            pause(WAITS_S[cuts])
            cuts += 1
        else:
            return Done(result=result, bytes_sent=sent, cuts=cuts)
