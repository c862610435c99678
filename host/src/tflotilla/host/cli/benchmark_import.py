"""`tflotilla benchmark import FILE`: figures of `benchmark_model` and `litert-benchmark`, kept beside ours."""

from __future__ import annotations

from pathlib import Path  # noqa: TC003 - typer reads it
from typing import Annotated

import typer

from tflotilla.host.cli import output


def import_(
    file: Annotated[
        Path,
        typer.Argument(
            metavar="FILE", help="What benchmark_model or litert-benchmark printed, or the latter's --result_json."
        ),
    ],
    save: Annotated[bool, typer.Option("--save", help="Keep the result in the fleet's history.")] = False,
    name: Annotated[str | None, typer.Option(help="What to call it, for `benchmark compare`; implies --save.")] = None,
    model: Annotated[str | None, typer.Option(help="What the model is called, where the file does not say.")] = None,
    out: Annotated[
        Path | None, typer.Option("-o", "--output", metavar="FILE", help="Write a result file (.json).")
    ] = None,
    fleet: Annotated[Path | None, typer.Option("--fleet", help="fleet.toml; default $TFLOTILLA_FLEET.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="The result as one JSON document on stdout.")] = False,
) -> None:
    """Read what another benchmark wrote, to look at it and to compare it. What it did not say stays absent.

    Understood are benchmark_model's output of every TensorFlow and LiteRT (several runs in a file, op profiles as table
    or CSV, benchmark_model_performance_options), and litert-benchmark's JSON and output.

    Example: tflotilla benchmark import benchmark_model.log --name by-hand -o by-hand.json

    Exit codes: 0 imported, 2 usage, 3 not such a file, or it holds no figures, 11 another result has its id.
    """
    from tflotilla.host.benchmarks import importing, results
    from tflotilla.host.benchmarks.sqlite import FILE, History
    from tflotilla.host.cli.benchmark_show import emit
    from tflotilla.host.fleet.inventory.fleet import Fleet
    from tflotilla.host.models import delivery

    history = History(Fleet.load(fleet).state / FILE) if save or name is not None else None
    if history is not None:
        history.check(name)
    if out is not None:
        delivery.check_writable(out)
    found = importing.read(file, name=name, model=model)
    if out is not None:
        results.write(found.run, out)
    if history is not None:
        history.save(found.run)
    if as_json:
        output.emit_json(found.run)
    else:
        emit(found.run)
    for problem in found.problems:
        output.note(problem)
    if out is not None:
        output.note(f"written: {out}")
    if history is not None:
        called = "" if name is None else f" as {name!r}"
        output.note(f"saved{called}: {found.run.id} (tflotilla benchmark show {found.run.id})")
