"""A store in memory that keeps the port's promises, and takes nothing when a test says so."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tflotilla.host.telemetry.store import placing
from tflotilla.host.telemetry.store.port import Arrival, Maintained, Outcome, UnavailableError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


@dataclass(kw_only=True)
class FakeStore:
    """`problem` set: nothing is kept, and that is why."""

    kept: list[Arrival] = field(default_factory=list)
    batches: list[int] = field(default_factory=list)
    maintained: int = 0
    problem: str | None = None
    failure: Exception | None = None

    @property
    def numbers(self) -> set[tuple[str, str, int]]:
        """What is stored, as (board, boot, seq)."""
        return {(each.board, each.boot, each.seq) for each in self.kept if each.seq}

    def append(self, batch: Sequence[Arrival]) -> list[Outcome]:
        """See `port.Store`."""
        self._check()
        self.batches.append(len(batch))
        known = self.numbers
        outcomes: list[Outcome] = []
        for each in batch:
            key = each.board, each.boot, each.seq
            if each.seq == 0 and each.channel in placing.LATEST:
                outcomes.append("stored")
            elif not placing.is_numbered(each):
                outcomes.append("refused")
                continue
            elif key in known:
                outcomes.append("duplicate")
                continue
            else:
                outcomes.append("stored")
                known.add(key)
            self.kept.append(each)
        return outcomes

    def maintain(self, *, now: float, stop: Callable[[], bool] = lambda: False) -> Maintained:
        """See `port.Store`."""
        del now, stop
        self._check()
        self.maintained += 1
        return Maintained(more=self.maintained % 2 == 1)

    def close(self) -> None:
        """See `port.Store`."""

    def _check(self) -> None:
        if self.failure is not None:
            raise self.failure
        if self.problem is not None:
            raise UnavailableError(self.problem)
