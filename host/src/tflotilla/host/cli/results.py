"""How commands on many boards speak: progress per board, one table row or JSON object per board, one exit code.

What it does NOT do: work on boards (`fleet.pool` does).
"""

from __future__ import annotations

import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import typer

from tflotilla.host.cli import output
from tflotilla.host.fleet import pool
from tflotilla.shared.contract import codec

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from tflotilla.host.fleet.pool import BoardResult
    from tflotilla.shared.contract.errors import TflotillaError

T = TypeVar("T")


class Progress(Protocol):
    """What a command tells while it works; may be called from every board's thread."""

    def step(self, board: str, text: str) -> None:
        """Say what is being done on a board."""

    def bytes(self, board: str, sent: int, total: int) -> None:
        """Say how much has been sent to a board."""


class _Lines:
    """Without a terminal: a line per step, none per byte."""

    def __init__(self) -> None:
        self._lock = threading.Lock()

    def step(self, board: str, text: str) -> None:
        with self._lock:
            output.note(f"{board}: {text}")

    def bytes(self, board: str, sent: int, total: int) -> None:
        pass


class _Bars:
    """On a terminal: a line per board that is being worked on."""

    def __init__(self, progress: Any, boards: Sequence[str]) -> None:  # noqa: ANN401 - rich stays out of --help
        self._progress = progress
        self._tasks = {board: progress.add_task("waiting", board=board, total=None) for board in boards}

    def step(self, board: str, text: str) -> None:
        self._progress.update(self._tasks[board], description=text)

    def bytes(self, board: str, sent: int, total: int) -> None:
        self._progress.update(self._tasks[board], completed=sent, total=total)


@contextmanager
def progress(boards: Sequence[str]) -> Iterator[Progress]:
    """Show what is going on with boards, on stderr."""
    if not output.notes().is_terminal:
        yield _Lines()
        return
    from rich.progress import BarColumn, DownloadColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as RichProgress

    with RichProgress(
        TextColumn("{task.fields[board]}"),
        BarColumn(bar_width=24),
        DownloadColumn(),
        TextColumn("{task.description}", markup=False),
        TimeElapsedColumn(),
        console=output.notes(),
        transient=True,
    ) as bars:
        yield _Bars(bars, boards)


def finish(
    title: str,
    columns: Sequence[str],
    results: Sequence[BoardResult[T]],
    row: Callable[[T], Sequence[str]],
    *,
    as_json: bool,
    right: Sequence[str] = (),
    document: Callable[[T], Any] = codec.encode,
    on_failure: Callable[[TflotillaError], Sequence[str]] = lambda _error: (),
) -> None:
    """Print the results of many boards and leave with their exit code.

    Args:
        title: of the table.
        columns: after the board's name; the last one also takes the error of a board that failed.
        results: one per board.
        row: a board's cells, one per column.
        as_json: print a JSON document instead of a table.
        right: columns of figures.
        document: what a board's JSON object holds besides board, ok and error.
        on_failure: the first cells of a board that failed; the error stands in its last one.

    Raises:
        typer.Exit: with the code of the failures, when there are any.

    """
    code = pool.exit_code(results)
    if as_json:
        output.emit_json({"boards": [_object(result, document) for result in results], "exit_code": code})
    elif code == 0 or len(results) > 1:
        rows = [(result.board, *_cells(result, row, on_failure, len(columns))) for result in results]
        output.emit_table(title, ("board", *columns), rows, right=right)
    if code != 0:
        failed = [result for result in results if result.error is not None]
        if len(results) > 1:
            output.complain(f"{len(failed)} of {len(results)} boards failed")
        elif failed:
            output.complain(str(failed[0].error))
        raise typer.Exit(code)


def _cells(
    result: BoardResult[T],
    row: Callable[[T], Sequence[str]],
    on_failure: Callable[[TflotillaError], Sequence[str]],
    count: int,
) -> Sequence[str]:
    if result.error is not None:
        first = tuple(on_failure(result.error))
        words = " ".join(str(result.error).split()).removeprefix(f"{result.board}: ")
        return (*first, *[""] * (count - 1 - len(first)), _shown(words))
    return row(result.value) if result.value is not None else [""] * count


def _shown(words: str) -> str:
    # A board's words: control characters are shown, not obeyed.
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in words)


def _object(result: BoardResult[T], document: Callable[[T], Any]) -> dict[str, Any]:
    head: dict[str, Any] = {"board": result.board, "ok": result.ok}
    if result.error is not None:
        error = result.error
        return head | {"error": type(error).__name__, "message": str(error), "exit_code": error.exit_code}
    return (document(result.value) if result.value is not None else {}) | head
