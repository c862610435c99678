"""Carries reports from the outbox to the broker, and requests from the broker to the agent.

Rules it keeps:
- rows go out in order, at most a window of them unanswered; a new connection begins again with everything that waits;
- a row is forgotten when the broker took it (`confirm="broker"`), or when a collector acknowledged it
  (`confirm="collector"`; what stays unacknowledged for long is sent again, in small portions);
- what can't be delivered within a moment is on disk; what can never touches it;
- a channel that the broker denies is held back and tried again later; the others go on.

What it does NOT do: know MQTT, or what reports mean.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from typing import TYPE_CHECKING

from tflotilla.device.transports import NOBODY, Connected, Happening, Lost, Publication, Received, Settled, Transport
from tflotilla.device.waiting import happens
from tflotilla.shared.contract import messages, topics
from tflotilla.shared.contract.errors import ContractError
from tflotilla.shared.contract.messages import Ack

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Literal

    from tflotilla.device.outbox import Outbox, Row
    from tflotilla.device.reporting import Envelopes

_LOG = logging.getLogger(__name__)
#: How long a report may wait for its confirmation in memory alone. Long enough that a healthy broker saves the flash.
COMMIT_CONNECTED_S = 1.0
COMMIT_ALONE_S = 0.05
#: Forgetting on disk is only tidiness: delivered rows would be sent once more after a kill, and dropped as duplicates.
_TIDY_S = 5.0
#: A denied channel is tried again after so long, then twice that, …: mosquitto hangs up after each denial.
DENIED_S = 30.0
#: So long after a report was lost the state still says so: losses come in bursts.
_LOSING_FOR_S = 30.0
_DENIED_LIMIT_S = 3600.0
#: A collector that acknowledged nothing for so long gets the oldest rows again, one window of them.
SILENCE_S = 30.0
#: What MQTT adds to a payload at most: fixed header, topic, packet id, property length.
_PACKET_OVERHEAD_BYTES = 512


class Courier:
    """One board's reports. Everything happens on the event loop; `run` is its task."""

    def __init__(
        self,
        *,
        outbox: Outbox,
        envelopes: Envelopes,
        fleet: str,
        confirm: Literal["broker", "collector"],
        on_connected: Callable[[], None],
        on_request: Callable[[str, bytes], None],
        on_trouble: Callable[[str], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`on_request` gets the channel (`command/state`) and the payload; `on_trouble` each new trouble, once."""
        self._outbox = outbox
        self._envelopes = envelopes
        self._fleet = fleet
        self._confirm = confirm
        self._on_connected = on_connected
        self._on_request = on_request
        self._on_trouble = on_trouble
        self._clock = clock
        self._transport: Transport | None = None
        self._wake = asyncio.Event()
        #: Why reports don't reach the broker; None when they do.
        self.problem: str | None = None
        #: Set when only a person can help: wrong password, a board of the same name.
        self.refused = False
        self.connected = False
        #: Whether the broker took a report yet: a connection alone proves no right to publish.
        self.delivered = False
        self._limits = Connected(protocol="")
        self._cursor = 0
        self._in_flight: dict[int, topics.Channel] = {}
        #: The highest number of this boot that was ever sent.
        self._sent_seq = 0
        #: Channel → until when it is held back, and how long that was.
        self._denied: dict[topics.Channel, tuple[float, float]] = {}
        self._retry_at: float | None = None
        self._commit_at: float | None = None
        self._tidy_at: float | None = None
        self._sent: deque[tuple[float, int]] = deque(maxlen=256)
        self._repeated: tuple[float, int] = (0.0, 0)
        self._told: set[str] = set()
        self._dropped = outbox.dropped
        self._losing_until = float("-inf")
        #: The last retained report, and whether it is to be published once more after a reconnect.
        self._last_retained: Publication | None = None
        self._owes = False

    @property
    def losing(self) -> str | None:
        """What is being lost, until some time after the last loss; None when nothing is."""
        if self._clock() >= self._losing_until:
            return None
        return f"more reports come than can be kept and delivered: {self._outbox.dropped} are lost so far"

    def attach(self, transport: Transport) -> None:
        """Take the transport and start it."""
        self._transport = transport
        transport.start(self.take)

    def report(self, channel: topics.Channel, body: bytes, *, bundle: str | None) -> int:
        """Queue a report and return its row. Raises ValueError for a body that is no JSON object."""
        seq = self._envelopes.next_seq()
        payload = self._envelopes.around(body, seq=seq, bundle=bundle)
        row_id = self._outbox.add(boot=self._envelopes.boot, seq=seq, channel=channel, payload=payload)
        if channel in topics.RETAINED:
            self._last_retained = self._publication(channel, payload)
        self._wake.set()
        return row_id

    async def secure(self, row_id: int, timeout_s: float) -> None:
        """Have a report written now, and wait until a kill can't lose it; a disk that fails is waited for no longer."""
        until = self._clock() + timeout_s
        self._commit_at = self._clock()
        while self._outbox.holds_in_memory(row_id) and self._outbox.problem is None and self._clock() < until:
            self._wake.set()
            await asyncio.sleep(0.01)

    def tell(self, channel: topics.Channel, message: bytes) -> bool:
        """Publish what describes the present, if there is a connection; return whether it went out."""
        return self._transport is not None and self._transport.publish(self._publication(channel, message), NOBODY)

    def publication(self, channel: topics.Channel, message: bytes) -> Publication:
        """Return a message as it would be published: wills and farewells."""
        return self._publication(channel, message)

    def take(self, happening: Happening) -> None:
        """Learn what happened on the transport."""
        if isinstance(happening, Connected):
            self._on_connection(happening)
        elif isinstance(happening, Lost):
            self._on_loss(happening)
        elif isinstance(happening, Settled):
            self._on_settled(happening)
        else:
            self._on_message(happening)
        self._wake.set()

    async def run(self) -> None:
        """Commit and send, for ever."""
        while True:
            self._wake.clear()
            await self._commit_if_due()
            self._send()
            await happens(self._wake, self._next_due_s())

    async def drain(self, timeout_s: float) -> None:
        """Give what waits a last chance to be delivered."""
        until = self._clock() + timeout_s
        while self.connected and self._outbox.uncommitted and self._clock() < until:
            self._wake.set()
            await asyncio.sleep(0.02)

    def _publication(self, channel: topics.Channel, message: bytes, *, again: bool = False) -> Publication:
        topic = topics.topic(self._fleet, self._envelopes.board, channel)
        # What is repeated for a collector is of the past: it must not stand in the place of what came after it.
        return Publication(topic=topic, payload=message, retain=channel in topics.RETAINED and not again)

    # What happened

    def _on_connection(self, connected: Connected) -> None:
        self.connected, self.refused, self.problem = True, False, None
        self._limits = connected
        self._restart()
        _LOG.info("reporting over MQTT %s", connected.protocol)
        self._on_connected()

    def _on_loss(self, lost: Lost) -> None:
        new = lost.reason != self.problem
        self.connected, self.refused, self.problem = False, lost.refused, lost.reason
        if new:
            self._on_trouble(f"{lost.reason}; reports are kept meanwhile")
        self._in_flight.clear()
        if self._commit_at is not None:
            self._commit_at = self._clock()

    def _on_settled(self, settled: Settled) -> None:
        channel = self._in_flight.pop(settled.token, None)
        if settled.problem is None:
            self.delivered = True
            if self._confirm == "broker":
                self._outbox.settle([settled.token])
            if channel is not None and self._denied.pop(channel, None) is not None and not self._denied:
                self.problem = None
        elif settled.hopeless:
            _LOG.error("the broker will never take a report: %s; it is dropped", settled.problem)
            self._outbox.drop([settled.token])
        elif channel is not None:
            self._deny(channel, settled.problem)

    def _deny(self, channel: topics.Channel, reason: str) -> None:
        now = self._clock()
        until, wait_s = self._denied.get(channel, (now, DENIED_S / 2))
        if until > now:
            return  # Sent in the same window as the one that was denied before it.
        wait_s = min(_DENIED_LIMIT_S, 2 * wait_s)
        self._denied[channel] = (now + wait_s, wait_s)
        self.problem = f"the broker refuses this board's {channel}: {reason}"
        if self.problem not in self._told:
            self._told.add(self.problem)
            self._on_trouble(f"{self.problem}; tried again in {wait_s:.0f} s")
        self._retry_at = min(now + wait_s, self._retry_at or float("inf"))

    def _on_message(self, received: Received) -> None:
        address = topics.parse(received.topic)
        if address is not None and address.channel.startswith("command/"):
            # A request needs no envelope, only its body: people type them with mosquitto_pub.
            self._on_request(address.channel, received.payload)
            return
        try:
            _, message = messages.parse(received.topic, received.payload)
        except ContractError as error:
            _LOG.warning("a message was ignored: %s", error)
            return
        if isinstance(message.body, Ack):
            self._on_ack(message.body)

    def _on_ack(self, ack: Ack) -> None:
        ranges = ((1, ack.up_to), *ack.also)
        if ack.boot == self._envelopes.boot:
            # Nobody can have stored what was never sent: what is still to come must not be forgotten for it.
            ranges = tuple((first, min(last, self._sent_seq)) for first, last in ranges)
        self._outbox.acknowledge(ack.boot, ranges)

    # What follows from it

    def _restart(self) -> None:
        self._cursor = 0
        self._in_flight.clear()
        self._sent.clear()
        self._owes = True
        self._repeated = (self._clock(), 0)

    def _send(self) -> None:
        now = self._clock()
        if self._retry_at is not None and self._retry_at <= now:
            # What was denied lies behind the cursor.
            self._cursor = 0
            self._retry_at = min((until for until, _ in self._denied.values() if until > now), default=None)
        if not self.connected or self._transport is None:
            return
        if self._confirm == "collector":
            self._repeat(now)
        while len(self._in_flight) < self._limits.max_in_flight:
            rows = self._outbox.after(self._cursor, limit=self._limits.max_in_flight)
            if not rows:
                self._pay_debt()
                return
            for row in rows:
                if len(self._in_flight) >= self._limits.max_in_flight or not self._send_row(row, now):
                    return
                self._cursor = row.id

    def _send_row(self, row: Row, now: float, *, again: bool = False) -> bool:
        """Send one row, or pass it over; False when there is no room for it now."""
        if row.id in self._in_flight or self._denied.get(row.channel, (now, 0.0))[0] > now:
            return True
        if self._limits.max_bytes is not None and len(row.payload) + _PACKET_OVERHEAD_BYTES > self._limits.max_bytes:
            _LOG.error("a report of %d bytes is dropped: the broker takes %d", len(row.payload), self._limits.max_bytes)
            self._outbox.drop([row.id])
            return True
        publication = self._publication(row.channel, row.payload, again=again)
        if self._transport is None or not self._transport.publish(publication, row.id):
            return False
        self._in_flight[row.id] = row.channel
        if row.boot == self._envelopes.boot:
            self._sent_seq = max(self._sent_seq, row.seq)
        if row.id > self._cursor and (not self._sent or now - self._sent[-1][0] >= 1):
            self._sent.append((now, row.id))
        return True

    def _repeat(self, now: float) -> None:
        """Send the oldest rows again that a collector left unacknowledged for long."""
        oldest = self._outbox.after(0, limit=1)
        if not oldest or oldest[0].id > self._cursor:
            return
        repeated_at, repeated_to = self._repeated
        sent_at = repeated_at if oldest[0].id <= repeated_to else self._sent_at(oldest[0].id)
        if now - sent_at < SILENCE_S:
            return
        for row in self._outbox.after(0, limit=self._limits.max_in_flight):
            if row.id > self._cursor or len(self._in_flight) >= self._limits.max_in_flight:
                break
            if not self._send_row(row, now, again=True):
                break
            repeated_to = max(repeated_to, row.id)
        self._repeated = (now, repeated_to)

    def _sent_at(self, row_id: int) -> float:
        return next((at for at, up_to in reversed(self._sent) if up_to <= row_id), float("-inf"))

    def _pay_debt(self) -> None:
        """Publish the last retained report once more after a reconnect: brokers forget retained messages too."""
        if self._owes and self._last_retained is not None and self._transport is not None:
            self._transport.publish(self._last_retained, NOBODY)
        self._owes = False

    async def _commit_if_due(self) -> None:
        now = self._clock()
        if self._commit_at is None and self._outbox.uncommitted:
            self._commit_at = now + (COMMIT_CONNECTED_S if self.connected else COMMIT_ALONE_S)
        if not self._outbox.uncommitted:
            self._commit_at = None
        if self._tidy_at is None and self._outbox.forgetting:
            self._tidy_at = now + _TIDY_S
        if self._outbox.pressing and self._outbox.problem is None:
            self._commit_at = now
        due = [at for at in (self._commit_at, self._tidy_at) if at is not None]
        if not due or min(due) > now:
            return
        before = self._outbox.problem
        await self._commit()
        self._commit_at = self._tidy_at = None
        if self._outbox.problem is not None:
            # Not again at once: a full disk stays full for a while.
            self._commit_at = self._clock() + COMMIT_CONNECTED_S
        if self._outbox.problem is not None and self._outbox.problem != before:
            self._on_trouble(self._outbox.problem)
        self._notice_losses()

    def _notice_losses(self) -> None:
        if self._outbox.dropped <= self._dropped:
            return
        self._dropped = self._outbox.dropped
        new = self.losing is None
        self._losing_until = self._clock() + _LOSING_FOR_S
        if new and self.losing is not None:
            self._on_trouble(self.losing)

    async def _commit(self) -> None:
        plan = self._outbox.plan()
        writing = asyncio.ensure_future(asyncio.to_thread(self._outbox.write, plan))
        try:
            await asyncio.wait([writing])
        finally:
            if not writing.done():
                # Cancelled: the thread can't be, and whoever closes the outbox must find it at rest.
                await asyncio.wait([writing])
            self._outbox.finish(plan, writing.result())

    def _next_due_s(self) -> float:
        now = self._clock()
        due = [at for at in (self._commit_at, self._tidy_at, self._retry_at) if at is not None]
        if self._commit_at is None and self._outbox.uncommitted:
            due.append(now + COMMIT_ALONE_S)
        if self._confirm == "collector":
            due.append(now + SILENCE_S / 4)
        return max(0.01, min(due, default=now + 60.0) - now)
