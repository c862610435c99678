"""A fleet as it is now, for whoever shows it for hours: the view, and what boards did since, in place.

    live = Live("home")
    for message in live.hear(connection.receive(timeout_s=1.0)): ...   # what was new, understood
    live.view                                                          # as `fleet_view` folds it
    live.totals["pi-1"][digest]                                        # sums per bundle

Rules it keeps: a message that comes twice counts once; memory is bounded by the number of boards, which is bounded too:
beyond it, boards that the inventory doesn't know are counted and not kept.
What it does NOT do: connect, or look at a clock.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tflotilla.host.telemetry import fleet_view
from tflotilla.host.telemetry.fleet_view import BoardView, FleetView
from tflotilla.host.telemetry.totals import Totals
from tflotilla.shared.contract import messages, topics

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from tflotilla.host.telemetry.inbox import Received
    from tflotilla.shared.contract.messages import Message

#: What serves, what did before, and one that was tried in between.
_BUNDLES_PER_BOARD = 3
#: Names that nobody enrolled, and somebody publishes under: more than any fleet, less than would fill a memory.
MOST_BOARDS = 20_000
_NO_BUNDLE = ""


class Live:
    """Listens; one thread."""

    def __init__(self, fleet: str, *, known: Collection[str] = ()) -> None:
        """`known`: the boards of the inventory, which are kept however many others there are."""
        self._fleet = fleet
        self._known = frozenset(known)
        self._boards: dict[str, BoardView] = {}
        self._totals: dict[str, dict[str, Totals]] = {}
        self.garbage = 0
        self.foreign = 0

    @property
    def view(self) -> FleetView:
        """The fleet as it is now; a value of its own."""
        return FleetView(fleet=self._fleet, boards=dict(self._boards), garbage=self.garbage, foreign=self.foreign)

    @property
    def boards(self) -> Mapping[str, BoardView]:
        """What is known of each board, as it changes."""
        return self._boards

    @property
    def totals(self) -> Mapping[str, Mapping[str, Totals]]:
        """Board → digest of a bundle ("" without one) → its sums since we listen; the bundle heard of last is last."""
        return self._totals

    def know(self, known: Collection[str]) -> None:
        """Take the boards of an inventory that was changed."""
        self._known = frozenset(known)

    def forget(self, board: str) -> None:
        """Drop a board that was taken out of the fleet."""
        self._boards.pop(board, None)
        self._totals.pop(board, None)

    def hear(self, received: Iterable[Received]) -> list[Message[Any]]:
        """Take what arrived; return what was understood and said something new, in order of arrival."""
        new: list[Message[Any]] = []
        for each in received:
            address = topics.parse(each.topic)
            if address is None or address.fleet != self._fleet or address.channel not in topics.CHANNELS:
                self.foreign += 1
                continue
            if not each.payload and address.channel in topics.RETAINED:
                # How a retained message is deleted: the broker forgets, we don't.
                continue
            message = fleet_view.understood(each.topic, each.payload)
            if message is None:
                self.garbage += 1
                continue
            before = self._boards.get(message.board)
            if before is None and len(self._boards) >= MOST_BOARDS and message.board not in self._known:
                self.foreign += 1
                continue
            self._boards[message.board], is_new = fleet_view.fold(before, message, each.at, retained=each.retained)
            if is_new:
                self._add(message)
                new.append(message)
        return new

    def _add(self, message: Message[Any]) -> None:
        if not isinstance(message.body, messages.Metrics):
            return
        of_board = self._totals.setdefault(message.board, {})
        bundle = message.bundle or _NO_BUNDLE
        totals = of_board.pop(bundle, None) or Totals()
        totals.add(message.body)
        of_board[bundle] = totals
        while len(of_board) > _BUNDLES_PER_BOARD:
            # The one that was heard of longest ago.
            del of_board[next(iter(of_board))]
