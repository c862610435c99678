"""`tflotilla rollout worker`: does pushes for whoever conducts rollouts, on this machine or another."""

from __future__ import annotations

from typing import Annotated

import typer

from tflotilla.host.cli import output, selecting
from tflotilla.shared.contract.errors import ConfigError


def worker(
    forks: Annotated[int | None, typer.Option("--forks", min=1, help="How many boards at once.")] = None,
    fleet: selecting.FleetFile = None,
    as_json: selecting.Json = False,
) -> None:
    """Do pushes that a conductor hands out over Redis: with [rollouts] executor = "celery" in fleet.toml.

    Needs the fleet's folder (fleet.toml, keys, .tflotilla), shared or copied, wherever it lies. It may be killed at any
    moment: another worker does its jobs again, and boards know what was done.

    Example: tflotilla rollout worker --forks 20

    Exit codes: 0 ended, 3 fleet.toml names no broker, or it is away.
    """
    from tflotilla.host.fleet.inventory.fleet import Fleet

    loaded = Fleet.load(fleet)
    if loaded.rollouts.broker is None:
        raise ConfigError(
            f'{loaded.path} names no broker: [rollouts] executor = "celery", broker = "redis://host:6379/0"'
        )
    from tflotilla.host.rollouts.executors import celery

    if as_json:
        output.emit_json({"fleet": str(loaded.path), "forks": forks or loaded.rollouts.forks})

    celery.work(loaded.rollouts.broker, forks=forks or loaded.rollouts.forks, fleet_file=str(loaded.path))
