"""Boards from a table: CSV with a header line, separated by commas, semicolons or tabs.

    name,host,port,user,identity,jump,python,install,groups,labels,room

`host` or `name` must be there; `groups` and `labels` (key=value) hold several words with spaces or ';' between them.
Any other column is a label of its own name. Lines that begin with '#' are passed over.
What it does NOT do: read spreadsheets; every one of them can write CSV.
"""

from __future__ import annotations

import csv
import io
from typing import TYPE_CHECKING, Any

from tflotilla.host.fleet.entries import BoardEntry
from tflotilla.host.fleet.importing.candidates import Candidate, LeftOut, Reading, board_name, distinct
from tflotilla.host.fleet.selectors import is_group, is_key, parse_labels
from tflotilla.shared.contract.errors import InputError, UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping
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
    lines = [(number, line) for number, line in enumerate(text.splitlines(), 1) if not line.lstrip().startswith("#")]
    lines = [(number, line) for number, line in lines if line.strip(" \t,;")]
    if not lines:
        message = f"{source} holds no table"
        raise InputError(message)
    separator = max(",;\t", key=lines[0][1].count)
    header = [name.strip().lower() for name in _cells(lines[0][1], separator)]
    _check(header, source)
    candidates: list[Candidate] = []
    left_out: list[LeftOut] = []
    for number, line in lines[1:]:
        cells = [cell.strip() for cell in _cells(line, separator)]
        row = {name: cell for name, cell in zip(header, cells, strict=False) if name and cell}
        where = f"line {number}"
        try:
            if any(cells[len(header) :]):
                message = f"it has {len(cells)} cells, the header {len(header)}"
                raise ValueError(message)  # noqa: TRY301 - told with its line
            candidates.append(_candidate(row))
        except (ValueError, UsageError) as error:
            left_out.append(LeftOut(origin=row.get("name") or row.get("host") or where, reason=f"{where}: {error}"))
    kept = distinct(candidates, left_out)
    return Reading(source=source, candidates=kept, left_out=tuple(left_out))


def _cells(line: str, separator: str) -> list[str]:
    return next(csv.reader(io.StringIO(line), delimiter=separator), [])


def _check(header: list[str], source: str) -> None:
    if "host" not in header and "name" not in header:
        message = f"{source}: the first line must name the columns, name and host among them, not {header[:6]}"
        raise InputError(message)
    twice = {name for name in header if name and header.count(name) > 1}
    odd = [name for name in header if name and name not in _COLUMNS and not is_key(name)]
    if twice or odd:
        said = f"column {min(twice)!r} stands there twice" if twice else f"column {odd[0]!r} can't be a label"
        message = f"{source}: {said}"
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
    if table.get("install", "auto") not in ("auto", "user", "system"):
        message = f"install must be auto, user or system, not {table['install']!r}"
        raise ValueError(message)
    words = row.get("labels", "").replace(";", " ").split()
    labels = parse_labels(words) | {key: value for key, value in row.items() if key not in _COLUMNS}
    if labels:
        table["labels"] = labels
    groups = tuple(row.get("groups", "").replace(";", " ").split())
    for group in groups:
        if not is_group(group):
            message = f"{group!r} can't be a group's name"
            raise ValueError(message)
    BoardEntry(**table)
    notes = (f"{origin} becomes {name}",) if name != origin else ()
    return Candidate(name=name, origin=origin, table=table, groups=groups, notes=notes)
