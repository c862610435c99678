"""What is asked of which board over the broker, and when an answer is overdue. Pure: times are given, nothing is sent.

A board is asked when it is known to be online and what it is; it answers cell by cell. A request may be lost, and so
may answers, when a broker dies: the same request is then sent again, and the board tells what it has found so far.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tflotilla.shared.contract import messages
from tflotilla.shared.contract.benchmark import BenchmarkReport
from tflotilla.shared.contract.board import BoardFacts
from tflotilla.shared.contract.errors import BoardError, BrokerError, ConflictError, TflotillaError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tflotilla.shared.contract.benchmark import Method

#: Starting a process on a slow board, a delegate's trial, loading a model, checking the goldens.
_ALLOWANCE_S = 240.0
_STAGES_S = 60.0
_PROFILE_S = 600.0
#: Hundreds of samples that a slow board takes seconds for.
_SAMPLES_S = 900.0
#: How many rates the search of the server scenario tries at most, in times of `max_seconds`.
_SERVER_TRIALS = 24
#: The broker hands out what it retained at once: a board it does not know after that long has never reported to it.
UNKNOWN_AFTER_S = 5.0


def patience_s(method: Method) -> float:
    """Return how long a board may take over one cell, in seconds: what the method allows, and what comes before it."""
    searched = method.scenario == "server" and method.qps is None
    return (
        _ALLOWANCE_S
        + method.warmup_seconds
        + method.max_seconds * (_SERVER_TRIALS if searched else 1)
        + (method.sustained_seconds or 0)
        + (method.cool_seconds if method.cool_to_c is not None else 0)
        + (_STAGES_S + method.max_seconds if method.stages else 0)
        + (_SAMPLES_S if method.samples is not None else 0)
        + (_PROFILE_S if method.profile else 0)
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Asking:
    """Who was asked, who answered, who still waits. Times are of one monotonic clock, in seconds.

    Every board ends exactly once, complete or in `failures`; what comes from it afterwards is ignored.
    """

    request: str
    #: In the order in which they are asked.
    boards: tuple[str, ...]
    #: Between two answers of a board.
    patience_s: float
    began: float
    #: At most that many boards measure at the same time.
    at_once: int
    #: When a board was asked, or heard of last.
    asked: Mapping[str, float] = field(default_factory=dict)
    online: frozenset[str] = frozenset()
    facts: Mapping[str, BoardFacts] = field(default_factory=dict)
    #: By board and position.
    reports: Mapping[str, Mapping[int, BenchmarkReport]] = field(default_factory=dict)
    failures: Mapping[str, TflotillaError] = field(default_factory=dict)

    @property
    def measuring(self) -> tuple[str, ...]:
        """The boards that were asked and have not answered to the end."""
        return tuple(board for board in self.boards if board in self.asked and not self._ended(board))

    @property
    def unfinished(self) -> tuple[str, ...]:
        """The boards that are online and have not answered to the end, asked or not."""
        return tuple(board for board in self.boards if board in self.online and not self._ended(board))

    @property
    def finished(self) -> bool:
        """Whether nothing is waited for."""
        return all(self._ended(board) for board in self.boards)

    def cells(self, board: str) -> tuple[BenchmarkReport, ...]:
        """Return what a board has answered so far, in order."""
        return tuple(report for _, report in sorted(self.reports.get(board, {}).items()))

    def _ended(self, board: str) -> bool:
        found = self.reports.get(board, {})
        return board in self.failures or (bool(found) and len(found) >= next(iter(found.values())).total)

    def due(self) -> tuple[str, ...]:
        """Return the boards that are to be asked now."""
        ready = (
            board
            for board in self.boards
            if board in self.online and board in self.facts and board not in self.asked and not self._ended(board)
        )
        free = max(0, self.at_once - len(self.measuring))
        return tuple(board for _, board in zip(range(free), ready, strict=False))

    def asking(self, boards: Sequence[str], now: float) -> Asking:
        """Return this after these boards were asked."""
        return dataclasses.replace(self, asked={**self.asked, **dict.fromkeys(boards, now)})

    def doubting(self) -> Asking:
        """Return this after the broker was away: who measures is asked again, for answers may be lost."""
        return dataclasses.replace(self, asked={b: at for b, at in self.asked.items() if self._ended(b)})

    def hearing(self, message: messages.Message[Any], now: float) -> Asking:
        """Return this after a message: an answer to this request, or a word about the board."""
        board = message.board
        if board not in self.boards or self._ended(board):
            return self
        match message.body:
            case BenchmarkReport(request=request) if request == self.request:
                return self._answering(board, message.body, now)
            case messages.State(facts=facts):
                return dataclasses.replace(self, facts={**self.facts, board: facts})
            case messages.Availability(status=status):
                return self._coming(board) if status == "online" else self._going(board)
        return self

    def _coming(self, board: str) -> Asking:
        # Back after it was away: the request may never have reached it.
        asked = {b: at for b, at in self.asked.items() if b != board or board in self.online}
        return dataclasses.replace(self, online=self.online | {board}, asked=asked)

    def _going(self, board: str) -> Asking:
        if board not in self.asked:
            return self.failing(board, BrokerError(f"{board} is offline, says its last will; nothing was measured"))
        return dataclasses.replace(self, online=self.online - {board})

    def _answering(self, board: str, report: BenchmarkReport, now: float) -> Asking:
        if report.error is not None:
            kind = ConflictError if "is running on this board" in report.error else BoardError
            return self.failing(board, kind(f"{board} can't measure: {report.error}"))
        found = {**self.reports.get(board, {}), report.position: report}
        return dataclasses.replace(
            self, reports={**self.reports, board: found}, asked={**self.asked, board: now}, online=self.online | {board}
        )

    def failing(self, board: str, error: TflotillaError) -> Asking:
        """Return this with one board given up."""
        return dataclasses.replace(self, failures={**self.failures, board: error})

    def at(self, now: float) -> Asking:
        """Return this at a later time: boards that took too long have failed."""
        after = self
        for board in self.boards:
            if self._ended(board):
                continue
            if board in self.asked:
                if now - self.asked[board] > self.patience_s:
                    after = after.failing(board, BrokerError(self._silence(board)))
            elif not self._known(board) and now - self.began > UNKNOWN_AFTER_S:
                error = BrokerError(
                    f"{board} does not answer: it has never reported to this broker; "
                    f"is its agent running? (tflotilla status {board})"
                )
                after = after.failing(board, error)
        return after

    def _known(self, board: str) -> bool:
        return board in self.online and board in self.facts

    def _silence(self, board: str) -> str:
        done = len(self.reports.get(board, {}))
        after = f" after {done} configurations" if done else ""
        away = "; it is offline" if board not in self.online else ""
        return f"{board} did not answer within {self.patience_s:.0f} s{after}{away}; --timeout waits longer"
