"""`tflotilla status`: what every board is doing, asked over SSH now."""

from __future__ import annotations

from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Annotated

import typer

from tflotilla.host.cli import output, selecting
from tflotilla.shared.contract.errors import UnreachableError

if TYPE_CHECKING:
    from tflotilla.host.fleet.push import BoardStatus
    from tflotilla.shared.contract.errors import TflotillaError
    from tflotilla.shared.contract.messages import ServedBundle, State


def status(
    selector: selecting.OptionalSelector = "all",
    limit: selecting.Limit = None,
    forks: Annotated[int, typer.Option("--forks", min=1, help="How many boards at once.")] = 10,
    fleet: Annotated[
        Path | None, typer.Option("--fleet", help="fleet.toml; default $TFLOTILLA_FLEET, ./fleet.toml.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")] = False,
) -> None:
    """Show what boards serve and how they are: bundle, runtime, worker, last problem.

    Example: tflotilla status room=kitchen

    Exit codes: 0 all answered, 2 usage, 3 fleet.toml, 5 unreachable, 6 host key or login, 7 no agent; 1 when boards
    failed in different ways.
    """
    from tflotilla.host.cli import results
    from tflotilla.host.fleet import pool, push
    from tflotilla.host.fleet.inventory.fleet import Fleet

    loaded = Fleet.load(fleet)
    names = loaded.select(selector, limit=limit)
    with output.progress(f"asking {len(names)} board{'s' if len(names) > 1 else ''}"):
        found = pool.run(names, lambda name: push.status(name, loaded), forks=forks)
    columns = ("reachable", "serves", "previous", "runtime", "agent", "worker", "last problem")
    results.finish(loaded.name, columns, found, _cells, as_json=as_json, on_failure=_reachable)


def _reachable(error: TflotillaError) -> tuple[str, ...]:
    return ("no" if isinstance(error, UnreachableError) else "yes",)


def _cells(board: BoardStatus) -> tuple[str, ...]:
    state = board.state
    return (
        "yes",
        _title(board.serving),
        _title(board.previous),
        _runtime(state) if state else "-",
        f"{board.agent_version}{'' if board.running else ', stopped'}",
        state.worker if state else "-",
        (_problem(state) or "-") if state else "its agent doesn't run",
    )


def _runtime(state: State) -> str:
    if state.runtime is None:
        return "-"
    # A delegate's path is long and its end tells which it is.
    delegate = f", {PurePosixPath(state.delegate.active).name}" if state.delegate.active else ""
    return f"{state.runtime}, {state.num_threads} thr.{delegate}"


def _problem(state: State) -> str:
    unused = state.delegate.reason if state.delegate.active is None else None
    return "; ".join(filter(None, (state.problem, unused and f"on the CPU: {unused}")))


def _title(bundle: ServedBundle | None) -> str:
    return f"{bundle.name}-{bundle.version}" if bundle else "nothing"
