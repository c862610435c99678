"""What the page shows, kept together and in time: the fleet, its rollouts, its benchmarks, and who is told of changes.

One asyncio loop. Four times a second those who look at a board are told what it said; twice a second everybody is told
which tiles changed, so that what is shown is never older than a second. Nobody looking costs nothing: what is asked for
is then brought up to date first.
What it does NOT do: HTTP (`app`), MQTT (`listening`).
"""

from __future__ import annotations

import asyncio
import itertools
import time
from typing import TYPE_CHECKING, Any

import msgspec

from tflotilla.host.dashboards.web.stream import Hub

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from tflotilla.host.dashboards.web.access import Token
    from tflotilla.host.dashboards.web.desks import BenchmarkDesk, ReportDesk, RolloutDesk
    from tflotilla.host.dashboards.web.fleet_now import FleetNow

_TICK_S = 0.25
_TICKS_PER_LOOK = 2
#: An event at least so often, so that a browser can tell silence from nothing new.
_HEARTBEAT_LOOKS = 4
_READS_JOURNAL_LOOKS = 2
_READS_INVENTORY_LOOKS = 6
_FRESH_S = 0.5

encode = msgspec.json.Encoder().encode


class Site:
    """See above; one loop, one thread."""

    def __init__(
        self,
        now: FleetNow,
        rollouts: RolloutDesk,
        benchmarks: BenchmarkDesk,
        *,
        reports: ReportDesk | None = None,
        token: Token | None = None,
        ask_benchmark: Callable[[str], Awaitable[str]],
        inventory: Callable[[], Mapping[str, Mapping[str, str]] | None] = lambda: None,
    ) -> None:
        """Put it together.

        Args:
            now: what boards say goes in there.
            rollouts: reads and writes the journal.
            benchmarks: reads the history.
            reports: reads what was collected; None where nothing is.
            token: who may do things; None is nobody.
            ask_benchmark: asks a board to measure and returns the request's id; raises BrokerError.
            inventory: returns boards with labels when they changed since it was called last, else None.

        """
        self.now = now
        self.rollouts = rollouts
        self.benchmarks = benchmarks
        self.reports = reports
        self.token = token
        self.benchmark = ask_benchmark
        self._inventory = inventory
        self.hub = Hub(lambda: encode(self.fleet_document()), on_watch=now.watch, on_unwatch=now.unwatch)
        self._looked = 0.0
        self._source: tuple[bool, str | None] | None = None
        self._quiet = 0

    def fleet_document(self) -> dict[str, Any]:
        """Return what `GET /api/fleet` answers, as it was looked at last."""
        return self.now.fleet_document() | {
            "writable": self.token is not None,
            "rollouts": self.rollouts.rows(),
            "rollouts_problem": self.rollouts.problem,
        }

    async def recall(self, board: str) -> None:
        """Look up how a board's deployments ended before we listened: what was collected, and what rollouts know."""
        if not self.now.knows(board):
            return
        collected = [] if self.reports is None else await self.reports.deployments(board)
        self.now.remember(board, [*collected, *await self.rollouts.deployments(board)])

    async def live(self) -> None:
        """Tell whoever looks, for ever."""
        await self.rollouts.refresh()
        for tick in itertools.count(1):
            if self.hub.streams:
                self._tell_of_boards()
                looks, rest = divmod(tick, _TICKS_PER_LOOK)
                if rest == 0:
                    self._look(looks)
                    if looks % _READS_JOURNAL_LOOKS == 0:
                        await self.beat_rollouts()
            await asyncio.sleep(_TICK_S)

    async def refresh(self) -> None:
        """Bring tiles up to date, unless they were just now; for who asks while nobody looks."""
        if time.monotonic() - self._looked >= _FRESH_S or not self._looked:
            if not self.hub.streams:
                await self.rollouts.refresh()
            self._look(0)

    async def beat_rollouts(self) -> None:
        """Tell everybody of rollouts that went on."""
        if await self.rollouts.refresh():
            told = {"rollouts": self.rollouts.rows(), "problem": self.rollouts.problem}
            self.hub.fleet.publish("rollouts", encode(told))

    def _look(self, number: int) -> None:
        self._looked = time.monotonic()
        if number % _READS_INVENTORY_LOOKS == 0:
            boards = self._inventory()
            if boards is not None:
                self.now.know(boards)
        changes = self.now.changes()
        if changes.source != self._source:
            self._source = changes.source
            connected, reason = changes.source
            self.hub.fleet.publish("source", encode({"connected": connected, "reason": reason}))
        self._quiet += 1
        if changes.tiles or changes.gone or self._quiet >= _HEARTBEAT_LOOKS:
            self._quiet = 0
            told = {
                "now": self.now.time(),
                "tiles": changes.tiles,
                "gone": changes.gone,
                "garbage": self.now.garbage,
            }
            self.hub.fleet.publish("tiles", encode(told))

    def _tell_of_boards(self) -> None:
        for board, channel in self.hub.boards.items():
            news = self.now.news(board)
            if news is not None:
                channel.publish("board", encode(news))
