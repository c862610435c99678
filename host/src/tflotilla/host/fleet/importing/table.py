"""Boards from a table: CSV with a header line, separated by commas, semicolons or tabs.

    name,host,port,user,identity,jump,python,install,groups,labels,room

`host` or `name` must be there; `groups` and `labels` (key=value) hold several words with spaces or ';' between them.
Any other column is a label of its own name, where name and value can be one. Lines that begin with '#' are passed over.
What it does NOT do: read spreadsheets; every one of them can write CSV.
"""

from __future__ import annotations

import csv
import io
from typing import TYPE_CHECKING, Any

from tflotilla.host.fleet.importing.candidates import Candidate, LeftOut, Reading, board_name, distinct
from tflotilla.host.fleet.inventory.entries import BoardEntry
from tflotilla.host.fleet.selection.selectors import is_group, is_key, is_label, parse_labels
from tflotilla.shared.contract.errors import InputError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

_PLAIN = ("host", "user", "identity", "jump", "python", "install")
_COLUMNS = frozenset({*_PLAIN, "name", "port", "groups", "labels"})
_LARGEST_BYTES = 32 << 20


def read(path: Path) -> Reading:
    """Read a table. Raises InputError."""
    try:
        with path.open("rb") as stream:
            data = stream.read(_LARGEST_BYTES + 1)
        if len(data) > _LARGEST_BYTES:
            message = f"{path} is larger than {_LARGEST_BYTES >> 20} MiB"
            raise InputError(message)
        text = data.decode("utf-8-sig")
    except OSError as error:
        message = f"{path}: {error.strerror or error}"
        raise InputError(message) from error
    except UnicodeDecodeError as error:
        message = f"{path} is not text in UTF-8 (byte {error.start})"
        raise InputError(message) from error
    return parse(text, str(path))


def parse(text: str, source: str) -> Reading:
    """Read a table's text. Raises InputError: the header can't be used."""
    lines = _rows(text, source)
    if not lines:
        message = f"{source} holds no table"
        raise InputError(message)
    header = [name.lower() for name in lines[0][1]]
    _check(header, source)
    odd = {name for name in header if name and name not in _COLUMNS and not is_key(name)}
    candidates: list[Candidate] = []
    left_out: list[LeftOut] = []
    for number, cells in lines[1:]:
        row = {name: cell for name, cell in zip(header, cells, strict=False) if name and cell and name not in odd}
        where = f"line {number}"
        try:
            if any(cells[len(header) :]):
                message = f"it has {len(cells)} cells, the header {len(header)}"
                raise ValueError(message)  # noqa: TRY301 - told with its line
            candidates.append(_candidate(row))
        except (ValueError, UsageError) as error:
            left_out.append(LeftOut(origin=row.get("name") or row.get("host") or where, reason=f"{where}: {error}"))
    kept = distinct(candidates, left_out)
    notes = tuple(f"column {name!r} is passed over: it can't be a label" for name in header if name in odd)
    return Reading(source=source, candidates=kept, left_out=tuple(left_out), notes=notes)


def _rows(text: str, source: str) -> list[tuple[int, list[str]]]:
    """Return the rows that hold something, each with the number of its first line; a quoted cell may have several."""
    found: list[tuple[int, list[str]]] = []
    #: The lines of the row that is being read; within one, a line is what it is.
    row: list[int] = []

    def lines() -> Iterator[str]:
        for number, line in enumerate(io.StringIO(text, newline=""), 1):
            if row or (not line.lstrip().startswith("#") and line.strip(" \t,;\r\n")):
                row.append(number)
                yield line

    first = next(lines(), "")
    row.clear()
    try:
        for cells in csv.reader(lines(), delimiter=max(",;\t", key=first.count), strict=True):
            found.append((row[0], [cell.strip() for cell in cells]))
            row.clear()
    except csv.Error as error:
        message = f"{source}, line {row[0]}: {error}"
        raise InputError(message) from error
    return found


def _check(header: list[str], source: str) -> None:
    if "host" not in header and "name" not in header:
        message = f"{source}: the first line must name the columns, name and host among them, not {header[:6]}"
        raise InputError(message)
    twice = {name for name in header if name and header.count(name) > 1}
    if twice:
        message = f"{source}: column {min(twice)!r} stands there twice"
        raise InputError(message)


def _candidate(row: Mapping[str, str]) -> Candidate:
    origin = row.get("name") or row.get("host")
    if origin is None:
        message = "it names neither a board nor a host"
        raise ValueError(message)
    name = board_name(origin)
    table: dict[str, Any] = {"host": origin, **{key: row[key] for key in _PLAIN if key in row}}
    if "port" in row:
        if not row["port"].isdecimal():
            message = f"port {row['port']!r} is no port"
            raise ValueError(message)
        table["port"] = int(row["port"])
    words = row.get("labels", "").replace(";", " ").split()
    said = {key: value for key, value in row.items() if key not in _COLUMNS}
    labels = parse_labels(words) | {key: value for key, value in said.items() if is_label(key, value)}
    if labels:
        table["labels"] = labels
    groups = tuple(row.get("groups", "").replace(";", " ").split())
    for group in groups:
        if not is_group(group):
            message = f"{group!r} can't be a group's name"
            raise ValueError(message)
    BoardEntry(**table)
    notes = [f"{origin} becomes {name}"] if name != origin else []
    # A table has columns for people too: what stands there is no reason to leave a board out.
    notes += [
        f"{key} can't be a label: {' '.join(value.split())!r}" for key, value in said.items() if key not in labels
    ]
    return Candidate(name=name, origin=origin, table=table, groups=groups, notes=tuple(notes))
