"""`tflotilla rollback`: boards go back to the bundle that served before."""

from __future__ import annotations

from pathlib import Path  # noqa: TC003 - typer reads it
from typing import TYPE_CHECKING, Annotated

import typer

from tflotilla.host.cli import selecting  # noqa: TC001 - typer reads it

if TYPE_CHECKING:
    from tflotilla.host.fleet.push import Outcome


def rollback(
    selector: selecting.Selector,
    limit: selecting.Limit = None,
    forks: Annotated[int, typer.Option("--forks", min=1, help="How many boards at once.")] = 10,
    fleet: Annotated[
        Path | None, typer.Option("--fleet", help="fleet.toml; default $TFLOTILLA_FLEET, ./fleet.toml.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")] = False,
) -> None:
    """Bring the previous bundle back; it lies on the board still, nothing is sent. Once more, and it goes forward.

    Example: tflotilla rollback pi-7

    Exit codes: 0 done, 2 usage, 3 fleet.toml, 5 unreachable, 6 host key or login, 7 its agent doesn't run,
    11 nothing to go back to; 1 when boards failed in different ways.
    """
    from tflotilla.host.cli import results
    from tflotilla.host.fleet import pool, push
    from tflotilla.host.fleet.inventory.fleet import Fleet

    loaded = Fleet.load(fleet)
    names = loaded.select(selector, limit=limit)
    with results.progress(names) as shown:
        found = pool.run(
            names,
            lambda name: push.rollback(
                name, loaded, on_status=lambda status: shown.step(name, f"{status.title}: {status.state.value}")
            ),
            forks=forks,
        )
    results.finish(loaded.name, ("bundle", "took", "result"), found, _cells, as_json=as_json, right=("took",))


def _cells(outcome: Outcome) -> tuple[str, ...]:
    return (outcome.title, f"{outcome.duration_s:.1f} s", "serves again")
