"""What each board did in the last minutes: sums in a few slots per board, forgotten one by one.

    recent = Recent(over_s=60.0, wants=Wants(stages=frozenset({"total"})))
    recent.hear(message, at=…, missing=view.missing)
    recent.totals("pi-7", now)

Rules it keeps: a window counts where the board's clock puts it, and that clock is set against ours by the fastest of
its messages: what an outbox brings after an outage is not of now, and a clock at 1970 changes nothing. Sums are of one
bundle: with the first window of another they begin anew. Memory is bounded by boards, slots and what is wanted.
What it does NOT do: look at a clock, or recognize repetitions (`live` does).
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tflotilla.host.telemetry.totals import Totals
from tflotilla.shared.contract import messages

if TYPE_CHECKING:
    from tflotilla.shared.contract.messages import Message

#: What is asked for covers between two thirds of `over` and all of it.
_SLOTS = 3
#: The fastest message of the last so many seconds, and of as many before, tells a board's clock.
_DELAYS_FOR_S = 120.0
#: No clock is further from 1970; two that are could be infinitely far apart.
_LATEST_S = 1e12


@dataclass(frozen=True, slots=True, kw_only=True)
class Wants:
    """What is kept of a window beside its counts; what nobody asks for costs no memory."""

    stages: frozenset[str] = frozenset()
    labels: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Lately:
    """What one board did with the bundle that serves."""

    bundle: str | None
    totals: Totals
    #: Reports that were sent and did not come; None where it was us who did not hear.
    missing: int | None
    #: Reports that its outbox had no room for.
    outbox_dropped: int


class _Slot:
    """One part of the time that is asked for."""

    __slots__ = ("missing_before", "number", "outbox_dropped", "totals")

    def __init__(self, number: int, missing_before: int) -> None:
        self.number = number
        self.missing_before = missing_before
        self.outbox_dropped = 0
        self.totals = Totals()


class _Board:
    """What is kept of one board."""

    __slots__ = ("boot", "bundle", "delays", "missing", "newest", "outbox_dropped", "slots")

    def __init__(self) -> None:
        self.slots: deque[_Slot] = deque()
        self.bundle: str | None = None
        #: The board's time of its newest window.
        self.newest = float("-inf")
        self.missing = 0
        #: What its outbox had dropped when it was heard last; None before.
        self.outbox_dropped: int | None = None
        self.boot = ""
        #: (arrival, delay) of the fastest message of this span of time and of the one before.
        self.delays: tuple[tuple[float, float], ...] = ()


class Recent:
    """One stretch of time; used by one thread."""

    def __init__(self, *, over_s: float, wants: Wants) -> None:
        self._slot_s = over_s / _SLOTS
        self.wants = wants
        self._over_s = over_s
        self._boards: dict[str, _Board] = {}
        self._lost_at = float("-inf")

    def lost(self, now: float) -> None:
        """Take that messages were lost on our side: gaps say nothing until they are forgotten."""
        self._lost_at = now

    def hear(self, message: Message[Any], *, at: float, missing: int) -> None:
        """Take what was new. `at` is Unix seconds of this machine; `missing` the board's gaps as counted by now."""
        board = self._boards.get(message.board)
        if board is None:
            board = self._boards[message.board] = _Board()
        late_s = _late_s(board, message, at)
        body = message.body
        if isinstance(body, messages.Metrics):
            self._window(board, message, body, at - late_s)
        elif isinstance(body, messages.State):
            self._state(board, message, body, at)
        board.missing = missing

    def forget(self, board: str) -> None:
        """Drop a board that is not watched any more."""
        self._boards.pop(board, None)

    def lately(self, name: str, now: float) -> Lately | None:
        """Return the sums of a board; None where nothing was heard of it in that time."""
        board = self._boards.get(name)
        if board is None:
            return None
        oldest = int(now // self._slot_s) - _SLOTS + 1
        while board.slots and board.slots[0].number < oldest:
            board.slots.popleft()
        if not board.slots:
            return None
        totals = Totals()
        for slot in board.slots:
            totals.merge(slot.totals)
        return Lately(
            bundle=board.bundle,
            totals=totals,
            missing=None
            if now - self._lost_at < 2 * self._over_s
            # A late message fills a gap: there may be fewer than before.
            else max(0, board.missing - board.slots[0].missing_before),
            outbox_dropped=sum(slot.outbox_dropped for slot in board.slots),
        )

    def _window(self, board: _Board, message: Message[Any], body: messages.Metrics, placed: float) -> None:
        if message.bundle != board.bundle:
            if message.time < board.newest:
                # Of the bundle that served before.
                return
            board.slots.clear()
            board.bundle = message.bundle
        board.newest = max(board.newest, message.time)
        slot = self._slot(board, placed)
        if slot is not None:
            slot.totals.add(body, stages=self.wants.stages, labels=self.wants.labels)

    def _state(self, board: _Board, message: Message[Any], body: messages.State, at: float) -> None:
        before = board.outbox_dropped
        board.outbox_dropped = body.outbox_dropped
        if before is not None and message.boot == board.boot and body.outbox_dropped > before:
            slot = self._slot(board, at)
            if slot is not None:
                slot.outbox_dropped += body.outbox_dropped - before
        board.boot = message.boot

    def _slot(self, board: _Board, at: float) -> _Slot | None:
        """Return the slot of a moment, None where it is forgotten already."""
        number = int(at // self._slot_s)
        slots = board.slots
        if not slots or number > slots[-1].number:
            slots.append(_Slot(number, board.missing))
            while slots[0].number <= number - _SLOTS:
                slots.popleft()
            return slots[-1]
        return next((slot for slot in reversed(slots) if slot.number == number), None)


def _late_s(board: _Board, message: Message[Any], at: float) -> float:
    """Return how much later than its fastest a board's message came."""
    delay = at - max(-_LATEST_S, min(message.time, _LATEST_S))
    if not board.delays or at - board.delays[0][0] > _DELAYS_FOR_S:
        board.delays = ((at, delay), *board.delays[:1])
    elif delay < board.delays[0][1]:
        board.delays = ((board.delays[0][0], delay), *board.delays[1:])
    return delay - min(fastest for _, fastest in board.delays)
