"""`tflotilla export`: give what was collected to other tools."""

from __future__ import annotations

import enum
import sys
from pathlib import Path  # noqa: TC003 - typer reads it
from typing import Annotated

import typer

from tflotilla.host.cli import output, selecting, stored_telemetry
from tflotilla.shared.contract.errors import UsageError


class What(str, enum.Enum):
    """What to export."""

    METRICS = "metrics"
    PREDICTIONS = "predictions"
    EVENTS = "events"
    DEPLOYMENTS = "deployments"
    BENCHMARKS = "benchmarks"
    ROLLUPS = "rollups"


class Form(str, enum.Enum):
    """How to write it."""

    CSV = "csv"
    PARQUET = "parquet"


class Per(str, enum.Enum):
    """Of rollups, the span of a row."""

    MINUTE = "minute"
    HOUR = "hour"
    DAY = "day"


def export(
    selector: selecting.OptionalSelector = "all",
    to: Annotated[Path | None, typer.Option("--output", "-o", metavar="FILE", help="Where to; - is stdout.")] = None,
    form: Annotated[Form, typer.Option("--format", help="How to write it.")] = Form.CSV,
    what: Annotated[What, typer.Option("--what", help="What to export.")] = What.METRICS,
    per: Annotated[Per, typer.Option("--per", help="Of rollups, the span of a row.")] = Per.HOUR,
    since: stored_telemetry.Since = "1d",
    until: stored_telemetry.Until = None,
    store: stored_telemetry.Store = None,
    fleet: selecting.FleetFile = None,
    as_json: selecting.Json = False,
) -> None:
    """Write what `tflotilla collect` kept as CSV or Parquet: one row per window, prediction, report or sum.

    Rows stream, so it may be more than fits into memory; the file appears when it is whole. Times are UTC. Rollups are
    sums per minute, hour or day of each board and bundle, with percentiles and the sketches they come from.

    Example: tflotilla export --what predictions --since 7d --format parquet --output predictions.parquet

    Exit codes: 0 done, 2 usage, 3 nothing was collected, the store can't be read, or the file can't be written.
    """
    from tflotilla.host.telemetry.store import exporting, tables

    if to is None:
        raise UsageError("say where to: --output FILE, or - for stdout")
    to_stdout = str(to) == "-"
    if to_stdout and (form is Form.PARQUET or as_json):
        raise UsageError("only CSV goes to stdout, and without --json; give --output a file")
    if not to_stdout:
        output.check_writable(to)
    begins, ends = stored_telemetry.span(since, until)
    loaded, boards = stored_telemetry.boards_of(fleet, selector, store=store)
    with stored_telemetry.opened(loaded, store) as opened:
        table = tables.table(opened, what.value, since=begins, until=ends, boards=boards, span=per.value)
        if to_stdout:
            exporting.write_csv(table, sys.stdout.buffer)
            return
        with output.progress(f"exporting {what.value} to {to}"):
            rows = exporting.write(table, to, form.value)
    if as_json:
        output.emit_json({"file": str(to), "format": form.value, "what": what.value, "rows": rows})
    else:
        typer.echo(f"{rows} rows of {what.value} in {to}")
