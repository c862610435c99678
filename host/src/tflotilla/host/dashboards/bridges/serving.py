"""Runs a bridge: hears the broker, steps the bridge, publishes what it returns, follows fleet.toml as it changes.

Rules it keeps: the broker may go away and come back; what it refuses is said once; no more is handed to it than it
takes; a fleet.toml that can't be read changes nothing until it can; at the end the broker has what was to be published.
What it does NOT do: connect for the first time (who calls it does).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from tflotilla.host.dashboards.bridges import Bridge, News
from tflotilla.shared.contract import topics
from tflotilla.shared.contract.errors import BrokerError, ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from tflotilla.host.fleet.inventory.fleet import Fleet
    from tflotilla.host.telemetry.inbox import Received
    from tflotilla.host.telemetry.live import Live

_TICK_S = 0.25
#: fleet.toml is looked at that often; what it may take in from elsewhere (Ansible's inventory) counts as well.
_RELOAD_S = 5.0
_MOST_UNCONFIRMED = 1000
_PATIENCE_S = 30.0
_OURS = f"{topics.ROOT}/"


class Broker(Protocol):
    """What is asked of the connection; `telemetry.mqtt.Connection` is one."""

    @property
    def connected(self) -> bool:
        """Whether there is a connection now."""

    @property
    def connections(self) -> int:
        """How many times it connected."""

    @property
    def dropped(self) -> int:
        """Messages that came too fast and were lost."""

    def subscribe(self, subscriptions: Sequence[str]) -> None:
        """Subscribe, for good. Raises BrokerError."""

    def send(self, topic: str, payload: bytes, *, retained: bool = False) -> bool:
        """Hand over without waiting; False when there is no connection."""

    def confirmed(self, *, most: int = 0, timeout_s: float = 10.0) -> bool:
        """Wait until the broker confirmed all but `most` of what was sent; False when it did not in time."""

    def refusals(self) -> Mapping[str, str]:
        """Return the topics that could not be written since the last call, with the reason."""

    def receive(self, *, timeout_s: float) -> Sequence[Received]:
        """Return what arrived, waiting at most that long for the first of it."""


class Server:
    """One bridge at work; one thread."""

    def __init__(
        self,
        bridge: Bridge,
        broker: Broker,
        live: Live,
        *,
        fleet: Fleet,
        reload: Callable[[], Fleet],
        clock: Callable[[], float],
        tell: Callable[[str], None],
    ) -> None:
        """`reload` reads fleet.toml anew, raising ConfigError; `clock` is Unix seconds."""
        self._bridge = bridge
        self._broker = broker
        self._live = live
        self._fleet = fleet
        self._reload = reload
        self._reload_at = clock() + _RELOAD_S
        self._clock = clock
        self._tell = tell
        self._connections = 0
        self._connected = True
        self._dropped = 0
        self._told: set[str] = set()
        self._refused: set[str] = set()

    def serve(self, *, until: float | None = None) -> None:
        """Serve until the bridge is done, or that moment has come.

        Raises:
            BrokerError: the broker refuses what must be heard, does not take what was left to publish at the end, or
                did not let a bridge do the one thing that it was started for.

        """
        self._broker.subscribe([*topics.every_board(self._fleet.name), *self._bridge.also_hears])
        while not self._bridge.done and (until is None or self._clock() < until):
            wait_s = _TICK_S if until is None else min(_TICK_S, until - self._clock())
            self.step(timeout_s=wait_s)
        if self._broker.connected:
            self._drain(most=0)
        elif self._bridge.done:
            message = "the MQTT broker went away before all was published; run it again"
            raise BrokerError(message)
        self._tell_refusals()
        if self._bridge.done and self._refused:
            message = f"not all was published: the MQTT broker refuses {', '.join(sorted(self._refused))}"
            raise BrokerError(message)

    def step(self, *, timeout_s: float) -> None:
        """Hear for at most that long, and let the bridge take its step."""
        connections = self._broker.connections
        received = self._broker.receive(timeout_s=timeout_s)
        self._follow_fleet()
        self._follow_connection()
        new = self._live.hear(each for each in received if each.topic.startswith(_OURS))
        news = News(
            now=self._clock(),
            fleet=self._fleet,
            messages=new,
            others=[each for each in received if not each.topic.startswith(_OURS)],
            connected=self._broker.connected,
            begins=connections > self._connections,
        )
        self._connections = connections
        for each in self._bridge.step(news):
            self._drain(most=_MOST_UNCONFIRMED)
            # What can't be sent is said again by the bridge when the connection is back: `begins`.
            self._broker.send(each.topic, each.payload, retained=each.retained)
        self._tell_refusals()

    def _drain(self, *, most: int) -> None:
        """Wait until the broker confirmed all but `most` of what was sent; an interruption ends the wait."""
        for _ in range(int(_PATIENCE_S / _TICK_S)):
            if self._broker.confirmed(most=most, timeout_s=_TICK_S) or not self._broker.connected:
                return
        message = f"the MQTT broker did not confirm what was published within {_PATIENCE_S:g} s"
        raise BrokerError(message)

    def _follow_connection(self) -> None:
        connected = self._broker.connected
        if connected != self._connected:
            self._tell("the broker is back" if connected else "the broker is away; trying again")
            self._connected = connected
        if self._broker.dropped > self._dropped:
            self._tell(f"{self._broker.dropped - self._dropped} messages came too fast and were lost")
            self._dropped = self._broker.dropped

    def _follow_fleet(self) -> None:
        now = self._clock()
        if now < self._reload_at:
            return
        self._reload_at = now + _RELOAD_S
        try:
            fleet = self._reload()
        except ConfigError as error:
            self._tell_once(f"{error}; going on with what it said before")
            return
        if (fleet.name, fleet.mqtt) != (self._fleet.name, self._fleet.mqtt):
            self._tell_once(f"{fleet.path} names another fleet or broker now; start the bridge again")
            return
        if fleet == self._fleet:
            return
        for board in self._fleet.boards.keys() - fleet.boards.keys():
            self._live.forget(board)
        self._live.know(fleet.boards)
        self._fleet = fleet

    def _tell_refusals(self) -> None:
        for topic, reason in self._broker.refusals().items():
            # One line for a kind of topic, not one for each board.
            kind = f"{topic.split('/')[0]}/…"
            self._refused.add(kind)
            self._tell_once(f"the MQTT broker does not let us write {kind}: {reason}; see its ACL")

    def _tell_once(self, line: str) -> None:
        if line not in self._told:
            self._told.add(line)
            self._tell(line)
