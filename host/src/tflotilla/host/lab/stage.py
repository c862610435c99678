"""How the demo speaks: chapters, sentences, tables, and a moving line while it works.

On a terminal it is coloured and alive; piped, it is plain lines in the same order. It does NOT decide what is told:
that is `story`.
"""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich import box
from rich.console import Console, Group
from rich.live import Live
from rich.padding import Padding
from rich.panel import Panel
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

_FRAMES_PER_SECOND = 8
_INDENT = (0, 0, 0, 2)
_DETAIL_INDENT = (0, 0, 0, 4)
_ENDLESS = 1000
#: What stands before the text of the moving line: spinner, bar, chapter and time.
_BAR_WIDTH = 32


class Stage:
    """Where the story is told."""

    def __init__(self, console: Console) -> None:
        self.console = console
        #: How many the story has; it says so when it begins.
        self.chapters = 0
        self._number = 0
        self._started = time.monotonic()

    @property
    def elapsed_s(self) -> float:
        """Seconds since the curtain rose."""
        return time.monotonic() - self._started

    def chapter(self, title: str) -> None:
        """Begin the next chapter."""
        self._number += 1
        heading = f"{self._number}/{self.chapters}  {title}"
        self.console.print()
        if self.console.is_terminal:
            self.console.print(Rule(Text(heading, style="bold cyan"), align="left", style="cyan"))
        else:
            self.console.print(heading, markup=False)

    def say(self, text: str, *, style: str = "") -> None:
        """Say one sentence; long ones wrap with their indent."""
        self.console.print(Padding(Text(text, style=style), _INDENT, expand=False))

    def detail(self, text: str) -> None:
        """Say what belongs to the sentence before."""
        self.console.print(Padding(Text(text, style="dim"), _DETAIL_INDENT, expand=False))

    def good(self, text: str) -> None:
        """Say what went as it should."""
        self._mark("✓", "green", text)

    def refused(self, text: str) -> None:
        """Say what was refused, as it should be."""
        self._mark("✗", "yellow", text)

    def _mark(self, sign: str, colour: str, text: str) -> None:
        line = Table.grid(padding=(0, 1))
        line.add_row(Text(sign, style=f"bold {colour}"), Text(text))
        self.console.print(Padding(line, _INDENT, expand=False))

    def summary(self, lines: Sequence[str]) -> None:
        """Say at the end what was seen."""
        self.console.print()
        if self.console.is_terminal:
            self.console.print(Panel(Text("\n".join(lines)), title="What you saw", title_align="left", style="green"))
        else:
            self.console.print("What you saw")
            for line in lines:
                self.say(line)

    def commands(self, title: str, lines: Sequence[str]) -> None:
        """Print commands to copy: one a line, never wrapped."""
        self.console.print()
        self.console.print(title, style="bold", markup=False)
        for line in lines:
            self.console.print(Text(f"  {line}"), soft_wrap=True)

    def table(
        self,
        columns: Sequence[str],
        rows: Sequence[Sequence[str]],
        *,
        right: Sequence[str] = (),
        spare: Sequence[str] = (),
    ) -> None:
        """Show a table; columns named in `right` are figures, those in `spare` go first where the screen is narrow."""
        room = self.console.width - _INDENT[3]
        table = self.build_table(columns, rows, right=right)
        for name in spare:
            if self._width(table) <= room:
                break
            gone = columns.index(name)
            columns = [*columns[:gone], *columns[gone + 1 :]]
            rows = [[*row[:gone], *row[gone + 1 :]] for row in rows]
            table = self.build_table(columns, rows, right=right)
        self.console.print(Padding(table, _INDENT, expand=False))

    def _width(self, table: Table) -> int:
        # As wide as it wants to be, not as wide as it may be.
        return self.console.measure(table, options=self.console.options.update(width=_ENDLESS)).maximum

    def build_table(self, columns: Sequence[str], rows: Sequence[Sequence[str]], *, right: Sequence[str] = ()) -> Table:
        """Return the table that `table` shows, for use inside `watching`."""
        fancy = self.console.is_terminal
        # Two characters between columns: what is told must fit into eighty.
        table = Table(
            box=box.SIMPLE_HEAD if fancy else None,
            pad_edge=False,
            padding=(0, 1, 0, 0) if fancy else (0, 2, 0, 0),
            header_style="bold",
        )
        for column in columns:
            table.add_column(column, justify="right" if column in right else "left")
        for row in rows:
            table.add_row(*(Text(cell) for cell in row))
        return table

    @contextmanager
    def working(self, text: str) -> Iterator[Callable[[str], None]]:
        """Show that something long goes on; the yielded function says what it is now."""
        if not self.console.is_terminal:
            yield lambda _text: None
            return
        progress = Progress(
            TextColumn(" "),
            SpinnerColumn(),
            BarColumn(bar_width=12),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            # Last: what changes in length must not move the rest.
            TextColumn("{task.description}", style="dim", markup=False),
            console=self.console,
            transient=True,
        )
        with progress:
            task = progress.add_task(self._short(text), total=self.chapters, completed=self._number)
            yield lambda now: progress.update(task, description=self._short(now))

    def _short(self, text: str) -> str:
        """Cut a text to what is left of one line beside the bar."""
        room = max(self.console.width - _BAR_WIDTH, 1)
        return text if len(text) <= room else text[: room - 1] + "…"

    def watching(self, draw: Callable[[], Table], *, seconds: float, caption: str) -> None:
        """Show something live for a while, and leave its last picture standing."""
        until = time.monotonic() + seconds
        if not self.console.is_terminal:
            time.sleep(seconds)
            self.console.print(Padding(draw(), _INDENT, expand=False))
            return

        def picture() -> Group:
            left = max(0.0, until - time.monotonic())
            note = Text(f"{caption} ({left:.0f} s)" if left else caption, style="dim")
            return Group(Padding(draw(), _INDENT), Padding(note, _INDENT))

        with Live(picture(), console=self.console, refresh_per_second=_FRAMES_PER_SECOND) as live:
            while time.monotonic() < until:
                time.sleep(1 / _FRAMES_PER_SECOND)
                live.update(picture())
