"""`tflotilla benchmark SELECTOR`: let boards measure the model they serve, and put the figures side by side."""

from __future__ import annotations

import secrets
import time
from pathlib import Path  # noqa: TC003 - typer reads it
from typing import Annotated

import typer

from tflotilla.host.cli import output
from tflotilla.shared.contract.errors import ConfigError, UsageError


def run(
    selector: Annotated[str, typer.Argument(help="Which boards: all, a name, key=value, …")],
    threads: Annotated[str, typer.Option(help="Numbers of threads, like 1,2,4.")] = "1",
    runtimes: Annotated[str, typer.Option(help="auto is every runtime a board has.")] = "auto",
    min_runs: Annotated[int, typer.Option(help="Timed runs at least; a p99 needs 662.")] = 662,
    min_seconds: Annotated[float, typer.Option(help="Measure at least that long.")] = 1.0,
    max_seconds: Annotated[float, typer.Option(help="Stop after that long, whatever is reached.")] = 30.0,
    warmup_runs: Annotated[int, typer.Option(help="Runs before the timed ones.")] = 10,
    at_once: Annotated[
        int, typer.Option(help="Boards that measure at the same time; 1 for virtual boards of one machine.")
    ] = 100,
    timeout: Annotated[float | None, typer.Option(help="Seconds to wait for a board's answer.")] = None,
    fleet: Annotated[Path | None, typer.Option("--fleet", help="fleet.toml; default $TFLOTILLA_FLEET.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")] = False,
) -> None:
    """Let boards measure the model they serve: latency by runtime and threads, load time, memory.

    Each configuration is a fresh process on the board. A percentile that too few runs support is marked with *.

    Example: tflotilla benchmark room=kitchen --threads 1,2,4 --max-seconds 10

    Exit codes: 0 every board answered, 2 usage, 3 bad fleet file, 7 a board can't measure, 10 a board does not answer
    or the broker is down, 1 some of this and some of that.
    """
    from tflotilla.host.benchmarks import plan, report
    from tflotilla.host.benchmarks.asking import ask
    from tflotilla.host.fleet import pool
    from tflotilla.host.fleet.inventory import Fleet
    from tflotilla.host.telemetry import mqtt
    from tflotilla.shared.contract import messages

    request = plan.check(
        messages.BenchmarkRequest(
            request=secrets.token_hex(8),
            runtimes=plan.parse_runtimes(runtimes),
            threads=plan.parse_threads(threads),
            warmup_runs=warmup_runs,
            min_runs=min_runs,
            min_seconds=min_seconds,
            max_seconds=max_seconds,
        )
    )
    if at_once < 1 or (timeout is not None and timeout <= 0):
        message = "--at-once must be at least 1, and --timeout above 0"
        raise UsageError(message)
    loaded = Fleet.load(fleet)
    if loaded.mqtt is None:
        message = f"{loaded.path} has no [mqtt] table, so no board can be asked; add host and port of your broker"
        raise ConfigError(message)
    asking = plan.Asking(
        request=request.request,
        boards=loaded.select(selector),
        patience_s=plan.patience_s(request) if timeout is None else timeout,
        began=time.monotonic(),
        at_once=at_once,
    )
    with mqtt.connect(loaded.mqtt, folder=loaded.folder) as broker, output.progress("asking the boards") as tell:
        asking = ask(broker, loaded.name, request, asking, tell=tell)
    if as_json:
        output.emit_json(report.document(request, asking.answers, asking.failures))
    elif asking.answers:
        shown = report.report(asking.answers)
        output.emit_table("Benchmark", report.COLUMNS, shown.rows, right=report.FIGURES)
        for line in shown.notes:
            output.note(line)
    results = tuple(
        pool.BoardResult(board=board, value=asking.answers.get(board), error=asking.failures.get(board))
        for board in asking.boards
    )
    for result in results:
        if result.error is not None:
            output.complain(str(result.error))
    if code := pool.exit_code(results):
        raise typer.Exit(code)
