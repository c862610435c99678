"""How reports leave the board and requests reach it: the port. One file per technology.

What a transport promises (proven for each by tests/device/test_transports_contract.py):
- `start` returns at once; it connects, and reconnects for ever with a jittered backoff, by itself;
- every happening is handed over on the event loop that called `start`, in order;
- `publish` never blocks, never queues without bound and never raises; it tells whether the publication was taken. One
  that was is `Settled` by its token, or void with the next `Lost`;
- a retained message is not handed over: requests are events, and one that a broker keeps would be obeyed at every
  reconnect;
- the will is published by the other side when the connection breaks without `stop`;
- what it does NOT do: keep anything. Whoever must not lose a message keeps it until it is settled.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable

#: Tokens are positive; a publication nobody waits for has this one.
NOBODY = 0
#: More unsettled publications than this are not taken; MQTT brokers allow 20 by default, and far more by promise.
MAX_IN_FLIGHT = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Publication:
    """One message towards the broker."""

    topic: str
    payload: bytes
    retain: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Connected:
    """There is a connection, and the subscriptions are asked for.

    `max_bytes` is the largest message the other side takes, None when it named no limit.
    """

    protocol: str
    max_in_flight: int = MAX_IN_FLIGHT
    max_bytes: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Lost:
    """The connection broke, or an attempt failed; `reason` is one line for people.

    `refused` tells that the other side answered and said no: a person must change something.
    """

    reason: str
    refused: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Received:
    """A message came in on one of the subscriptions."""

    topic: str
    payload: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Settled:
    """The other side took a publication (`problem` is None), or refused it.

    `hopeless` tells that the same message would be refused for ever (too large, say).
    """

    token: int
    problem: str | None = None
    hopeless: bool = False


Happening = Connected | Lost | Received | Settled


class Transport(Protocol):
    """A connection that is always coming back."""

    def start(self, tell: Callable[[Happening], None]) -> None:
        """Begin connecting. Call it once, on a running event loop."""

    def publish(self, publication: Publication, token: int = NOBODY) -> bool:
        """Send, if there is a connection and room among the unsettled; return whether it is on its way."""

    async def stop(self, farewell: Publication) -> None:
        """Publish `farewell` if there is a connection, leave without the will, and be done within seconds."""
