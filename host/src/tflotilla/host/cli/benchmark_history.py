"""`tflotilla benchmark history`: the benchmarks that were saved."""

from __future__ import annotations

from pathlib import Path  # noqa: TC003 - typer reads it
from typing import Annotated

import typer

from tflotilla.host.cli import output
from tflotilla.shared.contract.errors import UsageError


def history(
    board: Annotated[str | None, typer.Option(help="Only benchmarks of that board.")] = None,
    model: Annotated[
        str | None, typer.Option(help="Only of that model: birds, birds-1.0.0, or the beginning of its SHA-256.")
    ] = None,
    limit: Annotated[int, typer.Option(help="At most so many, the newest first.")] = 20,
    fleet: Annotated[Path | None, typer.Option("--fleet", help="fleet.toml; default $TFLOTILLA_FLEET.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")] = False,
) -> None:
    """List the benchmarks that were saved, newest first; `benchmark show` and `benchmark compare` take id or name.

    Example: tflotilla benchmark history --board pi-1 --model birds

    Exit codes: 0 listed (though there be none), 2 usage, 3 bad fleet file, or a history that can't be read.
    """
    from tflotilla.host.benchmarks.rendering import words
    from tflotilla.host.benchmarks.sqlite import FILE, History
    from tflotilla.host.fleet.inventory.fleet import Fleet

    if not 1 <= limit <= 1_000_000:  # noqa: PLR2004 - more than anybody reads
        raise UsageError(f"--limit must be 1..1000000, not {limit}")
    path = Fleet.load(fleet).state / FILE
    entries = History(path).entries(board=board, model=model, limit=limit)
    if as_json:
        output.emit_json({"benchmarks": entries})
        return
    if not entries:
        some = "" if board is None and model is None else " of that"
        output.note(f"nothing{some} in {path}; `tflotilla benchmark SELECTOR --save` keeps a result")
        return
    rows = [
        (
            words.name(entry.name or words.NOTHING),
            words.name(entry.id),
            words.when(entry.created),
            _some(tuple(map(words.name, entry.boards))) if entry.boards else entry.tool,
            _some(tuple(map(words.name, entry.models))),
            str(entry.cells),
        )
        for entry in entries
    ]
    output.emit_table("Saved benchmarks", ("name", "id", "when", "boards", "models", "cells"), rows, right=("cells",))


_SHOWN = 4


def _some(names: tuple[str, ...]) -> str:
    more = len(names) - _SHOWN
    return (", ".join(names[:_SHOWN]) or "-") + (f" and {more} more" if more > 0 else "")
