"""Listens to what boards report and keeps, per board and bundle, the evidence that gates are judged by.

Rules it keeps: a message that comes twice counts once; of each board the newest bundles are kept, so memory is bounded
by the number of boards; metrics that can't be read count against the bundle that reported last.
What it does NOT do: connect (it is handed what arrived), judge (`gates`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, Protocol

from tflotilla.host.rollouts import evidence
from tflotilla.host.telemetry import fleet_view
from tflotilla.host.telemetry.fleet_view import Sequence as Numbers
from tflotilla.shared.contract import messages, topics

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

    from tflotilla.host.rollouts.evidence import Evidence
    from tflotilla.host.rollouts.policy import Gate
    from tflotilla.host.telemetry.inbox import Received
    from tflotilla.shared.contract.messages import Message

Presence = Literal["online", "offline"]
#: What serves, what did before, and one that was tried in between.
_BUNDLES_PER_BOARD = 3
_READ_FROM_METRICS: tuple[Gate, ...] = ("errors", "latency", "memory", "temperature", "labels", "confidence")


class Telemetry(Protocol):
    """Where reports come from: `telemetry.mqtt.Connection`, or a simulation."""

    def receive(self, *, timeout_s: float) -> Sequence[Received]:
        """Wait until something is there, at most that long, and return all of it."""
        ...


class Silence:
    """A fleet without a broker: nothing is ever heard, and gates that want telemetry fail closed."""

    def receive(self, *, timeout_s: float) -> Sequence[Received]:
        """Return nothing, at once."""
        del timeout_s
        return ()


class Watcher:
    """The evidence of some boards, from what arrives."""

    def __init__(
        self, boards: Collection[str], *, on_presence: Callable[[str, Presence, float], None] = lambda *_heard: None
    ) -> None:
        """`on_presence` hears what a board, or its last will, says of its being there, and when that came."""
        self._boards = frozenset(boards)
        self._on_presence = on_presence
        self._evidence: dict[str, dict[str, Evidence]] = {}
        self._numbers: dict[str, tuple[str, Numbers]] = {}

    @property
    def evidence(self) -> Mapping[str, Mapping[str, Evidence]]:
        """Board → digest → what was seen of it."""
        return self._evidence

    def hear(self, received: Iterable[Received]) -> tuple[str, ...]:
        """Take what arrived; return the boards that said that they are there, each once."""
        born: dict[str, None] = {}
        for each in received:
            address = topics.parse(each.topic)
            if address is None or address.board not in self._boards:
                continue
            message = fleet_view.understood(each.topic, each.payload)
            if message is None:
                if address.channel == "metrics":
                    self._spoil(address.board, each.at)
                continue
            if isinstance(message.body, messages.Availability):
                self._on_presence(message.board, message.body.status, each.at)
                if message.body.status == "online":
                    born[message.board] = None
            elif message.seq > 0 and self._is_new(message):
                # What was retained describes the past, but only numbered messages are evidence, and these never are.
                self._weigh(message, each.at)
        return tuple(born)

    def forget(self, board: str, bundle: str) -> None:
        """Begin the evidence of a bundle on a board anew."""
        self._evidence.get(board, {}).pop(bundle, None)

    def _is_new(self, message: Message[Any]) -> bool:
        boot, numbers = self._numbers.get(message.board, (message.boot, Numbers()))
        if boot != message.boot:
            numbers = Numbers()
        after = numbers.adding(message.seq)
        self._numbers[message.board] = (message.boot, after)
        return after.duplicates == numbers.duplicates

    def _spoil(self, board: str, at: float) -> None:
        """Metrics that can't be read (a NaN is no JSON) may hide what a gate is for: its gates must not pass."""
        of_board = self._evidence.get(board, {})
        if of_board:
            newest = next(reversed(of_board))
            of_board[newest] = evidence.spoiled(of_board[newest], _READ_FROM_METRICS, at)

    def _weigh(self, message: Message[Any], at: float) -> None:
        if message.bundle is None:
            return
        of_board = self._evidence.setdefault(message.board, {})
        before = of_board.pop(message.bundle, None)
        after = evidence.fold(before, message, at)
        if after is not None:
            of_board[message.bundle] = after
        while len(of_board) > _BUNDLES_PER_BOARD:
            # The one that was heard of longest ago.
            del of_board[next(iter(of_board))]
