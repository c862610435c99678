"""How commands speak: tables for people, JSON for machines, plain text when piped, errors on stderr.

Results go to stdout, everything else (progress, notes, errors) to stderr, so `--json` can always be piped.
"""

from __future__ import annotations

import functools
import json
import os
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tflotilla.shared.contract import codec
from tflotilla.shared.contract.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from rich.console import Console, JustifyMethod

#: Beyond every table: what is piped is never cut short, and a narrow column never gives way to a long error.
_PIPED_WIDTH = 10_000
#: Longer words, names of files and tensors mostly, may be broken in a table.
_FOLDED = 16
#: Rows that rich draws in about a second.
_MOST_DRAWN = 1000
#: What a table adds to each column: padding and the gap to the next.
_BORDERS = 3
#: What it adds once.
_EDGE = 1


@functools.cache
def console() -> Console:
    """Return the console on stdout; wide and without colours when piped."""
    from rich.console import Console

    return Console(highlight=False) if sys.stdout.isatty() else Console(highlight=False, width=_PIPED_WIDTH)


@functools.cache
def notes() -> Console:
    """Return the console on stderr, for whatever is not the result."""
    from rich.console import Console

    return Console(stderr=True, highlight=False, soft_wrap=True)


def complain(message: str) -> None:
    """Print one line on stderr: `tflotilla: message`. Control characters of foreign words are shown, not obeyed."""
    sys.stderr.write(f"tflotilla: {_shown(' '.join(message.splitlines()))}\n")


def _shown(text: str) -> str:
    """Show control characters of foreign words instead of obeying them."""
    return text if text.isprintable() else "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def _lines(text: str) -> str:
    """As `_shown`, but line breaks stay."""
    return text if text.isprintable() else "\n".join(map(_shown, text.split("\n")))


def note(message: str) -> None:
    """Print a line for people on stderr; only our own line breaks break it."""
    notes().print("\n".join(_shown(line) for line in message.split("\n")), markup=False)


def emit_json(document: Any) -> None:  # noqa: ANN401 - any contract value or JSON document
    """Print one JSON document on stdout."""
    sys.stdout.write(json.dumps(codec.encode(document), indent=2, sort_keys=True, allow_nan=False) + "\n")


def emit_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], *, right: Sequence[str] = ()) -> None:
    """Print a table; the columns named in `right` are figures. Piped, it is plain text with a header line.

    On a terminal too narrow for whole words, every row becomes a block of lines: `column  value`. Thousands of rows are
    plain text there too: drawing them would take longer than reading the first hundred. Control characters of foreign
    words are shown, not obeyed.
    """
    rows = [[_lines(cell) for cell in row] for row in rows]
    if (len(rows) > _MOST_DRAWN or not console().is_terminal) and _plain(columns, rows):
        sys.stdout.write(_plain_table(columns, rows, right))
        return
    from rich import box
    from rich.cells import cell_len
    from rich.table import Table
    from rich.text import Text

    fancy = console().is_terminal
    widths = [_least_width(column, [row[n] for row in rows]) for n, column in enumerate(columns)]
    room = console().width - _BORDERS * len(widths) - _EDGE
    if fancy and sum(widths) > room:
        _emit_blocks(title, columns, rows)
        return
    if fancy:
        natural = [
            max(cell_len(text) for text in (column, *(row[n] for row in rows))) for n, column in enumerate(columns)
        ]
        widths = _fitted(natural, widths, room)
    table = Table(title=title if fancy else None, box=box.SIMPLE_HEAD if fancy else None, title_justify="left")
    for column, width in zip(columns, widths, strict=True):
        justify: JustifyMethod = "right" if column in right else "left"
        table.add_column(column, justify=justify, no_wrap=not fancy, overflow="fold", width=width if fancy else None)
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    console().print(table)


def _plain(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> bool:
    """Whether every cell is one line of characters that are one cell wide each."""
    from rich.cells import cell_len

    return all(
        cell.isprintable() and (cell.isascii() or cell_len(cell) == len(cell))
        for row in (columns, *rows)
        for cell in row
    )


def _plain_table(columns: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[str]) -> str:
    """Write what rich would write without a terminal, in a hundredth of its time."""
    widths = [max(map(len, cells)) for cells in zip(columns, *rows, strict=True)]
    aligned = [f"{'>' if column in right else '<'}{width}" for column, width in zip(columns, widths, strict=True)]
    line = " " + "  ".join(f"{{:{each}}}" for each in aligned) + " \n"
    return "".join(line.format(*row) for row in (columns, *rows))


def _least_width(column: str, cells: Sequence[str]) -> int:
    """Return how wide a column must be to break no heading and no short word."""
    words = [word for cell in cells for word in cell.split()]
    return max(*(len(word) for word in column.split()), 1, min(_FOLDED, max((len(word) for word in words), default=1)))


def _fitted(natural: Sequence[int], least: Sequence[int], room: int) -> list[int]:
    """Narrow as few columns as possible, those first that can spare most; rich itself would cut the last one off."""
    widths = [max(each) for each in zip(natural, least, strict=True)]
    for n in sorted(range(len(widths)), key=lambda n: least[n] - widths[n]):
        excess = sum(widths) - room
        if excess <= 0:
            break
        widths[n] = max(least[n], widths[n] - excess)
    return widths


def _emit_blocks(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    from rich.table import Table
    from rich.text import Text

    console().print(Text(title, style="italic"))
    for row in rows:
        block = Table(box=None, show_header=False, pad_edge=False)
        block.add_column(no_wrap=True, style="bold")
        block.add_column(overflow="fold")
        for column, cell in zip(columns, row, strict=True):
            if cell:
                block.add_row(Text(column), Text(cell))
        console().print(block, end="\n\n")


@contextmanager
def progress(description: str) -> Iterator[Callable[[str], None]]:
    """Show that something long is going on; the yielded function replaces the description.

    A spinner with elapsed time on a terminal, one line per change elsewhere.
    """
    if not notes().is_terminal:
        if description:
            note(_shown(description))
        yield lambda text: note(_shown(text))
        return
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    with Progress(
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        TimeElapsedColumn(),
        console=notes(),
        transient=True,
    ) as bar:
        task = bar.add_task(_shown(description))
        yield lambda text: bar.update(task, description=_shown(text))


def spare(say: Callable[[str], None]) -> Callable[[str], None]:
    """Leave out the counting where every change is a line of its own."""
    if notes().is_terminal:
        return say
    told: set[str] = set()

    def once(text: str) -> None:
        subject = text.rsplit(":", 1)[0]
        if subject not in told:
            told.add(subject)
            say(subject)

    return once


def write_json(path: Path, document: Any) -> None:  # noqa: ANN401 - any contract value or JSON document
    """Write one JSON document to a file, whole or not at all. Raises InputError."""
    text = json.dumps(codec.encode(document), indent=2, sort_keys=True, allow_nan=False) + "\n"
    try:
        with tempfile.NamedTemporaryFile("w", dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
            file.write(text)
        Path(file.name).replace(path)
    except OSError as error:
        raise InputError(f"{path} can't be written: {error.strerror}") from error


def check_writable(path: Path) -> None:
    """Find out before long work whether its result can be written. Raises InputError."""
    if path.is_dir() or not path.parent.is_dir() or not os.access(path.parent, os.W_OK):
        raise InputError(f"{path} can't be written: give a file in a folder that exists and is yours")
    if path.exists() and not path.is_file():
        # Files are put in their place whole: a device would be replaced, too.
        raise InputError(f"{path} can't be written: it is no file")
