"""What is asked of which board, and when an answer is overdue. Pure: times are given, nothing is sent from here.

MLPerf's SingleStream scenario, once per board, runtime and number of threads; the boards do the measuring.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tflotilla.shared.contract import messages
from tflotilla.shared.contract.errors import BoardError, BrokerError, TflotillaError, UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

RUNTIMES = ("tflite-runtime", "ai-edge-litert")
AUTO = "auto"
_MOST_THREADS = 64
#: Starting a process on a slow board, loading a model, and the way there and back.
_ALLOWANCE_PER_CELL_S = 20.0
_ALLOWANCE_S = 10.0
#: The broker hands out what it retained at once: a board it does not know after that long has never reported to it.
UNKNOWN_AFTER_S = 5.0


def parse_threads(text: str) -> tuple[int, ...]:
    """Read `1,2,4`. Raises UsageError."""
    try:
        threads = tuple(dict.fromkeys(int(part) for part in text.split(",")))
    except ValueError as error:
        message = f"--threads must be numbers like 1,2,4, not {text!r}"
        raise UsageError(message) from error
    for number in threads:
        if not 1 <= number <= _MOST_THREADS:
            message = f"--threads: {number} is not between 1 and {_MOST_THREADS}"
            raise UsageError(message)
    return threads


def parse_runtimes(text: str) -> tuple[str, ...]:
    """Read `auto` (every runtime a board has: the empty tuple) or names like `tflite-runtime,ai-edge-litert`.

    Raises:
        UsageError: a name that is no runtime.

    """
    if text == AUTO:
        return ()
    names = tuple(dict.fromkeys(part.strip() for part in text.split(",")))
    for name in names:
        if name not in RUNTIMES:
            message = f"--runtimes must be auto or some of {', '.join(RUNTIMES)}, not {name!r}"
            raise UsageError(message)
    return names


def check(request: messages.BenchmarkRequest) -> messages.BenchmarkRequest:
    """Return the request. Raises UsageError when its limits contradict each other or can't be."""
    if request.min_runs < 1 or request.warmup_runs < 0:
        message = "--min-runs must be at least 1 and --warmup-runs at least 0"
        raise UsageError(message)
    if not 0 <= request.min_seconds <= request.max_seconds or request.max_seconds <= 0:
        message = (
            f"--min-seconds {request.min_seconds:g} and --max-seconds {request.max_seconds:g} leave no time to measure"
        )
        raise UsageError(message)
    return request


def patience_s(request: messages.BenchmarkRequest) -> float:
    """Return how long a board may take over all the cells of a request."""
    cells = len(request.threads) * (len(request.runtimes) or len(RUNTIMES))
    return cells * (request.max_seconds + _ALLOWANCE_PER_CELL_S) + _ALLOWANCE_S


@dataclass(frozen=True, slots=True, kw_only=True)
class Asking:
    """Who was asked, who answered, who still waits. Times are of one monotonic clock, in seconds.

    Every board ends exactly once, in `answers` or in `failures`; what comes from it afterwards is ignored.
    """

    request: str
    #: In the order in which they are asked.
    boards: tuple[str, ...]
    patience_s: float
    began: float
    #: At most that many boards measure at the same time.
    at_once: int
    asked: Mapping[str, float] = field(default_factory=dict)
    known: frozenset[str] = frozenset()
    answers: Mapping[str, messages.BenchmarkReport] = field(default_factory=dict)
    failures: Mapping[str, TflotillaError] = field(default_factory=dict)

    @property
    def measuring(self) -> tuple[str, ...]:
        """The boards that were asked and have not answered."""
        return tuple(board for board in self.boards if board in self.asked and not self._ended(board))

    @property
    def finished(self) -> bool:
        """Whether nothing is waited for."""
        return all(self._ended(board) for board in self.boards)

    def _ended(self, board: str) -> bool:
        return board in self.answers or board in self.failures

    def due(self) -> tuple[str, ...]:
        """Return the boards that are to be asked now."""
        waiting = (board for board in self.boards if board not in self.asked and not self._ended(board))
        free = max(0, self.at_once - len(self.measuring))
        return tuple(board for _, board in zip(range(free), waiting, strict=False))

    def asking(self, boards: Sequence[str], now: float) -> Asking:
        """Return this after these boards were asked."""
        return dataclasses.replace(self, asked={**self.asked, **dict.fromkeys(boards, now)})

    def hearing(self, message: messages.Message[Any]) -> Asking:
        """Return this after a message: an answer to this request, or a word about being there."""
        board = message.board
        if board not in self.boards or self._ended(board):
            return self
        known = dataclasses.replace(self, known=self.known | {board})
        match message.body:
            case messages.BenchmarkReport(request=request) if request == self.request:
                return known.answering(board, message.body)
            case messages.Availability(status="offline"):
                error = BrokerError(f"{board} is offline, says its last will; nothing was measured")
                return known.failing(board, error)
        return known

    def answering(self, board: str, report: messages.BenchmarkReport) -> Asking:
        """Return this after a board's answer, which may be that it can't."""
        if report.error is not None:
            return self.failing(board, BoardError(f"{board} can't measure: {report.error}"))
        return dataclasses.replace(self, answers={**self.answers, board: report})

    def failing(self, board: str, error: TflotillaError) -> Asking:
        """Return this with one board given up."""
        return dataclasses.replace(self, failures={**self.failures, board: error})

    def at(self, now: float) -> Asking:
        """Return this at a later time: boards that took too long have failed."""
        after = self
        for board in self.boards:
            if self._ended(board):
                continue
            if board in self.asked and now - self.asked[board] > self.patience_s:
                error = BrokerError(f"{board} did not answer within {self.patience_s:.0f} s; --timeout waits longer")
                after = after.failing(board, error)
            elif board not in self.known and now - self.began > UNKNOWN_AFTER_S:
                error = BrokerError(
                    f"{board} does not answer: it has never reported to this broker; "
                    f"is its agent running? (tflotilla status {board})"
                )
                after = after.failing(board, error)
        return after
