"""What a person sees while a rollout is carried out: lines of what happened, and on a terminal a bar per board.

What it does NOT do: say where the rollout stands in the end (`rollout_status`).
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any, Protocol

import typer

from tflotilla.host.cli import output

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Sequence

    from tflotilla.host.rollouts.jobs import JobProgress

#: A terminal shows so many boards at once; the others are counted in the total.
_SHOWN_BOARDS = 12


class Progress(Protocol):
    """Told by the loop that carries a rollout out."""

    def line(self, text: str) -> None:
        """Say that something happened."""

    def update(self, headline: str, told: Sequence[JobProgress], *, busy: Collection[str]) -> None:
        """Say where it stands; `busy` are the boards that something is being done to."""


class _Lines:
    """Without a terminal: a line for what happened, none in between."""

    def __init__(self, write: Callable[[str], None]) -> None:
        self.line = write

    def update(self, headline: str, told: Sequence[JobProgress], *, busy: Collection[str]) -> None:
        pass


class _Bars:
    """On a terminal: where it stands with all bytes so far, and below it the boards that are being worked on."""

    def __init__(self, bars: Any) -> None:  # noqa: ANN401 - rich stays out of --help
        self._bars = bars
        self._all = bars.add_task("", board="", total=None)
        self._tasks: dict[str, Any] = {}
        self._bytes: dict[str, tuple[int, int]] = {}

    def line(self, text: str) -> None:
        output.note(text)

    def update(self, headline: str, told: Sequence[JobProgress], *, busy: Collection[str]) -> None:
        for each in told:
            if each.sent is not None and each.total is not None:
                self._bytes[each.board] = each.sent, each.total
            if each.board in busy and each.board not in self._tasks and len(self._tasks) < _SHOWN_BOARDS:
                self._tasks[each.board] = self._bars.add_task("", board=each.board, total=None)
            if each.board in self._tasks:
                sent, total = self._bytes.get(each.board, (0, None))
                changes = {"description": each.text} if each.text else {}
                self._bars.update(self._tasks[each.board], completed=sent, total=total, **changes)
        for board in [board for board in self._tasks if board not in busy]:
            self._bars.remove_task(self._tasks.pop(board))
        sent = sum(done for done, _whole in self._bytes.values())
        whole = sum(whole for _done, whole in self._bytes.values())
        self._bars.update(self._all, description=headline, completed=sent, total=whole or None)


@contextlib.contextmanager
def shown(*, as_json: bool) -> Iterator[Progress]:
    """Show what goes on for the time of the block; with `as_json` stdout is left to the result."""
    if not output.notes().is_terminal:
        yield _Lines(output.note if as_json else typer.echo)
        return
    from rich.progress import BarColumn, DownloadColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as RichProgress

    with RichProgress(
        TextColumn("{task.fields[board]}"),
        BarColumn(bar_width=20),
        DownloadColumn(),
        TextColumn("{task.description}", markup=False),
        TimeElapsedColumn(),
        console=output.notes(),
        transient=True,
    ) as bars:
        yield _Bars(bars)
