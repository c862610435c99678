"""Many boards at once: a bounded pool, keyed by board.

Rules it keeps: one bad board never stops the others; results come in the order of the boards that went in; a board is
worked on by one thread at a time.
What it does NOT do: retry, print, or know what is done to a board.
"""

from __future__ import annotations

import queue
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar

from tflotilla.shared.contract.errors import TflotillaError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

T = TypeVar("T")
EXIT_MIXED = 1
DEFAULT_FORKS = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class BoardResult(Generic[T]):
    """What came of one board: either `value` or `error`."""

    board: str
    value: T | None = None
    error: TflotillaError | None = None

    @property
    def ok(self) -> bool:
        """Whether the work was done."""
        return self.error is None


def run(
    boards: Sequence[str],
    work: Callable[[str], T],
    *,
    forks: int = DEFAULT_FORKS,
    on_result: Callable[[BoardResult[T]], None] | None = None,
) -> tuple[BoardResult[T], ...]:
    """Do `work(board)` for every board, at most `forks` at once; return the results in the order of `boards`.

    `on_result` is called in the caller's thread as boards finish. An exception that isn't a TflotillaError is a bug
    of ours: it becomes one, so that the other boards' results are still told.
    """
    waiting: queue.SimpleQueue[str] = queue.SimpleQueue()
    finished: queue.SimpleQueue[BoardResult[T]] = queue.SimpleQueue()
    names = list(dict.fromkeys(boards))
    for name in names:
        waiting.put(name)

    def serve() -> None:
        while True:
            try:
                name = waiting.get_nowait()
            except queue.Empty:
                return
            finished.put(_attempt(name, work))

    for number in range(min(max(forks, 1), len(names))):
        # Daemons: Ctrl-C must not wait for boards that are off.
        threading.Thread(target=serve, name=f"board-{number}", daemon=True).start()
    results: dict[str, BoardResult[T]] = {}
    for _name in names:
        result = finished.get()
        results[result.board] = result
        if on_result is not None:
            on_result(result)
    return tuple(results[name] for name in names)


def exit_code(results: Sequence[BoardResult[T]]) -> int:
    """Return 0 when every board is done, the class's code when all failures share it, else 1."""
    codes = {result.error.exit_code for result in results if result.error is not None}
    if not codes:
        return 0
    return codes.pop() if len(codes) == 1 else EXIT_MIXED


def _attempt(name: str, work: Callable[[str], T]) -> BoardResult[T]:
    try:
        return BoardResult(board=name, value=work(name))
    except TflotillaError as error:
        return BoardResult(board=name, error=error)
    except Exception as error:  # noqa: BLE001 - one bad board never stops the others
        bug = TflotillaError(f"a bug of tflotilla: {type(error).__name__}: {error}")
        bug.__cause__ = error
        return BoardResult(board=name, error=bug)
