"""What is stored as tables for other tools: CSV or Parquet. The one door to pyarrow.

Rules it keeps: rows stream, so memory doesn't grow with the history; a file appears whole or not at all; times are UTC
(ISO 8601 in CSV, timestamps in Parquet); what isn't known is empty. What it does NOT do: choose what is exported.
"""

from __future__ import annotations

import csv
import datetime
import itertools
import json
import os
import tempfile
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Literal, get_args

from tflotilla.shared.contract.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

Format = Literal["csv", "parquet"]
FORMATS: tuple[Format, ...] = get_args(Format)
Kind = Literal["time", "text", "whole", "number", "truth"]
_ROWS_AT_ONCE = 5000
_FIRST_TIME, _LAST_TIME = -62_135_596_800.0, 253_402_300_799.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """Named columns and the rows to come, each with a value (or None) per column; times are Unix seconds."""

    columns: tuple[tuple[str, Kind], ...]
    rows: Iterable[Sequence[Any]]


def write(table: Table, path: Path, form: Format) -> int:
    """Write a table to a file; return how many rows.

    Raises:
        InputError: the file can't be written.

    """
    # A link stays one: what it leads to is written.
    path = path.resolve()
    if path.exists() and not path.is_file():
        raise InputError(f"{path} can't be written: it is no file")
    try:
        with tempfile.NamedTemporaryFile("wb", dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
            temporary = Path(file.name)
            try:
                count = _WRITERS[form](table, file)
                file.flush()
                os.fsync(file.fileno())
                # As other files of this user; a temporary one is nobody else's.
                mask = os.umask(0)
                os.umask(mask)
                temporary.chmod(0o666 & ~mask)
                temporary.replace(path)
            except BaseException:
                with suppress(OSError):
                    temporary.unlink()
                raise
    except OSError as error:
        raise InputError(f"{path} can't be written: {error.strerror or error}") from error
    return count


def write_csv(table: Table, file: IO[bytes]) -> int:
    """Write a table as CSV (RFC 4180, UTF-8, a header line)."""
    import io

    text = io.TextIOWrapper(file, encoding="utf-8", errors="backslashreplace", newline="", write_through=False)
    writer = csv.writer(text)
    writer.writerow(name for name, _ in table.columns)
    count = 0
    spoken = [_SPOKEN.get(kind, _as_it_is) for _, kind in table.columns]
    for row in table.rows:
        writer.writerow([None if value is None else say(value) for say, value in zip(spoken, row, strict=True)])
        count += 1
    text.flush()
    # The file stays the caller's.
    text.detach()
    return count


def _write_parquet(table: Table, file: IO[bytes]) -> int:
    import pyarrow as pa  # type: ignore[import-untyped]
    from pyarrow import parquet

    kinds: dict[Kind, Any] = {
        "time": pa.timestamp("us", tz="UTC"),
        "text": pa.string(),
        "whole": pa.int64(),
        "number": pa.float64(),
        "truth": pa.bool_(),
    }
    schema = pa.schema([(name, kinds[kind]) for name, kind in table.columns])
    count = 0
    with parquet.ParquetWriter(file, schema, compression="zstd") as writer:
        for some in _batches(table.rows):
            columns = list(zip(*some, strict=True))
            arrays = [
                pa.array([None if value is None else _STORED[kind](value) for value in column], kinds[kind])
                for column, (_, kind) in zip(columns, table.columns, strict=True)
            ]
            writer.write_batch(pa.record_batch(arrays, schema=schema))
            count += len(some)
    return count


_WRITERS: dict[Format, Callable[[Table, IO[bytes]], int]] = {"csv": write_csv, "parquet": _write_parquet}


def _batches(rows: Iterable[Sequence[Any]]) -> Iterator[list[Sequence[Any]]]:
    going = iter(rows)
    while some := list(itertools.islice(going, _ROWS_AT_ONCE)):
        yield some


def _as_it_is(value: object) -> object:
    return value


def _is_in_calendar(value: float) -> bool:
    # Boards say what they like: a time outside of the years 1 to 9999 is none.
    return _FIRST_TIME <= value <= _LAST_TIME


def _iso(value: float) -> str | None:
    if not _is_in_calendar(value):
        return None
    moment = datetime.datetime.fromtimestamp(value, datetime.UTC)
    return moment.strftime("%Y-%m-%dT%H:%M:%S.") + f"{moment.microsecond // 1000:03d}Z"


_SPOKEN: dict[Kind, Callable[[Any], object]] = {"time": _iso, "truth": lambda value: "true" if value else "false"}
_MOST_WHOLE = (1 << 63) - 1
_STORED: dict[Kind, Callable[[Any], object]] = {
    "time": lambda value: int(value * 1e6) if _is_in_calendar(value) else None,
    "text": lambda value: value if isinstance(value, str) else json.dumps(value),
    "whole": lambda value: max(-_MOST_WHOLE, min(_MOST_WHOLE, int(value))),
    "number": float,
    "truth": bool,
}
